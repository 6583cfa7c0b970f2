//! The software card and the model, side by side.

use desfire_ev1::picc::{Application, Card as SoftwareCard, FileContent, Records, State, Value};
use desfire_ev1::picc::{File as CardFile, StateError};
use desfire_ev1::wire::{
    AccessRights, Aid, CommMode, DfName, FileNo, IsoFileId, KeyInfo, KeyNo, KeySettings, U24, Uid,
    ValueFlags,
};

use super::card::{App, Body, File, Kept};

/// Where they differ, if they do.
pub(crate) fn difference(kept: &Kept, state: &State) -> Option<String> {
    macro_rules! same {
        ($what:expr, $model:expr, $card:expr) => {
            let (model, card) = ($model, $card);
            if model != card {
                return Some(format!(
                    "{}: the model has {model:?}, the card {card:?}",
                    $what
                ));
            }
        };
    }
    same!("PICC key", &kept.picc_key.key().for_card, state.picc_key());
    same!(
        "PICC key settings",
        kept.picc_settings,
        state.picc_settings().to_byte()
    );
    same!(
        "format disabled",
        kept.format_disabled,
        state.format_disabled()
    );
    same!("random ID", kept.random_id, state.random_id());
    same!("ATS", kept.ats, state.ats());
    same!("free memory", kept.free(), u64::from(state.free_memory()));
    same!(
        "number of applications",
        kept.apps.len(),
        state.applications().len()
    );
    for (app, there) in kept.apps.iter().zip(state.applications()) {
        let at = |what: &str| format!("application {:06X}, {what}", app.aid);
        same!(at("AID"), app.aid, there.aid().number());
        same!(at("settings"), app.settings, there.settings().to_byte());
        same!(at("key info"), app.info, there.info().to_byte());
        same!(at("FID"), app.fid, there.iso_file_id().map(|id| id.0));
        same!(at("name"), app.name, there.df_name().map(DfName::as_bytes));
        same!(at("number of keys"), app.keys.len(), there.keys().len());
        for (number, (key, there)) in app.keys.iter().zip(there.keys()).enumerate() {
            same!(
                at(&format!("key {number}, which is {key:?}")),
                &key.key().for_card,
                there
            );
        }
        same!(at("number of files"), app.files.len(), there.files().len());
        for (file, there) in app.files.iter().zip(there.files()) {
            let at = |what: &str| at(&format!("file {}, {what}", file.no));
            same!(at("number"), file.no, there.number().number());
            same!(at("FID"), file.fid, there.iso_file_id().map(|id| id.0));
            let settings = there.settings();
            same!(at("communication byte"), file.comm, settings.comm.0);
            same!(
                at("rights"),
                file.rights.to_le_bytes(),
                settings.rights.to_bytes()
            );
            if !same_body(&file.body, there.content()) {
                return Some(format!(
                    "{}: the model has {:?}, the card {:?}",
                    at("content"),
                    file.body,
                    there.content()
                ));
            }
        }
    }
    None
}

fn same_body(body: &Body, content: &FileContent) -> bool {
    match (body, content) {
        (Body::Standard(data), FileContent::Standard(there))
        | (Body::Backup(data), FileContent::Backup(there)) => data == there,
        (
            Body::Value {
                lower,
                upper,
                value,
                budget,
                flags,
            },
            FileContent::Value(there),
        ) => {
            (*lower, *upper, *value, *budget, *flags)
                == (
                    there.lower,
                    there.upper,
                    there.value,
                    there.limited_credit,
                    there.flags.bits(),
                )
        }
        (
            Body::Records {
                cyclic,
                record_size,
                max,
                list,
            },
            FileContent::Linear(there) | FileContent::Cyclic(there),
        ) => {
            *cyclic == matches!(content, FileContent::Cyclic(_))
                && (*record_size, *max) == (there.record_size().get(), there.max_records().get())
                && list.iter().flatten().eq(there.bytes())
        }
        _ => false,
    }
}

/// A software card with what the model has.
pub(crate) fn software_card(kept: &Kept) -> Result<SoftwareCard, StateError> {
    let (batch, week, year) = super::PRODUCTION;
    let mut card = SoftwareCard::builder()
        .uid(Uid(kept.uid))
        .storage(kept.size)
        .production(batch, week, year)
        .build();
    let state = card.state_mut();
    state.set_picc_key(kept.picc_key.key().for_card.clone());
    state.set_picc_settings(KeySettings::from_byte(kept.picc_settings));
    for app in &kept.apps {
        state.put_application(application(app))?;
    }
    Ok(card)
}

fn application(app: &App) -> Application {
    let mut made = Application::new(
        Aid::new(app.aid).expect("three bytes"),
        KeySettings::from_byte(app.settings),
        KeyInfo::from_byte(app.info),
    );
    if let Some(fid) = app.fid {
        let name = app.name.map(|name| DfName::new(name).expect("16 bytes"));
        made = made.with_iso_names(IsoFileId(fid), name);
    }
    for (number, key) in (0..).zip(&app.keys) {
        let number = KeyNo::new(number).expect("14 keys");
        made = made.with_key(number, key.key().for_card.clone());
    }
    app.files
        .iter()
        .fold(made, |made, file| made.with_file(card_file(file)))
}

fn card_file(file: &File) -> CardFile {
    let mode = match file.comm {
        0 => CommMode::Plain,
        1 => CommMode::Mac,
        _ => CommMode::Enciphered,
    };
    let content = match &file.body {
        Body::Standard(data) => FileContent::Standard(data.clone()),
        Body::Backup(data) => FileContent::Backup(data.clone()),
        Body::Value {
            lower,
            upper,
            value,
            budget,
            flags,
        } => FileContent::Value(Value {
            lower: *lower,
            upper: *upper,
            value: *value,
            limited_credit: *budget,
            flags: ValueFlags::from_bits_retain(*flags),
        }),
        Body::Records {
            cyclic,
            record_size,
            max,
            list,
        } => {
            let u24 = |number| U24::new(number).expect("24 bits");
            let records = Records::new(u24(*record_size), u24(*max), list.concat());
            if *cyclic {
                FileContent::Cyclic(records)
            } else {
                FileContent::Linear(records)
            }
        }
    };
    let no = FileNo::new(file.no).expect("up to 31");
    let rights = AccessRights::from_bytes(file.rights.to_le_bytes());
    let made = CardFile::new(no, mode, rights, content);
    match file.fid {
        Some(fid) => made.with_iso_file_id(IsoFileId(fid)),
        None => made,
    }
}
