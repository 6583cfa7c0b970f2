//! The terminal: it has the card, a register of DUKPT keys, and no card key at all.
//!
//! A tap goes so: read the UID, select the application, take the next transport key (and store the
//! register before it is used), ask the card for its challenge, ask the service, go on in the mode.
//! While the service is asked the card waits; after [`Terminal::patience`] the terminal gives up,
//! and the card has not been changed.

mod client;

use std::fs::OpenOptions;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use desfire_ev1::split::{
    Challenge, Dukpt, Effect, Freshness, InitialKey, Intent, Mode, Relay, Stop, Tap, TerminalError,
    TerminalId, TransportKey, TransportKeyId,
};
use desfire_ev1::wire::{AuthScheme, KeyType, Status, Uid, WireError};
use desfire_ev1::{Authenticated, Error, Machine as _, RunError, Session, Transport};
use zeroize::Zeroizing;

pub use client::{Client, ClientError, Refused, Reply};

use crate::card::Counted;
use crate::scheme::{self, AID, Purpose, Scheme};

/// Room for a receipt.
const RECEIPT_ROOM: usize = 512;
/// How often a receipt is sent, if it does not arrive.
const RECEIPT_TRIES: u32 = 3;

/// Why vouchers were not redeemed, or perhaps were.
#[derive(Debug, thiserror::Error)]
pub enum TapError {
    /// There is no such application on the card.
    #[error("this is no voucher card")]
    NoVoucherCard,
    /// The card says no.
    #[error("the card does not do it: {0}")]
    Card(#[from] Error),
    /// The card was taken away.
    #[error("the card was taken away too soon ({0})")]
    Link(String),
    /// The service cannot be reached, or does not answer in time.
    #[error(transparent)]
    Service(#[from] ClientError),
    /// What the service sends is not taken.
    #[error("the service's answer is not taken: {0}")]
    Answer(#[from] TerminalError),
    /// A script stopped.
    #[error("the card stopped: {0}")]
    Stopped(&'static str),
    /// The card refused within a script.
    #[error("the card does not do it: {0}")]
    Refused(Status),
    /// A number out of its range.
    #[error(transparent)]
    Wire(#[from] WireError),
    /// The register of DUKPT keys cannot be stored: then no key is used.
    #[error("the terminal's keys cannot be stored: {0}")]
    Store(#[from] std::io::Error),
}

/// What a tap that failed means for the card.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct TapFailed {
    /// Whether vouchers may be gone from the card.
    pub effect: Effect,
    /// Why.
    #[source]
    pub error: TapError,
    /// A receipt that the service has not got: see [`Terminal::send_receipt`].
    pub receipt: Option<OpenReceipt>,
}

impl<E: Into<TapError>> From<E> for TapFailed {
    /// Everything that comes before the card was told to do something.
    fn from(error: E) -> Self {
        Self {
            effect: Effect::None,
            error: error.into(),
            receipt: None,
        }
    }
}

impl<E: std::fmt::Display> From<RunError<E>> for TapError {
    fn from(error: RunError<E>) -> Self {
        match error {
            RunError::Protocol(error) => Self::Card(error),
            RunError::Transport { error, .. } => Self::Link(error.to_string()),
            _ => Self::Link("unknown".to_owned()),
        }
    }
}

/// A receipt on its way to the service. It holds no secret.
#[derive(Clone, Debug)]
pub struct OpenReceipt {
    path: String,
    receipt: Vec<u8>,
}

/// What a tap came to and what it cost.
#[derive(Clone, Debug, Default)]
pub struct Redeemed {
    /// What is left on the card, where the terminal is told.
    pub left: Option<i32>,
    /// What the service says, in script and remote mode.
    pub verdict: Option<String>,
    /// Calls while the card waits.
    pub calls: usize,
    /// Calls when the card may go already.
    pub calls_after: usize,
    /// Bytes to the service and from it, with HTTP around them.
    pub network_bytes: u64,
    /// The messages in them.
    pub message_bytes: u64,
    /// Exchanges with the card.
    pub exchanges: usize,
    /// Bytes to the card and from it.
    pub card_bytes: usize,
    /// How long the card had to stay.
    pub card_time: Duration,
}

/// A terminal.
pub struct Terminal {
    id: TerminalId,
    dukpt: Dukpt,
    client: Client,
    scheme: Scheme,
    stored: Option<PathBuf>,
}

impl Terminal {
    /// A terminal that has just been given its initial key, which it need not keep.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn new(
        id: TerminalId,
        initial: &InitialKey,
        service: SocketAddr,
    ) -> Result<Self, WireError> {
        Ok(Self {
            id,
            dukpt: Dukpt::load(initial),
            client: Client::new(service),
            scheme: Scheme::new()?,
            stored: None,
        })
    }

    /// Where the key register is stored before each use of a key.
    #[must_use]
    pub fn stored_in(mut self, path: PathBuf) -> Self {
        self.stored = Some(path);
        self
    }

    /// From what [`Terminal::stored_in`] has stored.
    ///
    /// # Errors
    /// [`TapError::Store`] if it cannot be read or is no register.
    pub fn restore(id: TerminalId, path: PathBuf, service: SocketAddr) -> Result<Self, TapError> {
        let bytes = Zeroizing::new(std::fs::read(&path)?);
        let saved = bytes.as_slice().try_into();
        let saved = saved.map_err(|_| std::io::Error::from(std::io::ErrorKind::InvalidData))?;
        Ok(Self {
            id,
            dukpt: Dukpt::restore(saved),
            client: Client::new(service),
            scheme: Scheme::new()?,
            stored: Some(path),
        })
    }

    /// How long a call may take; then the card is let go.
    pub const fn patience(&mut self, patience: Duration) {
        self.client.patience = patience;
    }

    /// A delay before each call, to try what a slow network does.
    pub const fn delay(&mut self, delay: Duration) {
        self.client.delay = delay;
    }

    /// The connection to the service.
    pub const fn client(&mut self) -> &mut Client {
        &mut self.client
    }

    /// What a thief of the terminal finds in its memory between two taps.
    #[must_use]
    pub fn memory(&self) -> Zeroizing<[u8; Dukpt::SAVED]> {
        let mut saved = Zeroizing::new([0; Dukpt::SAVED]);
        self.dukpt.save(&mut saved);
        saved
    }

    /// The next transport key, stored as used before it is.
    ///
    /// # Errors
    /// The keys are used up, or cannot be stored.
    pub fn next_key(&mut self) -> Result<(TransportKeyId, TransportKey), TapError> {
        let next = self.dukpt.next_key()?;
        if let Some(path) = &self.stored {
            store(path, self.memory().as_slice())?;
        }
        Ok(next)
    }

    /// What this terminal asks for.
    ///
    /// # Errors
    /// None: it fits.
    pub fn intent(
        &self,
        mode: Mode,
        purpose: Purpose,
        uid: Uid,
        transport: TransportKeyId,
    ) -> Result<Intent, WireError> {
        let counter = match transport {
            TransportKeyId::Dukpt(ksn) => u64::from(ksn.counter),
            TransportKeyId::Preshared(_) => 0,
        };
        Ok(Intent {
            mode,
            scheme: AuthScheme::Aes,
            key_type: KeyType::Aes,
            key_no: self.scheme.redeem,
            uid: Some(uid),
            terminal: self.id,
            transport,
            freshness: Freshness::Counter(counter),
            purpose: purpose.encode()?,
        })
    }

    /// Reads the UID, selects the application, and asks for the challenge.
    ///
    /// # Errors
    /// [`TapError`].
    pub fn challenge<T: Transport + ?Sized>(
        &mut self,
        mode: Mode,
        purpose: Purpose,
        card: &mut T,
    ) -> Result<desfire_ev1::split::Waiting, TapError>
    where
        T::Error: std::fmt::Display,
    {
        let (session, uid) = select(card)?;
        let (id, key) = self.next_key()?;
        let intent = self.intent(mode, purpose, uid, id)?;
        Ok(Tap::new(session, intent, &key).run(card)?)
    }

    /// Redeems vouchers with the card in the field.
    ///
    /// # Errors
    /// [`TapFailed`], which says whether vouchers may be gone.
    pub async fn redeem<T: Transport + ?Sized>(
        &mut self,
        mode: Mode,
        purpose: Purpose,
        card: &mut T,
    ) -> Result<Redeemed, TapFailed>
    where
        T::Error: std::fmt::Display,
    {
        let mut done = Redeemed::default();
        self.client.restart_counting();
        let began = Instant::now();
        let mut card = Counted::new(card);
        let outcome = match mode {
            Mode::CardLocked => self.card_locked(purpose, &mut card, &mut done).await,
            Mode::Proven => self.proven(purpose, &mut card, &mut done).await,
            Mode::Script => self.script(purpose, &mut card, &mut done, began).await,
            Mode::Remote => self.remote(purpose, &mut card, &mut done).await,
        };
        if done.card_time.is_zero() {
            done.card_time = began.elapsed();
        }
        (done.exchanges, done.card_bytes) = (card.exchanges, card.bytes);
        (done.network_bytes, done.message_bytes) = self.client.counted();
        done.calls = self.client.calls() - done.calls_after;
        outcome.map(|()| done)
    }

    fn live<T: Transport + ?Sized>(
        &self,
        mut session: Session<Authenticated>,
        transport: TransportKeyId,
        purpose: Purpose,
        card: &mut T,
        done: &mut Redeemed,
    ) -> Result<(), TapFailed>
    where
        T::Error: std::fmt::Display,
    {
        let line = scheme::record(transport, purpose);
        match self.scheme.redeem(&mut session, purpose, &line, card) {
            Ok(left) => {
                done.left = Some(left);
                Ok(())
            }
            Err(interrupted) => Err(TapFailed {
                effect: interrupted.effect,
                error: interrupted.error.into(),
                receipt: None,
            }),
        }
    }

    async fn card_locked<T: Transport + ?Sized>(
        &mut self,
        purpose: Purpose,
        card: &mut T,
        done: &mut Redeemed,
    ) -> Result<(), TapFailed>
    where
        T::Error: std::fmt::Display,
    {
        let waiting = self.challenge(Mode::CardLocked, purpose, card)?;
        let transport = waiting.challenge().intent.transport;
        let answer = self.client.post("/v1/taps", &waiting.message()?).await?;
        let session = waiting.card_locked(&answer.body)?.run(card)?;
        self.live(session, transport, purpose, card, done)
    }

    async fn proven<T: Transport + ?Sized>(
        &mut self,
        purpose: Purpose,
        card: &mut T,
        done: &mut Redeemed,
    ) -> Result<(), TapFailed>
    where
        T::Error: std::fmt::Display,
    {
        let waiting = self.challenge(Mode::Proven, purpose, card)?;
        let transport = waiting.challenge().intent.transport;
        let answer = self.client.post("/v1/taps", &waiting.message()?).await?;
        let proven = waiting.proven(&answer.body)?.run(card)?;
        let path = answer.tap_path("proof")?;
        let answer = self.client.post(&path, &proven.message()?).await?;
        let session = proven.release(&answer.body)?;
        self.live(session, transport, purpose, card, done)
    }

    async fn script<T: Transport + ?Sized>(
        &mut self,
        purpose: Purpose,
        card: &mut T,
        done: &mut Redeemed,
        began: Instant,
    ) -> Result<(), TapFailed>
    where
        T::Error: std::fmt::Display,
    {
        let waiting = self.challenge(Mode::Script, purpose, card)?;
        let answer = self.client.post("/v1/taps", &waiting.message()?).await?;
        let path = answer.tap_path("receipt")?;
        let mut room = [0; RECEIPT_ROOM];
        let mut player = waiting.script(&answer.body, &mut room)?;
        let played = player.play(card);
        // From here on the card may go.
        done.card_time = began.elapsed();
        let ending = player.ending();
        let receipt = player.into_receipt()?.to_vec();
        let open = OpenReceipt { path, receipt };
        let calls = self.client.calls();
        let told = self.send_receipt(&open).await;
        done.calls_after = self.client.calls() - calls;
        let (verdict, receipt) = match told {
            Ok(verdict) => (Some(verdict), None),
            Err(_) => (None, Some(open)),
        };
        done.left = verdict.as_deref().and_then(left_in);
        done.verdict = verdict;
        let error = match (played, ending.stop) {
            (Ok(_), Stop::Complete) if receipt.is_none() => return Ok(()),
            (Ok(_), Stop::Complete) => TapError::Stopped(
                "all is done, but the receipt did not reach the service; it is kept",
            ),
            (Ok(_), Stop::Refused(status)) => TapError::Refused(status),
            (Ok(_), _) => TapError::Stopped("its answer is not the expected one"),
            (Err(error), _) => error.into(),
        };
        let effect = ending.effect;
        Err(TapFailed {
            effect,
            error,
            receipt,
        })
    }

    /// Brings a receipt to the service; the verdict.
    ///
    /// # Errors
    /// The service cannot be reached, or what answers is something else that says no verdict: keep the
    /// receipt and try again.
    pub async fn send_receipt(&mut self, open: &OpenReceipt) -> Result<String, ClientError> {
        let mut tries = 1;
        loop {
            let reply = self.client.post(&open.path, &open.receipt).await;
            match reply.and_then(|reply| reply.verdict.ok_or(ClientError::Nonsense)) {
                Ok(verdict) => return Ok(verdict),
                Err(error) if tries >= RECEIPT_TRIES || error.is_final() => return Err(error),
                Err(_) => tries += 1,
            }
        }
    }

    async fn remote<T: Transport + ?Sized>(
        &mut self,
        purpose: Purpose,
        card: &mut T,
        done: &mut Redeemed,
    ) -> Result<(), TapFailed>
    where
        T::Error: std::fmt::Display,
    {
        let (_, uid) = select(card)?;
        let (id, key) = self.next_key()?;
        let intent = self.intent(Mode::Remote, purpose, uid, id)?;
        let mut relay = Relay::new(intent, AID, card.format(), &key)?;
        let mut reply = self.client.post("/v1/taps", &relay.message()?).await?;
        let path = reply.tap_path("frame")?;
        // Nobody here knows which frame is the commit, and no error that the service sends proves which it
        // was: with the first frame the card may be debited.
        let unknown = |error: TapError| TapFailed {
            effect: Effect::Possible,
            error,
            receipt: None,
        };
        loop {
            let frame = relay.exchange(&reply.body, card);
            let Some(frame) = frame.map_err(|error| unknown(error.into()))? else {
                break;
            };
            let next = self.client.post(&path, &frame).await;
            reply = next.map_err(|error| unknown(error.into()))?;
        }
        done.left = reply.verdict.as_deref().and_then(left_in);
        done.verdict = reply.verdict;
        Ok(())
    }
}

/// Stores the register so that only this user can read it, and so that it is the old one or the new
/// one, whenever the power goes: an old one after a key was used would use that key again.
fn store(path: &Path, register: &[u8]) -> std::io::Result<()> {
    let fresh = beside(path, "new");
    // One that was left behind keeps the rights that it has.
    match std::fs::remove_file(&fresh) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    write(&fresh, register)?;
    std::fs::rename(&fresh, path)?;
    sync_folder(path)
}

/// Makes a file that was not there, whole or not at all, so that only this user can read it. Of several
/// that make it at once one does, and the others are told [`std::io::ErrorKind::AlreadyExists`].
pub(crate) fn publish(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut number = [0; 8];
    getrandom::fill(&mut number).map_err(std::io::Error::other)?;
    // No two have the same, and none is left behind but by a power cut.
    let fresh = beside(path, &format!("{:016x}", u64::from_be_bytes(number)));
    let published = write(&fresh, bytes).and_then(|()| std::fs::hard_link(&fresh, path));
    let removed = std::fs::remove_file(&fresh);
    published.and(removed)?;
    sync_folder(path)
}

fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut beside = path.to_owned();
    beside.as_mut_os_string().push(format!(".{ending}"));
    beside
}

fn write(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// A new name is in the folder, which is written for itself.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    #[cfg(unix)]
    {
        let folder = path
            .parent()
            .filter(|folder| !folder.as_os_str().is_empty());
        std::fs::File::open(folder.unwrap_or(Path::new(".")))?.sync_all()?;
    }
    #[cfg(not(unix))]
    let _ = path;
    Ok(())
}

/// Reads the UID in the way that every card has, and selects the application.
fn select<T: Transport + ?Sized>(
    card: &mut T,
) -> Result<(Session<desfire_ev1::Unauthenticated>, Uid), TapError>
where
    T::Error: std::fmt::Display,
{
    let mut session = Session::new();
    let uid = session.get_version().run(card)?.uid;
    let selected = session.select_application(AID).run(card);
    match selected {
        Err(error) if error.status() == Some(Status::ApplicationNotFound) => {
            Err(TapError::NoVoucherCard)
        }
        selected => Ok((selected?, uid)),
    }
}

/// The number in `done, 9 left`.
fn left_in(verdict: &str) -> Option<i32> {
    let number = verdict.strip_prefix("done, ")?.strip_suffix(" left")?;
    number.parse().ok()
}

/// The longest challenge.
pub const MAX_CHALLENGE: usize = Challenge::MAX_LEN;
