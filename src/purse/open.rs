//! Reading a purse and checking it, and what may be done with it then.

use super::header::{HEADER_LEN, Header};
use super::record::{Kind, RECORD_LEN, Record};
use super::{Evidence, Intent, Purse, PurseError, Refusal, Stamp};
use crate::pcd::{AsyncTransport, Authenticated, Machine as _, Procedure, Session};
use crate::wire::{Amount, CommMode, U24, Uid};

/// A purse on a card in the field, read and found good. It borrows the session: nothing comes in
/// between.
#[derive(Debug)]
pub struct Tap<'s> {
    session: &'s mut Session<Authenticated>,
    purse: Purse,
    uid: Uid,
    id: u64,
    newest: Record,
}

impl Tap<'_> {
    /// The card's UID, as the card or its key has proved it.
    #[must_use]
    pub const fn uid(&self) -> Uid {
        self.uid
    }

    /// The purse id in the header.
    #[must_use]
    pub const fn purse_id(&self) -> u64 {
        self.id
    }

    /// What is in the purse.
    #[must_use]
    pub const fn balance(&self) -> i32 {
        self.newest.balance.get()
    }

    /// The newest record.
    #[must_use]
    pub const fn newest(&self) -> &Record {
        &self.newest
    }

    /// The intent to take `amount` out. Sends nothing.
    ///
    /// # Errors
    /// [`Refusal::Zero`], [`Refusal::TooLittle`], [`Refusal::WornOut`].
    pub fn debit(&self, amount: Amount, stamp: Stamp) -> Result<Intent, Refusal> {
        let balance = self.balance();
        let rest = balance
            .checked_sub(amount.get())
            .and_then(|rest| Amount::new(rest).ok())
            .ok_or(Refusal::TooLittle {
                balance,
                amount: amount.get(),
            })?;
        self.intent(Kind::Debit, amount, rest, stamp)
    }

    /// The intent to put `amount` in. Sends nothing.
    ///
    /// # Errors
    /// [`Refusal::Zero`], [`Refusal::TooMuch`], [`Refusal::WornOut`].
    pub fn credit(&self, amount: Amount, stamp: Stamp) -> Result<Intent, Refusal> {
        let balance = self.balance();
        let limit = self.purse.limit;
        let sum = balance
            .checked_add(amount.get())
            .and_then(|sum| Amount::new(sum).ok())
            .filter(|sum| *sum <= limit)
            .ok_or(Refusal::TooMuch {
                balance,
                amount: amount.get(),
                limit: limit.get(),
            })?;
        self.intent(Kind::Credit, amount, sum, stamp)
    }

    fn intent(
        &self,
        kind: Kind,
        amount: Amount,
        balance: Amount,
        stamp: Stamp,
    ) -> Result<Intent, Refusal> {
        if amount == Amount::ZERO {
            return Err(Refusal::Zero);
        }
        let sequence =
            U24::new(self.newest.sequence.get().saturating_add(1)).map_err(|_| Refusal::WornOut)?;
        let record = Record {
            kind,
            sequence,
            amount,
            balance,
            stamp,
        };
        Ok(Intent::new(self.uid, self.id, self.newest, record))
    }

    pub(super) const fn purse(&self) -> Purse {
        self.purse
    }

    pub(super) const fn session_mut(&mut self) -> &mut Session<Authenticated> {
        self.session
    }

    /// The operation has been carried out.
    pub(super) const fn done(&mut self, record: Record) {
        self.newest = record;
    }
}

/// Reads a purse: see [`Purse::open`].
#[must_use = "this does nothing until it is run"]
#[derive(Debug)]
pub struct Open<'s> {
    purse: Purse,
    session: &'s mut Session<Authenticated>,
    uid: Option<Uid>,
}

impl Open<'_> {
    /// States the UID instead of asking the card for it, which saves an exchange. **Only if the key in
    /// use was diversified with it**: then the handshake has proved it. A UID from anticollision
    /// alone is anybody's.
    pub const fn proved_uid(mut self, uid: Uid) -> Self {
        self.uid = Some(uid);
        self
    }
}

impl<'s> Procedure for Open<'s> {
    type Output = Tap<'s>;
    type Error<E> = PurseError<E>;

    async fn run_async<T>(self, transport: &mut T) -> Result<Tap<'s>, PurseError<T::Error>>
    where
        T: AsyncTransport + ?Sized,
    {
        let Self {
            purse,
            session,
            uid,
        } = self;
        require_clean(session)?;
        let uid = match uid {
            Some(uid) => uid,
            None => session.get_card_uid().run_async(transport).await?,
        };
        let header = read_header(&purse, session, transport).await?;
        let header = Header::check(&header, uid)?;
        let value = read_value(&purse, session, transport).await?;
        let newest = read_newest(&purse, session, transport).await?;
        let recorded = newest.balance.get();
        if value != recorded {
            return Err(Evidence::Disagree { value, recorded }.into());
        }
        Ok(Tap {
            session,
            purse,
            uid,
            id: header.id,
            newest,
        })
    }
}

/// EV1 messaging, and nothing pending that a commit of ours would make valid. (A lost session says so
/// itself when the first command is run.)
pub(super) const fn require_clean(session: &Session<Authenticated>) -> Result<(), Refusal> {
    if session.is_lost() {
        Ok(())
    } else if session.has_pending() {
        Err(Refusal::Pending)
    } else if session.is_ev1() {
        Ok(())
    } else {
        Err(Refusal::Messaging)
    }
}

pub(super) async fn read_header<T>(
    purse: &Purse,
    session: &mut Session<Authenticated>,
    transport: &mut T,
) -> Result<[u8; HEADER_LEN], PurseError<T::Error>>
where
    T: AsyncTransport + ?Sized,
{
    let mut header = [0; HEADER_LEN];
    session
        .read_data(purse.header, 0..16, &mut header)
        .comm_mode(CommMode::Enciphered)
        .run_async(transport)
        .await?;
    Ok(header)
}

pub(super) async fn read_value<T>(
    purse: &Purse,
    session: &mut Session<Authenticated>,
    transport: &mut T,
) -> Result<i32, PurseError<T::Error>>
where
    T: AsyncTransport + ?Sized,
{
    let value = session.get_value(purse.value);
    let value = value.comm_mode(CommMode::Enciphered);
    Ok(value.run_async(transport).await?)
}

pub(super) async fn read_newest<T>(
    purse: &Purse,
    session: &mut Session<Authenticated>,
    transport: &mut T,
) -> Result<Record, PurseError<T::Error>>
where
    T: AsyncTransport + ?Sized,
{
    let mut newest = [0; RECORD_LEN];
    session
        .read_records(purse.log, 0, 1, 28, &mut newest)
        .comm_mode(CommMode::Enciphered)
        .run_async(transport)
        .await?;
    Ok(Record::from_bytes(&newest)?)
}

impl Purse {
    /// Reads the purse and checks it: the header's layout and card, the value, the newest record, and
    /// that the two agree. Changes nothing.
    ///
    /// The session is one with the debit key or the credit key, in the purse's application.
    ///
    /// # Errors
    /// Card or reader; [`Evidence`] if what is there cannot be; [`Refusal::Messaging`],
    /// [`Refusal::Pending`].
    pub const fn open<'s>(&self, session: &'s mut Session<Authenticated>) -> Open<'s> {
        Open {
            purse: *self,
            session,
            uid: None,
        }
    }
}
