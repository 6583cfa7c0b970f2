//! Issuing: what `plan` says of cards that are not what they should be, that it touches nothing, what
//! issuing costs, keys that stay with their holder, both drivers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/issue.rs"]
mod issue;

use std::sync::mpsc;

use desfire_ev1::command::IsoName;
use desfire_ev1::picc::{Application, Card, CardKey, Fault, File, FileContent, StorageSize};
use desfire_ev1::provision::{
    ApplicationLayout, FILLING, FileKind, Issuer, KeyRef, KeyStore, Layout, MemoryKeys, Plan,
    ProblemKind, ProvisionError,
};
use desfire_ev1::wire::{
    Access, AccessRights, Aid, ChangeKeyAccess, CommMode, CommandCode, FileNo, FileSettings,
    IsoFileId, KeyFamily, KeyFlags, KeyInfo, KeyNo, KeySettings, ModuleVersion, Uid,
};
use desfire_ev1::{
    Authenticated, Key, Link, LinkFormat, Machine, Session, Transport, Unauthenticated,
    VirtualReader,
};
use getrandom::SysRng;
use issue::{AIDS, NEW, OLD, keys, layout};

fn aid(number: u32) -> Aid {
    Aid::new(number).unwrap()
}

fn file_no(number: u8) -> FileNo {
    FileNo::new(number).unwrap()
}

fn issued(layout: &Layout) -> VirtualReader {
    let keys = keys();
    let mut reader = issue::reader();
    let issuer = Issuer::new(layout, &keys).unwrap().irreversible();
    issuer.apply(&mut reader, &mut SysRng).unwrap();
    reader.card_mut().activate();
    reader
}

/// The plan for a card, which plan, verify and a refused apply must leave as it was.
fn plan_untouched(reader: &mut VirtualReader, layout: &Layout) -> Plan {
    let keys = keys();
    let issuer = Issuer::new(layout, &keys).unwrap().irreversible();
    let (before, effects) = (reader.card().save(), reader.card().effects());
    let plan = issuer.plan(reader, &mut SysRng).unwrap();
    let verdict = issuer.verify(reader, &mut SysRng).unwrap();
    assert_eq!(verdict.plan.problems, plan.problems);
    if !plan.is_possible() {
        assert!(!verdict.is_ok());
        let error = issuer.apply(reader, &mut SysRng).unwrap_err();
        let ProvisionError::NotPossible(refused) = &error else {
            panic!("{error}");
        };
        assert_eq!(refused.problems, plan.problems);
    }
    assert_eq!(reader.card().save(), before, "the card is another one");
    assert_eq!(reader.card().effects(), effects, "something was written");
    plan
}

fn kinds(plan: &Plan) -> Vec<ProblemKind> {
    plan.problems.iter().map(|problem| problem.kind).collect()
}

#[track_caller]
fn says(plan: &Plan, kind: ProblemKind, words: &str) {
    println!("{plan}");
    assert!(!plan.is_possible());
    let found = plan.problems.iter();
    let mut found = found
        .filter(|problem| problem.kind == kind)
        .map(ToString::to_string);
    assert!(
        found.any(|problem| problem.contains(words)),
        "no {kind:?} with '{words}' in\n{plan}"
    );
}

#[test]
fn a_delivered_card_has_everything_to_do_and_a_finished_one_nothing() {
    let mut reader = issue::reader();
    let plan = plan_untouched(&mut reader, &layout(OLD));
    println!("{plan}");
    assert!(plan.is_possible() && plan.steps.len() > 50);
    assert_eq!(plan.uid, Some(issue::UID));
    let mut reader = issued(&layout(OLD));
    let plan = plan_untouched(&mut reader, &layout(OLD));
    println!("{plan}");
    assert!(plan.is_done());
    // The UID was found although the card hides it.
    assert_eq!(plan.uid, Some(issue::UID));
}

#[test]
fn wrong_keys_are_told() {
    // Nobody's PICC master key.
    let mut reader = issue::reader();
    reader
        .card_mut()
        .state_mut()
        .set_picc_key(CardKey::aes([0x99; 16], OLD));
    let plan = plan_untouched(&mut reader, &layout(OLD));
    says(
        &plan,
        ProblemKind::WrongKey,
        "PICC: the key on the card has version 1",
    );

    // One key of one application, with the right version.
    let mut reader = issued(&layout(OLD));
    let state = reader.card_mut().state_mut();
    let foreign = state.application(aid(AIDS[2])).unwrap().clone();
    let foreign = foreign.with_key(KeyNo::new(1).unwrap(), CardKey::aes([0x99; 16], OLD));
    state.put_application(foreign).unwrap();
    let plan = plan_untouched(&mut reader, &layout(OLD));
    assert_eq!(kinds(&plan), [ProblemKind::WrongKey]);
    says(
        &plan,
        ProblemKind::WrongKey,
        "application F51A30 (library), key 1",
    );
}

/// A key that is to be 3K3DES has the version that a delivered card's DES key has, so that both are tried;
/// the card's challenge is then of another size.
#[test]
fn a_key_of_another_type_but_the_same_version_is_not_the_one() {
    let text = r#"name = "three"
card = "4K"
[picc]
key = { name = "three", version = 0, diversified = false }
[[application]]
name = "three"
aid = "ABCDEF"
key_type = "3K3DES"
keys = [{ name = "three", version = 0, diversified = false }]
"#;
    let layout = Layout::from_toml(text).unwrap();
    let key = Key::three_key_3des(core::array::from_fn(|i| 2 * i as u8));
    assert_eq!(key.version(), 0);
    let keys = MemoryKeys::new().with("three", 0, key);
    let issuer = Issuer::new(&layout, &keys).unwrap();
    let mut reader = issue::reader();
    let plan = issuer.plan(&mut reader, &mut SysRng).unwrap();
    assert!(plan.is_possible(), "{plan}");
    issuer.apply(&mut reader, &mut SysRng).unwrap();
    reader.card_mut().activate();
    assert!(issuer.verify(&mut reader, &mut SysRng).unwrap().is_ok());
}

#[test]
fn foreign_applications_are_left_alone_unless_they_are_in_the_way() {
    let mut reader = VirtualReader::demo();
    let plan = plan_untouched(&mut reader, &layout(OLD));
    assert!(plan.is_possible());
    assert!(
        plan.to_string()
            .contains("application 00DE16 is not in the layout")
    );

    let info = KeyInfo::new(KeyFamily::Aes, 1).unwrap();
    let other = Application::new(aid(7), KeySettings::DEFAULT, info)
        .with_iso_names(IsoFileId(0xDF01), None);
    reader
        .card_mut()
        .state_mut()
        .put_application(other)
        .unwrap();
    let plan = plan_untouched(&mut reader, &layout(OLD));
    says(&plan, ProblemKind::NameTaken, "application 000007");
    // Also if the card tells its applications to its master key only.
    let master_only = KeySettings {
        flags: KeyFlags::MASTER_KEY_CHANGEABLE | KeyFlags::SETTINGS_CHANGEABLE,
        ..KeySettings::DEFAULT
    };
    let state = reader.card_mut().state_mut();
    state.set_picc_settings(master_only);
    let plan = plan_untouched(&mut reader, &layout(OLD));
    says(&plan, ProblemKind::NameTaken, "application 000007");
}

#[test]
fn full_and_half_full_cards_are_told() {
    let keys_of = |number: u32| {
        KeyInfo::new(KeyFamily::Aes, 1)
            .map(|info| (number, info))
            .unwrap()
    };
    let mut reader = issue::reader();
    for number in 1..=26 {
        let (number, info) = keys_of(number);
        let small = Application::new(aid(number), KeySettings::DEFAULT, info);
        reader
            .card_mut()
            .state_mut()
            .put_application(small)
            .unwrap();
    }
    let plan = plan_untouched(&mut reader, &layout(OLD));
    says(&plan, ProblemKind::TooManyApplications, "26 of 28");

    let card = Card::builder()
        .uid(issue::UID)
        .storage(StorageSize::Ev1_4K)
        .build();
    let mut reader = VirtualReader::new(card);
    let rights = AccessRights::from_bytes([0, 0]);
    let large = FileContent::Standard(vec![0; 3000]);
    let large = File::new(file_no(0), CommMode::Plain, rights, large);
    let (number, info) = keys_of(5);
    let hoarder = Application::new(aid(number), KeySettings::DEFAULT, info).with_file(large);
    reader
        .card_mut()
        .state_mut()
        .put_application(hoarder)
        .unwrap();
    let plan = plan_untouched(&mut reader, &layout(OLD));
    says(&plan, ProblemKind::NoMemory, "are free");
}

#[test]
fn what_cannot_be_changed_is_told() {
    // A file of another size, where the layout's should be.
    let mut reader = issued(&layout(OLD));
    let mut other = layout(OLD);
    let FileKind::Standard { size, .. } = &mut other.applications[0].files[0].kind else {
        panic!()
    };
    *size = 300;
    let plan = plan_untouched(&mut reader, &other);
    assert_eq!(kinds(&plan), [ProblemKind::Differs]);
    says(
        &plan,
        ProblemKind::Differs,
        "application F51A10 (canteen), file 0",
    );

    // Rights that nobody can change any more.
    let mut other = layout(OLD);
    other.applications[1].files[0].rights.read = Access::Free;
    let plan = plan_untouched(&mut reader, &other);
    says(&plan, ProblemKind::Frozen, "file 0, rights");

    // Frozen settings of an application and of the card.
    let mut other = layout(OLD);
    other.applications[0].settings = KeySettings::DEFAULT;
    other.picc.settings = KeySettings::DEFAULT;
    let plan = plan_untouched(&mut reader, &other);
    says(
        &plan,
        ProblemKind::Frozen,
        "application F51A10 (canteen), key settings",
    );
    says(&plan, ProblemKind::Frozen, "PICC, key settings");

    // Another number of keys.
    let mut other = layout(OLD);
    let spare = KeyRef::diversified("app 0 key 3", OLD).into();
    other.applications[0].keys.push(spare);
    let plan = plan_untouched(&mut reader, &other);
    says(&plan, ProblemKind::Differs, "there is no such key");

    // A random ID that was not asked for.
    let mut other = layout(OLD);
    other.picc.random_id = false;
    let plan = plan_untouched(&mut reader, &other);
    says(&plan, ProblemKind::Differs, "random ID");
}

#[test]
fn cards_that_are_no_ev1_are_told() {
    let old = ModuleVersion {
        vendor: 4,
        module_type: 1,
        subtype: 1,
        major: 0,
        minor: 1,
        storage: 0x18,
        protocol: 5,
    };
    let card = Card::builder().uid(issue::UID).modules(old, old).build();
    let plan = plan_untouched(&mut VirtualReader::new(card), &layout(OLD));
    says(&plan, ProblemKind::NotEv1, "first generation");
    let other = ModuleVersion {
        module_type: 4,
        major: 0x30,
        ..old
    };
    let card = Card::builder()
        .uid(issue::UID)
        .modules(other, other)
        .build();
    let plan = plan_untouched(&mut VirtualReader::new(card), &layout(OLD));
    says(&plan, ProblemKind::NotEv1, "no DESFire");
}

/// A card of the first generation: it does not know what came later.
struct FirstGeneration(VirtualReader);

impl Link for FirstGeneration {
    type Error = <VirtualReader as Link>::Error;
    fn format(&self) -> LinkFormat {
        LinkFormat::NATIVE
    }
}

impl Transport for FirstGeneration {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        // Authenticate ISO and AES, GetDFNames, FreeMem, GetCardUID, SetConfiguration, GetISOFileIDs.
        if matches!(
            command,
            [0x1A | 0xAA | 0x6D | 0x6E | 0x51 | 0x5C | 0x61, ..]
        ) {
            reply[0] = 0x1C;
            return Ok(1);
        }
        let answer = self.0.card_mut().handle(command);
        reply[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }
}

/// It is told what it is, and nothing that it would refuse is asked.
#[test]
fn a_card_that_knows_fewer_commands_is_told() {
    let old = ModuleVersion {
        vendor: 4,
        module_type: 1,
        subtype: 1,
        major: 0,
        minor: 1,
        storage: 0x18,
        protocol: 5,
    };
    let card = Card::builder().uid(issue::UID).modules(old, old).build();
    let mut reader = FirstGeneration(VirtualReader::new(card));
    let (keys, layout) = (keys(), layout(OLD));
    for issuer in [
        Issuer::new(&layout, &keys).unwrap(),
        Issuer::new(&layout, &keys).unwrap().rollover(),
    ] {
        let plan = issuer.plan(&mut reader, &mut SysRng).unwrap();
        assert_eq!(kinds(&plan), [ProblemKind::NotEv1]);
        assert_eq!(plan.uid, Some(issue::UID));
        let error = issuer.apply(&mut reader, &mut SysRng).unwrap_err();
        assert!(matches!(error, ProvisionError::NotPossible(_)), "{error}");
    }
}

/// The card hides its UID, and all keys of the layout are made from it; but it has its key of delivery.
#[test]
fn a_hidden_uid_is_told_under_the_key_of_delivery() {
    let mut reader = issue::reader();
    reader.card_mut().state_mut().set_random_id(true);
    let mut whole = layout(OLD);
    whole.applications.truncate(2);
    whole.picc.random_id = false;
    let plan = plan_untouched(&mut reader, &whole);
    assert_eq!(plan.uid, Some(issue::UID));
    assert_eq!(kinds(&plan), [ProblemKind::Differs], "{plan}");
}

/// All keys of the layout made from the UID, which the card hides.
#[test]
fn a_hidden_uid_is_found_or_must_be_stated() {
    let mut reader = issued(&layout(OLD));
    let mut other = layout(OLD);
    other.picc.random_id = false;
    other.applications[2].keys[3].key.diversified = true;
    let keys = keys();
    let issuer = Issuer::new(&other, &keys).unwrap();
    let plan = issuer.plan(&mut reader, &mut SysRng).unwrap();
    says(&plan, ProblemKind::Uid, "state the UID");
    let plan = issuer
        .uid(issue::UID)
        .plan(&mut reader, &mut SysRng)
        .unwrap();
    assert_eq!(plan.uid, Some(issue::UID));
    assert!(!kinds(&plan).contains(&ProblemKind::Uid));
    // Stating another than the card's.
    let mut reader = issue::reader();
    let issuer = Issuer::new(&other, &keys)
        .unwrap()
        .uid(Uid([4, 1, 2, 3, 4, 5, 6]));
    let plan = issuer.plan(&mut reader, &mut SysRng).unwrap();
    says(&plan, ProblemKind::Uid, "another UID");
}

#[test]
fn what_can_never_be_undone_is_held_back() {
    let keys = keys();
    let layout = layout(OLD);
    let mut reader = issue::reader();
    let report = Issuer::new(&layout, &keys)
        .unwrap()
        .apply(&mut reader, &mut SysRng)
        .unwrap();
    assert_eq!(report.held_back.len(), 5, "{:?}", report.held_back);
    assert!(
        !report
            .steps
            .iter()
            .any(desfire_ev1::provision::Step::is_irreversible)
    );
    let state = reader.card().state();
    assert!(!state.random_id() && !state.format_disabled());
    let all_changeable = |settings: KeySettings| {
        settings
            .flags
            .contains(KeyFlags::MASTER_KEY_CHANGEABLE | KeyFlags::SETTINGS_CHANGEABLE)
    };
    assert!(all_changeable(state.picc_settings()));
    assert!(
        state
            .applications()
            .iter()
            .all(|app| all_changeable(app.settings()))
    );
    // What was held back stays listed, also what the card does not tell.
    let again = Issuer::new(&layout, &keys).unwrap();
    let again = again.apply(&mut reader, &mut SysRng).unwrap();
    assert_eq!(again.steps, []);
    let sorted = |mut held: Vec<String>| {
        held.sort();
        held
    };
    assert_eq!(sorted(again.held_back), sorted(report.held_back));
    // On demand it is done, and nothing else.
    let issuer = Issuer::new(&layout, &keys).unwrap().irreversible();
    let report = issuer.apply(&mut reader, &mut SysRng).unwrap();
    assert!(
        report
            .steps
            .iter()
            .all(desfire_ev1::provision::Step::is_irreversible)
    );
    let state = reader.card().state();
    assert!(state.random_id() && state.format_disabled());
    // FormatPICC each time: who knows whether it was.
    let report = issuer.apply(&mut reader, &mut SysRng).unwrap();
    assert_eq!(report.steps.len(), 1);
    assert!(report.steps[0].is_repeated());
    let verdict = issuer.verify(&mut reader, &mut SysRng).unwrap();
    assert!(verdict.is_ok(), "{verdict}");
}

#[test]
fn rollover_touches_keys_only() {
    let mut reader = issued(&layout(OLD));
    let keys = keys();
    let before = reader.card().state().clone();
    let new = layout(NEW);
    let issuer = Issuer::new(&new, &keys).unwrap().rollover();
    println!("{}", issuer.plan(&mut reader, &mut SysRng).unwrap());
    issuer.apply(&mut reader, &mut SysRng).unwrap();
    let after = reader.card().state();
    assert_ne!(before.picc_key(), after.picc_key());
    assert_eq!(before.free_memory(), after.free_memory());
    for (before, after) in before.applications().iter().zip(after.applications()) {
        assert_eq!(before.files(), after.files());
        assert_eq!(before.settings(), after.settings());
        for (before, after) in before.keys().iter().zip(after.keys()) {
            assert_ne!(before, after);
            assert_eq!(after.version(), NEW);
        }
    }
    let whole = Issuer::new(&new, &keys).unwrap().irreversible();
    assert!(whole.verify(&mut reader, &mut SysRng).unwrap().is_ok());
    // The old generation is not on the card any more.
    let old = layout(OLD);
    let plan = plan_untouched(&mut reader, &old);
    says(&plan, ProblemKind::WrongKey, "version 2");
}

#[test]
fn contents_are_compared_on_demand() {
    let mut reader = issued(&layout(OLD));
    let (keys, layout) = (keys(), layout(OLD));
    let issuer = Issuer::new(&layout, &keys)
        .unwrap()
        .irreversible()
        .contents();
    let verdict = issuer.verify(&mut reader, &mut SysRng).unwrap();
    assert!(verdict.is_ok(), "{verdict}");
    let mut other = layout.clone();
    for file in &mut other.applications[1].files {
        match &mut file.kind {
            FileKind::Standard { content, .. } | FileKind::Backup { content, .. } => {
                if let Some(byte) = content.last_mut() {
                    *byte ^= 1;
                }
            }
            FileKind::Value { value, .. } => *value += 1,
            FileKind::Linear(records) => records.records.swap(0, 1),
            FileKind::Cyclic(records) => drop(records.records.pop()),
        }
    }
    let issuer = Issuer::new(&other, &keys)
        .unwrap()
        .irreversible()
        .contents();
    let verdict = issuer.verify(&mut reader, &mut SysRng).unwrap();
    assert!(!verdict.is_ok());
    assert_eq!(verdict.contents.len(), 5, "{verdict}");
}

/// A layout that has grown: a file and an application more, and rights that may be changed.
#[test]
fn a_layout_may_grow() {
    let keys = keys();
    let whole = layout(OLD);
    let mut small = whole.clone();
    small.applications.truncate(2);
    small.picc.random_id = false;
    small.applications[1].files.truncate(3);
    small.applications[1].files[1].rights.read = Access::Free;
    let mut reader = issue::reader();
    let issuer = Issuer::new(&small, &keys).unwrap();
    issuer.apply(&mut reader, &mut SysRng).unwrap();
    let issuer = Issuer::new(&whole, &keys)
        .unwrap()
        .irreversible()
        .contents();
    issuer.apply(&mut reader, &mut SysRng).unwrap();
    let verdict = issuer.verify(&mut reader, &mut SysRng).unwrap();
    assert!(verdict.is_ok(), "{verdict}");
}

/// Issues the card as somebody would who knows that it is fresh, looks at nothing and checks nothing.
struct Blind<'a> {
    reader: &'a mut VirtualReader,
}

impl Blind<'_> {
    fn be(
        &mut self,
        session: Session<Unauthenticated>,
        key_no: KeyNo,
        key: &Key,
    ) -> Session<Authenticated> {
        let aes = key.key_type() == desfire_ev1::wire::KeyType::Aes;
        if aes {
            session
                .authenticate_aes(key_no, key, &mut SysRng)
                .run(self.reader)
                .unwrap()
        } else {
            session
                .authenticate_iso(key_no, key, &mut SysRng)
                .run(self.reader)
                .unwrap()
        }
    }

    fn card_key(&self, layout: &Layout, keys: &MemoryKeys, app: Aid, name: &KeyRef) -> Key {
        use desfire_ev1::provision::KeyStore as _;
        let key = keys.key(&name.name, name.version).unwrap();
        let key = if name.diversified {
            let [low, middle, high] = app.to_bytes();
            let mut input = issue::UID.0.to_vec();
            input.extend([high, middle, low]);
            input.extend(&layout.system_id);
            key.diversify(&input).unwrap()
        } else {
            key
        };
        if key.version() == name.version {
            key
        } else {
            key.with_version(name.version)
        }
    }

    fn issue(&mut self, layout: &Layout, keys: &MemoryKeys) {
        let zero = Key::zero(KeyFamily::Des);
        let mut session = self.be(Session::new(), KeyNo::MASTER, &zero);
        let default = layout.picc.default_key.as_ref().unwrap();
        let default = self.card_key(layout, keys, Aid::PICC, default);
        session.set_default_key(&default).run(self.reader).unwrap();
        for app in &layout.applications {
            let mut info = KeyInfo::new(app.family, app.keys.len() as u8).unwrap();
            if app.has_iso_files() {
                info = info.with_iso_file_ids();
            }
            let iso = app.iso_file_id.map(|file_id| IsoName {
                file_id,
                df_name: app.df_name,
            });
            let mut settings = app.settings;
            settings.flags |= KeyFlags::MASTER_KEY_CHANGEABLE | KeyFlags::SETTINGS_CHANGEABLE;
            settings.change_key = desfire_ev1::wire::ChangeKeyAccess::MasterKey;
            let create = session.create_application(app.aid, settings, info, iso);
            create.run(self.reader).unwrap();
        }
        let mut session = session
            .select_application(aid(AIDS[0]))
            .run(self.reader)
            .unwrap();
        for (index, app) in layout.applications.iter().enumerate() {
            if index > 0 {
                session = session
                    .select_application(app.aid)
                    .run(self.reader)
                    .unwrap();
            }
            session = self.application(session, layout, keys, app, &default);
        }
        let session = session
            .select_application(Aid::PICC)
            .run(self.reader)
            .unwrap();
        let mut session = self.be(session, KeyNo::MASTER, &zero);
        session
            .set_ats(layout.picc.ats.as_ref().unwrap())
            .run(self.reader)
            .unwrap();
        session.disable_format_for_ever().run(self.reader).unwrap();
        let master = self.card_key(layout, keys, Aid::PICC, &layout.picc.key.key);
        let session = session
            .change_picc_master_key_and_type(&master)
            .run(self.reader)
            .unwrap();
        let mut session = self.be(session, KeyNo::MASTER, &master);
        session
            .freeze_key_settings_for_ever(layout.picc.settings)
            .run(self.reader)
            .unwrap();
        session
            .enable_random_id_for_ever()
            .run(self.reader)
            .unwrap();
    }

    fn application(
        &mut self,
        session: Session<Unauthenticated>,
        layout: &Layout,
        keys: &MemoryKeys,
        app: &ApplicationLayout,
        default: &Key,
    ) -> Session<Unauthenticated> {
        let initial = default.in_new_application(app.family).unwrap();
        let mut session = self.be(session, KeyNo::MASTER, &initial);
        let u24 = |number| desfire_ev1::wire::U24::new(number).unwrap();
        let mut rounds = 0;
        for file in &app.files {
            let (no, iso, mode) = (file.number, file.iso_file_id, file.mode);
            let rights = if file.has_content() {
                FILLING
            } else {
                file.rights
            };
            let reader = &mut *self.reader;
            match &file.kind {
                FileKind::Standard { size, .. } => session
                    .create_std_data_file(no, iso, mode, rights, u24(*size))
                    .run(reader),
                FileKind::Backup { size, .. } => session
                    .create_backup_data_file(no, iso, mode, rights, u24(*size))
                    .run(reader),
                FileKind::Value {
                    lower,
                    upper,
                    value,
                    flags,
                } => session
                    .create_value_file(no, mode, rights, *lower..=*upper, *value, *flags)
                    .run(reader),
                FileKind::Linear(r) => session
                    .create_linear_record_file(
                        no,
                        iso,
                        mode,
                        rights,
                        u24(r.record_size),
                        u24(r.max_records),
                    )
                    .run(reader),
                FileKind::Cyclic(r) => session
                    .create_cyclic_record_file(
                        no,
                        iso,
                        mode,
                        rights,
                        u24(r.record_size),
                        u24(r.max_records),
                    )
                    .run(reader),
            }
            .unwrap();
            if let FileKind::Linear(r) | FileKind::Cyclic(r) = &file.kind {
                rounds = rounds.max(r.records.len());
            }
            let filling = FileSettings {
                comm: mode.into(),
                rights,
                detail: desfire_ev1::wire::FileDetail::StandardData { size: u24(1) },
            };
            session.assume_file_settings(no, &filling);
        }
        // All that can go into one transaction does.
        for round in 0..rounds.max(1) {
            for file in &app.files {
                let reader = &mut *self.reader;
                match &file.kind {
                    FileKind::Standard { content, .. } | FileKind::Backup { content, .. }
                        if round == 0 && !content.is_empty() =>
                    {
                        session
                            .write_data(file.number, 0, content)
                            .run(reader)
                            .unwrap();
                    }
                    FileKind::Linear(r) | FileKind::Cyclic(r) => {
                        if let Some(record) = r.records.get(round) {
                            session
                                .write_record(file.number, 0, record)
                                .run(reader)
                                .unwrap();
                        }
                    }
                    _ => {}
                }
            }
            session.commit_transaction().run(self.reader).unwrap();
        }
        for file in app.files.iter().filter(|file| file.has_content()) {
            let change = session.change_file_settings(file.number, file.mode, file.rights);
            change.run(self.reader).unwrap();
        }
        let of = |number: usize| self.card_key(layout, keys, app.aid, &app.keys[number].key);
        let all: Vec<Key> = (0..app.keys.len()).map(of).collect();
        for (number, new) in all.iter().enumerate().skip(1) {
            let key_no = KeyNo::new(number as u8).unwrap();
            session
                .change_key(key_no, &initial, new)
                .run(self.reader)
                .unwrap();
        }
        let open = session.change_key_in_use(&all[0]).run(self.reader).unwrap();
        let mut session = self.be(open, KeyNo::MASTER, &all[0]);
        session
            .freeze_key_settings_for_ever(app.settings)
            .run(self.reader)
            .unwrap();
        Session::at_level(session.selected().unwrap())
    }
}

#[test]
fn what_issuing_costs() {
    let (keys, layout) = (keys(), layout(OLD));
    let mut reader = issue::reader();
    Blind {
        reader: &mut reader,
    }
    .issue(&layout, &keys);
    let minimum = reader.card().commands();
    let blind = reader.card().state().clone();

    let mut reader = issue::reader();
    let issuer = Issuer::new(&layout, &keys).unwrap().irreversible();
    let report = issuer.apply(&mut reader, &mut SysRng).unwrap();
    assert_eq!(*reader.card().state(), blind, "the same card");
    let (used, looking) = (u64::from(report.exchanges), u64::from(report.looking));
    assert_eq!(used, reader.card().commands());
    println!(
        "issuing: {used} exchanges, of which {looking} to look at the card; the minimum for this layout, without looking or checking anything, is {minimum}"
    );
    // What is asked back: settings of 18 files and 4 levels, contents of 12 files (one of them in four
    // frames), versions of 9 keys; and each file has commits of its own. More would be waste.
    assert!(used * 3 <= minimum * 5, "{used} > 5/3 of {minimum}");

    // Looking at a fresh card: select, GetVersion 3, GetDFNames, key version, GetCardUID, FreeMem, key
    // settings, AIDs; a handshake of 2 frames for each key of version 00 that it may have: transport,
    // zero.
    assert_eq!(looking, 10 + 2 * 2);
    // And at a finished one: the UID by the shared key of the last application; then for each
    // application selection, versions and proofs of all keys, key settings, the file list, the
    // settings of each file, and ISO FIDs where there are some.
    reader.card_mut().activate();
    let plan = issuer.plan(&mut reader, &mut SysRng).unwrap();
    let applications: u32 = layout
        .applications
        .iter()
        .map(|app| {
            let (keys, files) = (app.keys.len() as u32, app.files.len() as u32);
            1 + 3 * keys + 1 + 1 + files + u32::from(app.has_iso_files())
        })
        .sum();
    // Selection of the only application that has a key which all cards share, GetKeyVersion and
    // handshake, GetCardUID; back to the PICC level.
    let hidden = 1 + 1 + 2 + 1 + 1;
    println!(
        "planning: {looking} exchanges for a fresh card, {} for a finished one that hides its UID",
        plan.exchanges
    );
    assert_eq!(plan.exchanges, hidden + 4 + 1 + 1 + 2 + 3 + applications);
}

/// A transport that is a wire to somewhere else.
struct Wire {
    to_card: mpsc::Sender<Vec<u8>>,
    from_card: mpsc::Receiver<Vec<u8>>,
}

#[derive(Debug, thiserror::Error)]
#[error("the wire is cut")]
struct Cut;

impl Link for Wire {
    type Error = Cut;
    fn format(&self) -> LinkFormat {
        LinkFormat::WRAPPED
    }
}

impl Transport for Wire {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Cut> {
        self.to_card.send(command.to_vec()).map_err(|_| Cut)?;
        let answer = self.from_card.recv().map_err(|_| Cut)?;
        reply[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }
}

/// The holder of the keys runs it all; the terminal moves bytes, among which no key ever is.
#[test]
fn new_keys_never_reach_the_terminal() {
    // Without diversification the bytes to look for are known.
    let mut layout = layout(OLD);
    layout.picc.key.key.diversified = false;
    for slot in layout.applications.iter_mut().flat_map(|app| &mut app.keys) {
        slot.key.diversified = false;
    }
    let (to_card, commands) = mpsc::channel();
    let (answers, from_card) = mpsc::channel();
    let holder = std::thread::spawn(move || {
        let keys = keys();
        let mut wire = Wire { to_card, from_card };
        let issuer = Issuer::new(&layout, &keys).unwrap();
        issuer.apply(&mut wire, &mut SysRng).unwrap().steps.len()
    });
    // The terminal: a card, and no key.
    let mut card = issue::reader().into_card();
    let mut seen = Vec::new();
    while let Ok(command) = commands.recv() {
        let answer = card.handle(&command);
        seen.extend([&command[..], &answer].concat());
        answers.send(answer).unwrap();
    }
    assert!(holder.join().unwrap() > 50);
    let stored = card.save();
    let mut on_card = 0;
    for (name, secret) in issue::secrets() {
        // A key of another version has other low bits; the middle of a word does for AES.
        let hit = |bytes: &[u8]| {
            bytes
                .windows(secret.len())
                .any(|window| window.iter().zip(&secret).all(|(a, b)| (a ^ b) & !1 == 0))
        };
        on_card += usize::from(hit(&stored));
        assert!(!hit(&seen), "{name} was on the wire");
    }
    // The look can find something: all of one generation are on the card.
    assert_eq!(on_card, 13);
}

#[test]
fn both_drivers_send_the_same_commands() {
    fn sendable<F: Future + Send>(future: F) -> F {
        future
    }
    let (keys, layout) = (keys(), layout(OLD));
    let issuer = Issuer::new(&layout, &keys).unwrap().irreversible();
    let codes = |asynchronous: bool| {
        let mut codes = Vec::new();
        let mut reader = desfire_ev1::Traced::new(issue::reader(), |command: &[u8], _: &[u8]| {
            codes.push((command[1], command.len()));
        });
        let mut rng = SysRng;
        if asynchronous {
            let future = sendable(issuer.apply_async(&mut reader, &mut rng, |_| {}));
            pollster::block_on(future).unwrap();
        } else {
            issuer.apply(&mut reader, &mut rng).unwrap();
        }
        let state = reader.get_mut().card().state().clone();
        (codes, state)
    };
    let blocking = codes(false);
    assert!(
        blocking
            .0
            .iter()
            .any(|(code, _)| *code == CommandCode::ChangeKey.to_byte())
    );
    assert!(blocking == codes(true));
}

/// A default key that somebody has set, and nobody can ask for, does not get into new applications.
#[test]
fn a_default_key_that_nobody_told_is_replaced() {
    let mut layout = layout(OLD);
    layout.picc.default_key = None;
    let keys = keys();
    let mut reader = issue::reader();
    let session = Session::new()
        .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut SysRng)
        .run(&mut reader);
    let mut session = session.unwrap();
    let foreign = Key::aes([0x77; 16]);
    session.set_default_key(&foreign).run(&mut reader).unwrap();
    let issuer = Issuer::new(&layout, &keys).unwrap();
    issuer.apply(&mut reader, &mut SysRng).unwrap();
    assert!(issuer.verify(&mut reader, &mut SysRng).unwrap().is_ok());
}

/// What a plan is made from is proved to be the card's, once a key is in use.
#[test]
fn an_answer_that_was_tampered_with_ends_it_before_anything_is_done() {
    let (keys, layout) = (keys(), layout(OLD));
    // There is less memory than the layout needs, and somebody in between says otherwise.
    let card = Card::builder()
        .uid(issue::UID)
        .storage(StorageSize::Ev1_2K)
        .build();
    let mut reader = desfire_ev1::Faulty::new(VirtualReader::new(card), {
        let mut asked = false;
        move |passing| match passing {
            desfire_ev1::Passing::Command { bytes, .. } => asked = bytes.get(1) == Some(&0x6E),
            desfire_ev1::Passing::Reply { bytes, .. } if asked => bytes[1] = 0x1F,
            desfire_ev1::Passing::Reply { .. } => {}
        }
    });
    let issuer = Issuer::new(&layout, &keys).unwrap();
    let error = issuer
        .apply(&mut reader, &mut SysRng)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("FreeMem") && error.contains("not authentic"),
        "{error}"
    );
    let card = reader.get_mut().card().state();
    assert!(card.applications().is_empty());
}

/// Somebody on the link: the answer to one command is a refusal of theirs.
struct Refuses {
    reader: VirtualReader,
    code: u8,
    status: u8,
    /// Which of the commands with this code, counted down.
    nth: usize,
    done: bool,
}

impl Link for Refuses {
    type Error = <VirtualReader as Link>::Error;
    fn format(&self) -> LinkFormat {
        LinkFormat::NATIVE
    }
}

impl Transport for Refuses {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        let mut answer = self.reader.card_mut().handle(command);
        if command.first() == Some(&self.code) {
            if self.nth == 0 {
                answer = vec![self.status];
                self.done = true;
            }
            self.nth = self.nth.wrapping_sub(1);
        }
        reply[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }
}

/// Refusals carry no MAC. One that no genuine card gives the master key must not make anything look as if it
/// were not there: what is not seen would count as in order.
#[test]
fn a_refusal_that_the_master_key_never_gets_ends_it() {
    let keys = keys();
    let mut ended = 0;
    for (generation, rolling) in [(OLD, false), (NEW, true)] {
        let layout = layout(generation);
        let issuer = Issuer::new(&layout, &keys).unwrap();
        let issuer = if rolling {
            issuer.rollover()
        } else {
            issuer.irreversible()
        };
        let mut codes = vec![0x45, 0x6A];
        if !rolling {
            codes.extend([0x6F, 0xF5]);
        }
        for code in codes {
            for status in [0xAE, 0x9D] {
                for nth in 0.. {
                    let mut reader = Refuses {
                        reader: issued(&self::layout(OLD)),
                        code,
                        status,
                        nth,
                        done: false,
                    };
                    let result = if rolling {
                        issuer.apply(&mut reader, &mut SysRng).map(drop)
                    } else {
                        issuer.verify(&mut reader, &mut SysRng).map(drop)
                    };
                    if !reader.done {
                        assert!(result.is_ok() && nth > 0, "{code:02X}");
                        break;
                    }
                    assert!(result.is_err(), "{code:02X}, the {nth}th as {status:02X}");
                    ended += 1;
                }
            }
        }
    }
    assert!(ended > 40, "{ended}");
}

/// Somebody on the link who has a card of delivery of their own, and hides its UID: until they have told that
/// UID they answer with theirs.
struct TellsAnotherUid {
    own: VirtualReader,
    genuine: VirtualReader,
    told: bool,
}

impl Link for TellsAnotherUid {
    type Error = <VirtualReader as Link>::Error;
    fn format(&self) -> LinkFormat {
        LinkFormat::NATIVE
    }
}

impl Transport for TellsAnotherUid {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Self::Error> {
        let card = if self.told {
            &mut self.genuine
        } else {
            &mut self.own
        };
        let answer = card.card_mut().handle(command);
        self.told |= command == [0x51];
        reply[..answer.len()].copy_from_slice(&answer);
        Ok(answer.len())
    }
}

/// A UID that was told under a key that is no secret is not the card's before a key that is one has told it.
#[test]
fn a_uid_told_under_the_key_of_delivery_is_asked_again() {
    let mut layout = layout(OLD);
    layout.picc.random_id = true;
    let keys = keys();
    // A secret transport key, the same on all cards.
    let secret = KeyStore::key(&keys, "transport", 0)
        .unwrap()
        .with_version(0);
    let mut genuine = issue::reader();
    let session = Session::new()
        .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut SysRng)
        .run(&mut genuine)
        .unwrap();
    session
        .change_key_in_use(&secret)
        .run(&mut genuine)
        .unwrap();
    genuine.card_mut().activate();

    let mut own = VirtualReader::new(Card::builder().uid(Uid([0x04, 9, 9, 9, 9, 9, 9])).build());
    let mut session = Session::new()
        .authenticate_iso(KeyNo::MASTER, &Key::zero(KeyFamily::Des), &mut SysRng)
        .run(&mut own)
        .unwrap();
    session.enable_random_id_for_ever().run(&mut own).unwrap();
    own.card_mut().activate();

    let before = genuine.card().save();
    let mut reader = TellsAnotherUid {
        own,
        genuine,
        told: false,
    };
    let issuer = Issuer::new(&layout, &keys).unwrap().irreversible();
    let plan = issuer.plan(&mut reader, &mut SysRng).unwrap();
    assert!(reader.told);
    says(&plan, ProblemKind::Uid, "another UID");
    assert_eq!(reader.genuine.card().save(), before);
}

/// Brings a layout about with the power cut after an effect: the first one at which the card is as
/// asked for.
fn torn_when(layout: &Layout, wanted: impl Fn(&Application) -> bool) -> VirtualReader {
    let keys = keys();
    let issuer = Issuer::new(layout, &keys).unwrap();
    for effect in 1..200 {
        let mut reader = issue::reader();
        let cut = Fault::CutAfter(reader.card().effects() + effect);
        reader.card_mut().arrange_fault(cut);
        issuer.apply(&mut reader, &mut SysRng).unwrap_err();
        reader.card_mut().clear_faults();
        reader.card_mut().activate();
        let app = reader.card().state().application(aid(AIDS[0]));
        if app.is_some_and(&wanted) {
            return reader;
        }
    }
    panic!("never so");
}

fn rights_of(app: &Application, number: u8) -> Option<AccessRights> {
    app.file(file_no(number)).map(|file| file.settings().rights)
}

/// A card that somebody has prepared who needed no key for it: all is as it would be after a tear,
/// but not what is in the files.
#[test]
fn what_a_stranger_has_put_into_an_application_is_told() {
    let whole = layout(OLD);
    let prepared = |change: &dyn Fn(&mut ApplicationLayout), last: u8| {
        let mut other = whole.clone();
        change(&mut other.applications[0]);
        let rights = other.applications[0].files.iter();
        let rights = rights
            .filter(|file| file.number == file_no(last))
            .map(|file| file.rights)
            .next();
        torn_when(&other, |app| rights_of(app, last) == rights)
    };
    // Undisturbed it goes on.
    let mut honest = prepared(&|_| {}, 5);
    assert!(plan_untouched(&mut honest, &whole).is_possible());
    type Case<'c> = (&'c dyn Fn(&mut ApplicationLayout), u8, &'c str);
    let cases: [Case<'_>; 6] = [
        (
            &|app| match &mut app.files[2].kind {
                FileKind::Value { value, .. } => *value = 10_000,
                _ => panic!(),
            },
            2,
            "file 2, content",
        ),
        (
            &|app| match &mut app.files[0].kind {
                FileKind::Standard { content, .. } => content[3] ^= 1,
                _ => panic!(),
            },
            0,
            "file 0, content",
        ),
        // Behind what the layout has content for.
        (
            &|app| match &mut app.files[0].kind {
                FileKind::Standard { content, .. } => content.resize(160, 0x55),
                _ => panic!(),
            },
            0,
            "file 0, content",
        ),
        // Where the layout has none.
        (
            &|app| match &mut app.files[5].kind {
                FileKind::Standard { content, .. } => content.push(0x55),
                _ => panic!(),
            },
            5,
            "file 5, content",
        ),
        (
            &|app| match &mut app.files[3].kind {
                FileKind::Linear(records) => records.records.swap(0, 1),
                _ => panic!(),
            },
            3,
            "file 3, content",
        ),
        (
            &|app| {
                let mut stranger = app.files[5].clone();
                stranger.number = file_no(9);
                app.files.insert(0, stranger);
            },
            9,
            "is not in the layout",
        ),
    ];
    for (change, last, words) in cases {
        let mut reader = prepared(change, last);
        let plan = plan_untouched(&mut reader, &whole);
        println!("{plan}");

        assert_eq!(kinds(&plan), [ProblemKind::Differs]);
        says(&plan, ProblemKind::Differs, words);
    }
}

/// Finishes a torn card, which must become what an undisturbed one is.
fn finish(mut reader: VirtualReader, layout: &Layout) {
    let keys = keys();
    let issuer = Issuer::new(layout, &keys).unwrap().irreversible();
    issuer.apply(&mut reader, &mut SysRng).unwrap();
    assert!(reader.card().state() == issued(layout).card().state());
}

#[test]
fn records_that_are_not_the_first_ones_are_cleared() {
    let whole = layout(OLD);
    let records = |count: usize| {
        move |app: &Application| match app.file(file_no(3)).map(File::content) {
            Some(FileContent::Linear(records)) => {
                rights_of(app, 3) == Some(FILLING) && records.count() == count as u32
            }
            _ => false,
        }
    };
    // The first is right, the first is another, there are too many.
    finish(torn_when(&whole, records(1)), &whole);
    let mut other = whole.clone();
    let FileKind::Linear(list) = &mut other.applications[0].files[3].kind else {
        panic!()
    };
    list.records.swap(0, 1);
    finish(torn_when(&other, records(1)), &whole);
    finish(torn_when(&other, records(2)), &whole);
    let FileKind::Linear(list) = &mut other.applications[0].files[3].kind else {
        panic!()
    };
    list.records.push(vec![7]);
    finish(torn_when(&other, records(3)), &whole);
}

#[test]
fn a_file_that_needs_no_content_any_more_gets_its_rights() {
    let whole = layout(OLD);
    let mut other = whole.clone();
    let FileKind::Standard { content, .. } = &mut other.applications[0].files[5].kind else {
        panic!()
    };
    content.push(0);
    let mut reader = torn_when(&other, |app| rights_of(app, 5) == Some(FILLING));
    let keys = keys();
    let issuer = Issuer::new(&whole, &keys).unwrap();
    let plan = issuer.plan(&mut reader, &mut SysRng).unwrap();
    let steps = plan.steps.iter().map(ToString::to_string);
    let steps: Vec<String> = steps
        .filter(|step| step.contains("F51A10 (canteen), file 5"))
        .collect();
    assert_eq!(steps.len(), 1, "{steps:?}");
    assert!(steps[0].contains("rights"), "{steps:?}");
    finish(reader, &whole);
}

/// What is frozen on the card already, and in the layout, is no reason to ask for it back.
#[test]
fn nothing_frozen_is_asked_back() {
    let mut whole = layout(OLD);
    whole.picc.settings.flags = KeyFlags::FREE_LISTING;
    let mut reader = issued(&layout(OLD));
    // The layout's key, which is frozen; settings that may still be changed.
    let settings = KeySettings {
        flags: KeyFlags::SETTINGS_CHANGEABLE | KeyFlags::FREE_LISTING,
        ..KeySettings::DEFAULT
    };
    reader.card_mut().state_mut().set_picc_settings(settings);
    let keys = keys();
    let issuer = Issuer::new(&whole, &keys).unwrap();
    let plan = issuer.plan(&mut reader, &mut SysRng).unwrap();
    println!("{plan}");
    assert!(plan.is_done(), "{plan}");
    issuer.apply(&mut reader, &mut SysRng).unwrap();
    assert_eq!(reader.card().state().picc_settings(), settings);
}

/// Nobody has looked at the files of an application that has its first keys, nor set what cannot be read
/// back on a card that has its first key: the layout's keys would say that all this is done.
#[test]
fn a_card_that_was_not_issued_to_its_end_is_not_rolled_over() {
    let (keys, new) = (keys(), layout(NEW));
    let refused = |reader: &mut VirtualReader, subject: &str| {
        let before = reader.card().save();
        let issuer = Issuer::new(&new, &keys).unwrap().rollover();
        let plan = issuer.plan(reader, &mut SysRng).unwrap();
        println!("{plan}");
        says(&plan, ProblemKind::NotIssued, subject);
        let error = issuer.apply(reader, &mut SysRng).unwrap_err();
        assert!(matches!(error, ProvisionError::NotPossible(_)), "{error}");
        assert_eq!(reader.card().save(), before);
    };
    refused(&mut issue::reader(), "PICC: ");
    let mut torn = torn_when(&layout(OLD), |app| rights_of(app, 3).is_some());
    refused(&mut torn, "application F51A10 (canteen): ");
    // Issued to its end it is.
    let old = layout(OLD);
    let issuer = Issuer::new(&old, &keys).unwrap();
    issuer.apply(&mut torn, &mut SysRng).unwrap();
    let issuer = Issuer::new(&new, &keys).unwrap().rollover();
    issuer.apply(&mut torn, &mut SysRng).unwrap();
}

/// Frozen settings that give the change of keys to a key which is not there.
#[test]
fn a_change_key_that_is_not_there_is_told_before_anything_is_done() {
    let mut reader = issued(&layout(OLD));
    let state = reader.card_mut().state_mut();
    let settings = KeySettings {
        flags: KeyFlags::MASTER_KEY_CHANGEABLE,
        change_key: ChangeKeyAccess::Key(KeyNo::new(9).unwrap()),
    };
    let app = state.application(aid(AIDS[2])).unwrap().clone();
    state.put_application(app.with_settings(settings)).unwrap();
    let mut new = layout(NEW);
    new.applications[2].settings = settings;
    // The layout itself cannot ask for that, so its other settings differ besides.
    new.applications[2].settings.change_key = ChangeKeyAccess::SameKey;
    let plan = plan_untouched(&mut reader, &new);
    says(
        &plan,
        ProblemKind::Frozen,
        "application F51A30 (library), key 1",
    );
    let keys = keys();
    let issuer = Issuer::new(&new, &keys).unwrap().rollover();
    let plan = issuer.plan(&mut reader, &mut SysRng).unwrap();
    says(
        &plan,
        ProblemKind::Frozen,
        "application F51A30 (library), key 1",
    );
}

/// An application that is in use and has no file with an ISO FID will never have one.
#[test]
fn iso_fids_that_an_application_cannot_have_are_told() {
    let mut without = layout(OLD);
    for file in &mut without.applications[1].files {
        file.iso_file_id = None;
    }
    without.applications[1].files.truncate(2);
    let mut reader = issued(&without);
    let plan = plan_untouched(&mut reader, &layout(OLD));
    says(&plan, ProblemKind::Differs, "was made without ISO FIDs");
}
