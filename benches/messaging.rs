//! The parts of a session in nanoseconds, with criterion's report in `target/criterion`: handshakes, sealing
//! and opening, a whole tap, the software card. `floor.rs` holds the same against the bare ciphers.
#![allow(
    missing_docs,
    clippy::expect_used,
    reason = "criterion's macros make undocumented functions; a bench is allowed to fail loudly"
)]

use std::time::Duration;

use criterion::{BatchSize, BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use desfire_ev1::picc::{Card, CardKey};
use desfire_ev1::wire::{Amount, AuthScheme, CommMode, FileNo, KeyNo, Uid};
use desfire_ev1::{Key, LinkFormat, Machine, Session, Step, VirtualReader};

#[path = "support/bare.rs"]
mod bare;
#[path = "support/schemes.rs"]
mod schemes;
#[path = "support/timing.rs"]
mod timing;

use schemes::{Direction, LENGTHS, schemes};

const NONCE: [u8; 16] = *b"a nonce, repeats";

/// Steps a machine over replies.
fn play<M: Machine>(mut machine: M, mut card: impl FnMut(&[u8]) -> Vec<u8>) -> M::Output {
    let mut sent = machine
        .start(LinkFormat::NATIVE)
        .expect("it starts")
        .to_vec();
    loop {
        let reply = card(&sent);
        match machine.step(&reply).expect("the reply is genuine") {
            Step::Transmit(next) => sent = next.to_vec(),
            Step::Done(output) => return output,
        }
    }
}

/// Both key schedules and the session key, without the card's half.
fn handshake(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("handshake");
    let (eight, sixteen) = (*b"eight by", *b"sixteen in a row");
    let twenty_four = *b"twenty-four bytes of key";
    let two = Key::two_key_3des(sixteen).expect("a 2K3DES key");
    let doubled = [eight, eight].concat().try_into().expect("16 bytes");
    for (name, scheme, key, on_card) in [
        (
            "0A DES",
            AuthScheme::Legacy,
            Key::des(eight),
            CardKey::des(doubled),
        ),
        (
            "0A 2K3DES",
            AuthScheme::Legacy,
            two.clone(),
            CardKey::des(sixteen),
        ),
        (
            "1A DES",
            AuthScheme::Iso,
            Key::des(eight),
            CardKey::des(doubled),
        ),
        ("1A 2K3DES", AuthScheme::Iso, two, CardKey::des(sixteen)),
        (
            "1A 3K3DES",
            AuthScheme::Iso,
            Key::three_key_3des(twenty_four),
            CardKey::three_key_3des(twenty_four),
        ),
        (
            "AA AES",
            AuthScheme::Aes,
            Key::aes(sixteen),
            CardKey::aes(sixteen, 0),
        ),
    ] {
        let machine = || {
            Session::new().authenticate_with_fixed_nonce_for_testing_only(
                scheme,
                KeyNo::MASTER,
                &key,
                NONCE,
            )
        };
        let mut card = Card::new(Uid([4, 1, 2, 3, 4, 5, 6]));
        card.state_mut().set_picc_key(on_card);
        card.activate();
        let mut replies = Vec::new();
        play(machine(), |command| {
            let reply = card.handle(command);
            replies.push(reply.clone());
            reply
        });
        let [challenge, proof] = replies.try_into().expect("two frames");
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                let mut machine = machine();
                machine.start(LinkFormat::NATIVE).expect("it starts");
                machine.step(&challenge).expect("a challenge");
                assert!(matches!(machine.step(&proof), Ok(Step::Done(_))));
            });
        });
    }
    by_iso7816(&mut group);
    group.finish();
}

/// Gives the same nonce every time, so that the replies stay right.
struct SameNonce;

impl rand_core::TryRng for SameNonce {
    type Error = core::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        Ok(7)
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        Ok(7)
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), Self::Error> {
        out.fill(7);
        Ok(())
    }
}

impl rand_core::TryCryptoRng for SameNonce {}

/// GET CHALLENGE, EXTERNAL and INTERNAL AUTHENTICATE.
fn by_iso7816(group: &mut criterion::BenchmarkGroup<'_, criterion::measurement::WallTime>) {
    let mut reader = VirtualReader::demo();
    let key = Key::aes([0; 16]);
    let selection = Session::new().select_application(VirtualReader::DEMO_AID);
    selection.run(&mut reader).expect("it is there");
    let machine = || {
        Session::at_level(VirtualReader::DEMO_AID).authenticate_iso7816(
            KeyNo::MASTER,
            &key,
            &mut SameNonce,
        )
    };
    let mut replies = Vec::new();
    play(machine(), |command| {
        let reply = reader.handle(command);
        replies.push(reply.clone());
        reply
    });
    group.bench_function("ISO 7816-4 AES", |bencher| {
        bencher.iter(|| {
            let mut replies = replies.iter();
            play(machine(), |_| replies.next().expect("as many").clone())
        });
    });
}

fn messaging(criterion: &mut Criterion) {
    for scheme in &schemes() {
        for (direction, verb) in [(Direction::Seal, "seal"), (Direction::Open, "open")] {
            let mut group = criterion.benchmark_group(format!("{verb} {}", scheme.name));
            for len in LENGTHS {
                group.throughput(Throughput::Bytes(len as u64));
                for mode in [CommMode::Plain, CommMode::Mac, CommMode::Enciphered] {
                    let mut work = scheme.library(direction, mode, len);
                    let id = BenchmarkId::new(mode.to_string(), len);
                    group.bench_function(id, |bencher| bencher.iter(&mut work));
                }
            }
            group.finish();
        }
    }
}

/// Selection, handshake, balance, debit, commit, both sides in one process.
fn tap(reader: &mut VirtualReader) -> i32 {
    let purse = FileNo::new(2).expect("a file number");
    let session = play(
        Session::new().select_application(VirtualReader::DEMO_AID),
        |command| reader.handle(command),
    );
    let key = Key::aes([0; 16]);
    let handshake = session.authenticate_with_fixed_nonce_for_testing_only(
        AuthScheme::Aes,
        KeyNo::MASTER,
        &key,
        NONCE,
    );
    let mut session = play(handshake, |command| reader.handle(command));
    let balance = play(session.get_value(purse), |command| reader.handle(command));
    let amount = Amount::new(250).expect("an amount");
    play(session.debit(purse, amount), |command| {
        reader.handle(command)
    });
    play(session.commit_transaction(), |command| {
        reader.handle(command)
    });
    balance
}

fn taps(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("tap");
    group.bench_function("library and software card", |bencher| {
        bencher.iter_batched_ref(VirtualReader::demo, tap, BatchSize::SmallInput);
    });
    group.finish();
}

fn software_card(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("software card");
    let mut reader = VirtualReader::demo();
    let mut select = vec![0x5A];
    select.extend(VirtualReader::DEMO_AID.to_bytes());
    for (name, commands) in [
        ("SelectApplication", vec![select.clone()]),
        (
            "GetVersion, 3 frames",
            vec![vec![0x60], vec![0xAF], vec![0xAF]],
        ),
        (
            "first frame of AuthenticateAES",
            vec![select, vec![0xAA, 0]],
        ),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                for command in &commands {
                    assert!(!reader.handle(command).is_empty());
                }
            });
        });
        // Nothing is left unfinished for the next.
        reader.card_mut().field_off();
        reader.card_mut().activate();
    }
    group.finish();
}

criterion_group! {
    name = benches;
    // A hundred of them: criterion's own 8 s for each would be a quarter of an hour, without the drawing.
    config = Criterion::default()
        .warm_up_time(Duration::from_millis(500))
        .measurement_time(Duration::from_millis(1500));
    targets = handshake, messaging, taps, software_card
}
criterion_main!(benches);
