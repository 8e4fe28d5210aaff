//! `ropewalk restore`: verifies a backup, and puts it into an empty data folder.

use std::path::Path;

use server::backup::{self, BlobsIn, Description, Verified};

use super::Stop;
use super::backup::refused;
use crate::args::{Colour, Installation, Restore};
use crate::{exit, output};

/// Runs the command.
///
/// # Errors
/// If there is no backup, it is damaged, or it cannot be put where it is to go.
pub fn run(arguments: &Restore, colour: Colour) -> Result<u8, Stop> {
    let verified = backup::verify(&arguments.from).map_err(|error| refused(&error))?;
    if verified.n_faults > 0 {
        output::print(faults(&verified))?;
        return Ok(exit::FAILED);
    }
    if arguments.verify {
        output::print(format!("{}\n", summary(&verified.description)))?;
        return Ok(exit::PASSED);
    }
    let installation = Installation { data: arguments.data.clone(), config: None };
    let data = installation.folder();
    let description = backup::restore(&arguments.from, &data).map_err(|error| refused(&error))?;
    output::print(next(&description, &data, &installation, colour))?;
    Ok(exit::PASSED)
}

fn faults(verified: &Verified) -> String {
    let mut text = String::new();
    for fault in &verified.faults {
        text.push_str(&format!("damaged: {fault}\n"));
    }
    let untold = verified.n_faults - verified.faults.len() as u64;
    if untold > 0 {
        text.push_str(&format!("and {untold} more\n"));
    }
    text.push_str("the backup is not whole: use another one\n");
    text
}

fn summary(description: &Description) -> String {
    let Description { builds, facts, blobs, logs, made_by, .. } = description;
    let blobs = match description.blobs_in {
        BlobsIn::Backup => format!("{blobs} blobs"),
        BlobsIn::Bucket => format!("the names of {blobs} blobs in a bucket, which was not looked at,"),
    };
    format!("whole: {builds} builds ({facts} facts), {blobs} and {logs} logs, made by Ropewalk {made_by}")
}

fn next(description: &Description, data: &Path, installation: &Installation, colour: Colour) -> String {
    let shown = crate::whereabouts::quoted(&data.to_string_lossy());
    let mut text = format!("restored {} builds into {shown}\n", description.builds);
    let settings = installation.settings(&[], colour);
    if settings.is_ok_and(|loaded| loaded.settings.store_url.0 != "sqlite") {
        text.push_str(&format!(
            "the records are in {shown}/records now, and the settings name a PostgreSQL database: \
             set `store.url` to `sqlite`, or move them into an empty database with \
             `ropewalk migrate-store --from-sqlite --data {shown} --to URL`\n"
        ));
    }
    text.push_str(&format!("next: ropewalk doctor --data {shown}, then ropewalk serve --data {shown}\n"));
    text
}
