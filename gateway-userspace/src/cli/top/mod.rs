//! `weir top`: a live view of the node.
//!
//! - `feed` asks the controller, on threads of its own; `rates` makes rates of what it answers
//! - `state` is what is known and looked at; `rows` and `columns` are its tables; `keys` change it
//! - `draw` and `dialogs` draw it, in the letters and colours of `text` and `theme`
//! - `terminal` takes the terminal over, and gives it back whatever happens

mod columns;
mod dialogs;
mod draw;
mod feed;
mod keys;
mod rates;
mod rows;
mod state;
mod terminal;
#[cfg(test)]
mod tests;
mod text;
mod theme;

use std::{
    env,
    ffi::OsString,
    process::ExitCode,
    sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel},
    time::{Duration, Instant},
};

use nix::sys::signal::Signal;
use ratatui::{Terminal, backend::TestBackend, crossterm::event::Event};
use weir::{api::types::code, policy::units};

use self::{
    feed::{Ask, Change, Reader, Round},
    keys::Action,
    state::{By, State},
    terminal::Screen,
    theme::Theme,
};
use super::{
    Context,
    output::{Failure, print},
};

/// How often it is looked whether the terminal is still there, and whether a notice has been there long enough.
const TICK: Duration = Duration::from_millis(250);
/// The size of the frame that `--once` prints, where nothing says otherwise.
const FRAME: (u16, u16) = (100, 40);

/// Watch the node live: services, sources, flows, drops and events; ban and unban from there
///
/// Rates and trends of every service, the heaviest sources, networks and flows with what is left in their buckets, drops by
/// reason, and events. ? shows the keys. Sources and flows are estimates from samples, with their error; services and
/// drops are counted packet by packet.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  weir top
  weir top --service storefront --by dropped
  weir top --once                    one frame as plain text
  NO_COLOR=1 weir top                without colours")]
pub(crate) struct Args {
    /// How often to ask the controller, 200ms to 60s
    #[arg(long, value_name = "TIME", default_value = "1s", value_parser = interval)]
    interval: Duration,
    /// Only what is sent to this service
    #[arg(long, value_name = "S")]
    service: Option<String>,
    /// What sources, networks and flows are the heaviest by
    #[arg(long, value_enum, default_value_t)]
    by: By,
    /// Print one frame as plain text, and end
    #[arg(long)]
    once: bool,
}

fn interval(text: &str) -> Result<Duration, String> {
    match units::parse_duration(text) {
        Ok(time) if (Duration::from_millis(200)..=Duration::from_mins(1)).contains(&time) => Ok(time),
        Ok(_) => Err("expected 200ms to 60s".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What the threads say.
enum Message {
    /// A key, or another event of the terminal.
    Input(Event),
    /// The terminal has gone.
    Gone,
    /// A signal.
    Signal(Signal),
    /// What the controller said.
    Round(Box<Round>),
    /// What came of a change.
    Changed(Result<String, String>),
}

/// Whether to go on.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Next {
    Go,
    End,
}

pub(crate) fn run(args: Args, context: &Context) -> Result<ExitCode, Failure> {
    if context.json {
        return Err(Failure::usage("weir top is for people, and has no --json").hint(
            "weir status --json, weir sources --json and weir events --follow --json are for programs",
        ));
    }
    let variables: Vec<(OsString, OsString)> = env::vars_os().collect();
    let theme = Theme::new(|name| {
        let found = variables.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_os_str())
    });
    let state = State {
        service: args.service,
        by: args.by,
        ..State::default()
    };
    if args.once {
        return once(state, context, theme);
    }
    if let Some(obstacle) = terminal::obstacle(env::var("TERM").ok().as_deref()) {
        return Err(
            Failure::usage(format!("cannot show a live view: {obstacle}")).hint(
                "weir top --once prints one frame as plain text; weir status and weir sources print tables",
            ),
        );
    }
    live(state, args.interval, context, theme).map_err(|error| {
        Failure::new(code::INTERNAL, format!("cannot use the terminal: {error}"))
            .hint("weir top --once prints one frame as plain text")
    })
}

/// One frame, as text.
fn once(mut state: State, context: &Context, theme: Theme) -> Result<ExitCode, Failure> {
    let mut reader = Reader::new(context.client());
    let round = reader.round(&state.ask());
    if let Some(error) = round.error {
        return Err(error.into());
    }
    state.take(Duration::ZERO, round);
    let size = |name: &str, standard| {
        let set = env::var(name).ok().and_then(|text| text.parse::<u16>().ok());
        set.unwrap_or(standard).clamp(20, 500)
    };
    let (width, height) = (size("COLUMNS", FRAME.0), size("LINES", FRAME.1));
    print(&frame(&state, theme, width, height))?;
    Ok(ExitCode::SUCCESS)
}

/// What a screen of this size shows, without trailing spaces.
fn frame(state: &State, theme: Theme, width: u16, height: u16) -> String {
    let Ok(mut terminal) = Terminal::new(TestBackend::new(width, height));
    let Ok(drawn) = terminal.draw(|frame| draw::draw(frame, state, theme));
    let buffer = drawn.buffer;
    let mut text = String::new();
    for y in 0..height {
        let mut line = String::new();
        let mut x = 0;
        while x < width {
            let symbol = buffer.cell((x, y)).map_or(" ", ratatui::buffer::Cell::symbol);
            line.push_str(symbol);
            // A wide letter has taken the next cell along.
            x += (text::columns(symbol) as u16).max(1);
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// The view, until somebody or something ends it.
fn live(state: State, interval: Duration, context: &Context, theme: Theme) -> std::io::Result<ExitCode> {
    let (send, messages) = channel();
    terminal::hear_signals(send.clone())?;
    let mut view = View {
        start: Instant::now(),
        asks: feed::poll(context.client(), interval, state.ask(), send.clone()),
        changes: feed::changes(&context.client(), send.clone()),
        state,
        screen: Screen::take()?,
        theme,
    };
    terminal::read_keys(send);
    match view.watch(&messages) {
        // Nobody sees that it could not be drawn, or needs to: there is nobody.
        Err(_) if terminal::has_gone() => Ok(ExitCode::SUCCESS),
        Err(error) => Err(error),
        // The message of the panic is on the screen.
        Ok(()) if terminal::has_crashed() => Ok(ExitCode::FAILURE),
        Ok(()) => Ok(ExitCode::SUCCESS),
    }
}

struct View {
    state: State,
    screen: Screen,
    theme: Theme,
    start: Instant,
    asks: Sender<Ask>,
    changes: Sender<Change>,
}

impl View {
    fn watch(&mut self, messages: &Receiver<Message>) -> std::io::Result<()> {
        loop {
            self.state.tick(self.start.elapsed());
            self.screen
                .terminal
                .draw(|frame| draw::draw(frame, &self.state, self.theme))?;
            let first = match messages.recv_timeout(TICK) {
                Ok(message) => Some(message),
                Err(RecvTimeoutError::Timeout) => None,
                // No thread is left.
                Err(RecvTimeoutError::Disconnected) => return Ok(()),
            };
            // Keys that came together are drawn together.
            for message in first.into_iter().chain(messages.try_iter()) {
                if self.hear(message)? == Next::End {
                    return Ok(());
                }
            }
            if terminal::has_gone() || terminal::has_crashed() {
                return Ok(());
            }
        }
    }

    fn hear(&mut self, message: Message) -> std::io::Result<Next> {
        match message {
            Message::Input(Event::Key(key)) => {
                let action = self.state.key(key);
                return self.act(action);
            }
            // The size is looked at whenever something is drawn.
            Message::Input(_) => {}
            Message::Signal(Signal::SIGWINCH) => self.screen.terminal.autoresize()?,
            Message::Signal(Signal::SIGTSTP) => self.screen.suspend()?,
            Message::Signal(Signal::SIGCONT) => self.screen.again()?,
            Message::Gone | Message::Signal(_) => return Ok(Next::End),
            Message::Round(round) => self.state.take(self.start.elapsed(), *round),
            Message::Changed(result) => {
                self.state.changed(result);
                self.ask();
            }
        }
        Ok(Next::Go)
    }

    fn act(&mut self, action: Action) -> std::io::Result<Next> {
        match action {
            Action::Nothing => {}
            Action::Quit => return Ok(Next::End),
            Action::Suspend => self.screen.suspend()?,
            Action::Ask => self.ask(),
            // Its thread ends with this one only, or by a panic that ends the view.
            Action::Change(change) => drop(self.changes.send(change)),
        }
        Ok(Next::Go)
    }

    fn ask(&self) {
        drop(self.asks.send(self.state.ask()));
    }
}
