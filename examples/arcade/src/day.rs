//! A busy day: people with cards, and what they do.
//!
//! Everything is drawn from one seed: the same seed is the same day.

use std::collections::BTreeSet;

use desfire_ev1::picc::{Card, FileContent};
use desfire_ev1::purse::{Record, Stamp};
use desfire_ev1::wire::{Amount, Uid};
use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt, SeedableRng};

use crate::cards::{AID, House, IssueError, issue, purse};
use crate::field::{Field, Gone};
use crate::fraud::{self, Fraud};
use crate::office::{Finding, Office};
use crate::report::{self, Clock};
use crate::terminal::{Kind, Outcome, Terminal, Wish};

/// 2026-09-26 10:00 UTC, when the doors open.
pub const OPENS: u32 = 1_790_416_800;

/// How many displays are looked at.
const DISPLAYS: usize = 10;

/// What a day is like.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Draws everything.
    pub seed: u64,
    /// How many people come who have nothing up their sleeves.
    pub honest: usize,
    /// How often each of them wants something, on average.
    pub visits: usize,
    /// How many taps of a hundred go wrong somewhere.
    pub faults: u32,
    /// What the others are up to.
    pub frauds: Vec<Fraud>,
}

/// A terminal and where it stands.
pub struct Place<'h> {
    /// Its name.
    pub name: String,
    /// How far from the door.
    pub metres: u32,
    /// What a game costs.
    pub price: i32,
    /// Seconds between two deliveries.
    pub delivers_every: u32,
    terminal: Terminal<'h>,
    delivers_next: u32,
}

/// Somebody with a card.
#[derive(Clone, Debug)]
pub struct Person {
    /// Who.
    pub name: String,
    /// What the card says at activation.
    pub uid: Uid,
    /// The purse.
    pub purse: u64,
    /// What is done to the card.
    pub fraud: Option<Fraud>,
    /// What the desk showed on the way out, the newest first.
    pub history: Vec<Record>,
    card: Card,
    /// Kept for the fraud.
    second: Option<Card>,
    /// What it is known to hold.
    balance: i32,
    next: u32,
    visits: usize,
    /// Not settled: the person will come back to that terminal.
    unsure: Option<(usize, Wish)>,
}

impl Person {
    /// What is in the card's memory, whoever put it there.
    #[must_use]
    pub fn on_card(&self) -> i64 {
        on_card(&self.card)
    }
}

/// What happened, counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Cards held to readers.
    pub taps: u64,
    /// Of those, how many were disturbed.
    pub disturbed: u64,
    /// Taps after which the terminal had to say "again".
    pub again: u64,
    /// Operations that turned out to be paid at a later tap.
    pub owed: u64,
    /// Taps that the block list refused.
    pub blocked: u64,
    /// Cards that a terminal refused as false.
    pub refused: u64,
    /// Commands sent to cards.
    pub exchanges: u64,
    /// Cents that the desks have taken and put on cards.
    pub cash: i64,
    /// Cents for which the machines have started games.
    pub played: i64,
}

/// The day.
pub struct Day<'h> {
    /// The back office.
    pub office: Office,
    /// Everybody.
    pub people: Vec<Person>,
    /// What was counted.
    pub tally: Tally,
    /// What the displays showed at the first taps, and at some that settled something.
    pub displays: Vec<String>,
    house: &'h House,
    places: Vec<Place<'h>>,
    plan: Plan,
    rng: StdRng,
    blocked: BTreeSet<Uid>,
    now: u32,
}

/// Why a day does not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum DayError {
    /// A card or a key.
    #[error("a card: {0}")]
    Card(#[from] IssueError<Gone>),
    /// The books.
    #[error("the books: {0}")]
    Books(#[from] rusqlite::Error),
    /// A number out of range.
    #[error(transparent)]
    Wire(#[from] desfire_ev1::wire::WireError),
}

/// A card as it is handed out in the morning.
#[derive(Clone, Debug)]
pub struct Blank {
    /// Its UID.
    pub uid: Uid,
    /// Its purse.
    pub purse: u64,
    /// The card.
    pub card: Card,
}

/// Issues a box of cards.
///
/// # Errors
/// None on software cards.
pub fn a_box_of_cards(
    count: usize,
    house: &House,
    rng: &mut StdRng,
) -> Result<Vec<Blank>, DayError> {
    let mut cards = Vec::new();
    for purse in 1..=count as u64 {
        let [.., a, b, c] = purse.to_be_bytes();
        let uid = Uid([0x04, 0xA7, 0xCA, a, b, c, 0x80]);
        let mut seed = [0; 16];
        rand::Rng::fill_bytes(rng, &mut seed);
        let mut card = Card::builder().uid(uid).seed(seed).build();
        issue(
            &mut Field::new(&mut card),
            house,
            uid,
            purse,
            OPENS - 3600,
            rng,
        )?;
        cards.push(Blank { uid, purse, card });
    }
    Ok(cards)
}

impl<'h> Day<'h> {
    /// Opens the doors. The box holds at least as many cards as people come.
    ///
    /// # Errors
    /// SQLite.
    pub fn new(
        plan: Plan,
        house: &'h House,
        cards: &[Blank],
        office: Office,
    ) -> Result<Self, DayError> {
        let mut rng = StdRng::seed_from_u64(plan.seed);
        let places = the_floor(house);
        for place in &places {
            let terminal = &place.terminal;
            office.set_up(terminal.id, &place.name, terminal.kind, place.metres)?;
        }
        let frauds = plan.frauds.iter().copied().map(Some);
        let guests = std::iter::repeat_n(None, plan.honest).chain(frauds);
        let mut people = Vec::new();
        for (number, (blank, fraud)) in cards.iter().zip(guests).enumerate() {
            let name = fraud.map_or_else(|| name(number), |fraud| fraud.name().to_owned());
            office.issued(blank.purse, blank.uid, &name)?;
            let visits = match fraud {
                None => rng.random_range(1..=plan.visits.max(1) * 2),
                Some(_) => 12,
            };
            people.push(Person {
                name,
                uid: blank.uid,
                purse: blank.purse,
                fraud,
                history: Vec::new(),
                card: blank.card.clone(),
                second: None,
                balance: 0,
                next: OPENS + rng.random_range(0..2 * 3600),
                visits,
                unsure: None,
            });
        }
        Ok(Self {
            office,
            people,
            tally: Tally::default(),
            displays: Vec::new(),
            house,
            places,
            plan,
            rng,
            blocked: BTreeSet::new(),
            now: OPENS,
        })
    }

    /// Lets the day pass: `watch` is told what is worth telling.
    ///
    /// # Errors
    /// SQLite.
    pub fn pass(&mut self, mut watch: impl FnMut(u32, &str)) -> Result<(), DayError> {
        while let Some(who) = self.whose_turn() {
            self.deliver_what_is_due(&mut watch)?;
            self.deed(who, &mut watch)?;
            self.visit(who)?;
        }
        // Everybody holds the card to the first desk on the way out, as often as it takes.
        for who in 0..self.people.len() {
            self.leave(who)?;
        }
        self.now += 3600;
        self.deliver(|_| true, &mut watch)
    }

    /// The next to do something; the clock goes on to then.
    fn whose_turn(&mut self) -> Option<usize> {
        let waiting = self.people.iter().enumerate();
        let (who, next) = waiting
            .filter(|(_, person)| person.visits > 0)
            .map(|(who, person)| (who, person.next))
            .min_by_key(|(_, next)| *next)?;
        self.now = self.now.max(next);
        Some(who)
    }

    fn visit(&mut self, who: usize) -> Result<(), DayError> {
        let machines = 2..self.places.len();
        let any_machine = self.rng.random_range(machines);
        let desk = self.rng.random_range(0..2);
        let top_up = 500 * [1, 2, 4, 10].choose(&mut self.rng).unwrap_or(&1);
        let price = self.places.get(any_machine).map_or(100, |p| p.price);
        let Some(person) = self.people.get_mut(who) else {
            return Ok(());
        };
        person.visits -= 1;
        let (place, wish) = match person.unsure.take() {
            Some(before) => before,
            _ if person.balance < price => (desk, Wish::TopUp(Amount::new(top_up)?)),
            _ => (any_machine, Wish::Play(Amount::new(price)?)),
        };
        self.tap(who, place, wish)?;
        // Lending the twin to a friend who is somewhere else at the same moment.
        if let Some(person) = self.people.get(who)
            && person.fraud == Some(Fraud::Twin)
            && person.second.is_some()
        {
            self.swap(who);
            let far = if place > 5 { 2 } else { self.places.len() - 1 };
            let price = self.places.get(far).map_or(100, |p| p.price);
            self.tap(who, far, Wish::Play(Amount::new(price)?))?;
            self.swap(who);
        }
        Ok(())
    }

    /// One tap, after a walk.
    fn tap(&mut self, who: usize, place: usize, wish: Wish) -> Result<(), DayError> {
        let disturbed = self.rng.random_ratio(self.plan.faults, 100);
        let (Some(person), Some(at)) = (self.people.get_mut(who), self.places.get_mut(place))
        else {
            return Ok(());
        };
        self.now += 1;
        let mut field = Field::new(&mut person.card);
        if disturbed {
            field = field.with_some_trouble(&mut self.rng);
        }
        let outcome = at
            .terminal
            .tap(&mut field, person.uid, self.now, wish, &mut self.rng)?;
        self.tally.taps += 1;
        self.tally.disturbed += u64::from(disturbed);
        self.tally.exchanges += u64::from(field.exchanges());
        drop(field);
        let owed = matches!(outcome, Outcome::Owed(_)) && self.tally.owed < 2;
        if self.displays.len() < DISPLAYS || owed {
            let shown = report::display(&outcome);
            let line = format!(
                "{}  {:<18}{:<9}{shown}",
                Clock(self.now),
                at.name,
                person.name
            );
            self.displays.push(line);
        }
        match outcome {
            Outcome::Done(record) => {
                person.balance = record.balance.get();
                self.tally.count(&record);
            }
            Outcome::Owed(record) => {
                self.tally.owed += 1;
                self.tally.count(&record);
            }
            Outcome::Seen(records) => {
                person.balance = records.first().map_or(0, |newest| newest.balance.get());
                person.history = records;
            }
            Outcome::Refused(_) => person.balance = 0,
            Outcome::Blocked => self.tally.blocked += 1,
            Outcome::Fraud(_) => self.tally.refused += 1,
            Outcome::Again | Outcome::NotOurs => {
                self.tally.again += 1;
                // Most try again, some shrug and walk on.
                person.unsure = self.rng.random_ratio(3, 4).then_some((place, wish));
            }
        }
        let pause = match person.unsure {
            Some(_) => self.rng.random_range(2..10),
            // Time enough to walk through the whole house.
            None => self.rng.random_range(60..900),
        };
        person.next = self.now + pause;
        Ok(())
    }

    /// Out of the door, past the desk.
    fn leave(&mut self, who: usize) -> Result<(), DayError> {
        self.now += 120;
        let faults = std::mem::take(&mut self.plan.faults);
        // The first may settle something and say no more than that; the second shows the log.
        for _ in 0..2 {
            self.tap(who, 0, Wish::Look)?;
        }
        self.plan.faults = faults;
        Ok(())
    }

    /// What the person does to the card, when the time has come.
    fn deed(&mut self, who: usize, watch: &mut impl FnMut(u32, &str)) -> Result<(), DayError> {
        let Some(person) = self.people.get_mut(who) else {
            return Ok(());
        };
        let Some(fraud) = person.fraud else {
            return Ok(());
        };
        let fifty = Amount::new(5000)?;
        let (uid, rng) = (person.uid, &mut self.rng);
        let done = match (fraud, person.visits) {
            (Fraud::SetBack, 9) => {
                person.second = Some(person.card.clone());
                false
            }
            (Fraud::SetBack, 5) => {
                if let Some(second) = person.second.take() {
                    person.card = second;
                }
                true
            }
            (Fraud::Twin, 7) => {
                person.second = Some(person.card.clone());
                true
            }
            (Fraud::Copy, 7) => {
                let to = Uid([0x04, 0xBA, 0xD0, 0xBA, 0xD0, 0xBA, 0x80]);
                person.card = fraud::copy(&person.card, uid, to, self.house, rng)?;
                person.uid = to;
                true
            }
            (Fraud::RaisedValue, 7) => {
                fraud::raise_value(&mut person.card, uid, fifty, self.house, rng)?;
                true
            }
            (Fraud::ForgedTopUp, 7) => {
                let stamp = Stamp {
                    time: self.now,
                    terminal: 1,
                    transaction: 1_000_000,
                };
                fraud::forge_top_up(&mut person.card, uid, fifty, stamp, self.house, rng)?;
                true
            }
            _ => false,
        };
        if done {
            watch(self.now, &format!("{} {}", person.name, fraud.deed()));
        }
        Ok(())
    }

    fn swap(&mut self, who: usize) {
        if let Some(person) = self.people.get_mut(who)
            && let Some(second) = &mut person.second
        {
            std::mem::swap(&mut person.card, second);
        }
    }

    fn deliver_what_is_due(&mut self, watch: &mut impl FnMut(u32, &str)) -> Result<(), DayError> {
        let now = self.now;
        self.deliver(|place| place.delivers_next <= now, watch)
    }

    /// Some terminals deliver and get the block list.
    fn deliver(
        &mut self,
        which: impl Fn(&Place<'_>) -> bool,
        watch: &mut impl FnMut(u32, &str),
    ) -> Result<(), DayError> {
        let mut delivered = Vec::new();
        for (number, place) in self.places.iter_mut().enumerate() {
            if which(place) {
                let reports = place.terminal.deliver();
                self.office.collect(place.terminal.id, self.now, &reports)?;
                place.delivers_next = self.now + place.delivers_every;
                delivered.push(number);
            }
        }
        if delivered.is_empty() {
            return Ok(());
        }
        for finding in self.office.audit()? {
            if self.blocked.insert(finding.uid) {
                let Finding { reason, detail, .. } = &finding;
                let who = finding.holder.as_deref().unwrap_or("a card of nobody");
                watch(self.now, &format!("blocked: {who} ({reason}: {detail})"));
            }
        }
        for number in delivered {
            if let Some(place) = self.places.get_mut(number) {
                place.terminal.obey(&self.blocked);
            }
        }
        Ok(())
    }

    /// The block list.
    #[must_use]
    pub const fn blocked(&self) -> &BTreeSet<Uid> {
        &self.blocked
    }

    /// The name of a terminal.
    #[must_use]
    pub fn place_name(&self, id: u32) -> &str {
        let place = self.places.iter().find(|place| place.terminal.id == id);
        place.map_or("the issuing desk", |place| &place.name)
    }

    /// How many operations the terminals hold open.
    #[must_use]
    pub fn open_at_terminals(&self) -> usize {
        self.places.iter().map(|place| place.terminal.open()).sum()
    }
}

impl Tally {
    fn count(&mut self, record: &Record) {
        let change = i64::from(record.change());
        if change < 0 {
            self.played -= change;
        } else {
            self.cash += change;
        }
    }
}

/// What is in a card's value file.
#[must_use]
pub fn on_card(card: &Card) -> i64 {
    let file = purse().ok().and_then(|purse| {
        let application = card.state().application(AID)?;
        application.file(purse.value)
    });
    match file.map(desfire_ev1::picc::File::content) {
        Some(FileContent::Value(value)) => value.value.into(),
        _ => 0,
    }
}

/// Two desks by the door and in the middle, and eight machines, of which two are rarely online.
fn the_floor(house: &House) -> Vec<Place<'_>> {
    let rows: [(&str, Kind, u32, i32, u32); 10] = [
        ("desk at the door", Kind::Desk, 0, 0, 600),
        ("desk in the hall", Kind::Desk, 60, 0, 600),
        ("pinball", Kind::Machine, 15, 100, 1200),
        ("air hockey", Kind::Machine, 25, 200, 1200),
        ("claw", Kind::Machine, 35, 50, 1200),
        ("dance floor", Kind::Machine, 45, 250, 7200),
        ("racing seat", Kind::Machine, 70, 300, 1200),
        ("photo booth", Kind::Machine, 85, 500, 10800),
        ("basketball", Kind::Machine, 100, 150, 1200),
        ("coffee", Kind::Machine, 110, 180, 1200),
    ];
    let mut id = 0;
    rows.into_iter()
        .map(|(name, kind, metres, price, delivers_every)| {
            id += 1;
            Place {
                name: name.to_owned(),
                metres,
                price,
                delivers_every,
                terminal: Terminal::new(id, kind, house),
                delivers_next: OPENS + delivers_every,
            }
        })
        .collect()
}

/// A name for the nth guest.
fn name(number: usize) -> String {
    const NAMES: [&str; 26] = [
        "Ada", "Ben", "Cleo", "Dan", "Edith", "Finn", "Grace", "Hugo", "Ida", "Jack", "Kate",
        "Leo", "Mina", "Noah", "Olga", "Paul", "Quinn", "Rosa", "Sam", "Tess", "Uma", "Vic",
        "Wanda", "Xenia", "Yuri", "Zoe",
    ];
    let first = NAMES.get(number % NAMES.len()).unwrap_or(&"Ada");
    match number / NAMES.len() {
        0 => (*first).to_owned(),
        again => format!("{first} {}", again + 1),
    }
}
