//! What a reader learns of the card when it activates it.

use alloc::vec::Vec;

use super::random::Random;
use super::state::State;
use crate::wire::InlineBytes;

/// The first byte of a random UID (ISO/IEC 14443-3; recorded by NXP).
const RANDOM_UID: u8 = 0x08;

/// ISO/IEC 14443-3 and -4 identification, and what PC/SC makes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Activation {
    /// Seven bytes, or four in random-ID mode: 08 and three new ones every time.
    pub uid: InlineBytes<7>,
    /// As on the wire: `44 03`, in random-ID mode `04 03`.
    pub atqa: [u8; 2],
    /// After the last cascade level: `20`.
    pub sak: u8,
    /// The answer to select.
    pub ats: Vec<u8>,
    /// The ATR that a PC/SC reader makes of it: `3B 8n 80 01`, historical bytes, check byte.
    pub atr: Vec<u8>,
}

impl Activation {
    pub(super) fn of(state: &State, random: &mut Random) -> Self {
        let (uid, atqa) = if state.random_id() {
            let mut uid = random.generate(4);
            if let Some(first) = uid.first_mut() {
                *first = RANDOM_UID;
            }
            (InlineBytes::new(&uid), [0x04, 0x03])
        } else {
            (InlineBytes::new(&state.version().uid.0), [0x44, 0x03])
        };
        Self {
            uid: uid.unwrap_or(InlineBytes::EMPTY),
            atqa,
            sak: 0x20,
            ats: state.ats().to_vec(),
            atr: atr(state.ats()),
        }
    }
}

/// The ATR of a contactless card (PC/SC part 3).
fn atr(ats: &[u8]) -> Vec<u8> {
    let historical: Vec<u8> = historical_bytes(ats).iter().copied().take(15).collect();
    // At most 15, so the number fits its four bits.
    let count = historical
        .iter()
        .fold(0_u8, |count, _| count.saturating_add(1));
    let mut atr = [&[0x3B, 0x80 | count, 0x80, 0x01], &historical[..]].concat();
    let check = atr.iter().skip(1).fold(0, |check, byte| check ^ byte);
    atr.push(check);
    atr
}

/// What follows the interface bytes that T0 announces.
fn historical_bytes(ats: &[u8]) -> &[u8] {
    let Some([_, t0, rest @ ..]) = ats.get(..) else {
        return &[];
    };
    let interface = [0x10, 0x20, 0x40]
        .iter()
        .filter(|bit| t0 & **bit != 0)
        .count();
    rest.get(interface..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::picc::Card;
    use crate::wire::Uid;

    #[test]
    fn delivered_card() {
        let activation = Card::new(Uid([4, 1, 2, 3, 4, 5, 6])).activate();
        assert_eq!(&activation.uid[..], [4, 1, 2, 3, 4, 5, 6]);
        assert_eq!((activation.atqa, activation.sak), ([0x44, 0x03], 0x20));
        assert_eq!(activation.ats, [0x06, 0x75, 0x77, 0x81, 0x02, 0x80]);
        // As PC/SC readers report it.
        assert_eq!(activation.atr, [0x3B, 0x81, 0x80, 0x01, 0x80, 0x80]);
    }

    #[test]
    fn odd_ats() {
        assert_eq!(atr(&[0x01]), [0x3B, 0x80, 0x80, 0x01, 0x01]);
        assert_eq!(atr(&[0x02, 0x70]), [0x3B, 0x80, 0x80, 0x01, 0x01]);
        assert_eq!(
            atr(&[0x03, 0x00, 0x41]),
            [0x3B, 0x81, 0x80, 0x01, 0x41, 0x41]
        );
    }
}
