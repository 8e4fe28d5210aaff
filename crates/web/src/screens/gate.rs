//! What a person said at a gate, and where it is asked, for the pages of its build and of its job.

use api::job::GateAnswered;
use maud::{Markup, html};
use serde_json::Value;

use crate::{Ask, paths, words};

/// The id of a gate's form on the page of its build.
pub(crate) fn place(job: &str) -> String {
    format!("gate-{}", paths::encoded(job))
}

/// Who said what and when, with what was filled in: `approved by ada 5 min ago, with region us`.
pub(crate) fn said(answered: &GateAnswered, ask: &Ask) -> Markup {
    let text = |value: &Value| value.as_str().map_or_else(|| value.to_string(), words::first_line);
    let filled = answered.fields.iter().map(|(name, value)| (name, text(value))).filter(|(_, text)| !text.is_empty());
    html! {
        @if answered.approved { "approved by " } @else { "rejected by " } (answered.by) " " (words::ago(answered.at, ask.now))
        @for (index, (name, text)) in filled.enumerate() {
            @if index == 0 { ", with " } @else { ", " } (name) " " code { (text) }
        }
        @if !answered.reason.is_empty() { ": " q { (words::first_line(&answered.reason)) } }
    }
}
