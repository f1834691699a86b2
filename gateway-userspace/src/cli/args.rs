//! Values on the command line, and what they may be.

use std::path::PathBuf;

use ipnet::IpNet;
use weir::policy::{
    prefix::{PrefixError, parse_prefix},
    units,
};

/// The longest that a lever lasts, in seconds: a day.
const LONGEST_LEVER: u64 = 86_400;
/// The longest that a policy waits for confirmation, in seconds: an hour.
const LONGEST_WAIT: u64 = 3_600;
/// The longest that a ban or a list entry lasts, in seconds: ten years.
const LONGEST_BAN: u64 = 315_360_000;

/// How long a lever lasts, in seconds: 1s to 24h.
pub(crate) fn lever_time(text: &str) -> Result<u64, String> {
    time(text, LONGEST_LEVER, "24h")
}

/// How long a ban or a list entry lasts, in seconds: 1s to ten years.
pub(crate) fn ban_time(text: &str) -> Result<u64, String> {
    time(text, LONGEST_BAN, "3650d")
}

/// How long a policy waits for confirmation, in seconds: 1s to 1h.
pub(crate) fn confirm_time(text: &str) -> Result<u64, String> {
    time(text, LONGEST_WAIT, "1h")
}

fn time(text: &str, longest: u64, named: &str) -> Result<u64, String> {
    match units::parse_seconds(text) {
        Ok(seconds) if (1..=longest).contains(&seconds) => Ok(seconds),
        Ok(_) => Err(format!("expected 1s to {named}")),
        Err(error) => Err(error.to_string()),
    }
}

/// A factor for limits, in per cent: 1% to 10000%.
pub(crate) fn factor(text: &str) -> Result<u32, String> {
    match units::parse_percent(text) {
        Ok(percent) if (1..=10_000).contains(&percent) => Ok(percent),
        Ok(0) => Err("expected 1% to 10000%; to drop everything, ban or list the sources".to_owned()),
        Ok(_) => Err("expected 1% to 10000%".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// A change in per cent; above 100% in whole ones.
pub(crate) fn share(text: &str) -> Result<f64, String> {
    let share = units::parse_share(text).map(|millionths| f64::from(millionths) / 10_000.0);
    // A list replaced by one twice as large, with nothing in common, changes by 300%.
    share.or_else(|error| {
        units::parse_percent(text)
            .map(f64::from)
            .map_err(|_| error.to_string())
    })
}

/// An address or a prefix.
pub(crate) fn prefix(text: &str) -> Result<IpNet, String> {
    parse_prefix(text).map_err(|error| match error {
        PrefixError::HostBits(network, address) => {
            format!("{text} has bits beyond its length; did you mean {network}, or {address} alone?")
        }
        error => format!("{text}: {error}"),
    })
}

/// A prefix, or `-` for a list of them on standard input.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum PrefixOrInput {
    Prefix(IpNet),
    Input,
}

impl std::str::FromStr for PrefixOrInput {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if text == "-" {
            Ok(Self::Input)
        } else {
            prefix(text).map(Self::Prefix)
        }
    }
}

/// A file, or `-` for standard input.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) enum FileOrInput {
    File(PathBuf),
    Input,
}

impl From<std::ffi::OsString> for FileOrInput {
    fn from(text: std::ffi::OsString) -> Self {
        if text == "-" {
            Self::Input
        } else {
            Self::File(text.into())
        }
    }
}

/// A value in a query: what is not plain is percent-encoded (RFC 3986, 2.1).
pub(crate) fn in_query(value: &str) -> String {
    use std::fmt::Write as _;
    value.bytes().fold(String::new(), |mut text, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            text.push(char::from(byte));
        } else {
            let _ = write!(text, "%{byte:02X}");
        }
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_bounds() {
        assert_eq!(lever_time("10m"), Ok(600));
        assert_eq!(lever_time("24h"), Ok(86_400));
        assert_eq!(lever_time("1s"), Ok(1));
        assert_eq!(ban_time("7d"), Ok(604_800));
        for wrong in ["0s", "25h", "10", "m", "", "-1s", "500ms", "1.5h"] {
            assert!(lever_time(wrong).unwrap_err().starts_with("expected"), "{wrong}");
        }
        assert!(ban_time("4000d").is_err());
        assert_eq!(confirm_time("60s"), Ok(60));
        assert!(confirm_time("61m").is_err() && confirm_time("0s").is_err());
    }

    #[test]
    fn factors_have_bounds() {
        assert_eq!(factor("50%"), Ok(50));
        assert_eq!(factor("1%"), Ok(1));
        assert_eq!(factor("10000%"), Ok(10_000));
        for wrong in ["0%", "10001%", "50", "x%", "-5%", "%"] {
            assert!(factor(wrong).unwrap_err().starts_with("expected"), "{wrong}");
        }
    }

    #[test]
    fn shares_are_per_cent() {
        assert_eq!(share("20%"), Ok(20.0));
        assert_eq!(share("0.5%"), Ok(0.5));
        assert_eq!(share("150%"), Ok(150.0));
        assert!(share("20").is_err() && share("x%").is_err());
    }

    #[test]
    fn a_dash_is_standard_input() {
        assert_eq!("-".parse(), Ok(PrefixOrInput::Input));
        assert_eq!(
            "192.0.2.1".parse(),
            Ok(PrefixOrInput::Prefix("192.0.2.1/32".parse().unwrap()))
        );
        assert!(
            "192.0.2.1/24"
                .parse::<PrefixOrInput>()
                .unwrap_err()
                .contains("192.0.2.0/24")
        );
        assert_eq!(
            FileOrInput::from(std::ffi::OsString::from("-")),
            FileOrInput::Input
        );
        assert_eq!(
            FileOrInput::from(std::ffi::OsString::from("a")),
            FileOrInput::File("a".into())
        );
    }
}
