//! What a person settles at the service desk, because the card does not tell any more.
//!
//! Nothing of it is forgotten: every settlement by hand stands in the books with who, why and on what
//! grounds, and nothing here changes one.

use desfire_ev1::wire::Uid;

use super::operations::amount;
use super::{LedgerError, Operation, Row, Sql, Value};

/// What kind of reason keeps a card from settling a top-up, which decides what a person may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Its log has no record old enough: the amount may have been on the card, and may be spent.
    Forgotten,
    /// It has the top-up's record, and the value from before it: the record was committed without the
    /// amount.
    Half,
    /// Anything else; the amount may be on the card.
    Unclear,
}

impl Kind {
    const fn text(self) -> &'static str {
        match self {
            Self::Forgotten => "forgotten",
            Self::Half => "half",
            Self::Unclear => "unclear",
        }
    }

    /// The database has no others; if it had, least would be allowed.
    fn from_text(text: &str) -> Self {
        match text {
            "forgotten" => Self::Forgotten,
            "half" => Self::Half,
            _ => Self::Unclear,
        }
    }
}

/// Why a card could not settle a top-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What a person may do about it.
    pub kind: Kind,
    /// What is the matter, in words.
    pub said: String,
}

/// What a card has proved that it cannot settle: the grounds for doing so by hand.
///
/// Only for the top-up that was open when the card proved it; the conversation has had the card drop what
/// was pending before. So nothing that was sent before can change the card any more.
#[derive(Clone)]
pub struct Find {
    /// The top-up that is open.
    pub tx: i64,
    /// Why the card could not settle it.
    pub finding: Finding,
    /// Now, in milliseconds since 1970.
    pub now: i64,
}

impl Operation for Find {
    type Output = ();

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<(), LedgerError> {
        let params = [
            self.tx.into(),
            self.finding.kind.text().into(),
            self.finding.said.as_str().into(),
            self.now.into(),
        ];
        sql.query(
            "INSERT INTO found (tx, kind, said, at) VALUES ($1, $2, $3, $4)
             ON CONFLICT (tx) DO UPDATE
                SET kind = excluded.kind, said = excluded.said, at = excluded.at RETURNING tx",
            &params,
        )
        .await?;
        Ok(())
    }
}

/// Every top-up with an unknown end, the oldest first.
#[derive(Clone)]
pub struct ListWaiting;

/// A top-up with an unknown end. It keeps its voucher from being spent, and its card from being topped
/// up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Its number.
    pub tx: i64,
    /// The card.
    pub uid: Uid,
    /// Whose.
    pub account: String,
    /// What it is worth.
    pub amount: i32,
    /// When it was begun, in milliseconds since 1970.
    pub begun: i64,
    /// What was to be done to the purse.
    pub intent: Vec<u8>,
    /// Why the card cannot settle it, if it has been asked and could not: see [`Find`].
    pub found: Option<Finding>,
}

impl Operation for ListWaiting {
    type Output = Vec<Waiting>;

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Vec<Waiting>, LedgerError> {
        let rows = sql
            .query(
                "SELECT topups.tx, topups.card, cards.account, topups.amount, topups.begun,
                    topups.intent, COALESCE(found.kind, ''), COALESCE(found.said, '')
                 FROM topups JOIN cards ON cards.uid = topups.card
                    LEFT JOIN found ON found.tx = topups.tx
                 WHERE topups.state = 'reserved' ORDER BY topups.begun, topups.tx",
                &[],
            )
            .await?;
        let waiting = |row: &Row| {
            let (kind, said) = (row.text(6)?, row.text(7)?);
            let found = (!kind.is_empty()).then(|| Finding {
                kind: Kind::from_text(kind),
                said: said.to_owned(),
            });
            Ok(Waiting {
                tx: row.int(0)?,
                uid: row.uid(1)?,
                account: row.text(2)?.to_owned(),
                amount: amount(row, 3)?,
                begun: row.int(4)?,
                intent: row.bytes(5)?.to_vec(),
                found,
            })
        };
        rows.iter().map(waiting).collect()
    }
}

/// A person settles a top-up. On what grounds that may be is the business of [`crate::service`].
#[derive(Clone)]
pub struct SettleByHand {
    /// Which.
    pub tx: i64,
    /// Whether the card has it; otherwise the voucher is free again.
    pub credited: bool,
    /// Who has decided.
    pub who: String,
    /// Why.
    pub why: String,
    /// What there is to show for it.
    pub grounds: String,
    /// Now, in milliseconds since 1970.
    pub now: i64,
}

/// The answer to [`SettleByHand`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ByHand {
    /// It is in the books now.
    Done,
    /// There is no such top-up, or it is not open any more.
    NotOpen,
    /// A conversation with the card is going on, and may settle it.
    InUse,
}

impl Operation for SettleByHand {
    type Output = ByHand;

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<ByHand, LedgerError> {
        let open = sql
            .query(
                "SELECT card FROM topups WHERE tx = $1 AND state = 'reserved'",
                &[self.tx.into()],
            )
            .await?;
        let Some(open) = open.first() else {
            return Ok(ByHand::NotOpen);
        };
        // A claim of its own: no conversation that began before can reserve any more.
        let params = [open.uid(0)?.into(), self.now.into()];
        let claimed = sql
            .query(
                "UPDATE cards SET epoch = epoch + 1, node = '', lease_until = 0
                 WHERE uid = $1 AND lease_until < $2 RETURNING epoch",
                &params,
            )
            .await?;
        if claimed.is_empty() {
            return Ok(ByHand::InUse);
        }
        let state = if self.credited {
            "credited"
        } else {
            "released"
        };
        let params = [state.into(), self.tx.into()];
        let settled = sql
            .query(
                "UPDATE topups SET state = $1 WHERE tx = $2 AND state = 'reserved' RETURNING tx",
                &params,
            )
            .await?;
        if settled.is_empty() {
            return Ok(ByHand::NotOpen);
        }
        let params: [Value; 6] = [
            self.tx.into(),
            state.into(),
            self.who.as_str().into(),
            self.why.as_str().into(),
            self.grounds.as_str().into(),
            self.now.into(),
        ];
        sql.query(
            "INSERT INTO settlements (tx, state, who, why, grounds, at)
             VALUES ($1, $2, $3, $4, $5, $6)",
            &params,
        )
        .await?;
        Ok(ByHand::Done)
    }
}

/// Everything that was ever settled by hand, the oldest first.
#[derive(Clone)]
pub struct ReadTrail;

/// One settlement by hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Trace {
    /// The top-up.
    pub tx: i64,
    /// The card.
    pub uid: Uid,
    /// What it is worth.
    pub amount: i32,
    /// As what it was settled.
    pub credited: bool,
    /// By whom.
    pub who: String,
    /// Why.
    pub why: String,
    /// On what grounds.
    pub grounds: String,
    /// When, in milliseconds since 1970.
    pub at: i64,
}

impl Operation for ReadTrail {
    type Output = Vec<Trace>;

    async fn run<S: Sql>(&self, sql: &mut S) -> Result<Vec<Trace>, LedgerError> {
        let rows = sql
            .query(
                "SELECT settlements.tx, topups.card, topups.amount, settlements.state,
                    settlements.who, settlements.why, settlements.grounds, settlements.at
                 FROM settlements JOIN topups ON topups.tx = settlements.tx
                 ORDER BY settlements.at, settlements.tx",
                &[],
            )
            .await?;
        let trace = |row: &Row| {
            Ok(Trace {
                tx: row.int(0)?,
                uid: row.uid(1)?,
                amount: amount(row, 2)?,
                credited: row.text(3)? == "credited",
                who: row.text(4)?.to_owned(),
                why: row.text(5)?.to_owned(),
                grounds: row.text(6)?.to_owned(),
                at: row.int(7)?,
            })
        };
        rows.iter().map(trace).collect()
    }
}
