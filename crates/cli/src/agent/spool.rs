//! What an attempt has to say, on the disk until the server has taken it: it survives the death of the worker.
//!
//! A lease has a folder `<spool>/<lease>` of segments, `00000000` and on, each a sequence of sections as an outbox post holds
//! them: a byte of kind, four bytes of length, so many bytes. A segment that is taken whole is removed; when all is taken
//! the last one is cut to nothing, so that a job whose output is taken as it comes needs no room. The folder of a lease that has ended
//! becomes that of a later one: to make files and to take them away costs more than all else that is done with them.

use std::collections::{BTreeMap, VecDeque};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use api::worker::{FromWorker, OUTBOX_BYTES_MAX};
use graph::LeaseId;
use store::log::Batch;

/// A segment is ended when it has this many bytes.
const SEGMENT_BYTES: u64 = 8 << 20;

/// The most bytes that wait for one attempt: what comes then is refused as by a full disk.
pub const SPOOL_BYTES_MAX: u64 = 8 << 30;

/// What the names of folders begin with that wait for a lease.
const SPARE: &str = ".spare-";

/// Before the bytes of each section.
const HEAD_BYTES: usize = 5;

/// What a section holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// JSON of one [`FromWorker`].
    Word = 0,
    /// One batch of a log.
    Batch = 1,
}

/// Appends a section to a body.
pub fn put_section(kind: Kind, content: &[u8], body: &mut Vec<u8>) {
    body.push(kind as u8);
    let length = u32::try_from(content.len()).expect("a section is far smaller than 4 GiB");
    body.extend_from_slice(&length.to_le_bytes());
    body.extend_from_slice(content);
}

/// The sections of one lease.
#[derive(Debug)]
pub struct Spool {
    folder: PathBuf,
    /// The last segment and where it ends.
    last: (u64, File, u64),
    /// The first byte that is not taken: segment and place.
    next: (u64, u64),
    /// What is read for sending is kept open.
    reading: Option<(u64, File)>,
    waiting_bytes: u64,
    /// Words for which the disk had no room; they come after what is on the disk.
    words: VecDeque<Vec<u8>>,
    /// Of steps whose log the server wants from a byte that may be gone.
    wanted: BTreeMap<u16, u64>,
}

/// What was found of an attempt that ran when the worker died.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found {
    /// Its report is in the spool.
    Finished,
    /// It was running.
    Unfinished,
}

/// The sections that a post takes of one lease: their lengths in the spool, in order.
pub type Portion = Vec<Part>;

/// One section that is on its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// So many bytes of the disk.
    Disk(u64),
    /// The first word in memory.
    Memory,
}

impl Spool {
    /// A spool for a lease that has begun.
    ///
    /// # Errors
    /// What the file system says.
    pub fn create(spools: &Path, lease: LeaseId) -> io::Result<Self> {
        let folder = spools.join(lease.to_string());
        fs::create_dir_all(&folder)?;
        let file = open_segment(&folder, 0)?;
        Ok(Self::over(folder, (0, file, 0), 0, 0))
    }

    /// A spool for a lease that has begun, in the folder that [`Spool::leave_spare`] left.
    ///
    /// # Errors
    /// What the file system says; the folder is of no use then.
    pub fn take_over(spare: &Path, spools: &Path, lease: LeaseId) -> io::Result<Self> {
        let folder = spools.join(lease.to_string());
        fs::rename(spare, &folder)?;
        let file = open_segment(&folder, 0)?;
        file.set_len(0)?;
        Ok(Self::over(folder, (0, file, 0), 0, 0))
    }

    /// Leaves the folder of a lease, of which all is taken, to a later one; `None` if it is of no use for that.
    pub fn leave_spare(&self) -> Option<PathBuf> {
        let is_bare = self.last.0 == 0 && self.last.2 == 0 && !self.is_waiting();
        let spare = self.folder.with_file_name(format!("{SPARE}{}", self.folder.file_name()?.to_str()?));
        (is_bare && fs::rename(&self.folder, &spare).is_ok()).then_some(spare)
    }

    fn over(folder: PathBuf, last: (u64, File, u64), first: u64, waiting_bytes: u64) -> Self {
        let (words, wanted) = Default::default();
        Self { folder, last, next: (first, 0), reading: None, waiting_bytes, words, wanted }
    }

    /// The spools that an earlier life of this worker left.
    ///
    /// # Errors
    /// What the file system says.
    pub fn reopen_all(spools: &Path) -> io::Result<Vec<(LeaseId, Self, Found)>> {
        fs::create_dir_all(spools)?;
        let mut found = Vec::new();
        for entry in fs::read_dir(spools)? {
            let entry = entry?;
            if entry.file_name().to_str().is_some_and(|name| name.starts_with(SPARE)) {
                fs::remove_dir_all(entry.path())?;
                continue;
            }
            if let Some(lease) = entry.file_name().to_str().and_then(|name| name.parse().ok()) {
                let (spool, state) = Self::reopen(entry.path())?;
                found.push((LeaseId(lease), spool, state));
            }
        }
        found.sort_by_key(|(lease, ..)| *lease);
        Ok(found)
    }

    fn reopen(folder: PathBuf) -> io::Result<(Self, Found)> {
        let mut segments: Vec<u64> =
            fs::read_dir(&folder)?.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
        segments.sort_unstable();
        let mut state = Found::Unfinished;
        let mut waiting_bytes = 0;
        for segment in &segments {
            let whole = whole_length(&segment_path(&folder, *segment), &mut state)?;
            waiting_bytes += whole;
            // What a death cut off is not sent.
            OpenOptions::new().write(true).open(segment_path(&folder, *segment))?.set_len(whole)?;
        }
        let first = segments.first().copied().unwrap_or(0);
        let last = segments.last().copied().unwrap_or(0);
        let file = open_segment(&folder, last)?;
        let end = file.metadata()?.len();
        Ok((Self::over(folder, (last, file, end), first, waiting_bytes), state))
    }

    /// Adds a section.
    ///
    /// # Errors
    /// [`io::ErrorKind::StorageFull`] at [`SPOOL_BYTES_MAX`] too; and what the file system says. Nothing of it is kept then.
    pub fn append(&mut self, kind: Kind, content: &[u8]) -> io::Result<()> {
        if self.waiting_bytes + content.len() as u64 > SPOOL_BYTES_MAX {
            let text = format!("the server has not taken {SPOOL_BYTES_MAX} bytes, the most that are kept");
            return Err(io::Error::new(io::ErrorKind::StorageFull, text));
        }
        if self.last.2 >= SEGMENT_BYTES {
            let segment = self.last.0 + 1;
            self.last = (segment, open_segment(&self.folder, segment)?, 0);
        }
        let mut section = Vec::with_capacity(HEAD_BYTES + content.len());
        put_section(kind, content, &mut section);
        let (_, file, end) = &mut self.last;
        if let Err(error) = file.write_all_at(&section, *end) {
            let _ = file.set_len(*end);
            return Err(error);
        }
        *end += section.len() as u64;
        self.waiting_bytes += section.len() as u64;
        Ok(())
    }

    /// Adds a word; it is held in memory if the disk has no room, so that the end of an attempt is always told.
    pub fn say(&mut self, word: &FromWorker) {
        let text = text_of(word);
        if !self.words.is_empty() || self.append(Kind::Word, &text).is_err() {
            self.words.push_back(text);
        }
    }

    /// Whether something waits to be sent.
    pub fn is_waiting(&self) -> bool {
        self.waiting_bytes > 0 || !self.words.is_empty()
    }

    /// Adds what waits to a body: whole sections, until the body would have more than `bytes_max` bytes; at least one into an
    /// empty body. To be answered by [`Spool::taken`].
    ///
    /// # Errors
    /// What the file system says.
    pub fn read(&mut self, bytes_max: usize, body: &mut Vec<u8>) -> io::Result<Portion> {
        let mut portion = Portion::new();
        let (mut segment, mut at) = self.next;
        loop {
            if (segment, at) == (self.last.0, self.last.2) {
                break;
            }
            let file = self.reader(segment)?;
            let mut head = [0; HEAD_BYTES];
            if let Err(error) = file.read_exact_at(&mut head, at) {
                if error.kind() == io::ErrorKind::UnexpectedEof && segment < self.last.0 {
                    (segment, at) = (segment + 1, 0);
                    continue;
                }
                return Err(error);
            }
            let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
            if !body.is_empty() && body.len() + HEAD_BYTES + length > bytes_max {
                return Ok(portion);
            }
            let mut content = vec![0; length];
            file.read_exact_at(&mut content, at + HEAD_BYTES as u64)?;
            if head[0] == Kind::Batch as u8 {
                self.put_batch(content, body);
            } else {
                put_section(Kind::Word, &content, body);
            }
            portion.push(Part::Disk((HEAD_BYTES + length) as u64));
            at += (HEAD_BYTES + length) as u64;
        }
        for word in &self.words {
            if !body.is_empty() && body.len() + HEAD_BYTES + word.len() > bytes_max {
                break;
            }
            put_section(Kind::Word, word, body);
            portion.push(Part::Memory);
        }
        Ok(portion)
    }

    /// A batch as it goes out: if the server misses what comes before and that is gone, the batch says so.
    fn put_batch(&mut self, content: Vec<u8>, body: &mut Vec<u8>) {
        if !self.wanted.is_empty()
            && let Ok((mut batch, _)) = Batch::decode(&content, 0)
            && let Some(from_byte) = self.wanted.remove(&batch.key.step)
            && batch.first_byte > from_byte
        {
            batch.lost_lines.get_or_insert(0);
            let mut content = Vec::new();
            batch.encode(&mut content);
            return put_section(Kind::Batch, &content, body);
        }
        put_section(Kind::Batch, &content, body);
    }

    fn reader(&mut self, segment: u64) -> io::Result<File> {
        if self.reading.as_ref().is_none_or(|(open, _)| *open != segment) {
            self.reading = Some((segment, File::open(segment_path(&self.folder, segment))?));
        }
        self.reading.as_ref().map(|(_, file)| file.try_clone()).unwrap_or_else(|| Err(io::ErrorKind::NotFound.into()))
    }

    /// Forgets the first parts of a portion, which the server has taken for good.
    pub fn taken(&mut self, parts: &[Part]) {
        for part in parts {
            match part {
                Part::Memory => drop(self.words.pop_front()),
                Part::Disk(bytes) => {
                    self.next.1 += bytes;
                    self.waiting_bytes = self.waiting_bytes.saturating_sub(*bytes);
                    self.leave_taken();
                }
            }
        }
    }

    /// Removes segments that are taken whole, and cuts the last one if all of it is.
    fn leave_taken(&mut self) {
        while self.next.0 < self.last.0 {
            let path = segment_path(&self.folder, self.next.0);
            if fs::metadata(&path).is_ok_and(|metadata| self.next.1 < metadata.len()) {
                return;
            }
            let _ = fs::remove_file(path);
            self.reading = None;
            self.next = (self.next.0 + 1, 0);
        }
        if self.next.1 > 0 && self.next.1 == self.last.2 && self.last.1.set_len(0).is_ok() {
            (self.next.1, self.last.2) = (0, 0);
        }
    }

    /// The server lacks the log of a step from a byte on: what is still here of it goes out again, and the rest as lost.
    pub fn resend(&mut self, step: u16, from_byte: u64) {
        self.wanted.insert(step, from_byte);
        if self.next.1 > 0 {
            self.waiting_bytes += self.next.1;
            self.next.1 = 0;
        }
    }

    /// Takes all of it away.
    pub fn remove(&self) {
        let _ = fs::remove_dir_all(&self.folder);
    }
}

fn segment_path(folder: &Path, segment: u64) -> PathBuf {
    folder.join(format!("{segment:08}"))
}

fn open_segment(folder: &Path, segment: u64) -> io::Result<File> {
    OpenOptions::new().write(true).create(true).truncate(false).open(segment_path(folder, segment))
}

/// How many bytes of a segment are whole sections; notes whether a report is among them.
fn whole_length(path: &Path, state: &mut Found) -> io::Result<u64> {
    let mut file = io::BufReader::new(File::open(path)?);
    let length = file.get_ref().metadata()?.len();
    let mut whole = 0;
    let mut head = [0; HEAD_BYTES];
    while whole + HEAD_BYTES as u64 <= length {
        file.read_exact(&mut head)?;
        let section = u64::from(u32::from_le_bytes([head[1], head[2], head[3], head[4]]));
        let end = whole + HEAD_BYTES as u64 + section;
        if end > length || section > OUTBOX_BYTES_MAX as u64 {
            break;
        }
        let mut content = (&mut file).take(section);
        if head[0] == Kind::Word as u8 {
            let mut text = Vec::new();
            content.read_to_end(&mut text)?;
            if matches!(serde_json::from_slice(&text), Ok(FromWorker::Finished { .. })) {
                *state = Found::Finished;
            }
        } else {
            io::copy(&mut content, &mut io::sink())?;
        }
        whole = end;
    }
    Ok(whole)
}

/// The largest report that is sent whole; a larger one loses the texts of its tests.
const REPORT_BYTES_MAX: usize = OUTBOX_BYTES_MAX / 2;

/// A word as it is sent. Of a report that is too large only what matters less is left out, and it says so.
pub fn text_of(word: &FromWorker) -> Vec<u8> {
    let text = |word: &FromWorker| serde_json::to_vec(word).expect("a word is JSON");
    let whole = text(word);
    let FromWorker::Finished { lease, report } = word else { return whole };
    if whole.len() <= REPORT_BYTES_MAX {
        return whole;
    }
    let mut report = report.clone();
    report.notes.push(format!("the texts of {} tests were left out: the report is too large", report.tests.len()));
    for test in &mut report.tests {
        test.output.clear();
        test.message.truncate(test.message.floor_char_boundary(200));
    }
    let shorter = text(&FromWorker::Finished { lease: *lease, report: report.clone() });
    if shorter.len() <= REPORT_BYTES_MAX {
        return shorter;
    }
    report.notes.push(format!("{} tests were left out: the report is too large", report.tests.len()));
    report.tests.clear();
    report.summary.clear();
    text(&FromWorker::Finished { lease: *lease, report })
}

#[cfg(test)]
mod tests {
    use graph::{AttemptReport, BuildId, Outcome, Timestamp};
    use store::log::{Stream, StreamKey};

    use super::*;

    fn batch(first_byte: u64, text: &[u8]) -> Vec<u8> {
        let mut batch = Batch::new(BuildId(1), StreamKey { attempt: 1, step: 0 }, first_byte);
        assert!(batch.push(Stream::Stdout, 1, text).is_empty());
        let mut bytes = Vec::new();
        batch.encode(&mut bytes);
        bytes
    }

    fn finished() -> FromWorker {
        let report = AttemptReport::of(Outcome::passed(), Timestamp(1));
        FromWorker::Finished { lease: LeaseId(7), report: Box::new(report) }
    }

    fn read(spool: &mut Spool, bytes_max: usize) -> (Portion, Vec<u8>) {
        let mut body = Vec::new();
        (spool.read(bytes_max, &mut body).expect("it reads"), body)
    }

    #[test]
    fn what_is_taken_is_gone_and_the_rest_survives() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::create(folder.path(), LeaseId(7)).expect("it begins");
        spool.append(Kind::Batch, &batch(0, b"one")).expect("room");
        spool.append(Kind::Batch, &batch(3, b"two")).expect("room");
        let (portion, _) = read(&mut spool, 1 << 20);
        spool.taken(&portion[..1]);
        spool.say(&finished());
        drop(spool);
        let mut left = Spool::reopen_all(folder.path()).expect("it reopens");
        let (lease, mut spool, state) = left.pop().expect("one lease");
        assert_eq!((lease, state, left.len()), (LeaseId(7), Found::Finished, 0));
        let (portion, body) = read(&mut spool, 1 << 20);
        // What was taken of a segment is sent again after a death: the server knows by the bytes' numbers.
        assert_eq!(portion.len(), 3);
        assert!(body.ends_with(&serde_json::to_vec(&finished()).expect("JSON")));
        spool.taken(&portion);
        assert!(!spool.is_waiting());
        assert_eq!(fs::metadata(segment_path(&folder.path().join("7"), 0)).expect("a segment").len(), 0);
    }

    #[test]
    fn a_folder_is_used_again_and_has_nothing_of_before() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::create(folder.path(), LeaseId(7)).expect("it begins");
        spool.append(Kind::Batch, &batch(0, b"one")).expect("room");
        assert_eq!(spool.leave_spare(), None, "something waits");
        let (portion, _) = read(&mut spool, 1 << 20);
        spool.taken(&portion);
        let spare = spool.leave_spare().expect("nothing is in it");
        let mut later = Spool::take_over(&spare, folder.path(), LeaseId(8)).expect("it begins");
        later.append(Kind::Batch, &batch(0, b"two")).expect("room");
        drop((spool, later));
        fs::create_dir(folder.path().join(".spare-3")).expect("a folder");
        let left = Spool::reopen_all(folder.path()).expect("it reopens");
        let left: Vec<_> =
            left.into_iter().map(|(lease, mut spool, _)| (lease, read(&mut spool, 1 << 20).0.len())).collect();
        assert_eq!((left, fs::read_dir(folder.path()).expect("a folder").count()), (vec![(LeaseId(8), 1)], 1));
    }

    #[test]
    fn what_a_death_cut_off_is_not_sent() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::create(folder.path(), LeaseId(7)).expect("it begins");
        spool.append(Kind::Batch, &batch(0, b"one")).expect("room");
        spool.append(Kind::Batch, &batch(3, b"two")).expect("room");
        let path = segment_path(&folder.path().join("7"), 0);
        let length = fs::metadata(&path).expect("a segment").len();
        OpenOptions::new().write(true).open(&path).and_then(|file| file.set_len(length - 1)).expect("it is cut");
        let (_, mut spool, state) = Spool::reopen_all(folder.path()).expect("it reopens").remove(0);
        assert_eq!((read(&mut spool, 1 << 20).0.len(), state), (1, Found::Unfinished));
    }

    #[test]
    fn a_flood_goes_through_segments_that_vanish() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::create(folder.path(), LeaseId(7)).expect("it begins");
        // Bytes that do not compress: each section keeps its size.
        let mut noise = vec![0; 1 << 20];
        blake3::Hasher::new().finalize_xof().fill(&mut noise);
        let sections = 3 * SEGMENT_BYTES / (1 << 20);
        for number in 0..sections {
            spool.append(Kind::Batch, &batch(number << 20, &noise)).expect("room");
        }
        let lease = folder.path().join("7");
        assert!(fs::read_dir(&lease).expect("a folder").count() >= 3);
        let mut sent = 0;
        while spool.is_waiting() {
            let (portion, body) = read(&mut spool, 1 << 20);
            assert!(body.len() < 2 << 20, "{}", body.len());
            sent += portion.len() as u64;
            spool.taken(&portion);
        }
        assert_eq!((sent, fs::read_dir(&lease).expect("a folder").count()), (sections, 1));
    }

    #[test]
    fn what_is_wanted_again_and_gone_is_told_as_lost() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut spool = Spool::create(folder.path(), LeaseId(7)).expect("it begins");
        spool.append(Kind::Batch, &batch(0, b"one")).expect("room");
        let (portion, _) = read(&mut spool, 1 << 20);
        spool.taken(&portion);
        spool.resend(0, 0);
        spool.append(Kind::Batch, &batch(3, b"two")).expect("room");
        let (_, body) = read(&mut spool, 1 << 20);
        let (sent, _) = Batch::decode(&body[HEAD_BYTES..], 0).expect("a batch");
        assert_eq!((sent.first_byte, sent.lost_lines.is_some()), (3, true));
    }

    #[test]
    fn a_report_is_never_too_large() {
        let mut report = AttemptReport::of(Outcome::passed(), Timestamp(1));
        let test = graph::TestCase {
            suite: "s".to_owned(),
            name: "n".to_owned(),
            outcome: graph::TestOutcome::Passed,
            duration_ms: 1,
            message: String::new(),
            output: "x".repeat(10_000),
        };
        report.tests = vec![test; 1_000];
        let text = text_of(&FromWorker::Finished { lease: LeaseId(1), report: Box::new(report) });
        assert!(text.len() <= REPORT_BYTES_MAX, "{}", text.len());
        assert!(String::from_utf8_lossy(&text).contains("texts of 1000 tests were left out"));
    }
}
