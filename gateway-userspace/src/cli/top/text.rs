//! Text that fits and is safe to show: what a controller says is shown on a terminal that obeys control characters.

use std::borrow::Cow;

use unicode_width::UnicodeWidthChar as _;

/// Bars of a sparkline, the lowest first.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
/// The same where only ASCII can be shown.
const ASCII_BARS: [char; 8] = ['.', ':', '-', '=', '+', '*', '#', '@'];

/// What the terminal shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Charset {
    /// More than ASCII.
    pub(super) unicode: bool,
}

impl Charset {
    /// The text without what a terminal would obey or not show: control characters, and those without a width (marks
    /// that turn the direction of writing among them). Each becomes a `?`.
    pub(super) fn clean(self, text: &str) -> Cow<'_, str> {
        let harmless = |c: char| match c {
            ' '..='~' => true,
            c => self.unicode && c.width().is_some_and(|width| width > 0),
        };
        if text.chars().all(harmless) {
            return Cow::Borrowed(text);
        }
        // What this program itself writes, where only ASCII can be shown.
        let plain = |c: char| match c {
            '…' => '~',
            '±' => '+',
            '–' => '-',
            '→' => '>',
            _ => '?',
        };
        Cow::Owned(
            text.chars()
                .map(|c| if harmless(c) { c } else { plain(c) })
                .collect(),
        )
    }

    /// The clean text in at most `width` columns; what is cut off leaves a mark.
    pub(super) fn fit(self, text: &str, width: usize) -> String {
        let text = self.clean(text);
        if columns(&text) <= width {
            return text.into_owned();
        }
        let mark = if self.unicode { '…' } else { '~' };
        let mut fitted = String::new();
        let mut used = 0;
        for c in text.chars() {
            let wide = c.width().unwrap_or(0);
            if used + wide + 1 > width {
                break;
            }
            used += wide;
            fitted.push(c);
        }
        if width > 0 {
            fitted.push(mark);
        }
        fitted
    }

    /// The last `width` values as bars, the newest on the right; the highest of those shown is a full bar.
    pub(super) fn bars(self, values: impl DoubleEndedIterator<Item = f64>, width: usize) -> String {
        let mut newest: Vec<f64> = values.rev().take(width).collect();
        newest.reverse();
        let highest = newest.iter().copied().fold(0.0, f64::max);
        let bars = if self.unicode { BARS } else { ASCII_BARS };
        let bar = |value: &f64| {
            // Not a number and negative are nothing, too.
            if *value > 0.0 && highest > 0.0 {
                bars[((value / highest * 8.0).ceil() as usize).clamp(1, 8) - 1]
            } else {
                ' '
            }
        };
        let bars: String = newest.iter().map(bar).collect();
        " ".repeat(width - newest.len()) + &bars
    }
}

/// The text in lines of at most `width` columns, broken between words where there are any.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let width = width.max(2);
    let mut lines = vec![String::new()];
    let mut used = 0;
    for word in text.split(' ') {
        let long = columns(word);
        if used > 0 && used + 1 + long > width {
            lines.push(String::new());
            used = 0;
        } else if used > 0 {
            lines.last_mut().into_iter().for_each(|line| line.push(' '));
            used += 1;
        }
        for c in word.chars() {
            let wide = c.width().unwrap_or(0);
            if used + wide > width {
                lines.push(String::new());
                used = 0;
            }
            lines.last_mut().into_iter().for_each(|line| line.push(c));
            used += wide;
        }
    }
    lines
}

/// How many columns the text takes.
pub(super) fn columns(text: &str) -> usize {
    text.chars().map(|c| c.width().unwrap_or(0)).sum()
}

/// A number in at most six columns: `999`, `12.3k`, `1.5M`; below ten with one decimal, so that a trickle is not nothing.
pub(super) fn short(number: f64) -> String {
    // Not a number and negative are nothing.
    let mut number = number.max(0.0);
    if number > 0.0 && number < 9.95 {
        return format!("{:.1}", number.max(0.1));
    }
    if number < 9_999.5 {
        return format!("{number:.0}");
    }
    for unit in ["k", "M", "G", "T", "P", "E"] {
        number /= 1000.0;
        if number < 99.95 {
            return format!("{number:.1}{unit}");
        }
        if number < 999.5 {
            return format!("{number:.0}{unit}");
        }
    }
    ">999E".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNICODE: Charset = Charset { unicode: true };
    const ASCII: Charset = Charset { unicode: false };

    #[test]
    fn what_a_terminal_would_obey_is_not_shown() {
        for hostile in [
            "\x1b[2Jgone",
            "a\r\nb",
            "\u{9b}31m",
            "\u{202e}drawkcab",
            "a\u{200b}b",
            "\x07",
            "a\u{301}",
        ] {
            for charset in [UNICODE, ASCII] {
                let clean = charset.clean(hostile);
                assert!(clean.contains('?'), "{clean:?}");
                assert!(
                    !clean
                        .chars()
                        .any(|c| c.is_control() || c.width().unwrap_or(0) == 0),
                    "{clean:?}"
                );
            }
        }
        assert_eq!(UNICODE.clean("größe 店"), "größe 店");
        assert_eq!(ASCII.clean("größe ±5%"), "gr??e +5%");
    }

    #[test]
    fn a_text_fits_by_its_columns() {
        assert_eq!(UNICODE.fit("storefront", 10), "storefront");
        assert_eq!(UNICODE.fit("storefront", 6), "store…");
        assert_eq!(ASCII.fit("storefront", 6), "store~");
        assert_eq!(UNICODE.fit("店店店店", 4), "店…");
        assert_eq!(UNICODE.fit("storefront", 1), "…");
        assert_eq!(UNICODE.fit("storefront", 0), "");
    }

    #[test]
    fn long_sentences_are_broken_between_words() {
        assert_eq!(wrap("a ban of all", 6), ["a ban", "of all"]);
        assert_eq!(wrap("abcdefgh ij", 4), ["abcd", "efgh", "ij"]);
        assert_eq!(wrap("店店店", 5), ["店店", "店"]);
        assert_eq!(wrap("", 5), [""]);
        assert_eq!(wrap("ab", 0), ["ab"]);
    }

    #[test]
    fn numbers_keep_to_six_columns() {
        for (number, text) in [
            (0.0, "0"),
            (0.01, "0.1"),
            (9.4, "9.4"),
            (12.0, "12"),
            (9_999.0, "9999"),
            (12_345.0, "12.3k"),
            (99_960.0, "100k"),
            (999_900.0, "1.0M"),
            (1_500_000.0, "1.5M"),
            (f64::NAN, "0"),
            (-5.0, "0"),
            (f64::INFINITY, ">999E"),
        ] {
            assert_eq!(short(number), text, "{number}");
        }
        let mut number = 1.0;
        while number < 1e22 {
            assert!(short(number).len() <= 6, "{number}: {}", short(number));
            number *= 1.7;
        }
    }

    #[test]
    fn bars_are_as_high_as_their_share() {
        assert_eq!(UNICODE.bars([0.0, 1.0, 4.0, 8.0].into_iter(), 6), "   ▁▄█");
        assert_eq!(UNICODE.bars([8.0, 1.0, 2.0].into_iter(), 2), "▄█");
        assert_eq!(ASCII.bars([1.0, f64::NAN].into_iter(), 3), " @ ");
        assert_eq!(UNICODE.bars([].into_iter(), 0), "");
    }
}
