//! SetConfiguration (`5C`): how the card behaves from now on.
//!
//! | option | data, always enciphered | padding | undone |
//! |---|---|---|---|
//! | `00` | 1 byte: bit 0 disables FormatPICC, bit 1 enables the random ID | zeros | **never** |
//! | `01` | default key 24 (shorter ones filled with zeros), version 1 | zeros | by another |
//! | `02` | ATS, its length first | `80 00…` | by another, if a reader still talks to the card |
//!
//! The option travels in clear. PICC level, PICC master key. The card has no command to read any of
//! this back. Sources: libfreefare `mifare_desfire_set_*`, proxmark3; **not recorded**: no public
//! trace of this command is known.

use super::{Command, Scratch, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::channel::{Padding, ReplyProtection, RequestProtection};
use crate::pcd::exchange::Exchange;
use crate::pcd::key::Key;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Authenticated, Inner, Session};
use crate::wire::{CommandCode, InlineBytes, WireError, Writer};

/// The longest ATS: format byte, three interface bytes, 15 historical bytes and the length.
const MAX_ATS: usize = 20;

/// SetConfiguration (`5C`): see [`Session::set_default_key`], [`Session::set_ats`],
/// [`Session::enable_random_id_for_ever`] and [`Session::disable_format_for_ever`].
pub struct SetConfiguration<'k> {
    option: ConfigurationOption<'k>,
}

enum ConfigurationOption<'k> {
    Flags([u8; 1]),
    DefaultKey(&'k Key),
    Ats(InlineBytes<MAX_ATS>),
}

impl SetConfiguration<'_> {
    const fn flags(flags: u8) -> Self {
        Self {
            option: ConfigurationOption::Flags([flags]),
        }
    }
}

impl Command for SetConfiguration<'_> {
    type Output = ();
    const CODE: CommandCode = CommandCode::SetConfiguration;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(match self.option {
            ConfigurationOption::Flags(_) => 0x00,
            ConfigurationOption::DefaultKey(_) => 0x01,
            ConfigurationOption::Ats(_) => 0x02,
        })
    }

    fn data<'a>(&'a self, scratch: &'a mut Scratch) -> &'a [u8] {
        match &self.option {
            ConfigurationOption::Flags(flags) => flags,
            ConfigurationOption::DefaultKey(key) => {
                let filled = key.stored().iter().chain(&[0; 8]).take(24);
                for (to, from) in scratch.iter_mut().zip(filled.chain(&[key.version()])) {
                    *to = *from;
                }
                scratch.as_slice()
            }
            ConfigurationOption::Ats(ats) => ats,
        }
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_picc_level()?;
        Ok(Protection {
            request: RequestProtection::Enciphered {
                padding: match self.option {
                    ConfigurationOption::Ats(_) => Padding::Marked,
                    _ => Padding::Zeros,
                },
                second_crc: &[],
            },
            reply: ReplyProtection::Standard,
        })
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        nothing(len)
    }
}

impl Session<Authenticated> {
    /// Sets the key and version that all keys of applications created from now on start with. A
    /// key shorter than 24 bytes is filled up with zeros; an application takes as many bytes as
    /// its key type has.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::default();
    /// # let mut session = Session::new()
    /// #     .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// session.set_default_key(&Key::aes([0x42; 16]).with_version(9)).run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn set_default_key<'s, 'k>(
        &'s mut self,
        key: &'k Key,
    ) -> Exchange<&'s mut Self, SetConfiguration<'k>> {
        let option = ConfigurationOption::DefaultKey(key);
        Exchange::new(self, Ok(SetConfiguration { option }))
    }

    /// Replaces the ATS from the next activation on. `ats` starts with its own length and has no
    /// CRC. **A wrong one can make the card unreachable for every reader.**
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::default();
    /// # let mut session = Session::new()
    /// #     .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// session.set_ats(&[0x06, 0x75, 0x77, 0x81, 0x02, 0x80]).run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::Invalid`] if the first byte is not the length, or it is not 2 to 20.
    pub fn set_ats(&mut self, ats: &[u8]) -> Exchange<&mut Self, SetConfiguration<'static>> {
        let stated = ats.first().map(|length| usize::from(*length));
        let command = match InlineBytes::new(ats) {
            Ok(inline) if stated == Some(ats.len()) && ats.len() >= 2 => Ok(SetConfiguration {
                option: ConfigurationOption::Ats(inline),
            }),
            _ => Err(Misuse::Invalid(
                "an ATS has 2 to 20 bytes, of which the first is their number",
            )),
        };
        Exchange::new(self, command)
    }

    /// Makes the card show a new random identifier at every activation instead of its UID.
    /// **This can never be undone.** [`Session::get_card_uid`] still tells the UID.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::default();
    /// # let mut session = Session::new()
    /// #     .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// session.enable_random_id_for_ever().run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn enable_random_id_for_ever(&mut self) -> Exchange<&mut Self, SetConfiguration<'static>> {
        Exchange::new(self, Ok(SetConfiguration::flags(0b10)))
    }

    /// Disables FormatPICC. **This can never be undone**, and memory once spent is then spent.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::default();
    /// # let mut session = Session::new()
    /// #     .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// session.disable_format_for_ever().run(&mut reader)?;
    /// assert!(session.format_picc().run(&mut reader).is_err());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn disable_format_for_ever(&mut self) -> Exchange<&mut Self, SetConfiguration<'static>> {
        Exchange::new(self, Ok(SetConfiguration::flags(0b01)))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, session, wrapped};
    use crate::error::Misuse;
    use crate::pcd::key::Key;
    use crate::pcd::session::{Authenticated, Session};
    use crate::wire::{AuthScheme, KeyFamily, Status};

    fn d40() -> Session<Authenticated> {
        let key = Key::zero(KeyFamily::Des);
        session(
            AuthScheme::Legacy,
            &key,
            "0001020304050607",
            "f6b033394ec6e8cf",
            0,
        )
    }

    /// Session key 00112233445566778899AABBCCDDEEFF.
    fn aes(level: u32) -> Session<Authenticated> {
        session(
            AuthScheme::Aes,
            &Key::zero(KeyFamily::Aes),
            "00112233 00000000 00000000 8899aabb",
            "44556677 00000000 00000000 ccddeeff",
            level,
        )
    }

    /// Values computed by a script that reproduces the recordings of other commands.
    #[test]
    fn literal_bytes() {
        let script = [("5c 00 2672304d57f2bc36", "00")];
        native(d40().enable_random_id_for_ever(), &script).unwrap();
        wrapped(d40().enable_random_id_for_ever(), &script).unwrap();
        let script = [("5c 00 2672304d57f2bc36", "9e")];
        let error = native(d40().enable_random_id_for_ever(), &script);
        assert_eq!(error.unwrap_err().status(), Some(Status::ParameterError));
        // Only what is sent is known for an EV1 session.
        let script = [("5c 00 69e4e3be5ff5d951e2510400cbae82f0", "7e")];
        let error = native(aes(0).enable_random_id_for_ever(), &script);
        assert_eq!(error.unwrap_err().status(), Some(Status::LengthError));
        let script = [("5c 02 d1be545731c20a9d7a0efa33e931eee1", "7e")];
        let ats = [0x06, 0x75, 0x77, 0x81, 0x02, 0x80];
        let error = native(aes(0).set_ats(&ats), &script);
        assert_eq!(error.unwrap_err().status(), Some(Status::LengthError));
    }

    #[test]
    fn what_cannot_be() {
        for ats in [&[][..], &[1], &[3, 0x75], &[21; 21]] {
            refused_unsent(aes(0).set_ats(ats));
        }
        let error = refused_unsent(aes(1).disable_format_for_ever());
        assert_eq!(error.kind, Misuse::NotAtPiccLevel.into());
    }
}
