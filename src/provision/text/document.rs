//! What stands in a layout's text, word for word, and how long it may be.
//!
//! For: everything that can be found wrong with a value by itself. May not know: what the values mean
//! together, which [`super`] finds out.

use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, Visitor};
use toml::Spanned;

use crate::wire::{Aid, FileNo, IsoFileId};

/// The longest name, in bytes: names are repeated, in older keys and in everything that is said.
const MAX_NAME: usize = 64;
/// How many older keys or transport keys are listed in one place, at most.
const MAX_OLDER: usize = 16;

/// A name of [`MAX_NAME`] bytes at most.
#[derive(Default, Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Name(pub(super) String);

impl TryFrom<String> for Name {
    type Error = String;

    fn try_from(name: String) -> Result<Self, String> {
        if name.len() > MAX_NAME {
            return Err(format!("a name has {MAX_NAME} bytes at most"));
        }
        Ok(Self(name))
    }
}

/// [`MAX_OLDER`] values at most.
#[derive(Deserialize)]
#[serde(try_from = "Vec<T>", bound = "T: Deserialize<'de>")]
pub(super) struct Few<T>(pub(super) Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T> TryFrom<Vec<T>> for Few<T> {
    type Error = String;

    fn try_from(list: Vec<T>) -> Result<Self, String> {
        if list.len() > MAX_OLDER {
            return Err(format!("a list of keys has {MAX_OLDER} entries at most"));
        }
        Ok(Self(list))
    }
}

/// Bytes, as text or in hexadecimal.
#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Bytes {
    Text(String),
    Hex(Hex),
}

impl Bytes {
    pub(super) fn into_vec(self) -> Vec<u8> {
        match self {
            Self::Text(text) => text.into_bytes(),
            Self::Hex(hex) => hex.0,
        }
    }
}

/// An even number of hexadecimal digits, with blanks wherever they please.
#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct Hex(pub(super) Vec<u8>);

impl TryFrom<String> for Hex {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let digits = text.chars().filter(|c| !c.is_ascii_whitespace());
        let digits: Option<Vec<u8>> = digits
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits = digits.ok_or_else(|| format!("'{text}' is not hexadecimal"))?;
        if digits.len() % 2 != 0 {
            return Err(format!("'{text}' has an odd number of digits"));
        }
        let (pairs, _) = digits.as_chunks::<2>();
        Ok(Self(
            pairs.iter().map(|[high, low]| high << 4 | low).collect(),
        ))
    }
}

impl Hex {
    fn number(&self) -> u32 {
        self.0
            .iter()
            .fold(0, |number, byte| (number << 8) | u32::from(*byte))
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct AidText(pub(super) Aid);

impl TryFrom<String> for AidText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let hex = Hex::try_from(text)?;
        match (hex.0.len(), Aid::new(hex.number())) {
            (3, Ok(aid)) => Ok(Self(aid)),
            _ => Err("an AID has six hexadecimal digits".to_string()),
        }
    }
}

#[derive(Deserialize)]
#[serde(try_from = "String")]
pub(super) struct FileIdText(pub(super) IsoFileId);

impl TryFrom<String> for FileIdText {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match Hex::try_from(text)?.0.as_slice() {
            [high, low] => Ok(Self(IsoFileId::from_iso([*high, *low]))),
            _ => Err("an ISO FID has four hexadecimal digits".to_string()),
        }
    }
}

#[derive(Deserialize)]
pub(super) enum CardSize {
    #[serde(rename = "2K")]
    Ev1_2K,
    #[serde(rename = "4K")]
    Ev1_4K,
    #[serde(rename = "8K")]
    Ev1_8K,
}

#[derive(Clone, Copy, Deserialize)]
pub(super) enum Family {
    #[serde(rename = "DES", alias = "2K3DES")]
    Des,
    #[serde(rename = "3K3DES")]
    ThreeKey3Des,
    #[serde(rename = "AES")]
    Aes,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Mode {
    Plain,
    #[serde(rename = "maced")]
    Maced,
    Enciphered,
}

#[derive(Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Type {
    Standard,
    Backup,
    Value,
    Linear,
    Cyclic,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
pub(super) enum Who {
    #[default]
    #[serde(rename = "free")]
    Free,
    #[serde(rename = "master key")]
    MasterKey,
}

#[derive(Clone, Copy, Default, Deserialize, PartialEq)]
pub(super) enum Later {
    #[default]
    #[serde(rename = "changeable")]
    Changeable,
    #[serde(rename = "frozen")]
    Frozen,
}

#[derive(Deserialize)]
#[serde(try_from = "u8")]
pub(super) struct FileNumber(pub(super) FileNo);

impl TryFrom<u8> for FileNumber {
    type Error = String;

    fn try_from(number: u8) -> Result<Self, String> {
        let number = FileNo::new(number);
        number
            .map(Self)
            .map_err(|_| "a file number is 0 to 31".to_string())
    }
}

/// A key number or a word.
pub(super) enum KeyOrWord {
    Key(i64),
    Word(String),
}

impl<'de> Deserialize<'de> for KeyOrWord {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = KeyOrWord;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a key number or a word")
            }

            fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<KeyOrWord, E> {
                Ok(KeyOrWord::Key(number))
            }

            fn visit_str<E: serde::de::Error>(self, word: &str) -> Result<KeyOrWord, E> {
                Ok(KeyOrWord::Word(word.to_string()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Document {
    pub(super) name: Name,
    pub(super) card: Spanned<CardSize>,
    pub(super) system_id: Option<Bytes>,
    pub(super) picc: Spanned<Picc>,
    #[serde(default)]
    pub(super) application: Vec<Spanned<Application>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Reference {
    pub(super) name: Name,
    pub(super) version: u8,
    #[serde(default = "yes")]
    pub(super) diversified: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Slot {
    pub(super) name: Name,
    pub(super) version: u8,
    #[serde(default = "yes")]
    pub(super) diversified: bool,
    #[serde(default)]
    pub(super) older: Few<u8>,
    #[serde(default)]
    pub(super) older_keys: Few<Reference>,
}

const fn yes() -> bool {
    true
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Picc {
    pub(super) key: Slot,
    #[serde(default)]
    pub(super) transport: Few<Reference>,
    pub(super) default_key: Option<Reference>,
    pub(super) settings: Option<Spanned<Settings>>,
    #[serde(default)]
    pub(super) random_id: bool,
    #[serde(default)]
    pub(super) disable_format: bool,
    pub(super) ats: Option<Hex>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Settings {
    #[serde(default)]
    pub(super) listing: Who,
    #[serde(default)]
    pub(super) creating: Who,
    #[serde(default)]
    pub(super) master_key: Later,
    #[serde(default)]
    pub(super) settings: Later,
    pub(super) change_keys: Option<KeyOrWord>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Application {
    #[serde(default)]
    pub(super) name: Name,
    pub(super) aid: AidText,
    pub(super) iso_file_id: Option<FileIdText>,
    pub(super) df_name: Option<Bytes>,
    pub(super) key_type: Family,
    pub(super) keys: Vec<Spanned<Slot>>,
    pub(super) settings: Option<Spanned<Settings>>,
    #[serde(default)]
    pub(super) file: Vec<Spanned<File>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub(super) number: FileNumber,
    #[serde(rename = "type")]
    pub(super) kind: Type,
    pub(super) iso_file_id: Option<FileIdText>,
    pub(super) mode: Mode,
    pub(super) rights: Spanned<Rights>,
    pub(super) size: Option<u32>,
    pub(super) content: Option<Spanned<Bytes>>,
    pub(super) lower: Option<i32>,
    pub(super) upper: Option<i32>,
    pub(super) value: Option<i32>,
    pub(super) limited_credit: Option<bool>,
    pub(super) free_get_value: Option<bool>,
    pub(super) record_size: Option<u32>,
    pub(super) max_records: Option<u32>,
    pub(super) records: Option<Spanned<Vec<Bytes>>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Rights {
    pub(super) read: KeyOrWord,
    pub(super) write: KeyOrWord,
    pub(super) read_write: KeyOrWord,
    pub(super) change: KeyOrWord,
}
