//! Figures for people: sizes, times, ratios, rates.

const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// A size: at most four digits and a 1024-based unit.
#[must_use]
pub fn human_bytes(bytes: u64) -> String {
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let is_whole = bytes.is_multiple_of(1 << (10 * unit));
    let digits = usize::from(!is_whole && value < 100.0);
    format!("{value:.digits$} {}", UNITS[unit])
}

/// A size in the largest unit that it is a whole number of: different sizes never look the same.
#[must_use]
pub fn exact_bytes(bytes: u64) -> String {
    let divides = |unit: &usize| bytes.is_multiple_of(1 << (10 * unit));
    let unit = (0..UNITS.len()).rev().find(divides);
    let unit = unit.filter(|_| bytes > 0).unwrap_or(0);
    format!("{} {}", bytes >> (10 * unit), UNITS[unit])
}

/// Nanoseconds, in a unit that suits them.
pub(crate) fn time(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} µs", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.1} s", ns as f64 / 1e9),
    }
}

/// A ratio, with more digits where it is small.
pub(crate) fn ratio(of: f64) -> String {
    match of {
        100.0.. => format!("{of:.0}"),
        0.95.. => format!("{of:.1}"),
        0.095.. => format!("{of:.2}"),
        _ => format!("{of:.3}"),
    }
}

/// A number with three digits and a 1000-based unit.
pub(crate) fn short(value: f64) -> String {
    let (scaled, unit) = match value {
        v if v >= 1e9 => (v / 1e9, " G"),
        v if v >= 1e6 => (v / 1e6, " M"),
        v if v >= 1e3 => (v / 1e3, " k"),
        v => (v, ""),
    };
    let digits = match scaled {
        s if s >= 100.0 || unit.is_empty() => 0,
        s if s >= 10.0 => 1,
        _ => 2,
    };
    format!("{scaled:.digits$}{unit}")
}

/// `1 sender`, `2 senders`.
pub(crate) fn senders(count: usize) -> String {
    format!("{count} sender{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn human_sizes_are_short() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1 KiB"),
            (1536, "1.5 KiB"),
            (262_144, "256 KiB"),
            (262_145, "256 KiB"),
            (1_048_575, "1.0 MiB"),
            (5 << 30, "5 GiB"),
        ] {
            assert_eq!(human_bytes(bytes), text);
        }
    }

    #[test]
    fn exact_sizes_are_not_rounded() {
        for (bytes, text) in [
            (0, "0 B"),
            (8, "8 B"),
            (1024, "1 KiB"),
            (1032, "1032 B"),
            (1536, "1536 B"),
            (2 << 20, "2 MiB"),
            ((2 << 20) + 1024, "2049 KiB"),
        ] {
            assert_eq!(exact_bytes(bytes), text);
        }
    }

    #[test]
    fn numbers_keep_three_digits() {
        assert_eq!(
            [short(0.0), short(999.0), short(1500.0)],
            ["0", "999", "1.50 k"]
        );
        assert_eq!([short(23.44e6), short(123.4e6)], ["23.4 M", "123 M"]);
        assert_eq!([time(999), time(1_500)], ["999 ns", "1.5 µs"]);
    }
}
