//! What holds for every projection: the rows follow from the log alone, not from the batches it comes in.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use schemas::{Event, History, Record, Role, Topic};
use sqlx::{AssertSqlSafe, PgConnection};
use testkit::Database;
use time::Duration;
use uuid::Uuid;

use crate::database::connect;
use crate::registry::PROJECTIONS;
use crate::testing::{MemoryLog, Room, pass, profile, reading, registered, role, rows, session};

/// What may happen; whether it can, the simulation knows.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Step {
    Say {
        room: usize,
        user: usize,
    },
    Move {
        room: usize,
        user: usize,
        delivered: u64,
        read: bool,
    },
    Toggle {
        room: usize,
        user: usize,
    },
    Role {
        room: usize,
        user: usize,
        admin: bool,
    },
    Set {
        room: usize,
        all: bool,
    },
    Profile {
        user: usize,
    },
    Operator {
        user: usize,
        granted: bool,
    },
    Reads {
        user: usize,
    },
    Session {
        user: usize,
        number: u128,
        event: usize,
    },
    /// From milliseconds to months.
    Wait {
        doublings: u32,
    },
}

pub(crate) fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (room, user) = (0..3_usize, 0..4_usize);
    let step = prop_oneof![
        4 => (room.clone(), user.clone()).prop_map(|(room, user)| Step::Say { room, user }),
        4 => (room.clone(), user.clone(), 0..4_u64, any::<bool>())
            .prop_map(|(room, user, delivered, read)| Step::Move { room, user, delivered, read }),
        3 => (room.clone(), user.clone()).prop_map(|(room, user)| Step::Toggle { room, user }),
        1 => (room.clone(), user.clone(), any::<bool>()).prop_map(|(room, user, admin)| Step::Role { room, user, admin }),
        1 => (room, any::<bool>()).prop_map(|(room, all)| Step::Set { room, all }),
        1 => user.clone().prop_map(|user| Step::Profile { user }),
        1 => (user.clone(), any::<bool>()).prop_map(|(user, granted)| Step::Operator { user, granted }),
        1 => user.clone().prop_map(|user| Step::Reads { user }),
        2 => (user, 0..3_u128, 0..3_usize).prop_map(|(user, number, event)| Step::Session { user, number, event }),
        3 => (0..32_u32).prop_map(|doublings| Step::Wait { doublings }),
    ];
    prop::collection::vec(step, 1..120)
}

/// A member of a room, with watermarks while present.
#[derive(Clone, Copy)]
struct Marks {
    delivered: u64,
    read: u64,
}

/// A log that commands could have made.
pub(crate) fn log(steps: &[Step]) -> Vec<Arc<Record>> {
    let log = MemoryLog::default();
    let mut records = Vec::new();
    let user_id = |user: usize| Uuid::from_u128(user as u128 + 1);
    let begin = Marks { delivered: 0, read: 0 };
    let mut rooms: Vec<(Room, Vec<Option<Marks>>)> =
        (0..3).map(|room| (Room::new(50 + room), vec![Some(begin), Some(begin), None, None])).collect();
    // Whether each goes on.
    let mut sessions: HashMap<u128, bool> = HashMap::new();
    for user in 0..4 {
        records.push(log.append(registered(user + 1, &format!("user{user}"))));
    }
    for (room, _) in &mut rooms {
        records.push(log.append(room.created(&[(user_id(0), Role::Owner), (user_id(1), Role::Member)])));
    }
    for step in steps {
        let event = match *step {
            Step::Wait { doublings } => {
                pass(Duration::milliseconds(1 << doublings));
                None
            }
            Step::Say { room, user } => rooms[room].1[user].map(|_| rooms[room].0.said(user_id(user))),
            Step::Move { room, user, delivered, read } => {
                let (room, members) = &mut rooms[room];
                members[user].as_mut().and_then(|marks| {
                    let to = (marks.delivered.saturating_sub(1) + delivered).min(room.seq);
                    if read && to > marks.read {
                        *marks = Marks { delivered: marks.delivered.max(to), read: to };
                        Some(room.read(user_id(user), marks.delivered, marks.read))
                    } else if !read && to > marks.delivered {
                        marks.delivered = to;
                        Some(room.delivered(user_id(user), marks.delivered, marks.read))
                    } else {
                        None
                    }
                })
            }
            Step::Toggle { room, user } => {
                let (room, members) = &mut rooms[room];
                let event = match members[user] {
                    Some(_) => room.left(user_id(user)),
                    None => room.joined(user_id(user), Role::Member),
                };
                members[user] =
                    if members[user].is_some() { None } else { Some(Marks { delivered: room.seq, read: room.seq }) };
                Some(event)
            }
            Step::Role { room, user, admin } => rooms[room].1[user]
                .map(|_| rooms[room].0.role(user_id(user), if admin { Role::Admin } else { Role::Member })),
            Step::Set { room, all: true } => Some(rooms[room].0.history(History::SinceJoin)),
            Step::Set { room, all: false } => Some(rooms[room].0.renamed("another name")),
            Step::Profile { user } => Some(profile(user as u128 + 1, &format!("name {}", records.len()))),
            Step::Operator { user, granted } => Some(role(user as u128 + 1, granted)),
            Step::Reads { user } => Some(reading(user as u128 + 1)),
            Step::Session { user, number, event } => {
                let id = 1000 * (user as u128 + 1) + number;
                let then = [Event::SessionRefreshed, Event::SessionReuseDetected, Event::SessionRevoked];
                let what = match sessions.insert(id, event < 2) {
                    None => {
                        sessions.insert(id, true);
                        Some(Event::SessionStarted as fn(_) -> _)
                    }
                    Some(true) => Some(then[event]),
                    Some(false) => {
                        sessions.insert(id, false);
                        None
                    }
                };
                what.map(|what| session(user as u128 + 1, id, what))
            }
        };
        records.extend(event.map(|event| log.append(event)));
    }
    records
}

async fn empty(connection: &mut PgConnection) {
    for table in PROJECTIONS.iter().flat_map(|projection| projection.describe().tables) {
        sqlx::query(AssertSqlSafe(format!("TRUNCATE {table}"))).execute(&mut *connection).await.unwrap();
    }
}

/// Applies a log, cut at these places.
async fn apply(connection: &mut PgConnection, records: &[Arc<Record>], cuts: &[usize]) {
    let mut rest = records;
    for cut in cuts.iter().copied().chain([usize::MAX]) {
        let (batch, later) = rest.split_at(cut.min(rest.len()));
        rest = later;
        for projection in PROJECTIONS {
            let topics = projection.describe().topics;
            let batch: Vec<_> = batch.iter().filter(|record| topics.contains(&record.topic)).cloned().collect();
            projection.apply(connection, &batch).await.unwrap();
        }
    }
}

/// Those that only one of them has.
fn difference(one: &BTreeSet<String>, other: &BTreeSet<String>) -> Vec<String> {
    one.symmetric_difference(other).cloned().collect()
}

#[test]
fn the_same_log_brings_the_same_rows_however_it_is_cut() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let database = runtime.block_on(Database::new());
    let connection = runtime.block_on(connect(database.pool(), "read")).unwrap();
    let connection = tokio::sync::Mutex::new(connection);
    let mut runner =
        TestRunner::new(Config { cases: 40, max_shrink_iters: 200, failure_persistence: None, ..Config::default() });
    let input = (steps(), prop::collection::vec(1..30_usize, 0..40), prop::collection::vec(1..30_usize, 0..40));
    let result = runner.run(&input, |(steps, cuts, other_cuts)| {
        let records = log(&steps);
        assert!(records.iter().any(|record| record.topic == Topic::Users));
        runtime.block_on(async {
            let connection = &mut *connection.lock().await;
            empty(connection).await;
            apply(connection, &records, &vec![1; records.len()]).await;
            let one_by_one = rows(connection).await;
            empty(connection).await;
            apply(connection, &records, &cuts).await;
            let in_batches = rows(connection).await;
            prop_assert_eq!(difference(&in_batches, &one_by_one), Vec::<String>::new(), "in batches");
            apply(connection, &records, &other_cuts).await;
            prop_assert_eq!(difference(&rows(connection).await, &one_by_one), Vec::<String>::new(), "twice");
            Ok(())
        })
    });
    drop(connection);
    result.unwrap();
}
