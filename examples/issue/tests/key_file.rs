//! Key files: damaged, hostile, and never quoted.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use desfire_ev1::provision::{KeyStore as _, Layout};
use issue::keys::{self, KeyFileError, MAX_FILE};
use proptest::prelude::*;

const SECRET: &str = "A55EC2E7A55EC2E7A55EC2E7A55EC2E7";

fn good() -> String {
    format!(
        "[[key]]\nname = \"door read\"\nversion = 1\ntype = \"AES\"\nhex = \"{SECRET}\"\n\n\
         [[key]]\nname = \"canteen\"\nversion = 1\ntype = \"2K3DES\"\nhex = \"000102030405060708090A0B0C0D0E0F\"\n"
    )
}

fn password(text: &str) -> age::secrecy::SecretString {
    keys::password(text.to_owned()).unwrap()
}

fn says_nothing_of_it(error: &KeyFileError) {
    let said = format!("{error} {error:?}");
    assert!(
        !said.contains(&SECRET[..8]) && !said.to_lowercase().contains("a55ec2e7"),
        "{said}"
    );
}

#[test]
fn sealed_and_opened() {
    let sealed = keys::seal(&good(), &password("one"), Some(2)).unwrap();
    assert!(sealed.starts_with("-----BEGIN AGE ENCRYPTED FILE-----"));
    assert!(!sealed.contains("door"));
    let opened = keys::open(sealed.as_bytes(), &password("one")).unwrap();
    assert_eq!(opened.list().count(), 2);
    let wrong = keys::open(sealed.as_bytes(), &password("two")).unwrap_err();
    assert_eq!(wrong, KeyFileError::Password);
    assert!(keys::password(String::new()).is_none());
}

/// Sealed by the reference implementation (`age -p -a`, version 1.1.1), password `correct horse`.
#[test]
fn sealed_by_somebody_else() {
    let sealed = include_bytes!("keys-by-age.txt");
    let keys = keys::open(sealed, &password("correct horse")).unwrap();
    assert!(keys.key("door read", 1).is_ok());
}

#[test]
fn wrong_texts_are_told_without_being_quoted() {
    let wrong = [
        // A key where something else belongs: the parser's own message would quote it.
        good().replace(
            "version = 1\ntype = \"AES\"",
            &format!("version = \"{SECRET}\"\ntype = \"AES\""),
        ),
        good().replace("type = \"AES\"", &format!("type = \"{SECRET}\"")),
        good().replace("hex = \"A", "hex = \"G"),
        good().replace("hex = \"A5", "hex = \"A"),
        good().replace("hex = \"A5", "hex = \""),
        good().replace("hex = \"", "hex = "),
        good().replace("hex", "key"),
        good().replace("name = \"door read\"", "name = \"\""),
        good() + &good(),
        format!("{SECRET} = 3"),
    ];
    for text in wrong {
        let error = keys::parse(&text).unwrap_err();
        says_nothing_of_it(&error);
        assert!(matches!(error, KeyFileError::Text { .. }), "{error}");
        assert!(keys::seal(&text, &password("one"), Some(2)).is_err());
    }
    assert_eq!(
        keys::parse(&"#".repeat(MAX_FILE + 1)).unwrap_err(),
        KeyFileError::TooLong
    );
}

/// As many keys as fit are read, each with its own name, and the last is found to be wrong.
#[test]
fn a_long_key_file_is_read_in_no_time() {
    let mut text = String::new();
    let mut count = 0;
    while text.len() < MAX_FILE - 200 {
        count += 1;
        text +=
            &format!("[[key]]\nname=\"k{count}\"\nversion=1\ntype=\"DES\"\nhex=\"{SECRET:.16}\"\n");
    }
    let started = std::time::Instant::now();
    assert_eq!(keys::parse(&text).unwrap().list().count(), count);
    text += "[[key]]\nname=\"k1\"\nversion=1\ntype=\"DES\"\nhex=\"00\"\n";
    let error = keys::parse(&text).unwrap_err();
    let line = count * 5 + 1;
    assert!(
        matches!(error, KeyFileError::Text { line: there, .. } if there == line),
        "{error}"
    );
    println!("{count} keys, twice: {:?}", started.elapsed());
    assert!(started.elapsed().as_secs() < 30);
}

/// A file may ask for any amount of work before it can be told that it is nothing.
#[test]
fn a_file_that_asks_for_too_much_work_is_refused_at_once() {
    let mut recipient = age::scrypt::Recipient::new(password("x"));
    recipient.set_work_factor(7);
    let sealed = age::encrypt(&recipient, good().as_bytes()).unwrap();
    assert!(keys::open(&sealed, &password("x")).is_ok());
    let header = sealed
        .windows(3)
        .position(|window| window == b" 7\n")
        .unwrap();
    let greedy = [&sealed[..header], b" 40\n", &sealed[header + 3..]].concat();
    let started = std::time::Instant::now();
    assert_eq!(
        keys::open(&greedy, &password("x")).unwrap_err(),
        KeyFileError::Password
    );
    assert!(started.elapsed().as_secs() < 2);
}

#[test]
fn invented_keys_fit_the_layout() {
    let layout = std::fs::read_to_string(
        std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("layouts/campus.toml"),
    );
    let layout = Layout::from_toml(&layout.unwrap()).unwrap();
    let text = keys::invent(&layout).unwrap();
    let made = keys::parse(&text).unwrap();
    assert!(desfire_ev1::provision::Issuer::new(&layout, &made).is_ok());
    assert_ne!(*text, *keys::invent(&layout).unwrap());
}

#[test]
fn variables_that_would_be_the_same_are_refused() {
    let text = "name = \"x\"\ncard = \"2K\"\n[picc]\nkey = { name = \"a b\", version = 1 }\n\
        transport = [{ name = \"a-b\", version = 1 }]\n";
    let layout = Layout::from_toml(text).unwrap();
    let error = keys::from_environment(&layout, |_| None).unwrap_err();
    assert!(
        matches!(error, KeyFileError::SameVariable { .. }),
        "{error}"
    );
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn damaged_texts_are_refused_or_keys(at in 0..400_usize, byte in any::<u8>(), cut in 0..400_usize) {
        let mut bytes = good().into_bytes();
        let place = at % bytes.len();
        bytes[place] = byte;
        bytes.truncate(cut.max(place + 1));
        let text = String::from_utf8_lossy(&bytes).into_owned();
        match keys::parse(&text) {
            Ok(keys) => prop_assert!(keys.list().count() <= 2),
            Err(error) => says_nothing_of_it(&error),
        }
    }

    /// Whatever stands in a file, it is refused or keys; never for long.
    #[test]
    fn any_bytes_are_refused_or_keys(bytes in prop::collection::vec(any::<u8>(), 0..600)) {
        prop_assert!(keys::open(&bytes, &password("one")).is_err());
        if let Err(error) = keys::parse(&String::from_utf8_lossy(&bytes)) {
            let is_text = matches!(error, KeyFileError::Text { .. });
            prop_assert!(is_text, "{error}");
        }
    }

    /// A sealed file with any byte changed or missing is not opened.
    #[test]
    fn damaged_files_are_not_opened(at in 0..2000_usize, flip in 1..=255_u8, cut in any::<bool>()) {
        let text = good();
        let sealed = keys::seal(&text, &password("one"), Some(1)).unwrap();
        let mut bytes = sealed.clone().into_bytes();
        let place = at % bytes.len();
        if cut {
            bytes.truncate(place);
        } else {
            bytes[place] ^= flip;
        }
        match keys::open(&bytes, &password("one")) {
            Err(error) => says_nothing_of_it(&error),
            // Only blanks around the armour say nothing.
            Ok(_) => prop_assert!(String::from_utf8_lossy(&bytes).trim() == sealed.trim()
                || cut && place + 2 >= sealed.len(), "byte {place} does not count"),
        }
    }
}
