//! Trees in a terminal.

use std::fmt;

/// A line, and what belongs under it.
pub struct Tree {
    text: String,
    below: Vec<Tree>,
}

impl Tree {
    pub fn new(text: impl Into<String>) -> Self {
        Self {
            text: text.into(),
            below: Vec::new(),
        }
    }

    /// Adds a line under this one.
    pub fn line(&mut self, text: impl Into<String>) {
        self.below.push(Self::new(text));
    }

    /// Adds a tree under this line.
    pub fn branch(&mut self, tree: Self) {
        self.below.push(tree);
    }

    fn draw(&self, f: &mut fmt::Formatter<'_>, indent: &str) -> fmt::Result {
        let last = self.below.len().saturating_sub(1);
        for (place, tree) in self.below.iter().enumerate() {
            let (mark, more) = if place == last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            writeln!(f, "{indent}{mark}{}", tree.text)?;
            tree.draw(f, &format!("{indent}{more}"))?;
        }
        Ok(())
    }
}

impl fmt::Display for Tree {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}", self.text)?;
        self.draw(f, "")
    }
}
