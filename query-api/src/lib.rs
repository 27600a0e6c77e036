//! REST queries and the WebSocket gateway: the side of Parlance that shows.

pub mod gateway;
