//! Images of a real registry (Debian's `docker-registry`), which asks for a login, over the engine that `DOCKER_HOST` names.

use std::collections::BTreeMap;
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use graph::{Failure, Outcome};
use hyper::Method;
use ropewalk_worker::Cancel;
use ropewalk_worker::container::Engine;
use ropewalk_worker::container::engine::Sent;
use ropewalk_worker::depot::Secrets;
use ropewalk_worker::entry::{Entry, Moment};
use serde_json::{Value, json};

use super::containers::{steps, take_pieces_of};
use super::engines::{is_program, make_image};
use super::ground::{Ground, MemoryLog, on_ground, secret};

/// The one user of the registry.
const USER: &str = "ada";
const PASSWORD: &str = "wonderland-1865";
/// `user:password`, as a secret has it.
const LOGIN: &str = "ada:wonderland-1865";
/// The line of a password file for it (bcrypt, the least work).
const PASSWORD_LINE: &str = "ada:$2b$04$sU2GfH7KmMRepQt3DU3vjOlR5cCf4X/gST6Vjtm6RXJ.pLEn9m5/q\n";
/// The login as the engine's API has it: JSON with `username` and `password`, in base64.
const LOGIN_HEADER: &str = "eyJ1c2VybmFtZSI6ICJhZGEiLCAicGFzc3dvcmQiOiAid29uZGVybGFuZC0xODY1In0=";

/// The login as `docker login` keeps it.
const LOGIN_KEPT: &str = "YWRhOndvbmRlcmxhbmQtMTg2NQ==";

/// How long the registry may take to start: machines differ.
const START_MAX: Duration = Duration::from_secs(120);

/// A registry that runs until this is dropped.
struct Registry {
    child: Child,
    _folder: tempfile::TempDir,
    /// `HOST:PORT`. Engines speak to a loopback address without TLS.
    address: String,
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn start() -> Option<Registry> {
    if !is_program("docker-registry") {
        assert!(std::env::var_os("CI").is_none_or(|ci| ci != "true"), "there is no `docker-registry`");
        println!("passed over: images of a registry, since there is no `docker-registry`");
        return None;
    }
    let folder = tempfile::tempdir().expect("a folder");
    let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
    let address = port.expect("a port").to_string();
    let at = |name: &str| folder.path().join(name);
    std::fs::write(at("passwords"), PASSWORD_LINE).expect("written");
    let settings = json!({
        "version": "0.1",
        "log": { "level": "error" },
        "storage": { "filesystem": { "rootdirectory": at("images") } },
        "http": { "addr": address },
        "auth": { "htpasswd": { "realm": "tests", "path": at("passwords") } },
    });
    // JSON is YAML.
    std::fs::write(at("settings.yml"), settings.to_string()).expect("written");
    let mut command = Command::new("docker-registry");
    command.arg("serve").arg(at("settings.yml")).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut registry = Registry { child: command.spawn().expect("the registry starts"), _folder: folder, address };
    let began = Instant::now();
    while TcpStream::connect(&registry.address).is_err() {
        let ended = registry.child.try_wait().expect("a child");
        assert!(ended.is_none() && began.elapsed() < START_MAX, "the registry did not start");
        std::thread::sleep(Duration::from_millis(20));
    }
    Some(registry)
}

/// Every policy, a tag that moves, logins right and wrong.
pub fn images_of_a_registry() {
    let Some(registry) = start() else { return };
    let home = tempfile::tempdir().expect("a folder");
    let known = json!({ "auths": { (registry.address.as_str()): { "auth": LOGIN_KEPT } } });
    std::fs::create_dir(home.path().join(".docker")).expect("a folder");
    std::fs::write(home.path().join(".docker/config.json"), known.to_string()).expect("written");
    // SAFETY: there is one thread.
    unsafe { std::env::set_var("HOME", home.path()) };
    let box_image = format!("{}/box", registry.address);
    let mut pins = BTreeMap::new();
    on_ground(&[], async |ground| {
        let engine = ground.worker.engine().await.expect("an engine");
        push(&engine, &box_image, "first\n").await;
        forget(&engine, &box_image).await;
        logins(ground, &registry.address, &box_image).await;
        let first = which(ground, &box_image, "missing", "first\n", Fetched::Yes).await;
        assert!(first.starts_with(&format!("{box_image}@sha256:")), "{first}");
        push(&engine, &box_image, "second\n").await;
        let again = which(ground, &box_image, "always", "first\n", Fetched::No).await;
        assert_eq!(again, first, "the tag means one image for the whole build");
        pins.insert(box_image.clone(), first);
    });
    // Another worker of the same build is told of the pin, and has to fetch it by its digest.
    on_ground(&[], async |ground| {
        let engine = ground.worker.engine().await.expect("an engine");
        forget(&engine, &box_image).await;
        forget(&engine, &pins[&box_image]).await;
        *ground.images.borrow_mut() = pins.clone();
        let pin = which(ground, &box_image, "missing", "first\n", Fetched::Yes).await;
        assert_eq!(pin, pins[&box_image]);
        visit(ground, &engine, &pin).await;
    });
    // A build that knows of nothing: `always` asks the registry although the engine has the name.
    on_ground(&[], async |ground| {
        let engine = ground.worker.engine().await.expect("an engine");
        make_image(&engine, &box_image, "here\n", &[]).await;
        let never = which(ground, &box_image, "never", "here\n", Fetched::No).await;
        assert!(never.starts_with("sha256:"), "no registry knows it: {never}");
    });
    on_ground(&[], async |ground| {
        let pin = which(ground, &box_image, "always", "second\n", Fetched::Yes).await;
        assert_ne!(pin, pins[&box_image]);
    });
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fetched {
    Yes,
    No,
}

fn job(image: &str, pull: &str, login: &str) -> Value {
    let container = json!({ "pull": pull, "login": login });
    json!({ "environment": { "image": { "image": image, "container": container } }, "steps": steps(&["cat /which"]) })
}

async fn run(ground: &Ground, job: Value, secrets: Secrets) -> (graph::AttemptReport, String) {
    let (report, log) = ground.run_with(job, BTreeMap::new(), secrets, Cancel::new(), MemoryLog::default()).await;
    let printed = take_pieces_of(&log, 0);
    let told = format!("{printed}{}{report:?}", take_pieces_of(&log, 1));
    for part in [PASSWORD, LOGIN_HEADER] {
        assert!(!told.contains(part), "the login is told: {told}");
    }
    (report, printed)
}

/// Runs a job with the right login; what its image was found to be.
#[track_caller]
fn which<'a>(
    ground: &'a Ground,
    image: &'a str,
    pull: &'a str,
    expected: &'a str,
    fetched: Fetched,
) -> impl Future<Output = String> + 'a {
    let caller = std::panic::Location::caller();
    async move {
        let (report, printed) = run(ground, job(image, pull, "LOGIN"), secret("LOGIN", LOGIN)).await;
        assert!(matches!(report.outcome, Outcome::Passed { .. }), "{caller}: {:?}\n{printed}", report.outcome);
        assert_eq!(printed, expected, "{caller}");
        let has_log = report.steps.iter().any(|step| step.name == format!("image {image}"));
        assert_eq!(has_log, fetched == Fetched::Yes, "{caller}: {:?}", report.steps);
        report.images[image].clone()
    }
}

/// What a wrong login, or none, comes to.
async fn logins(ground: &Ground, registry: &str, image: &str) {
    let check = async |job: Value, secrets: Secrets, words: &[&str]| {
        let (report, _) = run(ground, job, secrets).await;
        let Outcome::Failed(Failure::Setup { message }) = &report.outcome else { panic!("{:?}", report.outcome) };
        for words in words {
            assert!(message.contains(words), "no `{words}` in: {message}");
        }
    };
    let refuses = format!("the registry {registry} refuses `{image}`: ");
    let none = [refuses.as_str(), "if it needs a login, name a secret that holds `user:password` with `login`"];
    check(job(image, "missing", ""), Secrets::default(), &none).await;
    let wrong = [refuses.as_str(), "the secret `LOGIN` must hold `user:password` as this registry knows them"];
    check(job(image, "missing", "LOGIN"), secret("LOGIN", "ada:looking-glass"), &wrong).await;
    let no_login = ["the secret `LOGIN` is no login: its value must be `user:password`"];
    check(job(image, "missing", "LOGIN"), secret("LOGIN", "wonderland-1865"), &no_login).await;
    let absent = format!("{image}:none");
    let unknown = format!("the registry {registry} has no `{absent}`: ");
    check(job(&absent, "missing", "LOGIN"), secret("LOGIN", LOGIN), &[&unknown]).await;
}

/// Whoever enters a job where its image is not has it fetched, by the login that the machine's own user has.
async fn visit(ground: &Ground, engine: &Engine, pin: &str) {
    forget(engine, pin).await;
    let entry = Entry::open(&ground.data, graph::BuildId(7), ground.last_attempt(), &Moment::End, BTreeMap::new())
        .expect("it is kept");
    let mut command = entry.command("/bin/cat".as_ref(), &["/which".into()]).expect("a command");
    let output = command.stdin(Stdio::null()).output().expect("it starts");
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert_eq!(String::from_utf8_lossy(&output.stdout), "first\n", "{complaint}");
}

/// Makes an image and has the registry keep it under its tag.
async fn push(engine: &Engine, image: &str, word: &str) {
    make_image(engine, image, word, &[]).await;
    let path = format!("/images/{image}/push?tag=latest");
    let headers = [("X-Registry-Auth", LOGIN_HEADER)];
    let response = engine.call(Method::POST, &path, &headers, Sent::Nothing).await.expect("pushed");
    let told = http_body_util::BodyExt::collect(response.into_body()).await.expect("pushed").to_bytes();
    let told = String::from_utf8_lossy(&told);
    assert!(!told.contains("\"error\""), "{USER} cannot push: {told}");
}

/// Has the engine forget a name.
async fn forget(engine: &Engine, image: &str) {
    let path = format!("/images/{image}?force=1");
    engine.call(Method::DELETE, &path, &[], Sent::Nothing).await.expect("it was there");
}
