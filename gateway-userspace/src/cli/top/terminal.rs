//! The terminal: taken over, given back whatever happens, listened to without ever spinning on one that has gone.

use std::{
    io::{self, IsTerminal as _, Stdout, Write as _},
    mem::ManuallyDrop,
    os::fd::{AsFd as _, BorrowedFd},
    panic,
    sync::{
        Once,
        atomic::{AtomicBool, Ordering},
        mpsc::Sender,
    },
    thread,
    time::Duration,
};

use nix::{
    poll::{PollFd, PollFlags, PollTimeout, poll},
    sys::signal::{SigSet, Signal, raise},
};
use ratatui::{
    Terminal,
    backend::CrosstermBackend,
    crossterm::{
        cursor, event, execute,
        terminal::{EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode},
    },
    layout::{Position, Rect},
};

use super::Message;

/// The signals that are heard here instead of ending the process with the terminal taken over.
const SIGNALS: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGWINCH,
    Signal::SIGTSTP,
    Signal::SIGCONT,
];

/// The terminal is ours, and has to be given back.
static TAKEN: AtomicBool = AtomicBool::new(false);
/// Something panicked, on whatever thread.
static CRASHED: AtomicBool = AtomicBool::new(false);

/// The terminal while it is taken over. Dropped, it is as before.
pub(super) struct Screen {
    /// What is drawn on. Never dropped: it would show the cursor again, which [`leave`] does, and where the terminal has
    /// gone it would complain on a standard error that has gone, too, and panic.
    pub(super) terminal: ManuallyDrop<Terminal<CrosstermBackend<Stdout>>>,
}

impl Screen {
    /// Takes the terminal over.
    pub(super) fn take() -> io::Result<Self> {
        give_back_on_panic();
        enter()?;
        let terminal = Terminal::new(CrosstermBackend::new(io::stdout()));
        if terminal.is_err() {
            leave();
        }
        Ok(Self {
            terminal: ManuallyDrop::new(terminal?),
        })
    }

    /// Gives the terminal back, stops until the shell goes on with this process, and takes it over again.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        leave();
        // Not SIGTSTP, which is heard here and stops nothing.
        raise(Signal::SIGSTOP)?;
        self.again()
    }

    /// Takes the terminal over again: the shell has written on it, and set it up for itself.
    pub(super) fn again(&mut self) -> io::Result<()> {
        enter()?;
        // Not `clear`, which asks the terminal where its cursor is: the answer would be taken for keys.
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        leave();
    }
}

fn enter() -> io::Result<()> {
    TAKEN.store(true, Ordering::SeqCst);
    enable_raw_mode()
        .and_then(|()| execute!(io::stdout(), EnterAlternateScreen, cursor::Hide))
        .inspect_err(|_| leave())
}

/// Gives the terminal back, once. A terminal that has gone needs nothing back.
fn leave() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(io::stdout(), LeaveAlternateScreen, cursor::Show);
        let _ = disable_raw_mode();
        let _ = io::stdout().flush();
    }
}

/// The message of a panic must not be lost with the screen that it is written on. The hook runs also where a panic ends
/// the process at once, as it does in a release.
fn give_back_on_panic() {
    static HOOK: Once = Once::new();
    HOOK.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            CRASHED.store(true, Ordering::SeqCst);
            leave();
            before(info);
        }));
    });
}

/// True once a thread has panicked.
pub(super) fn has_crashed() -> bool {
    CRASHED.load(Ordering::SeqCst)
}

/// Hears signals on a thread of its own. To be called before any other thread is started: those it starts inherit that
/// signals are not delivered to them.
pub(super) fn hear_signals(messages: Sender<Message>) -> nix::Result<()> {
    let signals: SigSet = SIGNALS.into_iter().collect();
    signals.thread_block()?;
    thread::spawn(move || {
        while let Ok(signal) = signals.wait() {
            if messages.send(Message::Signal(signal)).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// Reads keys on a thread of its own, until the terminal has gone.
pub(super) fn read_keys(messages: Sender<Message>) {
    thread::spawn(move || {
        let stdin = io::stdin();
        loop {
            let Some(ready) = readiness(stdin.as_fd(), PollTimeout::NONE) else {
                continue;
            };
            if gone(ready) {
                break;
            }
            let mut any = false;
            while event::poll(Duration::ZERO).unwrap_or(false) {
                any = true;
                let Ok(event) = event::read() else { break };
                if messages.send(Message::Input(event)).is_err() {
                    return;
                }
            }
            if !any {
                // Half a key: the rest of it is not here yet, and asking again at once would only burn time.
                thread::sleep(Duration::from_millis(20));
            }
        }
        let _ = messages.send(Message::Gone);
    });
}

/// True when nobody is at the other end of the terminal any more. The event library does not notice, and reads for ever.
pub(super) fn has_gone() -> bool {
    [io::stdin().as_fd(), io::stdout().as_fd()]
        .into_iter()
        .any(|terminal| readiness(terminal, PollTimeout::ZERO).is_some_and(gone))
}

/// What a terminal is ready for; `None` when the wait was interrupted.
fn readiness(terminal: BorrowedFd<'_>, timeout: PollTimeout) -> Option<PollFlags> {
    let mut terminals = [PollFd::new(terminal, PollFlags::POLLIN)];
    match poll(&mut terminals, timeout) {
        Ok(_) => terminals[0].revents(),
        Err(nix::Error::EINTR) => None,
        Err(_) => Some(PollFlags::POLLERR),
    }
}

fn gone(ready: PollFlags) -> bool {
    ready.intersects(PollFlags::POLLHUP | PollFlags::POLLERR | PollFlags::POLLNVAL)
}

/// Why this cannot be a live view.
pub(super) fn obstacle(term: Option<&str>) -> Option<&'static str> {
    if !io::stdout().is_terminal() {
        Some("standard output is not a terminal")
    } else if !io::stdin().is_terminal() {
        Some("standard input is not a terminal, so there would be no keys")
    } else if matches!(term, None | Some("" | "dumb")) {
        Some("TERM says that this terminal can only print (it is dumb, or not set)")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use std::{
        env,
        fs::File,
        io::Read as _,
        mem,
        process::{Command, Stdio},
    };

    use nix::{
        pty::openpty,
        sys::termios::{LocalFlags, tcgetattr},
    };

    use super::*;

    /// Says to this test that it is the one that crashes.
    const CRASH: &str = "WEIR_TEST_TOP_CRASH";

    #[test]
    fn a_crash_gives_the_terminal_back_before_it_says_why() {
        if env::var_os(CRASH).is_some() {
            // As in a release, where a panic ends the process and nothing is dropped.
            mem::forget(Screen::take().unwrap());
            panic!("on purpose");
        }
        let pty = openpty(None, None).unwrap();
        let end = || Stdio::from(pty.slave.try_clone().unwrap());
        let name = "cli::top::terminal::tests::a_crash_gives_the_terminal_back_before_it_says_why";
        let status = Command::new(env::current_exe().unwrap())
            .args(["--exact", name, "--nocapture", "--test-threads=1"])
            .env(CRASH, "1")
            .stdin(end())
            .stdout(end())
            .stderr(end())
            .status()
            .unwrap();
        assert!(!status.success());
        let flags = tcgetattr(&pty.slave).unwrap().local_flags;
        assert!(flags.contains(LocalFlags::ECHO | LocalFlags::ICANON), "{flags:?}");
        drop(pty.slave);
        let mut output = Vec::new();
        // It ends in an error once nobody is at the other end.
        let _ = File::from(pty.master).read_to_end(&mut output);
        let output = String::from_utf8_lossy(&output);
        let at = |text: &str| {
            output
                .find(text)
                .unwrap_or_else(|| panic!("{text:?} is not in {output:?}"))
        };
        assert!(at("\u{1b}[?1049h") < at("\u{1b}[?1049l") && at("\u{1b}[?1049l") < at("on purpose"));
    }
}
