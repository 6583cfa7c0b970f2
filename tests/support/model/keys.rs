//! The keys that occur, made once for both sides and named by their number.

use std::sync::LazyLock;

use desfire_ev1::Key;
use desfire_ev1::picc::CardKey;
use desfire_ev1::wire::{KeyFamily, KeyType};

/// A key of the pool. Different numbers are different keys to the card.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct KeyId(pub(crate) u8);

pub(crate) struct PoolKey {
    pub(crate) family: KeyFamily,
    /// As the card stores it: 16 bytes, or 24 for 3K3DES.
    pub(crate) stored: Vec<u8>,
    /// As GetKeyVersion tells it.
    pub(crate) version: u8,
    pub(crate) for_reader: Key,
    pub(crate) for_card: CardKey,
}

pub(crate) const DES: &[KeyId] = &[KeyId(0), KeyId(1), KeyId(2), KeyId(3), KeyId(4), KeyId(5)];
pub(crate) const THREE_KEY: &[KeyId] = &[KeyId(6), KeyId(7), KeyId(8), KeyId(9)];
pub(crate) const AES: &[KeyId] = &[KeyId(10), KeyId(11), KeyId(12), KeyId(13), KeyId(14)];
pub(crate) const ALL: u8 = 15;

/// The default key that SetConfiguration can set here, in place of zeros.
pub(crate) const DEFAULT_KEY: [u8; 24] = [
    0xD1, 0x02, 0xD3, 0x04, 0xD5, 0x06, 0xD7, 0x08, 0x19, 0x2A, 0x3B, 0x4C, 0x5D, 0x6E, 0x7F, 0x80,
    0x91, 0xA2, 0xB3, 0xC4, 0xD5, 0xE6, 0xF7, 0x08,
];
/// It is set as a 3K3DES key, so this is what its low bits say.
pub(crate) const DEFAULT_VERSION: u8 = 0xAA;

/// The key that a new application gets (reference 3.4: the first 16 or 24 bytes, and the version
/// byte for AES; the version of the others is in their bits, which no source settles).
pub(crate) fn initial(family: KeyFamily, default_set: bool) -> KeyId {
    match (family, default_set) {
        (KeyFamily::ThreeKey3Des, false) => KeyId(6),
        (KeyFamily::ThreeKey3Des, true) => KeyId(9),
        (KeyFamily::Aes, false) => KeyId(10),
        (KeyFamily::Aes, true) => KeyId(14),
        (_, false) => KeyId(0),
        (_, true) => KeyId(5),
    }
}

static POOL: LazyLock<Vec<PoolKey>> = LazyLock::new(|| {
    let a: [u8; 8] = [0x10, 0x22, 0x34, 0x46, 0x58, 0x6A, 0x7C, 0x8E];
    let b: [u8; 8] = [0xF0, 0xE2, 0xD4, 0xC6, 0xB8, 0xAA, 0x9C, 0x80];
    let c: [u8; 8] = [0x01, 0x23, 0x45, 0x67, 0x89, 0xAB, 0xCD, 0xEF];
    // The same key to the cipher as `a`, with another version in its low bits.
    let a_55: [u8; 8] = core::array::from_fn(|i| a[i] | (i % 2) as u8);
    let sixteen = |x: [u8; 8], y: [u8; 8]| -> [u8; 16] {
        core::array::from_fn(|i| if i < 8 { x[i] } else { y[i - 8] })
    };
    let first_sixteen: [u8; 16] = *DEFAULT_KEY.first_chunk().expect("24 bytes");
    let three = |x: [u8; 8], y: [u8; 8], z: [u8; 8]| -> [u8; 24] {
        core::array::from_fn(|i| [x, y, z][i / 8][i % 8])
    };
    let des = |key: [u8; 8]| PoolKey {
        family: KeyFamily::Des,
        stored: sixteen(key, key).to_vec(),
        version: version_bits(&key),
        for_reader: Key::des(key),
        for_card: CardKey::des(sixteen(key, key)),
    };
    let two_key = |key: [u8; 16]| PoolKey {
        family: KeyFamily::Des,
        stored: key.to_vec(),
        version: version_bits(&key),
        for_reader: Key::two_key_3des(key).expect("the halves differ"),
        for_card: CardKey::des(key),
    };
    let three_key = |key: [u8; 24]| PoolKey {
        family: KeyFamily::ThreeKey3Des,
        stored: key.to_vec(),
        version: version_bits(&key),
        for_reader: Key::three_key_3des(key),
        for_card: CardKey::three_key_3des(key),
    };
    let aes = |key: [u8; 16], version| PoolKey {
        family: KeyFamily::Aes,
        stored: key.to_vec(),
        version,
        for_reader: Key::aes(key).with_version(version),
        for_card: CardKey::aes(key, version),
    };
    vec![
        des([0; 8]),
        des(a),
        des(a_55),
        two_key(sixteen(a, b)),
        two_key(sixteen(c, a)),
        two_key(first_sixteen),
        three_key([0; 24]),
        three_key(three(a, b, c)),
        three_key(three(c, a, b)),
        three_key(DEFAULT_KEY),
        aes([0; 16], 0),
        aes(sixteen(a, b), 1),
        aes(sixteen(a, b), 2),
        aes(sixteen(b, c), 0x42),
        aes(first_sixteen, DEFAULT_VERSION),
    ]
});

/// Reference 7.2: the low bits of the first eight bytes, the first being the highest.
fn version_bits(key: &[u8]) -> u8 {
    let bits = key.iter().take(8).map(|byte| byte % 2);
    bits.fold(0, |version, bit| version * 2 + bit)
}

impl KeyId {
    pub(crate) fn key(self) -> &'static PoolKey {
        &POOL[usize::from(self.0)]
    }

    pub(crate) fn family(self) -> KeyFamily {
        self.key().family
    }

    pub(crate) fn version(self) -> u8 {
        self.key().version
    }

    pub(crate) fn key_type(self) -> KeyType {
        self.key().for_reader.key_type()
    }

    /// Reference 7.1.
    pub(crate) fn nonce_len(self) -> usize {
        match self.family() {
            KeyFamily::ThreeKey3Des | KeyFamily::Aes => 16,
            _ => 8,
        }
    }

    /// Reference 7.1.
    pub(crate) fn block_len(self) -> usize {
        match self.family() {
            KeyFamily::Aes => 16,
            _ => 8,
        }
    }

    /// Whether the cipher cannot tell them apart: DES ignores the low bits, and an AES key's
    /// version is stored beside it.
    pub(crate) fn enciphers_like(self, other: Self) -> bool {
        let mask = if self.family() == KeyFamily::Aes {
            0xFF
        } else {
            0xFE
        };
        self.family() == other.family()
            && self
                .key()
                .stored
                .iter()
                .zip(&other.key().stored)
                .all(|(one, other)| (one ^ other) & mask == 0)
    }

    /// Whether ChangeKey takes it for the old key: all stored bytes count, version bits included
    /// (reference 3.5), an AES key's version byte does not.
    pub(crate) fn has_bytes_of(self, other: Self) -> bool {
        self.key().stored == other.key().stored
    }
}

/// The key to be set as default key, or zeros.
pub(crate) fn default_key(set: bool) -> KeyId {
    initial(KeyFamily::ThreeKey3Des, set)
}

/// The pool's keys of a family.
pub(crate) fn of_family(family: KeyFamily) -> &'static [KeyId] {
    match family {
        KeyFamily::ThreeKey3Des => THREE_KEY,
        KeyFamily::Aes => AES,
        _ => DES,
    }
}
