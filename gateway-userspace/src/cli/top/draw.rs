//! The screen. Everything that the controller said goes through [`Painter::put`], which lets nothing through that a
//! terminal would obey.

use ratatui::{
    Frame,
    buffer::Buffer,
    layout::{Constraint, Layout, Rect},
    style::{Modifier, Style},
};
use weir::{
    api::anomalies::ServiceAnomaly,
    api::types::{LeverStatus, StatusAnswer},
    kernel::XdpMode,
    policy::model::Mode,
};

use super::{
    columns::Column,
    dialogs,
    rows::{Cell, Listing, Mark, listing},
    state::{Pane, State},
    text::{columns, short},
    theme::Theme,
};
use crate::cli::table::{Align, counted, grouped, span};

/// The smallest screen, in columns and lines.
pub(super) const SMALLEST: (u16, u16) = (40, 10);
/// From so many lines between the head and the foot on, services, drops and events stay in sight of every pane.
const ROOMY: u16 = 14;
/// The keys, those that matter most first.
const KEYS: &str =
    "q quit  ? help  Tab view  / filter  s sort  b ban  u unban  Enter details  space pause  n networks";

/// Draws everything.
pub(super) fn draw(frame: &mut Frame<'_>, state: &State, theme: Theme) {
    let area = frame.area();
    let mut painter = Painter {
        buffer: frame.buffer_mut(),
        theme,
    };
    if area.width < SMALLEST.0 || area.height < SMALLEST.1 {
        let (width, height) = SMALLEST;
        let text = format!(
            "needs {width}x{height}, has {}x{}; q quits",
            area.width, area.height
        );
        painter.lines(
            area,
            &[("weir top".to_owned(), Style::new()), (text, Style::new())],
        );
        return;
    }
    painter.screen(area, state);
    if let Some(dialog) = &state.dialog {
        dialogs::draw(&mut painter, area, dialog, state);
    }
}

/// What draws.
pub(super) struct Painter<'b> {
    pub(super) buffer: &'b mut Buffer,
    pub(super) theme: Theme,
}

impl Painter<'_> {
    /// Writes the text from a column on, clean and in at most `width` columns; says how many it took.
    pub(super) fn put(&mut self, (x, y): (u16, u16), width: u16, text: &str, style: Style) -> u16 {
        let screen = self.buffer.area;
        if y >= screen.bottom() || x >= screen.right() {
            return 0;
        }
        let width = width.min(screen.right() - x);
        let text = self.theme.charset.fit(text, usize::from(width));
        self.buffer.set_stringn(x, y, &text, usize::from(width), style);
        columns(&text) as u16
    }

    /// Writes lines one below the other, as many as there is room for; long ones are broken.
    pub(super) fn lines(&mut self, area: Rect, lines: &[(String, Style)]) {
        let mut rows = area.top()..area.bottom();
        for (text, style) in lines {
            let clean = self.theme.charset.clean(text).into_owned();
            for line in super::text::wrap(&clean, usize::from(area.width)) {
                let Some(y) = rows.next() else { return };
                self.put((area.x, y), area.width, &line, *style);
            }
        }
    }

    fn screen(&mut self, area: Rect, state: &State) {
        let remarks = remarks(state, self.theme);
        let said = (remarks.len() as u16).min((area.height / 8).max(1));
        // What is left without the head, the line of panes and the foot.
        let room = area.height.saturating_sub(said + 3);
        let services = listing(Pane::Services, state);
        let (strip, below) = if room < ROOMY {
            (0, 0)
        } else if state.pane == Pane::Services {
            (0, room / 4)
        } else {
            ((services.rows.len() as u16).clamp(1, room / 4) + 1, room / 4)
        };
        let heights = [1, said, strip, 1, room - strip - below, below, 1];
        let [head, said, strip, panes, middle, below, foot] =
            Layout::vertical(heights.map(Constraint::Length)).areas(area);
        self.head(head, state);
        self.remarks(said, &remarks);
        self.table(strip, &services, None);
        self.panes(panes, state);
        let rows = listing(state.pane, state);
        let selected = state.selected_index(&rows.rows);
        self.table(middle, &rows, Some(selected));
        if below.height > 0 {
            self.below(below, state);
        }
        self.foot(foot, state);
    }

    fn head(&mut self, area: Rect, state: &State) {
        let bar = Theme::bar();
        self.buffer.set_style(area, bar);
        let right = if state.paused { " PAUSED " } else { "" };
        let room = area.width.saturating_sub(right.len() as u16);
        self.put(
            (area.x + room, area.y),
            right.len() as u16,
            right,
            bar.patch(self.theme.warn()),
        );
        let Some(status) = &state.data.status else {
            self.put((area.x, area.y), room, " weir top", bar);
            return;
        };
        let mode = match status.policy.mode {
            Mode::Enforce => " ENFORCE ",
            Mode::Monitor => " MONITOR ",
        };
        let used = self.put((area.x, area.y), room, mode, bar.add_modifier(Modifier::BOLD));
        let text = format!(
            " revision {}  {}  up {}  weir {}",
            status.policy.revision,
            interfaces(status),
            span(status.uptime_seconds),
            status.version
        );
        self.put((area.x + used, area.y), room.saturating_sub(used), &text, bar);
    }

    fn remarks(&mut self, area: Rect, remarks: &[(String, Style)]) {
        let shown = usize::from(area.height);
        for (row, (text, style)) in remarks.iter().take(shown).enumerate() {
            let y = area.y + row as u16;
            let hidden = remarks.len() - shown;
            if row + 1 == shown && hidden > 0 {
                let more = format!(" (and {hidden} more: weir status)");
                let room = area.width.saturating_sub(more.len() as u16 + 1);
                let used = self.put((area.x + 1, y), room, text, *style);
                self.put((area.x + 1 + used, y), more.len() as u16, &more, self.theme.dim());
            } else {
                self.put((area.x + 1, y), area.width - 1, text, *style);
            }
        }
    }

    /// The line that says what the middle shows, and what can be shown there.
    fn panes(&mut self, area: Rect, state: &State) {
        let mut x = area.x;
        // Where not all fit, the present one is enough: Tab leads to the others.
        let all = area.width >= 72;
        for (index, pane) in Pane::ALL.into_iter().enumerate() {
            let present = pane == state.pane;
            if all || present {
                let style = if present { Theme::bar() } else { self.theme.dim() };
                let name = format!(" {} {} ", index + 1, pane.name());
                x += self.put((x, area.y), area.right() - x, &name, style);
            }
        }
        let mut about = Vec::new();
        if let Some(service) = &state.service {
            about.push(format!("of {service}"));
        }
        if !state.filter.is_empty() && state.editing.is_none() {
            about.push(format!("/{}", state.filter));
        }
        if !about.is_empty() {
            let text = format!(" {}", about.join(" "));
            self.put((x, area.y), area.right() - x, &text, self.theme.warn());
        }
    }

    /// What is dropped, and what happened, side by side.
    fn below(&mut self, area: Rect, state: &State) {
        let (left, right) = match state.pane {
            Pane::Drops => (None, Some(area)),
            Pane::Events => (Some(area), None),
            // Too narrow for both.
            _ if area.width < 60 => (Some(area), None),
            _ => {
                // What is dropped needs 45 columns for its longest reason.
                let half = (area.width / 2).max(46).min(area.width - 24);
                let left = Rect {
                    width: half - 1,
                    ..area
                };
                let right = Rect {
                    x: area.x + half + 1,
                    width: area.width - half - 1,
                    ..area
                };
                (Some(left), Some(right))
            }
        };
        if let Some(area) = left {
            self.table(area, &listing(Pane::Drops, state), None);
        }
        if let Some(area) = right {
            self.table(area, &listing(Pane::Events, state), None);
        }
    }

    fn foot(&mut self, area: Rect, state: &State) {
        let (text, style) = match (&state.editing, &state.notice) {
            (Some(_), _) => (
                format!(
                    "/{}_   Enter keeps, Esc takes back: a text, an address or a prefix",
                    state.filter
                ),
                Style::new(),
            ),
            (None, Some(notice)) if notice.bad => (notice.text.clone(), self.theme.bad()),
            (None, Some(notice)) => (notice.text.clone(), self.theme.good()),
            (None, None) => {
                // Whole keys only.
                let room = usize::from(area.width);
                let end = KEYS
                    .match_indices("  ")
                    .map(|(at, _)| at)
                    .chain([KEYS.len()])
                    .filter(|end| *end <= room)
                    .last();
                (KEYS[..end.unwrap_or(0)].to_owned(), self.theme.dim())
            }
        };
        self.put((area.x, area.y), area.width, &text, style);
    }

    /// Headings and rows; with `selected`, that row is shown and set apart.
    fn table(&mut self, area: Rect, listing: &Listing, selected: Option<usize>) {
        if area.height == 0 {
            return;
        }
        let places = places(listing.columns, area);
        for (index, x, width) in &places {
            let column = &listing.columns[*index];
            let mut style = self.theme.heading();
            if selected.is_some() && *index == listing.sorted_by {
                style = style.add_modifier(Modifier::UNDERLINED);
            }
            self.cell((*x, area.y), *width, column.align, column.heading, style);
        }
        let room = usize::from(area.height - 1);
        if listing.rows.is_empty() {
            let below = Rect {
                y: area.y + 1,
                height: area.height - 1,
                ..area
            };
            self.lines(below, &[(listing.empty.clone(), self.theme.dim())]);
            return;
        }
        let first = selected.map_or(0, |selected| (selected + 1).saturating_sub(room));
        for (line, (at, row)) in listing.rows.iter().enumerate().skip(first).take(room).enumerate() {
            let y = area.y + 1 + line as u16;
            let style = match row.mark {
                Mark::Plain => Style::new(),
                Mark::Refused | Mark::Unusual => self.theme.warn(),
                Mark::Banned | Mark::Attacked => self.theme.bad(),
            };
            for (index, x, width) in &places {
                let Some(cell) = row.cells.get(*index) else {
                    continue;
                };
                if let Cell::Trend(values) = cell {
                    let bars = self
                        .theme
                        .charset
                        .bars(values.iter().copied(), usize::from(*width));
                    self.buffer.set_string(*x, y, bars, self.theme.good());
                } else {
                    self.cell(
                        (*x, y),
                        *width,
                        listing.columns[*index].align,
                        cell.as_text(),
                        style,
                    );
                }
            }
            if selected == Some(at) {
                self.buffer.set_style(Rect { y, height: 1, ..area }, Theme::bar());
            }
        }
        let hidden = listing.rows.len().saturating_sub(room);
        // A strip shows the first ones only, and says so.
        if selected.is_none() && hidden > 0 {
            let text = format!("+{hidden}");
            let x = area.right().saturating_sub(text.len() as u16);
            if places
                .last()
                .is_some_and(|(_, start, width)| start + width <= x || *width > 12)
            {
                self.put((x, area.y), text.len() as u16, &text, self.theme.dim());
            }
        }
    }

    fn cell(&mut self, (x, y): (u16, u16), width: u16, align: Align, text: &str, style: Style) {
        let text = self.theme.charset.fit(text, usize::from(width));
        let lead = match align {
            Align::Left => 0,
            Align::Right => width.saturating_sub(columns(&text) as u16),
        };
        self.put((x + lead, y), width - lead, &text, style);
    }
}

/// The columns that there is room for: their index, place and width.
fn places(all: &[Column], area: Rect) -> Vec<(usize, u16, u16)> {
    let shown: Vec<(usize, &Column)> = all
        .iter()
        .enumerate()
        .filter(|(_, column)| column.from <= area.width)
        .collect();
    let gap = if area.width >= 100 { 2 } else { 1 };
    let gaps = gap * (shown.len() as u16).saturating_sub(1);
    let least: u16 = shown.iter().map(|(_, column)| column.width).sum();
    let growers = shown.iter().filter(|(_, column)| column.grows).count() as u16;
    let mut spare = area.width.saturating_sub(gaps + least);
    // Where even the least is too much, the words give way: numbers that are cut are wrong.
    let mut lacking = (gaps + least).saturating_sub(area.width);
    let mut growers_left = growers;
    let mut x = area.x;
    let mut places = Vec::new();
    for (index, column) in shown {
        let mut width = column.width;
        if column.grows {
            let more = spare / growers_left.max(1);
            let less = lacking.min(width.saturating_sub(6));
            width = width + more - less;
            spare -= more;
            lacking -= less;
            growers_left -= 1;
        }
        width = width.min(area.right().saturating_sub(x));
        if width == 0 {
            break;
        }
        places.push((index, x, width));
        x += width + gap;
    }
    places
}

fn interfaces(status: &StatusAnswer) -> String {
    if status.attachments.is_empty() {
        return "attached nowhere".to_owned();
    }
    let attachments = status.attachments.iter().map(|attachment| {
        let mode = match (attachment.present, attachment.xdp_mode) {
            (false, _) => "gone",
            (true, XdpMode::Native) => "native",
            (true, XdpMode::Generic) => "generic",
        };
        format!("{} {mode}", attachment.interface)
    });
    attachments.collect::<Vec<_>>().join(", ")
}

/// What the operator must know, the worst first; one line when all is well.
fn remarks(state: &State, theme: Theme) -> Vec<(String, Style)> {
    let mut remarks = Vec::new();
    if let Some(trouble) = &state.data.trouble {
        let text = format!("controller does not answer, retrying: {trouble}");
        remarks.push((text, theme.bad()));
    }
    let Some(status) = &state.data.status else {
        if remarks.is_empty() {
            remarks.push(("waiting for the controller".to_owned(), theme.dim()));
        }
        return remarks;
    };
    if let Some(pending) = &status.policy.pending {
        let text = format!(
            "revision {} waits for confirmation: revision {} is in force again in {}",
            status.policy.revision,
            pending.before,
            span(pending.seconds_left)
        );
        remarks.push((text, theme.warn()));
    }
    for lever in &status.levers {
        remarks.push((format!("lever: {}", lever_text(lever)), theme.warn()));
    }
    for told in &state.data.anomalies {
        let style = if told.anomaly.verdict == "attack" {
            theme.bad()
        } else {
            theme.warn()
        };
        remarks.push((anomaly_text(told), style));
    }
    for problem in &status.problems {
        remarks.push((format!("problem: {problem}"), theme.bad()));
    }
    if remarks.is_empty() {
        let slots = &status.source_slots;
        let text = format!(
            "no problems, no levers; {}; {} of {} source slots in use",
            counted(status.bans, "ban", "bans"),
            grouped(slots.in_debt),
            grouped(slots.in_debt.saturating_add(slots.free))
        );
        remarks.push((text, theme.dim()));
    }
    remarks
}

fn anomaly_text(told: &ServiceAnomaly) -> String {
    let anomaly = &told.anomaly;
    format!(
        "{}: {} for {}, {} packets/s, usually {}",
        told.service,
        anomaly.title(),
        span(anomaly.duration_seconds),
        short(anomaly.packets_per_second),
        short(anomaly.expected_packets_per_second)
    )
}

fn lever_text(lever: &LeverStatus) -> String {
    match lever {
        LeverStatus::Bypass {
            service,
            all,
            seconds_left,
            ..
        } => {
            let whom = service.as_deref().unwrap_or("all services");
            let bans = if *all { ", bans and drop lists too" } else { "" };
            format!("bypass of {whom}{bans}, {} left", span(*seconds_left))
        }
        LeverStatus::Scale {
            service,
            percent,
            seconds_left,
            ..
        } => format!("{service} scaled to {percent}%, {} left", span(*seconds_left)),
    }
}
