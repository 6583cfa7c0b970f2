//! What does not belong: each has a clear error, nothing is lost on the card, nothing leaks in a text.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

mod support;

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use desfire_ev1::split::{
    Challenge, Effect, Freshness, KeyRequest, Mode, Relay, TerminalId, TransportKeyId,
};
use desfire_ev1::wire::{Aid, InlineBytes, KeyNo, Status};
use desfire_ev1::{Link, LinkFormat, Machine as _, Session, Transport};
use support::*;
use voucher::keys::{HeldKey, Holder, KeyFailure};
use voucher::scheme::AID;
use voucher::terminal::{Refused, TapError, Terminal};

/// A challenge of a real card, changed and made right again with the terminal's own key.
async fn forged(
    bench: &Bench,
    till: &mut Terminal,
    change: impl FnOnce(&mut Challenge),
) -> Result<voucher::terminal::Reply, Refused> {
    let waiting = till
        .challenge(Mode::CardLocked, one(), &mut bench.link())
        .unwrap();
    let mut challenge = *waiting.challenge();
    let (id, key) = till.next_key().unwrap();
    let TransportKeyId::Dukpt(ksn) = id else {
        panic!("{id:?}");
    };
    challenge.intent.transport = id;
    challenge.intent.freshness = Freshness::Counter(u64::from(ksn.counter));
    change(&mut challenge);
    let message = challenge.seal(&key).unwrap();
    till.client()
        .post("/v1/taps", &message)
        .await
        .map_err(refusal)
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_terminals() {
    let bench = Bench::new().await;
    let name = |name: &[u8]| TerminalId::new(name).unwrap();
    let mut till = bench.terminal("till-0");
    // The forger's own test: unchanged, it is answered.
    assert!(forged(&bench, &mut till, |_| {}).await.is_ok());
    let unknown = forged(&bench, &mut till, |c| c.intent.terminal = name(b"till-9")).await;
    let others = forged(&bench, &mut till, |c| c.intent.terminal = name(b"till-1")).await;
    let preshared = forged(&bench, &mut till, |c| {
        c.intent.transport = TransportKeyId::Preshared(1);
    })
    .await;
    let other_key = forged(&bench, &mut till, |c| {
        if let TransportKeyId::Dukpt(ksn) = &mut c.intent.transport {
            ksn.key_id[7] ^= 1;
        }
    })
    .await;
    // All alike: nobody finds out which terminals there are.
    let unknown = unknown.unwrap_err();
    assert_eq!((unknown.status, unknown.word.as_str()), (401, "terminal"));
    for other in [others, preshared, other_key] {
        assert_eq!(other.unwrap_err(), unknown);
    }
    assert_eq!(bench.on_card(), (VOUCHERS, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn wrong_freshness() {
    let bench = Bench::new().await;
    let mut till = bench.terminal("till-0");
    let word = |answer: Result<_, Refused>| {
        let refused: Refused = answer.map(|_: voucher::terminal::Reply| ()).unwrap_err();
        assert_eq!(refused.status, 409);
        refused.word
    };
    let ahead = forged(&bench, &mut till, |c| {
        c.intent.freshness = Freshness::Counter(9999)
    })
    .await;
    assert_eq!(word(ahead), "freshness");
    let nonce = forged(&bench, &mut till, |c| {
        c.intent.freshness = Freshness::Nonce([7; 16])
    })
    .await;
    assert_eq!(word(nonce), "freshness");
    let waiting = till
        .challenge(Mode::CardLocked, one(), &mut bench.link())
        .unwrap();
    let message = waiting.message().unwrap();
    till.client().post("/v1/taps", &message).await.unwrap();
    let again = till.client().post("/v1/taps", &message).await;
    assert_eq!(word(again.map_err(refusal)), "freshness");
    // An older one that was never sent is too old as well.
    let older = till
        .challenge(Mode::CardLocked, one(), &mut bench.link())
        .unwrap()
        .message()
        .unwrap();
    assert!(forged(&bench, &mut till, |_| {}).await.is_ok());
    let late = till.client().post("/v1/taps", &older).await;
    assert_eq!(word(late.map_err(refusal)), "freshness");
}

#[tokio::test(flavor = "multi_thread")]
async fn cards_that_are_not_in_the_scheme() {
    let bench = Bench::new().await;
    let mut till = bench.terminal("till-0");
    // A blank one: the service is not asked at all.
    let card = blank();
    let mut link = voucher::card::CardLink::connect(card.address()).unwrap();
    let failed = till
        .redeem(Mode::CardLocked, one(), &mut link)
        .await
        .unwrap_err();
    assert!(matches!(failed.error, TapError::NoVoucherCard), "{failed}");
    // One of another shop: it has the application and other keys, and refuses the token.
    let other = voucher::shop::Shop::new(&TILLS).unwrap();
    let card = issued(&other);
    for mode in [Mode::CardLocked, Mode::Proven, Mode::Script] {
        let mut link = voucher::card::CardLink::connect(card.address()).unwrap();
        let failed = till.redeem(mode, one(), &mut link).await.unwrap_err();
        assert_eq!(failed.effect, Effect::None, "{mode}");
        let status = match failed.error {
            TapError::Card(error) => error.status(),
            TapError::Refused(status) => Some(status),
            other => panic!("{mode}: {other}"),
        };
        assert_eq!(status, Some(Status::AuthenticationError), "{mode}");
    }
    let mut link = voucher::card::CardLink::connect(card.address()).unwrap();
    assert_eq!(on_card(&other, &mut link), (VOUCHERS, 0));
    // Another application, another key, no UID, another purpose: all with a right MAC.
    let aid = forged(&bench, &mut till, |c| c.aid = Aid::from_bytes([1, 2, 3])).await;
    let key = forged(&bench, &mut till, |c| c.intent.key_no = KeyNo::MASTER).await;
    for refused in [aid, key] {
        let refused = refused.unwrap_err();
        assert_eq!((refused.status, refused.word.as_str()), (403, "policy"));
    }
    let uid = forged(&bench, &mut till, |c| c.intent.uid = None)
        .await
        .unwrap_err();
    assert_eq!((uid.status, uid.word.as_str()), (400, "uid"));
    for purpose in [&[][..], &[1, 0], &[1, 21], &[2, 1], &[1, 1, 1]] {
        let purpose = InlineBytes::new(purpose).unwrap();
        let refused = forged(&bench, &mut till, |c| c.intent.purpose = purpose).await;
        assert_eq!(refused.unwrap_err().word, "purpose");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_weaker_mode_unless_granted() {
    let bench = Bench::new().await;
    let mut till = bench.terminal("till-1");
    let failed = till.redeem(Mode::Proven, one(), &mut bench.link()).await;
    let refused = refused_tap(failed.unwrap_err());
    assert_eq!((refused.status, refused.word.as_str()), (403, "policy"));
    till.redeem(Mode::CardLocked, one(), &mut bench.link())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_holder_is_down() {
    let down = Arc::new(AtomicBool::new(true));
    let bad = Bad {
        inner: holder(),
        down: Arc::clone(&down),
        slow: Duration::ZERO,
    };
    let bench = Bench::with(|_| {}, Arc::new(bad)).await;
    let mut till = bench.terminal("till-0");
    for mode in [Mode::CardLocked, Mode::Proven, Mode::Script, Mode::Remote] {
        let failed = till
            .redeem(mode, one(), &mut bench.link())
            .await
            .unwrap_err();
        assert_eq!(failed.effect, Effect::None);
        let refused = refused_tap(failed);
        assert_eq!(
            (refused.status, refused.word.as_str()),
            (503, "holder"),
            "{mode}"
        );
        assert!(!refused.text.contains("CKR") && !refused.text.contains("1234"));
    }
    let health = refusal(till.client().get("/health").await.unwrap_err());
    assert_eq!(health.status, 503);
    assert_eq!(bench.on_card(), (VOUCHERS, 0));
    // The operator reads it in the log.
    assert!(bench.log.text().contains(INSIDE));
    down.store(false, Ordering::Release);
    assert_eq!(till.client().get("/health").await.unwrap(), "ok\n");
    till.redeem(Mode::Script, one(), &mut bench.link())
        .await
        .unwrap();
    assert_eq!(bench.on_card(), (VOUCHERS - 1, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_holder_is_slow() {
    let deadline = Duration::from_millis(100);
    let bad = Bad {
        inner: holder(),
        down: Arc::default(),
        slow: Duration::from_secs(2),
    };
    let bench = Bench::with(
        |config| {
            config.deadline = deadline;
            config.at_once = 1;
        },
        Arc::new(bad),
    )
    .await;
    let mut till = bench.terminal("till-0");
    // The second finds the only place taken by the first, which still hangs: it is not kept longer.
    for mode in [Mode::CardLocked, Mode::Script, Mode::Remote] {
        let began = Instant::now();
        let failed = till
            .redeem(mode, one(), &mut bench.link())
            .await
            .unwrap_err();
        assert_eq!(failed.effect, Effect::None);
        let refused = refused_tap(failed);
        assert_eq!(
            (refused.status, refused.word.as_str()),
            (504, "deadline"),
            "{mode}"
        );
        let took = began.elapsed();
        assert!(
            took >= deadline && took < Duration::from_millis(1500),
            "{took:?}"
        );
    }
    // A terminal with less patience than the service lets the card go by itself.
    till.patience(Duration::from_millis(20));
    let failed = till
        .redeem(Mode::CardLocked, one(), &mut bench.link())
        .await;
    let failed = failed.unwrap_err();
    assert_eq!(failed.effect, Effect::None);
    assert!(failed.to_string().contains("in time"), "{failed}");
    assert_eq!(bench.on_card(), (VOUCHERS, 0));
}

/// The health page is open to all. However often it is asked, there is a place for a tap.
#[tokio::test(flavor = "multi_thread")]
async fn many_questions_for_health() {
    let bad = Bad {
        inner: holder(),
        down: Arc::default(),
        slow: Duration::from_millis(100),
    };
    let bench = Bench::with(
        |config| {
            config.deadline = Duration::from_secs(2);
            config.at_once = 2;
        },
        Arc::new(bad),
    )
    .await;
    let mut asking = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let mut stranger = bench.terminal("till-1");
        asking.spawn(async move { stranger.client().get("/health").await.is_ok() });
    }
    // The first has been answered: all are on their way.
    assert!(asking.join_next().await.unwrap().unwrap());
    let mut till = bench.terminal("till-0");
    till.redeem(Mode::CardLocked, one(), &mut bench.link())
        .await
        .unwrap();
    assert!(!asking.is_empty(), "the test asks for too little");
}

/// A key holder whose check hangs.
struct Hanging(Arc<dyn Holder>);

impl Holder for Hanging {
    fn find(&self, wanted: &KeyRequest) -> Result<HeldKey, KeyFailure> {
        self.0.find(wanted)
    }

    fn check(&self) -> Result<(), KeyFailure> {
        std::thread::sleep(Duration::from_secs(3));
        Ok(())
    }

    fn name(&self) -> String {
        "hanging".to_owned()
    }
}

/// The check that nobody waits for any more is still the only one.
#[tokio::test(flavor = "multi_thread")]
async fn health_is_asked_one_at_a_time() {
    let change = |config: &mut voucher::service::Config| {
        config.deadline = Duration::from_millis(400);
        config.at_once = 2;
    };
    let bench = Bench::with(change, Arc::new(Hanging(holder()))).await;
    let mut stranger = bench.terminal("till-1");
    for word in ["deadline", "busy"] {
        let refused = refusal(stranger.client().get("/health").await.unwrap_err());
        assert_eq!(refused.word, word);
    }
    // Nor when the stranger hangs up.
    stranger.patience(Duration::from_millis(50));
    stranger.client().get("/health").await.unwrap_err();
    let mut till = bench.terminal("till-0");
    till.redeem(Mode::CardLocked, one(), &mut bench.link())
        .await
        .unwrap();
}

/// Two terminals with one initial key could speak for each other.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_for_each_terminal() {
    let shop = voucher::shop::Shop::of(desk(), &TILLS).unwrap();
    let mut config = shop.config().unwrap();
    for till in config.terminals.values_mut() {
        till.key_id = *b"the same";
    }
    let anywhere = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    let audit = voucher::service::Audit::new(std::io::sink());
    let started = voucher::service::start(config, holder(), audit, anywhere).await;
    let error = started.err().unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::InvalidInput);
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_bodies() {
    let bench = Bench::new().await;
    let mut till = bench.terminal("till-0");
    let waiting = till
        .challenge(Mode::CardLocked, one(), &mut bench.link())
        .unwrap();
    let message = waiting.message().unwrap().to_vec();
    let mut bodies: Vec<Vec<u8>> = (0..message.len())
        .map(|len| message[..len].to_vec())
        .collect();
    bodies.extend((0..message.len() * 8).map(|bit| {
        let mut body = message.clone();
        body[bit / 8] ^= 1 << (bit % 8);
        body
    }));
    bodies.push([&message[..], &[0]].concat());
    bodies.push(vec![0xFF; 2048]);
    for body in bodies {
        let refused = refusal(till.client().post("/v1/taps", &body).await.unwrap_err());
        assert!(matches!(refused.status, 400 | 401), "{refused:?}");
    }
    // Nothing of this has used up the challenge.
    till.client().post("/v1/taps", &message).await.unwrap();
    // The other doors, with a tap that is there and with some that are not.
    for path in ["00", "zz", "", &"f".repeat(32), &"f".repeat(400)] {
        for door in ["proof", "receipt", "frame"] {
            let path = format!("/v1/taps/{path}/{door}");
            let refused = refusal(till.client().post(&path, b"x").await.unwrap_err());
            assert_eq!(refused.status, 404, "{path}");
        }
    }
    let refused = refusal(till.client().get("/v1/taps").await.unwrap_err());
    assert_eq!(refused.status, 405);
}

#[tokio::test(flavor = "multi_thread")]
async fn oversize_bodies() {
    let bench = Bench::new().await;
    let mut till = bench.terminal("till-0");
    for len in [voucher::service::MAX_BODY + 1, 1 << 20] {
        match till
            .client()
            .post("/v1/taps", &vec![1; len])
            .await
            .unwrap_err()
        {
            voucher::terminal::ClientError::Refused(refused) => {
                assert_eq!((refused.status, refused.word.as_str()), (413, "size"));
            }
            // The service has closed the connection in the middle of it.
            voucher::terminal::ClientError::Unreachable(_) => assert!(len > 100_000),
            other => panic!("{other}"),
        }
    }
    till.redeem(Mode::CardLocked, one(), &mut bench.link())
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn rate_limits() {
    let two = NonZeroU32::new(2).unwrap();
    let bench = Bench::with(|config| config.per_terminal = two, holder()).await;
    let mut till = bench.terminal("till-0");
    let mut limited = None;
    for _ in 0..10 {
        let waiting = till
            .challenge(Mode::CardLocked, one(), &mut bench.link())
            .unwrap();
        let message = waiting.message().unwrap().to_vec();
        if let Err(error) = till.client().post("/v1/taps", &message).await {
            let refused = refusal(error);
            assert_eq!((refused.status, refused.word.as_str()), (429, "rate"));
            limited = Some(message);
            break;
        }
    }
    // Refused, and not used up: the same challenge is good a moment later.
    let limited = limited.expect("ten taps at once are too many");
    tokio::time::sleep(Duration::from_millis(1100)).await;
    till.client().post("/v1/taps", &limited).await.unwrap();

    // A card at two terminals.
    let bench = Bench::with(|config| config.per_card = two, holder()).await;
    let mut words = Vec::new();
    for name in ["till-0", "till-1", "till-0", "till-1", "till-0", "till-1"] {
        let mut till = bench.terminal(name);
        // A fresh register begins at one: catch up with what was used.
        for _ in 0..words.len() {
            till.next_key().unwrap();
        }
        let tap = till
            .redeem(Mode::CardLocked, one(), &mut bench.link())
            .await;
        words.push(tap.map_or_else(|failed| refused_tap(failed).word, |_| "ok".to_owned()));
    }
    assert!(words.contains(&"rate".to_owned()), "{words:?}");
    // Forged messages count against nobody.
    let bench = Bench::with(|config| config.per_terminal = two, holder()).await;
    let mut till = bench.terminal("till-0");
    let waiting = till
        .challenge(Mode::CardLocked, one(), &mut bench.link())
        .unwrap();
    let mut message = waiting.message().unwrap().to_vec();
    let good = message.clone();
    *message.last_mut().unwrap() ^= 1;
    for _ in 0..20 {
        let refused = refusal(till.client().post("/v1/taps", &message).await.unwrap_err());
        assert_eq!(refused.status, 401);
    }
    till.client().post("/v1/taps", &good).await.unwrap();
    // Nor do repeated ones, which somebody else has overheard.
    for _ in 0..20 {
        let refused = refusal(till.client().post("/v1/taps", &good).await.unwrap_err());
        assert_eq!(refused.word, "freshness");
    }
    till.redeem(Mode::CardLocked, one(), &mut bench.link())
        .await
        .unwrap();
}

/// A challenge that was refused is still fresh, and whoever has overheard it can repeat it. That costs the
/// terminal nothing.
#[tokio::test(flavor = "multi_thread")]
async fn repeating_what_was_refused() {
    let number = |number| NonZeroU32::new(number).unwrap();
    let bench = Bench::with(|config| config.per_terminal = number(1), holder()).await;
    // Not granted.
    let mut till = bench.terminal("till-1");
    let waiting = till.challenge(Mode::Proven, one(), &mut bench.link());
    let message = waiting.unwrap().message().unwrap();
    let mut stranger = bench.terminal("till-0");
    for _ in 0..20 {
        let refused = stranger.client().post("/v1/taps", &message).await;
        assert_eq!(refusal(refused.unwrap_err()).word, "policy");
    }
    till.redeem(Mode::CardLocked, one(), &mut bench.link())
        .await
        .unwrap();

    // Too often for the card: this one is counted, once.
    let change = |config: &mut voucher::service::Config| {
        config.per_terminal = number(3);
        config.per_card = number(1);
    };
    let bench = Bench::with(change, holder()).await;
    let mut till = bench.terminal("till-1");
    let mut stranger = bench.terminal("till-0");
    till.redeem(Mode::CardLocked, one(), &mut bench.link())
        .await
        .unwrap();
    let waiting = till.challenge(Mode::CardLocked, one(), &mut bench.link());
    let message = waiting.unwrap().message().unwrap();
    for _ in 0..5 {
        let refused = stranger.client().post("/v1/taps", &message).await;
        assert_eq!(refusal(refused.unwrap_err()).word, "rate");
    }
    let other = issued(&bench.shop);
    let mut link = voucher::card::CardLink::connect(other.address()).unwrap();
    till.redeem(Mode::CardLocked, one(), &mut link)
        .await
        .unwrap();
}

/// Somebody on the network who knows the tap's number, as it travels in clear: nothing that he sends
/// ends it, and he learns nothing.
#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_the_terminals_changes_nothing() {
    let bench = Bench::new().await;
    let mut till = bench.terminal("till-0");
    let mut stranger = bench.terminal("till-1");
    // Bodies of all kinds, the right ones with each byte changed among them, and those before.
    fn bodies(right: &[u8], before: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut bodies = vec![vec![], vec![0; 40]];
        bodies.extend((0..right.len()).map(|at| {
            let mut changed = right.to_vec();
            changed[at] ^= 1;
            changed
        }));
        bodies.extend_from_slice(before);
        bodies
    }
    async fn refused(stranger: &mut Terminal, path: &str, bodies: Vec<Vec<u8>>) {
        for body in bodies {
            let refused = refusal(stranger.client().post(path, &body).await.unwrap_err());
            assert!(matches!(refused.status, 400 | 401), "{refused:?}");
        }
    }

    let mut link = bench.link();
    let waiting = till.challenge(Mode::Proven, one(), &mut link).unwrap();
    let challenge = waiting.message().unwrap();
    let reply = till.client().post("/v1/taps", &challenge).await.unwrap();
    let path = reply.tap_path("proof").unwrap();
    let proven = waiting.proven(&reply.body).unwrap().run(&mut link).unwrap();
    let proof = proven.message().unwrap();
    let others = [challenge.to_vec(), reply.body];
    refused(&mut stranger, &path, bodies(&proof, &others)).await;
    let release = till.client().post(&path, &proof).await.unwrap();
    proven.release(&release.body).unwrap();
    drop(link);

    let mut link = bench.link();
    let (id, key) = till.next_key().unwrap();
    let uid = Session::new().get_version().run(&mut link).unwrap().uid;
    let intent = till.intent(Mode::Remote, one(), uid, id).unwrap();
    let mut relay = Relay::new(intent, AID, link.format(), &key).unwrap();
    let opening = relay.message().unwrap();
    let mut reply = till.client().post("/v1/taps", &opening).await.unwrap();
    let path = reply.tap_path("frame").unwrap();
    let mut before = vec![opening.to_vec()];
    while let Some(frame) = relay.exchange(&reply.body, &mut link).unwrap() {
        before.push(reply.body);
        refused(&mut stranger, &path, bodies(&frame, &before)).await;
        before.push(frame.to_vec());
        reply = till.client().post(&path, &frame).await.unwrap();
    }
    assert_eq!(reply.verdict.as_deref(), Some("done, 9 left"));
    drop(link);
    assert_eq!(bench.on_card(), (VOUCHERS - 1, 1));
    let page = till.client().get("/metrics").await.unwrap();
    for line in [
        r#"voucher_verdicts_total{mode="proven",outcome="released"} 1"#,
        r#"voucher_verdicts_total{mode="remote",outcome="done"} 1"#,
        "voucher_open_taps 0",
    ] {
        assert!(page.contains(line), "{line} in\n{page}");
    }
}

/// A card that does not know its key says something of the right length.
struct Guessing(voucher::card::CardLink);

impl Link for Guessing {
    type Error = voucher::card::LinkError;

    fn format(&self) -> LinkFormat {
        self.0.format()
    }
}

impl Transport for Guessing {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        let len = self.0.exchange(command, reply)?;
        // The answer to the token is the only one of this length that is the last.
        if len == 18 && reply[17] == 0x00 {
            reply[0] ^= 1;
        }
        Ok(len)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_proof_ends_the_tap() {
    let bench = Bench::new().await;
    let mut till = bench.terminal("till-0");
    let mut link = Guessing(bench.link());
    let waiting = till.challenge(Mode::Proven, one(), &mut link).unwrap();
    let reply = till
        .client()
        .post("/v1/taps", &waiting.message().unwrap())
        .await
        .unwrap();
    let proven = waiting.proven(&reply.body).unwrap().run(&mut link).unwrap();
    // A card that guesses, at an honest terminal: the message is right, the proof is not.
    let guess = proven.message().unwrap();
    let path = reply.tap_path("proof").unwrap();
    let refused = refusal(till.client().post(&path, &guess).await.unwrap_err());
    assert_eq!((refused.status, refused.word.as_str()), (403, "proof"));
    let refused = refusal(till.client().post(&path, &guess).await.unwrap_err());
    assert_eq!(refused.status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_graceful_stop() {
    let bench = Bench::new().await;
    let mut till = bench.terminal("till-0");
    let mut link = bench.link();
    let waiting = till.challenge(Mode::Proven, one(), &mut link).unwrap();
    let message = waiting.message().unwrap();
    let reply = till.client().post("/v1/taps", &message).await.unwrap();
    bench.running.wind_down();
    // No new one ...
    let mut other = bench.terminal("till-1");
    // The first card is in the middle of its tap: another one.
    let second = issued(&bench.shop);
    let mut link_to_second = voucher::card::CardLink::connect(second.address()).unwrap();
    let failed = other
        .redeem(Mode::CardLocked, one(), &mut link_to_second)
        .await;
    let refused = refused_tap(failed.unwrap_err());
    assert_eq!((refused.status, refused.word.as_str()), (503, "stopping"));
    // ... while the one in progress comes to its end.
    let stopped = tokio::spawn(bench.running.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!stopped.is_finished());
    let proven = waiting.proven(&reply.body).unwrap().run(&mut link);
    let path = reply.tap_path("proof").unwrap();
    let proof = proven.unwrap().message().unwrap();
    till.client().post(&path, &proof).await.unwrap();
    tokio::time::timeout(Duration::from_secs(3), stopped)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    assert!(till.client().get("/health").await.is_err());
}

/// A card has done a script and its receipt is on the way: the service waits for it. Which receipts have
/// not come stands in the log.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_receipts() {
    let bench = Bench::with(|config| config.patience = Duration::from_secs(2), holder()).await;
    let mut till = bench.terminal("till-0");
    let mut scripts = Vec::new();
    for _ in 0..2 {
        let mut link = bench.link();
        let waiting = till.challenge(Mode::Script, one(), &mut link).unwrap();
        let message = waiting.message().unwrap();
        let reply = till.client().post("/v1/taps", &message).await.unwrap();
        let mut room = [0; 512];
        let mut player = waiting.script(&reply.body, &mut room).unwrap();
        player.play(&mut link).unwrap();
        let receipt = player.into_receipt().unwrap().to_vec();
        scripts.push((reply.tap_path("receipt").unwrap(), receipt));
    }
    let stopped = tokio::spawn(bench.running.stop());
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!stopped.is_finished());
    let (path, receipt) = &scripts[0];
    let reply = till.client().post(path, receipt).await.unwrap();
    assert!(reply.verdict.unwrap().starts_with("done"));
    tokio::time::timeout(Duration::from_secs(10), stopped)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let log = bench.log.text();
    let given_up: Vec<_> = log
        .lines()
        .filter(|line| line.contains("event=given-up"))
        .collect();
    assert_eq!(given_up.len(), 1, "{log}");
    assert!(given_up[0].contains("counter=2 outcome=unknown"), "{log}");
}

/// A challenge that the key holder still has when the stop comes is a tap in progress: its script goes
/// out, and its receipt is taken.
#[tokio::test(flavor = "multi_thread")]
async fn a_stop_waits_for_answers() {
    let slow = Duration::from_secs(1);
    let bad = Bad {
        inner: holder(),
        down: Arc::default(),
        slow,
    };
    let bench = Bench::with(|_| {}, Arc::new(bad)).await;
    let (mut till, mut link) = (bench.terminal("till-0"), bench.link());
    let tap = tokio::spawn(async move { till.redeem(Mode::Script, one(), &mut link).await });
    tokio::time::sleep(slow / 4).await;
    let stopped = tokio::spawn(bench.running.stop());
    let redeemed = tap.await.unwrap().unwrap();
    assert_eq!(redeemed.verdict.as_deref(), Some("done, 9 left"));
    stopped.await.unwrap().unwrap();
    let log = bench.log.text();
    assert_eq!(log.matches("outcome=").count(), 2, "{log}");
    assert!(log.contains("event=receipt"), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn logs_and_pages_hold_no_secrets() {
    let bench = Bench::new().await;
    let mut till = bench.terminal("till-0");
    for mode in [Mode::CardLocked, Mode::Script, Mode::Proven, Mode::Remote] {
        till.redeem(mode, one(), &mut bench.link()).await.unwrap();
    }
    let _ = forged(&bench, &mut till, |c| c.intent.key_no = KeyNo::MASTER).await;
    let page = till.client().get("/metrics").await.unwrap();
    for line in [
        r#"voucher_answers_total{mode="card-locked",outcome="granted"} 1"#,
        r#"voucher_answers_total{mode="card-locked",outcome="policy"} 1"#,
        r#"voucher_verdicts_total{mode="script",outcome="done"} 1"#,
        r#"voucher_verdicts_total{mode="remote",outcome="done"} 1"#,
        r#"voucher_verdicts_total{mode="proven",outcome="released"} 1"#,
    ] {
        assert!(page.contains(line), "{line} in\n{page}");
    }
    let log = bench.log.text();
    assert_eq!(log.lines().count(), 8, "{log}");
    for line in log.lines() {
        assert!(
            line.starts_with("time=") && line.contains("terminal=\"till-0\""),
            "{line}"
        );
    }
    let hex = |bytes: &[u8]| -> String { bytes.iter().map(|b| format!("{b:02x}")).collect() };
    let seen = format!("{log}{page}")
        .to_lowercase()
        .replace([' ', ':'], "");
    for (_, master) in bench.shop.desk.masters() {
        for part in master.chunks(4) {
            assert!(!seen.contains(&hex(part)));
        }
    }
}
