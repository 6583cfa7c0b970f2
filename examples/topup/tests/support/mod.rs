//! A shop in one process: the real server's conversation and books, phones that do as they like, and
//! software cards. And the accountant who looks at all of them afterwards.
//!
//! A [`Phone`] stands where the network would be: it is the server's pipe. So a test decides at which
//! message the connection breaks and what of it arrives, without waiting for a network.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation
)]

pub mod phone;

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use desfire_ev1::picc::{Card, FileContent};
use desfire_ev1::purse::{Intent, RECORD_LEN, Record, Stamp};
use desfire_ev1::wire::{Amount, Uid};
use desfire_ev1::{
    Link, LinkFormat, Machine as _, Procedure as _, Session, Transport, VirtualReader,
};
use tokio_util::sync::CancellationToken;
use topup::card::{IssuerKeys, Layout};
use topup::desk::Desk;
use topup::keys::{KeyHolder, SoftwareKeys};
use topup::ledger::{
    AddAccount, AddCard, AddVoucher, Books, Forget, Ledger, ListTopUps, ReadBooks, State,
    fingerprint,
};
use topup::limits::{Limits, Places};
use topup::link::Patience;
use topup::message::{Finished, FromServer, Reason};

pub use phone::{Phone, Plan};

/// Says that something was not tested, and why; in the gate, where it must be, it fails.
pub fn not_run(what: &str) {
    assert!(std::env::var_os("TOPUP_TEST_ALL").is_none(), "{what}");
    println!("NOT RUN: {what}");
}

/// What every card has when it is issued.
pub const START: i32 = 5_00;
pub const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

pub type SharedCard = Arc<Mutex<Card>>;
pub type Outcome = Result<Finished, Reason>;

pub struct Shop {
    pub desk: Arc<Desk<SoftwareKeys>>,
    pub cards: Mutex<BTreeMap<[u8; 7], SharedCard>>,
    /// What machines on board have taken from each card.
    pub fares: Mutex<BTreeMap<[u8; 7], i32>>,
    /// The database's file, gone with the shop.
    _dir: Option<tempfile::TempDir>,
}

pub fn desk(ledger: Ledger, node: &str, together: bool) -> Arc<Desk<SoftwareKeys>> {
    let keys = SoftwareKeys::new(IssuerKeys::for_demonstration().credit);
    desk_with(keys, ledger, node, together)
}

pub fn desk_with<K>(keys: K, ledger: Ledger, node: &str, together: bool) -> Arc<Desk<K>> {
    Arc::new(Desk {
        ledger,
        keys,
        layout: Layout::new().unwrap(),
        events: topup::events::Events::default(),
        metrics: topup::metrics::Metrics::default(),
        places: Places::new(Limits {
            connections: 10_000,
            per_address: 10_000,
            per_account: 1000,
        }),
        patience: Patience {
            message: Duration::from_millis(300),
            conversation: Duration::from_secs(3),
        },
        node: node.to_owned(),
        terminal: 7,
        together,
        stop: CancellationToken::new(),
    })
}

pub fn uid(number: u32) -> Uid {
    let [a, b, c, d] = number.to_be_bytes();
    Uid([0x04, 0x70, 0x75, a, b, c, d])
}

pub fn token(account: &str) -> Vec<u8> {
    format!("token of {account}").into_bytes()
}

impl Shop {
    pub async fn in_sqlite(together: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("books.sqlite");
        let ledger = Ledger::open(file.to_str().unwrap()).await.unwrap();
        let mut shop = Self::with(ledger, together);
        shop._dir = Some(dir);
        shop
    }

    pub fn with(ledger: Ledger, together: bool) -> Self {
        Self {
            desk: desk(ledger, "one", together),
            cards: Mutex::default(),
            fares: Mutex::default(),
            _dir: None,
        }
    }

    pub fn file(&self) -> String {
        let dir = self._dir.as_ref().unwrap();
        dir.path().join("books.sqlite").to_str().unwrap().to_owned()
    }

    pub async fn account(&self, name: &str) {
        let token = fingerprint(&token(name));
        let name = name.to_owned();
        let ledger = &self.desk.ledger;
        ledger.perform(AddAccount { name, token }).await.unwrap();
    }

    /// Issues a card and registers it.
    pub async fn card(&self, number: u32, account: &str) -> SharedCard {
        let keys = IssuerKeys::for_demonstration();
        let uid = uid(number);
        let card = keys.issue(&self.desk.layout, uid, START).unwrap();
        let card = Arc::new(Mutex::new(card));
        self.cards.lock().unwrap().insert(uid.0, card.clone());
        let account = account.to_owned();
        let ledger = &self.desk.ledger;
        ledger.perform(AddCard { uid, account }).await.unwrap();
        card
    }

    pub async fn voucher(&self, code: &str, account: &str, amount: i32) {
        let (code, account) = (fingerprint(code.as_bytes()), account.to_owned());
        let voucher = AddVoucher {
            code,
            account,
            amount,
        };
        self.desk.ledger.perform(voucher).await.unwrap();
    }

    /// A machine on board takes a fare, and keeps its intent.
    pub fn ride(&self, card: &SharedCard, fare: i32) -> Intent {
        {
            let mut card = card.lock().unwrap();
            card.clear_faults();
            card.activate();
        }
        let (intent, done) = self.relayed_ride(card, fare, Relay::default());
        assert!(done);
        *self
            .fares
            .lock()
            .unwrap()
            .entry(intent.uid().0)
            .or_default() += fare;
        intent
    }

    /// A machine on board that a relay connects with the card: its intent, and whether it was told that it
    /// is done.
    pub fn relayed_ride(&self, card: &SharedCard, fare: i32, relay: Relay) -> (Intent, bool) {
        let layout = &self.desk.layout;
        let mut card = card.lock().unwrap();
        let uid = card.state().version().uid;
        let keys = IssuerKeys::for_demonstration();
        let key = layout.card_key(&keys.debit, layout.debit, uid).unwrap();
        let reader = VirtualReader::new(card.clone());
        let mut reader = Relayed { reader, relay };
        let session = Session::new().select_application(layout.aid);
        let session = session.run(&mut reader).unwrap();
        let session = session.authenticate_aes(layout.debit, &key, &mut getrandom::SysRng);
        let mut session = session.run(&mut reader).unwrap();
        let tap = layout.purse.open(&mut session).proved_uid(uid);
        let mut tap = tap.run(&mut reader).unwrap();
        let stamp = Stamp {
            time: 1,
            terminal: 99,
            transaction: tap.newest().sequence.get().into(),
        };
        let intent = tap.debit(Amount::new(fare).unwrap(), stamp).unwrap();
        let done = tap.execute(&intent).run(&mut reader).is_ok();
        *card = reader.reader.into_card();
        (intent, done)
    }

    /// One conversation, up to its end.
    pub async fn converse(&self, phone: Phone) -> Outcome {
        converse(&self.desk, phone).await
    }

    /// A phone that does nothing wrong.
    pub async fn honest(&self, card: &SharedCard, account: &str, voucher: &str) -> Outcome {
        self.converse(Phone::new(card, account, voucher, Plan::default()))
            .await
    }

    pub async fn books(&self) -> Books {
        self.desk.ledger.perform(ReadBooks).await.unwrap()
    }

    /// The server is started again after a crash.
    pub async fn restart(&self) {
        let node = self.desk.node.clone();
        self.desk.ledger.perform(Forget { node }).await.unwrap();
    }

    /// The books against the cards, one by one. Returns how many top-ups wait for their card, and how
    /// many cards are broken: somebody has committed half a credit, which leaves the value below
    /// what the record says, never above.
    pub async fn audit(&self) -> (usize, usize) {
        self.audit_with(&[&self.desk]).await
    }

    /// The same with several server nodes.
    pub async fn audit_with(&self, desks: &[&Desk<SoftwareKeys>]) -> (usize, usize) {
        let topups = self.desk.ledger.perform(ListTopUps).await.unwrap();
        let books = self.books().await;
        let (mut waiting, mut broken) = (0, 0);
        let (mut credited, mut pending) = (0, 0);
        for (number, card) in &*self.cards.lock().unwrap() {
            let uid = Uid(*number);
            let card = card.lock().unwrap();
            let (balance, records) = read(&card, &self.desk.layout);
            let log: Vec<_> = records.iter().map(|r| r.stamp.transaction).collect();
            let fares = self.fares.lock().unwrap().get(number).copied();
            let mut expected = START - fares.unwrap_or(0);
            let agree = records.last().unwrap().balance.get() == balance;
            for topup in topups.iter().filter(|topup| topup.uid == uid) {
                let tx = u64::try_from(topup.tx).unwrap();
                match topup.state {
                    State::Credited => {
                        credited += i64::from(topup.amount);
                        expected += topup.amount;
                    }
                    State::Released => {
                        // The record of half a credit may be there; its amount is not.
                        assert!(!agree || !log.contains(&tx), "released, but on card {uid}");
                    }
                    State::Reserved => {
                        waiting += 1;
                        pending += i64::from(topup.amount);
                        if log.contains(&tx) {
                            expected += topup.amount;
                        }
                    }
                }
            }
            if agree {
                assert_eq!(balance, expected, "card {uid}: {topups:?}");
            } else {
                broken += 1;
                assert!(balance <= expected, "card {uid}: {topups:?}");
            }
        }
        assert_eq!(credited, books.credited);
        assert_eq!(pending, books.reserved);
        for desk in desks {
            assert_eq!(desk.metrics.contradictions.get(), 0);
        }
        (waiting, broken)
    }

    /// Every card is tapped once more, undisturbed: nothing may be uncertain after that.
    pub async fn settle_all(&self, accounts: impl Fn(&Uid) -> String) {
        let cards: Vec<_> = self.cards.lock().unwrap().clone().into_iter().collect();
        for (number, card) in cards {
            card.lock().unwrap().clear_faults();
            let account = accounts(&Uid(number));
            let phone = Phone::new(&card, &account, "", Plan::default());
            self.converse(phone).await.unwrap();
        }
        assert_eq!(self.audit().await, (0, 0), "something is still uncertain");
    }
}

/// What a relay between a machine on board and a card does of its own.
#[derive(Clone, Copy, Default)]
pub struct Relay {
    /// The card does not get SelectApplication; the machine hears that it did.
    pub keep_selection_back: bool,
    /// After the Debit it sends a CommitTransaction, and the machine hears no more.
    pub commit_half: bool,
}

struct Relayed {
    reader: VirtualReader,
    relay: Relay,
}

impl Link for Relayed {
    type Error = desfire_ev1::CardMute;

    fn format(&self) -> LinkFormat {
        self.reader.format()
    }
}

impl Transport for Relayed {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        if self.relay.keep_selection_back && command.get(1) == Some(&0x5A) {
            reply[..2].copy_from_slice(&[0x91, 0x00]);
            return Ok(2);
        }
        let len = Transport::exchange(&mut self.reader, command, reply)?;
        if self.relay.commit_half && command.get(1) == Some(&0xDC) {
            self.reader.card_mut().handle(&[0x90, 0xC7, 0, 0, 0]);
            return Err(desfire_ev1::CardMute);
        }
        Ok(len)
    }
}

/// One conversation, up to its end. A phone that was cut off does not hear how it ended: then the
/// reason is what the server would have said.
pub async fn converse<K: KeyHolder>(desk: &Desk<K>, phone: Phone) -> Outcome {
    let heard = phone.heard.clone();
    desk.serve(phone, LOCALHOST).await;
    let last = heard.lock().unwrap().take();
    match last {
        Some(FromServer::Finished(finished)) => Ok(finished),
        Some(FromServer::Refused { reason, .. }) => Err(reason),
        _ => Err(Reason::Interrupted),
    }
}

/// What is on a card, without asking it.
pub fn read(card: &Card, layout: &Layout) -> (i32, Vec<Record>) {
    let application = card.state().application(layout.aid).unwrap();
    let FileContent::Value(value) = application.file(layout.purse.value).unwrap().content() else {
        panic!("no value file");
    };
    let FileContent::Cyclic(records) = application.file(layout.purse.log).unwrap().content() else {
        panic!("no log");
    };
    let records = records.bytes().chunks(RECORD_LEN);
    let records = records.map(|bytes| Record::from_bytes(bytes.try_into().unwrap()).unwrap());
    (value.value, records.collect())
}

/// Throws away everything in a PostgreSQL database.
pub async fn empty_postgres(url: &str) {
    let (client, connection) = tokio_postgres::connect(url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    let empty = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
    client.batch_execute(empty).await.unwrap();
}

/// Takes an SQLite database for oneself until the connection is dropped.
pub fn lock(file: &str) -> rusqlite::Connection {
    let connection = rusqlite::Connection::open(file).unwrap();
    connection.busy_timeout(Duration::from_secs(5)).unwrap();
    connection.execute_batch("BEGIN IMMEDIATE").unwrap();
    connection
}

/// A small generator for tests: SplitMix64.
pub struct Dice(pub u64);

impl Dice {
    pub fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.roll() % limit
    }

    pub fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[usize::try_from(self.below(from.len() as u64)).unwrap()]
    }
}
