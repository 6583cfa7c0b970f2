//! One request and its reply, frame by frame.
//!
//! For: cutting a sealed request into frames, and collecting the frames of a reply until it can be
//! opened. May know: frames, status bytes, that there is a channel. May not know: sessions, what a
//! command means, any transport. Besides the handshake this is the only place that knows `AF`.

use crate::error::{ErrorKind, Malformed, Misuse};
use crate::pcd::bytes::{copy, wipe};
use crate::pcd::channel::{Channel, Incoming, ReplyProtection, Request, Sealed, TAIL};
use crate::pcd::command::{Command, Scratch};
use crate::pcd::exchange::LinkFormat;
use crate::pcd::protection::Protection;
use crate::wire::frame::{FrameBuffer, MAX_PAYLOAD};
use crate::wire::{CommandCode, ReplyFrame, Status, StatusWord, WireError, Writer};

/// One request and its reply, frame by frame.
pub(in crate::pcd) struct Round {
    frame: FrameBuffer,
    /// Code and payload length of the frame that is to go out.
    outgoing: (CommandCode, usize),
    pub(in crate::pcd) format: LinkFormat,
    sealed: Sealed,
    reply: ReplyProtection,
    /// What did not fit into the command's buffer.
    tail: [u8; TAIL],
    pub(in crate::pcd) received: usize,
    /// More than one frame of the request has gone out.
    pub(in crate::pcd) continued: bool,
}

/// What a reply frame means for the round.
pub(in crate::pcd) enum Heard<'a> {
    SendOn,
    More(&'a [u8]),
    Done(&'a [u8]),
}

impl Round {
    pub(in crate::pcd) const fn new() -> Self {
        Self {
            frame: FrameBuffer::new(),
            outgoing: (CommandCode::AdditionalFrame, 0),
            format: LinkFormat::NATIVE,
            sealed: Sealed::empty(),
            reply: ReplyProtection::Standard,
            tail: [0; TAIL],
            received: 0,
            continued: false,
        }
    }

    pub(in crate::pcd) fn wipe(&mut self) {
        wipe(&mut self.tail);
        wipe(self.frame.payload_mut());
        self.sealed = Sealed::empty();
    }

    /// More payload than a frame holds, which is never made.
    pub(in crate::pcd) const fn overflows(&self) -> bool {
        self.outgoing.1 > MAX_PAYLOAD
    }

    /// Whether more frames of the request are to come.
    pub(in crate::pcd) const fn sending(&self) -> bool {
        self.sealed.remaining() > 0
    }

    /// How the reply is protected.
    #[cfg(feature = "split")]
    pub(in crate::pcd) const fn protection(&self) -> ReplyProtection {
        self.reply
    }

    /// What is to go out, as the link wants it; nothing if it overflows.
    pub(in crate::pcd) fn frame(&mut self) -> Option<&[u8]> {
        let (code, len) = self.outgoing;
        self.frame.finish(self.format.framing, code, len).ok()
    }

    /// Seals the command and makes its first frame ready. If it returns an error, the channel is as
    /// it was.
    pub(in crate::pcd) fn begin<C: Command>(
        &mut self,
        channel: &mut Channel,
        command: &C,
        protection: Protection<'_>,
    ) -> Result<(), Misuse> {
        channel.check(protection.reply)?;
        let mut scratch = Scratch::default();
        let data = command.data(&mut scratch);
        let capacity = self.format.payload_capacity();
        let mut header = Writer::new(self.frame.payload_mut());
        command.header(&mut header)?;
        let header_len = header.written();
        let sealed_len = channel.sealed_len(data.len(), protection.request);
        let needed = if C::CHAINS {
            // A frame without room would go out for ever.
            header_len.max(sealed_len.min(1))
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
            data,
        };
        channel.seal(request, protection.request, &mut self.sealed)?;
        let len = channel.take(&mut self.sealed, data, room);
        self.reply = protection.reply;
        self.received = 0;
        self.outgoing = (command.code(), header_len.saturating_add(len));
        Ok(())
    }

    /// The next frame of a request that is not out yet.
    pub(in crate::pcd) fn send_on(&mut self, channel: &mut Channel, data: &[u8]) {
        let capacity = self.format.payload_capacity();
        let room = self.frame.payload_mut().get_mut(..capacity);
        let len = channel.take(&mut self.sealed, data, room.unwrap_or_default());
        self.outgoing = (CommandCode::AdditionalFrame, len);
        self.continued = true;
    }

    /// Asks for the next frame of a reply.
    pub(in crate::pcd) const fn ask_on(&mut self) {
        self.outgoing = (CommandCode::AdditionalFrame, 0);
    }

    /// Parses a reply frame: the status comes first, whatever was to be expected.
    pub(in crate::pcd) fn hear<'r>(&self, reply: &'r [u8]) -> Result<Heard<'r>, ErrorKind> {
        let reply = ReplyFrame::parse(self.format.framing, reply).map_err(|error| match error {
            // Not the card's answer to a wrapped command, but an answer.
            WireError::StatusWord(sw) if sw != StatusWord::OK => ErrorKind::RefusedIso(sw),
            error => error.into(),
        })?;
        match (reply.status, self.sending()) {
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
    pub(in crate::pcd) fn collect(
        &mut self,
        buffer: &mut [u8],
        payload: &[u8],
    ) -> Result<(), ErrorKind> {
        let end = self.received.saturating_add(payload.len());
        if end > buffer.len().saturating_add(TAIL) {
            return Err(Malformed::TooLong.into());
        }
        let (_, free) = buffer
            .split_at_mut_checked(self.received)
            .unwrap_or_default();
        let (to_buffer, to_tail) = payload.split_at(free.len().min(payload.len()));
        copy(to_buffer, free);
        let in_tail = self.received.saturating_sub(buffer.len());
        copy(to_tail, self.tail.get_mut(in_tail..).unwrap_or_default());
        self.received = end;
        Ok(())
    }

    /// Opens the complete reply; its data are at the front of the buffer.
    pub(in crate::pcd) fn open(
        &mut self,
        channel: &mut Channel,
        buffer: &mut [u8],
    ) -> Result<usize, ErrorKind> {
        channel.open(
            self.reply,
            &mut Incoming {
                buffer,
                tail: &mut self.tail,
                len: self.received,
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_can_be_wiped() {
        let mut round = Round::new();
        round.tail.fill(7);
        round.frame.payload_mut().fill(7);
        round.wipe();
        assert_eq!(round.tail, [0; TAIL]);
        assert!(round.frame.payload_mut().iter().all(|byte| *byte == 0));
    }
}
