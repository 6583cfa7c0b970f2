//! The phone's part as a program.

use std::process::ExitCode;
use std::time::Duration;

use desfire_ev1::VirtualReader;
use desfire_ev1::picc::Card;
use lexopt::ValueExt as _;
use topup::args;
use topup::card::{CardError, Layout};
use topup::phone::{Phone, SoftwareCard, Tapped};
use topup::show;
use topup::wires::{AnyWire, Delayed, HttpWire, SocketWire};

const HELP: &str = "\
Tops up the card at this computer, as a phone would: carries bytes between card and server, and
knows no key.

Usage: topup-client [OPTIONS] (--card FILE | --reader [NAME])

Options:
  --card FILE        a software card, as topup-ledger issue makes it; what happens to it is kept
  --reader [NAME]    the card on a PC/SC reader (built with --features pcsc)
  --server HOST:PORT [127.0.0.1:8088]
  --voucher CODE     the voucher to spend; without it the balance is shown
  --http             by HTTP instead of WebSocket
  --keep-alive MS    how often to show the card in pauses that it is wanted [50]; 0 for never
  --silence MS       the software card is reset after so long a silence, as some phones do
  --no-opening       do not begin with the card before saying hello to the server
  --rtt MS           pretend that the network's round trip takes so long
  --tries N          how often to start over [5]
  --patience MS      how long the server may take [15000]
  --quiet            the result only
  --help             this text

Environment:
  TOPUP_TOKEN        the account's token
";

struct Options {
    server: String,
    card: Option<String>,
    reader: Option<Option<String>>,
    http: bool,
    opening: bool,
    quiet: bool,
    rtt: Duration,
    silence: Option<Duration>,
    phone: Phone,
}

async fn top_up<C: Tapped>(options: &Options, card: &mut C) -> Result<(), CardError> {
    let client = reqwest::Client::builder().build()?;
    let connect = || async {
        let wire = if options.http {
            AnyWire::Http(HttpWire::new(client.clone(), &options.server))
        } else {
            AnyWire::Socket(Box::new(SocketWire::connect(&options.server).await?))
        };
        Ok(Delayed::new(wire, options.rtt))
    };
    let finished = options.phone.top_up(card, connect, |seen| {
        if !options.quiet {
            print!("{}", show::lines(&seen));
        }
    });
    let finished = finished.await?;
    println!("{}", show::ending(&finished));
    println!(
        "{} network round trips for {} frames.",
        finished.round_trips, finished.frames
    );
    Ok(())
}

async fn run(mut options: Options) -> Result<(), CardError> {
    let layout = Layout::new()?;
    options.phone.opening = options.opening.then_some((layout.aid, layout.credit));
    let token = std::env::var("TOPUP_TOKEN");
    options.phone.token = token
        .map_err(|_| "put the account's token into TOPUP_TOKEN")?
        .into_bytes();
    match (&options.card, &options.reader) {
        (Some(file), None) => {
            let stored = std::fs::read(file).map_err(|error| format!("{file}: {error}"))?;
            let state = Card::load_state(&stored).map_err(|error| format!("{file}: {error}"))?;
            // A real card never repeats its nonces.
            let mut seed = [0; 16];
            getrandom::fill(&mut seed)?;
            let card = Card::builder().state(state).seed(seed).build();
            let mut card = SoftwareCard::new(VirtualReader::new(card), options.silence);
            let result = top_up(&options, &mut card).await;
            std::fs::write(file, card.card_mut().save())?;
            result
        }
        (None, Some(name)) => on_reader(&options, name.as_deref()).await,
        _ => Err("which card? Either --card or --reader; try --help".into()),
    }
}

#[cfg(feature = "pcsc")]
async fn on_reader(options: &Options, name: Option<&str>) -> Result<(), CardError> {
    let mut card = topup::pcsc::ReaderCard::wait(name)?;
    top_up(options, &mut card).await
}

#[cfg(not(feature = "pcsc"))]
async fn on_reader(_: &Options, _: Option<&str>) -> Result<(), CardError> {
    Err("this program was built without readers; build it with --features pcsc".into())
}

fn main() -> ExitCode {
    let mut options = Options {
        server: "127.0.0.1:8088".to_owned(),
        card: None,
        reader: None,
        http: false,
        opening: true,
        quiet: false,
        rtt: Duration::ZERO,
        silence: None,
        phone: Phone {
            token: Vec::new(),
            voucher: Vec::new(),
            opening: None,
            keep_alive: Duration::from_millis(50),
            patience: Duration::from_secs(15),
            tries: 5,
        },
    };
    let parsed = args::parse(HELP, |name, parser, _| {
        match name {
            Some("server") => options.server = parser.value()?.string()?,
            Some("card") => options.card = Some(parser.value()?.string()?),
            Some("reader") => {
                let value = parser.optional_value().or_else(|| {
                    let is_name = |next: &std::ffi::OsStr| !next.to_string_lossy().starts_with('-');
                    parser.try_raw_args()?.next_if(is_name)
                });
                options.reader = Some(value.map(|value| value.string()).transpose()?);
            }
            Some("voucher") => options.phone.voucher = parser.value()?.string()?.into_bytes(),
            Some("http") => options.http = true,
            Some("no-opening") => options.opening = false,
            Some("quiet") => options.quiet = true,
            Some("keep-alive") => options.phone.keep_alive = args::milliseconds(parser)?,
            Some("silence") => options.silence = Some(args::milliseconds(parser)?),
            Some("rtt") => options.rtt = args::milliseconds(parser)?,
            Some("tries") => options.phone.tries = parser.value()?.parse()?,
            Some("patience") => options.phone.patience = args::milliseconds(parser)?,
            _ => return Ok(false),
        }
        Ok(true)
    });
    if let Err(code) = parsed {
        return code;
    }
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return args::exit(Err(error.into())),
    };
    args::exit(runtime.block_on(run(options)))
}
