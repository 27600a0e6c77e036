//! Accounts.

pub(crate) mod change_password;
pub(crate) mod change_profile;
pub(crate) mod push_subscriptions;
pub(crate) mod register;
