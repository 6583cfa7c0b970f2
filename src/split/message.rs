//! The form that all messages between terminal and key holder have.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | format, [`FORMAT`] |
//! | 1 | 1 | kind |
//! | 2 | 8 | the challenge that it belongs to (not in the challenge itself) |
//! | | | body |
//! | end | 16 | AES-CMAC over all before it |
//!
//! Integers are least significant byte first. There is one form of each value: what does not encode
//! to the same bytes again is refused. The MAC's key is derived from the transport key, per
//! direction and, but for the challenge itself, per challenge:
//!
//! | message | label | context |
//! |---|---|---|
//! | challenge | `terminal` | – |
//! | other, to the key holder | `terminal` | the challenge without its MAC |
//! | to the terminal | `holder` | the challenge without its MAC |

use core::fmt;
use core::ops::Deref;

use super::challenge::Challenge;
use super::error::MessageError;
use super::kdf;
use super::transport_key::TransportKey;
use crate::wire::{InlineBytes, Reader, WireError, Writer};

/// The format of all messages.
pub const FORMAT: u8 = 1;
/// Length of the MAC at a message's end.
pub(super) const TAG: usize = 16;
/// Format, kind, challenge, MAC.
pub(super) const OVERHEAD: usize = 2 + 8 + TAG;

/// What kind of message it is.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Challenge = 1,
    CardLocked = 2,
    Token = 3,
    Proof = 4,
    Release = 5,
    Script = 6,
    Receipt = 7,
    RelayCommand = 8,
    RelayReply = 9,
    Record = 0x40,
    Pending = 0x41,
}

/// Who has made it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum From {
    Terminal,
    Holder,
}

impl From {
    const fn label(self) -> &'static [u8] {
        match self {
            Self::Terminal => b"desfire split 1 terminal",
            Self::Holder => b"desfire split 1 holder",
        }
    }
}

/// A message as bytes: at most `N`, held in place.
///
/// With the feature `serde` it is a byte string, or hexadecimal digits in text formats.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Message<const N: usize> {
    bytes: [u8; N],
    len: usize,
}

impl<const N: usize> Message<N> {
    /// From bytes that came from elsewhere. They are looked at when they are used.
    ///
    /// # Errors
    /// [`WireError::Full`] if there are more than `N`.
    pub fn from_slice(bytes: &[u8]) -> Result<Self, WireError> {
        let mut message = Self {
            bytes: [0; N],
            len: bytes.len(),
        };
        let room = message
            .bytes
            .get_mut(..bytes.len())
            .ok_or(WireError::Full)?;
        room.copy_from_slice(bytes);
        Ok(message)
    }

    /// Made by writing into the whole room.
    pub(super) fn make<E>(write: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Self, E> {
        let mut bytes = [0; N];
        let len = write(&mut bytes)?.min(N);
        Ok(Self { bytes, len })
    }
}

impl<const N: usize> Deref for Message<N> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl<const N: usize> AsRef<[u8]> for Message<N> {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl<const N: usize> fmt::Debug for Message<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Message({} bytes)", self.len)
    }
}

/// What ties messages to one challenge, and the keys that go with it.
#[derive(Clone)]
pub(super) struct Binding {
    /// The challenge without its MAC.
    body: InlineBytes<{ Challenge::MAX_BODY }>,
    /// The start of the challenge's MAC.
    id: [u8; 8],
    transport: TransportKey,
}

impl Binding {
    pub(super) fn new(challenge: &Challenge, transport: &TransportKey) -> Result<Self, WireError> {
        let body = challenge.body()?;
        let tag = tag(transport, From::Terminal, &[], &body);
        let (id, _) = tag.split_first_chunk().ok_or(WireError::Full)?;
        Ok(Self {
            body,
            id: *id,
            transport: transport.clone(),
        })
    }

    /// The context of every derivation.
    pub(super) fn context(&self) -> &[u8] {
        &self.body
    }

    pub(super) const fn transport(&self) -> &TransportKey {
        &self.transport
    }

    /// Begins a message.
    pub(super) fn begin(&self, out: &mut Writer<'_>, kind: Kind) -> Result<(), WireError> {
        out.put(&[FORMAT, kind as u8])?;
        out.put(&self.id)
    }

    /// The MAC over the whole message so far.
    pub(super) fn tag(&self, from: From, message: &[u8]) -> kdf::Block {
        tag(&self.transport, from, &self.body, message)
    }

    /// Writes one message.
    pub(super) fn seal(
        &self,
        from: From,
        kind: Kind,
        out: &mut [u8],
        body: impl FnOnce(&mut Writer<'_>) -> Result<(), WireError>,
    ) -> Result<usize, WireError> {
        let mut writer = Writer::new(out);
        self.begin(&mut writer, kind)?;
        body(&mut writer)?;
        let len = writer.written();
        self.close(from, out, len)
    }

    /// Puts the MAC behind the `len` bytes that are there; returns the length of all.
    pub(super) fn close(&self, from: From, out: &mut [u8], len: usize) -> Result<usize, WireError> {
        let (message, rest) = out.split_at_mut_checked(len).ok_or(WireError::Full)?;
        let room = rest.get_mut(..TAG).ok_or(WireError::Full)?;
        room.copy_from_slice(self.tag(from, message).as_ref());
        Ok(len.saturating_add(TAG))
    }

    /// Checks one message; what is left is its body.
    pub(super) fn open<'m>(
        &self,
        from: From,
        kind: Kind,
        message: &'m [u8],
    ) -> Result<Reader<'m>, MessageError> {
        let mut reader = header(message, kind)?;
        let id: [u8; 8] = reader.array()?;
        if id != self.id {
            return Err(MessageError::MixedUp);
        }
        let body = reader.take(reader.remaining().saturating_sub(TAG))?;
        let received: [u8; TAG] = reader.array()?;
        let before = message.get(..message.len().saturating_sub(TAG));
        if !kdf::same(
            self.tag(from, before.unwrap_or_default()).as_ref(),
            &received,
        ) {
            return Err(MessageError::Altered);
        }
        Ok(Reader::new(body))
    }
}

/// The MAC of a message in the context of a challenge.
pub(super) fn tag(
    transport: &TransportKey,
    from: From,
    context: &[u8],
    message: &[u8],
) -> kdf::Block {
    let key = kdf::derive(transport.bytes(), from.label(), [context, &[]]);
    kdf::cmac(&key, &[message])
}

/// Format and kind.
pub(super) fn header(message: &[u8], kind: Kind) -> Result<Reader<'_>, MessageError> {
    let mut reader = Reader::new(message);
    let version = reader.u8()?;
    if version != FORMAT {
        return Err(MessageError::Version {
            expected: FORMAT,
            found: version,
        });
    }
    let found = reader.u8()?;
    if found != kind as u8 {
        return Err(MessageError::Kind {
            expected: kind as u8,
            found,
        });
    }
    Ok(reader)
}

/// A byte string with its length before it.
pub(super) fn put_short(out: &mut Writer<'_>, bytes: &[u8]) -> Result<(), WireError> {
    out.u8(u8::try_from(bytes.len()).map_err(|_| WireError::Full)?)?;
    out.put(bytes)
}

/// The same, read.
pub(super) fn take_short<const N: usize>(
    reader: &mut Reader<'_>,
    field: &'static str,
) -> Result<InlineBytes<N>, WireError> {
    let len = reader.u8()?;
    let value = u32::from(len);
    let bytes = reader.take(usize::from(len))?;
    InlineBytes::new(bytes).map_err(|_| WireError::Value { field, value })
}

#[cfg(feature = "serde")]
mod serialized {
    use super::Message;
    use core::fmt;
    use serde::de::{Error, SeqAccess, Visitor};
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    struct Hex<'a>(&'a [u8]);

    impl fmt::Display for Hex<'_> {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
        }
    }

    impl<const N: usize> Serialize for Message<N> {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            if serializer.is_human_readable() {
                serializer.collect_str(&Hex(self))
            } else {
                serializer.serialize_bytes(self)
            }
        }
    }

    struct Bytes<const N: usize>;

    impl<'de, const N: usize> Visitor<'de> for Bytes<N> {
        type Value = Message<N>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            write!(f, "a message of at most {N} bytes")
        }

        fn visit_bytes<E: Error>(self, bytes: &[u8]) -> Result<Self::Value, E> {
            Message::from_slice(bytes).map_err(|_| E::invalid_length(bytes.len(), &self))
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
            let mut message = Message {
                bytes: [0; N],
                len: 0,
            };
            while let Some(byte) = seq.next_element()? {
                let place = message.bytes.get_mut(message.len);
                *place.ok_or_else(|| A::Error::custom("the message is too long"))? = byte;
                message.len += 1;
            }
            Ok(message)
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
            let (pairs, rest) = text.as_bytes().as_chunks::<2>();
            if !rest.is_empty() || pairs.len() > N {
                return Err(E::invalid_length(text.len(), &self));
            }
            let digit = |digit: u8| match digit {
                b'0'..=b'9' => Some(digit - b'0'),
                b'a'..=b'f' => Some(digit - b'a' + 10),
                _ => None,
            };
            let mut message = Message {
                bytes: [0; N],
                len: pairs.len(),
            };
            for (byte, [high, low]) in message.bytes.iter_mut().zip(pairs) {
                *byte = match (digit(*high), digit(*low)) {
                    (Some(high), Some(low)) => high << 4 | low,
                    _ => return Err(E::custom("not lower-case hexadecimal digits")),
                };
            }
            Ok(message)
        }
    }

    impl<'de, const N: usize> Deserialize<'de> for Message<N> {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            if deserializer.is_human_readable() {
                deserializer.deserialize_str(Bytes)
            } else {
                deserializer.deserialize_bytes(Bytes)
            }
        }
    }
}
