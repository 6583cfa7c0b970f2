//! The EV1 messaging, after `1A` and `AA`.
//!
//! One IV runs through everything: it becomes the CMAC of every command that is not enciphered
//! and of every reply that is not, and the last ciphertext block of every transfer that is.
//! Continuation frames enter nothing.
//!
//! Every row is confirmed by recordings of EV1 and EV3 cards (RFDoorLock, desox), value commands
//! in MACed and enciphered mode by two implementations only.

use subtle::ConstantTimeEq as _;

#[cfg(feature = "split")]
use super::DataLength;
use super::incoming::{Incoming, ReplyCrc};
use super::{ReplyProtection, Request, RequestProtection, Sealed};
#[cfg(feature = "split")]
use crate::error::Misuse;
use crate::error::{Authenticity, ErrorKind};
use crate::pcd::crypto::cipher::{Cipher, Iv};
use crate::pcd::crypto::cmac::{Subkeys, cmac};
use crate::pcd::crypto::crc::CRC32;
use crate::pcd::key::Key;
#[cfg(feature = "split")]
use crate::wire::Writer;

/// The first bytes of the CMAC are sent, the rest stays in the IV.
pub(super) const MAC_LEN: usize = 8;
pub(super) const CRC_LEN: usize = 4;

/// The status that ends a reply with data or MAC.
const STATUS_OK: [u8; 1] = [0x00];

pub(in crate::pcd) struct Ev1 {
    cipher: Cipher,
    subkeys: Subkeys,
    iv: Iv,
}

impl Ev1 {
    #[inline]
    pub(super) fn new(key: &Key) -> Self {
        // The schedule stays where it is made: moved, it would leave a copy behind.
        let mut ev1 = Self {
            cipher: Cipher::new(key),
            subkeys: Subkeys::NONE,
            iv: Iv::ZERO,
        };
        ev1.subkeys = Subkeys::new(&ev1.cipher);
        ev1
    }

    #[cfg(any(feature = "internals", feature = "split"))]
    pub(super) fn iv(&self) -> &[u8] {
        self.iv.bytes(self.block_len())
    }

    #[cfg(any(feature = "internals", feature = "split"))]
    pub(super) fn set_iv(&mut self, iv: Iv) {
        self.iv = iv;
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
        let Request { code, header, data } = request;
        match protection {
            RequestProtection::Plain => {
                self.mac(&[&[code], header, data]);
                sealed.clear(data.len(), &[])
            }
            RequestProtection::Mac => {
                let mac = self.mac(&[&[code], header, data]);
                sealed.clear(data.len(), &mac)
            }
            RequestProtection::Enciphered {
                padding,
                second_crc,
            } => {
                let mut digest = CRC32.digest();
                digest.update(&[code]);
                digest.update(header);
                digest.update(data);
                let first = digest.finalize().to_le_bytes();
                let second = CRC32.checksum(second_crc).to_le_bytes();
                let second = if second_crc.is_empty() {
                    &[][..]
                } else {
                    &second
                };
                sealed.enciphered(
                    data.len(),
                    [&first, second],
                    padding,
                    self.cipher.block_len(),
                )
            }
        }
    }

    #[inline]
    pub(super) fn take(&mut self, sealed: &mut Sealed, data: &[u8], out: &mut [u8]) -> usize {
        let Self { cipher, iv, .. } = self;
        sealed.take(data, out, cipher.block_len(), |_, blocks| {
            cipher.cbc_encrypt_both(iv, blocks);
        })
    }

    #[inline]
    pub(super) fn open(
        &mut self,
        protection: ReplyProtection,
        incoming: &mut Incoming<'_>,
    ) -> Result<usize, ErrorKind> {
        match protection {
            ReplyProtection::None => incoming.as_data(),
            ReplyProtection::Standard | ReplyProtection::Mac => {
                let (len, received) = incoming.split_mac::<MAC_LEN>()?;
                let data = incoming.buffer.get(..len).unwrap_or_default();
                let expected = self.mac(&[data, &STATUS_OK]);
                // As numbers: in constant time, but not a byte at a time.
                let [expected, received] = [expected, received].map(u64::from_le_bytes);
                if !bool::from(expected.ct_eq(&received)) {
                    return Err(Authenticity::MacWrong.into());
                }
                Ok(len)
            }
            ReplyProtection::Enciphered { length } => {
                incoming.decipher(&self.cipher, &mut self.iv, ReplyCrc::Ev1, length)
            }
        }
    }

    /// The reply that the card would make, from a copy of the chain.
    #[cfg(feature = "split")]
    pub(super) fn foresee(
        &self,
        protection: ReplyProtection,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Misuse> {
        let mut iv = self.iv.clone();
        let mut writer = Writer::new(out);
        writer.put(data)?;
        match protection {
            ReplyProtection::None => {}
            ReplyProtection::Standard | ReplyProtection::Mac => {
                cmac(&self.cipher, &self.subkeys, &mut iv, &[data, &STATUS_OK]);
                let mac = iv.bytes(self.block_len()).get(..MAC_LEN);
                writer.put(mac.unwrap_or_default())?;
            }
            ReplyProtection::Enciphered { length } => {
                // Nobody has recorded how a card pads an answer of unstated length that fits
                // exactly.
                if !matches!(length, DataLength::Exactly(len) | DataLength::Believed(len) if len == data.len())
                {
                    return Err(Misuse::Invalid(
                        "an enciphered reply can be foreseen only if the command states its length",
                    ));
                }
                let mut digest = CRC32.digest();
                digest.update(data);
                digest.update(&STATUS_OK);
                writer.put(&digest.finalize().to_le_bytes())?;
                while !writer.written().is_multiple_of(self.block_len()) {
                    writer.u8(0)?;
                }
                let len = writer.written();
                let blocks = out.get_mut(..len).unwrap_or_default();
                self.cipher.cbc_encrypt(&mut iv, blocks);
                return Ok(len);
            }
        }
        Ok(writer.written())
    }

    /// Moves the IV on to the CMAC over the parts; returns what of it is sent.
    #[inline]
    fn mac(&mut self, parts: &[&[u8]]) -> [u8; MAC_LEN] {
        cmac(&self.cipher, &self.subkeys, &mut self.iv, parts);
        self.iv
            .bytes(self.cipher.block_len())
            .first_chunk()
            .copied()
            .unwrap_or_default()
    }
}
