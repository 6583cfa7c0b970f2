//! A session with an authenticated key, and its secure messaging as the card does it.
//!
//! | | D40 (after `0A`) | EV1 (after `1A`, `AA`, ISO) |
//! |---|---|---|
//! | plain request | nothing | CMAC moves the IV, is not sent |
//! | plain reply | nothing | data, CMAC over data and status |
//! | MAC | 4 bytes over the data alone | 8 bytes of the CMAC |
//! | CRC inside ciphertext | CRC16 over the data | CRC32 over code, header, data; of a reply over data and status |
//! | IV | zero every time | carried on |

use alloc::vec::Vec;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::choices::{CHUNK_AES, CHUNK_DES, CHUNK_PLAIN};
use super::crypto::{Cipher, Iv, crc16, crc32};
use crate::wire::{CommMode, Status};

/// What stands in every reply's calculation: the status of success.
const OK: u8 = 0x00;

/// A session.
#[derive(Clone)]
pub(super) struct Session {
    key_no: u8,
    cipher: Cipher,
    messaging: Messaging,
}

#[derive(Clone)]
enum Messaging {
    D40,
    Ev1 { iv: Iv },
}

/// What follows the CRC of an enciphered reply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Padding {
    /// Zeros, none if the block is full: the reader knows the length.
    Zeros,
    /// `80`, then zeros: the reader asked for everything. An exact fit gets a block of its
    /// own, as the padding would otherwise be ambiguous; nobody has recorded one.
    Marked,
}

impl Session {
    pub(super) const fn d40(key_no: u8, cipher: Cipher) -> Self {
        Self {
            key_no,
            cipher,
            messaging: Messaging::D40,
        }
    }

    pub(super) const fn ev1(key_no: u8, cipher: Cipher) -> Self {
        Self {
            key_no,
            cipher,
            messaging: Messaging::Ev1 { iv: [0; 16] },
        }
    }

    /// An EV1 session in the middle, as vectors begin.
    #[cfg(test)]
    pub(super) const fn ev1_at(key_no: u8, cipher: Cipher, iv: Iv) -> Self {
        Self {
            key_no,
            cipher,
            messaging: Messaging::Ev1 { iv },
        }
    }

    #[cfg(test)]
    pub(super) const fn iv(&self) -> Iv {
        match self.messaging {
            Messaging::D40 => [0; 16],
            Messaging::Ev1 { iv } => iv,
        }
    }

    /// The number of the authenticated key.
    pub(super) const fn key_no(&self) -> u8 {
        self.key_no
    }

    pub(super) const fn is_ev1(&self) -> bool {
        matches!(self.messaging, Messaging::Ev1 { .. })
    }

    /// Bytes of payload in a full frame of a reply.
    pub(super) const fn chunk(&self) -> usize {
        match (&self.messaging, &self.cipher) {
            (Messaging::D40, _) => CHUNK_PLAIN,
            (Messaging::Ev1 { .. }, Cipher::Aes(_)) => CHUNK_AES,
            (Messaging::Ev1 { .. }, Cipher::Des(_)) => CHUNK_DES,
        }
    }

    /// Length of a MAC in a request.
    pub(super) const fn mac_len(&self) -> usize {
        match self.messaging {
            Messaging::D40 => 4,
            Messaging::Ev1 { .. } => 8,
        }
    }

    /// Length of a CRC.
    pub(super) const fn crc_len(&self) -> usize {
        match self.messaging {
            Messaging::D40 => 2,
            Messaging::Ev1 { .. } => 4,
        }
    }

    /// Length of `len` bytes once they are padded with zeros.
    pub(super) const fn padded(&self, len: usize) -> usize {
        len.saturating_add(self.cipher.block_len() - 1) / self.cipher.block_len()
            * self.cipher.block_len()
    }

    /// Length of `len` bytes of data once they are enciphered with their CRC.
    pub(super) const fn enciphered(&self, len: usize) -> usize {
        self.padded(len.saturating_add(self.crc_len()))
    }

    /// A request that carries nothing to check: moves the IV of an EV1 session.
    pub(super) fn absorb(&mut self, request: &[&[u8]]) {
        if let Messaging::Ev1 { iv } = &mut self.messaging {
            self.cipher.cmac(iv, &request.concat());
        }
    }

    /// A request with a MAC at its end.
    pub(super) fn check_mac(
        &mut self,
        head: &[&[u8]],
        data: &[u8],
        mac: &[u8],
    ) -> Result<(), Status> {
        let whole = match &mut self.messaging {
            Messaging::D40 => d40_mac(&self.cipher, data),
            Messaging::Ev1 { iv } => {
                let mut message = Zeroizing::new(head.concat());
                message.extend_from_slice(data);
                self.cipher.cmac(iv, &message);
                *iv
            }
        };
        let expected = whole.get(..self.mac_len()).unwrap_or_default();
        if bool::from(expected.ct_eq(mac)) {
            Ok(())
        } else {
            Err(Status::IntegrityError)
        }
    }

    /// The plaintext of an enciphered request: data, CRC and padding, nothing checked.
    pub(super) fn decipher(&mut self, ciphertext: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut data = Zeroizing::new(ciphertext.to_vec());
        match &mut self.messaging {
            Messaging::D40 => self.cipher.receive_d40(&mut data),
            Messaging::Ev1 { iv } => self.cipher.decrypt(iv, &mut data),
        }
        data
    }

    /// The CRC that goes with enciphered data: over the data alone in D40, over all that was
    /// sent in EV1. `head` is the command's code and clear parameters.
    pub(super) fn crc(&self, head: &[&[u8]], data: &[u8]) -> Vec<u8> {
        match self.messaging {
            Messaging::D40 => crc16(data).to_vec(),
            Messaging::Ev1 { .. } => crc32(&[&head.concat(), data]).to_vec(),
        }
    }

    /// The `len` bytes of data in an enciphered request, once CRC and zero padding are right.
    pub(super) fn open(
        &mut self,
        head: &[&[u8]],
        ciphertext: &[u8],
        len: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Status> {
        let mut plain = self.decipher(ciphertext);
        let (data, rest) = plain.split_at_checked(len).ok_or(Status::LengthError)?;
        let (crc, padding) = rest
            .split_at_checked(self.crc_len())
            .ok_or(Status::LengthError)?;
        if crc != self.crc(head, data) || padding.iter().any(|byte| *byte != 0) {
            return Err(Status::IntegrityError);
        }
        plain.truncate(len);
        Ok(plain)
    }

    /// The payload of a reply with status 00.
    pub(super) fn seal(&mut self, mode: CommMode, data: Vec<u8>, padding: Padding) -> Vec<u8> {
        match (&mut self.messaging, mode) {
            (Messaging::D40, CommMode::Plain) => data,
            (Messaging::D40, CommMode::Mac) => {
                let mac = d40_mac(&self.cipher, &data);
                joined(data, mac.iter().take(4))
            }
            (Messaging::Ev1 { iv }, CommMode::Plain | CommMode::Mac) => {
                self.cipher.cmac(iv, &joined(data.clone(), [OK].iter()));
                joined(data, iv.iter().take(8))
            }
            (Messaging::D40, CommMode::Enciphered) => {
                let crc = crc16(&data);
                let mut data = self.pad(joined(data, crc.iter()), padding);
                self.cipher.encrypt(&mut [0; 16], &mut data);
                data
            }
            (Messaging::Ev1 { .. }, CommMode::Enciphered) => {
                let crc = crc32(&[&data, &[OK]]);
                let mut data = self.pad(joined(data, crc.iter()), padding);
                if let Messaging::Ev1 { iv } = &mut self.messaging {
                    self.cipher.encrypt(iv, &mut data);
                }
                data
            }
        }
    }

    fn pad(&self, mut data: Vec<u8>, padding: Padding) -> Vec<u8> {
        if padding == Padding::Marked {
            data.push(0x80);
        }
        data.resize(self.padded(data.len()), 0);
        data
    }
}

/// The MAC of D40: the data alone, padded with zeros, in CBC from zero; 4 bytes of the last
/// block are sent.
fn d40_mac(cipher: &Cipher, data: &[u8]) -> Iv {
    let mut padded = Zeroizing::new(data.to_vec());
    padded.resize(data.len().next_multiple_of(cipher.block_len()), 0);
    let mut iv = [0; 16];
    cipher.encrypt(&mut iv, &mut padded);
    iv
}

fn joined<'a>(mut data: Vec<u8>, more: impl Iterator<Item = &'a u8>) -> Vec<u8> {
    data.extend(more);
    data
}
