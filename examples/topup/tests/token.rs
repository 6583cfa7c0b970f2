//! The master key in a PKCS#11 token. `TOPUP_TEST_TOKEN` names the module, `TOPUP_PIN` is the PIN of its
//! token `topup`; `.ci/topup` sets one up with SoftHSM2.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};

use desfire_ev1::{Key, VirtualReader};
use support::{Phone, Plan, START, Shop, converse, desk_with, not_run, token, uid};
use topup::args::KeySource;
use topup::card::{DEMO_CREDIT, IssuerKeys};
use topup::keys::{KeyHolder as _, Keys};
use topup::ledger::AddCard;
use topup::message::{Ending, Reason};
use topup::phone::SoftwareCard;
use topup::wires::SocketWire;

const AMOUNT: i32 = 10;

fn module() -> Option<String> {
    let module = std::env::var("TOPUP_TEST_TOKEN").ok();
    if module.is_none() {
        not_run("TOPUP_TEST_TOKEN names no PKCS#11 module");
    }
    module
}

fn source(module: &str) -> KeySource {
    KeySource {
        demonstration: true,
        token: true,
        module: Some(module.into()),
        ..KeySource::default()
    }
}

/// A process can open a module once: all of it in one test.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn with_the_key_in_a_token_cards_are_topped_up_and_others_are_not_genuine() {
    let Some(module) = module() else { return };
    let Keys::Token(keys) = source(&module).open().unwrap() else {
        panic!("no token");
    };
    let shop = Shop::in_sqlite(true).await;
    shop.account("alice").await;
    let card = shop.card(1, "alice").await;
    keys.load(&shop.desk.layout, &DEMO_CREDIT).unwrap();
    keys.check().await.unwrap();
    let ledger = shop.desk.ledger.clone();
    for together in [false, true] {
        let desk = desk_with(keys.clone(), ledger.clone(), "two", together);
        let code = format!("{together}");
        shop.voucher(&code, "alice", AMOUNT).await;
        let phone = Phone::new(&card, "alice", &code, Plan::default());
        let done = converse(&desk, phone).await.unwrap();
        assert_eq!(done.ending, Ending::Credited);
        assert_eq!(done.round_trips, if together { 4 } else { 10 });
    }
    assert_eq!(shop.audit().await, (0, 0));

    // Many at once, more than the token has turns.
    let desk = desk_with(keys.clone(), ledger.clone(), "two", true);
    let mut phones = Vec::new();
    for number in 2..42 {
        let card = shop.card(number, "alice").await;
        let code = format!("{number}");
        shop.voucher(&code, "alice", AMOUNT).await;
        phones.push(Phone::new(&card, "alice", &code, Plan::default()));
    }
    let tasks: Vec<_> = phones
        .into_iter()
        .map(|phone| {
            let desk = desk.clone();
            tokio::spawn(async move { converse(&desk, phone).await })
        })
        .collect();
    for task in tasks {
        assert_eq!(task.await.unwrap().unwrap().balance, START + AMOUNT);
    }
    assert_eq!(shop.audit().await, (0, 0));

    // A card of the same layout with keys of somebody else.
    let forger = IssuerKeys {
        credit: Key::aes([7; 16]),
        ..IssuerKeys::for_demonstration()
    };
    let forged = forger.issue(&shop.desk.layout, uid(99), START).unwrap();
    let forged = std::sync::Arc::new(std::sync::Mutex::new(forged));
    let registered = AddCard {
        uid: uid(99),
        account: "alice".to_owned(),
    };
    ledger.perform(registered).await.unwrap();
    shop.voucher("GOLD", "alice", AMOUNT).await;
    let phone = Phone::new(&forged, "alice", "GOLD", Plan::default());
    assert_eq!(converse(&desk, phone).await, Err(Reason::NotGenuine));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_server_tops_up_with_the_key_in_a_token_and_with_a_wrong_pin_it_does_not_begin() {
    let Some(module) = module() else { return };
    let shop = Shop::in_sqlite(true).await;
    shop.account("alice").await;
    let card = shop.card(1, "alice").await;
    shop.voucher("GOLD", "alice", AMOUNT).await;
    let file = shop.file();
    let server = || {
        let mut server = Command::new(env!("CARGO_BIN_EXE_topup-server"));
        server
            .args(["--listen", "127.0.0.1:0", "--books", &file])
            .args(["--token", "--module", &module])
            .env_remove("TOPUP_CREDIT_KEY");
        server
    };
    let digits: String = DEMO_CREDIT.iter().map(|b| format!("{b:02x}")).collect();
    let loaded = server()
        .arg("--load-token")
        .env("TOPUP_CREDIT_KEY", &digits)
        .output()
        .unwrap();
    assert!(loaded.status.success(), "{loaded:?}");

    let refused = server().env("TOPUP_PIN", "98765").output().unwrap();
    assert!(!refused.status.success());
    let said = [refused.stdout, refused.stderr].concat();
    let said = String::from_utf8_lossy(&said).into_owned();
    assert!(
        said.contains("PKCS#11") && !said.contains("98765"),
        "{said}"
    );

    // It has no key; the token has.
    let mut running = server()
        .env("RUST_LOG", "error")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(running.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let address = line.trim().rsplit('/').next().unwrap().to_owned();
    let layout = &shop.desk.layout;
    let phone = topup::phone::Phone {
        token: token("alice"),
        voucher: b"GOLD".to_vec(),
        opening: Some((layout.aid, layout.credit)),
        keep_alive: std::time::Duration::ZERO,
        patience: std::time::Duration::from_secs(20),
        tries: 1,
    };
    let on_it = card.lock().unwrap().clone();
    let mut reader = SoftwareCard::new(VirtualReader::new(on_it), None);
    let done = phone.top_up(&mut reader, || SocketWire::connect(&address), |_| {});
    let done = done.await;
    let health = reqwest::get(format!("http://{address}/health")).await;
    let health = health.unwrap().text().await.unwrap();
    running.kill().unwrap();
    running.wait().unwrap();
    assert_eq!(done.unwrap().ending, Ending::Credited);
    assert_eq!(health, "ok\n");
    *card.lock().unwrap() = reader.into_reader().into_card();
    assert_eq!(shop.audit().await, (0, 0));
}
