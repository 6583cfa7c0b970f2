//! The whole conversation with a card, from the phone's first word to the books.
//!
//! For: the order in which books and card are changed, which is what the promise rests on. May know:
//! purse, ledger, link, key holder. May not know: what carries the phone's messages.
//!
//! ```text
//! claim the card             books   a new epoch, and what is open on this card
//! select, authenticate       card    only the card with this UID can; ends every session before
//! drop what is pending       card    only if something is open, and proved by the card
//! read the purse             card
//! settle what is open        books   done or not done, as the card's record says
//! reserve the voucher        books   the intent, before any change leaves
//! record, credit, commit     card
//! credited                   books
//! ```
//!
//! Whatever breaks off before the reservation leaves everything as it was. Whatever breaks off after
//! the first change has left stays reserved until the next tap of this card: the phone may have
//! sent a commit, which needs no key, and may hold back replies. The state model in `tests/model.rs`
//! explores this order, and shows what goes wrong in others.

use std::sync::Arc;
use std::time::Duration;

use desfire_ev1::purse::{Evidence, Intent, Purse, PurseError, Refusal, Settlement, Stamp, Tap};
use desfire_ev1::split::foretell;
use desfire_ev1::wire::{Amount, CommMode, Status, Uid};
use desfire_ev1::{Authenticated, Link as _, Machine as _, Procedure as _, RunError, Session};
use tracing::{error, info, warn};

use crate::card::Layout;
use crate::desk::Desk;
use crate::events::What;
use crate::keys::{KeyHolder, KeyHolderError};
use crate::ledger::{
    Claim, Claimed, Find, FindAccount, FindVoucher, Finding, Kind, LedgerError, Offer, OpenTopUp,
    Pending, Reserve, Reserved, Settle, Unclaim, fingerprint, now_ms,
};
use crate::link::{LinkError, PhoneLink, Pipe};
use crate::message::{Ending, Finished, Hello, Reason, Step};

/// How often the books are told what a card has proved, before it is left to the next tap.
const TRIES: u32 = 3;
/// The pause between.
const PAUSE: Duration = Duration::from_millis(200);

/// Who wants what.
struct Order {
    account: Arc<str>,
    uid: Uid,
    /// Nothing if only the balance is wanted.
    voucher: Option<[u8; 32]>,
}

/// Talks to the phone's card until the voucher is on it or there is a reason why it is not.
///
/// # Errors
/// The [`Reason`], which goes to the phone.
pub async fn converse<K: KeyHolder, P: Pipe>(
    desk: &Desk<K>,
    link: &mut PhoneLink<P>,
    hello: Hello,
) -> Result<Finished, Reason> {
    let token = fingerprint(&hello.token);
    let account = desk.ledger.perform(FindAccount { token }).await;
    let account: Arc<str> = account.map_err(in_books)?.ok_or(Reason::Account)?.into();
    let _place = desk.places.enter_account(&account).ok_or(Reason::TooMany)?;
    let order = Order {
        account,
        uid: hello.uid,
        voucher: (!hello.voucher.is_empty()).then(|| fingerprint(&hello.voucher)),
    };
    let told = |reason: Reason| {
        let why = reason.to_string();
        desk.events.tell(&order.account, What::Refused { why });
        reason
    };
    desk.events.tell(&order.account, What::Tapped);
    let pending = claim(desk, &order).await.map_err(told)?;
    let epoch = pending.epoch;
    let result = with_card(desk, link, &order, pending, &hello).await;
    let unclaim = Unclaim {
        uid: order.uid,
        epoch,
    };
    if let Err(error) = desk.ledger.perform(unclaim).await {
        warn!(card = %order.uid, %error, "the claim runs out by itself");
    }
    result.map_err(told)
}

async fn claim<K>(desk: &Desk<K>, order: &Order) -> Result<Pending, Reason> {
    let now = now_ms();
    let lease = i64::try_from(desk.patience.conversation.as_millis()).unwrap_or(i64::MAX);
    let claim = Claim {
        uid: order.uid,
        account: order.account.to_string(),
        voucher: order.voucher.unwrap_or_default(),
        node: desk.node.clone(),
        now,
        lease_until: now.saturating_add(lease),
    };
    match desk.ledger.perform(claim).await.map_err(in_books)? {
        Claimed::Yes(pending) => Ok(pending),
        Claimed::InUse => Err(Reason::CardInUse),
        Claimed::Foreign => Err(Reason::ForeignCard),
    }
}

/// What is done while the card is claimed.
///
/// In two boxes, one after the other: while the card is waited for, a conversation is as large as its
/// largest future, and there are thousands.
async fn with_card<K: KeyHolder, P: Pipe>(
    desk: &Desk<K>,
    link: &mut PhoneLink<P>,
    order: &Order,
    pending: Pending,
    hello: &Hello,
) -> Result<Finished, Reason> {
    link.set_format(hello.format);
    announce_reading(desk, link, hello, pending.open.is_none()).map_err(|error| {
        error!(%error, "a frame does not fit");
        Reason::Protocol
    })?;
    let session = Box::pin(authenticated(desk, link, order.uid)).await?;
    desk.events.tell(&order.account, What::Genuine);
    Box::pin(in_session(desk, link, order, pending, session)).await
}

/// A session with the card of this UID and no other.
async fn authenticated<K: KeyHolder, P: Pipe>(
    desk: &Desk<K>,
    link: &mut PhoneLink<P>,
    uid: Uid,
) -> Result<Session<Authenticated>, Reason> {
    let session = Session::new().select_application(desk.layout.aid);
    let session = session.run_async(link).await.map_err(before_money)?;
    let session = desk.keys.authenticate(&desk.layout, uid, session, link);
    session.await.map_err(|error| match error {
        KeyHolderError::Run(error) => before_money(error),
        KeyHolderError::Key(_) => Reason::NotGenuine,
        KeyHolderError::Down(why) => {
            error!(why, "the key holder does not work");
            Reason::Busy
        }
    })
}

/// From the genuine card to the books.
async fn in_session<K: KeyHolder, P: Pipe>(
    desk: &Desk<K>,
    link: &mut PhoneLink<P>,
    order: &Order,
    pending: Pending,
    mut session: Session<Authenticated>,
) -> Result<Finished, Reason> {
    let (purse, uid, epoch) = (desk.layout.purse, order.uid, pending.epoch);
    if pending.open.is_some() {
        let dropped = Box::pin(drop_pending(&desk.layout, &mut session, link));
        dropped.await.map_err(before_money)?;
    }
    let tap = Box::pin(purse.open(&mut session).proved_uid(uid).run_async(link));
    let mut tap = match tap.await {
        Ok(tap) => tap,
        Err(error) => return Err(not_served(desk, pending.open.as_ref(), error).await),
    };
    let balance = tap.balance();
    desk.events.tell(&order.account, What::Balance { balance });

    if let Some(open) = &pending.open {
        let settled = Box::pin(settle_open(desk, link, order, epoch, &mut tap, open));
        let credited = settled.await?;
        if credited && open.same_voucher {
            return Ok(finished(
                link,
                Ending::AlreadyCredited,
                balance,
                open.amount,
            ));
        }
    }
    let Some(voucher) = order.voucher else {
        return Ok(finished(link, Ending::Balance, balance, 0));
    };
    let find = FindVoucher {
        voucher,
        account: order.account.to_string(),
        uid,
    };
    let amount = match desk.ledger.perform(find).await.map_err(in_books)? {
        Offer::Free(amount) => amount,
        Offer::Spent { amount, here: true } => {
            return Ok(finished(link, Ending::AlreadyCredited, balance, amount));
        }
        Offer::Spent { here: false, .. } => return Err(Reason::Spent),
        Offer::None => return Err(Reason::Voucher),
        Offer::Elsewhere => return Err(Reason::Unsettled),
    };

    let (tx, stamp) = stamp(desk.terminal)?;
    let intent = Amount::new(amount)
        .map_err(|_| Reason::Amount)
        .and_then(|amount| tap.credit(amount, stamp).map_err(|_| Reason::Amount))?;
    // From here on only phone and card can break it off.
    link.see_it_through();
    reserve(desk, order, epoch, tx, voucher, &intent).await?;
    desk.events.tell(&order.account, What::Crediting { amount });
    let done = if desk.together {
        Box::pin(credit_together(&purse, &mut session, link, &intent)).await
    } else {
        let executed = Box::pin(tap.execute(&intent).run_async(link)).await;
        executed.map(|_| ()).map_err(|error| match error {
            PurseError::Unsettled(error) => Interrupted::Unsettled(error.to_string()),
            error => Interrupted::NotBegun(in_purse(error)),
        })
    };
    let settle = |credited| Settle {
        tx,
        uid,
        epoch,
        credited,
    };
    match done {
        Ok(()) => {
            let balance = intent.record().balance.get();
            in_books_at_last(desk, settle(true)).await;
            let credited = What::Credited { amount, balance };
            desk.events.tell(&order.account, credited);
            Ok(finished(link, Ending::Credited, balance, amount))
        }
        Err(Interrupted::Unsettled(why)) => {
            info!(card = %uid, tx, why, "the next tap will tell");
            Err(Reason::Unknown)
        }
        Err(Interrupted::NotBegun(reason)) => {
            in_books_at_last(desk, settle(false)).await;
            Err(reason)
        }
    }
}

/// Why a credit did not come to its end.
enum Interrupted {
    /// It may have happened.
    Unsettled(String),
    /// Nothing was sent that could change the card.
    NotBegun(Reason),
}

/// Tells the link which frames may travel together: the selection with the challenge, unless the
/// phone has played them already, and the handshake's end with the reading.
fn announce_reading<K, P: Pipe>(
    desk: &Desk<K>,
    link: &mut PhoneLink<P>,
    hello: &Hello,
    reads_at_once: bool,
) -> Result<(), desfire_ev1::wire::WireError> {
    let framing = hello.format.framing;
    let opening = desk.layout.opening(framing)?;
    let played = opening.len() == hello.opening.len();
    if played {
        link.take_played(&opening, hello.opening.clone());
    }
    if desk.together {
        if !played {
            let rest = opening.into_iter().skip(1).collect();
            link.announce(Status::Ok, rest);
        }
        if reads_at_once {
            link.announce(Status::Ok, desk.layout.reading(framing)?);
        }
    }
    Ok(())
}

/// Drops whatever waits on the card for a commit, with the card's proof that it did.
///
/// A handshake leaves pending changes alone; only a selection drops them, and its reply proves nothing:
/// the phone can keep the selection back, let the server see that an old top-up was "not done", and
/// commit it afterwards. So something is written that is there already, to have something to abort
/// (without it the card refuses), and then aborted. Should the phone commit in between, the chain
/// of the session breaks and nothing is settled.
async fn drop_pending<P: Pipe>(
    layout: &Layout,
    session: &mut Session<Authenticated>,
    link: &mut PhoneLink<P>,
) -> Result<(), RunError<LinkError>> {
    let mut header = [0; 16];
    session
        .read_data(layout.purse.header, 0..16, &mut header)
        .comm_mode(CommMode::Enciphered)
        .run_async(link)
        .await?;
    let mut transaction = session.transaction();
    transaction
        .write_data(layout.purse.header, 0, &header)
        .comm_mode(CommMode::Enciphered)
        .run_async(link)
        .await?;
    transaction.abort().run_async(link).await
}

/// Settles what an earlier conversation has left open, by the card's own record.
async fn settle_open<K: KeyHolder, P: Pipe>(
    desk: &Desk<K>,
    link: &mut PhoneLink<P>,
    order: &Order,
    epoch: i64,
    tap: &mut Tap<'_>,
    open: &OpenTopUp,
) -> Result<bool, Reason> {
    let intent = match Intent::from_bytes(&open.intent) {
        Ok(intent) => intent,
        Err(error) => {
            error!(tx = open.tx, %error, "the intent in the books is damaged");
            return Err(not_told(
                desk,
                open,
                Kind::Unclear,
                "the intent in the books is damaged",
            )
            .await);
        }
    };
    let credited = match tap.settle(&intent).run_async(link).await {
        Ok(Settlement::Paid) => true,
        Ok(Settlement::NotPaid) => false,
        Ok(Settlement::TooLate) => {
            let said = "the card has forgotten what became of it";
            return Err(not_told(desk, open, Kind::Forgotten, said).await);
        }
        Err(error) => return Err(not_served(desk, Some(open), error).await),
    };
    let settle = Settle {
        tx: open.tx,
        uid: order.uid,
        epoch,
        credited,
    };
    desk.ledger
        .perform(settle)
        .await
        .map_err(|error| in_desk_books(desk, error))?;
    info!(card = %order.uid, tx = open.tx, credited, "settled");
    desk.metrics.settled(credited);
    let amount = open.amount;
    desk.events
        .tell(&order.account, What::Settled { credited, amount });
    Ok(credited)
}

async fn reserve<K>(
    desk: &Desk<K>,
    order: &Order,
    epoch: i64,
    tx: i64,
    voucher: [u8; 32],
    intent: &Intent,
) -> Result<(), Reason> {
    let reserve = Reserve {
        tx,
        voucher,
        account: order.account.to_string(),
        uid: order.uid,
        epoch,
        intent: intent.to_bytes().to_vec(),
        now: now_ms(),
    };
    match desk.ledger.perform(reserve).await.map_err(in_books)? {
        Reserved::Yes(_) => Ok(()),
        Reserved::NoSuchVoucher => Err(Reason::Voucher),
        Reserved::Spent => Err(Reason::Spent),
        Reserved::Elsewhere => Err(Reason::Unsettled),
        Reserved::Superseded => Err(Reason::CardInUse),
    }
}

/// Record, value and commit in one message, in the order of [`Tap::execute`]: the replies are known
/// beforehand but for the card's proof, which is looked at when they are all there.
async fn credit_together<P: Pipe>(
    purse: &Purse,
    session: &mut Session<Authenticated>,
    link: &mut PhoneLink<P>,
    intent: &Intent,
) -> Result<(), Interrupted> {
    let (record, format) = (intent.record(), link.format());
    let mode = CommMode::Enciphered;
    let not_begun = |error: desfire_ev1::Error| {
        error!(%error, "a command cannot be foretold");
        Interrupted::NotBegun(Reason::Protocol)
    };
    let bytes = record.to_bytes();
    let mut transaction = session.transaction();
    let log = transaction.write_record(purse.log, 0, &bytes);
    let log = foretell(log.comm_mode(mode), format).map_err(not_begun)?;
    let value = transaction.credit(purse.value, record.amount);
    let value = foretell(value.comm_mode(mode), format).map_err(not_begun)?;
    let commit = foretell(transaction.commit(), format).map_err(not_begun)?;
    let foretold = [log, value, commit];
    let steps = foretold.iter().map(|foretold| Step {
        expected: Status::Ok,
        frame: foretold.frame().to_vec(),
    });
    let unsettled = |error: LinkError| Interrupted::Unsettled(error.to_string());
    let replies = link.play(steps.collect()).await.map_err(unsettled)?;
    let proved = foretold
        .iter()
        .zip(&replies)
        .filter(|(foretold, reply)| foretold.is_proved_by(reply))
        .count();
    if proved < foretold.len() {
        let why = format!("the card has proved {proved} of {} steps", foretold.len());
        return Err(Interrupted::Unsettled(why));
    }
    Ok(())
}

/// Tells the books what the card has proved. If they cannot be reached, the top-up stays reserved and
/// the next tap tells them.
async fn in_books_at_last<K>(desk: &Desk<K>, settle: Settle) {
    for attempt in 1..=TRIES {
        match desk.ledger.perform(settle.clone()).await {
            Ok(_) => return,
            Err(error @ LedgerError::Unavailable(_)) => {
                warn!(tx = settle.tx, attempt, %error, "the next tap will tell the books");
                tokio::time::sleep(PAUSE).await;
            }
            Err(error) => {
                in_desk_books(desk, error);
                return;
            }
        }
    }
}

fn finished<P: Pipe>(link: &PhoneLink<P>, ending: Ending, balance: i32, amount: i32) -> Finished {
    let (frames, round_trips) = link.count();
    Finished {
        ending,
        balance,
        amount,
        frames,
        round_trips,
    }
}

/// The number of a new top-up, and what the card's record says of it.
fn stamp(terminal: u32) -> Result<(i64, Stamp), Reason> {
    let mut number = [0; 8];
    getrandom::fill(&mut number).map_err(|_| Reason::Busy)?;
    // 63 random bits: they never meet, and if they did, the books would refuse the second.
    let transaction = u64::from_le_bytes(number) >> 1;
    let tx = i64::try_from(transaction).map_err(|_| Reason::Busy)?;
    let seconds = now_ms().div_euclid(1000);
    let stamp = Stamp {
        time: u32::try_from(seconds).unwrap_or(u32::MAX),
        terminal,
        transaction,
    };
    Ok((tx, stamp))
}

/// Why it broke off while nothing could have changed.
fn before_money(error: RunError<LinkError>) -> Reason {
    match error {
        RunError::Transport { error, .. } => error.reason(),
        // An error status or a wrong proof: another card, or somebody on the way.
        error => {
            info!(%error, "not genuine");
            Reason::NotGenuine
        }
    }
}

/// The card does not settle what is open: the service desk has to, and finds in the books why.
async fn not_told<K>(desk: &Desk<K>, open: &OpenTopUp, kind: Kind, said: impl ToString) -> Reason {
    let said = said.to_string();
    warn!(tx = open.tx, said, "a person must settle this");
    let find = Find {
        tx: open.tx,
        finding: Finding { kind, said },
        now: now_ms(),
    };
    if let Err(error) = desk.ledger.perform(find).await {
        warn!(tx = open.tx, %error, "the next tap will tell the books");
    }
    Reason::Desk
}

/// The purse cannot be used; if that keeps it from settling what is open, the books hear so.
async fn not_served<K>(
    desk: &Desk<K>,
    open: Option<&OpenTopUp>,
    error: PurseError<LinkError>,
) -> Reason {
    match (open, &error) {
        (Some(open), PurseError::Evidence(evidence)) => {
            not_told(desk, open, kind(open, *evidence), evidence).await
        }
        (Some(open), PurseError::Refused(Refusal::OtherPurse)) => {
            not_told(desk, open, Kind::Unclear, Refusal::OtherPurse).await
        }
        _ => in_purse(error),
    }
}

/// What a person may do about it.
///
/// That value and records disagree is not enough for half a credit: a phone can commit all of it, and
/// afterwards half of a debit, which lowers the value first; or leave it pending until another terminal
/// commits it with its own, which leaves the value above the record. Only what half of this credit leaves
/// behind, to the cent, is worth no more than before it.
fn kind(open: &OpenTopUp, evidence: Evidence) -> Kind {
    let Evidence::Disagree { value, recorded } = evidence else {
        return Kind::Unclear;
    };
    let half = Intent::from_bytes(&open.intent).is_ok_and(|intent| {
        let (before, after) = (intent.before().balance, intent.record().balance);
        (value, recorded) == (before.get(), after.get())
    });
    if half { Kind::Half } else { Kind::Unclear }
}

fn in_purse(error: PurseError<LinkError>) -> Reason {
    match error {
        PurseError::Run(error) => before_money(error),
        PurseError::Unsettled(_) => Reason::Unknown,
        PurseError::Evidence(evidence) => {
            warn!(%evidence, "a person must look at this card");
            Reason::Desk
        }
        PurseError::Refused(Refusal::OtherPurse) => Reason::Desk,
        _ => Reason::Amount,
    }
}

fn in_books(error: LedgerError) -> Reason {
    warn!(%error, "books");
    Reason::Ledger
}

fn in_desk_books<K>(desk: &Desk<K>, error: LedgerError) -> Reason {
    if let LedgerError::Contradiction(_) = error {
        error!(%error, "a person must look at this");
        desk.metrics.contradictions.inc();
        return Reason::Desk;
    }
    in_books(error)
}
