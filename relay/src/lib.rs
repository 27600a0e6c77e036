//! Hands the event store on to the bus, in position order.
