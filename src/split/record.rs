//! What the key holder keeps of a script, and its verdict on the receipt.
//!
//! # The verdict
//!
//! A receipt comes from a terminal, which may be anybody's. It is believed as far as the card's own
//! MACs go, and no further:
//!
//! - **Done**: all replies up to the last command that changes the card are there, byte for byte as
//!   foreseen. Only the card could make them, and the chain of secure messaging runs through every
//!   command and reply before.
//! - **Not done**: the receipt has an authentic reply with other data than stated, before any command
//!   that changes the card; and every command that does travels with a MAC or enciphered. From the
//!   deviation on the card's chain is another one, so that it refuses each of them (an enciphered
//!   one but for a chance of 2⁻³²). Commands in clear and CommitTransaction carry no MAC: a card
//!   takes them whatever the chain, so that changes *before* the deviation can still be committed.
//! - **Unknown**: everything else. Error statuses carry no MAC, and that a reply is missing says
//!   only that the terminal does not have it. A later tap settles it: put the value or record that
//!   tells into the next script as a known reply, or read it in a live session.
//!
//! # The stored form
//!
//! | size | field |
//! |---|---|
//! | 2 | format, kind |
//! | 1, n | the challenge's message |
//! | 1, n | the card's last answer of the handshake |
//! | 24 | session key, filled up with zeros; a DES key stands twice |
//! | 1 | number of commands |
//! | 16 | the chain before the first unknown reply |
//! | | commands: flags 1, code 1, parameters 2, n (of unknown replies only), reply 2, n, length of the known data 2, and with data the chain before the reply 16 |
//!
//! It holds a session key: it leaves this type only enciphered, [`Record::seal`].

use zeroize::{Zeroize as _, Zeroizing};

use super::answer::session_key;
use super::builder::MAX_KNOWN;
use super::challenge::Challenge;
use super::error::{MessageError, Refusal};
use super::holder::messaging;
use super::kdf;
use super::message::{Binding, FORMAT, From, Kind, take_short};
use super::script::{Flags, Out};
use super::storage::StorageKey;
use super::transport_key::TransportKey;
use crate::wire::{
    CommandCode, CommandFrame, Framing, InlineBytes, KeyType, Reader, ReplyFrame, Status,
};
use crate::{AsyncTransport, Authenticated, Link, LinkFormat, Session, Transport};

/// What became of a script.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The card has done all that changes it.
    Done,
    /// The card has done none of it and cannot any more.
    NotDone,
    /// The receipt does not tell.
    Unknown,
}

/// A verdict and what it stands on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// What became of the script.
    pub verdict: Verdict,
    /// Commands whose replies are there and as foreseen, counted from the first.
    pub proved: usize,
    /// The first command whose reply is authentic but has other data than stated.
    pub deviation: Option<usize>,
    /// Commands with known replies.
    pub known: usize,
    /// Commands whose replies the key holder has to open: [`Record::replay`].
    pub unknown: usize,
}

/// What the key holder keeps of a script. Its whole buffer is wiped when it is dropped, also half-made.
pub struct Record<'b> {
    pub(super) out: Out<'b>,
}

/// The fixed part.
struct Head {
    challenge: Challenge,
    binding: Binding,
    expected: Zeroizing<[u8; 16]>,
    expected_len: usize,
    session_key: Zeroizing<[u8; 24]>,
    tail_chain: [u8; 16],
}

/// One command as it was foreseen.
#[derive(Clone, Copy)]
struct Foreseen<'r> {
    flags: Flags,
    code: CommandCode,
    payload: &'r [u8],
    reply: &'r [u8],
    data_len: usize,
    before_reply: [u8; 16],
}

impl<'r> Foreseen<'r> {
    fn decode(reader: &mut Reader<'r>) -> Result<Self, MessageError> {
        let flags = Flags::decode(reader.u8()?)?;
        let code = CommandCode::from_byte(reader.u8()?);
        let payload_len = reader.u16()?;
        let payload = reader.take(usize::from(payload_len))?;
        let reply_len = reader.u16()?;
        let reply = reader.take(usize::from(reply_len))?;
        let data_len = usize::from(reader.u16()?);
        let before_reply = if data_len > 0 {
            reader.array()?
        } else {
            [0; 16]
        };
        Ok(Self {
            flags,
            code,
            payload,
            reply,
            data_len,
            before_reply,
        })
    }
}

/// One reply of a receipt.
struct Replied<'m> {
    status: u8,
    payload: &'m [u8],
}

impl<'m> Replied<'m> {
    fn decode(reader: &mut Reader<'m>) -> Result<Self, MessageError> {
        let status = reader.u8()?;
        let len = reader.u16()?;
        let payload = reader.take(usize::from(len))?;
        Ok(Self { status, payload })
    }

    const fn complete(&self) -> bool {
        self.status == Status::Ok.to_byte()
    }
}

impl<'b> Record<'b> {
    /// To be made in this buffer.
    pub(super) const fn new(buffer: &'b mut [u8]) -> Self {
        Self {
            out: Out::new(buffer),
        }
    }

    fn plain(&self) -> &[u8] {
        self.out.buffer.get(..self.out.len).unwrap_or_default()
    }

    /// How long [`Record::seal`] makes it.
    #[must_use]
    pub const fn sealed_len(&self) -> usize {
        StorageKey::sealed_len(self.out.len)
    }

    /// Enciphers it for storing; returns the length.
    ///
    /// # Errors
    /// [`Refusal::BufferTooSmall`].
    pub fn seal(&self, key: &StorageKey, out: &mut [u8]) -> Result<usize, Refusal> {
        key.seal(self.plain(), out)
    }

    /// What [`Record::seal`] made; `buffer` must be as long.
    ///
    /// # Errors
    /// [`Refusal::Stored`], [`Refusal::BufferTooSmall`].
    pub fn unseal(sealed: &[u8], key: &StorageKey, buffer: &'b mut [u8]) -> Result<Self, Refusal> {
        let mut record = Self::new(buffer);
        record.out.len = key.unseal(sealed, record.out.buffer)?;
        if record.plain().get(..2) != Some(&[FORMAT, Kind::Record as u8]) {
            return Err(Refusal::Stored);
        }
        Ok(record)
    }

    /// The challenge that the script was made for; it names the transport key.
    ///
    /// # Errors
    /// [`Refusal::Stored`].
    pub fn challenge(&self) -> Result<Challenge, Refusal> {
        let mut reader = Reader::new(self.plain().get(2..).unwrap_or_default());
        let message: InlineBytes<{ Challenge::MAX_LEN }> =
            take_short(&mut reader, "challenge").map_err(|_| Refusal::Stored)?;
        Challenge::claimed(&message).map_err(|_| Refusal::Stored)
    }

    fn read(&self, transport: &TransportKey) -> Result<(Head, u8, Reader<'_>), Refusal> {
        let challenge = self.challenge()?;
        let stored = |_| Refusal::Stored;
        let mut reader = Reader::new(self.plain().get(2..).unwrap_or_default());
        let message: InlineBytes<{ Challenge::MAX_LEN }> =
            take_short(&mut reader, "challenge").map_err(stored)?;
        // Another transport key than the challenge's.
        Challenge::open(&message, transport)?;
        let answer: InlineBytes<16> = take_short(&mut reader, "answer").map_err(stored)?;
        let mut expected = Zeroizing::new([0; 16]);
        for (to, from) in expected.iter_mut().zip(answer.iter()) {
            *to = *from;
        }
        let head = Head {
            binding: Binding::new(&challenge, transport)?,
            challenge,
            expected,
            expected_len: answer.len(),
            session_key: Zeroizing::new(reader.array().map_err(stored)?),
            tail_chain: [0; 16],
        };
        let count = reader.u8().map_err(stored)?;
        let tail_chain = reader.array().map_err(stored)?;
        Ok((Head { tail_chain, ..head }, count, reader))
    }

    /// Judges a receipt, however much of one it is.
    ///
    /// # Errors
    /// [`Refusal::Message`] if the receipt is malformed, altered, or another challenge's;
    /// [`Refusal::Stored`].
    pub fn judge(&self, receipt: &[u8], transport: &TransportKey) -> Result<Judgement, Refusal> {
        let (head, count, mut record) = self.read(transport)?;
        let mut replies = head.open_receipt(receipt)?;
        let handshake = head.proof_is_right(&mut replies)?;
        let mut judging = Judging::new(handshake);
        for index in 0..usize::from(count) {
            let foreseen = Foreseen::decode(&mut record).map_err(|_| Refusal::Stored)?;
            let replied = if replies.remaining() == 0 {
                None
            } else {
                Some(Replied::decode(&mut replies)?)
            };
            judging.take(&head, index, &foreseen, replied.filter(Replied::complete));
        }
        replies.finish()?;
        Ok(judging.finish())
    }

    /// The session and a transport that has the receipt's replies in it, for opening what nobody
    /// knew in advance: run the same commands that were given to
    /// [`super::ScriptBuilder::ask`], in the same order.
    ///
    /// # Errors
    /// [`Refusal::NoReplies`] if a reply before them is not as foreseen; as [`Record::judge`].
    pub fn replay<'m>(
        &'m self,
        receipt: &'m [u8],
        transport: &TransportKey,
    ) -> Result<(Session<Authenticated>, Replay<'m>), Refusal> {
        let judgement = self.judge(receipt, transport)?;
        if judgement.proved < judgement.known || judgement.unknown == 0 {
            return Err(Refusal::NoReplies);
        }
        let (head, _, mut commands) = self.read(transport)?;
        let mut replies = head.open_receipt(receipt)?;
        head.proof_is_right(&mut replies)?;
        for _ in 0..judgement.known {
            Foreseen::decode(&mut commands).map_err(|_| Refusal::Stored)?;
            Replied::decode(&mut replies)?;
        }
        let session = head.session(&head.tail_chain);
        let replay = Replay {
            commands,
            replies,
            rest: &[],
        };
        Ok((session, replay))
    }
}

impl Drop for Record<'_> {
    fn drop(&mut self) {
        self.out.buffer.zeroize();
    }
}

impl core::fmt::Debug for Record<'_> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Record({} bytes)", self.out.len)
    }
}

impl Head {
    fn open_receipt<'m>(&self, receipt: &'m [u8]) -> Result<Reader<'m>, Refusal> {
        Ok(self.binding.open(From::Terminal, Kind::Receipt, receipt)?)
    }

    fn proof_is_right(&self, replies: &mut Reader<'_>) -> Result<bool, Refusal> {
        let proof: InlineBytes<16> = take_short(replies, "proof")?;
        let expected = self.expected.get(..self.expected_len).unwrap_or_default();
        Ok(kdf::same(expected, &proof))
    }

    fn key_type(&self) -> KeyType {
        self.challenge.intent.key_type
    }

    fn session(&self, chain: &[u8]) -> Session<Authenticated> {
        let key = session_key(
            messaging(&self.challenge),
            self.key_type(),
            &self.session_key,
        );
        let intent = &self.challenge.intent;
        Session::elsewhere(
            &key,
            chain,
            intent.key_no,
            intent.key_type,
            self.challenge.aid,
        )
    }

    /// Whether a reply that is not the foreseen one is the card's all the same.
    fn is_authentic(&self, foreseen: &Foreseen<'_>, payload: &[u8]) -> bool {
        // Without data there is nothing that could be other.
        if foreseen.data_len == 0 {
            return false;
        }
        let enciphered = foreseen.flags.contains(Flags::ENCIPHERED);
        // A CRC32 inside ciphertext is no MAC: who knows the plaintext can splice blocks until it fits.
        // One block, half of it CRC and padding, leaves nothing to splice.
        let one_block = self.key_type() == KeyType::Aes
            && payload.len() == AES_BLOCK
            && foreseen.data_len <= AES_BLOCK / 2;
        if enciphered && !one_block {
            return false;
        }
        let mut buffer = Zeroizing::new([0; MAX_KNOWN]);
        let Some(buffer) = buffer.get_mut(..foreseen.data_len) else {
            return false;
        };
        let mut session = self.session(&foreseen.before_reply);
        session.hear_foreign(enciphered, payload, buffer)
    }
}

const AES_BLOCK: usize = 16;

/// The verdict in the making.
struct Judging {
    /// So far everything is there and as foreseen.
    unbroken: bool,
    proved: usize,
    known: usize,
    unknown: usize,
    deviation: Option<usize>,
    /// A command that changes the card has come, now or by a commit.
    changes: bool,
    /// One has come before the deviation.
    changes_before: bool,
    /// One has come after it that the card would take all the same.
    unchecked_after: bool,
    /// The last command that changes the card is proved.
    last_change_proved: bool,
}

impl Judging {
    const fn new(handshake: bool) -> Self {
        Self {
            unbroken: handshake,
            proved: 0,
            known: 0,
            unknown: 0,
            deviation: None,
            changes: false,
            changes_before: false,
            unchecked_after: false,
            last_change_proved: false,
        }
    }

    fn take(
        &mut self,
        head: &Head,
        index: usize,
        foreseen: &Foreseen<'_>,
        replied: Option<Replied<'_>>,
    ) {
        if foreseen.flags.contains(Flags::UNKNOWN) {
            self.unknown += 1;
            return;
        }
        self.known += 1;
        let payload = replied.map(|replied| replied.payload);
        let same = payload.is_some_and(|payload| kdf::same(foreseen.reply, payload));
        if self.unbroken && same {
            self.proved += 1;
        } else if self.unbroken
            && payload.is_some_and(|payload| head.is_authentic(foreseen, payload))
        {
            self.deviation = Some(index);
        }
        self.unbroken &= same;
        let flags = foreseen.flags;
        if flags.intersects(Flags::FINAL | Flags::PENDING) {
            match self.deviation {
                None => self.changes_before = true,
                Some(_) if !flags.contains(Flags::CHECKED) => self.unchecked_after = true,
                Some(_) => {}
            }
        }
        if flags.intersects(Flags::FINAL | Flags::PENDING | Flags::COMMIT) {
            self.changes = true;
            self.last_change_proved = self.unbroken && flags.contains(Flags::PROVED);
        }
    }

    fn finish(self) -> Judgement {
        let never = self.deviation.is_some() && !self.changes_before && !self.unchecked_after;
        let done = if self.changes {
            self.last_change_proved
        } else {
            // Nothing to be done but to read: done when all of it is read.
            self.unbroken && self.unknown == 0
        };
        Judgement {
            verdict: if done {
                Verdict::Done
            } else if never {
                Verdict::NotDone
            } else {
                Verdict::Unknown
            },
            proved: self.proved,
            deviation: self.deviation,
            known: self.known,
            unknown: self.unknown,
        }
    }
}

/// A transport that answers with a receipt's replies; see [`Record::replay`].
pub struct Replay<'m> {
    commands: Reader<'m>,
    replies: Reader<'m>,
    /// What is left of the current reply.
    rest: &'m [u8],
}

/// The most data of one frame of a replayed reply.
const REPLAYED: usize = 59;

/// Why a [`Replay`] has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ReplayError {
    /// The script has another command here.
    #[error("this is not the command that the script has here")]
    OtherCommand,
    /// The receipt ends before.
    #[error("the receipt has no reply to this command")]
    NoReply,
}

impl Replay<'_> {
    fn answer(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, ReplayError> {
        let frame =
            CommandFrame::parse(Framing::Native, command).map_err(|_| ReplayError::OtherCommand)?;
        if frame.code == CommandCode::AdditionalFrame {
            if self.rest.is_empty() || !frame.payload.is_empty() {
                return Err(ReplayError::OtherCommand);
            }
        } else {
            let foreseen =
                Foreseen::decode(&mut self.commands).map_err(|_| ReplayError::OtherCommand)?;
            if (frame.code, frame.payload) != (foreseen.code, foreseen.payload) {
                return Err(ReplayError::OtherCommand);
            }
            let replied = Replied::decode(&mut self.replies).map_err(|_| ReplayError::NoReply)?;
            if !replied.complete() {
                return Err(ReplayError::NoReply);
            }
            self.rest = replied.payload;
        }
        let (now, later) = self.rest.split_at(self.rest.len().min(REPLAYED));
        self.rest = later;
        let frame = ReplyFrame {
            status: if later.is_empty() {
                Status::Ok
            } else {
                Status::AdditionalFrame
            },
            payload: now,
        };
        frame
            .encode(Framing::Native, reply)
            .map_err(|_| ReplayError::NoReply)
    }
}

impl Link for Replay<'_> {
    type Error = ReplayError;

    fn format(&self) -> LinkFormat {
        LinkFormat::NATIVE
    }
}

impl Transport for Replay<'_> {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, ReplayError> {
        self.answer(command, reply)
    }
}

impl AsyncTransport for Replay<'_> {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, ReplayError> {
        self.answer(command, reply)
    }
}
