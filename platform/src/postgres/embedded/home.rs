//! Where a private cluster stands, and how it comes to be.
//!
//! A home is a folder of the server's own account, closed to all others: `data/` (the cluster), `postgres.log`,
//! the socket. It lies in the data directory; where the server's account may not enter that (a clone under root's
//! home), it lies under `/var/lib/parlance`, and a file in the data directory points there. Its name there is
//! random: a data directory that was deleted and made again does not wake the old one's data.

use std::{
    fs::{self, DirBuilder, File},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use sha2::{Digest, Sha256};
use tokio::process::Command;
use uuid::Uuid;

use super::{EmbeddedError, last_lines};
use crate::postgres::Installation;

/// In the data directory: the path of a home that stands elsewhere.
const POINTER: &str = "postgres.location";
/// Homes that may not lie in their data directory.
const ELSEWHERE: &str = "/var/lib/parlance";
/// In a home that lies elsewhere: the data directory that it belongs to, for whoever cleans up by hand.
const BELONGS_TO: &str = "belongs-to";
/// The superuser of a private cluster.
pub(super) const ROLE: &str = "parlance";
/// Bytes of a Unix socket's path, less those of its file name and the closing zero.
const LONGEST_SOCKET_FOLDER: usize = 107 - "/.s.PGSQL.5432".len();

/// The folder that a private cluster lives in.
#[derive(Debug, Clone)]
pub(super) struct Home {
    folder: PathBuf,
}

impl Home {
    /// The home that this data directory has already.
    pub(super) fn find(data_dir: &Path) -> Result<Option<Self>, EmbeddedError> {
        let pointer = data_dir.join(POINTER);
        let folder = match fs::read_to_string(&pointer) {
            Ok(target) => {
                let target = PathBuf::from(target.trim_end());
                if !target.is_dir() {
                    return Err(EmbeddedError::Lost { pointer, target });
                }
                target
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => data_dir.join("postgres"),
            Err(error) => return Err(EmbeddedError::files(&pointer, error)),
        };
        Ok(folder.is_dir().then_some(Self { folder }))
    }

    /// The home of this data directory, made where there is none yet.
    pub(super) fn find_or_make(data_dir: &Path, installation: &Installation) -> Result<Self, EmbeddedError> {
        if let Some(home) = Self::find(data_dir)? {
            return Ok(home);
        }
        if may_enter(installation, data_dir) {
            let folder = data_dir.join("postgres");
            make_private(installation, &folder).map_err(|error| EmbeddedError::files(&folder, error))?;
            return Ok(Self { folder });
        }
        let home = Self::make_elsewhere(data_dir, installation)
            .map_err(|error| EmbeddedError::files(Path::new(ELSEWHERE), error))?;
        tracing::info!(
            home = %home.folder.display(), data_dir = %data_dir.display(),
            "the private PostgreSQL cluster stands in {}: the account that runs it may not enter {}",
            home.folder.display(), data_dir.display(),
        );
        Ok(home)
    }

    /// The folder first, then the pointer: a pointer without its folder means that data were lost.
    fn make_elsewhere(data_dir: &Path, installation: &Installation) -> io::Result<Self> {
        fs::create_dir_all(ELSEWHERE)?;
        let folder = Path::new(ELSEWHERE).join(Uuid::new_v4().to_string());
        make_private(installation, &folder)?;
        fs::write(folder.join(BELONGS_TO), format!("{}\n", data_dir.display()))?;
        let (draft, pointer) = (data_dir.join("postgres.location.new"), data_dir.join(POINTER));
        fs::write(&draft, format!("{}\n", folder.display()))?;
        File::open(&draft)?.sync_all()?;
        fs::rename(draft, pointer)?;
        sync_folder(data_dir)?;
        Ok(Self { folder })
    }

    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The cluster itself (`PGDATA`).
    pub(super) fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    pub(super) fn log(&self) -> PathBuf {
        self.folder.join("postgres.log")
    }

    /// The major version that wrote the cluster; `None` where there is none yet.
    pub(super) fn version(&self) -> Option<u32> {
        fs::read_to_string(self.data().join("PG_VERSION")).ok()?.trim().parse().ok()
    }

    /// The folder of the socket: the home, or one with a short name where a socket's path has no room for it.
    pub(super) fn socket_folder(&self) -> PathBuf {
        if self.folder.as_os_str().len() <= LONGEST_SOCKET_FOLDER {
            return self.folder.clone();
        }
        let digest = Sha256::digest(self.folder.as_os_str().as_encoded_bytes());
        Path::new("/tmp").join(format!("parlance-{}", hex::encode(&digest[..8])))
    }

    /// Makes the socket's folder; one that somebody else made there first is refused.
    pub(super) fn make_socket_folder(&self, installation: &Installation) -> Result<(), EmbeddedError> {
        let folder = self.socket_folder();
        let made = match make_private(installation, &folder) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            other => other,
        };
        let owner = || fs::metadata(&self.folder).map(|home| home.uid());
        let found = made.and_then(|()| fs::symlink_metadata(&folder));
        let found = found.map_err(|error| EmbeddedError::files(&folder, error))?;
        if !found.is_dir() || owner().ok() != Some(found.uid()) || found.mode() & 0o077 != 0 {
            return Err(EmbeddedError::ForeignSocketFolder { folder });
        }
        Ok(())
    }

    /// Initialises the cluster, once. It gets its name when it is whole: what a crash left unfinished is redone.
    pub(super) async fn initialise(&self, installation: &Installation) -> Result<(), EmbeddedError> {
        if self.data().is_dir() {
            return Ok(());
        }
        let draft = self.folder.join("data.new");
        let files = |error| EmbeddedError::files(&draft, error);
        if draft.exists() {
            tracing::warn!(draft = %draft.display(), "an unfinished initdb is done again");
            fs::remove_dir_all(&draft).map_err(files)?;
        }
        make_private(installation, &draft).map_err(files)?;
        let output = Command::from(installation.program("initdb"))
            .arg("--pgdata")
            .arg(&draft)
            .args(["--username", ROLE, "--encoding=UTF8", "--locale=C", "--no-instructions"])
            // Replaced below, before anything listens.
            .arg("--auth=reject")
            .stdin(Stdio::null())
            .output()
            .await
            .map_err(files)?;
        if !output.status.success() {
            return Err(EmbeddedError::Initdb {
                status: output.status,
                said: last_lines(&String::from_utf8_lossy(&output.stderr)),
            });
        }
        admit_only_ourselves(&draft).map_err(files)?;
        fs::rename(&draft, self.data()).map_err(files)?;
        sync_folder(&self.folder).map_err(files)
    }
}

/// Admits, by the socket alone, the account that runs the server and root: the kernel says who connects.
fn admit_only_ourselves(data: &Path) -> io::Result<()> {
    let owner = fs::metadata(data)?.uid();
    let owner = user_name(owner).ok_or_else(|| io::Error::other("the server's account has no name"))?;
    overwrite(&data.join("pg_hba.conf"), &format!("local all {ROLE} peer map=ourselves\n"))?;
    let admitted = format!("ourselves \"{owner}\" {ROLE}\nourselves \"root\" {ROLE}\n");
    overwrite(&data.join("pg_ident.conf"), &admitted)
}

/// Keeps owner and mode of the file, as `initdb` set them.
fn overwrite(file: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).truncate(true).open(file)?;
    file.write_all(text.as_bytes())?;
    file.sync_all()
}

fn user_name(uid: u32) -> Option<String> {
    fs::read_to_string("/etc/passwd").ok()?.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(uid)).then(|| name.to_owned())
    })
}

fn make_private(installation: &Installation, folder: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).create(folder)?;
    installation.give(folder)
}

/// Asked as the account itself: permissions of all parents, ACLs and mounts have their say.
fn may_enter(installation: &Installation, folder: &Path) -> bool {
    installation.account().is_none()
        || installation.command("test").arg("-x").arg(folder).status().is_ok_and(|status| status.success())
}

fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
