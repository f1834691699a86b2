//! A terminal as a person sees it: a program in a pseudo-terminal of its own, and what its screen shows.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::{
        fd::{AsFd as _, AsRawFd as _, OwnedFd},
        unix::{fs::OpenOptionsExt as _, process::CommandExt as _},
    },
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{
    fcntl::OFlag,
    poll::{PollFd, PollFlags, PollTimeout, poll},
    pty::{Winsize, grantpt, posix_openpt, ptsname_r, unlockpt},
    sys::{
        signal::{Signal, kill},
        termios::{self, LocalFlags},
    },
    unistd::{Pid, setsid},
};

use crate::command::patience;

/// How long something on the screen is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A program, and the screen it draws on. Dropped, the program is ended.
pub struct Screen {
    child: Child,
    keyboard: Option<File>,
    slave: File,
    parser: Arc<Mutex<vt100::Parser>>,
    closed: Arc<AtomicBool>,
    reader: Option<JoinHandle<()>>,
}

impl Screen {
    /// Starts a program on a terminal of so many columns and lines, which is its controlling terminal.
    pub fn start(mut command: Command, (columns, lines): (u16, u16)) -> Result<Self> {
        // No program may inherit this end: the terminal would then never be closed.
        let master = posix_openpt(OFlag::O_RDWR | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)?;
        grantpt(&master)?;
        unlockpt(&master)?;
        let slave = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NOCTTY)
            .open(ptsname_r(&master)?)?;
        let keyboard = File::from(OwnedFd::from(master));
        set_size(&keyboard, columns, lines)?;
        for stream in [Command::stdin, Command::stdout, Command::stderr] {
            stream(&mut command, Stdio::from(slave.try_clone()?));
        }
        // SAFETY: between fork and exec the closure makes two system calls and allocates nothing.
        unsafe {
            command.pre_exec(|| {
                setsid()?;
                // SAFETY: it takes no pointer; standard input is the terminal.
                nix::Error::result(libc::ioctl(0, libc::TIOCSCTTY, 0))?;
                Ok(())
            });
        }
        let child = command
            .spawn()
            .with_context(|| format!("cannot start {command:?}"))?;
        let parser = Arc::new(Mutex::new(vt100::Parser::new(lines, columns, 0)));
        let closed = Arc::new(AtomicBool::new(false));
        let reader = {
            let output = keyboard.try_clone()?;
            let (parser, closed) = (Arc::clone(&parser), Arc::clone(&closed));
            thread::spawn(move || read(output, &parser, &closed))
        };
        Ok(Self {
            child,
            keyboard: Some(keyboard),
            slave,
            parser,
            closed,
            reader: Some(reader),
        })
    }

    /// Closes the terminal, as a connection that breaks does.
    pub fn close(&mut self) {
        self.closed.store(true, Ordering::SeqCst);
        self.keyboard = None;
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
    }

    /// What stands on the screen.
    pub fn text(&self) -> String {
        self.look(vt100::Screen::contents)
    }

    /// Whether the program draws on the other screen, beside the shell's.
    pub fn is_alternate(&self) -> bool {
        self.look(vt100::Screen::alternate_screen)
    }

    /// Whether the cursor is hidden.
    pub fn hides_cursor(&self) -> bool {
        self.look(vt100::Screen::hide_cursor)
    }

    /// Whether the terminal shows what is typed, as a shell expects.
    pub fn echoes(&self) -> Result<bool> {
        let flags = termios::tcgetattr(&self.slave)?.local_flags;
        Ok(flags.contains(LocalFlags::ECHO | LocalFlags::ICANON | LocalFlags::ISIG))
    }

    fn look<T>(&self, at: impl FnOnce(&vt100::Screen) -> T) -> T {
        at(self
            .parser
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .screen())
    }

    /// Waits until the screen shows what is wanted.
    pub fn wait(&self, what: &str, wanted: impl Fn(&str) -> bool) -> Result<String> {
        let deadline = Instant::now() + patience(PATIENCE);
        loop {
            let text = self.text();
            if wanted(&text) {
                return Ok(text);
            }
            if Instant::now() > deadline {
                bail!("{what} never came on the screen:\n{text}");
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Waits until the screen has this text on it.
    pub fn wait_for(&self, text: &str) -> Result<String> {
        self.wait(text, |screen| screen.contains(text))
    }

    /// Types.
    pub fn press(&mut self, keys: &str) -> Result<()> {
        let keyboard = self.keyboard.as_mut().context("the terminal is closed")?;
        Ok(keyboard.write_all(keys.as_bytes())?)
    }

    /// Gives the terminal another size, and tells the program.
    pub fn resize(&mut self, columns: u16, lines: u16) -> Result<()> {
        let keyboard = self.keyboard.as_ref().context("the terminal is closed")?;
        self.parser
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .screen_mut()
            .set_size(lines, columns);
        set_size(keyboard, columns, lines)
    }

    /// The program's process id.
    pub fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id() as i32)
    }

    /// Sends the program a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill(self.pid(), signal)?)
    }

    /// Waits for the program's end.
    pub fn end(&mut self) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience(PATIENCE);
        loop {
            if let Some(status) = self.child.try_wait()? {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("the program did not end:\n{}", self.text());
            }
            thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        self.close();
    }
}

/// Shows what the program writes, until the terminal is closed.
fn read(mut output: File, parser: &Mutex<vt100::Parser>, closed: &AtomicBool) {
    let mut bytes = [0; 4096];
    while !closed.load(Ordering::SeqCst) {
        let mut ready = [PollFd::new(output.as_fd(), PollFlags::POLLIN)];
        if !matches!(poll(&mut ready, PollTimeout::from(20_u8)), Ok(1..)) {
            continue;
        }
        let Ok(length @ 1..) = output.read(&mut bytes) else {
            return;
        };
        let mut parser = parser.lock().unwrap_or_else(PoisonError::into_inner);
        parser.process(&bytes[..length]);
    }
}

/// The kernel tells the program by SIGWINCH.
fn set_size(terminal: &File, columns: u16, lines: u16) -> Result<()> {
    let size = Winsize {
        ws_row: lines,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open and the size outlives the call.
    nix::Error::result(unsafe { libc::ioctl(terminal.as_raw_fd(), libc::TIOCSWINSZ, &raw const size) })?;
    Ok(())
}
