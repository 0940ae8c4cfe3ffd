use portguard::cells::Directory;
use portguard::image::Image;
use portguard::object::{HostFacts, load};
use portguard::policy::{Policy, Settings};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let has = |w: &str| a.iter().any(|x| x == w);
    let mut image = Image::build(
        &Policy {
            settings: Settings {
                enforce: true,
                ..Default::default()
            },
            ..Default::default()
        },
        Directory::default(),
    )
    .unwrap();
    if has("noflows") {
        image.facts.flows = 0;
    }
    if has("sources") {
        image.facts.sources = 1;
        image.facts.hosts = 1;
    }
    let r = load(
        &image,
        &HostFacts {
            multi_buffer: has("mb"),
            deadline: u64::from(has("deadline")),
            sample_mask: if has("events") { 1023 } else { u32::MAX },
            ..Default::default()
        },
        None,
    );
    match r {
        Ok(mut l) => {
            let i = l.ingress().unwrap().info().unwrap();
            println!(
                "xdp steps {:?} xlated {} jited {}",
                i.verified_instruction_count(),
                i.size_translated().unwrap_or(0) / 8,
                i.size_jitted()
            );
            if l.facts.flows != 0 {
                let i = l.egress().unwrap().info().unwrap();
                println!(
                    "tc steps {:?} xlated {} jited {}",
                    i.verified_instruction_count(),
                    i.size_translated().unwrap_or(0) / 8,
                    i.size_jitted()
                );
            }
        }
        Err(e) => {
            let s = format!("{e:#}");
            println!("{}", &s[s.len().saturating_sub(1500)..]);
        }
    }
}
