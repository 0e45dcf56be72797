//! Recorded traces: one JSON object a line.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// The two links of the recorded director, in the order of the replay's ports.
pub const LINKS: [&str; 2] = ["c", "s"];

/// A frame on a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Emitted {
    /// Index in [`LINKS`].
    pub link: usize,
    /// The whole Ethernet frame.
    pub frame: Vec<u8>,
}

/// What a record did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Nothing: a remark, or a scenario line that the recorder refused.
    Note,
    /// Time passed.
    Sleep,
    /// A command ran.
    Command {
        /// For `sh -c`.
        command: String,
        /// Exit status.
        rc: i32,
        /// What it printed on both its outputs, a character a byte.
        text: String,
    },
    /// A frame came in.
    Packet(Emitted),
}

/// A line of a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Running number.
    pub number: u64,
    /// Virtual milliseconds since the start, before the action.
    pub at_ms: u32,
    /// The scenario's line.
    pub line: String,
    /// What was done.
    pub action: Action,
    /// Frames that the director emitted, in order.
    pub out: Vec<Emitted>,
}

/// A recorded scenario.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trace {
    /// The file's name without its ending.
    pub name: String,
    /// In order of time.
    pub records: Vec<Record>,
}

/// Why a trace cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum TraceError {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A line is not a record.
    #[error("{}:{line}: {what}", path.display())]
    Line {
        /// Which file.
        path: PathBuf,
        /// From 1.
        line: usize,
        /// What is wrong with it.
        what: String,
    },
}

#[derive(Deserialize)]
struct Line {
    i: u64,
    t: f64,
    op: String,
    line: String,
    rc: Option<i32>,
    text: Option<String>,
    #[serde(rename = "if")]
    link: Option<String>,
    #[serde(rename = "in")]
    frame: Option<String>,
    #[serde(default)]
    out: Vec<Out>,
}

#[derive(Deserialize)]
struct Out {
    #[serde(rename = "if")]
    link: String,
    hex: String,
}

impl Trace {
    /// Reads a trace.
    ///
    /// # Errors
    /// The file, or the line in it that is not a record.
    pub fn read(path: &Path) -> Result<Self, TraceError> {
        let text = std::fs::read_to_string(path)
            .map_err(|error| TraceError::File { path: path.to_owned(), error })?;
        let name = path.file_stem().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Self::parse(name, &text).map_err(|(line, what)| TraceError::Line {
            path: path.to_owned(),
            line,
            what,
        })
    }

    /// Parses the text of a trace; an error names the line, from 1, and what is wrong with it.
    ///
    /// # Errors
    /// A line is not a record, or goes back in time.
    pub fn parse(name: String, text: &str) -> Result<Self, (usize, String)> {
        let mut records: Vec<Record> = Vec::new();
        for (place, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
            let wrong = |what: String| (place + 1, what);
            let parsed: Line = serde_json::from_str(line).map_err(|error| wrong(error.to_string()))?;
            let record = record(parsed).map_err(wrong)?;
            if let Some(last) = records.last().filter(|last| last.at_ms > record.at_ms) {
                return Err(wrong(format!(
                    "`t` goes back, from {} to {}",
                    Seconds(last.at_ms),
                    Seconds(record.at_ms)
                )));
            }
            records.push(record);
        }
        if records.is_empty() {
            return Err((1, "there is no record in this file".to_owned()));
        }
        Ok(Self { name, records })
    }
}

fn record(line: Line) -> Result<Record, String> {
    let action = match line.op.as_str() {
        "note" | "error" => Action::Note,
        "sleep" => Action::Sleep,
        "ctl" => Action::Command {
            command: line.line.strip_prefix("ctl ").unwrap_or(&line.line).to_owned(),
            rc: line.rc.ok_or("a `ctl` record has `rc`")?,
            text: line.text.ok_or("a `ctl` record has `text`")?,
        },
        "pkt" => {
            let link = line.link.ok_or("a `pkt` record has `if`")?;
            let frame = line.frame.ok_or("a `pkt` record has `in`")?;
            Action::Packet(emitted(&link, &frame).map_err(|what| format!("`in`: {what}"))?)
        }
        other => return Err(format!("`op` is `{other}`; known are ctl, pkt, sleep, note, error")),
    };
    let out =
        line.out.iter().map(|out| emitted(&out.link, &out.hex).map_err(|what| format!("`out`: {what}")));
    Ok(Record {
        number: line.i,
        at_ms: milliseconds(line.t)?,
        line: line.line,
        action,
        out: out.collect::<Result<_, _>>()?,
    })
}

/// Records are no longer than a ticks' half turn, some 24 days.
fn milliseconds(seconds: f64) -> Result<u32, String> {
    let milliseconds = (seconds * 1000.0).round();
    if !(0.0..=f64::from(i32::MAX)).contains(&milliseconds) {
        return Err(format!("`t` is {seconds}: not between 0 and 2147483 seconds"));
    }
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in range, see above")]
    Ok(milliseconds as u32)
}

fn emitted(link: &str, hex: &str) -> Result<Emitted, String> {
    let link = LINKS
        .iter()
        .position(|known| *known == link)
        .ok_or_else(|| format!("there is no link `{link}`; links are c and s"))?;
    let frame = from_hex(hex).ok_or("a frame is an even number of hexadecimal digits")?;
    if frame.len() < 34 {
        return Err(format!("a frame of {} bytes has no IP header", frame.len()));
    }
    Ok(Emitted { link, frame })
}

/// Bytes of hexadecimal digits.
#[must_use]
pub fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// Bytes as hexadecimal digits.
#[must_use]
pub fn to_hex(bytes: &[u8]) -> String {
    use fmt::Write as _;
    bytes.iter().fold(String::with_capacity(bytes.len() * 2), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Milliseconds shown as seconds.
#[derive(Debug, Clone, Copy)]
pub struct Seconds(pub u32);

impl fmt::Display for Seconds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:03}", self.0 / 1000, self.0 % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::{Action, Trace, from_hex, to_hex};
    use proptest::prelude::*;

    fn parse(text: &str) -> Result<Trace, (usize, String)> {
        Trace::parse("test".to_owned(), text)
    }

    #[test]
    fn records_of_every_kind() {
        let frame = "02".repeat(34);
        let text = format!(
            "{}\n{}\n\n{}\n{}\n",
            r#"{"i":0,"t":0.000,"op":"note","line":"note hello"}"#,
            r#"{"i":1,"t":0.018,"op":"ctl","line":"ctl ipvsadm -Ln","rc":255,"text":"no\n","out":[]}"#,
            format_args!(
                r#"{{"i":2,"t":0.1,"op":"pkt","line":"c S","if":"c","sum":"","in":"{frame}","out":[{{"if":"s","sum":"","hex":"{frame}"}}]}}"#
            ),
            r#"{"i":3,"t":900.5,"op":"sleep","line":"sleep 1","out":[]}"#,
        );
        let trace = parse(&text).unwrap();
        let times: Vec<_> = trace.records.iter().map(|record| record.at_ms).collect();
        assert_eq!(times, [0, 18, 100, 900_500]);
        assert!(
            matches!(&trace.records[1].action, Action::Command { command, rc: 255, .. } if command == "ipvsadm -Ln")
        );
        assert_eq!((trace.records[2].out[0].link, trace.records[2].out[0].frame.len()), (1, 34));
    }

    #[test]
    fn a_bad_line_is_named() {
        let note = r#"{"i":0,"t":5,"op":"note","line":"note hello"}"#;
        let cases = [
            ("{}", 1, "missing field `i`"),
            ("", 1, "no record"),
            (r#"{"i":0,"t":0,"op":"jump","line":"x"}"#, 1, "`jump`"),
            (r#"{"i":0,"t":0,"op":"ctl","line":"ctl x","text":""}"#, 1, "`rc`"),
            (r#"{"i":0,"t":0,"op":"pkt","line":"x","if":"x","in":""}"#, 1, "link `x`"),
            (r#"{"i":0,"t":0,"op":"pkt","line":"x","if":"c","in":"0"}"#, 1, "hexadecimal"),
            (r#"{"i":0,"t":1e99,"op":"note","line":"x"}"#, 1, "not between"),
        ];
        for (text, line, what) in cases {
            let (at, why) = parse(text).unwrap_err();
            assert!(at == line && why.contains(what), "{text}: {at}: {why}");
        }
        let back = format!("{note}\n{}", note.replace('5', "4"));
        assert_eq!(parse(&back).unwrap_err(), (2, "`t` goes back, from 5.000 to 4.000".to_owned()));
    }

    proptest! {
        #[test]
        fn any_text_is_taken_or_refused(text in "\\PC{0,200}") {
            let _ = parse(&text);
        }

        #[test]
        fn hexadecimal_and_back(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
            prop_assert_eq!(from_hex(&to_hex(&bytes)), Some(bytes));
        }
    }
}
