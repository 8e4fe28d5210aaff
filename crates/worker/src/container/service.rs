//! The services of a job: containers beside its own in a network of the job's, each with a log of its own.
//!
//! Steps reach a service by its name: its address is written into the hosts file of the job's container, so no name server is
//! needed. A service is ready when it listens on its ports and its health command has passed.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use graph::{Health, Usage};
use http_body_util::BodyExt;
use hyper::Method;
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::control_group::ControlGroup;
use super::engine::{Engine, EngineError, Kind, Sent};
use crate::depot::Stream;
use crate::output::{SharedRecorder, lock};

/// How long a service may take until it listens on its ports.
pub const LISTEN_MAX: Duration = Duration::from_secs(5 * 60);

/// How often it is asked whether it does.
const LISTEN_ASKED_EVERY: Duration = Duration::from_millis(100);

/// How often the log of a service is asked for again when the engine's connection drops.
const LOG_TRIES_MAX: u32 = 10;

/// The most bytes of a piece of a log that is kept until it is whole.
const PIECE_BYTES_MAX: usize = 32 << 20;

/// A service that is to be started.
pub struct Plan<'p> {
    /// The name under which steps reach it.
    pub name: &'p str,
    /// Names its container: no other on this machine has it.
    pub container: String,
    /// The image's digest.
    pub image: String,
    /// The program and its arguments, in place of the image's `CMD`; empty is that.
    pub command: Vec<String>,
    /// Its variables.
    pub env: BTreeMap<String, String>,
    /// The ports on which it must listen.
    pub ports: &'p BTreeSet<u16>,
    /// The command that must pass.
    pub health: Option<&'p Health>,
    /// Directories that it keeps in memory.
    pub tmpfs: &'p BTreeSet<String>,
    /// What we write on it.
    pub labels: &'p Value,
    /// The job's network.
    pub network: &'p str,
    /// Where its log goes.
    pub recorder: SharedRecorder,
}

/// Why a service is not there.
#[derive(Debug, thiserror::Error)]
pub enum ServiceFault {
    /// The engine's words.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// Nothing says what it runs.
    #[error(
        "the service `{name}` has nothing to run: its image `{image}` has neither CMD nor ENTRYPOINT; say what to run with `command` in the service"
    )]
    Idle {
        /// Its name.
        name: String,
        /// Its image, as the job names it.
        image: String,
    },
    /// What it is to run is not in its image.
    #[error("the service `{name}` cannot run its program: {cause}; `command` in the service says what it runs")]
    NoProgram {
        /// Its name.
        name: String,
        /// The engine's words.
        cause: EngineError,
    },
    /// It ended.
    #[error("the service `{name}` ended with code {code} before it was ready")]
    Ended {
        /// Its name.
        name: String,
        /// Its code.
        code: i64,
    },
    /// It does not listen.
    #[error("the service `{name}` did not listen on port {port} within {} s", LISTEN_MAX.as_secs())]
    Deaf {
        /// Its name.
        name: String,
        /// The port.
        port: u16,
    },
    /// Its health command did not pass.
    #[error("the service `{name}` was not well after {tries} tries: its health command ended with code {code}")]
    Unwell {
        /// Its name.
        name: String,
        /// How often it was asked.
        tries: u32,
        /// The last code.
        code: i32,
    },
}

/// A service that runs.
pub struct Running {
    engine: Engine,
    id: String,
    /// Its address in the job's network.
    pub address: String,
    log: JoinHandle<()>,
}

/// Makes the network of a job. One that is closed reaches nothing but its own containers.
///
/// # Errors
/// As the engine refuses it.
pub async fn make_network(
    engine: &Engine,
    name: &str,
    network: graph::Network,
    labels: &Value,
) -> Result<(), EngineError> {
    let is_closed = network == graph::Network::Off;
    let network =
        json!({ "Name": name, "Driver": "bridge", "Internal": is_closed, "CheckDuplicate": true, "Labels": labels });
    engine.create_network(network).await
}

/// Starts a service; whether it is ready is asked by [`Running::until_ready`].
///
/// # Errors
/// [`ServiceFault::NoProgram`], else as the engine refuses it.
pub async fn start(engine: &Engine, plan: &Plan<'_>) -> Result<Running, ServiceFault> {
    let env: Vec<String> = plan.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let tmpfs: BTreeMap<&str, &str> = plan.tmpfs.iter().map(|path| (path.as_str(), "")).collect();
    let exposed: BTreeMap<String, Value> = plan.ports.iter().map(|port| (format!("{port}/tcp"), json!({}))).collect();
    let endpoint = json!({ "Aliases": [plan.name] });
    let mut description = json!({
        "Image": plan.image,
        "Hostname": plan.name,
        "Env": env,
        "Labels": plan.labels,
        "ExposedPorts": exposed,
        "HostConfig": {
            "NetworkMode": plan.network,
            "Tmpfs": tmpfs,
            "SecurityOpt": ["no-new-privileges"],
        },
        "NetworkingConfig": { "EndpointsConfig": { plan.network: endpoint } },
    });
    if !plan.command.is_empty() {
        description["Cmd"] = json!(plan.command);
    }
    let id = engine.create(&plan.container, description).await?;
    engine.start(&id).await.map_err(|cause| match cause.is_no_program() {
        true => ServiceFault::NoProgram { name: plan.name.to_owned(), cause },
        false => cause.into(),
    })?;
    let address = engine.container(&id).await?.address(plan.network).unwrap_or_default().to_owned();
    let log = tokio::spawn(follow(engine.clone(), id.clone(), plan.recorder.clone()));
    Ok(Running { engine: engine.clone(), id, address, log })
}

impl Running {
    /// Waits until it listens on its ports and its health command has passed.
    ///
    /// # Errors
    /// [`ServiceFault`].
    pub async fn until_ready(&self, plan: &Plan<'_>) -> Result<(), ServiceFault> {
        let latest = tokio::time::Instant::now() + LISTEN_MAX;
        loop {
            let state = self.engine.container(&self.id).await?.state;
            if !state.running {
                return Err(ServiceFault::Ended { name: plan.name.to_owned(), code: state.exit_code });
            }
            // Where the engine's processes cannot be seen, the health command alone tells.
            let Some(listening) = listening_ports(state.pid) else { break };
            match plan.ports.iter().find(|port| !listening.contains(*port)) {
                None => break,
                Some(port) if tokio::time::Instant::now() > latest => {
                    return Err(ServiceFault::Deaf { name: plan.name.to_owned(), port: *port });
                }
                Some(_) => tokio::time::sleep(LISTEN_ASKED_EVERY).await,
            }
        }
        match plan.health {
            Some(health) => self.until_well(plan.name, health).await,
            None => Ok(()),
        }
    }

    async fn until_well(&self, name: &str, health: &Health) -> Result<(), ServiceFault> {
        let mut code = 0;
        for number in 1..=health.retries.max(1) {
            let executed = self.engine.execute(&self.id, "", &health.command).await;
            code = match executed {
                Ok(0) => return Ok(()),
                Ok(code) => code,
                Err(error) => {
                    let state = self.engine.container(&self.id).await?.state;
                    match state.running {
                        true => return Err(error.into()),
                        false => return Err(ServiceFault::Ended { name: name.to_owned(), code: state.exit_code }),
                    }
                }
            };
            if number < health.retries {
                tokio::time::sleep(Duration::from_millis(health.interval_ms)).await;
            }
        }
        Err(ServiceFault::Unwell { name: name.to_owned(), tries: health.retries.max(1), code })
    }

    /// Ends and removes it, once its log is whole. With which code it ended, if it did so by itself, and what it used, if that
    /// can be seen.
    ///
    /// # Errors
    /// As the engine refuses it.
    pub async fn remove(self) -> Result<(Option<i64>, Usage), EngineError> {
        let state = self.engine.container(&self.id).await.map(|facts| facts.state);
        let pid = state.as_ref().map_or(0, |state| state.pid);
        let used = ControlGroup::of(pid, &self.id).and_then(|group| group.usage()).unwrap_or_default();
        // One that has ended by itself cannot be killed. The log ends with what runs: it is read before it goes with the container, also
        // where the connection had dropped and it has to be asked for again.
        let _ = self.engine.kill(&self.id).await;
        let _ = self.log.await;
        self.engine.remove(Kind::Container, &self.id).await?;
        Ok((state.ok().filter(|state| !state.running).map(|state| state.exit_code), used))
    }
}

/// The TCP ports on which something listens in the network of a process; `None` if the process cannot be seen.
fn listening_ports(pid: i32) -> Option<BTreeSet<u16>> {
    let mut ports = BTreeSet::new();
    let tables = ["tcp", "tcp6"].map(|table| std::fs::read_to_string(format!("/proc/{pid}/net/{table}")));
    if pid <= 0 || tables.iter().all(Result::is_err) {
        return None;
    }
    for table in tables.iter().flatten() {
        ports.extend(table.lines().filter_map(listening_port));
    }
    Some(ports)
}

/// The port of a line of `/proc/net/tcp` in the state LISTEN (0A). Source: proc(5).
fn listening_port(line: &str) -> Option<u16> {
    let mut words = line.split_whitespace();
    let local = words.nth(1)?;
    let is_listening = words.nth(1)? == "0A";
    let (_, port) = local.rsplit_once(':')?;
    u16::from_str_radix(port, 16).ok().filter(|_| is_listening)
}

/// Records what a container prints until it ends. When the connection drops it is asked for again from the start, and what
/// was recorded already is passed over.
async fn follow(engine: Engine, container: String, recorder: SharedRecorder) {
    let mut recorded = 0;
    for _ in 0..LOG_TRIES_MAX {
        match follow_once(&engine, &container, &recorder, &mut recorded).await {
            Ok(()) => return,
            Err(EngineError::Refused { .. }) => return,
            Err(_) => tokio::time::sleep(Duration::from_secs(1)).await,
        }
    }
    lock(&recorder).note("the rest of this log was not read: the engine's connection dropped again and again");
}

async fn follow_once(
    engine: &Engine,
    container: &str,
    recorder: &SharedRecorder,
    recorded: &mut u64,
) -> Result<(), EngineError> {
    let path = format!("/containers/{container}/logs?follow=1&stdout=1&stderr=1");
    let response = engine.call(Method::GET, &path, &[], Sent::Nothing).await?;
    let mut body = response.into_body();
    let mut pieces = BytesMut::new();
    let mut passed = 0;
    while let Some(frame) = body.frame().await {
        let broken = |error: hyper::Error| EngineError::Unreachable {
            socket: engine.socket().display().to_string(),
            cause: error.to_string(),
        };
        let frame = frame.map_err(broken)?;
        pieces.extend_from_slice(frame.data_ref().map_or(&[][..], Bytes::as_ref));
        while let Some((stream, text)) = next_piece(&mut pieces) {
            let known = usize::try_from(recorded.saturating_sub(passed)).unwrap_or(usize::MAX).min(text.len());
            passed += text.len() as u64;
            *recorded = passed.max(*recorded);
            if known < text.len() {
                lock(recorder).write(stream, &text[known..]);
                lock(recorder).flush();
            }
        }
        if pieces.len() > PIECE_BYTES_MAX {
            let message = "the log's pieces are too large".to_owned();
            return Err(EngineError::Refused { status: 200, message });
        }
    }
    Ok(())
}

/// The next whole piece of a log of two streams. Source: docs.docker.com/reference/api/engine, "Stream format".
fn next_piece(pieces: &mut BytesMut) -> Option<(Stream, Bytes)> {
    let header: [u8; 8] = pieces.get(..8)?.try_into().ok()?;
    let length = u32::from_be_bytes([header[4], header[5], header[6], header[7]]) as usize;
    if pieces.len() < 8 + length {
        return None;
    }
    pieces.advance(8);
    let stream = if header[0] == 2 { Stream::Stderr } else { Stream::Stdout };
    Some((stream, pieces.split_to(length).freeze()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_are_cut_from_the_stream() {
        let mut pieces = BytesMut::from(&b"\x01\0\0\0\0\0\0\x02hi\x02\0\0\0\0\0\0\x03b"[..]);
        assert_eq!(next_piece(&mut pieces), Some((Stream::Stdout, Bytes::from_static(b"hi"))));
        assert_eq!(next_piece(&mut pieces), None);
        pieces.extend_from_slice(b"ad");
        assert_eq!(next_piece(&mut pieces), Some((Stream::Stderr, Bytes::from_static(b"bad"))));
        assert!(pieces.is_empty());
    }

    #[test]
    fn listening_ports_are_read_from_the_kernels_table() {
        let check = |line, expected| assert_eq!(listening_port(line), expected);
        check("  sl  local_address rem_address   st tx_queue rx_queue", None);
        check("   0: 00000000:1538 00000000:0000 0A 00000000:00000000 00:00000000", Some(5432));
        check("   1: 0100007F:1538 0100007F:D431 01 00000000:00000000 00:00000000", None);
    }
}
