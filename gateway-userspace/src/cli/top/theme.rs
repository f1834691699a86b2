//! Colours, or what stands for them.

use std::ffi::OsStr;

use ratatui::style::{Color, Modifier, Style};

use super::text::Charset;

/// How things are set apart from each other.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Theme {
    /// With colours; without, bold and reversed letters must do.
    pub(super) colour: bool,
    /// What can be shown.
    pub(super) charset: Charset,
}

impl Theme {
    /// What the environment allows: no colours with `NO_COLOR` or on a terminal that has none, no more than ASCII in a
    /// locale that says so.
    pub(super) fn new<'v>(variable: impl Fn(&str) -> Option<&'v OsStr>) -> Self {
        let set = |name: &str| variable(name).filter(|value| !value.is_empty());
        let terminal = set("TERM").and_then(OsStr::to_str).unwrap_or_default();
        let plain = terminal.starts_with("vt") || terminal.ends_with("-m") || terminal.ends_with("-mono");
        let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(set);
        let unicode = locale.and_then(OsStr::to_str).is_some_and(|locale| {
            let locale = locale.to_ascii_lowercase();
            locale.contains("utf-8") || locale.contains("utf8")
        });
        Self {
            colour: set("NO_COLOR").is_none() && !plain,
            charset: Charset { unicode },
        }
    }

    fn with(self, colour: Color, without: Modifier) -> Style {
        if self.colour {
            Style::new().fg(colour)
        } else {
            Style::new().add_modifier(without)
        }
    }

    /// The first line, and the selected row.
    pub(super) fn bar() -> Style {
        Style::new().add_modifier(Modifier::REVERSED)
    }

    /// Headings.
    pub(super) fn heading(self) -> Style {
        self.with(Color::Cyan, Modifier::BOLD)
            .add_modifier(Modifier::BOLD)
    }

    /// What is wrong.
    pub(super) fn bad(self) -> Style {
        self.with(Color::Red, Modifier::BOLD)
    }

    /// What to look at.
    pub(super) fn warn(self) -> Style {
        self.with(Color::Yellow, Modifier::BOLD)
    }

    /// What is well.
    pub(super) fn good(self) -> Style {
        self.with(Color::Green, Modifier::empty())
    }

    /// What matters least.
    pub(super) fn dim(self) -> Style {
        self.with(Color::DarkGray, Modifier::DIM)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn theme(variables: &[(&str, &'static str)]) -> Theme {
        Theme::new(|name| {
            let found = variables.iter().find(|(key, _)| *key == name);
            found.map(|(_, value)| OsStr::new(*value))
        })
    }

    #[test]
    fn colours_go_where_they_are_not_wanted_or_not_there() {
        assert!(theme(&[("TERM", "xterm-256color")]).colour);
        assert!(
            theme(&[("TERM", "xterm"), ("NO_COLOR", "")]).colour,
            "empty is unset"
        );
        assert!(!theme(&[("TERM", "xterm"), ("NO_COLOR", "1")]).colour);
        assert!(!theme(&[("TERM", "vt100")]).colour && !theme(&[("TERM", "xterm-mono")]).colour);
    }

    #[test]
    fn the_first_locale_that_is_set_decides() {
        assert!(theme(&[("LANG", "de_DE.UTF-8")]).charset.unicode);
        assert!(theme(&[("LANG", "C"), ("LC_ALL", "C.utf8")]).charset.unicode);
        assert!(!theme(&[("LANG", "C.UTF-8"), ("LC_ALL", "POSIX")]).charset.unicode);
        assert!(!theme(&[]).charset.unicode);
    }
}
