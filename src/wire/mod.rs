//! Bytes and values that reader and card share.
//!
//! For: turning bytes into values that cannot be impossible, and back. May know: nothing but
//! the layouts. May not: keep state, hold keys, do I/O, allocate. No function in here panics,
//! whatever bytes it is given; an unknown code survives as `Other` or as its number.
//!
//! Inside native frames every multi-byte integer is least significant byte first; ISO 7816-4
//! APDUs ([`apdu`]) are big-endian.

mod access_rights;
mod amount;
pub mod apdu;
mod auth_scheme;
mod bytes;
mod comm_mode;
mod command_code;
mod cursor;
mod file_settings;
pub mod frame;
mod ids;
mod instruction;
mod key_settings;
mod key_type;
mod status;
mod version;

pub use access_rights::{Access, AccessRights};
pub use amount::Amount;
pub use auth_scheme::AuthScheme;
pub use bytes::InlineBytes;
pub use comm_mode::{CommByte, CommMode};
pub use command_code::CommandCode;
pub use cursor::{Reader, Writer};
pub use file_settings::{FileDetail, FileSettings, ValueFlags};
pub use frame::{CommandFrame, Framing, ReplyFrame};
pub use ids::{Aid, DfName, FileNo, IsoFileId, KeyNo, U24, Uid};
pub use instruction::{Instruction, IsoInstruction};
pub use key_settings::{ChangeKeyAccess, KeyFlags, KeyInfo, KeySettings};
pub use key_type::{KeyFamily, KeyType};
pub use status::{Status, StatusWord};
pub use version::{ModuleVersion, Storage, Version};

/// Why bytes are not what they should be, or a value cannot be put into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum WireError {
    /// The bytes end too early.
    #[error("{needed} more bytes expected, {available} left")]
    Truncated {
        /// How many bytes the next field takes.
        needed: usize,
        /// How many are left.
        available: usize,
    },
    /// The bytes go on after the end of the structure.
    #[error("{count} bytes too many")]
    Trailing {
        /// How many bytes follow the last field.
        count: usize,
    },
    /// A field holds a value that it cannot have.
    #[error("{field} cannot be {value:#X}")]
    Value {
        /// The name of the field.
        field: &'static str,
        /// What was found.
        value: u32,
    },
    /// A text is not so many hex digits.
    #[error("{field} takes {digits} hex digits")]
    Text {
        /// The name of the field.
        field: &'static str,
        /// How many digits it has.
        digits: usize,
    },
    /// The buffer to write into is too small.
    #[error("the buffer is too small")]
    Full,
    /// An APDU does not have the form that its kind asks for.
    #[error("not a well-formed APDU: {0}")]
    Apdu(&'static str),
    /// A reply to a wrapped command ends in a status word outside 91xx.
    #[error("status word {0} where 91xx belongs")]
    StatusWord(StatusWord),
}
