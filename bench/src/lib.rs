//! Workloads that measure a running Parlance: throughput, latency, memory, catch-up.
