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

use support::{Outcome, Phone, Plan, START, SharedCard, Shop, converse, desk, uid};
use topup::ledger::Ledger;
use topup::message::{Ending, Reason};

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
            0 => {}
            1 => unsettled += 1,
            more => panic!("{more} unsettled at once"),
        }
        card.lock().unwrap().clear_faults();
        let second = shop.honest(&card, "alice", &code).await;
        let ending = second
            .unwrap_or_else(|reason| panic!("{plan:?}: {first:?}, {reason}"))
            .ending;
        assert_eq!(shop.audit().await, 0);
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
        assert_eq!(shop.audit().await, 0);
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
