//! Making a script: typed commands run against the replies that the card is going to give.
//!
//! The key holder has the session that the card will have after the token. A command is taken
//! through its own machine; what it sends goes into the script, and the reply that a card would
//! give, made from the same chain, is fed back. So a script is what a live session would send, or
//! the machine refuses.

use zeroize::Zeroizing;

use super::challenge::Challenge;
use super::error::Refusal;
use super::holder::Answered;
use super::message::{Binding, FORMAT, From, Kind, Message};
use super::record::Record;
use super::script::{Flags, Out, Tally, only_reads};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::doors::{Facts, Foreseen};
use crate::wire::{CommandCode, Framing, Status};
use crate::{Authenticated, LinkFormat, Session, Step};

/// The most bytes of data that a known reply can have.
pub(super) const MAX_KNOWN: usize = 512;
/// MAC, or CRC32 and padding.
const MAX_TAIL: usize = 4 + 16;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Every reply is known so far.
    Sealing,
    /// Only reads of unknown data can follow.
    Reading,
    /// The session is over; or something went wrong, and then there is no script.
    Ended,
    Failed,
}

/// A script in the making; see [`Answered::script`].
///
/// The session's methods make commands as in a live session; give them to
/// [`ScriptBuilder::send`], [`ScriptBuilder::expect`] or [`ScriptBuilder::ask`] instead of running
/// them. Settings of files have to be stated, as nobody can be asked:
/// [`Session::assume_file_settings`].
///
/// The outcome of the first error is that there is no script.
pub struct ScriptBuilder<'b> {
    binding: Binding,
    script: Out<'b>,
    /// Holds the session key, and wipes its buffer whatever becomes of the script.
    record: Record<'b>,
    tally: Tally,
    format: LinkFormat,
    /// Where the chain stands after the last command.
    chain: Zeroizing<[u8; 16]>,
    phase: Phase,
    pending: bool,
    count: u8,
    script_count_at: usize,
    record_count_at: usize,
}

/// What became of a [`ScriptBuilder`].
pub struct Finished<'b> {
    /// The message for the terminal.
    pub script: &'b [u8],
    /// What the key holder keeps, to judge the receipt.
    pub record: Record<'b>,
}

impl<'b> ScriptBuilder<'b> {
    pub(super) fn begin(
        answered: Answered,
        script: &'b mut [u8],
        record: &'b mut [u8],
    ) -> Result<(Session<Authenticated>, Self), Refusal> {
        let Answered { accepted, answer } = answered;
        let (challenge, binding) = (*accepted.challenge(), accepted.binding().clone());
        let intent = challenge.intent;
        let (mut script, mut record) = (Out::new(script), Record::new(record));

        let mut header = [0; 10];
        binding.begin(&mut crate::wire::Writer::new(&mut header), Kind::Script)?;
        script.put(&header)?;
        put_short(&mut script, answer.token())?;
        let script_count_at = script.len;
        script.put(&[0])?;

        let kept = &mut record.out;
        kept.put(&[FORMAT, Kind::Record as u8])?;
        let sealed: Message<{ Challenge::MAX_LEN }> = challenge.seal(binding.transport())?;
        put_short(kept, &sealed)?;
        put_short(kept, answer.expected())?;
        kept.put(answer.session_key().key().cipher_bytes())?;
        let record_count_at = kept.len;
        // Count, and where the chain stands before the unknown replies.
        kept.put(&[0; 17])?;

        let session = Session::elsewhere(
            answer.session_key(),
            &[0; 16],
            intent.key_no,
            intent.key_type,
            challenge.aid,
        );
        let capacity = challenge.format.payload_capacity();
        let builder = Self {
            tally: Tally::new(&binding, answer.expected()),
            binding,
            script,
            record,
            // The same cuts, whatever is around them.
            format: LinkFormat {
                framing: Framing::Native,
                max_command: capacity.saturating_add(1),
            },
            chain: Zeroizing::default(),
            phase: Phase::Sealing,
            pending: false,
            count: 0,
            script_count_at,
            record_count_at,
        };
        Ok((session, builder))
    }

    /// Puts in a command whose reply has no data. A command that ends the session has to be the
    /// last.
    ///
    /// # Errors
    /// [`Refusal::Script`], [`Refusal::BufferTooSmall`].
    pub fn send<M: Foreseen>(&mut self, command: M) -> Result<M::Output, Refusal> {
        self.expect(command, &[])
    }

    /// Puts in a command whose reply has exactly these data, at most 512 bytes. If the card has
    /// others, an honest terminal stops here, and the key holder can prove it from the receipt.
    ///
    /// # Errors
    /// [`Refusal::Script`], [`Refusal::BufferTooSmall`].
    pub fn expect<M: Foreseen>(&mut self, command: M, data: &[u8]) -> Result<M::Output, Refusal> {
        let phase = core::mem::replace(&mut self.phase, Phase::Failed);
        if phase != Phase::Sealing {
            return Err(Refusal::Script(Misuse::Invalid(
                "after a read of unknown data only such reads can follow, and nothing after the session's end",
            )));
        }
        let (output, phase) = self.foresee(command, data)?;
        self.phase = phase;
        Ok(output)
    }

    /// Puts in a read whose data nobody knows yet. Only such reads can follow. The key holder opens
    /// the reply from the receipt: [`Record::replay`].
    ///
    /// # Errors
    /// [`Refusal::Script`] for a command that changes the card; [`Refusal::BufferTooSmall`].
    pub fn ask<M: Foreseen>(&mut self, mut command: M) -> Result<(), Refusal> {
        let phase = core::mem::replace(&mut self.phase, Phase::Failed);
        let facts = command.facts().map_err(Refusal::Script)?;
        if !matches!(phase, Phase::Sealing | Phase::Reading)
            || !only_reads(facts.code)
            || facts.checked
        {
            return Err(Refusal::Script(Misuse::Invalid(
                "only reads, at the end of a script, can have unknown data",
            )));
        }
        if phase == Phase::Sealing {
            self.check_chain(&mut command)?;
            let at = self.record_count_at + 1;
            self.record.out.patch(at, self.chain.as_ref());
        }
        let (script_at, record_at) =
            self.begin_entry(Flags::UNKNOWN | Flags::PROVED, facts.code)?;
        let first = command.start(self.format).map_err(script_error)?;
        let payload = first.get(1..).unwrap_or_default();
        self.script.put(payload)?;
        self.record.out.put(payload)?;
        if command.sending() {
            return Err(Refusal::Script(Misuse::OutOfTurn));
        }
        command.leave_open();
        end_payload(&mut self.script, script_at)?;
        end_payload(&mut self.record.out, record_at)?;
        let room = facts.reply_room.min(usize::from(u16::MAX));
        self.script.u16(room)?;
        self.record.out.u16(0)?;
        self.record.out.u16(0)?;
        self.phase = Phase::Reading;
        Ok(())
    }

    /// The script for the terminal, and the record for the receipt.
    ///
    /// # Errors
    /// [`Refusal::Uncommitted`]; [`Refusal::Script`] if it is empty or a command has failed;
    /// [`Refusal::BufferTooSmall`].
    pub fn finish(self) -> Result<Finished<'b>, Refusal> {
        if self.phase == Phase::Failed || self.count == 0 {
            return Err(Refusal::Script(Misuse::Invalid(
                "the script is empty or a command could not be put in",
            )));
        }
        if self.pending {
            return Err(Refusal::Uncommitted);
        }
        let Self {
            binding,
            mut script,
            mut record,
            count,
            ..
        } = self;
        script.patch(self.script_count_at, &[count]);
        record.out.patch(self.record_count_at, &[count]);
        let Out { buffer, len } = script;
        let len = binding.close(From::Holder, buffer, len)?;
        Ok(Finished {
            script: buffer.get(..len).unwrap_or_default(),
            record,
        })
    }

    fn check_chain<M: Foreseen>(&self, command: &mut M) -> Result<(), Refusal> {
        if command.chain() == Some(*self.chain) {
            Ok(())
        } else {
            Err(Refusal::Script(Misuse::Invalid(
                "the command is of another session, or the session was used outside the script",
            )))
        }
    }

    /// Flags, code, and room for the length of the parameters; where that is.
    fn begin_entry(&mut self, flags: Flags, code: CommandCode) -> Result<(usize, usize), Refusal> {
        self.count = self.count.checked_add(1).ok_or(Refusal::BufferTooSmall)?;
        let start = [flags.bits(), code.to_byte(), 0, 0];
        self.script.put(&start)?;
        self.record.out.put(&start)?;
        Ok((self.script.len, self.record.out.len))
    }

    fn foresee<M: Foreseen>(
        &mut self,
        mut command: M,
        data: &[u8],
    ) -> Result<(M::Output, Phase), Refusal> {
        let facts = command.facts().map_err(Refusal::Script)?;
        if facts.code == CommandCode::GetDfNames {
            return Err(Refusal::Script(Misuse::Invalid(
                "a script joins frames, and GetDFNames needs them apart",
            )));
        }
        if data.len() > MAX_KNOWN {
            return Err(Refusal::Script(Misuse::Invalid(
                "a known reply has at most 512 bytes of data",
            )));
        }
        self.check_chain(&mut command)?;
        let flags = flags(&facts);
        let (payload_at, record_at) = self.begin_entry(flags, facts.code)?;

        let mut expected = Zeroizing::new([0; 1 + MAX_KNOWN + MAX_TAIL]);
        let first = command.start(self.format).map_err(script_error)?;
        self.script.put(first.get(1..).unwrap_or_default())?;
        while command.sending() {
            match command.step(&[Status::AdditionalFrame.to_byte()]) {
                Ok(Step::Transmit(next)) => self.script.put(next.get(1..).unwrap_or_default())?,
                Ok(Step::Done(_)) => return Err(Refusal::Script(Misuse::OutOfTurn)),
                Err(error) => return Err(script_error(error)),
            }
        }
        end_payload(&mut self.script, payload_at)?;
        end_payload(&mut self.record.out, record_at)?;
        // Where the card's chain stands when it makes its reply.
        let before_reply = command
            .chain()
            .ok_or(Refusal::Script(Misuse::NotAuthenticated))?;
        let room = expected.get_mut(1..).unwrap_or_default();
        let len = command.foresee(data, room).map_err(Refusal::Script)?;
        let reply = expected.get(..=len).unwrap_or_default();
        let output = match command.step(reply) {
            Ok(Step::Done(output)) => output,
            Ok(Step::Transmit(_)) => return Err(Refusal::Script(Misuse::OutOfTurn)),
            Err(error) => return Err(script_error(error)),
        };
        let after = command.chain().map(Zeroizing::new);
        let payload = reply.get(1..).unwrap_or_default();
        self.script.u16(len)?;
        if flags.tagged() {
            let tag = self.tally.take(payload);
            self.script.put(&tag)?;
        }
        self.record.out.u16(len)?;
        self.record.out.put(payload)?;
        self.record.out.u16(data.len())?;
        if !data.is_empty() {
            self.record.out.put(&before_reply)?;
        }
        if flags.contains(Flags::PENDING) {
            self.pending = true;
        }
        if facts.code == CommandCode::CommitTransaction {
            self.pending = false;
        }
        if let Some(after) = after {
            self.chain = after;
        }
        let phase = if facts.proved {
            Phase::Sealing
        } else {
            Phase::Ended
        };
        Ok((output, phase))
    }
}

fn put_short(out: &mut Out<'_>, bytes: &[u8]) -> Result<(), Refusal> {
    out.put(&[u8::try_from(bytes.len()).map_err(|_| Refusal::BufferTooSmall)?])?;
    Ok(out.put(bytes)?)
}

/// Fills in the length of what has been put since `at`.
fn end_payload(out: &mut Out<'_>, at: usize) -> Result<(), Refusal> {
    let len = u16::try_from(out.len.saturating_sub(at)).map_err(|_| Refusal::BufferTooSmall)?;
    out.patch(at.saturating_sub(2), &len.to_le_bytes());
    Ok(())
}

fn script_error(error: crate::Error) -> Refusal {
    Refusal::Script(match error.kind {
        ErrorKind::Misuse(misuse) => misuse,
        _ => Misuse::Invalid("these data cannot be the answer to this command"),
    })
}

/// Commands whose change of a file that is not a standard one waits for CommitTransaction.
const fn waits_for_commit(code: CommandCode) -> bool {
    matches!(
        code,
        CommandCode::WriteData
            | CommandCode::WriteRecord
            | CommandCode::ClearRecordFile
            | CommandCode::Credit
            | CommandCode::LimitedCredit
            | CommandCode::Debit
    )
}

fn flags(facts: &Facts) -> Flags {
    let mut flags = match facts.code {
        CommandCode::CommitTransaction => Flags::COMMIT,
        code if only_reads(code) => Flags::empty(),
        code if facts.pending && waits_for_commit(code) => Flags::PENDING,
        // Something sent raw: it may be either.
        _ if facts.pending => Flags::FINAL | Flags::PENDING,
        _ => Flags::FINAL,
    };
    flags.set(Flags::CHECKED, facts.checked);
    flags.set(Flags::PROVED, facts.proved);
    flags.set(Flags::ENCIPHERED, facts.enciphered);
    flags
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What each command means for a script, after the card's transaction mechanism: writes to backup, value and
    /// record files wait for CommitTransaction, everything else that changes the card does so at once.
    #[test]
    fn what_commands_mean() {
        let waiting = [0x3D, 0x3B, 0xEB, 0x0C, 0xDC, 0x1C];
        let reading = [
            0x60, 0x6E, 0x51, 0x45, 0x64, 0x6A, 0x6F, 0x61, 0xF5, 0xBD, 0xBB, 0x6C,
        ];
        for code in 0..=u8::MAX {
            for bits in 0..16_u8 {
                let [pending, checked, proved, enciphered] =
                    [1, 2, 4, 8].map(|bit| bits & bit != 0);
                let facts = Facts {
                    code: CommandCode::from_byte(code),
                    checked,
                    proved,
                    enciphered,
                    reply_room: 0,
                    pending,
                };
                // Bits as in the message's table.
                let mut expected = match code {
                    0xC7 => 0x04,
                    code if reading.contains(&code) => 0,
                    code if pending && waiting.contains(&code) => 0x02,
                    _ if pending => 0x03,
                    _ => 0x01,
                };
                for (is, flag) in [(checked, 0x10), (proved, 0x20), (enciphered, 0x40)] {
                    expected += if is { flag } else { 0 };
                }
                assert_eq!(flags(&facts).bits(), expected, "{code:02X} {bits:X}");
            }
        }
    }

    /// What the caller did wrong is said as it is.
    #[test]
    fn errors_of_machines() {
        let misuse = Misuse::BufferTooSmall {
            needed: 2,
            available: 1,
        };
        let error = crate::Error::not_sent(CommandCode::ReadData, misuse);
        assert_eq!(script_error(error), Refusal::Script(misuse));
        let malformed = crate::error::Malformed::TooLong;
        let error = crate::Error::not_sent(CommandCode::ReadData, malformed);
        assert!(matches!(
            script_error(error),
            Refusal::Script(Misuse::Invalid(_))
        ));
    }
}
