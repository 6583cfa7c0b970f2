//! Vouchers on DESFire cards whose keys stay in an HSM.
//!
//! Three parts that talk over sockets: the authentication [`service`], which has the [`keys`]; a
//! [`terminal`], which has none; and the [`card`]. [`scheme`] says what is on a card, [`issue`] puts
//! it there, a [`shop`] is all of it in one process; [`demo`] shows it, [`apart`] makes each part a
//! program of its own, [`load`] measures the service.
//!
//! It uses the library by its public doors only.

pub mod apart;
pub mod card;
pub mod demo;
pub mod issue;
pub mod keys;
pub mod load;
pub mod scheme;
pub mod service;
pub mod shop;
pub mod terminal;
