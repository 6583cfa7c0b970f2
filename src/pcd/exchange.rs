//! One command as a machine: bytes out, bytes in, no I/O.
//!
//! For: cutting a protected request into frames, collecting the frames of a reply, and the rule
//! that a session is lost while an exchange is out. May know: frames, status bytes, that there
//! is a channel. May not know: what the channel does, what a command means, any transport. This
//! is the only place that knows `AF` outside the handshake.
//!
//! | state | card answers | then |
//! |---|---|---|
//! | sending | `AF` without data | the next frame goes out as `AF ‖ part` |
//! | sent | `AF` with data | they are kept, `AF` goes out |
//! | sent | `00` | the reply is complete and is opened |
//! | any | anything else | refused |

use zeroize::Zeroize as _;

use crate::error::{Error, ErrorKind, Malformed, Misuse};
use crate::pcd::channel::{Channel, Incoming, ReplyProtection, Request, Sealed, TAIL};
use crate::pcd::command::{Command, FileCommand, GetFileSettings};
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::frame::{FrameBuffer, MAX_COMMAND};
use crate::wire::{
    CommMode, CommandCode, FileNo, FileSettings, Framing, Instruction, ReplyFrame, Status, Writer,
};

/// How a link wants its bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LinkFormat {
    /// Native or wrapped.
    pub framing: Framing,
    /// The most bytes that one command may have; above 60 counts as 60.
    pub max_command: usize,
}

impl LinkFormat {
    /// Native frames of up to 60 bytes.
    pub const NATIVE: Self = Self {
        framing: Framing::Native,
        max_command: MAX_COMMAND,
    };
    /// Wrapped commands of up to 60 bytes.
    pub const WRAPPED: Self = Self {
        framing: Framing::Wrapped,
        max_command: MAX_COMMAND,
    };

    pub(in crate::pcd) fn payload_capacity(self) -> usize {
        self.framing.payload_capacity(self.max_command)
    }
}

/// What a [`Machine`] wants after a step.
#[derive(Debug)]
pub enum Step<'m, T> {
    /// Send these bytes and bring the card's answer to the next step.
    Transmit(&'m [u8]),
    /// It is over.
    Done(T),
}

/// A command or a handshake, without I/O.
///
/// [`Machine::start`] gives the first bytes for the card. Bring what the card answers to
/// [`Machine::step`], and send what it returns, until it is [`Step::Done`]. After an error the
/// machine is over. Dropping it in the middle loses the session.
///
/// [`Machine::run`] and [`Machine::run_async`] do that over a transport.
///
/// ```
/// use desfire_ev1::{LinkFormat, Machine, Session, Step, VirtualReader};
///
/// let mut card = VirtualReader::default();
/// let mut session = Session::new();
/// let mut machine = session.free_mem();
/// let mut command = machine.start(LinkFormat::NATIVE)?.to_vec();
/// assert_eq!(command, [0x6E]);
/// let free = loop {
///     let reply = card.handle(&command); // over whatever link there is
///     match machine.step(&reply)? {
///         Step::Transmit(next) => command = next.to_vec(),
///         Step::Done(free) => break free,
///     }
/// };
/// assert_eq!(free, 7936);
/// # Ok::<(), desfire_ev1::Error>(())
/// ```
pub trait Machine {
    /// What it is for.
    type Output;

    /// The command that is being run, for error texts.
    fn command(&self) -> Instruction;

    /// The first bytes for the card.
    ///
    /// # Errors
    /// Always with [`crate::Outcome::NotSent`]: the caller's parameters are wrong, or the
    /// session is lost.
    fn start(&mut self, format: LinkFormat) -> Result<&[u8], Error>;

    /// Takes in what the card has answered.
    ///
    /// # Errors
    /// The card refused, or its answer is malformed or not authentic. The machine is over.
    fn step(&mut self, reply: &[u8]) -> Result<Step<'_, Self::Output>, Error>;

    /// Runs it to its end over a blocking transport.
    ///
    /// # Errors
    /// What the machine finds wrong, or the transport.
    fn run<T>(self, transport: &mut T) -> Result<Self::Output, crate::RunError<T::Error>>
    where
        Self: Sized,
        T: crate::Transport + ?Sized,
    {
        super::driver::run(self, transport)
    }

    /// Runs it to its end over an async transport. If the future is dropped before its end, the
    /// session is lost.
    ///
    /// # Errors
    /// What the machine finds wrong, or the transport.
    fn run_async<T>(
        self,
        transport: &mut T,
    ) -> impl Future<Output = Result<Self::Output, crate::RunError<T::Error>>>
    where
        Self: Sized,
        T: crate::AsyncTransport + ?Sized,
    {
        super::driver::run_async(self, transport)
    }
}

/// Where an exchange keeps the session: `&mut Session<S>`, or `Session<S>` itself if the command
/// ends the session.
pub trait Holder: HasInner {}

impl<S> Holder for &mut Session<S> {}
impl<S> Holder for Session<S> {}

/// The part of [`Holder`] that is nobody else's business.
pub trait HasInner {
    fn inner(&mut self) -> &mut Inner;
}

impl<S> HasInner for &mut Session<S> {
    fn inner(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl<S> HasInner for Session<S> {
    fn inner(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    /// GetFileSettings is out, because the protection depends on its answer.
    Asking,
    /// The command itself is out.
    Running,
    Over,
}

/// A command on its way: what the methods of [`Session`] return.
///
/// Nothing happens before it is run or started.
#[must_use = "a command does nothing until it is run"]
pub struct Exchange<H: Holder, C: Command> {
    holder: H,
    /// The command, or why there is none: said when it is started.
    command: Result<C, Misuse>,
    code: CommandCode,
    state: State,
    round: Round,
}

impl<H: Holder, C: Command> Exchange<H, C> {
    pub(in crate::pcd) fn new(holder: H, command: Result<C, Misuse>) -> Self {
        Self {
            holder,
            code: command.as_ref().map_or(C::CODE, Command::code),
            command,
            state: State::Fresh,
            round: Round::new(),
        }
    }

    /// Checks and sends the command itself.
    fn start_command(&mut self) -> Result<&[u8], Error> {
        let code = self.code;
        let not_sent = |misuse: Misuse| Error::not_sent(code, misuse);
        let command = self.command.as_ref().map_err(|misuse| not_sent(*misuse))?;
        let inner = self.holder.inner();
        let protection = command.protection(inner).map_err(not_sent)?;
        let sent = self
            .round
            .begin(&mut inner.channel, command, protection)
            .map_err(not_sent)?;
        inner.busy = true;
        inner.place.pending |= command.leaves_pending(inner);
        self.state = State::Running;
        Ok(sent)
    }

    /// Whether the file's settings have to be asked for first, and whose.
    fn unknown_file(&mut self) -> Option<FileNo> {
        let access = self.command.as_ref().ok()?.file_access()?;
        (access.mode.is_none() && self.holder.inner().place.files.get(access.file).is_none())
            .then_some(access.file)
    }

    /// Every way out that is not success.
    fn fail(&mut self, mut error: Error) -> Error {
        self.state = State::Over;
        if let Ok(command) = &mut self.command {
            command.buffer().zeroize();
        }
        self.round.wipe();
        let inner = self.holder.inner();
        inner.after_failure(error.outcome);
        error.session_lost = inner.ready().is_err();
        error
    }

    fn step_asking(&mut self, reply: &[u8]) -> Result<Step<'_, C::Output>, Error> {
        const CODE: CommandCode = CommandCode::GetFileSettings;
        // Whatever happens here, the command itself has not been sent. But the session is lost.
        let inner = self.holder.inner();
        let mut settings = [0; GetFileSettings::REPLY_LEN];
        let heard = self.round.hear(reply).and_then(|heard| match heard {
            Heard::Done(payload) => {
                self.round.collect(&mut settings, payload)?;
                let len = self.round.open(&mut inner.channel, &mut settings)?;
                Ok(settings.get(..len).unwrap_or_default())
            }
            // The answer is short and is never cut.
            Heard::SendOn | Heard::More(_) => Err(Malformed::TooLong.into()),
        });
        let file = self.command.as_ref().ok().and_then(Command::file_access);
        let learned = heard.and_then(|bytes| {
            let settings = FileSettings::decode(bytes)?;
            if let Some(access) = file {
                inner.learn(access.file, &settings);
            }
            Ok(())
        });
        if let Err(kind) = learned {
            return Err(self.fail(Error::after_sending(CODE, kind)));
        }
        inner.busy = false;
        self.state = State::Over;
        self.start_command().map(Step::Transmit)
    }

    fn step_running(&mut self, reply: &[u8]) -> Result<Step<'_, C::Output>, Error> {
        match self.advance(reply) {
            Ok(Some(output)) => {
                self.state = State::Over;
                self.holder.inner().busy = false;
                Ok(Step::Done(output))
            }
            Ok(None) => match self.round.frame() {
                Ok(frame) => Ok(Step::Transmit(frame)),
                Err(misuse) => Err(Error::unknown(self.code, misuse)),
            },
            Err(kind) => Err(self.fail(Error::after_sending(self.code, kind))),
        }
    }

    /// Takes in one reply; the output if it was the last.
    fn advance(&mut self, reply: &[u8]) -> Result<Option<C::Output>, ErrorKind> {
        let command = self.command.as_mut().map_err(|misuse| *misuse)?;
        let inner = self.holder.inner();
        let too_long = if command.open_ended() {
            ErrorKind::Misuse(Misuse::AnswerTooLong)
        } else {
            ErrorKind::Malformed(Malformed::TooLong)
        };
        let explain = |kind| match kind {
            ErrorKind::Malformed(Malformed::TooLong) => too_long,
            kind => kind,
        };
        match self.round.hear(reply)? {
            Heard::SendOn => {
                self.round.send_on(&mut inner.channel, command.data());
                Ok(None)
            }
            Heard::More(payload) => {
                self.round
                    .collect(command.buffer(), payload)
                    .map_err(explain)?;
                command.frame_ends(self.round.received);
                self.round.ask_on();
                Ok(None)
            }
            Heard::Done(payload) => {
                self.round
                    .collect(command.buffer(), payload)
                    .map_err(explain)?;
                let len = self
                    .round
                    .open(&mut inner.channel, command.buffer())
                    .map_err(explain)?;
                let output = command.finish(inner, len)?;
                // What the command collected in itself is decoded; a caller's buffer is not there
                // any more.
                command.buffer().zeroize();
                Ok(Some(output))
            }
        }
    }
}

impl<H: Holder, C: FileCommand> Exchange<H, C> {
    /// States the communication mode instead of taking it from the file's settings and rights.
    /// Saves the GetFileSettings that is sent otherwise when the session does not know the file.
    ///
    /// In a D40 session GetFileSettings is not authenticated: whoever controls the link can make
    /// a file look plain. A program that knows the mode should say it here, or once with
    /// [`Session::assume_file_settings`].
    pub fn comm_mode(mut self, mode: CommMode) -> Self {
        if let Ok(command) = &mut self.command {
            command.file_access_mut().mode = Some(mode);
        }
        self
    }
}

impl<H: Holder, C: Command> Machine for Exchange<H, C> {
    type Output = C::Output;

    fn command(&self) -> Instruction {
        self.code.into()
    }

    fn start(&mut self, format: LinkFormat) -> Result<&[u8], Error> {
        let code = self.code;
        let not_sent = |misuse: Misuse| Error::not_sent(code, misuse);
        if self.state != State::Fresh {
            return Err(not_sent(Misuse::OutOfTurn));
        }
        self.round.format = format;
        if let Err(misuse) = self.holder.inner().ready() {
            return Err(not_sent(misuse));
        }
        if let Err(misuse) = &self.command {
            return Err(not_sent(*misuse));
        }
        let Some(file) = self.unknown_file() else {
            return self.start_command();
        };
        let inner = self.holder.inner();
        let ask = GetFileSettings::new(file);
        let protection = ask.protection(inner).map_err(not_sent)?;
        let sent = self
            .round
            .begin(&mut inner.channel, &ask, protection)
            .map_err(not_sent)?;
        inner.busy = true;
        self.state = State::Asking;
        Ok(sent)
    }

    fn step(&mut self, reply: &[u8]) -> Result<Step<'_, Self::Output>, Error> {
        match self.state {
            State::Asking => self.step_asking(reply),
            State::Running => self.step_running(reply),
            State::Fresh | State::Over => Err(Error::not_sent(self.code, Misuse::OutOfTurn)),
        }
    }
}

impl<H: Holder, C: Command> Drop for Exchange<H, C> {
    fn drop(&mut self) {
        if matches!(self.state, State::Asking | State::Running) {
            // Dropped in the middle. The error goes nowhere; what counts is what it does.
            let _ = self.fail(Error::unknown(self.code, Misuse::SessionLost));
        }
    }
}

/// One request and its reply, frame by frame.
struct Round {
    frame: FrameBuffer,
    /// Code and payload length of the frame that is to go out.
    outgoing: (CommandCode, usize),
    format: LinkFormat,
    sealed: Option<Sealed>,
    reply: ReplyProtection,
    /// What did not fit into the command's buffer.
    tail: [u8; TAIL],
    received: usize,
}

/// What a reply frame means for the round.
enum Heard<'a> {
    SendOn,
    More(&'a [u8]),
    Done(&'a [u8]),
}

impl Round {
    const fn new() -> Self {
        Self {
            frame: FrameBuffer::new(),
            outgoing: (CommandCode::AdditionalFrame, 0),
            format: LinkFormat::NATIVE,
            sealed: None,
            reply: ReplyProtection::Standard,
            tail: [0; TAIL],
            received: 0,
        }
    }

    fn wipe(&mut self) {
        self.tail.zeroize();
        self.frame.payload_mut().zeroize();
        self.sealed = None;
    }

    fn frame(&mut self) -> Result<&[u8], Misuse> {
        let (code, len) = self.outgoing;
        self.frame
            .finish(self.format.framing, code, len)
            .map_err(Misuse::Parameter)
    }

    /// Seals the command and makes its first frame. If it returns an error, the channel is as it
    /// was.
    fn begin<C: Command>(
        &mut self,
        channel: &mut Channel,
        command: &C,
        protection: Protection<'_>,
    ) -> Result<&[u8], Misuse> {
        channel.check(protection.reply)?;
        let capacity = self.format.payload_capacity();
        let mut header = Writer::new(self.frame.payload_mut());
        command.header(&mut header)?;
        let header_len = header.written();
        let sealed_len = channel.sealed_len(command.data().len(), protection.request);
        let needed = if C::CHAINS {
            // Later frames have no header, but must bring something.
            header_len.max(usize::from(sealed_len > 0))
        } else {
            header_len.saturating_add(sealed_len)
        };
        if needed > capacity {
            return Err(Misuse::TransportTooNarrow {
                needed,
                available: capacity,
            });
        }
        let (header, room) = self
            .frame
            .payload_mut()
            .get_mut(..capacity)
            .and_then(|payload| payload.split_at_mut_checked(header_len))
            .unwrap_or_default();
        let request = Request {
            code: command.code().to_byte(),
            header,
            data: command.data(),
        };
        let mut sealed = channel.seal(request, protection.request)?;
        let len = channel.take(&mut sealed, command.data(), room);
        self.sealed = Some(sealed);
        self.reply = protection.reply;
        self.received = 0;
        self.outgoing = (command.code(), header_len.saturating_add(len));
        self.frame()
    }

    /// The next frame of a request that is not out yet.
    fn send_on(&mut self, channel: &mut Channel, data: &[u8]) {
        let capacity = self.format.payload_capacity();
        let room = self.frame.payload_mut().get_mut(..capacity);
        let len = match (&mut self.sealed, room) {
            (Some(sealed), Some(room)) => channel.take(sealed, data, room),
            _ => 0,
        };
        self.outgoing = (CommandCode::AdditionalFrame, len);
    }

    /// Asks for the next frame of a reply.
    const fn ask_on(&mut self) {
        self.outgoing = (CommandCode::AdditionalFrame, 0);
    }

    /// Parses a reply frame: the status comes first, whatever was to be expected.
    fn hear<'r>(&self, reply: &'r [u8]) -> Result<Heard<'r>, ErrorKind> {
        let reply = ReplyFrame::parse(self.format.framing, reply)?;
        let sending = self
            .sealed
            .as_ref()
            .is_some_and(|sealed| sealed.remaining() > 0);
        match (reply.status, sending) {
            (Status::AdditionalFrame, true) if reply.payload.is_empty() => Ok(Heard::SendOn),
            (Status::AdditionalFrame, true) => Err(Malformed::DataTooEarly.into()),
            (Status::AdditionalFrame, false) if reply.payload.is_empty() => {
                Err(Malformed::EmptyFrame.into())
            }
            (Status::AdditionalFrame, false) => Ok(Heard::More(reply.payload)),
            (Status::Ok, true) => Err(Malformed::FinishedTooEarly.into()),
            (Status::Ok, false) => Ok(Heard::Done(reply.payload)),
            (status, _) => Err(ErrorKind::Refused(status)),
        }
    }

    /// Keeps what a reply frame brought: in the buffer as long as there is room, then in the
    /// tail. As every frame brings at least one byte, this also bounds the number of frames.
    fn collect(&mut self, buffer: &mut [u8], payload: &[u8]) -> Result<(), ErrorKind> {
        let end = self.received.saturating_add(payload.len());
        if end > buffer.len().saturating_add(TAIL) {
            return Err(Malformed::TooLong.into());
        }
        let (_, free) = buffer
            .split_at_mut_checked(self.received)
            .unwrap_or_default();
        let (to_buffer, to_tail) = payload.split_at(free.len().min(payload.len()));
        for (to, from) in free.iter_mut().zip(to_buffer) {
            *to = *from;
        }
        let in_tail = self.received.saturating_sub(buffer.len());
        for (to, from) in self.tail.iter_mut().skip(in_tail).zip(to_tail) {
            *to = *from;
        }
        self.received = end;
        Ok(())
    }

    /// Opens the complete reply; its data are at the front of the buffer.
    fn open(&mut self, channel: &mut Channel, buffer: &mut [u8]) -> Result<usize, ErrorKind> {
        channel.open(
            self.reply,
            Incoming {
                buffer,
                tail: &mut self.tail,
                len: self.received,
            },
        )
    }
}
