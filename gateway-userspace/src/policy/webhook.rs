//! Reading `[anomaly.webhook]`: who is told of anomalies. Its address may carry a token, so nothing here shows it whole.

use std::{fmt, path::PathBuf};

use hyper::Uri;
use serde::{Serialize, Serializer};

use super::{
    bounds,
    model::{Told, Webhook},
    sha256_hex,
    walk::{Item, Section, Sink},
};

const KEYS: [&str; 3] = ["url", "secret_file", "verdicts"];

/// Verdicts that can be told of.
const VERDICTS: [(&str, Told); 3] = [
    ("attack", Told::Attack),
    ("stealth", Told::Stealth),
    ("crowd", Told::Crowd),
];

/// Where messages go. It is shown without its path and query, which may be secret.
#[derive(Clone, Eq, PartialEq)]
pub struct Url {
    /// Whether the way there is encrypted.
    pub https: bool,
    /// The host: a name, or an address without brackets.
    pub host: String,
    /// The port.
    pub port: u16,
    /// Path and query.
    pub target: String,
}

impl Url {
    /// Reads one.
    ///
    /// # Errors
    /// What was expected instead; the text is not repeated.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str = "expected an address such as \"https://hooks.example.com/weir\"";
        let uri: Uri = text.parse().map_err(|_| EXPECTED)?;
        let https = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err("expected an address that begins with https:// or http://"),
        };
        let authority = uri.authority().ok_or(EXPECTED)?;
        if authority.as_str().contains('@') {
            return Err("expected no user and password in the address; secret_file signs what is sent");
        }
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        // What stands behind the host is a port or nothing.
        let port = match authority.port_u16() {
            Some(0) => return Err("expected a port from 1 to 65535"),
            Some(port) => port,
            None if authority.as_str().ends_with(authority.host()) => {
                if https {
                    443
                } else {
                    80
                }
            }
            None => return Err("expected a port from 1 to 65535"),
        };
        if host.is_empty() {
            return Err(EXPECTED);
        }
        let target = uri.path_and_query().map_or("/", |target| target.as_str());
        Ok(Self {
            https,
            host: host.to_owned(),
            port,
            target: if target.is_empty() { "/" } else { target }.to_owned(),
        })
    }

    /// The host and, if it is not the scheme's own, the port: as in a request's `Host`.
    pub fn authority(&self) -> String {
        let host = if self.host.contains(':') {
            format!("[{}]", self.host)
        } else {
            self.host.clone()
        };
        let usual = if self.https { 443 } else { 80 };
        if self.port == usual {
            host
        } else {
            format!("{host}:{}", self.port)
        }
    }

    /// What tells two of them apart without showing either.
    pub fn fingerprint(&self) -> String {
        let mut sum = sha256_hex(self.target.as_bytes());
        sum.truncate(8);
        sum
    }

    fn is_near(&self) -> bool {
        let address = self.host.parse::<std::net::IpAddr>();
        self.host == "localhost" || address.is_ok_and(|address| address.is_loopback())
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.https { "https" } else { "http" };
        let rest = if self.target == "/" { "" } else { "…" };
        write!(f, "{scheme}://{}/{rest}", self.authority())
    }
}

impl fmt::Debug for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Url {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Reads `[anomaly.webhook]`, if it is there; `anomaly` is the section that it stands in.
pub(super) fn webhook(anomaly: &Section<'_>, sink: &mut Sink<'_>) -> Option<Webhook> {
    let section = anomaly.section("webhook", sink)?;
    section.check_keys(&KEYS, &[], sink);
    let secret_file = section
        .get("secret_file")
        .and_then(|item| secret_file(&item, sink));
    let verdicts = verdicts(&section, sink);
    let item = section.require("url", sink, "where anomalies are told, such as \"https://…\"")?;
    // Of a value that may be secret only the place is told.
    let Some(text) = item.value.as_str() else {
        sink.error(item.start, item.path.clone(), "expected a string with an address");
        return None;
    };
    if text.len() > bounds::MAX_URL {
        sink.error(
            item.start,
            item.path.clone(),
            format!("expected an address of at most {} bytes", bounds::MAX_URL),
        );
        return None;
    }
    let url = match Url::parse(text) {
        Ok(url) => url,
        Err(expected) => {
            sink.error(item.start, item.path.clone(), expected);
            return None;
        }
    };
    if !url.https && !url.is_near() {
        sink.warn_section(
            &section,
            "http is not encrypted: whoever is on the way reads what is told, and the token if the address has one",
        );
    }
    Some(Webhook {
        url,
        secret_file,
        verdicts,
    })
}

fn secret_file(item: &Item<'_>, sink: &mut Sink<'_>) -> Option<PathBuf> {
    let expected = "the path of a file with the secret, such as \"/etc/weir/webhook.secret\"";
    let text = item.string(sink, expected)?;
    if text.is_empty() {
        sink.bad(item, format!("expected {expected}"));
        return None;
    }
    Some(PathBuf::from(text))
}

fn verdicts(section: &Section<'_>, sink: &mut Sink<'_>) -> Vec<Told> {
    let Some(item) = section.get("verdicts") else {
        return vec![Told::Attack, Told::Stealth];
    };
    let expected = "an array of verdicts, such as [\"attack\", \"stealth\"]";
    let Some(items) = item.array(sink, expected) else {
        return Vec::new();
    };
    if items.is_empty() {
        sink.bad(
            &item,
            "expected at least one of \"attack\", \"stealth\" and \"crowd\"",
        );
    }
    let mut verdicts: Vec<Told> = items
        .iter()
        .filter_map(|item| item.choice(sink, &VERDICTS))
        .collect();
    verdicts.sort_unstable();
    verdicts.dedup();
    verdicts
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::policy::parse;

    fn read(section: &str) -> Result<Webhook, String> {
        let text = format!("version = 1\n[anomaly.webhook]\n{section}\n");
        parse(&text, Path::new("p.toml"))
            .map(|parsed| parsed.policy.webhook.unwrap())
            .map_err(|errors| errors.to_string())
    }

    #[test]
    fn keys_and_their_defaults() {
        let plain = read("url = \"https://hooks.example.com/T0KEN?x=1\"").unwrap();
        assert_eq!(plain.verdicts, [Told::Attack, Told::Stealth]);
        assert_eq!(plain.secret_file, None);
        let url = &plain.url;
        assert_eq!(
            (url.https, url.host.as_str(), url.port),
            (true, "hooks.example.com", 443)
        );
        assert_eq!(url.target, "/T0KEN?x=1");
        let whole = read(
            "url = \"http://[::1]:8080\"\nsecret_file = \"hook.secret\"\nverdicts = [\"crowd\", \"attack\", \"crowd\"]",
        )
        .unwrap();
        assert_eq!((whole.url.host.as_str(), whole.url.port), ("::1", 8080));
        assert_eq!(
            (whole.url.target.as_str(), whole.url.authority().as_str()),
            ("/", "[::1]:8080")
        );
        assert_eq!(whole.verdicts, [Told::Attack, Told::Crowd]);
        assert_eq!(whole.secret_file.as_deref(), Some(Path::new("hook.secret")));
        assert!(
            parse("version = 1", Path::new("p"))
                .unwrap()
                .policy
                .webhook
                .is_none()
        );
    }

    #[test]
    fn the_token_is_never_shown() {
        let url = Url::parse("https://hooks.example.com:8443/services/T0KEN?key=T0KEN").unwrap();
        let shown = format!("{url} {url:?} {}", serde_json::to_string(&url).unwrap());
        assert!(
            !shown.contains("T0KEN") && shown.contains("hooks.example.com:8443"),
            "{shown}"
        );
        assert_eq!(
            Url::parse("http://localhost").unwrap().to_string(),
            "http://localhost/"
        );
        let other = Url::parse("https://hooks.example.com:8443/services/OTHER").unwrap();
        assert_ne!(url.fingerprint(), other.fingerprint());
        for wrong in [
            "url = \"ftp://hooks.example.com/T0KEN\"",
            "url = \"https://me:T0KEN@hooks.example.com/\"",
            "url = \"https://hooks.example.com:99999/T0KEN\"",
            "url = \"https://hooks.example.com:0/T0KEN\"",
            "url = \"https://hooks example.com/T0KEN\"",
            "url = \"T0KEN\"",
            "url = \"/T0KEN\"",
            "url = [\"https://hooks.example.com/T0KEN\"]",
            &format!("url = \"https://hooks.example.com/T0KEN{}\"", "x".repeat(2_000)),
        ] {
            let error = read(wrong).unwrap_err();
            assert!(
                error.contains("anomaly.webhook.url") && !error.contains("T0KEN"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_cannot_be_is_an_error_at_its_place() {
        let url = "url = \"https://h.example\"";
        for (section, expected) in [
            ("", "the key is missing"),
            (
                &format!("{url}\nverdicts = []"),
                "p.toml:4:12: anomaly.webhook.verdicts",
            ),
            (
                &format!("{url}\nverdicts = [\"quiet\"]"),
                "\"attack\" or \"stealth\" or \"crowd\"",
            ),
            (&format!("{url}\nverdicts = \"attack\""), "an array of verdicts"),
            (
                &format!("{url}\nsecret_file = \"\""),
                "anomaly.webhook.secret_file",
            ),
            (&format!("{url}\nsecret = \"x\""), "anomaly.webhook.secret"),
        ] {
            let error = read(section).unwrap_err();
            assert!(error.contains(expected), "{section}: {error}");
        }
    }

    #[test]
    fn a_way_that_is_not_encrypted_is_warned_of() {
        let warnings = |url: &str| {
            let text = format!("version = 1\n[anomaly.webhook]\nurl = \"{url}\"\n");
            parse(&text, Path::new("p.toml")).unwrap().warnings.len()
        };
        assert_eq!(warnings("http://hooks.example.com/"), 1);
        for near in [
            "http://127.0.0.1:9/",
            "http://[::1]/",
            "http://localhost/",
            "https://h.example/",
        ] {
            assert_eq!(warnings(near), 0, "{near}");
        }
    }
}
