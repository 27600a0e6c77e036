//! The Rust client library of Parlance: REST calls, sessions with resume, dedupe and an outbox.
