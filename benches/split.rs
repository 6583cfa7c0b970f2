//! Split authentication at the key holder: from the challenge's message to the answer's, per mode,
//! and what the block ciphers under the card's key cost by themselves. The calls and bytes of a tap
//! are printed first.
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]
#![allow(
    clippy::unwrap_used,
    reason = "a bench whose preparation fails has nothing to measure"
)]

use criterion::{Criterion, criterion_group, criterion_main};
use desfire_ev1::split::{
    Accepted, Answered, CbcDirection, CbcKey, Finished, Freshness, Grant, Intent, KnownTerminal,
    Mode, Modes, Refusal, ReplayGuard, SoftKey, Tap, TerminalId, TransportKey, TransportKeyId,
    TransportKeys, Waiting,
};
use desfire_ev1::wire::{Amount, AuthScheme, FileNo, InlineBytes, KeyNo, KeyType};
use desfire_ev1::{Authenticated, Key, Machine, Session, VirtualReader};

/// The same challenge is answered again and again.
struct NoGuard;

impl ReplayGuard for NoGuard {
    fn accept(&mut self, _: &TerminalId, _: &Freshness) -> Result<(), Refusal> {
        Ok(())
    }
}

fn transport() -> TransportKey {
    TransportKey::new(*b"transport key 07")
}

fn waiting(mode: Mode, reader: &mut VirtualReader) -> Waiting {
    let intent = Intent {
        mode,
        scheme: AuthScheme::Aes,
        key_type: KeyType::Aes,
        key_no: KeyNo::MASTER,
        uid: None,
        terminal: TerminalId::new(b"till 7").unwrap(),
        transport: TransportKeyId::Preshared(1),
        freshness: Freshness::Counter(1),
        purpose: InlineBytes::new(b"one coffee").unwrap(),
    };
    let session = Session::new().select_application(VirtualReader::DEMO_AID);
    let session = session.run(reader).unwrap();
    Tap::new(session, intent, &transport()).run(reader).unwrap()
}

fn grant() -> Grant {
    Grant {
        aid: VirtualReader::DEMO_AID,
        key_no: KeyNo::MASTER,
        scheme: AuthScheme::Aes,
        modes: Modes::all(),
    }
}

fn answer(message: &[u8]) -> Answered {
    let (key, grants) = (transport(), [grant()]);
    let till = KnownTerminal {
        id: TerminalId::new(b"till 7").unwrap(),
        transport: TransportKeys::One {
            id: TransportKeyId::Preshared(1),
            key: &key,
        },
        grants: &grants,
    };
    let accepted = Accepted::check(message, &till, &mut NoGuard).unwrap();
    let mut key = SoftKey::new(&Key::aes([0; 16]));
    accepted.answer(&mut key, &mut getrandom::SysRng).unwrap()
}

/// Debit, record, commit, and the value afterwards.
fn pay<'b>(answered: Answered, script: &'b mut [u8], record: &'b mut [u8]) -> Finished<'b> {
    let (mut session, mut builder) = answered.script(script, record).unwrap();
    let demo = VirtualReader::demo();
    state(&mut session, &demo);
    let (purse, log) = (FileNo::new(2).unwrap(), FileNo::new(4).unwrap());
    builder
        .send(session.debit(purse, Amount::new(250).unwrap()))
        .unwrap();
    builder
        .send(session.write_record(log, 0, b"coffee"))
        .unwrap();
    builder.send(session.commit_transaction()).unwrap();
    builder
        .expect(session.get_value(purse), &750_i32.to_le_bytes())
        .unwrap();
    builder.finish().unwrap()
}

fn state(session: &mut Session<Authenticated>, demo: &VirtualReader) {
    let application = demo.card().state().application(VirtualReader::DEMO_AID);
    for file in application.unwrap().files() {
        session.assume_file_settings(file.number(), &file.settings());
    }
}

fn modes(criterion: &mut Criterion) {
    let mut reader = VirtualReader::demo();
    let mut group = criterion.benchmark_group("challenge to answer, AES");

    let challenge = waiting(Mode::CardLocked, &mut reader).message().unwrap();
    let len = answer(&challenge).card_locked().unwrap().len();
    println!(
        "card-locked: 1 call, {} bytes up, {len} down",
        challenge.len()
    );
    group.bench_function("card-locked", |bencher| {
        bencher.iter(|| answer(&challenge).card_locked().unwrap());
    });

    let mut reader = VirtualReader::demo();
    let tap = waiting(Mode::Proven, &mut reader);
    let challenge = tap.message().unwrap();
    let (token, mut pending) = answer(&challenge).proven(0).unwrap();
    let proven = tap.proven(&token).unwrap().run(&mut reader).unwrap();
    let proof = proven.message().unwrap();
    let release = pending.release(&proof, 0).unwrap();
    let (up, down) = (challenge.len() + proof.len(), token.len() + release.len());
    println!("proven: 2 calls, {up} bytes up, {down} down");
    group.bench_function("proven, first call", |bencher| {
        bencher.iter(|| answer(&challenge).proven(0).unwrap());
    });

    let mut reader = VirtualReader::demo();
    let tap = waiting(Mode::Script, &mut reader);
    let challenge = tap.message().unwrap();
    let (mut script, mut record) = ([0; 1024], [0; 1024]);
    let finished = pay(answer(&challenge), &mut script, &mut record);
    let mut receipt = [0; 512];
    let mut player = tap.script(finished.script, &mut receipt).unwrap();
    player.play(&mut reader).unwrap();
    let receipt = player.into_receipt().unwrap();
    println!(
        "script of 4 commands: 1 call, {} bytes up, {} down; receipt of {} bytes after the tap",
        challenge.len(),
        finished.script.len(),
        receipt.len()
    );
    group.bench_function("verdict on the script's receipt", |bencher| {
        bencher.iter(|| finished.record.judge(receipt, &transport()).unwrap());
    });
    let (mut script, mut record) = ([0; 1024], [0; 1024]);
    group.bench_function("script of 4 commands", |bencher| {
        bencher.iter(|| {
            pay(answer(&challenge), &mut script, &mut record)
                .script
                .len()
        });
    });

    // What no design can do without: the calls under the card's key.
    let mut key = SoftKey::new(&Key::aes([0; 16]));
    group.bench_function("the block ciphers under the card key alone", |bencher| {
        bencher.iter(|| {
            let (mut one, mut three) = ([1; 16], [2; 48]);
            key.cbc(CbcDirection::Decrypt, &[0; 16], &mut one).unwrap();
            key.cbc(CbcDirection::Encrypt, &one, &mut three).unwrap();
            three
        });
    });
    group.finish();
}

criterion_group!(benches, modes);
criterion_main!(benches);
