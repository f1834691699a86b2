//! Reading `[lists.NAME]`.

use std::{collections::BTreeMap, path::PathBuf};

use super::{
    bounds,
    document::{check_name, prefixes},
    model::{List, ListAction},
    walk::{Section, Sink},
};

/// What the rest of the policy must know of a list.
#[derive(Clone, Copy)]
pub(super) struct Known {
    pub(super) action: Option<ListAction>,
    pub(super) proxy: bool,
}

/// Every list of the file by name, also those with errors.
pub(super) type KnownLists<'a> = BTreeMap<&'a str, Known>;

/// Reads every list, in the order of the file.
pub(super) fn lists<'a>(root: &Section<'a>, sink: &mut Sink<'_>) -> (Vec<List>, KnownLists<'a>) {
    let (mut lists, mut known) = (Vec::new(), KnownLists::new());
    let Some(section) = root.section("lists", sink) else {
        return (lists, known);
    };
    let items = section.items();
    if items.len() > bounds::MAX_LISTS {
        let (found, most) = (items.len(), bounds::MAX_LISTS);
        sink.error(
            section.start,
            "lists",
            format!("expected at most {most} lists, not {found}"),
        );
    }
    for (name, item) in items {
        if !check_name(&item, name, sink) {
            continue;
        }
        let Some(section) = item.table(sink, &format!("a table [lists.{name}]")) else {
            continue;
        };
        let list = list(name, &section, sink);
        known.insert(
            name,
            Known {
                action: list.action,
                proxy: list.proxy,
            },
        );
        lists.push(list);
    }
    (lists, known)
}

fn list(name: &str, section: &Section<'_>, sink: &mut Sink<'_>) -> List {
    section.check_keys(
        &["action", "prefixes", "files", "max_prefixes", "proxy"],
        &[],
        sink,
    );
    let actions = [("drop", ListAction::Drop), ("trust", ListAction::Trust)];
    let action = section.get("action").and_then(|item| item.choice(sink, &actions));
    let prefixes: Vec<_> = prefixes(section, "prefixes", sink)
        .into_iter()
        .map(|(prefix, _)| prefix)
        .collect();
    let files = files(section, sink);
    let max_prefixes = section
        .get("max_prefixes")
        .and_then(|item| item.integer(sink, &bounds::MAX_PREFIXES));
    let max_prefixes = max_prefixes.map_or(bounds::DEFAULT_MAX_PREFIXES, |most| most as u32);
    if prefixes.len() > max_prefixes as usize
        && let Some(item) = section.get("prefixes")
    {
        let message = format!(
            "expected at most {max_prefixes} prefixes (max_prefixes), not {}",
            prefixes.len()
        );
        sink.bad(&item, message);
    }
    let proxy = section.get("proxy").and_then(|item| {
        let proxy = item.boolean(sink)?;
        if proxy && action == Some(ListAction::Drop) {
            sink.warn(&item, "has no effect: action = \"drop\" drops the members before");
        }
        Some(proxy)
    });
    List {
        name: name.to_owned(),
        action,
        prefixes,
        files,
        max_prefixes,
        proxy: proxy.unwrap_or_default(),
    }
}

fn files(section: &Section<'_>, sink: &mut Sink<'_>) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for item in section.array(
        "files",
        sink,
        "an array of paths, such as [\"/var/lib/weir/blocklist.txt\"]",
    ) {
        let Some(text) = item.string(sink, "a string with a path") else {
            continue;
        };
        let path = PathBuf::from(text);
        if text.is_empty() || text.contains('\0') {
            sink.bad(&item, "expected the path of a file with one prefix a line");
        } else if files.contains(&path) {
            sink.warn(&item, "is named twice in this list");
        } else {
            files.push(path);
        }
    }
    files
}
