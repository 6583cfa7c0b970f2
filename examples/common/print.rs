//! To standard output and standard error, without ever ending the program: a card must not be left
//! in the middle of something because somebody has closed the terminal or piped into `head`.

use std::fmt;
use std::io::{self, ErrorKind, Write as _};
use std::sync::OnceLock;

/// Why something could not be printed, if it was wanted.
static TROUBLE: OnceLock<io::Error> = OnceLock::new();

/// Prints a line.
pub fn say(line: impl fmt::Display) {
    print(format_args!("{line}\n"));
}

/// Prints a text as it is.
pub fn print(text: impl fmt::Display) {
    // In one piece, which is quicker than in many.
    let text = text.to_string();
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => {}
        Err(error) => {
            let _ = TROUBLE.set(error);
        }
        Ok(()) => {}
    }
}

/// Prints a line to standard error; nothing can be done if that fails.
pub fn note(line: impl fmt::Display) {
    let _ = writeln!(io::stderr(), "{line}");
}

/// The first reason why something that was wanted is not printed.
pub fn trouble() -> Option<&'static io::Error> {
    TROUBLE.get()
}
