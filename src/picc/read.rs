//! ReadData and ReadRecords.

use alloc::vec::Vec;

use super::card::Card;
use super::choices::{READ_AFTER_CLEAR, READ_ALL_PADDING, READ_OF_NOTHING};
use super::file::FileContent;
use super::reply::{Refusal, Reply};
use super::session::Padding;
use super::transaction::Change;
use super::write::usize_of;
use crate::wire::{FileNo, Reader, Status, U24};

impl Card {
    /// Committed content; length 0 asks for everything up to the end.
    pub(super) fn read_data(&self, params: &[u8]) -> Result<Reply, Refusal> {
        let (number, offset, len) = range(params)?;
        let file = self.file(number)?;
        let (FileContent::Standard(data) | FileContent::Backup(data)) = &file.content else {
            return Err(Status::PermissionDenied.into());
        };
        let mode = self.grant(file, &[file.rights.read, file.rights.read_write])?;
        let rest = data.get(usize_of(offset)..);
        let rest = rest.ok_or(Status::BoundaryError)?;
        let (part, padding) = match usize_of(len) {
            0 if rest.is_empty() => return Err(READ_OF_NOTHING.into()),
            0 => (Some(rest), READ_ALL_PADDING),
            len => (rest.get(..len), Padding::Zeros),
        };
        match part {
            Some(part) => Ok(Reply::in_mode(part.to_vec(), mode, padding)),
            None => Err(Status::BoundaryError.into()),
        }
    }

    /// Committed records, counted back from the newest and given from the oldest of them on
    /// (nfcjlib's and libfreefare's live tests); count 0 asks for all.
    pub(super) fn read_records(&self, params: &[u8]) -> Result<Reply, Refusal> {
        let (number, first, count) = range(params)?;
        let file = self.file(number)?;
        let (FileContent::Linear(records) | FileContent::Cyclic(records)) = &file.content else {
            return Err(Status::PermissionDenied.into());
        };
        let mode = self.grant(file, &[file.rights.read, file.rights.read_write])?;
        if let Some(Change::Clear) = self.field.transaction.get(number) {
            return Err(READ_AFTER_CLEAR.into());
        }
        let (count, padding) = match count.get() {
            0 => (
                records.count().saturating_sub(first.get()),
                READ_ALL_PADDING,
            ),
            count => (count, Padding::Zeros),
        };
        match records.read(first.get(), count) {
            Some(bytes) if !bytes.is_empty() => Ok(Reply::in_mode(Vec::from(bytes), mode, padding)),
            _ => Err(Status::BoundaryError.into()),
        }
    }
}

/// File number and two 24-bit numbers.
fn range(params: &[u8]) -> Result<(FileNo, U24, U24), Status> {
    let mut reader = Reader::new(params);
    match (reader.u8(), U24::read(&mut reader), U24::read(&mut reader)) {
        (Ok(number), Ok(from), Ok(len)) => Ok((Card::file_number(number)?, from, len)),
        _ => Err(Status::LengthError),
    }
}
