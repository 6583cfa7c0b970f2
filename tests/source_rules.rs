//! Rules about the source that neither compiler nor clippy knows.
//!
//! - MACs, proofs, receipts and the like are compared by `subtle`, never by `==`.
//! - Every feature is described, and nothing that is no feature.
//!
//! They read the source as text; each is also shown to find what is wrong.

#![allow(
    missing_docs,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All `.rs` files below a folder, if there is one.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

// ---------------------------------------------------------------------------------------------
// Comparisons

/// Words of which a name is made, if what it names must be compared in constant time.
const SECRET_WORDS: &[&str] = &[
    "mac", "cmac", "tag", "proof", "receipt", "nonce", "nonces", "rnd", "expected", "digest",
    "secret", "key", "token", "echoed", "crc",
];

/// Names with such a word that are something else: numbers, types, lengths and the like.
const HARMLESS_WORDS: &[&str] = &[
    "no",
    "number",
    "type",
    "types",
    "len",
    "length",
    "mode",
    "settings",
    "family",
    "version",
    "count",
    "size",
    "status",
    "info",
    "access",
    "in_use",
    "change",
    "flags",
    "kind",
    "holder",
    "name",
    "id",
    "kinds",
    "change_key",
];

/// Comparisons that may stay: the file, a part of the line, and why.
const ALLOWED: &[(&str, &str, &str)] = &[
    ("src/pcd/auth/iso7816.rs", "received != expected", "lengths"),
    ("src/pcd/channel/mod.rs", "len == expected", "lengths"),
    ("src/pcd/command/raw.rs", "expected != len", "lengths"),
    (
        "src/pcd/auth/apart.rs",
        "challenge.len() != expected",
        "lengths",
    ),
    (
        "src/split/challenge.rs",
        "cryptogram.len() != expected",
        "lengths",
    ),
    (
        "src/split/relay.rs",
        "found != expected",
        "places of messages in a dialogue",
    ),
    ("src/provision/apply.rs", "Ok(found == expected)", "layouts"),
    ("src/provision/keys.rs", "!= expected", "types of keys"),
    (
        "src/provision/text.rs",
        "Later::Changeable",
        "when a key may change",
    ),
    (
        "src/provision/hand.rs",
        "key_in_use() == key_no",
        "numbers of keys",
    ),
];

/// Whether a line compares something with `==`, `!=` or their like that has to be compared in constant
/// time. It goes by names: of `a.b(c).d[..]` counts `d`.
fn compares_secrets(line: &str) -> bool {
    let code = line.split("//").next().unwrap_or_default();
    let names = Names::of(code);
    if names.compared {
        return true;
    }
    ["==", "!=", "assert_eq!(", "assert_ne!("]
        .iter()
        .any(|operator| {
            code.match_indices(operator).any(|(at, _)| {
                let (left, right) = (&code[..at], &code[at + operator.len()..]);
                let left = ENDS
                    .iter()
                    .fold(left, |left, end| left.rsplit(end).next().unwrap_or(left));
                let right = ENDS
                    .iter()
                    .fold(right, |right, end| right.split(end).next().unwrap_or(right));
                [left, right].into_iter().any(|side| Names::of(side).secret)
            })
        })
}

/// What ends an operand of a comparison.
const ENDS: &[&str] = &["if ", "&&", "||", "{", "}", ";", "=>", "return ", " = "];

/// Comparisons by a method.
const METHODS: &[&str] = &[
    "eq",
    "ne",
    "starts_with",
    "ends_with",
    "cmp",
    "partial_cmp",
    "strip_prefix",
];

/// What is named in a piece of code.
#[derive(Default)]
struct Names {
    /// Something secret is.
    secret: bool,
    /// Something secret is compared by a method.
    compared: bool,
}

impl Names {
    fn of(code: &str) -> Self {
        let mut names = Self::default();
        let mut rest = code;
        while let Some(at) = rest.find(|letter: char| letter.is_alphabetic() || letter == '_') {
            rest = names.chain(&rest[at..]);
        }
        names
    }

    /// A name with all that hangs on it, as in `a.b(c)?.d[..]`; what follows it.
    fn chain<'a>(&mut self, code: &'a str) -> &'a str {
        let (mut before, mut name, mut rest) = ("", "", code);
        loop {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let (next, after) = rest.split_at(end);
            if !next.is_empty() {
                (before, name) = (name, next);
            }
            rest = after;
            if let Some((inside, after)) = brackets(rest) {
                let inner = Self::of(inside);
                self.compared |= inner.compared;
                self.compared |= METHODS.contains(&name) && (is_secret(before) || inner.secret);
                // `Some(mac)` is what is in it.
                self.secret |= inner.secret && name.starts_with(char::is_uppercase);
                rest = after;
            }
            rest = match rest.trim_start_matches('?') {
                more if more.starts_with("::") => &more[2..],
                more if more.starts_with('.') && !more.starts_with("..") => &more[1..],
                more if more.starts_with(['(', '[']) => more,
                more => {
                    self.secret |= is_secret(name);
                    return more;
                }
            };
        }
    }
}

/// What is between brackets at the front, and what follows; to the end if they are not closed.
fn brackets(code: &str) -> Option<(&str, &str)> {
    if !code.starts_with(['(', '[']) {
        return None;
    }
    let mut depth = 0;
    for (at, letter) in code.char_indices() {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
        if depth == 0 {
            return Some((&code[1..at], &code[at + 1..]));
        }
    }
    Some((&code[1..], ""))
}

fn is_secret(name: &str) -> bool {
    let words: Vec<&str> = name.split('_').collect();
    let of = |list: &[&str]| words.iter().any(|word| list.contains(word));
    of(SECRET_WORDS) && !of(HARMLESS_WORDS)
}

/// The lines of a file without its tests, which stand last.
fn code_of(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(at, line)| (at + 1, line));
    lines.take_while(|(_, line)| !line.contains("#[cfg(test)]"))
}

#[test]
fn secrets_are_compared_in_constant_time() {
    let mut looked_at = 0;
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for folder in ["src/pcd", "src/split", "src/purse", "src/provision"] {
        for path in sources(folder) {
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            let text = read(&path);
            for (number, line) in code_of(&text) {
                looked_at += 1;
                if !compares_secrets(line) {
                    continue;
                }
                let allowed = ALLOWED
                    .iter()
                    .position(|(file, part, _)| *file == name && line.contains(part));
                match allowed {
                    Some(index) => drop(used.insert(index)),
                    None => found.push(format!("{name}:{number}: {}", line.trim())),
                }
            }
        }
    }
    assert!(
        found.is_empty(),
        "compare with subtle's ct_eq:\n{}",
        found.join("\n")
    );
    assert!(looked_at > 5000, "only {looked_at} lines");
    assert_eq!(used.len(), ALLOWED.len(), "an exception that nothing needs");
}

#[test]
fn the_search_finds_such_comparisons() {
    for bad in [
        "if mac == received {",
        "if received != &expected[..8] {",
        "    (self.mac(data) == received).then_some(())",
        "if answer.expected() == proof { return Ok(()) }",
        "return tag == other.tag;",
        "if !receipt.eq(&known) {",
        "assert!(session_key != old);",
        "let right = self.rnd_a[..] == *told;",
        "if told.ends_with(&cmac) {",
        "if (a, b) == (c, rnd_b) {",
    ] {
        assert!(compares_secrets(bad), "not found: {bad}");
    }
    for good in [
        "if bool::from(mac.ct_eq(&received)) {",
        "if key_type == KeyType::Aes {",
        "if mac_len != 8 {",
        "if self.key_no() == Some(KeyNo::MASTER) {",
        "// if mac == received",
        "if data.len() == TAG_LEN {",
    ] {
        assert!(!compares_secrets(good), "found in vain: {good}");
    }
}

/// `derive(PartialEq)` compares byte by byte until the first difference.
#[test]
fn types_with_secrets_have_no_derived_comparison() {
    let types = [
        "Key",
        "SessionKey",
        "Answer",
        "Cipher",
        "Subkeys",
        "Receipt",
        "Proof",
        "Token",
        "Tag",
    ];
    let derives = |text: &str| -> Vec<String> {
        let mut found = Vec::new();
        let mut derived = String::new();
        for (_, line) in code_of(text) {
            let line = line.trim();
            if line.starts_with("#[derive(") {
                derived = line.to_owned();
            } else if let Some((_, rest)) = line.split_once("struct ") {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
                if types.contains(&name.as_str()) && derived.contains("PartialEq") {
                    found.push(name);
                }
                derived.clear();
            } else if !line.starts_with('#') && !line.starts_with("//") {
                derived.clear();
            }
        }
        found
    };
    for folder in ["src/pcd", "src/split"] {
        for path in sources(folder) {
            let found = derives(&read(&path));
            assert!(found.is_empty(), "{}: {found:?}", path.display());
        }
    }
    let bad = "#[derive(Clone, PartialEq)]\n/// A key.\npub struct Key {";
    assert_eq!(derives(bad), ["Key"], "the search can find");
}

// ---------------------------------------------------------------------------------------------
// Features

/// The features of a manifest, without `default`.
fn features(manifest: &str) -> BTreeSet<String> {
    let table = manifest.split("[features]").nth(1).expect("features");
    table
        .lines()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .map(|(name, _)| name.trim())
        .filter(|name| !name.starts_with('#') && *name != "default")
        .map(str::to_owned)
        .collect()
}

/// The names in back quotes in the first column of the table under a heading.
fn described(text: &str, heading: &str) -> BTreeSet<String> {
    let text = text.replace("//! ", "").replace("//!", "");
    let section = text.split(heading).nth(1);
    let section = section.unwrap_or_else(|| panic!("there is no heading {heading}"));
    section
        .lines()
        .skip(1)
        .take_while(|line| !line.starts_with('#'))
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect()
}

/// Every `feature = "name"` in the source and every `--features a,b` in texts and scripts.
fn mentioned(text: &str) -> BTreeSet<String> {
    let quoted = text.split("feature = \"").skip(1);
    let quoted = quoted.filter_map(|rest| rest.split('"').next());
    let given = text.split("--features ").skip(1);
    let given = given.filter_map(|rest| rest.split([' ', '\n', '`', ')', '"', ';']).next());
    let given = given.flat_map(|list| list.split(','));
    quoted
        .chain(given)
        .map(|name| name.trim_start_matches("desfire-ev1/"))
        .filter(|name| !name.is_empty() && !name.starts_with(['$', '{', '-']))
        .map(str::to_owned)
        .collect()
}

#[test]
fn every_feature_is_described_and_no_other() {
    let known = features(&read("Cargo.toml"));
    assert!(known.contains("picc") && known.len() > 3, "{known:?}");
    // One that nothing asks for yet has nothing to be described.
    let asked_for = |name: &String| {
        let asks = format!("feature = \"{name}\"");
        sources("src").iter().any(|path| read(path).contains(&asks))
    };
    let there: BTreeSet<String> = known
        .iter()
        .filter(|name| asked_for(name))
        .cloned()
        .collect();
    let table = described(&read("src/lib.rs"), "# Features\n");
    let unknown: Vec<_> = table.difference(&known).collect();
    assert!(
        unknown.is_empty(),
        "src/lib.rs describes what is no feature: {unknown:?}"
    );
    let missing: Vec<_> = there.difference(&table).collect();
    assert!(
        missing.is_empty(),
        "src/lib.rs does not describe {missing:?}"
    );
    let readme = read("README.md");
    let section = readme.split("## Features\n").nth(1).expect("a section");
    let section = section.split("\n## ").next().unwrap_or_default();
    for name in &there {
        assert!(
            section.contains(&format!("`{name}`")),
            "README.md does not describe {name}"
        );
    }
    for folder in ["src", "examples", "tests", "benches"] {
        for path in sources(folder) {
            // Examples with a manifest of their own have features of their own.
            if path
                .ancestors()
                .any(|folder| folder != root() && folder.join("Cargo.toml").exists())
                || path.ends_with("source_rules.rs")
            {
                continue;
            }
            for name in mentioned(&read(&path)) {
                assert!(
                    known.contains(&name),
                    "{}: no feature {name}",
                    path.display()
                );
            }
        }
    }
    for name in mentioned(&read("README.md")) {
        assert!(known.contains(&name), "README.md: no feature {name}");
    }
}

#[test]
fn the_search_for_features_finds_them() {
    let manifest =
        "[features]\ndefault = []\n# One.\none = []\ntwo = [\"one\"]\n[dependencies]\nx = 1";
    assert_eq!(features(manifest), ["one", "two"].map(str::to_owned).into());
    let text =
        "//! # Features\n//!\n//! | `one` | x |\n//! | `three` | y |\n//! # Next\n//! | `four` |";
    assert_eq!(
        described(text, "# Features\n"),
        ["one", "three"].map(str::to_owned).into()
    );
    let text = "cfg(feature = \"five\") and `cargo test --features six,seven`";
    let found = mentioned(text);
    assert_eq!(found, ["five", "six", "seven"].map(str::to_owned).into());
}
