//! The columns of each pane: what is shown where the screen is wide enough for it.

use super::state::{By, Pane, State};
use crate::cli::table::Align;

/// A column.
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Its heading.
    pub(super) heading: &'static str,
    /// How wide it is at least.
    pub(super) width: u16,
    /// It is shown where at least so many columns of the terminal are there.
    pub(super) from: u16,
    /// Words left, numbers right.
    pub(super) align: Align,
    /// It takes part of the room that is left.
    pub(super) grows: bool,
}

const fn words(heading: &'static str, width: u16, from: u16) -> Column {
    Column {
        heading,
        width,
        from,
        align: Align::Left,
        grows: false,
    }
}

const fn number(heading: &'static str, width: u16, from: u16) -> Column {
    Column {
        align: Align::Right,
        ..words(heading, width, from)
    }
}

const fn growing(heading: &'static str, width: u16, from: u16) -> Column {
    Column {
        grows: true,
        ..words(heading, width, from)
    }
}

const SERVICES: &[Column] = &[
    growing("SERVICE", 13, 0),
    words("VERDICT", 12, 52),
    words("MODE", 7, 66),
    number("PASS/S", 6, 0),
    number("DROP/S", 6, 0),
    number("WOULD/S", 7, 58),
    number("RATE", 9, 72),
    number("CONN/S", 6, 78),
    growing("PACKETS/S TREND", 15, 90),
];
const SOURCES: &[Column] = &[
    // A whole /64 fits.
    growing("SOURCE", 24, 0),
    number("PKTS/S", 6, 0),
    number("±", 4, 74),
    number("RATE", 9, 50),
    number("DROP/S", 6, 0),
    number("CONN/S", 6, 66),
    number("LEFT", 4, 60),
    words("BAN", 3, 46),
    growing("SERVICE", 9, 78),
];
const FLOWS: &[Column] = &[
    words("PROTO", 6, 46),
    growing("SOURCE", 16, 0),
    growing("DESTINATION", 16, 60),
    number("PKTS/S", 6, 0),
    number("RATE", 9, 56),
    number("DROP/S", 6, 0),
    words("LAST VERDICT", 12, 78),
];
const DROPS: &[Column] = &[
    growing("SERVICE", 10, 0),
    growing("REASON", 18, 0),
    number("DROP/S", 6, 0),
    number("WOULD/S", 7, 44),
    number("PACKETS", 15, 62),
    number("BYTES", 8, 50),
];
const EVENTS: &[Column] = &[
    words("TIME UTC", 8, 0),
    words("KIND", 14, 56),
    growing("WHAT", 20, 0),
];
const BANS: &[Column] = &[
    growing("PREFIX", 20, 0),
    words("SERVICE", 14, 60),
    number("LEFT", 12, 0),
    growing("REASON", 16, 70),
];

/// The columns of a pane, and the one it is sorted by where nobody has said otherwise (absent: the order it comes in).
pub(super) fn columns(pane: Pane, state: &State) -> (&'static [Column], Option<usize>) {
    let heaviest = match state.by {
        By::Packets => 0,
        By::Bytes => 1,
        By::Dropped => 2,
        By::Connections => 3,
    };
    match pane {
        // In the order of the policy: a table that moves under the eye is hard to read.
        Pane::Services => (SERVICES, None),
        Pane::Sources | Pane::Networks => (SOURCES, Some([1, 3, 4, 5][heaviest])),
        Pane::Flows => (FLOWS, Some([3, 4, 5, 3][heaviest])),
        // Those that refuse most now, in whatever mode, and then those that have refused most.
        Pane::Drops => (DROPS, None),
        Pane::Events => (EVENTS, None),
        Pane::Bans => (BANS, None),
    }
}
