//! One ISO 7816-4 command as a machine: one APDU out, one back.
//!
//! For: commands of class 00, which travel as they are in either framing and are never chained. May
//! know: APDUs, that there is a channel. The lost rule is that of [`super::exchange`].
//!
//! In an EV1 session data come back with 8 bytes of CMAC over `data ‖ 00`, and the request does not
//! move the IV: that is how proxmark3 reads them (`desfiresecurechan.c`), the only source. So the
//! data are the card's, but **which file and offset they are from is not proved**, as it is for
//! ReadData.

use zeroize::Zeroize as _;

use crate::error::{Error, ErrorKind, Misuse, Outcome};
use crate::pcd::channel::{Channel, Incoming, ReplyProtection, TAIL};
use crate::pcd::exchange::{Holder, LinkFormat, Machine, Step};
use crate::pcd::session::Inner;
use crate::wire::apdu::{CommandApdu, ResponseApdu};
use crate::wire::frame::MAX_COMMAND;
use crate::wire::{Instruction, IsoInstruction, Status, StatusWord, WireError};

/// What an ISO command is to its exchange.
pub trait IsoCommand {
    /// What the reply means.
    type Output;

    /// The instruction.
    const INSTRUCTION: IsoInstruction;

    /// Refuses what cannot be done in this session, and notes what depends on it.
    fn check(&mut self, inner: &Inner) -> Result<(), Misuse> {
        let _ = inner;
        Ok(())
    }

    /// The command.
    fn apdu(&self) -> Result<CommandApdu<'_>, Misuse>;

    /// Where the data of the reply are collected.
    fn buffer(&mut self) -> &mut [u8] {
        &mut []
    }

    /// The reply has been checked, its data are the first `len` bytes of the buffer.
    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<Self::Output, ErrorKind>;
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Running,
    Over,
}

/// An ISO 7816-4 command on its way: what the `iso_` methods of [`crate::Session`] return.
#[must_use = "a command does nothing until it is run"]
pub struct IsoExchange<H: Holder, C: IsoCommand> {
    holder: H,
    command: Result<C, Misuse>,
    state: State,
    frame: [u8; MAX_COMMAND],
}

impl<H: Holder, C: IsoCommand> IsoExchange<H, C> {
    pub(in crate::pcd) const fn new(holder: H, command: Result<C, Misuse>) -> Self {
        Self {
            holder,
            command,
            state: State::Fresh,
            frame: [0; MAX_COMMAND],
        }
    }

    fn not_sent(misuse: Misuse) -> Error {
        Error::not_sent(C::INSTRUCTION, misuse).session_gone(H::OWNED)
    }

    fn out_of_turn(&mut self) -> Error {
        let lost = self.holder.inner().ready().is_err();
        Error::out_of_turn(C::INSTRUCTION, self.state != State::Fresh)
            .session_gone(H::OWNED || lost)
    }

    fn fail(&mut self, kind: ErrorKind) -> Error {
        let mut error = Error::after_sending(C::INSTRUCTION, kind);
        self.state = State::Over;
        if let Ok(command) = &mut self.command {
            command.buffer().zeroize();
        }
        self.frame.zeroize();
        let inner = self.holder.inner();
        inner.after_failure(kind, error.outcome == Outcome::Refused);
        error.session_lost = H::OWNED || inner.ready().is_err();
        error
    }

    fn receive(&mut self, reply: &[u8]) -> Result<C::Output, ErrorKind> {
        let command = self.command.as_mut().map_err(|misuse| *misuse)?;
        let reply = ResponseApdu::parse(reply)?;
        if reply.sw != StatusWord::OK {
            return Err(refusal(reply.sw));
        }
        let inner = self.holder.inner();
        let buffer = command.buffer();
        let mut tail = [0; TAIL];
        // What is too long for both the channel refuses by its length.
        let places = buffer.iter_mut().chain(&mut tail);
        for (to, from) in places.zip(reply.data) {
            *to = *from;
        }
        // A reply without room for data has no MAC either: SELECT says just 9000.
        let protection = if buffer.is_empty() {
            ReplyProtection::None
        } else {
            ReplyProtection::Standard
        };
        let len = inner.channel.open(
            protection,
            &mut Incoming {
                buffer,
                tail: &mut tail,
                len: reply.data.len(),
            },
        )?;
        command.finish(inner, len)
    }
}

impl<H: Holder, C: IsoCommand> Machine for IsoExchange<H, C> {
    type Output = C::Output;

    fn command(&self) -> Instruction {
        C::INSTRUCTION.into()
    }

    fn start(&mut self, format: LinkFormat) -> Result<&[u8], Error> {
        let not_sent = Self::not_sent;
        if self.state != State::Fresh {
            return Err(self.out_of_turn());
        }
        let inner = self.holder.inner();
        inner.ready().map_err(not_sent)?;
        let command = self.command.as_mut().map_err(|misuse| not_sent(*misuse))?;
        command.check(inner).map_err(not_sent)?;
        let apdu = command.apdu().map_err(not_sent)?;
        let len = apdu.encode(&mut self.frame).map_err(|error| {
            not_sent(match error {
                WireError::Full => Misuse::TransportTooNarrow {
                    needed: apdu.data.len(),
                    available: MAX_COMMAND - 5,
                },
                error => Misuse::Parameter(error),
            })
        })?;
        if len > format.max_command {
            return Err(not_sent(Misuse::TransportTooNarrow {
                needed: len,
                available: format.max_command,
            }));
        }
        inner.busy = true;
        self.state = State::Running;
        Ok(self.frame.get(..len).unwrap_or_default())
    }

    fn step(&mut self, reply: &[u8]) -> Result<Step<'_, C::Output>, Error> {
        if self.state != State::Running {
            return Err(self.out_of_turn());
        }
        match self.receive(reply) {
            Ok(output) => {
                self.state = State::Over;
                self.holder.inner().busy = false;
                Ok(Step::Done(output))
            }
            Err(kind) => Err(self.fail(kind)),
        }
    }
}

impl<H: Holder, C: IsoCommand> Drop for IsoExchange<H, C> {
    fn drop(&mut self) {
        if self.state == State::Running {
            // Dropped in the middle. The error goes nowhere; what counts is what it does.
            let _ = self.fail(Misuse::SessionLost.into());
        }
    }
}

/// What a status word other than success means: a native status if it is one that refuses.
pub(in crate::pcd) fn refusal(sw: StatusWord) -> ErrorKind {
    match sw.status() {
        Some(Status::Ok | Status::AdditionalFrame) => WireError::StatusWord(sw).into(),
        Some(status) => ErrorKind::Refused(status),
        None => ErrorKind::RefusedIso(sw),
    }
}

/// The most data bytes that one reply holds: a frame of 59, less the CMAC in an EV1 session.
pub(in crate::pcd) const fn reply_room(inner: &Inner) -> usize {
    match inner.channel {
        Channel::Ev1(_) => 59 - 8,
        _ => 59,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Malformed;
    use crate::pcd::command::iso::BinaryPlace;
    use crate::pcd::command::testing::{hex, iso};
    use crate::pcd::session::Session;
    use crate::wire::Aid;

    const PLACE: BinaryPlace = BinaryPlace::Selected { offset: 0 };

    fn session() -> Session<crate::Unauthenticated> {
        Session::at_level(Aid::from_bytes([1, 0, 0]))
    }

    #[test]
    fn as_much_as_the_link_takes() {
        let mut session = session();
        let narrow = LinkFormat {
            max_command: 59,
            ..LinkFormat::WRAPPED
        };
        for (len, format, expected) in [
            (55, LinkFormat::WRAPPED, None),
            (56, LinkFormat::WRAPPED, Some((56, 55))),
            (54, narrow, None),
            (55, narrow, Some((60, 59))),
        ] {
            let data = std::vec![7; len];
            let mut machine = session.iso_update_binary(PLACE, &data);
            let result = machine.start(format).map(<[u8]>::len);
            let expected = expected.map_or(Ok(len + 5), |(needed, available)| {
                let narrow = Misuse::TransportTooNarrow { needed, available };
                Err(Error::not_sent(IsoInstruction::UpdateBinary, narrow))
            });
            assert_eq!(result, expected, "{len}");
            if result.is_ok() {
                assert!(machine.step(&hex("9000")).is_ok());
            }
        }
    }

    #[test]
    fn out_of_turn() {
        let mut session = session();
        let mut machine = session.iso_update_binary(PLACE, &[1]);
        let early = machine.step(&hex("9000")).map(|_| ()).unwrap_err();
        assert_eq!(early.kind, Misuse::OutOfTurn.into());
        assert_eq!(
            (early.outcome, early.session_lost),
            (Outcome::NotSent, false)
        );
        machine.start(LinkFormat::WRAPPED).unwrap();
        let lost = machine.step(&hex("90")).map(|_| ()).unwrap_err();
        assert_eq!((lost.outcome, lost.session_lost), (Outcome::Unknown, true));
        for late in [
            machine.step(&hex("9000")).map(|_| ()).unwrap_err(),
            machine.start(LinkFormat::WRAPPED).map(|_| ()).unwrap_err(),
        ] {
            assert_eq!(late.kind, Misuse::OutOfTurn.into());
            assert_eq!((late.outcome, late.session_lost), (Outcome::Unknown, true));
        }
    }

    /// The answer that nobody waits for any more must not become the answer to the next command.
    #[test]
    fn dropped_in_the_middle() {
        let mut session = session();
        drop(session.iso_update_binary(PLACE, &[1]));
        assert!(
            iso(
                session.iso_update_binary(PLACE, &[1]),
                "00d6000001 01",
                "9000"
            )
            .is_ok()
        );
        let mut machine = session.iso_update_binary(PLACE, &[1]);
        machine.start(LinkFormat::WRAPPED).unwrap();
        drop(machine);
        // At once: no key waits for the next command.
        assert!(matches!(session.inner.channel, Channel::Lost));
        let mut next = session.iso_update_binary(PLACE, &[1]);
        let error = next.start(LinkFormat::WRAPPED).unwrap_err();
        assert_eq!(error.kind, Misuse::SessionLost.into());
    }

    /// Data that do not fit are none of the caller's, however many they are.
    #[test]
    fn too_long_answers() {
        for extra in [1, 8, 9, TAIL, TAIL + 1, 200] {
            let mut session = session();
            let mut buffer = [0; 4];
            let answer = "07".repeat(4 + extra) + "9000";
            let read = session.iso_read_binary(PLACE, &mut buffer);
            let error = iso(read, "00b0000004", &answer).unwrap_err();
            assert_eq!(error.kind, Malformed::TooLong.into());
            assert_eq!(buffer, [0; 4]);
        }
    }
}
