//! The real programs over real sockets: killed, flooded, out of disk, talked to by HTTP, slow.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::zombie_processes,
    missing_docs
)]

mod support;

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use desfire_ev1::VirtualReader;
use desfire_ev1::picc::Card;
use support::{Dice, SharedCard, Shop, token};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use topup::ledger::Ledger;
use topup::message::{Ending, Finished, FromPhone, Hello, Reason};
use topup::phone::{Phone, PhoneError, SoftwareCard};
use topup::wires::{Delayed, HttpWire, SocketWire, Wire, WireTrouble};

const AMOUNT: i32 = 10;

/// topup-server as a process of its own, killed at the end.
struct Server {
    child: Child,
    address: String,
}

impl Server {
    fn start(books: &str, options: &[&str]) -> Self {
        Self::run(
            Command::new(env!("CARGO_BIN_EXE_topup-server")),
            books,
            options,
        )
    }

    fn run(mut command: Command, books: &str, options: &[&str]) -> Self {
        command
            .args(["--listen", "127.0.0.1:0", "--demo-keys", "--books", books])
            .args(options)
            .env("RUST_LOG", "error")
            .stdout(Stdio::piped())
            .process_group(0);
        let mut child = command.spawn().unwrap();
        let mut line = String::new();
        let mut out = BufReader::new(child.stdout.take().unwrap());
        out.read_line(&mut line).unwrap();
        let address = line.trim().rsplit('/').next().unwrap().to_owned();
        Self { child, address }
    }

    /// SIGKILL: nothing is written, nothing is said.
    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    fn memory(&self) -> u64 {
        let status = format!("/proc/{}/status", self.child.id());
        let status = std::fs::read_to_string(status).unwrap();
        let line = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .unwrap();
        line.split_whitespace()
            .next()
            .unwrap()
            .parse::<u64>()
            .unwrap()
            * 1024
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn phone(shop: &Shop, account: &str, voucher: &str, tries: u32) -> Phone {
    let layout = &shop.desk.layout;
    Phone {
        token: token(account),
        voucher: voucher.as_bytes().to_vec(),
        opening: Some((layout.aid, layout.credit)),
        keep_alive: Duration::from_millis(40),
        patience: Duration::from_secs(20),
        tries,
    }
}

/// Tops up `card` over a WebSocket; what happens to it stays.
async fn top_up(
    address: &str,
    phone: &Phone,
    card: &SharedCard,
    silence: Option<Duration>,
    rtt: Duration,
) -> Result<Finished, PhoneError> {
    let on_it: Card = card.lock().unwrap().clone();
    let mut reader = SoftwareCard::new(VirtualReader::new(on_it), silence);
    let connect = || async {
        let socket = SocketWire::connect(address).await?;
        Ok(Delayed::new(socket, rtt))
    };
    let result = phone.top_up(&mut reader, connect, |_| {}).await;
    *card.lock().unwrap() = reader.into_reader().into_card();
    result
}

/// A shop whose books a server process shall use; it is not open itself.
async fn shop(cards: u32) -> (Shop, Vec<SharedCard>) {
    let shop = Shop::in_sqlite(true).await;
    shop.account("alice").await;
    let mut all = Vec::new();
    for number in 0..cards {
        all.push(shop.card(number, "alice").await);
    }
    (shop, all)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q5_a_server_killed_at_any_moment_loses_no_voucher_and_credits_none_twice() {
    let (shop, cards) = shop(4).await;
    let wanted = std::env::var("TOPUP_KILLS").map_or(25, |text| text.parse().unwrap());
    let mut dice = Dice(8);
    let (mut killed_in_time, mut waiting_seen, mut rounds) = (0, 0, 0);
    // Until the moment that matters has been hit, which takes luck.
    while rounds < wanted || (waiting_seen == 0 && rounds < 10 * wanted) {
        let round = rounds;
        rounds += 1;
        let mut server = Server::start(&shop.file(), &[]);
        let mut tasks = Vec::new();
        for (number, card) in cards.iter().enumerate() {
            let code = format!("{round} {number}");
            shop.voucher(&code, "alice", AMOUNT).await;
            let phone = phone(&shop, "alice", &code, 1);
            let (address, card) = (server.address.clone(), card.clone());
            tasks.push(tokio::spawn(async move {
                let rtt = Duration::from_millis(5);
                top_up(&address, &phone, &card, None, rtt).await
            }));
        }
        let moment = Duration::from_micros(dice.below(70_000));
        tokio::time::sleep(moment).await;
        server.kill();
        for task in tasks {
            if task.await.unwrap().is_err() {
                killed_in_time += 1;
            }
        }
        let (waiting, broken) = shop.audit().await;
        assert_eq!(broken, 0);
        waiting_seen += waiting;
        // Started again, with the same vouchers: each is on its card once.
        let server = Server::start(&shop.file(), &[]);
        for (number, card) in cards.iter().enumerate() {
            let phone = phone(&shop, "alice", &format!("{round} {number}"), 5);
            let again = top_up(&server.address, &phone, card, None, Duration::ZERO).await;
            assert!(
                matches!(
                    again.unwrap().ending,
                    Ending::Credited | Ending::AlreadyCredited
                ),
                "round {round}"
            );
        }
        assert_eq!(shop.audit().await, (0, 0));
    }
    let books = shop.books().await;
    assert_eq!((books.issued, books.reserved), (books.credited, 0));
    println!(
        "{rounds} kills: {killed_in_time} of {} top-ups interrupted, {waiting_seen} settled at the next tap",
        rounds * cards.len()
    );
    assert!(killed_in_time > 0 && waiting_seen > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q9_a_full_disk_refuses_and_when_there_is_room_again_everything_goes_on() {
    let (shop, cards) = shop(1).await;
    let mut limited = Command::new("bash");
    // No file may grow beyond 600 KiB; writing more is an error and no signal.
    limited.args(["-c", "trap '' XFSZ; ulimit -f 600; exec \"$0\" \"$@\""]);
    limited.arg(env!("CARGO_BIN_EXE_topup-server"));
    let mut server = Server::run(limited, &shop.file(), &[]);
    let (mut done, mut refused) = (0, 0);
    let mut codes = Vec::new();
    for number in 0..300 {
        let code = format!("{number}");
        shop.voucher(&code, "alice", 1).await;
        let phone = phone(&shop, "alice", &code, 1);
        match top_up(&server.address, &phone, &cards[0], None, Duration::ZERO).await {
            Ok(_) => done += 1,
            Err(error) => {
                let expected = [Reason::Ledger, Reason::CardInUse];
                assert!(
                    matches!(error, PhoneError::Refused { reason, .. } if expected.contains(&reason)),
                    "{error:?}"
                );
                refused += 1;
            }
        }
        codes.push(code);
        if refused > 3 {
            break;
        }
    }
    println!("{done} top-ups until the disk was full");
    assert!(refused > 3 && done > 3);
    server.kill();
    shop.audit().await;
    let server = Server::start(&shop.file(), &[]);
    for code in &codes {
        let phone = phone(&shop, "alice", code, 5);
        let done = top_up(&server.address, &phone, &cards[0], None, Duration::ZERO).await;
        assert!(done.is_ok(), "{code}: {done:?}");
    }
    assert_eq!(shop.audit().await, (0, 0));
    let books = shop.books().await;
    assert_eq!(books.issued, books.credited);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q8_a_flood_is_refused_with_words_and_memory_stays_bounded_and_others_come_in_later() {
    let (shop, cards) = shop(1).await;
    let options = ["--connections", "50", "--message-ms", "1500"];
    let server = Server::start(&shop.file(), &options);
    let before = server.memory();
    let mut held = Vec::new();
    for _ in 0..50 {
        held.push(SocketWire::connect(&server.address).await.unwrap());
    }
    let (mut full, mut closed) = (0, 0);
    for _ in 0..300 {
        match SocketWire::connect(&server.address).await {
            Ok(_) => panic!("there was no place"),
            Err(WireTrouble::Full(seconds)) => {
                assert_eq!(seconds, 2);
                full += 1;
            }
            Err(_) => closed += 1,
        }
    }
    assert!(full > 0);
    let grown = server.memory().saturating_sub(before);
    println!("{full} were told, {closed} closed; {grown} bytes more");
    assert!(grown < 16 << 20, "{grown}");
    // The silent ones are given up, and an honest phone that starts over gets in.
    shop.voucher("GOLD", "alice", AMOUNT).await;
    let honest = phone(&shop, "alice", "GOLD", 10);
    let done = top_up(&server.address, &honest, &cards[0], None, Duration::ZERO).await;
    assert_eq!(done.unwrap().ending, Ending::Credited);
    drop(held);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q8_from_one_address_only_its_share_and_a_message_that_is_too_long_is_none() {
    let (shop, _) = shop(1).await;
    let server = Server::start(&shop.file(), &["--per-address", "2"]);
    let _held = [
        SocketWire::connect(&server.address).await.unwrap(),
        SocketWire::connect(&server.address).await.unwrap(),
    ];
    let third = SocketWire::connect(&server.address).await;
    assert!(matches!(third.err(), Some(WireTrouble::Full(2))));
    drop((_held, server));
    let server = Server::start(&shop.file(), &["--message-ms", "500"]);
    let mut wire = SocketWire::connect(&server.address).await.unwrap();
    // It is not read; at most the server says good-bye.
    if let Ok(last) = wire.exchange(vec![1; 5000]).await {
        let last = topup::message::FromServer::parse(&last).unwrap();
        assert!(
            matches!(last, topup::message::FromServer::Refused { .. }),
            "{last:?}"
        );
        assert!(wire.exchange(vec![1; 5]).await.is_err());
    }
    // By HTTP; and a body that never comes to its end.
    let head =
        |len| format!("POST /v1/converse HTTP/1.1\r\nHost: t\r\nContent-Length: {len}\r\n\r\n");
    for (text, status) in [
        (head(5000) + &"x".repeat(5000), "413"),
        (head(10) + "x", "408"),
    ] {
        let mut stream = TcpStream::connect(&server.address).await.unwrap();
        stream.write_all(text.as_bytes()).await.unwrap();
        let mut answer = vec![0; 200];
        let len = stream.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..len]).into_owned();
        assert!(answer.contains(status), "{answer}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q8_a_peer_that_reads_no_answer_does_not_keep_its_place() {
    let (shop, _) = shop(1).await;
    let options = ["--connections", "1", "--message-ms", "1000"];
    let server = Server::start(&shop.file(), &options);
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    let address: std::net::SocketAddr = server.address.parse().unwrap();
    let mut deaf = socket.connect(address).await.unwrap();
    let requests = "GET / HTTP/1.1\r\nHost: t\r\n\r\n".repeat(100);
    // Until the server does not take any more, because it cannot answer.
    let pause = Duration::from_millis(300);
    let mut taken = 0;
    while let Ok(sent) = tokio::time::timeout(pause, deaf.write_all(requests.as_bytes())).await {
        sent.unwrap();
        taken += 1;
        assert!(taken < 10_000, "it never stops");
    }
    let client = reqwest::Client::new();
    let health = || async {
        let answer = client.get(format!("http://{address}/health")).send().await;
        answer.map(|answer| answer.status().as_u16())
    };
    assert_eq!(health().await.unwrap(), 503);
    let until = Instant::now() + Duration::from_secs(10);
    while health().await.ok() != Some(200) {
        assert!(Instant::now() < until, "it has its place for ever");
        tokio::time::sleep(pause).await;
    }
    drop(deaf);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_http_it_is_the_same_and_a_request_sent_twice_repeats_nothing() {
    let (shop, cards) = shop(1).await;
    let server = Server::start(&shop.file(), &[]);
    let client = reqwest::Client::new();
    shop.voucher("GOLD", "alice", AMOUNT).await;
    let over_http = phone(&shop, "alice", "GOLD", 1);
    let card = cards[0].lock().unwrap().clone();
    let mut reader = SoftwareCard::new(VirtualReader::new(card), None);
    let connect = || async { Ok(HttpWire::new(client.clone(), &server.address)) };
    let done = over_http
        .top_up(&mut reader, connect, |_| {})
        .await
        .unwrap();
    assert_eq!((done.ending, done.round_trips), (Ending::Credited, 3));
    *cards[0].lock().unwrap() = reader.into_reader().into_card();
    assert_eq!(shop.audit().await, (0, 0));

    let hello = FromPhone::Hello(Hello {
        format: desfire_ev1::LinkFormat::WRAPPED,
        uid: support::uid(0),
        token: token("alice"),
        voucher: Vec::new(),
        opening: Vec::new(),
    });
    let url = format!("http://{}/v1/converse", server.address);
    let begun = client
        .post(&url)
        .body(hello.encode().unwrap())
        .send()
        .await
        .unwrap();
    let name = begun.headers()["topup-conversation"]
        .to_str()
        .unwrap()
        .to_owned();
    let played = FromPhone::Played {
        batch: 1,
        end: topup::message::End::CardGone,
        replies: Vec::new(),
    };
    let url = format!("{url}/{name}");
    let say = || client.post(&url).body(played.encode().unwrap()).send();
    assert_eq!(say().await.unwrap().status(), 200);
    assert_eq!(say().await.unwrap().status(), 410);

    // What whoever runs it sees, and that it tells no secret.
    let get = |path: &str| {
        client
            .get(format!("http://{}{path}", server.address))
            .send()
    };
    assert_eq!(get("/health").await.unwrap().text().await.unwrap(), "ok\n");
    let metrics = get("/metrics").await.unwrap().text().await.unwrap();
    assert!(
        metrics.contains("topup_conversations_total{end=\"Credited\"} 1"),
        "{metrics}"
    );
    assert!(metrics.contains("topup_contradictions_total 0"));
    assert!(!metrics.contains("alice") && !metrics.contains("GOLD"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_card_that_its_reader_resets_after_a_silence_is_kept_alive() {
    let (shop, cards) = shop(1).await;
    let server = Server::start(&shop.file(), &[]);
    let silence = Some(Duration::from_millis(125));
    let rtt = Duration::from_millis(300);
    for (number, period, expected) in [(0, 0, false), (1, 40, true)] {
        let code = format!("{number}");
        shop.voucher(&code, "alice", AMOUNT).await;
        let mut phone = phone(&shop, "alice", &code, 1);
        phone.keep_alive = Duration::from_millis(period);
        let done = top_up(&server.address, &phone, &cards[0], silence, rtt).await;
        assert_eq!(done.is_ok(), expected, "{done:?}");
        assert_eq!(shop.audit().await, (0, 0));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_logs_is_no_secret_however_much_it_is_told_to_log() {
    let (shop, cards) = shop(1).await;
    shop.voucher("GOLDEN-VOUCHER", "alice", AMOUNT).await;
    let mut server = Command::new(env!("CARGO_BIN_EXE_topup-server"));
    let mut server = server
        .args(["--listen", "127.0.0.1:0", "--demo-keys", "--json"])
        .args(["--books", &shop.file()])
        .env("RUST_LOG", "trace")
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut out = BufReader::new(server.stdout.take().unwrap());
    out.read_line(&mut line).unwrap();
    let log = server.stderr.take().unwrap();
    let log = std::thread::spawn(move || std::io::read_to_string(log).unwrap());
    let address = line.trim().rsplit('/').next().unwrap();
    let phone = phone(&shop, "alice", "GOLDEN-VOUCHER", 1);
    let done = top_up(address, &phone, &cards[0], None, Duration::ZERO).await;
    let client = reqwest::Client::new();
    let watched = client
        .post(format!("http://{address}/v1/watch"))
        .bearer_auth("token of alice")
        .send();
    assert_eq!(watched.await.unwrap().status(), 200);
    server.kill().unwrap();
    server.wait().unwrap();
    done.unwrap();
    let log = log.join().unwrap();
    assert!(log.contains("\"Credited\""), "{log}");
    for secret in [
        &b"GOLDEN-VOUCHER"[..],
        b"token of alice",
        b"topup demo credi",
    ] {
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        let numbers = format!("{secret:?}");
        let text = String::from_utf8_lossy(secret);
        assert!(
            !log.contains(&*text) && !log.to_lowercase().contains(&hex),
            "{log}"
        );
        assert!(!log.contains(numbers.trim_matches(['[', ']'])), "{log}");
    }
}

/// Where the books are: in a file, and in PostgreSQL if there is one.
async fn both_books() -> Vec<(Shop, String)> {
    let shop = Shop::in_sqlite(true).await;
    let file = shop.file();
    let mut all = vec![(shop, file)];
    match std::env::var("TOPUP_POSTGRES") {
        Ok(url) => {
            support::empty_postgres(&url).await;
            let ledger = Ledger::open(&url).await.unwrap();
            all.push((Shop::with(ledger, true), url));
        }
        Err(_) => support::not_run("TOPUP_POSTGRES names no database"),
    }
    all
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_servers_of_one_name_do_not_share_books_and_a_killed_one_leaves_its_name() {
    for (shop, books) in both_books().await {
        let server = |name: &str| {
            let mut server = Command::new(env!("CARGO_BIN_EXE_topup-server"));
            server
                .args(["--listen", "127.0.0.1:0", "--demo-keys", "--books", &books])
                .args(["--node", name])
                .env("RUST_LOG", "error");
            server
        };
        let mut first = Server::start(&books, &[]);
        let second = server("one").output().unwrap();
        let said = String::from_utf8_lossy(&second.stderr).into_owned();
        assert!(
            !second.status.success() && said.contains("--node"),
            "{said}"
        );
        let odd = server("../one").output().unwrap();
        assert!(!odd.status.success());
        let _other = Server::start(&books, &["--node", "two"]);
        first.kill();
        let _again = Server::start(&books, &[]);
        drop(shop);
    }
}

/// What the program says, and whether it is content.
fn ledger(books: &str, words: &[&str]) -> (bool, String) {
    let mut program = Command::new(env!("CARGO_BIN_EXE_topup-ledger"));
    let output = program.args(["--books", books]).args(words).output();
    let output = output.unwrap();
    let said = [output.stdout, output.stderr].concat();
    (
        output.status.success(),
        String::from_utf8_lossy(&said).into_owned(),
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q5_the_service_desk_sees_what_waits_settles_it_and_leaves_a_trail() {
    for (shop, books) in both_books().await {
        shop.account("alice").await;
        let card = shop.card(1, "alice").await;
        shop.voucher("GOLD", "alice", AMOUNT).await;
        let plan = support::Plan {
            break_after_playing: Some(2),
            ..support::Plan::default()
        };
        let lost = support::Phone::new(&card, "alice", "GOLD", plan);
        assert!(shop.converse(lost).await.is_err());
        let (_, waiting) = ledger(&books, &["waiting"]);
        assert!(waiting.contains("tap the card"), "{waiting}");
        let tx = waiting.split(' ').next().unwrap();
        let rides: Vec<_> = (0..5).map(|_| shop.ride(&card, 1)).collect();
        let tap = shop.honest(&card, "alice", "").await;
        assert_eq!(tap, Err(Reason::Desk));
        let (_, waiting) = ledger(&books, &["waiting"]);
        assert!(waiting.contains("forgotten"), "{waiting}");
        let number = format!("record {} ", rides[0].before().sequence.get());
        assert!(waiting.contains(&number), "{waiting}");

        let seen: String = rides[0]
            .to_bytes()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let (by, because) = (["--by", "Jo"], ["--because", "a letter"]);
        let settle = |words: &[&str]| ledger(&books, &[&["settle", tx], words].concat());
        for wrong in [
            ["released", "--without-card"].as_slice(),
            &["--seen", "00"],
            &["--seen", &seen, "released"],
            &["perhaps"],
            &[],
        ] {
            let (done, said) = settle(&[wrong, &by, &because].concat());
            assert!(!done, "{wrong:?}: {said}");
        }
        let (done, said) = settle(&["--seen", &seen]);
        assert!(!done && said.contains("a name and a reason"), "{said}");
        let (done, said) = settle(&[&["--seen", seen.as_str()], &by[..], &because].concat());
        assert!(done && said.contains("the card has it"), "{said}");
        assert_eq!(ledger(&books, &["waiting"]), (true, String::new()));
        let (_, trail) = ledger(&books, &["trail"]);
        assert!(
            trail.contains(tx) && trail.contains("credited by \"Jo\" because \"a letter\""),
            "{trail}"
        );
        assert_eq!(shop.audit().await, (0, 0));
        let next = shop.honest(&card, "alice", "GOLD").await.unwrap();
        assert_eq!(next.ending, Ending::AlreadyCredited);
    }
}

#[tokio::test]
async fn a_card_that_is_issued_is_not_written_over_another() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let (books, file) = (path("books.sqlite"), path("card.bin"));
    assert!(ledger(&books, &["account", "alice"]).0);
    let issue = |number: &str| ledger(&books, &["issue", "alice", number, &file]);
    assert!(issue("04010203040506").0);
    let card = std::fs::read(&file).unwrap();
    for number in ["04010203040506", "04010203040507"] {
        let (done, said) = issue(number);
        assert!(!done && said.contains("card.bin"), "{said}");
        assert_eq!(std::fs::read(&file).unwrap(), card);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn told_to_stop_it_finishes_and_goes() {
    let (shop, cards) = shop(1).await;
    let mut server = Server::start(&shop.file(), &["--grace", "5"]);
    shop.voucher("GOLD", "alice", AMOUNT).await;
    // One that waits and has nothing to lose.
    let idle = SocketWire::connect(&server.address).await.unwrap();
    let phone = phone(&shop, "alice", "GOLD", 1);
    let done = top_up(&server.address, &phone, &cards[0], None, Duration::ZERO).await;
    assert!(done.is_ok());
    let id = server.child.id().to_string();
    assert!(
        Command::new("kill")
            .args(["-TERM", &id])
            .status()
            .unwrap()
            .success()
    );
    let started = Instant::now();
    let status = tokio::task::block_in_place(|| server.child.wait()).unwrap();
    assert!(status.success() && started.elapsed() < Duration::from_secs(4));
    drop(idle);
    assert_eq!(shop.audit().await, (0, 0));
}

/// PostgreSQL is stopped hard in the middle of the work and started again. `TOPUP_POSTGRES_CTL` is the
/// command that does both, with `stop` or `start` as its argument.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q9_postgresql_gone_for_a_while_refuses_and_comes_back() {
    let names = ["TOPUP_POSTGRES", "TOPUP_POSTGRES_CTL"];
    let [Ok(url), Ok(ctl)] = names.map(std::env::var) else {
        support::not_run("TOPUP_POSTGRES and TOPUP_POSTGRES_CTL name no database");
        return;
    };
    let control = |what: &str| {
        let status = Command::new(&ctl).arg(what).stdout(Stdio::null()).status();
        assert!(status.unwrap().success());
    };
    support::empty_postgres(&url).await;
    let shop = Shop::with(Ledger::open(&url).await.unwrap(), true);
    shop.account("alice").await;
    let card = shop.card(0, "alice").await;
    let server = Server::start(&url, &[]);
    for code in ["A", "B"] {
        shop.voucher(code, "alice", AMOUNT).await;
    }
    let first = phone(&shop, "alice", "A", 1);
    assert!(
        top_up(&server.address, &first, &card, None, Duration::ZERO)
            .await
            .is_ok()
    );
    control("stop");
    let second = phone(&shop, "alice", "B", 1);
    let refused = top_up(&server.address, &second, &card, None, Duration::ZERO).await;
    assert!(
        matches!(
            refused,
            Err(PhoneError::Refused {
                reason: Reason::Ledger,
                ..
            })
        ),
        "{refused:?}"
    );
    control("start");
    let second = phone(&shop, "alice", "B", 10);
    let done = top_up(&server.address, &second, &card, None, Duration::ZERO).await;
    assert_eq!(done.unwrap().ending, Ending::Credited);
    let mut audited = shop.desk.ledger.perform(topup::ledger::ReadBooks).await;
    for _ in 0..20 {
        // The first use of a connection that died says so.
        if audited.is_ok() {
            break;
        }
        audited = shop.desk.ledger.perform(topup::ledger::ReadBooks).await;
    }
    assert_eq!(shop.audit().await, (0, 0));
}

/// Somebody else has a card's row for long: another program of the operator's, a node that hangs.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn q9_a_card_that_postgresql_holds_for_somebody_else_keeps_no_other_card_waiting() {
    let Ok(url) = std::env::var("TOPUP_POSTGRES") else {
        support::not_run("TOPUP_POSTGRES names no database");
        return;
    };
    support::empty_postgres(&url).await;
    let shop = Shop::with(Ledger::open(&url).await.unwrap(), true);
    shop.account("alice").await;
    let held = shop.card(0, "alice").await;
    let other = shop.card(1, "alice").await;
    for code in ["A", "B"] {
        shop.voucher(code, "alice", AMOUNT).await;
    }
    let (client, connection) = tokio_postgres::connect(&url, tokio_postgres::NoTls)
        .await
        .unwrap();
    tokio::spawn(connection);
    client.batch_execute("BEGIN").await.unwrap();
    let number = support::uid(0).0.to_vec();
    let rows = client
        .query(
            "SELECT epoch FROM cards WHERE uid = $1 FOR UPDATE",
            &[&number],
        )
        .await;
    assert_eq!(rows.unwrap().len(), 1);
    // More than there are connections to the database.
    let taps: Vec<_> = (0..20)
        .map(|_| {
            let plan = support::Plan::default();
            let phone = support::Phone::new(&held, "alice", "A", plan);
            let desk = shop.desk.clone();
            tokio::spawn(async move { support::converse(&desk, phone).await })
        })
        .collect();
    for tap in taps {
        assert_eq!(tap.await.unwrap(), Err(Reason::Ledger));
    }
    let done = shop.honest(&other, "alice", "B").await;
    assert_eq!(done.unwrap().ending, Ending::Credited);
    client.batch_execute("ROLLBACK").await.unwrap();
    let done = shop.honest(&held, "alice", "A").await;
    assert_eq!(done.unwrap().ending, Ending::Credited);
    assert_eq!(shop.audit().await, (0, 0));
}
