//! ChangeKey, GetKeyVersion, ChangeKeySettings and GetKeySettings.

use alloc::vec::Vec;

use zeroize::Zeroizing;

use super::card::Card;
use super::choices::{
    CHANGE_KEY_CHANGES_ITSELF, FROZEN, KEY_TYPE_IN_APPLICATION, MASTER_CHANGES_CHANGE_KEY,
    SHOW_ISO_FILE_ID_BIT, WRONG_KEY_FOR_CHANGE,
};
use super::key::CardKey;
use super::reply::{Refusal, Reply};
use crate::wire::{
    ChangeKeyAccess, CommMode, CommandCode, KeyFamily, KeyFlags, KeyNo, KeySettings, Status,
};

/// The bits of ChangeKey's key number that hold the number.
const NUMBER_BITS: u8 = 0x3F;

/// The bit of key settings byte 2 that allows files ISO FIDs.
const ISO_FILE_ID_BIT: u8 = 0x20;

impl Card {
    pub(super) fn change_key(&mut self, params: &[u8]) -> Result<Reply, Refusal> {
        let (number, cryptogram) = params.split_first().ok_or(Status::LengthError)?;
        let session_key = match &self.field.session {
            Some(session) => session.key_no(),
            None => return Err(Status::AuthenticationError.into()),
        };
        let at_picc = self.field.selected.is_picc();
        let type_bits = *number & !NUMBER_BITS;
        if !at_picc && type_bits != 0 {
            return Err(KEY_TYPE_IN_APPLICATION.into());
        }
        let (key_no, old) = self.key(number & NUMBER_BITS)?;
        let family = if at_picc {
            KeyFamily::from_bits(type_bits)
        } else {
            old.family()
        };
        if family == KeyFamily::Unknown {
            return Err(Status::ParameterError.into());
        }
        let old = old.clone();
        self.may_change_key(key_no, session_key)?;
        let own = key_no.number() == session_key;
        let new = self.open_new_key(*number, cryptogram, family, (!own).then_some(&old))?;

        let aid = self.field.selected;
        self.eeprom.change(|state| {
            if aid.is_picc() {
                state.picc_key = new;
            } else if let Some(slot) = state
                .application_mut(aid)
                .and_then(|app| app.keys.get_mut(usize::from(key_no.number())))
            {
                *slot = new;
            }
        })?;
        if own {
            // Fifteen recordings: bare 00, and the session is over.
            self.field.session = None;
            return Ok(Reply::bare(Vec::new()));
        }
        Ok(Reply::done())
    }

    /// Who may change which key.
    fn may_change_key(&self, target: KeyNo, session_key: u8) -> Result<(), Status> {
        let settings = self.settings()?;
        let allowed = if target.is_master() {
            if !settings.flags.contains(KeyFlags::MASTER_KEY_CHANGEABLE) {
                return Err(FROZEN);
            }
            session_key == 0
        } else {
            match settings.change_key {
                ChangeKeyAccess::MasterKey => session_key == 0,
                ChangeKeyAccess::Key(key) if key == target => {
                    (MASTER_CHANGES_CHANGE_KEY && session_key == 0)
                        || (CHANGE_KEY_CHANGES_ITSELF && session_key == key.number())
                }
                ChangeKeyAccess::Key(key) => session_key == key.number(),
                ChangeKeyAccess::SameKey => session_key == target.number(),
                ChangeKeyAccess::Frozen => return Err(FROZEN),
            }
        };
        if allowed {
            Ok(())
        } else {
            Err(WRONG_KEY_FOR_CHANGE)
        }
    }

    /// The key in a cryptogram. `old` is the stored key if it is not the one authenticated
    /// with: then the new key comes XORed with it and has a CRC of its own.
    fn open_new_key(
        &mut self,
        number: u8,
        cryptogram: &[u8],
        family: KeyFamily,
        old: Option<&CardKey>,
    ) -> Result<CardKey, Status> {
        let session = self
            .field
            .session
            .as_mut()
            .ok_or(Status::AuthenticationError)?;
        let crc_len = session.crc_len();
        let version_len = usize::from(family == KeyFamily::Aes);
        let data_len = family.key_len().saturating_add(version_len);
        let crcs = if old.is_some() { 2 } else { 1 };
        let len = data_len.saturating_add(crc_len.saturating_mul(crcs));
        if cryptogram.len() != session.padded(len) {
            return Err(Status::LengthError);
        }

        let plain = session.decipher(cryptogram);
        let (data, rest) = plain
            .split_at_checked(data_len)
            .ok_or(Status::LengthError)?;
        let (crc, rest) = rest.split_at_checked(crc_len).ok_or(Status::LengthError)?;
        // The key number counts as sent, with the type bits.
        if crc != session.crc(&[&[CommandCode::ChangeKey.to_byte(), number]], data) {
            return Err(Status::IntegrityError);
        }
        let (key, version) = data
            .split_at_checked(family.key_len())
            .ok_or(Status::LengthError)?;
        let mut key = Zeroizing::new(key.to_vec());
        let mut padding = rest;
        if let Some(old) = old {
            for (byte, other) in key.iter_mut().zip(old.bytes()) {
                *byte ^= other;
            }
            // Over the new key alone: no version, no header.
            let (crc, after) = rest.split_at_checked(crc_len).ok_or(Status::LengthError)?;
            if crc != session.crc(&[], &key) {
                return Err(Status::IntegrityError);
            }
            padding = after;
        }
        if padding.iter().any(|byte| *byte != 0) {
            return Err(Status::IntegrityError);
        }
        let version = version.first().copied().unwrap_or(0);
        Ok(CardKey::of(family, &key, version))
    }

    pub(super) fn get_key_version(&self, params: &[u8]) -> Result<Reply, Refusal> {
        let number = params.first().copied().ok_or(Status::LengthError)?;
        let (_, key) = self.key(number)?;
        Ok(Reply::data([key.version()].to_vec()))
    }

    pub(super) fn change_key_settings(&mut self, params: &[u8]) -> Result<Reply, Refusal> {
        if self.field.session.is_none() {
            return Err(Status::AuthenticationError.into());
        }
        if params.len() != self.request_len(CommMode::Enciphered, 1) {
            return Err(Status::LengthError.into());
        }
        if !self
            .settings()?
            .flags
            .contains(KeyFlags::SETTINGS_CHANGEABLE)
        {
            return Err(FROZEN.into());
        }
        self.require_master()?;
        let data = self.open_request(
            CommMode::Enciphered,
            CommandCode::ChangeKeySettings,
            &[],
            params,
            1,
        )?;
        let settings = KeySettings::from_byte(data.first().copied().ok_or(Status::LengthError)?);
        let aid = self.field.selected;
        self.eeprom.change(|state| {
            if aid.is_picc() {
                state.picc_settings = settings;
            } else if let Some(app) = state.application_mut(aid) {
                app.settings = settings;
            }
        })?;
        Ok(Reply::done())
    }

    pub(super) fn get_key_settings(&self) -> Result<Reply, Refusal> {
        self.require_master_unless(KeyFlags::FREE_LISTING)?;
        let (settings, info) = self
            .state()
            .level(self.field.selected)
            .ok_or(Status::PermissionDenied)?;
        let mut info = info.to_byte();
        if !SHOW_ISO_FILE_ID_BIT {
            info &= !ISO_FILE_ID_BIT;
        }
        Ok(Reply::data([settings.to_byte(), info].to_vec()))
    }
}
