//! Several servers on one PostgreSQL: real processes of the binary, which are killed, and a worker and a client that name
//! whichever they like.

#[path = "../../store/tests/database/mod.rs"]
#[allow(dead_code, reason = "this file takes what it needs")]
mod database;
mod process;

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use database::Database;
use process::{Process, Reader, appears};

/// Within so long another server leads: the promise.
const TAKEN_OVER_WITHIN: Duration = Duration::from_secs(10);

/// Data folders with the same keys, one database, one folder of blobs, and a repository.
struct Site {
    folder: tempfile::TempDir,
    addresses: Vec<String>,
    _database: Database,
}

/// A process and what it says on both streams.
struct Told {
    process: Process,
    said: Reader,
}

impl Site {
    /// Two servers with this pipeline; `None` without PostgreSQL.
    fn new(pipeline: &str) -> Option<Self> {
        Self::of(2, pipeline)
    }

    /// As [`Site::new`], with so many servers.
    fn of(servers: usize, pipeline: &str) -> Option<Self> {
        let database = Database::start()?;
        let url = database.create();
        let folder = tempfile::tempdir().expect("a folder");
        let listeners: Vec<_> =
            (0..servers).map(|_| std::net::TcpListener::bind("127.0.0.1:0").expect("a port")).collect();
        let address = |listener: &std::net::TcpListener| listener.local_addr().expect("an address").to_string();
        let addresses = listeners.iter().map(address).collect();
        drop(listeners);
        let site = Self { folder, addresses, _database: database };
        fs::create_dir_all(site.root().join(".ropewalk")).expect("a folder");
        fs::write(site.root().join(".ropewalk/pipeline.yaml"), pipeline).expect("a file");
        site.git(&["init", "-q", "-b", "main"]);
        site.git(&["add", "-A"]);
        site.git(&["-c", "user.name=t", "-c", "user.email=t@localhost", "commit", "-qm", "first"]);
        for data in (0..servers).map(|server| site.data(server)) {
            fs::create_dir_all(&data).expect("a folder");
            let settings = format!(
                "store.url = \"{url}\"\nblobs.url = \"directory:{}\"\nlogs.shared = \"on\"\nworker.heartbeat = \"1s\"\n",
                site.path("blobs").display()
            );
            fs::write(data.join("settings.toml"), settings).expect("a file");
        }
        // Its first start makes the keys.
        site.serve(0).process.kill();
        for (name, flags) in [
            ("worker.token", &["--worker", "--name", "w"][..]),
            ("client.token", &["--submit", "--client", "t"]),
            ("admin.token", &["--admin", "--name", "a"]),
        ] {
            let mut command = site.command(&["token", "create", "--data"]);
            let output = command.arg(site.data(0)).args(flags).output().expect("ropewalk starts");
            assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
            fs::write(site.path(name), output.stdout).expect("a file");
        }
        for (server, key) in (1..servers).flat_map(|server| [(server, "root.key"), (server, "secrets.key")]) {
            fs::copy(site.data(0).join(key), site.data(server).join(key)).expect("a key");
        }
        Some(site)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn root(&self) -> PathBuf {
        self.path("repository")
    }

    fn data(&self, server: usize) -> PathBuf {
        self.path(&format!("data{server}"))
    }

    fn url(&self, server: usize) -> String {
        format!("http://{}", self.addresses[server])
    }

    fn git(&self, arguments: &[&str]) {
        let status = Command::new("git").args(arguments).current_dir(self.root()).status().expect("git");
        assert!(status.success(), "git {arguments:?}");
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ropewalk"));
        command.args(arguments).current_dir(self.root()).stdin(Stdio::null());
        command.env("ROPEWALK_DATA", self.path("home")).env("NO_COLOR", "1");
        for variable in ["ROPEWALK_SERVER", "ROPEWALK_TOKEN_FILE"] {
            command.env_remove(variable);
        }
        command
    }

    fn start(&self, mut command: Command) -> Told {
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut process = Process(command.spawn().expect("ropewalk starts"));
        let stdout = Box::new(process.0.stdout.take().expect("a pipe"));
        let stderr = Box::new(process.0.stderr.take().expect("a pipe"));
        Told { process, said: Reader::of(vec![stdout, stderr]) }
    }

    /// Starts a server without a worker beside it.
    fn serve(&self, server: usize) -> Told {
        let mut command = self.command(&["serve", "--local-worker", "off", "--listen", &self.addresses[server]]);
        command.arg("--data").arg(self.data(server));
        let mut told = self.start(command);
        told.said.until("serving http://");
        told
    }

    /// Starts a worker that knows both servers.
    fn work(&self) -> Told {
        let mut command =
            self.command(&["work", "--server", &self.url(0), "--server", &self.url(1), "--capacity", "2"]);
        command.args(["--name", "w"]).arg("--token").arg(self.path("worker.token")).arg("--data").arg(self.path("w"));
        let mut told = self.start(command);
        told.said.until("joined http://");
        told
    }

    /// As [`Site::submit`], a build that takes no place of another.
    fn submit_apart(&self, server: usize) -> Told {
        self.submit_with(server, &["--separate"])
    }

    /// Submits by a server and watches.
    fn submit(&self, server: usize) -> Told {
        self.submit_with(server, &[])
    }

    fn submit_with(&self, server: usize, flags: &[&str]) -> Told {
        let mut command = self.command(&["submit", "--server", &self.url(server), "--output", "plain", "--token"]);
        command.arg(self.path("client.token")).args(flags);
        self.start(command)
    }

    /// What a server answers to a GET with the administrator's token: the head and the body.
    fn get(&self, server: usize, path: &str) -> String {
        self.get_within(60, server, path)
    }

    /// As [`Site::get`], by somebody who gives up after so many seconds.
    fn get_within(&self, seconds: u32, server: usize, path: &str) -> String {
        let token = fs::read_to_string(self.path("admin.token")).expect("a token");
        let mut command = Command::new("curl");
        command
            .args(["-s", "-i", "--max-time", &seconds.to_string(), "-H"])
            .arg(format!("authorization: Bearer {}", token.trim()));
        let output = command.arg(format!("{}{path}", self.url(server))).output().expect("curl");
        String::from_utf8_lossy(&output.stdout).into_owned()
    }
}

#[track_caller]
fn check_lines(said: Reader, count: usize) {
    let lines = said.rest();
    let counted: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("count | ")).collect();
    let expected: Vec<String> = (0..count).map(|number| format!("line-{number}")).collect();
    assert_eq!(counted, expected, "all that was shown:\n{}", lines.join("\n"));
    let ends = lines.iter().filter(|line| line.contains("build") && line.contains("passed")).count();
    assert_eq!(ends, 1, "all that was shown:\n{}", lines.join("\n"));
}

const COUNTING: &str = "jobs:\n  count:\n    run: |\n      echo run >> RUNS\n      i=0; while test $i -lt 3000; do echo line-$i; i=$((i+1)); test $((i % 10)) = 0 && sleep 0.01; done; true\n";

#[test]
fn another_server_goes_on_where_a_killed_leader_was() {
    let runs = tempfile::tempdir().expect("a folder");
    let runs = runs.path().join("runs");
    let Some(site) = Site::new(&COUNTING.replace("RUNS", &runs.display().to_string())) else { return };
    let mut first = site.serve(0);
    let mut second = site.serve(1);
    second.said.until("standing by");
    let ready = site.get(1, "/ready");
    assert!(ready.contains(" 200 ") && ready.contains(&format!("standby; {} leads", site.url(0))), "{ready}");
    let _worker = site.work();
    let mut watching = site.submit(1);
    watching.said.until("count | line-400");
    let killed = Instant::now();
    first.process.kill();
    second.said.until("leading, as number");
    let took = killed.elapsed();
    watching.said.until("count | line-1500");
    println!("the second server led {} ms after the first was killed", took.as_millis());
    assert!(took < TAKEN_OVER_WITHIN, "{took:?}");
    // The one that was killed comes back as a standby, and takes over in its turn.
    let mut first = site.serve(0);
    first.said.until("standing by");
    second.process.kill();
    first.said.until("leading, as number");
    let second = site.serve(1);
    assert_eq!(watching.process.ended(), Some(0));
    check_lines(watching.said, 3000);
    assert_eq!(fs::read_to_string(&runs).expect("it ran"), "run\n");
    // What has ended is told by whoever is asked, also while the one that leads answers nobody.
    for stopped in [false, true] {
        if stopped {
            first.process.signal("STOP");
        }
        let builds = site.get(1, "/api/v1/builds?limit=1");
        assert!(builds.contains("\"passed\""), "{builds}");
        let log = site.get(1, "/api/v1/builds/1/attempts/1/log/0");
        assert_eq!(log.lines().filter(|line| line.contains("line-")).count(), 3000, "{log}");
    }
    drop(second);
}

#[test]
fn a_leader_told_to_end_hands_over() {
    let mark = tempfile::tempdir().expect("a folder");
    let mark = mark.path().join("mark");
    let pipeline = "jobs:\n  wait:\n    run: touch MARK.begun; while ! test -e MARK; do sleep 0.05; done; echo over\n";
    let Some(site) = Site::new(&pipeline.replace("MARK", &mark.display().to_string())) else { return };
    let mut first = site.serve(0);
    let mut second = site.serve(1);
    second.said.until("standing by");
    let _worker = site.work();
    let mut watching = site.submit(1);
    appears(&mark.with_extension("begun"));
    first.process.signal("TERM");
    second.said.until("leading, as number");
    assert_eq!(first.process.ended(), Some(0));
    fs::write(&mark, "").expect("a file");
    watching.said.until("wait | over");
    assert_eq!(watching.process.ended(), Some(0));
    second.process.signal("TERM");
    assert_eq!(second.process.ended(), Some(0));
}

#[test]
fn a_leader_that_stood_still_leads_no_more() {
    let Some(site) = Site::new("jobs:\n  a:\n    run: echo built\n") else { return };
    let mut first = site.serve(0);
    let mut second = site.serve(1);
    second.said.until("standing by");
    // Its connections are cut, as the network's loss would, and another takes the lock.
    first.process.signal("STOP");
    site._database.cut();
    second.said.until("leading, as number");
    first.process.signal("CONT");
    first.said.until("leading no more");
    let _worker = site.work();
    for server in [0, 1] {
        let mut told = site.submit(server);
        told.said.until("a | built");
        assert_eq!(told.process.ended(), Some(0));
    }
    let ready = site.get(0, "/ready");
    assert!(ready.contains(&format!("standby; {} leads", site.url(1))), "{ready}");
}

#[test]
fn a_leader_that_stands_still_in_the_middle_of_a_build_is_deposed() {
    let runs = tempfile::tempdir().expect("a folder");
    let runs = runs.path().join("runs");
    let Some(site) = Site::new(&COUNTING.replace("RUNS", &runs.display().to_string())) else { return };
    let mut first = site.serve(0);
    let mut second = site.serve(1);
    second.said.until("standing by");
    let _worker = site.work();
    let mut watching = site.submit(1);
    watching.said.until("count | line-400");
    // Its connections live on, and its lock with them: the kernel answers for it.
    let stopped = Instant::now();
    first.process.signal("STOP");
    second.said.until("leading, as number");
    println!("the second server led {} ms after the first was stopped", stopped.elapsed().as_millis());
    watching.said.until("count | line-1500");
    first.process.signal("CONT");
    first.said.until("leading no more");
    assert_eq!(watching.process.ended(), Some(0));
    check_lines(watching.said, 3000);
    assert_eq!(fs::read_to_string(&runs).expect("it ran"), "run\n");
    let ready = site.get(0, "/ready");
    assert!(ready.contains(&format!("standby; {} leads", site.url(1))), "{ready}");
}

#[test]
fn a_standby_of_a_leader_that_stands_still_goes_over_to_the_next() {
    let runs = tempfile::tempdir().expect("a folder");
    let runs = runs.path().join("runs");
    let Some(site) = Site::of(3, &COUNTING.replace("RUNS", &runs.display().to_string())) else { return };
    let first = site.serve(0);
    let mut others = [1, 2].map(|server| site.serve(server));
    for other in &mut others {
        other.said.until("standing by");
    }
    let _worker = site.work();
    let mut watching = [1, 2].map(|server| site.submit_apart(server));
    for watching in &mut watching {
        watching.said.until("count | line-400");
    }
    let stopped = Instant::now();
    first.process.signal("STOP");
    // One of the two leads then. The other is asked by people who do not wait for long, as a proxy does.
    let is_over = |server: usize| {
        let ready = site.get_within(1, server, "/ready");
        let leads = site.url(3 - server);
        ready.starts_with("HTTP/1.1 200") && ready.contains(&format!("standby; {leads} leads"))
    };
    let mut standby = None;
    while standby.is_none() {
        assert!(stopped.elapsed() < 2 * TAKEN_OVER_WITHIN, "no standby is ready");
        standby = [1, 2].into_iter().find(|server| is_over(*server));
    }
    for mut watching in watching {
        assert_eq!(watching.process.ended(), Some(0));
        check_lines(watching.said, 3000);
    }
    let mut asked = site.submit_apart(standby.expect("it was found"));
    asked.said.until("passed");
    assert_eq!(asked.process.ended(), Some(0));
}

#[test]
fn servers_that_nobody_leads_are_not_ready_and_commands_say_that_they_wait() {
    let Some(mut site) = Site::new("jobs:\n  a:\n    run: echo built\n") else { return };
    let _first = site.serve(0);
    let mut second = site.serve(1);
    second.said.until("standing by");
    let are = |site: &Site, status: &str| {
        let began = Instant::now();
        while [0, 1].iter().any(|server| !site.get(*server, "/ready").starts_with(status)) {
            assert!(began.elapsed() < process::PATIENCE, "they are not all {status}");
        }
    };
    are(&site, "HTTP/1.1 200");
    site._database.kill();
    are(&site, "HTTP/1.1 503");
    let mut told = site.submit(1);
    // What came of a try that has ended meanwhile is told, too.
    let note = told.said.until(&format!("note: {} ", site.url(1)));
    assert!(note.ends_with(" (Ctrl-C ends it)"), "{note}");
    site._database.restart();
    are(&site, "HTTP/1.1 200");
}

#[test]
fn a_server_with_other_keys_is_refused() {
    let Some(site) = Site::new("jobs:\n  a:\n    run: echo built\n") else { return };
    let _first = site.serve(0);
    fs::remove_file(site.data(1).join("root.key")).expect("a key");
    let mut command = site.command(&["serve", "--local-worker", "off", "--listen", &site.addresses[1], "--data"]);
    command.arg(site.data(1));
    let mut told = site.start(command);
    told.said.until("copy root.key and secrets.key");
    assert_eq!(told.process.ended(), Some(2));
}

#[test]
fn a_form_of_a_standbys_page_is_taken_as_it_came_there() {
    let Some(site) = Site::new("jobs:\n  a:\n    run: echo\n") else { return };
    let _first = site.serve(0);
    let mut second = site.serve(1);
    second.said.until("standing by");
    let token = fs::read_to_string(site.path("admin.token")).expect("a token");
    let mut form = Command::new("curl");
    form.args(["-s", "-i", "--max-time", "60", "--interface", "127.0.0.2", "-H"]);
    form.arg(format!("cookie: ropewalk={}", token.trim())).arg("-H").arg(format!("origin: {}", site.url(1)));
    // Others than servers say nothing of where they are.
    form.args(["-H", "x-ropewalk-host: elsewhere", "-H", "x-ropewalk-from: 192.0.2.7:1"]);
    form.args(["-d", "name=bob&role=reader"]).arg(format!("{}/settings/members", site.url(1)));
    let page = String::from_utf8_lossy(&form.output().expect("curl").stdout).into_owned();
    assert!(page.starts_with("HTTP/1.1 200"), "{page}");
    assert!(page.contains(&format!("{}/join?link=", site.url(1))), "{page}");
    let audit = site.get(0, "/api/v1/audit");
    assert!(audit.contains("\"verb\":\"member_add\"") && audit.contains("\"from\":\"127.0.0.2\""), "{audit}");
}
