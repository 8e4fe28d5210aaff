//! A worker over the wire: it proves its key, reads its session, posts its outbox, sends and fetches contents. What is cut,
//! forged or late changes nothing.

#[allow(dead_code, reason = "other tests use the rest of it")]
mod site;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use api::blob::{Digests, PARCEL_HEAD_BYTES, Stored, parcel_head, read_parcel_head};
use api::worker::{
    AttemptLayers, AttemptName, CacheEntry, CacheSaved, Challenge, FindCache, FoundCache, FromWorker, Hello, Join,
    LAYERS_ATTEMPTS_MAX, LAYERS_TEXT_BYTES_MAX, Layers, LayersDocument, Offer, PROTOCOL, SaveCache, SaveLayers,
    SavedCache, SavedLayers, Start, Taken, ToWorker,
};
use graph::{AttemptNumber, BuildId, Digest, LeaseId, Outcome, Timestamp, Verdict, WorkerId};
use ring::rand::SystemRandom;
use ring::signature::{Ed25519KeyPair, KeyPair};
use ropewalk_server::access::{GrantRequest, Narrowing, SealingKey, Subject, SubjectKind, Verb, narrow};
use ropewalk_server::http::worker::{SIGNED_PREFIX, worker_id};
use ropewalk_server::http::{App, router};
use ropewalk_server::live::Lines;
use ropewalk_server::records::{LayersText, StoredLayers};
use ropewalk_server::secrets::Secrets;
use serde::Serialize;
use serde::de::DeserializeOwned;
use site::{Site, Worker, log_section, manifest, moments, report, said, wanted};

const ONE: &str = "jobs:\n  hello:\n    run:\n      - echo hello\n";

/// A site that is served.
struct Served {
    site: Site,
    address: String,
    listener: tokio::task::JoinHandle<()>,
    _keys: tempfile::TempDir,
}

impl Served {
    async fn new() -> Self {
        Self::of(Site::new()).await
    }

    async fn of(site: Site) -> Self {
        let keys = tempfile::tempdir().unwrap();
        let key = Arc::new(SealingKey::of(keys.path()).unwrap());
        let secrets = Arc::new(Secrets::new(site.server().records.clone(), key));
        let app = Arc::new(App::new(Arc::clone(site.server()), secrets));
        let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = socket.local_addr().unwrap().to_string();
        let service = router(app).into_make_service_with_connect_info::<std::net::SocketAddr>();
        let listener = tokio::spawn(async move { axum::serve(socket, service).await.unwrap() });
        Self { site, address, listener, _keys: keys }
    }

    /// A worker's token for one pool.
    fn token(&self, pool: &str) -> String {
        let grant = GrantRequest {
            subject: Subject { kind: SubjectKind::Worker, name: "w".to_owned() },
            verbs: [Verb::Work].into(),
            projects: None,
            pools: Some([pool.to_owned()].into()),
            until: None,
        };
        let id = ropewalk_server::parts::fresh_id();
        self.site.server().access.create(&id, grant, "test", site::now()).unwrap()
    }

    async fn end(self) {
        self.site.end().await;
        self.listener.abort();
        let _ = self.listener.await;
    }
}

/// A worker that speaks HTTP.
struct Wire {
    url: String,
    http: reqwest::Client,
    key: Ed25519KeyPair,
    session: String,
    stream: reqwest::Response,
    unread: Vec<u8>,
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

async fn call<T: DeserializeOwned>(
    http: &reqwest::Client,
    url: &str,
    bearer: &str,
    body: &impl Serialize,
) -> Result<T, u16> {
    let request = http.post(url).bearer_auth(bearer).header("content-type", "application/json");
    let answer = request.body(serde_json::to_vec(body).unwrap()).send().await.unwrap();
    match answer.status().as_u16() {
        200 => Ok(serde_json::from_slice(&answer.bytes().await.unwrap()).unwrap()),
        status => Err(status),
    }
}

impl Wire {
    async fn join(served: &Served, token: &str, pools: &[&str]) -> Result<Self, u16> {
        let pkcs8 = Ed25519KeyPair::generate_pkcs8(&SystemRandom::new()).unwrap();
        let key = Ed25519KeyPair::from_pkcs8(pkcs8.as_ref()).unwrap();
        Self::join_with(served, token, pools, key, |signature| signature, []).await
    }

    async fn join_with(
        served: &Served,
        token: &str,
        pools: &[&str],
        key: Ed25519KeyPair,
        forge: impl Fn(Vec<u8>) -> Vec<u8>,
        leases: impl IntoIterator<Item = LeaseId>,
    ) -> Result<Self, u16> {
        let (url, http) = (format!("http://{}/api/v1", served.address), reqwest::Client::new());
        let public = hex(key.public_key().as_ref());
        let hello = Hello { key: public.clone(), protocol: PROTOCOL };
        let challenge: Challenge = call(&http, &format!("{url}/worker/hello"), token, &hello).await?;
        let signature = key.sign(format!("{SIGNED_PREFIX}{}", challenge.nonce).as_bytes());
        let pools = pools.iter().map(|pool| (*pool).to_owned()).collect();
        let join = Join {
            key: public,
            nonce: challenge.nonce,
            signature: hex(&forge(signature.as_ref().to_vec())),
            offer: Offer { name: "w".to_owned(), pools, slots: 1, ..Offer::default() },
            leases: leases.into_iter().collect(),
            is_draining: false,
        };
        let request = http.post(format!("{url}/worker/session")).bearer_auth(token);
        let request = request.header("content-type", "application/json");
        let stream = request.body(serde_json::to_vec(&join).unwrap()).send().await.unwrap();
        if stream.status().as_u16() != 200 {
            return Err(stream.status().as_u16());
        }
        let mut wire = Self { url, http, key, session: String::new(), stream, unread: Vec::new() };
        match wire.next().await {
            Some(ToWorker::Welcome { worker, session, .. }) => {
                assert_eq!(worker, worker_id(wire.key.public_key().as_ref()));
                wire.session = session;
            }
            line => panic!("{line:?}"),
        }
        Ok(wire)
    }

    async fn next(&mut self) -> Option<ToWorker> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return Some(serde_json::from_slice(&line).unwrap());
            }
            self.unread.extend_from_slice(&self.stream.chunk().await.ok()??);
        }
    }

    async fn start(&mut self) -> Start {
        loop {
            if let ToWorker::Start(start) = self.next().await.expect("the session goes on") {
                return *start;
            }
        }
    }

    async fn post(&self, path: &str, body: Vec<u8>) -> (u16, Vec<u8>) {
        let request = self.http.post(format!("{}{path}", self.url)).bearer_auth(&self.session);
        let answer = request.header("content-type", "application/octet-stream").body(body).send().await.unwrap();
        (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
    }

    async fn say(&self, sections: &[Vec<u8>]) -> Taken {
        let (status, body) = self.post("/worker/outbox", sections.concat()).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        serde_json::from_slice(&body).unwrap()
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str, body: &impl Serialize) -> Result<T, u16> {
        call(&self.http, &format!("{}{path}", self.url), &self.session, body).await
    }
}

fn run(test: impl Future<Output = ()>) {
    // Whoever comes later finds it installed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(test);
}

fn parcel(contents: &[&[u8]]) -> Vec<u8> {
    let blob =
        |content: &&[u8]| [&parcel_head(store::blob::digest(content), content.len() as u64)[..], content].concat();
    contents.iter().map(blob).collect::<Vec<_>>().concat()
}

#[test]
fn a_build_goes_its_way_over_the_wire() {
    run(async {
        let served = Served::new().await;
        let mut wire = Wire::join(&served, &served.token("default"), &["default"]).await.unwrap();
        let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", ONE)]);
        let build = served.site.server().submit(wanted(source)).await.unwrap().build;
        let start = wire.start().await;
        let lease = start.spec.lease;
        let present = FromWorker::Present { leases: [lease].into(), closed: None };
        let finished = FromWorker::Finished { lease, report: Box::new(report(Outcome::passed(), "echo hello")) };
        let post = [said(&present), log_section(&start.spec, 0, 0, b"hello\n", None), said(&finished)];
        assert_eq!(wire.say(&post).await, Taken { sections: 3, ..Taken::default() });
        // The answer means that it is stored.
        let row = served.site.server().store.build(build).unwrap().unwrap();
        assert_eq!(row.verdict, Verdict::Passed { note: None });
        let told =
            moments(&mut served.site.server().live.follow(build, None, Lines::Told).await.unwrap(), |_| false).await;
        assert!(told.contains(&"log hello 0.0 hello".to_owned()), "{told:?}");
        served.end().await;
    });
}

#[test]
fn only_who_holds_the_key_and_a_pool_joins() {
    run(async {
        let served = Served::new().await;
        let token = served.token("linux");
        let fresh = || Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let flip = |mut signature: Vec<u8>| {
            signature[5] ^= 1;
            signature
        };
        assert_eq!(Wire::join_with(&served, &token, &["linux"], fresh(), flip, []).await.err(), Some(401));
        assert_eq!(Wire::join(&served, &token, &["default"]).await.err(), Some(403));
        assert_eq!(Wire::join(&served, "", &["linux"]).await.err(), Some(401));
        // Of the pools that it offers it serves those that its token grants.
        let wire = Wire::join(&served, &token, &["linux", "default"]).await.unwrap();
        let sessions = served.site.server().dispatch.sessions();
        assert_eq!(sessions[0].offer.pools, BTreeSet::from(["linux".to_owned()]));
        drop(wire);
        served.end().await;
    });
}

#[test]
fn a_later_session_of_a_key_ends_the_earlier() {
    run(async {
        let served = Served::new().await;
        let token = served.token("default");
        let key = || Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
        let same = |signature| signature;
        let mut first = Wire::join_with(&served, &token, &["default"], key(), same, []).await.unwrap();
        let second = Wire::join_with(&served, &token, &["default"], key(), same, []).await.unwrap();
        assert!(first.next().await.is_none());
        assert_eq!(first.post("/worker/outbox", Vec::new()).await.0, 410);
        assert_eq!(second.post("/worker/outbox", Vec::new()).await.0, 200);
        served.end().await;
    });
}

#[test]
fn a_post_that_is_cut_off_changes_nothing_and_is_sent_again() {
    run(async {
        let served = Served::new().await;
        let mut wire = Wire::join(&served, &served.token("default"), &["default"]).await.unwrap();
        let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", ONE)]);
        let build = served.site.server().submit(wanted(source)).await.unwrap().build;
        let start = wire.start().await;
        let finished =
            FromWorker::Finished { lease: start.spec.lease, report: Box::new(report(Outcome::passed(), "echo")) };
        let body = [log_section(&start.spec, 0, 0, b"hello\n", None), said(&finished)].concat();
        let (address, session, cut) = (served.address.clone(), wire.session.clone(), body.clone());
        tokio::task::spawn_blocking(move || {
            let mut connection = TcpStream::connect(address).unwrap();
            let length = cut.len();
            let head = format!(
                "POST /api/v1/worker/outbox HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {session}\r\n\
                 content-type: application/octet-stream\r\ncontent-length: {length}\r\n\r\n"
            );
            connection.write_all(head.as_bytes()).unwrap();
            connection.write_all(&cut[..length / 2]).unwrap();
            connection.shutdown(std::net::Shutdown::Write).unwrap();
            // Whatever the server says, it has seen the end.
            let _ = connection.read_to_end(&mut Vec::new());
        })
        .await
        .unwrap();
        assert_eq!(served.site.server().store.build(build).unwrap().unwrap().verdict, Verdict::Running);
        let (status, _) = wire.post("/worker/outbox", body).await;
        assert_eq!(status, 200);
        served.site.ended(build).await;
        let told =
            moments(&mut served.site.server().live.follow(build, None, Lines::Told).await.unwrap(), |_| false).await;
        assert_eq!(told.iter().filter(|moment| moment.starts_with("log ")).count(), 1);
        served.end().await;
    });
}

#[test]
fn contents_are_what_they_are_called() {
    run(async {
        let served = Served::new().await;
        let wire = Wire::join(&served, &served.token("default"), &["default"]).await.unwrap();
        let large = vec![7_u8; 3 << 20];
        let contents: [&[u8]; 3] = [b"one", b"", &large];
        let digests: Vec<Digest> = contents.iter().map(|content| store::blob::digest(content)).collect();
        let asked = Digests { digests: digests.clone() };
        let missing: Digests = wire.ask("/blobs/missing", &asked).await.unwrap();
        assert_eq!(missing, asked);
        let (status, body) = wire.post("/blobs", parcel(&contents)).await;
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let stored: Stored = serde_json::from_slice(&body).unwrap();
        assert_eq!(stored, Stored { blobs: 3, bytes: (3 << 20) + 3 });
        assert_eq!(wire.ask::<Digests>("/blobs/missing", &asked).await.unwrap(), Digests::default());

        let wanted = Digests { digests: [vec![store::blob::digest(b"not there")], digests.clone()].concat() };
        let request = wire.http.post(format!("{}/blobs/fetch", wire.url)).bearer_auth(&wire.session);
        let request = request.header("content-type", "application/json").body(serde_json::to_vec(&wanted).unwrap());
        let fetched = request.send().await.unwrap().bytes().await.unwrap();
        assert!(fetched == parcel(&contents), "the parcel comes back as it was sent");
        let head: &[u8; PARCEL_HEAD_BYTES] = fetched.first_chunk().unwrap();
        assert_eq!(read_parcel_head(head), (digests[0], 3));

        let one = wire.http.get(format!("{}/blobs/{}", wire.url, digests[0])).bearer_auth(&wire.session);
        let part = one.header("range", "bytes=1-1").send().await.unwrap();
        assert_eq!(part.status().as_u16(), 206);
        assert_eq!(&part.bytes().await.unwrap()[..], b"n");

        // What is damaged is removed once somebody has got it, alone or in a parcel.
        for is_alone in [true, false] {
            let damaged = served.site.server().blobs.put(b"whole").unwrap();
            std::fs::remove_file(served.site.blob(damaged)).unwrap();
            std::fs::write(served.site.blob(damaged), b"whale").unwrap();
            let wanted = serde_json::to_vec(&Digests { digests: vec![damaged] }).unwrap();
            let request = match is_alone {
                true => wire.http.get(format!("{}/blobs/{damaged}", wire.url)),
                false => wire.http.post(format!("{}/blobs/fetch", wire.url)).body(wanted),
            };
            let request = request.bearer_auth(&wire.session).header("content-type", "application/json");
            let sent = request.send().await.unwrap().bytes().await.unwrap();
            assert!(sent.ends_with(b"whale"), "its reader finds out by the digest");
            assert!(!served.site.server().blobs.contains(damaged).unwrap());
        }

        let mut forged = parcel(&[b"true"]);
        forged[0] ^= 1;
        assert_eq!(wire.post("/blobs", forged).await.0, 422);
        let mut cut = parcel(&[b"first", b"second"]);
        cut.truncate(cut.len() - 1);
        assert_eq!(wire.post("/blobs", cut).await.0, 400);
        let whole = store::blob::digest(b"first");
        assert!(served.site.server().blobs.contains(whole).unwrap(), "what came whole is kept");
        served.end().await;
    });
}

#[test]
fn caches_are_found_by_lease_and_never_read_upwards() {
    run(async {
        let served = Served::new().await;
        let mut wire = Wire::join(&served, &served.token("default"), &["default"]).await.unwrap();
        let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", ONE)]);
        served.site.server().submit(wanted(source)).await.unwrap();
        let start = wire.start().await;
        let lease = start.spec.lease;
        let paths = store::blob::digest(b"paths");
        let digest = store::blob::digest(b"files");
        let entry = CacheEntry { key: "k1".to_owned(), digest, bytes: 5, packs: Vec::new() };
        let save = SaveCache { lease, paths, entry: entry.clone(), refused: None };
        let find = |lease, key: &str| FindCache { lease, paths, key: key.to_owned(), restore: vec!["k".to_owned()] };
        assert_eq!(wire.ask::<FoundCache>("/worker/caches/find", &find(lease, "k2")).await.unwrap().entry, None);
        let refused = wire.ask::<SavedCache>("/worker/caches/save", &save).await;
        assert_eq!(refused.err(), Some(409), "no entry names what is not here");
        served.site.server().blobs.put(b"files").unwrap();
        let saved = wire.ask::<SavedCache>("/worker/caches/save", &save).await.unwrap().saved;
        assert_eq!(saved, CacheSaved::Written);
        let saved = wire.ask::<SavedCache>("/worker/caches/save", &save).await.unwrap().saved;
        assert_eq!(saved, CacheSaved::Kept);
        let other = SaveCache { refused: Some(paths), ..save.clone() };
        let saved = wire.ask::<SavedCache>("/worker/caches/save", &other).await.unwrap().saved;
        assert_eq!(saved, CacheSaved::Kept, "it has been replaced meanwhile");
        let again = SaveCache { refused: Some(digest), ..save };
        let saved = wire.ask::<SavedCache>("/worker/caches/save", &again).await.unwrap().saved;
        assert_eq!(saved, CacheSaved::Written);
        assert_eq!(wire.ask::<FoundCache>("/worker/caches/find", &find(lease, "k2")).await.unwrap().entry, Some(entry));
        let foreign = wire.ask::<FoundCache>("/worker/caches/find", &find(LeaseId(1), "k2")).await;
        assert_eq!(foreign.err(), Some(409));
        served.end().await;
    });
}

#[test]
fn what_attempts_left_is_kept_together_and_of_ones_own_alone() {
    run(async {
        let served = Served::new().await;
        let mut wire = Wire::join(&served, &served.token("default"), &["default"]).await.unwrap();
        let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", ONE)]);
        let build = served.site.server().submit(wanted(source)).await.unwrap().build;
        let attempt = wire.start().await.spec.attempt;
        let text = |text: &str| LayersDocument::Text { text: text.to_owned() };
        let of = |build, attempt, document, blobs: &[Digest]| {
            let layers = Layers::Sent { document, blobs: blobs.to_vec(), bytes: 1 };
            AttemptLayers { build, attempt, layers }
        };
        let (foreign, index) = (AttemptNumber(99), served.site.server().blobs.put(b"index").unwrap());
        let absent = store::blob::digest(b"absent");
        let saves = [
            (vec![of(build, attempt, text("{}"), &[absent])], 409),
            (vec![of(build, attempt, LayersDocument::Blob(index), &[])], 422),
            (vec![of(build, attempt, text(&"x".repeat(LAYERS_TEXT_BYTES_MAX + 1)), &[])], 422),
            (vec![of(build, attempt, text("{}"), &[]); LAYERS_ATTEMPTS_MAX + 1], 422),
        ];
        for (attempts, status) in saves {
            let refused = wire.ask::<SavedLayers>("/worker/layers", &SaveLayers { attempts }).await;
            assert_eq!(refused.err(), Some(status));
        }
        let attempts = vec![
            of(build, foreign, text("{}"), &[]),
            of(build, attempt, text("{}"), &[index]),
            of(BuildId(77), attempt, text("{}"), &[]),
        ];
        let saved: SavedLayers = wire.ask("/worker/layers", &SaveLayers { attempts }).await.unwrap();
        let refused = [(build, foreign), (BuildId(77), attempt)];
        assert_eq!(saved.refused, refused.map(|(build, attempt)| AttemptName { build, attempt }));
        let (records, key) = (&served.site.server().records, |attempt| StoredLayers::key(build, attempt));
        let stored = |attempt| {
            let kept = records.read::<StoredLayers>(&key(attempt)).unwrap();
            kept.map(|(stored, _)| (stored.document.unwrap(), stored.blobs))
        };
        assert_eq!(stored(attempt), Some((store::blob::digest(b"{}"), vec![index])));
        assert_eq!(
            records.read::<LayersText>(&key(attempt)).unwrap().map(|(kept, _)| kept.text),
            Some("{}".to_owned())
        );
        assert_eq!(stored(foreign), None);
        assert!(records.read::<LayersText>(&key(foreign)).unwrap().is_none());
        served.end().await;
    });
}

/// A worker of the default pool by a token, whose key is always the same.
async fn same_worker(served: &Served, token: &str, leases: impl IntoIterator<Item = LeaseId>) -> Result<Wire, u16> {
    let key = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
    Wire::join_with(served, token, &["default"], key, |signature| signature, leases).await
}

#[test]
fn nothing_is_handed_to_a_worker_whose_token_was_revoked() {
    run(async {
        let served = Served::new().await;
        let token = served.token("default");
        let wire = same_worker(&served, &token, []).await.unwrap();
        served.site.revoke(&token);
        gets_nothing(served, wire, &token).await;
    });
}

#[test]
fn nothing_is_handed_to_a_worker_whose_token_has_come_to_its_end() {
    run(async {
        let served = Served::new().await;
        let end = Timestamp(site::now().0 + 1_000_000);
        let token = narrow(&served.token("default"), &Narrowing { until: Some(end), ..Narrowing::default() }).unwrap();
        let wire = same_worker(&served, &token, []).await.unwrap();
        while site::now() <= end {
            tokio::task::yield_now().await;
        }
        gets_nothing(served, wire, &token).await;
    });
}

/// A worker is handed no attempt, and is out.
async fn gets_nothing(served: Served, mut wire: Wire, token: &str) {
    let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", ONE)]);
    served.site.server().submit(wanted(source)).await.unwrap();
    assert_eq!(wire.next().await, None, "the attempt stays with the server");
    assert_eq!(wire.post("/worker/outbox", Vec::new()).await.0, 410);
    assert_eq!(same_worker(&served, token, []).await.err(), Some(401));
    served.end().await;
}

#[test]
fn what_a_worker_with_a_revoked_token_runs_is_tried_elsewhere() {
    run(async {
        let served = Served::of(Site::with_heartbeat(100)).await;
        let token = served.token("default");
        let mut wire = same_worker(&served, &token, []).await.unwrap();
        let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", ONE)]);
        let build = served.site.server().submit(wanted(source)).await.unwrap().build;
        let first = wire.start().await;
        served.site.revoke(&token);
        while wire.next().await.is_some() {}
        let mut other = Worker::join(&served.site, "other", []).await;
        let present = said(&FromWorker::Present { leases: BTreeSet::new(), closed: None });
        let second = loop {
            other.say(&served.site, std::slice::from_ref(&present)).await;
            if let Ok(start) = tokio::time::timeout(Duration::from_millis(50), other.start()).await {
                break start;
            }
        };
        assert_ne!(first.spec.attempt, second.spec.attempt);
        // What the first has to say counts for nothing.
        let report = Box::new(report(Outcome::passed(), "echo hello"));
        let finished = said(&FromWorker::Finished { lease: first.spec.lease, report });
        assert_eq!(wire.post("/worker/outbox", finished).await.0, 410);
        other.finish(&served.site, &second.spec).await;
        served.site.ended(build).await;
        let attempts = served.site.server().store.attempts(build, None).unwrap();
        let passed =
            attempts.iter().filter(|row| matches!(&row.ended, Some(ended) if ended.outcome == Outcome::passed()));
        assert_eq!((attempts.len(), passed.count()), (2, 1));
        served.end().await;
    });
}

#[test]
fn a_worker_that_is_given_another_token_in_time_goes_on_with_what_it_runs() {
    run(async {
        let served = Served::of(Site::with_heartbeat(2000)).await;
        let token = served.token("default");
        let mut wire = same_worker(&served, &token, []).await.unwrap();
        let source = manifest(&served.site, &[(".ropewalk/pipeline.yaml", ONE)]);
        let build = served.site.server().submit(wanted(source)).await.unwrap().build;
        let start = wire.start().await;
        served.site.revoke(&token);
        while wire.next().await.is_some() {}
        let lease = start.spec.lease;
        let wire = same_worker(&served, &served.token("default"), [lease]).await.unwrap();
        let report = Box::new(report(Outcome::passed(), "echo hello"));
        let taken = wire.say(&[said(&FromWorker::Finished { lease, report })]).await;
        assert_eq!(taken.stale, BTreeSet::new());
        served.site.ended(build).await;
        assert_eq!(served.site.server().store.attempts(build, None).unwrap().len(), 1);
        served.end().await;
    });
}

#[test]
fn a_worker_that_does_not_read_its_session_is_asked_for_its_token_too() {
    run(async {
        let served = Served::of(Site::with_heartbeat(10)).await;
        let token = served.site.worker_token();
        let join = Join { key: "00".to_owned(), ..Join::default() };
        let joined = served.site.server().join(WorkerId("w".into()), join, served.site.pass(&token)).await.unwrap();
        served.site.revoke(&token);
        let http = reqwest::Client::new();
        let refused = loop {
            let post = http.post(format!("http://{}/api/v1/worker/outbox", served.address)).bearer_auth(&joined.secret);
            let answer = post.header("content-type", "application/octet-stream").send().await.unwrap();
            if answer.status().as_u16() != 200 {
                break answer;
            }
        };
        assert_eq!(refused.status().as_u16(), 401);
        let text = refused.text().await.unwrap();
        assert!(text.contains("this token was revoked"), "{text}");
        assert!(served.site.server().dispatch.sessions().is_empty());
        served.end().await;
    });
}
