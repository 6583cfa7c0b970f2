//! A remote tap: the machines run here, in a task of their own; frames go out and come in by HTTP.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use desfire_ev1::split::{
    Accepted, AsyncCarrier, AsyncCbcKey, Carries, CbcDirection, Effect, RemoteCard,
    authenticate_async,
};
use desfire_ev1::wire::KeyType;
use desfire_ev1::{Authenticated, Machine as _, Session};
use tokio::sync::{Mutex, mpsc};
use zeroize::Zeroizing;

use super::problem::Problem;
use super::taps::Shared;
use crate::keys::HeldKey;
use crate::scheme::{self, AID, Purpose};

/// What the machines say.
pub(super) enum Said {
    Frame(Vec<u8>),
    End { message: Vec<u8>, verdict: String },
}

/// The HTTP side of a dialogue.
#[derive(Clone)]
pub(super) struct Dialogue {
    to: mpsc::Sender<Vec<u8>>,
    from: Arc<Mutex<mpsc::Receiver<Result<Said, Problem>>>>,
}

impl Dialogue {
    /// Starts the machines. They end when nobody listens any more, or when patience does.
    pub(super) fn begin(shared: Arc<Shared>, accepted: Accepted, purpose: Purpose) -> Self {
        let (to, incoming) = mpsc::channel(1);
        let (outgoing, from) = mpsc::channel(1);
        tokio::spawn(async move {
            let began = Instant::now();
            let until = tokio::time::Instant::now() + shared.config.patience;
            let carrier = Wire {
                to: outgoing.clone(),
                from: incoming,
            };
            let mut end = redeem(&shared, &accepted, purpose, carrier, until).await;
            let word = end.as_ref().map(|(word, _)| *word);
            let logged = shared.remote_ended(accepted.challenge(), word, began.elapsed());
            if let Err(problem) = logged {
                end = Err(problem);
            }
            // The terminal may be gone; then nobody is to be told.
            let _ = outgoing.send(end.map(|(_, said)| said)).await;
        });
        Self {
            to,
            from: Arc::new(Mutex::new(from)),
        }
    }

    /// Brings the machines a message and waits for what they say.
    pub(super) async fn next(
        &self,
        message: Option<Vec<u8>>,
        patience: Duration,
    ) -> Result<Said, Problem> {
        // One request at a time: another one at the same moment is nobody's honest terminal.
        let mut from = self.from.try_lock().map_err(|_| Problem::no_such_tap())?;
        if let Some(message) = message {
            let sent = self.to.try_send(message);
            sent.map_err(|_| Problem::no_such_tap())?;
        }
        match tokio::time::timeout(patience, from.recv()).await {
            Ok(Some(said)) => said,
            Ok(None) => Err(Problem::no_such_tap()),
            Err(_) => Err(Problem::too_late()),
        }
    }
}

struct Wire {
    to: mpsc::Sender<Result<Said, Problem>>,
    from: mpsc::Receiver<Vec<u8>>,
}

impl Carries for Wire {
    type Error = Problem;
}

impl AsyncCarrier for Wire {
    async fn call(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize, Problem> {
        let said = Ok(Said::Frame(message.to_vec()));
        let gone = |_| Problem::no_such_tap();
        self.to.send(said).await.map_err(gone)?;
        let heard = self.from.recv().await.ok_or_else(Problem::no_such_tap)?;
        let room = answer.get_mut(..heard.len());
        let room = room.ok_or_else(|| {
            Problem::new(
                StatusCode::BAD_REQUEST,
                "message",
                "the message is too long",
            )
        })?;
        room.copy_from_slice(&heard);
        Ok(heard.len())
    }
}

/// A held key for async callers: each call in the key holder's thread, within the deadline.
struct Waiting<'s> {
    shared: &'s Shared,
    /// None after an error.
    key: Option<HeldKey>,
}

impl AsyncCbcKey for Waiting<'_> {
    type Error = Problem;

    fn key_type(&self) -> KeyType {
        self.key.as_ref().map_or(KeyType::Aes, |key| key.key_type())
    }

    async fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), Problem> {
        let Some(mut key) = self.key.take() else {
            return Err(Problem::internal("the key has failed before"));
        };
        let iv = iv.to_vec();
        let mut copy = Zeroizing::new(data.to_vec());
        let work = self.shared.with_holder(move |_| {
            key.cbc(direction, &iv, &mut copy)?;
            Ok((key, copy))
        });
        let (key, copy) = work.await?;
        data.copy_from_slice(&copy);
        self.key = Some(key);
        Ok(())
    }
}

async fn redeem(
    shared: &Shared,
    accepted: &Accepted,
    purpose: Purpose,
    wire: Wire,
    until: tokio::time::Instant,
) -> Result<(&'static str, Said), Problem> {
    let mut card = RemoteCard::new(accepted, wire)?;
    let opened = tokio::time::timeout_at(until, handshake(shared, accepted, &mut card));
    let mut session = opened.await.map_err(|_| Problem::no_such_tap())??;
    let line = scheme::record(accepted.challenge().intent.transport, purpose);
    let redeemed = shared
        .scheme
        .redeem_async(&mut session, purpose, &line, &mut card);
    // The debit is the first thing to leave: from here on silence proves nothing.
    let redeemed = tokio::time::timeout_at(until, redeemed).await;
    let redeemed = redeemed.map_err(|_| ended("unknown", "no answer in time"))?;
    let (word, verdict) = match redeemed {
        Ok(left) => ("done", format!("done, {left} left")),
        Err(interrupted) => match interrupted.effect {
            Effect::None => return Err(ended("not done", interrupted.error)),
            Effect::Possible => return Err(ended("unknown", interrupted.error)),
            Effect::Done => ("done", "done".to_owned()),
        },
    };
    // A card that left after the commit leaves no dialogue to say goodbye in; what is proved stays so.
    let message = card.goodbye().map(|message| message.to_vec());
    let message = message.unwrap_or_default();
    Ok((word, Said::End { message, verdict }))
}

/// Up to the session; nothing of it changes the card.
async fn handshake(
    shared: &Shared,
    accepted: &Accepted,
    card: &mut RemoteCard<Wire>,
) -> Result<Session<Authenticated>, Problem> {
    let request = accepted.key_request();
    let key = shared
        .with_holder(move |holder| Ok(holder.find(&request)?))
        .await?;
    let mut key = Waiting {
        shared,
        key: Some(key),
    };
    let selected = Session::new().select_application(AID).run_async(card).await;
    let selected = selected.map_err(|error| ended("not done", error))?;
    let mut rng = getrandom::SysRng;
    let session = authenticate_async(
        selected,
        request.scheme,
        request.key_no,
        &mut key,
        &mut rng,
        card,
    );
    session.await.map_err(|error| match error {
        desfire_ev1::split::AuthenticateError::Key(problem) => problem,
        error => ended("not done", error),
    })
}

/// The dialogue is over and the vouchers are not known to be redeemed.
fn ended(verdict: &'static str, error: impl std::fmt::Display) -> Problem {
    let (word, text) = if verdict == "unknown" {
        let text = "whether the card at the terminal did it is not known; look at what is on it";
        ("unknown", text.to_owned())
    } else {
        let text = format!("the card at the terminal did not do it; redeemed: {verdict}");
        ("card", text)
    };
    let mut problem = Problem::new(StatusCode::BAD_GATEWAY, word, text);
    problem.inside = Some(error.to_string());
    problem
}
