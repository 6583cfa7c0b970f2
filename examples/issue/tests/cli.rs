//! The program as a user meets it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

fn layout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("layouts/campus.toml")
}

fn issue(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_issue"));
    command.args(args).env_remove("ISSUE_PASSWORD");
    command
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (text(&output.stdout), text(&output.stderr))
}

#[track_caller]
fn good(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let (out, err) = text(&output);
    assert!(output.status.success(), "{out}\n{err}");
    out
}

#[track_caller]
fn bad(command: &mut Command, code: i32) -> String {
    let output = command.output().unwrap();
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(code), "{out}\n{err}");
    out + &err
}

#[test]
fn help_and_wrong_command_lines() {
    let help = good(&mut issue(&["--help"]));
    assert!(help.contains("--tear") && help.contains("DESFIRE_KEY_"));
    let layout = layout();
    let layout = layout.to_str().unwrap();
    for args in [
        &[][..],
        &["--nonsense"],
        &["--layout", layout],
        &["--layout", layout, "--box", "1", "--reader"],
        &["--layout", layout, "--reader", "--tear"],
        &["--layout", layout, "--box", "1", "--plan"],
        &["--layout", layout, "--box", "x"],
        &[
            "--layout",
            layout,
            "--box",
            "1",
            "--keys",
            "x",
            "--demo-keys",
        ],
        &["seal", "one"],
        &["nothing"],
    ] {
        assert!(bad(&mut issue(args), 2).contains("--help"), "{args:?}");
    }
}

#[test]
fn a_box_with_bad_luck_ends_well() {
    let folder = tempfile::tempdir().unwrap();
    let base = folder.path().join("batch.7");
    let layout = layout();
    let out = good(&mut issue(&[
        "--layout",
        layout.to_str().unwrap(),
        "--demo-keys",
        "--box",
        "30",
        "--tear",
        "--report",
        base.to_str().unwrap(),
    ]));
    let torn = out
        .lines()
        .filter(|line| line.contains("HALF DONE"))
        .count();
    assert!(torn > 5, "{out}");
    assert!(out.contains("30 cards: "), "{out}");
    let json = std::fs::read_to_string(folder.path().join("batch.7.json")).unwrap();
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    let cards = json["cards"].as_array().unwrap();
    assert_eq!(cards.len(), 30);
    let ends = |end: &str| cards.iter().filter(|card| card["end"] == end).count();
    assert_eq!(ends("issued") + ends("resumed"), 30);
    assert!(ends("resumed") > 3);
    assert!(!out.contains(" 0 exchanges"), "{out}");
    let mut csv = csv::Reader::from_path(folder.path().join("batch.7.csv")).unwrap();
    assert_eq!(
        csv.records()
            .filter(|row| row.as_ref().unwrap()[1] != *"")
            .count(),
        30
    );
}

#[test]
fn a_torn_box_is_resumed_by_the_next_run() {
    let folder = tempfile::tempdir().unwrap();
    let keys = folder.path().join("keys.age");
    let cards = folder.path().join("cards");
    let layout = layout();
    let layout = layout.to_str().unwrap();
    let with_password = |args: &[&str]| {
        let mut command = issue(args);
        command.env("ISSUE_PASSWORD", "correct horse");
        command
    };
    let made = good(&mut with_password(&[
        "new-keys",
        "--layout",
        layout,
        keys.to_str().unwrap(),
    ]));
    assert!(
        made.contains("10 keys") && made.contains("put the real ones"),
        "{made}"
    );
    // It does not overwrite keys.
    bad(
        &mut with_password(&["new-keys", "--layout", layout, keys.to_str().unwrap()]),
        1,
    );
    let listed = good(&mut with_password(&["list-keys", keys.to_str().unwrap()]));
    assert!(listed.contains("door read  version 1  AES"), "{listed}");
    let run = |more: &[&str]| {
        let mut args = vec![
            "--layout",
            layout,
            "--keys",
            keys.to_str().unwrap(),
            "--box",
            "12",
        ];
        args.extend(["--dir", cards.to_str().unwrap()]);
        args.extend(more);
        with_password(&args)
    };
    let out = bad(&mut run(&["--tear", "--once", "--seed", "5"]), 1);
    let torn = out
        .lines()
        .filter(|line| line.contains("HALF DONE"))
        .count();
    assert!(torn > 2, "{out}");
    let out = good(&mut run(&["--dry-run", "--plan"]));
    assert!(
        out.contains("planned") && out.contains("the layout's key"),
        "{out}"
    );
    let out = good(&mut run(&[]));
    let issued = out
        .lines()
        .filter(|line| line.contains("  issued  "))
        .count();
    // A card that was pulled away after its very last change has nothing left to do.
    assert!(issued > 2 && issued <= torn, "{torn} torn\n{out}");
    let total = format!("12 cards: {issued} issued, {} nothing to do", 12 - issued);
    assert!(out.contains(&total), "{out}");
    let out = good(&mut run(&["--dry-run"]));
    assert!(out.contains("12 nothing to do"), "{out}");
    // A wrong password says so; keys from nowhere are told by name.
    let mut wrong = run(&[]);
    assert!(bad(wrong.env("ISSUE_PASSWORD", "wrong"), 1).contains("password is wrong"));
    let out = bad(&mut issue(&["--layout", layout, "--box", "1"]), 1);
    assert!(
        out.contains("there is no key 'picc'") && out.contains("environment"),
        "{out}"
    );
}

#[test]
fn somebody_elses_cards_are_refused_and_told() {
    let layout = layout();
    let args = [
        "--layout",
        layout.to_str().unwrap(),
        "--demo-keys",
        "--box",
        "8",
        "--strange",
    ];
    let out = bad(&mut issue(&args), 1);
    assert!(out.contains("7 issued, 1 REFUSED"), "{out}");
    assert!(out.contains("none of those that it could be"), "{out}");
}

#[test]
fn keys_from_the_environment_stay_there() {
    const SECRETS: [&str; 2] = [
        "5EC2E7000102030405060708090A0B0C",
        "5EC2E71112131415161718191A1B1C1D",
    ];
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layout.toml");
    let report = folder.path().join("report");
    std::fs::write(
        &path,
        "name = \"one\"\ncard = \"2K\"\n[picc]\nkey = { name = \"the picc\", version = 3 }\n\
         [[application]]\naid = \"000001\"\nkey_type = \"AES\"\n\
         keys = [{ name = \"app\", version = 1 }]\n",
    )
    .unwrap();
    let run = |picc: &str| {
        let mut command = issue(&["--layout", path.to_str().unwrap(), "--box", "2"]);
        command.args(["--report", report.to_str().unwrap()]);
        command.env("DESFIRE_KEY_THE_PICC_V3", picc);
        command.env("DESFIRE_KEY_APP_V1", format!("AES:{}", SECRETS[1]));
        command
    };
    let mut out = good(&mut run(&format!("AES:{}", SECRETS[0])));
    out += &bad(&mut run(&format!("3K3DES:{}", SECRETS[0])), 1);
    assert!(
        out.contains("DESFIRE_KEY_THE_PICC_V3 is not TYPE:HEX"),
        "{out}"
    );
    out += &std::fs::read_to_string(report.with_extension("json")).unwrap();
    out += &std::fs::read_to_string(report.with_extension("csv")).unwrap();
    for secret in SECRETS {
        assert!(!out.contains(secret) && !out.contains(&secret[..12]));
    }
}

#[test]
fn a_wrong_layout_is_told_with_its_line() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("layout.toml");
    let good_layout = std::fs::read_to_string(layout()).unwrap();
    let wrong = good_layout.replace("read = 2, write = 1", "read = 9, write = 1");
    std::fs::write(&path, &wrong).unwrap();
    let line = wrong
        .lines()
        .position(|line| line.contains("read = 9"))
        .unwrap()
        + 1;
    let args = [
        "--layout",
        path.to_str().unwrap(),
        "--demo-keys",
        "--box",
        "1",
    ];
    let out = bad(&mut issue(&args), 1);
    assert!(out.contains(&format!("line {line}: ")), "{out}");
    assert!(out.contains("there are 3 keys"), "{out}");
}
