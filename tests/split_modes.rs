//! Every mode of split authentication on the software card: the same bytes on the card's link as
//! from a local session, and the same card afterwards.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::unreachable,
    clippy::cast_possible_truncation,
    reason = "a test is allowed to fail loudly"
)]

#[path = "support/split.rs"]
mod support;

use desfire_ev1::split::{
    Answered, AsyncCarrier, AsyncCbcKey, AsyncKeyStore, Carrier, Carries, CbcDirection, Effect,
    Finished, Judgement, KeyRequest, Mode, Relay, RemoteCard, ScriptBuilder, SoftKey, Stop,
    Verdict, authenticate, authenticate_async,
};
use desfire_ev1::wire::{Amount, AuthScheme, FileNo, KeyNo, KeyType};
use desfire_ev1::{
    AsyncTransport, Authenticated, Key, LinkFormat, Machine, Session, Transport, VirtualReader,
};
use support::*;

fn file(number: u8) -> FileNo {
    FileNo::new(number).unwrap()
}

/// The transaction of these tests, live.
fn pay<T: Transport>(session: &mut Session<Authenticated>, link: &mut T)
where
    T::Error: std::fmt::Debug,
{
    session
        .debit(file(2), Amount::new(250).unwrap())
        .run(link)
        .unwrap();
    session
        .write_record(file(4), 0, b"coffee")
        .run(link)
        .unwrap();
    session
        .write_data(file(1), 4, b"a backup that takes more")
        .run(link)
        .unwrap();
    session.commit_transaction().run(link).unwrap();
    assert_eq!(session.get_value(file(2)).run(link).unwrap(), 750);
}

/// The same, put into a script; the value is known afterwards.
fn pay_ahead(session: &mut Session<Authenticated>, script: &mut ScriptBuilder<'_>) {
    script
        .send(session.debit(file(2), Amount::new(250).unwrap()))
        .unwrap();
    script
        .send(session.write_record(file(4), 0, b"coffee"))
        .unwrap();
    script
        .send(session.write_data(file(1), 4, b"a backup that takes more"))
        .unwrap();
    script.send(session.commit_transaction()).unwrap();
    let value = script.expect(session.get_value(file(2)), &750_i32.to_le_bytes());
    assert_eq!(value.unwrap(), 750);
}

/// The same, async.
async fn pay_async<T: AsyncTransport>(session: &mut Session<Authenticated>, link: &mut T)
where
    T::Error: std::fmt::Debug,
{
    let debit = session.debit(file(2), Amount::new(250).unwrap());
    debit.run_async(link).await.unwrap();
    let record = session.write_record(file(4), 0, b"coffee");
    record.run_async(link).await.unwrap();
    let backup = session.write_data(file(1), 4, b"a backup that takes more");
    backup.run_async(link).await.unwrap();
    session.commit_transaction().run_async(link).await.unwrap();
    let left = session.get_value(file(2)).run_async(link).await;
    assert_eq!(left.unwrap(), 750);
}

/// All schemes, each with a key that is not its own inverse.
fn schemes() -> [(AuthScheme, Key); 6] {
    let two = Key::two_key_3des(*b"0123456789abcdef").unwrap();
    let des = Key::des(*b"\x13\x34\x57\x79\x9B\xBC\xDF\xF1");
    [
        (AuthScheme::Aes, Key::aes(*b"an AES-128 key..")),
        (
            AuthScheme::Iso,
            Key::three_key_3des(*b"a key of three DES keys!"),
        ),
        (AuthScheme::Iso, two.clone()),
        (AuthScheme::Iso, des.clone()),
        (AuthScheme::Legacy, two),
        (AuthScheme::Legacy, des),
    ]
}

/// A local tap, with the nonces of all the others.
fn local(scheme: AuthScheme, key: &Key) -> Counter {
    let mut counter = Counter::new(VirtualReader::new(card_with(key)));
    let session = counter
        .selected()
        .authenticate(scheme, KeyNo::MASTER, key, &mut Fixed(7));
    let mut session = session.run(&mut counter).unwrap();
    state_settings(&mut session, counter.card());
    pay(&mut session, &mut counter);
    counter
}

/// The same bytes in both directions, and the same card.
fn same_tap(one: &Counter, other: &Counter) {
    assert_eq!(one.frames, other.frames);
    assert_eq!(one.card().state(), other.card().state());
}

fn answer(shop: &mut Shop, message: &[u8]) -> Answered {
    let accepted = shop.accept(message).unwrap();
    accepted
        .answer(&mut SoftKey::new(&shop.key), &mut Fixed(7))
        .unwrap()
}

#[test]
fn card_locked() {
    let mut tried = 0;
    for (scheme, key) in schemes() {
        let mut shop = Shop::new(key.clone());
        let mut counter = Counter::new(VirtualReader::new(card_with(&key)));
        let waiting = counter.tap(intent(Mode::CardLocked, scheme, key.key_type(), 1));
        let message = waiting.message().unwrap();
        if key.key_type().nonce_len() == 8 {
            assert!(shop.accept(&message).is_err());
            continue;
        }
        let answer = answer(&mut shop, &message).card_locked().unwrap();
        let mut session = waiting
            .card_locked(&answer)
            .unwrap()
            .run(&mut counter)
            .unwrap();
        state_settings(&mut session, counter.card());
        pay(&mut session, &mut counter);
        same_tap(&local(scheme, &key), &counter);
        tried += 1;
    }
    assert_eq!(tried, 2);
}

#[test]
fn proven() {
    for (scheme, key) in schemes() {
        let mut shop = Shop::new(key.clone());
        let mut counter = Counter::new(VirtualReader::new(card_with(&key)));
        let waiting = counter.tap(intent(Mode::Proven, scheme, key.key_type(), 1));
        let message = waiting.message().unwrap();
        let (token, mut pending) = answer(&mut shop, &message).proven(10).unwrap();
        let proven = waiting.proven(&token).unwrap().run(&mut counter).unwrap();
        let release = pending.release(&proven.message().unwrap(), 10).unwrap();
        let mut session = proven.release(&release).unwrap();
        state_settings(&mut session, counter.card());
        pay(&mut session, &mut counter);
        same_tap(&local(scheme, &key), &counter);
    }
}

#[test]
fn script() {
    for (scheme, key) in schemes() {
        let mut shop = Shop::new(key.clone());
        let mut counter = Counter::new(VirtualReader::new(card_with(&key)));
        let waiting = counter.tap(intent(Mode::Script, scheme, key.key_type(), 1));
        let message = waiting.message().unwrap();
        if scheme == AuthScheme::Legacy {
            assert!(shop.accept(&message).is_err());
            continue;
        }
        let (mut script, mut record) = ([0; 1024], [0; 1024]);
        let answered = answer(&mut shop, &message);
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
        let done = Judgement {
            verdict: Verdict::Done,
            proved: 5,
            deviation: None,
            known: 5,
            unknown: 0,
        };
        assert_eq!(judgement, done);
        same_tap(&local(scheme, &key), &counter);
    }
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
    for (scheme, key) in schemes() {
        let mut shop = Shop::new(key.clone());
        let mut counter = Counter::new(VirtualReader::new(card_with(&key)));
        let intent = intent(Mode::Remote, scheme, key.key_type(), 1);
        let relay = Relay::new(intent, AID, LinkFormat::WRAPPED, &transport_key()).unwrap();
        let accepted = shop.accept(&relay.message().unwrap()).unwrap();
        let network = Network {
            relay,
            counter: &mut counter,
        };
        let mut card = RemoteCard::new(&accepted, network).unwrap();
        let session = Session::new()
            .select_application(AID)
            .run(&mut card)
            .unwrap();
        let (mut soft, mut rng) = (SoftKey::new(&key), Fixed(7));
        let session = authenticate(
            session,
            scheme,
            KeyNo::MASTER,
            &mut soft,
            &mut rng,
            &mut card,
        );
        let mut session = session.unwrap();
        state_settings(&mut session, &card_with(&key));
        pay(&mut session, &mut card);
        assert!(!card.goodbye().unwrap().is_empty());
        same_tap(&local(scheme, &key), &counter);
    }
}

/// Everything on the key holder's side and on the terminal's can be spawned: the futures are `Send`
/// if key and transport are.
#[test]
fn async_callers() {
    fn send<F: Future + Send>(future: F) -> F {
        future
    }
    let key = Key::aes(*b"an AES-128 key..");
    let mut shop = Shop::new(key.clone());
    let mut counter = Counter::new(VirtualReader::new(card_with(&key)));
    let waiting = counter.tap(aes(Mode::Script, 1));
    let accepted = shop.accept(&waiting.message().unwrap()).unwrap();
    let (mut soft, mut rng) = (SoftKey::new(&key), Fixed(7));
    let answered = pollster::block_on(send(accepted.answer_async(&mut soft, &mut rng))).unwrap();
    let (mut script, mut record) = ([0; 1024], [0; 1024]);
    let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
    state_settings(&mut session, counter.card());
    pay_ahead(&mut session, &mut builder);
    let Finished { script, record } = builder.finish().unwrap();
    let mut receipt = [0; 512];
    let mut player = waiting.script(script, &mut receipt).unwrap();
    let ending = pollster::block_on(player.play_async(&mut counter)).unwrap();
    assert_eq!(ending.effect, Effect::Done);
    let receipt = player.into_receipt().unwrap();
    assert_eq!(
        record.judge(receipt, &transport_key()).unwrap().verdict,
        Verdict::Done
    );
    same_tap(&local(AuthScheme::Aes, &key), &counter);

    let session = counter.selected();
    let authenticated = authenticate_async(
        session,
        AuthScheme::Aes,
        KeyNo::MASTER,
        &mut soft,
        &mut rng,
        &mut counter,
    );
    assert!(pollster::block_on(send(authenticated)).is_ok());
}

/// Keys that take their time: every call comes back once before it is done.
struct SlowKey {
    key: SoftKey,
    calls: usize,
}

impl AsyncCbcKey for SlowKey {
    type Error = Gone;

    fn key_type(&self) -> KeyType {
        AsyncCbcKey::key_type(&self.key)
    }

    async fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), Gone> {
        let mut come_back = false;
        std::future::poll_fn(|context| {
            if std::mem::replace(&mut come_back, true) {
                return std::task::Poll::Ready(());
            }
            context.waker().wake_by_ref();
            std::task::Poll::Pending
        })
        .await;
        self.calls += 1;
        let Ok(()) = AsyncCbcKey::cbc(&mut self.key, direction, iv, data).await;
        Ok(())
    }
}

struct SlowStore(SlowKey);

impl AsyncKeyStore for SlowStore {
    type Key<'s> = &'s mut SlowKey;
    type Error = Gone;

    async fn find(&mut self, wanted: &KeyRequest) -> Result<&mut SlowKey, Gone> {
        if (wanted.aid, wanted.key_no) == (AID, KeyNo::MASTER) {
            Ok(&mut self.0)
        } else {
            Err(Gone)
        }
    }
}

impl AsyncCarrier for Network<'_> {
    async fn call(&mut self, message: &[u8], answer: &mut [u8]) -> Result<usize, Self::Error> {
        let reply = self.relay.exchange_async(message, &mut *self.counter);
        let reply = reply.await?.unwrap();
        answer[..reply.len()].copy_from_slice(&reply);
        Ok(reply.len())
    }
}

/// One tap, from the challenge to the last byte, with nothing that blocks.
async fn tap_async(mode: Mode, scheme: AuthScheme, key: &Key) -> Counter {
    let mut shop = Shop::new(key.clone());
    let key = SoftKey::new(key);
    let mut store = SlowStore(SlowKey { key, calls: 0 });
    let mut counter = Counter::new(VirtualReader::new(card_with(&shop.key)));
    let settings = card_with(&shop.key);
    let intent = intent(mode, scheme, shop.key.key_type(), 1);
    if mode == Mode::Remote {
        let relay = Relay::new(intent, AID, LinkFormat::WRAPPED, &transport_key()).unwrap();
        let accepted = shop.accept(&relay.message().unwrap()).unwrap();
        let request = accepted.key_request();
        let network = Network {
            relay,
            counter: &mut counter,
        };
        let mut card = RemoteCard::new(&accepted, network).unwrap();
        let selected = Session::new().select_application(AID).run_async(&mut card);
        let selected = selected.await.unwrap();
        let mut key = store.find(&request).await.unwrap();
        let (key_no, rng) = (KeyNo::MASTER, &mut Fixed(7));
        let session = authenticate_async(selected, scheme, key_no, &mut key, rng, &mut card);
        let mut session = session.await.unwrap();
        state_settings(&mut session, &settings);
        pay_async(&mut session, &mut card).await;
        card.goodbye().unwrap();
        return counter;
    }
    let waiting = counter.tap(intent);
    let accepted = shop.accept(&waiting.message().unwrap()).unwrap();
    let answered = accepted.answer_from_async(&mut store, &mut Fixed(7)).await;
    let answered = answered.unwrap();
    assert!(store.0.calls >= 2, "{}", store.0.calls);
    let mut session = match mode {
        Mode::CardLocked => {
            let answer = answered.card_locked().unwrap();
            let unlock = waiting.card_locked(&answer).unwrap();
            unlock.run_async(&mut counter).await.unwrap()
        }
        Mode::Proven => {
            let (token, mut pending) = answered.proven(0).unwrap();
            let prove = waiting.proven(&token).unwrap();
            let proven = prove.run_async(&mut counter).await.unwrap();
            let release = pending.release(&proven.message().unwrap(), 0).unwrap();
            proven.release(&release).unwrap()
        }
        _ => {
            let (mut script, mut record) = ([0; 1024], [0; 1024]);
            let (mut session, mut builder) = answered.script(&mut script, &mut record).unwrap();
            state_settings(&mut session, &settings);
            pay_ahead(&mut session, &mut builder);
            let Finished { script, .. } = builder.finish().unwrap();
            let mut receipt = [0; 512];
            let mut player = waiting.script(script, &mut receipt).unwrap();
            let ending = player.play_async(&mut counter).await.unwrap();
            assert_eq!(ending.effect, Effect::Done);
            return counter;
        }
    };
    state_settings(&mut session, &settings);
    pay_async(&mut session, &mut counter).await;
    counter
}

/// Every mode for every scheme that can carry it, over a key store that is far away: the same bytes and
/// the same card as from a local session.
#[test]
fn every_mode_async() {
    let mut taps = 0;
    for (scheme, key) in schemes() {
        for mode in [Mode::CardLocked, Mode::Proven, Mode::Script, Mode::Remote] {
            let can = match mode {
                Mode::CardLocked => key.key_type().nonce_len() == 16,
                Mode::Script => scheme != AuthScheme::Legacy,
                Mode::Proven | Mode::Remote => true,
            };
            if can {
                let counter = pollster::block_on(tap_async(mode, scheme, &key));
                same_tap(&local(scheme, &key), &counter);
                taps += 1;
            }
        }
    }
    assert_eq!(taps, 2 + 6 + 4 + 6);
}
