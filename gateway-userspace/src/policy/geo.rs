//! Reading `[geo]`: where the country of a source is looked up.

use std::path::PathBuf;

use super::{
    model::Geo,
    walk::{Section, Sink},
};

/// Reads `[geo]`, if it is there.
pub(super) fn geo(root: &Section<'_>, sink: &mut Sink<'_>) -> Option<Geo> {
    let section = root.section("geo", sink)?;
    section.check_keys(&["database"], &[], sink);
    let expected = "the path of a MaxMind database, such as \"/var/lib/weir/country.mmdb\"";
    let item = section.require("database", sink, expected)?;
    let text = item.string(sink, expected)?;
    if text.is_empty() {
        sink.bad(&item, format!("expected {expected}"));
        return None;
    }
    Some(Geo {
        database: PathBuf::from(text),
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use crate::policy::parse;

    #[test]
    fn a_database_is_a_path() {
        let read = |section: &str| {
            let text = format!("version = 1\n{section}\n");
            parse(&text, Path::new("p.toml"))
                .map(|parsed| parsed.policy.geo)
                .map_err(|errors| errors.to_string())
        };
        assert_eq!(read(""), Ok(None));
        let geo = read("[geo]\ndatabase = \"country.mmdb\"").unwrap().unwrap();
        assert_eq!(geo.database, Path::new("country.mmdb"));
        for (section, expected) in [
            ("[geo]", "the key is missing"),
            ("[geo]\ndatabase = 1", "p.toml:3:12: geo.database"),
            ("[geo]\ndatabase = \"\"", "a MaxMind database"),
            ("[geo]\ndatabase = \"a\"\nlicense = \"b\"", "geo.license"),
        ] {
            let error = read(section).unwrap_err();
            assert!(error.contains(expected), "{section}: {error}");
        }
    }
}
