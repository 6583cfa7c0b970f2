//! Secure messaging without a card: protecting a write and opening a read, by length.
#![allow(
    missing_docs,
    reason = "criterion's macros make undocumented functions"
)]

use criterion::{BenchmarkId, Criterion, Throughput, criterion_group, criterion_main};
use desfire_ev1::internals::{Codec, Plaintext};
use desfire_ev1::wire::CommMode;
use desfire_ev1::{Key, Messaging};

const LENGTHS: [usize; 4] = [8, 32, 1024, 8192];

fn seal(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("seal EV1 AES");
    for len in LENGTHS {
        let data = vec![0x5A; len];
        let mut out = vec![0; len + 32];
        group.throughput(Throughput::Bytes(len as u64));
        for mode in [CommMode::Mac, CommMode::Enciphered] {
            let mut codec = Codec::new(Messaging::Ev1, &Key::aes([0x42; 16]), &[]);
            let plain = Plaintext {
                code: 0x3D,
                header: &[0; 7],
                data: &data,
                second_crc: &[],
            };
            group.bench_function(BenchmarkId::new(mode.to_string(), len), |bencher| {
                bencher.iter(|| codec.seal(plain, mode, &mut out));
            });
        }
    }
    group.finish();
}

fn open(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("open EV1 AES");
    for len in LENGTHS {
        // What is opened is no reply of a card: it is refused at the end, after all the work.
        let payload = vec![0x5A; (len + 4).next_multiple_of(16)];
        let mut buffer = vec![0; len];
        group.throughput(Throughput::Bytes(len as u64));
        let mut codec = Codec::new(Messaging::Ev1, &Key::aes([0x42; 16]), &[]);
        group.bench_function(BenchmarkId::new("enciphered", len), |bencher| {
            bencher.iter(|| codec.open(&payload, CommMode::Enciphered, Some(len), &mut buffer));
        });
    }
    group.finish();
}

criterion_group!(benches, seal, open);
criterion_main!(benches);
