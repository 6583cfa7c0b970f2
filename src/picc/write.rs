//! WriteData and WriteRecord: the two commands that may take several frames.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::card::Card;
use super::chain::{Chain, Step};
use super::choices::{LINEAR_FILE_FULL, NO_DATA_IN_AF, WRITE_OF_NOTHING};
use super::eeprom::PowerLost;
use super::file::{File, FileContent};
use super::reply::{Refusal, Reply};
use super::transaction::Change;
use crate::wire::{CommMode, CommandCode, FileNo, Reader, Status, U24};

/// A write whose data are still coming. File, rights and mode are settled by the first frame.
#[derive(Clone)]
pub(super) struct PendingWrite {
    code: CommandCode,
    header: [u8; 7],
    target: Target,
    mode: CommMode,
    /// How many bytes come after the header, MAC, CRC and padding included.
    expected: usize,
    received: Zeroizing<Vec<u8>>,
    /// Where in `received` each frame ended.
    ends: Vec<usize>,
}

/// Where a write goes.
#[derive(Clone, Copy)]
pub(super) struct Target {
    pub(super) file: FileNo,
    pub(super) offset: usize,
    pub(super) len: usize,
}

impl Target {
    /// Whether it lies within `size` bytes.
    pub(super) fn fits(&self, size: usize) -> bool {
        self.offset
            .checked_add(self.len)
            .is_some_and(|end| end <= size)
    }
}

impl Card {
    /// The first frame of WriteData or WriteRecord.
    pub(super) fn write(&mut self, code: CommandCode, params: &[u8]) -> Result<Step, Refusal> {
        let (header, data) = params.split_first_chunk::<7>().ok_or(Status::LengthError)?;
        let target = Self::target(header)?;
        if target.len == 0 {
            return Err(WRITE_OF_NOTHING.into());
        }
        let file = self.file(target.file)?;
        let fits = match file.content {
            FileContent::Standard(_) | FileContent::Backup(_) => code == CommandCode::WriteData,
            FileContent::Linear(_) | FileContent::Cyclic(_) => code == CommandCode::WriteRecord,
            FileContent::Value(_) => false,
        };
        if !fits {
            return Err(Status::PermissionDenied.into());
        }
        let mode = self.grant(file, &[file.rights.write, file.rights.read_write])?;
        let expected = self.request_len(mode, target.len);
        if data.len() < expected {
            // The rest will only be taken if there is room for it.
            self.check_write(&target)?;
        }
        let write = PendingWrite {
            code,
            header: *header,
            target,
            mode,
            expected,
            received: Zeroizing::new(Vec::new()),
            ends: Vec::new(),
        };
        self.take_in(write, data)
    }

    /// A further frame.
    pub(super) fn continue_write(
        &mut self,
        write: PendingWrite,
        data: &[u8],
    ) -> Result<Step, Refusal> {
        if data.is_empty() {
            return Err(NO_DATA_IN_AF.into());
        }
        self.take_in(write, data)
    }

    fn take_in(&mut self, mut write: PendingWrite, data: &[u8]) -> Result<Step, Refusal> {
        write.received.extend_from_slice(data);
        write.ends.push(write.received.len());
        if write.received.len() < write.expected {
            return Ok(Step::Continue {
                payload: Vec::new(),
                chain: Chain::Write(write),
            });
        }
        let data = self.open_request(
            write.mode,
            write.code,
            &write.header,
            &write.received,
            write.target.len,
        )?;
        self.check_write(&write.target)?;
        self.perform_write(&write, &data)?;
        Ok(Step::Done(Reply::done()))
    }

    fn target(header: &[u8; 7]) -> Result<Target, Status> {
        let mut reader = Reader::new(header);
        let (Ok(file), Ok(offset), Ok(len)) =
            (reader.u8(), U24::read(&mut reader), U24::read(&mut reader))
        else {
            return Err(Status::LengthError);
        };
        Ok(Target {
            file: Self::file_number(file)?,
            offset: usize_of(offset),
            len: usize_of(len),
        })
    }

    /// What can be refused for the file's content: 11 and 12 in the order of checks.
    pub(super) fn check_write(&self, target: &Target) -> Result<(), Status> {
        let file = self.file(target.file)?;
        let pending = self.field.transaction.get(target.file);
        if matches!(pending, Some(Change::Clear)) {
            return Err(Status::PermissionDenied);
        }
        let size = match &file.content {
            FileContent::Standard(data) | FileContent::Backup(data) => data.len(),
            FileContent::Value(_) => 0,
            FileContent::Linear(records) | FileContent::Cyclic(records) => {
                usize_of(records.record_size())
            }
        };
        if !target.fits(size) {
            return Err(Status::BoundaryError);
        }
        match &file.content {
            FileContent::Linear(records) if records.count() >= records.max_records().get() => {
                Err(LINEAR_FILE_FULL)
            }
            _ => Ok(()),
        }
    }

    fn perform_write(&mut self, write: &PendingWrite, data: &[u8]) -> Result<(), Refusal> {
        let target = write.target;
        let file = self.file(target.file)?;
        if let Some(pending) = pending_image(file, self.field.transaction.get(target.file)) {
            return Ok(self.write_pending(pending, &target, data)?);
        }
        // A standard file changes at once, with what each frame brought as one effect: a
        // chained write can be left half done (by analogy, NTAG 424 DNA data sheet).
        let mut start = 0;
        for end in &write.ends {
            let end = (*end).min(data.len());
            let Some(piece) = data.get(start..end).filter(|piece| !piece.is_empty()) else {
                continue;
            };
            self.write_standard(target.file, target.offset.saturating_add(start), piece)?;
            start = end;
        }
        Ok(())
    }

    /// One effect on a standard data file.
    pub(super) fn write_standard(
        &mut self,
        number: FileNo,
        offset: usize,
        data: &[u8],
    ) -> Result<(), PowerLost> {
        let aid = self.field.selected;
        self.eeprom.change(|state| {
            if let Some(File {
                content: FileContent::Standard(content),
                ..
            }) = state.file_mut(aid, number)
            {
                overwrite(content, offset, data);
            }
        })
    }

    /// Writes into the pending image of a backup or record file.
    pub(super) fn write_pending(
        &mut self,
        mut pending: Change,
        target: &Target,
        data: &[u8],
    ) -> Result<(), PowerLost> {
        let transaction = &mut self.field.transaction;
        self.eeprom.change(|_| {
            if let Change::Data(image) | Change::Record(image) = &mut pending {
                overwrite(image, target.offset, data);
            }
            transaction.put(target.file, pending);
        })
    }
}

/// The image of a file that a write in a transaction changes: the one that is pending, or a
/// new one. `None` for a file that is written at once.
pub(super) fn pending_image(file: &File, pending: Option<&Change>) -> Option<Change> {
    match (&file.content, pending) {
        (FileContent::Standard(_) | FileContent::Value(_), _) => None,
        (_, Some(pending)) => Some(pending.clone()),
        (FileContent::Backup(data), None) => Some(Change::Data(data.clone())),
        (FileContent::Linear(records) | FileContent::Cyclic(records), None) => {
            Some(Change::Record(records.blank_record()))
        }
    }
}

/// Puts `data` at `offset`; the place is known to be there.
fn overwrite(content: &mut [u8], offset: usize, data: &[u8]) {
    let place = content.iter_mut().skip(offset);
    for (byte, new) in place.zip(data) {
        *byte = *new;
    }
}

pub(super) fn usize_of(number: U24) -> usize {
    usize::try_from(number.get()).unwrap_or(usize::MAX)
}
