//! Purses on the software card: torn at every effect and every frame, attacked on the link, copied,
//! set back; and how many exchanges they cost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/radio.rs"]
mod radio;

use desfire_ev1::picc::{Application, Card, CardKey, Fault, File, FileContent, Records, Value};
use desfire_ev1::purse::{
    Evidence, HISTORY_LEN, Intent, Kind, Purse, PurseError, Refusal, Settlement, Stamp, Tap,
};
use desfire_ev1::wire::{
    Access, AccessRights, Aid, Amount, AuthScheme, CommMode, FileNo, KeyInfo, KeyNo, KeySettings,
    KeyType, U24, Uid, ValueFlags,
};
use desfire_ev1::{
    AsyncTransport, Authenticated, Key, Link, LinkFormat, Machine, Procedure, Session, Transport,
    VirtualReader,
};
use radio::{Mute, Radio, Trouble};

const AID: Aid = Aid::from_bytes([0x51, 0x7A, 0x0E]);
const UID: Uid = Uid([0x04, 0x31, 0x41, 0x59, 0x26, 0x53, 0x58]);
const PURSE_ID: u64 = 4711;
const ALL: AuthScheme = AuthScheme::Aes;

const SUITES: [(AuthScheme, KeyType); 4] = [
    (AuthScheme::Aes, KeyType::Aes),
    (AuthScheme::Iso, KeyType::Des),
    (AuthScheme::Iso, KeyType::TwoKey3Des),
    (AuthScheme::Iso, KeyType::ThreeKey3Des),
];
const FORMATS: [LinkFormat; 2] = [LinkFormat::NATIVE, LinkFormat::WRAPPED];

/// Which key.
const MASTER: u8 = 0;
const DEBIT: u8 = 1;
const CREDIT: u8 = 2;

fn purse() -> Purse {
    let file = |number| FileNo::new(number).unwrap();
    Purse {
        header: file(1),
        value: file(2),
        log: file(3),
        limit: amount(10_000),
    }
}

fn amount(value: i32) -> Amount {
    Amount::new(value).unwrap()
}

fn key_no(number: u8) -> KeyNo {
    KeyNo::new(number).unwrap()
}

fn stamp(transaction: u64) -> Stamp {
    Stamp {
        time: 1_790_000_000,
        terminal: 7,
        transaction,
    }
}

/// A key for both sides.
fn key(key_type: KeyType, number: u8) -> (Key, CardKey) {
    let bytes: [u8; 24] =
        core::array::from_fn(|i| u8::try_from(i).unwrap().wrapping_mul(29) ^ (number * 59) ^ 0x5A);
    let sixteen: [u8; 16] = *bytes.first_chunk().unwrap();
    let eight: [u8; 8] = *bytes.first_chunk().unwrap();
    match key_type {
        KeyType::Des => {
            let doubled = core::array::from_fn(|i| eight[i % 8]);
            (Key::des(eight), CardKey::des(doubled))
        }
        KeyType::TwoKey3Des => (Key::two_key_3des(sixteen).unwrap(), CardKey::des(sixteen)),
        KeyType::ThreeKey3Des => (Key::three_key_3des(bytes), CardKey::three_key_3des(bytes)),
        KeyType::Aes => (Key::aes(sixteen), CardKey::aes(sixteen, 0)),
    }
}

/// A card with an application that has its keys, and nothing else.
fn bare(uid: Uid, key_type: KeyType) -> Card {
    let info = KeyInfo::new(key_type.family(), 3).unwrap();
    let mut application = Application::new(AID, KeySettings::DEFAULT, info);
    for number in [MASTER, DEBIT, CREDIT] {
        application = application.with_key(key_no(number), key(key_type, number).1);
    }
    let mut card = Card::builder().uid(uid).build();
    card.state_mut().put_application(application).unwrap();
    card
}

fn session<T>(
    transport: &mut T,
    (scheme, key_type): (AuthScheme, KeyType),
    number: u8,
) -> Session<Authenticated>
where
    T: Transport,
    T::Error: std::error::Error + 'static,
{
    Session::new()
        .select_application(AID)
        .run(transport)
        .unwrap()
        .authenticate_with_fixed_nonce_for_testing_only(
            scheme,
            key_no(number),
            &key(key_type, number).0,
            *b"RndA of a purse.",
        )
        .run(transport)
        .unwrap()
}

/// A radio with a card whose purse is open and empty.
fn opened(suite: (AuthScheme, KeyType), format: LinkFormat) -> Radio {
    let mut radio = Radio::new(bare(UID, suite.1), format);
    let mut master = session(&mut radio, suite, MASTER);
    purse()
        .create(&mut master, key_no(DEBIT), key_no(CREDIT))
        .run(&mut radio)
        .unwrap();
    let mut credit = session(&mut radio, suite, CREDIT);
    purse()
        .initialise(&mut credit, PURSE_ID, stamp(0))
        .run(&mut radio)
        .unwrap();
    radio
}

/// With `count` credits of 100 on it, with transactions from 1.
fn filled(suite: (AuthScheme, KeyType), format: LinkFormat, count: u64) -> Radio {
    let mut radio = opened(suite, format);
    for transaction in 1..=count {
        with_tap(&mut radio, suite, CREDIT, |tap, radio| {
            let intent = tap.credit(amount(100), stamp(transaction)).unwrap();
            tap.execute(&intent).run(radio).unwrap();
        });
    }
    radio
}

fn with_tap<R>(
    radio: &mut Radio,
    suite: (AuthScheme, KeyType),
    number: u8,
    act: impl FnOnce(&mut Tap<'_>, &mut Radio) -> R,
) -> R {
    let mut session = session(radio, suite, number);
    let mut tap = purse().open(&mut session).run(radio).unwrap();
    act(&mut tap, radio)
}

const AES: (AuthScheme, KeyType) = (ALL, KeyType::Aes);

/// One of the two operations.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Operation {
    Debit,
    Credit,
}

impl Operation {
    fn intent(self, tap: &Tap<'_>) -> Intent {
        match self {
            Self::Debit => tap.debit(amount(30), stamp(100)).unwrap(),
            Self::Credit => tap.credit(amount(30), stamp(100)).unwrap(),
        }
    }

    const fn key(self) -> u8 {
        match self {
            Self::Debit => DEBIT,
            Self::Credit => CREDIT,
        }
    }

    const fn change(self) -> i32 {
        match self {
            Self::Debit => -30,
            Self::Credit => 30,
        }
    }
}

const OPERATIONS: [Operation; 2] = [Operation::Debit, Operation::Credit];

#[derive(Clone, Copy, Debug)]
enum Disturbance {
    Fault(Fault),
    Trouble(Trouble),
}

/// Every disturbance of something that takes this many effects and frames.
fn disturbances(card: &Card, effects: u64, frames: usize) -> Vec<Disturbance> {
    let first = card.effects() + 1;
    let cuts = (first..first + effects)
        .flat_map(|n| [Fault::CutBefore(n), Fault::CutAfter(n)])
        .map(Disturbance::Fault);
    let troubles = (1..=frames)
        .flat_map(|n| {
            [
                Trouble::RemoveBefore(n),
                Trouble::LoseReply(n),
                Trouble::LoseCommand(n),
            ]
        })
        .map(Disturbance::Trouble);
    cuts.chain(troubles).collect()
}

/// From the first frame after the handshake to the last of the commit.
#[test]
fn torn_anywhere_a_debit_or_credit_is_settled_as_what_happened() {
    let mut runs = 0;
    for suite in SUITES {
        for format in FORMATS {
            let before = filled(suite, format, 3).card;
            for operation in OPERATIONS {
                let undisturbed = |radio: &mut Radio| {
                    with_tap(radio, suite, operation.key(), |tap, radio| {
                        let intent = operation.intent(tap);
                        tap.execute(&intent).run(radio).unwrap();
                        intent
                    })
                };
                let mut radio = Radio::new(before.clone(), format);
                radio.listen();
                let effects = radio.card.effects();
                let intent = undisturbed(&mut radio);
                let effects = radio.card.effects() - effects;
                // Select, two of the handshake.
                let frames = radio.frames().len() - 3;
                for disturbance in disturbances(&before, effects, frames) {
                    runs += 1;
                    let mut radio = Radio::new(before.clone(), format);
                    let paid = disturbed(&mut radio, suite, operation, disturbance);
                    let settled = with_tap(&mut radio, suite, operation.key(), |tap, radio| {
                        let expected = 300 + if paid { operation.change() } else { 0 };
                        assert_eq!(tap.balance(), expected, "{operation:?} {disturbance:?}");
                        tap.settle(&intent).run(radio).unwrap()
                    });
                    let expected = if paid {
                        Settlement::Paid
                    } else {
                        Settlement::NotPaid
                    };
                    assert_eq!(settled, expected, "{operation:?} {disturbance:?}");
                }
            }
        }
    }
    println!("{runs} torn operations settled");
    assert!(runs > 300, "{runs}");
}

/// Runs an operation into a disturbance; whether the card has done it, by what is in its memory.
fn disturbed(
    radio: &mut Radio,
    suite: (AuthScheme, KeyType),
    operation: Operation,
    disturbance: Disturbance,
) -> bool {
    let mut session = session(radio, suite, operation.key());
    radio.listen();
    match disturbance {
        Disturbance::Fault(fault) => radio.card.arrange_fault(fault),
        Disturbance::Trouble(trouble) => radio.arrange(trouble),
    }
    let before = value(&radio.card);
    let result = match purse().open(&mut session).run(radio) {
        Err(error) => Err(error),
        Ok(mut tap) => {
            let intent = operation.intent(&tap);
            tap.execute(&intent).run(radio).map(|_| ())
        }
    };
    let after = value(&radio.card);
    assert!(after == before || after == before + operation.change());
    let paid = after != before;
    match result {
        Ok(()) => assert!(paid),
        Err(PurseError::Run(_)) => assert!(!paid, "{disturbance:?}"),
        Err(PurseError::Unsettled(_)) => {}
        Err(other) => panic!("{other}"),
    }
    radio.card.clear_faults();
    radio.card.activate();
    radio.listen();
    paid
}

fn value(card: &Card) -> i32 {
    let application = card.state().application(AID).unwrap();
    match application.file(purse().value).unwrap().content() {
        FileContent::Value(value) => value.value,
        _ => panic!("no value file"),
    }
}

#[test]
fn torn_anywhere_the_making_of_a_purse_comes_to_its_end_the_next_time() {
    let make = |radio: &mut Radio| -> Result<(), PurseError<Mute>> {
        let mut master = session(radio, AES, MASTER);
        let create = purse().create(&mut master, key_no(DEBIT), key_no(CREDIT));
        create.run(radio)?;
        let mut credit = session(radio, AES, CREDIT);
        let initialise = purse().initialise(&mut credit, PURSE_ID, stamp(0));
        initialise.run(radio)
    };
    let bare = bare(UID, KeyType::Aes);
    let mut radio = Radio::new(bare.clone(), LinkFormat::NATIVE);
    make(&mut radio).unwrap();
    let whole = radio.card.save();
    let effects = radio.card.effects() - bare.effects();
    let frames = radio.frames().len();
    for disturbance in disturbances(&bare, effects, frames) {
        let mut radio = Radio::new(bare.clone(), LinkFormat::NATIVE);
        match disturbance {
            Disturbance::Fault(fault) => radio.card.arrange_fault(fault),
            Disturbance::Trouble(
                Trouble::RemoveBefore(frame)
                | Trouble::LoseReply(frame)
                | Trouble::LoseCommand(frame),
            ) if matches!(frame, 1..=3 | 8..=10) => continue, // select and handshakes: nothing of ours
            Disturbance::Trouble(trouble) => radio.arrange(trouble),
        }
        let _ = make(&mut radio);
        radio.card.clear_faults();
        radio.card.activate();
        radio.listen();
        make(&mut radio).unwrap();
        assert_eq!(radio.card.save(), whole, "{disturbance:?}");
    }
}

#[test]
fn the_exchanges_are_as_few_as_the_documentation_says() {
    for suite in SUITES {
        for format in FORMATS {
            let mut radio = filled(suite, format, 6);
            let mut session = session(&mut radio, suite, DEBIT);
            radio.listen();
            let mut tap = purse().open(&mut session).run(&mut radio).unwrap();
            assert_eq!(radio.frames().len(), 4);
            let intent = tap.debit(amount(1), stamp(7)).unwrap();
            radio.listen();
            tap.execute(&intent).run(&mut radio).unwrap();
            assert_eq!(radio.frames().len(), 3);
            radio.listen();
            tap.settle(&intent).run(&mut radio).unwrap();
            assert_eq!(radio.frames().len(), 0);
            tap.history().run(&mut radio).unwrap();
            assert_eq!(radio.frames().len(), 3);
            radio.listen();
            purse()
                .open(&mut session)
                .proved_uid(UID)
                .run(&mut radio)
                .unwrap();
            assert_eq!(radio.frames().len(), 3);
        }
    }
}

#[test]
fn the_card_remembers_five_operations_and_settles_five_back() {
    let mut radio = filled(AES, LinkFormat::WRAPPED, 3);
    let lost = with_tap(&mut radio, AES, DEBIT, |tap, radio| {
        assert_eq!(tap.history().run(radio).unwrap().iter().count(), 4);
        let intent = tap.debit(amount(50), stamp(50)).unwrap();
        tap.execute(&intent).run(radio).unwrap();
        intent
    });
    let never = with_tap(&mut radio, AES, DEBIT, |tap, _| {
        tap.debit(amount(50), stamp(51)).unwrap()
    });
    for later in 1..=6 {
        with_tap(&mut radio, AES, DEBIT, |tap, radio| {
            let intent = tap.debit(amount(1), stamp(60 + later)).unwrap();
            tap.execute(&intent).run(radio).unwrap();
            let history = tap.history().run(radio).unwrap();
            assert_eq!(history.iter().count(), HISTORY_LEN);
            assert_eq!(history.newest(), intent.record());
            let lost = tap.settle(&lost).run(radio).unwrap();
            let never = tap.settle(&never).run(radio).unwrap();
            let expected = |paid, last| {
                if later <= last {
                    paid
                } else {
                    Settlement::TooLate
                }
            };
            assert_eq!(lost, expected(Settlement::Paid, 4));
            assert_eq!(never, expected(Settlement::NotPaid, 5));
        });
    }
}

/// A link that sends something of its own after the given frame of the purse's, and then lets nothing
/// through.
struct Hostile {
    radio: Radio,
    after: usize,
    seen: usize,
    injected: &'static [u8],
}

impl Link for Hostile {
    type Error = Mute;

    fn format(&self) -> LinkFormat {
        self.radio.format()
    }
}

impl Transport for Hostile {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Mute> {
        self.seen += 1;
        let len = self.radio.exchange(command, reply)?;
        if self.seen < self.after {
            return Ok(len);
        }
        self.radio.card.handle(self.injected);
        self.radio.card.field_off();
        Err(Mute)
    }
}

/// CommitTransaction needs no key: whoever is on the link can send it.
#[test]
fn a_commit_from_somebody_else_makes_no_money_and_is_settled_or_found() {
    for operation in OPERATIONS {
        let before = filled(AES, LinkFormat::NATIVE, 3).card;
        for after in 1..=2 {
            let mut radio = Radio::new(before.clone(), LinkFormat::NATIVE);
            let mut session = session(&mut radio, AES, operation.key());
            let mut tap = purse().open(&mut session).run(&mut radio).unwrap();
            let intent = operation.intent(&tap);
            let mut hostile = Hostile {
                radio,
                after,
                seen: 0,
                injected: &[0xC7],
            };
            // It has sent no commit, and still knows nothing.
            let error = tap.execute(&intent).run(&mut hostile).unwrap_err();
            assert!(error.is_unsettled());
            let mut radio = hostile.radio;
            radio.card.activate();
            let mut session = self::session(&mut radio, AES, operation.key());
            let opened = purse().open(&mut session).run(&mut radio);
            if after == 1 {
                let Err(PurseError::Evidence(Evidence::Disagree { value, recorded })) = opened
                else {
                    panic!("{opened:?}")
                };
                assert!(value < recorded);
            } else {
                let settled = opened.unwrap().settle(&intent).run(&mut radio);
                assert_eq!(settled.unwrap(), Settlement::Paid);
            }
        }
    }
}

/// Answers SelectApplication itself, so that the card drops nothing.
struct KeepsSelectionBack<'r>(&'r mut Radio);

impl Link for KeepsSelectionBack<'_> {
    type Error = Mute;

    fn format(&self) -> LinkFormat {
        self.0.format()
    }
}

impl Transport for KeepsSelectionBack<'_> {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Mute> {
        if command.first() == Some(&0x5A) {
            reply[0] = 0x00;
            return Ok(1);
        }
        self.0.exchange(command, reply)
    }
}

#[test]
fn not_paid_stays_true_if_a_selection_was_kept_back_and_a_commit_follows() {
    for operation in OPERATIONS {
        let mut radio = filled(AES, LinkFormat::NATIVE, 3);
        // Everything but the commit reaches the card, and the card stays where it is.
        let intent = with_tap(&mut radio, AES, operation.key(), |tap, radio| {
            let intent = operation.intent(tap);
            radio.listen();
            radio.arrange(Trouble::LoseCommand(3));
            assert!(tap.execute(&intent).run(radio).unwrap_err().is_unsettled());
            radio.listen();
            intent
        });
        let mut relay = KeepsSelectionBack(&mut radio);
        let mut session = self::session(&mut relay, AES, operation.key());
        let mut tap = purse().open(&mut session).run(&mut relay).unwrap();
        let balance = tap.balance();
        let settled = tap.settle(&intent).run(&mut relay).unwrap();
        assert_eq!(settled, Settlement::NotPaid);
        // Now it commits.
        radio.card.handle(&[0xC7]);
        with_tap(&mut radio, AES, operation.key(), |tap, _| {
            assert_eq!(tap.balance(), balance);
            assert_ne!(tap.newest(), intent.record());
        });
    }
}

#[test]
fn a_copy_on_another_card_is_known_by_the_card_that_it_was_made_for() {
    let radio = filled(AES, LinkFormat::NATIVE, 1);
    let application = radio.card.state().application(AID).unwrap().clone();
    let other = Uid([0x04, 9, 9, 9, 9, 9, 9]);
    let mut copy = Card::builder().uid(other).build();
    copy.state_mut().put_application(application).unwrap();
    let mut radio = Radio::new(copy, LinkFormat::NATIVE);
    let mut session = session(&mut radio, AES, DEBIT);
    let error = purse().open(&mut session).run(&mut radio).unwrap_err();
    let foreign = Evidence::Foreign {
        card: other,
        stored: UID,
    };
    assert_eq!(error, PurseError::Evidence(foreign));
}

#[test]
fn a_random_id_hides_the_uid_from_nobody_who_has_the_key() {
    let mut radio = filled(AES, LinkFormat::NATIVE, 1);
    radio.card.state_mut().set_random_id(true);
    with_tap(&mut radio, AES, DEBIT, |tap, _| assert_eq!(tap.uid(), UID));
}

#[test]
fn a_card_that_was_set_back_or_rewritten_is_found() {
    let mut radio = filled(AES, LinkFormat::NATIVE, 2);
    let old = radio.card.clone();
    let spend = |radio: &mut Radio, transaction| {
        with_tap(radio, AES, DEBIT, |tap, radio| {
            let intent = tap.debit(amount(50), stamp(transaction)).unwrap();
            tap.execute(&intent).run(radio).unwrap();
            intent
        })
    };
    spend(&mut radio, 50);
    let second = spend(&mut radio, 51);
    // The same card, as it was two debits before.
    let mut radio = Radio::new(old, LinkFormat::NATIVE);
    let settled = with_tap(&mut radio, AES, DEBIT, |tap, radio| {
        tap.settle(&second).run(radio).unwrap_err()
    });
    let rolled_back = Evidence::RolledBack { found: 2, seen: 3 };
    assert_eq!(settled, PurseError::Evidence(rolled_back));
    // It goes on with another past.
    spend(&mut radio, 60);
    let settled = with_tap(&mut radio, AES, DEBIT, |tap, radio| {
        tap.settle(&second).run(radio).unwrap_err()
    });
    assert_eq!(settled, PurseError::Evidence(Evidence::Rewritten));
}

#[test]
fn what_cannot_be_done_is_not_tried() {
    let mut radio = filled(AES, LinkFormat::NATIVE, 2);
    let mut session = session(&mut radio, AES, CREDIT);
    let mut tap = purse().open(&mut session).run(&mut radio).unwrap();
    radio.listen();
    let refused = tap.debit(amount(201), stamp(9)).unwrap_err();
    let too_little = Refusal::TooLittle {
        balance: 200,
        amount: 201,
    };
    assert_eq!(refused, too_little);
    for much in [9801, i32::MAX] {
        let refused = tap.credit(amount(much), stamp(9)).unwrap_err();
        let too_much = Refusal::TooMuch {
            balance: 200,
            amount: much,
            limit: 10_000,
        };
        assert_eq!(refused, too_much);
    }
    assert!(tap.credit(amount(9800), stamp(9)).is_ok());
    assert_eq!(tap.debit(Amount::ZERO, stamp(9)), Err(Refusal::Zero));
    // An intent is good once, and only for the state that it was made from.
    let first = tap.debit(amount(10), stamp(10)).unwrap();
    let stale = tap.debit(amount(10), stamp(11)).unwrap();
    assert_eq!(radio.frames(), []);
    assert_eq!(
        tap.execute(&first).run(&mut radio).unwrap().kind,
        Kind::Debit
    );
    radio.listen();
    for intent in [first, stale] {
        let refused = tap.execute(&intent).run(&mut radio).unwrap_err();
        assert_eq!(refused, PurseError::Refused(Refusal::Stale));
    }
    let mut other = first.to_bytes();
    other[8] ^= 1;
    let other = Intent::from_bytes(&other).unwrap();
    let refused = tap.execute(&other).run(&mut radio).unwrap_err();
    assert_eq!(refused, PurseError::Refused(Refusal::OtherPurse));
    let refused = tap.settle(&other).run(&mut radio).unwrap_err();
    assert_eq!(refused, PurseError::Refused(Refusal::OtherPurse));
    assert_eq!(radio.frames(), []);
}

#[test]
fn the_debit_key_puts_nothing_in_and_d40_is_refused() {
    let mut radio = filled(AES, LinkFormat::NATIVE, 2);
    with_tap(&mut radio, AES, DEBIT, |tap, radio| {
        let intent = tap.credit(amount(10), stamp(9)).unwrap();
        // The record goes in, the credit does not; nothing is committed.
        assert!(tap.execute(&intent).run(radio).unwrap_err().is_unsettled());
    });
    assert_eq!(value(&radio.card), 200);
    with_tap(&mut radio, AES, DEBIT, |tap, _| {
        assert_eq!(tap.balance(), 200);
    });

    let des = (AuthScheme::Iso, KeyType::Des);
    let mut radio = filled(des, LinkFormat::NATIVE, 1);
    let mut legacy = session(&mut radio, (AuthScheme::Legacy, KeyType::Des), DEBIT);
    radio.listen();
    let refused = purse().open(&mut legacy).run(&mut radio).unwrap_err();
    assert_eq!(refused, PurseError::Refused(Refusal::Messaging));
    let refused = purse().create(&mut legacy, key_no(DEBIT), key_no(CREDIT));
    let refused = refused.run(&mut radio).unwrap_err();
    assert_eq!(refused, PurseError::Refused(Refusal::Messaging));
    assert_eq!(radio.frames(), []);
}

/// Whoever is on the link can commit a half of what opens a purse, and it is still opened the next time.
#[test]
fn a_commit_from_somebody_else_does_not_stop_a_purse_from_being_opened() {
    for after in 1..=6 {
        let mut radio = Radio::new(bare(UID, KeyType::Aes), LinkFormat::NATIVE);
        let mut master = session(&mut radio, AES, MASTER);
        let create = purse().create(&mut master, key_no(DEBIT), key_no(CREDIT));
        create.run(&mut radio).unwrap();
        let mut credit = session(&mut radio, AES, CREDIT);
        let mut hostile = Hostile {
            radio,
            after,
            seen: 0,
            injected: &[0xC7],
        };
        let initialise = purse().initialise(&mut credit, PURSE_ID, stamp(0));
        initialise.run(&mut hostile).unwrap_err();
        let mut radio = hostile.radio;
        radio.card.activate();
        let mut credit = session(&mut radio, AES, CREDIT);
        let initialise = purse().initialise(&mut credit, PURSE_ID, stamp(0));
        initialise.run(&mut radio).unwrap();
        with_tap(&mut radio, AES, DEBIT, |tap, _| {
            assert_eq!(tap.balance(), 0);
        });
    }
}

#[test]
fn a_blank_purse_and_a_value_without_a_record_are_named() {
    let mut radio = Radio::new(bare(UID, KeyType::Aes), LinkFormat::NATIVE);
    let mut master = session(&mut radio, AES, MASTER);
    purse()
        .create(&mut master, key_no(DEBIT), key_no(CREDIT))
        .run(&mut radio)
        .unwrap();
    let mut debit = session(&mut radio, AES, DEBIT);
    let blank = purse().open(&mut debit).run(&mut radio).unwrap_err();
    assert_eq!(blank, PurseError::Evidence(Evidence::Blank));

    let mut radio = filled(AES, LinkFormat::NATIVE, 2);
    let mut session = session(&mut radio, AES, CREDIT);
    let credit = session.credit(purse().value, amount(5));
    credit.run(&mut radio).unwrap();
    session.commit_transaction().run(&mut radio).unwrap();
    let error = purse().open(&mut session).run(&mut radio).unwrap_err();
    let disagree = Evidence::Disagree {
        value: 205,
        recorded: 200,
    };
    assert_eq!(error, PurseError::Evidence(disagree));
}

#[test]
fn the_future_of_a_purse_can_be_spawned() {
    const fn spawnable<F: Future + Send>(future: F) -> F {
        future
    }
    async fn pay<T: AsyncTransport<Error: std::fmt::Debug>>(
        transport: &mut T,
        session: &mut Session<Authenticated>,
    ) -> i32 {
        let mut tap = purse().open(session).run_async(transport).await.unwrap();
        let intent = tap.debit(amount(25), stamp(25)).unwrap();
        tap.execute(&intent).run_async(transport).await.unwrap();
        tap.settle(&intent).run_async(transport).await.unwrap();
        tap.balance()
    }
    let mut radio = filled(AES, LinkFormat::WRAPPED, 1);
    let mut session = session(&mut radio, AES, DEBIT);
    let mut reader = VirtualReader::new(radio.card);
    assert_eq!(
        pollster::block_on(spawnable(async { pay(&mut reader, &mut session).await })),
        75
    );
}

/// Its commit would make them valid, too.
#[test]
fn a_session_with_other_changes_pending_is_refused() {
    let mut radio = filled(AES, LinkFormat::NATIVE, 2);
    let mut session = session(&mut radio, AES, CREDIT);
    let credit = session.credit(purse().value, amount(5));
    credit.run(&mut radio).unwrap();
    let refused = purse().open(&mut session).run(&mut radio).unwrap_err();
    assert_eq!(refused, PurseError::Refused(Refusal::Pending));
    session.abort_transaction().run(&mut radio).unwrap();
    assert!(purse().open(&mut session).run(&mut radio).is_ok());
}

/// What [`Purse::create`] makes is what the documentation's table says.
#[test]
fn the_files_are_as_documented() {
    let radio = opened(AES, LinkFormat::NATIVE);
    let rights = AccessRights {
        read: Access::Key(key_no(DEBIT)),
        write: Access::Never,
        read_write: Access::Key(key_no(CREDIT)),
        change: Access::Key(KeyNo::MASTER),
    };
    let log_rights = AccessRights {
        write: Access::Key(key_no(DEBIT)),
        ..rights
    };
    let mode = CommMode::Enciphered;
    let value = FileContent::Value(Value {
        lower: 0,
        upper: 10_000,
        value: 0,
        limited_credit: 0,
        flags: ValueFlags::empty(),
    });
    let application = radio.card.state().application(AID).unwrap();
    let file = |number: FileNo| application.file(number).unwrap().settings();
    let expected = |number, rights, content| File::new(number, mode, rights, content).settings();
    let header = FileContent::Backup(vec![0; 16]);
    assert_eq!(
        file(purse().header),
        expected(purse().header, rights, header)
    );
    assert_eq!(file(purse().value), expected(purse().value, rights, value));
    let record = vec![0; 28];
    let log = FileContent::Cyclic(Records::new(
        U24::new(28).unwrap(),
        U24::new(6).unwrap(),
        record,
    ));
    assert_eq!(file(purse().log), expected(purse().log, log_rights, log));
}

/// Whoever could make files in the application before may have made these, with rights of his own; or a
/// whole purse with money in it.
#[test]
fn what_was_there_before_the_purse_is_looked_at() {
    let honest = opened(AES, LinkFormat::NATIVE);
    let application = honest.card.state().application(AID).unwrap();
    let one_more = |number: FileNo| {
        let file = application.file(number).unwrap();
        let mut settings = file.settings();
        settings.rights.write = Access::Free;
        File::new(
            number,
            CommMode::Enciphered,
            settings.rights,
            file.content().clone(),
        )
    };
    let plain = |number: FileNo| {
        let file = application.file(number).unwrap();
        let rights = file.settings().rights;
        File::new(number, CommMode::Plain, rights, file.content().clone())
    };
    let other = |number: FileNo| {
        let rights = application.file(number).unwrap().settings().rights;
        let content = FileContent::Value(Value {
            lower: 0,
            upper: 10_001,
            value: 0,
            limited_credit: 0,
            flags: ValueFlags::empty(),
        });
        File::new(number, CommMode::Enciphered, rights, content)
    };
    let Purse {
        header, value, log, ..
    } = purse();
    for strange in [
        one_more(header),
        one_more(value),
        one_more(log),
        plain(header),
        plain(value),
        plain(log),
        other(header),
        other(value),
        other(log),
    ] {
        let file = strange.number();
        let mut card = bare(UID, KeyType::Aes);
        let prepared = card.state().application(AID).unwrap().clone();
        let prepared = prepared.with_file(strange);
        card.state_mut().put_application(prepared).unwrap();
        let mut radio = Radio::new(card, LinkFormat::NATIVE);
        let mut master = session(&mut radio, AES, MASTER);
        let create = purse().create(&mut master, key_no(DEBIT), key_no(CREDIT));
        let error = create.run(&mut radio).unwrap_err();
        assert_eq!(error, PurseError::Evidence(Evidence::File { file }));
    }

    // A purse that has been opened can be opened once more, one that has been used cannot.
    let again = |mut radio: Radio| {
        let mut master = session(&mut radio, AES, MASTER);
        let create = purse().create(&mut master, key_no(DEBIT), key_no(CREDIT));
        create.run(&mut radio).unwrap();
        let mut credit = session(&mut radio, AES, CREDIT);
        let initialise = purse().initialise(&mut credit, PURSE_ID, stamp(9));
        initialise.run(&mut radio)
    };
    assert_eq!(again(honest), Ok(()));
    let used = filled(AES, LinkFormat::NATIVE, 2);
    assert_eq!(again(used), Err(PurseError::Refused(Refusal::InUse)));
    let mut radio = opened(AES, LinkFormat::NATIVE);
    let mut credit = session(&mut radio, AES, CREDIT);
    let money = credit.credit(purse().value, amount(5));
    money.run(&mut radio).unwrap();
    credit.commit_transaction().run(&mut radio).unwrap();
    let disagree = Evidence::Disagree {
        value: 5,
        recorded: 0,
    };
    assert_eq!(again(radio), Err(PurseError::Evidence(disagree)));
}
