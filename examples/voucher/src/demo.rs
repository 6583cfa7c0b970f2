//! The demonstration: issues a card, redeems in each mode, shows what it cost and what a thief has.

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use desfire_ev1::Transport;
use desfire_ev1::picc::Card;
use desfire_ev1::split::{Challenge, Freshness, Mode, Modes, TransportKeyId};
use desfire_ev1::wire::{InlineBytes, KeyNo, Uid};

use crate::card::{CardLink, CardSocket};
use crate::keys::TokenSpec;
use crate::scheme::Purpose;
use crate::service::{self, Audit, Running};
use crate::shop::Shop;
use crate::terminal::{ClientError, Redeemed, TapError, Terminal};

/// What the demonstration is told.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Keys in this token instead of in this process.
    pub token: Option<TokenSpec>,
    /// The card on the reader whose name contains this.
    pub reader: Option<String>,
    /// What a call costs on the way, for the second row of times.
    pub delay: Duration,
    /// Show the service's audit log on standard error.
    pub audit: bool,
}

/// Anything that ends it.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// The modes in the order of the table, with the terminals that are granted them.
const TILLS: [(Mode, &str, &str); 4] = [
    (Mode::CardLocked, "till-1", "card-locked"),
    (Mode::Script, "till-2", "script"),
    (Mode::Proven, "till-3", "proven"),
    (Mode::Remote, "till-4", "remote"),
];
/// Taps of each mode that are measured; the table shows the middle one.
const TAPS: usize = 5;
/// With delay, fewer: they take long and vary little.
const DELAYED_TAPS: usize = 3;
pub(crate) const VOUCHERS: i32 = 100;

/// The terminals of the demonstration's shop, each with its one mode.
pub(crate) fn shop_tills() -> [(&'static str, Modes); 4] {
    TILLS.map(|(mode, till, _)| (till, Modes::from(mode)))
}

/// The mode of this name in the table.
#[must_use]
pub fn mode_named(name: &str) -> Option<Mode> {
    let mut tills = TILLS.into_iter();
    tills.find_map(|(mode, _, known)| (known == name).then_some(mode))
}

/// The whole of it, on `out`.
///
/// # Errors
/// Anything that goes wrong, and anything that a thief gets away with.
pub async fn run(options: &Options, out: &mut impl Write) -> Result<(), Failure> {
    let shop = Shop::new(&shop_tills())?;
    let holder = shop.holder(options.token.as_ref())?;
    let name = holder.name();
    let mut config = shop.config()?;
    // The demonstration taps faster than people do.
    config.per_card = std::num::NonZeroU32::MAX;
    config.per_terminal = std::num::NonZeroU32::MAX;
    let audit = if options.audit {
        Audit::new(std::io::stderr())
    } else {
        Audit::new(std::io::sink())
    };
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let running = service::start(config, holder, audit, anywhere).await?;
    writeln!(
        out,
        "Vouchers on a DESFire EV1 card whose keys no terminal has\n"
    )?;
    writeln!(out, "  service   http://{}, {name}", running.address())?;
    let whole = match &options.reader {
        None => {
            let card = CardSocket::new(software_card()?)?;
            writeln!(
                out,
                "  card      a software card behind the socket {}",
                card.address()
            )?;
            // It taps like any card: a connection is the field.
            let address = card.address();
            demonstrate(
                &shop,
                &running,
                options,
                || Ok(CardLink::connect(address)?),
                out,
            )
            .await
        }
        Some(reader) => on_reader(&shop, &running, options, reader, out).await,
    };
    running.stop().await?;
    whole?;
    writeln!(out, "\nThe service has stopped; all went as it should.")?;
    Ok(())
}

/// A blank card, with nonces of its own.
///
/// # Errors
/// The system gives no random numbers.
pub fn software_card() -> Result<Card, getrandom::Error> {
    let (mut seed, mut serial) = ([0; 16], [0; 5]);
    getrandom::fill(&mut seed)?;
    getrandom::fill(&mut serial)?;
    let [a, b, c, d, e] = serial;
    let uid = Uid([0x04, a, b, c, d, e, 0x80]);
    Ok(Card::builder().uid(uid).seed(seed).build())
}

#[cfg(feature = "pcsc")]
async fn on_reader(
    shop: &Shop,
    running: &Running,
    options: &Options,
    name: &str,
    out: &mut impl Write,
) -> Result<(), Failure> {
    const PATIENCE: Duration = Duration::from_secs(15);
    let context = desfire_ev1::pcsc::PcscContext::new()?;
    writeln!(out, "  card      put a blank one on the reader ...")?;
    // Each tap is a connection of its own, as if the card had been put on anew.
    let field = || Ok(context.wait_for_card(Some(name), PATIENCE)?);
    demonstrate(shop, running, options, field, out).await
}

#[cfg(not(feature = "pcsc"))]
async fn on_reader(
    _: &Shop,
    _: &Running,
    _: &Options,
    _: &str,
    _: &mut impl Write,
) -> Result<(), Failure> {
    Err("this program was built without readers; add --features pcsc".into())
}

async fn demonstrate<T: Transport>(
    shop: &Shop,
    running: &Running,
    options: &Options,
    field: impl Fn() -> Result<T, Failure>,
    out: &mut impl Write,
) -> Result<(), Failure>
where
    T::Error: std::fmt::Display,
{
    let uid = shop.desk.issue(VOUCHERS, &mut field()?)?;
    writeln!(out, "  issued    UID {uid}, {VOUCHERS} vouchers\n")?;
    writeln!(out, "Redeeming a voucher in each mode")?;
    let one = Purpose::redeem(1).ok_or("one is a number of vouchers")?;
    let mut left = VOUCHERS;
    let mut columns = Vec::new();
    for (mode, till, mode_name) in TILLS {
        let mut till = shop.terminal(till, running.address())?;
        // So that no tap pays for the connection.
        till.client().get("/health").await?;
        let mut taps = Vec::new();
        for _ in 0..TAPS {
            taps.push(till.redeem(mode, one, &mut field()?).await?);
        }
        till.delay(options.delay);
        let mut delayed = Vec::new();
        for _ in 0..DELAYED_TAPS {
            delayed.push(till.redeem(mode, one, &mut field()?).await?);
        }
        let count = i32::try_from(TAPS + DELAYED_TAPS)?;
        left -= count;
        let last = delayed.last().ok_or("no tap")?;
        if last.left != Some(left) {
            return Err(format!("{mode_name}: {left} should be left, not {:?}", last.left).into());
        }
        writeln!(
            out,
            "  {mode_name:<12} {count} taps, {left} left on the card"
        )?;
        columns.push((mode_name, middle(taps)?, middle(delayed)?));
    }
    table(&columns, options.delay, out)?;
    thief(shop, running, &field, out).await
}

/// The tap whose time is in the middle.
fn middle(mut taps: Vec<Redeemed>) -> Result<Redeemed, Failure> {
    taps.sort_by_key(|tap| tap.card_time);
    let at = taps.len() / 2;
    Ok(taps.into_iter().nth(at).ok_or("no tap")?)
}

fn table(
    columns: &[(&str, Redeemed, Redeemed)],
    delay: Duration,
    out: &mut impl Write,
) -> std::io::Result<()> {
    let ms = |time: Duration| format!("{:.1} ms", time.as_secs_f64() * 1000.0);
    let slow = format!("the same, {} ms a call", delay.as_millis());
    type Cell<'c> = &'c dyn Fn(&(&str, Redeemed, Redeemed)) -> String;
    let rows: [(&str, Cell<'_>); 8] = [
        ("calls while the card waits", &|(_, tap, _)| {
            tap.calls.to_string()
        }),
        ("calls afterwards", &|(_, tap, _)| {
            tap.calls_after.to_string()
        }),
        ("bytes on the network", &|(_, tap, _)| {
            tap.network_bytes.to_string()
        }),
        ("  of them messages", &|(_, tap, _)| {
            tap.message_bytes.to_string()
        }),
        ("exchanges with the card", &|(_, tap, _)| {
            tap.exchanges.to_string()
        }),
        ("bytes on the card's link", &|(_, tap, _)| {
            tap.card_bytes.to_string()
        }),
        ("card in the field, loopback", &|(_, tap, _)| {
            ms(tap.card_time)
        }),
        (&slow, &|(_, _, tap)| ms(tap.card_time)),
    ];
    write!(out, "\n{:<30}", "")?;
    for (name, ..) in columns {
        write!(out, "{name:>13}")?;
    }
    writeln!(out)?;
    for (row, cell) in rows {
        write!(out, "{row:<30}")?;
        for column in columns {
            write!(out, "{:>13}", cell(column))?;
        }
        writeln!(out)?;
    }
    writeln!(
        out,
        "Times are of a software card: a real one adds its own, and the radio's, alike to each mode."
    )
}

/// What a thief of a terminal has: said, and tried.
async fn thief<T: Transport>(
    shop: &Shop,
    running: &Running,
    field: &impl Fn() -> Result<T, Failure>,
    out: &mut impl Write,
) -> Result<(), Failure>
where
    T::Error: std::fmt::Display,
{
    writeln!(
        out,
        "
What a thief of a terminal has
  at rest      524 bytes of DUKPT keys, for taps to come of this terminal alone, until the service
               strikes it off its list. No card key; nothing that opens a recorded tap.
  card-locked  while a card lies on it, that card's session with key 1: he can spend what is on this
               card and read its log. He cannot load vouchers or touch another card.
  script       no key, even then: he can play the redemption that the service made, or not play it.
  proven       as card-locked, and weaker: on its way the session key is protected by the transport
               key alone. The service grants it to no terminal by default; here, to one.
  remote       no key: he sees the frames, and can drop them. Whether a dropped one was the commit is
               then unknown, and the next tap reads it from the card."
    )?;
    writeln!(out, "\nThe thief tries")?;
    let one = Purpose::redeem(1).ok_or("one is a number of vouchers")?;
    let service = running.address();
    let (_, till, _) = TILLS[0];
    let mut stolen = shop.terminal(till, service)?;
    // It has tapped before: the counters that the service knows are used up.
    for _ in 0..TAPS + DELAYED_TAPS {
        stolen.next_key()?;
    }
    let waiting = stolen.challenge(Mode::CardLocked, one, &mut field()?)?;
    let message = waiting.message()?;
    let challenge = *waiting.challenge();
    stolen.client().post("/v1/taps", &message).await?;
    let again = stolen.client().post("/v1/taps", &message).await;
    refused(out, "a challenge again", again, "freshness")?;

    let other = forged(&mut stolen, challenge, |challenge| {
        challenge.intent.mode = Mode::Proven;
        Ok(())
    })
    .await?;
    refused(out, "another mode", other, "policy")?;
    let other = forged(&mut stolen, challenge, |challenge| {
        challenge.intent.key_no = KeyNo::new(2)?;
        Ok(())
    })
    .await?;
    refused(out, "the key that loads vouchers", other, "policy")?;
    let other = forged(&mut stolen, challenge, |challenge| {
        let (_, other, _) = TILLS[1];
        challenge.intent.terminal = desfire_ev1::split::TerminalId::new(other.as_bytes())?;
        Ok(())
    })
    .await?;
    refused(out, "another terminal's name", other, "terminal")?;
    let other = forged(&mut stolen, challenge, |challenge| {
        challenge.intent.purpose = InlineBytes::new(&[1, 200])?;
        Ok(())
    })
    .await?;
    refused(out, "200 vouchers in one script", other, "purpose")?;
    key_search(shop, &stolen, challenge, out)
}

/// Sends a challenge with one field of the thief's choice, and a right MAC: the terminal is his.
async fn forged(
    stolen: &mut Terminal,
    mut challenge: Challenge,
    change: impl FnOnce(&mut Challenge) -> Result<(), desfire_ev1::wire::WireError>,
) -> Result<Result<crate::terminal::Reply, ClientError>, TapError> {
    let (id, key) = stolen.next_key()?;
    challenge.intent.transport = id;
    if let TransportKeyId::Dukpt(ksn) = id {
        challenge.intent.freshness = Freshness::Counter(u64::from(ksn.counter));
    }
    change(&mut challenge)?;
    let message = challenge.seal(&key)?;
    Ok(stolen.client().post("/v1/taps", &message).await)
}

fn refused<O>(
    out: &mut impl Write,
    what: &str,
    answer: Result<O, ClientError>,
    word: &str,
) -> Result<(), Failure> {
    match answer {
        Err(ClientError::Refused(refused)) if refused.word == word => {
            writeln!(out, "  {what:<28} {} {}", refused.status, refused.text)?;
            Ok(())
        }
        Err(error) => Err(format!("{what}: not refused as it should be: {error}").into()),
        Ok(_) => Err(format!("{what}: the service has answered").into()),
    }
}

/// Looks for the card's keys and the master keys in what is left in the terminal.
fn key_search(
    shop: &Shop,
    stolen: &Terminal,
    challenge: Challenge,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let memory = stolen.memory();
    let uid = challenge.intent.uid.ok_or("no UID")?;
    let input = crate::scheme::input(&uid);
    for (_, master) in shop.desk.masters() {
        let card_key = desfire_ev1::Key::aes(*master).diversify(&input)?;
        // A key does not show itself: each window of the memory is tried as the card's key.
        for window in memory.windows(16) {
            let as_key = desfire_ev1::Key::aes(window.try_into()?);
            if window == master.as_slice() || same_key(&as_key, &card_key) {
                return Err("there is a card key in the terminal's memory".into());
            }
        }
    }
    writeln!(
        out,
        "  {:<28} searched {} bytes for the card's keys and the master keys: not there",
        "its memory",
        memory.len()
    )?;
    Ok(())
}

/// Whether two keys encipher alike.
fn same_key(a: &desfire_ev1::Key, b: &desfire_ev1::Key) -> bool {
    use desfire_ev1::split::{CbcDirection, CbcKey as _, SoftKey};
    let mut blocks = [[0x5A; 16]; 2];
    let [one, other] = &mut blocks;
    let enciphered = [(a, one), (b, other)]
        .map(|(key, block)| SoftKey::new(key).cbc(CbcDirection::Encrypt, &[0; 16], block));
    let [one, other] = blocks;
    enciphered.iter().all(Result::is_ok) && one == other
}
