//! What the tests share: a private PostgreSQL, the running application, fault proxy, history checker.
