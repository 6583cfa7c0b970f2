//! No key, nonce or plaintext in any `Debug` or error text.
//!
//! Every public type is in one of the tables below: it is printed here and its text searched, or it
//! stands under the reason why there is nothing to search. The source is scanned for public types, so
//! that a new one cannot be forgotten. The failures of every command are in `tests/misuse.rs`.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/rig.rs"]
mod rig;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::fs;
use std::path::{Path, PathBuf};

use desfire_ev1::picc::{Card, FileContent, Records, Value};
use desfire_ev1::provision::MemoryKeys;
use desfire_ev1::wire::{CommMode, KeyNo, ValueFlags};
use desfire_ev1::{Authenticated, Faulty, LinkFormat, Machine, Passing, RunError, Session, Traced};
use rig::{SUITES, Script, Seeded, Suite, Wire, cyclic, file_no, key_no, standard, u24, value};

/// They have something to hide, and are printed in [`texts`].
const PRINTED: &[&str] = &[
    "Application",
    "Card",
    "CardBuilder",
    "CardKey",
    "Error",
    "ErrorKind",
    "Faulty",
    "File",
    "FileContent",
    "Key",
    "KeyError",
    "MemoryKeys",
    "Records",
    "RunError",
    "Session",
    "State",
    "Traced",
    "Transaction",
    "Value",
];

/// They have no `Debug` and no `Display`: that this stays so is tested.
const SILENT: &[&str] = &[
    "AppendRecord",
    "Authenticate",
    "AuthenticateIso7816",
    "ChangeFileSettings",
    "ChangeKey",
    "ChangeKeyInUse",
    "Credit",
    "Debit",
    "Exchange",
    "FileAccess",
    "GetDfNames",
    "GetValue",
    "Inner",
    "IsoExchange",
    "LimitedCredit",
    "Protection",
    "Raw",
    "ReadBinary",
    "ReadData",
    "ReadRecord",
    "ReadRecords",
    "RequestProtection",
    "SetConfiguration",
    "UpdateBinary",
    "VirtualReader",
    "WriteData",
    "WriteRecord",
    "PcscCard",
    "PcscContext",
    "Acr122u",
    "Wiped",
];

/// Nobody can get a value of these: they are inside an `Exchange`, which has no `Debug`.
const INSIDE: &[&str] = &[
    "AbortTransaction",
    "ChangeKeySettings",
    "ClearRecordFile",
    "CommitTransaction",
    "CreateApplication",
    "CreateBackupDataFile",
    "CreateCyclicRecordFile",
    "CreateLinearRecordFile",
    "CreateStdDataFile",
    "CreateValueFile",
    "DeleteApplication",
    "DeleteFile",
    "FormatPicc",
    "FreeMem",
    "GetApplicationIds",
    "GetCardUid",
    "GetFileIds",
    "GetFileSettings",
    "GetIsoFileIds",
    "GetKeySettings",
    "GetKeyVersion",
    "GetVersion",
    "SelectApplication",
    "SelectApplicationByName",
    "SelectFile",
    "SessionKey",
    "Operation",
    "Padding",
    "ReplyProtection",
    "DataLength",
];

/// Numbers, names and states of a card's structure, and what is wrong with them.
const STRUCTURE: &[&str] = &[
    "Access",
    "AccessRights",
    "Activation",
    "Aid",
    "Amount",
    "ApplicationIds",
    "AuthScheme",
    "Authenticated",
    "Authenticity",
    "BinaryPlace",
    "Buzzer",
    "CardMute",
    "ChangeKeyAccess",
    "CommByte",
    "CommMode",
    "CommandCode",
    "DfName",
    "DfNames",
    "Fault",
    "FileDetail",
    "FileIds",
    "FileNo",
    "FileSettings",
    "Framing",
    "Instruction",
    "IsoFileId",
    "IsoFileIds",
    "IsoInstruction",
    "IsoName",
    "IsoTarget",
    "KeyFamily",
    "KeyFlags",
    "KeyInfo",
    "KeyNo",
    "KeySettings",
    "KeyType",
    "Led",
    "LinkFormat",
    "Malformed",
    "Messaging",
    "Misuse",
    "ModuleVersion",
    "NamedApplication",
    "Outcome",
    "PcscError",
    "PiccParameters",
    "RawMode",
    "RecordRange",
    "ShortFileId",
    "StateError",
    "Status",
    "StatusWord",
    "Storage",
    "StorageSize",
    "U24",
    "Uid",
    "Unauthenticated",
    "ValueFlags",
    "Version",
    "WireError",
];

/// Bytes as they are on the air, or bytes that the caller has put there; their use is to be looked at.
const LINK: &[&str] = &[
    "CommandApdu",
    "CommandFrame",
    "FrameBuffer",
    "InlineBytes",
    "Passing",
    "Reader",
    "ReplyFrame",
    "ResponseApdu",
    "Step",
    "Writer",
];

/// Decoded amounts, times and numbers, which are what the caller asked for; no key comes near them.
const PURSE: &[&str] = &[
    "Create",
    "Evidence",
    "DropPending",
    "Execute",
    "History",
    "Initialise",
    "Intent",
    "Kind",
    "Open",
    "Purse",
    "PurseError",
    "ReadHistory",
    "Record",
    "Refusal",
    "Settle",
    "Settlement",
    "Stamp",
    "Tap",
];

/// A layout names keys and holds none; the first contents of files, which stand in it, are what the
/// caller has written down. `Issuer` and `MemoryKeys` are silent about keys.
const PROVISION: &[&str] = &[
    "ApplicationLayout",
    "FileKind",
    "FileLayout",
    "IssueError",
    "Issuer",
    "KeyFault",
    "KeyRef",
    "KeySlot",
    "Layout",
    "LayoutError",
    "LayoutErrors",
    "Origin",
    "PiccLayout",
    "Place",
    "Plan",
    "Problem",
    "ProblemKind",
    "Progress",
    "ProvisionError",
    "RecordsLayout",
    "Report",
    "Verdict",
];

/// As [`PRINTED`], of `split`.
const SPLIT_PRINTED: &[&str] = &[
    "split::BaseKey",
    "split::Dukpt",
    "split::InitialKey",
    "split::KnownTerminal",
    "split::Message",
    "split::Record",
    "split::SoftKey",
    "split::SoftKeys",
    "split::StorageKey",
    "split::TransportKey",
    "split::TransportKeys",
];

/// As [`SILENT`], of `split`.
const SPLIT_SILENT: &[&str] = &[
    "split::Accepted",
    "split::Answered",
    "split::Finished",
    "split::Foretold",
    "split::Found",
    "split::Pending",
    "split::Player",
    "split::Prove",
    "split::Proven",
    "split::Relay",
    "split::RelayGate",
    "split::RemoteCard",
    "split::Replay",
    "split::ScriptBuilder",
    "split::SoftEntry",
    "split::Tap",
    "split::Unlock",
    "split::Waiting",
    "CbcTask",
    "Diversification",
];

/// What both sides of `split` may know, and send in clear: who, where, when, what for, and what became
/// of it. The nonces of [`desfire_ev1::split::Nonces`] are no secret either, only fresh.
const SPLIT_STRUCTURE: &[&str] = &[
    "split::AuthenticateError",
    "split::Challenge",
    "split::Counters",
    "split::Diversified",
    "split::Effect",
    "split::Ending",
    "split::Freshness",
    "split::Grant",
    "split::HolderError",
    "split::Intent",
    "split::Judgement",
    "split::KeyRequest",
    "split::Ksn",
    "split::MessageError",
    "split::Mode",
    "split::Modes",
    "split::Nonces",
    "split::Refusal",
    "split::RemoteError",
    "split::ReplayError",
    "split::SoftKeyError",
    "split::Stop",
    "split::TerminalError",
    "split::TerminalId",
    "split::TransportKeyId",
    "split::Verdict",
    "CbcDirection",
    "Facts",
];

fn sources() -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if !path.ends_with("internals.rs") {
                found.push(path);
            }
        }
    }
    found
}

/// Public types, and whether each is printed in any way.
fn public_types(text: &str) -> BTreeMap<String, bool> {
    let mut types = BTreeMap::new();
    let mut derives = String::new();
    let code = text
        .lines()
        .take_while(|line| !line.contains("#[cfg(test)]"));
    for line in code.map(str::trim) {
        if line.starts_with("#[derive(") {
            derives = line.to_owned();
        }
        let name = ["pub struct ", "pub enum ", "pub union "]
            .iter()
            .find_map(|start| line.strip_prefix(start));
        if let Some(name) = name {
            let name: String = name.chars().take_while(|c| c.is_alphanumeric()).collect();
            let prints = derives.contains("Debug") || derives.contains("Error");
            types.insert(name, prints);
        }
        if !line.starts_with("#[") && !line.starts_with("//") {
            derives.clear();
        }
    }
    for (name, prints) in &mut types {
        *prints |= ["Debug for ", "Display for "].iter().any(|implemented| {
            text.split(implemented).skip(1).any(|rest| {
                let of: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
                of == *name
            })
        });
    }
    types
}

#[test]
fn every_public_type_is_accounted_for() {
    let tables = [
        PRINTED,
        SILENT,
        INSIDE,
        STRUCTURE,
        LINK,
        PURSE,
        PROVISION,
        SPLIT_PRINTED,
        SPLIT_SILENT,
        SPLIT_STRUCTURE,
    ];
    let listed: BTreeSet<&str> = tables.iter().copied().flatten().copied().collect();
    let mut there = BTreeSet::new();
    let mut missing = Vec::new();
    for path in sources() {
        for (name, prints) in public_types(&fs::read_to_string(&path).unwrap()) {
            let shown = path.display();
            let is_split = path.iter().any(|folder| folder == "split");
            let name = if is_split {
                format!("split::{name}")
            } else {
                name
            };
            if !listed.contains(name.as_str()) {
                missing.push(format!("{name} in {shown}"));
            }
            let silent = [SILENT, SPLIT_SILENT].concat().contains(&name.as_str());
            assert!(!silent || !prints, "{name} in {shown} has got a text");
            there.insert(name);
        }
    }
    assert!(
        missing.is_empty(),
        "in no table of this test; print them, or say why not:\n{}",
        missing.join("\n")
    );
    let gone: Vec<_> = listed
        .iter()
        .filter(|name| !there.contains(**name))
        .collect();
    assert!(
        gone.is_empty(),
        "in a table, and not in the source: {gone:?}"
    );
    let example = "#[derive(Debug)]\n/// A.\npub struct A;\npub enum B {}\nimpl fmt::Debug for B {}\npub struct C(u8);";
    let found = public_types(example);
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [
            ("A".to_owned(), true),
            ("B".to_owned(), true),
            ("C".to_owned(), false)
        ]
    );
}

/// Whether two neighbouring bytes of a secret are in a text, in any usual notation, or four of them as
/// characters.
fn leaks(text: &str, secret: &[u8]) -> bool {
    let lower = text.to_lowercase();
    let blank: String = lower.split_whitespace().collect();
    let pairs = secret.windows(2).any(|pair| {
        let (a, b) = (pair[0], pair[1]);
        let hex = format!("{a:02x}{b:02x}");
        let forms = [
            format!("{a:02x},{b:02x}"),
            format!("{a:x},{b:x}"),
            format!("0x{a:02x},0x{b:02x}"),
            format!("{a:02x}:{b:02x}"),
        ];
        let decimal = format!("{a},{b}");
        lower.contains(&hex)
            || forms.iter().any(|form| blank.contains(form))
            || numbers_contain(&blank, &decimal)
    });
    let four = secret
        .windows(4)
        .any(|four| str::from_utf8(four).is_ok_and(|four| text.contains(four)));
    pairs || four
}

/// Not the end of one number and the beginning of another.
fn numbers_contain(text: &str, pair: &str) -> bool {
    text.match_indices(pair).any(|(at, _)| {
        let digit = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
        !digit(text[..at].chars().next_back()) && !digit(text[at + pair.len()..].chars().next())
    })
}

/// Balance of the value file: also searched for as a number.
const BALANCE: i32 = 918_273_645;

fn all_of(of: &impl Debug) -> String {
    format!("{of:?} {of:#?} {of:02x?} {of:X?}")
}

fn with_sources<E: std::error::Error + 'static>(error: &RunError<E>) -> String {
    let mut text = String::new();
    let mut source: Option<&dyn std::error::Error> = Some(error);
    while let Some(error) = source {
        text += &format!("{error} {error:#} {error:?} {error:#?} ");
        source = error.source();
    }
    text
}

/// Texts of everything in [`PRINTED`], by the name of what they are of.
fn texts(suite: Suite, data: &[u8]) -> Vec<(&'static str, String)> {
    let files = [
        standard(0, CommMode::Enciphered, data.to_vec()),
        value(1, CommMode::Enciphered, BALANCE),
        cyclic(2, CommMode::Mac, 10, 4, data[..20].to_vec()),
    ];
    let card = suite.card(files);
    let state = card.state();
    let application = &state.applications()[0];
    let mut texts = vec![
        ("Key", all_of(&suite.key(0))),
        ("CardKey", all_of(&suite.card_key(0))),
        ("Card", all_of(&card)),
        ("State", all_of(state)),
        ("Application", all_of(application)),
        ("File", all_of(&application.files())),
        (
            "CardBuilder",
            all_of(&Card::builder().state(state.clone()).seed(seed())),
        ),
        ("FileContent", all_of(&FileContent::Standard(data.to_vec()))),
        ("FileContent", all_of(&FileContent::Backup(data.to_vec()))),
        (
            "Records",
            all_of(&Records::new(u24(10), u24(4), data[..20].to_vec())),
        ),
        (
            "Value",
            all_of(&Value {
                lower: 0,
                upper: i32::MAX,
                value: BALANCE,
                limited_credit: BALANCE,
                flags: ValueFlags::LIMITED_CREDIT,
            }),
        ),
        (
            "MemoryKeys",
            all_of(&MemoryKeys::new().with("issuer", 0, suite.key(0)).with(
                "staff",
                1,
                suite.key(1),
            )),
        ),
        ("KeyError", {
            let short = desfire_ev1::Key::from_slice(suite.key_type, &suite.key_bytes(0)[..7]);
            let error = short.unwrap_err();
            format!("{error} {}", all_of(&error))
        }),
    ];
    let wire = || Wire::new(card.clone(), LinkFormat::NATIVE);
    let mut session: Session<Authenticated> = suite.open(&mut wire(), 0, 1).unwrap();
    texts.push(("Session", all_of(&session)));
    texts.push(("Transaction", all_of(&session.transaction())));
    let show: fn(&[u8], &[u8]) = |_, _| ();
    let fault: fn(Passing<'_>) = |_| ();
    // Where the code lies is no secret, and its digits may be anything.
    let traced = format!("{:?}", Traced::new((), show));
    texts.push(("Traced", traced.replace(&format!("{show:?}"), "")));
    let faulty = format!("{:?}", Faulty::new((), fault));
    texts.push(("Faulty", faulty.replace(&format!("{fault:?}"), "")));

    // Failures of every kind.
    let mut fail = |what: fn(&mut Session<Authenticated>, &mut Wire, Suite) -> String| {
        let mut wire = wire();
        let mut session = suite.open(&mut wire, 0, 1).unwrap();
        let text = what(&mut session, &mut wire, suite);
        texts.push(("Session", all_of(&session)));
        texts.push(("RunError", text));
    };
    fail(|session, wire, suite| {
        let failed = session
            .change_key(key_no(1), &suite.key(2), &suite.key(0))
            .run(wire);
        with_sources(&failed.unwrap_err())
    });
    fail(|session, wire, suite| {
        let failed = session
            .change_key(key_no(0), &suite.key(1), &suite.key(2))
            .run(wire);
        with_sources(&failed.unwrap_err())
    });
    fail(|session, wire, _| {
        let mut buffer = [0; 101];
        let failed = session.read_data(file_no(0), 0..101, &mut buffer).run(wire);
        with_sources(&failed.unwrap_err())
    });
    fail(|session, wire, _| {
        let mut buffer = [0; 30];
        let failed = session
            .read_data_to_end(file_no(0), 0, &mut buffer)
            .run(wire);
        with_sources(&failed.unwrap_err())
    });
    fail(|session, _, _| {
        let mut script = Script::new(
            LinkFormat::NATIVE,
            [[&[0][..], &Seeded(8).bytes(16)].concat()],
        );
        with_sources(&session.get_card_uid().run(&mut script).unwrap_err())
    });
    fail(|session, _, _| {
        let mut script = Script::new(LinkFormat::NATIVE, []);
        with_sources(&session.get_value(file_no(1)).run(&mut script).unwrap_err())
    });
    let mut wire = Wire::new(card.clone(), LinkFormat::NATIVE);
    let wrong = Session::new()
        .select_application(rig::AID)
        .run(&mut wire)
        .unwrap()
        .authenticate(suite.scheme, KeyNo::MASTER, &suite.key(2), &mut Seeded(1))
        .run(&mut wire);
    let wrong = wrong.unwrap_err();
    let error = *wrong.protocol().unwrap();
    texts.push(("RunError", with_sources(&wrong)));
    texts.push(("Error", format!("{error} {}", all_of(&error))));
    texts.push((
        "ErrorKind",
        format!("{} {}", error.kind, all_of(&error.kind)),
    ));
    texts
}

/// Texts of everything in [`SPLIT_PRINTED`].
fn split_texts(suite: Suite, secret: [u8; 16]) -> Vec<(&'static str, String)> {
    use desfire_ev1::split::{
        BaseKey, Dukpt, InitialKey, KnownTerminal, Message, Record, SoftEntry, SoftKey, SoftKeys,
        StorageKey, TerminalId, TransportKey, TransportKeyId, TransportKeys,
    };
    let (base, transport) = (BaseKey::new(secret), TransportKey::new(secret));
    let sources = [
        TransportKeys::One {
            id: TransportKeyId::Preshared(1),
            key: &transport,
        },
        TransportKeys::Dukpt {
            base: &base,
            key_id: *b"fleet 01",
        },
    ];
    let known = sources.map(|transport| KnownTerminal {
        id: TerminalId::new(b"till 7").unwrap(),
        transport,
        grants: &[],
    });
    let initial = InitialKey::new(secret, [0; 8]);
    let entries = [SoftEntry {
        aid: rig::AID,
        key_no: KeyNo::MASTER,
        key: suite.key(0),
        diversified: None,
    }];
    let mut sealed = vec![0; 512];
    let storage = StorageKey::new(secret);
    let record = a_record(&mut sealed, &storage);
    let mut room = vec![0; record.len()];
    let record = Record::unseal(&record, &storage, &mut room).unwrap();
    vec![
        ("split::BaseKey", all_of(&BaseKey::new(secret))),
        ("split::InitialKey", all_of(&initial)),
        ("split::Dukpt", all_of(&Dukpt::load(&initial))),
        ("split::StorageKey", all_of(&storage)),
        ("split::TransportKeys", all_of(&sources)),
        ("split::KnownTerminal", all_of(&known)),
        ("split::TransportKey", all_of(&TransportKey::new(secret))),
        ("split::SoftKey", all_of(&SoftKey::new(&suite.key(0)))),
        ("split::SoftKeys", all_of(&SoftKeys::new(&entries))),
        (
            "split::Message",
            all_of(&Message::<32>::from_slice(&secret).unwrap()),
        ),
        ("split::Record", all_of(&record)),
    ]
}

/// What a key holder keeps of a script that asks for a key's version.
fn a_record(sealed: &mut [u8], storage: &desfire_ev1::split::StorageKey) -> Vec<u8> {
    use desfire_ev1::split::{
        Accepted, Counters, Freshness, Grant, Intent, KnownTerminal, Mode, Modes, SoftKey, Tap,
        TerminalId, TransportKey, TransportKeyId, TransportKeys,
    };
    use desfire_ev1::wire::{AuthScheme, InlineBytes, KeyType};
    let mut reader = desfire_ev1::VirtualReader::demo();
    let key = TransportKey::new(*b"transport key 07");
    let intent = Intent {
        mode: Mode::Script,
        scheme: AuthScheme::Aes,
        key_type: KeyType::Aes,
        key_no: KeyNo::MASTER,
        uid: None,
        terminal: TerminalId::new(b"till 7").unwrap(),
        transport: TransportKeyId::Preshared(1),
        freshness: Freshness::Counter(1),
        purpose: InlineBytes::new(b"coffee").unwrap(),
    };
    let session = Session::new()
        .select_application(desfire_ev1::VirtualReader::DEMO_AID)
        .run(&mut reader)
        .unwrap();
    let waiting = Tap::new(session, intent, &key).run(&mut reader).unwrap();
    let message = waiting.message().unwrap();
    let grants = [Grant {
        aid: desfire_ev1::VirtualReader::DEMO_AID,
        key_no: KeyNo::MASTER,
        scheme: AuthScheme::Aes,
        modes: Modes::all(),
    }];
    let till = KnownTerminal {
        id: intent.terminal,
        transport: TransportKeys::One {
            id: intent.transport,
            key: &key,
        },
        grants: &grants,
    };
    let accepted = Accepted::check(&message, &till, &mut Counters::<1>::new());
    let answered = accepted
        .unwrap()
        .answer(
            &mut SoftKey::new(&desfire_ev1::Key::aes([0; 16])),
            &mut Seeded(1),
        )
        .unwrap();
    let (mut script, mut record) = ([0; 256], [0; 512]);
    let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
    builder
        .expect(session.get_key_version(KeyNo::MASTER), &[0])
        .unwrap();
    let finished = builder.finish().unwrap();
    let len = finished.record.seal(storage, sealed).unwrap();
    sealed[..len].to_vec()
}

fn seed() -> [u8; 16] {
    Seeded(5).bytes(16).try_into().unwrap()
}

#[test]
fn no_text_holds_a_secret() {
    let mut printed: BTreeSet<&str> = BTreeSet::new();
    for suite in SUITES {
        let data = Seeded(77).bytes(100);
        let secrets = [
            ("key 0", suite.key_bytes(0)),
            ("key 1", suite.key_bytes(1)),
            ("key 2", suite.key_bytes(2)),
            ("RndA", Seeded(1).bytes(16)),
            ("seed", seed().to_vec()),
            ("data", data.clone()),
        ];
        let split = split_texts(suite, seed());
        for (name, text) in texts(suite, &data).into_iter().chain(split) {
            printed.insert(name);
            for (secret, bytes) in &secrets {
                assert!(
                    !leaks(&text, bytes),
                    "{secret} in the text of {name}: {text}"
                );
            }
            let balance = [
                format!("{BALANCE}"),
                format!("{BALANCE:x}"),
                format!("{BALANCE:X}"),
            ];
            for balance in balance {
                assert!(
                    !text.contains(&balance),
                    "the balance in the text of {name}: {text}"
                );
            }
        }
    }
    let expected = PRINTED.iter().chain(SPLIT_PRINTED).copied().collect();
    assert_eq!(printed, expected);
}

#[test]
fn the_search_finds_secrets() {
    let secret = [0xC6, 0x1D, 0x8F];
    for text in [
        "[198, 29]",
        "C61D",
        "c6 1d".replace(' ', "").as_str(),
        "[0xC6, 0x1D]",
        "[c6, 1d]",
        "[\n    198,\n    29,\n]",
        "1D8F",
        "29, 143",
    ] {
        assert!(leaks(text, &secret), "{text}");
    }
    assert!(leaks("the word is open sesame", b"sesame"));
    for text in ["[198, 143]", "1198, 29", "198, 290", "nothing"] {
        assert!(!leaks(text, &secret), "{text}");
    }
}
