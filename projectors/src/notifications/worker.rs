//! Sends what is written down: in every process that projects, some at a time, none of them twice at once.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use platform::auth::Keyring;
use platform::config::NotificationSettings;
use platform::live::LiveBus;
use platform::traces::Span;
use reqwest::Url;
use serde_json::Value;
use sqlx::PgPool;
use time::OffsetDateTime;
use tokio::time::{MissedTickBehavior, interval, sleep, timeout};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::call::Caller;
use super::flight::{Bounds, Flight};
use super::once::Once;
use super::outbox::{self, Delivery, Room};
use super::outcome::{Outcome, wait};
use super::overflow::{self, MOST, Overflow};
use super::pace::{Pace, news};
use super::quiet::{self, Push};
use super::spread::spread;
use super::webhooks::{self, Receiver, Receivers};
use super::{push, webhook};
use crate::backoff::Backoff;

/// Deliveries of a process under way, of webhooks and of pushes by themselves: whoever runs Parlance names the webhooks,
/// and anybody the endpoints of browsers. One webhook or user that hangs holds up no other, but many together may.
const WEBHOOKS: Bounds = Bounds { all: 32, owner: 4 };
const PUSHES: Bounds = Bounds { all: 128, owner: 4 };
/// Pushes under way to one origin: those who all name one that never answers leave room for the others.
const TO_ONE_SERVICE: usize = 32;
/// How long deliveries under way are waited for at the end; others take them up later.
const FAREWELL: Duration = Duration::from_secs(1);
/// How often what waits is counted, and what is old removed.
const COUNT: Duration = Duration::from_secs(15);
const COUNTS_A_SWEEP: u32 = 40;

/// What delivering needs.
pub struct Parts {
    /// The database of shared state and read models.
    pub pool: PgPool,
    /// Knows who is connected.
    pub live: Arc<dyn LiveBus>,
    /// Opens secrets, and signs what is pushed.
    pub keyring: Keyring,
    /// What is sent, and how often.
    pub settings: NotificationSettings,
    /// Where the schemas of events are found, without a slash at the end.
    pub schema_base: String,
}

/// Sends until `shutdown`.
///
/// # Errors
/// None but those of a system without roots of trust for TLS.
pub fn deliver(parts: Parts, shutdown: CancellationToken) -> reqwest::Result<impl Future<Output = ()> + Send> {
    describe_metrics();
    let courier = Arc::new(Courier {
        to_webhooks: Caller::new(true)?,
        to_browsers: Caller::new(parts.settings.anywhere)?,
        unreadable: Mutex::default(),
        parts,
    });
    Ok(async move {
        let mut flights = Flights { webhooks: Flight::new(WEBHOOKS), pushes: Flight::new(PUSHES) };
        tokio::select! {
            () = shutdown.cancelled() => {}
            () = courier.keep_on(&mut flights) => {}
            () = courier.keep_house() => {}
        }
        if timeout(FAREWELL, flights.land()).await.is_err() {
            tracing::info!("deliveries under way are left to whoever takes them up");
        }
    })
}

struct Courier {
    parts: Parts,
    to_webhooks: Caller,
    to_browsers: Caller,
    /// The webhooks whose secrets cannot be opened.
    unreadable: Mutex<Once>,
}

/// What is under way.
struct Flights {
    webhooks: Flight,
    pushes: Flight,
}

impl Flights {
    async fn landed(&mut self) {
        tokio::select! {
            () = self.webhooks.landed() => {}
            () = self.pushes.landed() => {}
        }
    }

    async fn land(&mut self) {
        tokio::join!(self.webhooks.land(), self.pushes.land());
    }
}

impl Courier {
    async fn keep_on(self: &Arc<Self>, flights: &mut Flights) {
        let (mut backoff, mut pace) = (Backoff::default(), Pace::new(self.parts.settings.delay));
        loop {
            let news = news();
            let pause = match self.round(flights).await {
                Ok(found) => {
                    if backoff.succeeded() {
                        tracing::info!("notifications go on");
                    }
                    if found {
                        pace.quicken();
                    }
                    // Not without a look at what has landed.
                    if found { Duration::ZERO } else { pace.pause() }
                }
                Err(error) => {
                    let (wait, error): (_, &dyn std::error::Error) = (backoff.failed(), &error);
                    tracing::warn!(error, "notifications wait {wait:?}, and try again");
                    wait
                }
            };
            tokio::select! {
                () = sleep(pause) => {}
                () = flights.landed() => {}
                () = news => pace.quicken(),
            }
        }
    }

    /// Finds who is to be told, and begins what is due; whether there was anything. What is claimed is begun before
    /// anything else is asked for: it has lost a try by then.
    async fn round(self: &Arc<Self>, flights: &mut Flights) -> Result<bool, sqlx::Error> {
        let Parts { pool, live, settings, .. } = &self.parts;
        let webhooks = self.begin_webhooks(&mut flights.webhooks).await?;
        let spread = spread(pool, &**live, settings.delay, settings.max_age).await?;
        let pushes = self.begin_pushes(&mut flights.pushes).await?;
        Ok(webhooks || spread > 0 || pushes)
    }

    async fn begin_webhooks(self: &Arc<Self>, flight: &mut Flight) -> Result<bool, sqlx::Error> {
        if flight.room() == 0 {
            return Ok(false);
        }
        let Parts { pool, keyring, .. } = &self.parts;
        let Receivers { all: receivers, unreadable } = webhooks::receivers(pool, keyring).await?;
        self.say_unreadable(&unreadable);
        let rooms: Vec<(Uuid, usize)> =
            receivers.keys().map(|id| (*id, flight.room_for(*id))).filter(|(_, room)| *room > 0).collect();
        if rooms.is_empty() {
            return Ok(false);
        }
        let due = outbox::claim_webhooks(pool, flight.room(), &rooms).await?;
        let found = !due.is_empty();
        for delivery in due {
            // Claimed for those who are asked for.
            let Some(receiver) = receivers.get(&delivery.target_id).cloned() else { continue };
            let courier = Arc::clone(self);
            flight.begin(delivery.place(), async move {
                let span = delivery.attempt();
                let outcome = courier.tell(&receiver, &delivery, span.as_ref()).await;
                courier.finish(&delivery, outcome, span).await;
            });
        }
        Ok(found)
    }

    fn say_unreadable(&self, unreadable: &[Uuid]) {
        #[expect(clippy::cast_precision_loss, reason = "a gauge")]
        metrics::gauge!("parlance_webhooks_unreadable").set(unreadable.len() as f64);
        for webhook in self.unreadable.lock().news(unreadable) {
            tracing::warn!(%webhook, "the secret of webhook {webhook} cannot be opened, and it is told nothing");
        }
    }

    async fn begin_pushes(self: &Arc<Self>, flight: &mut Flight) -> Result<bool, sqlx::Error> {
        if flight.room() == 0 {
            return Ok(false);
        }
        let room = Room {
            all: flight.room(),
            user: PUSHES.owner,
            service: TO_ONE_SERVICE,
            users: flight.owners(),
            services: flight.services().into_iter().map(|(name, count)| (name.to_owned(), count)).collect(),
        };
        let Parts { pool, keyring, .. } = &self.parts;
        // Together: what cannot be looked at has not lost a try.
        let mut transaction = pool.begin().await?;
        let pushes = outbox::claim_pushes(&mut transaction, &room).await?;
        let mut looked = quiet::look(&mut transaction, keyring, &pushes).await?;
        transaction.commit().await?;
        let found = !pushes.is_empty();
        for delivery in pushes {
            let push = looked.remove(&(delivery.event_id, delivery.target_id));
            let push = push.unwrap_or(Push::Quiet("unsubscribed"));
            let courier = Arc::clone(self);
            flight.begin(delivery.place(), async move {
                let span = delivery.attempt();
                let outcome = courier.push(push, &delivery).await;
                courier.finish(&delivery, outcome, span).await;
            });
        }
        Ok(found)
    }

    async fn tell(&self, receiver: &Receiver, delivery: &Delivery, span: Option<&Span>) -> Outcome {
        let mut event = delivery.body.0.clone();
        if let Some(path) = event["dataschema"].as_str() {
            event["dataschema"] = Value::from(format!("{}{path}", self.parts.schema_base));
        }
        let Ok(url) = Url::parse(&receiver.url) else { return Outcome::Refused("its URL is none".to_owned()) };
        let own = span.map(Span::traceparent);
        let within = own.as_deref().or(delivery.traceparent());
        webhook::send(&self.to_webhooks, url, &receiver.secret, delivery.event_id, &event, within).await
    }

    async fn push(&self, push: Push, delivery: &Delivery) -> Outcome {
        let (target, content) = match push {
            Push::Send(target, content) => (target, content),
            Push::Quiet(reason) => return Outcome::Quiet(reason),
        };
        let settings = &self.parts.settings;
        if OffsetDateTime::now_utc() - delivery.at > settings.max_age {
            return Outcome::Quiet("stale");
        }
        let Ok(mut told) = serde_json::from_value::<push::Told>(delivery.body.0.clone()) else {
            return Outcome::Refused("what it was to tell cannot be read".to_owned());
        };
        if let Some(content) = content.filter(|_| settings.content) {
            told = told.saying(&content);
        }
        push::send(&self.to_browsers, self.parts.keyring.push(), settings.contact.as_deref(), &target, &told).await
    }

    /// Writes down what came of a delivery, and ends its span. What cannot be written is sent again, since nobody knows that
    /// it was taken.
    async fn finish(&self, delivery: &Delivery, outcome: Outcome, span: Option<Span>) {
        if let Some(mut span) = span {
            match &outcome {
                Outcome::Taken => {}
                Outcome::Quiet(reason) => span.set("parlance.quiet", *reason),
                Outcome::Gone => span.fail("there is no such receiver any more"),
                Outcome::Again { .. } => span.fail("it is tried again"),
                Outcome::Refused(_) => span.fail("it was not taken, and never will be"),
            }
        }
        if let Err(error) = self.conclude(delivery, outcome).await {
            let (event_id, error): (_, &dyn std::error::Error) = (delivery.event_id, &error);
            tracing::warn!(%event_id, error, "what came of a delivery of {event_id} cannot be written down");
        }
    }

    async fn conclude(&self, delivery: &Delivery, outcome: Outcome) -> Result<(), sqlx::Error> {
        let Parts { pool, settings, .. } = &self.parts;
        let (event_id, target_id, kind) = (delivery.event_id, delivery.target_id, delivery.kind.clone());
        let attempts = u32::try_from(delivery.attempts).unwrap_or(0);
        match outcome {
            Outcome::Taken => {
                delivery.done(pool).await?;
                let took = (OffsetDateTime::now_utc() - delivery.at).as_seconds_f64().max(0.0);
                metrics::histogram!("parlance_notification_seconds", "kind" => kind.clone()).record(took);
                metrics::counter!("parlance_notifications_sent_total", "kind" => kind).increment(1);
            }
            Outcome::Quiet(reason) => {
                delivery.done(pool).await?;
                metrics::counter!("parlance_notifications_quiet_total", "reason" => reason).increment(1);
            }
            Outcome::Gone if delivery.kind == "push" => {
                webhooks::forget_browser(pool, target_id).await?;
                metrics::counter!("parlance_notifications_quiet_total", "reason" => "gone").increment(1);
            }
            Outcome::Gone => {
                webhooks::set_enabled(pool, target_id, false).await?;
                delivery.bury(pool, "answered 410").await?;
                metrics::counter!("parlance_notifications_dead_total", "kind" => kind).increment(1);
                tracing::warn!(webhook = %target_id, "the webhook {target_id} says that it is gone, and is switched off");
            }
            Outcome::Again { after, error } if attempts < settings.attempts => {
                delivery.postpone(pool, wait(settings.retry, attempts, after), &error).await?;
                metrics::counter!("parlance_notifications_failed_total", "kind" => kind).increment(1);
                tracing::debug!(%event_id, target = %target_id, attempts, error, "{event_id} is delivered later");
            }
            Outcome::Again { error, .. } | Outcome::Refused(error) => {
                delivery.bury(pool, &error).await?;
                metrics::counter!("parlance_notifications_dead_total", "kind" => kind).increment(1);
                let event_type = &delivery.event_type;
                tracing::warn!(%event_id, target = %target_id, attempts, error, "{event_type} {event_id} is given up");
            }
        }
        Ok(())
    }

    /// Counts what waits, keeps it within bounds, and now and then removes what is old.
    async fn keep_house(&self) {
        let mut pace = interval(COUNT);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut too_much = HashSet::new();
        for round in 0_u32.. {
            pace.tick().await;
            let pool = &self.parts.pool;
            let kept = async {
                for (kind, count) in outbox::waiting(pool).await? {
                    #[expect(clippy::cast_precision_loss, reason = "a gauge")]
                    metrics::gauge!("parlance_notifications_waiting", "kind" => kind).set(count as f64);
                }
                self.trim(&mut too_much).await?;
                if round.is_multiple_of(COUNTS_A_SWEEP) { outbox::sweep(pool).await } else { Ok(()) }
            };
            if let Err(error) = kept.await {
                let error: &dyn std::error::Error = &error;
                tracing::debug!(error, "what waits is not counted this time");
            }
        }
    }

    /// Says of each webhook but once that it is over its bounds: where little comes, it is so now and then.
    async fn trim(&self, told: &mut HashSet<Uuid>) -> Result<(), sqlx::Error> {
        for Overflow { webhook, given_up, lost } in overflow::trim(&self.parts.pool, &MOST).await? {
            metrics::counter!("parlance_notifications_dead_total", "kind" => "webhook").increment(given_up);
            metrics::counter!("parlance_notifications_lost_total").increment(lost);
            if told.insert(webhook) {
                tracing::warn!(%webhook, "more waits for webhook {webhook} than may: the oldest is given up");
            }
        }
        Ok(())
    }
}

fn describe_metrics() {
    metrics::describe_counter!("parlance_notifications_sent_total", "Pushes and deliveries that were taken.");
    metrics::describe_counter!("parlance_notifications_failed_total", "Tries that are repeated.");
    metrics::describe_counter!("parlance_notifications_dead_total", "Pushes and deliveries that were given up.");
    metrics::describe_counter!("parlance_notifications_lost_total", "Dead letters that were too many of a webhook.");
    metrics::describe_gauge!("parlance_webhooks_unreadable", "Webhooks whose secrets cannot be opened.");
    metrics::describe_counter!("parlance_notifications_quiet_total", "Pushes that were not sent, by reason.");
    metrics::describe_gauge!("parlance_notifications_waiting", "What waits to be sent, up to 100,000 of a kind.");
    metrics::describe_histogram!("parlance_notification_seconds", "From an event to its being taken.");
}
