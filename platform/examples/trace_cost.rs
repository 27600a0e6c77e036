//! What a span costs whoever makes it: where nobody wants any, where this one is not sampled, and where it is.
//!
//! `cargo run --release -p platform --example trace_cost`; figures stand in `docs/decisions/traces.md`.

use std::error::Error;
use std::hint::black_box;
use std::time::{Duration, Instant};

use platform::config::{CommonFlags, Config, ServeFlags};
use platform::traces::{self, Kind, Service, Traces};
use schemas::{Event, Record, UserChanged};
use testkit::otlp::Receiver;
use time::OffsetDateTime;
use uuid::Uuid;

const UNSAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00";
const SAMPLED: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const LOOKS: u32 = 20_000_000;
/// Fewer than have room in the queue at once, so that none is dropped.
const SPANS: u32 = 2_000;
const ROUNDS: u32 = 10;

fn record(trace: &str) -> Record {
    let user_id = Uuid::from_u128(1);
    let event = Event::UserPasswordChanged(UserChanged { user_id, at: OffsetDateTime::UNIX_EPOCH });
    Record {
        topic: event.topic(),
        shard: 3,
        position: 42,
        event_id: Uuid::from_u128(2),
        key: user_id,
        at: OffsetDateTime::UNIX_EPOCH,
        correlation: None,
        causation: None,
        trace: Some(trace.into()),
        session: None,
        event,
    }
}

fn each(what: &str, count: u32, mut one: impl FnMut()) {
    let begun = Instant::now();
    for _ in 0..count {
        one();
    }
    println!("{what}: {:.1} ns", begun.elapsed().as_secs_f64() * 1e9 / f64::from(count));
}

fn looks(what: &str) {
    let unsampled = record(UNSAMPLED);
    each(&format!("{what}, a request"), LOOKS, || {
        black_box(traces::begin("append", Kind::Internal, black_box(Some(UNSAMPLED))));
    });
    each(&format!("{what}, a record"), LOOKS, || {
        black_box(traces::Traced::of(black_box(&unsampled)));
    });
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    looks("nothing is exported");
    let receiver = Receiver::start().await?;
    let endpoint = receiver.url();
    let environment = |name: &str| (name == "OTEL_EXPORTER_OTLP_ENDPOINT").then(|| endpoint.clone().into());
    let config = Config::load_with(&CommonFlags::default(), &ServeFlags::default(), environment)?;
    let otlp = config.otlp.ok_or("no receiver is named")?;
    let exported = Traces::install(&otlp, Service { name: "cost", roles: "none", version: "0" })?;
    looks("not sampled");
    let record = record(SAMPLED);
    for _ in 0..ROUNDS {
        let wanted = receiver.spans().len() + (SPANS + SPANS / 2) as usize;
        each("sampled, a request with one attribute", SPANS, || {
            let mut span = traces::begin("append", Kind::Internal, Some(SAMPLED)).expect("it is sampled");
            span.set("parlance.command", "SendMessage");
        });
        each("sampled, a record", SPANS / 2, || {
            let traced = traces::Traced::of(&record).expect("it is sampled");
            traced.done(Kind::Consumer, "apply", "timeline", std::time::SystemTime::now(), Vec::new());
        });
        testkit::eventually("the queue is empty", Duration::from_secs(30), async || receiver.spans().len() >= wanted)
            .await;
    }
    exported.finish(Duration::from_secs(5)).await;
    println!("{} spans came", receiver.spans().len());
    Ok(())
}
