//! The program as a user runs it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    reason = "a test is allowed to fail loudly"
)]

use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// Each run of the program puts its own keys into the one token that there is.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn voucher(arguments: &[&str]) -> Output {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let mut command = Command::new(env!("CARGO_BIN_EXE_voucher"));
    command.args(arguments).env("VOUCHER_PIN", "1234");
    if let Some(module) = std::env::var_os("VOUCHER_TEST_TOKEN")
        && arguments.first() != Some(&"--help")
    {
        command.arg("--token").arg("--module").arg(module);
    }
    command.output().unwrap()
}

#[test]
fn the_demonstration() {
    let output = voucher(&["--delay", "5", "--audit"]);
    let (out, log) = (
        String::from_utf8(output.stdout).unwrap(),
        String::from_utf8(output.stderr).unwrap(),
    );
    assert!(output.status.success(), "{out}{log}");
    let calls = out
        .lines()
        .find_map(|line| line.strip_prefix("calls while the card waits"))
        .expect("the table");
    assert_eq!(
        calls.split_whitespace().collect::<Vec<_>>(),
        ["1", "1", "2", "8"]
    );
    for word in [
        "409 ",
        "401 ",
        "403 ",
        "400 ",
        "not there",
        "all went as it should",
    ] {
        assert!(out.contains(word), "{word} in\n{out}");
    }
    assert!(log.lines().all(|line| line.starts_with("time=")), "{log}");
}

#[test]
fn help_and_mistakes() {
    let help = voucher(&["--help"]);
    assert!(help.status.success());
    let text = String::from_utf8(help.stdout).unwrap();
    for option in ["--token", "--pin-file", "--reader", "--delay", "load"] {
        assert!(text.contains(option), "{option}");
    }
    assert!(text.lines().all(|line| line.chars().count() <= 100));
    let wrong = voucher(&["--nonsense"]);
    assert_eq!(wrong.status.code(), Some(2));
    assert!(
        String::from_utf8(wrong.stderr)
            .unwrap()
            .starts_with("error: ")
    );
    let wrong = voucher(&["--token", "--module", "/no/such/library.so"]);
    if std::env::var_os("VOUCHER_TEST_TOKEN").is_none() {
        assert_eq!(wrong.status.code(), Some(1));
    }
}

#[test]
fn a_short_load() {
    let output = voucher(&["load", "--terminals", "4", "--seconds", "1"]);
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success(), "{out}");
    assert!(
        out.contains("over HTTP") && out.contains("ciphers alone"),
        "{out}"
    );
}
