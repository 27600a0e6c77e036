//! Checks of single values; each that fails is named by its pointer.

use platform::http::Problem;
use schemas::rest::FieldError;

/// What was found wrong with a body so far.
#[derive(Default)]
pub(crate) struct Checks(Vec<FieldError>);

impl Checks {
    /// Refuses the value at `pointer`.
    pub(crate) fn refuse(&mut self, pointer: impl Into<String>, detail: impl Into<String>) {
        self.0.push(FieldError { pointer: Some(pointer.into()), parameter: None, detail: detail.into() });
    }

    /// Refuses it unless `right`.
    pub(crate) fn expect(&mut self, right: bool, pointer: &str, detail: &str) {
        if !right {
            self.refuse(pointer, detail);
        }
    }

    /// A name that people give: 1 to 100 characters, none of them a control character, not only blanks.
    pub(crate) fn name(&mut self, pointer: &str, name: &str) {
        let right =
            (1..=100).contains(&name.chars().count()) && !name.chars().any(char::is_control) && !name.trim().is_empty();
        self.expect(right, pointer, "1 to 100 characters, not only blanks, no control characters");
    }

    /// As [`Self::name`], where one is given.
    pub(crate) fn optional_name(&mut self, pointer: &str, name: Option<&str>) {
        if let Some(name) = name {
            self.name(pointer, name);
        }
    }

    /// A password to be.
    pub(crate) fn password(&mut self, pointer: &str, password: &str) {
        self.expect((8..=128).contains(&password.chars().count()), pointer, "8 to 128 characters");
    }

    /// 422 with all that was found wrong.
    pub(crate) fn done(self) -> Result<(), Problem> {
        if self.0.is_empty() { Ok(()) } else { Err(Problem::invalid(self.0)) }
    }
}

/// A case-folded username, if the text can be one.
pub(crate) fn username(text: &str) -> Option<String> {
    let folded = text.to_ascii_lowercase();
    let right = (3..=32).contains(&folded.len())
        && folded.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'.' | b'-'));
    right.then_some(folded)
}

/// The form in which an e-mail address is compared, if the text can be one.
///
/// Whether mail gets there only mail can tell: this keeps out what certainly is no address.
pub(crate) fn email(text: &str) -> Option<String> {
    let (local, domain) = text.rsplit_once('@')?;
    let part = |text: &str, longest| {
        (1..=longest).contains(&text.len()) && !text.chars().any(|c| c.is_control() || c.is_whitespace() || c == '@')
    };
    let right = text.len() <= 254
        && part(local, 64)
        && part(domain, 253)
        && domain.split('.').all(|label| !label.is_empty() && !label.starts_with('-') && !label.ends_with('-'));
    right.then(|| text.to_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usernames_are_folded() {
        assert_eq!(username("Ann.B-c_9").as_deref(), Some("ann.b-c_9"));
        for bad in ["", "ab", "a b c", "änne", "a@b", &"x".repeat(33), "ann\0"] {
            assert_eq!(username(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn addresses_are_compared_without_case() {
        assert_eq!(email("Ann@Example.ORG").as_deref(), Some("ann@example.org"));
        assert_eq!(email("a+b@localhost").as_deref(), Some("a+b@localhost"));
        for bad in [
            "",
            "ann",
            "@example.org",
            "ann@",
            "a b@example.org",
            "a@b@c",
            "a@b..c",
            "a@-b",
            "a@b\0",
            &format!("{}@b", "x".repeat(65)),
        ] {
            assert_eq!(email(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn names_are_for_people() {
        let right = |name: &str| {
            let mut checks = Checks::default();
            checks.name("/name", name);
            checks.done().is_ok()
        };
        assert!(right("Änne 👩‍🚀") && right(&"ä".repeat(100)));
        for bad in ["", "   ", "a\nb", "\0", &"x".repeat(101)] {
            assert!(!right(bad), "{bad:?}");
        }
    }
}
