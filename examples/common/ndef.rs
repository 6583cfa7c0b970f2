//! NDEF messages (NFC Forum NDEF 1.0, URI and Text record types), and the names and files by which
//! a phone finds one on a DESFire EV1 (NXP AN11004, NFC Forum Type 4 Tag 2.0).

use desfire_ev1::wire::{DfName, IsoFileId, WireError};

use super::{Outcome, words};

/// The application of AN11004; the card allows any other AID too.
pub const AID: u32 = 0x00_0001;
/// Its ISO FID.
pub const APPLICATION_ID: IsoFileId = IsoFileId(0xE110);
/// The capability container.
pub const CC_ID: IsoFileId = IsoFileId(0xE103);
/// The file with the message.
pub const NDEF_ID: IsoFileId = IsoFileId(0xE104);
/// The length of a capability container that names one file.
pub const CC_LEN: u16 = 15;
/// FIDs that no NDEF file has; the capability container's is one of them.
const RESERVED_IDS: [u16; 6] = [0x0000, 0xE102, 0xE103, 0x3F00, 0x3FFF, 0xFFFF];
/// The two bytes before a message: its length.
pub const NLEN: u16 = 2;

/// The name by which phones select the application.
pub fn df_name() -> Result<DfName, WireError> {
    DfName::new(b"\xD2\x76\x00\x00\x85\x01\x01")
}

/// The capability container: what a phone must know before it reads.
///
/// | offset | size | field | here |
/// |---|---|---|---|
/// | 0 | 2 | length of all this | `000F` |
/// | 2 | 1 | mapping version | `20`: 2.0 |
/// | 3 | 2 | MLe: the most that one READ BINARY reads | `003A` |
/// | 5 | 2 | MLc: the most that one UPDATE BINARY writes | `0034` |
/// | 7 | 1 | tag of the NDEF File Control TLV | `04` |
/// | 8 | 1 | its length | `06` |
/// | 9 | 2 | ISO FID of the NDEF file | `E104` |
/// | 11 | 2 | size of that file, NLEN included | |
/// | 13 | 1 | read access: `00` is free | `00` |
/// | 14 | 1 | write access: `00` is free, `FF` none | `00` |
///
/// Sources: libfreefare `examples/mifare-desfire-create-ndef.c`, after AN11004 rev. 2.2, for all
/// but MLe, which is `003B` there; the revision history of AN11004 rev. 2.4 changes it to `003A`,
/// and MichaelsPlayground/TalkToYourDESFireCard `DesfireEv3.java` has all of these bytes for a
/// file of 256: `000F20003A00340406E10401000000`.
#[derive(Clone, Copy)]
pub struct CapabilityContainer {
    pub max_read: u16,
    pub max_write: u16,
    pub file: IsoFileId,
    pub size: u16,
    pub free_to_read: bool,
    pub free_to_write: bool,
}

impl CapabilityContainer {
    /// For an NDEF file of `size` bytes that everybody may read and write.
    pub const fn new(size: u16) -> Self {
        Self {
            max_read: 0x3A,
            max_write: 0x34,
            file: NDEF_ID,
            size,
            free_to_read: true,
            free_to_write: true,
        }
    }

    /// The longest message that fits.
    pub const fn room(&self) -> u16 {
        self.size.saturating_sub(NLEN)
    }

    pub fn encode(&self) -> Vec<u8> {
        let access = |free| if free { 0x00 } else { 0xFF };
        let mut bytes = CC_LEN.to_be_bytes().to_vec();
        bytes.push(0x20);
        bytes.extend(self.max_read.to_be_bytes());
        bytes.extend(self.max_write.to_be_bytes());
        bytes.extend([0x04, 0x06]);
        bytes.extend(self.file.to_iso());
        bytes.extend(self.size.to_be_bytes());
        bytes.extend([access(self.free_to_read), access(self.free_to_write)]);
        bytes
    }

    /// Takes the first file that it names, which has to be the NDEF file.
    pub fn decode(bytes: &[u8]) -> Outcome<Self> {
        let wrong =
            |what: String| format!("the capability container {}: {what}", words::hex(bytes));
        let &[
            l0,
            l1,
            version,
            e0,
            e1,
            c0,
            c1,
            tag,
            len,
            f0,
            f1,
            s0,
            s1,
            read,
            write,
            ..,
        ] = bytes
        else {
            return Err(wrong("shorter than 15 bytes".to_owned()).into());
        };
        if [l0, l1] == [0; 2] {
            return Err(
                wrong("empty; was the card being prepared and taken away?".to_owned()).into(),
            );
        }
        if version >> 4 != 2 {
            let text = format!(
                "mapping version {}.{}, not 2.x",
                version >> 4,
                version & 0x0F
            );
            return Err(wrong(text).into());
        }
        if [tag, len] != [0x04, 0x06] {
            return Err(wrong("it does not name an NDEF file first".to_owned()).into());
        }
        let number = |high, low| u16::from_be_bytes([high, low]);
        let (max_read, max_write) = (number(e0, e1), number(c0, c1));
        let (file, size) = (IsoFileId::from_iso([f0, f1]), number(s0, s1));
        // What phones look at before they believe it (Android, `rw_t4t_validate_cc_file`).
        let amiss = if number(l0, l1) < CC_LEN {
            Some("it says that it is shorter than 15 bytes")
        } else if max_read < 15 || max_write == 0 {
            Some("MLe is below 15, or MLc zero")
        } else if RESERVED_IDS.contains(&file.0) {
            Some("the FID of its NDEF file is a reserved one")
        } else if !(5..0xFFFF).contains(&size) {
            Some("the size of its NDEF file is below 5, or FFFF")
        } else {
            None
        };
        if let Some(amiss) = amiss {
            return Err(wrong(amiss.to_owned()).into());
        }
        Ok(Self {
            max_read,
            max_write,
            file,
            size,
            free_to_read: read == 0,
            free_to_write: write == 0,
        })
    }
}

/// One record of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    Uri(String),
    Text {
        language: String,
        text: String,
    },
    /// Any other.
    Other {
        name_format: u8,
        kind: Vec<u8>,
        payload: Vec<u8>,
    },
}

/// The beginnings of URIs that are sent as one byte, which is the place in this list.
const PREFIXES: [&str; 36] = [
    "",
    "http://www.",
    "https://www.",
    "http://",
    "https://",
    "tel:",
    "mailto:",
    "ftp://anonymous:anonymous@",
    "ftp://ftp.",
    "ftps://",
    "sftp://",
    "smb://",
    "nfs://",
    "ftp://",
    "dav://",
    "news:",
    "telnet://",
    "imap:",
    "rtsp://",
    "urn:",
    "pop:",
    "sip:",
    "sips:",
    "tftp:",
    "btspp://",
    "btl2cap://",
    "btgoep://",
    "tcpobex://",
    "irdaobex://",
    "file://",
    "urn:epc:id:",
    "urn:epc:tag:",
    "urn:epc:pat:",
    "urn:epc:raw:",
    "urn:epc:",
    "urn:nfc:",
];

const FIRST: u8 = 0x80;
const LAST: u8 = 0x40;
const CHUNKED: u8 = 0x20;
const SHORT: u8 = 0x10;
const HAS_ID: u8 = 0x08;
const WELL_KNOWN: u8 = 0x01;

impl Record {
    fn payload(&self) -> Outcome<Vec<u8>> {
        match self {
            Self::Uri(uri) => {
                let (code, prefix) = (0_u8..)
                    .zip(PREFIXES)
                    .filter(|(_, prefix)| uri.starts_with(prefix))
                    .max_by_key(|(_, prefix)| prefix.len())
                    .unwrap_or((0, ""));
                let rest = uri.strip_prefix(prefix).unwrap_or(uri);
                Ok([&[code], rest.as_bytes()].concat())
            }
            Self::Text { language, text } => {
                let status = u8::try_from(language.len()).ok().filter(|len| *len < 0x40);
                let status = status.ok_or("a language code has at most 63 letters")?;
                Ok([&[status], language.as_bytes(), text.as_bytes()].concat())
            }
            Self::Other { payload, .. } => Ok(payload.clone()),
        }
    }

    fn kind(&self) -> &[u8] {
        match self {
            Self::Uri(_) => b"U",
            Self::Text { .. } => b"T",
            Self::Other { kind, .. } => kind,
        }
    }

    const fn name_format(&self) -> u8 {
        match self {
            Self::Uri(_) | Self::Text { .. } => WELL_KNOWN,
            Self::Other { name_format, .. } => *name_format,
        }
    }

    fn of(name_format: u8, kind: &[u8], payload: &[u8]) -> Self {
        let other = || Self::Other {
            name_format,
            kind: kind.to_vec(),
            payload: payload.to_vec(),
        };
        let known = match (name_format, kind, payload) {
            (WELL_KNOWN, b"U", [code, rest @ ..]) => {
                let prefix = PREFIXES.get(usize::from(*code)).copied().unwrap_or("");
                let rest = String::from_utf8(rest.to_vec()).ok();
                rest.map(|rest| Self::Uri(format!("{prefix}{rest}")))
            }
            // Bit 7 would be UTF-16.
            (WELL_KNOWN, b"T", [status @ 0..0x40, rest @ ..]) => rest
                .split_at_checked(usize::from(*status))
                .and_then(|(language, text)| {
                    Some(Self::Text {
                        language: String::from_utf8(language.to_vec()).ok()?,
                        text: String::from_utf8(text.to_vec()).ok()?,
                    })
                }),
            _ => None,
        };
        known.unwrap_or_else(other)
    }
}

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // What comes from a card must not move the terminal's cursor.
        let clean = |text: &str| text.escape_debug().to_string();
        match self {
            Self::Uri(uri) => write!(f, "URI   {}", clean(uri)),
            Self::Text { language, text } => {
                write!(f, "text  {} ({})", clean(text), clean(language))
            }
            Self::Other { name_format: 0, .. } => f.write_str("an empty record"),
            Self::Other {
                name_format,
                kind,
                payload,
            } => write!(
                f,
                "other record, name format {name_format}, type {}, {} bytes",
                words::printable(kind),
                payload.len()
            ),
        }
    }
}

/// A message as it is stored.
pub fn encode(records: &[Record]) -> Outcome<Vec<u8>> {
    let mut message = Vec::new();
    let last = records.len().saturating_sub(1);
    for (place, record) in records.iter().enumerate() {
        let payload = record.payload()?;
        let mut header = record.name_format();
        if place == 0 {
            header |= FIRST;
        }
        if place == last {
            header |= LAST;
        }
        let kind = record.kind();
        let kind_len = u8::try_from(kind.len()).map_err(|_| "the record's type is too long")?;
        match u8::try_from(payload.len()) {
            Ok(len) => message.extend([header | SHORT, kind_len, len]),
            Err(_) => {
                message.extend([header, kind_len]);
                let len = u32::try_from(payload.len()).map_err(|_| "the record is too long")?;
                message.extend(len.to_be_bytes());
            }
        }
        message.extend(kind);
        message.extend(payload);
    }
    Ok(message)
}

/// The records of a stored message.
pub fn decode(message: &[u8]) -> Outcome<Vec<Record>> {
    let mut records = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let (record, after) =
            decode_record(rest).ok_or("the NDEF message is cut off or in chunks")?;
        records.push(record);
        rest = after;
    }
    Ok(records)
}

fn decode_record(bytes: &[u8]) -> Option<(Record, &[u8])> {
    let [header, kind_len, rest @ ..] = bytes else {
        return None;
    };
    if header & CHUNKED != 0 {
        return None;
    }
    let (payload_len, rest) = if header & SHORT != 0 {
        let (len, rest) = rest.split_first()?;
        (u32::from(*len), rest)
    } else {
        let (len, rest) = rest.split_first_chunk()?;
        (u32::from_be_bytes(*len), rest)
    };
    let (id_len, rest) = if header & HAS_ID != 0 {
        let (len, rest) = rest.split_first()?;
        (*len, rest)
    } else {
        (0, rest)
    };
    let (kind, rest) = rest.split_at_checked(usize::from(*kind_len))?;
    let (_, rest) = rest.split_at_checked(usize::from(id_len))?;
    let (payload, rest) = rest.split_at_checked(usize::try_from(payload_len).ok()?)?;
    Some((Record::of(header & 0x07, kind, payload), rest))
}
