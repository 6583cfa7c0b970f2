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

#[path = "support/source.rs"]
mod source;

use std::collections::BTreeSet;
use std::path::Path;

use source::{code_of, declared, files, is_test_file, pieces, read, root, sources};

// ---------------------------------------------------------------------------------------------
// Comparisons

/// Words of which a name is made, if what it names must be compared in constant time.
const SECRET_WORDS: &[&str] = &[
    "mac", "cmac", "tag", "proof", "receipt", "nonce", "nonces", "rnd", "expected", "digest",
    "secret", "key", "token", "echoed", "crc",
];

/// Names with such a word that are something else: numbers, types, lengths and the like.
const HARMLESS_WORDS: &[&str] = &[
    "no", "number", "type", "types", "len", "length", "mode", "settings", "family", "version",
    "count", "size", "status", "info", "access", "change", "flags", "kind", "holder", "name", "id",
    "kinds",
];

/// Comparisons that may stay: the file, a part of the code, and why.
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
        "src/provision/text/mod.rs",
        "Later::Changeable",
        "when a key may change",
    ),
    (
        "src/provision/hand.rs",
        "key_in_use() == key_no",
        "numbers of keys",
    ),
    (
        "src/pcd/channel/incoming.rs",
        "running.finish() == found_crc",
        "no secret once the reply is here; the reason stands there",
    ),
    (
        "src/pcd/protection.rs",
        "granting.contains(&Access::Key(key))",
        "numbers of keys",
    ),
    (
        "src/picc/config.rs",
        "crc != session.crc(",
        "a CRC, in a card that is none",
    ),
    (
        "src/picc/crypto.rs",
        "if crc & 1 == 1",
        "a bit on the way to a CRC",
    ),
    (
        "src/picc/iso_auth.rs",
        "application_key == self.field.selected.is_picc()",
        "which level, yes or no",
    ),
    (
        "src/picc/keys.rs",
        "key_no.number() == session_key",
        "numbers of keys",
    ),
    ("src/picc/keys.rs", "session_key == ", "numbers of keys"),
    ("src/picc/keys.rs", "if key == target", "numbers of keys"),
    (
        "src/picc/keys.rs",
        "crc != session.crc(",
        "a CRC, in a card that is none",
    ),
    (
        "src/picc/session.rs",
        "crc != self.crc(",
        "a CRC, in a card that is none",
    ),
    (
        "src/picc/store.rs",
        "*crc != crc32(",
        "whether the card's memory was written in full",
    ),
    (
        "examples/change-key.rs",
        "key == self.key_no",
        "numbers of keys",
    ),
    (
        "examples/common/ndef.rs",
        "[tag, len] != [0x04, 0x06]",
        "the tag of a TLV",
    ),
    (
        "examples/issue/src/run.rs",
        "default_key.as_ref() == Some(key)",
        "names of keys",
    ),
    (
        "examples/topup/src/message.rs",
        "reply.status == expected",
        "status bytes",
    ),
];

/// Whether a piece of code compares something with `==`, `!=` or their like that has to be compared in
/// constant time. It goes by names: of `a.b(c).d[..]` counts `d`, and of `a.iter()` and its like `a`.
fn compares_secrets(code: &str) -> bool {
    if Names::of(code).compared {
        return true;
    }
    let compared = ["==", "!="].iter().any(|operator| {
        code.match_indices(operator).any(|(at, _)| {
            let (left, right) = (&code[..at], &code[at + operator.len()..]);
            [last_operand(left), first_operand(right)]
                .into_iter()
                .any(|side| Names::of(side).secret)
        })
    });
    let asserted = ["assert_eq!", "assert_ne!"].iter().any(|name| {
        let mut asserted = code.split(name).skip(1).filter_map(brackets);
        asserted.any(|(inside, _)| Names::of(inside).secret)
    });
    compared || asserted
}

/// What ends an operand of a comparison, besides a comma and the bracket that it stands in.
const ENDS: &[&str] = &[
    "if ", "&&", "||", "| ", "{", "}", ";", "=>", "return ", " = ",
];

fn last_operand(code: &str) -> &str {
    let code = ENDS
        .iter()
        .fold(code, |code, end| code.rsplit(end).next().unwrap_or(code));
    let mut depth = 0;
    let start = code.char_indices().rev().find(|(_, letter)| {
        match letter {
            ')' | ']' => depth += 1,
            '(' | '[' => depth -= 1,
            _ => {}
        }
        depth < 0 || depth == 0 && *letter == ','
    });
    &code[start.map_or(0, |(at, _)| at + 1)..]
}

fn first_operand(code: &str) -> &str {
    let code = ENDS
        .iter()
        .fold(code, |code, end| code.split(end).next().unwrap_or(code));
    let mut depth = 0;
    let end = code.char_indices().find(|(_, letter)| {
        match letter {
            '(' | '[' => depth += 1,
            ')' | ']' => depth -= 1,
            _ => {}
        }
        depth < 0 || depth == 0 && *letter == ','
    });
    &code[..end.map_or(code.len(), |(at, _)| at)]
}

/// Comparisons by a method.
const METHODS: &[&str] = &[
    "eq",
    "ne",
    "starts_with",
    "ends_with",
    "contains",
    "cmp",
    "partial_cmp",
    "strip_prefix",
];

/// What these methods give is as secret as what they are called on.
const VIEWS: &[&str] = &[
    "iter",
    "into_iter",
    "as_slice",
    "as_ref",
    "as_bytes",
    "as_deref",
    "bytes",
    "to_vec",
    "to_le_bytes",
    "to_be_bytes",
    "clone",
    "cloned",
    "copied",
    "rev",
    "skip",
    "take",
    "get",
    "unwrap_or_default",
    "zip",
    "enumerate",
];

/// They take a closure, which may compare what they are called on.
const WITH_CLOSURE: &[&str] = &["all", "any", "position", "find", "filter", "map", "fold"];

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
        let (mut name, mut rest) = ("", code);
        // Whether the last name is that of a secret, and whether what it hangs on is.
        let (mut secret, mut receiver) = (false, false);
        loop {
            let end = rest
                .find(|c: char| !c.is_alphanumeric() && c != '_')
                .unwrap_or(rest.len());
            let (next, after) = rest.split_at(end);
            if !next.is_empty() {
                (name, receiver) = (next, secret);
                secret = is_secret(name) || receiver && VIEWS.contains(&name);
            }
            rest = after;
            if let Some((inside, after)) = brackets(rest) {
                let inner = Self::of(inside);
                self.compared |= inner.compared;
                self.compared |= METHODS.contains(&name) && (receiver || inner.secret);
                self.compared |= WITH_CLOSURE.contains(&name)
                    && receiver
                    && (inside.contains("==") || inside.contains("!="));
                // `Some(mac)` is what is in it.
                self.secret |= inner.secret && name.starts_with(char::is_uppercase);
                secret |= inner.secret && name == "zip";
                rest = after;
            }
            rest = match rest.trim_start_matches('?') {
                more if more.starts_with("::") => &more[2..],
                more if more.starts_with('.') && !more.starts_with("..") => &more[1..],
                more if more.starts_with(['(', '[']) => more,
                more => {
                    self.secret |= secret;
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

/// The source of library and examples without what is only for tests: names and texts.
fn shipped() -> Vec<(String, String)> {
    let all = [sources("src"), sources("examples")].concat();
    let is_test = |path: &Path| {
        let mut folders = path.strip_prefix(root()).unwrap().iter();
        is_test_file(path) || folders.any(|folder| folder == "tests" || folder == "benches")
    };
    all.iter()
        .filter(|path| !is_test(path))
        .map(|path| {
            let name = path.strip_prefix(root()).unwrap().display();
            (name.to_string(), read(path))
        })
        .collect()
}

#[test]
fn secrets_are_compared_in_constant_time() {
    let mut looked_at = 0;
    let mut found = Vec::new();
    let mut used = BTreeSet::new();
    for (name, text) in shipped() {
        for (number, piece) in pieces(&text) {
            looked_at += 1;
            if !compares_secrets(&piece) {
                continue;
            }
            let allowed = ALLOWED
                .iter()
                .position(|(file, part, _)| *file == name && piece.contains(part));
            match allowed {
                Some(index) => drop(used.insert(index)),
                None => found.push(format!("{name}:{number}: {piece}")),
            }
        }
    }
    assert!(
        found.is_empty(),
        "compare with subtle's ct_eq:\n{}",
        found.join("\n")
    );
    assert!(looked_at > 10_000, "only {looked_at} pieces of code");
    // The programs among the examples are not in the package.
    let is_there = |file: &str| file.starts_with("src") || root().join(file).exists();
    let unused: Vec<_> = (0..ALLOWED.len())
        .filter(|index| !used.contains(index) && is_there(ALLOWED[*index].0))
        .map(|index| ALLOWED[index])
        .collect();
    assert!(
        unused.is_empty(),
        "exceptions that nothing needs: {unused:?}"
    );
}

/// What is only for tests is left out, and no more than that.
#[test]
fn what_follows_a_test_item_is_looked_at() {
    for (file, part) in [
        ("src/pcd/auth/holder.rs", "self.expected().ct_eq(proof)"),
        ("src/pcd/crypto/cipher.rs", "previous.clone_from(block)"),
        ("src/picc/session.rs", "expected.ct_eq(mac)"),
    ] {
        let text = read(file);
        let (item, wanted) = (text.find("#[cfg(test)]"), text.find(part));
        assert!(item < wanted, "{file}: {part} is not behind a test item");
        let mut code = code_of(&text).into_iter();
        assert!(code.any(|(_, line)| line.contains(part)), "{file}: {part}");
    }
    let text = "a\n#[cfg(test)]\nmod tests {\n    fn b() {\n    }\n}\n#[cfg(test)]\nfn c() {\n}\nd";
    let code: Vec<_> = code_of(text).into_iter().map(|(at, _)| at).collect();
    assert_eq!(code, [1, 7, 8, 9, 10]);
    let is_test = |path: &str| is_test_file(&root().join(path));
    assert!(is_test("src/picc/state_tests.rs") && !is_test("src/picc/state.rs"));
}

#[test]
fn the_search_finds_such_comparisons() {
    let finds = |text: &str| {
        pieces(text)
            .iter()
            .any(|(_, piece)| compares_secrets(piece))
    };
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
        "let right = expected\n    == received;",
        "let right = received\n    .get(..8)\n    == Some(mac);",
        "check(\n    of,\n    self.mac(data) == found,\n);",
        "assert_eq!(\n    found,\n    mac,\n);",
        "let right = bool::from(mac == found);",
        "if mac.iter().eq(found) {",
        "if mac.as_slice().eq(found) {",
        "if found.iter().eq(mac.iter().rev()) {",
        "if mac.as_ref() == found {",
        "if seen.contains(&mac) {",
        "mac.iter().zip(found).all(|(a, b)| a == b)",
        "found.iter().zip(&mac).any(|(a, b)| a != b)",
        "let same = mac\n    .iter()\n    .zip(found)\n    .all(|(a, b)| a == b);",
    ] {
        assert!(finds(bad), "not found: {bad}");
    }
    for good in [
        "if bool::from(mac.ct_eq(&received)) {",
        "if key_type == KeyType::Aes {",
        "if mac_len != 8 {",
        "if self.key_no() == Some(KeyNo::MASTER) {",
        "// if mac == received",
        "if data.len() == TAG_LEN {",
        "check(mac, len == 8);",
        "if mac.iter().len() == 8 {",
        "for (to, from) in room.iter_mut().zip(mac) {",
        "put(mac);\nlen == 8",
    ] {
        assert!(!finds(good), "found in vain: {good}");
    }
}

/// `derive(PartialEq)` compares byte by byte until the first difference.
#[test]
fn types_with_secrets_have_no_derived_comparison() {
    // Not `CardKey`: states of the software card are there to be compared.
    let types = BTreeSet::from([
        "Answer",
        "BaseKey",
        "Candidate",
        "Cipher",
        "Dukpt",
        "InitialKey",
        "Iv",
        "Key",
        "KeyHalf",
        "MemoryKeys",
        "SessionKey",
        "SoftEntry",
        "SoftKey",
        "StorageKey",
        "Subkeys",
        "TransportKey",
        "Wiped",
    ]);
    // Those of a text, and whether each has it. In tests it may.
    let of = |text: &str| -> Vec<(&str, bool)> {
        let mut found = Vec::new();
        for (_, piece) in pieces(text) {
            if let Some((before, name)) = declared(&piece)
                && let Some(name) = types.get(name)
            {
                let before = before.replace("#[cfg_attr(test, derive(PartialEq, Eq))]", "");
                found.push((*name, before.contains("PartialEq")));
            }
        }
        found
    };
    let mut there = BTreeSet::new();
    for (file, text) in shipped() {
        if file.starts_with("src") {
            for (name, derives) in of(&text) {
                assert!(!derives, "{file}: {name}");
                there.insert(name);
            }
        }
    }
    assert_eq!(there, types, "a listed type that is not there");
    for bad in [
        "#[derive(Clone, PartialEq)]\n/// A key.\npub struct Key {",
        "#[derive(\n    Clone,\n    PartialEq,\n)]\nenum Key {",
        "#[cfg_attr(feature = \"x\", derive(PartialEq))]\npub(crate) struct Key(u8);",
    ] {
        assert_eq!(of(bad), [("Key", true)], "not found: {bad}");
    }
    for good in [
        "#[cfg_attr(test, derive(PartialEq, Eq))]\nstruct Key {",
        "#[derive(PartialEq)]\nstruct KeyNo(u8);\nstruct Key;",
    ] {
        assert_eq!(of(good), [("Key", false)], "found in vain: {good}");
    }
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

/// Every `feature = "name"` and every `--features a,b`.
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
    // Scripts are not in the package. `fuzz` has a manifest of its own.
    let mut texts = vec![root().join("README.md"), root().join("CHANGELOG.md")];
    texts.extend(files(".ci"));
    for path in texts {
        for name in mentioned(&read(&path)) {
            let path = path.display();
            assert!(known.contains(&name), "{path}: no feature {name}");
        }
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
