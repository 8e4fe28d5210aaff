//! `cargo xtask storm server`: a real server and real workers under steady load, killed, stopped, cut off and left in the
//! dark at moments drawn from a seed, while calls of the server's stores fail; then a count of what must hold. The moments are drawn, what they meet is not: a seed
//! repeats the kind of a storm, not each of its steps.

mod load;
mod oracle;
mod proxy;
mod wire;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use api::build::{BuildFilter, Cancel, VerdictWord};
use api::client::{Client, ClientError, Logs, PageWanted};
use api::event::Moment;
use api::log::LogStream;
use api::problem::ProblemKind;
use graph::{BuildId, Digest};
use tokio::time::{sleep, timeout};

use crate::fleet::{self, Faults, Fleet, Listen, PROJECT, Process};
use crate::postgres::Postgres;
use proxy::Proxy;
use wire::Wire;

/// How many workers there are whose line is a proxy; one more has a network of its own.
const WORKERS: usize = 2;
/// Of how many calls of the stores one fails, unless told.
const FAULTS_ONE_IN: u64 = 300;
/// What stands in the error of every fault on purpose (`store::FaultyStore`, `store::blob::FaultyBlobs`).
const FAULT_WORDS: [&str; 2] = ["a fault by schedule", "a fault on purpose"];
/// What a server says that finds no database while it crashes.
const CRASH_WORDS: &str = "the connection to the database was lost";
/// Out of a hundred harms on PostgreSQL, so many crash the database.
const CRASHES: u64 = 3;
/// How many jobs each runs at once.
const CAPACITY: usize = 4;
/// How often a worker shows itself; it is lost after three times as long.
const HEARTBEAT_MS: u64 = 500;
/// How long a server that was started is waited for.
const SERVES_WITHIN: Duration = Duration::from_secs(10);
/// No more builds are asked for while so many run.
const RUNNING_MAX: usize = 30;
/// How many people ask for builds at once.
const DRIVERS: usize = 3;
/// Of a hundred builds, so many are asked to be canceled, within so long.
const CANCELED: u64 = 15;
const CANCELED_WITHIN_MS: u64 = 500;
/// How many builds are followed at once.
const FOLLOWERS_MAX: usize = 12;
/// How long everything may take to end once the storm is over: more than the server's patience with silent workers.
const CALM: Duration = Duration::from_secs(240);
/// The server lives and is down for less than so long each time. A worker is harmed within the last.
const KILL_MS_MAX: u64 = 1500;
const DOWN_MS_MAX: u64 = 500;
const HARM_MS_MAX: u64 = 4000;
/// The most violations that are told one by one.
const VIOLATIONS_TOLD_MAX: usize = 50;

/// A build that was asked for.
#[derive(Clone)]
pub struct Submission {
    /// Tells it from all others.
    name: String,
    /// Which of the kinds.
    kind: usize,
    /// The build, if the server said that it keeps it.
    acknowledged: Option<BuildId>,
    /// The server was asked to cancel it.
    may_be_canceled: bool,
    /// The server said that it is canceled, or had ended.
    is_canceled: bool,
}

impl Submission {
    fn new(name: String, kind: usize) -> Self {
        Self { name, kind, acknowledged: None, may_be_canceled: false, is_canceled: false }
    }
}

/// What is known so far.
#[derive(Default)]
pub struct State {
    submissions: RefCell<Vec<Submission>>,
    counts: RefCell<BTreeMap<String, u64>>,
    violations: RefCell<Vec<String>>,
    infra: RefCell<BTreeMap<String, u64>>,
    /// Lines that followers were shown, by build, attempt and number.
    seen: RefCell<BTreeMap<(BuildId, u32), BTreeMap<u64, String>>>,
    /// The lease and the worker under which attempts were seen to run.
    leases: RefCell<BTreeMap<(BuildId, u32), (u64, String)>>,
    /// What the present server counts as stale; what those before it counted is among the counts.
    stale: Cell<u64>,
    /// Calls of the stores fail, or did a moment ago.
    is_faulty: Cell<bool>,
    /// The database has crashed at least once.
    has_crashed: Cell<bool>,
    running: Cell<usize>,
    followers: Cell<usize>,
    is_over: Cell<bool>,
    is_calm: Cell<bool>,
}

impl State {
    fn count(&self, what: &str, more: u64) {
        *self.counts.borrow_mut().entry(what.to_owned()).or_default() += more;
    }

    fn violation(&self, text: String) {
        eprintln!("VIOLATION: {text}");
        self.violations.borrow_mut().push(text);
    }

    fn infra(&self, text: &str) {
        *self.infra.borrow_mut().entry(text.to_owned()).or_default() += 1;
    }
}

/// Numbers drawn from a seed (xorshift64*, Vigna 2016).
struct Draw(u64);

impl Draw {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 32) % bound
    }

    fn ms(&mut self, from: u64, to: u64) -> Duration {
        Duration::from_millis(from + self.below(to - from))
    }
}

/// What a storm is made of.
struct Plan {
    rounds: u64,
    seed: u64,
    /// A file while which is there calls of the stores fail.
    faults: Option<std::path::PathBuf>,
    database: Option<RefCell<Postgres>>,
    wire: Option<Wire>,
}

/// Runs a storm of `[ROUNDS]` kills of the server; `--seed=N`, `--store=postgres` (one of its own) or `--store=URL`,
/// `--faults=ONE_IN` or `--faults=off`.
///
/// # Errors
/// If anything does not hold.
pub fn server(arguments: &[&str]) -> Result<(), String> {
    let value = |name: &str| arguments.iter().find_map(|argument| argument.strip_prefix(name));
    let rounds = arguments.iter().find(|argument| !argument.starts_with("--")).map_or(Ok(50), |text| text.parse());
    let rounds: u64 = rounds.map_err(|_| "ROUNDS is a number".to_owned())?;
    let of_the_clock = || SystemTime::UNIX_EPOCH.elapsed().map_or(1, |time| time.as_secs());
    let seed = value("--seed=").map_or_else(|| Ok(of_the_clock()), str::parse).map_err(|_| "--seed=N is a number")?;
    let one_in = match value("--faults=") {
        Some("off") => None,
        Some(text) => Some(text.parse::<u64>().map_err(|_| "--faults=ONE_IN is a number, or off")?),
        None => Some(FAULTS_ONE_IN),
    };
    let binary = fleet::binary(if one_in.is_some() { Faults::With } else { Faults::Without })?;
    let folder = fleet::target().join(format!("storm-server-{}", std::process::id()));
    let (store, database) = match value("--store=") {
        Some("postgres") => {
            let database = Postgres::start()?;
            (Some(database.url()), Some(RefCell::new(database)))
        }
        url => (url.map(str::to_owned), None),
    };
    let heartbeat = format!("{HEARTBEAT_MS}ms");
    let faults = one_in.map(|one_in| (one_in, folder.with_extension("faults")));
    let schedule = faults.as_ref().map(|(one_in, file)| format!("{one_in}:{}", file.display()));
    let mut environment =
        vec![("ROPEWALK_WORKER_HEARTBEAT", heartbeat.as_str()), ("ROPEWALK_BUILDS_AUTO_CANCEL", "off")];
    environment.extend(store.as_deref().map(|url| ("ROPEWALK_STORE_URL", url)));
    environment.extend(schedule.as_deref().map(|schedule| ("ROPEWALK_FAULTS", schedule)));
    let wire = Wire::new().map_err(|why| println!("skipped: no worker has a network of its own: {why}")).ok();
    let listen = if wire.is_some() { Listen::Everywhere } else { Listen::Loopback };
    let fleet = Rc::new(Fleet::new(&binary, &folder, &environment, listen)?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| error.to_string())?;
    println!("seed {seed}, {rounds} kills of the server, in {}", fleet.folder().display());
    let state = Rc::new(State::default());
    let began = Instant::now();
    let plan = Rc::new(Plan { rounds, seed, faults: faults.map(|(_, file)| file), database, wire });
    let ended = tokio::task::LocalSet::new().block_on(&runtime, storm(&fleet, &state, &plan));
    if let Some(file) = &plan.faults {
        let _ = std::fs::remove_file(file);
    }
    ended.and_then(|()| report(&fleet, &state, seed, began))
}

fn report(fleet: &Fleet, state: &State, seed: u64, began: Instant) -> Result<(), String> {
    for (what, count) in state.counts.borrow().iter() {
        println!("{count:>10}  {what}");
    }
    for (what, count) in state.infra.borrow().iter() {
        println!("{count:>10}  failed with: {what}");
    }
    println!("{:>10}  seconds", began.elapsed().as_secs());
    let violations = state.violations.borrow();
    if violations.is_empty() {
        let _ = std::fs::remove_dir_all(fleet.folder());
        println!("everything held (seed {seed})");
        return Ok(());
    }
    let told: Vec<_> = violations.iter().take(VIOLATIONS_TOLD_MAX).cloned().collect();
    Err(format!(
        "{} violations with seed {seed}, what is left is in {}:\n{}",
        violations.len(),
        fleet.folder().display(),
        told.join("\n")
    ))
}

/// What is between a worker and its server.
enum Line {
    Proxy(Proxy),
    /// The namespace's name, and the server's address within.
    Wire(Rc<Plan>, String),
}

/// A worker and its line.
struct Hand {
    name: String,
    line: Line,
    process: RefCell<Option<Process>>,
    /// Somebody is doing something to it.
    is_busy: Cell<bool>,
}

impl Hand {
    fn start(fleet: &Fleet, name: String, line: Line) -> Result<Self, String> {
        let hand = Self { name, line, process: RefCell::default(), is_busy: Cell::new(false) };
        hand.restart(fleet)?;
        Ok(hand)
    }

    fn restart(&self, fleet: &Fleet) -> Result<(), String> {
        let started = match &self.line {
            Line::Proxy(proxy) => fleet.work(&self.name, &proxy.address, CAPACITY),
            Line::Wire(plan, address) => {
                let namespace = plan.wire.as_ref().map(|wire| wire.namespace.as_str());
                fleet.work_within(namespace, &self.name, address, CAPACITY)
            }
        };
        *self.process.borrow_mut() = Some(started?);
        Ok(())
    }

    /// Breaks its connections.
    async fn cut(&self, state: &State, time: Duration) {
        match &self.line {
            Line::Proxy(proxy) => {
                state.count("resets of a worker's connections", 1);
                proxy.cut();
            }
            Line::Wire(..) => self.darken(state, time).await,
        }
    }

    /// Lets nothing through for a while.
    async fn darken(&self, state: &State, time: Duration) {
        match &self.line {
            Line::Proxy(proxy) => {
                state.count("times a worker's line was dark", 1);
                proxy.darken(time).await;
            }
            Line::Wire(plan, _) => {
                state.count("times a worker's network namespace was cut off", 1);
                if let Some(wire) = &plan.wire {
                    wire.pull(time).await;
                }
            }
        }
    }

    fn signal(&self, name: &str) {
        if let Some(process) = &*self.process.borrow() {
            process.signal(name);
        }
    }
}

async fn storm(fleet: &Rc<Fleet>, state: &Rc<State>, plan: &Rc<Plan>) -> Result<(), String> {
    let client = fleet.client()?;
    let mut server = fleet.serve()?;
    fleet.answers(&client).await?;
    let mut hands = Vec::new();
    for index in 0..WORKERS {
        let line = Line::Proxy(Proxy::to(fleet.address()).await?);
        hands.push(Rc::new(Hand::start(fleet, format!("worker{index}"), line)?));
    }
    if let Some(wire) = &plan.wire {
        let line = Line::Wire(Rc::clone(plan), format!("{}:{}", wire.host, fleet.port()));
        hands.push(Rc::new(Hand::start(fleet, "worker-wire".to_owned(), line)?));
    }
    fleet.joined(&client, hands.len()).await?;
    let kinds = Rc::new(load::kinds());
    let mut sources = Vec::new();
    for kind in kinds.iter() {
        let child = kind.child.as_ref().map(|child| (load::CHILD, child.pipeline.as_str()));
        sources.push(fleet::upload_beside(&client, &kind.pipeline, child.as_slice()).await?);
    }
    let sources: Rc<[Digest]> = sources.into();
    let mut tasks = vec![tokio::task::spawn_local(look(client.clone(), Rc::clone(state)))];
    for index in 0..DRIVERS {
        let draw = Draw(plan.seed.wrapping_mul(31).wrapping_add(index as u64 + 1).max(1));
        tasks.push(tokio::task::spawn_local(drive(client.clone(), Rc::clone(&sources), Rc::clone(state), draw)));
    }
    begin_faults(fleet, state, plan)?;
    rage(fleet, state, &mut server, &hands, plan).await?;
    state.is_over.set(true);
    if let Some(file) = &plan.faults {
        std::fs::remove_file(file).map_err(|error| error.to_string())?;
    }
    println!("calm: waiting for what runs");
    calm(fleet, &client, state, &mut server, &hands).await;
    state.is_calm.set(true);
    for task in tasks {
        let _ = timeout(Duration::from_secs(60), task).await;
    }
    while_followed(state).await;
    state.count("what workers said under old leases, refused", state.stale.get());
    oracle::check(&client, &kinds, state).await?;
    count_words(fleet, state, &hands);
    end(fleet, state, server, &hands).await;
    Ok(())
}

/// Lets calls of the stores fail from now on.
fn begin_faults(fleet: &Fleet, state: &State, plan: &Plan) -> Result<(), String> {
    let Some(file) = &plan.faults else { return Ok(()) };
    if !fleet.log("server").contains("faults: about one of") {
        return Err("this binary has no faults: build it with `--features faults`, or say `--faults=off`".to_owned());
    }
    state.is_faulty.set(true);
    std::fs::write(file, "").map_err(|error| error.to_string())
}

/// Counts what the processes said: faults, and panics, of which there must be none.
fn count_words(fleet: &Fleet, state: &State, hands: &[Rc<Hand>]) {
    let said = fleet.log("server");
    for line in said.lines().filter_map(|line| line.strip_prefix("fault: ")) {
        let kind = line.split_once(' ').map_or(line, |(_, kind)| kind.split('(').next().unwrap_or(kind));
        state.count(&format!("faults of the stores: {kind}"), 1);
    }
    let names = std::iter::once("server").chain(hands.iter().map(|hand| hand.name.as_str()));
    for name in names {
        for line in fleet.log(name).lines().filter(|line| line.contains("panicked at")) {
            state.violation(format!("{name}: {line}"));
        }
    }
}

/// Asks for builds, one after another.
async fn drive(client: Client, sources: Rc<[Digest]>, state: Rc<State>, mut draw: Draw) {
    while !state.is_over.get() {
        sleep(draw.ms(20, 300)).await;
        if state.running.get() >= RUNNING_MAX {
            continue;
        }
        let kind = draw.below(sources.len() as u64) as usize;
        let index = state.submissions.borrow().len();
        let name = format!("storm-{index}");
        state.submissions.borrow_mut().push(Submission::new(name.clone(), kind));
        match timeout(fleet::PATIENCE, client.build_submit(&fleet::request(sources[kind], name.clone()))).await {
            Err(_) => state.violation(format!("{name}: the server did not answer to a submission")),
            Ok(Err(error)) if error.is_passing() => state.count("submissions that failed, outcome unknown", 1),
            Ok(Err(error)) if state.is_faulty.get() && is_internal(&error) => {
                state.count("submissions that a fault of the stores refused", 1);
            }
            Ok(Err(error)) => state.violation(format!("{name} was refused: {error}")),
            Ok(Ok(submitted)) => {
                state.count("submissions acknowledged", 1);
                state.submissions.borrow_mut()[index].acknowledged = Some(submitted.build);
                if draw.below(100) < CANCELED {
                    let after = draw.ms(0, CANCELED_WITHIN_MS);
                    tokio::task::spawn_local(cancel(client.clone(), submitted.build, index, after, Rc::clone(&state)));
                }
                if state.followers.get() < FOLLOWERS_MAX {
                    state.followers.set(state.followers.get() + 1);
                    tokio::task::spawn_local(follow(client.clone(), submitted.build, Rc::clone(&state)));
                }
            }
        }
    }
}

/// Asks once, after a while, that a build be canceled.
async fn cancel(client: Client, build: BuildId, index: usize, after: Duration, state: Rc<State>) {
    sleep(after).await;
    state.submissions.borrow_mut()[index].may_be_canceled = true;
    match timeout(fleet::PATIENCE, client.build_cancel(build, &Cancel::default())).await {
        Err(_) => state.violation(format!("build {build}: the server did not answer to a cancel")),
        Ok(Err(error)) if error.is_passing() || state.is_faulty.get() && is_internal(&error) => {
            state.count("cancels that failed, outcome unknown", 1);
        }
        Ok(Err(error)) if error.is(ProblemKind::Conflict) => state.count("cancels of what had ended", 1),
        Ok(Err(error)) => state.violation(format!("build {build}: its cancel was refused: {error}")),
        Ok(Ok(_)) => {
            state.count("cancels acknowledged", 1);
            state.submissions.borrow_mut()[index].is_canceled = true;
        }
    }
}

/// Whether a server refused since something within it failed.
fn is_internal(error: &ClientError) -> bool {
    error.is(ProblemKind::Internal)
}

/// Watches a build to its end, as `ropewalk submit` does.
async fn follow(client: Client, build: BuildId, state: Rc<State>) {
    let mut moments = client.build_stream(build, Logs::With, None);
    let (mut verdict, mut last) = (VerdictWord::Running, None);
    loop {
        let told = match timeout(CALM, moments.next()).await {
            Ok(Ok(Some(told))) => told,
            Ok(Ok(None)) => break,
            // As any client may do.
            Ok(Err(error)) if state.is_faulty.get() && is_internal(&error) => {
                state.count("streams that a fault of the stores refused, taken up again", 1);
                moments = client.build_stream(build, Logs::With, last.clone());
                sleep(Duration::from_millis(100)).await;
                continue;
            }
            Ok(Err(error)) => {
                state.violation(format!("build {build}: its stream was refused: {error}"));
                break;
            }
            Err(_) => {
                state.violation(format!("build {build}: its stream said nothing for {} s", CALM.as_secs()));
                break;
            }
        };
        last = told.id.or(last);
        match told.moment {
            Moment::Log { attempt, stream: LogStream::Stdout, number, line, open: false, .. } => {
                let mut seen = state.seen.borrow_mut();
                let lines = seen.entry((build, attempt)).or_default();
                if let Some((&last, _)) = lines.last_key_value()
                    && last >= number
                {
                    state.violation(format!("build {build}, attempt {attempt}: line {number} shown after {last}"));
                }
                lines.insert(number, line);
            }
            Moment::LogGap { attempt, text, .. } => {
                state.count("gaps shown to followers", 1);
                eprintln!("gap: build {build}, attempt {attempt}: {text}");
            }
            Moment::BuildFinished { verdict: ended, .. } => verdict = ended,
            _ => {}
        }
    }
    if verdict == VerdictWord::Running {
        state.violation(format!("build {build}: its stream ended before it"));
    }
    state.count("builds followed to their end", 1);
    state.followers.set(state.followers.get() - 1);
}

async fn while_followed(state: &State) {
    let began = Instant::now();
    while state.followers.get() > 0 && began.elapsed() < fleet::PATIENCE {
        sleep(Duration::from_millis(50)).await;
    }
    if state.followers.get() > 0 {
        state.violation(format!("{} followers still wait though all builds have ended", state.followers.get()));
    }
}

/// Looks at the server again and again: who runs what under which lease, how much runs, what was refused.
async fn look(client: Client, state: Rc<State>) {
    while !state.is_calm.get() {
        sleep(Duration::from_millis(100)).await;
        let _ = timeout(Duration::from_secs(5), async {
            let filter = BuildFilter { verdict: Some(VerdictWord::Running), ..BuildFilter::default() };
            let page = PageWanted { cursor: None, limit: Some(200) };
            if let Ok(running) = client.build_list(&filter, &page).await {
                state.running.set(running.items.len());
            }
            if let Ok(workers) = client.worker_list().await {
                let held = workers.items.iter().flat_map(|worker| {
                    worker.running.iter().map(|attempt| {
                        (attempt.build, attempt.job.clone(), attempt.attempt, attempt.lease, worker.id.clone())
                    })
                });
                leases(&state, held.collect());
            }
            if let Ok(text) = client.metrics().await
                && let Some(stale) = metric(&text, "ropewalk_stale_sections_total")
            {
                state.stale.set(stale);
            }
        })
        .await;
    }
}

/// The value of a metric without labels.
fn metric(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

/// Judges what workers hold at one moment.
fn leases(state: &State, held: Vec<(BuildId, String, u32, u64, String)>) {
    let mut jobs: BTreeMap<(BuildId, &str), u64> = BTreeMap::new();
    let mut numbers: BTreeMap<u64, &str> = BTreeMap::new();
    let mut known = state.leases.borrow_mut();
    for (build, job, attempt, lease, worker) in &held {
        state.count("leases looked at", 1);
        if let Some(other) = jobs.insert((*build, job), *lease) {
            state.violation(format!("build {build}: {job} is held under leases {other} and {lease} at once"));
        }
        if let Some(other) = numbers.insert(*lease, worker) {
            state.violation(format!("lease {lease} is held by {other} and {worker}"));
        }
        let first = known.entry((*build, *attempt)).or_insert_with(|| (*lease, worker.clone()));
        if *first != (*lease, worker.clone()) {
            state.violation(format!("build {build}, attempt {attempt}: {first:?}, then ({lease}, {worker})"));
        }
    }
}

/// Kills the server so often, and does harm to the workers all the while.
async fn rage(
    fleet: &Rc<Fleet>,
    state: &Rc<State>,
    server: &mut Process,
    hands: &[Rc<Hand>],
    plan: &Rc<Plan>,
) -> Result<(), String> {
    let harming = tokio::task::spawn_local(harm_workers(
        Rc::clone(fleet),
        Rc::clone(state),
        hands.to_vec(),
        Draw(plan.seed.wrapping_mul(17).max(1)),
    ));
    let mut draw = Draw(plan.seed.max(1));
    let began = Instant::now();
    let mut kills = 0;
    while kills < plan.rounds {
        sleep(draw.ms(50, KILL_MS_MAX)).await;
        start_again(fleet, state, server).await?;
        if let Some(database) = &plan.database
            && draw.below(100) < CRASHES
        {
            state.count("crashes of the database", 1);
            state.has_crashed.set(true);
            database.borrow_mut().crash()?;
            continue;
        }
        // One of four is killed in whatever it is doing, the others once they serve.
        if draw.below(4) > 0 {
            serves(fleet, state, server).await?;
        }
        kills += 1;
        state.count("kills of the server", 1);
        server.kill();
        state.count("what workers said under old leases, refused", state.stale.replace(0));
        sleep(draw.ms(0, DOWN_MS_MAX)).await;
        *server = fleet.serve()?;
        if kills % 10 == 0 {
            let a_minute = kills as f64 * 60.0 / began.elapsed().as_secs_f64();
            let n_builds = state.submissions.borrow().len();
            println!("{kills} kills, {a_minute:.0} a minute, {n_builds} builds asked for");
        }
    }
    harming.abort();
    Ok(())
}

/// Does harm to one worker after another until it is ended.
async fn harm_workers(fleet: Rc<Fleet>, state: Rc<State>, hands: Vec<Rc<Hand>>, mut draw: Draw) {
    loop {
        sleep(draw.ms(200, HARM_MS_MAX)).await;
        let hand = Rc::clone(&hands[draw.below(hands.len() as u64) as usize]);
        let (what, first, second) = (draw.below(55), draw.ms(0, 600), draw.ms(1000, 4000));
        if !hand.is_busy.replace(true) {
            let done = harm(Rc::clone(&fleet), Rc::clone(&state), Rc::clone(&hand), what, first, second);
            // It is done to its end, also if no further harm follows.
            tokio::task::spawn_local(async move {
                done.await;
                hand.is_busy.set(false);
            });
        }
    }
}

/// Waits until the server serves, or for a while.
async fn serves(fleet: &Fleet, state: &State, server: &mut Process) -> Result<(), String> {
    let (client, began) = (fleet.client()?, Instant::now());
    while began.elapsed() < SERVES_WITHIN {
        start_again(fleet, state, server).await?;
        if timeout(SERVES_WITHIN, client.ready()).await.is_ok_and(|ready| ready.is_ok()) {
            return Ok(());
        }
        sleep(Duration::from_millis(20)).await;
    }
    state.count("times the server did not serve within a while", 1);
    Ok(())
}

/// Starts the server again if it has ended by itself, as it may only where its store refuses to keep what happens.
async fn start_again(fleet: &Fleet, state: &State, server: &mut Process) -> Result<(), String> {
    let Some(status) = server.ended() else { return Ok(()) };
    let said = fleet.log_end("server");
    if state.is_faulty.get() && FAULT_WORDS.iter().any(|words| said.contains(words)) {
        state.count("times the server ended since its store refused, and was started again", 1);
    } else if state.has_crashed.get() && said.contains(CRASH_WORDS) {
        state.count("times the server found no database, and was started again", 1);
    } else {
        state.violation(format!("the server ended by itself: {status}\n{said}"));
    }
    sleep(Duration::from_millis(50)).await;
    *server = fleet.serve()?;
    Ok(())
}

/// Does harm to one worker.
async fn harm(fleet: Rc<Fleet>, state: Rc<State>, hand: Rc<Hand>, what: u64, first: Duration, second: Duration) {
    let ended = hand.process.borrow_mut().as_mut().and_then(Process::ended);
    if let Some(status) = ended {
        state.violation(format!("{} ended by itself: {status}\n{}", hand.name, fleet.log_end(&hand.name)));
        if let Err(error) = hand.restart(&fleet) {
            state.violation(error);
        }
    }
    match what {
        0..20 => {
            state.count("kills of a worker", 1);
            drop(hand.process.borrow_mut().take());
            sleep(first).await;
        }
        20..30 => {
            state.count("stops of a worker", 1);
            hand.signal("STOP");
            sleep(second).await;
            hand.signal("CONT");
            return;
        }
        30..45 => {
            return hand.cut(&state, first).await;
        }
        _ => {
            return hand.darken(&state, second).await;
        }
    }
    if let Err(error) = hand.restart(&fleet) {
        state.violation(error);
    }
}

/// Waits until all builds have ended.
async fn calm(fleet: &Fleet, client: &Client, state: &State, server: &mut Process, hands: &[Rc<Hand>]) {
    let began = Instant::now();
    let filter = BuildFilter {
        project: Some(PROJECT.to_owned()),
        verdict: Some(VerdictWord::Running),
        ..BuildFilter::default()
    };
    let mut left = Vec::new();
    while began.elapsed() < CALM {
        if let Err(error) = start_again(fleet, state, server).await {
            return state.violation(error);
        }
        if let Ok(running) = client.build_list(&filter, &PageWanted::default()).await {
            left = running.items;
            if left.is_empty() && hands.iter().all(|hand| !hand.is_busy.get()) {
                state.count("ms from calm to the last build's end", began.elapsed().as_millis() as u64);
                return;
            }
        }
        sleep(Duration::from_millis(100)).await;
    }
    for build in left {
        let jobs = client.job_list(build.id, &api::client::JobsWanted::default(), &PageWanted::default()).await;
        let jobs = jobs.map(|page| page.items).unwrap_or_default();
        let mut open = Vec::new();
        for job in jobs.iter().filter(|job| job.outcome.is_none()) {
            let why = client.job_why(build.id, &job.name).await;
            open.push(format!("{} is {:?}: {why:?}", job.name, job.state));
        }
        state.violation(format!("build {} never ended; {}", build.id, open.join("; ")));
    }
}

/// Asks everybody to leave, and looks at what is left.
async fn end(fleet: &Fleet, state: &State, mut server: Process, hands: &[Rc<Hand>]) {
    if let Ok(client) = fleet.client()
        && let Ok(text) = client.metrics().await
    {
        for name in ["ropewalk_leases", "ropewalk_builds_running", "ropewalk_jobs_queued", "ropewalk_jobs_waiting"] {
            match metric(&text, name) {
                Some(0) => {}
                found => state.violation(format!("{name} is {found:?} though all has ended")),
            }
        }
    }
    for hand in hands {
        let process = hand.process.borrow_mut().take();
        if let Some(mut process) = process {
            match process.end().await {
                Some(0) => {}
                code => state.violation(format!("{} was asked to end, and did with {code:?}", hand.name)),
            }
        }
    }
    match server.end().await {
        Some(0) => {}
        code => state.violation(format!("the server was asked to end, and did with {code:?}")),
    }
    let began = Instant::now();
    let mut left = fleet.left_over();
    while !left.is_empty() && began.elapsed() < Duration::from_secs(10) {
        sleep(Duration::from_millis(100)).await;
        left = fleet.left_over();
    }
    for (id, command) in left {
        state.violation(format!("process {id} is left over: {command}"));
        let _ = std::process::Command::new("kill").args(["-KILL", &id.to_string()]).status();
    }
}
