//! The pages that people look at.
//!
//! A page is a view of what the HTTP API answers, and of nothing else: a screen asks a [`Source`] for documents by the
//! API's own paths, with the rights of whoever looks, and writes them out as HTML. So there is one place where rights are
//! checked, a page shows nothing that a program could not read, and every screen is tested with plain documents.
//!
//! Reading works without JavaScript. The modules in `assets/` only make it better: they replace the elements marked
//! `data-live` when something happens, and load the lines of a log that are looked at.
//!
//! Reading order: here the walk; [`screens`] each page; [`page`] what all pages have; [`terminal`] what steps print.
//!
//! **Adding a page:** its path in [`Screen::of`], a file in `screens/`.

pub mod actions;
pub mod assets;
pub mod badge;
pub mod layout;
mod markdown;
pub mod page;
pub mod paths;
pub mod screens;
pub mod terminal;
pub mod words;

use std::collections::BTreeMap;
use std::future::Future;

use api::problem::{Problem, ProblemKind};
use graph::Timestamp;
use serde::de::DeserializeOwned;

pub use actions::Action;
pub use page::Document;

/// What screens read: the answers of the HTTP API to whoever looks.
pub trait Source: Sync {
    /// The body of the answer to a `GET` of this path and query.
    ///
    /// # Errors
    /// What the API says instead.
    fn get(&self, path: &str) -> impl Future<Output = Result<Vec<u8>, Problem>> + Send;
}

/// The names of a query whose values are kept for the next page: what is drawn, and in which order.
pub const KEPT: [&str; 2] = ["view", "by"];
/// The longest value that is kept, in bytes: one of our own words.
pub const KEPT_BYTES_MAX: usize = 16;

/// Where a page is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Place {
    /// In a window of its own.
    #[default]
    Window,
    /// In another page of ours, beside what that shows.
    Panel,
}

/// A request for a page.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ask {
    /// The parts of the path between slashes, decoded.
    pub path: Vec<String>,
    /// The query, decoded.
    pub query: BTreeMap<String, String>,
    /// What the reader chose before ([`KEPT`]), by name.
    pub kept: BTreeMap<String, String>,
    /// The present time.
    pub now: Timestamp,
    /// Where the server is reached, as the browser says it: for commands to copy.
    pub address: String,
    /// Where it will be shown.
    pub place: Place,
}

impl Ask {
    /// A value of the query; empty if it is absent.
    #[must_use]
    pub fn text(&self, name: &str) -> &str {
        self.query.get(name).map_or("", String::as_str)
    }

    /// A value of the query, else what was chosen before; empty if nothing was.
    #[must_use]
    pub fn choice(&self, name: &str) -> &str {
        self.query.get(name).or_else(|| self.kept.get(name)).map_or("", String::as_str)
    }

    /// A number of the query.
    #[must_use]
    pub fn number(&self, name: &str) -> Option<u64> {
        self.text(name).parse().ok()
    }
}

/// A page that there is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Screen {
    /// All projects.
    Projects,
    /// How all projects stand, to be seen from afar.
    Wall,
    /// One project with its builds.
    Project {
        /// Its name.
        project: String,
    },
    /// The settings of a project.
    ProjectSettings {
        /// Its name.
        project: String,
    },
    /// One test over the builds of a project.
    Test {
        /// The project.
        project: String,
    },
    /// The tests of a project that are in quarantine.
    Quarantine {
        /// The project.
        project: String,
    },
    /// The builds of all projects.
    Builds,
    /// The tests of one build.
    Tests {
        /// The build's id.
        build: String,
    },
    /// One build beside another.
    Compare {
        /// The build's id.
        build: String,
    },
    /// What the steps of one build said of lines of files.
    Annotations {
        /// The build's id.
        build: String,
    },
    /// One build.
    Build {
        /// Its id.
        build: String,
    },
    /// One job of a build, with its log.
    Job {
        /// The build's id.
        build: String,
        /// The job's full name.
        job: String,
    },
    /// The attempts of a job, side by side.
    Attempts {
        /// The build's id.
        build: String,
        /// The job's full name.
        job: String,
    },
    /// The files of an artifact, or one of them.
    Artifact {
        /// The build's id.
        build: String,
        /// The archive's digest.
        digest: String,
    },
    /// Lines of a log, to be put into a page.
    Lines {
        /// The build's id.
        build: String,
        /// The attempt's number.
        attempt: String,
        /// The step's index.
        step: String,
    },
    /// The groups of a log, to be put into a page.
    Groups {
        /// The build's id.
        build: String,
        /// The attempt's number.
        attempt: String,
        /// The step's index.
        step: String,
    },
    /// Pools, what waits in them, and workers.
    Queue,
    /// Who looks, and what they may make of their token.
    Settings,
    /// The people who may sign in.
    Members,
    /// The tokens that were made here.
    Tokens,
    /// Who did what.
    Audit,
    /// What is kept to be taken again.
    Caches,
    /// What one kept result is made of.
    Result {
        /// The operation's digest.
        digest: String,
    },
    /// The form for a token.
    SignIn,
    /// What a member's link leads to.
    Join,
}

impl Screen {
    /// The screen of a path; `None` if there is none.
    #[must_use]
    pub fn of(path: &[String]) -> Option<Self> {
        let parts: Vec<&str> = path.iter().map(String::as_str).collect();
        Some(match parts.as_slice() {
            [] => Self::Projects,
            ["wall"] => Self::Wall,
            ["projects", project] => Self::Project { project: (*project).to_owned() },
            ["projects", project, "tests"] => Self::Test { project: (*project).to_owned() },
            ["projects", project, "quarantine"] => Self::Quarantine { project: (*project).to_owned() },
            ["builds"] => Self::Builds,
            ["builds", build, "tests"] => Self::Tests { build: (*build).to_owned() },
            ["builds", build, "annotations"] => Self::Annotations { build: (*build).to_owned() },
            ["builds", build, "compare"] => Self::Compare { build: (*build).to_owned() },
            ["builds", build] => Self::Build { build: (*build).to_owned() },
            ["builds", build, "jobs", job] => Self::Job { build: (*build).to_owned(), job: (*job).to_owned() },
            ["builds", build, "jobs", job, "attempts"] => {
                Self::Attempts { build: (*build).to_owned(), job: (*job).to_owned() }
            }
            ["builds", build, "artifacts", digest] => {
                Self::Artifact { build: (*build).to_owned(), digest: (*digest).to_owned() }
            }
            ["builds", build, "attempts", attempt, "lines", step] => {
                Self::Lines { build: (*build).to_owned(), attempt: (*attempt).to_owned(), step: (*step).to_owned() }
            }
            ["projects", project, "settings"] => Self::ProjectSettings { project: (*project).to_owned() },
            ["builds", build, "attempts", attempt, "groups", step] => {
                Self::Groups { build: (*build).to_owned(), attempt: (*attempt).to_owned(), step: (*step).to_owned() }
            }
            ["queue"] => Self::Queue,
            ["settings"] => Self::Settings,
            ["settings", "members"] => Self::Members,
            ["settings", "tokens"] => Self::Tokens,
            ["settings", "audit"] => Self::Audit,
            ["settings", "caches"] => Self::Caches,
            ["settings", "caches", digest] => Self::Result { digest: (*digest).to_owned() },
            ["sign-in"] => Self::SignIn,
            ["join"] => Self::Join,
            _ => return None,
        })
    }
}

/// Writes a page.
///
/// # Errors
/// What the API says instead, or that there is no such page.
pub async fn show(source: &impl Source, ask: &Ask) -> Result<Document, Problem> {
    let screen = Screen::of(&ask.path).ok_or_else(|| {
        Problem::new(ProblemKind::NotFound, "there is no such page").help("go to the list of projects")
    })?;
    match screen {
        Screen::Projects => screens::projects::show(source, ask).await,
        Screen::Wall => screens::wall::show(source, ask).await,
        Screen::Project { project } => screens::project::show(source, ask, &project).await,
        Screen::Test { project } => screens::test::show(source, ask, &project).await,
        Screen::Quarantine { project } => screens::quarantine::show(source, ask, &project).await,
        Screen::Builds => screens::builds::show(source, ask).await,
        Screen::Tests { build } => screens::tests::show(source, ask, &build).await,
        Screen::Annotations { build } => screens::annotations::show(source, &build).await,
        Screen::Compare { build } => screens::compare::show(source, ask, &build).await,
        Screen::Build { build } => screens::build::show(source, ask, &build).await,
        Screen::Job { build, job } => screens::job::show(source, ask, &build, &job).await,
        Screen::Attempts { build, job } => screens::attempts::show(source, ask, &build, &job).await,
        Screen::Artifact { build, digest } => screens::artifact::show(source, ask, &build, &digest).await,
        Screen::Lines { build, attempt, step } => screens::log::lines(source, ask, [&build, &attempt, &step]).await,
        Screen::Groups { build, attempt, step } => screens::log::groups(source, [&build, &attempt, &step]).await,
        Screen::Queue => screens::queue::show(source, ask).await,
        Screen::ProjectSettings { project } => screens::project_settings::show(source, ask, &project).await,
        Screen::Settings => screens::settings::you(source).await,
        Screen::Members => screens::members::show(source, ask).await,
        Screen::Tokens => screens::settings::tokens(source, ask).await,
        Screen::Audit => screens::settings::audit(source, ask).await,
        Screen::Caches => screens::settings::caches(source, ask).await,
        Screen::Result { digest } => screens::settings::result(source, &digest).await,
        Screen::SignIn => Ok(screens::sign_in::show(ask)),
        Screen::Join => Ok(screens::members::join(ask)),
    }
}

/// Reads one document.
pub(crate) async fn read<T: DeserializeOwned>(source: &impl Source, path: &str) -> Result<T, Problem> {
    let body = source.get(path).await?;
    serde_json::from_slice(&body)
        .map_err(|error| Problem::new(ProblemKind::Internal, format!("`{path}` cannot be read: {error}")))
}

/// Reads a list, page after page, up to `most` items. Gives whether there were more.
pub(crate) async fn read_all<T: DeserializeOwned>(
    source: &impl Source,
    path: &str,
    most: usize,
) -> Result<(Vec<T>, bool), Problem> {
    let mut items = Vec::new();
    let mut cursor = String::new();
    let separator = if path.contains('?') { '&' } else { '?' };
    loop {
        let wanted = (most - items.len()).min(api::page::LIMIT_MAX as usize);
        let page: api::page::Page<T> = read(source, &format!("{path}{separator}limit={wanted}{cursor}")).await?;
        items.extend(page.items);
        match page.next {
            None => return Ok((items, false)),
            Some(_) if items.len() >= most => return Ok((items, true)),
            Some(next) => cursor = format!("&cursor={}", paths::encoded(&next)),
        }
    }
}
