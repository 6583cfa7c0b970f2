//! A tap in each mode over real sockets, from the UID to the last byte of the card.
#![allow(
    missing_docs,
    clippy::unwrap_used,
    reason = "criterion's macros make undocumented functions; a bench is allowed to fail loudly"
)]

use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use desfire_ev1::picc::Card;
use desfire_ev1::split::{Mode, Modes};
use desfire_ev1::wire::Uid;
use voucher::card::{CardLink, CardSocket};
use voucher::scheme::{MOST, Purpose};
use voucher::service::{self, Audit};
use voucher::shop::Shop;

fn taps(criterion: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let shop = Shop::new(&[("till", Modes::all())]).unwrap();
    let mut config = shop.config().unwrap();
    config.per_card = NonZeroU32::MAX;
    config.per_terminal = NonZeroU32::MAX;
    // Receipts settle their taps; what is settled stays a while.
    config.open_taps = usize::MAX;
    let anywhere = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let audit = Audit::new(std::io::sink());
    let starting = service::start(config, shop.holder(None).unwrap(), audit, anywhere);
    let running = runtime.block_on(starting).unwrap();
    let mut till = shop.terminal("till", running.address()).unwrap();
    let one = Purpose::redeem(1).unwrap();
    let mut group = criterion.benchmark_group("tap");
    let modes = [
        (Mode::CardLocked, "card-locked"),
        (Mode::Script, "script"),
        (Mode::Proven, "proven"),
        (Mode::Remote, "remote"),
    ];
    let mut card = None;
    let mut left = 0;
    for (mode, name) in modes {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let mut time = Duration::ZERO;
                for _ in 0..rounds {
                    if left == 0 {
                        let fresh = CardSocket::new(Card::new(Uid([4; 7]))).unwrap();
                        let mut link = CardLink::connect(fresh.address()).unwrap();
                        shop.desk.issue(MOST, &mut link).unwrap();
                        card = Some(fresh);
                        left = MOST;
                    }
                    let address = card.as_ref().unwrap().address();
                    let mut link = CardLink::connect(address).unwrap();
                    let tap = till.redeem(mode, one, &mut link);
                    let redeemed = runtime.block_on(tap).unwrap();
                    left -= 1;
                    time += redeemed.card_time;
                }
                time
            });
        });
    }
    group.finish();
    runtime.block_on(running.stop()).unwrap();
}

criterion_group!(benches, taps);
criterion_main!(benches);
