//! `garde` rules shared by several features.

use lettre::Address;
use tutord_core::rules::address;
use unicode_properties::{GeneralCategoryGroup, UnicodeGeneralCategory as _};

const EMAIL_CHARS: usize = 255;

/// The maximum number of octets before the `@` (RFC 5321, section 4.5.3.1.1).
const LOCAL_OCTETS: usize = 64;

/// Validates a deliverable e-mail address of at most 255 characters: RFC 5322 without what no mail server on the
/// internet delivers to (quoted parts, comments, addresses of hosts, domains without a dot).
pub fn email(value: &str, context: &()) -> garde::Result {
    known_email(value, context)?;
    let (local, domain) = value.rsplit_once('@').unwrap_or_default();
    if local.len() > LOCAL_OCTETS {
        return Err(garde::Error::new(format!("must have at most {LOCAL_OCTETS} bytes before the @")));
    }
    let invisible =
        |c: char| matches!(c.general_category_group(), GeneralCategoryGroup::Other | GeneralCategoryGroup::Separator);
    let is_dot_atom = !local.contains('"') && !local.contains(invisible);
    let domain = address::ascii_domain(domain).unwrap_or_default();
    let is_public = domain.rsplit_once('.').is_some_and(|(_, top)| !top.bytes().all(|byte| byte.is_ascii_digit()));
    if is_dot_atom && is_public {
        Ok(())
    } else {
        Err(garde::Error::new("must be a deliverable e-mail address, such as name@example.com"))
    }
}

/// Validates an e-mail address by RFC 5322 of at most 255 characters, such as an account registered before [`email`]
/// was stricter can have.
pub fn known_email(value: &str, _: &()) -> garde::Result {
    if value.chars().count() > EMAIL_CHARS {
        return Err(garde::Error::new(format!("must have at most {EMAIL_CHARS} characters")));
    }
    value.parse::<Address>().map(drop).map_err(|_| garde::Error::new("must be an e-mail address"))
}

/// Validates a password: 8 to 128 characters as written, with an upper-case and a lower-case letter, a digit and a
/// special character, and without control characters.
pub fn password(value: &str, _: &()) -> garde::Result {
    if !(8..=128).contains(&value.chars().count()) {
        return Err(garde::Error::new("must have between 8 and 128 characters"));
    }
    if value.contains(char::is_control) {
        return Err(garde::Error::new("must not contain control characters"));
    }
    let missing = [
        ("an upper-case letter", value.chars().any(char::is_uppercase)),
        ("a lower-case letter", value.chars().any(char::is_lowercase)),
        ("a digit", value.chars().any(char::is_numeric)),
        ("a special character", value.chars().any(|c| !c.is_alphanumeric() && !c.is_control())),
    ]
    .into_iter()
    .find_map(|(kind, present)| (!present).then_some(kind));
    missing.map_or(Ok(()), |kind| Err(garde::Error::new(format!("must contain {kind}"))))
}

/// Validates the IANA name of a time zone, such as `Europe/Berlin`.
pub fn time_zone(value: &Option<String>, _: &()) -> garde::Result {
    match value {
        Some(name) if name.len() > 64 || jiff::tz::TimeZone::get(name).is_err() => {
            Err(garde::Error::new("must be the IANA name of a time zone, such as Europe/Berlin"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        let longest = format!("{}@example.com", "x".repeat(64));
        for good in ["a@b.example", "first.last+tag@sub.example.com", "ü@example.com", "a@bücher.example", &longest] {
            assert!(email(good, &()).is_ok(), "{good}");
        }
        let long = format!("{}@example.com", "x".repeat(250));
        for bad in ["", "a", "a@", "@b", "a b@c.example", "a@b@c", &long] {
            assert!(email(bad, &()).is_err() && known_email(bad, &()).is_err(), "{bad}");
        }
        let (local, label) = (format!("{}@b.example", "x".repeat(65)), format!("a@{}.example", "x".repeat(64)));
        for bad in [
            "a@localhost",
            "a@[127.0.0.1]",
            "a@127.0.0.1",
            "a@b.example.",
            "a@b..example",
            "a@-b.example",
            "a@b_c.example",
            "a@b.123",
            "\"a b\"@c.example",
            "a\u{200b}@b.example",
            "a\u{a0}b@c.example",
            "a\n@b.example",
            "a.@b.example",
            "a..b@c.example",
            &local,
            &label,
        ] {
            assert!(email(bad, &()).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords() {
        assert!(password("Abcdef1!", &()).is_ok());
        // The length of the composed form counts.
        assert!(password("Abe\u{308}f1!x", &()).is_ok());
        for bad in
            ["Abcde1!", "abcdef1!", "ABCDEF1!", "Abcdefg!", "Abcdefg1", &"Ab1!".repeat(33), "Abcdef1!\n", "Abcdef1!\0"]
        {
            assert!(password(bad, &()).is_err(), "{bad}");
        }
    }

    #[test]
    fn zones() {
        assert!(time_zone(&Some("Europe/Berlin".to_owned()), &()).is_ok());
        assert!(time_zone(&None, &()).is_ok());
        assert!(time_zone(&Some("Mars/Olympus".to_owned()), &()).is_err());
        assert!(time_zone(&Some(String::new()), &()).is_err());
    }
}
