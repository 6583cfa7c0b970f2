//! Formats a card: deletes all applications and gives their memory back.
//!
//! `cargo run --example format`; `--help` tells the rest.

use std::process::ExitCode;

use desfire_ev1::wire::{Aid, KeyFamily, KeyNo, Status, Version};
use desfire_ev1::{Authenticated, Key, Machine as _, Outcome as Fate, Session};

mod common;

use common::args::{self, Options};
use common::card::{self, Card, Failure};
use common::{Context as _, Outcome, demo, say, words};

const HELP: &str = "\
Formats a DESFire: FormatPICC deletes all applications with everything in them, for good,
and gives their memory back. The PICC master key, the key settings and the configuration
of the card stay as they are.

Shows what would be deleted; deletes it with --yes only.

Usage: cargo run --example format [-- OPTIONS]

Options:
  --key KEY           the PICC master key; without it, the one of a new card, des:zero
  --yes               delete
{common}

{keys}
  DESFIRE_KEY         in place of --key

Examples, in which format stands for cargo run --example format --
  format                              what would be deleted from the software card
  format --yes                        delete it
  format --key aes:zero --yes         from a card whose PICC master key is AES
";

fn authenticate(card: &mut Card, version: &Version, key: &Key) -> Outcome<Session<Authenticated>> {
    let session = card::select(card, Aid::PICC)?;
    card::proved(
        card::authenticate(card, session, version, KeyNo::MASTER, key),
        "this is not the PICC master key, without which nothing is formatted",
    )
}

/// The applications; the key is asked for only where the card wants one.
fn applications(card: &mut Card, version: &Version, key: &Key) -> Outcome<Vec<Aid>> {
    let listed = card::select(card, Aid::PICC)?
        .get_application_ids()
        .run(card);
    let aids = match listed {
        Err(error) if error.status().is_some() => authenticate(card, version, key)?
            .get_application_ids()
            .run(card)?,
        listed => listed?,
    };
    Ok(aids.to_vec())
}

/// EV1's predecessor cannot tell it.
fn free_memory(card: &mut Card) -> Result<Option<u32>, Failure> {
    match card::select(card, Aid::PICC)?.free_mem().run(card) {
        Ok(free) => Ok(Some(free)),
        Err(error) if error.status() == Some(Status::IllegalCommandCode) => Ok(None),
        Err(error) => Err(error),
    }
}

/// How much is in an application, as far as it tells.
fn content(card: &mut Card, aid: Aid) -> Result<String, Failure> {
    match card::select(card, aid)?.get_file_ids().run(card) {
        Ok(files) if files.len() == 1 => Ok("1 file".to_owned()),
        Ok(files) => Ok(format!("{} files", files.len())),
        Err(error) if error.status().is_some() => Ok("does not list its files".to_owned()),
        Err(error) => Err(error),
    }
}

fn run(options: &Options, key: &Key, yes: bool) -> Outcome<()> {
    let mut card = options.open(demo::reader)?;
    let version = card::version(&mut card)?;
    let before = free_memory(&mut card)?;
    say(format_args!(
        "{}, UID {}",
        words::card(&version),
        words::uid(&version)
    ));
    if let Some(before) = before {
        say(format_args!("{before} bytes free"));
    }
    let aids = applications(&mut card, &version, key)?;
    if aids.is_empty() {
        say("There are no applications; formatting gives back the memory of deleted ones.");
    } else {
        say("Formatting deletes for good:");
    }
    for aid in &aids {
        say(format_args!(
            "  application {aid}   {}",
            content(&mut card, *aid)?
        ));
    }
    if !yes {
        return Err("nothing has been deleted; say --yes to delete all of this".into());
    }
    let mut session = authenticate(&mut card, &version, key)?;
    if let Err(error) = session.format_picc().run(&mut card) {
        let what = match error.outcome() {
            Fate::Unknown => {
                "it is not known whether the card has been formatted; look at it with the \
                 example inspect, or format it again, which does no harm"
            }
            Fate::Refused | Fate::NotSent => "nothing has been deleted",
        };
        return Err(error).context(what);
    }
    let afterwards = "the card has been formatted, but does not tell what is left";
    let left = session
        .get_application_ids()
        .run(&mut card)
        .context(afterwards)?;
    if !left.is_empty() {
        return Err(format!("the card still has {} applications", left.len()).into());
    }
    match before {
        Some(before) => {
            let after = session.free_mem().run(&mut card).context(afterwards)?;
            say(format_args!(
                "Formatted: {after} bytes free, {before} before."
            ));
        }
        None => say("Formatted."),
    }
    Ok(())
}

fn main() -> ExitCode {
    let (mut key, mut yes) = (None, false);
    let options = args::parse(HELP, |name, parser| {
        match name {
            "key" => key = Some(args::key(parser)?),
            "yes" => yes = true,
            _ => return Ok(false),
        }
        Ok(true)
    });
    let options = match options {
        Ok(options) => options,
        Err(code) => return code,
    };
    if key.is_none() {
        match args::key_from_environment("DESFIRE_KEY") {
            Ok(found) => key = found,
            Err(error) => return common::usage(error),
        }
    }
    let key = key.unwrap_or_else(|| Key::zero(KeyFamily::Des));
    common::exit(run(&options, &key, yes))
}
