//! Keys in a PKCS#11 token.
//!
//! # What lies in the token
//!
//! Per master key of the scheme a secret key object and a data object of the same label,
//! `AID/key number`:
//!
//! | object | attributes |
//! |---|---|
//! | secret key, AES | private, sensitive, not extractable, not modifiable; derives by CKM_AES_CBC_ENCRYPT_DATA and does nothing else |
//! | data | the first block of AN10922's message, 16: 01 and the first 15 bytes of the input; L = E(K, 0), 16; C1 = E(K, first block), 16 |
//!
//! AN10922 is a CMAC over two blocks, and its last step, E(K, C1 ⊕ second block ⊕ subkey), is the
//! card's key. The token does that step and keeps the result: CKM_AES_CBC_ENCRYPT_DATA over *one*
//! block, with C1 as IV. (Over both blocks it would not do: SoftHSM keeps the leading bytes of what
//! is too long.) The subkey comes from L. L and C1 are the same for all cards and are computed when
//! the key is loaded; they are no keys, and who knows them can predict no other output.
//!
//! So the master key has neither CKA_ENCRYPT nor CKA_SIGN: with either of them, whoever may use it
//! could compute card keys outside. A token's own CKM_AES_CMAC would not help anyhow: it makes a
//! value and no key, and pads short inputs otherwise than AN10922.
//!
//! A card's key is a session object, sensitive and not extractable, for CBC; it is destroyed after
//! the handshake.
//!
//! # What it does not protect from
//!
//! Whoever has the user PIN can derive with a template of their own, also into an extractable key:
//! PKCS#11 has CKA_DERIVE_TEMPLATE against that, SoftHSM 2.6 does not know it. On an HSM that does,
//! fix the template there. And whoever has the PIN can ask for any card's handshake, as this service
//! does: that is what it is for.
//!
//! AES only. AN10922 for 2K3DES and 3K3DES makes a key of two or three parts, each of its own
//! derivation; joining them inside the token takes CKM_CONCATENATE_BASE_AND_KEY, which SoftHSM 2.6
//! does not have, and `cryptoki` has no CKM_DES3_CBC_ENCRYPT_DATA.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::mechanism::{Mechanism, MechanismType, ekdf::AesCbcDeriveParams};
use cryptoki::object::{
    Attribute, AttributeType, KeyType as TokenKeyType, ObjectClass, ObjectHandle,
};
use cryptoki::session::{Session, SessionState, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;
use desfire_ev1::split::{CbcDirection, CbcKey, CbcWork as _, Diversification, KeyRequest};
use desfire_ev1::wire::{Aid, KeyNo, KeyType};
use zeroize::{Zeroize as _, Zeroizing};

use super::{HeldKey, Holder, KeyFailure};
use crate::scheme;

/// AN10922 2.2.1's example, for finding out whether a token derives what it should: master key, and UID,
/// AID and system identifier joined.
const EXAMPLE_MASTER: [u8; 16] = [
    0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99, 0xAA, 0xBB, 0xCC, 0xDD, 0xEE, 0xFF,
];
const EXAMPLE_INPUT: [u8; 17] = [
    0x04, 0x78, 0x2E, 0x21, 0x80, 0x1D, 0x80, 0x30, 0x42, 0xF5, 0x4E, 0x58, 0x50, 0x20, 0x41, 0x62,
    0x75,
];
/// AES of a block of zeros under the example's result, A8DD63A3B89D54B37CA802473FDA9175 (by OpenSSL).
const EXAMPLE_CIPHERTEXT: [u8; 16] = [
    0xC0, 0x98, 0xFE, 0x2E, 0x61, 0xB0, 0x61, 0x2F, 0x86, 0x07, 0xEB, 0x81, 0x89, 0x57, 0x32, 0xCD,
];

/// Where the token is.
#[derive(Clone, Debug)]
pub struct TokenSpec {
    /// The PKCS#11 module, a shared library.
    pub module: PathBuf,
    /// The token's label.
    pub label: String,
    /// The user PIN. It does not print itself.
    pub pin: AuthPin,
}

/// Why a token cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// PKCS#11 says so.
    #[error("PKCS#11: {0}")]
    Pkcs11(#[from] cryptoki::error::Error),
    /// No token of that label.
    #[error(
        "there is no initialised token with the label {0:?}; softhsm2-util --show-slots lists them"
    )]
    NoToken(String),
    /// The token has no such key.
    #[error("the token has no key {0:?}; load the scheme's keys first")]
    NoKey(String),
    /// The key is there twice, or its data object is wrong.
    #[error("the objects {0:?} in the token are not what this program has put there")]
    Strange(String),
    /// The token's derivation is not AN10922.
    #[error(
        "the token's CKM_AES_CBC_ENCRYPT_DATA does not give what AN10922 has published: it cannot be used"
    )]
    NotAn10922,
    /// The key was loaded for inputs that begin otherwise.
    #[error("the key in the token is of another scheme: its diversification begins otherwise")]
    OtherInput,
    /// The input for AN10922.
    #[error(transparent)]
    Key(#[from] desfire_ev1::KeyError),
}

impl From<TokenError> for KeyFailure {
    fn from(error: TokenError) -> Self {
        Self::Down(error.to_string())
    }
}

#[derive(Clone, Copy)]
struct Master {
    key: ObjectHandle,
    /// What the data object holds.
    known: Known,
}

/// What is known of a master key outside, none of it secret.
#[derive(Clone, Copy)]
struct Known {
    first: [u8; 16],
    l: [u8; 16],
    c1: [u8; 16],
}

impl Known {
    fn encode(&self) -> Vec<u8> {
        [&self.first[..], &self.l, &self.c1].concat()
    }

    fn decode(bytes: &[u8]) -> Option<Self> {
        let (first, rest) = bytes.split_first_chunk()?;
        let (l, rest) = rest.split_first_chunk()?;
        let (c1, rest) = rest.split_first_chunk()?;
        rest.is_empty().then_some(Self {
            first: *first,
            l: *l,
            c1: *c1,
        })
    }
}

struct Inner {
    context: Pkcs11,
    slot: Slot,
    pin: AuthPin,
    idle: Mutex<Vec<Session>>,
    masters: Mutex<HashMap<String, Master>>,
}

/// A token with the scheme's master keys in it.
#[derive(Clone)]
pub struct TokenHolder {
    inner: Arc<Inner>,
    label: String,
}

impl TokenHolder {
    /// Opens the token, logs in, and checks with the published example that it computes AN10922.
    ///
    /// A process can have a PKCS#11 module open once: clone this value instead of opening twice.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn open(spec: &TokenSpec) -> Result<Self, TokenError> {
        let context = Pkcs11::new(&spec.module)?;
        context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK))?;
        let mut found = None;
        for slot in context.get_slots_with_initialized_token()? {
            if context.get_token_info(slot)?.label() == spec.label {
                found = Some(slot);
            }
        }
        let slot = found.ok_or_else(|| TokenError::NoToken(spec.label.clone()))?;
        let holder = Self {
            inner: Arc::new(Inner {
                context,
                slot,
                pin: spec.pin.clone(),
                idle: Mutex::new(Vec::new()),
                masters: Mutex::new(HashMap::new()),
            }),
            label: spec.label.clone(),
        };
        holder.self_test()?;
        Ok(holder)
    }

    /// Puts a master key into the token, for ever out of sight, in place of one that may be there.
    /// `input` is any input of AN10922 that is going to be used with it: all have to begin with the same 15
    /// bytes.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn load(
        &self,
        aid: Aid,
        key_no: KeyNo,
        key: &[u8; 16],
        input: &[u8],
    ) -> Result<(), TokenError> {
        let session = self.inner.session()?;
        let label = label(aid, key_no);
        for old in session.find_objects(&[Attribute::Label(label.clone().into_bytes())])? {
            session.destroy_object(old)?;
        }
        let known = first_steps(&session, key, input)?;
        session.create_object(&master_template(&label, key, true))?;
        session.create_object(&[
            Attribute::Class(ObjectClass::DATA),
            Attribute::Token(true),
            Attribute::Private(true),
            Attribute::Label(label.clone().into_bytes()),
            Attribute::Value(known.encode()),
        ])?;
        self.inner.masters().remove(&label);
        self.inner.put_back(session);
        Ok(())
    }

    /// The sessions' own view of every secret key object in the token, for whoever wants to see
    /// what is there: attributes and never values.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn with_session<O>(
        &self,
        look: impl FnOnce(&Session) -> Result<O, cryptoki::error::Error>,
    ) -> Result<O, TokenError> {
        let session = self.inner.session()?;
        let seen = look(&session)?;
        self.inner.put_back(session);
        Ok(seen)
    }

    /// Derives a card's key from a master key with any input of AN10922; what can be done with it
    /// is CBC.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn derive(&self, aid: Aid, key_no: KeyNo, input: &[u8]) -> Result<TokenKey, TokenError> {
        let session = self.inner.session()?;
        let label = label(aid, key_no);
        let master = self.inner.master(&session, &label)?;
        let object = derive(&session, master, input).inspect_err(|_| {
            // Perhaps it is not there any more, or under another handle.
            self.inner.masters().remove(&label);
        })?;
        Ok(TokenKey {
            inner: Arc::clone(&self.inner),
            session: Some(session),
            object,
        })
    }

    fn self_test(&self) -> Result<(), TokenError> {
        let session = self.inner.session()?;
        let master =
            session.create_object(&master_template("self-test", &EXAMPLE_MASTER, false))?;
        let known = first_steps(&session, &EXAMPLE_MASTER, &EXAMPLE_INPUT)?;
        let object = derive(&session, Master { key: master, known }, &EXAMPLE_INPUT)?;
        let got = session.encrypt(&Mechanism::AesCbc([0; 16]), object, &[0; 16])?;
        session.destroy_object(object)?;
        session.destroy_object(master)?;
        self.inner.put_back(session);
        if got == EXAMPLE_CIPHERTEXT {
            Ok(())
        } else {
            Err(TokenError::NotAn10922)
        }
    }
}

fn label(aid: Aid, key_no: KeyNo) -> String {
    format!("{aid}/{}", key_no.number())
}

/// A master key: it derives, by one mechanism.
fn master_template(label: &str, key: &[u8; 16], token: bool) -> Vec<Attribute> {
    vec![
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(TokenKeyType::AES),
        Attribute::Token(token),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Modifiable(false),
        Attribute::Copyable(false),
        Attribute::Derive(true),
        Attribute::Encrypt(false),
        Attribute::Decrypt(false),
        Attribute::Sign(false),
        Attribute::Verify(false),
        Attribute::Wrap(false),
        Attribute::Unwrap(false),
        Attribute::AllowedMechanisms(vec![MechanismType::AES_CBC_ENCRYPT_DATA]),
        Attribute::Label(label.as_bytes().to_vec()),
        Attribute::Value(key.to_vec()),
    ]
}

/// L and C1, computed once by a session object that is gone afterwards.
fn first_steps(session: &Session, key: &[u8; 16], input: &[u8]) -> Result<Known, TokenError> {
    let object = session.create_object(&[
        Attribute::Class(ObjectClass::SECRET_KEY),
        Attribute::KeyType(TokenKeyType::AES),
        Attribute::Token(false),
        Attribute::Private(true),
        Attribute::Sensitive(true),
        Attribute::Extractable(false),
        Attribute::Encrypt(true),
        Attribute::Value(key.to_vec()),
    ])?;
    let encrypt = |block: [u8; 16]| -> Result<[u8; 16], TokenError> {
        let got = session.encrypt(&Mechanism::AesCbc([0; 16]), object, &block)?;
        got.try_into().map_err(|_| TokenError::NotAn10922)
    };
    let l = encrypt([0; 16])?;
    let (first, _) = blocks(&l, input)?;
    let c1 = encrypt(first)?;
    session.destroy_object(object)?;
    Ok(Known { first, l, c1 })
}

/// The two blocks of AN10922's message, the subkey in the second.
fn blocks(l: &[u8; 16], input: &[u8]) -> Result<([u8; 16], [u8; 16]), TokenError> {
    let mut steps = Diversification::new(KeyType::Aes, input)?;
    if let Some(zero) = steps.task() {
        zero.data.copy_from_slice(l);
    }
    steps.done();
    let message = steps.task().ok_or(TokenError::NotAn10922)?;
    let (first, rest) = message
        .data
        .split_first_chunk()
        .ok_or(TokenError::NotAn10922)?;
    let second = rest.first_chunk().ok_or(TokenError::NotAn10922)?;
    Ok((*first, *second))
}

/// AN10922 with the last step inside.
fn derive(session: &Session, master: Master, input: &[u8]) -> Result<ObjectHandle, TokenError> {
    let Master { key, known } = master;
    let (first, last) = blocks(&known.l, input)?;
    // C1 is this block's encryption and no other's.
    if first != known.first {
        return Err(TokenError::OtherInput);
    }
    let parameters = AesCbcDeriveParams::new(known.c1, &last);
    let mechanism = Mechanism::AesCbcEncryptData(parameters);
    Ok(session.derive_key(
        &mechanism,
        key,
        &[
            Attribute::Class(ObjectClass::SECRET_KEY),
            Attribute::KeyType(TokenKeyType::AES),
            Attribute::ValueLen(16.into()),
            Attribute::Token(false),
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Encrypt(true),
            Attribute::Decrypt(true),
            Attribute::Derive(false),
            Attribute::Wrap(false),
            Attribute::Unwrap(false),
            Attribute::Sign(false),
            Attribute::Verify(false),
        ],
    )?)
}

impl Inner {
    fn masters(&self) -> std::sync::MutexGuard<'_, HashMap<String, Master>> {
        self.masters.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self) -> Result<Session, TokenError> {
        let idle = self
            .idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .pop();
        if let Some(session) = idle {
            return Ok(session);
        }
        let session = self.context.open_rw_session(self.slot)?;
        // One log-in counts for all sessions of the process.
        if session.get_session_info()?.session_state() != SessionState::RwUser {
            use cryptoki::error::{Error, RvError};
            match session.login(UserType::User, Some(&self.pin)) {
                // What was seen in the time of an earlier log-in is not valid any more.
                Ok(()) => self.masters().clear(),
                Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(session)
    }

    /// Only of sessions that work: after an error they are closed instead.
    fn put_back(&self, session: Session) {
        self.idle
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(session);
    }

    fn master(&self, session: &Session, label: &str) -> Result<Master, TokenError> {
        if let Some(master) = self.masters().get(label) {
            return Ok(*master);
        }
        let strange = || TokenError::Strange(label.to_owned());
        let named = |class| {
            session.find_objects(&[
                Attribute::Class(class),
                Attribute::Token(true),
                Attribute::Label(label.as_bytes().to_vec()),
            ])
        };
        let key = match named(ObjectClass::SECRET_KEY)?.as_slice() {
            [] => return Err(TokenError::NoKey(label.to_owned())),
            [key] => *key,
            _ => return Err(strange()),
        };
        let data = named(ObjectClass::DATA)?;
        let [data] = data.as_slice() else {
            return Err(strange());
        };
        let value = session.get_attributes(*data, &[AttributeType::Value])?;
        let known = match value.as_slice() {
            [Attribute::Value(known)] => Known::decode(known).ok_or_else(strange)?,
            _ => return Err(strange()),
        };
        let master = Master { key, known };
        self.masters().insert(label.to_owned(), master);
        Ok(master)
    }
}

impl Holder for TokenHolder {
    fn find(&self, wanted: &KeyRequest) -> Result<HeldKey, KeyFailure> {
        if wanted.key_type != KeyType::Aes {
            return Err(KeyFailure::Unknown);
        }
        let uid = wanted.uid.ok_or(KeyFailure::NeedsUid)?;
        let input = scheme::input(&uid);
        match self.derive(wanted.aid, wanted.key_no, &input) {
            Ok(key) => Ok(Box::new(key)),
            Err(TokenError::NoKey(_)) => Err(KeyFailure::Unknown),
            Err(error) => Err(error.into()),
        }
    }

    fn check(&self) -> Result<(), KeyFailure> {
        let session = self.inner.session()?;
        session.get_session_info().map_err(TokenError::from)?;
        self.inner.put_back(session);
        Ok(())
    }

    fn name(&self) -> String {
        format!("PKCS#11 token {:?}", self.label)
    }
}

/// A card's key inside the token, destroyed when dropped.
pub struct TokenKey {
    inner: Arc<Inner>,
    /// None after an error: a session that has failed is not used again.
    session: Option<Session>,
    object: ObjectHandle,
}

impl TokenKey {
    /// The object, for whoever wants to look at its attributes.
    ///
    /// # Errors
    /// [`TokenError`].
    pub fn attributes(&self, wanted: &[AttributeType]) -> Result<Vec<Attribute>, TokenError> {
        match &self.session {
            Some(session) => Ok(session.get_attributes(self.object, wanted)?),
            None => Err(TokenError::NoKey("closed".to_owned())),
        }
    }
}

impl CbcKey for TokenKey {
    type Error = KeyFailure;

    fn key_type(&self) -> KeyType {
        KeyType::Aes
    }

    fn cbc(
        &mut self,
        direction: CbcDirection,
        iv: &[u8],
        data: &mut [u8],
    ) -> Result<(), KeyFailure> {
        let closed = || KeyFailure::Down("the session with the token is closed".to_owned());
        let session = self.session.take().ok_or_else(closed)?;
        let iv = iv.try_into().map_err(|_| closed())?;
        let mechanism = Mechanism::AesCbc(iv);
        let done = match direction {
            CbcDirection::Encrypt => session.encrypt(&mechanism, self.object, data),
            CbcDirection::Decrypt => session.decrypt(&mechanism, self.object, data),
        };
        let done = Zeroizing::new(done.map_err(TokenError::from)?);
        if done.len() != data.len() {
            return Err(closed());
        }
        data.zeroize();
        data.copy_from_slice(&done);
        self.session = Some(session);
        Ok(())
    }
}

impl Drop for TokenKey {
    fn drop(&mut self) {
        // Closing a session destroys its objects, so that none is left in either case.
        if let Some(session) = self.session.take()
            && session.destroy_object(self.object).is_ok()
        {
            self.inner.put_back(session);
        }
    }
}
