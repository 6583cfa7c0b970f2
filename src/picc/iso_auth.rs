//! GET CHALLENGE, EXTERNAL AUTHENTICATE and INTERNAL AUTHENTICATE: an EV1 session in three
//! APDUs.
//!
//! | | reader | card |
//! |---|---|---|
//! | GET CHALLENGE | | RPICC1 |
//! | EXTERNAL AUTHENTICATE | E(RPCD1 ‖ RPICC1), CBC from zero | |
//! | INTERNAL AUTHENTICATE | RPCD2 | E(RPICC2 ‖ RPCD2), CBC going on |
//!
//! The session key comes from RPCD1 and RPICC2. Source: proxmark3, liblogicalaccess; no
//! recording with a known key exists.

use alloc::vec::Vec;

use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::card::Card;
use super::choices::ISO_NO_KEY;
use super::crypto::{Cipher, Iv, session_key};
use super::iso::IsoRefusal;
use super::session::Session;
use crate::wire::apdu::CommandApdu;
use crate::wire::{KeyFamily, KeyType, StatusWord};

/// Bit 7 of P2: a key of the selected application; without it, the PICC master key.
const APPLICATION_KEY: u8 = 0x80;

/// How far an authentication has come.
#[derive(Clone, Default)]
pub(super) enum IsoAuthentication {
    /// Not begun.
    #[default]
    Idle,
    /// The reader has the challenge.
    Challenged { rnd_picc: Zeroizing<Vec<u8>> },
    /// The reader has proved itself.
    ReaderProved(Proved),
}

/// What INTERNAL AUTHENTICATE goes on with.
#[derive(Clone)]
pub(super) struct Proved {
    p1: u8,
    p2: u8,
    key_type: KeyType,
    cipher: Cipher,
    rnd_pcd: Zeroizing<Vec<u8>>,
    iv: Iv,
}

impl Card {
    /// Le 8 or 16; Le 00 gives 8 bytes at a level of DES keys (report on SO), 16 elsewhere.
    pub(super) fn get_challenge(&mut self, apdu: &CommandApdu<'_>) -> Result<Vec<u8>, IsoRefusal> {
        if (apdu.p1, apdu.p2) != (0, 0) {
            return Err(StatusWord::WRONG_P1_P2.into());
        }
        let level = self.state().level(self.field.selected);
        let len = match (apdu.data, apdu.le) {
            ([], Some(8)) => 8,
            ([], Some(16)) => 16,
            ([], Some(256)) => match level.map(|(_, info)| info.family()) {
                Some(KeyFamily::Des) => 8,
                _ => 16,
            },
            _ => return Err(StatusWord::WRONG_LENGTH.into()),
        };
        let rnd_picc = self.random.nonce(len);
        let challenge = rnd_picc.to_vec();
        self.field.iso.authentication = IsoAuthentication::Challenged { rnd_picc };
        Ok(challenge)
    }

    pub(super) fn external_authenticate(
        &mut self,
        apdu: &CommandApdu<'_>,
        before: IsoAuthentication,
    ) -> Result<Vec<u8>, IsoRefusal> {
        self.field.session = None;
        let IsoAuthentication::Challenged { rnd_picc } = before else {
            return Err(StatusWord::CONDITIONS_NOT_SATISFIED.into());
        };
        let (key_type, cipher) = self.iso_key(apdu.p1, apdu.p2)?;
        let nonce_len = key_type.nonce_len();
        // A trailing Le is refused (report on SO).
        if apdu.data.len() != nonce_len.saturating_mul(2) || apdu.le.is_some() {
            return Err(StatusWord::WRONG_LENGTH.into());
        }
        let mut iv = [0; 16];
        let mut plain = Zeroizing::new(apdu.data.to_vec());
        cipher.decrypt(&mut iv, &mut plain);
        let (rnd_pcd, answer) = plain
            .split_at_checked(nonce_len)
            .ok_or(StatusWord::WRONG_LENGTH)?;
        if !bool::from(rnd_picc.ct_eq(answer)) {
            return Err(StatusWord::SECURITY_NOT_SATISFIED.into());
        }
        self.field.iso.authentication = IsoAuthentication::ReaderProved(Proved {
            p1: apdu.p1,
            p2: apdu.p2,
            key_type,
            rnd_pcd: Zeroizing::new(rnd_pcd.to_vec()),
            cipher,
            iv,
        });
        Ok(Vec::new())
    }

    pub(super) fn internal_authenticate(
        &mut self,
        apdu: &CommandApdu<'_>,
        before: IsoAuthentication,
    ) -> Result<Vec<u8>, IsoRefusal> {
        let IsoAuthentication::ReaderProved(mut proved) = before else {
            return Err(StatusWord::CONDITIONS_NOT_SATISFIED.into());
        };
        if (apdu.p1, apdu.p2) != (proved.p1, proved.p2) {
            return Err(StatusWord::WRONG_P1_P2.into());
        }
        let nonce_len = proved.key_type.nonce_len();
        let answer_len = u16::try_from(nonce_len.saturating_mul(2)).unwrap_or(u16::MAX);
        let right_le = apdu.le == Some(256) || apdu.le == Some(answer_len);
        if apdu.data.len() != nonce_len || !right_le {
            return Err(StatusWord::WRONG_LENGTH.into());
        }
        let rnd_picc = self.random.nonce(nonce_len);
        let mut proof = [&rnd_picc, apdu.data].concat();
        proved.cipher.encrypt(&mut proved.iv, &mut proof);

        let key = session_key(proved.key_type, &proved.rnd_pcd, &rnd_picc);
        let cipher = Cipher::new(proved.key_type, &key);
        let number = proved.p2 & !APPLICATION_KEY;
        self.field.session = Some(Session::ev1(number, cipher));
        Ok(proof)
    }

    /// The key of P2, if its type is that of P1.
    fn iso_key(&self, p1: u8, p2: u8) -> Result<(KeyType, Cipher), StatusWord> {
        let number = p2 & !APPLICATION_KEY;
        let application_key = p2 & APPLICATION_KEY != 0;
        if application_key == self.field.selected.is_picc() || (!application_key && number != 0) {
            return Err(ISO_NO_KEY);
        }
        let (_, key) = self.key(number).map_err(|_| ISO_NO_KEY)?;
        let fits = match p1 {
            0x00 => true,
            0x02 => key.family() == KeyFamily::Des,
            0x04 => key.family() == KeyFamily::ThreeKey3Des,
            0x09 => key.family() == KeyFamily::Aes,
            _ => false,
        };
        if fits {
            Ok((key.key_type(), key.cipher()))
        } else {
            Err(ISO_NO_KEY)
        }
    }
}
