//! `portguard flows`: how full the flow table is, and whether it has one conversation.

use std::net::SocketAddr;

use anyhow::Context as _;
use clap::Args;
use portguard_common::abi::{Config, Set, slot};
use portguard_common::conntrack::{Tuple, WAYS};
use serde::Serialize;

use super::table::hanging;
use crate::stdout::{print, print_field};
use portguard_kernel::conversations::{self, Bound, MORE_ROOM};
use portguard_kernel::flows::{Flows, Occupancy, units};
use portguard_kernel::host::sessions::may_ask;
use portguard_observe::observe::{self, Observed};
use portguard_policy::catalog::Transport;
use portguard_policy::error::{Exit, Fault};
use portguard_policy::human::{bytes, count, duration, grouped, plain};

/// Show how full the flow table is, and whether a conversation is in it
///
/// All guarded interfaces of a network namespace share the table. It holds the conversations that the host began: TCP until its
/// socket closes, datagrams while they are recent. TCP for which a set has no room goes to an overflow table. With `--live`,
/// exit code 0 means that a reply would pass, 1 that it would not.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  portguard flows
  portguard flows --live tcp 192.0.2.1:40000 [2001:db8::1]:443
      would this answer be let in?")]
pub struct FlowsArgs {
    /// Only this interface
    #[arg(short, long, value_name = "IF")]
    interface: Option<String>,
    /// Look up a conversation: tcp, udp or sctp, the host's end, the other end
    #[arg(long, num_args = 3, value_names = ["PROTO", "LOCAL:PORT", "REMOTE:PORT"])]
    live: Option<Vec<String>>,
    /// Write JSON
    #[arg(long)]
    json: bool,
}

/// The flow table of one interface.
#[derive(Debug, Serialize)]
struct Table {
    name: String,
    /// Whether there is one: without judging what the host sends there is none.
    enabled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    occupancy: Option<Occupied>,
    /// New conversations since the first load, and how many of them took the place of one that may have lived.
    #[serde(skip_serializing_if = "Option::is_none")]
    created: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    evicted: Option<u64>,
    /// Of them, those that there was no room for: what answers them is a violation.
    #[serde(skip_serializing_if = "Option::is_none")]
    lost: Option<u64>,
    /// Tables beside it that have room for so many.
    tables: Vec<Beside>,
    #[serde(skip_serializing_if = "Option::is_none")]
    timeouts: Option<Timeouts>,
    #[serde(skip_serializing_if = "Option::is_none")]
    live: Option<Live>,
}

#[derive(Debug, Serialize)]
struct Occupied {
    capacity: u64,
    memory_bytes: u64,
    live: u64,
    /// Of them, connections that a socket of the host has, and those that closed a moment ago.
    sockets: u64,
    closing: u64,
    stale: u64,
    full_sets: u64,
    spilled_sets: u64,
    ages: Ages,
}

/// Live conversations by when they were last refreshed.
#[derive(Debug, Serialize)]
struct Ages {
    within_minute: u64,
    within_ten_minutes: u64,
    within_hour: u64,
    longer: u64,
}

/// A table beside that of the conversations.
#[derive(Debug, Serialize)]
struct Beside {
    name: &'static str,
    held: u64,
    room: u64,
    #[serde(skip)]
    warning: Option<String>,
}

impl From<Bound> for Beside {
    fn from(bound: Bound) -> Self {
        Self {
            name: bound.name,
            held: bound.held,
            room: bound.room,
            warning: bound.warning(),
        }
    }
}

#[derive(Debug, Serialize)]
struct Timeouts {
    tcp_idle_seconds: u32,
    udp_idle_seconds: u32,
}

#[derive(Debug, Serialize)]
struct Live {
    live: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    idle_seconds: Option<u64>,
}

/// Shows the flow tables of this network namespace's guards.
///
/// # Errors
/// If an interface is named that is not guarded, a conversation cannot be understood, and what the system refuses.
pub fn run(args: &FlowsArgs) -> anyhow::Result<Exit> {
    let asked = args.live.as_deref().map(tuple).transpose()?;
    let mut interfaces = Vec::new();
    for one in observe::interfaces(args.interface.as_deref())? {
        let name = one.name.clone();
        let table = look(&one, asked.as_ref())
            .with_context(|| format!("cannot read the flow table of `{}`", plain(&name)))?;
        interfaces.push(table);
    }
    let known = |table: &Table| table.live.as_ref().is_some_and(|live| live.live);
    let is_missing = asked.is_some() && !interfaces.iter().any(known);
    if args.json {
        print_field("interfaces", &interfaces)?;
    } else {
        text(&interfaces)?;
    }
    Ok(if is_missing { Exit::Findings } else { Exit::Ok })
}

/// A conversation as the host sees it.
fn tuple(words: &[String]) -> Result<(Tuple, Transport), Fault> {
    let wrong = |what: String| {
        Fault::usage(what)
            .hint("e.g. `portguard flows --live tcp 192.0.2.1:40000 [2001:db8::1]:443`")
    };
    let [transport, local, remote] = words else {
        return Err(wrong("`--live` needs a protocol and two ends".to_owned()));
    };
    let transport: Transport = transport
        .parse()
        .map_err(|_error| wrong(format!("`{}` is not tcp, udp or sctp", plain(transport))))?;
    let end = |text: &str| -> Result<SocketAddr, Fault> {
        text.parse()
            .map_err(|error| wrong(format!("`{}` is not ADDRESS:PORT: {error}", plain(text))))
    };
    let (local, remote) = (end(local)?, end(remote)?);
    // An IPv4 packet stays one, however a socket writes its addresses.
    let (ours, theirs) = (local.ip().to_canonical(), remote.ip().to_canonical());
    if ours.is_ipv4() != theirs.is_ipv4() {
        return Err(wrong(format!(
            "{ours} and {theirs} are of different families"
        )));
    }
    let tuple = Tuple {
        space: transport.space(),
        local: ours.into(),
        remote: theirs.into(),
        local_port: local.port(),
        remote_port: remote.port(),
    };
    Ok((tuple, transport))
}

fn look(one: &Observed, asked: Option<&(Tuple, Transport)>) -> anyhow::Result<Table> {
    let meta = &one.live.meta;
    if meta.egress_hook.is_none() {
        return Ok(Table {
            name: one.name.clone(),
            enabled: false,
            occupancy: None,
            created: None,
            evicted: None,
            lost: None,
            tables: Vec::new(),
            timeouts: None,
            live: None,
        });
    }
    let settings = &meta.policy.settings;
    let facts = Config {
        flow_key: meta.flow_key,
        flow_mask: meta.flow_sets.saturating_sub(1),
        tick_shift: meta.tick_shift,
        tcp_idle: units(settings.tcp_idle, meta.tick_shift),
        udp_idle: units(settings.udp_idle, meta.tick_shift),
        ..Config::default()
    };
    let gone = |what| Fault::system(what).hint("`portguard load` makes them again");
    let namespace = conversations::find()
        .ok_or_else(|| gone("the pins of the table of conversations are gone".to_owned()))?;
    let open = || {
        anyhow::Ok((
            namespace.flows()?,
            namespace.spilled()?,
            namespace.counts()?,
        ))
    };
    let (flows, spilled, counts) =
        open().map_err(|error| namespace.gaps().map_or(error, |gaps| gone(gaps).into()))?;
    let flows = Flows::new(flows, facts).with_spilled(spilled);
    let Occupancy {
        capacity,
        live,
        sockets,
        closing,
        stale,
        full_sets,
        spilled_sets,
        ages: [within_minute, within_ten_minutes, within_hour, longer],
    } = flows.occupancy()?;
    let found = asked
        .map(|(tuple, transport)| -> anyhow::Result<Live> {
            let remote = SocketAddr::new(tuple.remote.into(), tuple.remote_port);
            let idle_seconds = flows.age(tuple)?;
            Ok(Live {
                live: idle_seconds.is_some() && may_ask(&meta.policy, *transport, remote),
                idle_seconds,
            })
        })
        .transpose()?;
    Ok(Table {
        name: one.name.clone(),
        enabled: true,
        occupancy: Some(Occupied {
            capacity,
            memory_bytes: capacity / WAYS as u64 * size_of::<Set>() as u64,
            live,
            sockets,
            closing,
            stale,
            full_sets,
            spilled_sets,
            ages: Ages {
                within_minute,
                within_ten_minutes,
                within_hour,
                longer,
            },
        }),
        created: Some(counts.created + one.raw.slot(slot::FLOWS_CREATED).packets),
        evicted: Some(counts.evicted + one.raw.slot(slot::FLOWS_EVICTED).packets),
        lost: Some(counts.lost + one.raw.slot(slot::FLOWS_LOST).packets),
        tables: namespace.bounds()?.into_iter().map(Beside::from).collect(),
        timeouts: Some(Timeouts {
            tcp_idle_seconds: settings.tcp_idle,
            udp_idle_seconds: settings.udp_idle,
        }),
        live: found,
    })
}

fn text(interfaces: &[Table]) -> anyhow::Result<()> {
    print(|out| {
        if interfaces.is_empty() {
            writeln!(out, "no interface is guarded")?;
        }
        for table in interfaces {
            let label = format!("{}: ", plain(&table.name));
            let (Some(occupied), Some(timeouts)) = (&table.occupancy, &table.timeouts) else {
                let off = "no flow table: outbound is off, so only rows let replies in";
                hanging(out, &label, off)?;
                continue;
            };
            let room = format!(
                "{} of the host, room for {} ({})",
                count(occupied.live, "conversation"),
                grouped(occupied.capacity),
                bytes(occupied.memory_bytes)
            );
            hanging(out, &label, &room)?;
            for (label, words) in lines(table, occupied, timeouts) {
                hanging(out, &format!("  {label:<12}"), &words)?;
            }
        }
        Ok(())
    })
}

/// What there is to say of a table, by label.
fn lines(table: &Table, occupied: &Occupied, timeouts: &Timeouts) -> Vec<(&'static str, String)> {
    let ages = &occupied.ages;
    let mut lines = Vec::new();
    if let Some(lost) = table.lost.filter(|lost| *lost > 0) {
        let words = format!(
            "{} so far, and replies to them are violations: {MORE_ROOM}",
            grouped(lost)
        );
        lines.push(("no room", words));
    }
    lines.push((
        "last sent",
        format!(
            "{} within a minute, {} within ten, {} within an hour, {} longer ago",
            grouped(ages.within_minute),
            grouped(ages.within_ten_minutes),
            grouped(ages.within_hour),
            grouped(ages.longer)
        ),
    ));
    lines.push((
        "idle",
        format!(
            "tcp and sctp expire after {}, others after {}; {} expired",
            duration(timeouts.tcp_idle_seconds.into()),
            duration(timeouts.udp_idle_seconds.into()),
            grouped(occupied.stale)
        ),
    ));
    lines.push((
        "created",
        format!(
            "{}, {} possibly live evicted for them",
            grouped(table.created.unwrap_or_default()),
            grouped(table.evicted.unwrap_or_default())
        ),
    ));
    if occupied.full_sets > 0 {
        let words = format!(
            "{} of {} sets: a new conversation there takes the oldest's place; `flows` in `[timeouts]` makes more",
            grouped(occupied.full_sets),
            grouped(occupied.capacity / WAYS as u64)
        );
        lines.push(("full", words));
    }
    let full = table.tables.iter().filter_map(|one| one.warning.clone());
    lines.extend(full.map(|words| ("full", words)));
    if let Some(live) = &table.live {
        lines.push(("live", live.words()));
    }
    lines
}

impl Live {
    fn words(&self) -> String {
        match self.idle_seconds {
            Some(_) if !self.live => {
                "no: the outbound policy does not let the host send this, so no reply is let in"
                    .to_owned()
            }
            Some(idle) => format!("yes, last sent {} ago: answers are let in", duration(idle)),
            None => "no, not in the table: answers are let in by rows only".to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(words: [&str; 3]) -> Vec<String> {
        words.map(str::to_owned).to_vec()
    }

    #[test]
    fn conversations_are_read() {
        let (read, _) =
            tuple(&words(["tcp", "192.0.2.1:40000", "[::ffff:192.0.2.9]:443"])).unwrap();
        assert_eq!((read.space, read.local_port), (0, 40_000));
        assert!(!read.remote.v6, "an IPv4 packet, however it is written");
        let (v6, _) = tuple(&words(["udp", "[2001:db8::1]:5000", "[2001:db8::2]:53"])).unwrap();
        assert!(v6.remote.v6 && v6.remote_port == 53);
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (given, wanted) in [
            (
                ["gre", "192.0.2.1:1", "192.0.2.2:1"],
                "`gre` is not tcp, udp or sctp",
            ),
            (
                ["tcp", "192.0.2.1", "192.0.2.2:1"],
                "`192.0.2.1` is not ADDRESS:PORT",
            ),
            (["tcp", "192.0.2.1:1", "[::1]:1"], "different families"),
        ] {
            let error = tuple(&words(given)).unwrap_err().to_string();
            assert!(error.contains(wanted), "{error}");
        }
    }
}
