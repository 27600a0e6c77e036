//! What a command-api commits, as it tells it to another process.

use axum::body::{Body, BodyDataStream};
use bytes::Bytes;
use futures::StreamExt;
use http::header::{AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use tokio_util::task::AbortOnDropHandle;

use super::{COMMITTED, Committed, DialError, dial};
use crate::auth::Keyring;

/// Why a command-api tells nothing, or nothing more.
#[derive(Debug, thiserror::Error)]
pub enum Untold {
    /// There is no connection.
    #[error(transparent)]
    Dial(#[from] DialError),
    /// Its URL is none.
    #[error("it is no address")]
    Address(#[from] http::Error),
    /// The connection broke before it answered.
    #[error("the connection broke")]
    Broken(#[from] hyper::Error),
    /// It has nothing to tell us: it is of another version, or of another installation.
    #[error("it answers {0}")]
    Refused(StatusCode),
    /// The connection broke later.
    #[error("what it tells broke off")]
    BrokeOff(#[source] axum::Error),
}

/// What one command-api commits from now on: pieces of [`COMMITTED`]'s lines. The connection goes with it.
pub struct Told {
    pieces: BodyDataStream,
    _driver: AbortOnDropHandle<hyper::Result<()>>,
}

impl Told {
    /// Has the command-api at `url` tell what is wanted; it is shown the installation's key.
    ///
    /// # Errors
    /// One that cannot be reached, or does not know us.
    pub async fn by(url: &str, keyring: &Keyring, wanted: &Committed) -> Result<Self, Untold> {
        let mut token = HeaderValue::from_str(&format!("Bearer {}", keyring.internal_token()))
            .expect("base64 is made of visible characters");
        token.set_sensitive(true);
        let (mut sender, driver) = dial(url).await?;
        let driver = AbortOnDropHandle::new(driver);
        let request = Request::post(format!("{url}{COMMITTED}"))
            .header(AUTHORIZATION, token)
            .header(CONTENT_TYPE, HeaderValue::from_static("application/json"))
            .body(Body::from(serde_json::to_vec(wanted).expect("numbers are JSON")))?;
        let answer = sender.send_request(request).await?;
        match answer.status() {
            StatusCode::OK => {
                let pieces = Body::new(answer.into_body()).into_data_stream();
                Ok(Self { pieces, _driver: driver })
            }
            status => Err(Untold::Refused(status)),
        }
    }

    /// The next piece; `None` once it stops.
    ///
    /// # Errors
    /// A connection that breaks.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Untold> {
        self.pieces.next().await.transpose().map_err(Untold::BrokeOff)
    }
}
