//! The jobs of a build as every part of its page takes them: in the pipeline's order, legs of a matrix as one, and of all these
//! what the reader asked to see.

use std::collections::{BTreeMap, BTreeSet};

use api::job::Job;

use crate::words::Standing;
use crate::{Ask, paths};

/// The most rows that one part of the page lists; the rest is a page further.
pub(crate) const ROWS_MAX: usize = 200;
/// The most legs that are listed below their family; the rest has a list of its own.
pub(crate) const LEGS_MAX: usize = 20;
/// The most jobs of the waterfall whose steps are shown at once; one more, and the one opened first is closed.
pub(crate) const OPEN_MAX: usize = 10;
/// What stands between names in the query: no job's name has a control character.
const BETWEEN: char = '\n';

/// A job that stands alone, or the legs of one matrix.
pub(crate) struct Unit<'j> {
    /// The job's name, or what the names of all legs begin with.
    pub name: &'j str,
    /// Never empty; in order of name.
    pub jobs: Vec<&'j Job>,
}

impl<'j> Unit<'j> {
    /// Whether it is a matrix with several legs.
    pub(crate) fn is_family(&self) -> bool {
        self.jobs.len() > 1
    }

    /// How the worst of it stands.
    pub(crate) fn standing(&self) -> Standing {
        self.jobs.iter().map(|job| Standing::of_job(job)).min().unwrap_or(Standing::Waiting)
    }

    /// How many legs stand how: `1 failed, 4 passed`.
    pub(crate) fn tally(&self) -> String {
        tally(self.jobs.iter().copied())
    }

    /// The legs to look at, at most [`LEGS_MAX`]: all if they are few, else those that failed, ask or run.
    pub(crate) fn legs_shown(&self) -> Vec<&'j Job> {
        let all = self.jobs.len() <= LEGS_MAX;
        let is_news = |job: &&&Job| all || Standing::of_job(job) < Standing::Waiting;
        let mut legs: Vec<&Job> = self.jobs.iter().filter(is_news).copied().collect();
        legs.sort_by_key(|job| Standing::of_job(job));
        legs.truncate(LEGS_MAX);
        if all { self.jobs.clone() } else { legs }
    }
}

/// How many of these jobs stand how.
pub(crate) fn tally<'j>(jobs: impl Iterator<Item = &'j Job>) -> String {
    let mut counts: BTreeMap<Standing, u64> = BTreeMap::new();
    for job in jobs {
        *counts.entry(Standing::of_job(job)).or_default() += 1;
    }
    let said: Vec<String> = counts.iter().map(|(standing, n)| format!("{n} {}", standing.word())).collect();
    said.join(", ")
}

/// What the names of a matrix's legs begin with: the job's id.
fn head(name: &str) -> &str {
    name.split_once('/').map_or(name, |(head, _)| head)
}

/// Jobs in the pipeline's order, legs of one matrix together.
pub(crate) fn units(jobs: &[Job]) -> Vec<Unit<'_>> {
    let mut by_head: BTreeMap<(&str, bool), Vec<&Job>> = BTreeMap::new();
    for job in jobs {
        by_head.entry((head(&job.name), job.name.contains('/'))).or_default().push(job);
    }
    let mut units: Vec<Unit> = by_head
        .into_iter()
        .map(|((head, _), jobs)| Unit { name: if jobs.len() > 1 { head } else { &jobs[0].name }, jobs })
        .collect();
    units.sort_by_key(|unit| (unit.jobs.iter().map(|job| job.order).min(), unit.name));
    units
}

/// What is drawn beside the tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    /// The drawing.
    Graph,
    /// All jobs in rows.
    Table,
    /// When what ran.
    Time,
    /// What ran beside what.
    Flame,
}

impl View {
    /// All, in the order of their links.
    pub(crate) const ALL: [Self; 4] = [Self::Graph, Self::Table, Self::Time, Self::Flame];

    /// As the query and the cookie have it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Graph => "graph",
            Self::Table => "table",
            Self::Time => "time",
            Self::Flame => "flame",
        }
    }

    /// As people read it.
    pub(crate) fn title(self) -> &'static str {
        match self {
            Self::Graph => "Graph",
            Self::Table => "Table",
            Self::Time => "Waterfall",
            Self::Flame => "Flame",
        }
    }
}

/// How the tree is ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// As the pipeline has it.
    Pipeline,
    /// What failed first.
    State,
}

/// By what the table is sorted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sort {
    /// As the pipeline has it.
    Pipeline,
    /// What failed first.
    State,
    /// By name.
    Name,
    /// The longest first.
    Took,
    /// The first that began first.
    Began,
}

impl Sort {
    fn of(word: &str) -> Self {
        match word {
            "state" => Self::State,
            "name" => Self::Name,
            "took" => Self::Took,
            "began" => Self::Began,
            _ => Self::Pipeline,
        }
    }

    /// As the query has it.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Pipeline => "",
            Self::State => "state",
            Self::Name => "name",
            Self::Took => "took",
            Self::Began => "began",
        }
    }
}

/// What the reader asked to see.
pub(crate) struct Choice {
    /// `None` if nobody said.
    pub view: Option<View>,
    pub order: Order,
    pub sort: Sort,
    /// A part of the names wanted, in lower case; empty for all.
    pub text: String,
    /// How the wanted jobs stand.
    pub state: Option<Standing>,
    /// The matrix of which all legs are wanted; empty for none.
    pub family: String,
    /// The matrices that are drawn leg by leg.
    pub unfolded: BTreeSet<String>,
    /// How many rows are passed over.
    pub from: usize,
    /// The jobs that have a step with the text in its name; known once they were asked for.
    pub with_step: BTreeSet<String>,
    /// The jobs whose steps are to be shown, at most [`OPEN_MAX`]; `None` if nobody said.
    opened: Option<Vec<String>>,
    path: String,
    query: BTreeMap<String, String>,
}

impl Choice {
    /// What a request for the page of the build at `path` asks to see.
    pub(crate) fn of(ask: &Ask, path: String) -> Self {
        let view = ask.choice("view");
        let names = ["q", "state", "family", "unfold", "sort", "view", "by", "open"];
        let opened = |said: &String| -> Vec<String> {
            said.split(BETWEEN).filter(|name| !name.is_empty()).take(OPEN_MAX).map(str::to_owned).collect()
        };
        Self {
            view: View::ALL.into_iter().find(|known| known.word() == view),
            order: if ask.choice("by") == "state" { Order::State } else { Order::Pipeline },
            sort: Sort::of(ask.text("sort")),
            text: ask.text("q").trim().to_lowercase(),
            state: Standing::ALL.into_iter().find(|standing| standing.word() == ask.text("state")),
            family: ask.text("family").to_owned(),
            unfolded: ask.text("unfold").split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect(),
            from: ask.number("from").and_then(|from| usize::try_from(from).ok()).unwrap_or(0),
            with_step: BTreeSet::new(),
            opened: ask.query.get("open").map(opened),
            path,
            query: ask.query.iter().filter(|(name, _)| names.contains(&name.as_str())).map(own).collect(),
        }
    }

    /// Whether not all jobs are wanted.
    pub(crate) fn is_narrowed(&self) -> bool {
        !self.text.is_empty() || self.state.is_some() || !self.family.is_empty()
    }

    /// The jobs that are wanted, in the order of the list.
    pub(crate) fn wanted<'j>(&self, jobs: &'j [Job]) -> Vec<&'j Job> {
        let has_text = |job: &Job| self.has_text(job) || self.with_step.contains(&job.name);
        let has_state = |job: &Job| self.state.is_none_or(|state| Standing::of_job(job) == state);
        let is_of = |job: &Job| self.family.is_empty() || job.name.contains('/') && head(&job.name) == self.family;
        jobs.iter().filter(|job| has_text(job) && has_state(job) && is_of(job)).collect()
    }

    /// Whether a job's own name has the text.
    fn has_text(&self, job: &Job) -> bool {
        self.text.is_empty() || [&job.name, &job.title].iter().any(|name| name.to_lowercase().contains(&self.text))
    }

    /// The jobs whose steps are shown: those that were opened, else the first that were found by a step alone.
    pub(crate) fn open<'j>(&self, jobs: &'j [Job]) -> Vec<&'j Job> {
        if let Some(opened) = &self.opened {
            return opened.iter().filter_map(|name| jobs.iter().find(|job| job.name == *name)).collect();
        }
        let found = self.wanted(jobs).into_iter().skip(self.from).take(ROWS_MAX);
        found.filter(|job| self.with_step.contains(&job.name) && !self.has_text(job)).take(OPEN_MAX).collect()
    }

    /// The page with the steps of this job shown, if they are not, else without them.
    pub(crate) fn toggled(&self, job: &Job, open: &[&Job]) -> String {
        let mut names: Vec<&str> =
            open.iter().map(|open| open.name.as_str()).filter(|name| *name != job.name).collect();
        if names.len() == open.len() {
            names.push(&job.name);
            names.drain(..names.len().saturating_sub(OPEN_MAX));
        }
        // With none left, what a search would open stays closed.
        let none = if self.with_step.is_empty() { String::new() } else { BETWEEN.to_string() };
        let said = if names.is_empty() { none } else { names.join(&BETWEEN.to_string()) };
        let from = if self.from == 0 { String::new() } else { self.from.to_string() };
        self.link(&[("open", &said), ("from", &from)])
    }

    /// The page with this changed of what was asked; an empty value takes a name away.
    pub(crate) fn link(&self, changes: &[(&str, &str)]) -> String {
        let mut query = self.query.clone();
        for (name, value) in changes {
            query.insert((*name).to_owned(), (*value).to_owned());
        }
        let said = query.iter().filter(|(_, value)| !value.is_empty());
        let said: Vec<String> = said.map(|(name, value)| format!("{name}={}", paths::encoded(value))).collect();
        // With nothing said, a link to the page itself.
        if said.is_empty() { self.path.clone() } else { format!("{}?{}", self.path, said.join("&")) }
    }

    /// What a form has to repeat besides its own fields.
    pub(crate) fn repeated(&self) -> impl Iterator<Item = (&String, &String)> {
        self.query.iter().filter(|(name, _)| ["view", "by", "sort", "unfold"].contains(&name.as_str()))
    }
}

fn own((name, value): (&String, &String)) -> (String, String) {
    (name.clone(), value.clone())
}

#[cfg(test)]
mod tests {
    use super::super::tests::job;
    use super::*;

    #[test]
    fn legs_of_a_matrix_stand_together_in_the_order_of_the_pipeline() {
        let mut jobs: Vec<Job> = ["t/1", "t/2", "u/1", "t", "a"].iter().map(|name| job(name, &[], None)).collect();
        jobs[4].order = 1;
        let units = units(&jobs);
        let said: Vec<(&str, usize)> = units.iter().map(|unit| (unit.name, unit.jobs.len())).collect();
        assert_eq!(said, [("t", 1), ("t", 2), ("u/1", 1), ("a", 1)]);
    }

    #[test]
    fn links_keep_what_was_asked_but_where_the_list_begins() {
        let query = [("q", "a b"), ("from", "200"), ("view", "time"), ("evil", "1")];
        let query = query.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        let choice = Choice::of(&Ask { query, ..Ask::default() }, "/builds/7".to_owned());
        assert_eq!(choice.link(&[]), "/builds/7?q=a%20b&view=time");
        assert_eq!(choice.link(&[("q", ""), ("view", "")]), "/builds/7");
        assert_eq!(choice.link(&[("from", "400"), ("q", "")]), "/builds/7?from=400&view=time");
    }

    fn choice(query: &[(&str, &str)]) -> Choice {
        let query = query.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Choice::of(&Ask { query, ..Ask::default() }, "/builds/7".to_owned())
    }

    #[test]
    fn steps_of_a_bounded_number_of_jobs_are_open() {
        let names: Vec<String> = (0..=OPEN_MAX).map(|n| format!("j {n},")).collect();
        let jobs: Vec<Job> = names.iter().map(|name| job(name, &[], None)).collect();
        assert_eq!(choice(&[]).open(&jobs).len(), 0);
        assert_eq!(choice(&[("open", &names.join("\n"))]).open(&jobs).len(), OPEN_MAX);
        // One is opened and closed again, where the reader was in the list.
        let closed = choice(&[("view", "time"), ("from", "200")]);
        assert_eq!(closed.toggled(&jobs[0], &[]), "/builds/7?from=200&open=j%200%2C&view=time");
        assert_eq!(closed.toggled(&jobs[0], &[&jobs[0]]), "/builds/7?from=200&view=time");
        // One too many closes that which was opened first.
        let open: Vec<&Job> = jobs.iter().take(OPEN_MAX).collect();
        let link = closed.toggled(&jobs[OPEN_MAX], &open);
        assert!(
            !link.contains("j%200%2C%0A") && link.contains("j%201%2C%0A") && link.contains("%0Aj%2010%2C"),
            "{link}"
        );
        // A job that no longer is there is not open.
        assert_eq!(choice(&[("open", "gone\nj 1,")]).open(&jobs).len(), 1);
    }

    #[test]
    fn what_is_found_by_a_step_alone_is_open_until_it_is_closed() {
        let jobs = [job("compile", &[], None), job("test", &[], None)];
        let mut found = choice(&[("q", "comp")]);
        found.with_step = ["compile", "test"].map(str::to_owned).into();
        assert_eq!(found.wanted(&jobs).len(), 2);
        let open = found.open(&jobs);
        assert_eq!(open.iter().map(|job| job.name.as_str()).collect::<Vec<_>>(), ["test"]);
        assert_eq!(found.toggled(&jobs[1], &open), "/builds/7?open=%0A&q=comp");
        found.opened = Some(Vec::new());
        assert_eq!(found.open(&jobs).len(), 0);
    }
}
