//! What could not be shown or done, and what to do about it.

use api::problem::Problem;
use maud::html;

use crate::page::{Document, Head, document};
use crate::words;

/// Writes the page. `back` is the path of the page from which something was refused, if that is known.
#[must_use]
pub fn show(problem: &Problem, back: Option<&str>) -> Document {
    let main = html! {
        section.refusal {
            h1.sentence { (problem.title) }
            @if !problem.detail.is_empty() { p { (words::marked(&problem.detail)) } }
            @for field in &problem.fields { p { code { (field.name) } " " (words::marked(&field.detail)) } }
            @if !problem.help.is_empty() { p { strong { "What to do: " } (words::marked(&problem.help)) } }
            @if problem.status >= 500 && !problem.request.is_empty() { p.quiet { "In the server's log this is request " code { (problem.request) } "." } }
            p.ways { @if let Some(back) = back { a href=(back) { "Go back" } } a href="/" { "All projects" } }
        }
    };
    let written = document(&Head { title: &problem.title, crumbs: Vec::new(), stream: None }, &main);
    Document { status: problem.status, ..written }
}

#[cfg(test)]
mod tests {
    use api::problem::ProblemKind;

    use super::*;

    #[test]
    fn the_servers_log_is_named_where_it_has_the_call() {
        for (kind, expected) in
            [(ProblemKind::Internal, true), (ProblemKind::Unavailable, true), (ProblemKind::NotFound, false)]
        {
            let problem = Problem { request: "r1".to_owned(), ..Problem::new(kind, "") };
            assert_eq!(
                show(&problem, None).text.contains("In the server's log this is request <code>r1</code>"),
                expected,
                "{kind:?}"
            );
        }
    }
}
