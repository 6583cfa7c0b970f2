//! Every behaviour of the card that no recording settles, as a named value.
//!
//! The sources disagree, or are silent, on what a DESFire EV1 does in these cases. Each choice
//! stands here alone, with its reason, so that a later measurement on a real card can flip it
//! in one place. "pm3sim" and "DFC" are the two card simulations in proxmark3, "dev-zzo" the
//! original ChameleonMini DESFire branch, "SO" a report on Stack Overflow.
//!
//! What has two ways that take different code is decided where it happens and says so there:
//! who may clear a record file, give limited credit or debit (`values.rs`, `records.rs`), how
//! ISO READ RECORD counts (`iso_files.rs`), what things cost (`memory.rs`).

use core::ops::RangeInclusive;

use super::session::Padding;
use crate::wire::{Status, StatusWord};

// Frames and chains.

/// `AF` although no chain is pending. pm3sim and DFC both answer this.
pub(super) const AF_WHILE_IDLE: Status = Status::IllegalCommandCode;

/// A new command while a chain or a handshake is pending; it is not carried out. Recorded on
/// an EV3 (GetVersion, then SelectApplication); dev-zzo, DFC and the NTAG 424 DNA data sheet
/// agree, pm3sim starts the new command.
pub(super) const COMMAND_DURING_CHAIN: Status = Status::CommandAborted;

/// An ISO command other than SELECT while a native chain is pending (NTAG 424 DNA data
/// sheet). SELECT is carried out and drops the chain (EV3 trace).
pub(super) const ISO_DURING_CHAIN: StatusWord = StatusWord::CONDITIONS_NOT_SATISFIED;

/// Data behind an `AF` that only asks for the next part of a reply. No source; it is a frame
/// of the wrong length.
pub(super) const DATA_IN_EMPTY_AF: Status = Status::LengthError;

/// An `AF` frame that brings no byte of a long write. No source; without this a reader could
/// keep a chain open for ever.
pub(super) const NO_DATA_IN_AF: Status = Status::LengthError;

/// A handshake token of the wrong length. pm3sim says `7E`, DFC `AE`; `7E` is what every
/// other frame of a wrong length gets.
pub(super) const TOKEN_LENGTH: Status = Status::LengthError;

/// A frame without a single byte. No source.
pub(super) const EMPTY_FRAME: Status = Status::LengthError;

/// Bytes of payload in each frame but the last of a long reply, without session and in a D40
/// session. Recorded for no session (libfreefare issue 8). The last frame takes all that is
/// left once that fits into a frame.
pub(super) const CHUNK_PLAIN: usize = 59;

/// The same in an EV1 session with AES: three blocks. Recorded (desox EV3 trace, skjolber
/// EV1 4K log).
pub(super) const CHUNK_AES: usize = 48;

/// The same in an EV1 session of the DES family: seven blocks. Recorded for 3K3DES (skjolber
/// EV1 4K log); by analogy for DES and 2K3DES (DFC).
pub(super) const CHUNK_DES: usize = 56;

/// Bytes of the first frame of GetApplicationIDs outside an EV1 session: 19 AIDs. dev-zzo;
/// readers join the frames.
pub(super) const CHUNK_AIDS: usize = 57;

// Sessions and messaging.

/// Statuses after which a D40 session goes on. libfreefare's live test goes on after `9D`;
/// nothing else is measured, and a reader that authenticates anew is right in any case.
pub(super) const D40_SURVIVES: &[Status] = &[Status::PermissionDenied];

/// Statuses after which an EV1 session goes on: none. libfreefare's live tests authenticate
/// anew after `9D`; Elmue, pm3sim and DFC agree. For `0C` this is DFC's word alone.
pub(super) const EV1_SURVIVES: &[Status] = &[];

/// How an enciphered answer to a read of everything (length 0) is padded. Recorded (skjolber
/// EV1 4K log).
pub(super) const READ_ALL_PADDING: Padding = Padding::Marked;

/// Whether the version bits count when the halves of a DES-type key are compared to tell DES
/// from 2K3DES. pm3sim (citing the data sheet) and libfreefare compare whole bytes,
/// liblogicalaccess and nfcjlib do not.
pub(super) const VERSION_BITS_TELL_HALVES_APART: bool = true;

// Applications.

/// Whether an application may have no key at all. libfreefare's live tests create such;
/// DFC says `9E`.
pub(super) const APPLICATIONS_WITHOUT_KEYS: bool = true;

/// Bits of key settings byte 2 that are refused with `9E`: bit 4, which announces a third byte
/// on later generations. No source; refused so that a program for another generation shows up.
pub(super) const KEY_INFO_RFU: u8 = 0x10;

/// ISO FIDs that neither application nor file may have: proxmark3's help names them for
/// applications; a file of the same FID could not be selected either.
pub(super) const RESERVED_FILE_IDS: [u16; 4] = [0x0000, 0x3F00, 0x3FFF, 0xFFFF];

/// DeleteApplication of AID 000000. pm3sim, dev-zzo.
pub(super) const DELETE_PICC: Status = Status::ParameterError;

/// Whether SelectApplication of an unknown AID leaves the PICC level selected (DFC) and not
/// what was selected before (pm3sim). The safest for a reader under test.
pub(super) const UNKNOWN_AID_SELECTS_PICC: bool = true;

/// Whether GetDFNames lists an application that has an ISO FID and no name. libfreefare's
/// live test expects it; pm3sim leaves it out.
pub(super) const LIST_NAMELESS_APPLICATIONS: bool = true;

/// FormatPICC after it has been disabled. pm3sim; DFC says `AE`.
pub(super) const FORMAT_DISABLED: Status = Status::PermissionDenied;

// Keys and configuration.

/// Whether GetKeySettings shows bit 5 of key settings byte 2 (files may have ISO FIDs).
/// proxmark3 expects it and pm3sim shows it, DFC masks it.
pub(super) const SHOW_ISO_FILE_ID_BIT: bool = true;

/// ChangeKey under a key that may not. pm3sim; DFC says `9D`.
pub(super) const WRONG_KEY_FOR_CHANGE: Status = Status::AuthenticationError;

/// ChangeKey or ChangeKeySettings of what has been frozen. pm3sim and DFC.
pub(super) const FROZEN: Status = Status::PermissionDenied;

/// Whether the key that changes the others (1 to D) may be changed under the master key:
/// proxmark3's help and a reader vendor say so.
pub(super) const MASTER_CHANGES_CHANGE_KEY: bool = true;

/// Whether it may be changed under itself: pm3sim, DFC and dev-zzo.
pub(super) const CHANGE_KEY_CHANGES_ITSELF: bool = true;

/// ChangeKey with type bits inside an application, where the type is fixed. No source.
pub(super) const KEY_TYPE_IN_APPLICATION: Status = Status::ParameterError;

/// SetConfiguration with an unknown option or a bad value. Not measured.
pub(super) const BAD_CONFIGURATION: Status = Status::ParameterError;

/// The longest ATS that SetConfiguration takes. Not measured; 20 bytes are room for all
/// interface bytes and for 15 historical bytes, which are the most that an ATR holds.
pub(super) const MAX_ATS: usize = 20;

// Files.

/// A file number above 31. dev-zzo, in every command that takes a file number.
pub(super) const FILE_NUMBER_RANGE: Status = Status::ParameterError;

/// An ISO FID for a file although the application's files have none. DFC; pm3sim says `7E`.
pub(super) const UNEXPECTED_FILE_ID: Status = Status::ParameterError;

/// Whether a file may go without ISO FID although the application's files have them.
/// libfreefare's API and DFC; pm3sim makes the FID mandatory.
pub(super) const FILE_ID_MAY_BE_MISSING: bool = true;

/// GetISOFileIDs with nothing to list. pm3sim relays it from the data sheet; DFC answers `00`.
pub(super) const NO_ISO_FILE_IDS: Status = Status::FileNotFound;

/// Whether rights may name a key that the application does not have, which nobody can then
/// use. The NTAG 424 DNA data sheet refuses it with `9E`; not measured on EV1.
pub(super) const RIGHTS_MAY_NAME_MISSING_KEYS: bool = true;

/// WriteData or WriteRecord with length 0. Sources name `7E` and `9E`; the length field is a
/// parameter outside its range.
pub(super) const WRITE_OF_NOTHING: Status = Status::ParameterError;

/// ReadData with length 0 from the very end of the file: nothing is left. Not measured.
pub(super) const READ_OF_NOTHING: Status = Status::BoundaryError;

/// Whether lower and upper limit of a value file may be equal. DFC; pm3sim relays that the
/// upper must be higher.
pub(super) const EQUAL_VALUE_LIMITS: bool = true;

/// A negative amount. DFC.
pub(super) const NEGATIVE_AMOUNT: Status = Status::ParameterError;

/// Whether LimitedCredit of less than allowed leaves the rest for later. Plausible; only the
/// use of all is measured (libfreefare).
pub(super) const LIMITED_CREDIT_LEAVES_REST: bool = true;

/// A linear record file that is full. pm3sim; DFC says `0E`.
pub(super) const LINEAR_FILE_FULL: Status = Status::BoundaryError;

/// ReadRecords from a file whose ClearRecordFile is pending. nfcjlib documents that it fails,
/// not how; WriteRecord fails like this (libfreefare).
pub(super) const READ_AFTER_CLEAR: Status = Status::PermissionDenied;

// ISO 7816-4 commands.

/// The short file ids that name a file, by its file number: proxmark3 sends it so, one
/// source. (That a short id stands for the low bits of the FID is the reading of ISO 7816-4.)
pub(super) const SHORT_FILE_IDS: RangeInclusive<u8> = 0x01..=0x1E;

/// The most data in a reply to an ISO command, MAC included: 61 bytes with the status word
/// are possible (libfreefare issue 8).
pub(super) const ISO_REPLY: usize = 59;

/// An offset outside the file in READ or UPDATE BINARY. Not measured.
pub(super) const ISO_OFFSET: StatusWord = StatusWord::WRONG_P1_P2;

/// Data that go beyond the end of the file or are not one record. Not measured.
pub(super) const ISO_DATA_LENGTH: StatusWord = StatusWord::WRONG_LENGTH;

/// A record number that does not exist: ISO 7816-4's word for it. Not measured.
pub(super) const ISO_NO_RECORD: StatusWord = StatusWord(0x6A83);

/// APPEND RECORD to a full linear file: ISO 7816-4's word for it. Not measured.
pub(super) const ISO_FILE_FULL: StatusWord = StatusWord(0x6A84);

/// A key or algorithm in P1 and P2 that the level does not have. Not measured.
pub(super) const ISO_NO_KEY: StatusWord = StatusWord::WRONG_P1_P2;
