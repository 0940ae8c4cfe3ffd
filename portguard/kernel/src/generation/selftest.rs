//! Before a generation is put in force, frames are run through it and its verdicts compared: with those of the verdict
//! function over the image, and with the grants of the policy themselves.
//!
//! The frames go through a twin: the same object with the same globals and the very tables of the generation, but with
//! counters, flows and events of its own, in enforce, so that a verdict shows in what the program returns whatever the mode
//! is to be.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aya::{TestRun as _, TestRunOptions};
use ipnet::IpNet;
use portguard_common::abi::Config;
use portguard_common::parse::parse;
use portguard_common::reason::Reason;
use portguard_common::verdict;

use crate::error::{Context as _, Error, Kind};
use crate::object::{HostFacts, Loaded};
use crate::probe::{Probe, frame, is_granted};
use portguard_policy::catalog::Transport;
use portguard_policy::image::{Image, spans};
use portguard_policy::policy::{Peers, Policy};

/// `XDP_DROP`.
const DROP: u32 = 1;
/// `XDP_PASS`.
const PASS: u32 = 2;
/// Undocumented ports that are tried, beside the neighbours of documented ones.
const SAMPLES: u16 = 64;
/// Addresses that hardly any site names: documentation prefixes.
const STRANGERS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(203, 0, 113, 254)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0xdead, 0, 0, 0, 0, 0xfe)),
];

/// The same object once more, to run frames through.
#[derive(Debug)]
pub struct Twin {
    /// What it holds.
    pub(crate) image: Image,
    /// Its program.
    pub(crate) loaded: Loaded,
}

/// What makes an image that of a twin.
pub(crate) fn of_twin(facts: &Config) -> Config {
    Config {
        enforce: 1,
        // No flow has been seen yet, so that nothing here depends on one; and the egress program need not be loaded again.
        flows: 0,
        flow_mask: 0,
        // Frames of a test run are Ethernet, and come from no interface that a route could lead to.
        raw_ip: 0,
        card: 0,
        card_address: 0,
        scoped: 0,
        ..*facts
    }
}

/// What its program is told of the host. Frames for a test run come in one piece: without the code for others the verifier
/// has a third less to do.
pub(crate) fn host_of_twin(host: &HostFacts) -> HostFacts {
    HostFacts {
        deadline: 0,
        multi_buffer: false,
        flow_sets: None,
        raw_ip: false,
        card: (0, 0),
        ..*host
    }
}

/// Runs the frames.
///
/// # Errors
/// [`Error`] at the first verdict that differs, and if the kernel cannot run programs on frames.
pub fn run(loaded: &mut Loaded, twin: &mut Twin, policy: &Policy) -> crate::Result<usize> {
    let Twin {
        image: twin_image,
        loaded: twin,
    } = twin;
    let (real, tested) = (tag(loaded)?, tag(twin)?);
    if real != tested {
        return Err(Error::new(
            Kind::SelfTest,
            format!(
                "the program that was tested ({tested:#x}) is not the one that was loaded ({real:#x})"
            ),
        ));
    }
    let program = twin.ingress()?;
    let probes = probes(policy);
    for probe in &probes {
        let bytes = frame(probe);
        let answer = program
            .test_run(TestRunOptions {
                data_in: Some(&bytes),
                ..TestRunOptions::default()
            })
            .context("the kernel cannot run the guard on a test frame")?
            .return_value;
        let kernel = match answer {
            DROP => true,
            PASS => false,
            other => return Err(differs(probe, &format!("it answered {other}"))),
        };
        let packet = parse(&mut bytes.as_slice())
            .ok()
            .context("a frame that is not linear")?;
        let judged = verdict::ingress(twin_image, &packet);
        if judged.is_drop(true) != kernel {
            return Err(differs(
                probe,
                &format!(
                    "the kernel says {}, the host {:?}",
                    word(kernel),
                    judged.reason
                ),
            ));
        }
        let granted = is_granted(policy, probe);
        if granted != (judged.reason == Reason::Granted) {
            return Err(differs(
                probe,
                &format!("the policy says {}", if granted { "pass" } else { "drop" }),
            ));
        }
    }
    Ok(probes.len())
}

fn word(is_drop: bool) -> &'static str {
    if is_drop { "drop" } else { "pass" }
}

fn differs(probe: &Probe, how: &str) -> Error {
    Error::new(
        Kind::SelfTest,
        format!("the loaded guard misjudges {probe}: {how}; nothing was changed"),
    )
    .hint("this is a defect of the kernel or of portguard: please report it")
}

/// The kernel's digest of a program's instructions, before it rewrites them.
fn tag(loaded: &mut Loaded) -> crate::Result<u64> {
    Ok(loaded.ingress()?.info()?.tag())
}

/// For every documented range its ends and the ports beside, from a peer of each set and from strangers; then samples of
/// all ports.
fn probes(policy: &Policy) -> Vec<Probe> {
    let mut probes = Vec::new();
    let mut push = |transport, port, peer| {
        probes.push(Probe {
            transport,
            peer,
            port,
        });
    };
    for span in spans(&policy.inbound) {
        let mut peers = STRANGERS.to_vec();
        for grant in &span.grants {
            peers.extend(representatives(policy, grant.peers));
        }
        let beside = [
            Some(span.first),
            Some(span.last),
            span.first.checked_sub(1),
            span.last.checked_add(1),
        ];
        for port in beside.into_iter().flatten() {
            for peer in &peers {
                push(span.transport, port, *peer);
            }
        }
    }
    for sample in 0..SAMPLES {
        // Spreads over the ports, the same ones each time.
        let port = sample.wrapping_mul(40_503).wrapping_add(1);
        for transport in [Transport::Tcp, Transport::Udp, Transport::Sctp] {
            for peer in STRANGERS {
                push(transport, port, peer);
            }
        }
    }
    probes
}

/// The first and the last address of the first prefix of each family.
fn representatives(policy: &Policy, peers: Peers) -> Vec<IpAddr> {
    let Peers::Set(index) = peers else {
        return Vec::new();
    };
    let set = usize::try_from(index)
        .ok()
        .and_then(|index| policy.sets.get(index));
    let prefixes = set.map(|set| set.prefixes.as_slice()).unwrap_or_default();
    let first4 = prefixes.iter().find(|net| matches!(net, IpNet::V4(_)));
    let first6 = prefixes.iter().find(|net| matches!(net, IpNet::V6(_)));
    [first4, first6]
        .into_iter()
        .flatten()
        .flat_map(|net| [net.network(), net.broadcast()])
        .collect()
}
