//! The test vectors of `tests/vectors/`, and the strict parser for them.
//!
//! Each file opens with a heading that tells what it holds, how it reads and what its fields mean. A test takes a file
//! with [`load`] and asks the vectors for their fields by name:
//!
//! ```ignore
//! #[path = "support/vectors.rs"]
//! mod vectors;
//!
//! for vector in vectors::load("crc.txt") {
//!     let message = vector.input.hex("message");
//!     assert_eq!(crc(&message), vector.expect.hex("crc"), "{vector}");
//! }
//! ```
//!
//! The parser takes nothing for granted: a file that is missing, empty or cut off, a line or a word it does not know, a
//! field out of order or missing, a duplicate id or bad hex is refused with its file and line. There is one way to write
//! each thing. So a vector cannot drop out of a test without a sound. Asking for a field that the kind of vector does not
//! have panics too, also where the field is optional.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::panic,
    reason = "shared by several test programs, each of which uses a part; a test speaks by panicking"
)]

use std::collections::BTreeSet;
use std::fmt;
use std::iter::{Enumerate, Peekable};
use std::path::{Path, PathBuf};
use std::str::Lines;

/// Every file there is, for a test that wants all of them.
pub const FILES: &[&str] = &[
    "auth_handshake.txt",
    "changekey.txt",
    "cmac_sequence.txt",
    "crc.txt",
    "diversification.txt",
    "enciphered_exchange.txt",
    "ev2_extra.txt",
    "full_session.txt",
    "generated_auth_handshake.txt",
    "generated_changekey.txt",
    "generated_enciphered_exchange.txt",
    "generated_full_session.txt",
    "generated_session_key.txt",
    "key_version.txt",
    "primitive.txt",
    "session_key.txt",
];

/// Reads one file of `tests/vectors/`, for instance `crc.txt`.
///
/// # Panics
///
/// When the file cannot be read or is not exactly what it should be; the message names the file and the line.
pub fn load(name: &str) -> Vec<Vector> {
    let path = directory().join(name);
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) => panic!("{}: {error}", path.display()),
    };
    match parse(name, &text) {
        Ok(vectors) => vectors,
        Err(error) => panic!("{error}"),
    }
}

/// Reads every file of [`FILES`].
///
/// # Panics
///
/// As [`load`] does.
pub fn load_all() -> Vec<Vector> {
    FILES.iter().flat_map(|name| load(name)).collect()
}

/// Where the files are.
fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors")
}

/// Reads the text of a file; `file` is its name, for messages.
///
/// # Errors
///
/// When anything at all is not as it should be.
pub fn parse(file: &str, text: &str) -> Result<Vec<Vector>, ParseError> {
    Parser::new(file, text).file()
}

/// What is wrong with a file, and where.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParseError {
    /// Name of the file.
    pub file: String,
    /// Line in the file, the first being 1.
    pub line: usize,
    /// What is wrong.
    pub what: String,
}

impl fmt::Display for ParseError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.file, self.line, self.what)
    }
}

impl std::error::Error for ParseError {}

/// One vector. Prints as `file:line id`, which is what the message of an assertion wants.
#[derive(Debug, Clone)]
pub struct Vector {
    /// Name of the file it stands in.
    pub file: String,
    /// Its first line in that file.
    pub line: usize,
    /// What it is about, for instance `session_key`.
    pub kind: String,
    /// Its name, unique among all vectors.
    pub id: String,
    /// Where its bytes come from.
    pub origin: Origin,
    /// The public place the values were taken from.
    pub source: String,
    /// The id of the vector this one was cut out of.
    pub parent: Option<String>,
    /// A remark.
    pub note: Option<String>,
    /// The inputs. Empty in a `full_session`.
    pub input: Fields,
    /// The messages of a `cmac_sequence`, else empty.
    pub messages: Vec<Message>,
    /// What comes out. Empty in a `full_session`.
    pub expect: Fields,
    /// Something a card refused, as evidence.
    pub rejected: Option<Rejected>,
    /// What lay on the reader; a `full_session` has it.
    pub card: Option<String>,
    /// The form the frames were recorded in; a `full_session` has it.
    pub wrapping: Option<Wrapping>,
    /// The steps of a `full_session` in order, else empty.
    pub steps: Vec<Step>,
}

impl fmt::Display for Vector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{} {}", self.file, self.line, self.id)
    }
}

/// Where the bytes of a vector come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Bytes exchanged with a physical card.
    Card,
    /// Test data of another implementation or of a document.
    Published,
    /// Generated by the independent implementation.
    Oracle,
}

/// The form the frames of a session were recorded in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wrapping {
    /// Native frames; there are no APDUs.
    Native,
    /// Native frames wrapped in ISO 7816-4 APDUs; every frame has both.
    Iso7816,
}

/// One message of a `cmac_sequence`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Which way it went.
    pub direction: Direction,
    /// Name of the command it belongs to, or `raw`.
    pub name: String,
    /// How many bytes of its CMAC go over the air.
    pub sent_bytes: usize,
    /// What the CMAC is computed over.
    pub bytes: Vec<u8>,
}

/// Which way a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Reader to card.
    Tx,
    /// Card to reader.
    Rx,
}

/// A frame that a card refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejected {
    /// The native frame sent.
    pub tx: Vec<u8>,
    /// The card's answer.
    pub rx: Vec<u8>,
    /// What was wrong with it.
    pub why: String,
}

/// One step of a session.
#[derive(Debug, Clone)]
pub struct Step {
    /// Its line in the file.
    pub line: usize,
    /// What sort of step it is.
    pub op: Op,
    /// Name of the command.
    pub name: String,
    /// Its fields.
    pub fields: Fields,
    /// The frames exchanged, at least one.
    pub frames: Vec<Frame>,
}

/// The sorts of steps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Op {
    /// An authentication.
    Auth,
    /// A command other than those.
    Command,
    /// `ChangeKey`.
    ChangeKey,
}

/// One frame and its answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// Reader to card, native form: the command or `AF` first.
    pub tx: Vec<u8>,
    /// Card to reader, native form: the status first.
    pub rx: Vec<u8>,
    /// Reader to card as recorded, in an `iso7816` session.
    pub tx_apdu: Option<Vec<u8>>,
    /// Card to reader as recorded, in an `iso7816` session.
    pub rx_apdu: Option<Vec<u8>>,
}

/// Named values.
///
/// Every accessor panics, naming the vector and the field, when this kind of vector has no field of that name or when
/// the field is of another sort. The `opt_` accessors give `None` both for a line that is missing and for the value `-`;
/// the others panic then.
#[derive(Debug, Clone, Default)]
pub struct Fields {
    owner: String,
    rules: &'static [Rule],
    values: Vec<(&'static str, Value)>,
}

impl Fields {
    /// Whether there is a line of this name, be its value `-` or not.
    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    /// A byte string.
    pub fn hex(&self, name: &str) -> Vec<u8> {
        self.given(name, self.opt_hex(name))
    }

    /// A byte string that need not be there.
    pub fn opt_hex(&self, name: &str) -> Option<Vec<u8>> {
        self.value(name).map(|value| self.bytes(name, value))
    }

    /// A byte string of a known length.
    pub fn array<const N: usize>(&self, name: &str) -> [u8; N] {
        match self.hex(name).try_into() {
            Ok(array) => array,
            Err(bytes) => self.fail(name, &format!("has {} bytes, not {N}", bytes.len())),
        }
    }

    /// A code of one byte.
    pub fn byte(&self, name: &str) -> u8 {
        let [byte] = self.array(name);
        byte
    }

    /// A list of byte strings.
    pub fn hex_list(&self, name: &str) -> Vec<Vec<u8>> {
        self.opt_hex_list(name)
            .into_iter()
            .map(|element| self.given(name, element))
            .collect()
    }

    /// A list of byte strings with gaps; ask [`has`](Self::has) first where the list is optional.
    pub fn opt_hex_list(&self, name: &str) -> Vec<Option<Vec<u8>>> {
        if !self.rule(name).list {
            self.fail(name, "is not a list");
        }
        let list: Vec<_> = self
            .all(name)
            .into_iter()
            .map(|value| match value {
                Value::Nothing => None,
                value => Some(self.bytes(name, value)),
            })
            .collect();
        self.given(name, (!list.is_empty()).then_some(list))
    }

    /// A word.
    pub fn text(&self, name: &str) -> &str {
        self.given(name, self.opt_text(name))
    }

    /// A word that need not be there.
    pub fn opt_text(&self, name: &str) -> Option<&str> {
        self.value(name).map(|value| match value {
            Value::Word(word) => word.as_str(),
            _ => self.fail(name, "is not a word"),
        })
    }

    /// A number, in the type the caller wants.
    pub fn number<T: TryFrom<u64>>(&self, name: &str) -> T {
        self.given(name, self.opt_number(name))
    }

    /// A number that need not be there.
    pub fn opt_number<T: TryFrom<u64>>(&self, name: &str) -> Option<T> {
        self.value(name).map(|value| match value {
            Value::Number(number) => match T::try_from(*number) {
                Ok(number) => number,
                Err(_) => self.fail(name, "does not fit the type asked for"),
            },
            _ => self.fail(name, "is not a number"),
        })
    }

    /// A truth value.
    pub fn flag(&self, name: &str) -> bool {
        self.given(name, self.opt_flag(name))
    }

    /// A truth value that need not be there.
    pub fn opt_flag(&self, name: &str) -> Option<bool> {
        self.value(name).map(|value| match value {
            Value::Flag(flag) => *flag,
            _ => self.fail(name, "is not a flag"),
        })
    }

    /// The values of all lines of this name.
    fn all(&self, name: &str) -> Vec<&Value> {
        self.rule(name);
        let named = self.values.iter().filter(|(known, _)| *known == name);
        named.map(|(_, value)| value).collect()
    }

    /// The value of a field that is no list, unless it is missing or `-`.
    fn value(&self, name: &str) -> Option<&Value> {
        if self.rule(name).list {
            self.fail(name, "is a list");
        }
        let value = self.all(name).first().copied()?;
        (*value != Value::Nothing).then_some(value)
    }

    fn rule(&self, name: &str) -> &Rule {
        match self.rules.iter().find(|rule| rule.name == name) {
            Some(rule) => rule,
            None => self.fail(name, "is not a field of this kind of vector"),
        }
    }

    fn bytes(&self, name: &str, value: &Value) -> Vec<u8> {
        match value {
            Value::Hex(bytes) => bytes.clone(),
            _ => self.fail(name, "is not a byte string"),
        }
    }

    fn given<T>(&self, name: &str, value: Option<T>) -> T {
        match value {
            Some(value) => value,
            None => self.fail(name, "is missing"),
        }
    }

    fn fail(&self, name: &str, what: &str) -> ! {
        panic!("{}: field `{name}` {what}", self.owner)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Value {
    Nothing,
    Hex(Vec<u8>),
    Number(u64),
    Flag(bool),
    Word(String),
}

/// What the lines of one name may hold. The order of the rules is the order of the lines.
#[derive(Debug, Clone, Copy)]
struct Rule {
    name: &'static str,
    form: Form,
    /// Whether there may be no line.
    optional: bool,
    /// Whether there may be several lines, each an element.
    list: bool,
    /// Whether the value may be `-`.
    nothing: bool,
}

impl Rule {
    /// A field with exactly one line.
    const fn new(name: &'static str, form: Form) -> Self {
        Self {
            name,
            form,
            optional: false,
            list: false,
            nothing: false,
        }
    }

    const fn optional(self) -> Self {
        Self {
            optional: true,
            ..self
        }
    }

    const fn list(self) -> Self {
        Self { list: true, ..self }
    }

    const fn or_nothing(self) -> Self {
        Self {
            nothing: true,
            ..self
        }
    }
}

/// How a value is written.
#[derive(Debug, Clone, Copy)]
enum Form {
    /// Any byte string.
    Hex,
    /// A byte string of one byte.
    Code,
    Number,
    Flag,
    /// The name of a command.
    Name,
    /// One of these words.
    Word(&'static [&'static str]),
    /// The four members of a [`Message`].
    Message,
}

use Form::{Code, Flag, Hex, Name, Number, Word};

const KEY_TYPE: Form = Word(&["DES", "2K3DES", "3K3DES", "AES"]);
const SCHEME: Form = Word(&["d40", "ev1"]);
/// Inside secure messaging.
const COMM: Form = Word(&["plain", "mac", "enc"]);
/// In a session, parts of which are outside of it.
const STEP_COMM: Form = Word(&["none", "plain", "mac", "enc"]);
const OUTCOME: Form = Word(&["accepted", "computed"]);
const COMPARE: Form = Word(&["masked", "exact"]);
const ALGORITHM: Form = Word(&["crc16", "crc32"]);
const DIRECTION: Form = Word(&["command", "response"]);
const PRIMITIVE: Form = Word(&[
    "cmac_subkeys",
    "cbc_encrypt",
    "cbc_decrypt",
    "d40_send",
    "d40_receive",
]);

/// `rules! { name: form mark mark, ... }`
macro_rules! rules {
    ($($name:ident: $form:path $([$($mark:ident)+])?),* $(,)?) => {
        const { &[$(Rule::new(stringify!($name), $form)$($(.$mark())+)?),*] }
    };
}

/// The inputs and the expectations of a kind of vector; `None` for a kind that does not exist.
fn rules_of_kind(kind: &str) -> Option<(&'static [Rule], &'static [Rule])> {
    Some(match kind {
        "auth_handshake" => (
            rules! { auth: Code, key_no: Number, key_type: KEY_TYPE, key: Hex, rnd_a: Hex, rx: Hex [list] },
            rules! {
                tx: Hex [list], rx2: Hex [optional], rnd_b: Hex, scheme: SCHEME, session_key_type: KEY_TYPE,
                session_key: Hex, outcome: OUTCOME,
            },
        ),
        "session_key" => (
            rules! { key_type: KEY_TYPE, rnd_a: Hex, rnd_b: Hex },
            rules! { session_key: Hex, compare: COMPARE },
        ),
        "cmac_sequence" => (
            rules! { key_type: KEY_TYPE, key: Hex, iv: Hex, message: Form::Message [list] },
            rules! { cmac: Hex [list or_nothing], truncated: Hex [optional list or_nothing] },
        ),
        "enciphered_exchange" => (
            rules! {
                scheme: SCHEME, session_key_type: KEY_TYPE, session_key: Hex, iv: Hex [or_nothing], name: Name,
                cmd: Code, header: Hex, data: Hex, tx_comm: COMM, rx_comm: COMM, rx_status: Code,
                rx_payload: Hex, rx_length: Number [or_nothing],
            },
            rules! {
                tx_payload: Hex, rx_data: Hex, rx_padding: Hex [optional], iv_after_tx: Hex [or_nothing],
                iv_after_rx: Hex [or_nothing],
            },
        ),
        "changekey" => (
            rules! {
                scheme: SCHEME, session_key_type: KEY_TYPE, session_key: Hex, auth_key_no: Number,
                iv: Hex [or_nothing], key_no: Code, new_key_type: KEY_TYPE, new_key: Hex,
                new_key_version: Number, old_key_type: KEY_TYPE [or_nothing], old_key: Hex [or_nothing],
                same_key: Flag,
            },
            rules! { plaintext: Hex, tx: Hex, iv_after: Hex [or_nothing] },
        ),
        "diversification" => (
            rules! {
                key_type: KEY_TYPE, key: Hex, data: Hex, pad_to: Number [optional],
                keep_version: Flag [optional],
            },
            rules! { key: Hex },
        ),
        "crc" => (
            rules! { algorithm: ALGORITHM, message: Hex },
            rules! { crc: Hex },
        ),
        "key_version" => (
            rules! { key_type: KEY_TYPE, key: Hex },
            rules! { version: Number },
        ),
        "primitive" => (
            rules! { op: PRIMITIVE, key_type: KEY_TYPE, key: Hex, iv: Hex [optional], data: Hex [optional] },
            rules! { k1: Hex [optional], k2: Hex [optional], data: Hex [optional] },
        ),
        "ev2_session_key" => (
            rules! { key: Hex, rnd_a: Hex, rnd_b: Hex },
            rules! { enc_key: Hex, mac_key: Hex },
        ),
        "ev2_mac" => (
            rules! { mac_key: Hex, code: Code, counter: Number, ti: Hex, data: Hex },
            rules! { mac: Hex },
        ),
        "ev2_iv" => (
            rules! { enc_key: Hex, ti: Hex, counter: Number, direction: DIRECTION },
            rules! { iv: Hex },
        ),
        "full_session" => (&[], &[]),
        _ => return None,
    })
}

/// The fields of a step.
fn rules_of_step(op: Op) -> &'static [Rule] {
    match op {
        Op::Auth => rules! {
            auth: Code, key_no: Number, key_type: KEY_TYPE, key: Hex, rnd_a: Hex, rnd_b: Hex, scheme: SCHEME,
            session_key_type: KEY_TYPE, session_key: Hex,
        },
        Op::Command => rules! {
            cmd: Code, header: Hex, data: Hex, tx_comm: STEP_COMM, rx_comm: STEP_COMM, rx_status: Code, rx_data: Hex,
            rx_length_known: Flag [optional], rx_padding: Hex [optional], iv_after_tx: Hex [optional],
            iv_after_rx: Hex [optional], ends_session: Flag [optional],
        },
        Op::ChangeKey => rules! {
            cmd: Code, key_no: Code, new_key_type: KEY_TYPE, new_key: Hex, new_key_version: Number,
            old_key_type: KEY_TYPE [or_nothing], old_key: Hex [or_nothing], same_key: Flag, plaintext: Hex,
            rx_comm: STEP_COMM, rx_status: Code, rx_data: Hex, iv_after_tx: Hex [optional],
            iv_after_rx: Hex [optional], ends_session: Flag [optional],
        },
    }
}

/// Goes through a file line by line.
struct Parser<'a> {
    file: &'a str,
    lines: Peekable<Enumerate<Lines<'a>>>,
    /// The line last taken, the first being 1.
    line: usize,
}

impl<'a> Parser<'a> {
    fn new(file: &'a str, text: &'a str) -> Self {
        Self {
            file,
            lines: text.lines().enumerate().peekable(),
            line: 0,
        }
    }

    /// Heading, vectors, end.
    fn file(mut self) -> Result<Vec<Vector>, ParseError> {
        if self.peek().is_none() {
            return self.fail("the file is empty");
        }
        while self.peek().is_some_and(|line| line.starts_with('#')) {
            self.next();
        }
        let mut vectors = Vec::new();
        let mut ids = BTreeSet::new();
        loop {
            self.exact("")?;
            if let Some(count) = self.after("end ") {
                return self.end(count, vectors);
            }
            let head = self.due("vector ")?;
            let vector = self.vector(head)?;
            if !ids.insert(vector.id.clone()) {
                self.line = vector.line;
                return self.fail(format!("the id {} occurs twice", vector.id));
            }
            vectors.push(vector);
        }
    }

    fn end(mut self, count: &str, vectors: Vec<Vector>) -> Result<Vec<Vector>, ParseError> {
        let count = self.number(count)?;
        let found = vectors.len();
        if u64::try_from(found) != Ok(count) {
            return self.fail(format!("{count} vectors are announced, {found} are here"));
        }
        if found == 0 {
            return self.fail("there is no vector");
        }
        match self.next() {
            Some(line) => self.fail(format!("unexpected line `{line}` after the end")),
            None => Ok(vectors),
        }
    }

    fn vector(&mut self, head: &str) -> Result<Vector, ParseError> {
        let line = self.line;
        let [kind, id] = self.words(head)?;
        let Some((inputs, expectations)) = rules_of_kind(kind) else {
            return self.fail(format!("unknown kind `{kind}`"));
        };
        let origin = match self.due("  origin ")? {
            "card" => Origin::Card,
            "published" => Origin::Published,
            "oracle" => Origin::Oracle,
            other => return self.fail(format!("unknown origin `{other}`")),
        };
        let mut vector = Vector {
            file: self.file.to_owned(),
            line,
            kind: kind.to_owned(),
            id: id.to_owned(),
            origin,
            source: self.due_sentence("  source ")?,
            parent: self.sentence_if("  parent ")?,
            note: self.sentence_if("  note ")?,
            input: Fields::default(),
            messages: Vec::new(),
            expect: Fields::default(),
            rejected: None,
            card: None,
            wrapping: None,
            steps: Vec::new(),
        };
        if kind == "full_session" {
            vector.card = Some(self.due_sentence("  card ")?);
            let wrapping = match self.due("  wrapping ")? {
                "native" => Wrapping::Native,
                "iso7816" => Wrapping::Iso7816,
                other => return self.fail(format!("unknown wrapping `{other}`")),
            };
            vector.wrapping = Some(wrapping);
            vector.steps.push(self.step(id, wrapping)?);
            while self.peek().is_some_and(|line| line.starts_with("  step ")) {
                vector.steps.push(self.step(id, wrapping)?);
            }
            // Asked for a field, these say which vector it was.
            vector.input.owner = vector.to_string();
            vector.expect.owner = vector.to_string();
        } else {
            self.exact("  input")?;
            vector.input =
                self.fields(&format!("{vector}, input"), inputs, &mut vector.messages)?;
            self.exact("  expect")?;
            vector.expect = self.fields(
                &format!("{vector}, expect"),
                expectations,
                &mut vector.messages,
            )?;
            if self.peek() == Some("  rejected") {
                vector.rejected = Some(self.rejected()?);
            }
        }
        Ok(vector)
    }

    fn rejected(&mut self) -> Result<Rejected, ParseError> {
        self.exact("  rejected")?;
        let tx = self.due("    tx ")?;
        let tx = self.some_bytes(tx)?;
        let rx = self.due("    rx ")?;
        let rx = self.some_bytes(rx)?;
        Ok(Rejected {
            tx,
            rx,
            why: self.due_sentence("    why ")?,
        })
    }

    fn step(&mut self, id: &str, wrapping: Wrapping) -> Result<Step, ParseError> {
        let head = self.due("  step ")?;
        let line = self.line;
        let [op, name] = self.words(head)?;
        let name = self.name(name)?;
        let op = match op {
            "auth" => Op::Auth,
            "command" => Op::Command,
            "changekey" => Op::ChangeKey,
            other => return self.fail(format!("unknown sort of step `{other}`")),
        };
        let owner = format!("{}:{line} {id}, step {name}", self.file);
        let fields = self.fields(&owner, rules_of_step(op), &mut Vec::new())?;
        let mut frames = vec![self.frame(wrapping)?];
        while self.peek().is_some_and(|line| line.starts_with("    > ")) {
            frames.push(self.frame(wrapping)?);
        }
        Ok(Step {
            line,
            op,
            name,
            fields,
            frames,
        })
    }

    fn frame(&mut self, wrapping: Wrapping) -> Result<Frame, ParseError> {
        let (tx, tx_apdu) = self.one_way("    > ", "    >> ", wrapping)?;
        let (rx, rx_apdu) = self.one_way("    < ", "    << ", wrapping)?;
        Ok(Frame {
            tx,
            rx,
            tx_apdu,
            rx_apdu,
        })
    }

    /// The native form and, in a wrapped session, the APDU.
    fn one_way(
        &mut self,
        native: &str,
        apdu: &str,
        wrapping: Wrapping,
    ) -> Result<(Vec<u8>, Option<Vec<u8>>), ParseError> {
        let bytes = self.due(native)?;
        let bytes = self.some_bytes(bytes)?;
        match wrapping {
            Wrapping::Native => Ok((bytes, None)),
            Wrapping::Iso7816 => {
                let wrapped = self.due(apdu)?;
                Ok((bytes, Some(self.some_bytes(wrapped)?)))
            }
        }
    }

    /// The lines that these rules describe, in their order.
    fn fields(
        &mut self,
        owner: &str,
        rules: &'static [Rule],
        messages: &mut Vec<Message>,
    ) -> Result<Fields, ParseError> {
        let mut values = Vec::new();
        for rule in rules {
            let mut found = false;
            while let Some(value) = self.field_if(rule.name) {
                found = true;
                if value == "-" && rule.nothing {
                    values.push((rule.name, Value::Nothing));
                } else if matches!(rule.form, Form::Message) {
                    messages.push(self.message(value)?);
                } else {
                    values.push((rule.name, self.value(rule.form, value)?));
                }
                if !rule.list {
                    break;
                }
            }
            if !found && !rule.optional {
                let due = format!("`{}`", rule.name);
                return self.unexpected(&due);
            }
        }
        Ok(Fields {
            owner: owner.to_owned(),
            rules,
            values,
        })
    }

    /// The value of the next line, if that is the field of this name.
    fn field_if(&mut self, name: &str) -> Option<&'a str> {
        let line = self.peek()?;
        let value = line
            .strip_prefix("    ")?
            .strip_prefix(name)?
            .strip_prefix(' ')?;
        self.next();
        Some(value)
    }

    fn value(&self, form: Form, text: &str) -> Result<Value, ParseError> {
        Ok(match form {
            Form::Hex => Value::Hex(self.bytes(text)?),
            Form::Code => match self.bytes(text)? {
                bytes if bytes.len() == 1 => Value::Hex(bytes),
                _ => return self.fail(format!("`{text}` is not a code of one byte")),
            },
            Form::Number => Value::Number(self.number(text)?),
            Form::Flag => match text {
                "true" => Value::Flag(true),
                "false" => Value::Flag(false),
                _ => return self.fail(format!("`{text}` is neither true nor false")),
            },
            Form::Word(words) if words.contains(&text) => Value::Word(text.to_owned()),
            Form::Name => Value::Word(self.name(text)?),
            Form::Word(_) | Form::Message => {
                return self.fail(format!("`{text}` is not a word known here"));
            }
        })
    }

    fn message(&self, text: &str) -> Result<Message, ParseError> {
        let [direction, name, sent, bytes] = self.words(text)?;
        let direction = match direction {
            "tx" => Direction::Tx,
            "rx" => Direction::Rx,
            _ => return self.fail(format!("`{direction}` is neither tx nor rx")),
        };
        let Ok(sent_bytes @ 0..=16) = usize::try_from(self.number(sent)?) else {
            return self.fail(format!("{sent} bytes are more than a CMAC has"));
        };
        Ok(Message {
            direction,
            name: self.name(name)?,
            sent_bytes,
            bytes: self.bytes(bytes)?,
        })
    }

    /// Exactly this many words with one space between them.
    fn words<'t, const N: usize>(&self, text: &'t str) -> Result<[&'t str; N], ParseError> {
        let words: Vec<_> = text.split(' ').collect();
        match <[&str; N]>::try_from(words) {
            Ok(words) if words.iter().all(|word| !word.is_empty()) => Ok(words),
            _ => self.fail(format!(
                "`{text}` is not {N} words with one space between them"
            )),
        }
    }

    fn name(&self, text: &str) -> Result<String, ParseError> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            Ok(text.to_owned())
        } else {
            self.fail(format!("`{text}` is not a name"))
        }
    }

    /// Decimal, without leading zeros.
    fn number(&self, text: &str) -> Result<u64, ParseError> {
        match text.parse::<u64>() {
            Ok(number) if number.to_string() == text => Ok(number),
            _ => self.fail(format!("`{text}` is not a number")),
        }
    }

    /// Lower-case hex, or `""`.
    fn bytes(&self, text: &str) -> Result<Vec<u8>, ParseError> {
        if text == "\"\"" {
            return Ok(Vec::new());
        }
        self.some_bytes(text)
    }

    /// Lower-case hex, at least one byte.
    fn some_bytes(&self, text: &str) -> Result<Vec<u8>, ParseError> {
        let (pairs, rest) = text.as_bytes().as_chunks::<2>();
        let bytes: Option<Vec<u8>> = pairs
            .iter()
            .map(|&[high, low]| Some(nibble(high)? << 4 | nibble(low)?))
            .collect();
        match bytes {
            Some(bytes) if rest.is_empty() && !bytes.is_empty() => Ok(bytes),
            _ => self.fail(format!("`{text}` is not lower-case hex")),
        }
    }

    fn due_sentence(&mut self, prefix: &str) -> Result<String, ParseError> {
        let text = self.due(prefix)?;
        self.sentence(text)
    }

    fn sentence_if(&mut self, prefix: &str) -> Result<Option<String>, ParseError> {
        self.after(prefix)
            .map(|text| self.sentence(text))
            .transpose()
    }

    fn sentence(&self, text: &str) -> Result<String, ParseError> {
        if text.is_empty() || text != text.trim() {
            return self.fail("there is no text here, or space around it");
        }
        Ok(text.to_owned())
    }

    /// Takes a line that must be exactly this one.
    fn exact(&mut self, wanted: &str) -> Result<(), ParseError> {
        if self.peek() == Some(wanted) {
            self.next();
            return Ok(());
        }
        match wanted.trim() {
            "" => self.unexpected("an empty line"),
            wanted => self.unexpected(&format!("`{wanted}`")),
        }
    }

    /// Takes a line that must begin so, and gives the rest of it.
    fn due(&mut self, prefix: &str) -> Result<&'a str, ParseError> {
        match self.after(prefix) {
            Some(rest) => Ok(rest),
            None => self.unexpected(&format!("`{}`", prefix.trim())),
        }
    }

    /// Takes the next line if it begins so, and gives the rest of it.
    fn after(&mut self, prefix: &str) -> Option<&'a str> {
        let rest = self.peek()?.strip_prefix(prefix)?;
        self.next();
        Some(rest)
    }

    fn peek(&mut self) -> Option<&'a str> {
        self.lines.peek().map(|&(_, line)| line)
    }

    fn next(&mut self) -> Option<&'a str> {
        let (index, line) = self.lines.next()?;
        self.line = index + 1;
        Some(line)
    }

    /// The next line is not what was due.
    fn unexpected<T>(&mut self, due: &str) -> Result<T, ParseError> {
        match self.next() {
            Some(line) => self.fail(format!("unexpected line `{line}` where {due} is due")),
            None => self.fail(format!("the file is cut off where {due} is due")),
        }
    }

    fn fail<T>(&self, what: impl Into<String>) -> Result<T, ParseError> {
        Err(ParseError {
            file: self.file.to_owned(),
            line: self.line.max(1),
            what: what.into(),
        })
    }
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One vector of every shape, with no line that could be left out.
    const SAMPLE: &str = r#"# A heading.

vector crc check
  origin published
  source a book
  input
    algorithm crc32
    message 313233
  expect
    crc 2639f4cb

vector cmac_sequence sequence
  origin oracle
  source a program
  input
    key_type AES
    key 00112233445566778899aabbccddeeff
    iv 00000000000000000000000000000000
    message tx raw 0 ""
  expect
    cmac -

vector full_session session
  origin card
  source a log
  card a card
  wrapping iso7816
  step command GetKeyVersion
    cmd 64
    header 00
    data ""
    tx_comm none
    rx_comm none
    rx_status 00
    rx_data 10
    > 6400
    >> 9064000001000000
    < 0010
    << 109100

end 3
"#;

    /// The message for the sample with one piece of it replaced.
    #[track_caller]
    fn refusal(piece: &str, replacement: &str) -> String {
        assert_eq!(
            SAMPLE.matches(piece).count(),
            1,
            "`{piece}` must stand in the sample once"
        );
        match parse("sample", &SAMPLE.replace(piece, replacement)) {
            Ok(_) => panic!("accepted with `{replacement}` for `{piece}`"),
            Err(error) => error.to_string(),
        }
    }

    #[test]
    fn sample_is_read() {
        let vectors = parse("sample", SAMPLE).expect("the sample is in order");
        let [crc, sequence, session] = vectors.as_slice() else {
            panic!("{} vectors", vectors.len());
        };

        assert_eq!(crc.to_string(), "sample:3 check");
        assert_eq!((crc.kind.as_str(), crc.origin), ("crc", Origin::Published));
        assert_eq!(
            (crc.source.as_str(), &crc.parent, &crc.note),
            ("a book", &None, &None)
        );
        assert_eq!(crc.input.text("algorithm"), "crc32");
        assert_eq!(crc.input.hex("message"), b"123");
        assert_eq!(crc.expect.array("crc"), [0x26, 0x39, 0xf4, 0xcb]);

        let message = Message {
            direction: Direction::Tx,
            name: "raw".to_owned(),
            sent_bytes: 0,
            bytes: Vec::new(),
        };
        assert_eq!(sequence.messages, [message]);
        assert_eq!(sequence.expect.opt_hex_list("cmac"), [None]);
        assert!(!sequence.expect.has("truncated"));

        assert_eq!(
            (session.card.as_deref(), session.wrapping),
            (Some("a card"), Some(Wrapping::Iso7816))
        );
        let [step] = session.steps.as_slice() else {
            panic!("{} steps", session.steps.len());
        };
        assert_eq!(
            (step.op, step.name.as_str()),
            (Op::Command, "GetKeyVersion")
        );
        assert_eq!(
            (step.fields.byte("cmd"), step.fields.hex("data")),
            (0x64, Vec::new())
        );
        assert_eq!(
            (
                step.fields.opt_flag("ends_session"),
                step.fields.opt_hex("rx_padding")
            ),
            (None, None)
        );
        let frame = Frame {
            tx: vec![0x64, 0x00],
            rx: vec![0x00, 0x10],
            tx_apdu: Some(vec![0x90, 0x64, 0, 0, 1, 0, 0, 0]),
            rx_apdu: Some(vec![0x10, 0x91, 0x00]),
        };
        assert_eq!(step.frames, [frame]);
    }

    #[test]
    fn empty_file_is_refused() {
        assert_eq!(
            parse("none", "")
                .map_err(|error| error.to_string())
                .err()
                .as_deref(),
            Some("none:1: the file is empty")
        );
        assert!(parse("none", "\n").is_err());
        assert!(parse("none", "# A heading.\n").is_err());
        assert!(parse("none", "# A heading.\n\nend 0\n").is_err());
    }

    #[test]
    fn truncated_file_is_refused_wherever_it_ends() {
        let whole = SAMPLE.trim_end().len();
        for length in 0..whole {
            let cut = SAMPLE.get(..length).expect("the sample is ASCII");
            assert!(
                parse("sample", cut).is_err(),
                "accepted with {length} of {whole} bytes"
            );
        }
    }

    #[test]
    fn missing_doubled_and_unknown_lines_are_refused() {
        let lines: Vec<_> = SAMPLE.lines().collect();
        for place in 1..lines.len() {
            let mut changed = lines.clone();
            let line = changed.remove(place);
            assert!(
                parse("sample", &(changed.join("\n") + "\n")).is_err(),
                "accepted without `{line}`"
            );

            for extra in [
                "nonsense",
                "  nonsense",
                "    nonsense 00",
                "    > 00",
                "",
                "# A remark.",
            ] {
                let mut changed = lines.clone();
                changed.insert(place + 1, extra);
                assert!(
                    parse("sample", &(changed.join("\n") + "\n")).is_err(),
                    "accepted with `{extra}` after `{line}`"
                );
            }
        }
        assert_eq!(
            refusal("    crc 2639f4cb\n", "    crc 2639f4cb\n    crd 00\n"),
            "sample:11: unexpected line `    crd 00` where an empty line is due"
        );
        assert!(
            refusal(
                "    algorithm crc32\n    message 313233\n",
                "    message 313233\n    algorithm crc32\n"
            )
            .contains("sample:7: unexpected line")
        );
        assert!(refusal("  source a book\n", "  source a book\n  note \n").contains("no text"));
    }

    #[test]
    fn bad_hex_is_refused() {
        for bad in [
            "2639f4c", "2639F4CB", "2639f4cg", "26 39", "0x26", "", " 26", "26 ", "-", "\"", "é",
        ] {
            let message = refusal("2639f4cb", bad);
            assert_eq!(message, format!("sample:10: `{bad}` is not lower-case hex"));
        }
        assert_eq!(
            refusal("< 0010", "< \"\""),
            "sample:38: `\"\"` is not lower-case hex"
        );
        assert!(refusal("cmd 64", "cmd 6400").contains("one byte"));
    }

    #[test]
    fn duplicate_id_is_refused() {
        assert_eq!(
            refusal("_sequence sequence", "_sequence check"),
            "sample:12: the id check occurs twice"
        );
    }

    #[test]
    fn unknown_words_and_numbers_are_refused() {
        for (piece, replacement) in [
            ("vector crc ", "vector crc64 "),
            ("vector crc check", "vector crc  check"),
            ("origin card", "origin cards"),
            ("algorithm crc32", "algorithm CRC32"),
            ("wrapping iso7816", "wrapping none"),
            ("wrapping iso7816", "wrapping native"),
            ("step command ", "step order "),
            ("tx_comm none", "tx_comm -"),
            ("message tx raw 0", "message up raw 0"),
            ("message tx raw 0", "message tx raw 00"),
            ("message tx raw 0", "message tx raw 17"),
            ("end 3", "end 03"),
            ("end 3", "end 2"),
            ("end 3", "end 4"),
            ("end 3", "end 3\n\nend 3"),
        ] {
            let message = refusal(piece, replacement);
            assert!(message.starts_with("sample:"), "{message}");
        }
    }

    #[test]
    #[should_panic(
        expected = "sample:3 check, input: field `mesage` is not a field of this kind of vector"
    )]
    fn field_that_does_not_exist_is_not_just_absent() {
        let vectors = parse("sample", SAMPLE).expect("the sample is in order");
        let _ = vectors
            .first()
            .expect("there are three")
            .input
            .opt_hex("mesage");
    }

    #[test]
    #[should_panic(expected = "step GetKeyVersion: field `iv_after_tx` is missing")]
    fn field_that_is_missing_is_named() {
        let vectors = parse("sample", SAMPLE).expect("the sample is in order");
        let steps = &vectors.last().expect("there are three").steps;
        let _ = steps
            .first()
            .expect("there is one")
            .fields
            .hex("iv_after_tx");
    }

    #[test]
    #[should_panic(expected = "no_such_file.txt")]
    fn missing_file_is_named() {
        let _ = load("no_such_file.txt");
    }

    #[test]
    fn stored_files_are_all_listed_and_fit_together() {
        let mut stored: Vec<_> = std::fs::read_dir(directory())
            .expect("the directory is there")
            .map(|entry| entry.expect("it can be listed").file_name())
            .collect();
        stored.sort();
        assert_eq!(stored, FILES);

        let vectors = load_all();
        let ids: BTreeSet<_> = vectors.iter().map(|vector| vector.id.as_str()).collect();
        assert_eq!(ids.len(), vectors.len(), "an id occurs in two files");
        for vector in &vectors {
            if let Some(parent) = &vector.parent {
                assert!(
                    ids.contains(parent.as_str()),
                    "{vector}: there is no {parent}"
                );
            }
        }
    }
}
