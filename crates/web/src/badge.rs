//! The badge of a branch, for pages elsewhere: a drawing with no text but what stands here and the branch's name.

use maud::html;

/// The longest label in characters; a longer one is cut.
const LABEL_CHARS_MAX: usize = 40;
/// How wide a letter is, and the room beside a word, in tenths of a pixel. `textLength` makes the words fit on any machine.
const LETTER_WIDTH: usize = 65;
const ROOM: usize = 120;

/// What a badge says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Badge {
    /// The last build passed.
    Passed,
    /// It failed.
    Failed,
    /// Somebody ended it.
    Canceled,
    /// No build has ended.
    Unknown,
}

impl Badge {
    /// The word and its ground.
    fn look(self) -> (&'static str, &'static str) {
        match self {
            Self::Passed => ("passing", "#1b7a43"),
            Self::Failed => ("failing", "#b3261e"),
            Self::Canceled => ("canceled", "#6a6f75"),
            Self::Unknown => ("no build yet", "#6a6f75"),
        }
    }
}

/// The badge as SVG.
#[must_use]
pub fn drawing(label: &str, badge: Badge) -> String {
    let mut said: String = label.chars().take(LABEL_CHARS_MAX).filter(|letter| !letter.is_control()).collect();
    if label.chars().count() > LABEL_CHARS_MAX {
        said.push('…');
    }
    let (word, ground) = badge.look();
    let width = |text: &str| (text.chars().count() * LETTER_WIDTH + ROOM) / 10;
    let (left, right) = (width(&said), width(word));
    let text_width = |text: &str| (text.chars().count() * LETTER_WIDTH / 10).max(1);
    let title = format!("{said}: {word}");
    let drawing = html! {
        svg xmlns="http://www.w3.org/2000/svg" width=(left + right) height="20" role="img" aria-label=(title) {
            title { (title) }
            clipPath id="round" { rect width=(left + right) height="20" rx="3" {} }
            g clip-path="url(#round)" {
                rect width=(left) height="20" fill="#3b3f44" {}
                rect x=(left) width=(right) height="20" fill=(ground) {}
            }
            g fill="#ffffff" text-anchor="middle" font-family="Verdana,DejaVu Sans,sans-serif" font-size="11" {
                text x=(left / 2) y="14" textLength=(text_width(&said)) lengthAdjust="spacingAndGlyphs" { (said) }
                text x=(left + right / 2) y="14" textLength=(text_width(word)) lengthAdjust="spacingAndGlyphs" { (word) }
            }
        }
    };
    drawing.into_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_badge_says_its_words_and_nothing_more() {
        let drawing = drawing("<script>&\u{1b}", Badge::Failed);
        assert!(drawing.contains("&lt;script&gt;&amp;</text>") && drawing.contains(">failing</text>"), "{drawing}");
        assert!(!drawing.contains("<script") && !drawing.contains('\u{1b}'), "{drawing}");
    }
}
