//! Opens the connection, and closes it.

use std::time::Duration;

use futures::StreamExt;
use schemas::ws::{ClientFrame, Referenced, SUBPROTOCOL};
use tokio::net::TcpStream;
use tokio_tungstenite::{
    MaybeTlsStream, WebSocketStream, connect_async_with_config,
    tungstenite::{
        self, Message as WsMessage,
        client::IntoClientRequest,
        http::{HeaderValue, StatusCode, header},
        protocol::WebSocketConfig,
    },
};

use super::End;
use crate::{
    client::{Access, Client},
    error::Error,
    session::CloseReason,
};

pub(super) type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

pub(super) fn encode(reference: Option<String>, frame: ClientFrame) -> WsMessage {
    let frame = Referenced { reference, frame };
    WsMessage::text(serde_json::to_string(&frame).expect("frames are plain data"))
}

/// Opens a WebSocket with a good token.
pub(super) async fn dial(client: &Client, refused: Option<String>) -> Result<(Socket, Access), End> {
    let access = match refused {
        Some(refused) => client.access_instead_of(&refused).await,
        None => client.access().await,
    };
    let access = match access {
        Ok(access) => access,
        Err(Error::LoggedOut) => return Err(End::Over(CloseReason::LoggedOut)),
        Err(error) => {
            return Err(End::Again { reason: error.to_string(), not_before: error.retry_after().unwrap_or_default() });
        }
    };
    let mut request = client.server().socket_address().into_client_request().map_err(End::again)?;
    let bearer = HeaderValue::from_str(&format!("Bearer {}", access.token)).map_err(End::again)?;
    request.headers_mut().insert(header::AUTHORIZATION, bearer);
    request.headers_mut().insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(SUBPROTOCOL));
    let config = WebSocketConfig::default().read_buffer_size(16 * 1024).write_buffer_size(16 * 1024);
    match connect_async_with_config(request, Some(config), true).await {
        Ok((socket, _)) => Ok((socket, access)),
        Err(tungstenite::Error::Http(answer)) if answer.status() == StatusCode::UNAUTHORIZED => {
            Err(End::Unauthorized { token: access.token })
        }
        Err(tungstenite::Error::Http(answer)) => {
            let seconds = answer.headers().get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
            Err(End::Again {
                reason: format!("the server answered the upgrade with {}", answer.status()),
                not_before: Duration::from_secs(seconds.unwrap_or(0)),
            })
        }
        Err(error) => Err(End::again(error)),
    }
}

/// Closes the connection, and waits until the server has read what was written before: it says goodbye only then. A socket
/// that is dropped while something lies unread in it is reset, and what the other end had not read yet is lost.
pub(super) async fn goodbye(socket: &mut Socket) -> Result<(), tungstenite::Error> {
    socket.close(None).await?;
    while socket.next().await.transpose()?.is_some() {}
    Ok(())
}
