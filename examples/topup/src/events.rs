//! What happens in conversations, for those who watch: the web page, and nobody else's business.
//!
//! For: handing events to watchers of the same account, on this node. May know: accounts and
//! amounts. May not know: keys, tokens, vouchers. A watcher who is too slow misses events; nothing
//! waits for him.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::broadcast;

/// The most events that wait for a watcher.
const BACKLOG: usize = 64;
/// The most tickets that are out.
const MAX_TICKETS: usize = 1024;
/// How long a ticket is good.
const TICKET_LIFE: Duration = Duration::from_secs(60);

/// Something that a watcher sees.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "what", rename_all = "kebab-case")]
pub enum What {
    /// A card was held to the phone.
    Tapped,
    /// The card has proved to be genuine.
    Genuine,
    /// What is on the card.
    Balance {
        /// In the smallest unit of the currency.
        balance: i32,
    },
    /// An old top-up has been settled.
    Settled {
        /// Whether the card has it.
        credited: bool,
        /// What it was worth.
        amount: i32,
    },
    /// The voucher's amount is on its way onto the card.
    Crediting {
        /// What it is worth.
        amount: i32,
    },
    /// It is on the card.
    Credited {
        /// What it was worth.
        amount: i32,
        /// What is on the card now.
        balance: i32,
    },
    /// It was not to be.
    Refused {
        /// Why, in words.
        why: String,
    },
}

/// An event, and whose.
#[derive(Clone, Debug)]
pub struct Event {
    /// The account.
    pub account: std::sync::Arc<str>,
    /// What has happened.
    pub what: What,
}

/// Where events go.
pub struct Events {
    out: broadcast::Sender<Event>,
    tickets: Mutex<HashMap<String, (String, Instant)>>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            out: broadcast::channel(BACKLOG).0,
            tickets: Mutex::default(),
        }
    }
}

impl Events {
    /// Tells whoever watches.
    pub fn tell(&self, account: &std::sync::Arc<str>, what: What) {
        // Nobody watching is no error, and the usual case.
        if self.out.receiver_count() > 0 {
            let account = account.clone();
            let _ = self.out.send(Event { account, what });
        }
    }

    /// All events from now on; the caller picks those of one account.
    pub fn watch(&self) -> broadcast::Receiver<Event> {
        self.out.subscribe()
    }

    /// Remembers a ticket with which `account` may be watched once: a browser cannot put a token into
    /// the head of an event stream's request, and a token in an address would end up in logs. Whether
    /// there was room.
    pub fn issue_ticket(&self, ticket: String, account: String) -> bool {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, (_, issued)| issued.elapsed() < TICKET_LIFE);
        if tickets.len() >= MAX_TICKETS {
            return false;
        }
        tickets.insert(ticket, (account, Instant::now()));
        true
    }

    /// The account of a ticket, which is used up by this.
    pub fn take_ticket(&self, ticket: &str) -> Option<String> {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let (account, issued) = tickets.remove(ticket)?;
        (issued.elapsed() < TICKET_LIFE).then_some(account)
    }
}
