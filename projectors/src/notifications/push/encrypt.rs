//! Encryption of what is pushed, for the browser alone: RFC 8291, in the encoding aes128gcm of RFC 8188.

use aws_lc_rs::aead::{AES_128_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use aws_lc_rs::agreement::{ECDH_P256, PrivateKey, UnparsedPublicKey, agree};
use aws_lc_rs::hkdf::{HKDF_SHA256, Salt};
use aws_lc_rs::rand::{SecureRandom, SystemRandom};

/// The record size that is announced; all is in one record.
const RECORD: u32 = 4096;
/// Bytes that one record takes: what push services have to take, without header, delimiter and tag (RFC 8291, section 4).
pub(super) const LARGEST: usize = 3993;
/// Ends the last record.
const DELIMITER: u8 = 2;

/// A key of the subscription is none, or there is more to say than fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the message cannot be encrypted for this subscription")]
pub(super) struct CannotEncrypt;

/// A message for the browser that has this public key and authentication secret.
pub(super) fn encrypt(plain: &[u8], key: &[u8], secret: &[u8]) -> Result<Vec<u8>, CannotEncrypt> {
    let mut salt = [0; 16];
    SystemRandom::new().fill(&mut salt).map_err(|_| CannotEncrypt)?;
    let own = PrivateKey::generate(&ECDH_P256).map_err(|_| CannotEncrypt)?;
    encrypt_by(plain, key, secret, &own, salt)
}

fn encrypt_by(
    plain: &[u8],
    key: &[u8],
    secret: &[u8],
    own: &PrivateKey,
    salt: [u8; 16],
) -> Result<Vec<u8>, CannotEncrypt> {
    if plain.len() > LARGEST {
        return Err(CannotEncrypt);
    }
    let own_public = own.compute_public_key().map_err(|_| CannotEncrypt)?;
    let own_public = own_public.as_ref();
    let about = [b"WebPush: info\0", key, own_public].concat();
    let material =
        agree(own, UnparsedPublicKey::new(&ECDH_P256, key), CannotEncrypt, |shared| derive(secret, shared, &about))?;
    let content_key = derive(&salt, &material, b"Content-Encoding: aes128gcm\0")?;
    let nonce = derive(&salt, &material, b"Content-Encoding: nonce\0")?;

    let mut record = [plain, &[DELIMITER]].concat();
    let cipher = UnboundKey::new(&AES_128_GCM, &content_key[..16]).map_err(|_| CannotEncrypt)?;
    let nonce = Nonce::try_assume_unique_for_key(&nonce[..12]).map_err(|_| CannotEncrypt)?;
    LessSafeKey::new(cipher).seal_in_place_append_tag(nonce, Aad::empty(), &mut record).map_err(|_| CannotEncrypt)?;
    let length = u8::try_from(own_public.len()).map_err(|_| CannotEncrypt)?;
    Ok([&salt[..], &RECORD.to_be_bytes(), &[length], own_public, &record].concat())
}

/// HKDF with SHA-256. Who needs fewer bytes takes the first ones.
fn derive(salt: &[u8], material: &[u8], about: &[u8]) -> Result<[u8; 32], CannotEncrypt> {
    let mut derived = [0; 32];
    let key = Salt::new(HKDF_SHA256, salt).extract(material);
    key.expand(&[about], HKDF_SHA256).and_then(|key| key.fill(&mut derived)).map_err(|_| CannotEncrypt)?;
    Ok(derived)
}

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    fn bytes(text: &str) -> Vec<u8> {
        URL_SAFE_NO_PAD.decode(text).unwrap()
    }

    /// The example of RFC 8291, section 5 and appendix A.
    #[test]
    fn encrypts_as_the_example_of_the_standard() {
        let own = PrivateKey::from_private_key(&ECDH_P256, &bytes("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw"));
        let encrypted = encrypt_by(
            b"When I grow up, I want to be a watermelon",
            &bytes("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"),
            &bytes("BTBZMqHH6r4Tts7J_aSIgg"),
            &own.unwrap(),
            bytes("DGv6ra1nlYgDCS1FRnbzlw").try_into().unwrap(),
        );
        let expected = "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6Tlz\
                        AC8wEqKK6PBru3jl7A_yl95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN";
        assert_eq!(URL_SAFE_NO_PAD.encode(encrypted.unwrap()), expected);
    }

    #[test]
    fn no_two_are_alike_and_what_cannot_be_encrypted_is_refused() {
        let key = bytes("BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4");
        assert_ne!(encrypt(b"x", &key, &[0; 16]).unwrap(), encrypt(b"x", &key, &[0; 16]).unwrap());
        assert_eq!(encrypt(&[0; LARGEST], &key, &[0; 16]).unwrap().len(), 4096);
        assert_eq!(encrypt(&[0; LARGEST + 1], &key, &[0; 16]), Err(CannotEncrypt));
        assert_eq!(encrypt(b"x", &key[..64], &[0; 16]), Err(CannotEncrypt));
    }
}
