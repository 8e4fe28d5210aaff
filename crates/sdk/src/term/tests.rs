//! The laws of terms, over every combination of states.

use std::collections::HashMap;

use super::{NAMES_MAX, Term, TermState};
use crate::ci::Ci;
use crate::growth::outcome_of;
use crate::json::Json;

/// How a job stands in a test.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Stands {
    Ok,
    Skipped,
    Pending,
    Failed,
}

const ALL: [Stands; 4] = [Stands::Ok, Stands::Skipped, Stands::Pending, Stands::Failed];

impl Stands {
    fn answer(self) -> Option<Json> {
        let outcome = match self {
            Self::Ok => r#"{"outcome":"passed"}"#,
            Self::Skipped => r#"{"outcome":"skipped","reason":"dropped"}"#,
            Self::Pending => return None,
            Self::Failed => r#"{"outcome":"failed","cause":"step","step":0,"exit":1}"#,
        };
        Some(Json::object([("outcome", Json::read(outcome).unwrap())]))
    }

    fn word(self) -> &'static str {
        ["ok", "skipped", "pending", "failed"][self as usize]
    }
}

/// A pipeline with jobs that stand like this.
fn pipeline(jobs: &[(&str, Stands)]) -> Ci {
    let answers: HashMap<String, Json> =
        jobs.iter().filter_map(|(name, stands)| Some((outcome_of(name).to_string(), stands.answer()?))).collect();
    let ci = Ci::new(Json::Null, answers, Vec::new());
    jobs.iter().for_each(|(name, _)| drop(ci.job(*name)));
    ci
}

/// What a term of a pipeline with these jobs says: state and text, the jobs whose logs it shows, and what it asks.
fn seen<T: std::fmt::Display + 'static>(jobs: &[(&str, Stands)], term: impl FnOnce(&Ci) -> Term<T>) -> String {
    let ci = pipeline(jobs);
    ci.status("it", term(&ci));
    ci.look_at_statuses();
    let shared = ci.shared.borrow();
    assert!(shared.diagnostics.is_empty(), "{:?}", shared.diagnostics);
    let status = &shared.statuses["it"];
    let text = |name: &str| status.get(name).and_then(Json::as_str).unwrap_or_default();
    let names = |items: &[Json]| items.iter().filter_map(Json::as_str).collect::<Vec<_>>().join(" ");
    let logs = names(status.get("jobs").map(Json::items).unwrap_or_default());
    let asked: Vec<Json> = shared.questions.values().filter_map(|question| question.get("outcome").cloned()).collect();
    format!("{}: {} | logs {logs} | asks {}", text("state"), text("text"), names(&asked))
}

#[track_caller]
fn check<T: std::fmt::Display + 'static>(jobs: &[(&str, Stands)], term: impl FnOnce(&Ci) -> Term<T>, expected: &str) {
    let seen = seen(jobs, term);
    assert!(seen.starts_with(expected), "{jobs:?}\n expected {expected}\n      saw {seen}");
}

fn of(ci: &Ci, job: &str) -> Term<()> {
    let index = ci.shared.borrow().by_name[job];
    crate::job::Job::new(ci.clone(), index).term()
}

/// The text of one job.
fn alone(job: &str, stands: Stands) -> String {
    match stands {
        Stands::Ok => String::new(),
        Stands::Skipped => format!("{job} skipped"),
        Stands::Pending => format!("Waiting for {job}"),
        Stands::Failed => format!("{job} failed"),
    }
}

/// What the table says of several jobs: the worst state, the smallest name in it, and a pending one beside a failure.
fn table(jobs: &[(&str, Stands)]) -> String {
    let mut sorted = jobs.to_vec();
    sorted.sort_unstable();
    let worst = sorted.iter().map(|(_, stands)| *stands).max().unwrap_or(Stands::Ok);
    let of = |wanted: Stands| sorted.iter().find(|(_, stands)| *stands == wanted).map(|(name, _)| *name);
    let mut text = alone(of(worst).unwrap_or(""), worst);
    if let (Stands::Failed, Some(pending)) = (worst, of(Stands::Pending)) {
        text.push_str(&format!(" (still waiting for {pending})"));
    }
    format!("{}: {text} |", worst.word())
}

fn each_two(mut visit: impl FnMut(Stands, Stands)) {
    ALL.into_iter().for_each(|left| ALL.into_iter().for_each(|right| visit(left, right)));
}

fn each_three(mut visit: impl FnMut([Stands; 3])) {
    each_two(|first, second| ALL.into_iter().for_each(|third| visit([first, second, third])));
}

#[test]
fn one_job() {
    for stands in ALL {
        check(&[("a", stands)], |ci| of(ci, "a").map(|()| ""), &table(&[("a", stands)]));
    }
}

#[test]
fn a_pair_is_as_bad_as_its_worst_side_whichever_that_is() {
    each_two(|left, right| {
        let jobs = [("a", left), ("b", right)];
        check(&jobs, |ci| of(ci, "a").pair(of(ci, "b")).map(|_| ""), &table(&jobs));
        let turned = seen(&jobs, |ci| of(ci, "b").pair(of(ci, "a")).map(|_| ""));
        assert_eq!(seen(&jobs, |ci| of(ci, "a").pair(of(ci, "b")).map(|_| "")), turned);
    });
}

#[test]
fn pairs_associate_and_all_is_many_pairs() {
    each_three(|[a, b, c]| {
        let jobs = [("a", a), ("b", b), ("c", c)];
        let left = seen(&jobs, |ci| of(ci, "a").pair(of(ci, "b")).pair(of(ci, "c")).map(|_| ""));
        let right = seen(&jobs, |ci| of(ci, "a").pair(of(ci, "b").pair(of(ci, "c"))).map(|_| ""));
        let all = seen(&jobs, |ci| Term::all([of(ci, "c"), of(ci, "a"), of(ci, "b")]).map(|_| ""));
        assert_eq!(left, right);
        assert_eq!(left, all);
        check(&jobs, |ci| Term::all(["a", "b", "c"].map(|job| of(ci, job))).map(|_| ""), &table(&jobs));
    });
}

#[test]
fn all_keeps_the_order() {
    check(&[], |_| Term::all([Term::ok(1), Term::ok(2), Term::ok(3)]).map(|all| format!("{all:?}")), "ok: [1, 2, 3] |");
    check(&[], |_| Term::all(Vec::<Term<u8>>::new()).map(|all| format!("{all:?}")), "ok: [] |");
}

#[test]
fn wait_for_all_names_them() {
    each_three(|stands| {
        let names = ["a", "b", "c"];
        let jobs: Vec<(&str, Stands)> = names.into_iter().zip(stands).collect();
        let listed = |wanted: Stands| {
            let names = jobs.iter().filter(|(_, stands)| *stands == wanted).map(|(name, _)| *name);
            names.collect::<Vec<_>>().join(", ")
        };
        let (failed, pending, skipped) = (listed(Stands::Failed), listed(Stands::Pending), listed(Stands::Skipped));
        let expected = match (failed.is_empty(), pending.is_empty(), skipped.is_empty()) {
            (false, false, _) => format!("failed: {failed} failed (still waiting for {pending}) |"),
            (false, true, _) => format!("failed: {failed} failed |"),
            (true, false, _) => format!("pending: Waiting for {pending} |"),
            (true, true, false) => format!("skipped: {skipped} skipped |"),
            (true, true, true) => "ok:  |".to_owned(),
        };
        check(&jobs, |ci| Term::wait_for_all(names.map(|job| (job, of(ci, job)))).map(|()| ""), &expected);
    });
}

#[test]
fn more_than_ten_names_are_counted() {
    let names: Vec<String> = (0..=NAMES_MAX).map(|index| format!("j{index}")).collect();
    let check = |n_jobs: usize, stands: Stands, expected: &str| {
        let jobs: Vec<(&str, Stands)> = names[..n_jobs].iter().map(|name| (name.as_str(), stands)).collect();
        check(&jobs, |ci| Term::wait_for_all(jobs.iter().map(|(job, _)| (*job, of(ci, job)))).map(|()| ""), expected);
    };
    check(10, Stands::Failed, "failed: j0, j1, j2, j3, j4, j5, j6, j7, j8, j9 failed |");
    check(11, Stands::Failed, "failed: 11 jobs failed |");
    check(11, Stands::Pending, "pending: Waiting for 11 jobs |");
}

#[test]
fn catch_leaves_only_what_is_pending() {
    each_two(|a, b| {
        let jobs = [("a", a), ("b", b)];
        let expected = match a.max(b) {
            Stands::Ok => "ok: Ok(((), ())) |".to_owned(),
            Stands::Pending => table(&jobs),
            Stands::Skipped | Stands::Failed => {
                let plain = table(&jobs);
                let (word, text) = plain.split_once(": ").unwrap();
                let kind = if word == "failed" { "Failed" } else { "Skipped" };
                format!("ok: Err({kind}({:?})) |", text.trim_end_matches(" |"))
            }
        };
        let pair = |ci: &Ci| of(ci, "a").pair(of(ci, "b")).catch().map(|caught| format!("{caught:?}"));
        check(&jobs, pair, &expected);
    });
}

#[test]
fn state_is_always_a_value() {
    each_two(|a, b| {
        let jobs = [("a", a), ("b", b)];
        let plain = table(&jobs);
        let text = plain.split_once(": ").unwrap().1.trim_end_matches(" |");
        let expected = match a.max(b) {
            Stands::Ok => "ok: Ok(((), ())) |".to_owned(),
            Stands::Skipped => format!("ok: Skipped({text:?}) |"),
            Stands::Pending => format!("ok: Pending({text:?}) |"),
            Stands::Failed => format!("ok: Failed({text:?}) |"),
        };
        check(&jobs, |ci| of(ci, "a").pair(of(ci, "b")).state().map(|state| format!("{state:?}")), &expected);
    });
}

#[test]
fn wait_for_has_its_own_words() {
    each_two(|a, b| {
        let jobs = [("a", a), ("b", b)];
        let expected = match a.max(b) {
            Stands::Ok => "ok:  |",
            Stands::Skipped if a == Stands::Skipped => "skipped: a skipped |",
            Stands::Skipped => "skipped: b skipped |",
            Stands::Pending => "pending: soon |",
            Stands::Failed => "failed: broken |",
        };
        let pair = |ci: &Ci| of(ci, "a").pair(of(ci, "b")).wait_for("soon", "broken").map(|()| "");
        check(&jobs, pair, expected);
    });
}

#[test]
fn and_then_associates_and_ok_is_its_identity() {
    each_three(|[a, b, c]| {
        let jobs = [("a", a), ("b", b), ("c", c)];
        let next = |ci: &Ci, job: &'static str| {
            let ci = ci.clone();
            move |text: String| {
                let text = format!("{text}{job}");
                of(&ci, job).map(move |()| text.clone())
            }
        };
        let start = |ci: &Ci| next(ci, "a")(String::new());
        let left = seen(&jobs, |ci| start(ci).and_then(next(ci, "b")).and_then(next(ci, "c")));
        let right = seen(&jobs, |ci| {
            let (second, third) = (next(ci, "b"), next(ci, "c"));
            let third = std::rc::Rc::new(third);
            start(ci).and_then(move |text| {
                let third = third.clone();
                second(text).and_then(move |text| third(text))
            })
        });
        assert_eq!(left, right);
        assert_eq!(seen(&jobs, start), seen(&jobs, |ci| start(ci).and_then(Term::ok)));
        assert_eq!(seen(&jobs, start), seen(&jobs, |ci| Term::ok(String::new()).and_then(next(ci, "a"))));
    });
}

#[test]
fn what_stands_behind_and_then_is_not_asked_too_early() {
    let term = |ci: &Ci| {
        let inner = ci.clone();
        of(ci, "a").and_then(move |()| of(&inner, "b")).map(|()| "both")
    };
    let asks = |a, expected: &str| check(&[("a", a), ("b", Stands::Pending)], term, expected);
    asks(Stands::Pending, "pending: Waiting for a | logs a | asks a");
    asks(Stands::Failed, "failed: a failed | logs a | asks ");
    asks(Stands::Ok, "pending: Waiting for b | logs a b | asks b");
}

#[test]
fn both_sides_of_a_pair_are_asked_at_once() {
    let jobs = [("a", Stands::Pending), ("b", Stands::Pending)];
    let expected = "pending: Waiting for a | logs a b | asks a b";
    check(&jobs, |ci| of(ci, "b").pair(of(ci, "a")).map(|_| ""), expected);
}

#[test]
fn logs_can_be_left_out() {
    let jobs = [("a", Stands::Failed), ("b", Stands::Ok)];
    let term = |ci: &Ci| of(ci, "a").without_logs().pair(of(ci, "b")).map(|_| "");
    check(&jobs, term, "failed: a failed | logs b | asks ");
}

#[test]
fn plain_terms_and_their_reasons() {
    check(&[], |_| Term::ok("fine"), "ok: fine |");
    check(&[], |_| Term::<String>::fail("no"), "failed: no |");
    check(&[], |_| Term::<String>::pending("a queue"), "pending: a queue |");
    check(&[], |_| Term::<String>::skipped("not here"), "skipped: not here |");
    let both = |_: &Ci| Term::<u8>::pending("a queue").pair(Term::<u8>::fail("no")).map(|_| "");
    check(&[], both, "failed: no (still: a queue) |");
    check(&[], |_| Term::ok(1).state().map(|state| format!("{}", state == TermState::Ok(1))), "ok: true |");
}

#[test]
fn a_closure_that_panics_is_a_failure() {
    let term = |_: &Ci| Term::ok(1).map(|number: u8| if number == 1 { panic!("one is wrong") } else { number });
    check(&[], term, "failed: one is wrong |");
    let term = |_: &Ci| Term::ok(1).and_then(|_: u8| -> Term<u8> { panic!("{} is wrong", 1) });
    check(&[], term, "failed: 1 is wrong |");
}

#[test]
fn terms_add_no_jobs() {
    let ci = pipeline(&[]);
    let inner = ci.clone();
    ci.status("it", Term::ok(()).map(move |()| inner.job("late").name()));
    ci.look_at_statuses();
    let shared = ci.shared.borrow();
    let messages: Vec<&str> = shared.diagnostics.iter().filter_map(|it| it.get("message")?.as_str()).collect();
    assert_eq!(messages, ["a term adds the job `late`"]);
}

#[test]
fn a_status_stands_once() {
    let ci = pipeline(&[]);
    ci.status("it", Term::ok(1));
    ci.status("it", Term::ok(2));
    let shared = ci.shared.borrow();
    let messages: Vec<&str> = shared.diagnostics.iter().filter_map(|it| it.get("message")?.as_str()).collect();
    assert_eq!(messages, ["the status `it` is there twice"]);
}

#[test]
fn what_has_no_value_can_be_shown() {
    let said = |stands: Stands| {
        let ci = pipeline(&[("a", stands)]);
        ci.status("all", Term::wait_for_all([("A", of(&ci, "a"))]));
        ci.status("one", of(&ci, "a").wait_for("not yet", "no"));
        ci.look_at_statuses();
        let shared = ci.shared.borrow();
        let text = |name: &str, key: &str| shared.statuses[name].get(key).and_then(Json::as_str).map(str::to_owned);
        ["all", "one"].map(|name| (text(name, "state").unwrap(), text(name, "text")))
    };
    assert_eq!(said(Stands::Ok), [("ok".to_owned(), None), ("ok".to_owned(), None)]);
    let failed = |text: &str| ("failed".to_owned(), Some(text.to_owned()));
    assert_eq!(said(Stands::Failed), [failed("A failed"), failed("no")]);
}

#[test]
fn a_matrix_has_no_value() {
    let matrix = || crate::Matrix::new().axis("os", ["a", "b"]);
    let answers = [("m", r#"{"outcome":"passed","outputs":{"value":"{}"}}"#), ("n", r#"{"outcome":"passed"}"#)];
    let answer = |(job, outcome): (&str, &str)| {
        (outcome_of(job).to_string(), Json::object([("outcome", Json::read(outcome).unwrap())]))
    };
    let ci = Ci::new(Json::Null, answers.map(answer).into(), Vec::new());
    ci.status("value", ci.job("m").matrix(matrix()).run_fn(|_, ()| Ok(1_u8)).term());
    ci.status("none", ci.job("n").matrix(matrix()).run("true").term());
    ci.look_at_statuses();
    let statuses = &ci.shared.borrow().statuses;
    assert_eq!(statuses["none"].get("state"), Some(&"ok".into()));
    assert_eq!(statuses["value"].get("state"), Some(&"failed".into()));
    assert!(statuses["value"].get("text").unwrap().to_string().contains("each of its legs"), "{:?}", statuses["value"]);
}
