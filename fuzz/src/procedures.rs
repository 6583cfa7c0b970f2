//! Purses, and what makes cards by a layout, over a link that lies and on cards with anything in the files.
//!
//! The card is the software card, which has the keys; the input says what the purse's files hold, and what
//! becomes of each reply, by somebody who has no key: changed, another, lost, or heard by the card after
//! something else.
//!
//! Oracle: whatever a purse says of money and records, the card has; what failed before anything was sent has
//! changed nothing; what is "not paid" never comes. A look at a card changes nothing, and a card that is said
//! to be issued is. Nothing goes on for ever, and without a lie nothing fails.

use desfire_ev1::picc::{Card, File, FileContent, Records, Value};
use desfire_ev1::provision::{Issuer, Layout};
use desfire_ev1::purse::{HISTORY_LEN, Intent, Kind, Purse, PurseError, Record, Settlement, Stamp};
use desfire_ev1::wire::{Amount, CommMode, Framing, U24, ValueFlags};
use desfire_ev1::{Link, LinkFormat, Procedure as _, Transport};

use crate::input::Input;
use crate::layout::{AnyKey, SEEDS};
use crate::rig::{AID, EV1, Seeded, Silent, Suite, UID, file_no, key_no, put, rights, u24};

/// More than any procedure takes on an honest card.
const MAX_FRAMES: usize = 2000;
const MAX_TAPS: usize = 6;
const PURSE_ID: u64 = 4711;
const DEBIT: u8 = 1;
const CREDIT: u8 = 2;

/// The card, and who is between it and the library.
struct Liar<'d> {
    card: Card,
    format: LinkFormat,
    input: Input<'d>,
    /// Every reply so far.
    kept: Vec<Vec<u8>>,
    frames: usize,
    /// Something did not go as it does without him.
    lied: bool,
}

impl<'d> Liar<'d> {
    fn new(card: Card, framing: Framing, input: Input<'d>) -> Self {
        Self {
            card,
            format: match framing {
                Framing::Native => LinkFormat::NATIVE,
                Framing::Wrapped => LinkFormat::WRAPPED,
            },
            input,
            kept: Vec::new(),
            frames: 0,
            lied: false,
        }
    }

    /// What the library hears; nothing if that is nothing.
    fn reply(&mut self, command: &[u8]) -> Vec<u8> {
        let how = self.input.byte();
        match how {
            // The command does not arrive.
            0xC8..=0xCB => return Vec::new(),
            0xCC..=0xCF => return self.input.chunk().to_vec(),
            // Commands that need no key. They change nothing but what waits.
            0xD0..=0xD7 => {
                let code = self.input.pick(&[0xC7, 0xA7, 0x5A, 0x6E]);
                let [low, mid, high] = AID.to_bytes();
                let injected = match (self.format.framing, code) {
                    (Framing::Native, 0x5A) => vec![code, low, mid, high],
                    (Framing::Native, _) => vec![code],
                    (Framing::Wrapped, 0x5A) => vec![0x90, code, 0, 0, 3, low, mid, high, 0],
                    (Framing::Wrapped, _) => vec![0x90, code, 0, 0, 0],
                };
                self.card.handle(&injected);
                self.lied = true;
            }
            _ => {}
        }
        let mut reply = self.card.handle(command);
        self.kept.push(reply.clone());
        match how {
            0xD8..=0xDF => return Vec::new(),
            0xE0..=0xEF => {
                let at = self.input.below(256) % reply.len().max(1);
                let xor = self.input.byte();
                if let Some(byte) = reply.get_mut(at) {
                    *byte ^= xor;
                }
            }
            0xF0..=0xF7 => return self.kept[self.input.below(self.kept.len())].clone(),
            0xF8.. => return self.input.chunk().to_vec(),
            _ => {}
        }
        reply
    }
}

impl Link for Liar<'_> {
    type Error = Silent;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl Transport for Liar<'_> {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
        self.frames += 1;
        assert!(self.frames < MAX_FRAMES, "a procedure that goes on and on");
        let so_far = self.kept.len();
        let told = self.reply(command);
        // The last that was kept is the true one, if the card has heard the command at all.
        let heard = self.kept.len() > so_far;
        self.lied |= !heard || self.kept.last() != Some(&told);
        put(&told, reply)
    }
}

fn purse() -> Purse {
    Purse {
        header: file_no(1),
        value: file_no(2),
        log: file_no(3),
        limit: amount(10_000),
    }
}

fn amount(value: i32) -> Amount {
    Amount::new(value).expect("an amount")
}

fn stamp(transaction: u64) -> Stamp {
    Stamp {
        time: 1_790_000_000,
        terminal: 7,
        transaction,
    }
}

/// What the purse's files hold.
struct Content {
    header: Vec<u8>,
    value: i32,
    records: Vec<u8>,
}

impl Content {
    /// Three credits of 100.
    fn honest() -> Self {
        let record = |number: u32| {
            let hundreds = i32::try_from(number).expect("a small number") * 100;
            Record {
                kind: if number == 0 {
                    Kind::Opening
                } else {
                    Kind::Credit
                },
                sequence: U24::new(number).expect("a small number"),
                amount: amount(hundreds.min(100)),
                balance: amount(hundreds),
                stamp: stamp(number.into()),
            }
        };
        Self {
            header: [&[1], &UID.0[..], &PURSE_ID.to_le_bytes()].concat(),
            value: 300,
            records: (0..4)
                .flat_map(|number| record(number).to_bytes())
                .collect(),
        }
    }

    /// As the input wants it.
    fn changed(&mut self, input: &mut Input<'_>) {
        for _ in 0..input.below(4) {
            match input.below(4) {
                0 => self.header[input.below(16)] ^= input.byte(),
                1 => {
                    let at = input.below(256) % self.records.len().max(1);
                    if let Some(byte) = self.records.get_mut(at) {
                        *byte ^= input.byte();
                    }
                }
                2 => self.value = i32::from_le_bytes(*input.exactly(4).first_chunk().expect("4")),
                _ => self.records.truncate(28 * input.below(5)),
            }
        }
    }

    /// The card of this suite that holds it, if one can.
    fn card(self, suite: Suite) -> Option<Card> {
        let value = Value {
            lower: 0,
            upper: 10_000,
            value: self.value,
            limited_credit: 0,
            flags: ValueFlags::empty(),
        };
        let log = Records::new(u24(28), u24(6), self.records);
        let files = [
            (1, 0x1F20, FileContent::Backup(self.header)),
            (2, 0x1F20, FileContent::Value(value)),
            (3, 0x1120, FileContent::Cyclic(log)),
        ];
        let files = files.map(|(number, word, content)| {
            File::new(file_no(number), CommMode::Enciphered, rights(word), content)
        });
        suite.try_card(files).ok()
    }
}

fn content(card: &Card, number: u8) -> &FileContent {
    let application = card.state().application(AID).expect("the purse's");
    let file = application.file(file_no(number));
    file.expect("a file of the purse").content()
}

fn value(card: &Card) -> i32 {
    match content(card, 2) {
        FileContent::Value(value) => value.value,
        _ => panic!("no value file"),
    }
}

/// Oldest first.
fn log(card: &Card) -> Vec<&[u8]> {
    match content(card, 3) {
        FileContent::Cyclic(records) => records.bytes().chunks(28).collect(),
        _ => panic!("no log"),
    }
}

fn has(card: &Card, intent: &Intent) -> bool {
    log(card).contains(&&intent.record().to_bytes()[..])
}

/// Taps of one purse; how many procedures have succeeded.
pub(crate) fn purses(mut input: Input<'_>, framing: Framing) -> usize {
    let suite = input.pick(&EV1);
    if input.byte() & 3 == 3 {
        return usize::from(made(suite, framing, input));
    }
    let mut content = Content::honest();
    content.changed(&mut input);
    let Some(card) = content.card(suite) else {
        return 0;
    };
    let mut taps = Taps {
        liar: Liar::new(card, framing, input),
        intents: Vec::new(),
        never: Vec::new(),
        good: 0,
    };
    for number in 0..MAX_TAPS as u64 {
        if number > 0 && taps.liar.input.is_over() {
            break;
        }
        taps.one(suite, number);
        for intent in &taps.never {
            assert!(!has(&taps.liar.card, intent), "not paid, and paid later");
        }
    }
    taps.good
}

struct Taps<'d> {
    liar: Liar<'d>,
    /// What is to be settled.
    intents: Vec<Intent>,
    /// What was said never to come.
    never: Vec<Intent>,
    good: usize,
}

impl Taps<'_> {
    fn one(&mut self, suite: Suite, number: u64) {
        let liar = &mut self.liar;
        liar.frames = 0;
        let stays = liar.input.byte() & 1 != 0;
        if !stays {
            liar.card.activate();
        }
        let key = liar.input.pick(&[CREDIT, DEBIT]);
        let Ok(mut session) = suite.open(liar, key, number) else {
            return;
        };
        let Ok(mut tap) = purse().open(&mut session).run(liar) else {
            return;
        };
        assert_eq!(
            tap.balance(),
            value(&liar.card),
            "other money than there is"
        );
        assert_eq!(log(&liar.card).last(), Some(&&tap.newest().to_bytes()[..]));
        let FileContent::Backup(header) = content(&liar.card, 1) else {
            panic!("no header")
        };
        let right = [&[1], &UID.0[..], &tap.purse_id().to_le_bytes()].concat();
        assert_eq!(*header, right, "another card's purse");
        self.good += 1;
        let mut clean = !stays;
        for step in 0..4 {
            let before = value(&liar.card);
            let sum = amount(1 + i32::from(liar.input.byte()));
            let stamp = stamp(100 + number * 4 + step);
            let good = match liar.input.below(6) {
                kind @ (0 | 1) => {
                    let intent = match kind {
                        0 => tap.debit(sum, stamp),
                        _ => tap.credit(sum, stamp),
                    };
                    let Ok(intent) = intent else { continue };
                    // Whoever keeps a selection back can have two operations added up, unless what waits is
                    // dropped.
                    if !clean && tap.drop_pending().run(liar).is_err() {
                        return;
                    }
                    clean = true;
                    self.intents.push(intent);
                    let done = tap.execute(&intent).run(liar);
                    let (after, record) = (value(&liar.card), intent.record());
                    match &done {
                        Ok(told) => {
                            assert_eq!((told, after), (record, record.balance.get()));
                            assert!(has(&liar.card, &intent), "done, and not recorded");
                        }
                        Err(PurseError::Unsettled(_)) => {
                            assert!(after == before || after == record.balance.get());
                        }
                        Err(_) => assert_eq!(after, before, "not done, and done"),
                    }
                    done.is_ok()
                }
                2 if !self.intents.is_empty() => {
                    let which = liar.input.below(self.intents.len());
                    let intent = self.intents[which];
                    let settled = tap.settle(&intent).run(liar);
                    match settled {
                        Ok(Settlement::Paid) => assert!(has(&liar.card, &intent)),
                        Ok(Settlement::NotPaid) => self.never.push(intent),
                        Ok(Settlement::TooLate) => assert!(!has(&liar.card, &intent)),
                        Err(_) => {}
                    }
                    settled.is_ok()
                }
                3 => {
                    let history = tap.history().run(liar);
                    if let Ok(history) = &history {
                        let told: Vec<_> = history.iter().map(Record::to_bytes).collect();
                        let log = log(&liar.card);
                        assert!(told.len() <= HISTORY_LEN.min(log.len()));
                        for (told, there) in told.iter().zip(log.iter().rev()) {
                            assert_eq!(told, there, "a record that is not there");
                        }
                    }
                    history.is_ok()
                }
                // What was stored comes back as it is, or as somebody has changed it.
                4 if !self.intents.is_empty() => {
                    let which = liar.input.below(self.intents.len());
                    let mut stored = self.intents[which].to_bytes();
                    stored[liar.input.below(stored.len())] ^= liar.input.byte();
                    let Ok(intent) = Intent::from_bytes(&stored) else {
                        continue;
                    };
                    assert_eq!(intent.to_bytes(), stored);
                    let settled = tap.settle(&intent).run(liar);
                    assert!(settled != Ok(Settlement::Paid) || has(&liar.card, &intent));
                    match settled {
                        Ok(_) => true,
                        // Another purse's, or another past: nothing was sent, or nothing has failed.
                        Err(PurseError::Refused(_) | PurseError::Evidence(_)) => continue,
                        Err(_) => false,
                    }
                }
                _ => tap.drop_pending().run(liar).is_ok(),
            };
            if !good {
                return;
            }
            assert_eq!(
                tap.balance(),
                value(&liar.card),
                "other money than there is"
            );
            self.good += 1;
        }
    }
}

/// Making a purse; whether it has come to its end.
fn made(suite: Suite, framing: Framing, input: Input<'_>) -> bool {
    let mut liar = Liar::new(suite.card([]), framing, input);
    let made = make(suite, &mut liar);
    if made.is_err() {
        assert!(liar.lied, "nobody lied: {made:?}");
        return false;
    }
    assert_eq!((value(&liar.card), log(&liar.card).len()), (0, 1));
    liar.input = Input::new(&[]);
    liar.card.activate();
    let mut session = suite
        .open(&mut liar, DEBIT, 3)
        .expect("nobody lies any more");
    let tap = purse().open(&mut session).run(&mut liar);
    assert_eq!(tap.expect("it is made").balance(), 0);
    true
}

fn make(suite: Suite, liar: &mut Liar<'_>) -> Result<(), PurseError<Silent>> {
    let mut session = suite.open(liar, 0, 1)?;
    purse()
        .create(&mut session, key_no(DEBIT), key_no(CREDIT))
        .run(liar)?;
    let mut session = suite.open(liar, CREDIT, 2)?;
    purse()
        .initialise(&mut session, PURSE_ID, stamp(0))
        .run(liar)
}

thread_local! {
    /// Layouts with a card that was issued by each.
    static ISSUED: Vec<(Layout, Card)> = [SEEDS[0], SEEDS[3]]
        .map(|text| {
            let text = text.split('\0').next().expect("a layout");
            let layout = Layout::from_toml(text).expect("a layout");
            let mut liar = Liar::new(delivered(), Framing::Native, Input::new(&[]));
            let issuer = Issuer::new(&layout, &AnyKey).expect("keys").irreversible();
            issuer.apply(&mut liar, &mut Seeded(1)).expect("an honest card");
            (layout, liar.card)
        })
        .into();
}

fn delivered() -> Card {
    Card::builder().uid(UID).build()
}

/// A look at a card, or its issue; whether it has come to its end.
pub(crate) fn issues(mut input: Input<'_>, framing: Framing) -> bool {
    ISSUED.with(|issued| {
        let (layout, card) = &issued[input.below(issued.len())];
        let issuer = Issuer::new(layout, &AnyKey).expect("keys").irreversible();
        let rng = &mut Seeded(1);
        let how = input.byte();
        let is_issued = how & 1 != 0;
        let card = if is_issued { card.clone() } else { delivered() };
        let before = card.save();
        let mut liar = Liar::new(card, framing, input);
        if how & 2 != 0 {
            let applied = issuer.apply(&mut liar, rng);
            if applied.is_err() {
                assert!(liar.lied, "nobody lied: {applied:?}");
                return false;
            }
            liar.input = Input::new(&[]);
            liar.card.activate();
            let plan = issuer.plan(&mut liar, rng).expect("nobody lies any more");
            assert!(plan.is_done(), "issued, and not as it should be: {plan}");
            return true;
        }
        let plan = issuer.plan(&mut liar, rng);
        assert!(liar.card.save() == before, "a look has changed the card");
        match &plan {
            Ok(plan) if liar.lied => assert!(is_issued || !plan.is_done(), "{plan}"),
            Ok(plan) => assert_eq!(plan.is_done(), is_issued, "{plan}"),
            Err(error) => assert!(liar.lied, "nobody lied: {error}"),
        }
        plan.is_ok()
    })
}

/// The seed of a purse whose card holds what it should, or a part of it, and of what is done with it.
#[must_use]
pub fn seed_purse(framing: Framing, suite: u8, taps: &[u8]) -> Vec<u8> {
    let framing = u8::from(framing == Framing::Wrapped) << 3;
    [&[7 | framing, suite], taps].concat()
}

/// The seed of a look at a card (`how` 0 or 1), or its issue.
#[must_use]
pub fn seed_issue(framing: Framing, layout: u8, how: u8, lies: &[u8]) -> Vec<u8> {
    let framing = u8::from(framing == Framing::Wrapped) << 3;
    [&[0x17 | framing, layout, how], lies].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without a lie everything gets to its end, in all suites.
    #[test]
    fn honest_procedures_succeed() {
        for framing in [Framing::Native, Framing::Wrapped] {
            for suite in 0..4 {
                // Made; and opened six times with four debits each.
                assert_eq!(purses(Input::new(&[suite, 3]), framing), 1);
                let input = [suite, 0, 0].into_iter().chain([0; 200]);
                let input: Vec<u8> = input.collect();
                assert!(purses(Input::new(&input), framing) > 20);
            }
            for layout in 0..2 {
                for how in 0..4 {
                    assert!(issues(Input::new(&[layout, how]), framing));
                }
            }
        }
    }
}
