//! Layouts from TOML.
//!
//! For: turning text that anybody may have written into a [`Layout`] that has been checked, or into
//! what is wrong with it and in which line. It never panics, and takes [`MAX_TEXT`] bytes at most.

mod document;

use alloc::collections::BTreeMap;
use alloc::format;
use alloc::string::{String, ToString as _};
use alloc::vec::Vec;

use toml::Spanned;

use self::document::{
    Application, Bytes, CardSize, Document, Family, File, KeyOrWord, Later, Mode, Picc, Reference,
    Settings, Slot, Type, Who,
};
use super::check::{LayoutError, LayoutErrors, MAX_ERRORS, Place};
use super::layout::{
    ApplicationLayout, FileKind, FileLayout, KeyRef, KeySlot, Layout, PiccLayout, RecordsLayout,
    storage,
};
use crate::wire::{
    Access, AccessRights, ChangeKeyAccess, CommMode, DfName, KeyFamily, KeyFlags, KeyNo,
    KeySettings, ValueFlags,
};

/// The longest text that is looked at, in bytes.
pub const MAX_TEXT: usize = 256 * 1024;

impl Layout {
    /// A layout from TOML, checked.
    ///
    /// ```
    /// use desfire_ev1::provision::Layout;
    ///
    /// let layout = Layout::from_toml(r#"
    /// name = "door card"
    /// card = "2K"                               # it must fit into this: 2K, 4K or 8K
    /// system_id = { text = "NXP A" }            # for diversified keys; { hex = "4E58" } works too
    ///
    /// [picc]
    /// key = { name = "picc", version = 2, older = [1] }
    /// transport = [{ name = "transport", version = 0, diversified = false }]
    /// settings = { creating = "master key", settings = "changeable" } # listing, master_key as well
    /// [[application]]
    /// name = "door"
    /// aid = "F51A10"
    /// key_type = "AES"                          # DES, 2K3DES, 3K3DES, AES
    /// keys = [
    ///     { name = "door master", version = 2, older = [1] },
    ///     { name = "door read", version = 2, diversified = false },
    /// ]
    /// settings = { change_keys = "master key" } # or a key number, "same key", "never"
    ///
    /// [[application.file]]
    /// number = 0
    /// type = "standard"                         # standard, backup, value, linear, cyclic
    /// mode = "enciphered"                       # plain, maced, enciphered
    /// rights = { read = 1, write = 0, read_write = "never", change = "never" }
    /// size = 32
    /// content = { text = "house 7" }
    /// "#)?;
    /// assert_eq!(layout.applications[0].keys.len(), 2);
    ///
    /// let errors = Layout::from_toml("name = 'x'\ncard = '2K'\n[picc]\nkey = 7").unwrap_err();
    /// assert_eq!(errors.0[0].line, Some(4));
    /// # Ok::<(), desfire_ev1::provision::LayoutErrors>(())
    /// ```
    ///
    /// Names have 64 bytes at most, and lists of older or transport keys 16 entries.
    ///
    /// # Errors
    /// All that is wrong, with lines; not more than the first 100 faults.
    pub fn from_toml(text: &str) -> Result<Self, LayoutErrors> {
        if text.len() > MAX_TEXT {
            return Err(one(None, format!("a layout has {MAX_TEXT} bytes at most")));
        }
        let document: Document = toml::from_str(text).map_err(|error| {
            let line = error.span().map(|span| Lines::of(text).at(span.start));
            one(line, error.message().to_string())
        })?;
        let mut reading = Reading {
            ends: Lines::of(text),
            lines: BTreeMap::new(),
            wrong: Vec::new(),
        };
        let layout = reading.layout(document);
        let mut errors: Vec<LayoutError> = reading
            .wrong
            .iter()
            .map(|(place, reason)| LayoutError {
                place: *place,
                subject: layout.subject(*place),
                line: None,
                reason: reason.clone(),
            })
            .collect();
        if errors.is_empty()
            && let Err(LayoutErrors(checked)) = layout.check()
        {
            errors = checked;
        }
        if errors.is_empty() {
            return Ok(layout);
        }
        for error in &mut errors {
            error.line = reading.line(error.place);
        }
        Err(LayoutErrors(errors))
    }
}

fn one(line: Option<usize>, reason: String) -> LayoutErrors {
    LayoutErrors(
        [LayoutError {
            place: Place::Layout,
            subject: String::new(),
            line,
            reason,
        }]
        .to_vec(),
    )
}

/// Where the lines of a text end: a layout asks for as many lines as it has values, so each must be cheap.
struct Lines(Vec<usize>);

impl Lines {
    fn of(text: &str) -> Self {
        Self(text.match_indices('\n').map(|(at, _)| at).collect())
    }

    /// The line of a byte, counted from 1.
    fn at(&self, offset: usize) -> usize {
        self.0
            .partition_point(|end| *end < offset)
            .saturating_add(1)
    }
}

struct Reading {
    ends: Lines,
    lines: BTreeMap<Place, usize>,
    /// What serde cannot find wrong.
    wrong: Vec<(Place, String)>,
}

impl Reading {
    fn line(&self, place: Place) -> Option<usize> {
        let mut place = Some(place);
        while let Some(here) = place {
            if let Some(line) = self.lines.get(&here) {
                return Some(*line);
            }
            place = here.parent();
        }
        None
    }

    /// Notes where a value stands, and takes it.
    fn at<T>(&mut self, place: Place, value: Spanned<T>) -> T {
        let line = self.ends.at(value.span().start);
        self.lines.insert(place, line);
        value.into_inner()
    }

    fn wrong(&mut self, place: Place, reason: impl Into<String>) {
        if self.wrong.len() < MAX_ERRORS {
            self.wrong.push((place, reason.into()));
        }
    }

    fn layout(&mut self, document: Document) -> Layout {
        let picc = self.at(Place::Picc, document.picc);
        // Of a layout as a whole the size is what most is wrong with.
        let card = self.at(Place::Layout, document.card);
        Layout {
            name: document.name.0,
            storage: match card {
                CardSize::Ev1_2K => storage::EV1_2K,
                CardSize::Ev1_4K => storage::EV1_4K,
                CardSize::Ev1_8K => storage::EV1_8K,
            },
            system_id: document.system_id.map_or(Vec::new(), Bytes::into_vec),
            picc: self.picc(picc),
            applications: (0..)
                .zip(document.application)
                .map(|(index, app)| {
                    let app = self.at(Place::Application(index), app);
                    self.application(index, app)
                })
                .collect(),
        }
    }

    fn picc(&mut self, picc: Picc) -> PiccLayout {
        PiccLayout {
            key: slot(picc.key),
            transport: picc.transport.0.into_iter().map(reference).collect(),
            default_key: picc.default_key.map(reference),
            settings: self.settings(Place::PiccSettings, picc.settings),
            random_id: picc.random_id,
            disable_format: picc.disable_format,
            ats: picc.ats.map(|ats| ats.0),
        }
    }

    fn settings(&mut self, place: Place, settings: Option<Spanned<Settings>>) -> KeySettings {
        let settings = settings.map_or_else(Settings::default, |settings| self.at(place, settings));
        let mut flags = KeyFlags::empty();
        flags.set(KeyFlags::FREE_LISTING, settings.listing == Who::Free);
        flags.set(KeyFlags::FREE_CREATE_DELETE, settings.creating == Who::Free);
        flags.set(
            KeyFlags::MASTER_KEY_CHANGEABLE,
            settings.master_key == Later::Changeable,
        );
        flags.set(
            KeyFlags::SETTINGS_CHANGEABLE,
            settings.settings == Later::Changeable,
        );
        let change_key = match settings.change_keys {
            None => ChangeKeyAccess::MasterKey,
            Some(KeyOrWord::Word(word)) => match word.as_str() {
                "master key" => ChangeKeyAccess::MasterKey,
                "same key" => ChangeKeyAccess::SameKey,
                "never" => ChangeKeyAccess::Frozen,
                _ => {
                    let reason = format!(
                        "change_keys is a key number, \"master key\", \"same key\" or \"never\", not \"{word}\""
                    );
                    self.wrong(place, reason);
                    ChangeKeyAccess::MasterKey
                }
            },
            Some(KeyOrWord::Key(0)) => ChangeKeyAccess::MasterKey,
            Some(KeyOrWord::Key(number)) => match key_no(number) {
                Some(key) => ChangeKeyAccess::Key(key),
                None => {
                    self.wrong(place, format!("there is no key {number}"));
                    ChangeKeyAccess::MasterKey
                }
            },
        };
        KeySettings { flags, change_key }
    }

    fn application(&mut self, index: usize, app: Application) -> ApplicationLayout {
        let place = Place::Application(index);
        let df_name = app.df_name.and_then(|name| {
            let name = DfName::new(&name.into_vec());
            if name.is_err() {
                self.wrong(place, "a DF name has 1 to 16 bytes");
            }
            name.ok()
        });
        ApplicationLayout {
            name: app.name.0,
            aid: app.aid.0,
            iso_file_id: app.iso_file_id.map(|id| id.0),
            df_name,
            family: match app.key_type {
                Family::Des => KeyFamily::Des,
                Family::ThreeKey3Des => KeyFamily::ThreeKey3Des,
                Family::Aes => KeyFamily::Aes,
            },
            keys: (0..)
                .zip(app.keys)
                .map(|(number, key)| slot(self.at(Place::Key(index, number), key)))
                .collect(),
            settings: self.settings(Place::Settings(index), app.settings),
            files: (0..)
                .zip(app.file)
                .map(|(number, file)| {
                    let place = Place::File(index, number);
                    let file = self.at(place, file);
                    self.file(index, number, file)
                })
                .collect(),
        }
    }

    fn file(&mut self, app: usize, index: usize, file: File) -> FileLayout {
        let place = Place::File(app, index);
        let rights_place = Place::Rights(app, index);
        let rights = self.at(rights_place, file.rights);
        let rights = AccessRights {
            read: self.access(rights_place, "read", rights.read),
            write: self.access(rights_place, "write", rights.write),
            read_write: self.access(rights_place, "read_write", rights.read_write),
            change: self.access(rights_place, "change", rights.change),
        };
        let content_place = Place::Content(app, index);
        let content = file.content.map(|bytes| self.at(content_place, bytes));
        let records = file.records.map(|records| self.at(content_place, records));
        // What stands there but does not belong to a file of this type.
        let data = [
            ("size", file.size.is_some()),
            ("content", content.is_some()),
        ];
        let value = [
            ("lower", file.lower.is_some()),
            ("upper", file.upper.is_some()),
            ("value", file.value.is_some()),
            ("limited_credit", file.limited_credit.is_some()),
            ("free_get_value", file.free_get_value.is_some()),
        ];
        let record = [
            ("record_size", file.record_size.is_some()),
            ("max_records", file.max_records.is_some()),
            ("records", records.is_some()),
        ];
        let strangers: [&[(&str, bool)]; 2] = match file.kind {
            Type::Standard | Type::Backup => [&value, &record],
            Type::Value => [&data, &record],
            Type::Linear | Type::Cyclic => [&data, &value],
        };
        for (name, given) in strangers.into_iter().flatten() {
            if *given {
                self.wrong(place, format!("a file of this type has no '{name}'"));
            }
        }
        let content = content.map_or(Vec::new(), Bytes::into_vec);
        let kind = match file.kind {
            Type::Standard => FileKind::Standard {
                size: self.need(place, "size", file.size),
                content,
            },
            Type::Backup => FileKind::Backup {
                size: self.need(place, "size", file.size),
                content,
            },
            Type::Value => {
                let mut flags = ValueFlags::empty();
                flags.set(
                    ValueFlags::LIMITED_CREDIT,
                    file.limited_credit.unwrap_or(false),
                );
                flags.set(
                    ValueFlags::FREE_GET_VALUE,
                    file.free_get_value.unwrap_or(false),
                );
                FileKind::Value {
                    lower: self.need(place, "lower", file.lower),
                    upper: self.need(place, "upper", file.upper),
                    value: self.need(place, "value", file.value),
                    flags,
                }
            }
            Type::Linear | Type::Cyclic => {
                let records = RecordsLayout {
                    record_size: self.need(place, "record_size", file.record_size),
                    max_records: self.need(place, "max_records", file.max_records),
                    records: records
                        .unwrap_or_default()
                        .into_iter()
                        .map(Bytes::into_vec)
                        .collect(),
                };
                match file.kind {
                    Type::Linear => FileKind::Linear(records),
                    _ => FileKind::Cyclic(records),
                }
            }
        };
        FileLayout {
            number: file.number.0,
            iso_file_id: file.iso_file_id.map(|id| id.0),
            mode: match file.mode {
                Mode::Plain => CommMode::Plain,
                Mode::Maced => CommMode::Mac,
                Mode::Enciphered => CommMode::Enciphered,
            },
            rights,
            kind,
        }
    }

    fn need<T: Default>(&mut self, place: Place, name: &str, value: Option<T>) -> T {
        value.unwrap_or_else(|| {
            self.wrong(place, format!("'{name}' is missing"));
            T::default()
        })
    }

    fn access(&mut self, place: Place, name: &str, access: KeyOrWord) -> Access {
        let access = match access {
            KeyOrWord::Key(number) => key_no(number)
                .map(Access::Key)
                .ok_or_else(|| format!("{name}: there is no key {number}")),
            KeyOrWord::Word(word) => match word.as_str() {
                "free" => Ok(Access::Free),
                "never" => Ok(Access::Never),
                _ => Err(format!(
                    "{name} is a key number, \"free\" or \"never\", not \"{word}\""
                )),
            },
        };
        access.unwrap_or_else(|reason| {
            self.wrong(place, reason);
            Access::Never
        })
    }
}

fn key_no(number: i64) -> Option<KeyNo> {
    let number = u8::try_from(number).ok()?;
    KeyNo::new(number).ok()
}

fn reference(reference: Reference) -> KeyRef {
    KeyRef {
        name: reference.name.0,
        version: reference.version,
        diversified: reference.diversified,
    }
}

fn slot(slot: Slot) -> KeySlot {
    let generation = |version| KeyRef {
        name: slot.name.0.clone(),
        version,
        diversified: slot.diversified,
    };
    let older = slot.older.0.iter().copied().map(generation);
    KeySlot {
        key: generation(slot.version),
        older: older
            .chain(slot.older_keys.0.into_iter().map(reference))
            .collect(),
    }
}
