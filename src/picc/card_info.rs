//! GetVersion, FreeMem and GetCardUID.

use super::card::Card;
use super::reply::{Refusal, Reply};
use super::session::Padding;
use crate::wire::{CommMode, Status, U24, Uid};

impl Card {
    /// Three frames; the UID is hidden in random-ID mode.
    pub(super) fn get_version(&self) -> Reply {
        let mut version = *self.state().version();
        if self.state().random_id() {
            version.uid = Uid::HIDDEN;
        }
        let (hardware, software, production) = version.to_frames();
        Reply::frames([hardware.to_vec(), software.to_vec(), production.to_vec()].to_vec())
    }

    pub(super) fn free_mem(&self) -> Reply {
        let free = U24::new(self.state().free_memory()).unwrap_or(U24::ZERO);
        Reply::data(free.to_bytes().to_vec())
    }

    /// The real UID, for whoever has authenticated with any key.
    pub(super) fn get_card_uid(&self) -> Result<Reply, Refusal> {
        if self.field.session.is_none() {
            return Err(Status::AuthenticationError.into());
        }
        let uid = self.state().version().uid.0.to_vec();
        Ok(Reply::in_mode(uid, CommMode::Enciphered, Padding::Zeros))
    }
}
