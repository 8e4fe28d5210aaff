//! The table of routes, mounted: for every line one road from the request to its answer.

use std::collections::BTreeMap;
use std::collections::HashMap;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Instant;

use api::problem::{Problem, ProblemKind};
use api::routes::{Content, Method, Presence, REQUEST_ID, ROUTES, Route};
use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, RawPathParams, Request};
use axum::http::{HeaderMap, HeaderValue, Response, header};
use axum::routing::{MethodFilter, MethodRouter, on};

use super::admission::Look;
use super::answer::Answered;
use super::call::{Call, parse_query};
use super::{
    App, admission, blobs, build, cache, comparison, control, idempotency, isolated, job, log, member, overview, pages,
    pool, problem,
};
use super::{project, quarantine, site, stream, test_history, token, visit, worker, worker_view};

/// The longest id of a request that is taken over from its sender, in bytes.
pub(super) const REQUEST_ID_BYTES_MAX: usize = 64;

type Answering = Pin<Box<dyn Future<Output = Answered> + Send>>;
/// What does a call.
pub type Handler = fn(Arc<App>, Call) -> Answering;

/// The handler of an operation.
macro_rules! handlers {
    (people { $($operation:literal => $($path:ident)::+,)* } workers { $($said:literal => $($by:ident)::+,)* }) => {
        fn handler_of(operation: &str) -> Option<Handler> {
            match operation {
                $($operation => Some(|app, call| Box::pin($($path)::+(app, call))),)*
                $($said => Some(|app, call| Box::pin($($by)::+(Arc::clone(&app.server), call))),)*
                _ => None,
            }
        }
    };
}

handlers! {
    people {
        "health" => site::health,
        "ready" => site::ready,
        "openapi" => site::openapi,
        "setup_page" => site::setup_page,
        "setup" => site::setup,
        "metrics" => site::metrics,
        "version" => site::version,
        "whoami" => token::whoami,
        "events" => stream::events,
        "project_list" => project::list,
        "project_get" => project::get,
        "project_put" => project::put,
        "project_delete" => project::delete,
        "project_overview" => overview::get,
        "project_badge" => overview::badge,
        "test_history" => test_history::history,
        "build_numbered" => build::numbered,
        "quarantine_list" => quarantine::list,
        "quarantine_put" => quarantine::put,
        "quarantine_delete" => quarantine::delete,
        "secret_list" => project::secret_list,
        "secret_put" => project::secret_put,
        "secret_delete" => project::secret_delete,
        "build_list" => build::list,
        "build_submit" => build::submit,
        "build_get" => build::get,
        "build_cancel" => control::cancel,
        "build_urge" => control::urge,
        "build_retry" => control::retry,
        "build_rebuild" => build::rebuild,
        "build_stream" => stream::build,
        "build_graph" => build::graph,
        "build_diagnostics" => build::diagnostics,
        "build_compare" => comparison::get,
        "commit_cancel" => control::cancel_commit,
        "job_list" => job::list,
        "job_get" => job::get,
        "job_environment" => job::environment,
        "job_why" => job::why,
        "job_cancel" => control::cancel_job,
        "job_retry" => control::retry_job,
        "shell_open" => visit::open,
        "shell_input" => visit::input,
        "attempt_list" => job::attempts,
        "attempt_get" => job::attempt,
        "log_list" => log::list,
        "log_summary" => log::summary,
        "log_read" => log::read,
        "log_search" => log::search,
        "log_groups" => log::groups,
        "test_list" => job::tests,
        "test_summary" => test_history::summarize,
        "blob_put" => blobs::put,
        "artifact_list" => job::artifacts,
        "artifact_get" => job::artifact,
        "artifact_files" => isolated::list,
        "gate_list" => job::gates,
        "gate_answer" => control::answer_gate,
        "pool_list" => pool::list,
        "pool_get" => pool::get,
        "pool_history" => pool::history,
        "worker_time" => pool::worker_time,
        "pool_hold" => pool::hold,
        "pool_release" => pool::release,
        "pool_queue" => pool::queue,
        "worker_list" => worker_view::list,
        "worker_get" => worker_view::get,
        "worker_pause" => worker_view::pause,
        "worker_resume" => worker_view::resume,
        "worker_drain" => worker_view::drain,
        "worker_update" => worker_view::update,
        "worker_forget" => worker_view::forget,
        "operation_list" => cache::operations,
        "operation_explain" => cache::explain,
        "cache_list" => cache::list,
        "cache_evict" => cache::evict,
        "cache_totals" => cache::totals,
        "cache_uses" => cache::uses,
        "member_list" => member::list,
        "member_add" => member::add,
        "member_role" => member::role,
        "member_remove" => member::remove,
        "member_link" => member::link,
        "member_join" => member::join,
        "token_list" => token::list,
        "token_create" => token::create,
        "token_narrow" => token::narrow,
        "token_inspect" => token::inspect,
        "token_get" => token::get,
        "token_revoke" => token::revoke,
        "audit_list" => token::audit,
    }
    workers {
        "blob_missing" => blobs::missing,
        "blob_fetch" => blobs::fetch,
        "blob_get" => blobs::get,
        "worker_hello" => worker::hello,
        "worker_session" => worker::session,
        "worker_outbox" => worker::outbox,
        "worker_shell_input" => visit::typed,
        "worker_shell_output" => visit::printed,
        "worker_cache_find" => worker::cache_find,
        "worker_cache_save" => worker::cache_save,
        "worker_layers_save" => worker::layers_save,
    }
}

/// The whole table, mounted, and the pages beside it.
pub fn router(app: Arc<App>) -> Router {
    let table = table(Arc::clone(&app));
    let alone = table.clone().fallback(|| async { pages::nowhere() });
    table.fallback(move |request: Request| pages::answer(Arc::clone(&app), alone.clone(), request))
}

/// The whole table, mounted.
fn table(app: Arc<App>) -> Router {
    let mut paths: BTreeMap<&'static str, MethodRouter> = BTreeMap::new();
    for (index, route) in ROUTES.iter().enumerate() {
        // A route without a handler is not there; a test sees to it that there is none.
        let Some(handler) = handler_of(route.operation) else { continue };
        let app = Arc::clone(&app);
        let answer = move |path: Result<RawPathParams, _>, request: Request| {
            let app = Arc::clone(&app);
            async move {
                let path = path.map_err(|_: axum::extract::rejection::RawPathParamsRejection| ());
                serve(app, (index, route, handler), path, request).await
            }
        };
        let filter = match route.method {
            Method::Get => MethodFilter::GET,
            Method::Post => MethodFilter::POST,
            Method::Put => MethodFilter::PUT,
            Method::Delete => MethodFilter::DELETE,
        };
        let methods = paths.remove(route.path).unwrap_or_default();
        paths.insert(route.path, methods.merge(on(filter, answer)));
    }
    let mut router = Router::new();
    for (path, methods) in paths {
        router = router.route(path, methods);
    }
    router.method_not_allowed_fallback(wrong_method)
}

async fn wrong_method() -> Response<Body> {
    stray(Problem::new(ProblemKind::MethodNotAllowed, "").help("see /openapi.json"))
}

/// The refusal of what is no line of the table.
pub(super) fn stray(mut refusal: Problem) -> Response<Body> {
    refusal.request = crate::parts::fresh_id();
    let mut response = problem::response(&refusal);
    mark(&mut response, &refusal.request);
    response
}

/// What every answer carries, whatever it says.
fn mark(response: &mut Response<Body>, id: &str) {
    if let Ok(value) = HeaderValue::from_str(id) {
        response.headers_mut().insert(REQUEST_ID, value);
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // What steps wrote stays what it is said to be, also in a browser.
    response.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
}

/// The one road.
async fn serve(
    app: Arc<App>,
    (index, route, handler): (usize, &'static Route, Handler),
    path: Result<RawPathParams, ()>,
    request: Request,
) -> Response<Body> {
    let begun = Instant::now();
    let id = request_id(request.headers());
    let done = run(Arc::clone(&app), route, handler, path, request, &id).await;
    let mut response = done.unwrap_or_else(|mut refusal| {
        refusal.request.clone_from(&id);
        app.troubles.note(route.operation, &mut refusal);
        problem::response(&refusal)
    });
    mark(&mut response, &id);
    app.metrics.answered(index, response.status().as_u16(), begun.elapsed());
    response
}

async fn run(
    app: Arc<App>,
    route: &'static Route,
    handler: Handler,
    path: Result<RawPathParams, ()>,
    request: Request,
    id: &str,
) -> Answered {
    // First of all, so that nobody learns anything without it.
    let look = request.extensions().get::<Arc<Look>>().cloned();
    let admitted = admission::admit(&app, route, request.headers(), look.as_deref()).await?;
    let path = path.map_err(|()| Problem::new(ProblemKind::Invalid, "the path is not UTF-8"))?;
    let path: HashMap<String, String> = path.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
    let query = parse_query(request.uri().query().unwrap_or_default())?;
    if let Some(unknown) = query.keys().find(|name| !route.parameters.iter().any(|known| known.name == *name)) {
        let name: String = unknown.chars().take(80).collect();
        return Err(Problem::new(ProblemKind::Invalid, format!("`{}` takes no parameter `{name}`", route.operation))
            .help("see /openapi.json"));
    }
    let from = request.extensions().get::<ConnectInfo<SocketAddr>>().map(|from| from.0);
    let (parts, stream) = request.into_parts();
    let (body, stream) = body_of(route, &parts.headers, stream).await?;
    let call = Call {
        route,
        path,
        query,
        headers: parts.headers,
        body,
        stream: stream.map(std::sync::Mutex::new),
        bearer: admitted.bearer,
        worker: admitted.worker,
        from,
        id: id.to_owned(),
    };
    admission::demand(&app, &call, look.as_deref()).await?;
    idempotency::once(app, call, handler).await
}

/// The body that the route has: read, if it is JSON, within the bound.
async fn body_of(route: &'static Route, headers: &HeaderMap, stream: Body) -> Result<(Bytes, Option<Body>), Problem> {
    let Some(body) = &route.body else { return Ok((Bytes::new(), None)) };
    let too_large = || Problem::new(ProblemKind::TooLarge, format!("the body may have {} bytes", body.bytes_max));
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    if length.is_some_and(|length| length > body.bytes_max) {
        return Err(too_large());
    }
    let media = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let is_taken = media.split(';').next().is_some_and(|media| media.trim().eq_ignore_ascii_case(body.media));
    let wrong_media = || {
        Problem::new(ProblemKind::MediaType, format!("the body is `{media}`"))
            .help(format!("send it as `content-type: {}`", body.media))
    };
    if matches!(body.content, Content::Bytes) {
        return if is_taken { Ok((Bytes::new(), Some(stream))) } else { Err(wrong_media()) };
    }
    let most = usize::try_from(body.bytes_max).unwrap_or(usize::MAX);
    let bytes = axum::body::to_bytes(stream, most).await.map_err(|_| too_large())?;
    match (bytes.is_empty(), body.presence) {
        (true, Presence::Optional) => Ok((bytes, None)),
        (true, Presence::Required) => {
            Err(Problem::new(ProblemKind::Invalid, format!("`{}` needs a body", route.operation))
                .help("see /openapi.json"))
        }
        (false, _) if is_taken => Ok((bytes, None)),
        (false, _) => Err(wrong_media()),
    }
}

/// The id that the sender gave, if it is one, or a fresh one.
fn request_id(headers: &HeaderMap) -> String {
    let given = headers.get(REQUEST_ID).and_then(|value| value.to_str().ok());
    let is_good = |id: &&str| {
        (1..=REQUEST_ID_BYTES_MAX).contains(&id.len())
            && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
    };
    given.filter(is_good).map_or_else(crate::parts::fresh_id, str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_route_has_a_handler() {
        let without: Vec<_> =
            ROUTES.iter().map(|route| route.operation).filter(|operation| handler_of(operation).is_none()).collect();
        assert_eq!(without, Vec::<&str>::new());
    }
}
