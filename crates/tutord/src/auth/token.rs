//! Opaque tokens: random for the client, hashed for the store.
//!
//! A token carries nothing but 256 random bits, so there is no signing key to configure, to rotate or
//! to leak, and a revoked token is revoked at once. The store keeps SHA-256 of it: a copy of the
//! database logs nobody in. (A slow hash is for passwords; these can't be guessed.)

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use tutord_core::model::TokenHash;

/// A secret that a client receives once. It does not implement `Debug`, so that it can't reach a log.
pub(super) struct Token(String);

impl Token {
    /// Generates a token: 256 random bits from the operating system, in URL-safe base64.
    pub(super) fn random() -> Self {
        let bytes: [u8; 32] = rand::random();
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Returns the text for the client.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// Returns the hash that the store keeps.
    pub(super) fn hash(&self) -> TokenHash {
        hash(&self.0)
    }
}

/// Returns the hash of a presented token.
pub(super) fn hash(presented: &str) -> TokenHash {
    Sha256::digest(presented.as_bytes()).into()
}

/// Returns `true` if a text has the form of a [`Token`].
pub(super) fn is_well_formed(presented: &str) -> bool {
    presented.len() == 43 && presented.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_differ_and_hash_like_their_text() {
        let (first, second) = (Token::random(), Token::random());
        assert_ne!(first.as_str(), second.as_str());
        assert_eq!(first.as_str().len(), 43);
        assert_eq!(first.hash(), hash(first.as_str()));
        assert_ne!(first.hash(), second.hash());
        assert!(is_well_formed(first.as_str()));
        assert!(!is_well_formed("") && !is_well_formed(&"é".repeat(43)) && !is_well_formed(&"=".repeat(43)));
    }
}
