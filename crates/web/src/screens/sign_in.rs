//! The form for a token: how a browser becomes somebody.

use maud::html;

use crate::Ask;
use crate::page::{Document, alone};

/// Writes the page. `?refused` says why the last token was not taken; `?to` is where one goes afterwards.
#[must_use]
pub(crate) fn show(ask: &Ask) -> Document {
    alone(
        "Sign in",
        &html! {
            form.tall method="post" action="/sign-in" {
                @if !ask.text("refused").is_empty() { p.problem role="alert" { (ask.text("refused")) } }
                label for="token" { "Your token" }
                input #token name="token" type="password" required autofocus autocomplete="current-password" spellcheck="false";
                input type="hidden" name="to" value=(ask.text("to"));
                button.main { "Sign in" }
            }
            details {
                summary { "Where do I get one?" }
                p { "From whoever runs this server. On the server's machine:" }
                pre { code { "ropewalk token create --data DIR --admin" } }
            }
        },
    )
}
