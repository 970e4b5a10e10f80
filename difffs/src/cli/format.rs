//! How people read numbers and times: sizes in binary units, times in local RFC 3339, durations
//! in their largest unit, rows in aligned columns.
//!
//! Text from outside (paths, errors) goes through [`printable`] before it reaches a terminal.
//! Nothing here is for programs: `--json` prints bytes, seconds and UTC.

use std::time::Duration;

use jiff::SpanRelativeTo;
use jiff::tz::TimeZone;
use layerd::id::Timestamp;

const SECONDS_PER_DAY: u64 = 86_400;

/// `1.5 GiB`; whole bytes below 1 KiB.
pub(crate) fn size(bytes: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    // Tenths of a unit, rounded, so that 1023.96 KiB becomes 1.0 MiB and not 1024.0 KiB.
    let mut shift = 10;
    let tenths = |shift: u32| (u128::from(bytes) * 10 + (1 << (shift - 1))) >> shift;
    while tenths(shift) >= 10_240 && shift < 60 {
        shift += 10;
    }
    let value = tenths(shift);
    let unit = UNITS[(shift / 10 - 1) as usize];
    format!("{}.{} {unit}", value / 10, value % 10)
}

/// A moment in local time, to the second: `2026-11-21T10:15:00+01:00`.
pub(crate) fn local_time(at: Timestamp) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(at.0)) {
        Ok(moment) => moment
            .to_zoned(TimeZone::system())
            .strftime("%Y-%m-%dT%H:%M:%S%:z")
            .to_string(),
        Err(_) => at.to_string(),
    }
}

/// A moment for programs: RFC 3339 in UTC with every digit it has, so that `DB@<it>` finds the
/// very commit that it was printed for.
pub(crate) fn exact_time(at: Timestamp) -> String {
    match jiff::Timestamp::from_nanosecond(i128::from(at.0)) {
        Ok(moment) => moment.to_string(),
        Err(_) => at.to_string(),
    }
}

/// How long ago something was, in its largest unit: `3 h`.
pub(crate) fn age(now: Timestamp, then: Timestamp) -> String {
    let seconds = now.0.saturating_sub(then.0).max(0) / 1_000_000_000;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min", seconds / 60),
        3_600..86_400 => format!("{} h", seconds / 3_600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// A duration as [`parse_duration`] takes it, in the largest unit that divides it: `7d`.
pub(crate) fn duration(seconds: u64) -> String {
    match seconds {
        0 => "0".to_owned(),
        s if s.is_multiple_of(SECONDS_PER_DAY) => format!("{}d", s / SECONDS_PER_DAY),
        s if s.is_multiple_of(3_600) => format!("{}h", s / 3_600),
        s if s.is_multiple_of(60) => format!("{}m", s / 60),
        s => format!("{s}s"),
    }
}

/// `7d`, `12h`, `1h 30m`, `0s`, or a bare `0`. A day is 24 hours; months and years have no fixed
/// length and are refused.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    if text == "0" {
        return Ok(Duration::ZERO);
    }
    let refused = || format!("{text:?} is not a duration; write it like 7d, 12h, 30m, 0s or 0");
    let span: jiff::Span = text.parse().map_err(|_| refused())?;
    let exact = span
        .to_duration(SpanRelativeTo::days_are_24_hours())
        .map_err(|_| refused())?;
    Duration::try_from(exact).map_err(|_| format!("{text:?} is negative; a duration is 0 or more"))
}

/// `1 layer`, `2 layers`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    if number == 1 {
        format!("1 {noun}")
    } else {
        format!("{number} {noun}s")
    }
}

/// `text` on one line and without control characters, so that a file name can't drive the
/// terminal.
pub(crate) fn printable(text: &str) -> String {
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            plain.extend(c.escape_default());
        } else {
            plain.push(c);
        }
    }
    plain
}

/// Rows under a head line, in columns as wide as their widest cell.
pub(crate) struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<String>>,
}

struct Column {
    title: &'static str,
    align_right: bool,
}

impl Table {
    /// A table with these columns; a title that begins with `>` is of a column of numbers,
    /// aligned right.
    pub(crate) fn new(titles: &[&'static str]) -> Table {
        let columns = titles
            .iter()
            .map(|title| Column {
                title: title.trim_start_matches('>'),
                align_right: title.starts_with('>'),
            })
            .collect();
        Table {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row, one cell per column.
    pub(crate) fn row(&mut self, cells: Vec<String>) {
        debug_assert_eq!(cells.len(), self.columns.len());
        self.rows.push(cells.iter().map(|c| printable(c)).collect());
    }

    /// The table as lines; `head` styles the head line.
    pub(crate) fn render(&self, head: impl Fn(&str) -> String) -> String {
        let width = |index: usize| {
            let cells = self.rows.iter().map(|row| row[index].chars().count());
            cells
                .chain([self.columns[index].title.chars().count()])
                .max()
                .unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.columns.len()).map(width).collect();
        let line = |cells: &mut dyn Iterator<Item = &str>| {
            let padded: Vec<String> = cells
                .zip(&self.columns)
                .zip(&widths)
                .map(|((cell, column), &width)| {
                    if column.align_right {
                        format!("{cell:>width$}")
                    } else {
                        format!("{cell:<width$}")
                    }
                })
                .collect();
            padded.join("  ").trim_end().to_owned()
        };
        let mut text = head(&line(&mut self.columns.iter().map(|column| column.title)));
        for row in &self.rows {
            text.push('\n');
            text.push_str(&line(&mut row.iter().map(String::as_str)));
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_in_binary_units_and_never_show_1024_of_one() {
        let shown: Vec<String> = [0, 1023, 1024, 1536, 1_048_524, 1 << 30, u64::MAX]
            .map(size)
            .into();
        assert_eq!(
            shown,
            [
                "0 B",
                "1023 B",
                "1.0 KiB",
                "1.5 KiB",
                "1023.9 KiB",
                "1.0 GiB",
                "16.0 EiB"
            ]
        );
        assert_eq!(size(1_048_570), "1.0 MiB");
    }

    #[test]
    fn durations_parse_and_print_back() {
        for (text, seconds) in [
            ("0", 0),
            ("0s", 0),
            ("7d", 604_800),
            ("12h", 43_200),
            ("90m", 5_400),
            ("1h 30m", 5_400),
            ("45s", 45),
            ("2w", 1_209_600),
        ] {
            assert_eq!(
                parse_duration(text),
                Ok(Duration::from_secs(seconds)),
                "{text}"
            );
        }
        for bad in [
            "",
            "7",
            "d",
            "-1d",
            "7 days ago",
            "1mo",
            "1y",
            "99999999999999d",
            "x\n",
        ] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
        for seconds in [0, 1, 60, 61, 3_600, 86_400, 604_800] {
            assert_eq!(
                parse_duration(&duration(seconds)),
                Ok(Duration::from_secs(seconds))
            );
        }
    }

    #[test]
    fn exact_time_parses_back_to_the_same_nanosecond() {
        let at = Timestamp(1_795_252_503_123_456_789);
        let reference: layerd::reference::Ref = exact_time(at).parse().unwrap();
        assert_eq!(reference, layerd::reference::Ref::Time(at));
    }

    #[test]
    fn ages_use_their_largest_unit() {
        let now = Timestamp(1_000_000_000_000_000_000);
        let shown: Vec<String> = [0, 59, 60, 7_199, 86_400 * 3]
            .map(|s| age(now, now.plus_seconds(-s)))
            .into();
        assert_eq!(shown, ["0 s", "59 s", "1 min", "1 h", "3 d"]);
        assert_eq!(
            age(now, now.plus_seconds(5)),
            "0 s",
            "a clock that went back"
        );
    }

    #[test]
    fn columns_align_and_control_characters_are_shown_not_sent() {
        let mut table = Table::new(&["NAME", ">BYTES"]);
        table.row(vec!["a".into(), "1 B".into()]);
        table.row(vec!["long\u{1b}[2J".into(), "10.0 KiB".into()]);
        let lines = table.render(str::to_owned);
        assert_eq!(
            lines,
            "NAME              BYTES\n\
             a                   1 B\n\
             long\\u{1b}[2J  10.0 KiB"
        );
    }
}
