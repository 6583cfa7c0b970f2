//! Issuing cards: a card's layout as data, and a way to it that survives a torn tap.
//!
//! For: everything that is done to a card once, before it is handed out, and again when keys are
//! replaced by those of the next generation. May know: the reader side's public doors and wire values.
//! May not: know a reader, keep keys, resend anything by itself.
//!
//! A [`Layout`] says what a card is to look like, and names its keys without holding one. An
//! [`Issuer`] takes it together with a [`KeyStore`], and
//!
//! | | |
//! |---|---|
//! | [`Issuer::plan`] | looks at a card and says what is to be done, as a list for people; changes nothing |
//! | [`Issuer::apply`] | does it, each step: find out, act, look |
//! | [`Issuer::verify`] | compares a card with the layout |
//! | [`Issuer::rollover`] | the same for keys only: cards in the field get the next generation |
//!
//! **The card itself is the journal.** Whatever was torn where, `apply` again finds out from key
//! versions, handshakes with the keys that may be there (the layout's, older ones, the default key,
//! transport keys, zero), file lists and settings where the card stands, and goes on to the same end. It
//! writes nothing down. What the order of the steps must promise for that stands in `src/provision/planner`:
//! no step takes away what a later one needs, old and new of every key are at hand, a file with content
//! has its own rights only when the content is complete, freezing comes last and only on demand
//! ([`Issuer::irreversible`]).
//!
//! Everything is written once, for both drivers: the async functions are the real ones, and the blocking
//! ones run them over a transport that never waits. Over a transport that is a network the holder of
//! the keys does all this far away from the card: the terminal moves bytes, and no key, new or old,
//! ever reaches it.
//!
//! ```
//! use desfire_ev1::provision::{
//!     ApplicationLayout, FileKind, FileLayout, Issuer, KeyRef, Layout, MemoryKeys, PiccLayout, storage,
//! };
//! use desfire_ev1::wire::{Access, AccessRights, Aid, CommMode, FileNo, KeyFamily, KeyNo};
//! use desfire_ev1::{Key, VirtualReader};
//!
//! let key = |name| KeyRef::diversified(name, 1).into();
//! let mut door = ApplicationLayout::new(
//!     Aid::new(0xF51A10)?,
//!     KeyFamily::Aes,
//!     vec![key("door master"), key("door read")],
//! );
//! door.files.push(FileLayout {
//!     number: FileNo::new(0)?,
//!     iso_file_id: None,
//!     mode: CommMode::Enciphered,
//!     rights: AccessRights {
//!         read: Access::Key(KeyNo::new(1)?),
//!         write: Access::Key(KeyNo::MASTER),
//!         read_write: Access::Never,
//!         change: Access::Never,
//!     },
//!     kind: FileKind::Standard { size: 32, content: b"house 7".to_vec() },
//! });
//! let layout = Layout {
//!     name: "door card".into(),
//!     storage: storage::EV1_2K,
//!     system_id: b"NXP A".to_vec(),
//!     picc: PiccLayout::new(key("picc")),
//!     applications: vec![door],
//! };
//! let keys = MemoryKeys::new()
//!     .with("picc", 1, Key::aes([1; 16]))
//!     .with("door master", 1, Key::aes([2; 16]))
//!     .with("door read", 1, Key::aes([3; 16]));
//!
//! let issuer = Issuer::new(&layout, &keys)?;
//! let (mut reader, mut rng) = (VirtualReader::default(), getrandom::SysRng);
//! println!("{}", issuer.plan(&mut reader, &mut rng)?);
//! issuer.apply(&mut reader, &mut rng)?;
//! assert!(issuer.verify(&mut reader, &mut rng)?.is_ok());
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # Limits
//!
//! - Applications without keys, and single records or files that differ from card to card in size, are
//!   beyond a layout; content that differs from card to card is a layout for each card.
//! - EV1 messaging only: cards of the first generation (MF3ICD40) are refused.
//! - What SetConfiguration sets cannot be read back. It is taken for done once the PICC master key is
//!   the layout's, which is changed after it; [`Issuer::configure_again`] sets it anew. FormatPICC, which
//!   may have been held back until then, is disabled each time ([`Step::is_repeated`]), or listed as held.
//! - Which file of an application has which ISO FID cannot be asked, only which FIDs there are.
//! - Somebody between reader and card can refuse and delay, but not lie, once a secret key is in use.
//!   A card fresh from the factory has no secret: issue cards where nobody is in between.
//! - An application's master key comes after its other keys. Without [`PiccLayout::default_key`] it is zero
//!   until then, so a card that is torn before and does not come back proves to be genuine, and whoever
//!   has it can write to its files, or give them other rights, by the zero key. Name a default key.

mod apply;
mod check;
mod counted;
mod hand;
mod issuer;
mod keys;
mod layout;
mod memory;
mod plan;
mod planner;
mod survey;
#[cfg(feature = "provision-toml")]
mod text;

pub use check::{LayoutError, LayoutErrors, Place};
pub use issuer::{IssueError, Issuer, Progress, ProvisionError, Report, Verdict};
pub use keys::{KeyFault, KeyStore, MemoryKeys, Origin};
pub use layout::{
    ApplicationLayout, FILLING, FileKind, FileLayout, KeyRef, KeySlot, Layout, PiccLayout,
    RecordsLayout, storage,
};
pub use plan::{Plan, Problem, ProblemKind, Step};
#[cfg(feature = "provision-toml")]
pub use text::MAX_TEXT;
