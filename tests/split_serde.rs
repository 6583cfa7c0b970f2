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
