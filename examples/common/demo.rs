//! A software card to look at: `VirtualReader::demo()` with three more applications.
//!
//! | AID | keys | |
//! |---|---|---|
//! | `00DE16` | 3 × AES, all zero | five files, everything with key 0 |
//! | `000001` | 1 × AES, zero | a Type 4 tag by AN11004, with a message |
//! | `4C4F59` | 2 × 3K3DES, all zero | points and visits that everybody may read |
//! | `F48120` | 2 × AES, [`ACCESS_KEY`] | tells nothing without its master key |

use desfire_ev1::VirtualReader;
use desfire_ev1::picc::{Application, CardKey, File, FileContent, Records, Value};
use desfire_ev1::wire::{
    Access, AccessRights, Aid, ChangeKeyAccess, CommMode, FileNo, KeyFamily, KeyFlags, KeyInfo,
    KeyNo, KeySettings, U24, ValueFlags,
};

use super::ndef::{self, CapabilityContainer, Record};
use super::{Context as _, Outcome};

/// Both keys of the locked application, of version 1. (Of a software card: not a secret.)
pub const ACCESS_KEY: [u8; 16] = *b"an access key...";

/// The card.
pub fn reader() -> Outcome<VirtualReader> {
    let mut reader = VirtualReader::demo();
    for application in [type_4_tag()?, loyalty()?, access()?] {
        let put = reader.card_mut().state_mut().put_application(application);
        put.context("the demonstration card cannot be made")?;
    }
    Ok(reader)
}

const FREE: Access = Access::Free;
const MASTER: Access = Access::Key(KeyNo::MASTER);

const fn rights(read: Access, write: Access, read_write: Access, change: Access) -> AccessRights {
    AccessRights {
        read,
        write,
        read_write,
        change,
    }
}

/// What the example `ndef` makes.
fn type_4_tag() -> Outcome<Application> {
    const SIZE: u16 = 256;
    let message = ndef::encode(&[Record::Uri("https://www.rust-lang.org/".to_owned())])?;
    let mut file = u16::try_from(message.len())?.to_be_bytes().to_vec();
    file.extend(message);
    file.resize(SIZE.into(), 0);
    let keys = KeyInfo::new(KeyFamily::Aes, 1)?.with_iso_file_ids();
    Ok(
        Application::new(Aid::new(ndef::AID)?, KeySettings::DEFAULT, keys)
            .with_iso_names(ndef::APPLICATION_ID, Some(ndef::df_name()?))
            .with_file(
                File::new(
                    FileNo::new(1)?,
                    CommMode::Plain,
                    rights(FREE, MASTER, MASTER, MASTER),
                    FileContent::Standard(CapabilityContainer::new(SIZE).encode()),
                )
                .with_iso_file_id(ndef::CC_ID),
            )
            .with_file(
                File::new(
                    FileNo::new(2)?,
                    CommMode::Plain,
                    rights(FREE, FREE, FREE, MASTER),
                    FileContent::Standard(file),
                )
                .with_iso_file_id(ndef::NDEF_ID),
            ),
    )
}

fn loyalty() -> Outcome<Application> {
    let key = Access::Key(KeyNo::new(1)?);
    let settings = KeySettings {
        flags: KeyFlags::all() - KeyFlags::FREE_CREATE_DELETE,
        change_key: ChangeKeyAccess::SameKey,
    };
    let points = Value {
        lower: 0,
        upper: 10_000,
        value: 420,
        limited_credit: 0,
        flags: ValueFlags::FREE_GET_VALUE,
    };
    let visits = Records::new(
        U24::new(16)?,
        U24::new(4)?,
        b"2024-05-04 Berne2024-06-01 Basel".to_vec(),
    );
    let aid = Aid::new(0x4C_4F59)?;
    Ok(
        Application::new(aid, settings, KeyInfo::new(KeyFamily::ThreeKey3Des, 2)?)
            .with_file(File::new(
                FileNo::new(1)?,
                CommMode::Mac,
                rights(Access::Never, key, MASTER, MASTER),
                FileContent::Value(points),
            ))
            .with_file(File::new(
                FileNo::new(2)?,
                CommMode::Mac,
                rights(FREE, key, MASTER, MASTER),
                FileContent::Cyclic(visits),
            )),
    )
}

fn access() -> Outcome<Application> {
    let key = CardKey::aes(ACCESS_KEY, 1);
    let reading = KeyNo::new(1)?;
    let settings = KeySettings {
        flags: KeyFlags::MASTER_KEY_CHANGEABLE | KeyFlags::SETTINGS_CHANGEABLE,
        change_key: ChangeKeyAccess::MasterKey,
    };
    let aid = Aid::new(0xF4_8120)?;
    Ok(
        Application::new(aid, settings, KeyInfo::new(KeyFamily::Aes, 2)?)
            .with_key(KeyNo::MASTER, key.clone())
            .with_key(reading, key)
            .with_file(File::new(
                FileNo::new(0)?,
                CommMode::Enciphered,
                rights(Access::Key(reading), Access::Never, MASTER, MASTER),
                FileContent::Standard(b"badge 0004711, doors 1 to 17\0\0\0\0".to_vec()),
            )),
    )
}
