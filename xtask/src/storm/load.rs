//! What is built in a storm: pipelines whose verdicts and lines are known before.

use std::fmt::Write as _;

use api::build::VerdictWord;
use api::job::OutcomeWord;

/// One kind of build.
pub struct Kind {
    /// Its pipeline.
    pub pipeline: String,
    /// How it must end.
    pub verdict: VerdictWord,
    /// Its jobs by name, how each must end, and how many numbered lines it prints.
    pub jobs: Vec<(String, OutcomeWord, u64)>,
    /// The build that its job [`ASKS`] asks for, which prints nothing itself.
    pub child: Option<Box<Kind>>,
}

/// The job that asks for a build, where one does.
pub const ASKS: &str = "ask";
/// The file of the pipeline of the build that is asked for.
pub const CHILD: &str = ".ropewalk/child.yaml";

/// Tries of what is not the job's own fault: more than any storm uses up.
const HEAD: &str = "defaults: { environment: host, retry: { max: 100, on: [infra, lost], backoff: 20ms } }\njobs:\n";

/// A script that prints so many numbered lines, with a short sleep after every tenth if it takes its time.
fn lines(job: &str, count: u64, sleep: &str) -> String {
    format!(
        "i=0; while [ $i -lt {count} ]; do i=$((i+1)); echo \"{job} $i\"; [ $((i % 10)) -ne 0 ] || {sleep}; done; [ $i -eq {count} ]"
    )
}

/// The line that a job prints as its `number`th, from 1.
pub fn line(job: &str, number: u64) -> String {
    format!("{job} {number}")
}

fn job(text: &mut String, name: &str, keys: &str, script: &str) {
    let _ = writeln!(text, "  {name}:\n{keys}    run: |\n      {script}");
}

/// A build of which a job asks for another, and the next uses what that hands on.
fn asking() -> Kind {
    use OutcomeWord::Passed;
    let mut text = HEAD.to_owned();
    let said = format!("{}; echo version=1.2 >> $ROPEWALK_OUTPUT", lines("one", 25, "sleep 0.02"));
    job(&mut text, "one", "    outputs: [version]\n", &said);
    let jobs = vec![("one".to_owned(), Passed, 25)];
    let child = Kind { pipeline: text, verdict: VerdictWord::Passed, jobs, child: None };

    let mut text = format!(
        "{HEAD}  {ASKS}:\n    outputs: [version]\n    run: [{{ build: {{ file: {CHILD}, hand_on: {{ version: one.version }} }} }}]\n"
    );
    let used = format!("[ \"${{{{ needs.{ASKS}.outputs.version }}}}\" = 1.2 ] || exit 9; {}", lines("use", 20, ":"));
    job(&mut text, "use", &format!("    needs: [{ASKS}]\n"), &used);
    let jobs = vec![(ASKS.to_owned(), Passed, 0), ("use".to_owned(), Passed, 20)];
    Kind { pipeline: text, verdict: VerdictWord::Passed, jobs, child: Some(Box::new(child)) }
}

/// All kinds.
pub fn kinds() -> Vec<Kind> {
    use OutcomeWord::{Failed, Passed, Skipped};
    let passing = |pipeline, jobs| Kind { pipeline, verdict: VerdictWord::Passed, jobs, child: None };
    let mut kinds = Vec::new();

    let mut text = HEAD.to_owned();
    job(&mut text, "slow", "", &lines("slow", 200, "sleep 0.05"));
    kinds.push(passing(text, vec![("slow".to_owned(), Passed, 200)]));

    let mut text = HEAD.to_owned();
    job(&mut text, "quick", "", &lines("quick", 5, ":"));
    kinds.push(passing(text, vec![("quick".to_owned(), Passed, 5)]));

    let mut text = HEAD.to_owned();
    let made = format!("mkdir out; seq 1 1000 > out/numbers; {}", lines("make", 40, "sleep 0.02"));
    job(&mut text, "make", "    artifacts: { out: [\"out/**\"] }\n", &made);
    let used = format!("[ \"$(wc -l < out/numbers)\" -eq 1000 ] || exit 9; {}", lines("use", 30, "sleep 0.01"));
    job(&mut text, "use", "    needs: [make]\n", &used);
    kinds.push(passing(text, vec![("make".to_owned(), Passed, 40), ("use".to_owned(), Passed, 30)]));

    let mut text = HEAD.to_owned();
    job(&mut text, "bad", "", &format!("{}; exit 3", lines("bad", 30, "sleep 0.02")));
    job(&mut text, "after", "    needs: [bad]\n", "echo never");
    let jobs = vec![("bad".to_owned(), Failed, 30), ("after".to_owned(), Skipped, 0)];
    kinds.push(Kind { pipeline: text, verdict: VerdictWord::Failed, jobs, child: None });

    let (mut text, mut jobs) = (HEAD.to_owned(), Vec::new());
    for index in 0..6 {
        let name = format!("leg{index}");
        job(&mut text, &name, "", &lines(&name, 25, "sleep 0.01"));
        jobs.push((name, Passed, 25));
    }
    kinds.push(passing(text, jobs));

    let mut text = HEAD.to_owned();
    job(&mut text, "flood", "", &lines("flood", 20_000, ":"));
    kinds.push(passing(text, vec![("flood".to_owned(), Passed, 20_000)]));

    // More of those that ask for others: each is two builds, and what is between them is easy to lose.
    for _ in 0..3 {
        kinds.push(asking());
    }
    let mut text = HEAD.to_owned();
    job(&mut text, "one", "", &format!("{}; exit 3", lines("one", 30, "sleep 0.02")));
    let child =
        Kind { pipeline: text, verdict: VerdictWord::Failed, jobs: vec![("one".to_owned(), Failed, 30)], child: None };
    let text = format!("{HEAD}  {ASKS}: {{ run: [{{ build: {{ file: {CHILD} }} }}] }}\n");
    let jobs = vec![(ASKS.to_owned(), Failed, 0)];
    kinds.push(Kind { pipeline: text, verdict: VerdictWord::Failed, jobs, child: Some(Box::new(child)) });
    kinds
}
