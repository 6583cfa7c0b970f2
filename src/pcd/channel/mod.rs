//! Secure messaging: what happens to a request before it is cut into frames, and to a reply
//! before it is decoded.
//!
//! For: IVs, MACs, CRCs, padding and encipherment, of both messagings. May know: keys, the
//! command code and the split of a request into clear header and protected data. May not know:
//! frames, `AF`, what a command means. This is the only place where an IV changes, and the only
//! way from a reply's bytes to data: what [`Channel::open`] has not checked does not exist.
//!
//! | | D40 ([`d40`], after `0A`) | EV1 ([`ev1`], after `1A`, `AA`) |
//! |---|---|---|
//! | IV | zero at every operation | runs on through every command and reply |
//! | plain | nothing | CMAC over command and reply; the reply's is sent |
//! | MACed | 4 bytes over the data | 8 bytes of the CMAC over everything |
//! | enciphered | CRC16 over the data | CRC32 over everything |
//!
//! Sources: libfreefare `mifare_desfire_crypto.c`, nfcjlib `DESFireEV1.java`, proxmark3
//! `desfirecrypto.c`; each row of EV1 and the direction of D40 are confirmed by recordings, see
//! `tests/recordings.rs`.

mod d40;
mod ev1;
mod incoming;
mod sealed;

use crate::error::{ErrorKind, Malformed, Misuse};
use crate::pcd::auth::{Messaging, SessionKey};

use d40::D40;
use ev1::Ev1;
pub(in crate::pcd) use incoming::{Incoming, TAIL};
pub(in crate::pcd) use sealed::Sealed;

/// A request before protection: `code ‖ header ‖ data`.
#[derive(Clone, Copy)]
pub(in crate::pcd) struct Request<'a> {
    pub(in crate::pcd) code: u8,
    /// Parameters that travel in clear in every mode.
    pub(in crate::pcd) header: &'a [u8],
    /// What the protection is for.
    pub(in crate::pcd) data: &'a [u8],
}

/// What is done to a request.
#[derive(Clone, Copy)]
pub enum RequestProtection<'a> {
    Plain,
    Mac,
    Enciphered {
        padding: Padding,
        /// ChangeKey of another key adds a CRC over the new key behind the first CRC; empty
        /// where there is none.
        second_crc: &'a [u8],
    },
}

/// How an enciphered request is filled up to whole blocks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Padding {
    /// `00…`, none if nothing is missing: the card knows the length.
    Zeros,
    /// `80 00…`: the card has to find the end (SetConfiguration's ATS).
    Marked,
}

/// What must have been done to a reply.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ReplyProtection {
    /// Outside secure messaging: the command has ended the session.
    None,
    /// As for every command without a mode of its own: a CMAC in an EV1 session, otherwise
    /// nothing.
    Standard,
    /// File data of a MACed exchange.
    Mac,
    /// Enciphered data.
    Enciphered { length: DataLength },
}

/// How many bytes of data a reply holds, as far as that is known before it comes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DataLength {
    /// The command says it, or the size of the file does.
    Exactly(usize),
    /// The caller says it, and neither the command nor the session can tell whether that is right.
    Believed(usize),
    /// Any number of records of this size.
    MultipleOf(usize),
}

impl DataLength {
    /// Any number of bytes.
    pub const UNKNOWN: Self = Self::MultipleOf(1);

    pub(in crate::pcd) const fn allows(self, len: usize) -> bool {
        match self {
            Self::Exactly(expected) | Self::Believed(expected) => len == expected,
            Self::MultipleOf(size) => len.is_multiple_of(size),
        }
    }

    /// Refuses a reply of another length.
    pub(in crate::pcd) fn check(self, received: usize) -> Result<(), Malformed> {
        match self {
            _ if self.allows(received) => Ok(()),
            Self::Exactly(expected) | Self::Believed(expected) => {
                Err(Malformed::Length { expected, received })
            }
            Self::MultipleOf(_) => Err(Malformed::RecordSize),
        }
    }
}

/// The state of secure messaging with one card.
pub(in crate::pcd) enum Channel {
    /// No authentication.
    Open,
    D40(D40),
    Ev1(Ev1),
    /// Reader and card no longer agree; keys are gone.
    Lost,
}

impl Channel {
    /// The channel that a handshake has opened.
    #[inline]
    pub(in crate::pcd) fn new(key: &SessionKey) -> Self {
        match key.messaging() {
            Messaging::D40 => Self::D40(D40::new(key.key())),
            Messaging::Ev1 => Self::Ev1(Ev1::new(key.key())),
        }
    }

    #[cfg(any(feature = "internals", feature = "split"))]
    pub(in crate::pcd) fn iv(&self) -> Option<&[u8]> {
        match self {
            Self::Ev1(ev1) => Some(ev1.iv()),
            _ => None,
        }
    }

    #[cfg(any(feature = "internals", feature = "split"))]
    pub(in crate::pcd) fn set_iv(&mut self, iv: crate::pcd::crypto::cipher::Iv) {
        if let Self::Ev1(ev1) = self {
            ev1.set_iv(iv);
        }
    }

    /// How many bytes a request's data become.
    pub(in crate::pcd) fn sealed_len(
        &self,
        data_len: usize,
        protection: RequestProtection<'_>,
    ) -> usize {
        let (mac_len, crc_len, block_len) = match self {
            Self::Open | Self::Lost => (0, 0, 1),
            Self::D40(d40) => (d40::MAC_LEN, d40::CRC_LEN, d40.block_len()),
            Self::Ev1(ev1) => (ev1::MAC_LEN, ev1::CRC_LEN, ev1.block_len()),
        };
        match protection {
            RequestProtection::Plain => data_len,
            RequestProtection::Mac => data_len.saturating_add(mac_len),
            RequestProtection::Enciphered {
                padding,
                second_crc,
            } => {
                let crcs = if second_crc.is_empty() { 1 } else { 2 };
                data_len
                    .saturating_add(crcs * crc_len)
                    .saturating_add(usize::from(padding == Padding::Marked))
                    .next_multiple_of(block_len)
            }
        }
    }

    /// Protects a request, which becomes `sealed`. From here on the channel's state counts on it being
    /// sent.
    pub(in crate::pcd) fn seal(
        &mut self,
        request: Request<'_>,
        protection: RequestProtection<'_>,
        sealed: &mut Sealed,
    ) -> Result<(), Misuse> {
        match (self, protection) {
            (Self::Lost, _) => return Err(Misuse::SessionLost),
            (Self::Open, RequestProtection::Plain) => sealed.clear(request.data.len(), &[]),
            // In clear without a session a key or a setting would be there for all to see.
            (Self::Open, _) => return Err(Misuse::NotAuthenticated),
            (Self::D40(d40), protection) => d40.seal(request, protection, sealed),
            (Self::Ev1(ev1), protection) => ev1.seal(request, protection, sealed),
        }
        Ok(())
    }

    /// Puts the next bytes of a protected request into `out`; returns how many.
    pub(in crate::pcd) fn take(
        &mut self,
        sealed: &mut Sealed,
        data: &[u8],
        out: &mut [u8],
    ) -> usize {
        match self {
            Self::Open | Self::Lost => sealed.take_clear(data, out),
            Self::D40(d40) => d40.take(sealed, data, out),
            Self::Ev1(ev1) => ev1.take(sealed, data, out),
        }
    }

    /// Whether a reply under `protection` can be opened at all.
    pub(in crate::pcd) fn check(&self, protection: ReplyProtection) -> Result<(), Misuse> {
        match (self, protection) {
            (Self::Lost, _) => Err(Misuse::SessionLost),
            (Self::Open, ReplyProtection::Mac | ReplyProtection::Enciphered { .. }) => {
                Err(Misuse::NotAuthenticated)
            }
            _ => Ok(()),
        }
    }

    /// What the card would answer from this state, `data` under `protection`, put into `out`. The
    /// channel itself does not move: that happens when the reply is opened.
    #[cfg(feature = "split")]
    pub(in crate::pcd) fn foresee(
        &self,
        protection: ReplyProtection,
        data: &[u8],
        out: &mut [u8],
    ) -> Result<usize, Misuse> {
        self.check(protection)?;
        match self {
            Self::Ev1(ev1) => ev1.foresee(protection, data, out),
            _ => Err(Misuse::NotAuthenticated),
        }
    }

    /// Checks a reply and lays its data open at the front of the buffer; returns their length.
    ///
    /// On an error the buffer may hold anything; the caller wipes it.
    pub(in crate::pcd) fn open(
        &mut self,
        protection: ReplyProtection,
        incoming: &mut Incoming<'_>,
    ) -> Result<usize, ErrorKind> {
        self.check(protection)?;
        match self {
            Self::Open | Self::Lost => incoming.as_data(),
            Self::D40(d40) => d40.open(protection, incoming),
            Self::Ev1(ev1) => ev1.open(protection, incoming),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Key;
    use crate::error::Authenticity;
    use crate::pcd::channel::incoming::TAIL;

    fn d40() -> Channel {
        let key = Key::two_key_3des(*b"one half another").unwrap();
        Channel::new(&SessionKey::new(Messaging::D40, key))
    }

    fn ev1(key: Key) -> Channel {
        Channel::new(&SessionKey::new(Messaging::Ev1, key))
    }

    fn aes() -> Channel {
        ev1(Key::aes(*b"an AES-128 key.."))
    }

    /// What the channel makes of a reply of these bytes, with room for as many.
    fn open(
        channel: &mut Channel,
        protection: ReplyProtection,
        bytes: &[u8],
    ) -> Result<usize, ErrorKind> {
        let mut buffer = bytes.to_vec();
        let mut tail = [0; TAIL];
        let len = bytes.len();
        channel.open(
            protection,
            &mut Incoming {
                buffer: &mut buffer,
                tail: &mut tail,
                len,
            },
        )
    }

    /// The lengths that the command table has, MAC of 4 or 8 bytes, CRC of 2 or 4, whole blocks.
    #[test]
    fn how_long_requests_become() {
        let enciphered = |padding, second_crc| RequestProtection::Enciphered {
            padding,
            second_crc,
        };
        let zeros = enciphered(Padding::Zeros, &[]);
        let marked = enciphered(Padding::Marked, &[]);
        let twice = enciphered(Padding::Zeros, &[1, 2, 3]);
        let (plain, mac) = (RequestProtection::Plain, RequestProtection::Mac);
        let two = || ev1(Key::two_key_3des(*b"one half another").unwrap());
        for (mut channel, protection, len, expected) in [
            (Channel::Open, plain, 5, 5),
            (d40(), plain, 5, 5),
            (d40(), mac, 5, 9),
            (d40(), zeros, 6, 8),
            (d40(), zeros, 7, 16),
            (d40(), marked, 5, 8),
            (d40(), marked, 6, 16),
            (d40(), twice, 4, 8),
            (d40(), twice, 5, 16),
            (aes(), plain, 5, 5),
            (aes(), mac, 5, 13),
            (aes(), zeros, 12, 16),
            (aes(), zeros, 13, 32),
            (aes(), marked, 11, 16),
            (aes(), marked, 12, 32),
            (aes(), twice, 8, 16),
            (aes(), twice, 9, 32),
            (two(), zeros, 4, 8),
            (two(), zeros, 5, 16),
        ] {
            assert_eq!(channel.sealed_len(len, protection), expected);
            // And so long they are.
            let data = std::vec![7; len];
            let request = Request {
                code: 0x3D,
                header: &[1],
                data: &data,
            };
            let mut sealed = Sealed::empty();
            channel.seal(request, protection, &mut sealed).unwrap();
            let mut out = [0; 64];
            assert_eq!(channel.take(&mut sealed, &data, &mut out), expected);
        }
    }

    /// What has to be proved is not taken where nothing can prove it.
    #[test]
    fn nothing_is_taken_unproved() {
        let enciphered = ReplyProtection::Enciphered {
            length: DataLength::UNKNOWN,
        };
        for protection in [ReplyProtection::Mac, enciphered] {
            let refused = Err(Misuse::NotAuthenticated);
            assert_eq!(Channel::Open.check(protection), refused);
            let opened = open(&mut Channel::Open, protection, &[0; 16]);
            assert_eq!(opened, Err(Misuse::NotAuthenticated.into()));
            assert!(open(&mut d40(), protection, &[0; 16]).is_err());
            assert!(open(&mut aes(), protection, &[0; 16]).is_err());
        }
        for protection in [
            ReplyProtection::None,
            ReplyProtection::Standard,
            ReplyProtection::Mac,
            enciphered,
        ] {
            assert_eq!(Channel::Lost.check(protection), Err(Misuse::SessionLost));
            let opened = open(&mut Channel::Lost, protection, &[0; 16]);
            assert_eq!(opened, Err(Misuse::SessionLost.into()));
        }
        let standard = ReplyProtection::Standard;
        assert_eq!(
            open(&mut aes(), standard, &[0; 16]),
            Err(Authenticity::MacWrong.into())
        );
        assert_eq!(
            open(&mut aes(), standard, &[0; 7]),
            Err(Authenticity::MacMissing.into())
        );
        // Outside secure messaging every channel gives what came.
        for mut channel in [Channel::Open, d40(), aes()] {
            assert_eq!(open(&mut channel, ReplyProtection::None, &[0; 3]), Ok(3));
        }
        for mut channel in [Channel::Open, d40()] {
            assert_eq!(open(&mut channel, standard, &[0; 3]), Ok(3));
        }
    }
}
