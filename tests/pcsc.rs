//! The library's driver through the host's PC/SC service: the purchase of the example `tap`, with
//! the card pulled out at every exchange, and two programs at one reader.
//!
//! Needs a pcscd with vpcd's two virtual readers for itself, and the examples built with the feature
//! `pcsc`; `.ci/pcsc` provides both and runs these tests, which are ignored otherwise.
#![cfg(all(feature = "pcsc", not(miri)))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};
use std::{env, fs, process};

use desfire_ev1::pcsc::{PcscCard, PcscContext, PcscError};
use desfire_ev1::picc::{Card, FileContent};
use desfire_ev1::wire::{Amount, CommMode, FileDetail, KeyFamily, KeyNo, Status, Uid};
use desfire_ev1::{
    Authenticated, Key, Link, LinkFormat, Machine as _, Outcome, RunError, Session, Step,
};
use desfire_ev1::{Transport, VirtualReader};

#[allow(dead_code, reason = "its main is not the test's")]
#[path = "../examples/tap.rs"]
mod tap;

use tap::common::{AnyReader, Desk, ReaderError};
use tap::layout::{self, Layout};

const PATIENCE: Duration = Duration::from_secs(15);

/// vpcd's readers and the ports at which they wait for cards.
const READERS: [(&str, &str); 2] = [
    ("Virtual PCD 00 00", "35963"),
    ("Virtual PCD 00 01", "35964"),
];

/// What the purchase sends, exchange by exchange.
const EXCHANGES: [&str; 9] = [
    "SelectApplication",
    "AuthenticateAES",
    "AuthenticateAES",
    "GetValue",
    "Debit",
    "WriteRecord",
    "CommitTransaction",
    "GetValue",
    "ReadRecords",
];

/// The exchange with which the money moves.
const COMMIT: u64 = 7;

/// Past the capture of the test harness.
fn report(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn example(name: &str) -> Command {
    let mut path = env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{name}{}", env::consts::EXE_SUFFIX));
    Command::new(path)
}

/// The program that puts a card on a virtual reader.
struct Softcard(Child);

impl Softcard {
    fn start(port: &str, file: &Path, options: &[&str]) -> Self {
        let mut command = example("softcard");
        command.args(["--port", port, "--state"]).arg(file);
        let child = command
            .args(options)
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Whether the card has taken itself away.
    fn is_gone(&mut self) -> bool {
        self.0.try_wait().unwrap().is_some()
    }

    /// Waits for a card that takes itself away.
    fn has_left(mut self) {
        let until = Instant::now() + PATIENCE;
        loop {
            match self.0.try_wait().unwrap() {
                Some(status) => return assert!(status.success(), "{status}"),
                None => assert!(Instant::now() < until, "the card stays"),
            }
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Kills the program when the card gets its nth command: at some moment around that one.
    fn kill_at(mut self, command: u64) -> thread::JoinHandle<()> {
        let trace = BufReader::new(self.0.stderr.take().unwrap()).lines();
        thread::spawn(move || {
            let is_byte = |word: &str| word.len() == 2 && u8::from_str_radix(word, 16).is_ok();
            let mut commands = trace.map_while(Result::ok).filter(|line| {
                let message = line.strip_prefix("> ");
                message.is_some_and(|message| message.split(' ').all(is_byte))
            });
            let nth = usize::try_from(command - 1).unwrap();
            assert!(commands.nth(nth).is_some(), "it has ended before");
            drop(self);
        })
    }
}

impl Drop for Softcard {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A card that answers wrapped commands as the test likes.
struct Forged {
    stream: TcpStream,
    thread: Option<thread::JoinHandle<()>>,
}

impl Forged {
    /// `answer` gets instruction and parameters of each command and makes data and status of it.
    fn start(port: &str, answer: impl FnMut(u8, &[u8]) -> (Vec<u8>, u8) + Send + 'static) -> Self {
        Self::with_atr(port, &[0x3B, 0x81, 0x80, 0x01, 0x80, 0x80], answer)
    }

    fn with_atr(
        port: &str,
        atr: &'static [u8],
        mut answer: impl FnMut(u8, &[u8]) -> (Vec<u8>, u8) + Send + 'static,
    ) -> Self {
        let until = Instant::now() + PATIENCE;
        let stream = loop {
            match TcpStream::connect(("127.0.0.1", port.parse().unwrap())) {
                Ok(stream) => break stream,
                Err(error) => assert!(Instant::now() < until, "{error}"),
            }
            thread::sleep(Duration::from_millis(20));
        };
        stream.set_nodelay(true).unwrap();
        let mut link = stream.try_clone().unwrap();
        let thread = thread::spawn(move || {
            let mut queue = Vec::new();
            while let Some(message) = receive(&mut link) {
                let reply = match message.as_slice() {
                    [0..=2] => continue,
                    [4] => atr.to_vec(),
                    [0x90, 0xAF, ..] => next_frame(&mut queue),
                    [0x90, ins, 0, 0, rest @ ..] => {
                        let parameters = match rest {
                            [_, parameters @ .., _] => parameters,
                            _ => &[],
                        };
                        let (data, status) = answer(*ins, parameters);
                        queue = frames(&data, status);
                        next_frame(&mut queue)
                    }
                    _ => vec![0x6D, 0x00],
                };
                let len = u16::try_from(reply.len()).unwrap().to_be_bytes();
                if link.write_all(&[&len, reply.as_slice()].concat()).is_err() {
                    return;
                }
            }
        });
        Self {
            stream,
            thread: Some(thread),
        }
    }
}

impl Drop for Forged {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn receive(link: &mut TcpStream) -> Option<Vec<u8>> {
    // Or the second piece of a message comes 40 ms after the first.
    #[cfg(target_os = "linux")]
    std::os::linux::net::TcpStreamExt::set_quickack(link, true).ok()?;
    let mut len = [0; 2];
    link.read_exact(&mut len).ok()?;
    let mut message = vec![0; u16::from_be_bytes(len).into()];
    link.read_exact(&mut message).ok()?;
    Some(message)
}

/// A reply in frames of 57 bytes, the last one first.
fn frames(data: &[u8], status: u8) -> Vec<Vec<u8>> {
    let mut frames: Vec<Vec<u8>> = data
        .chunks(57)
        .map(|part| [part, &[0x91, 0xAF]].concat())
        .collect();
    if frames.is_empty() {
        frames.push(vec![0x91, 0xAF]);
    }
    if let Some(last) = frames.last_mut().and_then(|frame| frame.last_mut()) {
        *last = status;
    }
    frames.reverse();
    frames
}

fn next_frame(queue: &mut Vec<Vec<u8>>) -> Vec<u8> {
    queue.pop().unwrap_or_else(|| vec![0x91, 0x1C])
}

/// A reader with a directory for the cards that are put on it.
struct Place {
    reader: &'static str,
    port: &'static str,
    file: PathBuf,
}

impl Place {
    fn new(index: usize) -> Self {
        let (reader, port) = READERS[index];
        let dir = env::temp_dir().join(format!("desfire-pcsc-{}-{index}", process::id()));
        fs::create_dir_all(&dir).unwrap();
        let file = dir.join("card");
        Self { reader, port, file }
    }

    /// Puts a card on the reader.
    fn put(&self, state: &[u8], options: &[&str]) -> Softcard {
        fs::write(&self.file, state).unwrap();
        self.put_back(options)
    }

    /// The same card as before.
    fn put_back(&self, options: &[&str]) -> Softcard {
        Softcard::start(self.port, &self.file, options)
    }

    fn connect(&self) -> PcscCard {
        let context = PcscContext::new().unwrap();
        context.wait_for_card(Some(self.reader), PATIENCE).unwrap()
    }

    /// Takes the card off, and lets go of it when the service knows.
    fn take_off<C>(&self, card: C, mut held: PcscCard) {
        drop(card);
        let until = Instant::now() + PATIENCE;
        while held.keep_alive() != Err(PcscError::CardRemoved) {
            assert!(Instant::now() < until, "nobody notices");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Balance and number of log records, as they are in the card's memory.
    fn stored(&self) -> (i32, usize) {
        let layout = Layout::new().unwrap();
        let state = Card::load_state(&fs::read(&self.file).unwrap()).unwrap();
        let application = state.application(layout.aid).unwrap();
        let balance = match application.file(layout.value_file).unwrap().content() {
            FileContent::Value(value) => value.value,
            other => panic!("{other:?}"),
        };
        let log = application.file(layout.log_file).unwrap();
        let records = match log.settings().detail {
            FileDetail::CyclicRecord {
                current_records, ..
            } => current_records.get(),
            other => panic!("{other:?}"),
        };
        (balance, records.try_into().unwrap())
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        if let Some(dir) = self.file.parent() {
            let _ = fs::remove_dir_all(dir);
        }
    }
}

fn uid() -> Uid {
    VirtualReader::default().card().state().version().uid
}

/// A card with the purse on it and nothing bought yet.
fn personalised() -> Vec<u8> {
    let place = Place::new(0);
    let card = place.put(&Card::new(uid()).save(), &[]);
    let held = place.connect();
    let mut desk = Desk::new(AnyReader::Pcsc(Box::new(held)), false);
    tap::personalise(&mut desk, &Layout::new().unwrap(), &mut tap::Repeating(1)).unwrap();
    drop(desk);
    place.take_off(card, place.connect());
    assert_eq!(place.stored(), (layout::BALANCE, 0));
    fs::read(&place.file).unwrap()
}

/// How a purchase ended: after how many exchanges, and if it failed, with what.
struct Ended {
    exchanges: u64,
    error: Option<(String, Outcome, PcscError)>,
}

fn purchase(place: &Place) -> Ended {
    let layout = Layout::new().unwrap();
    let mut desk = Desk::new(AnyReader::Pcsc(Box::new(place.connect())), false);
    let result = tap::purchase(&mut desk, &layout, uid(), &mut tap::Repeating(2));
    let exchanges = desk.take_traffic().exchanges.try_into().unwrap();
    if result.is_ok() {
        // The card is killed too late: the service has to notice before it is let go.
        thread::sleep(Duration::from_secs(1));
    }
    let error = result.err().map(
        |error| match error.downcast_ref::<RunError<ReaderError>>() {
            Some(RunError::Transport {
                command,
                outcome,
                error: ReaderError(reader),
            }) => {
                let reader = reader.downcast_ref::<PcscError>().unwrap().clone();
                (command.to_string(), *outcome, reader)
            }
            _ => panic!("{error}"),
        },
    );
    Ended { exchanges, error }
}

/// What a purchase leaves behind if it has been made, and if not.
const MADE: (i32, usize) = (layout::BALANCE - layout::PRICE, 1);
const NOT_MADE: (i32, usize) = (layout::BALANCE, 0);

/// The card leaves while the nth exchange is on its way: before it hears the command, or when it
/// has carried it out and not yet answered.
fn pulled(place: &Place, base: &[u8], option: &str, exchange: u64, heard: bool) {
    // What `--leave-after` counts are the commands before.
    let number = if option == "--leave-after" {
        exchange - 1
    } else {
        exchange
    };
    let point = format!("{option} {number}");
    let card = place.put(base, &[option, &number.to_string()]);
    let ended = purchase(place);
    card.has_left();
    let (command, outcome, error) = ended.error.expect(&point);
    assert_eq!(ended.exchanges, exchange - 1, "{point}");
    let name = EXCHANGES[usize::try_from(exchange - 1).unwrap()];
    assert_eq!(command, name, "{point}");
    assert_eq!(error, PcscError::CardRemoved, "{point}");
    assert_eq!(outcome, Outcome::Unknown, "{point}");
    // Only the commit moves money, and it does so wholly or not at all.
    let committed = exchange > COMMIT || (exchange == COMMIT && heard);
    let wanted = if committed { MADE } else { NOT_MADE };
    assert_eq!(place.stored(), wanted, "{point}");
    if exchange == COMMIT {
        settle(place, wanted.0);
    }
}

/// What a terminal does about an unknown outcome: it asks the card when it is back.
fn settle(place: &Place, balance: i32) {
    let layout = Layout::new().unwrap();
    let card = place.put_back(&[]);
    let mut held = place.connect();
    let session = Session::new().select_application(layout.aid);
    let mut session = session.run(&mut held).unwrap();
    // Without the key the card refuses, and says that it has not done it.
    let amount = Amount::new(1).unwrap();
    let debit = session.debit(layout.value_file, amount);
    let refused = debit.comm_mode(CommMode::Plain).run(&mut held).unwrap_err();
    assert_eq!(refused.outcome(), Outcome::Refused, "{refused}");
    assert_eq!(refused.status(), Some(Status::AuthenticationError));
    let mut session = authenticated(session, &layout, &mut held);
    let found = session.get_value(layout.value_file).run(&mut held).unwrap();
    assert_eq!(found, balance);
    place.take_off(card, held);
}

fn authenticated(
    session: Session<desfire_ev1::Unauthenticated>,
    layout: &Layout,
    card: &mut PcscCard,
) -> Session<Authenticated> {
    let key = tap::card_key(layout.debiting, uid(), layout.aid).unwrap();
    let machine = session.authenticate_aes(layout.debiting, &key, &mut tap::Repeating(3));
    let mut session = machine.run(card).unwrap();
    for (file, settings) in layout.settings().unwrap() {
        session.assume_file_settings(file, &settings);
    }
    session
}

/// After a debit without an answer nothing more is sent, and that is what is said.
fn nothing_follows(place: &Place, base: &[u8]) {
    let layout = Layout::new().unwrap();
    let card = place.put(base, &["--leave-before", "4"]);
    let mut held = place.connect();
    let session = Session::new().select_application(layout.aid);
    let session = session.run(&mut held).unwrap();
    let mut session = authenticated(session, &layout, &mut held);
    let amount = Amount::new(layout::PRICE).unwrap();
    let debit = session.debit(layout.value_file, amount).run(&mut held);
    assert_eq!(debit.unwrap_err().outcome(), Outcome::Unknown);
    let commit = session.commit_transaction().run(&mut held).unwrap_err();
    assert_eq!(commit.outcome(), Outcome::NotSent, "{commit}");
    assert!(commit.session_lost() && commit.protocol().is_some());
    card.has_left();
    assert_eq!(place.stored(), NOT_MADE);
}

/// The program behind the card dies around the nth exchange.
fn killed(place: &Place, base: &[u8], exchange: u64) {
    let killer = place.put(base, &["--trace"]).kill_at(exchange);
    let ended = purchase(place);
    killer.join().unwrap();
    let stored = place.stored();
    if let Some((command, outcome, error)) = ended.error {
        let point = format!("killed at {exchange}, {command} after {}", ended.exchanges);
        assert_eq!(error, PcscError::CardRemoved, "{point}");
        assert_eq!(outcome, Outcome::Unknown, "{point}");
        match ended.exchanges + 1 {
            COMMIT => assert!(stored == MADE || stored == NOT_MADE, "{point}"),
            lost => assert_eq!(
                stored,
                if lost > COMMIT { MADE } else { NOT_MADE },
                "{point}"
            ),
        }
    } else {
        // It was quicker.
        assert_eq!(stored, MADE);
    }
}

#[test]
#[ignore = "needs pcscd with vpcd: run .ci/pcsc"]
fn a_card_pulled_out_at_every_exchange_neither_loses_nor_makes_money() {
    type Point = Box<dyn Fn(&Place, &[u8]) + Send + Sync>;

    let base = personalised();
    let mut points: Vec<Point> = vec![Box::new(nothing_follows)];
    for exchange in 1..=9 {
        for (option, heard) in [
            ("--leave-before", false),
            ("--leave-during", true),
            ("--leave-after", false),
        ] {
            if exchange == 1 && option == "--leave-after" {
                continue;
            }
            points.push(Box::new(move |place, base| {
                pulled(place, base, option, exchange, heard);
            }));
        }
        points.push(Box::new(move |place, base| killed(place, base, exchange)));
    }
    let started = Instant::now();
    // Half of them on either reader.
    thread::scope(|scope| {
        for index in 0..READERS.len() {
            let (points, base) = (&points, &base);
            scope.spawn(move || {
                let place = Place::new(index);
                for point in points.iter().skip(index).step_by(READERS.len()) {
                    point(&place, base);
                }
            });
        }
    });
    report(&format!(
        "pulled out at {} points of the purchase's {} exchanges in {} ms",
        points.len(),
        EXCHANGES.len(),
        started.elapsed().as_millis()
    ));
}

/// An example on this place's reader: exit code, and what it printed to both outputs.
fn run_example(place: &Place, name: &str, arguments: &[&str]) -> (Option<i32>, String, String) {
    let mut command = example(name);
    command.args(["--reader", place.reader]).args(arguments);
    let output = command.output().unwrap();
    (
        output.status.code(),
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    )
}

#[test]
#[ignore = "needs pcscd with vpcd: run .ci/pcsc"]
fn a_card_on_a_free_reader_is_found_beside_one_that_is_held() {
    let [first, second] = [Place::new(0), Place::new(1)];
    let cards = [&first, &second].map(|place| place.put(&Card::new(uid()).save(), &[]));
    let held = first.connect();
    // The service knows both; it lists the first one first.
    drop(second.connect());
    let context = PcscContext::new().unwrap();
    let found = context.wait_for_card(None, PATIENCE).unwrap();
    assert_eq!(found.reader(), second.reader);
    // All are held: that is said after a moment, and not only when the time is over.
    let started = Instant::now();
    let none = context
        .wait_for_card(None, Duration::from_secs(60))
        .map(drop);
    assert_eq!(none, Err(PcscError::ReaderBusy));
    assert!(started.elapsed() < Duration::from_secs(10));
    let [one, two] = cards;
    first.take_off(one, held);
    second.take_off(two, found);
}

#[test]
#[ignore = "needs pcscd with vpcd: run .ci/pcsc"]
fn a_reader_that_is_no_acr122u_says_so() {
    let place = Place::new(0);
    let context = PcscContext::new().unwrap();
    // Without a card.
    let mut reader = context.acr122u(place.reader).unwrap();
    assert_eq!(reader.firmware(), Err(PcscError::NotSupported));
    assert_eq!(reader.picc_parameters(), Err(PcscError::NotSupported));
    drop(reader);
    // With one, which is none the worse for it.
    let card = place.put(&Card::new(uid()).save(), &[]);
    let mut held = place.connect();
    assert_eq!(held.acr122u().firmware(), Err(PcscError::NotSupported));
    let refused = held.acr122u().set_timeout(None).unwrap_err();
    assert!(
        refused.to_string().contains("does not have this function"),
        "{refused}"
    );
    let version = Session::new().get_version().run(&mut held).unwrap();
    assert_eq!(version.uid, uid());
    place.take_off(card, held);
}

#[test]
#[ignore = "needs pcscd with vpcd: run .ci/pcsc"]
fn a_card_without_a_protocol_is_no_mute_one() {
    let place = Place::new(0);
    for atr in [&[0x3B][..], &[0xFF; 33]] {
        let card = Forged::with_atr(place.port, atr, |_, _| (Vec::new(), 0x1C));
        let context = PcscContext::new().unwrap();
        let found = context
            .wait_for_card(Some(place.reader), PATIENCE)
            .map(drop);
        assert_eq!(found, Err(PcscError::UnsupportedCard), "{atr:02X?}");
        drop(card);
        let until = Instant::now() + PATIENCE;
        while !matches!(
            context.connect(place.reader).map(drop),
            Err(PcscError::NoCard { .. })
        ) {
            assert!(Instant::now() < until, "the card stays");
            thread::sleep(Duration::from_millis(50));
        }
    }
}

const IDENTITY: [&[u8]; 2] = [
    // An EV2, and EV1's predecessor.
    &[4, 1, 1, 0x12, 0, 0x1A, 5],
    &[4, 1, 1, 0x00, 2, 0x18, 5],
];

/// A card that claims what no card has, and whose texts would play with the terminal.
fn boaster(ins: u8, parameters: &[u8]) -> (Vec<u8>, u8) {
    const TEXT: &[u8] = b"\x1B]0;mine\x07\x1B[2J\x9B\xE2\x80\xAE\"\\\r\n";
    let number = |place: usize| {
        let bytes = parameters.get(place..place + 3).unwrap();
        usize::from(bytes[0]) | usize::from(bytes[1]) << 8 | usize::from(bytes[2]) << 16
    };
    let text = |len: usize| TEXT.iter().copied().cycle().take(len).collect();
    let aids = (1..=28).flat_map(|number| [number, 0, 0]).collect();
    let data = match ins {
        0x5A => Vec::new(),
        0x45 => vec![0x0F, 0x8E],
        0x64 => vec![0xFF],
        0x6E => vec![0xFF; 3],
        0x6A => aids,
        0x6F => (0..32).collect(),
        0xF5 => {
            let huge = [0xFF; 9];
            let (kind, detail): (u8, &[u8]) = match parameters[0] % 6 {
                0 => (0, &huge[..3]),
                1 => (1, &[40, 0, 0]),
                2 => (
                    2,
                    &[0, 0, 0, 0x80, 0xFF, 0xFF, 0xFF, 0x7F, 0, 0, 0, 0, 0xFF],
                ),
                3 => (3, &huge),
                4 => (4, &[30, 0, 0, 9, 0, 0, 3, 0, 0]),
                _ => (0x1B, TEXT),
            };
            [&[kind, 0, 0xEE, 0xEE], detail].concat()
        }
        0x6C => vec![0xFF; 4],
        0xBD => text(number(4)),
        0xBB => text(number(4) * 30),
        _ => return (Vec::new(), 0x1C),
    };
    (data, 0x00)
}

/// Lets a forged card be any of the family.
fn identified(
    hardware: &'static [u8],
    mut answer: impl FnMut(u8, &[u8]) -> (Vec<u8>, u8),
) -> impl FnMut(u8, &[u8]) -> (Vec<u8>, u8) {
    move |ins, parameters| {
        if ins == 0x60 {
            let rest = [
                4, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 1, 2, 3, 4, 5, 0xFF, 0x9F,
            ];
            return ([hardware, hardware, &rest].concat(), 0x00);
        }
        answer(ins, parameters)
    }
}

#[test]
#[ignore = "needs pcscd with vpcd: run .ci/pcsc"]
fn cards_that_boast_or_lack_commands_are_shown_all_the_same() {
    let place = Place::new(0);
    let card = Forged::start(place.port, identified(IDENTITY[0], boaster));
    drop(place.connect());
    let started = Instant::now();
    let (code, tree, error) = run_example(&place, "inspect", &[]);
    assert_eq!(code, Some(0), "{error}");
    report(&format!(
        "28 applications of 32 files shown in {} ms",
        started.elapsed().as_millis()
    ));
    assert!(tree.starts_with("MIFARE DESFire EV2 8K, UID 04112233445566\n"));
    for (line, times) in [
        ("made in week FF, year 9F (not decimal)", 1),
        ("─ application 0000", 28),
        ("content: its records are larger than a card", 28 * 5),
        ("and 16777151 more bytes (--all)", 28 * 6),
        ("content: of a type that EV1 does not have", 28 * 5),
    ] {
        assert_eq!(tree.matches(line).count(), times, "{line}");
    }
    let (code, json, error) = run_example(&place, "inspect", &["--json"]);
    assert_eq!(code, Some(0), "{error}");
    for text in [tree, json, error] {
        assert!(text.chars().all(|c| c == '\n' || !c.is_control()));
    }
    place.take_off(card, place.connect());

    // The commands that EV1's predecessor does not have.
    let plain = |ins: u8, _: &[u8]| match ins {
        0x5A => (Vec::new(), 0x00),
        0x45 => (vec![0x0F, 0x01], 0x00),
        0x6A => (vec![7, 0, 0], 0x00),
        0x6F => (vec![1, 2], 0x00),
        _ => (Vec::new(), 0x1C),
    };
    let card = Forged::start(place.port, identified(IDENTITY[1], plain));
    drop(place.connect());
    let (code, tree, error) = run_example(&place, "inspect", &[]);
    assert_eq!(code, Some(0), "{error}");
    assert!(tree.contains("(MF3ICD40) 4K") && tree.contains("free memory: this card does not"));
    let (code, list, error) = run_example(&place, "format", &[]);
    assert_eq!(code, Some(1));
    assert!(
        list.ends_with("for good:\n  application 000007   2 files\n"),
        "{list}"
    );
    assert!(error.contains("nothing has been deleted"), "{error}");
    place.take_off(card, place.connect());
}

/// A link of another program, which does not care in what state it leaves the card.
struct Careless(pcsc::Card);

impl Link for Careless {
    type Error = pcsc::Error;

    fn format(&self) -> LinkFormat {
        LinkFormat::WRAPPED
    }
}

impl Transport for Careless {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, pcsc::Error> {
        self.0.transmit(command, reply).map(<[u8]>::len)
    }
}

#[test]
#[ignore = "needs pcscd with vpcd: run .ci/pcsc"]
fn what_another_program_left_on_the_card_does_no_harm() {
    let place = Place::new(0);
    let card = place.put(&VirtualReader::demo().into_card().save(), &[]);
    drop(place.connect());
    let context = pcsc::Context::establish(pcsc::Scope::User).unwrap();
    let name = std::ffi::CString::new(place.reader).unwrap();
    let connect = || {
        let card = context.connect(&name, pcsc::ShareMode::Shared, pcsc::Protocols::ANY);
        Careless(card.unwrap())
    };
    let leave = |link: Careless| {
        let left = link.0.disconnect(pcsc::Disposition::LeaveCard);
        assert!(left.is_ok());
    };
    // A session.
    let mut link = connect();
    let session = Session::new().select_application(VirtualReader::DEMO_AID);
    let session = session.run(&mut link).unwrap();
    let zero = Key::zero(KeyFamily::Aes);
    let session = session.authenticate_aes(KeyNo::MASTER, &zero, &mut tap::Repeating(1));
    session.run(&mut link).unwrap();
    leave(link);
    // It is really there: the card proves its answer.
    let mut link = connect();
    let mut reply = [0; 64];
    let len = link.exchange(&[0x90, 0x45, 0, 0, 0], &mut reply).unwrap();
    assert_eq!(len, 2 + 8 + 2, "{:02X?}", &reply[..len]);
    leave(link);
    let (code, tree, error) = run_example(&place, "inspect", &[]);
    assert_eq!(code, Some(0), "{error}");
    assert!(tree.contains("application 00DE16"), "{tree}");

    // Half a command.
    let mut link = connect();
    let len = link.exchange(&[0x90, 0x60, 0, 0, 0], &mut reply).unwrap();
    assert!(reply[..len].ends_with(&[0x91, 0xAF]));
    leave(link);
    let (code, tree, error) = run_example(&place, "inspect", &[]);
    assert_eq!(code, Some(0), "{error}");
    assert!(tree.contains("application 00DE16"), "{tree}");
    place.take_off(card, place.connect());
}

#[test]
#[ignore = "needs pcscd with vpcd: run .ci/pcsc"]
fn a_card_that_hides_its_uid_and_cannot_be_formatted() {
    let mut reader = VirtualReader::demo();
    let zero = Key::zero(KeyFamily::Des);
    let session = Session::new().authenticate_iso(KeyNo::MASTER, &zero, &mut tap::Repeating(1));
    let mut session = session.run(&mut reader).unwrap();
    session.disable_format_for_ever().run(&mut reader).unwrap();
    session
        .enable_random_id_for_ever()
        .run(&mut reader)
        .unwrap();
    let place = Place::new(0);
    let card = place.put(&reader.into_card().save(), &[]);
    let mut held = place.connect();
    let shown = held.uid().unwrap();
    assert!(shown.len() == 4 && shown[0] == 0x08, "{shown:02X?}");
    drop(held);

    let (code, tree, error) = run_example(&place, "inspect", &[]);
    assert_eq!(code, Some(0), "{error}");
    assert!(tree.contains(", UID hidden (random ID)\n"), "{tree}");
    let (code, tree, error) = run_example(&place, "inspect", &["--key", "des:zero"]);
    assert_eq!(code, Some(0), "{error}");
    assert!(tree.contains(&format!(", UID {}\n", uid())), "{tree}");

    let (code, list, error) = run_example(&place, "format", &["--yes"]);
    assert_eq!(code, Some(1));
    assert!(
        list.contains("UID hidden") && list.contains("application 00DE16"),
        "{list}"
    );
    assert!(
        error.contains("nothing has been deleted\n  because: FormatPICC: the card refused with 9D"),
        "{error}"
    );
    place.take_off(card, place.connect());
    let kept = Card::load_state(&fs::read(&place.file).unwrap()).unwrap();
    assert!(kept.application(VirtualReader::DEMO_AID).is_some());
}

#[test]
#[ignore = "needs pcscd with vpcd: run .ci/pcsc"]
fn a_tag_that_is_torn_is_never_said_to_be_whole() {
    let place = Place::new(0);
    let old = ["--create", "--size", "64", "--text", "old"];
    let new = ["--uri", "https://example.org/new"];
    let card = place.put(&Card::new(uid()).save(), &[]);
    // Nobody reads what it prints; it goes on all the same.
    let mut ndef = example("ndef");
    ndef.args(["--reader", place.reader]).args(old);
    let (closed, unread) = std::io::pipe().unwrap();
    drop(closed);
    let status = ndef.stdout(unread).stderr(Stdio::null()).status();
    assert!(status.unwrap().success());
    place.take_off(card, place.connect());
    let base = fs::read(&place.file).unwrap();

    let whole = "URI   https://example.org/new\n";
    let mut seen = [0; 5];
    for command in 4.. {
        let card = place.put(&base, &["--leave-during", &command.to_string()]);
        let (code, _, error) = run_example(&place, "ndef", &new);
        if code == Some(0) {
            let held = place.connect();
            place.take_off(card, held);
            break;
        }
        assert_eq!(code, Some(1), "{error}");
        card.has_left();
        let card = place.put_back(&[]);
        let (code, read, again) = run_example(&place, "ndef", &["--read"]);
        assert_eq!(code, Some(0), "{again}");
        place.take_off(card, place.connect());
        let holds = |text: &str| read.ends_with(text);
        let fates = [
            // Only looked at, or refused.
            !error.contains("written") && !error.contains("not known") && holds("text  old (en)\n"),
            error.contains("it is not known whether the old message is still there")
                && holds("empty\n"),
            error.contains("only partly written") && holds("empty\n"),
            error.contains("it is not known whether all of the message is there") && holds(whole),
            // Only the reading back failed.
            !error.contains("written") && !error.contains("not known") && holds(whole),
        ];
        let fate = fates.iter().position(|fate| *fate);
        seen[fate.unwrap_or_else(|| panic!("{command}: {error}\n{read}"))] += 1;
        assert!(command < 60);
    }
    assert!(seen.iter().all(|times| *times > 0), "{seen:?}");
    report(&format!(
        "a tag torn at {} points of its writing",
        seen.iter().sum::<u32>()
    ));
}

/// What `change-key` says of a change that the card's leaving has cut off is true, and it never
/// blames a key for it.
#[test]
#[ignore = "needs pcscd with vpcd: run .ci/pcsc"]
fn a_change_of_key_that_is_cut_off_is_told_as_it_is() {
    const NEW_VERSION: u8 = 0x2A;
    let place = Place::new(0);
    let base = VirtualReader::demo().into_card().save();
    let mut points = 0;
    let mut settled = 0;
    for command in 4.. {
        let mut card = place.put(&base, &["--leave-during", &command.to_string()]);
        let mut change = example("change-key");
        change.args(["--reader", place.reader, "--aid", "00DE16", "--new-key"]);
        change.arg(format!(
            "aes:00112233445566778899AABBCCDDEEFF:{NEW_VERSION:02X}"
        ));
        change.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut change = change.spawn().unwrap();
        // It may want the card back, and finds it.
        while change.try_wait().unwrap().is_none() {
            if card.is_gone() {
                card = place.put_back(&[]);
            }
            thread::sleep(Duration::from_millis(20));
        }
        let output = change.wait_with_output().unwrap();
        let [said, error] =
            [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
        let point = format!("{command}: {said}{error}");
        let state = Card::load_state(&fs::read(&place.file).unwrap()).unwrap();
        let application = state.application(VirtualReader::DEMO_AID).unwrap();
        let changed = application.keys()[0].version() == NEW_VERSION;
        let success = output.status.success();
        assert_eq!(
            success,
            said.contains("The new key authenticates") || said.contains("The new key is in force"),
            "{point}"
        );
        assert!(!success || changed, "{point}");
        assert!(
            !said.contains("The old key is in force") || !changed,
            "{point}"
        );
        assert!(!error.contains("--auth-key is not"), "{point}");
        if changed && !success {
            assert!(error.contains("say --probe with the same keys"), "{point}");
        }
        settled += u32::from(said.contains("is in force: "));
        let never_left = success && !said.contains("Asking the card");
        if !card.is_gone() {
            place.take_off(card, place.connect());
        }
        if never_left {
            break;
        }
        points += 1;
        assert!(points < 40);
    }
    assert_eq!(settled, 1, "only ChangeKey itself leaves anything open");
    report(&format!("a change of key cut off at {points} points"));
}

fn inspect_is_told(reader: &str) {
    let started = Instant::now();
    let mut inspect = example("inspect");
    let output = inspect.args(["--reader", reader]).output().unwrap();
    // It allows for somebody who only looks for a moment.
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(
        String::from_utf8(output.stderr).unwrap(),
        "error: another program uses the reader; close it and try again\n"
    );
}

#[test]
#[ignore = "needs pcscd with vpcd: run .ci/pcsc"]
fn a_second_program_is_told_and_does_not_disturb_the_first() {
    let place = Place::new(0);
    let card = place.put(&Card::new(uid()).save(), &[]);
    let mut held = place.connect();
    assert_eq!(held.uid().unwrap(), uid().0);
    assert_eq!(held.ats().unwrap(), [0x06, 0x75, 0x77, 0x81, 0x02, 0x80]);
    assert_eq!(held.atr(), [0x3B, 0x81, 0x80, 0x01, 0x80, 0x80]);

    // In the middle of GetVersion, as the other program also sends.
    let mut session = Session::new();
    let mut machine = session.get_version();
    let mut command = machine.start(LinkFormat::WRAPPED).unwrap().to_vec();
    let mut others = 0;
    let version = loop {
        let mut reply = [0; 64];
        let len = held.exchange(&command, &mut reply).unwrap();

        let context = PcscContext::new().unwrap();
        for _ in 0..10 {
            let second = context.connect(place.reader).map(drop);
            assert_eq!(second, Err(PcscError::ReaderBusy));
            others += 1;
        }
        if others == 10 {
            inspect_is_told(place.reader);
        }
        held.keep_alive().unwrap();

        match machine.step(&reply[..len]).unwrap() {
            Step::Transmit(next) => command = next.to_vec(),
            Step::Done(version) => break version,
        }
    };
    assert_eq!(version.uid, uid());
    place.take_off(card, held);
    report(&format!(
        "two programs: the second was told so, {others} more attempts were turned away, the first finished"
    ));
}

#[test]
#[ignore = "stops the pcscd whose process id is in PCSCD_PID: run .ci/pcsc"]
fn a_service_that_ends_is_told_from_a_card_that_leaves() {
    let place = Place::new(0);
    let _card = place.put(&Card::new(uid()).save(), &[]);
    let mut held = place.connect();
    let mut session = Session::new();
    session.get_version().run(&mut held).unwrap();
    let pid = env::var("PCSCD_PID").expect("PCSCD_PID");
    assert!(Command::new("kill").arg(pid).status().unwrap().success());
    let until = Instant::now() + PATIENCE;
    let error = loop {
        match session.free_mem().run(&mut held) {
            Ok(_) => assert!(Instant::now() < until, "the service goes on"),
            Err(error) => break error,
        }
        thread::sleep(Duration::from_millis(10));
    };
    assert_eq!(error.outcome(), Outcome::Unknown);
    match error {
        RunError::Transport { error, .. } => assert_eq!(error, PcscError::NoService),
        other => panic!("{other}"),
    }
}
