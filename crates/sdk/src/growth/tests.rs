//! What grows, from answers: jobs with what they need, holes, questions, and what is wrong.

use std::fmt::Write;

use super::{Ended, State, outcome_of};
use crate::ci::Ci;
use crate::data::Schema;
use crate::inputs::Output;
use crate::json::Json;

/// An answer to how `job` ended, from the JSON of the outcome without its outer braces.
fn ended(job: &str, outcome: &str) -> (String, Json) {
    let outcome = Json::read(&format!("{{{outcome}}}")).unwrap();
    (outcome_of(job).to_string(), Json::object([("outcome", outcome)]))
}

/// The job passed, and handed on these texts.
fn passed(job: &str, outputs: &[(&str, &str)]) -> (String, Json) {
    let outputs = outputs.iter().map(|(name, value)| (name.to_string(), Json::from(*value))).collect();
    let answer = ended(job, r#""outcome":"passed""#);
    let Json::Object(mut outer) = answer.1 else { unreachable!() };
    let Json::Object(outcome) = &mut outer[0].1 else { unreachable!() };
    outcome.push(("outputs".to_owned(), Json::Object(outputs)));
    (answer.0, Json::Object(outer))
}

fn failed(job: &str) -> (String, Json) {
    ended(job, r#""outcome":"failed","cause":"step","step":1,"exit":7"#)
}

fn skipped(job: &str) -> (String, Json) {
    ended(job, r#""outcome":"skipped","reason":"need","because":"x""#)
}

/// What an evaluation came to, a line each.
fn grown(pipeline: impl FnOnce(&Ci), answers: &[(String, Json)]) -> String {
    let ci = Ci::new(Json::Null, answers.iter().cloned().collect(), vec![0]);
    pipeline(&ci);
    let mut shared = ci.shared.borrow_mut();
    let mut out = String::new();
    for job in &shared.jobs {
        let mut needs: Vec<String> = Vec::new();
        for need in &job.needs {
            let kind = if need.ending == "success" { String::new() } else { format!("({})", need.ending) };
            needs.extend(shared.needed_names(need).iter().map(|name| format!("{name}{kind}")));
        }
        let when = job.settings.get("when").map(|when| format!(" when {when}")).unwrap_or_default();
        let _ = writeln!(out, "{}: {}{when}", job.name, needs.join(" "));
    }
    for hole in shared.holes() {
        let after: Vec<&str> =
            hole.get("after").map(Json::items).unwrap_or_default().iter().filter_map(Json::as_str).collect();
        let _ = writeln!(out, "hole {} after {}", hole.get("name").unwrap(), after.join(" "));
    }
    for question in shared.questions.values() {
        let _ = writeln!(out, "asks {}", question.get("outcome").unwrap());
    }
    for diagnostic in &shared.diagnostics {
        let _ = writeln!(out, "error {}", diagnostic.get("message").unwrap());
    }
    out.replace("  ", " ").replace(" \n", "\n")
}

#[track_caller]
fn check(pipeline: impl FnOnce(&Ci), answers: &[(String, Json)], expected: &str) {
    let expected: String = expected.lines().map(|line| format!("{}\n", line.trim())).collect();
    assert_eq!(grown(pipeline, answers), expected.trim_start());
}

fn list(ci: &Ci, job: &str) -> Output<Vec<String>> {
    ci.job(job).run("…").output("list")
}

fn deploys(ci: &Ci) {
    let grown = ci.then(list(ci, "plan"), |ci, names| names.iter().map(|name| ci.job(name)).collect::<Vec<_>>());
    ci.job("end").needs(&grown);
}

#[test]
fn a_hole_until_the_value_is_there() {
    check(deploys, &[], "plan:\nend: then:plan\nhole \"then:plan\" after plan\nasks \"plan\"");
    check(deploys, &[passed("plan", &[("list", r#"["a","b"]"#)])], "plan:\na:\nb:\nend: a b");
    check(deploys, &[passed("plan", &[("list", "[]")])], "plan:\nend:");
}

#[test]
fn what_cannot_grow_skips_those_who_need_it() {
    check(deploys, &[failed("plan")], "plan:\nend: plan");
    check(deploys, &[skipped("plan")], "plan:\nend: plan");
    let after_all = |ci: &Ci| {
        let grown = ci.then(list(ci, "plan"), |_, _| ());
        ci.job("report").after_finished(&grown);
    };
    check(after_all, &[failed("plan")], "plan:\nreport: plan(finished)");
}

#[test]
fn a_value_that_does_not_decode_is_told_at_its_place() {
    let expected = "plan:\nend: plan\nerror \"the value that is waited for here cannot be read: .plan: ";
    let check = |answer, rest: &str| check(deploys, &[answer], &format!("{expected}{rest}\""));
    check(passed("plan", &[]), "the job `plan` handed on no `list`");
    check(passed("plan", &[("list", "7")]), "a list was expected, a number came");
}

#[test]
fn a_value_of_another_build_is_told() {
    let pipeline = |ci: &Ci| {
        let pick = ci.job("pick").run_fn(|_, ()| Ok(1_u8));
        ci.then(&pick, |ci, number| drop(ci.job(format!("n{number}"))));
    };
    let value = |schema: &str| format!(r#"{{"schema":"{schema}","value":5}}"#);
    let ours = value(&Schema::of::<u8>().digest());
    check(pipeline, &[passed("pick", &[("value", &ours)])], "pick:\nn5:");
    let message = "the value was made by another build of the program, with another type";
    let expected = format!("pick:\nerror \"the value that is waited for here cannot be read: .pick: {message}\"");
    check(pipeline, &[passed("pick", &[("value", &value("0"))])], &expected);
}

#[derive(crate::Data)]
struct Measured {
    value: String,
    unit: String,
}

#[test]
fn a_field_named_value_is_read_as_any_other() {
    let measured = Measured { value: "42".to_owned(), unit: "kg".to_owned() };
    let schema = Schema::of::<Measured>().digest();
    let whole = format!(r#"{{"schema":"{schema}","value":{}}}"#, crate::Data::to_json(&measured));
    let handed_on = || passed("weigh", &[("value", &whole), ("unit", "kg")]);
    let weigh =
        |ci: &Ci| ci.job("weigh").run_fn(|_, ()| Ok(Measured { value: "42".to_owned(), unit: "kg".to_owned() }));
    let field = |ci: &Ci| {
        ci.then(weigh(ci).output::<String>("value"), |ci, value| drop(ci.job(format!("n{value}"))));
    };
    check(field, &[handed_on()], "weigh:\nn42:");
    // The whole is read by what it is.
    let whole = |ci: &Ci| {
        ci.then(weigh(ci).output("value"), |ci, all: Measured| drop(ci.job(all.unit + &all.value)));
    };
    check(whole, &[handed_on()], "weigh:\nkg42:");
    let pick = |ci: &Ci| drop(ci.job("pick").run_fn(|_, ()| Ok(1_u8)).output::<String>("value"));
    check(pick, &[], "pick:\nerror \"the function of `pick` returns another type than its `value` is read as here\"");
    let ci = Ci::new(Json::Null, std::collections::HashMap::new(), vec![0]);
    let term = weigh(&ci).output::<String>("value").path();
    assert_eq!(term, "fromJSON(needs.weigh.outputs.value).value.value");
}

#[test]
fn an_answer_that_nobody_knows_is_told() {
    let unknown = (outcome_of("plan").to_string(), Json::object([("unknown", "there is no job `plan`".into())]));
    let expected = "plan:\nerror \"how `plan` ended is not known: there is no job `plan`\"";
    check(|ci| drop(ci.after(&ci.job("plan"), |_, _| ())), &[unknown], expected);
}

#[test]
fn closures_in_closures() {
    let pipeline = |ci: &Ci| {
        let outer = ci.then(list(ci, "plan"), |ci, names| {
            for name in names {
                let made = list(ci, &name);
                let inner = ci.then(&made, |ci, parts| parts.iter().for_each(|part| drop(ci.job(part))));
                ci.job(format!("{name}-end")).needs(&inner);
            }
        });
        ci.job("end").needs(&outer);
    };
    let plan = passed("plan", &[("list", r#"["a","b"]"#)]);
    check(
        pipeline,
        std::slice::from_ref(&plan),
        "plan:\na:\na-end: then:a\nb:\nb-end: then:b\nend: then:a then:b a a-end b b-end
        hole \"then:a\" after a\nhole \"then:b\" after b\nasks \"a\"\nasks \"b\"",
    );
    check(
        pipeline,
        &[plan, passed("a", &[("list", r#"["a1"]"#)]), failed("b")],
        "plan:\na:\na1:\na-end: a1\nb:\nb-end: b\nend: b a a1 a-end b b-end",
    );
}

#[test]
fn after_sees_every_ending() {
    let pipeline = |ci: &Ci| {
        let build = ci.job("build").run("make");
        ci.after(&build, |ci, ended| {
            let name = match ended {
                Ended::Passed(()) => "passed".to_owned(),
                Ended::Failed { cause, message } => format!("{cause:?} {message}"),
                Ended::Skipped { reason } => format!("skipped {reason}"),
                Ended::Canceled { by } => format!("canceled {by}"),
            };
            drop(ci.job(name));
        });
    };
    let check = |answer, expected: &str| check(pipeline, &[answer], &format!("build:\n{expected}:"));
    check(passed("build", &[]), "passed");
    check(failed("build"), "Step { step: 1, exit: 7 } step 2 ended with exit code 7");
    let cause = |rest: &str| ended("build", &format!(r#""outcome":"failed","cause":{rest}"#));
    check(cause(r#""timeout","limit_ms":90000"#), "Timeout { limit_ms: 90000 } it ran longer than 90 s");
    check(cause(r#""step","step":0,"exit":1,"message":"no tag""#), "Step { step: 0, exit: 1 } no tag");
    check(cause(r#""infra","message":"disk full""#), "Infra disk full");
    check(cause(r#""lost""#), "Lost its worker fell silent");
    check(cause(r#""canceled","by":"ann""#), "canceled ann");
    check(skipped("build"), "skipped because of x");
    let skip = |rest: &str| ended("build", &format!(r#""outcome":"skipped","reason":{rest}"#));
    check(skip(r#""condition","text":"tag v.*""#), "skipped its condition does not hold: tag v.*");
    check(skip(r#""rejected","by":"bob""#), "skipped rejected by bob");
}

#[test]
fn for_each_names_its_jobs_and_gives_a_list() {
    let pipeline = |ci: &Ci| {
        let tests = ci.for_each("test", list(ci, "plan"), |ci, name: String| {
            ci.job(&name).run_fn(move |_, ()| Ok(name.len() as u32))
        });
        ci.job("sum").inputs(&tests).run_fn(|_, counts: Vec<u32>| Ok(counts.iter().sum::<u32>()));
    };
    check(pipeline, &[], "plan:\nsum: test\nhole \"test\" after plan\nasks \"plan\"");
    let plan = passed("plan", &[("list", r#"["a","bb"]"#)]);
    check(pipeline, &[plan], "plan:\ntest/a: plan\ntest/bb: plan\nsum: test/a test/bb test/a test/bb plan");
}

#[test]
fn several_values_and_what_grew_from_others() {
    let pipeline = |ci: &Ci| {
        let first = ci.then(list(ci, "a"), |ci, _| list(ci, "b"));
        let second = ci.then((&first, list(ci, "c")), |ci, (b, c)| drop(ci.job(format!("d{}", b.len() + c.len()))));
        ci.job("end").needs(&second);
    };
    check(
        pipeline,
        &[],
        "a:\nc:\nend: then:a:2\nhole \"then:a\" after a\nhole \"then:a:2\" after a c\nasks \"a\"\nasks \"c\"",
    );
    let one = |job: &str| passed(job, &[("list", "[\"x\"]")]);
    check(pipeline, &[one("a")], "a:\nb:\nc:\nend: then:b\nhole \"then:b\" after b c\nasks \"b\"\nasks \"c\"");
    check(pipeline, &[one("a"), one("b"), one("c")], "a:\nb:\nc:\nd2:\nend: d2");
    check(pipeline, &[failed("a")], "a:\nc:\nend: a c\nasks \"c\"");
}

#[test]
fn conditions_stand_on_every_job_inside() {
    let pipeline = |ci: &Ci| {
        ci.when(crate::condition::branch("main"), |ci| {
            ci.job("a");
            ci.when(crate::condition::changed("src/**"), |ci| ci.job("b"));
            ci.then(list(ci, "plan"), |ci, _| ci.job("c"));
        });
        ci.job("d");
    };
    let main = r#"{"branch":["main"]}"#;
    let both = format!(r#"[{main},{{"changed":["src/**"]}}]"#);
    let plan = passed("plan", &[("list", "[]")]);
    let expected = format!("a: when [{main}]\nb: when {both}\nplan: when [{main}]\nc: when [{main}]\nd:");
    check(pipeline, &[plan], &expected);
}

#[test]
fn loops_name_jobs_by_their_values() {
    let pipeline = |ci: &Ci| {
        let jobs = ci.matrix("test", [("linux", 1), ("mac os", 2)], |job, (_, shard)| job.env("SHARD", shard));
        ci.group("late", |ci| drop(ci.job("end").needs(jobs)));
    };
    check(pipeline, &[], "test/linux/1:\ntest/mac-os/2:\nlate/end: test/linux/1 test/mac-os/2");
}

#[test]
fn functions_know_the_answers_that_they_depend_on() {
    let plan = passed("plan", &[("list", r#"["a"]"#)]);
    let more = passed("more", &[("list", "[]")]);
    let ci = Ci::new(Json::Null, [plan, more].into_iter().collect(), vec![0]);
    list(&ci, "more");
    let tests = ci.for_each("test", list(&ci, "plan"), |ci, name: String| ci.job(name).run_fn(|_, ()| Ok(1_u8)));
    ci.then(list(&ci, "more2"), |_, _| ());
    ci.job("sum").inputs(&tests).run_fn(|_, _| Ok(()));
    ci.job("free").run_fn(|_, ()| Ok(()));
    let shared = ci.shared.borrow();
    let answered = |job: &str| {
        let steps = shared.jobs[shared.by_name[job]].settings.get("run").unwrap();
        let function = steps.items()[0].get("function").unwrap();
        let names = |key: &str| function.get(key).map(Json::to_string).unwrap_or_default();
        format!("{} {}", names("passed"), names("answers"))
    };
    assert_eq!([answered("test/a"), answered("sum"), answered("free")], [r#"["plan"] []"#, r#"["plan"] []"#, "[] []"]);
}

#[test]
fn what_a_closure_reads_of_the_event_is_for_its_own_jobs() {
    let event = Json::object([
        ("branch", "main".into()),
        ("tag", "v1".into()),
        ("params", Json::object([("x", Json::Int(1))])),
    ]);
    let read = |answers: Vec<(String, Json)>| {
        let ci = Ci::new(event.clone(), answers.into_iter().collect(), vec![0]);
        assert_eq!(ci.event().branch(), Some("main"));
        let function = |ci: &Ci, name: &str| drop(ci.job(name).run_fn(|_, ()| Ok(())));
        function(&ci, "before");
        ci.then(list(&ci, "plan"), |ci, _| {
            assert_eq!(ci.event().param("x"), Ok(1_u8));
            function(ci, "inside");
        });
        function(&ci, "after");
        let shared = ci.shared.borrow();
        let of = |job: &str| {
            let steps = shared.jobs[*shared.by_name.get(job)?].settings.get("run")?;
            steps.items()[0].get("function")?.get("read").map(Json::to_string)
        };
        ["before", "inside", "after"].map(|job| of(job).unwrap_or_default())
    };
    let outside = r#"{"branch":"main"}"#;
    let inside = r#"{"branch":"main","params.x":1}"#;
    assert_eq!(read(vec![passed("plan", &[("list", "[]")])]), [outside, inside, outside]);
    assert_eq!(read(vec![]), [outside, "", outside]);
}

#[test]
fn how_a_job_failed_is_written_into_functions_that_depend_on_it() {
    let ci = Ci::new(Json::Null, [failed("build")].into_iter().collect(), vec![0]);
    ci.after(&ci.job("build").run("make"), |ci, _| ci.job("tell").run_fn(|_, ()| Ok(())));
    let shared = ci.shared.borrow();
    let tell = &shared.jobs[shared.by_name["tell"]];
    let step = tell.settings.get("run").unwrap().items()[0].to_string();
    let answer = r#"[{"outcome":"build"},{"outcome":{"outcome":"failed","cause":"step","step":1,"exit":7}}]"#;
    assert!(step.contains(&format!(r#""passed":[],"answers":[{answer}]"#)), "{step}");
    assert_eq!(tell.needs.len(), 0);
}

#[test]
fn the_order_of_answers_changes_nothing() {
    let pipeline = |ci: &Ci| {
        let a = ci.for_each("a", list(ci, "x"), |ci, name: String| list(ci, &name));
        let b = ci.then((list(ci, "y"), &a), |ci, (more, _)| more.iter().for_each(|name| drop(ci.job(name))));
        ci.after(&ci.job("z"), |ci, _| drop(ci.job("late").needs(&b)));
        ci.job("end").needs((&a, &b));
    };
    let answers = [
        passed("x", &[("list", r#"["1"]"#)]),
        passed("y", &[("list", r#"["2","3"]"#)]),
        passed("a/1", &[("list", "[]")]),
        failed("z"),
    ];
    let jobs = |known: &[(String, Json)]| {
        let ci = Ci::new(Json::Null, known.iter().cloned().collect(), vec![0]);
        pipeline(&ci);
        let shared = ci.shared.borrow();
        let waiting = shared.growths.iter().filter(|growth| growth.state == State::Waiting).count();
        (shared.jobs.iter().map(|job| job.name.to_string()).collect::<Vec<_>>(), waiting)
    };
    let (all, waiting) = jobs(&answers);
    assert_eq!((all.len(), waiting), (8, 0));
    // Every set of answers that can be known on the way: what has grown is there in the end too.
    for known in 0..1_u32 << answers.len() {
        let known: Vec<_> =
            (0..answers.len()).filter(|bit| known >> bit & 1 == 1).map(|bit| answers[bit].clone()).collect();
        let (some, waiting) = jobs(&known);
        assert!(some.iter().all(|job| all.contains(job)), "{some:?}");
        assert_eq!(some.len() == all.len(), waiting == 0, "{some:?}");
    }
}

/// A job that may fail lets others go on, but not those that take what was never there.
#[test]
fn a_forgiven_failure_gives_no_values() {
    let reply = |own: Option<&str>, answers: &[(String, Json)]| {
        let ci = Ci::new(Json::Null, answers.iter().cloned().collect(), vec![0]);
        let plan = ci.job("plan").allow_failure().run("…").output::<Vec<String>>("list");
        let grown = ci.then(plan, |ci, names| {
            names.iter().map(|name| ci.job(name).run("…").output::<String>("out")).collect::<Vec<_>>()
        });
        let takes = ci.job("takes").inputs(&grown).run_fn(|_, _| Ok(()));
        if let Some(own) = own {
            let _ = takes.run_if(own);
        }
        ci.job("follows").needs(&grown).run("…");
        let reply = Json::read(&crate::document::reply(&ci, &[])).unwrap();
        let condition =
            |job: &str| reply.get("document")?.get("jobs")?.get(job)?.get("if")?.as_str().map(str::to_owned);
        (condition("takes"), condition("follows"))
    };
    let passed_only = "needs['plan'].result == 'passed'";
    assert_eq!(reply(None, &[failed("plan")]), (Some(passed_only.to_owned()), None));
    let both = format!("{passed_only} && ( event.branch )");
    assert_eq!(reply(Some("${{ event.branch }}"), &[failed("plan")]), (Some(both), None));
    assert_eq!(reply(None, &[passed("plan", &[("list", "[]")])]), (None, None));
}

#[test]
fn a_matrix_of_functions_has_no_single_value() {
    use crate::words::Matrix;
    let ci = Ci::new(Json::Null, std::collections::HashMap::new(), vec![0]);
    let matrix = || Matrix::new().axis("os", ["a", "b"]);
    let many = ci.job("many").matrix(matrix()).run_fn(|_, ()| Ok(1_u8));
    ci.job("takes").inputs(&many).run_fn(|_, _| Ok(()));
    ci.then(vec![&many], |_, _| ());
    ci.after(&many, |_, _| ());
    // What only waits takes no value, nor does who takes what a step wrote.
    ci.job("waits").needs(&many).run("true");
    let none = ci.job("none").matrix(matrix()).run_fn(|_, ()| Ok(()));
    ci.after(&none, |_, _| ());
    ci.job("follows").inputs(&none).run_fn(|_, ()| Ok(()));
    let written = ci.job("written").matrix(matrix()).run("true").output::<String>("os");
    ci.job("written2").inputs(written).run_fn(|_, _| Ok(()));
    let reply = Json::read(&crate::document::reply(&ci, &[])).unwrap();
    let lines: Vec<String> = reply
        .get("diagnostics")
        .unwrap()
        .items()
        .iter()
        .map(|fault| {
            assert_eq!(fault.get("code"), Some(&"value-of-matrix".into()));
            assert!(fault.get("help").unwrap().to_string().contains("ci.matrix(name, values"), "{fault}");
            assert!(fault.get("message").unwrap().to_string().contains("`many` has a matrix"), "{fault}");
            assert_eq!(fault.get("related").unwrap().items().len(), 1);
            fault.get("@").unwrap().items()[1].to_string()
        })
        .collect();
    let first: u32 = lines[0].parse().unwrap();
    assert_eq!(lines, [first, first + 1, first + 2].map(|line| line.to_string()));
}
