//! One command as a machine: bytes out, bytes in, no I/O.
//!
//! For: the steps of a command, asking for a file's settings before it where they are needed, and the
//! rule that a session is lost while an exchange is out. May know: that there is a round of frames
//! ([`super::round`]) and a session. May not know: what is in a frame, what the channel does, what a
//! command means, any transport.
//!
//! | state | card answers | then |
//! |---|---|---|
//! | sending | `AF` without data | the next frame goes out as `AF ‖ part` |
//! | sent | `AF` with data | they are kept, `AF` goes out |
//! | sent | `00` | the reply is complete and is opened |
//! | any | anything else | refused |

use crate::error::{Error, ErrorKind, Malformed, Misuse, Outcome};
#[cfg(feature = "split")]
use crate::pcd::bytes::copy;
use crate::pcd::bytes::wipe;
#[cfg(feature = "split")]
use crate::pcd::channel::{ReplyProtection, RequestProtection, TAIL};
use crate::pcd::command::{Command, FileCommand, GetFileSettings, Scratch};
use crate::pcd::round::{Heard, Round};
use crate::pcd::session::{Inner, Session};
use crate::wire::frame::MAX_COMMAND;
use crate::wire::{CommMode, CommandCode, FileNo, FileSettings, Framing, Instruction, WireError};

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

    pub(crate) fn payload_capacity(self) -> usize {
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

    /// What has become of the command if no answer comes to what was sent last.
    fn outcome_if_unanswered(&self) -> Outcome {
        Outcome::Unknown
    }

    /// The first bytes for the card.
    ///
    /// # Errors
    /// With [`crate::Outcome::NotSent`]: the caller's parameters are wrong, or the session is lost.
    /// Only a machine that has sent something and is started again says [`crate::Outcome::Unknown`].
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
    /// Whether the session goes with the exchange, whatever becomes of it.
    const OWNED: bool;

    fn inner(&mut self) -> &mut Inner;
}

impl<S> HasInner for &mut Session<S> {
    const OWNED: bool = false;

    fn inner(&mut self) -> &mut Inner {
        &mut self.inner
    }
}

impl<S> HasInner for Session<S> {
    const OWNED: bool = true;

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
    /// The command itself has gone out, or may have.
    sent: bool,
    round: Round,
    /// The answer to GetFileSettings.
    asked: [u8; GetFileSettings::REPLY_LEN],
}

impl<H: Holder, C: Command> Exchange<H, C> {
    pub(in crate::pcd) fn new(holder: H, command: Result<C, Misuse>) -> Self {
        Self {
            holder,
            code: command.as_ref().map_or(C::CODE, Command::code),
            command,
            state: State::Fresh,
            sent: false,
            round: Round::new(),
            asked: [0; GetFileSettings::REPLY_LEN],
        }
    }

    pub(in crate::pcd) fn command_mut(&mut self) -> Option<&mut C> {
        self.command.as_mut().ok()
    }

    fn not_sent(&self, misuse: Misuse) -> Error {
        Error::not_sent(self.code, misuse).session_gone(H::OWNED)
    }

    fn out_of_turn(&mut self) -> Error {
        let lost = self.holder.inner().ready().is_err();
        Error::out_of_turn(self.code, self.sent).session_gone(H::OWNED || lost)
    }

    /// Checks the command itself and makes its first frame. Until it succeeds nothing has changed.
    fn begin_command(&mut self) -> Result<(), Misuse> {
        let command = self.command.as_ref().map_err(|misuse| *misuse)?;
        let inner = self.holder.inner();
        let protection = command.protection(inner)?;
        self.round.begin(&mut inner.channel, command, protection)?;
        inner.busy = true;
        self.state = State::Running;
        self.sent = true;
        Ok(())
    }

    /// Asks for the settings of a file, on which the protection of the command depends.
    fn begin_asking(&mut self, file: FileNo) -> Result<(), Misuse> {
        let inner = self.holder.inner();
        let ask = GetFileSettings::new(file);
        let protection = ask.protection(inner)?;
        self.round.begin(&mut inner.channel, &ask, protection)?;
        inner.busy = true;
        self.state = State::Asking;
        Ok(())
    }

    /// Whether the file's settings have to be asked for first, and whose.
    fn unknown_file(&mut self) -> Option<FileNo> {
        let access = self.command.as_ref().ok()?.file_access()?;
        (access.mode.is_none() && self.holder.inner().place.files.get(access.file).is_none())
            .then_some(access.file)
    }

    /// Every way out after sending that is not success.
    fn fail(&mut self, kind: ErrorKind) -> Error {
        let mut error = Error::after_sending(self.code, kind);
        let refused = error.outcome == Outcome::Refused;
        let inner = self.holder.inner();
        if self.state == State::Asking {
            error.outcome = Outcome::NotSent;
            error.while_asking = true;
        } else if refused {
            let half_done = self.round.continued
                && self
                    .command
                    .as_ref()
                    .is_ok_and(|command| command.may_be_half_done(inner));
            if half_done {
                error.outcome = Outcome::Unknown;
            }
        }
        inner.after_failure(kind, refused);
        error.session_lost = H::OWNED || inner.ready().is_err();
        self.state = State::Over;
        if let Ok(command) = &mut self.command {
            wipe(command.buffer());
        }
        self.round.wipe();
        error
    }

    /// Takes in one reply to GetFileSettings; whether it was the last.
    fn learn(&mut self, reply: &[u8]) -> Result<bool, ErrorKind> {
        let inner = self.holder.inner();
        // The answer is short, but may be cut like any other.
        let mut settings = self.asked;
        let done = match self.round.hear(reply)? {
            Heard::SendOn => return Err(Malformed::TooLong.into()),
            Heard::More(payload) => {
                self.round.collect(&mut settings, payload)?;
                self.round.ask_on();
                false
            }
            Heard::Done(payload) => {
                self.round.collect(&mut settings, payload)?;
                let len = self.round.open(&mut inner.channel, &mut settings)?;
                let decoded = FileSettings::decode(settings.get(..len).unwrap_or_default())?;
                let access = self.command.as_ref().ok().and_then(Command::file_access);
                if let Some(access) = access {
                    inner.learn(access.file, &decoded);
                }
                true
            }
        };
        self.asked = settings;
        Ok(done)
    }

    fn step_asking(&mut self, reply: &[u8]) -> Result<Step<'_, C::Output>, Error> {
        match self.learn(reply) {
            Ok(false) => {}
            Ok(true) => {
                self.holder.inner().busy = false;
                self.state = State::Over;
                if let Err(misuse) = self.begin_command() {
                    return Err(self.not_sent(misuse));
                }
            }
            Err(kind) => return Err(self.fail(kind)),
        }
        self.transmit()
    }

    fn step_running(&mut self, reply: &[u8]) -> Result<Step<'_, C::Output>, Error> {
        match self.advance(reply) {
            Ok(Some(output)) => {
                self.state = State::Over;
                self.holder.inner().busy = false;
                Ok(Step::Done(output))
            }
            Ok(None) => self.transmit(),
            Err(kind) => Err(self.fail(kind)),
        }
    }

    fn transmit(&mut self) -> Result<Step<'_, C::Output>, Error> {
        let too_much = Misuse::Parameter(WireError::Full);
        if self.round.overflows() {
            return Err(self.fail(too_much.into()));
        }
        let code = self.code;
        let frame = self.round.frame().map(Step::Transmit);
        frame.ok_or_else(|| Error::unknown(code, too_much))
    }

    /// Takes in one reply; the output if it was the last.
    fn advance(&mut self, reply: &[u8]) -> Result<Option<C::Output>, ErrorKind> {
        let command = self.command.as_mut().map_err(|misuse| *misuse)?;
        let inner = self.holder.inner();
        let too_long = command.too_long();
        let explain = |kind| match kind {
            ErrorKind::Malformed(Malformed::TooLong) => too_long,
            kind => kind,
        };
        match self.round.hear(reply)? {
            Heard::SendOn => {
                let mut scratch = Scratch::default();
                self.round
                    .send_on(&mut inner.channel, command.data(&mut scratch));
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
                if command.leaves_pending(inner) {
                    inner.place.changed();
                }
                let output = command.finish(inner, len)?;
                // What the command collected in itself is decoded; a caller's buffer is not there
                // any more.
                wipe(command.buffer());
                Ok(Some(output))
            }
        }
    }
}

impl<H: Holder, C: FileCommand> Exchange<H, C> {
    /// States the communication mode instead of taking it from the file's settings and rights.
    /// Saves the GetFileSettings that is sent otherwise when the session does not know the file.
    ///
    /// With the wrong mode the card refuses, or the answer is not authentic, and the session is lost. A
    /// write of several frames may be left half done: a card that waits for a MAC or padding that does
    /// not come says that it wants more, which is [`crate::error::Malformed::EmptyFrame`] and
    /// [`Outcome::Unknown`]; in a standard file the frames before may have been written. The chain hangs
    /// until the next command, which the card answers with `CA`.
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

    fn outcome_if_unanswered(&self) -> Outcome {
        match self.state {
            State::Asking => Outcome::NotSent,
            State::Fresh | State::Running | State::Over => Outcome::Unknown,
        }
    }

    fn start(&mut self, format: LinkFormat) -> Result<&[u8], Error> {
        if self.state != State::Fresh {
            return Err(self.out_of_turn());
        }
        self.round.format = format;
        let begun = match (self.holder.inner().ready(), &self.command) {
            (Err(misuse), _) => Err(misuse),
            (Ok(()), Err(misuse)) => Err(*misuse),
            (Ok(()), Ok(_)) => match self.unknown_file() {
                Some(file) => self.begin_asking(file),
                None => self.begin_command(),
            },
        };
        if let Err(misuse) = begun {
            return Err(self.not_sent(misuse));
        }
        let code = self.code;
        let frame = self.round.frame();
        frame.ok_or_else(|| Error::unknown(code, Misuse::Parameter(WireError::Full)))
    }

    fn step(&mut self, reply: &[u8]) -> Result<Step<'_, Self::Output>, Error> {
        match self.state {
            State::Asking => self.step_asking(reply),
            State::Running => self.step_running(reply),
            State::Fresh | State::Over => Err(self.out_of_turn()),
        }
    }
}

/// A command that is put into a script instead of being run: [`crate::split::ScriptBuilder`] steps
/// it against the replies that the card will give.
#[cfg(feature = "split")]
pub trait Foreseen: Machine + sealed::Sealed {
    /// The facts of the command, before it is started.
    #[doc(hidden)]
    fn facts(&mut self) -> Result<Facts, Misuse>;

    /// The chain of secure messaging where it stands now.
    #[doc(hidden)]
    fn chain(&mut self) -> Option<[u8; 16]>;

    /// Whether more frames of the request are to come.
    #[doc(hidden)]
    fn sending(&self) -> bool;

    /// The payload of the reply that the card will give to the whole request.
    #[doc(hidden)]
    fn foresee(&mut self, data: &[u8], out: &mut [u8]) -> Result<usize, Misuse>;

    /// Ends it without a reply, and without losing the session.
    #[doc(hidden)]
    fn leave_open(&mut self);
}

#[cfg(feature = "split")]
mod sealed {
    pub trait Sealed {}
    impl<H: super::Holder, C: super::Command> Sealed for super::Exchange<H, C> {}
}

/// What a script has to know of a command.
#[cfg(feature = "split")]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[doc(hidden)]
pub struct Facts {
    /// The code.
    pub code: CommandCode,
    /// The request carries a MAC or is enciphered, so that the card does nothing of it if the chain is
    /// another.
    pub checked: bool,
    /// The reply carries a MAC or is enciphered.
    pub proved: bool,
    /// The reply is enciphered.
    pub enciphered: bool,
    /// The longest reply that the command takes, with what proves it.
    pub reply_room: usize,
    /// Its change waits for CommitTransaction.
    pub pending: bool,
}

#[cfg(feature = "split")]
impl<H: Holder, C: Command> Foreseen for Exchange<H, C> {
    fn facts(&mut self) -> Result<Facts, Misuse> {
        self.holder.inner().ready()?;
        if self.state != State::Fresh {
            return Err(Misuse::OutOfTurn);
        }
        if self.unknown_file().is_some() {
            return Err(Misuse::Invalid(
                "a script cannot ask for the file's settings: state them with assume_file_settings, or for a value file the mode with comm_mode",
            ));
        }
        let command = self.command.as_mut().map_err(|misuse| *misuse)?;
        if command.code() == CommandCode::AbortTransaction {
            return Err(Misuse::Invalid(
                "a script that undoes its own changes has no place: leave them out",
            ));
        }
        let reply_room = command.buffer().len().saturating_add(TAIL);
        let inner = self.holder.inner();
        let protection = command.protection(inner)?;
        let leaves_pending = command.leaves_pending(inner);
        // Frames of a standard file's chained write may be written before the card has seen the MAC.
        let at_once_in_parts = command.may_be_half_done(inner);
        if leaves_pending && at_once_in_parts {
            return Err(Misuse::Invalid(
                "a script has to know whether this write waits for a commit: state the file's settings with assume_file_settings",
            ));
        }
        Ok(Facts {
            reply_room,
            enciphered: matches!(protection.reply, ReplyProtection::Enciphered { .. }),
            code: command.code(),
            checked: !matches!(protection.request, RequestProtection::Plain) && !at_once_in_parts,
            proved: protection.reply != ReplyProtection::None,
            pending: leaves_pending,
        })
    }

    fn chain(&mut self) -> Option<[u8; 16]> {
        let mut chain = [0; 16];
        let iv = self.holder.inner().channel.iv()?;
        copy(iv, &mut chain);
        Some(chain)
    }

    fn sending(&self) -> bool {
        self.round.sending()
    }

    fn foresee(&mut self, data: &[u8], out: &mut [u8]) -> Result<usize, Misuse> {
        self.holder
            .inner()
            .channel
            .foresee(self.round.protection(), data, out)
    }

    fn leave_open(&mut self) {
        if self.state == State::Running {
            self.state = State::Over;
            self.holder.inner().busy = false;
            self.round.wipe();
        }
    }
}

impl<H: Holder, C: Command> Drop for Exchange<H, C> {
    fn drop(&mut self) {
        if matches!(self.state, State::Asking | State::Running) {
            // Dropped in the middle. The error goes nowhere; what counts is what it does.
            let _ = self.fail(Misuse::SessionLost.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcd::channel::Channel;
    use crate::pcd::command::testing::{hex, native};
    use crate::pcd::session::Session;
    use crate::wire::StatusWord;
    use std::string::ToString as _;

    #[test]
    fn out_of_turn() {
        let mut session = Session::new();
        let mut machine = session.free_mem();
        let early = machine.step(&hex("00")).map(|_| ()).unwrap_err();
        assert_eq!(early.kind, Misuse::OutOfTurn.into());
        assert_eq!(
            (early.outcome, early.session_lost),
            (Outcome::NotSent, false)
        );
        machine.start(LinkFormat::NATIVE).unwrap();
        let lost = machine.step(&[]).map(|_| ()).unwrap_err();
        assert_eq!((lost.outcome, lost.session_lost), (Outcome::Unknown, true));
        for late in [
            machine.step(&hex("00")).map(|_| ()).unwrap_err(),
            machine.start(LinkFormat::NATIVE).map(|_| ()).unwrap_err(),
        ] {
            assert_eq!(late.kind, Misuse::OutOfTurn.into());
            assert_eq!((late.outcome, late.session_lost), (Outcome::Unknown, true));
        }
    }

    /// The answer that nobody waits for any more must not become the answer to the next command.
    #[test]
    fn dropped_in_the_middle() {
        let mut session = Session::new();
        drop(session.free_mem());
        assert!(native(session.free_mem(), &[("6e", "00 001f00")]).is_ok());
        let mut machine = session.free_mem();
        machine.start(LinkFormat::NATIVE).unwrap();
        drop(machine);
        // At once: no key waits for the next command.
        assert!(matches!(session.inner.channel, Channel::Lost));
        let mut next = session.free_mem();
        let error = next.start(LinkFormat::NATIVE).unwrap_err();
        assert_eq!(error.kind, Misuse::SessionLost.into());
    }

    /// An answer without end stops where it is longer than it can be.
    #[test]
    fn answers_without_end() {
        let mut session = Session::new();
        let mut machine = session.free_mem();
        machine.start(LinkFormat::NATIVE).unwrap();
        let part = hex(&("af".to_string() + &"07".repeat(36)));
        let error = machine.step(&part).map(|_| ()).unwrap_err();
        assert_eq!(error.kind, Malformed::TooLong.into());
    }

    /// What is no answer to a wrapped command is told apart from a refusal.
    #[test]
    fn other_status_words() {
        for (answer, kind) in [
            ("6a82", ErrorKind::RefusedIso(StatusWord::NOT_FOUND)),
            (
                "9000",
                crate::wire::WireError::StatusWord(StatusWord::OK).into(),
            ),
        ] {
            let mut session = Session::new();
            let mut machine = session.free_mem();
            machine.start(LinkFormat::WRAPPED).unwrap();
            let error = machine.step(&hex(answer)).map(|_| ()).unwrap_err();
            assert_eq!(error.kind, kind);
        }
    }
}
