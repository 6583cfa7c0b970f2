//! What kinds of seeds there are: whoever is hostile, suite, framing, level, mode.
//!
//! `examples/seeds.rs` takes as many of one kind as of another; the test runs what it has made.

/// The kind of a seed. Targets that are not here have one.
#[must_use]
pub fn kind(target: &str, seed: &[u8]) -> Vec<u8> {
    match (target, seed) {
        // Suite, framing and level; of procedures which.
        ("hostile_card", [how, ..]) => vec![how & 0x1F],
        // Reader and suite.
        ("hostile_reader", [reader, suite, ..]) => vec![*reader, *suite],
        // The terminal's are challenges, which name the mode.
        ("split", [0, _, _, _, _, mode, ..]) => vec![0, *mode],
        ("split", [who @ (1 | 3), mode, kind, ..]) => {
            vec![*who, if *who == 1 { *mode } else { *kind }]
        }
        ("split", [2, _, change, ..]) => vec![2, *change],
        ("card_state" | "split" | "wire", [first, ..]) => vec![*first],
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{card_state, hostile_card, hostile_reader, split, wire};
    use std::collections::BTreeSet;
    use std::fs;
    use std::path::Path;

    /// Every kind that there can be has a seed that gets somewhere.
    #[test]
    fn seeds_of_every_kind_get_somewhere() {
        let pairs = |first: &[u8], second: &[u8]| -> Vec<Vec<u8>> {
            let each = first
                .iter()
                .flat_map(|a| second.iter().map(move |b| vec![*a, *b]));
            each.collect()
        };
        let suites = [0, 1, 2, 3, 4, 5];
        let cards = (0..0x20).map(|how| vec![how]);
        let splits = [
            pairs(&[0], &[1, 2, 3, 4]),
            pairs(&[1, 2], &[0, 1, 2, 3]),
            pairs(&[3], &[0, 1, 2]),
            vec![vec![4]],
        ];
        type Play = fn(&[u8]) -> bool;
        let targets: [(&str, Play, Vec<Vec<u8>>); 5] = [
            ("card_state", card_state::play, vec![vec![0], vec![1]]),
            (
                "hostile_card",
                |seed| hostile_card::play(seed).0 > 0,
                cards.collect(),
            ),
            (
                "hostile_reader",
                |seed| hostile_reader::play(seed) > 0,
                pairs(&[0, 1, 2], &suites),
            ),
            ("split", split::play, splits.concat()),
            (
                "wire",
                |seed| {
                    wire::run(seed);
                    true
                },
                (0..8).map(|kind| vec![kind]).collect(),
            ),
        ];
        for (target, play, kinds) in targets {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
                .join("seeds")
                .join(target);
            let files = fs::read_dir(folder).unwrap();
            let seeds = files.map(|file| fs::read(file.unwrap().path()).unwrap());
            let good: BTreeSet<Vec<u8>> = seeds
                .filter(|seed| play(seed))
                .map(|seed| kind(target, &seed))
                .collect();
            let missing: Vec<_> = kinds.iter().filter(|kind| !good.contains(*kind)).collect();
            assert!(missing.is_empty(), "{target}: no seed for {missing:02X?}");
        }
    }
}
