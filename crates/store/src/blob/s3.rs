//! Blobs in any store that speaks S3.
//!
//! An object is the plain content of a blob under `<prefix><two digits>/<all 64 digits>`. It is written once, with
//! `If-None-Match` where the server knows it. Large files go up in parts, one in memory at a time. Reads that break
//! go on where they broke; what is read whole is compared with its digest. Requests are tried again, with growing
//! pauses, after answers of 5xx and 429, timeouts and broken connections; all of them may be repeated.
//!
//! **Renewal.** An object's age is its `Last-Modified`. One that is older than [`RENEWED_WITHIN`] is put again by who is
//! about to name it, or copied onto itself by who has not its bytes. S3 cannot delete on a condition, so the collector announces what it deletes (`<prefix>tombs/<digest>`),
//! looks at the age after that, deletes, and takes the announcement back. Who puts an old object again looks for
//! an announcement after the upload, waits while there is one, and then looks whether the object is there. As S3
//! is consistent for reads after writes, one of the two always sees the other.
//!
//! Whose the objects are stands in `<prefix>installation`.
//!
//! Uploads in parts that a death leaves unfinished take space until the bucket's own rule removes them
//! (`AbortIncompleteMultipartUpload`); they are never seen as blobs.

mod cache;
#[cfg(test)]
pub(super) mod server;
#[cfg(test)]
mod tests;
mod transport;

use std::fmt;
use std::fs::File;
use std::io::{self, ErrorKind, Read};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use graph::{Digest, Timestamp};
use reqwest::Method;
use rusty_s3::actions::{CreateMultipartUpload, ListObjectsV2};
use rusty_s3::{Bucket, Credentials, S3Action, UrlStyle};

use self::cache::Cache;
use self::transport::{Answer, Body, Transport};
use super::directory::replace_file;
use super::{BLOBS_PAGE_MAX, BlobError, Blobs, MARK, Mode, PutFile, StoredBlob, digest, mark_of, read_error};

pub use self::cache::READ_CACHE_SHARE;
pub use self::transport::REQUESTS_MAX;

/// Files longer than this go up in parts of this size, longer ones if there would be more than [`PARTS_MAX`].
pub const PART_BYTES: u64 = 8 * 1024 * 1024;
/// The most parts of one object (S3 allows 10,000).
const PARTS_MAX: u64 = 9_000;
/// An object that was put within this time is not put again by who is about to name it.
pub const RENEWED_WITHIN: Duration = Duration::from_secs(30 * 60);
/// The most objects asked for at once when listing.
pub const OBJECTS_PAGE: usize = 1000;

/// How long a signature is good for. A request that takes longer to begin is signed again when it is repeated.
const SIGNED_FOR: Duration = Duration::from_secs(5 * 60);
/// How often a file that changes while it is sent is begun again.
const FILE_TRIES_MAX: usize = 3;
/// An announcement of a deletion that stands longer than this is that of a collector that died; its request to delete
/// has long been answered or lost.
const TOMB_WAIT_MAX: Duration = Duration::from_secs(120);
const TOMB_PAUSE: Duration = Duration::from_millis(200);
const TOMBS: &str = "tombs/";
/// The longest object that is copied by one request (Amazon S3, "Copying objects").
const COPY_BYTES_MAX: u64 = 5 << 30;
const COPY_SOURCE: &str = "x-amz-copy-source";
const COPY_DIRECTIVE: &str = "x-amz-metadata-directive";
/// How much of a file is hashed at once.
const CHUNK_BYTES: usize = 256 * 1024;

/// How the bucket is named in addresses.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum UrlForm {
    /// `https://endpoint/bucket/key`: what most servers that are not Amazon's expect.
    #[default]
    Path,
    /// `https://bucket.endpoint/key`.
    VirtualHost,
}

/// What the server knows us by. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct S3Credentials {
    /// The access key.
    pub key: String,
    /// The secret key.
    pub secret: String,
    /// The token of credentials that are lent for a time.
    pub session: Option<String>,
}

impl fmt::Debug for S3Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("S3Credentials(…)")
    }
}

/// Copies of what was read, on a disk of this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReadCache {
    /// The folder, made if need be. One process at a time uses it.
    pub root: PathBuf,
    /// The most bytes kept; what was read longest ago goes first.
    pub bytes_max: u64,
}

/// Where the blobs are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct S3Settings {
    /// `http://…` or `https://…`.
    pub endpoint: String,
    /// The bucket, which must be there.
    pub bucket: String,
    /// For the signature, such as `eu-central-1`; servers that have no regions take any.
    pub region: String,
    /// What all keys begin with: empty, or ending in `/`.
    pub prefix: String,
    /// How the bucket is named in addresses.
    pub url_form: UrlForm,
    /// What the server knows us by.
    pub credentials: S3Credentials,
    /// Copies on this machine, if wanted.
    pub cache: Option<ReadCache>,
}

/// See the head of this file. Calls wait for the network: not for threads of an async runtime, but for those it has for
/// blocking work.
pub struct S3Blobs {
    bucket: Bucket,
    credentials: Credentials,
    prefix: String,
    transport: Transport,
    cache: Option<Cache>,
}

/// What is known of an object.
struct Found {
    length: u64,
    renewed_at: Timestamp,
    /// How old it is by the server's clock.
    age: Duration,
}

/// Whether what is there already may be written again.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    Once,
    Again,
}

impl S3Blobs {
    /// Looks whether the bucket can be reached with these settings.
    ///
    /// # Errors
    /// [`BlobError::Io`] with what is wrong with the settings, or what the server or the network said.
    pub fn open(settings: S3Settings) -> Result<Self, BlobError> {
        let invalid = |text: String| BlobError::Io(io::Error::new(ErrorKind::InvalidInput, text));
        let endpoint =
            settings.endpoint.parse().map_err(|error| invalid(format!("the endpoint is no address: {error}")))?;
        if !settings.prefix.is_empty() && !settings.prefix.ends_with('/') {
            return Err(invalid("the prefix of the object store must end with `/`".to_owned()));
        }
        let style = match settings.url_form {
            UrlForm::Path => UrlStyle::Path,
            UrlForm::VirtualHost => UrlStyle::VirtualHost,
        };
        let bucket = Bucket::new(endpoint, style, settings.bucket, settings.region)
            .map_err(|error| invalid(format!("endpoint and bucket make no address: {error:?}")))?;
        let S3Credentials { key, secret, session } = settings.credentials;
        let credentials = match session {
            Some(session) => Credentials::new_with_token(key, secret, session),
            None => Credentials::new(key, secret),
        };
        let cache = settings.cache.map(Cache::open).transpose()?;
        let blobs = Self { bucket, credentials, prefix: settings.prefix, transport: Transport::start()?, cache };
        blobs.page(None, 1)?;
        Ok(blobs)
    }

    fn key(&self, digest: Digest) -> String {
        let hex = digest.to_hex();
        format!("{}{}/{hex}", self.prefix, &hex[..2])
    }

    fn mark_key(&self) -> String {
        format!("{}{MARK}", self.prefix)
    }

    fn tomb(&self, digest: Digest) -> String {
        format!("{}{TOMBS}{}", self.prefix, digest.to_hex())
    }

    fn request<'a>(
        &self,
        method: Method,
        action: impl S3Action<'a> + Clone,
        headers: &[(&'static str, String)],
        body: &Body,
    ) -> Result<Answer, BlobError> {
        self.transport.request(&method, &|| action.sign(SIGNED_FOR), headers, body)
    }

    fn find(&self, key: &str) -> Result<Option<Found>, BlobError> {
        let action = self.bucket.head_object(Some(&self.credentials), key);
        let answer = self.request(Method::HEAD, action, &[], &Body::default())?;
        if answer.status == 404 {
            return Ok(None);
        }
        let answer = answer.expected(&[200])?;
        let length = answer.header("content-length").and_then(|length| length.parse().ok());
        let renewed_at = answer.header("last-modified").and_then(|date| date_of_header(&date));
        let now = answer.header("date").and_then(|date| date_of_header(&date));
        let (Some(length), Some(renewed_at)) = (length, renewed_at) else {
            return Err(strange("the object store did not say how long and how old an object is"));
        };
        let age = Duration::from_millis(now.map_or(u64::MAX, |now| now.ms_since(renewed_at)));
        Ok(Some(Found { length, renewed_at, age }))
    }

    fn found(&self, digest: Digest) -> Result<Found, BlobError> {
        self.find(&self.key(digest))?.ok_or(BlobError::Absent(digest))
    }

    /// Puts one object. Of [`Writing::Once`] that it is there already is success.
    fn put_object(&self, key: &str, body: &Body, writing: Writing) -> Result<(), BlobError> {
        let action = self.bucket.put_object(Some(&self.credentials), key);
        let condition = ("if-none-match", "*".to_owned());
        if writing == Writing::Once {
            let answer = self.request(Method::PUT, action.clone(), &[condition], body)?;
            match answer.status {
                200 | 412 => return Ok(()),
                // Another upload of the same object at this moment (409), or a server that knows no conditions.
                400 | 409 | 501 => {}
                _ => return answer.expected(&[200]).map(drop),
            }
        }
        self.request(Method::PUT, action, &[], body)?.expected(&[200]).map(drop)
    }

    /// Has the content stored by `upload`, unless it is there and young; see the head of this file.
    fn ensure(&self, digest: Digest, upload: impl Fn(Writing) -> Result<(), BlobError>) -> Result<(), BlobError> {
        let key = self.key(digest);
        match self.find(&key)? {
            Some(found) if found.age < RENEWED_WITHIN => return Ok(()),
            Some(_) => upload(Writing::Again)?,
            None => upload(Writing::Once)?,
        }
        while !self.is_there_after_deletions(digest)? {
            upload(Writing::Once)?;
        }
        Ok(())
    }

    /// Whether an object that was just written is there once no deletion of it is announced any more.
    fn is_there_after_deletions(&self, digest: Digest) -> Result<bool, BlobError> {
        let begun = Instant::now();
        while begun.elapsed() < TOMB_WAIT_MAX
            && self.find(&self.tomb(digest))?.is_some_and(|tomb| tomb.age < TOMB_WAIT_MAX)
        {
            std::thread::sleep(TOMB_PAUSE);
        }
        Ok(self.find(&self.key(digest))?.is_some())
    }

    /// Makes an old object young by copying it onto itself, so that nobody has to have its bytes. No if it is gone meanwhile, or if the store
    /// copies none such: then it is to be put.
    fn renew_old(&self, digest: Digest, length: u64) -> Result<bool, BlobError> {
        if length > COPY_BYTES_MAX {
            return Ok(false);
        }
        let key = self.key(digest);
        let mut action = self.bucket.put_object(Some(&self.credentials), &key);
        // Signed, as all headers of this kind must be. S3 copies onto the same key only what is changed by it.
        let source = format!("/{}/{}", self.bucket.name(), escaped(&key));
        action.headers_mut().insert(COPY_SOURCE, source.clone());
        action.headers_mut().insert(COPY_DIRECTIVE, "REPLACE");
        let headers = [(COPY_SOURCE, source), (COPY_DIRECTIVE, "REPLACE".to_owned())];
        let answer = self.request(Method::PUT, action, &headers, &Body::default())?;
        if matches!(answer.status, 400 | 404 | 405 | 501) {
            return Ok(false);
        }
        // S3 may answer 200 and tell of a failure in the body.
        if answer.expected(&[200])?.text()?.contains("<Error>") {
            return Ok(false);
        }
        self.is_there_after_deletions(digest)
    }

    /// Sends a file in parts, and says whether it still was what its digest says.
    fn upload_parts(&self, file: &File, length: u64, digest: Digest) -> Result<(), BlobError> {
        let key = self.key(digest);
        let action: CreateMultipartUpload<'_> = self.bucket.create_multipart_upload(Some(&self.credentials), &key);
        let answer = self.request(Method::POST, action, &[], &Body::default())?.expected(&[200])?;
        let created = CreateMultipartUpload::parse_response(&answer.text()?)
            .map_err(|_| strange("the object store answered to the beginning of an upload with no identifier"))?;
        let upload = created.upload_id();
        let done = self.send_parts(file, length, digest, &key, upload).and_then(|etags| {
            let etags = etags.iter().map(String::as_str);
            let action = self.bucket.complete_multipart_upload(Some(&self.credentials), &key, upload, etags);
            let body = action.clone().body().into_bytes().into();
            let answer = self.request(Method::POST, action, &[], &body)?;
            // After a lost answer the upload is over, and the object is there.
            if answer.status == 404 && self.find(&key)?.is_some() {
                return Ok(());
            }
            // S3 may answer 200 and tell of a failure in the body.
            let text = answer.expected(&[200])?.text()?;
            if text.contains("<Error>") {
                Err(strange("the object store could not join the parts of an upload"))
            } else {
                Ok(())
            }
        });
        if done.is_err() {
            let action = self.bucket.abort_multipart_upload(Some(&self.credentials), &key, upload);
            // What is left of it the bucket's own rule removes.
            let _ = self.request(Method::DELETE, action, &[], &Body::default());
        }
        done
    }

    fn send_parts(
        &self,
        mut file: &File,
        length: u64,
        digest: Digest,
        key: &str,
        upload: &str,
    ) -> Result<Vec<String>, BlobError> {
        io::Seek::rewind(&mut file)?;
        let part_bytes = PART_BYTES.max(length.div_ceil(PARTS_MAX));
        let mut hasher = blake3::Hasher::new();
        let mut etags = Vec::new();
        loop {
            let mut part = Vec::new();
            file.take(part_bytes).read_to_end(&mut part)?;
            if part.is_empty() {
                break;
            }
            hasher.update(&part);
            let number = u16::try_from(etags.len() + 1).map_err(|_| changed())?;
            let action = self.bucket.upload_part(Some(&self.credentials), key, number, upload);
            let answer = self.request(Method::PUT, action, &[], &part.into())?.expected(&[200])?;
            etags.push(answer.header("etag").ok_or_else(|| strange("the object store gave no name to a part"))?);
        }
        if *hasher.finalize().as_bytes() == digest.0 { Ok(etags) } else { Err(changed()) }
    }

    fn stream(&self, digest: Digest, range: Range<u64>) -> Result<Stream, BlobError> {
        let key = self.key(digest);
        let transport = self.transport.clone();
        let url = {
            let (bucket, credentials) = (self.bucket.clone(), self.credentials.clone());
            move || bucket.get_object(Some(&credentials), &key).sign(SIGNED_FOR)
        };
        let mut stream =
            Stream { transport, url: Box::new(url), digest, at: range.start, end: range.end, answer: None };
        stream.connect()?;
        Ok(stream)
    }

    /// The local copy, if there is or should be one.
    fn copy(&self, digest: Digest) -> Result<Option<File>, BlobError> {
        let Some(cache) = &self.cache else { return Ok(None) };
        if let Some(file) = cache.open_copy(digest)? {
            return Ok(Some(file));
        }
        let length = self.found(digest)?.length;
        if length > cache.bytes_max() / READ_CACHE_SHARE {
            return Ok(None);
        }
        let content = self.stream(digest, 0..length)?;
        cache.keep(digest, length, content).map(Some)
    }
}

impl Blobs for S3Blobs {
    fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let digest = digest(bytes);
        let body = Body::from(bytes.to_vec());
        self.ensure(digest, |writing| self.put_object(&self.key(digest), &body, writing))?;
        Ok(digest)
    }

    fn put_file(&self, path: &Path) -> Result<PutFile, BlobError> {
        for _ in 0..FILE_TRIES_MAX {
            let file = File::open(path)?;
            if file.metadata()?.len() <= PART_BYTES {
                let mut content = Vec::new();
                (&file).take(PART_BYTES + 1).read_to_end(&mut content)?;
                if content.len() as u64 <= PART_BYTES {
                    return Ok(PutFile { digest: self.put(&content)?, content_bytes: content.len() as u64 });
                }
            }
            let put = hashed(&file)?;
            match self.ensure(put.digest, |_| self.upload_parts(&file, put.content_bytes, put.digest)) {
                Err(BlobError::Io(error)) if error.kind() == ErrorKind::ResourceBusy => {}
                done => return done.map(|()| put),
            }
        }
        Err(changed())
    }

    fn open(&self, digest: Digest) -> Result<Box<dyn Read + Send>, BlobError> {
        if let Some(copy) = self.copy(digest)? {
            return Ok(Box::new(copy));
        }
        Ok(Box::new(Verified { stream: self.stream(digest, 0..u64::MAX)?, hasher: blake3::Hasher::new() }))
    }

    fn open_range(&self, digest: Digest, range: Range<u64>) -> Result<Box<dyn Read + Send>, BlobError> {
        if let Some(cache) = &self.cache
            && let Some(mut copy) = cache.open_copy(digest)?
        {
            io::Seek::seek(&mut copy, io::SeekFrom::Start(range.start))?;
            return Ok(Box::new(copy.take(range.end.saturating_sub(range.start))));
        }
        if range.is_empty() {
            self.found(digest)?;
            return Ok(Box::new(io::empty()));
        }
        Ok(Box::new(self.stream(digest, range)?))
    }

    fn length(&self, digest: Digest) -> Result<u64, BlobError> {
        Ok(self.found(digest)?.length)
    }

    fn renew(&self, digest: Digest) -> Result<bool, BlobError> {
        match self.find(&self.key(digest))? {
            None => Ok(false),
            Some(found) if found.age < RENEWED_WITHIN => Ok(true),
            Some(found) => self.renew_old(digest, found.length),
        }
    }

    fn delete_stale(&self, digest: Digest, since: Timestamp) -> Result<bool, BlobError> {
        let tomb = self.tomb(digest);
        self.put_object(&tomb, &Body::default(), Writing::Again)?;
        let judged = self.find(&self.key(digest)).and_then(|found| match found {
            // Headers tell whole seconds only.
            Some(found) if found.renewed_at.plus_ms(1000) > since => Ok(false),
            Some(_) => self.delete(digest).map(|()| true),
            None => Ok(true),
        });
        // While a deletion may still be on its way, the announcement stands until it has expired.
        if judged.is_ok() {
            self.delete_key(&tomb)?;
        }
        judged
    }

    fn contains(&self, digest: Digest) -> Result<bool, BlobError> {
        Ok(self.find(&self.key(digest))?.is_some())
    }

    fn delete(&self, digest: Digest) -> Result<(), BlobError> {
        if let Some(cache) = &self.cache {
            cache.forget(digest)?;
        }
        self.delete_key(&self.key(digest))
    }

    fn page(&self, after: Option<Digest>, limit: usize) -> Result<Vec<StoredBlob>, BlobError> {
        let limit = limit.min(BLOBS_PAGE_MAX).min(OBJECTS_PAGE);
        let mut after = after.map(|after| self.key(after));
        loop {
            let mut action = self.bucket.list_objects_v2(Some(&self.credentials));
            action.with_prefix(self.prefix.as_str());
            action.with_max_keys(limit.max(1));
            if let Some(after) = &after {
                action.with_start_after(after.clone());
            }
            let text = self.request(Method::GET, action, &[], &Body::default())?.expected(&[200])?.text()?;
            let listed = ListObjectsV2::parse_response(&text)
                .map_err(|_| strange("the object store answered with no list of objects"))?;
            let Some(last) = listed.contents.last().map(|object| object.key.clone()) else { return Ok(Vec::new()) };
            let blobs: Vec<StoredBlob> = listed.contents.iter().filter_map(|object| self.stored(object)).collect();
            // A page of other people's keys only is not the end.
            if !blobs.is_empty() || limit == 0 {
                return Ok(blobs);
            }
            after = Some(last);
        }
    }

    fn materialize(&self, digest: Digest, path: &Path, mode: Mode) -> Result<(), BlobError> {
        // What the server refuses is told as it is, not as damage.
        self.found(digest)?;
        let write = |mut target: &File| {
            let mut content = self.open(digest).map_err(io::Error::other)?;
            io::copy(&mut content, &mut target).map(drop)
        };
        replace_file(path, mode, write).map_err(|error| match error.downcast::<BlobError>() {
            Ok(error) => error,
            Err(error) => read_error(error, digest),
        })
    }

    fn marked(&self) -> Result<Option<String>, BlobError> {
        let key = self.mark_key();
        let action = self.bucket.get_object(Some(&self.credentials), &key);
        let answer = self.request(Method::GET, action, &[], &Body::default())?;
        if answer.status == 404 {
            return Ok(None);
        }
        Ok(mark_of(&answer.expected(&[200])?.text()?))
    }

    fn mark(&self, owner: &str) -> Result<(), BlobError> {
        self.put_object(&self.mark_key(), &format!("{owner}\n").into_bytes().into(), Writing::Again)
    }
}

impl S3Blobs {
    fn delete_key(&self, key: &str) -> Result<(), BlobError> {
        let action = self.bucket.delete_object(Some(&self.credentials), key);
        self.request(Method::DELETE, action, &[], &Body::default())?.expected(&[200, 204, 404]).map(drop)
    }

    fn stored(&self, object: &rusty_s3::actions::list_objects_v2::ListObjectsContent) -> Option<StoredBlob> {
        let digest = object.key.strip_prefix(&self.prefix)?.get(3..)?.parse().ok()?;
        let at: jiff::Timestamp = object.last_modified.as_ref()?.parse().ok()?;
        (self.key(digest) == object.key).then_some(())?;
        Some(StoredBlob { digest, stored_bytes: object.size?, renewed_at: Timestamp(at.as_microsecond()) })
    }
}

/// A key as it stands in a header: what is neither unreserved (RFC 3986, 2.3) nor `/` is escaped.
fn escaped(key: &str) -> String {
    use fmt::Write;
    key.bytes().fold(String::with_capacity(key.len()), |mut escaped, byte| {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            // Writing into a string cannot fail.
            let _ = write!(escaped, "%{byte:02X}");
        }
        escaped
    })
}

fn strange(text: &'static str) -> BlobError {
    BlobError::Io(io::Error::new(ErrorKind::InvalidData, text))
}

fn changed() -> BlobError {
    BlobError::Io(io::Error::new(ErrorKind::ResourceBusy, "the file changed while it was read"))
}

/// `Sun, 06 Nov 1994 08:49:37 GMT` (RFC 9110, 5.6.7).
fn date_of_header(text: &str) -> Option<Timestamp> {
    let at = jiff::fmt::rfc2822::parse(text).ok()?;
    Some(Timestamp(at.timestamp().as_microsecond()))
}

fn hashed(mut file: &File) -> io::Result<PutFile> {
    let mut hasher = blake3::Hasher::new();
    let mut chunk = vec![0; CHUNK_BYTES];
    let mut content_bytes = 0;
    loop {
        match file.read(&mut chunk)? {
            0 => break,
            length => {
                hasher.update(&chunk[..length]);
                content_bytes += length as u64;
            }
        }
    }
    Ok(PutFile { digest: Digest(*hasher.finalize().as_bytes()), content_bytes })
}

/// The content of an object, or a part of it, as it comes; goes on where a connection broke.
struct Stream {
    transport: Transport,
    url: Box<dyn Fn() -> reqwest::Url + Send>,
    digest: Digest,
    /// The next byte of the object.
    at: u64,
    end: u64,
    answer: Option<Answer>,
}

impl Stream {
    /// Asks for what is left. Leaves no answer if that is nothing.
    fn connect(&mut self) -> Result<(), BlobError> {
        let range = match (self.at, self.end) {
            (0, u64::MAX) => vec![],
            (at, u64::MAX) => vec![("range", format!("bytes={at}-"))],
            (at, end) => vec![("range", format!("bytes={at}-{}", end.saturating_sub(1)))],
        };
        let answer = self.transport.request(&Method::GET, &self.url, &range, &Body::default())?;
        self.answer = match answer.status {
            404 => return Err(BlobError::Absent(self.digest)),
            // The object is shorter than where the range begins.
            416 => None,
            200 if self.at > 0 => return Err(strange("the object store knows no ranges")),
            _ => Some(answer.expected(&[200, 206])?),
        };
        Ok(())
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let buffer_length = buffer.len().min(left);
        if buffer_length == 0 {
            return Ok(0);
        }
        for _ in 0..REQUESTS_MAX {
            let Some(answer) = &mut self.answer else { return Ok(0) };
            match answer.read(&mut buffer[..buffer_length]) {
                Ok(length) => {
                    self.at += length as u64;
                    return Ok(length);
                }
                // The object may have gone meanwhile; that ends the reading.
                Err(_) => self.connect().map_err(io::Error::other)?,
            }
        }
        Err(io::Error::new(ErrorKind::ConnectionReset, "the connection to the object store broke again and again"))
    }
}

/// Compares what was read with the digest, at its end.
struct Verified {
    stream: Stream,
    hasher: blake3::Hasher,
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.stream.read(buffer)?;
        self.hasher.update(&buffer[..length]);
        if length == 0 && !buffer.is_empty() && *self.hasher.finalize().as_bytes() != self.stream.digest.0 {
            return Err(io::Error::new(ErrorKind::InvalidData, "the content is not what its digest says"));
        }
        Ok(length)
    }
}
