//! What goes wrong on the caller's side and on the link, and what is said about it; and, by name,
//! the defects of published DESFire libraries that this one must not have.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    missing_docs,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/puppet.rs"]
mod puppet;
#[path = "support/rig.rs"]
mod rig;

use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::panic::{AssertUnwindSafe, catch_unwind};

use desfire_ev1::command::RawMode;
use desfire_ev1::command::iso::{BinaryPlace, RecordRange};
use desfire_ev1::error::{Authenticity, ErrorKind, Malformed, Misuse};
use desfire_ev1::picc::{Application, File, FileContent};
use desfire_ev1::wire::{
    Aid, Amount, AuthScheme, CommMode, CommandCode, FileSettings, Framing, IsoFileId, KeyFamily,
    KeyFlags, KeyInfo, KeyNo, KeySettings, KeyType, Status, ValueFlags,
};
use desfire_ev1::{
    AsyncTransport, Authenticated, Key, Link, LinkFormat, Machine, Outcome, RunError, Session,
    Step, Transport, Unauthenticated,
};
use puppet::{Frames, Puppet, Seal, one};
use rig::{
    AID, EV1, MASTER_ONLY, MODES, SUITES, Script, Seeded, Silent, Suite, Wire, assert_lost,
    at_application, block_on, command, cyclic, file_no, framed, key_no, rights, standard, u24,
    value,
};

const NATIVE: Framing = Framing::Native;
const FRAMINGS: [Framing; 2] = [Framing::Native, Framing::Wrapped];

/// A session of the suite with a puppet that answers as told.
fn with_puppet<A: FnMut(&mut Seal, u8, &[u8]) -> Frames>(
    suite: Suite,
    answer: A,
) -> (Puppet<A>, Session<Authenticated>) {
    let mut puppet = Puppet::new(suite, NATIVE, answer);
    let session = suite.open(&mut puppet, 0, 1).unwrap();
    (puppet, session)
}

/// Runs an unauthenticated command against one native reply.
fn kind_of<M: Machine>(machine: M, reply: &[u8]) -> ErrorKind {
    let mut script = Script::new(LinkFormat::NATIVE, [reply.to_vec()]);
    let Err(error) = machine.run(&mut script) else {
        panic!("accepted: {reply:02X?}");
    };
    assert_eq!(script.sent.len(), 1);
    *error.kind().expect("an error of the library's own")
}

// ---------------------------------------------------------------------------------------------
// Bytes that do not parse

#[test]
fn frames_that_are_none() {
    let truncated = |needed, available| {
        ErrorKind::from(desfire_ev1::wire::WireError::Truncated { needed, available })
    };
    let kind = kind_of(Session::new().free_mem(), &[]);
    assert_eq!(kind, truncated(1, 0));
    for reply in [&[][..], &[0x91]] {
        let mut script = Script::new(LinkFormat::WRAPPED, [reply.to_vec()]);
        let error = Session::new().free_mem().run(&mut script).unwrap_err();
        assert_eq!(error.kind(), Some(&truncated(2, reply.len())));
    }
    // A card or reader that does not take it for a wrapped command: words for "checked and not
    // carried out" are refusals, all others leave it open.
    for (sw, outcome) in [
        ([0x6E, 0x00], Outcome::Refused),
        ([0x67, 0x00], Outcome::Refused),
        ([0x63, 0x00], Outcome::Unknown),
        ([0x65, 0x81], Outcome::Unknown),
        ([0x6F, 0x00], Outcome::Unknown),
        ([0x90, 0x00], Outcome::Unknown),
    ] {
        let mut script = Script::new(LinkFormat::WRAPPED, [sw.to_vec()]);
        let mut session = Session::new();
        let error = session.free_mem().run(&mut script).unwrap_err();
        assert_eq!(error.outcome(), outcome);
        let word = format!("{:02X}{:02X}", sw[0], sw[1]);
        assert!(error.to_string().contains(&word), "{error}");
        assert_eq!(session.is_lost(), outcome == Outcome::Unknown);
        assert_eq!(error.session_lost(), session.is_lost());
    }
}

#[test]
fn statuses_that_no_card_has() {
    let kind = kind_of(Session::new().free_mem(), &[0x77]);
    assert_eq!(kind, ErrorKind::Refused(Status::Other(0x77)));
    assert!(kind.to_string().contains("77 unknown status"), "{kind}");
}

#[test]
fn replies_that_are_too_short_or_too_long() {
    let bytes = |len: usize| [&[0][..], &vec![0x11; len]].concat();
    let too_long = ErrorKind::Malformed(Malformed::TooLong);
    let file = file_no(1);
    let is_wire = |kind| {
        matches!(
            kind,
            ErrorKind::Malformed(Malformed::Wire(_) | Malformed::Length { .. })
        )
    };
    // Command, and the lengths just beside the right ones.
    for (short, long) in [(2, 4), (0, 36), (1, 64)] {
        assert!(is_wire(kind_of(Session::new().free_mem(), &bytes(short))));
        assert_eq!(kind_of(Session::new().free_mem(), &bytes(long)), too_long);
    }
    let version = |len| kind_of(Session::new().get_version(), &bytes(len));
    assert!(is_wire(version(27)));
    assert_eq!(version(29), too_long);
    let key_version = |len| kind_of(Session::new().get_key_version(key_no(0)), &bytes(len));
    assert!(is_wire(key_version(0)));
    assert_eq!(key_version(2), too_long);
    let key_settings = |len| kind_of(Session::new().get_key_settings(), &bytes(len));
    assert!(is_wire(key_settings(1)));
    assert_eq!(key_settings(3), too_long);
    let aids = |len| kind_of(Session::new().get_application_ids(), &bytes(len));
    assert!(is_wire(aids(4)));
    assert!(is_wire(aids(83)));
    assert_eq!(aids(85), too_long);
    let files = |len| kind_of(at_application().get_file_ids(), &bytes(len));
    assert_eq!(files(33), too_long);
    let fids = |len| kind_of(at_application().get_iso_file_ids(), &bytes(len));
    assert!(is_wire(fids(3)));
    assert_eq!(fids(65), too_long);
    let value = |len| {
        let mut session = at_application();
        kind_of(
            session.get_value(file).comm_mode(CommMode::Plain),
            &bytes(len),
        )
    };
    assert!(is_wire(value(3)));
    assert_eq!(value(5), too_long);
    let settings = |bytes: &[u8]| kind_of(at_application().get_file_settings(file), bytes);
    assert!(is_wire(settings(&[0])));
    assert!(is_wire(settings(&[0, 0, 0, 0, 0, 1, 2])));
    assert!(is_wire(settings(&[0, 0, 0, 0, 0, 1, 2, 3, 4])));
    assert!(is_wire(settings(&[0, 2, 0, 0, 0, 1, 2, 3])));
    // Confirmations that say something.
    let commit = |len| kind_of(at_application().commit_transaction(), &bytes(len));
    assert_eq!(commit(1), too_long);
    assert_eq!(commit(8), too_long);
    // A file number that no file has, in a list.
    let kind = kind_of(at_application().get_file_ids(), &[0, 1, 2, 0x20]);
    assert!(is_wire(kind));
}

/// The card's own word, but not what it was asked for.
#[test]
fn authentic_replies_of_another_length() {
    type FileRead = fn(
        &mut Session<Authenticated>,
        &mut dyn Transport<Error = Silent>,
        CommMode,
        &mut [u8],
    ) -> RunError<Silent>;
    let reads: [FileRead; 2] = [
        |session, transport, mode, buffer| {
            let read = session.read_data(file_no(0), 5..15, buffer).comm_mode(mode);
            read.run(transport).unwrap_err()
        },
        // The caller is wrong about the size of a record, and nobody has told the session.
        |session, transport, mode, buffer| {
            let read = session
                .read_records(file_no(0), 0, 2, 5, buffer)
                .comm_mode(mode);
            read.run(transport).unwrap_err()
        },
    ];
    for suite in SUITES {
        for mode in MODES {
            for read in reads {
                for len in (0..30).filter(|len| *len != 10) {
                    // Under D40 the CRC of data with their CRC and zeros behind it is zero, and so
                    // are the bytes that follow: shorter data look like longer ones.
                    if !suite.is_ev1() && mode == CommMode::Enciphered && len < 10 {
                        continue;
                    }
                    let (mut puppet, mut session) = with_puppet(suite, |seal, code, params| {
                        seal.heard(code, params);
                        let data = vec![0x42; len];
                        one(match mode {
                            CommMode::Plain => seal.plain(&data),
                            CommMode::Mac => seal.maced(&data),
                            CommMode::Enciphered => seal.zero_padded(&data),
                        })
                    });
                    let mut buffer = [0xEE; 10];
                    let error = read(&mut session, &mut puppet, mode, &mut buffer);
                    match error.kind().unwrap() {
                        ErrorKind::Malformed(Malformed::Length { expected, received }) => {
                            assert_eq!((*expected, *received), (10, len));
                            assert!(len < 10 || mode == CommMode::Enciphered);
                        }
                        // The CRC is not where it would be behind ten bytes.
                        ErrorKind::Authenticity(Authenticity::CrcWrong) => {
                            assert_eq!(mode, CommMode::Enciphered);
                        }
                        ErrorKind::Malformed(Malformed::TooLong | Malformed::RecordSize) => {
                            assert!(len > 10);
                        }
                        // The MAC of nothing, see the tampering.
                        ErrorKind::Authenticity(Authenticity::MacWrong) => assert_eq!(len, 0),
                        other => panic!("{suite:?} {mode} {len}: {other}"),
                    }
                    assert_eq!(buffer, [0; 10]);
                    assert_nothing_works(&mut session);
                }
            }
        }
    }
}

#[test]
fn macs_that_are_missing_or_cut_short() {
    for suite in EV1 {
        for len in 0..8 {
            let (mut puppet, mut session) = with_puppet(suite, |seal, code, params| {
                seal.heard(code, params);
                let reply = seal.plain(&[]);
                one(reply[..len].to_vec())
            });
            let error = session.commit_transaction().run(&mut puppet).unwrap_err();
            assert_eq!(error.kind(), Some(&Authenticity::MacMissing.into()));
            assert_eq!(error.outcome(), Outcome::Unknown);
            assert_lost(&mut session);

            // With data before it, what is left of it is taken for the MAC.
            let (mut puppet, mut session) = with_puppet(suite, |seal, code, params| {
                seal.heard(code, params);
                let reply = seal.plain(&[0x0F, 0x03]);
                one(reply[..2 + len].to_vec())
            });
            let error = session.get_key_settings().run(&mut puppet).unwrap_err();
            let expected = if len < 6 {
                Authenticity::MacMissing
            } else {
                Authenticity::MacWrong
            };
            assert_eq!(error.kind(), Some(&expected.into()));
            assert_lost(&mut session);
        }
        // The whole one, to see that the puppet can do it.
        let (mut puppet, mut session) = with_puppet(suite, |seal, code, params| {
            seal.heard(code, params);
            one(seal.plain(&[]))
        });
        session.commit_transaction().run(&mut puppet).unwrap();
        session.commit_transaction().run(&mut puppet).unwrap();
    }
}

// ---------------------------------------------------------------------------------------------
// Buffers

#[test]
fn buffers_that_are_too_small() {
    for suite in SUITES {
        for mode in MODES {
            let file = standard(0, mode, Seeded(1).bytes(100));
            let mut wire = Wire::new(suite.card([file]), LinkFormat::NATIVE);
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            let sent = wire.log.len();
            let mut buffer = [0xEE; 99];
            let error = session
                .read_data(file_no(0), 0..100, &mut buffer)
                .run(&mut wire)
                .unwrap_err();
            let expected = Misuse::BufferTooSmall {
                needed: 100,
                available: 99,
            };
            assert_eq!(error.kind(), Some(&expected.into()));
            assert_eq!(error.outcome(), Outcome::NotSent);
            assert_eq!((wire.log.len(), buffer), (sent, [0xEE; 99]));
            // It was not sent: go on.
            session.free_mem().run(&mut wire).unwrap();

            // To the end: the settings tell how much there is.
            let error = session
                .read_data_to_end(file_no(0), 0, &mut buffer)
                .run(&mut wire)
                .unwrap_err();
            assert_eq!(error.kind(), Some(&expected.into()));
            assert_eq!(error.outcome(), Outcome::NotSent);
            assert_eq!(buffer, [0xEE; 99]);
            let read = session.read_data_to_end(file_no(0), 1, &mut buffer);
            assert_eq!(read.run(&mut wire).unwrap().len(), 99);

            // Without them nobody knows before it comes. By one byte or by many.
            for len in [0, 1, 36, 60, 68, 92, 99] {
                let mut session = suite.open(&mut wire, 0, 1).unwrap();
                let mut buffer = vec![0xEE; len];
                let error = session
                    .read_data_to_end(file_no(0), 0, &mut buffer)
                    .comm_mode(mode)
                    .run(&mut wire)
                    .unwrap_err();
                assert_eq!(error.kind(), Some(&Misuse::AnswerTooLong.into()), "{len}");
                assert_eq!(error.outcome(), Outcome::Unknown);
                assert_eq!(buffer, vec![0; len], "{suite:?} {mode}");
                assert_lost(&mut session);
                // A chain may be pending on the card.
                let _ = Session::new().select_application(AID).run(&mut wire);
            }
        }
    }
}

/// A record size that is not the file's: with its settings known nothing is sent.
#[test]
fn records_of_another_size() {
    for suite in SUITES {
        let file = cyclic(0, CommMode::Enciphered, 16, 5, Seeded(1).bytes(3 * 16));
        let mut wire = Wire::new(suite.card([file]), LinkFormat::NATIVE);
        let mut session = suite.open(&mut wire, 0, 1).unwrap();
        let mut buffer = [0xEE; 99];
        for stated in [8, 15, 17, 32] {
            let error = session
                .read_records(file_no(0), 0, 2, stated, &mut buffer)
                .run(&mut wire)
                .unwrap_err();
            let expected = Misuse::RecordSize { stated, actual: 16 };
            assert_eq!(error.kind(), Some(&expected.into()));
            assert_eq!(error.outcome(), Outcome::NotSent);
            assert_eq!(buffer, [0xEE; 99]);
        }
        // It was not sent: go on.
        let read = session.read_records(file_no(0), 0, 2, 16, &mut buffer);
        assert_eq!(read.run(&mut wire).unwrap().len(), 32);
        // Not known: the answer tells. The card sends two records of 16 bytes.
        for stated in [8, 15, 17, 20, 32] {
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            let mut buffer = [0xEE; 99];
            let error = session
                .read_records(file_no(0), 0, 2, stated, &mut buffer)
                .comm_mode(CommMode::Enciphered)
                .run(&mut wire)
                .unwrap_err();
            let (expected, received) = (2 * stated as usize, 32);
            match error.kind().unwrap() {
                ErrorKind::Malformed(Malformed::RecordSize) => assert!(stated < 16),
                // The CRC of data and their CRC is zero.
                ErrorKind::Misuse(Misuse::LengthNeeded) => {
                    assert!(!suite.is_ev1() && stated == 17);
                }
                kind => assert_eq!(*kind, Malformed::Length { expected, received }.into()),
            }
            assert_eq!(buffer[..expected], vec![0; expected]);
            assert_lost(&mut session);
            let _ = Session::new().select_application(AID).run(&mut wire);
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Sessions

type Call = fn(&mut Session<Authenticated>, &mut Script) -> Option<RunError<Silent>>;

/// Every command that a session can run without ending.
fn every_command() -> Vec<Call> {
    fn amount() -> Amount {
        Amount::new(1).unwrap()
    }
    vec![
        |s, t| s.abort_transaction().run(t).err(),
        |s, t| {
            s.change_file_settings(file_no(0), CommMode::Mac, MASTER_ONLY)
                .run(t)
                .err()
        },
        |s, t| {
            let key = Key::aes([1; 16]);
            s.change_key(key_no(1), &key, &key).run(t).err()
        },
        |s, t| s.change_key_settings(KeySettings::DEFAULT).run(t).err(),
        |s, t| {
            s.freeze_key_settings_for_ever(KeySettings::DEFAULT)
                .run(t)
                .err()
        },
        |s, t| s.clear_record_file(file_no(0)).run(t).err(),
        |s, t| s.commit_transaction().run(t).err(),
        |s, t| {
            let keys = KeyInfo::new(KeyFamily::Aes, 1).unwrap();
            s.create_application(AID, KeySettings::DEFAULT, keys, None)
                .run(t)
                .err()
        },
        |s, t| {
            s.create_std_data_file(file_no(0), None, CommMode::Mac, MASTER_ONLY, u24(1))
                .run(t)
                .err()
        },
        |s, t| {
            s.create_backup_data_file(file_no(0), None, CommMode::Mac, MASTER_ONLY, u24(1))
                .run(t)
                .err()
        },
        |s, t| {
            let flags = ValueFlags::empty();
            s.create_value_file(file_no(0), CommMode::Mac, MASTER_ONLY, 0..=1, 0, flags)
                .run(t)
                .err()
        },
        |s, t| {
            let (size, most) = (u24(1), u24(2));
            s.create_linear_record_file(file_no(0), None, CommMode::Mac, MASTER_ONLY, size, most)
                .run(t)
                .err()
        },
        |s, t| {
            let (size, most) = (u24(1), u24(2));
            s.create_cyclic_record_file(file_no(0), None, CommMode::Mac, MASTER_ONLY, size, most)
                .run(t)
                .err()
        },
        |s, t| s.credit(file_no(0), amount()).run(t).err(),
        |s, t| s.debit(file_no(0), amount()).run(t).err(),
        |s, t| s.limited_credit(file_no(0), amount()).run(t).err(),
        |s, t| {
            s.credit(file_no(0), amount())
                .comm_mode(CommMode::Plain)
                .run(t)
                .err()
        },
        |s, t| s.delete_application(AID).run(t).err(),
        |s, t| s.delete_file(file_no(0)).run(t).err(),
        |s, t| s.format_picc().run(t).err(),
        |s, t| s.free_mem().run(t).err(),
        |s, t| s.get_application_ids().run(t).err(),
        |s, t| s.get_card_uid().run(t).err(),
        |s, t| s.get_file_ids().run(t).err(),
        |s, t| s.get_file_settings(file_no(0)).run(t).err(),
        |s, t| s.get_iso_file_ids().run(t).err(),
        |s, t| s.get_key_settings().run(t).err(),
        |s, t| s.get_key_version(key_no(0)).run(t).err(),
        |s, t| s.get_value(file_no(0)).run(t).err(),
        |s, t| s.get_version().run(t).err(),
        |s, t| {
            let mode = RawMode {
                request: CommMode::Plain,
                reply: CommMode::Plain,
                reply_len: None,
            };
            s.raw(CommandCode::FreeMem, &[], &[], &mut [], mode)
                .run(t)
                .err()
        },
        |s, t| s.read_data(file_no(0), 0..1, &mut [0]).run(t).err(),
        |s, t| s.read_data_to_end(file_no(0), 0, &mut [0]).run(t).err(),
        |s, t| s.read_records(file_no(0), 0, 1, 1, &mut [0]).run(t).err(),
        |s, t| s.read_all_records(file_no(0), 0, &mut [0]).run(t).err(),
        |s, t| s.write_data(file_no(0), 0, &[1]).run(t).err(),
        |s, t| s.write_record(file_no(0), 0, &[1]).run(t).err(),
        |s, t| s.get_df_names(&mut [0; 30]).run(t).err(),
        |s, t| s.set_default_key(&Key::aes([1; 16])).run(t).err(),
        |s, t| s.set_ats(&[2, 0]).run(t).err(),
        |s, t| s.enable_random_id_for_ever().run(t).err(),
        |s, t| s.disable_format_for_ever().run(t).err(),
        |s, t| s.iso_select_file(IsoFileId(7)).run(t).err(),
        |s, t| {
            let place = BinaryPlace::Selected { offset: 0 };
            s.iso_read_binary(place, &mut [0]).run(t).err()
        },
        |s, t| {
            let place = BinaryPlace::Selected { offset: 0 };
            s.iso_update_binary(place, &[0]).run(t).err()
        },
        |s, t| {
            let mut buffer = [0];
            let read = s.iso_read_record(None, RecordRange::From(1), &mut buffer);
            read.run(t).err()
        },
        |s, t| s.iso_append_record(None, &[0]).run(t).err(),
    ]
}

#[track_caller]
fn assert_nothing_works(session: &mut Session<Authenticated>) {
    assert!(session.is_lost());
    let mut silent = Script::new(LinkFormat::NATIVE, []);
    for (number, call) in every_command().into_iter().enumerate() {
        let error = call(session, &mut silent).expect("an error");
        assert_eq!(
            error.kind(),
            Some(&Misuse::SessionLost.into()),
            "command {number} of the list: {error}"
        );
        assert_eq!(error.outcome(), Outcome::NotSent);
    }
    assert!(silent.sent.is_empty(), "sent: {:02X?}", silent.sent);
}

/// Whatever loses a session, no command is sent afterwards, and a selection goes on from there.
#[test]
fn nothing_is_sent_on_a_lost_session() {
    for suite in SUITES {
        let losses: [fn(&mut Wire, &mut Session<Authenticated>); 6] = [
            // The reader fails.
            |wire, session| {
                wire.card.field_off();
                let error = session.free_mem().run(wire).unwrap_err();
                assert_eq!(error.outcome(), Outcome::Unknown);
                assert!(matches!(error, RunError::Transport { .. }));
                wire.card.activate();
            },
            // The card refuses.
            |wire, session| {
                let error = session.commit_transaction().run(wire).unwrap_err();
                assert_eq!(error.outcome(), Outcome::Refused);
                let error = error.protocol().unwrap();
                assert_eq!(error.status(), Some(Status::NoChanges));
            },
            // The bytes are bad.
            |wire, session| {
                let mut script = Script::new(wire.format, [vec![0x00; 40]]);
                session.get_version().run(&mut script).unwrap_err();
            },
            // A machine is dropped in the middle.
            |wire, session| {
                let mut machine = session.free_mem();
                machine.start(wire.format).unwrap();
            },
            // Or not even dropped.
            |wire, session| {
                let mut machine = session.free_mem();
                machine.start(wire.format).unwrap();
                core::mem::forget(machine);
            },
            // While it asks for a file's settings.
            |wire, session| {
                let mut machine = session.get_value(file_no(0));
                assert_eq!(machine.start(wire.format).unwrap(), [0xF5, 0]);
                core::mem::forget(machine);
            },
        ];
        for lose in losses {
            let mut wire = Wire::new(suite.card([]), LinkFormat::NATIVE);
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            assert!(!session.is_lost());
            lose(&mut wire, &mut session);
            assert_nothing_works(&mut session);
            assert!(format!("{session:?}").contains("lost: true"));
            let session = session.select_application(AID).run(&mut wire).unwrap();
            suite.authenticate(session, &mut wire, 0, 2).unwrap();
        }
    }
}

/// A handshake does not revive a lost session: the card does not drop pending changes with it, and
/// a later commit would make valid what nobody knows of any more.
#[test]
fn a_lost_session_must_select_before_a_handshake() {
    for suite in SUITES {
        let file = value(0, CommMode::Mac, 1000);
        let mut wire = Wire::new(suite.card([file]), LinkFormat::NATIVE);
        let amount = |amount| Amount::new(amount).unwrap();
        // A debit whose answer is lost, and one whose guard is dropped.
        for dropped in [false, true] {
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            if dropped {
                let mut transaction = session.transaction();
                let debit = transaction.debit(file_no(0), amount(250));
                debit.run(&mut wire).unwrap();
            } else {
                let debit = session.debit(file_no(0), amount(250));
                wire.card.arrange_fault(desfire_ev1::picc::Fault::LoseReply(
                    wire.card.commands() + 2,
                ));
                assert_eq!(
                    debit.run(&mut wire).unwrap_err().outcome(),
                    Outcome::Unknown
                );
            }
            let sent = wire.log.len();
            let error = suite.authenticate(session, &mut wire, 0, 2).unwrap_err();
            assert_eq!(error.kind(), Some(&Misuse::SessionLost.into()));
            assert_eq!((error.outcome(), wire.log.len()), (Outcome::NotSent, sent));
        }
        let mut session = suite.open(&mut wire, 0, 1).unwrap();
        let mut transaction = session.transaction();
        let debit = transaction.debit(file_no(0), amount(10));
        debit.run(&mut wire).unwrap();
        transaction.commit().run(&mut wire).unwrap();
        drop(transaction);
        assert_eq!(session.get_value(file_no(0)).run(&mut wire).unwrap(), 990);
    }
}

/// What was heard of a file before the handshake could have been anybody's.
#[test]
fn file_settings_heard_before_a_handshake_decide_nothing_after_it() {
    for suite in SUITES {
        let file = value(0, CommMode::Enciphered, 1000);
        let mut wire = Wire::new(suite.card([file]), LinkFormat::NATIVE);
        let mut session = Session::new()
            .select_application(AID)
            .run(&mut wire)
            .unwrap();
        // Somebody on the link says that the file is plain.
        let forged = [
            0x00, 0x02, 0x00, 0x00, 0x00, 0, 0, 0, 0, 0xFF, 0xFF, 0, 0, 0, 0, 0, 0, 0,
        ];
        let mut script = Script::new(LinkFormat::NATIVE, [forged.to_vec()]);
        session
            .get_file_settings(file_no(0))
            .run(&mut script)
            .unwrap();
        let mut session = suite.authenticate(session, &mut wire, 0, 2).unwrap();
        let from = wire.log.len();
        let credit = session.credit(file_no(0), Amount::new(0x11_2233).unwrap());
        credit.run(&mut wire).unwrap();
        for (sent, _) in &wire.log[from..] {
            let in_clear = sent.windows(3).any(|bytes| bytes == [0x33, 0x22, 0x11]);
            assert!(!in_clear, "{sent:02X?}");
        }
    }
}

/// Pending changes outlive a handshake on the card. So a transaction that was given up, or whose end
/// is unknown, has to be dropped by a selection before anything new is begun.
#[test]
fn a_transaction_given_up_is_not_committed_with_the_next() {
    let ends: [fn(&mut Wire, &mut Session<Authenticated>); 3] = [
        // Dropped.
        |wire, session| {
            let mut transaction = session.transaction();
            let debit = transaction.debit(file_no(0), Amount::new(250).unwrap());
            debit.run(wire).unwrap();
        },
        // The debit has arrived, its answer has not.
        |wire, session| {
            let next = wire.card.commands() + 1;
            wire.card
                .arrange_fault(desfire_ev1::picc::Fault::LoseReply(next));
            let debit = session.debit(file_no(0), Amount::new(250).unwrap());
            debit.run(wire).unwrap_err();
        },
        // The same with a machine that nobody has brought to its end.
        |wire, session| {
            let mut debit = session.debit(file_no(0), Amount::new(250).unwrap());
            let sent = debit.start(LinkFormat::NATIVE).unwrap().to_vec();
            core::mem::forget(debit);
            wire.card.handle(&sent);
        },
    ];
    for suite in SUITES {
        for end in ends {
            let card = suite.card([value(0, CommMode::Mac, 1000)]);
            let mut wire = Wire::new(card, LinkFormat::NATIVE);
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            session
                .get_file_settings(file_no(0))
                .run(&mut wire)
                .unwrap();
            end(&mut wire, &mut session);
            assert!(session.is_lost());
            let sent = wire.log.len();
            let error = suite.authenticate(session, &mut wire, 0, 1).unwrap_err();
            assert_eq!(error.kind(), Some(&Misuse::SessionLost.into()));
            assert_eq!(error.outcome(), Outcome::NotSent);
            assert_eq!(wire.log.len(), sent);
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            let mut transaction = session.transaction();
            let credit = transaction.credit(file_no(0), Amount::new(1).unwrap());
            credit.run(&mut wire).unwrap();
            transaction.commit().run(&mut wire).unwrap();
            drop(transaction);
            let value = session.get_value(file_no(0)).run(&mut wire).unwrap();
            assert_eq!(value, 1001, "{suite:?}: given up, and committed after all");
        }
    }
}

/// Without authentication there is no chain that a refusal could break.
#[test]
fn an_unauthenticated_session_survives_refusals() {
    let mut wire = Wire::new(EV1[3].card([]), LinkFormat::NATIVE);
    let mut session = Session::new()
        .select_application(AID)
        .run(&mut wire)
        .unwrap();
    for _ in 0..3 {
        let error = session
            .get_file_settings(file_no(4))
            .run(&mut wire)
            .unwrap_err();
        assert_eq!(error.outcome(), Outcome::Refused);
        assert!(!session.is_lost());
    }
    session.free_mem().run(&mut wire).unwrap();
}

/// The card's refusal is an error in every mode, with every status, whatever comes with it.
#[test]
fn refusals_in_every_mode() {
    for suite in SUITES {
        for mode in MODES {
            for status in Status::ALL.iter().copied().map(Status::to_byte) {
                if matches!(status, 0x00 | 0xAF) {
                    continue;
                }
                let answer = |_: &mut Seal, _: u8, _: &[u8]| vec![(status, Vec::new())];
                let expected = ErrorKind::Refused(Status::from_byte(status));
                let mut buffer = [0xEE; 20];
                let (mut puppet, mut session) = with_puppet(suite, answer);
                let machine = session.read_data(file_no(1), 0..20, &mut buffer);
                let error = machine.comm_mode(mode).run(&mut puppet).unwrap_err();
                assert_eq!(error.kind(), Some(&expected));
                assert_eq!(error.outcome(), Outcome::Refused);
                assert_eq!(buffer, [0; 20]);
                assert_nothing_works(&mut session);
                let (mut puppet, mut session) = with_puppet(suite, answer);
                let machine = session.write_data(file_no(1), 0, &[1; 20]);
                let error = machine.comm_mode(mode).run(&mut puppet).unwrap_err();
                assert_eq!(error.kind(), Some(&expected));
                let text = error.to_string();
                assert!(text.contains("WriteData"), "{text}");
                assert!(text.contains(Status::from_byte(status).name()), "{text}");
            }
        }
    }
}

// ---------------------------------------------------------------------------------------------
// Machines

/// Once anything has been sent nobody may read that it was not.
fn out_of_turn<M: Machine>(machine: &mut M, reply: &[u8], outcome: Outcome) {
    let Err(error) = machine.step(reply) else {
        panic!("stepped out of turn");
    };
    assert_eq!(error.kind, Misuse::OutOfTurn.into());
    assert_eq!(error.outcome, outcome);
    let error = machine.step(reply).err().unwrap();
    assert_eq!(error.outcome, outcome, "asked again");
}

#[test]
fn machines_out_of_turn() {
    let mut session = Session::new();
    // Before the start.
    let mut machine = session.free_mem();
    out_of_turn(&mut machine, &[0, 1, 2, 3], Outcome::NotSent);
    // Started twice: the second time changes nothing.
    assert_eq!(machine.start(LinkFormat::NATIVE).unwrap(), [0x6E]);
    let error = machine.start(LinkFormat::NATIVE).unwrap_err();
    assert_eq!(error.kind, Misuse::OutOfTurn.into());
    assert_eq!(error.outcome, Outcome::Unknown);
    assert!(error.session_lost, "it is out");
    assert!(matches!(
        machine.step(&[0, 1, 2, 3]),
        Ok(Step::Done(0x03_0201))
    ));
    // After the end.
    out_of_turn(&mut machine, &[0, 1, 2, 3], Outcome::Unknown);
    let error = machine.start(LinkFormat::NATIVE).unwrap_err();
    assert_eq!(error.outcome, Outcome::Unknown);
    assert!(!error.session_lost);
    drop(machine);
    assert!(!session.is_lost(), "the end was reached");

    // After an error.
    let mut machine = session.free_mem();
    machine.start(LinkFormat::NATIVE).unwrap();
    machine.step(&[]).unwrap_err();
    out_of_turn(&mut machine, &[0, 1, 2, 3], Outcome::Unknown);
    drop(machine);
    assert_lost(&mut session);

    // After an error before anything was sent: no second try either.
    let mut session = Session::new();
    let mut machine = session.write_data(file_no(0), 0, &[]);
    machine.start(LinkFormat::NATIVE).unwrap_err();
    out_of_turn(&mut machine, &[0], Outcome::NotSent);
    drop(machine);
    assert!(!session.is_lost());

    // Only the question for the settings was out.
    let mut session = at_application();
    let mut machine = session.write_data(file_no(0), 0, &[1]);
    assert_eq!(machine.start(LinkFormat::NATIVE).unwrap(), [0xF5, 0]);
    machine.step(&[0xF0]).unwrap_err();
    out_of_turn(&mut machine, &[0], Outcome::NotSent);
}

#[test]
fn iso_machines_out_of_turn() {
    let mut session = at_application();
    let place = BinaryPlace::Selected { offset: 0 };
    let mut machine = session.iso_update_binary(place, &[7]);
    out_of_turn(&mut machine, &[0x90, 0x00], Outcome::NotSent);
    machine.start(LinkFormat::NATIVE).unwrap();
    let error = machine.start(LinkFormat::NATIVE).unwrap_err();
    assert_eq!(error.outcome, Outcome::Unknown);
    machine.step(&[0x69, 0x82]).unwrap_err();
    out_of_turn(&mut machine, &[0x90, 0x00], Outcome::Unknown);

    let key = Key::aes([0; 16]);
    let mut machine = at_application().authenticate_iso7816(KeyNo::MASTER, &key, &mut Seeded(1));
    out_of_turn(&mut machine, &[0x90, 0x00], Outcome::NotSent);
    machine.start(LinkFormat::NATIVE).unwrap();
    let error = machine.start(LinkFormat::NATIVE).unwrap_err();
    assert_eq!(error.outcome, Outcome::Unknown);
    machine.step(&[0x69, 0x82]).unwrap_err();
    out_of_turn(&mut machine, &[0x90, 0x00], Outcome::Unknown);
}

#[test]
fn handshakes_out_of_turn() {
    for suite in SUITES {
        let mut wire = Wire::new(suite.card([]), LinkFormat::NATIVE);
        suite.open(&mut wire, 0, 1).unwrap();
        let [challenge, proof] = [1, 2].map(|index| wire.log[index].1.clone());
        let key = suite.key(0);
        let begin =
            || at_application().authenticate(suite.scheme, KeyNo::MASTER, &key, &mut Seeded(1));
        let mut machine = begin();
        out_of_turn(&mut machine, &challenge, Outcome::NotSent);

        let mut machine = begin();
        machine.start(LinkFormat::NATIVE).unwrap();
        let error = machine.start(LinkFormat::NATIVE).unwrap_err();
        assert_eq!(error.kind, Misuse::OutOfTurn.into());
        let Ok(Step::Transmit(token)) = machine.step(&challenge) else {
            panic!("no token");
        };
        assert_eq!(token.len(), 1 + 2 * (challenge.len() - 1));
        let Ok(Step::Done(session)) = machine.step(&proof) else {
            panic!("no session");
        };
        assert!(!session.is_lost());
        out_of_turn(&mut machine, &proof, Outcome::Unknown);
        out_of_turn(&mut machine, &challenge, Outcome::Unknown);
    }
}

#[test]
fn keys_that_do_not_go_with_the_handshake() {
    let keys = [
        Key::des([1; 8]),
        Key::two_key_3des(*b"0123456789ABCDEF").unwrap(),
        Key::three_key_3des(*b"0123456789ABCDEFGHIJKLMN"),
        Key::aes([1; 16]),
    ];
    for (scheme, right) in [
        (AuthScheme::Legacy, [true, true, false, false]),
        (AuthScheme::Iso, [true, true, true, false]),
        (AuthScheme::Aes, [false, false, false, true]),
    ] {
        for (key, right) in keys.iter().zip(right) {
            let mut machine =
                Session::new().authenticate(scheme, KeyNo::MASTER, key, &mut Seeded(1));
            match machine.start(LinkFormat::NATIVE) {
                Ok(sent) => assert!(right, "{scheme} with {key:?} sent {sent:02X?}"),
                Err(error) => {
                    assert!(!right, "{error}");
                    assert_eq!(error.kind, Misuse::KeyType(key.key_type()).into());
                    assert_eq!(error.outcome, Outcome::NotSent);
                }
            }
        }
    }
}

/// Without randomness there is no handshake.
#[test]
fn a_generator_that_fails() {
    struct Broken;

    impl rand_core::TryRng for Broken {
        type Error = Silent;

        fn try_next_u32(&mut self) -> Result<u32, Silent> {
            Err(Silent)
        }

        fn try_next_u64(&mut self) -> Result<u64, Silent> {
            Err(Silent)
        }

        fn try_fill_bytes(&mut self, dst: &mut [u8]) -> Result<(), Silent> {
            // The worst kind: it has touched the buffer before it fails.
            dst.fill(0);
            Err(Silent)
        }
    }

    impl rand_core::TryCryptoRng for Broken {}

    let key = Key::aes([1; 16]);
    let mut script = Script::new(LinkFormat::NATIVE, []);
    let error = Session::new()
        .authenticate_aes(KeyNo::MASTER, &key, &mut Broken)
        .run(&mut script)
        .unwrap_err();
    assert_eq!(error.kind(), Some(&ErrorKind::Randomness));
    assert_eq!(error.outcome(), Outcome::NotSent);
    assert!(script.sent.is_empty());
}

#[test]
fn calls_that_cannot_be() {
    let suite = EV1[3];
    let mut wire = Wire::new(suite.card([]), LinkFormat::NATIVE);
    let mut session = suite.open(&mut wire, 0, 1).unwrap();
    let sent = wire.log.len();
    let (aes, des) = (Key::aes([1; 16]), Key::des([1; 8]));
    let three = Key::three_key_3des(*b"0123456789ABCDEFGHIJKLMN");
    let kinds = [
        session.change_key(key_no(0), &aes, &aes).run(&mut wire),
        session.change_key(key_no(1), &aes, &des).run(&mut wire),
        session.change_key(key_no(1), &des, &aes).run(&mut wire),
        session.change_key(key_no(1), &des, &des).run(&mut wire),
        session.change_key(key_no(1), &aes, &three).run(&mut wire),
        session.delete_application(AID).run(&mut wire),
        session.format_picc().run(&mut wire),
        session.write_data(file_no(0), 1 << 24, &[1]).run(&mut wire),
        session
            .change_key_settings(KeySettings {
                flags: KeyFlags::empty(),
                ..KeySettings::DEFAULT
            })
            .run(&mut wire),
    ]
    .map(|result| {
        let error = result.unwrap_err();
        assert_eq!(error.outcome(), Outcome::NotSent);
        *error.kind().unwrap()
    });
    let misuse = |kind| match kind {
        ErrorKind::Misuse(misuse) => misuse,
        other => panic!("{other}"),
    };
    let kinds = kinds.map(misuse);
    assert_eq!(kinds[0], Misuse::KeyInUse(key_no(0)));
    for kind in &kinds[1..5] {
        assert!(matches!(kind, Misuse::KeyFamily(_)), "{kind}");
    }
    assert_eq!(kinds[5..7], [Misuse::NotAtPiccLevel; 2]);
    assert!(matches!(kinds[7], Misuse::Parameter(_)));
    assert!(matches!(kinds[8], Misuse::Invalid(_)));
    assert_eq!(wire.log.len(), sent);
    // Nothing of this has touched the session.
    session.free_mem().run(&mut wire).unwrap();
    // The type of an application's keys is fixed.
    let error = session
        .change_picc_master_key_and_type(&des)
        .run(&mut wire)
        .unwrap_err();
    assert_eq!(error.kind(), Some(&Misuse::NotAtPiccLevel.into()));
    assert_eq!(wire.log.len(), sent + 1);
}

/// At PICC level there are no files. Nothing is sent to find that out, and a session with the card's
/// master key is not lost by it.
#[test]
fn file_commands_at_picc_level() {
    type FileCall = fn(&mut Session<Authenticated>, &mut Wire) -> RunError<Silent>;
    let calls: [FileCall; 8] = [
        |s, t| s.get_value(file_no(0)).run(t).unwrap_err(),
        |s, t| s.read_data(file_no(0), 0..1, &mut [0]).run(t).unwrap_err(),
        |s, t| {
            s.read_all_records(file_no(0), 0, &mut [0])
                .run(t)
                .unwrap_err()
        },
        |s, t| s.write_data(file_no(0), 0, &[0]).run(t).unwrap_err(),
        |s, t| s.write_record(file_no(0), 0, &[0]).run(t).unwrap_err(),
        |s, t| {
            s.debit(file_no(0), Amount::new(1).unwrap())
                .run(t)
                .unwrap_err()
        },
        |s, t| {
            let change = s.change_file_settings(file_no(0), CommMode::Mac, MASTER_ONLY);
            change.run(t).unwrap_err()
        },
        |s, t| s.get_file_settings(file_no(0)).run(t).unwrap_err(),
    ];
    for suite in SUITES {
        let mut card = suite.card([]);
        card.state_mut().set_picc_key(suite.card_key(0));
        let mut wire = Wire::new(card, LinkFormat::NATIVE);
        let mut session = suite.authenticate(Session::new(), &mut wire, 0, 1).unwrap();
        let sent = wire.log.len();
        for call in calls {
            let error = call(&mut session, &mut wire);
            assert_eq!(error.outcome(), Outcome::NotSent, "{error}");
            assert_eq!(error.kind(), Some(&Misuse::NotInApplication.into()));
        }
        assert_eq!(wire.log.len(), sent);
        session.free_mem().run(&mut wire).unwrap();
    }
}

/// A link that is too narrow for the token is too narrow for the handshake: to find that out after
/// the first frame would have ended the card's session and left a handshake half done.
#[test]
fn a_handshake_on_a_narrow_link() {
    for suite in SUITES {
        let token = 2 * suite.key_type.nonce_len();
        for (framing, overhead) in [(Framing::Native, 1), (Framing::Wrapped, 6)] {
            for max_command in 0..=60 {
                let card = suite.card([]);
                let mut wire = Wire::new(card, LinkFormat::NATIVE);
                let session = Session::new()
                    .select_application(AID)
                    .run(&mut wire)
                    .unwrap();
                wire.format = LinkFormat {
                    framing,
                    max_command,
                };
                let sent = wire.log.len();
                let result = suite.authenticate(session, &mut wire, 0, 1);
                if max_command >= token + overhead {
                    result.unwrap();
                    continue;
                }
                let error = result.unwrap_err();
                let expected = Misuse::TransportTooNarrow {
                    needed: token,
                    available: max_command.saturating_sub(overhead),
                };
                assert_eq!(error.kind(), Some(&expected.into()));
                assert_eq!(error.outcome(), Outcome::NotSent);
                assert_eq!(wire.log.len(), sent, "{error}, and yet it was sent");
            }
        }
    }
}

const PLAIN: RawMode = RawMode {
    request: CommMode::Plain,
    reply: CommMode::Plain,
    reply_len: None,
};

/// What changes the session must not go through the door for everything, by whatever name.
#[test]
fn raw_commands_by_another_name() {
    let mut silent = Script::new(LinkFormat::NATIVE, []);
    for byte in [0x0A, 0x1A, 0xAA, 0x5A, 0xAF, 0x71, 0x77] {
        for code in [CommandCode::from_byte(byte), CommandCode::Other(byte)] {
            let mut session = Session::new();
            let raw = session.raw(code, &[0], &[], &mut [], PLAIN);
            let error = raw.run(&mut silent).unwrap_err();
            assert!(matches!(
                error.kind(),
                Some(ErrorKind::Misuse(Misuse::Invalid(_)))
            ));
        }
    }
    // Nor secrets in clear.
    for byte in [0xC4, 0x54, 0x5C] {
        let mut session = Session::new();
        let code = CommandCode::Other(byte);
        let raw = session.raw(code, &[0], &[7; 24], &mut [], PLAIN);
        let error = raw.run(&mut silent).unwrap_err();
        assert!(matches!(
            error.kind(),
            Some(ErrorKind::Misuse(Misuse::Invalid(_)))
        ));
    }
    assert!(silent.sent.is_empty(), "sent: {:02X?}", silent.sent);
}

/// A link without room for a single byte of data cannot carry any, in however many frames.
#[test]
fn raw_data_on_a_link_without_room() {
    for (framing, max_command) in [
        (Framing::Native, 0),
        (Framing::Native, 1),
        (Framing::Wrapped, 5),
        (Framing::Wrapped, 6),
    ] {
        let format = LinkFormat {
            framing,
            max_command,
        };
        let mut script = Script::new(format, vec![framed(framing, 0xAF, &[]); 100]);
        let mut session = Session::new();
        let raw = session.raw(CommandCode::Other(0x3C), &[], &[1, 2, 3], &mut [], PLAIN);
        let error = raw.run(&mut script).unwrap_err();
        let expected = Misuse::TransportTooNarrow {
            needed: 1,
            available: 0,
        };
        assert_eq!(error.kind(), Some(&expected.into()));
        assert!(script.sent.is_empty(), "{} frames", script.sent.len());
        assert!(!session.is_lost());
    }
}

// ---------------------------------------------------------------------------------------------
// Futures

/// Answers from a list, and then not at all.
struct Stuck(Script);

impl Link for Stuck {
    type Error = Silent;

    fn format(&self) -> LinkFormat {
        self.0.format
    }
}

impl AsyncTransport for Stuck {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
        match self.0.exchange(command, reply) {
            Ok(len) => Ok(len),
            Err(Silent) => core::future::pending().await,
        }
    }
}

fn poll_once<F: Future>(future: F) -> Poll<F::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_dropped_future_loses_the_session_and_wipes_the_buffer() {
    for suite in SUITES {
        for mode in MODES {
            let data = Seeded(1).bytes(200);
            let file = standard(0, mode, data);
            let mut wire = Wire::new(suite.card([file]), LinkFormat::NATIVE);
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            let opening = wire.log.len();
            let mut buffer = [0; 200];
            session
                .read_data(file_no(0), 0..200, &mut buffer)
                .run(&mut wire)
                .unwrap();
            let replies: Vec<_> = wire.log.into_iter().map(|(_, reply)| reply).collect();
            // GetFileSettings, and the frames of the answer.
            for answered in opening..replies.len() {
                let script = Script::new(LinkFormat::NATIVE, replies[..answered].to_vec());
                let mut stuck = Stuck(script);
                let mut session = suite.open(&mut stuck.0, 0, 1).unwrap();
                let mut buffer = [0xEE; 210];
                {
                    let machine = session.read_data(file_no(0), 0..200, &mut buffer);
                    let polled = poll_once(machine.run_async(&mut stuck));
                    assert!(polled.is_pending());
                }
                assert_eq!(buffer[..200], [0; 200], "after {answered} replies");
                assert_eq!(buffer[200..], [0xEE; 10]);
                assert_nothing_works(&mut session);
            }
        }
    }
}

#[test]
fn a_future_that_was_never_polled_has_done_nothing() {
    let suite = EV1[0];
    let mut wire = Wire::new(suite.card([]), LinkFormat::NATIVE);
    let mut session = suite.open(&mut wire, 0, 1).unwrap();
    let mut stuck = Stuck(Script::new(LinkFormat::NATIVE, []));
    drop(session.get_version().run_async(&mut stuck));
    assert!(!session.is_lost());
    session.get_version().run(&mut wire).unwrap();
}

#[test]
fn a_forgotten_future_loses_the_session() {
    let suite = EV1[3];
    let mut wire = Wire::new(suite.card([]), LinkFormat::NATIVE);
    let mut session = suite.open(&mut wire, 0, 1).unwrap();
    let mut stuck = Stuck(Script::new(LinkFormat::NATIVE, []));
    let mut future = Box::pin(session.get_version().run_async(&mut stuck));
    let polled = future
        .as_mut()
        .poll(&mut Context::from_waker(Waker::noop()));
    assert!(polled.is_pending());
    core::mem::forget(future);
    assert_nothing_works(&mut session);
}

/// A transport that panics is no reason to go on either.
#[test]
fn a_transport_that_panics() {
    struct Panics(Script);

    impl Link for Panics {
        type Error = Silent;

        fn format(&self) -> LinkFormat {
            self.0.format
        }
    }

    impl Transport for Panics {
        fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
            match self.0.exchange(command, reply) {
                Ok(len) => Ok(len),
                // Without the panic hook's message.
                Err(Silent) => std::panic::resume_unwind(Box::new(())),
            }
        }
    }

    let suite = EV1[3];
    let mut wire = Wire::new(suite.card([]), LinkFormat::NATIVE);
    let mut session = suite.open(&mut wire, 0, 1).unwrap();
    let mut panics = Panics(Script::new(
        LinkFormat::NATIVE,
        [framed(NATIVE, 0xAF, &[7; 48])],
    ));
    let mut buffer = [0xEE; 100];
    let machine = session.read_data(file_no(0), 0..100, &mut buffer);
    let run = || machine.comm_mode(CommMode::Mac).run(&mut panics).map(drop);
    assert!(catch_unwind(AssertUnwindSafe(run)).is_err());
    assert_eq!(buffer, [0; 100]);
    assert_nothing_works(&mut session);
}

/// Lets every exchange wait for another thread before it goes on.
struct Elsewhere(Wire);

impl Link for Elsewhere {
    type Error = Silent;

    fn format(&self) -> LinkFormat {
        self.0.format
    }
}

impl AsyncTransport for Elsewhere {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Silent> {
        let mut woken = false;
        core::future::poll_fn(|context| {
            if core::mem::replace(&mut woken, true) {
                return Poll::Ready(());
            }
            let waker = context.waker().clone();
            std::thread::spawn(move || waker.wake());
            Poll::Pending
        })
        .await;
        self.0.exchange(command, reply)
    }
}

/// The future of a whole run can be sent to another thread and be finished there. That it is `Send`
/// is seen by the compiler.
#[test]
fn futures_can_be_spawned() {
    fn spawn<F: Future<Output = Vec<u8>> + Send + 'static>(
        future: F,
    ) -> std::thread::JoinHandle<Vec<u8>> {
        std::thread::spawn(move || block_on(future))
    }

    for suite in SUITES {
        let data = Seeded(5).bytes(130);
        let file = standard(0, CommMode::Enciphered, data.clone());
        let mut reader = Elsewhere(Wire::new(suite.card([file]), LinkFormat::WRAPPED));
        let key = suite.key(0);
        let read = spawn(async move {
            let session = Session::new();
            let selected = session.select_application(AID).run_async(&mut reader).await;
            let session =
                selected
                    .unwrap()
                    .authenticate(suite.scheme, KeyNo::MASTER, &key, &mut Seeded(6));
            let mut session = session.run_async(&mut reader).await.unwrap();
            session.get_version().run_async(&mut reader).await.unwrap();
            let write = session.write_data(file_no(0), 3, b"from far away");
            write.run_async(&mut reader).await.unwrap();
            let mut buffer = [0; 130];
            let read = session.read_data_to_end(file_no(0), 0, &mut buffer);
            read.run_async(&mut reader).await.unwrap().to_vec()
        });
        let mut expected = data;
        expected[3..16].copy_from_slice(b"from far away");
        assert_eq!(read.join().unwrap(), expected);
    }
}

// ---------------------------------------------------------------------------------------------
// Texts

/// Whether two neighbouring bytes of a secret occur in a text, in any of the usual notations.
fn leaks(text: &str, secret: &[u8]) -> bool {
    let text = text.to_lowercase();
    secret.windows(2).any(|pair| {
        let (a, b) = (pair[0], pair[1]);
        [
            format!("{a:02x}{b:02x}"),
            format!("{a:02x} {b:02x}"),
            format!("{a:02x}, {b:02x}"),
            format!("{a:x}, {b:x}"),
            format!("0x{a:02x}, 0x{b:02x}"),
            format!("{a}, {b}"),
            format!("{a}, \n    {b}"),
        ]
        .iter()
        .any(|form| text.contains(form.as_str()))
    })
}

#[test]
fn texts_hold_no_secrets() {
    for suite in SUITES {
        let mut secrets: Vec<Vec<u8>> = (0..3).map(|number| suite.key_bytes(number)).collect();
        let keys = [0, 1, 2].map(|number| suite.key(number));
        let mut texts: Vec<String> = keys
            .iter()
            .flat_map(|key| [format!("{key:?}"), format!("{key:#?}")])
            .collect();
        // RndA, of which the session key is made.
        secrets.push(Seeded(1).bytes(16));
        let data = Seeded(77).bytes(100);
        secrets.push(data.clone());
        let file = standard(0, CommMode::Enciphered, data);
        let card = suite.card([file]);
        texts.push(format!("{:?}", keys[0]));
        let mut failures: Vec<RunError<Silent>> = Vec::new();
        for case in 0..6 {
            let mut wire = Wire::new(card.clone(), LinkFormat::NATIVE);
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            texts.push(format!("{session:?} {session:#?}"));
            let mut buffer = [0; 100];
            failures.extend(match case {
                0 => session
                    .change_key(key_no(0), &keys[1], &keys[2])
                    .run(&mut wire)
                    .err(),
                1 => session
                    .change_key(key_no(1), &keys[2], &keys[0])
                    .run(&mut wire)
                    .err(),
                2 => session
                    .read_data(file_no(0), 0..101, &mut [0; 101])
                    .run(&mut wire)
                    .err(),
                3 => session
                    .read_data_to_end(file_no(0), 0, &mut buffer[..50])
                    .run(&mut wire)
                    .err(),
                4 => {
                    let mut short = Script::new(LinkFormat::NATIVE, [vec![0; 17]]);
                    session.get_card_uid().run(&mut short).err()
                }
                _ => suite
                    .authenticate(session, &mut wire, 5, 1)
                    .map(|_| ())
                    .err(),
            });
        }
        assert_eq!(failures.len(), 6);
        for failure in &failures {
            let mut source: Option<&dyn core::error::Error> = Some(failure);
            while let Some(error) = source {
                texts.push(format!("{error} {error:?} {error:#?}"));
                source = error.source();
            }
        }
        for text in &texts {
            for secret in &secrets {
                assert!(!leaks(text, secret), "{text}");
            }
        }
    }
    assert!(leaks("[198, 29]", &[0xC6, 0x1D]), "the search can find");
    assert!(leaks("key C61D", &[0xC6, 0x1D]), "the search can find");
}

#[test]
fn errors_say_what_became_of_the_command() {
    let suite = EV1[3];
    let file = value(0, CommMode::Mac, 5);
    let mut wire = Wire::new(suite.card([file]), LinkFormat::NATIVE);
    let mut session = suite.open(&mut wire, 0, 1).unwrap();
    // Not sent.
    let error = session
        .write_data(file_no(0), 0, &[])
        .run(&mut wire)
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::NotSent);
    assert_eq!(
        error.to_string(),
        "WriteData: there is nothing to write (it was not sent)"
    );
    // Refused.
    let amount = Amount::new(i32::MAX).unwrap();
    let error = session
        .debit(file_no(0), amount)
        .run(&mut wire)
        .unwrap_err();
    assert_eq!(error.outcome(), Outcome::Refused);
    let text = error.to_string();
    assert!(
        text.starts_with("Debit: the card refused with BE"),
        "{text}"
    );
    assert!(
        text.ends_with("(the card did not do it; the session is lost)"),
        "{text}"
    );
    assert_eq!(
        error.protocol().and_then(|error| error.status()),
        Some(Status::BoundaryError)
    );
    // Unknown.
    let mut session = suite.open(&mut wire, 0, 1).unwrap();
    let credit = session.credit(file_no(0), Amount::new(1).unwrap());
    credit.run(&mut wire).unwrap();
    wire.card.arrange_fault(desfire_ev1::picc::Fault::LoseReply(
        wire.card.commands() + 1,
    ));
    let error = session.commit_transaction().run(&mut wire).unwrap_err();
    assert_eq!(error.outcome(), Outcome::Unknown);
    assert_eq!(
        error.to_string(),
        "CommitTransaction: the transport is silent (unknown whether the card did it; the session is lost)"
    );
    // It has happened, which nobody could know.
    let mut session = suite.open(&mut wire, 0, 1).unwrap();
    assert_eq!(session.get_value(file_no(0)).run(&mut wire).unwrap(), 6);
}

/// Where the settings had to be asked for and the card refuses them, the error says so; the command
/// that was called was never sent.
#[test]
fn an_error_names_the_command_that_failed() {
    let suite = EV1[3];
    let mut wire = Wire::new(suite.card([]), LinkFormat::NATIVE);
    let mut session = suite.open(&mut wire, 0, 1).unwrap();
    let error = session
        .credit(file_no(9), Amount::new(1).unwrap())
        .run(&mut wire)
        .unwrap_err();
    let error = error.protocol().unwrap();
    assert_eq!(error.command, CommandCode::Credit);
    assert!(error.while_asking && error.session_lost);
    assert_eq!(error.status(), Some(Status::FileNotFound));
    assert_eq!(error.outcome, Outcome::NotSent);
    assert!(error.to_string().starts_with("Credit, while asking for"));
    let (sent, _) = wire.log.last().unwrap();
    assert_eq!(sent[0], 0xF5, "the credit was not sent");
}

// ---------------------------------------------------------------------------------------------

/// Each of these is in a published library for DESFire cards; reference, chapter 12.
mod defects_of_published_libraries {
    use super::*;

    type Succeeds = fn(&mut Session<Authenticated>, &mut dyn Transport<Error = Silent>) -> bool;

    #[test]
    fn a_bare_00_accepted_where_a_mac_is_due() {
        for suite in EV1 {
            let calls: [Succeeds; 8] = [
                |s, t| s.commit_transaction().run(t).is_ok(),
                |s, t| {
                    let write = s.write_data(file_no(0), 0, &[1; 30]);
                    write.comm_mode(CommMode::Enciphered).run(t).is_ok()
                },
                |s, t| {
                    let write = s.write_data(file_no(0), 0, &[1; 30]);
                    write.comm_mode(CommMode::Mac).run(t).is_ok()
                },
                |s, t| {
                    let debit = s.debit(file_no(0), Amount::new(1).unwrap());
                    debit.comm_mode(CommMode::Plain).run(t).is_ok()
                },
                |s, t| s.change_key_settings(KeySettings::DEFAULT).run(t).is_ok(),
                |s, t| s.get_file_ids().run(t).is_ok(),
                |s, t| {
                    let read = s.read_data_to_end(file_no(0), 0, &mut []);
                    read.comm_mode(CommMode::Plain).run(t).is_ok()
                },
                |s, t| s.delete_file(file_no(0)).run(t).is_ok(),
            ];
            for call in calls {
                let (mut puppet, mut session) = with_puppet(suite, |_, _, _| one(vec![]));
                assert!(!call(&mut session, &mut puppet));
                assert_nothing_works(&mut session);
            }
            // ChangeKey of another key, which needs keys of the suite.
            let (mut puppet, mut session) = with_puppet(suite, |_, _, _| one(vec![]));
            let (old, new) = (suite.key(1), suite.key(2));
            let change = session.change_key(key_no(1), &old, &new);
            let error = change.run(&mut puppet).unwrap_err();
            assert_eq!(error.kind(), Some(&Authenticity::MacMissing.into()));
            assert_nothing_works(&mut session);
        }
    }

    #[test]
    fn a_wrong_mac_only_warned_about() {
        for suite in SUITES {
            for mode in [CommMode::Plain, CommMode::Mac] {
                if !suite.is_ev1() && mode == CommMode::Plain {
                    continue;
                }
                let (mut puppet, mut session) = with_puppet(suite, |seal, code, params| {
                    seal.heard(code, params);
                    let mut reply = seal.maced(&[0x42; 16]);
                    *reply.last_mut().unwrap() ^= 0x01;
                    one(reply)
                });
                let mut buffer = [0xEE; 16];
                let read = session.read_data(file_no(0), 0..16, &mut buffer);
                let error = read.comm_mode(mode).run(&mut puppet).unwrap_err();
                assert_eq!(error.kind(), Some(&Authenticity::MacWrong.into()));
                assert_eq!(buffer, [0; 16]);
                assert_nothing_works(&mut session);
            }
        }
    }

    #[test]
    fn enciphered_file_data_returned_without_their_crc_check() {
        for suite in SUITES {
            for to_end in [false, true] {
                // The data are right, in their blocks, and well padded. Only the CRC is not.
                for wrong in 0..4 {
                    let (mut puppet, mut session) = with_puppet(suite, |seal, code, params| {
                        seal.heard(code, params);
                        let data = [0x42; 21];
                        let mut crc = seal.crc(&data);
                        match wrong {
                            0 => crc[0] ^= 1,
                            1 => *crc.last_mut().unwrap() ^= 0x80,
                            2 => crc.fill(0),
                            _ => crc.clear(),
                        }
                        let mut blocks = [&data[..], &crc].concat();
                        if to_end {
                            blocks.push(0x80);
                        }
                        blocks.resize(blocks.len().next_multiple_of(seal.block_len()), 0);
                        one(seal.encrypt(&blocks))
                    });
                    let mut buffer = [0xEE; 32];
                    let result = if to_end {
                        let read = session.read_data_to_end(file_no(0), 0, &mut buffer);
                        read.comm_mode(CommMode::Enciphered).run(&mut puppet)
                    } else {
                        let read = session.read_data(file_no(0), 0..21, &mut buffer[..21]);
                        read.comm_mode(CommMode::Enciphered).run(&mut puppet)
                    };
                    let error = result.unwrap_err();
                    assert_eq!(error.kind(), Some(&Authenticity::CrcWrong.into()));
                    let window = if to_end { 32 } else { 21 };
                    assert!(buffer[..window].iter().all(|byte| *byte == 0));
                    assert_nothing_works(&mut session);
                }
            }
        }
    }

    /// A CRC over less than there is: EV1's covers the status.
    #[test]
    fn an_ev1_crc_over_the_data_alone() {
        for suite in EV1 {
            let (mut puppet, mut session) = with_puppet(suite, |seal, code, params| {
                seal.heard(code, params);
                let data = [0x42; 20];
                let mut blocks = [&data[..], &puppet::crc32(&data)].concat();
                blocks.resize(32, 0);
                one(seal.encrypt(&blocks))
            });
            let mut buffer = [0; 20];
            let read = session.read_data(file_no(0), 0..20, &mut buffer);
            let error = read.comm_mode(CommMode::Enciphered).run(&mut puppet);
            let kind = error.unwrap_err();
            assert_eq!(kind.kind(), Some(&Authenticity::CrcWrong.into()));
        }
    }

    #[test]
    fn a_refused_enciphered_read_that_panics() {
        for suite in SUITES {
            for status in [0xAE, 0x9D, 0xBE, 0xF0, 0x1E, 0xCA] {
                for extra in 0..40 {
                    let (mut puppet, mut session) =
                        with_puppet(suite, |_, _, _| vec![(status, vec![0xA5; extra])]);
                    let mut buffer = [0xEE; 40];
                    let read = session.read_data_to_end(file_no(0), 0, &mut buffer);
                    let error = read.comm_mode(CommMode::Enciphered).run(&mut puppet);
                    let error = error.unwrap_err();
                    let expected = Status::from_byte(status);
                    assert_eq!(error.kind(), Some(&ErrorKind::Refused(expected)));
                    assert_eq!(buffer, [0; 40]);
                    assert_nothing_works(&mut session);
                }
            }
            // And in the middle of an answer.
            let (mut puppet, mut session) =
                with_puppet(suite, |_, _, _| vec![(0xAF, vec![1; 48]), (0xEE, vec![])]);
            let mut buffer = [0xEE; 100];
            let read = session.read_data(file_no(0), 0..100, &mut buffer);
            let error = read.comm_mode(CommMode::Enciphered).run(&mut puppet);
            let expected = ErrorKind::Refused(Status::EepromError);
            assert_eq!(error.unwrap_err().kind(), Some(&expected));
            assert_eq!(buffer, [0; 100]);
        }
    }

    /// A session without authentication has no such methods: these calls reach the ones below,
    /// and would not compile if there were others. What is left is the door for everything,
    /// [`Session::raw`], where the caller says himself what is to be in clear, and
    /// ChangeFileSettings, which travels plain only where the file's Change right is free.
    #[test]
    fn change_key_or_change_key_settings_sent_in_clear_without_a_session() {
        trait Missing {
            fn change_key(&self) -> &str {
                "missing"
            }
            fn change_key_in_use(&self) -> &str {
                "missing"
            }
            fn change_picc_master_key_and_type(&self) -> &str {
                "missing"
            }
            fn change_key_settings(&self) -> &str {
                "missing"
            }
            fn freeze_key_settings_for_ever(&self) -> &str {
                "missing"
            }
            fn get_card_uid(&self) -> &str {
                "missing"
            }
            fn format_picc(&self) -> &str {
                "missing"
            }
            fn delete_application(&self) -> &str {
                "missing"
            }
        }
        impl Missing for Session<Unauthenticated> {}

        let session = at_application();
        assert_eq!(session.change_key(), "missing");
        assert_eq!(session.change_key_in_use(), "missing");
        assert_eq!(session.change_picc_master_key_and_type(), "missing");
        assert_eq!(session.change_key_settings(), "missing");
        assert_eq!(session.freeze_key_settings_for_ever(), "missing");
        assert_eq!(session.get_card_uid(), "missing");
        assert_eq!(session.format_picc(), "missing");
        assert_eq!(session.delete_application(), "missing");

        let mut session = session;
        let mut silent = Script::new(LinkFormat::NATIVE, []);
        for (request, reply) in [
            (CommMode::Enciphered, CommMode::Plain),
            (CommMode::Mac, CommMode::Plain),
            (CommMode::Plain, CommMode::Enciphered),
            (CommMode::Plain, CommMode::Mac),
        ] {
            for code in [CommandCode::ChangeKey, CommandCode::ChangeKeySettings] {
                let mode = RawMode {
                    request,
                    reply,
                    reply_len: None,
                };
                // Not even with words of one's own.
                let raw = session.raw(code, &[0], &[0x5A; 24], &mut [], mode);
                let error = raw.run(&mut silent).unwrap_err();
                assert_eq!(error.outcome(), Outcome::NotSent);
            }
        }
        let change = session.change_file_settings(file_no(0), CommMode::Plain, MASTER_ONLY);
        let error = change.under_key().run(&mut silent).unwrap_err();
        assert_eq!(error.kind(), Some(&Misuse::NotAuthenticated.into()));
        assert!(silent.sent.is_empty());

        // Under a key they are enciphered: neither the key nor the setting is on the air.
        for suite in SUITES {
            let mut wire = Wire::new(suite.card([]), LinkFormat::NATIVE);
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            let from = wire.log.len();
            let (old, new) = (suite.key(1), suite.key(2));
            session
                .change_key(key_no(1), &old, &new)
                .run(&mut wire)
                .unwrap();
            session
                .change_key_settings(KeySettings::DEFAULT)
                .run(&mut wire)
                .unwrap();
            let sent = |index: usize| wire.log[from + index].0.clone();
            let secret = suite.key_bytes(2);
            assert!(
                !sent(0)
                    .windows(4)
                    .any(|four| secret.windows(4).any(|s| s == four))
            );
            assert_eq!(sent(1).len(), 1 + suite.block_len());
        }
    }

    /// Data whose CRC ends in zeros, or in what looks like the mark of the padding, in every form in
    /// which a card may pad.
    ///
    /// Where the length is stated, or follows from the size of the file, there is one right answer,
    /// always. Otherwise a reply can be two things at once, see [`ends`]: then the library says so and
    /// guesses nothing.
    #[test]
    fn zeros_stripped_before_looking_for_the_crc() {
        for suite in SUITES {
            let block_len = suite.block_len();
            let seal = Seal::new(suite, &suite.key_bytes(0));
            let (mut tried, mut unclear) = (0, 0);
            for (end, lens) in [
                (&[0x00][..], 1..=36),
                (&[0x80], 1..=36),
                (&[0x80, 0x00], 6..=21),
                (&[0x00, 0x00], 6..=21),
            ] {
                for len in lens {
                    // Every second one ends in zeros itself.
                    let tail = if len % 2 == 0 { len.min(3) - 1 } else { 0 };
                    let mut random = Seeded(len as u64);
                    let data = (0..2_000_000).find_map(|_| {
                        let mut data = random.bytes(len);
                        data[len - tail..].fill(0);
                        seal.crc(&data).ends_with(end).then_some(data)
                    });
                    // A single byte has 256 CRCs only.
                    let Some(data) = data else {
                        assert!(len < 4, "no data of {len} bytes");
                        continue;
                    };
                    let crc = seal.crc(&data);
                    for form in 0..3 {
                        let mut plain = [&data[..], &crc].concat();
                        if form == 1 || form == 2 && !plain.len().is_multiple_of(block_len) {
                            plain.push(0x80);
                        }
                        plain.resize(plain.len().next_multiple_of(block_len), 0);
                        let ends = ends(&seal, &plain);
                        assert!(ends.contains(&len));
                        for room in [0, 1, block_len, 40] {
                            let open = || {
                                with_puppet(suite, |seal, code, params| {
                                    seal.heard(code, params);
                                    one(seal.encrypt(&plain))
                                })
                            };
                            let (mut puppet, mut session) = open();
                            let mut buffer = vec![0xEE; len + room];
                            let range = 0..len as u32;
                            let read = session.read_data(file_no(0), range, &mut buffer);
                            let read = read.comm_mode(CommMode::Enciphered).run(&mut puppet);
                            assert_eq!(read.unwrap(), data);
                            let mut buffer = vec![0xEE; len + room];
                            let read = session.read_data_to_end(file_no(0), 0, &mut buffer);
                            let read = read.comm_mode(CommMode::Enciphered).run(&mut puppet);
                            let what =
                                format!("{suite:?}, {len} bytes, CRC {crc:02X?}, form {form}");
                            if ends.len() == 1 {
                                assert_eq!(read.unwrap(), data, "{what}");
                                tried += 1;
                            } else {
                                let error = read.unwrap_err();
                                let expected = Misuse::LengthNeeded.into();
                                assert_eq!(error.kind(), Some(&expected), "{what}, {ends:?}");
                                assert_eq!(buffer, vec![0; len + room]);
                                assert_lost(&mut session);
                                unclear += 1;
                                (puppet, session) = open();
                            }
                            // Once it knows how long the file is, it takes no other end.
                            let settings = standard(0, CommMode::Enciphered, vec![0; len + 3]);
                            session.assume_file_settings(file_no(0), &settings.settings());
                            let mut buffer = vec![0xEE; len + room];
                            let read = session.read_data_to_end(file_no(0), 3, &mut buffer);
                            let read = read.comm_mode(CommMode::Enciphered).run(&mut puppet);
                            assert_eq!(read.unwrap(), data, "{what}");
                        }
                    }
                }
            }
            assert!(tried > 700, "{suite:?}: {tried}");
            assert!(unclear > 8, "{suite:?}: {unclear}");
        }
    }

    /// Where data may end in a deciphered reply: everywhere that the CRC of what is before fits and
    /// zeros follow, less than a block of them, or a mark and zeros.
    ///
    /// Without a mark two such places exist if the data end in zero and the first byte of the shorter data's CRC is
    /// zero too, since a zero byte then only shifts the CRC (one in 256 files that end in zero);
    /// under D40 also behind the CRC, if it is followed by two zeros, since the CRC of everything is
    /// zero there.
    fn ends(seal: &Seal, plain: &[u8]) -> Vec<usize> {
        let crc_len = seal.crc(&[]).len();
        (0..=plain.len() - crc_len)
            .filter(|end| {
                let (crc, padding) = plain[*end..].split_at(crc_len);
                let marked = padding.first() == Some(&0x80);
                padding.len() < seal.block_len() + usize::from(marked)
                    && padding[usize::from(marked)..].iter().all(|byte| *byte == 0)
                    && seal.crc(&plain[..*end]) == crc
            })
            .collect()
    }

    /// A file that ends in its own CRC16 has a CRC of zero: with the mark, and with a stated length,
    /// that is no matter.
    #[test]
    fn data_that_end_in_their_own_crc16() {
        for suite in rig::D40 {
            let inner = Seeded(9).bytes(20);
            let data = [&inner[..], &puppet::crc16(&inner)].concat();
            let (mut puppet, mut session) = with_puppet(suite, |seal, _, params| {
                let to_end = params[4..] == [0, 0, 0];
                one(if to_end {
                    seal.mark_padded(&data)
                } else {
                    seal.zero_padded(&data)
                })
            });
            let mut buffer = [0; 22];
            let read = session.read_data_to_end(file_no(0), 0, &mut buffer);
            let read = read.comm_mode(CommMode::Enciphered).run(&mut puppet);
            assert_eq!(read.unwrap(), data);
            let read = session.read_data(file_no(0), 0..22, &mut buffer);
            let read = read.comm_mode(CommMode::Enciphered).run(&mut puppet);
            assert_eq!(read.unwrap(), data);
        }
    }

    /// Only with 16-byte blocks is there a difference. In both directions.
    #[test]
    fn the_last_instead_of_the_first_eight_cmac_bytes() {
        for suite in EV1 {
            for last in [false, true] {
                let mut request_macs = Vec::new();
                let (mut puppet, mut session) = with_puppet(suite, |seal, code, params| {
                    let mac_at = params.len() - 8;
                    let whole = seal.absorb(&[&[code], &params[..mac_at]].concat());
                    request_macs.push((whole, params[mac_at..].to_vec()));
                    let whole = seal.absorb(&[0x00]);
                    one(if last {
                        whole[whole.len() - 8..].to_vec()
                    } else {
                        whole[..8].to_vec()
                    })
                });
                let write = session.write_data(file_no(0), 0, &[7; 20]);
                let result = write.comm_mode(CommMode::Mac).run(&mut puppet);
                drop(puppet);
                let (whole, sent) = &request_macs[0];
                assert_eq!(sent, &whole[..8]);
                if last && suite.key_type == KeyType::Aes {
                    let error = result.unwrap_err();
                    assert_eq!(error.kind(), Some(&Authenticity::MacWrong.into()));
                } else {
                    result.unwrap();
                }
            }
        }
    }

    /// The frames that go out are full and no longer than they may be, and hold as much as data, CRC
    /// and padding together are.
    #[test]
    fn padding_left_out_of_the_frame_computation() {
        for suite in SUITES {
            for framing in FRAMINGS {
                let capacity = match framing {
                    Framing::Native => 59,
                    Framing::Wrapped => 54,
                };
                let file = standard(0, CommMode::Enciphered, vec![0; 256]);
                let format = LinkFormat {
                    framing,
                    max_command: 60,
                };
                let mut wire = Wire::new(suite.card([file]), format);
                let mut session = suite.open(&mut wire, 0, 1).unwrap();
                session
                    .get_file_settings(file_no(0))
                    .run(&mut wire)
                    .unwrap();
                let mut numbers = std::collections::BTreeSet::new();
                for len in 1..=256_usize {
                    let from = wire.log.len();
                    let data = Seeded(len as u64).bytes(len);
                    session
                        .write_data(file_no(0), 0, &data)
                        .run(&mut wire)
                        .unwrap();
                    let frames: Vec<_> = wire.log[from..]
                        .iter()
                        .map(|(sent, _)| command(framing, sent))
                        .collect();
                    let sealed = (len + suite.crc_len()).next_multiple_of(suite.block_len());
                    let expected = (7 + sealed).div_ceil(capacity);
                    assert_eq!(frames.len(), expected, "{suite:?} {framing:?} {len}");
                    numbers.insert(expected);
                    let (last, full) = frames.split_last().unwrap();
                    assert!(full.iter().all(|(_, payload)| payload.len() == capacity));
                    let total: usize = frames.iter().map(|(_, payload)| payload.len()).sum();
                    assert_eq!(total, 7 + sealed);
                    assert!(!last.1.is_empty() && last.1.len() <= capacity);
                    assert_eq!(frames[0].0, 0x3D);
                    assert!(frames[1..].iter().all(|(code, _)| *code == 0xAF));
                    // Only plain data bytes count in the length field.
                    assert_eq!(frames[0].1[4..7], u24(len).to_bytes());
                    let application = wire.card.state().application(AID).unwrap();
                    let FileContent::Standard(content) =
                        application.file(file_no(0)).unwrap().content()
                    else {
                        panic!("another file");
                    };
                    assert_eq!(content[..len], data);
                }
                assert!((1..=5).all(|number| numbers.contains(&number)));
            }
        }
    }

    #[test]
    fn a_key_type_that_prints_itself() {
        for suite in SUITES {
            let key = suite.key(0);
            for text in [format!("{key:?}"), format!("{key:#?}"), format!("{key:x?}")] {
                assert_eq!(text, format!("Key({}, ..)", suite.key_type));
            }
            let clone = key.clone().with_version(0xA7);
            assert!(!leaks(&format!("{clone:?}"), &[0xA7, 0xA7]));
            let error = Key::from_slice(KeyType::Aes, &suite.key_bytes(0)[..8]).unwrap_err();
            assert!(!leaks(&format!("{error:?} {error}"), &suite.key_bytes(0)));
        }
    }

    // File settings that outlive what they were true of

    /// How often GetFileSettings has been sent.
    fn asked(wire: &Wire) -> usize {
        let framing = wire.format.framing;
        wire.log
            .iter()
            .filter(|(sent, _)| command(framing, sent).0 == 0xF5)
            .count()
    }

    fn read_one<S>(session: &mut Session<S>, wire: &mut Wire) -> Result<u8, RunError<Silent>> {
        let mut buffer = [0];
        let read = session.read_data(file_no(0), 0..1, &mut buffer).run(wire)?;
        Ok(read[0])
    }

    #[test]
    fn file_settings_cached_across_applications() {
        for suite in SUITES {
            let other = Aid::new(0x0055_AA55).unwrap();
            let files = [
                standard(0, CommMode::Enciphered, vec![1; 32]),
                standard(0, CommMode::Plain, vec![2; 32]),
            ];
            let [here, there] = files;
            let mut card = suite.card([here]);
            let info = KeyInfo::new(suite.family(), 1).unwrap();
            let application = Application::new(other, KeySettings::DEFAULT, info)
                .with_key(key_no(0), suite.card_key(0))
                .with_file(there);
            card.state_mut().put_application(application).unwrap();
            let mut wire = Wire::new(card, LinkFormat::NATIVE);
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
            assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
            assert_eq!(asked(&wire), 1, "asked for once");
            let session = session.select_application(other).run(&mut wire).unwrap();
            let mut session = suite.authenticate(session, &mut wire, 0, 1).unwrap();
            assert_eq!(read_one(&mut session, &mut wire).unwrap(), 2);
            assert_eq!(asked(&wire), 2);
            // And back.
            let session = session.select_application(AID).run(&mut wire).unwrap();
            let mut session = suite.authenticate(session, &mut wire, 0, 1).unwrap();
            assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
            assert_eq!(asked(&wire), 3);
        }
    }

    #[test]
    fn file_settings_cached_across_cards() {
        for suite in SUITES {
            for (first, second) in [
                (CommMode::Enciphered, CommMode::Plain),
                (CommMode::Plain, CommMode::Enciphered),
            ] {
                let mut wire = Wire::new(
                    suite.card([standard(0, first, vec![1; 32])]),
                    LinkFormat::NATIVE,
                );
                let mut session = suite.open(&mut wire, 0, 1).unwrap();
                assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
                // Another card on the same reader, with the same keys.
                wire.card = suite.card([standard(0, second, vec![2; 32])]);
                assert!(read_one(&mut session, &mut wire).is_err());
                assert_lost(&mut session);
                // Whether the caller makes a new session or goes on with the old one.
                let session = session.select_application(AID).run(&mut wire).unwrap();
                let mut session = suite.authenticate(session, &mut wire, 0, 1).unwrap();
                assert_eq!(read_one(&mut session, &mut wire).unwrap(), 2);
                assert_eq!(asked(&wire), 2);
            }
        }
    }

    #[test]
    fn file_settings_cached_across_delete_file_and_create_file() {
        for suite in SUITES {
            let mut wire = Wire::new(
                suite.card([standard(0, CommMode::Enciphered, vec![1; 32])]),
                LinkFormat::NATIVE,
            );
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
            session.delete_file(file_no(0)).run(&mut wire).unwrap();
            session
                .create_std_data_file(file_no(0), None, CommMode::Plain, MASTER_ONLY, u24(32))
                .run(&mut wire)
                .unwrap();
            assert_eq!(read_one(&mut session, &mut wire).unwrap(), 0);
            assert_eq!(asked(&wire), 2);
            // Of another type, with other rights.
            session.delete_file(file_no(0)).run(&mut wire).unwrap();
            // Nothing is known of what is not there.
            let before = asked(&wire);
            read_one(&mut session, &mut wire).unwrap_err();
            assert_eq!(asked(&wire), before + 1);
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            session
                .create_value_file(
                    file_no(0),
                    CommMode::Enciphered,
                    rights(0xEEEE),
                    0..=9,
                    7,
                    ValueFlags::empty(),
                )
                .run(&mut wire)
                .unwrap();
            assert_eq!(session.get_value(file_no(0)).run(&mut wire).unwrap(), 7);
            assert_eq!(asked(&wire), before + 2);
        }
    }

    #[test]
    fn file_settings_cached_across_change_file_settings() {
        for suite in SUITES {
            let mut wire = Wire::new(
                suite.card([standard(0, CommMode::Enciphered, vec![1; 32])]),
                LinkFormat::NATIVE,
            );
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            for (mode, word) in [
                (CommMode::Plain, 0x0000),
                (CommMode::Mac, 0xEEE0),
                (CommMode::Enciphered, 0x0FF0),
                (CommMode::Mac, 0x1110),
                (CommMode::Plain, 0x000E),
                (CommMode::Enciphered, 0x000E),
                (CommMode::Enciphered, 0x000F),
            ] {
                session
                    .change_file_settings(file_no(0), mode, rights(word))
                    .run(&mut wire)
                    .unwrap();
                let before = asked(&wire);
                match read_one(&mut session, &mut wire) {
                    Ok(byte) => assert_eq!(byte, 1),
                    Err(error) => {
                        assert_eq!(word, 0x1110);
                        let expected = Misuse::AccessDenied(file_no(0));
                        assert_eq!(error.kind(), Some(&expected.into()));
                        assert_eq!(error.outcome(), Outcome::NotSent);
                    }
                }
                assert_eq!(asked(&wire), before + 1);
            }
            // Now nobody may change them.
            let error = session
                .change_file_settings(file_no(0), CommMode::Plain, MASTER_ONLY)
                .run(&mut wire)
                .unwrap_err();
            assert_eq!(error.outcome(), Outcome::NotSent);
        }
    }

    /// The command that was to change the settings is lost on the way back: they may have changed.
    #[test]
    fn file_settings_cached_across_a_lost_session() {
        for suite in SUITES {
            let mut wire = Wire::new(
                suite.card([standard(0, CommMode::Enciphered, vec![1; 32])]),
                LinkFormat::NATIVE,
            );
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
            let next = wire.card.commands() + 1;
            wire.card
                .arrange_fault(desfire_ev1::picc::Fault::LoseReply(next));
            session
                .change_file_settings(file_no(0), CommMode::Plain, MASTER_ONLY)
                .run(&mut wire)
                .unwrap_err();
            let session = session.select_application(AID).run(&mut wire).unwrap();
            let mut session = suite.authenticate(session, &mut wire, 0, 1).unwrap();
            assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
            assert_eq!(asked(&wire), 2);
        }
    }

    /// The same with a machine that was forgotten: nobody has told the session that it is lost, but
    /// the card has changed the settings.
    #[test]
    fn file_settings_cached_across_a_forgotten_machine() {
        for suite in SUITES {
            let mut wire = Wire::new(
                suite.card([standard(0, CommMode::Enciphered, vec![1; 32])]),
                LinkFormat::NATIVE,
            );
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
            let mut change = session.change_file_settings(file_no(0), CommMode::Plain, MASTER_ONLY);
            let sent = change.start(LinkFormat::NATIVE).unwrap().to_vec();
            core::mem::forget(change);
            wire.card.handle(&sent);
            // It has to be selected, and then nothing is known.
            let error = suite.authenticate(session, &mut wire, 0, 1).unwrap_err();
            assert_eq!(error.kind(), Some(&Misuse::SessionLost.into()));
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
            assert_eq!(asked(&wire), 2);
        }
    }

    /// Settings that nothing protected must not decide how an EV1 session protects data: whoever
    /// altered them would get an enciphered file's content sent in clear.
    #[test]
    fn file_settings_learned_without_a_mac_used_in_an_ev1_session() {
        let secret = b"for the card's eyes only";
        // As the attacker wants them: standard file, plain, all rights with key 0, 32 bytes.
        let forged = || {
            let reply = vec![0x00, 0x00, 0x00, 0x00, 0x00, 0x20, 0x00, 0x00];
            Script::new(LinkFormat::NATIVE, [reply])
        };
        for suite in EV1 {
            let card = || suite.card([standard(0, CommMode::Enciphered, vec![1; 32])]);
            let write = |mut session: Session<Authenticated>, mut wire: Wire| {
                let written = session.write_data(file_no(0), 0, secret).run(&mut wire);
                let in_clear = |(sent, _): &(Vec<u8>, Vec<u8>)| {
                    sent.windows(secret.len()).any(|window| window == secret)
                };
                assert!(!wire.log.iter().any(in_clear), "{suite:?}: sent in clear");
                written.unwrap();
            };
            // Learned before there was any session.
            let mut wire = Wire::new(card(), LinkFormat::NATIVE);
            let mut before = Session::new()
                .select_application(AID)
                .run(&mut wire)
                .unwrap();
            before
                .get_file_settings(file_no(0))
                .run(&mut forged())
                .unwrap();
            let session = suite.authenticate(before, &mut wire, 0, 1).unwrap();
            write(session, wire);
            // What the caller has stated himself stays, before and after.
            let mut wire = Wire::new(card(), LinkFormat::NATIVE);
            let mut before = Session::new()
                .select_application(AID)
                .run(&mut wire)
                .unwrap();
            let application = wire.card.state().application(AID).unwrap();
            let settings = application.file(file_no(0)).unwrap().settings();
            before.assume_file_settings(file_no(0), &settings);
            let mut session = suite.authenticate(before, &mut wire, 0, 1).unwrap();
            assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
            assert_eq!(asked(&wire), 0);
            // And what an EV1 session has learned stays for the next.
            let mut wire = Wire::new(card(), LinkFormat::NATIVE);
            let mut session = suite.open(&mut wire, 0, 1).unwrap();
            session
                .get_file_settings(file_no(0))
                .run(&mut wire)
                .unwrap();
            let mut session = suite.authenticate(session, &mut wire, 0, 2).unwrap();
            assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
            assert_eq!(asked(&wire), 1);
        }
        // D40 protects them no better, and the same key can go on with EV1 messaging.
        for (d40, ev1) in rig::D40.into_iter().zip(EV1) {
            let mut wire = Wire::new(
                d40.card([standard(0, CommMode::Enciphered, vec![1; 32])]),
                LinkFormat::NATIVE,
            );
            let mut session = d40.open(&mut wire, 0, 1).unwrap();
            session
                .get_file_settings(file_no(0))
                .run(&mut forged())
                .unwrap();
            let mut session = ev1.authenticate(session, &mut wire, 0, 1).unwrap();
            session
                .write_data(file_no(0), 0, secret)
                .run(&mut wire)
                .unwrap();
            assert_eq!(asked(&wire), 1);
        }
    }

    /// What a caller states about a file is his to state, and is gone with the selection.
    #[test]
    fn assumed_file_settings() {
        let suite = EV1[3];
        let mut wire = Wire::new(
            suite.card([standard(0, CommMode::Enciphered, vec![1; 32])]),
            LinkFormat::NATIVE,
        );
        let settings = |mode| -> FileSettings {
            let content = FileContent::Standard(vec![0; 32]);
            File::new(file_no(0), mode, MASTER_ONLY, content).settings()
        };
        let mut session = suite.open(&mut wire, 0, 1).unwrap();
        session.assume_file_settings(file_no(0), &settings(CommMode::Enciphered));
        assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
        assert_eq!(asked(&wire), 0);
        // Wrong ones make the card's answer unreadable, never readable wrongly.
        session.assume_file_settings(file_no(0), &settings(CommMode::Mac));
        let error = read_one(&mut session, &mut wire).unwrap_err();
        let expected = Malformed::TooLong.into();
        assert_eq!(error.kind(), Some(&expected), "two blocks are too many");
        let mut session = suite.open(&mut wire, 0, 1).unwrap();
        assert_eq!(read_one(&mut session, &mut wire).unwrap(), 1);
        assert_eq!(asked(&wire), 1);
    }

    /// A card, or somebody in its place, that sends a challenge where none is due never gets a
    /// second answer: with two answers under one nonce it could learn about the key.
    #[test]
    fn a_second_challenge_answered_on_a_stale_session() {
        for suite in SUITES {
            let nonce_len = suite.key_type.nonce_len();
            let challenge = |byte| framed(NATIVE, 0xAF, &vec![byte; nonce_len]);
            let key = suite.key(0);
            // In the handshake, in the place of the proof.
            let mut machine =
                at_application().authenticate(suite.scheme, KeyNo::MASTER, &key, &mut Seeded(1));
            machine.start(LinkFormat::NATIVE).unwrap();
            assert!(matches!(machine.step(&challenge(1)), Ok(Step::Transmit(_))));
            let Err(error) = machine.step(&challenge(2)) else {
                panic!("a second answer");
            };
            assert_eq!(error.kind, Malformed::Handshake.into());
            out_of_turn(&mut machine, &challenge(2), Outcome::Unknown);
            assert!(machine.start(LinkFormat::NATIVE).is_err());

            // In a session, as the answer to any command.
            for count in 0..3 {
                let mut wire = Wire::new(suite.card([]), LinkFormat::NATIVE);
                let mut session = suite.open(&mut wire, 0, 1).unwrap();
                let mut script = Script::new(LinkFormat::NATIVE, vec![challenge(3); 3]);
                let result = match count {
                    0 => session.commit_transaction().run(&mut script),
                    1 => session.get_key_settings().run(&mut script).map(drop),
                    _ => session.get_version().run(&mut script).map(drop),
                };
                assert!(result.is_err());
                // At most it is asked for the rest of the answer.
                assert!(script.sent[1..].iter().all(|sent| *sent == [0xAF]));
                assert_nothing_works(&mut session);
            }

            // A new handshake has a new nonce, also for an old challenge.
            let token = |rng: &mut getrandom::SysRng| {
                let mut machine =
                    at_application().authenticate(suite.scheme, KeyNo::MASTER, &key, rng);
                machine.start(LinkFormat::NATIVE).unwrap();
                match machine.step(&challenge(1)) {
                    Ok(Step::Transmit(token)) => token.to_vec(),
                    _ => panic!("no token"),
                }
            };
            let tokens = [token(&mut getrandom::SysRng), token(&mut getrandom::SysRng)];
            assert_ne!(tokens[0], tokens[1]);
        }
    }
}
