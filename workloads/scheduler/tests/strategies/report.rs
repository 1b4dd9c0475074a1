//! What was measured, as lines, tables and plots.

use std::fmt::Write;
use std::path::Path;

use crate::load::Shape;

/// Least, middle and most of some windows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) min: f64,
    pub(crate) mid: f64,
    pub(crate) max: f64,
}

impl Spread {
    pub(crate) fn of(mut values: Vec<f64>) -> Spread {
        values.sort_by(f64::total_cmp);
        Spread { min: values[0], mid: values[values.len() / 2], max: values[values.len() - 1] }
    }

    /// What is known of the windows.
    pub(crate) fn all(self) -> [f64; 3] {
        [self.min, self.mid, self.max]
    }

    fn thousands(&self) -> String {
        let number =
            |v: f64| if v < 10_000.0 { format!("{:.1}", v / 1000.0) } else { format!("{:.0}", v / 1000.0) };
        format!("{} ({}–{})", number(self.mid), number(self.min), number(self.max))
    }
}

/// One point: edits a second of everybody.
#[derive(Clone, Debug)]
pub(crate) struct Measured {
    pub(crate) shape: Shape,
    pub(crate) tickers: u32,
    /// In one tick.
    pub(crate) edits: u64,
    pub(crate) queue: Spread,
    pub(crate) lock: Spread,
    /// Loops without coordination that keep their chunks as blocks.
    pub(crate) ideal: Spread,
    /// Those that keep them as bytes.
    pub(crate) decoding: Spread,
    pub(crate) watch: Spread,
    /// Lost tries of an optimistic transaction.
    pub(crate) lost: f64,
}

impl Measured {
    pub(crate) fn best(&self) -> Spread {
        if self.lock.mid > self.queue.mid { self.lock } else { self.queue }
    }

    pub(crate) fn best_name(&self) -> &'static str {
        if self.lock.mid > self.queue.mid { "Lock" } else { "Queue" }
    }

    pub(crate) fn vs_ideal(&self) -> f64 {
        self.best().mid / self.ideal.mid
    }

    fn spread(&self) -> String {
        if self.shape.zipf == 0.0 { "uniform".into() } else { format!("Zipf {}", self.shape.zipf) }
    }

    pub(crate) fn line(&self) -> String {
        format!(
            "{} chunks, {} tickers, {} edits a chunk ({}; {} a tick): Queue {}, Lock {}, ideal {}, decoding {}, WATCH {} thousand edits/s; {} / ideal {:.2}, / decoding {:.2}, / WATCH {:.0}, lost tries {:.2}",
            self.shape.chunks(),
            self.tickers,
            self.shape.edits,
            self.spread(),
            self.edits,
            self.queue.thousands(),
            self.lock.thousands(),
            self.ideal.thousands(),
            self.decoding.thousands(),
            self.watch.thousands(),
            self.best_name(),
            self.vs_ideal(),
            self.best().mid / self.decoding.mid,
            self.best().mid / self.watch.mid,
            self.lost,
        )
    }
}

/// Plots: file, title, which points, and what tells them apart.
type Plot = (&'static str, &'static str, fn(&Measured) -> bool, fn(&Measured) -> String);

const PLOTS: [Plot; 4] = [
    (
        "size",
        "World size (2 tickers, 16 edits a chunk, uniform)",
        |m| m.tickers == 2 && m.shape.edits == 16 && m.shape.zipf == 0.0,
        |m| m.shape.chunks().to_string(),
    ),
    (
        "tickers",
        "Tickers (4,225 chunks, 16 edits a chunk, uniform)",
        |m| m.shape.radius == 32 && m.shape.edits == 16 && m.shape.zipf == 0.0,
        |m| m.tickers.to_string(),
    ),
    (
        "edits",
        "Edits a chunk (4,225 chunks, 2 tickers, uniform)",
        |m| m.shape.radius == 32 && m.tickers == 2 && m.shape.zipf == 0.0,
        |m| m.shape.edits.to_string(),
    ),
    (
        "skew",
        "Skew (4,225 chunks, 2 tickers, 16 edits a chunk)",
        |m| m.shape.radius == 32 && m.tickers == 2 && m.shape.edits == 16,
        |m| m.spread(),
    ),
];

const BEGIN: &str = "<!-- measured: begin -->";
const END: &str = "<!-- measured: end -->";

/// Writes the tables into docs/edit-strategies.md, between its marks, and the plots beside it.
pub(crate) fn write(all: &[Measured], cores: usize) {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs");
    let folder = docs.join("edit-strategies");
    std::fs::create_dir_all(&folder).unwrap();
    let mut text =
        format!("{BEGIN}\n\n{cores} cores. Thousand edits a second: middle (least–most) of three windows.\n");
    for (file, title, wanted, label) in PLOTS {
        let mut points: Vec<&Measured> = all.iter().filter(|m| wanted(m)).collect();
        points.sort_by_key(|m| (m.shape.radius, m.tickers, m.shape.edits, (m.shape.zipf * 10.0) as u32));
        let plot = plot(title, &points, label);
        std::fs::write(folder.join(format!("{file}.svg")), plot).unwrap();
        let _ = write!(text, "\n### {title}\n\n![{title}](edit-strategies/{file}.svg)\n");
    }
    text += "\n### All points\n\n";
    text += "| chunks | tickers | edits a chunk | spread | Queue | Lock | no coordination | decoding | WATCH | best ÷ no coordination | ÷ decoding | ÷ WATCH |\n";
    text += "|---|---|---|---|---|---|---|---|---|---|---|---|\n";
    for m in all {
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} | {:.2} ({}) | {:.2} | {:.0} |",
            m.shape.chunks(),
            m.tickers,
            m.shape.edits,
            m.spread(),
            m.queue.thousands(),
            m.lock.thousands(),
            m.ideal.thousands(),
            m.decoding.thousands(),
            m.watch.thousands(),
            m.vs_ideal(),
            m.best_name(),
            m.best().mid / m.decoding.mid,
            m.best().mid / m.watch.mid,
        );
    }
    text += "\n";
    text += END;
    let page = docs.join("edit-strategies.md");
    let old = std::fs::read_to_string(&page).unwrap();
    let (before, rest) = old.split_once(BEGIN).expect("the page has a mark where the measured part begins");
    let (_, after) = rest.split_once(END).expect("and one where it ends");
    std::fs::write(page, format!("{before}{text}{after}")).unwrap();
}

const SERIES: [(&str, &str); 4] =
    [("Queue", "#2a6f97"), ("Lock", "#e07a1f"), ("no coordination", "#7a7a7a"), ("WATCH", "#b23a48")];
const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const BOTTOM: f64 = 270.0;
const TOP: f64 = 50.0;

/// Bars on a logarithmic scale, with the least and the most as a line.
fn plot(title: &str, points: &[&Measured], label: fn(&Measured) -> String) -> String {
    let values = |m: &Measured| [m.queue, m.lock, m.ideal, m.watch];
    let all = || points.iter().flat_map(|m| values(m));
    let low = all().map(|s| s.min).fold(f64::MAX, f64::min).max(1.0).log10().floor();
    let high = all().map(|s| s.max).fold(10.0, f64::max).log10().ceil().max(low + 1.0);
    let y = |v: f64| BOTTOM - (v.max(1.0).log10() - low) / (high - low) * (BOTTOM - TOP);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"white\"/>\n\
         <text x=\"{LEFT}\" y=\"18\" font-size=\"14\">{title}: edits a second</text>\n"
    );
    for (i, (name, colour)) in SERIES.iter().enumerate() {
        let x = LEFT + 130.0 * i as f64;
        let _ = writeln!(
            svg,
            "<rect x=\"{x}\" y=\"26\" width=\"10\" height=\"10\" fill=\"{colour}\"/><text x=\"{}\" y=\"35\">{name}</text>",
            x + 14.0
        );
    }
    for power in low as i32..=high as i32 {
        let (at, text) = (y(10f64.powi(power)), power_of_ten(power));
        let _ = writeln!(
            svg,
            "<line x1=\"{LEFT}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/><text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{text}</text>",
            WIDTH - 10.0,
            LEFT - 6.0,
            at + 4.0
        );
    }
    let group = (WIDTH - LEFT - 10.0) / points.len().max(1) as f64;
    let bar = (group * 0.8 / SERIES.len() as f64).min(40.0);
    for (i, m) in points.iter().enumerate() {
        let left = LEFT + group * i as f64 + (group - bar * SERIES.len() as f64) / 2.0;
        for (j, (spread, (_, colour))) in values(m).iter().zip(SERIES).enumerate() {
            let (x, top) = (left + bar * j as f64, y(spread.mid));
            let centre = x + bar * 0.45;
            let _ = writeln!(
                svg,
                "<rect x=\"{x:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"{colour}\"/><line x1=\"{centre:.1}\" x2=\"{centre:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"black\"/>",
                bar * 0.9,
                BOTTOM - top,
                y(spread.min),
                y(spread.max)
            );
        }
        let _ = writeln!(
            svg,
            "<text x=\"{:.1}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
            LEFT + group * (i as f64 + 0.5),
            BOTTOM + 18.0,
            label(m)
        );
    }
    svg + "</svg>\n"
}

fn power_of_ten(power: i32) -> String {
    match power {
        0..=2 => format!("{}", 10f64.powi(power)),
        3..=5 => format!("{} k", 10f64.powi(power - 3)),
        _ => format!("{} M", 10f64.powi(power - 6)),
    }
}
