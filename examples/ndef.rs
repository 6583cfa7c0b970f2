//! Writes an NDEF message to a card, and reads one as a phone does.
//!
//! `cargo run --example ndef`; `--help` tells the rest.

use std::process::ExitCode;

use desfire_ev1::command::IsoName;
use desfire_ev1::command::iso::{BinaryPlace, IsoTarget};
use desfire_ev1::error::ErrorKind;
use desfire_ev1::wire::{
    Access, AccessRights, Aid, CommMode, FileNo, IsoFileId, KeyFamily, KeyFlags, KeyInfo, KeyNo,
    KeySettings, StatusWord, U24, Version,
};
use desfire_ev1::{Key, Machine as _, Outcome as Fate, Session, Unauthenticated, VirtualReader};

mod common;

use common::args::{self, Options};
use common::card::{self, Card, Failure};
use common::ndef::{self, CapabilityContainer, Record};
use common::{Context as _, Outcome, demo, say, words};

const HELP: &str = "\
Writes an NDEF message (web addresses, texts) to a DESFire EV1, and reads it back by the
commands that a phone uses. The layout is that of NXP AN11004: an application named
D2760000850101 with a capability container E103 and an NDEF file E104.

Usage: cargo run --example ndef [-- OPTIONS]

Options:
  --uri URI           add a URI to the message
  --text TEXT         add a text to the message
  --lang CODE         the language of the texts; without it, en
  --create            make the application if the card has none; its memory comes back by
                      formatting only
  --aid HEX           its AID, if it is made; without it, 000001
  --size N            the size of its NDEF file, if it is made; without it, 256
  --key KEY           the PICC master key, if it is needed to make the application; without
                      it, des:zero
  --read              only read; so does --reader without a message
{common}

{keys}
  DESFIRE_KEY         in place of --key

A message that is on the card is shown before it is replaced. An application that is not
for NDEF is never touched. Everybody may read and write the message, as AN11004 has it, and
the application's own key stays zero until it is changed (example change-key).

Examples, in which ndef stands for cargo run --example ndef --
  ndef                                          makes a tag of the software card
  ndef --read                                   reads one that is a tag already
  ndef --uri https://example.org/               replaces its message
  ndef --create --uri tel:+41310000000 --text 'Call me' --lang en
  ndef --reader --create --uri https://example.org/
";

/// The most that READ BINARY brings and UPDATE BINARY takes on this card, whatever the capability
/// container says.
const READ: u16 = 59;
const WRITE: u16 = 55;

/// Offsets of READ BINARY have 15 bits.
const MAX_SIZE: u16 = 0x7FFF;

/// What the application costs beside its NDEF file, generously.
const OVERHEAD: u32 = 160;

fn cc_file() -> Outcome<FileNo> {
    Ok(FileNo::new(1)?)
}

fn ndef_file() -> Outcome<FileNo> {
    Ok(FileNo::new(2)?)
}

// What a phone does.

type Plain = Session<Unauthenticated>;

fn show(command: &str, what: &str) {
    say(format_args!("  {command:<26} {what}"));
}

/// Bytes that fit into a line; all of them are shown by `--trace`.
fn brief(bytes: &[u8]) -> String {
    match bytes.get(..16) {
        Some(first) if bytes.len() > 16 => {
            format!("{}… {} bytes", words::hex(first), bytes.len())
        }
        _ => words::hex(bytes),
    }
}

/// Selects the NDEF application by its name, if there is one.
fn select_application(card: &mut Card) -> Outcome<Option<Plain>> {
    let name = ndef::df_name()?;
    let digits = words::hex(name.as_bytes());
    match Session::new().iso_select(IsoTarget::Name(name)).run(card) {
        Ok(session) => {
            show(&format!("SELECT {digits}"), "the NDEF application");
            Ok(Some(session))
        }
        Err(error)
            if matches!(
                error.kind(),
                Some(ErrorKind::RefusedIso(StatusWord::NOT_FOUND))
            ) =>
        {
            show(&format!("SELECT {digits}"), "there is no NDEF application");
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

/// Selects a file of the application. P1 is `00`, as in the Type 4 Tag specification.
fn select_file(card: &mut Card, session: Plain, id: IsoFileId, what: &str) -> Outcome<Plain> {
    let session = session
        .iso_select(IsoTarget::FileId(id))
        .run(card)
        .context(format!("the card has no file {id}, {what}"))?;
    show(&format!("SELECT {id}"), what);
    Ok(session)
}

/// Reads from the selected file, in as many pieces as it takes.
fn read(card: &mut Card, session: &mut Plain, from: u16, len: u16, piece: u16) -> Outcome<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut offset = from;
    let end = from.checked_add(len).ok_or("the file is too long")?;
    while offset < end {
        let mut buffer = vec![0; usize::from(piece.clamp(1, READ).min(end - offset))];
        let place = BinaryPlace::Selected { offset };
        let part = session.iso_read_binary(place, &mut buffer).run(card)?;
        if part.is_empty() {
            return Err("the card answers READ BINARY with nothing".into());
        }
        show(&format!("READ BINARY at {offset}"), &brief(part));
        bytes.extend_from_slice(part);
        offset = offset.saturating_add(u16::try_from(part.len())?);
    }
    Ok(bytes)
}

fn write(card: &mut Card, session: &mut Plain, from: u16, bytes: &[u8], piece: u16) -> Outcome<()> {
    let mut offset = from;
    for part in bytes.chunks(usize::from(piece.clamp(1, WRITE))) {
        let place = BinaryPlace::Selected { offset };
        session.iso_update_binary(place, part).run(card)?;
        show(&format!("UPDATE BINARY at {offset}"), &brief(part));
        offset = offset.saturating_add(u16::try_from(part.len())?);
    }
    Ok(())
}

/// Selects and reads the capability container, then selects the NDEF file.
fn open_message(card: &mut Card, session: Plain) -> Outcome<(Plain, CapabilityContainer)> {
    let mut session = select_file(card, session, ndef::CC_ID, "the capability container")?;
    let bytes = read(card, &mut session, 0, ndef::CC_LEN, READ)?;
    let cc = CapabilityContainer::decode(&bytes)?;
    if !cc.free_to_read {
        return Err("the capability container says that the message may not be read".into());
    }
    let session = select_file(card, session, cc.file, "the NDEF file")?;
    Ok((session, cc))
}

/// Reads the length of the message in the selected NDEF file.
fn read_len(card: &mut Card, session: &mut Plain) -> Outcome<u16> {
    match *read(card, session, 0, ndef::NLEN, READ)? {
        [high, low] => Ok(u16::from_be_bytes([high, low])),
        _ => Err("the card reads other than two bytes".into()),
    }
}

/// Reads the message of the selected NDEF file.
fn read_message(
    card: &mut Card,
    session: &mut Plain,
    cc: &CapabilityContainer,
) -> Outcome<Vec<u8>> {
    let len = read_len(card, session)?;
    if len > cc.room() {
        let room = cc.room();
        return Err(format!(
            "the card says that its message has {len} bytes, and the file has room for {room}"
        )
        .into());
    }
    read(card, session, ndef::NLEN, len, cc.max_read)
}

/// Writes the message to the selected NDEF file: as the Type 4 Tag specification has it, the
/// length is zero until all of the message is there, so that nobody reads half of it.
fn write_message(
    card: &mut Card,
    session: &mut Plain,
    cc: &CapabilityContainer,
    message: &[u8],
) -> Outcome<()> {
    let piece = cc.max_write;
    let len = u16::try_from(message.len())?;
    let torn = "the message is only partly written; write it again";
    let steps: [(u16, &[u8], _, _); 3] = [
        (
            0,
            &[0; 2],
            "nothing has been written",
            "it is not known whether the old message is still there; write the new one again",
        ),
        (ndef::NLEN, message, torn, torn),
        (
            0,
            &len.to_be_bytes(),
            torn,
            "it is not known whether all of the message is there; write it again, or read it",
        ),
    ];
    for (offset, bytes, failed, unknown) in steps {
        if let Err(error) = write(card, session, offset, bytes, piece) {
            let failure = error.downcast_ref::<Failure>();
            let done = failure.map_or(Fate::Unknown, Failure::outcome);
            return Err(error).context(match done {
                Fate::Unknown => unknown,
                Fate::Refused | Fate::NotSent => failed,
            });
        }
    }
    Ok(())
}

fn check_room(cc: &CapabilityContainer, message: &[u8]) -> Outcome<()> {
    let room = cc.room();
    if message.len() > room.into() {
        let len = message.len();
        return Err(format!("the message has {len} bytes and the file room for {room}").into());
    }
    Ok(())
}

fn print_message(title: &str, message: &[u8]) -> Outcome<()> {
    say(format_args!("\n{title}, {} bytes", message.len()));
    if message.is_empty() {
        say("  empty");
    }
    for record in ndef::decode(message)? {
        say(format_args!("  {record}"));
    }
    Ok(())
}

// What makes a card a tag; native commands.

struct New {
    aid: Aid,
    size: u16,
    key: Key,
}

/// Makes the application, which must not be there.
fn create(card: &mut Card, version: &Version, new: &New) -> Outcome<()> {
    say(format_args!("\nMaking the NDEF application {}", new.aid));
    let mut session = card::select(card, Aid::PICC)?;
    let flags = match session.get_key_settings().run(card) {
        Ok((settings, _)) => settings.flags,
        Err(error) if error.status().is_some() => KeyFlags::empty(),
        Err(error) => return Err(error.into()),
    };
    if flags.contains(KeyFlags::FREE_LISTING | KeyFlags::FREE_CREATE_DELETE) {
        create_application(card, &mut session, new)?;
    } else {
        let mut session = card::proved(
            card::authenticate(card, session, version, KeyNo::MASTER, &new.key),
            "making an application needs the PICC master key, which this is not",
        )?;
        create_application(card, &mut session, new)?;
    }
    create_files(card, version, new).context(format!(
        "application {} is half made; format the card, or delete it, before it is tried again",
        new.aid
    ))
}

fn create_application<S>(card: &mut Card, session: &mut Session<S>, new: &New) -> Outcome<()> {
    let aids = session.get_application_ids().run(card)?;
    if aids.contains(&new.aid) {
        return Err(format!(
            "application {} exists and is not an NDEF application; it has not been touched; \
             --aid gives another AID",
            new.aid
        )
        .into());
    }
    let free = session.free_mem().run(card)?;
    let needed = u32::from(new.size) + OVERHEAD;
    if free < needed {
        return Err(format!("about {needed} bytes are needed and {free} free").into());
    }
    let name = IsoName {
        file_id: ndef::APPLICATION_ID,
        df_name: Some(ndef::df_name()?),
    };
    let keys = KeyInfo::new(KeyFamily::Aes, 1)?.with_iso_file_ids();
    session
        .create_application(new.aid, KeySettings::DEFAULT, keys, Some(name))
        .run(card)
        .context("the application cannot be made")?;
    let name = ndef::df_name()?;
    say(format_args!(
        "  application {}, ISO FID {}, DF name {}",
        new.aid,
        ndef::APPLICATION_ID,
        words::hex(name.as_bytes())
    ));
    Ok(())
}

fn create_files(card: &mut Card, version: &Version, new: &New) -> Outcome<()> {
    let master = Access::Key(KeyNo::MASTER);
    let read_only = AccessRights {
        read: Access::Free,
        write: master,
        read_write: master,
        change: master,
    };
    let free = AccessRights {
        read: Access::Free,
        write: Access::Free,
        read_write: Access::Free,
        change: master,
    };
    let zero = Key::zero(KeyFamily::Aes);
    let session = card::select(card, new.aid)?;
    let mut session = card::proved(
        card::authenticate(card, session, version, KeyNo::MASTER, &zero),
        "the new application's key is not zero; has the card another default key?",
    )?;
    let size = U24::new(new.size.into())?;
    session
        .create_std_data_file(
            ndef_file()?,
            Some(ndef::NDEF_ID),
            CommMode::Plain,
            free,
            size,
        )
        .run(card)?;
    say(format_args!(
        "  file 2, ISO FID {}: {size} bytes",
        ndef::NDEF_ID
    ));
    let cc = CapabilityContainer::new(new.size).encode();
    session
        .create_std_data_file(
            cc_file()?,
            Some(ndef::CC_ID),
            CommMode::Plain,
            read_only,
            U24::from_len(cc.len())?,
        )
        .run(card)?;
    session.write_data(cc_file()?, 0, &cc).run(card)?;
    say(format_args!(
        "  file 1, ISO FID {}: {}",
        ndef::CC_ID,
        words::hex(&cc)
    ));
    Ok(())
}

struct Wanted {
    records: Vec<Record>,
    create: bool,
    new: New,
}

fn run(options: &Options, wanted: &Wanted) -> Outcome<()> {
    let message = ndef::encode(&wanted.records)?;
    let mut opened = options.open(|| {
        if wanted.create {
            Ok(VirtualReader::demo())
        } else {
            demo::reader()
        }
    })?;
    let card = &mut opened;
    let version = card::version(card)?;
    say(format_args!(
        "{}, UID {}",
        words::card(&version),
        words::uid(&version)
    ));

    say("\nLooking for a message");
    let found = select_application(card)?;
    let session = match found {
        Some(session) => session,
        None if !wanted.create => {
            return Err("the card is no NDEF tag; --create makes it one".into());
        }
        None => {
            check_room(&CapabilityContainer::new(wanted.new.size), &message)?;
            create(card, &version, &wanted.new)?;
            say("\nLooking for it");
            select_application(card)?.ok_or("the new application is not found by its name")?
        }
    };
    let (mut session, cc) = open_message(card, session)?;
    if wanted.records.is_empty() {
        let message = read_message(card, &mut session, &cc)?;
        return print_message("The message", &message);
    }
    let len = read_len(card, &mut session)?;
    if len > cc.room() {
        say("\nWhat will be replaced is no message: it is longer than the file");
    } else if len > 0 {
        let old = read(card, &mut session, ndef::NLEN, len, cc.max_read)?;
        say(format_args!(
            "\nThis message will be replaced: {}",
            words::hex(&old)
        ));
    }
    if !cc.free_to_write {
        return Err("the capability container says that the message may not be written".into());
    }
    check_room(&cc, &message)?;
    say("\nWriting the message");
    write_message(card, &mut session, &cc, &message)?;

    say("\nReading it back as a phone does");
    let session = select_application(card)?.ok_or("the NDEF application is gone")?;
    let (mut session, cc) = open_message(card, session)?;
    let now = read_message(card, &mut session, &cc)?;
    if now != message {
        return Err("the card holds another message than was written".into());
    }
    print_message("The message", &now)
}

#[derive(Default)]
struct Given {
    uris_and_texts: Vec<(bool, String)>,
    language: Option<String>,
    create: bool,
    read: bool,
    aid: Option<Aid>,
    size: Option<u16>,
    key: Option<Key>,
    /// Any option of the example's own.
    any: bool,
}

impl Given {
    fn take(&mut self, name: &str, parser: &mut lexopt::Parser) -> Result<bool, lexopt::Error> {
        use lexopt::ValueExt as _;

        match name {
            "uri" => self.uris_and_texts.push((true, parser.value()?.string()?)),
            "text" => self.uris_and_texts.push((false, parser.value()?.string()?)),
            "lang" => self.language = Some(parser.value()?.string()?),
            "create" => self.create = true,
            "read" => self.read = true,
            "aid" => self.aid = Some(args::aid(parser)?),
            "size" => {
                let size = |text: &str| match text.parse() {
                    Ok(size @ 16..=MAX_SIZE) => Ok(size),
                    _ => Err(format!("it is 16 to {MAX_SIZE}")),
                };
                self.size = Some(parser.value()?.parse_with(size)?);
            }
            "key" => self.key = Some(args::key(parser)?),
            _ => return Ok(false),
        }
        self.any = true;
        Ok(true)
    }

    fn wanted(mut self, on_software_card: bool) -> Result<Wanted, String> {
        if self.key.is_none() {
            self.key = args::key_from_environment("DESFIRE_KEY")?;
        }
        if on_software_card && !self.any {
            self.create = true;
            self.uris_and_texts = vec![
                (true, "https://www.rust-lang.org/".to_owned()),
                (false, "A software card says hello.".to_owned()),
            ];
        }
        let message = !self.uris_and_texts.is_empty();
        if self.read && (message || self.create) {
            return Err("--read writes nothing and does not go with a message".to_owned());
        }
        if self.create && !message {
            return Err("--create needs a message: --uri or --text".to_owned());
        }
        if !self.create && (self.aid.is_some() || self.size.is_some()) {
            return Err("--aid and --size are for --create".to_owned());
        }
        if self.language.is_some() && !self.uris_and_texts.iter().any(|(uri, _)| !uri) {
            return Err("--lang is the language of a --text, and there is none".to_owned());
        }
        let language = self.language.unwrap_or_else(|| "en".to_owned());
        let record = |(uri, text)| {
            if uri {
                Record::Uri(text)
            } else {
                let language = language.clone();
                Record::Text { language, text }
            }
        };
        let aid = self.aid.map_or_else(|| Aid::new(ndef::AID), Ok);
        let aid = aid.map_err(|error| error.to_string())?;
        if aid.is_picc() {
            return Err("AID 000000 is the card itself".to_owned());
        }
        Ok(Wanted {
            records: self.uris_and_texts.into_iter().map(record).collect(),
            create: self.create,
            new: New {
                aid,
                size: self.size.unwrap_or(256),
                key: self.key.unwrap_or_else(|| Key::zero(KeyFamily::Des)),
            },
        })
    }
}

fn main() -> ExitCode {
    let mut given = Given::default();
    let options = match args::parse(HELP, |name, parser| given.take(name, parser)) {
        Ok(options) => options,
        Err(code) => return code,
    };
    match given.wanted(options.on_software_card()) {
        Ok(wanted) => common::exit(run(&options, &wanted)),
        Err(error) => common::usage(error),
    }
}
