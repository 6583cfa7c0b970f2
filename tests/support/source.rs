//! The crate's own source as text, for tests of rules that no compiler knows.

#![allow(dead_code, reason = "each test file uses a part of it")]

use std::fs;
use std::path::{Path, PathBuf};

pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = root().join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// All files below a folder, if there is one; what was built there is none of the source.
pub(crate) fn files(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).into_iter().flatten() {
            let path = entry.unwrap().path();
            if !path.is_dir() {
                found.push(path);
            } else if !path.ends_with("target") {
                folders.push(path);
            }
        }
    }
    found.sort();
    found
}

/// All `.rs` files below a folder, if there is one.
pub(crate) fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = files(folder);
    found.retain(|path| path.extension().is_some_and(|extension| extension == "rs"));
    found
}

/// The lines of a file with their numbers, without its test modules. One ends where a `}` stands as far
/// to the left as it began: rustfmt sees to that.
pub(crate) fn code_of(text: &str) -> Vec<(usize, &str)> {
    let mut code = Vec::new();
    let mut lines = (1..).zip(text.lines()).peekable();
    while let Some((number, line)) = lines.next() {
        let module = lines.next_if(|(_, next)| is_for_tests(line) && opens_module(next));
        if let Some((_, opening)) = module {
            let end = format!("{}}}", indentation(opening));
            lines.find(|(_, line)| *line == end);
        } else {
            code.push((number, line));
        }
    }
    code
}

/// The code of a file in pieces, each with the number of its first line: what rustfmt has broken over lines
/// is one piece again, with the attributes before it and without comments. A piece ends with a statement,
/// where a block begins or ends, and where an element of a list does.
pub(crate) fn pieces(text: &str) -> Vec<(usize, String)> {
    let mut pieces = Vec::new();
    let (mut start, mut piece) = (0, String::new());
    for (number, line) in code_of(text) {
        let line = line.split("//").next().unwrap_or_default().trim();
        if line.is_empty() {
            continue;
        }
        if piece.is_empty() {
            start = number;
        } else if !piece.ends_with(['(', '[']) && !line.starts_with(['.', '?', ')', ']']) {
            piece.push(' ');
        }
        piece.push_str(line);
        let is_over = match line.chars().next_back() {
            Some(';' | '{' | '}') => true,
            Some(',') => piece.matches(['(', '[']).count() <= piece.matches([')', ']']).count(),
            _ => false,
        };
        if is_over {
            pieces.push((start, std::mem::take(&mut piece)));
        }
    }
    if !piece.is_empty() {
        pieces.push((start, piece));
    }
    pieces
}

/// The type that a piece declares: what stands before its name, and the name.
pub(crate) fn declared(piece: &str) -> Option<(&str, &str)> {
    let at = ["struct ", "enum ", "union "].iter().find_map(|word| {
        let is_word = |at: &usize| *at == 0 || piece[..*at].ends_with(' ');
        let at = piece.match_indices(word).map(|(at, _)| at).find(is_word)?;
        Some(at + word.len())
    })?;
    let (before, name) = piece.split_at(at);
    let end = name.find(|letter: char| !letter.is_alphanumeric());
    Some((before, &name[..end.unwrap_or(name.len())]))
}

/// Whether a file is a test module of its own, as the file above it says.
pub(crate) fn is_test_file(path: &Path) -> bool {
    let (Some(folder), Some(name)) = (path.parent(), path.file_stem()) else {
        return false;
    };
    let declared = format!("mod {};", name.display());
    let Ok(above) = fs::read_to_string(folder.join("mod.rs")) else {
        return false;
    };
    let lines: Vec<&str> = above.lines().collect();
    lines
        .windows(2)
        .any(|pair| is_for_tests(pair[0]) && pair[1].ends_with(&declared))
}

fn is_for_tests(line: &str) -> bool {
    line.trim() == "#[cfg(test)]"
}

fn opens_module(line: &str) -> bool {
    line.ends_with('{') && line.split_whitespace().any(|word| word == "mod")
}

fn indentation(line: &str) -> &str {
    &line[..line.len() - line.trim_start().len()]
}
