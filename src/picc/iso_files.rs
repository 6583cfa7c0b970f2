//! READ BINARY, UPDATE BINARY, READ RECORD and APPEND RECORD.
//!
//! They know no protection of requests, so they work where a right of the file leads to plain
//! communication. In an EV1 session data come with 8 bytes of CMAC over them and 00, as
//! proxmark3 expects; the request does not move the IV (one source, not measured).

use alloc::vec::Vec;

use super::card::Card;
use super::choices::{
    ISO_DATA_LENGTH, ISO_FILE_FULL, ISO_NO_RECORD, ISO_OFFSET, ISO_REPLY, LINEAR_FILE_FULL,
    SHORT_FILE_IDS,
};
use super::file::{File, FileContent};
use super::iso::IsoRefusal;
use super::session::{Padding, Session};
use super::transaction::Change;
use super::write::{Target, pending_image};
use crate::wire::apdu::CommandApdu;
use crate::wire::{Access, CommMode, FileNo, StatusWord};

/// Length of the CMAC in a reply.
const MAC_LEN: usize = 8;

/// P2 of READ RECORD: the record of P1 alone.
const ONE_RECORD: u8 = 0x04;
/// P2 of READ RECORD: all records from that of P1 on.
const RECORDS_FROM: u8 = 0x05;

impl Card {
    pub(super) fn read_binary(&mut self, apdu: &CommandApdu<'_>) -> Result<Vec<u8>, IsoRefusal> {
        let le = le_only(apdu)?;
        let (number, offset) = self.place(apdu)?;
        let file = self.iso_file(number)?;
        let (FileContent::Standard(data) | FileContent::Backup(data)) = &file.content else {
            return Err(StatusWord::CONDITIONS_NOT_SATISFIED.into());
        };
        self.iso_grant(file, &[file.rights.read, file.rights.read_write])?;
        let rest = data.get(offset..).filter(|rest| !rest.is_empty());
        let rest = rest.ok_or(ISO_OFFSET)?.to_vec();
        self.field.iso.current = Some(number);
        self.iso_data(rest, le)
    }

    pub(super) fn update_binary(&mut self, apdu: &CommandApdu<'_>) -> Result<Vec<u8>, IsoRefusal> {
        if apdu.data.is_empty() || apdu.le.is_some() {
            return Err(StatusWord::WRONG_LENGTH.into());
        }
        let (number, offset) = self.place(apdu)?;
        let file = self.iso_file(number)?;
        let (FileContent::Standard(data) | FileContent::Backup(data)) = &file.content else {
            return Err(StatusWord::CONDITIONS_NOT_SATISFIED.into());
        };
        self.iso_grant(file, &[file.rights.write, file.rights.read_write])?;
        if offset >= data.len() {
            return Err(ISO_OFFSET.into());
        }
        let target = Target {
            file: number,
            offset,
            len: apdu.data.len(),
        };
        if !target.fits(data.len()) {
            return Err(ISO_DATA_LENGTH.into());
        }
        self.write_piece(&target, apdu.data)?;
        self.field.iso.current = Some(number);
        Ok(Vec::new())
    }

    /// Records count as ISO 7816-4 has it: from 1, the first written in a linear file, the
    /// newest in a cyclic one. No source tells what an EV1 does.
    pub(super) fn read_record(&mut self, apdu: &CommandApdu<'_>) -> Result<Vec<u8>, IsoRefusal> {
        let le = le_only(apdu)?;
        let number = self.short_id(apdu.p2 >> 3)?;
        let all = match apdu.p2 & 0x07 {
            ONE_RECORD => false,
            RECORDS_FROM => true,
            _ => return Err(StatusWord::WRONG_P1_P2.into()),
        };
        let file = self.iso_file(number)?;
        let (records, newest_first) = match &file.content {
            FileContent::Linear(records) => (records, false),
            FileContent::Cyclic(records) => (records, true),
            _ => return Err(StatusWord::CONDITIONS_NOT_SATISFIED.into()),
        };
        self.iso_grant(file, &[file.rights.read, file.rights.read_write])?;
        let cleared = matches!(self.field.transaction.get(number), Some(Change::Clear));
        let count = records.count();
        if count == 0 || cleared {
            return Err(StatusWord::CONDITIONS_NOT_SATISFIED.into());
        }
        let from = u32::from(apdu.p1).checked_sub(1).ok_or(ISO_NO_RECORD)?;
        if from >= count {
            return Err(ISO_NO_RECORD.into());
        }
        // No more than a frame holds will be asked for.
        let to = if all { count } else { from.saturating_add(1) };
        let mut data = Vec::new();
        for place in from..to {
            let steps_back = if newest_first {
                place
            } else {
                count.saturating_sub(place).saturating_sub(1)
            };
            data.extend_from_slice(records.read(steps_back, 1).unwrap_or_default());
            if data.len() > ISO_REPLY {
                break;
            }
        }
        self.field.iso.current = Some(number);
        self.iso_data(data, le)
    }

    /// One whole record, pending until CommitTransaction.
    pub(super) fn append_record(&mut self, apdu: &CommandApdu<'_>) -> Result<Vec<u8>, IsoRefusal> {
        if apdu.p1 != 0 || apdu.p2 & 0x07 != 0 {
            return Err(StatusWord::WRONG_P1_P2.into());
        }
        if apdu.data.is_empty() || apdu.le.is_some() {
            return Err(StatusWord::WRONG_LENGTH.into());
        }
        let number = self.short_id(apdu.p2 >> 3)?;
        let file = self.iso_file(number)?;
        let (FileContent::Linear(records) | FileContent::Cyclic(records)) = &file.content else {
            return Err(StatusWord::CONDITIONS_NOT_SATISFIED.into());
        };
        self.iso_grant(file, &[file.rights.write, file.rights.read_write])?;
        if records.blank_record().len() != apdu.data.len() {
            return Err(ISO_DATA_LENGTH.into());
        }
        let target = Target {
            file: number,
            offset: 0,
            len: apdu.data.len(),
        };
        // There is one new record for each transaction.
        if self.field.transaction.get(number).is_some() {
            return Err(StatusWord::CONDITIONS_NOT_SATISFIED.into());
        }
        match self.check_write(&target) {
            Err(LINEAR_FILE_FULL) => return Err(ISO_FILE_FULL.into()),
            Err(_) => return Err(StatusWord::CONDITIONS_NOT_SATISFIED.into()),
            Ok(()) => {}
        }
        self.write_piece(&target, apdu.data)?;
        self.field.iso.current = Some(number);
        Ok(Vec::new())
    }

    /// File and offset in P1 and P2 of the BINARY commands.
    fn place(&self, apdu: &CommandApdu<'_>) -> Result<(FileNo, usize), StatusWord> {
        if apdu.p1 & 0x80 == 0 {
            let offset = u16::from_be_bytes([apdu.p1, apdu.p2]);
            return Ok((self.short_id(0)?, offset.into()));
        }
        if apdu.p1 & 0x60 != 0 {
            return Err(StatusWord::WRONG_P1_P2);
        }
        Ok((self.short_id(apdu.p1 & 0x1F)?, apdu.p2.into()))
    }

    /// The file of a short id; 0 stands for the selected EF.
    fn short_id(&self, id: u8) -> Result<FileNo, StatusWord> {
        if id == 0 {
            return self
                .field
                .iso
                .current
                .ok_or(StatusWord::CONDITIONS_NOT_SATISFIED);
        }
        if !SHORT_FILE_IDS.contains(&id) {
            return Err(StatusWord::WRONG_P1_P2);
        }
        FileNo::new(id).map_err(|_| StatusWord::NOT_FOUND)
    }

    fn iso_file(&self, number: FileNo) -> Result<&File, StatusWord> {
        self.file(number).map_err(|_| StatusWord::NOT_FOUND)
    }

    /// Whether a right leads to plain communication.
    fn iso_grant(&self, file: &File, rights: &[Access]) -> Result<(), StatusWord> {
        match self.grant(file, rights) {
            Ok(CommMode::Plain) => Ok(()),
            _ => Err(StatusWord::SECURITY_NOT_SATISFIED),
        }
    }

    /// As much of the data as is asked for and fits; Le 00 asks for whatever fits.
    fn iso_data(&mut self, mut data: Vec<u8>, le: u16) -> Result<Vec<u8>, IsoRefusal> {
        let session = self
            .field
            .session
            .as_mut()
            .filter(|session| session.is_ev1());
        let room = match session {
            Some(_) => ISO_REPLY - MAC_LEN,
            None => ISO_REPLY,
        };
        let most = data.len().min(room);
        let wanted = if le == 256 { most } else { usize::from(le) };
        if wanted > most {
            // 6Cxx: this many would be right (liblogicalaccess).
            let right = u8::try_from(most).unwrap_or(u8::MAX);
            return Err(StatusWord(u16::from_be_bytes([0x6C, right])).into());
        }
        data.truncate(wanted);
        Ok(match session {
            Some(session) => Session::seal(session, CommMode::Plain, data, Padding::Zeros),
            None => data,
        })
    }

    /// One effect on the file of `target`: at once in a standard file, else pending.
    fn write_piece(&mut self, target: &Target, data: &[u8]) -> Result<(), IsoRefusal> {
        let file = self.iso_file(target.file)?;
        match pending_image(file, self.field.transaction.get(target.file)) {
            Some(pending) => self.write_pending(pending, target, data)?,
            None => self.write_standard(target.file, target.offset, data)?,
        }
        Ok(())
    }
}

/// Le of a command that has no data.
fn le_only(apdu: &CommandApdu<'_>) -> Result<u16, StatusWord> {
    match (apdu.data, apdu.le) {
        ([], Some(le)) => Ok(le),
        _ => Err(StatusWord::WRONG_LENGTH),
    }
}
