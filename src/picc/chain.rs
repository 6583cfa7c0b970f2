//! Native commands over several frames: the state machine of `AF`.
//!
//! | pending | `AF` | another command |
//! |---|---|---|
//! | nothing | `1C` | carried out |
//! | parts of a reply | the next part | `CA`, not carried out, chain dropped |
//! | parts of a write | appended; carried out once complete | `CA`, nothing written |
//! | a handshake | its second step | `CA`, unauthenticated |

use alloc::collections::VecDeque;
use alloc::vec::Vec;

use super::auth::Handshake;
use super::card::Card;
use super::choices::{
    AF_WHILE_IDLE, CHUNK_PLAIN, COMMAND_DURING_CHAIN, D40_SURVIVES, DATA_IN_EMPTY_AF, EV1_SURVIVES,
};
use super::eeprom::PowerLost;
use super::iso_auth::IsoAuthentication;
use super::reply::{Answer, Body, Refusal, Reply, Seal};
use super::session::Session;
use super::write::PendingWrite;
use crate::wire::frame::{MAX_COMMAND, MAX_PAYLOAD};
use crate::wire::{CommandCode, CommandFrame, Framing, Status};

/// What the next `AF` goes on with.
#[derive(Clone, Default)]
pub(super) enum Chain {
    /// Nothing.
    #[default]
    Idle,
    /// The frames of a reply that are left; never empty.
    Reply(VecDeque<Vec<u8>>),
    /// A write whose data are not all there.
    Write(PendingWrite),
    /// An authentication.
    Handshake(Handshake),
}

/// What one frame comes to.
pub(super) enum Step {
    /// The command is carried out.
    Done(Reply),
    /// The card answers `AF` with this payload and waits.
    Continue { payload: Vec<u8>, chain: Chain },
}

impl Card {
    /// One native frame.
    pub(super) fn native(
        &mut self,
        frame: &CommandFrame<'_>,
        framing: Framing,
    ) -> Result<Answer, PowerLost> {
        match self.frame(frame, framing) {
            Ok(answer) => Ok(answer),
            Err(Refusal::Status(status)) => {
                self.refused(status);
                Ok(Answer::status(status))
            }
            Err(Refusal::PowerLost) => Err(PowerLost),
        }
    }

    /// What an error does to the card: the chain and the transaction are gone, and so is the
    /// session, but for the few errors that a D40 session survives.
    pub(super) fn refused(&mut self, status: Status) {
        self.field.chain = Chain::Idle;
        self.field.transaction.abort();
        let survives = |session: &Session| {
            let few = if session.is_ev1() {
                EV1_SURVIVES
            } else {
                D40_SURVIVES
            };
            few.contains(&status)
        };
        self.field.session = self.field.session.take().filter(survives);
    }

    fn frame(&mut self, frame: &CommandFrame<'_>, framing: Framing) -> Result<Answer, Refusal> {
        let more = frame.code == CommandCode::AdditionalFrame;
        let chain = core::mem::take(&mut self.field.chain);
        self.field.iso.authentication = IsoAuthentication::default();
        if !more && !matches!(chain, Chain::Idle) {
            return Err(COMMAND_DURING_CHAIN.into());
        }
        if frame.payload.len() > framing.payload_capacity(MAX_COMMAND) {
            return Err(Status::LengthError.into());
        }
        let step = match chain {
            Chain::Idle if more => return Err(AF_WHILE_IDLE.into()),
            Chain::Idle => self.first_frame(frame.code, frame.payload)?,
            Chain::Reply(_) if !frame.payload.is_empty() => return Err(DATA_IN_EMPTY_AF.into()),
            Chain::Reply(frames) => return Ok(self.next_frame(frames)),
            Chain::Write(write) => self.continue_write(write, frame.payload)?,
            Chain::Handshake(handshake) => self.finish_authentication(handshake, frame.payload)?,
        };
        Ok(match step {
            Step::Done(reply) => {
                let frames = self.sealed(reply);
                self.next_frame(frames)
            }
            Step::Continue { payload, chain } => {
                self.field.chain = chain;
                Answer {
                    status: Status::AdditionalFrame,
                    payload,
                }
            }
        })
    }

    /// Protects a reply and cuts it into frames.
    fn sealed(&mut self, reply: Reply) -> VecDeque<Vec<u8>> {
        let session = match reply.seal {
            Seal::Bare => None,
            Seal::Mode(mode, padding) => self
                .field
                .session
                .as_mut()
                .map(|session| (session, mode, padding)),
        };
        let chunk = session
            .as_ref()
            .map_or(CHUNK_PLAIN, |(session, ..)| session.chunk());
        let seal = |data: Vec<u8>| match session {
            Some((session, mode, padding)) => session.seal(mode, data, padding),
            None => data,
        };
        match reply.body {
            Body::Stream(data) => cut(&seal(data), chunk),
            Body::Frames(mut frames) => {
                let joined = frames.concat();
                let len = joined.len();
                // The MAC is over all frames together and travels with the last.
                let payload = seal(joined);
                if let (Some(last), Some(mac)) = (frames.last_mut(), payload.get(len..)) {
                    last.extend_from_slice(mac);
                }
                frames.into()
            }
        }
    }

    /// The first of the frames; the others wait.
    fn next_frame(&mut self, mut frames: VecDeque<Vec<u8>>) -> Answer {
        let payload = frames.pop_front().unwrap_or_default();
        let status = if frames.is_empty() {
            Status::Ok
        } else {
            self.field.chain = Chain::Reply(frames);
            Status::AdditionalFrame
        };
        Answer { status, payload }
    }
}

/// All that is left if one frame holds it, else one chunk: the rule that fits every recording
/// of an EV1 (48 bytes of data with their CMAC came in one frame in an AES session, 112 bytes
/// of ciphertext in 48, 48 and 16), and the EV3's too.
fn cut(mut rest: &[u8], chunk: usize) -> VecDeque<Vec<u8>> {
    let mut frames = VecDeque::new();
    while rest.len() > MAX_PAYLOAD
        && let Some((frame, more)) = rest.split_at_checked(chunk)
    {
        frames.push_back(frame.to_vec());
        rest = more;
    }
    frames.push_back(rest.to_vec());
    frames
}
