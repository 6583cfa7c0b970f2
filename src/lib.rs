//! Talks to MIFARE DESFire EV1 cards: commands, authentication and secure messaging, without I/O,
//! without a heap, without trust in what comes from the card.
//!
//! # The card
//!
//! A DESFire EV1 is a contactless card with a small file system. At the **PICC level** (the card
//! itself, AID 000000) there is one key and up to 28 **applications**, each named by a three-byte
//! **AID**. An application has up to 14 **keys** and up to 32 **files** of five types: standard
//! and backup data, value, linear and cyclic records. Each file says which key may read, write or
//! change it, and in which **communication mode** its data travel: plain, with a MAC, or
//! enciphered. Changes to all but standard files are pending until CommitTransaction makes them
//! valid together.
//!
//! The reader (**PCD**) speaks to the card (**PICC**) in **frames**: a command byte and its
//! parameters one way, a status byte and data the other; `AF` continues what is longer than a
//! frame. PC/SC readers carry the same frames **wrapped** in ISO 7816-4 APDUs. After a handshake
//! with one of the keys both sides share a **session key**, and **secure messaging** protects what
//! follows: *EV1* messaging after AuthenticateISO and AuthenticateAES, with a CMAC that chains
//! every command and reply to all before it; *D40* messaging, of the card's predecessor, after the
//! legacy Authenticate.
//!
//! # A whole run
//!
//! On the software card that comes with the crate (feature `picc`); with a reader only the first
//! line changes.
//!
//! ```
//! use desfire_ev1::{Key, Machine, Session, VirtualReader};
//! use desfire_ev1::wire::{Amount, FileNo, KeyNo};
//!
//! let mut reader = VirtualReader::demo();
//! let mut rng = getrandom::SysRng;
//! let purse = FileNo::new(2)?;
//!
//! let session = Session::new()
//!     .select_application(VirtualReader::DEMO_AID)
//!     .run(&mut reader)?;
//! let mut session = session
//!     .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut rng)
//!     .run(&mut reader)?;
//! let before = session.get_value(purse).run(&mut reader)?;
//! session.debit(purse, Amount::new(250)?).run(&mut reader)?;
//! session.commit_transaction().run(&mut reader)?;
//! assert_eq!(session.get_value(purse).run(&mut reader)?, before - 250);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # How it is built
//!
//! - A method of [`Session`] makes a command; nothing happens until it is run over a
//!   [`Transport`] with [`Machine::run`], over an [`AsyncTransport`] with
//!   [`Machine::run_async`], or stepped by hand over any link with [`Machine::start`] and
//!   [`Machine::step`].
//! - What takes several commands is a [`Procedure`], with the same `run` and `run_async`: the
//!   [`purse`], whose debits and credits can be settled after a lost commit.
//! - Nothing decoded leaves the library before its MAC or CRC has been checked. A missing, short
//!   or wrong one is an error, wipes the caller's buffer, and ends the session. There is no lenient
//!   mode.
//! - Every [`Error`] says what became of the command: [`Outcome`].
//! - The communication mode follows from the file's settings and rights, which the session asks
//!   for once per file (GetFileSettings, one exchange) unless it is told
//!   ([`Session::assume_file_settings`], [`Exchange::comm_mode`]).
//!
//! [`command`] lists the commands, [`wire`] holds the values that occur in them.
//!
//! # Features
//!
//! None is on by default; the core is `no_std` and allocates nothing.
//!
//! | feature | adds |
//! |---|---|
//! | `alloc` | transports in a `Box` |
//! | `internals` | nothing to rely on: doors for this crate's own tests, benches and fuzz targets |
//! | `pcsc` | readers of the host's PC/SC service, `pcsc`; needs `std` and the system's PC/SC library |
//! | `picc` | the software card, `picc`, and `VirtualReader`; implies `alloc` |
//! | `provision` | a card's layout as data, and a way to it that survives torn taps, `provision`; implies `alloc` |
//! | `split` | authentication whose key is elsewhere: messages, key holder, scripts, `split` |
//! | `provision-toml` | layouts from TOML; implies `provision` and `serde` |
//! | `serde` | `serde` for messages and layouts |
//!
//! # Security
//!
//! - Keys, session keys and nonces are wiped when dropped, MACs and proofs compared in constant
//!   time; no error and no `Debug` holds a secret. The block ciphers are RustCrypto's; DES is
//!   table-driven there and not constant-time on machines with a cache.
//! - Error statuses of the card carry no MAC: see [`Outcome::Refused`].
//! - D40 messaging is weak (CRC16, 32-bit MAC, most replies unprotected, file settings among them) and
//!   is there for old cards only. State a file's mode with [`Exchange::comm_mode`] there.
//! - D40 enciphered reads do not protect the length: data, CRC16 and zeros also pass for a longer
//!   answer, if somebody on the link shortens the length that was asked for.
//! - Keys are wiped where they lie; copies that a compiler leaves behind when it moves a value are out
//!   of reach.
//! - The CRC32 inside EV1 ciphertext is no MAC: it finds blind changes, but who knows the plaintext of
//!   a reply can splice blocks unnoticed. Use MACed files where authenticity counts.
//! - The handshake by ISO 7816-4 commands proves a DES, 2K3DES or AES card only with the first MACed
//!   reply after it: a forger gets through the handshake alone. Do not open a door on it.
//! - This crate has had no outside audit.
#![no_std]
#![cfg_attr(docsrs, feature(doc_cfg))]

#[cfg(feature = "alloc")]
extern crate alloc;
#[cfg(any(test, feature = "pcsc"))]
extern crate std;

pub mod error;
mod pcd;
#[cfg(feature = "picc")]
pub mod picc;
#[cfg(feature = "provision")]
pub mod provision;
pub mod purse;
#[cfg(feature = "split")]
pub mod split;
#[cfg(feature = "picc")]
mod virtual_reader;
pub mod wire;

/// The README's example is a test.
#[cfg(all(doctest, feature = "picc"))]
#[doc = include_str!("../README.md")]
mod readme {}

pub use error::{Error, Outcome};
#[cfg(feature = "internals")]
#[doc(hidden)]
pub use pcd::internals;
#[cfg(feature = "pcsc")]
pub use pcd::pcsc;
pub use pcd::{
    AsyncTransport, Authenticate, AuthenticateIso7816, Authenticated, Exchange, Faulty,
    IsoExchange, Key, KeyError, Link, LinkFormat, Machine, Messaging, Passing, Procedure, RunError,
    Session, SessionKey, Step, Traced, Transaction, Transport, Unauthenticated, command,
};
#[cfg(feature = "picc")]
pub use virtual_reader::{CardMute, VirtualReader};
