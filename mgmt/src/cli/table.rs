//! Tables for terminals: columns as wide as their widest cell, numbers to the right.

use std::io::{self, Write};

/// Rows of cells under a heading.
#[derive(Debug)]
pub(super) struct Table {
    heading: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A heading that starts with `>` is of a column of numbers.
    pub(super) fn new(heading: &[&'static str]) -> Self {
        Self { heading: heading.to_vec(), rows: Vec::new() }
    }

    pub(super) fn row(&mut self, cells: Vec<String>) {
        self.rows.push(cells);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    pub(super) fn write(&self, out: &mut dyn Write, indent: usize) -> io::Result<()> {
        self.write_lines(out, indent, true)
    }

    /// Without the heading.
    pub(super) fn write_rows(&self, out: &mut dyn Write, indent: usize) -> io::Result<()> {
        self.write_lines(out, indent, false)
    }

    fn write_lines(&self, out: &mut dyn Write, indent: usize, heading: bool) -> io::Result<()> {
        let names: Vec<&str> = self.heading.iter().map(|name| name.trim_start_matches('>')).collect();
        let widest = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count());
            cells.chain(names.get(column).map(|name| name.chars().count())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..names.len()).map(widest).collect();
        let mut line = |cells: &mut dyn Iterator<Item = &str>| {
            let mut text = " ".repeat(indent);
            for ((cell, width), name) in cells.zip(&widths).zip(&self.heading) {
                let right = name.starts_with('>');
                let padding = " ".repeat(width.saturating_sub(cell.chars().count()));
                let (before, after) = if right { (padding.as_str(), "") } else { ("", padding.as_str()) };
                text.extend([before, cell, after, "  "]);
            }
            writeln!(out, "{}", text.trim_end())
        };
        if heading {
            line(&mut names.iter().copied())?;
        }
        self.rows.iter().try_for_each(|row| line(&mut row.iter().map(String::as_str)))
    }
}

/// `262144` as `262,144`.
pub(super) fn number(value: u64) -> String {
    let digits = value.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.char_indices() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// `33554432` as `32.0 MiB`.
pub(super) fn bytes(value: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut tenths = u128::from(value) * 10;
    let mut unit = 0;
    while tenths >= 10_240 && unit + 1 < units.len() {
        tenths /= 1_024;
        unit += 1;
    }
    let name = units.get(unit).copied().unwrap_or("B");
    if unit == 0 { format!("{value} {name}") } else { format!("{}.{} {name}", tenths / 10, tenths % 10) }
}

/// `93784000` ms as `1d 2h 3m 4s`.
pub(super) fn duration(milliseconds: u64) -> String {
    let seconds = milliseconds / 1_000;
    let parts =
        [(seconds / 86_400, "d"), (seconds / 3_600 % 24, "h"), (seconds / 60 % 60, "m"), (seconds % 60, "s")];
    let shown: Vec<String> = parts
        .iter()
        .skip_while(|(count, _)| *count == 0)
        .map(|(count, unit)| format!("{count}{unit}"))
        .collect();
    if shown.is_empty() { "0s".to_owned() } else { shown.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_readable() {
        assert_eq!(
            [number(0), number(999), number(1_000), number(1_234_567)],
            ["0", "999", "1,000", "1,234,567"]
        );
        assert_eq!(
            [bytes(0), bytes(1_023), bytes(1_536), bytes(32 << 20)],
            ["0 B", "1023 B", "1.5 KiB", "32.0 MiB"]
        );
        assert_eq!([duration(999), duration(61_000), duration(93_784_000)], ["0s", "1m 1s", "1d 2h 3m 4s"]);
        assert!(bytes(u64::MAX).ends_with("TiB"));
    }

    #[test]
    fn columns_align() {
        let mut table = Table::new(&["name", ">count"]);
        table.row(vec!["a".into(), "1".into()]);
        table.row(vec!["longer".into(), "1,000".into()]);
        let mut out = Vec::new();
        table.write(&mut out, 2).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "  name    count\n  a           1\n  longer  1,000\n");
    }
}
