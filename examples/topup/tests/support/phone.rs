//! A phone that does what a [`Plan`] says, at the place of the server's pipe.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use desfire_ev1::LinkFormat;
use desfire_ev1::picc::Fault;
use desfire_ev1::wire::Uid;
use tokio::sync::Barrier;
use topup::link::{Gone, Pipe};
use topup::message::{End, FromPhone, FromServer, Hello, as_expected};

use super::{SharedCard, token};

/// What goes wrong, or is done wrong. Messages, frames and bytes are counted from 0.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// The connection breaks when this message of the server comes.
    pub break_before_playing: Option<usize>,
    /// The batch of this message is played, and then the connection breaks.
    pub break_after_playing: Option<usize>,
    /// The phone says nothing any more after this message of the server.
    pub silent_after: Option<usize>,
    /// The card leaves the field before this EEPROM effect, counted from 1.
    pub cut_before: Option<u64>,
    /// The card leaves the field after this EEPROM effect, counted from 1.
    pub cut_after: Option<u64>,
    /// The card's reply to this frame is lost, counted from 1.
    pub lose_reply: Option<u64>,
    /// The card leaves the field before this frame.
    pub leave_before_frame: Option<usize>,
    /// A bit of this byte on the way to the card is turned.
    pub alter_to_card: Option<usize>,
    /// A bit of this byte on the way to the server, whole messages counted, is turned.
    pub alter_to_server: Option<usize>,
    /// A CommitTransaction of the phone's own goes to the card before this frame, and its answer
    /// nowhere.
    pub commit_before_frame: Option<usize>,
    /// The card does not get this frame, and the connection breaks.
    pub withhold_frame: Option<usize>,
    /// The card does not get SelectApplication; the phone says that it did.
    pub keep_selection_back: bool,
    /// The card is not activated anew before the conversation.
    pub no_activation: bool,
    /// Instead of a card, these replies.
    pub recorded: Option<Vec<Vec<u8>>>,
    /// The card is another than the phone says.
    pub claim_uid: Option<Uid>,
    /// At this frame another program takes the books (this file) for itself, as long as the phone is
    /// there.
    pub lock_books_at: Option<(usize, String)>,
    /// At this frame the server is told to stop.
    pub stop_at: Option<(usize, tokio_util::sync::CancellationToken)>,
    /// At the server's first word, with the card claimed, the phone comes here twice before it does
    /// anything: to say that it is there, and to be let go.
    pub hold: Option<Arc<Barrier>>,
    /// Replies to play before the server asks.
    pub opening: Vec<Vec<u8>>,
}

pub struct Phone {
    card: SharedCard,
    plan: Plan,
    to_server: VecDeque<Vec<u8>>,
    messages: usize,
    frames: usize,
    to_card: usize,
    sent: usize,
    broken: bool,
    lock: Option<rusqlite::Connection>,
    /// The last word of the server.
    pub heard: Arc<Mutex<Option<FromServer>>>,
    /// Every reply of the card.
    pub replies: Arc<Mutex<Vec<Vec<u8>>>>,
    /// Every frame of the server.
    pub seen: Arc<Mutex<Vec<Vec<u8>>>>,
}

impl Phone {
    pub fn new(card: &SharedCard, account: &str, voucher: &str, plan: Plan) -> Self {
        let uid = {
            let mut card = card.lock().unwrap();
            if !plan.no_activation {
                card.activate();
            }
            let (effects, commands) = (card.effects(), card.commands());
            if let Some(effect) = plan.cut_before {
                card.arrange_fault(Fault::CutBefore(effects + effect));
            }
            if let Some(effect) = plan.cut_after {
                card.arrange_fault(Fault::CutAfter(effects + effect));
            }
            if let Some(frame) = plan.lose_reply {
                card.arrange_fault(Fault::LoseReply(commands + frame));
            }
            card.state().version().uid
        };
        let hello = FromPhone::Hello(Hello {
            format: LinkFormat::WRAPPED,
            uid: plan.claim_uid.unwrap_or(uid),
            token: token(account),
            voucher: voucher.as_bytes().to_vec(),
            opening: plan.opening.clone(),
        });
        let mut phone = Self {
            card: card.clone(),
            plan,
            to_server: VecDeque::new(),
            messages: 0,
            frames: 0,
            to_card: 0,
            sent: 0,
            broken: false,
            lock: None,
            heard: Arc::default(),
            replies: Arc::default(),
            seen: Arc::default(),
        };
        phone.say(&hello);
        phone
    }

    fn say(&mut self, message: &FromPhone) {
        let mut bytes = message.encode().unwrap();
        let place = self
            .plan
            .alter_to_server
            .and_then(|at| at.checked_sub(self.sent));
        if let Some(byte) = place.and_then(|place| bytes.get_mut(place)) {
            *byte ^= 0x10;
        }
        self.sent += bytes.len();
        self.to_server.push_back(bytes);
    }

    fn frame(&mut self, frame: &[u8]) -> Option<Vec<u8>> {
        let number = self.frames;
        self.frames += 1;
        self.seen.lock().unwrap().push(frame.to_vec());
        if let Some((_, file)) = self
            .plan
            .lock_books_at
            .as_ref()
            .filter(|(at, _)| *at == number)
        {
            self.lock = Some(super::lock(file));
        }
        if let Some((_, stop)) = self.plan.stop_at.as_ref().filter(|(at, _)| *at == number) {
            stop.cancel();
        }
        let mut frame = frame.to_vec();
        let place = self
            .plan
            .alter_to_card
            .and_then(|at| at.checked_sub(self.to_card));
        if let Some(byte) = place.and_then(|place| frame.get_mut(place)) {
            *byte ^= 0x10;
        }
        self.to_card += frame.len();
        if let Some(recorded) = &self.plan.recorded {
            return recorded.get(number).cloned();
        }
        if self.plan.withhold_frame == Some(number) {
            return None;
        }
        if self.plan.keep_selection_back && frame.get(1) == Some(&0x5A) {
            return Some(vec![0x91, 0x00]);
        }
        let mut card = self.card.lock().unwrap();
        if self.plan.leave_before_frame == Some(number) {
            card.field_off();
        }
        if self.plan.commit_before_frame == Some(number) {
            card.handle(&[0x90, 0xC7, 0, 0, 0]);
        }
        let reply = card.handle(&frame);
        self.replies.lock().unwrap().push(reply.clone());
        (!reply.is_empty()).then_some(reply)
    }

    fn hear(&mut self, message: FromServer) -> Result<(), Gone> {
        let number = self.messages;
        self.messages += 1;
        let FromServer::Play { batch, steps } = message else {
            *self.heard.lock().unwrap() = Some(message);
            return Ok(());
        };
        if self.plan.break_before_playing == Some(number) {
            self.broken = true;
            return Err(Gone);
        }
        let (mut replies, mut end) = (Vec::new(), End::Complete);
        for step in steps {
            let Some(reply) = self.frame(&step.frame) else {
                end = End::CardGone;
                break;
            };
            let framing = LinkFormat::WRAPPED.framing;
            let expected = as_expected(framing, step.expected, &reply);
            replies.push(reply);
            if !expected {
                end = End::Unexpected;
                break;
            }
        }
        if self.plan.break_after_playing == Some(number) {
            self.broken = true;
        }
        if self.plan.silent_after != Some(number) {
            self.say(&FromPhone::Played {
                batch,
                end,
                replies,
            });
        }
        Ok(())
    }
}

impl Pipe for Phone {
    async fn send(&mut self, message: Vec<u8>) -> Result<(), Gone> {
        if self.broken {
            return Err(Gone);
        }
        // Give others a chance to come in between.
        tokio::task::yield_now().await;
        if let Some(hold) = self.plan.hold.take() {
            hold.wait().await;
            hold.wait().await;
        }
        self.hear(FromServer::parse(&message).unwrap())
    }

    async fn receive(&mut self) -> Result<Vec<u8>, Gone> {
        tokio::task::yield_now().await;
        if self.broken {
            return Err(Gone);
        }
        match self.to_server.pop_front() {
            Some(message) => Ok(message),
            None => std::future::pending().await,
        }
    }
}
