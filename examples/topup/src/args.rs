//! What the programs of this package have in common: options, log, end.

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use lexopt::prelude::*;
use tokio_util::sync::CancellationToken;
use voucher::keys::TokenSpec;
use zeroize::Zeroizing;

use crate::card::{CardError, DEMO_CREDIT, Layout};
use crate::desk::Desk;
use crate::events::Events;
use crate::keys::{KeyHolder, Keys, SoftwareKeys, TokenKeys};
use crate::ledger::Ledger;
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
///
/// From other people's crates only warnings: what they say in detail are bytes that went by, tokens and
/// voucher codes among them.
pub fn log(json: bool, default: tracing::Level) {
    use tracing_subscriber::filter::Targets;
    use tracing_subscriber::layer::SubscriberExt as _;
    use tracing_subscriber::util::SubscriberInitExt as _;
    use tracing_subscriber::{Layer as _, fmt};

    let level = std::env::var("RUST_LOG").ok();
    let level = level.and_then(|text| text.parse().ok()).unwrap_or(default);
    // This one and its programs: topup_server and so on.
    let ours = Targets::new()
        .with_default(level.min(tracing::Level::WARN))
        .with_target("topup", level);
    let layer = fmt::layer().with_target(false).with_writer(std::io::stderr);
    let layer = if json {
        layer.json().boxed()
    } else {
        layer.boxed()
    };
    tracing_subscriber::registry()
        .with(layer.with_filter(ours))
        .init();
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
    /// The books cannot be opened, or another server has this one's name in them.
    pub async fn open<K: KeyHolder>(
        self,
        keys: K,
        stop: CancellationToken,
    ) -> Result<Arc<Desk<K>>, CardError> {
        let ledger = Ledger::open(&self.books).await?;
        ledger.enter(&self.node).await?;
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

/// Where the master key of the crediting keys is.
#[derive(Clone, Debug, Default)]
pub struct KeySource {
    /// It is the one that everybody knows.
    pub demonstration: bool,
    /// It is in a PKCS#11 token.
    pub token: bool,
    /// The token's library; nothing for SoftHSM's.
    pub module: Option<PathBuf>,
    /// The token's label.
    pub label: Option<String>,
    /// The file with its PIN; nothing for the environment.
    pub pin_file: Option<PathBuf>,
}

/// Where SoftHSM2 puts its library.
const MODULES: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];

impl KeySource {
    /// Takes the options that say where it is.
    ///
    /// # Errors
    /// An option without its value.
    pub fn option(
        &mut self,
        name: Option<&str>,
        parser: &mut lexopt::Parser,
    ) -> Result<bool, lexopt::Error> {
        match name {
            Some("demo-keys") => self.demonstration = true,
            Some("token") => self.token = true,
            Some("module") => self.module = Some(parser.value()?.into()),
            Some("label") => self.label = Some(parser.value()?.string()?),
            Some("pin-file") => self.pin_file = Some(parser.value()?.into()),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// The key holder.
    ///
    /// # Errors
    /// There is no key, it is none, or the token cannot be used.
    pub fn open(&self) -> Result<Keys, CardError> {
        if self.token {
            return Ok(Keys::Token(self.open_token()?));
        }
        let key = desfire_ev1::Key::aes(*self.key()?);
        Ok(Keys::Software(SoftwareKeys::new(key)))
    }

    /// Puts the key into the token.
    ///
    /// # Errors
    /// As [`KeySource::open`].
    pub fn load_token(&self) -> Result<(), CardError> {
        let key = self.key()?;
        self.open_token()?.load(&Layout::new()?, &key)?;
        Ok(())
    }

    fn open_token(&self) -> Result<TokenKeys, CardError> {
        let installed = || MODULES.iter().map(PathBuf::from).find(|path| path.exists());
        let module = self.module.clone().or_else(installed);
        let module = module
            .ok_or("no PKCS#11 library found: install softhsm2, or name one with --module")?;
        let pin = match &self.pin_file {
            Some(path) => {
                let text = std::fs::read_to_string(path);
                let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
                let text = Zeroizing::new(text);
                text.lines().next().unwrap_or_default().to_owned()
            }
            None => std::env::var("TOPUP_PIN").map_err(
                |_| "the token's PIN is wanted: --pin-file, or TOPUP_PIN in the environment",
            )?,
        };
        let label = self.label.clone().unwrap_or_else(|| "topup".to_owned());
        Ok(TokenKeys::open(&TokenSpec {
            module,
            label,
            pin: pin.into(),
        })?)
    }

    /// 32 hexadecimal digits in `TOPUP_CREDIT_KEY`, or what everybody knows.
    fn key(&self) -> Result<Zeroizing<[u8; 16]>, CardError> {
        if self.demonstration {
            return Ok(Zeroizing::new(DEMO_CREDIT));
        }
        let text = std::env::var("TOPUP_CREDIT_KEY").map_err(
            |_| "there is no key: put 32 hexadecimal digits into TOPUP_CREDIT_KEY, or use --token or --demo-keys",
        )?;
        let text = Zeroizing::new(text);
        let bytes = crate::show::bytes_from_hex(text.trim());
        let bytes = bytes.ok_or("TOPUP_CREDIT_KEY is not 32 hexadecimal digits")?;
        Ok(Zeroizing::new(bytes))
    }
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
