//! The codes of the native commands.

use core::fmt;

macro_rules! command_codes {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// The first byte of a native command, INS of a wrapped one.
        ///
        /// The same numbers occur as status bytes with other meanings; direction decides.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum CommandCode {
            $($(#[$doc])* $name,)*
            /// A code that EV1 does not have.
            Other(u8),
        }

        impl CommandCode {
            /// All codes that EV1 has, in the order of the reference.
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

            /// The command's name as the card's documentation has it, if EV1 has the command.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self {
                    $(Self::$name => Some($text),)*
                    Self::Other(_) => None,
                }
            }
        }
    };
}

command_codes! {
    /// Legacy authentication with DES or 2K3DES.
    Authenticate = 0x0A, "Authenticate";
    /// Authentication with DES, 2K3DES or 3K3DES, EV1 messaging.
    AuthenticateIso = 0x1A, "AuthenticateISO";
    /// Authentication with AES.
    AuthenticateAes = 0xAA, "AuthenticateAES";
    /// Changes key settings byte 1 of the level.
    ChangeKeySettings = 0x54, "ChangeKeySettings";
    /// Changes the configuration of the PICC.
    SetConfiguration = 0x5C, "SetConfiguration";
    /// Changes a key.
    ChangeKey = 0xC4, "ChangeKey";
    /// Reads both key settings bytes of the level.
    GetKeySettings = 0x45, "GetKeySettings";
    /// Reads the version of a key.
    GetKeyVersion = 0x64, "GetKeyVersion";
    /// Creates an application.
    CreateApplication = 0xCA, "CreateApplication";
    /// Deletes an application.
    DeleteApplication = 0xDA, "DeleteApplication";
    /// Lists the applications.
    GetApplicationIds = 0x6A, "GetApplicationIDs";
    /// Lists the applications that have an ISO FID, with FID and DF name.
    GetDfNames = 0x6D, "GetDFNames";
    /// Selects an application or the PICC level.
    SelectApplication = 0x5A, "SelectApplication";
    /// Deletes all applications.
    FormatPicc = 0xFC, "FormatPICC";
    /// Reads hardware, software and production data.
    GetVersion = 0x60, "GetVersion";
    /// Reads the number of free bytes.
    FreeMem = 0x6E, "FreeMem";
    /// Reads the real UID.
    GetCardUid = 0x51, "GetCardUID";
    /// Lists the files.
    GetFileIds = 0x6F, "GetFileIDs";
    /// Lists the ISO FIDs of the files.
    GetIsoFileIds = 0x61, "GetISOFileIDs";
    /// Reads type, mode, rights and size of a file.
    GetFileSettings = 0xF5, "GetFileSettings";
    /// Changes mode and rights of a file.
    ChangeFileSettings = 0x5F, "ChangeFileSettings";
    /// Creates a standard data file.
    CreateStdDataFile = 0xCD, "CreateStdDataFile";
    /// Creates a backup data file.
    CreateBackupDataFile = 0xCB, "CreateBackupDataFile";
    /// Creates a value file.
    CreateValueFile = 0xCC, "CreateValueFile";
    /// Creates a linear record file.
    CreateLinearRecordFile = 0xC1, "CreateLinearRecordFile";
    /// Creates a cyclic record file.
    CreateCyclicRecordFile = 0xC0, "CreateCyclicRecordFile";
    /// Deletes a file.
    DeleteFile = 0xDF, "DeleteFile";
    /// Reads from a data file.
    ReadData = 0xBD, "ReadData";
    /// Writes to a data file.
    WriteData = 0x3D, "WriteData";
    /// Reads the value of a value file.
    GetValue = 0x6C, "GetValue";
    /// Adds to a value.
    Credit = 0x0C, "Credit";
    /// Takes from a value.
    Debit = 0xDC, "Debit";
    /// Adds to a value no more than was debited last.
    LimitedCredit = 0x1C, "LimitedCredit";
    /// Writes to the new record of a record file.
    WriteRecord = 0x3B, "WriteRecord";
    /// Reads records.
    ReadRecords = 0xBB, "ReadRecords";
    /// Empties a record file.
    ClearRecordFile = 0xEB, "ClearRecordFile";
    /// Makes the pending changes valid.
    CommitTransaction = 0xC7, "CommitTransaction";
    /// Drops the pending changes.
    AbortTransaction = 0xA7, "AbortTransaction";
    /// Goes on with the chain that is pending.
    AdditionalFrame = 0xAF, "AdditionalFrame";
}

impl fmt::Display for CommandCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "command {:02X}", self.to_byte()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives() {
        for byte in 0..=u8::MAX {
            assert_eq!(CommandCode::from_byte(byte).to_byte(), byte);
        }
        assert_eq!(CommandCode::ALL.len(), 39);
        assert_eq!(CommandCode::Other(0x71).name(), None);
        assert_eq!(CommandCode::ReadData.name(), Some("ReadData"));
    }
}
