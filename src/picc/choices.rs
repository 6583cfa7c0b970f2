//! Every behaviour of the card that no recording settles, as a named value.
//!
//! The sources disagree, or are silent, on what a DESFire EV1 does in these cases. Each choice
//! stands here alone, with its reason, so that a later measurement on a real card can flip it
//! in one place. "pm3sim" and "DFC" are the two card simulations in proxmark3, "dev-zzo" the
//! original ChameleonMini DESFire branch.

use crate::wire::{Status, StatusWord};

/// `AF` although no chain is pending. pm3sim and DFC both answer this.
pub(super) const AF_WHILE_IDLE: Status = Status::IllegalCommandCode;

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

/// Statuses after which a D40 session goes on. libfreefare's live test goes on after `9D`;
/// nothing else is measured, and a reader that authenticates anew is right in any case.
pub(super) const D40_SURVIVES: &[Status] = &[Status::PermissionDenied];

/// A file number above 31. dev-zzo, in every command that takes a file number.
pub(super) const FILE_NUMBER_RANGE: Status = Status::ParameterError;

/// A linear record file that is full. pm3sim; DFC says `0E`.
pub(super) const LINEAR_FILE_FULL: Status = Status::BoundaryError;

/// WriteData or WriteRecord with length 0. Sources name `7E` and `9E`; the length field is a
/// parameter outside its range.
pub(super) const WRITE_OF_NOTHING: Status = Status::ParameterError;

/// ReadRecords from a file whose ClearRecordFile is pending. nfcjlib documents that it fails,
/// not how; WriteRecord fails like this (libfreefare).
pub(super) const READ_AFTER_CLEAR: Status = Status::PermissionDenied;

/// FormatPICC after it has been disabled. pm3sim; DFC says `AE`.
pub(super) const FORMAT_DISABLED: Status = Status::PermissionDenied;

/// An ISO FID for a file although the application's files have none. DFC; pm3sim says `7E`.
pub(super) const UNEXPECTED_FILE_ID: Status = Status::ParameterError;

/// GetISOFileIDs with nothing to list. pm3sim relays it from the data sheet; DFC answers `00`.
pub(super) const NO_ISO_FILE_IDS: Status = Status::FileNotFound;

/// ChangeKey or ChangeKeySettings of what has been frozen. pm3sim.
pub(super) const FROZEN: Status = Status::PermissionDenied;

/// ChangeKey with type bits inside an application, where the type is fixed. No source.
pub(super) const KEY_TYPE_IN_APPLICATION: Status = Status::ParameterError;

/// DeleteApplication of AID 000000. pm3sim, dev-zzo.
pub(super) const DELETE_PICC: Status = Status::ParameterError;

/// Bit 4 of key settings byte 2, which announces a third byte on later generations. No
/// source; refused so that a program for another generation shows up.
pub(super) const KEY_INFO_RFU: Status = Status::ParameterError;

/// SetConfiguration with an unknown option or a bad value. Not measured.
pub(super) const BAD_CONFIGURATION: Status = Status::ParameterError;

/// The longest ATS that SetConfiguration takes. Not measured; 20 bytes are room for all
/// interface bytes and for 15 historical bytes, which are the most that an ATR holds.
pub(super) const MAX_ATS: usize = 20;

/// ISO FIDs that neither application nor file may have: proxmark3's help names them for
/// applications; a file of the same FID could not be selected either.
pub(super) const RESERVED_FILE_IDS: [u16; 4] = [0x0000, 0x3F00, 0x3FFF, 0xFFFF];

/// An ISO command other than SELECT while a native chain is pending (NTAG 424 DNA data
/// sheet). SELECT is executed and drops the chain (EV3 trace).
pub(super) const ISO_DURING_CHAIN: StatusWord = StatusWord::CONDITIONS_NOT_SATISFIED;

/// A short file id is the file number: proxmark3 sends it so, one source. (That it stands for
/// the low bits of the FID is the reading of ISO 7816-4.)
pub(super) const SHORT_ID_IS_FILE_NUMBER: core::ops::RangeInclusive<u8> = 0x01..=0x1E;

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
