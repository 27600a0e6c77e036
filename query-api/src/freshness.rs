//! Read-your-writes: `Min-Position` waits for the read model, `Position` says how far the answer goes.

use std::time::Duration;

use axum::extract::{FromRef, FromRequestParts};
use axum::response::{IntoResponse, Response};
use http::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use http::request::Parts;
use platform::applied::AppliedPositions;
use platform::cache::Kept;
use platform::http::Problem;
use schemas::{Position, PositionToken, Topic};
use serde::Serialize;
use utoipa::IntoParams;
use uuid::Uuid;

use crate::state::QueryState;

/// How long a query waits for its read model.
pub(crate) const WAIT: Duration = Duration::from_millis(300);
/// How many positions one request may name.
const MAX_TOKENS: usize = 16;

const POSITION: HeaderName = HeaderName::from_static("position");
const POSITION_STALE: HeaderName = HeaderName::from_static("position-stale");
const MIN_POSITION: &str = "min-position";
const PREFER: &str = "prefer";

/// The headers by which a client asks for an answer that is not older than what it knows.
#[derive(IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "documents the headers; they are read by hand")]
pub(crate) struct FreshnessHeaders {
    /// Positions that the answer has to include, at most 16, comma-separated.
    #[param(rename = "Min-Position", required = false, example = "c3.1042")]
    min_position: String,
    /// `strict`: rather no answer (503) than one that is older than `Min-Position`.
    #[param(rename = "Prefer", required = false, example = "strict")]
    prefer: String,
}

/// What a request asked of the answer's age, and whether the read model has got there; waits while it is extracted.
pub(crate) struct Freshness {
    state: QueryState,
    /// What the answer has to include.
    wanted: Vec<Position>,
    stale: bool,
}

impl<S> FromRequestParts<S> for Freshness
where
    S: Send + Sync,
    QueryState: FromRef<S>,
{
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let state = QueryState::from_ref(state);
        let places = wanted(&parts.headers)?;
        let too_old = !places.is_empty() && !state.reached(&places, WAIT).await;
        if too_old && strict(&parts.headers) {
            return Err(Problem::unavailable("the read model has not reached Min-Position yet"));
        }
        Ok(Self { state, wanted: places, stale: too_old })
    }
}

impl Freshness {
    /// Whether an answer that has so much is as new as is asked for, in what it is made from.
    pub(crate) fn is_met_by(&self, scope: &Scope, as_of: &PositionToken) -> bool {
        let covers = |wanted: &Position| {
            let mut places = as_of.places().iter();
            places.any(|place| {
                (place.topic, place.shard) == (wanted.topic, wanted.shard) && place.position >= wanted.position
            })
        };
        !self.stale && self.wanted.iter().filter(|wanted| scope.has(wanted)).all(covers)
    }

    /// Begins an answer from what a user owns. To be called before the data are read, so that `Position` is never
    /// ahead of them.
    pub(crate) fn of_user(self, user_id: Uuid) -> Answer {
        self.of_key(Topic::Users, user_id)
    }

    /// Begins an answer from one conversation; before the data are read.
    pub(crate) fn of_conversation(self, conversation_id: Uuid) -> Answer {
        self.of_key(Topic::Conversations, conversation_id)
    }

    /// Begins an answer from anything of a topic; before the data are read.
    pub(crate) fn of_all(self, topic: Topic) -> Answer {
        Answer { position: shown(topic, &self.state.applied().all(topic)), stale: self.stale }
    }

    fn of_key(self, topic: Topic, key: Uuid) -> Answer {
        let shard = self.state.shard_of(key);
        let position = self.state.applied().get(topic, shard);
        Answer { position: Position { topic, shard, position }.into(), stale: self.stale }
    }
}

/// Which shards an answer is made from.
#[derive(Clone, Debug, Default)]
pub(crate) struct Scope {
    topics: Vec<Topic>,
    shards: Vec<(Topic, u16)>,
}

impl Scope {
    /// With every shard of a topic.
    pub(crate) fn with_all(mut self, topic: Topic) -> Self {
        self.topics.push(topic);
        self
    }

    /// With one shard.
    pub(crate) fn with(mut self, topic: Topic, shard: u16) -> Self {
        self.shards.push((topic, shard));
        self
    }

    fn has(&self, place: &Position) -> bool {
        self.topics.contains(&place.topic) || self.shards.contains(&(place.topic, place.shard))
    }

    /// How far they have been applied, without those where nothing was yet.
    pub(crate) fn applied(&self, applied: &AppliedPositions) -> PositionToken {
        let all = self.topics.iter().flat_map(|topic| applied.all(*topic).places().to_vec());
        let single = |&(topic, shard): &(Topic, u16)| Position { topic, shard, position: applied.get(topic, shard) };
        all.chain(self.shards.iter().map(single).filter(|place| place.position > 0)).collect()
    }
}

/// An answer that knows how far the read model had got before it was read.
pub(crate) struct Answer {
    position: PositionToken,
    stale: bool,
}

impl Answer {
    /// One from what has got so far, before it is read.
    pub(crate) fn at(position: PositionToken, stale: bool) -> Self {
        Self { position, stale }
    }

    /// The whole answer.
    pub(crate) fn json(self, body: &impl Serialize) -> Result<Response, Problem> {
        Ok(self.written(json(body)?))
    }

    /// The whole answer, and its body to be kept.
    pub(crate) fn json_to_keep(self, body: &impl Serialize) -> Result<(Response, Vec<u8>), Problem> {
        let body = json(body)?;
        Ok((self.written(body.clone()), body))
    }

    /// An answer about a topic that was kept.
    pub(crate) fn again(topic: Topic, kept: Kept) -> Response {
        Self { position: shown(topic, &kept.as_of), stale: false }.written(kept.body)
    }

    fn written(self, json: Vec<u8>) -> Response {
        let mut response = ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], json).into_response();
        let headers = response.headers_mut();
        if let Ok(position) = HeaderValue::try_from(self.position.to_string()) {
            headers.insert(POSITION, position);
        }
        if self.stale {
            headers.insert(POSITION_STALE, HeaderValue::from_static("true"));
        }
        response
    }
}

/// What of a topic a token has.
fn shown(topic: Topic, token: &PositionToken) -> PositionToken {
    let of_topic: PositionToken = token.places().iter().filter(|place| place.topic == topic).copied().collect();
    // Nothing was applied yet, which is a position too.
    if of_topic.places().is_empty() { Position { topic, shard: 0, position: 0 }.into() } else { of_topic }
}

fn json(body: &impl Serialize) -> Result<Vec<u8>, Problem> {
    let mut json = Vec::with_capacity(1024);
    serde_json::to_writer(&mut json, body).map_err(|error| {
        tracing::error!(%error, "an answer does not become JSON");
        Problem::unavailable("the answer could not be written")
    })?;
    Ok(json)
}

/// All places that `Min-Position` names.
pub(crate) fn wanted(headers: &HeaderMap) -> Result<Vec<Position>, Problem> {
    let refuse = |detail: &str| Problem::invalid_parameter("Min-Position", detail);
    let mut places = Vec::new();
    let mut tokens = 0;
    for header in headers.get_all(MIN_POSITION) {
        let text = header.to_str().map_err(|_| refuse("not a position"))?;
        for token in text.split(',').map(str::trim).filter(|token| !token.is_empty()) {
            tokens += 1;
            if tokens > MAX_TOKENS {
                return Err(refuse("more than 16 positions"));
            }
            let token: PositionToken = token.parse().map_err(|_| refuse("not a position that this server gave out"))?;
            places.extend_from_slice(token.places());
        }
    }
    if tokens == 0 && headers.contains_key(MIN_POSITION) {
        return Err(refuse("no position"));
    }
    Ok(places)
}

/// Whether `Prefer` (RFC 7240) holds `strict`.
pub(crate) fn strict(headers: &HeaderMap) -> bool {
    let preferences = headers.get_all(PREFER).into_iter().filter_map(|header| header.to_str().ok());
    preferences
        .flat_map(|text| text.split(','))
        .any(|preference| preference.split(';').next().is_some_and(|name| name.trim().eq_ignore_ascii_case("strict")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(name: &'static str, values: &[&'static str]) -> HeaderMap {
        values.iter().map(|value| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn several_positions_come_in_one_header_or_several() {
        let places = wanted(&headers(MIN_POSITION, &["c3.7, u0.2~u1.9", "c4.1"])).unwrap();
        assert_eq!(places.iter().map(Position::to_string).collect::<Vec<_>>(), ["c3.7", "u0.2", "u1.9", "c4.1"]);
    }

    #[test]
    fn what_is_no_position_is_refused() {
        let many: &'static str = "c1.1,c1.1,c1.1,c1.1,c1.1,c1.1,c1.1,c1.1,c1.1,c1.1,c1.1,c1.1,c1.1,c1.1,c1.1,c1.1,c1.1";
        for text in ["", ",", "x", "c1", "c1.1 c2.2", many] {
            assert!(wanted(&headers(MIN_POSITION, &[text])).is_err(), "{text}");
        }
        assert_eq!(wanted(&headers(MIN_POSITION, &[&many[5..]])).unwrap().len(), 16);
        assert!(wanted(&HeaderMap::new()).unwrap().is_empty());
    }

    #[test]
    fn strict_may_stand_among_other_preferences() {
        assert!(strict(&headers(PREFER, &["respond-async, Strict"])));
        assert!(strict(&headers(PREFER, &["wait=1", "strict; x=y"])));
        assert!(!strict(&headers(PREFER, &["strictly", "handling=strict"])));
    }
}
