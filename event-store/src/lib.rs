//! The event log on PostgreSQL: group commit, dense positions, hash chain, cached aggregates.

mod append;
mod cache;
mod cause;
mod chain;
mod command;
mod committed;
mod copy;
mod cqrs;
mod event;
mod extend;
mod keys;
mod kind;
mod lane;
mod link;
mod log;
mod options;
mod rows;
mod shards;
mod store;
mod task;
mod upcast;
mod verify;
mod workspace;

pub use chain::{Hash, genesis};
pub use command::{Command, Context, ExecuteError, Executed, LogPosition, Reads};
pub use committed::{Committed, CommittedBatch, CommittedLines};
pub use cqrs::{CqrsContext, CqrsStore};
pub use event::{StoredEvent, UnreadableEvent};
pub use extend::Extension;
pub use log::{Log, OpenError, ReadError, ShardHead};
pub use options::Options;
pub use store::EventStore;
pub use upcast::{Upcaster, Upcasters};
pub use verify::{Fault, ShardChain, ShardVerification, Verification};
pub use workspace::{Loaded, Recorded, Workspace};
