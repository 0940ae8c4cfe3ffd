//! The blocks of a pcapng file, as far as a verdict needs them: what links the frames are of, and the frames. Options are not
//! read, so that none of them can spoil a capture.

use std::io::{self, ErrorKind, Read};

use super::{CaptureError, Raw};

/// Types of blocks. Every other is passed over.
mod kind {
    pub(super) const SECTION: u32 = 0x0a0d_0d0a;
    pub(super) const INTERFACE: u32 = 1;
    pub(super) const OLD_PACKET: u32 = 2;
    pub(super) const SIMPLE_PACKET: u32 = 3;
    pub(super) const PACKET: u32 = 6;
}

/// Says in which order a section has its bytes.
const BYTE_ORDER: u32 = 0x1a2b_3c4d;
/// Bytes before a body, its type and length, and the length again behind it.
const HEAD: u32 = 8;
const TAIL: u32 = 4;

/// Where in its body a block of frames has them.
struct Place {
    interface: u32,
    /// As much as was kept, and as long as it was.
    kept: u32,
    length: u32,
    at: usize,
}

/// Goes through a file.
pub(super) struct Blocks<R> {
    file: R,
    is_big: bool,
    /// Of the section at hand, by number: link type, and how much of each frame is kept (0 = all).
    interfaces: Vec<(u32, u32)>,
}

impl<R: Read> Blocks<R> {
    pub(super) const fn new(file: R) -> Self {
        Self {
            file,
            is_big: false,
            interfaces: Vec::new(),
        }
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// [`CaptureError`]: of an unexpected end where the file ends within a block.
    pub(super) fn next(&mut self) -> Result<Option<Raw>, CaptureError> {
        loop {
            let mut head = Vec::new();
            self.file
                .by_ref()
                .take(HEAD.into())
                .read_to_end(&mut head)?;
            if head.is_empty() {
                return Ok(None);
            }
            let body = self.body(&head)?;
            match self.word(&head, 0)? {
                kind::SECTION => self.interfaces.clear(),
                kind::INTERFACE => {
                    let described = (self.half(&body, 0)?.into(), self.word(&body, 4)?);
                    self.interfaces.push(described);
                }
                kind::PACKET => {
                    let place = Place {
                        interface: self.word(&body, 0)?,
                        kept: self.word(&body, 12)?,
                        length: self.word(&body, 16)?,
                        at: 20,
                    };
                    return self.frame(&body, &place).map(Some);
                }
                kind::OLD_PACKET => {
                    let place = Place {
                        interface: self.half(&body, 0)?.into(),
                        kept: self.word(&body, 12)?,
                        length: self.word(&body, 16)?,
                        at: 20,
                    };
                    return self.frame(&body, &place).map(Some);
                }
                kind::SIMPLE_PACKET => {
                    let length = self.word(&body, 0)?;
                    let most = match self.interfaces.first() {
                        Some((_, most)) if *most > 0 => *most,
                        _ => u32::MAX,
                    };
                    let place = Place {
                        interface: 0,
                        kept: length.min(most),
                        length,
                        at: 4,
                    };
                    return self.frame(&body, &place).map(Some);
                }
                _ => {}
            }
        }
    }

    /// What a block holds between its two lengths.
    fn body(&mut self, head: &[u8]) -> Result<Vec<u8>, CaptureError> {
        let mut body = Vec::new();
        // The type of a section is the same in either order, and says in its first word which it is.
        if self.word(head, 0)? == kind::SECTION {
            let mut magic = [0; 4];
            self.file.read_exact(&mut magic)?;
            self.is_big = u32::from_be_bytes(magic) == BYTE_ORDER;
            if !self.is_big && u32::from_le_bytes(magic) != BYTE_ORDER {
                return Err(broken("a section without its byte order".to_owned()));
            }
            body.extend(magic);
        }
        let length = self.word(head, 4)?;
        let there = HEAD + TAIL + u32::try_from(body.len()).unwrap_or(0);
        let Some(left) = length.checked_sub(there).filter(|_| length % 4 == 0) else {
            return Err(broken(format!("a block of {length} bytes")));
        };
        let wanted = body.len() + left as usize;
        // No more is held than the file has, whatever it says.
        self.file
            .by_ref()
            .take(left.into())
            .read_to_end(&mut body)?;
        let mut again = [0; TAIL as usize];
        self.file.read_exact(&mut again)?;
        if body.len() < wanted {
            return Err(CaptureError::Read(ErrorKind::UnexpectedEof.into()));
        }
        if self.word(&again, 0)? != length {
            return Err(broken(
                "the two lengths of a block are not the same".to_owned(),
            ));
        }
        Ok(body)
    }

    fn frame(&self, body: &[u8], place: &Place) -> Result<Raw, CaptureError> {
        let (link_type, _) = usize::try_from(place.interface)
            .ok()
            .and_then(|index| self.interfaces.get(index))
            .ok_or_else(|| {
                broken(format!(
                    "a frame of interface {}, which is not described",
                    place.interface
                ))
            })?;
        let kept = body
            .get(place.at..)
            .and_then(|rest| rest.get(..place.kept as usize))
            .ok_or_else(|| {
                broken(format!(
                    "a frame of {} bytes in a block of fewer",
                    place.kept
                ))
            })?;
        Ok(Raw {
            link_type: *link_type,
            bytes: kept.to_vec(),
            length: place.length,
        })
    }

    fn word(&self, bytes: &[u8], at: usize) -> Result<u32, CaptureError> {
        let octets = bytes.get(at..).and_then(<[u8]>::first_chunk);
        let octets = *octets.ok_or_else(short)?;
        Ok(if self.is_big {
            u32::from_be_bytes(octets)
        } else {
            u32::from_le_bytes(octets)
        })
    }

    fn half(&self, bytes: &[u8], at: usize) -> Result<u16, CaptureError> {
        let octets = bytes.get(at..).and_then(<[u8]>::first_chunk);
        let octets = *octets.ok_or_else(short)?;
        Ok(if self.is_big {
            u16::from_be_bytes(octets)
        } else {
            u16::from_le_bytes(octets)
        })
    }
}

fn broken(what: String) -> CaptureError {
    CaptureError::Format(what)
}

/// A block or its head is shorter than what it has to hold: the file ends there.
fn short() -> CaptureError {
    io::Error::from(ErrorKind::UnexpectedEof).into()
}
