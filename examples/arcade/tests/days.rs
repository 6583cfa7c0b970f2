//! Days with faults: whatever is torn or lost, cards and books agree to the cent, nobody is accused who
//! has done nothing, and everybody who has is found.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use std::sync::atomic::{AtomicU64, Ordering};

use arcade::cards::House;
use arcade::day::{Blank, Day, OPENS, Plan, Tally, a_box_of_cards, on_card};
use arcade::field::{Field, Trouble};
use arcade::fraud::Fraud;
use arcade::office::{Books, Office};
use arcade::report::Report;
use arcade::terminal::{Kind, Outcome, Terminal, Wish};
use desfire_ev1::picc::{Card, Fault};
use desfire_ev1::wire::Amount;
use rand::SeedableRng;
use rand::rngs::StdRng;

fn a_house_and_cards(count: usize) -> (House, Vec<Blank>) {
    let mut rng = StdRng::seed_from_u64(7);
    let house = House::new(&mut rng);
    let cards = a_box_of_cards(count, &house, &mut rng).unwrap();
    (house, cards)
}

fn passed<'h>(plan: Plan, house: &'h House, cards: &[Blank]) -> Day<'h> {
    let mut day = Day::new(plan, house, cards, Office::in_memory().unwrap()).unwrap();
    day.pass(|_, _| {}).unwrap();
    day
}

/// How many random days; `ARCADE_DAYS` for more, or less.
fn days() -> u64 {
    std::env::var("ARCADE_DAYS").map_or(10_000, |days| days.parse().unwrap())
}

#[test]
fn random_days_with_faults_come_out_even() {
    let (house, cards) = a_house_and_cards(3);
    let next = AtomicU64::new(0);
    let total = |tallies: Vec<Tally>| -> (u64, u64, u64) {
        let sum = |of: fn(&Tally) -> u64| tallies.iter().map(of).sum();
        (sum(|t| t.taps), sum(|t| t.disturbed), sum(|t| t.owed))
    };
    let work = || {
        let mut sums = Vec::new();
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            if seed >= days() {
                return total(sums);
            }
            let plan = Plan {
                seed,
                honest: 3,
                visits: 3,
                faults: 40,
                frauds: Vec::new(),
            };
            let day = passed(plan, &house, &cards);
            let report = Report::of(&day).unwrap();
            assert!(report.is_clean(), "seed {seed}\n{report}");
            assert_eq!(report.in_order, 3, "seed {seed}\n{report}");
            assert_eq!(report.books.open, 0, "seed {seed}");
            // The cash in the drawers is the money on the books, but for top-ups that were torn and
            // never asked about again; games likewise.
            assert!(report.tally.cash <= report.books.money_in, "seed {seed}");
            assert!(report.tally.played <= report.books.money_out, "seed {seed}");
            sums.push(report.tally);
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    let sums: Vec<_> = std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let (taps, disturbed, owed) = sums
        .into_iter()
        .fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2));
    println!(
        "{} days, {taps} taps, {disturbed} of them disturbed, {owed} paid and settled later: every difference 0",
        days()
    );
    assert!(disturbed > days() && owed > days() / 10);
}

#[test]
fn every_fraud_is_found_and_nobody_else_is_accused() {
    let (house, cards) = a_house_and_cards(15);
    for seed in 0..60 {
        let plan = Plan {
            seed,
            honest: 10,
            visits: 6,
            faults: 15,
            frauds: Fraud::ALL.to_vec(),
        };
        let report = Report::of(&passed(plan, &house, &cards)).unwrap();
        assert!(report.is_clean(), "seed {seed}\n{report}");
        assert_eq!(report.in_order, 10, "seed {seed}\n{report}");
    }
}

/// A desk, a machine and a back office around one card.
struct Booth<'h> {
    desk: Terminal<'h>,
    machine: Terminal<'h>,
    office: Office,
    rng: StdRng,
    now: u32,
}

impl<'h> Booth<'h> {
    fn new(house: &'h House, blank: &Blank) -> Self {
        let office = Office::in_memory().unwrap();
        office.set_up(1, "desk", Kind::Desk, 0).unwrap();
        office.set_up(2, "machine", Kind::Machine, 10).unwrap();
        office.issued(blank.purse, blank.uid, "Ada").unwrap();
        Self {
            desk: Terminal::new(1, Kind::Desk, house),
            machine: Terminal::new(2, Kind::Machine, house),
            office,
            rng: StdRng::seed_from_u64(1),
            now: OPENS,
        }
    }

    fn tap(&mut self, field: &mut Field<'_>, blank: &Blank, wish: Wish) -> Outcome {
        self.now += 100;
        let terminal = match wish {
            Wish::Play(_) => &mut self.machine,
            Wish::TopUp(_) | Wish::Look => &mut self.desk,
        };
        terminal
            .tap(field, blank.uid, self.now, wish, &mut self.rng)
            .unwrap()
    }

    /// Everything is delivered, the later first and twice.
    fn books(&mut self) -> Books {
        self.now += 1000;
        let deliveries = [(2, self.machine.deliver()), (1, self.desk.deliver())];
        for _ in 0..2 {
            for (terminal, reports) in &deliveries {
                let reports: Vec<_> = reports.iter().rev().copied().collect();
                self.office.collect(*terminal, self.now, &reports).unwrap();
            }
        }
        assert_eq!(self.office.audit().unwrap(), []);
        self.office.books().unwrap()
    }
}

/// One disturbance, at every exchange and every effect there is, of a top-up and of a game; then the
/// same wish again at the same terminal, or a look at the other one.
#[test]
fn cut_anywhere_the_next_tap_settles_and_the_books_are_exact() {
    let (house, cards) = a_house_and_cards(1);
    let blank = &cards[0];
    let amount = |cents| Amount::new(cents).unwrap();
    let mut runs = 0;
    for wish in [Wish::TopUp(amount(300)), Wish::Play(amount(200))] {
        for comes_back in [true, false] {
            let exchanges = (1..=10).flat_map(|n| {
                [
                    Trouble::PulledBefore(n),
                    Trouble::ReplyLost(n),
                    Trouble::CommandLost(n),
                    Trouble::BitFlip(n, 0),
                ]
                .map(Ok)
            });
            let effects = (1..=5).flat_map(|n| [(n, true), (n, false)].map(Err));
            for disturbance in exchanges.chain(effects) {
                runs += 1;
                let mut card: Card = blank.card.clone();
                let mut booth = Booth::new(&house, blank);
                let top_up = Wish::TopUp(amount(1000));
                booth.tap(&mut Field::new(&mut card), blank, top_up);
                let before = on_card(&card);
                assert_eq!(before, 1000);
                let first = card.effects() + 1;
                match disturbance {
                    Err((n, true)) => card.arrange_fault(Fault::CutBefore(first + n - 1)),
                    Err((n, false)) => card.arrange_fault(Fault::CutAfter(first + n - 1)),
                    Ok(_) => {}
                }
                let mut field = Field::new(&mut card);
                if let Ok(trouble) = disturbance {
                    field = field.with_trouble(trouble);
                }
                let outcome = booth.tap(&mut field, blank, wish);
                drop(field);
                let first_paid = on_card(&card) != before;
                match outcome {
                    Outcome::Done(_) => assert!(first_paid),
                    Outcome::Again | Outcome::NotOurs => {}
                    other => panic!("{other:?}"),
                }
                // Told only once that it was done: by the first tap or by the second.
                let again = if comes_back { wish } else { Wish::Look };
                let at_first = matches!(outcome, Outcome::Done(_));
                let outcome = booth.tap(&mut Field::new(&mut card), blank, again);
                match outcome {
                    Outcome::Owed(_) => assert!(first_paid && !at_first),
                    Outcome::Done(_) => assert!(comes_back && (at_first || !first_paid)),
                    Outcome::Seen(_) => assert!(!comes_back),
                    other => panic!("{other:?}"),
                }
                booth.tap(&mut Field::new(&mut card), blank, Wish::Look);
                let books = booth.books();
                assert_eq!(books.open, 0, "{wish:?} {disturbance:?}");
                assert_eq!(
                    books.money_in - books.money_out,
                    on_card(&card),
                    "{wish:?} {disturbance:?}"
                );
            }
        }
    }
    println!("{runs} taps cut, settled, and booked");
}
