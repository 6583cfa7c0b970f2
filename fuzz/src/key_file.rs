//! Key files of `examples/issue`: the text, and the sealed file around it.
//!
//! Oracle: what is refused is refused with a line that there is, and without a word of what stands in the
//! file; what is taken can be listed. A sealed file that is opened is one that was sealed with the password.

use issue::keys::{self, KeyFileError};

/// Password of [`SEALED`].
const PASSWORD: &str = "fuzz";

/// A file in the form of age, made with Python's `cryptography` by the specification
/// (<https://age-encryption.org/v1>), with the least work there is.
pub const SEALED: &[u8] = include_bytes!("sealed.age");

/// A greater work factor would have the fuzzer wait for scrypt.
const MAX_WORK_FACTOR: u32 = 4;

/// Bytes.
pub fn run(data: &[u8]) {
    if let Ok(text) = str::from_utf8(data) {
        match keys::parse(text) {
            Ok(keys) => {
                let lines = text.split('\n').count();
                let count = keys.list().count();
                assert!(count <= lines, "{count} keys in {lines} lines");
            }
            Err(error) => refused(text, &error),
        }
    }
    if !asks_for_work(data) {
        let password = keys::password(PASSWORD.to_owned()).expect("not empty");
        match keys::open(data, &password) {
            Ok(_) => assert!(data.starts_with(b"age-encryption.org/v1\n")),
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    }
}

fn refused(text: &str, error: &KeyFileError) {
    let KeyFileError::Text { line, reason } = error else {
        panic!("not what a text can be refused for: {error}");
    };
    let lines = text.split('\n').count();
    assert!(*line <= lines, "line {line} of {lines}");
    assert_eq!(error.to_string(), format!("line {line}: {reason}"));
}

/// Whether opening would take long; also for what is armoured, in which that does not show.
fn asks_for_work(data: &[u8]) -> bool {
    let text = String::from_utf8_lossy(data);
    if text.contains("-----BEGIN") {
        return true;
    }
    let words = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("-> scrypt"));
    words
        .filter_map(|words| words.split_whitespace().last())
        .any(|factor| factor.parse::<u32>().is_ok_and(|n| n > MAX_WORK_FACTOR))
}

/// No recording holds a key file; these use what the format has.
pub const TEXTS: &[&str] = &[r#"[[key]]
name = "door read"
version = 1
type = "AES"
hex = "0011 2233 4455 6677 8899 aabb ccdd eeff"
[[key]]
name = "canteen"
version = 255
type = "3K3DES"
hex = "000102030405060708090A0B0C0D0E0F1011121314151617"
[[key]]
name = "old"
version = 0
type = "DES"
hex = "0001020304050607"
[[key]]
name = "old"
version = 1
type = "2K3DES"
hex = "000102030405060708090A0B0C0D0E0F"
"#];

#[cfg(test)]
mod tests {
    use super::*;

    /// The seeds are key files, or nothing would be shown.
    #[test]
    fn seeds_are_opened() {
        let password = keys::password(PASSWORD.to_owned()).expect("not empty");
        let opened = keys::open(SEALED, &password).expect("sealed by the specification");
        assert_eq!(opened.list().count(), 1);
        assert!(!asks_for_work(SEALED));
        for text in TEXTS {
            assert!(keys::parse(text).is_ok());
            run(text.as_bytes());
        }
        run(SEALED);
    }
}
