//! What only a store across a network can do wrong.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use super::server::S3Server;
use super::*;

fn noise(length: usize) -> Vec<u8> {
    let mut noise = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut noise);
    noise
}

#[test]
fn a_large_file_goes_up_in_parts() {
    let Some(server) = S3Server::start() else { return };
    let blobs = server.blobs(None);
    let folder = tempfile::tempdir().unwrap();
    for length in [PART_BYTES - 1, PART_BYTES, PART_BYTES + 1, 2 * PART_BYTES, 2 * PART_BYTES + 5] {
        let content = noise(length as usize);
        let path = folder.path().join("file");
        fs::write(&path, &content).unwrap();
        let put = blobs.put_file(&path).unwrap();
        assert_eq!((put.digest, put.content_bytes), (digest(&content), length));
        assert_eq!(blobs.put_file(&path).unwrap(), put, "twice is as once");
        assert!(blobs.get(put.digest, u64::MAX).unwrap() == content);
        let mut part = Vec::new();
        blobs.open_range(put.digest, length - 9..length).unwrap().read_to_end(&mut part).unwrap();
        assert_eq!(part, content[content.len() - 9..]);
    }
}

/// Passes connections on; of each of the first ones only so many bytes of what the server says.
fn cutting(server: &S3Server, cuts: usize, bytes: u64) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (target, count) = (server.address.clone(), Arc::new(AtomicUsize::new(0)));
    let counter = Arc::clone(&count);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (Ok(client), Ok(server)) = (client, TcpStream::connect(&target)) else { return };
            let bytes = if counter.fetch_add(1, Ordering::SeqCst) < cuts { bytes } else { u64::MAX };
            let (mut from, mut to) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || io::copy(&mut from, &mut to));
            std::thread::spawn(move || {
                let _ = io::copy(&mut (&server).take(bytes), &mut &client);
                let _ = client.shutdown(std::net::Shutdown::Both);
                let _ = server.shutdown(std::net::Shutdown::Both);
            });
        }
    });
    (format!("http://{address}"), count)
}

#[test]
fn reading_goes_on_where_the_connection_broke() {
    let Some(server) = S3Server::start() else { return };
    let content = noise(3_000_000);
    let name = server.blobs(None).put(&content).unwrap();
    let (endpoint, connections) = cutting(&server, 4, 800_000);
    let blobs = S3Blobs::open(S3Settings { endpoint, ..server.settings() }).unwrap();
    assert!(blobs.get(name, u64::MAX).unwrap() == content);
    assert!(connections.load(Ordering::SeqCst) > 2);
}

#[test]
fn a_put_whose_answer_is_lost_is_done_again() {
    let Some(server) = S3Server::start() else { return };
    let (endpoint, connections) = cutting(&server, 3, 20);
    let blobs = S3Blobs::open(S3Settings { endpoint, ..server.settings() }).unwrap();
    let name = blobs.put(b"content").unwrap();
    assert_eq!(blobs.get(name, 99).unwrap(), b"content");
    assert!(connections.load(Ordering::SeqCst) > 3);
}

#[test]
fn a_server_that_is_gone_is_an_error_after_some_tries() {
    let Some(server) = S3Server::start() else { return };
    let blobs = server.blobs(None);
    drop(server);
    let error = blobs.put(b"content").unwrap_err();
    assert!(matches!(error, BlobError::Io(_)), "{error:?}");
    let text = format!("{error:?}");
    assert!(!text.contains("Signature") && !text.contains("secret"), "{text}");
}

#[test]
fn wrong_settings_are_told_at_the_start() {
    let Some(server) = S3Server::start() else { return };
    let check = |settings: S3Settings, expected: &str| match S3Blobs::open(settings) {
        Err(BlobError::Io(error)) => {
            assert!(error.to_string().contains(expected), "{error}");
            assert!(!error.to_string().contains("wrong-secret"), "{error}");
        }
        other => panic!("{:?}", other.err()),
    };
    let credentials = S3Credentials { key: "key".into(), secret: "wrong-secret".into(), session: None };
    assert_eq!(format!("{credentials:?}"), "S3Credentials(…)");
    check(S3Settings { credentials, ..server.settings() }, "403");
    check(S3Settings { bucket: "none".into(), ..server.settings() }, "404");
    check(S3Settings { endpoint: "nowhere".into(), ..server.settings() }, "no address");
    check(S3Settings { prefix: "open".into(), ..server.settings() }, "must end with `/`");
}

#[test]
fn the_bucket_may_stand_in_the_name_of_the_host() {
    let Some(server) = S3Server::start() else { return };
    let port = server.address.rsplit_once(':').unwrap().1;
    let endpoint = format!("http://s3.localhost:{port}");
    // Names below `localhost` are this machine (RFC 6761), but not every resolver knows.
    if std::net::ToSocketAddrs::to_socket_addrs(&format!("blobs.s3.localhost:{port}")).is_err() {
        eprintln!("skipped: this machine does not resolve names below localhost");
        return;
    }
    let error = S3Blobs::open(S3Settings { endpoint, url_form: UrlForm::VirtualHost, ..server.settings() }).err();
    // The server matches domains with their port only; that it was asked at all shows the address.
    assert!(error.is_none_or(|error| format!("{error:?}").contains("answered")));
}

#[test]
fn copies_are_used_and_bounded() {
    let Some(server) = S3Server::start() else { return };
    let blobs = server.blobs(Some(100));
    let names: Vec<Digest> = (0..10u8).map(|index| blobs.put(&[index; 20]).unwrap()).collect();
    for name in &names {
        assert_eq!(blobs.get(*name, 99).unwrap().len(), 20);
    }
    for name in &names {
        fs::remove_file(server.file(&blobs.key(*name))).unwrap();
    }
    let copied = |blobs: &S3Blobs| names.iter().filter(|name| blobs.get(**name, 99).is_ok()).count();
    assert_eq!(copied(&blobs), 5);
    drop(blobs);
    assert_eq!(copied(&server.blobs(Some(100))), 5, "also after a restart");
    assert_eq!(copied(&server.blobs(Some(40))), 2, "and with less room");
}

#[test]
fn an_object_that_was_changed_is_damage() {
    let Some(server) = S3Server::start() else { return };
    for cache_bytes in [None, Some(1000)] {
        let blobs = server.blobs(cache_bytes);
        let name = blobs.put(b"content").unwrap();
        fs::write(server.file(&blobs.key(name)), "comment").unwrap();
        assert!(matches!(blobs.get(name, 99), Err(BlobError::Damaged(_))));
        fs::write(server.file(&blobs.key(name)), "content").unwrap();
    }
}

/// The file of an old object.
fn aged(server: &S3Server, blobs: &S3Blobs, name: Digest) -> std::path::PathBuf {
    let file = server.file(&blobs.key(name));
    File::options()
        .write(true)
        .open(&file)
        .unwrap()
        .set_modified(SystemTime::now() - Duration::from_secs(7200))
        .unwrap();
    file
}

#[test]
fn an_old_object_is_put_again() {
    let Some(server) = S3Server::start() else { return };
    let blobs = server.blobs(None);
    let name = blobs.put(b"content").unwrap();
    assert!(blobs.renew(name).unwrap());
    let file = aged(&server, &blobs, name);
    let age = || fs::metadata(&file).unwrap().modified().unwrap().elapsed().unwrap();
    assert!(age() > RENEWED_WITHIN);
    blobs.put(b"content").unwrap();
    assert!(age() < RENEWED_WITHIN);
}

/// Who names an old pack of a cache has not its bytes.
#[test]
fn an_old_object_is_renewed_without_its_bytes() {
    let Some(server) = S3Server::start() else { return };
    let blobs = server.blobs(None);
    for content in [&b"content"[..], b"", &vec![7; 9 << 20]] {
        let name = blobs.put(content).unwrap();
        let file = aged(&server, &blobs, name);
        assert!(blobs.renew(name).unwrap());
        assert!(fs::metadata(&file).unwrap().modified().unwrap().elapsed().unwrap() < RENEWED_WITHIN);
        let since = Timestamp(crate::blob::timestamp(SystemTime::now()).0 - 3_600_000_000);
        assert!(!blobs.delete_stale(name, since).unwrap(), "it is young");
        assert_eq!(blobs.get(name, 10 << 20).unwrap(), content);
    }
    assert!(!blobs.renew(Digest([1; 32])).unwrap());
}

/// What becomes of `act` if a collector has looked at the old object, announced its deletion, and deletes it once the object is new.
fn meanwhile_deleted<T: Send>(blobs: &S3Blobs, server: &S3Server, name: Digest, act: impl FnOnce() -> T + Send) -> T {
    let file = aged(server, blobs, name);
    blobs.put_object(&blobs.tomb(name), &Body::default(), Writing::Again).unwrap();
    let stale = fs::metadata(&file).unwrap().modified().unwrap();
    std::thread::scope(|scope| {
        let acting = scope.spawn(act);
        while fs::metadata(&file).is_ok_and(|metadata| metadata.modified().unwrap() == stale) {
            std::thread::yield_now();
        }
        blobs.delete(name).unwrap();
        blobs.delete_key(&blobs.tomb(name)).unwrap();
        acting.join().unwrap()
    })
}

#[test]
fn a_renewal_says_no_of_what_is_deleted_meanwhile() {
    let Some(server) = S3Server::start() else { return };
    let blobs = server.blobs(None);
    let name = blobs.put(b"content").unwrap();
    assert!(!meanwhile_deleted(&blobs, &server, name, || blobs.renew(name).unwrap()));
}

#[test]
fn a_put_waits_for_a_deletion_that_was_announced() {
    let Some(server) = S3Server::start() else { return };
    let blobs = server.blobs(None);
    let name = blobs.put(b"content").unwrap();
    meanwhile_deleted(&blobs, &server, name, || blobs.put(b"content").unwrap());
    assert_eq!(blobs.get(name, 99).unwrap(), b"content");
}

#[test]
fn announcements_are_no_blobs() {
    let Some(server) = S3Server::start() else { return };
    let blobs = server.blobs(None);
    blobs.put_object(&blobs.tomb(Digest([1; 32])), &Body::default(), Writing::Again).unwrap();
    fs::create_dir_all(server.file("ropewalk/00")).unwrap();
    fs::File::create(server.file("ropewalk/00/other")).unwrap().write_all(b"x").unwrap();
    assert_eq!(blobs.list().unwrap(), []);
}
