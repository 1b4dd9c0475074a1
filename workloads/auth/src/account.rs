//! What an account is made of: name, mail, password, each parsed once at the edge. Knows no HTTP and no storage.

use std::fmt;

/// An account's name: 3 to 32 of `a-z 0-9 _ -`. Capitals are refused, not folded: what a player typed is what
/// everyone sees.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Name(String);

/// A mail address that could be one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Mail(String);

/// A password of 8 to 128 characters. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Password(String);

/// Why a value is refused, and what would be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Not a name.
    #[error("name must be 3 to 32 characters out of a-z, 0-9, _ and - (no capitals)")]
    Name,
    /// Not a mail address.
    #[error("mail must be an address like player@example.org, at most 254 characters without spaces")]
    Mail,
    /// Not a password.
    #[error("password must be 8 to 128 characters long")]
    Password,
}

impl Name {
    /// Parses a name.
    ///
    /// # Errors
    /// When the text is too short, too long or has other characters than `a-z 0-9 _ -`.
    pub(crate) fn parse(text: &str) -> Result<Name, Refused> {
        let known = |b: u8| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-');
        if (3..=32).contains(&text.len()) && text.bytes().all(known) {
            Ok(Name(text.to_owned()))
        } else {
            Err(Refused::Name)
        }
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Mail {
    /// Parses a mail address: something before one `@`, a domain with a dot after it. Whether it exists only a mail
    /// sent there can tell.
    ///
    /// # Errors
    /// When the text cannot be an address.
    pub(crate) fn parse(text: &str) -> Result<Mail, Refused> {
        let plain = text.len() <= 254 && !text.chars().any(|c| c.is_whitespace() || c.is_control());
        let domain =
            |d: &str| d.len() >= 3 && d.split('.').count() >= 2 && d.split('.').all(|l| !l.is_empty());
        match text.split_once('@') {
            Some((user, host)) if plain && !user.is_empty() && !host.contains('@') && domain(host) => {
                Ok(Mail(text.to_owned()))
            }
            _ => Err(Refused::Mail),
        }
    }

    /// The address as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl Password {
    /// Parses a password.
    ///
    /// # Errors
    /// When it is shorter than 8 or longer than 128 characters.
    pub(crate) fn parse(text: String) -> Result<Password, Refused> {
        if (8..=128).contains(&text.chars().count()) { Ok(Password(text)) } else { Err(Refused::Password) }
    }

    /// The password itself.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_3_to_32_small_letters_digits_and_dashes() {
        let longest = "x".repeat(32);
        for good in ["bob", "thor_2", "a-b-c", longest.as_str()] {
            assert_eq!(Name::parse(good).map(|n| n.0), Ok(good.to_owned()));
        }
        let too_long = "x".repeat(33);
        for bad in ["", "ab", "Bob", "b b b", "bób", "a:b:c", "bob\n", too_long.as_str()] {
            assert_eq!(Name::parse(bad), Err(Refused::Name), "{bad:?}");
        }
    }

    #[test]
    fn a_mail_has_a_user_and_a_domain() {
        for good in ["bob@example.org", "bob+x@mail.example.org"] {
            assert!(Mail::parse(good).is_ok(), "{good:?}");
        }
        let too_long = format!("{}@example.org", "x".repeat(250));
        for bad in
            ["", "bob", "bob@", "@example.org", "bob@example", "bob@.org", "b ob@example.org", "a@b@c.org"]
        {
            assert_eq!(Mail::parse(bad), Err(Refused::Mail), "{bad:?}");
        }
        assert_eq!(Mail::parse(&too_long), Err(Refused::Mail));
    }

    #[test]
    fn a_password_has_8_to_128_characters_and_is_never_printed() {
        assert!(Password::parse("åäöåäöåä".into()).is_ok());
        assert_eq!(Password::parse("hunter2".into()), Err(Refused::Password));
        assert_eq!(Password::parse("x".repeat(129)), Err(Refused::Password));
        let password = Password::parse("correct horse".into()).expect("long enough");
        assert!(!format!("{password:?}").contains("horse"));
    }
}
