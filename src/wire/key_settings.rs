//! Key settings: what a level allows without its master key, and which keys it has.

use core::fmt;

use super::{KeyFamily, KeyNo, WireError};

bitflags::bitflags! {
    /// Bits 3 to 0 of key settings byte 1.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub struct KeyFlags: u8 {
        /// The master key of this level can be changed. Cleared: frozen for ever.
        const MASTER_KEY_CHANGEABLE = 0b0001;
        /// Listing applications or files, and reading their settings, is free. Cleared: only
        /// with the master key.
        const FREE_LISTING = 0b0010;
        /// Creating and deleting applications or files is free. Cleared: only with the
        /// master key. (Deleting an application from the PICC level always needs the PICC
        /// master key.)
        const FREE_CREATE_DELETE = 0b0100;
        /// These settings can be changed. Cleared: frozen for ever.
        const SETTINGS_CHANGEABLE = 0b1000;
    }
}

/// Which key an application asks for before it changes a key other than its master key:
/// bits 7 to 4 of key settings byte 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ChangeKeyAccess {
    /// `0`: the application master key.
    MasterKey,
    /// `1`–`D`: this key.
    Key(KeyNo),
    /// `E`: the key that is to be changed.
    SameKey,
    /// `F`: none; all keys but the master key are frozen.
    Frozen,
}

/// Key settings byte 1 of an application or of the PICC.
///
/// ```
/// use desfire_ev1::wire::{ChangeKeyAccess, KeyFlags, KeySettings};
///
/// let settings = KeySettings::from_byte(0x0F);
/// assert_eq!(settings, KeySettings::DEFAULT);
/// assert!(settings.flags.contains(KeyFlags::FREE_LISTING));
/// assert_eq!(settings.change_key, ChangeKeyAccess::MasterKey);
/// assert_eq!(settings.to_byte(), 0x0F);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct KeySettings {
    /// Bits 3 to 0.
    pub flags: KeyFlags,
    /// Bits 7 to 4; zero at PICC level.
    pub change_key: ChangeKeyAccess,
}

impl KeySettings {
    /// `0F`: everything free and changeable, keys changed under the master key. The card's
    /// state of delivery.
    pub const DEFAULT: Self = Self {
        flags: KeyFlags::all(),
        change_key: ChangeKeyAccess::MasterKey,
    };

    /// The key of an application with which `key` is changed; nothing if it is frozen.
    ///
    /// ```
    /// use desfire_ev1::wire::{KeyNo, KeySettings};
    ///
    /// let (master, other) = (KeyNo::MASTER, KeyNo::new(2)?);
    /// assert_eq!(KeySettings::DEFAULT.changed_by(other), Some(master));
    /// // Every key changes itself; the master key is frozen.
    /// let settings = KeySettings::from_byte(0xEE);
    /// assert_eq!(settings.changed_by(other), Some(other));
    /// assert_eq!(settings.changed_by(master), None);
    /// # Ok::<(), desfire_ev1::wire::WireError>(())
    /// ```
    #[must_use]
    pub const fn changed_by(self, key: KeyNo) -> Option<KeyNo> {
        if key.is_master() {
            return if self.flags.contains(KeyFlags::MASTER_KEY_CHANGEABLE) {
                Some(KeyNo::MASTER)
            } else {
                None
            };
        }
        match self.change_key {
            ChangeKeyAccess::MasterKey => Some(KeyNo::MASTER),
            // The key that changes the others is changed by the master key, or by itself where a card
            // follows the other reading; the sources are split.
            ChangeKeyAccess::Key(changing) if changing.number() == key.number() => {
                Some(KeyNo::MASTER)
            }
            ChangeKeyAccess::Key(changing) => Some(changing),
            ChangeKeyAccess::SameKey => Some(key),
            ChangeKeyAccess::Frozen => None,
        }
    }

    /// As it travels. Every byte is possible.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        Self {
            flags: KeyFlags::from_bits_truncate(byte & 0x0F),
            change_key: match byte >> 4 {
                0x0 => ChangeKeyAccess::MasterKey,
                0xE => ChangeKeyAccess::SameKey,
                number => match KeyNo::new(number) {
                    Ok(key) => ChangeKeyAccess::Key(key),
                    Err(_) => ChangeKeyAccess::Frozen,
                },
            },
        }
    }

    /// As it travels.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        let high = match self.change_key {
            ChangeKeyAccess::MasterKey => 0x0,
            ChangeKeyAccess::Key(key) => key.number(),
            ChangeKeyAccess::SameKey => 0xE,
            ChangeKeyAccess::Frozen => 0xF,
        };
        (high << 4) | (self.flags.bits() & 0x0F)
    }
}

/// Key settings byte 2: number and type of the keys of an application or of the PICC.
///
/// | bits | 7–6 | 5 | 4 | 3–0 |
/// |---|---|---|---|---|
/// | | key family | files may have ISO FIDs | RFU | number of keys |
///
/// Kept as found, so that what a card of another generation says survives.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyInfo(u8);

impl KeyInfo {
    /// The greatest number of keys of an application.
    pub const MAX_KEYS: u8 = 14;
    const ISO_FILE_IDS: u8 = 0x20;

    /// For CreateApplication: `keys` keys of a family, files without ISO FIDs.
    ///
    /// An application with no keys can be created; only rights of [`super::Access::Free`] are
    /// of use in it.
    ///
    /// # Errors
    /// [`WireError::Value`] for more than 14 keys or an unknown family.
    pub const fn new(family: KeyFamily, keys: u8) -> Result<Self, WireError> {
        if keys > Self::MAX_KEYS {
            return Err(WireError::Value {
                field: "number of keys",
                value: keys as u32,
            });
        }
        if matches!(family, KeyFamily::Unknown) {
            return Err(WireError::Value {
                field: "key family",
                value: family.bits() as u32,
            });
        }
        Ok(Self(family.bits() | keys))
    }

    /// The same with files that may have ISO FIDs.
    #[must_use]
    pub const fn with_iso_file_ids(self) -> Self {
        Self(self.0 | Self::ISO_FILE_IDS)
    }

    /// As it travels. Every byte is kept.
    #[must_use]
    pub const fn from_byte(byte: u8) -> Self {
        Self(byte)
    }

    /// As it travels.
    #[must_use]
    pub const fn to_byte(self) -> u8 {
        self.0
    }

    /// The type of the keys.
    #[must_use]
    pub const fn family(self) -> KeyFamily {
        KeyFamily::from_bits(self.0)
    }

    /// The number of keys; 15 is not possible on a card but can be said.
    #[must_use]
    pub const fn keys(self) -> u8 {
        self.0 & 0x0F
    }

    /// Whether files of this application may have ISO FIDs. Whether an EV1 shows the bit in
    /// GetKeySettings is not recorded; do not depend on it.
    #[must_use]
    pub const fn iso_file_ids(self) -> bool {
        self.0 & Self::ISO_FILE_IDS != 0
    }
}

impl fmt::Debug for KeyInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "KeyInfo({:02X}: {} × {})",
            self.0,
            self.keys(),
            self.family()
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives() {
        for byte in 0..=u8::MAX {
            assert_eq!(KeySettings::from_byte(byte).to_byte(), byte);
            assert_eq!(KeyInfo::from_byte(byte).to_byte(), byte);
        }
    }

    #[test]
    fn recorded_bytes() {
        // GetKeySettings of an AES application created with `09 81`, then changed to `00`.
        let settings = KeySettings::from_byte(0x09);
        assert_eq!(
            settings.flags,
            KeyFlags::MASTER_KEY_CHANGEABLE | KeyFlags::SETTINGS_CHANGEABLE
        );
        let info = KeyInfo::from_byte(0x81);
        assert_eq!((info.family(), info.keys()), (KeyFamily::Aes, 1));
        assert_eq!(KeyInfo::new(KeyFamily::ThreeKey3Des, 2), Ok(KeyInfo(0x42)));
        assert_eq!(
            KeyInfo::new(KeyFamily::Aes, 14)
                .unwrap()
                .with_iso_file_ids()
                .with_iso_file_ids()
                .to_byte(),
            0xAE
        );
        assert!(KeyInfo::from_byte(0x20).iso_file_ids());
        assert!(!KeyInfo::from_byte(0xDF).iso_file_ids());
        assert!(KeyInfo::new(KeyFamily::Aes, 15).is_err());
        assert!(KeyInfo::new(KeyFamily::Unknown, 1).is_err());
    }

    #[test]
    fn change_key_nibble() {
        let of = |byte| KeySettings::from_byte(byte).change_key;
        assert_eq!(of(0x0F), ChangeKeyAccess::MasterKey);
        assert_eq!(of(0x1F), ChangeKeyAccess::Key(KeyNo::new(1).unwrap()));
        assert_eq!(of(0xDF), ChangeKeyAccess::Key(KeyNo::new(13).unwrap()));
        assert_eq!(of(0xEF), ChangeKeyAccess::SameKey);
        assert_eq!(of(0xFF), ChangeKeyAccess::Frozen);
    }

    #[test]
    fn who_changes_a_key() {
        let key = |number| KeyNo::new(number).unwrap();
        let by = |settings, number| KeySettings::from_byte(settings).changed_by(key(number));
        // The master key goes by its own bit alone.
        for high in 0..16 {
            assert_eq!(by(high << 4 | 0x0F, 0), Some(KeyNo::MASTER));
            assert_eq!(by(high << 4 | 0x0E, 0), None);
        }
        for (settings, number, expected) in [
            (0x0E, 2, Some(0)),
            (0x1E, 2, Some(1)),
            (0x1E, 1, Some(0)),
            (0xDE, 12, Some(13)),
            (0xDE, 13, Some(0)),
            (0xEE, 2, Some(2)),
            (0xFF, 2, None),
        ] {
            assert_eq!(by(settings, number), expected.map(key), "{settings:02X}");
        }
    }
}
