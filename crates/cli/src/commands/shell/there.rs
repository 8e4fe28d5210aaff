//! `ropewalk shell --server`: a shell on the worker that holds the files, through the server. What is typed and printed travels over this
//! client's own calls.

use std::io::{self, IsTerminal, Read, Write};

use api::client::{Client, ClientError, Frames};
use api::shell::{Frame, OpenShell, Opened, Size, Terminal};
use bytes::Bytes;
use graph::{BuildId, JobName};
use rustix::termios::{OptionalActions, Termios};
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::mpsc;
use worker::entry::Moment;

use super::{Stop, first_failed, given, job_and_moment, withheld_note};
use crate::archive::{Archive, There};
use crate::args::Shell;
use crate::remote::stop;

/// How much is read of what is typed at a time.
const PIECE_BYTES: usize = 16 * 1024;
/// The most pieces of what is typed that wait.
const PIECES_MAX: usize = 16;

/// Runs the command there; its exit code is the shell's.
///
/// # Errors
/// What the server or the worker refuses.
pub fn run(arguments: &Shell, there: &There) -> Result<u8, Stop> {
    let build = there.find_build(&arguments.build)?.build;
    let (job, moment) = job_and_moment(arguments.job.as_deref(), |job| match job {
        Some(job) => there.find_job(build, job),
        None => first_failed(build, there.graph(build)?.as_deref(), &there.jobs(build)?),
    })?;
    let at = match moment {
        Moment::End => None,
        Moment::Start => Some("start".to_owned()),
        Moment::Failed => Some("failed".to_owned()),
        Moment::Step(step) => Some(step),
    };
    let is_interactive = arguments.command.is_empty() && io::stdin().is_terminal() && io::stdout().is_terminal();
    let open = OpenShell {
        at,
        command: arguments.command.clone(),
        secrets: given(&arguments.secrets)?,
        terminal: is_interactive.then(terminal),
    };
    let code = there.link.wait(async {
        let frames = there.link.client.shell_open(build, job.as_str(), &open).await.map_err(stop)?;
        let visit = Visit { client: &there.link.client, build, job: &job, is_interactive };
        visit.serve(frames).await
    })?;
    Ok(u8::try_from(code).unwrap_or(u8::MAX))
}

fn terminal() -> Terminal {
    let kind = std::env::var("TERM").unwrap_or_else(|_| "dumb".to_owned());
    Terminal { kind, size: size() }
}

fn size() -> Size {
    let size = rustix::termios::tcgetwinsize(io::stdout()).ok();
    size.map_or(Size { rows: 24, columns: 80 }, |size| Size { rows: size.ws_row, columns: size.ws_col })
}

/// The terminal in its raw mode, until this is dropped.
struct Raw(Termios);

impl Raw {
    fn new() -> io::Result<Self> {
        let before = rustix::termios::tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        rustix::termios::tcsetattr(io::stdin(), OptionalActions::Drain, &raw)?;
        Ok(Self(before))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        let _ = rustix::termios::tcsetattr(io::stdin(), OptionalActions::Drain, &self.0);
    }
}

/// One shell, from this side.
struct Visit<'v> {
    client: &'v Client,
    build: BuildId,
    job: &'v JobName,
    is_interactive: bool,
}

impl Visit<'_> {
    async fn serve(&self, mut frames: Frames) -> Result<i32, Stop> {
        let opened = match frames.next().await.map_err(stop)? {
            Some(Frame::Opened(opened)) => opened,
            _ => return Err(Stop::infra("the server did not say that the shell is open")),
        };
        let _raw = self.greet(&opened)?;
        let typing = self.type_in(&opened.shell);
        let printing = print(&mut frames);
        tokio::pin!(typing, printing);
        let mut is_typing = true;
        loop {
            tokio::select! {
                code = &mut printing => return code,
                typed = &mut typing, if is_typing => match typed {
                    Ok(()) => is_typing = false,
                    // The end of the shell is told by what it prints.
                    Err(error) if error.is(api::problem::ProblemKind::NotFound) => is_typing = false,
                    Err(error) => return Err(stop(error)),
                },
            }
        }
    }

    fn greet(&self, opened: &Opened) -> Result<Option<Raw>, Stop> {
        if self.is_interactive {
            let (job, build) = (self.job, self.build);
            let goes = if opened.is_lasting { "" } else { "; what you change goes when you leave" };
            eprintln!("the files of `{job}` in build {build} on its worker, {}{goes}; `exit` leaves", opened.when);
        }
        let withheld: Vec<&str> = opened.withheld.iter().map(String::as_str).collect();
        if let Some(withheld) = withheld_note(&withheld) {
            eprintln!("{}", crate::words::harmless(&withheld));
        }
        if !self.is_interactive {
            if let Some(hidden) = &opened.hidden {
                eprintln!("{}", crate::words::harmless(hidden));
            }
            return Ok(None);
        }
        Raw::new().map(Some).map_err(|error| Stop::infra(format!("cannot use the terminal: {error}")))
    }

    /// Sends what is typed, post after post, and the terminal's sizes.
    async fn type_in(&self, shell: &str) -> Result<(), ClientError> {
        let (sender, mut typed) = mpsc::channel(PIECES_MAX);
        // Nobody waits for it: who reads a terminal cannot be told to stop.
        std::thread::spawn(move || read_in(&sender));
        let mut sizes = self.is_interactive.then(|| signal(SignalKind::window_change()).ok()).flatten();
        let mut sequence = 0;
        let mut is_open = true;
        while is_open {
            let frame = tokio::select! {
                piece = typed.recv() => match piece {
                    Some(bytes) => Frame::Bytes(bytes),
                    None => {
                        is_open = false;
                        Frame::InputEnds
                    }
                },
                () = changed(&mut sizes) => Frame::Size(size()),
            };
            let name = (self.build, self.job.as_str(), shell);
            self.client.shell_input(name, sequence, Bytes::from(frame.encode())).await?;
            sequence += 1;
        }
        Ok(())
    }
}

async fn changed(sizes: &mut Option<Signal>) {
    match sizes {
        Some(sizes) => drop(sizes.recv().await),
        None => std::future::pending().await,
    }
}

fn read_in(typed: &mpsc::Sender<Vec<u8>>) {
    let mut piece = vec![0; PIECE_BYTES];
    while let Ok(length @ 1..) = io::stdin().read(&mut piece) {
        if typed.blocking_send(piece[..length].to_vec()).is_err() {
            return;
        }
    }
}

/// Prints what comes; the exit code at the end.
async fn print(frames: &mut Frames) -> Result<i32, Stop> {
    let lost = |error: io::Error| Stop::infra(format!("cannot print what the shell says: {error}"));
    loop {
        match frames.next().await.map_err(stop)? {
            Some(Frame::Bytes(bytes)) => write(&mut io::stdout().lock(), &bytes).map_err(lost)?,
            Some(Frame::Errors(bytes)) => write(&mut io::stderr().lock(), &bytes).map_err(lost)?,
            Some(Frame::Ended(code)) => return Ok(code),
            Some(Frame::Refused(text)) => return Err(Stop::infra(crate::words::harmless(&text).to_string())),
            Some(_) => {}
            None => return Err(Stop::infra("the shell was lost: its worker or the server has gone")),
        }
    }
}

fn write(to: &mut dyn Write, bytes: &[u8]) -> io::Result<()> {
    to.write_all(bytes)?;
    to.flush()
}
