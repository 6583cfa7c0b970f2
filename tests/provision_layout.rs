//! Layouts: what is refused, in which line, and that no text breaks anything.

#![cfg(feature = "provision-toml")]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

use std::sync::atomic::{AtomicUsize, Ordering};

use desfire_ev1::picc::Card;
use desfire_ev1::provision::{IssueError, Issuer, KeyFault, Layout, MAX_TEXT, MemoryKeys};
use desfire_ev1::wire::{KeyFamily, Uid};
use desfire_ev1::{Key, VirtualReader};
use getrandom::SysRng;
use proptest::prelude::*;

const GOOD: &str = include_str!("scenarios/layout.toml");

/// Keys for whatever a layout names.
fn keys_for(layout: &Layout) -> MemoryKeys {
    let mut keys = MemoryKeys::new();
    let bytes = |name: &str, version: u8| -> [u8; 24] {
        let sum = name
            .bytes()
            .fold(version, |sum, b| sum.wrapping_mul(31).wrapping_add(b));
        core::array::from_fn(|i| sum.wrapping_add((i as u8).wrapping_mul(29)) ^ (i as u8) << 3)
    };
    for key in layout.keys() {
        let first = *bytes(&key.name, key.version).first_chunk().unwrap();
        keys.insert(key.name.clone(), key.version, Key::aes(first));
    }
    for app in &layout.applications {
        for key in app
            .keys
            .iter()
            .flat_map(|slot| [&slot.key].into_iter().chain(&slot.older))
        {
            let bytes = bytes(&key.name, key.version);
            let first = *bytes.first_chunk().unwrap();
            let made = match app.family {
                KeyFamily::Aes => Key::aes(first),
                KeyFamily::ThreeKey3Des => Key::three_key_3des(bytes),
                _ => Key::two_key_3des(first).unwrap(),
            };
            keys.insert(key.name.clone(), key.version, made);
        }
    }
    keys
}

/// The number of the line that has `text`, counted from 1.
fn line_with(document: &str, text: &str) -> usize {
    document
        .lines()
        .position(|line| line.contains(text))
        .unwrap()
        + 1
}

/// Changes one thing in the good layout, and tells what is said of it.
fn said(from: &str, to: &str) -> Vec<String> {
    assert_eq!(GOOD.matches(from).count(), 1, "'{from}' once");
    let errors = Layout::from_toml(&GOOD.replace(from, to)).unwrap_err();
    errors.0.iter().map(ToString::to_string).collect()
}

/// `line` is what stands in the line, or, after `^`, in the line below the heading that is meant.
#[track_caller]
fn refused(from: &str, to: &str, line: &str, reason: &str) {
    let said = said(from, to);
    let document = GOOD.replace(from, to);
    let line = match line.strip_prefix('^') {
        Some(line) => line_with(&document, line) - 1,
        None => line_with(&document, line),
    };
    let line = format!("line {line}: ");
    assert!(
        said.iter()
            .any(|said| said.starts_with(&line) && said.contains(reason)),
        "'{line}…{reason}' is not among {said:#?}"
    );
}

#[test]
fn the_good_layout_is_good() {
    let layout = Layout::from_toml(GOOD).unwrap();
    assert_eq!(layout.applications.len(), 3);
    let keys = keys_for(&layout);
    let mut reader = VirtualReader::default();
    let issuer = Issuer::new(&layout, &keys)
        .unwrap()
        .irreversible()
        .contents();
    issuer.apply(&mut reader, &mut SysRng).unwrap();
    assert!(issuer.verify(&mut reader, &mut SysRng).unwrap().is_ok());
}

#[test]
fn rights_that_name_missing_keys() {
    refused(
        "rights = { read = 1, write = 0, read_write = \"never\", change = \"never\" } # door",
        "rights = { read = 5, write = 0, read_write = \"never\", change = \"never\" } # door",
        "read = 5",
        "read is given to key 5, and there are 2 keys",
    );
    refused(
        "change_keys = 1",
        "change_keys = 3",
        "change_keys = 3",
        "key 3, which does not exist",
    );
    refused(
        "change_keys = 1",
        "change_keys = 99",
        "change_keys = 99",
        "no key 99",
    );
    refused(
        "change_keys = 1",
        "change_keys = \"me\"",
        "change_keys = \"me\"",
        "not \"me\"",
    );
}

#[test]
fn frozen_settings_that_stop_a_later_step() {
    // The key has an older generation, which cards frozen like this could never leave.
    refused(
        "settings = { listing = \"free\", creating = \"master key\" } # picc",
        "settings = { master_key = \"frozen\" } # picc",
        "master_key = \"frozen\"",
        "could never get the new one",
    );
    refused(
        "settings = { change_keys = 1 }",
        "settings = { change_keys = 1, settings = \"frozen\" }",
        "settings = \"frozen\"",
        "not sure that a card lets it be changed",
    );
    refused(
        "settings = { change_keys = 1 }",
        "settings = { change_keys = \"never\", settings = \"frozen\" }",
        "settings = \"frozen\"",
        "could never get the new one",
    );
    // Nobody could find out the UID from which all keys are made.
    let all_diversified = GOOD
        .replace("random_id = false", "random_id = true")
        .replace(
            "version = 1, diversified = false } # shared",
            "version = 1 } # shared",
        );
    let errors = Layout::from_toml(&all_diversified).unwrap_err().to_string();
    assert!(errors.contains("nobody could find out"), "{errors}");
}

#[test]
fn sizes_and_contents() {
    refused(
        "card = \"8K\"",
        "card = \"2K\"",
        "card = \"2K\"",
        "needs about 3776 bytes",
    );
    let errors = said("size = 3000", "size = 9000");
    assert!(errors[0].contains("needs about"), "{errors:?}");
    refused(
        "size = 16 # short",
        "size = 4 # short",
        "content = { text = \"no door\" }",
        "7 bytes do not fit into 4",
    );
    refused(
        "size = 16 # short",
        "",
        "^number = 0 # door",
        "'size' is missing",
    );
    refused(
        "size = 16 # short",
        "size = 16\nlower = 2",
        "^number = 0 # door",
        "has no 'lower'",
    );
    refused(
        "value = 100",
        "value = 1001",
        "^number = 1 # purse",
        "1001 is not between 0 and 1000",
    );
    refused(
        "upper = 1000",
        "upper = 0",
        "^number = 1 # purse",
        "upper limit must be higher",
    );
    refused(
        "max_records = 3",
        "max_records = 1",
        "^number = 2 # log",
        "number of records cannot be 1",
    );
    refused(
        "max_records = 3",
        "max_records = 2",
        "records = [",
        "2 records do not fit into 1",
    );
    refused(
        "record_size = 8",
        "record_size = 2",
        "records = [",
        "does not fit into 2",
    );
    refused(
        "{ hex = \"01 02 03\" }",
        "{ hex = \"01 02 0\" }",
        "records = [",
        "odd number of digits",
    );
    refused(
        "{ hex = \"01 02 03\" }",
        "{ text = \"\" }",
        "records = [",
        "empty record",
    );
}

#[test]
fn names_that_clash() {
    refused(
        "aid = \"F51A20\"",
        "aid = \"F51A10\"",
        "^name = \"door\"",
        "another application has this AID",
    );
    refused(
        "aid = \"F51A20\"",
        "aid = \"000000\"",
        "^name = \"door\"",
        "the card itself",
    );
    refused(
        "aid = \"F51A20\"",
        "aid = \"F51A2\"",
        "aid = \"F51A2\"",
        "odd number",
    );
    refused(
        "aid = \"F51A20\"",
        "aid = \"F51A\"",
        "aid = \"F51A\"",
        "six hexadecimal digits",
    );
    refused(
        "iso_file_id = \"DF02\"",
        "iso_file_id = \"DF01\"",
        "^name = \"library\"",
        "has the ISO FID DF01",
    );
    refused(
        "iso_file_id = \"DF02\"",
        "iso_file_id = \"3F00\"",
        "^name = \"library\"",
        "is reserved",
    );
    refused(
        "iso_file_id = \"DF02\"",
        "",
        "^name = \"library\"",
        "needs an ISO FID",
    );
    refused(
        "iso_file_id = \"EF02\"",
        "iso_file_id = \"EF01\"",
        "^number = 1 # second",
        "another file has the ISO FID",
    );
    refused(
        "number = 1 # second",
        "number = 0 # second",
        "^number = 0 # second",
        "another file has this number",
    );
    refused(
        "number = 1 # second",
        "number = 32 # second",
        "number = 32 # second",
        "0 to 31",
    );
    refused(
        "text = \"lib\"",
        "hex = \"D2760000850100\"",
        "^name = \"library\"",
        "DF name of the card itself",
    );
    refused(
        "text = \"lib\"",
        "text = \"\"",
        "^name = \"library\"",
        "1 to 16 bytes",
    );
}

#[test]
fn keys_that_cannot_be() {
    refused(
        "older = [1] } # picc",
        "older = [2] } # picc",
        "[picc]",
        "name and version of the new one",
    );
    refused(
        "system_id = { text = \"T\" }",
        "system_id = { text = \"TOOLONG\" }",
        "canteen pay",
        "5 bytes at most",
    );
    let errors = said(
        "system_id = { text = \"T\" }",
        "system_id = { text = \"0123456789012345678901\" }",
    );
    assert!(errors.iter().any(|said| said.contains("21 bytes at most")));
    refused(
        "{ name = \"door read\", version = 2, older = [1] },",
        "{ name = \"\", version = 2 },",
        "{ name = \"\"",
        "without a name",
    );
    refused(
        "ats = \"067577810280\"",
        "ats = \"057577810280\"",
        "[picc]",
        "2 to 20 bytes",
    );
    refused(
        "version = 2, older = [1] } # picc",
        "version = 256 } # picc",
        "version = 256",
        "",
    );
    // Types and missing keys come out when the keys are there, and before a card is.
    let layout = Layout::from_toml(GOOD).unwrap();
    let mut keys = keys_for(&layout);
    keys.insert("door read", 2, Key::three_key_3des([7; 24]));
    let error = Issuer::new(&layout, &keys).unwrap_err();
    assert!(
        matches!(
            &error,
            IssueError::Key {
                fault: KeyFault::Family { .. },
                ..
            }
        ),
        "{error}"
    );
    assert_eq!(
        error.to_string(),
        "application F51A20 (door), key 1: the key 'door read' of version 2 is of type 3K3DES, where AES belongs"
    );
    let none = MemoryKeys::new();
    let error = Issuer::new(&layout, &none).unwrap_err().to_string();
    assert!(error.contains("there is no key"), "{error}");
    // A single DES key has no diversification.
    let mut keys = keys_for(&layout);
    keys.insert("canteen pay", 1, Key::des([7; 8]));
    let error = Issuer::new(&layout, &keys).unwrap_err().to_string();
    assert!(
        error.contains("'canteen pay'") && error.contains("no rule for DES"),
        "{error}"
    );
}

#[test]
fn text_that_is_no_layout() {
    for text in [
        "",
        "name = 7",
        "[picc",
        "\u{0}",
        "name = \"x\"\ncard = \"9K\"",
    ] {
        assert!(Layout::from_toml(text).is_err(), "{text:?}");
    }
    refused(
        "mode = \"enciphered\" # door",
        "mode = \"secret\" # door",
        "mode = \"secret\"",
        "secret",
    );
    refused(
        "type = \"standard\" # door",
        "type = \"folder\" # door",
        "type = \"folder\"",
        "folder",
    );
    refused(
        "name = \"test\"",
        "name = \"test\"\ncolour = 3",
        "colour = 3",
        "colour",
    );
    let long = format!("{GOOD}#{}", "x".repeat(MAX_TEXT));
    let errors = Layout::from_toml(&long).unwrap_err();
    assert!(errors.to_string().contains("bytes at most"));
    let deep = format!("name = {}", "[".repeat(100_000));
    assert!(Layout::from_toml(&deep).is_err());
}

/// What a text may repeat is limited: names, which are copied, older keys, and what is said of it all.
#[test]
fn text_cannot_grow_in_memory() {
    let long = "n".repeat(65);
    for from in [
        "name = \"test\"",
        "name = \"canteen\"",
        "name = \"canteen pay\"",
    ] {
        let document = GOOD.replacen(from, &format!("name = \"{long}\""), 1);
        let errors = Layout::from_toml(&document).unwrap_err().to_string();
        assert!(errors.contains("64 bytes at most"), "{errors}");
        let document = GOOD.replacen(from, &format!("name = \"{}\"", &long[1..]), 1);
        assert!(Layout::from_toml(&document).is_ok());
    }
    let versions = |count: u8| {
        let list: Vec<String> = (3..3 + count).map(|v| v.to_string()).collect();
        GOOD.replace("older = [1]", &format!("older = [{}]", list.join(",")))
    };
    assert!(Layout::from_toml(&versions(16)).is_ok());
    let errors = Layout::from_toml(&versions(17)).unwrap_err();
    assert!(
        errors.to_string().contains("16 entries at most"),
        "{errors}"
    );
    let older = "{ name = 'k', version = 9 },".repeat(17);
    let many = GOOD.replace("older = [1]", &format!("older_keys = [{older}]"));
    let errors = Layout::from_toml(&many).unwrap_err();
    assert!(
        errors.to_string().contains("16 entries at most"),
        "{errors}"
    );

    // 1000 files without a size, and 1000 files of no size.
    for size in ["", "size = 0\n"] {
        let file = format!(
            "[[application.file]]\nnumber = 0\ntype = \"standard\"\nmode = \"plain\"\n{size}\
             rights = {{ read = 1, write = 0, read_write = 0, change = 0 }}\n"
        );
        let head = "name = 'x'\ncard = '2K'\n[picc]\nkey = { name = 'p', version = 1 }\n\
             [[application]]\naid = 'F51A10'\nkey_type = 'AES'\nkeys = [{ name = 'k', version = 1 }]\n";
        let errors = Layout::from_toml(&(head.to_owned() + &file.repeat(1000))).unwrap_err();
        assert_eq!(errors.0.len(), 100);
    }
}

/// As many values as fit, each with a line of its own: finding the lines takes no longer than reading.
#[test]
fn many_values_take_no_longer_than_reading_them() {
    let head = "name = 'x'\ncard = '2K'\n[picc]\nkey = { name = 'p', version = 1 }\n\
         [[application]]\naid = 'F51A10'\nkey_type = 'AES'\nkeys = [\n";
    let key = "{name='k',version=1},\n";
    let many = key.repeat((MAX_TEXT - head.len() - 2) / key.len());
    let text = format!("{head}{many}]\n");
    let started = std::time::Instant::now();
    let read = toml::from_str::<toml::Value>(&text).unwrap();
    let reading = started.elapsed();
    assert!(read.is_table());
    let started = std::time::Instant::now();
    let errors = Layout::from_toml(&text).unwrap_err();
    let all = started.elapsed();
    assert_eq!(errors.0[0].line, Some(5));
    println!(
        "{} lines: TOML {reading:?}, layout {all:?}",
        many.lines().count()
    );
    assert!(
        all < reading * 20,
        "{all:?} for a text that is read in {reading:?}"
    );
}

/// One kind of damage.
#[derive(Clone, Debug)]
enum Damage {
    Delete(usize),
    Double(usize),
    Swap(usize, usize),
    Byte(usize, u8),
    Cut(usize),
    Number(usize, i64),
}

fn damage() -> impl Strategy<Value = Damage> {
    let place = 0..10_000_usize;
    prop_oneof![
        place.clone().prop_map(Damage::Delete),
        place.clone().prop_map(Damage::Double),
        (place.clone(), place.clone()).prop_map(|(a, b)| Damage::Swap(a, b)),
        (place.clone(), any::<u8>()).prop_map(|(at, byte)| Damage::Byte(at, byte)),
        place.clone().prop_map(Damage::Cut),
        (place, prop_oneof![-5..40_i64, any::<i64>()]).prop_map(|(at, to)| Damage::Number(at, to)),
    ]
}

fn damaged(damages: &[Damage]) -> String {
    let mut lines: Vec<String> = GOOD.lines().map(str::to_owned).collect();
    for damage in damages {
        let len = lines.len().max(1);
        match damage {
            Damage::Delete(at) => drop(lines.splice(at % len..(at % len + 1).min(lines.len()), [])),
            Damage::Double(at) => {
                if let Some(line) = lines.get(at % len).cloned() {
                    lines.insert(at % len, line);
                }
            }
            Damage::Swap(a, b) if !lines.is_empty() => lines.swap(a % len, b % len),
            Damage::Swap(..) => {}
            Damage::Byte(at, byte) => {
                let text = lines.join("\n");
                let mut bytes = text.into_bytes();
                let place = at % bytes.len().max(1);
                if let Some(there) = bytes.get_mut(place) {
                    *there = *byte;
                }
                let text = String::from_utf8_lossy(&bytes).into_owned();
                lines = text.lines().map(str::to_owned).collect();
            }
            Damage::Cut(at) => lines.truncate(at % (2 * len)),
            Damage::Number(at, to) => {
                // The first number of a line.
                if let Some(line) = lines.get_mut(at % len)
                    && let Some(start) = line.find(|c: char| c.is_ascii_digit())
                {
                    let end = line[start..].find(|c: char| !c.is_ascii_digit());
                    let end = end.map_or(line.len(), |end| start + end);
                    line.replace_range(start..end, &to.to_string());
                }
            }
        }
    }
    lines.join("\n")
}

/// How many damaged layouts were still good.
static ISSUED: AtomicUsize = AtomicUsize::new(0);

proptest! {
    #![proptest_config(ProptestConfig { cases: 1500, ..ProptestConfig::default() })]

    /// Whatever is done to a layout, it is refused with a line that exists, or it can be issued: what
    /// the check lets through, a card takes.
    fn damaged_layouts(damages in prop::collection::vec(damage(), 1..4)) {
        let text = damaged(&damages);
        match Layout::from_toml(&text) {
            Err(errors) => {
                prop_assert!(!errors.0.is_empty());
                for error in &errors.0 {
                    prop_assert!(!error.reason.is_empty());
                    let lines = text.lines().count().max(1) + 1;
                    prop_assert!(error.line.is_none_or(|line| (1..=lines).contains(&line)), "{error}");
                }
            }
            Ok(layout) => {
                ISSUED.fetch_add(1, Ordering::Relaxed);
                prop_assert!(layout.check().is_ok());
                let keys = keys_for(&layout);
                match Issuer::new(&layout, &keys) {
                    // The damage has given one name to keys of two types.
                    Err(error) => prop_assert!(matches!(error, IssueError::Key { .. }), "{error}"),
                    Ok(issuer) => {
                        let issuer = issuer.irreversible().contents();
                        let card = Card::new(Uid([4, 9, 8, 7, 6, 5, 4]));
                        let mut reader = VirtualReader::new(card);
                        let applied = issuer.apply(&mut reader, &mut SysRng);
                        prop_assert!(applied.is_ok(), "{}\n{text}", applied.unwrap_err());
                        let verdict = issuer.verify(&mut reader, &mut SysRng).unwrap();
                        let unreadable = |said: &String| said.ends_with("nobody may read it");
                        prop_assert!(verdict.plan.is_done(), "{verdict}");
                        prop_assert!(verdict.contents.iter().all(unreadable), "{verdict}");
                    }
                }
            }
        }
    }

    #[test]
    fn no_text_breaks_anything(text in "\\PC{0,200}") {
        let _ = Layout::from_toml(&text);
    }
}

#[test]
fn a_damaged_layout_is_refused_or_can_be_issued() {
    damaged_layouts();
    let issued = ISSUED.load(Ordering::Relaxed);
    println!("1500 damaged layouts: {issued} still good and issued, the others refused");
    assert!(issued > 100 && issued < 1400, "{issued}");
}
