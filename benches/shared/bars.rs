//! The bars: ratios and counts that this crate has to reach, each with the figure of this run.

use std::{
    fmt,
    ops::{Bound, RangeBounds},
};

/// The bars of a bench.
#[derive(Debug, Default)]
pub(crate) struct Bars(Vec<Bar>);

#[derive(Debug)]
struct Bar {
    what: &'static str,
    bounds: (Bound<f64>, Bound<f64>),
    /// `None` if its rows were not measured.
    figure: Option<f64>,
    /// Set if it compares with an older build, and none is named.
    lacks_older_build: bool,
}

impl Bars {
    /// Adds a bar: `..=0.4` for a figure that is to be 0.4 at most.
    pub(crate) fn add(&mut self, what: &'static str, range: impl RangeBounds<f64>, figure: Option<f64>) {
        self.push(what, range, figure, false);
    }

    /// Adds a bar that compares with an older build, where none is named.
    pub(crate) fn add_without_older_build(&mut self, what: &'static str, range: impl RangeBounds<f64>) {
        self.push(what, range, None, true);
    }

    fn push(&mut self, what: &'static str, range: impl RangeBounds<f64>, figure: Option<f64>, lacks_older_build: bool) {
        let bounds = (range.start_bound().cloned(), range.end_bound().cloned());
        self.0.push(Bar { what, bounds, figure, lacks_older_build });
    }

    /// Returns whether one is missed. A figure that was not measured misses its bar, unless it needs an older build and none is
    /// named.
    pub(crate) fn missed(&self) -> bool {
        self.0.iter().any(|bar| match bar.figure {
            Some(figure) => !bar.bounds.contains(&figure),
            None => !bar.lacks_older_build,
        })
    }
}

impl fmt::Display for Bars {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "| bar | | this run | |\n|---|---|---|---|")?;
        for bar in &self.0 {
            let bound = match bar.bounds {
                (Bound::Included(least), _) => format!("≥ {least}"),
                (_, Bound::Included(most)) => format!("≤ {most}"),
                _ => String::new(),
            };
            let (figure, word) = match bar.figure {
                Some(figure) if bar.bounds.contains(&figure) => (rounded(figure), "met"),
                Some(figure) => (rounded(figure), "**missed**"),
                None => ("–".into(), "not measured"),
            };
            writeln!(f, "| {} | {bound} | {figure} | {word} |", bar.what)?;
        }
        Ok(())
    }
}

fn rounded(figure: f64) -> String {
    if figure.fract() == 0.0 { format!("{figure}") } else { format!("{figure:.2}") }
}
