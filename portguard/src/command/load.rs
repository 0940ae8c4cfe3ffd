//! `portguard load`: compile, load, and put in force.

pub(super) mod safety;
mod streams;
pub(super) mod weaker;

use std::io::{self, Write as _};
use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use clap::{Args, ValueEnum};
use serde::Serialize;

use self::safety::{Safety, SafetyArgs};
use self::weaker::Words;
use super::check::talk_briefly;
use super::doctor::warn;
use super::selection::{Loaded, STDIN, SelectionArgs};
use crate::stderr::stderr;
use crate::stdout::print_json;
use portguard_fleet::now;
use portguard_kernel::fault::step;
use portguard_kernel::generation::deadline;
use portguard_kernel::generation::publish::publish;
use portguard_kernel::generation::{self, Live, Occasion, Options, Prepared};
use portguard_kernel::host::boot;
use portguard_kernel::host::interface::{Interface, all, names};
use portguard_kernel::host::links;
use portguard_kernel::host::operator;
use portguard_kernel::host::privileges;
use portguard_kernel::pins;
use portguard_kernel::pins::bpffs::Layout;
use portguard_kernel::pins::guarded::guarded;
use portguard_kernel::pins::meta::{Sources, XdpModeName};
use portguard_kernel::preflight;
use portguard_kernel::recovery::reconcile::reconcile;
use portguard_kernel::store::{self, Stored};
use portguard_observe::{evidence, observe};
use portguard_policy::diagnostic::{Diagnostic, Level, Rejected};
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::plain;
use portguard_policy::policy::{Compiled, Policy};

/// What is said of names that were not asked for, and of peers that have no address without them.
const NOT_ASKED: &str = "domain-not-asked";
const NO_ADDRESS: &str = "empty-peers";

/// Guard network interfaces by the documented matrix
///
/// Compiles the policy, loads it beside the running one, and swaps atomically. A failure before the swap changes nothing.
/// Without --enforce (or `mode = "enforce"` in the site) nothing that arrives is ever dropped, and without
/// `outbound = "enforce"` nothing that is sent.
#[derive(Debug, Clone, Args)]
#[command(after_help = "\
Examples:
  portguard load --audit  /etc/portguard/site.toml; counts, drops nothing
  portguard load -c site.toml --dry-run  compile, change nothing
  portguard load -c site.toml --enforce --confirm-within 2m
  portguard load --role thoughtspot/node --interface eth0 --audit \\
      --unprinted-peers any --unresolved-peers any")]
#[expect(clippy::struct_excessive_bools, reason = "one a flag")]
pub struct LoadArgs {
    #[command(flatten)]
    pub(super) selection: SelectionArgs,
    /// Interface to guard; may be repeated [default: those that the site names for this host]
    #[arg(short, long = "interface", value_name = "IF")]
    interfaces: Vec<String>,
    /// Where XDP runs: native (in the driver) or generic (in the stack: slow, works everywhere)
    #[arg(long, value_enum, default_value_t = XdpModeArg::Native)]
    xdp_mode: XdpModeArg,
    #[command(flatten)]
    safety: SafetyArgs,
    /// Load the last good policy from disk, without site file or resolver (used by the systemd unit)
    #[arg(long, requires = "interfaces", conflicts_with_all = ["config", "roles", "host", "audit", "enforce", "dry_run"])]
    pub(super) last_good: bool,
    /// With `--last-good`: nothing is done unless the unit that guards the interface at boot is enabled (used by the udev rule)
    #[arg(long, requires = "last_good")]
    if_enabled: bool,
    /// With `--last-good`: guard also what `unload --stay-off` switched off
    #[arg(long, requires = "last_good")]
    switch_on: bool,
    /// Compile and show what would be loaded; change nothing
    #[arg(long)]
    pub(super) dry_run: bool,
    /// Write JSON
    #[arg(long)]
    pub(super) json: bool,
}

/// `--xdp-mode`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum XdpModeArg {
    /// In the driver.
    Native,
    /// In the stack.
    Generic,
}

#[derive(Debug, Serialize)]
struct Answer {
    loaded: Vec<LoadedInterface>,
    /// What a dry run would have loaded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    would_load: Vec<WouldLoad>,
}

/// What a dry run found.
#[derive(Debug, Serialize)]
pub(super) struct WouldLoad {
    interface: String,
    mode: &'static str,
    inbound: usize,
    outbound: usize,
    digest: String,
}

#[derive(Debug, Serialize)]
pub(super) struct LoadedInterface {
    interface: String,
    mode: &'static str,
    outbound: &'static str,
    xdp_mode: &'static str,
    generation: u64,
    digest: String,
    replaced: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[serde(serialize_with = "portguard_policy::human::seconds::maybe::serialize")]
    confirm_deadline: Option<u64>,
}

/// Loads.
///
/// # Errors
/// [`Rejected`] policies, and what the system refuses.
pub fn run(args: &LoadArgs) -> anyhow::Result<Exit> {
    let mut would: Vec<WouldLoad> = Vec::new();
    let done = execute(args, &mut would)?;
    match done {
        Some(done) if args.json => print_json(&Answer {
            loaded: done.interfaces,
            would_load: Vec::new(),
        })?,
        Some(done) => {
            tell(&done);
            tell_of_boot(&done);
        }
        None if args.json => print_json(&Answer {
            loaded: Vec::new(),
            would_load: would,
        })?,
        None => {}
    }
    Ok(Exit::Ok)
}

/// What was loaded.
pub(super) struct Done {
    pub(super) interfaces: Vec<LoadedInterface>,
    /// What to change in the site file so that it says what was loaded.
    pub(super) lines: Vec<String>,
    within: Duration,
}

/// What has a say in what is loaded.
pub(super) trait Gate {
    /// Refuses what needs no policy to be refused.
    ///
    /// # Errors
    /// Why.
    fn before(&mut self, _interfaces: &[Interface]) -> anyhow::Result<()> {
        Ok(())
    }

    /// Whether it lets these policies through.
    ///
    /// # Errors
    /// If that cannot be told.
    fn passes(
        &mut self,
        interfaces: &[Interface],
        policies: &[Policy],
        site: &Loaded,
    ) -> anyhow::Result<bool>;
}

/// Lets all through, and says what a dry run would load.
impl Gate for Vec<WouldLoad> {
    fn passes(
        &mut self,
        interfaces: &[Interface],
        policies: &[Policy],
        _site: &Loaded,
    ) -> anyhow::Result<bool> {
        let each = interfaces.iter().zip(policies);
        self.extend(each.map(|(interface, policy)| WouldLoad {
            interface: interface.name.clone(),
            mode: policy.settings.mode(),
            inbound: policy.inbound.len(),
            outbound: policy.outbound.len(),
            digest: policy.digest(),
        }));
        Ok(true)
    }
}

/// Loads what the `gate` lets through, which sees what was compiled; `None` if nothing was to be touched.
///
/// # Errors
/// See [`run`], and those of the gate.
pub(super) fn execute(args: &LoadArgs, gate: &mut impl Gate) -> anyhow::Result<Option<Done>> {
    if !args.dry_run {
        privileges::check()?;
        preflight::check_kernel()?;
    }
    let jobs = if args.last_good {
        stored(args)?
    } else {
        match compiled(args, gate)? {
            Some(jobs) => jobs,
            None => return Ok(None),
        }
    };
    let within = jobs
        .first()
        .map_or(Duration::ZERO, |job| job.options.confirm_within);
    let mut lines: Vec<String> = jobs
        .iter()
        .filter_map(|job| job.words.differs(&job.policy))
        .collect();
    lines.dedup();
    let interfaces = put_in_force(jobs)?;
    Ok(Some(Done {
        interfaces,
        lines,
        within,
    }))
}

/// One interface to load.
struct Job {
    interface: Interface,
    policy: Policy,
    options: Options,
    safety: Safety,
    /// Whether open sessions may be cut.
    cuts: bool,
    words: Words,
}

/// From site and catalogs; `None` if nothing is to be touched.
fn compiled(args: &LoadArgs, gate: &mut impl Gate) -> anyhow::Result<Option<Vec<Job>>> {
    let mut site = args.selection.read()?;
    let host = site.compile_alone(None).policy.host;
    let interfaces = find(&without_absent(
        interfaces(args, &site, host.as_deref())?,
        args,
    ))?;
    gate.before(&interfaces)?;
    // Names take time: what is wrong without them is said first.
    for interface in &interfaces {
        let mut compiled = site.compile(Some(&interface.name));
        let is_of_names = |one: &Diagnostic| [NOT_ASKED, NO_ADDRESS].contains(&one.code);
        compiled.diagnostics.retain(|one| !is_of_names(one));
        refuse_errors(compiled)?;
    }
    args.selection.resolve(&mut site)?;
    let mut policies = Vec::new();
    let mut told = Vec::new();
    for interface in &interfaces {
        policies.push(accept(site.compile(Some(&interface.name)), &mut told)?);
    }
    let plain: Vec<Policy> = policies.iter().map(|one| one.policy.clone()).collect();
    if !gate.passes(&interfaces, &plain, &site)? {
        return Ok(None);
    }
    if args.dry_run {
        dry_run(&interfaces, &policies)?;
        return Ok(None);
    }
    warn(&interfaces);
    let safety = safety::check(args.safety.force, args.safety.cuts(), &interfaces, &plain)?;
    let options = Options {
        xdp_mode: match args.xdp_mode {
            XdpModeArg::Native => XdpModeName::Native,
            XdpModeArg::Generic => XdpModeName::Generic,
        },
        sources: sources(&site, host.as_deref()),
        confirm_within: safety::confirm_within(&args.safety, &interfaces, &plain),
        migrate: args.safety.migrate,
        occasion: Occasion::Load,
        over_unknown: false,
        together: indices(&interfaces),
    };
    let jobs = interfaces.into_iter().zip(policies).zip(safety);
    Ok(Some(
        jobs.map(|((interface, compiled), safety)| Job {
            words: Words::of(
                args,
                Some((&site.site, host.as_deref())),
                site.named(&interface.name),
            ),
            interface,
            policy: compiled.policy,
            options: options.clone(),
            safety,
            cuts: args.safety.cuts(),
        })
        .collect(),
    ))
}

fn sources(site: &Loaded, host: Option<&str>) -> Sources {
    let path = site.config.as_ref();
    let path = path.filter(|path| *path != Path::new(STDIN));
    let host = host.and_then(|name| site.site.host(name));
    let named = host.iter().flat_map(|host| host.interfaces.keys());
    let digest = |name: &String| site.compile_alone(Some(name)).policy.digest();
    Sources {
        site: path.map(|path| path.display().to_string()),
        catalogs: site.catalogs.clone(),
        digests: named.map(|name| (name.clone(), digest(name))).collect(),
    }
}

/// What was in force for good before. At boot nobody has a session; on a running machine all is checked as at any load.
fn stored(args: &LoadArgs) -> anyhow::Result<Vec<Job>> {
    let mut interfaces = find(&args.interfaces)?;
    if args.if_enabled {
        interfaces.retain(|interface| {
            boot::is_enabled(&interface.name) && store::is_stored(&Layout::of(&interface.name))
        });
    }
    interfaces.retain(|interface| {
        let is_off = store::is_off(&Layout::of(&interface.name)) && !args.switch_on;
        if is_off {
            let _ = writeln!(
                stderr(),
                "{}: stays off because of `unload --stay-off`; `portguard load` guards it again, or `--last-good --switch-on`",
                plain(&interface.name)
            );
        }
        !is_off
    });
    let mut stored = Vec::new();
    for interface in &interfaces {
        stored.push(store::read(&Layout::of(&interface.name))?);
    }
    // The udev rule may have been first.
    let (interfaces, stored): (Vec<Interface>, Vec<Stored>) = interfaces
        .into_iter()
        .zip(stored)
        .filter(|(interface, stored)| !is_in_force(interface, stored))
        .unzip();
    let policies: Vec<Policy> = stored.iter().map(|one| one.policy.clone()).collect();
    // Where nobody is there to answer, who has a session does not keep the host open.
    let force = args.safety.force || operator::connection().is_none();
    let cuts = force || args.safety.cut_sessions;
    let safety = safety::check(force, cuts, &interfaces, &policies)?;
    let confirm_within = safety::confirm_within(&args.safety, &interfaces, &policies);
    let together = indices(&interfaces);
    let jobs = interfaces.into_iter().zip(stored).zip(safety);
    Ok(jobs
        .map(|((interface, stored), safety)| Job {
            words: Words::of(args, None, &interface.name),
            interface,
            policy: stored.policy,
            options: Options {
                xdp_mode: stored.xdp_mode,
                sources: stored.sources,
                confirm_within,
                migrate: args.safety.migrate,
                occasion: Occasion::Load,
                over_unknown: false,
                together: together.clone(),
            },
            safety,
            cuts,
        })
        .collect())
}

/// Whether a stored policy is what an interface is guarded by already, for good.
fn is_in_force(interface: &Interface, stored: &Stored) -> bool {
    let live = generation::live(&Layout::of(&interface.name));
    let is_it = live.ok().flatten().is_some_and(|live| {
        live.is_confirmed
            && live.effective.is_as_meant()
            && live.meta.digest == stored.digest
            && live.meta.xdp_mode == stored.xdp_mode
    });
    if is_it {
        let _ = writeln!(
            stderr(),
            "{}: the last good policy is in force",
            plain(&interface.name)
        );
    }
    is_it
}

/// Of the interfaces that the site names, those that are there, unless none is: the agent guards what comes later.
fn without_absent(mut names: Vec<String>, args: &LoadArgs) -> Vec<String> {
    let is_there = |name: &String| Interface::find(name).is_ok();
    if args.interfaces.is_empty() && names.iter().any(is_there) {
        for name in names.iter().filter(|name| !is_there(name)) {
            let _ = writeln!(
                stderr(),
                "{}: not there now; a running `portguard agent` guards it when it comes",
                plain(name)
            );
        }
        names.retain(is_there);
    }
    names
}

fn find(names: &[String]) -> anyhow::Result<Vec<Interface>> {
    let mut found: Vec<Interface> = Vec::new();
    for (nth, name) in names.iter().enumerate() {
        let interface = Interface::find(name)?;
        let Some(before) = found.iter().position(|one| one.index == interface.index) else {
            found.push(interface);
            continue;
        };
        let other = names
            .get(before)
            .filter(|other| *other != name && before < nth);
        if let Some(other) = other {
            let fault = format!("`{}` and `{}` are one interface", plain(other), plain(name));
            return Err(Fault::usage(fault).hint("name it once").into());
        }
    }
    // The kernel attaches nothing below what has a program: those below come first.
    let links = links::all()?;
    let indices = indices(&found);
    found.sort_by_cached_key(|one| {
        let is_below = |index: &&u32| links::above(&links, [**index]).contains(&one.index);
        indices.iter().filter(is_below).count()
    });
    Ok(found)
}

fn indices(interfaces: &[Interface]) -> Vec<u32> {
    interfaces.iter().map(|one| one.index).collect()
}

/// All of them, or none.
fn put_in_force(mut jobs: Vec<Job>) -> anyhow::Result<Vec<LoadedInterface>> {
    let lock = pins::lock()?;
    reconcile(&lock)?;
    for job in &mut jobs {
        let layout = Layout::of(&job.interface.name);
        match generation::live(&layout) {
            // Nobody can tell what it drops: that less may be dropped takes the same word as that less is.
            Err(error) if generation::is_unknown(&error, &layout) && job.words.all => {
                job.options.over_unknown = true;
            }
            Ok(Some(before)) => job.words.check(&job.interface.name, &before, &job.policy)?,
            found => drop(found?),
        }
    }
    let mut prepared: Vec<Prepared> = Vec::new();
    for job in &jobs {
        let next = generation::prepare(&lock, &job.interface, &job.policy, &job.options)
            .with_context(|| format!("cannot guard `{}`", job.interface.name));
        match next {
            Ok(next) => prepared.push(next),
            Err(error) => {
                prepared.iter().for_each(Prepared::withdraw);
                return Err(error);
            }
        }
    }
    if let Err(error) = look_again(&jobs, &prepared) {
        prepared.iter().for_each(Prepared::withdraw);
        return Err(error);
    }
    let interfaces: Vec<Interface> = jobs.into_iter().map(|job| job.interface).collect();
    let published = publish(prepared)?;
    let mut loaded = Vec::new();
    for (live, interface) in published.iter().zip(&interfaces) {
        keep(&interface.name, live);
        begin_evidence(&interface.name);
        step("stored")?;
        loaded.push(describe(interface, live));
    }
    Ok(loaded)
}

/// Who has come while all was made ready is asked for, too; says what becomes of everybody.
fn look_again(jobs: &[Job], prepared: &[Prepared]) -> anyhow::Result<()> {
    let each: Vec<(&Interface, &Policy)> = jobs
        .iter()
        .map(|job| (&job.interface, &job.policy))
        .collect();
    let before: Vec<&Safety> = jobs.iter().map(|job| &job.safety).collect();
    let cuts = jobs.iter().any(|job| job.cuts);
    let found = safety::check_again(cuts, &each, &before)?;
    for ((job, next), safety) in jobs.iter().zip(prepared).zip(&found) {
        if job.policy.settings.drops_any() {
            safety::tell(&job.interface, next.adopted(), safety);
        }
        safety::tell_passing(&job.interface, safety);
    }
    Ok(())
}

/// Stores what is in force for the next boot. It is in force all the same if that fails.
pub(super) fn keep(name: &str, live: &Live) {
    if let Err(error) = store::keep(&Layout::of(name), live) {
        let _ = writeln!(
            stderr(),
            "{name}: warning: {error:#}; the next boot will not load this policy"
        );
    }
}

/// Evidence counts from the load, not from the agent's next look. What cannot be kept now is the agent's to say.
fn begin_evidence(name: &str) {
    let begun = observe::interfaces(Some(name)).and_then(|observed| {
        let first = observed.first();
        first.map_or(Ok(()), |one| evidence::gather(one, now()).map(drop))
    });
    if let Err(error) = begun {
        tracing::debug!("no evidence of `{name}` yet: {error:#}");
    }
}

/// Those that are named; those that the site names for the host, however it was found; the only one that there is; those that
/// are guarded.
fn interfaces(args: &LoadArgs, site: &Loaded, host: Option<&str>) -> Result<Vec<String>, Fault> {
    if !args.interfaces.is_empty() {
        return Ok(args.interfaces.clone());
    }
    let host = host.and_then(|name| site.site.host(name));
    let named: Vec<String> = host
        .iter()
        .flat_map(|host| host.interfaces.keys().cloned())
        .collect();
    if named.is_empty() {
        if let [only] = all().as_slice() {
            return Ok(vec![only.clone()]);
        }
        let guarded = guarded();
        let links = links::all().unwrap_or_default().into_iter();
        let ours: Vec<String> = links
            .filter(|link| guarded.contains(&link.index))
            .map(|link| link.name)
            .collect();
        if !ours.is_empty() {
            return Ok(ours);
        }
        return Err(Fault::usage("which interface?").hint(format!(
            "name one with `--interface`: there are {}",
            names().join(", ")
        )));
    }
    Ok(named)
}

/// What the compiler took without an error.
fn refuse_errors(compiled: Compiled) -> Result<Compiled, Rejected> {
    let mut all = compiled.diagnostics.iter();
    if all.any(|one| one.level == Level::Error) {
        return Err(Rejected(compiled.diagnostics));
    }
    Ok(compiled)
}

/// Prints what the compiler noticed and was not `told` of another interface; errors end here.
fn accept(compiled: Compiled, told: &mut Vec<Diagnostic>) -> Result<Compiled, Rejected> {
    let compiled = refuse_errors(compiled)?;
    let all = compiled.diagnostics.iter();
    let new: Vec<Diagnostic> = all.filter(|one| !told.contains(one)).cloned().collect();
    talk_briefly(&new, &[Level::Note, Level::Warning], "`portguard check -v`");
    told.extend(new);
    Ok(compiled)
}

fn dry_run(interfaces: &[Interface], policies: &[Compiled]) -> io::Result<()> {
    let mut err = stderr();
    for (interface, compiled) in interfaces.iter().zip(policies) {
        let policy = &compiled.policy;
        writeln!(
            err,
            "{}: would load {} inbound and {} outbound grants, digest {}; `portguard check` shows them",
            interface.name,
            policy.inbound.len(),
            policy.outbound.len(),
            policy.digest()
        )?;
    }
    Ok(())
}

fn describe(interface: &Interface, live: &Live) -> LoadedInterface {
    LoadedInterface {
        interface: interface.name.clone(),
        mode: live.meta.policy.settings.mode(),
        outbound: live.meta.policy.settings.outbound.name(),
        xdp_mode: live.meta.xdp_mode.name(),
        generation: live.meta.number,
        digest: live.meta.digest.clone(),
        replaced: live.meta.previous,
        confirm_deadline: deadline(live),
    }
}

/// In seconds of the wall clock, unless confirmed.
fn deadline(live: &Live) -> Option<u64> {
    (!live.is_confirmed).then(|| deadline::wall(live.meta.deadline).ok())?
}

/// Says it to a person.
pub(super) fn tell(done: &Done) {
    let mut err = stderr();
    for line in &done.lines {
        let _ = writeln!(err, "{line}");
    }
    for one in &done.interfaces {
        let mode = format!("\x1b[1m{}\x1b[0m", one.mode);
        let short = one.digest.get(..12).unwrap_or(&one.digest);
        let _ = writeln!(
            err,
            "{}: {mode}, generation {}, {} XDP, policy {short}",
            plain(&one.interface),
            one.generation,
            one.xdp_mode
        );
        if one.confirm_deadline.is_some() {
            let within = humantime::format_duration(done.within);
            let then = if one.replaced.is_some() {
                "the previous policy takes effect again"
            } else {
                "nothing is dropped any more"
            };
            let _ = writeln!(err, "  run `portguard confirm` within {within}, or {then}");
        }
        let words = match (one.mode, one.outbound) {
            ("audit", "enforce") => {
                "what arrives is only counted, but undocumented packets that this host sends are dropped, answers among them"
            }
            ("audit", _) => "nothing is dropped",
            _ => continue,
        };
        let _ = writeln!(
            err,
            "  {words}; `portguard counters --violations` shows what enforcing would drop"
        );
    }
    let unguarded = unguarded();
    if !unguarded.is_empty() {
        let _ = writeln!(
            err,
            "not guarded: {}: packets that arrive there are not judged. Replies that arrive on a guarded interface, to datagrams or containers' connections sent from there, need a row",
            unguarded.join(", ")
        );
    }
}

/// What the next boot would leave without a guard, and what to do about it.
fn tell_of_boot(done: &Done) {
    let units = done.interfaces.iter();
    let units = units.filter_map(|one| boot::to_enable(&one.interface).map(|unit| plain(&unit)));
    let units: Vec<String> = units.collect();
    if !units.is_empty() {
        let _ = writeln!(
            stderr(),
            "  `systemctl enable {}` guards again at the next boot, before the network is up",
            units.join(" ")
        );
    }
}

/// Interfaces that have no guard, for a person.
fn unguarded() -> Vec<String> {
    let links = links::all().unwrap_or_default();
    let unguarded = links::unguarded(&links, &guarded()).into_iter();
    unguarded
        .map(|link| format!("`{}`", plain(&link.name)))
        .collect()
}
