//! ISO 7816-4 commands (CLA 00): their way through the card, and SELECT.

use alloc::vec;
use alloc::vec::Vec;

use super::card::{Card, Volatile};
use super::chain::Chain;
use super::choices::ISO_DURING_CHAIN;
use super::eeprom::PowerLost;
use super::iso_auth::IsoAuthentication;
use super::state::{Application, PICC_DF_NAME};
use crate::wire::apdu::{CommandApdu, ResponseApdu};
use crate::wire::frame::MAX_COMMAND;
use crate::wire::{Aid, FileNo, IsoFileId, Status, StatusWord};

const SELECT: u8 = 0xA4;
const READ_BINARY: u8 = 0xB0;
const UPDATE_BINARY: u8 = 0xD6;
const READ_RECORD: u8 = 0xB2;
const APPEND_RECORD: u8 = 0xE2;
const GET_CHALLENGE: u8 = 0x84;
const EXTERNAL_AUTHENTICATE: u8 = 0x82;
const INTERNAL_AUTHENTICATE: u8 = 0x88;

/// What ISO commands leave behind for the next one.
#[derive(Clone, Default)]
pub(super) struct IsoState {
    /// The selected EF.
    pub(super) current: Option<FileNo>,
    /// How far an authentication has come.
    pub(super) authentication: IsoAuthentication,
}

impl IsoState {
    pub(super) fn forget_file(&mut self, file: FileNo) {
        self.current = self.current.filter(|current| *current != file);
    }
}

/// Why an ISO command gives no data.
#[derive(Clone, Copy, Debug)]
pub(super) enum IsoRefusal {
    /// The card answers this status word.
    Word(StatusWord),
    /// The card answers nothing any more.
    PowerLost,
}

impl From<StatusWord> for IsoRefusal {
    fn from(sw: StatusWord) -> Self {
        Self::Word(sw)
    }
}

impl From<PowerLost> for IsoRefusal {
    fn from(_: PowerLost) -> Self {
        Self::PowerLost
    }
}

impl Card {
    /// One ISO 7816-4 command.
    pub(super) fn iso(&mut self, command: &[u8]) -> Result<Vec<u8>, PowerLost> {
        let (data, sw) = match self.iso_command(command) {
            Ok(data) => (data, StatusWord::OK),
            Err(IsoRefusal::Word(sw)) => {
                // An error is an error: what a native one ends, this ends too.
                self.refused(Status::CommandAborted);
                (Vec::new(), sw)
            }
            Err(IsoRefusal::PowerLost) => return Err(PowerLost),
        };
        let mut out = vec![0; data.len().saturating_add(2)];
        let len = ResponseApdu { data: &data, sw }
            .encode(&mut out)
            .unwrap_or(0);
        out.truncate(len);
        Ok(out)
    }

    fn iso_command(&mut self, command: &[u8]) -> Result<Vec<u8>, IsoRefusal> {
        let chain = core::mem::take(&mut self.field.chain);
        // An authentication is three commands in a row; anything between ends it.
        let authentication = core::mem::take(&mut self.field.iso.authentication);
        let apdu = CommandApdu::parse(command).map_err(|_| StatusWord::WRONG_LENGTH)?;
        if command.len() > MAX_COMMAND {
            return Err(StatusWord::WRONG_LENGTH.into());
        }
        if apdu.ins == SELECT {
            return self.iso_select(&apdu);
        }
        if !matches!(chain, Chain::Idle) {
            return Err(ISO_DURING_CHAIN.into());
        }
        match apdu.ins {
            READ_BINARY => self.read_binary(&apdu),
            UPDATE_BINARY => self.update_binary(&apdu),
            READ_RECORD => self.read_record(&apdu),
            APPEND_RECORD => self.append_record(&apdu),
            GET_CHALLENGE => self.get_challenge(&apdu),
            EXTERNAL_AUTHENTICATE => self.external_authenticate(&apdu, authentication),
            INTERNAL_AUTHENTICATE => self.internal_authenticate(&apdu, authentication),
            _ => Err(StatusWord::INS_NOT_SUPPORTED.into()),
        }
    }

    /// SELECT. Selecting a DF is SelectApplication; a failure leaves the selection as it was
    /// (NTAG 424 DNA data sheet). There is no FCI.
    fn iso_select(&mut self, apdu: &CommandApdu<'_>) -> Result<Vec<u8>, IsoRefusal> {
        if !matches!(apdu.p2, 0x00 | 0x0C) {
            return Err(StatusWord::WRONG_P1_P2.into());
        }
        let id = || match *apdu.data {
            [high, low] => Ok(IsoFileId::from_iso([high, low])),
            _ => Err(StatusWord::WRONG_LC),
        };
        match apdu.p1 {
            0x00 if apdu.data.is_empty() => self.select_level(Some(Aid::PICC))?,
            0x00 => {
                let id = id()?;
                if self.select_level(self.df_of(id)).is_err() {
                    self.select_ef(id)?;
                }
            }
            0x01 => {
                let df = self.df_of(id()?).filter(|aid| !aid.is_picc());
                self.select_level(df)?;
            }
            0x02 => self.select_ef(id()?)?,
            0x03 if apdu.data.is_empty() => self.select_level(Some(Aid::PICC))?,
            0x03 => return Err(StatusWord::WRONG_LC.into()),
            0x04 if apdu.data.is_empty() || apdu.data.len() > 16 => {
                return Err(StatusWord::WRONG_LC.into());
            }
            0x04 => self.select_level(self.df_named(apdu.data))?,
            _ => return Err(StatusWord::WRONG_P1_P2.into()),
        }
        Ok(Vec::new())
    }

    fn select_level(&mut self, aid: Option<Aid>) -> Result<(), StatusWord> {
        let aid = aid.ok_or(StatusWord::NOT_FOUND)?;
        self.field = Volatile::selecting(aid);
        Ok(())
    }

    fn select_ef(&mut self, id: IsoFileId) -> Result<(), StatusWord> {
        let files = self.state().application(self.field.selected);
        let file = files
            .into_iter()
            .flat_map(|app| app.files.iter())
            .find(|file| file.iso_file_id == Some(id))
            .map(|file| file.number)
            .ok_or(StatusWord::NOT_FOUND)?;
        self.field.iso.current = Some(file);
        Ok(())
    }

    fn df_of(&self, id: IsoFileId) -> Option<Aid> {
        if id == IsoFileId::MF {
            return Some(Aid::PICC);
        }
        let apps = self.state().applications().iter();
        apps.filter(|app| app.iso_file_id == Some(id))
            .map(|app| app.aid)
            .next()
    }

    /// Whole names only; whether an EV1 takes the beginning of one is not measured.
    fn df_named(&self, name: &[u8]) -> Option<Aid> {
        if name == PICC_DF_NAME {
            return Some(Aid::PICC);
        }
        let named = |app: &&Application| app.df_name.is_some_and(|df| df.as_bytes() == name);
        self.state()
            .applications()
            .iter()
            .find(named)
            .map(|app| app.aid)
    }
}
