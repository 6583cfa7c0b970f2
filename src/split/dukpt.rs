//! AES-DUKPT: a transport key for every transaction, from an initial key per terminal.
//!
//! A terminal that is broken into gives away neither the keys of the taps before nor any other
//! terminal's: it never has the base derivation key, and erases each key with its use. The key
//! holder has the base derivation key and derives what it needs from the key serial number.
//!
//! Source: ANSI X9.24-3-2017, 6.3, with AES-128 throughout; the tests hold its published values. The
//! working key used here is the key encryption key (usage `0002`).

use core::fmt;

use aes::cipher::{BlockCipherEncrypt as _, KeyInit as _};
use zeroize::{Zeroize as _, Zeroizing};

use super::error::TerminalError;
use super::transport_key::{TransportKey, TransportKeyId};

/// The most ones in a counter that is used.
const MAX_WORK: u32 = 16;
const REGISTERS: usize = 32;

/// Key serial number: which transaction of which terminal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ksn {
    /// Initial key id: base derivation key id and derivation id, four bytes each.
    pub key_id: [u8; 8],
    /// Transaction counter.
    pub counter: u32,
}

#[derive(Clone, Copy)]
enum Usage {
    KeyEncryption = 0x0002,
    Derivation = 0x8000,
    Initial = 0x8001,
}

/// X9.24-3, 6.3.3: one block of derivation data under a derivation key.
fn derive(key: &[u8; 16], usage: Usage, tail: [u8; 8]) -> Zeroizing<[u8; 16]> {
    let [high, low] = (usage as u16).to_be_bytes();
    // Version, counter of the block, usage, algorithm AES-128, 128 bits.
    let mut data = [
        1, 1, high, low, 0x00, 0x02, 0x00, 0x80, 0, 0, 0, 0, 0, 0, 0, 0,
    ];
    for (to, from) in data.iter_mut().skip(8).zip(tail) {
        *to = from;
    }
    let mut block = data.into();
    aes::Aes128::new(&(*key).into()).encrypt_block(&mut block);
    let derived = Zeroizing::new(block.into());
    block.zeroize();
    derived
}

/// The last eight bytes of the derivation data of a transaction: derivation id and counter.
const fn transaction(ksn: Ksn) -> [u8; 8] {
    let [_, _, _, _, e, f, g, h] = ksn.key_id;
    let [a, b, c, d] = ksn.counter.to_be_bytes();
    [e, f, g, h, a, b, c, d]
}

/// The base derivation key of a fleet of terminals: the key holder's. Wiped when dropped.
pub struct BaseKey(Zeroizing<[u8; 16]>);

impl BaseKey {
    /// From its 16 bytes.
    #[must_use]
    pub fn new(key: [u8; 16]) -> Self {
        Self(Zeroizing::new(key))
    }

    /// The initial key of one terminal, to be loaded into it once.
    #[must_use]
    pub fn initial_key(&self, key_id: [u8; 8]) -> InitialKey {
        InitialKey {
            key: derive(&self.0, Usage::Initial, key_id),
            key_id,
        }
    }

    /// The transport key of one transaction.
    ///
    /// Nothing for a counter that no terminal uses: zero, or with more than 16 ones.
    #[must_use]
    pub fn transport_key(&self, ksn: Ksn) -> Option<TransportKey> {
        let key = self.initial_key(ksn.key_id).derivation_key(ksn.counter)?;
        Some(working_key(&key, ksn))
    }
}

impl fmt::Debug for BaseKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BaseKey(..)")
    }
}

/// The initial key of one terminal. Wiped when dropped.
pub struct InitialKey {
    key: Zeroizing<[u8; 16]>,
    key_id: [u8; 8],
}

impl InitialKey {
    /// From its 16 bytes and its id.
    #[must_use]
    pub fn new(key: [u8; 16], key_id: [u8; 8]) -> Self {
        Self {
            key: Zeroizing::new(key),
            key_id,
        }
    }

    /// The bytes, for loading them into a terminal.
    #[must_use]
    pub fn expose(&self) -> &[u8; 16] {
        &self.key
    }

    /// The key of one transaction, as the host derives it: bit by bit from the top.
    fn derivation_key(&self, counter: u32) -> Option<Zeroizing<[u8; 16]>> {
        if counter == 0 || counter.count_ones() > MAX_WORK {
            return None;
        }
        let mut key = self.key.clone();
        let mut working = 0;
        for bit in (0..u32::BITS).rev().map(|bit| 1_u32 << bit) {
            if counter & bit != 0 {
                working |= bit;
                let ksn = Ksn {
                    key_id: self.key_id,
                    counter: working,
                };
                key = derive(&key, Usage::Derivation, transaction(ksn));
            }
        }
        Some(key)
    }
}

impl fmt::Debug for InitialKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "InitialKey({:02X?}, ..)", self.key_id)
    }
}

fn working_key(derivation_key: &[u8; 16], ksn: Ksn) -> TransportKey {
    TransportKey::new(*derive(
        derivation_key,
        Usage::KeyEncryption,
        transaction(ksn),
    ))
}

/// The terminal's key register: what remains of the initial key. 524 bytes stored, no heap; wiped when
/// dropped.
///
/// Store [`Dukpt::save`] after every [`Dukpt::next_key`], before the key is used: a terminal that
/// falls back to an older state uses keys again, and the key holder refuses it.
pub struct Dukpt {
    registers: Zeroizing<[[u8; 16]; REGISTERS]>,
    key_id: [u8; 8],
    /// The counter of the next transaction; zero when all are used up.
    counter: u32,
}

impl Dukpt {
    /// Length of [`Dukpt::save`].
    pub const SAVED: usize = REGISTERS * 16 + 8 + 4;

    /// A terminal that has just been given its initial key, which is not needed any more.
    #[must_use]
    pub fn load(initial: &InitialKey) -> Self {
        let mut dukpt = Self {
            registers: Zeroizing::new([[0; 16]; REGISTERS]),
            key_id: initial.key_id,
            counter: 1,
        };
        dukpt.update(&initial.key, 0, REGISTERS);
        dukpt
    }

    /// X9.24-3, 6.5.4: fills the registers below `below` from the key of `counter`.
    fn update(&mut self, key: &[u8; 16], counter: u32, below: usize) {
        for (bit, register) in self.registers.iter_mut().enumerate().take(below) {
            let ksn = Ksn {
                key_id: self.key_id,
                counter: counter
                    | 1_u32
                        .checked_shl(u32::try_from(bit).unwrap_or(0))
                        .unwrap_or(0),
            };
            *register = *derive(key, Usage::Derivation, transaction(ksn));
        }
    }

    /// The key of the next transaction; it cannot be derived a second time.
    ///
    /// # Errors
    /// [`TerminalError::KeysUsedUp`].
    pub fn next_key(&mut self) -> Result<(TransportKeyId, TransportKey), TerminalError> {
        if self.counter == 0 {
            return Err(TerminalError::KeysUsedUp);
        }
        let ksn = Ksn {
            key_id: self.key_id,
            counter: self.counter,
        };
        let bit = usize::try_from(self.counter.trailing_zeros()).unwrap_or(REGISTERS);
        let register = self
            .registers
            .get_mut(bit)
            .ok_or(TerminalError::KeysUsedUp)?;
        let key = Zeroizing::new(*register);
        register.zeroize();
        let working = working_key(&key, ksn);
        // X9.24-3, 6.5.5: counters with too many ones are left out, a register at a time.
        if self.counter.count_ones() < MAX_WORK {
            self.update(&key, self.counter, bit);
            self.counter = self.counter.wrapping_add(1);
        } else {
            self.counter = self.counter.wrapping_add(
                1_u32
                    .checked_shl(self.counter.trailing_zeros())
                    .unwrap_or(0),
            );
        }
        Ok((TransportKeyId::Dukpt(ksn), working))
    }

    /// How far it is: the counter of the next transaction, zero at the end.
    #[must_use]
    pub const fn counter(&self) -> u32 {
        self.counter
    }

    /// Everything, to be stored where only this terminal reads it.
    pub fn save(&self, out: &mut [u8; Self::SAVED]) {
        let registers = self.registers.iter().flatten();
        let all = registers
            .chain(&self.key_id)
            .copied()
            .chain(self.counter.to_le_bytes());
        for (to, from) in out.iter_mut().zip(all) {
            *to = from;
        }
    }

    /// From what [`Dukpt::save`] gave.
    #[must_use]
    pub fn restore(saved: &[u8; Self::SAVED]) -> Self {
        let mut dukpt = Self {
            registers: Zeroizing::new([[0; 16]; REGISTERS]),
            key_id: [0; 8],
            counter: 0,
        };
        let mut counter = [0; 4];
        let registers = dukpt.registers.iter_mut().flatten();
        let places = registers.chain(&mut dukpt.key_id).chain(&mut counter);
        for (to, from) in places.zip(saved) {
            *to = *from;
        }
        dukpt.counter = u32::from_le_bytes(counter);
        dukpt
    }
}

impl fmt::Debug for Dukpt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Dukpt({:02X?}, {}, ..)", self.key_id, self.counter)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pcd::command::testing::hex;
    use std::format;

    const KEY_ID: [u8; 8] = [0x12, 0x34, 0x56, 0x78, 0x90, 0x12, 0x34, 0x56];

    fn key(text: &str) -> [u8; 16] {
        hex(text).try_into().unwrap()
    }

    fn base() -> BaseKey {
        BaseKey::new(key("FEDCBA9876543210F1F1F1F1F1F1F1F1"))
    }

    const fn ksn(counter: u32) -> Ksn {
        Ksn {
            key_id: KEY_ID,
            counter,
        }
    }

    /// ANSI X9.24-3-2017, Annex B and the supplement's test vectors, AES-128 from AES-128.
    #[test]
    fn published_values() {
        let initial = base().initial_key(KEY_ID);
        assert_eq!(*initial.expose(), key("1273671EA26AC29AFA4D1084127652A1"));
        for (counter, derivation) in [
            (1, "4F21B565BAD9835E112B6465635EAE44"),
            (2, "2F34D68DE10F68D38091A73B9E7C437C"),
            (3, "031504E530365CF81264238540518318"),
            (8, "718EE6CF0B27E53D5F7AF99C4D8146A2"),
            (0xFFFE_4000, "396C2C7CA1EA701C03B86B7D41F0C562"),
            (0xFFFE_8000, "0387625F189B58AE03EF0E8CCA41105E"),
            (0xFFFF_0000, "F6BA59389BD14A9855BE9727E7C52E3C"),
        ] {
            let derived = initial.derivation_key(counter).unwrap();
            assert_eq!(*derived, key(derivation), "{counter:X}");
        }
        let working = base().transport_key(ksn(1)).unwrap();
        assert_eq!(*working.bytes(), key("36A724B7BEFA5A25F5E7B5782A4554A2"));
    }

    /// The registers after loading: the published list begins so.
    #[test]
    fn published_registers() {
        let mut dukpt = Dukpt::load(&base().initial_key(KEY_ID));
        assert_eq!((Dukpt::SAVED, dukpt.counter()), (524, 1));
        for (register, published) in dukpt.registers.iter().zip([
            "4F21B565BAD9835E112B6465635EAE44",
            "2F34D68DE10F68D38091A73B9E7C437C",
            "0EEFC7ADA628BA68878DA9165A8A1887",
            "718EE6CF0B27E53D5F7AF99C4D8146A2",
            "7459762EED7F51D08567ED6598DFBEA2",
            "1ED39390B4448C69819EB55F4C616564",
            "C13BDA0A56D6998E544E0A10A3D979DA",
            "089F6B989CA13D49A6A0317F85460CE5",
        ]) {
            assert_eq!(*register, key(published));
        }
        dukpt.next_key().unwrap();
        assert_eq!(dukpt.counter(), 2);
    }

    #[test]
    fn terminal_and_host_agree_and_used_keys_are_gone() {
        let mut dukpt = Dukpt::load(&base().initial_key(KEY_ID));
        for counter in 1..3000 {
            let (id, working) = dukpt.next_key().unwrap();
            assert_eq!(id, TransportKeyId::Dukpt(ksn(counter)));
            let host = base().transport_key(ksn(counter)).unwrap();
            assert_eq!(working.bytes(), host.bytes(), "{counter}");
            // Forward secrecy: the derivation key of this transaction is in no register.
            let used = base().initial_key(KEY_ID).derivation_key(counter).unwrap();
            assert!(dukpt.registers.iter().all(|register| *register != *used));
        }
        let mut saved = [0; Dukpt::SAVED];
        dukpt.save(&mut saved);
        let mut restored = Dukpt::restore(&saved);
        let (one, other) = (dukpt.next_key().unwrap(), restored.next_key().unwrap());
        assert_eq!((one.0, one.1.bytes()), (other.0, other.1.bytes()));
    }

    /// A terminal that has come as far as `counter`, made from what the host derives.
    fn at(counter: u32) -> Dukpt {
        let initial = base().initial_key(KEY_ID);
        let mut dukpt = Dukpt::load(&initial);
        dukpt.counter = counter;
        for (bit, register) in (0_u32..).zip(dukpt.registers.iter_mut()) {
            let above = u64::from(counter) >> (bit + 1) << (bit + 1);
            let counter = u32::try_from(above & 0xFFFF_FFFF).unwrap() | 1 << bit;
            if counter.count_ones() <= MAX_WORK {
                *register = *initial.derivation_key(counter).unwrap();
            }
        }
        dukpt
    }

    #[test]
    fn the_end_of_the_keys() {
        let mut dukpt = at(0xFFFE_4000);
        for counter in [0xFFFE_4000, 0xFFFE_8000, 0xFFFF_0000] {
            let (id, working) = dukpt.next_key().unwrap();
            assert_eq!(id, TransportKeyId::Dukpt(ksn(counter)));
            assert_eq!(
                working.bytes(),
                base().transport_key(ksn(counter)).unwrap().bytes()
            );
        }
        assert_eq!(dukpt.next_key().unwrap_err(), TerminalError::KeysUsedUp);
        assert_eq!(dukpt.counter(), 0);
        for unused in [0, 0xFFFF_8000, 0xFFFF_FFFF] {
            assert!(base().transport_key(ksn(unused)).is_none());
        }
    }

    #[test]
    fn nothing_prints_itself() {
        let initial = base().initial_key(KEY_ID);
        let text = format!("{:?} {:?} {:?}", base(), initial, Dukpt::load(&initial));
        assert!(!text.to_uppercase().contains("1273") && !text.contains("FEDC"));
    }
}
