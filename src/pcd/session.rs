//! The session with one card.
//!
//! For: what the reader knows of the card's state — which level is selected, who is
//! authenticated, the secure messaging, the files' settings — and the rule that it is lost as
//! soon as the card may have gone another way. May not know: frames, commands (each brings its
//! own method, see [`crate::command`]), transports.

use core::fmt;
use core::marker::PhantomData;

use rand_core::TryCryptoRng;
use zeroize::Zeroizing;

use crate::error::{ErrorKind, Misuse};
use crate::pcd::auth::{Authenticate, SessionKey};
#[cfg(feature = "split")]
use crate::pcd::bytes::Wiped;
use crate::pcd::channel::Channel;
#[cfg(feature = "split")]
use crate::pcd::channel::{DataLength, Incoming, ReplyProtection, TAIL};
#[cfg(feature = "split")]
use crate::pcd::crypto::cipher::Iv;
use crate::pcd::key::Key;
use crate::pcd::protection::FileCache;
use crate::wire::{Aid, AuthScheme, FileNo, FileSettings, KeyNo, KeyType, Status};

/// Mark of a session without authentication.
#[derive(Debug)]
pub enum Unauthenticated {}

/// Mark of a session with authentication.
#[derive(Debug)]
pub enum Authenticated {}

/// What the reader knows of one card, from activation to removal.
///
/// A session starts unauthenticated at the PICC level; a handshake turns it into an authenticated
/// one. Commands that end the authentication take the session by value and give another back. In
/// the type is only whether there is authentication; D40 or EV1 messaging shows at run time.
///
/// **Lost.** While a command is out the session is lost, and only its authentic end brings it
/// back. A refusal in an authenticated session, a wrong MAC, a reader error, a dropped future, a
/// machine that is forgotten: all leave it lost, and every further command fails with
/// [`Misuse::SessionLost`] and sends nothing, a handshake included: a handshake would not drop what
/// a lost transaction has left pending on the card. Go on with [`Session::select_application`],
/// which does, or with [`Session::new`] after a new activation. The keys of a session that fails are
/// wiped at once; a machine that is forgotten keeps them until the session is dropped.
///
/// A session knows the settings of the files it has seen. It belongs to one card: make a new one
/// for each.
///
/// ```
/// use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::{KeyFamily, KeyNo}};
///
/// let mut reader = VirtualReader::default();
/// let mut rng = getrandom::SysRng;
/// let mut session = Session::new()
///     .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut rng)
///     .run(&mut reader)?;
/// let uid = session.get_card_uid().run(&mut reader)?;
/// println!("card {uid}");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub struct Session<S> {
    pub(in crate::pcd) inner: Inner,
    state: PhantomData<S>,
}

/// The session without its type state.
pub struct Inner {
    pub(in crate::pcd) channel: Channel,
    /// An exchange is out.
    pub(in crate::pcd) busy: bool,
    /// Who is authenticated.
    pub(in crate::pcd) key: Option<(KeyNo, KeyType)>,
    pub(in crate::pcd) place: Place,
}

/// Where the reader is on the card, and what it has seen there.
#[derive(Clone)]
pub(in crate::pcd) struct Place {
    pub(in crate::pcd) level: Level,
    pub(in crate::pcd) files: FileCache,
    /// Outlives an authentication.
    pub(in crate::pcd) pending: Pending,
}

/// What may be waiting for CommitTransaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pcd) enum Pending {
    Nothing,
    Changes,
    /// There were changes, and then the card refused something: it has dropped them. What has been
    /// changed since would be only a part of what belongs together.
    Broken,
}

/// What is selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::pcd) enum Level {
    Picc,
    Application(Aid),
    /// An application chosen by its ISO name, whose AID the reader has not been told.
    IsoNamed,
}

impl Place {
    pub(in crate::pcd) fn is_picc(&self) -> bool {
        self.level == Level::Picc
    }

    /// Something now waits for CommitTransaction.
    pub(in crate::pcd) fn changed(&mut self) {
        if self.pending == Pending::Nothing {
            self.pending = Pending::Changes;
        }
    }

    /// Where nothing is known but what is selected.
    #[cfg(feature = "split")]
    pub(in crate::pcd) const fn selecting(aid: Aid) -> Self {
        Self {
            level: if aid.is_picc() {
                Level::Picc
            } else {
                Level::Application(aid)
            },
            files: FileCache::EMPTY,
            pending: Pending::Nothing,
        }
    }

    /// The AID; that of the PICC level for an application that is known by its ISO name only.
    #[cfg(feature = "split")]
    pub(in crate::pcd) const fn selected(&self) -> Aid {
        match self.level {
            Level::Application(aid) => aid,
            Level::Picc | Level::IsoNamed => Aid::PICC,
        }
    }
}

impl Level {
    /// The same, except that an application may now be another.
    pub(in crate::pcd) const fn without_aid(self) -> Self {
        match self {
            Self::Picc => Self::Picc,
            Self::Application(_) | Self::IsoNamed => Self::IsoNamed,
        }
    }
}

impl Inner {
    pub(in crate::pcd) const fn ready(&self) -> Result<(), Misuse> {
        match self.channel {
            Channel::Lost => Err(Misuse::SessionLost),
            _ if self.busy => Err(Misuse::SessionLost),
            _ => Ok(()),
        }
    }

    /// An exchange has ended in an error. Without authentication a refusal breaks no chain, and the
    /// session goes on; but the card drops a transaction with any error.
    pub(in crate::pcd) fn after_failure(&mut self, kind: ErrorKind, refused: bool) {
        self.busy = false;
        if !(matches!(self.channel, Channel::Open) && refused) {
            self.lose();
        } else if kind == ErrorKind::Refused(Status::NoChanges) {
            self.place.pending = Pending::Nothing;
        } else if self.place.pending == Pending::Changes {
            self.place.pending = Pending::Broken;
        }
    }

    /// Reader and card no longer agree. Drops the keys, which wipes them.
    pub(in crate::pcd) fn lose(&mut self) {
        self.channel = Channel::Lost;
        self.place.files = FileCache::EMPTY;
        self.place.pending = Pending::Nothing;
    }

    /// Remembers a file's settings as the card has told them. Only in an EV1 session they are
    /// proved to be the card's.
    pub(in crate::pcd) fn learn(&mut self, file: FileNo, settings: &FileSettings) {
        let proved = matches!(self.channel, Channel::Ev1(_));
        self.place.files.put(file, settings, proved);
    }

    pub(in crate::pcd) fn key_no(&self) -> Option<KeyNo> {
        self.key.map(|(key_no, _)| key_no)
    }

    pub(in crate::pcd) const fn require_picc_level(&self) -> Result<(), Misuse> {
        match self.place.level {
            Level::Picc => Ok(()),
            Level::Application(_) | Level::IsoNamed => Err(Misuse::NotAtPiccLevel),
        }
    }

    /// Neither authentication nor changes that wait.
    pub(in crate::pcd) const fn nothing_open(&self) -> bool {
        matches!(self.channel, Channel::Open)
            && !self.busy
            && matches!(self.place.pending, Pending::Nothing)
    }

    pub(in crate::pcd) const fn require_no_ev1_session(&self) -> Result<(), Misuse> {
        match self.channel {
            Channel::Ev1(_) => Err(Misuse::IsoWriteInSession),
            _ => Ok(()),
        }
    }

    pub(in crate::pcd) const fn require_application(&self) -> Result<(), Misuse> {
        match self.place.level {
            Level::Picc => Err(Misuse::NotInApplication),
            Level::Application(_) | Level::IsoNamed => Ok(()),
        }
    }
}

impl Session<Unauthenticated> {
    /// For a card that has just been activated: PICC level, nobody authenticated.
    #[must_use]
    pub const fn new() -> Self {
        Self::at_level(Aid::PICC)
    }

    /// For a card on which `selected` is known to be selected and nobody is authenticated, for
    /// instance because another program has selected it.
    ///
    /// Not for going on after a failure: changes may be pending on the card, and under D40 a refusal,
    /// of [`Session::change_key_in_use`] for instance, need not have ended the card's authentication,
    /// so that it would go on enciphering what this session takes for plain. Select again instead.
    #[must_use]
    pub const fn at_level(selected: Aid) -> Self {
        Self::at(if selected.is_picc() {
            Level::Picc
        } else {
            Level::Application(selected)
        })
    }

    /// After a command that has ended the authentication and nothing else.
    pub(in crate::pcd) const fn at_same_place(place: &Place) -> Self {
        let mut session = Self::at(place.level);
        session.inner.place.pending = place.pending;
        session
    }

    pub(in crate::pcd) const fn at(level: Level) -> Self {
        Self {
            inner: Inner {
                channel: Channel::Open,
                busy: false,
                key: None,
                place: Place {
                    level,
                    files: FileCache::EMPTY,
                    pending: Pending::Nothing,
                },
            },
            state: PhantomData,
        }
    }
}

impl Default for Session<Unauthenticated> {
    fn default() -> Self {
        Self::new()
    }
}

impl Session<Authenticated> {
    #[inline]
    pub(in crate::pcd) fn opened(
        session_key: &SessionKey,
        key_no: KeyNo,
        key_type: KeyType,
        mut place: Place,
    ) -> Self {
        // What was heard before could have been anybody's, and decides what is sent in clear.
        place.files.forget_unproved();
        Self {
            inner: Inner {
                channel: Channel::new(session_key),
                busy: false,
                key: Some((key_no, key_type)),
                place,
            },
            state: PhantomData,
        }
    }

    /// A session that exists elsewhere: the same key, the chain of EV1 messaging at `iv`.
    #[cfg(feature = "split")]
    pub(crate) fn elsewhere(
        session_key: &SessionKey,
        iv: &[u8],
        key_no: KeyNo,
        key_type: KeyType,
        aid: Aid,
    ) -> Self {
        let mut session = Self::opened(session_key, key_no, key_type, Place::selecting(aid));
        session.inner.channel.set_iv(Iv::from_slice(iv));
        session
    }

    /// Whether this is an authentic reply with exactly `buffer.len()` bytes of data. The chain moves
    /// on; the session is of no further use.
    #[cfg(feature = "split")]
    pub(crate) fn hear_foreign(
        &mut self,
        enciphered: bool,
        payload: &[u8],
        buffer: &mut [u8],
    ) -> bool {
        let mut tail = Wiped::<TAIL>::default();
        let room = buffer.len();
        // What is too long the channel refuses by its length.
        for (to, from) in buffer.iter_mut().chain(tail.iter_mut()).zip(payload) {
            *to = *from;
        }
        let protection = if enciphered {
            ReplyProtection::Enciphered {
                length: DataLength::Exactly(room),
            }
        } else {
            ReplyProtection::Mac
        };
        let mut incoming = Incoming {
            buffer,
            tail: &mut tail,
            len: payload.len(),
        };
        self.inner.channel.open(protection, &mut incoming) == Ok(room)
    }

    /// The number of the key that is authenticated.
    #[must_use]
    pub fn key_in_use(&self) -> KeyNo {
        // An authenticated session always has one.
        self.inner.key_no().unwrap_or(KeyNo::MASTER)
    }
}

impl<S> Session<S> {
    /// The selected application, or [`Aid::PICC`]; nothing if an application has been selected by
    /// an ISO name, which does not tell its AID.
    #[must_use]
    pub const fn selected(&self) -> Option<Aid> {
        match self.inner.place.level {
            Level::Picc => Some(Aid::PICC),
            Level::Application(aid) => Some(aid),
            Level::IsoNamed => None,
        }
    }

    /// Whether reader and card may have lost step; then nothing but
    /// [`Session::select_application`] or [`Session::iso_select`] is sent.
    #[must_use]
    pub const fn is_lost(&self) -> bool {
        self.inner.ready().is_err()
    }

    /// Whether EV1 messaging protects it: a MAC over every command and reply.
    pub(crate) const fn is_ev1(&self) -> bool {
        matches!(self.inner.channel, Channel::Ev1(_))
    }

    /// Whether changes may be waiting for CommitTransaction.
    pub(crate) const fn has_pending(&self) -> bool {
        !matches!(self.inner.place.pending, Pending::Nothing)
    }

    /// Tells the session the settings of a file, so that it needs not ask the card for them.
    ///
    /// They decide in which mode the file's data travel, and how long a read to the end must be.
    /// Wrong settings make the card refuse or the answer; they never make the library take data for
    /// authentic that are not protected as stated here.
    pub fn assume_file_settings(&mut self, file: FileNo, settings: &FileSettings) {
        self.inner.place.files.put(file, settings, true);
    }

    /// AuthenticateAES (`AA`): for AES keys.
    ///
    /// `rng` gives RndA; if it fails, the machine says so and sends nothing.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// let key = Key::aes([0; 16]);
    /// let aid = Aid::new(0x00_DE16)?;
    /// let session = Session::new().select_application(aid).run(&mut reader)?;
    /// let session = session
    ///     .authenticate_aes(KeyNo::new(0)?, &key, &mut getrandom::SysRng)
    ///     .run(&mut reader)?;
    /// assert_eq!(session.key_in_use().number(), 0);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn authenticate_aes<'k, R: TryCryptoRng + ?Sized>(
        self,
        key_no: KeyNo,
        key: &'k Key,
        rng: &mut R,
    ) -> Authenticate<'k> {
        self.authenticate(AuthScheme::Aes, key_no, key, rng)
    }

    /// AuthenticateISO (`1A`): for DES, 2K3DES and 3K3DES keys, with EV1 messaging.
    pub fn authenticate_iso<'k, R: TryCryptoRng + ?Sized>(
        self,
        key_no: KeyNo,
        key: &'k Key,
        rng: &mut R,
    ) -> Authenticate<'k> {
        self.authenticate(AuthScheme::Iso, key_no, key, rng)
    }

    /// Authenticate (`0A`): for DES and 2K3DES keys, with D40 messaging.
    ///
    /// D40 messaging authenticates nothing but MACed and enciphered file data and has CRC16 and
    /// 32-bit MACs; use it only with cards that know no better.
    pub fn authenticate_legacy<'k, R: TryCryptoRng + ?Sized>(
        self,
        key_no: KeyNo,
        key: &'k Key,
        rng: &mut R,
    ) -> Authenticate<'k> {
        self.authenticate(AuthScheme::Legacy, key_no, key, rng)
    }

    /// Any of the three.
    pub fn authenticate<'k, R: TryCryptoRng + ?Sized>(
        self,
        scheme: AuthScheme,
        key_no: KeyNo,
        key: &'k Key,
        rng: &mut R,
    ) -> Authenticate<'k> {
        let rnd_a = self.inner.ready().map(|()| Zeroizing::default());
        let rnd_a = rnd_a.map_err(Into::into);
        let mut machine = Authenticate::new(scheme, key_no, key, rnd_a, self.inner.place);
        machine.draw(rng);
        machine
    }

    /// Any of the three with a fixed RndA, of which DES and 2K3DES use the first 8 bytes. A nonce
    /// that is not random and fresh gives the session away: this is for replaying recordings.
    pub fn authenticate_with_fixed_nonce_for_testing_only<'k>(
        self,
        scheme: AuthScheme,
        key_no: KeyNo,
        key: &'k Key,
        rnd_a: [u8; 16],
    ) -> Authenticate<'k> {
        let rnd_a = self.inner.ready().map(|()| Zeroizing::new(rnd_a));
        let rnd_a = rnd_a.map_err(Into::into);
        Authenticate::new(scheme, key_no, key, rnd_a, self.inner.place)
    }
}

impl<S> fmt::Debug for Session<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session")
            .field("selected", &self.selected())
            .field("key_in_use", &self.inner.key_no())
            .field("lost", &self.is_lost())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use crate::pcd::command::testing::{native, session};
    use crate::pcd::crypto::cipher::testing::schedules;
    use crate::pcd::exchange::{LinkFormat, Machine as _};
    use crate::pcd::key::Key;
    use crate::pcd::session::Session;
    use crate::wire::{AccessRights, AuthScheme, CommMode, FileNo, U24};

    /// RFDoorLock's recording, part 17, from the handshake to the first read.
    #[test]
    fn key_schedules_are_set_up_by_handshakes_and_by_nothing_else() {
        let key = Key::aes([
            0x10, 0x18, 0x20, 0x28, 0x30, 0x38, 0x40, 0x48, 0x50, 0x58, 0x60, 0x68, 0x70, 0x78,
            0x80, 0x88,
        ]);
        let before = schedules();
        let opened = || {
            session(
                AuthScheme::Aes,
                &key,
                "40e7d27174cba675e8efbab99c530e3d",
                "626ffbd45caf334acca45599304f5b17",
                1,
            )
        };
        let (mut reading, mut writing) = (opened(), opened());
        assert!(schedules() > before, "the counter counts");
        let before = schedules();
        let (file, rights) = (FileNo::new(5).unwrap(), AccessRights::from_bytes([0x11, 0]));
        let size = U24::new(0x50).unwrap();
        let create = reading.create_std_data_file(file, None, CommMode::Plain, rights, size);
        native(create, &[("cd05001100500000", "00a75316ad1596b953")]).unwrap();
        native(reading.get_file_ids(), &[("6f", "00052d5ff67ffec9d2d3")]).unwrap();
        let mut buffer = [0; 32];
        let read = reading.read_data(file, 0..32, &mut buffer);
        let reply = "00".repeat(49);
        let read = read.comm_mode(CommMode::Enciphered);
        assert!(native(read, &[("bd05000000200000", &reply)]).is_err());
        let write = writing.write_data(file, 0, &[7; 100]);
        let mut write = write.comm_mode(CommMode::Enciphered);
        let sent = write.start(LinkFormat::NATIVE).unwrap();
        assert_eq!(sent.len(), 60);
        assert_eq!(schedules(), before);
    }

    /// What the session says of itself.
    #[test]
    fn what_is_open() {
        let zero = Key::zero(crate::wire::KeyFamily::Aes);
        let nonce = "000102030405060708090a0b0c0d0e0f";
        let ev1 = session(AuthScheme::Aes, &zero, nonce, nonce, 1);
        assert!(ev1.is_ev1() && !ev1.has_pending());
        assert!(!ev1.inner.nothing_open());
        let des = Key::zero(crate::wire::KeyFamily::Des);
        let short = &nonce[..16];
        let d40 = session(AuthScheme::Legacy, &des, short, short, 1);
        assert!(!d40.is_ev1() && !d40.inner.nothing_open());

        let mut free = Session::at_level(crate::wire::Aid::from_bytes([1, 0, 0]));
        assert!(!free.is_ev1() && !free.has_pending());
        assert!(free.inner.nothing_open());
        let file = FileNo::new(2).unwrap();
        let amount = crate::wire::Amount::new(5).unwrap();
        let debit = free.debit(file, amount).comm_mode(CommMode::Plain);
        native(debit, &[("dc 02 05000000", "00")]).unwrap();
        assert!(free.has_pending() && !free.inner.nothing_open());
        native(free.commit_transaction(), &[("c7", "00")]).unwrap();
        assert!(!free.has_pending() && free.inner.nothing_open());

        // A command that has begun and was not even dropped.
        let mut machine = free.free_mem();
        machine.start(LinkFormat::NATIVE).unwrap();
        core::mem::forget(machine);
        assert!(!free.inner.nothing_open());
        assert!(free.inner.ready().is_err());
    }

    /// Every command whose change waits for a commit is noted, and what ends the waiting too.
    #[test]
    fn what_waits_for_a_commit() {
        use crate::command::RawMode;
        use crate::wire::{Amount, CommandCode};
        let file = FileNo::new(2).unwrap();
        let amount = Amount::new(5).unwrap();
        let raw = RawMode {
            request: CommMode::Plain,
            reply: CommMode::Plain,
            reply_len: None,
        };
        let abort: &[(&str, &str)] = &[("a7", "00")];
        for index in 0..7 {
            let mut free = Session::at_level(crate::wire::Aid::from_bytes([1, 0, 0]));
            macro_rules! run {
                ($machine:expr, $frame:literal) => {
                    native($machine, &[($frame, "00")]).map(drop).unwrap()
                };
            }
            let plain = CommMode::Plain;
            match index {
                0 => run!(free.credit(file, amount).comm_mode(plain), "0c 02 05000000"),
                1 => run!(
                    free.limited_credit(file, amount).comm_mode(plain),
                    "1c 02 05000000"
                ),
                2 => run!(free.debit(file, amount).comm_mode(plain), "dc 02 05000000"),
                3 => run!(
                    free.write_data(file, 0, &[7]).comm_mode(plain),
                    "3d 02 000000 010000 07"
                ),
                4 => run!(
                    free.write_record(file, 0, &[7]).comm_mode(plain),
                    "3b 02 000000 010000 07"
                ),
                5 => run!(free.clear_record_file(file), "eb 02"),
                _ => run!(
                    free.raw(CommandCode::Other(0x3F), &[], &[], &mut [], raw),
                    "3f"
                ),
            }
            assert!(free.has_pending(), "{index}");
            native(free.abort_transaction(), abort).unwrap();
            assert!(!free.has_pending(), "{index}");
        }
        // What is valid at once does not wait.
        let mut free = Session::at_level(crate::wire::Aid::from_bytes([1, 0, 0]));
        native(free.get_file_ids(), &[("6f", "00")]).unwrap();
        assert!(!free.has_pending());
    }

    /// What was known of a file counts no more once it is another or none.
    #[test]
    fn files_that_are_not_the_same_any_more() {
        use crate::wire::{FileDetail, FileSettings, ValueFlags};
        let file = FileNo::new(2).unwrap();
        let size = U24::new(16).unwrap();
        let rights = AccessRights::from_bytes([0xEE, 0xEE]);
        let settings = FileSettings {
            comm: CommMode::Mac.into(),
            rights,
            detail: FileDetail::StandardData { size },
        };
        for index in 0..6 {
            let mut free = Session::at_level(crate::wire::Aid::from_bytes([1, 0, 0]));
            free.assume_file_settings(file, &settings);
            let known = |free: &Session<_>| free.inner.place.files.get(file).is_some();
            assert!(known(&free));
            macro_rules! run {
                ($machine:expr, $frame:literal) => {
                    native($machine, &[($frame, "00")]).map(drop).unwrap()
                };
            }
            let (plain, none) = (CommMode::Plain, ValueFlags::empty());
            match index {
                0 => run!(free.delete_file(file), "df 02"),
                1 => run!(
                    free.create_std_data_file(file, None, plain, rights, size),
                    "cd 02 00 eeee 100000"
                ),
                2 => run!(
                    free.create_backup_data_file(file, None, plain, rights, size),
                    "cb 02 00 eeee 100000"
                ),
                3 => run!(
                    free.create_linear_record_file(file, None, plain, rights, size, size),
                    "c1 02 00 eeee 100000 100000"
                ),
                4 => run!(
                    free.create_cyclic_record_file(file, None, plain, rights, size, size),
                    "c0 02 00 eeee 100000 100000"
                ),
                _ => run!(
                    free.create_value_file(file, plain, rights, 0..=9, 5, none),
                    "cc 02 00 eeee 00000000 09000000 05000000 00"
                ),
            }
            assert!(!known(&free), "{index}");
        }
    }

    /// Every command on file data asks for the settings of a file that the session does not know.
    #[test]
    fn unknown_files_are_asked_for() {
        let file = FileNo::new(2).unwrap();
        let amount = crate::wire::Amount::new(5).unwrap();
        let mut buffer = [0; 8];
        for index in 0..10 {
            let mut free = Session::at_level(crate::wire::Aid::from_bytes([1, 0, 0]));
            macro_rules! first {
                ($machine:expr) => {
                    $machine.start(LinkFormat::NATIVE).unwrap().to_vec()
                };
            }
            let sent = match index {
                0 => first!(free.get_value(file)),
                1 => first!(free.credit(file, amount)),
                2 => first!(free.limited_credit(file, amount)),
                3 => first!(free.debit(file, amount)),
                4 => first!(free.write_data(file, 0, &[7])),
                5 => first!(free.write_record(file, 0, &[7])),
                6 => first!(free.read_data(file, 0..8, &mut buffer)),
                7 => first!(free.read_data_to_end(file, 0, &mut buffer)),
                8 => first!(free.read_records(file, 0, 1, 8, &mut buffer)),
                _ => first!(free.read_all_records(file, 0, &mut buffer)),
            };
            assert_eq!(sent, [0xF5, 2], "{index}");
        }
    }
}
