//! Reading settings from a file, the environment and flags, with every fault told at once.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use dialects::suggest::{did_you_mean, nearest};
use dialects::tree::{Node, NodeValue, Notation, Rules, Sources};
use graph::Diagnostic;

use super::{KEYS, Key, PREFIX, Settings, Told, key, shown};

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// The variables of a process.
pub type Environment = BTreeMap<String, OsString>;

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// Nothing was said.
    Default,
    /// A variable of the environment.
    Environment,
    /// The file.
    File,
    /// A flag.
    Flag,
}

impl Source {
    /// Its name for people.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Default => "default",
            Self::Environment => "environment",
            Self::File => "file",
            Self::Flag => "flag",
        }
    }
}

/// A file of settings.
pub struct SettingsFile {
    /// As the user knows it.
    pub name: String,
    /// What stands in it.
    pub text: Vec<u8>,
}

/// Settings, and where each came from.
#[derive(Debug)]
pub struct Loaded {
    /// The settings.
    pub settings: Settings,
    /// By key, where its value came from.
    pub sources: BTreeMap<&'static str, Source>,
}

/// Everything that is wrong with what was given.
#[derive(Debug)]
pub struct SettingFault {
    /// Each fault.
    pub diagnostics: Vec<Diagnostic>,
    /// The file, to show its lines, without what may be secret.
    pub sources: Sources,
}

/// Reads all of them. `flags` are keys with values; `environment` has every variable of the process.
///
/// # Errors
/// [`SettingFault`] with every unknown key or variable, wrong value and broken line.
pub fn load(
    flags: &[(&str, String)],
    file: Option<&SettingsFile>,
    environment: &Environment,
) -> Result<Loaded, Box<SettingFault>> {
    let mut loaded =
        Loaded { settings: Settings::default(), sources: KEYS.iter().map(|key| (key.name, Source::Default)).collect() };
    let mut fault = SettingFault { diagnostics: Vec::new(), sources: Sources::new() };
    for key in KEYS {
        let Some(text) = environment.get(&key.variable()) else { continue };
        let taken = text.to_str().ok_or_else(|| "UTF-8".to_owned());
        if let Err(expected) = taken.and_then(|text| loaded.take(key, Source::Environment, text)) {
            let held = match key.told {
                Told::Whole => format!("`{}`", text.display()),
                Told::Hidden => "what it cannot".to_owned(),
            };
            let message = format!("the variable {} holds {held}: expected {expected}", key.variable());
            fault.diagnostics.push(Diagnostic::error("setting-value", message));
        }
    }
    fault.diagnostics.extend(unknown_variables(environment));
    if let Some(file) = file {
        read_file(file, &mut loaded, &mut fault);
    }
    for (name, text) in flags {
        let Some(key) = key(name) else {
            let message = format!("{name}: there is no such setting; {}", did_you_mean(name, &names()));
            fault.diagnostics.push(Diagnostic::error("setting-value", message));
            continue;
        };
        if let Err(expected) = loaded.take(key, Source::Flag, text) {
            let given = match key.told {
                Told::Whole => format!("{name}={text}"),
                Told::Hidden => name.to_string(),
            };
            fault.diagnostics.push(Diagnostic::error("setting-value", format!("{given}: expected {expected}")));
        }
    }
    if fault.diagnostics.is_empty() {
        return Ok(loaded);
    }
    if let Some(file) = file {
        strike_out(file, &mut fault);
    }
    Err(Box::new(fault))
}

/// Takes what may be secret out of the lines that are shown, and out of what is told of them.
fn strike_out(file: &SettingsFile, fault: &mut SettingFault) {
    let text = String::from_utf8_lossy(file.text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&file.text)).into_owned();
    for diagnostic in &mut fault.diagnostics {
        let Some(at) = &diagnostic.location else { continue };
        let line = text.lines().nth((at.line as usize).saturating_sub(1)).unwrap_or_default();
        for words in [&mut diagnostic.message, &mut diagnostic.label, &mut diagnostic.help] {
            *words = shown::told(words, line);
        }
    }
    fault.sources = Sources::new();
    fault.sources.add(&file.name, shown::struck_out(&text).into());
}

impl Loaded {
    fn take(&mut self, key: &Key, source: Source, text: &str) -> Result<(), String> {
        (key.set)(&mut self.settings, text)?;
        self.sources.insert(key.name, source);
        Ok(())
    }
}

fn names() -> Vec<&'static str> {
    KEYS.iter().map(|key| key.name).collect()
}

/// The variables that look as if they gave a setting that there is not: those of a section, and those a slip away from one.
fn unknown_variables(environment: &Environment) -> impl Iterator<Item = Diagnostic> {
    let known: Vec<String> = KEYS.iter().map(Key::variable).collect();
    let sections: BTreeSet<&str> = KEYS.iter().filter_map(|key| Some(key.name.split_once('.')?.0)).collect();
    environment.keys().filter_map(move |name| {
        let (section, _) = name.strip_prefix(PREFIX)?.split_once('_')?;
        if known.contains(name) || is_service_link(name, environment) {
            return None;
        }
        let near = nearest(name.get(PREFIX.len()..)?, known.iter().filter_map(|known| known.strip_prefix(PREFIX)));
        let is_of_section = sections.contains(section.to_lowercase().as_str());
        if !is_of_section && (near.is_none() || nearest(section, sections.iter().copied()).is_none()) {
            return None;
        }
        let meant = near.map(|near| format!("did you mean `{PREFIX}{near}`? ")).unwrap_or_default();
        let help = format!(
            "{meant}`ropewalk config` prints every setting; unset the variable if it is meant for something else"
        );
        Some(Diagnostic::error("setting-unknown", format!("the variable {name} gives no setting")).help(help))
    })
}

/// Whether Kubernetes gives this variable to every container for a service: `P_SERVICE_HOST` and its companions `P_SERVICE_PORT…`
/// and `P_PORT…` (kubernetes.io/docs/concepts/services-networking/service, "Environment variables").
fn is_service_link(name: &str, environment: &Environment) -> bool {
    ["_SERVICE_HOST", "_SERVICE_PORT", "_PORT"].iter().any(|part| {
        name.match_indices(part).any(|(at, _)| environment.contains_key(&format!("{}_SERVICE_HOST", &name[..at])))
    })
}

fn read_file(file: &SettingsFile, loaded: &mut Loaded, fault: &mut SettingFault) {
    let notation = Notation::of_path(&file.name).unwrap_or(Notation::Toml);
    let (root, faults) = fault.sources.read(&file.name, &file.text, notation, &Rules::NATIVE);
    fault.diagnostics.extend(faults);
    let Some(root) = root else { return };
    if root.is_null() {
        return;
    }
    let Some(sections) = root.entries() else {
        let at = fault.sources.location(root.span);
        let wrong = Diagnostic::error("setting-form", "settings are sections with keys").at(at, root.kind());
        return fault.diagnostics.push(wrong.help("write for example\n[server]\nlisten = \"0.0.0.0:7070\""));
    };
    for section in sections {
        let name = section.name().unwrap_or_default();
        match section.value.entries() {
            Some(entries) => {
                for entry in entries {
                    let name = format!("{name}.{}", entry.name().unwrap_or_default());
                    read_value(&name, entry.key.span, &entry.value, loaded, fault);
                }
            }
            // A dotted key, as YAML and JSON may have it.
            None => read_value(name, section.key.span, &section.value, loaded, fault),
        }
    }
}

fn read_value(name: &str, span: dialects::tree::Span, value: &Node, loaded: &mut Loaded, fault: &mut SettingFault) {
    let Some(key) = key(name) else {
        let wrong = Diagnostic::error("setting-unknown", format!("there is no setting `{name}`"));
        let help = [did_you_mean(name, &names()).as_str(), "`ropewalk config` prints every setting"].join(" ");
        let at = fault.sources.location(span);
        return fault.diagnostics.push(wrong.at(at, "not known").help(help.trim()));
    };
    let expected = match text_of(value) {
        Some(text) => loaded.take(key, Source::File, &text).err(),
        None => Some(key.takes.to_owned()),
    };
    if let Some(expected) = expected {
        let wrong = Diagnostic::error("setting-value", format!("`{name}` is wrong"));
        let at = fault.sources.location(value.span);
        fault.diagnostics.push(wrong.at(at, format!("expected {expected}")).help(key.about));
    }
}

/// A value as flags would give it.
fn text_of(value: &Node) -> Option<String> {
    match &value.value {
        NodeValue::Bool(true) => Some("on".to_owned()),
        NodeValue::Bool(false) => Some("off".to_owned()),
        _ => match value.items() {
            None => value.scalar_text().map(str::to_owned),
            Some(items) => {
                let texts: Option<Vec<&str>> =
                    items.iter().map(|item| item.as_str().filter(|text| !text.contains(','))).collect();
                Some(texts?.join(","))
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Bytes, Millis, OnOff, Setting, Texts};
    use super::*;

    fn toml(text: &str) -> SettingsFile {
        SettingsFile { name: "settings.toml".to_owned(), text: text.as_bytes().to_vec() }
    }

    fn environment(variables: &[(&str, &str)]) -> Environment {
        variables.iter().map(|(name, value)| ((*name).to_owned(), OsString::from(value))).collect()
    }

    #[test]
    fn a_flag_wins_over_the_file_and_that_over_the_environment() {
        let file =
            toml("[server]\nlisten = \"0.0.0.0:1\"\ngrace = \"5s\"\n[worker]\nlocal = false\npools = [\"a\", \"b\"]\n");
        let environment = environment(&[("ROPEWALK_SERVER_GRACE", "9s"), ("ROPEWALK_CACHES_QUOTA", "3GiB")]);
        let loaded = load(&[("server.listen", "0.0.0.0:2".to_owned())], Some(&file), &environment).expect("loaded");
        let settings = &loaded.settings;
        assert_eq!(settings.listen.port(), 2);
        assert_eq!(settings.grace, Millis(5000));
        assert_eq!(settings.caches_quota, Bytes(3 << 30));
        assert_eq!(settings.local_worker, OnOff::Off);
        assert_eq!(settings.local_pools, Texts(vec!["a".to_owned(), "b".to_owned()]));
        let source = |key| loaded.sources[key].name();
        assert_eq!(
            ["server.listen", "server.grace", "caches.quota", "blobs.url"].map(source),
            ["flag", "file", "environment", "default"]
        );
    }

    #[test]
    fn every_fault_is_told_at_its_line() {
        let file = toml(
            "[server]\nlisten = \"here\"\ngrase = \"5s\"\nurl = \"ci.example.com\"\n[sto]\nurl = 1\n\
             [worker]\nheartbeat = \"1ms\"\nslots = 99999999999\n",
        );
        let fault = load(&[("worker.slots", "many".to_owned())], Some(&file), &Environment::new()).expect_err("faults");
        let told: Vec<String> = fault
            .diagnostics
            .iter()
            .map(|it| {
                let line = it.location.as_ref().map_or(0, |at| at.line);
                format!("{line} {} {} | {}", it.message, it.label, it.help)
            })
            .collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        2 `server.listen` is wrong expected an address and a port, such as 0.0.0.0:7070 or [::]:7070 | The address and port on which people, programs and workers are served
        3 there is no setting `server.grase` not known | did you mean `server.grace`? `ropewalk config` prints every setting
        4 `server.url` is wrong expected an address such as https://ci.example.com | How people and workers reach this server, for links and for other servers; the address of `listen` if empty
        6 there is no setting `sto.url` not known | did you mean `store.url`? `ropewalk config` prints every setting
        8 `worker.heartbeat` is wrong expected a duration from 500ms to 1h, such as 10s | How often a worker shows that it is there; one that is silent for three times as long is lost
        9 `worker.slots` is wrong expected a whole number from 0 to 10000 | How many jobs the local worker runs at once; 0 is one for each processor
        0 worker.slots=many: expected a whole number from 0 to 10000  |
        ");
    }

    #[test]
    fn a_variable_that_gives_no_setting_is_told_with_the_nearest_that_does() {
        let names =
            ["SERVER_LISTN", "SEVER_LISTEN", "WORKER_COUNT", "STORE_DURABILITY_", "Server_URL", "BUILD_KEEP_FOR"];
        let names: Vec<String> = names.iter().map(|name| format!("ROPEWALK_{name}")).collect();
        let variables: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        let fault = load(&[], None, &environment(&variables)).expect_err("faults");
        let told = |it: &Diagnostic| format!("{} | {}", it.message, it.help.split('`').nth(1).unwrap_or_default());
        let told: Vec<String> = fault.diagnostics.iter().map(told).collect();
        insta::assert_snapshot!(told.join("\n"), @r"
        the variable ROPEWALK_BUILD_KEEP_FOR gives no setting | ROPEWALK_BUILDS_KEEP_FOR
        the variable ROPEWALK_SERVER_LISTN gives no setting | ROPEWALK_SERVER_LISTEN
        the variable ROPEWALK_SEVER_LISTEN gives no setting | ROPEWALK_SERVER_LISTEN
        the variable ROPEWALK_STORE_DURABILITY_ gives no setting | ROPEWALK_STORE_DURABILITY
        the variable ROPEWALK_Server_URL gives no setting | ROPEWALK_SERVER_URL
        the variable ROPEWALK_WORKER_COUNT gives no setting | ROPEWALK_WORKER_LOCAL
        ");
    }

    #[test]
    fn variables_of_others_pass() {
        let jobs =
            ["BUILD", "JOB", "STEP", "OUTPUT", "WORKSPACE", "EXPR_0", "SERVER", "TOKEN_FILE", "DATA", "KEEP_BUILDS"];
        let machinery = ["FAULTS", "PAST_BUILDS", "KEEP_CACHES_BYTES", "SEND_STEPS_BYTES"];
        // What Kubernetes gives where services have the names `ropewalk-server` and `ropewalk-store-db`.
        let links = [
            "SERVER_SERVICE_HOST",
            "SERVER_SERVICE_PORT",
            "SERVER_SERVICE_PORT_HTTP",
            "SERVER_PORT",
            "SERVER_PORT_7070_TCP",
            "SERVER_PORT_7070_TCP_ADDR",
            "STORE_DB_SERVICE_HOST",
            "STORE_DB_PORT",
        ];
        let names = [&jobs[..], &machinery, &links].concat();
        let names: Vec<String> = names.iter().map(|name| format!("ROPEWALK_{name}")).collect();
        let variables: Vec<(&str, &str)> = names.iter().map(|name| (name.as_str(), "1")).collect();
        assert!(load(&[], None, &environment(&variables)).is_ok());
        let alone = load(&[], None, &environment(&[("ROPEWALK_SERVER_PORT", "7070")])).expect_err("no service has it");
        assert_eq!(alone.diagnostics.len(), 1);
    }

    #[test]
    fn values_are_shown_as_they_are_read() {
        for key in KEYS {
            let mut settings = Settings::default();
            let shown = key.value(&settings);
            assert_eq!(shown, key.default, "{}", key.name);
            (key.set)(&mut settings, &shown).unwrap_or_else(|error| panic!("{}: {error}", key.name));
            assert_eq!(settings, Settings::default(), "{}", key.name);
        }
    }

    /// All that is said of a fault, with the lines that it is about.
    fn reported(fault: &SettingFault) -> String {
        dialects::report::text(&fault.diagnostics, &fault.sources, dialects::report::Color::Never)
    }

    #[test]
    fn no_fault_tells_a_secret() {
        for (name, text) in [
            ("a.toml", "[store]\nurl = \"postgres+ssl://ci:Hunter2@db/ropewalk\"\n"),
            ("a.toml", "store.url = \"host=db password=Hunter2\"\n"),
            ("a.toml", "[store]\nurl = postgres://ci:Hunter2@db/ropewalk\n"),
            ("a.toml", "[blobs]\nsecret_access_key = Hunter2\n"),
            ("a.toml", "[blobs]\nsecret_access_key = \"Hunter2\n"),
            ("a.toml", "[blobs]\nsecret_access_key \"Hunter2\"\n"),
            ("a.toml", "[blobs]\nsecret_acces_key = \"Hunter2\"\n"),
            ("a.toml", "[blob]\nsecret_access_key = \"Hunter2\"\n"),
            ("a.toml", "[blobs]\nsecret_access_key = \"\"\"\nHunter2\n"),
            ("a.toml", "[telemetry]\notlp = \"http//token:Hunter2@otlp\"\n"),
            ("a.toml", "[server]\nurl = \"https://ci.example.com?token=Hunter2\"\n"),
            ("a.yaml", "blobs:\n  secret_access_key: !Hunter2 x\n"),
            ("a.yaml", "blobs:\n  secret_access_key: *Hunter2\n"),
            ("a.yaml", "blobs:\n  secret_access_key Hunter2\n"),
            ("a.yaml", "store: postgres://ci:Hunter2@db\n"),
            ("a.json", "{\"store\": {\"url\": \"p://ci:Hunter2@db\"}}"),
            ("a.json", "{\"store\": {\"url\": Hunter2}}"),
            ("a.edn", "{:store {:url \"p://ci:Hunter2@db\"}}"),
        ] {
            let file = SettingsFile { name: name.to_owned(), text: text.as_bytes().to_vec() };
            let told = reported(&load(&[], Some(&file), &Environment::new()).expect_err("it is wrong"));
            assert!(told.contains(name) && !told.contains("Hunter2"), "{text}\n{told}");
        }
        for name in ["store.url", "server.url", "telemetry.otlp", "blobs.url", "blobs.endpoint"] {
            let wrong = "host=127.0.0.1 password=Hunter2";
            let variable = (&*key(name).expect("a key").variable(), wrong);
            let by_variable = load(&[], None, &environment(&[variable])).expect_err("it is wrong");
            let by_flag = load(&[(name, wrong.to_owned())], None, &Environment::new()).expect_err("it is wrong");
            for told in [reported(&by_variable), reported(&by_flag)] {
                assert!(told.contains("expected") && !told.contains("Hunter2"), "{told}");
            }
        }
    }

    #[test]
    fn the_line_of_a_fault_is_shown() {
        let file = toml("[server]\nlisten = \"here\"\n[store]\nurl = \"p://ann:pw@db\"\n");
        let told = reported(&load(&[], Some(&file), &Environment::new()).expect_err("it is wrong"));
        assert!(told.contains("2 | listen = \"here\"") && told.contains("4 | url = \"****"), "{told}");
    }

    #[test]
    fn a_password_is_never_shown() {
        let secret = super::super::Secret::parse("postgres://ann:hunter2@db/ropewalk").expect("a secret");
        assert_eq!(secret.show(), "postgres://ann:(hidden)@db/ropewalk");
        assert!(!format!("{secret:?}").contains("hunter2"));
        assert_eq!(super::super::Secret("AKIAIOSFODNN7EXAMPLE".to_owned()).show(), "(hidden)");
    }
}
