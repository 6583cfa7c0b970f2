//! Scripts: everything that goes into one, what becomes of it when it is torn or refused, and what
//! the key holder may conclude from a receipt.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/split.rs"]
mod support;

use desfire_ev1::command::RawMode;
use desfire_ev1::picc::FileContent;
use desfire_ev1::split::{
    Effect, Ending, Finished, Judgement, Mode, Record, Refusal, Replay, ReplayError, ScriptBuilder,
    Stop, StorageKey, Verdict, Waiting,
};
use desfire_ev1::wire::{
    AccessRights, Amount, AuthScheme, CommMode, CommandCode, FileDetail, FileNo, FileSettings,
    Framing, KeyNo, KeyType, Status, U24, ValueFlags,
};
use desfire_ev1::{
    Authenticated, Key, Link as _, LinkFormat, Machine, Outcome, Session, Transport as _,
    VirtualReader,
};
use proptest::prelude::*;
use support::*;

fn file(number: u8) -> FileNo {
    FileNo::new(number).unwrap()
}

fn amount(value: i32) -> Amount {
    Amount::new(value).unwrap()
}

/// A script, made and ready to be played.
struct Made {
    script: Vec<u8>,
    record: Vec<u8>,
    waiting: Waiting,
}

const STORAGE: [u8; 16] = *b"the holder's own";

fn make(
    counter: &mut Counter,
    write: impl FnOnce(&mut Session<Authenticated>, &mut ScriptBuilder<'_>),
) -> Made {
    make_with(counter, Key::aes([0; 16]), AuthScheme::Aes, write)
}

fn make_with(
    counter: &mut Counter,
    key: Key,
    scheme: AuthScheme,
    write: impl FnOnce(&mut Session<Authenticated>, &mut ScriptBuilder<'_>),
) -> Made {
    let mut shop = Shop::new(key);
    let waiting = counter.tap(intent(Mode::Script, scheme, shop.key.key_type(), 1));
    let (mut script, mut record) = ([0; 4096], [0; 4096]);
    let answered = shop.answer(&waiting.message().unwrap());
    let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
    state_settings(&mut session, counter.card());
    write(&mut session, &mut builder);
    let Finished { script, record } = builder.finish().unwrap();
    let mut sealed = vec![0; record.sealed_len()];
    let len = record.seal(&StorageKey::new(STORAGE), &mut sealed).unwrap();
    assert_eq!(len, sealed.len());
    Made {
        script: script.to_vec(),
        record: sealed,
        waiting,
    }
}

/// The holder has been restarted in between.
fn judge(record: &[u8], receipt: &[u8]) -> Judgement {
    let mut buffer = vec![0; record.len()];
    let record = Record::unseal(record, &StorageKey::new(STORAGE), &mut buffer).unwrap();
    record.judge(receipt, &transport_key()).unwrap()
}

fn play(made: Made, counter: &mut Counter) -> (Ending, Vec<u8>, Vec<u8>) {
    let mut receipt = vec![0; 2048];
    let mut player = made.waiting.script(&made.script, &mut receipt).unwrap();
    let _ = player.play(counter);
    let ending = player.ending();
    (ending, player.into_receipt().unwrap().to_vec(), made.record)
}

#[test]
fn key_change_and_file_creation() {
    let mut counter = Counter::demo();
    let (old, new) = (Key::aes([0; 16]), Key::aes([0x42; 16]).with_version(3));
    let rights = AccessRights::from_bytes([0x00, 0x00]);
    let made = make(&mut counter, |session, script| {
        script
            .send(session.change_key(KeyNo::new(1).unwrap(), &old, &new))
            .unwrap();
        script
            .send(session.create_value_file(
                file(9),
                CommMode::Enciphered,
                rights,
                0..=1000,
                10,
                ValueFlags::empty(),
            ))
            .unwrap();
        script
            .send(session.create_std_data_file(
                file(10),
                None,
                CommMode::Mac,
                rights,
                U24::new(64).unwrap(),
            ))
            .unwrap();
        let size = U24::new(64).unwrap();
        session.assume_file_settings(
            file(10),
            &FileSettings {
                comm: CommMode::Mac.into(),
                rights,
                detail: FileDetail::StandardData { size },
            },
        );
        script
            .send(session.write_data(file(10), 0, &[7; 64]))
            .unwrap();
        script
            .send(session.change_file_settings(file(0), CommMode::Enciphered, rights))
            .unwrap();
        let version = script.expect(session.get_key_version(KeyNo::new(1).unwrap()), &[3]);
        assert_eq!(version.unwrap(), 3);
    });
    let (ending, receipt, record) = play(made, &mut counter);
    assert_eq!((ending.stop, ending.effect), (Stop::Complete, Effect::Done));
    assert_eq!(judge(&record, &receipt).verdict, Verdict::Done);
    let session = counter.selected();
    let mut session = session
        .authenticate_aes(KeyNo::new(1).unwrap(), &new, &mut getrandom::SysRng)
        .run(&mut counter)
        .unwrap();
    let settings = session
        .get_file_settings(file(10))
        .run(&mut counter)
        .unwrap();
    assert_eq!(settings.comm.mode(), CommMode::Mac);
}

/// The card's answer to a change of the key in use proves nothing: only the next tap does.
#[test]
fn the_key_in_use_comes_last_and_stays_unknown() {
    let mut counter = Counter::demo();
    let new = Key::aes([0x42; 16]).with_version(3);
    let mut shop = Shop::new(Key::aes([0; 16]));
    let waiting = counter.tap(aes(Mode::Script, 1));
    let (mut script, mut record) = ([0; 1024], [0; 1024]);
    let answered = shop.answer(&waiting.message().unwrap());
    let (session, mut builder) = answered.script(&mut script, &mut record).unwrap();
    let mut after = builder.send(session.change_key_in_use(&new)).unwrap();
    // Nothing can follow.
    let error = builder.send(after.free_mem());
    assert!(matches!(error, Err(Refusal::Script(_))), "{error:?}");
    assert!(builder.finish().is_err());

    let (mut script, mut record) = ([0; 1024], [0; 1024]);
    let waiting = counter.tap(aes(Mode::Script, 2));
    let answered = shop.answer(&waiting.message().unwrap());
    let (session, mut builder) = answered.script(&mut script, &mut record).unwrap();
    let mut after = builder.send(session.change_key_in_use(&new)).unwrap();
    let error = builder.ask(after.free_mem());
    assert!(matches!(error, Err(Refusal::Script(_))), "{error:?}");
    assert!(builder.finish().is_err());

    let (mut script, mut record) = ([0; 1024], [0; 1024]);
    let waiting = counter.tap(aes(Mode::Script, 3));
    let answered = shop.answer(&waiting.message().unwrap());
    let (session, mut builder) = answered.script(&mut script, &mut record).unwrap();
    builder.send(session.change_key_in_use(&new)).unwrap();
    let Finished { script, record } = builder.finish().unwrap();
    let mut receipt = [0; 256];
    let mut player = waiting.script(script, &mut receipt).unwrap();
    let ending = player.play(&mut counter).unwrap();
    assert_eq!(
        (ending.stop, ending.effect),
        (Stop::Complete, Effect::Possible)
    );
    let receipt = player.into_receipt().unwrap();
    let judgement = record.judge(receipt, &transport_key()).unwrap();
    assert_eq!(judgement.verdict, Verdict::Unknown);
    let session = counter.selected();
    let session = session.authenticate_aes(KeyNo::MASTER, &new, &mut getrandom::SysRng);
    assert!(session.run(&mut counter).is_ok());
}

#[test]
fn reads_of_unknown_data_are_opened_by_the_holder() {
    let mut counter = Counter::demo();
    let mut first = [0; 32];
    let mut second = [0; 8];
    let made = make(&mut counter, |session, script| {
        script.send(session.debit(file(2), amount(100))).unwrap();
        script.send(session.commit_transaction()).unwrap();
        script.ask(session.get_value(file(2))).unwrap();
        script
            .ask(session.read_data(file(1), 0..32, &mut first))
            .unwrap();
        script
            .ask(session.read_data(file(0), 4..12, &mut second))
            .unwrap();
    });
    let (ending, receipt, record) = play(made, &mut counter);
    assert_eq!(
        (ending.stop, ending.effect, ending.commands),
        (Stop::Complete, Effect::Done, 5)
    );
    let judgement = judge(&record, &receipt);
    assert_eq!(
        (judgement.verdict, judgement.known, judgement.unknown),
        (Verdict::Done, 2, 3)
    );

    let mut buffer = vec![0; record.len()];
    let record = Record::unseal(&record, &StorageKey::new(STORAGE), &mut buffer).unwrap();
    let (mut session, mut replay) = record.replay(&receipt, &transport_key()).unwrap();
    state_settings(&mut session, counter.card());
    assert_eq!(session.get_value(file(2)).run(&mut replay).unwrap(), 900);
    session
        .read_data(file(1), 0..32, &mut first)
        .run(&mut replay)
        .unwrap();
    session
        .read_data(file(0), 4..12, &mut second)
        .run(&mut replay)
        .unwrap();
    assert!(session.free_mem().run(&mut replay).is_err());

    // Another command than the script's, and a reply that was changed.
    let (mut session, mut replay) = record.replay(&receipt, &transport_key()).unwrap();
    assert!(session.free_mem().run(&mut replay).is_err());
}

/// A read of unknown data in many frames, and of a length that is not known either.
#[test]
fn long_unknown_reads() {
    let mut counter = Counter::demo();
    let rights = AccessRights::from_bytes([0x00, 0x00]);
    let zero = Key::aes([0; 16]);
    let session = counter.selected();
    let session = session.authenticate_aes(KeyNo::MASTER, &zero, &mut getrandom::SysRng);
    let mut session = session.run(&mut counter).unwrap();
    let size = U24::new(700).unwrap();
    let content: Vec<u8> = (0..700_u32)
        .map(|byte| u8::try_from(byte % 251).unwrap())
        .collect();
    for (number, mode) in [
        (10, CommMode::Plain),
        (11, CommMode::Mac),
        (12, CommMode::Enciphered),
    ] {
        let create = session.create_std_data_file(file(number), None, mode, rights, size);
        create.run(&mut counter).unwrap();
        session
            .write_data(file(number), 0, &content)
            .run(&mut counter)
            .unwrap();
    }
    let mut buffers = [[0; 700]; 3];
    let made = make(&mut counter, |session, script| {
        for (number, buffer) in (10..).zip(&mut buffers) {
            script
                .ask(session.read_data(file(number), 0..700, buffer))
                .unwrap();
        }
    });
    let mut receipt = vec![0; 4096];
    let mut player = made.waiting.script(&made.script, &mut receipt).unwrap();
    let ending = player.play(&mut counter).unwrap();
    assert_eq!((ending.stop, ending.effect), (Stop::Complete, Effect::None));
    let receipt = player.into_receipt().unwrap();
    let mut buffer = vec![0; made.record.len()];
    let record = Record::unseal(&made.record, &StorageKey::new(STORAGE), &mut buffer).unwrap();
    let (mut session, mut replay) = record.replay(receipt, &transport_key()).unwrap();
    state_settings(&mut session, counter.card());
    for (number, buffer) in (10..).zip(&mut buffers) {
        session
            .read_data(file(number), 0..700, buffer)
            .run(&mut replay)
            .unwrap();
        assert_eq!(buffer[..], content);
    }
}

/// Whatever bytes come, nobody panics, and nothing of it is taken.
#[test]
fn any_bytes() {
    let mut runner = proptest::test_runner::TestRunner::default();
    let bytes = proptest::collection::vec(any::<u8>(), 0..300);
    runner
        .run(&(bytes, 0..10_u8), |(mut bytes, kind)| {
            if bytes.len() > 2 && kind > 0 {
                (bytes[0], bytes[1]) = (1, kind);
            }
            prop_assert!(Shop::new(Key::aes([0; 16])).accept(&bytes).is_err());
            let mut counter = Counter::demo();
            for mode in [Mode::CardLocked, Mode::Proven, Mode::Script] {
                let waiting = counter.tap(aes(mode, 1));
                let mut receipt = [0; 256];
                match mode {
                    Mode::CardLocked => prop_assert!(waiting.card_locked(&bytes).is_err()),
                    Mode::Proven => prop_assert!(waiting.proven(&bytes).is_err()),
                    _ => prop_assert!(waiting.script(&bytes, &mut receipt).is_err()),
                }
            }
            let mut buffer = vec![0; bytes.len()];
            prop_assert!(Record::unseal(&bytes, &StorageKey::new(STORAGE), &mut buffer).is_err());
            Ok(())
        })
        .unwrap();
}

#[test]
fn what_does_not_go_into_a_script() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let mut attempt =
        |number: u64,
         write: &dyn Fn(&mut Session<Authenticated>, &mut ScriptBuilder<'_>) -> bool| {
            let waiting = counter.tap(aes(Mode::Script, number));
            let (mut script, mut record) = ([0; 512], [0; 512]);
            let answered = shop.answer(&waiting.message().unwrap());
            let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
            let refused = write(&mut session, &mut builder);
            (refused, builder.finish().is_err())
        };
    let card = VirtualReader::demo().into_card();
    // Settings unknown.
    let result = attempt(1, &|session, script| {
        script.send(session.debit(file(2), amount(1))).is_err()
    });
    assert_eq!(result, (true, true));
    // A debit and no commit.
    let result = attempt(2, &|session, script| {
        state_settings(session, &card);
        script.send(session.debit(file(2), amount(1))).is_err()
    });
    assert_eq!(result, (false, true));
    // Data that cannot be this command's answer.
    let result = attempt(3, &|session, script| {
        state_settings(session, &card);
        script
            .expect(session.get_value(file(2)), &[1, 2, 3])
            .is_err()
    });
    assert_eq!(result, (true, true));
    // A change after an unknown read; asking for a change.
    let result = attempt(4, &|session, script| {
        state_settings(session, &card);
        script.ask(session.get_value(file(2))).unwrap();
        script.send(session.commit_transaction()).is_err()
    });
    assert_eq!(result, (true, true));
    let result = attempt(5, &|session, script| {
        state_settings(session, &card);
        script.ask(session.debit(file(2), amount(1))).is_err()
    });
    assert_eq!(result, (true, true));
    // Nothing.
    assert_eq!(attempt(6, &|_, _| false), (false, true));
    // An unauthenticated session's command, and one of another session.
    let result = attempt(7, &|_, script| {
        script.send(Session::new().free_mem()).is_err()
    });
    assert_eq!(result, (true, true));
    // A commit is no change by itself, and no read either.
    let result = attempt(8, &|session, script| {
        script.ask(session.commit_transaction()).is_err()
    });
    assert_eq!(result, (true, true));
    // A read whose request carries a MAC would move the card's chain by what nobody has looked at.
    let result = attempt(9, &|session, script| {
        let mode = RawMode {
            request: CommMode::Mac,
            reply: CommMode::Mac,
            reply_len: None,
        };
        let mut buffer = [0; 8];
        let read = session.raw(CommandCode::GetKeySettings, &[], &[1], &mut buffer, mode);
        script.ask(read).is_err()
    });
    assert_eq!(result, (true, true));
    // A buffer that is too small.
    let result = attempt(10, &|session, script| {
        let data = [0; 600];
        script
            .send(
                session
                    .write_data(file(0), 0, &data)
                    .comm_mode(CommMode::Plain),
            )
            .is_err()
    });
    assert_eq!(result, (true, true));
}

/// 512 bytes of known data, whatever protects them, and no more.
#[test]
fn known_data_have_a_limit() {
    for (number, mode) in [
        (1, CommMode::Plain),
        (2, CommMode::Mac),
        (3, CommMode::Enciphered),
    ] {
        for (len, fits) in [(511, true), (512, true), (513, false)] {
            let mut counter = Counter::demo();
            let mut shop = Shop::new(Key::aes([0; 16]));
            let waiting = counter.tap(aes(Mode::Script, number));
            let (mut script, mut record) = ([0; 128], [0; 1024]);
            let answered = shop.answer(&waiting.message().unwrap());
            let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
            let mut buffer = [0; 600];
            let read = session
                .read_data(file(1), 0..len as u32, &mut buffer)
                .comm_mode(mode);
            let result = builder.expect(read, &vec![7; len]);
            assert_eq!(result.is_ok(), fits, "{mode:?} {len}: {result:?}");
            assert_eq!(builder.finish().is_ok(), fits, "{mode:?} {len}");
        }
    }
}

#[test]
fn a_session_that_ran_on_is_not_the_scripts() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let (mut script, mut record) = ([0; 512], [0; 512]);
    let (mut script2, mut record2) = ([0; 512], [0; 512]);
    let waiting = counter.tap(aes(Mode::Script, 1));
    let answered = shop.answer(&waiting.message().unwrap());
    let (mut session, mut one) = answered.script(&mut script, &mut record).unwrap();
    let waiting = counter.tap(aes(Mode::Script, 2));
    let answered = shop.answer(&waiting.message().unwrap());
    let (_, mut other) = answered.script(&mut script2, &mut record2).unwrap();
    one.expect(session.get_key_version(KeyNo::MASTER), &[0])
        .unwrap();
    let error = other.expect(session.get_key_version(KeyNo::MASTER), &[0]);
    assert!(matches!(error, Err(Refusal::Script(_))));
}

/// Torn at every frame: the terminal says whether the commit may have happened, and the holder
/// neither says "done" without proof nor "not done" of something that is done.
#[test]
fn torn_at_every_frame() {
    let write = |session: &mut Session<Authenticated>, script: &mut ScriptBuilder<'_>| {
        script.send(session.debit(file(2), amount(250))).unwrap();
        script
            .send(session.write_record(file(4), 0, b"coffee"))
            .unwrap();
        script
            .send(session.write_data(file(1), 0, &[5; 32]))
            .unwrap();
        script.send(session.commit_transaction()).unwrap();
        script
            .expect(session.get_value(file(2)), &750_i32.to_le_bytes())
            .unwrap();
    };
    let mut counter = Counter::demo();
    let made = make(&mut counter, write);
    let before = counter.frames.len();
    let (whole, ..) = play(made, &mut counter);
    assert_eq!(whole.frames, counter.frames.len() - before);
    // Token, debit, record, two frames of data... the commit is the last but one.
    let commit = whole.frames - 2;
    for torn in 0..whole.frames {
        let mut counter = Counter::demo();
        let made = make(&mut counter, write);
        counter.torn_at = Some(counter.frames.len() + torn);
        let (ending, receipt, record) = play(made, &mut counter);
        assert_eq!((ending.stop, ending.frames), (Stop::Unanswered, torn + 1));
        let verdict = judge(&record, &receipt).verdict;
        let debited = counter.card().state() != VirtualReader::demo().card().state();
        assert_eq!(debited, torn >= commit);
        let expected = match torn {
            // Nothing but the token has left.
            0 => (Effect::None, Verdict::Unknown),
            // Anybody on the link can commit what is pending.
            _ if torn <= commit => (Effect::Possible, Verdict::Unknown),
            _ => (Effect::Done, Verdict::Done),
        };
        assert_eq!((ending.effect, verdict), expected, "{torn}");
    }
}

/// CommitTransaction carries no MAC: whoever is on the link keeps the reply to a change back and sends
/// one. The terminal must not say that nothing has happened.
#[test]
fn a_commit_of_somebody_else() {
    let mut counter = Counter::demo();
    let made = make(&mut counter, |session, script| {
        script.send(session.debit(file(2), amount(250))).unwrap();
        script.send(session.commit_transaction()).unwrap();
    });
    counter.torn_at = Some(counter.frames.len() + 1);
    let mut receipt = [0; 512];
    let mut player = made.waiting.script(&made.script, &mut receipt).unwrap();
    let error = player.play(&mut counter).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    let ending = player.ending();
    assert_eq!(
        (ending.stop, ending.effect, ending.frames),
        (Stop::Unanswered, Effect::Possible, 2)
    );
    let before = counter.card().state().clone();
    counter.torn_at = None;
    let commit: &[u8] = match counter.format().framing {
        Framing::Native => &[0xC7],
        Framing::Wrapped => &[0x90, 0xC7, 0, 0, 0],
    };
    counter.exchange(commit, &mut [0; 64]).unwrap();
    assert_ne!(*counter.card().state(), before);
}

#[test]
fn a_refused_script() {
    let mut counter = Counter::demo();
    let made = make(&mut counter, |session, script| {
        script
            .send(session.write_record(file(4), 0, b"coffee"))
            .unwrap();
        // There are 1000.
        script.send(session.debit(file(2), amount(2000))).unwrap();
        script.send(session.commit_transaction()).unwrap();
    });
    let (ending, receipt, record) = play(made, &mut counter);
    assert_eq!(ending.stop, Stop::Refused(Status::BoundaryError));
    assert_eq!(
        (ending.effect, ending.commands, ending.frames),
        (Effect::Possible, 1, 3)
    );
    // An error status is no proof.
    let judgement = judge(&record, &receipt);
    assert_eq!((judgement.verdict, judgement.proved), (Verdict::Unknown, 1));
    assert_eq!(counter.card().state(), VirtualReader::demo().card().state());
}

/// The value is another than the shop thought: the terminal stops, the holder can prove it.
#[test]
fn a_proved_deviation() {
    type Write = fn(&mut Session<Authenticated>, &mut ScriptBuilder<'_>);
    let stale: Write = |session, script| {
        script
            .expect(session.get_value(file(2)), &999_i32.to_le_bytes())
            .unwrap();
        script.send(session.debit(file(2), amount(250))).unwrap();
        script.send(session.commit_transaction()).unwrap();
    };
    // The same with a change in clear after it, and with one before it.
    let in_clear: Write = |session, script| {
        script
            .expect(session.get_value(file(2)), &999_i32.to_le_bytes())
            .unwrap();
        script
            .send(session.write_data(file(0), 0, b"plain"))
            .unwrap();
        script.send(session.debit(file(2), amount(250))).unwrap();
        script.send(session.commit_transaction()).unwrap();
    };
    let before: Write = |session, script| {
        script.send(session.debit(file(2), amount(250))).unwrap();
        script
            .expect(session.read_data(file(1), 0..4, &mut [0; 4]), b"abcd")
            .unwrap();
        script.send(session.commit_transaction()).unwrap();
    };
    for (write, effect, verdict, at) in [
        (stale, Effect::None, Verdict::NotDone, 0),
        (in_clear, Effect::None, Verdict::Unknown, 0),
        (before, Effect::Possible, Verdict::Unknown, 1),
    ] {
        let mut counter = Counter::demo();
        let made = make(&mut counter, write);
        let (ending, receipt, record) = play(made, &mut counter);
        assert_eq!((ending.stop, ending.effect), (Stop::NotAsExpected, effect));
        let judgement = judge(&record, &receipt);
        assert_eq!(
            (judgement.verdict, judgement.deviation),
            (verdict, Some(at))
        );
        assert_eq!(counter.card().state(), VirtualReader::demo().card().state());
    }
}

/// Whether a command can stand in a script at all. The mode of a write does not tell whether it waits
/// for a commit, and an abort would undo what counts as done.
#[test]
fn what_cannot_be_judged_is_not_put_in() {
    type Write = fn(&mut Session<Authenticated>, &mut ScriptBuilder<'_>) -> Option<Refusal>;
    let mode_only: Write = |session, script| {
        let write = session.write_data(file(10), 0, &[7; 64]);
        script.send(write.comm_mode(CommMode::Mac)).err()
    };
    let abort: Write = |session, script| {
        script.send(session.debit(file(2), amount(250))).unwrap();
        script.send(session.abort_transaction()).err()
    };
    for write in [mode_only, abort] {
        let mut counter = Counter::demo();
        let mut shop = Shop::new(Key::aes([0; 16]));
        let waiting = counter.tap(intent(Mode::Script, AuthScheme::Aes, KeyType::Aes, 1));
        let (mut script, mut record) = ([0; 4096], [0; 4096]);
        let answered = shop.answer(&waiting.message().unwrap());
        let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
        state_settings(&mut session, counter.card());
        let refusal = write(&mut session, &mut builder);
        assert!(matches!(refusal, Some(Refusal::Script(_))), "{refusal:?}");
        assert!(builder.finish().is_err());
    }
}

/// Several enciphered blocks can be spliced until their CRC fits, by who knows what they hold; so can one
/// block that is all data and CRC be guessed at. So they prove no deviation. One AES block of which half is CRC
/// and padding does, and so does a MAC, however long the data are.
#[test]
fn what_proves_nothing_is_not_taken_for_proof() {
    let rights = AccessRights::from_bytes([0x00, 0x00]);
    let two = Key::two_key_3des(*b"one half another").unwrap();
    let aes = || (Key::aes(*b"an AES-128 key.."), AuthScheme::Aes);
    let des = || (two.clone(), AuthScheme::Iso);
    let (enciphered, mac) = (CommMode::Enciphered, CommMode::Mac);
    for ((key, scheme), mode, len, proved) in [
        (aes(), enciphered, 1, true),
        (aes(), enciphered, 8, true),
        (aes(), enciphered, 9, false),
        (aes(), enciphered, 12, false),
        (aes(), enciphered, 32, false),
        (des(), enciphered, 4, false),
        (des(), enciphered, 8, false),
        (aes(), mac, 1, true),
        (aes(), mac, 512, true),
        (des(), mac, 512, true),
    ] {
        let what = format!("{scheme} {mode:?} {len}");
        let mut counter = Counter::new(VirtualReader::new(card_with(&key)));
        let session = counter.selected();
        let session = session.authenticate(scheme, KeyNo::MASTER, &key, &mut getrandom::SysRng);
        let mut session = session.run(&mut counter).unwrap();
        let size = U24::new(512).unwrap();
        let create = session.create_std_data_file(file(10), None, mode, rights, size);
        create.run(&mut counter).unwrap();
        let made = make_with(&mut counter, key, scheme, |session, script| {
            let mut buffer = vec![0; len];
            let read = session.read_data(file(10), 0..len as u32, &mut buffer);
            script.expect(read, &vec![1; len]).unwrap();
            script.send(session.debit(file(2), amount(250))).unwrap();
            script.send(session.commit_transaction()).unwrap();
        });
        let (ending, receipt, record) = play(made, &mut counter);
        assert_eq!(ending.stop, Stop::NotAsExpected, "{what}");
        let judgement = judge(&record, &receipt);
        let expected = if proved {
            (Verdict::NotDone, Some(0))
        } else {
            (Verdict::Unknown, None)
        };
        let judged = (judgement.verdict, judgement.deviation);
        assert_eq!(judged, expected, "{what}");
    }
}

/// A script that only reads: done when all is read, and otherwise nobody can say that it will not be.
#[test]
fn reads_alone() {
    for torn in 0..=2 {
        let mut counter = Counter::demo();
        let made = make(&mut counter, |session, script| {
            let version = session.get_key_version(KeyNo::MASTER);
            script.expect(version, &[0]).unwrap();
            let value = session.get_value(file(2));
            script.expect(value, &1000_i32.to_le_bytes()).unwrap();
        });
        counter.torn_at = Some(counter.frames.len() + 1 + torn);
        let (ending, receipt, record) = play(made, &mut counter);
        assert_eq!((ending.commands, ending.effect), (torn, Effect::None));
        let expected = if torn == 2 {
            Verdict::Done
        } else {
            Verdict::Unknown
        };
        assert_eq!(judge(&record, &receipt).verdict, expected, "{torn}");
    }
}

/// The replies of a receipt are the answers to the script's own commands, in their order, and to no others.
#[test]
fn a_replay_answers_its_own_commands() {
    let mut counter = Counter::demo();
    let made = make(&mut counter, |session, script| {
        let mut buffer = [0; 32];
        let read = session.read_data(file(1), 0..32, &mut buffer);
        script.ask(read).unwrap();
        script.ask(session.get_value(file(2))).unwrap();
    });
    let (_, receipt, record) = play(made, &mut counter);
    let mut buffer = vec![0; record.len()];
    let record = Record::unseal(&record, &StorageKey::new(STORAGE), &mut buffer).unwrap();
    let replay = || record.replay(&receipt, &transport_key()).unwrap();
    let read = [0xBD, 1, 0, 0, 0, 32, 0, 0];
    let other = Err(ReplayError::OtherCommand);
    for command in [
        &[0xAF][..],
        &[0xAF, 0],
        &[0x6C, 2],
        &read[..7],
        &[],
        &[0xBD, 1, 0, 0, 0, 31, 0, 0],
    ] {
        let (_, mut replay) = replay();
        assert_eq!(
            replay.exchange(command, &mut [0; 64]),
            other,
            "{command:02X?}"
        );
    }
    let (_, mut replay) = replay();
    let mut reply = [0; 64];
    assert_eq!(replay.exchange(&read, &mut reply), Ok(1 + 32 + 8));
    // There is no more of it.
    assert_eq!(replay.exchange(&[0xAF], &mut reply), other);

    // Async callers get the same.
    let (mut session, mut replay) = replay_with_settings(&record, &receipt, &counter);
    let mut data = [1; 32];
    pollster::block_on(async {
        let read = session.read_data(file(1), 0..32, &mut data);
        read.run_async(&mut replay).await.unwrap();
        let value = session.get_value(file(2)).run_async(&mut replay).await;
        assert_eq!(value.unwrap(), 1000);
    });
    assert_eq!(data, [0; 32]);
}

fn replay_with_settings<'r>(
    record: &'r Record<'_>,
    receipt: &'r [u8],
    counter: &Counter,
) -> (Session<Authenticated>, Replay<'r>) {
    let (mut session, replay) = record.replay(receipt, &transport_key()).unwrap();
    state_settings(&mut session, counter.card());
    (session, replay)
}

/// Only what came in the foreseen session is opened, and only where there is something to open.
#[test]
fn replies_that_are_not_opened() {
    for (version, asks, opens) in [(0, true, true), (1, true, false), (0, false, false)] {
        let mut counter = Counter::demo();
        let made = make(&mut counter, |session, script| {
            let known = session.get_key_version(KeyNo::MASTER);
            script.expect(known, &[version]).unwrap();
            if asks {
                script.ask(session.get_value(file(2))).unwrap();
            }
        });
        let (_, receipt, record) = play(made, &mut counter);
        let mut buffer = vec![0; record.len()];
        let record = Record::unseal(&record, &StorageKey::new(STORAGE), &mut buffer).unwrap();
        let replay = record.replay(&receipt, &transport_key());
        let refusal = replay.err();
        assert_eq!(refusal.is_none(), opens, "{version} {asks}");
        assert!(refusal.is_none() || refusal == Some(Refusal::NoReplies));
    }
}

/// The record holds the session key. Whatever ends a script too soon, nothing of it stays in the caller's
/// buffer.
#[test]
fn a_record_without_room_leaves_nothing_behind() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let mut number = 0;
    // Whether it was made in so much room; the record's buffer afterwards.
    let mut made = |record_room: usize, script_room: usize| {
        number += 1;
        let waiting = counter.tap(aes(Mode::Script, number));
        let answered = shop.answer(&waiting.message().unwrap());
        let (mut script, mut record) = (vec![0; script_room], vec![0xEE; record_room]);
        let made = (|| {
            let (mut session, mut builder) = answered.script(&mut script, &mut record)?;
            state_settings(&mut session, counter.card());
            builder.send(session.debit(file(2), amount(1)))?;
            builder.send(session.commit_transaction())?;
            builder.finish().map(|finished| drop(finished.record))
        })();
        assert!(record.iter().all(|byte| *byte == 0), "{record_room}");
        made
    };
    let needed = (0..1024).find(|room| made(*room, 1024).is_ok()).unwrap();
    assert!(needed > 150, "{needed}");
    for room in [0, 20, 60, 100] {
        assert_eq!(made(1024, room), Err(Refusal::BufferTooSmall), "{room}");
    }
    // Nor does one that is given up, or stored under another key.
    let waiting = counter.tap(aes(Mode::Script, 9999));
    let answered = shop.answer(&waiting.message().unwrap());
    let (mut script, mut record) = ([0; 512], [0xEE; 512]);
    drop(answered.script(&mut script, &mut record).unwrap());
    assert_eq!(record, [0; 512]);
    let sealed = make(&mut counter, |session, script| {
        script.ask(session.get_value(file(2))).unwrap();
    })
    .record;
    let mut buffer = vec![0xEE; sealed.len()];
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        buffer.fill(0xEE);
        let unsealed = Record::unseal(&changed, &StorageKey::new(STORAGE), &mut buffer);
        assert_eq!(unsealed.err(), Some(Refusal::Stored));
        assert!(buffer.iter().all(|byte| *byte == 0), "{at}");
    }
}

#[test]
fn a_receipt_without_room_is_refused_before_anything_is_sent() {
    let mut counter = Counter::demo();
    let made = make(&mut counter, |session, script| {
        script.ask(session.get_value(file(2))).unwrap();
    });
    let sent = counter.frames.len();
    for room in [0, 10, 50] {
        let mut receipt = vec![0; room];
        let mut counter2 = Counter::demo();
        let again = make(&mut counter2, |session, script| {
            script.ask(session.get_value(file(2))).unwrap();
        });
        assert!(again.waiting.script(&again.script, &mut receipt).is_err());
    }
    drop(made);
    assert_eq!(counter.frames.len(), sent);
}

#[test]
fn a_player_on_another_link_sends_nothing() {
    let mut counter = Counter::demo();
    let made = make(&mut counter, |session, script| {
        script.ask(session.get_value(file(2))).unwrap();
    });
    let mut receipt = [0; 256];
    let mut player = made.waiting.script(&made.script, &mut receipt).unwrap();
    let mut other = Counter::new(VirtualReader::demo().with_format(LinkFormat::NATIVE));
    assert!(player.play(&mut other).is_err());
    assert!(other.frames.is_empty());
    // Neither one with the same framing that takes less, nor one with another that takes as much.
    let narrow = LinkFormat {
        max_command: 30,
        ..LinkFormat::WRAPPED
    };
    let as_much = LinkFormat {
        // A wrapped command has six bytes around its parameters, a native one one.
        max_command: 60 - 6 + 1,
        ..LinkFormat::NATIVE
    };
    for format in [narrow, as_much] {
        let mut other = Counter::new(VirtualReader::demo().with_format(format));
        assert!(player.play(&mut other).is_err());
        assert!(other.frames.is_empty());
    }
    // It can be played, but only once.
    assert!(player.play(&mut counter).is_ok());
    assert!(player.play(&mut counter).is_err());
}

/// What is done is only part of it while a change is still to come: also while something is read in between.
#[test]
fn torn_between_two_changes() {
    let (old, new) = (Key::aes([0; 16]), Key::aes([0x42; 16]).with_version(3));
    let key_no = |number| KeyNo::new(number).unwrap();
    for torn in 0..=4 {
        let mut counter = Counter::demo();
        let made = make(&mut counter, |session, script| {
            let change = session.change_key(key_no(1), &old, &new);
            script.send(change).unwrap();
            let version = session.get_key_version(key_no(1));
            assert_eq!(script.expect(version, &[3]).unwrap(), 3);
            let change = session.change_key(key_no(2), &old, &new);
            script.send(change).unwrap();
        });
        // The handshake's last frame, then one for each command.
        counter.torn_at = Some(counter.frames.len() + torn);
        let (ending, receipt, record) = play(made, &mut counter);
        let (effect, verdict) = match torn {
            0 => (Effect::None, Verdict::Unknown),
            1..=3 => (Effect::Possible, Verdict::Unknown),
            _ => (Effect::Done, Verdict::Done),
        };
        assert_eq!(ending.effect, effect, "{torn}");
        assert_eq!(judge(&record, &receipt).verdict, verdict, "{torn}");
    }
}

/// Whoever starts a script that is over hears whether something has left.
#[test]
fn played_twice() {
    for (changes, outcome) in [(false, Outcome::NotSent), (true, Outcome::Unknown)] {
        let mut counter = Counter::demo();
        let made = make(&mut counter, |session, script| {
            if changes {
                script.send(session.debit(file(2), amount(1))).unwrap();
                script.send(session.commit_transaction()).unwrap();
            }
            script.ask(session.get_value(file(2))).unwrap();
        });
        let mut receipt = vec![0; 512];
        let mut player = made.waiting.script(&made.script, &mut receipt).unwrap();
        assert!(player.play(&mut counter).is_ok());
        let sent = counter.frames.len();
        let error = player.play(&mut counter).unwrap_err();
        assert_eq!((error.outcome(), error.session_lost()), (outcome, true));
        assert_eq!(counter.frames.len(), sent);
    }
}

/// The card, but that somebody answers one frame in its place.
struct Interrupted {
    card: Counter,
    at: usize,
    answer: &'static [u8],
}

impl desfire_ev1::Link for Interrupted {
    type Error = Gone;

    fn format(&self) -> LinkFormat {
        self.card.format()
    }
}

impl desfire_ev1::Transport for Interrupted {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Gone> {
        if self.card.frames.len() == self.at {
            self.card
                .frames
                .push((command.to_vec(), self.answer.to_vec()));
            reply[..self.answer.len()].copy_from_slice(self.answer);
            return Ok(self.answer.len());
        }
        self.card.exchange(command, reply)
    }
}

/// In the middle of a command's frames a card only asks for the next, and in the middle of an answer it says
/// something: else a script could be made to go on for ever, or past what has not arrived.
#[test]
fn frames_out_of_place() {
    let rights = AccessRights::from_bytes([0x00, 0x00]);
    let size = U24::new(64).unwrap();
    // The handshake, a file created, two frames of a write, a read.
    for (frame, answer) in [
        (1, &[0x91, 0xAF][..]),
        (2, &[0x5A, 0x91, 0xAF]),
        (2, &[0x91, 0x00]),
        (3, &[0x91, 0xAF]),
        (4, &[0x91, 0xAF]),
        (4, &[0x91]),
    ] {
        let mut card = Counter::demo();
        let made = make(&mut card, |session, script| {
            let create = session.create_std_data_file(file(10), None, CommMode::Mac, rights, size);
            script.send(create).unwrap();
            session.assume_file_settings(
                file(10),
                &FileSettings {
                    comm: CommMode::Mac.into(),
                    rights,
                    detail: FileDetail::StandardData { size },
                },
            );
            let write = session.write_data(file(10), 0, &[7; 64]);
            script.send(write).unwrap();
            script.ask(session.get_value(file(2))).unwrap();
        });
        let at = card.frames.len() + frame;
        let mut card = Interrupted { card, at, answer };
        let mut receipt = vec![0; 512];
        let mut player = made.waiting.script(&made.script, &mut receipt).unwrap();
        let ending = player.play(&mut card).unwrap();
        assert_eq!(ending.stop, Stop::NotAsExpected, "{frame} {answer:02X?}");
        assert_eq!(card.card.frames.len(), at + 1, "{frame} {answer:02X?}");
        assert_eq!(ending.frames, frame + 1, "{frame} {answer:02X?}");
    }
}

/// One step of a random transaction.
#[derive(Clone, Debug)]
enum Op {
    Debit(i32),
    Credit(i32),
    LimitedCredit(i32),
    WriteBackup(u8, Vec<u8>),
    WriteStandard(u8, Vec<u8>),
    Record(u8, Vec<u8>),
    Clear(u8),
    Commit,
    Value,
    Read(u8, u8, u8),
    Uid,
    KeySettings,
    FileIds,
    Settings(u8),
    ChangeKey(u8, u8),
    Create(u8),
    Delete(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let data = || proptest::collection::vec(any::<u8>(), 1..80);
    prop_oneof![
        4 => (0..400).prop_map(Op::Debit),
        2 => (0..400).prop_map(Op::Credit),
        1 => (0..400).prop_map(Op::LimitedCredit),
        3 => (0..40_u8, data()).prop_map(|(at, data)| Op::WriteBackup(at, data)),
        2 => (0..40_u8, data()).prop_map(|(at, data)| Op::WriteStandard(at, data)),
        3 => (3..5_u8, data()).prop_map(|(file, data)| Op::Record(file, data)),
        1 => (3..5_u8).prop_map(Op::Clear),
        4 => Just(Op::Commit),
        3 => Just(Op::Value),
        2 => (0..2_u8, 0..32_u8, 1..32_u8).prop_map(|(file, at, len)| Op::Read(file, at, len)),
        1 => Just(Op::Uid),
        1 => Just(Op::KeySettings),
        1 => Just(Op::FileIds),
        1 => (0..5_u8).prop_map(Op::Settings),
        1 => (1..3_u8, any::<u8>()).prop_map(|(number, key)| Op::ChangeKey(number, key)),
        1 => (6..9_u8).prop_map(Op::Create),
        1 => (6..9_u8).prop_map(Op::Delete),
    ]
}

/// What an operation is to a session: a live one answers, a foreseen one is put into the script.
trait Side {
    fn run<M: desfire_ev1::split::Foreseen>(&mut self, machine: M, data: Option<&[u8]>) -> bool;
}

struct Live<'c>(&'c mut Counter);

impl Side for Live<'_> {
    fn run<M: desfire_ev1::split::Foreseen>(&mut self, machine: M, _: Option<&[u8]>) -> bool {
        machine.run(&mut *self.0).is_ok()
    }
}

struct Ahead<'a, 'b>(&'a mut ScriptBuilder<'b>);

impl Side for Ahead<'_, '_> {
    fn run<M: desfire_ev1::split::Foreseen>(&mut self, machine: M, data: Option<&[u8]>) -> bool {
        self.0.expect(machine, data.unwrap_or_default()).unwrap();
        true
    }
}

fn apply(
    op: &Op,
    session: &mut Session<Authenticated>,
    side: &mut impl Side,
    keys: &mut [Key],
    data: Option<&[u8]>,
) -> bool {
    let rights = AccessRights::from_bytes([0x00, 0x00]);
    let mut buffer = vec![0; 64];
    match op {
        Op::Debit(value) => side.run(session.debit(file(2), amount(*value)), data),
        Op::Credit(value) => side.run(session.credit(file(2), amount(*value)), data),
        Op::LimitedCredit(value) => side.run(session.limited_credit(file(2), amount(*value)), data),
        Op::WriteBackup(at, bytes) => {
            side.run(session.write_data(file(1), u32::from(*at), bytes), data)
        }
        Op::WriteStandard(at, bytes) => {
            side.run(session.write_data(file(0), u32::from(*at), bytes), data)
        }
        Op::Record(number, bytes) => side.run(session.write_record(file(*number), 0, bytes), data),
        Op::Clear(number) => side.run(session.clear_record_file(file(*number)), data),
        Op::Commit => side.run(session.commit_transaction(), data),
        Op::Value => side.run(session.get_value(file(2)), data),
        Op::Read(number, at, len) => {
            let range = u32::from(*at)..u32::from(*at) + u32::from(*len);
            side.run(session.read_data(file(*number), range, &mut buffer), data)
        }
        Op::Uid => side.run(session.get_card_uid(), data),
        Op::KeySettings => side.run(session.get_key_settings(), data),
        Op::FileIds => side.run(session.get_file_ids(), data),
        Op::Settings(number) => side.run(session.get_file_settings(file(*number)), data),
        Op::ChangeKey(number, byte) => {
            let old = keys[usize::from(*number)].clone();
            let new = match old.key_type() {
                KeyType::Aes => Key::aes([*byte; 16]).with_version(*byte),
                KeyType::ThreeKey3Des => Key::three_key_3des([*byte; 24]),
                _ => Key::des([*byte; 8]),
            };
            let done = side.run(
                session.change_key(KeyNo::new(*number).unwrap(), &old, &new),
                data,
            );
            if done {
                keys[usize::from(*number)] = new;
            }
            done
        }
        Op::Create(number) => side.run(
            session.create_std_data_file(
                file(*number),
                None,
                CommMode::Mac,
                rights,
                U24::new(40).unwrap(),
            ),
            data,
        ),
        Op::Delete(number) => side.run(session.delete_file(file(*number)), data),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    /// A random transaction, live on one card and as a script on its twin: the same card, the same
    /// number of frames, and the replies that were foreseen, bit by bit (the tags say so).
    #[test]
    fn foreseen_is_what_the_card_says(
        ops in proptest::collection::vec(op(), 1..12),
        key_type in prop_oneof![
            Just(KeyType::Aes),
            Just(KeyType::ThreeKey3Des),
            Just(KeyType::TwoKey3Des),
            Just(KeyType::Des),
        ],
        native: bool,
        limit in 30_usize..=60,
    ) {
        let (scheme, key) = match key_type {
            KeyType::Aes => (AuthScheme::Aes, Key::aes([0; 16])),
            KeyType::ThreeKey3Des => (AuthScheme::Iso, Key::three_key_3des([0; 24])),
            // The other keys of the application are DES keys of zeros.
            KeyType::TwoKey3Des => (AuthScheme::Iso, Key::two_key_3des(*b"0123456789abcdef").unwrap()),
            KeyType::Des => (AuthScheme::Iso, Key::des([0; 8])),
        };
        let framing = if native { Framing::Native } else { Framing::Wrapped };
        // The token has to fit into one frame.
        let limit = limit.max(40);
        let reader = || VirtualReader::new(card_with(&key)).with_format(LinkFormat { framing, max_command: limit });

        // Live, to find out which operations the card takes and what it answers.
        let mut kept: Vec<(Op, Vec<u8>)> = Vec::new();
        let mut before = Counter::new(reader());
        for op in ops.into_iter().chain([Op::Commit]) {
            // From the start each time: a refusal ends the session and drops what was pending.
            let mut twin = Counter::new(reader());
            let mut keys = vec![Key::zero(key_type.family()); 3];
            let mut session = twin.selected()
                .authenticate(scheme, KeyNo::MASTER, &key, &mut getrandom::SysRng)
                .run(&mut twin).unwrap();
            state_settings(&mut session, twin.card());
            let mut live = Live(&mut twin);
            let replayed = kept.iter().all(|(op, _)| apply(op, &mut session, &mut live, &mut keys, None));
            prop_assert!(replayed);
            if !apply(&op, &mut session, &mut live, &mut keys, None) {
                continue;
            }
            let data = known_data(&op, &twin);
            kept.push((op, data));
            before = twin;
        }
        // What is pending at the end has to be ended.
        let mut keys = vec![Key::zero(key_type.family()); 3];
        let mut counter = Counter::new(reader());
        let mut shop = Shop::new(key.clone());
        let waiting = counter.tap(intent(Mode::Script, scheme, key_type, 1));
        let (mut script, mut record) = ([0; 8192], [0; 8192]);
        let answered = shop.answer(&waiting.message().unwrap());
        let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
        state_settings(&mut session, counter.card());
        for (op, data) in &kept {
            apply(op, &mut session, &mut Ahead(&mut builder), &mut keys, Some(data));
        }
        let finished = builder.finish();
        prop_assume!(finished.is_ok());
        let Finished { script, record } = finished.unwrap();
        let mut receipt = [0; 8192];
        let mut player = waiting.script(script, &mut receipt).unwrap();
        let ending = player.play(&mut counter).unwrap();
        prop_assert_eq!(ending.stop, Stop::Complete, "{:?}", kept);
        prop_assert_eq!(ending.commands, kept.len());
        let receipt = player.into_receipt().unwrap();
        let judgement = record.judge(receipt, &transport_key()).unwrap();
        prop_assert_eq!((judgement.verdict, judgement.proved), (Verdict::Done, kept.len()));
        prop_assert_eq!(counter.card().state(), before.card().state());
        // Selection and handshake the same, and every frame the same length.
        let lengths = |counter: &Counter| -> Vec<_> {
            counter.frames.iter().map(|(c, r)| (c.len(), r.len())).collect()
        };
        prop_assert_eq!(lengths(&counter), lengths(&before));
    }
}

/// What a reading operation has answered, as the card's own state tells it.
fn known_data(op: &Op, counter: &Counter) -> Vec<u8> {
    let application = counter.card().state().application(AID).unwrap();
    let find = |number: u8| {
        application
            .files()
            .iter()
            .find(|f| f.number() == file(number))
            .unwrap()
    };
    match op {
        Op::Value => match find(2).content() {
            FileContent::Value(value) => value.value.to_le_bytes().to_vec(),
            _ => unreachable!(),
        },
        Op::Read(number, at, len) => match find(*number).content() {
            FileContent::Standard(bytes) | FileContent::Backup(bytes) => {
                bytes[usize::from(*at)..usize::from(*at) + usize::from(*len)].to_vec()
            }
            _ => unreachable!(),
        },
        Op::Uid => vec![4, 5, 6, 7, 8, 9, 10],
        Op::KeySettings => vec![
            application.settings().to_byte(),
            application.info().to_byte(),
        ],
        Op::FileIds => application
            .files()
            .iter()
            .map(|f| f.number().number())
            .collect(),
        Op::Settings(number) => {
            let mut out = [0; 36];
            let len = find(*number).settings().encode(&mut out).unwrap();
            out[..len].to_vec()
        }
        _ => Vec::new(),
    }
}
