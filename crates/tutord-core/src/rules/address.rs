//! Equality of e-mail addresses.
//!
//! Domains are compared in ASCII form (UTS #46, non-transitional: `exämple.test` is `xn--exmple-cua.test`), and the
//! part before the `@` after Unicode's full case folding and NFC. The key is computed here and stored, because a
//! database's lower case depends on its locale (PostgreSQL) or covers only ASCII (SQLite).

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use unicase::UniCase;
use unicode_normalization::UnicodeNormalization as _;

/// Returns the key by which an address is unique.
pub fn key(email: &str) -> String {
    match email.rsplit_once('@') {
        Some((local, domain)) => format!("{}@{}", fold(local), ascii_domain(domain).unwrap_or_else(|| fold(domain))),
        None => fold(email),
    }
}

/// Returns the DNS form of a domain, or `None` if the domain is invalid: a label is empty or longer than 63 octets, the
/// whole is longer than 253, or a character is not allowed.
pub fn ascii_domain(domain: &str) -> Option<String> {
    let ascii =
        Uts46::new().to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::CheckFirstLast, DnsLength::Verify);
    ascii.ok().map(std::borrow::Cow::into_owned)
}

fn fold(text: &str) -> String {
    UniCase::unicode(text.nfd().collect::<String>()).to_folded_case().nfc().collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn forms_of_one_address_have_one_key() {
        for (one, other) in [
            ("Ada@Example.COM", "ada@example.com"),
            ("anna@exämple.test", "anna@xn--exmple-cua.test"),
            ("anna@EXA\u{308}MPLE.test", "anna@XN--EXMPLE-CUA.test"),
            ("anna@exämple。test", "anna@exämple.test"),
            ("L\u{d6}ve@example.com", "lo\u{308}ve@example.com"),
            ("STRASSE@example.com", "straße@example.com"),
            ("ΟΔΟΣ@example.com", "οδος@example.com"),
        ] {
            assert_eq!(key(one), key(other), "{one} {other}");
        }
        assert_ne!(key("ada@example.com"), key("ada+x@example.com"));
        assert_ne!(key("ıda@example.com"), key("ida@example.com"));
        assert_ne!(key("ada@faß.example"), key("ada@fass.example"), "two domains");
        assert_eq!(key("not an address"), "not an address");
    }

    #[test]
    fn domains_that_the_dns_does_not_know_have_no_form() {
        let long = format!("{}.example", "x".repeat(64));
        for domain in ["", "a..b", ".a", "a.", "a b", "a_b.example", "-a.example", "[::1]", &long] {
            assert_eq!(ascii_domain(domain), None, "{domain}");
        }
        assert_eq!(ascii_domain("Bücher.example").as_deref(), Some("xn--bcher-kva.example"));
    }

    proptest! {
        #[test]
        fn a_key_is_its_own_key(email in "[\\PC@]{0,12}@\\PC{0,12}") {
            let once = key(&email);
            prop_assert_eq!(key(&once), once.clone());
        }

        #[test]
        fn case_makes_no_difference(email in "[a-zA-ZäÖßéΣς]{1,8}@[a-zäöé]{1,8}\\.test") {
            prop_assert_eq!(key(&email.to_lowercase()), key(&email));
        }
    }
}
