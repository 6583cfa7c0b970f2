//! What lies in the PKCS#11 token, and what it gives out. Needs SoftHSM2: `.ci/voucher` sets it up.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

mod support;

use cryptoki::mechanism::Mechanism;
use cryptoki::object::{Attribute, AttributeInfo, AttributeType, ObjectClass};
use desfire_ev1::split::{CbcDirection, CbcKey as _};
use desfire_ev1::wire::{Aid, KeyNo};
use support::*;
use voucher::keys::TokenError;
use voucher::scheme::{self, AID};

fn the_token() -> voucher::keys::TokenHolder {
    token().expect("VOUCHER_TEST_TOKEN names the PKCS#11 module; see .ci/voucher")
}

/// Every secret key in the token, and the card keys while they exist: sensitive, not extractable, and
/// their values are not to be read.
#[test]
#[ignore = "needs a token: .ci/voucher"]
fn no_key_is_extractable() {
    let token = the_token();
    let card_key = token
        .derive(
            AID,
            KeyNo::new(1).unwrap(),
            &scheme::input(&desfire_ev1::wire::Uid([4; 7])),
        )
        .unwrap();
    let looked = token
        .with_session(|session| {
            let keys = session.find_objects(&[Attribute::Class(ObjectClass::SECRET_KEY)])?;
            let mut masters = 0;
            for key in &keys {
                let wanted = [
                    AttributeType::Sensitive,
                    AttributeType::Extractable,
                    AttributeType::Private,
                    AttributeType::Token,
                    AttributeType::Derive,
                    AttributeType::Encrypt,
                    AttributeType::Wrap,
                    AttributeType::Sign,
                    AttributeType::Modifiable,
                ];
                let seen = session.get_attributes(*key, &wanted)?;
                let has = |attribute| seen.contains(&attribute);
                assert!(has(Attribute::Sensitive(true)), "{seen:?}");
                assert!(has(Attribute::Extractable(false)), "{seen:?}");
                assert!(has(Attribute::Private(true)), "{seen:?}");
                assert!(
                    has(Attribute::Wrap(false)) && has(Attribute::Sign(false)),
                    "{seen:?}"
                );
                let value = session.get_attribute_info(*key, &[AttributeType::Value])?;
                assert!(
                    matches!(value.as_slice(), [AttributeInfo::Sensitive]),
                    "{value:?}"
                );
                let read = session.get_attributes(*key, &[AttributeType::Value]);
                assert!(
                    !matches!(read.as_deref(), Ok([Attribute::Value(_)])),
                    "a value was read"
                );
                if has(Attribute::Token(true)) {
                    masters += 1;
                    assert!(has(Attribute::Derive(true)) && has(Attribute::Encrypt(false)));
                    assert!(has(Attribute::Modifiable(false)));
                    // Neither of these may come from a master key.
                    let zero = session.encrypt(&Mechanism::AesEcb, *key, &[0; 16]);
                    assert!(zero.is_err(), "a master key has enciphered");
                    let mac = session.sign(&Mechanism::AesCMac, *key, &[0; 16]);
                    assert!(mac.is_err(), "a master key has signed");
                    // And it stays as it is.
                    let looser = session.update_attributes(*key, &[Attribute::Extractable(true)]);
                    assert!(looser.is_err(), "a master key was made extractable");
                    let looser = session.update_attributes(*key, &[Attribute::Encrypt(true)]);
                    assert!(looser.is_err(), "a master key was made to encipher");
                }
            }
            Ok((keys.len(), masters))
        })
        .unwrap();
    assert!(looked.1 >= 3 && looked.0 > looked.1, "{looked:?}");
    drop(card_key);
    // What is known outside is not the key.
    let data = token
        .with_session(|session| {
            let data = session.find_objects(&[Attribute::Class(ObjectClass::DATA)])?;
            let mut values = Vec::new();
            for data in data {
                values.extend(session.get_attributes(data, &[AttributeType::Value])?);
            }
            Ok(values)
        })
        .unwrap();
    for value in data {
        let Attribute::Value(value) = value else {
            panic!("no value");
        };
        for (_, master) in desk().masters() {
            assert!(!value.windows(16).any(|window| window == master));
        }
    }
}

fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u32> = text
        .chars()
        .filter_map(|digit| digit.to_digit(16))
        .collect();
    let bytes = digits
        .chunks(2)
        .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap());
    bytes.collect()
}

/// The published AES values of AN10922 and AN10957, by what the derived key does inside the token: the
/// key itself does not come out.
#[test]
#[ignore = "needs a token: .ci/voucher"]
fn published_values_come_out() {
    let token = the_token();
    let text = include_str!("../../../tests/vectors/diversification.txt");
    let (mut seen, mut deviations) = (0, 0);
    for (place, vector) in text.split("\n\n").enumerate() {
        let field = |name: &str| {
            let mut lines = vector
                .lines()
                .map(str::trim)
                .filter_map(|l| l.strip_prefix(name));
            lines.next()
        };
        if !vector.contains("origin published") || field("key_type ") != Some("AES") {
            continue;
        }
        let mut keys = vector
            .lines()
            .map(str::trim)
            .filter_map(|l| l.strip_prefix("key "));
        let master: [u8; 16] = hex(keys.next().unwrap()).try_into().unwrap();
        let published: [u8; 16] = hex(keys.next().unwrap()).try_into().unwrap();
        let input = hex(field("data ").unwrap());
        let aid = Aid::from_bytes([0xAA, 0xAA, u8::try_from(place).unwrap()]);
        token.load(aid, KeyNo::MASTER, &master, &input).unwrap();
        let mut inside = token.derive(aid, KeyNo::MASTER, &input).unwrap();
        let mut outside = desfire_ev1::split::SoftKey::new(&desfire_ev1::Key::aes(published));
        // A handshake's worth of both directions.
        for direction in [CbcDirection::Encrypt, CbcDirection::Decrypt] {
            let iv = [0x3C; 16];
            let (mut one, mut other) = ([0x5A; 48], [0x5A; 48]);
            inside.cbc(direction, &iv, &mut one).unwrap();
            let Ok(()) = desfire_ev1::split::CbcKey::cbc(&mut outside, direction, &iv, &mut other);
            if vector.contains("pad_to") {
                // Deployed deviations, padded to one block: they must not come out.
                assert_ne!(one, other, "{vector}");
            } else {
                assert_eq!(one, other, "{vector}");
            }
        }
        let attributes = inside.attributes(&[AttributeType::Extractable]).unwrap();
        assert_eq!(attributes, [Attribute::Extractable(false)]);
        if vector.contains("pad_to") {
            deviations += 1;
        } else {
            seen += 1;
        }
    }
    assert_eq!((seen, deviations), (2, 2));
    println!("published AES diversifications reproduced in the token: {seen}");
}

/// Keys and inputs that are not the scheme's are errors, after which the token works on.
#[test]
#[ignore = "needs a token: .ci/voucher"]
fn other_inputs_and_keys() {
    let token = the_token();
    let uid = desfire_ev1::wire::Uid([4; 7]);
    let redeem = KeyNo::new(1).unwrap();
    let missing = token.derive(AID, KeyNo::new(9).unwrap(), &scheme::input(&uid));
    assert!(matches!(missing, Err(TokenError::NoKey(_))));
    let mut input = scheme::input(&uid);
    input[3] ^= 1;
    let other = token.derive(AID, redeem, &input);
    assert!(matches!(other, Err(TokenError::OtherInput)));
    for len in [0, 14] {
        assert!(token.derive(AID, redeem, &input[..len]).is_err());
    }
    assert!(token.derive(AID, redeem, &[0; 40]).is_err());
    // After all these errors it still works, and the software key store agrees.
    let mut inside = token.derive(AID, redeem, &scheme::input(&uid)).unwrap();
    let (_, master) = desk()
        .masters()
        .find(|(key_no, _)| *key_no == redeem)
        .map(|(n, k)| (n, *k))
        .unwrap();
    let key = desfire_ev1::Key::aes(master)
        .diversify(&scheme::input(&uid))
        .unwrap();
    let (mut one, mut other) = ([1; 16], [1; 16]);
    inside
        .cbc(CbcDirection::Encrypt, &[0; 16], &mut one)
        .unwrap();
    let mut outside = desfire_ev1::split::SoftKey::new(&key);
    let Ok(()) =
        desfire_ev1::split::CbcKey::cbc(&mut outside, CbcDirection::Encrypt, &[0; 16], &mut other);
    assert_eq!(one, other);
}
