//! Files of the contract, and whether they may be written.

use std::path::{Path, PathBuf};
use std::{env, fs};

/// The folder of the contract.
pub(crate) fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Whether the files are to be made, instead of held against what they should be.
pub(crate) fn writing() -> bool {
    env::var_os("PARLANCE_WRITE_CONTRACT").is_some_and(|value| !value.is_empty() && value != "0")
}

pub(crate) fn read(name: &str) -> Option<String> {
    fs::read_to_string(root().join(name)).ok()
}

/// Makes a file what it should be; where files are not to be made, fails if it is not.
pub(crate) fn expect(name: &str, text: &str) {
    if read(name).as_deref() == Some(text) {
        return;
    }
    assert!(
        writing(),
        "{name} is not what the types say; PARLANCE_WRITE_CONTRACT=1 cargo test -p schemas --test contract"
    );
    let path = root().join(name);
    fs::create_dir_all(path.parent().expect("it is in a folder")).expect("folders can be made");
    fs::write(path, text).expect("files can be written");
}

/// The names of all files under a folder of the contract, sorted.
pub(crate) fn under(folder: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("it is a folder") {
            let path: PathBuf = entry.expect("it can be read").path();
            if path.is_dir() {
                folders.push(path);
            } else {
                let name = path.strip_prefix(root()).expect("it is in it").to_str().expect("names are text");
                found.push(name.to_owned());
            }
        }
    }
    found.sort_unstable();
    found
}
