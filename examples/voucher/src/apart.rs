//! The parts as programs of their own: service, card, desk and till, each in its process.
//!
//! The shop's keys are in one file, so that the programs know each other. It holds the master keys in
//! clear and is for trying things out: in the field the desk has them, and the service a token. The service
//! reads it when it starts, the desk for what it does; a till and a card do not.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use desfire_ev1::picc::Card;
use desfire_ev1::split::{Dukpt, Effect, Mode, TerminalId};
use desfire_ev1::wire::Uid;
use zeroize::Zeroizing;

use crate::card::{CardLink, CardSocket};
use crate::demo::{Failure, VOUCHERS, shop_tills};
use crate::keys::TokenSpec;
use crate::scheme::Purpose;
use crate::service::{self, Audit};
use crate::shop::Shop;
use crate::terminal::{Terminal, publish};

/// What tells a program to end: Ctrl-C, or SIGTERM where there is one.
struct Stop {
    #[cfg(unix)]
    term: tokio::signal::unix::Signal,
}

impl Stop {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            #[cfg(unix)]
            term: tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())?,
        })
    }

    #[cfg(unix)]
    async fn told(mut self) -> std::io::Result<()> {
        tokio::select! {
            told = tokio::signal::ctrl_c() => told,
            _ = self.term.recv() => Ok(()),
        }
    }

    #[cfg(not(unix))]
    async fn told(self) -> std::io::Result<()> {
        tokio::signal::ctrl_c().await
    }
}

/// The authentication service on `listen`, until it is told to stop: then no new tap begins, and those in
/// progress come to their end.
///
/// # Errors
/// The shop's file, the token, the address.
pub async fn service(
    shop: &Path,
    listen: SocketAddr,
    token: Option<&TokenSpec>,
    audit: bool,
    out: &mut impl Write,
) -> Result<(), Failure> {
    let shop = Shop::in_file(shop, &shop_tills())?;
    let holder = shop.holder(token)?;
    let name = holder.name();
    let audit = if audit {
        Audit::new(std::io::stderr())
    } else {
        Audit::new(std::io::sink())
    };
    let stop = Stop::new()?;
    let config = shop.config()?;
    // The masters have been read to hand one of them to the key holder. They are wiped before anybody asks.
    drop(shop);
    let running = service::start(config, holder, audit, listen).await?;
    writeln!(out, "service, {name}, at {}", running.address())?;
    out.flush()?;
    stop.told().await?;
    running.stop().await?;
    writeln!(out, "stopped")?;
    Ok(())
}

/// A blank software card on `listen`, until the program is told to stop.
///
/// # Errors
/// The address.
pub async fn card(listen: SocketAddr, card: Card, out: &mut impl Write) -> Result<(), Failure> {
    let stop = Stop::new()?;
    let card = CardSocket::at(card, listen)?;
    writeln!(out, "card at {}", card.address())?;
    out.flush()?;
    stop.told().await?;
    Ok(())
}

/// Issues the card at this address.
///
/// # Errors
/// The shop's file, or the card is not blank.
pub fn issue(shop: &Path, card: SocketAddr, out: &mut impl Write) -> Result<Uid, Failure> {
    let shop = Shop::in_file(shop, &shop_tills())?;
    let uid = shop.desk.issue(VOUCHERS, &mut CardLink::connect(card)?)?;
    writeln!(out, "issued UID {uid}, {VOUCHERS} vouchers")?;
    Ok(uid)
}

/// Where the register of a till's transport keys is: beside the shop's file.
fn register(shop: &Path, till: &str) -> PathBuf {
    let mut register = shop.to_owned();
    register.as_mut_os_string().push(format!(".{till}"));
    register
}

/// The desk gives a till its transport keys, once: with a second register of the same keys it would use
/// them again.
///
/// # Errors
/// The shop's file, there is no such till, or it has its keys.
pub fn till(shop: &Path, till: &str, out: &mut impl Write) -> Result<(), Failure> {
    let register = register(shop, till);
    let shop = Shop::in_file(shop, &shop_tills())?;
    let keys = Dukpt::load(&shop.initial_key(till)?);
    let mut saved = Zeroizing::new([0; Dukpt::SAVED]);
    keys.save(&mut saved);
    publish(&register, &*saved).map_err(|error| format!("{}: {error}", register.display()))?;
    writeln!(out, "{till} has its keys in {}", register.display())?;
    Ok(())
}

/// One tap: who, where, what.
pub struct TapAt {
    /// The shop's file, which is not opened; the till's register of keys is beside it.
    pub shop: PathBuf,
    /// The till's name.
    pub till: String,
    /// The service.
    pub service: SocketAddr,
    /// The card.
    pub card: SocketAddr,
    /// The mode.
    pub mode: Mode,
    /// How many vouchers.
    pub count: u8,
}

/// Redeems vouchers of the card at its address.
///
/// # Errors
/// Why not; it says what became of the vouchers.
pub async fn tap(tap: &TapAt, out: &mut impl Write) -> Result<(), Failure> {
    let purpose = Purpose::redeem(tap.count).ok_or("a tap redeems 1 to 20 vouchers")?;
    let id = TerminalId::new(tap.till.as_bytes())?;
    let register = register(&tap.shop, &tap.till);
    if !register.exists() {
        return Err(format!(
            "{} has no keys yet: the command till gives it some",
            tap.till
        )
        .into());
    }
    let mut till = Terminal::restore(id, register, tap.service)?;
    let mut link = CardLink::connect(tap.card)?;
    let redeemed = till.redeem(tap.mode, purpose, &mut link).await;
    let redeemed = redeemed.map_err(|failed| {
        let vouchers = match failed.effect {
            Effect::None => "not redeemed",
            Effect::Possible => "perhaps redeemed",
            Effect::Done => "redeemed",
        };
        format!("{failed}; vouchers: {vouchers}")
    })?;
    let left = redeemed.left.map(|left| format!(", {left} left"));
    writeln!(
        out,
        "redeemed {}{}; {} calls while the card waits, {} bytes on the network",
        tap.count,
        left.unwrap_or_default(),
        redeemed.calls,
        redeemed.network_bytes
    )?;
    Ok(())
}
