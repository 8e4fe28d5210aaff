//! What a job runs in, told from the graph of its build. No value is evaluated for it, and none of a secret is ever here.

use api::environment::{
    JobEnvironment, NetworkWord, VALUE_BYTES_MAX, VARIABLES_MAX, Variable, VariableFrom, VariableValue,
};
use graph::{Environment, Event, Job, JobName, Network, Text};

/// Variables of Ropewalk whose values are the worker's own (crates/worker, `attempt/environment.rs` and `file_commands.rs`).
const OF_WORKER: [&str; 6] =
    ["ROPEWALK_BINARY", "ROPEWALK_ENV", "ROPEWALK_OUTPUT", "ROPEWALK_PATH", "ROPEWALK_SUMMARY", "ROPEWALK_WORKSPACE"];

/// What a job of a build runs in.
pub fn of(build: graph::BuildId, name: &JobName, job: &Job, event: &Event) -> JobEnvironment {
    let container = job.environment.container();
    let network = match &job.environment {
        Environment::Sandbox { network } => Some(*network),
        _ => container.map(|container| container.network),
    };
    let mut variables = variables(build, name, job, event);
    let more = variables.len() > VARIABLES_MAX;
    variables.truncate(VARIABLES_MAX);
    let said = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    JobEnvironment {
        build,
        job: name.to_string(),
        kind: job.environment.word().to_owned(),
        of: match &job.environment {
            Environment::Image { image: text, .. }
            | Environment::Dockerfile { dockerfile: text, .. }
            | Environment::Nix { nix: text } => said(text.as_written()),
            Environment::Host | Environment::Sandbox { .. } | Environment::Kubernetes { .. } => None,
        },
        network: network.map(|network| match network {
            Network::On => NetworkWord::On,
            Network::Off => NetworkWord::Off,
        }),
        user: container.and_then(|container| said(&container.user)),
        platform: container.and_then(|container| said(&container.platform)),
        services: job.services.iter().map(|(name, service)| (name.clone(), service.image.to_string())).collect(),
        matrix: job.matrix.clone(),
        pool: job.pool.clone(),
        labels: job.wanted_labels().into_iter().collect(),
        cpu_milli: job.resources.cpu_milli,
        memory_bytes: job.resources.memory_bytes,
        timeout_ms: job.timeout_ms,
        variables,
        more,
    }
}

/// What the steps find, in the order in which one counts over the other.
fn variables(build: graph::BuildId, name: &JobName, job: &Job, event: &Event) -> Vec<Variable> {
    let text = |text: &str| VariableValue::Text { text: cut(text) };
    let own = |name: &str, value| Variable { name: name.to_owned(), from: VariableFrom::Ropewalk, step: None, value };
    let build = build.to_string();
    let known = [
        ("CI", Some("true")),
        ("ROPEWALK", Some("true")),
        ("ROPEWALK_BUILD", Some(build.as_str())),
        ("ROPEWALK_JOB", Some(name.as_str())),
        ("ROPEWALK_EVENT", Some(event.kind.name())),
        ("ROPEWALK_BRANCH", event.branch.as_deref()),
        ("ROPEWALK_TAG", event.tag.as_deref()),
        ("ROPEWALK_COMMIT", Some(event.commit.as_str()).filter(|commit| !commit.is_empty())),
    ];
    let mut variables: Vec<Variable> =
        known.into_iter().filter_map(|(name, value)| Some(own(name, text(value?)))).collect();
    variables.extend(OF_WORKER.map(|name| own(name, VariableValue::Worker)));
    let written = |(name, text): (&String, &Text), from, step| Variable {
        name: name.clone(),
        from,
        step,
        value: match text {
            Text::Plain(text) => VariableValue::Text { text: cut(text) },
            Text::Template(text) => VariableValue::Expression { text: cut(text) },
        },
    };
    let whose = |name: &str| match job.env_of_pipeline.contains(name) {
        true => VariableFrom::Pipeline,
        false => VariableFrom::Job,
    };
    variables.extend(job.env.iter().map(|it| written(it, whose(it.0), None)));
    let secret = |name: &String| Variable {
        name: name.clone(),
        from: VariableFrom::Secret,
        step: None,
        value: VariableValue::Secret,
    };
    variables.extend(job.secrets.iter().map(secret));
    for (index, step) in job.steps.iter().enumerate() {
        let index = u16::try_from(index).ok();
        variables.extend(step.env.iter().map(|it| written(it, VariableFrom::Step, index)));
    }
    variables
}

fn cut(text: &str) -> String {
    if text.len() <= VALUE_BYTES_MAX {
        return text.to_owned();
    }
    format!("{}…", &text[..text.floor_char_boundary(VALUE_BYTES_MAX)])
}

#[cfg(test)]
mod tests {
    use graph::{BuildId, EventKind, Step};

    use super::*;

    /// The variables of a job as `name from value`.
    #[track_caller]
    fn check(job: &Job, expected: &[&str]) {
        let event = Event { branch: Some("main".into()), ..Event::new(EventKind::Push) };
        let told = of(BuildId(7), &"a".into(), job, &event);
        let said = |it: &Variable| {
            let step = it.step.map_or_else(String::new, |step| format!(" {step}"));
            format!("{} {:?}{step} {:?}", it.name, it.from, it.value)
        };
        let all: Vec<String> = told.variables.iter().map(said).collect();
        let rest: Vec<&String> = all.iter().filter(|it| !it.contains(" Ropewalk ")).collect();
        assert_eq!(rest, expected);
        assert!(all.contains(&"CI Ropewalk Text { text: \"true\" }".to_owned()), "{all:?}");
        assert!(all.contains(&"ROPEWALK_BRANCH Ropewalk Text { text: \"main\" }".to_owned()), "{all:?}");
        assert!(all.contains(&"ROPEWALK_OUTPUT Ropewalk Worker".to_owned()), "{all:?}");
        assert!(!all.iter().any(|it| it.starts_with("ROPEWALK_TAG")), "{all:?}");
    }

    #[test]
    fn variables_are_told_with_whom_they_are_from() {
        let env = |name: &str, text: Text| [(name.to_owned(), text)].into();
        let step = Step { env: env("C", "3".into()), ..Step::default() };
        let job = Job {
            env: [("A".to_owned(), Text::Template("${{ matrix.n }}".into())), ("B".to_owned(), "2".into())].into(),
            env_of_pipeline: ["B".to_owned()].into(),
            secrets: ["TOKEN".to_owned()].into(),
            steps: vec![Step::default(), step],
            ..Job::default()
        };
        check(
            &job,
            &[
                "A Job Expression { text: \"${{ matrix.n }}\" }",
                "B Pipeline Text { text: \"2\" }",
                "TOKEN Secret Secret",
                "C Step 1 Text { text: \"3\" }",
            ],
        );
    }

    #[test]
    fn long_values_and_many_variables_are_bounded() {
        let long = "é".repeat(VALUE_BYTES_MAX);
        let env = (0..=VARIABLES_MAX).map(|n| (format!("V{n}"), long.as_str().into())).collect();
        let told = of(BuildId(1), &"a".into(), &Job { env, ..Job::default() }, &Event::new(EventKind::Manual));
        assert_eq!((told.variables.len(), told.more), (VARIABLES_MAX, true));
        let VariableValue::Text { text } = &told.variables[VARIABLES_MAX - 1].value else {
            panic!("it stands in the graph")
        };
        assert!(text.ends_with("é…") && text.len() <= VALUE_BYTES_MAX + '…'.len_utf8());
    }
}
