//! The form of a script, and the tags by which a terminal knows that the card does what it should.
//!
//! | size | field |
//! |---|---|
//! | 1, n | token |
//! | 1 | number of commands |
//! | | commands |
//!
//! | size | field of a command |
//! |---|---|
//! | 1 | [`Flags`] |
//! | 1 | command code |
//! | 2, n | parameters as they are sent, all frames joined; the link's limit says where to cut |
//! | 2 | length of the reply's payload, all frames joined; of an unknown one the most |
//! | 8 | tag, if the reply is known and proved |
//!
//! The tag of a command is the start of T(i) = CMAC(K, i ‖ T(i−1) ‖ reply), with T(0) zero and K from
//! the transport key and the card's last answer of the handshake: whoever has recorded the script
//! and even the transport key learns nothing from it before the card has answered. After that, a
//! terminal that guesses a reply can test the guess: 2⁶⁴ guesses, as every known reply has at least
//! the 8 bytes of the card's own MAC.

use super::error::MessageError;
use super::kdf;
use super::message::Binding;
use crate::wire::{CommandCode, Reader, WireError};

/// Length of a tag.
pub(super) const TAG: usize = 8;

bitflags::bitflags! {
    /// What a command means for the script.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(super) struct Flags: u8 {
        /// Changes the card at once.
        const FINAL = 0x01;
        /// Changes the card with the next commit.
        const PENDING = 0x02;
        /// CommitTransaction.
        const COMMIT = 0x04;
        /// The reply's data are not known in advance.
        const UNKNOWN = 0x08;
        /// The card checks the request against the chain.
        const CHECKED = 0x10;
        /// The reply proves itself.
        const PROVED = 0x20;
        /// The reply is enciphered.
        const ENCIPHERED = 0x40;
        /// Changes the card, sooner or later.
        const CHANGES = Self::FINAL.bits() | Self::PENDING.bits() | Self::COMMIT.bits();
    }
}

impl Flags {
    pub(super) fn decode(byte: u8) -> Result<Self, WireError> {
        Self::from_bits(byte).ok_or(WireError::Value {
            field: "flags",
            value: u32::from(byte),
        })
    }

    /// From here on something may have changed for good.
    pub(super) const fn takes_effect(self) -> bool {
        self.intersects(Self::FINAL.union(Self::COMMIT))
    }

    /// Whether a tag belongs to it.
    pub(super) const fn tagged(self) -> bool {
        self.contains(Self::PROVED) && !self.contains(Self::UNKNOWN)
    }
}

/// Commands that leave the card as it is. (GetDFNames is not among them: its reply is told apart by
/// its frames, and a script joins them.)
pub(super) const fn only_reads(code: CommandCode) -> bool {
    matches!(
        code,
        CommandCode::GetVersion
            | CommandCode::FreeMem
            | CommandCode::GetCardUid
            | CommandCode::GetKeySettings
            | CommandCode::GetKeyVersion
            | CommandCode::GetApplicationIds
            | CommandCode::GetFileIds
            | CommandCode::GetIsoFileIds
            | CommandCode::GetFileSettings
            | CommandCode::ReadData
            | CommandCode::ReadRecords
            | CommandCode::GetValue
    )
}

/// One command of a script.
#[derive(Clone, Copy)]
pub(super) struct Entry<'s> {
    pub(super) flags: Flags,
    pub(super) code: CommandCode,
    pub(super) payload: &'s [u8],
    pub(super) reply_len: usize,
    pub(super) tag: [u8; TAG],
}

impl<'s> Entry<'s> {
    pub(super) fn decode(reader: &mut Reader<'s>) -> Result<Self, MessageError> {
        let flags = Flags::decode(reader.u8()?)?;
        let code = CommandCode::from_byte(reader.u8()?);
        if code == CommandCode::AdditionalFrame {
            return Err(MessageError::Malformed(WireError::Value {
                field: "command",
                value: u32::from(code.to_byte()),
            }));
        }
        // What may change the card is said to: whatever a key holder wants a terminal to believe, the
        // terminal's word of what has left must be true.
        if !only_reads(code) && !flags.intersects(Flags::CHANGES) {
            return Err(MessageError::Malformed(WireError::Value {
                field: "flags",
                value: u32::from(flags.bits()),
            }));
        }
        let payload_len = reader.u16()?;
        let payload = reader.take(usize::from(payload_len))?;
        let reply_len = usize::from(reader.u16()?);
        let tag = if flags.tagged() {
            reader.array()?
        } else {
            [0; TAG]
        };
        Ok(Self {
            flags,
            code,
            payload,
            reply_len,
            tag,
        })
    }
}

/// The running tag.
pub(super) struct Tally {
    key: kdf::Block,
    state: kdf::Block,
    count: u8,
}

impl Tally {
    pub(super) fn new(binding: &Binding, proof: &[u8]) -> Self {
        let salt = binding.transport().bytes();
        Self {
            key: kdf::derive_from_both(salt, proof, b"desfire split 1 script", binding.context()),
            state: kdf::Block::default(),
            count: 0,
        }
    }

    /// Takes in the next reply's payload; its tag.
    pub(super) fn take(&mut self, reply: &[u8]) -> [u8; TAG] {
        self.count = self.count.saturating_add(1);
        self.state = kdf::cmac(&self.key, &[&[self.count], self.state.as_ref(), reply]);
        self.state.first_chunk().copied().unwrap_or_default()
    }
}

/// A buffer that is written from the front and patched.
pub(super) struct Out<'b> {
    pub(super) buffer: &'b mut [u8],
    pub(super) len: usize,
}

impl<'b> Out<'b> {
    pub(super) const fn new(buffer: &'b mut [u8]) -> Self {
        Self { buffer, len: 0 }
    }

    pub(super) fn put(&mut self, bytes: &[u8]) -> Result<(), WireError> {
        let end = self.len.saturating_add(bytes.len());
        let room = self.buffer.get_mut(self.len..end).ok_or(WireError::Full)?;
        room.copy_from_slice(bytes);
        self.len = end;
        Ok(())
    }

    pub(super) fn u16(&mut self, value: usize) -> Result<(), WireError> {
        let value = u16::try_from(value).map_err(|_| WireError::Full)?;
        self.put(&value.to_le_bytes())
    }

    /// Overwrites what has been put at `at`.
    pub(super) fn patch(&mut self, at: usize, bytes: &[u8]) {
        for (to, from) in self.buffer.iter_mut().skip(at).zip(bytes) {
            *to = *from;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A key holder that lies cannot make a terminal say that nothing has left that changes the card.
    #[test]
    fn no_command_that_may_change_the_card_passes_for_a_read() {
        let mut accepted = 0;
        for code in 0..=u8::MAX {
            for flags in (0..0x80).map(Flags::from_bits_truncate) {
                let mut entry = [0; 6 + TAG];
                entry[0] = flags.bits();
                entry[1] = code;
                let len = if flags.tagged() { 6 + TAG } else { 6 };
                let mut reader = Reader::new(&entry[..len]);
                let Ok(entry) = Entry::decode(&mut reader) else {
                    continue;
                };
                accepted += 1;
                let says_no_change = !entry.flags.takes_effect() && !flags.contains(Flags::PENDING);
                assert!(
                    !says_no_change || only_reads(entry.code),
                    "{code:02X} {flags:?}"
                );
            }
        }
        assert!(accepted > 255 * 64, "{accepted}");
    }
}
