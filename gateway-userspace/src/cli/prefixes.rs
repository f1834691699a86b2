//! Many prefixes at once, from a file or from standard input: one a line, `#` begins a comment.

use std::{
    fs::File,
    io::{self, BufReader},
    path::Path,
};

use ipnet::IpNet;
use weir::{
    api::types::code,
    policy::{PolicyErrors, lists},
};

use super::{args::FileOrInput, output::Failure};

/// The most prefixes in a feed: no list may hold more.
const MOST: u32 = 1_000_000;

/// Reads them all, sorted and without repetition; if any line is wrong, the failure names each (as far as there is
/// room) and none is used.
pub(crate) fn read(from: &FileOrInput) -> Result<Vec<IpNet>, Failure> {
    match from {
        FileOrInput::Input => lists::read_prefixes(io::stdin().lock(), Path::new("standard input"), MOST),
        FileOrInput::File(path) => {
            let file = File::open(path).map_err(|error| {
                Failure::new(
                    code::NOT_FOUND,
                    format!("cannot read {}: {error}", path.display()),
                )
                .hint("name a text file with one prefix a line, or - for standard input")
            })?;
            lists::read_prefixes(BufReader::new(file), path, MOST)
        }
    }
    .map_err(|errors| wrong(&errors))
}

fn wrong(errors: &PolicyErrors) -> Failure {
    let lines = if errors.count() == 1 {
        "a line is".to_owned()
    } else {
        format!("{} lines are", errors.count())
    };
    Failure::new(
        code::INVALID_REQUEST,
        format!("{lines} no prefix; nothing was changed"),
    )
    .details(errors.to_string().lines().map(str::to_owned).collect())
    .hint("one address or prefix a line; # begins a comment")
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn feed(content: &[u8]) -> Result<Vec<IpNet>, Failure> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("feed");
        fs::write(&path, content).unwrap();
        read(&FileOrInput::File(path))
    }

    #[test]
    fn comments_blanks_and_line_ends_are_skipped() {
        let prefixes = feed(b"# a feed\r\n\r\n 192.0.2.1 # one\r\n2001:db8::/32\n\n").unwrap();
        assert_eq!(
            prefixes.iter().map(ToString::to_string).collect::<Vec<_>>(),
            ["192.0.2.1/32", "2001:db8::/32"]
        );
        assert_eq!(feed(b"").unwrap(), []);
    }

    #[test]
    fn every_wrong_line_is_named() {
        let failure = feed(b"192.0.2.1\nnonsense\n198.51.100.7/24\n").unwrap_err();
        let text = format!("{failure:?}");
        assert!(
            text.contains("2 lines are no prefix") && text.contains("feed:2:"),
            "{text}"
        );
        assert!(
            text.contains("feed:3:") && text.contains("198.51.100.0/24"),
            "{text}"
        );
        assert_eq!(failure.exit_code(), 2);
    }

    #[test]
    fn what_cannot_be_read_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let absent = FileOrInput::File(directory.path().join("absent"));
        assert_eq!(read(&absent).unwrap_err().exit_code(), 1);
        assert_eq!(feed(&[0xff, 0xfe, 0x00]).unwrap_err().exit_code(), 2);
    }
}
