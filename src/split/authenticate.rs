//! A live handshake with a key that is elsewhere: a SAM at the terminal, or the key holder in remote
//! mode.

use rand_core::TryCryptoRng;
use zeroize::Zeroizing;

use super::key::{AsyncCbcKey, CbcKey, work, work_async};
use crate::error::{Error, ErrorKind};
use crate::pcd::doors::{KeyHalf, Opened, Opening, Proved};
use crate::wire::{AuthScheme, KeyNo};
use crate::{
    AsyncTransport, Authenticated, Machine as _, RunError, Session, Transport, Unauthenticated,
};

/// Why there is no session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthenticateError<K, T> {
    /// What keeps the key has failed. The card is left in the middle of the handshake.
    #[error("the key store failed: {0}")]
    Key(K),
    /// Card or transport.
    #[error("{0}")]
    Run(RunError<T>),
}

impl<K, T> From<RunError<T>> for AuthenticateError<K, T> {
    fn from(error: RunError<T>) -> Self {
        Self::Run(error)
    }
}

impl<K, T> From<Error> for AuthenticateError<K, T> {
    fn from(error: Error) -> Self {
        Self::Run(error.into())
    }
}

fn nonce<R: TryCryptoRng + ?Sized>(
    scheme: AuthScheme,
    rng: &mut R,
) -> Result<Zeroizing<[u8; 16]>, Error> {
    let mut rnd_a = Zeroizing::new([0; 16]);
    match rng.try_fill_bytes(rnd_a.as_mut()) {
        Ok(()) => Ok(rnd_a),
        Err(_) => Err(Error::not_sent(scheme.command(), ErrorKind::Randomness).session_gone(true)),
    }
}

fn half(opened: &Opened, rnd_a: &[u8; 16]) -> Result<KeyHalf, Error> {
    let (scheme, _, key_type) = opened.key();
    KeyHalf::new(scheme, key_type, rnd_a, &opened.challenge())
        .map_err(|kind| Error::unknown(scheme.command(), kind))
}

/// Token out of the computed half, and what to do with the proof.
fn finish(
    scheme: AuthScheme,
    half: KeyHalf,
) -> Result<(crate::pcd::doors::Answer, crate::wire::InlineBytes<32>), Error> {
    let unknown = |kind| Error::unknown(scheme.command(), kind);
    let answer = half.finish().map_err(unknown)?;
    let token = crate::wire::InlineBytes::new(answer.token());
    let token = token.map_err(|error| unknown(error.into()))?;
    Ok((answer, token))
}

fn session(
    scheme: AuthScheme,
    answer: crate::pcd::doors::Answer,
    proved: Proved,
) -> Result<Session<Authenticated>, Error> {
    let key = answer
        .verify(&proved.proof())
        .map_err(|kind| Error::unknown(scheme.command(), kind))?;
    Ok(proved.session(&key))
}

/// Authenticates with a key that can be used but not seen.
///
/// # Errors
/// [`AuthenticateError`].
pub fn authenticate<K, R, T>(
    session_before: Session<Unauthenticated>,
    scheme: AuthScheme,
    key_no: KeyNo,
    key: &mut K,
    rng: &mut R,
    transport: &mut T,
) -> Result<Session<Authenticated>, AuthenticateError<K::Error, T::Error>>
where
    K: CbcKey + ?Sized,
    R: TryCryptoRng + ?Sized,
    T: Transport + ?Sized,
{
    let rnd_a = nonce(scheme, rng)?;
    let opening = Opening::new(session_before, scheme, key_no, key.key_type());
    let opened = opening.run(transport)?;
    let mut half = half(&opened, &rnd_a)?;
    work(key, &mut half).map_err(AuthenticateError::Key)?;
    let (answer, token) = finish(scheme, half)?;
    let proved = opened.token(token).run(transport)?;
    Ok(session(scheme, answer, proved)?)
}

/// The same, async.
///
/// # Errors
/// [`AuthenticateError`].
pub async fn authenticate_async<K, R, T>(
    session_before: Session<Unauthenticated>,
    scheme: AuthScheme,
    key_no: KeyNo,
    key: &mut K,
    rng: &mut R,
    transport: &mut T,
) -> Result<Session<Authenticated>, AuthenticateError<K::Error, T::Error>>
where
    K: AsyncCbcKey + ?Sized,
    R: TryCryptoRng + ?Sized,
    T: AsyncTransport + ?Sized,
{
    let rnd_a = nonce(scheme, rng)?;
    let opening = Opening::new(session_before, scheme, key_no, key.key_type());
    let opened = opening.run_async(transport).await?;
    let mut half = half(&opened, &rnd_a)?;
    work_async(key, &mut half)
        .await
        .map_err(AuthenticateError::Key)?;
    let (answer, token) = finish(scheme, half)?;
    let proved = opened.token(token).run_async(transport).await?;
    Ok(session(scheme, answer, proved)?)
}
