//! The same with `desfire`.

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use desfire::Card;
use desfire::desfire::Desfire;
use desfire::iso7816_4::apducommand::APDUCommand;
use desfire::iso7816_4::apduresponse::APDUResponse;

use crate::clock::Clock;
use crate::recording::{Exchange, position, session};
use crate::{steps, text};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// The replies of a recording. `desfire` takes and gives its APDUs as values of its own.
struct Replay {
    exchanges: Vec<Exchange>,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    at: AtomicUsize,
    unchecked: AtomicBool,
    wrong: AtomicBool,
}

impl Card for Replay {
    fn connect(&mut self) -> Result<(), desfire::error::Error> {
        Ok(())
    }

    fn disconnect(&mut self) -> Result<(), desfire::error::Error> {
        Ok(())
    }

    fn transmit(&self, command: APDUCommand) -> Result<APDUResponse, desfire::error::Error> {
        let at = self.shared.at.fetch_add(1, Ordering::Relaxed);
        let (sent, reply) = self
            .exchanges
            .get(at)
            .map_or((&[][..], &[][..]), |(sent, reply)| {
                (sent.as_slice(), reply.as_slice())
            });
        if !self.shared.unchecked.load(Ordering::Relaxed) {
            let found = [&[command.ins][..], &command.data.unwrap_or_default()].concat();
            if found != sent {
                self.shared.wrong.store(true, Ordering::Relaxed);
            }
        }
        let (status, data) = reply.split_first().unwrap_or((&0xEE, &[]));
        Ok(APDUResponse {
            body: (!data.is_empty()).then(|| data.to_vec()),
            sw1: 0x91,
            sw2: *status,
        })
    }
}

fn failed<E: std::fmt::Debug>(error: E) -> Box<dyn Error> {
    format!("desfire: {error:?}").into()
}

pub struct WithDesfire {
    part_17: (Desfire, Arc<Shared>),
    metadata: (Desfire, Arc<Shared>),
    write: usize,
    read: usize,
}

impl WithDesfire {
    pub fn new() -> Outcome<Self> {
        let replay = |exchanges| {
            let shared = Arc::new(Shared::default());
            let card = Replay {
                exchanges,
                shared: Arc::clone(&shared),
            };
            let desfire = Desfire {
                card: Some(Box::new(card)),
                session_key: None,
                cbc_iv: None,
            };
            (desfire, shared)
        };
        let part_17 = session("rfdoorlock-17")?;
        Ok(Self {
            write: position(&part_17, &[0x3D, 5, 0x34])?,
            read: position(&part_17, &[0xBD, 5, 0x30])?,
            part_17: replay(part_17),
            metadata: replay(session("desox-metadata")?),
        })
    }

    pub fn checking(&self, check: bool) -> Outcome<()> {
        for (_, shared) in [&self.part_17, &self.metadata] {
            shared.unchecked.store(!check, Ordering::Relaxed);
            if shared.wrong.load(Ordering::Relaxed) {
                return Err("desfire sent something that was not recorded".into());
            }
        }
        Ok(())
    }

    pub fn play_part_17(&mut self, clock: &mut Clock) -> Outcome<()> {
        let (card, shared) = &mut self.part_17;
        shared.at.store(0, Ordering::Relaxed);
        clock
            .time(steps::AES, || {
                card.authenticate_iso_aes(1, &steps::PART_17_KEY, Some(steps::PART_17_NONCE))
            })
            .map_err(failed)?;
        let written: Vec<u8> = (0..80).collect();
        let second = written.get(52..).unwrap_or_default();
        shared.at.store(self.write, Ordering::Relaxed);
        clock
            .time(steps::WRITE_28, || card.write_data(5, 52, second))
            .map_err(failed)?;
        shared.at.store(self.read, Ordering::Relaxed);
        let read = clock
            .time(steps::READ_32, || card.read_data(5, 48, 32))
            .map_err(failed)?;
        text::same(&read, written.get(48..).unwrap_or_default())
    }

    pub fn play_metadata(&mut self, clock: &mut Clock) -> Outcome<()> {
        let (card, shared) = &mut self.metadata;
        shared.at.store(0, Ordering::Relaxed);
        // It takes DES keys as 2K3DES keys with equal halves.
        clock
            .time(steps::DES, || {
                card.authenticate_iso_des(0, &[0; 16], Some(steps::METADATA_NONCE))
            })
            .map_err(failed)
    }
}
