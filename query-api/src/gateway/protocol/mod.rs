//! The wire: frames of RFC 6455 as bytes, and the JSON in them.

pub(crate) mod answer;
pub(crate) mod event;
pub(crate) mod frame;
pub(crate) mod request;
