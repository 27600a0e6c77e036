//! Addresses of ours and of the pages that may talk to us.

use std::{fmt, str::FromStr};

use http::Uri;

/// A web origin as browsers send it: scheme, host, and the port where it is not the scheme's own.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Origin(String);

impl Origin {
    /// As it stands in an `Origin` header.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for Origin {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (origin, path) = split(text)?;
        if path.is_empty() { Ok(origin) } else { Err(format!("{WANTED}, without a path")) }
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

/// Where clients reach us from outside; its path, if any, is a prefix of all of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublicUrl {
    origin: Origin,
    path: String,
}

impl PublicUrl {
    /// The origin that pages served from there have.
    #[must_use]
    pub fn origin(&self) -> &Origin {
        &self.origin
    }

    /// The address of one of our own paths, which begins with `/`.
    #[must_use]
    pub fn join(&self, path: &str) -> String {
        format!("{}{}{path}", self.origin, self.path)
    }
}

impl FromStr for PublicUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (origin, path) = split(text)?;
        Ok(Self { origin, path })
    }
}

/// Origins separated by commas.
pub(super) fn list(text: &str) -> Result<Vec<Origin>, String> {
    text.split(',').map(str::trim).filter(|origin| !origin.is_empty()).map(Origin::from_str).collect()
}

const WANTED: &str = "an address such as https://chat.example.org is wanted";

/// Origin, and path without its closing slash.
fn split(text: &str) -> Result<(Origin, String), String> {
    let wanted = || WANTED.to_owned();
    let uri: Uri = text.parse().map_err(|_| wanted())?;
    let scheme = uri.scheme_str().ok_or_else(wanted)?;
    let own_port = match scheme {
        "http" => 80,
        "https" => 443,
        _ => return Err(wanted()),
    };
    let authority = uri.authority().filter(|authority| !authority.as_str().contains('@')).ok_or_else(wanted)?;
    if uri.query().is_some() || text.contains('#') {
        return Err(format!("{WANTED}, without query and fragment"));
    }
    let host = authority.host().to_ascii_lowercase();
    let port = authority.port_u16().filter(|port| *port != own_port);
    let port = port.map(|port| format!(":{port}")).unwrap_or_default();
    Ok((Origin(format!("{scheme}://{host}{port}")), uri.path().trim_end_matches('/').to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origins_are_compared_as_browsers_write_them() {
        let origins = list("HTTPS://Chat.Example.org:443/, http://localhost:5173").unwrap();
        let origins: Vec<_> = origins.iter().map(Origin::as_str).collect();
        assert_eq!(origins, ["https://chat.example.org", "http://localhost:5173"]);
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for bad in ["*", "null", "chat.example.org", "ftp://a", "https://a/path", "https://me@a", "https://a?b"] {
            assert!(Origin::from_str(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_public_url_may_have_a_path() {
        let url: PublicUrl = "https://example.org/chat/".parse().unwrap();
        assert_eq!(url.origin().as_str(), "https://example.org");
        assert_eq!(url.join("/schemas/a"), "https://example.org/chat/schemas/a");
    }
}
