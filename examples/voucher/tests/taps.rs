//! Taps in every mode over real sockets: what they do to the card, what they cost, and what becomes of
//! those that are torn.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

mod support;

use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use desfire_ev1::picc::Fault;
use desfire_ev1::split::{Effect, Mode};
use desfire_ev1::wire::Status;
use desfire_ev1::{Link, LinkFormat, Transport};
use support::*;
use voucher::card::{CardLink, LinkError};
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
        // The refusal has no MAC: it does not prove that the debit is not pending.
        assert_eq!(failed.effect, Effect::Possible, "{mode}");
        if mode == Mode::Remote {
            assert_eq!(refused_tap(failed).word, "unknown");
        }
        assert_eq!(bench.on_card(), (VOUCHERS, 0), "{mode}");
    }
}

/// Somebody between terminal and card: lets the debit pass, sends a commit of their own, and says
/// something else than the card, or nothing.
struct Between {
    card: CardLink,
    says: Option<[u8; 2]>,
}

impl Link for Between {
    type Error = LinkError;

    fn format(&self) -> LinkFormat {
        self.card.format()
    }
}

impl Transport for Between {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, LinkError> {
        let len = self.card.exchange(command, reply)?;
        if command[1] != 0xDC {
            return Ok(len);
        }
        let len = self.card.exchange(&[0x90, 0xC7, 0, 0, 0], reply)?;
        assert_eq!(reply[len - 2..len], [0x91, 0x00], "the card takes it");
        let says = self.says.ok_or(desfire_ev1::CardMute)?;
        reply[..2].copy_from_slice(&says);
        Ok(2)
    }
}

/// CommitTransaction carries no MAC. Nobody may say "not done" once the debit has left.
#[tokio::test(flavor = "multi_thread")]
async fn a_commit_of_somebody_else() {
    for mode in MODES {
        for says in [Some([0x91, 0xBE]), None] {
            let patience = Duration::from_millis(500);
            let bench = Bench::with(|config| config.patience = patience, holder()).await;
            let mut till = bench.terminal("till-0");
            let card = bench.link();
            let failed = till.redeem(mode, one(), &mut Between { card, says }).await;
            let failed = failed.unwrap_err();
            assert_eq!(failed.effect, Effect::Possible, "{mode}, {says:?}");
            assert_eq!(bench.on_card(), (VOUCHERS - 1, 0), "{mode}, {says:?}");
            if mode == Mode::Remote {
                // What the service makes of it, also of a terminal that says nothing any more.
                while !bench.log.text().contains("event=remote") {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                let log = bench.log.text();
                assert!(log.contains("why=unknown"), "{says:?}: {log}");
            }
        }
    }
}

/// A card that is taken away before the last command of a redemption, which only reads.
struct Lifted(CardLink);

impl Link for Lifted {
    type Error = LinkError;

    fn format(&self) -> LinkFormat {
        self.0.format()
    }
}

impl Transport for Lifted {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, LinkError> {
        if command[1] == 0x6C {
            return Err(desfire_ev1::CardMute.into());
        }
        self.0.exchange(command, reply)
    }
}

/// What the card has proved is not taken back because it left.
#[tokio::test(flavor = "multi_thread")]
async fn lifted_after_the_commit() {
    for mode in MODES {
        let bench = Bench::new().await;
        let mut till = bench.terminal("till-0");
        let failed = till.redeem(mode, one(), &mut Lifted(bench.link())).await;
        let failed = failed.unwrap_err();
        assert_eq!(bench.on_card(), (VOUCHERS - 1, 1), "{mode}");
        if mode != Mode::Remote {
            assert_eq!(failed.effect, Effect::Done, "{mode}");
            continue;
        }
        // The terminal is told, and nothing proves it to the terminal.
        assert_eq!(failed.effect, Effect::Possible);
        assert!(matches!(failed.error, TapError::Answer(_)), "{failed}");
        let log = bench.log.text();
        let line = log.lines().find(|line| line.contains("event=remote"));
        assert!(line.unwrap().contains(" outcome=done "), "{log}");
        let page = till.client().get("/metrics").await.unwrap();
        let counted = r#"voucher_verdicts_total{mode="remote",outcome="done"} 1"#;
        assert!(page.contains(counted), "{page}");
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
    // Once settled, nothing unsettles it, and nobody else is told.
    for nonsense in [&b"nonsense"[..], &receipt[..receipt.len() - 1]] {
        let refused = refusal(till.client().post(&path, nonsense).await.unwrap_err());
        assert!(matches!(refused.status, 400 | 401), "{refused:?}");
    }
    let reply = till.client().post(&path, &receipt).await.unwrap();
    assert_eq!(reply.verdict.as_deref(), Some("done, 9 left"));
}

/// A log on a slow disk.
struct Slow(Log);

impl std::io::Write for Slow {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        std::thread::sleep(Duration::from_millis(300));
        self.0.write(bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.0.flush()
    }
}

/// A receipt that comes twice at once, as from a terminal that has lost patience, counts once.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_receipts_at_once() {
    let mut bench = Bench::new().await;
    let config = bench.shop.config().unwrap();
    let audit = voucher::service::Audit::new(Slow(bench.log.clone()));
    let anywhere = SocketAddr::from(([127, 0, 0, 1], 0));
    let slow = voucher::service::start(config, holder(), audit, anywhere);
    bench.running = slow.await.unwrap();
    let mut till = bench.terminal("till-0");
    let (path, receipt) = script_until_receipt(&bench, &mut till).await;
    let mut sending = tokio::task::JoinSet::new();
    for _ in 0..2 {
        let (mut till, path) = (bench.terminal("till-0"), path.clone());
        let receipt = receipt.clone();
        sending.spawn(async move { till.client().post(&path, &receipt).await.unwrap() });
    }
    while let Some(reply) = sending.join_next().await {
        assert_eq!(reply.unwrap().verdict.as_deref(), Some("done, 9 left"));
    }
    let log = bench.log.text();
    assert_eq!(log.matches("event=receipt").count(), 1, "{log}");
    let page = till.client().get("/metrics").await.unwrap();
    let counted = r#"voucher_verdicts_total{mode="script",outcome="done"} 1"#;
    assert!(page.contains(counted), "{page}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_register_of_keys_survives_a_restart() {
    let bench = Bench::new().await;
    let folder = std::env::temp_dir().join(format!("voucher-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join("till-0");
    // What a torn write has left behind, for all to read.
    let left_behind = folder.join("till-0.new");
    std::fs::write(&left_behind, b"half").unwrap();
    let mut till = bench.terminal("till-0").stored_in(path.clone());
    for _ in 0..2 {
        till.redeem(Mode::CardLocked, one(), &mut bench.link())
            .await
            .unwrap();
    }
    drop(till);
    assert!(!left_behind.exists());
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
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

/// Programs of one shop that start at once have the keys of one shop.
#[test]
fn a_shop_is_made_once() {
    let folder = std::env::temp_dir().join(format!("voucher-shop-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    for round in 0..20 {
        let path = folder.join(format!("shop-{round}"));
        let start = std::sync::Barrier::new(8);
        let open = || {
            start.wait();
            let shop = voucher::shop::Shop::in_file(&path, &TILLS).unwrap();
            shop.desk.masters().map(|(_, key)| *key).collect::<Vec<_>>()
        };
        let shops: Vec<_> = std::thread::scope(|scope| {
            let opening: Vec<_> = (0..8).map(|_| scope.spawn(open)).collect();
            opening.into_iter().map(|one| one.join().unwrap()).collect()
        });
        assert!(shops.iter().all(|masters| *masters == shops[0]));
    }
    // Nothing else is left there.
    assert_eq!(std::fs::read_dir(&folder).unwrap().count(), 20);
    std::fs::remove_dir_all(folder).unwrap();
}

/// Something between terminal and service that passes all on but what has `door` in its first line, from
/// the `nth` one of a connection on: that it answers itself.
fn portal(service: SocketAddr, door: &'static str, nth: usize, says: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut service = TcpStream::connect(service).unwrap();
            let (mut answers, mut back) =
                (service.try_clone().unwrap(), client.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut answers, &mut back));
            let mut request = [0; 4096];
            let mut seen = 0;
            while let Ok(len @ 1..) = client.read(&mut request) {
                let request = &request[..len];
                let its = |part: &[u8]| part == door.as_bytes();
                seen += usize::from(request.windows(door.len()).any(its));
                if seen == nth {
                    client.write_all(says.as_bytes()).unwrap();
                    break;
                }
                service.write_all(request).unwrap();
            }
            service.shutdown(Shutdown::Both).unwrap();
        }
    });
    address
}

/// Whoever is between terminal and service can make up an error. None of them is a proof that the card
/// was not debited.
#[tokio::test(flavor = "multi_thread")]
async fn a_made_up_error_after_the_commit() {
    let patience = Duration::from_millis(500);
    let bench = Bench::with(|config| config.patience = patience, holder()).await;
    let says = "HTTP/1.1 502 Bad Gateway\r\nvoucher-error: card\r\n\
                connection: close\r\ncontent-length: 2\r\n\r\nno";
    // Selection, two of the handshake, debit, line, commit.
    let between = portal(bench.running.address(), "/frame ", 6, says);
    let mut till = bench.shop.terminal("till-0", between).unwrap();
    let failed = till.redeem(Mode::Remote, one(), &mut bench.link()).await;
    let failed = failed.unwrap_err();
    assert_eq!(bench.on_card(), (VOUCHERS - 1, 1));
    assert_eq!(failed.effect, Effect::Possible);
    assert_eq!(refused_tap(failed).word, "card");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_is_kept_until_there_is_a_verdict() {
    let bench = Bench::new().await;
    // As one does that says 200 to everything.
    let says = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nhi";
    let between = portal(bench.running.address(), "/receipt ", 1, says);
    let mut till = bench.shop.terminal("till-0", between).unwrap();
    let failed = till.redeem(Mode::Script, one(), &mut bench.link()).await;
    let failed = failed.unwrap_err();
    assert_eq!(failed.effect, Effect::Done);
    assert_eq!(bench.on_card(), (VOUCHERS - 1, 1));
    let open = failed.receipt.expect("nobody has judged it");
    till.send_receipt(&open).await.unwrap_err();
    // Later, without the portal.
    let mut till = bench.terminal("till-0");
    let verdict = till.send_receipt(&open).await.unwrap();
    assert_eq!(verdict, "done, 9 left");
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

    // A tap of another mode costs none.
    let bench = Bench::with(|config| config.unsettled = 1, holder()).await;
    let mut till = bench.terminal("till-0");
    let (path, receipt) = script_until_receipt(&bench, &mut till).await;
    for mode in [Mode::CardLocked, Mode::Proven, Mode::Remote] {
        till.redeem(mode, one(), &mut bench.link()).await.unwrap();
    }
    let reply = till.client().post(&path, &receipt).await.unwrap();
    assert_eq!(reply.verdict.as_deref(), Some("done, 9 left"));

    // Open scripts refuse no other mode; among scripts what is settled makes room, what is not does not.
    let bench = Bench::with(|config| config.open_taps = 1, holder()).await;
    let mut till = bench.terminal("till-0");
    let (path, receipt) = script_until_receipt(&bench, &mut till).await;
    for mode in [Mode::CardLocked, Mode::Proven, Mode::Remote] {
        till.redeem(mode, one(), &mut bench.link()).await.unwrap();
    }
    let refused = till.redeem(Mode::Script, one(), &mut bench.link()).await;
    assert_eq!(refused_tap(refused.unwrap_err()).word, "busy");
    till.client().post(&path, &receipt).await.unwrap();
    till.redeem(Mode::Script, one(), &mut bench.link())
        .await
        .unwrap();

    // Nor are they kept for ever, and the log says which were not.
    let age = Duration::from_millis(300);
    let bench = Bench::with(|config| config.unsettled_for = age, holder()).await;
    let mut till = bench.terminal("till-0");
    let (path, receipt) = script_until_receipt(&bench, &mut till).await;
    let (settled, settling) = script_until_receipt(&bench, &mut till).await;
    till.client().post(&settled, &settling).await.unwrap();
    tokio::time::sleep(age * 2).await;
    // The page tidies up.
    till.client().get("/metrics").await.unwrap();
    let refused = refusal(till.client().post(&path, &receipt).await.unwrap_err());
    assert_eq!((refused.status, refused.word.as_str()), (404, "tap"));
    till.client().post(&settled, &settling).await.unwrap();
    let log = bench.log.text();
    let given_up: Vec<_> = log
        .lines()
        .filter(|line| line.contains("given-up"))
        .collect();
    assert_eq!(given_up.len(), 1, "{log}");
    assert!(given_up[0].contains("counter=1 outcome=unknown"), "{log}");
}
