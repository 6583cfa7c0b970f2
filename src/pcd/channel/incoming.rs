//! A reply's bytes where they have been collected: the caller's buffer, which has room for the
//! data only, and a short tail for MAC, CRC and padding, taken as one stream.

use crc::Digest;

use super::DataLength;
use crate::error::{Authenticity, ErrorKind, Malformed, Misuse};
use crate::pcd::bytes::{Wiped, copy, wipe};
use crate::pcd::crypto::cipher::{Cipher, Iv, MAX_BLOCK};
use crate::pcd::crypto::crc::{CRC16, CRC32, Lanes};

/// Room for what follows the data: at most CRC32, a whole block of padding and, as ciphertext
/// comes in blocks, nothing else.
pub(in crate::pcd) const TAIL: usize = 32;

/// The collected bytes: the first `len` of `buffer ‖ tail`.
pub(in crate::pcd) struct Incoming<'a> {
    pub(in crate::pcd) buffer: &'a mut [u8],
    pub(in crate::pcd) tail: &'a mut [u8; TAIL],
    pub(in crate::pcd) len: usize,
}

/// Which CRC an enciphered reply carries, and over what.
#[derive(Clone, Copy)]
pub(super) enum ReplyCrc {
    /// CRC16 over the data.
    D40,
    /// CRC32 over the data and the status `00`.
    Ev1,
}

impl ReplyCrc {
    const fn len(self) -> usize {
        match self {
            Self::D40 => 2,
            Self::Ev1 => 4,
        }
    }

    /// The CRC over the data so far.
    fn begin(self, data: &[u8]) -> Running {
        let mut running = match self {
            Self::D40 => Running::D40(CRC16.digest()),
            Self::Ev1 => Running::Ev1(CRC32.digest()),
        };
        running.update(data);
        running
    }
}

/// A CRC that goes on.
#[derive(Clone)]
enum Running {
    D40(Digest<'static, u16, Lanes>),
    Ev1(Digest<'static, u32, Lanes>),
}

impl Running {
    fn update(&mut self, data: &[u8]) {
        match self {
            Self::D40(digest) => digest.update(data),
            Self::Ev1(digest) => digest.update(data),
        }
    }

    fn finish(self) -> u32 {
        match self {
            Self::D40(digest) => digest.finalize().into(),
            Self::Ev1(mut digest) => {
                digest.update(&[0x00]);
                digest.finalize()
            }
        }
    }
}

impl Incoming<'_> {
    /// All of it is data that nothing protects.
    #[inline]
    pub(super) fn as_data(&mut self) -> Result<usize, ErrorKind> {
        if self.len > self.buffer.len() {
            return Err(Malformed::TooLong.into());
        }
        Ok(self.len)
    }

    /// Splits off the last `N` bytes, a MAC; they are wiped from the buffer. What is left must
    /// fit into the buffer.
    #[inline]
    pub(super) fn split_mac<const N: usize>(&mut self) -> Result<(usize, [u8; N]), ErrorKind> {
        let data_len = self.len.checked_sub(N).ok_or(Authenticity::MacMissing)?;
        if data_len > self.buffer.len() {
            return Err(Malformed::TooLong.into());
        }
        let mut mac = [0; N];
        self.copy_out(data_len, &mut mac);
        self.wipe_after(data_len);
        Ok((data_len, mac))
    }

    /// Deciphers everything, finds the end of the data and checks their CRC; returns their length.
    ///
    /// The data end where CRC and padding follow that fit. That can be several places at once:
    ///
    /// - Without an `80` behind the CRC, if data and CRC end in zero: a CRC that begins with a zero
    ///   byte is only shifted by a zero byte more, so the data may be one byte shorter (one in 256
    ///   such files).
    /// - Under D40 without an `80`, always if two zeros follow: the CRC of data and their CRC is zero.
    /// - By chance, one in 2^16 or 2^32.
    ///
    /// [`the_end`] says which of them counts.
    pub(super) fn decipher(
        &mut self,
        cipher: &Cipher,
        iv: &mut Iv,
        crc: ReplyCrc,
        length: DataLength,
    ) -> Result<usize, ErrorKind> {
        let block_len = cipher.block_len();
        // A block is longer than any CRC.
        if self.len == 0 || !self.len.is_multiple_of(block_len) {
            return Err(Authenticity::CiphertextLength.into());
        }
        self.decrypt(cipher, iv, block_len);

        let last = self.len - crc.len();
        let first = last.saturating_sub(block_len);
        if first > self.buffer.len() {
            return Err(Malformed::TooLong.into());
        }
        // If it is known where the data end, whether they could end elsewhere is of no interest.
        let (first, last) = match length {
            DataLength::Exactly(len) => (first.max(len), last.min(len)),
            DataLength::Believed(_) | DataLength::MultipleOf(_) => (first, last),
        };
        if first > last {
            return Err(Authenticity::CrcWrong.into());
        }
        let before = self.buffer.get(..first).ok_or(Malformed::TooLong)?;
        // CRC and padding lie in the last bytes: gather them, together with the data among them.
        let mut end = Wiped::<{ 4 + MAX_BLOCK }>::default();
        let end = end.get_mut(..self.len - first).unwrap_or_default();
        self.copy_out(first, end);

        let running = crc.begin(before);
        let fitting = (first..=last).filter(|len| {
            let cut = len.saturating_sub(first);
            crc_at(crc, &running, end, cut, block_len)
        });
        let data_len = the_end(fitting, length)?;
        if data_len > self.buffer.len() {
            return Err(Malformed::TooLong.into());
        }
        self.wipe_after(data_len);
        Ok(data_len)
    }

    fn decrypt(&mut self, cipher: &Cipher, iv: &mut Iv, block_len: usize) {
        let mut scratch = Wiped::<{ MAX_BLOCK + TAIL }>::default();
        let in_buffer = if self.len <= scratch.len() {
            // Short enough to be deciphered in one go.
            0
        } else {
            self.len.min(self.buffer.len()) / block_len * block_len
        };
        if let Some(blocks @ [_, ..]) = self.buffer.get_mut(..in_buffer) {
            cipher.cbc_decrypt(iv, blocks);
        }
        // The block that lies across the border, and the tail.
        if let Some(scratch @ [_, ..]) = scratch.get_mut(..self.len - in_buffer) {
            self.copy_out(in_buffer, scratch);
            cipher.cbc_decrypt(iv, scratch);
            let (_, end) = self.buffer.split_at_mut(in_buffer);
            let (to_buffer, to_tail) = scratch.split_at(end.len().min(scratch.len()));
            copy(to_buffer, end);
            copy(to_tail, self.tail);
        }
    }

    /// As many bytes as `out` has room for, `from` this place on.
    fn copy_out(&self, from: usize, out: &mut [u8]) {
        let (_, in_buffer) = self.buffer.split_at(from.min(self.buffer.len()));
        let in_tail = from.saturating_sub(self.buffer.len());
        let (to, rest) = out.split_at_mut(in_buffer.len().min(out.len()));
        copy(in_buffer, to);
        copy(self.tail.get(in_tail..).unwrap_or_default(), rest);
    }

    /// Leaves nothing in the buffer that is not data.
    fn wipe_after(&mut self, data_len: usize) {
        wipe(self.buffer.get_mut(data_len..).unwrap_or_default());
        wipe(self.tail);
    }
}

/// The one length of the `fitting` ones that may be taken; nothing is guessed.
///
/// A length that is only believed is taken like one that is known, except where the CRC that it ends in
/// may be the CRC of data and their CRC: under D40 every length that is two or more bytes too long
/// would pass.
fn the_end(
    fitting: impl Iterator<Item = usize> + Clone,
    length: DataLength,
) -> Result<usize, ErrorKind> {
    let first = fitting.clone().next().ok_or(Authenticity::CrcWrong)?;
    let mut allowed = fitting.clone().filter(|len| length.allows(*len));
    let Some(len) = allowed.next() else {
        // What came is sound, but not as long as the caller thinks.
        return length.check(first).map(|()| first).map_err(Into::into);
    };
    let unclear = match length {
        DataLength::Exactly(_) => false,
        DataLength::Believed(_) => first.saturating_add(2) <= len,
        DataLength::MultipleOf(_) => allowed.next().is_some(),
    };
    if unclear {
        return Err(Misuse::LengthNeeded.into());
    }
    Ok(len)
}

/// Whether `end` is `data ‖ CRC ‖ padding` with the data ending at `cut`; `before` is the CRC of what
/// is before `end`.
fn crc_at(crc: ReplyCrc, before: &Running, end: &[u8], cut: usize, block_len: usize) -> bool {
    let Some((data, rest)) = end.split_at_checked(cut) else {
        return false;
    };
    let Some((found, padding)) = rest.split_at_checked(crc.len()) else {
        return false;
    };
    let padding_fits = match padding {
        [0x80, zeros @ ..] => padding.len() <= block_len && zeros.iter().all(|byte| *byte == 0),
        zeros => padding.len() < block_len && zeros.iter().all(|byte| *byte == 0),
    };
    if !padding_fits {
        return false;
    }
    let mut running = before.clone();
    running.update(data);
    let found = found.iter().rev();
    let found_crc = found.fold(0, |value, byte| value << 8 | u32::from(*byte));
    // A CRC is no secret once the reply is here, and no key: timing tells nothing of use.
    running.finish() == found_crc
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcd::key::Key;
    use std::vec::Vec;

    const LENGTHS: core::ops::Range<usize> = 0..70;

    /// As a card makes it: data, CRC and this much padding, enciphered from a zero IV.
    fn reply(cipher: &Cipher, crc: ReplyCrc, data: &[u8], padding: &[u8]) -> Vec<u8> {
        let crc = match crc {
            ReplyCrc::D40 => CRC16.checksum(data).to_le_bytes().to_vec(),
            ReplyCrc::Ev1 => CRC32
                .checksum(&[data, &[0]].concat())
                .to_le_bytes()
                .to_vec(),
        };
        let mut reply = [data, &crc, padding].concat();
        cipher.cbc_encrypt(&mut Iv::ZERO.clone(), &mut reply);
        reply
    }

    /// What the caller gets, with room for `room` bytes; whatever it is, nothing is left of the rest.
    fn open(
        cipher: &Cipher,
        crc: ReplyCrc,
        reply: &[u8],
        room: usize,
        length: DataLength,
    ) -> Result<Vec<u8>, ErrorKind> {
        let mut buffer = std::vec![0x5A; room];
        let mut tail = [0; TAIL];
        let places = buffer.iter_mut().chain(&mut tail);
        places.zip(reply).for_each(|(to, from)| *to = *from);
        let mut incoming = Incoming {
            buffer: &mut buffer,
            tail: &mut tail,
            len: reply.len(),
        };
        let len = incoming.decipher(cipher, &mut Iv::ZERO.clone(), crc, length)?;
        assert!(buffer[len..].iter().all(|byte| *byte == 0), "wiped");
        assert_eq!(tail, [0; TAIL]);
        buffer.truncate(len);
        Ok(buffer)
    }

    fn ciphers() -> [(Cipher, ReplyCrc, usize); 3] {
        let two = Key::two_key_3des(*b"one half another").unwrap();
        [
            (Cipher::new(&Key::aes([7; 16])), ReplyCrc::Ev1, 16),
            (Cipher::new(&two), ReplyCrc::Ev1, 8),
            (Cipher::new(&two), ReplyCrc::D40, 8),
        ]
    }

    /// No zero at the end, so that there is one way to read it.
    fn data(len: usize) -> Vec<u8> {
        (1..=len).map(|byte| u8::try_from(byte).unwrap()).collect()
    }

    /// Every padding that a card may use, for data of every length, in a buffer that just has room.
    #[test]
    fn every_padding() {
        for (cipher, crc, block) in ciphers() {
            for len in LENGTHS {
                let data = data(len);
                let missing = (len + crc.len()).next_multiple_of(block) - len - crc.len();
                let zeros = std::vec![0; missing];
                let mut marked = std::vec![0; if missing == 0 { block } else { missing }];
                marked[0] = 0x80;
                for padding in [&zeros, &marked] {
                    let reply = reply(&cipher, crc, &data, padding);
                    for length in [DataLength::Exactly(len), DataLength::Believed(len)] {
                        let opened = open(&cipher, crc, &reply, len, length);
                        assert_eq!(opened.as_ref(), Ok(&data), "{len} {length:?}");
                    }
                    // One byte of room less is too little; another length is another reply.
                    if let Some(less) = len.checked_sub(1) {
                        let exactly = DataLength::Exactly(less);
                        assert!(open(&cipher, crc, &reply, len, exactly).is_err(), "{len}");
                        let unknown = DataLength::UNKNOWN;
                        let opened = open(&cipher, crc, &reply, less, unknown);
                        assert!(opened.is_err(), "{len}");
                    }
                    // Under D40 data and the start of their CRC pass, if zeros follow.
                    if matches!(crc, ReplyCrc::D40) {
                        continue;
                    }
                    let more = DataLength::Exactly(len + 1);
                    assert!(open(&cipher, crc, &reply, len + 1, more).is_err(), "{len}");
                }
                let reply = reply(&cipher, crc, &data, &marked);
                let opened = open(&cipher, crc, &reply, len, DataLength::UNKNOWN);
                assert_eq!(opened, Ok(data), "{len}");
            }
        }
    }

    /// Padding of another form, or a block too much of it, is none.
    #[test]
    fn other_padding() {
        for (cipher, crc, block) in ciphers() {
            for len in LENGTHS {
                let data = data(len);
                let missing = (len + crc.len()).next_multiple_of(block) - len - crc.len();
                let mut ill = Vec::new();
                // A bit in any place, and a whole block of zeros.
                for place in 0..missing {
                    let mut padding = std::vec![0; missing];
                    padding[place] |= 1;
                    ill.push(padding.clone());
                    padding[0] |= 0x80;
                    ill.push(padding);
                }
                ill.push(std::vec![0; missing + block]);
                let mut long = std::vec![0; missing + block];
                long[0] = 0x80;
                if missing > 0 {
                    ill.push(long);
                }
                for padding in ill {
                    let reply = reply(&cipher, crc, &data, &padding);
                    let exactly = DataLength::Exactly(len);
                    let opened = open(&cipher, crc, &reply, len + block, exactly);
                    assert_eq!(
                        opened,
                        Err(Authenticity::CrcWrong.into()),
                        "{len} {padding:02X?}"
                    );
                }
            }
        }
    }

    #[test]
    fn no_blocks() {
        for (cipher, crc, block) in ciphers() {
            for len in [0, 1, block - 1, block + 1] {
                let opened = open(&cipher, crc, &data(len), 64, DataLength::UNKNOWN);
                assert_eq!(opened, Err(Authenticity::CiphertextLength.into()));
            }
        }
    }
}
