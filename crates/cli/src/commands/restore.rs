//! `ropewalk restore`: verifies a backup, and puts it into an empty data folder.

use std::path::Path;

use server::backup::{self, BlobsIn, BlobsPut, Description, Gaps, LogGap, Restored, Verified};

use super::Stop;
use super::backup::refused;
use crate::args::{Colour, Installation, Restore};
use crate::{exit, output, words};

/// The most artifacts, and logs, that are told one by one as missing.
const GAPS_TOLD_MAX: usize = 1000;

/// Runs the command.
///
/// # Errors
/// If there is no backup, it is damaged, or it cannot be put where it is to go.
pub fn run(arguments: &Restore, colour: Colour) -> Result<u8, Stop> {
    let verified = backup::verify(&arguments.from).map_err(|error| refused(&error))?;
    if verified.n_faults > 0 && !arguments.damaged {
        output::print(faults(&verified))?;
        return Ok(exit::FAILED);
    }
    if arguments.verify {
        output::print(format!("{}\n", summary(&verified.description)))?;
        return Ok(exit::PASSED);
    }
    let installation = Installation { data: arguments.data.clone(), config: None };
    let data = installation.folder();
    if verified.n_faults > 0 {
        let restored = backup::restore_damaged(&arguments.from, &data).map_err(|error| refused(&error))?;
        output::print(told(&verified) + &missing(&restored.gaps) + &next(&restored, &data, &installation, colour))?;
        return Ok(exit::PASSED);
    }
    let restored = backup::restore(&arguments.from, &data).map_err(|error| refused(&error))?;
    output::print(next(&restored, &data, &installation, colour))?;
    Ok(exit::PASSED)
}

/// What the restored server has not, a line each.
fn missing(gaps: &Gaps) -> String {
    let mut text = String::new();
    for (build, job, name) in gaps.artifacts.iter().take(GAPS_TOLD_MAX) {
        text.push_str(&format!("missing: the artifact `{name}` of `{job}` in build {build}\n"));
    }
    for (build, gap) in gaps.logs.iter().take(GAPS_TOLD_MAX) {
        text.push_str(&match gap {
            LogGap::Kept => format!("damaged: the log of build {build}, put back as it is\n"),
            LogGap::Lost => format!("missing: the log of build {build}\n"),
        });
    }
    let untold = [gaps.artifacts.len(), gaps.logs.len()].map(|count| count.saturating_sub(GAPS_TOLD_MAX));
    if untold != [0, 0] {
        text.push_str(&format!(
            "and {} and {} more\n",
            words::count(untold[0], "artifact"),
            words::count(untold[1], "log")
        ));
    }
    if gaps.blobs > 0 {
        text.push_str(&format!(
            "{} missing: what is of no artifact above is of sources, caches or earlier results; jobs make the latter anew\n",
            words::count(usize::try_from(gaps.blobs).unwrap_or(usize::MAX), "blob")
        ));
    }
    for file in &gaps.files {
        text.push_str(&format!("missing: {file}\n"));
    }
    text
}

fn faults(verified: &Verified) -> String {
    told(verified) + "the backup is not whole: use another one, or restore what there is of it by --damaged\n"
}

fn told(verified: &Verified) -> String {
    let mut text = String::new();
    for fault in &verified.faults {
        text.push_str(&format!("damaged: {fault}\n"));
    }
    let untold = verified.n_faults - verified.faults.len() as u64;
    if untold > 0 {
        text.push_str(&format!("and {untold} more\n"));
    }
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

fn next(restored: &Restored, data: &Path, installation: &Installation, colour: Colour) -> String {
    let shown = crate::whereabouts::quoted(&data.to_string_lossy());
    let description = &restored.description;
    let mut text = format!("restored {} builds into {shown}\n", description.builds);
    match (&restored.blobs, &description.blobs_folder) {
        (BlobsPut::Beside { folder, why }, _) => text.push_str(&format!(
            "the blobs are in {shown}/blobs: {}, where the server had them, {why}; set `blobs.url` to `directory`, or move them into an empty \
             folder and set it to that\n",
            folder.display()
        )),
        (BlobsPut::Back, Some(folder)) => text.push_str(&format!("its blobs are in {}\n", folder.display())),
        (BlobsPut::Back, None) => {}
    }
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

#[cfg(test)]
mod tests {
    use graph::{BuildId, JobName};

    use super::*;

    #[test]
    fn what_could_not_be_put_back_is_told_a_line_each() {
        let artifact = |build, job: &str, name: &str| (BuildId(build), JobName::from(job), name.to_owned());
        let gaps = Gaps {
            artifacts: [artifact(3, "test", "report"), artifact(2, "build", "binary")].into(),
            blobs: 4,
            logs: vec![(BuildId(2), LogGap::Lost), (BuildId(3), LogGap::Kept)],
            files: vec!["secrets.key".to_owned()],
        };
        let expected = "missing: the artifact `binary` of `build` in build 2
missing: the artifact `report` of `test` in build 3
missing: the log of build 2
damaged: the log of build 3, put back as it is
4 blobs missing: what is of no artifact above is of sources, caches or earlier results; jobs make the latter anew
missing: secrets.key
";
        assert_eq!(missing(&gaps), expected);
        assert_eq!(missing(&Gaps::default()), "");
    }

    #[test]
    fn of_very_many_gaps_the_rest_is_counted() {
        let artifact = |n| (BuildId(1), JobName::from("test"), format!("report {n:04}"));
        let mut gaps = Gaps { artifacts: (0..=GAPS_TOLD_MAX).map(artifact).collect(), ..Gaps::default() };
        let told = missing(&gaps);
        assert_eq!(told.lines().count(), GAPS_TOLD_MAX + 1);
        assert!(told.ends_with("`report 0999` of `test` in build 1\nand 1 artifact and 0 logs more\n"), "{told}");
        gaps.logs = (0..1003).map(|build| (BuildId(build), LogGap::Lost)).collect();
        assert!(missing(&gaps).ends_with("missing: the log of build 999\nand 1 artifact and 3 logs more\n"));
    }
}
