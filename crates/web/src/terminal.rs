//! What steps print, as a terminal would show a line of it: colours, links, and progress bars that have written over
//! themselves. Every line stands alone, so that any range of a log reads the same.

use anstyle_parse::{DefaultCharAccumulator, Params, Parser, Perform};
use maud::{Markup, html};

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

/// A line of a terminal on which something is written.
#[derive(Default)]
struct Line {
    cells: Vec<(char, Style)>,
    column: usize,
    style: Style,
    links: Vec<String>,
    is_cut: bool,
}

/// One line of a log as HTML. Nothing of the text is taken for HTML.
#[must_use]
pub fn line(text: &str) -> Markup {
    if !text.bytes().any(|byte| byte < 0x20) {
        return plain(text);
    }
    let mut line = Line::default();
    let mut parser = Parser::<DefaultCharAccumulator>::new();
    for byte in text.bytes() {
        parser.advance(&mut line, byte);
    }
    line.markup()
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
    html! { span.note title="the raw log has the rest" { "… cut here" } }
}

impl Line {
    fn put(&mut self, letter: char) {
        if self.column >= LETTERS_MAX {
            self.is_cut = true;
            return;
        }
        if self.cells.len() <= self.column {
            self.cells.resize(self.column + 1, (' ', Style::default()));
        }
        self.cells[self.column] = (letter, self.style.clone());
        self.column += 1;
    }

    fn move_to(&mut self, column: usize) {
        self.column = column.min(LETTERS_MAX);
    }

    fn markup(&self) -> Markup {
        let mut runs: Vec<(String, &Style)> = Vec::new();
        for (letter, style) in &self.cells {
            match runs.last_mut() {
                Some((text, last)) if *last == style => text.push(*letter),
                _ => runs.push((letter.to_string(), style)),
            }
        }
        html! {
            @for (text, style) in &runs {
                @if style.is_plain() {
                    (linked(text))
                } @else if let Some(address) = style.link.checked_sub(1).and_then(|index| self.links.get(index)) {
                    a class=(style.classes()) href=(address) rel="noreferrer noopener nofollow" { (text) }
                } @else {
                    span class=(style.classes()) { (linked(text)) }
                }
            }
            @if self.is_cut { (cut_mark()) }
        }
    }

    /// "Select graphic rendition", ECMA-48 8.3.117.
    fn select(&mut self, params: &Params) {
        let mut codes = params.iter().flat_map(<[u16]>::iter).copied();
        if params.is_empty() {
            self.style = Style { link: self.style.link, ..Style::default() };
        }
        while let Some(code) = codes.next() {
            let style = &mut self.style;
            match code {
                0 => *style = Style { link: style.link, ..Style::default() },
                1 => style.is_bold = true,
                2 => style.is_dim = true,
                3 => style.is_italic = true,
                4 => style.is_underlined = true,
                7 => style.is_inverse = true,
                22 => (style.is_bold, style.is_dim) = (false, false),
                23 => style.is_italic = false,
                24 => style.is_underlined = false,
                27 => style.is_inverse = false,
                30..=37 => style.foreground = low(code - 30),
                38 => style.foreground = extended(&mut codes),
                39 => style.foreground = None,
                40..=47 => style.background = low(code - 40),
                48 => style.background = extended(&mut codes),
                49 => style.background = None,
                90..=97 => style.foreground = low(code - 90 + 8),
                100..=107 => style.background = low(code - 100 + 8),
                _ => {}
            }
        }
    }
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

impl Perform for Line {
    fn print(&mut self, letter: char) {
        self.put(letter);
    }

    fn execute(&mut self, byte: u8) {
        match byte {
            b'\r' => self.column = 0,
            0x08 => self.column = self.column.saturating_sub(1),
            b'\t' => {
                let stop = (self.column / 8 + 1) * 8;
                while self.column < stop && !self.is_cut {
                    self.put(' ');
                }
            }
            _ => {}
        }
    }

    fn csi_dispatch(&mut self, params: &Params, intermediates: &[u8], _: bool, action: u8) {
        if !intermediates.is_empty() {
            return;
        }
        let first = params.iter().next().and_then(|param| param.first()).copied().unwrap_or(0);
        let n = usize::from(first.max(1));
        match action {
            b'm' => self.select(params),
            b'C' => self.move_to(self.column.saturating_add(n)),
            b'D' => self.move_to(self.column.saturating_sub(n)),
            b'G' => self.move_to(n - 1),
            b'K' => match first {
                0 => self.cells.truncate(self.column),
                1 => self.cells.iter_mut().take(self.column).for_each(|cell| *cell = (' ', Style::default())),
                _ => self.cells.clear(),
            },
            _ => {}
        }
    }

    fn osc_dispatch(&mut self, params: &[&[u8]], _: bool) {
        if let [b"8", _, address @ ..] = params {
            let address = String::from_utf8_lossy(&address.join(&b';')).into_owned();
            let is_safe = address.starts_with("https://") || address.starts_with("http://");
            if is_safe {
                self.links.push(address);
            }
            self.style.link = if is_safe { self.links.len() } else { 0 };
        }
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
