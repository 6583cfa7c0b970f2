//! Putting a purse on a card.

use super::header::{HEADER_LEN, Header};
use super::history::HISTORY_LEN;
use super::open::{read_header, read_newest, read_value, require_clean};
use super::record::{Kind, RECORD_LEN, Record};
use super::{Evidence, Purse, PurseError, Refusal, Stamp};
use crate::pcd::{AsyncTransport, Authenticated, Machine as _, Procedure, Session};
use crate::wire::{Access, AccessRights, CommMode, FileDetail, FileNo, KeyNo, U24, ValueFlags};

/// Makes the files: see [`Purse::create`].
#[must_use = "this does nothing until it is run"]
#[derive(Debug)]
pub struct Create<'s> {
    purse: Purse,
    session: &'s mut Session<Authenticated>,
    debit: KeyNo,
    credit: KeyNo,
}

impl Procedure for Create<'_> {
    type Output = ();
    type Error<E> = PurseError<E>;

    async fn run_async<T>(self, transport: &mut T) -> Result<(), PurseError<T::Error>>
    where
        T: AsyncTransport + ?Sized,
    {
        let Self {
            purse,
            session,
            debit,
            credit,
        } = self;
        // Under D40 nothing would prove what the files are.
        require_clean(session)?;
        let there = session.get_file_ids().run_async(transport).await?;
        let rights = AccessRights {
            read: Access::Key(debit),
            write: Access::Never,
            read_write: Access::Key(credit),
            change: Access::Key(KeyNo::MASTER),
        };
        let log_rights = AccessRights {
            write: Access::Key(debit),
            ..rights
        };
        let mode = CommMode::Enciphered;
        let size = |len| U24::from_len(len).unwrap_or(U24::ZERO);
        let (header_len, record_len) = (size(HEADER_LEN), size(RECORD_LEN));
        // One more than can be read: the one that is being written.
        let records = size(HISTORY_LEN.saturating_add(1));
        let limit = purse.limit.get();
        if there.contains(&purse.header) {
            let detail = FileDetail::BackupData { size: header_len };
            require_file(session, transport, purse.header, rights, detail).await?;
        } else {
            session
                .create_backup_data_file(purse.header, None, mode, rights, header_len)
                .run_async(transport)
                .await?;
        }
        if there.contains(&purse.value) {
            let detail = FileDetail::Value {
                lower: 0,
                upper: limit,
                limited_credit: 0,
                flags: ValueFlags::empty(),
            };
            require_file(session, transport, purse.value, rights, detail).await?;
        } else {
            session
                .create_value_file(purse.value, mode, rights, 0..=limit, 0, ValueFlags::empty())
                .run_async(transport)
                .await?;
        }
        if there.contains(&purse.log) {
            let detail = FileDetail::CyclicRecord {
                record_size: record_len,
                max_records: records,
                current_records: U24::ZERO,
            };
            require_file(session, transport, purse.log, log_rights, detail).await?;
        } else {
            session
                .create_cyclic_record_file(purse.log, None, mode, log_rights, record_len, records)
                .run_async(transport)
                .await?;
        }
        Ok(())
    }
}

/// That a file which is there already is the one that would be made. Whoever could make files here before
/// may have made it, with rights of his own.
async fn require_file<T>(
    session: &mut Session<Authenticated>,
    transport: &mut T,
    file: FileNo,
    rights: AccessRights,
    detail: FileDetail,
) -> Result<(), PurseError<T::Error>>
where
    T: AsyncTransport + ?Sized,
{
    let found = session.get_file_settings(file);
    let found = found.run_async(transport).await?;
    // What it holds is looked at by Initialise and Open.
    let there = match found.detail {
        FileDetail::Value {
            lower,
            upper,
            flags,
            ..
        } => FileDetail::Value {
            lower,
            upper,
            limited_credit: 0,
            flags,
        },
        FileDetail::CyclicRecord {
            record_size,
            max_records,
            ..
        } => FileDetail::CyclicRecord {
            record_size,
            max_records,
            current_records: U24::ZERO,
        },
        other => other,
    };
    if there == detail && found.rights == rights && found.comm.mode() == CommMode::Enciphered {
        Ok(())
    } else {
        Err(Evidence::File { file }.into())
    }
}

/// Opens the purse's book: see [`Purse::initialise`].
#[must_use = "this does nothing until it is run"]
#[derive(Debug)]
pub struct Initialise<'s> {
    purse: Purse,
    session: &'s mut Session<Authenticated>,
    id: u64,
    stamp: Stamp,
}

impl Procedure for Initialise<'_> {
    type Output = ();
    type Error<E> = PurseError<E>;

    async fn run_async<T>(self, transport: &mut T) -> Result<(), PurseError<T::Error>>
    where
        T: AsyncTransport + ?Sized,
    {
        let Self {
            purse,
            session,
            id,
            stamp,
        } = self;
        require_clean(session)?;
        let uid = session.get_card_uid().run_async(transport).await?;
        let header = Header { uid, id };
        let found = read_header(&purse, session, transport).await?;
        match Header::check(&found, uid) {
            // Done before, and only the answer was lost; or somebody else's.
            Ok(found) if found == header => {
                return require_unused(&purse, session, transport).await;
            }
            Ok(_) => return Err(Evidence::Rewritten.into()),
            Err(Evidence::Blank) => {}
            Err(evidence) => return Err(evidence.into()),
        }
        let mode = CommMode::Enciphered;
        let value = read_value(&purse, session, transport).await?;
        if value != 0 {
            return Err(Evidence::Disagree { value, recorded: 0 }.into());
        }
        let mut transaction = session.transaction();
        // The header last: whoever is on the link can commit a half of it, and without a header this is
        // simply run again.
        transaction
            .write_record(purse.log, 0, &Record::opening(stamp).to_bytes())
            .comm_mode(mode)
            .run_async(transport)
            .await
            .map_err(PurseError::changing)?;
        transaction
            .write_data(purse.header, 0, &header.to_bytes())
            .comm_mode(mode)
            .run_async(transport)
            .await
            .map_err(PurseError::Unsettled)?;
        let commit = transaction.commit().run_async(transport).await;
        commit.map_err(PurseError::Unsettled)
    }
}

/// That a purse which is there already holds its opening and nothing else: what somebody has put into it
/// before is no money.
async fn require_unused<T>(
    purse: &Purse,
    session: &mut Session<Authenticated>,
    transport: &mut T,
) -> Result<(), PurseError<T::Error>>
where
    T: AsyncTransport + ?Sized,
{
    let value = read_value(purse, session, transport).await?;
    let newest = read_newest(purse, session, transport).await?;
    let recorded = newest.balance.get();
    if value != recorded {
        Err(Evidence::Disagree { value, recorded }.into())
    } else if newest.kind == Kind::Opening {
        Ok(())
    } else {
        Err(Refusal::InUse.into())
    }
}

impl Purse {
    /// Makes the three files, or those of them that are not there yet: a torn run is run again. Those that
    /// are there must be as they would be made.
    ///
    /// The session is one with key 0 of the application, or any if files may be created freely.
    ///
    /// # Errors
    /// Card or reader. [`PurseError::Run`] means here that the purse is not complete; run it again.
    /// [`Evidence::File`] if one of the files is there and is another.
    /// [`Refusal::Messaging`] in a session with D40 messaging, where nothing proves what a file is.
    pub const fn create<'s>(
        &self,
        session: &'s mut Session<Authenticated>,
        debit: KeyNo,
        credit: KeyNo,
    ) -> Create<'s> {
        Create {
            purse: *self,
            session,
            debit,
            credit,
        }
    }

    /// Writes the header for the card in the field and the opening record, in one transaction. If
    /// they are there already, for this card and purse id, and nothing else has happened, it changes
    /// nothing: a torn run is run again.
    ///
    /// The session is one with the credit key.
    ///
    /// # Errors
    /// Card or reader, and then, also after [`PurseError::Unsettled`], run it again; [`Evidence`] if the
    /// card has another purse, or money in a purse that was never opened; [`Refusal::InUse`].
    pub const fn initialise<'s>(
        &self,
        session: &'s mut Session<Authenticated>,
        id: u64,
        stamp: Stamp,
    ) -> Initialise<'s> {
        Initialise {
            purse: *self,
            session,
            id,
            stamp,
        }
    }
}
