//! Reads what `/metrics` serves, strictly: a line that is not Prometheus text is an error.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, bail, ensure};

/// A series' labels, by name.
pub type Labels = BTreeMap<String, String>;

/// All series of one scrape.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metrics {
    series: BTreeMap<(String, Labels), f64>,
}

impl Metrics {
    /// Parses the text format.
    pub fn parse(text: &str) -> Result<Self> {
        let mut series = BTreeMap::new();
        for line in text
            .lines()
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
        {
            let (key, value) = parse_line(line).with_context(|| format!("not a metric: {line:?}"))?;
            ensure!(
                series.insert(key, value).is_none(),
                "the series {line:?} is there twice"
            );
        }
        Ok(Self { series })
    }

    /// The one series of this name with exactly these labels, in any order.
    pub fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let labels = labels
            .iter()
            .map(|&(key, value)| (key.to_owned(), value.to_owned()))
            .collect();
        self.series.get(&(name.to_owned(), labels)).copied()
    }

    /// The sum over all series of this name that have at least these labels; 0 when none has.
    pub fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.matching(name, labels).map(|(_, value)| value).sum()
    }

    /// The sums of a name by the values of one label, over the series that have at least `labels`.
    pub fn by(&self, name: &str, label: &str, labels: &[(&str, &str)]) -> BTreeMap<String, f64> {
        let mut sums = BTreeMap::new();
        for (of, value) in self.matching(name, labels) {
            if let Some(key) = of.get(label) {
                *sums.entry(key.clone()).or_insert(0.0) += value;
            }
        }
        sums
    }

    /// Every series of a name.
    pub fn matching<'a>(
        &'a self,
        name: &'a str,
        labels: &'a [(&str, &str)],
    ) -> impl Iterator<Item = (&'a Labels, f64)> {
        self.series
            .iter()
            .filter(move |((of, has), _)| {
                of == name
                    && labels
                        .iter()
                        .all(|&(key, value)| has.get(key).is_some_and(|v| v == value))
            })
            .map(|((_, has), &value)| (has, value))
    }

    /// The names of all series.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.series.keys().map(|(name, _)| name.as_str())
    }

    /// How many series there are.
    pub fn len(&self) -> usize {
        self.series.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.series.is_empty()
    }
}

fn parse_line(line: &str) -> Result<((String, Labels), f64)> {
    let end = line.find(['{', ' ']).context("no value")?;
    let (name, mut rest) = line.split_at(end);
    ensure!(
        !name.is_empty()
            && name
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'_' || b == b':'),
        "bad name"
    );
    let mut labels = Labels::new();
    if let Some(inner) = rest.strip_prefix('{') {
        rest = parse_labels(inner, &mut labels)?;
    }
    let mut words = rest.split_whitespace();
    let value = match words.next().context("no value")? {
        "+Inf" => f64::INFINITY,
        "-Inf" => f64::NEG_INFINITY,
        word => word.parse().context("bad value")?,
    };
    Ok(((name.to_owned(), labels), value))
}

/// Reads labels up to the closing brace and returns what follows it.
fn parse_labels<'a>(mut rest: &'a str, labels: &mut Labels) -> Result<&'a str> {
    loop {
        rest = rest.trim_start_matches([',', ' ']);
        if let Some(after) = rest.strip_prefix('}') {
            return Ok(after);
        }
        let (key, after) = rest.split_once("=\"").context("a label without a value")?;
        let mut value = String::new();
        let mut chars = after.char_indices();
        rest = loop {
            match chars.next().context("a label value that does not end")? {
                (at, '"') => break &after[at + 1..],
                (_, '\\') => match chars.next().context("a label value that does not end")?.1 {
                    'n' => value.push('\n'),
                    c @ ('\\' | '"') => value.push(c),
                    other => bail!("the escape \\{other}"),
                },
                (_, c) => value.push(c),
            }
        };
        ensure!(
            labels.insert(key.to_owned(), value).is_none(),
            "the label {key} twice"
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = r#"# HELP weir_packets_total Packets.
# TYPE weir_packets_total counter
weir_packets_total{interface="eth0",service="storefront",class="",verdict="drop",reason="ban"} 7
weir_packets_total{interface="eth0",service="storefront",class="",verdict="drop",reason="block"} 5
weir_packets_total{interface="eth1",service="a\"b\\c,}",class="",verdict="pass",reason="pass"} 1e3

weir_bans 2
"#;

    #[test]
    fn series_are_found_summed_and_split() -> Result<()> {
        let metrics = Metrics::parse(TEXT)?;
        assert_eq!(metrics.len(), 4);
        assert_eq!(metrics.get("weir_bans", &[]), Some(2.0));
        assert_eq!(metrics.get("weir_packets_total", &[("verdict", "drop")]), None);
        assert!((metrics.sum("weir_packets_total", &[("verdict", "drop")]) - 12.0).abs() < 1e-9);
        assert!((metrics.sum("weir_packets_total", &[("service", "a\"b\\c,}")]) - 1000.0).abs() < 1e-9);
        let reasons = metrics.by("weir_packets_total", "reason", &[("verdict", "drop")]);
        assert_eq!(
            reasons.into_iter().collect::<Vec<_>>(),
            [("ban".to_owned(), 7.0), ("block".to_owned(), 5.0)]
        );
        Ok(())
    }

    #[test]
    fn what_is_not_prometheus_text_is_an_error() {
        for text in [
            "x",
            "x{a=\"b} 1",
            "x{a} 1",
            "x{a=\"b\"}",
            "x one",
            "x{a=\"1\",a=\"2\"} 1",
            "x 1\nx 2",
            "<html> 1",
        ] {
            assert!(Metrics::parse(text).is_err(), "{text}");
        }
    }
}
