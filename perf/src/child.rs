//! Other programs and files of a run: ended and removed whatever happens.

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::unix::fs::DirBuilderExt;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// How long a program may take to end when asked to.
const PATIENCE: Duration = Duration::from_secs(5);
/// Last lines of a program's output that a message shows.
const LAST_LINES: usize = 15;

/// A directory of this process' own, removed with all in it.
#[derive(Debug)]
pub(crate) struct TemporaryDirectory(PathBuf);

impl TemporaryDirectory {
    /// A new one that only this user can enter.
    pub(crate) fn new() -> Result<Self> {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let base = std::env::temp_dir();
        // A few names may be left of a process of the same number that was killed.
        for _ in 0..100 {
            let number = NEXT.fetch_add(1, Relaxed);
            let path = base.join(format!("uvs-perf-{}-{number}", std::process::id()));
            match DirBuilder::new().mode(0o700).create(&path) {
                Ok(()) => return Ok(Self(path)),
                Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
                Err(error) => {
                    return Err(error).with_context(|| format!("cannot make {}", path.display()));
                }
            }
        }
        bail!("{} is full of directories of this process' name", base.display())
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    /// A path inside.
    pub(crate) fn join(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for TemporaryDirectory {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("uvs-perf: cannot remove {}: {error}", self.0.display());
        }
    }
}

/// A program that was started here; its output goes to a file.
#[derive(Debug)]
pub(crate) struct Program {
    name: String,
    child: Child,
    input: Option<ChildStdin>,
    log: PathBuf,
}

impl Program {
    /// Starts it. `missing` says what to do when there is no such program.
    pub(crate) fn start(command: &mut Command, log: &Path, missing: &str) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone().context("cannot share a program's output")?;
        let started = command.stdin(Stdio::piped()).stdout(output).stderr(errors).spawn();
        let mut child = match started {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("{name} is not there: {missing}")
            }
            other => other.with_context(|| format!("cannot start {name}"))?,
        };
        let input = child.stdin.take();
        Ok(Self { name, child, input, log: log.to_owned() })
    }

    /// Process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Writes a line to its input.
    pub(crate) fn type_line(&mut self, line: &str) -> Result<()> {
        let input = self.input.as_mut().with_context(|| format!("{} takes no more input", self.name))?;
        writeln!(input, "{line}")
            .and_then(|()| input.flush())
            .with_context(|| format!("{} hung up", self.name))
    }

    /// Everything it said so far.
    pub(crate) fn output(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// An error with its last words when it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        if let Some(status) = self.child.try_wait().with_context(|| format!("cannot watch {}", self.name))? {
            bail!("{} {}; it said last:\n{}", self.name, fate(status), last_lines(&self.output()));
        }
        Ok(())
    }

    /// Asks it to end and waits; what does not end is killed, and that is an error.
    pub(crate) fn end(&mut self) -> Result<()> {
        drop(self.input.take());
        let pid = i32::try_from(self.id()).ok().and_then(Pid::from_raw);
        if self.child.try_wait().is_ok_and(|status| status.is_some()) {
            return Ok(());
        }
        if let Some(pid) = pid {
            // It may have ended by itself in the meantime.
            let _ = kill_process(pid, Signal::TERM);
        }
        let deadline = Instant::now() + PATIENCE;
        while Instant::now() < deadline {
            if self.child.try_wait().with_context(|| format!("cannot wait for {}", self.name))?.is_some() {
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        self.child.kill().with_context(|| format!("cannot kill {}", self.name))?;
        self.child.wait().with_context(|| format!("cannot wait for {}", self.name))?;
        bail!("{} did not end within {} s and was killed", self.name, PATIENCE.as_secs())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            eprintln!("uvs-perf: {error:#}");
        }
    }
}

fn fate(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with exit code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().filter(|line| !line.trim().is_empty()).collect();
    let mut out = String::new();
    for line in &lines[lines.len().saturating_sub(LAST_LINES)..] {
        out.extend(["    ", line, "\n"]);
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_private_and_goes_with_its_files() {
        use std::os::unix::fs::PermissionsExt;
        let directory = TemporaryDirectory::new().unwrap();
        let (file, path) = (directory.join("a"), directory.0.clone());
        fs::write(&file, "x").unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
        drop(directory);
        assert!(!path.exists());
    }

    #[test]
    fn a_program_is_ended_and_its_last_words_are_kept() {
        let directory = TemporaryDirectory::new().unwrap();
        let log = directory.join("log");
        let mut talker =
            Program::start(Command::new("sh").args(["-c", "read x; echo got $x; exit 3"]), &log, "").unwrap();
        talker.type_line("hello").unwrap();
        let deadline = Instant::now() + PATIENCE;
        let error = loop {
            match talker.check() {
                Err(error) => break error.to_string(),
                Ok(()) => assert!(Instant::now() < deadline),
            }
        };
        assert!(error.contains("exit code 3") && error.contains("got hello"), "{error}");
        let mut sleeper = Program::start(Command::new("sleep").arg("100"), &log, "").unwrap();
        let id = sleeper.id();
        sleeper.end().unwrap();
        assert!(!Path::new(&format!("/proc/{id}")).exists());
    }

    #[test]
    fn a_missing_program_is_said_with_the_mend() {
        let directory = TemporaryDirectory::new().unwrap();
        let mut command = Command::new("/nonexistent/program");
        let error =
            Program::start(&mut command, &directory.join("log"), "install it").unwrap_err().to_string();
        assert_eq!(error, "/nonexistent/program is not there: install it");
    }
}
