//! Who may call from a browser. A page of a foreign origin may neither open a WebSocket nor change state: browsers
//! let any page send such requests, with the network position (and, later, the cookies) of whoever looks at it.
//!
//! Invariant: a WebSocket upgrade, or a call other than GET, HEAD and OPTIONS, that carries an `Origin` gets through
//! only when that origin is the node's own or was allowed by `--allow-origin`. Programs send no `Origin` and are not
//! concerned.

use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::State;
use crate::error::ApiError;

/// What pages may load and where they may connect: themselves, and sockets and reads of every node, since a page
/// moves to another node when its own dies.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss: http: https:; \
     img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'";

/// Middleware: refuses what a page of a foreign origin may not do.
pub async fn foreign_origin(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let upgrades = headers.contains_key(header::UPGRADE) || headers.contains_key(header::SEC_WEBSOCKET_KEY);
    if (changes || upgrades)
        && let Some(origin) = headers.get(header::ORIGIN)
        && !is_allowed(origin, headers, &state)
    {
        let message = format!(
            "a page of {} may not do this here; allow it with --allow-origin, or tell the node its own address \
             with --public-http",
            String::from_utf8_lossy(origin.as_bytes()).chars().take(200).collect::<String>()
        );
        return ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", message).into_response();
    }
    next.run(request).await
}

/// Whether `origin` is ours, or was allowed.
fn is_allowed(origin: &HeaderValue, headers: &HeaderMap, state: &State) -> bool {
    let Some(origin) = origin.to_str().ok().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase())
    else {
        return false;
    };
    if origin == state.addresses().http.to_ascii_lowercase()
        || state
            .allow_origins()
            .iter()
            .any(|allowed| allowed.trim_end_matches('/').eq_ignore_ascii_case(&origin))
    {
        return true;
    }
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
        // A name that an attacker's DNS points at this machine makes Origin and Host alike; a node that only this
        // machine can reach is not known by such names.
        && (!state.is_loopback() || is_local(authority))
}

/// Whether `authority` (host, or host:port) names this machine by address, or as localhost.
fn is_local(authority: &str) -> bool {
    let host = match authority.rsplit_once(':') {
        Some((host, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => host,
        _ => authority,
    };
    let host = host.trim_start_matches('[').trim_end_matches(']');
    host == "localhost" || host.ends_with(".localhost") || host.parse::<std::net::IpAddr>().is_ok()
}

/// Middleware: headers that keep a page from being made to load or run what is not ours.
pub async fn security_headers(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, CONTENT_SECURITY_POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn local_names_are_told_from_others() {
        for local in
            ["localhost:4000", "127.0.0.1:4000", "[::1]:4000", "[::1]", "app.localhost", "10.0.0.7:80"]
        {
            assert!(is_local(local), "{local}");
        }
        for other in ["evil.example:4000", "localhost.evil.example", "127.0.0.1.nip.io:4000", ""] {
            assert!(!is_local(other), "{other}");
        }
    }
}
