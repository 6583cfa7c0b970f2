//! The terminal's half of a tap: it has the card and no card key. No heap.
//!
//! | step | machine or call | leaves |
//! |---|---|---|
//! | ask the card | [`Tap`] | [`Waiting`], with the [`Challenge`] for the key holder |
//! | card-locked | [`Waiting::card_locked`], [`Unlock`] | the session |
//! | proven | [`Waiting::proven`], [`Prove`], [`Proven::release`] | the session |
//! | script | [`Waiting::script`], [`Player`] | the receipt |

use super::answer::{self, CardLocked, ProofMessage};
use super::challenge::{Challenge, Intent, Mode};
use super::error::TerminalError;
use super::message::{Binding, Message};
use super::player::Player;
use super::transport_key::TransportKey;
use crate::error::{Authenticity, Error, ErrorKind, Misuse};
use crate::pcd::doors::{Opened, Opening, Proved, Proving};
use crate::wire::{Instruction, KeyType};
use crate::{Authenticated, LinkFormat, Machine, Session, Step, Unauthenticated};

/// The first machine of a tap: asks the card for its challenge.
///
/// It ends whatever session there was. While the key holder is asked, the card waits: it answers
/// any other command with an error and has to be selected again.
#[must_use = "a tap does nothing until it is run"]
pub struct Tap {
    opening: Opening,
    intent: Intent,
    transport: TransportKey,
}

impl Tap {
    /// On the application that is selected. `key` is the transport key that `intent` names.
    pub fn new(session: Session<Unauthenticated>, intent: Intent, key: &TransportKey) -> Self {
        Self {
            opening: Opening::new(session, intent.scheme, intent.key_no, intent.key_type),
            intent,
            transport: key.clone(),
        }
    }
}

impl Machine for Tap {
    type Output = Waiting;

    fn command(&self) -> Instruction {
        self.opening.command()
    }

    fn start(&mut self, format: LinkFormat) -> Result<&[u8], Error> {
        if self.intent.mode == Mode::Remote {
            let misuse = Misuse::Invalid("in remote mode the key holder asks the card: use Relay");
            return Err(Error::not_sent(self.intent.scheme.command(), misuse).session_gone(true));
        }
        self.opening.start(format)
    }

    fn step(&mut self, reply: &[u8]) -> Result<Step<'_, Waiting>, Error> {
        match self.opening.step(reply)? {
            Step::Transmit(next) => Ok(Step::Transmit(next)),
            Step::Done(opened) => {
                let mut format = opened.format();
                format.max_command = format.max_command.min(crate::wire::frame::MAX_COMMAND);
                let challenge = Challenge {
                    intent: self.intent,
                    aid: opened.selected(),
                    format,
                    cryptogram: opened.challenge(),
                };
                let binding = Binding::new(&challenge, &self.transport).map_err(|error| {
                    Error::unknown(self.intent.scheme.command(), Misuse::Parameter(error))
                })?;
                Ok(Step::Done(Waiting {
                    opened,
                    challenge,
                    binding,
                }))
            }
        }
    }
}

/// A challenge as it travels.
pub type ChallengeMessage = Message<{ Challenge::MAX_LEN }>;

/// A card that waits for the key holder's answer.
///
/// Whatever is wrong with the answer, this value is used up: select the application again.
pub struct Waiting {
    opened: Opened,
    challenge: Challenge,
    binding: Binding,
}

impl Waiting {
    /// What the key holder is asked.
    #[must_use]
    pub const fn challenge(&self) -> &Challenge {
        &self.challenge
    }

    /// The message for the key holder.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn message(&self) -> Result<ChallengeMessage, TerminalError> {
        Ok(self.challenge.seal(self.binding.transport())?)
    }

    fn only_for(&self, mode: Mode) -> Result<(), TerminalError> {
        let asked = self.challenge.intent.mode;
        if asked == mode {
            Ok(())
        } else {
            Err(TerminalError::WrongMode { asked })
        }
    }

    /// Goes on with a card-locked answer.
    ///
    /// # Errors
    /// [`TerminalError::Message`], [`TerminalError::WrongMode`].
    pub fn card_locked(self, message: &[u8]) -> Result<Unlock, TerminalError> {
        self.only_for(Mode::CardLocked)?;
        let locked = CardLocked::open(&self.binding, message)?;
        Ok(Unlock {
            proving: self.opened.token(locked.token),
            locked,
            binding: self.binding,
            key_type: self.challenge.intent.key_type,
        })
    }

    /// Goes on with the token of a proven release.
    ///
    /// # Errors
    /// [`TerminalError::Message`], [`TerminalError::WrongMode`].
    pub fn proven(self, message: &[u8]) -> Result<Prove, TerminalError> {
        self.only_for(Mode::Proven)?;
        let token = answer::open_token(&self.binding, message)?;
        Ok(Prove {
            proving: self.opened.token(token),
            challenge: self.challenge,
            binding: self.binding,
        })
    }

    /// Goes on with a script. What the card answers is collected in `receipt`, which must have
    /// room for all of it: that is checked before anything is sent.
    ///
    /// # Errors
    /// [`TerminalError::Message`], [`TerminalError::WrongMode`],
    /// [`TerminalError::BufferTooSmall`].
    pub fn script<'s>(
        self,
        message: &'s [u8],
        receipt: &'s mut [u8],
    ) -> Result<Player<'s>, TerminalError> {
        self.only_for(Mode::Script)?;
        Player::new(self.opened, self.binding, message, receipt)
    }
}

/// Sends the token of a card-locked answer and unlocks the session key with what the card says.
#[must_use = "a handshake does nothing until it is run"]
pub struct Unlock {
    proving: Proving,
    locked: CardLocked,
    binding: Binding,
    key_type: KeyType,
}

impl Machine for Unlock {
    type Output = Session<Authenticated>;

    fn command(&self) -> Instruction {
        self.proving.command()
    }

    fn start(&mut self, format: LinkFormat) -> Result<&[u8], Error> {
        self.proving.start(format)
    }

    /// # Errors
    /// [`Authenticity::ProofWrong`] if what the card has said does not unlock the session key.
    fn step(&mut self, reply: &[u8]) -> Result<Step<'_, Self::Output>, Error> {
        let command = self.proving.command();
        match self.proving.step(reply)? {
            Step::Transmit(next) => Ok(Step::Transmit(next)),
            Step::Done(proved) => {
                let key = self
                    .locked
                    .unlock(&self.binding, &proved.proof(), self.key_type)
                    .ok_or_else(|| {
                        Error::unknown(command, ErrorKind::from(Authenticity::ProofWrong))
                    })?;
                Ok(Step::Done(proved.session(&key)))
            }
        }
    }
}

/// Sends the token of a proven release and hears the card's proof.
#[must_use = "a handshake does nothing until it is run"]
pub struct Prove {
    proving: Proving,
    challenge: Challenge,
    binding: Binding,
}

impl Machine for Prove {
    type Output = Proven;

    fn command(&self) -> Instruction {
        self.proving.command()
    }

    fn start(&mut self, format: LinkFormat) -> Result<&[u8], Error> {
        self.proving.start(format)
    }

    fn step(&mut self, reply: &[u8]) -> Result<Step<'_, Proven>, Error> {
        match self.proving.step(reply)? {
            Step::Transmit(next) => Ok(Step::Transmit(next)),
            Step::Done(proved) => Ok(Step::Done(Proven {
                proved,
                challenge: self.challenge,
                binding: self.binding.clone(),
            })),
        }
    }
}

/// A card that has given its proof, which the key holder has to check.
pub struct Proven {
    proved: Proved,
    challenge: Challenge,
    binding: Binding,
}

impl Proven {
    /// The message for the key holder.
    ///
    /// # Errors
    /// None that a caller can cause.
    pub fn message(&self) -> Result<ProofMessage, TerminalError> {
        Ok(answer::proof(&self.binding, &self.proved.proof())?)
    }

    /// The session, with the key that the key holder has released.
    ///
    /// # Errors
    /// [`TerminalError::Message`].
    pub fn release(self, message: &[u8]) -> Result<Session<Authenticated>, TerminalError> {
        let key = answer::open_release(
            &self.binding,
            &self.proved.proof(),
            super::holder::messaging(&self.challenge),
            self.challenge.intent.key_type,
            message,
        )?;
        Ok(self.proved.session(&key))
    }
}
