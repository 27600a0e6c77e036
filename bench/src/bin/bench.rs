//! Measures a Parlance that it starts itself, on a fresh data directory, and prints what it found beside what it must
//! reach. Fails when a message was lost, doubled or out of order, however fast it was.

use std::{
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bench::{
    backlog, catch_up, consumers,
    floor::{self, Floor},
    idle,
    pairs::{Load, Pace, Pairs, Seen},
    process::{Cpu, Watch},
    rebuild, takeover, transactions,
};
use clap::Parser;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use testkit::app::{Place, Role, RolesApart};

/// The floor on the machine whose figures the targets are: rows a second, a hundred a commit, from one client.
const REFERENCE_ROWS_PER_S: f64 = 180_000.0;

/// Measures Parlance: throughput, latency, CPU, memory, catch-up, and the floor of the machine in the same run.
#[derive(Debug, Parser)]
struct Options {
    /// The binary to measure; else the one beside this program.
    #[arg(long, env = "PARLANCE_BIN")]
    binary: Option<PathBuf>,
    /// Roles apart on real PostgreSQL, Kafka and Redis, behind nginx, instead of everything in one process.
    #[arg(long)]
    stack: bool,
    /// What to measure; else all that there is for one process, or for the stack.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
    /// Events that pile up for relays and projectors.
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1000..=10_000_000))]
    backlog: u32,
    /// Pairs of users.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u16).range(1..=1000))]
    pairs: u16,
    /// How many sends of each sender are under way at saturation.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=200))]
    under_way: u16,
    /// How long saturation and each rate are measured.
    #[arg(long, default_value_t = 15, value_parser = clap::value_parser!(u64).range(1..=600))]
    seconds: u64,
    /// The fixed rates, in messages a second.
    #[arg(long, value_delimiter = ',', default_value = "200,1000", value_parser = clap::value_parser!(u32).range(1..=100_000))]
    rates: Vec<u32>,
    /// Idle connections.
    #[arg(long, default_value_t = 2000, value_parser = clap::value_parser!(u16).range(10..=20_000))]
    idle: u16,
    /// Messages that a device missed.
    #[arg(long, default_value_t = 10_000, value_parser = clap::value_parser!(u64).range(10..=1_000_000))]
    missed: u64,
    /// Print nothing but JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Workload {
    Idle,
    Saturation,
    Rates,
    CatchUp,
    /// Every consumer of the topics, at a rate that all must keep up with.
    Consumers,
    /// Relays from a backlog into Kafka.
    Drain,
    /// Projectors from a backlog into the read models.
    Projections,
    /// All read models are filled anew, under traffic.
    Rebuild,
    /// Somebody is killed, and another takes over.
    Takeover,
}

/// Messages a second while read models are filled anew.
const REBUILD_RATE: u32 = 500;
/// Messages a second for the consumers; so many that receipts are coalesced to a tenth as many events.
const CONSUMERS_RATE: u32 = 6_000;
/// Events a second that consumers must keep up with.
const CONSUMED_PER_S: f64 = 5_000.0;

impl Workload {
    /// Those of one process.
    const ALONE: [Self; 5] = [Self::Idle, Self::Saturation, Self::Rates, Self::Consumers, Self::CatchUp];
    /// Those of the stack.
    const APART: [Self; 8] = [
        Self::Rates,
        Self::Saturation,
        Self::Consumers,
        Self::CatchUp,
        Self::Drain,
        Self::Projections,
        Self::Rebuild,
        Self::Takeover,
    ];
}

/// A line of the table: what, how much, and what it must reach.
struct Line {
    what: String,
    value: f64,
    unit: &'static str,
    target: Option<Target>,
}

#[derive(Clone, Copy)]
enum Target {
    AtLeast(f64),
    AtMost(f64),
}

impl Target {
    fn is_met(self, value: f64) -> bool {
        match self {
            Self::AtLeast(bound) => value >= bound,
            Self::AtMost(bound) => value <= bound,
        }
    }
}

/// What was found, in the order in which it was.
#[derive(Default)]
struct Report {
    lines: Vec<Line>,
}

impl Report {
    fn add(&mut self, what: impl Into<String>, value: f64, unit: &'static str, target: Option<Target>) {
        let what = what.into();
        eprintln!("{what}: {value:.3} {unit}");
        self.lines.push(Line { what, value, unit, target });
    }

    fn table(&self) -> String {
        let lines = self.lines.iter().map(|Line { what, value, unit, target }| {
            let target = target.map_or(String::new(), |target| {
                let (sign, bound) = match target {
                    Target::AtLeast(bound) => ('≥', bound),
                    Target::AtMost(bound) => ('≤', bound),
                };
                format!("{sign} {bound:<10.3} {}", if target.is_met(*value) { "reached" } else { "MISSED" })
            });
            format!("{what:<64} {value:>12.3} {unit:<10} {target}")
        });
        lines.collect::<Vec<_>>().join("\n")
    }

    fn json(&self) -> Value {
        let lines = self.lines.iter().map(|Line { what, value, unit, target }| {
            let target = target.map(|target| match target {
                Target::AtLeast(bound) => json!({"at_least": bound, "reached": target.is_met(*value)}),
                Target::AtMost(bound) => json!({"at_most": bound, "reached": target.is_met(*value)}),
            });
            json!({"what": what, "value": value, "unit": unit, "target": target})
        });
        Value::Array(lines.collect())
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    match run(Options::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(options: Options) -> anyhow::Result<()> {
    let binary = match &options.binary {
        Some(binary) => binary.clone(),
        None => std::env::current_exe()?.with_file_name("parlance"),
    };
    ensure!(
        binary.is_file(),
        "there is no {}: build it with `cargo build --release`, or name it with --binary",
        binary.display()
    );
    bench::process::allow_open_files()?;
    let place = if options.stack {
        // As `cargo xtask up --stack` has it: its processes share the cores, and threads that look for work take them from
        // others.
        let threads = std::thread::available_parallelism()?.get() / RolesApart::count();
        Place::on_stack(binary).await?.with("TOKIO_WORKER_THREADS", &threads.max(1).to_string())
    } else {
        Place::new(binary)?
    };
    let outcome = measure(&options, &place).await;
    let report = outcome.with_context(|| format!("the server's log ends with:\n{}", place.log_end()))?;
    if options.json {
        println!("{:#}", report.json());
    } else {
        println!("{}\n{}", report.table(), report.json());
    }
    Ok(())
}

async fn measure(options: &Options, place: &Place) -> anyhow::Result<Report> {
    let mut report = Report::default();
    let all: &[Workload] = if options.stack { &Workload::APART } else { &Workload::ALONE };
    let asked = |workload| all.contains(&workload) && (options.only.is_empty() || options.only.contains(&workload));
    let mut app = place.start().await?;
    if asked(Workload::Idle) {
        eprintln!("logging {} devices in", options.idle);
        let kib = idle::measure(&mut app, options.idle.into()).await?;
        report.add(format!("memory an idle connection, of {}", options.idle), kib, "KiB", Some(Target::AtMost(12.0)));
    }

    let database = app.database().await?;
    let floor = floor::measure(&database).await?;
    report.add("floor: rows committed, 100 a commit, one client", floor.rows_per_s, "rows/s", None);
    report.add("floor: loopback ping-pong of 200 bytes", floor.ping_pong_us, "µs", None);

    let watch = Watch(app.watched()?);
    let mut gauge = Gauge { watch, connection: PgConnection::connect_with(&database).await? };
    if [Workload::Saturation, Workload::Rates, Workload::Consumers, Workload::Rebuild].into_iter().any(asked) {
        eprintln!("setting {} pairs up", options.pairs);
        let mut pairs = Pairs::set_up(&app.server(), options.pairs.into()).await?;
        let window = Duration::from_secs(options.seconds);
        if asked(Workload::Saturation) {
            let closed = Pace::Closed { under_way: options.under_way.into() };
            let measured = gauge.workload(pairs, closed, window).await?;
            saturation(&mut report, &measured, (!options.stack).then_some(floor));
            pairs = measured.pairs;
        }
        for &rate in options.rates.iter().filter(|_| asked(Workload::Rates)) {
            let measured = gauge.workload(pairs, Pace::Open { per_second: rate }, window).await?;
            fixed_rate(&mut report, &measured, rate, options.stack);
            pairs = measured.pairs;
        }
        if asked(Workload::Consumers) {
            let mut connection = PgConnection::connect_with(&database).await?;
            let talk = gauge.workload(pairs, Pace::Open { per_second: CONSUMERS_RATE }, window);
            let (measured, followed) = tokio::try_join!(talk, consumers::follow(&mut connection, window))?;
            kept_up(&mut report, &followed);
            pairs = measured.pairs;
        }
        if asked(Workload::Rebuild) {
            let reader = rebuild::Reader::prepare(&app).await?;
            let command = place.command(&["rebuild", "all"]);
            let talk = gauge.workload(pairs, Pace::Open { per_second: REBUILD_RATE }, window);
            let (measured, rebuilt) = tokio::try_join!(talk, reader.while_rebuilt(command))?;
            let what = |what: &str| format!("rebuild of all under {REBUILD_RATE}/s: {what}");
            report.add(what("took"), rebuilt.took.as_secs_f64(), "s", None);
            report.add(what("whole reads meanwhile"), rebuilt.reads.into(), "reads", None);
            report.add(what("p50"), measured.seen.p50_ms, "ms", None);
            report.add(what("p99"), measured.seen.p99_ms, "ms", None);
            pairs = measured.pairs;
        }
        eprintln!("reading and checking the histories");
        let summary = pairs.check().await.context("the history checker found what should never be")?;
        eprintln!("the histories are right: {summary:?}");
    }
    if asked(Workload::CatchUp) {
        eprintln!("sending {} messages to one who is away", options.missed);
        let times = catch_up::measure(&app.server(), options.missed).await?;
        let bound = (options.missed == 10_000).then_some(Target::AtMost(0.2));
        report.add(
            format!("{} messages caught up, the first time", options.missed),
            times[0].as_secs_f64(),
            "s",
            bound,
        );
        let mut sorted = times.clone();
        sorted.sort_unstable();
        report.add(format!("the same, median of {}", sorted.len()), sorted[sorted.len() / 2].as_secs_f64(), "s", bound);
    }
    sizes(&mut report, &mut gauge.connection).await?;
    gauge.connection.close().await?;
    if asked(Workload::Drain) {
        eprintln!("piling up {} events for relays", options.backlog);
        let drained = backlog::drain(&mut app, options.backlog as usize).await?;
        report.add("relays: drained into Kafka", drained.per_s(), "events/s", Some(Target::AtLeast(50_000.0)));
        used(&mut report, "relays", &drained.cpu, drained.events);
    }
    if asked(Workload::Projections) {
        eprintln!("piling up {} events for projectors", options.backlog);
        let projected = backlog::project(&mut app, options.backlog as usize).await?;
        let bound = Some(Target::AtLeast(10_000.0));
        report.add("projectors: applied from a backlog", projected.per_s(), "events/s", bound);
        used(&mut report, "projectors", &projected.cpu, projected.events);
    }
    if asked(Workload::Takeover) {
        for (name, role) in [("relay", Role::Relay), ("projector", Role::Projectors), ("gateway", Role::QueryApi)] {
            eprintln!("killing a {name}");
            let silence = takeover::measure(&mut app, role).await?;
            let what = format!("a killed {name}: the longest silence");
            report.add(what, silence.as_secs_f64(), "s", Some(Target::AtMost(5.0)));
        }
    }
    let status = app.stop().await?;
    ensure!(status.success(), "the server ended with {status}");
    Ok(report)
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
/// Whoever does not keep up falls back: at the end by more than a second's events beyond where it was before.
fn kept_up(report: &mut Report, followed: &consumers::Followed) {
    let rate = followed.events_per_s;
    report.add("consumers: events that came", rate, "events/s", Some(Target::AtLeast(CONSUMED_PER_S)));
    for (name, behind) in &followed.consumers {
        let bound = Some(Target::AtMost(behind.earlier + rate));
        report.add(format!("consumers: {name} behind, on average later on"), behind.later, "events", bound);
        report.add(format!("consumers: {name} behind, at most"), behind.most as f64, "events", None);
    }
}

/// What an event takes on disk, with its indexes: in the log, and in all read models together.
async fn sizes(report: &mut Report, connection: &mut PgConnection) -> anyhow::Result<()> {
    for (what, schema) in [("the log", "log"), ("the read models", "read")] {
        let bytes: f64 = sqlx::query_scalar(
            "SELECT sum(pg_total_relation_size(c.oid))::float8 / greatest(1, (SELECT sum(head) FROM log.shards))::float8 \
               FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace WHERE n.nspname = $1 AND c.relkind = 'r'",
        )
        .bind(schema)
        .fetch_one(&mut *connection)
        .await?;
        report.add(format!("an event in {what}"), bytes, "bytes", None);
    }
    Ok(())
}

/// What is read at the beginning and the end of a window.
struct Gauge {
    watch: Watch,
    connection: PgConnection,
}

struct Measured {
    pairs: Pairs,
    seen: Seen,
    cpu: Cpu,
    transactions: u64,
}

impl Gauge {
    async fn workload(&mut self, pairs: Pairs, pace: Pace, window: Duration) -> anyhow::Result<Measured> {
        eprintln!("{pace:?} for {window:?}");
        let load: Load = pairs.start(pace).await?;
        // Caches, connections and the read models' pace are to be as they are in life.
        tokio::time::sleep(window / 5).await;
        let (before, cpu_before, from) =
            (transactions::next(&mut self.connection).await?, self.watch.cpu()?, Instant::now());
        tokio::time::sleep(window).await;
        let (after, cpu_after, to) =
            (transactions::next(&mut self.connection).await?, self.watch.cpu()?, Instant::now());
        let pairs = load.finish().await?;
        let seen = pairs.seen(from, to);
        ensure!(seen.delivered > 0, "nothing was delivered");
        Ok(Measured { pairs, seen, cpu: cpu_after.since(&cpu_before), transactions: after - before })
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
fn per_message(value: f64, seen: &Seen) -> f64 {
    value / seen.delivered as f64
}

/// What each kind of process used for a thousand of something.
#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
fn used(report: &mut Report, what: &str, cpu: &Cpu, count: u64) {
    for (name, seconds) in cpu.servers.iter().chain(&cpu.engines) {
        report.add(format!("{what}: CPU of {name}"), 1000.0 * seconds / count as f64, "s/1000", None);
    }
}

/// With targets for one process, where the machine's floor is given.
#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
fn saturation(report: &mut Report, Measured { seen, cpu, transactions, .. }: &Measured, floor: Option<Floor>) {
    let scale = floor.map(|floor| floor.rows_per_s / REFERENCE_ROWS_PER_S);
    let rate = seen.delivered as f64 / seen.seconds;
    report.add("saturation: delivered", rate, "messages/s", scale.map(|scale| Target::AtLeast(6000.0 * scale)));
    let cpu_per_1000 = |seconds| 1000.0 * per_message(seconds, seen);
    let bound = scale.map(|scale| Target::AtMost(0.25 / scale));
    if floor.is_none() {
        used(report, "saturation", cpu, seen.delivered as u64);
    }
    report.add(
        "saturation: CPU of server and PostgreSQL",
        cpu_per_1000(cpu.server() + cpu.engine("postgres")),
        "s/1000",
        bound,
    );
    report.add("saturation: CPU of the server", cpu_per_1000(cpu.server()), "s/1000", None);
    report.add("saturation: CPU of PostgreSQL", cpu_per_1000(cpu.engine("postgres")), "s/1000", None);
    report.add("saturation: CPU of the load generator", 1e6 * per_message(cpu.load, seen), "µs/message", None);
    let writes = per_message(*transactions as f64, seen);
    let bound = floor.map(|_| Target::AtMost(0.1));
    report.add("saturation: write transactions", writes, "a message", bound);
    report.add("saturation: p50", seen.p50_ms, "ms", None);
    report.add("saturation: p99", seen.p99_ms, "ms", None);
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few minutes")]
fn fixed_rate(report: &mut Report, Measured { seen, cpu, transactions, .. }: &Measured, rate: u32, stack: bool) {
    let (p50, p99) = match (stack, rate) {
        (false, 1000) => (Some(Target::AtMost(2.0)), Some(Target::AtMost(8.0))),
        // Commit, Kafka, gateway, device.
        (true, 200) => (Some(Target::AtMost(10.0)), Some(Target::AtMost(50.0))),
        _ => (None, None),
    };
    report.add(format!("{rate}/s: delivered"), seen.delivered as f64 / seen.seconds, "messages/s", None);
    report.add(format!("{rate}/s: p50 from the intended time"), seen.p50_ms, "ms", p50);
    report.add(format!("{rate}/s: p99 from the intended time"), seen.p99_ms, "ms", p99);
    report.add(format!("{rate}/s: slowest"), seen.max_ms, "ms", None);
    if stack {
        used(report, &format!("{rate}/s"), cpu, seen.delivered as u64);
    }
    let both = 1000.0 * per_message(cpu.server() + cpu.engine("postgres"), seen);
    report.add(format!("{rate}/s: CPU of server and PostgreSQL"), both, "s/1000", None);
    let writes = per_message(*transactions as f64, seen);
    report.add(format!("{rate}/s: write transactions"), writes, "a message", None);
}
