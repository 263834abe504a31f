//! `GET`, as anybody could do it: one connection each, the whole answer.

use std::net::SocketAddr;
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::Request;
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// How long an answer may take; a whole ring of 100 000 samples is long.
const ANSWER_WITHIN: Duration = Duration::from_secs(30);

/// There is no answer, or not the one that was expected.
#[derive(Debug, thiserror::Error)]
pub enum HttpError {
    /// Nobody answers there.
    #[error("{address}{path}: {source}")]
    Io {
        /// Whom.
        address: SocketAddr,
        /// What was asked for.
        path: String,
        /// Why not.
        source: std::io::Error,
    },
    /// The connection broke.
    #[error("{address}{path}: {source}")]
    Http {
        /// Whom.
        address: SocketAddr,
        /// What was asked for.
        path: String,
        /// Why not.
        source: hyper::Error,
    },
    /// No answer in time.
    #[error("{address}{path}: no answer within {ANSWER_WITHIN:?}")]
    Slow {
        /// Whom.
        address: SocketAddr,
        /// What was asked for.
        path: String,
    },
    /// Another answer than 200.
    #[error("{address}{path}: {status}: {body}")]
    Status {
        /// Whom.
        address: SocketAddr,
        /// What was asked for.
        path: String,
        /// The answer's status.
        status: u16,
        /// The answer.
        body: String,
    },
    /// An answer that cannot be read.
    #[error("{address}{path}: {source}")]
    Json {
        /// Whom.
        address: SocketAddr,
        /// What was asked for.
        path: String,
        /// What does not fit.
        source: serde_json::Error,
    },
}

/// Status and body at `path`.
pub async fn get(address: SocketAddr, path: &str) -> Result<(u16, Bytes), HttpError> {
    let io = |source| HttpError::Io { address, path: path.to_owned(), source };
    let http = |source| HttpError::Http { address, path: path.to_owned(), source };
    let answer = async {
        let stream = TcpStream::connect(address).await.map_err(io)?;
        let (mut sender, connection) =
            hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(http)?;
        let request = Request::get(path)
            .header("host", address.to_string())
            .body(Empty::<Bytes>::new())
            .map_err(|error| io(std::io::Error::new(std::io::ErrorKind::InvalidInput, error)))?;
        let asked = async {
            let answer = sender.send_request(request).await.map_err(http)?;
            let status = answer.status().as_u16();
            Ok((status, answer.into_body().collect().await.map_err(http)?.to_bytes()))
        };
        // The connection does the work; it goes away with this future.
        let mut connection = std::pin::pin!(connection);
        let mut asked = std::pin::pin!(asked);
        tokio::select! {
            biased;
            answer = &mut asked => answer,
            ended = &mut connection => {
                ended.map_err(http)?;
                asked.await
            }
        }
    };
    timeout(ANSWER_WITHIN, answer)
        .await
        .unwrap_or_else(|_| Err(HttpError::Slow { address, path: path.to_owned() }))
}

/// The object at `path`; an error unless the answer is 200.
pub async fn json<T: DeserializeOwned>(address: SocketAddr, path: &str) -> Result<T, HttpError> {
    let (status, body) = get(address, path).await?;
    if status != 200 {
        let body = String::from_utf8_lossy(&body).into_owned();
        return Err(HttpError::Status { address, path: path.to_owned(), status, body });
    }
    serde_json::from_slice(&body).map_err(|source| HttpError::Json { address, path: path.to_owned(), source })
}
