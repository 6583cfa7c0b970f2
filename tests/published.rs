//! The parts of the library against published vectors, pieces of recorded sessions, and values
//! from an independent implementation: handshakes, session keys, CMAC chains, CRCs, ChangeKey,
//! diversification, key versions, single enciphered exchanges.
//!
//! Every vector of every file is used; the counts are asserted, so that none can be lost.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use desfire_ev1::internals::{Answered, Chain, Codec, Plaintext, crc16, crc32, handshake};
use desfire_ev1::wire::{AuthScheme, CommMode, KeyType};
use desfire_ev1::{Key, Machine, Messaging, Session, Step};

#[path = "support/vectors.rs"]
mod vectors;

use vectors::{Fields, Vector};

/// Loads files and checks how many vectors of the kind they hold.
fn all(files: &[&str], kind: &str, count: usize) -> Vec<Vector> {
    let vectors: Vec<Vector> = files
        .iter()
        .flat_map(|file| vectors::load(file))
        .filter(|vector| vector.kind == kind)
        .collect();
    assert_eq!(vectors.len(), count, "{files:?}");
    vectors
}

fn key_type(text: &str) -> KeyType {
    match text {
        "DES" => KeyType::Des,
        "2K3DES" => KeyType::TwoKey3Des,
        "3K3DES" => KeyType::ThreeKey3Des,
        "AES" => KeyType::Aes,
        other => panic!("no such key type: {other}"),
    }
}

/// A key as the vectors write it: DES with 8 bytes or doubled.
fn key(fields: &Fields, type_field: &str, key_field: &str) -> Key {
    let bytes = fields.hex(key_field);
    match (key_type(fields.text(type_field)), bytes.len()) {
        (KeyType::Des, 16) => {
            assert_eq!(bytes[..8], bytes[8..]);
            Key::from_slice(KeyType::Des, &bytes[..8]).unwrap()
        }
        (key_type, _) => Key::from_slice(key_type, &bytes).unwrap(),
    }
}

fn nonce(bytes: &[u8]) -> [u8; 16] {
    let mut nonce = [0; 16];
    nonce[..bytes.len()].copy_from_slice(bytes);
    nonce
}

fn mode(text: &str) -> CommMode {
    match text {
        "plain" => CommMode::Plain,
        "mac" => CommMode::Mac,
        "enc" => CommMode::Enciphered,
        other => panic!("no such mode: {other}"),
    }
}

fn messaging(text: &str) -> Messaging {
    match text {
        "d40" => Messaging::D40,
        "ev1" => Messaging::Ev1,
        other => panic!("no such messaging: {other}"),
    }
}

/// The vectors give DES session keys with cleared low bits, or not; DES ignores them.
fn same_key(key_type: KeyType, ours: &[u8], theirs: &[u8]) -> bool {
    let mask = if key_type == KeyType::Aes { 0xFF } else { 0xFE };
    let theirs = if key_type == KeyType::Des && theirs.len() == 16 {
        &theirs[..8]
    } else {
        theirs
    };
    ours.iter().zip(theirs).all(|(a, b)| a & mask == b & mask)
}

fn session_key_bytes(answered: &Answered) -> &[u8] {
    let len = match answered.session_key_type {
        KeyType::Des => 8,
        KeyType::TwoKey3Des | KeyType::Aes => 16,
        KeyType::ThreeKey3Des => 24,
    };
    &answered.session_key[..len]
}

fn scheme(code: u8) -> AuthScheme {
    match code {
        0x0A => AuthScheme::Legacy,
        0x1A => AuthScheme::Iso,
        0xAA => AuthScheme::Aes,
        other => panic!("no such handshake: {other:02X}"),
    }
}

#[test]
fn handshakes() {
    let files = ["auth_handshake.txt", "generated_auth_handshake.txt"];
    for vector in all(&files, "auth_handshake", 64) {
        let (input, expect) = (&vector.input, &vector.expect);
        let scheme = scheme(input.byte("auth"));
        let key = key(input, "key_type", "key");
        let rx = input.hex_list("rx");
        let tx = expect.hex_list("tx");
        let proof = match rx.get(1) {
            Some(recorded) => recorded.clone(),
            // No answer was recorded: what it would have been.
            None => expect.hex("rx2"),
        };

        // The holder's half.
        let rnd_a = nonce(&input.hex("rnd_a"));
        let answered = handshake(scheme, &key, &rnd_a, &rx[0][1..], &proof[1..])
            .unwrap_or_else(|error| panic!("{vector}: {error}"));
        assert_eq!(answered.token[..answered.token_len], tx[1][1..], "{vector}");
        assert!(
            same_key(
                answered.session_key_type,
                session_key_bytes(&answered),
                &expect.hex("session_key")
            ),
            "{vector}"
        );
        assert_eq!(
            answered.session_key_type,
            key_type(expect.text("session_key_type"))
        );

        // Both halves as a machine.
        let key_no = desfire_ev1::wire::KeyNo::new(input.number("key_no")).unwrap();
        let mut machine = Session::new()
            .authenticate_with_fixed_nonce_for_testing_only(scheme, key_no, &key, rnd_a);
        let sent = machine.start(desfire_ev1::LinkFormat::NATIVE).unwrap();
        assert_eq!(sent, tx[0], "{vector}");
        let Step::Transmit(sent) = machine.step(&rx[0]).unwrap() else {
            panic!("{vector}: done too early");
        };
        assert_eq!(sent, tx[1], "{vector}");
        assert!(
            matches!(machine.step(&proof), Ok(Step::Done(_))),
            "{vector}"
        );

        // One wrong bit in the proof, and there is no session key.
        for bit in 0..8 * (proof.len() - 1) {
            let mut wrong = proof[1..].to_vec();
            wrong[bit / 8] ^= 1 << (bit % 8);
            assert!(handshake(scheme, &key, &rnd_a, &rx[0][1..], &wrong).is_err());
        }
    }
}

#[test]
fn session_keys() {
    let files = ["session_key.txt", "generated_session_key.txt"];
    for vector in all(&files, "session_key", 65) {
        let (input, expect) = (&vector.input, &vector.expect);
        let (rnd_a, rnd_b) = (input.hex("rnd_a"), input.hex("rnd_b"));
        // Any key of the type will do: it only carries the nonces. The card's part is played here.
        let (key, scheme) = match key_type(input.text("key_type")) {
            KeyType::Des => (Key::des(*b"somewhat"), AuthScheme::Iso),
            KeyType::TwoKey3Des => (
                Key::two_key_3des(*b"something longer").unwrap(),
                AuthScheme::Iso,
            ),
            KeyType::ThreeKey3Des => (
                Key::three_key_3des(*b"something longer, really"),
                AuthScheme::Iso,
            ),
            KeyType::Aes => (Key::aes(*b"something longer"), AuthScheme::Aes),
        };
        let mut card = Chain::new(&key, &[]);
        let mut challenge = rnd_b.clone();
        card.cbc_encrypt(&mut challenge);
        let mut token = [&rnd_a[..], &rnd_b[1..], &rnd_b[..1]].concat();
        card.cbc_encrypt(&mut token);
        let mut proof = [&rnd_a[1..], &rnd_a[..1]].concat();
        card.cbc_encrypt(&mut proof);
        let answered = handshake(scheme, &key, &nonce(&rnd_a), &challenge, &proof).unwrap();
        let (ours, theirs) = (session_key_bytes(&answered), expect.hex("session_key"));
        let agree = match expect.text("compare") {
            "exact" => ours == theirs,
            "masked" => same_key(KeyType::Des, ours, &theirs) && !ours.is_empty(),
            other => panic!("{vector}: {other}"),
        };
        assert!(agree, "{vector}: {ours:02X?}");
    }
}

#[test]
fn cmac_chains() {
    let mut macs = 0;
    for vector in all(&["cmac_sequence.txt"], "cmac_sequence", 58) {
        let key = key(&vector.input, "key_type", "key");
        let mut chain = Chain::new(&key, &vector.input.hex("iv"));
        let expected = vector.expect.opt_hex_list("cmac");
        let truncated = if vector.expect.has("truncated") {
            vector.expect.opt_hex_list("truncated")
        } else {
            vec![None; expected.len()]
        };
        assert_eq!(vector.messages.len(), expected.len(), "{vector}");
        for (index, message) in vector.messages.iter().enumerate() {
            let mac = chain.mac(&message.bytes);
            if let Some(expected) = &expected[index] {
                assert_eq!(mac, expected, "{vector}, message {index}");
                macs += 1;
            }
            if let Some(Some(sent)) = truncated.get(index) {
                assert_eq!(&mac[..sent.len()], sent, "{vector}, message {index}");
                macs += 1;
            }
        }
    }
    assert_eq!(macs, 167);
}

#[test]
fn crcs() {
    for vector in all(&["crc.txt"], "crc", 17) {
        let message = vector.input.hex("message");
        let expected = vector.expect.hex("crc");
        match vector.input.text("algorithm") {
            "crc16" => assert_eq!(crc16(&message)[..], expected, "{vector}"),
            "crc32" => assert_eq!(crc32(&message)[..], expected, "{vector}"),
            other => panic!("{vector}: {other}"),
        }
    }
}

#[test]
fn key_versions() {
    for vector in all(&["key_version.txt"], "key_version", 5) {
        let key = key(&vector.input, "key_type", "key");
        let version: u8 = vector.expect.number("version");
        assert_eq!(key.version(), version, "{vector}");
        // Setting the version that it has changes nothing in the bytes that hold it.
        assert_eq!(key.with_version(version).version(), version);
    }
}

#[test]
fn diversification() {
    let mut by_the_rule = 0;
    for vector in all(&["diversification.txt"], "diversification", 8) {
        let input = &vector.input;
        let master = key(input, "key_type", "key");
        if let Some(pad_to) = input.opt_number::<usize>("pad_to") {
            // A deployed deviation from AN10922, padded to one block: it must *not* come out.
            assert_eq!(pad_to, 16);
            let derived = master.diversify(&input.hex("data")).unwrap();
            let expected = Key::from_slice(derived.key_type(), &vector.expect.hex("key")).unwrap();
            assert!(!same_stored(&derived, &expected), "{vector}");
            continue;
        }
        by_the_rule += 1;
        let mut derived = master.diversify(&input.hex("data")).unwrap();
        if input.opt_flag("keep_version") == Some(true) {
            derived = derived.with_version(master.version());
        }
        let expected = Key::from_slice(derived.key_type(), &vector.expect.hex("key")).unwrap();
        assert!(same_stored(&derived, &expected), "{vector}");
    }
    assert_eq!(by_the_rule, 6);
}

/// Keys do not show their bytes: what they encipher, and the version, tell them apart.
fn same_stored(a: &Key, b: &Key) -> bool {
    let mut blocks = [[0x5A; 32]; 2];
    Chain::new(a, &[]).cbc_encrypt(&mut blocks[0]);
    Chain::new(b, &[]).cbc_encrypt(&mut blocks[1]);
    blocks[0] == blocks[1] && a.version() == b.version()
}

#[test]
fn primitives() {
    for vector in all(&["primitive.txt"], "primitive", 17) {
        let (input, expect) = (&vector.input, &vector.expect);
        let key = key(input, "key_type", "key");
        let iv = input.opt_hex("iv").unwrap_or_default();
        let mut chain = Chain::new(&key, &iv);
        let mut data = input.opt_hex("data").unwrap_or_default();
        match input.text("op") {
            "cmac_subkeys" => {
                let [k1, k2] = chain.subkeys();
                assert_eq!(k1, expect.hex("k1"), "{vector}");
                assert_eq!(k2, expect.hex("k2"), "{vector}");
                continue;
            }
            "cbc_encrypt" => chain.cbc_encrypt(&mut data),
            "cbc_decrypt" | "d40_receive" => chain.cbc_decrypt(&mut data),
            "d40_send" => chain.send_mode(&mut data),
            other => panic!("{vector}: {other}"),
        }
        assert_eq!(data, expect.hex("data"), "{vector}");
    }
}

#[test]
fn enciphered_exchanges() {
    let files = [
        "enciphered_exchange.txt",
        "generated_enciphered_exchange.txt",
    ];
    for vector in all(&files, "enciphered_exchange", 58) {
        let (input, expect) = (&vector.input, &vector.expect);
        let iv = input.opt_hex("iv").unwrap_or_default();
        let session_key = key(input, "session_key_type", "session_key");
        let mut codec = Codec::new(messaging(input.text("scheme")), &session_key, &iv);
        let (code, header) = (input.byte("cmd"), input.hex("header"));
        let data = input.hex("data");
        let plain = Plaintext {
            code,
            header: &header,
            data: &data,
            second_crc: &[],
        };
        let mut out = [0; 600];
        let len = codec
            .seal(plain, mode(input.text("tx_comm")), &mut out)
            .unwrap();
        let sent = [&[code], &header[..], &out[..len]].concat();
        assert_eq!(sent, expect.hex("tx_payload"), "{vector}");
        if let Some(iv) = expect.opt_hex("iv_after_tx") {
            assert_eq!(codec.iv().unwrap(), iv, "{vector}");
        }
        assert_eq!(input.byte("rx_status"), 0);
        let payload = input.hex("rx_payload");
        let data = expect.hex("rx_data");
        let length = input.opt_number::<usize>("rx_length");
        let mut buffer = vec![0; data.len()];
        let len = codec
            .open(&payload, mode(input.text("rx_comm")), length, &mut buffer)
            .unwrap_or_else(|error| panic!("{vector}: {error}"));
        assert_eq!(buffer[..len], data, "{vector}");
        if let Some(iv) = expect.opt_hex("iv_after_rx") {
            assert_eq!(codec.iv().unwrap(), iv, "{vector}");
        }
    }
}

#[test]
fn change_key_cryptograms() {
    let files = ["changekey.txt", "generated_changekey.txt"];
    for vector in all(&files, "changekey", 43) {
        let (input, expect) = (&vector.input, &vector.expect);
        let iv = input.opt_hex("iv").unwrap_or_default();
        let session_key = key(input, "session_key_type", "session_key");
        let mut codec = Codec::new(messaging(input.text("scheme")), &session_key, &iv);
        // K or X, and the version: what the command hands to the channel.
        let stored = |bytes: Vec<u8>| {
            if bytes.len() == 8 {
                bytes.repeat(2)
            } else {
                bytes
            }
        };
        let new = stored(input.hex("new_key"));
        let mut data = new.clone();
        let same_key = input.flag("same_key");
        if !same_key {
            let old = stored(input.hex("old_key"));
            data.iter_mut()
                .zip(old)
                .for_each(|(byte, old)| *byte ^= old);
        }
        if input.text("new_key_type") == "AES" {
            data.push(input.number("new_key_version"));
        }
        assert!(expect.hex("plaintext").starts_with(&data), "{vector}");
        let plain = Plaintext {
            code: 0xC4,
            header: &input.hex("key_no"),
            data: &data,
            second_crc: if same_key { &[] } else { &new },
        };
        let mut out = [0; 64];
        let len = codec.seal(plain, CommMode::Enciphered, &mut out).unwrap();
        let sent = [&[0xC4], plain.header, &out[..len]].concat();
        assert_eq!(sent, expect.hex("tx"), "{vector}");
        if let Some(iv) = expect.opt_hex("iv_after") {
            assert_eq!(codec.iv().unwrap(), iv, "{vector}");
        }
    }
}
