//! Connections to PostgreSQL for callers that block: one thread drives all connections of a store, so that their ends are
//! noticed at once, and callers wait without a runtime of their own (they may even stand in one).
//!
//! Calls are sent one after another without waiting for answers, so that a whole transaction is one round trip.

use std::collections::HashMap;
use std::future::Future;
use std::pin::{Pin, pin};
use std::str::FromStr;
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};
use std::time::{Duration, Instant};

use futures_util::TryStreamExt;
use tokio::sync::oneshot;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::{IsNull, ToSql, Type, to_sql_checked};
use tokio_postgres::{Client, Config, NoTls, Row, Statement};

use super::error::{broken, from_postgres, of_connecting};
use crate::store::StoreError;

/// The most connections that a store opens for reads; further readers wait for one.
const READERS_MAX: usize = 8;
/// How long a call waits for the database before it gives the connection up. Longer than [`STATEMENT_WAIT`], so that the
/// database has its say first.
const ANSWER_WAIT: Duration = Duration::from_secs(45);
/// How long the database works on one statement of ours.
const STATEMENT_WAIT: Duration = Duration::from_secs(30);
/// How long making a connection may take.
const CONNECT_WAIT: Duration = Duration::from_secs(5);
/// How long the database lets a transaction of ours lie idle before it ends the connection. Transactions are sent whole, so
/// only a process that stands still or is cut off lets one lie; what it holds would keep the next leader waiting.
const IDLE_WAIT: Duration = Duration::from_secs(3);
/// After how long without a sign of the other side, and after how many further seconds, both sides give a connection up.
const ALIVE_SECONDS: (u64, u32) = (3, 3);
/// The longest wait for leadership in one call; less than [`ANSWER_WAIT`].
pub(super) const LOCK_WAIT_MAX: Duration = Duration::from_secs(30);
/// The most prepared statements of one connection; there are fewer.
const STATEMENTS_MAX: usize = 256;

/// A value of a statement.
#[derive(Clone, Debug)]
pub(super) enum Value {
    Integer(i64),
    MaybeInteger(Option<i64>),
    Text(String),
    MaybeText(Option<String>),
    Bytes(Vec<u8>),
    Integers(Vec<Option<i64>>),
    Texts(Vec<Option<String>>),
    ByteStrings(Vec<Option<Vec<u8>>>),
}

impl ToSql for Value {
    fn to_sql(
        &self,
        kind: &Type,
        out: &mut bytes::BytesMut,
    ) -> Result<IsNull, Box<dyn std::error::Error + Sync + Send>> {
        match self {
            Self::Integer(value) => value.to_sql(kind, out),
            Self::MaybeInteger(value) => value.to_sql(kind, out),
            Self::Text(value) => value.to_sql(kind, out),
            Self::MaybeText(value) => value.to_sql(kind, out),
            Self::Bytes(value) => value.to_sql(kind, out),
            Self::Integers(values) => values.to_sql(kind, out),
            Self::Texts(values) => values.to_sql(kind, out),
            Self::ByteStrings(values) => values.to_sql(kind, out),
        }
    }

    fn accepts(_: &Type) -> bool {
        // Statements and values stand side by side in this folder; a wrong pair is refused by the database.
        true
    }

    to_sql_checked!();
}

/// One statement with its values.
pub(super) struct Call {
    sql: String,
    values: Vec<Value>,
}

impl Call {
    pub fn new(sql: impl Into<String>, values: impl Into<Vec<Value>>) -> Self {
        Self { sql: sql.into(), values: values.into() }
    }
}

/// What became of one statement.
#[derive(Debug)]
pub(super) struct Answer {
    pub rows: Vec<Row>,
    /// How many rows it wrote.
    pub affected: u64,
}

/// One connection.
pub(super) struct Session {
    client: Client,
    statements: Mutex<HashMap<String, Statement>>,
}

/// A statement was refused: which, and why.
pub(super) type Refusal = (usize, StoreError);

impl Session {
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Makes one call in a transaction of its own.
    pub fn call(&self, call: Call) -> Result<Answer, StoreError> {
        let mut answers = self.run(&[call], Bracket::None).map_err(|(_, error)| error)?;
        answers.pop().ok_or_else(|| broken("no answer came"))
    }

    /// Makes calls in one transaction. Says which of them was refused first, should one be.
    pub fn transact(&self, calls: &[Call]) -> Result<Vec<Answer>, Refusal> {
        self.run(calls, Bracket::Write)
    }

    /// As [`Session::transact`], all calls seeing the same state.
    pub fn read(&self, calls: &[Call]) -> Result<Vec<Answer>, StoreError> {
        self.run(calls, Bracket::Read).map_err(|(_, error)| error)
    }

    /// Runs text without values.
    pub fn batch(&self, sql: &str) -> Result<(), StoreError> {
        self.answer(self.client.batch_execute(sql))?.map_err(from_postgres)
    }

    fn run(&self, calls: &[Call], bracket: Bracket) -> Result<Vec<Answer>, Refusal> {
        let statements = self.prepared(calls).map_err(|error| (0, error))?;
        let (begin, commit) = match bracket {
            Bracket::None => (None, None),
            Bracket::Write => (Some("begin"), Some("commit")),
            Bracket::Read => (Some("begin isolation level repeatable read read only"), Some("commit")),
        };
        let mut sent = Vec::<Pin<Box<dyn Future<Output = Result<Answer, tokio_postgres::Error>> + '_>>>::new();
        let text = |sql: &'static str| async move {
            self.client.batch_execute(sql).await?;
            Ok(Answer { rows: Vec::new(), affected: 0 })
        };
        sent.extend(begin.map(|sql| Box::pin(text(sql)) as Pin<Box<dyn Future<Output = _>>>));
        for (call, statement) in calls.iter().zip(&statements) {
            sent.push(Box::pin(self.execute(statement, &call.values)));
        }
        sent.extend(commit.map(|sql| Box::pin(text(sql)) as Pin<Box<dyn Future<Output = _>>>));
        let answers = self.answer(InOrder { answers: sent.iter().map(|_| None).collect(), futures: sent });
        let answers = answers.map_err(|error| (0, error))?;
        let skipped = usize::from(begin.is_some());
        let mut made = Vec::with_capacity(calls.len());
        for (index, answer) in answers.into_iter().enumerate() {
            let index = index.saturating_sub(skipped);
            // The first refusal is the cause of those after it; the commit then says nothing of it.
            made.push(answer.map_err(|error| (index, from_postgres(error)))?);
        }
        if begin.is_some() {
            made.remove(0);
            made.pop();
        }
        Ok(made)
    }

    async fn execute(&self, statement: &Statement, values: &[Value]) -> Result<Answer, tokio_postgres::Error> {
        let values = values.iter().map(|value| value as &(dyn ToSql + Sync));
        let mut stream = pin!(self.client.query_raw(statement, values).await?);
        let mut rows = Vec::new();
        while let Some(row) = stream.try_next().await? {
            rows.push(row);
        }
        Ok(Answer { rows, affected: stream.rows_affected().unwrap_or_default() })
    }

    /// The prepared statements of `calls`; those that are new are prepared in one round trip.
    fn prepared(&self, calls: &[Call]) -> Result<Vec<Statement>, StoreError> {
        let mut known = self.statements.lock().unwrap_or_else(PoisonError::into_inner);
        let mut new: Vec<&str> = calls.iter().map(|call| &*call.sql).filter(|sql| !known.contains_key(*sql)).collect();
        new.sort_unstable();
        new.dedup();
        if !new.is_empty() {
            if known.len() + new.len() > STATEMENTS_MAX {
                known.clear();
                new = calls.iter().map(|call| &*call.sql).collect();
                new.sort_unstable();
                new.dedup();
            }
            type Preparing<'a> = Pin<Box<dyn Future<Output = Result<Statement, tokio_postgres::Error>> + 'a>>;
            let futures: Vec<_> = new.iter().map(|sql| Box::pin(self.client.prepare(sql)) as Preparing<'_>).collect();
            let answers = self.answer(InOrder { answers: futures.iter().map(|_| None).collect(), futures })?;
            for (sql, statement) in new.iter().zip(answers) {
                known.insert((*sql).to_owned(), statement.map_err(from_postgres)?);
            }
        }
        Ok(calls.iter().filter_map(|call| known.get(&call.sql).cloned()).collect())
    }

    fn answer<T>(&self, future: impl Future<Output = T>) -> Result<T, StoreError> {
        wait(future, ANSWER_WAIT).ok_or_else(|| {
            StoreError::Lost(format!("the database has not answered for {} s", ANSWER_WAIT.as_secs()).into())
        })
    }
}

/// What stands around calls.
#[derive(Clone, Copy)]
enum Bracket {
    None,
    Write,
    Read,
}

/// Several futures of which each is begun before the next.
struct InOrder<F: Future> {
    futures: Vec<F>,
    answers: Vec<Option<F::Output>>,
}

impl<F: Future + Unpin> Future for InOrder<F>
where
    F::Output: Unpin,
{
    type Output = Vec<F::Output>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        for (future, answer) in this.futures.iter_mut().zip(&mut this.answers) {
            if answer.is_none()
                && let Poll::Ready(output) = Pin::new(future).poll(context)
            {
                *answer = Some(output);
            }
        }
        if this.answers.iter().any(Option::is_none) {
            return Poll::Pending;
        }
        Poll::Ready(this.answers.iter_mut().filter_map(Option::take).collect())
    }
}

/// Waits for a future on this thread; `None` if it takes longer than `most`.
fn wait<T>(future: impl Future<Output = T>, most: Duration) -> Option<T> {
    struct Unpark(Thread);
    impl Wake for Unpark {
        fn wake(self: Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let mut context = Context::from_waker(&waker);
    let mut future = pin!(future);
    let begun = Instant::now();
    loop {
        if let Poll::Ready(value) = future.as_mut().poll(&mut context) {
            return Some(value);
        }
        thread::park_timeout(most.checked_sub(begun.elapsed()).filter(|left| !left.is_zero())?);
    }
}

/// Why an address that asks for TLS is refused.
const NO_TLS: &str = "`store.url` says `sslmode=require`, and Ropewalk speaks no TLS to PostgreSQL: leave `sslmode` out, and reach the database by a socket, \
                      a private network or a tunnel";

/// The thread on which all connections of a store live.
pub(super) struct Driver {
    runtime: tokio::runtime::Handle,
    config: Config,
    /// Dropped to end the thread.
    _stop: oneshot::Sender<()>,
}

impl Driver {
    /// Starts the thread; connects nowhere yet.
    pub fn start(url: &str, synchronous_commit: &str) -> Result<Self, StoreError> {
        let mut config = Config::from_str(url).map_err(|error| StoreError::Denied(error.into()))?;
        if config.get_ssl_mode() == SslMode::Require {
            return Err(StoreError::Denied(NO_TLS.into()));
        }
        let given = config.get_options().unwrap_or_default();
        let (idle_s, retries) = ALIVE_SECONDS;
        let options = format!(
            "{given} -c statement_timeout={} -c idle_in_transaction_session_timeout={} -c lock_timeout={} \
             -c synchronous_commit={synchronous_commit} -c tcp_keepalives_idle={idle_s} -c tcp_keepalives_interval=1 \
             -c tcp_keepalives_count={retries} -c client_min_messages=warning",
            STATEMENT_WAIT.as_millis(),
            IDLE_WAIT.as_millis(),
            crate::BUSY_WAIT.as_millis(),
        );
        config.options(options).application_name("ropewalk").connect_timeout(CONNECT_WAIT);
        config.keepalives(true).keepalives_idle(Duration::from_secs(idle_s)).keepalives_retries(retries);
        config.keepalives_interval(Duration::from_secs(1)).tcp_user_timeout(Duration::from_secs(10));
        let runtime = tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel::<()>();
        thread::Builder::new().name("postgres".to_owned()).spawn(move || {
            // Ends once the sender is dropped; connections that are still open end with the runtime.
            drop(runtime.block_on(stopped));
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, config, _stop: stop })
    }

    /// A new connection.
    pub fn connect(&self) -> Result<Session, StoreError> {
        let (config, runtime) = (self.config.clone(), self.runtime.clone());
        let (answer, answered) = oneshot::channel();
        self.runtime.spawn(async move {
            let connected = config.connect(NoTls).await.map(|(client, connection)| {
                // Its end is seen by the client.
                runtime.spawn(async move { drop(connection.await) });
                client
            });
            // Nobody waits for it any more if this fails.
            drop(answer.send(connected));
        });
        let client = match wait(answered, 2 * CONNECT_WAIT) {
            Some(Ok(connected)) => connected.map_err(of_connecting)?,
            Some(Err(_)) | None => return Err(StoreError::Lost("the database has not answered".into())),
        };
        Ok(Session { client, statements: Mutex::default() })
    }
}

/// The connections for reads.
pub(super) struct Pool {
    idle: Mutex<Idle>,
    freed: Condvar,
}

struct Idle {
    sessions: Vec<Session>,
    /// How many are in use.
    taken: usize,
}

impl Pool {
    pub fn new() -> Self {
        Self { idle: Mutex::new(Idle { sessions: Vec::new(), taken: 0 }), freed: Condvar::new() }
    }

    /// Works with a connection. One that had died while nobody used it is replaced once.
    pub fn with<T>(
        &self,
        driver: &Driver,
        mut work: impl FnMut(&Session) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let _place = self.place()?;
        let mut tried_old = false;
        loop {
            let old = if tried_old { None } else { self.idle().sessions.pop() };
            let is_old = old.is_some();
            let session = match old {
                Some(session) if session.is_closed() => continue,
                Some(session) => session,
                None => driver.connect()?,
            };
            let result = work(&session);
            match &result {
                Err(StoreError::Lost(_)) if is_old => tried_old = true,
                Err(StoreError::Lost(_)) => return result,
                _ => {
                    self.idle().sessions.push(session);
                    return result;
                }
            }
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, Idle> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn place(&self) -> Result<Place<'_>, StoreError> {
        let is_full = |idle: &mut Idle| idle.taken >= READERS_MAX;
        let waited = self.freed.wait_timeout_while(self.idle(), crate::BUSY_WAIT, is_full);
        let (mut idle, outcome) = waited.unwrap_or_else(PoisonError::into_inner);
        if outcome.timed_out() {
            return Err(StoreError::Busy("all connections for reads are in use".into()));
        }
        idle.taken += 1;
        Ok(Place(self))
    }
}

/// One of the places for readers.
struct Place<'a>(&'a Pool);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.idle().taken -= 1;
        self.0.freed.notify_one();
    }
}
