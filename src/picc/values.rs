//! GetValue, Credit, Debit and LimitedCredit.
//!
//! | | rights that allow it | source |
//! |---|---|---|
//! | GetValue, Debit | read, write, read & write | pm3sim (measured on EV2), RevK |
//! | LimitedCredit | write, read & write | libfreefare, RevK; nfcjlib documents read for write |
//! | Credit | read & write | all |

use super::card::Card;
use super::choices::NEGATIVE_AMOUNT;
use super::file::{File, FileContent, Value};
use super::reply::{Refusal, Reply};
use super::session::Padding;
use super::transaction::{Change, PendingValue};
use crate::wire::{Access, CommandCode, FileNo, Reader, Status, ValueFlags};

impl Card {
    /// The committed balance.
    pub(super) fn get_value(&self, params: &[u8]) -> Result<Reply, Refusal> {
        let number = self.existing_file(params)?;
        let (file, value) = self.value_file(number)?;
        let rights = file.rights;
        let free = if value.flags.contains(ValueFlags::FREE_GET_VALUE) {
            Access::Free
        } else {
            Access::Never
        };
        let mode = self.grant(file, &[rights.read, rights.write, rights.read_write, free])?;
        let balance = value.value.to_le_bytes().to_vec();
        Ok(Reply::in_mode(balance, mode, Padding::Zeros))
    }

    /// Credit, Debit and LimitedCredit: limits hold for the balance as it is pending.
    pub(super) fn change_value(
        &mut self,
        code: CommandCode,
        params: &[u8],
    ) -> Result<Reply, Refusal> {
        let (header, data) = params.split_at_checked(1).ok_or(Status::LengthError)?;
        let number = self.existing_file(header)?;
        let (file, _) = self.value_file(number)?;
        let rights = file.rights;
        let mode = match code {
            CommandCode::Credit => self.grant(file, &[rights.read_write])?,
            CommandCode::LimitedCredit => self.grant(file, &[rights.write, rights.read_write])?,
            _ => self.grant(file, &[rights.read, rights.write, rights.read_write])?,
        };
        let data = self.open_request(mode, code, header, data, 4)?;
        let amount = Reader::new(&data).i32().map_err(|_| Status::LengthError)?;
        if amount < 0 {
            return Err(NEGATIVE_AMOUNT.into());
        }

        let (_, value) = self.value_file(number)?;
        let before = match self.field.transaction.get(number) {
            Some(Change::Value(pending)) => pending.clone(),
            _ => PendingValue {
                value: value.value,
                debited: None,
                restored: None,
            },
        };
        let pending = changed(value, before, code, amount)?;
        let transaction = &mut self.field.transaction;
        self.eeprom
            .change(|_| transaction.put(number, Change::Value(pending)))?;
        Ok(Reply::done())
    }

    fn value_file(&self, number: FileNo) -> Result<(&File, &Value), Status> {
        let file = self.file(number)?;
        match &file.content {
            FileContent::Value(value) => Ok((file, value)),
            _ => Err(Status::PermissionDenied),
        }
    }
}

/// The pending balance after one more command.
fn changed(
    file: &Value,
    mut pending: PendingValue,
    code: CommandCode,
    amount: i32,
) -> Result<PendingValue, Status> {
    let sum = |so_far: Option<i64>| so_far.unwrap_or(0).saturating_add(amount.into());
    let balance = match code {
        CommandCode::Debit => {
            pending.debited = Some(sum(pending.debited));
            pending.value.checked_sub(amount)
        }
        CommandCode::LimitedCredit => {
            if !file.flags.contains(ValueFlags::LIMITED_CREDIT) {
                return Err(Status::PermissionDenied);
            }
            let restored = sum(pending.restored);
            if restored > file.limited_credit.into() {
                return Err(Status::BoundaryError);
            }
            pending.restored = Some(restored);
            pending.value.checked_add(amount)
        }
        _ => pending.value.checked_add(amount),
    };
    pending.value = balance
        .filter(|balance| (file.lower..=file.upper).contains(balance))
        .ok_or(Status::BoundaryError)?;
    Ok(pending)
}
