//! A shop in one process: an issuing desk, a service, terminals. For the demonstration, the load test
//! and the tests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use desfire_ev1::Key;
use desfire_ev1::split::{BaseKey, InitialKey, Modes, TerminalId};
use desfire_ev1::wire::{Uid, WireError};
use zeroize::Zeroizing;

use crate::issue::{Desk, IssueError};
use crate::keys::{Holder, SoftHolder, TokenError, TokenHolder, TokenSpec};
use crate::scheme::{self, AID};
use crate::service::{Config, Till};
use crate::terminal::{Terminal, publish};

/// Keys in a shop's file: the base key, then the desk's masters.
const IN_FILE: usize = 4;

/// Why there is no shop.
#[derive(Debug, thiserror::Error)]
pub enum ShopError {
    /// See there.
    #[error(transparent)]
    Issue(#[from] IssueError),
    /// See there.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A name that is none.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// There is no terminal of that name.
    #[error("there is no terminal {0:?}")]
    NoTerminal(String),
    /// The shop's file.
    #[error("the shop's file: {0}")]
    File(#[from] std::io::Error),
}

/// The keys of a shop: masters at the desk, the base key of the terminals' transport keys.
pub struct Shop {
    /// The issuing desk.
    pub desk: Arc<Desk>,
    base_key: Zeroizing<[u8; 16]>,
    terminals: Vec<(String, Modes)>,
}

impl Shop {
    /// With new keys, and terminals with these names and modes.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn new(terminals: &[(&str, Modes)]) -> Result<Self, ShopError> {
        Self::of(Arc::new(Desk::new()?), terminals)
    }

    /// With the master keys of this desk.
    ///
    /// # Errors
    /// The system gives no random numbers.
    pub fn of(desk: Arc<Desk>, terminals: &[(&str, Modes)]) -> Result<Self, ShopError> {
        let mut base_key = Zeroizing::new([0; 16]);
        getrandom::fill(base_key.as_mut()).map_err(IssueError::from)?;
        Ok(Self {
            desk,
            base_key,
            terminals: terminals
                .iter()
                .map(|(name, modes)| ((*name).to_owned(), *modes))
                .collect(),
        })
    }

    /// With the keys in this file, which only its owner can read; made with new ones if there is none.
    /// Programs that start at the same time get the same ones.
    ///
    /// # Errors
    /// [`ShopError::File`] if it cannot be read or written, or is none.
    pub fn in_file(path: &Path, terminals: &[(&str, Modes)]) -> Result<Self, ShopError> {
        let bytes = match std::fs::read(path) {
            Ok(bytes) => Zeroizing::new(bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let mut fresh = Zeroizing::new(vec![0; IN_FILE * 16]);
                getrandom::fill(&mut fresh).map_err(IssueError::from)?;
                match publish(path, &fresh) {
                    // Somebody else was faster: theirs are the shop's.
                    Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {
                        Zeroizing::new(std::fs::read(path)?)
                    }
                    published => published.map(|()| fresh)?,
                }
            }
            Err(error) => return Err(error.into()),
        };
        let (keys, rest) = bytes.as_chunks::<16>();
        let [base_key, masters @ ..] = keys else {
            return Err(std::io::Error::from(std::io::ErrorKind::InvalidData).into());
        };
        match masters.try_into() {
            Ok(masters) if rest.is_empty() => {
                let masters: &[[u8; 16]; IN_FILE - 1] = masters;
                let mut shop =
                    Self::of(Arc::new(Desk::of(masters.map(Zeroizing::new))?), terminals)?;
                shop.base_key = Zeroizing::new(*base_key);
                Ok(shop)
            }
            _ => Err(std::io::Error::from(std::io::ErrorKind::InvalidData).into()),
        }
    }

    /// What the terminals' transport keys come from.
    #[must_use]
    pub fn base_key(&self) -> BaseKey {
        BaseKey::new(*self.base_key)
    }

    /// The id of a terminal's initial key: the scheme's, and the terminal's place in the list.
    fn key_id(place: usize) -> [u8; 8] {
        let [a, b, c, d] = u32::try_from(place).unwrap_or(u32::MAX).to_be_bytes();
        [b'V', b'C', b'H', 1, a, b, c, d]
    }

    /// What the service is told.
    ///
    /// # Errors
    /// A name that is none.
    pub fn config(&self) -> Result<Config, ShopError> {
        let mut terminals = HashMap::new();
        for (place, (name, modes)) in self.terminals.iter().enumerate() {
            let till = Till {
                key_id: Self::key_id(place),
                grants: vec![self.desk.scheme().grant(*modes)],
            };
            terminals.insert(TerminalId::new(name.as_bytes())?, till);
        }
        Ok(Config::new(self.base_key(), terminals))
    }

    /// A terminal's initial key: what is loaded into it once.
    ///
    /// # Errors
    /// There is no such terminal.
    pub fn initial_key(&self, name: &str) -> Result<InitialKey, ShopError> {
        let place = self.terminals.iter().position(|(known, _)| known == name);
        let place = place.ok_or_else(|| ShopError::NoTerminal(name.to_owned()))?;
        Ok(self.base_key().initial_key(Self::key_id(place)))
    }

    /// A terminal, fresh from the desk.
    ///
    /// # Errors
    /// There is no such terminal.
    pub fn terminal(&self, name: &str, service: SocketAddr) -> Result<Terminal, ShopError> {
        let id = TerminalId::new(name.as_bytes())?;
        Ok(Terminal::new(id, &self.initial_key(name)?, service)?)
    }

    /// The redeeming master key, where it is to live: it is all that the service needs.
    ///
    /// # Errors
    /// The token.
    pub fn holder(&self, token: Option<&TokenSpec>) -> Result<Arc<dyn Holder>, ShopError> {
        let redeem = self.desk.scheme().redeem;
        let Some(spec) = token else {
            let masters = self.desk.masters();
            let masters = masters.filter(|(key_no, _)| *key_no == redeem);
            let masters = masters.map(|(key_no, key)| (key_no, Key::aes(*key)));
            return Ok(Arc::new(SoftHolder::new(masters.collect())));
        };
        let token = TokenHolder::open(spec)?;
        for (key_no, key) in self.desk.masters().filter(|(key_no, _)| *key_no == redeem) {
            token.load(AID, key_no, key, &scheme::input(&Uid::HIDDEN))?;
        }
        Ok(Arc::new(token))
    }
}
