//! The gateway over real sockets and a real PostgreSQL, with a command side that is a few lines.

mod apart;
mod handshake;
mod sockets;
mod streams;
mod world;
