//! The examples as a new user meets them: run as programs, with their exit codes and what they
//! print. All run on the software card.
#![cfg(not(miri))]
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Once;
use std::time::SystemTime;

#[path = "../examples/common/mod.rs"]
mod common;

use common::ndef::{self, CapabilityContainer, Record};

const ALL: [&str; 6] = ["inspect", "format", "change-key", "ndef", "tap", "door"];

/// The examples that have the options all share; `tap` and `door` have their own.
const CARDS: [&str; 4] = ["inspect", "format", "change-key", "ndef"];

const KEYS: [&str; 3] = ["DESFIRE_KEY", "DESFIRE_OLD_KEY", "DESFIRE_NEW_KEY"];

const NEW_KEY: &str = "aes:00112233445566778899AABBCCDDEEFF:2A";

/// Where Cargo puts examples: beside the directory that this test is in.
fn program(example: &str) -> PathBuf {
    let mut path = std::env::current_exe().unwrap();
    path.pop();
    path.pop();
    path.push("examples");
    path.push(format!("{example}{}", std::env::consts::EXE_SUFFIX));
    path
}

/// `cargo test` builds the examples before it runs the tests, `cargo test --test examples` does
/// not.
fn build_examples() {
    static BUILD: Once = Once::new();
    BUILD.call_once(|| {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let changed = last_change(&root.join("src")).max(last_change(&root.join("examples")));
        if ALL
            .iter()
            .all(|example| last_change(&program(example)) >= changed)
        {
            return;
        }
        let mut build = Command::new(env!("CARGO"));
        build.args(["build", "--quiet", "--examples", "--manifest-path"]);
        build.arg(root.join("Cargo.toml"));
        if !cfg!(debug_assertions) {
            build.arg("--release");
        }
        assert!(build.status().unwrap().success());
    });
}

/// When a file, or any in a directory, was changed last; long ago if there is none.
fn last_change(path: &Path) -> SystemTime {
    if let Ok(entries) = path.read_dir() {
        let changes = entries.map(|entry| last_change(&entry.unwrap().path()));
        return changes.max().unwrap_or(SystemTime::UNIX_EPOCH);
    }
    path.metadata()
        .and_then(|file| file.modified())
        .unwrap_or(SystemTime::UNIX_EPOCH)
}

struct Run {
    code: i32,
    out: String,
    error: String,
}

impl Run {
    #[track_caller]
    fn ends_with_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.out, self.error);
        self
    }

    #[track_caller]
    fn prints(self, lines: &[&str]) -> Self {
        for line in lines {
            assert!(self.out.contains(line), "{line}\n\nin\n\n{}", self.out);
        }
        self
    }

    #[track_caller]
    fn complains(self, text: &str) -> Self {
        assert!(self.error.contains(text), "{text}\n\nin\n\n{}", self.error);
        self
    }
}

fn command(example: &str, arguments: &[&str]) -> Command {
    build_examples();
    let mut command = Command::new(program(example));
    for name in KEYS {
        command.env_remove(name);
    }
    command.args(arguments);
    command
}

fn run_with(example: &str, arguments: &[&str], environment: &[(&str, &str)]) -> Run {
    let output = command(example, arguments)
        .envs(environment.iter().copied())
        .output()
        .unwrap();
    Run {
        code: output.status.code().unwrap(),
        out: String::from_utf8(output.stdout).unwrap(),
        error: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run(example: &str, arguments: &[&str]) -> Run {
    run_with(example, arguments, &[])
}

#[test]
fn every_example_helps() {
    for example in ALL {
        let usage = format!("Usage: cargo run --example {example}");
        let help = run(example, &["--help"]).ends_with_code(0);
        let help = help.prints(&[&usage, "--help"]);
        assert!(!help.out.contains("{common}") && !help.out.contains("{keys}"));
        assert!(
            help.out.lines().all(|line| line.chars().count() <= 100),
            "{example}"
        );
        assert_eq!(run(example, &["-h"]).ends_with_code(0).out, help.out);
    }
    for example in CARDS {
        run(example, &["--help"]).prints(&[
            "\n  --reader [NAME]",
            "--trace",
            "DESFIRE_KEY",
            "\nExamples, ",
        ]);
    }
}

#[test]
fn wrong_arguments_end_with_2() {
    for example in ALL {
        for arguments in [&["--no-such-option"][..], &["stray"], &["-x"]] {
            run(example, arguments)
                .ends_with_code(2)
                .complains("Try --help.");
        }
    }
    for (example, arguments) in [
        ("tap", &["--native", "--reader"][..]),
        ("tap", &["--random", "--repeat"]),
        ("door", &["--once"]),
        ("door", &["--issue", "4711"]),
        ("door", &["--reader", "--doors", "1"]),
        ("door", &["--door", "64"]),
        ("door", &["--lost", "4711"]),
        ("door", &["--reader", "--lost", "Fay"]),
        ("door", &["--reader", "--issue", "1", "--days", "0"]),
        ("door", &["--reader", "--issue", "1", "--once"]),
        ("inspect", &["--key", "aes:00"]),
        ("inspect", &["--key"]),
        ("inspect", &["--aid", "00DE16"]),
        ("inspect", &["--key", "aes:zero", "--aid", "1000000"]),
        ("inspect", &["--key", "aes:zero", "--key-no", "14"]),
        ("format", &["--key", "rsa:zero"]),
        ("change-key", &["--key-no", "1", "--new-key", NEW_KEY]),
        ("change-key", &["--aid", "00DE16"]),
        (
            "change-key",
            &["--aid", "00DE16", "--new-key", NEW_KEY, "--change-type"],
        ),
        ("change-key", &["--new-key", NEW_KEY, "--cut", "never"]),
        ("ndef", &["--read", "--uri", "https://example.org/"]),
        ("ndef", &["--create"]),
        ("ndef", &["--uri", "https://example.org/", "--size", "100"]),
        ("ndef", &["--create", "--text", "x", "--size", "40000"]),
    ] {
        let wrong = run(example, arguments).ends_with_code(2);
        assert_eq!(wrong.out, "", "{example} {arguments:?}");
        wrong.complains("error: ");
    }
}

#[test]
fn a_key_that_is_none_is_not_repeated() {
    for key in [
        "aes:C0FFEE",
        "aes:C0FFEEC0FFEEC0FFEEC0FFEEC0FFEEXX",
        "C0FFEE",
        "aes:zero:C0FFEE",
    ] {
        let given = run("inspect", &["--key", key]).ends_with_code(2);
        assert!(!given.error.contains("C0FFEE"), "{}", given.error);
        let stored = run_with("inspect", &[], &[("DESFIRE_KEY", key)]).ends_with_code(2);
        assert!(!stored.error.contains("C0FFEE"), "{}", stored.error);
        stored.complains("DESFIRE_KEY");
    }
    // Where the option has been forgotten.
    for example in ALL {
        let stray = run(example, &[NEW_KEY]).ends_with_code(2);
        assert!(!stray.error.contains("00112233"), "{}", stray.error);
        stray.complains("an argument without an option");
    }
}

#[test]
fn a_trace_shows_every_byte_and_changes_nothing_else() {
    for example in CARDS {
        let plain = run(example, &[]);
        let traced = run(example, &["--trace"]).ends_with_code(plain.code);
        assert_eq!(plain.out, traced.out);
        traced.complains("  GetVersion\n    > 90 60 00 00 00\n    < 04 01 01 01 00 1A 05 91 AF\n");
    }
}

/// As an output, it is a pipe that nobody reads.
fn unread() -> std::io::PipeWriter {
    std::io::pipe().unwrap().1
}

#[test]
fn nobody_need_read_what_an_example_prints() {
    for (example, arguments, code) in [
        ("inspect", &[][..], 0),
        ("inspect", &["--json"], 0),
        ("format", &["--yes"], 0),
        ("format", &[], 1),
        ("change-key", &[], 0),
        ("ndef", &[], 0),
        ("tap", &[], 0),
        ("door", &[], 0),
        ("softcard", &["--help"], 0),
    ] {
        let output = command(example, arguments).stdout(unread()).output();
        let output = output.unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(code), "{example}: {error}");
        // A panic has a code of its own, and words.
        assert_eq!(error.is_empty(), code == 0, "{example}: {error}");

        let mut neither = command(example, arguments);
        neither.stdout(unread()).stderr(unread());
        assert_eq!(neither.status().unwrap().code(), Some(code), "{example}");
    }
    for example in ALL {
        for arguments in [&["--help"][..], &["--trace"]] {
            let mut neither = command(example, arguments);
            let status = neither.stdout(unread()).stderr(unread()).status();
            let code = i32::from(example == "format" && arguments == ["--trace"]);
            assert_eq!(status.unwrap().code(), Some(code), "{example}");
        }
    }
}

#[test]
#[cfg(target_os = "linux")]
fn what_cannot_be_printed_is_an_error() {
    for (example, arguments) in [
        ("inspect", &["--json"][..]),
        ("format", &["--yes"]),
        ("change-key", &[]),
        ("ndef", &[]),
        ("tap", &[]),
        ("door", &[]),
        ("tap", &["--help"]),
    ] {
        let full = std::fs::File::create("/dev/full").unwrap();
        let output = command(example, arguments).stdout(full).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{example}: {error}");
        assert!(error.starts_with("error: it is done, but"), "{error}");
    }
}

#[test]
fn inspect_shows_what_is_free_to_see() {
    run("inspect", &[]).ends_with_code(0).prints(&[
        "MIFARE DESFire EV1 8K, UID 045A217A3C5B80\n├─ hardware 1.0 by NXP",
        "├─ made in week 1 of 2010",
        "├─ PICC master key DES/2K3DES, version 00\n",
        "│  ├─ keys 3 × AES, all of version 00\n",
        "│  ├─ file 2: value, 0 to 1000000, limited credit enabled (0 left), enciphered\n",
        "│  │  └─ content: needs key 0\n",
        "│  ├─ ISO FID E110, DF name D2760000850101 (NDEF, NFC Forum Type 4 tag)\n",
        "│  │  └─ 0000  00 0F 20 00 3A 00 34 04 06 E1 04 01 00 00 00 ",
        "│     └─ the other 224 bytes are 00\n",
        "│  │  └─ value 420\n",
        "  2024-05-04 Berne\n│     └─ record 0: ",
        "└─ application F48120\n   ├─ keys 2 × unknown type, all of version 01\n",
        "   └─ files: needs the application master key\n",
    ]);
}

#[test]
fn inspect_shows_more_with_a_key() {
    let own = ["--aid", "00DE16", "--key", "aes:zero"];
    let shown = run("inspect", &own).ends_with_code(0).prints(&[
        "│  ├─ authenticated with the application master key\n",
        "│  │  └─ all 32 bytes are 00\n",
        "│  │  └─ value 1000\n",
        "│     └─ no records\n",
    ]);
    let by_environment = run_with(
        "inspect",
        &["--aid", "DE16"],
        &[("DESFIRE_KEY", "aes:zero")],
    );
    assert_eq!(by_environment.ends_with_code(0).out, shown.out);
    run("inspect", &["--key", "des:zero"])
        .ends_with_code(0)
        .prints(&["├─ authenticated with the PICC master key\n"]);

    let digits = "616E20616363657373206B65792E2E2E";
    let locked = ["--aid", "F48120", "--key", &format!("aes:{digits}")];
    let shown = run("inspect", &locked).ends_with_code(0).prints(&[
        "   ├─ keys 2 × AES, all of version 01\n",
        "   │  ├─ listing, creating and deleting files need key 0\n",
        "  badge 0004711, d\n",
    ]);
    assert!(!shown.out.contains(digits), "a key is printed");
    // A key that may not list: what it cannot see does not end the program.
    run("inspect", &[&locked[..], &["--key-no", "1"]].concat())
        .ends_with_code(0)
        .prints(&[
            "   ├─ authenticated with key 1\n   └─ files: needs the application master key\n",
        ]);
}

#[test]
fn inspect_says_what_is_wrong() {
    run("inspect", &["--key", "aes:zero"])
        .ends_with_code(1)
        .complains("error: key 0 of the card is not this one\n  because: AuthenticateAES: ");
    run("inspect", &["--key", "aes:zero", "--aid", "5"])
        .ends_with_code(1)
        .complains("error: there is no application 000005 on the card\n");
}

#[test]
fn inspect_writes_json() {
    for arguments in [
        &["--json"][..],
        &["--json", "--all", "--aid", "00DE16", "--key", "aes:zero"],
    ] {
        let shown = run("inspect", arguments).ends_with_code(0).prints(&[
            r#""uid": "045A217A3C5B80","#,
            r#""df_name": "D2760000850101""#,
            r#""content": 420"#,
            r#""refused": "needs the application master key""#,
        ]);
        assert_eq!(json_value(&shown.out).map(str::trim), Some(""));
    }
    for wrong in [
        "",
        "{",
        "{\"a\": }",
        "[1,]",
        "\"\\x\"",
        "{\"a\" 1}",
        "\"\n\"",
    ] {
        assert_ne!(json_value(wrong).map(str::trim), Some(""), "{wrong}");
    }
}

/// Reads one JSON value (RFC 8259) and returns what follows.
fn json_value(text: &str) -> Option<&str> {
    let text = text.trim_start();
    let mut rest = text.chars();
    match rest.next()? {
        '{' => json_items(rest.as_str(), '}', |text| {
            let rest = json_string(text.trim_start().strip_prefix('"')?)?;
            json_value(rest.trim_start().strip_prefix(':')?)
        }),
        '[' => json_items(rest.as_str(), ']', json_value),
        '"' => json_string(rest.as_str()),
        '-' | '0'..='9' => {
            let end = rest.as_str().find(|c: char| !c.is_ascii_digit())?;
            Some(&rest.as_str()[end..])
        }
        _ => ["null", "true", "false"]
            .iter()
            .find_map(|word| text.strip_prefix(word)),
    }
}

fn json_items(text: &str, close: char, item: impl Fn(&str) -> Option<&str>) -> Option<&str> {
    if let Some(rest) = text.trim_start().strip_prefix(close) {
        return Some(rest);
    }
    let mut text = text;
    loop {
        let rest = item(text)?.trim_start();
        match rest.strip_prefix(',') {
            Some(rest) => text = rest,
            None => return rest.strip_prefix(close),
        }
    }
}

fn json_string(text: &str) -> Option<&str> {
    let mut rest = text.chars();
    loop {
        match rest.next()? {
            '"' => return Some(rest.as_str()),
            '\\' => match rest.next()? {
                '"' | '\\' | '/' | 'b' | 'f' | 'n' | 'r' | 't' => {}
                'u' => (0..4).try_for_each(|_| rest.next()?.is_ascii_hexdigit().then_some(()))?,
                _ => return None,
            },
            '\0'..='\x1F' => return None,
            _ => {}
        }
    }
}

#[test]
fn format_deletes_only_when_told_to() {
    run("format", &[])
        .ends_with_code(1)
        .prints(&[
            "Formatting deletes for good:\n  application 00DE16   5 files\n",
            "  application F48120   does not list its files\n",
        ])
        .complains("error: nothing has been deleted; say --yes");
    run("format", &["--yes"]).ends_with_code(0).prints(&[
        "\n6528 bytes free\n",
        "\nFormatted: 7936 bytes free, 6528 before.\n",
    ]);
    run_with("format", &["--yes"], &[("DESFIRE_KEY", "des:zero")]).ends_with_code(0);
    let refused = run(
        "format",
        &["--yes", "--key", "2k3des:00112233445566778899AABBCCDDEEFF"],
    );
    let refused = refused
        .ends_with_code(1)
        .complains("error: this is not the PICC master key");
    assert!(!refused.out.contains("Formatted"));
}

#[test]
fn change_key_shows_both_kinds_of_change() {
    run("change-key", &[]).ends_with_code(0).prints(&[
        "Key 1 of application 00DE16\n  from  AES, version 00\n  to    AES, version 01\n",
        "  Key 0 authenticates. The session goes on",
        "Key 0 of application 00DE16\n",
        "the change ends the session",
        "  The card says that it is done.\n  The new key authenticates.\n",
    ]);
    let plan = ["--aid", "00DE16", "--key-no", "2"];
    let by_environment = run_with("change-key", &plan, &[("DESFIRE_NEW_KEY", NEW_KEY)]);
    by_environment
        .ends_with_code(0)
        .prints(&["Key 2 of application 00DE16\n", "to    AES, version 2A\n"]);
}

#[test]
fn change_key_changes_the_type_of_the_picc_master_key_only_when_told_to() {
    run("change-key", &["--new-key", NEW_KEY])
        .ends_with_code(1)
        .complains("say --change-type");
    for key in [
        NEW_KEY,
        "3k3des:00112233445566778899AABBCCDDEEFF0102030405060708",
        "2k3des:00112233445566778899AABBCCDDEEFF",
        "des:0011223344556677:55",
    ] {
        run("change-key", &["--new-key", key, "--change-type"])
            .ends_with_code(0)
            .prints(&["The PICC master key\n", "  The new key authenticates.\n"]);
    }
    run(
        "change-key",
        &["--new-key", "2k3des:00112233445566778899AABBCCDDEEFF"],
    )
    .ends_with_code(0);
}

#[test]
fn change_key_finds_out_what_nobody_confirmed() {
    for key_no in ["0", "1"] {
        let change = [
            "--aid",
            "00DE16",
            "--key-no",
            key_no,
            "--new-key",
            NEW_KEY,
            "--cut",
        ];
        run("change-key", &[&change[..], &["after"]].concat())
            .ends_with_code(0)
            .prints(&[
                "(unknown whether the card did it; the session is lost)",
                "  The new key is in force: ",
            ]);
        run("change-key", &[&change[..], &["before"]].concat())
            .ends_with_code(1)
            .prints(&[
                "(unknown whether the card did it; the session is lost)",
                "  The old key is in force: ",
            ])
            .complains("error: the key has not been changed");
    }
    let probe = ["--aid", "00DE16", "--probe", "--new-key"];
    run("change-key", &[&probe[..], &[NEW_KEY]].concat())
        .ends_with_code(1)
        .prints(&["The old key is in force"]);
    run("change-key", &[&probe[..], &["aes:zero"]].concat())
        .ends_with_code(0)
        .prints(&["The new key is in force"]);
    run(
        "change-key",
        &[&probe[..], &[NEW_KEY, "--auth-key", NEW_KEY]].concat(),
    )
    .ends_with_code(1)
    .complains("neither the new key nor the old one");
}

#[test]
fn change_key_says_what_is_wrong() {
    let application = ["--aid", "00DE16", "--new-key", NEW_KEY];
    for (more, complaint) in [
        (&["--auth-key", NEW_KEY][..], "--auth-key is not key 0"),
        (
            &["--key-no", "1", "--old-key", NEW_KEY],
            "1E INTEGRITY_ERROR",
        ),
        (
            &["--key-no", "1", "--auth-key-no", "2"],
            "is changed with key 0, not with key 2",
        ),
        (&["--old-key", NEW_KEY], "said by --auth-key, not --old-key"),
        (
            &["--key-no", "3"],
            "there is no key 3 of application 00DE16",
        ),
    ] {
        run("change-key", &[&application[..], more].concat())
            .ends_with_code(1)
            .complains(complaint);
    }
    run("change-key", &["--aid", "00DE16", "--new-key", "des:zero"])
        .ends_with_code(1)
        .complains("the keys of application 00DE16 are AES for ever");
    run("change-key", &["--aid", "00DE17", "--new-key", NEW_KEY])
        .ends_with_code(1)
        .complains("application 00DE17 cannot be selected\n  because: ");
}

#[test]
fn ndef_makes_a_tag_and_reads_it_as_a_phone_does() {
    run("ndef", &["--trace"])
        .ends_with_code(0)
        .prints(&[
            "  file 1, ISO FID E103: 000F20003A00340406E10401000000\n",
            "  UPDATE BINARY at 0         0035\n",
            "  READ BINARY at 0           0035\n",
            "The message, 53 bytes\n  URI   https://www.rust-lang.org/\n  text  A software card says hello. (en)\n",
        ])
        // Name, capability container, NDEF file, length.
        .complains("    > 00 A4 04 0C 07 D2 76 00 00 85 01 01\n    < 90 00\n")
        .complains("    > 00 A4 00 0C 02 E1 03\n    < 90 00\n")
        .complains("    > 00 B0 00 00 0F\n    < 00 0F 20 00 3A 00 34 04 06 E1 04 01 00 00 00 90 00\n")
        .complains("    > 00 A4 00 0C 02 E1 04\n    < 90 00\n")
        .complains("    > 00 B0 00 00 02\n    < 00 35 90 00\n");
}

#[test]
fn ndef_replaces_a_message_and_shows_it_before() {
    run("ndef", &["--read"])
        .ends_with_code(0)
        .prints(&["The message, 19 bytes\n  URI   https://www.rust-lang.org/\n"]);
    let message = [
        "--text",
        "Grüezi",
        "--lang",
        "de-CH",
        "--uri",
        "tel:+41310000000",
    ];
    run("ndef", &message).ends_with_code(0).prints(&[
        "will be replaced: D1010F5502727573742D6C616E672E6F72672F\n",
        "\n  text  Grüezi (de-CH)\n  URI   tel:+41310000000\n",
    ]);
}

#[test]
fn ndef_writes_long_messages_in_pieces() {
    let long = format!("https://example.org/{}", "0123456789".repeat(40));
    run(
        "ndef",
        &[
            "--create", "--aid", "ABCDEF", "--size", "600", "--uri", &long,
        ],
    )
    .ends_with_code(0)
    .prints(&[
        "  application ABCDEF, ISO FID E110",
        "  UPDATE BINARY at 54  ",
        "  READ BINARY at 60  ",
        &format!("  URI   {long}\n"),
    ]);
    // The longest that fits: with a header of seven bytes, a prefix of one and NLEN.
    let size = long.len() - "https://".len() + 10;
    for (size, code) in [(size, 0), (size - 1, 1)] {
        let size = size.to_string();
        run("ndef", &["--create", "--size", &size, "--uri", &long]).ends_with_code(code);
    }
    run("ndef", &["--create", "--uri", &long])
        .ends_with_code(1)
        .complains("the file room for 254");
    run("ndef", &["--uri", &long])
        .ends_with_code(1)
        .complains("the file room for 254");
}

#[test]
fn ndef_touches_no_other_application() {
    run("ndef", &["--create", "--aid", "00DE16", "--text", "x"])
        .ends_with_code(1)
        .complains("application 00DE16 exists and is not an NDEF application");
    run("ndef", &["--create", "--text", "x", "--size", "9000"])
        .ends_with_code(1)
        .complains("about 9160 bytes are needed and 7392 free");
}

#[test]
fn capability_containers_that_phones_do_not_believe() {
    // Of libfreefare, and of the AN11004 cards of others.
    let good = [
        0x00, 0x0F, 0x20, 0x00, 0x3B, 0x00, 0x34, 0x04, 0x06, 0xE1, 0x04, 0x0E, 0xDE, 0x00, 0x00,
    ];
    let cc = CapabilityContainer::decode(&good).unwrap();
    assert_eq!((cc.max_read, cc.max_write), (59, 52));
    assert_eq!((cc.file, cc.size, cc.room()), (ndef::NDEF_ID, 3806, 3804));
    assert!(cc.free_to_read && cc.free_to_write);
    // Files after the first are not looked at.
    let more = [&good[..], &[5, 6, 0xE1, 5, 0, 9, 0, 0]].concat();
    assert!(CapabilityContainer::decode(&more).is_ok());

    for (place, bytes, complaint) in [
        (0, &[0x00, 0x00][..], "was the card being prepared"),
        (0, &[0x00, 0x0E], "shorter than 15"),
        (2, &[0x10], "mapping version 1.0"),
        (2, &[0x30], "mapping version 3.0"),
        (3, &[0x00, 0x0E], "MLe is below 15"),
        (5, &[0x00, 0x00], "MLc zero"),
        (7, &[0x05], "does not name an NDEF file"),
        (8, &[0x08], "does not name an NDEF file"),
        (9, &[0xE1, 0x03], "a reserved one"),
        (9, &[0x00, 0x00], "a reserved one"),
        (9, &[0xFF, 0xFF], "a reserved one"),
        (11, &[0x00, 0x04], "below 5"),
        (11, &[0xFF, 0xFF], "or FFFF"),
    ] {
        let mut cc = good;
        cc[place..place + bytes.len()].copy_from_slice(bytes);
        let error = CapabilityContainer::decode(&cc).err().unwrap().to_string();
        assert!(error.contains(complaint), "{error}");
    }
    for len in 0..good.len() {
        assert!(CapabilityContainer::decode(&good[..len]).is_err());
    }
    let mut locked = good;
    locked[13..].copy_from_slice(&[0x80, 0xFF]);
    let locked = CapabilityContainer::decode(&locked).unwrap();
    assert!(!locked.free_to_read && !locked.free_to_write);
}

/// What `ndef` shows for a message.
fn shown(message: &[u8]) -> Result<Vec<String>, String> {
    match ndef::decode(message) {
        Ok(records) => Ok(records.iter().map(ToString::to_string).collect()),
        Err(error) => Err(error.to_string()),
    }
}

#[test]
fn messages_of_any_bytes_are_shown_or_refused() {
    for (message, lines) in [
        (&b""[..], &[][..]),
        (b"\xD0\x00\x00", &["an empty record"]),
        (b"\xD1\x01\x01U\x00", &["URI   "]),
        // A prefix that is reserved stands for nothing.
        (b"\xD1\x01\x02U\xFFx", &["URI   x"]),
        // Long form, with an id.
        (
            b"\xC9\x01\0\0\0\x0C\x02Uid\x04example.org",
            &["URI   https://example.org"],
        ),
        (
            b"\x91\x01\x04T\x02enA\x51\x01\x03T\x00\xC3\x9C",
            &["text  A (en)", "text  Ü ()"],
        ),
        // What would move the cursor, or turn the text round.
        (
            b"\xD1\x01\x09U\x00\x1B[2J\r\xE2\x80\xAE",
            &["URI   \\u{1b}[2J\\r\\u{202e}"],
        ),
        (
            b"\xD4\x03\x02a\x1B:xy",
            &["other record, name format 4, type a.:, 2 bytes"],
        ),
        // No UTF-8, no payload, and UTF-16.
        (
            b"\xD1\x01\x02U\x00\xFF",
            &["other record, name format 1, type U, 2 bytes"],
        ),
        (
            b"\xD1\x01\x00T",
            &["other record, name format 1, type T, 0 bytes"],
        ),
        (
            b"\xD1\x01\x03T\x80\0A",
            &["other record, name format 1, type T, 3 bytes"],
        ),
    ] {
        assert_eq!(shown(message).unwrap(), lines, "{message:02X?}");
        for cut in 1..message.len().min(4) {
            let cut = shown(&message[..message.len() - cut]);
            assert!(cut.is_err() || lines.len() > 1, "{message:02X?}");
        }
    }
    for wrong in [
        // A chunk, and lengths that are longer than what there is.
        &b"\xB1\x01\x02U\x00x"[..],
        b"\xC1\x01\xFF\xFF\xFF\xFFU",
        b"\xD9\xFF\xFF\xFF",
        b"\xD1\x01\x03U\x00x",
    ] {
        let error = shown(wrong).unwrap_err();
        assert_eq!(error, "the NDEF message is cut off or in chunks");
    }
    let text = |language: &str| Record::Text {
        language: language.to_owned(),
        text: String::new(),
    };
    assert!(ndef::encode(&[text(&"x".repeat(63))]).is_ok());
    assert!(ndef::encode(&[text(&"x".repeat(64))]).is_err());
}

#[test]
fn a_tap_ends_well() {
    run("tap", &[])
        .ends_with_code(0)
        .prints(&["committed: 1000 -> 750, record 1 written\n"]);
}

/// The example checks by itself for whom it opens; this is that its last line cannot be had otherwise.
#[test]
fn a_door_opens_for_badges_only() {
    let ada = "Ada\n  OPEN  for badge 4711\n";
    let all = "door 3: opened 2 times, stayed shut 10 times, each time rightly\n";
    let shown = run("door", &[]).ends_with_code(0).prints(&[ada, all]);
    assert_eq!(shown.out.matches("OPEN").count(), 2, "{}", shown.out);
    assert!(shown.out.ends_with(all), "{}", shown.out);
    run("door", &["--door", "63"])
        .ends_with_code(0)
        .prints(&["door 63: opened 2 times, stayed shut 10 times, each time rightly\n"]);
}
