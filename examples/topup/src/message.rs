//! What phone and server say to each other: small binary messages, the same over WebSocket and
//! HTTP.
//!
//! For: their layout and its limits. Pure functions from bytes to values and back; may know the
//! crate's wire types, may not know what a conversation does with them. No message holds a key or
//! anything from which one could be made.
//!
//! Every message is `version kind body`; numbers are least significant byte first; a text or a run
//! of bytes is its length in one byte and then itself. Nothing may follow the last field, and no
//! message is longer than [`MAX_MESSAGE`].
//!
//! | kind | from | body |
//! |---|---|---|
//! | `01` Hello | phone | framing, longest command, UID (7), account token, voucher, replies to [`opening`] |
//! | `02` Played | phone | number of the batch (2), how it ended, replies |
//! | `81` Play | server | number of the batch (2), steps: expected status, frame |
//! | `82` Finished | server | how, balance (4), amount (4), frames (2), round trips (2) |
//! | `83` Refused | server | reason, seconds until it is worth trying again (2) |
//!
//! A **batch** is a list of frames that the phone sends to the card one after the other, each with
//! the status that is expected of it. The phone stops at the first other status and returns all
//! replies up to and including that one. So exchanges whose next frame does not depend on the reply
//! cost one round trip over the network together.

use desfire_ev1::LinkFormat;
use desfire_ev1::wire::frame::MAX_COMMAND;
use desfire_ev1::wire::{
    Aid, CommandCode, CommandFrame, Framing, KeyNo, Reader, ReplyFrame, Status, Uid, WireError,
};

/// The version of this layout; a peer that says another is refused.
pub const VERSION: u8 = 1;
/// The longest message in bytes: [`MAX_STEPS`] replies of 62 bytes with their lengths, and a head.
pub const MAX_MESSAGE: usize = 1100;
/// The most frames in a batch.
pub const MAX_STEPS: usize = 16;
/// The longest account token in bytes.
pub const MAX_TOKEN: usize = 64;
/// The longest voucher code in bytes.
pub const MAX_VOUCHER: usize = 32;

/// Why bytes are no message, or a message cannot be put into bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MessageError {
    /// The other side speaks another version.
    #[error("the message is of version {0} and this program speaks version {VERSION}")]
    Version(u8),
    /// No such kind of message, or not from this side.
    #[error("there is no message of kind {0:02X}")]
    Kind(u8),
    /// Longer than any message may be, or with more parts.
    #[error("the message is too long")]
    TooLong,
    /// A field holds what it cannot hold.
    #[error("the field {0} holds what it cannot hold")]
    Field(&'static str),
    /// The bytes end too early or go on after the end.
    #[error(transparent)]
    Wire(#[from] WireError),
}

/// One frame for the card, and the status with which it must be answered for the batch to go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// `00` or `AF`.
    pub expected: Status,
    /// The command in the framing that the phone has asked for.
    pub frame: Vec<u8>,
}

/// How a batch ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Every frame was answered as expected.
    Complete,
    /// The last reply has another status than was expected, and the rest was not sent.
    Unexpected,
    /// The card did not answer the frame after the last reply.
    CardGone,
}

/// What the phone says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromPhone {
    /// A card is there, and this account wants this voucher on it.
    Hello(Hello),
    /// A batch is over.
    Played {
        /// The number of the batch.
        batch: u16,
        /// How it ended.
        end: End,
        /// The card's replies, in order.
        replies: Vec<Vec<u8>>,
    },
}

/// The phone's first message.
#[derive(Clone, PartialEq, Eq)]
pub struct Hello {
    /// How the phone's reader wants its bytes.
    pub format: LinkFormat,
    /// What the card gave as its UID; nothing proves it until the card has authenticated.
    pub uid: Uid,
    /// Whose account it is.
    pub token: Vec<u8>,
    /// The voucher to spend; empty to see the balance only.
    pub voucher: Vec<u8>,
    /// The card's replies to [`opening`], if the phone has played it already.
    pub opening: Vec<Vec<u8>>,
}

/// Token and voucher are worth money: they are never printed.
impl std::fmt::Debug for Hello {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Hello")
            .field("format", &self.format)
            .field("uid", &self.uid)
            .field("with_voucher", &!self.voucher.is_empty())
            .field("opening", &self.opening.len())
            .finish_non_exhaustive()
    }
}

/// How a conversation ended that was not refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The balance was read, nothing else was asked for.
    Balance,
    /// The voucher's amount is on the card now.
    Credited,
    /// The voucher's amount had already come onto this card, in an earlier conversation.
    AlreadyCredited,
}

/// Why the server does not go on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Reason {
    /// The server has as many conversations as it takes, or is about to stop.
    #[error("the server is busy; try again later")]
    Busy,
    /// This account has as many conversations as one may have, or begins them too often.
    #[error("too many top-ups at once with this account; try again later")]
    TooMany,
    /// No such account.
    #[error("there is no such account")]
    Account,
    /// The card is not registered for this account.
    #[error("this card is not registered for this account")]
    ForeignCard,
    /// Another conversation with this card is going on.
    #[error("another top-up of this card is going on; try again in a few seconds")]
    CardInUse,
    /// The card has not proved to be the one it says it is, or what came was altered on the way.
    #[error("the card has not proved to be genuine; hold it to the phone again")]
    NotGenuine,
    /// No such voucher for this account.
    #[error("there is no such voucher for this account")]
    Voucher,
    /// The voucher has been spent.
    #[error("this voucher has been spent")]
    Spent,
    /// The voucher is reserved by a top-up with an unknown end.
    #[error("a top-up of another card with this voucher is not settled; tap that card")]
    Unsettled,
    /// The amount does not fit onto the card, or the card refused it; nothing was spent.
    #[error("the card does not take the amount; the voucher is not spent")]
    Amount,
    /// The card went away before anything could have changed on it; nothing was spent.
    #[error("the card went away; the voucher is not spent, hold the card to the phone again")]
    Interrupted,
    /// It is unknown whether the card was credited: the next tap of the same card tells.
    #[error("it is not known yet whether the card was credited; hold the same card to the phone")]
    Unknown,
    /// The ledger cannot be reached.
    #[error("the books cannot be reached; try again later")]
    Ledger,
    /// A message that is none, or that does not belong here.
    #[error("a message was not understood")]
    Protocol,
    /// No answer in time.
    #[error("the phone took too long")]
    Timeout,
    /// The card was topped up in other ways since an unsettled top-up; a person must look at it.
    #[error("an old top-up of this card cannot be settled by itself; ask the service desk")]
    Desk,
}

/// Every reason with its byte; the index is the byte.
const REASONS: [Reason; 16] = [
    Reason::Busy,
    Reason::TooMany,
    Reason::Account,
    Reason::ForeignCard,
    Reason::CardInUse,
    Reason::NotGenuine,
    Reason::Voucher,
    Reason::Spent,
    Reason::Unsettled,
    Reason::Amount,
    Reason::Interrupted,
    Reason::Unknown,
    Reason::Ledger,
    Reason::Protocol,
    Reason::Timeout,
    Reason::Desk,
];

impl Reason {
    /// Whether starting over later may end better, without anybody doing anything else.
    #[must_use]
    pub const fn passes(self) -> bool {
        matches!(
            self,
            Self::Busy | Self::TooMany | Self::CardInUse | Self::Ledger
        )
    }

    /// Whether holding the same card to the phone again is what helps.
    #[must_use]
    pub const fn tap_again(self) -> bool {
        matches!(
            self,
            Self::NotGenuine | Self::Interrupted | Self::Unknown | Self::Timeout
        )
    }
}

/// How a conversation went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// How it ended.
    pub ending: Ending,
    /// What is on the card now.
    pub balance: i32,
    /// What the voucher was worth; zero without one.
    pub amount: i32,
    /// How many frames the card has answered.
    pub frames: u16,
    /// How many messages of the phone the server has waited for, the first included.
    pub round_trips: u16,
}

/// What the server says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FromServer {
    /// Send these frames to the card.
    Play {
        /// A number to name the batch by.
        batch: u16,
        /// At least one, at most [`MAX_STEPS`].
        steps: Vec<Step>,
    },
    /// It is over.
    Finished(Finished),
    /// It is over, and not as the phone wanted.
    Refused {
        /// Why.
        reason: Reason,
        /// After how many seconds it is worth trying again; 0 for at once.
        retry_after: u16,
    },
}

const HELLO: u8 = 0x01;
const PLAYED: u8 = 0x02;
const PLAY: u8 = 0x81;
const FINISHED: u8 = 0x82;
const REFUSED: u8 = 0x83;

/// The frames with which every conversation begins: SelectApplication and the first of
/// AuthenticateAES. The phone may play them before it says Hello, which saves a round trip.
///
/// # Errors
/// None for the framings there are.
pub fn opening(framing: Framing, aid: Aid, key_no: KeyNo) -> Result<Vec<Step>, WireError> {
    let step = |code, payload: &[u8], expected| {
        let mut frame = [0; MAX_COMMAND];
        let len = CommandFrame { code, payload }.encode(framing, &mut frame)?;
        Ok(Step {
            expected,
            frame: frame.get(..len).unwrap_or_default().to_vec(),
        })
    };
    Ok(vec![
        step(CommandCode::SelectApplication, &aid.to_bytes(), Status::Ok)?,
        step(
            CommandCode::AuthenticateAes,
            &[key_no.number()],
            Status::AdditionalFrame,
        )?,
    ])
}

/// Whether a reply has the status that was expected of it.
#[must_use]
pub fn as_expected(framing: Framing, expected: Status, reply: &[u8]) -> bool {
    ReplyFrame::parse(framing, reply).is_ok_and(|reply| reply.status == expected)
}

/// Puts a message together, and keeps it short.
struct Out(Vec<u8>);

impl Out {
    fn new(kind: u8) -> Self {
        Self(vec![VERSION, kind])
    }

    fn count(&mut self, count: usize) -> Result<(), MessageError> {
        self.0
            .push(u8::try_from(count).map_err(|_| MessageError::TooLong)?);
        Ok(())
    }

    fn run(&mut self, bytes: &[u8], max: usize) -> Result<(), MessageError> {
        if bytes.len() > max {
            return Err(MessageError::TooLong);
        }
        self.count(bytes.len())?;
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn replies(&mut self, replies: &[Vec<u8>]) -> Result<(), MessageError> {
        if replies.len() > MAX_STEPS {
            return Err(MessageError::TooLong);
        }
        self.count(replies.len())?;
        replies.iter().try_for_each(|reply| self.run(reply, 255))
    }

    fn done(self) -> Result<Vec<u8>, MessageError> {
        if self.0.len() > MAX_MESSAGE {
            return Err(MessageError::TooLong);
        }
        Ok(self.0)
    }
}

/// The kind of a message, and a reader on its body.
fn body(bytes: &[u8]) -> Result<(u8, Reader<'_>), MessageError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(MessageError::TooLong);
    }
    let mut reader = Reader::new(bytes);
    let version = reader.u8()?;
    if version != VERSION {
        return Err(MessageError::Version(version));
    }
    Ok((reader.u8()?, reader))
}

fn run(reader: &mut Reader<'_>, max: usize) -> Result<Vec<u8>, MessageError> {
    let len = usize::from(reader.u8()?);
    if len > max {
        return Err(MessageError::TooLong);
    }
    Ok(reader.take(len)?.to_vec())
}

fn count(reader: &mut Reader<'_>) -> Result<usize, MessageError> {
    let count = usize::from(reader.u8()?);
    if count > MAX_STEPS {
        return Err(MessageError::TooLong);
    }
    Ok(count)
}

fn replies(reader: &mut Reader<'_>) -> Result<Vec<Vec<u8>>, MessageError> {
    (0..count(reader)?).map(|_| run(reader, 255)).collect()
}

impl FromPhone {
    /// To bytes.
    ///
    /// # Errors
    /// [`MessageError::TooLong`].
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        match self {
            Self::Hello(hello) => {
                let mut out = Out::new(HELLO);
                out.0.push(match hello.format.framing {
                    Framing::Native => 0,
                    Framing::Wrapped => 1,
                });
                out.count(hello.format.max_command.min(MAX_COMMAND))?;
                out.0.extend_from_slice(&hello.uid.0);
                out.run(&hello.token, MAX_TOKEN)?;
                out.run(&hello.voucher, MAX_VOUCHER)?;
                out.replies(&hello.opening)?;
                out.done()
            }
            Self::Played {
                batch,
                end,
                replies,
            } => {
                let mut out = Out::new(PLAYED);
                out.0.extend_from_slice(&batch.to_le_bytes());
                out.0.push(match end {
                    End::Complete => 0,
                    End::Unexpected => 1,
                    End::CardGone => 2,
                });
                out.replies(replies)?;
                out.done()
            }
        }
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`MessageError`] for all that [`FromPhone::encode`] could not have written.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let (kind, mut reader) = body(bytes)?;
        let message = match kind {
            HELLO => {
                let framing = match reader.u8()? {
                    0 => Framing::Native,
                    1 => Framing::Wrapped,
                    _ => return Err(MessageError::Field("framing")),
                };
                let max_command = usize::from(reader.u8()?);
                if max_command > MAX_COMMAND {
                    return Err(MessageError::Field("longest command"));
                }
                Self::Hello(Hello {
                    format: LinkFormat {
                        framing,
                        max_command,
                    },
                    uid: Uid(reader.array()?),
                    token: run(&mut reader, MAX_TOKEN)?,
                    voucher: run(&mut reader, MAX_VOUCHER)?,
                    opening: replies(&mut reader)?,
                })
            }
            PLAYED => Self::Played {
                batch: reader.u16()?,
                end: match reader.u8()? {
                    0 => End::Complete,
                    1 => End::Unexpected,
                    2 => End::CardGone,
                    _ => return Err(MessageError::Field("end")),
                },
                replies: replies(&mut reader)?,
            },
            other => return Err(MessageError::Kind(other)),
        };
        reader.finish()?;
        Ok(message)
    }
}

impl FromServer {
    /// To bytes.
    ///
    /// # Errors
    /// [`MessageError::TooLong`], or a batch without frames.
    pub fn encode(&self) -> Result<Vec<u8>, MessageError> {
        match self {
            Self::Play { batch, steps } => {
                if steps.is_empty() {
                    return Err(MessageError::Field("steps"));
                }
                if steps.len() > MAX_STEPS {
                    return Err(MessageError::TooLong);
                }
                let mut out = Out::new(PLAY);
                out.0.extend_from_slice(&batch.to_le_bytes());
                out.count(steps.len())?;
                for step in steps {
                    out.0.push(step.expected.to_byte());
                    out.run(&step.frame, MAX_COMMAND)?;
                }
                out.done()
            }
            Self::Finished(finished) => {
                let mut out = Out::new(FINISHED);
                out.0.push(match finished.ending {
                    Ending::Balance => 0,
                    Ending::Credited => 1,
                    Ending::AlreadyCredited => 2,
                });
                out.0.extend_from_slice(&finished.balance.to_le_bytes());
                out.0.extend_from_slice(&finished.amount.to_le_bytes());
                out.0.extend_from_slice(&finished.frames.to_le_bytes());
                out.0.extend_from_slice(&finished.round_trips.to_le_bytes());
                out.done()
            }
            Self::Refused {
                reason,
                retry_after,
            } => {
                let mut out = Out::new(REFUSED);
                let byte = REASONS.iter().position(|known| known == reason);
                out.count(byte.unwrap_or(usize::MAX))?;
                out.0.extend_from_slice(&retry_after.to_le_bytes());
                out.done()
            }
        }
    }

    /// From bytes.
    ///
    /// # Errors
    /// [`MessageError`] for all that [`FromServer::encode`] could not have written.
    pub fn parse(bytes: &[u8]) -> Result<Self, MessageError> {
        let (kind, mut reader) = body(bytes)?;
        let message = match kind {
            PLAY => {
                let batch = reader.u16()?;
                let count = count(&mut reader)?;
                if count == 0 {
                    return Err(MessageError::Field("steps"));
                }
                let step = |_| {
                    Ok(Step {
                        expected: Status::from_byte(reader.u8()?),
                        frame: run(&mut reader, MAX_COMMAND)?,
                    })
                };
                let steps: Result<_, MessageError> = (0..count).map(step).collect();
                Self::Play {
                    batch,
                    steps: steps?,
                }
            }
            FINISHED => Self::Finished(Finished {
                ending: match reader.u8()? {
                    0 => Ending::Balance,
                    1 => Ending::Credited,
                    2 => Ending::AlreadyCredited,
                    _ => return Err(MessageError::Field("ending")),
                },
                balance: reader.i32()?,
                amount: reader.i32()?,
                frames: reader.u16()?,
                round_trips: reader.u16()?,
            }),
            REFUSED => Self::Refused {
                reason: REASONS
                    .get(usize::from(reader.u8()?))
                    .copied()
                    .ok_or(MessageError::Field("reason"))?,
                retry_after: reader.u16()?,
            },
            other => return Err(MessageError::Kind(other)),
        };
        reader.finish()?;
        Ok(message)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::collection::vec;
    use proptest::prelude::*;

    fn some_replies() -> impl Strategy<Value = Vec<Vec<u8>>> {
        vec(vec(any::<u8>(), 0..62), 0..=MAX_STEPS)
    }

    fn from_phone() -> impl Strategy<Value = FromPhone> {
        let hello = (
            any::<bool>(),
            0..=MAX_COMMAND,
            any::<[u8; 7]>(),
            vec(any::<u8>(), 0..=MAX_TOKEN),
            vec(any::<u8>(), 0..=MAX_VOUCHER),
            vec(vec(any::<u8>(), 0..62), 0..3),
        )
            .prop_map(|(native, max_command, uid, token, voucher, opening)| {
                FromPhone::Hello(Hello {
                    format: LinkFormat {
                        framing: if native {
                            Framing::Native
                        } else {
                            Framing::Wrapped
                        },
                        max_command,
                    },
                    uid: Uid(uid),
                    token,
                    voucher,
                    opening,
                })
            });
        let end = prop_oneof![
            Just(End::Complete),
            Just(End::Unexpected),
            Just(End::CardGone)
        ];
        let played = (any::<u16>(), end, some_replies()).prop_map(|(batch, end, replies)| {
            FromPhone::Played {
                batch,
                end,
                replies,
            }
        });
        prop_oneof![hello, played]
    }

    fn from_server() -> impl Strategy<Value = FromServer> {
        let step =
            (any::<u8>(), vec(any::<u8>(), 0..=MAX_COMMAND)).prop_map(|(status, frame)| Step {
                expected: Status::from_byte(status),
                frame,
            });
        let play = (any::<u16>(), vec(step, 1..=MAX_STEPS))
            .prop_map(|(batch, steps)| FromServer::Play { batch, steps });
        let ending = prop_oneof![
            Just(Ending::Balance),
            Just(Ending::Credited),
            Just(Ending::AlreadyCredited)
        ];
        let finished = (
            ending,
            any::<i32>(),
            any::<i32>(),
            any::<u16>(),
            any::<u16>(),
        )
            .prop_map(|(ending, balance, amount, frames, round_trips)| {
                FromServer::Finished(Finished {
                    ending,
                    balance,
                    amount,
                    frames,
                    round_trips,
                })
            });
        let refused = (0..REASONS.len(), any::<u16>()).prop_map(|(reason, retry_after)| {
            FromServer::Refused {
                reason: REASONS[reason],
                retry_after,
            }
        });
        prop_oneof![play, finished, refused]
    }

    proptest! {
        #[test]
        fn what_was_written_is_read_again(phone in from_phone(), server in from_server()) {
            let bytes = phone.encode().unwrap();
            prop_assert!(bytes.len() <= MAX_MESSAGE);
            prop_assert_eq!(FromPhone::parse(&bytes), Ok(phone));
            prop_assert!(FromServer::parse(&bytes).is_err());
            let bytes = server.encode().unwrap();
            prop_assert_eq!(FromServer::parse(&bytes), Ok(server));
            prop_assert!(FromPhone::parse(&bytes).is_err());
        }

        #[test]
        fn a_part_of_a_message_is_none_and_nothing_may_follow(
            phone in from_phone(), server in from_server(), cut in any::<prop::sample::Index>(),
        ) {
            for (bytes, is_message) in [
                (phone.encode().unwrap(), (|b| FromPhone::parse(b).is_ok()) as fn(&[u8]) -> bool),
                (server.encode().unwrap(), |b| FromServer::parse(b).is_ok()),
            ] {
                prop_assert!(!is_message(&bytes[..cut.index(bytes.len())]));
                prop_assert!(!is_message(&[&bytes[..], &[0]].concat()));
            }
        }

        /// What parses is what would be written: there is one form for every message.
        #[test]
        fn any_bytes_are_refused_or_canonical(
            kind in prop::sample::select(vec![1_u8, 2, 0x81, 0x82, 0x83, 0x99]),
            body in vec(prop_oneof![any::<u8>(), 0..4_u8], 0..80),
        ) {
            let bytes = [&[VERSION, kind][..], &body].concat();
            if let Ok(message) = FromPhone::parse(&bytes) {
                prop_assert_eq!(message.encode().unwrap(), bytes.clone());
            }
            if let Ok(message) = FromServer::parse(&bytes) {
                prop_assert_eq!(message.encode().unwrap(), bytes);
            }
        }
    }

    #[test]
    fn another_version_is_named() {
        assert_eq!(FromPhone::parse(&[2, 1]), Err(MessageError::Version(2)));
        assert_eq!(FromServer::parse(&[0, 1]), Err(MessageError::Version(0)));
    }

    #[test]
    fn a_message_that_is_too_long_is_refused_before_it_is_read() {
        assert_eq!(
            FromPhone::parse(&vec![1; MAX_MESSAGE + 1]),
            Err(MessageError::TooLong)
        );
        let message = FromPhone::Played {
            batch: 1,
            end: End::Complete,
            replies: vec![vec![0; 255]; MAX_STEPS],
        };
        assert_eq!(message.encode(), Err(MessageError::TooLong));
    }

    #[test]
    fn a_message_says_these_bytes() {
        let steps = opening(
            Framing::Wrapped,
            Aid::new(0x50_5253).unwrap(),
            KeyNo::new(3).unwrap(),
        );
        let play = FromServer::Play {
            batch: 0x0102,
            steps: steps.unwrap(),
        };
        let expected = [
            &[0x01, 0x81, 0x02, 0x01, 0x02][..],
            &[
                0x00, 0x09, 0x90, 0x5A, 0x00, 0x00, 0x03, 0x53, 0x52, 0x50, 0x00,
            ],
            &[0xAF, 0x07, 0x90, 0xAA, 0x00, 0x00, 0x01, 0x03, 0x00],
        ]
        .concat();
        assert_eq!(play.encode().unwrap(), expected);
        assert!(as_expected(Framing::Wrapped, Status::Ok, &[0x91, 0x00]));
        assert!(!as_expected(Framing::Wrapped, Status::Ok, &[0x90, 0x00]));
        assert!(!as_expected(Framing::Native, Status::Ok, &[]));
    }

    #[test]
    fn a_hello_does_not_print_what_is_worth_money() {
        let hello = Hello {
            format: LinkFormat::WRAPPED,
            uid: Uid([4; 7]),
            token: b"sesame".to_vec(),
            voucher: b"GOLD-1".to_vec(),
            opening: vec![],
        };
        let text = format!("{hello:?}");
        assert!(!text.contains("115") && !text.contains("71"), "{text}");
    }
}
