//! The card: what it is made of, and the way of a command through it.

use alloc::vec::Vec;
use core::fmt;

use super::activation::Activation;
use super::builder::CardBuilder;
use super::chain::Chain;
use super::choices::{EMPTY_FRAME, FILE_NUMBER_RANGE};
use super::eeprom::{Eeprom, PowerLost};
use super::faults::Fault;
use super::file::File;
use super::iso::IsoState;
use super::key::CardKey;
use super::random::Random;
use super::reply::Answer;
use super::session::Session;
use super::state::{Application, State, StateError};
use super::store;
use super::transaction::Transaction;
use crate::wire::{
    Access, Aid, CommMode, CommandCode, CommandFrame, FileNo, Framing, KeyFlags, KeyNo,
    KeySettings, Status, StatusWord, Uid, apdu,
};
use zeroize::Zeroizing;

/// A MIFARE DESFire EV1 in software.
///
/// It takes the bytes of one command and gives the bytes of one reply, whatever the command;
/// it does no I/O and knows no reader. See the [module](super) for what it can do.
///
/// ```
/// use desfire_ev1::picc::Card;
/// use desfire_ev1::wire::Uid;
///
/// let mut card = Card::new(Uid([0x04, 1, 2, 3, 4, 5, 6]));
/// // FreeMem, native and wrapped: 7936 bytes.
/// assert_eq!(card.handle(&[0x6E]), [0x00, 0x00, 0x1F, 0x00]);
/// assert_eq!(card.handle(&[0x90, 0x6E, 0, 0, 0]), [0x00, 0x1F, 0x00, 0x91, 0x00]);
/// ```
#[derive(Clone)]
pub struct Card {
    pub(super) eeprom: Eeprom,
    pub(super) field: Volatile,
    pub(super) random: Random,
    powered: bool,
    commands: u64,
}

/// What is gone without power.
#[derive(Clone)]
pub(super) struct Volatile {
    /// The selected application, or the PICC level.
    pub(super) selected: Aid,
    pub(super) session: Option<Session>,
    pub(super) chain: Chain,
    pub(super) transaction: Transaction,
    pub(super) iso: IsoState,
}

impl Volatile {
    /// After activation, and after every selection.
    pub(super) fn selecting(aid: Aid) -> Self {
        Self {
            selected: aid,
            session: None,
            chain: Chain::Idle,
            transaction: Transaction::default(),
            iso: IsoState::default(),
        }
    }
}

impl Card {
    /// An EV1 8K as delivered, lying on a reader: activated, with nothing selected but the
    /// PICC level.
    #[must_use]
    pub fn new(uid: Uid) -> Self {
        Self::builder().uid(uid).build()
    }

    /// For another size, version block, seed or state.
    #[must_use]
    pub fn builder() -> CardBuilder {
        CardBuilder::new()
    }

    pub(super) fn with(state: State, random: Random) -> Self {
        Self {
            eeprom: Eeprom::new(state),
            field: Volatile::selecting(Aid::PICC),
            random,
            powered: true,
            commands: 0,
        }
    }

    /// A stored card, lying on a reader, with the generator that [`Card::new`] has.
    ///
    /// # Errors
    /// [`StateError`] for anything that [`Card::save`] could not have written.
    pub fn load(stored: &[u8]) -> Result<Self, StateError> {
        Ok(Self::builder().state(Self::load_state(stored)?).build())
    }

    /// A stored state, for [`CardBuilder::state`] or to compare.
    ///
    /// # Errors
    /// [`StateError`] for anything that [`Card::save`] could not have written.
    pub fn load_state(stored: &[u8]) -> Result<State, StateError> {
        store::load(stored)
    }

    /// The non-volatile state as bytes, keys included and in clear.
    #[must_use]
    pub fn save(&self) -> Vec<u8> {
        store::save(self.state())
    }

    /// The non-volatile state.
    #[must_use]
    pub const fn state(&self) -> &State {
        self.eeprom.state()
    }

    /// The non-volatile state, to put keys, applications and files in place for a test. This
    /// is no command: it counts as no effect. The card is left as after an activation.
    pub fn state_mut(&mut self) -> &mut State {
        self.field = Volatile::selecting(Aid::PICC);
        self.eeprom.prepare()
    }

    /// The field comes on, or is reset: session, pending transaction and selection are gone.
    pub fn activate(&mut self) -> Activation {
        self.powered = true;
        self.field = Volatile::selecting(Aid::PICC);
        Activation::of(self.eeprom.state(), &mut self.random)
    }

    /// The card leaves the field; it answers nothing until [`Card::activate`].
    pub fn field_off(&mut self) {
        self.powered = false;
        self.field = Volatile::selecting(Aid::PICC);
    }

    /// Carries out one command, native, wrapped or ISO 7816-4, and gives its reply; no bytes
    /// stand for no answer.
    ///
    /// The framing is decided anew for every command by its first byte (proxmark3's
    /// simulations do the same; no native command is `90` or `00`):
    ///
    /// | first byte | length | taken for |
    /// |---|---|---|
    /// | `90` | 5 and more | wrapped native |
    /// | `00` | 4 and more | ISO 7816-4 |
    /// | else | | native |
    pub fn handle(&mut self, command: &[u8]) -> Vec<u8> {
        if !self.powered {
            return Vec::new();
        }
        self.commands = self.commands.saturating_add(1);
        match self.answer(command) {
            Ok(_) if self.eeprom.faults.loses_reply(self.commands) => Vec::new(),
            Ok(reply) => reply,
            Err(PowerLost) => {
                self.field_off();
                Vec::new()
            }
        }
    }

    fn answer(&mut self, command: &[u8]) -> Result<Vec<u8>, PowerLost> {
        if apdu::is_wrapped(command) {
            return match CommandFrame::parse(Framing::Wrapped, command) {
                Ok(frame) => {
                    let answer = self.native(&frame, Framing::Wrapped)?;
                    Ok(answer.encode(Framing::Wrapped))
                }
                Err(_) => {
                    // A real card takes it for an ISO command gone wrong (SO report).
                    self.refused(Status::LengthError);
                    Ok(StatusWord::WRONG_LENGTH.to_bytes().to_vec())
                }
            };
        }
        if command.len() >= 4 && command.first() == Some(&0x00) {
            return self.iso(command);
        }
        let answer = match CommandFrame::parse(Framing::Native, command) {
            Ok(frame) => self.native(&frame, Framing::Native)?,
            Err(_) => {
                self.refused(EMPTY_FRAME);
                Answer::status(EMPTY_FRAME)
            }
        };
        Ok(answer.encode(Framing::Native))
    }

    /// How many changes of non-volatile memory and pending images there have been.
    #[must_use]
    pub const fn effects(&self) -> u64 {
        self.eeprom.effects()
    }

    /// How many commands the card has handled, each frame of a chain being one.
    #[must_use]
    pub const fn commands(&self) -> u64 {
        self.commands
    }

    /// Arranges for something to go wrong, once.
    ///
    /// ```
    /// use desfire_ev1::picc::{Card, Fault};
    /// use desfire_ev1::wire::Uid;
    ///
    /// let mut card = Card::new(Uid([4, 1, 2, 3, 4, 5, 6]));
    /// card.arrange_fault(Fault::CutBefore(card.effects() + 1));
    /// assert!(card.handle(&[0xCA, 0x01, 0, 0, 0x0F, 0x01]).is_empty());
    /// assert!(card.handle(&[0x60]).is_empty(), "the card is out of the field");
    /// card.activate();
    /// assert!(card.state().applications().is_empty());
    /// ```
    pub fn arrange_fault(&mut self, fault: Fault) {
        self.eeprom.faults.arrange(fault);
    }

    /// Forgets all faults that have not struck.
    pub fn clear_faults(&mut self) {
        self.eeprom.faults.clear();
    }

    /// Puts values in the place of the card's next random ones: RndB of the handshakes and the
    /// answers to GET CHALLENGE and INTERNAL AUTHENTICATE, in this order. One whose length
    /// does not fit waits, and the card generates instead.
    pub fn set_nonces_for_testing_only<N: Into<Vec<u8>>>(
        &mut self,
        nonces: impl IntoIterator<Item = N>,
    ) {
        for nonce in nonces {
            self.random.queue(nonce.into());
        }
    }
}

/// What the commands ask of the card.
impl Card {
    /// The selected application. Commands at application level only get here with one.
    pub(super) fn application(&self) -> Result<&Application, Status> {
        self.state()
            .application(self.field.selected)
            .ok_or(Status::PermissionDenied)
    }

    pub(super) fn file_number(byte: u8) -> Result<FileNo, Status> {
        FileNo::new(byte).map_err(|_| FILE_NUMBER_RANGE)
    }

    /// A file of the selected application.
    pub(super) fn file(&self, number: FileNo) -> Result<&File, Status> {
        self.application()?.file(number).ok_or(Status::FileNotFound)
    }

    /// A key of the selected level.
    pub(super) fn key(&self, number: u8) -> Result<(KeyNo, &CardKey), Status> {
        let number = KeyNo::new(number).map_err(|_| Status::NoSuchKey)?;
        let key = self.state().key(self.field.selected, number);
        Ok((number, key.ok_or(Status::NoSuchKey)?))
    }

    /// Key settings of the selected level.
    pub(super) fn settings(&self) -> Result<KeySettings, Status> {
        let level = self.state().level(self.field.selected);
        level
            .map(|(settings, _)| settings)
            .ok_or(Status::PermissionDenied)
    }

    /// Checks that the master key of the selected level is authenticated.
    pub(super) fn require_master(&self) -> Result<(), Status> {
        match &self.field.session {
            Some(session) if session.key_no() == 0 => Ok(()),
            _ => Err(Status::AuthenticationError),
        }
    }

    /// The same, unless the settings of the level make it free.
    pub(super) fn require_master_unless(&self, free: KeyFlags) -> Result<(), Status> {
        if self.settings()?.flags.contains(free) {
            Ok(())
        } else {
            self.require_master()
        }
    }

    /// Whether one of `rights` allows the access, and the protection that goes with it: that
    /// of the file if the authenticated key is named, plain if it is only free.
    pub(super) fn grant(&self, file: &File, rights: &[Access]) -> Result<CommMode, Status> {
        let named = self.field.session.as_ref().is_some_and(|session| {
            rights
                .iter()
                .any(|right| matches!(right, Access::Key(key) if key.number() == session.key_no()))
        });
        if named {
            Ok(file.comm.mode())
        } else if rights.contains(&Access::Free) {
            Ok(CommMode::Plain)
        } else if rights.iter().all(|right| *right == Access::Never) {
            Err(Status::PermissionDenied)
        } else {
            Err(Status::AuthenticationError)
        }
    }

    /// How long `len` bytes of data are in a request of this mode.
    pub(super) fn request_len(&self, mode: CommMode, len: usize) -> usize {
        match (&self.field.session, mode) {
            (None, _) | (_, CommMode::Plain) => len,
            (Some(session), CommMode::Mac) => len.saturating_add(session.mac_len()),
            (Some(session), CommMode::Enciphered) => session.enciphered(len),
        }
    }

    /// The `len` bytes of data in a request, once their protection is right. `header` is what
    /// stands in clear between the code and the data.
    pub(super) fn open_request(
        &mut self,
        mode: CommMode,
        code: CommandCode,
        header: &[u8],
        data: &[u8],
        len: usize,
    ) -> Result<Zeroizing<Vec<u8>>, Status> {
        if data.len() != self.request_len(mode, len) {
            return Err(Status::LengthError);
        }
        let head: &[&[u8]] = &[&[code.to_byte()], header];
        let Some(session) = &mut self.field.session else {
            return Ok(Zeroizing::new(data.to_vec()));
        };
        match mode {
            CommMode::Plain => {
                session.absorb(&[&[code.to_byte()], header, data]);
                Ok(Zeroizing::new(data.to_vec()))
            }
            CommMode::Mac => {
                let (data, mac) = data.split_at_checked(len).ok_or(Status::LengthError)?;
                session.check_mac(head, data, mac)?;
                Ok(Zeroizing::new(data.to_vec()))
            }
            CommMode::Enciphered => session.open(head, data, len),
        }
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card")
            .field("state", self.state())
            .field("selected", &self.field.selected)
            .field("powered", &self.powered)
            .finish_non_exhaustive()
    }
}
