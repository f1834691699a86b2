//! The units of policies and of the command line: counts (`"20k"`), bytes (`"5MB"`, `"5MiB"`), durations (`"30s"`) and
//! shares (`"20%"`). Exact integer arithmetic throughout: a number that does not come out whole is an error, never
//! rounded.

use std::time::Duration;

/// Why a text is not a quantity. Each message begins with what was expected.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum UnitError {
    /// It does not have the form of one.
    #[error("expected {0}")]
    Form(&'static str),
    /// It has the form, but is not a whole number of the smallest unit.
    #[error("expected a number that comes out whole in {0}")]
    NotWhole(&'static str),
    /// It is beyond what fits.
    #[error("expected {0}")]
    TooLarge(&'static str),
}

const COUNT: &str = "an integer, or a string such as \"20k\", \"1.5M\" or \"2G\"";
const BYTES: &str =
    "a number of bytes (not bits): an integer, or a string such as \"500k\", \"5MB\" or \"5MiB\"";
const DURATION: &str = "a duration such as \"30s\", \"10m\", \"2h\" or \"1d\"";
const SHARE: &str = "a share from \"0%\" to \"100%\", such as \"20%\" or \"0.5%\"";
const PERCENT: &str = "a percentage such as \"50%\"";
const FITS: &str = "a smaller number (this one does not fit in 64 bits)";

const COUNT_UNITS: [(&str, u64); 4] = [("G", 1_000_000_000), ("M", 1_000_000), ("k", 1_000), ("", 1)];
const BYTE_UNITS: [(&str, u64); 5] = [
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];
const BINARY_UNITS: [(&str, u64); 4] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
];
const TIME_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

/// A count: `"500"`, `"20k"`, `"1.5M"`, `"2G"` (powers of a thousand).
pub fn parse_count(text: &str) -> Result<u64, UnitError> {
    decimal(text, COUNT, "ones", |suffix| unit(&COUNT_UNITS, suffix))
}

/// A number of bytes: a count, or with `B`, `kB`, `MB`, `GB`, `TB` (powers of 1,000) or `KiB`, `MiB`, `GiB`, `TiB`
/// (powers of 1,024).
pub fn parse_bytes(text: &str) -> Result<u64, UnitError> {
    decimal(text, BYTES, "bytes", |suffix| {
        let all = [&COUNT_UNITS[..], &BYTE_UNITS[..], &BINARY_UNITS[..]];
        all.iter().find_map(|units| unit(units, suffix))
    })
}

/// A duration: a whole number and one of `ms`, `s`, `m`, `h`, `d`.
pub fn parse_duration(text: &str) -> Result<Duration, UnitError> {
    let (digits, suffix) = split(text);
    if !is_digits(digits) {
        return Err(UnitError::Form(DURATION));
    }
    let number: u64 = digits.parse().map_err(|_| UnitError::TooLarge(FITS))?;
    if suffix == "ms" {
        return Ok(Duration::from_millis(number));
    }
    let seconds = unit(&TIME_UNITS, suffix).ok_or(UnitError::Form(DURATION))?;
    number
        .checked_mul(seconds)
        .map(Duration::from_secs)
        .ok_or(UnitError::TooLarge(FITS))
}

/// A duration in whole seconds: like [`parse_duration`], without fractions of a second.
pub fn parse_seconds(text: &str) -> Result<u64, UnitError> {
    let duration = parse_duration(text)?;
    if duration.subsec_nanos() != 0 {
        Err(UnitError::NotWhole("seconds"))
    } else {
        Ok(duration.as_secs())
    }
}

/// A share from `"0%"` to `"100%"`, in millionths; four decimals at most.
pub fn parse_share(text: &str) -> Result<u32, UnitError> {
    let number = text.strip_suffix('%').ok_or(UnitError::Form(SHARE))?;
    let millionths = decimal(number, SHARE, "millionths", |suffix| {
        suffix.is_empty().then_some(10_000)
    })?;
    u32::try_from(millionths)
        .ok()
        .filter(|&m| m <= 1_000_000)
        .ok_or(UnitError::TooLarge(SHARE))
}

/// A whole percentage, which may be above a hundred: `"50%"`, `"250%"`.
pub fn parse_percent(text: &str) -> Result<u32, UnitError> {
    let number = text
        .strip_suffix('%')
        .filter(|n| is_digits(n))
        .ok_or(UnitError::Form(PERCENT))?;
    number.parse().map_err(|_| UnitError::TooLarge(PERCENT))
}

/// A count as [`parse_count`] reads it back, in the largest unit that needs one decimal at most.
pub fn format_count(count: u64) -> String {
    format_in(&COUNT_UNITS, count)
}

/// A number of bytes as [`parse_bytes`] reads it back, in the largest decimal unit that needs one decimal at most.
pub fn format_bytes(bytes: u64) -> String {
    format_in(&BYTE_UNITS, bytes)
}

/// Whole seconds as [`parse_seconds`] reads them back, in the largest unit that comes out whole.
pub fn format_seconds(seconds: u64) -> String {
    let fits = |unit: u64| seconds != 0 && seconds.is_multiple_of(unit);
    let (suffix, unit) = TIME_UNITS
        .into_iter()
        .find(|&(_, unit)| fits(unit))
        .unwrap_or(("s", 1));
    format!("{}{suffix}", seconds / unit)
}

/// A share in millionths as [`parse_share`] reads it back.
pub fn format_share(millionths: u32) -> String {
    let (whole, rest) = (millionths / 10_000, millionths % 10_000);
    if rest == 0 {
        return format!("{whole}%");
    }
    let decimals = format!("{rest:04}");
    format!("{whole}.{}%", decimals.trim_end_matches('0'))
}

fn format_in(units: &[(&str, u64)], number: u64) -> String {
    let tenths = |unit: u64| u128::from(number) * 10 % u128::from(unit) == 0;
    let found = units
        .iter()
        .copied()
        .find(|&(_, unit)| number >= unit && tenths(unit));
    let (suffix, unit) = found.unwrap_or_else(|| units.last().copied().unwrap_or(("", 1)));
    match number % unit * 10 / unit {
        0 => format!("{}{suffix}", number / unit),
        tenth => format!("{}.{tenth}{suffix}", number / unit),
    }
}

fn unit(units: &[(&str, u64)], suffix: &str) -> Option<u64> {
    units
        .iter()
        .find(|(name, _)| *name == suffix)
        .map(|&(_, unit)| unit)
}

fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// Splits `"1.5M"` into `"1.5"` and `"M"`.
fn split(text: &str) -> (&str, &str) {
    let end = text
        .find(|c: char| !c.is_ascii_digit() && c != '.')
        .unwrap_or(text.len());
    text.split_at(end)
}

/// Reads digits, optional decimals and a suffix that `multiplier` knows.
fn decimal(
    text: &str,
    expected: &'static str,
    smallest: &'static str,
    multiplier: impl Fn(&str) -> Option<u64>,
) -> Result<u64, UnitError> {
    let (number, suffix) = split(text);
    let multiplier = u128::from(multiplier(suffix).ok_or(UnitError::Form(expected))?);
    let (whole, decimals) = match number.split_once('.') {
        Some((whole, decimals)) if is_digits(decimals) => (whole, decimals.trim_end_matches('0')),
        Some(_) => return Err(UnitError::Form(expected)),
        None => (number, ""),
    };
    if !is_digits(whole) {
        return Err(UnitError::Form(expected));
    }
    let whole: u64 = whole.parse().map_err(|_| UnitError::TooLarge(FITS))?;
    // Both products fit: a u64 times a multiplier of at most 2⁴⁰, and at most 18 digits (below 2⁶⁰) times the same.
    let mut value = u128::from(whole) * multiplier;
    if !decimals.is_empty() {
        let Some(power) = u32::try_from(decimals.len()).ok().filter(|&n| n <= 18) else {
            return Err(UnitError::NotWhole(smallest));
        };
        let parts: u64 = decimals.parse().map_err(|_| UnitError::Form(expected))?;
        let parts = u128::from(parts) * multiplier;
        let scale = 10_u128.pow(power);
        if parts % scale != 0 {
            return Err(UnitError::NotWhole(smallest));
        }
        value += parts / scale;
    }
    u64::try_from(value).map_err(|_| UnitError::TooLarge(FITS))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn counts() {
        for (text, count) in [
            ("0", 0),
            ("500", 500),
            ("20k", 20_000),
            ("1.5M", 1_500_000),
            ("2G", 2_000_000_000),
            ("0.001k", 1),
            ("1.50000M", 1_500_000),
            ("1.0", 1),
            ("18446744073709551615", u64::MAX),
        ] {
            assert_eq!(parse_count(text), Ok(count), "{text}");
        }
        for text in [
            "", "k", ".5k", "1.", "1.k", "-1", "+1", "1 k", " 1", "1K", "1kk", "1e3", "1_000", "1MB", "٣",
        ] {
            assert_eq!(parse_count(text), Err(UnitError::Form(COUNT)), "{text}");
        }
        for text in ["0.5", "1.0001k", "1.0000000000000000001G"] {
            assert!(matches!(parse_count(text), Err(UnitError::NotWhole(_))), "{text}");
        }
        for text in ["18446744073709551616", "99999999999G", "18446744073709551615k"] {
            assert!(matches!(parse_count(text), Err(UnitError::TooLarge(_))), "{text}");
        }
    }

    #[test]
    fn bytes() {
        for (text, bytes) in [
            ("5MB", 5_000_000),
            ("5MiB", 5 << 20),
            ("1kB", 1_000),
            ("1GiB", 1 << 30),
            ("1.5KiB", 1_536),
            ("1514B", 1_514),
            ("20k", 20_000),
            ("1TB", 1_000_000_000_000),
        ] {
            assert_eq!(parse_bytes(text), Ok(bytes), "{text}");
        }
        for text in ["5Mb", "5Mbit", "5mB", "5KB", "MB", "5 MB"] {
            assert_eq!(parse_bytes(text), Err(UnitError::Form(BYTES)), "{text}");
        }
        assert!(matches!(parse_bytes("0.3KiB"), Err(UnitError::NotWhole(_))));
    }

    #[test]
    fn durations() {
        for (text, seconds) in [
            ("30s", 30),
            ("10m", 600),
            ("2h", 7_200),
            ("1d", 86_400),
            ("2000ms", 2),
        ] {
            assert_eq!(parse_seconds(text), Ok(seconds), "{text}");
        }
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_seconds("500ms"), Err(UnitError::NotWhole("seconds")));
        for text in ["", "30", "s", "1.5h", "-1s", "1h30m", "30 s", "1w", "30S"] {
            assert_eq!(parse_duration(text), Err(UnitError::Form(DURATION)), "{text}");
        }
        assert!(matches!(
            parse_duration("18446744073709551615d"),
            Err(UnitError::TooLarge(_))
        ));
    }

    #[test]
    fn shares() {
        for (text, millionths) in [
            ("0%", 0),
            ("20%", 200_000),
            ("0.5%", 5_000),
            ("100%", 1_000_000),
            ("0.0001%", 1),
        ] {
            assert_eq!(parse_share(text), Ok(millionths), "{text}");
        }
        for text in ["20", "%", "-1%", "20 %", "20%%", "1k%"] {
            assert_eq!(parse_share(text), Err(UnitError::Form(SHARE)), "{text}");
        }
        assert!(matches!(parse_share("0.00001%"), Err(UnitError::NotWhole(_))));
        assert!(matches!(parse_share("100.0001%"), Err(UnitError::TooLarge(_))));
        assert_eq!(parse_percent("250%"), Ok(250));
        assert!(parse_percent("2.5%").is_err() && parse_percent("50").is_err());
    }

    #[test]
    fn formats() {
        assert_eq!(format_count(20_000), "20k");
        assert_eq!(format_count(1_500_000), "1.5M");
        assert_eq!(format_count(1_488_095), "1488095");
        assert_eq!(format_bytes(1_514), "1514B");
        assert_eq!(format_bytes(50_000_000_000), "50GB");
        assert_eq!(format_seconds(0), "0s");
        assert_eq!(format_seconds(90), "90s");
        assert_eq!(format_seconds(7_200), "2h");
        assert_eq!(format_share(5_000), "0.5%");
    }

    proptest! {
        #[test]
        fn what_is_formatted_reads_back(number: u64, millionths in 0_u32..=1_000_000) {
            prop_assert_eq!(parse_count(&format_count(number)), Ok(number));
            prop_assert_eq!(parse_bytes(&format_bytes(number)), Ok(number));
            prop_assert_eq!(parse_seconds(&format_seconds(number)), Ok(number));
            prop_assert_eq!(parse_share(&format_share(millionths)), Ok(millionths));
        }

        #[test]
        fn decimals_are_exact(whole in 0_u64..1_000_000, milli in 0_u64..1_000) {
            prop_assert_eq!(parse_count(&format!("{whole}.{milli:03}k")), Ok(whole * 1_000 + milli));
            prop_assert_eq!(parse_bytes(&format!("{whole}.{milli:03}MB")), Ok((whole * 1_000 + milli) * 1_000));
        }

        #[test]
        fn no_text_panics(text in ".*", shaped in "[0-9.]{0,40}[a-zA-Z%]{0,4}") {
            for text in [text, shaped] {
                let _ = (parse_count(&text), parse_bytes(&text), parse_seconds(&text));
                let _ = (parse_share(&text), parse_percent(&text));
            }
        }
    }
}
