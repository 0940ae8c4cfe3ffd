use super::*;

#[test]
fn hex_is_read_in_the_ways_tools_write_it() {
    for text in ["0a0b0c", "0A:0b:0c", " 0a 0b\n0c ", "0x0a0b0c", "0a-0b-0c"] {
        assert_eq!(parse_hex(text), Ok(vec![10, 11, 12]), "{text}");
    }
    assert_eq!(
        parse_hex("0a0"),
        Err("an odd number of hexadecimal digits".into())
    );
    assert_eq!(
        parse_hex("0g"),
        Err("`g` is not a hexadecimal digit".into())
    );
    assert_eq!(parse_hex(" "), Err("no bytes".into()));
}

#[test]
fn what_is_no_capture_is_refused() {
    for bytes in [&b""[..], b"hello, world, this is text", &PCAPNG, &[0; 64]] {
        let result = read::<CaptureError>(bytes, |_| Ok(()));
        assert!(
            matches!(result, Err(CaptureError::Format(_) | CaptureError::Read(_))),
            "{bytes:?}"
        );
    }
}

/// A datagram to a port, as Ethernet carries it.
fn frame(port: u16) -> Vec<u8> {
    let mut frame = vec![2; 12];
    frame.extend([8, 0, 0x45, 0, 0, 28, 0, 0, 0, 0, 64, 17, 0, 0]);
    frame.extend([192, 0, 2, 1, 192, 0, 2, 2, 0, 9]);
    frame.extend(port.to_be_bytes());
    frame.extend([0, 8, 0, 0]);
    frame
}

/// How a file has its numbers.
#[derive(Clone, Copy)]
struct Order {
    is_big: bool,
}

impl Order {
    fn word(self, number: u32) -> [u8; 4] {
        if self.is_big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    fn half(self, number: u16) -> [u8; 2] {
        if self.is_big {
            number.to_be_bytes()
        } else {
            number.to_le_bytes()
        }
    }

    fn block(self, kind: u32, body: &[&[u8]]) -> Vec<u8> {
        let mut body = body.concat();
        body.resize(body.len().next_multiple_of(4), 0);
        let length = self.word(u32::try_from(body.len()).unwrap() + 12);
        [&self.word(kind)[..], &length, &body, &length].concat()
    }

    fn option(self, code: u16, value: &[u8]) -> Vec<u8> {
        let length = u16::try_from(value.len()).unwrap();
        let mut option = [&self.half(code)[..], &self.half(length), value].concat();
        option.resize(option.len().next_multiple_of(4), 0);
        option
    }

    fn section(self, options: &[u8]) -> Vec<u8> {
        let magic = self.word(0x1a2b_3c4d);
        let (major, minor) = (self.half(1), self.half(0));
        self.block(0x0a0d_0d0a, &[&magic, &major, &minor, &[0xff; 8], options])
    }

    fn interface(self, options: &[u8]) -> Vec<u8> {
        let (link, none) = (self.half(1), self.half(0));
        self.block(1, &[&link, &none, &self.word(0), options])
    }

    fn packet(self, frame: &[u8], options: &[u8]) -> Vec<u8> {
        let length = self.word(u32::try_from(frame.len()).unwrap());
        let mut frame = frame.to_vec();
        frame.resize(frame.len().next_multiple_of(4), 0);
        self.block(
            6,
            &[&self.word(0), &[0; 8], &length, &length, &frame, options],
        )
    }

    /// A classic capture of this link type, times as this number at its head says.
    fn classic(self, magic: u32, link: u32, frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = self.word(magic).to_vec();
        file.extend([self.half(2), self.half(4)].concat());
        file.extend([0; 8]);
        file.extend([self.word(262_144), self.word(link)].concat());
        for frame in frames {
            let length = self.word(u32::try_from(frame.len()).unwrap());
            file.extend([&[0; 8], &length[..], &length, frame].concat());
        }
        file
    }
}

const ORDERS: [Order; 2] = [Order { is_big: false }, Order { is_big: true }];

/// Ports of the frames, and how the file ends.
fn ports(file: &[u8]) -> Result<(Vec<u16>, End), CaptureError> {
    let mut ports = Vec::new();
    let end = read::<CaptureError>(file, |captured| {
        assert_eq!(captured.number, ports.len() as u64 + 1);
        ports.push(captured.packet.map_or(0, |packet| packet.destination_port));
        Ok(())
    })?;
    Ok((ports, end))
}

fn two() -> [Vec<u8>; 2] {
    [frame(80), frame(443)]
}

#[test]
fn a_check_sequence_at_the_end_of_frames_is_no_other_link() {
    // Four bytes of it, and none though its length is said; the bits of a newer tool besides.
    for bits in [
        0x2400_0000,
        0x0400_0000,
        0x4400_0000,
        0xf400_0000,
        0x0800_0000,
    ] {
        for order in ORDERS {
            let mut frames = two();
            for frame in &mut frames {
                frame.extend([0xde, 0xad, 0xbe, 0xef]);
            }
            for magic in [0xa1b2_c3d4, 0xa1b2_3c4d] {
                let file = order.classic(magic, 1 | bits, &frames);
                let (ports, end) = ports(&file).unwrap();
                assert_eq!((ports, end), (vec![80, 443], End::Whole), "{bits:#x}");
            }
        }
    }
    // Whatever the bits, what is no Ethernet is none.
    let other = ORDERS[0].classic(0xa1b2_c3d4, 0x2400_0000 | 0x69, &two());
    let refused = ports(&other).unwrap_err().to_string();
    assert!(refused.starts_with("link type 105 "), "{refused}");
}

#[test]
fn what_a_cut_capture_holds_is_read() {
    for order in ORDERS {
        let classic = order.classic(0xa1b2_c3d4, 1, &two());
        let blocks = [
            order.section(&[]),
            order.interface(&[]),
            order.packet(&frame(80), &[]),
            order.packet(&frame(443), &[]),
        ];
        let last = blocks[3].len();
        for (file, last) in [(classic, 16 + frame(443).len()), (blocks.concat(), last)] {
            assert_eq!(ports(&file).unwrap(), (vec![80, 443], End::Whole));
            for cut in 1..last {
                let read = ports(&file[..file.len() - cut]).unwrap();
                assert_eq!(read, (vec![80], End::Cut), "{cut} bytes less");
            }
            let read = ports(&file[..file.len() - last]).unwrap();
            assert_eq!(read, (vec![80], End::Whole));
        }
    }
}

#[test]
fn no_option_of_a_capture_spoils_it() {
    for order in ORDERS {
        let odd: [Vec<u8>; 6] = [
            // The resolution of times in three bytes, a name that is not UTF-8, one that nobody knows, and one of no length.
            order.option(9, &[6, 0, 0]),
            order.option(2, &[0xff, 0xfe, 0x80]),
            order.option(0x7abc, &[1, 2, 3, 4, 5]),
            order.option(9, &[]),
            // One that says to be longer than its block, and half of one.
            [order.half(1), order.half(4000)].concat(),
            order.half(1).to_vec(),
        ];
        for option in &odd {
            let file = [
                order.section(option),
                order.interface(option),
                // A block that nobody knows.
                order.block(0x0bad, &[&[7; 9]]),
                order.packet(&frame(80), option),
                order.packet(&frame(443), option),
            ]
            .concat();
            let read = ports(&file).unwrap();
            assert_eq!(read, (vec![80, 443], End::Whole), "{option:02x?}");
        }
    }
}

#[test]
fn all_blocks_of_frames_are_read_in_sections_of_either_order() {
    let mut file = Vec::new();
    for order in ORDERS {
        let length = order.word(u32::try_from(frame(1).len()).unwrap());
        file.extend(order.section(&[]));
        file.extend(order.interface(&[]));
        file.extend(order.packet(&frame(1), &[]));
        file.extend(order.block(3, &[&length, &frame(2)]));
        let (interface, drops) = (order.half(0), order.half(0));
        file.extend(order.block(
            2,
            &[&interface, &drops, &[0; 8], &length, &length, &frame(3)],
        ));
    }
    assert_eq!(ports(&file).unwrap(), (vec![1, 2, 3, 1, 2, 3], End::Whole));
}

/// Whatever a file says, it is read to its end or refused.
#[test]
fn what_is_broken_is_refused_and_never_more_is_held_than_there_is() {
    let order = ORDERS[0];
    let head = [order.section(&[]), order.interface(&[])].concat();
    let with = |block: &[u8]| [&head, block].concat();
    let good = order.packet(&frame(80), &[]);
    let at = |place: usize, number: u32| {
        let mut block = good.clone();
        block[place..place + 4].copy_from_slice(&order.word(number));
        block
    };
    for (what, block) in [
        ("interface 7", at(8, 7)),
        ("in a block of fewer", at(20, 4000)),
        ("two lengths", at(good.len() - 4, 8)),
        ("a block of 7 bytes", at(4, 7)),
        ("a block of 8 bytes", at(4, 8)),
    ] {
        let refused = ports(&with(&block)).unwrap_err().to_string();
        assert!(refused.contains(what), "{refused}");
    }
    let endless = [good.clone(), at(4, 0xffff_fffc)].concat();
    assert_eq!(ports(&with(&endless)).unwrap(), (vec![80], End::Cut));
    // Every byte, by every bit.
    let file = with(&good);
    for at in 0..file.len() * 8 {
        let mut file = file.clone();
        file[at / 8] ^= 1 << (at % 8);
        let _ = ports(&file);
    }
}
