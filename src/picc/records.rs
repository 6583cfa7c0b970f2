//! ClearRecordFile.

use super::card::Card;
use super::file::FileContent;
use super::reply::{Refusal, Reply};
use super::transaction::Change;
use crate::wire::Status;

impl Card {
    /// Takes effect at commit and takes the place of a pending record.
    ///
    /// Only the read & write right allows it (nfcjlib); pm3sim and DFC take write too.
    pub(super) fn clear_record_file(&mut self, params: &[u8]) -> Result<Reply, Refusal> {
        let number = self.existing_file(params)?;
        let file = self.file(number)?;
        if !matches!(
            file.content,
            FileContent::Linear(_) | FileContent::Cyclic(_)
        ) {
            return Err(Status::PermissionDenied.into());
        }
        // No data travel, so the file's mode does not matter.
        self.grant(file, &[file.rights.read_write])?;
        let transaction = &mut self.field.transaction;
        self.eeprom
            .change(|_| transaction.put(number, Change::Clear))?;
        Ok(Reply::done())
    }
}
