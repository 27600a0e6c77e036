//! The public event contract: envelope, versioned events, catalogue of types and topics.
