//! A busy day at an amusement arcade whose money is on DESFire EV1 cards.

use std::path::PathBuf;
use std::process::ExitCode;

use arcade::cards::House;
use arcade::day::{Day, Plan, a_box_of_cards};
use arcade::fraud::Fraud;
use arcade::office::Office;
use arcade::report::{Clock, Report, statement};
use desfire_ev1::purse::Kind;
use rand::SeedableRng;
use rand::rngs::StdRng;

const HELP: &str = "\
A busy day at an amusement arcade whose money is on DESFire EV1 cards

Usage: arcade [OPTIONS]

Issues a box of software cards, lets people top them up, play, tear them off the readers and
cheat, and draws up the balance in the evening. The same seed is the same day.

Options:
  --cards N     how many cards (default 100; at least 6, the last 5 of them frauds)
  --seed S      which day (default 1)
  --faults P    how many taps of a hundred are disturbed (default 15)
  --visits V    what an honest guest wants in a day, on average (default 8)
  --db FILE     keep the back office's SQLite database in a new file
  --quiet       only the balance
  -h, --help    this text

Exit status: 0 if the difference is 0, every fraud was found and nobody else accused; 1 otherwise.
";

struct Options {
    cards: usize,
    seed: u64,
    faults: u32,
    visits: usize,
    db: Option<PathBuf>,
    quiet: bool,
}

fn main() -> ExitCode {
    let run = options().and_then(|options| match options {
        Some(options) => run(&options),
        None => {
            print!("{HELP}");
            Ok(true)
        }
    });
    match run {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => {
            eprintln!("arcade: the day did not come out even");
            ExitCode::FAILURE
        }
        Err(error) => {
            eprintln!("arcade: {error}");
            ExitCode::FAILURE
        }
    }
}

type Error = Box<dyn std::error::Error>;

fn options() -> Result<Option<Options>, Error> {
    use lexopt::prelude::{Long, Short, ValueExt as _};

    let mut options = Options {
        cards: 100,
        seed: 1,
        faults: 15,
        visits: 8,
        db: None,
        quiet: false,
    };
    let mut args = lexopt::Parser::from_env();
    while let Some(arg) = args.next()? {
        match arg {
            Long("cards") => options.cards = args.value()?.parse()?,
            Long("seed") => options.seed = args.value()?.parse()?,
            Long("faults") => options.faults = args.value()?.parse()?,
            Long("visits") => options.visits = args.value()?.parse()?,
            Long("db") => options.db = Some(args.value()?.into()),
            Long("quiet") => options.quiet = true,
            Long("help") | Short('h') => return Ok(None),
            _ => return Err(format!("{}; try --help", arg.unexpected()).into()),
        }
    }
    if options.cards <= Fraud::ALL.len() || options.cards > 10_000 {
        return Err("--cards must be between 6 and 10000".into());
    }
    if options.faults > 100 {
        return Err("--faults is a percentage, 0 to 100".into());
    }
    if options.visits > 1000 {
        return Err("--visits must be at most 1000".into());
    }
    if let Some(path) = options.db.as_deref().filter(|path| path.exists()) {
        return Err(format!("{} is there already; give a new file", path.display()).into());
    }
    Ok(Some(options))
}

fn run(options: &Options) -> Result<bool, Error> {
    let mut rng = StdRng::seed_from_u64(options.seed);
    let house = House::new(&mut rng);
    let cards = a_box_of_cards(options.cards, &house, &mut rng)?;
    let plan = Plan {
        seed: options.seed,
        honest: options.cards - Fraud::ALL.len(),
        visits: options.visits,
        faults: options.faults,
        frauds: Fraud::ALL.to_vec(),
    };
    let office = match &options.db {
        Some(path) => Office::in_file(path)?,
        None => Office::in_memory()?,
    };
    let (honest, frauds) = (plan.honest, plan.frauds.len());
    println!(
        "A day at the arcade: {honest} honest guests, {frauds} others; seed {}\n",
        options.seed
    );
    let mut day = Day::new(plan, &house, &cards, office)?;
    day.pass(|now, what| {
        if !options.quiet {
            println!("  {}  {what}", Clock(now));
        }
    })?;
    if !options.quiet {
        println!("\nWhat the displays showed at some of the taps");
        for line in &day.displays {
            println!("  {line}");
        }
        // The liveliest: both in and out, and as much as the card remembers.
        let honest = day.people.iter().filter(|person| person.fraud.is_none());
        let person = honest.max_by_key(|person| {
            let kinds = person.history.iter().map(|record| record.kind);
            (
                person.history.len(),
                kinds.filter(|kind| *kind == Kind::Credit).count().min(2),
            )
        });
        if let Some(person) = person {
            println!("\n{}", statement(&day, person));
        }
    }
    let report = Report::of(&day)?;
    print!("{report}");
    Ok(report.is_clean())
}
