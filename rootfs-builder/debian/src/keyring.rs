//! Which signatures we believe: certificates of Debian's keyring package that `trusted.toml` names by
//! fingerprint.
//!
//! The OpenPGP itself is rPGP's (the crate `pgp`): of the two well-kept libraries the one that is all Rust
//! without a choice of backends, under a permissive licence and with the smaller tree. What it leaves to its
//! caller is done here: which hash functions will do, which keys of a certificate may sign, and whether they
//! have expired or been revoked.

use std::io::Cursor;
use std::path::Path;
use std::time::{Duration, SystemTime};

use guest_inputs::{Cache, Pin, Progress};
use pgp::composed::{CleartextSignedMessage, Deserializable, SignedPublicKey, SignedPublicSubKey};
use pgp::crypto::hash::HashAlgorithm;
use pgp::packet::{PublicKey, PublicSubkey, Signature, SignatureType};
use pgp::types::{KeyDetails, Tag};
use serde::Deserialize;

use crate::error::{Error, at};

const TRUSTED: &str = include_str!("../trusted.toml");
/// Where Debian's package has all its certificates in one file.
const IN_PACKAGE: &str = "usr/share/keyrings/debian-archive-keyring.gpg";
/// As much as the clocks of a signer and of this machine may differ.
const SKEW: Duration = Duration::from_secs(24 * 60 * 60);

/// The keys that may sign a Release file.
#[derive(Debug)]
pub(crate) struct Keyring {
    signers: Vec<Signer>,
}

/// A text that a trusted key has signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signed {
    /// What is signed, and nothing that stood around it.
    pub(crate) text: String,
    /// The fingerprint of the certificate whose key signed it.
    pub(crate) by: String,
}

/// The file `trusted.toml`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Trusted {
    keyring: Vec<Pin>,
    certificate: Vec<Certificate>,
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Certificate {
    name: String,
    fingerprint: String,
}

/// A key that may sign, of a certificate that is trusted.
#[derive(Debug)]
struct Signer {
    /// The certificate, for messages.
    name: String,
    certificate: String,
    key: Key,
    /// From then on its signatures do not count.
    expires: Option<SystemTime>,
}

#[derive(Debug)]
enum Key {
    Primary(PublicKey),
    Sub(PublicSubkey),
}

impl Keyring {
    /// Debian's, from the package that is pinned in `trusted.toml`.
    pub(crate) fn fetch(cache: &Cache, progress: &Progress) -> Result<Self, Error> {
        let trusted = Trusted::ours()?;
        let mut failure = Error::Keyring { what: "trusted.toml names no keyring package".to_owned() };
        for pin in &trusted.keyring {
            match guest_inputs::fetch(cache, pin, progress) {
                Ok(deb) => return Keyring::of_package(&deb, &trusted),
                Err(error @ guest_inputs::Error::Download { absent: true, .. }) => failure = error.into(),
                Err(error) => return Err(error.into()),
            }
        }
        Err(failure)
    }

    /// One that trusts every certificate of a file.
    #[cfg(any(test, fuzzing))]
    pub(crate) fn of_all(bytes: &[u8]) -> Result<Self, Error> {
        let wrong = |error: pgp::errors::Error| Error::Keyring { what: error.to_string() };
        let mut certificate = Vec::new();
        for one in SignedPublicKey::from_bytes_many(Cursor::new(bytes)).map_err(wrong)? {
            let fingerprint = one.map_err(wrong)?.fingerprint().to_string();
            certificate.push(Certificate { name: "a signer".to_owned(), fingerprint });
        }
        Keyring::read(bytes, &Trusted { keyring: Vec::new(), certificate })
    }

    /// The one signature that counts, among those of a message in OpenPGP's cleartext form.
    ///
    /// One good signature of a trusted key is enough: Debian signs each Release with the keys of two or three
    /// releases.
    pub(crate) fn verify(&self, suite: &str, message: &[u8], now: SystemTime) -> Result<Signed, Error> {
        let refuse = |what: String| Error::Signature { suite: suite.to_owned(), what };
        let text = std::str::from_utf8(message).map_err(|_| refuse("is not text".to_owned()))?;
        let (message, _) = CleartextSignedMessage::from_string(text)
            .map_err(|error| refuse(format!("is no signed message: {error}")))?;
        let signed_text = message.signed_text();
        let mut why_not = Vec::new();
        for signature in message.signatures() {
            match self.signer(signature, &signed_text, now) {
                Ok(signer) => {
                    // What is signed has its lines ended as on a teleprinter (RFC 9580, section 7).
                    let text = signed_text.replace("\r\n", "\n");
                    return Ok(Signed { text, by: signer.certificate.clone() });
                }
                Err(why) => why_not.push(why),
            }
        }
        match why_not.is_empty() {
            true => Err(refuse("there is none".to_owned())),
            false => Err(refuse(format!("none is good: {}", why_not.join("; ")))),
        }
    }

    fn of_package(deb: &Path, trusted: &Trusted) -> Result<Self, Error> {
        let scratch = tempfile::tempdir().map_err(at("create a directory in", std::env::temp_dir()))?;
        guest_inputs::unpack_deb(deb, scratch.path())?;
        let file = scratch.path().join(IN_PACKAGE);
        let bytes = std::fs::read(&file).map_err(at("read", &file))?;
        Keyring::read(&bytes, trusted)
    }

    /// The certificates of a file that are trusted, each checked. All that are trusted have to be there.
    fn read(bytes: &[u8], trusted: &Trusted) -> Result<Self, Error> {
        let wrong = |what: String| Error::Keyring { what };
        let all = SignedPublicKey::from_bytes_many(Cursor::new(bytes)).map_err(|e| wrong(e.to_string()))?;
        let all: Vec<_> = all.collect::<Result<_, _>>().map_err(|e| wrong(e.to_string()))?;
        let mut signers = Vec::new();
        for Certificate { name, fingerprint } in &trusted.certificate {
            let found = all.iter().find(|one| one.fingerprint().to_string() == *fingerprint);
            let found = found.ok_or_else(|| wrong(format!("{name}: no certificate {fingerprint}")))?;
            let mut of_this = signing_keys(name, found);
            if of_this.is_empty() {
                return Err(wrong(format!("{name}: certificate {fingerprint} has no key that may sign")));
            }
            signers.append(&mut of_this);
        }
        Ok(Keyring { signers })
    }

    /// Who made a signature, if it counts.
    fn signer(&self, signature: &Signature, text: &str, now: SystemTime) -> Result<&Signer, String> {
        let strong = [HashAlgorithm::Sha256, HashAlgorithm::Sha384, HashAlgorithm::Sha512];
        if !signature.hash_alg().is_some_and(|hash| strong.contains(&hash)) {
            return Err(format!("its hash function {:?} is not trusted", signature.hash_alg()));
        }
        if !matches!(signature.typ(), Some(SignatureType::Text | SignatureType::Binary)) {
            return Err("is of a kind that signs no document".to_owned());
        }
        let good = |signer: &&Signer| match &signer.key {
            Key::Primary(key) => signature.verify(key, text.as_bytes()).is_ok(),
            Key::Sub(key) => signature.verify(key, text.as_bytes()).is_ok(),
        };
        let named = |signer: &&Signer| signer.is_named_by(signature);
        let Some(signer) = self.signers.iter().find(good) else {
            return Err(match self.signers.iter().find(named) {
                Some(signer) => format!("that of {:?} does not match the text", signer.name),
                None => format!("that of key {} is of nobody we trust", issuer(signature)),
            });
        };
        let made: SystemTime = signature.created().ok_or("has no date")?.into();
        let valid_for = signature.signature_expiration_time().map(Duration::from);
        if made > now + SKEW {
            return Err(format!(
                "that of {:?} is of the future: does this machine's clock go right?",
                signer.name
            ));
        }
        if valid_for.is_some_and(|time| !time.is_zero() && made + time < now) {
            return Err(format!("that of {:?} has expired", signer.name));
        }
        if signer.expires.is_some_and(|end| end < now) {
            return Err(format!("the key of {:?} has expired", signer.name));
        }
        Ok(signer)
    }
}

impl Trusted {
    fn ours() -> Result<Self, Error> {
        toml::from_str(TRUSTED).map_err(|error| Error::Keyring { what: format!("trusted.toml: {error}") })
    }
}

impl Signer {
    fn is_named_by(&self, signature: &Signature) -> bool {
        let id = match &self.key {
            Key::Primary(key) => key.legacy_key_id(),
            Key::Sub(key) => key.legacy_key_id(),
        };
        signature.issuer_key_id().contains(&&id)
    }
}

/// The keys of a certificate that its owner lets sign, and that have not been revoked.
fn signing_keys(name: &str, certificate: &SignedPublicKey) -> Vec<Signer> {
    let primary = &certificate.primary_key;
    let owner = self_signature(certificate);
    // A revocation, even a bad one: no key of this list should have any.
    let Some(owner) = owner.filter(|_| certificate.details.revocation_signatures.is_empty()) else {
        return Vec::new();
    };
    let fingerprint = certificate.fingerprint().to_string();
    let whole_until = end_of(primary.created_at().into(), owner);
    let signer =
        |key, expires| Signer { name: name.to_owned(), certificate: fingerprint.clone(), key, expires };
    let mut keys = Vec::new();
    if owner.key_flags().sign() {
        keys.push(signer(Key::Primary(primary.clone()), whole_until));
    }
    for sub in &certificate.public_subkeys {
        let Some(binding) = signing_binding(sub, primary) else { continue };
        let until = end_of(sub.key.created_at().into(), binding);
        let until = [until, whole_until].into_iter().flatten().min();
        keys.push(signer(Key::Sub(sub.key.clone()), until));
    }
    keys
}

/// What the owner says of the certificate: the latest valid signature of its primary key over itself or a
/// name of its.
fn self_signature(certificate: &SignedPublicKey) -> Option<&Signature> {
    let primary = &certificate.primary_key;
    let named = certificate.details.users.iter().flat_map(|user| {
        let valid = |signature: &&Signature| {
            signature.is_certification()
                && signature.verify_certification(primary, Tag::UserId, &user.id).is_ok()
        };
        user.signatures.iter().filter(valid)
    });
    let direct = certificate.details.direct_signatures.iter();
    named.chain(direct.filter(|signature| signature.verify_key(primary).is_ok())).max_by_key(|s| s.created())
}

/// The binding of a subkey that lets it sign, agreed to by both keys; none if it has been revoked.
fn signing_binding<'a>(sub: &'a SignedPublicSubKey, primary: &PublicKey) -> Option<&'a Signature> {
    if sub.signatures.iter().any(|signature| signature.typ() == Some(SignatureType::SubkeyRevocation)) {
        return None;
    }
    let valid = |signature: &&Signature| signature.verify_subkey_binding(primary, &sub.key).is_ok();
    let latest = sub.signatures.iter().filter(valid).max_by_key(|signature| signature.created())?;
    let agreed = latest.embedded_signature()?.verify_primary_key_binding(&sub.key, primary).is_ok();
    (agreed && latest.key_flags().sign()).then_some(latest)
}

/// A key's end as a signature over it has it. Zero means none (RFC 9580, section 5.2.3.13).
fn end_of(created: SystemTime, signature: &Signature) -> Option<SystemTime> {
    let lives = signature.key_expiration_time().map(Duration::from);
    lives.filter(|time| !time.is_zero()).map(|time| created + time)
}

fn issuer(signature: &Signature) -> String {
    signature.issuer_key_id().first().map_or("?".to_owned(), |id| id.to_string())
}

#[cfg(test)]
mod tests;
