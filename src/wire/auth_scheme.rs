//! Which of the native authentications is meant.

use core::fmt;

use super::{CommandCode, KeyType};

/// A native authentication, by its command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum AuthScheme {
    /// `0A`: DES and 2K3DES keys; the session speaks D40 secure messaging.
    Legacy,
    /// `1A`: DES, 2K3DES and 3K3DES keys; the session speaks EV1 secure messaging.
    Iso,
    /// `AA`: AES keys; the session speaks EV1 secure messaging.
    Aes,
}

impl AuthScheme {
    /// The command that starts it.
    #[must_use]
    pub const fn command(self) -> CommandCode {
        match self {
            Self::Legacy => CommandCode::Authenticate,
            Self::Iso => CommandCode::AuthenticateIso,
            Self::Aes => CommandCode::AuthenticateAes,
        }
    }

    /// The authentication that a key of this type is for, with EV1 secure messaging:
    /// [`AuthScheme::Legacy`] is never the answer.
    #[must_use]
    pub const fn for_key_type(key_type: KeyType) -> Self {
        match key_type {
            KeyType::Des | KeyType::TwoKey3Des | KeyType::ThreeKey3Des => Self::Iso,
            KeyType::Aes => Self::Aes,
        }
    }

    /// Whether it takes keys of this type.
    #[must_use]
    pub const fn accepts(self, key_type: KeyType) -> bool {
        matches!(
            (self, key_type),
            (Self::Legacy, KeyType::Des | KeyType::TwoKey3Des)
                | (
                    Self::Iso,
                    KeyType::Des | KeyType::TwoKey3Des | KeyType::ThreeKey3Des
                )
                | (Self::Aes, KeyType::Aes)
        )
    }
}

impl fmt::Display for AuthScheme {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Legacy => "legacy (D40)",
            Self::Iso => "ISO",
            Self::Aes => "AES",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_and_authentications() {
        use AuthScheme::{Aes, Iso, Legacy};
        for (key_type, accepted_by) in [
            (KeyType::Des, &[Legacy, Iso][..]),
            (KeyType::TwoKey3Des, &[Legacy, Iso]),
            (KeyType::ThreeKey3Des, &[Iso]),
            (KeyType::Aes, &[Aes]),
        ] {
            for scheme in [Legacy, Iso, Aes] {
                let accepts = scheme.accepts(key_type);
                assert_eq!(
                    accepts,
                    accepted_by.contains(&scheme),
                    "{scheme} {key_type}"
                );
            }
            assert_eq!(
                AuthScheme::for_key_type(key_type),
                accepted_by[accepted_by.len() - 1]
            );
        }
    }
}
