//! Many terminals at once: how many answers a second the service gives, and what of that is its
//! cryptography.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use aes::cipher::{BlockCipherDecrypt as _, BlockCipherEncrypt as _, KeyInit as _};
use desfire_ev1::LinkFormat;
use desfire_ev1::split::{Accepted, Challenge, Counters, Mode, Modes};
use desfire_ev1::wire::{InlineBytes, Uid};

use crate::demo::Failure;
use crate::keys::TokenSpec;
use crate::scheme::{AID, Purpose};
use crate::service::{self, Audit};
use crate::shop::Shop;
use crate::terminal::Terminal;

/// Repetitions of what is measured in this process.
const ROUNDS: u32 = 2000;

/// What came out.
#[derive(Clone, Copy, Debug)]
pub struct Measured {
    /// Answers in all.
    pub answers: usize,
    /// Answers a second.
    pub per_second: f64,
    /// The time of the middle answer, and of the slowest but one in a hundred, at the terminal.
    pub middle: Duration,
    /// See there.
    pub slow: Duration,
}

fn challenge(terminal: &mut Terminal, uid: Uid) -> Result<Vec<u8>, Failure> {
    let (id, key) = terminal.next_key()?;
    let purpose = Purpose::redeem(1).ok_or("one is a number of vouchers")?;
    // Any 16 bytes are a challenge: the service cannot tell, and does all its work.
    let mut cryptogram = [0; 16];
    getrandom::fill(&mut cryptogram)?;
    let challenge = Challenge {
        intent: terminal.intent(Mode::CardLocked, purpose, uid, id)?,
        aid: AID,
        format: LinkFormat::WRAPPED,
        cryptogram: InlineBytes::new(&cryptogram)?,
    };
    Ok(challenge.seal(&key)?.to_vec())
}

fn uid(place: usize) -> Uid {
    let [a, b, c, d] = u32::try_from(place).unwrap_or(0).to_be_bytes();
    Uid([0x04, a, b, c, d, 0, 0x80])
}

/// `count` terminals ask for card-locked answers as fast as they get them, for `time`.
///
/// # Errors
/// Anything but an answer to each.
pub async fn measure(
    count: usize,
    time: Duration,
    token: Option<&TokenSpec>,
) -> Result<Measured, Failure> {
    let names: Vec<String> = (0..count).map(|place| format!("till-{place}")).collect();
    let terminals: Vec<_> = names
        .iter()
        .map(|name| (name.as_str(), Modes::default()))
        .collect();
    let shop = Shop::new(&terminals)?;
    let mut config = shop.config()?;
    config.per_card = NonZeroU32::MAX;
    config.per_terminal = NonZeroU32::MAX;
    // The question is how many answers there are, not how many come in time.
    config.deadline = Duration::from_secs(10);
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let holder = shop.holder(token)?;
    let running = service::start(config, holder, Audit::new(std::io::sink()), anywhere).await?;
    let mut tasks = tokio::task::JoinSet::new();
    let began = Instant::now();
    for (place, name) in names.iter().enumerate() {
        let mut terminal = shop.terminal(name, running.address())?;
        terminal.patience(Duration::from_secs(20));
        tasks.spawn(async move {
            let mut times = Vec::new();
            while began.elapsed() < time {
                let message = challenge(&mut terminal, uid(place))?;
                let asked = Instant::now();
                terminal.client().post("/v1/taps", &message).await?;
                times.push(asked.elapsed());
            }
            Ok::<_, Failure>(times)
        });
    }
    let mut times = Vec::new();
    while let Some(done) = tasks.join_next().await {
        times.extend(done??);
    }
    let took = began.elapsed();
    running.stop().await?;
    times.sort_unstable();
    let at = |share: usize| times.get(times.len() * share / 100).copied();
    #[expect(clippy::cast_precision_loss, reason = "a count of answers, for people")]
    let per_second = times.len() as f64 / took.as_secs_f64();
    Ok(Measured {
        answers: times.len(),
        per_second,
        middle: at(50).unwrap_or_default(),
        slow: at(99).unwrap_or_default(),
    })
}

/// One answer without HTTP: all checks, AN10922, handshake, locking. Time of one.
///
/// # Errors
/// None, unless the system gives no random numbers.
pub fn in_process(token: Option<&TokenSpec>) -> Result<Duration, Failure> {
    let shop = Shop::new(&[("till-0", Modes::default())])?;
    let nowhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let mut terminal = shop.terminal("till-0", nowhere)?;
    let holder = shop.holder(token)?;
    let books = shop.config()?;
    let mut messages = Vec::new();
    for _ in 0..ROUNDS {
        messages.push(challenge(&mut terminal, uid(0))?);
    }
    let mut guard = Counters::<1>::new();
    let began = Instant::now();
    for message in &messages {
        let accepted = Accepted::check(message, &books, &mut guard)?;
        let mut card_key = holder.find(&accepted.key_request())?;
        let answered = accepted.answer(&mut *card_key, &mut getrandom::SysRng)?;
        std::hint::black_box(answered.card_locked()?);
    }
    Ok(began.elapsed() / ROUNDS)
}

/// The card key's block ciphers of one answer alone: two key schedules; AN10922 three blocks, the
/// challenge one block backwards, token and proof three.
#[must_use]
pub fn ciphers_alone() -> Duration {
    let began = Instant::now();
    let mut block = aes::Block::from([0x5A; 16]);
    for _ in 0..ROUNDS {
        let master = aes::Aes128::new(&std::hint::black_box([1; 16]).into());
        for _ in 0..3 {
            master.encrypt_block(&mut block);
        }
        let key = aes::Aes128::new(&block);
        key.decrypt_block(&mut block);
        for _ in 0..3 {
            key.encrypt_block(&mut block);
        }
    }
    std::hint::black_box(block);
    began.elapsed() / ROUNDS
}

/// Measures and reports.
///
/// # Errors
/// As [`measure`].
pub async fn run(
    count: usize,
    time: Duration,
    token: Option<&TokenSpec>,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let us = |time: Duration| time.as_secs_f64() * 1e6;
    writeln!(
        out,
        "{count} terminals ask for card-locked answers for {} s ...",
        time.as_secs()
    )?;
    out.flush()?;
    let measured = measure(count, time, token).await?;
    writeln!(
        out,
        "  over HTTP        {:>9.0} answers/s   middle {:.2} ms, 99 % within {:.2} ms ({} answers)",
        measured.per_second,
        us(measured.middle) / 1000.0,
        us(measured.slow) / 1000.0,
        measured.answers
    )?;
    if token.is_none() {
        let alone = in_process(None)?;
        let line = "one answer without HTTP, on one core";
        writeln!(
            out,
            "  in process       {:>9.0} answers/s   {:.2} us: {line}",
            1e6 / us(alone),
            us(alone)
        )?;
    }
    let ciphers = ciphers_alone();
    let line = "the card key's 7 AES blocks and 2 key schedules of an answer, on one core";
    writeln!(
        out,
        "  ciphers alone    {:>9.0} answers/s   {:.2} us: {line}",
        1e6 / us(ciphers),
        us(ciphers)
    )?;
    writeln!(
        out,
        "The terminals run on the same machine and take their share of it."
    )?;
    Ok(())
}
