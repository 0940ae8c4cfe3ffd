//! Whether a program asked for the port of its UDP socket, or the kernel picked it. The kernel knows, and its list of sockets
//! does not say: a program looks at the socket itself.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::OnceLock;

use aya::EbpfLoader;
use aya::programs::SchedClassifier;
use portguard_common::conntrack::{Class, Tuple};
use portguard_common::packet::{protocol, space};
use portguard_common::track::owner;

use crate::error::Context as _;
use crate::machine::{self, Feature};
use crate::record;

/// `SOCK_BINDPORT_LOCK`, the bit of `sk_userlocks` that says that a program asked for the port: its number.
const BINDPORT: u32 = 3;
/// Name of the program that looks at a socket.
const PROGRAM: &str = "portguard_owner";
/// The global that it, and the guard, find the bit by.
pub(crate) const GLOBAL: &str = "ASKED";

/// The number of the bit in the kernel's `struct sock`; 0 where it is not known, or may not be read.
pub(crate) fn bit() -> u32 {
    static BIT: OnceLock<u32> = OnceLock::new();
    *BIT.get_or_init(|| {
        if !machine::has(Feature::KernelReads).unwrap_or(false) {
            return 0;
        }
        let found = machine::btf().ok().and_then(|btf| userlocks(&btf));
        found.map_or(0, |at| at + BINDPORT)
    })
}

/// Where `sk_userlocks` stands in `struct sock`, in bits. The types are walked one after the other, without keeping them:
/// there are a hundred thousand, and a load has no time for all.
fn userlocks(btf: &[u8]) -> Option<u32> {
    let word = |at: usize| -> Option<u32> {
        let bytes = btf.get(at..at.checked_add(4)?)?;
        Some(u32::from_le_bytes(bytes.try_into().ok()?))
    };
    let place = |at: usize| usize::try_from(word(at)?).ok();
    // The header: magic and version, its length, then where types and strings are behind it, and how long.
    let header = place(4)?;
    let (types, length, strings) = (header + place(8)?, place(12)?, header + place(16)?);
    let is_named = |at: usize, name: &[u8]| -> Option<bool> {
        let text = btf.get(strings.checked_add(place(at)?)?..)?;
        Some(text.starts_with(name) && text.get(name.len()) == Some(&0))
    };
    let mut at = types;
    while at < types.checked_add(length)? {
        let info = word(at + 4)?;
        let (kind, count) = (info >> 24 & 31, usize::try_from(info & 0xffff).ok()?);
        let members = at + 12;
        if kind == STRUCT && is_named(at, b"sock")? {
            for member in (0..count).map(|index| members + 12 * index) {
                if is_named(member, b"sk_userlocks")? {
                    // Where members have a number of bits, it stands in the high eight.
                    let mask = if info >> 31 == 0 { u32::MAX } else { 0xff_ffff };
                    return Some(word(member + 8)? & mask);
                }
            }
        }
        at = members + behind(kind, count)?;
    }
    None
}

const STRUCT: u32 = 4;

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

/// What looks at sockets.
pub(crate) struct Owners {
    program: aya::Ebpf,
}

/// What is known of a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Owner {
    /// Its program asked for it.
    Asked,
    /// The kernel picked it.
    Picked,
    /// The kernel does not say.
    Unknown,
    /// The socket is not found: it is gone, or bound to an interface.
    Hidden,
}

impl Owners {
    /// Has the kernel take the program.
    ///
    /// # Errors
    /// If it refuses.
    pub(crate) fn new() -> crate::Result<Self> {
        let mut program = EbpfLoader::new()
            .btf(None)
            .override_global(GLOBAL, &bit(), true)
            .load(record::SOCKETS)?;
        let looks: &mut SchedClassifier = program
            .program_mut(PROGRAM)
            .with_context(|| format!("the embedded object has no program `{PROGRAM}`"))?
            .try_into()?;
        looks.load()?;
        Ok(Self { program })
    }

    /// What is known of the local port of a UDP socket that is connected.
    ///
    /// # Errors
    /// If the program cannot be run.
    pub(crate) fn of(&mut self, local: SocketAddr, remote: SocketAddr) -> crate::Result<Owner> {
        self.ask(local, remote, 0)
    }

    /// What is known of the port of a UDP socket that is not connected.
    pub(crate) fn of_bound(
        &mut self,
        address: IpAddr,
        port: u16,
        interface: u32,
    ) -> crate::Result<Owner> {
        let local = match address {
            IpAddr::V4(any) if any.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(any) if any.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            IpAddr::V4(_) | IpAddr::V6(_) => address,
        };
        // Whoever speaks is heard.
        self.ask(
            SocketAddr::new(local, port),
            SocketAddr::new(local, 0),
            interface,
        )
    }

    fn ask(
        &mut self,
        local: SocketAddr,
        remote: SocketAddr,
        interface: u32,
    ) -> crate::Result<Owner> {
        let tuple = Tuple {
            space: space(protocol::UDP),
            local: local.ip().into(),
            remote: remote.ip().into(),
            local_port: local.port(),
            remote_port: remote.port(),
        };
        let program = self.program.program_mut(PROGRAM).context("the program")?;
        let found = record::run_at(
            program.try_into()?,
            &record::record_of(&tuple, 0, Class::Datagrams),
            interface,
        )?;
        Ok(
            match found & (owner::FOUND | owner::ASKED | owner::PICKED) {
                0 => Owner::Hidden,
                owner::FOUND => Owner::Unknown,
                found if found & owner::PICKED != 0 => Owner::Picked,
                _ => Owner::Asked,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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

    #[test]
    fn the_bit_is_found_by_the_names_of_types() {
        assert_eq!(userlocks(&btf(false)), Some(1944));
        assert_eq!(userlocks(&btf(true)), Some(1944));
    }

    #[test]
    fn cut_anywhere_it_is_not_found() {
        let whole = btf(true);
        for length in 0..whole.len() {
            let found = userlocks(&whole[..length]);
            assert!(found.is_none_or(|at| at == 1944), "{length}");
        }
        assert_eq!(userlocks(&[0xff; 64]), None);
    }
}
