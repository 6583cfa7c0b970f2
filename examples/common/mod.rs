//! What the examples share: a reader that shows what goes through it, and ways to print.
//!
//! | file | for |
//! |---|---|
//! | `args.rs` | options that every example has, keys on the command line, opening the card |
//! | `card.rs` | selecting and authenticating |
//! | `demo.rs` | a software card with several applications |
//! | `print.rs` | standard output and standard error
//! | `ndef.rs` | NDEF messages and the files of a Type 4 tag |
//! | `words.rs` | what the card's bytes mean, for people |
//! | `tree.rs`, `json.rs` | printing for people and for programs |
#![allow(dead_code, reason = "no example needs all of it")]

pub mod args;
pub mod card;
pub mod demo;
pub mod json;
pub mod ndef;
pub mod print;
pub mod tree;
pub mod words;

use std::cell::{Cell, RefCell};
use std::fmt;
use std::process::ExitCode;
use std::rc::Rc;

use desfire_ev1::{
    AsyncTransport, Link, LinkFormat, Machine, RunError, Traced, Transport, VirtualReader,
};

pub use print::{note, say};

/// Whatever goes wrong in an example ends up in front of a person.
pub type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

/// Ends an example: prints what went wrong, with its causes, to standard error.
pub fn exit(result: Outcome<()>) -> ExitCode {
    let Err(error) = result else {
        let Some(error) = print::trouble() else {
            return ExitCode::SUCCESS;
        };
        note(format_args!(
            "error: it is done, but not all could be printed: {error}"
        ));
        return ExitCode::FAILURE;
    };
    let mut text = error.to_string();
    note(format_args!("error: {text}"));
    let mut cause = error.source();
    while let Some(error) = cause {
        // Many errors say what their cause says.
        if !text.contains(&error.to_string()) {
            text = error.to_string();
            note(format_args!("  because: {text}"));
        }
        cause = error.source();
    }
    ExitCode::FAILURE
}

/// An error that says what could not be done; its cause says why.
#[derive(Debug)]
struct Failed {
    what: String,
    cause: Box<dyn std::error::Error>,
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for Failed {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&*self.cause)
    }
}

/// Adds to an error what could not be done because of it.
pub trait Context<T> {
    fn context(self, what: impl fmt::Display) -> Outcome<T>;
}

impl<T, E: Into<Box<dyn std::error::Error>>> Context<T> for Result<T, E> {
    fn context(self, what: impl fmt::Display) -> Outcome<T> {
        self.map_err(|cause| {
            let (what, cause) = (what.to_string(), cause.into());
            Failed { what, cause }.into()
        })
    }
}

/// Ends an example that was called wrongly.
pub fn usage(error: impl fmt::Display) -> ExitCode {
    note(format_args!("error: {error}\nTry --help."));
    ExitCode::from(2)
}

/// What has gone over the link.
#[derive(Clone, Copy, Default)]
pub struct Traffic {
    pub exchanges: usize,
    pub to_card: usize,
    pub from_card: usize,
}

/// How many bytes one printed line shows.
const BYTES_PER_LINE: usize = 24;

/// The card of an example: the software card, or one on a reader.
pub enum AnyReader {
    Software(Box<VirtualReader>),
    #[cfg(feature = "pcsc")]
    Pcsc(Box<desfire_ev1::pcsc::PcscCard>),
}

/// A card on a reader of the PC/SC service: on the one whose name contains `name`, or on any.
#[cfg(feature = "pcsc")]
pub fn open_pcsc(name: Option<&str>) -> Outcome<AnyReader> {
    use std::time::Duration;

    use desfire_ev1::pcsc::{PcscContext, PcscError};

    const PATIENCE: Duration = Duration::from_secs(15);
    let context = PcscContext::new()?;
    let card = match context.wait_for_card(name, Duration::ZERO) {
        Err(PcscError::NoCard { .. }) => {
            note("Put a card on the reader ...");
            context.wait_for_card(name, PATIENCE)?
        }
        Err(PcscError::ReaderBusy) => context.wait_for_card(name, PATIENCE)?,
        found => found?,
    };
    // A name may come from the reader itself, and must not move the cursor.
    note(format_args!("Card on {}", card.reader().escape_debug()));
    Ok(AnyReader::Pcsc(Box::new(card)))
}

/// Says how to get at readers.
#[cfg(not(feature = "pcsc"))]
pub fn open_pcsc(_name: Option<&str>) -> Outcome<AnyReader> {
    Err("this example was built without readers; build it with --features pcsc".into())
}

/// How either kind of reader fails.
#[derive(Debug)]
pub struct ReaderError(pub Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for ReaderError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl std::error::Error for ReaderError {}

impl Link for AnyReader {
    type Error = ReaderError;

    fn format(&self) -> LinkFormat {
        match self {
            Self::Software(reader) => reader.format(),
            #[cfg(feature = "pcsc")]
            Self::Pcsc(card) => card.format(),
        }
    }
}

impl Transport for AnyReader {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, ReaderError> {
        match self {
            Self::Software(reader) => Transport::exchange(&mut **reader, command, reply)
                .map_err(|error| ReaderError(Box::new(error))),
            #[cfg(feature = "pcsc")]
            Self::Pcsc(card) => Transport::exchange(&mut **card, command, reply)
                .map_err(|error| ReaderError(Box::new(error))),
        }
    }
}

impl AsyncTransport for AnyReader {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, ReaderError> {
        // Both kinds answer when they answer; there is nothing else to do meanwhile.
        Transport::exchange(self, command, reply)
    }
}

type Show = Box<dyn FnMut(&[u8], &[u8])>;

/// A card on a reader, with a trace of every byte if wanted.
pub struct Desk {
    reader: Traced<AnyReader, Show>,
    asynchronous: bool,
    traffic: Rc<Cell<Traffic>>,
    lines: Rc<RefCell<Vec<String>>>,
}

impl Desk {
    /// Puts a card on the desk; its commands run over the async driver if asked for.
    pub fn new(reader: AnyReader, asynchronous: bool) -> Self {
        let traffic = Rc::new(Cell::new(Traffic::default()));
        let lines = Rc::new(RefCell::new(Vec::new()));
        let (counted, kept) = (Rc::clone(&traffic), Rc::clone(&lines));
        let show: Show = Box::new(move |command, reply| {
            let mut traffic: Traffic = counted.get();
            traffic.exchanges += 1;
            traffic.to_card += command.len();
            traffic.from_card += reply.len();
            counted.set(traffic);
            kept.borrow_mut().extend(hex_lines('>', command));
            kept.borrow_mut().extend(hex_lines('<', reply));
        });
        Self {
            reader: Traced::new(reader, show),
            asynchronous,
            traffic,
            lines,
        }
    }

    /// What has gone over the link since the last time.
    pub fn take_traffic(&mut self) -> Traffic {
        self.traffic.take()
    }

    /// Runs one command and prints it: what it is for, how it is protected, the bytes, the result.
    pub fn step<M: Machine>(
        &mut self,
        what: &str,
        protection: &str,
        machine: M,
        result: impl FnOnce(&M::Output) -> String,
    ) -> Result<M::Output, RunError<ReaderError>> {
        let name = machine.command().to_string();
        say(format_args!("  {what:<34} {name:<24} {protection}"));
        let done = if self.asynchronous {
            pollster::block_on(machine.run_async(&mut self.reader))
        } else {
            machine.run(&mut self.reader)
        };
        for line in self.lines.borrow_mut().drain(..) {
            say(line);
        }
        if let Ok(output) = &done {
            say(format_args!("    = {}", result(output)));
        }
        done
    }
}

fn hex_lines(direction: char, bytes: &[u8]) -> Vec<String> {
    bytes
        .chunks(BYTES_PER_LINE)
        .enumerate()
        .map(|(index, chunk)| {
            let mark = if index == 0 { direction } else { ' ' };
            let digits: Vec<String> = chunk.iter().map(|byte| format!("{byte:02X}")).collect();
            format!("    {mark} {}", digits.join(" "))
        })
        .collect()
}
