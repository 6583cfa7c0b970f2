//! The key holder: who authenticates to a card.
//!
//! For: keeping the master key of the crediting key in one place with one way in: this process's
//! memory, or a PKCS#11 token. May know: keys. May not know: books, what is done in the session.

mod token;

pub use token::TokenKeys;

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
    /// The holder does not work, or not in time. The text is for the log.
    #[error("the key holder does not work: {0}")]
    Down(String),
}

/// Opens sessions with the crediting key of a card; nothing else in the server sees a key.
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

    /// Whether it works: asked by the health page.
    ///
    /// # Errors
    /// [`KeyHolderError::Down`].
    fn check(&self) -> impl Future<Output = Result<(), KeyHolderError>> + Send;
}

/// Either of the two.
pub enum Keys {
    /// In this process.
    Software(SoftwareKeys),
    /// In a token.
    Token(TokenKeys),
}

impl KeyHolder for Keys {
    async fn authenticate<P: Pipe>(
        &self,
        layout: &Layout,
        uid: Uid,
        session: Session<Unauthenticated>,
        link: &mut PhoneLink<P>,
    ) -> Result<Session<Authenticated>, KeyHolderError> {
        match self {
            Self::Software(keys) => keys.authenticate(layout, uid, session, link).await,
            Self::Token(keys) => Box::pin(keys.authenticate(layout, uid, session, link)).await,
        }
    }

    async fn check(&self) -> Result<(), KeyHolderError> {
        match self {
            Self::Software(keys) => keys.check().await,
            Self::Token(keys) => keys.check().await,
        }
    }
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

    async fn check(&self) -> Result<(), KeyHolderError> {
        Ok(())
    }
}
