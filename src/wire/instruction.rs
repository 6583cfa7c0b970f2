//! The ISO 7816-4 instructions that the card knows, and a name for any command.

use core::fmt;

use super::CommandCode;

macro_rules! iso_instructions {
    ($($(#[$doc:meta])* $name:ident = $code:literal, $text:literal;)*) => {
        /// INS of an ISO 7816-4 command of class 00.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum IsoInstruction {
            $($(#[$doc])* $name,)*
        }

        impl IsoInstruction {
            /// All that EV1 has.
            pub const ALL: &'static [Self] = &[$(Self::$name,)*];

            /// The byte.
            #[must_use]
            pub const fn to_byte(self) -> u8 {
                match self {
                    $(Self::$name => $code,)*
                }
            }

            /// The name in ISO 7816-4.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

iso_instructions! {
    /// Selects the master file, an application or a file.
    Select = 0xA4, "SELECT";
    /// Reads from a data file.
    ReadBinary = 0xB0, "READ BINARY";
    /// Writes to a data file.
    UpdateBinary = 0xD6, "UPDATE BINARY";
    /// Reads records.
    ReadRecord = 0xB2, "READ RECORD";
    /// Appends a record.
    AppendRecord = 0xE2, "APPEND RECORD";
    /// Asks for a random number: the first step of the ISO authentication.
    GetChallenge = 0x84, "GET CHALLENGE";
    /// Proves the reader to the card: the second step.
    ExternalAuthenticate = 0x82, "EXTERNAL AUTHENTICATE";
    /// Has the card prove itself: the third step.
    InternalAuthenticate = 0x88, "INTERNAL AUTHENTICATE";
}

/// Any command, for errors and traces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Instruction {
    /// A native command.
    Native(CommandCode),
    /// An ISO 7816-4 command.
    Iso(IsoInstruction),
}

impl From<CommandCode> for Instruction {
    fn from(code: CommandCode) -> Self {
        Self::Native(code)
    }
}

impl From<IsoInstruction> for Instruction {
    fn from(instruction: IsoInstruction) -> Self {
        Self::Iso(instruction)
    }
}

impl PartialEq<CommandCode> for Instruction {
    fn eq(&self, code: &CommandCode) -> bool {
        *self == Self::Native(*code)
    }
}

impl fmt::Display for Instruction {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Native(code) => code.fmt(f),
            Self::Iso(instruction) => f.write_str(instruction.name()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_native_instruction_is_its_command() {
        assert_eq!(Instruction::Native(CommandCode::Debit), CommandCode::Debit);
        assert_ne!(Instruction::Native(CommandCode::Debit), CommandCode::Credit);
        assert_ne!(Instruction::Iso(IsoInstruction::Select), CommandCode::Debit);
    }
}
