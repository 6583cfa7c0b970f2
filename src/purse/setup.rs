//! Putting a purse on a card.

use super::header::{HEADER_LEN, Header};
use super::history::HISTORY_LEN;
use super::open::{read_header, require_clean};
use super::record::{RECORD_LEN, Record};
use super::{Evidence, Purse, PurseError, Stamp};
use crate::pcd::{AsyncTransport, Authenticated, Machine as _, Procedure, Session};
use crate::wire::{Access, AccessRights, CommMode, KeyNo, U24, ValueFlags};

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
        if !there.contains(&purse.header) {
            session
                .create_backup_data_file(purse.header, None, mode, rights, size(HEADER_LEN))
                .run_async(transport)
                .await?;
        }
        if !there.contains(&purse.value) {
            let limits = 0..=purse.limit.get();
            session
                .create_value_file(purse.value, mode, rights, limits, 0, ValueFlags::empty())
                .run_async(transport)
                .await?;
        }
        if !there.contains(&purse.log) {
            // One more than can be read: the one that is being written.
            let records = HISTORY_LEN.saturating_add(1);
            session
                .create_cyclic_record_file(
                    purse.log,
                    None,
                    mode,
                    log_rights,
                    size(RECORD_LEN),
                    size(records),
                )
                .run_async(transport)
                .await?;
        }
        Ok(())
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
            Ok(found) if found == header => return Ok(()),
            Ok(_) => return Err(Evidence::Rewritten.into()),
            Err(Evidence::Blank) => {}
            Err(evidence) => return Err(evidence.into()),
        }
        let mode = CommMode::Enciphered;
        let value = session.get_value(purse.value).comm_mode(mode);
        let value = value.run_async(transport).await?;
        if value != 0 {
            return Err(Evidence::Disagree { value, recorded: 0 }.into());
        }
        let mut transaction = session.transaction();
        transaction
            .write_data(purse.header, 0, &header.to_bytes())
            .comm_mode(mode)
            .run_async(transport)
            .await
            .map_err(PurseError::changing)?;
        transaction
            .write_record(purse.log, 0, &Record::opening(stamp).to_bytes())
            .comm_mode(mode)
            .run_async(transport)
            .await
            .map_err(PurseError::Unsettled)?;
        let commit = transaction.commit().run_async(transport).await;
        commit.map_err(PurseError::Unsettled)
    }
}

impl Purse {
    /// Makes the three files, or those of them that are not there yet: a torn run is run again.
    ///
    /// The session is one with key 0 of the application, or any if files may be created freely.
    ///
    /// # Errors
    /// Card or reader. [`PurseError::Run`] means here that the purse is not complete; run it again.
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
    /// they are there already, for this card and purse id, it changes nothing: a torn run is run
    /// again.
    ///
    /// The session is one with the credit key.
    ///
    /// # Errors
    /// Card or reader, and then, also after [`PurseError::Unsettled`], run it again; [`Evidence`] if the
    /// card has another purse, or money in a purse that was never opened.
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
