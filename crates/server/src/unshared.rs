//! Logs of ended builds that stand in this server's folder alone though logs are shared: they ended before the setting said so. The
//! server that leads puts them where the others see them, once it has started, one after the other.

use std::sync::Arc;

use graph::{BuildId, with_causes};

use crate::notices;
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
    // Of one that runs its end will do it. One that was shared may have gone on since.
    match row {
        Some(row) if row.finished.is_some() => server.records.end_log(&server.logs, build, server.now()),
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
    use crate::records::{LogPhase, Records, StoredLog};
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
        say(&storage.logs, build, 1);
        let request = BuildRequest::new(Event::new(EventKind::Manual), "pipeline.yaml");
        let facts =
            [What::BuildCreated(Box::new(request)), What::BuildEnded { verdict: Verdict::Passed { note: None } }];
        let facts: Vec<Fact> = facts.into_iter().map(|what| Fact { build, at: Timestamp(1), what }).collect();
        storage.store.append(&facts).expect("they are kept");
        build
    }

    fn say(logs: &Logs, build: BuildId, attempt: u32) {
        let mut batch = Batch::new(build, StreamKey { attempt, step: 0 }, 0);
        assert!(batch.push(Stream::Stdout, 7, b"said\n").is_empty());
        batch.end = Some(StepEnd::Closed);
        assert_eq!(logs.append(&[batch])[0].next_byte, 5);
    }

    fn others_logs(data: &Path, root: &Path) -> Logs {
        let chunks = open_database(&settings(OnOff::On), data).expect("it opens");
        let blobs = open_blobs(&settings(OnOff::On), data).expect("they open");
        let places = SharedLogs { chunks, blobs, recorded: Arc::new(|_| Ok(None)) };
        let (root, durability) = (root.to_owned(), store::Durability::Process);
        Logs::open(LogsSettings { root, durability, sharing: Sharing::Now(places) }).expect("it opens")
    }

    /// How many bytes each attempt said.
    fn said(logs: &Logs, records: &Records, build: BuildId, phase: LogPhase) -> Vec<u64> {
        let place = records.log_place(build, phase).expect("the records answer");
        let reader = logs.reader(build, place).expect("it reads").expect("there is a log");
        reader.streams().map(|stream| stream.bytes).collect()
    }

    fn bytes(logs: &Logs, records: &Records, build: BuildId) -> Option<u64> {
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
        let other = others_logs(data, &folders[1].path().join("logs"));
        assert_eq!(bytes(&other, &records, ended), Some(5));

        // Here is a copy alone, without which it is read all the same once the setting is another one.
        drop((other, records));
        std::fs::remove_dir_all(data.join("logs")).expect("it is removed");
        let storage = open_storage(&settings(OnOff::Off), data).expect("it opens");
        let records = Records::new(Arc::clone(&storage.store));
        assert_eq!(bytes(&storage.logs, &records, ended), Some(5));
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_log_that_was_shared_goes_on_whatever_the_setting_is_when_its_build_runs_again() {
        let folders = [(); 2].map(|()| tempfile::tempdir().expect("a folder"));
        let data = folders[0].path();
        let open = |shared| {
            let storage = open_storage(&settings(shared), data).expect("it opens");
            let records = Records::new(Arc::clone(&storage.store));
            (storage, records)
        };
        let (storage, records) = open(OnOff::On);
        let build = add_build(&storage);
        records.end_log(&storage.logs, build, Timestamp(2)).expect("it is stored");
        drop((storage, records));
        let mut expected = vec![5];
        for (attempt, shared) in [(2, OnOff::On), (3, OnOff::Off)] {
            let (storage, records) = open(shared);
            assert_eq!(said(&storage.logs, &records, build, LogPhase::Growing), expected);
            say(&storage.logs, build, attempt);
            expected.push(5);
            for phase in [LogPhase::Growing, LogPhase::Ended] {
                assert_eq!(said(&storage.logs, &records, build, phase), expected, "{phase:?}");
            }
            records.end_log(&storage.logs, build, Timestamp(2)).expect("it is finished");
            assert_eq!(said(&storage.logs, &records, build, LogPhase::Ended), expected);
        }
        // What it said while it was not shared is, once it is again.
        let (storage, records) = open(OnOff::On);
        let digest = |records: &Records| {
            let stored = records.read::<StoredLog>(&build.to_string()).expect("the records answer");
            stored.expect("it is stored").0.digest
        };
        let before = digest(&records);
        drop((storage, records));
        let server = serve(data, OnOff::On);
        let records = server.server.records.clone();
        while digest(&records) == before {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        server.end().await.expect("it ends");
        let other = others_logs(data, &folders[1].path().join("logs"));
        assert_eq!(said(&other, &records, build, LogPhase::Ended), expected);
    }
}
