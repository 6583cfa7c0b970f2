//! Keys made of keys: SP 800-108 in counter mode with AES-CMAC, SP 800-56C's extraction, and the key
//! wrap of RFC 3394.
//!
//! May know bytes and labels. May not know what the keys are for.

use aes_kw::{KeyInit as _, KwAes128};
use cmac::{Cmac, Mac as _};
use subtle::ConstantTimeEq as _;
use zeroize::{Zeroize as _, Zeroizing};

use crate::wire::WireError;

/// An AES-128 key or a full CMAC.
pub(super) type Block = Zeroizing<[u8; 16]>;

/// AES-CMAC (SP 800-38B) over the joined parts.
pub(super) fn cmac(key: &[u8; 16], parts: &[&[u8]]) -> Block {
    let mut mac = <Cmac<aes::Aes128> as cmac::KeyInit>::new(&(*key).into());
    for part in parts {
        mac.update(part);
    }
    Zeroizing::new(mac.finalize().into_bytes().into())
}

/// Whether the two are equal, in constant time.
pub(super) fn same(a: &[u8], b: &[u8]) -> bool {
    bool::from(a.ct_eq(b))
}

/// SP 800-108r1, 4.1, one block of output: K(1) = CMAC(K, \[1\]₃₂ ‖ fixed input).
fn counter_mode(key: &[u8; 16], fixed: &[&[u8]; 4]) -> Block {
    let [a, b, c, d] = fixed;
    cmac(key, &[&1_u32.to_be_bytes(), a, b, c, d])
}

/// A key of 128 bits for the purpose `label` in the context: fixed input is
/// label ‖ 00 ‖ context ‖ \[128\]₃₂.
pub(super) fn derive(key: &[u8; 16], label: &[u8], context: &[u8]) -> Block {
    counter_mode(key, &[label, &[0], context, &128_u32.to_be_bytes()])
}

/// SP 800-56C, two-step: extraction from a secret with a keyed salt, then [`derive`].
pub(super) fn derive_from_both(
    salt: &[u8; 16],
    secret: &[u8],
    label: &[u8],
    context: &[u8],
) -> Block {
    derive(&cmac(salt, &[secret]), label, context)
}

/// 24 bytes under a key: RFC 3394.
///
/// # Errors
/// None: 24 bytes always become 32.
pub(super) fn wrap(key: &[u8; 16], plain: &[u8; 24]) -> Result<[u8; 32], WireError> {
    let kw = KwAes128::new(&(*key).into());
    let mut wrapped = [0; 32];
    kw.wrap_key(plain, &mut wrapped).map_err(|_| WireError::Full)?;
    Ok(wrapped)
}

/// The way back; nothing if a bit is wrong.
pub(super) fn unwrap(key: &[u8; 16], wrapped: &[u8; 32]) -> Option<Zeroizing<[u8; 24]>> {
    let kw = KwAes128::new(&(*key).into());
    let mut plain = Zeroizing::new([0; 24]);
    if kw.unwrap_key(wrapped, plain.as_mut()).is_err() {
        plain.zeroize();
        return None;
    }
    Some(plain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcd::command::testing::hex;

    /// RFC 3394, 4.1: 128 bits of key data with a 128-bit key.
    #[test]
    fn rfc_3394() {
        let kek: [u8; 16] = hex("000102030405060708090A0B0C0D0E0F").try_into().unwrap();
        let data = hex("00112233445566778899AABBCCDDEEFF");
        let mut out = [0; 24];
        let kw = KwAes128::new(&kek.into());
        let wrapped = kw.wrap_key(&data, &mut out).unwrap();
        assert_eq!(
            wrapped,
            hex("1FA68B0A8112B447 AEF34BD8FB5A7B82 9D3E862371D2CFE5")
        );
    }

    #[test]
    fn a_changed_bit_unwraps_nothing() {
        let (key, plain) = ([7; 16], [9; 24]);
        let wrapped = wrap(&key, &plain).unwrap();
        assert_eq!(*unwrap(&key, &wrapped).unwrap(), plain);
        for byte in 0..32 {
            let mut changed = wrapped;
            changed[byte] ^= 1;
            assert!(unwrap(&key, &changed).is_none());
        }
        assert!(unwrap(&[8; 16], &wrapped).is_none());
    }
}
