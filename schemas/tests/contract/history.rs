//! What was ever published is published: the list holds every line that it had in any commit.
//!
//! Published is what the main branch has. A branch may think again about what it adds, until it gets there. Where there is no
//! history (an archive of the sources), the list alone speaks; in a shallow clone as much of it as was fetched.

use std::path::Path;
use std::process::Command;

use crate::files;
use crate::published::{PATH, lost};

/// Every line that is missing now, or differs, with the commit that had it.
fn rewritten(repository: &Path) -> Vec<String> {
    let now = std::fs::read_to_string(repository.join(PATH)).unwrap_or_default();
    let commits = git(repository, &["log", "--format=%H", "--diff-filter=AM", &published(repository), "--", PATH]);
    let commits = commits.expect("the history can be read");
    let mut found = Vec::new();
    for commit in commits.lines() {
        let before = git(repository, &["show", &format!("{commit}:{PATH}")]).expect("the commit has the list");
        found.extend(lost(&before, &now).into_iter().map(|what| format!("{what} (as of {commit})")));
    }
    found
}

/// The newest commit of the main branch that this tree is built on.
fn published(repository: &Path) -> String {
    let main = ["origin/main", "main"].into_iter();
    let mut bases = main.filter_map(|branch| git(repository, &["merge-base", "HEAD", branch]));
    bases.next().map_or_else(|| "HEAD".to_owned(), |base| base.trim().to_owned())
}

/// What git answers; nothing if it fails.
fn git(repository: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").arg("-C").arg(repository).args(arguments).output().expect("git is installed");
    output.status.success().then(|| String::from_utf8(output.stdout).expect("git answers text"))
}

#[test]
fn nothing_published_was_ever_changed_or_removed() {
    let repository = files::root().parent().expect("the repository");
    if repository.join(".git").exists() {
        let rewritten = rewritten(repository);
        assert!(rewritten.is_empty(), "{rewritten:#?}");
    }
}

#[test]
fn the_history_tells_on_who_rewrites_the_list() {
    let folder = tempfile::tempdir().unwrap();
    let repository = folder.path();
    let run = |arguments: &[&str]| {
        let identity = ["-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false"];
        assert!(git(repository, &[&identity[..], arguments].concat()).is_some(), "git {arguments:?}");
    };
    let publish = |list: &str| {
        std::fs::create_dir_all(repository.join("schemas")).unwrap();
        std::fs::write(repository.join(PATH), list).unwrap();
        run(&["add", "."]);
        run(&["commit", "--quiet", "--message", "a list"]);
    };
    run(&["init", "--quiet", "--initial-branch", "main"]);
    publish("a 1\n");
    publish("a 1\nb 2\n");
    assert_eq!(rewritten(repository), [""; 0]);
    // On a branch one may think again about what only the branch has.
    run(&["checkout", "--quiet", "-b", "branch"]);
    publish("a 1\nb 2\nc 3\n");
    publish("a 1\nb 2\nc 4\n");
    assert_eq!(rewritten(repository), [""; 0]);
    // But not about what main has, even if it is all committed.
    publish("b 3\nc 4\n");
    let told = rewritten(repository);
    assert!(told.iter().any(|one| one.starts_with("a is published, and was removed")), "{told:?}");
    assert!(told.iter().any(|one| one.starts_with("b is published, and was changed")), "{told:?}");
    // Nor on main itself, later.
    run(&["checkout", "--quiet", "main"]);
    publish("a 1\nb 3\n");
    publish("a 1\nb 3\nd 4\n");
    let told = rewritten(repository);
    assert!(told.iter().all(|one| one.starts_with("b is published, and was changed")) && told.len() == 1, "{told:?}");
}
