//! Projections of the event topics: the runner, read models and live fan-out.
