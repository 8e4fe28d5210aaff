//! `ropewalk serve`: a server for a team, and a worker beside it.
//!
//! The worker is a process of its own, which outlives this one for a minute: what it runs goes on when the server is
//! replaced. It finds the server by a file in the data folder.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use axum::serve::ListenerExt;
use rustix::process::{Pid, Signal, kill_process};
use server::access::{Access, GrantRequest, RootKey, SealingKey, StoreLedger, Subject, SubjectKind, Verb};
use server::http::{App, router};
use server::parts::{Places, Storage, open_storage};
use server::records::Records;
use server::secrets::Secrets;
use server::server::Parts;
use server::settings::{OnOff, Settings};
use server::{Running, Server};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::Stop;
use crate::agent::session::say;
use crate::args::{Colour, Serve, Switch};
use crate::local::clock::now;
use crate::{exit, output};

/// How long the worker beside the server goes on without one.
const ORPHANED_AFTER: u64 = 60;

/// The waits before the worker is started again: the first, and the longest.
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// A worker that ran for so long had begun well.
const RAN_WELL: Duration = Duration::from_secs(60);

/// Threads that answer requests.
const THREADS: usize = 2;

const ADDRESS: &str = "address";
const LOCK: &str = "serve.lock";

/// Runs the command.
///
/// # Errors
/// If the settings are wrong, or a part cannot be opened.
pub fn run(serve: &Serve, colour: Colour) -> Result<u8, Stop> {
    let folder = serve.installation.folder();
    fs::create_dir_all(&folder).map_err(|error| refused(&folder, &error))?;
    let folder = folder.canonicalize().map_err(|error| refused(&folder, &error))?;
    let _lock = lock(&folder)?;
    let settings = settings(serve, colour)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_keep_alive(Duration::from_secs(5))
        .enable_all()
        .build()
        .map_err(|error| Stop::infra(format!("could not start: {error}")))?;
    let served = runtime.block_on(at_service(serve, settings, &folder, colour));
    runtime.shutdown_background();
    served.map(|()| exit::PASSED)
}

fn refused(folder: &Path, error: &io::Error) -> Stop {
    Stop::infra(format!("cannot use the server's folder {}: {error}", folder.display()))
}

/// Two servers in one folder would be one too many.
fn lock(folder: &Path) -> Result<File, Stop> {
    let path = folder.join(LOCK);
    let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path);
    let file = file.map_err(|error| refused(folder, &error))?;
    file.try_lock().map_err(|_| {
        Stop::wrong(format!("another server runs with the folder {}: each needs one of its own", folder.display()))
    })?;
    Ok(file)
}

/// The settings, with what the flags say.
fn settings(serve: &Serve, colour: Colour) -> Result<Settings, Stop> {
    let mut flags = Vec::new();
    if let Some(listen) = &serve.listen {
        flags.push(("server.listen", listen.clone()));
    }
    if let Some(switch) = serve.local_worker {
        let word = if switch == Switch::On { "on" } else { "off" };
        flags.push(("worker.local", word.to_owned()));
    }
    Ok(serve.installation.settings(&flags, colour)?.settings)
}

async fn at_service(serve: &Serve, mut settings: Settings, folder: &Path, colour: Colour) -> Result<(), Stop> {
    let listener = TcpListener::bind(settings.listen).await.map_err(|error| {
        Stop::wrong(format!("cannot listen on {}: {error}; give another address by --listen", settings.listen))
    })?;
    settings.listen = listener.local_addr().map_err(|error| Stop::infra(error.to_string()))?;
    let (running, app) = open(&settings, folder)?;
    let server = Arc::clone(&running.server);
    let ending = server.ending();
    let http = axum::serve(listener.tap_io(|stream| drop(stream.set_nodelay(true))), router(app));
    let http = tokio::spawn(http.with_graceful_shutdown(begun(ending)).into_future());
    let local = local_address(settings.listen);
    write_whole(&folder.join(ADDRESS), format!("http://{local}\n").as_bytes(), 0o644)
        .map_err(|error| refused(folder, &error))?;
    greet(&server, &settings, folder).await?;
    let (end_worker, worker_ends) = watch::channel(false);
    let supervised = match settings.local_worker {
        OnOff::Off => None,
        OnOff::On => {
            let worker = LocalWorker::new(&server, &settings, folder).await?;
            Some(tokio::spawn(worker.supervise(worker_ends)))
        }
    };
    let failed = wait(&running, serve, colour).await;
    let grace = server.settings().grace.0;
    let _ = end_worker.send(true);
    if let Some(supervised) = supervised
        && tokio::time::timeout(Duration::from_millis(grace), supervised).await.is_err()
    {
        say("the worker beside the server finishes what runs, and goes on with the next server");
    }
    let ended = running.end().await;
    let _ = tokio::time::timeout(Duration::from_millis(grace), http).await;
    failed?;
    ended.map_err(|error| Stop::of(&error))
}

/// Opens every part and starts the server.
fn open(settings: &Settings, folder: &Path) -> Result<(Running, Arc<App>), Stop> {
    let stop = |error: &dyn std::error::Error| Stop::of(error);
    let Storage { store, blobs, logs } = open_storage(settings, folder).map_err(|error| stop(&error))?;
    let access =
        Access::new(RootKey::of(folder).map_err(|error| stop(&error))?, Arc::new(StoreLedger(Arc::clone(&store))));
    let sealing = SealingKey::of(folder).map_err(|error| stop(&error))?;
    let secrets = Arc::new(Secrets::new(Records::new(Arc::clone(&store)), Arc::new(sealing)));
    let parts = Parts {
        store,
        blobs,
        logs: Arc::new(logs),
        access: Arc::new(access),
        secrets: Arc::clone(&secrets) as Arc<dyn server::world::SecretSource>,
        scratch: folder.join("scratch"),
        clock: now,
    };
    let running = Server::start(settings.clone(), parts).map_err(|error| stop(&error))?;
    let app = App::new(Arc::clone(&running.server), secrets);
    Ok((running, Arc::new(app)))
}

/// Waits until the server is to end: by a signal, or because it cannot go on. SIGHUP reads the settings anew.
async fn wait(running: &Running, serve: &Serve, colour: Colour) -> Result<(), Stop> {
    let no_signals = |error: io::Error| Stop::infra(format!("the system gives no signals: {error}"));
    let mut interrupts = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminates = signal(SignalKind::terminate()).map_err(no_signals)?;
    let mut hangups = signal(SignalKind::hangup()).map_err(no_signals)?;
    loop {
        tokio::select! {
            _ = interrupts.recv() => break,
            _ = terminates.recv() => break,
            () = running.failed() => return Err(Stop::infra("the server cannot keep what happens, and ends")),
            _ = hangups.recv() => match settings(serve, colour) {
                Ok(settings) => {
                    let listen = running.server.settings().listen;
                    running.server.reload(Settings { listen, ..settings });
                    say("the settings were read again");
                }
                Err(stop) => say(&format!("the settings stay as they were: {}", stop.message)),
            },
        }
    }
    say("ending; what runs on workers goes on");
    Ok(())
}

async fn begun(mut ending: watch::Receiver<server::server::Ending>) {
    // A sender that is gone is an end, too.
    let _ = ending.wait_for(|ending| *ending == server::server::Ending::Begun).await;
}

/// Says where the server is, and what to do next.
async fn greet(server: &Arc<Server>, settings: &Settings, folder: &Path) -> Result<(), Stop> {
    let asking = Arc::clone(server);
    let link = tokio::task::spawn_blocking(move || server::setup::link(&asking.access, &asking.records, asking.now()));
    let link = link.await.map_err(|error| Stop::infra(error.to_string()))?.map_err(|error| Stop::of(&error))?;
    let url = settings.public_url();
    let mut text = format!("serving {url}, with the data in {}\n", folder.display());
    if let Some(secret) = link {
        let data = folder.display();
        text.push_str(&format!(
            "the first administrator, once, within a day: {url}/setup?token={secret}\n\
             next: ropewalk token create --data {data} --submit --client NAME > token\n\
             then: ropewalk submit --server {url} --token token DIR\n"
        ));
    }
    output::print(text)
}

/// The address by which this machine reaches the server.
fn local_address(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

/// Writes a file at once or not at all.
fn write_whole(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
    file.write_all(bytes)?;
    fs::rename(fresh, path)
}

/// The worker beside the server.
struct LocalWorker {
    data: PathBuf,
    address: PathBuf,
    token: PathBuf,
    pools: Vec<String>,
    slots: u64,
}

impl LocalWorker {
    /// Its token is made at the first start.
    async fn new(server: &Arc<Server>, settings: &Settings, folder: &Path) -> Result<Self, Stop> {
        let data = Places::of(folder).local_worker();
        fs::create_dir_all(&data).map_err(|error| refused(&data, &error))?;
        let token = data.join("token");
        if !token.exists() {
            let server = Arc::clone(server);
            let made = tokio::task::spawn_blocking(move || {
                let grant = GrantRequest {
                    subject: Subject { kind: SubjectKind::Worker, name: "local".to_owned() },
                    verbs: BTreeSet::from([Verb::Work]),
                    projects: None,
                    pools: None,
                    until: None,
                };
                server.access.create(&server::parts::fresh_id(), grant, "serve", server.now())
            });
            let text = made.await.map_err(|error| Stop::infra(error.to_string()))?;
            let text = text.map_err(|error| Stop::of(&error))?;
            write_whole(&token, text.as_bytes(), 0o600).map_err(|error| refused(&data, &error))?;
        }
        let pools = settings.local_pools.0.clone();
        Ok(Self { data, address: folder.join(ADDRESS), token, pools, slots: settings.local_slots })
    }

    fn start(&self) -> io::Result<Child> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg("work").arg("--server").arg(format!("file:{}", self.address.display()));
        command.arg("--token").arg(&self.token).arg("--data").arg(&self.data).args(["--name", "local"]);
        command.arg("--orphaned-after").arg(ORPHANED_AFTER.to_string());
        for pool in &self.pools {
            command.arg("--pool").arg(pool);
        }
        if self.slots > 0 {
            command.arg("--capacity").arg(self.slots.to_string());
        }
        // A group of its own: Ctrl-C is the server's to pass on.
        command.stdin(Stdio::null()).stdout(Stdio::null()).process_group(0).spawn()
    }

    /// Keeps it running until it is to end, then ends it gently.
    async fn supervise(self, mut ends: watch::Receiver<bool>) {
        let mut wait = AGAIN_MIN;
        loop {
            let began = std::time::Instant::now();
            match self.start() {
                Err(error) => say(&format!("the worker beside the server could not be started: {error}")),
                Ok(child) => {
                    let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
                    let mut exited = tokio::task::spawn_blocking(move || reap(child));
                    tokio::select! {
                        _ = &mut exited => {}
                        () = told(&mut ends) => {
                            if let Some(pid) = pid {
                                let _ = kill_process(pid, Signal::TERM);
                            }
                            let _ = exited.await;
                            return;
                        }
                    }
                }
            }
            wait = if began.elapsed() >= RAN_WELL { AGAIN_MIN } else { (wait * 2).min(AGAIN_MAX) };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                () = told(&mut ends) => return,
            }
        }
    }
}

async fn told(ends: &mut watch::Receiver<bool>) {
    // A sender that is gone is an end, too.
    let _ = ends.wait_for(|ends| *ends).await;
}

fn reap(mut child: Child) {
    let _ = child.wait();
}

#[cfg(test)]
mod tests {
    use super::local_address;

    #[test]
    fn a_worker_beside_the_server_reaches_it() {
        let check = |listen: &str, local: &str| {
            assert_eq!(local_address(listen.parse().expect("an address")).to_string(), local);
        };
        check("0.0.0.0:7", "127.0.0.1:7");
        check("[::]:7", "[::1]:7");
        check("10.0.0.1:7", "10.0.0.1:7");
    }
}
