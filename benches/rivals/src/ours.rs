//! The sessions with this crate.

use std::error::Error;
use std::fmt;

use desfire_ev1::wire::{
    AccessRights, Aid, AuthScheme, CommMode, FileNo, Framing, KeyFamily, KeyNo, U24,
};
use desfire_ev1::{Authenticated, Key, Link, LinkFormat, Machine as _, Session, Transport};

use crate::clock::Clock;
use crate::recording::{Exchange, cut_anew, session};
use crate::{steps, text};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What is not as it was recorded.
#[derive(Debug)]
pub enum Strange {
    Over,
    /// A command, and the recorded one.
    Sent(Vec<u8>, Vec<u8>),
}

impl fmt::Display for Strange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Over => f.write_str("the recording is over"),
            Self::Sent(sent, recorded) => write!(f, "sent {sent:02x?}, recorded {recorded:02x?}"),
        }
    }
}

impl Error for Strange {}

/// The replies of a recording, natively or wrapped.
pub struct Replay {
    exchanges: Vec<Exchange>,
    at: usize,
    format: LinkFormat,
    /// Compare every command with the recorded one; not while the clock runs.
    pub check: bool,
}

impl Replay {
    fn new(recorded: &[Exchange], format: LinkFormat) -> Self {
        let capacity = format.framing.payload_capacity(format.max_command);
        let exchanges = cut_anew(recorded, capacity);
        let exchanges = exchanges.into_iter().map(|exchange| match format.framing {
            Framing::Native => exchange,
            Framing::Wrapped => wrapped(&exchange),
        });
        Self {
            exchanges: exchanges.collect(),
            at: 0,
            format,
            check: true,
        }
    }
}

fn wrapped((sent, reply): &Exchange) -> Exchange {
    let (code, payload) = sent.split_first().unwrap_or((&0, &[]));
    let (status, data) = reply.split_first().unwrap_or((&0, &[]));
    let command = match u8::try_from(payload.len()) {
        Ok(len @ 1..) => [&[0x90, *code, 0, 0, len], payload, &[0]].concat(),
        _ => vec![0x90, *code, 0, 0, 0],
    };
    (command, [data, &[0x91, *status]].concat())
}

impl Link for Replay {
    type Error = Strange;

    fn format(&self) -> LinkFormat {
        self.format
    }
}

impl Transport for Replay {
    fn exchange(&mut self, command: &[u8], reply: &mut [u8]) -> Result<usize, Strange> {
        let (expected, answer) = self.exchanges.get(self.at).ok_or(Strange::Over)?;
        if self.check && expected != command {
            return Err(Strange::Sent(command.to_vec(), expected.clone()));
        }
        self.at += 1;
        let room = reply.get_mut(..answer.len()).ok_or(Strange::Over)?;
        room.copy_from_slice(answer);
        Ok(answer.len())
    }
}

/// All sessions.
pub struct Ours {
    pub part_17: Replay,
    pub metadata: Replay,
    pub file_io: Replay,
}

impl Ours {
    pub fn new(format: LinkFormat) -> Outcome<Self> {
        let replay = |name| session(name).map(|recorded| Replay::new(&recorded, format));
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

    /// RFDoorLock's part 17; the reader of its numbers.
    pub fn play_part_17(&mut self, clock: &mut Clock) -> Outcome<()> {
        let card = &mut self.part_17;
        card.at = 0;
        let key = Key::aes(steps::PART_17_KEY);
        let scheme = AuthScheme::Aes;
        let mut session = clock.time(steps::AES, || {
            Session::at_level(Aid::from_bytes([1, 0, 0]))
                .authenticate_with_fixed_nonce_for_testing_only(
                    scheme,
                    KeyNo::new(1)?,
                    &key,
                    steps::PART_17_NONCE,
                )
                .run(card)
                .map_err(Box::<dyn Error>::from)
        })?;
        let file = FileNo::new(5)?;
        let rights = AccessRights::from_bytes([0x11, 0x00]);
        let written: Vec<u8> = (0..80).collect();
        let (first, second) = written.split_at(52);
        let mut read = [0; 48];
        session
            .create_std_data_file(file, None, CommMode::Plain, rights, U24::new(80)?)
            .run(card)?;
        session.get_file_ids().run(card)?;
        session.get_file_settings(file).run(card)?;
        session.write_data(file, 0, first).run(card)?;
        clock.time(steps::WRITE_28, || {
            session.write_data(file, 52, second).run(card)
        })?;
        session.read_data(file, 0..48, &mut read).run(card)?;
        let read = clock.time(steps::READ_32, || {
            session.read_data(file, 48..80, &mut read).run(card)
        })?;
        text::same(read, written.get(48..).unwrap_or_default())?;
        Ok(())
    }

    pub fn play_metadata(&mut self, clock: &mut Clock) -> Outcome<()> {
        let card = &mut self.metadata;
        card.at = 0;
        let key = Key::zero(KeyFamily::Des);
        let mut nonce = [0; 16];
        nonce
            .iter_mut()
            .zip(steps::METADATA_NONCE)
            .for_each(|(to, from)| *to = from);
        let mut session: Session<Authenticated> = clock.time(steps::DES, || {
            Session::new()
                .authenticate_with_fixed_nonce_for_testing_only(
                    AuthScheme::Iso,
                    KeyNo::MASTER,
                    &key,
                    nonce,
                )
                .run(card)
        })?;
        clock.time(steps::KEY_SETTINGS, || session.get_key_settings().run(card))?;
        session.get_key_version(KeyNo::MASTER).run(card)?;
        session.get_application_ids().run(card)?;
        let uid = clock.time(steps::UID, || session.get_card_uid().run(card))?;
        text::same(&uid.0, &steps::METADATA_UID)?;
        let version = clock.time(steps::VERSION, || session.get_version().run(card))?;
        text::same(&version.uid.0, &steps::METADATA_UID)
    }

    pub fn play_file_io(&mut self, clock: &mut Clock) -> Outcome<()> {
        let card = &mut self.file_io;
        card.at = 0;
        let key = Key::zero(KeyFamily::Aes);
        let mut session = Session::at_level(Aid::from_bytes([1, 2, 3]))
            .authenticate_with_fixed_nonce_for_testing_only(
                AuthScheme::Aes,
                KeyNo::MASTER,
                &key,
                steps::FILE_IO_NONCE,
            )
            .run(card)?;
        let modes = [CommMode::Plain, CommMode::Mac, CommMode::Enciphered];
        let rights = AccessRights::from_bytes([0, 0]);
        for (number, mode) in (1..).zip(modes) {
            session
                .create_std_data_file(FileNo::new(number)?, None, mode, rights, U24::new(328)?)
                .run(card)?;
        }
        let mut buffer = [0; 328];
        for ((number, write), read) in (1..).zip(steps::WRITES).zip(steps::READS) {
            let file = FileNo::new(number)?;
            session.get_file_settings(file).run(card)?;
            clock.time(write, || {
                session.write_data(file, 0, text::WRITTEN).run(card)
            })?;
            let read = clock.time(read, || {
                session.read_data(file, 0..328, &mut buffer).run(card)
            })?;
            text::same(read, text::WRITTEN)?;
        }
        Ok(())
    }
}
