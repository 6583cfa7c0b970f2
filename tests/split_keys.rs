//! Keys that can be used but not seen: a token that knows standard CBC and nothing else.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/split.rs"]
mod support;

use cbc::cipher::{Array, BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use desfire_ev1::split::{
    AsyncCbcKey, AsyncKeyStore, CbcDirection, CbcKey, CbcWork, Diversification, Diversified,
    HolderError, KeyRequest, KeyStore, Mode, Modes, SoftEntry, SoftKey, SoftKeys, work, work_async,
};
use desfire_ev1::wire::{Aid, AuthScheme, InlineBytes, KeyNo, KeyType, Uid};
use desfire_ev1::{Key, KeyError, Machine, VirtualReader};
use support::*;

/// A token as PKCS#11 has it: `CKM_AES_CBC` and `CKM_DES3_CBC`, one call at a time, and a list of
/// the calls.
struct Token {
    key_type: KeyType,
    key: Vec<u8>,
    calls: Vec<(CbcDirection, usize)>,
    fails_at: Option<usize>,
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct TokenGone;

/// CBC by hand.
fn cbc<C: KeyInit + BlockCipherEncrypt + BlockCipherDecrypt>(
    key: &[u8],
    direction: CbcDirection,
    iv: &[u8],
    data: &mut [u8],
) {
    let cipher = C::new_from_slice(key).unwrap();
    let mut chain = iv.to_vec();
    for block in data.chunks_mut(iv.len()) {
        let before = block.to_vec();
        let mut array = Array::<u8, C::BlockSize>::try_from(&*before).unwrap();
        match direction {
            CbcDirection::Encrypt => {
                array
                    .iter_mut()
                    .zip(&chain)
                    .for_each(|(byte, chain)| *byte ^= chain);
                cipher.encrypt_block(&mut array);
                chain = array.to_vec();
            }
            CbcDirection::Decrypt => {
                cipher.decrypt_block(&mut array);
                array
                    .iter_mut()
                    .zip(&chain)
                    .for_each(|(byte, chain)| *byte ^= chain);
                chain = before;
            }
        }
        block.copy_from_slice(&array);
    }
}

impl Token {
    fn aes(key: [u8; 16]) -> Self {
        Self {
            key_type: KeyType::Aes,
            key: key.to_vec(),
            calls: Vec::new(),
            fails_at: None,
        }
    }

    /// A triple DES key is always 24 bytes there: K1 K1 K1, K1 K2 K1 or K1 K2 K3.
    fn des3(key_type: KeyType, key: &[u8]) -> Self {
        let whole = key.iter().cycle().take(24).copied().collect();
        Self {
            key_type,
            key: whole,
            calls: Vec::new(),
            fails_at: None,
        }
    }

    fn run(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), TokenGone> {
        assert_eq!(iv.len(), self.key_type.block_len());
        assert!(data.len() <= 48 && data.len().is_multiple_of(iv.len()) && !data.is_empty());
        if self.fails_at == Some(self.calls.len()) {
            return Err(TokenGone);
        }
        self.calls.push((direction, data.len()));
        match self.key_type {
            KeyType::Aes => cbc::<aes::Aes128>(&self.key, direction, iv, data),
            _ => cbc::<des::TdesEde3>(&self.key, direction, iv, data),
        }
        Ok(())
    }
}

impl CbcKey for Token {
    type Error = TokenGone;

    fn key_type(&self) -> KeyType {
        self.key_type
    }

    fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), TokenGone> {
        self.run(direction, iv, data)
    }
}

impl AsyncCbcKey for Token {
    type Error = TokenGone;

    fn key_type(&self) -> KeyType {
        self.key_type
    }

    async fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), TokenGone> {
        self.run(direction, iv, data)
    }
}

fn hex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

fn tokens() -> [(AuthScheme, Key, Token); 6] {
    let (aes, three) = (*b"an AES-128 key..", *b"a key of three DES keys!");
    let two = || {
        let key = *b"0123456789abcdef";
        (
            Key::two_key_3des(key).unwrap(),
            Token::des3(KeyType::TwoKey3Des, &key),
        )
    };
    let des = || {
        let key = [0x13, 0x34, 0x57, 0x79, 0x9B, 0xBC, 0xDF, 0xF1];
        (Key::des(key), Token::des3(KeyType::Des, &key))
    };
    let with = |scheme, (key, token)| (scheme, key, token);
    [
        (AuthScheme::Aes, Key::aes(aes), Token::aes(aes)),
        (
            AuthScheme::Iso,
            Key::three_key_3des(three),
            Token::des3(KeyType::ThreeKey3Des, &three),
        ),
        with(AuthScheme::Iso, two()),
        with(AuthScheme::Iso, des()),
        with(AuthScheme::Legacy, two()),
        with(AuthScheme::Legacy, des()),
    ]
}

#[test]
fn a_token_opens_every_kind_of_session() {
    for (scheme, key, mut token) in tokens() {
        let mut counter = Counter::new(VirtualReader::new(card_with(&key)));
        let mut shop = Shop::new(key.clone());
        let waiting = counter.tap(intent(Mode::Proven, scheme, key.key_type(), 1));
        let accepted = shop.accept(&waiting.message().unwrap()).unwrap();
        let answered = accepted.answer(&mut token, &mut getrandom::SysRng).unwrap();
        let (answer, mut pending) = answered.proven(0).unwrap();
        let proven = waiting.proven(&answer).unwrap().run(&mut counter).unwrap();
        let release = pending.release(&proven.message().unwrap(), 0).unwrap();
        let mut session = proven.release(&release).unwrap();
        session
            .get_key_version(KeyNo::MASTER)
            .run(&mut counter)
            .unwrap();
        let n = key.key_type().nonce_len();
        use CbcDirection::{Decrypt, Encrypt};
        let expected = if scheme == AuthScheme::Legacy {
            vec![(Decrypt, 8), (Decrypt, 8), (Decrypt, 8), (Encrypt, 8)]
        } else {
            vec![(Decrypt, n), (Encrypt, 3 * n)]
        };
        assert_eq!(token.calls, expected, "{scheme} {}", key.key_type());
    }
}

#[test]
fn a_token_that_fails() {
    let (_, key, _) = tokens().into_iter().next().unwrap();
    for call in 0..2 {
        let mut counter = Counter::new(VirtualReader::new(card_with(&key)));
        let mut shop = Shop::new(key.clone());
        let mut token = Token::aes(*b"an AES-128 key..");
        token.fails_at = Some(call);
        let message = counter.tap(aes(Mode::CardLocked, 1)).message().unwrap();
        let accepted = shop.accept(&message).unwrap();
        let refused = accepted.answer(&mut token, &mut getrandom::SysRng).err();
        assert_eq!(refused, Some(HolderError::Key(TokenGone)));
    }
}

#[test]
fn a_key_of_another_type() {
    let mut counter = Counter::demo();
    let message = counter.tap(aes(Mode::CardLocked, 1)).message().unwrap();
    let mut guard = desfire_ev1::split::Counters::<1>::new();
    let accepted = check(&message, Modes::default(), &mut guard).unwrap();
    let refused = accepted.answer(&mut SoftKey::new(&Key::des([1; 8])), &mut getrandom::SysRng);
    assert!(matches!(
        refused.err(),
        Some(HolderError::Refused(desfire_ev1::split::Refusal::KeyType(
            KeyType::Des
        )))
    ));
}

/// AN10922's examples and AN10957's short one, by calls of CBC only.
#[test]
fn published_diversification_by_cbc_alone() {
    let aes: [u8; 16] = hex("00112233445566778899aabbccddeeff").try_into().unwrap();
    let three = hex("00112233445566778899aabbccddeeff0102030405060708");
    let short: [u8; 16] = hex("f3f9377698707b688eaf84abe39e3791").try_into().unwrap();
    let cases = [
        (
            Token::aes(aes),
            "04782e21801d803042f54e585020416275",
            "a8dd63a3b89d54b37ca802473fda9175",
        ),
        (
            Token::aes(short),
            "04deadbeeffeed",
            "0bb408baff98b6ee9f2e1585777f6a51",
        ),
        (
            Token::des3(KeyType::TwoKey3Des, &aes),
            "04782e21801d803042f54e58502041",
            "16f8597c9e8910c86b9648d006107dd7",
        ),
        (
            Token::des3(KeyType::ThreeKey3Des, &three),
            "04782e21801d803042f54e5850",
            "2f0dd03675d3fb9a5705ab0bda91ca0b55b8e07fcdbf10ec",
        ),
    ];
    for (mut token, input, expected) in cases {
        let key_type = token.key_type;
        let mut diversification = Diversification::new(key_type, &hex(input)).unwrap();
        work(&mut token, &mut diversification).unwrap();
        let key = diversification.finish().unwrap();
        // Keys do not show themselves: the card with the published key opens for it.
        let published = Key::from_slice(key_type, &hex(expected)).unwrap();
        let scheme = if key_type == KeyType::Aes {
            AuthScheme::Aes
        } else {
            AuthScheme::Iso
        };
        let mut counter = Counter::new(VirtualReader::new(card_with(&published)));
        let session = counter.selected();
        let session = session.authenticate(scheme, KeyNo::MASTER, &key, &mut getrandom::SysRng);
        assert!(session.run(&mut counter).is_ok(), "{input}");
        // The subkeys and one call per part, async as well.
        let parts = hex(expected).len() / key_type.block_len();
        assert_eq!(token.calls.len(), 1 + parts);
        let mut again = Diversification::new(key_type, &hex(input)).unwrap();
        pollster::block_on(work_async(&mut token, &mut again)).unwrap();
        assert_eq!(token.calls.len(), 2 * (1 + parts));
    }
}

/// AN10922's example of an input, its parts given: UID, AID and a name.
#[test]
fn the_input_of_a_diversification() {
    let uid = Uid(hex("04782e21801d80").try_into().unwrap());
    let aid = Aid::from_bytes([0x30, 0x42, 0xF5]);
    for (with_aid, suffix, expected) in [
        (true, &b"NXP Abu"[..], "04782e21801d803042f54e585020416275"),
        (false, b"NXP Abu", "04782e21801d804e585020416275"),
        (true, b"", "04782e21801d803042f5"),
        (false, b"", "04782e21801d80"),
        (
            true,
            b"sixteen bytes :)",
            "04782e21801d803042f57369787465656e206279746573203a29",
        ),
    ] {
        let rule = Diversified {
            with_aid,
            suffix: InlineBytes::new(suffix).unwrap(),
        };
        assert_eq!(rule.input(&uid, aid)[..], hex(expected));
    }
}

/// A key works the same by reference, and as a store hands it out, now or later.
#[test]
fn keys_handed_on() {
    let key = Key::aes(*b"an AES-128 key..");
    let iv = [3; 16];
    let mut expected = vec![7; 32];
    let direct = cbc::<aes::Aes128>;
    direct(
        b"an AES-128 key..",
        CbcDirection::Encrypt,
        &iv,
        &mut expected,
    );
    let entry = SoftEntry {
        aid: AID,
        key_no: KeyNo::MASTER,
        key: key.clone(),
        diversified: None,
    };
    let request = KeyRequest {
        aid: AID,
        key_no: KeyNo::MASTER,
        scheme: AuthScheme::Aes,
        key_type: KeyType::Aes,
        uid: None,
    };
    let entries = [entry];
    let mut store = SoftKeys::new(&entries);
    let mut soft = SoftKey::new(&key);

    fn run<K: CbcKey>(mut key: K, iv: &[u8; 16]) -> Vec<u8> {
        let mut data = vec![7; 32];
        assert_eq!(key.key_type(), KeyType::Aes);
        assert!(key.cbc(CbcDirection::Encrypt, iv, &mut data).is_ok());
        data
    }
    async fn run_async<K: AsyncCbcKey>(mut key: K, iv: &[u8; 16]) -> Vec<u8> {
        let mut data = vec![7; 32];
        assert_eq!(key.key_type(), KeyType::Aes);
        let done = key.cbc(CbcDirection::Encrypt, iv, &mut data).await;
        assert!(done.is_ok());
        data
    }
    assert_eq!(run(&mut soft, &iv), expected);
    assert_eq!(
        run(KeyStore::find(&mut store, &request).unwrap(), &iv),
        expected
    );
    pollster::block_on(async {
        let mut found = AsyncKeyStore::find(&mut store, &request).await.unwrap();
        assert_eq!(run_async(&mut found, &iv).await, expected);
        assert_eq!(run_async(found, &iv).await, expected);
    });
}

/// A token that keeps what it derives gets the message with the subkey in it: the last block of its
/// encryption is the key.
#[test]
fn the_last_task_is_fit_for_derivation_inside() {
    let mut token = Token::aes(hex("00112233445566778899aabbccddeeff").try_into().unwrap());
    let input = hex("04782e21801d803042f54e585020416275");
    let mut diversification = Diversification::new(KeyType::Aes, &input).unwrap();
    let task = diversification.task().unwrap();
    token.run(task.direction, task.iv, task.data).unwrap();
    diversification.done();
    let task = diversification.task().unwrap();
    assert_eq!(
        (task.direction, task.iv, task.data.len()),
        (CbcDirection::Encrypt, &[0; 16][..], 32)
    );
    let mut inside = task.data.to_vec();
    token
        .run(CbcDirection::Encrypt, &[0; 16], &mut inside)
        .unwrap();
    assert_eq!(inside[16..], hex("a8dd63a3b89d54b37ca802473fda9175"));
    // Not finished: no key.
    assert_eq!(
        diversification.finish().err(),
        Some(KeyError::DiversificationInput)
    );
}
