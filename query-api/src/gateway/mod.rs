//! The WebSocket gateway: streams every conversation to every device of its members until the device says that it has it.

mod protocol;
mod session;
