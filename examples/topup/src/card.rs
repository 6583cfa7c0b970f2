//! The travel card: which application and files it has, which keys, and how one is made.
//!
//! For: the one place that knows the layout. May know: the library's purse. May not know: networks,
//! books.
//!
//! One application with three AES keys, each made for the card from its master key (AN10922, with AID,
//! UID and key number), and a purse ([`desfire_ev1::purse`]) in it:
//!
//! | key | for | who has its master key |
//! |---|---|---|
//! | 0 | changing the application | issuer |
//! | 1 | debits | the machines on board |
//! | 2 | credits | the key holder of the top-up server |

use desfire_ev1::picc::Card;
use desfire_ev1::purse::{Purse, Stamp};
use desfire_ev1::wire::frame::MAX_COMMAND;
use desfire_ev1::wire::{
    Aid, Amount, CommandCode, CommandFrame, FileNo, Framing, KeyFamily, KeyFlags, KeyInfo, KeyNo,
    KeySettings, Status, Uid, WireError,
};
use desfire_ev1::{Key, KeyError, Machine as _, Procedure as _, Session, VirtualReader};

use crate::message::{Step, opening};

/// The system identifier in every key's derivation: with the AID, 15 bytes.
const SYSTEM: &[u8; 12] = b"travel cards";
/// Length of the input from which a card's key is made: AID 3, [`SYSTEM`] 12, UID 7, key number 1.
pub const INPUT_LEN: usize = 3 + 12 + 7 + 1;
/// The crediting master key that everybody knows.
pub const DEMO_CREDIT: [u8; 16] = *b"topup demo credi";

/// Whatever can go wrong with a card of one's own.
pub type CardError = Box<dyn std::error::Error + Send + Sync>;

/// Where everything is on the card.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// The application.
    pub aid: Aid,
    /// Debits.
    pub debit: KeyNo,
    /// Credits.
    pub credit: KeyNo,
    /// The purse's files.
    pub purse: Purse,
}

impl Layout {
    /// The layout of all cards of this system.
    ///
    /// # Errors
    /// None: the numbers are valid.
    pub fn new() -> Result<Self, WireError> {
        Ok(Self {
            aid: Aid::new(0x54_5550)?,
            debit: KeyNo::new(1)?,
            credit: KeyNo::new(2)?,
            purse: Purse {
                header: FileNo::new(1)?,
                value: FileNo::new(2)?,
                log: FileNo::new(3)?,
                limit: Amount::new(15_000)?,
            },
        })
    }

    /// The input of AN10922 for one card and key: AID, [`SYSTEM`], UID, key number.
    ///
    /// AN10922's own example has the UID in front. In this order the first block of its CMAC is the same
    /// for all cards, which is what a PKCS#11 token needs to do the rest as one derivation, under a
    /// master key that is good for nothing else.
    #[must_use]
    pub fn input(&self, key_no: KeyNo, uid: Uid) -> [u8; INPUT_LEN] {
        let mut input = [0; INPUT_LEN];
        let parts = self.aid.to_bytes().into_iter().chain(*SYSTEM).chain(uid.0);
        for (to, from) in input.iter_mut().zip(parts.chain([key_no.number()])) {
            *to = from;
        }
        input
    }

    /// The card's key, from the master key for this number.
    ///
    /// # Errors
    /// [`KeyError`] if the master key is of a kind that cannot be diversified.
    pub fn card_key(&self, master: &Key, key_no: KeyNo, uid: Uid) -> Result<Key, KeyError> {
        let input = self.input(key_no, uid);
        Ok(master.diversify(&input)?.with_version(1))
    }

    /// The frames with which every conversation begins.
    ///
    /// # Errors
    /// None for the framings there are.
    pub fn opening(&self, framing: Framing) -> Result<Vec<Step>, WireError> {
        opening(framing, self.aid, self.credit)
    }

    /// The frames that open the purse after the handshake. Reading commands carry no MAC, so they are
    /// the same for every card and session.
    ///
    /// # Errors
    /// None for the framings there are.
    pub fn reading(&self, framing: Framing) -> Result<Vec<Step>, WireError> {
        let Purse {
            header, value, log, ..
        } = self.purse;
        let zero = [0; 3];
        let header = [&[header.number()], &zero[..], &[16, 0, 0]].concat();
        let record = [&[log.number()], &zero[..], &[1, 0, 0]].concat();
        [
            (CommandCode::ReadData, header),
            (CommandCode::GetValue, vec![value.number()]),
            (CommandCode::ReadRecords, record),
        ]
        .into_iter()
        .map(|(code, payload)| {
            let mut frame = [0; MAX_COMMAND];
            let payload = payload.as_slice();
            let len = CommandFrame { code, payload }.encode(framing, &mut frame)?;
            Ok(Step {
                expected: Status::Ok,
                frame: frame.get(..len).unwrap_or_default().to_vec(),
            })
        })
        .collect()
    }
}

/// The master keys of the three card keys.
pub struct IssuerKeys {
    /// For key 0.
    pub master: Key,
    /// For key 1.
    pub debit: Key,
    /// For key 2.
    pub credit: Key,
}

impl IssuerKeys {
    /// Keys that everybody knows: for demonstrations and tests.
    #[must_use]
    pub fn for_demonstration() -> Self {
        Self {
            master: Key::aes(*b"topup demo issue"),
            debit: Key::aes(*b"topup demo debit"),
            credit: Key::aes(DEMO_CREDIT),
        }
    }

    /// Issues a software card with `balance` on it.
    ///
    /// # Errors
    /// The card refuses; it is fresh, so that would be a mistake in this program.
    pub fn issue(&self, layout: &Layout, uid: Uid, balance: i32) -> Result<Card, CardError> {
        let mut rng = getrandom::SysRng;
        let mut seed = [0; 16];
        getrandom::fill(&mut seed)?;
        let card = Card::builder().uid(uid).seed(seed).build();
        let mut reader = VirtualReader::new(card);
        let zero = Key::zero(KeyFamily::Aes);

        let picc = Key::zero(KeyFamily::Des);
        let mut session = Session::new()
            .authenticate_iso(KeyNo::MASTER, &picc, &mut rng)
            .run(&mut reader)?;
        session
            .create_application(
                layout.aid,
                KeySettings::DEFAULT,
                KeyInfo::new(KeyFamily::Aes, 3)?,
                None,
            )
            .run(&mut reader)?;
        let mut session = session
            .select_application(layout.aid)
            .run(&mut reader)?
            .authenticate_aes(KeyNo::MASTER, &zero, &mut rng)
            .run(&mut reader)?;
        layout
            .purse
            .create(&mut session, layout.debit, layout.credit)
            .run(&mut reader)?;
        for (number, master) in [(layout.debit, &self.debit), (layout.credit, &self.credit)] {
            let key = layout.card_key(master, number, uid)?;
            session.change_key(number, &zero, &key).run(&mut reader)?;
        }
        let mut settings = KeySettings::DEFAULT;
        settings.flags -= KeyFlags::FREE_CREATE_DELETE;
        session.change_key_settings(settings).run(&mut reader)?;
        let key = layout.card_key(&self.master, KeyNo::MASTER, uid)?;
        session.change_key_in_use(&key).run(&mut reader)?;

        let key = layout.card_key(&self.credit, layout.credit, uid)?;
        let mut session = Session::new()
            .select_application(layout.aid)
            .run(&mut reader)?
            .authenticate_aes(layout.credit, &key, &mut rng)
            .run(&mut reader)?;
        let stamp = Stamp {
            time: 0,
            terminal: 0,
            transaction: 0,
        };
        let mut id = [0; 8];
        getrandom::fill(&mut id)?;
        let initialise = layout
            .purse
            .initialise(&mut session, u64::from_le_bytes(id), stamp);
        initialise.run(&mut reader)?;
        if balance > 0 {
            let mut tap = layout.purse.open(&mut session).run(&mut reader)?;
            let stamp = Stamp {
                transaction: 1,
                ..stamp
            };
            let intent = tap.credit(Amount::new(balance)?, stamp)?;
            tap.execute(&intent).run(&mut reader)?;
        }
        let mut card = reader.into_card();
        card.activate();
        Ok(card)
    }
}
