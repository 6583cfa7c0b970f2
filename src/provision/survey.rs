//! A look at a card: everything that a plan is made from, and not one exchange more.
//!
//! For: asking the card. It only reads, and authenticates; a key that the card does not take changes
//! nothing on it. What the answers mean for a layout is `planner`.

use alloc::vec::Vec;

use rand_core::TryCryptoRng;

use super::hand::Hand;
use super::keys::{KeyFault, KeyStore, Level, Origin, Ring};
use super::layout::KeySlot;
use crate::command::NamedApplication;
use crate::wire::{
    Aid, FileNo, FileSettings, IsoFileId, KeyInfo, KeyNo, KeySettings, Status, Uid, Version,
};
use crate::{AsyncTransport, RunError};

/// Why a look, or what follows it, ended.
pub(super) enum Halt<E> {
    Card(RunError<E>),
    Keys(KeyFault),
}

impl<E> From<RunError<E>> for Halt<E> {
    fn from(error: RunError<E>) -> Self {
        Self::Card(error)
    }
}

impl<E> From<KeyFault> for Halt<E> {
    fn from(fault: KeyFault) -> Self {
        Self::Keys(fault)
    }
}

/// What a key of the card is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum KeyFound {
    /// Proved by a handshake.
    Known(Origin),
    /// None of those that it could be.
    Strange { version: u8 },
    /// There is no such key.
    Absent,
}

impl KeyFound {
    pub(super) const fn known(&self) -> Option<&Origin> {
        match self {
            Self::Known(origin) => Some(origin),
            Self::Strange { .. } | Self::Absent => None,
        }
    }

    pub(super) fn is_wanted(&self) -> bool {
        *self == Self::Known(Origin::Wanted)
    }
}

/// What the card is.
pub(super) struct Survey {
    pub(super) version: Version,
    /// Unknown if the card hides it and none of the keys that are the same on all cards fits.
    pub(super) uid: Option<Uid>,
    /// The card tells another UID in a session than outside.
    pub(super) uid_disputed: bool,
    /// Bytes.
    pub(super) free: u32,
    pub(super) picc_key: KeyFound,
    pub(super) picc_settings: Option<(KeySettings, KeyInfo)>,
    /// Nothing if the card does not tell.
    pub(super) aids: Option<Vec<Aid>>,
    /// Asked for if the layout has ISO names; nothing if the card does not tell.
    pub(super) names: Option<Vec<NamedApplication>>,
    /// In the layout's order; nothing for those that are not there.
    pub(super) apps: Vec<Option<AppFound>>,
}

impl Survey {
    pub(super) fn hides_uid(&self) -> bool {
        self.version.uid == Uid::HIDDEN
    }

    /// Whether it is a DESFire that has EV1's commands: nothing else is asked for more than its
    /// version.
    pub(super) const fn speaks_ev1(&self) -> bool {
        speaks_ev1(&self.version)
    }
}

/// NXP, DESFire, and not of the first generation, which knows neither FreeMem nor GetDFNames nor these
/// handshakes.
const fn speaks_ev1(version: &Version) -> bool {
    let hardware = &version.hardware;
    matches!((hardware.vendor, hardware.module_type), (0x04, 0x01)) && hardware.major > 0
}

pub(super) struct AppFound {
    pub(super) keys: Vec<KeyFound>,
    /// Nothing if the card does not tell.
    pub(super) settings: Option<(KeySettings, KeyInfo)>,
    /// With the settings of those that the layout has; nothing if the card does not tell.
    pub(super) files: Option<Vec<(FileNo, Option<FileSettings>)>>,
    /// Asked for if the layout has such.
    pub(super) iso_ids: Vec<IsoFileId>,
}

impl AppFound {
    /// Whether the master key is still the one that it was created with, which is no secret.
    pub(super) fn is_new(&self) -> bool {
        let master = self.keys.first().and_then(KeyFound::known);
        matches!(
            master,
            Some(Origin::Default | Origin::Factory | Origin::Transport(_))
        )
    }
}

/// Whether it may be a key that is the same on all cards.
fn may_be_shared(slot: &KeySlot) -> bool {
    let mut keys = [&slot.key].into_iter().chain(&slot.older);
    keys.any(|key| !key.diversified)
}

/// What a look goes into.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Depth {
    pub(super) files: bool,
}

/// An answer, unless the card says that it is for the master key only. (Which of the two refusals it then
/// gives differs from card to card.) Refusals carry no MAC: where the master asks, no genuine card gives
/// this one, and it is somebody in between who wants something not to be seen.
fn unless_denied<V, E>(
    answer: Result<V, RunError<E>>,
    as_master: bool,
) -> Result<Option<V>, RunError<E>> {
    match answer {
        Ok(value) => Ok(Some(value)),
        Err(error)
            if !as_master
                && matches!(
                    error.status(),
                    Some(Status::AuthenticationError | Status::PermissionDenied)
                ) =>
        {
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

impl<T, R> Hand<'_, T, R>
where
    T: AsyncTransport + ?Sized,
    R: TryCryptoRng + ?Sized,
{
    /// Looks at the card. `ring` learns the UID.
    pub(super) async fn look<K: KeyStore + ?Sized>(
        &mut self,
        ring: &mut Ring<'_, K>,
        depth: Depth,
    ) -> Result<Survey, Halt<T::Error>> {
        self.select(Aid::PICC).await?;
        let version = self.version().await?;
        let hidden = version.uid == Uid::HIDDEN;
        let told = (!hidden).then_some(version.uid);
        let mut uid_disputed =
            matches!((ring.uid, told), (Some(given), Some(told)) if given != told);
        if ring.uid.is_none() {
            ring.uid = told;
        }
        if !speaks_ev1(&version) {
            return Ok(Survey {
                version,
                uid: ring.uid,
                uid_disputed,
                free: 0,
                picc_key: KeyFound::Strange { version: 0 },
                picc_settings: None,
                aids: None,
                names: None,
                apps: Vec::new(),
            });
        }
        let ask_card = ring.uid.is_none();
        if ask_card {
            ring.uid = self.uid_by_shared_key(ring).await?;
            self.go_to(Aid::PICC).await?;
        }
        let layout = ring.layout;
        let has_names = layout
            .applications
            .iter()
            .any(|app| app.iso_file_id.is_some());
        // Outside a session, where it may be: nobody knows how a card protects this answer in one.
        let free_names = if has_names {
            self.be_nobody(Aid::PICC).await?;
            unless_denied(self.df_names().await, false)?
        } else {
            None
        };
        let picc_key = self.which_key(ring, Level::Picc, KeyNo::MASTER).await?;
        let known = picc_key.known().is_some();
        if known && !self.proves_uid(ring, &picc_key) {
            // The key says nothing of the UID, but the card's own word is enciphered. Asked under this key,
            // also if another has told it: the keys of delivery are nobody's secret.
            let real = self.card_uid().await?;
            uid_disputed |= real.is_some() && real != ring.uid;
        }
        let free = self.free_memory().await?;
        let picc_settings = unless_denied(self.key_settings().await, known)?;
        let aids = unless_denied(self.aids().await, known)?;
        // The last that is asked as the master: whatever becomes of the session, selections follow.
        let names = match free_names {
            None if has_names && known => self.names_in_session().await?,
            names => names,
        };
        let mut apps = Vec::with_capacity(layout.applications.len());
        for (index, app) in layout.applications.iter().enumerate() {
            let there = aids.as_ref().is_some_and(|aids| aids.contains(&app.aid));
            apps.push(if there {
                Some(self.application(ring, index, depth).await?)
            } else {
                None
            });
        }
        Ok(Survey {
            version,
            uid: ring.uid,
            uid_disputed,
            free,
            picc_key,
            picc_settings,
            aids,
            names,
            apps,
        })
    }

    /// The names that are for the master key only; nothing if the card protects the answer in a way that is
    /// not known here. Then a name that is taken comes out when the application is made.
    async fn names_in_session(
        &mut self,
    ) -> Result<Option<Vec<NamedApplication>>, RunError<T::Error>> {
        match self.df_names().await {
            Ok(names) => Ok(Some(names)),
            Err(RunError::Protocol(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether a key of this card only has been proved.
    fn proves_uid<K: KeyStore + ?Sized>(&self, ring: &Ring<'_, K>, found: &KeyFound) -> bool {
        match found {
            KeyFound::Known(Origin::Wanted) => ring.layout.picc.key.key.diversified,
            KeyFound::Known(Origin::Older(key) | Origin::Transport(key)) => key.diversified,
            _ => false,
        }
    }

    /// The UID of a card that hides it, by a key that is the same on all cards.
    async fn uid_by_shared_key<K: KeyStore + ?Sized>(
        &mut self,
        ring: &Ring<'_, K>,
    ) -> Result<Option<Uid>, Halt<T::Error>> {
        let applications = (0..ring.layout.applications.len()).map(Level::App);
        for level in [Level::Picc].into_iter().chain(applications) {
            for (number, slot) in (0..).zip(level.slots(ring.layout)) {
                let Ok(key_no) = KeyNo::new(number) else {
                    continue;
                };
                if !may_be_shared(slot) {
                    continue;
                }
                match self.go_to(level.aid(ring.layout)).await {
                    Err(error) if error.status() == Some(Status::ApplicationNotFound) => break,
                    other => other?,
                }
                let found = self.which_key(ring, level, key_no).await?;
                if found.known().is_some() {
                    return Ok(self.card_uid().await?);
                }
            }
        }
        if may_be_shared(&ring.layout.picc.key) {
            // It has been tried, with the keys of delivery.
            return Ok(None);
        }
        // The card may hide its UID and still have the key that it came with.
        self.go_to(Aid::PICC).await?;
        let found = self.which_key(ring, Level::Picc, KeyNo::MASTER).await?;
        match found.known() {
            Some(_) => Ok(self.card_uid().await?),
            None => Ok(None),
        }
    }

    /// Finds out which of its candidates a key is; on success the hand is authenticated with it.
    async fn which_key<K: KeyStore + ?Sized>(
        &mut self,
        ring: &Ring<'_, K>,
        level: Level,
        key_no: KeyNo,
    ) -> Result<KeyFound, Halt<T::Error>> {
        let aid = level.aid(ring.layout);
        let version = match self.key_version(key_no).await {
            Err(error) if error.status() == Some(Status::NoSuchKey) => return Ok(KeyFound::Absent),
            other => other?,
        };
        self.prove_version(ring, level, key_no, aid, version).await
    }

    async fn prove_version<K: KeyStore + ?Sized>(
        &mut self,
        ring: &Ring<'_, K>,
        level: Level,
        key_no: KeyNo,
        aid: Aid,
        version: u8,
    ) -> Result<KeyFound, Halt<T::Error>> {
        for candidate in ring.candidates(level, key_no)? {
            if candidate.key.version() == version && self.prove(aid, key_no, &candidate.key).await?
            {
                return Ok(KeyFound::Known(candidate.origin));
            }
        }
        Ok(KeyFound::Strange { version })
    }

    async fn application<K: KeyStore + ?Sized>(
        &mut self,
        ring: &Ring<'_, K>,
        index: usize,
        depth: Depth,
    ) -> Result<AppFound, Halt<T::Error>> {
        let layout = ring.layout;
        let (level, aid) = (Level::App(index), Level::App(index).aid(layout));
        self.select(aid).await?;
        // Outside a session, where a refusal breaks nothing.
        let mut versions = Vec::new();
        for number in 0..level.slots(layout).len() {
            let Some(key_no) = u8::try_from(number).ok().and_then(|no| KeyNo::new(no).ok()) else {
                break;
            };
            versions.push(match self.key_version(key_no).await {
                Ok(version) => Some((key_no, version)),
                Err(error) if error.status() == Some(Status::NoSuchKey) => None,
                Err(error) => return Err(error.into()),
            });
        }
        // The master key last: what follows is asked as it.
        let mut keys = Vec::with_capacity(versions.len());
        for known in versions.iter().rev() {
            keys.push(match *known {
                None => KeyFound::Absent,
                Some((key_no, version)) => {
                    self.prove_version(ring, level, key_no, aid, version)
                        .await?
                }
            });
        }
        keys.reverse();
        let master = keys.first().is_some_and(|key| key.known().is_some());
        if !master {
            self.be_nobody(aid).await?;
        }
        let settings = unless_denied(self.key_settings().await, master)?;
        let mut found = AppFound {
            keys,
            settings,
            files: None,
            iso_ids: Vec::new(),
        };
        if !depth.files {
            return Ok(found);
        }
        let Some(numbers) = unless_denied(self.file_ids().await, master)? else {
            return Ok(found);
        };
        let app = layout.applications.get(index);
        let wanted = |number: &FileNo| {
            app.is_some_and(|app| app.files.iter().any(|file| file.number == *number))
        };
        let mut files = Vec::with_capacity(numbers.len());
        for number in numbers {
            let settings = if wanted(&number) {
                unless_denied(self.file_settings(number).await, master)?
            } else {
                None
            };
            files.push((number, settings));
        }
        let lists_ids = !files.is_empty() && app.is_some_and(|app| app.has_iso_files());
        found.files = Some(files);
        if lists_ids {
            // Last: a card with nothing to list may refuse, nobody has seen how, which ends the session. A
            // FID that is taken all the same comes out when the file is made.
            found.iso_ids = match unless_denied(self.iso_file_ids().await, false) {
                Ok(ids) => ids.unwrap_or_default(),
                Err(error) if error.status() == Some(Status::FileNotFound) => Vec::new(),
                Err(error) => return Err(error.into()),
            };
        }
        Ok(found)
    }
}
