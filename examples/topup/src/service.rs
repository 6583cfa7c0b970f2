//! The service desk: what a person may settle, and on what grounds.
//!
//! For: top-ups with an unknown end that the next tap of the card cannot settle. Such a one keeps its
//! voucher from being spent and its card from being topped up. May know: books, the purse's intents. May
//! not know: phones, sessions.
//!
//! | what has happened | what it takes | then |
//! |---|---|---|
//! | the card was used more than four times elsewhere before the next tap | what another terminal has seen on the card: [`Grounds::Seen`] | the record decides |
//! | the same, and nobody has the record | a tap in which the card has proved that it cannot tell, and a person: [`Grounds::Tapped`] | only as credited |
//! | half a credit was committed: the record, and not the amount | the same | the person decides; the card is exchanged |
//! | value and records disagree in another way | the same | only as credited; the card is exchanged |
//! | the card is lost or broken | a person: [`Grounds::WithoutCard`] | only as credited |
//!
//! **Nothing is released that may have been on the card**: without the card a phone may still be about to
//! commit it, and a card that has forgotten the record may have had the amount and spent it. The passenger is
//! helped with another voucher; that one stands in the books like any other, with no name: who makes it has
//! to say so in the reason of the settlement. So, whatever people decide, no more has been on cards than the
//! books say, as long as what is brought as seen was seen.

use desfire_ev1::purse::{Evidence, History, Intent, Settlement};

use crate::ledger::{
    ByHand, Kind, Ledger, LedgerError, ListWaiting, SettleByHand, Waiting, now_ms,
};

/// What a settlement by hand rests on.
#[derive(Clone, Debug)]
pub enum Grounds {
    /// An intent that another terminal made for the same card, and that names the record of the top-up's
    /// number as the one that was on the card before it ([`Intent::before`]): it is this top-up's, or
    /// another's. The terminals' intents are collected anyway; that this is one of them is for whoever
    /// brings it to say.
    Seen(Box<Intent>),
    /// The card was tapped and has proved that it cannot tell; the decision is a person's.
    Tapped {
        /// Whether the card is taken to have it; if not, the finding must be [`Kind::Half`].
        credited: bool,
    },
    /// There is no card to ask, so that it is taken to have it.
    WithoutCard,
}

/// Why a top-up was not settled.
#[derive(Debug, thiserror::Error)]
pub enum ServiceError {
    /// The books.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// Nothing to settle.
    #[error("no top-up of this number is open")]
    NotOpen,
    /// Somebody has the card.
    #[error("a conversation with the card is going on; wait for its end")]
    InUse,
    /// Somebody has to answer for it.
    #[error("a settlement by hand needs a name and a reason")]
    Anonymous,
    /// What is written there could pass for another line of the trail.
    #[error("a name and a reason are one line, without control characters")]
    Control,
    /// The card can still tell, or has not been asked.
    #[error(
        "the card has not said that it cannot tell: tap it first, or settle it without the card"
    )]
    NotTapped,
    /// To release it could make the amount good twice.
    #[error(
        "the card may have had the amount: release it by what another terminal has seen, or settle it as credited, and help with another voucher"
    )]
    MayHaveIt,
    /// It is of another card, or of another moment.
    #[error(
        "this intent is of another purse, or does not name the record of that number as the one before it"
    )]
    TellsNothing,
    /// It cannot be.
    #[error("what was seen contradicts what was written down: {0}")]
    Contradiction(Evidence),
    /// What the books hold is damaged; nothing can be compared with it.
    #[error("the intent in the books is damaged; it can be settled without a record only")]
    Damaged,
}

/// What became of a top-up, by what another terminal has seen on the card.
///
/// # Errors
/// [`ServiceError::TellsNothing`], [`ServiceError::Contradiction`], [`ServiceError::Damaged`].
pub fn judge(waiting: &Waiting, seen: &Intent) -> Result<bool, ServiceError> {
    let ours = Intent::from_bytes(&waiting.intent).map_err(|_| ServiceError::Damaged)?;
    let same_purse = (ours.uid(), ours.purse_id()) == (seen.uid(), seen.purse_id());
    // A record of that number is final; one with a lower number would say "not yet", and a later one
    // nothing.
    if !same_purse || seen.before().sequence != ours.record().sequence {
        return Err(ServiceError::TellsNothing);
    }
    let history = History::new(&[*seen.before()]).map_err(ServiceError::Contradiction)?;
    match ours.judge(&history).map_err(ServiceError::Contradiction)? {
        Settlement::Paid => Ok(true),
        Settlement::NotPaid => Ok(false),
        Settlement::TooLate => Err(ServiceError::TellsNothing),
    }
}

/// Settles a top-up by hand; whether the card is taken to have it.
///
/// # Errors
/// [`ServiceError`]; then nothing was done, but for [`LedgerError::Unavailable`].
pub async fn settle(
    ledger: &Ledger,
    tx: i64,
    grounds: &Grounds,
    who: &str,
    why: &str,
) -> Result<bool, ServiceError> {
    if who.trim().is_empty() || why.trim().is_empty() {
        return Err(ServiceError::Anonymous);
    }
    if who.chars().chain(why.chars()).any(char::is_control) {
        return Err(ServiceError::Control);
    }
    let all = ledger.perform(ListWaiting).await?;
    let waiting = all.iter().find(|waiting| waiting.tx == tx);
    let waiting = waiting.ok_or(ServiceError::NotOpen)?;
    let (credited, shown) = match grounds {
        Grounds::Seen(seen) => {
            let record = seen.before();
            let stamp = record.stamp;
            let shown = format!(
                "terminal {} saw record {} on the card: transaction {} of terminal {}, balance {}",
                seen.record().stamp.terminal,
                record.sequence.get(),
                stamp.transaction,
                stamp.terminal,
                record.balance.get(),
            );
            (judge(waiting, seen)?, shown)
        }
        Grounds::Tapped { credited } => {
            let found = waiting.found.as_ref().ok_or(ServiceError::NotTapped)?;
            if !credited && found.kind != Kind::Half {
                return Err(ServiceError::MayHaveIt);
            }
            (*credited, format!("a tap: {}", found.said))
        }
        Grounds::WithoutCard => (true, "without the card".to_owned()),
    };
    let settle = SettleByHand {
        tx,
        credited,
        who: who.to_owned(),
        why: why.to_owned(),
        grounds: shown,
        now: now_ms(),
    };
    match ledger.perform(settle).await? {
        ByHand::Done => Ok(credited),
        ByHand::NotOpen => Err(ServiceError::NotOpen),
        ByHand::InUse => Err(ServiceError::InUse),
    }
}
