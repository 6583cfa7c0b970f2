//! A whole tap: personalises a purse on a fresh card, then plays a purchase as a terminal would,
//! and shows every step in words and in bytes.
//!
//! `cargo run --example tap`; `--help` tells the rest.

use std::convert::Infallible;
use std::process::ExitCode;

use desfire_ev1::wire::{
    Access, AccessRights, Aid, Amount, CommMode, FileDetail, FileNo, FileSettings, KeyFamily,
    KeyFlags, KeyInfo, KeyNo, KeySettings, U24, Uid, ValueFlags,
};
use desfire_ev1::{Key, LinkFormat, Session, VirtualReader};
use rand_core::{TryCryptoRng, TryRng};

pub(crate) mod common;

use common::{AnyReader, Context as _, Desk, Outcome, args, say};

const HELP: &str = "\
Personalises a purse on a fresh DESFire EV1 and makes a purchase with it.

Usage: cargo run --example tap [-- OPTIONS]

Options:
  --async             run the commands over the async driver instead of the blocking one
  --native            native framing instead of wrapped APDUs (software card only)
  --random            nonces from the operating system; on the software card they are
                      otherwise fixed, so that every run shows the same bytes
  --repeat            fixed nonces on a reader too: for comparing bytes, and for nothing else
{common}

On a reader the card must be as delivered: the zero DES key as master key, and no
application 505253. The purse stays on it.

Each step is printed as: what it is for, the card's command, how its data are protected;
then the bytes to the card (>) and from it (<), and the result (=). So --trace adds nothing.
";

/// The layout of the purse, as the issuer and its terminals know it.
pub(crate) mod layout {
    use super::*;

    pub const BALANCE: i32 = 1000;
    pub const PRICE: i32 = 250;
    pub const RECORD_SIZE: u32 = 16;
    /// One more than can be read.
    pub const RECORDS: u32 = 6;

    pub struct Layout {
        pub aid: Aid,
        /// Changes everything else; stays with the issuer.
        pub master: KeyNo,
        /// Reads the log.
        pub reading: KeyNo,
        /// Debits and writes the log; the terminal's key.
        pub debiting: KeyNo,
        /// Credits; stays in the back office.
        pub crediting: KeyNo,
        pub value_file: FileNo,
        pub log_file: FileNo,
    }

    impl Layout {
        pub fn new() -> Outcome<Self> {
            Ok(Self {
                aid: Aid::new(0x50_5253)?,
                master: KeyNo::MASTER,
                reading: KeyNo::new(1)?,
                debiting: KeyNo::new(2)?,
                crediting: KeyNo::new(3)?,
                value_file: FileNo::new(1)?,
                log_file: FileNo::new(2)?,
            })
        }

        /// On a value file the Read right grants Debit too, so it is given to nobody: Write
        /// debits and reads, Read&Write also credits. Whoever only reads finds the balance in
        /// the log.
        pub fn value_rights(&self) -> AccessRights {
            AccessRights {
                read: Access::Never,
                write: self.debiting.into(),
                read_write: self.crediting.into(),
                change: self.master.into(),
            }
        }

        pub fn log_rights(&self) -> AccessRights {
            AccessRights {
                read: self.reading.into(),
                write: self.crediting.into(),
                read_write: self.debiting.into(),
                change: self.master.into(),
            }
        }

        /// What GetFileSettings would say: the terminal need not ask.
        pub fn settings(&self) -> Outcome<[(FileNo, FileSettings); 2]> {
            let comm = CommMode::Enciphered.into();
            let value = FileDetail::Value {
                lower: 0,
                upper: 100_000,
                limited_credit: 0,
                flags: ValueFlags::empty(),
            };
            let log = FileDetail::CyclicRecord {
                record_size: U24::new(RECORD_SIZE)?,
                max_records: U24::new(RECORDS)?,
                current_records: U24::ZERO,
            };
            let settings = |rights, detail| FileSettings {
                comm,
                rights,
                detail,
            };
            Ok([
                (self.value_file, settings(self.value_rights(), value)),
                (self.log_file, settings(self.log_rights(), log)),
            ])
        }
    }

    /// One line of the log, 16 bytes: number, amount, balance after it, terminal.
    pub fn record(number: u32, amount: i32, balance: i32, terminal: u32) -> [u8; 16] {
        let mut record = [0; 16];
        let fields = [
            number.to_le_bytes(),
            amount.to_le_bytes(),
            balance.to_le_bytes(),
            terminal.to_le_bytes(),
        ];
        for (to, from) in record.iter_mut().zip(fields.iter().flatten()) {
            *to = *from;
        }
        record
    }

    /// What such a line says.
    pub fn in_words(record: &[u8]) -> String {
        let (fields, _) = record.as_chunks::<4>();
        match fields {
            [number, amount, balance, terminal] => format!(
                "number {}, amount {}, balance {}, terminal {:X}",
                u32::from_le_bytes(*number),
                i32::from_le_bytes(*amount),
                i32::from_le_bytes(*balance),
                u32::from_le_bytes(*terminal),
            ),
            _ => "no line of the log".to_owned(),
        }
    }
}

use layout::Layout;

/// The keys of one card, made from the issuer's master keys and the card's UID (AN10922). In a
/// real system the master keys live in an HSM; here they are the example's.
pub(crate) fn card_key(key_no: KeyNo, uid: Uid, aid: Aid) -> Outcome<Key> {
    let masters = [
        b"purse master key",
        b"purse read key 1",
        b"purse debit key.",
        b"purse credit key",
    ];
    let master = masters
        .get(usize::from(key_no.number()))
        .ok_or("there is no such key")?;
    let mut input = uid.0.to_vec();
    input.extend(aid.to_bytes());
    input.push(key_no.number());
    Ok(Key::aes(**master).diversify(&input)?.with_version(1))
}

/// Nonces that repeat from run to run: good for looking at bytes and for nothing else.
pub(crate) struct Repeating(pub u64);

impl TryRng for Repeating {
    type Error = Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Infallible> {
        let [a, b, c, d, ..] = self.try_next_u64()?.to_le_bytes();
        Ok(u32::from_le_bytes([a, b, c, d]))
    }

    /// SplitMix64.
    fn try_next_u64(&mut self) -> Result<u64, Infallible> {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        Ok(z ^ (z >> 31))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Infallible> {
        for chunk in out.chunks_mut(8) {
            let bytes = self.try_next_u64()?.to_le_bytes();
            for (to, from) in chunk.iter_mut().zip(bytes) {
                *to = from;
            }
        }
        Ok(())
    }
}

impl TryCryptoRng for Repeating {}

pub(crate) fn personalise<R: TryCryptoRng>(
    desk: &mut Desk,
    layout: &Layout,
    rng: &mut R,
) -> Outcome<()> {
    let clear = "in clear";
    let maced = "reply MACed";
    let enciphered = "enciphered, reply MACed";
    let ok = |_: &()| "ok".to_owned();

    let picc_key = Key::zero(KeyFamily::Des);
    let mut session = desk.step(
        "authenticate to the card",
        "handshake",
        Session::new().authenticate_iso(KeyNo::MASTER, &picc_key, rng),
        |_| "authenticated with the PICC master key".to_owned(),
    )?;
    let uid = desk.step(
        "read the real UID",
        "reply enciphered",
        session.get_card_uid(),
        |uid| format!("UID {uid}"),
    )?;
    desk.step(
        "create the application",
        maced,
        session.create_application(
            layout.aid,
            KeySettings::DEFAULT,
            KeyInfo::new(KeyFamily::Aes, 4)?,
            None,
        ),
        ok,
    )?;
    let session = desk.step(
        "select it",
        clear,
        session.select_application(layout.aid),
        |_| format!("application {}", layout.aid),
    )?;
    let transport_key = Key::zero(KeyFamily::Aes);
    let mut session = desk.step(
        "authenticate with its zero key",
        "handshake",
        session.authenticate_aes(layout.master, &transport_key, rng),
        |_| "authenticated with key 0".to_owned(),
    )?;
    for (name, key_no) in [
        ("set the reading key", layout.reading),
        ("set the debiting key", layout.debiting),
        ("set the crediting key", layout.crediting),
    ] {
        let key = card_key(key_no, uid, layout.aid)?;
        desk.step(
            name,
            enciphered,
            session.change_key(key_no, &transport_key, &key),
            |()| format!("key {key_no}, version {}", key.version()),
        )?;
    }
    desk.step(
        "create the value file",
        maced,
        session.create_value_file(
            layout.value_file,
            CommMode::Enciphered,
            layout.value_rights(),
            0..=100_000,
            layout::BALANCE,
            ValueFlags::empty(),
        ),
        |()| format!("file {}: {}", layout.value_file, layout.value_rights()),
    )?;
    desk.step(
        "create the log",
        maced,
        session.create_cyclic_record_file(
            layout.log_file,
            None,
            CommMode::Enciphered,
            layout.log_rights(),
            U24::new(layout::RECORD_SIZE)?,
            U24::new(layout::RECORDS)?,
        ),
        |()| format!("file {}: {}", layout.log_file, layout.log_rights()),
    )?;
    let mut settings = KeySettings::DEFAULT;
    settings.flags -= KeyFlags::FREE_CREATE_DELETE;
    desk.step(
        "let only the master key create",
        enciphered,
        session.change_key_settings(settings),
        ok,
    )?;
    // Last, because it ends the session; and everything before it could be repeated. A card that was
    // torn before must not leave the house: whoever has it can do everything by the zero key.
    let key = card_key(layout.master, uid, layout.aid)?;
    desk.step(
        "set the master key",
        "enciphered, bare reply",
        session.change_key_in_use(&key),
        |_| format!("key 0, version {}; the session is over", key.version()),
    )?;
    Ok(())
}

/// What a terminal does when a card is held to it; it knows layout and debiting key.
pub(crate) fn purchase<R: TryCryptoRng>(
    desk: &mut Desk,
    layout: &Layout,
    uid: Uid,
    rng: &mut R,
) -> Outcome<(i32, i32, u32)> {
    let enciphered = "enciphered, reply MACed";
    let ok = |()| "pending until commit".to_owned();
    let session = desk.step(
        "select the purse",
        "in clear",
        Session::new().select_application(layout.aid),
        |_| format!("application {}", layout.aid),
    )?;
    let key = card_key(layout.debiting, uid, layout.aid)?;
    let mut session = desk.step(
        "authenticate",
        "handshake",
        session.authenticate_aes(layout.debiting, &key, rng),
        |session| format!("authenticated with key {}", session.key_in_use()),
    )?;
    for (file, settings) in layout.settings()? {
        session.assume_file_settings(file, &settings);
    }
    let before = desk.step(
        "read the balance",
        "reply enciphered",
        session.get_value(layout.value_file),
        |balance| format!("balance {balance}"),
    )?;
    let amount = Amount::new(layout::PRICE)?;
    desk.step(
        &format!("debit {amount}"),
        enciphered,
        session.debit(layout.value_file, amount),
        |()| ok(()),
    )?;
    let number = 1;
    let record = layout::record(number, -amount.get(), before - amount.get(), 0x7E12);
    desk.step(
        "write the log record",
        enciphered,
        session.write_record(layout.log_file, 0, &record),
        |()| ok(()),
    )?;
    desk.step(
        "commit both",
        "reply MACed",
        session.commit_transaction(),
        |()| "valid, both at once".to_owned(),
    )?;
    let after = desk.step(
        "read the balance back",
        "reply enciphered",
        session.get_value(layout.value_file),
        |balance| format!("balance {balance}"),
    )?;
    let mut buffer = [0; layout::RECORD_SIZE as usize];
    let machine = session.read_records(layout.log_file, 0, 1, layout::RECORD_SIZE, &mut buffer);
    let read = desk.step(
        "read the record back",
        "reply enciphered",
        machine,
        |record| layout::in_words(record),
    )?;
    if read != record {
        return Err("the card holds another record than was written".into());
    }
    Ok((before, after, number))
}

fn tap<R: TryCryptoRng>(mut desk: Desk, uid: Uid, mut rng: R) -> Outcome<()> {
    let layout = Layout::new()?;
    say("PERSONALISE a fresh DESFire EV1 8K\n");
    personalise(&mut desk, &layout, &mut rng)
        .context("the card is not personalised, or in part; it must be as delivered, see --help")?;
    desk.take_traffic();
    say(format_args!("\nPURCHASE for {}\n", layout::PRICE));
    let (before, after, record) = purchase(&mut desk, &layout, uid, &mut rng)?;
    let traffic = desk.take_traffic();
    say(format_args!(
        "\nThe purchase took {} exchanges, {} bytes to the card and {} from it.",
        traffic.exchanges, traffic.to_card, traffic.from_card
    ));
    if after != before - layout::PRICE {
        return Err(format!("the balance is {after}").into());
    }
    say(format_args!(
        "committed: {before} -> {after}, record {record} written"
    ));
    Ok(())
}

/// The card to tap with, its UID, and whether nonces may repeat.
fn open(options: &args::Options, native: bool) -> Outcome<(AnyReader, Uid)> {
    let mut reader = options.open_reader(|| {
        let reader = VirtualReader::default();
        Ok(if native {
            reader.with_format(LinkFormat::NATIVE)
        } else {
            reader
        })
    })?;
    // What the reader or GetVersion says of the UID is not proved; a card that lies about it has
    // other keys than the terminal then derives, and fails the handshake.
    let version = common::card::version(&mut reader)?;
    Ok((reader, version.uid))
}

fn main() -> ExitCode {
    let (mut asynchronous, mut native, mut random, mut repeat) = (false, false, false, false);
    let options = args::parse(HELP, |name, _| {
        match name {
            "async" => asynchronous = true,
            "native" => native = true,
            "random" => random = true,
            "repeat" => repeat = true,
            _ => return Ok(false),
        }
        Ok(true)
    });
    let options = match options {
        Ok(options) => options,
        Err(code) => return code,
    };
    if native && !options.on_software_card() {
        return common::usage("--native is for the software card");
    }
    if random && repeat {
        return common::usage("--random and --repeat say the opposite of each other");
    }
    random |= !options.on_software_card() && !repeat;
    common::exit(open(&options, native).and_then(|(reader, uid)| {
        let desk = Desk::new(reader, asynchronous);
        if random {
            tap(desk, uid, getrandom::SysRng)
        } else {
            tap(desk, uid, Repeating(1))
        }
    }))
}
