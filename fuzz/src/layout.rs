//! Layouts from TOML, and the cards that are issued by them.
//!
//! Oracle: what is accepted as a layout and fits a delivered card is issued, is then verified, and
//! issuing it once more writes nothing. What is not accepted says why, with lines that there are.

use desfire_ev1::picc::{Card, StorageSize};
use desfire_ev1::provision::{Issuer, KeyFault, KeyStore, Layout};
use desfire_ev1::{Key, VirtualReader};

use crate::rig::{Seeded, UID};

/// A key of every name and version; its first letter says of which type.
struct AnyKey;

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

/// Text.
pub fn run(data: &[u8]) {
    let Ok(text) = str::from_utf8(data) else {
        return;
    };
    let layout = match Layout::from_toml(text) {
        Ok(layout) => layout,
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
            return;
        }
    };
    assert_eq!(layout.check(), Ok(()));
    assert!(layout.memory_needed() <= u64::from(layout.storage));
    let Ok(issuer) = Issuer::new(&layout, &AnyKey) else {
        return;
    };
    let issuer = issuer.irreversible();
    let size = [
        StorageSize::Ev1_2K,
        StorageSize::Ev1_4K,
        StorageSize::Ev1_8K,
    ];
    for size in size {
        let card = Card::builder().uid(UID).storage(size).build();
        issue(&issuer, card);
    }
}

fn issue(issuer: &Issuer<'_, AnyKey>, card: Card) {
    let mut reader = VirtualReader::new(card);
    let rng = &mut Seeded(1);
    let before = reader.card().save();
    let plan = issuer.plan(&mut reader, rng).expect("a card that answers");
    assert_eq!(
        reader.card().save(),
        before,
        "planning has changed the card"
    );
    let applied = issuer.apply(&mut reader, rng);
    if !plan.is_possible() {
        assert!(applied.is_err());
        assert_eq!(
            reader.card().save(),
            before,
            "refused, and the card is another"
        );
        return;
    }
    if let Err(error) = applied {
        panic!("planned, and not possible: {error}\n{plan}");
    }
    assert_eq!(reader.card().state().check(), Ok(()));
    reader.card_mut().activate();
    let verdict = issuer
        .verify(&mut reader, rng)
        .expect("a card that answers");
    assert!(
        verdict.is_ok(),
        "issued, and not as it should be: {verdict:?}"
    );
    let issued = reader.card().save();
    reader.card_mut().activate();
    issuer
        .apply(&mut reader, rng)
        .expect("nothing is left to do");
    assert_eq!(reader.card().save(), issued, "done, and done again");
}

#[cfg(test)]
mod tests {
    /// The seeds are layouts that can be issued, or nothing would be shown.
    #[test]
    fn seeds_are_issued() {
        for seed in super::SEEDS {
            let layout = desfire_ev1::provision::Layout::from_toml(seed);
            assert!(layout.is_ok(), "{layout:?}");
            super::run(seed.as_bytes());
        }
    }
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
];
