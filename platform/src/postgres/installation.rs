//! The PostgreSQL server programs of this machine, and the account that may run them.

use std::{
    env, fs, io,
    os::unix::{fs::chown, process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

use thiserror::Error;

/// Where Debian and its kin keep the programs of each major version.
const DEBIAN_ROOT: &str = "/usr/lib/postgresql";
/// `PostgreSQL` refuses to run as root; the distribution's package makes this account for it.
const SERVICE_ACCOUNT: &str = "postgres";

/// Why no server can be started on this machine.
#[derive(Debug, Error)]
pub enum InstallationError {
    /// No server programs at all.
    #[error(
        "no PostgreSQL server is installed (looked in {DEBIAN_ROOT}/*/bin and PATH): \
         `apt-get install postgresql`, or set DATABASE_URL to a running one"
    )]
    Missing,
    /// Server programs, but not of the version that wrote the data.
    #[error(
        "the data were written by PostgreSQL {wanted}, which is not installed: \
         `apt-get install postgresql-{wanted}`"
    )]
    OtherVersion {
        /// The major version found in the cluster's `PG_VERSION`.
        wanted: u32,
    },
    /// We are root and the account to step down to does not exist.
    #[error(
        "PostgreSQL does not run as root and there is no account `{SERVICE_ACCOUNT}` to run it: \
         `apt-get install postgresql` makes it, or start as another user"
    )]
    NoAccount,
}

/// An account that owns a cluster and runs its server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Account {
    uid: u32,
    gid: u32,
}

/// The server programs of one major version.
#[derive(Debug, Clone)]
pub struct Installation {
    bin: PathBuf,
    /// The account to step down to; `None` when we are not root and run the server as ourselves.
    account: Option<Account>,
}

impl Installation {
    /// The newest server programs, or those of `major` where data of that version exist already.
    pub fn find(major: Option<u32>) -> Result<Self, InstallationError> {
        let bin = match major {
            None => candidates().into_iter().next(),
            Some(major) => candidates().into_iter().find(|bin| version_of(bin) == Some(major)),
        }
        .ok_or(match major {
            Some(wanted) => InstallationError::OtherVersion { wanted },
            None => InstallationError::Missing,
        })?;
        let account = if rustix::process::geteuid().is_root() {
            Some(service_account().ok_or(InstallationError::NoAccount)?)
        } else {
            None
        };
        Ok(Self { bin, account })
    }

    /// The folder of the programs.
    #[must_use]
    pub fn bin(&self) -> &Path {
        &self.bin
    }

    /// The account the server runs as, when it is not our own.
    #[must_use]
    pub fn account(&self) -> Option<Account> {
        self.account
    }

    /// A server program, to be run by the right account, unmoved by the caller's locale and `PG*` variables.
    #[must_use]
    pub fn program(&self, name: &str) -> Command {
        self.command(self.bin.join(name))
    }

    /// Any program, run as [`Self::program`] runs those of the server.
    #[must_use]
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = Command::new(program);
        for (name, _) in env::vars_os() {
            if name.to_string_lossy().starts_with("PG") {
                command.env_remove(name);
            }
        }
        // A folder that every account may enter: the programs look at where they are started.
        command.env("LC_ALL", "C").current_dir("/");
        if let Some(account) = self.account {
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Hands a path to the account that runs the server.
    pub fn give(&self, path: &Path) -> io::Result<()> {
        match self.account {
            Some(account) => chown(path, Some(account.uid), Some(account.gid)),
            None => Ok(()),
        }
    }
}

/// Folders with a server in them: Debian's, newest first, then those on `PATH`.
fn candidates() -> Vec<PathBuf> {
    let mut packaged: Vec<(u32, PathBuf)> = fs::read_dir(DEBIAN_ROOT)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| {
            let major = entry.file_name().to_str()?.parse().ok()?;
            Some((major, entry.path().join("bin")))
        })
        .collect();
    packaged.sort_unstable_by_key(|(major, _)| std::cmp::Reverse(*major));
    let on_path = env::var_os("PATH").unwrap_or_default();
    packaged
        .into_iter()
        .map(|(_, bin)| bin)
        .chain(env::split_paths(&on_path).filter_map(|folder| {
            // A link on PATH leads to the folder that also holds the server's other files.
            let server = folder.join("postgres").canonicalize().ok()?;
            Some(server.parent()?.to_path_buf())
        }))
        .filter(|bin| bin.join("postgres").is_file() && bin.join("initdb").is_file())
        .collect()
}

/// The major version of the server in `bin`, asked of the program itself.
fn version_of(bin: &Path) -> Option<u32> {
    let output = Command::new(bin.join("postgres")).arg("--version").output().ok()?;
    // "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)"
    String::from_utf8(output.stdout)
        .ok()?
        .split_whitespace()
        .nth(2)?
        .split(|c: char| !c.is_ascii_digit())
        .next()?
        .parse()
        .ok()
}

fn service_account() -> Option<Account> {
    parse_account(&fs::read_to_string("/etc/passwd").ok()?, SERVICE_ACCOUNT)
}

fn parse_account(passwd: &str, name: &str) -> Option<Account> {
    passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        (fields.next()? == name).then_some(())?;
        let uid = fields.nth(1)?.parse().ok()?;
        let gid = fields.next()?.parse().ok()?;
        Some(Account { uid, gid })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_is_read_by_its_whole_name() {
        let passwd = "root:x:0:0::/root:/bin/sh\npostgres2:x:7:7::/:/bin/sh\n\
                      postgres:x:101:104:admin,,,:/var/lib/postgresql:/bin/bash\n";
        assert_eq!(parse_account(passwd, "postgres"), Some(Account { uid: 101, gid: 104 }));
        assert_eq!(parse_account(passwd, "nobody"), None);
    }

    #[test]
    fn the_installed_version_is_found_again_by_its_number() {
        let newest = Installation::find(None).unwrap();
        let major = version_of(newest.bin()).unwrap();
        assert_eq!(Installation::find(Some(major)).unwrap().bin(), newest.bin());
    }

    #[test]
    fn a_version_that_is_not_there_is_named() {
        let error = Installation::find(Some(7)).unwrap_err();
        assert!(error.to_string().contains("postgresql-7"), "{error}");
    }
}
