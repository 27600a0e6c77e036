//! REST commands, sessions and tokens: the side of Parlance that decides.
//!
//! A request's way: its route (`routes`, one file an endpoint) checks the values, a command (`commands`, one file each)
//! joins the domain's decision to the log, and `execute` turns whatever comes of it into an answer. The gateway calls
//! the same [`Service`] without HTTP.

mod address;
mod answer;
mod audit;
mod commands;
mod docs;
mod execute;
mod internal;
mod passwords;
mod receipts;
mod refresh_token;
mod roles;
mod routes;
mod service;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod validate;

pub use internal::router as internal_router;
pub use receipts::ReceiptMove;
pub use roles::{find_user, set_role, users_with};
pub use routes::conversations::send_message::Sent;
pub use routes::{openapi, router};
pub use service::{Parts, Service, Settings};
