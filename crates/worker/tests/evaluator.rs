//! A pipeline's program is asked, and gets nothing but the question.
#![cfg(target_os = "linux")]

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use ropewalk_worker::evaluator::{Evaluator, EvaluatorError, Limits};
use ropewalk_worker::sandbox::Sandbox;

/// What the program does is the request.
const PROGRAM: &str = r#"
use std::io::{BufRead, Write};
fn main() {
    assert_eq!(std::env::args().nth(1).as_deref(), Some("evaluate"));
    let mut count = 0;
    for line in std::io::stdin().lock().lines() {
        let line = line.unwrap();
        count += 1;
        let answer = match line.as_str() {
            "environment" => format!("{:?}", std::env::vars().collect::<Vec<_>>()),
            "network" => format!("{:?}", std::net::TcpStream::connect("127.0.0.1:PORT").map(drop).map_err(|e| e.kind())),
            "file" => format!("{:?}", std::fs::read("FILE").map(drop).map_err(|e| e.kind())),
            "write" => {
                let written = |directory: String| {
                    let at = format!("{directory}/ropewalk-evaluation");
                    let file = std::fs::write(&at, "x").and_then(|()| std::fs::metadata(&at)?.modified());
                    file.is_ok() || std::fs::create_dir(&at).is_ok()
                };
                let mut directories = vec![String::new(), "/tmp".into(), "/dev/shm".into(), "/var/tmp".into()];
                let entries = std::fs::read_dir("/").unwrap().flatten();
                directories.extend(entries.map(|entry| entry.path().display().to_string()));
                format!("{:?}", directories.into_iter().filter(|at| written(at.clone())).collect::<Vec<_>>())
            }
            "processes" => format!("{:?}", std::fs::read_dir("/proc").map(drop).map_err(|e| e.kind())),
            "spin" => loop { std::hint::spin_loop() },
            "large" => "x".repeat(3 << 20),
            "endless" => loop { println!("{}", "x".repeat(1 << 20)); },
            "memory" => { let all = vec![1u8; 2 << 30]; format!("{}", all[12345]) }
            "die" => { eprintln!("why it died"); std::process::exit(7) }
            "talk" => { eprint!("{}", "talk ".repeat(100_000)); "talked".to_owned() }
            other => format!("{count}: {other}"),
        };
        println!("{answer}");
        std::io::stdout().flush().unwrap();
    }
}
"#;

struct Ground {
    directory: tempfile::TempDir,
    listener: std::net::TcpListener,
    sandbox: Sandbox,
}

impl Ground {
    /// `None` where a part is missing on a user's machine.
    fn new() -> Option<Self> {
        let sandbox = match Sandbox::probe() {
            Ok(sandbox) => sandbox,
            Err(error) => {
                assert!(std::env::var_os("CI").is_none(), "CI needs bubblewrap: {error}");
                eprintln!("skipped: {error}");
                return None;
            }
        };
        let directory = tempfile::tempdir().unwrap();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port().to_string();
        let file = directory.path().join("secret");
        std::fs::write(&file, "secret").unwrap();
        let source = PROGRAM.replace("PORT", &port).replace("FILE", file.to_str().unwrap());
        std::fs::write(directory.path().join("program.rs"), source).unwrap();
        let rustc = std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into());
        let compiled =
            Command::new(rustc).args(["--edition=2021", "program.rs"]).current_dir(directory.path()).status();
        assert!(compiled.unwrap().success());
        Some(Self { directory, listener, sandbox })
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("program")
    }

    fn ask(&self, request: &str, limits: Limits) -> Result<String, EvaluatorError> {
        Evaluator::start(&self.program(), Some(&self.sandbox), limits).unwrap().ask(request)
    }
}

#[test]
fn a_session_answers_again_and_again() {
    let Some(ground) = Ground::new() else { return };
    let mut evaluator = Evaluator::start(&ground.program(), Some(&ground.sandbox), Limits::default()).unwrap();
    assert_eq!(evaluator.ask("a").unwrap(), "1: a");
    assert_eq!(evaluator.ask("b\nc").unwrap(), "2: b c");
    assert_eq!(evaluator.ask("talk").unwrap(), "talked");
    let long = "l".repeat(5 << 20);
    assert_eq!(evaluator.ask(&long).unwrap().len(), long.len() + 3);
    assert_eq!(evaluator.ask("large").unwrap().len(), 3 << 20);
}

#[test]
fn nothing_of_the_machine_is_seen() {
    let Some(ground) = Ground::new() else { return };
    let ask = |request| ground.ask(request, Limits::default());
    // bubblewrap itself sets where it stands.
    assert_eq!(ask("environment").unwrap(), r#"[("PWD", "/")]"#);
    assert_ne!(ask("network").unwrap(), "Ok(())", "{:?}", ground.listener);
    assert_eq!(ask("file").unwrap(), "Err(NotFound)");
    assert_eq!(ask("processes").unwrap(), "Err(NotFound)");
}

#[test]
fn nothing_can_be_written() {
    let Some(ground) = Ground::new() else { return };
    assert_eq!(ground.ask("write", Limits::default()).unwrap(), "[]");
}

#[test]
fn what_ends_the_program_is_told() {
    let Some(ground) = Ground::new() else { return };
    let died = |request| match ground.ask(request, Limits::default()) {
        Err(error @ EvaluatorError::Died { .. }) => error.to_string(),
        other => panic!("{other:?}"),
    };
    let told = died("die");
    assert!(told.contains("exit code 7: nothing in it may end it") && told.ends_with(":\nwhy it died"), "{told}");
    let told = died("memory");
    assert!(told.contains("it asked for more memory than an evaluation has"), "{told}");
}

#[test]
fn limits_hold() {
    let Some(ground) = Ground::new() else { return };
    let limits = Limits { time: Duration::from_millis(300), ..Limits::default() };
    assert!(matches!(ground.ask("spin", limits), Err(EvaluatorError::TooSlow { .. })));
    let limits = Limits { answer_bytes: 1 << 20, ..Limits::default() };
    assert!(matches!(ground.ask("large", limits), Err(EvaluatorError::TooLong { .. })));
}

#[test]
fn without_walls_the_rest_holds() {
    let Some(ground) = Ground::new() else { return };
    let mut evaluator = Evaluator::start(&ground.program(), None, Limits::default()).unwrap();
    assert_eq!(evaluator.ask("environment").unwrap(), "[]");
    let missing = ground.directory.path().join("missing");
    assert!(matches!(Evaluator::start(&missing, None, Limits::default()), Err(EvaluatorError::Start { .. })));
}
