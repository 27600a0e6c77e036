//! `parlance config`: the settings as they result.

use std::process::ExitCode;

use platform::config::{CommonFlags, Config, ServeFlags};

pub(crate) fn run(common: &CommonFlags, serve: &ServeFlags) -> anyhow::Result<ExitCode> {
    print!("{}", Config::load(common, serve)?);
    Ok(ExitCode::SUCCESS)
}
