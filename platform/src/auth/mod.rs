//! Who is asking: server keys, access tokens, revocations, tickets of the WebSocket upgrade.

mod authenticator;
mod keyring;
mod push_key;
mod revocations;
mod seal;
mod tickets;

pub use authenticator::{AuthError, AuthSettings, Authenticator, Caller};
pub use keyring::{Keyring, KeyringError};
pub use push_key::PushKey;
pub use revocations::Revocations;
pub use tickets::Tickets;
