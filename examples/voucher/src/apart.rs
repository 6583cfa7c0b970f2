//! The parts as programs of their own: service, card, desk and till, each in its process.
//!
//! The shop's keys are in one file, so that the programs know each other. It holds the master keys in
//! clear and is for trying things out: in the field the desk has them, and the service a token.

use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use desfire_ev1::picc::Card;
use desfire_ev1::split::{Effect, Mode, TerminalId};
use desfire_ev1::wire::Uid;

use crate::card::{CardLink, CardSocket};
use crate::demo::{Failure, VOUCHERS, shop_tills};
use crate::keys::TokenSpec;
use crate::scheme::Purpose;
use crate::service::{self, Audit};
use crate::shop::Shop;
use crate::terminal::Terminal;

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
    let running = service::start(shop.config()?, holder, audit, listen).await?;
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

/// One tap: who, where, what.
pub struct TapAt {
    /// The shop's file; the till's register of keys is beside it.
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
    let mut till = till(tap)?;
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

/// With the register where it was left, or with the initial key for the first time.
fn till(tap: &TapAt) -> Result<Terminal, Failure> {
    let mut register = tap.shop.clone();
    register.as_mut_os_string().push(format!(".{}", tap.till));
    if register.exists() {
        let id = TerminalId::new(tap.till.as_bytes())?;
        return Ok(Terminal::restore(id, register, tap.service)?);
    }
    let shop = Shop::in_file(&tap.shop, &shop_tills())?;
    let till = shop.terminal(&tap.till, tap.service)?;
    Ok(till.stored_in(register))
}
