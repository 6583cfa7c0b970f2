//! Every mode of split authentication on the software card: the same bytes on the card's link as
//! from a local session, and the same card afterwards.

#[path = "support/split.rs"]
mod support;

use desfire_ev1::split::{
    Accepted, Carrier, Carries, Effect, Finished, Judgement, Mode, Relay, RemoteCard, ScriptBuilder,
    SoftKey, Stop, Verdict, authenticate,
};
use desfire_ev1::wire::{Amount, AuthScheme, FileNo, KeyNo};
use desfire_ev1::{Authenticated, Key, LinkFormat, Machine, Session, Transport, VirtualReader};
use support::*;

fn file(number: u8) -> FileNo {
    FileNo::new(number).unwrap()
}

/// The transaction of these tests, live.
fn pay<T: Transport>(session: &mut Session<Authenticated>, link: &mut T)
where
    T::Error: std::fmt::Debug,
{
    session.debit(file(2), Amount::new(250).unwrap()).run(link).unwrap();
    session.write_record(file(4), 0, b"coffee").run(link).unwrap();
    session.write_data(file(1), 4, b"a backup that takes more").run(link).unwrap();
    session.commit_transaction().run(link).unwrap();
    assert_eq!(session.get_value(file(2)).run(link).unwrap(), 750);
}

/// The same, put into a script; the value is known afterwards.
fn pay_ahead(session: &mut Session<Authenticated>, script: &mut ScriptBuilder<'_>) {
    script.send(session.debit(file(2), Amount::new(250).unwrap())).unwrap();
    script.send(session.write_record(file(4), 0, b"coffee")).unwrap();
    script.send(session.write_data(file(1), 4, b"a backup that takes more")).unwrap();
    script.send(session.commit_transaction()).unwrap();
    let value = script.expect(session.get_value(file(2)), &750_i32.to_le_bytes());
    assert_eq!(value.unwrap(), 750);
}

/// A local tap: how many frames, and the card.
fn local() -> Counter {
    let mut counter = Counter::demo();
    let mut session = counter
        .selected()
        .authenticate_aes(KeyNo::MASTER, &Key::aes([0; 16]), &mut getrandom::SysRng)
        .run(&mut counter)
        .unwrap();
    state_settings(&mut session, VirtualReader::demo().card());
    pay(&mut session, &mut counter);
    counter
}

/// The frames of two taps say the same: codes, lengths, statuses, and what is not enciphered or
/// random. The secrets differ with the nonces.
fn same_tap(one: &Counter, other: &Counter) {
    let shape = |counter: &Counter| -> Vec<_> {
        let frames = counter.frames.iter();
        frames.map(|(c, r)| (c[..2].to_vec(), c.len(), r.len(), r[r.len() - 2..].to_vec())).collect()
    };
    assert_eq!(shape(one), shape(other));
    assert_eq!(one.card().state(), other.card().state());
}

#[test]
fn card_locked() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let waiting = counter.tap(aes(Mode::CardLocked, 1));
    let answer = shop.answer(&waiting.message().unwrap()).card_locked().unwrap();
    let mut session = waiting.card_locked(&answer).unwrap().run(&mut counter).unwrap();
    state_settings(&mut session, VirtualReader::demo().card());
    pay(&mut session, &mut counter);
    same_tap(&local(), &counter);
}

#[test]
fn proven() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let waiting = counter.tap(aes(Mode::Proven, 1));
    let (token, pending) = shop.answer(&waiting.message().unwrap()).proven(10).unwrap();
    let proven = waiting.proven(&token).unwrap().run(&mut counter).unwrap();
    let release = pending.release(&proven.message().unwrap(), 10).unwrap();
    let mut session = proven.release(&release).unwrap();
    state_settings(&mut session, VirtualReader::demo().card());
    pay(&mut session, &mut counter);
    same_tap(&local(), &counter);
}

#[test]
fn script() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let waiting = counter.tap(aes(Mode::Script, 1));
    let (mut script, mut record) = ([0; 1024], [0; 1024]);
    let answered = shop.answer(&waiting.message().unwrap());
    let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
    state_settings(&mut session, counter.card());
    pay_ahead(&mut session, &mut builder);
    let Finished { script, record } = builder.finish().unwrap();

    let mut receipt = [0; 512];
    let mut player = waiting.script(script, &mut receipt).unwrap();
    let ending = player.play(&mut counter).unwrap();
    assert_eq!(ending.stop, Stop::Complete);
    assert_eq!((ending.effect, ending.commands), (Effect::Done, 5));
    let receipt = player.into_receipt().unwrap();
    let judgement = record.judge(receipt, &transport_key()).unwrap();
    assert_eq!(
        judgement,
        Judgement { verdict: Verdict::Done, proved: 5, deviation: None, known: 5, unknown: 0 }
    );
    same_tap(&local(), &counter);
}

struct Network<'t> {
    relay: Relay,
    counter: &'t mut Counter,
}

impl Carries for Network<'_> {
    type Error = desfire_ev1::split::TerminalError;
}

impl Carrier for Network<'_> {
    fn call(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize, Self::Error> {
        let reply = self.relay.exchange(message, &mut *self.counter)?.unwrap();
        answer[..reply.len()].copy_from_slice(&reply);
        Ok(reply.len())
    }
}

#[test]
fn remote() {
    let mut shop = Shop::new(Key::aes([0; 16]));
    let mut counter = Counter::demo();
    let relay = Relay::new(aes(Mode::Remote, 1), AID, LinkFormat::WRAPPED, &transport_key());
    let relay = relay.unwrap();
    let accepted: Accepted = shop.accept(&relay.message().unwrap()).unwrap();
    let network = Network { relay, counter: &mut counter };
    let mut card = RemoteCard::new(&accepted, network).unwrap();
    let session = Session::new().select_application(AID).run(&mut card).unwrap();
    let mut session = authenticate(
        session,
        AuthScheme::Aes,
        KeyNo::MASTER,
        &mut SoftKey::new(&shop.key),
        &mut getrandom::SysRng,
        &mut card,
    )
    .unwrap();
    state_settings(&mut session, VirtualReader::demo().card());
    pay(&mut session, &mut card);
    assert!(!card.goodbye().unwrap().is_empty());
    same_tap(&local(), &counter);
}
