//! Counters for whoever runs the server, in the text form that Prometheus reads.
//!
//! For: counting. May know: how conversations end. Holds nothing of accounts, cards or vouchers.

use std::sync::atomic::{AtomicI64, AtomicU64};

use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// How something ended.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct End(String);

impl EncodeLabelSet for End {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> Result<(), std::fmt::Error> {
        use prometheus_client::encoding::EncodeLabel as _;
        ("end", self.0.as_str()).encode(encoder.encode_label())
    }
}

/// All there is to count.
pub struct Metrics {
    registry: Registry,
    ends: Family<End, Counter>,
    settled: Family<End, Counter>,
    /// Conversations that go on now.
    pub active: Gauge<i64, AtomicI64>,
    /// Frames that cards have answered.
    pub frames: Counter<u64, AtomicU64>,
    /// Messages of phones.
    pub messages: Counter<u64, AtomicU64>,
    /// Times at which books and card contradicted each other: must stay 0.
    pub contradictions: Counter<u64, AtomicU64>,
    /// Seconds from the first message to the last.
    pub duration: Histogram,
}

impl Default for Metrics {
    fn default() -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("topup"),
            ends: Family::default(),
            settled: Family::default(),
            active: Gauge::default(),
            frames: Counter::default(),
            messages: Counter::default(),
            contradictions: Counter::default(),
            duration: Histogram::new(exponential_buckets(0.001, 2.0, 16)),
        };
        metrics.registered()
    }
}

impl Metrics {
    fn registered(mut self) -> Self {
        let registry = &mut self.registry;
        registry.register(
            "conversations",
            "Conversations that are over, by how they ended",
            self.ends.clone(),
        );
        registry.register(
            "settled",
            "Top-ups with an unknown end that a later tap has settled",
            self.settled.clone(),
        );
        registry.register("active", "Conversations that go on", self.active.clone());
        registry.register("frames", "Frames answered by cards", self.frames.clone());
        registry.register("messages", "Messages of phones", self.messages.clone());
        registry.register(
            "contradictions",
            "Books and card say different things: look at the log",
            self.contradictions.clone(),
        );
        registry.register_with_unit(
            "duration",
            "Length of a conversation",
            Unit::Seconds,
            self.duration.clone(),
        );
        self
    }

    /// A conversation is over.
    pub fn ended(&self, how: &impl std::fmt::Debug) {
        self.ends.get_or_create(&End(format!("{how:?}"))).inc();
    }

    /// An old top-up has been settled.
    pub fn settled(&self, credited: bool) {
        let how = if credited { "Credited" } else { "Released" };
        self.settled.get_or_create(&End(how.to_owned())).inc();
    }

    /// All of them as text.
    #[must_use]
    pub fn text(&self) -> String {
        let mut text = String::new();
        // Writing to a string does not fail.
        let _ = encode(&mut text, &self.registry);
        text
    }
}
