//! The phone's part: bytes between a card and the server, and nothing that is worth anything.
//!
//! For: playing batches on a card, keeping the card alive in pauses, starting over when something
//! breaks. May know: messages, readers. May not know: keys; what the frames say matters for showing
//! them only.
//!
//! **Starting over** is all that ever happens after a failure: the card is activated anew, the server
//! asked anew, with the same voucher. No frame is ever sent a second time; what became of the first
//! try the server finds out from the card.

use std::fmt;
use std::time::{Duration, Instant};

use desfire_ev1::wire::{Aid, Framing, KeyNo, Uid};
use desfire_ev1::{Link, LinkFormat, Transport, VirtualReader};
use tokio::time::MissedTickBehavior;

use crate::message::{
    End, Finished, FromPhone, FromServer, Hello, Reason, Step, as_expected, opening,
};
use crate::wires::{Wire, WireTrouble};

/// Room for a card's reply.
const MAX_REPLY: usize = 258;

/// A card at a phone.
pub trait Tapped: Transport<Error: fmt::Display> + Send {
    /// Activates the card anew and tells its UID; any session with it is over.
    ///
    /// # Errors
    /// There is no card.
    fn activate(&mut self) -> Result<Uid, Self::Error>;

    /// Shows the card that it is still wanted, below the level at which commands travel, so that no
    /// session can notice.
    ///
    /// # Errors
    /// The card is gone.
    fn keep_alive(&mut self) -> Result<(), Self::Error>;
}

/// A software card on a reader that resets it after a silence, as some phones do.
pub struct SoftwareCard {
    reader: VirtualReader,
    silence: Option<Duration>,
    last: Instant,
}

impl SoftwareCard {
    /// `silence`: after how long without a sign of life the card is reset.
    #[must_use]
    pub fn new(reader: VirtualReader, silence: Option<Duration>) -> Self {
        Self {
            reader,
            silence,
            last: Instant::now(),
        }
    }

    /// The card.
    pub const fn card_mut(&mut self) -> &mut desfire_ev1::picc::Card {
        self.reader.card_mut()
    }

    /// The reader.
    pub fn into_reader(self) -> VirtualReader {
        self.reader
    }

    /// Resets the card if it was left alone for too long.
    fn sign_of_life(&mut self) {
        if self
            .silence
            .is_some_and(|silence| self.last.elapsed() > silence)
        {
            self.reader.card_mut().activate();
        }
        self.last = Instant::now();
    }
}

impl Link for SoftwareCard {
    type Error = desfire_ev1::CardMute;

    fn format(&self) -> LinkFormat {
        self.reader.format()
    }
}

impl Transport for SoftwareCard {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        self.sign_of_life();
        Transport::exchange(&mut self.reader, command, reply)
    }
}

impl Tapped for SoftwareCard {
    fn activate(&mut self) -> Result<Uid, Self::Error> {
        let activation = self.reader.card_mut().activate();
        self.last = Instant::now();
        let uid: [u8; 7] = activation
            .uid
            .first_chunk()
            .copied()
            .ok_or(desfire_ev1::CardMute)?;
        Ok(Uid(uid))
    }

    fn keep_alive(&mut self) -> Result<(), Self::Error> {
        self.sign_of_life();
        Ok(())
    }
}

/// What a phone is set up with.
#[derive(Clone)]
pub struct Phone {
    /// Whose account it is.
    pub token: Vec<u8>,
    /// The voucher, or nothing to see the balance.
    pub voucher: Vec<u8>,
    /// Play the opening before saying hello: one round trip less.
    pub opening: Option<(Aid, KeyNo)>,
    /// The period of the keep-alive; none if zero.
    pub keep_alive: Duration,
    /// How long the server may take.
    pub patience: Duration,
    /// How many times to start over at most.
    pub tries: u32,
}

/// What a watcher of the phone sees.
#[derive(Debug)]
pub enum Seen<'a> {
    /// A conversation begins.
    Begins {
        /// Which try.
        attempt: u32,
        /// The card.
        uid: Uid,
    },
    /// A message goes to the server.
    Says(&'a FromPhone, usize),
    /// A message has come from the server.
    Hears(&'a FromServer, usize),
    /// A frame and the card's reply.
    Exchange {
        /// To the card.
        frame: &'a [u8],
        /// From the card; nothing if it did not answer.
        reply: Option<&'a [u8]>,
        /// How they are framed.
        framing: Framing,
    },
    /// It has to be done again.
    StartsOver(&'a PhoneError),
}

/// Why a phone did not come to its end.
#[derive(Debug, thiserror::Error)]
pub enum PhoneError {
    /// The connection.
    #[error(transparent)]
    Wire(#[from] WireTrouble),
    /// The card.
    #[error("no card: {0}")]
    Card(String),
    /// The server says no.
    #[error("{reason}")]
    Refused {
        /// Why.
        reason: Reason,
        /// After how many seconds it is worth trying again.
        retry_after: u16,
    },
    /// The server does not keep to the protocol.
    #[error("the server sent what does not belong here: {0}")]
    Protocol(String),
}

impl PhoneError {
    /// Whether starting over may help, and after how long.
    fn start_over(&self) -> Option<Duration> {
        match self {
            Self::Wire(WireTrouble::Full(seconds)) => Some(Duration::from_secs(*seconds)),
            Self::Wire(_) => Some(Duration::from_millis(300)),
            Self::Refused {
                reason,
                retry_after,
            } if reason.passes() || reason.tap_again() => {
                Some(Duration::from_secs((*retry_after).into()).max(Duration::from_millis(50)))
            }
            _ => None,
        }
    }
}

impl Phone {
    /// Tops up, starting over as often as it is allowed to.
    ///
    /// # Errors
    /// The last try's.
    pub async fn top_up<C: Tapped, W: Wire, F: Future<Output = Result<W, WireTrouble>>>(
        &self,
        card: &mut C,
        mut connect: impl FnMut() -> F,
        mut seen: impl FnMut(Seen<'_>),
    ) -> Result<Finished, PhoneError> {
        let mut attempt = 1;
        loop {
            let tried = self.attempt(card, &mut connect, attempt, &mut seen).await;
            let error = match tried {
                Ok(finished) => return Ok(finished),
                Err(error) => error,
            };
            let pause = error.start_over().filter(|_| attempt < self.tries);
            let Some(pause) = pause else {
                return Err(error);
            };
            seen(Seen::StartsOver(&error));
            tokio::time::sleep(pause).await;
            attempt = attempt.saturating_add(1);
        }
    }

    async fn attempt<C: Tapped, W: Wire, F: Future<Output = Result<W, WireTrouble>>>(
        &self,
        card: &mut C,
        connect: &mut impl FnMut() -> F,
        attempt: u32,
        seen: &mut impl FnMut(Seen<'_>),
    ) -> Result<Finished, PhoneError> {
        let mut wire = connect().await?;
        let gone = |error: C::Error| PhoneError::Card(error.to_string());
        let uid = card.activate().map_err(gone)?;
        seen(Seen::Begins { attempt, uid });
        let format = card.format();
        let mut played = Vec::new();
        if let Some((aid, key_no)) = self.opening {
            let steps = opening(format.framing, aid, key_no);
            let steps = steps.map_err(|error| PhoneError::Protocol(error.to_string()))?;
            let (end, replies) = play(card, &steps, seen);
            if end == End::Complete {
                played = replies;
            }
        }
        let mut message = FromPhone::Hello(Hello {
            format,
            uid,
            token: self.token.clone(),
            voucher: self.voucher.clone(),
            opening: played,
        });
        loop {
            let heard = self.exchange(card, &mut wire, &message, seen).await?;
            match heard {
                FromServer::Play { batch, steps } => {
                    let (end, replies) = play(card, &steps, seen);
                    message = FromPhone::Played {
                        batch,
                        end,
                        replies,
                    };
                }
                FromServer::Finished(finished) => return Ok(finished),
                FromServer::Refused {
                    reason,
                    retry_after,
                } => {
                    return Err(PhoneError::Refused {
                        reason,
                        retry_after,
                    });
                }
            }
        }
    }

    /// One message to the server and its answer; the card is kept alive meanwhile.
    async fn exchange<C: Tapped, W: Wire>(
        &self,
        card: &mut C,
        wire: &mut W,
        message: &FromPhone,
        seen: &mut impl FnMut(Seen<'_>),
    ) -> Result<FromServer, PhoneError> {
        let bytes = message
            .encode()
            .map_err(|error| PhoneError::Protocol(error.to_string()))?;
        seen(Seen::Says(message, bytes.len()));
        let answer = tokio::time::timeout(self.patience, wire.exchange(bytes));
        let mut answer = std::pin::pin!(answer);
        let period = Some(self.keep_alive).filter(|period| !period.is_zero());
        let mut ticks = tokio::time::interval(period.unwrap_or(Duration::MAX / 4));
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        ticks.reset();
        let answer = loop {
            tokio::select! {
                biased;
                answer = answer.as_mut() => break answer,
                _ = ticks.tick(), if period.is_some() => {
                    // A card that is gone shows at the next frame.
                    let _ = card.keep_alive();
                }
            }
        };
        let bytes = answer.map_err(|_| WireTrouble::Slow)??;
        let heard =
            FromServer::parse(&bytes).map_err(|error| PhoneError::Protocol(error.to_string()))?;
        seen(Seen::Hears(&heard, bytes.len()));
        Ok(heard)
    }
}

/// Plays a batch: frame by frame, until one is not answered as expected.
pub fn play<C: Tapped>(
    card: &mut C,
    steps: &[Step],
    seen: &mut impl FnMut(Seen<'_>),
) -> (End, Vec<Vec<u8>>) {
    let framing = card.format().framing;
    let mut replies = Vec::new();
    for step in steps {
        let mut buffer = [0; MAX_REPLY];
        let len = card.exchange(&step.frame, &mut buffer);
        let reply = len.ok().and_then(|len| buffer.get(..len));
        seen(Seen::Exchange {
            frame: &step.frame,
            reply,
            framing,
        });
        // What does not fit into a message is no card's answer.
        let Some(reply) = reply.filter(|reply| reply.len() < 256) else {
            return (End::CardGone, replies);
        };
        replies.push(reply.to_vec());
        if !as_expected(framing, step.expected, reply) {
            return (End::Unexpected, replies);
        }
    }
    (End::Complete, replies)
}
