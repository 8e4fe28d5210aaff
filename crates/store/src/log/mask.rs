//! Hiding secrets in what steps print, also those that are cut in two by a read.
//!
//! A secret is looked for in the forms in which tools print it: as it is, each of its lines, base64 (standard and URL
//! alphabet, at each of the three places it can take within a longer text), hexadecimal, URL-encoded, escaped in JSON,
//! quoted by a shell. The longest form that begins first wins; what is masked is no longer searched.
//!
//! A file is found to hold a secret by the same forms, but not by every line of it: see [`Masker::is_in_content`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::sync::Arc;

use aho_corasick::{AhoCorasick, MatchKind};

/// Stands where a secret was.
pub const MASK: &[u8] = b"***";

/// Forms shorter than this are not looked for: they would blot out ordinary output and, by where they do so, tell
/// themselves.
pub const MASKED_BYTES_MIN: usize = 4;

/// A single line of a secret of several lines that is shorter than this does not tell that a file holds the secret.
const TELLING_BYTES_MIN: usize = 16;

/// Bound of all forms of all secrets together. Above it [`Masker::new`] refuses.
pub const PATTERN_BYTES_MAX: usize = 4 * 1024 * 1024;

/// The secrets are too long or too many to be masked, so nothing may be printed with them around.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MaskerError {
    /// The bytes of all forms.
    pub pattern_bytes: usize,
}

impl fmt::Display for MaskerError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "the secrets have {} bytes of forms to mask; at most {PATTERN_BYTES_MAX} are", self.pattern_bytes)
    }
}

impl std::error::Error for MaskerError {}

/// Knows the secrets of one attempt. Clones are cheap and share it. Its debug text shows no secret.
#[derive(Clone, Default)]
pub struct Masker {
    forms: Option<Arc<Forms>>,
    too_short: usize,
}

struct Forms {
    search: AhoCorasick,
    /// For what counts in files; `None` if it is all.
    content: Option<AhoCorasick>,
    /// Sorted, so that those with a common beginning stand together.
    patterns: Vec<Vec<u8>>,
    longest: usize,
    /// The bytes that forms begin with.
    begins: [bool; 256],
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let forms = self.forms.as_ref().map_or(0, |forms| forms.patterns.len());
        f.debug_struct("Masker").field("forms", &forms).field("too_short", &self.too_short).finish()
    }
}

impl Masker {
    /// A masker that lets everything through and costs nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Prepares the forms of these secrets, without the white space around them. Empty ones are passed over, those under [`MASKED_BYTES_MIN`] are counted
    /// in [`Masker::too_short`].
    ///
    /// # Errors
    /// If all forms together are longer than [`PATTERN_BYTES_MAX`].
    pub fn new<S: AsRef<[u8]>>(secrets: impl IntoIterator<Item = S>) -> Result<Self, MaskerError> {
        let mut patterns = BTreeSet::new();
        let (mut content, mut is_all_content) = (BTreeSet::new(), true);
        let mut too_short = 0;
        let mut pattern_bytes = 0;
        for secret in secrets {
            let secret = secret.as_ref().trim_ascii();
            if (1..MASKED_BYTES_MIN).contains(&secret.len()) {
                too_short += 1;
            }
            let whole = forms(secret).into_iter().map(|form| (form, true));
            for (form, is_telling) in whole.chain(lines(secret).map(|line| (line.to_vec(), tells(line)))) {
                if form.len() < MASKED_BYTES_MIN {
                    continue;
                }
                match is_telling {
                    true => drop(content.insert(form.clone())),
                    false => is_all_content = false,
                }
                if !patterns.contains(&form) {
                    pattern_bytes += form.len();
                    patterns.insert(form);
                }
                if pattern_bytes > PATTERN_BYTES_MAX {
                    return Err(MaskerError { pattern_bytes });
                }
            }
        }
        if patterns.is_empty() {
            return Ok(Self { forms: None, too_short });
        }
        let search = |forms: &BTreeSet<Vec<u8>>| {
            let search = AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).build(forms);
            search.map_err(|_| MaskerError { pattern_bytes })
        };
        let content = if is_all_content { None } else { Some(search(&content)?) };
        let search = search(&patterns)?;
        let patterns: Vec<Vec<u8>> = patterns.into_iter().collect();
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        let mut begins = [false; 256];
        for first in patterns.iter().filter_map(|pattern| pattern.first()) {
            begins[usize::from(*first)] = true;
        }
        Ok(Self { forms: Some(Arc::new(Forms { search, content, patterns, longest, begins })), too_short })
    }

    /// How many secrets are so short that they are not masked. Their owner should be told.
    #[must_use]
    pub fn too_short(&self) -> usize {
        self.too_short
    }

    /// Masks a whole text, such as a step's output value.
    #[must_use]
    pub fn mask<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(forms) = &self.forms else { return Cow::Borrowed(bytes) };
        if forms.search.find(bytes).is_none() {
            return Cow::Borrowed(bytes);
        }
        let mut masked = Vec::with_capacity(bytes.len());
        let mut rest = 0;
        for found in forms.search.find_iter(bytes) {
            masked.extend_from_slice(&bytes[rest..found.start()]);
            masked.extend_from_slice(MASK);
            rest = found.end();
        }
        masked.extend_from_slice(&bytes[rest..]);
        Cow::Owned(masked)
    }

    /// Whether a secret stands in the content of a file: in any of its forms, or by one of several lines if that has at least
    /// 16 bytes and does not begin with `-----`. Shorter ones, and the marks around a key, stand in files that have nothing to do
    /// with it.
    #[must_use]
    pub fn is_in_content(&self, bytes: &[u8]) -> bool {
        let Some(forms) = &self.forms else { return false };
        forms.content.as_ref().unwrap_or(&forms.search).is_match(bytes)
    }

    /// A state for one stream; `None` if there is nothing to mask.
    #[must_use]
    pub fn stream(&self) -> Option<MaskedStream> {
        self.forms.as_ref().map(|forms| MaskedStream { forms: Arc::clone(forms), held: Vec::new() })
    }
}

impl Forms {
    /// Whether more bytes could turn this into a form: it is the proper beginning of one.
    fn is_beginning(&self, bytes: &[u8]) -> bool {
        let after = self.patterns.partition_point(|pattern| pattern.as_slice() <= bytes);
        self.patterns.get(after).is_some_and(|pattern| pattern.starts_with(bytes))
    }

    /// The first place from `from` on whose bytes up to the end could be the beginning of a form.
    fn beginning(&self, bytes: &[u8], from: usize) -> usize {
        let earliest = (bytes.len() + 1).saturating_sub(self.longest).max(from);
        let begins = |start: &usize| self.begins[usize::from(bytes[*start])] && self.is_beginning(&bytes[*start..]);
        (earliest..bytes.len()).find(begins).unwrap_or(bytes.len())
    }
}

/// Masks one stream as it comes. Holds back the last bytes if, and as long as, they could be the beginning of a
/// secret: at most one byte less than the longest form.
#[derive(Clone)]
pub struct MaskedStream {
    forms: Arc<Forms>,
    held: Vec<u8>,
}

impl MaskedStream {
    /// Takes the next bytes; gives those that are certain to `emit`, in pieces, in order.
    pub fn push(&mut self, bytes: &[u8], emit: &mut dyn FnMut(&[u8])) {
        if self.held.is_empty() {
            let certain = self.emit_certain(bytes, emit);
            self.held.extend_from_slice(&bytes[certain..]);
        } else {
            let mut held = std::mem::take(&mut self.held);
            held.extend_from_slice(bytes);
            let certain = self.emit_certain(&held, emit);
            self.held.extend_from_slice(&held[certain..]);
        }
    }

    /// Gives out what was held back, since nothing follows it.
    pub fn finish(&mut self, emit: &mut dyn FnMut(&[u8])) {
        let held = std::mem::take(&mut self.held);
        let mut rest = 0;
        for found in self.forms.search.find_iter(&held) {
            emit(&held[rest..found.start()]);
            emit(MASK);
            rest = found.end();
        }
        emit(&held[rest..]);
    }

    pub(super) fn held_capacity(&self) -> usize {
        self.held.capacity()
    }

    /// Returns how many bytes are dealt with. A match counts only if no byte before or at its start could begin a
    /// longer form that goes beyond the end of the bytes.
    fn emit_certain(&self, bytes: &[u8], emit: &mut dyn FnMut(&[u8])) -> usize {
        let mut rest = 0;
        let mut open = self.forms.beginning(bytes, 0);
        for found in self.forms.search.find_iter(bytes) {
            if found.start() >= open {
                break;
            }
            if found.start() > rest {
                emit(&bytes[rest..found.start()]);
            }
            emit(MASK);
            rest = found.end();
            if rest > open {
                open = self.forms.beginning(bytes, rest);
            }
        }
        if open > rest {
            emit(&bytes[rest..open]);
        }
        open
    }
}

/// The lines of a secret that has several.
fn lines(secret: &[u8]) -> impl Iterator<Item = &[u8]> {
    let has_several = secret.contains(&b'\n');
    secret.split(|byte| *byte == b'\n').filter(move |_| has_several).map(<[u8]>::trim_ascii)
}

/// Whether a line tells that there is the secret.
fn tells(line: &[u8]) -> bool {
    line.len() >= TELLING_BYTES_MIN && !line.starts_with(b"-----")
}

/// All forms of one whole secret. Some may be too short to be used.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    for alphabet in [STANDARD, URL_SAFE] {
        forms.extend(base64_forms(secret, alphabet));
    }
    forms.push(escaped(secret, |byte| Escape::Text(format!("{byte:02x}"))));
    forms.push(escaped(secret, |byte| Escape::Text(format!("{byte:02X}"))));
    // RFC 3986 leaves letters, digits and `-._~`; browsers leave `!'()*` too; forms write a blank as `+`.
    for unreserved in [&b"-._~"[..], b"-._~!'()*", b"-._*"] {
        let kept = |byte: u8| byte.is_ascii_alphanumeric() || unreserved.contains(&byte);
        forms
            .push(escaped(secret, |byte| if kept(byte) { Escape::Kept } else { Escape::Text(format!("%{byte:02X}")) }));
        forms
            .push(escaped(secret, |byte| if kept(byte) { Escape::Kept } else { Escape::Text(format!("%{byte:02x}")) }));
        forms.push(escaped(secret, |byte| match byte {
            b' ' => Escape::Text("+".into()),
            byte if kept(byte) => Escape::Kept,
            byte => Escape::Text(format!("%{byte:02X}")),
        }));
    }
    forms.push(escaped(secret, json_escape));
    forms.push(escaped(secret, |byte| if byte == b'\'' { Escape::Text(r"'\''".into()) } else { Escape::Kept }));
    forms
}

enum Escape {
    Kept,
    Text(String),
}

fn escaped(secret: &[u8], escape: impl Fn(u8) -> Escape) -> Vec<u8> {
    let mut form = Vec::with_capacity(secret.len());
    for &byte in secret {
        match escape(byte) {
            Escape::Kept => form.push(byte),
            Escape::Text(text) => form.extend_from_slice(text.as_bytes()),
        }
    }
    form
}

fn json_escape(byte: u8) -> Escape {
    Escape::Text(match byte {
        b'"' => r#"\""#.into(),
        b'\\' => r"\\".into(),
        b'\n' => r"\n".into(),
        b'\r' => r"\r".into(),
        b'\t' => r"\t".into(),
        0..=0x1f => format!("\\u{byte:04x}"),
        _ => return Escape::Kept,
    })
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The secret's own base64 text with and without padding, and the part of it that does not depend on what stands
/// before and after the secret, for each of the three places it can begin at.
fn base64_forms(secret: &[u8], alphabet: &[u8; 64]) -> Vec<Vec<u8>> {
    let whole = base64(secret, alphabet);
    let mut forms = vec![whole.clone()];
    let mut padded = whole;
    while !padded.len().is_multiple_of(4) {
        padded.push(b'=');
    }
    forms.push(padded);
    for before in 0..3 {
        let mut text = vec![0; before];
        text.extend_from_slice(secret);
        let encoded = base64(&text, alphabet);
        let own = (before * 8).div_ceil(6)..text.len() * 8 / 6;
        forms.push(encoded.get(own).unwrap_or_default().to_vec());
    }
    forms
}

/// RFC 4648, without padding.
fn base64(bytes: &[u8], alphabet: &[u8; 64]) -> Vec<u8> {
    let mut text = Vec::with_capacity(bytes.len().div_ceil(3) * 4);
    for chunk in bytes.chunks(3) {
        let mut group = [0; 3];
        group[..chunk.len()].copy_from_slice(chunk);
        let bits = u32::from(group[0]) << 16 | u32::from(group[1]) << 8 | u32::from(group[2]);
        for digit in 0..=chunk.len() {
            text.push(alphabet[(bits >> (18 - 6 * digit)) as usize & 63]);
        }
    }
    text
}
