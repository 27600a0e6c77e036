//! What the consumers in `docs/consumers` are built on, installed once, outside the clone.

use std::{
    fs::{self, File},
    hash::{DefaultHasher, Hash, Hasher},
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context, Result};

use crate::{
    packages::{self, NODE, NPM, PYTHON},
    workspace::{cache, root, run},
};

/// Where the tests find it, each under the name of the variable that tells them.
pub(crate) fn installed() -> Result<[(&'static str, PathBuf); 2]> {
    packages::ensure(&[PYTHON, NODE, NPM])?;
    let (sources, folders) = (root().join("docs/consumers"), cache().join("consumers"));
    let python = install(&sources.join("python"), &folders, &["requirements.txt"], |draft| {
        run(quietly("python3").args(["-m", "venv"]).arg(draft))?;
        run(quietly(draft.join("bin/python"))
            .args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check"])
            .args(["--require-hashes", "--only-binary", ":all:", "--requirement"])
            .arg(draft.join("requirements.txt")))
    })?;
    let node = install(&sources.join("node"), &folders, &["package.json", "package-lock.json", ".npmrc"], |draft| {
        run(quietly("npm").current_dir(draft).args(["ci", "--no-audit", "--no-fund", "--loglevel=error"]))
    })?;
    Ok([
        ("PARLANCE_TEST_CONSUMERS_PYTHON", python.join("bin/python")),
        ("PARLANCE_TEST_CONSUMERS_NODE_MODULES", node.join("node_modules")),
    ])
}

/// The one of these folders that bears what these files of a consumer pin, filled by `fill` if it is not there. Virtual
/// environments do not move: what says that one is whole is a file that is written last.
fn install(source: &Path, folders: &Path, pins: &[&str], fill: impl Fn(&Path) -> Result<()>) -> Result<PathBuf> {
    let consumer = source.file_name().unwrap_or_default().display();
    let mut hasher = DefaultHasher::new();
    for pin in pins {
        fs::read(source.join(pin)).with_context(|| format!("{consumer}/{pin}"))?.hash(&mut hasher);
    }
    fs::create_dir_all(folders).with_context(|| format!("cannot make {}", folders.display()))?;
    let folder = folders.join(format!("{consumer}-{:016x}", hasher.finish()));
    // Another clone may be at it; the kernel lets go of the lock however its holder ends.
    let lock = File::create(folders.join(format!("{consumer}.lock")))?;
    lock.lock().context("cannot lock what the consumers are built on")?;
    let whole = folder.join("whole");
    if !whole.exists() {
        eprintln!("xtask: installing what docs/consumers/{consumer} is built on into {}", folder.display());
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        for pin in pins {
            fs::copy(source.join(pin), folder.join(pin))?;
        }
        fill(&folder)?;
        File::create(whole)?;
    }
    Ok(folder)
}

/// What it says goes where our own remarks go.
fn quietly(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(program);
    command.stdin(Stdio::null()).stdout(std::io::stderr());
    command
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use anyhow::ensure;

    use super::*;

    #[test]
    fn what_is_pinned_is_installed_once_and_whole() {
        let place = tempfile::tempdir().unwrap();
        let (source, folders) = (place.path().join("python"), place.path().join("cache"));
        fs::create_dir(&source).unwrap();
        let filled = Cell::new(0);
        let install = |fails: bool| {
            install(&source, &folders, &["pins"], |draft| {
                filled.set(filled.get() + 1);
                assert!(!draft.join("half").exists(), "it begins anew");
                assert!(draft.join("pins").exists());
                File::create(draft.join("half"))?;
                ensure!(!fails, "no network");
                Ok(())
            })
        };
        fs::write(source.join("pins"), "a==1").unwrap();
        assert!(install(true).is_err());
        let first = install(false).unwrap();
        assert_eq!(install(false).unwrap(), first);
        assert_eq!(filled.get(), 2);
        fs::write(source.join("pins"), "a==2").unwrap();
        assert_ne!(install(false).unwrap(), first);
        assert_eq!(filled.get(), 3);
    }
}
