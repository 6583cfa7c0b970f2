//! Remote: the key holder runs the machines, the terminal moves bytes.
//!
//! | message | body |
//! |---|---|
//! | command, to the terminal | number 2, 1 if it is the end (then nothing follows), frame |
//! | reply, to the key holder | number 2, 1 if the card did not answer (then nothing follows), frame |
//!
//! The dialogue starts with a [`Challenge`] in remote mode, which has no cryptogram, and all messages
//! are tied to it and numbered from zero. For key changes, and for whatever a script cannot know.
//!
//! A number is used once, whatever becomes of the exchange. If it could be used again after a failed
//! call, an answer that comes late, or was kept back, would be taken for the answer to the frame that has
//! the number now. So the first failure ends the dialogue on the key holder's side, and the terminal takes
//! no command twice.

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
pub type RelayReply = Message<MAX_ANSWER>;

const MAX_ANSWER: usize = OVERHEAD + 3 + MAX_REPLY;

/// The terminal's side of a remote dialogue. It holds no card key, and no session key. No heap.
pub struct Relay {
    challenge: Challenge,
    binding: Binding,
    /// The number of the command that is next; none at the end.
    next: Option<u16>,
    /// The number of the command that waits for the card's answer.
    open: Option<u16>,
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
            next: Some(0),
            open: None,
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

    /// The frame for the card; nothing at the end of the dialogue. The frame goes to the card once, and
    /// then its answer to [`Relay::reply`]. A message that is refused changes nothing.
    ///
    /// # Errors
    /// [`TerminalError::Message`]; [`TerminalError::OutOfTurn`] after the end, or before the answer to the
    /// frame before; [`TerminalError::BufferTooSmall`] for a frame of more than 72 bytes.
    pub fn command(&mut self, message: &[u8]) -> Result<Option<&[u8]>, TerminalError> {
        let (None, Some(number)) = (self.open, self.next) else {
            return Err(TerminalError::OutOfTurn);
        };
        let mut body = self
            .binding
            .open(From::Holder, Kind::RelayCommand, message)?;
        let (end, frame) = parse(&mut body, number)?;
        if end {
            self.next = None;
            return Ok(None);
        }
        let room = self.frame.get_mut(..frame.len());
        let room = room.ok_or(TerminalError::BufferTooSmall)?;
        room.copy_from_slice(frame);
        self.next = number.checked_add(1);
        self.open = Some(number);
        Ok(Some(room))
    }

    /// The message with the card's answer; without one if it did not answer.
    ///
    /// # Errors
    /// [`TerminalError::OutOfTurn`] if no frame waits for an answer; [`TerminalError::BufferTooSmall`]
    /// for an answer of more than 258 bytes.
    pub fn reply(&mut self, answer: Option<&[u8]>) -> Result<RelayReply, TerminalError> {
        let number = self.open.take().ok_or(TerminalError::OutOfTurn)?;
        let (from, kind) = (From::Terminal, Kind::RelayReply);
        Ok(seal(&self.binding, from, kind, number, answer)?)
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
    /// An exchange has failed before, or was given up: what comes now could be the answer to that.
    #[error("the dialogue has broken off; it takes a new tap")]
    Over,
}

/// Looks at replies before they are let in to a [`RemoteCard`], where anybody can send something: a service
/// on the open network. What is refused here has not reached the dialogue, and does not end it.
///
/// It lets each number in once, in order.
pub struct RelayGate {
    binding: Binding,
    next: u16,
}

impl RelayGate {
    /// For the dialogue of this challenge.
    ///
    /// # Errors
    /// [`Refusal::WrongMode`].
    pub fn new(accepted: &Accepted) -> Result<Self, Refusal> {
        only_remote(accepted)?;
        Ok(Self {
            binding: accepted.binding().clone(),
            next: 0,
        })
    }

    /// Whether this is the terminal's reply to the frame that is out.
    ///
    /// # Errors
    /// As those of the messages; [`MessageError::Sequence`] for one that has been let in before.
    pub fn admit(&mut self, message: &[u8]) -> Result<(), MessageError> {
        let mut body = self
            .binding
            .open(From::Terminal, Kind::RelayReply, message)?;
        parse(&mut body, self.next)?;
        // No dialogue goes on after the last number.
        self.next = self.next.saturating_add(1);
        Ok(())
    }
}

fn only_remote(accepted: &Accepted) -> Result<(), Refusal> {
    match accepted.challenge().intent.mode {
        Mode::Remote => Ok(()),
        asked => Err(Refusal::WrongMode { asked }),
    }
}

/// A card at a terminal, for the key holder: a [`Transport`] if `C` is a [`Carrier`], an
/// [`AsyncTransport`] if it is an [`AsyncCarrier`].
///
/// The first exchange that fails, or whose future is dropped, is the last.
pub struct RemoteCard<C> {
    binding: Binding,
    format: LinkFormat,
    carrier: C,
    /// The number of the next command. None while one is out, and after one that has failed.
    next: Option<u16>,
}

impl<C> RemoteCard<C> {
    /// For a challenge in remote mode.
    ///
    /// # Errors
    /// [`Refusal::WrongMode`].
    pub fn new(accepted: &Accepted, carrier: C) -> Result<Self, Refusal> {
        only_remote(accepted)?;
        Ok(Self {
            binding: accepted.binding().clone(),
            format: accepted.challenge().format,
            carrier,
            next: Some(0),
        })
    }

    /// The message that ends the dialogue. To the terminal it says that the key holder has come to its
    /// end, with every answer heard.
    ///
    /// # Errors
    /// [`Refusal::Expired`] if the dialogue has broken off.
    pub fn goodbye(self) -> Result<RelayCommand, Refusal> {
        let number = self.next.ok_or(Refusal::Expired)?;
        let (from, kind) = (From::Holder, Kind::RelayCommand);
        Ok(seal(&self.binding, from, kind, number, None)?)
    }

    /// Takes the next number, for good, and makes the message.
    fn ask<E>(&mut self, command: &[u8]) -> Result<(u16, RelayCommand), RemoteError<E>> {
        let number = self.next.take().ok_or(RemoteError::Over)?;
        let (from, kind) = (From::Holder, Kind::RelayCommand);
        let message = seal(&self.binding, from, kind, number, Some(command));
        Ok((number, message.map_err(|_| RemoteError::TooLong)?))
    }

    fn hear<E>(
        &mut self,
        number: u16,
        answer: &[u8],
        reply: &mut [u8],
    ) -> Result<usize, RemoteError<E>> {
        let mut body = self
            .binding
            .open(From::Terminal, Kind::RelayReply, answer)
            .map_err(RemoteError::Message)?;
        let (gone, frame) = parse(&mut body, number).map_err(RemoteError::Message)?;
        if gone {
            return Err(RemoteError::CardGone);
        }
        let room = reply.get_mut(..frame.len()).ok_or(RemoteError::TooLong)?;
        room.copy_from_slice(frame);
        self.next = Some(number.checked_add(1).ok_or(RemoteError::TooLong)?);
        Ok(frame.len())
    }
}

impl<C: Carries> Link for RemoteCard<C> {
    type Error = RemoteError<C::Error>;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl<C: Carrier> Transport for RemoteCard<C> {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        let (number, message) = self.ask(command)?;
        let mut answer = [0; MAX_ANSWER];
        let len = self.carrier.call(&message, &mut answer);
        let len = len.map_err(RemoteError::Carrier)?;
        self.hear(number, answer.get(..len).unwrap_or_default(), reply)
    }
}

impl<C: AsyncCarrier> AsyncTransport for RemoteCard<C> {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        let (number, message) = self.ask(command)?;
        let mut answer = [0; MAX_ANSWER];
        let len = self.carrier.call(&message, &mut answer).await;
        let len = len.map_err(RemoteError::Carrier)?;
        self.hear(number, answer.get(..len).unwrap_or_default(), reply)
    }
}
