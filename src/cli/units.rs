//! Sizes, ages and times as people write and read them.

use crate::render::{columns, fit};

/// What an age may be written in, in milliseconds.
const UNITS: [(char, u64); 5] =
    [('s', 1_000), ('m', 60_000), ('h', 3_600_000), ('d', 86_400_000), ('w', 7 * 86_400_000)];

/// Reads an age such as `30d`, in milliseconds.
pub(super) fn parse_age(text: &str) -> Result<u64, String> {
    let unit = UNITS.iter().find_map(|(unit, factor)| Some((text.strip_suffix(*unit)?, factor)));
    let read = unit.and_then(|(number, factor)| number.trim().parse::<u64>().ok()?.checked_mul(*factor));
    read.ok_or_else(|| "an age is written `30d`, with `s`, `m`, `h`, `d` or `w`".to_owned())
}

/// An age in its largest unit: `3 h`.
pub(super) fn age(ms: u64) -> String {
    let (unit, factor) = UNITS[..4].iter().rev().find(|(_, factor)| ms >= *factor).unwrap_or(&UNITS[0]);
    format!("{} {unit}", ms / factor)
}

/// A size: `820 bytes`, `1.2 MiB`.
pub(super) fn bytes(number: u64) -> String {
    let powers = [(4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")];
    let unit = powers.into_iter().find(|(power, _)| number >= 1 << (10 * power));
    match unit {
        Some((power, unit)) => format!("{:.1} {unit}", number as f64 / 1024_f64.powi(power)),
        None if number == 1 => "1 byte".to_owned(),
        None => format!("{number} bytes"),
    }
}

/// A time in UTC, to the second: `2026-11-26 01:48:50`.
pub(super) fn utc(ms: u64) -> String {
    timestamp(ms).map_or_else(|| "?".to_owned(), |time| time.strftime("%Y-%m-%d %H:%M:%S").to_string())
}

/// A time for programs (RFC 3339, to the second).
pub(super) fn rfc_3339(ms: u64) -> String {
    timestamp(ms).map_or_else(|| "?".to_owned(), |time| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

fn timestamp(ms: u64) -> Option<jiff::Timestamp> {
    jiff::Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok()
}

/// Rows as lines: each column as wide as its widest text, cut where a line is wider than `width`.
pub(super) fn table(rows: &[Vec<String>], width: usize) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let widest: Vec<usize> = (0..count)
        .map(|at| rows.iter().filter_map(|row| row.get(at)).map(|text| columns(text)).max().unwrap_or(0))
        .collect();
    let mut text = String::new();
    for row in rows {
        let cells =
            row.iter().zip(&widest).map(|(cell, widest)| format!("{cell}{}", " ".repeat(widest - columns(cell))));
        let line = cells.collect::<Vec<_>>().join("  ");
        text.push_str(fit(line.trim_end(), width));
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_and_sizes_read_as_they_are_written() {
        assert_eq!((parse_age("30d"), parse_age("2w"), parse_age("0s")), (Ok(2_592_000_000), Ok(1_209_600_000), Ok(0)));
        for wrong in ["", "30", "d", "-1d", "1.5h", "99999999999999w", "1 y"] {
            assert!(parse_age(wrong).is_err(), "{wrong}");
        }
        assert_eq!([0, 999, 61_000, 7_200_000, 20 * 86_400_000].map(age), ["0 s", "0 s", "1 m", "2 h", "20 d"]);
        assert_eq!([1, 1_023, 1_536, 5 << 20].map(bytes), ["1 byte", "1023 bytes", "1.5 KiB", "5.0 MiB"]);
        assert_eq!((utc(0).as_str(), rfc_3339(86_400_000).as_str()), ("1970-01-01 00:00:00", "1970-01-02T00:00:00Z"));
        assert_eq!((utc(u64::MAX).as_str(), bytes(u64::MAX).is_empty()), ("?", false));
    }

    #[test]
    fn columns_stand_below_each_other() {
        let rows = [["a", "bb", "c"], ["東京", "b", ""]].map(|row| row.map(str::to_owned).to_vec());
        assert_eq!(table(&rows, 80), "a     bb  c\n東京  b\n");
        assert_eq!(table(&rows, 7), "a     b\n東京  b\n");
    }
}
