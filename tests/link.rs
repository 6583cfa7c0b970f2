//! What jobs cost on the link: exchanges and bytes, against the least that the protocol allows.
//!
//! ```console
//! $ cargo test --test link -- --nocapture     # prints the README's table
//! ```
//!
//! The least is worked out here from the protocol and from nothing of the library: for each command its
//! clear parameters, its data, what protects them, and how many bytes a frame takes. Library and software
//! card then do the job over a transport that counts, and must come to the same exchanges and bytes.
//!
//! | | bytes | source |
//! |---|---|---|
//! | frame to the card | 60: `INS` and 59, or `90 INS 00 00 Lc`, 54 and `00` | NXP forum; libfreefare |
//! | frame from the card | status and 59; 48 in an AES session, 56 in a DES-family one | libfreefare issue 8; recordings of desox, libfreefare-Java |
//! | MAC | 8 | libfreefare |
//! | enciphered | data and CRC32, filled up to blocks | libfreefare |
//!
//! Time on air, by ISO/IEC 14443: each frame is one block of part 4, which adds PCB (1 byte) and CRC (2).
//! By part 3, type A, a byte is 9 bits with its parity, and start and end of a frame are 1 bit each. A bit
//! takes 128/fc at 106 kbit/s, fc = 13.56 MHz, and half, a quarter, an eighth of it at the others. The
//! card answers 1236/fc after the reader at the earliest (n = 9), and the reader goes on 1172/fc after the
//! card. So an exchange of `c` bytes there and `r` back takes
//! `((9 * (c + r + 6) + 4) * 128 / D + 2408) / fc`. What the card computes and writes comes on top.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

use desfire_ev1::wire::{
    Access, AccessRights, Aid, Amount, CommMode, FileDetail, FileNo, FileSettings, Framing,
    KeyFamily, KeyFlags, KeyInfo, KeyNo, KeySettings, U24, ValueFlags,
};
use desfire_ev1::{
    Authenticated, Key, Link, LinkFormat, Machine as _, Session, Transport, Unauthenticated,
    VirtualReader,
};

/// How the bytes of one direction are protected.
#[derive(Clone, Copy)]
enum Guard {
    Bare,
    Mac,
    Enciphered,
}

/// Who is authenticated while a command runs.
#[derive(Clone, Copy)]
enum Auth {
    Nobody,
    Des,
    Aes,
}

impl Auth {
    /// Bytes of a block.
    const fn block(self) -> usize {
        match self {
            Self::Nobody => 1,
            Self::Des => 8,
            Self::Aes => 16,
        }
    }

    /// Bytes that the card puts into a frame.
    const fn chunk(self) -> usize {
        match self {
            Self::Nobody => 59,
            Self::Des => 56,
            Self::Aes => 48,
        }
    }
}

/// One command as the protocol has it.
#[derive(Clone, Copy)]
struct Op {
    auth: Auth,
    clear: usize,
    data: usize,
    request: Guard,
    back: usize,
    reply: Guard,
    /// Frames of a reply that are cut by a rule of their own.
    frames: &'static [usize],
}

const fn op(auth: Auth, clear: usize, back: usize) -> Op {
    let reply = match auth {
        Auth::Nobody => Guard::Bare,
        _ => Guard::Mac,
    };
    Op {
        auth,
        clear,
        data: 0,
        request: Guard::Bare,
        back,
        reply,
        frames: &[],
    }
}

impl Op {
    const fn sending(mut self, data: usize, request: Guard) -> Self {
        self.data = data;
        self.request = request;
        self
    }

    const fn replying(mut self, reply: Guard) -> Self {
        self.reply = reply;
        self
    }

    const fn in_frames(mut self, frames: &'static [usize]) -> Self {
        self.frames = frames;
        self
    }

    fn protected(self, guard: Guard, len: usize) -> usize {
        match guard {
            Guard::Bare => len,
            Guard::Mac => len + 8,
            Guard::Enciphered => (len + 4).next_multiple_of(self.auth.block()),
        }
    }

    /// Payloads of the frames to the card, and from it.
    fn frames(self) -> (Vec<usize>, Vec<usize>) {
        let (sent, received) = (
            self.clear + self.protected(self.request, self.data),
            self.protected(self.reply, self.back),
        );
        let received = if self.frames.is_empty() {
            cut(received, self.auth.chunk())
        } else {
            self.frames.to_vec()
        };
        (vec![sent], received)
    }
}

fn cut(len: usize, most: usize) -> Vec<usize> {
    let full = vec![most; len / most];
    let rest = len % most;
    let last = (rest > 0 || len == 0).then_some(rest);
    full.into_iter().chain(last).collect()
}

/// The two frames of a handshake with nonces of so many bytes.
fn handshake(nonce: usize) -> [Op; 2] {
    [
        op(Auth::Nobody, 1, nonce),
        op(Auth::Nobody, 2 * nonce, nonce),
    ]
}

/// Exchanges, and command and reply bytes of each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Traffic(Vec<(usize, usize)>);

impl Traffic {
    /// The least for these commands.
    fn least(framing: Framing, ops: &[Op]) -> Self {
        let (capacity, status) = match framing {
            Framing::Native => (59, 1),
            Framing::Wrapped => (54, 2),
        };
        let command = |len: usize| match (framing, len) {
            (Framing::Native, len) => 1 + len,
            (Framing::Wrapped, 0) => 5,
            (Framing::Wrapped, len) => 6 + len,
        };
        let mut traffic = Vec::new();
        for op in ops {
            let (sent, received) = op.frames();
            let sent = cut(sent[0], capacity);
            // Every frame but the last is answered by a status; what asks for more is a command alone.
            for len in &sent[..sent.len() - 1] {
                traffic.push((command(*len), status));
            }
            let mut asking = command(sent[sent.len() - 1]);
            for len in received {
                traffic.push((asking, len + status));
                asking = command(0);
            }
        }
        Self(traffic)
    }

    fn sums(&self) -> (usize, usize, usize) {
        let there = self.0.iter().map(|(there, _)| there).sum();
        let back = self.0.iter().map(|(_, back)| back).sum();
        (self.0.len(), there, back)
    }

    /// Milliseconds at `106 * faster` kbit/s.
    fn milliseconds(&self, faster: f64) -> f64 {
        let (exchanges, there, back) = self.sums();
        let bits = 9.0 * (there + back + 6 * exchanges) as f64 + 4.0 * exchanges as f64;
        let cycles = bits * 128.0 / faster + 2408.0 * exchanges as f64;
        cycles / 13_560.0
    }
}

/// A card on a transport that counts.
struct Counting {
    reader: VirtualReader,
    traffic: Traffic,
}

impl Counting {
    /// With a card in delivery state.
    fn new(format: LinkFormat) -> Self {
        Self {
            reader: VirtualReader::default().with_format(format),
            traffic: Traffic::default(),
        }
    }

    fn take(&mut self) -> Traffic {
        std::mem::take(&mut self.traffic)
    }
}

impl Link for Counting {
    type Error = <VirtualReader as Link>::Error;

    fn format(&self) -> LinkFormat {
        self.reader.format()
    }
}

impl Transport for Counting {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        // One block of ISO/IEC 14443-4 with a frame size of 64: PCB and CRC have to fit as well.
        assert!(command.len() <= 60);
        let len = Transport::exchange(&mut self.reader, command, reply)?;
        self.traffic.0.push((command.len(), len));
        Ok(len)
    }
}

const AID: Aid = Aid::from_bytes([0x53, 0x52, 0x50]);
const SIZE: usize = 4096;

fn file(number: u8) -> FileNo {
    FileNo::new(number).unwrap()
}

fn key_no(number: u8) -> KeyNo {
    KeyNo::new(number).unwrap()
}

fn size(size: u32) -> U24 {
    U24::new(size).unwrap()
}

/// Key 2 uses the files, key 0 changes them.
fn rights() -> AccessRights {
    AccessRights {
        read: key_no(1).into(),
        write: Access::Never,
        read_write: key_no(2).into(),
        change: KeyNo::MASTER.into(),
    }
}

fn key(number: u8) -> Key {
    Key::aes([0x40 + number; 16])
}

fn authenticated(card: &mut Counting, number: u8) -> Session<Authenticated> {
    let session = Session::new().select_application(AID).run(card).unwrap();
    let mut rng = getrandom::SysRng;
    session
        .authenticate_aes(key_no(number), &key(number), &mut rng)
        .run(card)
        .unwrap()
}

/// An application with four AES keys, a purse and a log, from a card in delivery state.
fn personalise(card: &mut Counting) {
    let mut rng = getrandom::SysRng;
    let mut session = Session::new()
        .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut rng)
        .run(card)
        .unwrap();
    session.get_card_uid().run(card).unwrap();
    let info = KeyInfo::new(KeyFamily::Aes, 4).unwrap();
    session
        .create_application(AID, KeySettings::DEFAULT, info, None)
        .run(card)
        .unwrap();
    let session = session.select_application(AID).run(card).unwrap();
    let zero = Key::zero(KeyFamily::Aes);
    let mut session = session
        .authenticate_aes(KeyNo::MASTER, &zero, &mut rng)
        .run(card)
        .unwrap();
    for number in 1..4 {
        session
            .change_key(key_no(number), &zero, &key(number))
            .run(card)
            .unwrap();
    }
    session
        .create_value_file(
            file(1),
            CommMode::Enciphered,
            rights(),
            0..=100_000,
            1000,
            ValueFlags::empty(),
        )
        .run(card)
        .unwrap();
    session
        .create_cyclic_record_file(
            file(2),
            None,
            CommMode::Enciphered,
            rights(),
            size(16),
            size(6),
        )
        .run(card)
        .unwrap();
    let mut settings = KeySettings::DEFAULT;
    settings.flags -= KeyFlags::FREE_CREATE_DELETE;
    session.change_key_settings(settings).run(card).unwrap();
    session.change_key_in_use(&key(0)).run(card).unwrap();
}

fn personalise_least() -> Vec<Op> {
    let change_key = op(Auth::Aes, 1, 0);
    // ChangeKey of another key: key, version, two CRCs.
    let other = change_key.sending(16 + 1 + 4, Guard::Enciphered);
    [
        &handshake(8)[..],
        &[
            op(Auth::Des, 0, 7).replying(Guard::Enciphered),
            op(Auth::Des, 5, 0),
            op(Auth::Nobody, 3, 0),
        ],
        &handshake(16),
        &[
            other,
            other,
            other,
            op(Auth::Aes, 17, 0),
            op(Auth::Aes, 10, 0),
            op(Auth::Aes, 0, 0).sending(1, Guard::Enciphered),
            // Of the key in use: one CRC, and no MAC, because the session is over.
            change_key
                .sending(16 + 1, Guard::Enciphered)
                .replying(Guard::Bare),
        ],
    ]
    .concat()
}

/// Balance, debit, record, commit, by a terminal that knows the layout or has to ask for it.
fn tap(card: &mut Counting, knows: bool) {
    let mut session = authenticated(card, 2);
    if knows {
        let details = [
            FileDetail::Value {
                lower: 0,
                upper: 100_000,
                limited_credit: 0,
                flags: ValueFlags::empty(),
            },
            FileDetail::CyclicRecord {
                record_size: size(16),
                max_records: size(6),
                current_records: size(0),
            },
        ];
        for (number, detail) in (1..).zip(details) {
            let settings = FileSettings {
                comm: CommMode::Enciphered.into(),
                rights: rights(),
                detail,
            };
            session.assume_file_settings(file(number), &settings);
        }
    }
    session.get_value(file(1)).run(card).unwrap();
    let amount = Amount::new(250).unwrap();
    session.debit(file(1), amount).run(card).unwrap();
    session
        .write_record(file(2), 0, &[0x11; 16])
        .run(card)
        .unwrap();
    session.commit_transaction().run(card).unwrap();
}

fn tap_least() -> Vec<Op> {
    let body = [
        op(Auth::Aes, 1, 4).replying(Guard::Enciphered),
        op(Auth::Aes, 1, 0).sending(4, Guard::Enciphered),
        op(Auth::Aes, 7, 0).sending(16, Guard::Enciphered),
        op(Auth::Aes, 0, 0),
    ];
    [&[op(Auth::Nobody, 3, 0)], &handshake(16)[..], &body].concat()
}

/// What stands on the card, without a key.
fn inspect(card: &mut Counting) {
    card.reader.card_mut().field_off();
    card.reader.card_mut().activate();
    let mut session: Session<Unauthenticated> = Session::new();
    session.get_version().run(card).unwrap();
    session.get_key_settings().run(card).unwrap();
    session.get_key_version(KeyNo::MASTER).run(card).unwrap();
    session.free_mem().run(card).unwrap();
    let applications = session.get_application_ids().run(card).unwrap();
    assert_eq!(applications.iter().count(), 1);
    let mut session = session.select_application(AID).run(card).unwrap();
    session.get_key_settings().run(card).unwrap();
    for number in 0..4 {
        session.get_key_version(key_no(number)).run(card).unwrap();
    }
    let files = session.get_file_ids().run(card).unwrap();
    assert_eq!(files.iter().count(), 2);
    for number in [1, 2] {
        session.get_file_settings(file(number)).run(card).unwrap();
    }
}

fn inspect_least() -> Vec<Op> {
    let ask = |clear, back| op(Auth::Nobody, clear, back);
    let mut ops = vec![
        // GetVersion comes in three frames, whatever their length.
        ask(0, 28).in_frames(&[7, 7, 14]),
        ask(0, 2),
        ask(1, 1),
        ask(0, 3),
        ask(0, 3),
        ask(3, 0),
        ask(0, 2),
    ];
    ops.extend([ask(1, 1); 4]);
    ops.extend([ask(0, 2), ask(1, 17), ask(1, 13)]);
    ops
}

/// A file of 4 KB, read at once by a reader that knows its mode.
fn read(card: &mut Counting, session: &mut Session<Authenticated>, mode: CommMode) {
    let mut buffer = [0; SIZE];
    let data = session
        .read_data(file(3), 0..4096, &mut buffer)
        .comm_mode(mode)
        .run(card)
        .unwrap();
    assert!(
        data.iter()
            .enumerate()
            .all(|(at, byte)| *byte == (at % 251) as u8)
    );
}

fn read_least(reply: Guard) -> Vec<Op> {
    vec![op(Auth::Aes, 7, SIZE).replying(reply)]
}

/// A card of its own, because two such files do not fit on one.
fn with_file(format: LinkFormat, mode: CommMode) -> (Counting, Session<Authenticated>) {
    let data: Vec<u8> = (0..SIZE).map(|at| (at % 251) as u8).collect();
    let mut card = Counting::new(format);
    personalise(&mut card);
    authenticated(&mut card, 0)
        .create_std_data_file(file(3), None, mode, rights(), size(4096))
        .run(&mut card)
        .unwrap();
    let mut session = authenticated(&mut card, 2);
    session
        .write_data(file(3), 0, &data)
        .run(&mut card)
        .unwrap();
    card.take();
    (card, session)
}

struct Job {
    name: &'static str,
    traffic: Traffic,
    least: Traffic,
}

fn jobs(format: LinkFormat) -> Vec<Job> {
    let mut card = Counting::new(format);
    let mut jobs = Vec::new();
    let mut done = |name, traffic, least: &[Op]| {
        jobs.push(Job {
            name,
            traffic,
            least: Traffic::least(format.framing, least),
        });
    };
    personalise(&mut card);
    done("personalise", card.take(), &personalise_least());
    tap(&mut card, true);
    done("tap", card.take(), &tap_least());
    tap(&mut card, false);
    done("tap, layout unknown", card.take(), &tap_least());
    inspect(&mut card);
    done("inspect", card.take(), &inspect_least());
    for (name, mode, reply) in [
        ("read 4 KB, plain", CommMode::Plain, Guard::Mac),
        ("read 4 KB, MACed", CommMode::Mac, Guard::Mac),
        (
            "read 4 KB, enciphered",
            CommMode::Enciphered,
            Guard::Enciphered,
        ),
    ] {
        let (mut card, mut session) = with_file(format, mode);
        read(&mut card, &mut session, mode);
        done(name, card.take(), &read_least(reply));
    }
    jobs
}

/// Its table has the same figures.
const README: &str = include_str!("../README.md");

#[test]
fn nothing_more_than_the_least() {
    println!(
        "| job | framing | exchanges | least | bytes there | back | 106 kbit/s | 212 | 424 | 848 |"
    );
    println!("|---|---|--:|--:|--:|--:|--:|--:|--:|--:|");
    for format in [LinkFormat::WRAPPED, LinkFormat::NATIVE] {
        for job in jobs(format) {
            let (exchanges, there, back) = job.traffic.sums();
            let (least, ..) = job.least.sums();
            print!(
                "| {} | {} | {exchanges} | {least} | {there} | {back} |",
                job.name,
                match format.framing {
                    Framing::Native => "native",
                    Framing::Wrapped => "wrapped",
                }
            );
            for (faster, unit) in [(1.0, " ms"), (2.0, ""), (4.0, ""), (8.0, "")] {
                print!(" {:.1}{unit} |", job.traffic.milliseconds(faster));
            }
            println!();
            if format.framing == Framing::Wrapped {
                let [a, b, c, d] =
                    [1.0, 2.0, 4.0, 8.0].map(|faster| job.traffic.milliseconds(faster));
                let row = format!(
                    "| {exchanges} | {there} / {back} | {a:.1} / {b:.1} / {c:.1} / {d:.1} |"
                );
                assert!(README.contains(&row), "README on {}: {row}", job.name);
            }
            if job.name == "tap, layout unknown" {
                // GetFileSettings once for each file whose mode the reader has not been told: the mode
                // decides the protection, and a wrong guess costs the session.
                let asked = Traffic::least(
                    format.framing,
                    &[op(Auth::Aes, 1, 17), op(Auth::Aes, 1, 13)],
                );
                let expected = [asked.0, job.least.0].concat();
                let (mut expected, mut found) = (expected, job.traffic.0);
                expected.sort_unstable();
                found.sort_unstable();
                assert_eq!(found, expected, "{}", job.name);
            } else {
                assert_eq!(job.traffic, job.least, "{}", job.name);
            }
        }
    }
}

/// The formula by hand: SelectApplication, `5A` and 3 bytes, answered by a status alone.
#[test]
fn time_on_air() {
    let select = Traffic::least(Framing::Native, &[op(Auth::Nobody, 3, 0)]);
    assert_eq!(select, Traffic(vec![(4, 1)]));
    // 11 bytes of 9 bits and 4 bits are 103 bits of 128 cycles; with the delays 15592 cycles.
    assert!((select.milliseconds(1.0) - 15_592.0 / 13_560.0).abs() < 1e-9);
    assert!((select.milliseconds(8.0) - (1_648.0 + 2_408.0) / 13_560.0).abs() < 1e-9);
}
