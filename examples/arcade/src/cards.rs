//! The keys of the house, and putting a purse on a fresh card: everything by the library's
//! commands, as it would be done on a reader.

use desfire_ev1::purse::{Purse, PurseError, Stamp};
use desfire_ev1::wire::{Aid, Amount, FileNo, KeyFamily, KeyInfo, KeyNo, KeySettings, Uid};
use desfire_ev1::{Key, KeyError, Machine, Procedure, RunError, Session, Transport};
use rand::CryptoRng;

/// The arcade's application.
pub const AID: Aid = Aid::from_bytes([0x1C, 0xCA, 0xDE]);

/// The most that a card may hold: 200.00.
pub const LIMIT: i32 = 20_000;

/// The keys of the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Key 0: makes files, changes keys. Stays in the workshop.
    Master,
    /// Key 1: reads and takes out. In every machine.
    Debit,
    /// Key 2: puts in. In the cashier's desks.
    Credit,
}

impl Role {
    /// Its key number.
    #[must_use]
    pub const fn key_no(self) -> KeyNo {
        let number = match self {
            Self::Master => 0,
            Self::Debit => 1,
            Self::Credit => 2,
        };
        match KeyNo::new(number) {
            Ok(key_no) => key_no,
            Err(_) => KeyNo::MASTER,
        }
    }
}

/// The house's master keys, of which every card has its own, made with its UID (AN10922): so the
/// handshake proves the UID.
pub struct House {
    master: Key,
    debit: Key,
    credit: Key,
}

impl House {
    /// From a seed. A real house draws its keys, and keeps them in a token.
    pub fn new(rng: &mut impl CryptoRng) -> Self {
        let mut draw = || {
            let mut bytes = [0; 16];
            rng.fill_bytes(&mut bytes);
            Key::aes(bytes)
        };
        Self {
            master: draw(),
            debit: draw(),
            credit: draw(),
        }
    }

    /// One card's key.
    ///
    /// # Errors
    /// None for AES keys and this input.
    pub fn key(&self, role: Role, uid: Uid) -> Result<Key, KeyError> {
        let master = match role {
            Role::Master => &self.master,
            Role::Debit => &self.debit,
            Role::Credit => &self.credit,
        };
        let mut input = uid.0.to_vec();
        input.extend(AID.to_bytes());
        input.push(role.key_no().number());
        Ok(master.diversify(&input)?.with_version(1))
    }
}

/// Where the purse is in the application.
///
/// # Errors
/// None: the numbers are in range.
pub fn purse() -> Result<Purse, desfire_ev1::wire::WireError> {
    Ok(Purse {
        header: FileNo::new(1)?,
        value: FileNo::new(2)?,
        log: FileNo::new(3)?,
        limit: Amount::new(LIMIT)?,
    })
}

/// Why a card could not be issued.
#[derive(Debug, thiserror::Error)]
pub enum IssueError<E: std::error::Error + 'static> {
    /// A command.
    #[error(transparent)]
    Run(#[from] RunError<E>),
    /// The purse.
    #[error(transparent)]
    Purse(#[from] PurseError<E>),
    /// A key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// A number out of range.
    #[error(transparent)]
    Wire(#[from] desfire_ev1::wire::WireError),
}

/// Puts the application, its keys, and an empty purse on a fresh card.
///
/// # Errors
/// Card or reader.
pub fn issue<T>(
    reader: &mut T,
    house: &House,
    uid: Uid,
    purse_id: u64,
    now: u32,
    rng: &mut impl CryptoRng,
) -> Result<(), IssueError<T::Error>>
where
    T: Transport,
    T::Error: std::error::Error + 'static,
{
    let zero = Key::zero(KeyFamily::Aes);
    let mut session = Session::new()
        .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), rng)
        .run(reader)?;
    let keys = KeyInfo::new(KeyFamily::Aes, 3)?;
    session
        .create_application(AID, KeySettings::DEFAULT, keys, None)
        .run(reader)?;
    let session = session.select_application(AID).run(reader)?;
    let mut session = session
        .authenticate_aes(KeyNo::MASTER, &zero, rng)
        .run(reader)?;
    let purse = purse()?;
    purse
        .create(&mut session, Role::Debit.key_no(), Role::Credit.key_no())
        .run(reader)?;
    for role in [Role::Debit, Role::Credit] {
        let key = house.key(role, uid)?;
        session.change_key(role.key_no(), &zero, &key).run(reader)?;
    }
    let master = house.key(Role::Master, uid)?;
    let session = session.change_key_in_use(&master).run(reader)?;
    let credit = house.key(Role::Credit, uid)?;
    let mut session = session
        .authenticate_aes(Role::Credit.key_no(), &credit, rng)
        .run(reader)?;
    let stamp = Stamp {
        time: now,
        terminal: 0,
        transaction: purse_id,
    };
    purse
        .initialise(&mut session, purse_id, stamp)
        .run(reader)?;
    Ok(())
}
