//! What people did stands in the views of analytics, and again after a rebuild.

use parlance_client::{AdvanceReceipt, text_message};
use serde_json::Value;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use testkit::{app::Place, eventually};

use crate::people::{BOUND, everywhere, person};

const MESSAGES: u64 = 7;
const VIEWS: [&str; 4] = ["daily_active_users", "messages_by_hour", "delivery_delays", "read_delays"];

everywhere!(the_views_of_analytics_count_what_people_did);

async fn the_views_of_analytics_count_what_people_did(place: Place) {
    let app = place.start().await.unwrap();
    let server = app.server();
    let (ann, ben, cleo) = (person(&server, "ann").await, person(&server, "ben").await, person(&server, "cleo").await);
    let group = ann.create_group("two of three talk", vec![ben.user_id(), cleo.user_id()]).await.unwrap();
    let group = group.conversation_id;
    let mut head = 0;
    for number in 0..MESSAGES {
        head = ann.send(group, &text_message(format!("message {number}"))).await.unwrap().seq;
    }
    let to = |delivered_to, read_to| AdvanceReceipt { delivered_to, read_to };
    ben.mark(group, &to(Some(head), None)).await.unwrap();
    ben.mark(group, &to(None, Some(head - 2))).await.unwrap();
    cleo.mark(group, &to(None, Some(head))).await.unwrap();

    let mut database = PgConnection::connect_with(&app.database().await.unwrap()).await.unwrap();
    // Others have their own; Ben did not read two. Cleo's device said nothing of delivery: that she read says it.
    let counts = "SELECT (SELECT sum(messages) FROM read.messages_by_hour WHERE conversation_id = $1)::bigint, \
                         (SELECT sum(deliveries) FROM read.delivery_delays WHERE conversation_id = $1)::bigint, \
                         (SELECT sum(reads) FROM read.read_delays WHERE conversation_id = $1)::bigint, \
                         (SELECT sum(users) >= 3 FROM read.daily_active_users WHERE conversation_id = $1)";
    let messages = i64::try_from(MESSAGES).unwrap();
    eventually("analytics count it", BOUND, async || {
        let counted: (Option<i64>, Option<i64>, Option<i64>, Option<bool>) =
            sqlx::query_as(counts).bind(group).fetch_one(&mut database).await.unwrap();
        counted == (Some(messages), Some(2 * messages), Some(2 * messages - 2), Some(true))
    })
    .await;

    let before = all(&mut database).await;
    for _ in 0..2 {
        let output = app.place().command(&["rebuild", "analytics"]).output().await.unwrap();
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(all(&mut database).await, before);
    }
    database.close().await.unwrap();
    assert!(app.stop().await.unwrap().success());
}

/// All rows of all views.
async fn all(database: &mut PgConnection) -> Vec<Value> {
    let mut rows = Vec::new();
    for view in VIEWS {
        let query = format!("SELECT to_jsonb(v) FROM read.{view} v ORDER BY to_jsonb(v)");
        let found: Vec<Value> = sqlx::query_scalar(AssertSqlSafe(query)).fetch_all(&mut *database).await.unwrap();
        assert!(!found.is_empty(), "{view}");
        rows.extend(found);
    }
    rows
}
