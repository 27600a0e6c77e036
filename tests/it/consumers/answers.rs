//! What the query API answers to each of some people about each of their conversations, by plain HTTP.

use futures::{StreamExt, stream};
use parlance_client::{Client, Server};
use serde_json::{Map, Value, json};

/// How many log in at once: each costs the server a password hash.
const AT_ONCE: usize = 4;

/// People who may ask.
pub(super) struct Accounts {
    clients: Vec<Client>,
    http: reqwest::Client,
}

impl Accounts {
    /// Logs them in, by name and password.
    pub(super) async fn log_in(server: &Server, names: impl Iterator<Item = (String, String)>) -> Self {
        let log_in =
            |(name, password): (String, String)| async move { server.log_in(&name, &password, None).await.unwrap() };
        let clients = stream::iter(names).map(log_in).buffered(AT_ONCE).collect().await;
        Self { clients, http: reqwest::Client::new() }
    }

    /// What of a copy is not as the API answers, in words, and nobody forgotten on either side.
    pub(super) async fn difference(&self, copy: &Value) -> Option<String> {
        let mut known = copy.as_object().unwrap().clone();
        for client in &self.clients {
            let user = client.user_id().to_string();
            let copied = known.remove(&user).unwrap_or_else(|| json!({}));
            let answered = self.seen_by(client).await;
            if copied != answered {
                return Some(first_difference(&user, &copied, &answered));
            }
        }
        (!known.is_empty()).then(|| format!("nobody asked for {:?}", known.keys()))
    }

    async fn seen_by(&self, client: &Client) -> Value {
        let mut seen = Map::new();
        for conversation in self.items(client, "conversations?").await {
            let id = conversation["conversation_id"].as_str().unwrap().to_owned();
            let path = format!("conversations/{id}");
            let view = json!({
                "conversation": self.get(client, &path).await,
                "members": self.items(client, &format!("{path}/members?")).await,
                "messages": self.items(client, &format!("{path}/messages?after=0&")).await,
                "receipts": self.items(client, &format!("{path}/receipts?")).await,
            });
            seen.insert(id, view);
        }
        Value::Object(seen)
    }

    /// All pages of a list.
    async fn items(&self, client: &Client, path: &str) -> Vec<Value> {
        let mut items = Vec::new();
        let mut cursor = String::new();
        loop {
            let page = self.get(client, &format!("{path}limit=50{cursor}")).await;
            items.extend(page["items"].as_array().unwrap().iter().cloned());
            match page["next_cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => return items,
            }
        }
    }

    async fn get(&self, client: &Client, path: &str) -> Value {
        let url = format!("{}v1/{path}", client.server().address());
        let token = client.tokens().await.access_token;
        let answer = self.http.get(&url).bearer_auth(token).send().await.unwrap();
        assert_eq!(answer.status(), 200, "{url}");
        answer.json().await.unwrap()
    }
}

/// Where the two part, as deep as they agree on the way.
fn first_difference(at: &str, copied: &Value, answered: &Value) -> String {
    match (copied, answered) {
        (Value::Object(one), Value::Object(other)) => {
            let names = one.keys().chain(other.keys());
            for name in names {
                let (one, other) = (one.get(name).unwrap_or(&Value::Null), other.get(name).unwrap_or(&Value::Null));
                if one != other {
                    return first_difference(&format!("{at}/{name}"), one, other);
                }
            }
        }
        (Value::Array(one), Value::Array(other)) if one.len() == other.len() => {
            for (n, (one, other)) in one.iter().zip(other).enumerate() {
                if one != other {
                    return first_difference(&format!("{at}/{n}"), one, other);
                }
            }
        }
        _ => {}
    }
    format!("{at}: copied {copied}, answered {answered}")
}
