//! Remote: the key holder runs the machines, the terminal moves bytes.
//!
//! | message | body |
//! |---|---|
//! | command, to the terminal | number 2, 1 if it is the end (then nothing follows), frame |
//! | reply, to the key holder | number 2, 1 if the card did not answer (then nothing follows), frame |
//!
//! The dialogue starts with a [`Challenge`] in remote mode, which has no cryptogram, and all messages
//! are tied to it and numbered from zero. For key changes, and for whatever a script cannot know.

use super::challenge::{Challenge, Intent, Mode};
use super::error::{MessageError, Refusal, TerminalError};
use super::holder::Accepted;
use super::message::{Binding, From, Kind, Message, OVERHEAD};
use super::terminal::ChallengeMessage;
use super::transport_key::TransportKey;
use crate::wire::{Aid, Reader};
use crate::{AsyncTransport, Link, LinkFormat, Transport};

/// The longest frame to the card: a short APDU with 60 bytes, and then some.
const MAX_COMMAND: usize = 72;
/// The longest frame from the card: a short APDU's answer.
const MAX_REPLY: usize = 258;

/// A frame for the card.
pub type RelayCommand = Message<{ OVERHEAD + 3 + MAX_COMMAND }>;
/// A frame from the card.
pub type RelayReply = Message<{ OVERHEAD + 3 + MAX_REPLY }>;

/// The terminal's side of a remote dialogue. It holds no card key, and no session key. No heap.
pub struct Relay {
    challenge: Challenge,
    binding: Binding,
    next: u16,
    frame: [u8; MAX_COMMAND],
}

impl Relay {
    /// For the card on a link of this format; nothing needs to be selected. `intent` says
    /// [`Mode::Remote`] and which key it is going to be about.
    ///
    /// # Errors
    /// [`TerminalError::WrongMode`].
    pub fn new(
        intent: Intent,
        aid: Aid,
        format: LinkFormat,
        key: &TransportKey,
    ) -> Result<Self, TerminalError> {
        if intent.mode != Mode::Remote {
            return Err(TerminalError::WrongMode { asked: intent.mode });
        }
        let challenge = Challenge {
            intent,
            aid,
            format: LinkFormat {
                max_command: format.max_command.min(crate::wire::frame::MAX_COMMAND),
                ..format
            },
            cryptogram: crate::wire::InlineBytes::EMPTY,
        };
        Ok(Self {
            binding: Binding::new(&challenge, key)?,
            challenge,
            next: 0,
            frame: [0; MAX_COMMAND],
        })
    }

    /// The message that opens the dialogue.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn message(&self) -> Result<ChallengeMessage, TerminalError> {
        Ok(self.challenge.seal(self.binding.transport())?)
    }

    /// The frame for the card; nothing at the end of the dialogue.
    ///
    /// # Errors
    /// [`TerminalError::Message`].
    pub fn command(&mut self, message: &[u8]) -> Result<Option<&[u8]>, TerminalError> {
        let mut body = self
            .binding
            .open(From::Holder, Kind::RelayCommand, message)?;
        let (end, frame) = parse(&mut body, self.next)?;
        if end {
            return Ok(None);
        }
        let room = self.frame.get_mut(..frame.len());
        let room = room.ok_or(TerminalError::BufferTooSmall)?;
        room.copy_from_slice(frame);
        Ok(Some(room))
    }

    /// The message with the card's answer; without one if it did not answer.
    ///
    /// # Errors
    /// [`TerminalError::BufferTooSmall`] for an answer of more than 258 bytes.
    pub fn reply(&mut self, answer: Option<&[u8]>) -> Result<RelayReply, TerminalError> {
        let number = self.next;
        self.next = self
            .next
            .checked_add(1)
            .ok_or(TerminalError::BufferTooSmall)?;
        Ok(seal(
            &self.binding,
            From::Terminal,
            Kind::RelayReply,
            number,
            answer,
        )?)
    }

    /// One exchange with the card, blocking: from the key holder's message to the answer for it;
    /// nothing at the end.
    ///
    /// # Errors
    /// As [`Relay::command`].
    pub fn exchange<T: Transport + ?Sized>(
        &mut self,
        message: &[u8],
        transport: &mut T,
    ) -> Result<Option<RelayReply>, TerminalError> {
        let mut reply = [0; MAX_REPLY];
        let Some(frame) = self.command(message)? else {
            return Ok(None);
        };
        let len = transport.exchange(frame, &mut reply).ok();
        self.reply(len.and_then(|len| reply.get(..len))).map(Some)
    }

    /// The same over an async transport.
    ///
    /// # Errors
    /// As [`Relay::command`].
    pub async fn exchange_async<T: AsyncTransport + ?Sized>(
        &mut self,
        message: &[u8],
        transport: &mut T,
    ) -> Result<Option<RelayReply>, TerminalError> {
        let mut reply = [0; MAX_REPLY];
        let Some(frame) = self.command(message)? else {
            return Ok(None);
        };
        let len = transport.exchange(frame, &mut reply).await.ok();
        self.reply(len.and_then(|len| reply.get(..len))).map(Some)
    }
}

fn seal<const N: usize>(
    binding: &Binding,
    from: From,
    kind: Kind,
    number: u16,
    frame: Option<&[u8]>,
) -> Result<Message<N>, crate::wire::WireError> {
    Message::make(|out| {
        binding.seal(from, kind, out, |out| {
            out.u16(number)?;
            out.u8(u8::from(frame.is_none()))?;
            out.put(frame.unwrap_or_default())
        })
    })
}

fn parse<'m>(body: &mut Reader<'m>, expected: u16) -> Result<(bool, &'m [u8]), MessageError> {
    let found = body.u16()?;
    if found != expected {
        return Err(MessageError::Sequence { expected, found });
    }
    let over = match body.u8()? {
        0 => false,
        1 => true,
        other => {
            return Err(MessageError::Malformed(crate::wire::WireError::Value {
                field: "flag",
                value: u32::from(other),
            }));
        }
    };
    let frame = body.rest();
    if over && !frame.is_empty() {
        let count = frame.len();
        return Err(MessageError::Malformed(crate::wire::WireError::Trailing {
            count,
        }));
    }
    Ok((over, frame))
}

/// How a carrier of messages fails, blocking or async.
pub trait Carries {
    /// The error.
    type Error;
}

/// What carries messages between key holder and terminal, for blocking callers.
pub trait Carrier: Carries {
    /// Brings a message to the terminal and its answer back; returns the answer's length.
    ///
    /// # Errors
    /// The terminal is not there, or its answer does not fit.
    fn call(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize, Self::Error>;
}

/// The same for async callers.
pub trait AsyncCarrier: Carries {
    /// As [`Carrier::call`].
    ///
    /// # Errors
    /// The terminal is not there, or its answer does not fit.
    fn call(
        &mut self,
        message: &[u8],
        answer: &mut [u8],
    ) -> impl Future<Output = Result<usize, Self::Error>>;
}

/// Why a card at the other end of the network does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum RemoteError<E> {
    /// The network or the terminal.
    #[error("the terminal cannot be reached: {0}")]
    Carrier(E),
    /// The terminal's message is not taken.
    #[error(transparent)]
    Message(MessageError),
    /// The card has left the terminal.
    #[error("the card did not answer at the terminal")]
    CardGone,
    /// Too many exchanges, or an answer that is too long.
    #[error("the dialogue is too long")]
    TooLong,
}

/// A card at a terminal, for the key holder: a [`Transport`] if `C` is a [`Carrier`], an
/// [`AsyncTransport`] if it is an [`AsyncCarrier`].
pub struct RemoteCard<C> {
    binding: Binding,
    format: LinkFormat,
    carrier: C,
    next: u16,
}

impl<C> RemoteCard<C> {
    /// For a challenge in remote mode.
    ///
    /// # Errors
    /// [`Refusal::WrongMode`].
    pub fn new(accepted: &Accepted, carrier: C) -> Result<Self, Refusal> {
        let challenge = accepted.challenge();
        if challenge.intent.mode != Mode::Remote {
            return Err(Refusal::WrongMode {
                asked: challenge.intent.mode,
            });
        }
        Ok(Self {
            binding: accepted.binding().clone(),
            format: challenge.format,
            carrier,
            next: 0,
        })
    }

    /// The message that ends the dialogue.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn goodbye(&self) -> Result<RelayCommand, Refusal> {
        Ok(seal(
            &self.binding,
            From::Holder,
            Kind::RelayCommand,
            self.next,
            None,
        )?)
    }

    fn ask<E>(&self, command: &[u8]) -> Result<RelayCommand, RemoteError<E>> {
        let (from, kind) = (From::Holder, Kind::RelayCommand);
        seal(&self.binding, from, kind, self.next, Some(command)).map_err(|_| RemoteError::TooLong)
    }

    fn hear<E>(&mut self, answer: &[u8], reply: &mut [u8]) -> Result<usize, RemoteError<E>> {
        let mut body = self
            .binding
            .open(From::Terminal, Kind::RelayReply, answer)
            .map_err(RemoteError::Message)?;
        let (gone, frame) = parse(&mut body, self.next).map_err(RemoteError::Message)?;
        self.next = self.next.checked_add(1).ok_or(RemoteError::TooLong)?;
        if gone {
            return Err(RemoteError::CardGone);
        }
        let room = reply.get_mut(..frame.len()).ok_or(RemoteError::TooLong)?;
        room.copy_from_slice(frame);
        Ok(frame.len())
    }
}

impl<C: Carries> Link for RemoteCard<C> {
    type Error = RemoteError<C::Error>;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

const MAX_ANSWER: usize = OVERHEAD + 3 + MAX_REPLY;

impl<C: Carrier> Transport for RemoteCard<C> {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        let message = self.ask(command)?;
        let mut answer = [0; MAX_ANSWER];
        let len = self.carrier.call(&message, &mut answer);
        let len = len.map_err(RemoteError::Carrier)?;
        self.hear(answer.get(..len).unwrap_or_default(), reply)
    }
}

impl<C: AsyncCarrier> AsyncTransport for RemoteCard<C> {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        let message = self.ask(command)?;
        let mut answer = [0; MAX_ANSWER];
        let len = self.carrier.call(&message, &mut answer).await;
        let len = len.map_err(RemoteError::Carrier)?;
        self.hear(answer.get(..len).unwrap_or_default(), reply)
    }
}
