//! Plots as SVG inside a page: lines over a logarithmic axis, and bars.

use std::fmt::Write as _;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 360.0;
const LEFT: f64 = 80.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 16.0;
const BOTTOM: f64 = 48.0;
/// Colours that stay apart for most eyes (Okabe and Ito).
const COLOURS: [&str; 7] = ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#000000"];

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
            Self::Logarithmic(title) | Self::Linear(title) | Self::Names(title, _) => title,
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
            Self::Logarithmic(_) => {
                let least = values.iter().copied().filter(|value| *value > 0.0).fold(greatest, f64::min);
                let (low, high) = (least.log10().floor(), greatest.log10().ceil());
                let high = if high > low { high } else { low + 1.0 };
                let decades = (0..=20)
                    .map(|decade| low + f64::from(decade))
                    .take_while(|decade| *decade <= high)
                    .map(|decade| 10_f64.powf(decade));
                let ticks = decades.map(|tick| (tick, short(tick))).collect();
                (Box::new(move |value: f64| (value.max(1e-300).log10() - low) / (high - low)), ticks)
            }
        }
    }
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
    for one in series {
        let colour = COLOURS[one.colour % COLOURS.len()];
        let dash = if one.control { " stroke-dasharray=\"5 4\"" } else { "" };
        let points: Vec<String> =
            one.points.iter().map(|(x, y)| format!("{:.1},{:.1}", left(*x), top(*y))).collect();
        let _ = writeln!(
            svg,
            "<polyline points=\"{}\" stroke=\"{colour}\"{dash} class=\"line\"/>",
            points.join(" ")
        );
        for (x, y) in &one.points {
            let (cx, cy) = (left(*x), top(*y));
            let _ = writeln!(
                svg,
                "<circle cx=\"{cx:.1}\" cy=\"{cy:.1}\" r=\"3\" fill=\"{colour}\"><title>{}: {}</title></circle>",
                escape(&one.label),
                short(*y)
            );
        }
    }
    svg.push_str("</svg>\n<ul class=\"legend\">\n");
    for one in series {
        let style = if one.control { "dashed" } else { "solid" };
        let colour = COLOURS[one.colour % COLOURS.len()];
        let _ = writeln!(
            svg,
            "<li><span style=\"border-top:3px {style} {colour}\"></span>{}</li>",
            escape(&one.label)
        );
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
             <rect x=\"{NAMES}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" fill=\"{}\"/>\
             <text x=\"{:.1}\" y=\"{}\">{value:.1} {}</text>",
            NAMES - 8.0,
            y + 16.0,
            escape(name),
            y + 3.0,
            ROW - 6.0,
            COLOURS[*colour % COLOURS.len()],
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
