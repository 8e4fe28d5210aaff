//! Streams of what happens, taken up again by themselves where they broke off.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use graph::BuildId;

use super::request::Call;
use super::{Client, ClientError, REPEAT_MS, RESUME_MS_MAX};
use crate::event::Moment;
use crate::routes::{EVENT_STREAM, LAST_EVENT_ID};

/// The longest line of a stream in bytes; a longer one is a fault of the server.
pub const LINE_BYTES_MAX: usize = 32 * 1024 * 1024;

/// One object of a stream.
#[derive(Clone, Debug, PartialEq)]
pub struct Told {
    /// Where it stands: a later stream that is given this goes on behind it. `None` if it can be taken up only behind a
    /// later object, which has been read already.
    pub id: Option<String>,
    /// What happened.
    pub moment: Moment,
}

/// What happens, in order, each object once, also over broken connections and restarts of the server.
pub struct Moments {
    client: Client,
    what: What,
    /// The id of the last object that was given on.
    last: Option<String>,
    /// Kept until it is made: whoever waits may look away meanwhile.
    connecting: Option<Connecting>,
    reading: Option<reqwest::Response>,
    parser: EventParser,
    failures: u32,
}

/// A connection that is being made, once its time has come.
type Connecting = Pin<Box<dyn Future<Output = Result<reqwest::Response, ClientError>> + Send>>;

/// What is streamed.
#[derive(Clone)]
enum What {
    /// One build, to its end.
    Build { build: BuildId, logs: Logs, ended: bool },
    /// All builds, or those of a project, without end.
    All { project: Option<String> },
}

/// Whether lines of logs are told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Logs {
    /// They are.
    With,
    /// They are not.
    Without,
}

impl Client {
    /// A build from its beginning, or from behind `after`, to its end.
    #[must_use]
    pub fn build_stream(&self, build: BuildId, logs: Logs, after: Option<String>) -> Moments {
        self.moments(What::Build { build, logs, ended: false }, after)
    }

    /// What happens in all builds from now on, or from behind `after`, without logs and without end.
    #[must_use]
    pub fn events(&self, project: Option<String>, after: Option<String>) -> Moments {
        self.moments(What::All { project }, after)
    }

    fn moments(&self, what: What, last: Option<String>) -> Moments {
        let parser = EventParser::default();
        Moments { client: self.clone(), what, last, connecting: None, reading: None, parser, failures: 0 }
    }
}

impl Moments {
    /// The next object; `None` once the build has ended. Waits as long as it takes; a connection that breaks is made
    /// again, with longer and longer waits up to [`RESUME_MS_MAX`]. Nothing is lost if it is dropped before it is done.
    ///
    /// # Errors
    /// What the server refuses for good; trying again gives the same. That it cannot be reached is told by
    /// [`Moments::failures`] alone, since it may come back.
    pub async fn next(&mut self) -> Result<Option<Told>, ClientError> {
        loop {
            while let Some(event) = self.parser.next() {
                // Kinds that a newer server tells and we do not know are passed over.
                let Ok(moment) = serde_json::from_str::<Moment>(&event.data) else { continue };
                if event.id.is_some() {
                    self.last.clone_from(&event.id);
                }
                if let What::Build { ended, .. } = &mut self.what {
                    *ended = matches!(moment, Moment::BuildFinished { .. });
                }
                return Ok(Some(Told { id: event.id, moment }));
            }
            if matches!(self.what, What::Build { ended: true, .. }) && self.reading.is_none() {
                return Ok(None);
            }
            self.read_more().await?;
        }
    }

    /// Reads what comes next, connecting first if need be.
    async fn read_more(&mut self) -> Result<(), ClientError> {
        let Some(response) = &mut self.reading else { return self.connect().await };
        match response.chunk().await {
            Ok(Some(piece)) => {
                self.failures = 0;
                self.parser.push(&piece);
                if self.parser.is_overfull() {
                    self.reading = None;
                    self.parser = EventParser::default();
                }
            }
            // A stream that ends before its build, or breaks, is taken up again.
            Ok(None) | Err(_) => {
                self.reading = None;
                self.parser = EventParser::default();
            }
        }
        Ok(())
    }

    /// Waits until the stream flows, so that what happens from now on is told. Needs not be called.
    ///
    /// # Errors
    /// As [`Moments::next`].
    pub async fn connected(&mut self) -> Result<(), ClientError> {
        while self.reading.is_none() {
            self.connect().await?;
        }
        Ok(())
    }

    async fn connect(&mut self) -> Result<(), ClientError> {
        let connecting = self.connecting.get_or_insert_with(|| {
            let wait = (self.failures > 0)
                .then(|| Duration::from_millis((REPEAT_MS << self.failures.min(16)).min(RESUME_MS_MAX)));
            self.failures += 1;
            let (client, what, last) = (self.client.clone(), self.what.clone(), self.last.clone());
            Box::pin(async move {
                // The clock ticks in milliseconds: no wait at all is another thing than a wait of nothing, which takes one or two.
                if let Some(wait) = wait {
                    tokio::time::sleep(wait).await;
                }
                call(&client, &what, last.as_ref()).once().await
            })
        });
        let made = connecting.await;
        self.connecting = None;
        match made {
            Ok(response) => self.reading = Some(response),
            Err(error) if error.is_passing() => {}
            Err(error) => return Err(error),
        }
        Ok(())
    }

    /// Whether the next object is here already, so that [`Moments::next`] does not wait.
    #[must_use]
    pub fn is_at_hand(&self) -> bool {
        !self.parser.ready.is_empty()
    }

    /// How often in a row the stream could not be taken up; 0 while it flows. For those who want to tell people.
    #[must_use]
    pub fn failures(&self) -> u32 {
        if self.reading.is_some() { 0 } else { self.failures }
    }
}

fn call<'c>(client: &'c Client, what: &What, last: Option<&String>) -> Call<'c> {
    let call = match what {
        What::Build { build, logs, .. } => {
            let without = (*logs == Logs::Without).then_some("false");
            client.call("build_stream", &[build]).query("logs", without)
        }
        What::All { project } => client.call("events", &[]).query("project", project.as_ref()),
    };
    call.header("accept", Some(EVENT_STREAM)).header(LAST_EVENT_ID, last)
}

/// One server-sent event.
struct Event {
    id: Option<String>,
    data: String,
}

/// Reads server-sent events (WHATWG HTML, 9.2.6) from pieces of a body.
#[derive(Default)]
struct EventParser {
    line: Vec<u8>,
    id: Option<String>,
    data: Option<String>,
    /// Events behind which the stream cannot be taken up: they are told together with the next that has an id, so that a
    /// break between them tells none twice.
    held: Vec<Event>,
    ready: VecDeque<Event>,
}

impl EventParser {
    fn push(&mut self, mut piece: &[u8]) {
        while let Some(end) = piece.iter().position(|byte| *byte == b'\n') {
            self.line.extend_from_slice(&piece[..end]);
            piece = &piece[end + 1..];
            let line = std::mem::take(&mut self.line);
            let line = line.strip_suffix(b"\r").unwrap_or(&line);
            self.take(&String::from_utf8_lossy(line));
        }
        self.line.extend_from_slice(piece);
    }

    fn take(&mut self, line: &str) {
        if line.is_empty() {
            if let Some(data) = self.data.take() {
                let has_id = self.id.is_some();
                self.held.push(Event { id: self.id.take(), data });
                if has_id {
                    self.ready.extend(self.held.drain(..));
                }
            }
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" if !value.contains('\0') => self.id = Some(value.to_owned()),
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            _ => {}
        }
    }

    fn next(&mut self) -> Option<Event> {
        self.ready.pop_front()
    }

    fn is_overfull(&self) -> bool {
        self.line.len() > LINE_BYTES_MAX || self.data.as_ref().is_some_and(|data| data.len() > LINE_BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(pieces: &[&str], wanted: &[(Option<&str>, &str)]) {
        let mut parser = EventParser::default();
        for piece in pieces {
            parser.push(piece.as_bytes());
        }
        let events: Vec<_> = std::iter::from_fn(|| parser.next()).collect();
        let events: Vec<_> = events.iter().map(|event| (event.id.as_deref(), event.data.as_str())).collect();
        assert_eq!(events, wanted);
    }

    #[test]
    fn events_come_whole_however_they_are_cut() {
        check(&["id: 1\nda", "ta: {\"a\"", ":1}\n", "\n"], &[(Some("1"), "{\"a\":1}")]);
        check(&[": alive\n\n: alive\n\n"], &[]);
        check(&["id: 1\r\ndata: a\r\n\r\ndata: b\r\n\r\n"], &[(Some("1"), "a")]);
        check(&["data: a\ndata: b\nretry: 9\n\nid: 2\ndata: c\n\ndata: cut"], &[(None, "a\nb"), (Some("2"), "c")]);
    }
}
