//! SelectApplication (`5A`): makes an application, or the PICC level, the one that commands are
//! about.
//!
//! | request | reply |
//! |---|---|
//! | AID 3 | – |
//!
//! No CMAC in either direction: the selection ends whatever session there was, even if the
//! application was selected already, and drops pending changes. Source: libfreefare
//! `mifare_desfire_select_application`; recorded by all.

use super::{Command, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::channel::{ReplyProtection, RequestProtection};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session, Unauthenticated};
use crate::wire::{Aid, CommandCode, WireError, Writer};

/// SelectApplication (`5A`): see [`Session::select_application`].
#[derive(Debug)]
pub struct SelectApplication {
    aid: Aid,
}

impl Command for SelectApplication {
    type Output = Session<Unauthenticated>;
    const CODE: CommandCode = CommandCode::SelectApplication;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.put(&self.aid.to_bytes())
    }

    fn protection(&self, _inner: &Inner) -> Result<Protection<'_>, Misuse> {
        Ok(Protection {
            request: RequestProtection::Plain,
            reply: ReplyProtection::None,
        })
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<Self::Output, ErrorKind> {
        nothing(len)?;
        Ok(Session::at_level(self.aid))
    }
}

impl<S> Session<S> {
    /// Selects an application, or the PICC level with [`Aid::PICC`]. Works from any state, also
    /// from a lost session; its keys are wiped before anything is sent.
    ///
    /// After a chain that was left unfinished the card answers `CA` once and selects at the
    /// second try. After a refusal select again: which application a card then has selected
    /// differs between cards.
    ///
    /// ```
    /// use desfire_ev1::{Machine, Session, VirtualReader, wire::{Aid, Status}};
    ///
    /// let mut reader = VirtualReader::demo();
    /// let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// assert_eq!(session.selected(), Some(VirtualReader::DEMO_AID));
    ///
    /// let error = session.select_application(Aid::new(0x404)?).run(&mut reader).unwrap_err();
    /// assert_eq!(error.protocol().and_then(|error| error.status()), Some(Status::ApplicationNotFound));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn select_application(
        self,
        aid: Aid,
    ) -> Exchange<Session<Unauthenticated>, SelectApplication> {
        // The card still has its keys until it has selected; these here are wiped now.
        drop(self);
        Exchange::new(Session::new(), Ok(SelectApplication { aid }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, session, wrapped};
    use crate::error::{ErrorKind, Misuse, Outcome};
    use crate::pcd::key::Key;
    use crate::pcd::session::Session;
    use crate::wire::{Aid, AuthScheme, Status};

    #[test]
    fn literal_bytes() {
        let aid = Aid::new(0x00_DE16).unwrap();
        let script = [("5a 16de00", "00")];
        let selected = native(Session::new().select_application(aid), &script).unwrap();
        assert_eq!(selected.selected(), Some(aid));
        assert!(wrapped(Session::new().select_application(aid), &script).is_ok());
        let error = native(
            Session::new().select_application(aid),
            &[("5a 16de00", "a0")],
        )
        .unwrap_err();
        assert_eq!(
            (error.kind, error.outcome),
            (
                ErrorKind::Refused(Status::ApplicationNotFound),
                Outcome::Refused
            )
        );
    }

    #[test]
    fn a_lost_session_selects_in_clear_and_starts_anew() {
        let key = Key::aes([0; 16]);
        let nonce = "000102030405060708090a0b0c0d0e0f";
        let mut live = session(AuthScheme::Aes, &key, nonce, nonce, 1);
        // A refusal ends the session on the card.
        let error = native(live.free_mem(), &[("6e", "ae")]).unwrap_err();
        assert_eq!(error.outcome, Outcome::Refused);
        assert!(live.is_lost());
        let error = refused_unsent(live.free_mem());
        assert_eq!(error.kind, Misuse::SessionLost.into());
        let fresh = native(live.select_application(Aid::PICC), &[("5a 000000", "00")]).unwrap();
        assert!(!fresh.is_lost());
    }
}
