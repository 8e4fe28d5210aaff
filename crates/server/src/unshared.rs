//! Logs of ended builds that stand in this server's folder alone though logs are shared: they ended before the setting said so. The
//! server that leads puts them where the others see them, once it has started, one after the other.

use std::sync::Arc;

use graph::{BuildId, with_causes};

use crate::notices;
use crate::records::StoredLog;
use crate::server::Server;

/// Shares what is not shared yet. Ends at the first refusal: the next start goes on.
pub async fn share(server: Arc<Server>) {
    let listing = Arc::clone(&server);
    let listed = tokio::task::spawn_blocking(move || listing.logs.unshared().map_err(|error| with_causes(&error)));
    let builds = match listed.await {
        Ok(Ok(builds)) => builds,
        Ok(Err(error)) => return refused("logs that other servers do not see could not be listed", &error),
        // The process ends.
        Err(_) => return,
    };
    for build in builds {
        // Whoever removes a build takes its log first.
        let _stays = server.removals.read().await;
        let sharing = Arc::clone(&server);
        match tokio::task::spawn_blocking(move || share_one(&sharing, build)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return refused(&format!("the log of build {build} is not shared yet"), &error),
            Err(_) => return,
        }
    }
}

fn refused(what: &str, why: &str) {
    notices::warning(&format!("{what}: {why}; the next start tries again"));
}

fn share_one(server: &Server, build: BuildId) -> Result<(), String> {
    let row = server.store.build(build).map_err(|error| with_causes(&error))?;
    let stored = server.records.read::<StoredLog>(&build.to_string()).map_err(|error| with_causes(&error))?;
    // Of one that runs its end will do it, and what is left of one that was shared is part of that.
    match row {
        Some(row) if row.finished.is_some() && stored.is_none() => {
            server.records.end_log(&server.logs, build, server.now())
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};
    use std::path::Path;
    use std::time::Duration;

    use engine::fact::What;
    use engine::{BuildRequest, Fact};
    use graph::{Event, EventKind, Timestamp, Trust, Verdict};
    use store::log::{Batch, Logs, LogsSettings, SharedLogs, Sharing, StepEnd, Stream, StreamKey};

    use super::*;
    use crate::Running;
    use crate::access::{Access, RootKey, StoreLedger};
    use crate::parts::{Storage, open_blobs, open_database, open_storage};
    use crate::records::LogPhase;
    use crate::server::Parts;
    use crate::settings::{Durability, OnOff, Settings};
    use crate::world::{NoValue, SecretSource};

    struct NoSecrets;

    impl SecretSource for NoSecrets {
        fn values(&self, _: &str, _: Trust, _: &BTreeSet<String>) -> Result<BTreeMap<String, String>, NoValue> {
            Ok(BTreeMap::new())
        }
    }

    fn settings(logs_shared: OnOff) -> Settings {
        Settings {
            store_durability: Durability::Process,
            logs_durability: Durability::Process,
            logs_shared,
            ..Settings::default()
        }
    }

    fn serve(data: &Path, logs_shared: OnOff) -> Running {
        let Storage { store, blobs, logs } = open_storage(&settings(logs_shared), data).expect("it opens");
        let access = Access::new(RootKey::of(data).expect("a key"), Arc::new(StoreLedger(Arc::clone(&store))));
        let parts = Parts {
            access: Arc::new(access),
            store,
            blobs,
            logs: Arc::new(logs),
            secrets: Arc::new(NoSecrets),
            scratch: data.join("scratch"),
            clock: || Timestamp(2),
            early_turns: || (),
        };
        Server::start(settings(logs_shared), parts).expect("it starts")
    }

    fn add_build(storage: &Storage) -> BuildId {
        let build = storage.store.reserve_build().expect("a number");
        let mut batch = Batch::new(build, StreamKey { attempt: 1, step: 0 }, 0);
        assert!(batch.push(Stream::Stdout, 7, b"said\n").is_empty());
        batch.end = Some(StepEnd::Closed);
        assert_eq!(storage.logs.append(&[batch])[0].next_byte, 5);
        let request = BuildRequest::new(Event::new(EventKind::Manual), "pipeline.yaml");
        let facts =
            [What::BuildCreated(Box::new(request)), What::BuildEnded { verdict: Verdict::Passed { note: None } }];
        let facts: Vec<Fact> = facts.into_iter().map(|what| Fact { build, at: Timestamp(1), what }).collect();
        storage.store.append(&facts).expect("they are kept");
        build
    }

    fn bytes(logs: &Logs, records: &crate::records::Records, build: BuildId) -> Option<u64> {
        let place = records.log_place(build, LogPhase::Ended).expect("the records answer");
        let reader = logs.reader(build, place).expect("it reads")?;
        reader.stream(StreamKey { attempt: 1, step: 0 }).map(|stream| stream.bytes)
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn logs_are_seen_by_every_server_whatever_the_setting_was_when_they_were_written() {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let data = folders[0].path();
        let storage = open_storage(&settings(OnOff::Off), data).expect("it opens");
        let ended = add_build(&storage);
        drop(storage);

        let server = serve(data, OnOff::On);
        let records = server.server.records.clone();
        while records.read::<StoredLog>(&ended.to_string()).expect("the records answer").is_none() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.end().await.expect("it ends");
        let chunks = open_database(&settings(OnOff::On), data).expect("it opens");
        let places = SharedLogs { chunks, blobs: open_blobs(&settings(OnOff::On), data).expect("they open") };
        let root = folders[1].path().join("logs");
        let durability = store::Durability::Process;
        let other = Logs::open(LogsSettings { root, durability, sharing: Sharing::Now(places) }).expect("it opens");
        assert_eq!(bytes(&other, &records, ended), Some(5));

        // Here is a copy alone, without which it is read all the same once the setting is another one.
        drop((other, records));
        std::fs::remove_dir_all(data.join("logs")).expect("it is removed");
        let storage = open_storage(&settings(OnOff::Off), data).expect("it opens");
        let records = crate::records::Records::new(Arc::clone(&storage.store));
        assert_eq!(bytes(&storage.logs, &records, ended), Some(5));
    }
}
