//! What a command comes to before it is cut into frames.

use alloc::vec;
use alloc::vec::Vec;

use super::eeprom::PowerLost;
use super::session::Padding;
use crate::wire::{CommMode, Framing, ReplyFrame, Status};

/// Why a command gives no reply of its own.
#[derive(Clone, Copy, Debug)]
pub(super) enum Refusal {
    /// The card answers this bare status.
    Status(Status),
    /// The card answers nothing any more.
    PowerLost,
}

impl From<Status> for Refusal {
    fn from(status: Status) -> Self {
        Self::Status(status)
    }
}

impl From<PowerLost> for Refusal {
    fn from(_: PowerLost) -> Self {
        Self::PowerLost
    }
}

/// A successful reply.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) body: Body,
    pub(super) seal: Seal,
}

/// The data of a reply.
#[derive(Debug)]
pub(super) enum Body {
    /// Cut wherever a frame is full.
    Stream(Vec<u8>),
    /// Cut where the command says; there is always one frame.
    Frames(Vec<Vec<u8>>),
}

/// How a reply is protected.
#[derive(Clone, Copy, Debug)]
pub(super) enum Seal {
    /// Not at all, not even in a session.
    Bare,
    /// As the session does it in this mode.
    Mode(CommMode, Padding),
}

impl Reply {
    /// Status 00 and what the session adds.
    pub(super) const fn done() -> Self {
        Self::data(Vec::new())
    }

    /// Data that no file setting protects.
    pub(super) const fn data(data: Vec<u8>) -> Self {
        Self::in_mode(data, CommMode::Plain, Padding::Zeros)
    }

    /// Data in the mode of a file.
    pub(super) const fn in_mode(data: Vec<u8>, mode: CommMode, padding: Padding) -> Self {
        Self {
            body: Body::Stream(data),
            seal: Seal::Mode(mode, padding),
        }
    }

    /// Data in frames of their own.
    pub(super) fn frames(mut frames: Vec<Vec<u8>>) -> Self {
        if frames.is_empty() {
            frames = vec![Vec::new()];
        }
        Self {
            body: Body::Frames(frames),
            seal: Seal::Mode(CommMode::Plain, Padding::Zeros),
        }
    }

    /// Data outside secure messaging.
    pub(super) const fn bare(data: Vec<u8>) -> Self {
        Self {
            body: Body::Stream(data),
            seal: Seal::Bare,
        }
    }
}

/// One frame of a reply, ready to go.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: Status,
    pub(super) payload: Vec<u8>,
}

impl Answer {
    pub(super) const fn status(status: Status) -> Self {
        Self {
            status,
            payload: Vec::new(),
        }
    }

    /// The bytes, in the framing in which the command came.
    pub(super) fn encode(&self, framing: Framing) -> Vec<u8> {
        // Status byte or status word around the payload: two bytes at most.
        let mut out = vec![0; self.payload.len().saturating_add(2)];
        let frame = ReplyFrame {
            status: self.status,
            payload: &self.payload,
        };
        let len = frame.encode(framing, &mut out).unwrap_or(0);
        out.truncate(len);
        out
    }
}
