//! Authentication whose key is elsewhere: in an HSM, in a SAM, on a server.
//!
//! For: terminals that have the card and no card key, and key holders that have the key and no card.
//! May know: the reader side and the wire. May not know: how messages travel, what an HSM is. No
//! heap: buffers are the caller's, on both sides.
//!
//! # Why not simply send the session key
//!
//! A key holder that answers a card's challenge E(RndB) with token and session key, as SAMs and servers
//! do, gives away every session that was ever recorded: the recorded challenge sent again, and the
//! first block of the recorded token sent as if it were a challenge, reveal half of both recorded
//! nonces, and that is the session key. Nothing on the card has to be broken for it. So no call of this
//! module gives a session key for a bare challenge. There are four ways to take part in a tap:
//!
//! | [`Mode`] | calls in a tap | the terminal gets | keys |
//! |---|---|---|---|
//! | card-locked | 1 | the session key, wrapped so that only the card's last answer of the handshake opens it | AES, 3K3DES |
//! | script | 1, whatever the number of commands | no key; a transaction sealed ahead, and tags to check the card by | all with EV1 messaging |
//! | proven | 2 | the session key, after the key holder has seen the card's last answer | all |
//! | remote | 1 per exchange | nothing; it moves bytes | all |
//!
//! Which terminal may have which key in which mode stands in the key holder's books ([`Policy`],
//! [`KnownTerminal`], [`Grant`]), with the transport keys that speak for it: what is not there is refused.
//! By default ([`Modes::default`]) there is no proven release.
//!
//! # What protects what
//!
//! - Every message carries a MAC under a [`TransportKey`]: a plain one that terminal and key holder
//!   share, or one per transaction by AES-DUKPT ([`Dukpt`], [`BaseKey`]). It is the only key a terminal
//!   has at rest.
//! - Every answer is bound to the whole [`Challenge`]: AID, key, scheme, UID, terminal, freshness, link
//!   and purpose. A [`ReplayGuard`] takes each freshness value once.
//! - All that is asked of a card key is CBC with a given IV over at most 48 bytes ([`CbcKey`],
//!   [`AsyncCbcKey`]), AN10922 included ([`Diversification`]).
//!
//! # A card-locked tap
//!
//! ```
//! use desfire_ev1::split::*;
//! use desfire_ev1::wire::{AuthScheme, FileNo, InlineBytes, KeyNo, KeyType};
//! use desfire_ev1::{Key, Machine, Session, VirtualReader};
//!
//! let transport = TransportKey::new([0x17; 16]); // both sides have it
//! let mut reader = VirtualReader::demo();
//!
//! // The terminal asks the card for its challenge.
//! let intent = Intent {
//!     mode: Mode::CardLocked,
//!     scheme: AuthScheme::Aes,
//!     key_type: KeyType::Aes,
//!     key_no: KeyNo::MASTER,
//!     uid: None,
//!     terminal: TerminalId::new(b"till 7")?,
//!     transport: TransportKeyId::Preshared(1),
//!     freshness: Freshness::Counter(1),
//!     purpose: InlineBytes::new(b"look at the balance")?,
//! };
//! let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
//! let waiting = Tap::new(session, intent, &transport).run(&mut reader)?;
//! let challenge = waiting.message()?;
//!
//! // The key holder's books: this terminal may have this key.
//! let till = KnownTerminal {
//!     id: TerminalId::new(b"till 7")?,
//!     transport: TransportKeys::One { id: TransportKeyId::Preshared(1), key: &transport },
//!     grants: &[Grant {
//!         aid: VirtualReader::DEMO_AID,
//!         key_no: KeyNo::MASTER,
//!         scheme: AuthScheme::Aes,
//!         modes: Modes::default(),
//!     }],
//! };
//!
//! // The key holder answers; this is the one call.
//! let mut guard = Counters::<100>::new();
//! let accepted = Accepted::check(&challenge, &till, &mut guard)?;
//! let mut key = SoftKey::new(&Key::aes([0; 16]));
//! let answered = accepted.answer(&mut key, &mut getrandom::SysRng)?;
//! let answer = answered.card_locked()?;
//!
//! // The terminal sends the token; what the card says unlocks the session.
//! let mut session = waiting.card_locked(&answer)?.run(&mut reader)?;
//! assert_eq!(session.get_value(FileNo::new(2)?).run(&mut reader)?, 1000);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # A script
//!
//! EV1 messaging chains every command and reply to all before it. Where the replies are known, so is
//! every frame: the key holder takes typed commands through their own machines against the replies that
//! the card is going to give ([`ScriptBuilder`]), and the terminal only has to play them
//! ([`Player`]). Its receipt shows the key holder what became of it ([`Record::judge`]).
//!
//! ```
//! use desfire_ev1::split::*;
//! # use desfire_ev1::wire::{AuthScheme, InlineBytes, KeyNo, KeyType};
//! # use desfire_ev1::{Key, Machine, Session};
//! use desfire_ev1::VirtualReader;
//! use desfire_ev1::wire::{Amount, FileNo};
//! # let transport = TransportKey::new([0x17; 16]);
//! # let mut reader = VirtualReader::demo();
//! # let intent = Intent {
//! #     mode: Mode::Script,
//! #     scheme: AuthScheme::Aes,
//! #     key_type: KeyType::Aes,
//! #     key_no: KeyNo::MASTER,
//! #     uid: None,
//! #     terminal: TerminalId::new(b"till 7")?,
//! #     transport: TransportKeyId::Preshared(1),
//! #     freshness: Freshness::Counter(1),
//! #     purpose: InlineBytes::new(b"one coffee")?,
//! # };
//! # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
//! # let waiting = Tap::new(session, intent, &transport).run(&mut reader)?;
//! # let till = KnownTerminal {
//! #     id: TerminalId::new(b"till 7")?,
//! #     transport: TransportKeys::One { id: TransportKeyId::Preshared(1), key: &transport },
//! #     grants: &[Grant {
//! #         aid: VirtualReader::DEMO_AID,
//! #         key_no: KeyNo::MASTER,
//! #         scheme: AuthScheme::Aes,
//! #         modes: Modes::default(),
//! #     }],
//! # };
//! # let mut guard = Counters::<100>::new();
//! # let accepted = Accepted::check(&waiting.message()?, &till, &mut guard)?;
//! # let mut key = SoftKey::new(&Key::aes([0; 16]));
//! # let answered = accepted.answer(&mut key, &mut getrandom::SysRng)?;
//! # let settings = reader.card().state().application(VirtualReader::DEMO_AID).unwrap().clone();
//!
//! // The key holder: `answered` as before, but for a challenge in script mode.
//! let purse = FileNo::new(2)?;
//! let (mut script, mut record) = ([0; 1024], [0; 1024]);
//! let (mut session, mut builder) = answered.script(&mut script, &mut record)?;
//! # for file in settings.files() {
//! session.assume_file_settings(file.number(), &file.settings()); // nobody can be asked
//! # }
//! builder.send(session.debit(purse, Amount::new(250)?))?;
//! builder.send(session.commit_transaction())?;
//! let Finished { script, record } = builder.finish()?;
//!
//! // The terminal.
//! let mut receipt = [0; 256];
//! let mut player = waiting.script(script, &mut receipt)?;
//! let ending = player.play(&mut reader)?;
//! assert_eq!(ending.effect, Effect::Done);
//! let receipt = player.into_receipt()?;
//!
//! // The key holder, whenever the receipt comes.
//! assert_eq!(record.judge(receipt, &transport)?.verdict, Verdict::Done);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What it does not protect against
//!
//! - A terminal that is somebody else's: with a granted mode and a real card it can do with that card
//!   what the session or script allows. That is what [`Policy`] and [`Intent::purpose`] are for.
//! - A relay: a card far away whose bytes are passed on in time answers as one nearby.
//! - A terminal that plays a part of a script: commands in clear and CommitTransaction carry no MAC, so
//!   that a card takes a commit although a frame before it was left out. The receipt never says "done"
//!   then. Put what must not happen alone into commands of their own tap, or under keys of their own.

mod answer;
mod authenticate;
mod builder;
mod challenge;
mod dukpt;
mod error;
mod foretell;
mod holder;
mod kdf;
mod key;
mod message;
mod player;
mod policy;
mod record;
mod relay;
mod script;
mod storage;
mod terminal;
mod transport_key;

pub use crate::pcd::doors::Foreseen;
pub use answer::{CardLockedMessage, ProofMessage, ReleaseMessage, TokenMessage};
pub use authenticate::{AuthenticateError, authenticate, authenticate_async};
pub use builder::{Finished, ScriptBuilder};
pub use challenge::{Challenge, Freshness, Intent, Mode, TerminalId};
pub use dukpt::{BaseKey, Dukpt, InitialKey, Ksn};
pub use error::{HolderError, MessageError, Refusal, TerminalError};
pub use foretell::{Foretold, foretell};
pub use holder::{Accepted, Answered, Pending, PendingMessage};
pub use key::{
    AsyncCbcKey, AsyncKeyStore, CbcDirection, CbcKey, CbcTask, CbcWork, Diversification,
    Diversified, Found, KeyRequest, KeyStore, SoftEntry, SoftKey, SoftKeyError, SoftKeys, work,
    work_async,
};
pub use message::{FORMAT, Message};
pub use player::{Effect, Ending, Player, Stop};
pub use policy::{
    Counters, Grant, KnownTerminal, Modes, Nonces, Policy, ReplayGuard, TransportKeys,
};
pub use record::{Judgement, Record, Replay, ReplayError, Verdict};
pub use relay::{
    AsyncCarrier, Carrier, Carries, Relay, RelayCommand, RelayGate, RelayReply, RemoteCard,
    RemoteError,
};
pub use storage::StorageKey;
pub use terminal::{ChallengeMessage, Prove, Proven, Tap, Unlock, Waiting};
pub use transport_key::{TransportKey, TransportKeyId};
