//! The card's native commands, one file each.
//!
//! A file holds the command's layout, its protection, its decoding, the method of
//! [`crate::Session`] that runs it, and tests with literal bytes. Nothing else in the crate knows
//! the command.
//!
//! Unless a file says otherwise: the parameters travel in clear, in an EV1 session a CMAC over the
//! command advances the IV without being sent, and the reply carries a CMAC; in a D40 session and
//! without authentication nothing protects either.

//!
//! # Commands on file data
//!
//! In which mode ReadData, WriteData, GetValue, Credit, Debit, LimitedCredit, ReadRecords, WriteRecord and
//! ChangeFileSettings travel follows from the file's settings. **A session that does not know them sends
//! GetFileSettings first**, once per file: one exchange more, and a right that the command itself does
//! not need. If listing is not free in the application ([`crate::wire::KeyFlags::FREE_LISTING`]), only
//! its master key may ask, and under any other key the card refuses with `AE`: nothing of the command has
//! been sent then ([`crate::Error::while_asking`]), but an authenticated session is lost. Such a program
//! states what it knows: the settings, once, with [`crate::Session::assume_file_settings`], or the mode of
//! one command with [`crate::Exchange::comm_mode`].
//!
//! In a D40 session the answer to GetFileSettings is not authenticated; state the settings or the mode
//! there. D40 does not protect the length of what is read, either: an enciphered answer also passes with
//! its CRC16 and padding for data, or shorter if a shorter length was asked for, and the MAC is over
//! data filled up with zeros, so that zeros at the end can be added or taken away. Programs for D40
//! cards check lengths and ends themselves.

mod abort_transaction;
mod change_file_settings;
mod change_key;
mod change_key_settings;
mod clear_record_file;
mod commit_transaction;
mod create_application;
mod create_backup_data_file;
mod create_cyclic_record_file;
mod create_linear_record_file;
mod create_std_data_file;
mod create_value_file;
mod credit;
mod debit;
mod delete_application;
mod delete_file;
mod format_picc;
mod free_mem;
mod get_application_ids;
mod get_card_uid;
mod get_df_names;
mod get_file_ids;
mod get_file_settings;
mod get_iso_file_ids;
mod get_key_settings;
mod get_key_version;
mod get_value;
mod get_version;
pub mod iso;
mod limited_credit;
mod raw;
mod read_data;
mod read_records;
mod select_application;
mod set_configuration;
mod write_data;
mod write_record;

pub use abort_transaction::AbortTransaction;
pub use change_file_settings::ChangeFileSettings;
pub use change_key::{ChangeKey, ChangeKeyInUse};
pub use change_key_settings::ChangeKeySettings;
pub use clear_record_file::ClearRecordFile;
pub use commit_transaction::CommitTransaction;
pub use create_application::{CreateApplication, IsoName};
pub use create_backup_data_file::CreateBackupDataFile;
pub use create_cyclic_record_file::CreateCyclicRecordFile;
pub use create_linear_record_file::CreateLinearRecordFile;
pub use create_std_data_file::CreateStdDataFile;
pub use create_value_file::CreateValueFile;
pub use credit::Credit;
pub use debit::Debit;
pub use delete_application::DeleteApplication;
pub use delete_file::DeleteFile;
pub use format_picc::FormatPicc;
pub use free_mem::FreeMem;
pub use get_application_ids::{ApplicationIds, GetApplicationIds};
pub use get_card_uid::GetCardUid;
pub use get_df_names::{DfNames, GetDfNames, NamedApplication};
pub use get_file_ids::{FileIds, GetFileIds};
pub use get_file_settings::GetFileSettings;
pub use get_iso_file_ids::{GetIsoFileIds, IsoFileIds};
pub use get_key_settings::GetKeySettings;
pub use get_key_version::GetKeyVersion;
pub use get_value::GetValue;
pub use get_version::GetVersion;
pub use limited_credit::LimitedCredit;
pub use raw::{Raw, RawMode};
pub use read_data::ReadData;
pub use read_records::ReadRecords;
pub use select_application::SelectApplication;
pub use set_configuration::SetConfiguration;
pub use write_data::WriteData;
pub use write_record::WriteRecord;

use crate::error::{ErrorKind, Misuse};
use crate::pcd::protection::{FileAccess, Protection};
use crate::pcd::session::Inner;
use crate::wire::{CommandCode, WireError, Writer};

pub(in crate::pcd) use contract::{Command, FileCommand};

/// A key of 24 bytes and its version: the longest parameters that are made and not given.
pub type Scratch = crate::pcd::bytes::Wiped<25>;

/// What a command is to the exchange. The traits are public in a private place: they occur in
/// the bounds of [`crate::Exchange`], and nobody outside can name or implement them.
mod contract {
    use super::{
        CommandCode, ErrorKind, FileAccess, Inner, Misuse, Protection, Scratch, WireError, Writer,
    };

    pub trait Command {
        /// What the reply means.
        type Output;

        /// The code.
        const CODE: CommandCode;

        /// Whether the card takes the command in several frames.
        const CHAINS: bool = false;

        /// Puts the clear parameters.
        fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError>;

        /// The protected parameters. What has to be made of secrets is made in `scratch`, which is
        /// wiped, and not kept in the command, which is moved about.
        fn data<'a>(&'a self, scratch: &'a mut Scratch) -> &'a [u8] {
            let _ = scratch;
            &[]
        }

        /// What protects request and reply; also refuses what cannot be done in this session.
        fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
            let _ = inner;
            Ok(Protection::STANDARD)
        }

        /// The code of this very command, where it is not known before run time.
        fn code(&self) -> CommandCode {
            Self::CODE
        }

        /// The file whose settings decide the protection.
        fn file_access(&self) -> Option<FileAccess> {
            None
        }

        /// Whether it leaves a change on the card that waits for CommitTransaction.
        fn leaves_pending(&self, inner: &Inner) -> bool {
            let _ = inner;
            false
        }

        /// Whether a refusal after the first frame may come too late to undo that frame.
        fn may_be_half_done(&self, inner: &Inner) -> bool {
            let _ = inner;
            false
        }

        /// Where the data of the reply are collected. It is as long as they can be at most.
        fn buffer(&mut self) -> &mut [u8] {
            &mut []
        }

        /// What it means that the answer does not fit into the buffer. Where the answer has no
        /// stated length that is the caller's buffer and not the card's mistake.
        fn too_long(&self) -> ErrorKind {
            crate::error::Malformed::TooLong.into()
        }

        /// A frame of the reply ended after this many bytes.
        fn frame_ends(&mut self, received: usize) {
            let _ = received;
        }

        /// The reply has been checked, its data are the first `len` bytes of the buffer: decode
        /// them, and note what has changed on the card.
        fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<Self::Output, ErrorKind>;
    }

    /// A command on file data, whose mode can be stated.
    pub trait FileCommand: Command {
        /// The access to be changed.
        fn file_access_mut(&mut self) -> &mut FileAccess;
    }
}

/// Decodes a reply that has nothing to say.
fn nothing(len: usize) -> Result<(), ErrorKind> {
    match len {
        0 => Ok(()),
        count => Err(WireError::Trailing { count }.into()),
    }
}

/// Communication byte and access rights as the commands that create a file send them.
fn comm_and_rights(comm: crate::wire::CommMode, rights: crate::wire::AccessRights) -> [u8; 3] {
    let [low, high] = rights.to_bytes();
    [crate::wire::CommByte::from(comm).0, low, high]
}

#[cfg(test)]
pub(crate) mod testing;
