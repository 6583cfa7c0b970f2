//! The door to all of it: layout and keys together, checked, and what can be done with a card.

use alloc::boxed::Box;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;
use core::fmt;

use rand_core::TryCryptoRng;

use super::apply::{Fault, Worker};
use super::check::{LayoutError, LayoutErrors, Place};
use super::hand::Hand;
use super::keys::{KeyFault, KeyStore, Level, Ring};
use super::layout::{FILLING, FileKind, FileLayout, Layout};
use super::plan::{Options, Plan, Problem, ProblemKind, Step};
use super::planner;
use super::survey::{Depth, Halt, KeyFound, Survey};
use crate::pcd::{Ready, finish};
use crate::wire::{Access, AccessRights, FileDetail, KeyNo, Uid, ValueFlags};
use crate::{AsyncTransport, RunError, Transport};

/// Stands for any card when keys are tried before one is there.
const ANY_UID: Uid = Uid([0x04, 0, 0, 0, 0, 0, 0]);

/// A layout and the keys that it names, both checked, so that no card is touched for a layout that
/// cannot be.
pub struct Issuer<'a, K: ?Sized> {
    layout: &'a Layout,
    keys: &'a K,
    options: Options,
    uid: Option<Uid>,
    contents: bool,
}

/// Why layout and keys do not make an issuer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum IssueError {
    /// The layout cannot be brought onto a card.
    #[error("the layout cannot be used:\n{0}")]
    Layout(LayoutErrors),
    /// A key is missing, or does not fit where the layout has it.
    #[error("{subject}: {fault}")]
    Key {
        /// Where the layout names it.
        subject: String,
        /// What is wrong with it.
        fault: KeyFault,
    },
}

/// Why a card is not finished.
#[derive(Debug)]
#[non_exhaustive]
pub enum ProvisionError<E> {
    /// The card cannot be made what the layout says; nothing has been done. The plan says why.
    NotPossible(Box<Plan>),
    /// Card or reader. What has become of the step is not known, and need not be: apply again.
    Card {
        /// The step that was going on, with its number; nothing while only looking.
        step: Option<Box<(usize, Step)>>,
        /// What went wrong.
        error: RunError<E>,
    },
    /// The card said that it did a step, and it is not so.
    NotAsAsked {
        /// The step, with its number; nothing while only looking.
        step: Option<Box<(usize, Step)>>,
        /// What is not so.
        what: &'static str,
    },
    /// A key could not be had.
    Key(KeyFault),
}

impl<E: fmt::Display> fmt::Display for ProvisionError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotPossible(plan) => {
                f.write_str("the card cannot be made what the layout says; nothing was done")?;
                plan.problems
                    .iter()
                    .try_for_each(|problem| write!(f, "\n  {problem}"))
            }
            Self::Card { step, error } => {
                if let Some(at) = step {
                    write!(f, "step {} ({}): ", at.0, at.1)?;
                }
                error.fmt(f)?;
                if error.outcome() == crate::Outcome::Refused {
                    return Ok(());
                }
                f.write_str(". Put the card back and apply again: it goes on")
            }
            Self::NotAsAsked { step, what } => {
                if let Some(at) = step {
                    write!(f, "step {} ({}): ", at.0, at.1)?;
                }
                f.write_str(what)
            }
            Self::Key(fault) => fault.fmt(f),
        }
    }
}

impl<E: core::error::Error + 'static> core::error::Error for ProvisionError<E> {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            Self::Card { error, .. } => Some(error),
            Self::Key(fault) => Some(fault),
            Self::NotPossible(_) | Self::NotAsAsked { .. } => None,
        }
    }
}

/// A step that is about to be done.
#[derive(Clone, Copy, Debug)]
pub struct Progress<'a> {
    /// The card.
    pub uid: Option<Uid>,
    /// Which step, counted from 1.
    pub number: usize,
    /// Of how many.
    pub of: usize,
    /// The step.
    pub step: &'a Step,
}

/// What was done to a card.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// The card.
    pub uid: Option<Uid>,
    /// The steps that were done; none if there was nothing to do.
    pub steps: Vec<Step>,
    /// What was left, since it can never be undone and was not asked for.
    pub held_back: Vec<String>,
    /// All exchanges with the card.
    pub exchanges: u32,
    /// Those of them that were needed to look, before the first step.
    pub looking: u32,
}

/// How a card compares with a layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// What there is, what is wrong, and what would have to be done.
    pub plan: Plan,
    /// Contents that are not those of the layout, if they were asked for: see [`Issuer::contents`].
    pub contents: Vec<String>,
}

impl Verdict {
    /// Whether the card is as the layout says (but for what can never be undone, if that was not
    /// asked for).
    #[must_use]
    pub fn is_ok(&self) -> bool {
        self.plan.is_done() && self.contents.is_empty()
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.plan.fmt(f)?;
        for content in &self.contents {
            writeln!(f, "  DIFFERS  {content}")?;
        }
        Ok(())
    }
}

type Outcome<V, T> = Result<V, ProvisionError<<T as crate::Link>::Error>>;

fn halted<E>(halt: Halt<E>, step: Option<(usize, &Step)>) -> ProvisionError<E> {
    match halt {
        Halt::Card(error) => ProvisionError::Card {
            step: step.map(|(number, step)| Box::new((number, step.clone()))),
            error,
        },
        Halt::Keys(fault) => ProvisionError::Key(fault),
    }
}

fn failed<E>(fault: Fault<E>, step: Option<(usize, &Step)>) -> ProvisionError<E> {
    match fault {
        Fault::Halt(halt) => halted(halt, step),
        Fault::NotAsAsked(what) => ProvisionError::NotAsAsked {
            step: step.map(|(number, step)| Box::new((number, step.clone()))),
            what,
        },
    }
}

impl<'a, K: KeyStore + ?Sized> Issuer<'a, K> {
    /// Checks the layout, and that the store has all its keys and each fits where it belongs. (Of
    /// older keys and transport keys only those that the store has are looked at.)
    ///
    /// # Errors
    /// [`IssueError`]
    pub fn new(layout: &'a Layout, keys: &'a K) -> Result<Self, IssueError> {
        layout.check().map_err(IssueError::Layout)?;
        let ring = Ring {
            layout,
            store: keys,
            uid: Some(ANY_UID),
        };
        ring.check().map_err(|(place, fault)| IssueError::Key {
            subject: layout.subject(place),
            fault,
        })?;
        Ok(Self {
            layout,
            keys,
            options: Options {
                keys_only: false,
                irreversible: false,
                configure_again: false,
            },
            uid: None,
            contents: false,
        })
    }

    /// Keys only: brings those of cards in the field to the layout's generation, and touches neither
    /// files nor contents nor settings. (Where key settings give the change of keys to another key than
    /// the master key, they are opened for as long as it takes.) Differences that are no keys are no
    /// problem then. Afterwards the change of keys belongs to whom the layout gives it.
    ///
    /// What SetConfiguration sets is not touched either, and with the new master key counts as done: if the new
    /// layout has another ATS, follow with [`Issuer::configure_again`].
    ///
    /// Files need no look, since their rights name key numbers, not keys. But keys of delivery are refused
    /// ([`ProblemKind::NotIssued`]): the layout's master key says that what cannot be read back is
    /// done, and that nobody else can have filled the files. That is for [`Issuer::apply`] to bring about.
    #[must_use]
    pub const fn rollover(mut self) -> Self {
        self.options.keys_only = true;
        self
    }

    /// Does what can never be undone, too: frozen key settings, random ID, FormatPICC disabled. Without
    /// this the plan lists it as held back.
    #[must_use]
    pub const fn irreversible(mut self) -> Self {
        self.options.irreversible = true;
        self
    }

    /// Sets default key and ATS again although the card looks as if they were set: they cannot be read
    /// back.
    #[must_use]
    pub const fn configure_again(mut self) -> Self {
        self.options.configure_again = true;
        self
    }

    /// States the UID of a card that hides it.
    #[must_use]
    pub const fn uid(mut self, uid: Uid) -> Self {
        self.uid = Some(uid);
        self
    }

    /// [`Issuer::verify`] reads contents and values back as well, as far as rights allow it. For cards
    /// that have not been used yet.
    #[must_use]
    pub const fn contents(mut self) -> Self {
        self.contents = true;
        self
    }

    fn ring(&self) -> Ring<'a, K> {
        Ring {
            layout: self.layout,
            store: self.keys,
            uid: self.uid,
        }
    }

    async fn look<T, R>(
        &self,
        hand: &mut Hand<'_, T, R>,
        ring: &mut Ring<'a, K>,
    ) -> Outcome<(Survey, Plan), T>
    where
        T: AsyncTransport + ?Sized,
        R: TryCryptoRng + ?Sized,
    {
        let depth = Depth {
            files: !self.options.keys_only,
        };
        let survey = hand.look(ring, depth).await;
        let survey = survey.map_err(|halt| halted(halt, None))?;
        let mut plan = planner::make(self.layout, &survey, self.options);
        if !self.options.keys_only {
            // Whoever has prepared an application that still has its first keys needed none for it.
            let mut worker = Worker::new(hand, ring, &survey);
            let compared = self.compare(&mut worker, &survey, Which::New).await;
            let compared = compared.map_err(|fault| failed(fault, None))?;
            for (place, reason) in compared {
                plan.problems.push(Problem {
                    kind: ProblemKind::Differs,
                    subject: self.layout.subject(place),
                    reason: reason.to_string(),
                });
            }
        }
        plan.exchanges = hand.wire.exchanges;
        Ok((survey, plan))
    }

    /// Looks at a card and says what is to be done. It only reads and authenticates.
    ///
    /// Of applications that still have their first keys, contents and values of the files are compared
    /// as well: anybody may have put them there. What differs is a problem.
    ///
    /// # Errors
    /// [`ProvisionError::Card`], [`ProvisionError::Key`]. A card that cannot be made what the layout
    /// says is a plan with problems and no error.
    pub async fn plan_async<T, R>(&self, transport: &mut T, rng: &mut R) -> Outcome<Plan, T>
    where
        T: AsyncTransport + ?Sized,
        R: TryCryptoRng + ?Sized,
    {
        let mut hand = Hand::new(transport, rng);
        let (_, plan) = self.look(&mut hand, &mut self.ring()).await?;
        Ok(plan)
    }

    /// [`Issuer::plan_async`] over a blocking transport.
    ///
    /// # Errors
    /// As there.
    pub fn plan<T, R>(&self, transport: &mut T, rng: &mut R) -> Outcome<Plan, T>
    where
        T: Transport + ?Sized,
        R: TryCryptoRng + ?Sized,
    {
        finish(self.plan_async(&mut Ready(transport), rng))
    }

    /// Makes a card what the layout says: looks at it, and does what is to be done step by step.
    ///
    /// After any error, whatever was torn where, call it again when the card is back: it goes on to
    /// the same end. `watch` is told of every step before it is done.
    ///
    /// # Errors
    /// [`ProvisionError`]
    pub async fn apply_async<T, R, W>(
        &self,
        transport: &mut T,
        rng: &mut R,
        mut watch: W,
    ) -> Outcome<Report, T>
    where
        T: AsyncTransport + ?Sized,
        R: TryCryptoRng + ?Sized,
        W: FnMut(Progress<'_>),
    {
        let mut ring = self.ring();
        let mut hand = Hand::new(transport, rng);
        let (survey, plan) = self.look(&mut hand, &mut ring).await?;
        if !plan.is_possible() {
            return Err(ProvisionError::NotPossible(Box::new(plan)));
        }
        let mut worker = Worker::new(&mut hand, &ring, &survey);
        let of = plan.steps.len();
        for (number, step) in (1..).zip(&plan.steps) {
            watch(Progress {
                uid: plan.uid,
                number,
                of,
                step,
            });
            let done = worker.step(step).await;
            done.map_err(|fault| failed(fault, Some((number, step))))?;
        }
        Ok(Report {
            uid: plan.uid,
            steps: plan.steps,
            held_back: plan.held_back,
            exchanges: hand.wire.exchanges,
            looking: plan.exchanges,
        })
    }

    /// [`Issuer::apply_async`] over a blocking transport, unwatched.
    ///
    /// # Errors
    /// As there.
    pub fn apply<T, R>(&self, transport: &mut T, rng: &mut R) -> Outcome<Report, T>
    where
        T: Transport + ?Sized,
        R: TryCryptoRng + ?Sized,
    {
        self.apply_watched(transport, rng, |_| {})
    }

    /// [`Issuer::apply_async`] over a blocking transport.
    ///
    /// # Errors
    /// As there.
    pub fn apply_watched<T, R, W>(
        &self,
        transport: &mut T,
        rng: &mut R,
        watch: W,
    ) -> Outcome<Report, T>
    where
        T: Transport + ?Sized,
        R: TryCryptoRng + ?Sized,
        W: FnMut(Progress<'_>),
    {
        finish(self.apply_async(&mut Ready(transport), rng, watch))
    }

    /// Compares a card with the layout; changes nothing. Every key that the layout names is proved by
    /// a handshake.
    ///
    /// # Errors
    /// [`ProvisionError::Card`], [`ProvisionError::Key`]. A card that differs is no error.
    pub async fn verify_async<T, R>(&self, transport: &mut T, rng: &mut R) -> Outcome<Verdict, T>
    where
        T: AsyncTransport + ?Sized,
        R: TryCryptoRng + ?Sized,
    {
        let mut ring = self.ring();
        let mut hand = Hand::new(transport, rng);
        let (survey, mut plan) = self.look(&mut hand, &mut ring).await?;
        let mut contents = Vec::new();
        if self.contents {
            let mut worker = Worker::new(&mut hand, &ring, &survey);
            let compared = self.compare(&mut worker, &survey, Which::All).await;
            let compared = compared.map_err(|fault| failed(fault, None))?;
            let told = |(place, reason)| format!("{}: {reason}", self.layout.subject(place));
            contents = compared.into_iter().map(told).collect();
        }
        plan.exchanges = hand.wire.exchanges;
        Ok(Verdict { plan, contents })
    }

    /// [`Issuer::verify_async`] over a blocking transport.
    ///
    /// # Errors
    /// As there.
    pub fn verify<T, R>(&self, transport: &mut T, rng: &mut R) -> Outcome<Verdict, T>
    where
        T: Transport + ?Sized,
        R: TryCryptoRng + ?Sized,
    {
        finish(self.verify_async(&mut Ready(transport), rng))
    }

    /// What differs in the contents of the files that are there.
    async fn compare<T, R>(
        &self,
        worker: &mut Worker<'_, '_, T, R, K>,
        survey: &Survey,
        which: Which,
    ) -> Result<Vec<(Place, &'static str)>, Fault<T::Error>>
    where
        T: AsyncTransport + ?Sized,
        R: TryCryptoRng + ?Sized,
    {
        let mut different = Vec::new();
        for (index, app) in self.layout.applications.iter().enumerate() {
            let Some(Some(found)) = survey.apps.get(index) else {
                continue;
            };
            if which == Which::New && !found.is_new() {
                continue;
            }
            for (number, file) in app.files.iter().enumerate() {
                let there = found.files.iter().flatten();
                let settings = there
                    .filter(|(number, _)| *number == file.number)
                    .find_map(|(_, settings)| settings.as_ref());
                let Some(settings) = settings else { continue };
                if !planner::same_kind(&file.detail(), &settings.detail) {
                    continue;
                }
                // What is being filled is looked at when that is done.
                let filling = settings.rights == FILLING && file.has_content();
                if which == Which::New && filling {
                    continue;
                }
                let place = Place::Content(index, number);
                if let Some(reason) = detail_differs(file, &settings.detail) {
                    different.push((place, reason));
                    continue;
                }
                let Some(reader) = reader_of(file, settings.rights, &found.keys) else {
                    // What nobody can read harms nobody, and does not stop a torn card for ever.
                    let unasked = which == Which::New || !holds_something(file);
                    if !(unasked && nobody_reads(file, settings.rights)) {
                        different.push((place, "nobody may read it"));
                    }
                    continue;
                };
                worker.be(Level::App(index), reader).await?;
                worker.tell(file, settings.into());
                if !worker.has_its_content(file).await? {
                    different.push((place, "is not the layout's"));
                }
            }
        }
        Ok(different)
    }
}

/// Which applications' files are compared.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Which {
    /// Those of applications that nobody has given keys of the layout.
    New,
    All,
}

/// What the settings alone say of a file's content.
fn detail_differs(file: &FileLayout, detail: &FileDetail) -> Option<&'static str> {
    let found = match detail {
        FileDetail::LinearRecord {
            current_records, ..
        }
        | FileDetail::CyclicRecord {
            current_records, ..
        } => current_records.get(),
        FileDetail::Value { limited_credit, .. } => {
            return (*limited_credit != 0).then_some("has been debited: LimitedCredit is possible");
        }
        _ => return None,
    };
    match &file.kind {
        FileKind::Linear(records) | FileKind::Cyclic(records) => {
            let same = usize::try_from(found) == Ok(records.records.len());
            (!same).then_some("has another number of records")
        }
        _ => None,
    }
}

/// Whether the layout says what is in it.
fn holds_something(file: &FileLayout) -> bool {
    file.has_content() || matches!(file.kind, FileKind::Value { .. })
}

/// What grants reading a file that has these rights.
fn reading(file: &FileLayout, rights: AccessRights) -> Vec<Access> {
    let mut granting = [rights.read, rights.read_write].to_vec();
    if let FileKind::Value { flags, .. } = &file.kind {
        granting.push(rights.write);
        if flags.contains(ValueFlags::FREE_GET_VALUE) {
            granting.push(Access::Free);
        }
    }
    granting
}

fn nobody_reads(file: &FileLayout, rights: AccessRights) -> bool {
    let granting = reading(file, rights);
    granting.iter().all(|access| *access == Access::Never)
}

/// The key with which a file can be read, the master key if it may be anybody.
fn reader_of(file: &FileLayout, rights: AccessRights, keys: &[KeyFound]) -> Option<KeyNo> {
    reading(file, rights)
        .iter()
        .find_map(|access| match access {
            Access::Never => None,
            Access::Free => Some(KeyNo::MASTER),
            Access::Key(key) => {
                let found = keys.get(usize::from(key.number()))?;
                found.known().map(|_| *key)
            }
        })
}

impl From<LayoutErrors> for IssueError {
    fn from(errors: LayoutErrors) -> Self {
        Self::Layout(errors)
    }
}

impl From<LayoutError> for IssueError {
    fn from(error: LayoutError) -> Self {
        Self::Layout(LayoutErrors([error].to_vec()))
    }
}

impl<K: ?Sized> fmt::Debug for Issuer<'_, K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Issuer")
            .field("layout", &self.layout.name.to_string())
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}
