//! The phone as a transport: what the library sends to the card goes over the network.
//!
//! For: carrying frames to the phone and replies back, as many as possible in one message, within a
//! time and until the server stops. May know: messages. May not know: keys, money, what the frames
//! say.
//!
//! A machine of the library wants one reply for one frame. Where the frames after it are known before
//! the reply is there (reading commands do not depend on it), the conversation announces them with
//! [`PhoneLink::announce`]; they travel together, and the machines find their replies here already. An
//! announcement that does not come true is an error: nothing is ever guessed.

use std::collections::VecDeque;
use std::time::Duration;

use desfire_ev1::wire::Status;
use desfire_ev1::{AsyncTransport, Link, LinkFormat};
use tokio::time::{Instant, timeout_at};
use tokio_util::sync::CancellationToken;

use crate::message::{End, FromPhone, FromServer, MAX_STEPS, Reason, Step, as_expected};

/// The way to one phone: whole messages, in order.
pub trait Pipe: Send {
    /// Sends one.
    ///
    /// # Errors
    /// The phone is gone.
    fn send(&mut self, message: Vec<u8>) -> impl Future<Output = Result<(), Gone>> + Send;

    /// Waits for the next. Must be safe to drop: no message may get lost by that.
    ///
    /// # Errors
    /// The phone is gone, or has sent what is no message.
    fn receive(&mut self) -> impl Future<Output = Result<Vec<u8>, Gone>> + Send;
}

/// The phone is not there any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the connection to the phone is gone")]
pub struct Gone;

/// Why no reply came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// The connection.
    #[error(transparent)]
    Gone(#[from] Gone),
    /// The card.
    #[error("the card does not answer the phone")]
    CardGone,
    /// The phone took too long.
    #[error("the phone took too long")]
    Timeout,
    /// The phone said what it could not say here.
    #[error("the phone does not keep to the protocol")]
    Protocol,
    /// The server stops, and this conversation can be given up.
    #[error("the server stops")]
    Stopping,
    /// A frame was announced and another one came: a mistake in this program.
    #[error("another frame was announced")]
    NotAnnounced,
}

impl LinkError {
    /// What the phone is told.
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Gone(_) | Self::CardGone => Reason::Interrupted,
            Self::Timeout => Reason::Timeout,
            Self::Protocol | Self::NotAnnounced => Reason::Protocol,
            Self::Stopping => Reason::Busy,
        }
    }
}

/// How long a phone may take.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For one message.
    pub message: Duration,
    /// For the whole conversation.
    pub conversation: Duration,
}

/// Frames that go together with the next one.
struct Announced {
    /// The status with which the next one must be answered.
    expected: Status,
    then: Vec<Step>,
}

/// The transport to a card at a phone.
pub struct PhoneLink<P> {
    pipe: P,
    format: LinkFormat,
    batch: u16,
    announced: VecDeque<Announced>,
    /// Frames that the phone has played, with the card's replies, which nobody has asked for yet.
    played: VecDeque<(Vec<u8>, Vec<u8>)>,
    patience: Patience,
    deadline: Instant,
    stop: CancellationToken,
    committed: bool,
    frames: u16,
    round_trips: u16,
}

impl<P: Pipe> PhoneLink<P> {
    /// A link that has not heard anything yet; the time for the conversation runs from here.
    pub fn new(pipe: P, patience: Patience, stop: CancellationToken) -> Self {
        Self {
            pipe,
            format: LinkFormat::WRAPPED,
            batch: 0,
            announced: VecDeque::new(),
            played: VecDeque::new(),
            patience,
            deadline: Instant::now() + patience.conversation,
            stop,
            committed: false,
            frames: 0,
            round_trips: 0,
        }
    }

    /// Waits for the next message of the phone.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn hear(&mut self) -> Result<FromPhone, LinkError> {
        let until = (Instant::now() + self.patience.message).min(self.deadline);
        let received = timeout_at(until, self.pipe.receive());
        let bytes = if self.committed {
            received.await
        } else {
            tokio::select! {
                biased;
                () = self.stop.cancelled() => return Err(LinkError::Stopping),
                received = received => received,
            }
        };
        let bytes = bytes.map_err(|_| LinkError::Timeout)??;
        self.round_trips = self.round_trips.saturating_add(1);
        FromPhone::parse(&bytes).map_err(|_| LinkError::Protocol)
    }

    /// Tells the phone something that needs no answer.
    ///
    /// # Errors
    /// [`LinkError`].
    pub async fn say(&mut self, message: &FromServer) -> Result<(), LinkError> {
        let bytes = message.encode().map_err(|_| LinkError::Protocol)?;
        let until = Instant::now() + self.patience.message;
        timeout_at(until, self.pipe.send(bytes))
            .await
            .map_err(|_| LinkError::Timeout)??;
        Ok(())
    }

    /// How the phone's reader wants its bytes.
    pub const fn set_format(&mut self, format: LinkFormat) {
        self.format = format;
    }

    /// From here on only the phone's own deadlines end the conversation, not the server's stop.
    pub const fn see_it_through(&mut self) {
        self.committed = true;
    }

    /// Announces that `then` will follow the next frame that goes to the phone, if that one is
    /// answered with `expected`. Several announcements are for several such frames.
    pub fn announce(&mut self, expected: Status, then: Vec<Step>) {
        self.announced.push_back(Announced { expected, then });
    }

    /// Takes replies that the phone has collected before it was asked: `steps` are what it was to
    /// play. They prove nothing until the machines have looked at them.
    pub fn take_played(&mut self, steps: &[Step], replies: Vec<Vec<u8>>) {
        let frames = steps.iter().map(|step| step.frame.clone());
        self.count_frames(replies.len());
        self.played.extend(frames.zip(replies));
    }

    fn count_frames(&mut self, more: usize) {
        let more = u16::try_from(more).unwrap_or(u16::MAX);
        self.frames = self.frames.saturating_add(more);
    }

    /// Frames that a card has answered, and messages of the phone, so far.
    #[must_use]
    pub const fn count(&self) -> (u16, u16) {
        (self.frames, self.round_trips)
    }

    /// Has the phone play `steps` and returns the card's replies: all of them, or those up to the
    /// first with another status than was expected.
    ///
    /// # Errors
    /// [`LinkError`]; the card may have got any of the frames.
    pub async fn play(&mut self, steps: Vec<Step>) -> Result<Vec<Vec<u8>>, LinkError> {
        self.batch = self.batch.wrapping_add(1);
        let message = FromServer::Play {
            batch: self.batch,
            steps,
        };
        self.say(&message).await?;
        let FromPhone::Played {
            batch,
            end,
            replies,
        } = self.hear().await?
        else {
            return Err(LinkError::Protocol);
        };
        let FromServer::Play { steps, .. } = message else {
            return Err(LinkError::Protocol);
        };
        let complete = replies.len() == steps.len();
        let all_expected = steps
            .iter()
            .zip(&replies)
            .all(|(step, reply)| as_expected(self.format.framing, step.expected, reply));
        let honest = match end {
            End::Complete => complete && all_expected,
            End::Unexpected => !replies.is_empty() && replies.len() <= steps.len(),
            End::CardGone => !complete && replies.len() < steps.len(),
        };
        // A batch that was answered before, or not asked for, is not this one.
        if batch != self.batch || !honest {
            return Err(LinkError::Protocol);
        }
        if end == End::CardGone && replies.is_empty() {
            return Err(LinkError::CardGone);
        }
        self.count_frames(replies.len());
        Ok(replies)
    }
}

impl<P> Link for PhoneLink<P> {
    type Error = LinkError;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl<P: Pipe> AsyncTransport for PhoneLink<P> {
    async fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, LinkError> {
        if self.played.is_empty() {
            let announced = self.announced.pop_front();
            let (expected, then) =
                announced.map_or((None, Vec::new()), |a| (Some(a.expected), a.then));
            let mut steps = vec![Step {
                // Alone it may be answered as the card likes: the machine looks at it.
                expected: expected.unwrap_or(Status::Ok),
                frame: command.to_vec(),
            }];
            steps.extend(then.into_iter().take(MAX_STEPS.saturating_sub(1)));
            let frames: Vec<_> = steps.iter().map(|step| step.frame.clone()).collect();
            let replies = self.play(steps).await?;
            self.played.extend(frames.into_iter().zip(replies));
        }
        let (frame, answer) = self.played.pop_front().ok_or(LinkError::CardGone)?;
        if frame != command {
            self.played.clear();
            return Err(LinkError::NotAnnounced);
        }
        let room = reply.get_mut(..answer.len()).ok_or(LinkError::Protocol)?;
        room.copy_from_slice(&answer);
        Ok(answer.len())
    }
}
