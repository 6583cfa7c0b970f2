//! The library against recorded cards: every full session of `tests/vectors`, 34 with real cards
//! and 8 made by an independent implementation, is played again with the recorded nonces and the
//! recorded replies. The library must send the recorded bytes and decode the recorded data.
//!
//! How a long command is cut into frames is the sender's choice: the frames are joined (without
//! `AF`) and compared. Everything else is compared byte for byte, in wrapped sessions with the
//! APDUs as they were recorded.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use desfire_ev1::command::RawMode;
use desfire_ev1::wire::{
    AccessRights, Aid, Amount, AuthScheme, CommByte, CommMode, CommandCode, FileNo, KeyFamily,
    KeyInfo, KeyNo, KeySettings, KeyType, U24,
};
use desfire_ev1::{
    Authenticated, Key, Link, LinkFormat, Machine, Session, Transport, Unauthenticated,
};

#[path = "support/vectors.rs"]
mod vectors;

use vectors::{Frame, Op, Step, Vector, Wrapping};

/// A card that answers one recorded step.
struct Recorded {
    format: LinkFormat,
    handshake: bool,
    /// The command with its continuations, joined: `code ‖ parameters`.
    expected: Vec<u8>,
    sent: Vec<u8>,
    /// The reply frames that come once the command is complete.
    replies: std::vec::IntoIter<Vec<u8>>,
    /// Frames as the recorded reader sent them, for a comparison of the wrapped form.
    recorded_frames: Vec<Frame>,
    sent_frames: Vec<Vec<u8>>,
}

impl Recorded {
    fn new(format: LinkFormat, step: &Step) -> Self {
        let frames = &step.frames;
        let mut expected = frames[0].tx.clone();
        for frame in &frames[1..] {
            assert_eq!(frame.tx[0], 0xAF);
            expected.extend(&frame.tx[1..]);
        }
        // A command in several frames is answered when it is complete; in a handshake every frame
        // has its own answer.
        let first_reply = if step.op == Op::Auth {
            0
        } else {
            (1..frames.len())
                .rev()
                .find(|index| frames[*index].tx.len() > 1)
                .unwrap_or(0)
        };
        let wrapped = format == LinkFormat::WRAPPED;
        let replies: Vec<Vec<u8>> = frames[first_reply..]
            .iter()
            .map(|frame| {
                if wrapped {
                    frame.rx_apdu.clone().expect("the recording is wrapped")
                } else {
                    frame.rx.clone()
                }
            })
            .collect();
        Self {
            format,
            handshake: step.op == Op::Auth,
            expected,
            sent: Vec::new(),
            replies: replies.into_iter(),
            recorded_frames: frames.to_vec(),
            sent_frames: Vec::new(),
        }
    }

    /// What is wrong with what was sent, if anything.
    fn difference(&self) -> Option<String> {
        if self.sent != self.expected {
            return Some(format!(
                "sent {:02X?}\n    recorded {:02X?}",
                self.sent, self.expected
            ));
        }
        if self.replies.len() > 0 {
            return Some(format!("{} replies were not asked for", self.replies.len()));
        }
        // Where the frames were cut alike, the wrapped form must agree to the byte.
        if self.format == LinkFormat::WRAPPED
            && self.sent_frames.len() == self.recorded_frames.len()
        {
            for (sent, recorded) in self.sent_frames.iter().zip(&self.recorded_frames) {
                let recorded = recorded.tx_apdu.as_ref().unwrap();
                if sent.len() == recorded.len() && sent != recorded {
                    return Some(format!("APDU {sent:02X?}\n    recorded {recorded:02X?}"));
                }
            }
        }
        None
    }
}

impl Link for Recorded {
    type Error = String;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl Transport for Recorded {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, String> {
        self.sent_frames.push(command.to_vec());
        let native = match (self.format == LinkFormat::WRAPPED, command) {
            (false, native) => native.to_vec(),
            (true, [0x90, code, 0, 0, 0]) => vec![*code],
            (true, [0x90, code, 0, 0, lc, rest @ ..]) => {
                let (data, le) = rest.split_at(usize::from(*lc));
                assert_eq!(le, [0]);
                [&[*code], data].concat()
            }
            (true, other) => return Err(format!("not a wrapped command: {other:02X?}")),
        };
        if self.sent.is_empty() {
            self.sent = native;
        } else {
            assert_eq!(native[0], 0xAF);
            self.sent.extend(&native[1..]);
        }
        let answer = if !self.handshake && self.sent.len() < self.expected.len() {
            match self.format {
                LinkFormat::WRAPPED => vec![0x91, 0xAF],
                _ => vec![0xAF],
            }
        } else {
            self.replies.next().ok_or("no reply is recorded")?
        };
        reply[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }
}

enum Live {
    Free(Session<Unauthenticated>),
    Authenticated(Session<Authenticated>),
}

/// Runs a command that both kinds of session have.
macro_rules! on {
    ($live:expr, $card:expr, |$session:ident| $machine:expr) => {
        match $live {
            Live::Free($session) => $machine.run($card).map_err(|error| error.to_string()),
            Live::Authenticated($session) => $machine.run($card).map_err(|error| error.to_string()),
        }
    };
}

fn key_of(key_type: &str, bytes: &[u8], version: u8) -> Key {
    let key_type = match (key_type, bytes.len()) {
        ("DES", 8) => KeyType::Des,
        ("DES" | "2K3DES", 16) => KeyType::TwoKey3Des,
        ("3K3DES", 24) => KeyType::ThreeKey3Des,
        ("AES", 16) => KeyType::Aes,
        other => panic!("no such key: {other:?}"),
    };
    let key = Key::from_slice(key_type, bytes).unwrap();
    if key_type == KeyType::Aes {
        key.with_version(version)
    } else {
        // The recordings send DES-family keys with whatever version their bits hold.
        key
    }
}

fn comm(text: &str) -> CommMode {
    match text {
        "plain" | "none" => CommMode::Plain,
        "mac" => CommMode::Mac,
        "enc" => CommMode::Enciphered,
        other => panic!("no such mode: {other}"),
    }
}

fn u24(bytes: &[u8]) -> u32 {
    u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0])
}

fn i32_of(bytes: &[u8]) -> i32 {
    i32::from_le_bytes(bytes.try_into().unwrap())
}

/// Plays one step; the decoded data, or what went wrong.
fn play(
    live: &mut Live,
    seen: &mut Vec<FileNo>,
    step: &Step,
    card: &mut Recorded,
) -> Result<Vec<u8>, String> {
    let none = Ok(Vec::new());
    match step.op {
        Op::Auth => authenticate(live, step, card).and(none),
        Op::ChangeKey => change_key(live, step, card).and(none),
        Op::Command => command(live, seen, step, card),
    }
}

fn take(live: &mut Live) -> Live {
    std::mem::replace(live, Live::Free(Session::new()))
}

fn authenticate(live: &mut Live, step: &Step, card: &mut Recorded) -> Result<(), String> {
    let fields = &step.fields;
    let scheme = match fields.byte("auth") {
        0x0A => AuthScheme::Legacy,
        0x1A => AuthScheme::Iso,
        0xAA => AuthScheme::Aes,
        other => panic!("no such handshake: {other:02X}"),
    };
    let key_no = KeyNo::new(fields.number("key_no")).unwrap();
    let key = key_of(fields.text("key_type"), &fields.hex("key"), 0);
    let mut rnd_a = [0; 16];
    let recorded = fields.hex("rnd_a");
    rnd_a[..recorded.len()].copy_from_slice(&recorded);
    let session = match take(live) {
        Live::Free(session) => {
            session.authenticate_with_fixed_nonce_for_testing_only(scheme, key_no, &key, rnd_a)
        }
        Live::Authenticated(session) => {
            session.authenticate_with_fixed_nonce_for_testing_only(scheme, key_no, &key, rnd_a)
        }
    };
    *live = Live::Authenticated(session.run(card).map_err(|error| error.to_string())?);
    Ok(())
}

fn change_key(live: &mut Live, step: &Step, card: &mut Recorded) -> Result<(), String> {
    let fields = &step.fields;
    let Live::Authenticated(mut session) = take(live) else {
        panic!("ChangeKey without authentication");
    };
    let new = key_of(
        fields.text("new_key_type"),
        &fields.hex("new_key"),
        fields.number("new_key_version"),
    );
    if fields.flag("same_key") {
        let type_bits = fields.byte("key_no") & 0xC0;
        let after = if type_bits == 0 && new.key_type().family() == KeyFamily::Des
            || session.selected() != Some(Aid::PICC)
        {
            session.change_key_in_use(&new).run(card)
        } else {
            session.change_picc_master_key_and_type(&new).run(card)
        };
        *live = Live::Free(after.map_err(|error| error.to_string())?);
        return Ok(());
    }
    let old = key_of(fields.text("old_key_type"), &fields.hex("old_key"), 0);
    let key_no = KeyNo::new(fields.byte("key_no")).unwrap();
    let done = session.change_key(key_no, &old, &new).run(card);
    *live = Live::Authenticated(session);
    done.map_err(|error| error.to_string())
}

fn command(
    live: &mut Live,
    seen: &mut Vec<FileNo>,
    step: &Step,
    card: &mut Recorded,
) -> Result<Vec<u8>, String> {
    let fields = &step.fields;
    let (header, data) = (fields.hex("header"), fields.hex("data"));
    let request = comm(fields.text("tx_comm"));
    let reply = comm(fields.text("rx_comm"));
    let file = || FileNo::new(header[0]).unwrap();
    let none = Ok(Vec::new());
    /// File commands take the mode from the settings, if the session has seen them; otherwise it
    /// is stated, because the recorded reader knew it.
    macro_rules! file_command {
        ($mode:expr, |$session:ident| $machine:expr) => {{
            if seen.contains(&file()) {
                on!(live, card, |$session| $machine)
            } else {
                on!(live, card, |$session| $machine.comm_mode($mode))
            }
        }};
    }
    match step.name.as_str() {
        "SelectApplication" => {
            let aid = Aid::from_bytes(header.try_into().unwrap());
            seen.clear();
            let selected = match take(live) {
                Live::Free(session) => session.select_application(aid).run(card),
                Live::Authenticated(session) => session.select_application(aid).run(card),
            };
            *live = Live::Free(selected.map_err(|error| error.to_string())?);
            none
        }
        "GetKeyVersion" => {
            let key_no = KeyNo::new(header[0]).unwrap();
            on!(live, card, |s| s.get_key_version(key_no)).map(|version| vec![version])
        }
        "GetVersion" => on!(live, card, |s| s.get_version()).map(|version| {
            let (hardware, software, production) = version.to_frames();
            [&hardware[..], &software, &production].concat()
        }),
        "GetKeySettings" => on!(live, card, |s| s.get_key_settings())
            .map(|(settings, info)| vec![settings.to_byte(), info.to_byte()]),
        "GetApplicationIDs" => on!(live, card, |s| s.get_application_ids())
            .map(|aids| aids.iter().flat_map(|aid| aid.to_bytes()).collect()),
        "GetFileIDs" => on!(live, card, |s| s.get_file_ids())
            .map(|files| files.iter().map(|file| file.number()).collect()),
        "GetFileSettings" => {
            seen.push(file());
            on!(live, card, |s| s.get_file_settings(file())).map(|settings| {
                let mut out = [0; 36];
                let len = settings.encode(&mut out).unwrap();
                out[..len].to_vec()
            })
        }
        "CreateApplication" => {
            let aid = Aid::from_bytes(header[..3].try_into().unwrap());
            let settings = KeySettings::from_byte(header[3]);
            let keys = KeyInfo::from_byte(header[4]);
            assert_eq!(header.len(), 5);
            on!(live, card, |s| s
                .create_application(aid, settings, keys, None))
            .and(none)
        }
        "CreateStdDataFile" => {
            let rights = AccessRights::from_bytes([header[2], header[3]]);
            let mode = CommByte(header[1]).mode();
            let size = U24::new(u24(&header[4..])).unwrap();
            on!(live, card, |s| s.create_std_data_file(
                file(),
                None,
                mode,
                rights,
                size
            ))
            .and(none)
        }
        "DeleteFile" => on!(live, card, |s| s.delete_file(file())).and(none),
        "WriteData" => {
            file_command!(request, |s| s.write_data(file(), u24(&header[1..]), &data)).and(none)
        }
        "WriteRecord" => file_command!(request, |s| s.write_record(
            file(),
            u24(&header[1..]),
            &data
        ))
        .and(none),
        "ReadData" => {
            let (offset, length) = (u24(&header[1..]), u24(&header[4..]));
            let mut buffer = vec![0; 4096];
            if length == 0 {
                file_command!(reply, |s| s.read_data_to_end(file(), offset, &mut buffer))
                    .map(<[u8]>::to_vec)
            } else {
                let range = offset..offset + length;
                file_command!(reply, |s| s.read_data(file(), range.clone(), &mut buffer))
                    .map(<[u8]>::to_vec)
            }
        }
        "ReadRecords" => {
            // Not knowing the size of a record, the length has to be found by the CRC.
            let (first, count) = (u24(&header[1..]), u24(&header[4..]));
            let size = u32::try_from(fields.hex("rx_data").len()).unwrap() / count;
            let mut buffer = vec![0; 4096];
            file_command!(reply, |s| s.read_records(
                file(),
                first,
                count,
                size,
                &mut buffer
            ))
            .map(<[u8]>::to_vec)
        }
        "GetValue" => {
            file_command!(reply, |s| s.get_value(file())).map(|value| value.to_le_bytes().to_vec())
        }
        "Credit" | "Debit" | "LimitedCredit" => {
            let Ok(amount) = Amount::new(i32_of(&data)) else {
                // The generated sessions have amounts that no card would take.
                return raw(live, step, card);
            };
            match step.name.as_str() {
                "Credit" => file_command!(request, |s| s.credit(file(), amount)),
                "Debit" => file_command!(request, |s| s.debit(file(), amount)),
                _ => file_command!(request, |s| s.limited_credit(file(), amount)),
            }
            .and(none)
        }
        "ChangeFileSettings" => {
            let rights = AccessRights::from_bytes([data[1], data[2]]);
            let mode = CommByte(data[0]);
            assert_eq!(request, CommMode::Enciphered);
            on!(live, card, |s| s
                .change_file_settings(file(), mode, rights)
                .under_key())
            .and(none)
        }
        name => {
            let Live::Authenticated(session) = live else {
                panic!("{name} without authentication");
            };
            match name {
                "GetCardUID" => session.get_card_uid().run(card).map(|uid| uid.0.to_vec()),
                "FormatPICC" => session.format_picc().run(card).map(|()| Vec::new()),
                "DeleteApplication" => {
                    let aid = Aid::from_bytes(header.try_into().unwrap());
                    session
                        .delete_application(aid)
                        .run(card)
                        .map(|()| Vec::new())
                }
                "ChangeKeySettings" => {
                    let settings = KeySettings::from_byte(data[0]);
                    let machine = if data[0] & 0b1001 == 0b1001 {
                        session.change_key_settings(settings)
                    } else {
                        session.freeze_key_settings_for_ever(settings)
                    };
                    machine.run(card).map(|()| Vec::new())
                }
                other => panic!("no test for {other}"),
            }
            .map_err(|error| error.to_string())
        }
    }
}

fn raw(live: &mut Live, step: &Step, card: &mut Recorded) -> Result<Vec<u8>, String> {
    let fields = &step.fields;
    let mode = RawMode {
        request: comm(fields.text("tx_comm")),
        reply: CommMode::Plain,
        reply_len: Some(0),
    };
    let code = CommandCode::from_byte(fields.byte("cmd"));
    let (header, data) = (fields.hex("header"), fields.hex("data"));
    on!(live, card, |s| s.raw(code, &header, &data, &mut [], mode)).map(<[u8]>::to_vec)
}

/// Where a recording starts that does not begin with SelectApplication: at PICC level if it
/// does there what only the PICC level can, otherwise in some application.
fn starting_level(steps: &[Step]) -> Aid {
    let picc = steps
        .iter()
        .take_while(|step| step.name != "SelectApplication")
        .any(|step| match step.name.as_str() {
            "CreateApplication" | "DeleteApplication" | "FormatPICC" | "GetApplicationIDs" => true,
            "ChangeKey" => step.fields.byte("key_no") & 0xC0 != 0,
            _ => false,
        });
    Aid::new(if picc { 0 } else { 1 }).unwrap()
}

/// Plays a session; the number of exchanges, and the differences.
fn replay(vector: &Vector) -> (usize, Vec<String>) {
    let format = match vector.wrapping {
        Some(Wrapping::Iso7816) => LinkFormat::WRAPPED,
        Some(Wrapping::Native) => LinkFormat::NATIVE,
        None => panic!("{vector}: no wrapping"),
    };
    let mut live = Live::Free(Session::at_level(starting_level(&vector.steps)));
    let mut seen = Vec::new();
    let (mut exchanges, mut differences) = (0, Vec::new());
    for (index, step) in vector.steps.iter().enumerate() {
        exchanges += step.frames.len();
        let mut card = Recorded::new(format, step);
        let result = play(&mut live, &mut seen, step, &mut card);
        let mut differs = |what: String| {
            differences.push(format!(
                "{vector}, step {} {}: {what}",
                index + 1,
                step.name
            ));
        };
        if let Some(difference) = card.difference() {
            differs(difference);
        }
        match result {
            Ok(data) if step.op == Op::Command && data != step.fields.hex("rx_data") => {
                differs(format!("decoded {data:02X?}"));
            }
            Ok(_) => {}
            Err(error) => {
                // What follows depends on this step.
                differs(error);
                break;
            }
        }
        if step.op != Op::Auth && step.fields.opt_flag("ends_session") == Some(true) {
            assert!(
                matches!(live, Live::Free(_)),
                "{vector}: the session should have ended"
            );
        }
    }
    (exchanges, differences)
}

#[test]
fn every_recorded_session() {
    let cards = vectors::load("full_session.txt");
    let generated = vectors::load("generated_full_session.txt");
    assert_eq!((cards.len(), generated.len()), (34, 8));
    let (mut exchanges, mut differences) = (0, Vec::new());
    for vector in cards.iter().chain(&generated) {
        let (count, differ) = replay(vector);
        exchanges += count;
        differences.extend(differ);
    }
    for difference in &differences {
        println!("{difference}");
    }
    println!(
        "recordings: {} sessions, {exchanges} exchanges, {} differ",
        cards.len() + generated.len(),
        differences.len()
    );
    assert!(differences.is_empty());
}

/// The replay can fail: one wrong bit in a recorded command or reply shows.
#[test]
fn a_wrong_bit_shows() {
    let cards = vectors::load("full_session.txt");
    let vector = cards
        .iter()
        .find(|vector| vector.id == "desox-file-io")
        .unwrap();
    assert!(replay(vector).1.is_empty());
    for step in [3, 5, 11] {
        let mut command = vector.clone();
        *command.steps[step].frames[0].tx.last_mut().unwrap() ^= 1;
        assert!(!replay(&command).1.is_empty(), "command of step {step}");
        let mut reply = vector.clone();
        *reply.steps[step]
            .frames
            .last_mut()
            .unwrap()
            .rx
            .last_mut()
            .unwrap() ^= 1;
        assert!(!replay(&reply).1.is_empty(), "reply of step {step}");
    }
}
