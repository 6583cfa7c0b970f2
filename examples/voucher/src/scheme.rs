//! The voucher scheme: what is on a card, and what redeeming a voucher does to it.
//!
//! | file | type | mode | rights |
//! |---|---|---|---|
//! | 1 | value: the vouchers that are left | enciphered | key 1 reads and debits, key 2 also credits |
//! | 2 | cyclic record: the last redemptions | MACed | key 1 reads and writes |
//!
//! All keys are AES and diversified by UID (AN10922): key 0 is the application's master key, key 1
//! redeems, key 2 tops up. Terminals are granted nothing but key 1.

use desfire_ev1::Outcome;
use desfire_ev1::split::{Effect, Grant, Modes, ScriptBuilder, TransportKeyId};
use desfire_ev1::wire::{
    Access, AccessRights, Aid, Amount, AuthScheme, CommMode, FileDetail, FileNo, FileSettings,
    InlineBytes, KeyNo, U24, Uid, ValueFlags, WireError,
};
use desfire_ev1::{AsyncTransport, Authenticated, Machine as _, RunError, Session, Transport};

/// The application.
pub const AID: Aid = Aid::from_bytes([0x56, 0x43, 0x48]);
/// The version of every key of this scheme.
pub const KEY_VERSION: u8 = 1;
/// Most vouchers of a card.
pub const MOST: i32 = 1000;
/// Most vouchers of one tap.
pub const MOST_AT_ONCE: u8 = 20;
/// Length of a line of the log.
pub const RECORD_LEN: usize = 16;
const RECORD_SIZE: u32 = 16;
/// One more than can be read.
const RECORDS: u32 = 8;
/// What the input of AN10922 begins with: AID and system identifier. See [`input`].
const PREFIX: [u8; 15] = *b"VCHvoucher shop";

/// The input of AN10922 for one card: AID and system identifier, 15 bytes, then the UID.
///
/// AN10922's own example has the UID in front. In this order the CMAC's first block is the same for
/// all cards, so that a token which has its encryption once can do the rest as a single derivation,
/// under a master key that is good for nothing else: see `keys::token`.
#[must_use]
pub fn input(uid: &Uid) -> [u8; 22] {
    let mut input = [0; 22];
    for (to, from) in input.iter_mut().zip(PREFIX.iter().chain(&uid.0)) {
        *to = *from;
    }
    input
}

/// Numbers of the keys and files, checked once.
#[derive(Clone, Copy, Debug)]
pub struct Scheme {
    /// Changes everything else; never leaves the issuing desk.
    pub master: KeyNo,
    /// Redeems: the only key that terminals are granted.
    pub redeem: KeyNo,
    /// Tops up.
    pub top_up: KeyNo,
    /// The vouchers that are left.
    pub vouchers: FileNo,
    /// The last redemptions.
    pub log: FileNo,
    record_size: U24,
    records: U24,
}

impl Scheme {
    /// The scheme.
    ///
    /// # Errors
    /// None: the numbers are in their ranges.
    pub fn new() -> Result<Self, WireError> {
        Ok(Self {
            master: KeyNo::MASTER,
            redeem: KeyNo::new(1)?,
            top_up: KeyNo::new(2)?,
            vouchers: FileNo::new(1)?,
            log: FileNo::new(2)?,
            record_size: U24::new(RECORD_SIZE)?,
            records: U24::new(RECORDS)?,
        })
    }

    /// Whoever has key 1 for one tap can spend what is on this card, and never put anything on it.
    #[must_use]
    pub fn voucher_rights(&self) -> AccessRights {
        AccessRights {
            read: Access::Key(self.redeem),
            write: Access::Never,
            read_write: Access::Key(self.top_up),
            change: Access::Key(self.master),
        }
    }

    /// The log's rights.
    #[must_use]
    pub fn log_rights(&self) -> AccessRights {
        AccessRights {
            read: Access::Key(self.redeem),
            write: Access::Key(self.redeem),
            read_write: Access::Never,
            change: Access::Key(self.master),
        }
    }

    /// What a terminal is granted: the redeeming key, and no other.
    #[must_use]
    pub const fn grant(&self, modes: Modes) -> Grant {
        Grant {
            aid: AID,
            key_no: self.redeem,
            scheme: AuthScheme::Aes,
            modes,
        }
    }

    /// Size of a record, and how many.
    #[must_use]
    pub const fn records(&self) -> (U24, U24) {
        (self.record_size, self.records)
    }

    /// States the files' settings, so that nobody has to ask the card.
    pub fn state_settings<S>(&self, session: &mut Session<S>) {
        let vouchers = FileSettings {
            comm: CommMode::Enciphered.into(),
            rights: self.voucher_rights(),
            detail: FileDetail::Value {
                lower: 0,
                upper: MOST,
                limited_credit: 0,
                flags: ValueFlags::empty(),
            },
        };
        let log = FileSettings {
            comm: CommMode::Mac.into(),
            rights: self.log_rights(),
            detail: FileDetail::CyclicRecord {
                record_size: self.record_size,
                max_records: self.records,
                current_records: U24::ZERO,
            },
        };
        session.assume_file_settings(self.vouchers, &vouchers);
        session.assume_file_settings(self.log, &log);
    }

    /// Redeems in a live session at the terminal; what is left.
    ///
    /// # Errors
    /// The card or the link to it.
    pub fn redeem<T: Transport + ?Sized>(
        &self,
        session: &mut Session<Authenticated>,
        purpose: Purpose,
        record: &[u8; RECORD_LEN],
        link: &mut T,
    ) -> Result<i32, Interrupted<T::Error>> {
        self.state_settings(session);
        let debit = session.debit(self.vouchers, purpose.amount()).run(link);
        debit.map_err(Interrupted::at_debit)?;
        let write = session.write_record(self.log, 0, record).run(link);
        write.map_err(Interrupted::pending)?;
        let commit = session.commit_transaction().run(link);
        commit.map_err(Interrupted::pending)?;
        let left = session.get_value(self.vouchers).run(link);
        left.map_err(Interrupted::after)
    }

    /// The same from afar.
    ///
    /// # Errors
    /// As [`Scheme::redeem`].
    pub async fn redeem_async<T: AsyncTransport + ?Sized>(
        &self,
        session: &mut Session<Authenticated>,
        purpose: Purpose,
        record: &[u8; RECORD_LEN],
        link: &mut T,
    ) -> Result<i32, Interrupted<T::Error>> {
        self.state_settings(session);
        let debit = session.debit(self.vouchers, purpose.amount());
        debit.run_async(link).await.map_err(Interrupted::at_debit)?;
        let write = session.write_record(self.log, 0, record);
        write.run_async(link).await.map_err(Interrupted::pending)?;
        let commit = session.commit_transaction();
        commit.run_async(link).await.map_err(Interrupted::pending)?;
        let left = session.get_value(self.vouchers);
        left.run_async(link).await.map_err(Interrupted::after)
    }

    /// The same, sealed ahead. What is left is read last, and only the key holder can open it.
    ///
    /// # Errors
    /// The buffers of the script are too small.
    pub fn script(
        &self,
        session: &mut Session<Authenticated>,
        purpose: Purpose,
        record: &[u8; RECORD_LEN],
        script: &mut ScriptBuilder<'_>,
    ) -> Result<(), desfire_ev1::split::Refusal> {
        self.state_settings(session);
        script.send(session.debit(self.vouchers, purpose.amount()))?;
        script.send(session.write_record(self.log, 0, record))?;
        script.send(session.commit_transaction())?;
        script.ask(session.get_value(self.vouchers))
    }
}

/// A redemption that did not come to its end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interrupted<E> {
    /// What became of the vouchers.
    pub effect: Effect,
    /// Why.
    pub error: RunError<E>,
}

impl<E> Interrupted<E> {
    /// Before the debit has left nothing can be gone. Error statuses carry no MAC: a refusal that
    /// comes back can be made up by somebody on the link.
    const fn at_debit(error: RunError<E>) -> Self {
        let effect = match error.outcome() {
            Outcome::NotSent => Effect::None,
            _ => Effect::Possible,
        };
        Self { effect, error }
    }

    /// The debit is pending. CommitTransaction carries no MAC either: whoever is on the link can send
    /// one, whatever this side has sent.
    const fn pending(error: RunError<E>) -> Self {
        let effect = Effect::Possible;
        Self { effect, error }
    }

    const fn after(error: RunError<E>) -> Self {
        let effect = Effect::Done;
        Self { effect, error }
    }
}

/// What a terminal wants: to redeem some vouchers. It travels inside the challenge, under its MAC.
///
/// One byte for what (1: redeem), one for how many.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purpose(u8);

impl Purpose {
    /// To redeem 1 to [`MOST_AT_ONCE`] vouchers.
    #[must_use]
    pub const fn redeem(count: u8) -> Option<Self> {
        if 0 < count && count <= MOST_AT_ONCE {
            Some(Self(count))
        } else {
            None
        }
    }

    /// How many.
    #[must_use]
    pub const fn count(self) -> u8 {
        self.0
    }

    fn amount(self) -> Amount {
        // 20 is an amount.
        Amount::new(i32::from(self.0)).unwrap_or(Amount::ZERO)
    }

    /// As it travels.
    ///
    /// # Errors
    /// None: it fits.
    pub fn encode(self) -> Result<InlineBytes<64>, WireError> {
        InlineBytes::new(&[1, self.0])
    }

    /// As it came.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Option<Self> {
        match bytes {
            [1, count] => Self::redeem(*count),
            _ => None,
        }
    }
}

/// The line that a redemption leaves in the card's log: the transport key's id and counter, which
/// together name one tap of one terminal, and how many vouchers.
///
/// | size | field |
/// |---|---|
/// | 8 | initial key id of the terminal |
/// | 4 | transaction counter |
/// | 4 | vouchers |
#[must_use]
pub fn record(transport: TransportKeyId, purpose: Purpose) -> [u8; RECORD_LEN] {
    let mut record = [0; RECORD_LEN];
    let (key_id, counter) = match transport {
        TransportKeyId::Dukpt(ksn) => (ksn.key_id, ksn.counter),
        TransportKeyId::Preshared(version) => ([0; 8], u32::from(version)),
    };
    let fields = key_id
        .into_iter()
        .chain(counter.to_le_bytes())
        .chain(u32::from(purpose.count()).to_le_bytes());
    for (to, from) in record.iter_mut().zip(fields) {
        *to = from;
    }
    record
}
