//! The issuing desk: makes the master keys once and puts the scheme onto cards.
//!
//! This is the one place where master keys and card keys are seen: ChangeKey's cryptogram needs the
//! new key and a CRC32 over it, and no PKCS#11 mechanism makes that. In the field the desk stands in
//! the personalisation room. Here its master keys live as long as this value and are wiped with it.

use desfire_ev1::wire::{CommMode, KeyFamily, KeyInfo, KeySettings, Uid, ValueFlags, WireError};
use desfire_ev1::{Error, Key, KeyError, Machine as _, RunError, Session, Transport};
use zeroize::Zeroizing;

use crate::scheme::{self, AID, KEY_VERSION, MOST, Scheme};

/// Why a card is not issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError {
    /// The system gives no random numbers.
    #[error("the system gives no random numbers: {0}")]
    Random(#[from] getrandom::Error),
    /// A number out of its range.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// AN10922 does not take this.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The card refuses or says something wrong.
    #[error("the card: {0}")]
    Card(#[from] Error),
    /// The link to the card.
    #[error("the link to the card failed: {0}")]
    Link(String),
}

impl<E: std::fmt::Display> From<RunError<E>> for IssueError {
    fn from(error: RunError<E>) -> Self {
        match error {
            RunError::Protocol(error) => Self::Card(error),
            RunError::Transport { error, .. } => Self::Link(error.to_string()),
            _ => Self::Link("unknown".to_owned()),
        }
    }
}

/// The three master keys.
pub struct Desk {
    scheme: Scheme,
    masters: [Zeroizing<[u8; 16]>; 3],
}

impl Desk {
    /// New master keys from the operating system.
    ///
    /// # Errors
    /// [`IssueError::Random`].
    pub fn new() -> Result<Self, IssueError> {
        let mut masters = [(); 3].map(|()| Zeroizing::new([0; 16]));
        for master in &mut masters {
            getrandom::fill(master.as_mut())?;
        }
        Ok(Self {
            scheme: Scheme::new()?,
            masters,
        })
    }

    /// With these master keys, in the order of [`Desk::masters`].
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn of(masters: [Zeroizing<[u8; 16]>; 3]) -> Result<Self, IssueError> {
        Ok(Self {
            scheme: Scheme::new()?,
            masters,
        })
    }

    /// The scheme.
    #[must_use]
    pub const fn scheme(&self) -> &Scheme {
        &self.scheme
    }

    /// The master keys with their numbers, for loading them into where they are to live.
    pub fn masters(&self) -> impl Iterator<Item = (desfire_ev1::wire::KeyNo, &[u8; 16])> {
        let numbers = [self.scheme.master, self.scheme.redeem, self.scheme.top_up];
        numbers
            .into_iter()
            .zip(self.masters.iter().map(std::ops::Deref::deref))
    }

    /// Puts the application onto a blank card: applications free to create, PICC master key as
    /// delivered.
    ///
    /// # Errors
    /// [`IssueError`].
    pub fn issue<T: Transport + ?Sized>(
        &self,
        vouchers: i32,
        link: &mut T,
    ) -> Result<Uid, IssueError>
    where
        T::Error: std::fmt::Display,
    {
        let scheme = &self.scheme;
        let mut rng = getrandom::SysRng;
        let mut session = Session::new();
        let uid = session.get_version().run(link)?.uid;
        let session = session
            .select_application(desfire_ev1::wire::Aid::PICC)
            .run(link)?;
        let mut session = session
            .authenticate_legacy(scheme.master, &Key::zero(KeyFamily::Des), &mut rng)
            .run(link)?;
        let keys = KeyInfo::new(KeyFamily::Aes, 3)?;
        session
            .create_application(AID, KeySettings::DEFAULT, keys, None)
            .run(link)?;
        let session = session.select_application(AID).run(link)?;
        let blank = Key::aes([0; 16]);
        let mut session = session
            .authenticate_aes(scheme.master, &blank, &mut rng)
            .run(link)?;
        session
            .create_value_file(
                scheme.vouchers,
                CommMode::Enciphered,
                scheme.voucher_rights(),
                0..=MOST,
                vouchers,
                ValueFlags::empty(),
            )
            .run(link)?;
        let (record_size, records) = scheme.records();
        session
            .create_cyclic_record_file(
                scheme.log,
                None,
                CommMode::Mac,
                scheme.log_rights(),
                record_size,
                records,
            )
            .run(link)?;
        let input = scheme::input(&uid);
        for (key_no, master) in self
            .masters()
            .filter(|(key_no, _)| *key_no != scheme.master)
        {
            let key = Key::aes(*master)
                .diversify(&input)?
                .with_version(KEY_VERSION);
            session.change_key(key_no, &blank, &key).run(link)?;
        }
        // The key in use goes last: changing it ends the session.
        let [master, ..] = &self.masters;
        let key = Key::aes(**master)
            .diversify(&input)?
            .with_version(KEY_VERSION);
        let _ = session.change_key_in_use(&key).run(link)?;
        Ok(uid)
    }
}
