//! The kernel's verdict and the host's are one: the same frames through the loaded program and through the same functions
//! here, compared frame by frame in what becomes of them and batch by batch in every counter.
#![cfg(test)]

mod budget;
mod coverage;
mod egress;
mod pieces;
mod policies;
mod stack;
mod tally;
mod tracked;

use std::os::unix::fs::MetadataExt as _;

use aya::programs::Xdp;
use aya::{TestRun as _, TestRunOptions};
use ipnet::IpNet;
use portguard_common::reason::Reason;
use portguard_common::tables::{Key, Tables as _};
use portguard_common::verdict::{self, Verdict};
use portguard_harness::frames::{Extension, Frame, Generator, Ipv6, Label, Tcp, mutate};
use portguard_harness::net::{Lab, Link};
use portguard_kernel::object::{HostFacts, Loaded, load};
use portguard_policy::cells::Directory;
use portguard_policy::image::Image;
use portguard_policy::policy::{Policy, Settings};

use coverage::Coverage;
use pieces::Path;
use tally::Tally;

/// What the program answers.
const DROP: u32 = 1;
const PASS: u32 = 2;

/// Frames a batch, after which all counters are compared.
const BATCH: usize = 10_000;

/// Frames over all policies; another number for a longer run.
const FRAMES: usize = 240_000;

/// The kernel takes no shorter frames for a test run; no interface hands them over either.
const SHORTEST: usize = 14;

/// The link address of the interface that frames are made for, where that matters.
const OWN: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// Knuth's linear congruential generator: enough to scatter lengths.
const MULTIPLIER: usize = 6_364_136_223_846_793_005;
const INCREMENT: usize = 1_442_695_040_888_963_407;

/// Bytes of the context of a test run: six numbers of four bytes.
const CONTEXT: usize = 24;

fn frames_wanted() -> usize {
    let wanted = std::env::var("PORTGUARD_PARITY_FRAMES").ok();
    wanted.map_or(FRAMES, |count| {
        count.parse().expect("PORTGUARD_PARITY_FRAMES is a number")
    })
}

/// Says what is missing rather than what the kernel calls it.
fn need_root() {
    let user = std::fs::metadata("/proc/self")
        .expect("/proc is mounted")
        .uid();
    assert_eq!(user, 0, "this test loads eBPF programs: run it as root");
}

fn loaded(image: &Image, host: &HostFacts) -> Loaded {
    need_root();
    load(image, host, None).unwrap_or_else(|error| panic!("{error:#}"))
}

fn image(policy: &Policy) -> Image {
    Image::build(policy, Directory::default()).expect("the policy fits")
}

/// The loaded program, one frame at a time.
struct Runner<'a> {
    program: &'a Xdp,
    /// Whether this kernel lets a test choose where the linear part ends (6.18 and later).
    splits: bool,
}

impl<'a> Runner<'a> {
    fn new(program: &'a Xdp) -> Self {
        let mut this = Self {
            program,
            splits: true,
        };
        this.splits = this
            .try_run(&[0; 64], 32)
            .is_some_and(|(_, linear)| linear == 32);
        this
    }

    /// What the program makes of a frame, and how much of it could be read in place.
    fn run(&self, frame: &[u8], linear: usize) -> (u32, usize) {
        let linear = if self.splits { linear } else { frame.len() };
        self.try_run(frame, linear)
            .unwrap_or_else(|| panic!("no run of {} bytes, {linear} in place", frame.len()))
    }

    fn try_run(&self, frame: &[u8], linear: usize) -> Option<(u32, usize)> {
        let mut before = [0; CONTEXT];
        before[4..8].copy_from_slice(&u32::try_from(linear).ok()?.to_ne_bytes());
        let mut after = [0; CONTEXT];
        let result = self.program.test_run(TestRunOptions {
            data_in: Some(frame),
            ctx_in: Some(&before),
            ctx_out: Some(&mut after),
            ..TestRunOptions::default()
        });
        let end = u32::from_ne_bytes(after[4..8].try_into().ok()?);
        Some((result.ok()?.return_value, usize::try_from(end).ok()?))
    }
}

/// Generated frames, every sixteenth made long; and where the linear part is to end, which is within the frame for a
/// quarter of them.
struct Stream {
    generator: Generator,
    index: usize,
    noise: usize,
    damage: fastrand::Rng,
    previous: Vec<u8>,
}

impl Stream {
    fn new(seed: u64) -> Self {
        Self {
            generator: Generator::new(seed).palette(policies::palette()),
            index: 0,
            noise: 0,
            damage: fastrand::Rng::with_seed(seed),
            previous: Vec::new(),
        }
    }

    fn next(&mut self, frame: &mut Vec<u8>) -> (Label, usize) {
        loop {
            let label = self.generator.fill(frame);
            if frame.len() < SHORTEST {
                continue;
            }
            self.index += 1;
            self.noise = self.noise.wrapping_mul(MULTIPLIER).wrapping_add(INCREMENT);
            let noise = self.noise >> 33;
            // Damage upon damage: what one leaves, the next begins with.
            if self.index % 4 == 1 {
                for _ in 0..noise % 5 {
                    mutate(&mut self.damage, frame, &self.previous);
                }
                if frame.len() < SHORTEST {
                    continue;
                }
            }
            self.previous.clone_from(frame);
            if self.index.is_multiple_of(16) {
                frame.resize(frame.len() + noise % 9_000, 0x5a);
            }
            let linear = match self.index % 8 {
                // Mostly within the headers.
                0 => SHORTEST + noise % (frame.len().min(120) - SHORTEST + 1),
                4 => SHORTEST + noise % (frame.len() - SHORTEST + 1),
                _ => frame.len(),
            };
            return (label, linear);
        }
    }
}

/// Extension headers that lead up to and beyond the end of what the program copies.
fn far_frames() -> Vec<Vec<u8>> {
    let mut frames = Vec::new();
    for (tags, last) in (0..3).flat_map(|tags| (236..=255).map(move |last| (tags, last))) {
        let mut frame = (0..tags).fold(Frame::new([2; 6], [4; 6]), |frame, id| {
            frame.tag(0x8100, id)
        });
        frame = frame.ipv6(Ipv6::new([0xfd77; 8].into(), [0xfd77; 8].into()));
        for size in [255, 255, 255, 255, 255, 255, 255, last] {
            frame = frame.extension(Extension::destination(size));
        }
        let frame = frame.tcp(Tcp::syn(1, 443)).payload(vec![0; 2_000]);
        frames.push(frame.build());
    }
    frames
}

/// Runs frames through kernel and host under one policy; the tally that both came to.
fn compare(
    policy: &Policy,
    host: &HostFacts,
    seed: u64,
    count: usize,
    seen: &mut Coverage,
) -> Tally {
    if policy.settings.host_addresses.is_none() {
        return compare_here(policy, host, seed, count, seen);
    }
    let link = routed(policy).expect("a network with routes");
    let compare = || Ok(compare_here(policy, host, seed, count, seen));
    link.left.host.run(compare).expect("the thread ends well")
}

/// A host that has the policy's addresses and routes everything else, also what a test run gives to its loopback.
fn routed(policy: &Policy) -> anyhow::Result<Link> {
    let link = Lab::new()?.pair()?;
    let host = &link.left.host;
    for family in ["ipv4", "ipv6"] {
        for interface in ["lo", &link.left.name] {
            host.sysctl(&format!("net/{family}/conf/{interface}/forwarding"), "1")?;
        }
    }
    let has = |address: &IpNet| link.left.both().contains(&address.addr());
    let addresses = policy.settings.host_addresses.iter().flatten();
    for address in addresses.filter(|address| !has(address)) {
        link.left.add_address(*address)?;
    }
    for (everything, gateway) in [("0.0.0.0/0", "10.77.0.254"), ("::/0", "fd77::fe")] {
        link.left
            .add_route(everything.parse()?, Some(gateway.parse()?))?;
    }
    Ok(link)
}

/// Whether a frame is no violation after all, if it is not for this host by its link address.
fn is_others(judged: &Verdict, is_own: bool) -> bool {
    !is_own && judged.reason.is_violation() && judged.reason != Reason::StrictEthertype
}

/// As [`compare`], in the network that this thread is in.
fn compare_here(
    policy: &Policy,
    host: &HostFacts,
    seed: u64,
    count: usize,
    seen: &mut Coverage,
) -> Tally {
    let image = image(policy);
    // What is sent to many by its link address is for this host, wherever it is routed.
    let for_many = self::image(&Policy {
        settings: Settings {
            host_addresses: None,
            ..policy.settings.clone()
        },
        ..policy.clone()
    });
    let mut loaded = loaded(&image, host);
    let loaded_config = loaded.facts;
    let mut tally = Tally::new();
    assert_eq!(Tally::read(&loaded), tally, "counters start at zero");
    let mut stream = Stream::new(seed);
    let mut frame = Vec::new();
    let mut far = far_frames().into_iter();
    let mut done = 0;
    while done < count {
        let runner = Runner::new(loaded.ingress().expect("the object has an ingress program"));
        if done == 0 && runner.splits {
            // The frame that found out.
            tally.add_probe(&image, &loaded_config);
            println!(
                "{}: linear parts of any length",
                policy.host.as_deref().unwrap_or_default()
            );
        } else if runner.splits {
            tally.add_probe(&image, &loaded_config);
        }
        for _ in 0..BATCH.min(count - done) {
            let (label, linear) = match far.next() {
                Some(bytes) => {
                    frame = bytes;
                    let label = Label {
                        class: "far",
                        mutation: None,
                    };
                    (label, 54 + done % 3_000)
                }
                None => stream.next(&mut frame),
            };
            // An interface without a link header gives the same frames from their IP header on.
            let given = if host.raw_ip { &frame[14..] } else { &frame };
            let linear = if host.raw_ip { given.len() } else { linear };
            if given.len() < SHORTEST {
                continue;
            }
            let (action, linear) = runner.run(given, linear);
            let (packet, path) = pieces::parse(given, linear, &loaded_config);
            let is_for_many = !host.raw_ip && frame[0] & 1 != 0;
            let judged = if is_for_many {
                verdict::ingress(&for_many, &packet)
            } else {
                verdict::ingress(&image, &packet)
            };
            let judged = if host.card.0 != 0 && is_others(&judged, frame[..6] == OWN || is_for_many)
            {
                Verdict {
                    reason: Reason::OtherHost,
                    key: Key::NONE,
                    cell: 0,
                    cause: None,
                    audit_only: false,
                }
            } else {
                judged
            };
            let want = if judged.is_drop(image.config().enforce != 0) {
                DROP
            } else {
                PASS
            };
            assert_eq!(
                action, want,
                "{label:?} {linear} in place {path:?} {packet:?} {judged:?} {given:02x?}"
            );
            tally.add(&packet, &judged);
            seen.add(label, &image, &packet, &judged, path);
            done += 1;
        }
        Tally::read(&loaded).expect_same(&tally);
    }
    tally
}

#[test]
fn kernel_and_host_agree() {
    let policies = policies::all();
    let count = frames_wanted().div_ceil(policies.len());
    let mut seen = Coverage::default();
    for (policy, seed) in policies.iter().zip(1..) {
        let enforced = compare(policy, &HostFacts::default(), seed, count, &mut seen);
        let mut audit = policy.clone();
        audit.settings.enforce = false;
        let counted = compare(
            &audit,
            &HostFacts::default(),
            seed,
            count,
            &mut Coverage::default(),
        );
        counted.expect_same(&enforced);
        println!(
            "{:?}: {count} frames, alike in enforce and in audit",
            policy.host
        );
    }
    println!("{seen}");
    seen.expect_complete();
}

/// A generation for interfaces without a link header.
#[test]
fn kernel_and_host_agree_without_a_link_header() {
    for multi_buffer in [true, false] {
        let host = HostFacts {
            multi_buffer,
            raw_ip: true,
            ..HostFacts::default()
        };
        let mut seen = Coverage::default();
        let restricted = policies::restricted();
        compare(&restricted, &host, 78, frames_wanted() / 20, &mut seen);
    }
}

/// A generation that knows for whom frames are by their link address: a test run gives them to the loopback interface.
#[test]
fn kernel_and_host_agree_on_frames_for_other_hosts() {
    let link = Lab::new().and_then(|lab| lab.pair()).expect("a network");
    let host = &link.left.host;
    crate::topology::ip(host, "", "link set lo address 02:00:00:00:00:01").expect("an address");
    let card = host.index("lo").expect("an index");
    let facts = HostFacts {
        // What it had at the load: all, which is no unicast address.
        card: (card, 0xffff_ffff_ffff),
        ..HostFacts::default()
    };
    let mut seen = Coverage::default();
    for (policy, seed) in policies::all().iter().zip(90..) {
        if policy.settings.host_addresses.is_some() {
            continue;
        }
        let count = frames_wanted() / 20;
        let run = || Ok(compare_here(policy, &facts, seed, count, &mut seen));
        host.run(run).expect("the thread ends well");
    }
    let found = seen.of(Reason::OtherHost);
    assert!(found.iter().all(|count| *count > 1_000), "{found:?}");
}

/// A generation for interfaces whose frames are always linear.
#[test]
fn kernel_and_host_agree_without_pieces() {
    let host = HostFacts {
        multi_buffer: false,
        ..HostFacts::default()
    };
    let mut seen = Coverage::default();
    let restricted = policies::restricted();
    compare(&restricted, &host, 77, frames_wanted() / 10, &mut seen);
    assert_eq!(seen.path(Path::Copied), 0, "nothing is ever copied");
}
