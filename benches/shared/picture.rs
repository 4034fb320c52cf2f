//! A picture of horizontal bars, as SVG: readable on light and on dark pages, because it brings its own ground.

use std::{fmt::Write as _, fs, path::Path};

/// Bars that are compared with each other: the longest one fills the width.
#[derive(Debug)]
pub(crate) struct Panel {
    pub(crate) title: String,
    pub(crate) bars: Vec<PictureBar>,
}

#[derive(Debug)]
pub(crate) struct PictureBar {
    pub(crate) label: String,
    pub(crate) value: f64,
    /// The text behind the bar.
    pub(crate) figure: String,
    /// Set if the bar is this crate's.
    pub(crate) own: bool,
}

const WIDTH: usize = 860;
const LEFT: usize = 270;
/// The length of the longest bar.
const LONGEST: f64 = 400.0;
const LINE: usize = 24;

const STYLE: &str = "\
svg { font: 13px system-ui, -apple-system, 'Segoe UI', 'DejaVu Sans', sans-serif }
.ground { fill: #ffffff; stroke: #d0d7de } .title { fill: #1f2328; font-size: 17px; font-weight: 600 }
.panel { fill: #1f2328; font-weight: 600 } .label { fill: #59636e } .figure { fill: #1f2328 }
.peer { fill: #afb8c1 } .own { fill: #0969da }
@media (prefers-color-scheme: dark) {
.ground { fill: #0d1117; stroke: #3d444d } .title, .panel, .figure { fill: #f0f6fc } .label { fill: #9198a1 }
.peer { fill: #656c76 } .own { fill: #4493f8 }
}";

/// Draws panels below each other, and a line of explanation under the title.
pub(crate) fn draw(title: &str, explained: &str, panels: &[Panel]) -> String {
    let mut body = String::new();
    let mut y = 64;
    for panel in panels.iter().filter(|panel| !panel.bars.is_empty()) {
        y += 22;
        let _ = writeln!(body, "<text class=\"panel\" x=\"24\" y=\"{y}\">{}</text>", escaped(&panel.title));
        y += 10;
        let longest = panel.bars.iter().map(|bar| bar.value).fold(f64::MIN_POSITIVE, f64::max);
        for bar in &panel.bars {
            let length = (bar.value.max(0.0) / longest * LONGEST).max(1.0);
            let class = if bar.own { "own" } else { "peer" };
            let (middle, end) = (y + 16, LEFT as f64 + length + 8.0);
            let _ = writeln!(
                body,
                "<text class=\"label\" x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>\
                 <rect class=\"{class}\" x=\"{LEFT}\" y=\"{}\" width=\"{length:.1}\" height=\"16\" rx=\"2\"/>\
                 <text class=\"figure\" x=\"{end:.1}\" y=\"{middle}\">{}</text>",
                LEFT - 10,
                escaped(&bar.label),
                y + 3,
                escaped(&bar.figure),
            );
            y += LINE;
        }
    }
    let height = y + 20;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
         role=\"img\" aria-label=\"{0}\">\n<style>\n{STYLE}\n</style>\n\
         <rect class=\"ground\" x=\"0.5\" y=\"0.5\" width=\"{1}\" height=\"{2}\" rx=\"8\"/>\n\
         <text class=\"title\" x=\"24\" y=\"36\">{0}</text>\n<text class=\"label\" x=\"24\" y=\"58\">{3}</text>\n{body}</svg>\n",
        escaped(title),
        WIDTH - 1,
        height - 1,
        escaped(explained),
    )
}

/// Writes a picture into the folder of the benches.
pub(crate) fn write(name: &str, picture: &str) -> Result<(), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    fs::write(&file, picture).map_err(|error| format!("{}: {error}", file.display()))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
