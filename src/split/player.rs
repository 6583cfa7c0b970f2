//! The terminal's machine for a script. It has no card key and no session key; it compares.
//!
//! Every reply but those whose data nobody can know is checked against its tag before the next
//! command goes out, so that an honest terminal never sends a commit to a card that has not done
//! what comes before it. What the card says is kept as it came: only the key holder can tell
//! whether it is authentic.

use super::error::TerminalError;
use super::kdf;
use super::message::{Binding, From, Kind, TAG, take_short};
use super::script::{Entry, Flags, Out, Tally};
use crate::error::{Error, Misuse, Outcome};
use crate::pcd::doors::{Opened, Proving};
use crate::wire::frame::FrameBuffer;
use crate::wire::{CommandCode, InlineBytes, Instruction, Reader, ReplyFrame, Status};
use crate::{LinkFormat, Machine, RunError, Step, Transport};

/// Whether the card has been changed for good.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// No command that changes anything has left, now or with a commit.
    None,
    /// One has left, and what came back does not prove that all is done. A change that waits for a
    /// commit counts: CommitTransaction carries no MAC, so that whoever is on the link can keep a reply
    /// back and send a commit of their own.
    Possible,
    /// All is done: the tags say so.
    Done,
}

/// Where a script stands or has stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ending {
    /// Why it stopped.
    pub stop: Stop,
    /// What became of the card.
    pub effect: Effect,
    /// Commands whose replies are complete and right, the handshake not counted.
    pub commands: usize,
    /// Frames that have been sent; the first is the token.
    pub frames: usize,
}

/// Why a script stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stop {
    /// It came to its end, and all tags were right.
    Complete,
    /// The card refused. Error statuses prove nothing to the key holder.
    Refused(Status),
    /// The card's reply is not the expected one: another card, a card that does not know the key,
    /// somebody on the link, or data other than stated.
    NotAsExpected,
    /// It has not been started, or no answer came to the last frame.
    Unanswered,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Token,
    Playing,
    Over,
}

/// Plays a script; see [`super::Waiting::script`].
pub struct Player<'s> {
    proving: Proving,
    binding: Binding,
    format: LinkFormat,
    /// The commands after the current one.
    rest: Reader<'s>,
    current: Option<Entry<'s>>,
    /// How much of the current command's parameters has gone out.
    sent: usize,
    /// Whether any command changes the card for good from the current one on.
    tally: Option<Tally>,
    frame: FrameBuffer,
    receipt: Out<'s>,
    /// Where the current reply begins in the receipt.
    reply_at: usize,
    state: State,
    ending: Ending,
}

impl<'s> Player<'s> {
    pub(super) fn new(
        opened: Opened,
        binding: Binding,
        message: &'s [u8],
        receipt: &'s mut [u8],
    ) -> Result<Self, TerminalError> {
        let mut rest = binding.open(From::Holder, Kind::Script, message)?;
        let token: InlineBytes<32> = take_short(&mut rest, "token")?;
        let count = rest.u8()?;
        let mut entries = rest.clone();
        let format = opened.format();
        // Header, proof, and for each command status, length and reply.
        let mut room = 2 + 8 + 1 + 16 + TAG;
        for _ in 0..count {
            let entry = Entry::decode(&mut entries)?;
            room = room.saturating_add(3).saturating_add(entry.reply_len);
        }
        entries.finish()?;
        if receipt.len() < room {
            return Err(TerminalError::BufferTooSmall);
        }
        let mut receipt = Out::new(receipt);
        let mut start = [0; 10];
        let mut writer = crate::wire::Writer::new(&mut start);
        binding.begin(&mut writer, Kind::Receipt)?;
        receipt.put(&start)?;
        Ok(Self {
            proving: opened.token(token),
            binding,
            format,
            rest,
            current: None,
            sent: 0,
            tally: None,
            frame: FrameBuffer::new(),
            receipt,
            reply_at: 0,
            state: State::Fresh,
            ending: Ending {
                stop: Stop::Unanswered,
                effect: Effect::None,
                commands: 0,
                frames: 0,
            },
        })
    }

    /// Where it stands. After an error of the transport: where it was torn.
    #[must_use]
    pub const fn ending(&self) -> Ending {
        self.ending
    }

    /// Plays it over a blocking transport. That the card refuses or says something else is no
    /// error of the machine: look at the [`Ending`].
    ///
    /// # Errors
    /// The transport fails: [`Player::ending`] says where. Or it has been played already.
    pub fn play<T: Transport + ?Sized>(
        &mut self,
        transport: &mut T,
    ) -> Result<Ending, RunError<T::Error>> {
        Playing(self).run(transport)
    }

    /// The same over an async transport.
    ///
    /// # Errors
    /// As [`Player::play`].
    pub async fn play_async<T: crate::AsyncTransport + ?Sized>(
        &mut self,
        transport: &mut T,
    ) -> Result<Ending, RunError<T::Error>> {
        Playing(self).run_async(transport).await
    }

    /// The machine, to be stepped by hand.
    pub fn machine(&mut self) -> impl Machine<Output = Ending> + use<'_, 's> {
        Playing(self)
    }

    /// The receipt for the key holder: also, and above all, after a script that was torn.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn into_receipt(mut self) -> Result<&'s [u8], TerminalError> {
        if self.receipt.len == 10 {
            // Torn before the card's last answer.
            self.receipt.put(&[0])?;
        }
        let Out { buffer, len } = self.receipt;
        let len = self.binding.close(From::Terminal, buffer, len)?;
        Ok(buffer.get(..len).unwrap_or_default())
    }

    fn instruction(&self) -> Instruction {
        self.current
            .as_ref()
            .map_or_else(|| self.proving.command(), |entry| entry.code.into())
    }

    fn misuse(&self, misuse: Misuse) -> Error {
        let command = self.instruction();
        if self.ending.effect == Effect::None {
            Error::not_sent(command, misuse).session_gone(true)
        } else {
            Error::unknown(command, misuse)
        }
    }

    fn stop(&mut self, stop: Stop) -> Next {
        self.state = State::Over;
        self.ending.stop = stop;
        Next::Over
    }

    /// Takes in a reply; whether there is more to send.
    fn hear(&mut self, reply: &[u8]) -> Next {
        if self.state == State::Token {
            return match self.proving.step(reply) {
                Ok(Step::Done(proved)) => self.proved(&proved.proof()),
                Err(error) => match error.status() {
                    Some(status) => self.stop(Stop::Refused(status)),
                    None => self.stop(Stop::NotAsExpected),
                },
                Ok(Step::Transmit(_)) => self.stop(Stop::NotAsExpected),
            };
        }
        let Some(entry) = self.current else {
            return self.stop(Stop::NotAsExpected);
        };
        let Ok(reply) = ReplyFrame::parse(self.format.framing, reply) else {
            return self.stop(Stop::NotAsExpected);
        };
        let sending = self.sent < entry.payload.len();
        match (reply.status, sending) {
            (Status::AdditionalFrame, true) if reply.payload.is_empty() => self.send(),
            // A frame without data could come for ever.
            (Status::AdditionalFrame, false) if !reply.payload.is_empty() => {
                if self.keep(&entry, reply.payload) {
                    self.send()
                } else {
                    self.stop(Stop::NotAsExpected)
                }
            }
            (Status::Ok, false) => {
                if self.keep(&entry, reply.payload) {
                    self.replied(&entry)
                } else {
                    self.stop(Stop::NotAsExpected)
                }
            }
            (Status::Ok | Status::AdditionalFrame, _) => self.stop(Stop::NotAsExpected),
            (status, _) => self.stop(Stop::Refused(status)),
        }
    }

    /// The card's last answer of the handshake. Whether it is right shows with the first tag.
    fn proved(&mut self, proof: &[u8]) -> Next {
        let len = u8::try_from(proof.len()).unwrap_or(0);
        if self.receipt.put(&[len]).is_err() || self.receipt.put(proof).is_err() {
            return self.stop(Stop::NotAsExpected);
        }
        self.tally = Some(Tally::new(&self.binding, proof));
        self.state = State::Playing;
        self.next()
    }

    /// Keeps a part of a reply, if it is not too long.
    fn keep(&mut self, entry: &Entry<'_>, payload: &[u8]) -> bool {
        let so_far = self.receipt.len.saturating_sub(self.reply_at);
        so_far.saturating_add(payload.len()) <= entry.reply_len && self.receipt.put(payload).is_ok()
    }

    /// A reply is complete.
    fn replied(&mut self, entry: &Entry<'_>) -> Next {
        let len = self.receipt.len.saturating_sub(self.reply_at);
        let [low, high] = u16::try_from(len).unwrap_or(u16::MAX).to_le_bytes();
        let at = self.reply_at.saturating_sub(3);
        self.receipt.patch(at, &[Status::Ok.to_byte(), low, high]);
        let reply = self.receipt.buffer.get(self.reply_at..self.receipt.len);
        let reply = reply.unwrap_or_default();
        if entry.flags.tagged() {
            let tag = self.tally.as_mut().map(|tally| tally.take(reply));
            if len != entry.reply_len || !tag.is_some_and(|tag| kdf::same(&tag, &entry.tag)) {
                return self.stop(Stop::NotAsExpected);
            }
        }
        self.ending.commands += 1;
        if self.ending.effect == Effect::Possible
            && entry.flags.tagged()
            && entry.flags.takes_effect()
            && !self.effects_follow()
        {
            self.ending.effect = Effect::Done;
        }
        self.next()
    }

    fn effects_follow(&self) -> bool {
        let mut rest = self.rest.clone();
        while rest.remaining() > 0 {
            match Entry::decode(&mut rest) {
                Ok(entry) if !entry.flags.takes_effect() => {}
                _ => return true,
            }
        }
        false
    }

    /// Goes on to the next command.
    fn next(&mut self) -> Next {
        if self.rest.remaining() == 0 {
            return self.stop(Stop::Complete);
        }
        let Ok(entry) = Entry::decode(&mut self.rest) else {
            return self.stop(Stop::NotAsExpected);
        };
        // Room for status and length; what is not complete does not count.
        if self
            .receipt
            .put(&[Status::AdditionalFrame.to_byte(), 0, 0])
            .is_err()
        {
            return self.stop(Stop::NotAsExpected);
        }
        self.reply_at = self.receipt.len;
        self.current = Some(entry);
        self.sent = 0;
        if entry.flags.takes_effect() || entry.flags.contains(Flags::PENDING) {
            self.ending.effect = Effect::Possible;
        }
        self.put_frame(entry.code, &entry)
    }

    /// The next frame of the current command, or the demand for the reply's next.
    fn send(&mut self) -> Next {
        match self.current {
            Some(entry) => self.put_frame(CommandCode::AdditionalFrame, &entry),
            None => self.stop(Stop::NotAsExpected),
        }
    }

    fn put_frame(&mut self, code: CommandCode, entry: &Entry<'_>) -> Next {
        let capacity = self.format.payload_capacity();
        let left = entry.payload.get(self.sent..).unwrap_or_default();
        let part = left.get(..left.len().min(capacity)).unwrap_or_default();
        for (to, from) in self.frame.payload_mut().iter_mut().zip(part) {
            *to = *from;
        }
        self.sent = self.sent.saturating_add(part.len());
        Next::Send(code, part.len())
    }
}

/// What comes after a reply.
enum Next {
    Send(CommandCode, usize),
    Over,
}

/// The player while it plays: it stays with the caller, whatever becomes of the transport.
struct Playing<'p, 's>(&'p mut Player<'s>);

impl Machine for Playing<'_, '_> {
    type Output = Ending;

    fn command(&self) -> Instruction {
        self.0.instruction()
    }

    fn outcome_if_unanswered(&self) -> Outcome {
        match self.0.ending.effect {
            Effect::None => Outcome::NotSent,
            Effect::Possible | Effect::Done => Outcome::Unknown,
        }
    }

    fn start(&mut self, format: LinkFormat) -> Result<&[u8], Error> {
        let player = &mut *self.0;
        if player.state != State::Fresh {
            return Err(player.misuse(Misuse::OutOfTurn));
        }
        // The script is cut for the link that the challenge named.
        if format.framing != player.format.framing
            || format.payload_capacity() != player.format.payload_capacity()
        {
            return Err(player.misuse(Misuse::Invalid(
                "the script was made for a link of another format",
            )));
        }
        player.state = State::Token;
        player.ending.frames = 1;
        player.proving.start(format)
    }

    fn step(&mut self, reply: &[u8]) -> Result<Step<'_, Ending>, Error> {
        let player = &mut *self.0;
        if !matches!(player.state, State::Token | State::Playing) {
            return Err(player.misuse(Misuse::OutOfTurn));
        }
        match player.hear(reply) {
            Next::Over => Ok(Step::Done(player.ending)),
            Next::Send(code, len) => {
                player.ending.frames += 1;
                let misuse = |error| Error::unknown(code, Misuse::Parameter(error));
                let frame = player.frame.finish(player.format.framing, code, len);
                Ok(Step::Transmit(frame.map_err(misuse)?))
            }
        }
    }
}
