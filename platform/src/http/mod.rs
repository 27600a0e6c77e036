//! The HTTP frame that every role's routes hang in: problems, extractors, request context, limits, serving and draining.

mod context;
mod frame;
mod json;
mod params;
mod problem;
mod proxies;
mod serve;
pub mod surface;

pub use crate::traces::TraceId;
pub use context::RequestContext;
pub use frame::{MAX_BODY_BYTES, frame};
pub use json::Json;
pub use params::{Path, PathId, Query};
pub use problem::{Problem, ProblemKind};
pub use proxies::behind;
pub use serve::{ClientIo, serve};
