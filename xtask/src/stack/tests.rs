//! A whole stack in a temporary folder.

use std::process::Command;

use rustix::process::{Pid, Signal, kill_process};

use super::*;

/// A stack that leaves nothing running, however its test ends.
struct Passing {
    stack: Stack,
    folder: tempfile::TempDir,
}

impl Passing {
    fn new() -> Self {
        let folder = tempfile::Builder::new().prefix("parlance-stack-").tempdir().unwrap();
        // PostgreSQL's account has to come through.
        fs::set_permissions(folder.path(), std::os::unix::fs::PermissionsExt::from_mode(0o711)).unwrap();
        let place = Place { folder: Some(folder.path().join("stack")) };
        Self { stack: Stack::open(&place).unwrap(), folder }
    }

    fn processes(&self) -> Vec<Option<u32>> {
        self.stack.engines.iter().map(|engine| engine.daemon().pid()).collect()
    }

    fn ask(&self, statement: &str) -> String {
        let environment = self.stack.environment().unwrap();
        let (_, url) = environment.iter().find(|(name, _)| *name == "DATABASE_URL").unwrap();
        let output = Command::new("psql").args([url, "-XAtc", statement]).output().unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
    }
}

impl Drop for Passing {
    fn drop(&mut self) {
        for pid in self.processes().into_iter().flatten() {
            if let Some(pid) = i32::try_from(pid).ok().and_then(Pid::from_raw) {
                let _ = kill_process(pid, Signal::KILL);
            }
        }
    }
}

#[tokio::test]
async fn engines_stay_with_their_data_and_addresses_until_they_are_wiped() {
    let passing = Passing::new();
    let stack = &passing.stack;
    let mut started = Vec::new();
    stack.up(&mut started).await.unwrap();
    started.sort_unstable();
    assert_eq!(started, ["kafka", "postgres", "redis"]);
    stack.status().unwrap();
    let (processes, environment) = (passing.processes(), stack.environment().unwrap());
    let names: Vec<_> = environment.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, ["DATABASE_URL", "KAFKA_BROKERS", "PARLANCE_MASTER_KEY", "REDIS_URL"]);
    let rights = "SELECT rolname, rolsuper, rolcreatedb, rolcreaterole FROM pg_roles WHERE rolname = current_user";
    assert_eq!(passing.ask(rights), "parlance|f|f|f");
    assert_eq!(passing.ask("SHOW fsync"), "on");
    passing.ask("CREATE TABLE kept ()");

    let mut again = Vec::new();
    stack.up(&mut again).await.unwrap();
    assert_eq!((again.is_empty(), passing.processes()), (true, processes));

    stack.down().await.unwrap();
    assert_eq!(passing.processes(), [None, None, None]);
    assert!(stack.status().is_err());
    stack.up(&mut again).await.unwrap();
    assert_eq!((again.len(), stack.environment().unwrap()), (3, environment));
    assert_eq!(passing.ask("SELECT count(*) FROM pg_class WHERE relname = 'kept'"), "1");
    stack.down().await.unwrap();
    stack.wipe().unwrap();
    assert!(!passing.folder.path().join("stack").exists());
}

#[test]
fn a_folder_of_somebody_elses_is_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("thesis"), "").unwrap();
    let place = Place { folder: Some(folder.path().to_owned()) };
    assert!(Stack::open(&place).is_err());
    assert!(Stack::find(&place).unwrap().is_none());
}
