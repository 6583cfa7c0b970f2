//! Shows what is on a card, as far as it tells without a key, or with one. It writes nothing.
//!
//! `cargo run --example inspect`; `--help` tells the rest.

use std::process::ExitCode;

use desfire_ev1::wire::{
    Access, Aid, DfName, FileDetail, FileNo, FileSettings, IsoFileId, KeyFlags, KeyInfo, KeyNo,
    KeySettings, Status, Uid, Version,
};
use desfire_ev1::{Authenticated, Key, Machine as _, RunError, Session, Unauthenticated};

mod common;

use common::args::{self, Options};
use common::card::{self, Card, Failure};
use common::json::Json;
use common::tree::Tree;
use common::{Outcome, demo, print, words};

const HELP: &str = "\
Shows what is on a DESFire: what card it is, its applications, their keys and files, and
what everybody may read; with a key also what that key may see. It writes nothing.

Usage: cargo run --example inspect [-- OPTIONS]

Options:
  --key KEY           authenticate with this key and show more
  --aid HEX           the application that the key belongs to; without it, the card itself
                      (the PICC master key)
  --key-no N          the number of the key, 0 to 13; without it, 0
  --all               show all bytes of a file, not the first 64, and read up to the end of
                      it, not the first 256
  --json              print JSON, with all that was read; what the card refuses is
                      {\"refused\": \"why\"}
{common}

{keys}
  DESFIRE_KEY         in place of --key

Examples, in which inspect stands for cargo run --example inspect --
  inspect                                     a software card with four applications
  inspect --key des:zero                      with the PICC master key of a new card
  inspect --aid 00DE16 --key aes:zero         into the files of one of its applications
  inspect --aid F48120 --key aes:616E20616363657373206B65792E2E2E
                                              into one that hides everything
  inspect --json | jq '.applications[].aid'
";

/// How many bytes of a file are read unless all are asked for, and how many the tree shows.
const READ_LIMIT: u32 = 256;
/// All that a card of this family has room for. One that claims more is not one.
const ALL_LIMIT: u32 = 64 * 1024;
const SHOW_LIMIT: usize = 64;

/// An answer of the card, as far as there is one.
enum Found<T> {
    Unasked,
    Known(T),
    /// In words, why not.
    Refused(String),
}

impl<T> Found<T> {
    fn known(&self) -> Option<&T> {
        match self {
            Self::Known(value) => Some(value),
            Self::Unasked | Self::Refused(_) => None,
        }
    }

    /// The answer, or a line under `name` that says why there is none.
    fn or_line<'a>(&'a self, tree: &mut Tree, name: &str) -> Option<&'a T> {
        if let Self::Refused(why) = self {
            tree.line(format!("{name}: {why}"));
        }
        self.known()
    }

    fn json(&self, known: impl FnOnce(&T) -> Json) -> Json {
        match self {
            Self::Unasked => Json::Null,
            Self::Known(value) => known(value),
            Self::Refused(why) => Json::Object(vec![("refused", Json::text(why))]),
        }
    }
}

struct Report {
    version: Version,
    uid: Option<Uid>,
    free_memory: Found<u32>,
    picc: Level,
    /// Whether the card lists its applications.
    listing: Found<()>,
    applications: Vec<Application>,
    /// Applications that the card lists with an ISO name.
    names: Found<Vec<(Aid, IsoFileId, Option<DfName>)>>,
}

/// What the card itself and an application have in common.
struct Level {
    aid: Aid,
    settings: Found<(KeySettings, KeyInfo)>,
    versions: Vec<u8>,
    authenticated: Option<KeyNo>,
}

struct Application {
    level: Level,
    iso_files: Vec<IsoFileId>,
    files: Found<Vec<File>>,
}

struct File {
    number: FileNo,
    settings: Found<FileSettings>,
    content: Found<Content>,
}

enum Content {
    Data { read: Vec<u8>, size: u32 },
    Value(i32),
    Records { read: Vec<Vec<u8>>, count: u32 },
}

impl Level {
    fn new(aid: Aid) -> Self {
        Self {
            aid,
            settings: Found::Unasked,
            versions: Vec::new(),
            authenticated: None,
        }
    }
}

/// The key that was given, and where it belongs.
struct Credentials {
    aid: Aid,
    key_no: KeyNo,
    key: Key,
}

/// Who asks. The two kinds of session are two types, so this is either.
enum Asking {
    Everybody(Session<Unauthenticated>),
    Key(Session<Authenticated>),
}

/// Runs a command of whichever session there is.
macro_rules! ask {
    ($visit:expr, $session:ident => $command:expr) => {
        match &mut $visit.asking {
            Asking::Everybody($session) => $command.run($visit.card),
            Asking::Key($session) => $command.run($visit.card),
        }
    };
}

/// A level of the card that is being looked at.
struct Visit<'a> {
    card: &'a mut Card,
    version: &'a Version,
    aid: Aid,
    asking: Asking,
    credentials: Option<&'a Credentials>,
    read_limit: u32,
}

impl Visit<'_> {
    /// Turns the visitor into one that has the key.
    fn authenticate(&mut self, credentials: &Credentials) -> Outcome<()> {
        let key_no = credentials.key_no;
        let session = card::select(self.card, self.aid)?;
        let session = card::proved(
            card::authenticate(self.card, session, self.version, key_no, &credentials.key),
            format_args!("key {key_no} of {} is not this one", words::place(self.aid)),
        )?;
        self.asking = Asking::Key(session);
        Ok(())
    }

    /// The key in use, if any.
    fn key_no(&self) -> Option<KeyNo> {
        match &self.asking {
            Asking::Everybody(_) => None,
            Asking::Key(session) => Some(session.key_in_use()),
        }
    }

    /// Whether it is of any use to ask for what key settings make free or not. Without a session
    /// a refusal does no harm; with one, it ends the session.
    fn may_list(&self, settings: &Found<(KeySettings, KeyInfo)>) -> bool {
        let free = settings
            .known()
            .is_some_and(|(settings, _)| settings.flags.contains(KeyFlags::FREE_LISTING));
        free || self.key_no().is_none_or(KeyNo::is_master)
    }

    /// Takes an answer; a refusal is one too. If it has ended the session, there is a new one
    /// afterwards.
    fn take<T>(&mut self, answer: Result<T, Failure>) -> Outcome<Found<T>> {
        let error = match answer {
            Ok(value) => return Ok(Found::Known(value)),
            // Without a card there is nothing more to find out.
            Err(error @ RunError::Transport { .. }) => return Err(error.into()),
            Err(error) => error,
        };
        let lost = match &self.asking {
            Asking::Everybody(session) => session.is_lost(),
            Asking::Key(session) => session.is_lost(),
        };
        if lost {
            match self.credentials {
                Some(credentials) if self.key_no().is_some() => self.authenticate(credentials)?,
                _ => self.asking = Asking::Everybody(card::select(self.card, self.aid)?),
            }
        }
        Ok(Found::Refused(match error.status() {
            Some(Status::AuthenticationError) => format!("needs {}", words::master_key(self.aid)),
            Some(Status::IllegalCommandCode) => "this card does not have the command".to_owned(),
            Some(status) => format!("refused with {status}"),
            None => format!("unreadable: {error}"),
        }))
    }
}

/// Everything, first without the key and then with it.
fn survey(card: &mut Card, credentials: Option<&Credentials>, read_limit: u32) -> Outcome<Report> {
    let version = card::version(card)?;
    let mut report = Report {
        version,
        uid: Some(version.uid).filter(|uid| *uid != Uid::HIDDEN),
        free_memory: Found::Unasked,
        picc: Level::new(Aid::PICC),
        listing: Found::Unasked,
        applications: Vec::new(),
        names: Found::Unasked,
    };
    let mut visit = Visit {
        asking: Asking::Everybody(card::select(card, Aid::PICC)?),
        card,
        version: &version,
        aid: Aid::PICC,
        credentials: credentials.filter(|credentials| credentials.aid.is_picc()),
        read_limit,
    };
    survey_card(&mut visit, &mut report)?;
    if let Some(credentials) = visit.credentials {
        visit.authenticate(credentials)?;
        survey_card(&mut visit, &mut report)?;
    }
    if let Some(credentials) = credentials
        && !credentials.aid.is_picc()
    {
        let aid = credentials.aid;
        let mut known = report.applications.iter();
        let listed = known.any(|application| application.level.aid == aid);
        if report.listing.known().is_none() {
            // It may be there although the card lists nothing.
            report.applications.push(application(aid));
        } else if !listed {
            return Err(format!("there is no application {aid} on the card").into());
        }
    }
    for application in &mut report.applications {
        let aid = application.level.aid;
        visit.aid = aid;
        visit.credentials = credentials.filter(|credentials| credentials.aid == aid);
        visit.asking = Asking::Everybody(card::select(visit.card, aid)?);
        survey_application(&mut visit, application)?;
        if let Some(credentials) = visit.credentials {
            visit.authenticate(credentials)?;
            survey_application(&mut visit, application)?;
            survey_uid(&mut visit, &mut report.uid)?;
        }
    }
    Ok(report)
}

/// The UID of a card that hides it; any key will do.
fn survey_uid(visit: &mut Visit<'_>, uid: &mut Option<Uid>) -> Outcome<()> {
    if let Asking::Key(session) = &mut visit.asking
        && uid.is_none()
    {
        let answer = session.get_card_uid().run(visit.card);
        *uid = visit.take(answer)?.known().copied();
    }
    Ok(())
}

fn application(aid: Aid) -> Application {
    Application {
        level: Level::new(aid),
        iso_files: Vec::new(),
        files: Found::Unasked,
    }
}

fn survey_card(visit: &mut Visit<'_>, report: &mut Report) -> Outcome<()> {
    survey_level(visit, &mut report.picc)?;
    if report.free_memory.known().is_none() {
        let answer = ask!(visit, session => session.free_mem());
        report.free_memory = visit.take(answer)?;
    }
    survey_uid(visit, &mut report.uid)?;
    if !visit.may_list(&report.picc.settings) {
        return Ok(());
    }
    if report.listing.known().is_none() {
        let answer = ask!(visit, session => session.get_application_ids());
        let found = visit.take(answer)?;
        report.listing = with(found, |aids| {
            report.applications = aids.iter().map(|aid| application(*aid)).collect();
        });
    }
    if report.names.known().is_none() {
        // Last: some cards may not prove this answer in a session.
        let mut buffer = [0; 28 * 21];
        let answer = match &mut visit.asking {
            Asking::Everybody(session) => session.get_df_names(&mut buffer).run(visit.card),
            Asking::Key(session) => session.get_df_names(&mut buffer).run(visit.card),
        };
        let names = answer.map(|names| {
            names
                .map(|name| (name.aid, name.file_id, name.df_name))
                .collect()
        });
        report.names = visit.take(names)?;
    }
    Ok(())
}

fn survey_level(visit: &mut Visit<'_>, level: &mut Level) -> Outcome<()> {
    level.authenticated = visit.key_no();
    if level.settings.known().is_none() && visit.may_list(&level.settings) {
        let answer = ask!(visit, session => session.get_key_settings());
        level.settings = visit.take(answer)?;
    }
    if !level.versions.is_empty() {
        return Ok(());
    }
    let keys = match level.settings.known() {
        Some((_, info)) => info.keys(),
        None if level.aid.is_picc() => 1,
        // Not to be known; but versions are free, so the first that is missing tells.
        None => KeyInfo::MAX_KEYS,
    };
    for number in 0..keys.min(KeyInfo::MAX_KEYS) {
        let number = KeyNo::new(number)?;
        let answer = ask!(visit, session => session.get_key_version(number));
        match visit.take(answer)? {
            Found::Known(version) => level.versions.push(version),
            _ => break,
        }
    }
    Ok(())
}

fn survey_application(visit: &mut Visit<'_>, application: &mut Application) -> Outcome<()> {
    survey_level(visit, &mut application.level)?;
    let listing = visit.may_list(&application.level.settings);
    if application.files.known().is_none() && listing {
        let answer = ask!(visit, session => session.get_file_ids());
        let files = |numbers: &[FileNo]| numbers.iter().map(|number| file(*number)).collect();
        application.files = match visit.take(answer)? {
            Found::Known(numbers) => Found::Known(files(&numbers)),
            Found::Refused(why) => Found::Refused(why),
            Found::Unasked => Found::Unasked,
        };
    }
    let Found::Known(files) = &mut application.files else {
        return Ok(());
    };
    let settings = application.level.settings.known();
    let has_iso_files = settings.is_some_and(|(_, info)| info.iso_file_ids()) && !files.is_empty();
    if has_iso_files && application.iso_files.is_empty() && listing {
        let answer = ask!(visit, session => session.get_iso_file_ids());
        if let Found::Known(ids) = visit.take(answer)? {
            application.iso_files = ids.to_vec();
        }
    }
    for file in files {
        if file.settings.known().is_none() && listing {
            let number = file.number;
            let answer = ask!(visit, session => session.get_file_settings(number));
            file.settings = visit.take(answer)?;
        }
        if let Found::Known(settings) = &file.settings
            && file.content.known().is_none()
        {
            file.content = survey_content(visit, file.number, settings)?;
        }
    }
    Ok(())
}

fn file(number: FileNo) -> File {
    File {
        number,
        settings: Found::Unasked,
        content: Found::Unasked,
    }
}

fn survey_content(
    visit: &mut Visit<'_>,
    number: FileNo,
    settings: &FileSettings,
) -> Outcome<Found<Content>> {
    let granting = words::reading(settings.rights, &settings.detail);
    let own = visit.key_no().map(Access::Key);
    if !granting.contains(&Access::Free) && !own.is_some_and(|own| granting.contains(&own)) {
        let who = words::who(&granting);
        return Ok(Found::Refused(if who.is_empty() {
            "nobody may read it".to_owned()
        } else {
            format!("needs {who}")
        }));
    }
    // So the session need not ask a second time.
    match &mut visit.asking {
        Asking::Everybody(session) => session.assume_file_settings(number, settings),
        Asking::Key(session) => session.assume_file_settings(number, settings),
    }
    let limit = visit.read_limit;
    match settings.detail {
        FileDetail::StandardData { size } | FileDetail::BackupData { size } => {
            let size = size.get();
            let mut buffer = vec![0; usize::try_from(size.min(limit))?];
            let range = 0..size.min(limit);
            let answer = ask!(visit, session => session.read_data(number, range, &mut buffer))
                .map(<[u8]>::to_vec);
            let found = visit.take(answer)?;
            Ok(with(found, |read| Content::Data { read, size }))
        }
        FileDetail::Value { .. } => {
            let answer = ask!(visit, session => session.get_value(number));
            let found = visit.take(answer)?;
            Ok(with(found, Content::Value))
        }
        FileDetail::LinearRecord {
            record_size,
            current_records,
            ..
        }
        | FileDetail::CyclicRecord {
            record_size,
            current_records,
            ..
        } => {
            let (size, count) = (record_size.get().max(1), current_records.get());
            if size > ALL_LIMIT {
                return Ok(Found::Refused("its records are larger than a card".into()));
            }
            let wanted = count.min((limit / size).max(1));
            if wanted == 0 {
                // Reading where there is nothing is an error.
                let read = Vec::new();
                return Ok(Found::Known(Content::Records { read, count }));
            }
            let mut buffer = vec![0; usize::try_from(wanted.saturating_mul(size))?];
            let answer = ask!(visit, session => {
                session.read_records(number, 0, wanted, size, &mut buffer)
            })
            .map(<[u8]>::to_vec);
            let found = visit.take(answer)?;
            let chunk = usize::try_from(size)?;
            Ok(with(found, |records| Content::Records {
                read: records.chunks(chunk).map(<[u8]>::to_vec).collect(),
                count,
            }))
        }
        FileDetail::Other { .. } => Ok(Found::Refused("of a type that EV1 does not have".into())),
    }
}

fn with<T, U>(found: Found<T>, f: impl FnOnce(T) -> U) -> Found<U> {
    match found {
        Found::Unasked => Found::Unasked,
        Found::Known(value) => Found::Known(f(value)),
        Found::Refused(why) => Found::Refused(why),
    }
}

// For people.

fn tree(report: &Report, show_limit: usize) -> Tree {
    let Report {
        version,
        uid,
        free_memory,
        picc,
        listing,
        applications,
        names,
    } = report;
    let uid = uid.map_or("hidden (random ID)".to_owned(), |uid| uid.to_string());
    let mut tree = Tree::new(format!("{}, UID {uid}", words::card(version)));
    tree.line(format!("hardware {}", words::module(&version.hardware)));
    tree.line(format!("software {}", words::module(&version.software)));
    tree.line(format!(
        "made in {}, batch {}",
        words::production(version),
        words::hex(&version.batch)
    ));
    if let Some(free) = free_memory.or_line(&mut tree, "free memory") {
        tree.line(format!("free memory {free} bytes"));
    }
    level_lines(&mut tree, picc);
    let listed = listing.or_line(&mut tree, "list of applications");
    if listed.is_some() && applications.is_empty() {
        tree.line("no applications");
    }
    for application in applications {
        let named = names.known().into_iter().flatten();
        let name = named
            .filter(|(aid, ..)| *aid == application.level.aid)
            .map(|(_, file_id, name)| (*file_id, *name))
            .next();
        tree.branch(application_tree(application, name, show_limit));
    }
    if let Found::Refused(why) = names {
        tree.line(format!("ISO names of applications: {why}"));
    }
    tree
}

fn level_lines(tree: &mut Tree, level: &Level) {
    let (master, versions) = (words::master_key(level.aid), &level.versions);
    let known = level.settings.known();
    let family = known.map_or("unknown type".to_owned(), |(_, info)| {
        info.family().to_string()
    });
    let of = match versions.as_slice() {
        [] => "none".to_owned(),
        [version] => format!("1 × {family}, version {version:02X}"),
        [first, rest @ ..] if rest.iter().all(|version| version == first) => {
            format!("{} × {family}, all of version {first:02X}", versions.len())
        }
        all => {
            let all: Vec<String> = all.iter().map(|version| format!("{version:02X}")).collect();
            format!("{} × {family}, versions {}", all.len(), all.join(" "))
        }
    };
    if level.aid.is_picc() {
        let version = versions
            .first()
            .map_or(String::new(), |version| format!(", version {version:02X}"));
        tree.line(format!("PICC master key {family}{version}"));
    } else {
        tree.line(format!("keys {of}"));
    }
    if let Some((settings, _)) = level.settings.or_line(tree, "key settings") {
        let mut branch = Tree::new(format!("key settings {:02X}", settings.to_byte()));
        for line in words::settings(level.aid, *settings) {
            branch.line(line);
        }
        tree.branch(branch);
    }
    match level.authenticated {
        Some(key) if key.is_master() => tree.line(format!("authenticated with {master}")),
        Some(key) => tree.line(format!("authenticated with key {key}")),
        None => {}
    }
}

fn application_tree(
    application: &Application,
    name: Option<(IsoFileId, Option<DfName>)>,
    show_limit: usize,
) -> Tree {
    let mut tree = Tree::new(format!("application {}", application.level.aid));
    if let Some((file_id, name)) = name {
        let name = name.map_or(String::new(), |name| {
            format!(", DF name {}", words::df_name(&name))
        });
        tree.line(format!("ISO FID {file_id}{name}"));
    }
    level_lines(&mut tree, &application.level);
    let ids = &application.iso_files;
    if !ids.is_empty() {
        let ids: Vec<String> = ids.iter().map(ToString::to_string).collect();
        tree.line(format!(
            "ISO FIDs of its files, in order of creation: {}",
            ids.join(" ")
        ));
    }
    let files = application.files.or_line(&mut tree, "files");
    if files.is_some_and(Vec::is_empty) {
        tree.line("no files");
    }
    for file in files.into_iter().flatten() {
        tree.branch(file_tree(file, show_limit));
    }
    tree
}

fn file_tree(file: &File, show_limit: usize) -> Tree {
    let number = file.number;
    let Some(settings) = file.settings.known() else {
        let mut tree = Tree::new(format!("file {number}"));
        file.settings.or_line(&mut tree, "settings");
        return tree;
    };
    let mut tree = Tree::new(format!(
        "file {number}: {}, {}",
        words::file(&settings.detail),
        settings.comm.mode()
    ));
    tree.line(words::rights(settings.rights));
    match file.content.or_line(&mut tree, "content") {
        None => {}
        Some(Content::Value(value)) => tree.line(format!("value {value}")),
        Some(Content::Data { read, size }) => {
            // Zeros at the end are counted, not shown.
            let used = read.iter().rposition(|byte| *byte != 0);
            let used = used.map_or(0, |last| last + 1);
            let lines = used.next_multiple_of(16).min(show_limit);
            let shown = read.get(..lines).unwrap_or(read);
            for line in words::dump(shown) {
                tree.line(line);
            }
            let rest = u64::from(*size).saturating_sub(shown.len() as u64);
            let complete = read.len() as u64 == u64::from(*size);
            match shown.len() {
                _ if rest == 0 => {}
                0 if complete => tree.line(format!("all {rest} bytes are 00")),
                len if complete && used <= len => {
                    tree.line(format!("the other {rest} bytes are 00"))
                }
                _ => tree.line(format!("and {rest} more bytes (--all)")),
            }
        }
        Some(Content::Records { read, count }) => {
            if *count == 0 {
                tree.line("no records");
            }
            for (place, record) in read.iter().enumerate() {
                let age = read.len().saturating_sub(place).saturating_sub(1);
                tree.line(format!(
                    "record {age}: {}  {}",
                    words::hex(record),
                    words::printable(record)
                ));
            }
            let hidden = u64::from(*count).saturating_sub(read.len() as u64);
            if hidden > 0 {
                tree.line(format!("and {hidden} older records (--all)"));
            }
        }
    }
    tree
}

// For programs.

fn json(report: &Report) -> Json {
    let version = &report.version;
    let module = |module: &desfire_ev1::wire::ModuleVersion| {
        Json::Object(vec![
            ("vendor", Json::number(module.vendor)),
            ("type", Json::number(module.module_type)),
            ("subtype", Json::number(module.subtype)),
            ("major", Json::number(module.major)),
            ("minor", Json::number(module.minor)),
            ("storage", Json::number(module.storage)),
            ("protocol", Json::number(module.protocol)),
        ])
    };
    let (week, year) = version.production().unzip();
    Json::Object(vec![
        ("card", Json::text(words::card(version))),
        ("uid", Json::option(report.uid, Json::text)),
        ("hardware", module(&version.hardware)),
        ("software", module(&version.software)),
        ("batch", Json::hex(&version.batch)),
        ("week", Json::option(week, Json::number)),
        ("year", Json::option(year, Json::number)),
        (
            "free_memory",
            report.free_memory.json(|free| Json::number(*free)),
        ),
        ("picc", Json::Object(level_json(&report.picc))),
        (
            "applications_listed",
            report.listing.json(|()| Json::Bool(true)),
        ),
        (
            "applications",
            Json::list(
                report
                    .applications
                    .iter()
                    .map(|application| application_json(application, &report.names)),
            ),
        ),
    ])
}

fn level_json(level: &Level) -> Vec<(&'static str, Json)> {
    let settings = |settings: &KeySettings| {
        let flag = |flag| Json::Bool(settings.flags.contains(flag));
        let mut members = vec![
            ("byte", Json::hex(&[settings.to_byte()])),
            ("free_listing", flag(KeyFlags::FREE_LISTING)),
            ("free_create_delete", flag(KeyFlags::FREE_CREATE_DELETE)),
            ("changeable", flag(KeyFlags::SETTINGS_CHANGEABLE)),
            (
                "master_key_changeable",
                flag(KeyFlags::MASTER_KEY_CHANGEABLE),
            ),
        ];
        if !level.aid.is_picc() {
            members.push(("change_key", Json::text(words::change_key(settings))));
        }
        Json::Object(members)
    };
    let family = |info: &KeyInfo| Json::text(info.family());
    let versions = level.versions.iter().map(|version| Json::number(*version));
    let authenticated = |key: KeyNo| Json::number(key.number());
    vec![
        ("key_type", level.settings.json(|(_, info)| family(info))),
        ("key_versions", Json::list(versions)),
        (
            "key_settings",
            level.settings.json(|(known, _)| settings(known)),
        ),
        (
            "authenticated_key",
            Json::option(level.authenticated, authenticated),
        ),
    ]
}

fn application_json(
    application: &Application,
    names: &Found<Vec<(Aid, IsoFileId, Option<DfName>)>>,
) -> Json {
    let aid = application.level.aid;
    let mut members = vec![("aid", Json::text(aid))];
    let name = names.json(|names| {
        let own = names.iter().find(|(named, ..)| *named == aid);
        Json::option(own, |(_, file_id, name)| {
            Json::Object(vec![
                ("file_id", Json::text(file_id)),
                (
                    "df_name",
                    Json::option(name.as_ref(), |name| Json::hex(name.as_bytes())),
                ),
            ])
        })
    });
    members.push(("iso", name));
    members.extend(level_json(&application.level));
    members.push((
        "iso_file_ids",
        Json::list(application.iso_files.iter().map(Json::text)),
    ));
    let files = |files: &Vec<File>| Json::list(files.iter().map(file_json));
    members.push(("files", application.files.json(files)));
    Json::Object(members)
}

fn file_json(file: &File) -> Json {
    let mut members = vec![("number", Json::number(file.number.number()))];
    match &file.settings {
        Found::Known(settings) => {
            members.push(("type", Json::text(words::file_type(&settings.detail))));
            members.extend(detail_json(&settings.detail));
            members.push(("mode", Json::text(settings.comm.mode())));
            let rights = settings.rights;
            members.extend([
                ("read", Json::text(rights.read)),
                ("write", Json::text(rights.write)),
                ("read_write", Json::text(rights.read_write)),
                ("change", Json::text(rights.change)),
            ]);
        }
        other => members.push(("settings", other.json(|_| Json::Null))),
    }
    let content = file.content.json(|content| match content {
        Content::Value(value) => Json::number(*value),
        Content::Data { read, .. } => Json::hex(read),
        Content::Records { read, .. } => Json::list(read.iter().map(|record| Json::hex(record))),
    });
    members.push(("content", content));
    Json::Object(members)
}

fn detail_json(detail: &FileDetail) -> Vec<(&'static str, Json)> {
    match detail {
        FileDetail::StandardData { size } | FileDetail::BackupData { size } => {
            vec![("size", Json::number(size.get()))]
        }
        FileDetail::Value {
            lower,
            upper,
            limited_credit,
            flags,
        } => vec![
            ("lower", Json::number(*lower)),
            ("upper", Json::number(*upper)),
            ("limited_credit", Json::number(*limited_credit)),
            ("flags", Json::number(flags.bits())),
        ],
        FileDetail::LinearRecord {
            record_size,
            max_records,
            current_records,
        }
        | FileDetail::CyclicRecord {
            record_size,
            max_records,
            current_records,
        } => vec![
            ("record_size", Json::number(record_size.get())),
            ("max_records", Json::number(max_records.get())),
            ("current_records", Json::number(current_records.get())),
        ],
        FileDetail::Other { file_type, rest } => vec![
            ("file_type", Json::number(*file_type)),
            ("rest", Json::hex(rest)),
        ],
    }
}

struct Wanted {
    credentials: Option<Credentials>,
    json: bool,
    all: bool,
}

fn run(options: &Options, wanted: &Wanted) -> Outcome<()> {
    let mut card = options.open(demo::reader)?;
    let read_limit = if wanted.all { ALL_LIMIT } else { READ_LIMIT };
    let report = survey(&mut card, wanted.credentials.as_ref(), read_limit)?;
    let text = if wanted.json {
        json(&report).to_string()
    } else {
        let show_limit = if wanted.all { usize::MAX } else { SHOW_LIMIT };
        tree(&report, show_limit).to_string()
    };
    print::print(text);
    Ok(())
}

fn main() -> ExitCode {
    let (mut key, mut aid, mut key_no) = (None, None, None);
    let (mut json, mut all) = (false, false);
    let options = args::parse(HELP, |name, parser| {
        match name {
            "key" => key = Some(args::key(parser)?),
            "aid" => aid = Some(args::aid(parser)?),
            "key-no" => key_no = Some(args::key_no(parser)?),
            "json" => json = true,
            "all" => all = true,
            _ => return Ok(false),
        }
        Ok(true)
    });
    let options = match options {
        Ok(options) => options,
        Err(code) => return code,
    };
    if key.is_none() {
        match args::key_from_environment("DESFIRE_KEY") {
            Ok(found) => key = found,
            Err(error) => return common::usage(error),
        }
    }
    if key.is_none() && (aid.is_some() || key_no.is_some()) {
        return common::usage("--aid and --key-no say where --key belongs, and there is no key");
    }
    let credentials = key.map(|key| Credentials {
        aid: aid.unwrap_or(Aid::PICC),
        key_no: key_no.unwrap_or(KeyNo::MASTER),
        key,
    });
    let wanted = Wanted {
        credentials,
        json,
        all,
    };
    common::exit(run(&options, &wanted))
}
