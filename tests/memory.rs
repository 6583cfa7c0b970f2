//! How much memory the library's values take. That no machine allocates, and that none is larger than
//! 512 bytes, is checked by `tests/commands.rs` on every command; the stack by `tests/footprint`.
//!
//! ```console
//! $ cargo test --test memory -- --nocapture
//! ```

use desfire_ev1::purse::{
    Create, DropPending, Execute, History, Initialise, Intent, Open, Purse, ReadHistory, Settle,
};
use desfire_ev1::split::{
    Answered, Dukpt, Player, Prove, Relay, RelayGate, ScriptBuilder, Tap, Unlock, Waiting,
};
use desfire_ev1::wire::{Aid, Amount, FileNo, KeyNo};
use desfire_ev1::{
    Authenticate, AuthenticateIso7816, Authenticated, Error, Key, Machine as _, Procedure as _,
    RunError, Session, SessionKey, Transaction, Unauthenticated, VirtualReader,
};

fn at_most(bound: usize, what: &str, size: usize) {
    println!("memory: {size:>4} bytes, at most {bound}: {what}");
    assert!(size <= bound, "{what} has {size} bytes, more than {bound}");
}

#[test]
fn values_are_small() {
    at_most(1024, "session", size_of::<Session<Unauthenticated>>());
    at_most(
        1024,
        "session with keys",
        size_of::<Session<Authenticated>>(),
    );
    at_most(512, "handshake", size_of::<Authenticate<'_>>());
    at_most(
        1024,
        "handshake by ISO 7816-4",
        size_of::<AuthenticateIso7816<'_>>(),
    );
    at_most(32, "key", size_of::<Key>());
    at_most(32, "session key", size_of::<SessionKey>());
    at_most(
        8,
        "transaction",
        size_of::<Transaction<'_, Authenticated>>(),
    );
    at_most(64, "error", size_of::<Error>());
    at_most(96, "error of a driver", size_of::<RunError<()>>());
}

/// Split authentication: what a terminal without heap keeps, and what a key holder keeps for each card.
#[test]
fn halves_are_small() {
    at_most(640, "split: tap", size_of::<Tap>());
    at_most(896, "split: waiting card", size_of::<Waiting>());
    at_most(768, "split: unlock", size_of::<Unlock>());
    at_most(896, "split: prove", size_of::<Prove>());
    at_most(960, "split: player", size_of::<Player<'_>>());
    at_most(512, "split: relay", size_of::<Relay>());
    at_most(256, "split: relay gate", size_of::<RelayGate>());
    at_most(576, "split: DUKPT state", size_of::<Dukpt>());
    at_most(512, "split: answered", size_of::<Answered>());
    at_most(
        1024,
        "split: script builder",
        size_of::<ScriptBuilder<'_>>(),
    );
}

#[test]
fn purse_is_small() {
    at_most(64, "purse: create", size_of::<Create<'_>>());
    at_most(64, "purse: initialise", size_of::<Initialise<'_>>());
    at_most(64, "purse: open", size_of::<Open<'_>>());
    at_most(
        96,
        "purse: open purse",
        size_of::<desfire_ev1::purse::Tap<'_>>(),
    );
    at_most(96, "purse: intent", size_of::<Intent>());
    at_most(64, "purse: execute", size_of::<Execute<'_, '_, '_>>());
    at_most(64, "purse: settle", size_of::<Settle<'_, '_, '_>>());
    at_most(192, "purse: history", size_of::<History>());
    at_most(64, "purse: read history", size_of::<ReadHistory<'_, '_>>());
    at_most(64, "purse: drop pending", size_of::<DropPending<'_, '_>>());
}

/// A future has the machine in it, a buffer for one reply (258 bytes), and once more what it returns.
#[test]
fn futures_are_small() {
    let mut reader = VirtualReader::demo();
    let mut session = Session::at_level(Aid::PICC);
    let file = FileNo::new(1).unwrap();
    let mut buffer = [0; 32];
    let read = session.read_data(file, 0..32, &mut buffer);
    at_most(
        1536,
        "future of ReadData",
        size_of_val(&read.run_async(&mut reader)),
    );
    let select = session.select_application(Aid::PICC);
    at_most(
        3072,
        "future of SelectApplication",
        size_of_val(&select.run_async(&mut reader)),
    );

    // A procedure has one command's future at a time.
    let select = Session::new().select_application(VirtualReader::DEMO_AID);
    let session = select.run(&mut reader).unwrap();
    let key = Key::aes([0; 16]);
    let mut session = session
        .authenticate_aes(KeyNo::MASTER, &key, &mut getrandom::SysRng)
        .run(&mut reader)
        .unwrap();
    let purse = Purse {
        header: file,
        value: file,
        log: file,
        limit: Amount::new(1).unwrap(),
    };
    let key_no = KeyNo::new(1).unwrap();
    at_most(
        1536,
        "future of making a purse",
        size_of_val(
            &purse
                .create(&mut session, key_no, key_no)
                .run_async(&mut reader),
        ),
    );
    at_most(
        1536,
        "future of opening a purse",
        size_of_val(&purse.open(&mut session).run_async(&mut reader)),
    );
}
