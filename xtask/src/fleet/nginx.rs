//! nginx before the fleet: `deploy/nginx/parlance.conf` as it is, and the files that it includes.

use std::{
    fmt::Write as _,
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use rustix::process::{Resource, Signal, getrlimit};

use crate::packages::{is_root, on_path};

/// What is deployed is what runs here.
const PARLANCE: &str = include_str!("../../../deploy/nginx/parlance.conf");
const MOST_FILES: u64 = 65_536;

/// Lets requests under way finish, then does not.
pub(super) const SIGNALS: &[(Signal, Duration)] =
    &[(Signal::QUIT, Duration::from_secs(2)), (Signal::TERM, Duration::from_secs(2))];

/// An nginx in a folder of its own.
#[derive(Debug)]
pub(super) struct Nginx {
    folder: PathBuf,
    program: PathBuf,
}

impl Nginx {
    /// Writes the configuration, and has nginx look at it.
    pub(super) fn configure(
        folder: &Path,
        listen: SocketAddr,
        command_apis: &[String],
        query_apis: &[String],
    ) -> Result<Self> {
        // Not on the PATH of everybody.
        let program = on_path("nginx").unwrap_or_else(|| "/usr/sbin/nginx".into());
        let nginx = Self { folder: folder.to_owned(), program };
        let included = folder.join("parlance");
        fs::create_dir_all(&included)?;
        fs::write(folder.join("nginx.conf"), main())?;
        fs::write(folder.join("parlance.conf"), PARLANCE)?;
        fs::write(included.join("listen.conf"), format!("listen {listen};\n"))?;
        fs::write(included.join("command-apis.conf"), servers(command_apis))?;
        fs::write(included.join("query-apis.conf"), servers(query_apis))?;
        let checked = nginx.command().arg("-t").output().context("cannot run nginx")?;
        ensure!(checked.status.success(), "nginx: {}", String::from_utf8_lossy(&checked.stderr).trim_end());
        Ok(nginx)
    }

    /// What runs it in the foreground.
    pub(super) fn command(&self) -> Command {
        let mut command = Command::new(&self.program);
        command.arg("-p").arg(&self.folder).arg("-c").arg(self.folder.join("nginx.conf")).args(["-e", "stderr"]);
        command
    }
}

/// All that it writes stays in its folder.
fn main() -> String {
    let user = if is_root() { "user root;\n" } else { "" };
    let files = getrlimit(Resource::Nofile).maximum.unwrap_or(MOST_FILES).min(MOST_FILES);
    format!(
        "{user}daemon off;\npid nginx.pid;\nlock_file nginx.lock;\nerror_log stderr warn;\n\
         worker_processes auto;\nworker_rlimit_nofile {files};\nworker_shutdown_timeout 2s;\n\
         events {{ worker_connections {}; }}\n\
         http {{\n    access_log off;\n    client_body_temp_path body;\n    proxy_temp_path proxy;\n    \
         fastcgi_temp_path fastcgi;\n    uwsgi_temp_path uwsgi;\n    scgi_temp_path scgi;\n    \
         include parlance.conf;\n}}\n",
        files / 2,
    )
}

/// As the ring of the gateways has them.
fn servers(addresses: &[String]) -> String {
    addresses.iter().fold(String::new(), |mut lines, address| {
        let _ = writeln!(lines, "server {address} max_fails=0;");
        lines
    })
}

#[cfg(test)]
mod tests;
