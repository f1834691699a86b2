//! A replay as a drawing: packets a second by verdict over time, a panel for each service. Plain SVG without scripts, whose
//! colours follow the viewer's light or dark setting.

use std::fmt::Write as _;

use jiff::{Timestamp, tz::TimeZone};

use super::{Replay, report::Report, tally::Count, timeline::Timeline};

/// Panels at most; the services with the fewest packets share the last.
const PANELS: usize = 8;

const WIDTH: f64 = 960.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 40.0;
const TOP: f64 = 92.0;
const PANEL: f64 = 150.0;
/// Between two panels: the time axis of one and the name of the next.
const GAP: f64 = 58.0;
const BOTTOM: f64 = 54.0;
/// Ticks of the time axis, at most about.
const TICKS: u64 = 8;

/// Verdicts from the bottom of the stack up: class of its area, and what the legend says.
const STACK: [(&str, &str); 3] = [
    ("pass", "passed"),
    ("would", "would have been dropped"),
    ("drop", "dropped"),
];

/// Steps between ticks of time, in seconds.
const STEPS: [f64; 29] = [
    0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0, 120.0,
    300.0, 600.0, 1200.0, 1800.0, 3600.0, 7200.0, 14_400.0, 21_600.0, 43_200.0, 86_400.0, 172_800.0,
    864_000.0,
];

const STYLE: &str = "\
:root{color-scheme:light dark}
.back{fill:#ffffff}.text{fill:#1f2933;font:13px system-ui,sans-serif}.small{fill:#52606d;font:11px system-ui,sans-serif}
.title{fill:#1f2933;font:600 16px system-ui,sans-serif}.grid{stroke:#d9dee4;stroke-width:1}.axis{stroke:#7b8794;stroke-width:1}
.pass{fill:#4c8dca}.would{fill:#e8a33d}.drop{fill:#c0392b}
@media (prefers-color-scheme:dark){.back{fill:#12171c}.text,.title{fill:#e4e7eb}.small{fill:#9aa5b1}.grid{stroke:#2c353e}
.axis{stroke:#7b8794}.pass{fill:#3d7ab3}.would{fill:#d9962f}.drop{fill:#d4533f}}";

/// What one panel shows: its name, and packets by interval and verdict, in the order of [`STACK`].
struct Panel {
    name: String,
    intervals: Vec<[u64; 3]>,
}

/// Draws what the policy did (of a comparison, the first).
pub fn svg(replay: &Replay, report: &Report) -> String {
    let tally = &replay.policy.tally;
    let panels = panels(&tally.timeline, &tally.names);
    let start = tally.timeline.intervals().next().map_or(0, |(from, _)| from);
    let time = Axis {
        start,
        width_ns: tally.timeline.width_ns(),
        intervals: tally.timeline.intervals().count().max(1),
    };
    let height = TOP + panels.len().max(1) as f64 * (PANEL + GAP) - GAP + BOTTOM;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         role=\"img\">\n<title>{}</title>\n<style>{STYLE}</style>\n\
         <rect class=\"back\" width=\"{WIDTH}\" height=\"{height}\"/>\n",
        escaped(&title(report))
    );
    let _ = writeln!(
        svg,
        "<text class=\"title\" x=\"{LEFT}\" y=\"30\">{}</text>",
        escaped(&shortened(&title(report), 100))
    );
    legend(&mut svg);
    for (at, panel) in panels.iter().enumerate() {
        draw(&mut svg, panel, &time, TOP + at as f64 * (PANEL + GAP));
    }
    if panels.is_empty() {
        let _ = writeln!(
            svg,
            "<text class=\"text\" x=\"{LEFT}\" y=\"{TOP}\">no packet was judged</text>"
        );
    }
    let _ = writeln!(
        svg,
        "<text class=\"small\" x=\"{}\" y=\"{}\" text-anchor=\"end\">time (UTC) from {} on; {}</text>\n</svg>",
        WIDTH - RIGHT,
        height - 12.0,
        date(start),
        interval(time.width_ns)
    );
    svg
}

fn title(report: &Report) -> String {
    format!("{} on {}", report.policy.path, report.captures.join(", "))
}

/// The panels: the services with the most packets, and the others together.
fn panels(timeline: &Timeline, names: &[String]) -> Vec<Panel> {
    let rows = |service: usize| -> Vec<[u64; 3]> {
        let row = |counts: [Count; 3]| [counts[0].packets, counts[2].packets, counts[1].packets];
        timeline
            .intervals()
            .map(|(_, interval)| row(interval.verdicts(Some(service))))
            .collect()
    };
    let mut totals: Vec<(u64, usize)> = (0..names.len())
        .map(|service| {
            let packets = timeline.intervals().map(|(_, interval)| {
                let counts = interval.verdicts(Some(service));
                counts.iter().map(|count| count.packets).sum::<u64>()
            });
            (packets.sum(), service)
        })
        .filter(|(packets, _)| *packets > 0)
        .collect();
    totals.sort_by_key(|(packets, service)| (std::cmp::Reverse(*packets), *service));
    let own = if totals.len() > PANELS { PANELS - 1 } else { PANELS };
    let mut panels: Vec<Panel> = totals
        .iter()
        .take(own)
        .map(|(_, service)| Panel {
            name: names[*service].clone(),
            intervals: rows(*service),
        })
        .collect();
    let rest = totals.get(own..).unwrap_or_default();
    if !rest.is_empty() {
        let mut intervals = vec![[0; 3]; timeline.intervals().count()];
        for (_, service) in rest {
            for (sum, more) in intervals.iter_mut().zip(rows(*service)) {
                for (sum, more) in sum.iter_mut().zip(more) {
                    *sum += more;
                }
            }
        }
        panels.push(Panel {
            name: format!("{} other services", rest.len()),
            intervals,
        });
    }
    panels
}

/// The time axis.
struct Axis {
    start: u64,
    width_ns: u64,
    intervals: usize,
}

impl Axis {
    /// Where an interval begins; the one behind the last: where it ends.
    fn x(&self, interval: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * interval / self.intervals as f64
    }

    /// Places and labels of its ticks.
    fn ticks(&self) -> Vec<(f64, String)> {
        let width = self.width_ns as f64 / 1e9;
        let seconds = width * self.intervals as f64;
        let longest = STEPS[STEPS.len() - 1];
        let step = STEPS
            .iter()
            .copied()
            .find(|step| seconds / step <= TICKS as f64)
            .unwrap_or_else(|| (seconds / TICKS as f64 / longest).ceil() * longest);
        let step_ns = (step * 1e9) as u64;
        let first = self.start.div_ceil(step_ns);
        let end = self
            .start
            .saturating_add(self.width_ns.saturating_mul(self.intervals as u64));
        (first..)
            .map(|number| number.saturating_mul(step_ns))
            .take_while(|at| *at <= end)
            .take(TICKS as usize + 2)
            .map(|at| {
                let interval = (at - self.start) as f64 / self.width_ns as f64;
                (self.x(interval), clock(at, step))
            })
            .collect()
    }
}

fn legend(svg: &mut String) {
    let mut x = LEFT;
    for (class, name) in STACK {
        let _ = writeln!(
            svg,
            "<rect class=\"{class}\" x=\"{x}\" y=\"45\" width=\"12\" height=\"12\" rx=\"2\"/>\
             <text class=\"text\" x=\"{}\" y=\"56\">{name}</text>",
            x + 18.0
        );
        x += 44.0 + name.len() as f64 * 6.8;
    }
}

fn draw(svg: &mut String, panel: &Panel, time: &Axis, top: f64) {
    let bottom = top + PANEL;
    let per_second = 1e9 / time.width_ns as f64;
    let highest = panel
        .intervals
        .iter()
        .map(|row| row.iter().sum::<u64>())
        .max()
        .unwrap_or(0);
    let (step, steps) = nice(highest as f64 * per_second);
    let full = step * f64::from(steps);
    let y = |rate: f64| bottom - PANEL * rate / full;
    let _ = writeln!(
        svg,
        "<g><text class=\"text\" x=\"{LEFT}\" y=\"{}\">{}</text>\
         <text class=\"small\" x=\"{}\" y=\"{}\" text-anchor=\"end\">packets/s</text>",
        top - 9.0,
        escaped(&shortened(&panel.name, 80)),
        LEFT - 8.0,
        top - 9.0
    );
    for at in 0..=steps {
        let rate = step * f64::from(at);
        let line = y(rate);
        let _ = writeln!(
            svg,
            "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{line:.1}\" y2=\"{line:.1}\"/>\
             <text class=\"small\" x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            WIDTH - RIGHT,
            LEFT - 8.0,
            line + 4.0,
            short(rate)
        );
    }
    for verdict in 0..STACK.len() {
        area(
            svg,
            panel,
            time,
            verdict,
            |packets| y(packets as f64 * per_second),
        );
    }
    for (x, label) in time.ticks() {
        let _ = writeln!(
            svg,
            "<line class=\"axis\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{bottom}\" y2=\"{}\"/>\
             <text class=\"small\" x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{label}</text>",
            bottom + 5.0,
            bottom + 18.0
        );
    }
    let _ = writeln!(
        svg,
        "<line class=\"axis\" x1=\"{LEFT}\" x2=\"{}\" y1=\"{bottom}\" y2=\"{bottom}\"/></g>",
        WIDTH - RIGHT
    );
}

/// The area of one verdict, in steps, on top of those below it.
fn area(svg: &mut String, panel: &Panel, time: &Axis, verdict: usize, y: impl Fn(u64) -> f64) {
    if panel.intervals.iter().all(|row| row[verdict] == 0) {
        return;
    }
    let below = |row: &[u64; 3]| row[..verdict].iter().sum::<u64>();
    let mut path = String::new();
    // Only where there is something: one closed shape for each run of intervals.
    let mut at = 0;
    while at < panel.intervals.len() {
        if panel.intervals[at][verdict] == 0 {
            at += 1;
            continue;
        }
        let end = panel.intervals[at..]
            .iter()
            .position(|row| row[verdict] == 0)
            .map_or(panel.intervals.len(), |len| at + len);
        let run = &panel.intervals[at..end];
        let _ = write!(path, "M{:.1} {:.1}", time.x(at as f64), y(below(&run[0])));
        for (number, row) in (at..).zip(run) {
            let top = y(below(row) + row[verdict]);
            let _ = write!(path, "V{top:.1}H{:.1}", time.x(number as f64 + 1.0));
        }
        for (number, row) in (at..end).zip(run).rev() {
            let _ = write!(path, "V{:.1}H{:.1}", y(below(row)), time.x(number as f64));
        }
        path.push('Z');
        at = end;
    }
    let _ = writeln!(svg, "<path class=\"{}\" d=\"{path}\"/>", STACK[verdict].0);
}

/// A step between grid lines that is easy to read (1, 2 or 5 times a power of ten), and how many cover the highest value.
fn nice(highest: f64) -> (f64, u32) {
    let highest = highest.max(1.0);
    let power = 10f64.powf((highest / 4.0).log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .into_iter()
        .map(|of| of * power)
        .find(|step| highest / step <= 4.0)
        .unwrap_or(10.0 * power);
    (step, (highest / step).ceil().max(1.0) as u32)
}

/// A rate in few letters: `1.5M`.
fn short(rate: f64) -> String {
    let (scaled, unit) = match rate {
        rate if rate >= 1e9 => (rate / 1e9, "G"),
        rate if rate >= 1e6 => (rate / 1e6, "M"),
        rate if rate >= 1e3 => (rate / 1e3, "k"),
        rate => (rate, ""),
    };
    // At most two decimals, none that say nothing.
    let text = format!("{scaled:.2}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    format!("{text}{unit}")
}

fn moment(ns: u64) -> Timestamp {
    Timestamp::from_nanosecond(i128::from(ns)).unwrap_or(Timestamp::UNIX_EPOCH)
}

/// A time of day, as exactly as the ticks ask for; a date where they are days apart.
fn clock(ns: u64, step: f64) -> String {
    let format = if step < 1.0 {
        "%H:%M:%S%.3f"
    } else if step < 60.0 {
        "%H:%M:%S"
    } else if step < 86_400.0 {
        "%H:%M"
    } else {
        "%Y-%m-%d"
    };
    moment(ns).to_zoned(TimeZone::UTC).strftime(format).to_string()
}

fn date(ns: u64) -> String {
    moment(ns)
        .to_zoned(TimeZone::UTC)
        .strftime("%Y-%m-%d")
        .to_string()
}

/// How long an interval is.
fn interval(ns: u64) -> String {
    let seconds = ns as f64 / 1e9;
    if seconds < 1.0 {
        format!("intervals of {} ms", ns / 1_000_000)
    } else {
        format!("intervals of {seconds} s")
    }
}

/// At most so many letters, the end kept: of paths, that is what tells them apart.
fn shortened(text: &str, most: usize) -> String {
    let letters = text.chars().count();
    if letters <= most {
        return text.to_owned();
    }
    let end: String = text.chars().skip(letters - most + 1).collect();
    format!("…{end}")
}

/// Text between tags. What XML cannot hold at all becomes a mark.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            '\u{fffe}' | '\u{ffff}' => escaped.push('\u{fffd}'),
            letter if letter.is_control() => escaped.push('\u{fffd}'),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn grid_lines_are_easy_to_read() {
        for (highest, expected) in [
            (0.0, (0.5, 2)),
            (1.0, (0.5, 2)),
            (4.0, (1.0, 4)),
            (9.0, (5.0, 2)),
            (1234.0, (500.0, 3)),
            (20_000.0, (5000.0, 4)),
        ] {
            assert_eq!(nice(highest), expected, "{highest}");
        }
        for (rate, text) in [
            (0.0, "0"),
            (0.5, "0.5"),
            (1500.0, "1.5k"),
            (20_000.0, "20k"),
            (2.5e6, "2.5M"),
            (1e9, "1G"),
        ] {
            assert_eq!(short(rate), text);
        }
    }

    #[test]
    fn names_cannot_break_out() {
        assert_eq!(escaped("a<b>&\u{7}\"c"), "a&lt;b&gt;&amp;\u{fffd}\"c");
        assert_eq!(shortened("abcdef", 4), "…def");
        assert_eq!(shortened("abcd", 4), "abcd");
    }

    #[test]
    fn an_area_is_drawn_where_there_is_something() {
        let panel = Panel {
            name: "web".to_owned(),
            intervals: vec![[2, 0, 1], [0, 0, 0], [1, 0, 2]],
        };
        let time = Axis {
            start: 0,
            width_ns: 1_000_000_000,
            intervals: 3,
        };
        let mut svg = String::new();
        area(&mut svg, &panel, &time, 2, |packets| 100.0 - packets as f64);
        let third = (WIDTH - LEFT - RIGHT) / 3.0;
        let (a, b, c, d) = (LEFT, LEFT + third, LEFT + 2.0 * third, WIDTH - RIGHT);
        assert_eq!(
            svg,
            format!(
                "<path class=\"drop\" d=\"M{a:.1} 98.0V97.0H{b:.1}V98.0H{a:.1}ZM{c:.1} 99.0V97.0H{d:.1}V99.0H{c:.1}Z\"/>\n"
            )
        );
        svg.clear();
        area(&mut svg, &panel, &time, 1, |packets| packets as f64);
        assert_eq!(svg, "");
    }

    #[test]
    fn ticks_are_at_round_times() {
        let time = Axis {
            start: 1_700_000_003_000_000_000,
            width_ns: 100_000_000,
            intervals: 300,
        };
        let labels: Vec<String> = time.ticks().into_iter().map(|(_, label)| label).collect();
        assert_eq!(
            labels,
            [
                "22:13:25", "22:13:30", "22:13:35", "22:13:40", "22:13:45", "22:13:50"
            ]
        );
        // A span as long as the clock goes has ticks too, and not many.
        let time = Axis {
            start: 0,
            width_ns: 10_000_000_000_000_000,
            intervals: 922,
        };
        assert!((2..=10).contains(&time.ticks().len()), "{}", time.ticks().len());
    }
}
