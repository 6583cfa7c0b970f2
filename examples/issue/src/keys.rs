//! Where the keys come from.
//!
//! A key file is TOML, sealed with a password as an [age](https://age-encryption.org) file, so that
//! `age -d` opens it too: scrypt makes the key, ChaCha20-Poly1305 seals. What is inside:
//!
//! ```toml
//! [[key]]
//! name = "door read"
//! version = 1
//! type = "AES"          # DES, 2K3DES, 3K3DES, AES
//! hex = "00112233445566778899AABBCCDDEEFF"
//! ```
//!
//! From the environment a key comes as `DESFIRE_KEY_DOOR_READ_V1=AES:0011…EEFF`.
//!
//! No error here repeats what stands in a key file: it could be a key.

use std::collections::HashSet;
use std::fmt::Write as _;

use age::secrecy::{ExposeSecret as _, SecretString};
use desfire_ev1::Key;
use desfire_ev1::provision::{KeyRef, Layout, MemoryKeys};
use desfire_ev1::wire::{KeyFamily, KeyType};
use rand_core::TryRng as _;
use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use toml::Spanned;
use zeroize::Zeroizing;

/// The longest key file that is looked at, in bytes, sealed or not.
pub const MAX_FILE: usize = 1024 * 1024;

/// The greatest scrypt work factor that is accepted: a file may ask for any, and 2^20 takes 1 GiB and
/// some seconds.
const MAX_WORK_FACTOR: u8 = 20;

/// What is wrong with a key or a key file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum KeyFileError {
    /// Too long.
    #[error("a key file has {MAX_FILE} bytes at most")]
    TooLong,
    /// Sealed for somebody else, or no age file at all, or damaged.
    #[error("this is no key file sealed with a password, or it is damaged")]
    NotSealed,
    /// The password is wrong, or the file asks for too much work.
    #[error("the password is wrong, or the file is damaged or asks for more work than it should")]
    Password,
    /// The file could not be sealed.
    #[error("the key file could not be sealed")]
    Sealing,
    /// What was sealed is not the text of a key file.
    #[error("line {line}: {reason}")]
    Text {
        /// Counted from 1; 0 if it is not known.
        line: usize,
        /// What is wrong, without what stands there.
        reason: &'static str,
    },
    /// A key in the environment.
    #[error(
        "the environment variable {name} is not TYPE:HEX, with DES, 2K3DES, 3K3DES or AES and the key in hexadecimal"
    )]
    Variable {
        /// Its name.
        name: String,
    },
    /// Two keys would be the same variable.
    #[error(
        "the keys '{first}' and '{second}' would be the same environment variable; use a key file"
    )]
    SameVariable {
        /// One key.
        first: String,
        /// The other.
        second: String,
    },
    /// No randomness.
    #[error("the random generator of the system failed")]
    Randomness,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Document {
    #[serde(default)]
    key: Vec<Spanned<Entry>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    version: u8,
    #[serde(rename = "type")]
    key_type: Type,
    hex: Secret,
}

#[derive(Clone, Copy, Deserialize)]
enum Type {
    #[serde(rename = "DES")]
    Des,
    #[serde(rename = "2K3DES")]
    TwoKey3Des,
    #[serde(rename = "3K3DES")]
    ThreeKey3Des,
    #[serde(rename = "AES")]
    Aes,
}

impl Type {
    const fn wire(self) -> KeyType {
        match self {
            Self::Des => KeyType::Des,
            Self::TwoKey3Des => KeyType::TwoKey3Des,
            Self::ThreeKey3Des => KeyType::ThreeKey3Des,
            Self::Aes => KeyType::Aes,
        }
    }
}

/// Bytes in hexadecimal that are wiped.
struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    fn parse(text: &str) -> Option<Self> {
        let digits = text.chars().filter(|c| !c.is_whitespace());
        let digits: Option<Vec<u8>> = digits
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits = Zeroizing::new(digits?);
        let (pairs, odd) = digits.as_chunks::<2>();
        let bytes = pairs.iter().map(|[high, low]| high << 4 | low);
        odd.is_empty()
            .then(|| Self(Zeroizing::new(bytes.collect())))
    }
}

impl<'de> Deserialize<'de> for Secret {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Digits;

        impl Visitor<'_> for Digits {
            type Value = Secret;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("hexadecimal digits")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Secret, E> {
                Secret::parse(text).ok_or_else(|| E::custom("not hexadecimal"))
            }
        }

        deserializer.deserialize_str(Digits)
    }
}

/// The keys in the text of a key file.
///
/// # Errors
/// [`KeyFileError::Text`] with the line, and never with what stands there.
pub fn parse(text: &str) -> Result<MemoryKeys, KeyFileError> {
    if text.len() > MAX_FILE {
        return Err(KeyFileError::TooLong);
    }
    // The message of the error could quote a key.
    let document: Document = toml::from_str(text).map_err(|error| KeyFileError::Text {
        line: error.span().map_or(0, |span| line_of(text, span.start)),
        reason: "not the form of a key file: [[key]] with name, version, type and hex",
    })?;
    let mut keys = MemoryKeys::new();
    let mut seen = HashSet::new();
    for entry in document.key {
        let start = entry.span().start;
        // Not before it is needed: a file can have many keys.
        let wrong = |reason| KeyFileError::Text {
            line: line_of(text, start),
            reason,
        };
        let entry = entry.into_inner();
        if entry.name.is_empty() {
            return Err(wrong("a key without a name"));
        }
        if !seen.insert((entry.name.clone(), entry.version)) {
            return Err(wrong("a key of this name and version was there before"));
        }
        let key = Key::from_slice(entry.key_type.wire(), &entry.hex.0).map_err(|_| {
            wrong("the key has another number of bytes than its type, or its halves differ in version bits only")
        })?;
        keys.insert(entry.name, entry.version, key);
    }
    Ok(keys)
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    before
        .filter(|byte| **byte == b'\n')
        .count()
        .saturating_add(1)
}

/// Seals the text of a key file with a password; the result is text too. `work_factor` is for tests:
/// without it sealing takes about a second, and so does every guess.
///
/// # Errors
/// [`KeyFileError::Sealing`]; [`KeyFileError::Text`] if it is not the text of a key file.
pub fn seal(
    text: &str,
    password: &SecretString,
    work_factor: Option<u8>,
) -> Result<String, KeyFileError> {
    parse(text)?;
    let mut recipient = age::scrypt::Recipient::new(password.clone());
    if let Some(factor) = work_factor {
        recipient.set_work_factor(factor.clamp(1, MAX_WORK_FACTOR));
    }
    age::encrypt_and_armor(&recipient, text.as_bytes()).map_err(|_| KeyFileError::Sealing)
}

/// The keys in a sealed key file.
///
/// # Errors
/// [`KeyFileError`]
pub fn open(sealed: &[u8], password: &SecretString) -> Result<MemoryKeys, KeyFileError> {
    if sealed.len() > MAX_FILE {
        return Err(KeyFileError::TooLong);
    }
    let mut identity = age::scrypt::Identity::new(password.clone());
    identity.set_max_work_factor(MAX_WORK_FACTOR);
    let text = match age::decrypt(&identity, sealed) {
        Ok(text) => Zeroizing::new(text),
        Err(
            age::DecryptError::InvalidHeader
            | age::DecryptError::UnknownFormat
            | age::DecryptError::Io(_)
            | age::DecryptError::NoMatchingKeys,
        ) => return Err(KeyFileError::NotSealed),
        Err(_) => return Err(KeyFileError::Password),
    };
    let text = std::str::from_utf8(&text).map_err(|_| KeyFileError::Text {
        line: 0,
        reason: "not text",
    })?;
    parse(text)
}

/// The environment variable of a key.
#[must_use]
pub fn variable(key: &KeyRef) -> String {
    let name: String = key
        .name
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_uppercase()
            } else {
                '_'
            }
        })
        .collect();
    format!("DESFIRE_KEY_{name}_V{}", key.version)
}

/// The keys of a layout that `environment` has. What is missing is found when layout and keys come
/// together.
///
/// # Errors
/// [`KeyFileError::Variable`], [`KeyFileError::SameVariable`]
pub fn from_environment(
    layout: &Layout,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<MemoryKeys, KeyFileError> {
    let mut keys = MemoryKeys::new();
    let mut seen: Vec<(String, &KeyRef)> = Vec::new();
    for key in layout.keys() {
        let variable = variable(key);
        let same = seen.iter().find(|(other, _)| *other == variable);
        if let Some((_, other)) = same
            && other.name != key.name
        {
            return Err(KeyFileError::SameVariable {
                first: other.name.clone(),
                second: key.name.clone(),
            });
        }
        if let Some(value) = environment(&variable).map(Zeroizing::new) {
            let parsed = from_words(&value).ok_or_else(|| KeyFileError::Variable {
                name: variable.clone(),
            })?;
            keys.insert(key.name.clone(), key.version, parsed);
        }
        seen.push((variable, key));
    }
    Ok(keys)
}

fn from_words(value: &str) -> Option<Key> {
    let (kind, hex) = value.split_once(':')?;
    let key_type = match kind {
        "DES" => KeyType::Des,
        "2K3DES" => KeyType::TwoKey3Des,
        "3K3DES" => KeyType::ThreeKey3Des,
        "AES" => KeyType::Aes,
        _ => return None,
    };
    Key::from_slice(key_type, &Secret::parse(hex)?.0).ok()
}

/// The text of a key file with a new random key for every name and version that a layout asks for,
/// older ones and the manufacturer's included: those are to be replaced by the real ones.
///
/// # Errors
/// [`KeyFileError::Randomness`]
pub fn invent(layout: &Layout) -> Result<Zeroizing<String>, KeyFileError> {
    // Long enough not to be moved while it grows: a key takes some 120 bytes besides its name, of which a
    // byte may be written as ten.
    let room = |(key, _): (&KeyRef, _)| key.name.len().saturating_mul(10).saturating_add(128);
    let room = types(layout).map(room).fold(128, usize::saturating_add);
    let mut text = Zeroizing::new(String::with_capacity(room));
    text.push_str("# Keys of the layout, made at random.\n");
    let mut done: Vec<&KeyRef> = Vec::new();
    for (key, key_type) in types(layout) {
        if done
            .iter()
            .any(|other| (&other.name, other.version) == (&key.name, key.version))
        {
            continue;
        }
        done.push(key);
        let mut bytes = Zeroizing::new([0; 24]);
        getrandom::SysRng
            .try_fill_bytes(bytes.as_mut())
            .map_err(|_| KeyFileError::Randomness)?;
        let (word, len) = match key_type {
            KeyType::Des => ("DES", 8),
            KeyType::TwoKey3Des => ("2K3DES", 16),
            KeyType::ThreeKey3Des => ("3K3DES", 24),
            KeyType::Aes => ("AES", 16),
        };
        let name = toml_string(&key.name);
        // Writing to a string does not fail.
        let _ = write!(
            text,
            "\n[[key]]\nname = {name}\nversion = {}\n",
            key.version
        );
        let _ = write!(text, "type = \"{word}\"\nhex = \"");
        for byte in bytes.iter().take(len) {
            let _ = write!(text, "{byte:02X}");
        }
        text.push_str("\"\n");
    }
    Ok(text)
}

/// A TOML string: everything unusual escaped.
fn toml_string(text: &str) -> String {
    let mut quoted = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            c if c.is_control() => {
                let _ = write!(quoted, "\\U{:08X}", u32::from(c));
            }
            c => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// All keys with the types that fit: of a PICC master key AES, of a default key the longest, of a
/// transport key 2K3DES.
fn types(layout: &Layout) -> impl Iterator<Item = (&KeyRef, KeyType)> {
    let picc = &layout.picc;
    let own = [&picc.key.key].into_iter().chain(&picc.key.older);
    let own = own.map(|key| (key, KeyType::Aes));
    let transport = picc.transport.iter().map(|key| (key, KeyType::TwoKey3Des));
    let default = picc
        .default_key
        .iter()
        .map(|key| (key, KeyType::ThreeKey3Des));
    let apps = layout.applications.iter().flat_map(|app| {
        let key_type = match app.family {
            KeyFamily::Aes => KeyType::Aes,
            KeyFamily::ThreeKey3Des => KeyType::ThreeKey3Des,
            KeyFamily::Des | KeyFamily::Unknown => KeyType::TwoKey3Des,
        };
        let keys = app.keys.iter();
        keys.flat_map(|slot| [&slot.key].into_iter().chain(&slot.older))
            .map(move |key| (key, key_type))
    });
    own.chain(transport).chain(default).chain(apps)
}

/// A password, which must not be empty.
#[must_use]
pub fn password(text: String) -> Option<SecretString> {
    let secret = SecretString::from(text);
    (!secret.expose_secret().is_empty()).then_some(secret)
}
