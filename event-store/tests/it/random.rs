//! Random commands, through two stores, against a model that is a few maps.

use std::collections::{BTreeMap, BTreeSet};

use event_store::{Context, EventStore, ExecuteError, Options};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use testkit::Database;
use uuid::Uuid;

use crate::history::History;
use crate::model::{Advance, Membership, No, OpenRoom, SecondThoughts, TakeName, Write};
use crate::open_with;

#[derive(Debug, Clone)]
enum Step {
    Open { room: usize },
    Membership { room: usize, who: usize, present: bool },
    Write { room: usize, note: usize, text: usize, by: usize },
    Advance { room: usize, mark: usize, to: u64 },
    TakeName { person: usize, name: usize },
    SecondThoughts { room: usize },
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        1 => (0..3_usize).prop_map(|room| Step::Open { room }),
        2 => (0..3_usize, 0..3_usize, any::<bool>())
            .prop_map(|(room, who, present)| Step::Membership { room, who, present }),
        6 => (0..3_usize, 0..12_usize, 0..2_usize, 0..3_usize)
            .prop_map(|(room, note, text, by)| Step::Write { room, note, text, by }),
        2 => (0..3_usize, 0..2_usize, 0..9_u64).prop_map(|(room, mark, to)| Step::Advance { room, mark, to }),
        2 => (0..3_usize, 0..4_usize).prop_map(|(person, name)| Step::TakeName { person, name }),
        1 => (0..3_usize).prop_map(|room| Step::SecondThoughts { room }),
    ]
}

/// What the store should know.
#[derive(Debug, Default)]
struct World {
    rooms: BTreeMap<usize, BTreeSet<usize>>,
    seqs: BTreeMap<usize, u64>,
    notes: BTreeMap<usize, (usize, usize, u64)>,
    marks: BTreeMap<(usize, usize), u64>,
    names: BTreeMap<usize, usize>,
}

impl World {
    fn number(&mut self, room: usize) -> u64 {
        let seq = self.seqs.entry(room).or_default();
        *seq += 1;
        *seq
    }

    /// What the step should come to: a number to compare, and whether there were events.
    fn step(&mut self, step: &Step) -> Result<(u64, bool), No> {
        match *step {
            Step::Open { room } => {
                let new = !self.rooms.contains_key(&room);
                if new {
                    self.rooms.insert(room, BTreeSet::new());
                    self.number(room);
                }
                Ok((0, new))
            }
            Step::Membership { room, who, present } => {
                let members = self.rooms.get_mut(&room).ok_or(No::Closed)?;
                let changed = if present { members.insert(who) } else { members.remove(&who) };
                if changed {
                    self.number(room);
                }
                Ok((0, changed))
            }
            Step::Write { room, note, text, by } => {
                if let Some((there, same, seq)) = self.notes.get(&note) {
                    return if (*there, *same) == (room, text) { Ok((*seq, false)) } else { Err(No::Differs) };
                }
                let members = self.rooms.get(&room).ok_or(No::Closed)?;
                if !members.contains(&by) {
                    return Err(No::NotThere);
                }
                let seq = self.number(room);
                self.notes.insert(note, (room, text, seq));
                Ok((seq, true))
            }
            Step::Advance { room, mark, to } => {
                let at = self.marks.entry((room, mark)).or_default();
                let changed = *at < to;
                *at = to.max(*at);
                Ok((*at, changed))
            }
            Step::TakeName { person, name } => match self.names.get(&name) {
                Some(owner) if *owner == person => Ok((0, false)),
                Some(_) => Err(No::Taken),
                None => {
                    self.names.retain(|_, owner| *owner != person);
                    self.names.insert(name, person);
                    Ok((0, true))
                }
            },
            Step::SecondThoughts { .. } => Err(No::Changed),
        }
    }
}

/// The ids of one run.
struct Ids(Uuid);

impl Ids {
    fn id(&self, kind: &str, n: usize) -> Uuid {
        Uuid::new_v5(&self.0, format!("{kind} {n}").as_bytes())
    }

    async fn step(&self, store: &EventStore, step: &Step) -> Result<(u64, bool), No> {
        fn told<T>(
            executed: Result<event_store::Executed<T>, ExecuteError<No>>,
            number: impl Fn(T) -> u64,
        ) -> Result<(u64, bool), No> {
            match executed {
                Ok(executed) => Ok((number(executed.output), executed.changed)),
                Err(ExecuteError::Refused(no)) => Err(no),
                Err(other) => panic!("{other}"),
            }
        }
        let context = Context::default();
        match *step {
            Step::Open { room } => told(store.execute(OpenRoom(self.id("room", room)), context).await, |_| 0),
            Step::Membership { room, who, present } => {
                let command = Membership { room: self.id("room", room), who: self.id("who", who), present };
                told(store.execute(command, context).await, |()| 0)
            }
            Step::Write { room, note, text, by } => {
                let command = Write {
                    room: self.id("room", room),
                    note: self.id("note", note),
                    text: text.to_string(),
                    by: Some(self.id("who", by)),
                };
                told(store.execute(command, context).await, |recorded| recorded.seq.unwrap_or(0))
            }
            Step::Advance { room, mark, to } => {
                let mark = self.id("mark", room * 10 + mark);
                told(store.execute(Advance { room: self.id("room", room), mark, to }, context).await, |to| to)
            }
            Step::TakeName { person, name } => {
                let name = self.id("name", name).to_string();
                let command = TakeName { person: self.id("person", person), name, blindly: false };
                told(store.execute(command, context).await, |()| 0)
            }
            Step::SecondThoughts { room } => {
                let command = SecondThoughts { room: self.id("room", room), then: || Err(No::Changed) };
                told(store.execute(command, context).await, |()| 0)
            }
        }
    }
}

#[test]
fn random_commands_come_to_what_a_model_says() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let (database, stores) = runtime.block_on(async {
        let database = Database::new().await;
        let small = Options { cached_streams: 2, cached_heads: 1, lanes: 2, ..Options::default() };
        let stores =
            [open_with(database.options(), Options::default()).await, open_with(database.options(), small).await];
        (database, stores)
    });
    let mut runner = TestRunner::new(Config { cases: 40, max_shrink_iters: 60, ..Config::default() });
    let steps = prop::collection::vec((step(), 0..2_usize), 1..60);
    let outcome = runner.run(&steps, |steps| {
        runtime.block_on(async {
            let (ids, mut world) = (Ids(Uuid::now_v7()), World::default());
            for (step, store) in &steps {
                prop_assert_eq!(ids.step(&stores[*store], step).await, world.step(step), "{:?}", step);
            }
            Ok(())
        })
    });
    runtime.block_on(History::read(&stores[0]));
    drop(database);
    outcome.unwrap();
}
