//! Keys: what each does to the state, and what has to be done outside for it.

use ratatui::crossterm::event::{KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use weir::{
    api::types::{BanRequest, UnbanRequest},
    policy::model::Mode,
};

use super::{
    columns::columns,
    feed::Change,
    rows::{Row, ban_key, listing},
    state::{By, Dialog, Pane, Stage, State, TIMES},
};

/// How far a page is.
const PAGE: isize = 10;
/// The longest filter.
const LONGEST_FILTER: usize = 64;
/// What the controller notes as the reason of a ban from here.
const REASON: &str = "weir top";

/// What has to be done outside.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Action {
    /// Nothing.
    Nothing,
    /// End.
    Quit,
    /// Stop until the shell goes on with it.
    Suspend,
    /// Ask the controller for what the view needs now.
    Ask,
    /// Ask the controller for a change.
    Change(Change),
}

impl State {
    /// A key was pressed.
    pub(super) fn key(&mut self, key: KeyEvent) -> Action {
        if key.kind == KeyEventKind::Release {
            return Action::Nothing;
        }
        if key.modifiers.contains(KeyModifiers::CONTROL) {
            return match key.code {
                KeyCode::Char('c') => Action::Quit,
                KeyCode::Char('z') => Action::Suspend,
                _ => Action::Nothing,
            };
        }
        if key.modifiers.contains(KeyModifiers::ALT) {
            // A terminal sends Esc and a key that follows at once in the same way: that was no yes to a question.
            if self.dialog.is_some() {
                self.dialog = None;
            } else if self.editing.is_some() {
                self.filter_key(KeyCode::Esc);
            }
            return Action::Nothing;
        }
        if self.dialog.is_some() {
            return self.dialog_key(key.code);
        }
        if self.editing.is_some() {
            self.filter_key(key.code);
            return Action::Nothing;
        }
        self.view_key(key.code)
    }

    fn view_key(&mut self, code: KeyCode) -> Action {
        match code {
            KeyCode::Char('q') | KeyCode::Esc => return Action::Quit,
            KeyCode::Tab => return self.show(self.pane.step(1)),
            KeyCode::BackTab => return self.show(self.pane.step(Pane::ALL.len() - 1)),
            KeyCode::Char(digit @ '1'..='7') => {
                return self.show(Pane::ALL[digit as usize - '1' as usize]);
            }
            KeyCode::Char('n') => {
                return self.show(if self.pane == Pane::Networks {
                    Pane::Sources
                } else {
                    Pane::Networks
                });
            }
            KeyCode::Up | KeyCode::Char('k') => self.step(-1),
            KeyCode::Down | KeyCode::Char('j') => self.step(1),
            KeyCode::PageUp => self.step(-PAGE),
            KeyCode::PageDown => self.step(PAGE),
            KeyCode::Home | KeyCode::Char('g') => self.step(isize::MIN),
            KeyCode::End | KeyCode::Char('G') => self.step(isize::MAX),
            KeyCode::Char('s') => return self.sort_by_next(),
            KeyCode::Char('r') => self.reverse(),
            KeyCode::Char('/') => self.editing = Some(self.filter.clone()),
            KeyCode::Char(' ') => {
                self.paused = !self.paused;
                return Action::Ask;
            }
            KeyCode::Char('?' | 'h') => self.dialog = Some(Dialog::Help),
            KeyCode::Enter => {
                if let Some(row) = self.selected_row() {
                    // Whatever comes to the top meanwhile: `b` is about what is shown.
                    self.selected.insert(self.pane, row.key.clone());
                    self.dialog = Some(Dialog::Details {
                        key: row.key,
                        scroll: 0,
                    });
                }
            }
            KeyCode::Char('b') => self.ask_ban(),
            KeyCode::Char('u') => self.ask_unban(),
            _ => {}
        }
        Action::Nothing
    }

    fn show(&mut self, pane: Pane) -> Action {
        self.pane = pane;
        Action::Ask
    }

    /// Where the selected row is now: it is followed wherever the order takes it, and when it goes, the row in its place
    /// is taken.
    pub(super) fn selected_index(&self, rows: &[Row]) -> usize {
        let last = rows.len().saturating_sub(1);
        let by_key = self
            .selected
            .get(&self.pane)
            .and_then(|key| rows.iter().position(|row| row.key == *key));
        by_key.unwrap_or_else(|| self.position.get(&self.pane).copied().unwrap_or(0).min(last))
    }

    pub(super) fn selected_row(&self) -> Option<Row> {
        let mut rows = listing(self.pane, self).rows;
        let index = self.selected_index(&rows);
        (index < rows.len()).then(|| rows.swap_remove(index))
    }

    fn step(&mut self, by: isize) {
        let rows = listing(self.pane, self).rows;
        let Some(last) = rows.len().checked_sub(1) else {
            return;
        };
        let index = self.selected_index(&rows).saturating_add_signed(by).min(last);
        if index == 0 {
            // The top is where one looks at whatever is the heaviest.
            self.selected.remove(&self.pane);
        } else {
            self.selected.insert(self.pane, rows[index].key.clone());
        }
        self.position.insert(self.pane, index);
    }

    fn sort_by_next(&mut self) -> Action {
        let (all, standard) = columns(self.pane, self);
        let now = self.sort.get(&self.pane).map(|(column, _)| *column).or(standard);
        let next = now.map_or(0, |now| (now + 1) % all.len());
        self.sort.insert(self.pane, (next, false));
        self.ask_by(next)
    }

    fn reverse(&mut self) {
        let (_, standard) = columns(self.pane, self);
        let (column, reversed) = self
            .sort
            .get(&self.pane)
            .copied()
            .unwrap_or((standard.unwrap_or(0), false));
        self.sort.insert(self.pane, (column, !reversed));
    }

    /// The controller sends the heaviest only: what they are sorted by here is what it must choose them by.
    fn ask_by(&mut self, column: usize) -> Action {
        let by = match (self.pane, column) {
            (Pane::Sources | Pane::Networks, 1) | (Pane::Flows, 3) => By::Packets,
            (Pane::Sources | Pane::Networks, 3) | (Pane::Flows, 4) => By::Bytes,
            (Pane::Sources | Pane::Networks, 4) | (Pane::Flows, 5) => By::Dropped,
            (Pane::Sources | Pane::Networks, 5) => By::Connections,
            _ => return Action::Nothing,
        };
        self.by = by;
        Action::Ask
    }

    fn filter_key(&mut self, code: KeyCode) {
        match code {
            KeyCode::Enter => self.editing = None,
            KeyCode::Esc => self.filter = self.editing.take().unwrap_or_default(),
            KeyCode::Backspace => {
                self.filter.pop();
            }
            KeyCode::Char(c) if !c.is_control() && self.filter.len() < LONGEST_FILTER => self.filter.push(c),
            _ => {}
        }
    }

    fn ask_ban(&mut self) {
        let Some(row) = self.selected_row() else {
            return self.say("there is nothing here to ban", true);
        };
        let Some(prefix) = row.prefix else {
            return self.say(
                format!(
                    "b bans a source: choose one in {} (2), {} (3) or {} (4)",
                    Pane::Sources.name(),
                    Pane::Networks.name(),
                    Pane::Flows.name()
                ),
                true,
            );
        };
        let mut warnings = Vec::new();
        if let Some(protected) = self.data.protected.iter().find(|net| net.contains(&prefix)) {
            warnings.push(format!(
                "{protected} is protected by the policy: what is protected cannot be banned"
            ));
        } else if let Some(protected) = self.data.protected.iter().find(|net| prefix.contains(*net)) {
            warnings.push(format!(
                "{protected} in it is protected by the policy, and stays open"
            ));
        }
        if let Some(ban) = self.bans_over(&prefix).first() {
            let left = ban
                .seconds_left
                .map_or_else(|| "for ever".to_owned(), crate::cli::table::span);
            let whom = ban
                .service
                .as_ref()
                .map_or_else(String::new, |service| format!(" from {service}"));
            warnings.push(format!(
                "a ban of {}{whom} holds it already ({left}): a shorter one would do nothing",
                ban.prefix
            ));
        }
        if let Some(status) = &self.data.status
            && status.policy.mode == Mode::Monitor
        {
            warnings.push("the policy's mode is monitor: it would only be counted, and pass".to_owned());
        }
        let named = self.service.clone().or(row.service);
        self.dialog = Some(Dialog::Ban {
            prefix,
            // Traffic to no service has no ban of its own.
            service: named.filter(|service| service != "default"),
            only_service: false,
            time: 0,
            warnings,
            stage: Stage::Asked,
        });
    }

    fn ask_unban(&mut self) {
        let row = self.selected_row();
        let Some((key, prefix)) = row.and_then(|row| Some((row.key, row.prefix?))) else {
            return self.say(
                "u takes a ban back: choose a banned source, or a ban in bans (7)",
                true,
            );
        };
        let over = self.bans_over(&prefix);
        let ban = match self.pane {
            Pane::Bans => over.into_iter().find(|ban| ban_key(ban) == key),
            _ => over.first().copied(),
        };
        match ban.cloned() {
            Some(ban) => {
                self.dialog = Some(Dialog::Unban {
                    wider_than: (ban.prefix != prefix).then_some(prefix),
                    ban,
                    stage: Stage::Asked,
                });
            }
            None => match &self.data.bans {
                Some(Err(why)) => self.say(why.clone(), true),
                _ => self.say(format!("no ban holds {prefix}"), true),
            },
        }
    }

    fn dialog_key(&mut self, code: KeyCode) -> Action {
        let close = matches!(code, KeyCode::Esc | KeyCode::Char('q' | 'n'));
        match &mut self.dialog {
            Some(Dialog::Details { scroll, .. }) => match code {
                KeyCode::Up | KeyCode::Char('k') => *scroll = scroll.saturating_sub(1),
                KeyCode::Down | KeyCode::Char('j') => *scroll += 1,
                KeyCode::PageUp => *scroll = scroll.saturating_sub(PAGE as usize),
                KeyCode::PageDown => *scroll += PAGE as usize,
                KeyCode::Char('b') => {
                    self.dialog = None;
                    self.ask_ban();
                }
                KeyCode::Char('u') => {
                    self.dialog = None;
                    self.ask_unban();
                }
                _ => self.dialog = None,
            },
            Some(Dialog::Ban {
                prefix,
                service,
                only_service,
                time,
                stage,
                ..
            }) if *stage == Stage::Asked => match code {
                KeyCode::Left | KeyCode::Up => *time = (*time + TIMES.len() - 1) % TIMES.len(),
                KeyCode::Right | KeyCode::Down => *time = (*time + 1) % TIMES.len(),
                KeyCode::Char(digit @ '1'..='5') => *time = digit as usize - '1' as usize,
                KeyCode::Tab | KeyCode::Char('s') if service.is_some() => *only_service = !*only_service,
                KeyCode::Enter | KeyCode::Char('y') => {
                    *stage = Stage::Sent;
                    return Action::Change(Change::Ban(BanRequest {
                        prefix: prefix.to_string(),
                        service: service.clone().filter(|_| *only_service),
                        for_seconds: TIMES[*time].0,
                        reason: Some(REASON.to_owned()),
                    }));
                }
                _ if close => self.dialog = None,
                _ => {}
            },
            Some(Dialog::Unban { ban, stage, .. }) if *stage == Stage::Asked => match code {
                KeyCode::Enter | KeyCode::Char('y') => {
                    *stage = Stage::Sent;
                    return Action::Change(Change::Unban(UnbanRequest {
                        prefix: ban.prefix.to_string(),
                        service: ban.service.clone(),
                    }));
                }
                _ if close => self.dialog = None,
                _ => {}
            },
            // What is on its way can be left to itself: its outcome is then said at the bottom.
            Some(Dialog::Ban { stage, .. } | Dialog::Unban { stage, .. }) if *stage == Stage::Sent => {
                if close {
                    self.dialog = None;
                }
            }
            _ => self.dialog = None,
        }
        Action::Nothing
    }
}
