//! Any command, with the protection that the caller states.
//!
//! For what the library does not know: commands of later generations that speak EV1 messaging, and
//! the parameters that it takes to be impossible. What the library does know should be called by
//! its own method, which cannot be called wrong.

use super::{Command, Scratch};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::channel::{DataLength, Padding, ReplyProtection, RequestProtection};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommMode, CommandCode, WireError, Writer};

/// What protects a [`Raw`] command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RawMode {
    /// Of the request's data.
    pub request: CommMode,
    /// Of the reply's data. [`CommMode::Plain`] still asks for the CMAC that every reply of an EV1
    /// session carries.
    pub reply: CommMode,
    /// How many bytes the reply has, if the command says so. Without it the buffer is only the
    /// upper limit.
    pub reply_len: Option<usize>,
}

/// Any command: see [`Session::raw`].
pub struct Raw<'a, 'b> {
    code: CommandCode,
    header: &'a [u8],
    data: &'a [u8],
    buffer: &'b mut [u8],
    mode: RawMode,
}

impl<'b> Command for Raw<'_, 'b> {
    type Output = &'b [u8];
    /// Stands in where there is no command to be named.
    const CODE: CommandCode = CommandCode::Other(0);
    const CHAINS: bool = true;

    fn code(&self) -> CommandCode {
        self.code
    }

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.put(self.header)
    }

    fn data<'a>(&'a self, _scratch: &'a mut Scratch) -> &'a [u8] {
        self.data
    }

    fn protection(&self, _inner: &Inner) -> Result<Protection<'_>, Misuse> {
        Ok(Protection {
            request: match self.mode.request {
                CommMode::Plain => RequestProtection::Plain,
                CommMode::Mac => RequestProtection::Mac,
                CommMode::Enciphered => RequestProtection::Enciphered {
                    padding: Padding::Zeros,
                    second_crc: &[],
                },
            },
            reply: match self.mode.reply {
                CommMode::Plain => ReplyProtection::Standard,
                CommMode::Mac => ReplyProtection::Mac,
                CommMode::Enciphered => ReplyProtection::Enciphered {
                    length: self
                        .mode
                        .reply_len
                        .map_or(DataLength::UNKNOWN, DataLength::Exactly),
                },
            },
        })
    }

    fn buffer(&mut self) -> &mut [u8] {
        self.buffer
    }

    fn too_long(&self) -> ErrorKind {
        match self.mode.reply_len {
            Some(_) => crate::error::Malformed::TooLong.into(),
            None => Misuse::AnswerTooLong.into(),
        }
    }

    fn leaves_pending(&self, _inner: &Inner) -> bool {
        // Whatever it is, it may.
        true
    }

    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<&'b [u8], ErrorKind> {
        // Whatever it was, it may have changed files.
        inner.place.files = crate::pcd::protection::FileCache::EMPTY;
        if let Some(expected) = self.mode.reply_len
            && expected != len
        {
            return Err(crate::error::Malformed::Length {
                expected,
                received: len,
            }
            .into());
        }
        let buffer = core::mem::take(&mut self.buffer);
        Ok(buffer.get(..len).unwrap_or_default())
    }
}

impl<S> Session<S> {
    /// Runs any command that does not end the session: `header` travels in clear, `data` as
    /// `mode` says, and the reply's data come into the front of `buffer`.
    ///
    /// ```
    /// use desfire_ev1::{Machine, Session, VirtualReader, command::RawMode, wire::*};
    ///
    /// let mut reader = VirtualReader::default();
    /// let plain = RawMode {
    ///     request: CommMode::Plain,
    ///     reply: CommMode::Plain,
    ///     reply_len: None,
    /// };
    /// let mut buffer = [0; 3];
    /// let free = Session::new()
    ///     .raw(CommandCode::FreeMem, &[], &[], &mut buffer, plain)
    ///     .run(&mut reader)?;
    /// assert_eq!(free, [0x00, 0x1F, 0x00]);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::Invalid`] for the commands that begin or end a session or continue a chain, and for
    /// ChangeKey, ChangeKeySettings and SetConfiguration unless `data` travels enciphered. ChangeKey of
    /// the key in use and DeleteApplication of the selected application are let through; the
    /// session does not know that it is over then.
    pub fn raw<'s, 'a, 'b>(
        &'s mut self,
        code: CommandCode,
        header: &'a [u8],
        data: &'a [u8],
        buffer: &'b mut [u8],
        mode: RawMode,
    ) -> Exchange<&'s mut Self, Raw<'a, 'b>> {
        // A known command may come as `Other`.
        let known = CommandCode::from_byte(code.to_byte());
        let session_changes = matches!(
            known,
            CommandCode::Authenticate
                | CommandCode::AuthenticateIso
                | CommandCode::AuthenticateAes
                | CommandCode::SelectApplication
                | CommandCode::AdditionalFrame
                | CommandCode::Other(0x71 | 0x77)
        );
        // Keys and settings never travel in clear, by whoever's order.
        let secret = matches!(
            known,
            CommandCode::ChangeKey | CommandCode::ChangeKeySettings | CommandCode::SetConfiguration
        );
        let forbidden = session_changes || (secret && mode.request != CommMode::Enciphered);
        let command = if forbidden {
            Err(Misuse::Invalid(
                "this command changes the session, or carries secrets that must be enciphered; it has a method of its own",
            ))
        } else if mode.reply_len.is_some_and(|len| len > buffer.len()) {
            Err(Misuse::BufferTooSmall {
                needed: mode.reply_len.unwrap_or_default(),
                available: buffer.len(),
            })
        } else {
            let len = mode.reply_len.unwrap_or(buffer.len());
            Ok(Raw {
                code,
                header,
                data,
                buffer: buffer.get_mut(..len).unwrap_or_default(),
                mode,
            })
        };
        Exchange::new(self, command)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, wrapped};
    use super::RawMode;
    use crate::error::{Malformed, Misuse};
    use crate::pcd::session::Session;
    use crate::wire::{CommMode, CommandCode};

    #[test]
    fn literal_bytes() {
        let mut mode = RawMode {
            request: CommMode::Plain,
            reply: CommMode::Plain,
            reply_len: None,
        };
        let mut session = Session::new();
        let code = CommandCode::Other(0x3C);
        let script = [("3c 00 0102", "00 0304")];
        let mut buffer = [0; 8];
        let reply = native(session.raw(code, &[0], &[1, 2], &mut buffer, mode), &script);
        assert_eq!(reply, Ok(&[3, 4][..]));
        mode.reply_len = Some(3);
        let machine = session.raw(code, &[0], &[1, 2], &mut buffer, mode);
        let error = wrapped(machine, &script).unwrap_err();
        let expected = Malformed::Length {
            expected: 3,
            received: 2,
        };
        assert_eq!((error.kind, error.command), (expected.into(), code.into()));
        mode.reply_len = Some(2);
        let reply = native(
            Session::new().raw(code, &[0], &[1, 2], &mut buffer[..2], mode),
            &script,
        );
        assert_eq!(reply, Ok(&[3, 4][..]));
        mode.reply_len = Some(9);
        let error = refused_unsent(Session::new().raw(code, &[], &[], &mut buffer, mode));
        assert!(matches!(
            error.kind,
            crate::error::ErrorKind::Misuse(Misuse::BufferTooSmall { .. })
        ));
        for code in [0x0A, 0x1A, 0xAA, 0x5A, 0xAF, 0x71, 0x77, 0xC4, 0x54, 0x5C] {
            for code in [CommandCode::from_byte(code), CommandCode::Other(code)] {
                let mode = RawMode {
                    reply_len: None,
                    ..mode
                };
                let error = refused_unsent(Session::new().raw(code, &[], &[], &mut [], mode));
                assert!(matches!(
                    error.kind,
                    crate::error::ErrorKind::Misuse(Misuse::Invalid(_))
                ));
            }
        }
    }
}
