//! A door: is shown cards, and opens for those whose badge is genuine, valid today, good for this door,
//! and not reported lost. Without an argument it is shown a dozen software cards, some of which are up to
//! something.
//!
//! `cargo run --example door`; `--help` tells the rest.

use std::collections::BTreeSet;
use std::process::ExitCode;
use std::time::SystemTime;

use desfire_ev1::error::ErrorKind;
use desfire_ev1::picc::{Card, Fault};
use desfire_ev1::wire::{
    Access, AccessRights, Aid, CommMode, FileNo, KeyFamily, KeyFlags, KeyInfo, KeyNo, KeySettings,
    Status, U24, Uid,
};
use desfire_ev1::{
    Authenticated, CardMute, Faulty, Key, Link, LinkFormat, Machine as _, Passing, RunError,
    Session, Traced, Transport, VirtualReader,
};
use getrandom::SysRng;
use lexopt::ValueExt as _;

mod common;

use common::card::select;
#[cfg(feature = "pcsc")]
use common::note;
use common::{AnyReader, Context as _, Outcome, args, say};

const HELP: &str = "\
A door that opens for those who may come in.

Usage: cargo run --example door [-- OPTIONS]

Without an option it is shown a dozen software cards: badges that are good, expired, lost or for
another door, copies, forgeries, and cards that are taken away too early. It ends with an error
if it opens for one that it must not open for, or stays shut for one that is good.

Options:
  --door N            which door of the house it is, 0 to 63 (default 3)
  --lost N            with --reader: this badge has been reported lost; may be given several times
  --once              with --reader: one card, and then the end, with exit code 1 if the door stays
                      shut; otherwise card after card, until Ctrl-C or until the reader is gone
  --issue N           with --reader: make badge number N on the card
  --doors N[,N...]    with --issue: the doors it is good for (default: the one of --door)
  --days N            with --issue: how many days it is valid, from today on (default 365). A
                      day begins at midnight UTC
{common}

A badge is made on a card as delivered: the zero DES key as master key, and no application F50D00.
The application stays on it, and so does the zero DES key, by which whoever finds the card can
format it, but not make a badge of it. Make badges of cards that you have bought, at a place where
nobody listens: until a card has its first secret key, whoever listens gets all that follow.

The keys are the example's and known to everybody: do not lock anything away behind this door.
What no door of this kind notices is a card elsewhere, whose bytes somebody carries to and fro by
radio: EV1 has no command that tells how far away it is.

Examples, with a reader:
  cargo run --features pcsc --example door -- --reader --issue 4711 --doors 1,3
  cargo run --features pcsc --example door -- --reader --once
";

/// The application of the badge, as the house and its doors know it.
///
/// | key | who has it | what for |
/// |---|---|---|
/// | 0, of each card | the office | issues, changes and withdraws |
/// | 1, of all cards | every door | opens a session in which the card tells its UID, enciphered |
/// | 2, of each card | every door, by the key that all are made from | proves that the card is that one, and reads the badge |
///
/// Key 1 is for cards with a random ID, which show their UID to nobody else; so nobody can follow a
/// person about by the card. Whoever gets hold of it learns UIDs and opens nothing. Whoever gets hold of what
/// the keys 2 are made from can be any card: in a real house it is in no door but in a SAM or an HSM, see the
/// crate's module `split`.
struct House {
    aid: Aid,
    office: KeyNo,
    greeting: KeyNo,
    reading: KeyNo,
    badge: FileNo,
    office_master: Key,
    greeting_key: Key,
    reading_master: Key,
}

impl House {
    fn new(office: &[u8; 16], greeting: &[u8; 16], reading: &[u8; 16]) -> Outcome<Self> {
        Ok(Self {
            aid: Aid::new(0xF5_0D00)?,
            office: KeyNo::MASTER,
            greeting: KeyNo::new(1)?,
            reading: KeyNo::new(2)?,
            badge: FileNo::new(1)?,
            office_master: Key::aes(*office),
            greeting_key: Key::aes(*greeting).with_version(1),
            reading_master: Key::aes(*reading),
        })
    }

    fn ours() -> Outcome<Self> {
        Self::new(
            b"the office's key",
            b"key of greetings",
            b"key of all doors",
        )
    }

    /// Of the file with the badge.
    fn rights(&self) -> AccessRights {
        AccessRights {
            read: self.reading.into(),
            write: self.office.into(),
            read_write: Access::Never,
            change: self.office.into(),
        }
    }

    /// AN10922, of UID, AID and key number.
    fn key_of_card(&self, master: &Key, key_no: KeyNo, uid: Uid) -> Outcome<Key> {
        let mut input = uid.0.to_vec();
        input.extend(self.aid.to_bytes());
        input.push(key_no.number());
        Ok(master.diversify(&input)?.with_version(1))
    }
}

/// Days since 1970-01-01, UTC.
type Day = u32;

/// What a badge says. On the card, 32 bytes, numbers with their least byte first:
///
/// | at | |
/// |---|---|
/// | 0 | `01`, the kind of badge |
/// | 1 | zeros |
/// | 4 | number |
/// | 8 | first day |
/// | 12 | last day |
/// | 16 | doors, a bit each |
/// | 24 | zeros |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Badge {
    number: u32,
    first_day: Day,
    last_day: Day,
    doors: u64,
}

impl Badge {
    const LEN: u32 = 32;

    fn to_bytes(self) -> [u8; Self::LEN as usize] {
        let mut bytes = [0; Self::LEN as usize];
        let number = self.number.to_le_bytes();
        let days = [self.first_day.to_le_bytes(), self.last_day.to_le_bytes()];
        let fields = [1, 0, 0, 0]
            .into_iter()
            .chain(number)
            .chain(days.into_iter().flatten())
            .chain(self.doors.to_le_bytes());
        for (to, from) in bytes.iter_mut().zip(fields) {
            *to = from;
        }
        bytes
    }

    /// Nothing if it is of another kind, or no badge at all, as after an issue that broke off.
    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (words, []) = bytes.as_chunks::<4>() else {
            return None;
        };
        let words: Vec<u32> = words.iter().map(|word| u32::from_le_bytes(*word)).collect();
        let [1, number, first_day, last_day, low, high, 0, 0] = words[..] else {
            return None;
        };
        Some(Self {
            number,
            first_day,
            last_day,
            doors: u64::from(high) << 32 | u64::from(low),
        })
    }
}

/// Why a door stays shut.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("no badge of this house")]
    NoBadge,
    /// It does not know its keys, or somebody has meddled with what it says.
    #[error("not genuine")]
    NotGenuine(#[source] Box<dyn std::error::Error>),
    #[error("hold the card until the door opens")]
    TakenAway(#[source] Box<dyn std::error::Error>),
    #[error("the card cannot be read")]
    Unreadable(#[source] Box<dyn std::error::Error>),
    #[error("nothing that this door can read is written on the badge")]
    UnknownKind,
    #[error("badge {badge} has been reported lost")]
    Lost { badge: u32 },
    #[error("badge {badge} is not valid yet; days to wait: {in_days}")]
    TooEarly { badge: u32, in_days: Day },
    #[error("badge {badge} is not valid any more; days too late: {days_ago}")]
    Expired { badge: u32, days_ago: Day },
    #[error("badge {badge} is for other doors")]
    OtherDoors { badge: u32 },
    /// The door's own fault.
    #[error("the door is out of order")]
    OutOfOrder(#[source] Box<dyn std::error::Error>),
}

impl<E: std::error::Error + 'static> From<RunError<E>> for Refusal {
    fn from(error: RunError<E>) -> Self {
        let refusal = match error.kind() {
            None => Self::TakenAway,
            Some(ErrorKind::Authenticity(_) | ErrorKind::Refused(Status::AuthenticationError)) => {
                Self::NotGenuine
            }
            Some(ErrorKind::Misuse(_) | ErrorKind::Randomness) => Self::OutOfOrder,
            Some(_) => Self::Unreadable,
        };
        refusal(error.into())
    }
}

/// One door, which knows who may not come in any more.
struct Door<'h> {
    house: &'h House,
    /// Which one it is, as in [`Badge::doors`].
    bit: u64,
    lost: &'h BTreeSet<u32>,
}

impl Door<'_> {
    /// Whether to open for the card. There is no other way to a badge than over all checks: a card
    /// that is not genuine, is taken away, or says something unexpected keeps the door shut.
    fn judge<T>(&self, card: &mut T, today: Day) -> Result<Badge, Refusal>
    where
        T: Transport<Error: std::error::Error + 'static>,
    {
        let badge = self.read(card)?;
        let number = badge.number;
        if self.lost.contains(&number) {
            return Err(Refusal::Lost { badge: number });
        }
        if let Some(in_days @ 1..) = badge.first_day.checked_sub(today) {
            return Err(Refusal::TooEarly {
                badge: number,
                in_days,
            });
        }
        if let Some(days_ago @ 1..) = today.checked_sub(badge.last_day) {
            return Err(Refusal::Expired {
                badge: number,
                days_ago,
            });
        }
        if badge.doors & self.bit == 0 {
            return Err(Refusal::OtherDoors { badge: number });
        }
        Ok(badge)
    }

    /// What a genuine card says. Seven exchanges.
    fn read<T>(&self, card: &mut T) -> Result<Badge, Refusal>
    where
        T: Transport<Error: std::error::Error + 'static>,
    {
        let house = self.house;
        let session = match select(card, house.aid) {
            Err(error) if error.status() == Some(Status::ApplicationNotFound) => {
                return Err(Refusal::NoBadge);
            }
            selected => selected?,
        };
        let mut session = session
            .authenticate_aes(house.greeting, &house.greeting_key, &mut SysRng)
            .run(card)?;
        let uid = session.get_card_uid().run(card)?;
        let key = house.key_of_card(&house.reading_master, house.reading, uid);
        let key = key.map_err(Refusal::OutOfOrder)?;
        let mut session = session
            .authenticate_aes(house.reading, &key, &mut SysRng)
            .run(card)?;
        let mut bytes = [0; Badge::LEN as usize];
        // The mode is the house's, whatever the card may say of it; so it need not be asked.
        let badge = session
            .read_data(house.badge, 0..Badge::LEN, &mut bytes)
            .comm_mode(CommMode::Enciphered)
            .run(card)?;
        Badge::from_bytes(badge).ok_or(Refusal::UnknownKind)
    }
}

/// Makes a badge of a card as delivered. If it breaks off, the card has to be formatted (the package `issue`
/// shows how to go on instead). Until the card has the office's key, nothing is secret: whoever listens has
/// all keys that follow, and the maker of a card that is no DESFire has that one's. Nothing that the doors
/// could take for a badge must be possible without the office's key, at any time.
fn issue<T>(house: &House, card: &mut T, badge: Badge) -> Outcome<()>
where
    T: Transport<Error: std::error::Error + 'static>,
{
    let session = select(card, Aid::PICC)?
        .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut SysRng)
        .run(card);
    let mut session = explained(
        session,
        Status::AuthenticationError,
        "the card is not as delivered: its master key is not the zero DES key",
    )?;
    let uid = session.get_card_uid().run(card)?;
    // From the first moment on nobody lists or adds anything without the key 0.
    let mut settings = KeySettings::DEFAULT;
    settings.flags -= KeyFlags::FREE_CREATE_DELETE | KeyFlags::FREE_LISTING;
    let keys = KeyInfo::new(KeyFamily::Aes, 3)?;
    let created = session.create_application(house.aid, settings, keys, None);
    explained(
        created.run(card),
        Status::DuplicateError,
        "there is a badge on the card already, or a part of one: format it first",
    )?;
    let zero = Key::zero(KeyFamily::Aes);
    let session = session
        .select_application(house.aid)
        .run(card)?
        .authenticate_aes(house.office, &zero, &mut SysRng)
        .run(card)?;
    // The office's key next. If the issue breaks off, whoever has the card then could otherwise write a
    // badge by the zero key, and the doors would find it on a card that proves to be genuine.
    let office_key = house.key_of_card(&house.office_master, house.office, uid)?;
    let mut session = session
        .change_key_in_use(&office_key)
        .run(card)?
        .authenticate_aes(house.office, &office_key, &mut SysRng)
        .run(card)?;
    session
        .change_key(house.greeting, &zero, &house.greeting_key)
        .run(card)?;
    let reading_key = house.key_of_card(&house.reading_master, house.reading, uid)?;
    session
        .change_key(house.reading, &zero, &reading_key)
        .run(card)?;
    write_badge(house, card, &mut session, badge)
}

/// Says what one refusal means here.
fn explained<T, E>(done: Result<T, RunError<E>>, status: Status, meaning: &str) -> Outcome<T>
where
    E: std::error::Error + 'static,
{
    match done {
        Err(error) if error.status() == Some(status) => Err(error).context(meaning),
        done => Ok(done?),
    }
}

/// The last of its steps, in a session with the office's key.
fn write_badge<T>(
    house: &House,
    card: &mut T,
    session: &mut Session<Authenticated>,
    badge: Badge,
) -> Outcome<()>
where
    T: Transport<Error: std::error::Error + 'static>,
{
    let (rights, size) = (house.rights(), U24::new(Badge::LEN)?);
    session
        .create_std_data_file(house.badge, None, CommMode::Enciphered, rights, size)
        .run(card)?;
    session
        .write_data(house.badge, 0, &badge.to_bytes())
        .run(card)?;
    Ok(())
}

fn today() -> Outcome<Day> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let since = since.context("the clock is wrong: it is before 1970")?;
    Ok(Day::try_from(since.as_secs() / (24 * 60 * 60))?)
}

/// Says what the door does, and why, for whoever looks after it.
fn announce(verdict: &Result<Badge, Refusal>) {
    let refusal = match verdict {
        Ok(badge) => return say(format_args!("  OPEN  for badge {}", badge.number)),
        Err(refusal) => refusal,
    };
    say(format_args!("  shut  {refusal}"));
    if let Some(cause) = std::error::Error::source(refusal) {
        say(format_args!("        because: {cause}"));
    }
}

// -----------------------------------------------------------------------------------------------
// On a reader

/// One card.
fn once_at_reader(door: &Door<'_>, options: &args::Options) -> Outcome<()> {
    let mut card = options.open(no_software_card)?;
    let verdict = today()
        .map_err(Refusal::OutOfOrder)
        .and_then(|today| door.judge(&mut card, today));
    announce(&verdict);
    verdict.map(drop).context("the door stays shut")
}

/// Card after card, until the reader or its service has gone. Whatever a card does, the door goes on.
#[cfg(feature = "pcsc")]
fn at_reader(door: &Door<'_>, options: &args::Options) -> Outcome<()> {
    use desfire_ev1::pcsc::{PcscContext, PcscError as E};
    use std::time::Duration;

    const LOOK: Duration = Duration::from_millis(200);
    let context = PcscContext::new()?;
    note("The door is on duty; Ctrl-C ends it.");
    let mut said = None;
    loop {
        let card = match context.wait_for_card(options.reader_name(), LOOK) {
            Ok(card) => card,
            Err(E::NoCard { .. }) => {
                said = None;
                continue;
            }
            Err(
                error @ (E::NoService
                | E::NotAllowed
                | E::NoReader { .. }
                | E::NoSuchReader { .. }
                | E::ReaderGone),
            ) => return Err(error.into()),
            Err(error) => {
                // It is found again and again, as long as it lies there.
                if said.as_ref() != Some(&error) {
                    say(format_args!("  shut  {error}"));
                }
                said = Some(error);
                std::thread::sleep(LOOK);
                continue;
            }
        };
        said = None;
        let mut card = options.watch(AnyReader::Pcsc(Box::new(card)));
        let verdict = today()
            .map_err(Refusal::OutOfOrder)
            .and_then(|today| door.judge(&mut card, today));
        announce(&verdict);
        // It is judged once, until the reader loses it.
        while let AnyReader::Pcsc(card) = card.get_mut()
            && card.keep_alive().is_ok()
        {
            std::thread::sleep(LOOK);
        }
    }
}

/// Says how to get at readers.
#[cfg(not(feature = "pcsc"))]
fn at_reader(_: &Door<'_>, options: &args::Options) -> Outcome<()> {
    options.open(no_software_card).map(drop)
}

fn no_software_card() -> Outcome<VirtualReader> {
    Err("there is no reader".into())
}

// -----------------------------------------------------------------------------------------------
// With software cards

/// Somebody at the door.
struct Visitor {
    name: &'static str,
    card: VirtualReader,
    /// What is done to the bytes under way.
    meddle: fn(Passing<'_>),
    /// The badge's number, or why the door stays shut.
    expected: Result<u32, &'static str>,
}

/// Answers with what another card has said.
struct Replayed(std::vec::IntoIter<Vec<u8>>);

impl Link for Replayed {
    type Error = CardMute;

    fn format(&self) -> LinkFormat {
        LinkFormat::WRAPPED
    }
}

impl Transport for Replayed {
    fn exchange(&mut self, _: &[u8], reply: &mut [u8]) -> Result<usize, CardMute> {
        let said = self.0.next().unwrap_or_default();
        let room = reply.get_mut(..said.len()).ok_or(CardMute)?;
        room.copy_from_slice(&said);
        Ok(said.len())
    }
}

/// A software card with a badge.
fn issued(house: &House, uid: u8, badge: Badge) -> Outcome<VirtualReader> {
    let uid = Uid([0x04, 0x71, 0x2A, uid, 0x5C, 0x3B, 0x80]);
    let seed = badge.to_bytes().first_chunk().copied();
    let card = Card::builder().uid(uid).seed(seed.unwrap_or_default());
    let mut reader = VirtualReader::new(card.build());
    issue(house, &mut reader, badge)?;
    Ok(reader)
}

const fn good_badge(number: u32, doors: u64, today: Day) -> Badge {
    Badge {
        number,
        first_day: today,
        last_day: today,
        doors,
    }
}

fn visitors(house: &House, door: u64, today: Day) -> Outcome<Vec<Visitor>> {
    let good = |number| good_badge(number, door, today);
    let mut visitors = Vec::new();
    let mut comes = |name, card: VirtualReader, expected| {
        visitors.push(Visitor {
            name,
            card,
            meddle: |_| (),
            expected,
        });
    };
    comes("Ada", issued(house, 1, good(4711))?, Ok(4711));

    let mut hidden = issued(house, 2, good(4712))?;
    let mut session = select(&mut hidden, Aid::PICC)?
        .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut SysRng)
        .run(&mut hidden)?;
    session.enable_random_id_for_ever().run(&mut hidden)?;
    hidden.card_mut().activate();
    comes("Ben, whose card hides its UID", hidden, Ok(4712));

    let others = Badge {
        doors: !door,
        ..good(4713)
    };
    let shut = Err("badge 4713 is for other doors");
    comes(
        "Cem, for all doors but this",
        issued(house, 3, others)?,
        shut,
    );
    let expired = Badge {
        first_day: 0,
        last_day: today.saturating_sub(1),
        ..good(4714)
    };
    let shut = Err("badge 4714 is not valid any more; days too late: 1");
    comes("Dora, until yesterday", issued(house, 4, expired)?, shut);
    let early = Badge {
        first_day: today.saturating_add(2),
        last_day: Day::MAX,
        ..good(4715)
    };
    let shut = Err("badge 4715 is not valid yet; days to wait: 2");
    comes(
        "Eli, from the day after tomorrow",
        issued(house, 5, early)?,
        shut,
    );
    let shut = Err("badge 4716 has been reported lost");
    comes(
        "a finder, with Fay's badge",
        issued(house, 6, good(4716))?,
        shut,
    );
    let shut = Err("no badge of this house");
    comes("a guest, with a purse", VirtualReader::demo(), shut);

    // What a thief can know: all that Ada's card tells, and the key that all doors have.
    let thief = House::new(
        b"the thief's key.",
        b"key of greetings",
        b"a guess at a key",
    )?;
    let copy = issued(&thief, 1, good(4711))?;
    comes("a copy of Ada's, with its UID", copy, Err("not genuine"));
    let strange = House::new(&[0; 16], &[0; 16], &[0; 16])?;
    let copy = issued(&strange, 1, good(4711))?;
    comes("a copy without any key", copy, Err("not genuine"));

    let mut card = issued(house, 7, good(4717))?;
    let before = card.card().commands();
    card.card_mut().arrange_fault(Fault::LoseReply(before + 6));
    let shut = Err("hold the card until the door opens");
    comes("Gil, who is in a hurry", card, shut);

    let closed = Badge {
        doors: 0,
        ..good(4719)
    };
    visitors.push(Visitor {
        name: "Hal, who flips a bit on the air",
        card: issued(house, 9, closed)?,
        // In CBC this sets the bit of door 3 in the block behind, at the price of the block itself. The CRC
        // notices; else the kind of badge would.
        meddle: |passing| {
            if let Passing::Reply {
                exchange: 7, bytes, ..
            } = passing
                && let Some(byte) = bytes.first_mut()
            {
                *byte ^= 0x08;
            }
        },
        expected: Err("not genuine"),
    });
    Ok(visitors)
}

/// Cards whose issue broke off, at each of its steps: as they are, and after a thief has tried to go on.
/// Returns at how many.
fn unfinished(door: &Door<'_>, badge: Badge) -> Outcome<u64> {
    for step in 1.. {
        let mut card = Card::new(Uid([0x04, 8, 8, 8, 8, 8, 8]));
        card.arrange_fault(Fault::CutBefore(card.effects() + step));
        let mut card = VirtualReader::new(card);
        if issue(door.house, &mut card, badge).is_ok() {
            return Ok(step - 1);
        }
        card.card_mut().activate();
        let as_it_is = door.judge(&mut card, badge.first_day);
        forge(door.house, &mut card, badge);
        let forged = door.judge(&mut card, badge.first_day);
        if as_it_is.is_ok() || forged.is_ok() {
            return Err(format!("the door opens for a card that was cut at step {step}").into());
        }
    }
    Err("an issue has no end".into())
}

/// Writes a badge without the office's key: without any, and with that of delivery. Whatever the card says.
fn forge(house: &House, card: &mut VirtualReader, badge: Badge) {
    let content = badge.to_bytes();
    if let Ok(mut session) = select(card, house.aid)
        && let Ok(size) = U24::new(Badge::LEN)
    {
        // A file of the thief's, with a right that the office would not give.
        let rights = AccessRights {
            write: Access::Free,
            ..house.rights()
        };
        let (file, mode) = (house.badge, CommMode::Enciphered);
        let created = session.create_std_data_file(file, None, mode, rights, size);
        let _ = created.run(card);
        let written = session.write_data(file, 0, &content);
        let _ = written.comm_mode(CommMode::Plain).run(card);
    }
    let zero = Key::zero(KeyFamily::Aes);
    if let Ok(session) = select(card, house.aid)
        && let handshake = session.authenticate_aes(house.office, &zero, &mut SysRng)
        && let Ok(mut session) = handshake.run(card)
    {
        let _ = write_badge(house, card, &mut session, badge);
    }
}

/// Shows the door all of them; tells whether it did right each time.
fn demonstration(house: &House, number: u8, options: &args::Options) -> Outcome<()> {
    let today = today()?;
    let door = Door {
        house,
        bit: 1 << number,
        lost: &BTreeSet::from([4716]),
    };
    say(format_args!("Door {number}\n"));
    let (mut wrong, mut opened, mut shut) = (Vec::new(), 0_u32, 0_u32);
    let mut judge = |name: &'static str, verdict: Result<Badge, Refusal>, expected| {
        say(format_args!("{name}"));
        announce(&verdict);
        let right = match (&verdict, expected) {
            (Ok(badge), Ok(number)) => badge.number == number,
            (Err(refusal), Err(text)) => refusal.to_string() == text,
            _ => false,
        };
        match verdict {
            Ok(_) => opened += 1,
            Err(_) => shut += 1,
        }
        if !right {
            wrong.push(name);
        }
    };
    let mut first = None;
    let visitors =
        visitors(house, door.bit, today).context("the demonstration cards cannot be made")?;
    for visitor in visitors {
        let mut said = Vec::new();
        let (mut there, mut back) = (0, 0);
        let card = options.watch(AnyReader::Software(Box::new(visitor.card)));
        let mut card = Traced::new(
            Faulty::new(card, visitor.meddle),
            |command: &[u8], reply: &[u8]| {
                there += command.len();
                back += reply.len();
                said.push(reply.to_vec());
            },
        );
        let verdict = door.judge(&mut card, today);
        drop(card);
        judge(visitor.name, verdict, visitor.expected);
        first.get_or_insert((said, there, back));
    }
    let (said, there, back) = first.ok_or("nobody has come")?;
    let exchanges = said.len();
    let replayed = door.judge(&mut Replayed(said.into_iter()), today);
    judge("a recording of Ada's card", replayed, Err("not genuine"));
    let steps = unfinished(&door, good_badge(4718, door.bit, today))?;
    say(format_args!(
        "a card whose issue broke off, at each of {steps} steps, then in the hands of a thief\n  shut  every time"
    ));
    say(format_args!(
        "\nFor Ada: {exchanges} exchanges, {there} bytes to the card and {back} from it."
    ));
    if !wrong.is_empty() {
        return Err(format!("the door did wrong: {}", wrong.join("; ")).into());
    }
    say(format_args!(
        "door {number}: opened {opened} times, stayed shut {shut} times, each time rightly"
    ));
    Ok(())
}

fn door_number(text: &str) -> Result<u8, &'static str> {
    let number = text.parse().ok().filter(|number| *number < 64);
    number.ok_or("a door is a number from 0 to 63")
}

fn number_of_days(text: &str) -> Result<Day, &'static str> {
    let days = text.parse().ok().filter(|days| *days > 0);
    days.ok_or("days are a number, 1 or more")
}

fn main() -> ExitCode {
    let (mut number, mut once, mut lost) = (3, false, BTreeSet::new());
    let (mut badge, mut doors, mut days) = (None, None, None);
    let options = args::parse(HELP, |name, parser| {
        match name {
            "door" => number = parser.value()?.parse_with(door_number)?,
            "lost" => {
                lost.insert(parser.value()?.parse()?);
            }
            "once" => once = true,
            "issue" => badge = Some(parser.value()?.parse()?),
            "days" => days = Some(parser.value()?.parse_with(number_of_days)?),
            "doors" => {
                let list = parser.value()?.string()?;
                let mut bits = 0;
                for one in list.split(',') {
                    bits |= 1 << door_number(one)?;
                }
                doors = Some(bits);
            }
            _ => return Ok(false),
        }
        Ok(true)
    });
    let options = match options {
        Ok(options) => options,
        Err(code) => return code,
    };
    if options.on_software_card() && (once || badge.is_some() || !lost.is_empty()) {
        return common::usage("--once, --issue and --lost are for a reader");
    }
    if badge.is_some() && (once || !lost.is_empty()) {
        return common::usage("--issue makes a badge; --once and --lost are for a door");
    }
    if badge.is_none() && (doors.is_some() || days.is_some()) {
        return common::usage("--doors and --days are for --issue");
    }
    common::exit(House::ours().and_then(|house| {
        let door = Door {
            house: &house,
            bit: 1 << number,
            lost: &lost,
        };
        match badge {
            _ if options.on_software_card() => demonstration(&house, number, &options),
            None if once => once_at_reader(&door, &options),
            None => at_reader(&door, &options),
            Some(number) => {
                let first_day = today()?;
                let days = days.unwrap_or(365);
                let badge = Badge {
                    number,
                    first_day,
                    last_day: first_day.saturating_add(days - 1),
                    doors: doors.unwrap_or(door.bit),
                };
                issue(&house, &mut options.open(no_software_card)?, badge)?;
                say(format_args!("badge {number} is made; days: {days}"));
                Ok(())
            }
        }
    }))
}
