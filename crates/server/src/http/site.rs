//! What is said of the server itself, and the way to the first administrator.

use std::sync::Arc;

use api::problem::{Problem, ProblemKind};
use api::routes::JSON;
use api::token::{Created, Health, HealthStatus, Setup, Version};
use axum::body::Body;
use axum::http::{HeaderMap, StatusCode};
use web::screens::first;

use super::answer::{self, Answered, with};
use super::call::Call;
use super::control::audit;
use super::{App, metrics as figures, pages, problem};
use crate::server::Ending;
use crate::setup::{self, SetupError};

pub async fn health(_: Arc<App>, _: Call) -> Answered {
    answer::json(&Health { status: HealthStatus::Ok, text: String::new() })
}

pub async fn ready(app: Arc<App>, call: Call) -> Answered {
    let is_ending = *app.server.ending().borrow() != Ending::No;
    let engine = app.server.shell.ask(|_| ()).await;
    let store = app.blocking(|app| app.server.store.last_sequence().map_err(problem::store)).await;
    let text = match (is_ending, engine, store) {
        (true, ..) => "the server ends".to_owned(),
        (_, Err(error), _) => error.to_string(),
        (_, _, Err(mut refusal)) => {
            refusal.request.clone_from(&call.id);
            app.troubles.note(call.route.operation, &mut refusal);
            refusal.to_string()
        }
        (false, Ok(()), Ok(_)) => return answer::json(&Health { status: HealthStatus::Ok, text: String::new() }),
    };
    answer::json_as(StatusCode::SERVICE_UNAVAILABLE, &Health { status: HealthStatus::Unavailable, text })
}

pub async fn openapi(_: Arc<App>, _: Call) -> Answered {
    static TEXT: std::sync::LazyLock<String> = std::sync::LazyLock::new(api::openapi::text);
    Ok(with(StatusCode::OK, JSON, Body::from(TEXT.as_str())))
}

pub async fn version(_: Arc<App>, _: Call) -> Answered {
    let version = env!("CARGO_PKG_VERSION").to_owned();
    answer::json(&Version { version, worker_protocol: api::worker::PROTOCOL })
}

pub async fn metrics(app: Arc<App>, _: Call) -> Answered {
    let text = figures::text(&app).await?;
    let media = "text/plain; version=0.0.4; charset=utf-8";
    Ok(with(StatusCode::OK, media, Body::from(text)))
}

pub async fn setup_page(app: Arc<App>, call: Call) -> Answered {
    let secret = call.text("token").unwrap_or_default().to_owned();
    let looked = app.blocking(move |app| {
        let (access, records) = (&app.server.access, &app.server.records);
        match setup::look(access, records, &secret, app.now()) {
            Ok(()) => Ok(first::show(&secret)),
            Err(SetupError::Bad) => Ok(first::link_is_bad()),
            Err(SetupError::Done) => Ok(first::is_done()),
            Err(error) => Err(refused(error)),
        }
    });
    Ok(pages::page(&looked.await?, &HeaderMap::new()))
}

fn refused(error: SetupError) -> Problem {
    match error {
        SetupError::Bad => Problem::new(ProblemKind::Forbidden, error.to_string())
            .help("take the link that the server printed when it last started"),
        SetupError::Done => Problem::new(ProblemKind::Gone, error.to_string())
            .help("ask the administrator, or `ropewalk token create --admin` on the server's machine"),
        SetupError::Ledger(error) => problem::ledger(error),
        SetupError::Record(error) => problem::record(error),
        SetupError::Create(error) => problem::internal(&error),
    }
}

pub async fn setup(app: Arc<App>, call: Call) -> Answered {
    let wanted: Setup = call.json()?;
    if wanted.name.is_empty() || wanted.name.chars().count() > 100 {
        return Err(
            Problem::new(ProblemKind::Invalid, "the administrator needs a name").field("name", "1 to 100 letters")
        );
    }
    let name = wanted.name.clone();
    let made = app
        .blocking(move |app| {
            let at = app.now();
            let (access, records) = (&app.server.access, &app.server.records);
            setup::redeem(access, records, &wanted.token, &wanted.name, at).map_err(refused)
        })
        .await?;
    let (id, token) = made;
    audit(&app, &call, "", format!("token {id}"), format!("first administrator {name}")).await?;
    answer::json_as(StatusCode::CREATED, &Created { id, token })
}
