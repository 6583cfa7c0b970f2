//! Server, phone and card in one go.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use desfire_ev1::VirtualReader;
use desfire_ev1::wire::Uid;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use topup::args::{self, Setup};
use topup::card::{CardError, IssuerKeys};
use topup::desk::Desk;
use topup::keys::SoftwareKeys;
use topup::ledger::{AddAccount, AddCard, AddVoucher, ReadBooks, fingerprint};
use topup::message::Finished;
use topup::phone::{Phone, Seen, SoftwareCard};
use topup::show::{self, money};
use topup::wires::{Delayed, SocketWire};

const HELP: &str = "\
Tops up a software card over the air, with server, phone and card in this one program, and shows
what the phone gets to see.

Usage: cargo run -p topup [-- OPTIONS]

Options:
  --rtt MS     pretend that the network's round trip takes so long [0]
  --page       stay, serve the web page, and top up the card every few seconds until Ctrl-C
  --help       this text

The parts alone are topup-server, topup-client and topup-ledger; each has a --help.
";

const UID: Uid = Uid([0x04, 0x5A, 0x21, 0x7A, 0x3C, 0x5B, 0x80]);
const TOKEN: &str = "DEMO-TOKEN";
const AMOUNT: i32 = 20_00;

struct Shop {
    desk: Arc<Desk<SoftwareKeys>>,
    address: String,
    served: tokio::task::JoinHandle<std::io::Result<()>>,
}

async fn open(together: bool) -> Result<Shop, CardError> {
    let setup = Setup {
        books: ":memory:".to_owned(),
        together,
        ..Setup::default()
    };
    let desk = setup
        .open(
            SoftwareKeys::new(IssuerKeys::for_demonstration().credit),
            CancellationToken::new(),
        )
        .await?;
    let account = AddAccount {
        name: "alice".to_owned(),
        token: fingerprint(TOKEN.as_bytes()),
    };
    desk.ledger.perform(account).await?;
    let card = AddCard {
        uid: UID,
        account: "alice".to_owned(),
    };
    desk.ledger.perform(card).await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?.to_string();
    let served = topup::server::serve(listener, desk.clone(), Duration::from_secs(1));
    Ok(Shop {
        desk,
        address,
        served: tokio::spawn(served),
    })
}

impl Shop {
    /// Issues a voucher and spends it.
    async fn top_up(
        &self,
        card: &mut SoftwareCard,
        opening: bool,
        rtt: Duration,
        seen: impl FnMut(Seen<'_>),
    ) -> Result<Finished, CardError> {
        let code = args::secret()?;
        let voucher = AddVoucher {
            code: fingerprint(code.as_bytes()),
            account: "alice".to_owned(),
            amount: AMOUNT,
        };
        self.desk.ledger.perform(voucher).await?;
        let layout = &self.desk.layout;
        let phone = Phone {
            token: TOKEN.as_bytes().to_vec(),
            voucher: code.into_bytes(),
            opening: opening.then_some((layout.aid, layout.credit)),
            keep_alive: Duration::from_millis(50),
            patience: Duration::from_secs(10),
            tries: 3,
        };
        let connect = || async {
            let socket = SocketWire::connect(&self.address).await?;
            Ok(Delayed::new(socket, rtt))
        };
        Ok(phone.top_up(card, connect, seen).await?)
    }

    async fn close(self) -> Result<(), CardError> {
        self.desk.stop.cancel();
        self.served.await??;
        Ok(())
    }
}

async fn run(rtt: Duration, page: bool) -> Result<(), CardError> {
    let layout = topup::card::Layout::new()?;
    let card = IssuerKeys::for_demonstration().issue(&layout, UID, 5_00)?;
    // Some phones reset a card that has heard nothing for 125 ms.
    let silence = Some(Duration::from_millis(125));
    let mut card = SoftwareCard::new(VirtualReader::new(card), silence);

    let shop = open(true).await?;
    println!(
        "A card with {} is held to a phone; a voucher of {} is to come onto it.\n",
        money(5_00),
        money(AMOUNT)
    );
    let finished = shop
        .top_up(&mut card, true, rtt, |seen| {
            print!("{}", show::lines(&seen))
        })
        .await?;
    println!(
        "\nThe phone has carried {} frames and knows neither key nor what is in them.",
        finished.frames
    );
    let books = shop.desk.ledger.perform(ReadBooks).await?;
    let sum = |cents| i32::try_from(cents).map_or_else(|_| "much".to_owned(), money);
    println!(
        "Books: {} issued, {} on cards, {} waiting.\n",
        sum(books.issued),
        sum(books.credited),
        sum(books.reserved)
    );
    if page {
        println!(
            "Web page: http://{}/  (account token: {TOKEN}); Ctrl-C ends.",
            shop.address
        );
        loop {
            tokio::select! {
                _ = tokio::signal::ctrl_c() => break,
                () = tokio::time::sleep(Duration::from_secs(5)) => {}
            }
            match shop.top_up(&mut card, true, rtt, |_| {}).await {
                Ok(finished) => println!("{}", show::ending(&finished)),
                Err(error) => println!("{error}"),
            }
        }
        return shop.close().await;
    }
    println!("Network round trips for a top-up, the phone's hello included:");
    let one_by_one = open(false).await?;
    for (shop, opening, name) in [
        (&one_by_one, false, "every frame by itself"),
        (&shop, false, "frames together where they can"),
        (&shop, true, "and the opening played before hello"),
    ] {
        let started = Instant::now();
        let finished = shop.top_up(&mut card, opening, rtt, |_| {}).await?;
        println!(
            "  {name:<38} {:>3} round trips  {:>6} ms",
            finished.round_trips,
            started.elapsed().as_millis()
        );
    }
    one_by_one.close().await?;
    shop.close().await
}

fn main() -> ExitCode {
    let (mut rtt, mut page) = (Duration::ZERO, false);
    let parsed = args::parse(HELP, |name, parser, _| {
        match name {
            Some("rtt") => rtt = args::milliseconds(parser)?,
            Some("page") => page = true,
            _ => return Ok(false),
        }
        Ok(true)
    });
    if let Err(code) = parsed {
        return code;
    }
    args::log(false, tracing::Level::WARN);
    let runtime = match tokio::runtime::Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return args::exit(Err(error.into())),
    };
    args::exit(runtime.block_on(run(rtt, page)))
}
