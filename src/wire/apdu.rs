//! ISO 7816-4 short APDUs, and native commands wrapped in them.
//!
//! | | layout |
//! |---|---|
//! | command | `CLA INS P1 P2 [Lc data] [Le]` |
//! | response | `data SW1 SW2` |
//! | wrapped command without parameters | `90 INS 00 00 00` |
//! | wrapped command | `90 INS 00 00 Lc parameters 00` |
//! | wrapped response | `data 91 status` |
//!
//! This module alone knows what CLA 90 means.

use super::{CommandFrame, ReplyFrame, StatusWord, WireError, Writer};

/// The class of wrapped native commands.
const CLA_WRAPPED: u8 = 0x90;

/// CLA INS P1 P2 Lc before, Le after: the bytes around the parameters of a wrapped command.
pub const WRAPPED_OVERHEAD: usize = 6;

/// The five bytes before the parameters of a wrapped command.
pub(super) const WRAPPED_PREFIX: usize = 5;

/// An ISO 7816-4 command with short lengths.
///
/// ```
/// use desfire_ev1::wire::apdu::CommandApdu;
///
/// let select = CommandApdu { cla: 0x00, ins: 0xA4, p1: 0x04, p2: 0x00, data: b"\xD2\x76", le: Some(256) };
/// let mut buffer = [0; 16];
/// let len = select.encode(&mut buffer)?;
/// assert_eq!(&buffer[..len], b"\x00\xA4\x04\x00\x02\xD2\x76\x00");
/// assert_eq!(CommandApdu::parse(&buffer[..len])?, select);
/// # Ok::<(), desfire_ev1::wire::WireError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CommandApdu<'a> {
    /// Class.
    pub cla: u8,
    /// Instruction.
    pub ins: u8,
    /// First parameter.
    pub p1: u8,
    /// Second parameter.
    pub p2: u8,
    /// 0 to 255 bytes of data.
    pub data: &'a [u8],
    /// How many bytes of answer are asked for, 1 to 256; 256 travels as `00`.
    pub le: Option<u16>,
}

impl<'a> CommandApdu<'a> {
    /// From bytes.
    ///
    /// # Errors
    /// [`WireError::Apdu`] if the lengths do not fit each other.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let Some((&[cla, ins, p1, p2], body)) = bytes.split_first_chunk() else {
            return Err(WireError::Apdu("fewer than four bytes"));
        };
        let of = |data, le: Option<u8>| Self {
            cla,
            ins,
            p1,
            p2,
            data,
            le: le.map(|le| if le == 0 { 256 } else { u16::from(le) }),
        };
        match body {
            [] => Ok(of(&[], None)),
            [le] => Ok(of(&[], Some(*le))),
            [0, ..] => Err(WireError::Apdu("extended length or Lc of zero")),
            [lc, rest @ ..] => match rest.split_at_checked(usize::from(*lc)) {
                Some((data, [])) => Ok(of(data, None)),
                Some((data, [le])) => Ok(of(data, Some(*le))),
                Some(_) => Err(WireError::Apdu("bytes after Le")),
                None => Err(WireError::Apdu("fewer data bytes than Lc says")),
            },
        }
    }

    /// Puts the command into `out`; returns its length.
    ///
    /// # Errors
    /// [`WireError::Full`] if `out` is too small, [`WireError::Value`] if the data or Le are
    /// too long.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, WireError> {
        let mut writer = Writer::new(out);
        writer.put(&[self.cla, self.ins, self.p1, self.p2])?;
        if !self.data.is_empty() {
            writer.u8(lc(self.data)?)?;
            writer.put(self.data)?;
        }
        match self.le {
            None => {}
            Some(256) => writer.u8(0)?,
            Some(le) => match u8::try_from(le) {
                Ok(le) if le > 0 => writer.u8(le)?,
                _ => {
                    return Err(WireError::Value {
                        field: "Le",
                        value: le.into(),
                    });
                }
            },
        }
        Ok(writer.written())
    }
}

fn lc(data: &[u8]) -> Result<u8, WireError> {
    u8::try_from(data.len()).map_err(|_| WireError::Value {
        field: "Lc",
        value: u32::try_from(data.len()).unwrap_or(u32::MAX),
    })
}

/// An ISO 7816-4 response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseApdu<'a> {
    /// The data before the status word.
    pub data: &'a [u8],
    /// SW1 SW2.
    pub sw: StatusWord,
}

impl<'a> ResponseApdu<'a> {
    /// From bytes.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if there are fewer than two.
    pub fn parse(bytes: &'a [u8]) -> Result<Self, WireError> {
        let (data, sw) = bytes.split_last_chunk().ok_or(WireError::Truncated {
            needed: 2,
            available: bytes.len(),
        })?;
        Ok(Self {
            data,
            sw: StatusWord(u16::from_be_bytes(*sw)),
        })
    }

    /// Puts the response into `out`; returns its length.
    ///
    /// # Errors
    /// [`WireError::Full`] if `out` is too small.
    pub fn encode(&self, out: &mut [u8]) -> Result<usize, WireError> {
        let mut writer = Writer::new(out);
        writer.put(self.data)?;
        writer.put(&self.sw.to_bytes())?;
        Ok(writer.written())
    }
}

/// Whether bytes are a wrapped native command rather than a native one or an ISO command: no
/// native command has the code 90.
#[must_use]
pub fn is_wrapped(bytes: &[u8]) -> bool {
    bytes.len() >= WRAPPED_PREFIX && bytes.first() == Some(&CLA_WRAPPED)
}

/// A wrapped native command from bytes. P1 and P2 must be zero and Le zero and present.
pub(super) fn unwrap_command(bytes: &[u8]) -> Result<CommandFrame<'_>, WireError> {
    let apdu = CommandApdu::parse(bytes)?;
    if apdu.cla != CLA_WRAPPED {
        return Err(WireError::Apdu("the class is not 90"));
    }
    if (apdu.p1, apdu.p2) != (0, 0) {
        return Err(WireError::Apdu("P1 and P2 of a wrapped command are not 00"));
    }
    if apdu.le != Some(256) {
        return Err(WireError::Apdu("Le of a wrapped command is not 00"));
    }
    Ok(CommandFrame::new(apdu.ins, apdu.data))
}

/// A wrapped native command into bytes.
pub(super) fn wrap_command(frame: &CommandFrame<'_>, out: &mut [u8]) -> Result<usize, WireError> {
    CommandApdu {
        cla: CLA_WRAPPED,
        ins: frame.code.to_byte(),
        p1: 0,
        p2: 0,
        data: frame.payload,
        le: Some(256),
    }
    .encode(out)
}

/// What goes before the parameters of a wrapped command.
pub(super) fn wrapped_prefix(code: u8, payload: &[u8]) -> Result<[u8; WRAPPED_PREFIX], WireError> {
    Ok([CLA_WRAPPED, code, 0, 0, lc(payload)?])
}

/// A wrapped native reply from bytes.
pub(super) fn unwrap_reply(bytes: &[u8]) -> Result<ReplyFrame<'_>, WireError> {
    let apdu = ResponseApdu::parse(bytes)?;
    let status = apdu.sw.status().ok_or(WireError::StatusWord(apdu.sw))?;
    Ok(ReplyFrame {
        status,
        payload: apdu.data,
    })
}

/// A wrapped native reply into bytes.
pub(super) fn wrap_reply(frame: &ReplyFrame<'_>, out: &mut [u8]) -> Result<usize, WireError> {
    ResponseApdu {
        data: frame.payload,
        sw: StatusWord::from_status(frame.status),
    }
    .encode(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_four_cases() {
        let cases: [(&[u8], &[u8], Option<u16>); 5] = [
            (&[0, 0xA4, 0, 0], &[], None),
            (&[0, 0xB0, 0, 0, 0x3B], &[], Some(0x3B)),
            (&[0, 0xB0, 0, 0, 0x00], &[], Some(256)),
            (&[0, 0xD6, 0, 0, 2, 8, 9], &[8, 9], None),
            (&[0, 0xA4, 4, 0, 2, 8, 9, 0], &[8, 9], Some(256)),
        ];
        for (bytes, data, le) in cases {
            let apdu = CommandApdu::parse(bytes).unwrap();
            assert_eq!((apdu.data, apdu.le), (data, le));
            let mut out = [0; 8];
            let len = apdu.encode(&mut out).unwrap();
            assert_eq!(&out[..len], bytes);
            assert_eq!(apdu.encode(&mut out[..len - 1]), Err(WireError::Full));
        }
    }

    #[test]
    fn lengths_that_lie() {
        let cases: [&[u8]; 5] = [
            &[0x90, 0x60, 0],
            &[0x90, 0x60, 0, 0, 2, 1],
            &[0x90, 0x60, 0, 0, 0, 1],
            &[0x90, 0x60, 0, 0, 0, 0, 0],
            &[0x90, 0x60, 0, 0, 1, 1, 0, 0],
        ];
        for bytes in cases {
            assert!(
                matches!(CommandApdu::parse(bytes), Err(WireError::Apdu(_))),
                "{bytes:02X?}"
            );
        }
        let long = CommandApdu {
            cla: 0,
            ins: 0,
            p1: 0,
            p2: 0,
            data: &[0; 256],
            le: None,
        };
        assert!(long.encode(&mut [0; 300]).is_err());
        for le in [0, 257] {
            let apdu = CommandApdu {
                data: &[],
                le: Some(le),
                ..long
            };
            assert!(apdu.encode(&mut [0; 300]).is_err());
        }
    }

    #[test]
    fn a_wrapped_command_must_have_the_wrapped_form() {
        let cases: [&[u8]; 4] = [
            &[0x00, 0x60, 0, 0, 0],
            &[0x90, 0x60, 1, 0, 0],
            &[0x90, 0x60, 0, 1, 0],
            &[0x90, 0x60, 0, 0, 1],
        ];
        for bytes in cases {
            assert!(unwrap_command(bytes).is_err(), "{bytes:02X?}");
        }
        assert!(is_wrapped(&[0x90, 0x60, 0, 0, 0]));
        assert!(!is_wrapped(&[0x90, 0x60, 0, 0]));
        assert!(!is_wrapped(&[0x60, 0, 0, 0, 0]));
    }

    #[test]
    fn a_status_word_outside_91_is_not_a_native_reply() {
        assert_eq!(
            unwrap_reply(&[0x6D, 0x00]),
            Err(WireError::StatusWord(StatusWord::INS_NOT_SUPPORTED))
        );
        assert_eq!(
            unwrap_reply(&[0x91]),
            Err(WireError::Truncated {
                needed: 2,
                available: 1
            })
        );
    }
}
