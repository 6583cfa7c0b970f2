//! Just enough JSON to write some.

use std::fmt;

/// A value.
pub enum Json {
    Null,
    Bool(bool),
    Number(i64),
    Text(String),
    List(Vec<Json>),
    Object(Vec<(&'static str, Json)>),
}

impl Json {
    pub fn text(text: impl fmt::Display) -> Self {
        Self::Text(text.to_string())
    }

    pub fn number(number: impl Into<i64>) -> Self {
        Self::Number(number.into())
    }

    pub fn hex(bytes: &[u8]) -> Self {
        Self::Text(bytes.iter().map(|byte| format!("{byte:02X}")).collect())
    }

    pub fn list(items: impl IntoIterator<Item = Self>) -> Self {
        Self::List(items.into_iter().collect())
    }

    /// What `f` makes of a value, or null.
    pub fn option<T>(value: Option<T>, f: impl FnOnce(T) -> Self) -> Self {
        value.map_or(Self::Null, f)
    }

    fn write(&self, f: &mut fmt::Formatter<'_>, indent: usize) -> fmt::Result {
        match self {
            Self::Null => f.write_str("null"),
            Self::Bool(value) => write!(f, "{value}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => write_text(f, text),
            Self::List(items) => {
                let lines = items.iter().map(|item| (None, item));
                write_lines(f, ['[', ']'], lines, indent)
            }
            Self::Object(members) => {
                let lines = members.iter().map(|(name, value)| (Some(*name), value));
                write_lines(f, ['{', '}'], lines, indent)
            }
        }
    }
}

fn write_lines<'a>(
    f: &mut fmt::Formatter<'_>,
    [open, close]: [char; 2],
    lines: impl ExactSizeIterator<Item = (Option<&'static str>, &'a Json)>,
    indent: usize,
) -> fmt::Result {
    if lines.len() == 0 {
        return write!(f, "{open}{close}");
    }
    let inner = indent + 2;
    for (place, (name, value)) in lines.enumerate() {
        let before = if place == 0 { open } else { ',' };
        write!(f, "{before}\n{:inner$}", "")?;
        if let Some(name) = name {
            write_text(f, name)?;
            f.write_str(": ")?;
        }
        value.write(f, inner)?;
    }
    write!(f, "\n{:indent$}{close}", "")
}

fn write_text(f: &mut fmt::Formatter<'_>, text: &str) -> fmt::Result {
    f.write_str("\"")?;
    for character in text.chars() {
        match character {
            '"' | '\\' => write!(f, "\\{character}")?,
            '\u{0}'..='\u{1F}' => write!(f, "\\u{:04x}", u32::from(character))?,
            _ => write!(f, "{character}")?,
        }
    }
    f.write_str("\"")
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write(f, 0)?;
        writeln!(f)
    }
}
