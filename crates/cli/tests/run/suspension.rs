//! A build shown live in a shell with job control: Ctrl-Z leaves the terminal as it was, `fg` draws anew, `bg` draws nothing.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, waitid};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};

use crate::{Repository, wait_for};

/// The longest that a test waits for what is to be shown.
const PATIENCE: Duration = Duration::from_secs(120);
const HIDDEN: &str = "\x1b[?25l";
const SHOWN: &str = "\x1b[?25h";

/// A shell on a terminal of its own.
struct Terminal {
    shell: Child,
    keys: File,
    screen: Receiver<Vec<u8>>,
    /// What was shown and is not yet looked at.
    shown: Vec<u8>,
}

impl Terminal {
    fn of(repository: &Repository) -> Self {
        let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&ours).and_then(|()| unlockpt(&ours)).expect("it may be opened");
        let size = Winsize { ws_row: 24, ws_col: 80, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&ours, size).expect("it has a size");
        let name = ptsname(&ours, Vec::new()).expect("it has a name");
        let theirs =
            File::options().read(true).write(true).open(name.to_str().expect("UTF-8")).expect("its other side");
        let mut command = Command::new("sh");
        command.arg("-i").current_dir(repository.root()).env("ROPEWALK_DATA", repository.folder.path().join("data"));
        command.env("NO_COLOR", "1").env("TERM", "xterm").env("PS1", "ready> ").env_remove("ENV");
        command.stdin(theirs.try_clone().expect("a descriptor")).stdout(theirs.try_clone().expect("a descriptor"));
        command.stderr(Stdio::from(theirs));
        // SAFETY: two system calls, which allocate nothing.
        unsafe {
            command.pre_exec(|| {
                rustix::process::setsid()?;
                Ok(rustix::process::ioctl_tiocsctty(rustix::stdio::stdin())?)
            });
        }
        let shell = command.spawn().expect("a shell");
        let keys = File::from(ours);
        let mut reader = keys.try_clone().expect("a descriptor");
        let (send, screen) = channel();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(count @ 1..) = reader.read(&mut bytes) {
                if send.send(bytes[..count].to_vec()).is_err() {
                    return;
                }
            }
        });
        let mut terminal = Self { shell, keys, screen, shown: Vec::new() };
        terminal.until("ready> ");
        terminal
    }

    fn press(&mut self, keys: &str) {
        self.keys.write_all(keys.as_bytes()).expect("a terminal takes keys");
    }

    /// What is shown up to this text and with it, which is not looked at again.
    #[track_caller]
    fn until(&mut self, text: &str) -> String {
        let end = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.shown.windows(text.len()).position(|part| part == text.as_bytes()) {
                let behind = self.shown.split_off(at + text.len());
                let shown = std::mem::replace(&mut self.shown, behind);
                return String::from_utf8_lossy(&shown).into_owned();
            }
            let Ok(bytes) = self.screen.recv_timeout(end.saturating_duration_since(Instant::now())) else {
                panic!("`{text}` was not shown, but:\n{:?}", String::from_utf8_lossy(&self.shown));
            };
            self.shown.extend(bytes);
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.shell.kill();
        let _ = self.shell.wait();
    }
}

#[test]
fn a_live_view_that_is_stopped_leaves_the_terminal_and_is_drawn_anew() {
    let repository = Repository::new("jobs: { a: { run: 'until test -e ../go; do sleep 0.05; done' } }");
    let mut terminal = Terminal::of(&repository);
    terminal.press(concat!("'", env!("CARGO_BIN_EXE_ropewalk"), "' run --output live\n"));
    terminal.until("1 running");

    terminal.press("\x1a");
    let stopped = terminal.until("Stopped");
    let last = stopped.rfind("\x1b[?25").expect("the cursor was hidden or shown");
    assert!(stopped[last..].starts_with(SHOWN), "the cursor is left hidden: {stopped:?}");
    assert!(stopped[..last].ends_with("\x1b[J"), "the frame is left standing: {stopped:?}");
    terminal.until("ready> ");

    terminal.press("fg\n");
    let continued = terminal.until("1 running");
    let (_, frame) = continued.split_once(HIDDEN).expect("the cursor is hidden again");
    assert!(!frame.starts_with("\x1b["), "what the shell wrote is erased: {continued:?}");

    terminal.press("\x1a");
    terminal.until("ready> ");
    terminal.press("bg\n");
    terminal.until("ready> ");
    fs::write(repository.folder.path().join("go"), "").expect("a file");
    let behind = terminal.until("build 1 passed");
    assert!(behind.contains("✓ a") && !behind.contains(HIDDEN), "it draws over the shell: {behind:?}");
}

#[test]
fn a_build_that_is_stopped_is_canceled_once_it_goes_on() {
    let repository = Repository::new("jobs: { a: { run: 'echo ready; sleep 1000' } }");
    let mut build = repository.start(&["run", "--output", "plain"]);
    let mut reader = wait_for(&mut build, "a | ready");
    let process = Pid::from_child(&build);
    kill_process(process, Signal::STOP).expect("a signal is sent");
    // Until the kernel has done so.
    waitid(WaitId::Pid(process), WaitIdOptions::STOPPED | WaitIdOptions::NOWAIT).expect("it is stopped");
    let text = repository.check(&["cancel"], 0);
    assert_eq!(text, "build 1 is stopped (Ctrl-Z): it ends when `fg` or `bg` lets it go on\n");
    kill_process(process, Signal::CONT).expect("a signal is sent");
    let mut rest = String::new();
    reader.read_to_string(&mut rest).expect("readable output");
    assert_eq!(build.wait().expect("it ends").code(), Some(130), "{rest}");
}
