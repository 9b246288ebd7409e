//! Sizes, times and modes in the form of the command line.

use std::time::Duration;

pub(crate) use semring_bench::human_bytes;

/// Bytes: plain, `64K` or `64KiB` (1024-based), `64KB` (1000-based); K, M, G, T in either case.
pub(crate) fn parse_bytes(text: &str) -> Result<u64, String> {
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let (number, unit) = text.split_at(digits);
    let wrong =
        || "write a number of bytes, or one such as 64K, 64KiB (1024-based) or 1MB (1000-based)";
    let number: u64 = match number {
        "" => return Err(wrong().to_owned()),
        digits => digits
            .parse()
            .map_err(|_| "that is more than 2^64 bytes".to_owned())?,
    };
    let unit = unit.to_ascii_lowercase();
    let (power, base) = match unit.strip_prefix(['k', 'm', 'g', 't']) {
        None if unit.is_empty() || unit == "b" => (0, 1024),
        Some("" | "ib") => (1, 1024),
        Some("b") => (1, 1000),
        _ => return Err(wrong().to_owned()),
    };
    let power = match unit.as_bytes().first() {
        _ if power == 0 => 0,
        Some(b'k') => 1,
        Some(b'm') => 2,
        Some(b'g') => 3,
        _ => 4,
    };
    number
        .checked_mul(u64::pow(base, power))
        .ok_or_else(|| "that is more than 2^64 bytes".to_owned())
}

/// A whole number.
pub(crate) fn parse_number(text: &str) -> Result<u64, String> {
    text.parse().map_err(|_| "write a number".to_owned())
}

/// A time such as `250ms`, `5s` or `2m`; a plain number, `5` or `0.5`, is seconds; `0` is none.
pub(crate) fn parse_time(text: &str) -> Result<Duration, String> {
    let is_number = |byte: u8| byte.is_ascii_digit() || byte == b'.';
    let seconds = match text.parse() {
        Ok(seconds) if text.bytes().all(is_number) => Duration::try_from_secs_f64(seconds).ok(),
        _ => None,
    };
    seconds
        .or_else(|| humantime::parse_duration(text).ok())
        .ok_or_else(|| "write a time such as 250ms, 5s, 2m, or 5 for seconds; 0 is none".to_owned())
}

/// Octal permission bits.
pub(crate) fn parse_mode(text: &str) -> Result<u32, String> {
    let octal = !text.is_empty() && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    match u32::from_str_radix(text, 8) {
        Ok(mode) if octal && mode <= 0o777 => Ok(mode),
        _ => Err("write octal permission bits such as 0600 or 0660".to_owned()),
    }
}

/// `1 message`, `2 messages`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_follow_the_rule_of_the_contract() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("12B", 12),
            ("64K", 65536),
            ("64k", 65536),
            ("64KiB", 65536),
            ("64KB", 64000),
            ("1M", 1 << 20),
            ("1MB", 1_000_000),
            ("4G", 4 << 30),
            ("1TiB", 1 << 40),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "K",
            "1X",
            "1.5M",
            "-1",
            "+1",
            "1 K",
            "1KiBB",
            "1bb",
            "1i",
            "99999999999999999999",
            "17000000T",
        ] {
            assert!(parse_bytes(text).is_err(), "{text}");
        }
    }

    #[test]
    fn times_and_modes_are_read() {
        assert_eq!(parse_time("250ms"), Ok(Duration::from_millis(250)));
        assert_eq!(parse_time("5s"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_time("2m"), Ok(Duration::from_secs(120)));
        assert_eq!(parse_time("0"), Ok(Duration::ZERO));
        assert_eq!(parse_time("5"), Ok(Duration::from_secs(5)));
        assert_eq!(parse_time("0.5"), Ok(Duration::from_millis(500)));
        for text in [
            "soon",
            "",
            ".",
            "1.2.3",
            "-1",
            "+1",
            "1e3",
            "inf",
            "99999999999999999999",
        ] {
            assert!(parse_time(text).is_err(), "{text}");
        }
        assert_eq!(parse_mode("0660"), Ok(0o660));
        assert_eq!(parse_mode("600"), Ok(0o600));
        assert!(
            ["999", "", "01000", "rw", "+600"]
                .iter()
                .all(|text| parse_mode(text).is_err())
        );
    }
}
