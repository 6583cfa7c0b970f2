//! Taps: from the challenge to the end, in each mode.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::http::StatusCode;
use desfire_ev1::Machine as _;
use desfire_ev1::split::{
    Accepted, Challenge, Finished, Freshness, Mode, Pending, Record, Refusal, RelayGate,
    ReplayGuard, StorageKey, TerminalId, TransportKey, Verdict,
};
use desfire_ev1::wire::Uid;
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

use super::audit::Audit;
use super::config::Config;
use super::dialogue::{Dialogue, Said};
use super::limits::Limits;
use super::metrics::Metrics;
use super::problem::Problem;
use crate::keys::{Holder, KeyFailure};
use crate::scheme::{self, Purpose, Scheme};

/// The names of taps are random: who has not been told one cannot guess it.
pub(super) type TapId = [u8; 16];

/// Room for a script and its record; ours takes about 300 bytes of each.
const SCRIPT_ROOM: usize = 1024;
/// A settled verdict is kept so long, for terminals that have not heard it.
const SETTLED_FOR: Duration = Duration::from_secs(600);

/// What is known of each terminal's counters.
#[derive(Default)]
struct Counters(HashMap<TerminalId, Seen>);

#[derive(Clone, Copy, Default)]
struct Seen {
    /// The highest that was granted.
    used: u64,
    /// The last that was counted against the terminal.
    charged: u64,
}

impl Counters {
    /// The counter, if it has not been used. Nothing is noted.
    fn fresh(&self, terminal: &TerminalId, freshness: &Freshness) -> Result<u64, Refusal> {
        match *freshness {
            Freshness::Counter(counter) => {
                let seen = self.0.get(terminal).copied().unwrap_or_default();
                if counter > seen.used {
                    Ok(counter)
                } else {
                    Err(Refusal::Replayed)
                }
            }
            Freshness::Nonce(_) => Err(Refusal::NotFresh),
        }
    }
}

/// What the library asks last of a challenge that it would grant: the rate, then the counter is used up. A
/// challenge that is refused for anything else costs no rate, however often somebody repeats it.
struct LastLook<'s> {
    counters: MutexGuard<'s, Counters>,
    limits: &'s Limits,
    uid: Uid,
    /// Why not, if it is the rate.
    too_often: Option<Problem>,
}

impl LastLook<'_> {
    fn rate(&mut self, terminal: &TerminalId, counter: u64) -> Result<(), Problem> {
        // Known terminals only come so far: the map is as large as the configuration.
        let seen = self.counters.0.entry(*terminal).or_default();
        // Once for one counter: what the card's rate refuses can be repeated, by others too.
        if seen.charged != counter {
            self.limits.terminal(terminal)?;
            seen.charged = counter;
        }
        self.limits.card(self.uid)?;
        seen.used = counter;
        Ok(())
    }
}

impl ReplayGuard for LastLook<'_> {
    fn accept(&mut self, terminal: &TerminalId, freshness: &Freshness) -> Result<(), Refusal> {
        let counter = self.counters.fresh(terminal, freshness)?;
        self.rate(terminal, counter).map_err(|problem| {
            self.too_often = Some(problem);
            Refusal::Full
        })
    }
}

/// A tap that is not over.
struct Tap {
    challenge: Challenge,
    since: Instant,
    kind: Kind,
}

enum Kind {
    Proven(Box<Pending>),
    Script {
        sealed: Vec<u8>,
        verdict: Option<String>,
    },
    Remote(RelayGate, Dialogue),
}

impl Tap {
    const fn is_script(&self) -> bool {
        matches!(self.kind, Kind::Script { .. })
    }

    const fn settled(&self) -> bool {
        matches!(
            self.kind,
            Kind::Script {
                verdict: Some(_),
                ..
            }
        )
    }

    fn unsettled_of(&self, terminal: &TerminalId) -> bool {
        matches!(self.kind, Kind::Script { verdict: None, .. })
            && self.challenge.intent.terminal == *terminal
    }
}

/// All that the service is.
pub(super) struct Shared {
    pub(super) config: Config,
    pub(super) scheme: Scheme,
    holder: Arc<dyn Holder>,
    limits: Limits,
    pub(super) metrics: Metrics,
    audit: Audit,
    /// For records of scripts: no session key lies in memory in clear while a receipt is on its way.
    storage: StorageKey,
    counters: Mutex<Counters>,
    permits: Arc<Semaphore>,
    /// Held by the one check of the key holder that runs.
    checking: Arc<tokio::sync::Mutex<()>>,
    taps: Mutex<HashMap<TapId, Tap>>,
    /// Challenges that are being answered: not yet among the taps.
    answering: AtomicUsize,
    stopping: AtomicBool,
}

/// One challenge among those that are being answered, as long as it is.
struct Answering<'s>(&'s AtomicUsize);

impl<'s> Answering<'s> {
    fn one_of(count: &'s AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(count)
    }
}

impl Drop for Answering<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// An answer for the terminal.
pub(super) struct Answer {
    pub(super) tap: Option<TapId>,
    pub(super) message: Vec<u8>,
    pub(super) verdict: Option<String>,
}

/// What comes out of the key holder's thread.
enum Made {
    Message(Vec<u8>),
    Proven(Vec<u8>, Box<Pending>),
    Script(Vec<u8>, Vec<u8>),
}

impl Shared {
    pub(super) fn new(
        config: Config,
        scheme: Scheme,
        holder: Arc<dyn Holder>,
        audit: Audit,
    ) -> Result<Self, getrandom::Error> {
        let mut storage = Zeroizing::new([0; 16]);
        getrandom::fill(storage.as_mut())?;
        Ok(Self {
            limits: Limits::new(&config),
            permits: Arc::new(Semaphore::new(config.at_once)),
            config,
            scheme,
            holder,
            metrics: Metrics::new(),
            audit,
            storage: StorageKey::new(*storage),
            counters: Mutex::default(),
            checking: Arc::default(),
            taps: Mutex::default(),
            answering: AtomicUsize::new(0),
            stopping: AtomicBool::new(false),
        })
    }

    fn counters(&self) -> MutexGuard<'_, Counters> {
        self.counters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taps(&self) -> MutexGuard<'_, HashMap<TapId, Tap>> {
        self.taps.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has something done by the key holder, in a thread of its own, within the deadline. What comes
    /// too late is dropped, wiped, and never sent.
    pub(super) async fn with_holder<O: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn Holder) -> Result<O, Problem> + Send + 'static,
    ) -> Result<O, Problem> {
        let deadline = tokio::time::Instant::now() + self.config.deadline;
        let permit = Arc::clone(&self.permits).acquire_owned();
        let permit = tokio::time::timeout_at(deadline, permit)
            .await
            .map_err(|_| Problem::too_late())?
            .map_err(Problem::internal)?;
        let holder = Arc::clone(&self.holder);
        let work = tokio::task::spawn_blocking(move || {
            // A key holder that hangs keeps its place: the others do not pile up behind it.
            let _permit = permit;
            work(&*holder)
        });
        tokio::time::timeout_at(deadline, work)
            .await
            .map_err(|_| Problem::too_late())?
            .map_err(Problem::internal)?
    }

    /// Takes no new tap from now on.
    pub(super) fn wind_down(&self) {
        self.stopping.store(true, Ordering::SeqCst);
    }

    /// Asked by the health page.
    pub(super) async fn health(&self) -> Result<(), Problem> {
        if self.stopping.load(Ordering::SeqCst) {
            return Err(stopping());
        }
        // One at a time, whoever asks: the key holder's places are for taps.
        let turn = Arc::clone(&self.checking).lock_owned();
        let turn = tokio::time::timeout(self.config.deadline, turn);
        let turn = turn.await.map_err(|_| Problem::busy())?;
        let check = move |holder: &dyn Holder| {
            // It lasts until the check is over, also when nobody waits for that any more.
            let _turn = turn;
            Ok(holder.check()?)
        };
        self.with_holder(check).await
    }

    /// A challenge.
    pub(super) async fn answer(self: &Arc<Self>, message: &[u8]) -> Result<Answer, Problem> {
        let began = Instant::now();
        // Only what has the right MAC is worth believing in the log.
        let opened = self.open(message);
        let challenge = opened.as_ref().ok().copied();
        let answer = match opened {
            Ok(challenge) => self.granted(message, &challenge).await,
            Err(problem) => Err(problem),
        };
        let took = began.elapsed();
        let mode = challenge.map(|challenge| challenge.intent.mode);
        self.metrics
            .answered(mode, answer.as_ref().map(|_| ()), took);
        let outcome = answer.as_ref().map(|_| "granted");
        let logged = self.audit.line("answer", challenge.as_ref(), outcome, took);
        if let (Err(problem), Ok(Answer { tap: Some(tap), .. })) = (&logged, &answer) {
            self.taps().remove(tap);
            return Err(problem.clone());
        }
        logged.and(answer)
    }

    fn open(&self, message: &[u8]) -> Result<Challenge, Problem> {
        let claimed = Challenge::claimed(message)?;
        let key = self.config.transport_key(&claimed.intent)?;
        Ok(Challenge::open(message, &key)?)
    }

    async fn granted(
        self: &Arc<Self>,
        message: &[u8],
        challenge: &Challenge,
    ) -> Result<Answer, Problem> {
        // Counted first: a stop that comes after this look sees it.
        let _one = Answering::one_of(&self.answering);
        if self.stopping.load(Ordering::SeqCst) {
            return Err(stopping());
        }
        let intent = challenge.intent;
        // For a repeated challenge nobody makes room.
        self.counters().fresh(&intent.terminal, &intent.freshness)?;
        let uid = intent.uid.ok_or(KeyFailure::NeedsUid)?;
        let purpose = Purpose::decode(&intent.purpose).ok_or_else(|| {
            let text = "the purpose is none of this scheme: redeem 1 to 20 vouchers";
            Problem::new(StatusCode::BAD_REQUEST, "purpose", text)
        })?;
        self.make_room(intent.mode)?;
        let accepted = {
            let mut last = LastLook {
                counters: self.counters(),
                limits: &self.limits,
                uid,
                too_often: None,
            };
            let accepted = Accepted::check(message, &self.config, &mut last);
            accepted.map_err(|refusal| last.too_often.take().unwrap_or_else(|| refusal.into()))?
        };
        if intent.mode == Mode::Remote {
            return self.remote(accepted, purpose).await;
        }
        let shared = Arc::clone(self);
        let made = self
            .with_holder(move |holder| make(holder, accepted, purpose, &shared))
            .await?;
        let (message, kind) = match made {
            Made::Message(message) => return Ok(Answer::last(message)),
            Made::Proven(message, pending) => (message, Kind::Proven(pending)),
            Made::Script(message, sealed) => {
                let verdict = None;
                (message, Kind::Script { sealed, verdict })
            }
        };
        if intent.mode == Mode::Script {
            self.give_up_oldest(&intent.terminal)?;
        }
        let tap = self.keep(*challenge, kind)?;
        Ok(Answer {
            tap: Some(tap),
            message,
            verdict: None,
        })
    }

    /// Tidies up if there is too much of what this mode keeps; still too much is refused, before
    /// anything is used up. Open scripts stand in nobody's way but that of other scripts.
    fn make_room(&self, mode: Mode) -> Result<(), Problem> {
        let script = match mode {
            Mode::CardLocked => return Ok(()),
            Mode::Script => true,
            Mode::Proven | Mode::Remote => false,
        };
        let full = || {
            let taps = self.taps();
            let alike = taps.values().filter(|tap| tap.is_script() == script);
            alike.count() >= self.config.open_taps
        };
        if full() {
            self.tidy();
        }
        if script && full() {
            // What is settled is kept out of courtesy only.
            self.taps().retain(|_, tap| !tap.settled());
        }
        if !full() {
            Ok(())
        } else {
            Err(Problem::busy())
        }
    }

    /// Forgets taps that are over, or that nobody will come back to. A script without a receipt stays
    /// long: what it did is not known yet. When it is given up, the log says so.
    pub(super) fn tidy(&self) {
        let (patience, unsettled_for) = (self.config.patience, self.config.unsettled_for);
        let mut taps = self.taps();
        taps.retain(|_, tap| match &tap.kind {
            Kind::Proven(_) | Kind::Remote(..) => tap.since.elapsed() <= patience,
            Kind::Script {
                verdict: Some(_), ..
            } => tap.since.elapsed() <= SETTLED_FOR,
            // Without its line in the log it stays, until the log can be written again.
            Kind::Script { verdict: None, .. } => {
                tap.since.elapsed() <= unsettled_for || self.give_up(tap).is_err()
            }
        });
        let open = i64::try_from(taps.len()).unwrap_or(i64::MAX);
        self.metrics.open.set(open);
    }

    /// How many taps terminals are in the middle of. A receipt that is still to come soon counts.
    pub(super) fn in_progress(&self) -> usize {
        self.tidy();
        // Looked at first: what is answered in between is among the taps by then.
        let answering = self.answering.load(Ordering::SeqCst);
        let taps = self.taps();
        let open = taps.values().filter(|tap| match &tap.kind {
            Kind::Proven(_) | Kind::Remote(..) => true,
            Kind::Script { verdict, .. } => {
                verdict.is_none() && tap.since.elapsed() <= self.config.patience
            }
        });
        answering + open.count()
    }

    /// At the end: the records of scripts go with this process, and the log says of which there was no
    /// receipt.
    pub(super) fn give_up_all(&self) -> Result<(), Problem> {
        let mut taps = self.taps();
        for (_, tap) in taps.drain() {
            if matches!(tap.kind, Kind::Script { verdict: None, .. }) {
                self.give_up(&tap)?;
            }
        }
        Ok(())
    }

    /// One terminal that brings no receipts must not fill the memory for all: its oldest script goes,
    /// unknown, with a line in the log that says which.
    fn give_up_oldest(&self, terminal: &TerminalId) -> Result<(), Problem> {
        let mut taps = self.taps();
        let open = taps.iter().filter(|(_, tap)| tap.unsettled_of(terminal));
        let open: Vec<_> = open.map(|(id, tap)| (tap.since, *id)).collect();
        if open.len() < self.config.unsettled {
            return Ok(());
        }
        if let Some((_, id)) = open.iter().min()
            && let Some(tap) = taps.get(id)
        {
            self.give_up(tap)?;
            taps.remove(id);
            self.metrics.open.dec();
        }
        Ok(())
    }

    /// The line in the log for a script that is going to be forgotten, unknown.
    fn give_up(&self, tap: &Tap) -> Result<(), Problem> {
        let age = tap.since.elapsed();
        self.audit
            .line("given-up", Some(&tap.challenge), Ok("unknown"), age)?;
        self.metrics.ended(Mode::Script, "given-up");
        Ok(())
    }

    fn keep(&self, challenge: Challenge, kind: Kind) -> Result<TapId, Problem> {
        let mut id = TapId::default();
        getrandom::fill(&mut id).map_err(Problem::internal)?;
        let since = Instant::now();
        let mut taps = self.taps();
        taps.insert(
            id,
            Tap {
                challenge,
                since,
                kind,
            },
        );
        self.metrics.open.inc();
        Ok(id)
    }

    /// The card's proof.
    pub(super) fn proof(&self, id: TapId, message: &[u8]) -> Result<Answer, Problem> {
        let began = Instant::now();
        let (challenge, released, over) = {
            let mut taps = self.taps();
            let Some(Tap {
                challenge,
                since,
                kind: Kind::Proven(pending),
            }) = taps.get_mut(&id)
            else {
                return Err(Problem::no_such_tap());
            };
            let challenge = *challenge;
            let released = pending.release(message, millis(since.elapsed()));
            // What is not this terminal's changes nothing.
            let over = !matches!(released, Err(Refusal::Message(_)));
            if over {
                taps.remove(&id);
                self.metrics.open.dec();
            }
            (challenge, released.map_err(Problem::from), over)
        };
        let outcome = released.as_ref().map(|_| "released");
        self.audit
            .line("proof", Some(&challenge), outcome, began.elapsed())?;
        if over {
            let word = outcome.unwrap_or_else(|problem| problem.word);
            self.metrics.ended(Mode::Proven, word);
        }
        Ok(Answer::last(released?.to_vec()))
    }

    /// A receipt. It can be sent again: a verdict that is settled is said again, to this terminal.
    pub(super) fn receipt(&self, id: TapId, receipt: &[u8]) -> Result<Answer, Problem> {
        let began = Instant::now();
        let (challenge, sealed) = match self.taps().get(&id) {
            Some(Tap {
                challenge,
                kind: Kind::Script { sealed, .. },
                ..
            }) => (*challenge, sealed.clone()),
            _ => return Err(Problem::no_such_tap()),
        };
        let judged = self.judge(&challenge, &sealed, receipt);
        // From the look at what is settled to the settling nobody comes in between: one script has one end
        // in the log.
        let mut taps = self.taps();
        let Some(Tap {
            kind: Kind::Script { verdict: kept, .. },
            ..
        }) = taps.get_mut(&id)
        else {
            return Err(Problem::no_such_tap());
        };
        if let (Ok(_), Some(settled)) = (&judged, &*kept) {
            return Ok(Answer::said(settled));
        }
        let outcome = judged.as_ref().map(|(word, _)| *word);
        self.audit
            .line("receipt", Some(&challenge), outcome, began.elapsed())?;
        let (word, verdict) = judged?;
        self.metrics.ended(Mode::Script, word);
        // Unknown is not the end: a better receipt may come.
        if word != "unknown" {
            *kept = Some(verdict.clone());
        }
        Ok(Answer::said(&verdict))
    }

    fn judge(
        &self,
        challenge: &Challenge,
        sealed: &[u8],
        receipt: &[u8],
    ) -> Result<(&'static str, String), Problem> {
        let key = self.config.transport_key(&challenge.intent)?;
        let mut buffer = vec![0; sealed.len()];
        let record = Record::unseal(sealed, &self.storage, &mut buffer)?;
        let judgement = record.judge(receipt, &key)?;
        Ok(match judgement.verdict {
            Verdict::Done => match self.left(&record, receipt, &key) {
                Ok(left) => ("done", format!("done, {left} left")),
                // Torn while the value was read: what counts is proved.
                Err(_) => ("done", "done".to_owned()),
            },
            Verdict::NotDone => ("not-done", "not done".to_owned()),
            Verdict::Unknown => ("unknown", "unknown".to_owned()),
        })
    }

    /// Opens what nobody knew in advance: the value after the debit.
    fn left(
        &self,
        record: &Record<'_>,
        receipt: &[u8],
        key: &TransportKey,
    ) -> Result<i32, Problem> {
        let (mut session, mut replay) = record.replay(receipt, key)?;
        self.scheme.state_settings(&mut session);
        let value = session.get_value(self.scheme.vouchers).run(&mut replay);
        value.map_err(|_| Refusal::NoReplies.into())
    }

    async fn remote(
        self: &Arc<Self>,
        accepted: Accepted,
        purpose: Purpose,
    ) -> Result<Answer, Problem> {
        let challenge = *accepted.challenge();
        let gate = RelayGate::new(&accepted)?;
        let dialogue = Dialogue::begin(Arc::clone(self), accepted, purpose);
        let first = dialogue.next(None, self.config.patience).await?;
        match first {
            Said::Frame(message) => Ok(Answer {
                tap: Some(self.keep(challenge, Kind::Remote(gate, dialogue))?),
                message,
                verdict: None,
            }),
            Said::End { message, verdict } => Ok(Answer {
                verdict: Some(verdict),
                ..Answer::last(message)
            }),
        }
    }

    /// A frame of a remote tap.
    pub(super) async fn frame(&self, id: TapId, message: &[u8]) -> Result<Answer, Problem> {
        let dialogue = match self.taps().get_mut(&id) {
            Some(Tap {
                kind: Kind::Remote(gate, dialogue),
                ..
            }) => {
                // What is not let in has not reached the machines.
                gate.admit(message)?;
                dialogue.clone()
            }
            _ => return Err(Problem::no_such_tap()),
        };
        let said = dialogue
            .next(Some(message.to_vec()), self.config.patience)
            .await;
        if !matches!(said, Ok(Said::Frame(_))) && self.taps().remove(&id).is_some() {
            self.metrics.open.dec();
        }
        Ok(match said? {
            Said::Frame(message) => Answer::last(message),
            Said::End { message, verdict } => Answer {
                verdict: Some(verdict),
                ..Answer::last(message)
            },
        })
    }

    /// The end of a remote tap, for log and metrics.
    pub(super) fn remote_ended(
        &self,
        challenge: &Challenge,
        outcome: Result<&'static str, &Problem>,
        took: Duration,
    ) -> Result<(), Problem> {
        let word = outcome.unwrap_or_else(|problem| problem.word);
        self.metrics.ended(Mode::Remote, word);
        self.audit.line("remote", Some(challenge), outcome, took)
    }
}

impl Answer {
    const fn last(message: Vec<u8>) -> Self {
        Self {
            tap: None,
            message,
            verdict: None,
        }
    }

    fn said(verdict: &str) -> Self {
        Self {
            verdict: Some(verdict.to_owned()),
            ..Self::last(format!("{verdict}\n").into_bytes())
        }
    }
}

pub(super) fn stopping() -> Problem {
    let text = "the service is stopping; ask another one";
    Problem::new(StatusCode::SERVICE_UNAVAILABLE, "stopping", text)
}

/// The clock of proven releases: from the beginning of the tap.
fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

/// In the key holder's thread: everything that needs the card's key.
fn make(
    holder: &dyn Holder,
    accepted: Accepted,
    purpose: Purpose,
    shared: &Shared,
) -> Result<Made, Problem> {
    let intent = accepted.challenge().intent;
    let mut key = holder.find(&accepted.key_request())?;
    let answered = accepted.answer(&mut *key, &mut getrandom::SysRng)?;
    match intent.mode {
        Mode::CardLocked => Ok(Made::Message(answered.card_locked()?.to_vec())),
        Mode::Proven => {
            let (token, pending) = answered.proven(millis(shared.config.patience))?;
            Ok(Made::Proven(token.to_vec(), Box::new(pending)))
        }
        Mode::Script => {
            let (mut script, mut record) = (vec![0; SCRIPT_ROOM], vec![0; SCRIPT_ROOM]);
            let (mut session, mut builder) = answered.script(&mut script, &mut record)?;
            let line = scheme::record(intent.transport, purpose);
            let scheme = &shared.scheme;
            scheme.script(&mut session, purpose, &line, &mut builder)?;
            let Finished { script, record } = builder.finish()?;
            let mut sealed = vec![0; record.sealed_len()];
            let len = record.seal(&shared.storage, &mut sealed)?;
            sealed.truncate(len);
            Ok(Made::Script(script.to_vec(), sealed))
        }
        Mode::Remote => Err(Problem::internal("a remote tap has no answer")),
    }
}
