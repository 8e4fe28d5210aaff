//! Markdown that steps wrote, as HTML of ours: headings, lists, tables, code, links. Nothing of what they wrote is taken for HTML,
//! no link leads anywhere but to the web, and pictures are links, since pages load nothing from elsewhere.

use std::fmt::Write;

use maud::{Escaper, Markup, PreEscaped};
use pulldown_cmark::{Event, Options, Parser, Tag, TagEnd};

/// The most bytes of one text that are rendered; the rest is left out.
pub(crate) const BYTES_MAX: usize = 64 * 1024;
/// How deep lists and quotes may be nested; what is deeper stands at this depth.
const DEPTH_MAX: usize = 16;

/// The text, rendered. Says whether all of it was.
pub(crate) fn rendered(text: &str) -> (Markup, Extent) {
    let mut end = text.len().min(BYTES_MAX);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let options = Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    let mut writer = Writer::default();
    for event in Parser::new_ext(&text[..end], options) {
        writer.take(event);
    }
    (PreEscaped(writer.html), if end == text.len() { Extent::Whole } else { Extent::Cut })
}

/// How much of a text was rendered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// All of it.
    Whole,
    /// Its first [`BYTES_MAX`] bytes.
    Cut,
}

#[derive(Default)]
struct Writer {
    html: String,
    /// How each element that is open ends; empty for one that was not written.
    open: Vec<&'static str>,
    /// Whether cells are those of a table's head.
    in_head: bool,
    /// The levels of the headings under which we are, the outermost first.
    headings: Vec<u8>,
}

impl Writer {
    fn take(&mut self, event: Event) {
        match event {
            Event::Start(tag) => self.start(&tag),
            Event::End(tag) => self.end(tag),
            Event::Code(code) => {
                self.html.push_str("<code>");
                self.text(&code);
                self.html.push_str("</code>");
            }
            Event::Text(text)
            | Event::Html(text)
            | Event::InlineHtml(text)
            | Event::InlineMath(text)
            | Event::DisplayMath(text)
            | Event::FootnoteReference(text) => self.text(&text),
            Event::SoftBreak => self.html.push('\n'),
            Event::HardBreak => self.html.push_str("<br>"),
            Event::Rule => self.html.push_str("<hr>"),
            Event::TaskListMarker(done) => self.html.push_str(if done { "☑ " } else { "☐ " }),
        }
    }

    fn text(&mut self, text: &str) {
        // Writing to a string cannot fail.
        let _ = Escaper::new(&mut self.html).write_str(text);
    }

    fn element(&mut self, start: &str, end: &'static str) {
        // Browsers do not nest without end, so neither do we.
        let is_deep = self.open.len() >= DEPTH_MAX;
        self.html.push_str(if is_deep { "" } else { start });
        self.open.push(if is_deep { "" } else { end });
    }

    fn start(&mut self, tag: &Tag) {
        match tag {
            Tag::Paragraph => self.element("<p>", "</p>"),
            Tag::Heading { level, .. } => match self.depth(*level as u8) {
                0 => self.element("<h3>", "</h3>"),
                1 => self.element("<h4>", "</h4>"),
                _ => self.element("<h5>", "</h5>"),
            },
            Tag::BlockQuote(_) => self.element("<blockquote>", "</blockquote>"),
            Tag::CodeBlock(_) => self.element("<pre><code>", "</code></pre>"),
            Tag::List(None) => self.element("<ul>", "</ul>"),
            Tag::List(Some(first)) => self.element(&format!("<ol start=\"{first}\">"), "</ol>"),
            Tag::Item => self.element("<li>", "</li>"),
            Tag::Table(_) => self.element("<div class=\"wide-table\"><table class=\"list\">", "</table></div>"),
            Tag::TableHead => {
                self.in_head = true;
                self.element("<thead><tr>", "</tr></thead>");
            }
            Tag::TableRow => self.element("<tr>", "</tr>"),
            Tag::TableCell if self.in_head => self.element("<th>", "</th>"),
            Tag::TableCell => self.element("<td>", "</td>"),
            Tag::Emphasis => self.element("<em>", "</em>"),
            Tag::Strong => self.element("<strong>", "</strong>"),
            Tag::Strikethrough => self.element("<s>", "</s>"),
            Tag::Link { dest_url, .. } | Tag::Image { dest_url, .. } => self.link(dest_url),
            // HTML stands as text; the others are not asked for.
            _ => self.open.push(""),
        }
    }

    /// In how many others a heading of this level stands. The page has the levels above, and none is left out between them:
    /// people begin with any.
    fn depth(&mut self, level: u8) -> usize {
        self.headings.retain(|above| *above < level);
        self.headings.push(level);
        self.headings.len() - 1
    }

    /// A link to the web; any other is its text alone.
    fn link(&mut self, to: &str) {
        let scheme = to.split_once(':').map(|(scheme, _)| scheme.to_ascii_lowercase());
        if self.open.len() >= DEPTH_MAX || !matches!(scheme.as_deref(), Some("http" | "https")) {
            self.open.push("");
            return;
        }
        self.html.push_str("<a rel=\"nofollow noopener noreferrer\" href=\"");
        self.text(to);
        self.html.push_str("\">");
        self.open.push("</a>");
    }

    fn end(&mut self, tag: TagEnd) {
        if tag == TagEnd::TableHead {
            self.in_head = false;
        }
        self.html.push_str(self.open.pop().unwrap_or_default());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, html: &str) {
        assert_eq!(rendered(text).0.0, html);
    }

    #[test]
    fn what_people_write() {
        check("# A\n\nb *c* `d<`", "<h3>A</h3><p>b <em>c</em> <code>d&lt;</code></p>");
        check("## A\n\n#### B\n\n## C\n\n# D", "<h3>A</h3><h4>B</h4><h3>C</h3><h3>D</h3>");
        check("- [x] a\n- b", "<ul><li>☑ a</li><li>b</li></ul>");
        check(
            "| a |\n|:-:|\n| b |",
            "<div class=\"wide-table\"><table class=\"list\"><thead><tr><th>a</th></tr></thead><tr><td>b</td></tr></table></div>",
        );
        check(
            "[a](https://a.b/?c&d)",
            "<p><a rel=\"nofollow noopener noreferrer\" href=\"https://a.b/?c&amp;d\">a</a></p>",
        );
        check("```rust\n<x>\n```", "<pre><code>&lt;x&gt;\n</code></pre>");
    }

    #[test]
    fn nothing_of_it_is_taken_for_html() {
        check("<img src=x onerror=alert(1)>", "&lt;img src=x onerror=alert(1)&gt;");
        check("a <b onclick=x>c</b>", "<p>a &lt;b onclick=x&gt;c&lt;/b&gt;</p>");
        check("[a](javascript:alert(1)) [b](/sign-out) [c](JaVaScript:x)", "<p>a b c</p>");
        check(
            "[a](https://x/\"onmouseover=\"alert(1))",
            "<p><a rel=\"nofollow noopener noreferrer\" href=\"https://x/&quot;onmouseover=&quot;alert(1)\">a</a></p>",
        );
        check("![p](data:text/html,x)", "<p>p</p>");
        check(
            "<https://a.b/\u{22}><x>",
            "<p><a rel=\"nofollow noopener noreferrer\" href=\"https://a.b/&quot;\">https://a.b/&quot;</a>&lt;x&gt;</p>",
        );
    }

    #[test]
    fn bounds_hold() {
        let (html, extent) = rendered(&"é".repeat(BYTES_MAX));
        assert_eq!(extent, Extent::Cut);
        assert!(html.0.len() <= BYTES_MAX + 16);
        let (html, _) = rendered(&">".repeat(5_000));
        assert!(html.0.matches("<blockquote>").count() <= DEPTH_MAX, "{}", html.0.len());
        assert_eq!(html.0.matches("<blockquote>").count(), html.0.matches("</blockquote>").count());
    }
}
