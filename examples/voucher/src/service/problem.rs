//! What goes wrong, as the caller is told.

use std::fmt;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use desfire_ev1::split::{HolderError, MessageError, Refusal};

use crate::keys::KeyFailure;

/// An answer that is an error: HTTP status, a word for programs, a sentence for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    pub(super) status: StatusCode,
    pub(super) word: &'static str,
    pub(super) text: String,
    /// For the audit log only.
    pub(super) inside: Option<String>,
}

/// The header with the word.
pub(super) const WORD: &str = "voucher-error";

impl Problem {
    pub(super) fn new(status: StatusCode, word: &'static str, text: impl Into<String>) -> Self {
        Self {
            status,
            word,
            text: text.into(),
            inside: None,
        }
    }

    /// One answer for all of it, so that nobody learns which terminals there are.
    pub(super) fn unknown_terminal() -> Self {
        Self::new(
            StatusCode::UNAUTHORIZED,
            "terminal",
            "this terminal is unknown here, or the message was not made with its key",
        )
    }

    pub(super) fn no_such_tap() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "tap",
            "there is no such tap, or it is over; start a new one",
        )
    }

    pub(super) fn too_late() -> Self {
        Self::new(
            StatusCode::GATEWAY_TIMEOUT,
            "deadline",
            "the key holder did not answer in time; nothing was released, start a new tap",
        )
    }

    pub(super) fn busy() -> Self {
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "busy",
            "too much to do at the moment; try again soon",
        )
    }

    pub(super) fn internal(inside: impl fmt::Display) -> Self {
        let mut problem = Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal",
            "something is wrong in the service; its log says what",
        );
        problem.inside = Some(inside.to_string());
        problem
    }
}

impl From<MessageError> for Problem {
    fn from(error: MessageError) -> Self {
        match error {
            MessageError::Altered => Self::unknown_terminal(),
            error => Self::new(StatusCode::BAD_REQUEST, "message", error.to_string()),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        let (status, word) = match refusal {
            Refusal::Message(error) => return error.into(),
            Refusal::UnknownTerminal => return Self::unknown_terminal(),
            Refusal::NotGranted { .. } => (StatusCode::FORBIDDEN, "policy"),
            Refusal::Replayed | Refusal::NotFresh | Refusal::CounterMismatch => {
                (StatusCode::CONFLICT, "freshness")
            }
            Refusal::Full => return Self::busy(),
            Refusal::Unsuitable { .. } | Refusal::WrongMode { .. } | Refusal::KeyType(_) => {
                (StatusCode::BAD_REQUEST, "mode")
            }
            Refusal::NotProved => (StatusCode::FORBIDDEN, "proof"),
            Refusal::Expired => (StatusCode::GONE, "expired"),
            Refusal::NoReplies => (StatusCode::BAD_REQUEST, "receipt"),
            other => return Self::internal(other),
        };
        Self::new(status, word, refusal.to_string())
    }
}

impl From<KeyFailure> for Problem {
    fn from(failure: KeyFailure) -> Self {
        match failure {
            KeyFailure::Unknown => Self::new(
                StatusCode::FORBIDDEN,
                "scheme",
                "this card is not in the scheme",
            ),
            KeyFailure::NeedsUid => Self::new(StatusCode::BAD_REQUEST, "uid", failure.to_string()),
            KeyFailure::Down(inside) => {
                let mut problem = Self::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "holder",
                    "the key holder does not work at the moment; nothing was released",
                );
                problem.inside = Some(inside);
                problem
            }
        }
    }
}

impl From<HolderError<KeyFailure>> for Problem {
    fn from(error: HolderError<KeyFailure>) -> Self {
        match error {
            HolderError::Refused(refusal) => refusal.into(),
            HolderError::Key(failure) => failure.into(),
            other => Self::internal(other),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = (self.status, format!("{}\n", self.text)).into_response();
        let headers = response.headers_mut();
        headers.insert(WORD, HeaderValue::from_static(self.word));
        if matches!(
            self.status,
            StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
        ) {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
