//! Cuts what steps print into lines, each stream of each step on its own, with bounded memory.

use std::collections::BTreeMap;

use graph::JobName;

use super::Stream;

/// The longest line shown; the rest of a longer one comes as further lines. Logs keep it whole.
pub const LINE_BYTES_MAX: usize = 16 * 1024;

/// Beginnings of lines that have not ended yet.
#[derive(Default)]
pub struct Lines {
    open: BTreeMap<(JobName, u16, Stream), Vec<u8>>,
}

impl Lines {
    /// Calls `line` for each line that `bytes` completes.
    pub fn push(&mut self, job: &JobName, step: u16, stream: Stream, bytes: &[u8], mut line: impl FnMut(&str)) {
        let mut rest = bytes;
        let key = (job.clone(), step, stream);
        if let Some(open) = self.open.get_mut(&key) {
            let end = rest.iter().position(|&byte| byte == b'\n');
            let taken = end.map_or(rest.len(), |end| end + 1).min(LINE_BYTES_MAX);
            open.extend_from_slice(&rest[..end.unwrap_or(taken).min(taken)]);
            rest = &rest[taken..];
            if end.is_none_or(|end| end >= taken) && open.len() < LINE_BYTES_MAX {
                return;
            }
            line(&String::from_utf8_lossy(open));
            self.open.remove(&key);
        }
        while !rest.is_empty() {
            let window = &rest[..rest.len().min(LINE_BYTES_MAX)];
            match window.iter().position(|&byte| byte == b'\n') {
                Some(end) => {
                    line(&String::from_utf8_lossy(&rest[..end]));
                    rest = &rest[end + 1..];
                }
                None if window.len() == LINE_BYTES_MAX => {
                    line(&String::from_utf8_lossy(window));
                    rest = &rest[LINE_BYTES_MAX..];
                }
                None => {
                    self.open.insert(key, rest.to_vec());
                    return;
                }
            }
        }
    }

    /// Calls `line` for what the step left without an end of line.
    pub fn finish(&mut self, job: &JobName, step: u16, mut line: impl FnMut(Stream, &str)) {
        for stream in [Stream::Stdout, Stream::Stderr] {
            if let Some(open) = self.open.remove(&(job.clone(), step, stream)) {
                line(stream, &String::from_utf8_lossy(&open));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{LINE_BYTES_MAX, Lines, Stream};

    fn lines(chunks: &[&[u8]]) -> Vec<String> {
        let mut found = Vec::new();
        let mut lines = Lines::default();
        let job = "a".into();
        for chunk in chunks {
            lines.push(&job, 0, Stream::Stdout, chunk, |line| found.push(line.to_owned()));
        }
        lines.finish(&job, 0, |_, line| found.push(line.to_owned()));
        found
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut() {
        let text = b"one\n\ntwo\r\nthree";
        let whole = lines(&[text]);
        assert_eq!(whole, ["one", "", "two\r", "three"]);
        for at in 0..=text.len() {
            assert_eq!(lines(&[&text[..at], &text[at..]]), whole, "cut at {at}");
        }
    }

    #[test]
    fn a_long_line_comes_in_bounded_pieces() {
        let long = vec![b'x'; LINE_BYTES_MAX * 2 + 10];
        assert_eq!(lines(&[&long]).iter().map(String::len).collect::<Vec<_>>(), [LINE_BYTES_MAX, LINE_BYTES_MAX, 10]);
        let pieces: Vec<&[u8]> = long.chunks(1000).collect();
        let found = lines(&pieces);
        assert_eq!(found.iter().map(String::len).sum::<usize>(), long.len());
        assert!(found.iter().all(|line| line.len() <= LINE_BYTES_MAX + 1000));
    }
}
