//! Native frames, and the two framings in which they travel.
//!
//! | direction | native | wrapped ([`super::apdu`]) |
//! |---|---|---|
//! | to the card | `INS parameters` | `90 INS 00 00 [Lc parameters] 00` |
//! | from the card | `status data` | `data 91 status` |

use super::apdu::{self, WRAPPED_OVERHEAD, WRAPPED_PREFIX};
use super::{CommandCode, Reader, Status, WireError, Writer};

/// The most bytes that one command may have, native frame or whole wrapped APDU: 64 bytes of
/// ISO/IEC 14443-4 frame less 4 bytes of its overhead.
pub const MAX_COMMAND: usize = 60;

/// The most parameter bytes of one command: [`MAX_COMMAND`] less INS.
pub const MAX_PAYLOAD: usize = MAX_COMMAND - 1;

/// How native frames travel. A program stays with one of them as long as a card is powered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// As they are: one frame in one ISO/IEC 14443-4 block.
    Native,
    /// Inside ISO 7816-4 APDUs of class 90, as PC/SC readers want it.
    Wrapped,
}

impl Framing {
    /// How many parameter bytes a command has room for, if it may have `limit` bytes in all:
    /// at most 59 native and 54 wrapped.
    ///
    /// ```
    /// use desfire_ev1::wire::Framing;
    ///
    /// assert_eq!(Framing::Native.payload_capacity(60), 59);
    /// assert_eq!(Framing::Wrapped.payload_capacity(60), 54);
    /// assert_eq!(Framing::Wrapped.payload_capacity(1000), 54);
    /// ```
    #[must_use]
    pub fn payload_capacity(self, limit: usize) -> usize {
        let overhead = match self {
            Self::Native => 1,
            Self::Wrapped => WRAPPED_OVERHEAD,
        };
        limit.min(MAX_COMMAND).saturating_sub(overhead)
    }
}

/// A native command: its code, or `AF` to go on, and what follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandFrame<'a> {
    /// The first byte.
    pub code: CommandCode,
    /// The parameters.
    pub payload: &'a [u8],
}

impl<'a> CommandFrame<'a> {
    pub(super) const fn new(code: u8, payload: &'a [u8]) -> Self {
        Self {
            code: CommandCode::from_byte(code),
            payload,
        }
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] for no bytes, [`WireError::Apdu`] for a wrong APDU.
    pub fn parse(framing: Framing, bytes: &'a [u8]) -> Result<Self, WireError> {
        match framing {
            Framing::Native => {
                let mut reader = Reader::new(bytes);
                let code = reader.u8()?;
                Ok(Self::new(code, reader.rest()))
            }
            Framing::Wrapped => apdu::unwrap_command(bytes),
        }
    }

    /// Puts the command into `out`; returns its length.
    ///
    /// # Errors
    /// [`WireError::Full`] if `out` is too small, [`WireError::Value`] if a wrapped payload
    /// is longer than 255 bytes.
    pub fn encode(&self, framing: Framing, out: &mut [u8]) -> Result<usize, WireError> {
        match framing {
            Framing::Native => {
                let mut writer = Writer::new(out);
                writer.u8(self.code.to_byte())?;
                writer.put(self.payload)?;
                Ok(writer.written())
            }
            Framing::Wrapped => apdu::wrap_command(self, out),
        }
    }
}

/// A native reply: its status and what else the card sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplyFrame<'a> {
    /// The status byte.
    pub status: Status,
    /// The data, with MAC if there is one.
    pub payload: &'a [u8],
}

impl<'a> ReplyFrame<'a> {
    /// From bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if there is no status, [`WireError::StatusWord`] if a wrapped
    /// reply does not end in 91xx.
    pub fn parse(framing: Framing, bytes: &'a [u8]) -> Result<Self, WireError> {
        match framing {
            Framing::Native => {
                let mut reader = Reader::new(bytes);
                let status = Status::from_byte(reader.u8()?);
                Ok(Self {
                    status,
                    payload: reader.rest(),
                })
            }
            Framing::Wrapped => apdu::unwrap_reply(bytes),
        }
    }

    /// Puts the reply into `out`; returns its length.
    ///
    /// # Errors
    /// [`WireError::Full`] if `out` is too small.
    pub fn encode(&self, framing: Framing, out: &mut [u8]) -> Result<usize, WireError> {
        match framing {
            Framing::Native => {
                let mut writer = Writer::new(out);
                writer.u8(self.status.to_byte())?;
                writer.put(self.payload)?;
                Ok(writer.written())
            }
            Framing::Wrapped => apdu::wrap_reply(self, out),
        }
    }
}

/// Room for one command, filled from the inside: the payload goes to its final place and the
/// bytes around it, which depend on the framing and on the payload's length, are added last.
#[derive(Clone, Debug)]
pub struct FrameBuffer {
    // Prefix of either framing, payload, Le.
    bytes: [u8; WRAPPED_PREFIX + MAX_PAYLOAD + 1],
}

impl FrameBuffer {
    /// An empty buffer.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            bytes: [0; WRAPPED_PREFIX + MAX_PAYLOAD + 1],
        }
    }

    /// Where the payload goes: [`MAX_PAYLOAD`] bytes.
    pub fn payload_mut(&mut self) -> &mut [u8] {
        self.bytes
            .get_mut(WRAPPED_PREFIX..WRAPPED_PREFIX + MAX_PAYLOAD)
            .unwrap_or_default()
    }

    /// The command around the first `len` bytes of the payload.
    ///
    /// # Errors
    /// [`WireError::Full`] if `len` is more than [`MAX_PAYLOAD`].
    pub fn finish(
        &mut self,
        framing: Framing,
        code: CommandCode,
        len: usize,
    ) -> Result<&[u8], WireError> {
        let (prefix, rest) = self
            .bytes
            .split_first_chunk_mut::<WRAPPED_PREFIX>()
            .ok_or(WireError::Full)?;
        let (payload, le) = rest
            .get_mut(..=len)
            .and_then(<[u8]>::split_last_mut)
            .map(|(le, payload)| (payload, le))
            .ok_or(WireError::Full)?;
        if payload.len() > MAX_PAYLOAD {
            return Err(WireError::Full);
        }
        let frame = match framing {
            Framing::Native => {
                // INS goes right before the payload.
                *prefix = [0, 0, 0, 0, code.to_byte()];
                self.bytes.get(WRAPPED_PREFIX - 1..WRAPPED_PREFIX + len)
            }
            Framing::Wrapped => {
                *prefix = apdu::wrapped_prefix(code.to_byte(), payload)?;
                *le = 0;
                // Without parameters there is no Lc: the zero in its place is Le.
                let end = if len == 0 {
                    WRAPPED_PREFIX
                } else {
                    WRAPPED_PREFIX + len + 1
                };
                self.bytes.get(..end)
            }
        };
        frame.ok_or(WireError::Full)
    }
}

impl Default for FrameBuffer {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_framings_there_and_back() {
        type Case<'a> = (CommandCode, &'a [u8], &'a [u8], &'a [u8]);
        let cases: [Case<'_>; 3] = [
            (
                CommandCode::GetVersion,
                &[],
                &[0x60],
                &[0x90, 0x60, 0, 0, 0],
            ),
            (
                CommandCode::SelectApplication,
                &[0x16, 0xDE, 0x00],
                &[0x5A, 0x16, 0xDE, 0x00],
                &[0x90, 0x5A, 0, 0, 3, 0x16, 0xDE, 0x00, 0],
            ),
            (
                CommandCode::Other(0x71),
                &[0],
                &[0x71, 0],
                &[0x90, 0x71, 0, 0, 1, 0, 0],
            ),
        ];
        for (code, payload, native, wrapped) in cases {
            let frame = CommandFrame { code, payload };
            for (framing, bytes) in [(Framing::Native, native), (Framing::Wrapped, wrapped)] {
                let mut out = [0; 64];
                let len = frame.encode(framing, &mut out).unwrap();
                assert_eq!(&out[..len], bytes);
                assert_eq!(CommandFrame::parse(framing, bytes), Ok(frame));

                let mut buffer = FrameBuffer::new();
                buffer.payload_mut()[..payload.len()].copy_from_slice(payload);
                assert_eq!(buffer.finish(framing, code, payload.len()).unwrap(), bytes);
            }
        }
    }

    #[test]
    fn replies_there_and_back() {
        let reply = ReplyFrame {
            status: Status::AdditionalFrame,
            payload: &[1, 2, 3],
        };
        for (framing, bytes) in [
            (Framing::Native, &[0xAF, 1, 2, 3][..]),
            (Framing::Wrapped, &[1, 2, 3, 0x91, 0xAF][..]),
        ] {
            let mut out = [0; 8];
            let len = reply.encode(framing, &mut out).unwrap();
            assert_eq!(&out[..len], bytes);
            assert_eq!(ReplyFrame::parse(framing, bytes), Ok(reply));
            assert_eq!(
                reply.encode(framing, &mut out[..len - 1]),
                Err(WireError::Full)
            );
        }
        assert!(ReplyFrame::parse(Framing::Native, &[]).is_err());
        assert!(ReplyFrame::parse(Framing::Wrapped, &[]).is_err());
        assert!(CommandFrame::parse(Framing::Native, &[]).is_err());
    }

    #[test]
    fn a_full_buffer() {
        let mut buffer = FrameBuffer::new();
        assert_eq!(buffer.payload_mut().len(), 59);
        buffer.payload_mut().fill(0x55);
        for (framing, len) in [(Framing::Native, 60), (Framing::Wrapped, 65)] {
            let frame = buffer
                .finish(framing, CommandCode::AdditionalFrame, 59)
                .unwrap();
            assert_eq!(frame.len(), len);
        }
        for len in [60, 61, usize::MAX - 1] {
            assert_eq!(
                buffer.finish(Framing::Native, CommandCode::AdditionalFrame, len),
                Err(WireError::Full)
            );
        }
    }

    #[test]
    fn capacities() {
        assert_eq!(Framing::Native.payload_capacity(0), 0);
        assert_eq!(Framing::Native.payload_capacity(20), 19);
        assert_eq!(Framing::Wrapped.payload_capacity(5), 0);
        assert_eq!(Framing::Wrapped.payload_capacity(20), 14);
        assert_eq!(Framing::Native.payload_capacity(usize::MAX), 59);
    }
}
