//! How a request came to the server that hands it on: to which host, and from where. The server that leads takes it over from those alone that hold
//! its keys; from others it takes nothing of the kind.

use std::net::SocketAddr;

use axum::extract::{ConnectInfo, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use graph::{Timestamp, hex};
use ring::hmac;

const HOST: HeaderName = HeaderName::from_static("x-ropewalk-host");
const FROM: HeaderName = HeaderName::from_static("x-ropewalk-from");
const AT: HeaderName = HeaderName::from_static("x-ropewalk-at");
const SIGNATURE: HeaderName = HeaderName::from_static("x-ropewalk-signature");
/// For how long what was signed is believed, in milliseconds: the clocks of servers may differ by this.
const BELIEVED_MS_MAX: u64 = 5 * 60 * 1000;

/// Says in the headers of what is handed on how it came, and takes out what others said there.
pub fn tell(key: &hmac::Key, request: &Parts, headers: &mut HeaderMap, now: Timestamp) {
    let host = headers.remove(header::HOST);
    take_out(headers);
    let from = request.extensions.get::<ConnectInfo<SocketAddr>>().and_then(|from| from.0.to_string().parse().ok());
    let (Some(host), Some(from)) = (host, from) else { return };
    headers.insert(HOST, host);
    headers.insert(FROM, from);
    headers.insert(AT, HeaderValue::from(now.0));
    let signature = hmac::sign(key, &signed(request, headers));
    headers.extend(hex::digits(signature.as_ref()).parse().ok().map(|signature: HeaderValue| (SIGNATURE, signature)));
}

/// Makes a request that another server has handed on into what came to that one. Of any other it takes out what says so.
pub fn take_over(key: &hmac::Key, request: Request, now: Timestamp) -> Request {
    let (mut parts, body) = request.into_parts();
    let told = told(key, &parts, now);
    take_out(&mut parts.headers);
    if let Some((host, from)) = told {
        parts.headers.insert(header::HOST, host);
        parts.extensions.insert(ConnectInfo(from));
    }
    Request::from_parts(parts, body)
}

fn told(key: &hmac::Key, parts: &Parts, now: Timestamp) -> Option<(HeaderValue, SocketAddr)> {
    let headers = &parts.headers;
    let text = |name: HeaderName| headers.get(name)?.to_str().ok();
    let digits = text(SIGNATURE)?;
    let signature: Option<Vec<u8>> =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(digits.get(at..at + 2)?, 16).ok()).collect();
    hmac::verify(key, &signed(parts, headers), &signature?).ok()?;
    let at = Timestamp(text(AT)?.parse().ok()?);
    let is_believed = now.ms_since(at).max(at.ms_since(now)) <= BELIEVED_MS_MAX;
    let from = text(FROM)?.parse().ok()?;
    is_believed.then(|| headers.get(HOST).cloned()).flatten().map(|host| (host, from))
}

/// What is signed: how this one request came.
fn signed(request: &Parts, headers: &HeaderMap) -> Vec<u8> {
    let path = request.uri.path_and_query().map_or("/", |path| path.as_str());
    let mut signed = format!("ropewalk relay\n{} {path}", request.method).into_bytes();
    for name in [AT, HOST, FROM] {
        signed.push(b'\n');
        signed.extend_from_slice(headers.get(name).map_or(&[], HeaderValue::as_bytes));
    }
    signed
}

fn take_out(headers: &mut HeaderMap) {
    for name in [HOST, FROM, AT, SIGNATURE] {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use axum::body::Body;

    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000_000_000);

    fn key(of: &[u8]) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, of)
    }

    fn request(path: &str, headers: HeaderMap) -> Request {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().expect("a path");
        *request.headers_mut() = headers;
        let leader: SocketAddr = "10.0.0.2:5000".parse().expect("an address");
        request.extensions_mut().insert(ConnectInfo(leader));
        request
    }

    /// What the leader makes of what a standby has handed on: host and sender.
    #[track_caller]
    fn check(path: &str, key: &hmac::Key, change: impl FnOnce(&mut HeaderMap), now: Timestamp, expected: [&str; 2]) {
        let mut came = request("/a?b=c", HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("standby"))]));
        let client: SocketAddr = "192.0.2.7:4711".parse().expect("an address");
        came.extensions_mut().insert(ConnectInfo(client));
        let (parts, _) = came.into_parts();
        let mut headers = parts.headers.clone();
        tell(&self::key(b"ours"), &parts, &mut headers, NOW);
        assert!(!headers.contains_key(header::HOST), "that of the leader comes there");
        headers.insert(header::HOST, HeaderValue::from_static("leader"));
        change(&mut headers);
        let taken = take_over(key, request(path, headers), now);
        let from = taken.extensions().get::<ConnectInfo<SocketAddr>>().expect("somebody").0.ip().to_string();
        assert_eq!([taken.headers()[header::HOST].to_str().expect("a text"), &from], expected);
        assert_eq!(taken.headers().len(), 1, "nothing is left: {:?}", taken.headers());
    }

    #[test]
    fn only_a_server_with_the_same_keys_says_how_a_request_came() {
        let (ours, told, own) = (key(b"ours"), ["standby", "192.0.2.7"], ["leader", "10.0.0.2"]);
        let nothing = |_: &mut HeaderMap| {};
        check("/a?b=c", &ours, nothing, NOW, told);
        check("/a?b=d", &ours, nothing, NOW, own);
        check("/a?b=c", &key(b"theirs"), nothing, NOW, own);
        for late in [-400_000_000, 400_000_000] {
            check("/a?b=c", &ours, nothing, Timestamp(NOW.0 + late), own);
        }
        for name in [HOST, FROM, AT] {
            let forge = |headers: &mut HeaderMap| drop(headers.insert(&name, HeaderValue::from_static("1")));
            check("/a?b=c", &ours, forge, NOW, own);
        }
        for signature in ["", "0", "é", "00ff"] {
            let signature = HeaderValue::from_bytes(signature.as_bytes()).expect("a value");
            check("/a?b=c", &ours, |headers| drop(headers.insert(SIGNATURE, signature)), NOW, own);
        }
    }
}
