//! The first administrator: the form behind the link that a fresh server prints, and the token that it makes.

use maud::html;

use crate::page::{Document, alone};

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
