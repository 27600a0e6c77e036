//! `parlance serve`: some of the roles, on engines that are there.

use std::process::ExitCode;

use clap::Args;
use platform::config::{CommonFlags, Config, ServeFlags};

use crate::server::{self, Missing, Roles};

/// Arguments of `parlance serve`.
#[derive(Args)]
pub(crate) struct Arguments {
    #[command(flatten)]
    common: CommonFlags,
    #[command(flatten)]
    serve: ServeFlags,
    /// The roles of this process: command-api, query-api, projectors, relay, separated by commas
    #[arg(long, value_name = "ROLES", env = "PARLANCE_ROLES")]
    roles: Roles,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    let config = Config::load(&arguments.common, &arguments.serve)?;
    Missing::check(&config, &arguments.roles)?;
    server::run(&config, &arguments.roles).await
}
