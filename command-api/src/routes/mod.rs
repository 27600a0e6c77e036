//! The REST commands, one file an endpoint: what it takes, what it refuses, its documentation and its tests.

pub(crate) mod conversations;
pub(crate) mod sessions;
pub(crate) mod users;
mod ws_tickets;

use axum::Router;
use utoipa::openapi::security::{Http, HttpAuthScheme, SecurityScheme};
use utoipa::openapi::{ComponentsBuilder, InfoBuilder, OpenApi, OpenApiBuilder};
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use crate::service::Service;

/// All commands, to be hung in `platform::http::frame`.
pub fn router(service: Service) -> Router {
    all().split_for_parts().0.with_state(service)
}

/// What they take and answer.
pub fn openapi() -> OpenApi {
    all().into_openapi()
}

fn all() -> OpenApiRouter<Service> {
    let bearer = SecurityScheme::Http(Http::new(HttpAuthScheme::Bearer));
    let document = OpenApiBuilder::new()
        .info(InfoBuilder::new().title("Parlance").version("1").build())
        .components(Some(ComponentsBuilder::new().security_scheme("bearer", bearer).build()))
        .build();
    OpenApiRouter::with_openapi(document)
        .routes(routes!(users::register::register))
        .routes(routes!(users::change_profile::change_profile))
        .routes(routes!(users::change_password::change_password))
        .routes(routes!(
            users::push_subscriptions::subscribe::subscribe,
            users::push_subscriptions::unsubscribe::unsubscribe
        ))
        .routes(routes!(sessions::log_in::log_in, sessions::log_out_everywhere::log_out_everywhere))
        .routes(routes!(sessions::refresh::refresh))
        .routes(routes!(sessions::log_out_here::log_out_here))
        .routes(routes!(sessions::log_out_there::log_out_there))
        .routes(routes!(ws_tickets::issue))
        .routes(routes!(conversations::open::open))
        .routes(routes!(conversations::change::change))
        .routes(routes!(conversations::set_member::set_member, conversations::remove_member::remove_member))
        .routes(routes!(conversations::send_message::send_message))
        .routes(routes!(conversations::advance_receipt::advance_receipt))
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use http::{Request, StatusCode};
    use platform::http::surface::{Entry, SURFACE};
    use serde_json::json;

    use super::*;
    use crate::testing::{Api, PASSWORD};

    const WRITES: [&str; 4] = ["DELETE", "PATCH", "POST", "PUT"];

    /// The commands of the surface, by path and method.
    fn commands() -> impl Iterator<Item = (&'static Entry, &'static str)> {
        SURFACE
            .iter()
            .flat_map(|entry| WRITES.into_iter().filter(|method| entry.takes(method)).map(move |m| (entry, m)))
    }

    fn filled(pattern: &str) -> String {
        let fill = |part: &str| match part {
            "{user_id}" if pattern.contains("/members/") => "me".to_owned(),
            part if part.starts_with('{') => uuid::Uuid::now_v7().to_string(),
            part => part.to_owned(),
        };
        pattern.split('/').map(fill).collect::<Vec<_>>().join("/")
    }

    #[tokio::test]
    async fn without_a_token_nothing_guarded_is_done() {
        let api = Api::new().await;
        for (entry, method) in commands().filter(|(entry, method)| !entry.is_open(method)) {
            for token in [None, Some("Bearer nonsense"), Some("Basic YTpi")] {
                let mut request = Request::builder().method(method).uri(filled(entry.pattern));
                if let Some(token) = token {
                    request = request.header("authorization", token);
                }
                // Even a body that is no JSON says nothing to one who is not known.
                let answer =
                    api.ask(request.header("content-type", "application/json").body(Body::from("{")).unwrap()).await;
                assert_eq!(answer.status, StatusCode::UNAUTHORIZED, "{method} {} with {token:?}", entry.pattern);
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            }
        }
    }

    #[tokio::test]
    async fn events_say_by_which_session_they_were_caused() {
        let api = Api::new().await;
        let [ann, ben] = api.users(["ann", "ben"]).await;
        let group = api.post("/v1/conversations", Some(&ann), json!({"type": "group", "name": "g"})).await.created();
        let group = format!("/v1/conversations/{}", group["conversation_id"].as_str().unwrap());
        let member = format!("{group}/members/{}", ben.user_id);
        api.patch(&group, &ann, json!({"name": "h"})).await.ok();
        api.put(&member, &ann, json!({"role": "member"})).await.ok();
        api.delete(&member, &ann).await.ok();
        let message = json!({"message_id": uuid::Uuid::now_v7(), "content": "hello"});
        api.post(&format!("{group}/messages"), Some(&ann), message).await.created();
        api.put(&format!("{group}/receipts/me"), &ann, json!({"read_to": 5})).await.ok();
        api.patch("/v1/users/me", &ann, json!({"display_name": "Ann"})).await.ok();
        let password = json!({"current_password": PASSWORD, "new_password": "battery staple"});
        api.put("/v1/users/me/password", &ann, password).await.ok();
        api.delete("/v1/sessions/current", &ann).await.is(204);
        let mut seen = 0;
        for event in api.log().await {
            let session = event.metadata.as_ref().and_then(|context| context.session_id);
            let expected = !["user.registered", "session.started"].contains(&&*event.event_type);
            assert_eq!(session, expected.then_some(ann.session_id), "{}", event.event_type);
            seen += usize::from(expected);
        }
        assert!(seen >= 9, "{seen}");
    }

    #[tokio::test]
    async fn what_is_open_asks_for_other_credentials() {
        let api = Api::new().await;
        let open: Vec<_> = commands().filter(|(entry, method)| entry.is_open(method)).collect();
        assert_eq!(
            open.iter().map(|(entry, method)| (entry.pattern, *method)).collect::<Vec<_>>(),
            [("/v1/users", "POST"), ("/v1/sessions", "POST"), ("/v1/sessions/refresh", "POST")],
        );
        for (entry, method) in open {
            let request =
                Request::builder().method(method).uri(entry.pattern).header("content-type", "application/json");
            let answer = api.ask(request.body(Body::from("{}")).unwrap()).await;
            assert_eq!(answer.status, StatusCode::UNPROCESSABLE_ENTITY, "{}", entry.pattern);
        }
    }

    #[tokio::test]
    async fn every_command_of_the_surface_is_served_and_documented_and_no_other() {
        let document = serde_json::to_value(openapi()).unwrap();
        for (entry, method) in commands() {
            let documented = &document["paths"][entry.pattern][method.to_lowercase()];
            assert!(documented.is_object(), "{method} {}", entry.pattern);
            assert_eq!(documented["security"].is_array(), !entry.is_open(method), "{method} {}", entry.pattern);
        }
        for (path, item) in document["paths"].as_object().unwrap() {
            for method in item.as_object().unwrap().keys() {
                let known = SURFACE.iter().any(|entry| entry.pattern == path && entry.takes(&method.to_uppercase()));
                assert!(known, "{method} {path} is not on the surface");
            }
        }
    }

    #[tokio::test]
    async fn a_wrong_method_is_told_the_right_ones_before_anything_else() {
        let api = Api::new().await;
        for entry in SURFACE {
            let request = Request::builder().method("TRACE").uri(filled(entry.pattern)).body(Body::empty()).unwrap();
            let answer = api.ask(request).await;
            assert_eq!(answer.status, StatusCode::METHOD_NOT_ALLOWED, "{}", entry.pattern);
            assert_eq!(answer.header("allow"), Some(entry.allow));
        }
    }

    #[tokio::test]
    async fn bodies_are_json_of_a_bounded_size() {
        let api = Api::new().await;
        let ann = api.user("ann").await;
        for (entry, method) in commands().filter(|(_, method)| *method != "DELETE") {
            if entry.pattern == "/v1/ws-tickets" {
                continue;
            }
            let uri = filled(entry.pattern);
            let with = |kind: &'static str| {
                let request = Request::builder().method(method).uri(&uri).header("content-type", kind);
                request.header("authorization", format!("Bearer {}", ann.token))
            };
            let status = async |request: http::request::Builder, body: Vec<u8>| {
                api.ask(request.body(Body::from(body)).unwrap()).await.status
            };
            let json = "application/json";
            let place = format!("{method} {uri}");
            assert_eq!(status(with("text/plain"), b"{}".to_vec()).await, StatusCode::UNSUPPORTED_MEDIA_TYPE, "{place}");
            for malformed in [&b"{"[..], b"", b"{\"x\":\"\xff\"}", br#"{"x":"\ud800"}"#, b"[] []"] {
                assert_eq!(status(with(json), malformed.to_vec()).await, StatusCode::BAD_REQUEST, "{place}");
            }
            assert_eq!(status(with(json), vec![b' '; 128 * 1024 + 1]).await, StatusCode::PAYLOAD_TOO_LARGE, "{place}");
            assert_eq!(status(with(json), b"[]".to_vec()).await, StatusCode::UNPROCESSABLE_ENTITY, "{place}");
        }
    }
}
