//! The aggregates of Parlance: commands, events, state and refusals, as pure functions.
