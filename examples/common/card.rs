//! Selecting and authenticating, as the examples do it.

use std::fmt;

use desfire_ev1::wire::{Aid, AuthScheme, CommandFrame, Framing, IsoInstruction, KeyNo, KeyType};
use desfire_ev1::wire::{Status, Version};
use desfire_ev1::{
    Authenticated, Key, Machine as _, RunError, Session, Traced, Transport, Unauthenticated,
};

use super::{AnyReader, Context as _, Outcome, ReaderError, Show, hex_lines, note};

/// The card of an example; commands run on it.
pub type Card = Traced<AnyReader, Show>;

/// How a command on it fails.
pub type Failure = RunError<ReaderError>;

/// A card whose bytes are shown on standard error, if wanted.
pub fn watch(reader: AnyReader, trace: bool) -> Card {
    let show: Show = Box::new(move |command, reply| {
        if trace {
            note(format_args!("  {}", name(command)));
            for line in hex_lines('>', command)
                .into_iter()
                .chain(hex_lines('<', reply))
            {
                note(line);
            }
        }
    });
    Traced::new(reader, show)
}

/// What a command's bytes are called.
fn name(command: &[u8]) -> String {
    if let [0x00, ins, _, _, ..] = command {
        let known = IsoInstruction::ALL;
        let found = known.iter().find(|known| known.to_byte() == *ins);
        return found.map_or("ISO command", |found| found.name()).to_owned();
    }
    let framing = match command {
        [0x90, _, _, _, _, ..] => Framing::Wrapped,
        _ => Framing::Native,
    };
    CommandFrame::parse(framing, command).map_or_else(
        |_| "unknown command".to_owned(),
        |frame| frame.code.to_string(),
    )
}

/// Has a card that has been lost in the middle of something answer again: it is as if it had been
/// taken away and put back. It must be the same card.
pub fn activate_again(card: &mut Card, before: &Version) -> Outcome<()> {
    match card.get_mut() {
        AnyReader::Software(reader) => {
            reader.card_mut().activate();
        }
        #[cfg(feature = "pcsc")]
        AnyReader::Pcsc(lost) => {
            let reader = lost.reader().to_owned();
            // It is held exclusively until it is let go.
            *card.get_mut() = AnyReader::Software(Box::default());
            *card.get_mut() = super::open_pcsc(Some(&reader))?;
        }
    }
    // All of it: a card with a random ID hides its UID.
    if version(card)? == *before {
        Ok(())
    } else {
        Err("this is another card".into())
    }
}

/// What the card is; also the way to find out whether it is a DESFire at all.
pub fn version(card: &mut impl Transport<Error = ReaderError>) -> Outcome<Version> {
    // Another program may have left a session on it, in which the answer would be another one.
    select(card, Aid::PICC)
        .and_then(|mut session| session.get_version().run(card))
        .context("the card does not say what it is; is it a DESFire?")
}

/// Selects an application, or the card itself, from any state.
pub fn select<T: Transport>(
    card: &mut T,
    aid: Aid,
) -> Result<Session<Unauthenticated>, RunError<T::Error>> {
    match Session::new().select_application(aid).run(card) {
        // What was unfinished is dropped; now it will do.
        Err(error) if error.status() == Some(Status::CommandAborted) => {
            Session::new().select_application(aid).run(card)
        }
        done => done,
    }
}

/// Authenticates by the command that goes with the key and the card's generation.
pub fn authenticate(
    card: &mut Card,
    session: Session<Unauthenticated>,
    version: &Version,
    key_no: KeyNo,
    key: &Key,
) -> Result<Session<Authenticated>, Failure> {
    let scheme = match key.key_type() {
        KeyType::Aes => AuthScheme::Aes,
        // EV1's predecessor knows nothing else.
        KeyType::Des | KeyType::TwoKey3Des if version.hardware.major == 0 => AuthScheme::Legacy,
        _ => AuthScheme::Iso,
    };
    session
        .authenticate(scheme, key_no, key, &mut getrandom::SysRng)
        .run(card)
}

/// Says of a failed authentication that the key is a wrong one, unless it is the reader that failed.
pub fn proved<T>(answer: Result<T, Failure>, wrong_key: impl fmt::Display) -> Outcome<T> {
    match answer {
        Err(error @ RunError::Transport { .. }) => Err(error.into()),
        answer => answer.context(wrong_key),
    }
}
