//! Plots as SVG inside a page: lines over a logarithmic axis, and bars.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 48.0;
/// Colours there are; which they are is the style sheet's ([`STYLE`]).
const COLOURS: usize = 7;

/// What plots look like, in the light and in the dark: colours that stay apart for most eyes (Okabe and Ito).
pub(super) const STYLE: &str = "
svg { width: 100%; height: auto }
svg text { font-size: 12px; fill: var(--ink) }
.middle { text-anchor: middle } .end { text-anchor: end }
.grid { stroke: var(--grid); fill: none }
.line { fill: none; stroke-width: 2; stroke: var(--colour) }
circle, rect { fill: var(--colour) }
.control { stroke-dasharray: 5 4 }
.legend { list-style: none; padding: 0; font-size: 13px }
.legend span { display: inline-block; width: 2.2em; margin-right: .6em; vertical-align: middle; border-top: 3px solid var(--colour) }
.legend .control { border-top-style: dashed }
.c0 { --colour: #0072b2 } .c1 { --colour: #d55e00 } .c2 { --colour: #009e73 } .c3 { --colour: #cc79a7 }
.c4 { --colour: #b87f00 } .c5 { --colour: #3a9bd0 } .c6 { --colour: var(--ink) }
@media (prefers-color-scheme: dark) {
  .c0 { --colour: #4aa3df } .c1 { --colour: #ff8a3d } .c2 { --colour: #2fc99a } .c4 { --colour: #f0b93a } .c5 { --colour: #9fd8ff }
}
";

/// The class of a colour.
fn class(colour: usize) -> String {
    format!("c{}", colour % COLOURS)
}

/// A line.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Series {
    pub(super) label: String,
    /// Which colour; a control has its measurement's.
    pub(super) colour: usize,
    /// A control: dashed.
    pub(super) control: bool,
    pub(super) points: Vec<(f64, f64)>,
}

/// What an axis shows.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Axis {
    /// Numbers above 0, each factor as long.
    Logarithmic(String),
    /// The same of times in nanoseconds.
    Times(String),
    /// Numbers from 0.
    Linear(String),
    /// Names, one beside the other at 0, 1, 2, and so on.
    Names(String, Vec<String>),
}

/// From values to 0..1.
type Scale = Box<dyn Fn(f64) -> f64>;

impl Axis {
    fn title(&self) -> &str {
        match self {
            Self::Logarithmic(title) | Self::Times(title) | Self::Linear(title) | Self::Names(title, _) => {
                title
            }
        }
    }

    /// From values to 0..1, and the values that are written beside the axis.
    fn scale(&self, values: &[f64]) -> (Scale, Vec<(f64, String)>) {
        let greatest = values.iter().copied().fold(f64::MIN_POSITIVE, f64::max);
        match self {
            Self::Names(_, names) => {
                let last = (names.len().max(2) - 1) as f64;
                let ticks = names.iter().enumerate().map(|(place, name)| (place as f64, name.clone()));
                (Box::new(move |value| value / last), ticks.collect())
            }
            Self::Linear(_) => {
                let step = nice(greatest / 5.0);
                let top = (greatest / step).ceil() * step;
                let ticks =
                    (0..=10).map(|tick| f64::from(tick) * step).take_while(|tick| *tick <= top * 1.001);
                (Box::new(move |value| value / top), ticks.map(|tick| (tick, short(tick))).collect())
            }
            Self::Logarithmic(_) => logarithmic(values, greatest, short),
            Self::Times(_) => logarithmic(values, greatest, duration),
        }
    }
}

/// A logarithmic scale of whole decades; where they are few, 2 and 5 are written, too.
fn logarithmic(values: &[f64], greatest: f64, write: fn(f64) -> String) -> (Scale, Vec<(f64, String)>) {
    let least = values.iter().copied().filter(|value| *value > 0.0).fold(greatest, f64::min);
    let (low, high) = (least.log10().floor(), greatest.log10().ceil());
    let high = if high > low { high } else { low + 1.0 };
    let between: &[f64] = if high - low < 3.0 { &[1.0, 2.0, 5.0] } else { &[1.0] };
    let ticks = (0..=20)
        .flat_map(|decade| between.iter().map(move |factor| factor * 10_f64.powf(low + f64::from(decade))))
        .take_while(|tick| tick.log10() <= high + 1e-9)
        .map(|tick| (tick, write(tick)));
    let scale = move |value: f64| (value.max(1e-300).log10() - low) / (high - low);
    (Box::new(scale), ticks.collect())
}

/// Nanoseconds in the unit that suits them.
pub(super) fn duration(nanoseconds: f64) -> String {
    let (divided, unit) = match nanoseconds.abs() {
        long if long >= 1e9 => (nanoseconds / 1e9, "s"),
        long if long >= 1e6 => (nanoseconds / 1e6, "ms"),
        long if long >= 1e3 => (nanoseconds / 1e3, "µs"),
        _ => (nanoseconds, "ns"),
    };
    format!("{} {unit}", short((divided * 100.0).round() / 100.0))
}

/// 1, 2 or 5 times a power of ten, at least as much.
fn nice(value: f64) -> f64 {
    let power = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= value)
        .unwrap_or(value)
}

/// A number as short as a reader can tell it from its neighbours.
pub(super) fn short(value: f64) -> String {
    let (divided, unit) = match value.abs() {
        large if large >= 1e9 => (value / 1e9, " G"),
        large if large >= 1e6 => (value / 1e6, " M"),
        large if large >= 1e4 => (value / 1e3, " k"),
        _ => (value, ""),
    };
    let text = format!("{divided:.2}");
    let text = if text.contains('.') { text.trim_end_matches('0').trim_end_matches('.') } else { &text };
    format!("{text}{unit}")
}

/// Text for a page.
pub(super) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// Lines over two axes, with a legend below.
pub(super) fn lines(x: &Axis, y: &Axis, series: &[Series]) -> String {
    let of = |axis: fn(&(f64, f64)) -> f64| -> Vec<f64> {
        series.iter().flat_map(|one| one.points.iter().map(axis)).collect()
    };
    let ((across, x_ticks), (up, y_ticks)) = (x.scale(&of(|point| point.0)), y.scale(&of(|point| point.1)));
    let (width, height) = (WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM);
    let (left, top) = (|value| LEFT + across(value) * width, |value| TOP + (1.0 - up(value)) * height);
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">\n");
    for (value, label) in &x_ticks {
        let at = left(*value);
        let (from, to, below) = (TOP, TOP + height, TOP + height + 16.0);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{at:.1} {from}V{to}\"/>");
        let _ = writeln!(svg, "<text x=\"{at:.1}\" y=\"{below}\" class=\"middle\">{}</text>", escape(label));
    }
    for (value, label) in &y_ticks {
        let at = top(*value);
        let (to, before) = (LEFT + width, LEFT - 8.0);
        let _ = writeln!(svg, "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{to}\"/>");
        let _ = writeln!(
            svg,
            "<text x=\"{before}\" y=\"{:.1}\" class=\"end\">{}</text>",
            at + 4.0,
            escape(label)
        );
    }
    let (middle, bottom) = (LEFT + width / 2.0, HEIGHT - 10.0);
    let _ =
        writeln!(svg, "<text x=\"{middle}\" y=\"{bottom}\" class=\"middle\">{}</text>", escape(x.title()));
    let _ = writeln!(
        svg,
        "<text transform=\"translate(14 {:.1}) rotate(-90)\" class=\"middle\">{}</text>",
        TOP + height / 2.0,
        escape(y.title())
    );
    let written = |value: f64| if matches!(y, Axis::Times(_)) { duration(value) } else { short(value) };
    for one in series {
        let (colour, control) = (class(one.colour), if one.control { " control" } else { "" });
        let points: Vec<String> =
            one.points.iter().map(|(x, y)| format!("{:.1},{:.1}", left(*x), top(*y))).collect();
        let _ = writeln!(svg, "<polyline points=\"{}\" class=\"line {colour}{control}\"/>", points.join(" "));
        for (x, y) in &one.points {
            let (cx, cy) = (left(*x), top(*y));
            let _ = writeln!(
                svg,
                "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\" class=\"{colour}\"><title>{}: {}</title></circle>",
                escape(&one.label),
                written(*y)
            );
        }
    }
    svg.push_str("</svg>\n<ul class=\"legend\">\n");
    for one in series {
        let (colour, control) = (class(one.colour), if one.control { " control" } else { "" });
        let _ = writeln!(svg, "<li><span class=\"{colour}{control}\"></span>{}</li>", escape(&one.label));
    }
    svg.push_str("</ul>\n");
    svg
}

/// Bars from the left, each with its name and value.
pub(super) fn bars(unit: &str, bars: &[(String, f64, usize)]) -> String {
    const ROW: f64 = 24.0;
    const NAMES: f64 = 250.0;
    let greatest = bars.iter().map(|bar| bar.1).fold(f64::MIN_POSITIVE, f64::max);
    let height = ROW * bars.len() as f64;
    let mut svg = format!("<svg viewBox=\"0 0 {WIDTH} {height}\" role=\"img\">\n");
    for (row, (name, value, colour)) in bars.iter().enumerate() {
        let y = ROW * row as f64;
        let width = (value / greatest).max(0.0) * (WIDTH - NAMES - 110.0);
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" class=\"end\">{}</text>\
             <rect x=\"{NAMES}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" class=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{value:.1} {}</text>",
            NAMES - 8.0,
            y + 16.0,
            escape(name),
            y + 3.0,
            ROW - 6.0,
            class(*colour),
            NAMES + width + 6.0,
            y + 16.0,
            escape(unit)
        );
    }
    svg.push_str("</svg>\n");
    svg
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_short() {
        let shown = [0.0, 35.9, 1024.0, 65_536.0, 10e6, 2.5e9].map(short);
        assert_eq!(shown, ["0", "35.9", "1024", "65.54 k", "10 M", "2.5 G"]);
        assert_eq!([0.7, 1.0, 3.0, 11.0].map(nice), [1.0, 1.0, 5.0, 20.0]);
        assert_eq!(
            [0.5, 999.0, 1500.0, 2e6, 3e9].map(duration),
            ["0.5 ns", "999 ns", "1.5 µs", "2 ms", "3 s"]
        );
    }

    #[test]
    fn points_lie_inside_the_plot_in_their_order() {
        let points = vec![(1_000.0, 36.0), (1_000_000.0, 63.0), (10_000_000.0, 75.0)];
        let series = [Series { label: "a<b".to_owned(), colour: 0, control: false, points }];
        let axes = (Axis::Logarithmic("flows".to_owned()), Axis::Linear("ns".to_owned()));
        let svg = lines(&axes.0, &axes.1, &series);
        let shown = svg.split("points=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
        let shown: Vec<(f64, f64)> = shown
            .split(' ')
            .map(|pair| pair.split_once(',').unwrap())
            .map(|(x, y)| (x.parse().unwrap(), y.parse().unwrap()))
            .collect();
        assert!(shown.is_sorted_by(|a, b| a.0 < b.0 && a.1 > b.1), "{shown:?}");
        let inside = |(x, y): &(f64, f64)| (LEFT..=WIDTH).contains(x) && (TOP..=HEIGHT - BOTTOM).contains(y);
        assert!(shown.iter().all(inside), "{shown:?}");
        assert!(svg.contains("a&lt;b") && !svg.contains("a<b"));
    }

    #[test]
    fn few_decades_have_more_ticks() {
        let ticks = |values: &[f64]| -> Vec<String> {
            Axis::Times("t".to_owned()).scale(values).1.into_iter().map(|tick| tick.1).collect()
        };
        assert_eq!(ticks(&[1200.0, 9000.0]), ["1 µs", "2 µs", "5 µs", "10 µs"]);
        assert_eq!(ticks(&[10.0, 9e5]), ["10 ns", "100 ns", "1 µs", "10 µs", "100 µs", "1 ms"]);
    }

    #[test]
    fn one_point_and_none_are_drawn_too() {
        for points in [vec![], vec![(1.0, 1.0)], vec![(0.0, 0.0)]] {
            let series = [Series { label: String::new(), colour: 9, control: true, points }];
            for x in [Axis::Logarithmic("x".to_owned()), Axis::Names("x".to_owned(), vec!["p50".to_owned()])]
            {
                let svg = lines(&x, &Axis::Linear("y".to_owned()), &series);
                assert!(!svg.contains("NaN") && !svg.contains("inf"), "{svg}");
            }
        }
        assert!(!bars("ns", &[("nothing".to_owned(), 0.0, 0)]).contains("NaN"));
    }
}
