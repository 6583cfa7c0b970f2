//! Every command, in one table: a row for each native command of the reference (`AF` is none of its
//! own, it goes on with others) and for each ISO 7816-4 command.
//!
//! ```console
//! $ cargo test --test commands -- --nocapture
//! ```
//!
//! What is run for a row:
//!
//! - its golden bytes, native and wrapped, against a transport that has them in a script, and last
//!   replies to them that must be rejected;
//! - the command under every authentication, in every mode of the file, in both framings, against a
//!   software card with keys of that type: the answer, the card's state, and how many bytes went
//!   over the line (which tells the protection);
//! - the same with the card's replies cut into other frames;
//! - the same with the last reply spoilt, in eight ways;
//! - its cases: further uses, what the card refuses, and what must not be sent at all.
//!
//! In all of these no machine may allocate: heap is counted from the call that makes a machine to its
//! output, with only the transport left out.
//!
//! A command without row, a row without negative case on the wire and on the card, and a cell that
//! the table shows but that was not run all fail the test.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};

use desfire_ev1::command::iso::{BinaryPlace, ShortFileId};
use desfire_ev1::picc::{Application, Card, File, FileContent};
use desfire_ev1::wire::{AccessRights, CommMode, Framing, Instruction, KeyInfo, KeySettings};
use desfire_ev1::{Authenticated, LinkFormat, Session};

#[path = "support/bench.rs"]
#[macro_use]
mod bench;
#[path = "support/rows.rs"]
mod rows;
#[path = "support/rows_application.rs"]
mod rows_application;
#[path = "support/rows_data.rs"]
mod rows_data;
#[path = "support/rows_iso.rs"]
mod rows_iso;
#[path = "support/rows_picc.rs"]
mod rows_picc;

use bench::{
    APP, Auth, Bench, CYCLIC, Cut, Mode, Place, RECORD, STANDARD, Spoil, UID, VALUE, card,
    card_key_of, content, family, file_no, key_no, unhex, verdict, watched, without_heap,
};
use rows::{Case, Exchange, Golden, Guard, Row};

const FORMATS: [LinkFormat; 2] = [LinkFormat::NATIVE, LinkFormat::WRAPPED];

/// Without protection by a session a reply of `n` bytes has `n` bytes; chapters 7.6 and 7.7 tell
/// what else there is.
fn on_the_wire(guard: Guard, auth: Auth, mode: Mode, len: usize, reply: bool) -> usize {
    let (block, mac, crc) = auth.sizes();
    let standard = if reply && auth.is_ev1() {
        len + mac
    } else {
        len
    };
    let enciphered = |crcs: usize| (len + crcs * crc).next_multiple_of(block);
    match (guard, mode) {
        (Guard::Bare | Guard::Proof | Guard::Challenge, _) => len,
        (Guard::Cipher(crcs), _) => enciphered(crcs),
        (Guard::Standard, _) => standard,
        (Guard::Change, Mode::Free) | (Guard::File, Mode::Plain | Mode::Free) => standard,
        _ if auth == Auth::None => len,
        (Guard::Change, _) | (Guard::File, Mode::Enciphered) => enciphered(1),
        (Guard::File, _) => len + mac,
    }
}

/// Whether the reply proves itself.
fn is_proved(guard: Guard, auth: Auth, mode: Mode) -> bool {
    match guard {
        Guard::Bare | Guard::Challenge => false,
        Guard::Proof | Guard::Cipher(_) => true,
        Guard::Standard | Guard::Change => auth.is_ev1(),
        Guard::File => {
            auth.is_ev1() || auth.is_d40() && matches!(mode, Mode::Mac | Mode::Enciphered)
        }
    }
}

/// As what a spoilt reply must be rejected; nothing if it is an honest reply too.
fn rejected_as(
    row: &Row,
    auth: Auth,
    mode: Mode,
    framing: Framing,
    spoil: Spoil,
) -> &'static [&'static str] {
    let guard = row.traffic.reply;
    let proved = is_proved(guard, auth, mode);
    let len = on_the_wire(guard, auth, mode, (row.traffic.back)(auth), true);
    match spoil {
        Spoil::Nothing => &["malformed"],
        Spoil::Refusal if row.is_iso() => &["6985"],
        // The frames before may have been written.
        Spoil::Refusal if row.code() == 0x3D => &["EE?"],
        Spoil::Refusal => &["EE"],
        Spoil::OtherStatus if row.is_iso() => &["6100?"],
        Spoil::OtherStatus if framing == Framing::Wrapped => &["malformed"],
        Spoil::OtherStatus if row.code() == 0x3D => &["3E?"],
        Spoil::OtherStatus => &["3E"],
        Spoil::FlipFirst | Spoil::FlipLast if guard == Guard::Challenge => &["6982"],
        Spoil::FlipFirst | Spoil::FlipLast if proved && len > 0 => &["authenticity"],
        Spoil::FlipFirst | Spoil::FlipLast => &[],
        Spoil::Long if proved => &["authenticity", "malformed"],
        Spoil::Long => &["malformed"],
        Spoil::Short | Spoil::Bare if proved => &["authenticity", "malformed"],
        Spoil::Short | Spoil::Bare if len > 0 && !row.list => &["malformed"],
        Spoil::Short | Spoil::Bare => &[],
    }
}

#[derive(Default)]
struct Tally {
    positive: usize,
    /// Rejected replies; refusals of the card; calls that were not sent.
    wire: usize,
    card: usize,
    unsent: usize,
    /// Runs with replies that were cut anew.
    cut: usize,
    frames: usize,
    ran: BTreeSet<(Auth, Mode, bool)>,
    failures: Vec<String>,
}

impl Tally {
    const fn negative(&self) -> usize {
        self.wire + self.card + self.unsent
    }

    /// Runs one thing; what it panics with is kept.
    fn run(&mut self, what: impl Fn() -> String, go: impl FnOnce(&mut Self)) {
        if catch_unwind(AssertUnwindSafe(|| go(self))).is_err() {
            self.failures.push(what());
        }
    }
}

fn bench_for(row: &Row, case: Option<&Case>, auth: Auth, mode: Mode, format: LinkFormat) -> Bench {
    let mut card = card(auth);
    if let Some(prepare) = case.and_then(|case| case.prepare) {
        prepare(&mut card);
    }
    let place = case.and_then(|case| case.place).unwrap_or(row.place);
    // The keys on the card are of the column's type; the row authenticates by itself.
    let before = if row.handshake { Auth::None } else { auth };
    let mut bench = Bench::on_card(card, before, mode, format, place);
    bench.auth = auth;
    bench
}

/// The command itself, and that it was really this command, so protected.
fn run_cell(tally: &mut Tally, row: &Row, auth: Auth, mode: Mode, format: LinkFormat) {
    let mut bench = bench_for(row, None, auth, mode, format);
    (row.before)(&mut bench);
    bench.line.log.clear();
    (row.run)(&mut bench).unwrap();
    assert!(!bench.is_lost());
    if row.is_iso() {
        assert!(bench.line.saw_iso(row.code()), "not sent");
    } else {
        let (sent, received) = bench
            .line
            .joined(row.code())
            .expect("sent and answered with 00");
        let Row { traffic, .. } = row;
        let data = on_the_wire(traffic.request, auth, mode, (traffic.data)(auth), false);
        assert_eq!(sent.len(), traffic.header + data, "bytes sent");
        let back = on_the_wire(traffic.reply, auth, mode, (traffic.back)(auth), true);
        assert_eq!(received.len(), back, "bytes received");
    }
    tally.frames += bench.line.log.len();
    (row.after)(&mut bench);
    tally
        .ran
        .insert((auth, mode, format == LinkFormat::WRAPPED));
    tally.positive += 1;
}

fn run_cut(tally: &mut Tally, row: &Row, auth: Auth, mode: Mode, format: LinkFormat, cut: Cut) {
    let mut bench = bench_for(row, None, auth, mode, format);
    (row.before)(&mut bench);
    bench.line.recut(cut);
    (row.run)(&mut bench).unwrap();
    (row.after)(&mut bench);
    tally.cut += 1;
}

fn run_spoilt(
    tally: &mut Tally,
    row: &Row,
    auth: Auth,
    mode: Mode,
    format: LinkFormat,
    spoil: Spoil,
) {
    let expected = rejected_as(row, auth, mode, format.framing, spoil);
    if expected.is_empty() {
        return;
    }
    let mut bench = bench_for(row, None, auth, mode, format);
    (row.before)(&mut bench);
    bench.line.spoil = Some((row.code(), spoil));
    let error = (row.run)(&mut bench).expect_err("this reply is spoilt");
    assert!(bench.line.spoilt);
    let found = verdict(&error);
    assert!(
        expected.contains(&&*found),
        "{found} and not {expected:?}: {error}"
    );
    // After a refusal without session nothing is lost; after anything else everything is.
    let refused = matches!(&*found, "6982" | "6985" | "EE" | "EE?" | "3E" | "3E?");
    let gone = matches!(bench.live, bench::Live::Gone);
    assert_eq!(bench.is_lost(), gone || auth != Auth::None || !refused);
    check_lost(&bench, &error);
    tally.wire += 1;
}

/// An error tells whether the session is lost, or gone with the command.
fn check_lost(bench: &Bench, error: &bench::Failure) {
    let error = error.protocol().expect("not the transport's");
    assert_eq!(error.session_lost, bench.is_lost());
}

fn run_case(tally: &mut Tally, row: &Row, case: &Case, auth: Auth, mode: Mode, format: LinkFormat) {
    let mut bench = bench_for(row, Some(case), auth, mode, format);
    let before = bench.card().save();
    match ((case.go)(&mut bench), case.expect) {
        (Ok(()), "ok") => {
            assert!(!bench.is_lost());
            tally.positive += 1;
        }
        (Ok(()), expected) => panic!("it worked, and should have been {expected}"),
        (Err(error), expected) => {
            assert_eq!(verdict(&error), expected, "{error}");
            let gone = matches!(bench.live, bench::Live::Gone);
            check_lost(&bench, &error);
            if expected == "unsent" {
                assert!(gone || !bench.is_lost());
                let sent = bench.line.log.iter();
                let mut codes = sent.map(|(sent, _)| bench::command_of(format.framing, sent).0);
                assert!(codes.all(|code| code != row.code()), "something was sent");
                if case.place == Some(Place::Picc) {
                    assert!(bench.line.log.is_empty(), "something was sent");
                }
                tally.unsent += 1;
            } else {
                assert_eq!(bench.is_lost(), gone || bench.auth != Auth::None);
                tally.card += 1;
            }
            if !case.changes {
                assert!(before == bench.card().save(), "the card has changed");
            }
        }
    }
    tally.frames += bench.line.log.len();
}

fn script(golden: &Golden, format: LinkFormat) -> Vec<(Vec<u8>, Vec<u8>)> {
    let [command, reply] = match format.framing {
        Framing::Native => [0, 1],
        Framing::Wrapped => [2, 3],
    };
    let exchanges = golden.script.iter();
    exchanges
        .map(|exchange: &Exchange| (unhex(exchange[command]), unhex(exchange[reply])))
        .collect()
}

fn run_golden(tally: &mut Tally, golden: &Golden, format: LinkFormat) {
    let mut bench = Bench::on_script(golden.selected, format, script(golden, format));
    (golden.go)(&mut bench).unwrap();
    assert!(bench.line.is_over(), "the script goes on");
    tally.positive += 1;
    tally.frames += bench.line.log.len();
}

fn run_rejected(
    tally: &mut Tally,
    row: &Row,
    golden: &Golden,
    format: LinkFormat,
    rejected: &[&str; 3],
) {
    let mut script = script(golden, format);
    // The last reply to this command: of an ISO command there is one, of a native one it ends
    // the script.
    let of_iso = |sent: &Vec<u8>| sent[0] == 0x00 && sent[1] == row.code();
    let place = match row.is_iso() {
        true => script.iter().rposition(|(sent, _)| of_iso(sent)).unwrap(),
        false => script.len() - 1,
    };
    script[place].1 = unhex(match format.framing {
        Framing::Native => rejected[0],
        Framing::Wrapped => rejected[1],
    });
    let mut bench = Bench::on_script(golden.selected, format, script);
    let error = (golden.go)(&mut bench).expect_err("this reply must be rejected");
    assert_eq!(bench.line.log.len(), place + 1);
    assert_eq!(verdict(&error), rejected[2], "{error}");
    tally.wire += 1;
}

fn declared(row: &Row, auth: Auth) -> Vec<Mode> {
    let modes = row.modes.iter().copied();
    modes
        .filter(|mode| (row.applies)(auth, *mode).is_ok())
        .collect()
}

fn run_row(row: &Row) -> Tally {
    let mut tally = Tally::default();
    let name = row.command;
    for golden in &row.golden {
        for format in FORMATS {
            let what = || format!("{name}: golden, {}, {:?}", golden.what, format.framing);
            tally.run(what, |tally| run_golden(tally, golden, format));
            for rejected in &golden.rejected {
                let what = || format!("{}: rejected {}", what(), rejected[0]);
                tally.run(what, |tally| {
                    run_rejected(tally, row, golden, format, rejected)
                });
            }
        }
    }
    for auth in Auth::ALL {
        for format in FORMATS {
            let at =
                |mode: Mode| format!("{name}: {}, {mode:?}, {:?}", auth.name(), format.framing);
            let modes = declared(row, auth);
            for mode in modes.iter().copied() {
                tally.run(
                    || at(mode),
                    |tally| run_cell(tally, row, auth, mode, format),
                );
                if !row.is_iso() && !row.frames_matter {
                    for cut in [Cut::Every(1), Cut::Every(9), Cut::Random(auth as u64)] {
                        let what = || format!("{}: {cut:?}", at(mode));
                        tally.run(what, |tally| run_cut(tally, row, auth, mode, format, cut));
                    }
                }
                for spoil in Spoil::ALL {
                    let what = || format!("{}: {spoil:?}", at(mode));
                    tally.run(what, |tally| {
                        run_spoilt(tally, row, auth, mode, format, spoil)
                    });
                }
            }
            for case in &row.cases {
                let modes = match case.under {
                    Some(auths) if !auths.contains(&auth) => Vec::new(),
                    Some(_) if modes.is_empty() => vec![row.modes[0]],
                    _ => modes.clone(),
                };
                for mode in modes {
                    let what = || format!("{}: {}", at(mode), case.what);
                    tally.run(what, |tally| run_case(tally, row, case, auth, mode, format));
                }
            }
        }
    }
    check_row(row, &mut tally);
    tally
}

/// What every row must have.
fn check_row(row: &Row, tally: &mut Tally) {
    let mut missing = |what: &str| tally.failures.push(format!("{}: {what}", row.command));
    let mut cells = BTreeSet::new();
    for auth in Auth::ALL {
        for mode in declared(row, auth) {
            cells.extend([(auth, mode, false), (auth, mode, true)]);
        }
    }
    if cells.is_empty() || cells != tally.ran {
        missing("not every cell was run");
    }
    if row.golden.is_empty() {
        missing("no golden bytes");
    }
    if row.golden.iter().all(|golden| golden.rejected.is_empty()) {
        missing("no golden reply that must be rejected");
    }
    if tally.card == 0 {
        missing("nothing that the card refuses");
    }
    if tally.wire == 0 {
        missing("nothing that is rejected on the wire");
    }
}

/// The table as text, and the reasons for what is not in it.
fn print(rows: &[Row], tallies: &[Tally]) {
    let mut reasons: Vec<&str> = Vec::new();
    print!("{:<23} {:<4} {:<11}", "command", "code", "framing");
    for auth in Auth::ALL {
        print!(" {:<7}", auth.name());
    }
    println!(
        " {:>6} {:>5} {:>5} {:>5} {:>6}",
        "golden", "+", "-wire", "-card", "unsent"
    );
    for (row, tally) in rows.iter().zip(tallies) {
        let framing = if row.is_iso() { "APDU" } else { "native+wrap" };
        print!(
            "{:<23} {:<4} {framing:<11}",
            row.command.to_string(),
            format!("{:02X}", row.code())
        );
        for auth in Auth::ALL {
            let mut cell = String::new();
            let mut why = BTreeSet::new();
            for mode in row.modes {
                match (row.applies)(auth, *mode) {
                    Ok(()) => cell.push(mode.letter()),
                    Err(reason) => {
                        let known = reasons.iter().position(|each| *each == reason);
                        why.insert(known.unwrap_or_else(|| {
                            reasons.push(reason);
                            reasons.len() - 1
                        }));
                    }
                }
            }
            for reason in why {
                cell.push_str(&format!("({})", reason + 1));
            }
            print!(" {cell:<7}");
        }
        let golden = 2 * row.golden.len();
        let (positive, unsent) = (tally.positive, tally.unsent);
        println!(
            " {golden:>6} {positive:>5} {:>5} {:>5} {unsent:>6}",
            tally.wire, tally.card
        );
    }
    println!("AdditionalFrame         AF   no row: it goes on with the chains of the others");
    println!("x: always the same protection; file in mode p plain, m MACed, e enciphered;");
    println!("f: enciphered file with free access, which is plain");
    for (index, reason) in reasons.iter().enumerate() {
        println!("({}) {reason}", index + 1);
    }
}

fn all_rows() -> Vec<Row> {
    [
        rows_picc::rows(),
        rows_application::rows(),
        rows_data::rows(),
        rows_iso::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[test]
fn every_command() {
    let rows = all_rows();
    let tallies: Vec<Tally> = rows.iter().map(run_row).collect();
    print(&rows, &tallies);
    let mut failures: Vec<String> = tallies
        .iter()
        .flat_map(|tally| tally.failures.clone())
        .collect();
    let has_row: Vec<Instruction> = rows.iter().map(|row| row.command).collect();
    for command in rows::reference() {
        match has_row.iter().filter(|each| **each == command).count() {
            1 => {}
            count => failures.push(format!("{command}: {count} rows")),
        }
    }
    for failure in &failures {
        println!("failed: {failure}");
    }
    let sum = |count: fn(&Tally) -> usize| tallies.iter().map(count).sum::<usize>();
    println!(
        "{} commands and continuations were sent; {} runs with replies cut anew",
        sum(|tally| tally.frames),
        sum(|tally| tally.cut),
    );
    check_sizes(&mut failures);
    println!(
        "memory: {} machines made and run, 0 heap allocations",
        watched()
    );
    println!(
        "commands: {} rows, {} positive and {} negative cases, {} failed",
        rows.len(),
        sum(|tally| tally.positive),
        sum(Tally::negative),
        failures.len(),
    );
    assert!(failures.is_empty());
}

/// A machine has at most 512 bytes, and the session if it takes that with it: if it holds one by value.
fn check_sizes(failures: &mut Vec<String>) {
    let session = size_of::<Session<Authenticated>>();
    let mut sizes: Vec<(usize, &str)> = bench::sizes()
        .into_iter()
        .map(|(machine, size)| (size, machine))
        .collect();
    sizes.sort();
    for (size, machine) in &sizes {
        let takes = takes_the_session(machine);
        println!("memory: {size:>4} bytes: machine of {machine}");
        if *size > 512 + if takes { session } else { 0 } {
            failures.push(format!("{machine} has {size} bytes"));
        }
    }
    let taking = sizes.iter().filter(|(_, name)| takes_the_session(name));
    let taking: Vec<&str> = taking.map(|(_, name)| *name).collect();
    assert_eq!(taking.len(), 4, "{taking:?}");
}

/// From a machine's name: SelectApplication, SELECT of an application, ChangeKey of the key in use, and the
/// handshake by ISO 7816-4 commands do, all others borrow it.
fn takes_the_session(machine: &str) -> bool {
    machine.contains("<desfire_ev1::pcd::session::Session<")
        || machine.ends_with("::AuthenticateIso7816<'_>")
}

/// A heap allocation would be seen.
#[test]
fn heap_is_counted() {
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let seen = catch_unwind(|| without_heap(|| std::hint::black_box(Box::new(1)))).is_err();
    std::panic::set_hook(quiet);
    assert!(seen);
    assert_eq!(without_heap(|| 1), 1);
}

/// The table can fail: a row without its golden bytes, without negatives, or with a cell that is
/// shown but not run.
#[test]
fn the_table_can_fail() {
    let failures_of = |spoil: fn(&mut Row)| {
        let mut rows = rows_application::rows();
        let mut row = rows.swap_remove(9);
        assert_eq!(row.command.to_string(), "DeleteFile");
        spoil(&mut row);
        run_row(&row).failures
    };
    assert!(failures_of(|_| {}).is_empty());
    let quiet = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    let spoilt: [fn(&mut Row); 6] = [
        |row| row.golden.clear(),
        |row| row.cases.clear(),
        |row| row.run = |_| Ok(()),
        |row| row.traffic.back = |_| 1,
        |row| row.after = |bench| assert!(bench.application(APP).files().is_empty()),
        |row| row.golden[0].script[0][2] = "90 df 00 00 01 06 00",
    ];
    let found = spoilt.map(|spoil| !failures_of(spoil).is_empty());
    std::panic::set_hook(quiet);
    assert_eq!(found, [true; 6]);
}

/// 7.5 KB.
const LONG: usize = 7680;

/// A card with hardly anything but one file of 7680 bytes.
fn long_card(auth: Auth, mode: Mode) -> Card {
    let key_type = auth.key_type();
    let rights = match mode {
        Mode::Free => [0xEE, 0xEE],
        _ => [0x11, 0x11],
    };
    let file = File::new(
        file_no(1),
        mode.comm(),
        AccessRights::from_bytes(rights),
        FileContent::Standard(content(1, LONG)),
    );
    let info = KeyInfo::new(family(auth), 2).unwrap();
    let mut app = Application::new(APP, KeySettings::DEFAULT, info).with_file(file);
    for number in 0..2 {
        app = app.with_key(key_no(number), card_key_of(key_type, number));
    }
    let mut card = Card::new(UID);
    card.state_mut().put_application(app).unwrap();
    card
}

/// How many frames a write takes at least: seven bytes of header and the protected data, in
/// frames of so many bytes less INS, or less `90 INS 00 00 Lc` and `00`.
fn frames_to_write(protected: usize, framing: Framing, max_command: usize) -> usize {
    let overhead = match framing {
        Framing::Native => 1,
        Framing::Wrapped => 6,
    };
    (7 + protected).div_ceil(max_command.min(60) - overhead)
}

/// How many frames the card takes for a reply, chapter 2.3: 59 bytes each, in an EV1 session 48
/// (AES) or 56; the last one takes all that is left once that is 59 or less.
fn frames_to_read(protected: usize, auth: Auth) -> usize {
    let chunk = match auth {
        Auth::Aes => 48,
        _ if auth.is_ev1() => 56,
        _ => 59,
    };
    1 + protected.saturating_sub(59).div_ceil(chunk)
}

#[test]
fn a_whole_file_in_one_call() {
    // Some of the arithmetic, done by hand: 7 + 7680 bytes, 59, 54, 19, 14 to a frame.
    assert_eq!(frames_to_write(7680, Framing::Native, 60), 131);
    assert_eq!(frames_to_write(7680, Framing::Wrapped, 60), 143);
    assert_eq!(frames_to_write(7680, Framing::Native, 20), 405);
    assert_eq!(frames_to_write(7680, Framing::Wrapped, 20), 550);
    // 7680 + 4 of CRC are 481 blocks of 16: 7696. (7696 - 59) / 48 = 159.1.
    assert_eq!(frames_to_read(7696, Auth::Aes), 161);
    assert_eq!(frames_to_read(7680, Auth::None), 131);
    // 7688 with MAC: (7688 - 59) / 48 = 158.9.
    assert_eq!(frames_to_read(7688, Auth::Aes), 160);

    let data: Vec<u8> = content(0xA5, LONG);
    let (mut calls, mut frames) = (0, 0);
    let mut longest = [0; 2];
    for auth in Auth::ALL {
        for mode in Mode::FILE.iter().copied() {
            if auth == Auth::None && mode != Mode::Free {
                continue;
            }
            for (index, framing) in [Framing::Native, Framing::Wrapped].into_iter().enumerate() {
                let all = matches!(auth, Auth::None | Auth::D40Des | Auth::Aes);
                let limits: &[usize] = if all { &[20, 33, 60, 255] } else { &[60] };
                for max_command in limits.iter().copied() {
                    let format = LinkFormat {
                        framing,
                        max_command: 60,
                    };
                    let card = long_card(auth, mode);
                    let mut bench = Bench::on_card(card, auth, mode, format, Place::In(APP, 1));
                    // The handshake needs more than 20 bytes.
                    bench.line.narrow(max_command);
                    let what = format!("{}, {mode:?}, {framing:?}, {max_command}", auth.name());

                    call!(bench, |s| s.get_file_settings(file_no(1))).unwrap();
                    bench.line.log.clear();
                    call!(bench, |s| s.write_data(file_no(1), 0, &data)).unwrap();
                    let protected = on_the_wire(Guard::File, auth, mode, LONG, false);
                    let expected = frames_to_write(protected, framing, max_command);
                    assert_eq!(bench.line.log.len(), expected, "write: {what}");
                    assert_eq!(
                        *bench.stored(1),
                        FileContent::Standard(data.clone()),
                        "{what}"
                    );
                    frames += expected;

                    let mut buffer = vec![0; LONG];
                    bench.line.log.clear();
                    let read = call!(bench, |s| s.read_data(file_no(1), 0..7680, &mut buffer));
                    assert_eq!(read.unwrap(), data, "{what}");
                    let protected = on_the_wire(Guard::File, auth, mode, LONG, true);
                    let expected = frames_to_read(protected, auth);
                    assert_eq!(bench.line.log.len(), expected, "read: {what}");
                    frames += expected;

                    // To the end, into a buffer without a byte to spare.
                    let mut buffer = vec![0; LONG];
                    let read = call!(bench, |s| s.read_data_to_end(file_no(1), 0, &mut buffer));
                    assert_eq!(read.unwrap(), data, "{what}");
                    calls += 3;
                    longest[index] = longest[index].max(bench.line.longest);
                }
            }
        }
    }
    // No command was longer (the transport sees to that), and the room there is was used.
    assert_eq!(longest, [60, 60]);
    println!("long: {calls} calls of {LONG} bytes, {frames} frames counted, longest {longest:?}");
}

/// A write must have room for its header in the first frame, an ISO command for everything; what
/// has not is refused before anything is sent.
#[test]
fn a_link_too_narrow() {
    for (format, least) in [(LinkFormat::NATIVE, 8), (LinkFormat::WRAPPED, 13)] {
        for auth in [Auth::None, Auth::D40Two, Auth::Aes] {
            let card = card(auth);
            let mode = if auth == Auth::None {
                Mode::Plain
            } else {
                Mode::Enciphered
            };
            let mut bench = Bench::on_card(card, auth, mode, format, Place::In(APP, 1));
            let file = bench.file(STANDARD);
            call!(bench, |s| s.get_file_settings(file)).unwrap();
            bench.line.log.clear();
            for max_command in 0..least {
                bench.line.narrow(max_command);
                let error = call!(bench, |s| s.write_data(file, 0, &[1, 2])).unwrap_err();
                assert_eq!(verdict(&error), "unsent", "{max_command}");
            }
            assert!(bench.line.log.is_empty() && !bench.is_lost());
            bench.line.narrow(least);
            call!(bench, |s| s.write_data(file, 0, &[1, 2])).unwrap();
            // An ISO command has but one frame: CLA INS P1 P2 Lc and the data.
            if !auth.is_ev1() {
                let place = BinaryPlace::Short {
                    file: ShortFileId::new(STANDARD).unwrap(),
                    offset: 0,
                };
                bench.line.narrow(24);
                let error = call!(bench, |s| s.iso_update_binary(place, &[1; 20])).unwrap_err();
                assert_eq!(verdict(&error), "unsent");
                bench.line.narrow(25);
                call!(bench, |s| s.iso_update_binary(place, &[1; 20])).unwrap();
            }
        }
    }
}

/// However a card cuts its replies, they mean the same.
#[test]
fn any_cut_of_a_reply() {
    let cuts = (1..=59).map(Cut::Every).chain((0..20).map(Cut::Random));
    let mut runs = 0;
    for (index, cut) in cuts.enumerate() {
        for auth in Auth::ALL {
            for mode in Mode::FILE.iter().copied() {
                if auth == Auth::None && matches!(mode, Mode::Mac | Mode::Enciphered) {
                    continue;
                }
                let format = FORMATS[(index + auth as usize + mode as usize) % 2];
                let what = format!("{cut:?}, {}, {mode:?}, {:?}", auth.name(), format.framing);
                let place = Place::In(APP, 1);
                let mut bench = Bench::on_card(card(auth), auth, mode, format, place);
                bench.line.recut(cut);
                let (data, value) = (bench.number(STANDARD), bench.number(VALUE));
                let log = bench.number(CYCLIC);
                let mut buffer = [0; 100];
                let read = call!(bench, |s| s.read_data(file_no(data), 0..100, &mut buffer));
                assert_eq!(read.unwrap(), content(data, 100), "{what}");
                let mut buffer = [0; 100];
                let read = call!(bench, |s| s.read_data_to_end(file_no(data), 1, &mut buffer));
                assert_eq!(read.unwrap(), &content(data, 100)[1..], "{what}");
                let mut buffer = [0; 3 * RECORD];
                let read = call!(bench, |s| s.read_all_records(file_no(log), 0, &mut buffer));
                assert_eq!(read.unwrap(), content(log, 3 * RECORD), "{what}");
                let read = call!(bench, |s| s.get_value(file_no(value)));
                assert_eq!(read.unwrap(), 500, "{what}");
                let version = call!(bench, |s| s.get_version()).unwrap();
                assert_eq!(&version, bench.card().state().version(), "{what}");
                // And the session has kept step.
                let plain = CommMode::Plain;
                if auth == Auth::None || mode == Mode::Free {
                    call!(bench, |s| s
                        .write_data(file_no(data), 0, &[1])
                        .comm_mode(plain))
                    .unwrap();
                } else {
                    assert_eq!(
                        authenticated!(bench, |s| s.get_card_uid()).unwrap(),
                        UID,
                        "{what}"
                    );
                }
                runs += 1;
            }
        }
    }
    println!("cuts: {runs} runs");
}
