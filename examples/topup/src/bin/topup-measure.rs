//! How fast, how big: the figures of the README.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use desfire_ev1::picc::Card;
use desfire_ev1::wire::Uid;
use desfire_ev1::{LinkFormat, VirtualReader};
use lexopt::ValueExt as _;
use topup::args;
use topup::card::{CardError, IssuerKeys, Layout};
use topup::ledger::{AddAccount, AddCard, AddVoucher, Books, Ledger, ReadBooks, fingerprint};
use topup::message::{FromPhone, Hello};
use topup::phone::{Phone, SoftwareCard};
use topup::wires::{Delayed, SocketWire, Wire as _};

const HELP: &str = "\
Measures the top-up server on loopback: conversations per second and their latency, memory of a
waiting conversation, network round trips and time of a top-up. Starts the topup-server that lies
beside it.

Usage: cargo run --release -p topup --bin topup-measure [-- OPTIONS]
       (cargo build --release -p topup --bins comes first)

Options:
  --cards A,B,C   cards at once [1,100,5000]
  --total N       conversations per line, at least one for each card [5000]
  --waiting N     conversations that wait, for their memory [5000]
  --help          this text

Each card needs a file descriptor in both programs: ulimit -n 20000.
";

const TOKEN: &str = "measure";

/// A server of its own process, killed when dropped.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(books: &str, extra: &[&str]) -> Result<Self, CardError> {
        let program = std::env::current_exe()?.with_file_name("topup-server");
        let mut child = Command::new(&program)
            .args(["--listen", "127.0.0.1:0", "--books", books, "--demo-keys"])
            .args(["--connections", "20000", "--per-address", "20000"])
            .args(["--per-account", "20000", "--message-ms", "120000"])
            .args(["--conversation-ms", "240000"])
            .args(extra)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .spawn()
            .map_err(|error| format!("{}: {error}", program.display()))?;
        let mut line = String::new();
        let out = child.stdout.take().ok_or("no output")?;
        BufReader::new(out).read_line(&mut line)?;
        let address = line
            .trim()
            .rsplit('/')
            .next()
            .unwrap_or_default()
            .to_owned();
        Ok(Self { child, address })
    }

    /// Resident memory in bytes.
    fn memory(&self) -> Result<u64, CardError> {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next());
        Ok(kib.ok_or("no VmRSS")?.parse::<u64>()?.saturating_mul(1024))
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It has nothing to lose: SIGKILL is one of the tests.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

struct Bench {
    layout: Layout,
    cards: Vec<Card>,
    ledger: Ledger,
    vouchers: std::sync::atomic::AtomicU64,
}

impl Bench {
    async fn new(books: &str, cards: usize) -> Result<Self, CardError> {
        let layout = Layout::new()?;
        let ledger = Ledger::open(books).await?;
        let account = AddAccount {
            name: TOKEN.to_owned(),
            token: fingerprint(TOKEN.as_bytes()),
        };
        ledger.perform(account).await?;
        let keys = IssuerKeys::for_demonstration();
        let mut issued = Vec::new();
        let mut registered = Vec::new();
        for number in 0..cards {
            let [a, b, c, d] = u32::try_from(number)?.to_be_bytes();
            let uid = Uid([0x04, 0x70, 0x75, a, b, c, d]);
            issued.push(keys.issue(&layout, uid, 0)?);
            let ledger = ledger.clone();
            registered.push(tokio::spawn(async move {
                let account = TOKEN.to_owned();
                ledger.perform(AddCard { uid, account }).await
            }));
        }
        for task in registered {
            task.await??;
        }
        Ok(Self {
            layout,
            cards: issued,
            ledger,
            vouchers: std::sync::atomic::AtomicU64::new(0),
        })
    }

    async fn vouchers(&self, count: usize) -> Result<Vec<String>, CardError> {
        let mut codes = Vec::new();
        let mut issued = Vec::new();
        for _ in 0..count {
            let number = self
                .vouchers
                .fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            let code = format!("voucher {number}");
            let voucher = AddVoucher {
                code: fingerprint(code.as_bytes()),
                account: TOKEN.to_owned(),
                amount: 1,
            };
            codes.push(code);
            let ledger = self.ledger.clone();
            issued.push(tokio::spawn(async move { ledger.perform(voucher).await }));
        }
        for task in issued {
            task.await??;
        }
        Ok(codes)
    }

    fn phone(&self, voucher: &str, opening: bool) -> Phone {
        Phone {
            token: TOKEN.as_bytes().to_vec(),
            voucher: voucher.as_bytes().to_vec(),
            opening: opening.then_some((self.layout.aid, self.layout.credit)),
            keep_alive: Duration::ZERO,
            patience: Duration::from_secs(120),
            tries: 1,
        }
    }

    /// So many cards at once, each with its share of `total` top-ups; the time of each, sorted, and
    /// that of all.
    async fn load(
        self: &Arc<Self>,
        server: &str,
        cards: usize,
        total: usize,
    ) -> Result<(Vec<Duration>, Duration), CardError> {
        let each = total.div_ceil(cards).max(1);
        let codes = self.vouchers(each.saturating_mul(cards)).await?;
        let started = Instant::now();
        let mut tasks = Vec::new();
        for (card, codes) in self.cards.iter().zip(codes.chunks(each)) {
            let (bench, card, codes) = (self.clone(), card.clone(), codes.to_vec());
            let server = server.to_owned();
            tasks.push(tokio::spawn(async move {
                let mut card = SoftwareCard::new(VirtualReader::new(card), None);
                let mut times = Vec::new();
                for code in codes {
                    let phone = bench.phone(&code, true);
                    let begun = Instant::now();
                    let connect = || SocketWire::connect(&server);
                    phone.top_up(&mut card, connect, |_| {}).await?;
                    times.push(begun.elapsed());
                }
                Ok::<_, CardError>(times)
            }));
        }
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await??);
        }
        let all = started.elapsed();
        times.sort();
        Ok((times, all))
    }

    /// Opens conversations that get as far as the server's first batch and then wait.
    async fn wait(&self, server: &str, count: usize) -> Result<Vec<SocketWire>, CardError> {
        let mut waiting = Vec::new();
        for card in self.cards.iter().take(count) {
            let mut wire = SocketWire::connect(server).await?;
            let hello = FromPhone::Hello(Hello {
                format: LinkFormat::WRAPPED,
                uid: card.state().version().uid,
                token: TOKEN.as_bytes().to_vec(),
                voucher: Vec::new(),
                opening: Vec::new(),
            });
            wire.exchange(hello.encode()?).await?;
            waiting.push(wire);
        }
        Ok(waiting)
    }
}

fn at(times: &[Duration], percent: usize) -> f64 {
    let last = times.len().saturating_sub(1);
    let index = last.saturating_mul(percent) / 100;
    times.get(index).copied().unwrap_or_default().as_secs_f64() * 1000.0
}

async fn run(counts: Vec<usize>, total: usize, waiting: usize) -> Result<(), CardError> {
    let dir = tempfile::tempdir()?;
    let books = dir.path().join("books.sqlite");
    let books = books
        .to_str()
        .ok_or("a temporary folder with an odd name")?;
    let most = counts.iter().copied().max().unwrap_or(1).max(waiting);
    eprintln!("issuing {most} cards ...");
    let bench = Arc::new(Bench::new(books, most).await?);

    println!("| cards at once | top-ups | top-ups/s | median ms | 99 % ms | slowest ms |");
    println!("|---|---|---|---|---|---|");
    for cards in counts {
        let server = Server::start(books, &[])?;
        let (times, all) = bench.load(&server.address, cards, total).await?;
        let rate = f64::from(u32::try_from(times.len())?) / all.as_secs_f64();
        println!(
            "| {cards} | {} | {rate:.0} | {:.1} | {:.1} | {:.1} |",
            times.len(),
            at(&times, 50),
            at(&times, 99),
            at(&times, 100)
        );
    }
    println!();

    let server = Server::start(books, &[])?;
    // The first ones pay for what all share.
    let warm = bench.wait(&server.address, 100).await?;
    drop(warm);
    tokio::time::sleep(Duration::from_millis(500)).await;
    let before = server.memory()?;
    let held = bench.wait(&server.address, waiting).await?;
    let after = server.memory()?;
    let each = after.saturating_sub(before) / u64::try_from(held.len().max(1))?;
    println!(
        "{} conversations wait: the server grew from {} to {} KiB, {each} bytes each.\n",
        held.len(),
        before / 1024,
        after / 1024
    );
    drop((held, server));

    let together = Server::start(books, &[])?;
    let one_by_one = Server::start(books, &["--pass-through", "--node", "two"])?;
    println!("| | round trips | 50 ms | 100 ms | 250 ms |");
    println!("|---|---|---|---|---|");
    let mut card = bench.cards.first().cloned().ok_or("no card")?;
    for (server, opening, name) in [
        (&one_by_one, false, "every frame by itself"),
        (&together, false, "frames together"),
        (&together, true, "and the opening before hello"),
    ] {
        let mut line = String::new();
        let mut round_trips = 0;
        for rtt in [50, 100, 250] {
            let codes = bench.vouchers(1).await?;
            let phone = bench.phone(codes.first().ok_or("no voucher")?, opening);
            let mut reader = SoftwareCard::new(VirtualReader::new(card), None);
            let connect = || async {
                let socket = SocketWire::connect(&server.address).await?;
                Ok(Delayed::new(socket, Duration::from_millis(rtt)))
            };
            let begun = Instant::now();
            let finished = phone.top_up(&mut reader, connect, |_| {}).await?;
            line += &format!(" {} ms |", begun.elapsed().as_millis());
            round_trips = finished.round_trips;
            card = reader.into_reader().into_card();
        }
        println!("| {name} | {round_trips} |{line}");
    }
    let Books { reserved, .. } = bench.ledger.perform(ReadBooks).await?;
    if reserved != 0 {
        return Err("something is uncertain that should not be".into());
    }
    Ok(())
}

fn main() -> ExitCode {
    let (mut counts, mut total, mut waiting) = (vec![1, 100, 5000], 5000, 5000);
    let parsed = args::parse(HELP, |name, parser, _| {
        match name {
            Some("cards") => {
                let text = parser.value()?.string()?;
                let parsed: Result<_, _> = text.split(',').map(str::parse).collect();
                counts = parsed.map_err(|_| "--cards wants numbers with commas between")?;
            }
            Some("total") => total = parser.value()?.parse()?,
            Some("waiting") => waiting = parser.value()?.parse()?,
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
    args::exit(runtime.block_on(run(counts, total, waiting)))
}
