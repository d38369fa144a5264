use pgp::composed::{KeyType, SecretKeyParamsBuilder, SignedSecretKey, SubkeyParamsBuilder};
use pgp::ser::Serialize;
use pgp::types::Password;
use rand::{SeedableRng, rngs::StdRng};

use super::*;

/// A certificate whose primary key signs, with a subkey that does too.
fn owner(seed: u64) -> SignedSecretKey {
    let sub = SubkeyParamsBuilder::default().key_type(KeyType::Ed25519Legacy).can_sign(true).build().unwrap();
    let params = SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(true)
        .primary_user_id(format!("owner {seed}"))
        .subkeys(vec![sub])
        .build()
        .unwrap();
    params.generate(StdRng::seed_from_u64(seed)).unwrap()
}

fn trusted(owners: &[&SignedSecretKey]) -> Trusted {
    let certificate = owners.iter().map(|owner| Certificate {
        name: "an owner".to_owned(),
        fingerprint: owner.fingerprint().to_string(),
    });
    Trusted { keyring: Vec::new(), certificate: certificate.collect() }
}

fn keyring_file(owners: &[&SignedSecretKey]) -> Vec<u8> {
    owners.iter().flat_map(|owner| owner.to_public_key().to_bytes().unwrap()).collect()
}

fn keyring(owner: &SignedSecretKey) -> Keyring {
    Keyring::read(&keyring_file(&[owner]), &trusted(&[owner])).unwrap()
}

fn message(text: &str, owner: &SignedSecretKey) -> String {
    let rng = StdRng::seed_from_u64(9);
    let signed = CleartextSignedMessage::sign(rng, text, &owner.primary_key, &Password::empty()).unwrap();
    signed.to_armored_string(Default::default()).unwrap()
}

fn verify(keyring: &Keyring, message: &str) -> Result<Signed, String> {
    keyring.verify("sid", message.as_bytes(), SystemTime::now()).map_err(|error| error.to_string())
}

const TEXT: &str = "Suite: sid\n- a line with a dash\nlast: yes\n";

#[test]
fn what_a_trusted_key_signed_is_given_back_without_what_stood_around_it() {
    let owner = owner(1);
    let signed = verify(&keyring(&owner), &message(TEXT, &owner)).unwrap();
    assert_eq!(signed.text.trim_end(), TEXT.trim_end());
    assert_eq!(signed.by, owner.fingerprint().to_string());
}

#[test]
fn a_subkey_signs_for_its_certificate() {
    let owner = owner(1);
    let rng = StdRng::seed_from_u64(9);
    let sub = &owner.secret_subkeys[0].key;
    let signed = CleartextSignedMessage::sign(rng, TEXT, sub, &Password::empty()).unwrap();
    let signed = signed.to_armored_string(Default::default()).unwrap();
    assert_eq!(verify(&keyring(&owner), &signed).unwrap().by, owner.fingerprint().to_string());
}

#[test]
fn a_changed_text_is_refused() {
    let owner = owner(1);
    let changed = message(TEXT, &owner).replace("last: yes", "last: no");
    let error = verify(&keyring(&owner), &changed).unwrap_err();
    assert_eq!(
        error,
        "suite sid: signature of InRelease: none is good: that of \"an owner\" does not match the text"
    );
}

#[test]
fn a_stranger_s_signature_is_refused() {
    let (owner, stranger) = (owner(1), owner(2));
    let error = verify(&keyring(&owner), &message(TEXT, &stranger)).unwrap_err();
    assert!(error.ends_with("is of nobody we trust"), "{error}");
}

#[test]
fn what_is_not_signed_is_refused() {
    let owner = owner(1);
    let whole = message(TEXT, &owner);
    let cut = &whole[..whole.find("-----BEGIN PGP SIGNATURE").unwrap()];
    for (text, what) in [
        (TEXT, "is no signed message"),
        ("", "is no signed message"),
        (cut, "is no signed message"),
        (&format!("Suite: evil\n{whole}"), "is no signed message"),
        (&format!("{whole}Suite: evil\n"), "is no signed message"),
    ] {
        let error = verify(&keyring(&owner), text).unwrap_err();
        assert!(error.contains(what), "{error}");
    }
    assert!(keyring(&owner).verify("sid", &[0xff, 0xfe], SystemTime::now()).is_err());
}

#[test]
fn times_count() {
    let owner = owner(1);
    let ring = keyring(&owner);
    let message = message(TEXT, &owner);
    let then = SystemTime::now() - 2 * SKEW;
    let error = ring.verify("sid", message.as_bytes(), then).unwrap_err().to_string();
    assert!(error.contains("is of the future"), "{error}");
    let mut old = keyring(&owner);
    old.signers.iter_mut().for_each(|signer| signer.expires = Some(then));
    let error = verify(&old, &message).unwrap_err();
    assert!(error.ends_with("the key of \"an owner\" has expired"), "{error}");
}

#[test]
fn a_certificate_counts_only_if_it_is_named_and_all_that_are_named_have_to_be_there() {
    let (one, two) = (owner(1), owner(2));
    let ring = Keyring::read(&keyring_file(&[&two, &one]), &trusted(&[&one])).unwrap();
    assert!(ring.signers.iter().all(|signer| signer.certificate == one.fingerprint().to_string()));
    let error = Keyring::read(&keyring_file(&[&one]), &trusted(&[&one, &two])).unwrap_err().to_string();
    assert!(error.starts_with("keyring: an owner: no certificate "), "{error}");
    assert!(Keyring::read(b"garbage", &trusted(&[&one])).is_err());
}

#[test]
fn a_certificate_that_may_not_sign_is_of_no_use() {
    let params = SecretKeyParamsBuilder::default()
        .key_type(KeyType::Ed25519Legacy)
        .can_certify(true)
        .can_sign(false)
        .primary_user_id("certifier".to_owned())
        .build()
        .unwrap();
    let certifier = params.generate(StdRng::seed_from_u64(3)).unwrap();
    let error = Keyring::read(&keyring_file(&[&certifier]), &trusted(&[&certifier])).unwrap_err().to_string();
    assert!(error.ends_with("has no key that may sign"), "{error}");
}

#[test]
fn a_subkey_of_somebody_else_is_not_taken_for_the_owner_s() {
    let (owner, stranger) = (owner(1), owner(2));
    let mut forged = owner.to_public_key();
    forged.public_subkeys = stranger.to_public_key().public_subkeys;
    let ring = Keyring::read(&forged.to_bytes().unwrap(), &trusted(&[&owner])).unwrap();
    assert!(ring.signers.iter().all(|signer| matches!(signer.key, Key::Primary(_))));
}

#[test]
fn our_list_is_of_full_fingerprints() {
    let ours = Trusted::ours().unwrap();
    assert!(!ours.keyring.is_empty());
    for one in ours.certificate {
        assert!(
            one.fingerprint.len() == 40 && one.fingerprint.bytes().all(|b| b.is_ascii_hexdigit()),
            "{}",
            one.name
        );
        assert_eq!(one.fingerprint, one.fingerprint.to_lowercase());
    }
}
