//! What happens in conversations, for those who watch: the web page, and nobody else's business.
//!
//! For: handing events to watchers of the same account, on this node. May know: accounts and
//! amounts. May not know: keys, tokens, vouchers. A watcher who is too slow misses events; nothing
//! waits for him.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;
use tokio::sync::broadcast;

use crate::limits::{Counted, Counts};

/// The most events that wait for a watcher.
const BACKLOG: usize = 64;
/// The most tickets and watchers of one account, together.
const MAX_WATCHERS: usize = 4;
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
    pub account: Arc<str>,
    /// What has happened.
    pub what: What,
}

/// Somebody who may watch an account, and has one of its places until this is dropped.
pub struct Watcher {
    /// The account.
    pub account: Arc<str>,
    _place: Counted<Arc<str>>,
}

/// Where events go.
pub struct Events {
    out: broadcast::Sender<Event>,
    tickets: Mutex<HashMap<String, (Watcher, Instant)>>,
    watchers: Arc<Counts<Arc<str>>>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            out: broadcast::channel(BACKLOG).0,
            tickets: Mutex::default(),
            watchers: Arc::default(),
        }
    }
}

impl Events {
    /// Tells whoever watches.
    pub fn tell(&self, account: &Arc<str>, what: What) {
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
    /// there was room: for another ticket, and for this account's.
    pub fn issue_ticket(&self, ticket: String, account: &str) -> bool {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        tickets.retain(|_, (_, issued)| issued.elapsed() < TICKET_LIFE);
        if tickets.len() >= MAX_TICKETS {
            return false;
        }
        let account: Arc<str> = account.into();
        let Some(place) = self.watchers.enter(account.clone(), MAX_WATCHERS) else {
            return false;
        };
        let watcher = Watcher {
            account,
            _place: place,
        };
        tickets.insert(ticket, (watcher, Instant::now()));
        true
    }

    /// Whoever has this ticket, which is used up by this.
    pub fn take_ticket(&self, ticket: &str) -> Option<Watcher> {
        let mut tickets = self.tickets.lock().unwrap_or_else(PoisonError::into_inner);
        let (watcher, issued) = tickets.remove(ticket)?;
        (issued.elapsed() < TICKET_LIFE).then_some(watcher)
    }
}

#[cfg(test)]
mod tests {

    use super::*;

    #[test]
    fn one_account_has_four_tickets_and_watchers_together_and_others_have_theirs() {
        let events = Events::default();
        let issue = |ticket: &str, account| events.issue_ticket(ticket.to_owned(), account);
        for ticket in ["a", "b", "c", "d"] {
            assert!(issue(ticket, "alice"));
        }
        assert!(!issue("e", "alice"));
        assert!(issue("f", "bob"));
        let watcher = events.take_ticket("a").unwrap();
        assert_eq!(&*watcher.account, "alice");
        assert!(events.take_ticket("a").is_none());
        assert!(!issue("e", "alice"));
        drop(watcher);
        assert!(issue("e", "alice"));
        assert!(!issue("g", "alice"));
    }
}
