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
fn counter_mode(key: &[u8; 16], fixed: &[&[u8]; 5]) -> Block {
    let [a, b, c, d, e] = fixed;
    cmac(key, &[&1_u32.to_be_bytes(), a, b, c, d, e])
}

/// A key of 128 bits for the purpose `label` in the context, whose parts are joined: fixed input is
/// label ‖ 00 ‖ context ‖ \[128\]₃₂.
pub(super) fn derive(key: &[u8; 16], label: &[u8], context: [&[u8]; 2]) -> Block {
    let [one, other] = context;
    counter_mode(key, &[label, &[0], one, other, &128_u32.to_be_bytes()])
}

/// SP 800-56C, two-step: extraction from a secret with a keyed salt, then [`derive()`].
pub(super) fn derive_from_both(
    salt: &[u8; 16],
    secret: &[u8],
    label: &[u8],
    context: &[u8],
) -> Block {
    derive(&cmac(salt, &[secret]), label, [context, &[]])
}

/// 24 bytes under a key: RFC 3394.
///
/// # Errors
/// None: 24 bytes always become 32.
pub(super) fn wrap(key: &[u8; 16], plain: &[u8; 24]) -> Result<[u8; 32], WireError> {
    let kw = KwAes128::new(&(*key).into());
    let mut wrapped = [0; 32];
    kw.wrap_key(plain, &mut wrapped)
        .map_err(|_| WireError::Full)?;
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

    /// NIST CAVP, KDFCTR_gen: CMAC_AES128, counter of 32 bits before the fixed input, L = 128.
    #[test]
    fn sp_800_108() {
        let key: [u8; 16] = hex("c10b152e8c97b77e18704e0f0bd38305").try_into().unwrap();
        let fixed = hex(
            "98cd4cbbbebe15d17dc86e6dbad800a2dcbd64f7c7ad0e78e9cf94ffdba89d03e97eadf6c4f7b806caf52aa38f09d0eb71d71f497bcc6906b48d36c4",
        );
        let (a, b) = fixed.split_at(17);
        let block = counter_mode(&key, &[a, &[], b, &[], &[]]);
        assert_eq!(block[..], hex("26faf61908ad9ee881b8305c221db53f"));
    }

    /// RFC 4493, 4: the empty message and one of 40 bytes, in parts.
    #[test]
    fn rfc_4493() {
        let key: [u8; 16] = hex("2b7e151628aed2a6abf7158809cf4f3c").try_into().unwrap();
        assert_eq!(cmac(&key, &[])[..], hex("bb1d6929e95937287fa37d129b756746"));
        let message = hex(
            "6bc1bee22e409f96e93d7e117393172a ae2d8a571e03ac9c9eb76fac45af8e51 30c81c46a35ce411",
        );
        let (a, b) = message.split_at(21);
        assert_eq!(
            cmac(&key, &[a, b])[..],
            hex("dfa66747de9ae63030ca32611497c827")
        );
    }

    #[test]
    fn labels_and_contexts_do_not_run_into_each_other() {
        let key = [3; 16];
        let keys = [
            derive(&key, b"ab", [b"c", b""]),
            derive(&key, b"a", [b"b", b"c"]),
            derive(&key, b"ab", [b"", b"d"]),
            derive_from_both(&key, b"x", b"ab", b"c"),
            derive_from_both(&key, b"y", b"ab", b"c"),
        ];
        for (index, one) in keys.iter().enumerate() {
            assert!(keys.iter().skip(index + 1).all(|other| one != other));
        }
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
