//! Reads the event store through the real postgres-es, so that the store stays open to that ecosystem.
//!
//! postgres-es needs an sqlx of its own, older than ours; so this is a crate of its own, with nothing but a test.

#[cfg(test)]
mod tests {
    use cqrs_es::persist::{PersistedEventRepository, PersistedEventStore};
    use cqrs_es::{Aggregate, EventStore as _};
    use domain::kernel::LogTopic;
    use domain::message::{Message, MessageEvent, Sent};
    use domain::receipt::{Receipt, ReceiptEvent, Watermarks, receipt_id};
    use event_store::{Command, Context, EventStore, Options, Reads, Workspace};
    use postgres_es::PostgresEventRepository;
    use testkit::Database;
    use uuid::Uuid;

    /// Says something and reads it.
    struct Say {
        conversation: Uuid,
        message: Uuid,
        sender: Uuid,
    }

    impl Say {
        fn sent(&self) -> Sent {
            Sent {
                sender_id: self.sender,
                kind: "text".into(),
                content: "grüß dich \u{1f600}".into(),
                reply_to: None,
                mentions: vec![self.sender],
            }
        }

        fn watermarks(&self, read_to: u64) -> Watermarks {
            Watermarks { user_id: self.sender, device_id: None, delivered_to: 1, read_to }
        }
    }

    impl Command for Say {
        type Output = ();
        type Refusal = ();

        fn topic(&self) -> LogTopic {
            LogTopic::Conversations
        }

        fn key(&self) -> Uuid {
            self.conversation
        }

        fn reads(&self, reads: &mut Reads) {
            reads.fresh::<Message>(self.message);
            reads.stream::<Receipt>(receipt_id(self.conversation, self.sender));
        }

        fn decide(&self, work: &mut Workspace<'_>) -> Result<(), ()> {
            work.emit_numbered::<Message>(self.message, MessageEvent::Sent(self.sent()));
            let receipt = receipt_id(self.conversation, self.sender);
            work.emit::<Receipt>(receipt, ReceiptEvent::Delivered(self.watermarks(0)));
            work.emit::<Receipt>(receipt, ReceiptEvent::Read(self.watermarks(1)));
            Ok(())
        }
    }

    async fn read_back<A: Aggregate>(repository: PostgresEventRepository, id: Uuid) -> Vec<A::Event> {
        let id = id.to_string();
        let rows = repository.get_events::<A>(&id).await.unwrap();
        let numbers: Vec<_> = rows.iter().map(|row| row.sequence).collect();
        assert_eq!(numbers, (1..=rows.len()).collect::<Vec<_>>());
        let store = PersistedEventStore::<_, A>::new_event_store(repository);
        let events = store.load_events(&id).await.unwrap();
        assert!(events.iter().all(|event| event.metadata["correlation_id"] == "a request"));
        events.into_iter().map(|event| event.payload).collect()
    }

    #[tokio::test]
    async fn the_real_postgres_es_reads_what_the_store_wrote() {
        let database = Database::new().await;
        let store = EventStore::open(database.pool().clone(), Options::default()).await.unwrap();
        let say = Say { conversation: Uuid::now_v7(), message: Uuid::now_v7(), sender: Uuid::now_v7() };
        let receipt = receipt_id(say.conversation, say.sender);
        let (message, sent) = (say.message, say.sent());
        let watermarks = [say.watermarks(0), say.watermarks(1)];
        let context = Context { correlation_id: Some("a request".into()), ..Context::default() };
        store.execute(say, context).await.unwrap();

        let pool = postgres_es::default_postgress_pool(&database.url()).await;
        let repository =
            || PostgresEventRepository::new(pool.clone()).with_tables("log.postgres_es_events", "snapshots");
        assert_eq!(read_back::<Message>(repository(), message).await, [MessageEvent::Sent(sent)]);
        let [delivered, read] = watermarks;
        assert_eq!(
            read_back::<Receipt>(repository(), receipt).await,
            [ReceiptEvent::Delivered(delivered), ReceiptEvent::Read(read)]
        );
    }
}
