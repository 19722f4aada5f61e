//! `garde` rules that more than one feature uses.

use lettre::Address;

const EMAIL_CHARS: usize = 255;

/// An e-mail address by RFC 5322, at most 255 characters.
pub fn email(value: &str, _: &()) -> garde::Result {
    if value.chars().count() > EMAIL_CHARS {
        return Err(garde::Error::new(format!("must have at most {EMAIL_CHARS} characters")));
    }
    value.parse::<Address>().map(drop).map_err(|_| garde::Error::new("must be an e-mail address"))
}

/// 8 to 128 characters with an upper-case and a lower-case letter, a digit and a special character.
pub fn password(value: &str, _: &()) -> garde::Result {
    if !(8..=128).contains(&value.chars().count()) {
        return Err(garde::Error::new("must have between 8 and 128 characters"));
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

/// The IANA name of a time zone, such as `Europe/Berlin`.
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
        for good in ["a@b.example", "first.last+tag@sub.example.com", "ü@example.com"] {
            assert!(email(good, &()).is_ok(), "{good}");
        }
        let long = format!("{}@example.com", "x".repeat(250));
        for bad in ["", "a", "a@", "@b", "a b@c.example", "a@b@c", &long] {
            assert!(email(bad, &()).is_err(), "{bad}");
        }
    }

    #[test]
    fn passwords() {
        assert!(password("Abcdef1!", &()).is_ok());
        for bad in ["Abcde1!", "abcdef1!", "ABCDEF1!", "Abcdefg!", "Abcdefg1", &"Ab1!".repeat(33)] {
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
