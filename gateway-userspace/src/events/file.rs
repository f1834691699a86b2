//! The files of events: JSON lines, appended and rotated on a thread of their own, and read back at a start.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read as _, Seek as _, SeekFrom, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    sync::mpsc::Receiver,
};

use super::Event;

/// The newest file's name in the state directory; older ones have `.1`, `.2`, … behind it.
pub(super) const NAME: &str = "events.jsonl";

/// How large a file may grow and how many there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bounds {
    /// Bytes after which the next line begins a new file.
    pub(super) bytes: u64,
    /// Files in all.
    pub(super) files: u32,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            bytes: 8 << 20,
            files: 4,
        }
    }
}

/// The newest file, opened when the first line comes.
#[derive(Debug)]
pub(super) struct Writer {
    path: PathBuf,
    bounds: Bounds,
    open: Option<(File, u64)>,
}

impl Writer {
    pub(super) fn new(dir: &Path, bounds: Bounds) -> Self {
        Self {
            path: dir.join(NAME),
            bounds,
            open: None,
        }
    }

    /// Appends a line (without its end). After a failure the file is opened anew, which mends a line that was cut.
    pub(super) fn append(&mut self, line: &str) -> io::Result<()> {
        let result = self.try_append(line);
        if result.is_err() {
            self.open = None;
        }
        result
    }

    fn try_append(&mut self, line: &str) -> io::Result<()> {
        let (mut file, mut length) = match self.open.take() {
            Some(open) => open,
            None => self.reopen()?,
        };
        let text = format!("{line}\n");
        if length > 0 && length + text.len() as u64 > self.bounds.bytes {
            drop(file);
            self.rotate()?;
            (file, length) = self.reopen()?;
        }
        file.write_all(text.as_bytes())?;
        self.open = Some((file, length + text.len() as u64));
        Ok(())
    }

    fn reopen(&self) -> io::Result<(File, u64)> {
        let mut file = OpenOptions::new()
            .create(true)
            .read(true)
            .append(true)
            .mode(0o640)
            .open(&self.path)?;
        let mut length = file.metadata()?.len();
        let mut last = [b'\n'];
        if length > 0 {
            file.seek(SeekFrom::End(-1))?;
            file.read_exact(&mut last)?;
        }
        if last != [b'\n'] {
            // A crash or a full disk cut this line; the next must not grow together with it.
            file.write_all(b"\n")?;
            length += 1;
        }
        Ok((file, length))
    }

    fn rotate(&self) -> io::Result<()> {
        for older in (1..self.bounds.files).rev() {
            let from = if older == 1 {
                self.path.clone()
            } else {
                numbered(&self.path, older - 1)
            };
            match fs::rename(&from, numbered(&self.path, older)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

fn numbered(path: &Path, number: u32) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(format!(".{number}"));
    name.into()
}

/// Writes lines until their senders are gone. `told` hears what became of each.
pub(super) fn write_all(mut writer: Writer, lines: &Receiver<String>, told: impl Fn(io::Result<()>)) {
    while let Ok(line) = lines.recv() {
        told(writer.append(&line));
    }
}

/// The last events of the files, at most so many, oldest first, and how many lines were damaged.
pub(super) fn read_last(dir: &Path, bounds: Bounds, most: usize) -> io::Result<(Vec<Event>, usize)> {
    let newest = dir.join(NAME);
    let mut events: Vec<Event> = Vec::new();
    let mut damaged = 0;
    for number in 0..bounds.files {
        let path = if number == 0 {
            newest.clone()
        } else {
            numbered(&newest, number)
        };
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            Err(error) => return Err(error),
        };
        let lines = bytes
            .split(|byte| *byte == b'\n')
            .rev()
            .filter(|line| !line.is_empty());
        for line in lines.take(most - events.len()) {
            match serde_json::from_slice(line) {
                Ok(event) => events.push(event),
                Err(_) => damaged += 1,
            }
        }
        if events.len() >= most {
            break;
        }
    }
    events.reverse();
    Ok((events, damaged))
}
