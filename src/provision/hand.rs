//! The hand on the card: where it is, and as whom.
//!
//! For: going to a level, proving a key, and asking either kind of session for the same thing. It
//! keeps the session and nothing else; what the answers mean is for others.

use rand_core::TryCryptoRng;

use super::counted::Counted;
use crate::error::{Error, ErrorKind, Malformed, Misuse};
use crate::wire::{
    Aid, AuthScheme, CommandCode, FileNo, FileSettings, IsoFileId, KeyInfo, KeyNo, KeySettings,
    KeyType, Status, Uid, Version,
};
use crate::{AsyncTransport, Authenticated, Key, Machine as _, RunError, Session, Unauthenticated};
use alloc::vec;
use alloc::vec::Vec;

use crate::command::NamedApplication;

/// Room for GetDFNames: 28 applications of 21 bytes.
const DF_NAMES: usize = 28 * 21;

enum Held {
    /// Whatever was there is gone: select first.
    Nothing,
    Nobody(Session<Unauthenticated>),
    Somebody(Session<Authenticated>),
}

pub(super) struct Hand<'a, T: AsyncTransport + ?Sized, R: ?Sized> {
    pub(super) wire: Counted<'a, T>,
    rng: &'a mut R,
    held: Held,
}

/// The same command over either session.
macro_rules! ask {
    ($hand:expr, $session:ident => $command:expr) => {
        match &mut $hand.held {
            Held::Somebody($session) => $command.run_async(&mut $hand.wire).await,
            Held::Nobody($session) => $command.run_async(&mut $hand.wire).await,
            Held::Nothing => Err(nowhere()),
        }
    };
}

/// A command after one that has lost the session.
fn nowhere<E>() -> RunError<E> {
    Error::not_sent(CommandCode::SelectApplication, Misuse::SessionLost).into()
}

/// Whether the card's challenge is that of a key with another block or nonce: AuthenticateISO with a
/// 3K3DES key where the card has a DES key, or the other way round.
fn is_of_another_size<E>(error: &RunError<E>) -> bool {
    let RunError::Protocol(error) = error else {
        return false;
    };
    matches!(
        error.kind,
        ErrorKind::Malformed(Malformed::Length {
            expected: 8 | 16,
            received: 8 | 16,
        })
    )
}

type Answer<V, T> = Result<V, RunError<<T as crate::Link>::Error>>;

impl<'a, T, R> Hand<'a, T, R>
where
    T: AsyncTransport + ?Sized,
    R: TryCryptoRng + ?Sized,
{
    pub(super) const fn new(transport: &'a mut T, rng: &'a mut R) -> Self {
        Self {
            wire: Counted::new(transport),
            rng,
            held: Held::Nothing,
        }
    }

    fn lost(&self) -> bool {
        match &self.held {
            Held::Nothing => true,
            Held::Nobody(session) => session.is_lost(),
            Held::Somebody(session) => session.is_lost(),
        }
    }

    fn selected(&self) -> Option<Aid> {
        match &self.held {
            _ if self.lost() => None,
            Held::Nothing => None,
            Held::Nobody(session) => session.selected(),
            Held::Somebody(session) => session.selected(),
        }
    }

    /// Selects, so that nobody is authenticated and nothing is pending.
    ///
    /// A card whose last answer was lost may be in the middle of a chain, and then only drops that: it
    /// is asked a second time, as this changes nothing that lasts.
    pub(super) async fn select(&mut self, aid: Aid) -> Answer<(), T> {
        self.held = Held::Nothing;
        let selecting = Session::new().select_application(aid);
        let session = match selecting.run_async(&mut self.wire).await {
            Err(error) if error.status() == Some(Status::CommandAborted) => {
                let selecting = Session::new().select_application(aid);
                selecting.run_async(&mut self.wire).await?
            }
            other => other?,
        };
        self.held = Held::Nobody(session);
        Ok(())
    }

    /// Goes to a level, if the hand is not there, as whomever.
    pub(super) async fn go_to(&mut self, aid: Aid) -> Answer<(), T> {
        if self.selected() == Some(aid) {
            return Ok(());
        }
        self.select(aid).await
    }

    /// Goes to a level as nobody, if the hand is not that already.
    pub(super) async fn be_nobody(&mut self, aid: Aid) -> Answer<(), T> {
        if matches!(self.held, Held::Nobody(_)) && self.selected() == Some(aid) {
            return Ok(());
        }
        self.select(aid).await
    }

    /// Authenticates, if that is not done already; whether the card took the key.
    pub(super) async fn be(&mut self, aid: Aid, key_no: KeyNo, key: &Key) -> Answer<bool, T> {
        if let Held::Somebody(session) = &self.held
            && self.selected() == Some(aid)
            && session.key_in_use() == key_no
        {
            return Ok(true);
        }
        self.prove(aid, key_no, key).await
    }

    /// Authenticates; whether the card took the key. A key that it does not take changes nothing
    /// on the card.
    pub(super) async fn prove(&mut self, aid: Aid, key_no: KeyNo, key: &Key) -> Answer<bool, T> {
        self.go_to(aid).await?;
        let scheme = match key.key_type() {
            KeyType::Aes => AuthScheme::Aes,
            KeyType::Des | KeyType::TwoKey3Des | KeyType::ThreeKey3Des => AuthScheme::Iso,
        };
        let machine = match core::mem::replace(&mut self.held, Held::Nothing) {
            Held::Nothing => {
                let session = Session::at_level(aid);
                session.authenticate(scheme, key_no, key, self.rng)
            }
            Held::Nobody(session) => session.authenticate(scheme, key_no, key, self.rng),
            Held::Somebody(session) => session.authenticate(scheme, key_no, key, self.rng),
        };
        match machine.run_async(&mut self.wire).await {
            Ok(session) => {
                self.held = Held::Somebody(session);
                Ok(true)
            }
            Err(error)
                if matches!(
                    error.status(),
                    Some(Status::AuthenticationError | Status::NoSuchKey)
                ) =>
            {
                // Still selected, and nobody.
                self.held = Held::Nobody(Session::at_level(aid));
                Ok(false)
            }
            Err(error) if is_of_another_size(&error) => {
                // The card waits for the rest of the handshake: selecting drops it.
                self.select(aid).await?;
                Ok(false)
            }
            Err(error) => Err(error),
        }
    }

    /// The authenticated session, for what needs one.
    pub(super) fn somebody(
        &mut self,
    ) -> Option<(&mut Session<Authenticated>, &mut Counted<'a, T>)> {
        match &mut self.held {
            Held::Somebody(session) => Some((session, &mut self.wire)),
            Held::Nothing | Held::Nobody(_) => None,
        }
    }

    /// Changes the key that is in use; afterwards nobody is authenticated.
    pub(super) async fn change_key_in_use(&mut self, new: &Key) -> Option<Answer<(), T>> {
        let Held::Somebody(session) = core::mem::replace(&mut self.held, Held::Nothing) else {
            return None;
        };
        let machine = if session.selected() == Some(Aid::PICC) {
            session.change_picc_master_key_and_type(new)
        } else {
            session.change_key_in_use(new)
        };
        Some(match machine.run_async(&mut self.wire).await {
            Ok(session) => {
                self.held = Held::Nobody(session);
                Ok(())
            }
            Err(error) => Err(error),
        })
    }

    pub(super) async fn version(&mut self) -> Answer<Version, T> {
        ask!(self, session => session.get_version())
    }

    pub(super) async fn free_memory(&mut self) -> Answer<u32, T> {
        ask!(self, session => session.free_mem())
    }

    pub(super) async fn key_version(&mut self, key_no: KeyNo) -> Answer<u8, T> {
        ask!(self, session => session.get_key_version(key_no))
    }

    pub(super) async fn key_settings(&mut self) -> Answer<(KeySettings, KeyInfo), T> {
        ask!(self, session => session.get_key_settings())
    }

    pub(super) async fn aids(&mut self) -> Answer<Vec<Aid>, T> {
        let ids = ask!(self, session => session.get_application_ids())?;
        Ok(ids.to_vec())
    }

    pub(super) async fn df_names(&mut self) -> Answer<Vec<NamedApplication>, T> {
        let mut buffer = vec![0; DF_NAMES];
        let names = ask!(self, session => session.get_df_names(&mut buffer))?;
        Ok(names.collect())
    }

    pub(super) async fn file_ids(&mut self) -> Answer<Vec<FileNo>, T> {
        let ids = ask!(self, session => session.get_file_ids())?;
        Ok(ids.to_vec())
    }

    pub(super) async fn iso_file_ids(&mut self) -> Answer<Vec<IsoFileId>, T> {
        let ids = ask!(self, session => session.get_iso_file_ids())?;
        Ok(ids.to_vec())
    }

    pub(super) async fn file_settings(&mut self, file: FileNo) -> Answer<FileSettings, T> {
        ask!(self, session => session.get_file_settings(file))
    }

    pub(super) async fn read_data(&mut self, file: FileNo, buffer: &mut [u8]) -> Answer<(), T> {
        let end = u32::try_from(buffer.len()).unwrap_or(u32::MAX);
        ask!(self, session => session.read_data(file, 0..end, buffer)).map(|_| ())
    }

    pub(super) async fn read_records(
        &mut self,
        file: FileNo,
        count: u32,
        record_size: u32,
        buffer: &mut [u8],
    ) -> Answer<(), T> {
        ask!(self, session => session.read_records(file, 0, count, record_size, buffer)).map(|_| ())
    }

    pub(super) async fn value(&mut self, file: FileNo) -> Answer<i32, T> {
        ask!(self, session => session.get_value(file))
    }

    /// The real UID, enciphered; nothing if nobody is authenticated.
    pub(super) async fn card_uid(&mut self) -> Answer<Option<Uid>, T> {
        let Some((session, wire)) = self.somebody() else {
            return Ok(None);
        };
        session.get_card_uid().run_async(wire).await.map(Some)
    }
}
