//! The card's half of a handshake as two machines, with a pause between them in which the answer
//! comes from wherever the key is.
//!
//! | machine | to the card | from the card | leaves |
//! |---|---|---|---|
//! | [`Opening`] | `INS KeyNo` | `AF E(RndB)` | [`Opened`], the card waiting for the token |
//! | [`Proving`] | `AF token` | `00 E(RndA')` | [`Proved`], to be believed by who has the key |

use super::{HandshakeStep, SessionKey, TerminalHandshake};
use crate::error::{Error, ErrorKind, Malformed, Misuse};
use crate::pcd::exchange::{LinkFormat, Machine, Step};
use crate::pcd::session::{Authenticated, Place, Session, Unauthenticated};
use crate::wire::{Aid, AuthScheme, InlineBytes, Instruction, KeyNo, KeyType};

/// Asks the card for its challenge.
#[must_use = "a handshake does nothing until it is run"]
pub(crate) struct Opening {
    terminal: TerminalHandshake,
    key_type: KeyType,
    key_no: KeyNo,
    scheme: AuthScheme,
    format: LinkFormat,
    /// What is selected, or why there is no handshake.
    place: Result<Place, ErrorKind>,
}

impl Opening {
    pub(crate) fn new(
        session: Session<Unauthenticated>,
        scheme: AuthScheme,
        key_no: KeyNo,
        key_type: KeyType,
    ) -> Self {
        let place = match session.inner.ready() {
            Err(misuse) => Err(misuse.into()),
            Ok(()) if !scheme.accepts(key_type) => Err(Misuse::KeyType(key_type).into()),
            // The answer is bound to the AID: there has to be one.
            Ok(()) if session.selected().is_none() => Err(Misuse::Invalid(
                "an application selected by its ISO name has no known AID; select it by AID",
            )
            .into()),
            Ok(()) => Ok(session.inner.place),
        };
        Self {
            terminal: TerminalHandshake::new(scheme, key_no),
            key_type,
            key_no,
            scheme,
            format: LinkFormat::NATIVE,
            place,
        }
    }
}

impl Machine for Opening {
    type Output = Opened;

    fn command(&self) -> Instruction {
        self.terminal.command().into()
    }

    fn start(&mut self, format: LinkFormat) -> Result<&[u8], Error> {
        let not_sent = |kind| Error::not_sent(self.scheme.command(), kind).session_gone(true);
        if let Err(kind) = &self.place {
            return Err(not_sent(*kind));
        }
        let needed = 2 * self.key_type.nonce_len();
        let available = format.payload_capacity();
        if needed > available {
            let narrow = Misuse::TransportTooNarrow { needed, available };
            return Err(not_sent(narrow.into()));
        }
        self.format = format;
        self.terminal.start(format)
    }

    fn step(&mut self, reply: &[u8]) -> Result<Step<'_, Opened>, Error> {
        let unknown = |kind: ErrorKind| Error::unknown(self.scheme.command(), kind);
        match self.terminal.received(reply)? {
            HandshakeStep::Challenge(challenge) => {
                let expected = self.key_type.nonce_len();
                if challenge.len() != expected {
                    let received = challenge.len();
                    return Err(unknown(Malformed::Length { expected, received }.into()));
                }
                let place = core::mem::replace(&mut self.place, Err(Misuse::OutOfTurn.into()));
                let fresh = TerminalHandshake::new(self.scheme, self.key_no);
                Ok(Step::Done(Opened {
                    terminal: core::mem::replace(&mut self.terminal, fresh),
                    challenge,
                    key_type: self.key_type,
                    key_no: self.key_no,
                    scheme: self.scheme,
                    format: self.format,
                    place: place.map_err(unknown)?,
                }))
            }
            HandshakeStep::Proof(_) => Err(unknown(Malformed::Handshake.into())),
        }
    }
}

/// A card that waits for the token.
pub(crate) struct Opened {
    terminal: TerminalHandshake,
    challenge: InlineBytes<16>,
    key_type: KeyType,
    key_no: KeyNo,
    scheme: AuthScheme,
    format: LinkFormat,
    place: Place,
}

impl Opened {
    /// E(RndB).
    pub(crate) const fn challenge(&self) -> InlineBytes<16> {
        self.challenge
    }

    /// How the link wants its bytes.
    pub(crate) const fn format(&self) -> LinkFormat {
        self.format
    }

    /// What is selected.
    pub(crate) const fn selected(&self) -> Aid {
        self.place.selected()
    }

    /// The command, the key's number and type.
    pub(crate) const fn key(&self) -> (AuthScheme, KeyNo, KeyType) {
        (self.scheme, self.key_no, self.key_type)
    }

    /// Goes on with the key holder's token.
    pub(crate) const fn token(self, token: InlineBytes<32>) -> Proving {
        Proving {
            opened: Some(self),
            token,
        }
    }
}

/// Sends the token and hears the card's proof.
#[must_use = "a handshake does nothing until it is run"]
pub(crate) struct Proving {
    opened: Option<Opened>,
    token: InlineBytes<32>,
}

impl Proving {
    fn opened(&mut self) -> Result<&mut Opened, Error> {
        self.opened.as_mut().ok_or_else(|| {
            Error::not_sent(AuthScheme::Aes.command(), Misuse::OutOfTurn).session_gone(true)
        })
    }
}

impl Machine for Proving {
    type Output = Proved;

    fn command(&self) -> Instruction {
        let scheme = self
            .opened
            .as_ref()
            .map_or(AuthScheme::Aes, |opened| opened.scheme);
        scheme.command().into()
    }

    /// The format is the one that the handshake was opened with.
    fn start(&mut self, _format: LinkFormat) -> Result<&[u8], Error> {
        let token = self.token;
        let opened = self.opened.as_mut().ok_or_else(|| {
            Error::not_sent(AuthScheme::Aes.command(), Misuse::OutOfTurn).session_gone(true)
        })?;
        opened.terminal.token(&token)
    }

    fn step(&mut self, reply: &[u8]) -> Result<Step<'_, Proved>, Error> {
        let proof = match self.opened()?.terminal.received(reply)? {
            HandshakeStep::Proof(proof) => proof,
            HandshakeStep::Challenge(_) => {
                return Err(Error::unknown(self.command(), Malformed::Handshake));
            }
        };
        let command = self.command();
        match self.opened.take() {
            Some(opened) => Ok(Step::Done(Proved { opened, proof })),
            None => Err(Error::unknown(command, Misuse::OutOfTurn)),
        }
    }
}

/// A card that has said its last word, which somebody has to believe.
pub(crate) struct Proved {
    opened: Opened,
    proof: InlineBytes<16>,
}

impl Proved {
    /// E(RndA').
    pub(crate) const fn proof(&self) -> InlineBytes<16> {
        self.proof
    }

    /// The session, under the key that the handshake has made.
    pub(crate) fn session(self, key: &SessionKey) -> Session<Authenticated> {
        let Opened {
            key_no,
            key_type,
            place,
            ..
        } = self.opened;
        Session::opened(key, key_no, key_type, place)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As a handshake with the key at hand: before anything is sent, the link has to have room for the token.
    #[test]
    fn as_much_as_the_link_takes() {
        for (scheme, key_type, needed) in [
            (AuthScheme::Aes, KeyType::Aes, 32),
            (AuthScheme::Iso, KeyType::ThreeKey3Des, 32),
            (AuthScheme::Legacy, KeyType::Des, 16),
        ] {
            let start = |max_command| {
                let format = LinkFormat {
                    max_command,
                    ..LinkFormat::NATIVE
                };
                let mut machine = Opening::new(Session::new(), scheme, KeyNo::MASTER, key_type);
                machine.start(format).map(<[u8]>::len)
            };
            assert_eq!(start(1 + needed), Ok(2));
            let error = start(needed).unwrap_err();
            let available = needed - 1;
            let narrow = Misuse::TransportTooNarrow { needed, available };
            assert_eq!(error.kind, narrow.into());
            assert_eq!(error.outcome, crate::error::Outcome::NotSent);
        }
    }

    /// A token from elsewhere may be longer than the handshake's: it is never sent in part.
    #[test]
    fn a_token_that_does_not_fit() {
        let format = LinkFormat {
            max_command: 1 + 16,
            ..LinkFormat::NATIVE
        };
        for (len, fits) in [(16, true), (17, false), (32, false)] {
            let (scheme, key_type) = (AuthScheme::Legacy, KeyType::Des);
            let mut opening = Opening::new(Session::new(), scheme, KeyNo::MASTER, key_type);
            opening.start(format).unwrap();
            let Ok(Step::Done(opened)) = opening.step(&[0xAF, 1, 2, 3, 4, 5, 6, 7, 8]) else {
                panic!("no challenge");
            };
            let token = InlineBytes::new(&[9; 32][..len]).unwrap();
            let mut proving = opened.token(token);
            let started = proving.start(format).map(<[u8]>::len);
            assert_eq!(started.is_ok(), fits, "{len}: {started:?}");
        }
    }
}
