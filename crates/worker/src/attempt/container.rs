//! What is different when a job runs in a container: its image, its services, its end.
//!
//! Whatever goes on with the engine before the first step heeds a cancel and the job's limit. What was made is removed in
//! [`Attempt::leave_container`], however far it came. The output of builds and of services goes into logs of their own, with
//! numbers after those of the steps.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::sync::Arc;

use graph::{Environment, Failure, Job, Network, Pull, Service, Shell, StepReport, StepResult, Text, with_causes};
use serde_json::Value;
use tokio::time::Instant;

use super::steps::{close, report};
use super::{Attempt, EXIT_BROKEN, now, number};
use crate::cancel::Cancel;
use crate::container::engine::Kind;
use crate::container::image::{self, ImageFault, Login, Recipe, Resolved, Wanted};
use crate::container::job::{self, Access, Files, JobContainer};
use crate::container::service::{self, ServiceFault};
use crate::container::{self, Engine, LeftContainer};
use crate::depot::Stream;
use crate::output::{Recorder, SharedRecorder, lock};
use crate::place::{Place, program_file};
use crate::variables::Variables;
use crate::worker::Worker;

/// What a container job has of its engine.
pub(super) struct Contained {
    engine: Engine,
    image: Resolved,
    /// Names its container, its volume and its network, and begins the names of its services' containers.
    name: String,
    labels: Value,
    folder: PathBuf,
    container: Option<JobContainer>,
    services: Vec<(usize, service::Running)>,
    network: Option<String>,
}

/// A log beside those of the steps.
pub(super) struct Section {
    recorder: SharedRecorder,
    report: StepReport,
}

/// All texts of a job's environment and services that are evaluated when it starts.
pub(super) fn texts(job: &Job) -> impl Iterator<Item = &Text> {
    job.environment.texts().into_iter().chain(job.services.values().flat_map(Service::texts))
}

/// Why nothing more is done before the steps.
enum Stopped {
    Canceled,
    TimedOut,
}

/// Does something of the engine's until somebody wants the job to end.
async fn unless_stopped<T>(
    cancel: &Cancel,
    deadline: Option<Instant>,
    work: impl Future<Output = T>,
) -> Result<T, Stopped> {
    let over = async {
        match deadline {
            Some(deadline) => tokio::time::sleep_until(deadline).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        biased;
        _ = cancel.requested() => Err(Stopped::Canceled),
        () = over => Err(Stopped::TimedOut),
        done = work => Ok(done),
    }
}

impl Contained {
    /// The container, once it runs.
    pub(super) fn container(&mut self) -> Option<&mut JobContainer> {
        self.container.as_mut()
    }

    /// The folder that it shares with us and cannot write to.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// What steps find before the job's own variables: the image's, and what is the same for all steps.
    pub(super) fn variables(&self, worker: &Worker, environment: &Environment) -> Variables {
        let mut variables = job::image_variables(self.image.facts.variables());
        variables.extend(worker.of_every_step().iter());
        // A named user and root have a home by the image's list of users, which the engine reads.
        let is_named = environment.container().is_some_and(|container| !container.user.is_empty());
        if variables.get("HOME").is_none() && !is_named && !rustix::process::getuid().is_root() {
            variables.insert("HOME", "/tmp");
        }
        variables
    }
}

impl Attempt<'_> {
    /// Finds, fetches or builds the image of a container job. Does nothing for others.
    pub(super) async fn find_image(&mut self, place: &Place) -> Result<(), ()> {
        let Some(engine) = place.engine().cloned() else { return Ok(()) };
        let data = &self.worker.settings.data;
        let (build, attempt) = (self.spec.build, self.spec.attempt);
        if let Err(error) = self.worker.note_containers(&engine) {
            self.fail(Failure::Infra {
                message: super::infrastructure("cannot note that there are containers", &error),
            });
            return Err(());
        }
        let labels = container::labels(data, build, attempt);
        let name = format!("ropewalk-{}-{build}-{attempt}", container::data_label(data));
        let slot = self.slot.as_ref().map(|slot| slot.directory().to_owned()).unwrap_or_default();
        let image = self.image(place, &engine).await?;
        let (folder, services) = (slot.with_extension("container"), Vec::new());
        self.contained =
            Some(Contained { engine, image, name, labels, folder, container: None, services, network: None });
        Ok(())
    }

    async fn image(&mut self, place: &Place, engine: &Engine) -> Result<Resolved, ()> {
        let job = Arc::clone(&self.spec.job);
        let settings = job.environment.container().cloned().unwrap_or_default();
        let login = self.login(&settings.login)?;
        let login = login.as_ref();
        match &job.environment {
            Environment::Dockerfile { dockerfile, context, args, target, .. } => {
                let dockerfile = self.text("dockerfile", dockerfile).await?;
                let mut values = BTreeMap::new();
                for (name, text) in args {
                    values.insert(name.clone(), self.text(&format!("args `{name}`"), text).await?);
                }
                let data = container::data_label(&self.worker.settings.data);
                let recipe = Recipe {
                    root: place.files().to_owned(),
                    dockerfile: &dockerfile,
                    context,
                    args: values,
                    target,
                    platform: &settings.platform,
                    login,
                    label: (container::DATA_LABEL, &data),
                    scratch: self.worker.scratch(),
                };
                let section = self.open_section(format!("build {dockerfile}"));
                let recorder = Arc::clone(&self.sections[section].recorder);
                let progress = |line: &str| lock(&recorder).write(Stream::Stdout, format!("{line}\n").as_bytes());
                let built = unless_stopped(&self.cancel, self.deadline, image::build(engine, recipe, &progress)).await;
                let built = self.not_stopped(built)?;
                let image = built.map_err(|fault| self.refuse_image(Some(section), &fault))?;
                self.end_section(section, StepResult::Passed, Some(0));
                Ok(image)
            }
            Environment::Image { image, .. } => {
                let reference = self.text("image", image).await?;
                self.resolve(engine, &reference, settings.pull, &settings.platform, login).await
            }
            _ => Err(()),
        }
    }

    /// An image by name; fetching it has a log of its own.
    async fn resolve(
        &mut self,
        engine: &Engine,
        reference: &str,
        pull: Pull,
        platform: &str,
        login: Option<&Login>,
    ) -> Result<Resolved, ()> {
        let pinned = self.spec.images.clone();
        let wanted = Wanted { reference, pull, platform, login, pinned: &pinned };
        let (told, mut lines) = tokio::sync::mpsc::unbounded_channel();
        let progress = |line: &str| drop(told.send(format!("{line}\n")));
        let (cancel, deadline, worker) = (self.cancel.clone(), self.deadline, self.worker);
        let mut resolving = pin!(unless_stopped(&cancel, deadline, worker.pins.resolve(engine, &wanted, &progress)));
        let mut section = None;
        let mut write = |line: String| {
            let section = *section.get_or_insert_with(|| self.open_section(format!("image {reference}")));
            lock(&self.sections[section].recorder).write(Stream::Stdout, line.as_bytes());
        };
        let resolved = loop {
            tokio::select! {
                biased;
                Some(line) = lines.recv() => write(line),
                resolved = &mut resolving => break resolved,
            }
        };
        while let Ok(line) = lines.try_recv() {
            write(line);
        }
        let resolved = self.not_stopped(resolved)?.map_err(|fault| self.refuse_image(section, &fault))?;
        if let Some(section) = section {
            self.end_section(section, StepResult::Passed, Some(0));
        }
        self.images.insert(reference.to_owned(), resolved.pin.clone());
        Ok(resolved)
    }

    /// A text of the environment, evaluated.
    async fn text(&mut self, what: &str, text: &Text) -> Result<String, ()> {
        self.evaluate(text).await.map_err(|fault| self.break_word(format!("environment: {what}: {fault}")))
    }

    fn login(&mut self, secret: &str) -> Result<Option<Login>, ()> {
        if secret.is_empty() {
            return Ok(None);
        }
        let value = self.secrets.values.get(secret).cloned().unwrap_or_default();
        match Login::read(secret, &value) {
            Ok(login) => Ok(Some(login)),
            Err(fault) => {
                self.fail(Failure::Setup { message: fault.to_string() });
                Err(())
            }
        }
    }

    fn refuse_image(&mut self, section: Option<usize>, fault: &ImageFault) {
        let message = self.secrets.hide(with_causes(fault));
        if let Some(section) = section {
            lock(&self.sections[section].recorder).note(&message);
            self.end_section(section, StepResult::Failed, Some(EXIT_BROKEN));
        }
        self.fail(match (fault, section) {
            (ImageFault::Build { .. }, Some(section)) => {
                Failure::Step { step: self.section_number(section), exit: EXIT_BROKEN, message: None }
            }
            _ if fault.is_infrastructure() => Failure::Infra { message },
            _ => Failure::Setup { message },
        });
    }

    fn not_stopped<T>(&mut self, done: Result<T, Stopped>) -> Result<T, ()> {
        done.map_err(|stopped| match stopped {
            Stopped::Canceled => self.heed_cancel(),
            Stopped::TimedOut => {
                self.is_timed_out = true;
                let limit_ms = self.spec.job.timeout_ms.unwrap_or(0);
                self.fail(Failure::Timeout { step: None, limit_ms });
            }
        })
    }

    /// Starts the job's services and its container, which takes the workspace over. Does nothing for other jobs.
    pub(super) async fn enter_container(&mut self, place: &mut Place) -> Result<(), ()> {
        if self.contained.is_none() {
            return Ok(());
        }
        let hosts = self.start_services().await?;
        let layers = place.layers();
        if let Err(fault) = place.leave_to_container(self.worker).await {
            self.refuse(&fault);
            return Err(());
        }
        let job = Arc::clone(&self.spec.job);
        let Some(contained) = &self.contained else { return Err(()) };
        let settings = job.environment.container().cloned().unwrap_or_default();
        let slot = self.slot.as_ref().map(|slot| slot.directory().to_owned()).unwrap_or_default();
        if !settings.user.is_empty() {
            // Another user hands on values too.
            let everybody = rustix::fs::Mode::from_raw_mode(0o777);
            let _ = rustix::fs::chmod(&slot, everybody);
        }
        let _ = place.temporary().map(|path| rustix::fs::chmod(path, rustix::fs::Mode::from_raw_mode(0o1777)));
        let programs = job.steps.iter().filter_map(|step| match step.shell {
            Shell::Program(digest) => Some(program_file(&self.worker.settings.data, digest)),
            _ => None,
        });
        let mut shared: Vec<(PathBuf, Access)> = programs.map(|program| (program, Access::Read)).collect();
        shared.sort_by(|left, right| left.0.cmp(&right.0));
        shared.dedup();
        shared.push((slot, Access::Write));
        let (from, at) = place.directory();
        let plan = job::Plan {
            image: &contained.image.facts.id,
            name: &contained.name,
            labels: &contained.labels,
            settings: &settings,
            resources: job.resources,
            files: layers.as_ref().map_or(Files::Directory { from, at }, Files::Layers),
            shared,
            temporary: place.temporary().unwrap_or(Path::new("/tmp")),
            folder: &contained.folder,
            network: match (&contained.network, settings.network) {
                (Some(network), _) => network,
                (None, Network::Off) => "none",
                (None, Network::On) => "bridge",
            },
            hosts,
        };
        let started = JobContainer::start(&contained.engine, plan);
        let started = unless_stopped(&self.cancel, self.deadline, started).await;
        match self.not_stopped(started)? {
            Ok(container) => {
                if let Some(contained) = &mut self.contained {
                    self.left.note_container(LeftContainer::new(&contained.engine, &contained.image));
                    contained.container = Some(container);
                }
                if let Some(contexts) = self.contexts.as_mut().filter(|_| layers.is_some()) {
                    contexts.set_files(None);
                }
                Ok(())
            }
            Err(fault) => {
                let message = with_causes(&fault);
                self.fail(match fault.is_infrastructure() {
                    false => Failure::Setup { message },
                    true => Failure::Infra { message },
                });
                Err(())
            }
        }
    }

    /// Starts all services and waits until they are ready; their names with their addresses.
    async fn start_services(&mut self) -> Result<Vec<(String, String)>, ()> {
        let job = Arc::clone(&self.spec.job);
        let Some(contained) = &mut self.contained else { return Ok(Vec::new()) };
        if job.services.is_empty() {
            return Ok(Vec::new());
        }
        let (engine, name, labels) = (contained.engine.clone(), contained.name.clone(), contained.labels.clone());
        contained.network = Some(name.clone());
        let kind = job.environment.container().map_or(Network::On, |container| container.network);
        if let Err(error) = service::make_network(&engine, &name, kind, &labels).await {
            self.fail(Failure::Infra { message: format!("the job's network was not made: {error}") });
            return Err(());
        }
        let mut plans = Vec::new();
        let mut hosts = Vec::new();
        for (service, declared) in &job.services {
            let (plan, section) = self.plan_service(&engine, service, declared, (&name, &labels)).await?;
            let started = service::start(&engine, &plan);
            let started = unless_stopped(&self.cancel, self.deadline, started).await;
            match self.not_stopped(started)? {
                Ok(running) => {
                    hosts.push((service.clone(), running.address.clone()));
                    if let Some(contained) = &mut self.contained {
                        contained.services.push((section, running));
                    }
                    plans.push((section, plan));
                }
                Err(error) => {
                    self.refuse_service(section, &error);
                    return Err(());
                }
            }
        }
        for (section, plan) in plans {
            let running = self.contained.as_ref().and_then(|contained| {
                contained.services.iter().find(|(of, _)| *of == section).map(|(_, running)| running)
            });
            let Some(running) = running else { continue };
            let ready = unless_stopped(&self.cancel, self.deadline, running.until_ready(&plan)).await;
            if let Err(fault) = self.not_stopped(ready)? {
                self.refuse_service(section, &fault);
                return Err(());
            }
        }
        Ok(hosts)
    }

    async fn plan_service<'p>(
        &mut self,
        engine: &Engine,
        name: &'p str,
        declared: &'p Service,
        (network, labels): (&'p str, &'p Value),
    ) -> Result<(service::Plan<'p>, usize), ()> {
        let reference = self.text(&format!("service `{name}`: image"), &declared.image).await?;
        let login = self.login(&declared.login)?;
        let image = self.resolve(engine, &reference, declared.pull, "", login.as_ref()).await?;
        let mut command = Vec::new();
        for text in &declared.command {
            command.push(self.text(&format!("service `{name}`: command"), text).await?);
        }
        if command.is_empty() && !image.facts.has_program() {
            let fault = ServiceFault::Idle { name: name.to_owned(), image: reference };
            self.fail(Failure::Setup { message: self.secrets.hide(fault.to_string()) });
            return Err(());
        }
        let mut env = BTreeMap::new();
        for (variable, text) in &declared.env {
            env.insert(variable.clone(), self.text(&format!("service `{name}`: env `{variable}`"), text).await?);
        }
        let section = self.open_section(format!("service {name}"));
        let plan = service::Plan {
            name,
            container: format!("{network}-{name}"),
            image: image.facts.id,
            command,
            env,
            ports: &declared.ports,
            health: declared.health.as_ref(),
            tmpfs: &declared.tmpfs,
            labels,
            network,
            recorder: Arc::clone(&self.sections[section].recorder),
        };
        Ok((plan, section))
    }

    fn refuse_service(&mut self, section: usize, fault: &ServiceFault) {
        let message = self.told(fault.to_string());
        lock(&self.sections[section].recorder).note(&message);
        let step = self.section_number(section);
        self.fail(match fault {
            ServiceFault::Engine(_) => Failure::Infra { message },
            ServiceFault::Idle { .. } | ServiceFault::NoProgram { .. } => Failure::Setup { message },
            ServiceFault::Ended { code, .. } => {
                Failure::Step { step, exit: i32::try_from(*code).unwrap_or(EXIT_BROKEN), message: Some(message) }
            }
            ServiceFault::Deaf { .. } | ServiceFault::Unwell { .. } => {
                Failure::Step { step, exit: EXIT_BROKEN, message: Some(message) }
            }
        });
        self.end_section(section, StepResult::Failed, None);
    }

    /// Says of a step that failed in the container if the kernel killed something of it for want of memory.
    pub(super) fn tell_memory_kills(&mut self, index: usize, recorder: &SharedRecorder) {
        let killed = self.contained.as_mut().and_then(Contained::container).map_or(0, JobContainer::new_memory_kills);
        if killed == 0 {
            return;
        }
        let limit = match self.spec.job.resources.memory_bytes {
            0 => "the machine has no more".to_owned(),
            bytes => format!("the container may hold {} MiB (`resources`: `memory`)", bytes >> 20),
        };
        let what = if killed == 1 { "a process".to_owned() } else { format!("{killed} processes") };
        let text = format!("the kernel killed {what} of it for want of memory: {limit}");
        lock(recorder).note(&text);
        self.note(format!("step {}: {text}", index + 1));
    }

    /// Removes what the job has with its engine, ends its logs, and takes the workspace back.
    pub(super) async fn leave_container(&mut self, place: &mut Place) {
        if let Some(contained) = self.contained.take() {
            self.give_back(&contained, place).await;
            self.remove(contained).await;
        }
        self.close_sections().await;
        match place.take_back(self.worker).await {
            Ok(()) => {
                if let Some(contexts) = &mut self.contexts {
                    contexts.set_files(Some(place.files().to_owned()));
                }
            }
            Err(fault) => self.refuse(&fault),
        }
    }

    /// Where steps ran as somebody else, the files that they made become those of this process, which otherwise could not read or remove them.
    async fn give_back(&mut self, contained: &Contained, place: &Place) {
        let user = self.spec.job.environment.container().map_or("", |container| &container.user);
        let Some(container) = contained.container.as_ref().filter(|_| !user.is_empty()) else { return };
        if rustix::process::getuid().is_root() && !contained.engine.is_rootless {
            return;
        }
        let (_, tree) = place.directory();
        let slot = self.slot.as_ref().map(|slot| slot.directory().to_owned());
        let paths: Vec<&Path> = [tree.as_path(), Path::new("/tmp")].into_iter().chain(slot.as_deref()).collect();
        if let Err(why) = container.give_back(&paths).await {
            self.note(format!(
                "files that the user `{user}` made could not be given to the user of `ropewalk`, who may be unable to read and remove them: {why}"
            ));
        }
    }

    async fn remove(&mut self, contained: Contained) {
        let Contained { engine, name, labels, container, services, network, folder, .. } = contained;
        let mut faults = Vec::new();
        let has_container = container.is_some();
        if let Some(container) = container {
            faults.extend(container.remove().await.err());
        }
        for (section, running) in services {
            let (code, used) = match running.remove().await {
                Ok(ended) => ended,
                Err(error) => {
                    faults.push(error);
                    continue;
                }
            };
            self.sections[section].report.usage = used;
            match code {
                Some(code) if self.sections[section].report.result != StepResult::Failed => {
                    let result = if code == 0 { StepResult::Passed } else { StepResult::Failed };
                    self.end_section(section, result, i32::try_from(code).ok());
                }
                _ => self.end_section(section, StepResult::Passed, None),
            }
        }
        // A call that was broken off may have made something all the same.
        if !has_container {
            faults.extend(remove_attempt(&engine, &labels).await.err());
        } else if network.is_some() {
            faults.extend(engine.remove(Kind::Network, &name).await.err());
        }
        let _ = std::fs::remove_dir_all(folder);
        for fault in faults {
            self.worker.note_left_containers();
            self.note(format!("something of the job's containers was not removed: {fault}"));
        }
    }

    /// Begins a log beside those of the steps; its index among such.
    fn open_section(&mut self, name: String) -> usize {
        let started = now();
        let section = self.sections.len();
        let name = self.secrets.hide(name);
        let number = self.section_number(section);
        if let Some(observer) = &self.worker.settings.observer {
            observer.step_started(&self.spec.name, number, &name, started);
        }
        let recorder = Recorder::new(Arc::clone(&self.log), number);
        self.sections.push(Section { recorder, report: report(name, StepResult::Canceled, started) });
        section
    }

    fn section_number(&self, section: usize) -> u16 {
        number(self.spec.job.steps.len() + section)
    }

    /// How what a log beside those of the steps tells of has ended. The first word counts.
    fn end_section(&mut self, section: usize, result: StepResult, exit: Option<i32>) {
        let report = &mut self.sections[section].report;
        if report.result == StepResult::Canceled {
            (report.result, report.exit, report.finished) = (result, exit, now());
        }
    }

    /// Ends the logs beside those of the steps and puts them after the steps, of which each has its report then.
    async fn close_sections(&mut self) {
        if self.sections.is_empty() {
            return;
        }
        let job = Arc::clone(&self.spec.job);
        for step in job.steps.iter().skip(self.steps.len()) {
            let name = step.name.as_written();
            let name = if name.is_empty() { step.script_title() } else { name.to_owned() };
            self.steps.push(report(name, StepResult::Skipped, now()));
        }
        for Section { recorder, mut report } in std::mem::take(&mut self.sections) {
            let end = close(&recorder).await;
            report.lines = end.lines;
            if report.result == StepResult::Canceled {
                report.finished = now();
            }
            if let Some(error) = end.failure {
                let failure = self.log_failure(&error);
                self.fail(failure);
            }
            if let Some(observer) = &self.worker.settings.observer {
                observer.step_finished(&self.spec.name, number(self.steps.len()), &report);
            }
            self.steps.push(report);
        }
    }
}

/// Removes everything that carries an attempt's labels.
async fn remove_attempt(engine: &Engine, labels: &Value) -> Result<(), container::EngineError> {
    let text = |label: &str| labels.get(label).and_then(Value::as_str).unwrap_or_default().to_owned();
    let data = format!("{}={}", container::DATA_LABEL, text(container::DATA_LABEL));
    for kind in Kind::ALL {
        for found in engine.labeled(kind, &data).await? {
            let has = |label: &str| found.labels.as_ref().and_then(|labels| labels.get(label)) == Some(&text(label));
            if has(container::BUILD_LABEL) && has(container::ATTEMPT_LABEL) {
                engine.remove(kind, if kind == Kind::Container { &found.id } else { &found.name }).await?;
            }
        }
    }
    Ok(())
}
