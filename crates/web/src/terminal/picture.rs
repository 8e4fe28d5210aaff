//! Pictures that steps print: iTerm2's `OSC 1337 ; File=…:BASE64` with `inline=1`, and Buildkite's `OSC 1338 ; url=…`. Only kinds that
//! browsers draw and that hold no code are shown; where a picture lies elsewhere, a link leads to it.

use maud::{Markup, html};

/// The most letters of one picture, and of all pictures of a range of lines: as base64.
const LETTERS_MAX: usize = 1 << 20;
const ALL_LETTERS_MAX: usize = 4 << 20;
/// The most letters of a name.
const NAME_MAX: usize = 200;
/// How the kinds that are shown begin, as base64.
const KINDS: [(&str, &str); 4] =
    [("iVBORw0KGgo", "image/png"), ("/9j/", "image/jpeg"), ("R0lGOD", "image/gif"), ("UklGR", "image/webp")];

/// One picture.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Picture {
    name: String,
    place: Place,
}

#[derive(Debug, PartialEq, Eq)]
enum Place {
    /// In the log: its type, and the bytes as base64.
    Here(&'static str, String),
    /// On the web.
    There(String),
    /// Nowhere where a page reaches it; why.
    Nowhere(String),
}

/// The pictures of a range of lines.
#[derive(Default)]
pub(super) struct Pictures {
    list: Vec<Picture>,
    letters: usize,
}

impl Pictures {
    /// Takes the picture of this command, if it is one.
    pub fn take(&mut self, params: &[&[u8]]) -> Option<usize> {
        let mut picture = match params {
            [b"1337", file @ ..] => of_file(&String::from_utf8_lossy(&file.join(&b';')))?,
            [b"1338", fields @ ..] => of_address(fields)?,
            _ => return None,
        };
        if let Place::Here(_, data) = &picture.place {
            if self.letters + data.len() > ALL_LETTERS_MAX {
                picture.place = Place::Nowhere("there are too many to show; the raw log has it".to_owned());
            } else {
                self.letters += data.len();
            }
        }
        self.list.push(picture);
        Some(self.list.len())
    }

    /// The picture of this number, from 1.
    pub fn markup(&self, number: usize) -> Markup {
        let Some(Picture { name, place }) = number.checked_sub(1).and_then(|index| self.list.get(index)) else {
            return html! {};
        };
        let named = if name.is_empty() { "picture" } else { name };
        html! {
            @match place {
                Place::Here(kind, data) => button.picture type="button" title="Show it larger" { img src=(format!("data:{kind};base64,{data}")) alt=""; " " span.note { (named) } },
                Place::There(address) => a href=(address) rel="noreferrer noopener nofollow" { (named) },
                Place::Nowhere(why) => span.note { (named) ": " (why) },
            }
        }
    }
}

/// `File=name=BASE64;size=N;inline=1:BASE64`; one that is to be saved and not shown is told as such.
fn of_file(text: &str) -> Option<Picture> {
    let (fields, data) = text.strip_prefix("File=")?.split_once(':')?;
    let field = |name: &str| fields.split(';').find_map(|field| field.strip_prefix(name)?.strip_prefix('='));
    let name = field("name").map(|name| decoded(name.get(..name.len().min(2 * NAME_MAX)).unwrap_or_default()));
    let name = shown(&name.unwrap_or_default());
    let kind = KINDS.iter().find(|(start, _)| data.starts_with(start)).map(|(_, kind)| *kind);
    let is_base64 = data.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+/=".contains(&byte));
    let place = match kind {
        _ if field("inline") != Some("1") => Place::Nowhere("a file to be saved, in the raw log".to_owned()),
        Some(kind) if is_base64 && data.len() <= LETTERS_MAX => Place::Here(kind, data.to_owned()),
        Some(_) if is_base64 => Place::Nowhere("it is too large to show; the raw log has it".to_owned()),
        _ => Place::Nowhere("neither PNG, JPEG, GIF nor WebP; the raw log has it".to_owned()),
    };
    Some(Picture { name, place })
}

/// `url=ADDRESS;alt=TEXT`, each in quotes or not.
fn of_address(fields: &[&[u8]]) -> Option<Picture> {
    let text = |field: &[u8]| String::from_utf8_lossy(field).into_owned();
    let field = |name: &str| {
        let found = fields.iter().find_map(|field| Some(text(field).strip_prefix(name)?.strip_prefix('=')?.to_owned()));
        found.map(|value| value.trim_matches(['\'', '"']).to_owned())
    };
    let address = field("url")?;
    let name = field("alt").filter(|alt| !alt.is_empty()).unwrap_or_else(|| address.clone());
    let is_of_web = address.starts_with("https://") || address.starts_with("http://");
    let place = match is_of_web {
        true => Place::There(address),
        false => Place::Nowhere(format!("at {}", shown(&address))),
    };
    Some(Picture { name: shown(&name), place })
}

/// What can be shown of a name.
fn shown(name: &str) -> String {
    name.chars().filter(|letter| !letter.is_control()).take(NAME_MAX).collect()
}

/// RFC 4648, as far as it goes.
fn decoded(text: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut bytes = Vec::new();
    let (mut bits, mut count) = (0_u32, 0);
    for value in text.bytes().map_while(|byte| LETTERS.iter().position(|letter| *letter == byte)) {
        bits = bits << 6 | value as u32;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count & 0xff) as u8);
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::super::line;

    #[track_caller]
    fn check(text: &str, html: &str) {
        assert_eq!(line(text).into_string(), html, "{text:?}");
    }

    #[test]
    fn a_picture_stands_in_its_line() {
        check(
            "see \x1b]1337;File=name=PGI+LnBuZw==;size=3;inline=1:iVBORw0KGgoAAAA=\x07 here",
            "see <button class=\"picture\" type=\"button\" title=\"Show it larger\"><img src=\"data:image/png;base64,iVBORw0KGgoAAAA=\" \
             alt=\"\"> <span class=\"note\">&lt;b&gt;.png</span></button> here",
        );
        check(
            "\x1b]1338;url=https://example.org/a.png;alt=a shot\x07",
            "<a href=\"https://example.org/a.png\" rel=\"noreferrer noopener nofollow\">a shot</a>",
        );
    }

    #[test]
    fn what_could_hold_code_is_not_shown() {
        let note = |text: &str| format!("<span class=\"note\">picture: {text}</span>");
        check("\x1b]1337;File=inline=1:PHN2Zz4=\x07", &note("neither PNG, JPEG, GIF nor WebP; the raw log has it"));
        check("\x1b]1337;File=:iVBORw0KGgo\x07", &note("a file to be saved, in the raw log"));
        check(
            "\x1b]1337;File=inline=1:iVBORw0KGgo\" onerror=\x07",
            &note("neither PNG, JPEG, GIF nor WebP; the raw log has it"),
        );
        let large = format!("\x1b]1337;File=inline=1:iVBORw0KGgo{}\x07", "A".repeat(super::LETTERS_MAX));
        check(&large, &note("it is too large to show; the raw log has it"));
        check(
            "\x1b]1338;url=javascript:alert(1)\x07",
            "<span class=\"note\">javascript:alert(1): at javascript:alert(1)</span>",
        );
        check("\x1b]1337;SetMark\x07x", "x");
    }
}
