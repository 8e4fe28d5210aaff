//! What steps print, as a terminal would show a line of it: colours, links, and progress bars that have written over
//! themselves. Every line stands alone, so that any range of a log reads the same, but for blocks of rows that are drawn again and again
//! ([`redraw`]).

use maud::{Markup, html};

mod picture;
mod redraw;
mod screen;

pub(crate) use redraw::{AHEAD, Drawing, drawings};
use screen::{Moves, Screen};

/// The most letters of a line that are shown; the rest is in the raw log.
pub const LETTERS_MAX: usize = 10_000;

/// How a letter looks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Style {
    foreground: Option<u8>,
    background: Option<u8>,
    is_bold: bool,
    is_dim: bool,
    is_italic: bool,
    is_underlined: bool,
    is_inverse: bool,
    /// Into the line's links, from 1.
    link: usize,
    /// Into the pictures, from 1: one stands in place of the letter.
    picture: usize,
}

impl Style {
    fn is_plain(&self) -> bool {
        *self == Self::default()
    }

    fn classes(&self) -> String {
        let mut classes: Vec<String> = Vec::new();
        let (foreground, background) =
            if self.is_inverse { (self.background, self.foreground) } else { (self.foreground, self.background) };
        classes.extend(foreground.map(|colour| format!("f{colour}")));
        classes.extend(background.map(|colour| format!("b{colour}")));
        let flags = [
            (self.is_bold, "bold"),
            (self.is_dim, "dim"),
            (self.is_italic, "italic"),
            (self.is_underlined, "under"),
            (self.is_inverse && foreground.is_none() && background.is_none(), "inverse"),
        ];
        classes.extend(flags.into_iter().filter(|(is, _)| *is).map(|(_, class)| class.to_owned()));
        classes.join(" ")
    }
}

/// One line of a log as HTML. Nothing of the text is taken for HTML.
#[must_use]
pub fn line(text: &str) -> Markup {
    if !text.bytes().any(|byte| byte < 0x20) {
        return plain(text);
    }
    let mut screen = Screen::new(Moves::WithinLines);
    screen.write(text);
    let row = screen.finish_line();
    screen.row(row).map(|row| screen.markup(row)).unwrap_or_default()
}

fn plain(text: &str) -> Markup {
    match text.char_indices().nth(LETTERS_MAX) {
        None => linked(text),
        Some((end, _)) => html! { (linked(&text[..end])) (cut_mark()) },
    }
}

/// A text in which addresses of the web are links.
fn linked(text: &str) -> Markup {
    if !text.contains("://") {
        return html! { (text) };
    }
    let mut parts: Vec<(&str, Option<&str>)> = Vec::new();
    let mut rest = text;
    while let Some((before, address, after)) = next_address(rest) {
        parts.push((before, Some(address)));
        rest = after;
    }
    html! {
        @for (before, address) in parts {
            (before)
            @if let Some(address) = address { a href=(address) rel="noreferrer noopener nofollow" { (address) } }
        }
        (rest)
    }
}

/// What stands before the first address, it, and what stands behind it.
fn next_address(text: &str) -> Option<(&str, &str, &str)> {
    let starts = ["https://", "http://"].into_iter().filter_map(|scheme| Some((text.find(scheme)?, scheme.len())));
    let (start, scheme) = starts.min()?;
    let end_of = |letter: char| letter.is_whitespace() || letter.is_control() || "<>\"'`|\\^{}".contains(letter);
    let end = text[start..].find(end_of).map_or(text.len(), |length| start + length);
    // What ends a sentence, or the bracket around the address, is not of it.
    let mut address = text[start..end].trim_end_matches(['.', ',', ';', ':', '!', '?', '*']);
    for (open, close) in [('(', ')'), ('[', ']')] {
        while address.ends_with(close) && !address.contains(open) {
            address = address[..address.len() - 1].trim_end_matches(['.', ',', ';', ':', '!', '?']);
        }
    }
    if address.len() <= scheme {
        let behind = start + scheme;
        // A scheme alone is text; what comes after it may hold an address.
        return next_address(&text[behind..])
            .map(|(before, address, after)| (&text[..behind + before.len()], address, after));
    }
    Some((&text[..start], address, &text[start + address.len()..]))
}

fn cut_mark() -> Markup {
    html! { span.note.cut title="the raw log has the rest" { "… cut here" } }
}

fn low(code: u16) -> Option<u8> {
    u8::try_from(code).ok()
}

/// A colour of 256, or the nearest of them to one of red, green and blue (ITU-T T.416, as xterm reads it).
fn extended(codes: &mut impl Iterator<Item = u16>) -> Option<u8> {
    match codes.next()? {
        5 => low(codes.next()?),
        2 => {
            let mut level = || Some(codes.next()?.min(255) as usize);
            let [red, green, blue] = [level()?, level()?, level()?];
            // The cube's levels are 0, 95, 135, 175, 215, 255.
            let step = |value: usize| if value < 48 { 0 } else { (value.max(75) - 35) / 40 };
            low((16 + 36 * step(red) + 6 * step(green) + step(blue)) as u16)
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, html: &str) {
        assert_eq!(line(text).into_string(), html, "{text:?}");
    }

    #[test]
    fn a_line_reads_as_on_a_terminal() {
        check("plain <b>&</b>", "plain &lt;b&gt;&amp;&lt;/b&gt;");
        check("\x1b[31mred\x1b[0m <i>", "<span class=\"f1\">red</span> &lt;i&gt;");
        check("\x1b[1;92mok\x1b[m.", "<span class=\"f10 bold\">ok</span>.");
        check("\x1b[38;5;208mx", "<span class=\"f208\">x</span>");
        check("\x1b[38;2;255;0;0mx", "<span class=\"f196\">x</span>");
        check("\x1b[7mx", "<span class=\"inverse\">x</span>");
        check("\x1b[31;7mx", "<span class=\"b1\">x</span>");
        check("\x1b(Bplain\x1b[m \x1b)0a\x1b#8b\x1b%Gc\x1b$(Cd\x1b([e", "plain abcde");
    }

    #[test]
    fn progress_bars_show_their_end() {
        check("10 %\r55 %\r100 %", "100 %");
        check("long text\rshort\x1b[K", "short");
        check("a\tb", "a       b");
        check("abc\x08\x08X", "aXc");
    }

    #[test]
    fn links_lead_to_the_web_alone() {
        check(
            "\x1b]8;;https://example.org/a\"b\x1b\\here\x1b]8;;\x1b\\.",
            "<a class=\"\" href=\"https://example.org/a&quot;b\" rel=\"noreferrer noopener nofollow\">here</a>.",
        );
        check("\x1b]8;;javascript:alert(1)\x07x\x1b]8;;\x07", "x");
    }

    #[test]
    fn addresses_are_links() {
        let link = |address: &str| format!("<a href=\"{address}\" rel=\"noreferrer noopener nofollow\">{address}</a>");
        let one = link("https://example.org/a?b=c");
        check("see https://example.org/a?b=c.", &format!("see {one}."));
        check("(https://example.org/a?b=c)", &format!("({one})"));
        check("\x1b[31mhttps://example.org/a?b=c\x1b[0m", &format!("<span class=\"f1\">{one}</span>"));
        check("http://a/(b) http://c", &format!("{} {}", link("http://a/(b)"), link("http://c")));
        check("http:// and https://", "http:// and https://");
        check("http:// https://x", &format!("http:// {}", link("https://x")));
        check("http://a\"onclick=b", &format!("{}&quot;onclick=b", link("http://a")));
        check("javascript://x", "javascript://x");
    }

    #[test]
    fn hostile_lines_stay_small() {
        assert!(line(&"http://".repeat(1000)).into_string().len() < 1 << 16);
        assert!(line(&"x".repeat(1 << 20)).into_string().len() < 2 * LETTERS_MAX);
        assert!(line("\x1b[999999999C!").into_string().len() < 2 * LETTERS_MAX);
        assert!(line(&"\x1b[31m".repeat(100_000)).into_string().is_empty());
        assert!(line(&"a\t".repeat(100_000)).into_string().len() < 2 * LETTERS_MAX);
    }
}
