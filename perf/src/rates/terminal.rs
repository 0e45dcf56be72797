//! A program on a terminal of its own.

use crate::interrupt::Interrupt;
use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process_group};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use std::fs::{File, OpenOptions};
use std::io::Read;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often it is looked at.
const GRAIN: Duration = Duration::from_millis(10);
/// Output that is kept: the end of it.
const KEPT: usize = 64 << 10;
/// Lines that a message shows.
const LAST_LINES: usize = 15;

/// A running program, with all it starts.
#[derive(Debug)]
pub(crate) struct Terminal {
    child: Child,
    reader: Option<JoinHandle<Vec<u8>>>,
}

/// A program that has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Ended {
    /// Exit code; `None` when it was killed.
    pub(super) code: Option<i32>,
    /// What it wrote to its terminal.
    pub(super) output: String,
}

impl Terminal {
    /// Starts a program whose standard streams are a terminal, in a process group of its own.
    pub(super) fn start(command: &mut Command) -> Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).context("cannot make a terminal")?;
        grantpt(&master).and_then(|()| unlockpt(&master)).context("cannot open a terminal")?;
        let path = ptsname(&master, Vec::new()).context("a terminal has no name")?;
        let path = path.to_string_lossy().into_owned();
        let slave = OpenOptions::new().read(true).write(true).open(&path).with_context(|| path.clone())?;
        let (output, errors) = (slave.try_clone()?, slave.try_clone()?);
        let started = command.stdin(slave).stdout(output).stderr(errors).process_group(0).spawn();
        // This process' copies of the terminal's end, without which reading it would never end.
        command.stdin(std::process::Stdio::null()).stdout(std::process::Stdio::null());
        command.stderr(std::process::Stdio::null());
        let child = match started {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("{name} is not there: name it in the profile (generator.program)")
            }
            other => other.with_context(|| format!("cannot start {name}"))?,
        };
        let reader = std::thread::spawn(move || keep(File::from(master)));
        Ok(Self { child, reader: Some(reader) })
    }

    /// Waits until it ends; kills it and its group after `limit`, or when the user wants an end.
    pub(super) fn wait(mut self, limit: Duration, interrupt: &Interrupt) -> Result<Ended> {
        let deadline = Instant::now() + limit;
        let code = loop {
            if let Some(status) = self.child.try_wait().context("cannot watch a program")? {
                break status.code();
            }
            if Instant::now() > deadline {
                self.kill();
                break None;
            }
            interrupt.sleep(GRAIN)?;
        };
        let bytes = self.reader.take().and_then(|reader| reader.join().ok()).unwrap_or_default();
        Ok(Ended { code, output: String::from_utf8_lossy(&bytes).into_owned() })
    }

    /// An error once it has ended.
    pub(crate) fn check(&mut self) -> Result<()> {
        match self.child.try_wait().context("cannot watch a program")? {
            Some(status) => bail!("the generator ended by itself: {status}"),
            None => Ok(()),
        }
    }

    fn kill(&mut self) {
        if let Some(group) = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw) {
            // Nobody may be left in it.
            let _ = kill_process_group(group, Signal::KILL);
        }
        let _ = self.child.wait();
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            self.kill();
        }
    }
}

/// Reads until the last process has closed the terminal, which is an error of its own kind there.
fn keep(mut master: File) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), [0; 4096]);
    while let Ok(count) = master.read(&mut buffer) {
        if count == 0 {
            break;
        }
        kept.extend_from_slice(&buffer[..count]);
        if kept.len() > 2 * KEPT {
            kept.drain(..kept.len() - KEPT);
        }
    }
    kept
}

impl Ended {
    /// The end of its output, without what moves cursors.
    pub(super) fn last_words(&self) -> String {
        let plain: String = self.output.chars().filter(|c| !c.is_control() || *c == '\n').collect();
        let lines: Vec<&str> = plain.lines().filter(|line| !line.trim().is_empty()).collect();
        let last = &lines[lines.len().saturating_sub(LAST_LINES)..];
        last.iter().map(|line| format!("    {line}\n")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(script: &str, limit: Duration) -> Ended {
        let interrupt = Interrupt::listen().unwrap();
        Terminal::start(Command::new("sh").args(["-c", script])).unwrap().wait(limit, &interrupt).unwrap()
    }

    #[test]
    fn it_is_a_terminal_and_its_output_is_kept() {
        let ended = run("test -t 0 && test -t 1 && echo hello; exit 3", Duration::from_secs(20));
        assert_eq!((ended.code, ended.output.trim()), (Some(3), "hello"));
    }

    #[test]
    fn what_does_not_end_is_killed_with_all_it_started() {
        let ended = run("sleep 1000 & echo $!; sleep 1000", Duration::from_millis(300));
        assert_eq!(ended.code, None);
        let child: u32 = ended.output.trim().parse().unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let alive = || {
            std::fs::read_to_string(format!("/proc/{child}/stat")).is_ok_and(|stat| !stat.contains(") Z "))
        };
        while alive() {
            assert!(Instant::now() < deadline);
            std::thread::sleep(GRAIN);
        }
    }

    #[test]
    fn a_missing_program_is_said() {
        let error = Terminal::start(&mut Command::new("/nonexistent/pktgen")).unwrap_err().to_string();
        assert!(error.contains("generator.program"), "{error}");
    }
}
