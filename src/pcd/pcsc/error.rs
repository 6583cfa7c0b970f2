//! What can be wrong with service, reader and card, in words that tell what to do.

use std::string::{String, ToString as _};
use std::vec::Vec;

use crate::wire::StatusWord;

/// Why a reader or its card cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PcscError {
    /// The service is not there.
    #[error(
        "the PC/SC service is not running; start it (Linux: systemctl start pcscd, from the package pcscd; Windows: the service \"Smart Card\")"
    )]
    NoService,
    /// The service turns this user away: on Linux by polkit, which asks for a session at the machine
    /// itself. Source: pcsc-lite, `doc/README.polkit`.
    #[error(
        "the system does not let this user at its readers; work at the machine itself and not over SSH, or have a polkit rule made for org.debian.pcsc-lite.access_pcsc and access_card"
    )]
    NotAllowed,
    /// No reader is plugged in, or the service cannot get at it.
    #[error("no reader found; {}", no_reader_advice(*.kernel_driver))]
    NoReader {
        /// A kernel module that holds readers of this kind, if it is loaded (Linux).
        kernel_driver: Option<&'static str>,
    },
    /// No reader has this name.
    #[error("no reader's name contains \"{}\"; there are: {}", .wanted.escape_debug(), list(.readers))]
    NoSuchReader {
        /// What was looked for.
        wanted: String,
        /// What there is.
        readers: Vec<String>,
    },
    /// No card lies on the reader.
    #[error("no card on {}; put one on and keep it there", list(.readers))]
    NoCard {
        /// Where it was looked for.
        readers: Vec<String>,
    },
    /// Another program holds the reader or the card.
    #[error("another program uses the reader; close it and try again")]
    ReaderBusy,
    /// The card has been taken away.
    #[error("the card has been taken off the reader; put it back and start again")]
    CardRemoved,
    /// Somebody has reset the card: whatever was authenticated is gone.
    #[error("the card has been reset by another program or the system; start again")]
    CardReset,
    /// The reader has been unplugged.
    #[error("the reader is gone; plug it in and start again")]
    ReaderGone,
    /// The card does not answer.
    #[error(
        "the card does not answer; hold it still in the middle of the reader, away from other cards"
    )]
    CardMute,
    /// The card speaks neither T=0 nor T=1, or the service does not know what to do with it.
    #[error(
        "the service cannot talk to this card; is it a DESFire, alone in the middle of the reader?"
    )]
    UnsupportedCard,
    /// The reader answered with nothing at all.
    #[error("the reader gave an empty answer; take the card off and put it on again")]
    EmptyReply,
    /// The answer is longer than a short APDU.
    #[error("the answer is longer than any that a DESFire gives")]
    ReplyTooLong,
    /// The reader, not the card, says no.
    #[error("the reader itself answered {0}: {advice}", advice = reader_status_advice(*.0))]
    ReaderStatus(StatusWord),
    /// The reader does not have this function.
    #[error("the reader does not have this function, or its driver does not let it through")]
    NotSupported,
    /// Anything else that the service says.
    #[error("the PC/SC service says: {0}")]
    Other(#[from] pcsc::Error),
}

impl PcscError {
    pub(super) fn from_pcsc(error: pcsc::Error) -> Self {
        use pcsc::Error;
        match error {
            Error::NoService | Error::ServiceStopped | Error::Shutdown => Self::NoService,
            Error::SecurityViolation => Self::NotAllowed,
            Error::NoReadersAvailable => Self::no_reader(),
            Error::SharingViolation => Self::ReaderBusy,
            Error::RemovedCard | Error::NoSmartcard => Self::CardRemoved,
            Error::ResetCard => Self::CardReset,
            Error::UnknownReader | Error::ReaderUnavailable | Error::InvalidHandle => {
                Self::ReaderGone
            }
            Error::UnresponsiveCard
            | Error::UnpoweredCard
            | Error::NotTransacted
            | Error::CommError
            | Error::InvalidAtr => Self::CardMute,
            Error::ProtoMismatch | Error::CardUnsupported | Error::UnsupportedCard => {
                Self::UnsupportedCard
            }
            Error::InsufficientBuffer => Self::ReplyTooLong,
            Error::UnsupportedFeature => Self::NotSupported,
            other => Self::Other(other),
        }
    }

    /// For what is asked of the service alone: no card takes part in this, so that it is the
    /// service that has ended.
    pub(super) fn of_service(error: pcsc::Error) -> Self {
        match error {
            pcsc::Error::CommError => Self::NoService,
            error => Self::from_pcsc(error),
        }
    }

    pub(super) fn no_reader() -> Self {
        Self::NoReader {
            kernel_driver: kernel_driver(),
        }
    }
}

/// Linux's own NFC drivers take an ACR122U before pcscd can.
fn kernel_driver() -> Option<&'static str> {
    ["pn533_usb", "pn533"]
        .into_iter()
        .find(|module| std::path::Path::new("/sys/module").join(module).exists())
}

fn no_reader_advice(kernel_driver: Option<&str>) -> String {
    use std::format;
    match kernel_driver {
        Some(module) => format!(
            "the kernel module {module} may hold it: sudo modprobe -r pn533_usb pn533, and blacklist both for good"
        ),
        None => String::from("plug one in, and see that its driver is installed (Linux: libccid)"),
    }
}

fn reader_status_advice(sw: StatusWord) -> &'static str {
    match sw.0 {
        0x6300 | 0x6301 => {
            "it could not carry out the command, often because the card has left the field"
        }
        0x6A81 | 0x6D00 | 0x6E00 => "it does not have this function, or not for this card",
        _ => "see the reader's manual",
    }
}

/// Names may come from the readers themselves, and must not move a terminal's cursor.
fn list(names: &[String]) -> String {
    let clean: Vec<String> = names
        .iter()
        .map(|name| name.escape_debug().to_string())
        .collect();
    clean.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_trouble_has_words_of_its_own() {
        let errors = [
            pcsc::Error::NoService,
            pcsc::Error::SecurityViolation,
            pcsc::Error::NoReadersAvailable,
            pcsc::Error::SharingViolation,
            pcsc::Error::RemovedCard,
            pcsc::Error::ResetCard,
            pcsc::Error::UnknownReader,
            pcsc::Error::UnresponsiveCard,
            pcsc::Error::ProtoMismatch,
            pcsc::Error::InsufficientBuffer,
            pcsc::Error::UnsupportedFeature,
            pcsc::Error::Cancelled,
        ]
        .map(|error| PcscError::from_pcsc(error).to_string());
        for (index, text) in errors.iter().enumerate() {
            assert!(!errors[..index].contains(text), "{text}");
        }
    }

    #[test]
    fn a_broken_line_to_the_service_is_not_a_card() {
        let error = pcsc::Error::CommError;
        assert_eq!(PcscError::of_service(error), PcscError::NoService);
        assert_eq!(PcscError::from_pcsc(error), PcscError::CardMute);
        let error = pcsc::Error::SecurityViolation;
        assert_eq!(PcscError::of_service(error), PcscError::NotAllowed);
    }

    #[test]
    fn names_are_shown_without_control_characters() {
        let readers = Vec::from(["A\u{1B}[2J".to_string(), "Lesegerät 1".to_string()]);
        let text = PcscError::NoCard { readers }.to_string();
        assert_eq!(
            text,
            "no card on A\\u{1b}[2J, Lesegerät 1; put one on and keep it there"
        );
    }

    #[test]
    fn the_kernel_driver_is_named() {
        let advice = no_reader_advice(Some("pn533_usb"));
        assert!(advice.contains("modprobe -r pn533_usb"));
        assert!(!no_reader_advice(None).contains("modprobe"));
    }
}
