//! The protocol between servers, ledger, phone and card as a small state model, explored
//! exhaustively with `stateright`: server nodes that crash and come back, leases that run out too
//! early, a phone that drops, repeats, reorders, delays and adds, and a card that leaves the field
//! before or right after its commit.
//!
//! What the model takes for granted is what the card's secure messaging gives:
//!
//! - a card has one session, which a new authentication ends; changes that wait for a commit
//!   outlive it, as only a selection drops them, and the phone can keep a selection back and answer it
//!   itself;
//! - writing needs the session's key and fits only its place in the chain of messages;
//! - reading, aborting and committing carry no proof to the card: the phone can send them whenever it
//!   likes, but then the chain of the session is another one than the server's;
//! - a reply is proved to belong to one session and to everything said in it before.
//!
//! Each of the [`Rule`]s that is wrong must have a counterexample, or the model proves nothing.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs
)]

use std::collections::BTreeSet;

use stateright::{Checker, HasDiscoveries, Model, Property};

/// How the servers go about it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Rule {
    /// As the server in this package does.
    AsBuilt,
    /// Asks the books for what is open only after it has read the card, and lets any conversation
    /// reserve: a slow one then takes a younger top-up for one that was not done.
    WithoutEpochs,
    /// Releases the voucher when no answer to the commit comes in time.
    ReleasesOnTimeout,
    /// Takes a top-up for not done as long as it has not sent the commit itself.
    ReleasesUncommitted,
    /// Sends the changes first and writes down afterwards what they were for.
    ChangesBeforeIntent,
    /// Settles as "not done" without looking at the card.
    GuessesNotDone,
    /// Believes that the selection before its handshake has dropped what was pending.
    TrustsSelection,
}

const NODES: usize = 2;
/// Longer than any chain of the server's.
const LONGEST_CHAIN: usize = 6;

struct TopUp {
    rule: Rule,
    cards: usize,
    vouchers: usize,
    conversations: usize,
    crashes: u8,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    conversations: Vec<Conversation>,
    ledger: Ledger,
    cards: Vec<Card>,
    /// Whatever was ever sent: it may arrive at any time, any number of times, or never.
    network: BTreeSet<Message>,
    crashes: u8,
    /// The books said one thing and a card another.
    contradiction: bool,
}

/// What a session's chain of messages is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Command {
    Read,
    /// Writes what is there already, so that something is pending that can be aborted.
    Touch,
    Abort,
    /// The record and the value.
    Changes,
    Commit,
}

/// One conversation; its number is also the number of the one top-up that it may make.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Conversation {
    card: usize,
    voucher: usize,
    epoch: u8,
    /// The card's open top-up, as the books said at the claim.
    open: Option<usize>,
    /// What the card has proved of it.
    has_open: bool,
    /// How many entries the card's log had.
    seq: usize,
    phase: Phase,
    chain: Vec<Command>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Phase {
    Idle,
    Claimed,
    /// A command is out, and only its proof brings the conversation on.
    Awaits(Command),
    /// The card has been read, and nothing is pending on it.
    Known,
    Settled,
    Reserved,
    Over,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ledger {
    epochs: Vec<u8>,
    leases: Vec<Option<usize>>,
    topups: Vec<Option<Entry>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Entry {
    voucher: usize,
    card: usize,
    epoch: u8,
    state: State,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum State {
    Reserved,
    Credited,
    Released,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Card {
    session: Option<usize>,
    chain: Vec<Command>,
    /// The top-up that waits for a commit.
    pending: Option<usize>,
    touched: bool,
    /// Handshakes that were answered; their nonces never come again.
    met: BTreeSet<usize>,
    /// The top-ups that are on the card.
    log: Vec<usize>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Message {
    Authenticate(usize),
    Authenticated(usize),
    /// A command with a MAC, for this place in the chain.
    Write(usize, Command, Vec<Command>),
    /// The proof that the session's chain is this one, and what a reading gave: the length of the
    /// log, and whether the open top-up is in it.
    Reply(usize, Vec<Command>, usize, bool),
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Action {
    Start {
        conversation: usize,
        card: usize,
        voucher: usize,
    },
    Settle(usize),
    Reserve(usize),
    SendChanges(usize),
    GiveUp(usize),
    Crash(usize),
    LeaseRunsOut(usize),
    CardLeaves(usize),
    Deliver(Message),
    /// The card gets a command that needs no proof, whoever sends it; if it is torn, the card leaves
    /// the field before it has answered.
    Open {
        card: usize,
        command: Command,
        torn: bool,
    },
}

impl World {
    fn open(&self, card: usize) -> Option<usize> {
        self.ledger.topups.iter().position(|entry| {
            entry.is_some_and(|entry| entry.card == card && entry.state == State::Reserved)
        })
    }

    fn settle(&mut self, topup: usize, credited: bool) {
        let to = if credited {
            State::Credited
        } else {
            State::Released
        };
        if let Some(entry) = &mut self.ledger.topups[topup] {
            match entry.state {
                State::Reserved => entry.state = to,
                found => self.contradiction |= found != to,
            }
        }
    }

    fn over(&mut self, number: usize) {
        let card = self.conversations[number].card;
        self.conversations[number].phase = Phase::Over;
        if self.ledger.leases[card] == Some(number) {
            self.ledger.leases[card] = None;
        }
    }

    fn write_intent(&mut self, rule: Rule, number: usize) -> bool {
        let Conversation {
            card,
            voucher,
            epoch,
            ..
        } = self.conversations[number];
        let newest = self.ledger.epochs[card] == epoch || rule == Rule::WithoutEpochs;
        let taken = self.ledger.topups.iter().flatten().any(|entry| {
            (entry.voucher == voucher && entry.state != State::Released)
                || (entry.card == card && entry.state == State::Reserved)
        });
        if newest && !taken {
            let state = State::Reserved;
            self.ledger.topups[number] = Some(Entry {
                voucher,
                card,
                epoch,
                state,
            });
        }
        newest && !taken
    }

    /// The server sends a command that carries a MAC, and waits for the proof of it.
    fn write(&mut self, number: usize, command: Command) {
        let conversation = &mut self.conversations[number];
        let chain = conversation.chain.clone();
        conversation.phase = Phase::Awaits(command);
        self.network.insert(Message::Write(number, command, chain));
    }

    fn card_hears(&mut self, message: &Message) -> bool {
        match message {
            Message::Authenticate(number) => {
                let card = &mut self.cards[self.conversations[*number].card];
                if !card.met.insert(*number) {
                    return false;
                }
                card.session = Some(*number);
                card.chain.clear();
                self.network.insert(Message::Authenticated(*number));
                true
            }
            Message::Write(number, command, chain) => {
                let at = self.conversations[*number].card;
                let card = &mut self.cards[at];
                if card.session != Some(*number) || card.chain != *chain {
                    return false;
                }
                match command {
                    Command::Changes => card.pending = Some(*number),
                    _ => card.touched = true,
                }
                self.answer(at, *command, false);
                true
            }
            _ => false,
        }
    }

    /// A command that carries no MAC.
    fn card_hears_open(&mut self, at: usize, command: Command, torn: bool) -> bool {
        let card = &mut self.cards[at];
        let waits = card.pending.is_some() || card.touched;
        match command {
            Command::Read => {}
            Command::Abort | Command::Commit if !waits => return false,
            Command::Commit => card.log.extend(card.pending.take()),
            _ => card.pending = None,
        }
        card.touched &= command == Command::Read;
        self.answer(at, command, torn);
        true
    }

    fn answer(&mut self, at: usize, command: Command, torn: bool) {
        let card = &mut self.cards[at];
        card.chain.push(command);
        if torn {
            self.leave(at);
        } else if let Some(number) = card.session {
            let open = self.conversations[number].open;
            let has_open = open.is_some_and(|open| card.log.contains(&open));
            let (seq, has_open) = if command == Command::Read {
                (card.log.len(), has_open)
            } else {
                (0, false)
            };
            let chain = card.chain.clone();
            self.network
                .insert(Message::Reply(number, chain, seq, has_open));
        }
    }

    fn leave(&mut self, at: usize) {
        let card = &mut self.cards[at];
        (card.session, card.pending, card.touched) = (None, None, false);
        card.chain.clear();
    }

    fn server_hears(&mut self, rule: Rule, message: &Message) -> bool {
        match message {
            Message::Authenticated(number)
                if self.conversations[*number].phase == Phase::Claimed =>
            {
                self.conversations[*number].phase = Phase::Awaits(Command::Read);
                true
            }
            Message::Reply(number, chain, seq, has_open) => {
                let conversation = &mut self.conversations[*number];
                let Phase::Awaits(command) = conversation.phase else {
                    return false;
                };
                conversation.chain.push(command);
                if conversation.chain != *chain {
                    conversation.chain.pop();
                    return false;
                }
                match command {
                    Command::Read => {
                        (conversation.seq, conversation.has_open) = (*seq, *has_open);
                        let to_prove = conversation.open.is_some() && !has_open;
                        if to_prove && rule != Rule::TrustsSelection {
                            self.write(*number, Command::Touch);
                        } else {
                            conversation.phase = Phase::Known;
                        }
                    }
                    Command::Touch => conversation.phase = Phase::Awaits(Command::Abort),
                    Command::Abort => conversation.phase = Phase::Known,
                    Command::Changes => conversation.phase = Phase::Awaits(Command::Commit),
                    Command::Commit => {
                        if rule == Rule::ChangesBeforeIntent {
                            self.write_intent(rule, *number);
                        }
                        self.settle(*number, true);
                        self.over(*number);
                    }
                }
                true
            }
            _ => false,
        }
    }
}

impl Model for TopUp {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let conversation = Conversation {
            card: 0,
            voucher: 0,
            epoch: 0,
            open: None,
            has_open: false,
            seq: 0,
            phase: Phase::Idle,
            chain: Vec::new(),
        };
        vec![World {
            conversations: vec![conversation; self.conversations],
            ledger: Ledger {
                epochs: vec![0; self.cards],
                leases: vec![None; self.cards],
                topups: vec![None; self.conversations],
            },
            cards: vec![Card::default(); self.cards],
            network: BTreeSet::new(),
            crashes: 0,
            contradiction: false,
        }]
    }

    fn actions(&self, world: &World, actions: &mut Vec<Action>) {
        // Conversations are alike until they start: the next one that starts is the next number.
        let next = world
            .conversations
            .iter()
            .position(|c| c.phase == Phase::Idle);
        if let Some(conversation) = next {
            for card in 0..self.cards {
                for voucher in 0..self.vouchers {
                    actions.push(Action::Start {
                        conversation,
                        card,
                        voucher,
                    });
                }
            }
        }
        for (number, conversation) in world.conversations.iter().enumerate() {
            match conversation.phase {
                Phase::Idle | Phase::Over => continue,
                Phase::Known => actions.push(Action::Settle(number)),
                Phase::Settled => actions.push(Action::Reserve(number)),
                Phase::Reserved => actions.push(Action::SendChanges(number)),
                Phase::Claimed | Phase::Awaits(_) => {}
            }
            actions.push(Action::GiveUp(number));
        }
        if world.crashes < self.crashes {
            actions.extend((0..NODES).map(Action::Crash));
        }
        for card in 0..self.cards {
            if world.ledger.leases[card].is_some() {
                actions.push(Action::LeaseRunsOut(card));
            }
            if world.cards[card].session.is_some() {
                actions.push(Action::CardLeaves(card));
                if world.cards[card].chain.len() < LONGEST_CHAIN {
                    for command in [Command::Read, Command::Abort, Command::Commit] {
                        actions.push(Action::Open {
                            card,
                            command,
                            torn: false,
                        });
                    }
                    let (command, torn) = (Command::Commit, true);
                    actions.push(Action::Open {
                        card,
                        command,
                        torn,
                    });
                }
            }
        }
        actions.extend(world.network.iter().cloned().map(Action::Deliver));
    }

    fn next_state(&self, last: &World, action: Action) -> Option<World> {
        let mut world = last.clone();
        let happens = match action {
            Action::Start {
                conversation,
                card,
                voucher,
            } => {
                let free = world.ledger.leases[card].is_none();
                if free {
                    world.ledger.leases[card] = Some(conversation);
                    world.ledger.epochs[card] += 1;
                    let (epoch, open) = (world.ledger.epochs[card], world.open(card));
                    let started = &mut world.conversations[conversation];
                    (started.card, started.voucher) = (card, voucher);
                    (started.epoch, started.open) = (epoch, open);
                    started.phase = Phase::Claimed;
                    world.network.insert(Message::Authenticate(conversation));
                }
                free
            }
            Action::Settle(number) => {
                let Conversation {
                    card,
                    mut open,
                    mut has_open,
                    seq,
                    ..
                } = world.conversations[number];
                if self.rule == Rule::WithoutEpochs {
                    // What the card said then is compared with what is open now.
                    open = world.open(card);
                    let read = &world.cards[card].log[..seq];
                    has_open = open.is_some_and(|open| read.contains(&open));
                }
                if let Some(open) = open {
                    world.settle(open, has_open && self.rule != Rule::GuessesNotDone);
                }
                world.conversations[number].phase = Phase::Settled;
                true
            }
            Action::Reserve(number) => {
                let late = self.rule == Rule::ChangesBeforeIntent;
                if late || world.write_intent(self.rule, number) {
                    world.conversations[number].phase = Phase::Reserved;
                } else {
                    world.over(number);
                }
                true
            }
            Action::SendChanges(number) => {
                world.write(number, Command::Changes);
                true
            }
            Action::GiveUp(number) => {
                let release = match world.conversations[number].phase {
                    // No change was ever sent: the card can never have it.
                    Phase::Reserved => self.rule != Rule::ChangesBeforeIntent,
                    Phase::Awaits(Command::Changes) => self.rule == Rule::ReleasesUncommitted,
                    Phase::Awaits(Command::Commit) => self.rule == Rule::ReleasesOnTimeout,
                    _ => false,
                };
                if release {
                    world.settle(number, false);
                }
                world.over(number);
                true
            }
            Action::Crash(node) => {
                world.crashes += 1;
                let alive = |phase| !matches!(phase, Phase::Idle | Phase::Over);
                let mine: Vec<_> = (0..self.conversations)
                    .filter(|number| number % NODES == node)
                    .filter(|number| alive(world.conversations[*number].phase))
                    .collect();
                // Nothing is written; the node's leases are given back when it starts again.
                for number in &mine {
                    world.over(*number);
                }
                !mine.is_empty()
            }
            Action::LeaseRunsOut(card) => {
                world.ledger.leases[card] = None;
                true
            }
            Action::CardLeaves(card) => {
                world.leave(card);
                true
            }
            Action::Deliver(message) => {
                world.card_hears(&message) || world.server_hears(self.rule, &message)
            }
            Action::Open {
                card,
                command,
                torn,
            } => world.card_hears_open(card, command, torn),
        };
        happens.then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("no voucher is credited twice", |_, world: &World| {
                let mut spent = BTreeSet::new();
                let mut credits = world.cards.iter().flat_map(|card| &card.log);
                credits.all(|topup| spent.insert(world.conversations[*topup].voucher))
            }),
            // Credits on cards plus what is pending equals vouchers spent: entry by entry.
            Property::always("the books are exact", |_, world: &World| {
                let on_cards = world.cards.iter().enumerate().all(|(number, card)| {
                    card.log.iter().all(|topup| {
                        world.ledger.topups[*topup].is_some_and(|entry| {
                            entry.card == number && entry.state != State::Released
                        })
                    })
                });
                let mut entries = world.ledger.topups.iter().enumerate();
                let in_books = entries.all(|(topup, entry)| {
                    entry.is_none_or(|entry| {
                        let credited = entry.state == State::Credited;
                        !credited || world.cards[entry.card].log.contains(&topup)
                    })
                });
                on_cards && in_books
            }),
            Property::always("books and cards never contradict", |_, world: &World| {
                !world.contradiction
            }),
            // From wherever the world is, one undisturbed tap of the card settles what is open.
            Property::always("a tap settles what is open", |_, world: &World| {
                (0..world.cards.len()).all(|card| {
                    let Some(open) = world.open(card) else {
                        return true;
                    };
                    // Held to the phone anew, the card has no session and nothing pending.
                    let mut after = world.clone();
                    after.leave(card);
                    let has_it = after.cards[card].log.contains(&open);
                    after.settle(open, has_it);
                    let late = world.network.iter().any(|message| {
                        matches!(message, Message::Write(..)) && after.card_hears(message)
                    });
                    !late && after.open(card).is_none() && !after.contradiction
                })
            }),
            // The exploration gets everywhere that it is about.
            Property::sometimes("a voucher is credited", |_, world: &World| {
                let mut entries = world.ledger.topups.iter().flatten();
                entries.any(|entry| entry.state == State::Credited)
            }),
            Property::sometimes("a torn commit is settled as done", |_, world: &World| {
                world
                    .ledger
                    .topups
                    .iter()
                    .enumerate()
                    .any(|(number, entry)| {
                        let heard = |message: &Message| {
                            matches!(message,
                        Message::Reply(n, chain, ..)
                            if *n == number && chain.last() == Some(&Command::Commit))
                        };
                        entry.is_some_and(|entry| entry.state == State::Credited)
                            && !world.network.iter().any(heard)
                    })
            }),
            Property::sometimes(
                "a released voucher is credited later",
                |_, world: &World| {
                    let of = |state| {
                        let entries = world.ledger.topups.iter().flatten();
                        entries.filter(move |entry| entry.state == state)
                    };
                    of(State::Released)
                        .any(|gone| of(State::Credited).any(|entry| entry.voucher == gone.voucher))
                },
            ),
        ]
    }
}

const SAFETY: [&str; 4] = [
    "no voucher is credited twice",
    "the books are exact",
    "books and cards never contradict",
    "a tap settles what is open",
];

#[test]
fn as_built_every_interleaving_of_crashes_tears_and_a_hostile_phone_keeps_the_books_exact() {
    for (cards, vouchers, conversations, crashes) in [(1, 1, 2, 2), (1, 2, 2, 1), (2, 1, 2, 1)] {
        let model = TopUp {
            rule: Rule::AsBuilt,
            cards,
            vouchers,
            conversations,
            crashes,
        };
        let checker = model.checker().threads(2).spawn_bfs().join();
        checker.assert_properties();
        println!(
            "model: {cards} card(s), {vouchers} voucher(s), {conversations} conversations, \
             {crashes} crash(es): {} states, every property holds",
            checker.unique_state_count()
        );
    }
}

#[test]
fn every_rule_that_is_wrong_has_a_counterexample() {
    for rule in [
        Rule::WithoutEpochs,
        Rule::ReleasesOnTimeout,
        Rule::ReleasesUncommitted,
        Rule::ChangesBeforeIntent,
        Rule::GuessesNotDone,
        Rule::TrustsSelection,
    ] {
        let model = TopUp {
            rule,
            cards: 1,
            vouchers: 1,
            conversations: 2,
            crashes: 0,
        };
        // One thread finds the shortest way first.
        let checker = model.checker().finish_when(HasDiscoveries::AnyFailures);
        let checker = checker.spawn_bfs().join();
        let mut found = SAFETY
            .into_iter()
            .filter_map(|name| Some((name, checker.discovery(name)?)));
        let Some((name, path)) = found.next() else {
            panic!("{rule:?} passes for right");
        };
        println!("{rule:?} breaks \"{name}\":");
        for action in path.into_actions() {
            println!("    {action:?}");
        }
    }
}
