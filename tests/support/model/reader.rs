//! What the library knows of the card, and what it refuses to send: by its own documentation.

use desfire_ev1::error::Misuse;
use desfire_ev1::wire::{Aid, AuthScheme, CommMode, FileNo, KeyNo, Status};

use super::card::{Body, Card, File, Refusal, Reply, mode_of};
use super::keys::KeyId;
use super::ops::{ATS, NewFile, Op};

/// The library's session.
#[derive(Clone, Debug, Default)]
pub(crate) struct Reader {
    pub(crate) selected: u32,
    /// The key in use. A lost session still has its type.
    pub(crate) key: Option<(u8, KeyId)>,
    /// Whether that was the legacy authentication.
    d40: bool,
    pub(crate) lost: bool,
    /// Files whose settings it knows, one bit each. While it is not lost they are right.
    known: u32,
    /// Those of which an EV1 session has proved that the card says so. A handshake forgets the
    /// others.
    proved: u32,
    /// Whether it believes that changes wait for a commit.
    pending: bool,
    /// The same before the command that is out.
    pending_before: bool,
    /// Whether the card has refused something since.
    broken: bool,
}

/// What the library does first when it is called.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Plan {
    NotSent(Misuse),
    /// Asks for the settings of this file, and then sees.
    Ask(u8),
    Send,
}

/// Where a text of the library stands in a prediction.
const INVALID: Misuse = Misuse::Invalid("");

/// Whether a refusal is the predicted one; texts are the library's own.
pub(crate) fn same_misuse(one: &Misuse, other: &Misuse) -> bool {
    matches!((one, other), (Misuse::Invalid(_), Misuse::Invalid(_))) || one == other
}

impl Reader {
    pub(crate) fn at(selected: u32) -> Self {
        Self {
            selected,
            ..Self::default()
        }
    }

    fn knows(&self, no: u8) -> bool {
        self.known >> no & 1 != 0
    }

    pub(crate) fn learns(&mut self, no: u8) {
        self.known |= 1 << no;
        let ev1 = self.key.is_some() && !self.d40;
        self.proved &= !(1 << no);
        self.proved |= u32::from(ev1) << no;
    }

    fn forgets(&mut self, no: u8) {
        self.known &= !(1 << no);
    }

    /// An exchange has failed: the session is lost, unless nobody is authenticated and the card
    /// has refused.
    pub(crate) fn failed(&mut self, refused: bool) {
        if self.key.is_none() && refused {
            // What has been refused has left nothing, and what was there is gone.
            self.pending = self.pending_before;
            self.broken |= self.pending;
        } else {
            self.loses();
        }
    }

    /// The card has said that nothing is pending.
    pub(crate) fn hears_no_changes(&mut self) {
        self.pending = false;
        self.broken = false;
    }

    /// Whether a refusal in a later frame of a write leaves open what the earlier ones did.
    pub(crate) fn may_be_half_done(&self, card: &Card, op: &Op) -> bool {
        let Op::WriteData { no, .. } = *op else {
            return false;
        };
        let file = card.kept.app(self.selected).and_then(|app| app.file(no));
        let backup = file.is_some_and(|file| matches!(file.body, Body::Backup { .. }));
        !(backup && self.knows(no))
    }

    fn loses(&mut self) {
        self.lost = true;
        self.known = 0;
        self.pending = false;
        self.broken = false;
    }

    /// A command goes out.
    pub(crate) fn sends(&mut self, card: &Card, op: &Op) {
        self.pending |= match *op {
            Op::WriteData { no, .. } => {
                let file = card.kept.app(self.selected).and_then(|app| app.file(no));
                let standard = file.is_some_and(|file| matches!(file.body, Body::Standard(_)));
                !(standard && self.knows(no))
            }
            Op::WriteRecord { .. } | Op::ChangeValue { .. } | Op::ClearRecordFile(_) => true,
            _ => by_hand(op, self.key.is_some()),
        };
    }

    /// A [`desfire_ev1::Transaction`] is dropped.
    pub(crate) fn drops_guard(&mut self) {
        if self.pending {
            self.loses();
        }
    }

    /// Before anything is sent.
    pub(crate) fn begins(&mut self, op: &Op) -> Plan {
        self.pending_before = self.pending;
        self.plan(op)
    }

    fn plan(&self, op: &Op) -> Plan {
        match op {
            Op::Select(_) => return Plan::Send,
            Op::Authenticate { scheme, key, .. } => {
                return if !scheme.accepts(key.key_type()) {
                    Plan::NotSent(Misuse::KeyType(key.key_type()))
                } else if self.lost {
                    Plan::NotSent(Misuse::SessionLost)
                } else {
                    Plan::Send
                };
            }
            _ if self.lost => return Plan::NotSent(Misuse::SessionLost),
            _ => {}
        }
        if let Some(misuse) = self.impossible(op) {
            return Plan::NotSent(misuse);
        }
        match op.file_access() {
            Some(_) if self.selected == 0 => Plan::NotSent(Misuse::NotInApplication),
            Some((no, None)) if !self.knows(no) => Plan::Ask(no),
            _ => Plan::Send,
        }
    }

    /// Once it knows the file: whether it goes on.
    pub(crate) fn denied(&self, card: &Card, op: &Op) -> Option<Misuse> {
        let (no, stated) = op.file_access()?;
        let file = card.kept.app(self.selected).and_then(|app| app.file(no));
        if stated.is_none() {
            let key = self.key.map(|(key_no, _)| key_no);
            if mode_of(file?, key, op).is_none() {
                return Some(Misuse::AccessDenied(FileNo::new(no).expect("up to 31")));
            }
        }
        let known = file.filter(|_| stated.is_none() || self.knows(no));
        if let Some(misuse) = known.and_then(|file| does_not_fit(file, op)) {
            return Some(misuse);
        }
        let needs_key = stated.is_some_and(|mode| mode != CommMode::Plain) && self.key.is_none();
        needs_key.then_some(Misuse::NotAuthenticated)
    }

    /// Parameters that cannot be sent, or not here.
    fn impossible(&self, op: &Op) -> Option<Misuse> {
        if matches!(op, Op::Guarded { .. }) && !self.pending {
            return Some(Misuse::NothingPending);
        }
        if matches!(op, Op::Guarded { .. }) && self.broken {
            return Some(Misuse::TransactionBroken);
        }
        let in_application = self.selected != 0;
        let need_picc = in_application.then_some(Misuse::NotAtPiccLevel);
        let need_application = (!in_application).then_some(Misuse::NotInApplication);
        match *op {
            Op::GetApplicationIds | Op::GetDfNames => need_picc,
            Op::CreateApplication { fid, .. } => need_picc.or_else(|| {
                let reserved = matches!(fid, Some(0x0000 | 0x3F00 | 0x3FFF | 0xFFFF));
                reserved.then_some(INVALID)
            }),
            // Without a session these are sent by hand: see `run.rs`.
            Op::DeleteApplication(_) | Op::FormatPicc => self.key.and(need_picc),
            Op::ChangeKeySettings { settings, freeze } => {
                let freezes = settings & 1 == 0 || settings & 8 == 0;
                (self.key.is_some() && freezes && !freeze).then_some(INVALID)
            }
            Op::SetAts(which)
                if self.key.is_some() && ATS[which].len() != usize::from(ATS[which][0]) =>
            {
                Some(INVALID)
            }
            Op::DisableFormat | Op::EnableRandomId | Op::SetDefaultKey(_) | Op::SetAts(_) => {
                self.key.and(need_picc)
            }
            Op::ChangeKey { key_no, old, new } => {
                let (in_use, of) = self.key?;
                if key_no == in_use {
                    Some(Misuse::KeyInUse(KeyNo::new(in_use).expect("up to 13")))
                } else if !in_application {
                    Some(Misuse::NotInApplication)
                } else if [old, new].iter().any(|key| key.family() != of.family()) {
                    Some(Misuse::KeyFamily(of.key_type()))
                } else {
                    None
                }
            }
            Op::ChangeKeyInUse { new } => {
                let (_, of) = self.key?;
                (new.family() != of.family()).then_some(Misuse::KeyFamily(of.key_type()))
            }
            Op::ChangePiccKey { .. } => self.key.and(need_picc),
            Op::GetFileIds
            | Op::GetIsoFileIds
            | Op::GetFileSettings(_)
            | Op::DeleteFile(_)
            | Op::ClearRecordFile(_)
            | Op::Commit
            | Op::Abort
            | Op::Guarded { .. } => need_application,
            Op::CreateFile { what, .. } => need_application.or(match what {
                NewFile::Standard { .. } | NewFile::Backup { .. } => None,
                NewFile::Value {
                    lower,
                    upper,
                    value,
                    ..
                } => (value < lower || value > upper).then_some(INVALID),
                NewFile::Linear { record_size, max } => {
                    (record_size == 0 || max == 0).then_some(INVALID)
                }
                NewFile::Cyclic { record_size, max } => {
                    (record_size == 0 || max < 2).then_some(INVALID)
                }
            }),
            Op::ReadData { len: 0, .. } => Some(INVALID),
            Op::ReadRecords {
                count, record_size, ..
            } if count == 0 || record_size == 0 => Some(INVALID),
            Op::WriteData { data, .. } | Op::WriteRecord { data, .. } if data.len == 0 => {
                Some(Misuse::NothingToWrite)
            }
            _ => None,
        }
    }

    /// Whether the library can take in what the card has answered.
    pub(crate) fn understands(&self, op: &Op, reply: &Reply) -> bool {
        let ev1 = self.key.is_some() && !self.d40;
        // On the wire a reply in plain and one with a MAC are the same in an EV1 session (7.7).
        let same = |one, other| {
            one == other || (ev1 && one != CommMode::Enciphered && other != CommMode::Enciphered)
        };
        let stated = op.file_access().and_then(|(_, stated)| stated);
        let len = reply.data.len();
        match *op {
            Op::ReadData { len: asked, .. } => {
                len == asked as usize && same(stated.unwrap_or(reply.mode), reply.mode)
            }
            Op::ReadRecords {
                count, record_size, ..
            } => {
                len == (count * record_size) as usize
                    && same(stated.unwrap_or(reply.mode), reply.mode)
            }
            Op::GetValue { .. } => same(stated.unwrap_or(reply.mode), reply.mode),
            Op::ReadToEnd { room, .. } | Op::ReadAllRecords { room, .. } => len <= room,
            // The application's session is gone, and with it the MAC that the library waits for.
            Op::DeleteThisApplication => !ev1,
            _ => true,
        }
    }

    /// The card has done it, and the library has understood.
    pub(crate) fn succeeded(&mut self, op: &Op) {
        match *op {
            Op::Select(aid) => *self = Self::at(aid),
            Op::Authenticate {
                scheme,
                key_no,
                key,
            } => {
                self.key = Some((key_no, key));
                self.d40 = scheme == AuthScheme::Legacy;
                self.known &= self.proved;
            }
            Op::ChangeKeyInUse { .. } | Op::ChangePiccKey { .. } => {
                *self = Self {
                    pending: self.pending,
                    broken: self.broken,
                    ..Self::at(self.selected)
                };
            }
            Op::GetFileSettings(no) => self.learns(no),
            Op::CreateFile { no, .. } | Op::DeleteFile(no) | Op::ChangeFileSettings { no, .. } => {
                self.forgets(no);
            }
            Op::Commit | Op::Abort | Op::Guarded { .. } => {
                self.pending = false;
                self.broken = false;
            }
            // The library cannot know what they did.
            _ if by_hand(op, self.key.is_some()) => self.known = 0,
            _ => {}
        }
    }

    pub(crate) fn aid(&self) -> Aid {
        Aid::new(self.selected).expect("three bytes")
    }
}

/// Whether a command is sent by hand, because the library has no call for it, or none without
/// authentication.
pub(crate) fn by_hand(op: &Op, authenticated: bool) -> bool {
    match op {
        Op::DeleteThisApplication | Op::Odd(_) => true,
        Op::GetCardUid
        | Op::FormatPicc
        | Op::DeleteApplication(_)
        | Op::ChangeKeySettings { .. }
        | Op::ChangeKey { .. }
        | Op::ChangeKeyInUse { .. }
        | Op::ChangePiccKey { .. }
        | Op::DisableFormat
        | Op::EnableRandomId
        | Op::SetDefaultKey(_)
        | Op::SetAts(_) => !authenticated,
        _ => false,
    }
}

/// What the library knows to be impossible once it knows how large the file or its records are.
fn does_not_fit(file: &File, op: &Op) -> Option<Misuse> {
    match (op, &file.body) {
        (Op::ReadToEnd { offset, room, .. }, Body::Standard(data) | Body::Backup(data)) => {
            let (needed, available) = (data.len().saturating_sub(*offset as usize), *room);
            (needed > available).then_some(Misuse::BufferTooSmall { needed, available })
        }
        (
            &Op::ReadRecords { record_size, .. },
            Body::Records {
                record_size: actual,
                ..
            },
        ) => {
            let (stated, actual) = (record_size, *actual);
            (stated != actual).then_some(Misuse::RecordSize { stated, actual })
        }
        _ => None,
    }
}

/// The statuses with which the card may have refused.
pub(crate) fn statuses(refusal: &Refusal) -> &[Status] {
    match refusal {
        Refusal::Status(any) => any,
        Refusal::Waits => &[],
    }
}
