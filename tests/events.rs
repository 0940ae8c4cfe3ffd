//! Events from the loaded program to lines, through the kernel's ring buffer.

use anyhow::{Context as _, Result};
use aya::{TestRun as _, TestRunOptions};
use portguard::cells::Directory;
use portguard::events::Words;
use portguard::events::stream::{Stream, booted};
use portguard::image::Image;
use portguard::kernel::bpffs;
use portguard::object::{HostFacts, load};
use portguard::policy::Policy;
use portguard_harness::frames::{Frame, Ipv4, Udp};

#[test]
fn violations_become_lines() -> Result<()> {
    let policy = Policy::default();
    let image = Image::build(&policy, Directory::default())?;
    let _mounted = bpffs::lock()?;
    let shared = bpffs::root().join(format!("events-{}", std::process::id()));
    std::fs::create_dir_all(&shared)?;
    let result = (|| {
        let facts = HostFacts {
            sample_mask: 0,
            ..HostFacts::default()
        };
        let mut loaded = load(&image, &facts, Some(&shared))?;
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let mut stream = Stream::open_in(&shared)?;
            stream.announce()?;
            let second = Stream::open_in(&shared);
            assert!(second.is_err(), "one reader at a time");
            let frame = Frame::new([2; 6], [4; 6])
                .ipv4(Ipv4::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into()))
                .udp(Udp::new(40_000, 99))
                .payload(vec![1; 58])
                .build();
            let before = portguard::human::rfc3339(now());
            loaded.ingress()?.test_run(TestRunOptions {
                data_in: Some(&frame),
                repeat: 1,
                ..TestRunOptions::default()
            })?;
            let events = stream.wait().await?;
            let event = events.first().context("an event")?;
            let line = Words::new("eth0", &policy).tell(event, booted());
            assert_eq!((line.reason, line.verdict), ("undocumented-port", "pass"));
            assert_eq!(line.source, Some([10, 0, 0, 1].into()));
            assert_eq!(
                (line.source_port, line.destination_port),
                (Some(40_000), Some(99))
            );
            assert_eq!((line.transport.as_deref(), line.length), (Some("udp"), 100));
            assert!(
                line.time >= before && line.time <= portguard::human::rfc3339(now()),
                "{}",
                line.time
            );
            assert!(stream.ready().is_empty());
            Ok(())
        })
    })();
    std::fs::remove_dir_all(&shared)?;
    result
}

fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |since| u64::try_from(since.as_nanos()).unwrap_or(0))
}
