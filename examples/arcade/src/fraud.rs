//! What some people do to their cards. All of them have help from somebody in the workshop, who has
//! the house's keys: without, there is nothing to be done to a card.

use desfire_ev1::picc::Card;
use desfire_ev1::purse::Stamp;
use desfire_ev1::wire::{Amount, CommMode, Uid};
use desfire_ev1::{Authenticated, Machine, Procedure, Session, Transport};
use rand::CryptoRng;

use crate::cards::{AID, House, IssueError, Role, purse};
use crate::field::{Field, Gone};

/// What somebody is up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fraud {
    /// Everything copied onto another card, with the right keys for that card.
    Copy,
    /// A second card that is the same in everything, its UID too; a friend plays with it.
    Twin,
    /// The card is set back to what it was after the top-up.
    SetBack,
    /// The value is raised, and nothing else.
    RaisedValue,
    /// A top-up with a record, as a desk would make it, that no desk has made.
    ForgedTopUp,
}

impl Fraud {
    /// All.
    pub const ALL: [Self; 5] = [
        Self::Copy,
        Self::Twin,
        Self::SetBack,
        Self::RaisedValue,
        Self::ForgedTopUp,
    ];

    /// Who does it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Copy => "Mallory",
            Self::Twin => "Chuck",
            Self::SetBack => "Trudy",
            Self::RaisedValue => "Oscar",
            Self::ForgedTopUp => "Eve",
        }
    }

    /// What is done.
    #[must_use]
    pub const fn deed(self) -> &'static str {
        match self {
            Self::Copy => "copies the card onto another one",
            Self::Twin => "lends a friend a card with the same UID and content",
            Self::SetBack => "sets the card back to its state after the top-up",
            Self::RaisedValue => "raises the value by 50.00",
            Self::ForgedTopUp => "forges a top-up of 50.00, with its record",
        }
    }
}

type Result<T> = std::result::Result<T, IssueError<Gone>>;

fn open<T>(
    reader: &mut T,
    house: &House,
    uid: Uid,
    role: Role,
    rng: &mut impl CryptoRng,
) -> std::result::Result<Session<Authenticated>, IssueError<T::Error>>
where
    T: Transport,
    T::Error: std::error::Error + 'static,
{
    let key = house.key(role, uid)?;
    let session = Session::new().select_application(AID).run(reader)?;
    Ok(session
        .authenticate_aes(role.key_no(), &key, rng)
        .run(reader)?)
}

/// The content of `card` on a new card with another UID and that card's keys.
///
/// # Errors
/// None on software cards.
pub fn copy(
    card: &Card,
    uid: Uid,
    to: Uid,
    house: &House,
    rng: &mut impl CryptoRng,
) -> Result<Card> {
    let mut copy = Card::builder().uid(to).build();
    if let Some(application) = card.state().application(AID) {
        // It fits: the card is empty.
        let _ = copy.state_mut().put_application(application.clone());
    }
    let mut reader = Field::new(&mut copy);
    let mut session = open(&mut reader, house, uid, Role::Master, rng)?;
    for role in [Role::Debit, Role::Credit] {
        let (old, new) = (house.key(role, uid)?, house.key(role, to)?);
        let change = session.change_key(role.key_no(), &old, &new);
        change.run(&mut reader)?;
    }
    let master = house.key(Role::Master, to)?;
    session.change_key_in_use(&master).run(&mut reader)?;
    drop(reader);
    Ok(copy)
}

/// The value goes up, and the log says nothing.
///
/// # Errors
/// None on software cards below their limit.
pub fn raise_value(
    card: &mut Card,
    uid: Uid,
    amount: Amount,
    house: &House,
    rng: &mut impl CryptoRng,
) -> Result<()> {
    let reader = &mut Field::new(card);
    let mut session = open(reader, house, uid, Role::Credit, rng)?;
    let credit = session.credit(purse()?.value, amount);
    credit.comm_mode(CommMode::Enciphered).run(reader)?;
    session.commit_transaction().run(reader)?;
    Ok(())
}

/// A top-up as it should be, but for the desk.
///
/// # Errors
/// None on software cards below their limit.
pub fn forge_top_up(
    card: &mut Card,
    uid: Uid,
    amount: Amount,
    stamp: Stamp,
    house: &House,
    rng: &mut impl CryptoRng,
) -> Result<()> {
    let reader = &mut Field::new(card);
    let mut session = open(reader, house, uid, Role::Credit, rng)?;
    let mut tap = purse()?.open(&mut session).run(reader)?;
    let Ok(intent) = tap.credit(amount, stamp) else {
        return Ok(()); // no room on the card: nothing forged
    };
    tap.execute(&intent).run(reader)?;
    Ok(())
}
