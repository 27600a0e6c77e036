//! Real clusters: made, killed, found again.

use std::{mem, os::unix::fs::PermissionsExt, process};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::*;
use crate::postgres::connect::wait_until_reachable;

const BOUND: Duration = Duration::from_mins(1);

/// A data directory that every account may enter, as those of `parlance up` are.
fn data_dir() -> TempDir {
    folder_of_mode(0o711)
}

fn folder_of_mode(mode: u32) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(mode)).unwrap();
    folder
}

async fn execute(embedded: &Embedded, statement: &'static str) {
    let mut connection = PgConnection::connect_with(embedded.options()).await.unwrap();
    sqlx::raw_sql(statement).execute(&mut connection).await.unwrap();
}

async fn count(embedded: &Embedded) -> i64 {
    let mut connection = PgConnection::connect(&embedded.url()).await.unwrap();
    sqlx::query_scalar("SELECT count(*) FROM kept").fetch_one(&mut connection).await.unwrap()
}

/// A cluster with a table in it, stopped; and a server started on it as nobody's, as a killed instance leaves it.
async fn orphaned(data_dir: &Path) -> (Home, u32) {
    let embedded = Embedded::start(data_dir).await.unwrap();
    execute(&embedded, "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1), (2)").await;
    embedded.stop().await;

    let home = Home::find(data_dir).unwrap().unwrap();
    let server = Server::spawn(&home, &Installation::find(home.version()).unwrap()).unwrap();
    let pid = server.id().unwrap();
    mem::forget(server);
    wait_until_reachable(&options(&home), BOUND).await.unwrap();
    (home, pid)
}

fn kill(pid: u32) {
    let pid = Pid::from_raw(pid.try_into().unwrap()).unwrap();
    kill_process(pid, Signal::KILL).unwrap();
}

#[tokio::test]
async fn all_data_is_there_after_a_stop_and_durability_is_the_default() {
    let data_dir = data_dir();
    let embedded = Embedded::start(data_dir.path()).await.unwrap();
    execute(&embedded, "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1), (2)").await;
    for setting in ["fsync", "synchronous_commit", "full_page_writes"] {
        let mut connection = PgConnection::connect_with(embedded.options()).await.unwrap();
        let value: String =
            sqlx::query_scalar("SELECT current_setting($1)").bind(setting).fetch_one(&mut connection).await.unwrap();
        assert_eq!(value, "on", "{setting}");
    }
    embedded.stop().await;

    let embedded = Embedded::start(data_dir.path()).await.unwrap();
    assert_eq!(count(&embedded).await, 2);
    embedded.stop().await;
}

#[tokio::test]
async fn a_data_directory_has_one_instance_and_guests() {
    let data_dir = data_dir();
    let embedded = Embedded::start(data_dir.path()).await.unwrap();

    let error = Embedded::start(data_dir.path()).await.unwrap_err();
    let holder = process::id();
    assert!(error.to_string().contains(&format!("in use by process {holder}")), "{error}");

    let guest = Embedded::attach_or_start(data_dir.path()).await.unwrap();
    assert!(guest.is_attached());
    execute(&guest, "CREATE TABLE kept (id int)").await;
    guest.stop().await;

    assert_eq!(count(&embedded).await, 0);
    embedded.stop().await;

    let host = Embedded::attach_or_start(data_dir.path()).await.unwrap();
    assert!(!host.is_attached());
    assert_eq!(count(&host).await, 0);
    host.stop().await;
}

#[tokio::test]
async fn an_orphaned_server_is_stopped_and_started_anew() {
    let data_dir = data_dir();
    let (_, orphan) = orphaned(data_dir.path()).await;
    let embedded = Embedded::start(data_dir.path()).await.unwrap();
    assert!(fs::read_to_string(format!("/proc/{orphan}/status")).is_ok_and(|status| status.contains("zombie")));
    assert_eq!(count(&embedded).await, 2);
    embedded.stop().await;
}

#[tokio::test]
async fn what_a_killed_postmaster_leaves_is_cleared_away() {
    let data_dir = data_dir();
    let (home, orphan) = orphaned(data_dir.path()).await;
    // A backend in the middle of a statement notices nothing of its postmaster's death.
    let busy = options(&home);
    let busy = tokio::spawn(async move {
        let mut connection = PgConnection::connect_with(&busy).await.unwrap();
        sqlx::raw_sql("SELECT pg_sleep(600)").execute(&mut connection).await.is_err()
    });
    let mut connection = PgConnection::connect_with(&options(&home)).await.unwrap();
    wait_for_backend(&mut connection).await;
    kill(orphan);
    // The pid in the stale file has since been given to somebody else.
    let pid_file = home.data().join("postmaster.pid");
    let stale = fs::read_to_string(&pid_file).unwrap();
    fs::write(&pid_file, stale.replacen(&orphan.to_string(), &process::id().to_string(), 1)).unwrap();

    let embedded = Embedded::start(data_dir.path()).await.unwrap();
    assert!(busy.await.unwrap());
    assert_eq!(count(&embedded).await, 2);
    embedded.stop().await;
}

async fn wait_for_backend(connection: &mut PgConnection) {
    let deadline = Instant::now() + BOUND;
    while Instant::now() < deadline {
        let busy: i64 = sqlx::query_scalar(
            "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'SELECT pg_sleep%' AND state = 'active'",
        )
        .fetch_one(&mut *connection)
        .await
        .unwrap();
        if busy == 1 {
            return;
        }
        sleep(PAUSE).await;
    }
    panic!("no backend sleeps");
}

#[tokio::test]
async fn a_server_that_dies_is_started_again() {
    let data_dir = data_dir();
    let embedded = Embedded::start(data_dir.path()).await.unwrap();
    execute(&embedded, "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1), (2)").await;
    let home = Home::find(data_dir.path()).unwrap().unwrap();
    let postmaster = fs::read_to_string(home.data().join("postmaster.pid")).unwrap();
    kill(postmaster.lines().next().unwrap().parse().unwrap());

    let deadline = Instant::now() + BOUND;
    let again = loop {
        wait_until_reachable(embedded.options(), BOUND).await.unwrap();
        let again = fs::read_to_string(home.data().join("postmaster.pid")).unwrap_or_default();
        if !again.is_empty() && again != postmaster {
            break again;
        }
        assert!(Instant::now() < deadline, "not started again");
        sleep(PAUSE).await;
    };
    assert_ne!(again.lines().next(), postmaster.lines().next());
    wait_until_reachable(embedded.options(), BOUND).await.unwrap();
    assert_eq!(count(&embedded).await, 2);
    embedded.stop().await;
}

#[tokio::test]
async fn an_unfinished_initdb_is_done_again() {
    let data_dir = data_dir();
    let installation = Installation::find(None).unwrap();
    let home = Home::find_or_make(data_dir.path(), &installation).unwrap();
    let draft = home.folder().join("data.new");
    fs::create_dir(&draft).unwrap();
    fs::write(draft.join("PG_VERSION"), "15\n").unwrap();

    let embedded = Embedded::start(data_dir.path()).await.unwrap();
    assert!(!draft.exists());
    embedded.stop().await;
}

#[tokio::test]
async fn two_instances_run_side_by_side_also_under_very_long_paths() {
    let (one, other) = (data_dir(), data_dir());
    let long = other.path().join("d".repeat(120));
    let (one, other) = tokio::join!(Embedded::start(one.path()), Embedded::start(&long));
    let (one, other) = (one.unwrap(), other.unwrap());
    execute(&one, "CREATE TABLE kept (id int)").await;
    execute(&other, "CREATE TABLE kept (id int); INSERT INTO kept VALUES (1)").await;
    assert_eq!((count(&one).await, count(&other).await), (0, 1));
    let socket = other.options().get_socket().unwrap().clone();
    tokio::join!(one.stop(), other.stop());
    fs::remove_dir(socket).unwrap();
}

#[tokio::test]
async fn a_cluster_may_stand_elsewhere_and_is_missed_when_it_is_gone() {
    let installation = Installation::find(None).unwrap();
    if installation.account().is_none() {
        return; // Our own account runs the server, and enters what we may enter.
    }
    // Closed to all but root, as a clone under root's home is.
    let data_dir = folder_of_mode(0o700);
    let embedded = Embedded::start(data_dir.path()).await.unwrap();
    let home = Home::find(data_dir.path()).unwrap().unwrap();
    assert!(!home.folder().starts_with(data_dir.path()));
    embedded.stop().await;
    let again = Embedded::start(data_dir.path()).await.unwrap();
    assert_eq!(again.options().get_socket().unwrap(), home.folder());
    again.stop().await;

    fs::remove_dir_all(home.folder()).unwrap();
    let error = Embedded::start(data_dir.path()).await.unwrap_err();
    assert!(matches!(error, EmbeddedError::Lost { .. }), "{error}");
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made_is_named() {
    let error = Embedded::start(Path::new("/proc/nowhere")).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("/proc/nowhere") && text.contains("--data-dir"), "{text}");
}

#[test]
fn the_next_start_is_not_kept_waiting_by_a_dropped_one() {
    let data_dir = data_dir();
    for _ in 0..2 {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let embedded = runtime.block_on(Embedded::start(data_dir.path())).unwrap();
        drop(runtime);
        drop(embedded);
    }
}
