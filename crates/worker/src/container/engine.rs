//! The container engine of this machine, Docker or Podman: where it listens, and the dozen calls of its HTTP API that we make.
//!
//! The client is our own, on the HTTP library that is here anyway: one connection for each call, over a Unix socket. Calls name no
//! version of the API, so each engine answers with its own; what is read of the answers is in all versions since 1.40.

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::body::{Body, Frame, Incoming};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio::net::UnixStream;
use tokio::sync::mpsc;

/// The most bytes of an answer that is read whole.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// How long the engine may take for a call that starts nothing.
const CALL_MAX: Duration = Duration::from_secs(120);

/// After which times a container that was just ending is removed once more.
const REMOVED_AGAIN_AFTER: [Duration; 3] =
    [Duration::from_millis(50), Duration::from_millis(200), Duration::from_secs(1)];

/// What to do where no engine is.
pub const INSTALL_HINT: &str = "install Docker (`apt install docker.io`) or Podman (`apt install podman` and `systemctl enable --now podman.socket`), \
     or name its socket in DOCKER_HOST";

/// There is no engine to be had, or it refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Nothing listens where engines do.
    #[error("no container engine was found at {}", looked.join(", "))]
    None {
        /// The sockets that were looked for.
        looked: Vec<String>,
    },
    /// `DOCKER_HOST` names something else than a socket of this machine.
    #[error("DOCKER_HOST is `{0}`, and only an engine of this machine is spoken to, over `unix://`")]
    Elsewhere(String),
    /// The socket is there and cannot be spoken to.
    #[error("reach the container engine at {socket}: {cause}")]
    Unreachable {
        /// The socket.
        socket: String,
        /// The system's words.
        cause: String,
    },
    /// The engine's own words.
    #[error("{message}")]
    Refused {
        /// The status of its answer.
        status: u16,
        /// What it says.
        message: String,
    },
}

impl EngineError {
    /// Whether the engine says that there is no such thing.
    #[must_use]
    pub fn is_absent(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// Whether the engine says, of a container that it was to kill, that it ended meanwhile. Podman refuses to remove it then, this once;
    /// only its words tell.
    #[must_use]
    pub fn is_just_ending(&self) -> bool {
        matches!(self, Self::Refused { message, .. } if message.contains("container state improper"))
    }

    /// Whether the engine says, of a container that it was to start, that the image lacks the program or that it is none.
    /// Only its words tell, and they are those of the runtime (runc, crun) under Docker and Podman alike.
    #[must_use]
    pub fn is_no_program(&self) -> bool {
        let words = ["executable file", "no such file or directory", "permission denied", "exec format error"];
        let is_of_start = |message: &str| message.contains("exec:") || message.contains("executable file");
        matches!(self, Self::Refused { message, .. } if is_of_start(message)
            && words.iter().any(|words| message.contains(words)))
    }

    /// Whether the engine says, of a container that it was to make or to start, that the image has no such user or group. Only its words tell;
    /// Docker and Podman have them from the same library.
    #[must_use]
    pub fn is_no_user(&self) -> bool {
        let words = ["unable to find user", "unable to find group", "no matching entries in"];
        matches!(self, Self::Refused { message, .. } if words.iter().any(|words| message.contains(words)))
    }

    /// What a person can do about it.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::None { .. } | Self::Elsewhere(_) => Some(INSTALL_HINT),
            Self::Unreachable { cause, .. } if cause.contains("ermission denied") => Some(
                "add this user to the engine's group (`usermod -aG docker USER`), or use Podman's socket of the user",
            ),
            Self::Unreachable { .. } => Some("start it (`systemctl start docker`, `systemctl start podman.socket`)"),
            Self::Refused { .. } => None,
        }
    }

    /// The error with what to do about it.
    #[must_use]
    pub fn with_hint(&self) -> String {
        self.hint().map_or_else(|| self.to_string(), |hint| format!("{self}: {hint}"))
    }
}

/// An engine that has answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Engine {
    socket: PathBuf,
    /// Its name and version, for people.
    pub version: String,
    /// Whether it runs as an ordinary user, who is root inside its containers.
    pub is_rootless: bool,
}

/// The body of a call.
pub enum Sent {
    /// None.
    Nothing,
    /// A value as JSON.
    Json(Value),
    /// An archive, piece by piece.
    Archive(mpsc::Receiver<io::Result<Bytes>>),
}

/// What an engine says when it refuses.
#[derive(Deserialize)]
struct Refusal {
    message: String,
}

/// What is read of an image.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ImageFacts {
    /// Its digest, as this engine has it.
    pub id: String,
    /// How registries know it: `NAME@sha256:…`.
    #[serde(default)]
    pub repo_digests: Option<Vec<String>>,
    #[serde(default)]
    config: Option<ImageConfig>,
    #[serde(default)]
    os: String,
    #[serde(default)]
    architecture: String,
    #[serde(default)]
    variant: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ImageConfig {
    #[serde(default)]
    env: Option<Vec<String>>,
    #[serde(default)]
    cmd: Option<Vec<String>>,
    #[serde(default)]
    entrypoint: Option<Vec<String>>,
}

impl ImageFacts {
    /// The variables that it sets, each `name=value`.
    #[must_use]
    pub fn variables(&self) -> &[String] {
        self.config.as_ref().and_then(|config| config.env.as_deref()).unwrap_or_default()
    }

    /// What it is for, as `OS/ARCHITECTURE` with a variant behind it if it has one.
    #[must_use]
    pub fn platform(&self) -> String {
        let variant = self.variant.as_deref().filter(|variant| !variant.is_empty());
        let variant = variant.map(|variant| format!("/{variant}")).unwrap_or_default();
        format!("{}/{}{variant}", self.os, self.architecture)
    }

    /// Whether it is for a platform, `OS/ARCHITECTURE` with or without a variant; an engine that does not tell is believed.
    #[must_use]
    pub fn is_for(&self, platform: &str) -> bool {
        let same = |one: &str, two: &str| one.is_empty() || two.is_empty() || usual(one) == usual(two);
        let mut parts = platform.split('/');
        let mut part = || parts.next().unwrap_or_default();
        same(part(), &self.os)
            && same(part(), &self.architecture)
            && same(part(), self.variant.as_deref().unwrap_or(""))
    }

    /// Whether it says by itself what a container of it runs.
    #[must_use]
    pub fn has_program(&self) -> bool {
        let has_words = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|words| !words.is_empty());
        self.config.as_ref().is_some_and(|config| has_words(&config.cmd) || has_words(&config.entrypoint))
    }
}

/// The name by which images know an architecture.
fn usual(name: &str) -> String {
    match name.to_ascii_lowercase().as_str() {
        "x86_64" | "x86-64" => "amd64".to_owned(),
        "aarch64" => "arm64".to_owned(),
        other => other.to_owned(),
    }
}

/// What is read of an engine.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct EngineFacts {
    /// Podman's word.
    #[serde(default)]
    rootless: bool,
    /// Docker's words.
    #[serde(default)]
    security_options: Option<Vec<String>>,
}

impl EngineFacts {
    fn is_rootless(&self) -> bool {
        let mut words = self.security_options.iter().flatten().flat_map(|option| option.split(','));
        self.rootless || words.any(|word| word == "name=rootless")
    }
}

/// What is read of a container.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerFacts {
    /// How it is.
    pub state: ContainerState,
    #[serde(default)]
    network_settings: Option<NetworkSettings>,
}

/// How a container is.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerState {
    /// Whether its first process runs.
    pub running: bool,
    /// The process id of the first process, for this machine.
    #[serde(default)]
    pub pid: i32,
    /// With which code the first process ended.
    #[serde(default)]
    pub exit_code: i64,
    /// Whether the kernel killed something of it for want of memory.
    #[serde(rename = "OOMKilled", default)]
    pub out_of_memory: bool,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct NetworkSettings {
    #[serde(default)]
    networks: Option<std::collections::BTreeMap<String, Endpoint>>,
}

#[derive(Clone, Debug, Deserialize)]
struct Endpoint {
    #[serde(rename = "IPAddress", default)]
    address: String,
}

impl ContainerFacts {
    /// Its address in a network.
    #[must_use]
    pub fn address(&self, network: &str) -> Option<&str> {
        let networks = self.network_settings.as_ref()?.networks.as_ref()?;
        networks.get(network).map(|endpoint| endpoint.address.as_str()).filter(|address| !address.is_empty())
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Made {
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ExecFacts {
    running: bool,
    #[serde(default)]
    exit_code: Option<i32>,
}

/// A name and the labels of something that an engine keeps.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Labeled {
    /// Its id, which volumes have not.
    #[serde(default)]
    pub id: String,
    /// Its name, which containers have not.
    #[serde(default)]
    pub name: String,
    /// What we wrote on it.
    #[serde(default)]
    pub labels: Option<std::collections::BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Volumes {
    #[serde(default)]
    volumes: Option<Vec<Labeled>>,
}

/// What a container, a network or a volume is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A container.
    Container,
    /// A network.
    Network,
    /// A volume.
    Volume,
}

impl Kind {
    /// In the order in which they can be removed.
    pub const ALL: [Self; 3] = [Self::Container, Self::Network, Self::Volume];

    fn path(self) -> &'static str {
        match self {
            Self::Container => "containers",
            Self::Network => "networks",
            Self::Volume => "volumes",
        }
    }
}

/// The sockets at which an engine may listen, the likeliest first.
fn sockets(variable: impl Fn(&str) -> Option<OsString>) -> Result<Vec<PathBuf>, EngineError> {
    if let Some(host) = variable("DOCKER_HOST").filter(|host| !host.is_empty()) {
        let host = host.to_string_lossy().into_owned();
        return match host.strip_prefix("unix://") {
            Some(path) => Ok(vec![path.into()]),
            None => Err(EngineError::Elsewhere(host)),
        };
    }
    let mut sockets = vec![PathBuf::from("/var/run/docker.sock"), PathBuf::from("/run/podman/podman.sock")];
    if let Some(of_user) = variable("XDG_RUNTIME_DIR").map(PathBuf::from) {
        sockets.extend([of_user.join("docker.sock"), of_user.join("podman/podman.sock")]);
    }
    Ok(sockets)
}

/// An engine's name and version by the headers of its answers: `Docker/20.10.24 (linux)`, `Libpod/4.3.1 (linux)`. Asked so because `/version` and
/// `/info` start programs of the runtime each time, which takes them 10 to 20 ms.
fn version_of(headers: &hyper::HeaderMap) -> String {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (name, rest) = text("Server").split_once('/').unwrap_or_default();
    let version = rest.split_whitespace().next().unwrap_or_default();
    let podman_version = text("Libpod-Api-Version");
    match name == "Libpod" || !podman_version.is_empty() {
        true => format!("Podman {}", if version.is_empty() { podman_version } else { version }),
        false => format!("Docker {version}").trim_end().to_owned(),
    }
}

impl Engine {
    /// Finds an engine that answers: at `DOCKER_HOST`, else Docker's socket, Podman's of the system, those of the user.
    ///
    /// # Errors
    /// [`EngineError`] says what to install or to start.
    pub async fn find() -> Result<Self, EngineError> {
        let mut refused = None;
        let sockets = sockets(|name| std::env::var_os(name))?;
        for socket in &sockets {
            // What is not there is no engine; what is there and does not answer is worth a word.
            if !socket.exists() {
                continue;
            }
            match Self::at(socket).await {
                Ok(engine) => return Ok(engine),
                Err(error) => {
                    refused.get_or_insert(error);
                }
            }
        }
        let looked = sockets.iter().map(|socket| socket.display().to_string()).collect();
        Err(refused.unwrap_or(EngineError::None { looked }))
    }

    /// The engine at this socket.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn at(socket: &Path) -> Result<Self, EngineError> {
        let mut engine = Self { socket: socket.to_owned(), version: String::new(), is_rootless: false };
        let asked = engine.call(Method::GET, "/_ping", &[], Sent::Nothing);
        let answer = tokio::time::timeout(CALL_MAX, asked).await.unwrap_or_else(|_| Err(engine.silent()))?;
        engine.version = version_of(answer.headers());
        // The question takes an engine its time, and root's socket is that of an engine of root.
        if std::fs::metadata(socket).is_ok_and(|socket| socket.uid() != 0) {
            let facts: EngineFacts = engine.read(Method::GET, "/info", Sent::Nothing).await?;
            engine.is_rootless = facts.is_rootless();
        }
        Ok(engine)
    }

    /// Whether it is Podman, which answers as Docker does.
    #[must_use]
    pub fn is_podman(&self) -> bool {
        self.version.starts_with("Podman ")
    }

    /// The user and group inside a container whose files are this process's own outside: its ids, but with an engine of an ordinary user that
    /// user's, which are those of root inside.
    #[must_use]
    pub fn own_user(&self) -> String {
        match self.is_rootless {
            true => "0:0".to_owned(),
            false => format!("{}:{}", rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()),
        }
    }

    /// Where it listens.
    #[must_use]
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    fn unreachable(&self, error: &dyn std::error::Error) -> EngineError {
        EngineError::Unreachable { socket: self.socket.display().to_string(), cause: graph::with_causes(error) }
    }

    /// Makes a call whose answer is read by the caller.
    ///
    /// # Errors
    /// The engine cannot be reached, or refuses.
    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        sent: Sent,
    ) -> Result<Response<Incoming>, EngineError> {
        let stream = UnixStream::connect(&self.socket).await.map_err(|error| self.unreachable(&error))?;
        let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await;
        let (mut sender, connection) = handshake.map_err(|error| self.unreachable(&error))?;
        // It ends with its one call, when the answer has been read or dropped.
        tokio::spawn(connection);
        let mut request = Request::builder().method(method).uri(path).header("Host", "engine");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let (kind, body) = match sent {
            Sent::Nothing => (None, Full::default().map_err(io::Error::other).boxed()),
            Sent::Json(value) => {
                (Some("application/json"), Full::from(value.to_string()).map_err(io::Error::other).boxed())
            }
            Sent::Archive(pieces) => (Some("application/x-tar"), BoxBody::new(Pieces(pieces))),
        };
        if let Some(kind) = kind {
            request = request.header("Content-Type", kind);
        }
        let request = request.body(body).map_err(|error| self.unreachable(&error))?;
        let response = sender.send_request(request).await.map_err(|error| self.unreachable(&error))?;
        let status = response.status();
        if status.is_success() || status == StatusCode::NOT_MODIFIED {
            return Ok(response);
        }
        let text = self.whole(response).await?;
        let message = serde_json::from_slice(&text).map_or_else(
            |_| String::from_utf8_lossy(&text).trim().to_owned(),
            |refusal: Refusal| refusal.message.trim().to_owned(),
        );
        Err(EngineError::Refused { status: status.as_u16(), message })
    }

    async fn whole(&self, response: Response<Incoming>) -> Result<Vec<u8>, EngineError> {
        let mut body = response.into_body();
        let mut text = Vec::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.unreachable(&error))?;
            text.extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
            if text.len() > ANSWER_BYTES_MAX {
                let message = format!("its answer has more than {ANSWER_BYTES_MAX} bytes");
                return Err(EngineError::Refused { status: 200, message });
            }
        }
        Ok(text)
    }

    /// Makes a call and reads the whole answer, within [`CALL_MAX`].
    async fn ask(&self, method: Method, path: &str, sent: Sent) -> Result<Vec<u8>, EngineError> {
        let asked = async { self.whole(self.call(method, path, &[], sent).await?).await };
        tokio::time::timeout(CALL_MAX, asked).await.unwrap_or_else(|_| Err(self.silent()))
    }

    fn silent(&self) -> EngineError {
        let cause = format!("no answer within {} s", CALL_MAX.as_secs());
        EngineError::Unreachable { socket: self.socket.display().to_string(), cause }
    }

    async fn read<T: DeserializeOwned>(&self, method: Method, path: &str, sent: Sent) -> Result<T, EngineError> {
        let text = self.ask(method, path, sent).await?;
        serde_json::from_slice(&text).map_err(|error| EngineError::Refused {
            status: 200,
            message: format!("its answer to {path} cannot be read: {error}"),
        })
    }

    /// An image by name or digest.
    ///
    /// # Errors
    /// As for all calls; [`EngineError::is_absent`] if it has none.
    pub async fn image(&self, name: &str) -> Result<ImageFacts, EngineError> {
        self.read(Method::GET, &format!("/images/{}/json", in_path(name)), Sent::Nothing).await
    }

    /// Makes a container; its id.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn create(&self, name: &str, container: Value) -> Result<String, EngineError> {
        let path = format!("/containers/create?name={}", in_query(name));
        Ok(self.read::<Made>(Method::POST, &path, Sent::Json(container)).await?.id)
    }

    /// Starts a container.
    ///
    /// # Errors
    /// As for all calls; a program that is not in the image is one.
    pub async fn start(&self, container: &str) -> Result<(), EngineError> {
        self.ask(Method::POST, &format!("/containers/{container}/start"), Sent::Nothing).await.map(drop)
    }

    /// Kills what runs in a container, which stays.
    ///
    /// # Errors
    /// As for all calls; that nothing runs in it is one.
    pub async fn kill(&self, container: &str) -> Result<(), EngineError> {
        self.ask(Method::POST, &format!("/containers/{container}/kill"), Sent::Nothing).await.map(drop)
    }

    /// Waits until nothing runs in a container any more.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn ended(&self, container: &str) -> Result<(), EngineError> {
        let path = format!("/containers/{container}/wait?condition=not-running");
        self.ask(Method::POST, &path, Sent::Nothing).await.map(drop)
    }

    /// How a container is.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn container(&self, container: &str) -> Result<ContainerFacts, EngineError> {
        self.read(Method::GET, &format!("/containers/{container}/json"), Sent::Nothing).await
    }

    /// Makes a network.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn create_network(&self, network: Value) -> Result<(), EngineError> {
        self.ask(Method::POST, "/networks/create", Sent::Json(network)).await.map(drop)
    }

    /// Makes a volume.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn create_volume(&self, volume: Value) -> Result<(), EngineError> {
        self.ask(Method::POST, "/volumes/create", Sent::Json(volume)).await.map(drop)
    }

    /// Removes something with force; a container, by its id, with what runs in it. What is gone already is no fault.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn remove(&self, kind: Kind, name: &str) -> Result<(), EngineError> {
        let force = match kind {
            Kind::Container => "?force=1&v=1",
            Kind::Network => "",
            Kind::Volume => "?force=1",
        };
        let path = format!("/{}/{name}{force}", kind.path());
        let mut answer = self.ask(Method::DELETE, &path, Sent::Nothing).await;
        for pause in REMOVED_AGAIN_AFTER {
            if !answer.as_ref().is_err_and(EngineError::is_just_ending) {
                break;
            }
            tokio::time::sleep(pause).await;
            answer = self.ask(Method::DELETE, &path, Sent::Nothing).await;
        }
        match answer {
            Err(error) if !error.is_absent() => Err(error),
            _ => {
                if kind == Kind::Container && self.is_podman() {
                    super::monitor::end_of(name);
                }
                Ok(())
            }
        }
    }

    /// What there is of a kind with this label, `name=value`.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn labeled(&self, kind: Kind, label: &str) -> Result<Vec<Labeled>, EngineError> {
        let filters = in_query(&serde_json::json!({ "label": [label] }).to_string());
        match kind {
            Kind::Container => {
                self.read(Method::GET, &format!("/containers/json?all=1&filters={filters}"), Sent::Nothing).await
            }
            Kind::Network => self.read(Method::GET, &format!("/networks?filters={filters}"), Sent::Nothing).await,
            Kind::Volume => {
                let volumes: Volumes =
                    self.read(Method::GET, &format!("/volumes?filters={filters}"), Sent::Nothing).await?;
                Ok(volumes.volumes.unwrap_or_default())
            }
        }
    }

    /// Runs a script with a container's `/bin/sh` and waits for its end; its code. `user` is empty for that of the container.
    ///
    /// # Errors
    /// As for all calls.
    pub async fn execute(&self, container: &str, user: &str, script: &str) -> Result<i32, EngineError> {
        #[derive(Serialize)]
        #[serde(rename_all = "PascalCase")]
        struct Exec<'a> {
            cmd: [&'a str; 3],
            user: &'a str,
            attach_stdout: bool,
            attach_stderr: bool,
        }
        let exec = Exec { cmd: ["/bin/sh", "-c", script], user, attach_stdout: true, attach_stderr: true };
        let exec = serde_json::to_value(exec).unwrap_or_default();
        let path = format!("/containers/{container}/exec");
        let made: Made = self.read(Method::POST, &path, Sent::Json(exec)).await?;
        let start = serde_json::json!({ "Detach": false, "Tty": false });
        // Attached, so that the answer ends with the command. Its words are not kept.
        self.ask(Method::POST, &format!("/exec/{}/start", made.id), Sent::Json(start)).await?;
        let path = format!("/exec/{}/json", made.id);
        loop {
            let facts: ExecFacts = self.read(Method::GET, &path, Sent::Nothing).await?;
            match facts.exit_code {
                Some(code) if !facts.running => return Ok(code),
                _ => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        }
    }
}

/// A name as a part of a path. Slashes, colons and `@` stay: engines take them there.
#[must_use]
pub fn in_path(name: &str) -> String {
    escaped(name, b"/:@._-")
}

/// A value of a query.
#[must_use]
pub fn in_query(value: &str) -> String {
    escaped(value, b"._-")
}

fn escaped(text: &str, kept: &[u8]) -> String {
    use std::fmt::Write;
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || kept.contains(&byte) {
            escaped.push(char::from(byte));
        } else {
            let _ = write!(escaped, "%{byte:02X}");
        }
    }
    escaped
}

/// A body that somebody sends piece by piece.
struct Pieces(mpsc::Receiver<io::Result<Bytes>>);

impl Body for Pieces {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<io::Result<Frame<Bytes>>>> {
        self.0.poll_recv(context).map(|piece| piece.map(|piece| piece.map(Frame::data)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_looked_for_in_order() {
        let check = |variables: &[(&str, &str)], expected: Result<&[&str], &str>| {
            let found =
                sockets(|name| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into()));
            let found = found.map(|found| found.iter().map(|path| path.display().to_string()).collect::<Vec<_>>());
            match expected {
                Ok(expected) => assert_eq!(found, Ok(expected.iter().map(|path| (*path).to_owned()).collect())),
                Err(host) => assert_eq!(found, Err(EngineError::Elsewhere(host.to_owned()))),
            }
        };
        let of_system = ["/var/run/docker.sock", "/run/podman/podman.sock"];
        check(&[], Ok(&of_system));
        check(&[("DOCKER_HOST", "")], Ok(&of_system));
        check(
            &[("XDG_RUNTIME_DIR", "/run/user/7")],
            Ok(&[of_system[0], of_system[1], "/run/user/7/docker.sock", "/run/user/7/podman/podman.sock"]),
        );
        check(&[("DOCKER_HOST", "unix:///x y")], Ok(&["/x y"]));
        check(&[("DOCKER_HOST", "tcp://far:2375")], Err("tcp://far:2375"));
    }

    #[test]
    fn an_engine_tells_whether_it_is_rootless() {
        let check = |answer: &str, expected| {
            let facts: EngineFacts = serde_json::from_str(answer).unwrap();
            assert_eq!(facts.is_rootless(), expected, "{answer}");
        };
        check(r#"{"SecurityOptions":["name=seccomp,profile=default"],"Rootless":true}"#, true);
        check(r#"{"SecurityOptions":["name=seccomp,profile=default","name=rootless"]}"#, true);
        check(r#"{"SecurityOptions":["name=seccomp,profile=default","name=cgroupns"],"Rootless":false}"#, false);
        check(r#"{"SecurityOptions":null}"#, false);
    }

    #[test]
    fn an_engine_is_known_by_its_headers() {
        let check = |headers: &[(&'static str, &'static str)], expected: &str| {
            let headers = headers.iter().map(|(name, value)| {
                (hyper::header::HeaderName::from_static(name), hyper::header::HeaderValue::from_static(value))
            });
            assert_eq!(version_of(&headers.collect()), expected);
        };
        check(&[("server", "Docker/20.10.24+dfsg1 (linux)"), ("api-version", "1.41")], "Docker 20.10.24+dfsg1");
        check(&[("server", "Libpod/4.3.1 (linux)"), ("libpod-api-version", "4.3.1")], "Podman 4.3.1");
        check(&[("libpod-api-version", "3.0.1")], "Podman 3.0.1");
        check(&[], "Docker");
    }

    #[test]
    fn names_are_escaped_for_paths_and_queries() {
        assert_eq!(in_path("ghcr.io/a/b:1@sha256:0f"), "ghcr.io/a/b:1@sha256:0f");
        assert_eq!(in_path("a b?x#y%"), "a%20b%3Fx%23y%25");
        assert_eq!(in_query("{\"a\":[\"b/c\"]}"), "%7B%22a%22%3A%5B%22b%2Fc%22%5D%7D");
    }
}
