//! What things cost on a card.
//!
//! "Card-shaped", not exact: memory is given out in steps of 32 bytes, backup files cost twice
//! (nfcjlib), application and record files as measured on an EV2 2K by proxmark3's simulation. Real
//! EV1 cards may differ by a step or two; what counts in the end is FreeMem and the card's `0E`.

use super::layout::{ApplicationLayout, FileKind, FileLayout};

const STEP: u64 = 32;
/// An application before its keys, and what a record file costs besides its records; a value file.
const HEADER: u64 = 64;
/// What the card keeps with each key.
const KEY_OVERHEAD: u64 = 4;

/// The application without its files.
pub(super) fn application(layout: &ApplicationLayout) -> u64 {
    let count = u64::try_from(layout.keys.len()).unwrap_or(u64::MAX);
    let key_len = u64::try_from(layout.family.key_len()).unwrap_or(u64::MAX);
    let keys = key_len.saturating_add(KEY_OVERHEAD).saturating_mul(count);
    stepped(HEADER.saturating_add(keys))
}

/// One file.
pub(super) fn file(layout: &FileLayout) -> u64 {
    match &layout.kind {
        FileKind::Standard { size, .. } => stepped((*size).into()),
        FileKind::Backup { size, .. } => stepped((*size).into()).saturating_mul(2),
        FileKind::Value { .. } => HEADER,
        FileKind::Linear(records) | FileKind::Cyclic(records) => {
            let all = u64::from(records.record_size).saturating_mul(records.max_records.into());
            stepped(all).saturating_add(HEADER)
        }
    }
}

fn stepped(bytes: u64) -> u64 {
    bytes.checked_next_multiple_of(STEP).unwrap_or(u64::MAX)
}
