//! The first administrator: the form behind the link that a fresh server prints, and the token that it makes.

use api::problem::{Problem, ProblemKind};
use maud::html;

use crate::page::{Document, alone};
use crate::words;

/// Writes the form. Looking at it changes nothing; `secret` is what the link brought.
#[must_use]
pub fn show(secret: &str) -> Document {
    alone(
        "The first administrator",
        &html! {
            p { "You open a new server. Its first administrator is made here, once." }
            form.tall method="post" action="/first" {
                label for="name" { "Your name" }
                input #name name="name" required maxlength="100" autofocus autocomplete="username";
                input type="hidden" name="token" value=(secret);
                button.main { "Make my token" }
            }
        },
    )
}

/// Writes what stands there once there is an administrator.
#[must_use]
pub fn is_done() -> Document {
    alone(
        "The first administrator",
        &html! {
            p { "This server has its administrator: sign in, or run this on its machine." }
            pre { code { "ropewalk token create --data DIR --admin" } }
            p { a href="/sign-in" { "Sign in" } }
        },
    )
}

/// Writes what stands behind a link that does not open: used, too old, replaced by a later one, or none at all.
#[must_use]
pub fn link_is_bad() -> Document {
    let text = "This link is not good any more: take the one that the server printed when it last started.";
    alone("The first administrator", &html! { p { (text) } })
}

/// Writes why no administrator was made.
#[must_use]
pub fn refused(problem: &Problem) -> Document {
    let told = match problem.known_kind() {
        Some(ProblemKind::Gone) => is_done(),
        Some(ProblemKind::Forbidden) => link_is_bad(),
        _ => alone(
            "The first administrator",
            &html! {
                h2 { "No administrator was made" }
                p { (words::marked(if problem.detail.is_empty() { &problem.title } else { &problem.detail })) }
                @for field in &problem.fields { p { (words::marked(&format!("`{}`: {}", field.name, field.detail))) } }
                @if !problem.help.is_empty() { p { strong { "What to do: " } (words::marked(&problem.help)) } }
            },
        ),
    };
    Document { status: problem.status, ..told }
}

/// Writes the page that shows the token.
#[must_use]
pub fn made(token: &str) -> Document {
    alone(
        "Your token",
        &html! {
            section.shown-once {
                h2 { "Your token" }
                p { strong { "It is shown this once." } " Keep it where secrets are kept: you sign in with it, and programs send it as " code { "Authorization: Bearer TOKEN" } "." }
                pre { code { (token) } }
                form.tall method="post" action="/sign-in" {
                    input type="hidden" name="token" value=(token);
                    button.main { "Open the pages" }
                }
            }
        },
    )
}
