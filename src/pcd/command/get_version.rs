//! GetVersion (`60`): hardware, software and production data.
//!
//! | request | reply |
//! |---|---|
//! | – | 28 bytes in three frames, see [`Version`] |
//!
//! No authentication, any level. In random-ID mode the UID in it is zero. In an EV1 session one
//! CMAC covers all three frames. Source: libfreefare `mifare_desfire_get_version`; recorded by
//! RFDoorLock (EV1), desox (EV3).

use super::Command;
use crate::error::ErrorKind;
use crate::pcd::exchange::Exchange;
use crate::pcd::session::{Inner, Session};
use crate::wire::{CommandCode, Version, WireError, Writer};

/// GetVersion (`60`): see [`Session::get_version`].
#[derive(Debug)]
pub struct GetVersion {
    reply: [u8; Version::LEN],
}

impl Command for GetVersion {
    type Output = Version;
    const CODE: CommandCode = CommandCode::GetVersion;

    fn header(&self, _header: &mut Writer<'_>) -> Result<(), WireError> {
        Ok(())
    }

    fn buffer(&mut self) -> &mut [u8] {
        &mut self.reply
    }

    fn finish(&mut self, _inner: &mut Inner, len: usize) -> Result<Version, ErrorKind> {
        Ok(Version::decode(self.reply.get(..len).unwrap_or_default())?)
    }
}

impl<S> Session<S> {
    /// What card it is. Three exchanges.
    ///
    /// ```
    /// use desfire_ev1::{Machine, Session, VirtualReader, wire::Storage};
    ///
    /// let mut reader = VirtualReader::default();
    /// let version = Session::new().get_version().run(&mut reader)?;
    /// assert!(version.is_ev1());
    /// assert_eq!(version.hardware.storage(), Storage::Exactly(8192));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn get_version(&mut self) -> Exchange<&mut Self, GetVersion> {
        Exchange::new(
            self,
            Ok(GetVersion {
                reply: [0; Version::LEN],
            }),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{native, wrapped};
    use crate::error::{ErrorKind, Malformed, Outcome};
    use crate::pcd::session::Session;
    use crate::wire::Status;

    /// desox, `capture-version`: an EV3 before authentication.
    #[test]
    fn recorded() {
        let script = [
            ("60", "af 04010101001a05"),
            ("af", "af 04010101041a05"),
            ("af", "00 04063f72633480 ba4519e320 4913"),
        ];
        let version = native(Session::new().get_version(), &script).unwrap();
        assert_eq!(version.production(), Some((49, 2013)));
        let again = wrapped(Session::new().get_version(), &script).unwrap();
        assert_eq!(again, version);
    }

    #[test]
    fn a_chain_that_goes_wrong() {
        let first = ("60", "af 04010101001a05");
        let cases: [(&str, ErrorKind); 3] = [
            ("af", Malformed::EmptyFrame.into()),
            (
                "00",
                Malformed::Wire(crate::wire::WireError::Truncated {
                    needed: 7,
                    available: 0,
                })
                .into(),
            ),
            ("ca", ErrorKind::Refused(Status::CommandAborted)),
        ];
        for (reply, kind) in cases {
            let mut session = Session::new();
            let error = native(session.get_version(), &[first, ("af", reply)]).unwrap_err();
            assert_eq!(error.kind, kind);
            // Without authentication a refusal leaves the session in step.
            assert_eq!(session.is_lost(), error.outcome != Outcome::Refused);
        }
    }
}
