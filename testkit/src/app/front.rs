//! nginx with the configuration that is shipped, in a folder of its own, for as long as its process lives.

use std::{fmt::Write as _, fs, net::TcpStream, path::Path, path::PathBuf, process::Stdio, time::Duration};

use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::process::Child;

use super::process::{free_port, signal_one, until_we_die};
use crate::eventually;

/// What is shipped.
const CONFIGURATION: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/nginx/parlance.conf");
const BOUND: Duration = Duration::from_mins(1);

/// A running nginx. Dropped, it is told to end.
#[derive(Debug)]
pub(super) struct Front {
    folder: PathBuf,
    child: Child,
    port: u16,
}

impl Front {
    /// Starts it before processes on these ports.
    pub(super) async fn start(
        place: &Path,
        commands: impl Iterator<Item = u16>,
        queries: impl Iterator<Item = u16>,
    ) -> anyhow::Result<Self> {
        let folder = place.join("nginx");
        fs::create_dir_all(folder.join("parlance"))?;
        let port = free_port()?;
        let main = format!(
            "daemon off;\nworker_processes 1;\npid nginx.pid;\nerror_log error.log warn;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n  access_log off;\n  client_body_temp_path body;\n  proxy_temp_path proxy;\n  \
             fastcgi_temp_path fastcgi;\n  uwsgi_temp_path uwsgi;\n  scgi_temp_path scgi;\n  include {CONFIGURATION};\n}}\n"
        );
        fs::write(folder.join("nginx.conf"), main)?;
        fs::write(folder.join("parlance/listen.conf"), format!("listen 127.0.0.1:{port};\n"))?;
        write_upstreams(&folder, commands, queries)?;
        let program = ["/usr/sbin/nginx", "/usr/bin/nginx"].into_iter().find(|program| Path::new(program).exists());
        let child = until_we_die(program.context("nginx is not installed: apt-get install nginx-light")?)
            .arg("-p")
            .arg(&folder)
            .args(["-c", "nginx.conf", "-e", "error.log"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(fs::File::create(folder.join("stderr.log"))?)
            .spawn()
            .context("nginx does not start")?;
        let mut front = Self { folder, child, port };
        eventually("nginx answers, or has ended", BOUND, async || {
            TcpStream::connect(("127.0.0.1", port)).is_ok() || front.child.try_wait().is_ok_and(|end| end.is_some())
        })
        .await;
        if let Some(status) = front.child.try_wait()? {
            let said = fs::read_to_string(front.folder.join("error.log")).unwrap_or_default();
            bail!("nginx ended with {status}: {said}");
        }
        Ok(front)
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// The id of its first process; 0 once it has ended.
    pub(super) fn pid(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Has it know other processes; connections that are open stay so.
    pub(super) fn reload(
        &self,
        commands: impl Iterator<Item = u16>,
        queries: impl Iterator<Item = u16>,
    ) -> anyhow::Result<()> {
        write_upstreams(&self.folder, commands, queries)?;
        signal_one(self.child.id().context("nginx has ended")?, Signal::HUP);
        Ok(())
    }
}

impl Drop for Front {
    fn drop(&mut self) {
        // Its worker ends with it: told so, since a killed master would leave it behind.
        if let Some(pid) = self.child.id() {
            signal_one(pid, Signal::TERM);
        }
    }
}

fn write_upstreams(
    folder: &Path,
    commands: impl Iterator<Item = u16>,
    queries: impl Iterator<Item = u16>,
) -> anyhow::Result<()> {
    write_servers(&folder.join("parlance/command-apis.conf"), commands)?;
    write_servers(&folder.join("parlance/query-apis.conf"), queries)
}

fn write_servers(file: &Path, ports: impl Iterator<Item = u16>) -> anyhow::Result<()> {
    let mut servers = String::new();
    for port in ports {
        writeln!(servers, "server 127.0.0.1:{port} max_fails=0;")?;
    }
    fs::write(file, servers)?;
    Ok(())
}
