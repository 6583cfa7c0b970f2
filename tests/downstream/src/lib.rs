//! A door reader without an operating system.
//!
//! It brings its own panic handler and no allocator: if anything below pulled in `std`, there
//! would be two panic handlers, and if anything pulled in `alloc`, there would be no allocator.
//! Neither would build. So building this is the test.
#![no_std]

use core::panic::PanicInfo;

use desfire_ev1::split::{
    Dukpt, Effect, Freshness, InitialKey, Intent, Mode, Relay, Tap, TerminalId, TransportKey,
    TransportKeyId,
};
use desfire_ev1::wire::{Aid, AuthScheme, FileNo, InlineBytes, KeyNo, KeyType};
use desfire_ev1::{Key, Link, LinkFormat, Machine, RunError, Session, Transport};
use rand_core::{TryCryptoRng, TryRng};

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    loop {}
}

unsafe extern "C" {
    fn rf_exchange(command: *const u8, len: usize, reply: *mut u8, room: usize) -> isize;
    fn hardware_random() -> u32;
    fn ask_key_holder(message: *const u8, len: usize, answer: *mut u8, room: usize) -> isize;
}

struct Rf;

struct NoCard;

impl Link for Rf {
    type Error = NoCard;

    fn format(&self) -> LinkFormat {
        LinkFormat::NATIVE
    }
}

impl Transport for Rf {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, NoCard> {
        // SAFETY: the pointers are to these slices, for as long as the call lasts.
        let len = unsafe {
            rf_exchange(
                command.as_ptr(),
                command.len(),
                reply.as_mut_ptr(),
                reply.len(),
            )
        };
        usize::try_from(len).map_err(|_| NoCard)
    }
}

struct Hardware;

impl TryRng for Hardware {
    type Error = NoEntropy;

    fn try_next_u32(&mut self) -> Result<u32, NoEntropy> {
        // SAFETY: takes and gives plain numbers.
        match unsafe { hardware_random() } {
            0 => Err(NoEntropy),
            word => Ok(word),
        }
    }

    fn try_next_u64(&mut self) -> Result<u64, NoEntropy> {
        Ok(u64::from(self.try_next_u32()?) << 32 | u64::from(self.try_next_u32()?))
    }

    fn try_fill_bytes(&mut self, out: &mut [u8]) -> Result<(), NoEntropy> {
        for byte in out {
            *byte = self.try_next_u32()?.to_le_bytes()[0];
        }
        Ok(())
    }
}

impl TryCryptoRng for Hardware {}

#[derive(Debug)]
struct NoEntropy;

impl core::fmt::Display for NoEntropy {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("no entropy")
    }
}

impl core::error::Error for NoEntropy {}

/// Reads the badge number of the card in the field.
fn badge() -> Result<[u8; 8], RunError<NoCard>> {
    let key = Key::aes([0x42; 16]);
    let aid = Aid::from_bytes([0x16, 0xDE, 0x00]);
    let session = Session::new().select_application(aid).run(&mut Rf)?;
    let mut session = session
        .authenticate_aes(KeyNo::MASTER, &key, &mut Hardware)
        .run(&mut Rf)?;
    let mut badge = [0; 8];
    let Ok(file) = FileNo::new(1) else {
        return Ok(badge);
    };
    session.read_data(file, 0..8, &mut badge).run(&mut Rf)?;
    Ok(badge)
}

/// Returns 1 and fills `number` if the card is ours.
///
/// # Safety
/// `number` points to eight writable bytes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn door_badge(number: *mut [u8; 8]) -> i32 {
    match badge() {
        Ok(badge) => {
            // SAFETY: the caller's promise.
            unsafe { number.write(badge) };
            1
        }
        Err(_) => 0,
    }
}

/// A till without a card key, with the terminal's side of `split`: every mode in buffers of its own.
mod till {
    use super::*;

    fn ask<'a>(message: &[u8], answer: &'a mut [u8]) -> Option<&'a [u8]> {
        // SAFETY: the pointers are to these slices, for as long as the call lasts.
        let len = unsafe {
            ask_key_holder(message.as_ptr(), message.len(), answer.as_mut_ptr(), answer.len())
        };
        answer.get(..usize::try_from(len).ok()?)
    }

    fn intent(mode: Mode, transport: TransportKeyId, freshness: u32) -> Option<Intent> {
        Some(Intent {
            mode,
            scheme: AuthScheme::Aes,
            key_type: KeyType::Aes,
            key_no: KeyNo::MASTER,
            uid: None,
            terminal: TerminalId::new(b"till 7").ok()?,
            transport,
            freshness: Freshness::Counter(u64::from(freshness)),
            purpose: InlineBytes::EMPTY,
        })
    }

    /// Runs one tap in one mode; whether all is well.
    pub fn tap(mode: Mode, dukpt: &mut Dukpt, stored: &mut [u8; Dukpt::SAVED]) -> Option<bool> {
        let aid = Aid::from_bytes([0x16, 0xDE, 0x00]);
        let counter = dukpt.counter();
        let (id, key): (TransportKeyId, TransportKey) = dukpt.next_key().ok()?;
        // Before the key is used: it must not come a second time.
        dukpt.save(stored);
        let intent = intent(mode, id, counter)?;
        let mut answer = [0; 1024];
        if mode == Mode::Remote {
            let mut relay = Relay::new(intent, aid, LinkFormat::NATIVE, &key).ok()?;
            let mut message = ask(&relay.message().ok()?, &mut answer)?.len();
            while let Some(reply) = relay.exchange(answer.get(..message)?, &mut Rf).ok()? {
                message = ask(&reply, &mut answer)?.len();
            }
            return Some(true);
        }
        let session = Session::new().select_application(aid).run(&mut Rf).ok()?;
        let waiting = Tap::new(session, intent, &key).run(&mut Rf).ok()?;
        let message = waiting.message().ok()?;
        let answer = ask(&message, &mut answer)?;
        let mut session = match mode {
            Mode::Script => {
                let (mut receipt, mut ignored) = ([0; 512], [0; 16]);
                let mut player = waiting.script(answer, &mut receipt).ok()?;
                let _ = player.play(&mut Rf);
                let done = player.ending().effect == Effect::Done;
                ask(player.into_receipt().ok()?, &mut ignored)?;
                return Some(done);
            }
            Mode::Proven => {
                let proven = waiting.proven(answer).ok()?.run(&mut Rf).ok()?;
                let mut release = [0; 128];
                let release = ask(&proven.message().ok()?, &mut release)?;
                proven.release(release).ok()?
            }
            _ => waiting.card_locked(answer).ok()?.run(&mut Rf).ok()?,
        };
        session.free_mem().run(&mut Rf).ok().map(|_| true)
    }
}

/// Runs one tap; 1 if all is well. `mode`: 0 proven, 1 card-locked, 2 script, 3 remote.
///
/// # Safety
/// `state` points to the till's stored keys.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn till_tap(mode: u8, state: *mut [u8; Dukpt::SAVED]) -> i32 {
    // SAFETY: the caller's promise.
    let state = unsafe { &mut *state };
    let mut dukpt = match mode {
        4 => Dukpt::load(&InitialKey::new([0x42; 16], *b"fleet 01")),
        _ => Dukpt::restore(state),
    };
    let mode = match mode {
        0 => Mode::Proven,
        2 => Mode::Script,
        3 => Mode::Remote,
        _ => Mode::CardLocked,
    };
    let done = till::tap(mode, &mut dukpt, state);
    i32::from(done == Some(true))
}
