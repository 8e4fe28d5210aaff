//! A blob is damaged on the server's disk.

use std::fs;
use std::path::{Path, PathBuf};

use crate::installation::Site;

/// The files below a folder that hold this text.
fn holding(folder: &Path, text: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if fs::read(&path).expect("a file").windows(text.len()).any(|part| part == text.as_bytes()) {
            found.push(path);
        }
    }
    found
}

#[test]
fn an_artifact_that_is_damaged_on_the_server_is_made_anew_by_the_next_build() {
    let site = Site::new(
        "jobs:\n  make: { labels: [maker], inputs: [], run: printf '%s%s' of-make r > out, artifacts: { out: [out] } }\n  \
         use: { labels: [user], needs: [make], retry: { max: 0 }, run: cat out }\n",
    );
    let _server = site.serve();
    let _maker = site.work("maker", &["--labels", "maker"]);
    let _user = site.work("user", &["--labels", "user"]);
    let text = site.submit(&[], 0);
    assert!(text.contains("use | of-maker"), "{text}");
    // What the job changed holds it too, for a shell.
    let blobs = holding(&site.path("data/blobs"), "of-maker");
    let archives = holding(&site.path("data/blobs"), "ustar");
    let artifact: Vec<_> = blobs.iter().filter(|blob| archives.contains(blob)).collect();
    let [blob] = artifact[..] else { panic!("one archive holds it: {blobs:?}, {archives:?}") };
    let mut bytes = fs::read(blob).expect("a blob");
    let place = bytes.windows(8).position(|part| part == b"of-maker").expect("it is there");
    bytes[place] ^= 1;
    fs::remove_file(blob).expect("it goes");
    fs::write(blob, bytes).expect("it comes");
    // The worker has what it fetched.
    for content in holding(&site.path("user/contents"), "of-maker") {
        fs::remove_file(content).expect("it goes");
    }
    let text = site.submit(&[], 3);
    assert!(text.contains("make: cached") && text.contains("is damaged where it is kept"), "{text}");
    assert!(text.contains("run the build again, not this job alone: `make` makes it anew"), "{text}");
    let text = site.submit(&[], 0);
    assert!(text.contains("make: passed") && text.contains("use | of-maker"), "{text}");
    let text = site.submit(&[], 0);
    assert!(text.contains("make: cached") && text.contains("use | of-maker"), "{text}");
}
