//! Opaque tokens: random for the client, hashed for the store.
//!
//! A token contains 256 random bits and no signature, so no signing key has to be configured or rotated, and a revoked
//! token is invalid at once. The store keeps the SHA-256 of the token: a copy of the database contains no token.
//! Passwords need a slow hash; random tokens can't be guessed.
//!
//! The tokens of a session also name their user: `USER.RANDOM`. The cache groups tokens by this number. It proves
//! nothing: the database finds a token by the hash of its whole text.

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

    /// Generates a token that names a user.
    pub(super) fn of_user(user_id: i64) -> Self {
        Self(format!("{user_id}.{}", Self::random().0))
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

/// Returns the user that a presented token names, or `None` for a token of an earlier version.
pub(super) fn named_user(presented: &str) -> Option<i64> {
    presented.split_once('.')?.0.parse().ok().filter(|user_id| *user_id > 0)
}

/// Returns `true` if a text has the form of a [`Token`] that names no user.
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
        assert_eq!(named_user(first.as_str()), None);
        let named = Token::of_user(42);
        assert_eq!((named_user(named.as_str()), named.as_str().len()), (Some(42), 46));
        assert_ne!(named.hash(), hash(&named.as_str()[3..]), "the hash covers the number");
        for text in ["", ".", ".a", "x.a", "0.a", "-1.a", "9223372036854775808.a", "1"] {
            assert_eq!(named_user(text), None, "{text}");
        }
        assert!(!is_well_formed("") && !is_well_formed(&"é".repeat(43)) && !is_well_formed(&"=".repeat(43)));
    }
}
