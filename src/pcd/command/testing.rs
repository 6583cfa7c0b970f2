//! Runs a machine against literal bytes.

use std::vec::Vec;

use crate::error::{Error, Outcome};
use crate::pcd::auth::{SessionKey, answer};
use crate::pcd::exchange::{LinkFormat, Machine, Step};
use crate::pcd::key::Key;
use crate::pcd::session::{Authenticated, Level, Place, Session};
use crate::wire::{Aid, AuthScheme, CommandFrame, Framing, KeyNo, ReplyFrame};

/// Hex digits to bytes; blanks may separate them.
pub(crate) fn hex(text: &str) -> Vec<u8> {
    let digits: Vec<u8> = text
        .bytes()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    assert!(digits.len().is_multiple_of(2), "odd hex: {text}");
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// Runs `machine` natively; every frame it sends must be as in `script`, which has pairs of
/// command and reply.
pub(crate) fn native<M: Machine>(machine: M, script: &[(&str, &str)]) -> Result<M::Output, Error> {
    exchange(machine, LinkFormat::NATIVE, script)
}

/// The same with every frame wrapped by `wire`'s own functions, which have literal tests.
pub(crate) fn wrapped<M: Machine>(machine: M, script: &[(&str, &str)]) -> Result<M::Output, Error> {
    exchange(machine, LinkFormat::WRAPPED, script)
}

fn exchange<M: Machine>(
    mut machine: M,
    format: LinkFormat,
    script: &[(&str, &str)],
) -> Result<M::Output, Error> {
    let mut sent = machine.start(format)?.to_vec();
    for (index, (command, reply)) in script.iter().enumerate() {
        let (mut command, mut reply) = (hex(command), hex(reply));
        if format.framing == Framing::Wrapped {
            let mut out = [0; 80];
            let frame = CommandFrame::parse(Framing::Native, &command).unwrap();
            let len = frame.encode(Framing::Wrapped, &mut out).unwrap();
            command = out[..len].to_vec();
            let frame = ReplyFrame::parse(Framing::Native, &reply).unwrap();
            let len = frame.encode(Framing::Wrapped, &mut out).unwrap();
            reply = out[..len].to_vec();
        }
        assert_eq!(sent, command, "frame {index}");
        match machine.step(&reply)? {
            Step::Transmit(next) => sent = next.to_vec(),
            Step::Done(output) => {
                assert_eq!(index + 1, script.len(), "done before the script");
                return Ok(output);
            }
        }
    }
    panic!("the script ended before the machine, which goes on with {sent:02X?}");
}

/// Runs an ISO machine: one APDU and its answer.
pub(crate) fn iso<M: Machine>(
    mut machine: M,
    command: &str,
    reply: &str,
) -> Result<M::Output, Error> {
    let sent = machine.start(LinkFormat::WRAPPED)?;
    assert_eq!(sent, hex(command));
    match machine.step(&hex(reply))? {
        Step::Transmit(next) => panic!("an ISO command goes on with {next:02X?}"),
        Step::Done(output) => Ok(output),
    }
}

/// A machine that must not send anything.
pub(crate) fn refused_unsent<M: Machine>(mut machine: M) -> Error {
    let error = machine
        .start(LinkFormat::NATIVE)
        .expect_err("nothing should be sent");
    assert_eq!(error.outcome, Outcome::NotSent);
    error
}

/// A session as a handshake with these nonces leaves it.
pub(crate) fn session(
    scheme: AuthScheme,
    key: &Key,
    rnd_a: &str,
    rnd_b: &str,
    selected: u32,
) -> Session<Authenticated> {
    let (key_no, place) = (
        KeyNo::MASTER,
        Place {
            level: match selected {
                0 => Level::Picc,
                aid => Level::Application(Aid::new(aid).unwrap()),
            },
            files: crate::pcd::protection::FileCache::EMPTY,
            pending: crate::pcd::session::Pending::Nothing,
        },
    );
    let session_key = session_key(scheme, key, rnd_a, rnd_b);
    Session::opened(&session_key, key_no, key.key_type(), place)
}

fn session_key(scheme: AuthScheme, key: &Key, rnd_a: &str, rnd_b: &str) -> SessionKey {
    use crate::pcd::crypto::cipher::{Cipher, Iv};
    let cipher = Cipher::new(key);
    let mut challenge = hex(rnd_b);
    cipher.cbc_encrypt(&mut Iv::ZERO.clone(), &mut challenge);
    let mut nonce = [0; 16];
    let rnd_a = hex(rnd_a);
    nonce[..rnd_a.len()].copy_from_slice(&rnd_a);
    let answer = answer(scheme, key, &nonce, &challenge).unwrap();
    let proof = answer.expected_for_testing_only();
    answer.verify(&proof).unwrap()
}
