//! How much memory the library's values take. That no machine allocates, and that none is larger than
//! 512 bytes, is checked by `tests/commands.rs` on every command; the stack by `tests/footprint`.
//!
//! ```console
//! $ cargo test --test memory -- --nocapture
//! ```

use desfire_ev1::wire::{Aid, FileNo};
use desfire_ev1::{
    Authenticate, AuthenticateIso7816, Authenticated, Error, Key, Machine as _, RunError, Session,
    SessionKey, Transaction, Unauthenticated, VirtualReader,
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
}
