//! Which native command is carried out where, and the checks that all have in common.
//!
//! The order of checks is that of the reference's chapter 9.1, as far as the evidence goes:
//! pending chain (`CA`), known command (`1C`), level (`9D`), length (`7E`), range of
//! parameters (`9E`), key exists (`40`), target exists (`F0`, `A0`), file type (`9D`),
//! authorisation (`AE`, `9D`), MAC and CRC (`1E`), what the command asks for (`9D`), bounds
//! (`BE`), duplicates, counts and memory (`DE`, `CE`, `0E`).
//!
//! Where a length depends on the session or on the file's mode, it is checked once these are
//! known, after the authorisation.

use super::card::Card;
use super::chain::Step;
use super::reply::{Refusal, Reply};
use crate::wire::frame::MAX_PAYLOAD;
use crate::wire::{AuthScheme, CommandCode, Status};

/// What is selected when a command may be given.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Level {
    Any,
    Picc,
    Application,
}

/// How the session takes note of the request.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Request {
    /// Not at all.
    Ignored,
    /// It carries nothing to check.
    Plain,
    /// The command sees to it.
    OwnCare,
}

/// Level, lengths of the parameters (from, to) and protection of the request.
type Rule = (Level, &'static [(usize, usize)], Request);

const fn rule(code: CommandCode) -> Option<Rule> {
    use CommandCode as C;
    use Level::{Any, Application, Picc};
    use Request::{Ignored, OwnCare, Plain};

    const MORE: usize = MAX_PAYLOAD;
    Some(match code {
        C::Authenticate | C::AuthenticateIso | C::AuthenticateAes => (Any, &[(1, 1)], Ignored),
        C::SelectApplication => (Any, &[(3, 3)], Ignored),
        C::GetVersion | C::FreeMem | C::GetCardUid | C::GetKeySettings => (Any, &[(0, 0)], Plain),
        C::GetKeyVersion => (Any, &[(1, 1)], Plain),
        C::ChangeKeySettings => (Any, &[(1, MORE)], OwnCare),
        C::ChangeKey => (Any, &[(2, MORE)], OwnCare),
        C::SetConfiguration => (Picc, &[(2, MORE)], OwnCare),
        C::CreateApplication => (Picc, &[(5, 5), (7, 23)], Plain),
        C::DeleteApplication => (Any, &[(3, 3)], Plain),
        C::GetApplicationIds | C::GetDfNames | C::FormatPicc => (Picc, &[(0, 0)], Plain),
        C::GetFileIds | C::GetIsoFileIds | C::CommitTransaction | C::AbortTransaction => {
            (Application, &[(0, 0)], Plain)
        }
        C::GetFileSettings | C::DeleteFile | C::GetValue | C::ClearRecordFile => {
            (Application, &[(1, 1)], Plain)
        }
        C::ChangeFileSettings => (Application, &[(4, MORE)], OwnCare),
        C::CreateStdDataFile | C::CreateBackupDataFile => (Application, &[(7, 7), (9, 9)], Plain),
        C::CreateValueFile => (Application, &[(17, 17)], Plain),
        C::CreateLinearRecordFile | C::CreateCyclicRecordFile => {
            (Application, &[(10, 10), (12, 12)], Plain)
        }
        C::ReadData | C::ReadRecords => (Application, &[(7, 7)], Plain),
        C::WriteData | C::WriteRecord => (Application, &[(7, MORE)], OwnCare),
        C::Credit | C::Debit | C::LimitedCredit => (Application, &[(5, MORE)], OwnCare),
        // `AF` begins nothing, and no other code exists on EV1.
        C::AdditionalFrame | C::Other(_) => return None,
    })
}

impl Card {
    /// The first frame of a command.
    pub(super) fn first_frame(
        &mut self,
        code: CommandCode,
        params: &[u8],
    ) -> Result<Step, Refusal> {
        let (level, lengths, request) = rule(code).ok_or(Status::IllegalCommandCode)?;
        let right_level = match level {
            Level::Any => true,
            Level::Picc => self.field.selected.is_picc(),
            Level::Application => !self.field.selected.is_picc(),
        };
        if !right_level {
            return Err(Status::PermissionDenied.into());
        }
        if !lengths
            .iter()
            .any(|(least, most)| (*least..=*most).contains(&params.len()))
        {
            return Err(Status::LengthError.into());
        }
        if let (Request::Plain, Some(session)) = (request, &mut self.field.session) {
            session.absorb(&[&[code.to_byte()], params]);
        }
        match code {
            CommandCode::Authenticate => self.authenticate(AuthScheme::Legacy, params),
            CommandCode::AuthenticateIso => self.authenticate(AuthScheme::Iso, params),
            CommandCode::AuthenticateAes => self.authenticate(AuthScheme::Aes, params),
            CommandCode::WriteData | CommandCode::WriteRecord => self.write(code, params),
            _ => self.single(code, params).map(Step::Done),
        }
    }

    /// A command that one frame brings whole.
    fn single(&mut self, code: CommandCode, params: &[u8]) -> Result<Reply, Refusal> {
        use CommandCode as C;
        match code {
            C::ChangeKeySettings => self.change_key_settings(params),
            C::SetConfiguration => self.set_configuration(params),
            C::ChangeKey => self.change_key(params),
            C::GetKeySettings => self.get_key_settings(),
            C::GetKeyVersion => self.get_key_version(params),
            C::CreateApplication => self.create_application(params),
            C::DeleteApplication => self.delete_application(params),
            C::GetApplicationIds => self.get_application_ids(),
            C::GetDfNames => self.get_df_names(),
            C::SelectApplication => self.select_application(params),
            C::FormatPicc => self.format_picc(),
            C::GetVersion => Ok(self.get_version()),
            C::FreeMem => Ok(self.free_mem()),
            C::GetCardUid => self.get_card_uid(),
            C::GetFileIds => self.get_file_ids(),
            C::GetIsoFileIds => self.get_iso_file_ids(),
            C::GetFileSettings => self.get_file_settings(params),
            C::ChangeFileSettings => self.change_file_settings(params),
            C::CreateStdDataFile
            | C::CreateBackupDataFile
            | C::CreateValueFile
            | C::CreateLinearRecordFile
            | C::CreateCyclicRecordFile => self.create_file(code, params),
            C::DeleteFile => self.delete_file(params),
            C::ReadData => self.read_data(params),
            C::GetValue => self.get_value(params),
            C::Credit | C::Debit | C::LimitedCredit => self.change_value(code, params),
            C::ReadRecords => self.read_records(params),
            C::ClearRecordFile => self.clear_record_file(params),
            C::CommitTransaction => self.commit_transaction(),
            C::AbortTransaction => self.abort_transaction(),
            _ => Err(Status::IllegalCommandCode.into()),
        }
    }
}
