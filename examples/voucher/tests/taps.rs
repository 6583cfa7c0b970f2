//! Taps in every mode over real sockets: what they do to the card, what they cost, and what becomes of
//! those that are torn.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

mod support;

use desfire_ev1::picc::Fault;
use desfire_ev1::split::{Effect, Mode};
use desfire_ev1::wire::Status;
use support::*;
use voucher::scheme::Purpose;
use voucher::terminal::{TapError, Terminal};

const MODES: [Mode; 4] = [Mode::CardLocked, Mode::Script, Mode::Proven, Mode::Remote];

#[tokio::test(flavor = "multi_thread")]
async fn each_mode_redeems() {
    let bench = Bench::new().await;
    let mut till = bench.terminal("till-0");
    let mut left = VOUCHERS;
    for (lines, mode) in (1..).zip(MODES) {
        let redeemed = till.redeem(mode, one(), &mut bench.link()).await.unwrap();
        left -= 1;
        assert_eq!(redeemed.left, Some(left), "{mode}");
        assert_eq!(bench.on_card(), (left, lines), "{mode}");
        let (calls, after) = match mode {
            Mode::CardLocked => (1, 0),
            Mode::Script => (1, 1),
            Mode::Proven => (2, 0),
            // One for each exchange after the UID and the selection, and the opening.
            Mode::Remote => (redeemed.exchanges - 3, 0),
        };
        assert_eq!(
            (redeemed.calls, redeemed.calls_after),
            (calls, after),
            "{mode}"
        );
        let said = redeemed.verdict.is_some();
        assert_eq!(said, matches!(mode, Mode::Script | Mode::Remote), "{mode}");
    }
    bench.running.stop().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn more_than_there_are() {
    let bench = Bench::new().await;
    let mut till = bench.terminal("till-0");
    let many = Purpose::redeem(11).unwrap();
    for mode in MODES {
        let failed = till.redeem(mode, many, &mut bench.link()).await;
        let failed = failed.unwrap_err();
        match (mode, &failed.error) {
            (Mode::CardLocked | Mode::Proven, TapError::Card(error)) => {
                assert_eq!(error.status(), Some(Status::BoundaryError));
            }
            (Mode::Script, TapError::Refused(status)) => {
                assert_eq!(*status, Status::BoundaryError);
            }
            (Mode::Remote, TapError::Service(_)) => {}
            (mode, error) => panic!("{mode}: {error}"),
        }
        if mode == Mode::Remote {
            assert_eq!(refused_tap(failed).word, "card");
        } else {
            assert_eq!(failed.effect, Effect::None, "{mode}");
        }
        assert_eq!(bench.on_card(), (VOUCHERS, 0), "{mode}");
    }
}

/// The power goes before and after every effect on the card. What the terminal says is true each
/// time, and nothing is lost: the vouchers are on the card, or they are redeemed and in its log.
#[tokio::test(flavor = "multi_thread")]
async fn torn_everywhere() {
    for mode in MODES {
        let mut torn_after_commit = 0;
        for cut in 1..=12_u64 {
            for after in [false, true] {
                let bench = Bench::new().await;
                let mut till = bench.terminal("till-0");
                bench.card.with(|card| {
                    let at = card.effects() + cut;
                    card.arrange_fault(if after {
                        Fault::CutAfter(at)
                    } else {
                        Fault::CutBefore(at)
                    });
                });
                let outcome = till.redeem(mode, one(), &mut bench.link()).await;
                bench.card.with(desfire_ev1::picc::Card::clear_faults);
                let now = bench.on_card();
                let redeemed = match now {
                    (VOUCHERS, 0) => false,
                    (9, 1) => true,
                    other => panic!("{mode}, {cut}: half a redemption: {other:?}"),
                };
                match outcome {
                    Ok(_) => assert!(redeemed, "{mode}, {cut}"),
                    Err(failed) => match failed.effect {
                        Effect::None => assert!(!redeemed, "{mode}, {cut}"),
                        Effect::Done => assert!(redeemed, "{mode}, {cut}"),
                        Effect::Possible => torn_after_commit += usize::from(redeemed),
                    },
                }
                // The card works on.
                let next = till.redeem(mode, one(), &mut bench.link()).await.unwrap();
                assert_eq!(next.left, Some(now.0 - 1));
            }
        }
        // Some cut strikes right after the commit: there a terminal must not claim "not done".
        assert!(torn_after_commit > 0, "{mode}");
    }
}

async fn script_until_receipt(bench: &Bench, till: &mut Terminal) -> (String, Vec<u8>) {
    let mut link = bench.link();
    let waiting = till.challenge(Mode::Script, one(), &mut link).unwrap();
    let message = waiting.message().unwrap();
    let reply = till.client().post("/v1/taps", &message).await.unwrap();
    let mut room = [0; 512];
    let mut player = waiting.script(&reply.body, &mut room).unwrap();
    player.play(&mut link).unwrap();
    let receipt = player.into_receipt().unwrap().to_vec();
    (reply.tap_path("receipt").unwrap(), receipt)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_can_be_sent_again_and_not_forged() {
    let bench = Bench::new().await;
    let mut till = bench.terminal("till-0");
    let (path, receipt) = script_until_receipt(&bench, &mut till).await;
    // A changed one is refused, whatever is changed, and settles nothing.
    for at in 0..receipt.len() {
        let mut forged = receipt.clone();
        forged[at] ^= 1;
        let refused = till.client().post(&path, &forged).await;
        assert!(refusal(refused.unwrap_err()).status < 500, "{at}");
    }
    for _ in 0..3 {
        let reply = till.client().post(&path, &receipt).await.unwrap();
        assert_eq!(reply.verdict.as_deref(), Some("done, 9 left"));
    }
    assert!(bench.log.text().contains("event=receipt"));
    // Once settled, nothing unsettles it.
    let reply = till.client().post(&path, b"nonsense").await.unwrap();
    assert_eq!(reply.verdict.as_deref(), Some("done, 9 left"));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_register_of_keys_survives_a_restart() {
    let bench = Bench::new().await;
    let folder = std::env::temp_dir().join(format!("voucher-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("till-0");
    let mut till = bench.terminal("till-0").stored_in(path.clone());
    for _ in 0..2 {
        till.redeem(Mode::CardLocked, one(), &mut bench.link())
            .await
            .unwrap();
    }
    drop(till);
    let id = desfire_ev1::split::TerminalId::new(b"till-0").unwrap();
    let mut till = Terminal::restore(id, path, bench.running.address()).unwrap();
    let redeemed = till
        .redeem(Mode::CardLocked, one(), &mut bench.link())
        .await
        .unwrap();
    assert_eq!(redeemed.left, Some(7));
    // Where nothing can be stored, no key is used.
    let lost = bench
        .terminal("till-1")
        .stored_in(folder.join("no/such/folder"));
    let mut lost = lost;
    let failed = lost
        .redeem(Mode::CardLocked, one(), &mut bench.link())
        .await
        .unwrap_err();
    assert!(matches!(failed.error, TapError::Store(_)));
    std::fs::remove_dir_all(folder).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn open_scripts_are_bounded() {
    // A terminal that brings no receipts: its oldest script is given up, and said so.
    let bench = Bench::with(|config| config.unsettled = 2, holder()).await;
    let mut till = bench.terminal("till-0");
    let mut open = Vec::new();
    for _ in 0..3 {
        open.push(script_until_receipt(&bench, &mut till).await);
    }
    let mut verdicts = Vec::new();
    for (path, receipt) in &open {
        verdicts.push(till.client().post(path, receipt).await.ok());
    }
    let settled: Vec<bool> = verdicts.iter().map(Option::is_some).collect();
    assert_eq!(settled, [false, true, true]);
    assert_eq!(bench.log.text().matches("event=given-up").count(), 1);
    assert_eq!(bench.on_card(), (VOUCHERS - 3, 3));

    // What is settled makes room, what is not does not.
    let bench = Bench::with(|config| config.open_taps = 1, holder()).await;
    let mut till = bench.terminal("till-0");
    let (path, receipt) = script_until_receipt(&bench, &mut till).await;
    let refused = till
        .redeem(Mode::CardLocked, one(), &mut bench.link())
        .await;
    assert_eq!(refused_tap(refused.unwrap_err()).word, "busy");
    till.client().post(&path, &receipt).await.unwrap();
    till.redeem(Mode::CardLocked, one(), &mut bench.link())
        .await
        .unwrap();
}
