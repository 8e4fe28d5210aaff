//! The way of requests through one of several servers: the one that leads answers them, another hands them on to it, as they
//! come, in both directions, and keeps none of them.
//!
//! How a server itself is ([`OWN`]) it answers itself. While nobody leads, a standby answers what the store alone can; all else
//! waits a moment for a leader, then is refused in a way that clients take for passing. The leader learns how a request came to the
//! server that was asked ([`arrival`]).

mod arrival;

use std::sync::Arc;
use std::time::Duration;

use api::problem::{Problem, ProblemKind};
use api::routes::{EVENT_STREAM, REQUEST_ID};
use api::token::{Health, HealthStatus};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use futures_util::StreamExt;
use tower_service::Service;

use super::{answer, problem};
use crate::lead::{Leader, Reign, Role, Seat};
use crate::server::Ending;

/// What each server answers of itself.
const OWN: [&str; 3] = ["/health", "/ready", "/metrics"];
/// Says that a request was handed on already: it is not handed on again.
const RELAYED: HeaderName = HeaderName::from_static("x-ropewalk-relayed");
/// Says that whoever refused does not lead.
const NOT_LEADING: HeaderName = HeaderName::from_static("x-ropewalk-not-leading");
/// How long a connection to the leader may take to be made.
const CONNECT_WAIT: Duration = Duration::from_secs(2);
/// How long a leader that took the connection may be silent before what only looks at the store is answered from there.
const READ_WAIT: Duration = Duration::from_secs(3);
/// How long a request waits for a leader while there is none.
const LEADER_WAIT: Duration = Duration::from_secs(5);
/// The headers that speak of one connection alone (RFC 9110, 7.6.1), and those that are made anew.
const OF_CONNECTION: [HeaderName; 9] = [
    header::CONNECTION,
    HeaderName::from_static("keep-alive"),
    header::PROXY_AUTHENTICATE,
    header::PROXY_AUTHORIZATION,
    header::TE,
    header::TRAILER,
    header::TRANSFER_ENCODING,
    header::UPGRADE,
    header::EXPECT,
];

/// Why requests cannot be handed on at all.
#[derive(Debug, thiserror::Error)]
#[error("cannot make a client for other servers")]
pub struct RelayError(#[from] reqwest::Error);

struct Relay {
    seat: Arc<Seat>,
    http: reqwest::Client,
}

/// The router of one of several servers.
///
/// # Errors
/// [`RelayError`].
pub fn front(seat: Arc<Seat>) -> Result<Router, RelayError> {
    // The first to say so decides for the process; that somebody did is as good.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let http = reqwest::Client::builder()
        .connect_timeout(CONNECT_WAIT)
        .tcp_nodelay(true)
        .redirect(reqwest::redirect::Policy::none())
        .build()?;
    let relay = Arc::new(Relay { seat, http });
    Ok(Router::new().fallback(move |request: Request| {
        let relay = Arc::clone(&relay);
        async move { relay.answer(request).await }
    }))
}

impl Relay {
    async fn answer(&self, request: Request) -> Response<Body> {
        let request = arrival::take_over(self.seat.address_key(), request, self.seat.standby.now());
        let role = self.seat.role().borrow().clone();
        match role {
            Role::Leading(leading) => through(&leading.router, request).await,
            Role::Starting | Role::Standby if OWN.contains(&request.uri().path()) => self.own(request).await,
            Role::Starting | Role::Standby => self.hand_on(request).await,
            Role::Ended => nobody_leads(request.headers()),
        }
    }

    async fn own(&self, request: Request) -> Response<Body> {
        match request.uri().path() {
            // Asked by a standby that took this one for the leader.
            "/ready" if request.headers().contains_key(RELAYED) => nobody_leads(request.headers()),
            "/ready" => self.ready().await,
            "/metrics" => {
                let text = "# HELP ropewalk_standby Whether this server stands by.\n# TYPE ropewalk_standby gauge\n\
                            ropewalk_standby 1\n";
                answer::with(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", Body::from(text))
            }
            _ => through(&self.seat.reads, request).await,
        }
    }

    /// Whether a request that comes here is answered: by the leader, since this one only hands it on.
    async fn ready(&self) -> Response<Body> {
        if *self.seat.standby.ending().borrow() != Ending::No {
            return health(StatusCode::SERVICE_UNAVAILABLE, HealthStatus::Unavailable, "the server ends".to_owned());
        }
        let leader = self.seat.leader(Duration::ZERO).await;
        let (status, health, text) = match leader {
            Some(leader) if self.is_ready(&leader).await => {
                (StatusCode::OK, HealthStatus::Ok, format!("standby; {} leads", leader.url))
            }
            Some(leader) => {
                let text = format!("standby; {} leads and takes no requests now", leader.url);
                (StatusCode::SERVICE_UNAVAILABLE, HealthStatus::Unavailable, text)
            }
            None => {
                let text = "standby; no server leads now".to_owned();
                (StatusCode::SERVICE_UNAVAILABLE, HealthStatus::Unavailable, text)
            }
        };
        self::health(status, health, text)
    }

    /// Whether the leader says that it takes requests.
    async fn is_ready(&self, leader: &Leader) -> bool {
        let asked = self.http.get(format!("{}/ready", leader.url)).header(RELAYED, "1").timeout(READ_WAIT);
        match asked.send().await {
            Ok(answered) if !answered.headers().contains_key(NOT_LEADING) => answered.status().is_success(),
            Ok(_) | Err(_) => {
                self.seat.unreached(leader);
                false
            }
        }
    }

    async fn hand_on(&self, request: Request) -> Response<Body> {
        let role = self.seat.role();
        if request.headers().contains_key(RELAYED) {
            return nobody_leads(request.headers());
        }
        let is_read = is_read(&request);
        let wait = if is_read { Duration::ZERO } else { LEADER_WAIT };
        let leader = self.seat.leader(wait).await;
        let now = role.borrow().clone();
        match (now, leader) {
            (Role::Leading(leading), _) => through(&leading.router, request).await,
            (_, Some(leader)) => self.send(leader, request, is_read).await,
            (_, None) if is_read => self.read(request).await,
            (_, None) => nobody_leads(request.headers()),
        }
    }

    /// Sends a request to the leader and gives its answer as it comes.
    async fn send(&self, leader: Leader, request: Request, is_read: bool) -> Response<Body> {
        let mut reign = self.seat.reign(&leader);
        let (parts, body) = request.into_parts();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let mut headers = parts.headers.clone();
        strip(&mut headers);
        arrival::tell(self.seat.address_key(), &parts, &mut headers, self.seat.standby.now());
        headers.insert(RELAYED, HeaderValue::from_static("1"));
        let mut sent = self.http.request(parts.method.clone(), format!("{}{path}", leader.url)).headers(headers);
        if has_body(&parts.headers) {
            sent = sent.body(reqwest::Body::wrap_stream(body.into_data_stream()));
        }
        let is_silent = async {
            match is_read {
                true => tokio::time::sleep(READ_WAIT).await,
                false => std::future::pending().await,
            }
        };
        let answered = tokio::select! {
            answered = sent.send() => answered.ok(),
            () = is_silent => return self.read(Request::from_parts(parts, Body::empty())).await,
            // If another leads now, whoever was asked does not, and may never answer.
            () = reign.is_over() => None,
        };
        match answered.filter(|answered| !answered.headers().contains_key(NOT_LEADING)) {
            Some(answered) => passed_on(answered, reign),
            None => {
                self.seat.unreached(&leader);
                if !is_read {
                    return nobody_leads(&parts.headers);
                }
                self.read(Request::from_parts(parts, Body::empty())).await
            }
        }
    }

    /// Answers from the store alone.
    async fn read(&self, request: Request) -> Response<Body> {
        let headers = request.headers().clone();
        let answered = through(&self.seat.reads, request).await;
        // It needs the engine after all.
        if answered.status() == StatusCode::SERVICE_UNAVAILABLE { nobody_leads(&headers) } else { answered }
    }
}

async fn through(router: &Router, request: Request) -> Response<Body> {
    // A router is always ready, and never fails.
    router.clone().call(request).await.unwrap_or_else(|never| match never {})
}

/// Whether a request only looks at what is there: nothing that goes on while something happens.
fn is_read(request: &Request) -> bool {
    let accepts = request.headers().get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (path, query) = (request.uri().path(), request.uri().query().unwrap_or_default());
    let is_stream = accepts.contains(EVENT_STREAM)
        || path.ends_with("/stream")
        || path.ends_with("/events")
        || query.split('&').any(|pair| pair.starts_with("follow="));
    matches!(*request.method(), Method::GET | Method::HEAD) && !is_stream && !has_body(request.headers())
}

fn has_body(headers: &HeaderMap) -> bool {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    length.is_some_and(|length| length != "0") || headers.contains_key(header::TRANSFER_ENCODING)
}

/// Takes out what speaks of one connection alone.
fn strip(headers: &mut HeaderMap) {
    let named: Vec<HeaderName> = headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|names| names.split(','))
        .filter_map(|name| name.trim().parse().ok())
        .collect();
    for name in named.iter().chain(&OF_CONNECTION) {
        headers.remove(name);
    }
}

/// The leader's answer, piece by piece. It breaks off, visibly, when another server leads, since what feeds it has ended, or this one ends.
fn passed_on(answered: reqwest::Response, reign: Reign) -> Response<Body> {
    let (status, mut headers) = (answered.status(), answered.headers().clone());
    strip(&mut headers);
    let pieces = futures_util::stream::unfold(Some((answered.bytes_stream(), reign)), |state| async move {
        let (mut pieces, mut reign) = state?;
        let piece: Result<Bytes, std::io::Error> = tokio::select! {
            piece = pieces.next() => piece?.map_err(std::io::Error::other),
            () = reign.is_over() => Err(std::io::Error::other("the server that this came from leads no more")),
        };
        let is_broken = piece.is_err();
        Some((piece, (!is_broken).then_some((pieces, reign))))
    });
    let mut response = Response::new(Body::from_stream(pieces));
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

fn health(code: StatusCode, status: HealthStatus, text: String) -> Response<Body> {
    let answered = answer::json_as(code, &Health { status, text });
    answered.unwrap_or_else(|refusal| problem::response(&refusal))
}

fn nobody_leads(headers: &HeaderMap) -> Response<Body> {
    let id = headers.get(REQUEST_ID).filter(|id| id.len() <= super::router::REQUEST_ID_BYTES_MAX).cloned();
    let refusal = Problem::new(ProblemKind::Unavailable, "no server leads at present")
        .help("try again in a moment; a call under the same idempotency key is done once");
    let mut response = problem::response(&refusal);
    response.headers_mut().insert(NOT_LEADING, HeaderValue::from_static("1"));
    if let Some(id) = id {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}
