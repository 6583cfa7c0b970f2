//! The key holder: who authenticates to a card.
//!
//! For: keeping the master key of the crediting key in one place with one way in. May know: keys.
//! May not know: books, what is done in the session.

use desfire_ev1::wire::Uid;
use desfire_ev1::{Authenticated, Key, KeyError, Machine as _, RunError, Session, Unauthenticated};

use crate::card::Layout;
use crate::link::{LinkError, PhoneLink, Pipe};

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum KeyHolderError {
    /// Card, phone, or the proof of the card's key.
    #[error(transparent)]
    Run(#[from] RunError<LinkError>),
    /// The holder itself.
    #[error("the key holder has no key for this card: {0}")]
    Key(#[from] KeyError),
}

/// Opens sessions with the crediting key of a card. A holder with a token behind it (PKCS#11) takes
/// the place of [`SoftwareKeys`]; nothing else in the server sees a key.
pub trait KeyHolder: Send + Sync + 'static {
    /// Authenticates to the card that says its UID is `uid`, with the key of that card. Only that card
    /// can take part: success proves the UID.
    fn authenticate<P: Pipe>(
        &self,
        layout: &Layout,
        uid: Uid,
        session: Session<Unauthenticated>,
        link: &mut PhoneLink<P>,
    ) -> impl Future<Output = Result<Session<Authenticated>, KeyHolderError>> + Send;
}

/// The master key in this process's memory, wiped when it ends.
pub struct SoftwareKeys {
    credit: Key,
}

impl SoftwareKeys {
    /// With the master key of the crediting keys.
    #[must_use]
    pub const fn new(credit: Key) -> Self {
        Self { credit }
    }
}

impl KeyHolder for SoftwareKeys {
    async fn authenticate<P: Pipe>(
        &self,
        layout: &Layout,
        uid: Uid,
        session: Session<Unauthenticated>,
        link: &mut PhoneLink<P>,
    ) -> Result<Session<Authenticated>, KeyHolderError> {
        let key = layout.card_key(&self.credit, layout.credit, uid)?;
        let session = session
            .authenticate_aes(layout.credit, &key, &mut getrandom::SysRng)
            .run_async(link)
            .await?;
        Ok(session)
    }
}
