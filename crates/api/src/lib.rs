//! What travels over HTTP, and the client. The public shape is its own: neither engine nor store stand behind it.
//!
//! [`routes`] is the one table of all calls: server, client and the OpenAPI document are held to it. [`worker`] is what a
//! worker and its server say to each other; [`source`] is the state of a project's files as it is sent for a build. The
//! other files hold what people's programs see, one file a resource. Times travel as RFC 3339 texts ([`time`]), lists a
//! page at a time ([`page`]), refusals as [`problem`]s.

pub mod audit;
pub mod blob;
pub mod build;
pub mod cache;
#[cfg(feature = "client")]
pub mod client;
pub mod comparison;
pub mod environment;
pub mod event;
pub mod job;
pub mod log;
pub mod member;
pub mod openapi;
pub mod overview;
pub mod page;
pub mod pool;
pub mod problem;
pub mod project;
pub mod quarantine;
pub mod routes;
pub mod shell;
pub mod source;
pub mod test_history;
pub mod time;
pub mod token;
pub mod words;
pub mod worker;
pub mod worker_view;
pub mod workflow_command;
