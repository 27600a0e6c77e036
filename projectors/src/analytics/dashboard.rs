//! What stands under `deploy/` on these views is run here as it is there, so that it cannot rot.

use schemas::Role;
use serde_json::Value;
use sqlx::{AssertSqlSafe, Column, Connection, PgConnection, Row, TypeInfo};
use time::Duration;

use super::*;
use crate::testing::{Bench, Room, ann, ben, cleo, pass};

const DASHBOARD: &str = include_str!("../../../deploy/grafana/dashboards/analytics.json");
const SOURCE: &str = include_str!("../../../deploy/grafana/provisioning/datasources/parlance.yaml");
const READER: &str = include_str!("../../../deploy/grafana/reader.sql");
const ALERTS: &str = include_str!("../../../deploy/prometheus/parlance.rules.yaml");

/// A query of the dashboard.
struct Query {
    title: String,
    sql: String,
    is_series: bool,
}

fn queries(dashboard: &Value) -> Vec<Query> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let list = |value: &Value| value.as_array().unwrap().clone();
    let mut queries = Vec::new();
    for panel in list(&dashboard["panels"]).iter().filter(|panel| panel["type"] != "row") {
        for target in list(&panel["targets"]) {
            let is_series = target["format"] == "time_series";
            queries.push(Query { title: text(&panel["title"]), sql: text(&target["rawSql"]), is_series });
        }
    }
    for variable in list(&dashboard["templating"]["list"]) {
        queries.push(Query { title: text(&variable["name"]), sql: text(&variable["query"]), is_series: false });
    }
    queries
}

/// As Grafana does it, with a range in which everything lies.
fn expand(sql: &str, conversation: &str) -> String {
    let mut parts = sql.split("$__timeFilter(");
    let first = parts.next().unwrap().to_owned();
    let expanded = parts.fold(first, |before, part| {
        let (column, after) = part.split_once(')').unwrap();
        format!("{before}{column} BETWEEN '2020-01-01T00:00:00.001Z' AND '2100-01-01T00:00:00Z'{after}")
    });
    let expanded = expanded.replace("${conversation:sqlstring}", &format!("'{conversation}'"));
    assert!(!expanded.contains('$'), "a macro that is not known here: {expanded}");
    expanded
}

async fn filled() -> (Bench, Room) {
    let bench = Bench::new(&Analytics).await;
    let mut room = Room::new(5);
    bench.keep(room.created(&[(ann(), Role::Owner), (ben(), Role::Member), (cleo(), Role::Member)]));
    for number in 0..200 {
        bench.keep(room.said(ann()));
        pass(Duration::milliseconds(1 << (number % 20)));
        bench.keep(room.delivered(ben(), room.seq, 0));
        pass(Duration::milliseconds(1 << (number % 25)));
        bench.keep(room.read(ben(), room.seq, room.seq));
    }
    bench.apply().await;
    (bench, room)
}

#[tokio::test]
async fn every_query_of_the_dashboard_shows_something_to_the_role_that_may_read_nothing_else() {
    let (bench, room) = filled().await;
    let mut connection = bench.connection().await;
    sqlx::raw_sql(READER).execute(&mut connection).await.unwrap();
    // Again at any time.
    sqlx::raw_sql(READER).execute(&mut connection).await.unwrap();
    sqlx::raw_sql("SET SESSION AUTHORIZATION parlance_grafana; SET search_path TO DEFAULT")
        .execute(&mut connection)
        .await
        .unwrap();

    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let queries = queries(&dashboard);
    assert!(queries.len() > 15);
    for Query { title, sql, is_series } in queries {
        for (conversation, shows) in [(room.id.to_string(), true), (String::new(), !sql.contains("${conversation"))] {
            let sql = expand(&sql, &conversation);
            let rows = sqlx::query(AssertSqlSafe(sql)).fetch_all(&mut connection).await;
            let rows = rows.unwrap_or_else(|error| panic!("{title}: {error}"));
            assert_eq!(!rows.is_empty(), shows, "{title}");
            let Some(first) = rows.first() else { continue };
            let columns: Vec<_> = first.columns().iter().map(|one| (one.name(), one.type_info().name())).collect();
            assert_eq!(columns[0] == ("time", "TIMESTAMPTZ"), is_series, "{title}: {columns:?}");
            let is_value = |kind: &str| ["INT8", "FLOAT8", "NUMERIC"].contains(&kind);
            let values = if columns.len() > 1 { &columns[1..] } else { &columns[..] };
            let is_names = values == [("conversation_id", "TEXT")];
            assert!(is_names || values.iter().all(|(_, kind)| is_value(kind)), "{title}: {columns:?}");
        }
    }
    for secret in [
        "SELECT 1 FROM read.users",
        "SELECT 1 FROM read.timeline",
        "SELECT 1 FROM read.analytics_active_users",
        "SELECT 1 FROM log.shards",
        "SELECT 1 FROM state.leases",
    ] {
        let refused = sqlx::query(secret).execute(&mut connection).await.unwrap_err();
        let code = refused.as_database_error().unwrap().code().unwrap().into_owned();
        assert_eq!(code, "42501", "{secret}");
    }
    drop_reader(connection).await;
}

/// It belongs to the whole server.
async fn drop_reader(mut connection: PgConnection) {
    sqlx::raw_sql("RESET SESSION AUTHORIZATION; DROP OWNED BY parlance_grafana; DROP ROLE parlance_grafana")
        .execute(&mut connection)
        .await
        .unwrap();
    connection.close().await.unwrap();
}

#[test]
fn the_dashboard_reads_by_the_source_that_is_provisioned() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let value = |name: &str| {
        let line = SOURCE.lines().find_map(|line| line.trim_start_matches([' ', '-']).strip_prefix(name)).unwrap();
        line.trim().to_owned()
    };
    assert_eq!(value("user:"), "parlance_grafana");
    let mut sources = vec![&dashboard["templating"]["list"][0]["datasource"]];
    for panel in dashboard["panels"].as_array().unwrap().iter().filter(|panel| panel["type"] != "row") {
        sources.extend([&panel["datasource"], &panel["targets"][0]["datasource"]]);
    }
    assert!(sources.iter().all(|source| source["uid"] == *value("uid:") && source["type"] == *value("type:")));
    let mut ids: Vec<_> =
        dashboard["panels"].as_array().unwrap().iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    let panels = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), panels);
}

#[test]
fn alerts_watch_what_is_measured_and_tell_read_models_from_the_others() {
    let sources = [include_str!("../runner/lag.rs"), include_str!("../careful.rs")];
    let words = ALERTS.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let metrics: Vec<_> = words.filter(|word| word.starts_with("parlance_")).collect();
    assert!(!metrics.is_empty());
    for metric in metrics {
        assert!(sources.iter().any(|source| source.contains(&format!("\"{metric}\""))), "{metric}");
    }
    let names = crate::list();
    let read_models = names.iter().filter(|one| one.consumer == Consumer::ReadModels).map(|one| one.name);
    let pattern = read_models.collect::<Vec<_>>().join("|");
    assert!(ALERTS.contains(&format!("{{projection=~\"{pattern}\"}}")), "{pattern}");
    assert!(ALERTS.contains(&format!("{{projection!~\"{pattern}\"}}")), "{pattern}");
}
