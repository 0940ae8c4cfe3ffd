//! A release is believed as it was signed, or not at all.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use portguard_fleet::release::{
    CHUNK, KeySet, MAX_OBJECT, Manifest, Refused, Release, Shard, Trust, pack, pack_small, unpack,
    unpack_small,
};
use proptest::prelude::*;

use crate::support::sign::{Made, Signers, entry, made, signature};

fn hosts() -> Shard {
    [("a".to_owned(), entry("d1"))].into()
}

fn none(_: u64) -> Result<Vec<u8>, String> {
    Err("there is no other release".to_owned())
}

struct Case {
    signers: Signers,
    trust: Trust,
    made: Made,
    bytes: Vec<u8>,
}

fn case(serial: u64) -> Case {
    let signers = Signers::new(3);
    let keys = signers.keys(1, 2);
    let made = made(serial, keys.clone(), hosts());
    let bytes = signers.sign(&made.manifest, &[0, 2]).to_bytes();
    let trust = Trust::new("test", keys);
    Case {
        signers,
        trust,
        made,
        bytes,
    }
}

#[test]
fn what_enough_keys_signed_is_believed_and_again() {
    let mut case = case(5);
    for _ in 0..2 {
        let manifest = case.trust.accept(5, &case.bytes, 2000, &mut none).unwrap();
        assert_eq!(manifest, case.made.manifest);
    }
    assert_eq!(case.trust.seen.as_ref().map(|(serial, _)| *serial), Some(5));
}

#[test]
fn any_bit_that_is_another_is_refused() {
    let case = case(5);
    // All of them: it is some thousand bytes.
    for bit in 0..case.bytes.len() * 8 {
        let mut bytes = case.bytes.clone();
        bytes[bit / 8] ^= 1 << (bit % 8);
        let mut trust = case.trust.clone();
        let verdict = trust.accept(5, &bytes, 2000, &mut none);
        assert!(
            verdict.is_err(),
            "bit {bit} of {:?}",
            String::from_utf8_lossy(&bytes)
        );
        assert_eq!(trust, case.trust, "nothing is learnt from what is refused");
    }
}

#[test]
fn truncated_or_followed_by_more_it_is_refused() {
    let mut case = case(5);
    for end in 0..case.bytes.len() {
        assert!(
            case.trust
                .accept(5, &case.bytes[..end], 2000, &mut none)
                .is_err()
        );
    }
    for more in [" ", "\n", "{}", "\0"] {
        let mut bytes = case.bytes.clone();
        bytes.extend_from_slice(more.as_bytes());
        assert!(case.trust.accept(5, &bytes, 2000, &mut none).is_err());
    }
}

#[test]
fn too_few_signatures_a_strangers_or_a_wrong_one_are_refused() {
    let mut case = case(5);
    let one = case.signers.sign(&case.made.manifest, &[1]);
    let refused = case
        .trust
        .accept(5, &one.to_bytes(), 2000, &mut none)
        .unwrap_err();
    assert!(matches!(refused, Refused::Signature(_)), "{refused}");
    // One key twice is one key.
    let mut twice = one.clone();
    twice
        .signatures
        .add(&signature(&case.signers.0[1], &twice.manifest))
        .unwrap();
    assert!(
        case.trust
            .accept(5, &twice.to_bytes(), 2000, &mut none)
            .is_err()
    );
    let strangers = Signers::new(2);
    let mut foreign = case.signers.sign(&case.made.manifest, &[0, 1]);
    foreign
        .signatures
        .add(&signature(&strangers.0[0], &foreign.manifest))
        .unwrap();
    assert!(
        case.trust
            .accept(5, &foreign.to_bytes(), 2000, &mut none)
            .is_err()
    );
    let mut wrong = case.signers.sign(&case.made.manifest, &[0, 1]);
    wrong
        .signatures
        .add(&signature(&case.signers.0[2], "something else"))
        .unwrap();
    assert!(
        case.trust
            .accept(5, &wrong.to_bytes(), 2000, &mut none)
            .is_err()
    );
}

#[test]
fn an_older_release_another_with_its_serial_and_one_of_another_fleet_are_refused() {
    let Case {
        signers,
        mut trust,
        made: new,
        bytes,
    } = case(5);
    trust.accept(5, &bytes, 2000, &mut none).unwrap();
    let keys = new.manifest.keys.clone();
    let old = signers
        .sign(&made(4, keys.clone(), hosts()).manifest, &[0, 1])
        .to_bytes();
    assert_eq!(
        trust.accept(4, &old, 2000, &mut none).unwrap_err(),
        Refused::Older { found: 4, seen: 5 }
    );
    // Yesterday's, under today's number.
    assert_eq!(
        trust.accept(6, &bytes, 2000, &mut none).unwrap_err(),
        Refused::Swapped(6)
    );
    let mut other = new.manifest.clone();
    other.issued += 1;
    let other = signers.sign(&other, &[0, 1]).to_bytes();
    assert_eq!(
        trust.accept(5, &other, 2000, &mut none).unwrap_err(),
        Refused::Swapped(5)
    );
    let mut foreign = made(6, keys, hosts()).manifest;
    foreign.fleet = "another".to_owned();
    let foreign = signers.sign(&foreign, &[0, 1]).to_bytes();
    let refused = trust.accept(6, &foreign, 2000, &mut none).unwrap_err();
    assert!(matches!(refused, Refused::OtherFleet { .. }));
}

#[test]
fn after_its_time_it_is_new_to_nobody_but_stays_with_those_who_have_it() {
    let Case {
        signers,
        mut trust,
        mut made,
        ..
    } = case(5);
    made.manifest.valid_until = 3000;
    let bytes = signers.sign(&made.manifest, &[0, 1]).to_bytes();
    let mut late = trust.clone();
    assert_eq!(
        late.accept(5, &bytes, 3000, &mut none).unwrap_err(),
        Refused::Expired(5)
    );
    trust.accept(5, &bytes, 2999, &mut none).unwrap();
    trust.accept(5, &bytes, 4000, &mut none).unwrap();
}

#[test]
fn a_release_for_newer_tools_is_refused() {
    let Case {
        signers,
        trust,
        made,
        ..
    } = case(5);
    for (version, is_refused) in [
        ("0.1.0", false),
        ("0.0.9", false),
        ("0.1.1", true),
        ("1", true),
        ("x", true),
    ] {
        let mut manifest = made.manifest.clone();
        manifest.least_tool = version.to_owned();
        let bytes = signers.sign(&manifest, &[0, 1]).to_bytes();
        let verdict = trust.clone().accept(5, &bytes, 2000, &mut none);
        assert_eq!(verdict.is_err(), is_refused, "{version}");
    }
}

/// Releases 1 to 6; the keys change in 2 and in 4.
fn rotated() -> (Trust, Vec<Signers>, Vec<Vec<u8>>) {
    let signers: Vec<Signers> = (0..3).map(|_| Signers::new(2)).collect();
    let changes = [2, 4];
    let mut releases = vec![Vec::new()];
    for serial in 1..=6 {
        let past: Vec<u64> = changes
            .iter()
            .copied()
            .filter(|change| *change <= serial)
            .collect();
        let keys = signers[past.len()].keys(past.len() as u64 + 1, 2);
        let mut manifest = made(serial, keys, hosts()).manifest;
        let by = if changes.contains(&serial) {
            past.len() - 1
        } else {
            past.len()
        };
        manifest.key_changes = past;
        releases.push(signers[by].sign(&manifest, &[0, 1]).to_bytes());
    }
    (Trust::new("test", signers[0].keys(1, 2)), signers, releases)
}

fn from(releases: &[Vec<u8>]) -> impl FnMut(u64) -> Result<Vec<u8>, String> {
    move |serial| {
        let at = usize::try_from(serial).unwrap();
        releases
            .get(at)
            .cloned()
            .ok_or_else(|| "not there".to_owned())
    }
}

#[test]
fn new_keys_come_signed_by_the_old_ones_and_who_was_away_follows_them() {
    let (trust, signers, releases) = rotated();
    for start in 1..=6 {
        let mut one = trust.clone();
        for serial in start..=6u64 {
            let at = usize::try_from(serial).unwrap();
            one.accept(serial, &releases[at], 2000, &mut from(&releases))
                .unwrap();
        }
        assert_eq!(one.keys, signers[2].keys(3, 2), "from release {start} on");
    }
    // Without the release in which they changed there is no way to the new keys.
    let mut broken = releases.clone();
    broken[2] = Vec::new();
    assert!(
        trust
            .clone()
            .accept(6, &releases[6], 2000, &mut from(&broken))
            .is_err()
    );
}

#[test]
fn keys_that_the_old_ones_did_not_sign_never_count() {
    let (trust, signers, releases) = rotated();
    let mut current = trust.clone();
    current
        .accept(3, &releases[3], 2000, &mut from(&releases))
        .unwrap();
    // The first keys, which were replaced, sign again.
    let mut manifest = made(7, signers[0].keys(1, 2), hosts()).manifest;
    let bytes = signers[0].sign(&manifest, &[0, 1]).to_bytes();
    assert!(
        current
            .clone()
            .accept(7, &bytes, 2000, &mut from(&releases))
            .is_err()
    );
    // A thief's keys, signed by themselves, as if they were the next.
    let thief = Signers::new(2);
    manifest.keys = thief.keys(3, 2);
    manifest.key_changes = vec![2, 7];
    let bytes = thief.sign(&manifest, &[0, 1]).to_bytes();
    assert!(
        current
            .clone()
            .accept(7, &bytes, 2000, &mut from(&releases))
            .is_err()
    );
    // Keys that change without saying so.
    manifest.keys = thief.keys(2, 2);
    manifest.key_changes = vec![2];
    let bytes = signers[1].sign(&manifest, &[0, 1]).to_bytes();
    assert!(
        current
            .accept(7, &bytes, 2000, &mut from(&releases))
            .is_err()
    );
}

#[test]
fn key_sets_that_anybody_could_satisfy_are_refused() {
    let signers = Signers::new(2);
    let good = signers.keys(1, 2);
    good.check().unwrap();
    let none = KeySet {
        version: 1,
        threshold: 0,
        keys: good.keys.clone(),
    };
    let many = KeySet {
        version: 1,
        threshold: 3,
        keys: good.keys.clone(),
    };
    let words = KeySet {
        version: 1,
        threshold: 1,
        keys: ["key".to_owned()].into(),
    };
    // One person's key under two ids would be two votes.
    let mut bytes = STANDARD.decode(good.keys.first().unwrap()).unwrap();
    bytes[3] ^= 1;
    let twice = KeySet {
        version: 1,
        threshold: 2,
        keys: [good.keys.first().unwrap().clone(), STANDARD.encode(&bytes)].into(),
    };
    for keys in [none, many, words, twice] {
        assert!(keys.check().is_err(), "{keys:?}");
    }
}

#[test]
fn documents_come_back_whole_whatever_their_size() {
    for length in [
        0,
        1,
        CHUNK - (8 << 10) - 1,
        CHUNK - (8 << 10),
        CHUNK,
        3 * CHUNK + 7,
    ] {
        let mut random = fastrand::Rng::with_seed(length as u64);
        let bytes: Vec<u8> = (0..length).map(|_| random.u8(..)).collect();
        let packed = pack(&bytes).unwrap();
        let chunks: Vec<Vec<u8>> = packed
            .chunks
            .iter()
            .map(|(_, chunk)| chunk.clone())
            .collect();
        assert!(chunks.iter().all(|chunk| chunk.len() <= CHUNK));
        assert_eq!(unpack(&packed.object, &chunks).unwrap(), bytes);
    }
}

#[test]
fn a_missing_an_extra_or_a_swapped_chunk_is_refused() {
    let mut random = fastrand::Rng::with_seed(7);
    let bytes: Vec<u8> = (0..2 * CHUNK).map(|_| random.u8(..)).collect();
    let packed = pack(&bytes).unwrap();
    let chunks: Vec<Vec<u8>> = packed
        .chunks
        .iter()
        .map(|(_, chunk)| chunk.clone())
        .collect();
    assert_eq!(chunks.len(), 3);
    let refused = |chunks: &[Vec<u8>]| assert!(unpack(&packed.object, chunks).is_err());
    refused(&[]);
    refused(&chunks[..2]);
    refused(&[chunks[1].clone(), chunks[0].clone(), chunks[2].clone()]);
    refused(&[chunks[0].clone(), chunks[0].clone(), chunks[2].clone()]);
    let mut more = chunks.clone();
    more.push(chunks[2].clone());
    refused(&more);
    // Also where the manifest names as many.
    let mut object = packed.object.clone();
    object.chunks.push(object.chunks[2].clone());
    assert!(unpack(&object, &more).is_err());
    object = packed.object.clone();
    object.chunks.swap(0, 1);
    let swapped = [chunks[1].clone(), chunks[0].clone(), chunks[2].clone()];
    assert!(unpack(&object, &swapped).is_err());
}

#[test]
fn what_unpacks_to_more_than_was_signed_is_refused_before_it_is_there() {
    // Sixteen gigabytes of zeros in half a megabyte would be possible; so much as this is refused already.
    let bomb = zstd::bulk::compress(&vec![0; 64 << 20], 3).unwrap();
    assert!(bomb.len() < CHUNK);
    let hash = portguard_fleet::Hash::of(&bomb);
    assert!(unpack_small(&hash, &bomb).is_err());
    let mut object = pack(b"small").unwrap().object;
    object.chunks = vec![hash];
    assert!(unpack(&object, std::slice::from_ref(&bomb)).is_err());
    object.bytes = MAX_OBJECT + 1;
    assert!(unpack(&object, &[bomb]).is_err());
    assert!(pack_small(&vec![1; CHUNK]).is_err());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn whatever_is_read_as_a_release_is_refused_or_read_and_never_ends_the_program(
        bytes in proptest::collection::vec(any::<u8>(), 0..2000),
    ) {
        prop_assert!(Release::parse(&bytes).is_err());
        let text = String::from_utf8_lossy(&bytes).into_owned();
        prop_assert!(Manifest::parse(&text).is_err());
    }

    #[test]
    fn a_bit_flipped_in_a_chunk_is_refused(bytes in proptest::collection::vec(any::<u8>(), 1..3000), at in any::<prop::sample::Index>()) {
        let packed = pack(&bytes).unwrap();
        let mut chunk = packed.chunks[0].1.clone();
        let bit = at.index(chunk.len() * 8);
        chunk[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(unpack(&packed.object, &[chunk]).is_err());
    }
}
