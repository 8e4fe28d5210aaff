//! Images: from what a job names to a digest that this engine has, by looking, fetching or building.
//!
//! A name is resolved once for a build: what earlier attempts found comes with the attempt, and attempts of one worker ask one
//! after the other. What is built is named by the content it was built from, so that the engine keeps it, and labeled ours.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use bytes::Bytes;
use graph::Pull;
use http_body_util::BodyExt;
use hyper::Method;
use serde::Deserialize;
use serde_json::json;
use tokio::sync::{Mutex, mpsc};

use super::context::{self, ContextFault};
use super::engine::{Engine, EngineError, ImageFacts, Sent, in_query};

/// The longest line of what an engine tells of its progress.
const PROGRESS_LINE_BYTES_MAX: usize = 1 << 20;

/// How much of a context is sent at once.
const PIECE_BYTES: usize = 256 << 10;

/// An image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum ImageFault {
    /// The engine cannot be reached.
    #[error(transparent)]
    Engine(EngineError),
    /// The engine cannot fetch it.
    #[error("the image `{reference}` was not fetched: {message}")]
    NotFetched {
        /// As the job names it.
        reference: String,
        /// The engine's words.
        message: String,
    },
    /// Its registry does not give it to whoever asks so.
    #[error("the registry {registry} refuses `{reference}`: {message}; {}", remedy(.secret.as_deref()))]
    Denied {
        /// As the job names it.
        reference: String,
        /// Where it was asked for.
        registry: String,
        /// The secret that held the login, if there was one.
        secret: Option<String>,
        /// The engine's words.
        message: String,
    },
    /// Its registry has no such image.
    #[error("the registry {registry} has no `{reference}`: {message}")]
    Unknown {
        /// As the job names it.
        reference: String,
        /// Where it was asked for.
        registry: String,
        /// The engine's words.
        message: String,
    },
    /// It is not here, and is not to be fetched.
    #[error("the image `{0}` is not here, and `pull: never` forbids to fetch it")]
    Absent(String),
    /// What is to be had is for another platform.
    #[error("the image `{reference}` is for {found}, and the job wants `platform: {wanted}`{}", .forbidden)]
    OtherPlatform {
        /// As the job names it.
        reference: String,
        /// What it is for.
        found: String,
        /// What the job wants.
        wanted: String,
        /// Why no other is fetched, if that is so.
        forbidden: &'static str,
    },
    /// The build has it pinned to a digest that is not here and that no registry knows.
    #[error(
        "the image `{reference}` is {digest} in this build, and this engine has no such image: push it to a registry that all workers reach"
    )]
    PinnedAway {
        /// As the job names it.
        reference: String,
        /// What it was.
        digest: String,
    },
    /// A build failed; its output says why.
    #[error("the build of `{dockerfile}` failed: {message}")]
    Build {
        /// The file.
        dockerfile: String,
        /// The engine's words.
        message: String,
    },
    /// The files for a build cannot be sent.
    #[error(transparent)]
    Context(#[from] ContextFault),
    /// `login` names a secret that is no login.
    #[error("the secret `{0}` is no login: its value must be `user:password`")]
    Login(String),
}

impl ImageFault {
    /// Whether the machine is to blame and not the pipeline.
    #[must_use]
    pub fn is_infrastructure(&self) -> bool {
        match self {
            Self::Engine(_) | Self::NotFetched { .. } => true,
            Self::Context(fault) => matches!(fault, ContextFault::File { .. }),
            Self::Denied { .. } | Self::Unknown { .. } | Self::Absent(_) | Self::OtherPlatform { .. } => false,
            Self::PinnedAway { .. } | Self::Build { .. } | Self::Login(_) => false,
        }
    }

    /// What it means that an image was not fetched. Engines tell by words alone: those of registries ("unauthorized", "denied",
    /// "manifest unknown") stand in the OCI distribution specification, "Error Codes"; the rest is the engines' own.
    fn not_fetched(wanted: &Wanted<'_>, message: String) -> Self {
        const OF_DENIAL: [&str; 6] = [
            "unauthorized",
            "no basic auth credentials",
            "denied",
            "authentication required",
            "username or password",
            "username/password",
        ];
        const OF_ABSENCE: [&str; 3] = ["manifest unknown", "name unknown", "manifest for "];
        let (reference, registry) = (wanted.reference.to_owned(), registry_for_people(wanted.reference).to_owned());
        let has = |words: &[&str]| words.iter().any(|word| message.to_ascii_lowercase().contains(word));
        if has(&OF_DENIAL) {
            let secret = wanted.login.map(|login| login.secret.clone());
            Self::Denied { reference, registry, secret, message }
        } else if has(&OF_ABSENCE) {
            Self::Unknown { reference, registry, message }
        } else {
            Self::NotFetched { reference, message }
        }
    }
}

/// What to do where a registry refuses.
fn remedy(secret: Option<&str>) -> String {
    match secret {
        Some(secret) => format!("the secret `{secret}` must hold `user:password` as this registry knows them"),
        None => "if it needs a login, name a secret that holds `user:password` with `login`".to_owned(),
    }
}

/// A login for a registry.
#[derive(Clone)]
pub struct Login {
    /// The name of the secret that holds it.
    secret: String,
    user: String,
    password: String,
}

impl Login {
    /// Reads `user:password`.
    ///
    /// # Errors
    /// [`ImageFault::Login`] with the secret's name.
    pub fn read(secret: &str, value: &str) -> Result<Self, ImageFault> {
        match value.trim_end_matches('\n').split_once(':') {
            Some((user, password)) if !user.is_empty() => {
                Ok(Self { secret: secret.to_owned(), user: user.to_owned(), password: password.to_owned() })
            }
            _ => Err(ImageFault::Login(secret.to_owned())),
        }
    }

    /// The header `X-Registry-Auth`. Source: docs.docker.com/reference/api/engine, "Authentication".
    fn header(&self, registry: &str) -> String {
        let login = json!({ "username": self.user, "password": self.password, "serveraddress": registry });
        base64_of(login.to_string().as_bytes())
    }
}

/// Base64 for URLs (RFC 4648, section 5), with padding.
fn base64_of(bytes: &[u8]) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for group in bytes.chunks(3) {
        let number = group.iter().fold(0_u32, |number, byte| number << 8 | u32::from(*byte)) << (8 * (3 - group.len()));
        for place in 0..4 {
            let letter = LETTERS[(number >> (18 - 6 * place) & 63) as usize];
            text.push(if place <= group.len() { char::from(letter) } else { '=' });
        }
    }
    text
}

/// The registry that a reference names; Docker's own if it names none.
fn registry(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first.contains(['.', ':']) || first == "localhost" => first,
        _ => "https://index.docker.io/v1/",
    }
}

/// The registry that a reference names, as people call it.
fn registry_for_people(reference: &str) -> &str {
    match registry(reference) {
        "https://index.docker.io/v1/" => "docker.io",
        named => named,
    }
}

/// The reference with the tag that it means: without one engines would fetch all tags.
fn with_tag(reference: &str) -> String {
    let last = reference.rsplit('/').next().unwrap_or(reference);
    if last.contains([':', '@']) { reference.to_owned() } else { format!("{reference}:latest") }
}

/// The name of a reference, without tag and digest.
fn name_of(reference: &str) -> &str {
    let name = reference.split_once('@').map_or(reference, |(name, _)| name);
    match name.rsplit_once(':') {
        Some((before, tag)) if !tag.contains('/') => before,
        _ => name,
    }
}

/// What an image is called in the facts of a build: as its registry knows it, else by the engine's own digest.
fn pin_of(reference: &str, facts: &ImageFacts) -> String {
    let name = name_of(reference);
    let known = facts.repo_digests.iter().flatten();
    let is_of_name = |digest: &&String| {
        digest.split_once('@').is_some_and(|(of, _)| of == name || of.ends_with(&format!("/{name}")))
    };
    // Podman makes up digests for images that no registry has seen; those it cannot fetch either.
    known.clone().find(is_of_name).cloned().unwrap_or_else(|| facts.id.clone())
}

/// An image that this engine has.
#[derive(Clone, Debug)]
pub struct Resolved {
    /// What it was found to be, for the facts of the build.
    pub pin: String,
    /// How the engine has it.
    pub facts: ImageFacts,
}

/// What one build knows of images on one worker.
#[derive(Default)]
pub struct Pins {
    /// By reference. Held while one is resolved, so that two jobs that begin at once find the same.
    known: Mutex<BTreeMap<String, String>>,
}

/// What is wanted of an image.
pub struct Wanted<'w> {
    /// As the job names it.
    pub reference: &'w str,
    /// When it is fetched.
    pub pull: Pull,
    /// `OS/ARCHITECTURE`, or nothing.
    pub platform: &'w str,
    /// For its registry.
    pub login: Option<&'w Login>,
    /// What the build knows of images.
    pub pinned: &'w BTreeMap<String, String>,
}

impl Wanted<'_> {
    /// Engines run what they have, whatever it is for.
    fn check_platform(&self, facts: &ImageFacts) -> Result<(), ImageFault> {
        if facts.is_for(self.platform) {
            return Ok(());
        }
        let forbidden = if self.pull == Pull::Never { "; `pull: never` forbids to fetch another" } else { "" };
        let (reference, wanted) = (self.reference.to_owned(), self.platform.to_owned());
        Err(ImageFault::OtherPlatform { reference, found: facts.platform(), wanted, forbidden })
    }
}

/// Takes lines of progress, for a log.
pub type Progress<'p> = &'p (dyn Fn(&str) + Sync);

impl Pins {
    /// Finds or fetches an image.
    ///
    /// # Errors
    /// [`ImageFault`].
    pub async fn resolve(
        &self,
        engine: &Engine,
        wanted: &Wanted<'_>,
        progress: Progress<'_>,
    ) -> Result<Resolved, ImageFault> {
        let reference = wanted.reference;
        let mut known = self.known.lock().await;
        let pinned = wanted.pinned.get(reference).or_else(|| known.get(reference)).cloned();
        if let Some(pin) = pinned {
            let facts = pinned_image(engine, wanted, &pin, progress).await?;
            known.insert(reference.to_owned(), pin.clone());
            return Ok(Resolved { pin, facts });
        }
        let name = with_tag(reference);
        let here = match wanted.pull {
            Pull::Always => None,
            Pull::Missing | Pull::Never => found(engine, &name).await?,
        };
        let facts = match here {
            Some(facts) if wanted.pull == Pull::Never || facts.is_for(wanted.platform) => facts,
            None if wanted.pull == Pull::Never => return Err(ImageFault::Absent(reference.to_owned())),
            _ => {
                fetch(engine, wanted, &name, progress).await?;
                engine.image(&name).await.map_err(ImageFault::Engine)?
            }
        };
        wanted.check_platform(&facts)?;
        let pin = pin_of(reference, &facts);
        known.insert(reference.to_owned(), pin.clone());
        Ok(Resolved { pin, facts })
    }
}

async fn found(engine: &Engine, name: &str) -> Result<Option<ImageFacts>, ImageFault> {
    match engine.image(name).await {
        Ok(facts) => Ok(Some(facts)),
        Err(error) if error.is_absent() => Ok(None),
        Err(error) => Err(ImageFault::Engine(error)),
    }
}

/// The image that the build says the reference is.
async fn pinned_image(
    engine: &Engine,
    wanted: &Wanted<'_>,
    pin: &str,
    progress: Progress<'_>,
) -> Result<ImageFacts, ImageFault> {
    if let Some(facts) = found(engine, pin).await? {
        let is_all_there_is = !pin.contains('@') || wanted.pull == Pull::Never;
        if is_all_there_is {
            wanted.check_platform(&facts)?;
        }
        if is_all_there_is || facts.is_for(wanted.platform) {
            return Ok(facts);
        }
    }
    if !pin.contains('@') || wanted.pull == Pull::Never {
        let (reference, digest) = (wanted.reference.to_owned(), pin.to_owned());
        return Err(ImageFault::PinnedAway { reference, digest });
    }
    fetch(engine, wanted, pin, progress).await?;
    let facts = engine.image(pin).await.map_err(ImageFault::Engine)?;
    wanted.check_platform(&facts)?;
    Ok(facts)
}

/// One line of what an engine tells while it works.
#[derive(Deserialize)]
struct Told {
    #[serde(default)]
    status: Option<String>,
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    stream: Option<String>,
    #[serde(default)]
    error: Option<String>,
}

async fn fetch(engine: &Engine, wanted: &Wanted<'_>, name: &str, progress: Progress<'_>) -> Result<(), ImageFault> {
    let not_fetched = |message: String| ImageFault::not_fetched(wanted, message);
    let mut path = format!("/images/create?fromImage={}", in_query(name));
    if !wanted.platform.is_empty() {
        path.push_str(&format!("&platform={}", in_query(wanted.platform)));
    }
    progress(&format!("fetching {name}"));
    let header = wanted.login.map(|login| login.header(registry(name)));
    let headers: Vec<(&str, &str)> = header.iter().map(|header| ("X-Registry-Auth", header.as_str())).collect();
    let called = engine.call(Method::POST, &path, &headers, Sent::Nothing).await;
    let response = called.map_err(|error| match error {
        EngineError::Refused { message, .. } => not_fetched(message),
        error => ImageFault::Engine(error),
    })?;
    let failure = each_told(response.into_body(), |told| {
        // Bars of progress are for terminals: what is said without an id, or at the end of a layer, is enough.
        let is_last = |status: &String| ["Pull complete", "Already exists"].contains(&status.as_str());
        match (&told.status, &told.id) {
            (Some(status), None) => progress(status),
            (Some(status), Some(id)) if is_last(status) => progress(&format!("{id}: {status}")),
            _ => {}
        }
    });
    match failure.await.map_err(not_fetched)? {
        Some(message) => Err(not_fetched(message)),
        None => Ok(()),
    }
}

/// Hands on each thing that an engine tells; what it ends with as an error, if it does. `Err` if it breaks off.
async fn each_told(mut body: hyper::body::Incoming, mut hand_on: impl FnMut(&Told)) -> Result<Option<String>, String> {
    let mut failure = None;
    let mut rest: Vec<u8> = Vec::new();
    loop {
        let frame = match body.frame().await {
            None => break,
            Some(Err(error)) => return Err(format!("the engine broke off: {error}")),
            Some(Ok(frame)) => frame,
        };
        rest.extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
        while let Some(length) = memchr::memchr(b'\n', &rest) {
            let line: Vec<u8> = rest.drain(..=length).collect();
            if let Ok(told) = serde_json::from_slice::<Told>(&line) {
                hand_on(&told);
                failure = told.error.or(failure);
            }
        }
        if rest.len() > PROGRESS_LINE_BYTES_MAX {
            return Err("the engine told a line without an end".to_owned());
        }
    }
    if let Ok(told) = serde_json::from_slice::<Told>(&rest) {
        hand_on(&told);
        failure = told.error.or(failure);
    }
    Ok(failure)
}

/// What is to be built.
pub struct Recipe<'r> {
    /// The project's folder.
    pub root: PathBuf,
    /// The file, below it.
    pub dockerfile: &'r str,
    /// The directory that the build sees, below it.
    pub context: &'r str,
    /// Its arguments.
    pub args: BTreeMap<String, String>,
    /// The stage, or nothing.
    pub target: &'r str,
    /// `OS/ARCHITECTURE`, or nothing.
    pub platform: &'r str,
    /// For the registries of its base images.
    pub login: Option<&'r Login>,
    /// A label for what comes of it, `name=value`.
    pub label: (&'r str, &'r str),
    /// Where a file may stand while it is sent.
    pub scratch: &'r Path,
}

/// Builds an image; the engine keeps what it has built before.
///
/// # Errors
/// [`ImageFault`].
pub async fn build(engine: &Engine, recipe: Recipe<'_>, progress: Progress<'_>) -> Result<Resolved, ImageFault> {
    let failed = |message: String| ImageFault::Build { dockerfile: recipe.dockerfile.to_owned(), message };
    let (archive, digest) = packed(&recipe).await?;
    let args = serde_json::to_string(&recipe.args).unwrap_or_default();
    let mut hasher = blake3::Hasher::new();
    for part in [digest.as_bytes().as_slice(), args.as_bytes(), recipe.target.as_bytes(), recipe.platform.as_bytes()] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part);
    }
    let tag = format!("ropewalk:{}", &hasher.finalize().to_hex()[..32]);
    let (name, value) = recipe.label;
    let labels = json!({ name: value }).to_string();
    let path = format!(
        "/build?dockerfile={}&t={}&buildargs={}&target={}&platform={}&labels={}&rm=1&forcerm=1",
        in_query(context::DOCKERFILE),
        in_query(&tag),
        in_query(&args),
        in_query(recipe.target),
        in_query(recipe.platform),
        in_query(&labels),
    );
    let (sender, pieces) = mpsc::channel(4);
    let sent = tokio::task::spawn_blocking(move || send_pieces(archive, &sender));
    let header = recipe.login.map(|login| {
        // Which registries its base images are from is not known here, so all that can be named get it.
        let of = |registry: &str| (registry.to_owned(), json!({ "username": login.user, "password": login.password }));
        let registries = registries_of(&recipe);
        base64_of(serde_json::Value::Object(registries.iter().map(|name| of(name)).collect()).to_string().as_bytes())
    });
    let headers: Vec<(&str, &str)> = header.iter().map(|header| ("X-Registry-Config", header.as_str())).collect();
    let called = engine.call(Method::POST, &path, &headers, Sent::Archive(pieces)).await;
    let response = called.map_err(|error| match error {
        EngineError::Refused { message, .. } => {
            progress(&message);
            failed(message)
        }
        error => ImageFault::Engine(error),
    })?;
    let failure = each_told(response.into_body(), |told| {
        for line in told.stream.iter().flat_map(|text| text.lines()).filter(|line| !line.is_empty()) {
            progress(line);
        }
        if let (Some(status), None) = (&told.status, &told.id) {
            progress(status);
        }
    });
    let failure = failure.await.map_err(failed)?;
    // Its fault, if any, is the engine's that stopped to read.
    let _ = sent.await;
    if let Some(message) = failure {
        progress(&message);
        return Err(failed(message));
    }
    let facts = engine.image(&tag).await.map_err(ImageFault::Engine)?;
    Ok(Resolved { pin: facts.id.clone(), facts })
}

/// The registries that the file's `FROM` lines name.
fn registries_of(recipe: &Recipe<'_>) -> Vec<String> {
    // What cannot be read is told when it is to be sent.
    let text =
        below(recipe.dockerfile).and_then(|dockerfile| context::read(&recipe.root, &dockerfile)).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let of_line = |line: &str| {
        let mut words = line.split_whitespace().filter(|word| !word.starts_with("--"));
        words.next().filter(|word| word.eq_ignore_ascii_case("FROM"))?;
        words.next().map(|image| registry(image).to_owned())
    };
    let mut registries: Vec<String> = text.lines().filter_map(of_line).collect();
    registries.sort();
    registries.dedup();
    registries
}

/// The archive of a build's files, at its start, and the digest of its bytes.
async fn packed(recipe: &Recipe<'_>) -> Result<(std::fs::File, blake3::Hash), ImageFault> {
    let (root, scratch) = (recipe.root.clone(), recipe.scratch.to_owned());
    let (context, dockerfile) = (below(recipe.context)?, below(recipe.dockerfile)?);
    let packed = tokio::task::spawn_blocking(move || {
        let at = |source| ContextFault::File { path: scratch.clone(), source };
        let file = tempfile::tempfile_in(&scratch).map_err(at)?;
        let mut buffered = io::BufWriter::with_capacity(PIECE_BYTES, file);
        context::write(&root, &context, &dockerfile, &mut buffered)?;
        let mut file = buffered.into_inner().map_err(|error| at(error.into_error()))?;
        let mut hasher = blake3::Hasher::new();
        io::Seek::rewind(&mut file).map_err(at)?;
        io::copy(&mut file, &mut hasher).map_err(at)?;
        io::Seek::rewind(&mut file).map_err(at)?;
        Ok::<_, ContextFault>((file, hasher.finalize()))
    });
    Ok(packed.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))?)
}

/// A path that stays within the project.
fn below(path: &str) -> Result<PathBuf, ContextFault> {
    use std::path::Component;
    let is_below = |component: Component<'_>| matches!(component, Component::Normal(_) | Component::CurDir);
    match Path::new(path).components().all(is_below) {
        true => Ok(Path::new(path).components().filter(|component| *component != Component::CurDir).collect()),
        false => Err(ContextFault::NoContext(path.into())),
    }
}

fn send_pieces(mut archive: std::fs::File, to: &mpsc::Sender<io::Result<Bytes>>) {
    loop {
        let mut piece = vec![0; PIECE_BYTES];
        let read = io::Read::read(&mut archive, &mut piece);
        let piece = match read {
            Ok(0) => return,
            Ok(length) => {
                piece.truncate(length);
                Ok(piece.into())
            }
            Err(error) => Err(error),
        };
        if to.blocking_send(piece).is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn references_are_read() {
        let check = |reference: &str, of_registry: &str, tagged: &str, name: &str| {
            assert_eq!(
                (registry(reference), with_tag(reference).as_str(), name_of(reference)),
                (of_registry, tagged, name)
            );
        };
        let docker = "https://index.docker.io/v1/";
        check("rust", docker, "rust:latest", "rust");
        check("rust:1", docker, "rust:1", "rust");
        check("ada/rust:1", docker, "ada/rust:1", "ada/rust");
        check("ghcr.io/a/b", "ghcr.io", "ghcr.io/a/b:latest", "ghcr.io/a/b");
        check("localhost:5000/b:2", "localhost:5000", "localhost:5000/b:2", "localhost:5000/b");
        check("localhost:5000/b", "localhost:5000", "localhost:5000/b:latest", "localhost:5000/b");
        check("a@sha256:00", docker, "a@sha256:00", "a");
    }

    #[test]
    fn logins_are_encoded_for_a_header() {
        for (bytes, expected) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("\u{ff}\u{fe}", "w7_Dvg==")]
        {
            assert_eq!(base64_of(bytes.as_bytes()), expected);
        }
        assert!(matches!(Login::read("S", "no colon"), Err(ImageFault::Login(name)) if name == "S"));
        assert!(Login::read("S", "u:p:q\n").is_ok_and(|login| login.password == "p:q"));
    }
}
