//! What an ACR122U and its relatives can do besides carrying commands.
//!
//! The same bytes travel as pseudo-APDUs while a card is connected ([`PcscCard::acr122u`]) and as
//! escape codes without one ([`PcscContext::acr122u`](super::PcscContext::acr122u)); the latter need
//! bit 0 of `ifdDriverOptions` in libccid's `Info.plist` on Linux, and the registry value
//! `EscapeCommandEnable` on Windows.
//!
//! | function | bytes | answer |
//! |---|---|---|
//! | firmware | `FF 00 48 00 00` | ASCII, no status word |
//! | LED and buzzer | `FF 00 40 ss 04 T1 T2 n b` | `90 state` |
//! | read PICC parameters | `FF 00 50 00 00` | `90 pp` |
//! | set PICC parameters | `FF 00 51 pp 00` | `90 pp` |
//! | time-out | `FF 00 41 tt 00` | `90 00` |
//! | buzzer on detection | `FF 00 52 bb 00` | `90 00` |
//!
//! Refusals are `63 00`. Source: ACS, ACR122U USB NFC Reader, Application Programming Interface
//! V2.04, 6.2 to 6.7. Not tried on hardware here.

use std::string::String;
use std::time::Duration;

use super::{PcscCard, PcscError};
use crate::wire::StatusWord;

bitflags::bitflags! {
    /// How the reader looks for cards.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct PiccParameters: u8 {
        /// Looks for cards by itself.
        const AUTO_POLLING = 0x80;
        /// Activates ISO/IEC 14443-4 by itself, which DESFire needs.
        const AUTO_ATS = 0x40;
        /// Looks every 250 ms instead of every 500.
        const POLL_EVERY_250_MS = 0x20;
        /// Looks for FeliCa at 424 kbit/s.
        const FELICA_424 = 0x10;
        /// Looks for FeliCa at 212 kbit/s.
        const FELICA_212 = 0x08;
        /// Looks for Topaz.
        const TOPAZ = 0x04;
        /// Looks for ISO/IEC 14443 type B.
        const ISO_14443_B = 0x02;
        /// Looks for ISO/IEC 14443 type A, which DESFire is.
        const ISO_14443_A = 0x01;
    }
}

bitflags::bitflags! {
    /// The LED part of an LED-and-buzzer command.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub struct Led: u8 {
        /// Red is on afterwards.
        const FINAL_RED = 0x01;
        /// Green is on afterwards.
        const FINAL_GREEN = 0x02;
        /// Red is changed by this command.
        const UPDATE_RED = 0x04;
        /// Green is changed by this command.
        const UPDATE_GREEN = 0x08;
        /// Red is on at the start of blinking.
        const INITIAL_RED = 0x10;
        /// Green is on at the start of blinking.
        const INITIAL_GREEN = 0x20;
        /// Red blinks.
        const BLINK_RED = 0x40;
        /// Green blinks.
        const BLINK_GREEN = 0x80;
    }
}

/// When the buzzer sounds during an LED-and-buzzer command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Buzzer {
    /// Not at all.
    Silent,
    /// During the first half of each blink.
    First,
    /// During the second half of each blink.
    Second,
    /// All the time.
    Both,
}

/// A way to the reader itself.
pub trait Escape {
    /// Sends a pseudo-APDU; returns the length of the answer.
    ///
    /// # Errors
    /// The reader or its driver does not take it.
    fn escape(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, PcscError>;
}

impl Escape for &mut PcscCard {
    fn escape(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, PcscError> {
        self.transmit(command, reply)
    }
}

impl Escape for pcsc::Card {
    fn escape(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, PcscError> {
        let code = if cfg!(windows) { 3500 } else { 1 };
        self.control(pcsc::ctl_code(code), command, reply)
            .map(<[u8]>::len)
            .map_err(|error| match PcscError::from_pcsc(error) {
                // There is no card in this; so fail drivers that do not let escape codes through.
                PcscError::CardMute => PcscError::NotSupported,
                error => error,
            })
    }
}

/// The functions of an ACR122U.
pub struct Acr122u<E> {
    way: E,
}

impl<E: Escape> Acr122u<E> {
    pub(super) const fn new(way: E) -> Self {
        Self { way }
    }

    /// The name and version of the firmware, such as `ACR122U214`.
    ///
    /// # Errors
    /// [`PcscError::NotSupported`] if the answer is no text.
    pub fn firmware(&mut self) -> Result<String, PcscError> {
        let mut reply = [0; 32];
        let len = self
            .way
            .escape(&[0xFF, 0x00, 0x48, 0x00, 0x00], &mut reply)?;
        let text = reply.get(..len).unwrap_or_default();
        if text.len() < 3 || !text.iter().all(u8::is_ascii_graphic) {
            return Err(PcscError::NotSupported);
        }
        Ok(String::from_utf8_lossy(text).into_owned())
    }

    /// How the reader looks for cards.
    ///
    /// # Errors
    /// [`PcscError::ReaderStatus`] if it refuses.
    pub fn picc_parameters(&mut self) -> Result<PiccParameters, PcscError> {
        let bits = self.command(&[0xFF, 0x00, 0x50, 0x00, 0x00])?;
        Ok(PiccParameters::from_bits_retain(bits))
    }

    /// Changes how the reader looks for cards.
    ///
    /// # Errors
    /// [`PcscError::ReaderStatus`] if it refuses.
    pub fn set_picc_parameters(&mut self, parameters: PiccParameters) -> Result<(), PcscError> {
        self.command(&[0xFF, 0x00, 0x51, parameters.bits(), 0x00])?;
        Ok(())
    }

    /// How long the reader waits for a card's answer: in steps of 5 seconds, rounded up, from 5 to
    /// 1270; with `None` it waits for ever. (The reader's value 0, which checks no time-out, is
    /// not used.)
    ///
    /// # Errors
    /// [`PcscError::ReaderStatus`] if it refuses.
    pub fn set_timeout(&mut self, timeout: Option<Duration>) -> Result<(), PcscError> {
        let steps = match timeout {
            None => 0xFF,
            Some(timeout) => u8::try_from(timeout.as_millis().div_ceil(5000))
                .unwrap_or(0xFE)
                .clamp(0x01, 0xFE),
        };
        self.command(&[0xFF, 0x00, 0x41, steps, 0x00])?;
        Ok(())
    }

    /// Blinks and beeps `times` times, each blink two halves of `halves`, in steps of 100 ms,
    /// rounded up, to 25.5 s. Returns which LEDs are on: bit 0 red, bit 1 green.
    ///
    /// # Errors
    /// [`PcscError::ReaderStatus`] if it refuses.
    pub fn led_and_buzzer(
        &mut self,
        led: Led,
        halves: [Duration; 2],
        times: u8,
        buzzer: Buzzer,
    ) -> Result<u8, PcscError> {
        let [first, second] =
            halves.map(|half| u8::try_from(half.as_millis().div_ceil(100)).unwrap_or(u8::MAX));
        let buzzer = match buzzer {
            Buzzer::Silent => 0,
            Buzzer::First => 1,
            Buzzer::Second => 2,
            Buzzer::Both => 3,
        };
        self.command(&[
            0xFF,
            0x00,
            0x40,
            led.bits(),
            0x04,
            first,
            second,
            times,
            buzzer,
        ])
    }

    /// Whether the reader beeps when it finds a card.
    ///
    /// # Errors
    /// [`PcscError::ReaderStatus`] if it refuses.
    pub fn set_buzzer_on_detection(&mut self, on: bool) -> Result<(), PcscError> {
        let on = if on { 0xFF } else { 0x00 };
        self.command(&[0xFF, 0x00, 0x52, on, 0x00])?;
        Ok(())
    }

    /// Sends a command whose answer is `90` and one byte.
    fn command(&mut self, command: &[u8]) -> Result<u8, PcscError> {
        let mut reply = [0; 16];
        let len = self.way.escape(command, &mut reply)?;
        match reply.get(..len).unwrap_or_default() {
            [0x90, value] => Ok(*value),
            // The card has got it: it is no ACR122U that lies between.
            [0x91, _] => Err(PcscError::NotSupported),
            [high, low] => Err(PcscError::ReaderStatus(StatusWord(u16::from_be_bytes([
                *high, *low,
            ])))),
            _ => Err(PcscError::NotSupported),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    struct Scripted(&'static [u8], Vec<u8>);

    impl Escape for &mut Scripted {
        fn escape(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, PcscError> {
            self.1 = command.to_vec();
            reply[..self.0.len()].copy_from_slice(self.0);
            Ok(self.0.len())
        }
    }

    fn sent<T>(
        answer: &'static [u8],
        call: impl FnOnce(Acr122u<&mut Scripted>) -> T,
    ) -> (T, Vec<u8>) {
        let mut reader = Scripted(answer, Vec::new());
        let result = call(Acr122u::new(&mut reader));
        (result, reader.1)
    }

    #[test]
    fn literal_bytes() {
        let (firmware, bytes) = sent(b"ACR122U214", |mut reader| reader.firmware());
        assert_eq!(firmware.unwrap(), "ACR122U214");
        assert_eq!(bytes, [0xFF, 0x00, 0x48, 0x00, 0x00]);

        let (parameters, bytes) = sent(&[0x90, 0xFF], |mut reader| reader.picc_parameters());
        assert_eq!(parameters.unwrap(), PiccParameters::all());
        assert_eq!(bytes, [0xFF, 0x00, 0x50, 0x00, 0x00]);

        let wanted =
            PiccParameters::AUTO_POLLING | PiccParameters::AUTO_ATS | PiccParameters::ISO_14443_A;
        let (done, bytes) = sent(&[0x90, 0xC1], |mut reader| {
            reader.set_picc_parameters(wanted)
        });
        assert_eq!(
            (done, bytes),
            (Ok(()), Vec::from([0xFF, 0x00, 0x51, 0xC1, 0x00]))
        );

        let led = Led::FINAL_GREEN | Led::UPDATE_GREEN;
        let half = Duration::from_millis(250);
        let (state, bytes) = sent(&[0x90, 0x02], |mut reader| {
            reader.led_and_buzzer(led, [half, half], 3, Buzzer::First)
        });
        assert_eq!(state, Ok(2));
        assert_eq!(bytes, [0xFF, 0x00, 0x40, 0x0A, 0x04, 3, 3, 3, 1]);

        for (timeout, steps) in [
            (Some(Duration::ZERO), 1),
            (Some(Duration::from_secs(6)), 2),
            (Some(Duration::from_secs(100_000)), 0xFE),
            (None, 0xFF),
        ] {
            let (_, bytes) = sent(&[0x90, 0x00], |mut reader| reader.set_timeout(timeout));
            assert_eq!(bytes, [0xFF, 0x00, 0x41, steps, 0x00]);
        }
        let (_, bytes) = sent(&[0x90, 0x00], |mut reader| {
            reader.set_buzzer_on_detection(false)
        });
        assert_eq!(bytes, [0xFF, 0x00, 0x52, 0x00, 0x00]);
    }

    #[test]
    fn a_reader_that_refuses_or_is_another() {
        let (error, _) = sent(&[0x63, 0x00], |mut reader| reader.picc_parameters());
        assert_eq!(error, Err(PcscError::ReaderStatus(StatusWord(0x6300))));
        for other in [&[][..], &[0x91, 0x1C], &[0x90]] {
            let (error, _) = sent(other, |mut reader| reader.picc_parameters());
            assert_eq!(error, Err(PcscError::NotSupported));
        }
        let (error, _) = sent(&[0x63, 0x00], |mut reader| reader.firmware());
        assert_eq!(error, Err(PcscError::NotSupported));
        let (error, _) = sent(&[0x6E, 0x00], |mut reader| reader.firmware());
        assert_eq!(error, Err(PcscError::NotSupported));
    }
}
