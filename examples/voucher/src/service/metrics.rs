//! What the operator watches.

use std::sync::atomic::AtomicI64;
use std::time::Duration;

use desfire_ev1::split::Mode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

use super::problem::Problem;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    mode: &'static str,
    outcome: &'static str,
}

/// Upper ends of the classes of answering times, in seconds.
const CLASSES: [f64; 9] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.5];

pub(super) struct Metrics {
    registry: Registry,
    answers: Family<Labels, Counter>,
    verdicts: Family<Labels, Counter>,
    seconds: Histogram,
    pub(super) open: Gauge<i64, AtomicI64>,
}

pub(super) const fn mode_name(mode: Option<Mode>) -> &'static str {
    match mode {
        Some(Mode::Proven) => "proven",
        Some(Mode::CardLocked) => "card-locked",
        Some(Mode::Script) => "script",
        Some(Mode::Remote) => "remote",
        None => "none",
    }
}

impl Metrics {
    pub(super) fn new() -> Self {
        let mut registry = Registry::with_prefix("voucher");
        let answers = Family::<Labels, Counter>::default();
        let verdicts = Family::<Labels, Counter>::default();
        let seconds = Histogram::new(CLASSES);
        let open = Gauge::default();
        registry.register("answers", "Challenges by mode and outcome", answers.clone());
        registry.register(
            "verdicts",
            "Ends of taps by mode and outcome",
            verdicts.clone(),
        );
        registry.register(
            "answer_seconds",
            "From challenge to answer",
            seconds.clone(),
        );
        registry.register("open_taps", "Taps that are not over", open.clone());
        Self {
            registry,
            answers,
            verdicts,
            seconds,
            open,
        }
    }

    pub(super) fn answered(
        &self,
        mode: Option<Mode>,
        outcome: Result<(), &Problem>,
        took: Duration,
    ) {
        let outcome = outcome.map_or_else(|problem| problem.word, |()| "granted");
        let mode = mode_name(mode);
        self.answers.get_or_create(&Labels { mode, outcome }).inc();
        self.seconds.observe(took.as_secs_f64());
    }

    pub(super) fn ended(&self, mode: Mode, outcome: &'static str) {
        let mode = mode_name(Some(mode));
        self.verdicts.get_or_create(&Labels { mode, outcome }).inc();
    }

    pub(super) fn page(&self) -> Result<String, Problem> {
        let mut page = String::new();
        encode(&mut page, &self.registry).map_err(Problem::internal)?;
        Ok(page)
    }
}
