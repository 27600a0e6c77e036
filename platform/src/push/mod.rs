//! Web push, as far as several roles know of it: where a browser is reached, and which addresses may be.

mod address;
mod target;

pub use address::is_public;
pub use target::{PushTarget, TargetError};
