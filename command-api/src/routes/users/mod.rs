//! Accounts.

pub(crate) mod change_password;
pub(crate) mod change_profile;
pub(crate) mod register;
