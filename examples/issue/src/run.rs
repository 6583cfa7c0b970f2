//! Doing what the command line says.

use std::collections::VecDeque;
use std::fs;
use std::io::{IsTerminal as _, Read as _, Write as _};
use std::path::{Path, PathBuf};

use age::secrecy::SecretString;
use desfire_ev1::VirtualReader;
use desfire_ev1::picc::StorageSize;
use desfire_ev1::provision::{Issuer, Layout, MAX_TEXT, MemoryKeys, storage};
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use issue::batch::{Job, joined, line};
use issue::cards::{Dice, Folder, arrange_trouble, delivered, strange};
use issue::keys::{self, MAX_FILE};
use issue::report::{BatchReport, CardReport, End};
use zeroize::Zeroizing;

use crate::Outcome;
use crate::args::{Batch, Cards, Keys};

/// How often a torn card is put back.
const PATIENCE: u32 = 20;

/// Every how many cards one is somebody else's.
const STRANGE: u32 = 7;

/// Not more of a file than is looked at, and one byte, so that it is found too long.
fn read(path: &Path, limit: usize) -> Outcome<Zeroizing<Vec<u8>>> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let file = fs::File::open(path).map_err(named)?;
    let limit = limit.saturating_add(1);
    // Long enough not to be moved while it grows, as there may be keys in it.
    let mut bytes = Zeroizing::new(Vec::with_capacity(limit));
    file.take(u64::try_from(limit).unwrap_or(u64::MAX))
        .read_to_end(&mut bytes)
        .map_err(named)?;
    Ok(bytes)
}

fn text<'b>(path: &Path, bytes: &'b [u8]) -> Outcome<&'b str> {
    std::str::from_utf8(bytes).map_err(|_| format!("{}: not text", path.display()).into())
}

fn layout(path: &Path) -> Outcome<Layout> {
    let bytes = read(path, MAX_TEXT)?;
    let text = text(path, &bytes)?;
    Layout::from_toml(text).map_err(|errors| {
        let lines: Vec<String> = errors.0.iter().map(|error| format!("  {error}")).collect();
        format!("{} cannot be used:\n{}", path.display(), lines.join("\n")).into()
    })
}

/// The password, from the environment or from whoever sits there. A new one is asked for twice.
fn password(new: bool) -> Outcome<SecretString> {
    if let Ok(text) = std::env::var("ISSUE_PASSWORD") {
        return keys::password(text).ok_or_else(|| "ISSUE_PASSWORD is empty".into());
    }
    if !std::io::stdin().is_terminal() {
        return Err("no password: set ISSUE_PASSWORD, or run this in a terminal".into());
    }
    let text = rpassword::prompt_password("password of the key file: ")?;
    if new {
        let again = Zeroizing::new(rpassword::prompt_password("once more: ")?);
        if *again != text {
            return Err("the passwords differ".into());
        }
    }
    keys::password(text).ok_or_else(|| "the password is empty".into())
}

/// Writes a file that is not there yet: keys are never overwritten.
fn write_new(path: &Path, text: &str) -> Outcome<()> {
    let named = |error: std::io::Error| format!("{}: {error}", path.display());
    let mut options = fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    {
        use std::os::unix::fs::OpenOptionsExt as _;
        options.mode(0o600);
    }
    let mut file = options.open(path).map_err(named)?;
    file.write_all(text.as_bytes()).map_err(named)?;
    // Cards whose keys are lost are lost.
    file.sync_all().map_err(named)?;
    Ok(())
}

pub fn invent(from: &Path, output: &Path) -> Outcome<()> {
    let layout = layout(from)?;
    let text = keys::invent(&layout)?;
    let sealed = keys::seal(&text, &password(true)?, None)?;
    write_new(output, &sealed)?;
    println!(
        "{} keys in {}",
        keys::parse(&text)?.list().count(),
        output.display()
    );
    if layout.keys().any(|key| !is_wanted(&layout, key)) {
        println!(
            "older keys and transport keys are made at random like the others: put the real ones in their places"
        );
    }
    Ok(())
}

fn is_wanted(layout: &Layout, key: &desfire_ev1::provision::KeyRef) -> bool {
    let slots = layout.applications.iter().flat_map(|app| &app.keys);
    let mut wanted = slots.chain([&layout.picc.key]).map(|slot| &slot.key);
    wanted.any(|other| other == key) || layout.picc.default_key.as_ref() == Some(key)
}

pub fn seal(input: &Path, output: &Path) -> Outcome<()> {
    let bytes = read(input, MAX_FILE)?;
    let text = text(input, &bytes)?;
    let count = keys::parse(text)
        .map_err(|error| format!("{}: {error}", input.display()))?
        .list()
        .count();
    write_new(output, &keys::seal(text, &password(true)?, None)?)?;
    println!(
        "{count} keys in {}; now remove {}",
        output.display(),
        input.display()
    );
    Ok(())
}

fn open(path: &Path) -> Outcome<MemoryKeys> {
    let sealed = read(path, MAX_FILE)?;
    let keys = keys::open(&sealed, &password(false)?);
    keys.map_err(|error| format!("{}: {error}", path.display()).into())
}

pub fn list(input: &Path) -> Outcome<()> {
    for (name, version, key_type) in open(input)?.list() {
        println!("{name}  version {version}  {key_type}");
    }
    Ok(())
}

/// Whether all cards are as they should be.
pub fn batch(batch: &Batch) -> Outcome<bool> {
    let layout = layout(&batch.layout)?;
    let keys = match &batch.keys {
        Keys::File(path) => open(path)?,
        Keys::Demo => keys::parse(&keys::invent(&layout)?)?,
        Keys::Environment => keys::from_environment(&layout, |name| std::env::var(name).ok())?,
    };
    let mut issuer = Issuer::new(&layout, &keys).map_err(|error| match &batch.keys {
        Keys::Environment => {
            format!("{error}\n(keys are taken from the environment; --keys FILE or --demo-keys otherwise)")
        }
        _ => error.to_string(),
    })?;
    if batch.rollover {
        issuer = issuer.rollover();
    }
    if batch.irreversible {
        issuer = issuer.irreversible();
    }
    let job = Job {
        issuer,
        dry_run: batch.dry_run,
        show_plans: batch.plan,
    };
    let mut report = BatchReport {
        layout: layout.name.clone(),
        dry_run: batch.dry_run,
        rollover: batch.rollover,
        cards: Vec::new(),
    };
    let done = match &batch.cards {
        Cards::Box { count } => software(batch, &layout, &job, *count, &mut report),
        #[cfg(feature = "pcsc")]
        Cards::Reader { name, count } => {
            crate::reader::cards(&job, name.as_deref(), *count, &mut report)
        }
        #[cfg(not(feature = "pcsc"))]
        Cards::Reader { name, count } => {
            let _ = (name, count);
            Err("this program was built without readers: cargo run -p issue --features pcsc".into())
        }
    };
    // Also of a batch that ended early.
    summary(&report);
    if let Some(base) = &batch.report {
        // A dot in the name is a part of it.
        let with = |ending: &str| {
            let mut name = base.clone().into_os_string();
            name.push(ending);
            PathBuf::from(name)
        };
        let (json, csv) = (with(".json"), with(".csv"));
        let named = |path: &Path, error| format!("{}: {error}", path.display());
        report
            .write_json(&json)
            .map_err(|error| named(&json, error))?;
        report.write_csv(&csv).map_err(|error| named(&csv, error))?;
        println!("report: {}, {}", json.display(), csv.display());
    }
    done?;
    Ok(report.is_good())
}

fn summary(report: &BatchReport) {
    let ends = [
        End::Issued,
        End::Resumed,
        End::NothingToDo,
        End::Planned,
        End::Refused,
        End::HalfDone,
        End::Failed,
    ];
    let counts = ends.into_iter().map(|end| (end.word(), report.count(end)));
    let counts: Vec<String> = counts
        .filter(|(_, count)| *count > 0)
        .map(|(word, count)| format!("{count} {word}"))
        .collect();
    let cards = report.cards.len();
    let noun = if cards == 1 { "card" } else { "cards" };
    println!("{cards} {noun}: {}", counts.join(", "));
    let held: Vec<&String> = report
        .cards
        .iter()
        .flat_map(|card| &card.held_back)
        .collect();
    if let Some(first) = held.first() {
        println!(
            "held back, since it can never be undone ({} in all; --irreversible does it): {first}",
            held.len()
        );
    }
}

pub fn bar(length: u64) -> ProgressBar {
    let bar = ProgressBar::with_draw_target(Some(length), ProgressDrawTarget::stderr());
    // The template is right: a test draws it.
    if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos}/{len} cards  {msg}") {
        bar.set_style(style);
    }
    bar
}

/// Prints a line without breaking the bar.
pub fn say(bar: &ProgressBar, text: &str) {
    bar.suspend(|| println!("{text}"));
}

struct Lying {
    reader: VirtualReader,
    so_far: Option<CardReport>,
}

fn software(
    batch: &Batch,
    layout: &Layout,
    job: &Job<'_, MemoryKeys>,
    count: u32,
    report: &mut BatchReport,
) -> Outcome<()> {
    let size = match layout.storage {
        storage::EV1_2K => StorageSize::Ev1_2K,
        storage::EV1_4K => StorageSize::Ev1_4K,
        _ => StorageSize::Ev1_8K,
    };
    let folder = batch.folder.as_deref().map(Folder::new).transpose()?;
    let mut queue = VecDeque::new();
    for number in 0..count {
        let foreign = batch.strange && number % STRANGE == STRANGE - 1;
        let card = if foreign {
            strange(number, size)
        } else {
            delivered(number, size)
        };
        let card = match &folder {
            Some(folder) => folder.load(card)?,
            None => card,
        };
        queue.push_back(Lying {
            reader: VirtualReader::new(card),
            so_far: None,
        });
    }
    let mut dice = Dice::new(batch.seed);
    let bar = bar(count.into());
    while let Some(mut lying) = queue.pop_front() {
        lying.reader.card_mut().activate();
        if batch.tear && dice.below(2) == 0 {
            arrange_trouble(&mut lying.reader, &mut dice);
        }
        let attempt = job.once(&mut lying.reader, |progress| {
            bar.set_message(format!("step {} of {}", progress.number, progress.of));
        });
        lying.reader.card_mut().clear_faults();
        if let Some(folder) = &folder {
            folder.store(lying.reader.card())?;
        }
        if let Some(plan) = &attempt.plan {
            say(&bar, plan.trim_end());
        }
        let so_far = joined(lying.so_far.take(), attempt.report);
        say(&bar, &line(&so_far));
        let again = so_far.end == End::HalfDone && !batch.once && so_far.attempts < PATIENCE;
        if again {
            lying.so_far = Some(so_far);
            queue.push_back(lying);
        } else {
            report.cards.push(so_far);
            bar.inc(1);
        }
    }
    bar.finish_and_clear();
    Ok(())
}
