//! How lines of logs are written: with the job's name, the time, or nothing before them. Harmless for a terminal; for
//! everything else byte for byte, but for colours and the rest of a terminal's language unless colours were asked for.

use std::collections::BTreeMap;
use std::io::{self, Write};

use graph::Timestamp;
use regex::bytes::Regex;
use store::log::{ESCAPE, Escapes, Gap, GapCause, LineEnd, LineStart, Stream, StreamKey};

use crate::calendar::Calendar;
use crate::columns::{Paint, Style};
use crate::view::annotation::{Annotation, Headings, Shown};
use crate::{view, words};

/// A line, or a piece of one.
#[derive(Clone, Copy, Debug)]
pub struct Row<'a> {
    /// Whose.
    pub key: StreamKey,
    /// Its number, from 1 in the job.
    pub number: u64,
    /// When it came.
    pub time_us: u64,
    /// Who wrote it.
    pub stream: Stream,
    /// Its bytes.
    pub bytes: &'a [u8],
    /// How it begins.
    pub start: LineStart,
    /// How it ends.
    pub end: LineEnd,
}

/// Who reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// A person at a terminal.
    Terminal(Paint),
    /// A program or a file. [`Paint::Plain`] leaves a terminal's language out of what jobs wrote.
    Pipe(Paint),
}

impl Reader {
    fn paint(self) -> Paint {
        match self {
            Self::Terminal(paint) | Self::Pipe(paint) => paint,
        }
    }
}

/// What stands before lines, beside the name.
#[derive(Clone, Debug, Default)]
pub struct Form {
    /// The calendar that tells times; `None` for no times.
    pub times: Option<Calendar>,
    /// The numbers of lines.
    pub numbers: bool,
    /// Exactly what the job wrote, and nothing of ours.
    pub raw: bool,
    /// What stands under headings.
    pub folds: Folds,
}

/// Whether what stands under headings is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Folds {
    /// It is.
    #[default]
    Open,
    /// Only warnings and errors of it.
    Closed,
}

/// Writes rows.
pub struct Page<W: Write> {
    writer: W,
    reader: Reader,
    form: Form,
    highlighted: Option<Regex>,
    /// Who wrote the line that has not ended.
    open: Option<(StreamKey, Stream)>,
    /// Where in a sequence that line is.
    escapes: Escapes,
    /// Of the steps in which headings are open.
    headings: BTreeMap<StreamKey, Headings>,
}

impl<W: Write> Page<W> {
    /// A page on `writer`.
    pub fn new(writer: W, reader: Reader, form: Form, highlighted: Option<Regex>) -> Self {
        Self { writer, reader, form, highlighted, open: None, escapes: Escapes::default(), headings: BTreeMap::new() }
    }

    /// Writes a row; `name` is put before it unless it is empty.
    pub fn row(&mut self, name: &str, row: &Row<'_>) -> io::Result<()> {
        if self.form.raw {
            if row.stream == Stream::Note {
                return Ok(());
            }
            self.writer.write_all(row.bytes)?;
            return if row.end == LineEnd::LineFeed { self.writer.write_all(b"\n") } else { Ok(()) };
        }
        let goes_on = row.start == LineStart::Continued && self.open == Some((row.key, row.stream));
        if !goes_on {
            let shown = self.shown_as(row);
            if shown == Shown::Not {
                return Ok(());
            }
            self.end_line()?;
            self.head(name, row)?;
            self.escapes = Escapes::default();
            match shown {
                Shown::AsWritten(spaces) => write!(self.writer, "{:spaces$}", "")?,
                Shown::Instead(text) => {
                    self.writer.write_all(text.as_bytes())?;
                    self.open = Some((row.key, row.stream));
                    return if row.end == LineEnd::LineFeed { self.end_line() } else { Ok(()) };
                }
                Shown::Not => {}
            }
        }
        match self.reader {
            Reader::Pipe(Paint::Coloured) => self.writer.write_all(row.bytes)?,
            Reader::Pipe(Paint::Plain) if self.escapes == Escapes::Text && !row.bytes.contains(&ESCAPE) => {
                self.writer.write_all(row.bytes)?;
            }
            Reader::Pipe(Paint::Plain) => {
                let mut clean = Vec::with_capacity(row.bytes.len());
                self.escapes.strip(row.bytes, &mut clean);
                self.writer.write_all(&clean)?;
            }
            Reader::Terminal(paint) => self.shown(paint, row)?,
        }
        self.open = Some((row.key, row.stream));
        if row.end == LineEnd::LineFeed { self.end_line() } else { Ok(()) }
    }

    /// How a row is shown that begins a line. Whoever searches sees lines as they were written.
    fn shown_as(&mut self, row: &Row<'_>) -> Shown {
        let may_speak = row.start == LineStart::Fresh && row.bytes.starts_with(b"::");
        if self.highlighted.is_some() || (self.headings.is_empty() && !may_speak) {
            return Shown::AsWritten(0);
        }
        let text = if may_speak { String::from_utf8_lossy(row.bytes) } else { "".into() };
        let stream = if row.stream == Stream::Stdout { view::Stream::Stdout } else { view::Stream::Stderr };
        let headings = self.headings.entry(row.key).or_default();
        let was_inside = headings.is_inside();
        let (shown, said) = headings.next(stream, &text, self.reader.paint());
        if !headings.is_inside() {
            self.headings.remove(&row.key);
        }
        let is_loud = matches!(said, Some(Annotation::Warning(_) | Annotation::Error(_)));
        match (self.form.folds, shown) {
            (Folds::Closed, _) if was_inside && !is_loud => Shown::Not,
            (Folds::Closed, Shown::Instead(text)) => Shown::Instead(text.replacen('▾', "▸", 1)),
            (_, shown) => shown,
        }
    }

    fn head(&mut self, name: &str, row: &Row<'_>) -> io::Result<()> {
        let paint = self.reader.paint();
        if let Some(calendar) = &self.form.times {
            let time = calendar.moment(Timestamp(i64::try_from(row.time_us).unwrap_or(i64::MAX)));
            write!(self.writer, "{} ", paint.text(Style::Dim, &time))?;
        }
        if !name.is_empty() {
            // The bar tells standard error and our own notes from what a job has to say.
            let style = match row.stream {
                Stream::Stdout => Style::Dim,
                Stream::Stderr => Style::Bad,
                Stream::Note => Style::Ask,
            };
            write!(self.writer, "{name} {} ", paint.text(style, "|"))?;
        }
        if self.form.numbers {
            write!(self.writer, "{}", paint.text(Style::Dim, &format!("{}: ", row.number)))?;
        }
        if row.stream == Stream::Note {
            write!(self.writer, "{} ", paint.text(Style::Ask, "note:"))?;
        }
        Ok(())
    }

    /// A row without what could do harm to a terminal.
    fn shown(&mut self, paint: Paint, row: &Row<'_>) -> io::Result<()> {
        let text = String::from_utf8_lossy(row.bytes);
        // A progress bar overwrites itself: what it showed last is what counts.
        let text = text.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default();
        let text = words::harmless(text);
        if paint == Paint::Plain {
            return self.writer.write_all(crate::columns::bare(&text).as_bytes());
        }
        let has_colours = text.contains('\u{1b}');
        match &self.highlighted {
            Some(regex) if !has_colours => {
                let marked = regex.replace_all(text.as_bytes(), &b"\x1b[1;31m$0\x1b[0m"[..]);
                self.writer.write_all(&marked)?;
            }
            _ => self.writer.write_all(text.as_bytes())?,
        }
        // A colour left on must not run into what follows.
        if has_colours { self.writer.write_all(b"\x1b[0m") } else { Ok(()) }
    }

    /// Says that output is missing.
    pub fn gap(&mut self, name: &str, gap: &Gap) -> io::Result<()> {
        self.lost(name, &gap_text(gap))
    }

    /// Says in these words that output is missing.
    pub fn lost(&mut self, name: &str, text: &str) -> io::Result<()> {
        if self.form.raw {
            // Into the bytes of a job goes nothing of ours.
            return writeln!(io::stderr(), "note: {text}");
        }
        let text = format!("··· {text} ···");
        let text = self.reader.paint().text(Style::Warning, &text);
        self.end_line()?;
        let bar = if name.is_empty() { "" } else { " | " };
        writeln!(self.writer, "{name}{bar}{text}")
    }

    /// A line between lines that do not follow one another.
    pub fn cut(&mut self) -> io::Result<()> {
        self.end_line()?;
        self.writer.write_all(b"--\n")
    }

    fn end_line(&mut self) -> io::Result<()> {
        if self.open.take().is_some() { self.writer.write_all(b"\n") } else { Ok(()) }
    }

    /// Ends the last line if it has no end, since a prompt may follow.
    pub fn end(&mut self) -> io::Result<()> {
        self.end_line()?;
        self.writer.flush()
    }

    /// Hands all that was written to the reader.
    pub fn flush(&mut self) -> io::Result<()> {
        self.writer.flush()
    }
}

fn gap_text(gap: &Gap) -> String {
    let lost = match (gap.lines, gap.bytes) {
        (Some(lines), Some(bytes)) if lines > 0 => {
            format!(
                "{} ({}) lost",
                words::count(usize::try_from(lines).unwrap_or(usize::MAX), "line"),
                words::size(bytes)
            )
        }
        (_, Some(bytes)) => format!("{} lost", words::size(bytes)),
        _ => "the end may be lost".to_owned(),
    };
    let cause = match gap.cause {
        GapCause::Missing => "this part of the log was not written",
        GapCause::Damaged => "this part of the log is damaged",
        GapCause::CutShort => "whoever wrote it was killed",
    };
    format!("{lost}: {cause}")
}
