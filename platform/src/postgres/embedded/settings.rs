//! How the private server is tuned: for a small machine of its own, at PostgreSQL's default durability.

/// Settings given on the server's command line, each with its reason.
///
/// `fsync`, `synchronous_commit` and `full_page_writes` stay as they come: an answered commit survives a crash.
pub(super) const SETTINGS: &[&str] = &[
    // Nobody from elsewhere: a Unix socket in a folder of the server's own account.
    "listen_addresses=",
    "max_connections=100",
    // Fits a laptop beside everything else; the hot end of log and timeline stays in it.
    "shared_buffers=256MB",
    "effective_cache_size=1GB",
    "work_mem=8MB",
    "maintenance_work_mem=128MB",
    // Group commits append to the log at tens of MB/s: fewer, slower checkpoints write fewer full pages.
    "wal_buffers=16MB",
    "max_wal_size=4GB",
    "min_wal_size=256MB",
    "checkpoint_timeout=10min",
    "checkpoint_completion_target=0.9",
    // Statements are short and prepared: compiling them, or splitting them over workers, only costs.
    "jit=off",
    "max_parallel_workers_per_gather=0",
    // Flash, not discs that seek.
    "random_page_cost=1.1",
    "effective_io_concurrency=64",
    // Small tables (shards, checkpoints, watermarks) are updated all the time: clean them often, two at a time.
    "autovacuum_max_workers=2",
    "autovacuum_naptime=15s",
    "autovacuum_vacuum_cost_limit=1000",
    // A client that vanished in a transaction must not hold locks for ever.
    "idle_in_transaction_session_timeout=60s",
    "log_checkpoints=on",
    "log_line_prefix=%m [%p] %a ",
];
