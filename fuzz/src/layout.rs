//! Layouts from TOML, and the cards that are issued by them.
//!
//! Input: a layout; then, after a NUL each, a second layout (without it the next generation of keys of the
//! first) and bytes that choose what happens in between.
//!
//! Oracle: what is accepted as a layout and fits a delivered card is issued, is then verified, and
//! issuing it once more writes nothing. What is not accepted says why, with lines that there are. A card
//! that was half issued by the first layout, has had anything done to it by others, and is torn on the way,
//! is planned for without an error and without a change; and it is then either refused untouched, or brought
//! to the end of the second, as a rollover or as a whole.

use desfire_ev1::picc::{Application, Card, CardKey, Fault, File, FileContent, StorageSize, Value};
use desfire_ev1::provision::{Issuer, KeyFault, KeyStore, Layout, Plan, ProvisionError, Step};
use desfire_ev1::wire::{
    AccessRights, Aid, CommMode, FileNo, IsoFileId, KeyFamily, KeyInfo, KeyNo, KeySettings,
    ValueFlags,
};
use desfire_ev1::{Key, VirtualReader};

use crate::rig::{Seeded, UID};

/// A key of every name and version; its first letter says of which type.
pub(crate) struct AnyKey;

impl KeyStore for AnyKey {
    fn key(&self, name: &str, version: u8) -> Result<Key, KeyFault> {
        let mut seed = name.bytes().fold(u64::from(version), |seed, byte| {
            seed.wrapping_mul(131).wrapping_add(u64::from(byte) + 1)
        });
        seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        let bytes = Seeded(seed).bytes(24);
        let sixteen: [u8; 16] = bytes[..16].try_into().expect("16 bytes");
        Ok(match name.bytes().next() {
            Some(b'd') => Key::des(bytes[..8].try_into().expect("8 bytes")),
            Some(b'2') => Key::two_key_3des(sixteen).expect("the halves differ"),
            Some(b'3') => Key::three_key_3des(bytes.try_into().expect("24 bytes")),
            _ => Key::aes(sixteen),
        })
    }
}

/// Layouts, and what happens.
pub fn run(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let Some(layout) = parts.next().and_then(accepted) else {
        return;
    };
    let next = match parts.next() {
        Some(text) if !text.is_empty() => accepted(text),
        _ => Some(next_generation(&layout)),
    };
    let choices = parts.next().unwrap_or_default();
    let Ok(issuer) = Issuer::new(&layout, &AnyKey) else {
        return;
    };
    if choices.is_empty() {
        let whole = issuer.irreversible();
        let size = [
            StorageSize::Ev1_2K,
            StorageSize::Ev1_4K,
            StorageSize::Ev1_8K,
        ];
        for size in size {
            let card = Card::builder().uid(UID).storage(size).build();
            issue(&whole, card);
        }
    }
    if let Some(next) = next {
        succession(&layout, &next, &mut Choices(choices));
    }
}

fn accepted(text: &[u8]) -> Option<Layout> {
    let text = str::from_utf8(text).ok()?;
    match Layout::from_toml(text) {
        Ok(layout) => {
            assert_eq!(layout.check(), Ok(()));
            assert!(layout.memory_needed() <= u64::from(layout.storage));
            Some(layout)
        }
        Err(errors) => {
            assert!(!errors.0.is_empty(), "refused, and nothing is wrong");
            let lines = text.split('\n').count();
            for error in &errors.0 {
                assert!(!error.to_string().is_empty());
                let line = error.line.unwrap_or(1);
                assert!(
                    (1..=lines).contains(&line),
                    "line {line} of {lines}: {error}"
                );
            }
            None
        }
    }
}

/// The same card with new keys.
fn next_generation(layout: &Layout) -> Layout {
    let mut next = layout.clone();
    let keys = next.applications.iter_mut().flat_map(|app| &mut app.keys);
    for slot in keys.chain([&mut next.picc.key]) {
        slot.older.push(slot.key.clone());
        slot.key.version = slot.key.version.wrapping_add(1);
    }
    next
}

/// A delivered card.
fn issue(issuer: &Issuer<'_, AnyKey>, card: Card) {
    let mut reader = VirtualReader::new(card);
    if planned(issuer, &mut reader).is_possible() {
        brought_to_the_end(issuer, &mut reader, &mut Choices(&[]));
        // Nobody but us has written into it.
        let verdict = issuer.verify(&mut reader, &mut Seeded(1));
        let verdict = verdict.expect("a card that answers");
        for content in &verdict.contents {
            assert!(content.ends_with("nobody may read it"), "{content}");
        }
    }
}

/// What happens, zeros at the end.
struct Choices<'c>(&'c [u8]);

impl Choices<'_> {
    fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else {
            return 0;
        };
        self.0 = rest;
        *first
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::from(self.byte()) % limit.max(1)
    }

    /// Arranges something to go wrong, or nothing.
    fn trouble(&mut self, card: &mut Card) -> Option<Fault> {
        let kind = self.byte();
        let place = u64::from(u16::from_le_bytes([self.byte(), self.byte() & 1]));
        let (effect, command) = (card.effects() + place, card.commands() + place);
        let fault = match kind {
            1 => Fault::CutBefore(effect),
            2 => Fault::CutAfter(effect),
            3 => Fault::LoseReply(command),
            _ => return None,
        };
        card.arrange_fault(fault);
        Some(fault)
    }
}

/// Somebody else has had the card.
fn meddle(card: &mut Card, layout: &Layout, choices: &mut Choices<'_>) {
    let kind = choices.byte();
    let state = card.state_mut();
    let key = |choices: &mut Choices<'_>| {
        let version = choices.byte();
        match choices.byte() {
            0 => CardKey::des([0; 16]),
            1 => CardKey::des([version & 0xFE; 16]),
            2 => CardKey::three_key_3des([version & 0xFE; 24]),
            _ => CardKey::aes([0x5A; 16], version),
        }
    };
    let index = choices.below(layout.applications.len());
    let app = layout.applications.get(index);
    let there = app.and_then(|app| state.application(app.aid)).cloned();
    match (kind, there) {
        (1, _) => state.set_picc_key(key(choices)),
        (2, _) => state.set_picc_settings(KeySettings::from_byte(choices.byte() & 0x0F)),
        (3, _) => state.set_random_id(true),
        (4, _) => state.set_format_disabled(true),
        (5, Some(there)) => {
            let (number, key) = (choices.byte() % 14, key(choices));
            if let Ok(number) = KeyNo::new(number)
                && key.family() == there.info().family()
            {
                let _ = state.put_application(there.with_key(number, key));
            }
        }
        (6, Some(there)) => {
            let settings = KeySettings::from_byte(choices.byte());
            let _ = state.put_application(there.with_settings(settings));
        }
        (7, Some(there)) => {
            let Ok(number) = FileNo::new(choices.byte() & 0x1F) else {
                return;
            };
            let rights = AccessRights::from_bytes([choices.byte(), choices.byte()]);
            let size = usize::from(choices.byte());
            let content = match choices.byte() {
                0 => FileContent::Backup(vec![0; size]),
                1 => FileContent::Value(Value {
                    lower: 0,
                    upper: 9,
                    value: 3,
                    limited_credit: 0,
                    flags: ValueFlags::empty(),
                }),
                _ => FileContent::Standard(vec![0xAA; size * 8]),
            };
            if there.file(number).is_none() {
                let file = File::new(number, CommMode::Plain, rights, content);
                let _ = state.put_application(there.with_file(file));
            }
        }
        // Prepared, with the layout's AID or another.
        (8 | 9, _) => {
            let family = [KeyFamily::Des, KeyFamily::ThreeKey3Des, KeyFamily::Aes];
            let family = family[choices.below(3)];
            let Ok(info) = KeyInfo::new(family, choices.byte() % 15) else {
                return;
            };
            let aid = match app {
                Some(app) if kind == 8 => app.aid,
                _ => Aid::from_bytes([1, 2, 3]),
            };
            let settings = KeySettings::from_byte(choices.byte());
            let mut other = Application::new(aid, settings, info);
            if let Some(id) = app.and_then(|app| app.iso_file_id) {
                other = other.with_iso_names(id, app.and_then(|app| app.df_name));
            } else if choices.byte() > 0 {
                other = other.with_iso_names(IsoFileId(0x1234), None);
            }
            let _ = state.put_application(other);
        }
        _ => {}
    }
}

/// Whether an application that is to have files with ISO FIDs was made so that it cannot.
fn lacks_file_ids(card: &Card, layout: &Layout) -> bool {
    layout.applications.iter().any(|app| {
        let there = card.state().application(app.aid);
        app.has_iso_files() && there.is_some_and(|there| !there.info().iso_file_ids())
    })
}

/// One layout after the other.
fn succession(first: &Layout, next: &Layout, choices: &mut Choices<'_>) {
    let (Ok(before), Ok(after)) = (Issuer::new(first, &AnyKey), Issuer::new(next, &AnyKey)) else {
        return;
    };
    let options = choices.byte();
    let before = match options & 1 {
        0 => before,
        _ => before.irreversible(),
    };
    let mut reader = VirtualReader::new(Card::builder().uid(UID).build());
    attempt(&before, &mut reader, choices);
    for _ in 0..options >> 6 {
        meddle(reader.card_mut(), next, choices);
    }
    if reader.card().state().check().is_err() {
        return;
    }
    if lacks_file_ids(reader.card(), next) {
        // Not all cards tell this, so that it may come out when the file is made.
        planned(&after, &mut reader);
        return;
    }
    let after = match options & 8 {
        0 => after,
        _ => after.uid(UID),
    };
    if options & 4 == 0 {
        let Ok(rollover) = Issuer::new(next, &AnyKey) else {
            return;
        };
        let rollover = rollover.rollover();
        if planned(&rollover, &mut reader).is_possible() {
            brought_to_the_end(&rollover, &mut reader, choices);
        }
    }
    let after = match options & 2 {
        0 => after,
        _ => after.irreversible(),
    };
    if planned(&after, &mut reader).is_possible() {
        brought_to_the_end(&after, &mut reader, choices);
    }
}

/// One application of a layout, with something going wrong or not.
fn attempt(issuer: &Issuer<'_, AnyKey>, reader: &mut VirtualReader, choices: &mut Choices<'_>) {
    let trouble = choices.trouble(reader.card_mut());
    let applied = issuer.apply(reader, &mut Seeded(1));
    reader.card_mut().clear_faults();
    assert_eq!(reader.card().state().check(), Ok(()));
    match applied {
        Ok(_) | Err(ProvisionError::NotPossible(_)) => {}
        Err(ProvisionError::Card { .. }) if trouble.is_some() => {}
        Err(error) => panic!("{error}"),
    }
    // If only an answer was lost, it may lie where it is, in the middle of a chain.
    if !matches!(trouble, Some(Fault::LoseReply(_))) || choices.byte() == 0 {
        reader.card_mut().activate();
    }
}

/// The plan for a card, which stays as it was; also if it is asked to apply what is not possible.
fn planned(issuer: &Issuer<'_, AnyKey>, reader: &mut VirtualReader) -> Plan {
    reader.card_mut().activate();
    let rng = &mut Seeded(1);
    let before = reader.card().save();
    let plan = issuer.plan(reader, rng).expect("a card that answers");
    if !plan.is_possible() {
        match issuer.apply(reader, rng) {
            Err(ProvisionError::NotPossible(again)) => assert_eq!(again.problems, plan.problems),
            other => panic!("planned as impossible: {other:?}\n{plan}"),
        }
    }
    assert_eq!(reader.card().save(), before, "the card has been changed");
    plan
}

/// What is possible is done, however often it is torn, and then done.
fn brought_to_the_end(
    issuer: &Issuer<'_, AnyKey>,
    reader: &mut VirtualReader,
    choices: &mut Choices<'_>,
) {
    for _ in 0..choices.byte() & 3 {
        attempt(issuer, reader, choices);
    }
    let plan = planned(issuer, reader);
    if let Err(error) = issuer.apply(reader, &mut Seeded(1)) {
        panic!("planned, and not possible: {error}\n{plan}");
    }
    assert_eq!(reader.card().state().check(), Ok(()));
    reader.card_mut().activate();
    let verdict = issuer.verify(reader, &mut Seeded(1));
    let verdict = verdict.expect("a card that answers");
    assert!(
        verdict.plan.is_done(),
        "issued, and not as it should be: {verdict:?}"
    );
    let issued = reader.card().save();
    reader.card_mut().activate();
    let again = issuer.apply(reader, &mut Seeded(1));
    let again = again.expect("nothing is left to do");
    assert!(again.steps.iter().all(Step::is_repeated));
    assert_eq!(reader.card().save(), issued, "done, and done again");
}

/// No recording holds a layout; these use what the format has.
pub const SEEDS: &[&str] = &[
    r#"name = "door card"
card = "2K"
system_id = { text = "NXP A" }
[picc]
key = { name = "aes picc", version = 2, older = [1] }
settings = { creating = "master key" }
[[application]]
name = "door"
aid = "F51A10"
key_type = "AES"
keys = [
    { name = "aes door", version = 2, older = [1] },
    { name = "aes read", version = 2, diversified = false },
]
settings = { change_keys = "master key" }
[[application.file]]
number = 0
type = "standard"
mode = "enciphered"
rights = { read = 1, write = 0, read_write = "never", change = "never" }
size = 32
content = { text = "house 7" }
"#,
    r#"name = "d"
card = "8K"
[picc]
key = { name = "d", version = 0, diversified = false }
[[application]]
name = "old"
aid = "000001"
key_type = "2K3DES"
keys = [{ name = "2k", version = 1, diversified = false }]
[[application.file]]
number = 3
type = "backup"
mode = "maced"
rights = { read = "free", write = 0, read_write = 0, change = 0 }
size = 16
content = { hex = "0102" }
"#,
    r#"name = "three"
card = "4K"
[picc]
key = { name = "3k picc", version = 5, diversified = false }
[[application]]
name = "three"
aid = "ABCDEF"
key_type = "3K3DES"
keys = [{ name = "3k", version = 1, diversified = false }, { name = "3other", version = 1, diversified = false }]
"#,
    // Half issued and meddled with; then the next generation, as a rollover and as a whole.
    concat!(
        r#"name = "canteen"
card = "8K"
[picc]
key = { name = "aes picc", version = 1 }
default_key = { name = "d birth", version = 3, diversified = false }
[[application]]
name = "canteen"
aid = "C0FFEE"
iso_file_id = "DF01"
df_name = { text = "canteen" }
key_type = "AES"
keys = [{ name = "aes master", version = 1 }, { name = "aes pay", version = 1, diversified = false }]
settings = { change_keys = "same key", listing = "master key" }
[[application.file]]
number = 1
iso_file_id = "EF01"
type = "cyclic"
mode = "enciphered"
rights = { read = 1, write = 1, read_write = "never", change = 0 }
record_size = 8
max_records = 3
records = [{ hex = "01" }, { hex = "02" }]
[[application.file]]
number = 2
type = "value"
mode = "enciphered"
rights = { read = 1, write = "never", read_write = 0, change = "never" }
lower = 0
upper = 100
value = 7
limited_credit = true
"#,
        "\0\0\u{40}\u{2}\u{30}\0\0\u{6}\0\u{2f}"
    ),
    // One layout, then another for the same card.
    concat!(
        "name = 'a'\ncard = '2K'\npicc.key = { name = 'aes', version = 1 }\n",
        "[[application]]\naid = '000001'\nkey_type = 'DES'\nkeys = [{ name = '2k', version = 1 }]\n",
        "\0",
        "name = 'b'\ncard = '2K'\npicc.key = { name = 'aes', version = 1 }\n",
        "[[application]]\naid = '000001'\nkey_type = 'AES'\nkeys = [{ name = 'aes', version = 1 }]\n",
        "[[application]]\naid = '000002'\nkey_type = 'AES'\nkeys = [{ name = 'aes', version = 1 }]\n",
        "\0\u{4}\u{3}\u{10}"
    ),
];

#[cfg(test)]
mod tests {
    /// The seeds are layouts that can be issued, or nothing would be shown.
    #[test]
    fn seeds_are_issued() {
        for seed in super::SEEDS {
            for text in seed.split('\0').take(2).filter(|text| !text.is_empty()) {
                let layout = desfire_ev1::provision::Layout::from_toml(text);
                assert!(layout.is_ok(), "{layout:?}");
            }
            super::run(seed.as_bytes());
        }
    }
}
