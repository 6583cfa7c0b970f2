//! The program as a user runs it.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use std::process::{Command, Output};
use std::sync::{Mutex, PoisonError};

/// Each run of the program puts its own keys into the one token that there is.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

fn voucher(arguments: &[&str]) -> Output {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    command(arguments).output().unwrap()
}

fn command(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_voucher"));
    command.args(arguments).env("VOUCHER_PIN", "1234");
    if let Some(module) = std::env::var_os("VOUCHER_TEST_TOKEN")
        && arguments.first() != Some(&"--help")
    {
        command.arg("--token").arg("--module").arg(module);
    }
    command
}

/// A part that runs until it is told to stop.
#[cfg(unix)]
struct Part {
    child: std::process::Child,
    out: std::io::BufReader<std::process::ChildStdout>,
    address: String,
}

#[cfg(unix)]
impl Part {
    fn start(arguments: &[&str]) -> Self {
        use std::io::BufRead as _;
        use std::process::Stdio;
        let mut child = command(arguments)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut out = std::io::BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        out.read_line(&mut line).unwrap();
        let (_, address) = line.trim_end().rsplit_once(" at ").expect("an address");
        let address = address.to_owned();
        Self {
            child,
            out,
            address,
        }
    }

    /// SIGTERM; whether it ended well, what else it said, and its log.
    fn stop(mut self) -> (bool, String, String) {
        use std::io::Read as _;
        let pid = self.child.id().to_string();
        assert!(Command::new("kill").arg(pid).status().unwrap().success());
        let (mut out, mut log) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        let mut errors = self.child.stderr.take().unwrap();
        errors.read_to_string(&mut log).unwrap();
        (self.child.wait().unwrap().success(), out, log)
    }
}

#[cfg(unix)]
impl Drop for Part {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Of the shop's file the service keeps the base key and, without a token, the redeeming master key. The
/// desk's two others are nowhere in its memory, and with a token none is.
#[cfg(target_os = "linux")]
fn the_service_has_wiped(pid: u32, shop: &[u8]) {
    use std::io::{Read as _, Seek as _, SeekFrom};
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).unwrap();
    let mut memory = std::fs::File::open(format!("/proc/{pid}/mem")).unwrap();
    let (mut base_key, mut redeeming, mut others) = (0, 0, 0);
    for line in maps.lines().filter(|line| line.contains(" rw")) {
        let (from, rest) = line.split_once('-').unwrap();
        let (to, _) = rest.split_once(' ').unwrap();
        let [from, to] = [from, to].map(|end| u64::from_str_radix(end, 16).unwrap());
        let mut part = vec![0; usize::try_from(to - from).unwrap()];
        memory.seek(SeekFrom::Start(from)).unwrap();
        if memory.read_exact(&mut part).is_err() {
            continue;
        }
        let count = |key: &[u8]| part.windows(16).filter(|bytes| *bytes == key).count();
        base_key += count(&shop[..16]);
        redeeming += count(&shop[32..48]);
        others += count(&shop[16..32]) + count(&shop[48..64]);
    }
    assert!(base_key > 0, "the search finds what is there");
    assert_eq!(others, 0);
    let in_token = std::env::var_os("VOUCHER_TEST_TOKEN").is_some();
    assert_eq!(redeeming == 0, in_token);
}

/// Service, card, desk and till as processes of their own; a signal stops the service in good order.
#[cfg(unix)]
#[test]
fn the_parts_apart() {
    let _one = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let folder = std::env::temp_dir().join(format!("voucher-apart-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let shop = folder.join("shop");
    let shop = shop.to_str().unwrap();
    let service = Part::start(&["service", "--shop", shop, "--audit"]);
    let card = Part::start(&["card"]);
    let run = |arguments: &[&str]| {
        let output = command(arguments).output().unwrap();
        let text = [output.stdout, output.stderr].concat();
        (output.status.code(), String::from_utf8(text).unwrap())
    };
    let (code, said) = run(&["issue", "--shop", shop, "--card", &card.address]);
    assert_eq!(code, Some(0), "{said}");
    let tap = |till: &str, mode: &str, count: &str, service: &str| {
        run(&[
            "tap",
            "--shop",
            shop,
            "--card",
            &card.address,
            "--service",
            service,
            "--till",
            till,
            "--mode",
            mode,
            "--count",
            count,
        ])
    };
    let (code, said) = tap("till-1", "card-locked", "1", &service.address);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("has no keys yet"), "{said}");
    let keys = |till: &str| run(&["till", "--shop", shop, "--till", till]);
    for till in ["till-1", "till-2", "till-3", "till-4"] {
        let (code, said) = keys(till);
        assert_eq!(code, Some(0), "{said}");
    }
    // From here on no till needs the shop's file.
    std::fs::rename(shop, folder.join("put away")).unwrap();
    let mut left = 100;
    for (till, mode) in [
        ("till-1", "card-locked"),
        ("till-2", "script"),
        ("till-3", "proven"),
        ("till-4", "remote"),
        // Its register is where it was left.
        ("till-1", "card-locked"),
    ] {
        let (code, said) = tap(till, mode, "3", &service.address);
        left -= 3;
        assert_eq!(code, Some(0), "{mode}: {said}");
        assert!(
            said.starts_with(&format!("redeemed 3, {left} left;")),
            "{said}"
        );
    }
    // A card may come five times a second.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    let (code, said) = tap("till-1", "proven", "1", &service.address);
    assert_eq!(code, Some(1), "{said}");
    assert!(
        said.contains("policy") && said.contains("not redeemed"),
        "{said}"
    );
    assert!(!std::path::Path::new(shop).exists());
    std::fs::rename(folder.join("put away"), shop).unwrap();
    // A till has its keys once.
    let before = std::fs::read(folder.join("shop.till-1")).unwrap();
    let (code, said) = keys("till-1");
    assert_eq!(code, Some(1), "{said}");
    assert_eq!(before, std::fs::read(folder.join("shop.till-1")).unwrap());
    let (code, said) = keys("till-9");
    assert_eq!(code, Some(1), "{said}");
    #[cfg(target_os = "linux")]
    the_service_has_wiped(service.child.id(), &std::fs::read(shop).unwrap());
    for path in ["shop", "shop.till-1", "shop.till-4"] {
        use std::os::unix::fs::PermissionsExt as _;
        let mode = std::fs::metadata(folder.join(path)).unwrap().permissions();
        assert_eq!(mode.mode() & 0o777, 0o600, "{path}");
    }
    let address = service.address.clone();
    let (well, said, log) = service.stop();
    assert!(well && said == "stopped\n", "{said}{log}");
    assert_eq!(log.matches("outcome=granted").count(), 5, "{log}");
    let (code, said) = tap("till-1", "card-locked", "1", &address);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("cannot be reached"), "{said}");
    assert!(card.stop().0);
    std::fs::write(folder.join("shop"), [0; 63]).unwrap();
    let (code, said) = run(&["issue", "--shop", shop, "--card", "127.0.0.1:9"]);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("the shop's file"), "{said}");
    std::fs::remove_dir_all(folder).unwrap();
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
