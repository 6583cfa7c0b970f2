//! Keys in this process: for trying things out, where there is no token.

use desfire_ev1::split::{
    CbcDirection, CbcKey, KeyRequest, KeyStore as _, SoftEntry, SoftKeyError, SoftKeys,
};
use desfire_ev1::wire::KeyType;

use super::{HeldKey, Holder, KeyFailure};

/// A table of master keys in memory, wiped when dropped. The cards' keys are derived in this process.
pub struct SoftHolder(Vec<SoftEntry>);

impl SoftHolder {
    /// Over these keys.
    #[must_use]
    pub const fn new(entries: Vec<SoftEntry>) -> Self {
        Self(entries)
    }
}

impl Holder for SoftHolder {
    fn find(&self, wanted: &KeyRequest) -> Result<HeldKey, KeyFailure> {
        let found = SoftKeys::new(&self.0).find(wanted)?;
        Ok(Box::new(Held(found)))
    }

    fn check(&self) -> Result<(), KeyFailure> {
        Ok(())
    }

    fn name(&self) -> String {
        "keys in this process".to_owned()
    }
}

impl From<SoftKeyError> for KeyFailure {
    fn from(error: SoftKeyError) -> Self {
        match error {
            SoftKeyError::Unknown => Self::Unknown,
            SoftKeyError::NeedsUid => Self::NeedsUid,
            other => Self::Down(other.to_string()),
        }
    }
}

struct Held<K>(K);

impl<K: CbcKey<Error = SoftKeyError>> CbcKey for Held<K> {
    type Error = KeyFailure;

    fn key_type(&self) -> KeyType {
        self.0.key_type()
    }

    fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), KeyFailure> {
        Ok(self.0.cbc(direction, iv, data)?)
    }
}
