//! What is done to the books, each in one transaction. The same statements for every database.

use desfire_ev1::wire::Uid;

use super::{LedgerError, Operation, Row, Sql, Value};

/// The tables, one statement each. `state` of a top-up is `reserved`, `credited` or `released`; a
/// voucher's state follows from its top-ups.
pub(super) const SCHEMA: &[&str] = &[
    "CREATE TABLE IF NOT EXISTS accounts (
        name TEXT PRIMARY KEY,
        token BYTEA NOT NULL UNIQUE)",
    "CREATE TABLE IF NOT EXISTS cards (
        uid BYTEA PRIMARY KEY,
        account TEXT NOT NULL REFERENCES accounts(name),
        epoch BIGINT NOT NULL,
        node TEXT NOT NULL,
        lease_until BIGINT NOT NULL)",
    "CREATE TABLE IF NOT EXISTS vouchers (
        code BYTEA PRIMARY KEY,
        account TEXT NOT NULL REFERENCES accounts(name),
        amount BIGINT NOT NULL CHECK (amount > 0))",
    "CREATE TABLE IF NOT EXISTS topups (
        tx BIGINT PRIMARY KEY,
        voucher BYTEA NOT NULL REFERENCES vouchers(code),
        card BYTEA NOT NULL REFERENCES cards(uid),
        epoch BIGINT NOT NULL,
        intent BYTEA NOT NULL,
        amount BIGINT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('reserved', 'credited', 'released')),
        begun BIGINT NOT NULL)",
    // Why a card could not settle a top-up, as it was found last. Older books have a table `findings`,
    // without the kind: nothing is released on the strength of that, and the next tap fills this one.
    "CREATE TABLE IF NOT EXISTS found (
        tx BIGINT PRIMARY KEY REFERENCES topups(tx),
        kind TEXT NOT NULL CHECK (kind IN ('forgotten', 'half', 'unclear')),
        said TEXT NOT NULL,
        at BIGINT NOT NULL)",
    // What people have settled. No operation changes anything in there.
    "CREATE TABLE IF NOT EXISTS settlements (
        tx BIGINT PRIMARY KEY REFERENCES topups(tx),
        state TEXT NOT NULL,
        who TEXT NOT NULL,
        why TEXT NOT NULL,
        grounds TEXT NOT NULL,
        at BIGINT NOT NULL)",
    "CREATE UNIQUE INDEX IF NOT EXISTS a_voucher_once
        ON topups(voucher) WHERE state <> 'released'",
    "CREATE UNIQUE INDEX IF NOT EXISTS a_card_one_at_a_time
        ON topups(card) WHERE state = 'reserved'",
];

/// A new account.
#[derive(Clone)]
pub struct AddAccount {
    /// Its name.
    pub name: String,
    /// [`super::fingerprint`] of its token.
    pub token: [u8; 32],
}

impl Operation for AddAccount {
    type Output = ();

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<(), LedgerError> {
        let params = [self.name.as_str().into(), self.token.as_slice().into()];
        sql.query(
            "INSERT INTO accounts (name, token) VALUES ($1, $2)",
            &params,
        )
        .await?;
        Ok(())
    }
}

/// A card is registered for an account.
#[derive(Clone)]
pub struct AddCard {
    /// The card.
    pub uid: Uid,
    /// Whose it is.
    pub account: String,
}

impl Operation for AddCard {
    type Output = ();

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<(), LedgerError> {
        let params = [self.uid.into(), self.account.as_str().into()];
        sql.query(
            "INSERT INTO cards (uid, account, epoch, node, lease_until) VALUES ($1, $2, 0, '', 0)",
            &params,
        )
        .await?;
        Ok(())
    }
}

/// A voucher is issued, which somebody has paid for.
#[derive(Clone)]
pub struct AddVoucher {
    /// [`super::fingerprint`] of its code.
    pub code: [u8; 32],
    /// Who may spend it.
    pub account: String,
    /// What it is worth.
    pub amount: i32,
}

impl Operation for AddVoucher {
    type Output = ();

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<(), LedgerError> {
        let params = [
            self.code.as_slice().into(),
            self.account.as_str().into(),
            i64::from(self.amount).into(),
        ];
        sql.query(
            "INSERT INTO vouchers (code, account, amount) VALUES ($1, $2, $3)",
            &params,
        )
        .await?;
        Ok(())
    }
}

/// The account with this token.
#[derive(Clone)]
pub struct FindAccount {
    /// [`super::fingerprint`] of the token.
    pub token: [u8; 32],
}

impl Operation for FindAccount {
    type Output = Option<String>;

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Option<String>, LedgerError> {
        let params = [self.token.as_slice().into()];
        let rows = sql
            .query("SELECT name FROM accounts WHERE token = $1", &params)
            .await?;
        rows.first()
            .map(|row| row.text(0).map(ToOwned::to_owned))
            .transpose()
    }
}

/// A conversation wants a card for itself.
#[derive(Clone)]
pub struct Claim {
    /// The card.
    pub uid: Uid,
    /// Whose it must be.
    pub account: String,
    /// [`super::fingerprint`] of the voucher that is asked for, to be told whether what is open on the
    /// card is a top-up with it.
    pub voucher: [u8; 32],
    /// Which server node asks.
    pub node: String,
    /// Now, in milliseconds since 1970.
    pub now: i64,
    /// Until when the claim holds if nobody gives it back.
    pub lease_until: i64,
}

/// A top-up with an unknown end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenTopUp {
    /// Its number.
    pub tx: i64,
    /// What was to be done to the purse, as it was stored.
    pub intent: Vec<u8>,
    /// What it is worth.
    pub amount: i32,
    /// Whether it spends the voucher that is asked for now.
    pub same_voucher: bool,
}

/// What the books say of a voucher that somebody asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is worth this much, and free.
    Free(i32),
    /// The account has no such voucher.
    None,
    /// It has been spent, on this very card or on another.
    Spent {
        /// What it was worth.
        amount: i32,
        /// Whether it was this card.
        here: bool,
    },
    /// It is reserved by a top-up of another card whose end is unknown.
    Elsewhere,
}

/// What a claim brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pending {
    /// The epoch of this claim.
    pub epoch: i64,
    /// What is to be settled, at most one.
    pub open: Option<OpenTopUp>,
}

/// The answer to [`Claim`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The card is this conversation's.
    Yes(Pending),
    /// Another conversation has it.
    InUse,
    /// It is not registered for the account.
    Foreign,
}

impl Operation for Claim {
    type Output = Claimed;

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Claimed, LedgerError> {
        let claim = self;
        let params = [
            claim.node.as_str().into(),
            claim.lease_until.into(),
            claim.uid.into(),
            claim.account.as_str().into(),
            claim.now.into(),
        ];
        let claimed = sql
            .query(
                "UPDATE cards SET epoch = epoch + 1, node = $1, lease_until = $2
                 WHERE uid = $3 AND account = $4 AND lease_until < $5 RETURNING epoch",
                &params,
            )
            .await?;
        let Some(claimed) = claimed.first() else {
            let params = [claim.uid.into(), claim.account.as_str().into()];
            let mine = sql
                .query(
                    "SELECT epoch FROM cards WHERE uid = $1 AND account = $2",
                    &params,
                )
                .await?;
            return Ok(if mine.is_empty() {
                Claimed::Foreign
            } else {
                Claimed::InUse
            });
        };
        let open = sql
            .query(
                "SELECT tx, intent, amount, voucher FROM topups WHERE card = $1 AND state = 'reserved'",
                &[claim.uid.into()],
            )
            .await?;
        Ok(Claimed::Yes(Pending {
            epoch: claimed.int(0)?,
            open: open
                .first()
                .map(|row| open_topup(row, &claim.voucher))
                .transpose()?,
        }))
    }
}

fn open_topup(row: &Row, voucher: &[u8; 32]) -> Result<OpenTopUp, LedgerError> {
    Ok(OpenTopUp {
        tx: row.int(0)?,
        intent: row.bytes(1)?.to_vec(),
        amount: amount(row, 2)?,
        same_voucher: row.bytes(3)? == voucher,
    })
}

pub(super) fn amount(row: &Row, column: usize) -> Result<i32, LedgerError> {
    i32::try_from(row.int(column)?)
        .map_err(|_| LedgerError::unavailable("an amount in the books is out of range"))
}

/// What is a voucher worth, and can it be spent?
#[derive(Clone)]
pub struct FindVoucher {
    /// [`super::fingerprint`] of its code.
    pub voucher: [u8; 32],
    /// Who wants to spend it.
    pub account: String,
    /// On which card.
    pub uid: Uid,
}

impl Operation for FindVoucher {
    type Output = Offer;

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Offer, LedgerError> {
        let params = [self.voucher.as_slice().into(), self.account.as_str().into()];
        let voucher = sql
            .query(
                "SELECT amount FROM vouchers WHERE code = $1 AND account = $2",
                &params,
            )
            .await?;
        let Some(voucher) = voucher.first() else {
            return Ok(Offer::None);
        };
        let amount = amount(voucher, 0)?;
        let taken = sql
            .query(
                "SELECT state, card FROM topups WHERE voucher = $1 AND state <> 'released'",
                &[self.voucher.as_slice().into()],
            )
            .await?;
        let Some(taken) = taken.first() else {
            return Ok(Offer::Free(amount));
        };
        let here = taken.bytes(1)? == self.uid.0;
        Ok(match taken.text(0)? {
            "credited" => Offer::Spent { amount, here },
            _ => Offer::Elsewhere,
        })
    }
}

/// The claim is given back.
#[derive(Clone)]
pub struct Unclaim {
    /// The card.
    pub uid: Uid,
    /// The epoch of the claim; a newer one is left alone.
    pub epoch: i64,
}

impl Operation for Unclaim {
    type Output = ();

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<(), LedgerError> {
        let params = [self.uid.into(), self.epoch.into()];
        sql.query(
            "UPDATE cards SET lease_until = 0 WHERE uid = $1 AND epoch = $2 RETURNING epoch",
            &params,
        )
        .await?;
        Ok(())
    }
}

/// A node that starts gives back what it held when it was killed.
#[derive(Clone)]
pub struct Forget {
    /// The node.
    pub node: String,
}

impl Operation for Forget {
    type Output = ();

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<(), LedgerError> {
        let params = [self.node.as_str().into()];
        sql.query(
            "UPDATE cards SET lease_until = 0 WHERE node = $1 RETURNING epoch",
            &params,
        )
        .await?;
        Ok(())
    }
}

/// A voucher is to be spent on a card: the intent, written before the commit leaves.
#[derive(Clone)]
pub struct Reserve {
    /// The number of the top-up, which goes into the card's record too.
    pub tx: i64,
    /// The voucher's fingerprint.
    pub voucher: [u8; 32],
    /// Whose voucher and card.
    pub account: String,
    /// The card.
    pub uid: Uid,
    /// The epoch of the claim.
    pub epoch: i64,
    /// What is to be done to the purse, for the settlement.
    pub intent: Vec<u8>,
    /// Now, in milliseconds since 1970.
    pub now: i64,
}

/// The answer to [`Reserve`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The voucher is reserved for this card, and worth this much.
    Yes(i32),
    /// The account has no such voucher.
    NoSuchVoucher,
    /// It has been spent.
    Spent,
    /// It is reserved by a top-up whose end is unknown.
    Elsewhere,
    /// A newer conversation has the card.
    Superseded,
}

impl Operation for Reserve {
    type Output = Reserved;

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Reserved, LedgerError> {
        // Locks the card's row: no claim gets between this and the end of the transaction.
        let params = [self.uid.into(), self.epoch.into()];
        let newest = sql
            .query(
                "UPDATE cards SET epoch = epoch WHERE uid = $1 AND epoch = $2 RETURNING epoch",
                &params,
            )
            .await?;
        if newest.is_empty() {
            return Ok(Reserved::Superseded);
        }
        // Locks the voucher's row: only one conversation at a time gets past here.
        let params = [self.voucher.as_slice().into(), self.account.as_str().into()];
        let voucher = sql
            .query(
                "UPDATE vouchers SET amount = amount WHERE code = $1 AND account = $2
                 RETURNING amount",
                &params,
            )
            .await?;
        let Some(voucher) = voucher.first() else {
            return Ok(Reserved::NoSuchVoucher);
        };
        let amount = amount(voucher, 0)?;
        let taken = sql
            .query(
                "SELECT state FROM topups WHERE voucher = $1 AND state <> 'released'",
                &[self.voucher.as_slice().into()],
            )
            .await?;
        if let Some(taken) = taken.first() {
            return Ok(match taken.text(0)? {
                "credited" => Reserved::Spent,
                _ => Reserved::Elsewhere,
            });
        }
        let params: [Value; 7] = [
            self.tx.into(),
            self.voucher.as_slice().into(),
            self.uid.into(),
            self.epoch.into(),
            self.intent.as_slice().into(),
            i64::from(amount).into(),
            self.now.into(),
        ];
        sql.query(
            "INSERT INTO topups (tx, voucher, card, epoch, intent, amount, state, begun)
             VALUES ($1, $2, $3, $4, $5, $6, 'reserved', $7)",
            &params,
        )
        .await?;
        Ok(Reserved::Yes(amount))
    }
}

/// A card has proved what became of a top-up.
#[derive(Clone)]
pub struct Settle {
    /// Which.
    pub tx: i64,
    /// The card.
    pub uid: Uid,
    /// The epoch of the claim under which the card has proved it.
    pub epoch: i64,
    /// Whether the card has it.
    pub credited: bool,
}

/// The answer to [`Settle`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Settled {
    /// It is in the books now.
    Now,
    /// It was in the books already.
    Before,
}

impl Operation for Settle {
    type Output = Settled;

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Settled, LedgerError> {
        let state = if self.credited {
            "credited"
        } else {
            "released"
        };
        let params = [
            state.into(),
            self.tx.into(),
            self.uid.into(),
            self.epoch.into(),
        ];
        let settled = sql
            .query(
                "UPDATE topups SET state = $1
                 WHERE tx = $2 AND card = $3 AND epoch <= $4 AND state = 'reserved' RETURNING tx",
                &params,
            )
            .await?;
        if !settled.is_empty() {
            return Ok(Settled::Now);
        }
        let found = sql
            .query(
                "SELECT state FROM topups WHERE tx = $1 AND card = $2",
                &[self.tx.into(), self.uid.into()],
            )
            .await?;
        match found.first().map(|row| row.text(0)).transpose()? {
            Some(found) if found == state => Ok(Settled::Before),
            found => Err(LedgerError::Contradiction(format!(
                "top-up {} is {} in the books, and the card {} proves it {state}",
                self.tx,
                found.unwrap_or("missing"),
                self.uid,
            ))),
        }
    }
}

/// The sums.
#[derive(Clone)]
pub struct ReadBooks;

/// What has been issued, and where it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Books {
    /// All vouchers.
    pub issued: i64,
    /// Those that wait for their card.
    pub reserved: i64,
    /// Those that are on a card.
    pub credited: i64,
    /// How many vouchers there are.
    pub vouchers: i64,
    /// How many wait for their card.
    pub waiting: i64,
    /// How many are on a card.
    pub spent: i64,
}

impl Operation for ReadBooks {
    type Output = Books;

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Books, LedgerError> {
        let mut books = Books::default();
        let issued = sql
            .query(
                "SELECT COUNT(*), CAST(COALESCE(SUM(amount), 0) AS BIGINT) FROM vouchers",
                &[],
            )
            .await?;
        if let Some(row) = issued.first() {
            (books.vouchers, books.issued) = (row.int(0)?, row.int(1)?);
        }
        let states = sql
            .query(
                "SELECT state, COUNT(*), CAST(SUM(amount) AS BIGINT) FROM topups GROUP BY state",
                &[],
            )
            .await?;
        for row in &states {
            match row.text(0)? {
                "reserved" => (books.waiting, books.reserved) = (row.int(1)?, row.int(2)?),
                "credited" => (books.spent, books.credited) = (row.int(1)?, row.int(2)?),
                _ => {}
            }
        }
        Ok(books)
    }
}

/// Every top-up that was ever begun: for looking at the books one by one.
#[derive(Clone)]
pub struct ListTopUps;

/// What became of a top-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// Nobody knows yet.
    Reserved,
    /// The card has it.
    Credited,
    /// The card can never have it, and the voucher is free again.
    Released,
}

/// One top-up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TopUp {
    /// Its number, which is the transaction number in the card's record.
    pub tx: i64,
    /// The card.
    pub uid: Uid,
    /// What the voucher is worth.
    pub amount: i32,
    /// What became of it.
    pub state: State,
}

impl Operation for ListTopUps {
    type Output = Vec<TopUp>;

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Vec<TopUp>, LedgerError> {
        let rows = sql
            .query(
                "SELECT tx, card, amount, state FROM topups ORDER BY begun, tx",
                &[],
            )
            .await?;
        let topup = |row: &Row| {
            Ok(TopUp {
                tx: row.int(0)?,
                uid: row.uid(1)?,
                amount: amount(row, 2)?,
                state: match row.text(3)? {
                    "reserved" => State::Reserved,
                    "credited" => State::Credited,
                    _ => State::Released,
                },
            })
        };
        rows.iter().map(topup).collect()
    }
}
