//! Contents on their way to the server: how they come, and what others are answered meanwhile.

use api::blob::{Digests, parcel_head};
use api::build::BuildFilter;
use api::client::PageWanted;
use api::problem::ProblemKind;
use server::access::Verb;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::site::Worker;
use super::{ONE, Served, asked, refused};

/// Threads for what blocks, as many as the test's runtime may have.
const THREADS: usize = 8;

#[test]
fn uploads_that_stand_still_hold_up_nobody() {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let mut runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = runtime.enable_all().max_blocking_threads(THREADS).build().unwrap();
    runtime.block_on(async {
        let served = Served::new().await;
        let token = served.token(&[Verb::Submit], None, None);
        let content = [7; 1000];
        let parcel = [&parcel_head(store::blob::digest(&content), 1000)[..], &content].concat();
        let length = parcel.len();
        let mut standing = Vec::new();
        for _ in 0..THREADS * 2 {
            let mut socket = TcpStream::connect(served.address.trim_start_matches("http://")).await.unwrap();
            let head = format!(
                "POST /api/v1/blobs HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {token}\r\nExpect: 100-continue\r\n\
                 Content-Type: application/octet-stream\r\nContent-Length: {length}\r\n\r\n"
            );
            socket.write_all(head.as_bytes()).await.unwrap();
            // It is said when the body is first waited for.
            let mut said = [0; 25];
            socket.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"HTTP/1.1 100 Continue\r\n\r\n");
            socket.write_all(&parcel[..1]).await.unwrap();
            standing.push(socket);
        }
        let admin = served.admin();
        assert_eq!(admin.build_list(&BuildFilter::default(), &PageWanted::default()).await.unwrap().items, []);
        let mut worker = Worker::join(&served.site, "w", []).await;
        let build = asked(&served, &admin, ONE).await;
        let start = worker.start().await;
        worker.finish(&served.site, &start.spec).await;
        served.site.ended(build).await;
        // Nobody was put off for it.
        for mut socket in standing {
            socket.write_all(&parcel[1..]).await.unwrap();
            let mut said = [0; 12];
            socket.read_exact(&mut said).await.unwrap();
            assert_eq!(&said, b"HTTP/1.1 200");
        }
        served.end().await;
    });
}

#[tokio::test]
async fn of_a_parcel_what_came_whole_is_kept() {
    let served = Served::new().await;
    let admin = served.admin();
    // Two that are kept from memory, with one between them that is not.
    let contents = [b"one".to_vec(), vec![7; (2 << 20) + 5], b"three".to_vec()];
    let digests = Digests { digests: contents.iter().map(|content| store::blob::digest(content)).collect() };
    let part =
        |content: &Vec<u8>| [&parcel_head(store::blob::digest(content), content.len() as u64)[..], content].concat();
    let whole = contents.iter().map(part).collect::<Vec<_>>();
    let cut = [&whole[0][..], &whole[1], &whole[2][..whole[2].len() - 1]].concat();
    let error = admin.blob_put_bytes(cut.into()).await.unwrap_err();
    assert_eq!(refused(&error), Some(ProblemKind::Invalid), "{error}");
    assert_eq!(admin.blob_missing(&digests).await.unwrap().digests, digests.digests[2..]);
    let wrong = [&whole[2][..], &parcel_head(digests.digests[0], 5), b"other"].concat();
    let error = admin.blob_put_bytes(wrong.into()).await.unwrap_err();
    assert_eq!(refused(&error), Some(ProblemKind::Unprocessable), "{error}");
    assert_eq!(admin.blob_missing(&digests).await.unwrap().digests, []);
    let stored = admin.blob_put_bytes(whole.concat().into()).await.unwrap();
    assert_eq!((stored.blobs, stored.bytes), (3, (2 << 20) + 5 + 8));
    served.end().await;
}
