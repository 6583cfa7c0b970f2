//! The legacy messaging, after `0A`.
//!
//! The card only ever enciphers. So a reply is deciphered as usual, but a request is made with
//! the *decryption* primitive ("send mode"), and a MAC, which both sides compute, with the
//! encryption primitive. Every operation starts from a zero IV and covers the data alone.
//!
//! Sources: libfreefare and nfcjlib agree; the direction and the CRC16 are confirmed by recorded
//! ChangeKeySettings and ChangeKey; the 4-byte MAC by published vectors only.

use subtle::ConstantTimeEq as _;

use super::ev1::Ev1;
use super::incoming::{Incoming, ReplyCrc};
use super::{ReplyProtection, Request, RequestProtection, Sealed};
use crate::error::{Authenticity, ErrorKind};
use crate::pcd::crypto::cipher::{Cipher, Iv};
use crate::pcd::crypto::crc::CRC16;
use crate::pcd::key::Key;

pub(super) const MAC_LEN: usize = 4;
pub(super) const CRC_LEN: usize = 2;

pub(in crate::pcd) struct D40 {
    cipher: Cipher,
    /// Fills what only the other messaging needs: else whatever lay on the stack would stay there,
    /// and has been found to be a piece of the session key.
    _filler: [u8; size_of::<Ev1>() - size_of::<Cipher>()],
}

impl D40 {
    #[inline]
    pub(super) fn new(key: &Key) -> Self {
        Self {
            cipher: Cipher::new(key),
            _filler: [0; size_of::<Ev1>() - size_of::<Cipher>()],
        }
    }

    pub(super) fn block_len(&self) -> usize {
        self.cipher.block_len()
    }

    #[inline]
    pub(super) fn seal(
        &mut self,
        request: Request<'_>,
        protection: RequestProtection<'_>,
        sealed: &mut Sealed,
    ) {
        let len = request.data.len();
        match protection {
            RequestProtection::Plain => sealed.clear(len, &[]),
            RequestProtection::Mac => sealed.clear(len, &self.mac(request.data)),
            RequestProtection::Enciphered {
                padding,
                second_crc,
            } => {
                let first = CRC16.checksum(request.data).to_le_bytes();
                let second = CRC16.checksum(second_crc).to_le_bytes();
                let second = if second_crc.is_empty() {
                    &[][..]
                } else {
                    &second
                };
                sealed.enciphered(len, [&first, second], padding, self.cipher.block_len())
            }
        }
    }

    #[inline]
    pub(super) fn take(&mut self, sealed: &mut Sealed, data: &[u8], out: &mut [u8]) -> usize {
        sealed.take(data, out, self.cipher.block_len(), |iv, blocks| {
            for blocks in blocks {
                self.cipher.send_mode(iv, blocks);
            }
        })
    }

    #[inline]
    pub(super) fn open(
        &mut self,
        protection: ReplyProtection,
        incoming: &mut Incoming<'_>,
    ) -> Result<usize, ErrorKind> {
        match protection {
            ReplyProtection::None | ReplyProtection::Standard => incoming.as_data(),
            ReplyProtection::Mac => {
                let (len, received) = incoming.split_mac::<MAC_LEN>()?;
                let data = incoming.buffer.get(..len).unwrap_or_default();
                // The MAC of no data is zero under every key. A card that has no data refuses.
                if len == 0 || !bool::from(self.mac(data).ct_eq(&received)) {
                    return Err(Authenticity::MacWrong.into());
                }
                Ok(len)
            }
            ReplyProtection::Enciphered { length } => {
                incoming.decipher(&self.cipher, &mut Iv::ZERO.clone(), ReplyCrc::D40, length)
            }
        }
    }

    /// First half of the last block of CBC over the zero-padded data.
    fn mac(&self, data: &[u8]) -> [u8; MAC_LEN] {
        let mut iv = Iv::ZERO;
        self.cipher.cbc_absorb(&mut iv, data);
        iv.bytes(self.cipher.block_len())
            .first_chunk()
            .copied()
            .unwrap_or_default()
    }
}
