//! `ropewalk migrate-store`: the records of a stopped server, moved from SQLite to PostgreSQL or back.

use std::path::Path;
use std::time::Duration;

use server::parts::open_database;
use server::settings::{Setting, Settings, StoreUrl};
use store::{StoreError, transfer};

use super::Stop;
use crate::args::{Colour, MigrateStore};
use crate::installation;
use crate::{exit, output};

/// Runs the command.
///
/// # Errors
/// If the server runs, the target is not empty, or one of the databases refuses.
pub fn run(arguments: &MigrateStore, colour: Colour) -> Result<u8, Stop> {
    let data = arguments.installation.existing_folder()?;
    let mut settings = arguments.installation.settings(&[], colour)?.settings;
    if arguments.from_sqlite {
        settings.store_url = StoreUrl("sqlite".to_owned());
    }
    let to = StoreUrl::parse(&arguments.to)
        .map_err(|expected| Stop::wrong(format!("--to is `{}`: expected {expected}", arguments.to)))?;
    let target = Settings { store_url: to, ..settings.clone() };
    if settings.store_url == target.store_url {
        return Err(Stop::wrong("the records are there already: `store.url` says the same"));
    }
    let lock = installation::lock(&data, "migrate-store");
    let lock = lock.map_err(|error| Stop::infra(format!("cannot use {}: {error}", data.display())))?;
    let _lock = lock.map_err(|_| runs())?;
    let opened = |settings: &Settings| open_database(settings, &data).map_err(Stop::from);
    let (from, to) = (opened(&settings)?, opened(&target)?);
    // No other server may write meanwhile, wherever it runs.
    let Some(_leads) = from.lead(Duration::ZERO)? else { return Err(runs()) };
    let moved = transfer(&*from, &*to).map_err(|error| match error {
        StoreError::NotEmpty => Stop::wrong(taken(arguments, &data)),
        error => Stop::of(&error),
    })?;
    let rows: u64 = moved.rows.iter().map(|(_, count)| count).sum();
    let builds = moved.rows.iter().find(|(table, _)| *table == "builds").map_or(0, |(_, count)| *count);
    output::print(format!(
        "{builds} builds ({rows} rows) were moved, and compared row by row\n\
         next: set `store.url` to where they are now (in the file of settings, or by ROPEWALK_STORE_URL), then start the \
         server; the records that were there stay as they are until you remove them\n"
    ))?;
    Ok(exit::PASSED)
}

fn runs() -> Stop {
    Stop::wrong("a server runs with these records: stop it first, and start it again with the new `store.url`")
}

fn taken(arguments: &MigrateStore, data: &Path) -> String {
    if arguments.to == "sqlite" {
        let records = data.join("records");
        return format!("there are records in {} already: move that folder away first", records.display());
    }
    "there are records in that database already: give an empty one".to_owned()
}
