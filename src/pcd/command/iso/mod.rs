//! The card's ISO 7816-4 commands, one file each; the authentication is
//! [`Session::authenticate_iso7816`](crate::Session::authenticate_iso7816).
//!
//! They see the same card by other names: an application with an ISO FID or a DF name is a DF, a
//! file with an ISO FID an EF. All are APDUs of class 00 with big-endian numbers, answered by a
//! status word, in either framing. Their requests are never protected, so they reach files whose
//! access is free or plain; in an EV1 session what is read carries a CMAC over the data, but not
//! over the address, see [`ReadBinary`].
//!
//! Sources: proxmark3 `desfirecore.c`, liblogicalaccess; the NTAG 424 DNA data sheet by analogy. No
//! recording in an authenticated session is known.

mod append_record;
mod place;
mod read_binary;
mod read_record;
mod select;
mod update_binary;

pub use append_record::AppendRecord;
pub use place::{BinaryPlace, ShortFileId};
pub use read_binary::ReadBinary;
pub use read_record::{ReadRecord, RecordRange};
pub use select::{IsoTarget, SelectApplicationByName, SelectFile};
pub use update_binary::UpdateBinary;
