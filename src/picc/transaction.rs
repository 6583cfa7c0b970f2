//! Pending changes of the selected application, and CommitTransaction and AbortTransaction.
//!
//! Backup, value and record files change at commit, all of them at once; until then reads
//! show the committed state. Whatever ends the selection or goes wrong drops the changes; a
//! new authentication does not. Source: libfreefare's live tests.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use super::card::Card;
use super::choices::LIMITED_CREDIT_LEAVES_REST;
use super::file::{FileContent, Value};
use super::reply::{Refusal, Reply};
use crate::wire::{FileNo, Status};

/// The pending changes, one for each file.
#[derive(Clone, Debug, Default)]
pub(super) struct Transaction {
    changes: BTreeMap<FileNo, Change>,
}

/// What commit will do to a file.
#[derive(Clone, Debug)]
pub(super) enum Change {
    /// The other image of a backup data file.
    Data(Vec<u8>),
    /// A value file's new balance.
    Value(PendingValue),
    /// The one new record of a record file.
    Record(Vec<u8>),
    /// No records any more.
    Clear,
}

/// A balance that is not committed, and how it came about.
#[derive(Clone, Debug)]
pub(super) struct PendingValue {
    pub(super) value: i32,
    /// The sum of the debits, if there was one.
    pub(super) debited: Option<i64>,
    /// The sum of the limited credits, if there was one.
    pub(super) restored: Option<i64>,
}

impl Transaction {
    pub(super) fn get(&self, file: FileNo) -> Option<&Change> {
        self.changes.get(&file)
    }

    pub(super) fn put(&mut self, file: FileNo, change: Change) {
        self.changes.insert(file, change);
    }

    /// Drops the change of one file.
    pub(super) fn forget(&mut self, file: FileNo) {
        self.changes.remove(&file);
    }

    pub(super) fn abort(&mut self) {
        self.changes.clear();
    }
}

impl Card {
    pub(super) fn commit_transaction(&mut self) -> Result<Reply, Refusal> {
        if self.field.transaction.changes.is_empty() {
            return Err(Status::NoChanges.into());
        }
        let changes = core::mem::take(&mut self.field.transaction.changes);
        let aid = self.field.selected;
        self.eeprom.change(|state| {
            for (number, change) in changes {
                if let Some(file) = state.file_mut(aid, number) {
                    apply(&mut file.content, change);
                }
            }
        })?;
        Ok(Reply::done())
    }

    pub(super) fn abort_transaction(&mut self) -> Result<Reply, Refusal> {
        if self.field.transaction.changes.is_empty() {
            return Err(Status::NoChanges.into());
        }
        self.field.transaction.abort();
        Ok(Reply::done())
    }
}

fn apply(content: &mut FileContent, change: Change) {
    match (content, change) {
        (FileContent::Backup(data), Change::Data(image)) => *data = image,
        (FileContent::Value(value), Change::Value(pending)) => commit_value(value, &pending),
        (FileContent::Linear(records), Change::Record(record)) => {
            records.push(&record, records.max_records().get());
        }
        (FileContent::Cyclic(records), Change::Record(record)) => {
            // The spare record took the new one; it becomes the spare of the next.
            records.push(&record, records.max_records().get().saturating_sub(1));
        }
        (FileContent::Linear(records) | FileContent::Cyclic(records), Change::Clear) => {
            records.clear();
        }
        // A change is only ever made for the type of its file.
        _ => {}
    }
}

/// The new balance, and what LimitedCredit may give back of it: the sum of this transaction's
/// debits (libfreefare: credits do not reduce it). Without a debit, what was given back comes
/// off the old amount, and a transaction of neither leaves nothing: the last one that touched
/// the file counts (not measured).
fn commit_value(value: &mut Value, pending: &PendingValue) {
    value.value = pending.value;
    let budget = match (pending.debited, pending.restored) {
        (Some(debited), _) => debited,
        (None, Some(restored)) if LIMITED_CREDIT_LEAVES_REST => {
            i64::from(value.limited_credit).saturating_sub(restored)
        }
        (None, _) => 0,
    };
    value.limited_credit = i32::try_from(budget).unwrap_or(i32::MAX);
}
