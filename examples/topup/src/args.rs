//! What the programs of this package have in common: options, log, end.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lexopt::prelude::*;
use tokio_util::sync::CancellationToken;

use crate::card::{CardError, IssuerKeys, Layout};
use crate::desk::Desk;
use crate::events::Events;
use crate::keys::SoftwareKeys;
use crate::ledger::{Forget, Ledger};
use crate::limits::{Limits, Places};
use crate::link::Patience;
use crate::metrics::Metrics;

/// Goes through the command line; `own` takes a program's options and its words.
///
/// # Errors
/// The exit code to end with, everything having been said.
pub fn parse(
    help: &str,
    mut own: impl FnMut(
        Option<&str>,
        &mut lexopt::Parser,
        Option<String>,
    ) -> Result<bool, lexopt::Error>,
) -> Result<(), ExitCode> {
    let usage = |error: lexopt::Error| {
        eprintln!("{error}\nTry --help.");
        ExitCode::from(2)
    };
    let mut parser = lexopt::Parser::from_env();
    while let Some(arg) = parser.next().map_err(usage)? {
        let known = match arg {
            Short('h') | Long("help") => {
                print!("{help}");
                return Err(ExitCode::SUCCESS);
            }
            Long(name) => {
                let name = name.to_owned();
                let known = own(Some(&name), &mut parser, None).map_err(usage)?;
                if known {
                    Ok(())
                } else {
                    Err(format!("there is no option --{name}"))
                }
            }
            Value(word) => {
                let word = word.string().map_err(usage)?;
                let known = own(None, &mut parser, Some(word.clone())).map_err(usage)?;
                if known {
                    Ok(())
                } else {
                    Err(format!("\"{word}\" has no meaning here"))
                }
            }
            other @ Short(_) => return Err(usage(other.unexpected())),
        };
        known.map_err(|text| usage(text.into()))?;
    }
    Ok(())
}

/// Says what went wrong, if something did.
#[must_use]
pub fn exit(result: Result<(), CardError>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// A milliseconds option.
///
/// # Errors
/// No number follows.
pub fn milliseconds(parser: &mut lexopt::Parser) -> Result<Duration, lexopt::Error> {
    Ok(Duration::from_millis(parser.value()?.parse()?))
}

/// Begins the log, on standard error; which of it, says `RUST_LOG` as one word (`info`, `warn` ...).
pub fn log(json: bool, default: tracing::Level) {
    let level = std::env::var("RUST_LOG").ok();
    let level = level.and_then(|text| text.parse().ok()).unwrap_or(default);
    let log = tracing_subscriber::fmt()
        .with_max_level(level)
        .with_target(false)
        .with_writer(std::io::stderr);
    if json {
        log.json().init();
    } else {
        log.init();
    }
}

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The books.
    pub books: String,
    /// The name of this node.
    pub node: String,
    /// Its number in the cards' records.
    pub terminal: u32,
    /// The bounds.
    pub limits: Limits,
    /// How long phones may take.
    pub patience: Patience,
    /// Frames together where they can.
    pub together: bool,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            books: "topup.sqlite".to_owned(),
            node: "one".to_owned(),
            terminal: 1,
            limits: Limits {
                connections: 8192,
                per_address: 1024,
                per_account: 8,
            },
            patience: Patience {
                message: Duration::from_secs(10),
                conversation: Duration::from_secs(30),
            },
            together: true,
        }
    }
}

impl Setup {
    /// The desk, with its books open.
    ///
    /// # Errors
    /// The books cannot be opened.
    pub async fn open(
        self,
        keys: SoftwareKeys,
        stop: CancellationToken,
    ) -> Result<Arc<Desk<SoftwareKeys>>, CardError> {
        let ledger = Ledger::open(&self.books).await?;
        let node = self.node.clone();
        ledger.perform(Forget { node }).await?;
        Ok(Arc::new(Desk {
            ledger,
            keys,
            layout: Layout::new()?,
            events: Events::default(),
            metrics: Metrics::default(),
            places: Places::new(self.limits),
            patience: self.patience,
            node: self.node,
            terminal: self.terminal,
            together: self.together,
            stop,
        }))
    }
}

/// The master key of the crediting keys: 32 hexadecimal digits in `TOPUP_CREDIT_KEY`, or the key that
/// everybody knows if `demonstration` says so.
///
/// # Errors
/// There is none, or it is no key.
pub fn credit_key(demonstration: bool) -> Result<SoftwareKeys, CardError> {
    if demonstration {
        return Ok(SoftwareKeys::new(IssuerKeys::for_demonstration().credit));
    }
    let text = std::env::var("TOPUP_CREDIT_KEY").map_err(
        |_| "there is no key: put 32 hexadecimal digits into TOPUP_CREDIT_KEY, or use --demo-keys",
    )?;
    let text = zeroize::Zeroizing::new(text);
    let bytes = crate::show::bytes_from_hex(text.trim());
    let bytes =
        zeroize::Zeroizing::new(bytes.ok_or("TOPUP_CREDIT_KEY is not 32 hexadecimal digits")?);
    Ok(SoftwareKeys::new(desfire_ev1::Key::aes(*bytes)))
}

/// A secret that nobody can guess, of letters and digits that can be read out: 20 of them, 100 bits.
///
/// # Errors
/// The system has no randomness.
pub fn secret() -> Result<String, CardError> {
    const LETTERS: &[u8; 32] = b"ABCDEFGHJKLMNPQRSTUVWXYZ23456789";
    let mut bytes = [0; 20];
    getrandom::fill(&mut bytes)?;
    let letter = |byte: &u8| LETTERS.get(usize::from(byte & 31)).copied().map(char::from);
    Ok(bytes.iter().filter_map(letter).collect())
}
