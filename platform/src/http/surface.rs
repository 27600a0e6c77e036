//! The public surface as one table: which paths exist, and which methods each takes.
//!
//! It stands here once so that an unknown path and a wrong method answer the same whether one process serves all paths
//! or roles are apart.

use crate::internal;

/// One path of the surface.
#[derive(Debug)]
pub struct Entry {
    /// As the router has it: `{name}` stands for one segment.
    pub pattern: &'static str,
    /// The methods, as the header `Allow` lists them.
    pub allow: &'static str,
    /// The methods among them that need no access token, or take another credential.
    pub open: &'static str,
}

impl Entry {
    /// Whether the path takes `method`.
    pub fn takes(&self, method: &str) -> bool {
        self.allow.split(", ").any(|allowed| allowed == method)
    }

    /// Whether `method` needs no access token here.
    pub fn is_open(&self, method: &str) -> bool {
        self.open.split(", ").any(|open| open == method)
    }

    /// Whether `path` is one that the pattern stands for.
    fn matches(&self, path: &str) -> bool {
        let mut given = path.split('/');
        self.pattern.split('/').all(|wanted| {
            given.next().is_some_and(|part| if wanted.starts_with('{') { !part.is_empty() } else { part == wanted })
        }) && given.next().is_none()
    }
}

const fn guarded(pattern: &'static str, allow: &'static str) -> Entry {
    Entry { pattern, allow, open: "" }
}

const fn open(pattern: &'static str, allow: &'static str) -> Entry {
    Entry { pattern, allow, open: allow }
}

/// Every path. Where two match, the first counts: literal ones come before those with a name in their place.
pub const SURFACE: &[Entry] = &[
    guarded("/v1/conversations/{conversation_id}/messages", "GET, HEAD, POST"),
    guarded("/v1/conversations/{conversation_id}/receipts/me", "PUT"),
    Entry { pattern: "/v1/users", allow: "GET, HEAD, POST", open: "POST" },
    guarded("/v1/users/me", "GET, HEAD, PATCH"),
    guarded("/v1/users/me/password", "PUT"),
    guarded("/v1/users/me/push-subscriptions", "GET, HEAD"),
    guarded("/v1/users/me/push-subscriptions/{subscription_id}", "DELETE, PUT"),
    guarded("/v1/users/{user_id}", "GET, HEAD"),
    Entry { pattern: "/v1/sessions", allow: "DELETE, GET, HEAD, POST", open: "POST" },
    open("/v1/sessions/refresh", "POST"),
    guarded("/v1/sessions/current", "DELETE"),
    guarded("/v1/sessions/{session_id}", "DELETE"),
    guarded("/v1/ws-tickets", "POST"),
    guarded("/v1/conversations", "GET, HEAD, POST"),
    guarded("/v1/conversations/{conversation_id}", "GET, HEAD, PATCH"),
    guarded("/v1/conversations/{conversation_id}/members", "GET, HEAD"),
    guarded("/v1/conversations/{conversation_id}/members/{user_id}", "DELETE, PUT"),
    guarded("/v1/conversations/{conversation_id}/messages/{message_id}", "GET, HEAD"),
    guarded("/v1/conversations/{conversation_id}/messages/{message_id}/receipts", "GET, HEAD"),
    guarded("/v1/conversations/{conversation_id}/receipts", "GET, HEAD"),
    guarded("/v1/audit", "GET, HEAD"),
    open("/v1/push/vapid-public-key", "GET, HEAD"),
    guarded("/v1/ws", "GET, HEAD"),
    open("/.well-known/jwks.json", "GET, HEAD"),
    open("/openapi.json", "GET, HEAD"),
    open("/asyncapi.json", "GET, HEAD"),
    open("/docs", "GET, HEAD"),
    open("/docs/events", "GET, HEAD"),
    open("/problems/{name}", "GET, HEAD"),
    open("/schemas/{event_type}/{version}", "GET, HEAD"),
    open("/health/live", "GET, HEAD"),
    open("/health/ready", "GET, HEAD"),
    open("/metrics", "GET, HEAD"),
];

/// What processes of one installation ask each other. It is no part of the public surface: to whoever may not ask, or asks by
/// another method, there is nothing.
const INTERNAL: &[Entry] = &[
    guarded(internal::SEND, "POST"),
    guarded(internal::ADVANCE, "POST"),
    guarded(internal::TAKE_RECEIPTS, "POST"),
    guarded(internal::HEADS, "POST"),
    guarded(internal::POSITIONS, "POST"),
    guarded(internal::COMMITTED, "POST"),
    guarded(internal::READ_AUDIT, "POST"),
];

/// The entry of a path among what processes of one installation ask each other, if it takes `method`.
pub(super) fn find_internal(path: &str, method: &str) -> Option<&'static Entry> {
    INTERNAL.iter().find(|entry| entry.pattern == path && entry.takes(method))
}

/// The entry of a path, if it is part of the surface.
pub fn find(path: &str) -> Option<&'static Entry> {
    SURFACE.iter().find(|entry| entry.matches(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_found_by_their_segments() {
        let pattern = |path| find(path).map(|entry| entry.pattern);
        assert_eq!(pattern("/v1/users/me"), Some("/v1/users/me"));
        assert_eq!(pattern("/v1/users/you"), Some("/v1/users/{user_id}"));
        assert_eq!(pattern("/v1/sessions/refresh"), Some("/v1/sessions/refresh"));
        for unknown in ["", "/", "/v1", "/v1/users/", "/v1/users/a/b", "/v1/nothing", "//v1/users"] {
            assert_eq!(pattern(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn what_is_internal_is_not_public() {
        for entry in INTERNAL {
            assert!(find(entry.pattern).is_none(), "{}", entry.pattern);
            assert!(find_internal(entry.pattern, "POST").is_some() && find_internal(entry.pattern, "GET").is_none());
        }
        assert!(find_internal("/v1/users", "POST").is_none());
    }

    #[test]
    fn methods_are_sorted_and_open_ones_are_taken() {
        for entry in SURFACE {
            let methods: Vec<_> = entry.allow.split(", ").collect();
            assert!(methods.is_sorted(), "{}", entry.pattern);
            assert!(entry.open.is_empty() || entry.open.split(", ").all(|method| entry.takes(method)));
            // A path is hidden by none before it.
            assert_eq!(find(entry.pattern).map(|found| found.pattern), Some(entry.pattern));
        }
    }
}
