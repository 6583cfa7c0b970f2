//! Thousands of conversations at random, many at once, on two server nodes with one set of books:
//! everything that can go wrong goes wrong now and then. In the end every card is tapped once more,
//! and the books must be exact.
//!
//! `TOPUP_CONVERSATIONS` sets the number, `TOPUP_SEED` the seed, `TOPUP_POSTGRES` (a URL; its
//! database is emptied) adds a share of them against PostgreSQL.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use support::{Dice, Phone, Plan, Shop, converse, desk, not_run};
use topup::ledger::{Forget, Ledger};

const ACCOUNTS: u32 = 6;
const CARDS: u32 = 24;
const TASKS: u64 = 16;
const VOUCHERS: u32 = 60;

fn account(card: u32) -> String {
    format!("account {}", card % ACCOUNTS)
}

fn number(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().unwrap())
}

/// Something that goes wrong, or nothing.
fn plan(dice: &mut Dice) -> Plan {
    let mut plan = Plan::default();
    let at = |dice: &mut Dice, limit| Some(usize::try_from(dice.below(limit)).unwrap());
    match dice.below(12) {
        0 => plan.break_before_playing = at(dice, 10),
        1 => plan.break_after_playing = at(dice, 10),
        2 => plan.cut_before = Some(1 + dice.below(4)),
        3 => plan.cut_after = Some(1 + dice.below(4)),
        4 => plan.lose_reply = Some(1 + dice.below(12)),
        5 => plan.leave_before_frame = at(dice, 12),
        6 => plan.alter_to_card = at(dice, 300),
        7 => plan.alter_to_server = at(dice, 400),
        8 => plan.no_activation = true,
        9 if dice.below(4) == 0 => plan.silent_after = at(dice, 10),
        _ => {}
    }
    plan
}

async fn play(shop: Shop, other: Arc<topup::desk::Desk<topup::keys::SoftwareKeys>>, total: u64) {
    let seed = number("TOPUP_SEED", 20_261_120);
    for number in 0..ACCOUNTS {
        shop.account(&account(number)).await;
    }
    let mut cards = Vec::new();
    for number in 0..CARDS {
        cards.push(shop.card(number, &account(number)).await);
    }
    for voucher in 0..VOUCHERS * ACCOUNTS {
        let amount = 1 + i32::try_from(voucher % 7).unwrap();
        shop.voucher(&format!("{voucher}"), &account(voucher), amount)
            .await;
    }
    let (shop, cards) = (Arc::new(shop), Arc::new(cards));
    let ends = Arc::new(Mutex::new(BTreeMap::<String, u64>::new()));
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let (shop, other, cards, ends) = (shop.clone(), other.clone(), cards.clone(), ends.clone());
        tasks.push(tokio::spawn(async move {
            let mut dice = Dice(seed ^ (task << 32));
            for _ in 0..total.div_ceil(TASKS) {
                let card = u32::try_from(dice.below(CARDS.into())).unwrap();
                // Now and then somebody else's card.
                let owner = if dice.below(20) == 0 { card + 1 } else { card };
                let voucher =
                    dice.below(VOUCHERS.into()) * u64::from(ACCOUNTS) + u64::from(owner % ACCOUNTS);
                let plan = plan(&mut dice);
                let phone = Phone::new(
                    &cards[usize::try_from(card).unwrap()],
                    &account(owner),
                    &format!("{voucher}"),
                    plan,
                );
                let desk = if dice.below(2) == 0 {
                    &shop.desk
                } else {
                    &other
                };
                let end = if dice.below(10) == 0 {
                    // The server crashes: everything of this conversation is gone at once.
                    let after = Duration::from_micros(dice.below(20_000));
                    match tokio::time::timeout(after, converse(desk, phone)).await {
                        Ok(outcome) => outcome,
                        Err(_) => {
                            let node = desk.node.clone();
                            desk.ledger.perform(Forget { node }).await.unwrap();
                            *ends
                                .lock()
                                .unwrap()
                                .entry("crashed".to_owned())
                                .or_default() += 1;
                            continue;
                        }
                    }
                } else {
                    converse(desk, phone).await
                };
                let end = match end {
                    Ok(finished) => format!("{:?}", finished.ending),
                    Err(reason) => format!("{reason:?}"),
                };
                *ends.lock().unwrap().entry(end).or_default() += 1;
            }
        }));
    }
    for task in tasks {
        task.await.unwrap();
    }
    let ends = ends.lock().unwrap().clone();
    println!("{} conversations: {ends:?}", ends.values().sum::<u64>());
    let (waiting, broken) = shop.audit_with(&[&shop.desk, &other]).await;
    println!("{waiting} wait for their card");
    assert_eq!(broken, 0);
    shop.restart().await;
    let node = other.node.clone();
    other.ledger.perform(Forget { node }).await.unwrap();
    shop.settle_all(|uid| account(u32::from_be_bytes(*uid.0.last_chunk().unwrap())))
        .await;
    let books = shop.books().await;
    println!("{books:?}");
    assert!(books.spent > 50 && books.waiting == 0);
    assert!(ends.len() > 8, "too little went wrong");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_thousands_of_conversations_with_faults_the_books_are_exact() {
    let total = number("TOPUP_CONVERSATIONS", 2000);
    for (together, share) in [(true, total.div_ceil(2)), (false, total / 2)] {
        let shop = Shop::in_sqlite(together).await;
        let other = Ledger::open(&shop.file()).await.unwrap();
        play(shop, desk(other, "two", together), share).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn after_hundreds_of_conversations_with_faults_the_books_in_postgresql_are_exact() {
    let Ok(url) = std::env::var("TOPUP_POSTGRES") else {
        not_run("TOPUP_POSTGRES names no database");
        return;
    };
    let total = number("TOPUP_CONVERSATIONS", 2000) / 4;
    support::empty_postgres(&url).await;
    let shop = Shop::with(Ledger::open(&url).await.unwrap(), true);
    let other = desk(Ledger::open(&url).await.unwrap(), "two", true);
    play(shop, other, total).await;
}
