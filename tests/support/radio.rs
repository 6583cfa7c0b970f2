//! A reader with a software card on it whose field can fail: what the tests across both halves
//! share. It keeps the code and the status of every frame, so that a test knows what really went
//! out and what the card really said.

#![allow(dead_code, reason = "each test uses a part of it")]

use desfire_ev1::picc::Card;
use desfire_ev1::wire::Framing;
use desfire_ev1::{Link, LinkFormat, Transport};

/// The card did not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mute;

impl std::fmt::Display for Mute {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the card did not answer")
    }
}

impl std::error::Error for Mute {}

/// The code of `AF`, as a command and as a status.
pub(crate) const MORE: u8 = 0xAF;

/// One frame that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Frame {
    /// The command that it belongs to; of a frame that continues one, that of the first.
    pub(crate) command: u8,
    /// What the card answered, also if the answer was lost; nothing if it did not answer.
    pub(crate) status: Option<u8>,
}

/// Something that happens to the field, counted in frames from [`Radio::listen`] on, the first
/// being 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The card is taken away before this frame.
    RemoveBefore(usize),
    /// The card gets this frame and carries it out; its answer is lost.
    LoseReply(usize),
    /// The card stays, but does not get this frame.
    LoseCommand(usize),
}

pub(crate) struct Radio {
    pub(crate) card: Card,
    format: LinkFormat,
    frames: Vec<Frame>,
    trouble: Option<Trouble>,
}

impl Radio {
    pub(crate) const fn new(card: Card, format: LinkFormat) -> Self {
        Self {
            card,
            format,
            frames: Vec::new(),
            trouble: None,
        }
    }

    /// Counts frames from here.
    pub(crate) fn listen(&mut self) {
        self.frames.clear();
        self.trouble = None;
    }

    pub(crate) const fn arrange(&mut self, trouble: Trouble) {
        self.trouble = Some(trouble);
    }

    /// The frames since [`Self::listen`].
    pub(crate) fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Whether the card is in the middle of a chain, as far as its last answer tells.
    pub(crate) fn in_chain(&self) -> bool {
        self.frames.last().and_then(|frame| frame.status) == Some(MORE)
    }

    fn code(&self, command: &[u8]) -> u8 {
        command[usize::from(self.format.framing == Framing::Wrapped)]
    }

    fn status(&self, reply: &[u8]) -> Option<u8> {
        match self.format.framing {
            Framing::Wrapped => reply.last().copied(),
            _ => reply.first().copied(),
        }
    }
}

impl Link for Radio {
    type Error = Mute;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl Transport for Radio {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Mute> {
        let number = self.frames.len() + 1;
        if self.trouble == Some(Trouble::RemoveBefore(number)) {
            self.card.field_off();
        }
        let answer = if self.trouble == Some(Trouble::LoseCommand(number)) {
            Vec::new()
        } else {
            self.card.handle(command)
        };
        let code = match (self.code(command), self.frames.last()) {
            (MORE, Some(last)) => last.command,
            (code, _) => code,
        };
        self.frames.push(Frame {
            command: code,
            status: self.status(&answer),
        });
        if answer.is_empty() || self.trouble == Some(Trouble::LoseReply(number)) {
            return Err(Mute);
        }
        reply[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }
}
