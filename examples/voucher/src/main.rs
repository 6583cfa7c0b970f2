//! The program: the demonstration, the load test, and each part by itself.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use desfire_ev1::split::Mode;
use lexopt::prelude::*;
use voucher::apart;
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
  service             the service alone, until Ctrl-C or SIGTERM
  card                a blank software card behind a socket, likewise
  issue               issues the card at --card
  till                gives --till its transport keys, once
  tap                 redeems vouchers of the card at --card, by the service at --service

Options:
  --token             keys in a PKCS#11 token instead of in this process
  --module FILE       its PKCS#11 library (default: SoftHSM2's)
  --label NAME        the token's label (default: voucher)
  --pin-file FILE     its user PIN, first line; otherwise the environment's VOUCHER_PIN
  --reader NAME       demo: the card on the PC/SC reader whose name contains NAME
                      (--features pcsc); it must be blank, and keeps the application
  --delay MS          demo: what a call costs on the way, for the second row of times
                      (default: 80)
  --audit             demo, service: show the audit log on standard error
  --shop FILE         service, issue, till: the shop's keys, in clear; made if there is no
                      such file (default: voucher-shop). A till's own are beside it, in
                      FILE.NAME: till makes it, tap uses it and not the shop's
  --listen ADDR       service, card: where (default: 127.0.0.1, any free port)
  --service ADDR, --card ADDR
                      issue, tap: where they are
  --till NAME         till, tap: till-1 to till-4, which have one mode each (default: till-1)
  --mode MODE         tap: card-locked, script, proven or remote (default: card-locked)
  --count N           tap: how many vouchers (default: 1)
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

#[derive(Default, Clone, Copy)]
enum Part {
    #[default]
    Demo,
    Load,
    Service,
    Card,
    Issue,
    Till,
    Tap,
}

#[derive(Default)]
struct Arguments {
    part: Part,
    shop: Option<PathBuf>,
    listen: Option<SocketAddr>,
    service: Option<SocketAddr>,
    card: Option<SocketAddr>,
    till: Option<String>,
    mode: Option<Mode>,
    count: Option<u8>,
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
            Long("shop") => arguments.shop = Some(parser.value()?.into()),
            Long("listen") => arguments.listen = Some(parser.value()?.parse()?),
            Long("service") => arguments.service = Some(parser.value()?.parse()?),
            Long("card") => arguments.card = Some(parser.value()?.parse()?),
            Long("till") => arguments.till = Some(parser.value()?.string()?),
            Long("mode") => {
                let name = parser.value()?.string()?;
                let mode = demo::mode_named(&name);
                arguments.mode = Some(mode.ok_or("there is no such mode")?);
            }
            Long("count") => arguments.count = Some(parser.value()?.parse()?),
            Value(command) if command == "demo" => arguments.part = Part::Demo,
            Value(command) if command == "load" => arguments.part = Part::Load,
            Value(command) if command == "service" => arguments.part = Part::Service,
            Value(command) if command == "card" => arguments.part = Part::Card,
            Value(command) if command == "issue" => arguments.part = Part::Issue,
            Value(command) if command == "till" => arguments.part = Part::Till,
            Value(command) if command == "tap" => arguments.part = Part::Tap,
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
    let shop = arguments.shop.unwrap_or_else(|| "voucher-shop".into());
    let listen = SocketAddr::from(([127, 0, 0, 1], 0));
    let listen = arguments.listen.unwrap_or(listen);
    let card = arguments.card.ok_or("--card says where the card is");
    let till = arguments.till.unwrap_or_else(|| "till-1".to_owned());
    match arguments.part {
        Part::Demo => {
            arguments.demo.token = token;
            demo::run(&arguments.demo, &mut out).await?;
        }
        Part::Load => {
            let time = Duration::from_secs(arguments.seconds);
            load::run(arguments.terminals, time, token.as_ref(), &mut out).await?;
        }
        Part::Service => {
            let audit = arguments.demo.audit;
            apart::service(&shop, listen, token.as_ref(), audit, &mut out).await?;
        }
        Part::Card => apart::card(listen, demo::software_card()?, &mut out).await?,
        Part::Issue => drop(apart::issue(&shop, card?, &mut out)?),
        Part::Till => apart::till(&shop, &till, &mut out)?,
        Part::Tap => {
            let tap = apart::TapAt {
                shop,
                till,
                service: arguments.service.ok_or("--service says where it is")?,
                card: card?,
                mode: arguments.mode.unwrap_or(Mode::CardLocked),
                count: arguments.count.unwrap_or(1),
            };
            apart::tap(&tap, &mut out).await?;
        }
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
