//! The top-up server.

use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use topup::args::{self, KeySource, Setup};
use topup::card::CardError;

const HELP: &str = "\
Tops up DESFire EV1 cards at phones: WebSocket and HTTP for phones, a web page for people.

Usage: topup-server [OPTIONS]

Options:
  --listen ADDRESS      where to listen [127.0.0.1:8088]; put a TLS proxy in front of it
  --books URL           an SQLite file [topup.sqlite], or postgres://USER@HOST:PORT/DATABASE
                        when several servers share the books
  --node NAME           the name of this server among those [one]
  --terminal NUMBER     its number in the cards' records [1]
  --demo-keys           the keys that everybody knows, for trying it out
  --token               the key is in a PKCS#11 token instead of in TOPUP_CREDIT_KEY
  --module PATH         the token's library [SoftHSM's]
  --label NAME          the token's label [topup]
  --pin-file FILE       its user PIN, first line [the environment's TOPUP_PIN]
  --load-token          puts the key of TOPUP_CREDIT_KEY (or --demo-keys) into the token, and ends
  --pass-through        every frame in a message of its own
  --connections N       connections at once [8192]
  --per-address N       connections at once from one address, or one /64 of IPv6 [1024]; behind a
                        proxy all have the proxy's: then no less than --connections, and the
                        proxy has to limit by address
  --per-account N       top-ups at once with one account [8]
  --message-ms MS       how long a phone may take for a message, and anybody to read an answer [10000]
  --conversation-ms MS  how long a conversation may take [30000]
  --grace SECONDS       how long to let conversations finish when stopped [10]
  --json                the log as JSON lines
  --help                this text

Environment:
  TOPUP_CREDIT_KEY      the master key of the crediting keys, 32 hexadecimal digits
  TOPUP_PIN             the token's user PIN
  RUST_LOG              how much to log: error, warn, info [info], debug

Accounts, cards and vouchers are made with topup-ledger. SIGTERM or Ctrl-C stops it: no new
conversations, and those with money under way are finished.
";

struct Options {
    setup: Setup,
    listen: String,
    keys: KeySource,
    load_token: bool,
    json: bool,
    grace: Duration,
}

async fn run(options: Options) -> Result<(), CardError> {
    if options.load_token {
        options.keys.load_token()?;
        println!("the key is in the token");
        return Ok(());
    }
    let stop = CancellationToken::new();
    let keys = options.keys.open()?;
    if options.keys.demonstration && !options.keys.token {
        tracing::warn!("the keys are those that everybody knows");
    }
    let desk = options.setup.open(keys, stop.clone()).await?;
    let listener = TcpListener::bind(&options.listen)
        .await
        .map_err(|error| format!("cannot listen on {}: {error}", options.listen))?;
    // For whoever has started this and wants to know the port.
    println!("listening on http://{}", listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::spawn(async move {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => {}
            _ = terminate.recv() => {}
        }
        stop.cancel();
    });
    topup::server::serve(listener, desk, options.grace).await?;
    Ok(())
}

fn main() -> ExitCode {
    let mut options = Options {
        setup: Setup::default(),
        listen: "127.0.0.1:8088".to_owned(),
        keys: KeySource::default(),
        load_token: false,
        json: false,
        grace: Duration::from_secs(10),
    };
    let parsed = args::parse(HELP, |name, parser, _| {
        let setup = &mut options.setup;
        match name {
            Some("listen") => options.listen = parser.value()?.string()?,
            Some("books") => setup.books = parser.value()?.string()?,
            Some("node") => setup.node = parser.value()?.string()?,
            Some("terminal") => setup.terminal = parser.value()?.parse()?,
            Some("load-token") => options.load_token = true,
            Some("pass-through") => setup.together = false,
            Some("connections") => setup.limits.connections = parser.value()?.parse()?,
            Some("per-address") => setup.limits.per_address = parser.value()?.parse()?,
            Some("per-account") => setup.limits.per_account = parser.value()?.parse()?,
            Some("message-ms") => setup.patience.message = args::milliseconds(parser)?,
            Some("conversation-ms") => setup.patience.conversation = args::milliseconds(parser)?,
            Some("grace") => options.grace = Duration::from_secs(parser.value()?.parse()?),
            Some("json") => options.json = true,
            name => return options.keys.option(name, parser),
        }
        Ok(true)
    });
    if let Err(code) = parsed {
        return code;
    }
    args::log(options.json, tracing::Level::INFO);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return args::exit(Err(error.into())),
    };
    args::exit(runtime.block_on(run(options)))
}

use lexopt::ValueExt as _;
