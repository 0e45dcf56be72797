//! Layers: defaults, file, `conf.d`, environment, flags.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use config::{Environment, FileFormat};

use super::finding::{Finding, Findings, Place, Severity};
use super::source::Source;
use super::{Config, Limits, check, help};
use crate::desired::Apply;

/// A configuration file larger than this is not one of ours: 16,384 services with 65,536 destinations take 12 MiB.
const FILE_BYTES_MAX: u64 = 32 << 20;
/// Variables that tell uvsctl and the tools it runs where the director is, and are no settings.
const OF_THE_TOOLS: [&str; 3] = ["UVS_CONTROL", "UVS_IPVS_SOCKET", "UVS_IPVS_LIBRARY"];

/// Lists of several files are not layered but joined.
const LISTS: [&str; 3] = ["port", "mark", "service"];

/// Where a configuration comes from.
#[derive(Debug, Clone, Default)]
pub struct Layers {
    /// The file; absent: defaults alone.
    pub file: Option<PathBuf>,
    /// Directory whose `*.toml` are read after the file, in the order of their names.
    pub directory: Option<PathBuf>,
    /// The environment; only `UVS_*` is looked at, without what is for the tools (`UVS_CONTROL`, `UVS_IPVS_*`).
    pub environment: Vec<(String, String)>,
    /// `key.path=value`, as given to `--set`.
    pub flags: Vec<String>,
}

/// A configuration that can be started, and what should be known about it.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Nothing that forbids a start.
    pub warnings: Findings,
}

/// Reads all layers.
///
/// # Errors
///
/// Everything wrong in every layer, in their order, at least one of it an error.
pub fn load(layers: &Layers) -> Result<Loaded, Findings> {
    let mut reader = Reader::default();
    if let Some(file) = &layers.file {
        reader.read(file);
    }
    if let Some(directory) = &layers.directory {
        reader.read_directory(directory);
    }
    reader.environment(&layers.environment);
    for flag in &layers.flags {
        reader.flag(flag);
    }
    reader.finish()
}

/// What a file makes the desired state, judged without the rest of a configuration, which the file may have or not. Sections that
/// it does not have leave what they are about as it is; services alone are always all of them.
///
/// # Errors
///
/// Everything wrong in the file's form and in what it says of the desired state.
pub fn wanted_of(file: &Path) -> Result<Apply, Findings> {
    let mut reader = Reader::default();
    reader.read(file);
    let has = |reader: &Reader, section: &str| {
        reader.sources.iter().any(|source| source.values.contains_key(section))
    };
    let sections = ["timeouts", "settings", "mark"].map(|section| has(&reader, section));
    let written = reader.sources.iter().map(|source| source.config.clone()).next().unwrap_or_default();
    // The director has its own limits, and says so when they are reached.
    let limits = Limits { services: u32::MAX, destinations: u32::MAX, ..Limits::default() };
    let config = Config { limits, ..written };
    reader.judge(check::check_wanted(&config));
    let findings = Findings(reader.findings);
    if findings.errors() > 0 {
        return Err(findings);
    }
    let [timeouts, settings, marks] = sections;
    Ok(Apply {
        timeouts: timeouts.then_some(config.timeouts),
        settings: settings.then_some(config.settings),
        marks: marks.then_some(config.mark),
        services: config.service,
        ..Apply::default()
    })
}

/// A value that is set outside the files, one at a time.
struct Override {
    key: String,
    place: Place,
    source: SourceOf,
}

enum SourceOf {
    Environment(Environment),
    Text(String),
}

#[derive(Default)]
struct Reader {
    /// Files that could not be read: they may name ports.
    unread: usize,
    sources: Vec<Source>,
    overrides: Vec<Override>,
    findings: Vec<Finding>,
}

impl Reader {
    fn error(&mut self, place: Place, message: String, mend: &str) {
        self.findings.push(Finding { severity: Severity::Error, place, message, mend: mend.to_owned() });
    }

    fn read(&mut self, path: &Path) {
        let name = path.display().to_string();
        let text = fs::metadata(path).and_then(|metadata| {
            if metadata.len() > FILE_BYTES_MAX {
                return Err(std::io::Error::other(format!("larger than {} MiB", FILE_BYTES_MAX >> 20)));
            }
            fs::read_to_string(path)
        });
        match text {
            Ok(text) => {
                let mut source = Source::parse(&name, &text);
                self.findings.append(&mut source.findings);
                self.sources.push(source);
            }
            Err(error) => {
                self.unread += 1;
                self.error(
                    Place::Whole(name),
                    format!("cannot be read: {error}"),
                    "check its path and that uvsd may read it",
                );
            }
        }
    }

    fn read_directory(&mut self, directory: &Path) {
        let entries = match fs::read_dir(directory) {
            Ok(entries) => entries,
            Err(error) => {
                let place = Place::Whole(directory.display().to_string());
                return self.error(
                    place,
                    format!("cannot be read: {error}"),
                    "create it, or leave --conf-dir away",
                );
            }
        };
        let files: BTreeSet<PathBuf> = entries
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "toml") && path.is_file())
            .collect();
        for file in files {
            self.read(&file);
        }
    }

    fn environment(&mut self, variables: &[(String, String)]) {
        let ours = |name: &str| {
            name.to_uppercase().starts_with("UVS_")
                && !OF_THE_TOOLS.iter().any(|of| name.eq_ignore_ascii_case(of))
        };
        let mut variables: Vec<_> = variables.iter().filter(|(name, _)| ours(name)).collect();
        variables.sort();
        for (name, value) in variables {
            let key = name.to_lowercase().trim_start_matches("uvs_").replace("__", ".");
            let one = std::iter::once((name.clone(), value.clone())).collect();
            let source = Environment::with_prefix("UVS")
                .prefix_separator("_")
                .separator("__")
                .try_parsing(true)
                .source(Some(one));
            self.layer(key, Place::Environment(name.clone()), SourceOf::Environment(source));
        }
    }

    fn flag(&mut self, flag: &str) {
        let place = Place::Flag(flag.to_owned());
        let Some((key, value)) = flag.split_once('=') else {
            return self.error(place, "has no value".into(), "write --set workers.count=2");
        };
        let key = key.trim();
        if key.is_empty()
            || !key.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"._".contains(&b))
        {
            return self.error(place, format!("`{key}` is not a key"), "write --set workers.count=2");
        }
        // A bare word is a string, so that nobody has to quote quotes for the shell.
        let value = match toml::from_str::<toml::Table>(&format!("v = {value}")) {
            Ok(table) if table.len() == 1 => table.get("v").cloned().unwrap_or_else(|| value.into()),
            _ => toml::Value::from(value),
        };
        self.layer(key.to_owned(), place, SourceOf::Text(format!("{key} = {value}")));
    }

    /// Tries the value alone on top of the defaults, so that each bad one is found and named.
    fn layer(&mut self, key: String, place: Place, source: SourceOf) {
        let section = key.split('.').next().unwrap_or_default();
        if LISTS.contains(&section) {
            let message = format!("[[{section}]] is a list and can only be written in a file");
            return self.error(place, message, "write it into the configuration file or into conf.d");
        }
        let new = Override { key, place, source };
        match combine(&[], std::slice::from_ref(&new)) {
            Ok(_) => self.overrides.push(new),
            Err(error) => {
                let message = plain(&error);
                let mend = help::mend(&new.key, &message);
                self.error(new.place, message, &mend);
            }
        }
    }

    fn finish(mut self) -> Result<Loaded, Findings> {
        let mut config = match combine(&self.sources, &self.overrides) {
            Ok(config) => config,
            Err(error) => {
                self.error(Place::Whole("configuration".into()), plain(&error), "");
                Config::default()
            }
        };
        for source in &mut self.sources {
            config.port.append(&mut source.config.port);
            config.mark.append(&mut source.config.mark);
            config.service.append(&mut source.config.service);
        }
        let ports_written: usize = self.sources.iter().map(|source| source.ports_written).sum();
        self.judge(check::check(&config, ports_written + self.unread));
        self.findings.sort_by_key(|finding| finding.severity);
        let findings = Findings(self.findings);
        if findings.errors() > 0 { Err(findings) } else { Ok(Loaded { config, warnings: findings }) }
    }

    fn judge(&mut self, problems: Vec<check::Problem>) {
        for problem in problems {
            let place = self.place(&problem.path);
            let mend = if problem.mend.is_empty() {
                help::key(&problem.path).map(|help| format!("write {help}")).unwrap_or_default()
            } else {
                problem.mend
            };
            self.findings.push(Finding { severity: problem.severity, place, message: problem.message, mend });
        }
    }

    /// Where the value at a path of the whole configuration was written: the last layer that sets it.
    fn place(&self, path: &str) -> Place {
        if let Some(set) = self.overrides.iter().rev().find(|set| set.key == path) {
            return set.place.clone();
        }
        let whole = || {
            Place::Whole(
                self.sources.first().map_or("configuration", |source| source.path.as_str()).to_owned(),
            )
        };
        if let Some((list, index, rest)) = list_item(path) {
            let mut before = 0;
            for source in &self.sources {
                let count = source.list_len(list);
                if index < before + count {
                    let local = format!("{list}[{}]{rest}", index - before);
                    return source.place(&local).unwrap_or_else(whole);
                }
                before += count;
            }
            return whole();
        }
        let setting = self.sources.iter().rev().find(|source| source.sets(path));
        let near = || self.sources.iter().rev().find_map(|source| source.place(path));
        setting.and_then(|source| source.place(path)).or_else(near).unwrap_or_else(whole)
    }
}

/// `port[3].name` is item 3 of `port`, and `.name` in it.
fn list_item(path: &str) -> Option<(&str, usize, &str)> {
    let (list, rest) = path.split_once('[')?;
    let (index, rest) = rest.split_once(']')?;
    (!list.contains('.')).then_some(())?;
    Some((list, index.parse().ok()?, rest))
}

fn combine(sources: &[Source], overrides: &[Override]) -> Result<Config, config::ConfigError> {
    let text = |error: toml::ser::Error| config::ConfigError::Message(error.to_string());
    let layer = |text: String| config::File::from_str(&text, FileFormat::Toml);
    let mut builder =
        config::Config::builder().add_source(layer(toml::to_string(&Config::default()).map_err(text)?));
    for source in sources {
        // The caller joins them.
        let mut values = source.values.clone();
        LISTS.iter().for_each(|list| drop(values.remove(*list)));
        builder = builder.add_source(layer(toml::to_string(&values).map_err(text)?));
    }
    for set in overrides {
        builder = match &set.source {
            SourceOf::Environment(environment) => builder.add_source(environment.clone()),
            SourceOf::Text(text) => builder.add_source(layer(text.clone())),
        };
    }
    builder.build()?.try_deserialize()
}

/// What is wrong, without the origin that the place names already.
fn plain(error: &config::ConfigError) -> String {
    match error {
        config::ConfigError::At { error, .. } => plain(error),
        config::ConfigError::Type { unexpected, expected, .. } => {
            format!("invalid type: {unexpected}, expected {expected}")
        }
        other => other.to_string(),
    }
}
