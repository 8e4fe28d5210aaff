//! `ropewalk serve`: a server for a team, and a worker beside it.
//!
//! The worker is a process of its own, which outlives this one until what it runs has ended, and for a minute: it goes on with
//! the next server of the folder, or leaves its results there. It finds the server by a file in the data folder.

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
use dialects::report;
use rustix::process::{Pid, Signal, kill_process};
use server::access::{Access, GrantRequest, Keys, NewKeys, StoreLedger, Subject, SubjectKind, Verb};
use server::http::{App, front, router};
use server::lead::{LeadError, Role, Seat, is_shared};
use server::notices;
use server::owner;
use server::parts::{Places, Storage, next_of, open_storage};
use server::records::Records;
use server::secrets::Secrets;
use server::server::Parts;
use server::settings::{Loaded, LogForm, OnOff, Settings, for_the_next_start};
use server::shell::ShellError;
use server::{Server, doctor};
use tokio::net::TcpListener;
use tokio::signal::unix::{self, SignalKind, signal};
use tokio::sync::watch;
use tokio::time::Instant;
use worker::keeper::ask_for_early_turns;
use worker::memory;

use super::Stop;
use super::work::{own_program, told_as_notice};
use crate::agent::session::{say, warn};
use crate::args::{Colour, Serve, Switch};
use crate::installation::{self, Holder, NoSettings};
use crate::local::clock::now;
use crate::{exit, output};

/// How many seconds the worker beside the server goes on without one when it runs nothing.
const ORPHANED_AFTER: u64 = 60;

/// The waits before the worker is started again: the first, and the longest.
const AGAIN_MIN: Duration = Duration::from_millis(500);
const AGAIN_MAX: Duration = Duration::from_secs(30);

/// A worker that ran for so long had begun well.
const RAN_WELL: Duration = Duration::from_secs(60);

/// A worker that runs nothing ends within this time.
const BESIDE_ENDS: Duration = Duration::from_secs(1);

/// After this time what only the start needed is given back.
const STARTED: Duration = Duration::from_secs(10);

/// What a server says last that could not store facts.
const UNKEPT: &str = "the server cannot keep what happens, and ends";

/// Threads that answer requests.
const THREADS: usize = 2;

/// Runs the command.
///
/// # Errors
/// If the settings are wrong, or a part cannot be opened; it has been told.
pub fn run(serve: &Serve, colour: Colour) -> Result<u8, Stop> {
    run_in_folder(serve, colour).map_err(told_as_notice)
}

fn run_in_folder(serve: &Serve, colour: Colour) -> Result<u8, Stop> {
    let folder = serve.installation.folder();
    serve.installation.refuse_foreign()?;
    fs::create_dir_all(&folder).map_err(|error| refused(&folder, &error))?;
    let folder = folder.canonicalize().map_err(|error| refused(&folder, &error))?;
    let settings = serve.installation.settings(&flags(serve), colour)?.settings;
    notices::set_form(settings.log);
    let _lock = lock(&folder)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .thread_keep_alive(Duration::from_secs(5))
        .on_thread_start(ask_for_early_turns)
        .enable_all()
        .build()
        .map_err(|error| Stop::infra(format!("could not start: {error}")))?;
    runtime.spawn(async {
        tokio::time::sleep(STARTED).await;
        memory::give_back();
    });
    let served = runtime.block_on(at_service(serve, settings, &folder, colour));
    runtime.shutdown_background();
    served.map(|()| exit::PASSED)
}

fn refused(folder: &Path, error: &io::Error) -> Stop {
    let next = "see its permissions and the room on its disk, or give another by --data DIR";
    Stop::infra(format!("cannot use the server's folder {}: {error}; {next}", folder.display()))
}

/// Two servers in one folder would be one too many.
fn lock(folder: &Path) -> Result<File, Stop> {
    let locked = installation::lock(folder, "serve").map_err(|error| refused(folder, &error))?;
    locked.map_err(|Holder(holder)| {
        let folder = folder.display();
        Stop::wrong(format!("{holder} holds the folder {folder}: each server needs one of its own"))
    })
}

/// What the flags say of settings.
fn flags(serve: &Serve) -> Vec<(&'static str, String)> {
    let mut flags = Vec::new();
    if let Some(listen) = &serve.listen {
        flags.push(("server.listen", listen.clone()));
    }
    if let Some(switch) = serve.local_worker {
        let word = if switch == Switch::On { "on" } else { "off" };
        flags.push(("worker.local", word.to_owned()));
    }
    flags
}

async fn at_service(serve: &Serve, mut settings: Settings, folder: &Path, colour: Colour) -> Result<(), Stop> {
    let began = settings.clone();
    let listener = TcpListener::bind(settings.listen).await.map_err(|error| {
        Stop::wrong(format!("cannot listen on {}: {error}; give another address by --listen", settings.listen))
    })?;
    settings.listen = listener.local_addr().map_err(|error| Stop::infra(error.to_string()))?;
    let new_keys = if serve.new_keys { NewKeys::Wanted } else { NewKeys::Refused };
    let opened = open(&settings, folder, new_keys)?;
    if serve.take_blobs {
        let Parts { store, blobs, .. } = &opened.parts;
        owner::take(&Records::new(Arc::clone(store)), &**blobs, now()).map_err(|error| Stop::of(&error))?;
    }
    if is_shared(&settings) {
        return at_shared_service(serve, settings, folder, colour, opened, listener).await;
    }
    let running = Server::start(settings.clone(), opened.parts).map_err(|error| Stop::of(&error))?;
    let app = Arc::new(App::new(Arc::clone(&running.server), opened.secrets));
    let server = Arc::clone(&running.server);
    let ending = server.ending();
    let service = router(app).into_make_service_with_connect_info::<SocketAddr>();
    let http = axum::serve(listener.tap_io(|stream| drop(stream.set_nodelay(true))), service);
    let http = tokio::spawn(http.with_graceful_shutdown(begun(ending)).into_future());
    write_address(&settings, folder)?;
    let signals = Signals::new()?;
    greet(&server, &settings, folder, Post::Leads).await?;
    let beside = Beside::start(&server, &settings, folder).await?;
    let reload = |settings: Settings| {
        let listen = server.settings().listen;
        server.reload(Settings { listen, ..settings });
    };
    let failed = async {
        running.failed().await;
        Stop::infra(UNKEPT)
    };
    let failed = wait(serve, colour, &began, signals, reload, failed).await;
    server.announce_end();
    let deadline = Instant::now() + Duration::from_millis(server.settings().grace.0);
    beside.end(deadline).await;
    let ended = running.end().await;
    let _ = tokio::time::timeout_at(deadline, http).await;
    // Why the shell ended says more than that it did.
    ended.map_err(|error| unkept(&error))?;
    failed
}

/// Why a server ended by itself, and what to do.
fn unkept(ShellError::Store(error): &ShellError) -> Stop {
    let mut stop = Stop::of(error);
    stop.message =
        format!("{UNKEPT}: {}; {}, then start it again: it goes on where it was", stop.message, next_of(error));
    stop
}

/// As one of several servers on one database.
async fn at_shared_service(
    serve: &Serve,
    settings: Settings,
    folder: &Path,
    colour: Colour,
    opened: Opened,
    listener: TcpListener,
) -> Result<(), Stop> {
    warn_of_what_is_missed(&settings);
    let seat = Seat::new(settings.clone(), opened.parts, opened.secrets, opened.keys);
    let seat = seat.map_err(|error| Stop::of(&error))?;
    let (end, ends) = watch::channel(false);
    let mut closes = end.subscribe();
    let relay = front(Arc::clone(&seat)).map_err(|error| Stop::of(&error))?;
    let service = relay.into_make_service_with_connect_info::<SocketAddr>();
    let http = axum::serve(listener.tap_io(|stream| drop(stream.set_nodelay(true))), service);
    let http = http.with_graceful_shutdown(async move { told(&mut closes).await });
    let http = tokio::spawn(http.into_future());
    write_address(&settings, folder)?;
    let mut role = seat.role();
    let mut seated = tokio::spawn(Arc::clone(&seat).take(ends));
    let post = tokio::select! {
        first = role.wait_for(|role| !matches!(role, Role::Starting)) => match first.as_deref() {
            Ok(Role::Leading(_)) => Post::Leads,
            _ => Post::StandsBy,
        },
        over = &mut seated => return Err(unseated(over)),
    };
    let signals = Signals::new()?;
    greet(&seat.standby, &settings, folder, post).await?;
    let beside = Beside::start(&seat.standby, &settings, folder).await?;
    let reload = |fresh: Settings| seat.reload(&Settings { listen: settings.listen, ..fresh });
    let failed = wait(serve, colour, &settings, signals, reload, async { unseated((&mut seated).await) }).await;
    seat.announce_end();
    let deadline = Instant::now() + Duration::from_millis(seat.standby.settings().grace.0);
    beside.end(deadline).await;
    let _ = end.send(true);
    // What has ended by itself is not to be waited for again.
    let ended = if failed.is_ok() { seated.await } else { Ok(Ok(())) };
    let _ = tokio::time::timeout_at(deadline, http).await;
    failed?;
    match ended {
        Ok(Ok(())) => Ok(()),
        over => Err(unseated(over)),
    }
}

/// Why one of several servers is none any more.
fn unseated(over: Result<Result<(), LeadError>, tokio::task::JoinError>) -> Stop {
    match over {
        Ok(Err(error @ LeadError::Keys { .. })) => Stop::wrong(error.to_string()),
        Ok(Err(error)) => Stop::of(&error),
        Ok(Ok(())) => Stop::infra("the server ended"),
        Err(error) => Stop::infra(error.to_string()),
    }
}

/// Says what several servers on one database would miss.
fn warn_of_what_is_missed(settings: &Settings) {
    if settings.logs_shared == OnOff::Off {
        notices::warning(
            "`logs.shared` is off: logs of running builds stay on this machine, and no other server can go on with them",
        );
    }
    if settings.blobs_url.0 == "directory" {
        notices::warning("`blobs.url` is a folder of this server alone: no other server can read what is in it");
    }
    if settings.url.is_none() && settings.listen.ip().is_unspecified() {
        notices::warning("`server.url` is not set: other servers cannot reach this one when it leads");
    }
}

/// Every part, opened.
struct Opened {
    parts: Parts,
    secrets: Arc<Secrets>,
    /// The fingerprint of the keys.
    keys: String,
}

fn open(settings: &Settings, folder: &Path, new_keys: NewKeys) -> Result<Opened, Stop> {
    let Storage { store, blobs, logs } = open_storage(settings, folder)?;
    let held = installation::keys(folder, &store, new_keys)?;
    let keys = held.fingerprint();
    let Keys { root, sealing } = held;
    let access = Access::new(root, Arc::new(StoreLedger(Arc::clone(&store))));
    let secrets = Arc::new(Secrets::new(Records::new(Arc::clone(&store)), Arc::new(sealing)));
    let parts = Parts {
        store,
        blobs,
        logs: Arc::new(logs),
        access: Arc::new(access),
        secrets: Arc::clone(&secrets) as Arc<dyn server::world::SecretSource>,
        scratch: folder.join("scratch"),
        clock: now,
        early_turns: ask_for_early_turns,
    };
    Ok(Opened { parts, secrets, keys })
}

/// Where the worker beside the server finds it.
fn write_address(settings: &Settings, folder: &Path) -> Result<(), Stop> {
    let local = local_address(settings.listen);
    write_whole(&folder.join(doctor::ADDRESS), format!("http://{local}\n").as_bytes(), 0o644)
        .map_err(|error| refused(folder, &error))
}

/// What a server is told by signals.
struct Signals {
    interrupts: unix::Signal,
    terminates: unix::Signal,
    hangups: unix::Signal,
}

impl Signals {
    /// They are taken from now on.
    fn new() -> Result<Self, Stop> {
        let take = |kind| signal(kind).map_err(|error| Stop::infra(format!("the system gives no signals: {error}")));
        Ok(Self {
            interrupts: take(SignalKind::interrupt())?,
            terminates: take(SignalKind::terminate())?,
            hangups: take(SignalKind::hangup())?,
        })
    }
}

/// Waits until the server is to end: by a signal, or because it cannot go on. SIGHUP reads the settings anew.
async fn wait(
    serve: &Serve,
    colour: Colour,
    began: &Settings,
    signals: Signals,
    reload: impl Fn(Settings),
    failed: impl Future<Output = Stop>,
) -> Result<(), Stop> {
    let Signals { mut interrupts, mut terminates, mut hangups } = signals;
    let mut failed = std::pin::pin!(failed);
    let is_coloured = began.log == LogForm::Human && output::coloured(colour, &io::stderr());
    let color = if is_coloured { report::Color::Always } else { report::Color::Never };
    loop {
        tokio::select! {
            _ = interrupts.recv() => break,
            _ = terminates.recv() => break,
            stop = &mut failed => return Err(stop),
            _ = hangups.recv() => match serve.installation.read_settings(&flags(serve), color) {
                Ok(Loaded { settings, .. }) => {
                    let later = for_the_next_start(began, &settings).map(|key| format!("`{}`", key.name));
                    let later = later.collect::<Vec<_>>().join(", ");
                    reload(settings);
                    say("the settings were read again");
                    if !later.is_empty() {
                        say(&format!("the next start takes {later}, this one does not"));
                    }
                }
                Err(NoSettings::Wrong(faults)) => {
                    notices::report(&faults);
                    warn("the settings stay as they were, for what stands above");
                }
                Err(NoSettings::Unread(stop)) => warn(&format!("the settings stay as they were: {}", stop.message)),
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

/// What a server does when it has started.
enum Post {
    Leads,
    StandsBy,
}

/// Says where the server is, and what to do next.
async fn greet(server: &Arc<Server>, settings: &Settings, folder: &Path, post: Post) -> Result<(), Stop> {
    // An address that means every address of this machine is none to go to.
    let is_anywhere = settings.url.is_none() && settings.listen.ip().is_unspecified();
    let url = if is_anywhere { format!("http://{}", local_address(settings.listen)) } else { settings.public_url() };
    let mut text = format!("serving {url}, with the data in {}\n", folder.display());
    if is_anywhere {
        let port = settings.listen.port();
        text.push_str(&format!(
            "from other machines: http://NAME-OF-THIS-MACHINE:{port}; `server.url` says once what that is\n"
        ));
    }
    if matches!(post, Post::StandsBy) {
        text.push_str("standing by: another server leads, and requests are handed on to it\n");
        return output::print(text);
    }
    let asking = Arc::clone(server);
    let link = tokio::task::spawn_blocking(move || server::setup::link(&asking.access, &asking.records, asking.now()));
    let link = link.await.map_err(|error| Stop::infra(error.to_string()))?.map_err(|error| Stop::of(&error))?;
    if let Some(secret) = link {
        let data = crate::whereabouts::quoted(&folder.to_string_lossy());
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
    program: PathBuf,
    data: PathBuf,
    address: PathBuf,
    token: PathBuf,
    pools: Vec<String>,
    slots: u32,
    /// How many bytes of its disk must be free, where that is set.
    min_free: Option<u64>,
    log: LogForm,
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
        let program = own_program().map_err(|error| Stop::infra(error.to_string()))?;
        Ok(Self {
            program,
            data,
            address: folder.join(doctor::ADDRESS),
            token,
            pools,
            slots: settings.local_slots.0,
            min_free: settings.local_min_free.map(|bytes| bytes.0),
            log: settings.log,
        })
    }

    fn start(&self) -> io::Result<Child> {
        let mut command = Command::new(&self.program);
        command.arg("work").arg("--server").arg(format!("file:{}", self.address.display()));
        command.arg("--token").arg(&self.token).arg("--data").arg(&self.data).args(["--name", "local"]);
        command.arg("--orphaned-after").arg(ORPHANED_AFTER.to_string());
        for pool in &self.pools {
            command.arg("--pool").arg(pool);
        }
        if self.log == LogForm::Json {
            command.args(["--log", "json"]);
        }
        command.arg("--capacity").arg(self.slots.to_string());
        if let Some(bytes) = self.min_free {
            command.arg("--min-free").arg(bytes.to_string());
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

/// The worker beside the server, if there is one.
struct Beside(Option<(watch::Sender<bool>, tokio::task::JoinHandle<()>)>);

impl Beside {
    async fn start(server: &Arc<Server>, settings: &Settings, folder: &Path) -> Result<Self, Stop> {
        if settings.local_worker == OnOff::Off {
            return Ok(Self(None));
        }
        let (end, ends) = watch::channel(false);
        let worker = LocalWorker::new(server, settings, folder).await?;
        Ok(Self(Some((end, tokio::spawn(worker.supervise(ends))))))
    }

    /// Ends it gently, and waits for that as long as a worker takes that runs nothing: what it runs goes on without this server, and the next
    /// one of the folder is not to wait for it.
    async fn end(self, deadline: Instant) {
        let Some((end, supervised)) = self.0 else { return };
        let _ = end.send(true);
        let until = deadline.min(Instant::now() + BESIDE_ENDS);
        if tokio::time::timeout_at(until, supervised).await.is_err() {
            say("the worker beside the server finishes what runs, and goes on with the next server");
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
    use server::shell::ShellError;
    use store::StoreError;

    use super::{local_address, unkept};

    #[test]
    fn a_server_that_cannot_keep_what_happens_says_why_and_what_to_do() {
        let stop = unkept(&ShellError::Store(StoreError::Full("disk full".into())));
        assert_eq!(stop.code, crate::exit::INFRA);
        assert!(
            stop.message.starts_with("the server cannot keep what happens, and ends: no space is left"),
            "{}",
            stop.message
        );
        assert!(stop.message.contains("; make room on its disk, then start it again"), "{}", stop.message);
    }

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
