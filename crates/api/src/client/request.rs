//! One call on its way: the path is filled in, the answer judged, and repeated where that is safe.

use std::fmt::Write as _;
use std::time::Duration;

use reqwest::{Response, StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::Instant;

use super::{
    ANSWER_BYTES_MAX, Client, ClientError, LATE_MS, Late, REPEAT_MS, REPEAT_MS_MAX, REPEATS_MAX, TellLate, UNLED_MS_MAX,
};
use crate::problem::{MEDIA_TYPE, Problem};
use crate::routes::{IDEMPOTENCY_KEY, JSON, Method, Route};

/// The most bytes shown of an answer that is not ours.
const FOREIGN_BYTES_MAX: usize = 300;

/// A call that is being put together.
pub(super) struct Call<'c> {
    client: &'c Client,
    route: &'static Route,
    path: String,
    has_query: bool,
    headers: Vec<(&'static str, String)>,
    body: Option<(&'static str, bytes::Bytes)>,
    is_safe: bool,
    /// Whether people are told if it is late.
    is_timed: bool,
}

impl Client {
    /// A call of `operation`, with what its path leaves open, in order.
    pub(super) fn call(&self, operation: &str, open: &[&(dyn std::fmt::Display + Sync)]) -> Call<'_> {
        let route = Route::of(operation);
        let mut values = open.iter();
        let mut path = String::from(&*self.base);
        for segment in route.path.split('/').skip(1) {
            path.push('/');
            if segment.starts_with('{') {
                let value = values.next().expect("a call fills in all that the path of its route leaves open");
                encode(&value.to_string(), &mut path);
            } else {
                path.push_str(segment);
            }
        }
        let is_safe = route.method != Method::Post || route.takes_key();
        Call { client: self, route, path, has_query: false, headers: Vec::new(), body: None, is_safe, is_timed: true }
    }
}

/// Percent-encodes all but what never needs it (RFC 3986, 2.3).
fn encode(text: &str, into: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            let _ = write!(into, "%{byte:02X}");
        }
    }
}

impl Call<'_> {
    /// Adds a parameter of the query, if there is a value.
    pub fn query(mut self, name: &str, value: Option<impl std::fmt::Display>) -> Self {
        if let Some(value) = value {
            self.path.push(if self.has_query { '&' } else { '?' });
            self.has_query = true;
            self.path.push_str(name);
            self.path.push('=');
            encode(&value.to_string(), &mut self.path);
        }
        self
    }

    /// Adds a header, if there is a value.
    pub fn header(mut self, name: &'static str, value: Option<impl std::fmt::Display>) -> Self {
        self.headers.extend(value.map(|value| (name, value.to_string())));
        self
    }

    /// Takes a body.
    pub fn json(mut self, body: &impl Serialize) -> Self {
        // Our own types serialize to JSON whatever they hold.
        let body = serde_json::to_vec(body).expect("what the API takes always serializes");
        self.body = Some((JSON, body.into()));
        self
    }

    /// Takes a body of bytes.
    pub fn bytes(mut self, media: &'static str, body: bytes::Bytes) -> Self {
        self.body = Some((media, body));
        self
    }

    /// A POST that does no harm twice.
    pub fn repeatable(mut self) -> Self {
        self.is_safe = true;
        self
    }

    /// A call that takes its time: it waits for more than the server.
    pub fn untimed(mut self) -> Self {
        self.is_timed = false;
        self
    }

    /// Does the call and reads the answer.
    pub async fn answer<T: DeserializeOwned>(self) -> Result<T, ClientError> {
        let operation = self.route.operation;
        let body = self.text().await?;
        serde_json::from_slice(&body).map_err(|source| ClientError::Unreadable { operation, source })
    }

    /// Does the call; the answer has no body, or nobody wants it.
    pub async fn done(self) -> Result<(), ClientError> {
        self.send().await.map(drop)
    }

    /// Does the call and takes the answer into memory.
    pub async fn text(self) -> Result<Vec<u8>, ClientError> {
        let client = self.client;
        let response = self.send().await?;
        read(client, response, ANSWER_BYTES_MAX).await
    }

    /// Does the call, again and again where that is safe, until it succeeds or has failed for good.
    pub async fn send(mut self) -> Result<Response, ClientError> {
        if self.route.takes_key() {
            self.headers.push((IDEMPOTENCY_KEY, fresh_key()));
        }
        let mut repeats = 0;
        let mut watch = self.watch();
        let (began, is_told) = (Instant::now(), watch.is_some());
        let mut last = None;
        loop {
            let late = Late { server: &self.client.server, failed: last.as_ref() };
            let failed = match told_if_late(self.once(), &mut watch, &late).await {
                Ok(response) => return Ok(response),
                Err(error) => error,
            };
            // A connection that was not made did nothing, whatever the call.
            let may = self.is_safe || matches!(failed, ClientError::Unreachable { .. });
            let waits = is_told && failed.is_unavailable() && began.elapsed() < Duration::from_millis(UNLED_MS_MAX);
            if !may || !failed.is_passing() || (repeats >= REPEATS_MAX && !waits) {
                return Err(failed);
            }
            tokio::time::sleep(Duration::from_millis((REPEAT_MS << repeats.min(16)).min(REPEAT_MS_MAX))).await;
            repeats += 1;
            last = Some(failed);
        }
    }

    /// When the call is late, and who is to be told then.
    fn watch(&self) -> Option<(Instant, TellLate)> {
        let is_small = self.body.as_ref().is_none_or(|(media, _)| *media == JSON);
        let tell = self.client.tell_late.filter(|_| is_small && self.is_timed)?;
        Some((Instant::now() + Duration::from_millis(LATE_MS), tell))
    }

    /// Does the call once.
    pub async fn once(&self) -> Result<Response, ClientError> {
        let mut request = self.client.start(self.route.method, &self.path);
        for (name, value) in &self.headers {
            request = request.header(*name, value);
        }
        if let Some((media, body)) = &self.body {
            request = request.header(header::CONTENT_TYPE, *media).body(body.clone());
        }
        self.client.finish(request).await
    }

    /// Does the call once, with a body that is read as it is sent, and reads the answer.
    pub async fn stream<T: DeserializeOwned>(self, media: &str, body: reqwest::Body) -> Result<T, ClientError> {
        let operation = self.route.operation;
        let request = self.client.start(self.route.method, &self.path);
        let response = self.client.finish(request.header(header::CONTENT_TYPE, media).body(body)).await?;
        let body = read(self.client, response, ANSWER_BYTES_MAX).await?;
        serde_json::from_slice(&body).map_err(|source| ClientError::Unreadable { operation, source })
    }
}

/// Waits for a try; if the call becomes late meanwhile, or was before, that is told, once.
async fn told_if_late<T>(
    tried: impl Future<Output = T>,
    watch: &mut Option<(Instant, TellLate)>,
    late: &Late<'_>,
) -> T {
    let mut tried = std::pin::pin!(tried);
    let Some((at, tell)) = *watch else { return tried.await };
    if let Ok(answered) = tokio::time::timeout_at(at, &mut tried).await {
        return answered;
    }
    *watch = None;
    tell(late);
    tried.await
}

impl Client {
    fn start(&self, method: Method, path: &str) -> reqwest::RequestBuilder {
        let method = match method {
            Method::Get => reqwest::Method::GET,
            Method::Post => reqwest::Method::POST,
            Method::Put => reqwest::Method::PUT,
            Method::Delete => reqwest::Method::DELETE,
        };
        let request = self.http.request(method, path);
        if self.token.is_empty() { request } else { request.bearer_auth(&self.token) }
    }

    async fn finish(&self, request: reqwest::RequestBuilder) -> Result<Response, ClientError> {
        let response = request.send().await.map_err(|source| {
            let server = self.server.to_string();
            // An address that makes no request is not reached either.
            if source.is_connect() || source.is_builder() {
                ClientError::Unreachable { server, source: source.without_url() }
            } else {
                ClientError::Broken { server, source: source.without_url() }
            }
        })?;
        if response.status().is_success() { Ok(response) } else { Err(self.refusal(response).await) }
    }

    /// What an answer without success says.
    async fn refusal(&self, response: Response) -> ClientError {
        let status = response.status();
        let is_problem = media(&response).is_some_and(|media| media.starts_with(MEDIA_TYPE));
        let body = match read(self, response, 1024 * 1024).await {
            Ok(body) => body,
            Err(error) => return error,
        };
        match serde_json::from_slice::<Problem>(&body) {
            Ok(problem) if is_problem => ClientError::Refused(Box::new(problem)),
            _ => self.foreign(status, &body),
        }
    }

    fn foreign(&self, status: StatusCode, body: &[u8]) -> ClientError {
        let text: String = String::from_utf8_lossy(&body[..body.len().min(FOREIGN_BYTES_MAX)])
            .chars()
            .map(|letter| if letter.is_control() { ' ' } else { letter })
            .collect();
        ClientError::Foreign { server: self.server.to_string(), status: status.as_u16(), text: text.trim().to_owned() }
    }

    pub(super) fn broken(&self, source: reqwest::Error) -> ClientError {
        ClientError::Broken { server: self.server.to_string(), source: source.without_url() }
    }
}

fn media(response: &Response) -> Option<&str> {
    response.headers().get(header::CONTENT_TYPE)?.to_str().ok()
}

/// The body, if it has at most `bytes_max` bytes; what is longer is cut and will not be understood.
async fn read(client: &Client, mut response: Response, bytes_max: usize) -> Result<Vec<u8>, ClientError> {
    let mut body = Vec::new();
    while let Some(piece) = response.chunk().await.map_err(|error| client.broken(error))? {
        let room = bytes_max - body.len();
        body.extend_from_slice(&piece[..piece.len().min(room)]);
        if piece.len() > room {
            break;
        }
    }
    Ok(body)
}

/// A key that nobody has used.
fn fresh_key() -> String {
    let mut bytes = [0_u8; 16];
    rustls::crypto::ring::default_provider().secure_random.fill(&mut bytes).expect("the system has random numbers");
    graph::hex::digits(&bytes)
}

#[cfg(test)]
mod tests {
    use super::super::Server;
    use super::*;

    #[test]
    fn names_stand_encoded_in_paths() {
        let client = Client::new(Server::parse("http://localhost:1/base/"), "t").expect("an address");
        let call = client.call("job_get", &[&7, &"test/linux é"]).query("a", Some("b&c")).query("d", None::<u8>);
        assert_eq!(call.path, "http://localhost:1/base/api/v1/builds/7/jobs/test%2Flinux%20%C3%A9?a=b%26c");
    }

    #[test]
    fn what_is_no_address_is_told() {
        for text in ["localhost:7070", "ftp://x", "", "http://"] {
            let error = Client::new(Server::parse(text), "").expect_err("no address");
            assert!(matches!(error, ClientError::Address { .. }), "{text}: {error}");
        }
    }
}
