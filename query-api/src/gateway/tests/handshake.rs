//! Who may open a socket.

use http::{HeaderValue, StatusCode};
use platform::auth::Caller;
use time::OffsetDateTime;
use tokio_tungstenite::connect_async;
use tokio_tungstenite::tungstenite::client::IntoClientRequest;
use tokio_tungstenite::tungstenite::{self, handshake::client::Request};

use super::world::{World, device, session_of, user};

async fn refused(request: Request) -> StatusCode {
    match connect_async(request).await {
        Err(tungstenite::Error::Http(response)) => {
            assert_eq!(response.headers()["content-type"], "application/problem+json");
            response.status()
        }
        Ok(_) => panic!("it was opened"),
        Err(error) => panic!("{error}"),
    }
}

fn ticket_request(world: &World, ticket: &str) -> Request {
    let mut request = world.url(&format!("?x=1&ticket={ticket}")).into_client_request().unwrap();
    request.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("parlance.v1"));
    request
}

#[tokio::test]
async fn a_ticket_opens_one_socket_and_is_not_spent_on_a_refusal() {
    let world = World::new().await;
    let caller = Caller {
        user_id: user(1),
        session_id: session_of(user(1), device(1)),
        device_id: device(1),
        expires_at: OffsetDateTime::now_utc() + time::Duration::minutes(5),
    };
    let ticket = world.tickets.issue(&caller).await.unwrap().ticket;
    let mut elsewhere = ticket_request(&world, &ticket);
    elsewhere.headers_mut().insert("origin", HeaderValue::from_static("https://evil.example"));
    assert_eq!(refused(elsewhere).await, StatusCode::FORBIDDEN);
    let mut without = ticket_request(&world, &ticket);
    without.headers_mut().remove("sec-websocket-protocol");
    assert_eq!(refused(without).await, StatusCode::BAD_REQUEST);
    let mut good = ticket_request(&world, &ticket);
    good.headers_mut().insert("origin", HeaderValue::from_static("https://app.example.org"));
    let (_socket, _) = connect_async(good).await.unwrap();
    assert_eq!(refused(ticket_request(&world, &ticket)).await, StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn without_a_good_token_there_is_no_socket() {
    let world = World::new().await;
    let mut none = world.url("").into_client_request().unwrap();
    assert_eq!(refused(none.clone()).await, StatusCode::UNAUTHORIZED);
    none.headers_mut().insert("sec-websocket-protocol", HeaderValue::from_static("parlance.v1"));
    assert_eq!(refused(none).await, StatusCode::UNAUTHORIZED);
    assert_eq!(refused(ticket_request(&world, "nonsense")).await, StatusCode::UNAUTHORIZED);
    // The header wins, also where it is bad.
    let caller = Caller {
        user_id: user(1),
        session_id: session_of(user(1), device(1)),
        device_id: device(1),
        expires_at: OffsetDateTime::now_utc() + time::Duration::minutes(5),
    };
    let ticket = world.tickets.issue(&caller).await.unwrap().ticket;
    let mut both = ticket_request(&world, &ticket);
    both.headers_mut().insert("authorization", HeaderValue::from_static("Bearer nonsense"));
    assert_eq!(refused(both).await, StatusCode::UNAUTHORIZED);
    assert!(connect_async(ticket_request(&world, &ticket)).await.is_ok());
    // A good token without the subprotocol.
    let mut request = world.request(user(1), device(1));
    request.headers_mut().remove("sec-websocket-protocol");
    assert_eq!(refused(request).await, StatusCode::BAD_REQUEST);
}
