//! Whoever sends, at the far end of a link.

use super::devices::Devices;
use super::plan::Plan;
use super::testpmd::{Role, Testpmd};
use crate::child::TemporaryDirectory;
use crate::interrupt::Interrupt;
use crate::profile::Kind;
use crate::rates::pktgen::Pktgen;
use crate::rates::terminal::Terminal;
use anyhow::{Context, Result};

/// A running sender.
#[derive(Debug)]
pub(crate) enum Far {
    /// testpmd replays the files.
    Testpmd(Testpmd),
    /// pktgen does.
    Pktgen {
        /// Killed when it is dropped.
        terminal: Terminal,
        /// Its script, while it reads it.
        _files: Box<Pktgen>,
    },
}

impl Far {
    /// Starts it: what the profile names, else testpmd.
    fn start(
        plan: &Plan,
        devices: &Devices,
        directory: &TemporaryDirectory,
        interrupt: &Interrupt,
    ) -> Result<Self> {
        if let Some(metal) =
            plan.metal.as_ref().filter(|metal| metal.profile.generator.kind() == Kind::Pktgen)
        {
            let files = plan.files(directory.path()).concat();
            let capture = files.first().context("a run without files")?;
            let pktgen = Pktgen::replaying(&metal.profile, capture, interrupt)?;
            return Ok(Self::Pktgen { terminal: pktgen.start()?, _files: Box::new(pktgen) });
        }
        let log = directory.join("generator.log");
        Testpmd::start(Role::Generator, plan, devices, &log, interrupt).map(Self::Testpmd)
    }

    /// Starts a program, and the sender at the far end, on a link with two ends: the server's end of the link first. The sender is to
    /// be ended last.
    pub(crate) fn beside<T>(
        start: impl FnOnce() -> Result<T>,
        plan: &Plan,
        devices: &Devices,
        directory: &TemporaryDirectory,
        interrupt: &Interrupt,
    ) -> Result<(T, Option<Self>)> {
        let far = || Self::start(plan, devices, directory, interrupt);
        if devices.generator.is_empty() {
            return Ok((start()?, None));
        }
        if devices.generator_first {
            let far = far()?;
            return Ok((start()?, Some(far)));
        }
        let program = start()?;
        Ok((program, Some(far()?)))
    }

    /// Ends it; an error where it had ended by itself.
    pub(crate) fn end(self) -> Result<()> {
        match self {
            Self::Testpmd(mut testpmd) => testpmd.end(),
            Self::Pktgen { mut terminal, .. } => terminal.check(),
        }
    }
}
