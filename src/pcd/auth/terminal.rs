//! The half of a handshake that has the card and no key.
//!
//! It is a machine that pauses twice and hands out what only the key holder can use: first the
//! card's challenge, then the card's proof.

use crate::error::{Error, ErrorKind, Malformed, Misuse};
use crate::pcd::exchange::LinkFormat;
use crate::wire::frame::FrameBuffer;
use crate::wire::{
    AuthScheme, CommandCode, InlineBytes, KeyNo, ReplyFrame, Status, StatusWord, WireError,
};

/// What the handshake wants next.
#[derive(Debug)]
pub(in crate::pcd) enum HandshakeStep {
    /// E(RndB): have it answered and go on with [`TerminalHandshake::token`].
    Challenge(InlineBytes<16>),
    /// E(RndA'): have it checked. The handshake is over.
    Proof(InlineBytes<16>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    AwaitChallenge,
    AwaitToken,
    AwaitProof,
    Over,
}

/// The terminal's side of `0A`, `1A` and `AA`.
pub(in crate::pcd) struct TerminalHandshake {
    scheme: AuthScheme,
    key_no: KeyNo,
    state: State,
    format: LinkFormat,
    frame: FrameBuffer,
}

impl TerminalHandshake {
    pub(in crate::pcd) const fn new(scheme: AuthScheme, key_no: KeyNo) -> Self {
        Self {
            scheme,
            key_no,
            state: State::Fresh,
            format: LinkFormat::NATIVE,
            frame: FrameBuffer::new(),
        }
    }

    pub(in crate::pcd) const fn command(&self) -> CommandCode {
        self.scheme.command()
    }

    fn out_of_turn(&self, state: State) -> Error {
        Error::out_of_turn(self.command(), state != State::Fresh).session_gone(true)
    }

    /// The first frame.
    pub(in crate::pcd) fn start(&mut self, format: LinkFormat) -> Result<&[u8], Error> {
        if self.state != State::Fresh {
            return Err(self.out_of_turn(self.state));
        }
        self.format = format;
        self.state = State::AwaitChallenge;
        self.send(self.scheme.command(), &[self.key_no.number()])
    }

    /// What the card has answered.
    pub(in crate::pcd) fn received(&mut self, reply: &[u8]) -> Result<HandshakeStep, Error> {
        if self.state == State::Fresh {
            return Err(self.out_of_turn(State::Fresh));
        }
        // Whatever goes wrong from here, this handshake is over.
        let state = core::mem::replace(&mut self.state, State::Over);
        let unknown = |kind: ErrorKind| Error::unknown(self.command(), kind);
        if !matches!(state, State::AwaitChallenge | State::AwaitProof) {
            return Err(self.out_of_turn(state));
        }
        let reply = ReplyFrame::parse(self.format.framing, reply).map_err(|error| match error {
            WireError::StatusWord(sw) if sw != StatusWord::OK => {
                Error::after_sending(self.command(), ErrorKind::RefusedIso(sw))
            }
            error => unknown(error.into()),
        })?;
        let wrong_length = |expected| {
            unknown(
                Malformed::Length {
                    expected,
                    received: reply.payload.len(),
                }
                .into(),
            )
        };
        let cryptogram = || InlineBytes::new(reply.payload).map_err(|_| wrong_length(16));
        match (state, reply.status) {
            (State::AwaitChallenge, Status::AdditionalFrame) => {
                let challenge = cryptogram()?;
                if !matches!(challenge.len(), 8 | 16) {
                    return Err(wrong_length(16));
                }
                self.state = State::AwaitToken;
                Ok(HandshakeStep::Challenge(challenge))
            }
            (State::AwaitProof, Status::Ok) => Ok(HandshakeStep::Proof(cryptogram()?)),
            (_, Status::Ok | Status::AdditionalFrame) => Err(unknown(Malformed::Handshake.into())),
            (_, status) => Err(Error::after_sending(
                self.command(),
                ErrorKind::Refused(status),
            )),
        }
    }

    /// The key holder's answer; the second frame.
    pub(in crate::pcd) fn token(&mut self, token: &[u8]) -> Result<&[u8], Error> {
        if self.state != State::AwaitToken {
            return Err(self.out_of_turn(self.state));
        }
        self.state = State::AwaitProof;
        self.send(CommandCode::AdditionalFrame, token)
    }

    fn send(&mut self, code: CommandCode, payload: &[u8]) -> Result<&[u8], Error> {
        let command = self.command();
        let capacity = self.format.payload_capacity();
        let room = self.frame.payload_mut().get_mut(..payload.len());
        match room {
            Some(room) if payload.len() <= capacity => room.copy_from_slice(payload),
            _ => {
                self.state = State::Over;
                return Err(Error::unknown(
                    command,
                    Misuse::TransportTooNarrow {
                        needed: payload.len(),
                        available: capacity,
                    },
                ));
            }
        }
        self.frame
            .finish(self.format.framing, code, payload.len())
            .map_err(|error| Error::unknown(command, Misuse::Parameter(error)))
    }
}
