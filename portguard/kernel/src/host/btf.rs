//! Where members of the kernel's own structures stand, as it describes them itself.

use std::sync::OnceLock;

use crate::machine::{self, Feature};

const STRUCT: u32 = 4;

/// The members that programs of the guard look at.
const WANTED: [(&str, &str); 22] = [
    ("sock", "sk_userlocks"),
    ("sock", "sk_rx_dst_ifindex"),
    // Before Linux 5.16.
    ("inet_sock", "rx_dst_ifindex"),
    ("sk_buff", "_nfct"),
    ("nf_conn", "tuplehash"),
    ("nf_conntrack_tuple_hash", "tuple"),
    ("xdp_buff", "rxq"),
    ("xdp_rxq_info", "dev"),
    ("net_device", "ifindex"),
    ("net_device", "nd_net"),
    ("net_device", "adj_list"),
    ("net_device", "priv_flags"),
    ("net_device", "dev_addr"),
    ("netdev_adjacent", "list"),
    ("netdev_adjacent", "master"),
    ("net_device", "rtnl_link_ops"),
    ("rtnl_link_ops", "kind"),
    ("net_device", "rx_handler"),
    ("net_device", "tcx_ingress"),
    ("net_device", "miniq_ingress"),
    ("net_device", "nf_hooks_ingress"),
    ("net_device", SIZE),
];

/// In place of a member: all of the structure, of which the size is wanted.
const SIZE: &str = "";

/// Where one of them stands in its structure, in bits; `None` where the kernel does not say, or does not let programs read its
/// memory. Its description is read once, for all of them.
pub(super) fn member(structure: &str, name: &str) -> Option<u32> {
    static FOUND: OnceLock<[Option<u32>; WANTED.len()]> = OnceLock::new();
    let found = FOUND.get_or_init(|| {
        let mut found = [None; WANTED.len()];
        if machine::has(Feature::KernelReads).unwrap_or(false)
            && let Ok(btf) = machine::btf()
        {
            let _ = walk(&btf, &WANTED, &mut found);
        }
        found
    });
    let mut all = WANTED.iter().zip(found);
    all.find_map(|(wanted, found)| found.filter(|_| *wanted == (structure, name)))
}

/// How many octets one of the structures has.
pub(super) fn size(structure: &str) -> Option<u32> {
    member(structure, SIZE)
}

/// Walks the types one after the other, without keeping them: there are a hundred thousand, and a load has no time for all.
/// `None` where the description ends too early.
fn walk(btf: &[u8], wanted: &[(&str, &str)], found: &mut [Option<u32>]) -> Option<()> {
    let word = |at: usize| -> Option<u32> {
        let bytes = btf.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let place = |at: usize| usize::try_from(word(at)?).ok();
    // The header: magic and version, its length, then where types and strings are behind it, and how long.
    let header = place(4)?;
    let (types, length, strings) = (header + place(8)?, place(12)?, header + place(16)?);
    let is_named = |at: usize, name: &str| -> Option<bool> {
        let text = btf.get(strings.checked_add(place(at)?)?..)?;
        Some(text.starts_with(name.as_bytes()) && text.get(name.len()) == Some(&0))
    };
    let mut at = types;
    while at < types.checked_add(length)? && found.iter().any(Option::is_none) {
        let info = word(at + 4)?;
        let (kind, count) = (info >> 24 & 31, usize::try_from(info & 0xffff).ok()?);
        let members = at + 12;
        for ((structure, name), found) in wanted.iter().zip(&mut *found) {
            if kind != STRUCT || found.is_some() || !is_named(at, structure)? {
                continue;
            }
            if *name == SIZE {
                *found = word(at + 8);
                continue;
            }
            for member in (0..count).map(|index| members + 12 * index) {
                if is_named(member, name)? {
                    // Where members have a number of bits, it stands in the high eight.
                    let mask = if info >> 31 == 0 { u32::MAX } else { 0xff_ffff };
                    *found = Some(word(member + 8)? & mask);
                }
            }
        }
        at = members + behind(kind, count)?;
    }
    Some(())
}

/// Octets behind the head of a type.
const fn behind(kind: u32, count: usize) -> Option<usize> {
    Some(match kind {
        // Numbers, variables and tags of declarations.
        1 | 14 | 17 => 4,
        // Arrays.
        3 => 12,
        // Structures, unions, sections and long enumerations.
        STRUCT | 5 | 15 | 19 => 12 * count,
        // Enumerations and functions with their arguments.
        6 | 13 => 8 * count,
        // Pointers, names, qualifiers, functions, floats and tags of types.
        0 | 2 | 7..=12 | 16 | 18 => 0,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TWO: [(&str, &str); 2] = [("sock", "sk_userlocks"), ("socket", "sk_state")];

    /// Heads of types, and what is behind them.
    fn btf(is_bits: bool) -> Vec<u8> {
        let strings = b"\0int\0sock\0sk_userlocks\0sk_state\0socket\0";
        let name = |wanted: &str| {
            let text = std::str::from_utf8(strings).unwrap();
            u32::try_from(text.find(&format!("\0{wanted}\0")).unwrap() + 1).unwrap()
        };
        let number = [name("int"), 1 << 24, 4, 32];
        let other = [name("socket"), 4 << 24 | 1, 4, name("sk_userlocks"), 1, 8];
        let size = if is_bits { 4 << 24 } else { 0 };
        let wanted = [
            name("sock"),
            4 << 24 | 2 | u32::from(is_bits) << 31,
            4,
            name("sk_state"),
            1,
            0,
            name("sk_userlocks"),
            1,
            1944 + size,
        ];
        let types: Vec<u8> = [&number[..], &other, &wanted]
            .concat()
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let length = u32::try_from(types.len()).unwrap();
        let mut all = vec![0x9f, 0xeb, 1, 0];
        for word in [24, 0, length, length, u32::try_from(strings.len()).unwrap()] {
            all.extend(u32::to_le_bytes(word));
        }
        all.extend(types);
        all.extend(strings);
        all
    }

    fn walked(btf: &[u8]) -> [Option<u32>; 2] {
        let mut found = [None; 2];
        let _ = walk(btf, &TWO, &mut found);
        found
    }

    #[test]
    fn members_are_found_by_the_names_of_types() {
        assert_eq!(walked(&btf(false)), [Some(1944), None]);
        assert_eq!(walked(&btf(true)), [Some(1944), None]);
    }

    #[test]
    fn cut_anywhere_they_are_not_found() {
        let whole = btf(true);
        for length in 0..whole.len() {
            let [found, none] = walked(&whole[..length]);
            assert!(found.is_none_or(|at| at == 1944), "{length}");
            assert_eq!(none, None);
        }
        assert_eq!(walked(&[0xff; 64]), [None; 2]);
    }
}
