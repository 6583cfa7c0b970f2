//! Keys in this process: for trying things out, where there is no token.

use desfire_ev1::Key;
use desfire_ev1::split::{CbcDirection, CbcKey, KeyRequest, SoftKey};
use desfire_ev1::wire::{KeyNo, KeyType};

use super::{HeldKey, Holder, KeyFailure};
use crate::scheme::{self, AID};

/// Master keys in memory, wiped when dropped. The cards' keys are derived in this process.
pub struct SoftHolder(Vec<(KeyNo, Key)>);

impl SoftHolder {
    /// Over these keys.
    #[must_use]
    pub const fn new(masters: Vec<(KeyNo, Key)>) -> Self {
        Self(masters)
    }
}

impl Holder for SoftHolder {
    fn find(&self, wanted: &KeyRequest) -> Result<HeldKey, KeyFailure> {
        let mut known = self.0.iter();
        let master = known.find(|(key_no, key)| {
            (AID, *key_no, key.key_type()) == (wanted.aid, wanted.key_no, wanted.key_type)
        });
        let (_, master) = master.ok_or(KeyFailure::Unknown)?;
        let uid = wanted.uid.ok_or(KeyFailure::NeedsUid)?;
        let key = master.diversify(&scheme::input(&uid));
        let key = key.map_err(|error| KeyFailure::Down(error.to_string()))?;
        Ok(Box::new(Held(SoftKey::new(&key))))
    }

    fn check(&self) -> Result<(), KeyFailure> {
        Ok(())
    }

    fn name(&self) -> String {
        "keys in this process".to_owned()
    }
}

struct Held(SoftKey);

impl CbcKey for Held {
    type Error = KeyFailure;

    fn key_type(&self) -> KeyType {
        CbcKey::key_type(&self.0)
    }

    fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), KeyFailure> {
        match CbcKey::cbc(&mut self.0, direction, iv, data) {
            Ok(()) => Ok(()),
            Err(never) => match never {},
        }
    }
}
