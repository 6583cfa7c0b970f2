//! ChangeKey (`C4`): gives a key another value and version.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | key number; for the PICC master key with the type of the *new* key in bits 7 and 6 |
//! | 1 | | cryptogram |
//!
//! Before encipherment, with V only for AES and X = new ⊕ old:
//!
//! | | EV1 | D40 |
//! |---|---|---|
//! | the key in use | `K [V] CRC32(C4 KeyNo K [V])` | `K [V] CRC16(K [V])` |
//! | another key | `X [V] CRC32(C4 KeyNo X [V]) CRC32(K)` | `X [V] CRC16(X [V]) CRC16(K)` |
//!
//! The version of a DES-family key is in its low bits, of which both keys' count. A DES key is sent
//! doubled. Changing another key leaves the session alive and is confirmed by a CMAC; changing the
//! key in use ends it, and its reply is a bare `00`. Sources: libfreefare
//! `mifare_desfire_change_key`; recorded for all key types by RFDoorLock, desox and skjolber.

use super::{Command, Scratch, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::channel::{Padding, ReplyProtection, RequestProtection};
use crate::pcd::exchange::Exchange;
use crate::pcd::key::Key;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Authenticated, Inner, Session, Unauthenticated};
use crate::wire::{CommandCode, KeyNo, KeyType, WireError, Writer};

/// `K [V]` or `X [V]`, made in `scratch`.
fn key_data<'a>(new: &Key, old: Option<&Key>, scratch: &'a mut Scratch) -> &'a [u8] {
    let mut writer = Writer::new(scratch.as_mut());
    // A key and a byte always fit.
    let _ = writer.put(new.stored());
    if new.key_type() == KeyType::Aes {
        let _ = writer.u8(new.version());
    }
    let len = writer.written();
    if let Some(old) = old {
        for (byte, old) in scratch.iter_mut().zip(old.stored()) {
            *byte ^= old;
        }
    }
    scratch.get(..len).unwrap_or_default()
}

/// ChangeKey (`C4`) of a key that is not in use: see [`Session::change_key`].
pub struct ChangeKey<'k> {
    key_no: KeyNo,
    old: &'k Key,
    new: &'k Key,
}

impl Command for ChangeKey<'_> {
    type Output = ();
    const CODE: CommandCode = CommandCode::ChangeKey;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.key_no.number())
    }

    fn data<'a>(&'a self, scratch: &'a mut Scratch) -> &'a [u8] {
        key_data(self.new, Some(self.old), scratch)
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        let (in_use, in_use_type) = inner.key.ok_or(Misuse::NotAuthenticated)?;
        if in_use == self.key_no {
            return Err(Misuse::KeyInUse(in_use));
        }
        // The card has only one key at this level.
        inner.require_application()?;
        let family = in_use_type.family();
        if self.new.key_type().family() != family || self.old.key_type().family() != family {
            return Err(Misuse::KeyFamily(in_use_type));
        }
        Ok(Protection {
            request: RequestProtection::Enciphered {
                padding: Padding::Zeros,
                second_crc: self.new.stored(),
            },
            reply: ReplyProtection::Standard,
        })
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        nothing(len)
    }
}

/// ChangeKey (`C4`) of the key in use: see [`Session::change_key_in_use`] and
/// [`Session::change_picc_master_key_and_type`].
pub struct ChangeKeyInUse<'k> {
    new: &'k Key,
    /// The PICC master key may become a key of another type.
    type_may_change: bool,
    /// With type bits; known when the session has been looked at.
    key_no: u8,
}

impl Command for ChangeKeyInUse<'_> {
    type Output = Session<Unauthenticated>;
    const CODE: CommandCode = CommandCode::ChangeKey;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.key_no)
    }

    fn data<'a>(&'a self, scratch: &'a mut Scratch) -> &'a [u8] {
        key_data(self.new, None, scratch)
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        let (_, in_use_type) = inner.key.ok_or(Misuse::NotAuthenticated)?;
        if self.type_may_change {
            inner.require_picc_level()?;
        } else if self.new.key_type().family() != in_use_type.family() {
            return Err(Misuse::KeyFamily(in_use_type));
        }
        Ok(Protection {
            reply: ReplyProtection::None,
            ..Protection::ENCIPHERED_REQUEST
        })
    }

    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<Self::Output, ErrorKind> {
        nothing(len)?;
        Ok(Session::at_same_place(&inner.place))
    }
}

impl Session<Authenticated> {
    /// Changes a key other than the one in use. The session goes on.
    ///
    /// Which key may do that is said by the application's
    /// [`change_key`](crate::wire::KeySettings::change_key). The version goes with the key; `old` of the
    /// DES family must have the version bits that the card has, see [`Key::with_version`].
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// # let mut session = session
    /// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// let (old, new) = (Key::aes([0; 16]), Key::aes([0x42; 16]).with_version(1));
    /// session.change_key(KeyNo::new(1)?, &old, &new).run(&mut reader)?;
    /// assert_eq!(session.get_key_version(KeyNo::new(1)?).run(&mut reader)?, 1);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::KeyInUse`]; [`Misuse::KeyFamily`] if old or new key are of another type. The
    /// card's `1E` means a wrong old key.
    pub fn change_key<'s, 'k>(
        &'s mut self,
        key_no: KeyNo,
        old: &'k Key,
        new: &'k Key,
    ) -> Exchange<&'s mut Self, ChangeKey<'k>> {
        Exchange::new(self, Ok(ChangeKey { key_no, old, new }))
    }

    /// Changes the key in use to one of the same type, which ends the session on both sides.
    ///
    /// The card's reply carries no MAC: authenticate with the new key to be sure. If the outcome
    /// is unknown, either key may be in force.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// # let mut rng = getrandom::SysRng;
    /// # let session = session
    /// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut rng)
    /// #     .run(&mut reader)?;
    /// let new = Key::aes([0x42; 16]).with_version(1);
    /// let session = session.change_key_in_use(&new).run(&mut reader)?;
    /// session.authenticate_aes(KeyNo::MASTER, &new, &mut rng).run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::KeyFamily`] if the new key is of another type.
    pub fn change_key_in_use(self, new: &Key) -> Exchange<Self, ChangeKeyInUse<'_>> {
        self.change_own(new, false)
    }

    /// Changes the PICC master key to one of any type, also another than it has. From then on
    /// the card asks for the authentication of that type. Otherwise like
    /// [`Session::change_key_in_use`].
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::default();
    /// # let mut rng = getrandom::SysRng;
    /// # let session = Session::new()
    /// #     .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut rng)
    /// #     .run(&mut reader)?;
    /// let new = Key::aes([0x42; 16]).with_version(1);
    /// let session = session.change_picc_master_key_and_type(&new).run(&mut reader)?;
    /// session.authenticate_aes(KeyNo::MASTER, &new, &mut rng).run(&mut reader)?;
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Misuse::NotAtPiccLevel`] inside an application: the type of its keys is fixed.
    pub fn change_picc_master_key_and_type(self, new: &Key) -> Exchange<Self, ChangeKeyInUse<'_>> {
        self.change_own(new, true)
    }

    fn change_own(self, new: &Key, type_may_change: bool) -> Exchange<Self, ChangeKeyInUse<'_>> {
        let type_bits = match self.inner.require_picc_level() {
            Ok(()) => new.key_type().family().bits(),
            Err(_) => 0,
        };
        let command = ChangeKeyInUse {
            new,
            type_may_change,
            key_no: self.key_in_use().number() | type_bits,
        };
        Exchange::new(self, Ok(command))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, session, wrapped};
    use crate::error::{Authenticity, ErrorKind, Misuse};
    use crate::pcd::key::Key;
    use crate::pcd::session::{Authenticated, Session};
    use crate::wire::{Aid, AuthScheme, KeyFamily, KeyNo};

    const NEW: [u8; 16] = [
        0x00, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70, 0x80, 0x90, 0xA0, 0xB0, 0xB0, 0xA0, 0x90,
        0x80,
    ];

    /// RFDoorLock, part 13: own AES key.
    #[test]
    fn recorded_own_aes_key() {
        let (rnd_a, rnd_b) = (
            "F44B26F5686F3A391CD38EBD10772281",
            "C05DDD714FD788A6B7B754F3C4D066E8",
        );
        let zero = Key::zero(KeyFamily::Aes);
        let new = Key::aes(NEW).with_version(0x10);
        let live = || session(AuthScheme::Aes, &zero, rnd_a, rnd_b, 0xAE16);
        let script = [(
            "c4 00 e9f85e219496c2b58c1090dc3935fae9e840cf61b383d9531946256b1f110c10",
            "00",
        )];
        let after = native(live().change_key_in_use(&new), &script).unwrap();
        assert_eq!(after.selected(), Aid::new(0xAE16).ok());
        assert!(wrapped(live().change_key_in_use(&new), &script).is_ok());
        // Something behind the bare status is not what the card sends.
        let script = [(script[0].0, "00 2128D3CD9C9ACFFF")];
        assert!(native(live().change_key_in_use(&new), &script).is_err());
        refused_unsent(live().change_picc_master_key_and_type(&new));
        let error = refused_unsent(live().change_key_in_use(&Key::zero(KeyFamily::Des)));
        assert!(matches!(
            error.kind,
            ErrorKind::Misuse(Misuse::KeyFamily(_))
        ));
    }

    /// RFDoorLock, part 16: session key C2A1E47BD8100044FE6D00A74D7AB17C, AES key 1.
    fn part_16() -> Session<Authenticated> {
        session(
            AuthScheme::Aes,
            &Key::zero(KeyFamily::Aes),
            "c2a1e47b 00000000 00000000 fe6d00a7",
            "d8100044 00000000 00000000 4d7ab17c",
            0xAE16,
        )
    }

    #[test]
    fn recorded_other_aes_key() {
        let (key_no, old) = (KeyNo::new(1).unwrap(), Key::zero(KeyFamily::Aes));
        let new = Key::aes(NEW).with_version(0x10);
        let sent = "c4 01 e7eccb6bd1ca64bc161a12b1c024f71430337408c8a87eacab7a1ff18951fca3";
        let script = [(sent, "00 2128d3cd9c9acfff")];
        let mut live = part_16();
        native(live.change_key(key_no, &old, &new), &script).unwrap();
        assert!(!live.is_lost());
        // The bare status of another reply proves nothing here.
        let script = [(sent, "00")];
        let mut live = part_16();
        let error = native(live.change_key(key_no, &old, &new), &script).unwrap_err();
        assert_eq!(
            error.kind,
            ErrorKind::Authenticity(Authenticity::MacMissing)
        );
        assert!(live.is_lost());
    }

    #[test]
    fn the_wrong_call() {
        let aes = Key::zero(KeyFamily::Aes);
        let des = Key::zero(KeyFamily::Des);
        let mut live = part_16();
        let error = refused_unsent(live.change_key(KeyNo::MASTER, &aes, &aes));
        assert_eq!(error.kind, Misuse::KeyInUse(KeyNo::MASTER).into());
        let other = KeyNo::new(1).unwrap();
        let long = Key::zero(KeyFamily::ThreeKey3Des);
        for (old, new) in [(&des, &aes), (&aes, &des), (&aes, &long), (&long, &aes)] {
            let error = refused_unsent(live.change_key(other, old, new));
            assert!(matches!(
                error.kind,
                ErrorKind::Misuse(Misuse::KeyFamily(_))
            ));
        }
        assert!(!live.is_lost());
        let mut picc = session(
            AuthScheme::Iso,
            &des,
            "0001020304050607",
            "08090a0b0c0d0e0f",
            0,
        );
        let error = refused_unsent(picc.change_key(other, &des, &des));
        assert_eq!(error.kind, Misuse::NotInApplication.into());
    }
}
