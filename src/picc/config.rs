//! SetConfiguration.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::card::Card;
use super::choices::BAD_CONFIGURATION;
use super::key::DefaultKey;
use super::reply::{Refusal, Reply};
use super::state::is_ats;
use crate::wire::{CommMode, CommandCode, Status};

/// Length of a default key with its version.
const DEFAULT_KEY_LEN: usize = 25;

/// Option 00, bit 0.
const DISABLE_FORMAT: u8 = 0x01;
/// Option 00, bit 1.
const RANDOM_ID: u8 = 0x02;

impl Card {
    pub(super) fn set_configuration(&mut self, params: &[u8]) -> Result<Reply, Refusal> {
        let (option, data) = params.split_at_checked(1).ok_or(Status::LengthError)?;
        if self.field.session.is_none() {
            return Err(Status::AuthenticationError.into());
        }
        match option {
            [0x00] => {
                let data = self.open_configuration(option, data, 1)?;
                let flags = data.first().copied().ok_or(Status::LengthError)?;
                if flags & !(DISABLE_FORMAT | RANDOM_ID) != 0 {
                    return Err(BAD_CONFIGURATION.into());
                }
                // Neither can ever be taken back.
                self.eeprom.change(|state| {
                    state.configuration.format_disabled |= flags & DISABLE_FORMAT != 0;
                    state.configuration.random_id |= flags & RANDOM_ID != 0;
                })?;
            }
            [0x01] => {
                let data = self.open_configuration(option, data, DEFAULT_KEY_LEN)?;
                let key = data.first_chunk().ok_or(Status::LengthError)?;
                let key = DefaultKey::from_bytes(key);
                self.eeprom
                    .change(|state| state.configuration.default_key = key)?;
            }
            [0x02] => {
                let ats = self.open_ats(option, data)?;
                if !is_ats(&ats) {
                    return Err(BAD_CONFIGURATION.into());
                }
                // Shows at the next activation.
                self.eeprom.change(|state| state.configuration.ats = ats)?;
            }
            _ => return Err(BAD_CONFIGURATION.into()),
        }
        Ok(Reply::done())
    }

    fn open_configuration(
        &mut self,
        option: &[u8],
        data: &[u8],
        len: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Status> {
        if data.len() != self.request_len(CommMode::Enciphered, len) {
            return Err(Status::LengthError);
        }
        self.require_master()?;
        self.open_request(
            CommMode::Enciphered,
            CommandCode::SetConfiguration,
            option,
            data,
            len,
        )
    }

    /// The one request whose length is not known beforehand: `80` and zeros follow the CRC.
    fn open_ats(&mut self, option: &[u8], data: &[u8]) -> Result<Vec<u8>, Status> {
        self.require_master()?;
        let session = self
            .field
            .session
            .as_mut()
            .ok_or(Status::AuthenticationError)?;
        if session.padded(data.len()) != data.len() {
            return Err(Status::LengthError);
        }
        let plain = session.decipher(data);
        let marker = plain.iter().rposition(|byte| *byte != 0);
        let (unpadded, _) = marker
            .filter(|marker| plain.get(*marker) == Some(&0x80))
            .and_then(|marker| plain.split_at_checked(marker))
            .ok_or(Status::IntegrityError)?;
        let (ats, crc) = unpadded
            .len()
            .checked_sub(session.crc_len())
            .and_then(|len| unpadded.split_at_checked(len))
            .ok_or(Status::IntegrityError)?;
        let code = [CommandCode::SetConfiguration.to_byte()];
        if crc != session.crc(&[&code, option], ats) {
            return Err(Status::IntegrityError);
        }
        Ok(ats.to_vec())
    }
}
