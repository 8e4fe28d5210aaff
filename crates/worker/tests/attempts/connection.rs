//! The engine's connection is cut while a job runs: steps go on, nothing of their output is lost, and the log of a service is whole.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use graph::Outcome;
use serde_json::json;

use super::containers::{in_image, steps, take_pieces_of};
use super::ground::on_ground;

/// How long a step may take to come to its place: machines differ.
const STEP_MAX: Duration = Duration::from_secs(120);

/// A socket before the engine's, whose connections can be cut.
#[derive(Clone, Default)]
struct Relay(Arc<Mutex<Line>>);

/// What the relay does with connections.
#[derive(Default)]
struct Line {
    open: Vec<UnixStream>,
    state: State,
    /// How many it has cut or refused.
    lost: usize,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum State {
    #[default]
    Passing,
    Cut,
}

impl Relay {
    fn start(at: &Path, engine: &Path) -> Self {
        let relay = Self::default();
        let (listener, engine, of_thread) =
            (UnixListener::bind(at).expect("a socket"), engine.to_owned(), relay.clone());
        std::thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                of_thread.pass(client, &engine);
            }
        });
        relay
    }

    fn pass(&self, client: UnixStream, engine: &Path) {
        let mut line = self.0.lock().unwrap();
        if line.state == State::Cut {
            line.lost += 1;
            return;
        }
        let there = UnixStream::connect(engine).expect("the engine listens");
        for stream in [&client, &there] {
            line.open.push(stream.try_clone().expect("a descriptor"));
        }
        let (client_too, there_too) =
            (client.try_clone().expect("a descriptor"), there.try_clone().expect("a descriptor"));
        std::thread::spawn(move || copy(client, there));
        std::thread::spawn(move || copy(there_too, client_too));
    }

    fn set(&self, state: State) {
        let mut line = self.0.lock().unwrap();
        line.state = state;
        if state == State::Cut {
            for stream in std::mem::take(&mut line.open) {
                // One that has ended is none that is lost.
                line.lost += usize::from(stream.shutdown(Shutdown::Both).is_ok());
            }
        }
    }

    fn lost(&self) -> usize {
        self.0.lock().unwrap().lost
    }
}

fn copy(mut from: UnixStream, mut to: UnixStream) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}

/// The first step waits until the connection is cut, the second has to begin and end without it. Images are those of the test around.
pub fn a_connection_that_drops(engine: &Path) {
    let folder = tempfile::tempdir().expect("a folder");
    let socket = folder.path().join("relay");
    // SAFETY: there is one thread. The relay's are started on the ground, whose keeper wants to be the first.
    unsafe { std::env::set_var("DOCKER_HOST", format!("unix://{}", socket.display())) };
    on_ground(&[], async |ground| {
        let relay = Relay::start(&socket, engine);
        let fetch = "wget -q -O /dev/null http://pages:8080/passwd; ";
        let wait = |here: &str, there: &str| format!("touch {here}; while ! [ -e {there} ]; do sleep 0.1; done; ");
        let first = format!("{fetch}echo on; {}echo went on", wait("on", "cut"));
        let second = format!("{fetch}echo on too; {}", wait("on_too", "mended"));
        let job = json!({
            "workspace": "in_place",
            "services": { "pages": { "image": "web", "ports": [8080] } },
            "steps": steps(&[&first, &second]),
        });
        let (watched, root) = (relay.clone(), ground.root.clone());
        let watcher = std::thread::spawn(move || {
            for (wanted, state, told) in [("on", State::Cut, "cut"), ("on_too", State::Passing, "mended")] {
                let began = Instant::now();
                while !root.join(wanted).exists() {
                    assert!(began.elapsed() < STEP_MAX, "no step came to make `{wanted}`");
                    std::thread::sleep(Duration::from_millis(10));
                }
                watched.set(state);
                std::fs::write(root.join(told), "").expect("written");
            }
        });
        let (report, log) = ground.run(in_image(job)).await;
        assert!(matches!(report.outcome, Outcome::Passed { .. }), "{:?} {:?}", report.outcome, report.notes);
        watcher.join().expect("both steps came to their place");
        assert!(relay.lost() > 0, "the connection that reads the service's log was cut");
        assert_eq!(take_pieces_of(&log, 0), "on\nwent on\n");
        assert_eq!(take_pieces_of(&log, 1), "on too\n");
        let of_service = take_pieces_of(&log, 2);
        let requests = of_service.lines().filter(|line| line.contains("url:")).count();
        assert_eq!(requests, 2, "each line once: {of_service}");
    });
}
