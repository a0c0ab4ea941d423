//! PKCE with S256 (RFC 7636), and the values that must not be guessed.

use data_encoding::BASE64URL_NOPAD;
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use super::Random;
use crate::Result;
use crate::secrets::Secret;

/// A code verifier: 32 random octets in base64url, as RFC 7636, section 4.1 recommends.
pub(super) fn verifier(random: &Random) -> Result<Secret> {
    token(random)
}

/// 256 random bits in base64url: a verifier, or a `state`.
pub(super) fn token(random: &Random) -> Result<Secret> {
    let mut octets = [0; 32];
    random(&mut octets)?;
    let text = encode(&octets);
    octets.zeroize();
    Ok(text)
}

/// The challenge of a verifier: base64url(SHA-256(verifier)).
pub(super) fn challenge(verifier: &Secret) -> String {
    BASE64URL_NOPAD.encode(&Sha256::digest(verifier.expose()))
}

fn encode(octets: &[u8]) -> Secret {
    Secret::from_bytes(BASE64URL_NOPAD.encode(octets).into_bytes())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    /// RFC 7636, appendix B.
    #[test]
    fn the_example_of_the_rfc_gives_its_verifier_and_its_challenge() {
        let octets: [u8; 32] = [
            116, 24, 223, 180, 151, 153, 224, 37, 79, 250, 96, 125, 216, 173, 187, 186, 22, 212, 37, 77, 105,
            214, 191, 240, 91, 88, 5, 88, 83, 132, 141, 121,
        ];
        let random: Random = Arc::new(move |bytes| {
            bytes.copy_from_slice(&octets);
            Ok(())
        });
        let verifier = verifier(&random).unwrap();
        assert_eq!(verifier.expose_str().unwrap(), "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk");
        assert_eq!(challenge(&verifier), "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
    }

    #[test]
    fn no_two_verifiers_are_alike_and_each_has_the_form_of_the_rfc() {
        let random: Random = super::super::system_random();
        let mut seen = std::collections::HashSet::new();
        for _ in 0..1000 {
            let verifier = verifier(&random).unwrap();
            let text = verifier.expose_str().unwrap();
            assert_eq!(text.len(), 43);
            assert!(text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte)));
            assert!(seen.insert(text.to_owned()));
        }
    }
}
