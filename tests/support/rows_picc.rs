//! Rows: authentications, keys and settings, and what is done at PICC level.

#![allow(
    unreachable_pub,
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test is allowed to fail loudly"
)]

use desfire_ev1::Key;
use desfire_ev1::command::{IsoName, RawMode};
use desfire_ev1::picc::Card;
use desfire_ev1::wire::{
    Aid, AuthScheme, CommMode, CommandCode as C, DfName, IsoFileId, KeyFamily, KeyInfo, KeyNo,
    KeySettings, KeyType,
};

use crate::bench::{
    APP, Auth, Bench, Done, FROZEN, LOCKED, LONG_NAME, NDEF, PICC_KEY, Place, STANDARD, UID,
    card_key_of, content, family, file_no, key_no, key_of, run, without_heap,
};
use crate::rows::{
    AES_HANDSHAKE, AES_KEYS, D40_HANDSHAKE, D40_KEYS, Guard, ISO_HANDSHAKE, ISO_KEYS, MAKES_IT,
    Row, aes, array, case, d40, iso, session_only,
};

const NEW: Aid = Aid::from_bytes([0x09, 0x00, 0x00]);

pub fn rows() -> Vec<Row> {
    let mut rows = authentications();
    rows.extend([
        change_key_settings(),
        set_configuration(),
        change_key(),
        get_key_settings(),
        get_key_version(),
        create_application(),
        delete_application(),
        get_application_ids(),
        get_df_names(),
        select_application(),
        format_picc(),
        get_version(),
        free_mem(),
        get_card_uid(),
    ]);
    rows
}

/// Reads something enciphered: both sides have the same session key.
pub fn prove(bench: &mut Bench) -> Done {
    let file = STANDARD + 2;
    let mut buffer = [0; 5];
    let enciphered = CommMode::Enciphered;
    let data = call!(bench, |s| s
        .read_data(file_no(file), 3..8, &mut buffer)
        .comm_mode(enciphered))?;
    assert_eq!(data, &content(file, 8)[3..]);
    Ok(())
}

fn authentications() -> Vec<Row> {
    let token = |auth: Auth| 2 * auth.key_type().nonce_len();
    let row = |code, run: fn(&mut Bench) -> Done| {
        let mut row = Row::new(code, run)
            .sizes(1, token)
            .request(token, Guard::Bare)
            .reply(Guard::Proof);
        row.handshake = true;
        row
    };
    let legacy = row(C::Authenticate, |b| {
        b.authenticate(AuthScheme::Legacy, 1, &b.key(1))?;
        prove(b)
    })
    .applies(|auth, _| match auth {
        Auth::None => Err(MAKES_IT),
        Auth::D40Des | Auth::D40Two => Ok(()),
        Auth::IsoDes | Auth::IsoTwo => Err("0A with these keys is in the columns 0A"),
        Auth::IsoThree | Auth::Aes => Err(D40_KEYS),
    })
    .golden(
        "chapter 13.1, an EV1",
        0,
        &[&D40_HANDSHAKE],
        d40,
        &[
            [
                "00 b7d1da7ce0dd986a",
                "b7d1da7ce0dd986a 91 00",
                "authenticity",
            ],
            ["ae", "91 ae", "AE"],
        ],
    )
    .case(case("wrong key", "AE", |b| {
        b.authenticate(AuthScheme::Legacy, 1, &b.key(3))
    }))
    .case(case("a link too narrow for the token", "unsent", |b| {
        b.line.narrow(16);
        b.authenticate(AuthScheme::Legacy, 1, &b.key(1))
    }))
    .case(case("no such key", "40", |b| {
        b.authenticate(AuthScheme::Legacy, 13, &b.key(1))
    }))
    .case(
        case("PICC master key", "ok", |b| {
            b.authenticate(AuthScheme::Legacy, 0, &b.key(PICC_KEY))?;
            uid(b)
        })
        .at(Place::Picc),
    )
    .case(
        case("a card of other keys", "AE", |b| {
            b.authenticate(AuthScheme::Legacy, 1, &key_of(KeyType::Des, 1))
        })
        .under(&[Auth::IsoThree, Auth::Aes]),
    )
    .case(
        case("a key of a wrong type", "unsent", |b| {
            b.authenticate(AuthScheme::Legacy, 1, &b.key(1))
        })
        .under(&[Auth::IsoThree, Auth::Aes]),
    );
    let iso = row(C::AuthenticateIso, |b| {
        b.authenticate(AuthScheme::Iso, 1, &b.key(1))?;
        prove(b)
    })
    .applies(|auth, _| match auth {
        Auth::None => Err(MAKES_IT),
        Auth::D40Des | Auth::D40Two => Err("1A with these keys is in the columns 1A"),
        Auth::IsoDes | Auth::IsoTwo | Auth::IsoThree => Ok(()),
        Auth::Aes => Err(ISO_KEYS),
    })
    .golden(
        "chapter 13.1, an EV1",
        0,
        &[&ISO_HANDSHAKE],
        iso,
        &[
            [
                "00 03fb11800b820494",
                "03fb11800b820494 91 00",
                "authenticity",
            ],
            ["00 03fb11800b8204", "03fb11800b8204 91 00", "authenticity"],
        ],
    )
    .case(case("wrong key", "AE", |b| {
        b.authenticate(AuthScheme::Iso, 1, &b.key(3))
    }))
    .case(case("a link too narrow for the token", "unsent", |b| {
        b.line.narrow(16);
        b.authenticate(AuthScheme::Iso, 1, &b.key(1))
    }))
    .case(case("no such key", "40", |b| {
        b.authenticate(AuthScheme::Iso, 13, &b.key(1))
    }))
    .case(
        case("PICC master key", "ok", |b| {
            b.authenticate(AuthScheme::Iso, 0, &b.key(PICC_KEY))?;
            uid(b)
        })
        .at(Place::Picc),
    )
    .case(
        case("a card of other keys", "AE", |b| {
            b.authenticate(AuthScheme::Iso, 1, &key_of(KeyType::Des, 1))
        })
        .under(&[Auth::Aes]),
    )
    .case(
        case("a key of a wrong type", "unsent", |b| {
            b.authenticate(AuthScheme::Iso, 1, &b.key(1))
        })
        .under(&[Auth::Aes]),
    );
    let aes = row(C::AuthenticateAes, |b| {
        b.authenticate(AuthScheme::Aes, 1, &b.key(1))?;
        prove(b)
    })
    .applies(|auth, _| match auth {
        Auth::None => Err(MAKES_IT),
        Auth::Aes => Ok(()),
        _ => Err(AES_KEYS),
    })
    .golden(
        "chapter 13.1, an EV1 8K",
        0xAE16,
        &[&AES_HANDSHAKE],
        aes,
        &[
            [
                "00 800db680bc146bd121d6578f2d2e2058",
                "800db680bc146bd121d6578f2d2e2058 91 00",
                "authenticity",
            ],
            ["af 00", "00 91 af", "malformed"],
        ],
    )
    .case(case("wrong key", "AE", |b| {
        b.authenticate(AuthScheme::Aes, 1, &b.key(3))
    }))
    .case(case("a link too narrow for the token", "unsent", |b| {
        b.line.narrow(16);
        b.authenticate(AuthScheme::Aes, 1, &b.key(1))
    }))
    .case(case("no such key", "40", |b| {
        b.authenticate(AuthScheme::Aes, 13, &b.key(1))
    }))
    .case(
        case("PICC master key", "ok", |b| {
            b.authenticate(AuthScheme::Aes, 0, &b.key(PICC_KEY))?;
            uid(b)
        })
        .at(Place::Picc),
    )
    .case(
        case("a card of other keys", "AE", |b| {
            b.authenticate(AuthScheme::Aes, 1, &key_of(KeyType::Aes, 1))
        })
        .under(&[Auth::D40Des, Auth::IsoTwo, Auth::IsoThree]),
    )
    .case(
        case("a key of a wrong type", "unsent", |b| {
            b.authenticate(AuthScheme::Aes, 1, &b.key(1))
        })
        .under(&[Auth::D40Des, Auth::IsoTwo, Auth::IsoThree]),
    );
    vec![legacy, iso, aes]
}

fn uid(bench: &mut Bench) -> Done {
    assert_eq!(authenticated!(bench, |s| s.get_card_uid())?, UID);
    Ok(())
}

fn change_key_settings() -> Row {
    const SETTINGS: u8 = 0x1B;
    Row::new(C::ChangeKeySettings, |b| {
        authenticated!(b, |s| s
            .change_key_settings(KeySettings::from_byte(SETTINGS)))
    })
    .at(Place::In(APP, 0))
    .request(|_| 1, Guard::Cipher(1))
    .applies(session_only)
    .after(|b| assert_eq!(b.application(APP).settings().to_byte(), SETTINGS))
    .golden(
        "0A; chapter 13.1, an EV1",
        0,
        &[
            &D40_HANDSHAKE,
            &[[
                "54 cb643fd030e687da",
                "00",
                "90 54 00 00 08 cb643fd030e687da 00",
                "91 00",
            ]],
        ],
        |b| {
            d40(b)?;
            authenticated!(b, |s| s.change_key_settings(KeySettings::DEFAULT))
        },
        &[["9d", "91 9d", "9D"], ["00 01", "01 91 00", "malformed"]],
    )
    .case(
        case("at PICC level", "ok", |b| {
            authenticated!(b, |s| s.change_key_settings(KeySettings::from_byte(0x09)))?;
            assert_eq!(b.card().state().picc_settings().to_byte(), 0x09);
            Ok(())
        })
        .at(Place::Picc),
    )
    .case(case("freezing has its own call", "ok", |b| {
        authenticated!(b, |s| s
            .freeze_key_settings_for_ever(KeySettings::from_byte(0x00)))?;
        assert_eq!(b.application(APP).settings().to_byte(), 0x00);
        Ok(())
    }))
    .case(
        case("frozen settings", "9D", |b| {
            authenticated!(b, |s| s.change_key_settings(KeySettings::DEFAULT))
        })
        .at(Place::In(FROZEN, 0)),
    )
    .case(
        case("not the master key", "AE", |b| {
            authenticated!(b, |s| s.change_key_settings(KeySettings::DEFAULT))
        })
        .at(Place::In(APP, 1)),
    )
    .case(case("freezing by the wrong call", "unsent", |b| {
        authenticated!(b, |s| s.change_key_settings(KeySettings::from_byte(0x07)))
    }))
}

fn set_configuration() -> Row {
    Row::new(C::SetConfiguration, |b| {
        let key = Key::aes([0x42; 16]).with_version(9);
        authenticated!(b, |s| s.set_default_key(&key))
    })
    .at(Place::Picc)
    .sizes(1, |_| 0)
    .request(|_| 25, Guard::Cipher(1))
    .applies(session_only)
    .after(|b| {
        let info = KeyInfo::new(KeyFamily::Aes, 1).unwrap();
        call!(b, |s| s.create_application(
            NEW,
            KeySettings::DEFAULT,
            info,
            None
        ))
        .unwrap();
        let expected = desfire_ev1::picc::CardKey::aes([0x42; 16], 9);
        assert_eq!(b.application(NEW).keys(), [expected]);
    })
    .golden(
        "0A; chapter 13.2, computed: option 00, random ID",
        0,
        &[
            &D40_HANDSHAKE,
            &[[
                "5c 00 2672304d57f2bc36",
                "00",
                "90 5c 00 00 09 00 2672304d57f2bc36 00",
                "91 00",
            ]],
        ],
        |b| {
            d40(b)?;
            authenticated!(b, |s| s.enable_random_id_for_ever())
        },
        &[["9e", "91 9e", "9E"], ["00 00", "00 91 00", "malformed"]],
    )
    .case(case("option 00, random ID", "ok", |b| {
        authenticated!(b, |s| s.enable_random_id_for_ever())?;
        assert!(b.card().state().random_id());
        Ok(())
    }))
    .case(case("option 00, no FormatPICC", "ok", |b| {
        authenticated!(b, |s| s.disable_format_for_ever())?;
        assert!(b.card().state().format_disabled());
        Ok(())
    }))
    .case(case("option 02, of every length", "ok", |b| {
        for len in 2..=20_u8 {
            let ats: Vec<u8> = (0..len)
                .map(|index| if index == 0 { len } else { 0 })
                .collect();
            authenticated!(b, |s| s.set_ats(&ats))?;
            assert_eq!(b.card().state().ats(), ats);
        }
        Ok(())
    }))
    .case(case("after an unfinished chain", "CA", |b| {
        b.break_chain();
        authenticated!(b, |s| s.disable_format_for_ever())
    }))
    .case(case("an option that does not exist, raw", "9E", |b| {
        let mode = RawMode {
            request: CommMode::Enciphered,
            reply: CommMode::Plain,
            reply_len: Some(0),
        };
        attempt!(b, |s| s.raw(
            C::SetConfiguration,
            &[0x03],
            &[0],
            &mut [],
            mode
        ))
    }))
    .case(
        case("inside an application", "unsent", |b| {
            authenticated!(b, |s| s.disable_format_for_ever())
        })
        .at(Place::In(APP, 0)),
    )
    .case(case("an ATS of a wrong length", "unsent", |b| {
        authenticated!(b, |s| s.set_ats(&[0x05, 0x75, 0x77, 0x81]))
    }))
}

fn change_key() -> Row {
    const NEW_KEY: &str = "00102030405060708090a0b0b0a09080";
    Row::new(C::ChangeKey, |b| {
        let (old, new) = (b.key(2), b.key(7));
        authenticated!(b, |s| s.change_key(key_no(2), &old, &new))
    })
    .at(Place::In(APP, 0))
    .sizes(1, |_| 0)
    .request(
        |auth| match auth.key_type() {
            KeyType::Des | KeyType::TwoKey3Des => 16,
            KeyType::ThreeKey3Des => 24,
            KeyType::Aes => 17,
        },
        Guard::Cipher(2),
    )
    .applies(session_only)
    .after(|b| {
        let expected = card_key_of(b.auth.key_type(), 7);
        assert_eq!(b.application(APP).keys()[2], expected);
    })
    .golden(
        "AA; chapter 13.1, an EV1 8K: the key in use",
        0xAE16,
        &[&AES_HANDSHAKE, &[[
            "c4 00 e9f85e219496c2b58c1090dc3935fae9e840cf61b383d9531946256b1f110c10",
            "00",
            "90 c4 00 00 21 00 e9f85e219496c2b58c1090dc3935fae9e840cf61b383d9531946256b1f110c10 00",
            "91 00",
        ]]],
        |b| {
            aes(b)?;
            change_own(b, &Key::aes(array(NEW_KEY)).with_version(0x10))
        },
        &[
            ["00 2128d3cd9c9acfff", "2128d3cd9c9acfff 91 00", "malformed"],
            ["1e", "91 1e", "1E"],
        ],
    )
    .golden(
        "0A; chapter 13.2, computed: the PICC master key",
        0,
        &[&D40_HANDSHAKE, &[[
            "c4 00 b85e7aba80a7c0baa649034908260833c9ca38b985ade690",
            "00",
            "90 c4 00 00 19 00 b85e7aba80a7c0baa649034908260833c9ca38b985ade690 00",
            "91 00",
        ]]],
        |b| {
            d40(b)?;
            let new = array("00102031405060708090a0b0b0a09080");
            change_own(b, &Key::two_key_3des(new).unwrap())
        },
        &[["ae", "91 ae", "AE"]],
    )
    .case(case("the key in use", "ok", |b| {
        change_own(b, &b.key(8))?;
        assert_eq!(b.application(APP).keys()[0], card_key_of(b.auth.key_type(), 8));
        // The session is over; the new key opens another.
        b.authenticate(b.auth.scheme().unwrap(), 0, &b.key(8))
    }))
    .case(case("the PICC master key, to every type", "ok", |b| {
        let types = [
            (KeyType::Des, AuthScheme::Legacy),
            (KeyType::Aes, AuthScheme::Aes),
            (KeyType::ThreeKey3Des, AuthScheme::Iso),
            (KeyType::TwoKey3Des, AuthScheme::Iso),
            (KeyType::Des, AuthScheme::Iso),
            (KeyType::ThreeKey3Des, AuthScheme::Iso),
            (KeyType::Aes, AuthScheme::Aes),
            (KeyType::TwoKey3Des, AuthScheme::Legacy),
        ];
        for (number, (key_type, scheme)) in (1..).zip(types) {
            let new = key_of(key_type, number);
            let machine = authenticated_session(b).change_picc_master_key_and_type(&new);
            b.live = crate::bench::Live::Free(without_heap(|| run(machine, &mut b.line))?);
            assert_eq!(b.card().state().picc_key(), &card_key_of(key_type, number));
            b.authenticate(scheme, 0, &new)?;
            uid(b)?;
        }
        Ok(())
    }).at(Place::Picc))
    .case(case("a wrong old key", "1E", |b| {
        let (wrong, new) = (b.key(3), b.key(7));
        authenticated!(b, |s| s.change_key(key_no(2), &wrong, &new))
    }))
    .case(case("under a key that may not", "AE", |b| {
        let (old, new) = (b.key(2), b.key(7));
        authenticated!(b, |s| s.change_key(key_no(2), &old, &new))
    }).at(Place::In(APP, 1)))
    .case(case("no such key", "40", |b| {
        let (old, new) = (b.key(2), b.key(7));
        authenticated!(b, |s| s.change_key(key_no(9), &old, &new))
    }))
    .case(case("a frozen master key", "9D", |b| change_own(b, &b.key(7))).at(Place::In(FROZEN, 0)))
    .case(case("the key in use by the wrong call", "unsent", |b| {
        let (old, new) = (b.key(0), b.key(7));
        authenticated!(b, |s| s.change_key(KeyNo::MASTER, &old, &new))
    }))
    .case(case("a key of another type", "unsent", |b| {
        let other = match b.auth {
            Auth::Aes => KeyType::TwoKey3Des,
            _ => KeyType::Aes,
        };
        change_own(b, &key_of(other, 7))
    }))
    .case(case("another type inside an application", "unsent", |b| {
        let new = key_of(KeyType::Aes, 7);
        let machine = authenticated_session(b).change_picc_master_key_and_type(&new);
        without_heap(|| run(machine, &mut b.line)).map(drop)
    }))
}

fn authenticated_session(bench: &mut Bench) -> desfire_ev1::Session<desfire_ev1::Authenticated> {
    match bench.take() {
        crate::bench::Live::Authenticated(session) => session,
        _ => panic!("nobody is authenticated"),
    }
}

fn change_own(bench: &mut Bench, new: &Key) -> Done {
    let machine = authenticated_session(bench).change_key_in_use(new);
    bench.live = crate::bench::Live::Free(without_heap(|| run(machine, &mut bench.line))?);
    Ok(())
}

fn get_key_settings() -> Row {
    Row::new(C::GetKeySettings, |b| {
        let (settings, info) = call!(b, |s| s.get_key_settings())?;
        let expected = KeyInfo::new(family(b.auth), 5).unwrap().with_iso_file_ids();
        assert_eq!((settings.to_byte(), info), (0x0F, expected));
        Ok(())
    })
    .sizes(0, |_| 2)
    .golden(
        "none; chapter 3.6: an application of 2 DES keys",
        0xDE16,
        &[&[["45", "00 0f 02", "90 45 00 00 00", "0f 02 91 00"]]],
        |b| {
            let (settings, info) = call!(b, |s| s.get_key_settings())?;
            assert_eq!((settings.to_byte(), info.to_byte()), (0x0F, 0x02));
            Ok(())
        },
        &[["00 0f", "0f 91 00", "malformed"], ["ae", "91 ae", "AE"]],
    )
    .case(
        case("at PICC level", "ok", |b| {
            let (settings, info) = call!(b, |s| s.get_key_settings())?;
            let bits = match b.auth {
                Auth::None | Auth::Aes => 0x81,
                Auth::IsoThree => 0x41,
                _ => 0x01,
            };
            assert_eq!((settings.to_byte(), info.to_byte()), (0x0F, bits));
            Ok(())
        })
        .at(Place::Picc),
    )
    .case(
        case("not the master key", "AE", |b| {
            attempt!(b, |s| s.get_key_settings())
        })
        .at(Place::In(LOCKED, 1)),
    )
}

fn get_key_version() -> Row {
    Row::new(C::GetKeyVersion, |b| {
        let version = call!(b, |s| s.get_key_version(key_no(3)))?;
        assert_eq!(version, b.application(APP).keys()[3].version());
        assert_eq!(version, b.key(3).version());
        Ok(())
    })
    .sizes(1, |_| 1)
    .golden(
        "none; chapter 3.7",
        0xAE16,
        &[&[["64 01", "00 10", "90 64 00 00 01 01 00", "10 91 00"]]],
        |b| {
            assert_eq!(call!(b, |s| s.get_key_version(key_no(1)))?, 0x10);
            Ok(())
        },
        &[["00", "91 00", "malformed"], ["40", "91 40", "40"]],
    )
    .case(case("no such key", "40", |b| {
        attempt!(b, |s| s.get_key_version(key_no(5)))
    }))
    .case(
        case("key 1 at PICC level", "40", |b| {
            attempt!(b, |s| s.get_key_version(key_no(1)))
        })
        .at(Place::Picc),
    )
}

fn create_application() -> Row {
    fn create(b: &mut Bench, aid: Aid, iso: Option<IsoName>) -> Done {
        let info = KeyInfo::new(KeyFamily::ThreeKey3Des, 3).unwrap();
        call!(b, |s| s.create_application(
            aid,
            KeySettings::from_byte(0x0B),
            info,
            iso
        ))
    }
    fn name(id: u16, name: &[u8]) -> Option<IsoName> {
        Some(IsoName {
            file_id: IsoFileId(id),
            df_name: DfName::new(name).ok(),
        })
    }
    Row::new(C::CreateApplication, |b| {
        create(b, NEW, name(0x1234, b"five5"))
    })
    .at(Place::Picc)
    .sizes(12, |_| 0)
    .after(|b| {
        let app = b.application(NEW);
        let info = KeyInfo::new(KeyFamily::ThreeKey3Des, 3).unwrap();
        assert_eq!((app.settings().to_byte(), app.info()), (0x0B, info));
        assert_eq!(app.iso_file_id(), Some(IsoFileId(0x1234)));
        assert_eq!(app.df_name().unwrap().as_bytes(), b"five5");
    })
    .golden(
        "none; chapter 3.8",
        0,
        &[&[[
            "ca 16de00 0f 02",
            "00",
            "90 ca 00 00 05 16de00 0f 02 00",
            "91 00",
        ]]],
        |b| {
            let info = KeyInfo::new(KeyFamily::Des, 2).unwrap();
            let aid = Aid::new(0x00_DE16).unwrap();
            call!(b, |s| s.create_application(
                aid,
                KeySettings::DEFAULT,
                info,
                None
            ))
        },
        &[["de", "91 de", "DE"], ["00 00", "00 91 00", "malformed"]],
    )
    .golden(
        "none; chapters 1.2 and 3.8: with ISO names",
        0,
        &[&[[
            "ca 010000 0f 21 10e1 d2760000850101",
            "00",
            "90 ca 00 00 0e 010000 0f 21 10e1 d2760000850101 00",
            "91 00",
        ]]],
        |b| {
            let info = KeyInfo::new(KeyFamily::Des, 1).unwrap().with_iso_file_ids();
            let aid = Aid::new(1).unwrap();
            let iso = name(0xE110, NDEF);
            call!(b, |s| s.create_application(
                aid,
                KeySettings::DEFAULT,
                info,
                iso
            ))
        },
        &[["7e", "91 7e", "7E"]],
    )
    .case(case("without names", "ok", |b| create(b, NEW, None)))
    .case(case("AID exists", "DE", |b| create(b, APP, None)))
    .case(case("DF name exists", "DE", |b| {
        create(b, NEW, name(1, NDEF))
    }))
    .case(
        case("29 applications", "CE", |b| create(b, NEW, None)).with(|card| {
            for number in 0x100..0x100 + 25 {
                let info = KeyInfo::new(KeyFamily::Aes, 1).unwrap();
                let aid = Aid::new(number).unwrap();
                let app = desfire_ev1::picc::Application::new(aid, KeySettings::DEFAULT, info);
                card.state_mut().put_application(app).unwrap();
            }
        }),
    )
    .case(case("15 keys", "9E", |b| {
        let info = KeyInfo::from_byte(0x0F);
        call!(b, |s| s.create_application(
            NEW,
            KeySettings::DEFAULT,
            info,
            None
        ))
    }))
    .case(
        case("creating is not free", "AE", |b| create(b, NEW, None))
            .under(&[Auth::None])
            .with(nothing_free),
    )
    .case(case("inside an application", "unsent", |b| create(b, NEW, None)).at(Place::In(APP, 0)))
    .case(case("AID 000000", "unsent", |b| create(b, Aid::PICC, None)))
    .case(case("a reserved ISO FID", "unsent", |b| {
        create(b, NEW, name(0x3F00, b"x"))
    }))
}

/// PICC key settings 08.
fn nothing_free(card: &mut Card) {
    card.state_mut()
        .set_picc_settings(KeySettings::from_byte(0x08));
}

fn delete_application() -> Row {
    Row::new(C::DeleteApplication, |b| {
        authenticated!(b, |s| s.delete_application(LOCKED))
    })
    .at(Place::Picc)
    .sizes(3, |_| 0)
    .applies(session_only)
    .after(|b| {
        let aids: Vec<_> = b
            .card()
            .state()
            .applications()
            .iter()
            .map(|app| app.aid())
            .collect();
        assert_eq!(aids, [APP, FROZEN]);
    })
    .golden(
        "0A; chapter 3.9",
        0,
        &[
            &D40_HANDSHAKE,
            &[["da ccbbaa", "00", "90 da 00 00 03 ccbbaa 00", "91 00"]],
        ],
        |b| {
            d40(b)?;
            let aid = Aid::new(0x00AA_BBCC).unwrap();
            authenticated!(b, |s| s.delete_application(aid))
        },
        &[["a0", "91 a0", "A0"], ["00 00", "00 91 00", "malformed"]],
    )
    .case(case("no such application", "A0", |b| {
        authenticated!(b, |s| s.delete_application(NEW))
    }))
    .case(
        case("inside an application", "unsent", |b| {
            authenticated!(b, |s| s.delete_application(APP))
        })
        .at(Place::In(APP, 0)),
    )
    .case(case("AID 000000", "unsent", |b| {
        authenticated!(b, |s| s.delete_application(Aid::PICC))
    }))
}

fn get_application_ids() -> Row {
    Row::new(C::GetApplicationIds, |b| {
        let aids = call!(b, |s| s.get_application_ids())?;
        assert_eq!(&aids[..], [APP, LOCKED, FROZEN]);
        Ok(())
    })
    .at(Place::Picc)
    .sizes(0, |_| 9)
    .list()
    .golden(
        "none; chapter 3.10",
        0,
        &[&[[
            "6a",
            "00 16de00 24de00",
            "90 6a 00 00 00",
            "16de00 24de00 91 00",
        ]]],
        |b| {
            let aids = call!(b, |s| s.get_application_ids())?;
            let numbers: Vec<_> = aids.iter().map(|aid| aid.number()).collect();
            assert_eq!(numbers, [0xDE16, 0xDE24]);
            Ok(())
        },
        &[
            ["00 16de", "16de 91 00", "malformed"],
            ["ae", "91 ae", "AE"],
        ],
    )
    .case(
        case("28, in two frames", "ok", |b| {
            assert_eq!(call!(b, |s| s.get_application_ids())?.len(), 28);
            assert_eq!(b.line.log.len(), 2);
            Ok(())
        })
        .with(|card| {
            for number in 0x100..0x100 + 25 {
                let info = KeyInfo::new(KeyFamily::Aes, 1).unwrap();
                let aid = Aid::new(number).unwrap();
                let app = desfire_ev1::picc::Application::new(aid, KeySettings::DEFAULT, info);
                card.state_mut().put_application(app).unwrap();
            }
        }),
    )
    .case(
        case("listing is not free", "AE", |b| {
            attempt!(b, |s| s.get_application_ids())
        })
        .under(&[Auth::None])
        .with(nothing_free),
    )
    .case(case("after an unfinished chain", "CA", |b| {
        b.break_chain();
        attempt!(b, |s| s.get_application_ids())
    }))
    .case(
        case("inside an application", "unsent", |b| {
            attempt!(b, |s| s.get_application_ids())
        })
        .at(Place::In(APP, 0)),
    )
}

fn get_df_names() -> Row {
    let mut row = Row::new(C::GetDfNames, |b| {
        let mut buffer = [0; 64];
        let names = call!(b, |s| s.get_df_names(&mut buffer))?;
        let seen: Vec<_> = names
            .map(|app| (app.aid, app.file_id.0, app.df_name))
            .collect();
        let expected = [
            (APP, 0xE110, DfName::new(NDEF).ok()),
            (LOCKED, 0xE111, None),
            (FROZEN, 0xE112, DfName::new(LONG_NAME).ok()),
        ];
        assert_eq!(seen, expected);
        Ok(())
    })
    .at(Place::Picc)
    .sizes(0, |_| 12 + 5 + 21)
    .list()
    .golden(
        "none; chapter 3.11",
        0,
        &[&[
            [
                "6d",
                "af 010000 10e1 d2760000850101",
                "90 6d 00 00 00",
                "010000 10e1 d2760000850101 91 af",
            ],
            [
                "af",
                "00 020000 11e1",
                "90 af 00 00 00",
                "020000 11e1 91 00",
            ],
        ]],
        |b| {
            let mut buffer = [0; 64];
            let names = call!(b, |s| s.get_df_names(&mut buffer))?;
            let ids: Vec<_> = names.map(|app| app.file_id.0).collect();
            assert_eq!(ids, [0xE110, 0xE111]);
            Ok(())
        },
        &[
            ["00 020000 11", "020000 11 91 00", "malformed"],
            ["ae", "91 ae", "AE"],
        ],
    )
    .case(
        case("listing is not free", "AE", |b| {
            attempt!(b, |s| s.get_df_names(&mut [0; 64]))
        })
        .under(&[Auth::None])
        .with(nothing_free),
    )
    .case(case("after an unfinished chain", "CA", |b| {
        b.break_chain();
        attempt!(b, |s| s.get_df_names(&mut [0; 64]))
    }))
    .case(
        case("inside an application", "unsent", |b| {
            attempt!(b, |s| s.get_df_names(&mut [0; 64]))
        })
        .at(Place::In(APP, 0)),
    );
    row.frames_matter = true;
    row
}

fn select_application() -> Row {
    Row::new(C::SelectApplication, |b| b.select(LOCKED))
        .sizes(3, |_| 0)
        .reply(Guard::Bare)
        .after(|b| {
            // The card answers for the other application, and the session is over on its side.
            let error = call!(b, |s| s.get_file_ids()).unwrap_err();
            assert_eq!(error.status().map(|status| status.to_byte()), Some(0xAE));
        })
        .golden(
            "none; chapter 1.2, an EV1 8K",
            0,
            &[&[["5a 16de00", "00", "90 5a 00 00 03 16de00 00", "91 00"]]],
            |b| b.select(Aid::new(0x00_DE16).unwrap()),
            &[["a0", "91 a0", "A0"], ["00 00", "00 91 00", "malformed"]],
        )
        .case(case("the PICC", "ok", |b| b.select(Aid::PICC)))
        .case(case("no such application", "A0", |b| b.select(NEW)))
        .case(case("after an unfinished chain", "CA", |b| {
            b.break_chain();
            b.select(LOCKED)
        }))
}

fn format_picc() -> Row {
    Row::new(C::FormatPicc, |b| authenticated!(b, |s| s.format_picc()))
        .at(Place::Picc)
        .applies(session_only)
        .after(|b| {
            assert!(b.card().state().applications().is_empty());
            assert_eq!(b.card().state().free_memory(), 7936);
        })
        .golden(
            "1A; chapter 13.1, proxmark3 issue 2961",
            0,
            &[
                &ISO_HANDSHAKE,
                &[[
                    "fc",
                    "00 0a2819f80ba056a0",
                    "90 fc 00 00 00",
                    "0a2819f80ba056a0 91 00",
                ]],
            ],
            |b| {
                iso(b)?;
                authenticated!(b, |s| s.format_picc())
            },
            &[
                ["00", "91 00", "authenticity"],
                [
                    "00 0a2819f80ba056a1",
                    "0a2819f80ba056a1 91 00",
                    "authenticity",
                ],
                ["9d", "91 9d", "9D"],
            ],
        )
        .case(
            case("FormatPICC is disabled", "9D", |b| {
                authenticated!(b, |s| s.format_picc())
            })
            .with(|card| card.state_mut().set_format_disabled(true)),
        )
        .case(
            case("inside an application", "unsent", |b| {
                authenticated!(b, |s| s.format_picc())
            })
            .at(Place::In(APP, 0)),
        )
}

fn get_version() -> Row {
    Row::new(C::GetVersion, |b| {
        let version = call!(b, |s| s.get_version())?;
        assert_eq!(&version, b.card().state().version());
        assert_eq!(version.uid, UID);
        Ok(())
    })
    .sizes(0, |_| 28)
    .golden(
        "none; an EV1 4K (skjolber)",
        0,
        &[&[
            [
                "60",
                "af 04010101001805",
                "90 60 00 00 00",
                "04010101001805 91 af",
            ],
            [
                "af",
                "af 04010101041805",
                "90 af 00 00 00",
                "04010101041805 91 af",
            ],
            [
                "af",
                "00 044c5992da2c80ba3498bad02912",
                "90 af 00 00 00",
                "044c5992da2c80ba3498bad02912 91 00",
            ],
        ]],
        |b| {
            let version = call!(b, |s| s.get_version())?;
            assert_eq!(version.uid.0, array("044c5992da2c80"));
            assert_eq!((version.week_bcd, version.year_bcd), (0x29, 0x12));
            Ok(())
        },
        &[
            [
                "00 044c5992da2c80ba3498bad029",
                "044c5992da2c80ba3498bad029 91 00",
                "malformed",
            ],
            ["ca", "91 ca", "CA"],
        ],
    )
    .case(
        case("at PICC level, of a card with random ID", "ok", |b| {
            assert_eq!(call!(b, |s| s.get_version())?.uid.0, [0; 7]);
            Ok(())
        })
        .at(Place::Picc)
        .with(|card| card.state_mut().set_random_id(true)),
    )
    .case(case("after an unfinished chain", "CA", |b| {
        b.break_chain();
        attempt!(b, |s| s.get_version())
    }))
}

fn free_mem() -> Row {
    Row::new(C::FreeMem, |b| {
        let free = call!(b, |s| s.free_mem())?;
        assert_eq!(free, b.card().state().free_memory());
        Ok(())
    })
    .sizes(0, |_| 3)
    .golden(
        "none; chapter 1.1, an EV1 8K",
        0,
        &[&[["6e", "00 001f00", "90 6e 00 00 00", "001f00 91 00"]]],
        |b| {
            assert_eq!(call!(b, |s| s.free_mem())?, 7936);
            Ok(())
        },
        &[
            ["00 001f", "001f 91 00", "malformed"],
            ["1c", "91 1c", "1C"],
        ],
    )
    .case(case("after an unfinished chain", "CA", |b| {
        b.break_chain();
        attempt!(b, |s| s.free_mem())
    }))
}

fn get_card_uid() -> Row {
    // desox, `capture-real-uid`: an EV3 4K.
    const HANDSHAKE: [crate::rows::Exchange; 2] = [
        [
            "1a 00",
            "af be06be0cf719e292",
            "90 1a 00 00 01 00 00",
            "be06be0cf719e292 91 af",
        ],
        [
            "af dbebdb42f0b8870cf59899562a44c277",
            "00 8f723173061cff81",
            "90 af 00 00 10 dbebdb42f0b8870cf59899562a44c277 00",
            "8f723173061cff81 91 00",
        ],
    ];
    Row::new(C::GetCardUid, uid)
        .sizes(0, |_| 7)
        .reply(Guard::Cipher(1))
        .applies(session_only)
        .golden(
            "1A; an EV3 4K (desox)",
            0,
            &[
                &HANDSHAKE,
                &[[
                    "51",
                    "00 501f930a8b90a080ec9fb1ba83892ea3",
                    "90 51 00 00 00",
                    "501f930a8b90a080ec9fb1ba83892ea3 91 00",
                ]],
            ],
            |b| {
                let nonce = array("a0cfb1f435294b9b 0000000000000000");
                b.authenticate_with(AuthScheme::Iso, 0, &Key::zero(KeyFamily::Des), nonce)?;
                let uid = authenticated!(b, |s| s.get_card_uid())?;
                assert_eq!(uid.0, array("044b1f9add1e90"));
                Ok(())
            },
            &[
                [
                    "00 501f930a8b90a080ec9fb1ba83892ea2",
                    "501f930a8b90a080ec9fb1ba83892ea2 91 00",
                    "authenticity",
                ],
                [
                    "00 501f930a8b90a080",
                    "501f930a8b90a080 91 00",
                    "authenticity",
                ],
                ["ae", "91 ae", "AE"],
            ],
        )
        .case(
            case("of a card with random ID", "ok", uid)
                .at(Place::Picc)
                .with(|card| card.state_mut().set_random_id(true)),
        )
        .case(
            case("raw, without authentication", "AE", |b| {
                let mode = RawMode {
                    request: CommMode::Plain,
                    reply: CommMode::Plain,
                    reply_len: None,
                };
                attempt!(b, |s| s.raw(C::GetCardUid, &[], &[], &mut [0; 16], mode))
            })
            .under(&[Auth::None]),
        )
        .case(case("after an unfinished chain", "CA", |b| {
            b.break_chain();
            uid(b)
        }))
}
