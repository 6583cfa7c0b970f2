//! The program: the demonstration, and the load test.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use lexopt::prelude::*;
use voucher::demo::{self, Failure};
use voucher::keys::TokenSpec;
use voucher::load;

const HELP: &str = "\
Vouchers on DESFire EV1 cards whose keys no terminal has: an authentication service, a terminal
and a card, talking over sockets.

Usage: cargo run -p voucher [-- COMMAND] [OPTIONS]

Commands:
  demo (or none)      issues a card, redeems vouchers in each mode, shows what each costs
                      and what a thief of the terminal has
  load                many terminals at once against the service; build with --release

Options:
  --token             keys in a PKCS#11 token instead of in this process
  --module FILE       its PKCS#11 library (default: SoftHSM2's)
  --label NAME        the token's label (default: voucher)
  --pin-file FILE     its user PIN, first line; otherwise the environment's VOUCHER_PIN
  --reader NAME       demo: the card on the PC/SC reader whose name contains NAME
                      (--features pcsc); it must be blank, and keeps the application
  --delay MS          demo: what a call costs on the way, for the second row of times
                      (default: 80)
  --audit             demo: show the service's audit log on standard error
  --terminals N       load: how many at once (default: 32)
  --seconds N         load: how long (default: 5)
  --help              this text

A token for trying it out, with SoftHSM2 (Debian: apt install softhsm2):
  softhsm2-util --init-token --free --label voucher --so-pin 5678 --pin 1234
  VOUCHER_PIN=1234 cargo run -p voucher -- --token
";

/// Where Debian and others put SoftHSM2.
const MODULES: [&str; 4] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib/pkcs11/libsofthsm2.so",
    "/opt/homebrew/lib/softhsm/libsofthsm2.so",
];

#[derive(Default)]
struct Arguments {
    load: bool,
    token: bool,
    module: Option<PathBuf>,
    label: Option<String>,
    pin_file: Option<PathBuf>,
    demo: demo::Options,
    terminals: usize,
    seconds: u64,
}

fn arguments() -> Result<Option<Arguments>, lexopt::Error> {
    let mut arguments = Arguments {
        terminals: 32,
        seconds: 5,
        ..Arguments::default()
    };
    arguments.demo.delay = Duration::from_millis(80);
    let mut parser = lexopt::Parser::from_env();
    while let Some(argument) = parser.next()? {
        match argument {
            Short('h') | Long("help") => return Ok(None),
            Long("token") => arguments.token = true,
            Long("module") => arguments.module = Some(parser.value()?.into()),
            Long("label") => arguments.label = Some(parser.value()?.string()?),
            Long("pin-file") => arguments.pin_file = Some(parser.value()?.into()),
            Long("reader") => arguments.demo.reader = Some(parser.value()?.string()?),
            Long("delay") => {
                arguments.demo.delay =
                    Duration::from_millis(parser.value()?.parse::<u16>()?.into());
            }
            Long("audit") => arguments.demo.audit = true,
            Long("terminals") => arguments.terminals = parser.value()?.parse::<u16>()?.into(),
            Long("seconds") => arguments.seconds = parser.value()?.parse::<u16>()?.into(),
            Value(command) if command == "demo" => arguments.load = false,
            Value(command) if command == "load" => arguments.load = true,
            other => return Err(other.unexpected()),
        }
    }
    Ok(Some(arguments))
}

fn token(arguments: &Arguments) -> Result<Option<TokenSpec>, Failure> {
    if !arguments.token {
        return Ok(None);
    }
    let module = match &arguments.module {
        Some(module) => module.clone(),
        None => MODULES
            .iter()
            .map(PathBuf::from)
            .find(|path| path.exists())
            .ok_or("no PKCS#11 library found: install softhsm2, or name one with --module")?,
    };
    let pin = match &arguments.pin_file {
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.map_err(|error| format!("{}: {error}", path.display()))?;
            text.lines().next().unwrap_or_default().to_owned()
        }
        None => std::env::var("VOUCHER_PIN").map_err(
            |_| "the token's PIN is wanted: --pin-file, or VOUCHER_PIN in the environment",
        )?,
    };
    Ok(Some(TokenSpec {
        module,
        label: arguments
            .label
            .clone()
            .unwrap_or_else(|| "voucher".to_owned()),
        pin: pin.into(),
    }))
}

async fn run(mut arguments: Arguments) -> Result<(), Failure> {
    let token = token(&arguments)?;
    let mut out = std::io::stdout();
    if arguments.load {
        let time = Duration::from_secs(arguments.seconds);
        load::run(arguments.terminals, time, token.as_ref(), &mut out).await?;
    } else {
        arguments.demo.token = token;
        demo::run(&arguments.demo, &mut out).await?;
    }
    out.flush()?;
    Ok(())
}

fn main() -> ExitCode {
    let arguments = match arguments() {
        Ok(Some(arguments)) => arguments,
        Ok(None) => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        Err(error) => {
            eprintln!("error: {error}; --help lists the options");
            return ExitCode::from(2);
        }
    };
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("error: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(arguments)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}
