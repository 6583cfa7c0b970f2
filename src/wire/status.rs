//! What the card says at the end of a reply.

use core::fmt;

macro_rules! statuses {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal, $cause:literal;)*) => {
        /// The status byte of a native reply; `xx` of `91xx` in a wrapped one.
        ///
        /// A status other than `00` and `AF` is the whole reply: no MAC protects it. Whoever
        /// controls the link can forge it.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Status {
            $($(#[$doc])* $name,)*
            /// A status that EV1 is not known to have.
            Other(u8),
        }

        impl Status {
            /// All statuses that EV1 has.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The byte.
            #[must_use]
            pub const fn to_byte(self) -> u8 {
                match self {
                    $(Self::$name => $code,)*
                    Self::Other(code) => code,
                }
            }

            /// From the byte; unknown ones survive.
            #[must_use]
            pub const fn from_byte(code: u8) -> Self {
                match code {
                    $($code => Self::$name,)*
                    _ => Self::Other(code),
                }
            }

            /// The name in the card's documentation.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                    Self::Other(_) => "unknown status",
                }
            }

            /// What usually causes it, for a person.
            #[must_use]
            pub const fn cause(self) -> &'static str {
                match self {
                    $(Self::$name => $cause,)*
                    Self::Other(_) => "not a status of DESFire EV1; is it another card?",
                }
            }
        }
    };
}

statuses! {
    /// Done.
    Ok = 0x00, "OPERATION_OK", "done";
    /// Commit or abort without pending changes.
    NoChanges = 0x0C, "NO_CHANGES", "there was nothing to commit or abort";
    /// Not enough memory.
    OutOfEeprom = 0x0E, "OUT_OF_EEPROM_ERROR",
        "not enough memory left; only FormatPICC gives memory back";
    /// The command does not exist.
    IllegalCommandCode = 0x1C, "ILLEGAL_COMMAND_CODE",
        "the card does not have this command, or expected no additional frame";
    /// CRC, MAC or padding of the command is wrong.
    IntegrityError = 0x1E, "INTEGRITY_ERROR",
        "the card found a wrong CRC, MAC or padding: wrong old key in ChangeKey, wrong communication mode, or a damaged frame";
    /// No key of this number.
    NoSuchKey = 0x40, "NO_SUCH_KEY", "the application has fewer keys";
    /// Wrong number of bytes.
    LengthError = 0x7E, "LENGTH_ERROR",
        "wrong number of bytes: often a MAC that the card did not expect, or the other way round";
    /// Not allowed here.
    PermissionDenied = 0x9D, "PERMISSION_DENIED",
        "not allowed at all in this state: wrong level (PICC or application), wrong file type, a right set to never, or frozen settings";
    /// A parameter is out of range.
    ParameterError = 0x9E, "PARAMETER_ERROR", "a parameter is out of its range";
    /// No such application.
    ApplicationNotFound = 0xA0, "APPLICATION_NOT_FOUND", "there is no application of this AID";
    /// The application's data are corrupt.
    ApplicationIntegrityError = 0xA1, "APPL_INTEGRITY_ERROR",
        "the application is damaged and has been disabled";
    /// The right key is not authenticated.
    AuthenticationError = 0xAE, "AUTHENTICATION_ERROR",
        "the right key is not authenticated, or the handshake failed: wrong key, or wrong authentication command for its type";
    /// More frames follow or are expected.
    AdditionalFrame = 0xAF, "ADDITIONAL_FRAME", "more frames follow or are expected";
    /// Outside the file, the record or the value's limits.
    BoundaryError = 0xBE, "BOUNDARY_ERROR",
        "outside the file or record, beyond a limit of the value, or no such record";
    /// The card's data are corrupt.
    PiccIntegrityError = 0xC1, "PICC_INTEGRITY_ERROR",
        "the card is damaged and has been disabled";
    /// The previous chain was not finished.
    CommandAborted = 0xCA, "COMMAND_ABORTED",
        "a command or handshake before this one was not finished; it has been dropped and this command was not executed";
    /// The card is disabled.
    PiccDisabled = 0xCD, "PICC_DISABLED_ERROR", "the card is disabled for good";
    /// Too many applications.
    CountError = 0xCE, "COUNT_ERROR", "the card already has 28 applications";
    /// The identifier exists.
    DuplicateError = 0xDE, "DUPLICATE_ERROR",
        "an application or file of this AID, number, ISO FID or DF name exists";
    /// The memory failed.
    EepromError = 0xEE, "EEPROM_ERROR", "the card could not write; it has gone back to the state before";
    /// No such file.
    FileNotFound = 0xF0, "FILE_NOT_FOUND", "there is no file of this number";
    /// The file's data are corrupt.
    FileIntegrityError = 0xF1, "FILE_INTEGRITY_ERROR", "the file is damaged and has been disabled";
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:02X} {}", self.to_byte(), self.name())
    }
}

/// SW1 SW2 of an ISO 7816-4 reply.
///
/// `91xx` belongs to wrapped native commands; anything else is an answer to an ISO command,
/// or a reader or card that did not take the APDU for a wrapped command at all.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct StatusWord(pub u16);

impl StatusWord {
    /// `9000`: done.
    pub const OK: Self = Self(0x9000);
    /// `6581`: memory failure.
    pub const MEMORY_FAILURE: Self = Self(0x6581);
    /// `6700`: wrong length.
    pub const WRONG_LENGTH: Self = Self(0x6700);
    /// `6982`: security status not satisfied.
    pub const SECURITY_NOT_SATISFIED: Self = Self(0x6982);
    /// `6985`: conditions of use not satisfied.
    pub const CONDITIONS_NOT_SATISFIED: Self = Self(0x6985);
    /// `6A82`: file or application not found.
    pub const NOT_FOUND: Self = Self(0x6A82);
    /// `6A86`: wrong P1 or P2.
    pub const WRONG_P1_P2: Self = Self(0x6A86);
    /// `6A87`: Lc inconsistent with P1 and P2.
    pub const WRONG_LC: Self = Self(0x6A87);
    /// `6D00`: INS not supported.
    pub const INS_NOT_SUPPORTED: Self = Self(0x6D00);
    /// `6E00`: CLA not supported.
    pub const CLA_NOT_SUPPORTED: Self = Self(0x6E00);

    /// `91xx` for a native status.
    #[must_use]
    pub const fn from_status(status: Status) -> Self {
        Self(u16::from_be_bytes([0x91, status.to_byte()]))
    }

    /// The native status, if this is `91xx`.
    #[must_use]
    pub const fn status(self) -> Option<Status> {
        match self.to_bytes() {
            [0x91, status] => Some(Status::from_byte(status)),
            _ => None,
        }
    }

    /// As it travels.
    #[must_use]
    pub const fn to_bytes(self) -> [u8; 2] {
        self.0.to_be_bytes()
    }

    /// Whether ISO 7816-4 has it for "checked and not carried out" (`67` to `6E`). Other words leave
    /// open what has happened: `61` to `63` come after processing, `65` says that memory may have
    /// changed, `64` and `6F` are used by readers for their own troubles.
    #[must_use]
    pub const fn is_checking_error(self) -> bool {
        let [high, _] = self.to_bytes();
        0x67 <= high && high <= 0x6E
    }

    /// What usually causes it, for a person.
    #[must_use]
    pub const fn cause(self) -> &'static str {
        match self {
            Self(0x6C00..=0x6CFF) => "there are not so many bytes; the second byte tells how many",
            Self(0x6A83) => "there is no such record",
            Self(0x6A84) => "the file is full",
            Self(0x6300..=0x63FF) => "the reader could not carry out the command",
            Self::OK => "done",
            Self::MEMORY_FAILURE => "the card's memory failed",
            Self::WRONG_LENGTH => "wrong length, or not an APDU that the card understands",
            Self::SECURITY_NOT_SATISFIED => "the access right is missing or the handshake failed",
            Self::CONDITIONS_NOT_SATISFIED => {
                "no file selected, wrong file type, or a native chain is pending"
            }
            Self::NOT_FOUND => "there is no such file or application",
            Self::WRONG_P1_P2 => "wrong P1 or P2",
            Self::WRONG_LC => "Lc does not fit P1 and P2",
            Self::INS_NOT_SUPPORTED => "the card does not know this command; is it a DESFire?",
            Self::CLA_NOT_SUPPORTED => "the card does not know this class; is it a DESFire?",
            _ => "no further information",
        }
    }
}

impl fmt::Display for StatusWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:04X}", self.0)
    }
}

impl fmt::Debug for StatusWord {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "StatusWord({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives() {
        for byte in 0..=u8::MAX {
            let status = Status::from_byte(byte);
            assert_eq!(status.to_byte(), byte);
            assert_eq!(StatusWord::from_status(status).status(), Some(status));
            assert_eq!(
                matches!(status, Status::Other(_)),
                !Status::ALL.contains(&status)
            );
        }
        assert_eq!(Status::ALL.len(), 22);
        for (sw, checking) in [
            (0x61FF, false),
            (0x6300, false),
            (0x6581, false),
            (0x66FF, false),
            (0x6700, true),
            (0x6A82, true),
            (0x6EFF, true),
            (0x6F00, false),
            (0x9000, false),
        ] {
            assert_eq!(StatusWord(sw).is_checking_error(), checking, "{sw:04X}");
        }
        assert_eq!(StatusWord::OK.status(), None);
        assert_eq!(
            StatusWord::from_status(Status::AdditionalFrame).to_bytes(),
            [0x91, 0xAF]
        );
    }

    #[test]
    fn what_a_status_word_tells_a_person() {
        for (sw, words) in [
            (0x6C00, "second byte tells"),
            (0x6CFF, "second byte tells"),
            (0x6A83, "no such record"),
            (0x6A84, "full"),
            (0x6300, "reader"),
            (0x63FF, "reader"),
            (0x9000, "done"),
            (0x6581, "memory"),
            (0x6700, "wrong length"),
            (0x6982, "access right"),
            (0x6985, "no file selected"),
            (0x6A82, "no such file"),
            (0x6A86, "P1 or P2"),
            (0x6A87, "Lc"),
            (0x6D00, "this command"),
            (0x6E00, "this class"),
            (0x6F00, "no further information"),
        ] {
            let cause = StatusWord(sw).cause();
            assert!(cause.contains(words), "{sw:04X}: {cause}");
        }
    }
}
