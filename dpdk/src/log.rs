//! Where DPDK's log lines go.
//!
//! DPDK writes to standard output and syslog by default. Here every line goes to one function, and what is
//! logged on a thread while one of its control calls fails becomes part of that call's error, because the
//! return value alone ("Invalid argument") seldom says what was wrong.

use std::cell::RefCell;
use std::ffi::{c_char, c_int};
use std::fmt;
use std::sync::OnceLock;

use crate::errno::Errno;

/// Severity of a line, most severe first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    /// Something failed.
    Error,
    /// Something is degraded.
    Warning,
    /// Something unusual.
    Notice,
    /// Progress.
    Info,
    /// Everything.
    Debug,
}

impl LogLevel {
    pub(crate) const fn number(self) -> u32 {
        match self {
            Self::Error => dpdk_sys::RTE_LOG_ERR,
            Self::Warning => dpdk_sys::RTE_LOG_WARNING,
            Self::Notice => dpdk_sys::RTE_LOG_NOTICE,
            Self::Info => dpdk_sys::RTE_LOG_INFO,
            Self::Debug => dpdk_sys::RTE_LOG_DEBUG,
        }
    }

    fn from_number(number: c_int) -> Self {
        match u32::try_from(number).unwrap_or(0) {
            0..=dpdk_sys::RTE_LOG_ERR => Self::Error,
            dpdk_sys::RTE_LOG_WARNING => Self::Warning,
            dpdk_sys::RTE_LOG_NOTICE => Self::Notice,
            dpdk_sys::RTE_LOG_INFO => Self::Info,
            _ => Self::Debug,
        }
    }
}

/// Receives DPDK's log lines, without line end, on whatever thread logged them.
pub type LogSink = fn(LogLevel, &str);

/// The default sink: standard error.
pub fn to_stderr(_level: LogLevel, line: &str) {
    eprintln!("dpdk: {line}");
}

/// Log lines that belong to one failed call; displayed after the reason.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LogTail(Vec<String>);

impl LogTail {
    /// The lines, oldest first.
    #[must_use]
    pub fn lines(&self) -> &[String] {
        &self.0
    }

    pub(crate) fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|line| keep(line));
    }
}

impl fmt::Display for LogTail {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() { Ok(()) } else { write!(f, " (DPDK says: {})", self.0.join("; ")) }
    }
}

/// A failed call's lines are bounded: a driver may log one per queue.
const RECORDED_LINES: usize = 8;

static SINK: OnceLock<LogSink> = OnceLock::new();

thread_local! {
    static RECORDER: RefCell<Option<Vec<(LogLevel, String)>>> = const { RefCell::new(None) };
}

/// Redirects DPDK's log to `sink`, for the life of the process.
pub(crate) fn redirect(sink: LogSink) -> Result<(), Errno> {
    SINK.get_or_init(|| sink);
    // SAFETY: `receive` has the C signature, lives for ever, and does not unwind (see there).
    let result = unsafe { dpdk_sys::uvs_log_redirect(Some(receive)) };
    if result < 0 { Err(Errno::last()) } else { Ok(()) }
}

/// Runs `call` and keeps the lines that this thread logs meanwhile: a failure gets them, a success passes
/// them on to the sink.
pub(crate) fn record<T, E>(call: impl FnOnce() -> Result<T, E>) -> Result<T, (E, LogTail)> {
    RECORDER.with_borrow_mut(|recorder| *recorder = Some(Vec::new()));
    let result = call();
    let lines = RECORDER.with_borrow_mut(Option::take).unwrap_or_default();
    match result {
        Ok(value) => {
            for (level, line) in lines {
                emit(level, &line);
            }
            Ok(value)
        }
        Err(error) => Err((error, LogTail(lines.into_iter().map(|(_, line)| line).collect()))),
    }
}

fn emit(level: LogLevel, line: &str) {
    // Said of every page size that nobody reserved, such as 1 GiB where 2 MiB pages are in use.
    if line.starts_with("EAL: No free ") && line.contains("hugepages reported on node") {
        return;
    }
    if let Some(sink) = SINK.get() {
        sink(level, line);
    }
}

/// Called by DPDK for each piece of text. A panic in the sink aborts the process (`extern "C"`).
extern "C" fn receive(level: c_int, text: *const c_char, length: usize) {
    if text.is_null() {
        return;
    }
    // SAFETY: stdio's write callback hands over `length` readable bytes for the duration of the call.
    let bytes = unsafe { std::slice::from_raw_parts(text.cast::<u8>(), length) };
    let level = LogLevel::from_number(level);
    for line in String::from_utf8_lossy(bytes).lines() {
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let recorded = RECORDER.with(|recorder| match recorder.try_borrow_mut().as_deref_mut() {
            Ok(Some(lines)) if lines.len() < RECORDED_LINES => {
                lines.push((level, line.to_owned()));
                true
            }
            Ok(Some(_)) => true,
            _ => false,
        });
        if !recorded {
            emit(level, line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_keep_their_lines() {
        let text = b"net_pcap: no such file\n\nEAL: failed\n";
        let log = |_: ()| receive(4, text.as_ptr().cast(), text.len());
        let failed: Result<(), _> = record(|| {
            log(());
            Err("reason")
        });
        let (reason, tail) = failed.unwrap_err();
        assert_eq!(reason, "reason");
        assert_eq!(tail.to_string(), " (DPDK says: net_pcap: no such file; EAL: failed)");
        let fine: Result<i32, (&str, _)> = record(|| {
            log(());
            Ok(1)
        });
        assert_eq!(fine.unwrap(), 1);
    }

    #[test]
    fn recorded_lines_are_bounded() {
        let failed: Result<(), _> = record(|| {
            for _ in 0..100 {
                receive(4, c"line".as_ptr(), 4);
            }
            Err(())
        });
        assert_eq!(failed.unwrap_err().1.lines().len(), RECORDED_LINES);
    }
}
