//! What a terminal asks of the key holder: the card's challenge, and everything that the answer is
//! bound to.

use core::fmt;

use super::dukpt::Ksn;
use super::error::MessageError;
use super::message::{self, From, Kind, Message, TAG, put_short, take_short};
use super::transport_key::{TransportKey, TransportKeyId};
use crate::LinkFormat;
use crate::wire::{
    Aid, AuthScheme, Framing, InlineBytes, KeyNo, KeyType, Reader, Uid, WireError, Writer,
};

/// How a key holder may take part in a tap. See [the module](super) for what each gives away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Mode {
    /// The session key, after the key holder has seen the card's proof.
    Proven,
    /// The session key, locked so that only the card's proof opens it.
    CardLocked,
    /// No key: a transaction sealed ahead.
    Script,
    /// Nothing: the key holder runs the machines.
    Remote,
}

impl Mode {
    const ALL: [Self; 4] = [Self::Proven, Self::CardLocked, Self::Script, Self::Remote];

    const fn to_byte(self) -> u8 {
        match self {
            Self::Proven => 1,
            Self::CardLocked => 2,
            Self::Script => 3,
            Self::Remote => 4,
        }
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Proven => "proven release",
            Self::CardLocked => "card-locked release",
            Self::Script => "a script",
            Self::Remote => "remote",
        })
    }
}

/// The name of a terminal: 1 to 16 bytes, unique in the system.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TerminalId(InlineBytes<16>);

impl TerminalId {
    /// A name.
    ///
    /// # Errors
    /// [`WireError::Value`] if it is empty or longer than 16 bytes.
    pub fn new(name: &[u8]) -> Result<Self, WireError> {
        let field = "length of the terminal's name";
        let value = u32::try_from(name.len()).unwrap_or(u32::MAX);
        match InlineBytes::new(name) {
            Ok(name) if !name.is_empty() => Ok(Self(name)),
            _ => Err(WireError::Value { field, value }),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for TerminalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "TerminalId({self})")
    }
}

impl fmt::Display for TerminalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

/// What makes a challenge one that the key holder has not seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Freshness {
    /// A number of the terminal's own that only ever grows; under DUKPT its transaction counter.
    Counter(u64),
    /// A nonce that the key holder has given out before the tap.
    Nonce([u8; 16]),
}

/// What a terminal asks for: the values of a [`Challenge`] that are known before the card is
/// asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Intent {
    /// How the key holder is to take part.
    pub mode: Mode,
    /// The authentication.
    pub scheme: AuthScheme,
    /// The key's type.
    pub key_type: KeyType,
    /// The key's number.
    pub key_no: KeyNo,
    /// The card's UID, if it is known: keys diversified by UID cannot be found without.
    pub uid: Option<Uid>,
    /// Who asks.
    pub terminal: TerminalId,
    /// The transport key.
    pub transport: TransportKeyId,
    /// Why this is no repetition.
    pub freshness: Freshness,
    /// What is to be done, in the application's own words: the key holder reads them before it
    /// answers, and above all before it makes a script.
    pub purpose: InlineBytes<64>,
}

/// A card's challenge and what its answer is bound to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Challenge {
    /// What the terminal asks for.
    pub intent: Intent,
    /// The application that is selected, or [`Aid::PICC`].
    pub aid: Aid,
    /// How the link to the card wants its bytes: a script is cut accordingly.
    pub format: LinkFormat,
    /// E(RndB), as the card has sent it: 8 or 16 bytes, none in remote mode.
    pub cryptogram: InlineBytes<16>,
}

impl Challenge {
    /// The longest body: format, kind, mode, scheme, key type, key number 6, AID 3, UID 8,
    /// terminal 17, transport key 13, freshness 17, link 2, purpose 65, cryptogram 17.
    pub(super) const MAX_BODY: usize = 6 + 3 + 8 + 17 + 13 + 17 + 2 + 65 + 17;
    /// The longest message.
    pub const MAX_LEN: usize = Self::MAX_BODY + TAG;

    /// The message, made with the transport key that it names.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn seal(&self, key: &TransportKey) -> Result<Message<{ Self::MAX_LEN }>, WireError> {
        Message::make(|out| {
            let body = self.body()?;
            let mut writer = Writer::new(out);
            writer.put(&body)?;
            writer.put(message::tag(key, From::Terminal, &[], &body).as_ref())?;
            Ok(writer.written())
        })
    }

    /// What a message claims, before anybody has checked it: for finding the transport key.
    ///
    /// # Errors
    /// [`MessageError::Version`], [`MessageError::Kind`], [`MessageError::Malformed`].
    pub fn claimed(message: &[u8]) -> Result<Self, MessageError> {
        Self::parse(message).map(|(challenge, _)| challenge)
    }

    /// Reads a message and checks that it was made with this key.
    ///
    /// # Errors
    /// As [`Challenge::claimed`], and [`MessageError::Altered`].
    pub fn open(message: &[u8], key: &TransportKey) -> Result<Self, MessageError> {
        let (challenge, received) = Self::parse(message)?;
        let body = message.get(..message.len().saturating_sub(TAG));
        let tag = message::tag(key, From::Terminal, &[], body.unwrap_or_default());
        if super::kdf::same(tag.as_ref(), &received) {
            Ok(challenge)
        } else {
            Err(MessageError::Altered)
        }
    }

    fn parse(message: &[u8]) -> Result<(Self, [u8; TAG]), MessageError> {
        let mut reader = message::header(message, Kind::Challenge)?;
        let challenge = Self::decode(&mut reader)?;
        let tag = reader.array()?;
        reader.finish()?;
        Ok((challenge, tag))
    }

    pub(super) fn body(&self) -> Result<InlineBytes<{ Self::MAX_BODY }>, WireError> {
        let mut body = [0; Self::MAX_BODY];
        let mut out = Writer::new(&mut body);
        out.put(&[message::FORMAT, Kind::Challenge as u8])?;
        self.encode(&mut out)?;
        let len = out.written();
        InlineBytes::new(body.get(..len).unwrap_or_default())
    }

    fn encode(&self, out: &mut Writer<'_>) -> Result<(), WireError> {
        let intent = &self.intent;
        out.u8(intent.mode.to_byte())?;
        out.u8(intent.scheme.command().to_byte())?;
        out.u8(type_byte(intent.key_type))?;
        out.u8(intent.key_no.number())?;
        out.put(&self.aid.to_bytes())?;
        match intent.uid {
            None => out.u8(0)?,
            Some(uid) => {
                out.u8(1)?;
                out.put(&uid.0)?;
            }
        }
        put_short(out, intent.terminal.as_bytes())?;
        match intent.transport {
            TransportKeyId::Preshared(version) => out.put(&[0, version])?,
            TransportKeyId::Dukpt(ksn) => {
                out.u8(1)?;
                out.put(&ksn.key_id)?;
                out.put(&ksn.counter.to_le_bytes())?;
            }
        }
        match intent.freshness {
            Freshness::Counter(counter) => {
                out.u8(0)?;
                out.put(&counter.to_le_bytes())?;
            }
            Freshness::Nonce(nonce) => {
                out.u8(1)?;
                out.put(&nonce)?;
            }
        }
        out.u8(match self.format.framing {
            Framing::Native => 0,
            Framing::Wrapped => 1,
        })?;
        let limit = self.format.max_command.min(crate::wire::frame::MAX_COMMAND);
        out.u8(u8::try_from(limit).map_err(|_| WireError::Full)?)?;
        put_short(out, &intent.purpose)?;
        put_short(out, &self.cryptogram)
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let mode = choice("mode", reader.u8()?, &Mode::ALL, |mode| mode.to_byte())?;
        let schemes = [AuthScheme::Legacy, AuthScheme::Iso, AuthScheme::Aes];
        let scheme = choice("scheme", reader.u8()?, &schemes, |scheme| {
            scheme.command().to_byte()
        })?;
        let key_type = choice("key type", reader.u8()?, &KEY_TYPES, |key| type_byte(*key))?;
        let key_no = KeyNo::new(reader.u8()?)?;
        let aid = Aid::from_bytes(reader.array()?);
        let uid = match flag("UID flag", reader)? {
            false => None,
            true => Some(Uid(reader.array()?)),
        };
        let terminal = TerminalId::new(&take_short::<16>(reader, "terminal")?)?;
        let transport = match flag("transport key", reader)? {
            false => TransportKeyId::Preshared(reader.u8()?),
            true => TransportKeyId::Dukpt(Ksn {
                key_id: reader.array()?,
                counter: u32::from_le_bytes(reader.array()?),
            }),
        };
        let freshness = match flag("freshness", reader)? {
            false => Freshness::Counter(u64::from_le_bytes(reader.array()?)),
            true => Freshness::Nonce(reader.array()?),
        };
        let framing = match flag("framing", reader)? {
            false => Framing::Native,
            true => Framing::Wrapped,
        };
        let max_command = reader.u8()?;
        if usize::from(max_command) > crate::wire::frame::MAX_COMMAND {
            return Err(invalid("frame limit", max_command));
        }
        let purpose = take_short(reader, "purpose")?;
        let cryptogram: InlineBytes<16> = take_short(reader, "cryptogram")?;
        let expected = if mode == Mode::Remote {
            0
        } else {
            key_type.nonce_len()
        };
        if !scheme.accepts(key_type) {
            return Err(invalid("key type", type_byte(key_type)));
        }
        if cryptogram.len() != expected {
            return Err(WireError::Value {
                field: "cryptogram length",
                value: u32::try_from(cryptogram.len()).unwrap_or(u32::MAX),
            });
        }
        Ok(Self {
            intent: Intent {
                mode,
                scheme,
                key_type,
                key_no,
                uid,
                terminal,
                transport,
                freshness,
                purpose,
            },
            aid,
            format: LinkFormat {
                framing,
                max_command: usize::from(max_command),
            },
            cryptogram,
        })
    }
}

const KEY_TYPES: [KeyType; 4] = [
    KeyType::Des,
    KeyType::TwoKey3Des,
    KeyType::ThreeKey3Des,
    KeyType::Aes,
];

/// How a key type is written down.
pub(super) const fn type_byte(key_type: KeyType) -> u8 {
    match key_type {
        KeyType::Des => 1,
        KeyType::TwoKey3Des => 2,
        KeyType::ThreeKey3Des => 3,
        KeyType::Aes => 4,
    }
}

fn invalid(field: &'static str, value: u8) -> WireError {
    WireError::Value {
        field,
        value: u32::from(value),
    }
}

fn choice<T: Copy>(
    field: &'static str,
    byte: u8,
    all: &[T],
    to_byte: impl Fn(&T) -> u8,
) -> Result<T, WireError> {
    all.iter()
        .find(|value| to_byte(value) == byte)
        .copied()
        .ok_or_else(|| invalid(field, byte))
}

fn flag(field: &'static str, reader: &mut Reader<'_>) -> Result<bool, WireError> {
    match reader.u8()? {
        0 => Ok(false),
        1 => Ok(true),
        other => Err(invalid(field, other)),
    }
}
