//! The example `softcard` from the other side: here the tests are vpcd. They run the program as
//! a process of its own, which connects to them over the loopback.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use std::convert::Infallible;
use std::ffi::OsString;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};
use std::{env, fs, process};

use desfire_ev1::picc::{Card, FileContent, State};
use desfire_ev1::wire::{Aid, FileNo, KeyFamily, KeyNo, Status, Uid};
use desfire_ev1::{Key, Link, LinkFormat, Machine as _, Session, Transport};

#[allow(dead_code, reason = "its main is not the test's")]
#[path = "../examples/softcard.rs"]
mod softcard;

const ARGUMENTS: &str = "SOFTCARD_TEST_ARGUMENTS";
const PATIENCE: Duration = Duration::from_secs(20);

const OFF: &[u8] = &[0x00];
const ON: &[u8] = &[0x01];
const RESET: &[u8] = &[0x02];
const ATR: &[u8] = &[0x04];

const ATR_OF_CARD: &[u8] = &[0x3B, 0x81, 0x80, 0x01, 0x80, 0x80];
const VERSION: &[u8] = &[0xAF, 0x04, 0x01, 0x01, 0x01, 0x00, 0x1A, 0x05];

/// This test binary is the program too, so that it is always the one of this source.
#[test]
#[ignore = "no test: the program that the tests start"]
fn program() {
    if let Ok(arguments) = env::var(ARGUMENTS) {
        let arguments = arguments.lines().map(OsString::from);
        let parser =
            lexopt::Parser::from_iter([OsString::from("softcard")].into_iter().chain(arguments));
        process::exit(softcard::softcard(parser).into());
    }
}

struct Program(Child);

impl Program {
    fn start(arguments: &[&str]) -> Self {
        let child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "program", "--ignored", "--nocapture"])
            .env(ARGUMENTS, arguments.join("\n"))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        Self(child)
    }

    /// Exit code and what it had to say.
    fn end(mut self) -> (Option<i32>, String) {
        let deadline = Instant::now() + PATIENCE;
        while self.0.try_wait().unwrap().is_none() {
            assert!(Instant::now() < deadline, "the program goes on");
            sleep(Duration::from_millis(5));
        }
        let mut text = String::new();
        let mut stderr = self.0.stderr.take().unwrap();
        stderr.read_to_string(&mut text).unwrap();
        (self.0.wait().unwrap().code(), text)
    }

    /// As SIGKILL does it.
    fn kill(mut self) -> String {
        self.0.kill().unwrap();
        self.end().1
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The virtual reader.
struct Vpcd(TcpListener);

impl Vpcd {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        Self(listener)
    }

    fn start(&self, arguments: &[&str]) -> Program {
        let port = self.0.local_addr().unwrap().port().to_string();
        Program::start(&[&["--port", &port], arguments].concat())
    }

    fn accept(&self) -> Slot {
        let deadline = Instant::now() + PATIENCE;
        loop {
            match self.0.accept() {
                Ok((stream, _)) => {
                    stream.set_nonblocking(false).unwrap();
                    stream.set_read_timeout(Some(PATIENCE)).unwrap();
                    stream.set_nodelay(true).unwrap();
                    return Slot(stream);
                }
                Err(error) => assert_eq!(error.kind(), ErrorKind::WouldBlock),
            }
            assert!(Instant::now() < deadline, "no softcard connects");
            sleep(Duration::from_millis(5));
        }
    }
}

/// A connection with a softcard.
struct Slot(TcpStream);

impl Slot {
    fn tell(&mut self, message: &[u8]) {
        let len = u16::try_from(message.len()).unwrap().to_be_bytes();
        self.0.write_all(&[&len, message].concat()).unwrap();
    }

    fn hear(&mut self) -> Vec<u8> {
        let mut len = [0; 2];
        self.0.read_exact(&mut len).unwrap();
        let mut message = vec![0; u16::from_be_bytes(len).into()];
        self.0.read_exact(&mut message).unwrap();
        message
    }

    fn ask(&mut self, message: &[u8]) -> Vec<u8> {
        self.tell(message);
        self.hear()
    }

    /// The connection ends here, without a whole message, and surely without an empty one,
    /// which lets vpcd wait for ever. Whether it was reset.
    fn ends(mut self) -> bool {
        let mut bytes = Vec::new();
        let mut byte = [0];
        let reset = loop {
            match self.0.read(&mut byte) {
                Ok(0) => break false,
                Ok(_) => bytes.push(byte[0]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break true,
                Err(error) => panic!("{error}"),
            }
        };
        if let Some(len) = bytes.get(..2) {
            let announced = usize::from(u16::from_be_bytes([len[0], len[1]]));
            assert!(announced > bytes.len() - 2, "{bytes:02X?}");
        }
        reset
    }
}

/// The library's native frames over it.
impl Link for Slot {
    type Error = Infallible;

    fn format(&self) -> LinkFormat {
        LinkFormat::NATIVE
    }
}

impl Transport for Slot {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Infallible> {
        let heard = self.ask(command);
        reply[..heard.len()].copy_from_slice(&heard);
        Ok(heard.len())
    }
}

/// A directory of its own for each test.
struct Dir(PathBuf);

impl Dir {
    fn new(name: &str) -> Self {
        let path = env::temp_dir().join(format!("softcard-{name}-{}", process::id()));
        fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn file(&self, name: &str) -> String {
        self.0.join(name).to_str().unwrap().to_owned()
    }
}

impl Drop for Dir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

fn stored(path: &str) -> State {
    Card::load_state(&fs::read(path).unwrap()).unwrap()
}

const PURSE: Aid = Aid::from_bytes([1, 0, 0]);

/// Makes an application with a value file that anybody may use.
fn make_purse(slot: &mut Slot) {
    assert_eq!(slot.ask(&[0xCA, 1, 0, 0, 0x0F, 0x01]), [0x00]);
    select_purse(slot);
    let mut create = vec![0xCC, 1, 0x00, 0xEE, 0xEE];
    create.extend(0_i32.to_le_bytes());
    create.extend(1_000_000_i32.to_le_bytes());
    create.extend(0_i32.to_le_bytes());
    create.push(0);
    assert_eq!(slot.ask(&create), [0x00]);
}

fn select_purse(slot: &mut Slot) {
    assert_eq!(slot.ask(&[0x5A, 1, 0, 0]), [0x00]);
}

fn credit(slot: &mut Slot, amount: u8) {
    assert_eq!(slot.ask(&[0x0C, 1, amount, 0, 0, 0]), [0x00]);
}

fn balance(slot: &mut Slot) -> i32 {
    let reply = slot.ask(&[0x6C, 1]);
    assert_eq!(reply[0], 0x00);
    i32::from_le_bytes(reply[1..].try_into().unwrap())
}

fn stored_balance(path: &str) -> i32 {
    let state = stored(path);
    let file = state
        .application(PURSE)
        .unwrap()
        .file(FileNo::new(1).unwrap());
    match file.unwrap().content() {
        FileContent::Value(value) => value.value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn native_and_wrapped_in_one_activation() {
    let vpcd = Vpcd::new();
    let _program = vpcd.start(&[]);
    let mut slot = vpcd.accept();
    // This is how vpcd begins: there is a card if it has an ATR, powered or not.
    assert_eq!(slot.ask(ATR), ATR_OF_CARD);
    slot.tell(ON);
    assert_eq!(slot.ask(ATR), ATR_OF_CARD);

    assert_eq!(slot.ask(&[0x60]), VERSION);
    // Presence is asked for at any time.
    assert_eq!(slot.ask(ATR), ATR_OF_CARD);
    assert_eq!(slot.ask(&[0xAF])[..3], [0xAF, 0x04, 0x01]);
    let last = slot.ask(&[0xAF]);
    assert_eq!(last[..8], [0x00, 0x04, 0x5A, 0x21, 0x7A, 0x3C, 0x5B, 0x80]);

    let mut wrapped = slot.ask(&[0x90, 0x60, 0, 0, 0]);
    assert_eq!(wrapped.split_off(7), [0x91, 0xAF]);
    assert_eq!(wrapped, VERSION[1..]);
    assert_eq!(slot.ask(&[0x90, 0xAF, 0, 0, 0]).len(), 9);
    assert_eq!(slot.ask(&[0x90, 0xAF, 0, 0, 0]).len(), 16);
    // ISO 7816-4: SELECT the PICC level.
    assert_eq!(slot.ask(&[0x00, 0xA4, 0, 0, 2, 0x3F, 0x00]), [0x90, 0x00]);
}

#[test]
fn a_byte_at_a_time() {
    let vpcd = Vpcd::new();
    let _program = vpcd.start(&[]);
    let mut slot = vpcd.accept();
    for message in [ON, ATR, &[0x60], &[0x90, 0xAF, 0, 0, 0]] {
        slot.0.write_all(&[0]).unwrap();
        sleep(Duration::from_millis(20));
        slot.0
            .write_all(&[u8::try_from(message.len()).unwrap()])
            .unwrap();
        for byte in message {
            sleep(Duration::from_millis(20));
            slot.0.write_all(&[*byte]).unwrap();
        }
    }
    assert_eq!(slot.hear(), ATR_OF_CARD);
    assert_eq!(slot.hear(), VERSION);
    assert_eq!(slot.hear().len(), 9);
    // And many at once.
    slot.0
        .write_all(&[0, 1, 0x02, 0, 1, 0x60, 0, 1, 0x04, 0, 1, 0xAF])
        .unwrap();
    assert_eq!(slot.hear(), VERSION);
    assert_eq!(slot.hear(), ATR_OF_CARD);
    assert_eq!(slot.hear().len(), 8);
}

#[test]
fn messages_of_any_length_and_content() {
    let vpcd = Vpcd::new();
    let _program = vpcd.start(&[]);
    let mut slot = vpcd.accept();
    // An empty message is not answered.
    slot.tell(&[]);
    slot.tell(&[]);
    assert_eq!(slot.ask(&[0x60]), VERSION);
    // Native commands of one byte are all that are no control messages.
    for code in (0..=0xFF).filter(|code| !matches!(code, 0 | 1 | 2 | 4)) {
        slot.tell(RESET);
        let reply = slot.ask(&[code]);
        assert!(
            !reply.is_empty() && reply.len() <= 60,
            "{code:02X}: {reply:02X?}"
        );
    }
    slot.tell(RESET);
    assert_eq!(slot.ask(&[0xFF]), [0x1C]);
    // Anything else is answered, whatever it is.
    let mut noise = 1_u32;
    let mut next = || {
        noise = noise.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        noise.to_be_bytes()[0]
    };
    for len in (2..300).chain([1000, 32_768, 65_534, 65_535]) {
        for first in [0x00, 0x90, 0xFF, 0xAF, 0x3D, 0x60] {
            let mut message: Vec<u8> = (0..len).map(|_| next()).collect();
            message[0] = first;
            assert!(!slot.ask(&message).is_empty());
        }
    }
    slot.tell(RESET);
    assert_eq!(slot.ask(&[0x60]), VERSION);
}

#[test]
fn a_connection_that_breaks_ends_everything_pending() {
    let vpcd = Vpcd::new();
    let _program = vpcd.start(&[]);
    let mut slot = vpcd.accept();
    make_purse(&mut slot);
    credit(&mut slot, 7);
    assert_eq!(slot.ask(&[0xC7]), [0x00]);
    credit(&mut slot, 1);
    drop(slot);
    for part in [&[][..], &[0], &[0, 5], &[0, 5, 0x90, 0x60, 0, 0]] {
        let mut slot = vpcd.accept();
        assert_eq!(slot.ask(&[0x60]), VERSION);
        // In the middle of a message.
        slot.0.write_all(part).unwrap();
    }
    let mut slot = vpcd.accept();
    assert_eq!(slot.ask(&[0xAF]), [0x1C]);
    select_purse(&mut slot);
    assert_eq!(balance(&mut slot), 7);
}

#[test]
fn reset_and_power_end_what_is_pending() {
    let vpcd = Vpcd::new();
    let _program = vpcd.start(&[]);
    let mut slot = vpcd.accept();
    make_purse(&mut slot);
    for ending in [&[RESET][..], &[OFF, ON], &[ON]] {
        // A handshake with the PICC key.
        slot.tell(RESET);
        let challenge = slot.ask(&[0x1A, 0x00]);
        assert_eq!((challenge[0], challenge.len()), (0xAF, 9));
        ending.iter().for_each(|message| slot.tell(message));
        assert_eq!(slot.ask(&[[0xAF].as_slice(), &[0; 16]].concat()), [0x1C]);
        // A transaction, and the selection.
        select_purse(&mut slot);
        credit(&mut slot, 1);
        ending.iter().for_each(|message| slot.tell(message));
        assert_eq!(slot.ask(&[0xC7]), [0x9D]);
        select_purse(&mut slot);
        assert_eq!(balance(&mut slot), 0);
    }
    // A session: the card enciphers its UID for nobody else.
    for ending in [&[RESET][..], &[OFF, ON], &[ON]] {
        slot.tell(RESET);
        let key = Key::zero(KeyFamily::Des);
        let handshake =
            Session::new().authenticate_iso(KeyNo::MASTER, &key, &mut getrandom::SysRng);
        let mut session = handshake.run(&mut slot).unwrap();
        assert!(session.get_card_uid().run(&mut slot).is_ok());
        ending.iter().for_each(|message| slot.tell(message));
        let refused = session.get_card_uid().run(&mut slot).unwrap_err();
        assert_eq!(refused.status(), Some(Status::AuthenticationError));
    }
    // To ask for the ATR ends nothing.
    assert_eq!(slot.ask(&[0x60]), VERSION);
    assert_eq!(slot.ask(ATR), ATR_OF_CARD);
    assert_eq!(slot.ask(&[0xAF]).len(), 8);
}

#[test]
fn a_card_without_power_lets_the_command_fail() {
    let vpcd = Vpcd::new();
    let program = vpcd.start(&[]);
    let mut slot = vpcd.accept();
    slot.tell(OFF);
    assert_eq!(slot.ask(ATR), ATR_OF_CARD);
    slot.tell(&[0x60]);
    assert!(slot.ends() || !cfg!(target_os = "linux"), "not reset");
    // It is laid on the reader again.
    let mut slot = vpcd.accept();
    slot.tell(ON);
    assert_eq!(slot.ask(&[0x60]), VERSION);
    assert!(program.kill().contains("did not answer"));
}

#[test]
fn what_the_reader_answers_itself() {
    let vpcd = Vpcd::new();
    let _program = vpcd.start(&["--uid", "04A1b2C3D4e5F6", "--size", "2"]);
    let mut slot = vpcd.accept();
    let uid = [0x04, 0xA1, 0xB2, 0xC3, 0xD4, 0xE5, 0xF6];
    let with = |data: &[u8], sw: [u8; 2]| [data, &sw].concat();
    assert_eq!(slot.ask(&[0x60])[6], 0x16);
    // Between two frames of the card, which sees nothing of it.
    for (command, reply) in [
        ([0xFF, 0xCA, 0, 0, 0], with(&uid, [0x90, 0x00])),
        ([0xFF, 0xCA, 0, 0, 7], with(&uid, [0x90, 0x00])),
        ([0xFF, 0xCA, 0, 0, 4], with(&[], [0x6C, 0x07])),
        ([0xFF, 0xCA, 0, 0, 9], with(&uid, [0x62, 0x82])),
        (
            [0xFF, 0xCA, 1, 0, 0],
            with(&[0x06, 0x75, 0x77, 0x81, 0x02, 0x80], [0x90, 0x00]),
        ),
        ([0xFF, 0xCA, 2, 0, 0], with(&[], [0x6A, 0x81])),
        ([0xFF, 0x00, 0x48, 0, 0], with(&[], [0x6D, 0x00])),
    ] {
        assert_eq!(slot.ask(&command), reply, "{command:02X?}");
    }
    assert_eq!(slot.ask(&[0xFF, 0xCA, 0, 0]), [0x67, 0x00]);
    assert_eq!(slot.ask(&[0xAF]).len(), 8);
}

#[test]
fn a_card_with_random_id() {
    let dir = Dir::new("random-id");
    let file = dir.file("card");
    let mut card = Card::new(Uid([4, 1, 2, 3, 4, 5, 6]));
    card.state_mut().set_random_id(true);
    fs::write(&file, card.save()).unwrap();
    let vpcd = Vpcd::new();
    let _program = vpcd.start(&["--state", &file, "--seed", "random"]);
    let mut slot = vpcd.accept();
    let mut uid = || {
        slot.tell(RESET);
        slot.ask(&[0xFF, 0xCA, 0, 0, 0])
    };
    let (first, second) = (uid(), uid());
    assert_eq!((first[0], first.len()), (0x08, 6));
    assert_ne!(first, second);
}

#[test]
fn the_nonces_are_the_seeds() {
    let vpcd = Vpcd::new();
    let challenge = |arguments: &[&str]| {
        let _program = vpcd.start(arguments);
        vpcd.accept().ask(&[0x1A, 0x00])
    };
    let usual = challenge(&[]);
    assert_eq!(challenge(&[]), usual);
    let seed = "000102030405060708090A0B0C0D0E0F";
    let other = challenge(&["--seed", seed]);
    assert_ne!(other, usual);
    assert_eq!(challenge(&["--seed", seed]), other);
    assert_ne!(
        challenge(&["--seed", "random"]),
        challenge(&["--seed", "random"])
    );
}

#[test]
fn the_file_holds_the_card() {
    let dir = Dir::new("state");
    let file = dir.file("card");
    let vpcd = Vpcd::new();
    let program = vpcd.start(&["--state", &file, "--uid", "04010203040506", "--size", "4"]);
    let mut slot = vpcd.accept();
    // It is there before the first command.
    assert_eq!(stored(&file).free_memory(), 4864);
    make_purse(&mut slot);
    credit(&mut slot, 7);
    assert_eq!(stored_balance(&file), 0);
    assert_eq!(slot.ask(&[0xC7]), [0x00]);
    assert_eq!(stored_balance(&file), 7);
    let before = fs::metadata(&file).unwrap().modified().unwrap();
    assert_eq!(balance(&mut slot), 7);
    assert_eq!(fs::metadata(&file).unwrap().modified().unwrap(), before);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(&file).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "keys are in it");
    }
    program.kill();

    let program = vpcd.start(&["--state", &file, "--uid", "04010203040506", "--size", "4"]);
    let mut slot = vpcd.accept();
    select_purse(&mut slot);
    assert_eq!(balance(&mut slot), 7);
    program.kill();
    let names = fs::read_dir(&dir.0).unwrap().count();
    assert_eq!(names, 1, "something was left behind");
}

#[test]
fn another_card_than_the_one_in_the_file() {
    let dir = Dir::new("another");
    let file = dir.file("card");
    let card = Card::new(Uid([4, 1, 2, 3, 4, 5, 6])).save();
    fs::write(&file, &card).unwrap();
    for arguments in [["--uid", "04000000000000"], ["--size", "2"]] {
        let (code, text) = Program::start(&[&["--state", &file], &arguments[..]].concat()).end();
        assert_eq!(code, Some(1), "{text}");
        assert!(text.contains("the card there has"), "{text}");
    }
    assert_eq!(fs::read(&file).unwrap(), card);
}

#[test]
fn a_damaged_file_is_refused_and_left_alone() {
    let dir = Dir::new("damaged");
    let file = dir.file("card");
    let card = Card::new(Uid([4, 1, 2, 3, 4, 5, 6])).save();
    let mut flipped = card.clone();
    flipped[20] ^= 1;
    let long = [&card[..], &[0]].concat();
    let damaged: [&[u8]; 5] = [b"", b"DESFcard", &card[..card.len() - 1], &flipped, &long];
    for damaged in damaged {
        fs::write(&file, damaged).unwrap();
        let (code, text) = Program::start(&["--state", &file, "--once"]).end();
        assert_eq!(code, Some(1), "{text}");
        assert!(
            text.contains(&file) && text.contains("left as it is"),
            "{text}"
        );
        assert_eq!(fs::read(&file).unwrap(), damaged);
    }
    // Neither a directory nor a place that is not there.
    for path in [dir.file(""), dir.file("nowhere/card")] {
        let (code, text) = Program::start(&["--state", &path, "--once"]).end();
        assert_eq!(code, Some(1), "{text}");
        assert!(
            text.starts_with("error: ") && text.contains(&path),
            "{text}"
        );
    }
}

/// Keys must not end up in a file that somebody else has put where they will be written.
#[test]
#[cfg(unix)]
fn a_file_that_lies_in_wait_is_not_written_to() {
    use std::os::unix::fs::{MetadataExt as _, symlink};

    let dir = Dir::new("trap");
    let (path, prey) = (dir.file("card"), dir.file("prey"));
    for trap in ["file", "link"] {
        let new = format!("{path}.new");
        fs::write(&prey, b"mine").unwrap();
        if trap == "file" {
            fs::write(&new, b"").unwrap();
        } else {
            symlink(&prey, &new).unwrap();
        }
        let vpcd = Vpcd::new();
        let program = vpcd.start(&["--state", &path]);
        make_purse(&mut vpcd.accept());
        program.kill();
        stored(&path);
        let mode = fs::symlink_metadata(&path).unwrap().mode();
        assert_eq!(mode & 0o170_777, 0o100_600, "{trap}");
        assert_eq!(fs::read(&prey).unwrap(), b"mine", "{trap}");
        fs::remove_file(&path).unwrap();
    }
}

#[test]
fn what_cannot_be_kept_is_not_confirmed() {
    let dir = Dir::new("unwritable");
    let folder = dir.file("folder");
    fs::create_dir(&folder).unwrap();
    let file = Path::new(&folder).join("card");
    let vpcd = Vpcd::new();
    let program = vpcd.start(&["--state", file.to_str().unwrap()]);
    let mut slot = vpcd.accept();
    assert_eq!(slot.ask(&[0x60]), VERSION);
    fs::remove_dir_all(&folder).unwrap();
    assert_eq!(slot.ask(&[0xAF]).len(), 8);
    slot.tell(RESET);
    slot.tell(&[0xCA, 1, 0, 0, 0x0F, 0x01]);
    slot.ends();
    let (code, text) = program.end();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("cannot be written"), "{text}");
}

#[test]
fn killed_at_any_moment_it_loses_nothing() {
    let dir = Dir::new("kill");
    let file = dir.file("card");
    let vpcd = Vpcd::new();
    let program = vpcd.start(&["--state", &file]);
    make_purse(&mut vpcd.accept());
    program.kill();
    let mut known = 0;
    for round in 0..12_u64 {
        let mut program = vpcd.start(&["--state", &file]);
        let mut slot = vpcd.accept();
        select_purse(&mut slot);
        let before = balance(&mut slot);
        assert!((known..=known + 1).contains(&before), "{known}, {before}");
        known = before;
        // Commits, until it is killed somewhere among them.
        let killer = std::thread::spawn(move || {
            sleep(Duration::from_micros(500 + 1700 * round));
            program.0.kill().unwrap();
            program.0.wait().unwrap();
        });
        let mut confirmed = |command: &[u8]| {
            let sent = slot
                .0
                .write_all(&[&[0, u8::try_from(command.len()).unwrap()], command].concat());
            let mut reply = [0; 3];
            let heard = sent.and_then(|()| slot.0.read_exact(&mut reply));
            heard.is_ok_and(|()| reply == [0, 1, 0])
        };
        while confirmed(&[0x0C, 1, 1, 0, 0, 0]) && confirmed(&[0xC7]) {
            known += 1;
        }
        killer.join().unwrap();
        let stored = stored_balance(&file);
        assert!((known..=known + 1).contains(&stored), "{known}, {stored}");
        known = stored;
    }
    assert!(known > 0, "it was always too early");
}

#[test]
fn a_card_that_leaves() {
    let dir = Dir::new("leave");
    let create = [0xCA, 1, 0, 0, 0x0F, 0x01];
    for (option, number, created) in [
        ("--leave-before", "2", false),
        ("--leave-during", "2", true),
        ("--leave-after", "1", false),
    ] {
        let file = dir.file(option);
        let vpcd = Vpcd::new();
        let program = vpcd.start(&["--state", &file, option, number]);
        let mut slot = vpcd.accept();
        slot.tell(ON);
        assert_eq!(slot.ask(ATR), ATR_OF_CARD);
        // The reader's answer is not the card's.
        assert_eq!(slot.ask(&[0xFF, 0xCA, 0, 0, 0]).len(), 9);
        assert_eq!(slot.ask(&[0x6E]).len(), 4);
        slot.tell(&create);
        assert!(slot.ends() || !cfg!(target_os = "linux"), "not reset");
        let (code, text) = program.end();
        assert_eq!(code, Some(0), "{text}");
        assert!(text.contains("has left"), "{text}");
        assert_eq!(
            stored(&file).applications().len(),
            usize::from(created),
            "{option}"
        );
    }
    // Nor is it there when the reader looks.
    for control in [ATR, ON] {
        let vpcd = Vpcd::new();
        let program = vpcd.start(&["--leave-after", "1"]);
        let mut slot = vpcd.accept();
        assert_eq!(slot.ask(&[0x60]), VERSION);
        slot.tell(control);
        slot.ends();
        assert_eq!(program.end().0, Some(0));
    }
}

#[test]
fn a_card_that_is_no_desfire() {
    let vpcd = Vpcd::new();
    let _program = vpcd.start(&["--toy"]);
    let mut slot = vpcd.accept();
    // By its ATR nobody can tell.
    assert_eq!(slot.ask(ATR), ATR_OF_CARD);
    let commands: [&[u8]; 4] = [
        &[0x60],
        &[0xAF],
        &[0x90, 0x60, 0, 0, 0],
        &[0x00, 0xA4, 0, 0, 2, 0x3F, 0x00],
    ];
    for command in commands {
        assert_eq!(slot.ask(command), [0x6D, 0x00]);
    }
    assert_eq!(slot.ask(&[0xFF, 0xCA, 0, 0, 0]).len(), 9);
}

#[test]
fn trace_and_end() {
    let vpcd = Vpcd::new();
    let program = vpcd.start(&["--trace", "--once"]);
    let mut slot = vpcd.accept();
    slot.tell(ON);
    slot.ask(&[0x60]);
    slot.ask(ATR);
    drop(slot);
    let (code, text) = program.end();
    assert_eq!(code, Some(0), "{text}");
    let (first, trace) = text.split_once('\n').unwrap();
    assert!(first.starts_with("connected to 127.0.0.1:"), "{first}");
    assert_eq!(
        trace,
        "> 01 power on\n\
         > 60\n\
         < AF 04 01 01 01 00 1A 05\n\
         > 04 ATR\n\
         < 3B 81 80 01 80 80\n\
         vpcd closed the connection\n"
    );
}

#[test]
fn a_server_that_comes_late_or_never() {
    let port = {
        let vpcd = Vpcd::new();
        vpcd.0.local_addr().unwrap().port()
    };
    let arguments = ["--port", &port.to_string()];
    let (code, text) = Program::start(&[&arguments[..], &["--once"]].concat()).end();
    assert_eq!(code, Some(1), "{text}");
    assert!(text.contains("is pcscd running"), "{text}");

    let program = Program::start(&arguments);
    sleep(Duration::from_millis(600));
    let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
    listener.set_nonblocking(true).unwrap();
    let vpcd = Vpcd(listener);
    assert_eq!(vpcd.accept().ask(&[0x60]), VERSION);
    // It comes again and again.
    assert_eq!(vpcd.accept().ask(&[0x60]), VERSION);
    let text = program.kill();
    assert!(text.starts_with("waiting for vpcd at 127.0.0.1:"), "{text}");
}

#[test]
fn wrong_arguments() {
    let wrong: [&[&str]; 13] = [
        &["--nonsense"],
        &["card"],
        &["--port", "65536"],
        &["--port"],
        &["--uid", "0401020304050"],
        &["--uid", "040102030405"],
        &["--uid", "0401020304050g"],
        &["--size", "16"],
        &["--seed", "00"],
        &["--leave-after", "0"],
        &["--leave-before", "-1"],
        &["--leave-during", "soon"],
        &["--toy", "--state", "card"],
    ];
    for arguments in wrong {
        let (code, text) = Program::start(arguments).end();
        assert_eq!(code, Some(2), "{arguments:?}: {text}");
        assert!(
            text.starts_with("error: ") && text.ends_with("Try --help.\n"),
            "{text}"
        );
    }
    assert_eq!(Program::start(&["--help"]).end(), (Some(0), String::new()));
}
