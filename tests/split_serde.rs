//! Messages through `serde`: hexadecimal digits in text, and only the one form.
#![cfg(feature = "serde")]

use desfire_ev1::split::Message;

#[test]
fn text_is_hexadecimal() {
    let message = Message::<8>::from_slice(&[0x01, 0xAB, 0xFF]).unwrap();
    let text = serde_json::to_string(&message).unwrap();
    assert_eq!(text, "\"01abff\"");
    let back: Message<8> = serde_json::from_str(&text).unwrap();
    assert_eq!(back, message);
    for wrong in [
        "\"01ABFF\"",
        "\"01a\"",
        "\"0g\"",
        "\"000102030405060708\"",
        "[1,2]",
        "3",
    ] {
        assert!(
            serde_json::from_str::<Message<8>>(wrong).is_err(),
            "{wrong}"
        );
    }
    assert!(
        serde_json::from_str::<Message<0>>("\"\"")
            .unwrap()
            .is_empty()
    );
}

/// Formats that have bytes as such, whole or one by one.
#[test]
fn bytes_are_bytes() {
    use serde::Deserialize as _;
    use serde::de::value::{BytesDeserializer, Error, SeqDeserializer};
    let bytes = [0x01, 0xAB, 0xFF, 0x00];
    for len in 0..=4 {
        let bytes = &bytes[..len];
        let whole = Message::<3>::deserialize(BytesDeserializer::<Error>::new(bytes));
        let one_by_one =
            Message::<3>::deserialize(SeqDeserializer::<_, Error>::new(bytes.iter().copied()));
        for message in [whole, one_by_one] {
            assert_eq!(message.is_ok(), len <= 3, "{len}");
            assert!(message.is_err() || message.unwrap()[..] == *bytes, "{len}");
        }
    }
}
