//! A shop for the tests: over the key store in this process or, if the environment names a token, over
//! that. `.ci/voucher` runs everything both ways.

#![allow(
    dead_code,
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    reason = "each test uses a part of it; a test is allowed to fail loudly"
)]

use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use desfire_ev1::picc::Card;
use desfire_ev1::split::{KeyRequest, Modes};
use desfire_ev1::wire::Uid;
use desfire_ev1::{Key, Machine as _, Session};
use voucher::card::{CardLink, CardSocket};
use voucher::issue::Desk;
use voucher::keys::{HeldKey, Holder, KeyFailure, SoftHolder, TokenHolder, TokenSpec};
use voucher::scheme::{self, AID, Purpose};
use voucher::service::{self, Audit, Config, Running};
use voucher::shop::Shop;
use voucher::terminal::{ClientError, Refused, TapError, TapFailed, Terminal};

pub const VOUCHERS: i32 = 10;

/// The token that the environment names.
pub fn token_spec() -> Option<TokenSpec> {
    Some(TokenSpec {
        module: std::env::var_os("VOUCHER_TEST_TOKEN")?.into(),
        label: "voucher".to_owned(),
        pin: "1234".to_owned().into(),
    })
}

/// One desk and one key holder for a test program: a token can be opened once.
pub fn desk() -> Arc<Desk> {
    static DESK: OnceLock<Arc<Desk>> = OnceLock::new();
    Arc::clone(DESK.get_or_init(|| Arc::new(Desk::new().unwrap())))
}

pub fn token() -> Option<TokenHolder> {
    static TOKEN: OnceLock<Option<TokenHolder>> = OnceLock::new();
    let open = || {
        let token = TokenHolder::open(&token_spec()?).unwrap();
        for (key_no, key) in desk().masters() {
            let input = scheme::input(&Uid([0; 7]));
            token.load(AID, key_no, key, &input).unwrap();
        }
        Some(token)
    };
    TOKEN.get_or_init(open).clone()
}

pub fn holder() -> Arc<dyn Holder> {
    match token() {
        Some(token) => Arc::new(token),
        None => {
            let desk = desk();
            let masters = desk.masters();
            let masters = masters.map(|(key_no, key)| (key_no, Key::aes(*key)));
            Arc::new(SoftHolder::new(masters.collect()))
        }
    }
}

/// A log that can be read.
#[derive(Clone, Default)]
pub struct Log(Arc<Mutex<Vec<u8>>>);

impl Log {
    pub fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// Terminals `till-0` with all modes, `till-1` with the default ones.
pub struct Bench {
    pub shop: Shop,
    pub running: Running,
    pub log: Log,
    pub card: CardSocket,
}

pub const TILLS: [(&str, Modes); 2] = [
    ("till-0", Modes::all()),
    (
        "till-1",
        Modes::CARD_LOCKED.union(Modes::SCRIPT).union(Modes::REMOTE),
    ),
];

impl Bench {
    pub async fn new() -> Self {
        Self::with(|_| {}, holder()).await
    }

    pub async fn with(change: impl FnOnce(&mut Config), holder: Arc<dyn Holder>) -> Self {
        let shop = Shop::of(desk(), &TILLS).unwrap();
        let mut config = shop.config().unwrap();
        config.per_card = std::num::NonZeroU32::MAX;
        config.per_terminal = std::num::NonZeroU32::MAX;
        // The machine may be busy with other tests.
        config.deadline = Duration::from_secs(10);
        change(&mut config);
        let log = Log::default();
        let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let audit = Audit::new(log.clone());
        let running = service::start(config, holder, audit, anywhere)
            .await
            .unwrap();
        let card = issued(&shop);
        Self {
            shop,
            running,
            log,
            card,
        }
    }

    pub fn terminal(&self, name: &str) -> Terminal {
        let mut terminal = self.shop.terminal(name, self.running.address()).unwrap();
        terminal.patience(Duration::from_secs(20));
        terminal
    }

    pub fn link(&self) -> CardLink {
        CardLink::connect(self.card.address()).unwrap()
    }

    /// The vouchers on the card and the lines in its log, read at the desk.
    pub fn on_card(&self) -> (i32, usize) {
        on_card(&self.shop, &mut self.link())
    }
}

pub fn blank() -> CardSocket {
    let (mut seed, mut uid) = ([0; 16], [4; 7]);
    getrandom::fill(&mut seed).unwrap();
    getrandom::fill(&mut uid[1..]).unwrap();
    CardSocket::new(Card::builder().uid(Uid(uid)).seed(seed).build()).unwrap()
}

pub fn issued(shop: &Shop) -> CardSocket {
    let card = blank();
    let mut link = CardLink::connect(card.address()).unwrap();
    shop.desk.issue(VOUCHERS, &mut link).unwrap();
    card
}

pub fn on_card(shop: &Shop, link: &mut CardLink) -> (i32, usize) {
    let scheme = shop.desk.scheme();
    let mut session = Session::new();
    let uid = session.get_version().run(link).unwrap().uid;
    let (_, master) = shop
        .desk
        .masters()
        .find(|(key_no, _)| *key_no == scheme.redeem)
        .unwrap();
    let key = Key::aes(*master).diversify(&scheme::input(&uid)).unwrap();
    let session = session.select_application(AID).run(link).unwrap();
    let mut session = session
        .authenticate_aes(scheme.redeem, &key, &mut getrandom::SysRng)
        .run(link)
        .unwrap();
    let value = session.get_value(scheme.vouchers).run(link).unwrap();
    let settings = session.get_file_settings(scheme.log).run(link).unwrap();
    let lines = match settings.detail {
        desfire_ev1::wire::FileDetail::CyclicRecord {
            current_records, ..
        } => usize::try_from(current_records.get()).unwrap(),
        other => panic!("{other:?}"),
    };
    (value, lines)
}

pub fn one() -> Purpose {
    Purpose::redeem(1).unwrap()
}

/// What the service refused, and how.
#[track_caller]
pub fn refusal(error: ClientError) -> Refused {
    match error {
        ClientError::Refused(refused) => refused,
        other => panic!("not refused: {other}"),
    }
}

#[track_caller]
pub fn refused_tap(failed: TapFailed) -> Refused {
    match failed.error {
        TapError::Service(error) => refusal(error),
        other => panic!("not refused by the service: {other}"),
    }
}

/// A key holder that does not work, or not soon.
pub struct Bad {
    pub inner: Arc<dyn Holder>,
    pub down: Arc<std::sync::atomic::AtomicBool>,
    pub slow: Duration,
}

pub const INSIDE: &str = "CKR_DEVICE_ERROR slot 7 pin 1234";

impl Holder for Bad {
    fn find(&self, wanted: &KeyRequest) -> Result<HeldKey, KeyFailure> {
        self.check()?;
        self.inner.find(wanted)
    }

    fn check(&self) -> Result<(), KeyFailure> {
        std::thread::sleep(self.slow);
        if self.down.load(std::sync::atomic::Ordering::Acquire) {
            Err(KeyFailure::Down(INSIDE.to_owned()))
        } else {
            Ok(())
        }
    }

    fn name(&self) -> String {
        "bad".to_owned()
    }
}
