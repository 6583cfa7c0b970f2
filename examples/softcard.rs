//! The software card as a card that any PC/SC program sees: it plugs itself into vpcd, the
//! virtual reader of vsmartcard, which pcscd loads like any other driver.
//!
//! `cargo run --example softcard`; `--help` tells the rest.

use std::fmt::{self, Write as _};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::thread::sleep;
use std::time::Duration;

use desfire_ev1::VirtualReader;
use desfire_ev1::picc::{Activation, Card, StorageSize};
use desfire_ev1::wire::Uid;
use rand_core::TryRng;

const HELP: &str = "\
A software DESFire EV1 in pcscd's virtual reader, for any PC/SC program.

Usage: cargo run --example softcard [-- OPTIONS]

  apt-get install pcscd vsmartcard-vpcd; with pcscd running, start this; then, for instance,
  opensc-tool --send-apdu 90:60:00:00:00

The reader:
  --host HOST         where pcscd runs (127.0.0.1)
  --port PORT         the port of vpcd (35963)
  --once              do not wait for pcscd, and end when it closes the connection

The card:
  --state FILE        keeps the card in FILE, which is made if there is none. Keys included,
                      in clear. FILE is replaced as a whole before the reply to the command
                      that changed something, so this program can be ended in any way at any
                      time. Give a card only to one softcard at a time
  --uid HEX           the UID, 7 bytes (045A217A3C5B80)
  --size 2|4|8        its memory, in K (8)
  --seed random|HEX   where its nonces come from: the operating system, or these 16 bytes;
                      without it they are the same in every run
  --toy               a card that is no DESFire: it answers 6D00 to everything

For tests:
  --trace             prints every message, to the card (>) and from it (<)
  --leave-after N     takes the card away once it has answered N commands
  --leave-before N    takes it away when the Nth command comes; it is not carried out
  --leave-during N    takes it away when the Nth command is carried out, but not answered.
                      Frames count one each; what the reader answers by itself (class FF)
                      and powering do not count. This program ends then

  --help              this text

All messages go to standard error. The exit code is 0 after --leave-... and after --once, 1 if
something failed, 2 for wrong arguments.
";

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> ExitCode {
    ExitCode::from(softcard(lexopt::Parser::from_env()))
}

/// The whole program, to its exit code.
pub fn softcard(arguments: lexopt::Parser) -> u8 {
    match Options::parse(arguments) {
        Ok(None) => match io::stdout().write_all(HELP.as_bytes()) {
            Err(error) if error.kind() != ErrorKind::BrokenPipe => {
                say(format_args!("error: {error}"));
                1
            }
            _ => 0,
        },
        Ok(Some(options)) => match run(&options) {
            Ok(()) => 0,
            Err(error) => {
                say(format_args!("error: {error}"));
                1
            }
        },
        Err(error) => {
            say(format_args!("error: {error}\nTry --help."));
            2
        }
    }
}

/// To standard error; if nobody reads that any more, the card goes on.
fn say(text: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{text}");
}

struct Options {
    host: String,
    port: u16,
    once: bool,
    state: Option<PathBuf>,
    uid: Option<Uid>,
    size: Option<StorageSize>,
    seed: Option<[u8; 16]>,
    toy: bool,
    trace: bool,
    leave: Option<Leave>,
}

/// When the card is to leave the field; commands count from 1.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Leave {
    Before(u64),
    During(u64),
    After(u64),
}

impl Options {
    /// `None` if help is wanted.
    fn parse(mut arguments: lexopt::Parser) -> Result<Option<Self>, lexopt::Error> {
        use lexopt::prelude::*;

        let mut options = Self {
            host: "127.0.0.1".to_owned(),
            port: 0x8C7B,
            once: false,
            state: None,
            uid: None,
            size: None,
            seed: None,
            toy: false,
            trace: false,
            leave: None,
        };
        while let Some(argument) = arguments.next()? {
            match argument {
                Long("host") => options.host = arguments.value()?.string()?,
                Long("port") => options.port = arguments.value()?.parse()?,
                Long("once") => options.once = true,
                Long("state") => options.state = Some(arguments.value()?.into()),
                Long("uid") => options.uid = Some(Uid(arguments.value()?.parse_with(hex)?)),
                Long("size") => options.size = Some(arguments.value()?.parse_with(size)?),
                Long("seed") => options.seed = Some(arguments.value()?.parse_with(seed)?),
                Long("toy") => options.toy = true,
                Long("trace") => options.trace = true,
                Long("leave-before") => {
                    options.leave = Some(Leave::Before(arguments.value()?.parse_with(count)?));
                }
                Long("leave-during") => {
                    options.leave = Some(Leave::During(arguments.value()?.parse_with(count)?));
                }
                Long("leave-after") => {
                    options.leave = Some(Leave::After(arguments.value()?.parse_with(count)?));
                }
                Long("help") | Short('h') => return Ok(None),
                other => return Err(other.unexpected()),
            }
        }
        if options.toy && options.state.is_some() {
            return Err("a toy card has no state to keep".into());
        }
        Ok(Some(options))
    }
}

fn hex<const N: usize>(text: &str) -> Result<[u8; N], String> {
    let wrong = || format!("not {N} bytes in hexadecimal");
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| {
            digit
                .to_digit(16)
                .and_then(|digit| u8::try_from(digit).ok())
        })
        .collect::<Option<_>>()
        .ok_or_else(wrong)?;
    let (pairs, []) = digits.as_chunks::<2>() else {
        return Err(wrong());
    };
    let bytes: Vec<u8> = pairs.iter().map(|[high, low]| high << 4 | low).collect();
    bytes.try_into().map_err(|_| wrong())
}

fn size(text: &str) -> Result<StorageSize, &'static str> {
    match text {
        "2" => Ok(StorageSize::Ev1_2K),
        "4" => Ok(StorageSize::Ev1_4K),
        "8" => Ok(StorageSize::Ev1_8K),
        _ => Err("an EV1 has 2, 4 or 8 K"),
    }
}

fn seed(text: &str) -> Result<[u8; 16], String> {
    if text != "random" {
        return hex(text);
    }
    let mut seed = [0; 16];
    getrandom::SysRng
        .try_fill_bytes(&mut seed)
        .map_err(|error| error.to_string())?;
    Ok(seed)
}

fn count(text: &str) -> Result<u64, &'static str> {
    match text.parse() {
        Ok(0) | Err(_) => Err("not a number from 1"),
        Ok(number) => Ok(number),
    }
}

/// The file that holds the card while it has no power.
struct Store {
    path: PathBuf,
    /// What is in the file.
    stored: Vec<u8>,
}

impl Store {
    /// More than any card's state has.
    const LIMIT: u64 = 1 << 20;

    /// The card in the file, if there is a file. A file that cannot be read, or holds no card,
    /// is left as it is.
    fn open(path: &Path) -> Outcome<(Self, Option<Vec<u8>>)> {
        let read = File::open(path).and_then(|file| {
            let mut bytes = Vec::new();
            file.take(Self::LIMIT).read_to_end(&mut bytes)?;
            Ok(bytes)
        });
        let stored = match read {
            Ok(stored) => Some(stored),
            Err(error) if error.kind() == ErrorKind::NotFound => None,
            Err(error) => return Err(format!("{}: {error}", path.display()).into()),
        };
        let store = Self {
            // A link stays a link: it is the file behind it that is replaced.
            path: fs::canonicalize(path).unwrap_or_else(|_| path.to_owned()),
            stored: stored.clone().unwrap_or_default(),
        };
        Ok((store, stored))
    }

    /// Replaces the file if the card is not as it was.
    fn save(&mut self, card: &Card) -> Outcome<()> {
        let state = card.save();
        if state == self.stored {
            return Ok(());
        }
        self.replace(&state).map_err(|error| {
            let path = self.path.display();
            format!("{path}: cannot be written: {error}; it holds what it held before")
        })?;
        self.stored = state;
        Ok(())
    }

    /// At every moment there is a whole file of the name: the old one or the new one.
    fn replace(&self, state: &[u8]) -> io::Result<()> {
        let mut name = self.path.clone().into_os_string();
        name.push(".new");
        // One that is there, from a run that was killed or from somebody else who would like to
        // read keys, is not written to.
        match fs::remove_file(&name) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        {
            // There are keys in it.
            use std::os::unix::fs::OpenOptionsExt;
            options.mode(0o600);
        }
        let mut file = options.open(&name)?;
        file.write_all(state)?;
        file.sync_all()?;
        fs::rename(&name, &self.path)
    }
}

/// A card in the field of a contactless reader.
struct InField {
    card: Card,
    /// The card is no DESFire.
    toy: bool,
    powered: bool,
    /// What the reader found out when it activated the card last.
    activation: Activation,
}

impl InField {
    fn new(mut card: Card, toy: bool) -> Self {
        let activation = card.activate();
        Self {
            card,
            toy,
            powered: true,
            activation,
        }
    }

    /// The card loses its session, pending transaction and selection in any case.
    fn power_on(&mut self) {
        self.card.field_off();
        self.activation = self.card.activate();
        self.powered = true;
    }

    fn power_off(&mut self) {
        self.card.field_off();
        self.powered = false;
    }

    /// What comes back, if anything comes.
    fn exchange(&mut self, command: &[u8]) -> Option<Vec<u8>> {
        if !self.powered {
            return None;
        }
        if for_reader(command) {
            return Some(self.reader(command));
        }
        if self.toy {
            return Some(vec![0x6D, 0x00]);
        }
        let reply = self.card.handle(command);
        (!reply.is_empty()).then_some(reply)
    }

    /// What a contactless reader answers by itself (PC/SC part 3, 3.2.2): UID and ATS.
    fn reader(&self, command: &[u8]) -> Vec<u8> {
        let with = |data: &[u8], sw: [u8; 2]| [data, &sw].concat();
        let (data, le): (&[u8], u8) = match command {
            [_, 0xCA, 0x00, 0x00, le] => (&self.activation.uid, *le),
            [_, 0xCA, 0x01, 0x00, le] => (&self.activation.ats, *le),
            [_, 0xCA, _, _, _] => return with(&[], [0x6A, 0x81]),
            [_, 0xCA, ..] => return with(&[], [0x67, 0x00]),
            _ => return with(&[], [0x6D, 0x00]),
        };
        match u8::try_from(data.len()) {
            Ok(len) if 0 < le && le < len => with(&[], [0x6C, len]),
            Ok(len) if len < le => with(data, [0x62, 0x82]),
            _ => with(data, [0x90, 0x00]),
        }
    }
}

/// Commands of class FF are for the reader; a real one does not let the card see them. No
/// native command begins with FF.
fn for_reader(command: &[u8]) -> bool {
    matches!(command, [0xFF, _, _, _, ..])
}

fn run(options: &Options) -> Outcome<()> {
    let (card, mut store) = prepare(options)?;
    if let Some(store) = &mut store {
        // What cannot be kept shall not begin.
        store.save(&card)?;
    }
    let mut field = InField::new(card, options.toy);
    let mut commands = 0;
    loop {
        let stream = connect(options)?;
        field.power_on();
        let end = serve(&stream, &mut field, &mut store, &mut commands, options)?;
        drop(stream);
        say(format_args!("{end}"));
        if options.once || end == End::Left {
            return Ok(());
        }
        sleep(Duration::from_millis(250));
    }
}

fn prepare(options: &Options) -> Outcome<(Card, Option<Store>)> {
    let mut builder = Card::builder();
    if let Some(seed) = options.seed {
        builder = builder.seed(seed);
    }
    let mut store = None;
    if let Some(path) = &options.state {
        let (opened, stored) = Store::open(path)?;
        store = Some(opened);
        if let Some(stored) = stored {
            let state = Card::load_state(&stored)
                .map_err(|error| format!("{}: {error}; it is left as it is", path.display()))?;
            let (uid, storage) = (state.version().uid, state.storage());
            if options.uid.is_some_and(|wanted| wanted != uid) {
                return Err(format!("{}: the card there has UID {uid}", path.display()).into());
            }
            if options.size.is_some_and(|wanted| wanted != storage) {
                let storage = storage.capacity() / 1000;
                return Err(format!("{}: the card there has {storage} K", path.display()).into());
            }
            return Ok((builder.state(state).build(), store));
        }
    }
    // Unless told otherwise, the card of the other examples.
    let usual = VirtualReader::default();
    let usual = usual.card().state();
    let card = builder
        .uid(options.uid.unwrap_or(usual.version().uid))
        .storage(options.size.unwrap_or(usual.storage()))
        .build();
    Ok((card, store))
}

/// Waits for vpcd as long as it takes, unless it shall not.
fn connect(options: &Options) -> Outcome<TcpStream> {
    let Options { host, port, .. } = options;
    for attempt in 0_u64.. {
        match connect_now(host, *port) {
            Ok(stream) => {
                say(format_args!("connected to {host}:{port}"));
                return Ok(stream);
            }
            Err(error) if options.once => {
                return Err(format!(
                    "no vpcd at {host}:{port}: {error}; is pcscd running, with vpcd installed?"
                )
                .into());
            }
            Err(error) if attempt % 40 == 0 => say(format_args!(
                "waiting for vpcd at {host}:{port}: {error}; is pcscd running?"
            )),
            Err(_) => {}
        }
        sleep(Duration::from_millis(250));
    }
    Err("no vpcd".into())
}

fn connect_now(host: &str, port: u16) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the host has no address");
    for address in (host, port).to_socket_addrs()? {
        let stream = match TcpStream::connect_timeout(&address, Duration::from_secs(5)) {
            Ok(stream) => stream,
            Err(error) => {
                last = error;
                continue;
            }
        };
        // The port of vpcd is among those that the system gives to clients: who knocks at it
        // often enough gets it, and is connected to himself.
        if stream.local_addr()? == stream.peer_addr()? {
            last = ErrorKind::ConnectionRefused.into();
            continue;
        }
        stream.set_nodelay(true)?;
        return Ok(stream);
    }
    Err(last)
}

/// How a connection ends.
#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    Closed,
    Broken(ErrorKind),
    /// The card did not answer a command.
    Mute,
    /// The card has left the field, as arranged.
    Left,
}

impl fmt::Display for End {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("vpcd closed the connection"),
            Self::Broken(kind) => write!(f, "the connection broke: {kind}"),
            Self::Mute => f.write_str("the card did not answer; it leaves the reader"),
            Self::Left => f.write_str("the card has left the field"),
        }
    }
}

/// Control messages of vpcd: those of one byte. Any other byte is a native command.
const POWER_OFF: u8 = 0x00;
const POWER_ON: u8 = 0x01;
const RESET: u8 = 0x02;
const ATR: u8 = 0x04;

/// Answers until the connection ends. An error is one of the store.
fn serve(
    stream: &TcpStream,
    field: &mut InField,
    store: &mut Option<Store>,
    commands: &mut u64,
    options: &Options,
) -> Outcome<End> {
    let mut room = vec![0; usize::from(u16::MAX)];
    let mut left = false;
    loop {
        let message = match receive(stream, &mut room) {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(End::Closed),
            Err(error) => return Ok(End::Broken(error.kind())),
        };
        let trace = |direction, bytes: &[u8], meaning| {
            if options.trace {
                say(format_args!("{direction}{}{meaning}", Spaced(bytes)));
            }
        };
        let mut reply = None;
        match message {
            [] => {
                // vpcd sends none. vsmartcard's own card takes no notice either.
                trace('>', message, " an empty message");
                continue;
            }
            [POWER_OFF] => {
                trace('>', message, " power off");
                field.power_off();
            }
            [POWER_ON] => {
                trace('>', message, " power on");
                field.power_on();
            }
            [RESET] => {
                trace('>', message, " reset");
                field.power_on();
            }
            // Also asked again and again to see whether there is a card, powered or not.
            [ATR] if left => {}
            [ATR] => {
                trace('>', message, " ATR");
                reply = Some(field.activation.atr.clone());
            }
            command => {
                trace('>', command, "");
                if !for_reader(command) {
                    *commands += 1;
                }
                let now = |leave: fn(u64) -> Leave| {
                    !for_reader(command) && options.leave == Some(leave(*commands))
                };
                left |= now(Leave::Before);
                if !left {
                    reply = field.exchange(command);
                    // Before the reply: what the reader has been told of is never lost.
                    if let Some(store) = store {
                        store.save(&field.card)?;
                    }
                }
                if left || now(Leave::During) || reply.is_none() {
                    trace('<', &[], " no answer");
                    fall_silent(stream);
                    let leaves = left || now(Leave::During);
                    return Ok(if leaves { End::Left } else { End::Mute });
                }
                left = now(Leave::After);
            }
        }
        if let Some(reply) = &reply {
            trace('<', reply, "");
        }
        let sent = take_last(stream).and_then(|()| match &reply {
            Some(reply) => send(stream, reply),
            None => Ok(()),
        });
        if let Err(error) = sent {
            return Ok(End::Broken(error.kind()));
        }
        if left && reply.is_none() {
            return Ok(End::Left);
        }
    }
}

/// One message: its length in two bytes, then that many. The last of them stays where it is
/// until [`take_last`], see [`fall_silent`]. `None` if the connection has been closed.
fn receive<'a>(mut stream: &TcpStream, room: &'a mut [u8]) -> io::Result<Option<&'a [u8]>> {
    hurry(stream)?;
    let mut len = [0; 2];
    let (first, second) = len.split_at_mut(1);
    loop {
        match stream.read(first) {
            Ok(0) => return Ok(None),
            Ok(_) => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    stream.read_exact(second)?;
    let message = room
        .get_mut(..usize::from(u16::from_be_bytes(len)))
        .ok_or(ErrorKind::InvalidData)?;
    if let Some((last, before)) = message.split_last_mut() {
        stream.read_exact(before)?;
        loop {
            match stream.peek(std::slice::from_mut(last)) {
                Ok(0) => return Err(ErrorKind::UnexpectedEof.into()),
                Ok(_) => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(Some(message))
}

/// Has what comes next acknowledged without delay.
///
/// Debian's vpcd sends the length of a message and the message in two pieces, and keeps the
/// second back until the first is acknowledged. Linux would take 40 ms over that, every time.
fn hurry(stream: &TcpStream) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    std::os::linux::net::TcpStreamExt::set_quickack(stream, true)?;
    let _ = stream;
    Ok(())
}

/// Takes the last byte of a message from the connection.
fn take_last(mut stream: &TcpStream) -> io::Result<()> {
    stream.read_exact(&mut [0])
}

fn send(mut stream: &TcpStream, reply: &[u8]) -> io::Result<()> {
    let len = u16::try_from(reply.len()).map_err(|_| ErrorKind::InvalidData)?;
    // In one piece, or it may travel in two packets.
    stream.write_all(&[&len.to_be_bytes(), reply].concat())
}

/// Lets the command that has been received fail, as one that a card does not answer; to be
/// followed by closing the connection.
///
/// After an empty message vpcd waits for ever, and with it pcscd. After a connection closed
/// without any, the program is told that the command succeeded and the reply has no bytes. Only
/// a connection reset within a message makes an error of it (SCARD_E_NOT_TRANSACTED). A
/// connection that is closed with something unread in it is reset: hence the last byte.
fn fall_silent(mut stream: &TcpStream) {
    // If that fails, the connection has ended already.
    let _ = stream.write_all(&2_u16.to_be_bytes());
}

/// Bytes as a trace shows them.
struct Spaced<'a>(&'a [u8]);

impl fmt::Display for Spaced<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            f.write_char(' ')?;
            write!(f, "{byte:02X}")?;
        }
        Ok(())
    }
}
