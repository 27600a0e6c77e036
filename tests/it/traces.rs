//! One message as one trace: from the request over log, bus and projections to the device, as a receiver of OTLP sees it.

use std::{collections::BTreeSet, fs, time::Duration};

use futures::{SinkExt, StreamExt};
use parlance_client::{Client, Session, Update, Updates, text_message};
use rand::RngExt;
use schemas::Topic;
use serde_json::{Value, json};
use testkit::{
    app::Place,
    eventually, eventually_some,
    otlp::{Receiver, Span},
    receivers::{Manner, PushService, Webhook},
};
use tokio::{net::TcpListener, time::timeout};
use tokio_tungstenite::{
    connect_async,
    tungstenite::{Message as Frame, client::IntoClientRequest},
};
use uuid::Uuid;

use crate::{
    notifications::{browser, webhook, with_receivers},
    people::{everywhere, options, person, place},
};

const BOUND: Duration = Duration::from_mins(1);
const SEND: &str = "POST /v1/conversations/{conversation_id}/messages";

/// What asks, and has a trace of its own.
struct Caller {
    trace: String,
    span: String,
}

impl Caller {
    fn new() -> Self {
        let mut random = rand::rng();
        Self { trace: format!("{:032x}", random.random::<u128>()), span: format!("{:016x}", random.random::<u64>()) }
    }

    fn traceparent(&self, sampled: bool) -> String {
        format!("00-{}-{}-{:02x}", self.trace, self.span, u8::from(sampled))
    }
}

/// Says something by a request with this `traceparent`; answers the message's number.
async fn say(by: &Client, conversation: Uuid, traceparent: &str) -> u64 {
    let url = format!("{}v1/conversations/{conversation}/messages", by.server().address());
    let answer = reqwest::Client::new()
        .post(url)
        .bearer_auth(by.tokens().await.access_token)
        .header("traceparent", traceparent)
        .json(&text_message("nobody else's business"))
        .send()
        .await
        .unwrap();
    let (status, headers) = (answer.status(), answer.headers().clone());
    let body = answer.text().await.unwrap();
    assert_eq!(status, 201, "{body}");
    assert_eq!(headers["traceparent"], traceparent);
    serde_json::from_str::<Value>(&body).unwrap()["seq"].as_u64().unwrap()
}

/// Says something by a frame with this `traceparent`, on a connection of its own; answers the message's number.
async fn say_by_socket(by: &Client, conversation: Uuid, traceparent: &str) -> u64 {
    let url = format!("{}v1/ws", by.server().address()).replacen("http", "ws", 1);
    let mut request = url.into_client_request().unwrap();
    let headers = request.headers_mut();
    let bearer = format!("Bearer {}", by.tokens().await.access_token);
    headers.insert("authorization", bearer.parse().unwrap());
    headers.insert("sec-websocket-protocol", "parlance.v1".parse().unwrap());
    let (mut socket, _) = connect_async(request).await.unwrap();
    let send = json!({
        "type": "send", "ref": "1", "conversation_id": conversation, "message_id": Uuid::now_v7(),
        "content": "nobody else's business", "traceparent": traceparent,
    });
    for frame in [json!({"type": "hello"}), send] {
        socket.send(Frame::text(frame.to_string())).await.unwrap();
    }
    let answered = async {
        loop {
            let frame = socket.next().await.expect("it is answered").unwrap();
            let frame: Value = serde_json::from_str(frame.to_text().unwrap()).unwrap_or_default();
            if frame["ref"] == "1" {
                return frame["seq"].as_u64().unwrap_or_else(|| panic!("{frame}"));
            }
        }
    };
    timeout(BOUND, answered).await.expect("it is answered")
}

async fn online(client: &Client) -> (Session, Updates) {
    let (session, mut updates) = client.open_session(options()).await.unwrap();
    let synced = timeout(BOUND, async { while !matches!(updates.next().await, Some(Update::Synced)) {} });
    synced.await.expect("it has all that there is");
    (session, updates)
}

async fn hears(updates: &mut Updates, seq: u64) {
    let heard = timeout(BOUND, async {
        while !matches!(updates.next().await, Some(Update::Event(event)) if event.seq == seq) {}
    });
    heard.await.expect("it is told");
}

/// What every record of a conversation goes through.
fn projections() -> Vec<String> {
    let all = projectors::list().into_iter().filter(|about| about.topics.contains(&Topic::Conversations));
    all.map(|about| format!("apply {}", about.name)).collect()
}

fn one<'a>(spans: &'a [Span], name: &str) -> &'a Span {
    let mut named = spans.iter().filter(|span| span.name == name);
    let span = named.next().unwrap_or_else(|| panic!("no {name}"));
    // A shard that is taken over may be published and told again from a little before; nothing else is done twice.
    let may_repeat = name == "fan-out" || name.starts_with("publish ");
    assert!(may_repeat || named.next().is_none(), "{name} twice: {spans:?}");
    span
}

everywhere!(a_message_is_one_trace_from_the_request_to_the_device);

async fn a_message_is_one_trace_from_the_request_to_the_device(place: Place) {
    let receiver = Receiver::start().await.unwrap();
    let place = place.with("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url()).with("OTEL_TRACES_SAMPLER_ARG", "0");
    let apart = place.engines().is_some();
    let app = place.start().await.unwrap();
    let server = app.server();
    let (ann, ben) = (person(&server, "ann").await, person(&server, "ben").await);
    let conversation = ann.open_direct(ben.user_id()).await.unwrap().conversation_id;
    let (session, mut updates) = online(&ben).await;

    let (unseen, seen) = (Caller::new(), Caller::new());
    say(&ann, conversation, &unseen.traceparent(false)).await;
    let seq = say(&ann, conversation, &seen.traceparent(true)).await;
    hears(&mut updates, seq).await;
    let mut wanted = projections();
    assert!(wanted.len() > 2, "{wanted:?}");
    wanted.extend([SEND, "append", "publish parlance.conversations.v1", "fan-out", "deliver"].map(str::to_owned));
    eventually("the trace is whole", BOUND, async || {
        let spans = receiver.of_trace(&seen.trace);
        wanted.iter().all(|name| spans.iter().any(|span| span.name == *name))
    })
    .await;

    let spans = receiver.of_trace(&seen.trace);
    assert!(spans.iter().all(|span| wanted.contains(&span.name)), "{spans:?}");
    let (request, append) = (one(&spans, SEND), one(&spans, "append"));
    assert_eq!((&request.parent_id, &append.parent_id), (&seen.span, &request.span_id));
    assert_eq!(append.attributes["parlance.command"], "SendMessage");
    for name in wanted.iter().filter(|name| ![SEND, "append"].contains(&name.as_str())) {
        let span = one(&spans, name);
        assert_eq!(span.parent_id, append.span_id, "{name}");
        assert_eq!(span.attributes["parlance.event_type"], "message.sent");
        assert_eq!(span.attributes["parlance.position"], append.attributes["parlance.position"]);
    }
    let device = ben.identity().device_id.to_string();
    assert_eq!(one(&spans, "deliver").attributes["parlance.device_id"], device);
    for (name, role) in [
        (SEND, "command-api"),
        ("append", "command-api"),
        ("publish parlance.conversations.v1", "relay"),
        ("apply timeline", "projectors"),
        ("fan-out", "projectors"),
        ("deliver", "query-api"),
    ] {
        let span = one(&spans, name);
        assert_eq!(span.service, if apart { role } else { "parlance" }, "{name}");
        assert!(span.attributes["parlance.roles"].split(',').any(|has| has == role), "{span:?}");
    }
    // What was done before it was told before it, and nothing of it where nobody looks.
    assert_eq!(receiver.of_trace(&unseen.trace), []);
    let all = format!("{:?}", receiver.spans());
    assert!(!all.contains("business") && !all.contains("ann-"), "{all}");

    // By a frame it begins with the frame's span.
    let framed = Caller::new();
    let seq = say_by_socket(&ann, conversation, &framed.traceparent(true)).await;
    hears(&mut updates, seq).await;
    eventually("the frame's trace is whole", BOUND, async || {
        let spans = receiver.of_trace(&framed.trace);
        let to_ben = spans.iter().any(|span| span.attributes.get("parlance.device_id") == Some(&device));
        to_ben && ["send", "append"].iter().all(|name| spans.iter().any(|span| span.name == *name))
    })
    .await;
    let spans = receiver.of_trace(&framed.trace);
    let (send, append) = (one(&spans, "send"), one(&spans, "append"));
    assert_eq!((&send.parent_id, &append.parent_id), (&framed.span, &send.span_id));
    assert_eq!(send.service, if apart { "query-api" } else { "parlance" });
    let to_ben = |span: &&Span| span.name == "deliver" && span.attributes["parlance.device_id"] == device;
    assert_eq!(spans.iter().find(to_ben).map(|span| &span.parent_id), Some(&append.span_id));

    // What was not exported yet is, at the end.
    let last = Caller::new();
    say(&ann, conversation, &last.traceparent(true)).await;
    session.close().await;
    assert!(app.stop().await.unwrap().success());
    let spans = receiver.of_trace(&last.trace);
    assert!(spans.iter().any(|span| span.name == SEND), "{spans:?}");
}

everywhere!(what_webhooks_and_browsers_are_sent_is_part_of_the_trace);

async fn what_webhooks_and_browsers_are_sent_is_part_of_the_trace(place: Place) {
    let receiver = Receiver::start().await.unwrap();
    let place = with_receivers(place)
        .with("PARLANCE_PUSH_DELAY_MS", "100")
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url())
        .with("OTEL_TRACES_SAMPLER_ARG", "0");
    let apart = place.engines().is_some();
    let app = place.start().await.unwrap();
    let server = app.server();
    let (pushes, hook) = (PushService::start().await.unwrap(), Webhook::start().await.unwrap());
    let (ann, ben) = (person(&server, "ann").await, person(&server, "ben").await);
    let conversation = ann.open_direct(ben.user_id()).await.unwrap().conversation_id;
    webhook(&place, &hook, "message.sent").await;
    browser(&app, &pushes, &ben).await;

    // The first try of the webhook comes to nothing.
    hook.behave(Manner::Answers(503));
    let (unseen, seen) = (Caller::new(), Caller::new());
    say(&ann, conversation, &unseen.traceparent(false)).await;
    say(&ann, conversation, &seen.traceparent(true)).await;
    let of =
        |event: &Value, caller: &Caller| event["traceparent"].as_str().is_some_and(|is| is.contains(&caller.trace));
    let told = |caller: &Caller| hook.told().into_iter().filter(|told| of(&told.event(), caller)).collect::<Vec<_>>();
    eventually("the webhook refused", BOUND, async || !told(&seen).is_empty() && !told(&unseen).is_empty()).await;
    hook.behave(Manner::Answers(204));
    let spans_of = |name: &str| receiver.of_trace(&seen.trace).into_iter().filter(|span| span.name == name).collect();
    let (at_hook, at_browser) = eventually_some("the trace is whole", BOUND, async || {
        let (at_hook, at_browser): (Vec<Span>, Vec<Span>) = (spans_of("notify webhook"), spans_of("notify browser"));
        (at_hook.len() == 2 && at_browser.len() == 1).then_some((at_hook, at_browser))
    })
    .await;

    let spans = receiver.of_trace(&seen.trace);
    let append = one(&spans, "append");
    for span in at_hook.iter().chain(&at_browser) {
        assert_eq!(span.parent_id, append.span_id);
        assert_eq!(span.attributes["parlance.event_type"], "message.sent");
        assert_eq!(span.service, if apart { "projectors" } else { "parlance" });
    }
    let numbers: BTreeSet<&str> = at_hook.iter().map(|span| &*span.attributes["parlance.attempt"]).collect();
    assert_eq!(numbers, BTreeSet::from(["1", "2"]));
    // The receiver goes on from the try, and the browser's program from what caused the message.
    let named: BTreeSet<String> = told(&seen).into_iter().filter_map(|told| told.traceparent).collect();
    assert_eq!(named, at_hook.iter().map(|span| format!("00-{}-{}-01", seen.trace, span.span_id)).collect());
    let shown = pushes.pushed().into_iter().find(|one| of(&one.message, &seen)).expect("it was pushed");
    assert_eq!(shown.message["traceparent"], format!("00-{}-{}-01", seen.trace, append.span_id));
    assert_eq!(receiver.of_trace(&unseen.trace), []);
    assert!(app.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn requests_without_a_trace_begin_one_for_the_share_that_is_wanted() {
    let receiver = Receiver::start().await.unwrap();
    let place = place()
        .with("OTEL_EXPORTER_OTLP_ENDPOINT", &receiver.url())
        .with("OTEL_TRACES_SAMPLER_ARG", "1")
        .with("OTEL_SERVICE_NAME", "chat");
    let app = place.start().await.unwrap();
    let ann = person(&app.server(), "ann").await;
    ann.me().await.unwrap();
    let roots = ["POST /v1/users", "POST /v1/sessions", "GET /v1/users/me"];
    eventually("each request is a trace", BOUND, async || {
        roots.iter().all(|name| receiver.spans().iter().any(|span| span.name == *name && span.parent_id.is_empty()))
    })
    .await;
    assert!(receiver.spans().iter().all(|span| span.service == "chat"));
    assert!(app.stop().await.unwrap().success());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_receiver_that_is_away_or_silent_hinders_nothing() {
    // One takes connections and never answers; of the other only the port is known.
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let away = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for address in [silent.local_addr().unwrap(), away] {
        let place = place().with("OTEL_EXPORTER_OTLP_ENDPOINT", &format!("http://{address}"));
        let app = place.start().await.unwrap();
        let server = app.server();
        let (ann, ben) = (person(&server, "ann").await, person(&server, "ben").await);
        let conversation = ann.open_direct(ben.user_id()).await.unwrap().conversation_id;
        let (session, mut updates) = online(&ben).await;
        for _ in 0..20 {
            let seq = say(&ann, conversation, &Caller::new().traceparent(true)).await;
            hears(&mut updates, seq).await;
        }
        let warned = || fs::read_to_string(place.log()).unwrap().matches("takes no spans").count();
        eventually("it says that spans are lost", BOUND, async || warned() > 0).await;
        session.close().await;
        assert!(app.stop().await.unwrap().success(), "in the time that a stop may take");
        assert_eq!(warned(), 1, "once, and not for each batch");
    }
}
