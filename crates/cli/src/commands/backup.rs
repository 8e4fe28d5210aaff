//! `ropewalk backup`: a copy of a whole server, made while it runs.

use std::path::Path;

use server::backup::{self, BackupError, BlobsIn, Description};

use super::Stop;
use crate::args::{Backup, Colour};
use crate::local::clock::now;
use crate::{exit, output};

/// Runs the command.
///
/// # Errors
/// If the server's folder is none, the target is not empty, or a part cannot be copied.
pub fn run(arguments: &Backup, colour: Colour) -> Result<u8, Stop> {
    let installation = &arguments.installation;
    let data = installation.existing_folder()?;
    let settings = installation.settings(&[], colour)?.settings;
    let file = installation.settings_path();
    let description =
        backup::make(&settings, &data, file.as_deref(), &arguments.to, now()).map_err(|error| refused(&error))?;
    output::print(told(&description, &arguments.to))?;
    Ok(if description.is_whole() { exit::PASSED } else { exit::FAILED })
}

/// What the user has to change stands apart from what the machine refused.
pub fn refused(error: &BackupError) -> Stop {
    match error {
        BackupError::NotEmpty(folder) => {
            Stop::wrong(format!("{} is not empty: give a folder that is empty or not there", folder.display()))
        }
        BackupError::NoBackup { .. } | BackupError::Part(server::parts::PartError::Setting(_)) => {
            Stop { code: exit::WRONG, ..Stop::of(error) }
        }
        _ => Stop::of(error),
    }
}

fn told(description: &Description, to: &Path) -> String {
    let Description { builds, facts, blobs, logs, .. } = description;
    let of_blobs = match description.blobs_in {
        BlobsIn::Backup => format!("{blobs} blobs"),
        BlobsIn::Bucket => format!("the names of {blobs} blobs"),
    };
    let mut text = format!("{builds} builds ({facts} facts), {of_blobs} and {logs} logs are in {}\n", to.display());
    if !description.keys.is_empty() {
        text.push_str("it holds the server's keys: keep it as closely as the server itself\n");
    }
    if description.blobs_in == BlobsIn::Bucket {
        text.push_str(
            "the blobs themselves stay in their bucket, which is to be kept by its own means, such as versions of its objects\n",
        );
    }
    if description.blobs_missing > 0 {
        let missing = description.blobs_missing;
        text.push_str(&format!("{missing} blobs that are named were not there: see `ropewalk doctor --all`\n"));
    }
    if description.logs_missing > 0 {
        let missing = description.logs_missing;
        text.push_str(&format!("logs of {missing} builds were gone: see `ropewalk doctor --all`\n"));
    }
    if description.logs_damaged > 0 {
        let damaged = description.logs_damaged;
        text.push_str(&format!("logs of {damaged} builds are damaged: see `ropewalk doctor --all`\n"));
    }
    text.push_str(&format!("next: ropewalk restore --verify {}\n", crate::whereabouts::quoted(&to.to_string_lossy())));
    text
}

#[cfg(test)]
mod tests {
    use server::settings::Settings;

    use super::*;

    #[test]
    fn of_blobs_in_a_bucket_there_are_only_the_names() {
        let scratch = tempfile::tempdir().expect("a folder");
        let (data, to) = (scratch.path().join("data"), scratch.path().join("copy"));
        let made = backup::make(&Settings::default(), &data, None, &to, now()).expect("a backup");
        let check = |blobs_in, blobs: &str| {
            let text = told(&Description { blobs_in, blobs: 8, ..made.clone() }, Path::new("copy"));
            assert!(text.starts_with(&format!("0 builds (0 facts), {blobs} and 0 logs are in copy\n")), "{text}");
        };
        check(BlobsIn::Backup, "8 blobs");
        check(BlobsIn::Bucket, "the names of 8 blobs");
    }
}
