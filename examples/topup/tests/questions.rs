//! The questions that such a system must answer, with the answer in the test's name. Each is asked
//! with frames one by one and with frames together, and the books are looked at after each try.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::sync::Arc;
use std::time::Duration;

use desfire_ev1::purse::Intent;
use desfire_ev1::wire::Uid;
use desfire_ev1::{Authenticated, Session, Unauthenticated};
use support::{Phone, Plan, Relay, START, SharedCard, Shop, converse, desk, desk_with, lock, uid};
use tokio::sync::Barrier;
use topup::card::Layout;
use topup::keys::{KeyHolder, KeyHolderError};
use topup::ledger::{
    Claim, Claimed, Kind, Ledger, ListWaiting, ReadTrail, Reserve, Reserved, Waiting, fingerprint,
    now_ms,
};
use topup::link::{PhoneLink, Pipe};
use topup::message::{Ending, Reason};
use topup::service::{Grounds, ServiceError, settle};

/// Little, so that a card takes many.
const AMOUNT: i32 = 10;

/// A shop with one account and one card.
async fn small_shop(together: bool) -> (Shop, SharedCard) {
    let shop = Shop::in_sqlite(together).await;
    shop.account("alice").await;
    let card = shop.card(1, "alice").await;
    (shop, card)
}

fn balance(shop: &Shop, card: &SharedCard) -> i32 {
    support::read(&card.lock().unwrap(), &shop.desk.layout).0
}

/// Runs one disturbed conversation with each plan in turn, on the same card with a new voucher each,
/// then an honest one with the same voucher. Whatever happened, the amount is on the card once.
async fn each(plans: impl Iterator<Item = Plan>, together: bool) -> (usize, usize, usize) {
    let (shop, card) = small_shop(together).await;
    let (mut done, mut unsettled, mut refused) = (0, 0, 0);
    for (number, plan) in plans.enumerate() {
        let code = format!("{number}");
        let before = balance(&shop, &card);
        shop.voucher(&code, "alice", AMOUNT).await;
        let first = shop
            .converse(Phone::new(&card, "alice", &code, plan.clone()))
            .await;
        match shop.audit().await {
            (0, 0) => {}
            (1, 0) => unsettled += 1,
            other => panic!("{plan:?}: {other:?}"),
        }
        card.lock().unwrap().clear_faults();
        let second = shop.honest(&card, "alice", &code).await;
        let ending = second
            .unwrap_or_else(|reason| panic!("{plan:?}: {first:?}, {reason}"))
            .ending;
        assert_eq!(shop.audit().await, (0, 0));
        assert_eq!(
            balance(&shop, &card),
            before + AMOUNT,
            "{plan:?}: {first:?}, {ending:?}"
        );
        match first {
            Ok(_) => done += 1,
            Err(_) => refused += 1,
        }
        if first.is_ok() {
            assert_eq!(ending, Ending::AlreadyCredited);
        }
    }
    let books = shop.books().await;
    assert_eq!((books.issued, books.reserved), (books.credited, 0));
    (done, unsettled, refused)
}

#[tokio::test]
async fn q0_an_honest_top_up_is_done_once_and_asked_again_it_is_already_done() {
    for together in [false, true] {
        let (shop, card) = small_shop(together).await;
        shop.voucher("GOLD", "alice", AMOUNT).await;
        let first = shop.honest(&card, "alice", "GOLD").await.unwrap();
        assert_eq!(
            (first.ending, first.balance),
            (Ending::Credited, START + AMOUNT)
        );
        assert_eq!(first.frames, 9);
        assert_eq!(first.round_trips, if together { 4 } else { 10 });
        let again = shop.honest(&card, "alice", "GOLD").await.unwrap();
        assert_eq!(again.ending, Ending::AlreadyCredited);
        assert_eq!(shop.audit().await, (0, 0));
        assert_eq!(balance(&shop, &card), START + AMOUNT);
    }
}

#[tokio::test]
async fn q1_the_connection_breaks_at_any_message_and_the_next_tap_settles_it() {
    for together in [false, true] {
        let messages = if together { 3 } else { 9 };
        let before = (0..messages).map(|n| Plan {
            break_before_playing: Some(n),
            ..Plan::default()
        });
        let after = (0..messages).map(|n| Plan {
            break_after_playing: Some(n),
            ..Plan::default()
        });
        let silent = (0..messages).map(|n| Plan {
            silent_after: Some(n),
            ..Plan::default()
        });
        let (done, unsettled, refused) = each(before.chain(after).chain(silent), together).await;
        assert_eq!((done, refused), (0, 3 * messages));
        // From the first change on the end is open, whether or not the phone has played it: it
        // could have.
        assert_eq!(unsettled, if together { 3 } else { 9 });
    }
}

#[tokio::test]
async fn q2_the_card_leaves_at_any_frame_or_effect_and_the_next_tap_settles_it() {
    for together in [false, true] {
        let frames = (0..9).map(|n| Plan {
            leave_before_frame: Some(n),
            ..Plan::default()
        });
        let lost = (1..=9).map(|n| Plan {
            lose_reply: Some(n),
            ..Plan::default()
        });
        // Record, value and commit are one effect each.
        let cut = (1..=3).flat_map(|n| {
            let before = Plan {
                cut_before: Some(n),
                ..Plan::default()
            };
            let after = Plan {
                cut_after: Some(n),
                ..Plan::default()
            };
            [before, after]
        });
        let (done, unsettled, _) = each(frames.chain(lost).chain(cut), together).await;
        assert_eq!((done, unsettled), (0, 3 + 3 + 6));
    }
}

/// The conversation's commit is on its way; this is the number of its frame.
const COMMIT: usize = 8;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn q3_of_several_clients_that_claim_one_card_at_once_one_gets_it_and_the_others_hear_so() {
    let (shop, card) = small_shop(true).await;
    // A second server node with the same books.
    let other = desk(Ledger::open(&shop.file()).await.unwrap(), "two", true);
    let mut credited = 0;
    for round in 0..10 {
        let mut phones = Vec::new();
        for number in 0..8 {
            let code = format!("{round} {number}");
            shop.voucher(&code, "alice", AMOUNT).await;
            phones.push(Phone::new(&card, "alice", &code, Plan::default()));
        }
        let tasks: Vec<_> = phones
            .into_iter()
            .enumerate()
            .map(|(number, phone)| {
                let desk = if number % 2 == 0 { &shop.desk } else { &other }.clone();
                tokio::spawn(async move { converse(&desk, phone).await })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            match task.await.unwrap() {
                Ok(finished) => {
                    assert_eq!(finished.ending, Ending::Credited);
                    done += 1;
                }
                Err(reason) => assert_eq!(reason, Reason::CardInUse),
            }
        }
        assert!(done >= 1);
        credited += done;
        assert_eq!(shop.audit_with(&[&shop.desk, &other]).await, (0, 0));
    }
    assert_eq!(balance(&shop, &card), START + credited * AMOUNT);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn q3_while_one_client_has_the_card_all_others_on_all_nodes_hear_so() {
    let (mut shop, card) = small_shop(true).await;
    // Nobody is to run out of time here.
    let patience = &mut Arc::get_mut(&mut shop.desk).unwrap().patience;
    patience.message = Duration::from_secs(60);
    patience.conversation = Duration::from_secs(60);
    let other = desk(Ledger::open(&shop.file()).await.unwrap(), "two", true);
    shop.voucher("GOLD", "alice", AMOUNT).await;
    let hold = Arc::new(Barrier::new(2));
    let plan = Plan {
        hold: Some(hold.clone()),
        ..Plan::default()
    };
    let phone = Phone::new(&card, "alice", "GOLD", plan);
    let desk = shop.desk.clone();
    let first = tokio::spawn(async move { converse(&desk, phone).await });
    hold.wait().await;
    for desk in [&shop.desk, &other, &shop.desk, &other] {
        let plan = Plan {
            no_activation: true,
            ..Plan::default()
        };
        let phone = Phone::new(&card, "alice", "GOLD", plan);
        assert_eq!(converse(desk, phone).await, Err(Reason::CardInUse));
    }
    hold.wait().await;
    let first = first.await.unwrap().unwrap();
    assert_eq!(first.ending, Ending::Credited);
    assert_eq!(shop.audit_with(&[&shop.desk, &other]).await, (0, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn q4_one_voucher_used_at_once_by_many_users_and_on_two_nodes_is_spent_once() {
    let shop = Shop::in_sqlite(true).await;
    let other = desk(Ledger::open(&shop.file()).await.unwrap(), "two", true);
    shop.account("alice").await;
    shop.account("mallory").await;
    let mut cards = Vec::new();
    for number in 0..8 {
        let account = if number < 6 { "alice" } else { "mallory" };
        cards.push((account, shop.card(number, account).await));
    }
    for round in 0..10 {
        let code = format!("{round}");
        shop.voucher(&code, "alice", AMOUNT).await;
        let tasks: Vec<_> = cards
            .iter()
            .enumerate()
            .map(|(number, (account, card))| {
                let desk = if number % 2 == 0 { &shop.desk } else { &other }.clone();
                let phone = Phone::new(card, account, &code, Plan::default());
                let own = *account == "alice";
                tokio::spawn(async move { (own, converse(&desk, phone).await) })
            })
            .collect();
        let mut done = 0;
        for task in tasks {
            match task.await.unwrap() {
                (true, Ok(finished)) => {
                    assert_eq!(finished.ending, Ending::Credited);
                    done += 1;
                }
                (true, Err(reason)) => {
                    assert!(
                        matches!(reason, Reason::Spent | Reason::Unsettled),
                        "{reason:?}"
                    );
                }
                // To everybody else it does not exist.
                (false, outcome) => assert_eq!(outcome, Err(Reason::Voucher)),
            }
        }
        assert_eq!(done, 1);
        assert_eq!(shop.audit_with(&[&shop.desk, &other]).await, (0, 0));
    }
}

/// A top-up whose answer is lost, done or not, and six rides: the card's log, which holds five records, has
/// forgotten it. Returns the machines' intents.
async fn forgotten(shop: &Shop, card: &SharedCard, voucher: &str, done: bool) -> Vec<Intent> {
    let last = if shop.desk.together { 2 } else { 8 };
    let plan = Plan {
        break_after_playing: Some(last),
        withhold_frame: (!done).then_some(COMMIT),
        ..Plan::default()
    };
    let first = shop
        .converse(Phone::new(card, "alice", voucher, plan))
        .await;
    assert!(first.is_err());
    (0..6).map(|_| shop.ride(card, 1)).collect()
}

async fn waiting(shop: &Shop) -> Vec<Waiting> {
    shop.desk.ledger.perform(ListWaiting).await.unwrap()
}

/// The intent that names the top-up's record number as the one before it.
fn right_after<'i>(intents: &'i [Intent], waiting: &Waiting) -> &'i Intent {
    let number = Intent::from_bytes(&waiting.intent)
        .unwrap()
        .record()
        .sequence;
    let mut found = intents
        .iter()
        .filter(|intent| intent.before().sequence == number);
    found.next().unwrap()
}

#[tokio::test]
async fn q5_what_the_card_has_forgotten_a_person_settles_by_what_a_machine_has_seen() {
    for (together, done) in [(false, false), (false, true), (true, false), (true, true)] {
        let (shop, card) = small_shop(together).await;
        let other = shop.card(2, "alice").await;
        shop.voucher("GOLD", "alice", AMOUNT).await;
        let intents = forgotten(&shop, &card, "GOLD", done).await;
        // Card and voucher are blocked, and nothing is guessed.
        let tap = shop.honest(&card, "alice", "").await;
        assert_eq!(tap, Err(Reason::Desk));
        let spent = shop.honest(&other, "alice", "GOLD").await;
        assert_eq!(spent, Err(Reason::Unsettled));
        let open = waiting(&shop).await;
        let [open] = open.as_slice() else {
            panic!("{open:?}");
        };
        let found = open.found.as_ref().unwrap();
        assert_eq!(found.kind, Kind::Forgotten);
        assert!(found.said.contains("forgotten"));

        let ledger = &shop.desk.ledger;
        let by = |seen: &Intent| Grounds::Seen(Box::new(*seen));
        let telling = by(right_after(&intents, open));
        // Of another moment, of another card, by nobody.
        let foreign = shop.ride(&other, 1);
        for wrong in [&intents[5], &foreign] {
            let refused = settle(ledger, open.tx, &by(wrong), "Jo", "a letter").await;
            assert!(matches!(refused, Err(ServiceError::TellsNothing)));
        }
        let refused = settle(ledger, open.tx, &telling, " ", "a letter").await;
        assert!(matches!(refused, Err(ServiceError::Anonymous)));
        // What could be taken for a line of the trail.
        for (who, why) in [("Jo\n1 by Al", "a letter"), ("Jo", "a\x1b[1A letter")] {
            let refused = settle(ledger, open.tx, &telling, who, why).await;
            assert!(matches!(refused, Err(ServiceError::Control)));
        }
        assert_eq!(waiting(&shop).await.len(), 1);

        let settled = settle(ledger, open.tx, &telling, "Jo", "a letter").await;
        assert_eq!(settled.unwrap(), done);
        assert_eq!(shop.audit().await, (0, 0));
        let again = settle(ledger, open.tx, &telling, "Jo", "a letter").await;
        assert!(matches!(again, Err(ServiceError::NotOpen)));
        let trail = ledger.perform(ReadTrail).await.unwrap();
        let [trace] = trail.as_slice() else {
            panic!("{trail:?}");
        };
        assert_eq!((trace.tx, trace.credited), (open.tx, done));
        assert_eq!((trace.who.as_str(), trace.why.as_str()), ("Jo", "a letter"));
        assert!(trace.grounds.starts_with("terminal 99 saw record"));

        let next = shop.honest(&card, "alice", "GOLD").await.unwrap();
        let expected = if done {
            Ending::AlreadyCredited
        } else {
            Ending::Credited
        };
        assert_eq!((next.ending, next.balance), (expected, START + AMOUNT - 6));
        assert_eq!(shop.audit().await, (0, 0));
    }
}

/// Whoever commits the top-up, rides until the card has forgotten it and brings the card to the desk must
/// not get the voucher back as well.
#[tokio::test]
async fn q5_what_the_card_has_forgotten_is_not_released_because_a_person_says_so() {
    for done in [false, true] {
        let (shop, card) = small_shop(true).await;
        let other = shop.card(2, "alice").await;
        shop.voucher("GOLD", "alice", AMOUNT).await;
        forgotten(&shop, &card, "GOLD", done).await;
        assert_eq!(shop.honest(&card, "alice", "").await, Err(Reason::Desk));
        let tx = waiting(&shop).await[0].tx;
        let tapped = |credited| Grounds::Tapped { credited };
        let ledger = &shop.desk.ledger;
        let refused = settle(ledger, tx, &tapped(false), "Jo", "a hunch").await;
        assert!(matches!(refused, Err(ServiceError::MayHaveIt)));
        assert_eq!(waiting(&shop).await.len(), 1);
        let settled = settle(ledger, tx, &tapped(true), "Jo", "a hunch").await;
        assert!(settled.unwrap());
        let spent = shop.honest(&other, "alice", "GOLD").await;
        assert_eq!(spent, Err(Reason::Spent));
        assert!(balance(&shop, &card) <= START + AMOUNT - 6);
    }
}

#[tokio::test]
async fn q5_half_a_credit_is_settled_by_a_person_after_a_tap_and_the_voucher_is_good_again() {
    let (shop, card) = small_shop(true).await;
    let other = shop.card(2, "alice").await;
    shop.voucher("GOLD", "alice", AMOUNT).await;
    let plan = Plan {
        commit_before_frame: Some(COMMIT - 1),
        ..Plan::default()
    };
    let half = shop
        .converse(Phone::new(&card, "alice", "GOLD", plan))
        .await;
    assert!(half.is_err());
    let tx = waiting(&shop).await[0].tx;
    let ledger = &shop.desk.ledger;
    let released = Grounds::Tapped { credited: false };
    // A phone could still be about to commit the rest: first the card has to be tapped.
    let refused = settle(ledger, tx, &released, "Jo", "half").await;
    assert!(matches!(refused, Err(ServiceError::NotTapped)));
    assert_eq!(shop.honest(&card, "alice", "").await, Err(Reason::Desk));
    let found = waiting(&shop).await[0].found.clone().unwrap();
    assert_eq!(found.kind, Kind::Half);
    assert!(found.said.contains("its newest record says"), "{found:?}");
    let settled = settle(ledger, tx, &released, "Jo", "half").await;
    assert!(!settled.unwrap());
    assert_eq!(shop.audit().await, (0, 1));
    let done = shop.honest(&other, "alice", "GOLD").await.unwrap();
    assert_eq!(
        (done.ending, done.balance),
        (Ending::Credited, START + AMOUNT)
    );
    assert_eq!(shop.audit().await, (0, 1));
}

/// All of a credit is committed, and then half of a fare; or it is left pending, and a machine that a relay
/// keeps the selection from commits it with its fare. Both look like half a credit, and the amount is there.
#[tokio::test]
async fn q5_a_value_that_disagrees_in_another_way_than_half_a_credit_is_not_released() {
    for pending in [false, true] {
        let (shop, card) = small_shop(true).await;
        shop.voucher("GOLD", "alice", AMOUNT).await;
        let plan = Plan {
            break_after_playing: Some(2),
            withhold_frame: pending.then_some(COMMIT),
            ..Plan::default()
        };
        let lost = shop
            .converse(Phone::new(&card, "alice", "GOLD", plan))
            .await;
        assert!(lost.is_err());
        if !pending {
            card.lock().unwrap().activate();
        }
        let relay = Relay {
            keep_selection_back: pending,
            commit_half: !pending,
        };
        let (intent, done) = shop.relayed_ride(&card, 3, relay);
        assert_eq!(done, pending);
        let value = balance(&shop, &card);
        assert_eq!(value, START + AMOUNT - 3);
        let (_, records) = support::read(&card.lock().unwrap(), &shop.desk.layout);
        let recorded = records.last().unwrap().balance.get();
        let expected = if pending {
            intent.record().balance.get()
        } else {
            START + AMOUNT
        };
        assert_eq!((recorded, recorded < value), (expected, pending));

        assert_eq!(shop.honest(&card, "alice", "").await, Err(Reason::Desk));
        let open = &waiting(&shop).await[0];
        assert_eq!(open.found.as_ref().unwrap().kind, Kind::Unclear);
        let tapped = |credited| Grounds::Tapped { credited };
        let ledger = &shop.desk.ledger;
        let refused = settle(ledger, open.tx, &tapped(false), "Jo", "half").await;
        assert!(matches!(refused, Err(ServiceError::MayHaveIt)));
        let settled = settle(ledger, open.tx, &tapped(true), "Jo", "exchanged").await;
        assert!(settled.unwrap());
    }
}

#[tokio::test]
async fn q5_without_the_card_a_person_can_settle_it_as_credited_only() {
    for done in [false, true] {
        let (shop, card) = small_shop(true).await;
        let other = shop.card(2, "alice").await;
        shop.voucher("GOLD", "alice", AMOUNT).await;
        forgotten(&shop, &card, "GOLD", done).await;
        let tx = waiting(&shop).await[0].tx;
        let ledger = &shop.desk.ledger;
        let settled = settle(ledger, tx, &Grounds::WithoutCard, "Jo", "lost").await;
        assert!(settled.unwrap());
        let spent = shop.honest(&other, "alice", "GOLD").await;
        assert_eq!(spent, Err(Reason::Spent));
        let books = shop.books().await;
        assert_eq!((books.credited, books.reserved), (AMOUNT.into(), 0));
        // Never more on the card than the books say.
        assert!(balance(&shop, &card) <= START + AMOUNT - 6);
    }
}

#[tokio::test]
async fn q5_what_a_person_settles_no_conversation_is_settling_and_none_that_is_late_can_reserve() {
    let (shop, card) = small_shop(true).await;
    shop.voucher("GOLD", "alice", AMOUNT).await;
    forgotten(&shop, &card, "GOLD", true).await;
    let tx = waiting(&shop).await[0].tx;
    let ledger = &shop.desk.ledger;
    let claim = Claim {
        uid: uid(1),
        account: "alice".to_owned(),
        voucher: [0; 32],
        node: "one".to_owned(),
        now: now_ms(),
        lease_until: now_ms() + 60_000,
    };
    let Claimed::Yes(pending) = ledger.perform(claim).await.unwrap() else {
        panic!("not claimed");
    };
    let refused = settle(ledger, tx, &Grounds::WithoutCard, "Jo", "lost").await;
    assert!(matches!(refused, Err(ServiceError::InUse)));
    shop.restart().await;
    let settled = settle(ledger, tx, &Grounds::WithoutCard, "Jo", "lost").await;
    assert!(settled.unwrap());
    shop.voucher("MORE", "alice", AMOUNT).await;
    let reserve = Reserve {
        tx: 1,
        voucher: fingerprint(b"MORE"),
        account: "alice".to_owned(),
        uid: uid(1),
        epoch: pending.epoch,
        intent: vec![],
        now: now_ms(),
    };
    let late = ledger.perform(reserve).await.unwrap();
    assert_eq!(late, Reserved::Superseded);
}

#[tokio::test]
async fn q6_any_byte_altered_in_any_direction_costs_a_tap_and_nothing_else() {
    for (together, step) in [(true, 1), (false, 3)] {
        let (shop, card) = small_shop(together).await;
        shop.voucher("GOLD", "alice", AMOUNT).await;
        let phone = Phone::new(&card, "alice", "GOLD", Plan::default());
        let (seen, replies) = (phone.seen.clone(), phone.replies.clone());
        shop.converse(phone).await.unwrap();
        let to_card: usize = seen.lock().unwrap().iter().map(Vec::len).sum();
        // Hello, and the head of each message with the length of each reply.
        let bytes: usize = replies
            .lock()
            .unwrap()
            .iter()
            .map(|reply| reply.len() + 1)
            .sum();
        let to_server = bytes + 40 + 6 * if together { 3 } else { 9 };
        assert!(to_card > 150 && to_server > 200);
        let altered = (0..to_card).step_by(step).map(|byte| Plan {
            alter_to_card: Some(byte),
            ..Plan::default()
        });
        let also = (0..to_server).step_by(step).map(|byte| Plan {
            alter_to_server: Some(byte),
            ..Plan::default()
        });
        let (done, unsettled, refused) = each(altered.chain(also), together).await;
        println!(
            "together {together}: {done} made no difference, {refused} refused, {unsettled} of them settled by the next tap"
        );
        assert!(refused > 4 * done && unsettled > 0);
    }
}

#[tokio::test]
async fn q7_a_replayed_conversation_a_foreign_card_and_an_answer_without_a_card_are_refused() {
    for together in [false, true] {
        let (shop, card) = small_shop(together).await;
        shop.account("mallory").await;
        let own = shop.card(2, "mallory").await;
        for (code, account) in [("GOLD", "alice"), ("MORE", "alice"), ("LOOT", "mallory")] {
            shop.voucher(code, account, AMOUNT).await;
        }
        let phone = Phone::new(&card, "alice", "GOLD", Plan::default());
        let replies = phone.replies.clone();
        shop.converse(phone).await.unwrap();
        let replies = replies.lock().unwrap().clone();
        let of = |plan| Phone::new(&card, "alice", "MORE", plan);
        // The old conversation again, all of it, or with its opening played beforehand.
        let replayed = shop.converse(of(Plan {
            recorded: Some(replies.clone()),
            ..Plan::default()
        }));
        assert_eq!(replayed.await, Err(Reason::NotGenuine));
        let opened = shop.converse(of(Plan {
            opening: replies[..2].to_vec(),
            ..Plan::default()
        }));
        assert_eq!(opened.await, Err(Reason::NotGenuine));
        // No card, but a phone that says yes to everything.
        let yes = vec![vec![0x91, 0x00]; 9];
        let mut echo = yes.clone();
        echo[1] = [&[0x5A; 16][..], &[0x91, 0xAF]].concat();
        echo[2] = [&[0x5A; 16][..], &[0x91, 0x00]].concat();
        for recorded in [yes, echo] {
            let without = shop.converse(of(Plan {
                recorded: Some(recorded),
                ..Plan::default()
            }));
            assert_eq!(without.await, Err(Reason::NotGenuine));
        }
        // Somebody else's card, account, voucher.
        let stolen = Phone::new(&card, "mallory", "LOOT", Plan::default());
        assert_eq!(shop.converse(stolen).await, Err(Reason::ForeignCard));
        let stolen = Phone::new(&own, "mallory", "MORE", Plan::default());
        assert_eq!(shop.converse(stolen).await, Err(Reason::Voucher));
        let disguised = Plan {
            claim_uid: Some(uid(1)),
            ..Plan::default()
        };
        let disguised = Phone::new(&own, "alice", "MORE", disguised);
        assert_eq!(shop.converse(disguised).await, Err(Reason::NotGenuine));
        let nobody = Phone::new(&own, "nobody", "MORE", Plan::default());
        assert_eq!(shop.converse(nobody).await, Err(Reason::Account));
        // Nothing of it is in the books.
        assert_eq!(shop.audit().await, (0, 0));
        let last = shop.honest(&card, "alice", "MORE").await.unwrap();
        assert_eq!(
            (last.ending, last.balance),
            (Ending::Credited, START + 2 * AMOUNT)
        );
    }
}

/// Commit needs no key. Whoever sends it for the server, early or late, gains nothing.
#[tokio::test]
async fn q7_a_phone_that_sends_the_commit_itself_never_gets_the_amount_twice() {
    for together in [false, true] {
        for frame in 0..=COMMIT {
            let (shop, card) = small_shop(together).await;
            shop.voucher("GOLD", "alice", AMOUNT).await;
            let plan = Plan {
                commit_before_frame: Some(frame),
                ..Plan::default()
            };
            let first = shop
                .converse(Phone::new(&card, "alice", "GOLD", plan))
                .await;
            let (_, broken) = shop.audit().await;
            let second = shop.honest(&card, "alice", "GOLD").await;
            match frame {
                // Half a credit: the record without the value. The card is not served any more, the
                // voucher is not free again, and a person has to look at it.
                7 => {
                    assert_eq!((broken, second), (1, Err(Reason::Desk)));
                    assert_eq!(balance(&shop, &card), START);
                    assert_eq!(shop.audit().await, (1, 1));
                }
                _ => {
                    assert_eq!(broken, 0);
                    assert!(
                        first.is_ok() || second.is_ok(),
                        "{frame}: {first:?} {second:?}"
                    );
                    assert_eq!(shop.audit().await, (0, 0));
                    assert_eq!(balance(&shop, &card), START + AMOUNT);
                }
            }
        }
    }
}

/// A handshake does not drop what waits for a commit; only a selection does, and the phone can keep
/// that back. So it lets the server see that the first try "was not done", and commits it then.
#[tokio::test]
async fn q7_a_selection_kept_back_and_a_late_commit_do_not_make_a_voucher_good_twice() {
    for together in [false, true] {
        // Without a commit, and with one before each frame of the second conversation.
        for late in std::iter::once(None).chain((0..16).map(Some)) {
            let (shop, card) = small_shop(together).await;
            shop.voucher("GOLD", "alice", AMOUNT).await;
            // Record and value are on the card and wait.
            let first = Plan {
                break_after_playing: Some(if together { 2 } else { 7 }),
                withhold_frame: Some(COMMIT),
                ..Plan::default()
            };
            let phone = Phone::new(&card, "alice", "GOLD", first);
            assert!(shop.converse(phone).await.is_err());
            assert_eq!(shop.audit().await, (1, 0));
            let second = Plan {
                no_activation: true,
                keep_selection_back: true,
                commit_before_frame: late,
                ..Plan::default()
            };
            let phone = Phone::new(&card, "alice", "GOLD", second);
            let second = shop.converse(phone).await;
            let (_, broken) = shop.audit().await;
            // And once more when all is over.
            card.lock().unwrap().handle(&[0x90, 0xC7, 0, 0, 0]);
            assert_eq!(shop.audit().await.1, broken);
            let third = shop.honest(&card, "alice", "GOLD").await;
            if broken == 0 {
                let third = third.unwrap_or_else(|error| panic!("{late:?} {second:?}: {error}"));
                assert_eq!(third.balance, START + AMOUNT, "{late:?} {second:?}");
                assert_eq!(shop.audit().await, (0, 0));
            } else {
                assert_eq!(third, Err(Reason::Desk));
                assert!(balance(&shop, &card) <= START + AMOUNT);
            }
        }
    }
}

#[tokio::test]
async fn q8_a_silent_phone_is_given_up_and_does_not_keep_its_card() {
    let (shop, card) = small_shop(true).await;
    shop.voucher("GOLD", "alice", AMOUNT).await;
    let plan = Plan {
        silent_after: Some(1),
        ..Plan::default()
    };
    let started = std::time::Instant::now();
    let silent = shop
        .converse(Phone::new(&card, "alice", "GOLD", plan))
        .await;
    assert_eq!(silent, Err(Reason::Timeout));
    assert!(started.elapsed() < Duration::from_secs(2));
    assert!(shop.honest(&card, "alice", "GOLD").await.is_ok());
}

#[tokio::test]
async fn q8_a_server_that_stops_gives_up_what_has_not_begun_and_finishes_what_has() {
    for together in [false, true] {
        for frame in 0..=COMMIT {
            let (shop, card) = small_shop(together).await;
            shop.voucher("GOLD", "alice", AMOUNT).await;
            let plan = Plan {
                stop_at: Some((frame, shop.desk.stop.clone())),
                ..Plan::default()
            };
            let outcome = shop
                .converse(Phone::new(&card, "alice", "GOLD", plan))
                .await;
            assert_eq!(shop.audit().await, (0, 0));
            let money_under_way = frame >= 6;
            match outcome {
                Ok(finished) => assert_eq!(finished.ending, Ending::Credited),
                Err(reason) => assert_eq!((reason, money_under_way), (Reason::Busy, false)),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q9_books_locked_for_a_moment_are_waited_for_and_locked_for_long_nothing_is_begun() {
    let (shop, card) = small_shop(true).await;
    shop.voucher("GOLD", "alice", AMOUNT).await;
    let held = lock(&shop.file());
    let release = tokio::task::spawn_blocking(move || {
        std::thread::sleep(Duration::from_millis(300));
        drop(held);
    });
    assert!(shop.honest(&card, "alice", "GOLD").await.is_ok());
    release.await.unwrap();

    shop.voucher("MORE", "alice", AMOUNT).await;
    let held = lock(&shop.file());
    let refused = shop.honest(&card, "alice", "MORE").await;
    assert_eq!(refused, Err(Reason::Ledger));
    drop(held);
    assert_eq!(shop.audit().await, (0, 0));
    let done = shop.honest(&card, "alice", "MORE").await.unwrap();
    assert_eq!(
        (done.ending, done.balance),
        (Ending::Credited, START + 2 * AMOUNT)
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q9_books_gone_at_any_frame_leave_it_to_the_next_tap() {
    // Each waits for its database: all at once.
    let all = (0..=COMMIT).map(|frame| {
        tokio::spawn(async move {
            let (shop, card) = small_shop(true).await;
            shop.voucher("GOLD", "alice", AMOUNT).await;
            let plan = Plan {
                lock_books_at: Some((frame, shop.file())),
                ..Plan::default()
            };
            let phone = Phone::new(&card, "alice", "GOLD", plan);
            let done = match shop.converse(phone).await {
                Ok(finished) => {
                    // The card has it, although the books do not know yet.
                    assert_eq!(finished.ending, Ending::Credited);
                    1
                }
                Err(reason) => {
                    assert_eq!(reason, Reason::Ledger);
                    0
                }
            };
            let left_open = shop.audit().await.0;
            // The claim could not be given back either: its lease runs out.
            shop.restart().await;
            let next = shop.honest(&card, "alice", "GOLD").await.unwrap();
            assert_eq!(next.balance, START + AMOUNT);
            assert_eq!(shop.audit().await, (0, 0));
            (done, left_open)
        })
    });
    let (mut done, mut left_open) = (0, 0);
    for task in all.collect::<Vec<_>>() {
        let (one, open) = task.await.unwrap();
        done += one;
        left_open += open;
    }
    assert_eq!((done, left_open), (3, 3));
}

/// A key holder that is down.
struct Down;

impl KeyHolder for Down {
    async fn authenticate<P: Pipe>(
        &self,
        _: &Layout,
        _: Uid,
        _: Session<Unauthenticated>,
        _: &mut PhoneLink<P>,
    ) -> Result<Session<Authenticated>, KeyHolderError> {
        Err(KeyHolderError::Down("no token".to_owned()))
    }

    async fn check(&self) -> Result<(), KeyHolderError> {
        Err(KeyHolderError::Down("no token".to_owned()))
    }
}

#[tokio::test]
async fn q9_a_key_holder_that_is_down_spends_nothing_and_keeps_no_card() {
    let (shop, card) = small_shop(true).await;
    shop.voucher("GOLD", "alice", AMOUNT).await;
    let down = desk_with(Down, shop.desk.ledger.clone(), "two", true);
    let phone = Phone::new(&card, "alice", "GOLD", Plan::default());
    assert_eq!(converse(&down, phone).await, Err(Reason::Busy));
    assert_eq!(shop.audit().await, (0, 0));
    let done = shop.honest(&card, "alice", "GOLD").await.unwrap();
    assert_eq!(done.ending, Ending::Credited);
}
