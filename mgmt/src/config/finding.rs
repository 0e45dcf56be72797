//! What is wrong with a configuration, where, and what to write instead.

use std::fmt;
use std::ops::Range;

/// Where a value was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// In a file.
    File {
        /// Its path as given.
        path: String,
        /// From 1.
        line: usize,
        /// In characters, from 1.
        column: usize,
        /// The whole line.
        text: String,
        /// How many characters of the line are meant, at least 1.
        width: usize,
    },
    /// In an environment variable.
    Environment(String),
    /// In a `--set` flag.
    Flag(String),
    /// Nowhere: a default, or a file as a whole.
    Whole(String),
}

impl Place {
    /// The place of a span of bytes in a file's text.
    #[must_use]
    pub fn in_file(path: &str, text: &str, span: Range<usize>) -> Self {
        let start = floor_boundary(text, span.start);
        let end = floor_boundary(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |newline| start + newline);
        Self::File {
            path: path.to_owned(),
            line: text[..start].matches('\n').count() + 1,
            column: text[line_start..start].chars().count() + 1,
            text: text[line_start..line_end].trim_end_matches('\r').to_owned(),
            width: text[start..end.clamp(start, line_end)].chars().count().max(1),
        }
    }
}

fn floor_boundary(text: &str, at: usize) -> usize {
    let mut at = at.min(text.len());
    while !text.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// Whether a finding forbids the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// The director does not start.
    Error,
    /// It starts, but perhaps not as meant.
    Warning,
}

/// One thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Whether it forbids the start.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// What is wrong.
    pub message: String,
    /// What to write instead; may be empty.
    pub mend: String,
}

/// `file:line:column: message`, the line with a caret, the mend.
impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = if self.severity == Severity::Warning { "warning: " } else { "" };
        match &self.place {
            Place::File { path, line, column, text, width } => {
                writeln!(f, "{path}:{line}:{column}: {severity}{}", self.message)?;
                let shown: String = text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
                writeln!(f, "{line:>5} | {shown}")?;
                writeln!(f, "      | {:>before$}{}", "", "^".repeat(*width), before = column - 1)?;
            }
            Place::Environment(name) => writeln!(f, "{name}: {severity}{}", self.message)?,
            Place::Flag(flag) => writeln!(f, "--set {flag}: {severity}{}", self.message)?,
            Place::Whole(path) => writeln!(f, "{path}: {severity}{}", self.message)?,
        }
        if self.mend.is_empty() { Ok(()) } else { writeln!(f, "      = {}", self.mend) }
    }
}

/// Everything found, errors first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Findings(pub Vec<Finding>);

impl Findings {
    /// How many forbid the start.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.0.iter().filter(|finding| finding.severity == Severity::Error).count()
    }

    /// How many do not.
    #[must_use]
    pub fn warnings(&self) -> usize {
        self.0.len() - self.errors()
    }
}

impl fmt::Display for Findings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|finding| finding.fmt(f))
    }
}

impl std::error::Error for Findings {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_counts_characters_and_survives_any_span() {
        let text = "a = 1\nname = \"äö\" # x\r\n";
        let at = text.find('#').unwrap();
        let Place::File { line, column, width, .. } = Place::in_file("f", text, at..at + 1) else { panic!() };
        assert_eq!((line, column, width), (2, 13, 1));
        for start in 0..text.len() + 3 {
            for end in 0..text.len() + 3 {
                let finding = Finding {
                    severity: Severity::Error,
                    place: Place::in_file("f", text, start..end),
                    message: "m".into(),
                    mend: "n".into(),
                };
                assert!(finding.to_string().contains('^'));
            }
        }
    }
}
