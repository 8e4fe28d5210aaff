//! Takes a terminal's language out of bytes: colours, cursor movements, titles, links. All other bytes stay as they are.
//! A sequence may be cut between pieces of a line; the state carries over. Source: ECMA-48, 5.4 and 5.6;
//! ECMA-35, 13.2.

/// What begins every sequence.
pub const ESCAPE: u8 = 0x1b;

/// Where in a sequence the bytes are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Escapes {
    /// In none.
    #[default]
    Text,
    /// Behind ESC.
    Begun,
    /// Behind the first intermediate byte, as in `ESC ( B`, up to a byte from `0` to `~`.
    Intermediate,
    /// In `ESC [ …`, up to a byte from `@` to `~`.
    Control,
    /// In `ESC ] …` and its like, up to BEL or `ESC \\`.
    String,
    /// Behind an ESC in such a text.
    StringEnding,
}

impl Escapes {
    /// Adds to `clean` what of `bytes` belongs to no sequence.
    pub fn strip(&mut self, bytes: &[u8], clean: &mut Vec<u8>) {
        let mut rest = bytes;
        while !rest.is_empty() {
            if *self == Self::Text {
                let end = rest.iter().position(|&byte| byte == ESCAPE).unwrap_or(rest.len());
                clean.extend_from_slice(&rest[..end]);
                rest = &rest[end..];
            }
            let Some((&byte, after)) = rest.split_first() else { return };
            rest = after;
            *self = self.after(byte);
        }
    }

    fn after(self, byte: u8) -> Self {
        match (self, byte) {
            (Self::Text, _) => Self::Begun,
            (Self::Begun, b'[') => Self::Control,
            (Self::Begun, b']' | b'P' | b'X' | b'^' | b'_') => Self::String,
            (Self::Begun | Self::Intermediate, b' '..=b'/') => Self::Intermediate,
            (Self::Begun | Self::Intermediate, ESCAPE) => Self::Begun,
            (Self::Begun | Self::Intermediate, _) | (Self::Control, b'@'..=b'~') | (Self::String, 0x07) => Self::Text,
            (Self::Control, ESCAPE) => Self::Begun,
            (Self::Control, _) => Self::Control,
            (Self::String, ESCAPE) => Self::StringEnding,
            (Self::String, _) => Self::String,
            (Self::StringEnding, b'\\') => Self::Text,
            (Self::StringEnding, _) => Self::String,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Escapes;

    #[test]
    fn sequences_vanish_wherever_they_are_cut() {
        let check = |text: &[u8], expected: &[u8]| {
            for at in 0..=text.len() {
                let mut clean = Vec::new();
                let mut escapes = Escapes::default();
                escapes.strip(&text[..at], &mut clean);
                escapes.strip(&text[at..], &mut clean);
                assert_eq!(clean, expected, "{} cut at {at}", text.escape_ascii());
            }
        };
        check(b"a\xff\r\x07b", b"a\xff\r\x07b");
        check(b"\x1b[1;31mred\x1b[0m.", b"red.");
        check(b"\x1b[2K\x1b[1Gx\x1b[?25l", b"x");
        check(b"\x1b]0;title\x07x\x1b]8;;http://a\x1b\\link\x1b]8;;\x1b\\", b"xlink");
        check(b"\x1b(Bx\x1bcy\x1b[3\x1b[31mz", b"xyz");
        check(b"\x1b(Bplain\x1b[m \x1b)0a\x1b#8b\x1b%Gc\x1b$(Cd\x1b([e\x1b(\x1b[1mf", b"plain abcdef");
        check(b"lost\x1b[31", b"lost");
    }
}
