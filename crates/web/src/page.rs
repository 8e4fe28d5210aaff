//! What all pages have: the head, where one is, and the way to the others.

use maud::{DOCTYPE, Markup, html};

use crate::assets;

/// The media type of pages.
pub const HTML: &str = "text/html; charset=utf-8";

/// What a page may load and do: its own files and this server, nothing inline, nothing from elsewhere. Pages of this server alone may
/// show it in a frame: what steps made is given in no origin, so it can frame nothing.
pub const POLICY: &str = "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src 'self' data:; frame-src 'self'; \
                          form-action 'self'; base-uri 'none'; frame-ancestors 'self'";

/// A page, written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// The HTTP status.
    pub status: u16,
    /// HTML.
    pub text: String,
}

/// One link of where one is.
pub struct Crumb {
    /// What it says.
    pub text: String,
    /// Where it leads.
    pub path: String,
}

impl Crumb {
    /// A link.
    pub fn new(text: impl Into<String>, path: impl Into<String>) -> Self {
        Self { text: text.into(), path: path.into() }
    }
}

/// What stands above a page.
pub struct Head<'a> {
    /// In the browser's tab.
    pub title: &'a str,
    /// Where one is, from the top.
    pub crumbs: Vec<Crumb>,
    /// The API's stream after whose events the page's live parts are read again.
    pub stream: Option<String>,
}

/// Which scripts a page loads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scripts {
    /// Those of all pages.
    OfPages,
    /// None.
    None,
}

/// The head of a page of this title.
pub(crate) fn head_of(title: &str, scripts: Scripts) -> Markup {
    html! {
        head {
            meta charset="utf-8";
            meta name="viewport" content="width=device-width, initial-scale=1";
            meta name="color-scheme" content="light dark";
            title { (title) " · Ropewalk" }
            link rel="stylesheet" href=(assets::path("style.css"));
            link rel="stylesheet" href=(assets::path("build.css"));
            link rel="icon" href=(assets::path("icon.svg")) type="image/svg+xml";
            @if scripts == Scripts::OfPages { script type="module" src=(assets::path("page.js")) {} }
        }
    }
}

/// A page for a panel beside another: nothing stands around what it is about.
pub(crate) fn panel(head: &Head, main: &Markup) -> Document {
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            (head_of(head.title, Scripts::OfPages))
            body.panel data-stream=[head.stream.as_deref()] { main #main { (main) } }
        }
    };
    Document { status: 200, text: text.into_string() }
}

/// A page for who is not signed in: the mark, and what is asked of them.
pub(crate) fn alone(title: &str, main: &Markup) -> Document {
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            (head_of(title, Scripts::None))
            body.alone {
                main #main {
                    h1 { img src=(assets::path("icon.svg")) alt="" width="36" height="36"; "Ropewalk" }
                    (main)
                }
            }
        }
    };
    Document { status: 200, text: text.into_string() }
}

/// A page for a screen that hangs on a wall: no way to other pages but its own links.
pub(crate) fn wall(head: &Head, main: &Markup) -> Document {
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            (head_of(head.title, Scripts::OfPages))
            body.wall data-stream=[head.stream.as_deref()] {
                p #stale .stale role="alert" hidden { "Nothing has been heard of the server for a while: what stands here may be old." }
                main #main { (main) }
            }
        }
    };
    Document { status: 200, text: text.into_string() }
}

/// A whole page.
#[must_use]
pub fn document(head: &Head, main: &Markup) -> Document {
    let text = html! {
        (DOCTYPE)
        html lang="en" {
            (head_of(head.title, Scripts::OfPages))
            body data-stream=[head.stream.as_deref()] {
                a.skip href="#main" { "Skip to the content" }
                header.top {
                    nav aria-label="Where you are" {
                        ol {
                            li { a.brand href="/" { "Ropewalk" } }
                            @for crumb in &head.crumbs { li { a href=(crumb.path) { (crumb.text) } } }
                        }
                    }
                    nav aria-label="Everything" {
                        ul {
                            li { a href="/builds" { "Builds" } }
                            li { a href="/queue" { "Queue" } }
                            li { a href="/settings" { "Settings" } }
                            li { form method="post" action="/sign-out" { button.quiet { "Sign out" } } }
                        }
                    }
                }
                main #main { (main) }
                footer { p { "Press " kbd { "?" } " for the keys. What pages show, programs read at " a href="/openapi.json" { "the API" } "." } }
            }
        }
    };
    Document { status: 200, text: text.into_string() }
}
