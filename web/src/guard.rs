//! Who may call from a browser. A page of a foreign origin may neither open a WebSocket nor change state, nor read
//! what it is answered: browsers let any page send such requests, with the network position (and, later, the cookies)
//! of whoever looks at it.
//!
//! A page whose node has died goes on with another node of its cluster, which is another origin to the browser; so the
//! nodes trust each other's pages, and say so to the browser (CORS).
//!
//! Invariant: a WebSocket upgrade, or a call other than GET, HEAD and OPTIONS, that carries an `Origin` gets through
//! only when that origin is a node of the cluster or was allowed by `--allow-origin`; only such an origin may read
//! answers. Programs send no `Origin` and are not concerned.

use axum::extract::{Request, State as Extract};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

use crate::error::ApiError;
use crate::{State, nodes};

/// What pages may load and where they may connect: themselves, and sockets and reads of every node, since a page
/// moves to another node when its own dies.
const CONTENT_SECURITY_POLICY: &str = "default-src 'self'; connect-src 'self' ws: wss: http: https:; \
     img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'self'; frame-ancestors 'self'";

/// What pages of the cluster's other nodes, and of allowed origins, may ask for and send.
const ALLOW_METHODS: &str = "GET, HEAD, POST, PUT, PATCH, DELETE";
const ALLOW_HEADERS: &str = "accept, authorization, content-type";
/// How long a browser may remember that, in seconds.
const ALLOW_FOR: &str = "600";

/// Middleware: refuses what a page of a foreign origin may not do, and tells browsers which pages may read the answer.
pub async fn foreign_origin(Extract(state): Extract<State>, request: Request, next: Next) -> Response {
    let headers = request.headers();
    let Some(origin) = headers.get(header::ORIGIN).cloned() else { return next.run(request).await };
    let allowed = is_allowed(&origin, headers, &state);
    let changes = !matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    let upgrades = headers.contains_key(header::UPGRADE) || headers.contains_key(header::SEC_WEBSOCKET_KEY);
    if (changes || upgrades) && !allowed {
        let message = format!(
            "a page of {} may not do this here; allow it with --allow-origin, or tell the node its own address \
             with --public-http",
            String::from_utf8_lossy(origin.as_bytes()).chars().take(200).collect::<String>()
        );
        return ApiError::new(StatusCode::FORBIDDEN, "foreign_origin", message).into_response();
    }
    let asks =
        *request.method() == Method::OPTIONS && headers.contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let mut response = if allowed && asks {
        let may = [
            (header::ACCESS_CONTROL_ALLOW_METHODS, ALLOW_METHODS),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOW_HEADERS),
            (header::ACCESS_CONTROL_MAX_AGE, ALLOW_FOR),
        ];
        (StatusCode::NO_CONTENT, may).into_response()
    } else {
        next.run(request).await
    };
    response.headers_mut().append(header::VARY, HeaderValue::from_static("origin"));
    if allowed {
        response.headers_mut().insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    response
}

/// Whether `origin` is a node's, or was allowed.
fn is_allowed(origin: &HeaderValue, headers: &HeaderMap, state: &State) -> bool {
    let Some(origin) = origin.to_str().ok().map(|origin| origin.trim_end_matches('/').to_ascii_lowercase())
    else {
        return false;
    };
    let allowed = state.allow_origins().iter();
    if allowed.map(|one| one.trim_end_matches('/')).any(|one| one.eq_ignore_ascii_case(&origin))
        || nodes::is_of_one(state.nodes(), &origin)
    {
        return true;
    }
    let Some((_, authority)) = origin.split_once("://") else { return false };
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok());
    host.is_some_and(|host| host.eq_ignore_ascii_case(authority))
        // A name that an attacker's DNS points at this machine makes Origin and Host alike; a node that only this
        // machine can reach is not known by such names.
        && (!state.is_loopback() || nodes::is_local(authority))
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
