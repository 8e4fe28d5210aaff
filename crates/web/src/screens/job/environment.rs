//! What a job runs in, and the variables that its steps find: a tab of the job's page. Of secrets it knows only names.

use api::environment::{JobEnvironment, NetworkWord, Variable, VariableFrom, VariableValue};
use api::job::{Attempt, Job};
use api::problem::Problem;
use maud::{Markup, html};

use crate::{Source, paths, read, words};

/// Writes the tab; `attempt` is the one that is looked at, if there is one.
pub(super) async fn show(source: &impl Source, job: &Job, attempt: Option<&Attempt>) -> Result<Markup, Problem> {
    let environment: JobEnvironment =
        read(source, &format!("{}/environment", paths::api_job(job.build, &job.name))).await?;
    Ok(html! {
        section.environment #job-tab data-live aria-label="Environment" {
            h2 { "Where it runs" }
            (place(&environment, attempt))
            h2 { "Variables" }
            p.quiet { "What the pipeline says and Ropewalk adds, beside what the machine or the image has by itself. Where a name stands twice, the later one counts; steps may set more with " code { "$ROPEWALK_ENV" } "." }
            (variables(&environment.variables))
            @if environment.more { p.quiet { "There are more than are listed." } }
        }
    })
}

/// Where the steps run, in words, and the name of what it is made from.
fn kind(environment: &JobEnvironment) -> (&'static str, &str) {
    let of = environment.of.as_deref().unwrap_or_default();
    let words = match environment.kind.as_str() {
        "host" => "processes of the worker's machine, with what is installed there",
        "sandbox" => "a sandbox: processes with namespaces of their own and a read-only system",
        "image" => "a container of the image ",
        "dockerfile" => "a container of an image built from ",
        "nix" => "processes with the development shell of the flake ",
        _ => "a pod",
    };
    (words, of)
}

fn place(environment: &JobEnvironment, attempt: Option<&Attempt>) -> Markup {
    let report = attempt.and_then(|attempt| attempt.ended.as_ref()?.report.as_ref());
    let (words, of) = kind(environment);
    html! {
        dl.pairs {
            dt { "In" } dd { (words) @if !of.is_empty() { code { (of) } } }
            @if let Some(report) = report { @for (reference, digest) in &report.images {
                dt { "Pinned" } dd { code { (reference) } " was " code { (digest) } " for all of this build" }
            } }
            @for (name, image) in &environment.services { dt { "Beside it" } dd { code { (name) } ", of the image " code { (image) } } }
            @if let Some(network) = environment.network { dt { "Network" } dd { @match network { NetworkWord::On => "as the machine's", NetworkWord::Off => "none but its own" } } }
            @if let Some(user) = &environment.user { dt { "User" } dd { code { (user) } } }
            @if let Some(platform) = &environment.platform { dt { "Platform" } dd { code { (platform) } } }
            @for (name, value) in &environment.matrix { dt { "Matrix" } dd { code { (name) " = " @if let Some(text) = value.as_str() { (text) } @else { (value) } } } }
            @if let Some(attempt) = attempt { dt { "Worker" } dd { @if !attempt.worker_name.is_empty() { (attempt.worker_name) " " } code { (attempt.worker) } } }
            dt { "Pool" } dd { @if environment.pool.is_empty() { "the default one" } @else { code { (environment.pool) } } }
            @if !environment.labels.is_empty() { dt { "Labels" } dd { @for (index, label) in environment.labels.iter().enumerate() { @if index > 0 { ", " } code { (label) } } " must all be the worker's" } }
            dt { "Processors" } dd { @if environment.cpu_milli == 0 { "the worker's default" } @else { (cores(environment.cpu_milli)) } }
            dt { "Memory" } dd { @if environment.memory_bytes == 0 { "the worker's default" } @else { (words::size(environment.memory_bytes)) } }
            @if let Some(limit) = environment.timeout_ms { dt { "Time limit" } dd { (words::duration(limit)) } }
        }
    }
}

/// Thousandths of a core as a number of them.
fn cores(milli: u64) -> String {
    let text = format!("{}.{:03}", milli / 1000, milli % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

fn variables(variables: &[Variable]) -> Markup {
    html! {
        div.wide-table role="group" aria-label="Variables" tabindex="0" { table.list.plain {
            thead { tr { th scope="col" { "Name" } th scope="col" { "Value" } th scope="col" { "From" } } }
            tbody { @for variable in variables { tr {
                td { code { (variable.name) } }
                td { (value(&variable.value)) }
                td.quiet { (from(variable)) }
            } } }
        } }
    }
}

fn value(value: &VariableValue) -> Markup {
    html! {
        @match value {
            VariableValue::Text { text } if text.is_empty() => span.quiet { "empty" },
            VariableValue::Text { text } => code { (text) },
            VariableValue::Expression { text } => { code { (text) } " " span.quiet { "evaluated when it starts" } },
            VariableValue::Secret => span.quiet { "secret: shown to nobody" },
            VariableValue::Worker => span.quiet { "known to the worker alone" },
        }
    }
}

fn from(variable: &Variable) -> String {
    match (variable.from, variable.step) {
        (VariableFrom::Ropewalk, _) => "Ropewalk".to_owned(),
        (VariableFrom::Pipeline, _) => "env of the pipeline".to_owned(),
        (VariableFrom::Job, _) => "env of the job".to_owned(),
        (VariableFrom::Secret, _) => "secrets of the job".to_owned(),
        (VariableFrom::Step, Some(step)) => format!("env of step {}", step + 1),
        (VariableFrom::Step, None) => "env of a step".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_told_as_numbers() {
        assert_eq!([500, 1000, 1250, 20_000].map(cores), ["0.5", "1", "1.25", "20"]);
    }

    #[test]
    fn a_secret_has_no_value_and_text_is_text() {
        assert!(value(&VariableValue::Secret).into_string().contains("shown to nobody"));
        let text = VariableValue::Text { text: "<b>".to_owned() };
        assert_eq!(value(&text).into_string(), "<code>&lt;b&gt;</code>");
    }
}
