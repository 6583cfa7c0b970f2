//! The same with `desox`.

use std::error::Error;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use desox::io::Backend;
use desox::{Card, FileCommunication, FileIo as _, FilePermissions, FileSettings, Key};

use crate::clock::Clock;
use crate::recording::{Exchange, session};
use crate::{steps, text};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The replies of a recording.
pub struct Replay {
    exchanges: Vec<Exchange>,
    at: usize,
    check: bool,
}

impl Backend for Replay {
    type Error = String;

    async fn exchange_raw(&mut self, reply: &mut [u8], command: &[u8]) -> Result<usize, String> {
        let (expected, answer) = self.exchanges.get(self.at).ok_or("the recording is over")?;
        if self.check && expected != command {
            return Err(format!("sent {command:02x?}, recorded {expected:02x?}"));
        }
        self.at += 1;
        let room = reply.get_mut(..answer.len()).ok_or("no room")?;
        room.copy_from_slice(answer);
        Ok(answer.len())
    }
}

/// Nothing is ever waited for.
fn now<F: Future>(future: F) -> F::Output {
    let mut future = pin!(future);
    let mut context = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(output) = future.as_mut().poll(&mut context) {
            return output;
        }
    }
}

fn failed<E: std::fmt::Debug>(error: E) -> Box<dyn Error> {
    format!("desox: {error:?}").into()
}

pub struct Desox {
    part_17: Replay,
    metadata: Replay,
    file_io: Replay,
}

impl Desox {
    pub fn new() -> Outcome<Self> {
        let replay = |name| {
            session(name).map(|exchanges| Replay {
                exchanges,
                at: 0,
                check: true,
            })
        };
        Ok(Self {
            part_17: replay("rfdoorlock-17")?,
            metadata: replay("desox-metadata")?,
            file_io: replay("desox-file-io")?,
        })
    }

    pub fn checking(&mut self, check: bool) {
        for replay in [&mut self.part_17, &mut self.metadata, &mut self.file_io] {
            replay.check = check;
        }
    }

    pub fn play_part_17(&mut self, clock: &mut Clock) -> Outcome<()> {
        self.part_17.at = 0;
        let card = Card::new(&mut self.part_17);
        let (key, nonce) = (Key::Aes(steps::PART_17_KEY), Key::Aes(steps::PART_17_NONCE));
        let authenticated = clock.time(steps::AES, || {
            now(card.authenticate_with_rnd_a(1, key, nonce))
        });
        authenticated.map(drop).map_err(failed)
    }

    pub fn play_metadata(&mut self, clock: &mut Clock) -> Outcome<()> {
        self.metadata.at = 0;
        let card = Card::new(&mut self.metadata);
        let (key, nonce) = (Key::Des([0; 8]), Key::Des(steps::METADATA_NONCE));
        let mut card = clock
            .time(steps::DES, || {
                now(card.authenticate_with_rnd_a(0, key, nonce))
            })
            .map_err(failed)?;
        clock
            .time(steps::KEY_SETTINGS, || now(card.get_key_settings()))
            .map_err(failed)?;
        now(card.get_key_version(0)).map_err(failed)?;
        let mut out = [0; 255];
        now(card.list_applications(&mut out)).map_err(failed)?;
        let uid = clock
            .time(steps::UID, || now(card.get_uid()))
            .map_err(failed)?;
        text::same(&uid, &steps::METADATA_UID)?;
        let version = clock.time(steps::VERSION, || now(card.get_version_info()));
        text::same(&version.map_err(failed)?.uid, &steps::METADATA_UID)
    }

    pub fn play_file_io(&mut self, clock: &mut Clock) -> Outcome<()> {
        self.file_io.at = 0;
        let card = Card::new(&mut self.file_io);
        let (key, nonce) = (Key::Aes([0; 16]), Key::Aes(steps::FILE_IO_NONCE));
        let mut card = now(card.authenticate_with_rnd_a(0, key, nonce)).map_err(failed)?;
        let modes = [
            || FileCommunication::Plain,
            || FileCommunication::Cmac,
            || FileCommunication::Encrypted,
        ];
        for (number, mode) in (1..).zip(modes) {
            let settings = FileSettings::Data {
                communication: mode(),
                permissions: FilePermissions {
                    change: 0,
                    read_write: 0,
                    write: 0,
                    read: 0,
                },
                size: 328,
            };
            now(card.create_file(number, settings)).map_err(failed)?;
        }
        // Room for ciphertext and MAC as well.
        let mut out = [0; 400];
        let steps = steps::WRITES.into_iter().zip(steps::READS);
        for ((number, mode), (write, read)) in (1..).zip(modes).zip(steps) {
            now(card.get_file_settings(number)).map_err(failed)?;
            clock
                .time(write, || {
                    now(card.write_file_at(number, mode(), 0, text::WRITTEN))
                })
                .map_err(failed)?;
            let data = clock
                .time(read, || {
                    now(card.read_file_at(&mut out, number, mode(), 0, 328))
                })
                .map_err(failed)?;
            text::same(data, text::WRITTEN)?;
        }
        Ok(())
    }
}
