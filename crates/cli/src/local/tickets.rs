//! Tickets: files of the data folder by which the processes that run builds of one project stand in line. Nothing here waits.
//!
//! `turns/groups/KEY-NUMBER` is the ticket of a job for a concurrency group; the lowest number of a key has its turn. `turns/operations/KEY` is a
//! link that says whose turn an operation is: one link is made by one process alone. Each says whose it is ([`Owner`]), and counts until it is
//! removed or its build is no longer claimed, which is so as soon as its process has ended, however that was. One that does not count is removed by
//! whoever finds it. `turns/lock` is held while a ticket is drawn, so that their numbers are the order of arrival, and while one of another process is removed.

use std::cell::{Cell, OnceCell, RefCell};
use std::collections::HashSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use graph::{BuildId, Digest, JobName, Trust};
use rustix::fs::{FlockOperation, flock};
use rustix::io::retry_on_intr;
use serde::{Deserialize, Serialize};
use store::Store;

use super::clock::now;

/// The most operations that are looked at for tickets of dead processes after one run.
const SWEPT_MAX: usize = 1000;
/// How often an operation is tried that others take and let go meanwhile.
const TRIES: u32 = 100;

/// A job, over all builds of the project.
pub type JobKey = (BuildId, JobName);

/// Whose a ticket is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Owner {
    /// The build.
    pub build: BuildId,
    /// Its job.
    pub job: JobName,
    /// What no other ticket has.
    pub mark: String,
    /// The jobs that wait for this build, the nearest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub above: Vec<JobKey>,
}

impl Owner {
    fn key(&self) -> JobKey {
        (self.build, self.job.clone())
    }

    /// What its link says: `BUILD MARK JOB`. Below 60 bytes a link takes no block of the disk, which makes it ten times as quick.
    fn link(&self) -> String {
        format!("{} {} {}", self.build, self.mark, self.job)
    }

    fn of_link(text: &str) -> Option<Self> {
        let mut parts = text.splitn(3, ' ');
        let build = BuildId(parts.next()?.parse().ok()?);
        let (mark, job) = (parts.next()?.to_owned(), JobName::from(parts.next()?));
        Some(Self { build, job, mark, above: Vec::new() })
    }
}

/// A ticket as it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// What it is for; the same for all that want the same.
    pub key: String,
    /// Its place among them.
    pub number: u64,
    /// Whose it is.
    pub owner: Owner,
}

/// What an operation's link says: it is free, or somebody has it.
pub enum Link {
    /// It is now ours.
    Ours(Ticket),
    /// Somebody else's turn.
    Of(Ticket),
}

/// The tickets of a project, as one process sees and draws them.
pub struct Tickets {
    folder: PathBuf,
    build: BuildId,
    store: Arc<dyn Store>,
    lock: OnceCell<File>,
    /// Begins the marks of this process.
    stamp: String,
    n_marks: Cell<u64>,
    /// The marks of tickets that this process has.
    own: RefCell<HashSet<String>>,
}

/// The key of a concurrency group.
pub fn group_key(group: &str, trust: Trust) -> String {
    let mut hasher = blake3::Hasher::new();
    hasher.update(trust_word(trust).as_bytes()).update(group.as_bytes());
    hasher.finalize().to_hex()[..32].to_owned()
}

/// The key of an operation.
pub fn operation_key(operation: Digest, trust: Trust) -> String {
    format!("{operation}-{}", trust_word(trust))
}

fn trust_word(trust: Trust) -> &'static str {
    match trust {
        Trust::Trusted => "trusted",
        Trust::Untrusted => "untrusted",
    }
}

impl Tickets {
    /// The tickets of the project whose data folder this is, for a process that has claimed `build`.
    pub fn new(data: &Path, build: BuildId, store: Arc<dyn Store>) -> Self {
        let stamp = format!("{:x}.{:x}", std::process::id(), now().0);
        let (lock, n_marks, own) = (OnceCell::new(), Cell::new(0), RefCell::default());
        Self { folder: data.join("turns"), build, store, lock, stamp, n_marks, own }
    }

    /// Draws a ticket for a group. With it all tickets for groups that others had by then, in order.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn draw(&self, key: &str, job: &JobName, above: &[JobKey]) -> io::Result<(Ticket, Vec<Ticket>)> {
        self.locked(|| {
            let others = self.counting()?;
            let last = others.iter().filter(|ticket| ticket.key == key).map(|ticket| ticket.number).max();
            let owner = self.owner(job, above);
            let ticket = Ticket { key: key.to_owned(), number: last.unwrap_or_default() + 1, owner };
            let path = self.group_path(&ticket);
            let text = serde_json::to_vec(&ticket.owner).map_err(io::Error::from)?;
            if let Err(error) = fs::write(&path, text) {
                let _ = fs::remove_file(&path);
                return Err(error);
            }
            self.own.borrow_mut().insert(ticket.owner.mark.clone());
            Ok((ticket, others))
        })
    }

    /// All tickets for groups, by key and number.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn all(&self) -> io::Result<Vec<Ticket>> {
        self.locked(|| self.counting())
    }

    /// Takes the turn of an operation if it is free.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn take_operation(&self, key: &str, job: &JobName) -> io::Result<Link> {
        let path = self.operations().join(key);
        let owner = self.owner(job, &[]);
        let text = owner.link();
        for _ in 0..TRIES {
            match symlink(&text, &path) {
                Ok(()) => {
                    self.own.borrow_mut().insert(owner.mark.clone());
                    return Ok(Link::Ours(Ticket { key: key.to_owned(), number: 0, owner }));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => fs::create_dir_all(self.operations())?,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => match self.linked(&path)? {
                    Some((_, Some(owner))) if self.counts(&owner)? => {
                        return Ok(Link::Of(Ticket { key: key.to_owned(), number: 0, owner }));
                    }
                    Some((said, _)) => self.unlink(&path, &said)?,
                    None => {}
                },
                Err(error) => return Err(error),
            }
        }
        Err(io::ErrorKind::ResourceBusy.into())
    }

    /// Gives a ticket of this process back.
    pub fn give_back(&self, ticket: &Ticket) {
        self.own.borrow_mut().remove(&ticket.owner.mark);
        // What cannot be removed counts no longer than this process lives.
        let _ = fs::remove_file(self.path(ticket));
    }

    /// Removes a ticket of which the process that runs its build knows nothing: it is of one that ran the build before.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn discard(&self, ticket: &Ticket) -> io::Result<()> {
        if ticket.number == 0 {
            let path = self.path(ticket);
            return match self.linked(&path)? {
                Some((said, Some(owner))) if owner.mark == ticket.owner.mark => self.unlink(&path, &said),
                _ => Ok(()),
            };
        }
        self.locked(|| {
            let is_it = self.counting()?.iter().any(|found| found.owner.mark == ticket.owner.mark);
            if is_it { remove(&self.path(ticket)) } else { Ok(()) }
        })
    }

    /// Removes what dead processes have left.
    ///
    /// # Errors
    /// As the medium refuses.
    pub fn sweep(&self) -> io::Result<()> {
        if !self.folder.is_dir() {
            return Ok(());
        }
        self.all()?;
        let entries = match fs::read_dir(self.operations()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            entries => entries?,
        };
        for entry in entries.take(SWEPT_MAX) {
            let path = entry?.path();
            match self.linked(&path)? {
                Some((_, Some(owner))) if self.counts(&owner)? => {}
                Some((said, _)) => self.unlink(&path, &said)?,
                None => {}
            }
        }
        Ok(())
    }

    fn groups(&self) -> PathBuf {
        self.folder.join("groups")
    }

    fn operations(&self) -> PathBuf {
        self.folder.join("operations")
    }

    fn group_path(&self, ticket: &Ticket) -> PathBuf {
        self.groups().join(format!("{}-{}", ticket.key, ticket.number))
    }

    fn path(&self, ticket: &Ticket) -> PathBuf {
        if ticket.number == 0 { self.operations().join(&ticket.key) } else { self.group_path(ticket) }
    }

    fn owner(&self, job: &JobName, above: &[JobKey]) -> Owner {
        self.n_marks.set(self.n_marks.get() + 1);
        let mark = format!("{}.{:x}", self.stamp, self.n_marks.get());
        Owner { build: self.build, job: job.clone(), mark, above: above.to_vec() }
    }

    /// Whether somebody lives whose ticket this is.
    fn counts(&self, owner: &Owner) -> io::Result<bool> {
        if owner.build == self.build {
            return Ok(self.own.borrow().contains(&owner.mark));
        }
        Ok(self.store.claimant(owner.build).map_err(io::Error::other)?.is_some())
    }

    /// The tickets for groups that count; others are removed. The lock is held.
    fn counting(&self) -> io::Result<Vec<Ticket>> {
        let mut tickets = Vec::new();
        for entry in fs::read_dir(self.groups())? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let named = name.rsplit_once('-').and_then(|(key, number)| Some((key.to_owned(), number.parse().ok()?)));
            let text = match fs::read(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                text => text?,
            };
            // Whoever wrote half of one died over it: the lock was his.
            let owner = serde_json::from_slice::<Owner>(&text).ok();
            match (named, owner) {
                (Some((key, number)), Some(owner)) if self.counts(&owner)? => {
                    tickets.push(Ticket { key, number, owner });
                }
                _ => remove(&path)?,
            }
        }
        tickets.sort_by(|left, right| (&left.key, left.number).cmp(&(&right.key, right.number)));
        Ok(tickets)
    }

    /// What a link says, and whose turn that is; `None` if it is gone.
    fn linked(&self, path: &Path) -> io::Result<Option<(PathBuf, Option<Owner>)>> {
        let said = match fs::read_link(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            said => said?,
        };
        let owner = said.to_str().and_then(Owner::of_link);
        Ok(Some((said, owner)))
    }

    /// Removes a link that still says this.
    fn unlink(&self, path: &Path, said: &Path) -> io::Result<()> {
        self.locked(|| match self.linked(path)? {
            Some((now, _)) if now == said => remove(path),
            _ => Ok(()),
        })
    }

    fn locked<T>(&self, work: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let lock = match self.lock.get() {
            Some(lock) => lock,
            None => {
                fs::create_dir_all(self.groups())?;
                let path = self.folder.join("lock");
                let lock = OpenOptions::new().write(true).create(true).truncate(false).open(path)?;
                self.lock.get_or_init(|| lock)
            }
        };
        retry_on_intr(|| flock(lock, FlockOperation::LockExclusive))?;
        let done = work();
        flock(lock, FlockOperation::Unlock)?;
        done
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// The tickets that are to go before one, in order.
pub fn before<'a>(all: &'a [Ticket], mine: &Ticket) -> impl Iterator<Item = &'a Ticket> {
    let (key, number) = (mine.key.clone(), mine.number);
    all.iter().filter(move |ticket| ticket.key == key && ticket.number < number)
}

/// Whether the owner of a ticket waits for that of another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// It asked for the other's build, or for one above it.
    Above,
    /// By way of other tickets.
    InRing,
}

/// A ticket before this one whose owner waits for this one's, so that neither would ever go on. `reach` says which waits count.
pub fn ring<'a>(all: &'a [Ticket], mine: &Ticket, reach: Reach) -> Option<(&'a Ticket, Waiting)> {
    let is_above = |ticket: &Ticket| mine.owner.above.contains(&ticket.owner.key());
    if let Some(holder) = before(all, mine).find(|ticket| is_above(ticket)) {
        return Some((holder, Waiting::Above));
    }
    // Nobody waits for a build that no job asked for.
    if reach == Reach::Above || mine.owner.above.is_empty() {
        return None;
    }
    let is_behind = |first: &&Ticket| {
        let (mut open, mut seen) = (vec![*first], HashSet::from([&first.owner.mark]));
        while let Some(ticket) = open.pop() {
            if is_above(ticket) {
                return true;
            }
            // It goes on when its builds have ended, and those before it.
            let key = ticket.owner.key();
            let below = all.iter().filter(|other| other.owner.above.contains(&key));
            open.extend(below.chain(before(all, ticket)).filter(|other| seen.insert(&other.owner.mark)));
        }
        false
    };
    before(all, mine).find(is_behind).map(|holder| (holder, Waiting::InRing))
}

/// Which waits of others count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Only those of the jobs above: the others are canceled by the newcomer.
    Above,
    /// All.
    All,
}

#[cfg(test)]
mod tests {
    use store::SqliteStore;

    use super::*;

    /// `GROUP-NUMBER BUILD.JOB < BUILD.JOB < …`, the last of them above the others.
    fn ticket(text: &str) -> Ticket {
        let job = |text: &str| {
            let (build, job) = text.split_once('.').expect("a build and a job");
            (BuildId(build.parse().expect("a number")), JobName::from(job))
        };
        let (place, owners) = text.split_once(' ').expect("a place and an owner");
        let (key, number) = place.split_once('-').expect("a group and a number");
        let mut owners = owners.split(" < ").map(job);
        let (build, job) = owners.next().expect("an owner");
        let owner = Owner { build, job, mark: text.to_owned(), above: owners.collect() };
        Ticket { key: key.to_owned(), number: number.parse().expect("a number"), owner }
    }

    #[track_caller]
    fn check(others: &[&str], mine: &str, expected: Option<(&str, Waiting)>) {
        let others: Vec<Ticket> = others.iter().map(|text| ticket(text)).collect();
        let found = ring(&others, &ticket(mine), Reach::All);
        assert_eq!(found.map(|(ticket, waiting)| (ticket.owner.mark.as_str(), waiting)), expected);
    }

    #[test]
    fn who_would_wait_for_itself_is_found() {
        check(&["g-1 1.a"], "g-2 2.a", None);
        check(&["g-1 1.a"], "g-2 2.b < 1.a", Some(("g-1 1.a", Waiting::Above)));
        check(&["g-1 1.a"], "g-2 3.b < 2.x < 1.a", Some(("g-1 1.a", Waiting::Above)));
        check(&["h-1 1.a"], "g-2 2.b < 1.a", None);
        // Each of two jobs holds a group that a build below the other wants.
        check(&["g-1 1.a", "h-1 2.a", "h-2 3.b < 1.a"], "g-2 4.b < 2.a", Some(("g-1 1.a", Waiting::InRing)));
        check(&["g-1 1.a", "h-1 2.a"], "h-2 3.b < 1.a", None);
        // One that waits itself is waited for, too.
        check(&["g-1 9.a", "g-2 1.c", "h-1 2.a", "h-2 3.b < 9.a"], "g-3 4.b < 2.a", Some(("g-1 9.a", Waiting::InRing)));
    }

    #[test]
    fn tickets_count_as_long_as_their_build_is_claimed() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let store = |_: u64| Arc::new(SqliteStore::open(folder.path()).expect("a store")) as Arc<dyn Store>;
        let of = |build: u64| Tickets::new(folder.path(), BuildId(build), store(build));
        let (first, second, third) = (of(1), of(2), of(3));
        let claimed = |tickets: &Tickets, build| tickets.store.claim(BuildId(build)).expect("the store answers");
        let claim = claimed(&first, 1).expect("it is free");
        let _claims = (claimed(&second, 2).expect("it is free"), claimed(&third, 3).expect("it is free"));
        let job = JobName::from("a");
        let (one, others) = first.draw("g", &job, &[]).expect("a ticket");
        assert_eq!((one.number, others.len()), (1, 0));
        let (two, others) = second.draw("g", &job, &[]).expect("a ticket");
        assert_eq!((two.number, others), (2, vec![one.clone()]));
        assert!(matches!(first.take_operation("o", &job).expect("it is tried"), Link::Ours(_)));
        let Link::Of(held) = second.take_operation("o", &job).expect("it is tried") else { panic!("it is taken") };
        assert_eq!(held.owner.build, BuildId(1));
        // As if its process had died.
        drop(claim);
        assert_eq!(second.all().expect("tickets"), std::slice::from_ref(&two));
        assert!(matches!(second.take_operation("o", &job).expect("it is tried"), Link::Ours(_)));
        // Another process runs the build now, and knows nothing of its tickets.
        second.give_back(&two);
        let _claim = claimed(&first, 1).expect("it is free");
        let (one, _) = first.draw("g", &job, &[]).expect("a ticket");
        let again = of(1);
        assert_eq!(again.all().expect("tickets"), []);
        assert_eq!(third.draw("g", &job, &[]).expect("a ticket").0.number, 1);
        first.discard(&one).expect("it is looked for");
        assert_eq!(third.all().expect("tickets").len(), 1, "a ticket of the same place is not taken for it");
    }

    #[test]
    fn what_dead_processes_have_left_is_swept() {
        let folder = tempfile::tempdir().expect("a scratch folder");
        let store = || Arc::new(SqliteStore::open(folder.path()).expect("a store")) as Arc<dyn Store>;
        let dead = Tickets::new(folder.path(), BuildId(1), store());
        dead.draw("g", &JobName::from("a"), &[]).expect("a ticket");
        dead.take_operation("o", &JobName::from("a")).expect("it is tried");
        let files = |name: &str| fs::read_dir(folder.path().join("turns").join(name)).expect("a folder").count();
        assert_eq!((files("groups"), files("operations")), (1, 1));
        Tickets::new(folder.path(), BuildId(2), store()).sweep().expect("it is swept");
        assert_eq!((files("groups"), files("operations")), (0, 0));
    }
}
