//! Addresses as two host-order words.

/// An IPv4 or IPv6 address. IPv4 stands in the low 32 bits of `low`, with `high` zero and `v6` false.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct Addr {
    /// Which family.
    pub v6: bool,
    /// First eight octets of an IPv6 address, host order.
    pub high: u64,
    /// Last eight octets of an IPv6 address, or the four of an IPv4 address, host order.
    pub low: u64,
}

impl Addr {
    /// From an IPv4 address in host order.
    #[inline(always)]
    pub const fn v4(address: u32) -> Self {
        Self {
            v6: false,
            high: 0,
            low: address as u64,
        }
    }

    /// From the two halves of an IPv6 address in host order.
    #[inline(always)]
    pub const fn v6(high: u64, low: u64) -> Self {
        Self {
            v6: true,
            high,
            low,
        }
    }

    /// The IPv4 address in host order; meaningless for IPv6.
    #[inline(always)]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the low 32 bits are what is asked for"
    )]
    pub const fn as_v4(self) -> u32 {
        self.low as u32
    }

    /// All of it as plain words, for keys of maps: two addresses have the same only if they are the same.
    #[inline(always)]
    pub const fn words(self) -> [u64; 3] {
        [self.v6 as u64, self.high, self.low]
    }

    /// Multicast of either family, or an IPv4 broadcast address that belongs to no network: all ones, and the all zeros of
    /// old, which Linux still delivers (RFC 1112, RFC 4291 section 2.7, RFC 919, RFC 1122 section 3.2.1.3).
    #[inline(always)]
    pub const fn is_group(self) -> bool {
        if self.v6 {
            self.high >> 56 == 0xff
        } else {
            self.low >> 28 == 0xe || self.low == 0xffff_ffff || self.low == 0
        }
    }

    /// Link-local of either family (RFC 4291 section 2.5.6, RFC 3927): no router forwards it, so that what is for one and
    /// arrives may be for this host.
    #[inline(always)]
    pub const fn is_link_local(self) -> bool {
        if self.v6 {
            self.high >> 54 == 0x3fa
        } else {
            self.low >> 16 == 0xa9fe
        }
    }
}

impl From<core::net::IpAddr> for Addr {
    fn from(address: core::net::IpAddr) -> Self {
        match address {
            core::net::IpAddr::V4(v4) => Self::v4(v4.to_bits()),
            core::net::IpAddr::V6(v6) => {
                let bits = v6.to_bits();
                #[expect(clippy::cast_possible_truncation, reason = "takes the two halves")]
                Self::v6((bits >> 64) as u64, bits as u64)
            }
        }
    }
}

impl From<Addr> for core::net::IpAddr {
    fn from(address: Addr) -> Self {
        if address.v6 {
            let bits = u128::from(address.high) << 64 | u128::from(address.low);
            Self::V6(core::net::Ipv6Addr::from_bits(bits))
        } else {
            Self::V4(core::net::Ipv4Addr::from_bits(address.as_v4()))
        }
    }
}
