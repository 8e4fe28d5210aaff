//! What a killed `ropewalk` left with a container engine: found by a note in the data directory, told apart by labels, removed.
//!
//! A worker writes the note before it makes the first container of a build, so that one which never had any asks no engine.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use graph::{AttemptNumber, BuildId};
use serde_json::{Value, json};

use super::engine::{Engine, EngineError, Kind};
use super::visit::remove_left_visits;
use crate::worker::data_marker_prefix;

/// On everything that belongs to a data directory; see [`crate::data_marker_prefix`].
pub const DATA_LABEL: &str = "ropewalk.data";
/// The build's number.
pub const BUILD_LABEL: &str = "ropewalk.build";
/// The attempt's number within the build.
pub const ATTEMPT_LABEL: &str = "ropewalk.attempt";

/// The value of [`DATA_LABEL`].
#[must_use]
pub fn data_label(data: &Path) -> String {
    data_marker_prefix(data).trim_end_matches('/').to_owned()
}

/// What we write on everything that belongs to an attempt.
pub fn labels(data: &Path, build: BuildId, attempt: AttemptNumber) -> Value {
    json!({
        DATA_LABEL: data_label(data),
        BUILD_LABEL: build.to_string(),
        ATTEMPT_LABEL: attempt.to_string(),
    })
}

pub(super) fn notes_directory(data: &Path) -> PathBuf {
    data.join("containers")
}

/// Notes that a build has containers with this engine. `worker` tells the workers of a build apart.
///
/// # Errors
/// As the system refuses it.
pub fn note(data: &Path, build: BuildId, worker: &str, engine: &Engine) -> io::Result<()> {
    let notes = notes_directory(data);
    fs::create_dir_all(&notes)?;
    fs::write(notes.join(format!("{build}.{worker}")), engine.socket().as_os_str().as_encoded_bytes())
}

/// Takes the note away, once all is removed.
pub fn forget(data: &Path, build: BuildId, worker: &str) {
    let _ = fs::remove_file(notes_directory(data).join(format!("{build}.{worker}")));
}

/// Removes what builds of this data directory left with engines, unless `is_alive` says that somebody runs them; how many things
/// were removed. To be called when a `ropewalk` starts, before it starts steps. An engine that does not answer keeps what
/// it has until the next time.
///
/// # Errors
/// What the engine said last of what it did not remove.
pub async fn remove_leftovers(data: &Path, is_alive: impl Fn(BuildId) -> bool) -> Result<usize, EngineError> {
    let names = fs::read_dir(notes_directory(data)).into_iter().flatten().flatten();
    let mut noted: Vec<(BuildId, PathBuf)> = names
        .filter_map(|entry| {
            let name = entry.file_name();
            let (build, _) = name.to_str()?.split_once('.')?;
            Some((BuildId(build.parse().ok()?), entry.path()))
        })
        .filter(|(build, _)| !is_alive(*build))
        .collect();
    let mut sockets: BTreeSet<PathBuf> = BTreeSet::new();
    for (_, path) in &noted {
        sockets.extend(fs::read_to_string(path).map(PathBuf::from));
    }
    let dead: BTreeSet<String> = noted.iter().map(|(build, _)| build.to_string()).collect();
    let of_visits = data.to_owned();
    let visits = tokio::task::spawn_blocking(move || remove_left_visits(&of_visits)).await.unwrap_or(0);
    let (mut removed, mut refused) = (visits, None);
    for socket in sockets {
        let of_engine = async { remove_of(&Engine::at(&socket).await?, data, &dead).await };
        match of_engine.await {
            Ok(count) => removed += count,
            Err(error) => {
                noted.retain(|(_, path)| fs::read_to_string(path).map(PathBuf::from).ok().as_ref() != Some(&socket));
                refused = Some(error);
            }
        }
    }
    for (_, path) in noted {
        let _ = fs::remove_file(path);
    }
    refused.map_or(Ok(removed), Err)
}

async fn remove_of(engine: &Engine, data: &Path, dead: &BTreeSet<String>) -> Result<usize, EngineError> {
    let label = format!("{DATA_LABEL}={}", data_label(data));
    let mut removed = 0;
    for kind in Kind::ALL {
        for found in engine.labeled(kind, &label).await? {
            let build = found.labels.as_ref().and_then(|labels| labels.get(BUILD_LABEL));
            if build.is_some_and(|build| dead.contains(build)) {
                let name = if kind == Kind::Container { &found.id } else { &found.name };
                engine.remove(kind, name).await?;
                removed += 1;
            }
        }
    }
    Ok(removed)
}
