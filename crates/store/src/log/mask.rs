//! Hiding secrets in what steps print, also those that are cut in two by a read.
//!
//! A secret is looked for in the forms in which tools print it: as it is, each of its lines, base64 (standard and URL
//! alphabet, at each of the three places it can take within a longer text), hexadecimal, URL-encoded, escaped in JSON,
//! HTML and XML, quoted by a shell (`'…'`, `"…"`, `$'…'`, backslashes), with quotation marks doubled; by the lines that `base64`, `openssl` and `xxd -p` make of a long secret that they are given alone; and by those that
//! the first two make of a longer text, if a line break falls into a secret that is not too long.
//! The longest form that begins first wins; what is masked is no longer searched.
//!
//! A file is found to hold a secret by the same forms, but not by every line of it: see [`Masker::is_in_content`].

use std::borrow::Cow;
use std::collections::BTreeSet;
use std::fmt;
use std::ops::{Range, RangeInclusive};
use std::sync::Arc;

use aho_corasick::{AhoCorasick, AhoCorasickKind, BuildError, Input, MatchKind};

/// Stands where a secret was.
pub const MASK: &[u8] = b"***";

/// Forms shorter than this are not looked for: they would blot out ordinary output and, by where they do so, tell
/// themselves.
pub const MASKED_BYTES_MIN: usize = 4;

/// A secret shorter than this does not keep a cache from being saved: names and words as short as that (`admin`), and four digits in
/// random text, stand by chance in what a job fetches, and each build would be cold.
pub const CACHED_BYTES_MIN: usize = 8;

/// A line of a secret of several lines that is shorter than this does not tell that a file holds the secret. A last line of base64 or
/// hexadecimal text that stands for less of a secret is not looked for by itself.
const TELLING_BYTES_MIN: usize = 16;

/// After how many digits tools begin a new line of base64: PEM and `openssl`; MIME and `base64`.
const BASE64_WIDTHS: [usize; 2] = [64, 76];

/// After how many digits `xxd -p` does.
const HEXADECIMAL_WIDTH: usize = 60;

/// Of secrets up to this length the lines of longer texts in base64 are looked for, wherever a line break falls into the secret. They
/// are more than a hundred times as long as the secret.
const BROKEN_BYTES_MAX: usize = 512;

/// Begins and ends the lines around a key, which are the same for all keys.
const KEY_MARK: &[u8] = b"-----";

/// What ends a line.
const FEEDS: [&[u8]; 2] = [b"\n", b"\r\n"];

/// The fewest digits of a line that is looked for: those of base64 that [`TELLING_BYTES_MIN`] make up alone.
const DIGITS_MIN: usize = TELLING_BYTES_MIN * 8 / 6;

/// Up to so many bytes of forms a table of all next states is worth its memory, some 400 bytes for each of them.
const TABLE_BYTES_MAX: usize = 64 * 1024;

/// The most padding behind digits of base64.
const PADDING_BYTES_MAX: usize = 2;

/// Bound of all forms of all secrets together: those of a secret of 64 KiB, whatever it holds, of two if they are base64. Above it
/// [`Masker::new`] refuses.
pub const PATTERN_BYTES_MAX: usize = 6 * 1024 * 1024;

/// Whether a secret has fewer than [`MASKED_BYTES_MIN`] bytes without the white space around it, and so is not masked. Its owner should be
/// told.
#[must_use]
pub fn is_too_short(secret: &[u8]) -> bool {
    (1..MASKED_BYTES_MIN).contains(&secret.trim_ascii().len())
}

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
}

struct Forms {
    search: Search,
    /// For what counts in files; `None` if it is all.
    content: Option<Search>,
    /// For what counts in caches; `None` if it is what counts in files.
    cached: Option<Search>,
    /// Of whole forms, and of lines of forms, which are much shorter.
    beginnings: [Beginnings; 2],
}

impl fmt::Debug for Masker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let count = |forms: &Arc<Forms>| forms.beginnings.iter().map(|known| known.patterns.len()).sum();
        let forms: usize = self.forms.as_ref().map_or(0, count);
        f.debug_struct("Masker").field("forms", &forms).finish()
    }
}

impl Masker {
    /// A masker that lets everything through and costs nothing.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Prepares the forms of these secrets, without the white space around them. Those that [`is_too_short`] tells, and empty ones, are
    /// passed over.
    ///
    /// # Errors
    /// If all forms together are longer than [`PATTERN_BYTES_MAX`].
    pub fn new<S: AsRef<[u8]>>(secrets: impl IntoIterator<Item = S>) -> Result<Self, MaskerError> {
        let mut collected = Collected::default();
        for secret in secrets {
            // What encodes a secret alone begins with the white space before it.
            let alone = secret.as_ref().trim_ascii_end();
            let secret = alone.trim_ascii_start();
            collected.is_cached = secret.len() >= CACHED_BYTES_MIN;
            let whole = forms(secret).into_iter().map(|form| (form, Tells::Secret));
            let parts = lines(secret).map(|line| (line.to_vec(), tells(line)));
            for (form, tells) in whole.chain(parts).filter(|(form, _)| form.len() >= MASKED_BYTES_MIN) {
                collected.add(Kind::Form, form, tells);
            }
            collected.printed.check()?;
            for (line, tells) in wrapped(alone).into_iter().chain(broken(secret)) {
                collected.add(Kind::Line, line, tells);
            }
            collected.printed.check()?;
        }
        let Collected { printed, content, cached, is_all_content, is_all_cached, .. } = collected;
        if printed.forms.is_empty() {
            return Ok(Self::none());
        }
        let search = |patterns| Search::new(patterns).map_err(|_| MaskerError { pattern_bytes: printed.bytes });
        let content = if is_all_content { None } else { Some(search(&content)?) };
        let cached = if is_all_cached { None } else { Some(search(&cached)?) };
        let search = search(&printed)?;
        let beginnings = [printed.forms, printed.wrapped].map(Beginnings::of);
        Ok(Self { forms: Some(Arc::new(Forms { search, content, cached, beginnings })) })
    }

    /// Masks a whole text, such as a step's output value.
    #[must_use]
    pub fn mask<'a>(&self, bytes: &'a [u8]) -> Cow<'a, [u8]> {
        let Some(forms) = &self.forms else { return Cow::Borrowed(bytes) };
        let mut found = forms.search.find_iter(bytes, 0).peekable();
        if found.peek().is_none() {
            return Cow::Borrowed(bytes);
        }
        let mut masked = Vec::with_capacity(bytes.len());
        let mut rest = 0;
        for found in found {
            masked.extend_from_slice(&bytes[rest..found.start]);
            masked.extend_from_slice(MASK);
            rest = found.end;
        }
        masked.extend_from_slice(&bytes[rest..]);
        Cow::Owned(masked)
    }

    /// Whether a secret stands in the content of a file: in any of its forms, or by one of several lines, its own or those of a form,
    /// if that has at least 16 bytes of it and they do not begin with `-----`. Shorter ones, and the marks around a key, stand in files
    /// that have nothing to do with it.
    #[must_use]
    pub fn is_in_content(&self, bytes: &[u8]) -> bool {
        let Some(forms) = &self.forms else { return false };
        forms.content.as_ref().unwrap_or(&forms.search).is_match(bytes)
    }

    /// Whether a secret stands in what a cache is to hold, a name or a content: as [`Masker::is_in_content`] says, but for secrets of fewer
    /// than [`CACHED_BYTES_MIN`] bytes.
    #[must_use]
    pub fn is_in_cached(&self, bytes: &[u8]) -> bool {
        let Some(forms) = &self.forms else { return false };
        forms.cached.as_ref().map_or_else(|| self.is_in_content(bytes), |cached| cached.is_match(bytes))
    }

    /// A state for one stream; `None` if there is nothing to mask.
    #[must_use]
    pub fn stream(&self) -> Option<MaskedStream> {
        self.forms.as_ref().map(|forms| MaskedStream { forms: Arc::clone(forms), held: Vec::new(), digits_before: 0 })
    }
}

/// What is looked for in each place.
struct Collected {
    printed: Patterns,
    /// Of these what counts in files, and of those what counts in caches.
    content: Patterns,
    cached: Patterns,
    is_all_content: bool,
    is_all_cached: bool,
    /// Whether the secret whose patterns are added counts in caches.
    is_cached: bool,
}

impl Default for Collected {
    fn default() -> Self {
        let [printed, content, cached] = [(); 3].map(|()| Patterns::default());
        Self { printed, content, cached, is_all_content: true, is_all_cached: true, is_cached: true }
    }
}

impl Collected {
    fn add(&mut self, kind: Kind, pattern: Vec<u8>, tells: Tells) {
        match tells {
            Tells::Secret => {
                if self.is_cached {
                    self.cached.add(kind, pattern.clone());
                }
                self.content.add(kind, pattern.clone());
            }
            Tells::Nothing => self.is_all_content = false,
        }
        self.is_all_cached &= self.is_cached;
        self.printed.add(kind, pattern);
    }
}

/// What is looked for.
#[derive(Default)]
struct Patterns {
    forms: BTreeSet<Vec<u8>>,
    /// Lines of forms, which begin with [`DIGITS_MIN`] digits at least.
    wrapped: BTreeSet<Vec<u8>>,
    bytes: usize,
}

/// Which of [`Patterns`] it is.
#[derive(Clone, Copy)]
enum Kind {
    Form,
    Line,
}

impl Patterns {
    fn add(&mut self, kind: Kind, pattern: Vec<u8>) {
        let bytes = pattern.len();
        let patterns = match kind {
            Kind::Form => &mut self.forms,
            Kind::Line => &mut self.wrapped,
        };
        self.bytes += if patterns.insert(pattern) { bytes } else { 0 };
    }

    fn check(&self) -> Result<(), MaskerError> {
        if self.bytes > PATTERN_BYTES_MAX { Err(MaskerError { pattern_bytes: self.bytes }) } else { Ok(()) }
    }
}

/// Finds patterns, the longest that begins first. Lines of forms are many, and few patterns are found much faster than many: they are
/// looked for only where so many digits stand together.
struct Search {
    forms: AhoCorasick,
    wrapped: Option<AhoCorasick>,
}

impl Search {
    fn new(patterns: &Patterns) -> Result<Self, BuildError> {
        let search = |patterns: &BTreeSet<Vec<u8>>, kind| {
            AhoCorasick::builder().match_kind(MatchKind::LeftmostLongest).kind(kind).build(patterns)
        };
        let without_table = Some(AhoCorasickKind::ContiguousNFA);
        let is_small = patterns.forms.iter().map(Vec::len).sum::<usize>() <= TABLE_BYTES_MAX;
        let forms = search(&patterns.forms, if is_small { None } else { without_table })?;
        let has_lines = !patterns.wrapped.is_empty();
        let wrapped = has_lines.then(|| search(&patterns.wrapped, without_table)).transpose()?;
        Ok(Self { forms, wrapped })
    }

    fn is_match(&self, bytes: &[u8]) -> bool {
        self.forms.is_match(bytes) || self.next_wrapped(bytes, 0, 0).is_some()
    }

    /// All that is found, in order; so many digits stand before the bytes.
    fn find_iter<'f>(&'f self, bytes: &'f [u8], digits_before: usize) -> impl Iterator<Item = Range<usize>> {
        let (mut form, mut line) = (self.next_form(bytes, 0), self.next_wrapped(bytes, 0, digits_before));
        std::iter::from_fn(move || {
            let order = |found: &Range<usize>| (found.start, std::cmp::Reverse(found.end));
            let found = form.iter().chain(&line).min_by_key(|found| order(found))?.clone();
            if form.as_ref().is_some_and(|form| form.start < found.end) {
                form = self.next_form(bytes, found.end);
            }
            if line.as_ref().is_some_and(|line| line.start < found.end) {
                line = self.next_wrapped(bytes, found.end, 0);
            }
            Some(found)
        })
    }

    fn next_form(&self, bytes: &[u8], from: usize) -> Option<Range<usize>> {
        self.forms.find(Input::new(bytes).range(from..)).map(|found| found.range())
    }

    fn next_wrapped(&self, bytes: &[u8], mut from: usize, mut digits_before: usize) -> Option<Range<usize>> {
        let wrapped = self.wrapped.as_ref()?;
        while let Some(digits) = next_digits(bytes, from, digits_before) {
            // With what may stand behind them: more lines, or padding.
            let is_broken = bytes[digits.end..].starts_with(b"\n") || bytes[digits.end..].starts_with(b"\r\n");
            let length = if is_broken { wrapped.max_pattern_len() } else { PADDING_BYTES_MAX };
            let end = bytes.len().min(digits.end + length);
            let found = wrapped.find(Input::new(bytes).range(digits.start..end)).map(|found| found.range());
            if found.as_ref().is_some_and(|found| found.start < digits.end) {
                return found;
            }
            (from, digits_before) = (digits.end, 0);
        }
        None
    }
}

fn is_digit(byte: &u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'/')
}

/// How many digits stand at the end.
fn digits_at_end(bytes: &[u8]) -> usize {
    bytes.iter().rev().take_while(|byte| is_digit(byte)).count()
}

/// The first digits of base64, hexadecimal ones among them, that are at least [`DIGITS_MIN`] together. Those before `from` count too.
fn next_digits(bytes: &[u8], from: usize, digits_before: usize) -> Option<Range<usize>> {
    // So many together have one at each such distance from any place before them.
    let mut probe = from + (DIGITS_MIN - 1).saturating_sub(digits_before);
    while probe < bytes.len() {
        let after = bytes[probe..].iter().take_while(|byte| is_digit(byte)).count();
        if after == 0 {
            probe += DIGITS_MIN;
            continue;
        }
        let before = digits_at_end(&bytes[from..probe]);
        let further = if before == probe - from { digits_before } else { 0 };
        if further + before + after >= DIGITS_MIN {
            return Some(probe - before..probe + after);
        }
        probe += after + DIGITS_MIN;
    }
    None
}

impl Forms {
    /// The first place from `from` on whose bytes up to the end could be the beginning of a pattern; so many digits stand before it.
    fn beginning(&self, bytes: &[u8], from: usize, digits_before: usize) -> usize {
        let [forms, wrapped] = &self.beginnings;
        let lines = from + lines_at_end(&bytes[from..], digits_before, wrapped.longest);
        forms.first(bytes, from).min(wrapped.first(bytes, lines))
    }
}

/// Where the lines of digits begin that stand at the end, as far as they can matter to a pattern of `longest` bytes. All but the last
/// have [`DIGITS_MIN`] digits, with those before the bytes.
fn lines_at_end(bytes: &[u8], digits_before: usize, longest: usize) -> usize {
    let end = bytes.strip_suffix(b"=").unwrap_or(bytes).len();
    let mut start = end - digits_at_end(&bytes[..end]);
    // A read may have come between the two bytes of a line break.
    let mut lines = bytes[..start].strip_suffix(b"\r").filter(|_| start == bytes.len()).unwrap_or(&bytes[..start]);
    while bytes.len() - start < longest {
        lines = lines.strip_suffix(b"\n").map(|line| line.strip_suffix(b"\r").unwrap_or(line)).unwrap_or(lines);
        let digits = digits_at_end(lines);
        let further = if digits == lines.len() { digits_before } else { 0 };
        if digits == 0 || digits + further < DIGITS_MIN {
            break;
        }
        start = lines.len() - digits;
        lines = &lines[..start];
    }
    start
}

/// Tells what patterns begin with.
struct Beginnings {
    /// Sorted, so that those with a common beginning stand together.
    patterns: Vec<Vec<u8>>,
    longest: usize,
    /// The bytes that patterns begin with.
    begins: [bool; 256],
}

impl Beginnings {
    fn of(patterns: BTreeSet<Vec<u8>>) -> Self {
        let patterns: Vec<Vec<u8>> = patterns.into_iter().collect();
        let longest = patterns.iter().map(Vec::len).max().unwrap_or(0);
        let mut begins = [false; 256];
        for first in patterns.iter().filter_map(|pattern| pattern.first()) {
            begins[usize::from(*first)] = true;
        }
        Self { patterns, longest, begins }
    }

    /// Whether more bytes could turn this into a pattern: it is the proper beginning of one.
    fn is_beginning(&self, bytes: &[u8]) -> bool {
        let after = self.patterns.partition_point(|pattern| pattern.as_slice() <= bytes);
        self.patterns.get(after).is_some_and(|pattern| pattern.starts_with(bytes))
    }

    /// The first place from `from` on whose bytes up to the end could be a beginning.
    fn first(&self, bytes: &[u8], from: usize) -> usize {
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
    /// How many digits stood at the end of what was given out.
    digits_before: usize,
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
        for found in self.forms.search.find_iter(&held, self.digits_before) {
            emit(&held[rest..found.start]);
            emit(MASK);
            rest = found.end;
        }
        emit(&held[rest..]);
    }

    pub(super) fn held_capacity(&self) -> usize {
        self.held.capacity()
    }

    /// Returns how many bytes are dealt with. A match counts only if no byte before or at its start could begin a
    /// longer form that goes beyond the end of the bytes.
    fn emit_certain(&mut self, bytes: &[u8], emit: &mut dyn FnMut(&[u8])) -> usize {
        let (mut rest, mut before) = (0, self.digits_before);
        let mut open = self.forms.beginning(bytes, 0, before);
        for found in self.forms.search.find_iter(bytes, before) {
            if found.start >= open {
                break;
            }
            if found.start > rest {
                emit(&bytes[rest..found.start]);
            }
            emit(MASK);
            (rest, before) = (found.end, 0);
            if rest > open {
                open = self.forms.beginning(bytes, rest, before);
            }
        }
        if open > rest {
            emit(&bytes[rest..open]);
        }
        let digits = digits_at_end(&bytes[rest..open]);
        self.digits_before = if digits == open - rest { before.saturating_add(digits) } else { digits };
        open
    }
}

/// The lines of a secret that has several.
fn lines(secret: &[u8]) -> impl Iterator<Item = &[u8]> {
    let has_several = secret.contains(&b'\n');
    secret.split(|byte| *byte == b'\n').filter(move |_| has_several).map(<[u8]>::trim_ascii)
}

/// Whether a file in which a part of a secret stands holds the secret.
#[derive(Clone, Copy)]
enum Tells {
    Secret,
    Nothing,
}

fn tells(part: &[u8]) -> Tells {
    let is_mark = part.starts_with(KEY_MARK) || part.ends_with(KEY_MARK);
    if part.len() >= TELLING_BYTES_MIN && !is_mark { Tells::Secret } else { Tells::Nothing }
}

/// The lines of a secret that is encoded alone, where that makes several, and what they tell. They are not much longer together than
/// the encoded texts, one for each width.
fn wrapped(secret: &[u8]) -> Vec<(Vec<u8>, Tells)> {
    let mut lines = Vec::new();
    let with_feed = [secret, b"\n"].concat();
    let digits = base64(secret, STANDARD);
    // Of the last digit not all bits are the secret's: what follows the secret makes them up, the end, a line feed or anything.
    let texts = [&digits[..secret.len() * 8 / 6], &digits, &padded(&digits), &padded(&base64(&with_feed, STANDARD))];
    for width in BASE64_WIDTHS {
        lines.extend(wrapped_at(width, width * 6 / 8, secret, &texts));
    }
    for case in [Case::Lower, Case::Upper] {
        let texts = [hexadecimal(secret, case), hexadecimal(&with_feed, case)];
        lines.extend(wrapped_at(
            HEXADECIMAL_WIDTH,
            HEXADECIMAL_WIDTH / 2,
            secret,
            &texts.each_ref().map(Vec::as_slice),
        ));
    }
    lines
}

/// The lines of `width` digits, each of which stands for `bytes` of the secret, of texts that differ at their ends only. A last line
/// that stands for fewer than [`TELLING_BYTES_MIN`] counts only directly behind the line before it: alone it could be anything.
fn wrapped_at(width: usize, bytes: usize, secret: &[u8], texts: &[&[u8]]) -> Vec<(Vec<u8>, Tells)> {
    let parts: Vec<&[u8]> = secret.chunks(bytes).collect();
    let [before @ .., last] = parts.as_slice() else { return Vec::new() };
    let Some(line_before) = before.last() else { return Vec::new() };
    let digits = &texts[0][..before.len() * width];
    let mut lines: Vec<_> = digits.chunks(width).zip(before).map(|(line, part)| (line.to_vec(), tells(part))).collect();
    for end in texts.iter().map(|text| &text[digits.len()..]) {
        if last.len() >= TELLING_BYTES_MIN {
            lines.push((end.to_vec(), tells(last)));
            continue;
        }
        let line = &digits[digits.len() - width..];
        lines.extend(FEEDS.map(|feed| ([line, feed, end].concat(), tells(line_before))));
    }
    lines
}

/// The lines of a longer text, encoded in base64, of which the secret is a part, if a line break falls into the secret: what of them
/// depends on the secret alone, for each place where the break can be. A part of fewer than [`TELLING_BYTES_MIN`] counts only together
/// with the line next to it.
fn broken(secret: &[u8]) -> Vec<(Vec<u8>, Tells)> {
    let mut lines = Vec::new();
    if !(MASKED_BYTES_MIN..=BROKEN_BYTES_MAX).contains(&secret.len()) {
        return lines;
    }
    for before in 0..3 {
        let digits = base64(&[&[0; 2][..before], secret].concat(), STANDARD);
        let own = own_digits(before, secret);
        for width in BASE64_WIDTHS {
            let bytes = width * 6 / 8;
            // Before a line break stand whole groups of three bytes.
            for first in (1..=bytes.min(secret.len() - 1)).filter(|first| (before + first) % 3 == 0) {
                let (head, tail) = secret.split_at(first);
                let parts: Vec<&[u8]> = std::iter::once(head).chain(tail.chunks(bytes)).collect();
                let (head, tail) = digits[own.clone()].split_at((before + first) * 8 / 6 - own.start);
                let pieces: Vec<&[u8]> = std::iter::once(head).chain(tail.chunks(width)).collect();
                add_broken(&parts, &pieces, &mut lines);
            }
        }
    }
    lines
}

/// Adds the lines in which these parts of a secret are these digits. None tells that has some of the marks around a key; all of them
/// together always do.
fn add_broken(parts: &[&[u8]], pieces: &[&[u8]], lines: &mut Vec<(Vec<u8>, Tells)>) {
    let is_short = |index: usize| parts[index].len() < TELLING_BYTES_MIN;
    let tells = |together: &RangeInclusive<usize>| {
        let part = parts[together.clone()].concat();
        if part.windows(KEY_MARK.len()).any(|bytes| bytes == KEY_MARK) { Tells::Nothing } else { Tells::Secret }
    };
    let last = pieces.len() - 1;
    let alone = (0..=last).filter(|&index| !is_short(index)).map(|index| index..=index);
    let joined = match (is_short(0), is_short(last)) {
        (true, true) if last <= 2 => vec![0..=last],
        (true, true) => vec![0..=1, last - 1..=last],
        (true, false) => vec![0..=1],
        (false, true) => vec![last - 1..=last],
        (false, false) => Vec::new(),
    };
    let mut found: Vec<_> = alone.chain(joined).map(|together| (tells(&together), together)).collect();
    if found.iter().all(|(tells, _)| matches!(tells, Tells::Nothing)) {
        found.push((Tells::Secret, 0..=last));
    }
    for (tells, together) in found {
        let feeds = if together.start() == together.end() { &FEEDS[..1] } else { &FEEDS };
        lines.extend(feeds.iter().map(|feed| (pieces[together.clone()].join(*feed), tells)));
    }
}

/// All forms of one whole secret. Some may be too short to be used.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![secret.to_vec()];
    for alphabet in [STANDARD, URL_SAFE] {
        forms.extend(base64_forms(secret, alphabet));
    }
    forms.extend([hexadecimal(secret, Case::Lower), hexadecimal(secret, Case::Upper)]);
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
    forms.extend(JSON.iter().map(|writer| json(secret, writer)));
    forms.extend(MARKUP.map(|(quote, apostrophe)| markup(secret, quote, apostrophe)));
    forms.extend(shell_forms(secret));
    // Doubled between marks of the same kind: YAML, SQL and PowerShell; CSV (RFC 4180), `cmd`.
    forms.extend([b'\'', b'"'].map(|mark| doubled(secret, mark)));
    forms
}

fn doubled(secret: &[u8], mark: u8) -> Vec<u8> {
    escaped(secret, |byte| if byte == mark { Escape::Text(format!("{0}{0}", char::from(mark))) } else { Escape::Kept })
}

/// What shells, and what quotes for them, make of a secret between quotation marks or without any.
fn shell_forms(secret: &[u8]) -> Vec<Vec<u8>> {
    let mut forms = vec![
        // Bash and others in `'…'`; Python's `shlex.quote`; dash.
        escaped(secret, |byte| if byte == b'\'' { Escape::Text(r"'\''".into()) } else { Escape::Kept }),
        escaped(secret, |byte| if byte == b'\'' { Escape::Text(r#"'"'"'"#.into()) } else { Escape::Kept }),
        apart(secret),
        // Between `"…"`, as bash prints variables.
        escaped(secret, |byte| match byte {
            b'$' | b'`' | b'"' | b'\\' => Escape::Text(format!("\\{}", char::from(byte))),
            _ => Escape::Kept,
        }),
        ansi_c(secret, Written::Kept),
        ansi_c(secret, Written::Escaped),
    ];
    // Bash writes the others as `$'…'`.
    if !secret.iter().any(u8::is_ascii_control) {
        forms.push(backslashed(secret));
    }
    forms
}

/// Each run of `'` between `"`, apart from what is between `'` (dash). Behind a run at the end no `'` is opened.
fn apart(secret: &[u8]) -> Vec<u8> {
    let mut form = Vec::with_capacity(secret.len());
    for run in secret.chunk_by(|left, right| (*left == b'\'') == (*right == b'\'')) {
        match run.starts_with(b"'") {
            true => form.extend([b"'\"", run, b"\"'"].concat()),
            false => form.extend_from_slice(run),
        }
    }
    if secret.ends_with(b"'") {
        form.pop();
    }
    form
}

/// Between `$'…'`, as bash writes what has a control character, and fish and Python many others. A locale of ASCII alone has `beyond` it
/// escaped.
fn ansi_c(secret: &[u8], beyond: Written) -> Vec<u8> {
    escaped(secret, |byte| {
        Escape::Text(match (byte, beyond) {
            (b'\'' | b'\\', _) => format!("\\{}", char::from(byte)),
            (0x07, _) => r"\a".into(),
            (0x08, _) => r"\b".into(),
            (b'\t', _) => r"\t".into(),
            (b'\n', _) => r"\n".into(),
            (0x0b, _) => r"\v".into(),
            (0x0c, _) => r"\f".into(),
            (b'\r', _) => r"\r".into(),
            (0x1b, _) => r"\E".into(),
            (0x00..=0x1f | 0x7f, _) | (0x80.., Written::Escaped) => format!("\\{byte:03o}"),
            _ => return Escape::Kept,
        })
    })
}

/// With a backslash before each byte that means something to bash (`printf %q`). What it puts before the first one is no part of the
/// form, if it does so there alone (`#`).
fn backslashed(secret: &[u8]) -> Vec<u8> {
    let mut form = Vec::with_capacity(secret.len());
    for (byte, before) in secret.iter().zip(std::iter::once(&0).chain(secret)) {
        let is_home = *byte == b'~' && matches!(before, b':' | b'=');
        if is_home || b" !\"$&'()*,;<>?[\\]^`{|}".contains(byte) {
            form.push(b'\\');
        }
        form.push(*byte);
    }
    form
}

/// How quotation marks and apostrophes are written in HTML and XML: in texts; in attributes, as several writers do it. (Python writes
/// `&#x27;`, PHP `&#039;`, Go `&#34;`, XML `&apos;`.)
const MARKUP: [(&str, &str); 7] = [
    ("\"", "'"),
    ("&quot;", "'"),
    ("&quot;", "&#x27;"),
    ("&quot;", "&#39;"),
    ("&quot;", "&#039;"),
    ("&quot;", "&apos;"),
    ("&#34;", "&#39;"),
];

fn markup(secret: &[u8], quote: &str, apostrophe: &str) -> Vec<u8> {
    escaped(secret, |byte| {
        let text = match byte {
            b'&' => "&amp;",
            b'<' => "&lt;",
            b'>' => "&gt;",
            b'"' => quote,
            b'\'' => apostrophe,
            _ => return Escape::Kept,
        };
        Escape::Text(text.into())
    })
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

/// How the digits above 9 are written.
#[derive(Clone, Copy)]
enum Case {
    Lower,
    Upper,
}

fn hexadecimal(bytes: &[u8], case: Case) -> Vec<u8> {
    escaped(bytes, |byte| {
        Escape::Text(match case {
            Case::Lower => format!("{byte:02x}"),
            Case::Upper => format!("{byte:02X}"),
        })
    })
}

/// What becomes of characters that could be written as they are.
#[derive(Clone, Copy)]
enum Written {
    Kept,
    Escaped,
}

/// How a writer of JSON writes what it need not escape.
struct Json {
    case: Case,
    /// What means something in HTML (`<`, `>`, `&`) or ends a line in scripts (U+2028, U+2029).
    marks: Written,
    /// All above `~`.
    beyond: Written,
    slashes: Written,
}

/// Most of them; Go, unless it is told not to; Ruby on Rails; Python; PHP, also where it is told to keep what is beyond ASCII.
const JSON: [Json; 6] = {
    use Case::{Lower, Upper};
    use Written::{Escaped, Kept};
    [
        Json { case: Lower, marks: Kept, beyond: Kept, slashes: Kept },
        Json { case: Lower, marks: Escaped, beyond: Kept, slashes: Kept },
        Json { case: Upper, marks: Escaped, beyond: Kept, slashes: Kept },
        Json { case: Lower, marks: Kept, beyond: Escaped, slashes: Kept },
        Json { case: Lower, marks: Kept, beyond: Escaped, slashes: Escaped },
        Json { case: Lower, marks: Kept, beyond: Kept, slashes: Escaped },
    ]
};

/// RFC 8259. Bytes that are not UTF-8 stay.
fn json(secret: &[u8], writer: &Json) -> Vec<u8> {
    let coded = |character: char| -> String {
        let units = character.encode_utf16(&mut [0; 2]).to_vec();
        let coded = units.iter().map(|unit| match writer.case {
            Case::Lower => format!("\\u{unit:04x}"),
            Case::Upper => format!("\\u{unit:04X}"),
        });
        coded.collect()
    };
    let mut form = Vec::with_capacity(secret.len());
    for chunk in secret.utf8_chunks() {
        for character in chunk.valid().chars() {
            let escape = match (character, writer) {
                ('"', _) => r#"\""#.into(),
                ('\\', _) => r"\\".into(),
                ('\n', _) => r"\n".into(),
                ('\r', _) => r"\r".into(),
                ('\t', _) => r"\t".into(),
                ('/', Json { slashes: Written::Escaped, .. }) => r"\/".into(),
                ('\0'..='\x1f', _)
                | ('<' | '>' | '&' | '\u{2028}' | '\u{2029}', Json { marks: Written::Escaped, .. })
                | ('\x7f'.., Json { beyond: Written::Escaped, .. }) => coded(character),
                _ => character.into(),
            };
            form.extend_from_slice(escape.as_bytes());
        }
        form.extend_from_slice(chunk.invalid());
    }
    form
}

const STANDARD: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
const URL_SAFE: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// The secret's own base64 text with and without padding, and the part of it that does not depend on what stands
/// before and after the secret, for each of the three places it can begin at.
fn base64_forms(secret: &[u8], alphabet: &[u8; 64]) -> Vec<Vec<u8>> {
    let whole = base64(secret, alphabet);
    let mut forms = vec![padded(&whole), whole];
    for before in 0..3 {
        let mut text = vec![0; before];
        text.extend_from_slice(secret);
        let encoded = base64(&text, alphabet);
        forms.push(encoded.get(own_digits(before, secret)).unwrap_or_default().to_vec());
    }
    forms
}

/// The digits of base64 all of whose bits are the secret's, if so many bytes stand before it.
fn own_digits(before: usize, secret: &[u8]) -> Range<usize> {
    (before * 8).div_ceil(6)..(before + secret.len()) * 8 / 6
}

fn padded(base64: &[u8]) -> Vec<u8> {
    let mut padded = base64.to_vec();
    padded.resize(base64.len().next_multiple_of(4), b'=');
    padded
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
