//! What is sent, and the program that sends it.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData};
use aya::programs::Xdp;
use aya::{Ebpf, EbpfLoader, TestRun as _, TestRunAttrs, TestRunOptions};
use fastrand::Rng;
use portguard_harness::frames::{Frame, Ipv4, Tcp};
use portguard_harness::net::Link;

static GENERATE: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/bench-generate"));

/// Frames between two looks at the clock.
const BURST: u32 = 1 << 15;
/// Different frames of [`Traffic::RandomPorts`]: few enough for the sender's cache, so that it does not wait.
const WAYS: u32 = 1 << 12;
/// A port that no guard here opens.
const CLOSED: u16 = 9999;
/// A port that every guard here opens.
const OPEN: u16 = 443;

/// What packets are sent: opening ones of TCP over IPv4, the shortest that Ethernet has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Traffic {
    /// To a closed port.
    Denied,
    /// To closed ports at random.
    RandomPorts,
    /// To an open port; of another station by their Ethernet address, so that the host's stack lets them go at once and does
    /// not answer.
    Allowed,
}

impl Traffic {
    /// The frames, in words as the program has them; a power of two.
    fn frames(self, link: &Link) -> Result<Vec<[u32; 16]>> {
        let frame = |port: u16| -> Result<[u32; 16]> {
            let mut bytes = Frame::between(&link.right, &link.left)
                .ipv4(Ipv4::new(link.right.v4(), link.left.v4()))
                .tcp(Tcp::syn(40_000, port))
                .pad(60)
                .build();
            if let (Self::Allowed, Some(last)) = (self, bytes.get_mut(5)) {
                *last ^= 1;
            }
            let mut words = [0u32; 16];
            for (word, bytes) in words.iter_mut().zip(bytes.chunks_exact(4)) {
                *word = u32::from_ne_bytes(bytes.try_into()?);
            }
            Ok(words)
        };
        match self {
            Self::Denied => Ok(vec![frame(CLOSED)?]),
            Self::Allowed => Ok(vec![frame(OPEN)?]),
            Self::RandomPorts => {
                let mut rng = Rng::with_seed(3);
                (0..WAYS).map(|_| frame(rng.u16(10_000..))).collect()
            }
        }
    }
}

/// Sends frames as fast as the kernel takes them.
pub(super) struct Generator {
    ebpf: Ebpf,
    context: Vec<u8>,
}

impl Generator {
    /// Call in the sender's namespace.
    pub(super) fn new(link: &Link, traffic: Traffic) -> Result<Self> {
        let all = traffic.frames(link)?;
        let count = u32::try_from(all.len())?;
        let mut ebpf = EbpfLoader::new()
            .override_global("MASK", &(count - 1), true)
            .map_max_entries("FRAMES", count)
            .load(GENERATE)?;
        let map = ebpf.map_mut("FRAMES").context("no map `FRAMES`")?;
        let mut frames: Array<&mut MapData, [u32; 16]> = map.try_into()?;
        for (words, index) in all.iter().zip(0..) {
            frames.set(index, words, 0)?;
        }
        generator(&mut ebpf)?.load()?;
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index, egress_ifindex.
        let context = [0, 60, 0, link.right.index, 0, 0];
        let context = context.iter().flat_map(|word: &u32| word.to_ne_bytes());
        Ok(Self {
            ebpf,
            context: context.collect(),
        })
    }

    pub(super) fn send(&mut self, run: Duration) -> Result<()> {
        let program = generator(&mut self.ebpf)?;
        let begun = Instant::now();
        while begun.elapsed() < run {
            program
                .test_run(TestRunOptions {
                    data_in: Some(&[0; 60]),
                    ctx_in: Some(&self.context),
                    repeat: BURST,
                    attrs: TestRunAttrs::new().xdp_live_frames(64),
                    ..TestRunOptions::default()
                })
                .context("this kernel sends no frames from test runs (Linux 5.18)")?;
        }
        Ok(())
    }
}

fn generator(ebpf: &mut Ebpf) -> Result<&mut Xdp> {
    let program = ebpf
        .program_mut("generate")
        .context("no program `generate`")?;
    Ok(program.try_into()?)
}
