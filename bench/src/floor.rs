//! The floor of the machine in this very run: what PostgreSQL and loopback alone can do.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use sqlx::{Connection, PgConnection, postgres::PgConnectOptions};
use uuid::Uuid;

/// Rows of one commit.
const ROWS: usize = 100;
/// How long each floor is measured.
const FOR: Duration = Duration::from_secs(3);

/// What the machine can do.
#[derive(Debug, Clone, Copy)]
pub struct Floor {
    /// Rows a second, committed a hundred at a time by one client.
    pub rows_per_s: f64,
    /// One way there and back of 200 bytes, in microseconds.
    pub ping_pong_us: f64,
}

/// Measures the floor beside the server's own tables, in a table that is dropped again.
pub async fn measure(database: &PgConnectOptions) -> anyhow::Result<Floor> {
    let rows_per_s = commits(database).await?;
    let ping_pong_us = tokio::task::spawn_blocking(ping_pong).await??;
    Ok(Floor { rows_per_s, ping_pong_us })
}

#[expect(clippy::cast_precision_loss, reason = "counts of a few seconds")]
async fn commits(database: &PgConnectOptions) -> anyhow::Result<f64> {
    let mut connection = PgConnection::connect_with(database).await?;
    sqlx::raw_sql("DROP TABLE IF EXISTS bench_floor; CREATE TABLE bench_floor (id uuid, position bigint, body text)")
        .execute(&mut connection)
        .await?;
    let ids: Vec<Uuid> = (0..ROWS).map(|_| Uuid::now_v7()).collect();
    let positions: Vec<i64> = (0..).take(ROWS).collect();
    let bodies = vec!["x".repeat(200); ROWS];
    let (start, mut rows) = (Instant::now(), 0);
    while start.elapsed() < FOR {
        sqlx::query("INSERT INTO bench_floor SELECT * FROM unnest($1::uuid[], $2::bigint[], $3::text[])")
            .bind(&ids)
            .bind(&positions)
            .bind(&bodies)
            .execute(&mut connection)
            .await?;
        rows += ROWS;
    }
    let rate = rows as f64 / start.elapsed().as_secs_f64();
    sqlx::raw_sql("DROP TABLE bench_floor").execute(&mut connection).await?;
    connection.close().await?;
    Ok(rate)
}

fn ping_pong() -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let echo = std::thread::spawn(move || -> std::io::Result<()> {
        let (mut stream, _) = listener.accept()?;
        stream.set_nodelay(true)?;
        let mut bytes = [0; 200];
        while stream.read_exact(&mut bytes).is_ok() {
            stream.write_all(&bytes)?;
        }
        Ok(())
    });
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    let mut bytes = [7; 200];
    let (start, mut rounds) = (Instant::now(), 0u32);
    while start.elapsed() < FOR / 3 {
        for _ in 0..100 {
            stream.write_all(&bytes)?;
            stream.read_exact(&mut bytes)?;
        }
        rounds += 100;
    }
    let each = start.elapsed().as_secs_f64() / f64::from(rounds);
    drop(stream);
    echo.join().map_err(|_| anyhow!("the echo panicked"))?.context("the echo failed")?;
    Ok(each * 1e6)
}
