//! The master key in a PKCS#11 token, which it never leaves.
//!
//! What lies in the token, and what it does and does not protect from, is told in the `voucher` package:
//! it is the same code. The token derives the card's key and computes the handshake with it; this
//! process sees nonces and the session's key, never a card's key. A derived key lives in the token as
//! long as one computation does, not as long as a phone takes.

use std::sync::Arc;
use std::time::Duration;

use desfire_ev1::split::{
    AsyncCbcKey, AuthenticateError, CbcDirection, CbcKey as _, authenticate_async,
};
use desfire_ev1::wire::{AuthScheme, KeyNo, KeyType, Uid};
use desfire_ev1::{Authenticated, Session, Unauthenticated};
use tokio::sync::Semaphore;
use voucher::keys::{Holder as _, TokenError, TokenHolder, TokenSpec};
use zeroize::Zeroizing;

use super::{KeyHolder, KeyHolderError};
use crate::card::{INPUT_LEN, Layout};
use crate::link::{PhoneLink, Pipe};

/// Computations in the token at once, each in a thread and a PKCS#11 session of its own.
const AT_ONCE: usize = 8;
/// How long a computation may take, the wait for its turn included.
const PATIENCE: Duration = Duration::from_secs(5);

/// The master key in a token.
#[derive(Clone)]
pub struct TokenKeys {
    token: TokenHolder,
    turns: Arc<Semaphore>,
}

impl TokenKeys {
    /// Opens the token. A process can do so once.
    ///
    /// # Errors
    /// There is no such token, the PIN is wrong, or it does not compute what it should.
    pub fn open(spec: &TokenSpec) -> Result<Self, TokenError> {
        Ok(Self {
            token: TokenHolder::open(spec)?,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        })
    }

    /// Puts the master key of the crediting keys into the token, in place of one that is there.
    ///
    /// # Errors
    /// The token does not take it.
    pub fn load(&self, layout: &Layout, credit: &[u8; 16]) -> Result<(), TokenError> {
        // All inputs begin alike; that is what the token has to know beforehand.
        let input = layout.input(layout.credit, Uid::HIDDEN);
        self.token.load(layout.aid, layout.credit, credit, &input)
    }

    /// Calls of a token block: they have threads of their own. One that does not come back keeps its
    /// turn, so that no more than [`AT_ONCE`] threads hang.
    async fn call<O: Send + 'static>(
        &self,
        call: impl FnOnce(&TokenHolder) -> Result<O, String> + Send + 'static,
    ) -> Result<O, KeyHolderError> {
        let token = self.token.clone();
        let called = async {
            let turn = self.turns.clone().acquire_owned().await;
            let turn = turn.map_err(|error| error.to_string())?;
            let called = tokio::task::spawn_blocking(move || {
                let _turn = turn;
                call(&token)
            });
            called.await.map_err(|error| error.to_string())?
        };
        tokio::time::timeout(PATIENCE, called)
            .await
            .unwrap_or_else(|_| Err("no answer in time".to_owned()))
            .map_err(KeyHolderError::Down)
    }
}

impl KeyHolder for TokenKeys {
    async fn authenticate<P: Pipe>(
        &self,
        layout: &Layout,
        uid: Uid,
        session: Session<Unauthenticated>,
        link: &mut PhoneLink<P>,
    ) -> Result<Session<Authenticated>, KeyHolderError> {
        let mut key = CardKey {
            keys: self,
            layout: *layout,
            input: layout.input(layout.credit, uid),
        };
        let (scheme, key_no) = (AuthScheme::Aes, layout.credit);
        let mut rng = getrandom::SysRng;
        authenticate_async(session, scheme, key_no, &mut key, &mut rng, link)
            .await
            .map_err(|error| match error {
                AuthenticateError::Key(error) => error,
                AuthenticateError::Run(error) => error.into(),
                _ => KeyHolderError::Down("an unknown error".to_owned()),
            })
    }

    async fn check(&self) -> Result<(), KeyHolderError> {
        self.call(|token| token.check().map_err(|error| error.to_string()))
            .await
    }
}

/// A card's key, derived in the token for every computation.
struct CardKey<'k> {
    keys: &'k TokenKeys,
    layout: Layout,
    input: [u8; INPUT_LEN],
}

impl AsyncCbcKey for CardKey<'_> {
    type Error = KeyHolderError;

    fn key_type(&self) -> KeyType {
        KeyType::Aes
    }

    async fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), KeyHolderError> {
        let (aid, key_no, input): (_, KeyNo, _) = (self.layout.aid, self.layout.credit, self.input);
        let (iv, mut block) = (iv.to_vec(), Zeroizing::new(data.to_vec()));
        let computed = self.keys.call(move |token| {
            let key = token.derive(aid, key_no, &input);
            let mut key = key.map_err(|error| error.to_string())?;
            let done = key.cbc(direction, &iv, &mut block);
            done.map_err(|error| error.to_string())?;
            Ok(block)
        });
        data.copy_from_slice(&computed.await?);
        Ok(())
    }
}
