//! The authentication by ISO 7816-4 commands: three APDUs that end in the same EV1 session.
//!
//! | | command | to the card | from the card |
//! |---|---|---|---|
//! | 1 | GET CHALLENGE `00 84 00 00 Le` | – | RPICC1, 8 or 16 bytes, in clear |
//! | 2 | EXTERNAL AUTHENTICATE `00 82 P1 P2 Lc` | E(RPCD1 ‖ RPICC1) | – |
//! | 3 | INTERNAL AUTHENTICATE `00 88 P1 P2 Lc .. Le` | RPCD2 in clear | E(RPICC2 ‖ RPCD2) |
//!
//! One CBC chain runs through both cryptograms, from a zero IV. P1 names the algorithm (`02` DES and
//! 2K3DES, `04` 3K3DES, `09` AES), P2 the key (`00` the PICC master key, `80` + number a key of the
//! application). The session key comes from RPCD1 and RPICC2 by the formulas of the native
//! handshakes. Step 2 has no Le: a card answered 6700 to one (a report on Stack Overflow). Sources:
//! proxmark3 `desfirecore.c`, liblogicalaccess; **no recording with a known key is known**.

use subtle::ConstantTimeEq as _;
use zeroize::Zeroizing;

use super::SessionKey;
use super::holder::derive;
use crate::error::{Authenticity, Error, ErrorKind, Malformed, Misuse};
use crate::pcd::crypto::cipher::{Cipher, Iv};
use crate::pcd::exchange::{LinkFormat, Machine, Step};
use crate::pcd::iso_exchange::refusal;
use crate::pcd::key::Key;
use crate::pcd::session::{Authenticated, Place, Session};
use crate::wire::apdu::{CommandApdu, ResponseApdu};
use crate::wire::frame::MAX_COMMAND;
use crate::wire::{AuthScheme, Instruction, IsoInstruction, KeyNo, KeyType, StatusWord};

/// The longest nonce.
const MAX_NONCE: usize = 16;

/// RPCD1 and RPCD2, each as long as the key type's nonces.
type Nonces = Zeroizing<[u8; 2 * MAX_NONCE]>;

fn halves(nonces: &Nonces, nonce_len: usize) -> [&[u8]; 2] {
    let (first, second) = nonces.split_at(MAX_NONCE);
    [first, second].map(|nonce| nonce.get(..nonce_len).unwrap_or_default())
}

/// The key holder's half after step 2.
struct Challenged {
    cipher: Cipher,
    iv: Iv,
}

impl Challenged {
    /// E(RPCD1 ‖ RPICC1), in place of it.
    fn token(key: &Key, token: &mut [u8]) -> Self {
        let cipher = Cipher::new(key);
        let mut iv = Iv::ZERO;
        cipher.cbc_encrypt(&mut iv, token);
        Self { cipher, iv }
    }

    /// Checks E(RPICC2 ‖ RPCD2), which is overwritten, and derives the session key.
    fn verify(
        &mut self,
        key_type: KeyType,
        [rnd_pcd_1, rnd_pcd_2]: [&[u8]; 2],
        proof: &mut [u8],
    ) -> Result<SessionKey, ErrorKind> {
        self.cipher.cbc_decrypt(&mut self.iv, proof);
        let (rnd_picc_2, echoed) = proof
            .split_at_checked(rnd_pcd_2.len())
            .ok_or(Authenticity::ProofWrong)?;
        if !bool::from(echoed.ct_eq(rnd_pcd_2)) {
            return Err(Authenticity::ProofWrong.into());
        }
        Ok(derive(AuthScheme::Iso, key_type, rnd_pcd_1, rnd_picc_2))
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Fresh,
    Challenging,
    External,
    Internal,
    Over,
}

/// A handshake by ISO 7816-4 commands with a key at hand: see [`Session::authenticate_iso7816`].
#[must_use = "a handshake does nothing until it is run"]
pub struct AuthenticateIso7816<'k> {
    key: &'k Key,
    key_no: KeyNo,
    nonces: Result<Nonces, ErrorKind>,
    place: Option<Place>,
    state: State,
    /// From step 2 on. It stays where it is until it is dropped: moved, it would leave the key's
    /// schedule behind.
    challenged: Option<Challenged>,
    frame: [u8; MAX_COMMAND],
}

impl<'k> AuthenticateIso7816<'k> {
    pub(in crate::pcd) const fn new(
        key_no: KeyNo,
        key: &'k Key,
        nonces: Result<Nonces, ErrorKind>,
        place: Place,
    ) -> Self {
        Self {
            key,
            key_no,
            nonces,
            place: Some(place),
            state: State::Fresh,
            challenged: None,
            frame: [0; MAX_COMMAND],
        }
    }

    fn instruction(&self) -> IsoInstruction {
        match self.state {
            State::Fresh | State::Challenging => IsoInstruction::GetChallenge,
            State::External => IsoInstruction::ExternalAuthenticate,
            State::Internal | State::Over => IsoInstruction::InternalAuthenticate,
        }
    }

    fn out_of_turn(&self) -> Error {
        let sent = !matches!(self.state, State::Fresh);
        Error::out_of_turn(self.instruction(), sent).session_gone(true)
    }

    /// RPCD1 and RPCD2.
    fn nonces(&self) -> Result<[&[u8]; 2], ErrorKind> {
        let nonce_len = self.key.key_type().nonce_len();
        let nonces = self.nonces.as_ref().map_err(|kind| *kind)?;
        Ok(halves(nonces, nonce_len))
    }

    fn p1_p2(&self) -> [u8; 2] {
        let algorithm = match self.key.key_type() {
            KeyType::Des | KeyType::TwoKey3Des => 0x02,
            KeyType::ThreeKey3Des => 0x04,
            KeyType::Aes => 0x09,
        };
        let at_picc_level = self.place.as_ref().is_some_and(Place::is_picc);
        let key = if at_picc_level {
            0x00
        } else {
            0x80 | self.key_no.number()
        };
        [algorithm, key]
    }

    fn send(
        &mut self,
        [p1, p2]: [u8; 2],
        data: &[u8],
        le: Option<usize>,
    ) -> Result<&[u8], ErrorKind> {
        let apdu = CommandApdu {
            cla: 0x00,
            ins: self.instruction().to_byte(),
            p1,
            p2,
            data,
            le: le.and_then(|le| u16::try_from(le).ok()),
        };
        let len = apdu.encode(&mut self.frame).map_err(Misuse::Parameter)?;
        Ok(self.frame.get(..len).unwrap_or_default())
    }

    fn advance(&mut self, reply: &[u8]) -> Result<Step<'_, Session<Authenticated>>, ErrorKind> {
        // Whatever goes wrong from here, this handshake is over.
        let state = self.state;
        self.state = State::Over;
        let reply = ResponseApdu::parse(reply)?;
        if reply.sw != StatusWord::OK {
            return Err(refusal(reply.sw));
        }
        let key_type = self.key.key_type();
        let nonce_len = key_type.nonce_len();
        let expect = |expected| match reply.data.len() {
            received if received != expected => Err(Malformed::Length { expected, received }),
            _ => Ok(()),
        };
        match state {
            State::Challenging => {
                expect(nonce_len)?;
                let mut token = Zeroizing::new([0; 2 * MAX_NONCE]);
                let token = token.get_mut(..2 * nonce_len).unwrap_or_default();
                let [rnd_pcd_1, _] = self.nonces()?;
                for (to, from) in token.iter_mut().zip(rnd_pcd_1.iter().chain(reply.data)) {
                    *to = *from;
                }
                self.challenged = Some(Challenged::token(self.key, token));
                self.state = State::External;
                self.send(self.p1_p2(), token, None).map(Step::Transmit)
            }
            State::External => {
                expect(0)?;
                let mut clear = [0; MAX_NONCE];
                let clear = clear.get_mut(..nonce_len).unwrap_or_default();
                let [_, rnd_pcd_2] = self.nonces()?;
                clear.copy_from_slice(rnd_pcd_2);
                self.state = State::Internal;
                self.send(self.p1_p2(), clear, Some(2 * nonce_len))
                    .map(Step::Transmit)
            }
            State::Internal => {
                expect(2 * nonce_len)?;
                let mut proof = Zeroizing::new([0; 2 * MAX_NONCE]);
                let proof = proof.get_mut(..2 * nonce_len).unwrap_or_default();
                proof.copy_from_slice(reply.data);
                let nonces = self.nonces.as_ref().map_err(|kind| *kind)?;
                let nonces = halves(nonces, nonce_len);
                let challenged = self.challenged.as_mut().ok_or(Malformed::Handshake)?;
                let key = challenged.verify(key_type, nonces, proof)?;
                self.challenged = None;
                let place = self.place.take().ok_or(Malformed::Handshake)?;
                Ok(Step::Done(Session::opened(
                    &key,
                    self.key_no,
                    key_type,
                    place,
                )))
            }
            State::Fresh | State::Over => Err(Misuse::OutOfTurn.into()),
        }
    }
}

impl Machine for AuthenticateIso7816<'_> {
    type Output = Session<Authenticated>;

    fn command(&self) -> Instruction {
        self.instruction().into()
    }

    fn start(&mut self, format: LinkFormat) -> Result<&[u8], Error> {
        let not_sent =
            |kind| Error::not_sent(IsoInstruction::GetChallenge, kind).session_gone(true);
        let at_picc_level = self.place.as_ref().is_some_and(Place::is_picc);
        if at_picc_level && !self.key_no.is_master() {
            return Err(not_sent(ErrorKind::Misuse(Misuse::Invalid(
                "the card itself has only key 0",
            ))));
        }
        if !matches!(self.state, State::Fresh) {
            return Err(self.out_of_turn());
        }
        if let Err(kind) = &self.nonces {
            return Err(not_sent(*kind));
        }
        let nonce_len = self.key.key_type().nonce_len();
        // INTERNAL AUTHENTICATE is shorter than EXTERNAL AUTHENTICATE; both have to fit.
        let needed = 5 + 2 * nonce_len;
        if needed > format.max_command {
            return Err(not_sent(ErrorKind::Misuse(Misuse::TransportTooNarrow {
                needed,
                available: format.max_command,
            })));
        }
        self.state = State::Challenging;
        self.send([0, 0], &[], Some(nonce_len)).map_err(not_sent)
    }

    fn step(&mut self, reply: &[u8]) -> Result<Step<'_, Self::Output>, Error> {
        let instruction = self.instruction();
        if matches!(self.state, State::Fresh | State::Over) {
            return Err(self.out_of_turn());
        }
        match self.advance(reply) {
            Ok(step) => Ok(step),
            Err(kind) => Err(Error::after_sending(instruction, kind)),
        }
    }
}

impl<S> Session<S> {
    /// The ISO 7816-4 authentication, for keys of any type; it ends in an EV1 session. Three
    /// exchanges instead of two: prefer the native ones, unless only ISO commands get through.
    ///
    /// No public recording confirms it, see the source's first lines.
    ///
    /// **For DES, 2K3DES and AES keys the end of this handshake proves nothing yet**: the card's last
    /// answer can be forged, the session key cannot. Run a command before believing that the card is
    /// there; [`Session::free_mem`] works at every level, changes nothing, and has a CMAC.
    ///
    /// ```
    /// # use desfire_ev1::{Key, Machine, Session, VirtualReader, wire::*};
    /// # let mut reader = VirtualReader::demo();
    /// # let session = Session::new().select_application(VirtualReader::DEMO_AID).run(&mut reader)?;
    /// let key = Key::aes([0; 16]);
    /// let mut session = session
    ///     .authenticate_iso7816(KeyNo::MASTER, &key, &mut getrandom::SysRng)
    ///     .run(&mut reader)?;
    /// session.free_mem().run(&mut reader)?; // now it is proved
    /// assert_eq!(session.get_value(FileNo::new(2)?).run(&mut reader)?, 1000);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    pub fn authenticate_iso7816<'k, R: rand_core::TryCryptoRng + ?Sized>(
        self,
        key_no: KeyNo,
        key: &'k Key,
        rng: &mut R,
    ) -> AuthenticateIso7816<'k> {
        let nonces = self.inner.ready().map(|()| Zeroizing::default());
        let nonces = nonces.map_err(Into::into);
        let mut machine = AuthenticateIso7816::new(key_no, key, nonces, self.inner.place);
        // Where they stay: moved, they would leave a copy behind.
        if let Ok(nonces) = &mut machine.nonces
            && rng.try_fill_bytes(nonces.as_mut()).is_err()
        {
            machine.nonces = Err(ErrorKind::Randomness);
        }
        machine
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Outcome;
    use crate::pcd::command::testing::hex;
    use crate::wire::Aid;
    use std::vec::Vec;

    /// The card's half, with the primitives but not the code of the reader's.
    struct Card {
        key: Key,
        challenge: Vec<u8>,
        rnd_picc_2: Vec<u8>,
    }

    fn nonces() -> Nonces {
        let mut nonces = Zeroizing::new([0; 32]);
        for (index, byte) in (0_u8..).zip(nonces.iter_mut()) {
            *byte = index;
        }
        nonces
    }

    fn key_no(level: u32) -> KeyNo {
        KeyNo::new(if level == 0 { 0 } else { 3 }).unwrap()
    }

    fn machine(key: &Key, level: u32) -> AuthenticateIso7816<'_> {
        let place = Session::at_level(Aid::new(level).unwrap()).inner.place;
        AuthenticateIso7816::new(key_no(level), key, Ok(nonces()), place)
    }

    fn play(card: &Card, level: u32, spoil: Option<usize>) -> Result<(), Error> {
        let len = card.challenge.len();
        let cipher = Cipher::new(&card.key);
        let mut machine = machine(&card.key, level);
        let sent = machine.start(LinkFormat::WRAPPED)?;
        assert_eq!(sent, [0x00, 0x84, 0x00, 0x00, u8::try_from(len).unwrap()]);
        let reply = [&card.challenge[..], &[0x90, 0x00]].concat();
        let Step::Transmit(sent) = machine.step(&reply)? else {
            panic!("done after the challenge");
        };
        let sent = sent.to_vec();
        let p1 = match card.key.key_type() {
            KeyType::Aes => 0x09,
            KeyType::ThreeKey3Des => 0x04,
            _ => 0x02,
        };
        let p2 = if level == 0 { 0x00 } else { 0x83 };
        assert_eq!(
            sent[..5],
            [0x00, 0x82, p1, p2, u8::try_from(2 * len).unwrap()]
        );
        assert_eq!(sent.len(), 5 + 2 * len, "no Le");
        let mut token = sent[5..].to_vec();
        let mut iv = Iv::ZERO;
        cipher.cbc_decrypt(&mut iv, &mut token);
        assert_eq!(token[..len], nonces()[..len]);
        assert_eq!(token[len..], card.challenge);
        let Step::Transmit(sent) = machine.step(&[0x90, 0x00])? else {
            panic!("done after the token");
        };
        let rnd_pcd_2 = sent[5..5 + len].to_vec();
        assert_eq!(sent[..4], [0x00, 0x88, p1, p2]);
        assert_eq!(sent.last(), Some(&u8::try_from(2 * len).unwrap()));
        assert_eq!(rnd_pcd_2, nonces()[16..16 + len]);
        let mut proof = [&card.rnd_picc_2[..], &rnd_pcd_2].concat();
        cipher.cbc_encrypt(&mut iv, &mut proof);
        if let Some(bit) = spoil {
            proof[bit / 8] ^= 1 << (bit % 8);
        }
        proof.extend([0x90, 0x00]);
        match machine.step(&proof)? {
            Step::Done(session) => assert_eq!(session.key_in_use(), key_no(level)),
            Step::Transmit(_) => panic!("a fourth command"),
        }
        Ok(())
    }

    fn cards() -> [Card; 4] {
        [
            Key::des([0x13; 8]),
            Key::two_key_3des(*b"0123456789abcdef").unwrap(),
            Key::three_key_3des(*b"0123456789abcdefghijklmn"),
            Key::aes(*b"0123456789abcdef"),
        ]
        .map(|key| {
            let len = key.key_type().nonce_len();
            Card {
                key,
                challenge: (0xC0..).take(len).collect(),
                rnd_picc_2: (0xE0..).take(len).collect(),
            }
        })
    }

    #[test]
    fn as_much_as_the_link_takes() {
        for (key, needed) in [(Key::aes([0; 16]), 37), (Key::des([0; 8]), 21)] {
            let start = |max_command| {
                let format = LinkFormat {
                    max_command,
                    ..LinkFormat::WRAPPED
                };
                machine(&key, 1).start(format).map(<[u8]>::len)
            };
            assert_eq!(start(needed), Ok(5));
            let error = start(needed - 1).unwrap_err();
            let available = needed - 1;
            let narrow = Misuse::TransportTooNarrow { needed, available };
            assert_eq!(
                (error.kind, error.outcome),
                (narrow.into(), Outcome::NotSent)
            );
        }
    }

    #[test]
    fn all_key_types_at_both_levels() {
        for card in cards() {
            for level in [0, 1] {
                play(&card, level, None).unwrap();
            }
        }
    }

    /// A spoiled first half garbles the block after it, so that every bit counts.
    #[test]
    fn a_proof_with_a_wrong_bit_gives_no_session() {
        for card in cards() {
            for bit in 0..16 * card.challenge.len() {
                // The bits of RPICC2's blocks but the last only change the session key, which
                // the first MAC finds out.
                let block_len = card.key.key_type().block_len();
                let last_blocks = 2 * card.challenge.len() - block_len - card.challenge.len();
                if bit / 8 < last_blocks {
                    continue;
                }
                let error = play(&card, 1, Some(bit)).unwrap_err();
                assert_eq!(
                    error.kind,
                    ErrorKind::Authenticity(Authenticity::ProofWrong)
                );
                assert_eq!(error.outcome, Outcome::Unknown);
            }
        }
    }

    #[test]
    fn refusals_and_wrong_lengths() {
        let key = Key::aes([1; 16]);
        let cases: [(&[&str], ErrorKind); 5] = [
            (
                &["6d00"],
                ErrorKind::RefusedIso(StatusWord::INS_NOT_SUPPORTED),
            ),
            (
                &["0011223344556677 9000"],
                Malformed::Length {
                    expected: 16,
                    received: 8,
                }
                .into(),
            ),
            (
                &["00112233445566778899aabbccddeeff 9000", "6982"],
                ErrorKind::RefusedIso(StatusWord::SECURITY_NOT_SATISFIED),
            ),
            (
                &["00112233445566778899aabbccddeeff 9000", "00 9000"],
                Malformed::Length {
                    expected: 0,
                    received: 1,
                }
                .into(),
            ),
            (
                &["00112233445566778899aabbccddeeff 9000", "9000", "9000"],
                Malformed::Length {
                    expected: 32,
                    received: 0,
                }
                .into(),
            ),
        ];
        for (replies, kind) in cases {
            let mut machine = machine(&key, 1);
            machine.start(LinkFormat::WRAPPED).unwrap();
            let (last, before) = replies.split_last().unwrap();
            for reply in before {
                machine.step(&hex(reply)).unwrap();
            }
            assert_eq!(machine.step(&hex(last)).unwrap_err().kind, kind);
            let error = machine.step(&hex("9000")).unwrap_err();
            assert_eq!(error.kind, Misuse::OutOfTurn.into());
            assert_eq!(error.outcome, Outcome::Unknown);
        }
        let error = machine(&key, 1).step(&hex("9000")).unwrap_err();
        assert_eq!(error.kind, Misuse::OutOfTurn.into());
        assert_eq!(error.outcome, Outcome::NotSent);
    }
}
