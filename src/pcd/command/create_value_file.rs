//! CreateValueFile (`CC`): makes a value file.
//!
//! | offset | size | field |
//! |---|---|---|
//! | 0 | 1 | file number |
//! | 1 | 1 | communication byte |
//! | 2 | 2 | access rights |
//! | 4 | 4 | lower limit, signed |
//! | 8 | 4 | upper limit, signed |
//! | 12 | 4 | value, signed |
//! | 16 | 1 | flags, see [`ValueFlags`] |
//!
//! A value file has no ISO FID. Inside an application; needs its master key if creating is not
//! free. Source: libfreefare `mifare_desfire_create_value_file`.

use super::{Command, nothing};
use crate::error::{ErrorKind, Misuse};
use crate::pcd::exchange::Exchange;
use crate::pcd::protection::Protection;
use crate::pcd::session::{Inner, Session};
use crate::wire::{AccessRights, CommMode, CommandCode, FileNo, ValueFlags, WireError, Writer};

/// CreateValueFile (`CC`): see [`Session::create_value_file`].
#[derive(Debug)]
pub struct CreateValueFile {
    file: FileNo,
    comm: CommMode,
    rights: AccessRights,
    limits: core::ops::RangeInclusive<i32>,
    value: i32,
    flags: ValueFlags,
}

impl Command for CreateValueFile {
    type Output = ();
    const CODE: CommandCode = CommandCode::CreateValueFile;

    fn header(&self, header: &mut Writer<'_>) -> Result<(), WireError> {
        header.u8(self.file.number())?;
        header.put(&super::comm_and_rights(self.comm, self.rights))?;
        header.i32(*self.limits.start())?;
        header.i32(*self.limits.end())?;
        header.i32(self.value)?;
        header.u8(self.flags.bits())
    }

    fn protection(&self, inner: &Inner) -> Result<Protection<'_>, Misuse> {
        inner.require_application()?;
        if !self.limits.contains(&self.value) {
            return Err(Misuse::Invalid("the value is not between its limits"));
        }
        Ok(Protection::STANDARD)
    }

    fn finish(&mut self, inner: &mut Inner, len: usize) -> Result<(), ErrorKind> {
        inner.place.files.forget(self.file);
        nothing(len)
    }
}

impl<S> Session<S> {
    /// Makes a value file that holds `value` and never leaves `limits`.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// # let mut session = session
    /// #     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
    /// #     .run(&mut reader)?;
    /// let rights = AccessRights::from_bytes([0x00, 0x00]);
    /// session
    ///     .create_value_file(
    ///         FileNo::new(9)?, CommMode::Enciphered, rights, 0..=100_000, 1000, ValueFlags::empty(),
    ///     )
    ///     .run(&mut reader)?;
    /// assert_eq!(session.get_value(FileNo::new(9)?).run(&mut reader)?, 1000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn create_value_file(
        &mut self,
        file: FileNo,
        comm: CommMode,
        rights: AccessRights,
        limits: core::ops::RangeInclusive<i32>,
        value: i32,
        flags: ValueFlags,
    ) -> Exchange<&mut Self, CreateValueFile> {
        let command = CreateValueFile {
            file,
            comm,
            rights,
            limits,
            value,
            flags,
        };
        Exchange::new(self, Ok(command))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, refused_unsent, wrapped};
    use crate::pcd::session::Session;
    use crate::wire::{AccessRights, Aid, CommMode, FileNo, Status, ValueFlags};

    #[test]
    fn literal_bytes() {
        let file = FileNo::new(2).unwrap();
        let rights = AccessRights::from_bytes([0x30, 0x12]);
        let mut session = Session::at_level(Aid::new(1).unwrap());
        let mode = CommMode::Enciphered;
        let flags = ValueFlags::all();
        let bytes = "cc 02 03 3012 9cffffff a0860100 e8030000 03";
        let script = [(bytes, "00")];
        native(
            session.create_value_file(file, mode, rights, -100..=100_000, 1000, flags),
            &script,
        )
        .unwrap();
        wrapped(
            session.create_value_file(file, mode, rights, -100..=100_000, 1000, flags),
            &script,
        )
        .unwrap();
        let error = native(
            session.create_value_file(file, mode, rights, -100..=100_000, 1000, flags),
            &[(bytes, "9e")],
        );
        assert_eq!(error.unwrap_err().status(), Some(Status::ParameterError));
        for value in [-101, 100_001] {
            refused_unsent(session.create_value_file(
                file,
                mode,
                rights,
                -100..=100_000,
                value,
                flags,
            ));
        }
        refused_unsent(Session::new().create_value_file(file, mode, rights, 0..=1, 0, flags));
    }
}
