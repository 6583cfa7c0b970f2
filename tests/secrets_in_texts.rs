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

#[path = "support/issue.rs"]
mod issue;
#[path = "support/rig.rs"]
mod rig;
#[path = "support/source.rs"]
mod source;

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Debug;
use std::path::Path;

use desfire_ev1::internals::{self, Chain};
use desfire_ev1::picc::{Card, FileContent, Records, Value};
use desfire_ev1::provision::{IssueError, Issuer, MemoryKeys};
use desfire_ev1::split::{
    Accepted, BaseKey, Challenge, Counters, Dukpt, Freshness, Grant, InitialKey, Intent, KeyStore,
    KnownTerminal, Message, Mode, Modes, Record, SoftEntry, SoftKey, SoftKeys, StorageKey, Tap,
    TerminalId, TransportKey, TransportKeyId, TransportKeys, authenticate,
};
use desfire_ev1::wire::{CommMode, InlineBytes, KeyNo, ValueFlags};
use desfire_ev1::{
    Authenticated, Faulty, Key, LinkFormat, Machine, Messaging, Passing, Session, Traced,
};
use rig::{
    EV1, Exchanged, SUITES, Script, Seeded, Suite, Wire, cyclic, file_no, handshake_secrets,
    key_no, standard, u24, value,
};
use source::{declared, pieces, read, root, sources};

/// They have something to hide, and are printed below.
const PRINTED: &[&str] = &[
    "Error",
    "ErrorKind",
    "Faulty",
    "Key",
    "KeyError",
    "RunError",
    "Session",
    "SessionKey",
    "Traced",
    "Transaction",
    "picc::Application",
    "picc::Card",
    "picc::CardBuilder",
    "picc::CardKey",
    "picc::File",
    "picc::FileContent",
    "picc::Records",
    "picc::State",
    "picc::Value",
    "provision::IssueError",
    "provision::Issuer",
    "provision::KeyFault",
    "provision::LayoutError",
    "provision::LayoutErrors",
    "provision::MemoryKeys",
    "provision::Plan",
    "provision::ProvisionError",
    "provision::Report",
];

/// They have no `Debug` and no `Display`: that this stays so is tested.
const SILENT: &[&str] = &[
    "Acr122u",
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
    "PcscCard",
    "PcscContext",
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
    "Wiped",
    "WriteData",
    "WriteRecord",
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
    "DataLength",
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
    "Operation",
    "Padding",
    "ReplyProtection",
    "SelectApplication",
    "SelectApplicationByName",
    "SelectFile",
];

/// Numbers, names and states of a card's structure, and what is wrong with them.
const STRUCTURE: &[&str] = &[
    "ApplicationIds",
    "Authenticated",
    "Authenticity",
    "BinaryPlace",
    "Buzzer",
    "CardMute",
    "DfNames",
    "FileIds",
    "IsoFileIds",
    "IsoName",
    "IsoTarget",
    "Led",
    "LinkFormat",
    "Malformed",
    "Messaging",
    "Misuse",
    "NamedApplication",
    "Outcome",
    "PcscError",
    "PiccParameters",
    "RawMode",
    "RecordRange",
    "ShortFileId",
    "Unauthenticated",
    "picc::Activation",
    "picc::Fault",
    "picc::StateError",
    "picc::StorageSize",
    "wire::Access",
    "wire::AccessRights",
    "wire::Aid",
    "wire::Amount",
    "wire::AuthScheme",
    "wire::ChangeKeyAccess",
    "wire::CommByte",
    "wire::CommMode",
    "wire::CommandCode",
    "wire::DfName",
    "wire::FileDetail",
    "wire::FileNo",
    "wire::FileSettings",
    "wire::Framing",
    "wire::Instruction",
    "wire::IsoFileId",
    "wire::IsoInstruction",
    "wire::KeyFamily",
    "wire::KeyFlags",
    "wire::KeyInfo",
    "wire::KeyNo",
    "wire::KeySettings",
    "wire::KeyType",
    "wire::ModuleVersion",
    "wire::Status",
    "wire::StatusWord",
    "wire::Storage",
    "wire::U24",
    "wire::Uid",
    "wire::ValueFlags",
    "wire::Version",
    "wire::WireError",
];

/// Bytes as they are on the air, or bytes that the caller has put there; their use is to be looked at.
const LINK: &[&str] = &[
    "Passing",
    "Step",
    "wire::CommandApdu",
    "wire::CommandFrame",
    "wire::FrameBuffer",
    "wire::InlineBytes",
    "wire::Reader",
    "wire::ReplyFrame",
    "wire::ResponseApdu",
    "wire::Writer",
];

/// Decoded amounts, times and numbers, which are what the caller asked for; no key comes near them.
const PURSE: &[&str] = &[
    "purse::Create",
    "purse::DropPending",
    "purse::Evidence",
    "purse::Execute",
    "purse::History",
    "purse::Initialise",
    "purse::Intent",
    "purse::Kind",
    "purse::Open",
    "purse::Purse",
    "purse::PurseError",
    "purse::ReadHistory",
    "purse::Record",
    "purse::Refusal",
    "purse::Settle",
    "purse::Settlement",
    "purse::Stamp",
    "purse::Tap",
];

/// A layout names keys and holds none; the first contents of files, which stand in it, are what the
/// caller has written down.
const PROVISION: &[&str] = &[
    "provision::ApplicationLayout",
    "provision::FileKind",
    "provision::FileLayout",
    "provision::KeyRef",
    "provision::KeySlot",
    "provision::Layout",
    "provision::Origin",
    "provision::PiccLayout",
    "provision::Place",
    "provision::Problem",
    "provision::ProblemKind",
    "provision::Progress",
    "provision::RecordsLayout",
    "provision::Step",
    "provision::Verdict",
];

/// As [`PRINTED`], of `split`.
const SPLIT_PRINTED: &[&str] = &[
    "split::AuthenticateError",
    "split::BaseKey",
    "split::Dukpt",
    "split::HolderError",
    "split::InitialKey",
    "split::KnownTerminal",
    "split::Message",
    "split::MessageError",
    "split::Record",
    "split::Refusal",
    "split::ReplayError",
    "split::SoftKey",
    "split::SoftKeyError",
    "split::SoftKeys",
    "split::StorageKey",
    "split::TerminalError",
    "split::TransportKey",
    "split::TransportKeys",
];

/// As [`SILENT`], of `split`.
const SPLIT_SILENT: &[&str] = &[
    "CbcTask",
    "Diversification",
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
];

/// What both sides of `split` may know, and send in clear: who, where, when, what for, and what became
/// of it. The nonces of [`desfire_ev1::split::Nonces`] are no secret either, only fresh.
const SPLIT_STRUCTURE: &[&str] = &[
    "CbcDirection",
    "Facts",
    "split::Challenge",
    "split::Counters",
    "split::Diversified",
    "split::Effect",
    "split::Ending",
    "split::Freshness",
    "split::Grant",
    "split::Intent",
    "split::Judgement",
    "split::KeyRequest",
    "split::Ksn",
    "split::Mode",
    "split::Modes",
    "split::Nonces",
    "split::RemoteError",
    "split::Stop",
    "split::TerminalId",
    "split::TransportKeyId",
    "split::Verdict",
];

/// Public types, and whether each is printed in any way.
fn public_types(text: &str) -> BTreeMap<String, bool> {
    let mut types = BTreeMap::new();
    for (_, piece) in pieces(text) {
        let Some((before, name)) = declared(&piece) else {
            continue;
        };
        let is_public = ["pub struct ", "pub enum ", "pub union "]
            .iter()
            .any(|end| before.ends_with(end));
        if is_public {
            let prints = before.contains("Debug") || before.contains("Error");
            let other = types.insert(name.to_owned(), prints);
            assert_eq!(other, None, "{name} is there twice");
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

/// The public module of a file; none for the reader side, which is what the crate itself gives.
fn module(path: &Path) -> Option<String> {
    let mut parts = path.strip_prefix(root().join("src")).unwrap().iter();
    let module = parts.next().unwrap().to_str().unwrap();
    (parts.next().is_some() && module != "pcd").then(|| module.to_owned())
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
    for path in sources("src") {
        if path.ends_with("internals.rs") {
            continue;
        }
        for (name, prints) in public_types(&read(&path)) {
            let shown = path.display();
            let name = match module(&path) {
                Some(module) => format!("{module}::{name}"),
                None => name,
            };
            if !listed.contains(name.as_str()) {
                missing.push(format!("{name} in {shown}"));
            }
            let silent = [SILENT, SPLIT_SILENT].concat().contains(&name.as_str());
            assert!(!silent || !prints, "{name} in {shown} has got a text");
            assert!(!there.contains(&name), "{name} in {shown} is one of two");
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
    let example = "#[derive(\n    Clone,\n    Debug,\n)]\n/// A.\npub struct A;\npub enum B {}\nimpl fmt::Debug for B {}\npub struct C(u8);\n#[cfg(test)]\nfn f() {}\n#[derive(Clone, Debug)]\npub enum D {\n";
    let found = public_types(example);
    assert_eq!(
        found.into_iter().collect::<Vec<_>>(),
        [
            ("A".to_owned(), true),
            ("B".to_owned(), true),
            ("C".to_owned(), false),
            ("D".to_owned(), true)
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

fn with_sources(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = String::new();
    let mut source = Some(error);
    while let Some(error) = source {
        text += &format!("{error} {error:#} {error:?} {error:#?} ");
        source = error.source();
    }
    text
}

/// Texts by the name of what they are of, and what must not be in them.
#[derive(Default)]
struct Looked {
    texts: Vec<(&'static str, String)>,
    secrets: Vec<(&'static str, Vec<u8>)>,
}

/// The IV of a session in which GetKeyVersion was the first command: the CMAC over its reply.
fn moved_iv(suite: Suite, session_key: &[u8], wire: &Wire) -> Vec<u8> {
    let (command, reply) = wire.log.last().unwrap();
    let mut chain = Chain::new(&Key::from_slice(suite.key_type, session_key).unwrap(), &[]);
    chain.mac(command);
    let iv = chain.mac(&[reply[1], reply[0]]).to_vec();
    assert!(iv[..8] == reply[2..], "the card has sent the start of it");
    iv
}

/// What is in [`PRINTED`], but for `provision`.
fn texts(suite: Suite, data: &[u8]) -> Looked {
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
        ("picc::CardKey", all_of(&suite.card_key(0))),
        ("picc::Card", all_of(&card)),
        ("picc::State", all_of(state)),
        ("picc::Application", all_of(application)),
        ("picc::File", all_of(&application.files())),
        (
            "picc::CardBuilder",
            all_of(&Card::builder().state(state.clone()).seed(seed())),
        ),
        (
            "picc::FileContent",
            all_of(&FileContent::Standard(data.to_vec())),
        ),
        (
            "picc::FileContent",
            all_of(&FileContent::Backup(data.to_vec())),
        ),
        (
            "picc::Records",
            all_of(&Records::new(u24(10), u24(4), data[..20].to_vec())),
        ),
        (
            "picc::Value",
            all_of(&Value {
                lower: 0,
                upper: i32::MAX,
                value: BALANCE,
                limited_credit: BALANCE,
                flags: ValueFlags::LIMITED_CREDIT,
            }),
        ),
        ("KeyError", {
            let short = desfire_ev1::Key::from_slice(suite.key_type, &suite.key_bytes(0)[..7]);
            let error = short.unwrap_err();
            format!("{error} {}", all_of(&error))
        }),
    ];
    let mut secrets = vec![
        ("key 0", suite.key_bytes(0)),
        ("key 1", suite.key_bytes(1)),
        ("key 2", suite.key_bytes(2)),
        ("the seed", seed().to_vec()),
        ("the data", data.to_vec()),
    ];
    let wire = || Wire::new(card.clone(), LinkFormat::NATIVE);
    let mut opened = wire();
    let mut session: Session<Authenticated> = suite.open(&mut opened, 0, 1).unwrap();
    // All sessions here have the same nonces: the same card, and the same seed.
    let rnd_a = Seeded(1).bytes(16).try_into().unwrap();
    secrets.extend(handshake_secrets(suite, &suite.key(0), &rnd_a, &opened.log));
    texts.push(("Session", all_of(&session)));
    session
        .get_key_version(KeyNo::MASTER)
        .run(&mut opened)
        .unwrap();
    let (_, session_key) = &secrets[5];
    let messaging = if suite.is_ev1() {
        Messaging::Ev1
    } else {
        Messaging::D40
    };
    let key = Key::from_slice(suite.key_type, session_key).unwrap();
    texts.push((
        "SessionKey",
        all_of(&internals::session_key(messaging, &key)),
    ));
    if suite.is_ev1() {
        secrets.push(("the IV", moved_iv(suite, session_key, &opened)));
    }
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
    Looked { texts, secrets }
}

/// What is in [`PRINTED`] of `provision`: under keys of which any part is the same secret.
fn provision_texts() -> Looked {
    let suite = EV1[2];
    let bytes = suite.key_bytes(1);
    let mut keys = MemoryKeys::new();
    for (name, version, key_type) in issue::keys().list() {
        let len = key_type.family().key_len();
        let key = Key::from_slice(key_type, &bytes[..len]).unwrap();
        keys.insert(name, version, key.with_version(version));
    }
    let layout = issue::layout(issue::NEW);
    let issuer = Issuer::new(&layout, &keys).unwrap();
    let mut texts = vec![
        ("provision::MemoryKeys", all_of(&keys)),
        ("provision::Issuer", all_of(&issuer)),
    ];

    let mut reader = issue::reader();
    let plan = issuer.plan(&mut reader, &mut Seeded(1)).unwrap();
    texts.push(("provision::Plan", format!("{plan} {}", all_of(&plan))));
    let report = issuer.apply(&mut reader, &mut Seeded(1)).unwrap();
    texts.push(("provision::Report", all_of(&report)));

    // Nobody's keys, nobody's layout.
    let other = issue::keys();
    let foreign = Issuer::new(&layout, &other).unwrap();
    let mut failed = |error: &(dyn std::error::Error + 'static)| {
        texts.push(("provision::ProvisionError", with_sources(error)));
    };
    failed(&foreign.apply(&mut reader, &mut Seeded(1)).unwrap_err());
    let mut silent = Script::new(LinkFormat::NATIVE, []);
    failed(&issuer.apply(&mut silent, &mut Seeded(1)).unwrap_err());
    // The card falls silent in the middle of its keys' change.
    let mut torn = Wire::new(Card::new(issue::UID), LinkFormat::NATIVE);
    let fault = |passing: Passing<'_>| {
        if let Passing::Reply {
            exchange: 60, len, ..
        } = passing
        {
            *len = 0;
        }
    };
    failed(
        &issuer
            .apply(&mut Faulty::new(&mut torn, fault), &mut Seeded(1))
            .unwrap_err(),
    );
    for (wrong, mut keys) in [
        ("missing", MemoryKeys::new()),
        ("of another type", keys.clone()),
    ] {
        keys.insert("picc", issue::NEW, suite.key(1));
        keys.insert("app 0 key 0", issue::NEW, EV1[3].key(1));
        let error = Issuer::new(&layout, &keys).unwrap_err();
        texts.push(("provision::IssueError", with_sources(&error)));
        let IssueError::Key { fault, .. } = error else {
            panic!("a key is {wrong}, and that is not what is told");
        };
        texts.push(("provision::KeyFault", with_sources(&fault)));
    }
    let mut broken = layout.clone();
    broken.applications[0].keys.clear();
    let errors = broken.check().unwrap_err();
    texts.push(("provision::LayoutErrors", with_sources(&errors)));
    texts.push(("provision::LayoutError", with_sources(&errors.0[0])));
    Looked {
        texts,
        secrets: vec![("a key", bytes)],
    }
}

/// What is in [`SPLIT_PRINTED`].
fn split_texts() -> Looked {
    let suite = EV1[3];
    let [base, transport, storage, initial, message] =
        [50, 51, 52, 53, 54].map(|seed| <[u8; 16]>::try_from(Seeded(seed).bytes(16)).unwrap());
    let mut secrets = vec![
        ("the card's key", suite.key_bytes(0)),
        ("the base key", base.to_vec()),
        ("the transport key", transport.to_vec()),
        ("the storage key", storage.to_vec()),
        ("the initial key", initial.to_vec()),
        ("the message", message.to_vec()),
    ];
    let (base, transport) = (BaseKey::new(base), TransportKey::new(transport));
    let (storage, initial) = (StorageKey::new(storage), InitialKey::new(initial, [0; 8]));
    let sources = [
        TransportKeys::One {
            id: TransportKeyId::Preshared(1),
            key: &transport,
        },
        TransportKeys::Dukpt {
            base: &base,
            key_id: [9; 8],
        },
    ];
    let grants = [Grant {
        aid: rig::AID,
        key_no: KeyNo::MASTER,
        scheme: suite.scheme,
        modes: Modes::all(),
    }];
    let known = sources.map(|transport| KnownTerminal {
        id: TerminalId::new(b"till 7").unwrap(),
        transport,
        grants: &grants,
    });
    let till = &known[0];
    let entries = [SoftEntry {
        aid: rig::AID,
        key_no: KeyNo::MASTER,
        key: suite.key(0),
        diversified: None,
    }];
    let mut key = SoftKey::new(&suite.key(0));
    let mut dukpt = Dukpt::load(&initial);
    let mut saved = [0; Dukpt::SAVED];
    dukpt.save(&mut saved);
    secrets.push(("a register", saved[..16].to_vec()));
    let mut texts = vec![
        ("split::BaseKey", all_of(&base)),
        ("split::InitialKey", all_of(&initial)),
        ("split::Dukpt", all_of(&dukpt)),
        ("split::TransportKey", all_of(&dukpt.next_key().unwrap())),
        ("split::Dukpt", all_of(&dukpt)),
        ("split::StorageKey", all_of(&storage)),
        ("split::TransportKey", all_of(&transport)),
        ("split::TransportKeys", all_of(&sources)),
        ("split::KnownTerminal", all_of(&known)),
        ("split::SoftKey", all_of(&key)),
        ("split::SoftKeys", all_of(&SoftKeys::new(&entries))),
        (
            "split::Message",
            all_of(&Message::<32>::from_slice(&message).unwrap()),
        ),
    ];

    let mut wire = Wire::new(suite.card([]), LinkFormat::NATIVE);
    let mut guard = Counters::<1>::new();
    // A card that was left in the middle of a handshake says `CA` once.
    let select = |wire: &mut Wire| {
        let first = Session::new().select_application(rig::AID).run(wire);
        first.or_else(|_| Session::new().select_application(rig::AID).run(wire))
    };
    let tap = |wire: &mut Wire, mode, counter| {
        let intent = Intent {
            mode,
            scheme: suite.scheme,
            key_type: suite.key_type,
            key_no: KeyNo::MASTER,
            uid: None,
            terminal: till.id,
            transport: TransportKeyId::Preshared(1),
            freshness: Freshness::Counter(counter),
            purpose: InlineBytes::new(b"coffee").unwrap(),
        };
        Tap::new(select(wire).unwrap(), intent, &transport)
            .run(wire)
            .unwrap()
    };
    let altered = |message: &[u8]| {
        let mut message = message.to_vec();
        *message.last_mut().unwrap() ^= 1;
        message
    };

    // A card-locked tap, and what can go wrong with one.
    let waiting = tap(&mut wire, Mode::CardLocked, 1);
    let challenge = waiting.message().unwrap();
    let error = Challenge::open(&altered(&challenge), &transport).unwrap_err();
    texts.push(("split::MessageError", with_sources(&error)));
    let refused = Accepted::check(&altered(&challenge), till, &mut guard);
    texts.push(("split::Refusal", with_sources(&refused.err().unwrap())));
    let accepted = Accepted::check(&challenge, till, &mut guard).unwrap();
    let request = accepted.key_request();
    let error = KeyStore::find(&mut SoftKeys::new(&[]), &request);
    texts.push(("split::SoftKeyError", with_sources(&error.err().unwrap())));
    let answered = accepted.answer(&mut key, &mut Seeded(1)).unwrap();
    let locked = answered.card_locked().unwrap();
    let session = waiting.card_locked(&locked).unwrap().run(&mut wire);
    texts.push(("Session", all_of(&session.unwrap())));
    let mut handshake = |log: &[Exchanged]| {
        let rnd_a = Seeded(1).bytes(16).try_into().unwrap();
        secrets.extend(handshake_secrets(suite, &suite.key(0), &rnd_a, log));
    };
    handshake(&wire.log);

    let waiting = tap(&mut wire, Mode::CardLocked, 2);
    let accepted = Accepted::check(&waiting.message().unwrap(), till, &mut guard).unwrap();
    let failed = accepted.answer(&mut SoftKey::new(&EV1[0].key(0)), &mut Seeded(1));
    texts.push(("split::HolderError", with_sources(&failed.err().unwrap())));
    let failed = waiting.card_locked(&altered(&locked));
    texts.push(("split::TerminalError", with_sources(&failed.err().unwrap())));
    let failed = authenticate(
        select(&mut wire).unwrap(),
        suite.scheme,
        KeyNo::MASTER,
        &mut SoftKey::new(&suite.key(1)),
        &mut Seeded(1),
        &mut wire,
    );
    texts.push((
        "split::AuthenticateError",
        with_sources(&failed.err().unwrap()),
    ));

    // A script with a reply that is known and one that is not.
    let waiting = tap(&mut wire, Mode::Script, 3);
    let accepted = Accepted::check(&waiting.message().unwrap(), till, &mut guard).unwrap();
    let answered = accepted.answer(&mut key, &mut Seeded(1)).unwrap();
    let (mut script, mut record) = ([0; 256], [0; 512]);
    let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
    builder
        .expect(session.get_key_version(KeyNo::MASTER), &[0])
        .unwrap();
    builder.ask(session.get_card_uid()).unwrap();
    texts.push(("Session", all_of(&session)));
    let finished = builder.finish().unwrap();
    let mut sealed = vec![0; finished.record.sealed_len()];
    finished.record.seal(&storage, &mut sealed).unwrap();
    let mut receipt = [0; 256];
    let mut player = waiting.script(finished.script, &mut receipt).unwrap();
    player.play(&mut wire).unwrap();
    let receipt = player.into_receipt().unwrap();
    let [before @ .., version, _] = &wire.log[..] else {
        panic!("nothing was played");
    };
    handshake(before);
    assert_eq!(version.0, [0x64, 0], "the handshake is before it");

    let mut room = vec![0; sealed.len()];
    let foreign = Record::unseal(&sealed, &StorageKey::new([0; 16]), &mut room);
    texts.push(("split::Refusal", with_sources(&foreign.unwrap_err())));
    let record = Record::unseal(&sealed, &storage, &mut room).unwrap();
    texts.push(("split::Record", all_of(&record)));
    let judged = record.judge(&altered(receipt), &transport);
    texts.push(("split::Refusal", with_sources(&judged.unwrap_err())));
    let (mut session, mut replay) = record.replay(receipt, &transport).unwrap();
    texts.push(("Session", all_of(&session)));
    let failed = session.free_mem().run(&mut replay);
    texts.push(("split::ReplayError", with_sources(&failed.unwrap_err())));
    Looked { texts, secrets }
}

fn seed() -> [u8; 16] {
    Seeded(5).bytes(16).try_into().unwrap()
}

#[test]
fn no_text_holds_a_secret() {
    let data = Seeded(77).bytes(100);
    let mut all: Vec<Looked> = SUITES.iter().map(|suite| texts(*suite, &data)).collect();
    all.extend([provision_texts(), split_texts()]);
    let mut printed: BTreeSet<&str> = BTreeSet::new();
    for Looked { texts, secrets } in all {
        for (name, text) in texts {
            printed.insert(name);
            for (secret, bytes) in &secrets {
                assert!(!leaks(&text, bytes), "{secret} in the text of {name}");
            }
            let balance = [
                format!("{BALANCE}"),
                format!("{BALANCE:x}"),
                format!("{BALANCE:X}"),
            ];
            for balance in balance {
                assert!(
                    !text.contains(&balance),
                    "the balance in the text of {name}"
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
