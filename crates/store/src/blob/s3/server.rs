//! A real server that speaks S3, for tests: `s3s-fs` (`cargo install s3s-fs --features binary`), started anew.

use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use super::{ReadCache, S3Blobs, S3Credentials, S3Settings, UrlForm};

const PROGRAM: &str = "s3s-fs";
const BUCKET: &str = "blobs";
pub const PREFIX: &str = "ropewalk/";

pub struct S3Server {
    child: Child,
    folder: tempfile::TempDir,
    pub address: String,
}

impl Drop for S3Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl S3Server {
    /// `None`, aloud, if the program is not on this machine.
    pub fn start() -> Option<Self> {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(folder.path().join("objects").join(BUCKET)).unwrap();
        let program = std::env::var_os("ROPEWALK_S3_SERVER").unwrap_or_else(|| PROGRAM.into());
        let mut command = Command::new(program);
        command.args(["--host", "127.0.0.1", "--port", "0", "--access-key", "key", "--secret-key", "secret"]);
        command.args(["--domain", "s3.localhost"]).arg(folder.path().join("objects"));
        command.env("RUST_LOG", "s3s_fs=info").env("NO_COLOR", "1").stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "the server for tests of S3, {PROGRAM}, is missing: {error}");
                eprintln!("skipped: the server for tests of S3, {PROGRAM}, is missing");
                return None;
            }
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let address =
            lines.by_ref().find_map(|line| line.unwrap().split_once("http://").map(|(_, rest)| rest.to_owned()));
        // What it says later has to go somewhere.
        std::thread::spawn(move || lines.for_each(drop));
        Some(Self { child, folder, address: address.unwrap().trim().to_owned() })
    }

    pub fn settings(&self) -> S3Settings {
        S3Settings {
            endpoint: format!("http://{}", self.address),
            bucket: BUCKET.to_owned(),
            region: "eu-central-1".to_owned(),
            prefix: PREFIX.to_owned(),
            url_form: UrlForm::Path,
            credentials: S3Credentials { key: "key".to_owned(), secret: "secret".to_owned(), session: None },
            cache: None,
        }
    }

    /// Blobs in it, of which this machine keeps copies up to so many bytes.
    pub fn blobs(&self, cache_bytes: Option<u64>) -> S3Blobs {
        let root = self.folder.path().join("cache");
        let cache = cache_bytes.map(|bytes_max| ReadCache { root, bytes_max });
        S3Blobs::open(S3Settings { cache, ..self.settings() }).unwrap()
    }

    /// The file that holds an object.
    pub fn file(&self, key: &str) -> PathBuf {
        self.folder.path().join("objects").join(BUCKET).join(key)
    }
}
