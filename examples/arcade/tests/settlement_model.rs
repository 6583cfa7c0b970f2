//! The rule of settlement, explored exhaustively: one card, two machines, a back office, and everything
//! that can happen between them in every order.
//!
//! What the card has in its log is the truth: an operation happened if its record was ever committed. The
//! machines and the back office know only what reaches them. The rule itself is the library's,
//! [`Intent::judge`]; the model gives it histories as a card would.
//!
//! What can happen, at any time:
//!
//! | step | |
//! |---|---|
//! | a tap at a machine | settles what the machine has open, then tries a debit, which ends in: done and told; done and not told; torn before the commit |
//! | a tap at a machine, torn while settling | what was settled by then stays settled |
//! | a delivery | a machine's oldest undelivered report reaches the office, late or at once |
//!
//! Alternating and repeated taps, at the same machine or the other one, come of these. A card
//! remembers two records here instead of five, so that "too late" is reached after three operations.
//!
//! Invariants: nothing counts that did not happen, in a machine's books or in the office's; nothing that
//! happened counts as not paid; when all is delivered and every machine has settled or been told that it
//! is too late, everything that happened counts exactly once. Then the same with broken rules, each of
//! which must fail.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use std::collections::BTreeSet;

use desfire_ev1::purse::{Evidence, History, Intent, Kind, Record, Settlement, Stamp};
use desfire_ev1::wire::{Amount, U24, Uid};
use stateright::{Checker, HasDiscoveries, Model, Property};

const UID: Uid = Uid([4, 1, 2, 3, 4, 5, 6]);
/// How many records the card shows.
const REMEMBERED: usize = 2;
/// How many debits are tried in all.
const TRIES: u64 = 4;
/// What is on the card at first.
const MONEY: i32 = 100;

/// A transaction: the machine and its number.
type Transaction = (u32, u64);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct State {
    /// Everything that was ever committed, the oldest first; of it the card shows the last.
    log: Vec<Record>,
    machines: Vec<Machine>,
    /// What has reached the office.
    seen: BTreeSet<(u32, Transaction)>,
    tried: BTreeSet<(u32, Transaction)>,
    settled: BTreeSet<(Transaction, bool)>,
    tries: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Machine {
    /// The journal.
    open: Vec<Intent>,
    paid: Vec<Transaction>,
    not_paid: Vec<Transaction>,
    /// Not yet delivered, the oldest first.
    outbox: Vec<Report>,
    next: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Report {
    Tried(u32, Transaction),
    Seen(u32, Transaction),
    Settled(Transaction, bool),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum End {
    /// The commit was answered.
    Told,
    /// It was carried out, and the answer was lost.
    Lost,
    /// The card left before it.
    Torn,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Action {
    /// A tap at a machine, with a debit at the end.
    Debit(usize, End),
    /// A tap that is torn after so many settlements.
    Settle(usize, usize),
    /// A machine's report reaches the office.
    Deliver(usize),
}

/// What a machine makes of an open intent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Rule {
    /// The library's.
    True,
    /// No answer means not paid: nothing is kept.
    SilenceIsNo,
    /// No answer means paid.
    SilenceIsYes,
    /// The number is on the card, so it was paid; whose it was is not looked at.
    NumberAlone,
    /// What is overwritten was not paid.
    TooLateIsNo,
    /// What is overwritten was paid.
    TooLateIsYes,
    /// No answer means that it is sent again, without looking.
    Resend,
}

struct Arcade {
    rule: Rule,
}

impl State {
    fn history(&self) -> History {
        let newest_first: Vec<_> = self.log.iter().rev().take(REMEMBERED).copied().collect();
        History::new(&newest_first).expect("the log is a chain")
    }

    fn happened(&self, transaction: Transaction) -> usize {
        let here = |record: &&Record| id(record) == transaction;
        self.log.iter().filter(here).count()
    }

    /// What the office makes of a transaction, by what has reached it.
    fn office(&self, number: u32, transaction: Transaction) -> Option<bool> {
        if self.seen.contains(&(number, transaction)) {
            return Some(true);
        }
        if let Some((_, paid)) = self.settled.iter().find(|(of, _)| *of == transaction) {
            return Some(*paid);
        }
        let other = self.seen.iter().any(|(seen, _)| *seen == number);
        other.then_some(false)
    }

    /// Nothing on its way, nothing open at a machine.
    fn quiet(&self) -> bool {
        self.machines
            .iter()
            .all(|machine| machine.open.is_empty() && machine.outbox.is_empty())
    }
}

fn id(record: &Record) -> Transaction {
    (record.stamp.terminal, record.stamp.transaction)
}

fn number(record: &Record) -> u32 {
    record.sequence.get()
}

impl Arcade {
    fn judge(&self, intent: &Intent, history: &History) -> Settlement {
        let there = |number: u32| history.number(number);
        match self.rule {
            Rule::NumberAlone => match there(number(intent.record())) {
                Some(_) => Settlement::Paid,
                None => self.library(intent, history),
            },
            Rule::TooLateIsNo | Rule::TooLateIsYes => match self.library(intent, history) {
                Settlement::TooLate if self.rule == Rule::TooLateIsNo => Settlement::NotPaid,
                Settlement::TooLate => Settlement::Paid,
                settled => settled,
            },
            _ => self.library(intent, history),
        }
    }

    /// A card that was never forged gives no evidence of forgery.
    fn library(&self, intent: &Intent, history: &History) -> Settlement {
        intent
            .judge(history)
            .unwrap_or_else(|evidence: Evidence| panic!("{evidence} on an honest card"))
    }

    /// Opens the purse and settles up to so many.
    fn open(&self, state: &mut State, which: usize, at_most: usize) {
        if self.rule == Rule::Resend {
            return;
        }
        let history = state.history();
        let machine = &mut state.machines[which];
        let newest = history.newest();
        machine
            .outbox
            .push(Report::Seen(number(newest), id(newest)));
        let settled = machine.open.len().min(at_most);
        let some: Vec<_> = machine.open.drain(..settled).collect();
        for intent in some {
            let transaction = id(intent.record());
            let paid = match self.judge(&intent, &history) {
                Settlement::Paid => true,
                Settlement::NotPaid => false,
                Settlement::TooLate => continue,
            };
            machine.close(transaction, paid);
        }
    }

    fn debit(&self, state: &mut State, which: usize, end: End) {
        let before = *state.history().newest();
        let machine = &mut state.machines[which];
        let again = machine.open.pop().map(|intent| id(intent.record()).1);
        machine.next += u64::from(again.is_none());
        let terminal = u32::try_from(which).unwrap() + 1;
        let record = Record {
            kind: Kind::Debit,
            sequence: U24::new(number(&before) + 1).unwrap(),
            amount: Amount::new(1).unwrap(),
            balance: Amount::new(before.balance.get() - 1).unwrap(),
            stamp: Stamp {
                time: 0,
                terminal,
                transaction: again.unwrap_or(machine.next),
            },
        };
        let transaction = id(&record);
        machine
            .outbox
            .push(Report::Tried(number(&record), transaction));
        match (end, self.rule) {
            (End::Told, _) | (End::Lost | End::Torn, Rule::SilenceIsYes) => {
                machine.close(transaction, true);
            }
            (End::Lost | End::Torn, Rule::SilenceIsNo) => machine.close(transaction, false),
            (End::Lost | End::Torn, _) => machine.open.push(intent(before, record)),
        }
        if end != End::Torn {
            state.log.push(record);
        }
    }
}

impl Machine {
    fn close(&mut self, transaction: Transaction, paid: bool) {
        let books = if paid {
            &mut self.paid
        } else {
            &mut self.not_paid
        };
        books.push(transaction);
        self.outbox.push(Report::Settled(transaction, paid));
    }
}

/// As it comes from a machine's disk.
fn intent(before: Record, record: Record) -> Intent {
    let bytes: Vec<u8> = [1]
        .into_iter()
        .chain(UID.0)
        .chain(1_u64.to_le_bytes())
        .chain(before.to_bytes())
        .chain(record.to_bytes())
        .collect();
    Intent::from_bytes(&bytes).unwrap()
}

impl Model for Arcade {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let record = |kind, number: u32, money: i32| Record {
            kind,
            sequence: U24::new(number).unwrap(),
            amount: Amount::new(money).unwrap(),
            balance: Amount::new(money).unwrap(),
            stamp: Stamp {
                time: 0,
                terminal: 9,
                transaction: number.into(),
            },
        };
        vec![State {
            log: vec![record(Kind::Opening, 0, 0), record(Kind::Credit, 1, MONEY)],
            machines: vec![Machine::default(); 2],
            seen: BTreeSet::new(),
            tried: BTreeSet::new(),
            settled: BTreeSet::new(),
            tries: 0,
        }]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        for (which, machine) in state.machines.iter().enumerate() {
            if state.tries < TRIES {
                let ends = [End::Told, End::Lost, End::Torn];
                actions.extend(ends.map(|end| Action::Debit(which, end)));
            }
            // A tap that settles something and does nothing else.
            actions.extend((1..=machine.open.len()).map(|some| Action::Settle(which, some)));
            if !machine.outbox.is_empty() {
                actions.push(Action::Deliver(which));
            }
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        match action {
            Action::Debit(which, end) => {
                state.tries += 1;
                self.open(&mut state, which, usize::MAX);
                self.debit(&mut state, which, end);
            }
            Action::Settle(which, some) => {
                self.open(&mut state, which, some);
            }
            Action::Deliver(which) => match state.machines[which].outbox.remove(0) {
                Report::Tried(number, transaction) => {
                    state.tried.insert((number, transaction));
                }
                Report::Seen(number, transaction) => {
                    state.seen.insert((number, transaction));
                }
                Report::Settled(transaction, paid) => {
                    state.settled.insert((transaction, paid));
                }
            },
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("nothing counts twice", |_, state: &State| {
                let paid = state.machines.iter().flat_map(|machine| &machine.paid);
                let count = paid.clone().count();
                let different: BTreeSet<_> = paid.collect();
                let once = state
                    .log
                    .iter()
                    .all(|record| state.happened(id(record)) == 1);
                count == different.len() && once
            }),
            Property::always("nothing counts that did not happen", |_, state: &State| {
                let machines = state.machines.iter().flat_map(|machine| &machine.paid);
                let office = state
                    .tried
                    .iter()
                    .filter(|(number, of)| state.office(*number, *of) == Some(true))
                    .map(|(_, of)| of);
                machines.chain(office).all(|of| state.happened(*of) == 1)
            }),
            Property::always("nothing that happened is denied", |_, state: &State| {
                let machines = state.machines.iter().flat_map(|machine| &machine.not_paid);
                let office = state
                    .tried
                    .iter()
                    .filter(|(number, of)| state.office(*number, *of) == Some(false))
                    .map(|(_, of)| of);
                machines.chain(office).all(|of| state.happened(*of) == 0)
            }),
            Property::always("in the end nothing is lost", |_, state: &State| {
                // The opening and the first credit were others'.
                !state.quiet()
                    || state.log.iter().skip(2).all(|record| {
                        state.office(number(record), id(record)) == Some(true)
                            && state.tried.contains(&(number(record), id(record)))
                    })
            }),
            Property::always("in the end nothing is open", |_, state: &State| {
                !state.quiet()
                    || state
                        .tried
                        .iter()
                        .all(|(number, of)| state.office(*number, *of).is_some())
            }),
            Property::sometimes("a debit is lost and found paid", |_, state: &State| {
                state.machines.iter().any(|machine| {
                    let open = machine.open.iter();
                    let mut paid = open.filter(|intent| state.happened(id(intent.record())) == 1);
                    paid.any(|intent| intent.judge(&state.history()) == Ok(Settlement::Paid))
                })
            }),
            Property::sometimes(
                "both machines are open for one number",
                |_, state: &State| {
                    let [a, b] = state.machines.as_slice() else {
                        return false;
                    };
                    a.open.iter().any(|intent| {
                        let same =
                            |other: &Intent| number(other.record()) == number(intent.record());
                        b.open.iter().any(same)
                    })
                },
            ),
            Property::sometimes("it is too late for the card", |_, state: &State| {
                let mut open = state.machines.iter().flat_map(|machine| &machine.open);
                open.any(|intent| intent.judge(&state.history()) == Ok(Settlement::TooLate))
            }),
            Property::sometimes("everything is quiet after all tries", |_, state: &State| {
                state.tries == TRIES && state.quiet()
            }),
        ]
    }
}

/// Every state, or those up to the first that breaks an invariant.
fn check(rule: Rule) -> impl Checker<Arcade> {
    let checker = Arcade { rule }.checker();
    checker
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join()
}

#[test]
fn the_rule_holds_in_every_order_of_events() {
    let checker = check(Rule::True);
    println!(
        "{} states, {} of them different, up to {} steps deep",
        checker.state_count(),
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.assert_properties();
}

/// The model can fail: rules that look reasonable, and what is wrong with them.
#[test]
fn broken_rules_are_found() {
    for (rule, broken) in [
        (Rule::SilenceIsNo, "nothing that happened is denied"),
        (Rule::SilenceIsYes, "nothing counts that did not happen"),
        (Rule::NumberAlone, "nothing counts that did not happen"),
        (Rule::TooLateIsNo, "nothing that happened is denied"),
        (Rule::TooLateIsYes, "nothing counts that did not happen"),
        (Rule::Resend, "nothing counts twice"),
    ] {
        let checker = check(rule);
        let path = checker.discovery(broken).expect(broken);
        println!("{rule:?}: {broken}: {:?}", path.into_actions());
    }
}
