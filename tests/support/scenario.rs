//! The language of `tests/scenarios/*.txt`, and how a scenario is played.
//!
//! | line | meaning |
//! |---|---|
//! | `scenario NAME` | a new card as delivered; `covers TAG` and `card 2k` may follow |
//! | `> BYTES` and `< BYTES` | one frame and its exact reply; `<` alone is no answer. An error drops the terminal's EV1 session |
//! | `auth INS NO KEY` | a handshake that succeeds; `fails STATUS` behind it: one that does not |
//! | `isoauth P1 P2 KEY` | the three ISO commands; `isohalf`: the first two |
//! | `send BYTES` | a command of the session in plain; `mac HEAD / DATA`, `enc HEAD / DATA`, `enc80 HEAD / DATA` |
//! | `key NUMBER NEW [vVERSION] [old OLD]` | ChangeKey |
//! | `gets STATUS DATA` | its reply, protected as plain; `gets-mac`, `gets-enc`, `gets-all` |
//! | `bare BYTES` | its reply without any protection, and the terminal drops its EV1 session |
//! | `forget` | the terminal drops its session |
//! | `field off`, `field on` | |
//! | `cut before N`, `cut after N`, `lose N` | faults, counted from the next effect or command |
//! | `free NUMBER` | FreeMem is this, asked aside |
//! | `use NAME` | the lines of a `part NAME`, all in `parts.txt` |
//! | `#` | a comment |
//!
//! Bytes are hexadecimal, `00*16` is a byte sixteen times, `??` any byte of an exact reply. `send` and its relatives chain both
//! ways by themselves.

#![allow(
    unreachable_pub,
    clippy::panic,
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "a test speaks by panicking"
)]

use std::collections::{BTreeMap, BTreeSet};

use desfire_ev1::picc::{Card, Fault, StorageSize};
use desfire_ev1::wire::{StatusWord, Uid};

use super::terminal::{IsoHandshake, Key, Mode, Session};

/// A scenario as it was played.
pub struct Played {
    pub title: String,
    /// The card as it was at the beginning.
    pub start: Card,
    /// What the card was given; `None` is an activation.
    pub frames: Vec<Option<Vec<u8>>>,
    /// Whether the scenario arranges faults or leaves the field itself.
    pub has_faults: bool,
}

/// Plays all scenarios of a file.
///
/// # Panics
///
/// When a reply is not the one that the scenario asks for; the message names file and line.
pub fn play(name: &str, text: &str, parts: &Parts<'_>, seen: &mut Seen) -> Vec<Played> {
    let mut runs: Vec<Run> = Vec::new();
    for (index, line) in text.lines().enumerate() {
        let line = line.split('#').next().unwrap().trim();
        let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
        match word {
            "" => {}
            "scenario" => {
                runs.iter().for_each(Run::finish);
                runs.push(Run::new(format!("{name}:{}: {rest}", index + 1)));
            }
            "covers" => seen
                .rules
                .extend(rest.split_whitespace().map(str::to_owned)),
            _ => {
                let run = runs.last_mut().expect("a scenario first");
                run.line = index + 1;
                match word {
                    "use" => parts[rest]
                        .iter()
                        .for_each(|(word, rest)| run.step(word, rest, seen)),
                    _ => run.step(word, rest.trim(), seen),
                }
            }
        }
    }
    runs.iter().for_each(Run::finish);
    runs.into_iter().map(Run::played).collect()
}

/// The beginnings that scenarios `use`, by name.
pub type Parts<'a> = BTreeMap<&'a str, Vec<(&'a str, &'a str)>>;

/// Beginnings that many scenarios have in common.
#[must_use]
pub fn parts(text: &str) -> Parts<'_> {
    let mut parts = BTreeMap::new();
    let mut name = "";
    for line in text.lines() {
        let line = line.split('#').next().unwrap().trim();
        match line.split_once(' ').unwrap_or((line, "")) {
            ("", _) => {}
            ("part", new) => name = new,
            step => parts.entry(name).or_insert_with(Vec::new).push(step),
        }
    }
    parts
}

/// What the scenarios have got to see.
#[derive(Default)]
pub struct Seen {
    pub commands: usize,
    pub statuses: BTreeMap<u8, usize>,
    pub words: BTreeMap<u16, usize>,
    pub rules: BTreeSet<String>,
}

/// One scenario under way.
struct Run {
    title: String,
    line: usize,
    card: Card,
    start: Card,
    frames: Vec<Option<Vec<u8>>>,
    has_faults: bool,
    session: Option<Session>,
    /// The last frame, and its reply until it is looked at.
    frame: Vec<u8>,
    reply: Option<Vec<u8>>,
}

impl Run {
    fn new(title: String) -> Self {
        let card = Card::new(Uid([0x04, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66]));
        Self {
            title,
            line: 0,
            start: card.clone(),
            card,
            frames: Vec::new(),
            has_faults: false,
            session: None,
            frame: Vec::new(),
            reply: None,
        }
    }

    fn played(self) -> Played {
        Played {
            title: self.title,
            start: self.start,
            frames: self.frames,
            has_faults: self.has_faults,
        }
    }

    /// Everything that the card is given goes through here.
    fn handle(&mut self, frame: &[u8]) -> Vec<u8> {
        self.frames.push(Some(frame.to_vec()));
        self.card.handle(frame)
    }

    fn step(&mut self, word: &str, rest: &str, seen: &mut Seen) {
        match word {
            "card" => {
                let storage = match rest {
                    "2k" => StorageSize::Ev1_2K,
                    "4k" => StorageSize::Ev1_4K,
                    "8k" => StorageSize::Ev1_8K,
                    _ => self.fail("no such card"),
                };
                self.card = Card::builder().storage(storage).build();
                self.start = self.card.clone();
            }
            "field" if rest == "off" => {
                self.has_faults = true;
                self.card.field_off();
            }
            "field" if rest == "on" => {
                self.frames.push(None);
                self.card.activate();
                self.session = None;
            }
            "cut" | "lose" => self.fault(word, rest),
            "forget" => self.session = None,
            "free" => {
                // A copy is asked, so that no session is touched.
                let mut copy = self.card.clone();
                copy.activate();
                let free: u32 = rest.parse().unwrap();
                let [a, b, c, _] = free.to_le_bytes();
                self.same("FreeMem", &copy.handle(&[0x6E]), &[0, a, b, c]);
            }
            "auth" => self.authenticate(rest, seen),
            "isoauth" => self.iso_authenticate(rest),
            "isohalf" => drop(self.iso_half(rest)),
            ">" => {
                let frame = self.bytes(rest);
                self.transmit(&frame, seen);
            }
            "<" => {
                self.exact(rest, seen);
                if !matches!(
                    self.pattern(rest).first().copied().flatten(),
                    Some(0x00 | 0xAF)
                ) {
                    self.drop_ev1();
                }
            }
            "send" => {
                let command = self.bytes(rest);
                self.protected(Mode::Plain, &command, &[], seen);
            }
            "mac" | "enc" => {
                let (head, data) = self.two(rest);
                let mode = if word == "mac" {
                    Mode::Mac
                } else {
                    Mode::Enciphered
                };
                self.protected(mode, &head, &data, seen);
            }
            "enc80" => {
                let (head, data) = self.two(rest);
                let session = self.session.as_mut().expect("a session");
                let command = session.marked_request(&head, &data);
                self.exchange(&command, seen);
            }
            "key" => self.change_key(rest, seen),
            "gets" => self.gets(Mode::Plain, false, rest, seen),
            "gets-mac" => self.gets(Mode::Mac, false, rest, seen),
            "gets-enc" => self.gets(Mode::Enciphered, false, rest, seen),
            "gets-all" => self.gets(Mode::Enciphered, true, rest, seen),
            "bare" => {
                self.exact(rest, seen);
                self.drop_ev1();
            }
            _ => self.fail("not a line of a scenario"),
        }
    }

    /// The card has ended the session; one of D40 has no state that could be wrong.
    fn drop_ev1(&mut self) {
        self.session = self.session.take().filter(|session| !session.is_ev1());
    }

    fn fault(&mut self, word: &str, rest: &str) {
        let (place, number) = rest.split_once(' ').unwrap_or(("", rest));
        let number: u64 = number.parse().unwrap();
        self.has_faults = true;
        self.card.arrange_fault(match (word, place) {
            ("cut", "before") => Fault::CutBefore(self.card.effects() + number),
            ("cut", "after") => Fault::CutAfter(self.card.effects() + number),
            ("lose", "") => Fault::LoseReply(self.card.commands() + number),
            _ => self.fail("no such fault"),
        });
    }

    fn authenticate(&mut self, rest: &str, seen: &mut Seen) {
        self.finish();
        let words: Vec<_> = rest.split_whitespace().collect();
        let (ins, number) = (self.bytes(words[0])[0], self.bytes(words[1])[0]);
        let key = Key::new(&self.bytes(words[2]), ins == 0xAA);
        let challenge = self.handle(&[ins, number]);
        if challenge[0] != 0xAF {
            self.same(
                "first frame",
                &challenge,
                &self.bytes(words.get(4).copied().unwrap_or("AF")),
            );
            seen.note(&[ins], &challenge);
            self.session = None;
            return;
        }
        let (token, handshake) = Session::token(ins, &key, &challenge[1..]);
        let reply = self.handle(&[&[0xAF], &token[..]].concat());
        seen.note(&[ins], &reply);
        match words.get(3..) {
            Some(["fails", status]) => {
                self.same("second frame", &reply, &self.bytes(status));
                self.session = None;
            }
            _ => {
                self.same("second frame", &reply[..1], &[0x00]);
                self.session = Some(handshake.finish(&reply[1..]));
            }
        }
    }

    /// The first two of the ISO commands; gives what the third needs.
    fn iso_half(&mut self, rest: &str) -> (u8, u8, IsoHandshake) {
        self.finish();
        let words: Vec<_> = rest.split_whitespace().collect();
        let (p1, p2) = (self.bytes(words[0])[0], self.bytes(words[1])[0]);
        let key = Key::new(&self.bytes(words[2]), p1 == 0x09);
        let len = if p1 == 0x02 { 8 } else { 16 };
        let challenge = self.handle(&[0x00, 0x84, 0x00, 0x00, len]);
        let (rnd_picc, sw) = challenge.split_at(challenge.len() - 2);
        self.same("GET CHALLENGE", sw, &[0x90, 0x00]);
        let handshake = IsoHandshake::new(&key, rnd_picc);
        let external = [&[0x00, 0x82, p1, p2, 2 * len], &handshake.token[..]].concat();
        let accepted = self.handle(&external);
        self.same("EXTERNAL AUTHENTICATE", &accepted, &[0x90, 0x00]);
        self.session = None;
        (p1, p2, handshake)
    }

    fn iso_authenticate(&mut self, rest: &str) {
        let (p1, p2, handshake) = self.iso_half(rest);
        let len = if p1 == 0x02 { 8 } else { 16 };
        let internal = [
            &[0x00, 0x88, p1, p2, len],
            &handshake.challenge[..],
            &[0x00],
        ]
        .concat();
        let proof = self.handle(&internal);
        let (proof, sw) = proof.split_at(proof.len() - 2);
        self.same("INTERNAL AUTHENTICATE", sw, &[0x90, 0x00]);
        self.session = Some(handshake.finish(proof));
    }

    fn change_key(&mut self, rest: &str, seen: &mut Seen) {
        let mut words = rest.split_whitespace();
        let number = self.bytes(words.next().unwrap())[0];
        let new = self.bytes(words.next().unwrap());
        let (mut version, mut old) = (None, None);
        while let Some(word) = words.next() {
            if word == "old" {
                old = Some(self.bytes(words.next().unwrap()));
            } else {
                version = Some(self.bytes(word.strip_prefix('v').unwrap())[0]);
            }
        }
        let session = self.session.as_mut().expect("a session");
        let command = session.change_key(number, &new, version, old.as_deref());
        self.exchange(&command, seen);
    }

    fn protected(&mut self, mode: Mode, head: &[u8], data: &[u8], seen: &mut Seen) {
        let command = match &mut self.session {
            Some(session) => session.request(mode, head, data),
            None => [head, data].concat(),
        };
        self.exchange(&command, seen);
    }

    /// A command and its reply over as many frames as they take.
    fn exchange(&mut self, command: &[u8], seen: &mut Seen) {
        let (first, mut rest) = command.split_at(command.len().min(60));
        self.transmit(first, seen);
        while !rest.is_empty() && self.reply.as_deref() == Some(&[0xAF]) {
            let (piece, more) = rest.split_at(rest.len().min(59));
            self.reply = None;
            self.transmit(&[&[0xAF], piece].concat(), seen);
            rest = more;
        }
        let mut joined: Vec<u8> = Vec::new();
        while let Some([0xAF, part @ ..]) = self.reply.as_deref() {
            assert!(!part.is_empty(), "{}", self.at("the card waits for more"));
            joined.extend(part);
            self.reply = None;
            self.transmit(&[0xAF], seen);
        }
        if let Some(reply) = &mut self.reply
            && !joined.is_empty()
        {
            let last = reply.split_off(1);
            reply.extend(joined);
            reply.extend(last);
        }
        self.frame = vec![command[0]];
    }

    fn transmit(&mut self, frame: &[u8], seen: &mut Seen) {
        self.finish();
        seen.commands += 1;
        self.frame = frame.to_vec();
        self.reply = Some(self.handle(frame));
    }

    /// The reply is exactly this.
    fn exact(&mut self, rest: &str, seen: &mut Seen) {
        let reply = self.reply.take().expect("a reply");
        let expected = self.pattern(rest);
        let fits = |(byte, wanted): (&u8, &Option<u8>)| wanted.is_none_or(|wanted| wanted == *byte);
        if reply.len() != expected.len() || !reply.iter().zip(&expected).all(fits) {
            self.fail(&format!("reply {} is not {rest}", hex(&reply)));
        }
        seen.note(&self.frame, &reply);
    }

    /// The reply is this status and data, under the protection of the session.
    fn gets(&mut self, mode: Mode, marked: bool, rest: &str, seen: &mut Seen) {
        let reply = self.reply.take().expect("a reply");
        let expected = self.bytes(rest);
        seen.note(&self.frame, &reply);
        self.same("status", &reply[..1], &expected[..1]);
        let title = self.at("reply");
        let data = match &mut self.session {
            Some(session) => {
                // Shown if what follows panics.
                println!("{title}");
                session.reply(mode, &reply[1..], &expected[1..], marked)
            }
            None => reply[1..].to_vec(),
        };
        self.same("data", &data, &expected[1..]);
    }

    /// No reply has gone unlooked at.
    fn finish(&self) {
        assert!(
            self.reply.is_none(),
            "{}",
            self.at("the reply before is not looked at")
        );
    }

    fn same(&self, what: &str, found: &[u8], expected: &[u8]) {
        assert_eq!(hex(found), hex(expected), "{}", self.at(what));
    }

    fn at(&self, what: &str) -> String {
        format!("{} (line {}): {what}", self.title, self.line)
    }

    fn fail(&self, what: &str) -> ! {
        panic!("{}", self.at(what))
    }

    /// Head and data of a protected command.
    fn two(&self, text: &str) -> (Vec<u8>, Vec<u8>) {
        let (head, data) = text
            .split_once('/')
            .unwrap_or_else(|| self.fail("no slash"));
        (self.bytes(head), self.bytes(data))
    }

    fn bytes(&self, text: &str) -> Vec<u8> {
        let known = |byte: Option<u8>| byte.unwrap_or_else(|| self.fail("no place for `??`"));
        self.pattern(text).into_iter().map(known).collect()
    }

    fn pattern(&self, text: &str) -> Vec<Option<u8>> {
        let mut bytes = Vec::new();
        for word in text.split_whitespace() {
            let (digits, times) = word.split_once('*').unwrap_or((word, "1"));
            let byte = |at| match digits.get(at..at + 2)? {
                "??" => Some(None),
                digits => u8::from_str_radix(digits, 16).ok().map(Some),
            };
            let part: Option<Vec<_>> = (0..digits.len()).step_by(2).map(byte).collect();
            match (part, times.parse::<usize>()) {
                (Some(part), Ok(times)) => bytes.extend(part.repeat(times)),
                _ => self.fail(&format!("`{word}` is not hexadecimal")),
            }
        }
        bytes
    }
}

impl Seen {
    fn note(&mut self, frame: &[u8], reply: &[u8]) {
        let iso = frame.first() == Some(&0x00);
        let wrapped = frame.len() >= 5 && frame.first() == Some(&0x90);
        match *reply {
            [] => {}
            [.., sw1, sw2] if iso || wrapped => {
                let word = StatusWord(u16::from_be_bytes([sw1, sw2]));
                match word.status() {
                    Some(status) => *self.statuses.entry(status.to_byte()).or_default() += 1,
                    None => *self.words.entry(word.0).or_default() += 1,
                }
            }
            [status, ..] => *self.statuses.entry(status).or_default() += 1,
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}
