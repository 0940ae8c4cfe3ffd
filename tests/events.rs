//! Events from the loaded program to lines, through the kernel's ring buffer.

mod lost;

use std::time::Duration;

use anyhow::{Context as _, Result};
use aya::{TestRun as _, TestRunOptions};
use portguard_harness::frames::{Frame, Ipv4, Udp};
use portguard_kernel::object::{HostFacts, load};
use portguard_kernel::pins;
use portguard_kernel::pins::bpffs::Layout;
use portguard_observe::events::Words;
use portguard_observe::events::stream::{Stream, booted};
use portguard_policy::catalog::Catalog;
use portguard_policy::cells::Directory;
use portguard_policy::image::Image;
use portguard_policy::policy::Policy;

#[test]
fn violations_become_lines() -> Result<()> {
    let policy = Policy::default();
    let image = Image::build(&policy, Directory::default())?;
    // Mounts bpffs if need be; nobody else knows of this directory.
    drop(pins::lock()?);
    let layout = Layout::of(&portguard_harness::net::unique_name("pge"));
    let generation = layout.generation(1);
    std::fs::create_dir_all(layout.shared())?;
    std::fs::create_dir_all(&generation)?;
    let result = (|| {
        let facts = HostFacts {
            ..HostFacts::default()
        };
        let mut loaded = load(&image, &facts, Some(&layout.shared()))?;
        loaded.map("CONTROL")?.pin(generation.join("CONTROL"))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut stream = Stream::open(&layout)?;
            stream.announce()?;
            let second = Stream::open(&layout);
            assert!(second.is_err(), "one reader at a time");
            let frame = Frame::new([2; 6], [4; 6])
                .ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
                .udp(Udp::new(40_000, 99))
                .payload(vec![1; 58])
                .build();
            let before = portguard_policy::human::rfc3339(now());
            loaded.ingress()?.test_run(TestRunOptions {
                data_in: Some(&frame),
                repeat: 1,
                ..TestRunOptions::default()
            })?;
            let events = tokio::time::timeout(Duration::from_secs(10), stream.wait()).await??;
            let event = events.first().context("an event")?;
            let line = Words::new("eth0", &policy, &Catalog::default()).tell(event, booted());
            assert_eq!((line.reason, line.effective), ("undocumented-port", "pass"));
            assert_eq!(line.source, Some([10, 0, 0, 1].into()));
            assert_eq!(
                (line.source_port, line.destination_port),
                (Some(40_000), Some(99))
            );
            assert_eq!((line.transport.as_deref(), line.length), (Some("udp"), 100));
            assert!(
                line.time >= before && line.time <= portguard_policy::human::rfc3339(now()),
                "{}",
                line.time
            );
            assert!(stream.ready().is_empty());
            Ok(())
        })
    })();
    std::fs::remove_dir_all(&layout.directory)?;
    result
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0))
}
