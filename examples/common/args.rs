//! The options that every example has, keys on the command line, and the card they name.

use std::ffi::OsString;
use std::process::ExitCode;

use desfire_ev1::wire::{Aid, KeyNo, KeyType};
use desfire_ev1::{Key, VirtualReader};
use lexopt::prelude::*;
use zeroize::Zeroizing;

use super::card::Card;
use super::{AnyReader, Outcome, print, usage};

/// What stands for `{common}` in a help text.
const COMMON: &str =
    "  --reader [NAME]     the card on the PC/SC reader whose name contains NAME, or on the
                      first one (built with --features pcsc); without it, a software card
  --trace             show every byte to the card (>) and from it (<), on standard error
  --help              this text";

/// What stands for `{keys}` in a help text.
const KEYS: &str = "\
Keys are TYPE:HEX or TYPE:HEX:VERSION. TYPE is des, 2k3des, 3k3des or aes; HEX are the
key's 8, 16, 24 or 16 bytes, or the word zero; VERSION is a byte in hex, which a DES key
keeps in its lowest bits. A key on the command line can be seen by other users of this
computer while the program runs, and stays in the shell's history. Safer is the
environment:";

/// The options that every example has.
#[derive(Default)]
pub struct Options {
    /// Given, and perhaps with a name.
    reader: Option<Option<String>>,
    trace: bool,
}

/// Reads the command line. `own` takes the example's own options and says whether it knows one;
/// `{common}` and `{keys}` in the help text are replaced.
///
/// The error is the exit code with which the example ends, everything having been said.
pub fn parse(
    help: &str,
    mut own: impl FnMut(&str, &mut lexopt::Parser) -> Result<bool, lexopt::Error>,
) -> Result<Options, ExitCode> {
    let mut options = Options::default();
    let mut parser = lexopt::Parser::from_env();
    loop {
        let name = match parser.next() {
            Ok(None) => return Ok(options),
            Ok(Some(Short('h'))) => "help".to_owned(),
            Ok(Some(Long(name))) => name.to_owned(),
            // It may be a key, so it is not repeated.
            Ok(Some(Value(_))) => return Err(usage("there is an argument without an option")),
            Ok(Some(other)) => return Err(usage(other.unexpected())),
            Err(error) => return Err(usage(error)),
        };
        match name.as_str() {
            "help" => {
                let text = help.replace("{common}", COMMON).replace("{keys}", KEYS);
                print::print(text);
                return Err(super::exit(Ok(())));
            }
            "trace" => options.trace = true,
            "reader" => match reader_name(&mut parser) {
                Ok(reader) => options.reader = Some(reader),
                Err(error) => return Err(usage(error)),
            },
            own_name => match own(own_name, &mut parser) {
                Ok(true) => {}
                Ok(false) => return Err(usage(format!("there is no option --{own_name}"))),
                Err(error) => return Err(usage(error)),
            },
        }
    }
}

/// `--reader=NAME`, `--reader NAME`, or nothing.
fn reader_name(parser: &mut lexopt::Parser) -> Result<Option<String>, lexopt::Error> {
    let no_option = |next: &std::ffi::OsStr| !next.to_string_lossy().starts_with('-');
    let given = parser.optional_value().or_else(|| {
        let mut rest = parser.try_raw_args()?;
        rest.next_if(no_option)
    });
    given.map(OsString::string).transpose()
}

impl Options {
    /// Whether the card is a software card.
    pub fn on_software_card(&self) -> bool {
        self.reader.is_none()
    }

    /// Which reader, if one was named.
    pub fn reader_name(&self) -> Option<&str> {
        self.reader.as_ref()?.as_deref()
    }

    /// The card on the reader that was asked for, or a software card.
    pub fn open(&self, software: impl FnOnce() -> Outcome<VirtualReader>) -> Outcome<Card> {
        Ok(self.watch(self.open_reader(software)?))
    }

    /// A card with the trace that was asked for, or without.
    pub fn watch(&self, reader: AnyReader) -> Card {
        super::card::watch(reader, self.trace)
    }

    /// The same without a trace.
    pub fn open_reader(
        &self,
        software: impl FnOnce() -> Outcome<VirtualReader>,
    ) -> Outcome<AnyReader> {
        match &self.reader {
            None => Ok(AnyReader::Software(Box::new(software()?))),
            Some(name) => super::open_pcsc(name.as_deref()),
        }
    }
}

/// Takes the value of an option that is a key, without ever printing it.
pub fn key(parser: &mut lexopt::Parser) -> Result<Key, lexopt::Error> {
    let text = parser.value()?.into_string();
    let text = Zeroizing::new(text.map_err(|_| "the key is not text")?);
    Ok(parse_key(&text)?)
}

/// The key in an environment variable, if there is one.
pub fn key_from_environment(name: &str) -> Result<Option<Key>, String> {
    let Some(text) = std::env::var_os(name) else {
        return Ok(None);
    };
    let text = text
        .into_string()
        .map_err(|_| format!("{name} is not text"))?;
    let key = parse_key(&Zeroizing::new(text)).map_err(|error| format!("{name}: {error}"))?;
    Ok(Some(key))
}

fn parse_key(text: &str) -> Result<Key, String> {
    let mut parts = text.split(':');
    let (key_type, digits, version) = (parts.next(), parts.next(), parts.next());
    let (Some(key_type), Some(digits), None) = (key_type, digits, parts.next()) else {
        return Err("a key is TYPE:HEX or TYPE:HEX:VERSION".to_owned());
    };
    let (key_type, len) = match key_type.to_ascii_lowercase().as_str() {
        "des" => (KeyType::Des, 8),
        "2k3des" => (KeyType::TwoKey3Des, 16),
        "3k3des" => (KeyType::ThreeKey3Des, 24),
        "aes" => (KeyType::Aes, 16),
        _ => return Err("the type of a key is des, 2k3des, 3k3des or aes".to_owned()),
    };
    let bytes = if digits == "zero" {
        vec![0; len]
    } else {
        bytes_from_hex(digits).ok_or("the key is not hexadecimal")?
    };
    let bytes = Zeroizing::new(bytes);
    let key = Key::from_slice(key_type, &bytes).map_err(|error| error.to_string())?;
    let Some(version) = version else {
        return Ok(key);
    };
    match u8::from_str_radix(version, 16) {
        Ok(version) => Ok(key.with_version(version)),
        Err(_) => Err("the version of a key is a byte in hex, as in aes:zero:1F".to_owned()),
    }
}

/// Bytes from an even number of hexadecimal digits.
pub fn bytes_from_hex(digits: &str) -> Option<Vec<u8>> {
    let digits: Option<Vec<u8>> = digits
        .chars()
        .map(|digit| u8::try_from(digit.to_digit(16)?).ok())
        .collect();
    let digits = Zeroizing::new(digits?);
    let mut bytes = Vec::with_capacity(digits.len() / 2);
    for pair in digits.chunks(2) {
        let [high, low] = pair else { return None };
        bytes.push(high << 4 | low);
    }
    Some(bytes)
}

/// Takes the value of an option that is an AID: a number in hex, `000000` for the card itself.
pub fn aid(parser: &mut lexopt::Parser) -> Result<Aid, lexopt::Error> {
    parser.value()?.parse_with(|text| {
        let number = u32::from_str_radix(text, 16).ok();
        let aid = number.and_then(|number| Aid::new(number).ok());
        aid.ok_or("an AID is a number in hex, at most FFFFFF")
    })
}

/// Takes the value of an option that is a key number.
pub fn key_no(parser: &mut lexopt::Parser) -> Result<KeyNo, lexopt::Error> {
    parser.value()?.parse_with(|text| {
        let number = text.parse().ok();
        let key_no = number.and_then(|number| KeyNo::new(number).ok());
        key_no.ok_or("a key number is 0 to 13")
    })
}
