//! The primitives of the reader side: block ciphers in CBC, CMAC with a running IV, CRCs.
//!
//! Know keys and bytes, and nothing of commands, frames or sessions.

pub(in crate::pcd) mod cipher;
pub(in crate::pcd) mod cmac;
pub(in crate::pcd) mod crc;
pub(crate) mod work;
