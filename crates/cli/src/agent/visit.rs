//! A shell that somebody opens, over the server, in what a step left on this worker.
//!
//! Two calls carry it, both made from here: one reads what is typed, the other sends what is printed. Whichever breaks ends the shell with
//! everything it started. Nothing is kept of either; what waits is bounded.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use api::client::{Client, Frames};
use api::shell::{Frame, Opened, SILENT_MS, Size, StartShell, Terminal};
use api::worker::LayersDocument;
use bytes::Bytes;
use rustix::fs::{Mode, OFlags};
use rustix::pty::OpenptFlags;
use rustix::termios::Winsize;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::sync::mpsc;
use worker::entry::{Entry, EntryError, Moment};
use worker::travel::{self, TravelFault};
use worker::workspace::{Snapshot, Workspace};

use super::attempts::lay_program;
use super::depot::RemoteDepot;
use super::link::Link;
use crate::commands::Stop;

/// How much is read of what a shell prints at a time.
const PIECE_BYTES: usize = 32 * 1024;
/// The most pieces that wait, either way.
const PIECES_MAX: usize = 16;
/// How long what was printed last may take to be sent once the shell has ended.
const LAST_WORDS: Duration = Duration::from_secs(10);
/// What ends the input of a program before a terminal. Source: POSIX, "General Terminal Interface", VEOF.
const END_OF_TRANSMISSION: u8 = 4;

/// Where the worker has its things.
pub struct Place {
    /// Its folder.
    pub data: PathBuf,
    /// The way to the server.
    pub link: Arc<Link>,
}

/// What the markers of all processes of shells begin with.
pub fn marker_prefix(data: &Path) -> String {
    format!("{}shell/", worker::data_marker_prefix(data))
}

/// One shell, from its opening to its end.
pub async fn serve(place: &Place, client: &Client, start: StartShell) {
    let (printed, mut pieces) = mpsc::channel::<Bytes>(PIECES_MAX);
    let body = futures_util::stream::poll_fn(move |context| pieces.poll_recv(context).map(|piece| piece.map(Ok)));
    let (id, sender) = (start.shell.clone(), client.clone());
    let sending = tokio::task::spawn_local(async move { sender.worker_shell_output(&id, body).await });
    let last = match visit(place, client, start, &printed).await {
        Ok(code) => Frame::Ended(code),
        Err(text) => Frame::Refused(text),
    };
    // Whoever listened may have gone.
    let _ = tokio::time::timeout(LAST_WORDS, printed.send(last.encode().into())).await;
    drop(printed);
    let _ = tokio::time::timeout(LAST_WORDS, sending).await;
}

async fn visit(
    place: &Place,
    client: &Client,
    start: StartShell,
    printed: &mpsc::Sender<Bytes>,
) -> Result<i32, String> {
    let marker = format!("{}{}/", marker_prefix(&place.data), start.shell);
    let _checkout = files(place, &start).await?;
    let (data, shell, terminal) = (place.data.clone(), start.shell.clone(), start.open.terminal.clone());
    let variable = marker.clone();
    let opened = blocking(move || open(&data, start, &variable)).await?;
    let (entry, mut command, opened) = opened.map_err(|error| Stop::of(&error).message)?;
    let frames = client.worker_shell_input(&shell).await.map_err(|error| Stop::of(&error).message)?;
    printed.send(Frame::Opened(opened).encode().into()).await.map_err(|_| "nobody listens any more".to_owned())?;
    let failed = |error: io::Error| format!("the shell could not be started: {error}");
    let (mut child, ends) = start_command(&mut command, terminal.as_ref()).map_err(failed)?;
    // The command keeps the terminal's other end open.
    drop(command);
    let typing = tokio::task::spawn_local(type_in(frames, ends.typed));
    let readers: Vec<_> = ends
        .printed
        .into_iter()
        .map(|(file, kind)| {
            let printed = printed.clone();
            tokio::task::spawn_blocking(move || read_out(file, kind, &printed))
        })
        .collect();
    let code = wait(&mut child, typing).await;
    // Whoever has gone: with the shell everything ends that it started.
    let _ = blocking(move || worker::keeper::kill_leftovers(&marker)).await;
    for reader in readers {
        let _ = tokio::time::timeout(LAST_WORDS, reader).await;
    }
    let _ = blocking(move || drop(entry)).await;
    code.map_err(|error| format!("the shell was lost: {error}"))
}

/// Sees to it that the files are there of which the build was made; they stay while this is held.
async fn files(place: &Place, start: &StartShell) -> Result<Vec<super::holding::Held<PathBuf>>, String> {
    let StartShell { build, attempt, .. } = *start;
    let own = travel::Attempt { data: &place.data, build, attempt };
    if let Some(document) = start.layers.as_ref().filter(|_| !own.is_own()) {
        let document = match document {
            LayersDocument::Blob(digest) => travel::Told::Blob(*digest),
            LayersDocument::Text { text } => travel::Told::Text(text.clone()),
        };
        return arrived(place, start, document).await;
    }
    let directory = worker::workspace_directory(&place.data, start.build, start.attempt);
    if !directory.join("workspace.json").is_file() {
        let place =
            if directory.join("tree").is_dir() { "it worked in the tree itself (workspace: in_place)" } else { "" };
        return Err(match place {
            "" => {
                "nothing is kept of it on its worker: it failed before its first step, or it is too long ago".to_owned()
            }
            why => format!("{why}: of its steps nothing is kept, and nobody can be let into its end"),
        });
    }
    let (tree, snapshot) = Workspace::tree_below(&directory).map_err(|error| Stop::of(&error).message)?;
    if let Some(held) = place.link.hold_checkout(&tree) {
        return Ok(vec![held]);
    }
    // It was taken away since: the same files at another place.
    let checkout = place.link.checkout(&start.origin.project, start.origin.source).await?;
    let (laid, shown, folder) = (checkout.tree.clone(), checkout.shown.clone(), checkout.folder.clone());
    let taken = blocking(move || Snapshot::of_immutable(&laid, &folder, &shown, &snapshot).map(drop)).await?;
    taken.map_err(|error| Stop::of(&error).message)?;
    Ok(place.link.hold_checkout(&checkout.tree).into_iter().collect())
}

/// Fetches what another worker has left, with the source that it was made of.
async fn arrived(
    place: &Place,
    start: &StartShell,
    document: travel::Told,
) -> Result<Vec<super::holding::Held<PathBuf>>, String> {
    let checkout = place.link.checkout(&start.origin.project, start.origin.source).await?;
    let held = place.link.hold_checkout(&checkout.tree).into_iter().collect();
    let (data, link) = (place.data.clone(), Arc::clone(&place.link));
    let (build, attempt) = (start.build, start.attempt);
    let moment = moment_of(start);
    let fetched = blocking(move || {
        let snapshot = worker::snapshot_directory(&data, build);
        let snapshot = Snapshot::of_immutable(&checkout.tree, &checkout.folder, &checkout.shown, &snapshot)?;
        let depot = RemoteDepot::of_blobs(Arc::clone(&link));
        let left = travel::Attempt { data: &data, build, attempt };
        travel::fetch(left, &document, &snapshot, &moment, &depot)?;
        for program in left.programs() {
            let path = worker::program_file(&data, program);
            if !path.is_file() && link.fetch_now(program).is_ok() {
                // The shell opens without it too.
                let _ = lay_program(&link, program, &path);
            }
        }
        Ok::<_, TravelFault>(())
    });
    fetched.await?.map_err(|error| Stop::of(&error).message)?;
    Ok(held)
}

fn moment_of(start: &StartShell) -> Moment {
    start.open.at.as_deref().map_or(Moment::End, Moment::read)
}

fn open(data: &Path, start: StartShell, marker: &str) -> Result<(Entry, Command, Opened), EntryError> {
    let moment = moment_of(&start);
    let StartShell { shell, build, attempt, open, .. } = start;
    let given: BTreeSet<String> = open.secrets.keys().cloned().collect();
    let mut entry = Entry::open(data, build, attempt, &moment, open.secrets)?;
    entry.wall_off(crate::project::walled_off(data));
    let withheld = entry.secrets().difference(&given).cloned().collect();
    let (program, arguments) = match open.command.split_first() {
        Some((program, arguments)) => (program.clone(), arguments.iter().map(Into::into).collect()),
        None => (entry.shell(interactive()), Vec::new()),
    };
    if let Some(terminal) = &open.terminal {
        entry.set("TERM", &terminal.kind);
        entry.set("PS1", &format!("{build} $ "));
    }
    entry.set(worker::keeper::MARKER_VARIABLE, marker);
    let hidden = entry.hidden().map(str::to_owned);
    let opened = Opened { shell, when: entry.when().to_owned(), withheld, hidden, is_lasting: entry.is_lasting() };
    let command = entry.command(program.as_ref(), &arguments)?;
    Ok((entry, command, opened))
}

/// A shell for people.
fn interactive() -> String {
    let bash = "/bin/bash";
    if Path::new(bash).is_file() { bash.to_owned() } else { "/bin/sh".to_owned() }
}

/// Our ends of what a shell reads and writes.
struct Ends {
    typed: Typed,
    printed: Vec<(File, Kind)>,
}

/// Where what is typed goes.
enum Typed {
    Terminal(File),
    /// `None` once nothing more is typed.
    Pipe(Option<File>),
}

/// What comes out of an end.
#[derive(Clone, Copy)]
enum Kind {
    Output,
    Errors,
}

fn start_command(command: &mut Command, terminal: Option<&Terminal>) -> io::Result<(Child, Ends)> {
    let Some(terminal) = terminal else {
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        // SAFETY: one system call, which allocates nothing.
        unsafe { command.pre_exec(|| rustix::process::setsid().map(drop).map_err(io::Error::from)) };
        let mut child = command.spawn()?;
        let file = |fd: Option<OwnedFd>| fd.map(File::from);
        let typed = Typed::Pipe(file(child.stdin.take().map(OwnedFd::from)));
        let out = file(child.stdout.take().map(OwnedFd::from)).map(|file| (file, Kind::Output));
        let errors = file(child.stderr.take().map(OwnedFd::from)).map(|file| (file, Kind::Errors));
        return Ok((child, Ends { typed, printed: out.into_iter().chain(errors).collect() }));
    };
    let ours = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    rustix::pty::grantpt(&ours)?;
    rustix::pty::unlockpt(&ours)?;
    let name = rustix::pty::ptsname(&ours, Vec::new())?;
    let theirs = rustix::fs::open(name, OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC, Mode::empty())?;
    resize(&ours, terminal.size);
    command.stdin(theirs.try_clone()?).stdout(theirs.try_clone()?).stderr(theirs);
    let controlling = || {
        rustix::process::setsid()?;
        rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?;
        Ok(())
    };
    // SAFETY: two system calls, which allocate nothing.
    unsafe { command.pre_exec(controlling) };
    let child = command.spawn()?;
    let ours = File::from(ours);
    Ok((child, Ends { printed: vec![(ours.try_clone()?, Kind::Output)], typed: Typed::Terminal(ours) }))
}

fn resize(terminal: impl AsFd, size: Size) {
    let size = Winsize { ws_row: size.rows, ws_col: size.columns, ws_xpixel: 0, ws_ypixel: 0 };
    // A terminal of a wrong size is a terminal.
    let _ = rustix::termios::tcsetwinsize(terminal, size);
}

/// Sends what an end gives until it ends, or nobody listens.
fn read_out(mut file: File, kind: Kind, printed: &mpsc::Sender<Bytes>) {
    let mut piece = vec![0; PIECE_BYTES];
    loop {
        // A terminal that nobody has open any more gives an error.
        let Ok(length @ 1..) = file.read(&mut piece) else { return };
        let frame = match kind {
            Kind::Output => Frame::Bytes(piece[..length].to_vec()),
            Kind::Errors => Frame::Errors(piece[..length].to_vec()),
        };
        if printed.blocking_send(frame.encode().into()).is_err() {
            return;
        }
    }
}

/// Hands on what is typed until whoever types has gone.
async fn type_in(mut frames: Frames, typed: Typed) {
    let (sender, mut waiting) = mpsc::channel::<Frame>(PIECES_MAX);
    let writing = tokio::task::spawn_blocking(move || {
        let mut typed = typed;
        while let Some(frame) = waiting.blocking_recv() {
            write_in(&mut typed, frame);
        }
    });
    // A server or a network that is silent is gone.
    while let Ok(Ok(Some(frame))) = tokio::time::timeout(Duration::from_millis(SILENT_MS), frames.next()).await {
        if frame != Frame::Alive && sender.send(frame).await.is_err() {
            break;
        }
    }
    drop((sender, writing));
}

/// What cannot be written nobody reads any more.
fn write_in(typed: &mut Typed, frame: Frame) {
    match (typed, frame) {
        (Typed::Terminal(file) | Typed::Pipe(Some(file)), Frame::Bytes(bytes)) => drop(file.write_all(&bytes)),
        (Typed::Terminal(file), Frame::Size(size)) => resize(file, size),
        (Typed::Terminal(file), Frame::InputEnds) => drop(file.write_all(&[END_OF_TRANSMISSION])),
        (Typed::Pipe(file), Frame::InputEnds) => drop(file.take()),
        _ => {}
    }
}

/// Waits for the shell; if whoever typed has gone, it is killed.
async fn wait(child: &mut Child, typing: tokio::task::JoinHandle<()>) -> io::Result<i32> {
    let process = rustix::process::Pid::from_child(child);
    let handle = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::NONBLOCK)?;
    // SAFETY: the descriptor is owned, and stays open until this is dropped.
    let ended = unsafe { AsyncFd::register_with_interest(handle, Interest::READABLE) }?;
    let abort = typing.abort_handle();
    tokio::select! {
        _ = ended.readable() => {}
        _ = typing => child.kill()?,
    }
    abort.abort();
    let status = child.wait()?;
    Ok(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, String> {
    tokio::task::spawn_blocking(work).await.map_err(|error| error.to_string())
}
