//! Globals that the loader fills, and the configuration that is one.
#![expect(
    unsafe_code,
    reason = "globals are read as the loader left them, and not as the compiler knows them"
)]

use core::cell::UnsafeCell;
use core::ptr;

use portguard_common::config::Config;

/// A global that the loader fills and no program writes. The kernel freezes those in sections named `.rodata`.
#[repr(transparent)]
pub(crate) struct Frozen<T>(UnsafeCell<T>);

// SAFETY: nobody writes while programs run: the loader fills it before, and refills what the kernel does not freeze only
// while the program is attached nowhere.
unsafe impl<T> Sync for Frozen<T> {}

impl<T, const N: usize> Frozen<[T; N]> {
    /// What the loader replaces.
    pub(crate) const fn new(value: [T; N]) -> Self {
        Self(UnsafeCell::new(value))
    }

    /// An element; `index` must be below `N`, and the verifier must be able to see that.
    #[inline(always)]
    pub(crate) fn at(&self, index: usize) -> T {
        // SAFETY: in bounds by contract, which the verifier checks. Volatile, since the compiler must not take the
        // initial value for the one that the loader puts there.
        unsafe { ptr::read_volatile(self.0.get().cast::<T>().add(index)) }
    }
}

// `used`: for all the compiler knows, others write it. So it takes no initial value for the one that the loader puts there,
// and needs no register for where it is.
#[used]
#[unsafe(no_mangle)]
#[unsafe(link_section = ".rodata.config")]
static CONFIG: Frozen<Config> = Frozen(UnsafeCell::new(Config {
    enforce: 0,
    enforce_out: 0,
    strict_fragments: 0,
    strict_ethertypes: 0,
    sources: 0,
    hosts: 0,
    host_mask: 0,
    nets: 0,
    net_mask: 0,
    filter_mask: 0,
    width: 0,
    scoped: 0,
    flows: 0,
    flow_mask: 0,
    tcp_idle: 0,
    udp_idle: 0,
    tick_shift: 0,
    multi_buffer: 0,
    raw_ip: 0,
    no_fast_path: 0,
    ethertypes: 0,
    dhcp: 0,
    picked_ports: 0,
    endings: 0,
    card: 0,
    card_address: 0,
    deadline: 0,
    flow_key: [0; 2],
}));

/// The configuration of this generation.
#[inline(always)]
pub(crate) fn config() -> &'static Config {
    // SAFETY: never written while programs run, see `Frozen`. The verifier sees a constant address in a frozen map, and prunes
    // by the values that it finds there.
    unsafe { &*CONFIG.0.get().cast_const() }
}
