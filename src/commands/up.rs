//! `parlance up`: everything in one process; what is not configured is supplied.

use std::process::ExitCode;

use platform::config::{CommonFlags, Config, ServeFlags};

use crate::server::{self, Roles};

pub(crate) async fn run(common: &CommonFlags, serve: &ServeFlags) -> anyhow::Result<ExitCode> {
    server::run(&Config::load(common, serve)?, &Roles::all()).await
}
