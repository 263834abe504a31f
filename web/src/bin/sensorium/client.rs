//! A `GET` over plain HTTP, as much as `status` needs.

use std::time::Duration;

use axum::body::Body;
use axum::http::{Request, header};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// How long a node may take to answer.
const WITHIN: Duration = Duration::from_secs(5);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: usize = 4 << 20;

/// The body of `GET {base}{path}` when the node answers 200. The error says what to do about it.
pub(crate) async fn get(base: &str, path: &str) -> Result<Vec<u8>, String> {
    let authority = match base.split_once("://") {
        Some(("http", rest)) => rest.trim_end_matches('/'),
        None => base,
        Some(_) => return Err(format!("--http {base}: expected http://HOST:PORT")),
    };
    if authority.is_empty() || authority.contains(['/', '?', '#', '@', ' ']) {
        return Err(format!("--http {base}: expected http://HOST:PORT"));
    }
    match tokio::time::timeout(WITHIN, ask(authority, path)).await {
        Ok(Ok(body)) => Ok(body),
        Ok(Err(why)) => {
            Err(format!("no answer from http://{authority}: {why}; is a node running there? (--http)"))
        }
        Err(_) => Err(format!("no answer from http://{authority} within {} s", WITHIN.as_secs())),
    }
}

async fn ask(authority: &str, path: &str) -> Result<Vec<u8>, String> {
    let has_port = authority.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let address = if has_port { authority.to_owned() } else { format!("{authority}:80") };
    let stream = TcpStream::connect(address).await.map_err(|error| error.to_string())?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| error.to_string())?;
    // Ends with the answer; its errors are the request's.
    tokio::spawn(async move { connection.await.ok() });
    let request = Request::get(path)
        .header(header::HOST, authority)
        .body(Body::empty())
        .map_err(|error| error.to_string())?;
    let answer = sender.send_request(request).await.map_err(|error| error.to_string())?;
    let status = answer.status();
    let body = axum::body::to_bytes(Body::new(answer.into_body()), MAX_ANSWER)
        .await
        .map_err(|error| error.to_string())?;
    if status.is_success() {
        Ok(body.to_vec())
    } else {
        Err(format!("{status}: {}", String::from_utf8_lossy(&body)))
    }
}
