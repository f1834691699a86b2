//! List files: one prefix a line, `#` comments; and the whole contents of a policy's lists.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, BufRead, BufReader, Read as _},
    path::Path,
};

use ipnet::IpNet;

use super::{
    error::{Finding, PolicyErrors, shown},
    model::{List, Policy},
    prefix::parse_prefix,
};

/// Most errors of one list file that are shown; the rest is counted.
const MAX_SHOWN: usize = 20;
/// Longest line of a list file, in bytes.
const MAX_LINE: u64 = 1_024;

/// Reads prefixes from a reader, one a line: sorted, without repetition, at most `max_prefixes` of them.
///
/// `#` begins a comment; blank lines, spaces around a prefix and `\r\n` do not matter. `name` stands for the file in
/// errors.
pub fn read_prefixes(
    mut reader: impl BufRead,
    name: &Path,
    max_prefixes: u32,
) -> Result<Vec<IpNet>, PolicyErrors> {
    let most = max_prefixes as usize;
    let mut prefixes: Vec<IpNet> = Vec::new();
    let (mut errors, mut more) = (Vec::new(), 0);
    let mut line = Vec::new();
    let mut number = 0_u32;
    let about = |number, value: Option<String>, message: String| Finding {
        line: number,
        value,
        ..Finding::about(name, message)
    };
    loop {
        line.clear();
        let read = reader.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        number = number.saturating_add(1);
        match read {
            Ok(0) => break,
            Ok(_) => {}
            Err(error) => return Err(PolicyErrors::one(Finding::about(name, unreadable(&error)))),
        }
        if line.len() as u64 == MAX_LINE && line.last() != Some(&b'\n') {
            // Whatever this file is, it is no list of prefixes.
            errors.push(about(
                number,
                None,
                format!("expected a line of less than {MAX_LINE} bytes"),
            ));
            break;
        }
        match prefix_of(&line, number == 1) {
            Ok(None) => {}
            Ok(Some(prefix)) => prefixes.push(prefix),
            Err((value, message)) if errors.len() < MAX_SHOWN => {
                errors.push(about(number, Some(value), message));
            }
            Err(_) => more += 1,
        }
        // Repetition is no error and must not cost memory without bound either.
        if prefixes.len() >= 2 * most + 2 {
            tidy(&mut prefixes);
            if prefixes.len() > most {
                break;
            }
        }
    }
    tidy(&mut prefixes);
    if prefixes.len() > most {
        errors.push(Finding::about(name, too_many(max_prefixes)));
    }
    match PolicyErrors::some(errors, more) {
        Some(errors) => Err(errors),
        None => Ok(prefixes),
    }
}

/// Reads the prefixes of a file, as [`read_prefixes`] does.
pub fn read_file(path: &Path, max_prefixes: u32) -> Result<Vec<IpNet>, PolicyErrors> {
    let fail = |message: String| PolicyErrors::one(Finding::about(path, message));
    let metadata = std::fs::metadata(path).map_err(|error| fail(unreadable(&error)))?;
    if !metadata.is_file() {
        return Err(fail("expected a regular file with one prefix a line".to_owned()));
    }
    let file = File::open(path).map_err(|error| fail(unreadable(&error)))?;
    read_prefixes(BufReader::with_capacity(64 << 10, file), path, max_prefixes)
}

/// The contents of every list of a policy by name: `prefixes` and `files` together, sorted, without repetition.
///
/// A relative path in `files` is relative to `policy_dir`, the folder of the policy file.
pub fn contents(policy: &Policy, policy_dir: &Path) -> Result<BTreeMap<String, Vec<IpNet>>, PolicyErrors> {
    let mut contents = BTreeMap::new();
    let (mut errors, mut more) = (Vec::new(), 0);
    for list in &policy.lists {
        match content(list, policy_dir) {
            Ok(prefixes) => {
                contents.insert(list.name.clone(), prefixes);
            }
            Err(failed) => {
                more += failed.more();
                errors.extend_from_slice(failed.errors());
            }
        }
    }
    match PolicyErrors::some(errors, more) {
        Some(errors) => Err(errors),
        None => Ok(contents),
    }
}

fn content(list: &List, policy_dir: &Path) -> Result<Vec<IpNet>, PolicyErrors> {
    let mut prefixes = list.prefixes.clone();
    let (mut errors, mut more) = (Vec::new(), 0);
    for (index, file) in list.files.iter().enumerate() {
        match read_file(&policy_dir.join(file), list.max_prefixes) {
            Ok(mut read) => prefixes.append(&mut read),
            Err(failed) => {
                more += failed.more();
                let key = format!("lists.{}.files[{}]", list.name, index + 1);
                errors.extend(failed.errors().iter().cloned().map(|error| Finding {
                    key: key.clone(),
                    ..error
                }));
            }
        }
        tidy(&mut prefixes);
        if prefixes.len() > list.max_prefixes as usize {
            let key = format!("lists.{}.max_prefixes", list.name);
            let path = policy_dir.join(file);
            errors.push(Finding {
                key,
                ..Finding::about(&path, too_many(list.max_prefixes))
            });
            break;
        }
    }
    tidy(&mut prefixes);
    match PolicyErrors::some(errors, more) {
        Some(errors) => Err(errors),
        None => Ok(prefixes),
    }
}

fn tidy(prefixes: &mut Vec<IpNet>) {
    prefixes.sort_unstable();
    prefixes.dedup();
}

/// The prefix of a line, if there is one; otherwise the offending text and what was expected.
fn prefix_of(line: &[u8], is_first: bool) -> Result<Option<IpNet>, (String, String)> {
    let line = line.split(|&b| b == b'#').next().unwrap_or_default();
    let text = std::str::from_utf8(line).map_err(|_| {
        let lossy = String::from_utf8_lossy(line);
        (shown(&lossy), "expected text in UTF-8".to_owned())
    })?;
    let text = if is_first {
        text.trim_start_matches('\u{feff}')
    } else {
        text
    }
    .trim();
    if text.is_empty() {
        return Ok(None);
    }
    parse_prefix(text)
        .map(Some)
        .map_err(|error| (shown(text), error.to_string()))
}

fn too_many(most: u32) -> String {
    format!("expected at most {most} prefixes in the whole list: raise its max_prefixes, or shorten it")
}

fn unreadable(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => {
            "expected a file with one prefix a line, but there is none of that name".to_owned()
        }
        io::ErrorKind::PermissionDenied => {
            "expected a file that may be read; check its permissions".to_owned()
        }
        _ => format!("expected a file that can be read: {error}"),
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;
    use crate::policy::parse;

    fn read(text: &str, most: u32) -> Result<Vec<IpNet>, String> {
        read_prefixes(text.as_bytes(), Path::new("l.txt"), most).map_err(|errors| errors.to_string())
    }

    fn texts(prefixes: &[IpNet]) -> Vec<String> {
        prefixes.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn lines_comments_and_repetition() {
        let text = "\u{feff}# head\r\n 198.51.100.0/24 \r\n\n192.0.2.1 # one\n2001:db8::/32\n192.0.2.1/32\n10.0.0.0/8";
        let prefixes = read(text, 10).unwrap();
        assert_eq!(
            texts(&prefixes),
            ["10.0.0.0/8", "192.0.2.1/32", "198.51.100.0/24", "2001:db8::/32"]
        );
        assert_eq!(read("", 1), Ok(Vec::new()));
    }

    #[test]
    fn errors_have_lines_and_are_counted() {
        let error = read("10.0.0.0/8\nnonsense\n10.1.2.3/8\n", 10).unwrap_err();
        assert_eq!(
            error.lines().collect::<Vec<_>>(),
            [
                "l.txt:2: nonsense: expected an address or a prefix, such as 192.0.2.7, 192.0.2.0/24 or 2001:db8::/48",
                "l.txt:3: 10.1.2.3/8: expected no bits set beyond the prefix length: the network is 10.0.0.0/8, the single address 10.1.2.3",
            ]
        );
        let error = read(&"x\n".repeat(50), 10).unwrap_err();
        assert_eq!(error.lines().count(), 21);
        assert!(error.ends_with("and 30 more errors"));
        let error = read_prefixes(&b"10.0.0.0/8\n\xff\xfe\n"[..], Path::new("l"), 9).unwrap_err();
        assert!(error.to_string().starts_with("l:2: "), "{error}");
        let error = read(&"1".repeat(5_000), 10).unwrap_err();
        assert_eq!(error, "l.txt:1: expected a line of less than 1024 bytes");
    }

    #[test]
    fn repetition_does_not_count_against_the_bound() {
        let text = "10.0.0.1\n10.0.0.2\n".repeat(500);
        assert_eq!(read(&text, 2).unwrap().len(), 2);
        let error = read(&text, 1).unwrap_err();
        assert!(error.contains("expected at most 1 prefixes"), "{error}");
        assert!(read("10.0.0.1\n10.0.0.2\n10.0.0.3\n", 2).is_err());
        assert!(read("10.0.0.1\n10.0.0.2\n10.0.0.3\n", 3).is_ok());
    }

    #[test]
    fn a_million_lines() {
        let mut text = String::new();
        for number in 0..1_000_000_u32 {
            let _ = writeln!(text, "{}", std::net::Ipv4Addr::from(0x0a00_0000 + number));
        }
        assert_eq!(read(&text, 1_000_000).unwrap().len(), 1_000_000);
    }

    #[test]
    fn contents_merge_prefixes_and_files() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a.txt"), "10.0.0.0/8\n192.0.2.0/24\n").unwrap();
        let text = |most: u32, files: &str| {
            let text = format!(
                "version = 1\n[lists.block]\nprefixes = [\"192.0.2.0/24\", \"::1\"]\nfiles = [{files}]\nmax_prefixes = {most}\n[lists.empty]\n"
            );
            parse(&text, Path::new("p.toml")).unwrap().policy
        };
        let lists = contents(&text(3, "\"a.txt\""), folder.path()).unwrap();
        assert_eq!(texts(&lists["block"]), ["10.0.0.0/8", "192.0.2.0/24", "::1/128"]);
        assert_eq!(lists["empty"], []);

        let error = contents(&text(2, "\"a.txt\""), folder.path())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("lists.block.max_prefixes: expected at most 2 prefixes"),
            "{error}"
        );
        std::fs::write(folder.path().join("bad.txt"), "10.0.0.0/8\nbad\n").unwrap();
        let error = contents(&text(9, "\"bad.txt\", \"none.txt\", \".\""), folder.path()).unwrap_err();
        let error = error.to_string();
        let lines: Vec<_> = error.lines().collect();
        assert_eq!(lines.len(), 3, "{error}");
        assert!(
            lines[0].contains("bad.txt:2: lists.block.files[1]: bad: expected"),
            "{error}"
        );
        assert!(
            lines[1].contains("none.txt: lists.block.files[2]: expected a file with one prefix a line, but")
        );
        assert!(lines[2].contains("lists.block.files[3]: expected a regular file"));
    }
}
