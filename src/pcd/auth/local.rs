//! Both halves of a handshake in one process, as one machine.

use rand_core::TryCryptoRng;
use zeroize::Zeroizing;

use super::{Answer, HandshakeStep, TerminalHandshake, answer};
use crate::error::{Error, ErrorKind, Malformed, Misuse};
use crate::pcd::exchange::{LinkFormat, Machine, Step};
use crate::pcd::key::Key;
use crate::pcd::session::{Authenticated, Place, Session};
use crate::wire::{AuthScheme, Instruction, KeyNo};

/// A handshake with a key at hand: `0A`, `1A` or `AA` and its continuation.
///
/// | frame | to the card | from the card |
/// |---|---|---|
/// | 1 | `INS KeyNo` | `AF E(RndB)` (8 or 16 bytes) |
/// | 2 | `AF token` (16 or 32 bytes) | `00 E(RndA')` (8 or 16 bytes) |
///
/// Made by [`Session::authenticate_aes`] and its like. Starting it ends whatever session there
/// was, on the card too; it does not abort a pending transaction.
#[must_use = "a handshake does nothing until it is run"]
pub struct Authenticate<'k> {
    terminal: TerminalHandshake,
    scheme: AuthScheme,
    key: &'k Key,
    key_no: KeyNo,
    /// The nonce, or why there is none.
    rnd_a: Result<Zeroizing<[u8; 16]>, ErrorKind>,
    answer: Option<Answer>,
    place: Option<Place>,
}

impl<'k> Authenticate<'k> {
    pub(in crate::pcd) fn new(
        scheme: AuthScheme,
        key_no: KeyNo,
        key: &'k Key,
        rnd_a: Result<Zeroizing<[u8; 16]>, ErrorKind>,
        place: Place,
    ) -> Self {
        Self {
            terminal: TerminalHandshake::new(scheme, key_no),
            scheme,
            key,
            key_no,
            rnd_a,
            answer: None,
            place: Some(place),
        }
    }

    /// Draws the nonce, where it stays: moved, it would leave a copy behind.
    pub(in crate::pcd) fn draw<R: TryCryptoRng + ?Sized>(&mut self, rng: &mut R) {
        if let Ok(rnd_a) = &mut self.rnd_a
            && rng.try_fill_bytes(rnd_a.as_mut()).is_err()
        {
            self.rnd_a = Err(ErrorKind::Randomness);
        }
    }
}

impl Machine for Authenticate<'_> {
    type Output = Session<Authenticated>;

    fn command(&self) -> Instruction {
        self.terminal.command().into()
    }

    fn start(&mut self, format: LinkFormat) -> Result<&[u8], Error> {
        let not_sent = |kind| Error::not_sent(self.scheme.command(), kind).session_gone(true);
        // Before anything is sent: a handshake that is bound to fail would end a session.
        if !self.scheme.accepts(self.key.key_type()) {
            return Err(not_sent(Misuse::KeyType(self.key.key_type()).into()));
        }
        if let Err(kind) = &self.rnd_a {
            return Err(not_sent(*kind));
        }
        let needed = 2 * self.key.key_type().nonce_len();
        let available = format.payload_capacity();
        if needed > available {
            let narrow = Misuse::TransportTooNarrow { needed, available };
            return Err(not_sent(narrow.into()));
        }
        self.terminal.start(format)
    }

    fn step(&mut self, reply: &[u8]) -> Result<Step<'_, Self::Output>, Error> {
        let command = self.command();
        let unknown = |kind| Error::unknown(command, kind);
        match self.terminal.received(reply)? {
            HandshakeStep::Challenge(challenge) => {
                let rnd_a = self.rnd_a.as_ref().map_err(|kind| unknown(*kind))?;
                let answer = answer(self.scheme, self.key, rnd_a, &challenge).map_err(unknown)?;
                let answer = self.answer.insert(answer);
                self.terminal.token(answer.token()).map(Step::Transmit)
            }
            HandshakeStep::Proof(proof) => {
                let verified = self.answer.as_ref().map(|answer| answer.verify(&proof));
                // Dropped where it lies; taken out, it would leave its bytes behind.
                self.answer = None;
                let (Some(verified), Some(place)) = (verified, self.place.take()) else {
                    return Err(unknown(Malformed::Handshake.into()));
                };
                let key = verified.map_err(unknown)?;
                Ok(Step::Done(Session::opened(
                    &key,
                    self.key_no,
                    self.key.key_type(),
                    place,
                )))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcd::exchange::LinkFormat;
    use crate::pcd::session::Session;

    /// A link that cannot carry the token is refused before the handshake begins, which would end a session
    /// on the card; one that just can is taken.
    #[test]
    fn as_much_as_the_link_takes() {
        for (scheme, key, needed) in [
            (AuthScheme::Aes, Key::aes([0; 16]), 32),
            (AuthScheme::Iso, Key::three_key_3des([0; 24]), 32),
            (AuthScheme::Iso, Key::des([0; 8]), 16),
            (AuthScheme::Legacy, Key::des([0; 8]), 16),
        ] {
            let start = |max_command| {
                let format = LinkFormat {
                    max_command,
                    ..LinkFormat::NATIVE
                };
                let session = Session::new();
                let mut machine = session.authenticate_with_fixed_nonce_for_testing_only(
                    scheme,
                    KeyNo::MASTER,
                    &key,
                    [0; 16],
                );
                machine.start(format).map(<[u8]>::to_vec)
            };
            assert_eq!(
                start(1 + needed).unwrap(),
                [scheme.command().to_byte(), 0x00]
            );
            let error = start(needed).unwrap_err();
            let available = needed - 1;
            let narrow = Misuse::TransportTooNarrow { needed, available };
            assert_eq!(error.kind, narrow.into());
            assert_eq!(error.outcome, crate::error::Outcome::NotSent);
        }
    }

    /// What is no answer to a wrapped command is told apart from a refusal.
    #[test]
    fn other_status_words() {
        use crate::wire::{StatusWord, WireError};
        for (answer, kind) in [
            ([0x6A, 0x82], ErrorKind::RefusedIso(StatusWord::NOT_FOUND)),
            ([0x90, 0x00], WireError::StatusWord(StatusWord::OK).into()),
        ] {
            let key = Key::aes([0; 16]);
            let session = Session::new();
            let mut machine = session.authenticate_with_fixed_nonce_for_testing_only(
                AuthScheme::Aes,
                KeyNo::MASTER,
                &key,
                [0; 16],
            );
            machine.start(LinkFormat::WRAPPED).unwrap();
            let error = machine.step(&answer).map(|_| ()).err();
            assert_eq!(error.map(|error| error.kind), Some(kind));
        }
    }

    #[test]
    fn out_of_turn() {
        use crate::error::Outcome;
        let key = Key::aes([0; 16]);
        let session = Session::new();
        let (scheme, key_no) = (AuthScheme::Aes, KeyNo::MASTER);
        let mut machine =
            session.authenticate_with_fixed_nonce_for_testing_only(scheme, key_no, &key, [0; 16]);
        for (step, outcome) in [(true, Outcome::NotSent), (false, Outcome::Unknown)] {
            let error = machine.step(&[0xAF; 17]).map(|_| ()).unwrap_err();
            if step {
                assert_eq!(error.kind, Misuse::OutOfTurn.into());
                machine.start(LinkFormat::NATIVE).unwrap();
                machine.step(&[0xAE]).map(|_| ()).unwrap_err();
            }
            assert_eq!((error.outcome, error.session_lost), (outcome, true));
        }
        let error = machine.start(LinkFormat::NATIVE).unwrap_err();
        assert_eq!(error.kind, Misuse::OutOfTurn.into());
        assert_eq!(error.outcome, Outcome::Unknown);
    }
}
