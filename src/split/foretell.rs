//! One command with the reply that the card is going to give, in a session at hand.
//!
//! For: a server that talks to a card over a slow network. Where replies hold nothing unknown, it
//! can send several commands together and compare the replies afterwards. (A [`super::ScriptBuilder`]
//! makes such a list for a terminal that checks it by itself.)

use subtle::ConstantTimeEq as _;
use zeroize::Zeroize as _;

use super::Foreseen;
use crate::Step;
use crate::error::{Error, ErrorKind, Malformed, Misuse};
use crate::pcd::LinkFormat;
use crate::wire::frame::MAX_COMMAND;
use crate::wire::{InlineBytes, ReplyFrame, Status};

/// Room for a status and a MAC in either framing.
const MAX_REPLY: usize = 16;

/// A command that changes something and answers nothing, and the card's reply to it, before either
/// has been sent. Does not print itself: whoever knows the reply can play the card.
pub struct Foretold {
    frame: InlineBytes<MAX_COMMAND>,
    reply: InlineBytes<MAX_REPLY>,
}

impl Foretold {
    /// What goes to the card.
    #[must_use]
    pub fn frame(&self) -> &[u8] {
        &self.frame
    }

    /// Whether `reply` is what only the card could have said, having done this and everything before
    /// it. Takes the same time wherever it differs.
    #[must_use]
    pub fn is_proved_by(&self, reply: &[u8]) -> bool {
        self.reply.ct_eq(reply).into()
    }
}

/// Takes a command through its machine against the reply that the card is going to give, so that the
/// session stands where it will stand then, and the next command can be foretold.
///
/// Nothing has been sent by this, and the session is ahead of the card: send the frames in this
/// order, and go on with the session only if every reply is proved ([`Foretold::is_proved_by`]).
/// Otherwise drop it: from the first frame that was sent, what was to change may have changed.
///
/// The command has to fit into one frame, its reply has to carry a MAC, and the communication mode has
/// to be known ([`crate::Exchange::comm_mode`]).
///
/// # Errors
/// What the machine finds wrong; nothing has been sent.
pub fn foretell<M: Foreseen>(mut command: M, format: LinkFormat) -> Result<Foretold, Error> {
    let code = command.command();
    let refuse = |misuse: Misuse| Error::not_sent(code, misuse);
    let facts = command.facts().map_err(refuse)?;
    if !facts.proved || facts.enciphered {
        return Err(refuse(Misuse::Invalid(
            "only a command whose reply is a MAC and nothing else can be foretold",
        )));
    }
    let frame = InlineBytes::new(command.start(format)?).map_err(|e| refuse(e.into()))?;
    if command.sending() {
        return Err(refuse(Misuse::Invalid(
            "only a command of one frame can be foretold",
        )));
    }
    let mut payload = [0; MAX_REPLY];
    let len = command.foresee(&[], &mut payload).map_err(refuse)?;
    let mut reply = [0; MAX_REPLY];
    let encoded = ReplyFrame {
        status: Status::Ok,
        payload: payload.get(..len).unwrap_or_default(),
    }
    .encode(format.framing, &mut reply);
    let len = encoded.map_err(|e| refuse(e.into()))?;
    let foretold = Foretold {
        frame,
        reply: InlineBytes::new(reply.get(..len).unwrap_or_default())
            .map_err(|e| refuse(e.into()))?,
    };
    payload.zeroize();
    reply.zeroize();
    match command.step(&foretold.reply)? {
        Step::Done(_) => Ok(foretold),
        Step::Transmit(_) => Err(Error::not_sent(
            code,
            ErrorKind::Malformed(Malformed::FinishedTooEarly),
        )),
    }
}

#[cfg(all(test, feature = "picc"))]
mod tests {
    use super::*;
    use crate::wire::{Amount, CommMode, FileNo, KeyNo};
    use crate::{Key, Machine as _, Session, Transport as _, VirtualReader};

    /// A debit, its record and the commit, all sealed before the first is sent: the card answers what
    /// was foretold, and the session goes on.
    #[test]
    fn the_card_says_what_was_foretold() {
        let mut reader = VirtualReader::demo();
        let key = Key::aes([0; 16]);
        let session = Session::new().select_application(VirtualReader::DEMO_AID);
        let session = session.run(&mut reader).unwrap();
        let session = session.authenticate_aes(KeyNo::MASTER, &key, &mut getrandom::SysRng);
        let mut session = session.run(&mut reader).unwrap();
        let [value, log] = [2, 4].map(|number| FileNo::new(number).unwrap());
        let (mode, format) = (CommMode::Enciphered, LinkFormat::WRAPPED);

        let mut transaction = session.transaction();
        let debit = transaction.debit(value, Amount::new(250).unwrap());
        let debit = foretell(debit.comm_mode(mode), format).unwrap();
        let record = transaction.write_record(log, 0, b"-250");
        let record = foretell(record.comm_mode(mode), format).unwrap();
        let commit = foretell(transaction.commit(), format).unwrap();
        drop(transaction);
        for foretold in [debit, record, commit] {
            let mut reply = [0; 258];
            let len = reader.exchange(foretold.frame(), &mut reply).unwrap();
            assert!(foretold.is_proved_by(&reply[..len]));
            reply[0] ^= 1;
            assert!(!foretold.is_proved_by(&reply[..len]));
            assert!(!foretold.is_proved_by(&[0x91, 0x00]));
        }
        let balance = session.get_value(value).comm_mode(mode);
        assert_eq!(balance.run(&mut reader), Ok(750));
    }

    #[test]
    fn what_cannot_be_foretold_is_refused_and_leaves_the_session_alone() {
        let mut reader = VirtualReader::demo();
        let key = Key::aes([0; 16]);
        let session = Session::new().select_application(VirtualReader::DEMO_AID);
        let session = session.run(&mut reader).unwrap();
        let session = session.authenticate_aes(KeyNo::MASTER, &key, &mut getrandom::SysRng);
        let mut session = session.run(&mut reader).unwrap();
        let value = FileNo::new(2).unwrap();
        let get = session.get_value(value).comm_mode(CommMode::Enciphered);
        assert!(foretell(get, LinkFormat::WRAPPED).is_err());
        let unknown = session.debit(value, Amount::new(1).unwrap());
        assert!(foretell(unknown, LinkFormat::WRAPPED).is_err());
        let get = session.get_value(value).comm_mode(CommMode::Enciphered);
        assert_eq!(get.run(&mut reader), Ok(1000));
    }
}
