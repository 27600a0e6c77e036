//! The store behind cqrs-es's own traits, for aggregates that are driven by its framework.

use std::collections::HashMap;
use std::marker::PhantomData;

use cqrs_es::{AggregateContext, AggregateError, EventEnvelope, EventStore as CqrsEventStore};
use domain::kernel::{LogTopic, Stored};
use uuid::Uuid;

use crate::command::{Command, Context, ExecuteError, Reads};
use crate::log::ReadError;
use crate::store::EventStore;
use crate::workspace::Workspace;

/// cqrs-es's event store of one aggregate type, whose ordering key is the aggregate's own id.
#[derive(Debug)]
pub struct CqrsStore<A> {
    store: EventStore,
    aggregate: PhantomData<fn() -> A>,
}

impl<A> CqrsStore<A> {
    /// Over a store.
    pub fn new(store: EventStore) -> Self {
        Self { store, aggregate: PhantomData }
    }
}

/// An aggregate as it was loaded.
#[derive(Debug)]
pub struct CqrsContext<A> {
    id: Uuid,
    state: A,
    sequence: u32,
}

impl<A: Stored> AggregateContext<A> for CqrsContext<A> {
    fn aggregate(&mut self) -> &mut A {
        &mut self.state
    }
}

impl<A: Stored> CqrsEventStore<A> for CqrsStore<A> {
    type AC = CqrsContext<A>;

    async fn load_events(&self, id: &str) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let id = parse(id)?;
        let events = self.store.log().events::<A>(id).await.map_err(database)?;
        let envelopes = events.iter().map(|event| {
            Ok(EventEnvelope {
                aggregate_id: event.aggregate_id.to_string(),
                sequence: usize::try_from(event.sequence)?,
                payload: event.decode::<A>(self.store.log().upcasters())?,
                metadata: match event.metadata.as_deref() {
                    Some(context) => serde_json::from_value(serde_json::to_value(context)?)?,
                    None => HashMap::new(),
                },
            })
        });
        envelopes.collect::<Result<_, _>>().map_err(AggregateError::DeserializationError)
    }

    async fn load_aggregate(&self, id: &str) -> Result<CqrsContext<A>, AggregateError<A::Error>> {
        let id = parse(id)?;
        let loaded = self.store.log().load::<A>(id).await.map_err(|error| match error {
            ReadError::Database(error) => database(error),
            ReadError::Unreadable(error) => AggregateError::DeserializationError(error.into()),
        })?;
        let (state, sequence) = loaded.unwrap_or_default();
        Ok(CqrsContext { id, state, sequence })
    }

    async fn commit(
        &self,
        events: Vec<A::Event>,
        context: CqrsContext<A>,
        metadata: HashMap<String, String>,
    ) -> Result<Vec<EventEnvelope<A>>, AggregateError<A::Error>> {
        let from = serde_json::to_value(&metadata).and_then(serde_json::from_value::<Context>);
        let from = from.map_err(|error| AggregateError::UnexpectedError(error.into()))?;
        let CqrsContext { id, sequence, .. } = context;
        let command = Append::<A> { id, sequence, events };
        let executed = self.store.execute(command, from).await.map_err(|error| match error {
            ExecuteError::Refused(Conflict) => AggregateError::AggregateConflict,
            ExecuteError::Unavailable(error) => AggregateError::DatabaseConnectionError(error.into()),
            other => AggregateError::UnexpectedError(other.into()),
        })?;
        let envelopes = (1_usize..).zip(executed.output).map(|(n, payload)| EventEnvelope {
            aggregate_id: id.to_string(),
            sequence: usize::try_from(sequence).unwrap_or(usize::MAX).saturating_add(n),
            payload,
            metadata: metadata.clone(),
        });
        Ok(envelopes.collect())
    }
}

fn parse<E: std::error::Error>(id: &str) -> Result<Uuid, AggregateError<E>> {
    id.parse().map_err(|error: uuid::Error| AggregateError::UnexpectedError(error.into()))
}

fn database<E: std::error::Error>(error: sqlx::Error) -> AggregateError<E> {
    AggregateError::DatabaseConnectionError(error.into())
}

/// Appends what was decided by a state, while that is the state.
struct Append<A: Stored> {
    id: Uuid,
    sequence: u32,
    events: Vec<A::Event>,
}

/// The state has moved on.
#[derive(Debug, thiserror::Error)]
#[error("the aggregate has changed since it was loaded")]
struct Conflict;

impl<A: Stored> Command for Append<A> {
    type Output = Vec<A::Event>;
    type Refusal = Conflict;

    fn topic(&self) -> LogTopic {
        A::TOPIC
    }

    fn key(&self) -> Uuid {
        self.id
    }

    fn reads(&self, reads: &mut Reads) {
        reads.stream::<A>(self.id);
    }

    fn decide(&self, work: &mut Workspace<'_>) -> Result<Self::Output, Conflict> {
        if work.stream::<A>(self.id).sequence != self.sequence {
            return Err(Conflict);
        }
        for event in &self.events {
            work.emit::<A>(self.id, event.clone());
        }
        Ok(self.events.clone())
    }
}
