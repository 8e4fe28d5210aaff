//! The pages of `web` over this server's API: who looks is known by a cookie, and a page is made of what the API answers them.
//!
//! The cookie holds a token and nothing else, out of reach of scripts. It counts for pages, and for `GET`s of the API, which
//! change nothing; what changes something goes through a form of a page, and a form is taken only from a page of this
//! server ([`is_own`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use api::problem::{Problem, ProblemKind};
use axum::Router;
use axum::body::Body;
use axum::extract::{ConnectInfo, Request};
use axum::http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use tower_service::Service;
use web::{Action, Ask, Document, Place, Source};

use super::admission::Look;
use super::call::parse_query;
use super::router::stray;
use super::{App, answer, encoding, isolated, member, problem};
use crate::notices;

/// The cookie that holds a token.
const COOKIE: &str = "ropewalk";
/// How long a browser keeps it, in seconds.
const COOKIE_SECONDS: u64 = 30 * 24 * 3600;
/// How long it keeps what was chosen to be seen, in seconds.
const KEPT_SECONDS: u64 = 365 * 24 * 3600;
/// The largest form in bytes.
const FORM_BYTES_MAX: usize = 256 * 1024;
/// The largest answer of the API that a page is made of, in bytes.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// The API, as a page reads it.
struct Api {
    router: Router,
    token: HeaderValue,
    from: Option<ConnectInfo<std::net::SocketAddr>>,
    /// What the calls of one page need not find out again.
    look: Arc<Look>,
}

impl Api {
    async fn call(&self, method: Method, path: &str, body: Option<Vec<u8>>) -> Result<Vec<u8>, Problem> {
        let mut request = Request::builder().method(method).uri(path).header(header::AUTHORIZATION, &self.token);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, api::routes::JSON);
        }
        let body = Body::from(body.unwrap_or_default());
        let mut request =
            request.body(body).map_err(|_| Problem::new(ProblemKind::NotFound, "there is no such page"))?;
        if let Some(from) = self.from {
            request.extensions_mut().insert(from);
        }
        request.extensions_mut().insert(Arc::clone(&self.look));
        let mut router = self.router.clone();
        let answered = match router.call(request).await {
            Ok(answered) => answered,
            Err(never) => match never {},
        };
        let status = answered.status();
        let body = axum::body::to_bytes(answered.into_body(), ANSWER_BYTES_MAX).await.map_err(|_| {
            Problem::new(ProblemKind::Unprocessable, "this is more than a page can show")
                .help("read it by the API or the command line, or narrow it")
        })?;
        if status.is_success() {
            return Ok(body.to_vec());
        }
        Err(serde_json::from_slice(&body).unwrap_or_else(|_| Problem::new(ProblemKind::Internal, "")))
    }
}

impl Source for Api {
    async fn get(&self, path: &str) -> Result<Vec<u8>, Problem> {
        self.call(Method::GET, path, None).await
    }
}

/// Answers whatever is no path of the API. `api` is the API alone.
pub async fn answer(app: Arc<App>, api: Router, request: Request) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let path = parts.uri.path().to_owned();
    let Ok(segments) = segments(&path) else { return nowhere() };
    let is_get = matches!(parts.method, Method::GET | Method::HEAD);
    if let [first, edition, name] = segments.as_slice()
        && first == "assets"
        && is_get
    {
        return asset(edition, name, &parts.headers);
    }
    if let [first, address, path @ ..] = segments.as_slice()
        && first == isolated::PREFIX
        && is_get
    {
        return isolated::file(app, address, path, &parts.headers).await;
    }
    // Programs that miss a path of the API hear so in its own words.
    let takes_pages =
        parts.headers.get(header::ACCEPT).is_some_and(|it| it.to_str().is_ok_and(|it| it.contains("text/html")));
    let is_page = web::Screen::of(&segments).is_some();
    let is_form = parts.method == Method::POST;
    if !(is_get && (is_page || takes_pages) || is_form) || path.starts_with("/api/") {
        return nowhere();
    }
    if is_form {
        if !is_own(&parts.headers) {
            let refusal = Problem::new(ProblemKind::Forbidden, "this form was not sent by a page of this server")
                .help("open the page here and send it again; programs use the API");
            return page(&web::screens::refusal::show(&refusal, None), &parts.headers);
        }
        if is_of_shell(&segments) {
            return carried(api, parts, body).await;
        }
        let Ok(body) = axum::body::to_bytes(body, FORM_BYTES_MAX).await else {
            let refusal = Problem::new(ProblemKind::TooLarge, "");
            return page(&web::screens::refusal::show(&refusal, None), &parts.headers);
        };
        let form = std::str::from_utf8(&body).ok().and_then(|text| parse_query(text).ok()).unwrap_or_default();
        return sent(&app, api, &parts, &segments, form.into_iter().collect()).await;
    }
    shown(&app, api, &parts, segments).await
}

/// Whether something is sent to open a shell in the page, or to type into it.
fn is_of_shell(segments: &[String]) -> bool {
    let segments: Vec<&str> = segments.iter().map(String::as_str).collect();
    matches!(segments.as_slice(), ["builds", _, "jobs", _, "shells"] | ["builds", _, "jobs", _, "shells", _, "input"])
}

/// A call of the API that a page's terminal makes: the same path, with the reader's token, both ways as they come. What the cookie may not do there, send
/// something, it does here, since the page is our own.
async fn carried(mut api: Router, parts: axum::http::request::Parts, body: Body) -> Response<Body> {
    let source = source(api.clone(), &parts);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    let media = parts.headers.get(header::CONTENT_TYPE).cloned();
    let mut request = Request::builder().method(Method::POST).uri(format!("/api/v1{path}"));
    request = request.header(header::AUTHORIZATION, &source.token);
    if let Some(media) = media {
        request = request.header(header::CONTENT_TYPE, media);
    }
    let Ok(mut request) = request.body(body) else { return nowhere() };
    if let Some(from) = source.from {
        request.extensions_mut().insert(from);
    }
    match api.call(request).await {
        Ok(answered) => answered,
        Err(never) => match never {},
    }
}

/// A page is looked at.
async fn shown(
    app: &Arc<App>,
    api: Router,
    parts: &axum::http::request::Parts,
    segments: Vec<String>,
) -> Response<Body> {
    let query = parse_query(parts.uri.query().unwrap_or_default()).unwrap_or_default();
    let ask = Ask {
        path: segments,
        query: query.into_iter().collect(),
        kept: kept(&parts.headers),
        now: app.now(),
        address: address(&parts.headers),
        place: if is_panel(&parts.headers) { Place::Panel } else { Place::Window },
    };
    let source = source(api, parts);
    match web::show(&source, &ask).await {
        Ok(document) => keeping(page(&document, &parts.headers), &ask),
        // Whoever is nobody becomes somebody first, then comes back here.
        Err(problem) if problem.status == ProblemKind::Unauthorized.status() => {
            let to = parts.uri.path_and_query().map_or("/", |to| to.as_str());
            let refused = if token_of(&parts.headers).is_some() { problem.detail.as_str() } else { "" };
            see_other(&format!("/sign-in?to={}&refused={}", web::paths::encoded(to), web::paths::encoded(refused)))
        }
        Err(problem) => page(&web::screens::refusal::show(&problem, None), &parts.headers),
    }
}

/// What the reader chose on pages before.
fn kept(headers: &HeaderMap) -> BTreeMap<String, String> {
    let find = |name: &str| cookie(headers, &format!("{COOKIE}-{name}")).filter(|value| is_word(value));
    web::KEPT.iter().filter_map(|name| Some(((*name).to_owned(), find(name)?.to_owned()))).collect()
}

/// Whether it may be one of the pages' own words, which is all that is kept.
fn is_word(text: &str) -> bool {
    !text.is_empty() && text.len() <= web::KEPT_BYTES_MAX && text.bytes().all(|byte| byte.is_ascii_lowercase())
}

/// Keeps what the reader chose with this request for the pages to come.
fn keeping(mut response: Response<Body>, ask: &Ask) -> Response<Body> {
    for name in web::KEPT {
        let Some(value) = ask.query.get(name).filter(|value| is_word(value)) else { continue };
        let cookie = format!("{COOKIE}-{name}={value}; Path=/; Max-Age={KEPT_SECONDS}; SameSite=Lax");
        if let Ok(cookie) = HeaderValue::from_str(&cookie) {
            response.headers_mut().append(header::SET_COOKIE, cookie);
        }
    }
    response
}

/// A form was sent.
async fn sent(
    app: &Arc<App>,
    api: Router,
    parts: &axum::http::request::Parts,
    segments: &[String],
    form: BTreeMap<String, String>,
) -> Response<Body> {
    match segments {
        [one] if one == "sign-in" => return sign_in(app, &parts.headers, &form).await,
        [one] if one == "join" => return join(source(api, parts), &parts.headers, &form).await,
        [one] if one == "first" => return first(source(api, parts), &form).await,
        [one] if one == "sign-out" => return sign_out(app, parts).await,
        _ => {}
    }
    let Some(action) = Action::of(segments, &form, app.now()) else { return nowhere() };
    let method = match action.method {
        web::actions::Method::Post => Method::POST,
        web::actions::Method::Put => Method::PUT,
        web::actions::Method::Delete => Method::DELETE,
    };
    let body = (!action.body.is_null()).then(|| serde_json::to_vec(&action.body).unwrap_or_default());
    match (source(api, parts).call(method, &action.path, body).await, action.shown) {
        // The one page that may hold a secret, a token that was made, goes as it is: `encoding.rs` says why.
        (Ok(answered), Some(shown)) => {
            let address = address(&parts.headers);
            page(&web::screens::settings::told(shown, &answered, &action.next, &address), &HeaderMap::new())
        }
        (Ok(answered), None) => see_other(&action.next_after(&answered)),
        // Whoever is nobody any more signs in, and comes to where the form would have led.
        (Err(problem), _) if problem.status == ProblemKind::Unauthorized.status() => {
            let refused = "Your session has ended, and what you sent was not done: sign in, then send it again.";
            see_other(&format!(
                "/sign-in?to={}&refused={}",
                web::paths::encoded(&action.next),
                web::paths::encoded(refused)
            ))
        }
        (Err(problem), _) => page(&web::screens::refusal::show(&problem, Some(&action.next)), &parts.headers),
    }
}

async fn sign_in(app: &Arc<App>, headers: &HeaderMap, form: &BTreeMap<String, String>) -> Response<Body> {
    let text = |name: &str| form.get(name).map_or("", |text| text.trim()).to_owned();
    let (token, to) = (text("token"), text("to"));
    // Only to a page of this server: one slash, then no other and no backslash, which browsers take for one.
    let is_here = to.starts_with('/') && !to.starts_with("//") && !to.contains('\\') && !to.contains(char::is_control);
    let to = if is_here { to } else { "/".to_owned() };
    let asked = token.clone();
    match app.blocking(move |app| app.server.access.admit(&asked).map_err(problem::denied)).await {
        Ok(_) => with_cookie(see_other(&to), &token, COOKIE_SECONDS, headers),
        Err(problem) => see_other(&format!(
            "/sign-in?to={}&refused={}",
            web::paths::encoded(&to),
            web::paths::encoded(&problem.detail)
        )),
    }
}

/// A member's session ends with it; of another token only this browser knows no more.
async fn sign_out(app: &Arc<App>, parts: &axum::http::request::Parts) -> Response<Body> {
    let token = token_of(&parts.headers).unwrap_or_default().to_owned();
    let from = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>().map(|from| from.0);
    match member::leave(app, token, from).await {
        Ok(()) => with_cookie(see_other("/sign-in"), "", 0, &parts.headers),
        Err(problem) => page(&web::screens::refusal::show(&problem, None), &parts.headers),
    }
}

/// The first administrator's token is made, and shown.
async fn first(api: Api, form: &BTreeMap<String, String>) -> Response<Body> {
    let text = |name: &str| form.get(name).map_or("", |text| text.trim());
    let body = serde_json::json!({ "token": text("token"), "name": text("name") });
    let made = api.call(Method::POST, "/setup", Some(serde_json::to_vec(&body).unwrap_or_default())).await;
    let document = match made.map(|answered| serde_json::from_slice::<api::token::Created>(&answered)) {
        Ok(Ok(made)) => web::screens::first::made(&made.token),
        Ok(Err(error)) => web::screens::first::refused(&unread(&error)),
        Err(problem) => web::screens::first::refused(&problem),
    };
    // It may hold a secret: it goes as it is.
    page(&document, &HeaderMap::new())
}

/// A member signs in by a link.
async fn join(api: Api, headers: &HeaderMap, form: &BTreeMap<String, String>) -> Response<Body> {
    let link = form.get("link").map_or("", String::as_str);
    let body = serde_json::to_vec(&serde_json::json!({ "link": link })).unwrap_or_default();
    let made = match api.call(Method::POST, "/api/v1/join", Some(body)).await {
        Ok(answered) => serde_json::from_slice::<api::token::Created>(&answered),
        Err(problem) => return page(&web::screens::refusal::show(&problem, None), headers),
    };
    match made {
        Ok(made) => with_cookie(see_other("/"), &made.token, crate::members::SESSION_MS / 1000, headers),
        Err(error) => page(&web::screens::refusal::show(&unread(&error), None), headers),
    }
}

/// The refusal if an answer of the API cannot be read, told in the log.
fn unread(error: &serde_json::Error) -> Problem {
    let refusal = problem::internal(error);
    notices::error(&format!("an answer of the API cannot be read: {}", refusal.cause));
    refusal
}

/// The token that a browser's cookie holds.
pub fn token_of(headers: &HeaderMap) -> Option<&str> {
    cookie(headers, COOKIE)
}

/// The value of a cookie; `None` if it is absent or empty.
fn cookie<'h>(headers: &'h HeaderMap, wanted: &str) -> Option<&'h str> {
    let cookies = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = cookies.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value).filter(|value| !value.is_empty())
}

fn source(router: Router, parts: &axum::http::request::Parts) -> Api {
    let token = token_of(&parts.headers).and_then(|token| HeaderValue::from_str(&format!("Bearer {token}")).ok());
    let from = parts.extensions.get::<ConnectInfo<std::net::SocketAddr>>().copied();
    Api { router, token: token.unwrap_or_else(|| HeaderValue::from_static("")), from, look: Arc::default() }
}

/// Whether a request was sent by a page of this server, as the browser says it (Fetch Metadata; where that is absent, by
/// the `Origin` that every browser sends with a form).
fn is_own(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    match text("sec-fetch-site") {
        Some(site) => site == "same-origin",
        None => {
            let host = text("host");
            let origin = text("origin").and_then(|origin| origin.split_once("://")).map(|(_, host)| host);
            host.is_some() && origin == host
        }
    }
}

/// Whether a page of this server shows this one in a frame, as the browser says it: over plain HTTP it says nothing but to the machine
/// itself, and the page finds out when its scripts run.
fn is_panel(headers: &HeaderMap) -> bool {
    headers.get("sec-fetch-dest").is_some_and(|dest| dest == "iframe") && is_own(headers)
}

/// Whether the browser came by TLS, to us or to a proxy before us.
fn is_by_tls(headers: &HeaderMap) -> bool {
    headers.get("x-forwarded-proto").is_some_and(|it| it.as_bytes().eq_ignore_ascii_case(b"https"))
}

/// Where this server is, as the browser says it.
fn address(headers: &HeaderMap) -> String {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    format!("{}://{host}", if is_by_tls(headers) { "https" } else { "http" })
}

fn with_cookie(mut response: Response<Body>, token: &str, seconds: u64, headers: &HeaderMap) -> Response<Body> {
    let secure = if is_by_tls(headers) { "; Secure" } else { "" };
    let cookie = format!("{COOKIE}={token}; Path=/; Max-Age={seconds}; HttpOnly; SameSite=Lax{secure}");
    if let Ok(cookie) = HeaderValue::from_str(&cookie) {
        response.headers_mut().insert(header::SET_COOKIE, cookie);
    }
    response
}

fn see_other(to: &str) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SEE_OTHER;
    let to = HeaderValue::from_str(to).unwrap_or_else(|_| HeaderValue::from_static("/"));
    response.headers_mut().insert(header::LOCATION, to);
    guarded(response)
}

/// A page as it is sent, packed if `headers` of the request allow it.
pub fn page(document: &Document, headers: &HeaderMap) -> Response<Body> {
    let status = StatusCode::from_u16(document.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let response = guarded(answer::with(status, web::page::HTML, Body::empty()));
    encoding::packed(headers, response, document.text.as_bytes())
}

/// With what keeps a page from being more than it is.
fn guarded(mut response: Response<Body>) -> Response<Body> {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, web::page::POLICY),
        (header::REFERRER_POLICY, "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::CACHE_CONTROL, "no-store"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

fn asset(edition: &str, name: &str, headers: &HeaderMap) -> Response<Body> {
    let Some(asset) = web::assets::find(edition, name) else { return nowhere() };
    let mut response = guarded(answer::with(StatusCode::OK, asset.media, Body::empty()));
    let forever = HeaderValue::from_static("public, max-age=31536000, immutable");
    response.headers_mut().insert(header::CACHE_CONTROL, forever);
    encoding::packed(headers, response, asset.text.as_bytes())
}

/// There is nothing at this path.
pub fn nowhere() -> Response<Body> {
    stray(Problem::new(ProblemKind::NotFound, "there is no such path").help("see /openapi.json"))
}

/// The parts of a path between slashes, decoded.
fn segments(path: &str) -> Result<Vec<String>, Problem> {
    path.split('/')
        .filter(|part| !part.is_empty())
        // A plus is a plus in a path.
        .map(|part| super::call::decode(&part.replace('+', "%2B")))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs
            .iter()
            .map(|(name, value)| (header::HeaderName::from_static(name), HeaderValue::from_static(value)))
            .collect()
    }

    #[test]
    fn forms_of_other_sites_are_told_apart() {
        for (given, expected) in [
            (&[("sec-fetch-site", "same-origin")][..], true),
            (&[("sec-fetch-site", "cross-site"), ("origin", "http://ci:1"), ("host", "ci:1")], false),
            (&[("sec-fetch-site", "none")], false),
            (&[("origin", "http://ci:1"), ("host", "ci:1")], true),
            (&[("origin", "http://evil:1"), ("host", "ci:1")], false),
            (&[("origin", "null"), ("host", "ci:1")], false),
            (&[("host", "ci:1")], false),
        ] {
            assert_eq!(is_own(&headers(given)), expected, "{given:?}");
        }
    }

    #[test]
    fn pages_that_others_of_this_server_show_in_frames_are_known() {
        for (dest, site, expected) in
            [("iframe", "same-origin", true), ("iframe", "cross-site", false), ("document", "same-origin", false)]
        {
            let given = headers(&[("sec-fetch-dest", dest), ("sec-fetch-site", site)]);
            assert_eq!(is_panel(&given), expected, "{dest} {site}");
        }
        assert!(web::page::POLICY.ends_with("frame-ancestors 'self'"), "{}", web::page::POLICY);
    }

    #[test]
    fn the_token_is_found_among_cookies() {
        assert_eq!(token_of(&headers(&[("cookie", "a=b; ropewalk=T; c=d")])), Some("T"));
        assert_eq!(token_of(&headers(&[("cookie", "xropewalk=T")])), None);
        assert_eq!(token_of(&headers(&[("cookie", "ropewalk=")])), None);
    }

    #[test]
    fn paths_are_taken_apart() {
        assert_eq!(segments("/builds/7/jobs/a%2Fb+c").expect("UTF-8"), ["builds", "7", "jobs", "a/b+c"]);
        assert!(segments("/%ff").is_err());
    }
}
