//! Changes a key of a card, and makes sure which key is in force afterwards.
//!
//! `cargo run --example change-key`; `--help` tells the rest.

use std::process::ExitCode;

use desfire_ev1::picc::Fault;
use desfire_ev1::wire::{
    Aid, ChangeKeyAccess, KeyFlags, KeyInfo, KeyNo, KeySettings, Status, Version,
};
use desfire_ev1::{Key, Machine as _, Outcome as Fate, RunError, VirtualReader};

mod common;

use common::args::{self, Options};
use common::card::{self, Card};
use common::{AnyReader, Context as _, Outcome, say, words};

const HELP: &str = "\
Changes a key of a DESFire and makes sure that the new one is in force. Whoever loses the
new key of a real card loses what it guards: write it down before.

Usage: cargo run --example change-key [-- OPTIONS]

Options:
  --aid HEX           the application; without it, 000000, the card itself
  --key-no N          the key to change, 0 to 13; without it, 0
  --new-key KEY       what it shall be
  --old-key KEY       what it is, if it is not the key that authenticates; without it, zero.
                      Its version is asked of the card
  --auth-key-no N     the key that authenticates; without it, the one that the key settings
                      ask for
  --auth-key KEY      what that one is; without it, zero
  --change-type       give the PICC master key another type than it has
  --probe             change nothing; tell which of old and new key is in force, with an
                      exit code of 1 if it is not the new one
  --cut before|after  software card only: it loses power right before, or right after, it
                      stores the new key, so that nobody knows what has happened
{common}

{keys}
  DESFIRE_KEY         in place of --auth-key
  DESFIRE_OLD_KEY     in place of --old-key
  DESFIRE_NEW_KEY     in place of --new-key

Examples, in which change-key stands for cargo run --example change-key --
  change-key                                    shows two changes on the software card
  change-key --new-key 2k3des:00102030405060708090A0B0C0D0E0F0:55
                                                the PICC master key, which is zero
  change-key --new-key aes:00112233445566778899AABBCCDDEEFF:01 --change-type
                                                the same, to AES
  change-key --aid 00DE16 --key-no 2 --new-key aes:00112233445566778899AABBCCDDEEFF:01
                                                key 2 of an application with zero keys
  change-key --aid 00DE16 --new-key aes:00112233445566778899AABBCCDDEEFF:01 --cut after
                                                what becomes of a change nobody confirmed
";

/// For a card that is gone when it should be asked which key is in force.
const ASKING: &str = "the card cannot be asked which key is in force; put it back and say \
                      --probe with the same keys";

/// When the software card loses power.
#[derive(Clone, Copy)]
enum Cut {
    Before,
    After,
}

/// A change as it was asked for.
struct Wanted {
    aid: Aid,
    key_no: KeyNo,
    new_key: Key,
    old_key: Option<Key>,
    auth_key_no: Option<KeyNo>,
    auth_key: Option<Key>,
    change_type: bool,
    probe: bool,
    cut: Option<Cut>,
}

/// A change as it will be made.
struct Plan<'a> {
    wanted: &'a Wanted,
    auth_key_no: KeyNo,
    auth_key: Key,
    /// What the key to be changed is now.
    old_key: Key,
}

impl Wanted {
    fn new(new_key: Key) -> Self {
        Self {
            aid: Aid::PICC,
            key_no: KeyNo::MASTER,
            new_key,
            old_key: None,
            auth_key_no: None,
            auth_key: None,
            change_type: false,
            probe: false,
            cut: None,
        }
    }

    /// `key 1 of application 00DE16`.
    fn name(&self) -> String {
        if self.aid.is_picc() {
            return "the PICC master key".to_owned();
        }
        format!("key {} of {}", self.key_no, words::place(self.aid))
    }

    /// Finds out what the level's settings demand. `version` is that of the key as it is.
    fn plan(
        &self,
        settings: Option<(KeySettings, KeyInfo)>,
        version: Option<u8>,
    ) -> Outcome<Plan<'_>> {
        if settings.is_some_and(|(_, info)| self.key_no.number() >= info.keys()) {
            return Err(format!("there is no {}", self.name()).into());
        }
        let asked_for = match settings {
            Some((settings, _)) => Some(self.who_may(settings)?),
            None => None,
        };
        // The sources do not agree on which key changes the key that changes all others: it, or
        // the master key.
        let doubtful = settings.is_some_and(|(settings, _)| {
            settings.change_key == ChangeKeyAccess::Key(self.key_no)
                && self.auth_key_no == Some(self.key_no)
        });
        let auth_key_no = match (self.auth_key_no, asked_for) {
            (Some(given), Some(asked_for)) if given != asked_for && !doubtful => {
                return Err(format!(
                    "{} is changed with key {asked_for}, not with key {given}; so say its key \
                     settings",
                    self.name()
                )
                .into());
            }
            (Some(given), _) => given,
            (None, asked_for) => asked_for.unwrap_or(KeyNo::MASTER),
        };
        let own = auth_key_no == self.key_no;
        if own && self.old_key.is_some() {
            return Err(format!(
                "{} is changed with itself: what it is now is said by --auth-key, not --old-key",
                self.name()
            )
            .into());
        }
        let family = match (settings, &self.auth_key) {
            (Some((_, info)), _) => info.family(),
            (None, Some(key)) => key.key_type().family(),
            (None, None) => self.new_key.key_type().family(),
        };
        let new_family = self.new_key.key_type().family();
        if new_family != family && !self.aid.is_picc() {
            return Err(format!(
                "the keys of {} are {family} for ever, and the new key is {new_family}",
                words::place(self.aid)
            )
            .into());
        }
        if new_family != family && !self.change_type && !self.probe {
            return Err(format!(
                "the PICC master key is {family} and the new one is {new_family}: from then on \
                 programs have to authenticate in another way; say --change-type if it shall be"
            )
            .into());
        }
        let zero = || Key::zero(family);
        let auth_key = self.auth_key.clone().unwrap_or_else(zero);
        let old_key = if own {
            auth_key.clone()
        } else {
            self.old_key.clone().unwrap_or_else(zero)
        };
        // The low bits of a DES key take part in the change and are its version, which the card
        // knows better than whoever wrote down the key.
        let old_key = match version {
            Some(version) if version != old_key.version() => old_key.with_version(version),
            _ => old_key,
        };
        Ok(Plan {
            wanted: self,
            auth_key_no,
            auth_key,
            old_key,
        })
    }

    /// Which key has to be authenticated.
    fn who_may(&self, settings: KeySettings) -> Outcome<KeyNo> {
        let frozen = || format!("{} is frozen for ever", self.name()).into();
        if self.key_no.is_master() {
            return if settings.flags.contains(KeyFlags::MASTER_KEY_CHANGEABLE) {
                Ok(KeyNo::MASTER)
            } else {
                Err(frozen())
            };
        }
        match settings.change_key {
            ChangeKeyAccess::MasterKey => Ok(KeyNo::MASTER),
            ChangeKeyAccess::Key(key) if key == self.key_no => Ok(KeyNo::MASTER),
            ChangeKeyAccess::Key(key) => Ok(key),
            ChangeKeyAccess::SameKey => Ok(self.key_no),
            ChangeKeyAccess::Frozen => Err(frozen()),
        }
    }
}

impl Plan<'_> {
    fn is_own(&self) -> bool {
        self.auth_key_no == self.wanted.key_no
    }

    fn explain(&self) {
        let (new, old) = (&self.wanted.new_key, &self.old_key);
        say(format_args!("{}", capital(&self.wanted.name())));
        say(format_args!(
            "  from  {}, version {:02X}\n  to    {}, version {:02X}",
            old.key_type(),
            old.version(),
            new.key_type(),
            new.version()
        ));
        if self.is_own() {
            say(
                "  It is the key that authenticates, so the change ends the session on both\n  \
                 sides, and the card confirms it with a bare 00 that anybody could send.",
            );
        } else {
            say(format_args!(
                "  Key {} authenticates. The session goes on, and the card's confirmation\n  \
                 carries a MAC.",
                self.auth_key_no
            ));
        }
    }

    /// Whether a key is the one in force.
    fn is_in_force(&self, card: &mut Card, version: &Version, key: &Key) -> Outcome<bool> {
        let session = card::select(card, self.wanted.aid)?;
        match card::authenticate(card, session, version, self.wanted.key_no, key) {
            Ok(_) => Ok(true),
            // The card says no, or answers with another key than this one.
            Err(RunError::Protocol(_)) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    /// Finds out which key is in force; it is an error if it is not the new one.
    fn probe(&self, card: &mut Card, version: &Version) -> Outcome<()> {
        let name = self.wanted.name();
        if self
            .is_in_force(card, version, &self.wanted.new_key)
            .context(ASKING)?
        {
            say(format_args!(
                "  The new key is in force: {name} has been changed."
            ));
            return Ok(());
        }
        if self
            .is_in_force(card, version, &self.old_key)
            .context(ASKING)?
        {
            say(format_args!(
                "  The old key is in force: {name} has not been changed."
            ));
            return Err("the key has not been changed; it can be tried again".into());
        }
        Err("neither the new key nor the old one is in force; was the old one right?".into())
    }

    fn carry_out(&self, card: &mut Card, version: &Version) -> Outcome<()> {
        let wanted = self.wanted;
        let session = card::select(card, wanted.aid)?;
        let mut session = card::proved(
            card::authenticate(card, session, version, self.auth_key_no, &self.auth_key),
            format_args!("--auth-key is not key {}", self.auth_key_no),
        )?;
        arrange(card, wanted.cut)?;
        let changed = if !self.is_own() {
            session
                .change_key(wanted.key_no, &self.old_key, &wanted.new_key)
                .run(card)
        } else if wanted.aid.is_picc() && wanted.change_type {
            let machine = session.change_picc_master_key_and_type(&wanted.new_key);
            machine.run(card).map(|_| ())
        } else {
            let machine = session.change_key_in_use(&wanted.new_key);
            machine.run(card).map(|_| ())
        };
        let Err(error) = changed else {
            say("  The card says that it is done.");
            return if self
                .is_in_force(card, version, &wanted.new_key)
                .context(ASKING)?
            {
                say("  The new key authenticates.");
                Ok(())
            } else {
                Err("but the new key does not authenticate".into())
            };
        };
        match error.outcome() {
            Fate::NotSent | Fate::Refused => {
                let mut what = "the key has not been changed".to_owned();
                if !self.is_own() && error.status() == Some(Status::IntegrityError) {
                    what += "; is --old-key right, to its last bit, and with its VERSION?";
                }
                Err(error).context(what)
            }
            Fate::Unknown => {
                say(format_args!("  {error}"));
                say("  Asking the card which key is in force.");
                card::activate_again(card, version).context(ASKING)?;
                self.probe(card, version)
            }
        }
    }
}

fn capital(text: &str) -> String {
    let mut rest = text.chars();
    rest.next().map_or(String::new(), |first| {
        first.to_uppercase().chain(rest).collect()
    })
}

/// Has the software card lose power at its next change.
fn arrange(card: &mut Card, cut: Option<Cut>) -> Outcome<()> {
    let Some(cut) = cut else {
        return Ok(());
    };
    match card.get_mut() {
        AnyReader::Software(reader) => {
            let next = reader.card().effects() + 1;
            reader.card_mut().arrange_fault(match cut {
                Cut::Before => Fault::CutBefore(next),
                Cut::After => Fault::CutAfter(next),
            });
            Ok(())
        }
        #[cfg(feature = "pcsc")]
        AnyReader::Pcsc(_) => Err("--cut is for the software card".into()),
    }
}

fn change(card: &mut Card, version: &Version, wanted: &Wanted) -> Outcome<()> {
    let mut session = card::select(card, wanted.aid)
        .context(format!("{} cannot be selected", words::place(wanted.aid)))?;
    let settings = match session.get_key_settings().run(card) {
        Ok(settings) => Some(settings),
        Err(error) if error.status().is_some() => {
            say("The key settings need a key; going by what the options say.");
            None
        }
        Err(error) => return Err(error.into()),
    };
    let key_version = match session.get_key_version(wanted.key_no).run(card) {
        Ok(version) => Some(version),
        Err(error) if error.status().is_some() => None,
        Err(error) => return Err(error.into()),
    };
    let plan = wanted.plan(settings, key_version)?;
    if wanted.probe {
        return plan.probe(card, version);
    }
    plan.explain();
    plan.carry_out(card, version)
}

fn run(options: &Options, changes: &[Wanted]) -> Outcome<()> {
    let mut card = options.open(|| Ok(VirtualReader::demo()))?;
    let version = card::version(&mut card)?;
    say(format_args!(
        "{}, UID {}",
        words::card(&version),
        words::uid(&version)
    ));
    for wanted in changes {
        say("");
        change(&mut card, &version, wanted)?;
    }
    Ok(())
}

/// For a run without `--new-key`: a key that another one changes, and one that changes itself.
fn demonstration() -> Outcome<Vec<Wanted>> {
    let new_key = |first| Key::aes([first; 16]).with_version(1);
    let mut other = Wanted::new(new_key(0x11));
    other.aid = VirtualReader::DEMO_AID;
    other.key_no = KeyNo::new(1)?;
    let mut own = Wanted::new(new_key(0x22));
    own.aid = VirtualReader::DEMO_AID;
    Ok(vec![other, own])
}

#[derive(Default)]
struct Given {
    aid: Option<Aid>,
    key_no: Option<KeyNo>,
    new_key: Option<Key>,
    old_key: Option<Key>,
    auth_key_no: Option<KeyNo>,
    auth_key: Option<Key>,
    change_type: bool,
    probe: bool,
    cut: Option<Cut>,
    /// Any option of the example's own.
    any: bool,
}

impl Given {
    fn take(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<bool, lexopt::Error> {
        use lexopt::ValueExt as _;

        match name {
            "aid" => self.aid = Some(args::aid(parser)?),
            "key-no" => self.key_no = Some(args::key_no(parser)?),
            "new-key" => self.new_key = Some(args::key(parser)?),
            "old-key" => self.old_key = Some(args::key(parser)?),
            "auth-key-no" => self.auth_key_no = Some(args::key_no(parser)?),
            "auth-key" => self.auth_key = Some(args::key(parser)?),
            "change-type" => self.change_type = true,
            "probe" => self.probe = true,
            "cut" => {
                let cut = |text: &str| match text {
                    "before" => Ok(Cut::Before),
                    "after" => Ok(Cut::After),
                    _ => Err("it is before or after"),
                };
                self.cut = Some(parser.value()?.parse_with(cut)?);
            }
            _ => return Ok(false),
        }
        self.any = true;
        Ok(true)
    }

    fn take_environment(&mut self) -> Result<(), String> {
        for (name, key) in [
            ("DESFIRE_KEY", &mut self.auth_key),
            ("DESFIRE_OLD_KEY", &mut self.old_key),
            ("DESFIRE_NEW_KEY", &mut self.new_key),
        ] {
            if key.is_none() {
                *key = args::key_from_environment(name)?;
            }
        }
        Ok(())
    }

    /// The changes that are asked for, or why the options do not go together.
    fn changes(self, on_software_card: bool) -> Result<Vec<Wanted>, String> {
        if self.new_key.is_none() && on_software_card && !self.any {
            return demonstration().map_err(|error| error.to_string());
        }
        let Some(new_key) = self.new_key else {
            return Err("--new-key is missing".to_owned());
        };
        let wanted = Wanted {
            aid: self.aid.unwrap_or(Aid::PICC),
            key_no: self.key_no.unwrap_or(KeyNo::MASTER),
            old_key: self.old_key,
            auth_key_no: self.auth_key_no,
            auth_key: self.auth_key,
            change_type: self.change_type,
            probe: self.probe,
            cut: self.cut,
            new_key,
        };
        if wanted.aid.is_picc() && !wanted.key_no.is_master() {
            return Err("the card itself has key 0 only; --aid names an application".to_owned());
        }
        if !wanted.aid.is_picc() && wanted.change_type {
            return Err("--change-type is for the PICC master key, not for --aid".to_owned());
        }
        if wanted.cut.is_some() && !on_software_card {
            return Err("--cut is for the software card".to_owned());
        }
        Ok(vec![wanted])
    }
}

fn main() -> ExitCode {
    let mut given = Given::default();
    let options = match args::parse(HELP, |name, parser| given.take(name, parser)) {
        Ok(options) => options,
        Err(code) => return code,
    };
    if let Err(error) = given.take_environment() {
        return common::usage(error);
    }
    match given.changes(options.on_software_card()) {
        Ok(changes) => common::exit(run(&options, &changes)),
        Err(error) => common::usage(error),
    }
}
