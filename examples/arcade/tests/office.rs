//! What the back office makes of reports: each thing that cannot be, on its own; and that late and missing
//! logs make a thief of nobody.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use std::collections::BTreeSet;

use arcade::office::{Office, Reason};
use arcade::terminal::{self, Report, Suspicion};
use desfire_ev1::purse::{Evidence, Intent, Kind, Record, Settlement, Stamp};
use desfire_ev1::wire::{Amount, U24, Uid};

const UID: Uid = Uid([4, 1, 2, 3, 4, 5, 6]);
const PURSE: u64 = 9;
const DESK: u32 = 1;
const PINBALL: u32 = 2;
const COFFEE: u32 = 3;
/// Long after everything.
const EVENING: u32 = 100_000;

fn office() -> Office {
    let office = Office::in_memory().unwrap();
    office
        .set_up(DESK, "desk", terminal::Kind::Desk, 0)
        .unwrap();
    let machine = terminal::Kind::Machine;
    office.set_up(PINBALL, "pinball", machine, 10).unwrap();
    office.set_up(COFFEE, "coffee", machine, 400).unwrap();
    office.issued(PURSE, UID, "Ada").unwrap();
    office
}

/// The purse's operations: opening, then credits by the desk and debits by pinball, each a thousand
/// seconds after the other. The transaction's number is the operation's.
fn record(sequence: u32, change: i32, balance: i32) -> Record {
    let (kind, terminal) = match change {
        0 => (Kind::Opening, 0),
        1.. => (Kind::Credit, DESK),
        _ => (Kind::Debit, PINBALL),
    };
    Record {
        kind,
        sequence: U24::new(sequence).unwrap(),
        amount: Amount::new(change.abs()).unwrap(),
        balance: Amount::new(balance).unwrap(),
        stamp: Stamp {
            time: 1000 * sequence,
            terminal,
            transaction: sequence.into(),
        },
    }
}

fn intent(before: Record, record: Record) -> Report {
    let bytes: Vec<u8> = [1]
        .into_iter()
        .chain(UID.0)
        .chain(PURSE.to_le_bytes())
        .chain(before.to_bytes())
        .chain(record.to_bytes())
        .collect();
    Report::Intent(Intent::from_bytes(&bytes).unwrap())
}

fn seen(record: Record, time: u32) -> Report {
    Report::Seen {
        time,
        purse: PURSE,
        record,
        newest: true,
    }
}

/// An honest day: 500 put in, 200 and 100 spent; what desk and pinball deliver.
fn honest() -> (Vec<Report>, Vec<Report>) {
    let chain = [
        record(0, 0, 0),
        record(1, 500, 500),
        record(2, -200, 300),
        record(3, -100, 200),
    ];
    let done = |n: usize| {
        let (before, record) = (chain[n - 1], chain[n]);
        [
            seen(before, record.stamp.time),
            intent(before, record),
            Report::Settled(record.stamp, Settlement::Paid),
        ]
    };
    let desk = done(1).to_vec();
    let pinball = [done(2), done(3)].concat();
    (desk, pinball)
}

fn reasons(office: &Office) -> BTreeSet<Reason> {
    office.reasons(UID).unwrap()
}

fn everybody_delivers(office: &mut Office) {
    for terminal in [DESK, PINBALL, COFFEE] {
        office.collect(terminal, EVENING, &[]).unwrap();
    }
}

#[test]
fn an_honest_day_in_any_order_of_deliveries_accuses_nobody() {
    let (desk, pinball) = honest();
    for order in [[DESK, PINBALL, COFFEE], [COFFEE, PINBALL, DESK]] {
        let mut office = office();
        for terminal in order {
            let reports = match terminal {
                DESK => desk.clone(),
                PINBALL => pinball.iter().rev().copied().collect(),
                _ => Vec::new(),
            };
            for _ in 0..2 {
                office.collect(terminal, EVENING, &reports).unwrap();
                assert_eq!(office.audit().unwrap(), []);
            }
        }
        let books = office.books().unwrap();
        assert_eq!((books.money_in, books.money_out, books.open), (500, 300, 0));
    }
}

/// What the honest day lacks or has too much of, and what is found.
#[test]
fn each_thing_that_cannot_be_is_named() {
    let forged = |sequence, change, balance, transaction| {
        let mut forged = record(sequence, change, balance);
        forged.stamp.transaction = transaction;
        forged
    };
    let cases = [
        // A credit in a desk's name, of which the desk knows nothing.
        (forged(4, 900, 1100, 77), 4000, Reason::TopUpOfNobody),
        (forged(4, -100, 100, 77), 4000, Reason::DebitOfNobody),
        // The desk knows the transaction, but with another amount.
        (forged(4, 901, 1101, 1), 4000, Reason::TopUpOfNobody),
        // A number after one that nobody has seen.
        (forged(5, -10, 90, 77), 5000, Reason::Gap),
        (forged(4, -100, 150, 77), 4000, Reason::DoesNotAddUp),
        (forged(3, -50, 250, 77), 3500, Reason::TwoPasts),
        // Operation 1 was the newest, long after operation 2 was.
        (record(1, 500, 500), 9000, Reason::SetBack),
    ];
    for (record, time, reason) in cases {
        let (desk, pinball) = honest();
        let mut office = office();
        office.collect(DESK, 3100, &desk).unwrap();
        office.collect(PINBALL, 3100, &pinball).unwrap();
        office.collect(COFFEE, time, &[seen(record, time)]).unwrap();
        everybody_delivers(&mut office);
        let found = reasons(&office);
        assert!(found.contains(&reason), "{reason}: {found:?}");
        assert_eq!(office.block_list().unwrap(), BTreeSet::from([UID]));
        let finding = &office.audit().unwrap()[0];
        assert_eq!(finding.holder.as_deref(), Some("Ada"));
    }
}

/// What a desk or a machine has not delivered yet is nobody's fault.
#[test]
fn what_is_missing_counts_only_when_all_have_delivered() {
    let (_, pinball) = honest();
    let mut office = office();
    office.collect(PINBALL, EVENING, &pinball).unwrap();
    office.collect(COFFEE, EVENING, &[]).unwrap();
    assert_eq!(office.audit().unwrap(), []);
    // Now the desk says that it has nothing to tell of that day.
    office.collect(DESK, EVENING, &[]).unwrap();
    let expected = [Reason::TopUpOfNobody, Reason::Gap, Reason::Overspent];
    assert_eq!(reasons(&office), BTreeSet::from(expected));
}

#[test]
fn faster_than_walking_is_two_cards() {
    for (seconds, found) in [(120, false), (119, true), (0, true)] {
        let (desk, pinball) = honest();
        let mut office = office();
        office.collect(DESK, EVENING, &desk).unwrap();
        office.collect(PINBALL, EVENING, &pinball).unwrap();
        // 390 m from pinball, where it was last.
        let tap = seen(record(2, -200, 300), 3000 + seconds);
        office.collect(COFFEE, EVENING, &[tap]).unwrap();
        let reasons = reasons(&office);
        assert_eq!(reasons.contains(&Reason::TwoPlaces), found, "{seconds} s");
    }
}

#[test]
fn what_a_terminal_has_refused_is_blocked_and_a_failed_handshake_is_not() {
    let copy = Uid([4, 9, 9, 9, 9, 9, 9]);
    let foreign = Suspicion::Evidence(Evidence::Foreign {
        card: copy,
        stored: UID,
    });
    for (uid, why, blocked) in [
        (copy, foreign, Some("Ada")),
        (UID, Suspicion::WrongKey, None),
    ] {
        let mut office = office();
        let reports: Vec<_> = (1..4)
            .map(|time| Report::Suspicion { time, uid, why })
            .collect();
        office.collect(COFFEE, 10, &reports).unwrap();
        let found = office.audit().unwrap();
        assert_eq!(found.len(), usize::from(blocked.is_some()));
        let holder = found.first().and_then(|finding| finding.holder.as_deref());
        assert_eq!(holder, blocked);
        assert_eq!(
            found.first().map(|finding| finding.uid),
            blocked.map(|_| uid)
        );
    }
}

/// Every way in which the office gets to know what became of an operation whose terminal does not.
#[test]
fn an_open_operation_is_settled_by_what_others_saw() {
    let (desk, _) = honest();
    let (before, lost) = (record(1, 500, 500), record(2, -200, 300));
    let mut other = record(2, -70, 430);
    other.stamp.terminal = COFFEE;
    // What COFFEE has seen and when, and whether the lost operation was paid.
    let cases = [
        (vec![], None),
        (vec![seen(lost, 2500)], Some(true)),
        (vec![intent(before, other), seen(other, 2500)], Some(false)),
        // The card without it, long after; and within what the clocks may differ.
        (vec![seen(before, 2500)], Some(false)),
        (vec![seen(before, 2008)], None),
    ];
    for (reports, paid) in cases {
        let mut office = office();
        office.collect(DESK, 1500, &desk).unwrap();
        office
            .collect(PINBALL, 2000, &[intent(before, lost)])
            .unwrap();
        office.collect(COFFEE, 2600, &reports).unwrap();
        let book = &office.purses().unwrap()[0];
        assert_eq!(book.open, i64::from(paid.is_none()), "{reports:?}");
        let other = if reports.len() == 2 { 70 } else { 0 };
        let expected = other + if paid == Some(true) { 200 } else { 0 };
        assert_eq!(book.money_out, expected, "{reports:?}");
    }
}
