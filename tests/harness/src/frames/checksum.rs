//! The Internet checksum and SCTP's CRC.

/// The Internet checksum over the parts in turn; each but the last must have an even length.
pub fn checksum(parts: &[&[u8]]) -> u16 {
    let mut sum = 0_u64;
    for part in parts {
        let (quads, rest) = part.as_chunks::<4>();
        for quad in quads {
            sum += u64::from(u32::from_be_bytes(*quad));
        }
        let mut last = [0; 4];
        for (slot, byte) in last.iter_mut().zip(rest) {
            *slot = *byte;
        }
        sum += u64::from(u32::from_be_bytes(last));
    }
    // Ones' complement addition does not mind how wide the words are; fold down to 16 bits.
    while sum > 0xffff {
        sum = (sum >> 16) + (sum & 0xffff);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// CRC-32C (Castagnoli).
pub fn crc32c(bytes: &[u8]) -> u32 {
    let mut crc = !0_u32;
    for byte in bytes {
        let [low, ..] = crc.to_le_bytes();
        let entry = TABLE.get(usize::from(low ^ byte)).copied().unwrap_or(0);
        crc = (crc >> 8) ^ entry;
    }
    !crc
}

const TABLE: [u32; 256] = table();

#[expect(clippy::indexing_slicing, reason = "evaluated by the compiler")]
const fn table() -> [u32; 256] {
    let mut table = [0; 256];
    let mut index = 0_u32;
    while index < 256 {
        let mut value = index;
        let mut bit = 0;
        while bit < 8 {
            value = if value & 1 == 1 {
                (value >> 1) ^ 0x82f6_3b78
            } else {
                value >> 1
            };
            bit += 1;
        }
        table[index as usize] = value;
        index += 1;
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_values() {
        // RFC 1071 section 3 and RFC 3720 appendix B.4.
        assert_eq!(
            checksum(&[&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]]),
            !0xddf2
        );
        assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    }

    #[test]
    fn odd_and_split() {
        assert_eq!(checksum(&[&[1, 2, 3]]), checksum(&[&[1, 2, 3, 0]]));
        assert_eq!(
            checksum(&[&[1, 2], &[3, 4, 5, 6, 7]]),
            checksum(&[&[1, 2, 3, 4, 5, 6, 7]])
        );
        assert_eq!(
            checksum(&[&[1, 2, 3, 4, 5, 6], &[7]]),
            checksum(&[&[1, 2, 3, 4, 5, 6, 7]])
        );
    }
}
