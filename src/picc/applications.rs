//! CreateApplication, DeleteApplication, SelectApplication, GetApplicationIDs, GetDFNames and
//! FormatPICC.

use alloc::vec::Vec;

use super::card::{Card, Volatile};
use super::choices::{
    CHUNK_AIDS, DELETE_PICC, FORMAT_DISABLED, LIST_NAMELESS_APPLICATIONS, UNKNOWN_AID_SELECTS_PICC,
};
use super::memory;
use super::reply::{Refusal, Reply};
use super::session::Session;
use super::state::{Application, MAX_APPLICATIONS, PICC_DF_NAME, is_free_file_id, is_key_info};
use crate::wire::{
    Aid, DfName, IsoFileId, KeyFlags, KeyInfo, KeySettings, Reader, Status, WireError,
};

/// What CreateApplication asks for.
struct Request {
    aid: Aid,
    settings: KeySettings,
    info: KeyInfo,
    iso_file_id: Option<IsoFileId>,
    df_name: Option<DfName>,
}

impl Request {
    fn parse(params: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(params);
        let aid = Aid::from_bytes(reader.array()?);
        let settings = KeySettings::from_byte(reader.u8()?);
        let info = KeyInfo::from_byte(reader.u8()?);
        let (mut iso_file_id, mut df_name) = (None, None);
        if reader.remaining() > 0 {
            iso_file_id = Some(IsoFileId::from_native(reader.array()?));
        }
        if reader.remaining() > 0 {
            df_name = Some(DfName::new(reader.rest())?);
        }
        Ok(Self {
            aid,
            settings,
            info,
            iso_file_id,
            df_name,
        })
    }

    /// Parameters that no card takes.
    fn check(&self) -> Result<(), Status> {
        if self.aid.is_picc()
            || !is_key_info(self.info)
            || self.iso_file_id.is_some_and(|id| !is_free_file_id(id))
        {
            return Err(Status::ParameterError);
        }
        Ok(())
    }

    /// Whether an identifier is taken.
    fn collides(&self, applications: &[Application]) -> bool {
        let picc = |name: &DfName| name.as_bytes() == PICC_DF_NAME;
        self.df_name.as_ref().is_some_and(picc)
            || applications.iter().any(|app| {
                app.aid == self.aid
                    || (self.iso_file_id.is_some() && app.iso_file_id == self.iso_file_id)
                    || (self.df_name.is_some() && app.df_name == self.df_name)
            })
    }
}

impl Card {
    pub(super) fn create_application(&mut self, params: &[u8]) -> Result<Reply, Refusal> {
        let request = Request::parse(params).map_err(|_| Status::LengthError)?;
        request.check()?;
        self.require_master_unless(KeyFlags::FREE_CREATE_DELETE)?;
        let applications = self.state().applications();
        if request.collides(applications) {
            return Err(Status::DuplicateError.into());
        }
        if applications.len() >= MAX_APPLICATIONS {
            return Err(Status::CountError.into());
        }
        let cost = memory::application_cost(request.info);
        if cost > self.state().free_memory().into() {
            return Err(Status::OutOfEeprom.into());
        }
        self.eeprom.change(|state| {
            state.spend(cost);
            let mut application = Application::with_default_key(
                request.aid,
                request.settings,
                request.info,
                &state.configuration.default_key,
            );
            application.iso_file_id = request.iso_file_id;
            application.df_name = request.df_name;
            state.applications.push(application);
        })?;
        Ok(Reply::done())
    }

    /// From the PICC level with the PICC master key; or an application deletes itself with
    /// its own, if the PICC's settings leave deleting free.
    pub(super) fn delete_application(&mut self, params: &[u8]) -> Result<Reply, Refusal> {
        let aid = aid_of(params)?;
        if aid.is_picc() {
            return Err(DELETE_PICC.into());
        }
        if self.state().application(aid).is_none() {
            return Err(Status::ApplicationNotFound.into());
        }
        let from_picc = self.field.selected.is_picc();
        let itself = self.field.selected == aid
            && self
                .state()
                .picc_settings()
                .flags
                .contains(KeyFlags::FREE_CREATE_DELETE);
        if !from_picc && !itself {
            return Err(Status::AuthenticationError.into());
        }
        self.require_master()?;
        // The memory stays spent: only FormatPICC gives it back (pm3sim, measured on EV2).
        self.eeprom
            .change(|state| state.applications.retain(|app| app.aid != aid))?;
        if from_picc {
            return Ok(Reply::done());
        }
        // The key of the session is gone, so nothing can protect the reply (pm3sim).
        self.field = Volatile::selecting(Aid::PICC);
        Ok(Reply::bare(Vec::new()))
    }

    /// Ends the session and the transaction, also if the application is selected already.
    pub(super) fn select_application(&mut self, params: &[u8]) -> Result<Reply, Refusal> {
        let aid = aid_of(params)?;
        let before = if UNKNOWN_AID_SELECTS_PICC {
            Aid::PICC
        } else {
            self.field.selected
        };
        self.field = Volatile::selecting(before);
        if !aid.is_picc() && self.state().application(aid).is_none() {
            return Err(Status::ApplicationNotFound.into());
        }
        self.field.selected = aid;
        Ok(Reply::bare(Vec::new()))
    }

    pub(super) fn get_application_ids(&mut self) -> Result<Reply, Refusal> {
        self.require_master_unless(KeyFlags::FREE_LISTING)?;
        let aids: Vec<u8> = self
            .state()
            .applications()
            .iter()
            .flat_map(|app| app.aid.to_bytes())
            .collect();
        if self.field.session.as_ref().is_some_and(Session::is_ev1) {
            return Ok(Reply::data(aids));
        }
        Ok(Reply::frames(
            aids.chunks(CHUNK_AIDS).map(<[u8]>::to_vec).collect(),
        ))
    }

    /// One application for each frame; those without an ISO FID are left out (libfreefare's
    /// live test).
    pub(super) fn get_df_names(&mut self) -> Result<Reply, Refusal> {
        self.require_master_unless(KeyFlags::FREE_LISTING)?;
        let frames = self.state().applications().iter().filter_map(|app| {
            let id = app.iso_file_id?;
            if app.df_name.is_none() && !LIST_NAMELESS_APPLICATIONS {
                return None;
            }
            let name = app.df_name.as_ref().map_or(&[][..], DfName::as_bytes);
            Some([&app.aid.to_bytes(), &id.to_native()[..], name].concat())
        });
        Ok(Reply::frames(frames.collect()))
    }

    /// Deletes all applications and gives their memory back; the session lives on (two
    /// recordings).
    pub(super) fn format_picc(&mut self) -> Result<Reply, Refusal> {
        self.require_master()?;
        if self.state().format_disabled() {
            return Err(FORMAT_DISABLED.into());
        }
        self.eeprom.change(|state| {
            state.applications.clear();
            state.used = 0;
        })?;
        Ok(Reply::done())
    }
}

fn aid_of(params: &[u8]) -> Result<Aid, Status> {
    let mut reader = Reader::new(params);
    reader
        .array()
        .map(Aid::from_bytes)
        .map_err(|_| Status::LengthError)
}
