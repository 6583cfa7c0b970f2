//! What all conversations of a server share, and the frame around each of them.

use std::net::IpAddr;
use std::time::Instant;

use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::card::Layout;
use crate::conversation::converse;
use crate::events::Events;
use crate::keys::KeyHolder;
use crate::ledger::Ledger;
use crate::limits::Places;
use crate::link::{Patience, PhoneLink, Pipe};
use crate::message::{FromPhone, FromServer, Reason};
use crate::metrics::Metrics;

/// The desk at which cards are topped up.
pub struct Desk<K> {
    /// The books.
    pub ledger: Ledger,
    /// The keys.
    pub keys: K,
    /// What is where on a card.
    pub layout: Layout,
    /// For those who watch.
    pub events: Events,
    /// For those who run it.
    pub metrics: Metrics,
    /// Who may come in.
    pub places: Places,
    /// How long a phone may take.
    pub patience: Patience,
    /// The name of this server among those that share the books.
    pub node: String,
    /// Its number in the cards' records.
    pub terminal: u32,
    /// Whether frames travel together where they can.
    pub together: bool,
    /// Set when the server is to stop.
    pub stop: CancellationToken,
}

impl<K: KeyHolder> Desk<K> {
    /// Serves one phone from its first word to the last.
    pub async fn serve<P: Pipe>(&self, pipe: P, peer: IpAddr) {
        let started = Instant::now();
        let mut link = PhoneLink::new(pipe, self.patience, self.stop.clone());
        self.metrics.active.inc();
        let result = match link.hear().await {
            Ok(FromPhone::Hello(hello)) => {
                let card = hello.uid;
                let result = converse(self, &mut link, hello).await;
                let (frames, round_trips) = link.count();
                match &result {
                    Ok(finished) => info!(
                        %peer, %card, frames, round_trips, amount = finished.amount,
                        "{:?}", finished.ending
                    ),
                    Err(reason) => info!(%peer, %card, frames, round_trips, "{reason:?}"),
                }
                result
            }
            Ok(FromPhone::Played { .. }) => Err(Reason::Protocol),
            Err(error) => Err(error.reason()),
        };
        let (frames, round_trips) = link.count();
        self.metrics.active.dec();
        self.metrics.frames.inc_by(frames.into());
        self.metrics.messages.inc_by(round_trips.into());
        self.metrics
            .duration
            .observe(started.elapsed().as_secs_f64());
        match &result {
            Ok(finished) => self.metrics.ended(&finished.ending),
            Err(reason) => self.metrics.ended(reason),
        }
        let last = match result {
            Ok(finished) => FromServer::Finished(finished),
            Err(reason) => FromServer::Refused {
                reason,
                retry_after: retry_after(reason),
            },
        };
        // A phone that has gone does not hear it; it starts over.
        let _ = link.say(&last).await;
    }
}

/// After how many seconds it is worth trying again.
#[must_use]
pub const fn retry_after(reason: Reason) -> u16 {
    match reason {
        Reason::CardInUse => 1,
        Reason::Busy | Reason::TooMany | Reason::Ledger => 2,
        _ => 0,
    }
}
