//! What the card's bytes mean, for people.

use desfire_ev1::wire::{
    Access, AccessRights, Aid, ChangeKeyAccess, DfName, FileDetail, KeyFlags, KeySettings,
    ModuleVersion, Storage, Uid, ValueFlags, Version,
};

/// Bytes as digits without spaces.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02X}")).collect()
}

/// Bytes sixteen to a line, with their characters.
pub fn dump(bytes: &[u8]) -> Vec<String> {
    let line = |(number, line): (usize, &[u8])| {
        let digits: Vec<String> = line.iter().map(|byte| format!("{byte:02X}")).collect();
        format!(
            "{:04X}  {:47}  {}",
            number * 16,
            digits.join(" "),
            printable(line)
        )
    };
    bytes.chunks(16).enumerate().map(line).collect()
}

/// Bytes as text, with dots for what is none.
pub fn printable(bytes: &[u8]) -> String {
    let character = |byte: &u8| match byte {
        0x20..=0x7E => char::from(*byte),
        _ => '.',
    };
    bytes.iter().map(character).collect()
}

/// The card in a word: `MIFARE DESFire EV1 8K`.
pub fn card(version: &Version) -> String {
    let size = match version.hardware.storage() {
        Storage::Exactly(bytes) if bytes >= 1024 => format!(" {}K", bytes / 1024),
        _ => String::new(),
    };
    format!("{}{size}", generation(&version.hardware))
}

/// The UID, if the card shows it.
pub fn uid(version: &Version) -> String {
    if version.uid == Uid::HIDDEN {
        return "hidden (random ID)".to_owned();
    }
    version.uid.to_string()
}

/// Maker, product and generation.
pub fn generation(module: &ModuleVersion) -> String {
    let product = match (module.vendor, module.module_type, module.major) {
        (0x04, 0x01, 0x00) => "MIFARE DESFire (MF3ICD40)",
        (0x04, 0x01, 0x01) => "MIFARE DESFire EV1",
        (0x04, 0x01, 0x12) => "MIFARE DESFire EV2",
        (0x04, 0x01, 0x22) => "MIFARE DESFire EV2 XL",
        (0x04, 0x01, 0x33) => "MIFARE DESFire EV3",
        (0x04, 0x08, _) => "MIFARE DESFire Light",
        (vendor, module_type, _) => {
            return format!("unknown card (vendor {vendor:02X}, type {module_type:02X})");
        }
    };
    product.to_owned()
}

/// Type, version and memory of the hardware or the software.
pub fn module(module: &ModuleVersion) -> String {
    let vendor = match module.vendor {
        0x04 => "NXP".to_owned(),
        vendor => format!("vendor {vendor:02X}"),
    };
    let protocol = match module.protocol {
        0x05 => "ISO/IEC 14443-3 and -4".to_owned(),
        0x04 => "ISO/IEC 14443-3".to_owned(),
        protocol => format!("protocol {protocol:02X}"),
    };
    format!(
        "{}.{} by {vendor}, type {:02X}.{:02X}, {}, {protocol}",
        module.major,
        module.minor,
        module.module_type,
        module.subtype,
        storage(module),
    )
}

fn storage(module: &ModuleVersion) -> String {
    match module.storage() {
        Storage::Exactly(bytes) => format!("{bytes} bytes"),
        Storage::Above(bytes) => format!("{bytes} to {} bytes", u64::from(bytes) * 2),
        Storage::Unknown(byte) => format!("storage {byte:02X}"),
    }
}

/// When the card was made.
pub fn production(version: &Version) -> String {
    match version.production() {
        Some((week, year)) => format!("week {week} of {year}"),
        None => format!(
            "week {:02X}, year {:02X} (not decimal)",
            version.week_bcd, version.year_bcd
        ),
    }
}

/// The master key of a level, in words.
pub fn master_key(aid: Aid) -> &'static str {
    if aid.is_picc() {
        "the PICC master key"
    } else {
        "the application master key"
    }
}

/// What a level is called.
pub fn place(aid: Aid) -> String {
    if aid.is_picc() {
        "the card".to_owned()
    } else {
        format!("application {aid}")
    }
}

/// Key settings byte 1, in words.
pub fn settings(aid: Aid, settings: KeySettings) -> Vec<String> {
    let has = |flag| settings.flags.contains(flag);
    let (things, creating) = if aid.is_picc() {
        ("applications", "creating")
    } else {
        ("files", "creating and deleting")
    };
    let everybody = match (
        has(KeyFlags::FREE_LISTING),
        has(KeyFlags::FREE_CREATE_DELETE),
    ) {
        (true, true) => format!("everybody may list {things}; {creating} them is free too"),
        (true, false) => format!("everybody may list {things}; {creating} them needs key 0"),
        (false, true) => format!("listing {things} needs key 0; {creating} them is free"),
        (false, false) if aid.is_picc() => format!("listing and creating {things} need key 0"),
        (false, false) => format!("listing, {creating} {things} need key 0"),
    };
    let fate = |flag, changeable: &str, frozen: &str| {
        if has(flag) {
            changeable.to_owned()
        } else {
            frozen.to_owned()
        }
    };
    let mut lines = vec![
        everybody,
        fate(
            KeyFlags::SETTINGS_CHANGEABLE,
            "these settings can be changed",
            "these settings are frozen for ever",
        ) + &fate(
            KeyFlags::MASTER_KEY_CHANGEABLE,
            "; key 0 can be changed",
            "; key 0 is frozen for ever",
        ),
    ];
    if !aid.is_picc() {
        lines.push(match settings.change_key {
            ChangeKeyAccess::SameKey => "each other key is changed with itself".to_owned(),
            ChangeKeyAccess::Frozen => "the other keys are frozen for ever".to_owned(),
            _ => format!("the other keys are changed with {}", change_key(&settings)),
        });
    }
    lines
}

/// Which key changes the keys that are not the master key.
pub fn change_key(settings: &KeySettings) -> String {
    match settings.change_key {
        ChangeKeyAccess::MasterKey => "key 0".to_owned(),
        ChangeKeyAccess::Key(key) => format!("key {key}"),
        ChangeKeyAccess::SameKey => "the key itself".to_owned(),
        ChangeKeyAccess::Frozen => "never".to_owned(),
    }
}

/// Type and size of a file.
pub fn file(detail: &FileDetail) -> String {
    match detail {
        FileDetail::StandardData { size } => format!("standard data, {size} bytes"),
        FileDetail::BackupData { size } => format!("backup data, {size} bytes"),
        FileDetail::Value {
            lower,
            upper,
            limited_credit,
            flags,
        } => {
            let mut text = format!("value, {lower} to {upper}");
            if flags.contains(ValueFlags::LIMITED_CREDIT) {
                text += &format!(", limited credit enabled ({limited_credit} left)");
            }
            if flags.contains(ValueFlags::FREE_GET_VALUE) {
                text += ", free to read";
            }
            text
        }
        FileDetail::LinearRecord {
            record_size,
            max_records,
            current_records,
        } => {
            format!("linear records, {current_records} of {max_records}, {record_size} bytes each")
        }
        FileDetail::CyclicRecord {
            record_size,
            max_records,
            current_records,
        } => format!(
            "cyclic records, {current_records} of {}, {record_size} bytes each",
            max_records.get().saturating_sub(1)
        ),
        FileDetail::Other { file_type, rest } => {
            format!("type {file_type:02X}, which EV1 does not have, {rest:?}")
        }
    }
}

/// The type of a file without its size.
pub fn file_type(detail: &FileDetail) -> &'static str {
    match detail {
        FileDetail::StandardData { .. } => "standard data",
        FileDetail::BackupData { .. } => "backup data",
        FileDetail::Value { .. } => "value",
        FileDetail::LinearRecord { .. } => "linear records",
        FileDetail::CyclicRecord { .. } => "cyclic records",
        FileDetail::Other { .. } => "other",
    }
}

/// Access rights in words.
pub fn rights(rights: AccessRights) -> String {
    let AccessRights {
        read,
        write,
        read_write,
        change,
    } = rights;
    if [write, read_write, change] == [read; 3] {
        return match read {
            Access::Free => "everybody may read, write and change the rights".to_owned(),
            Access::Never => "nobody may read, write or change the rights".to_owned(),
            Access::Key(key) => format!("key {key} reads, writes and changes the rights"),
        };
    }
    format!("read {read} · write {write} · read and write {read_write} · change rights {change}")
}

/// The rights that allow to read a file.
pub fn reading(rights: AccessRights, detail: &FileDetail) -> Vec<Access> {
    match detail {
        FileDetail::Value { flags, .. } => {
            let mut granting = vec![rights.read, rights.write, rights.read_write];
            if flags.contains(ValueFlags::FREE_GET_VALUE) {
                granting.push(Access::Free);
            }
            granting
        }
        _ => vec![rights.read, rights.read_write],
    }
}

/// Who has one of these rights: `key 1 or key 3`.
pub fn who(granting: &[Access]) -> String {
    let mut keys: Vec<u8> = granting
        .iter()
        .filter_map(|access| match access {
            Access::Key(key) => Some(key.number()),
            Access::Free | Access::Never => None,
        })
        .collect();
    keys.sort_unstable();
    keys.dedup();
    let keys: Vec<String> = keys.iter().map(|key| format!("key {key}")).collect();
    keys.join(" or ")
}

/// A DF name in digits, with a word for those that are well known.
pub fn df_name(name: &DfName) -> String {
    let known = match name.as_bytes() {
        b"\xD2\x76\x00\x00\x85\x01\x01" => " (NDEF, NFC Forum Type 4 tag)",
        b"\xD2\x76\x00\x00\x85\x01\x00" => " (DESFire, or NDEF of the first mapping version)",
        _ => "",
    };
    format!("{}{known}", hex(name.as_bytes()))
}
