//! The last 15 minutes of one figure, as a small graph. Pure.

use std::collections::VecDeque;
use std::fmt::Write as _;

/// The number of points of a graph.
pub(super) const POINTS: usize = 60;

/// The number of ticks between two points.
pub(super) const TICKS: u64 = 15;

/// The height of a graph in its own unit.
const HEIGHT: f64 = 16.0;

/// The last points of a figure, oldest first; `None` while the figure was not known.
#[derive(Debug, Clone, Default)]
pub(super) struct Trend(VecDeque<Option<f32>>);

impl Trend {
    pub(super) fn push(&mut self, value: Option<f64>) {
        self.0.push_back(value.map(|value| value as f32));
        while self.0.len() > POINTS {
            self.0.pop_front();
        }
    }

    /// The known points of the last `count` ones, oldest first.
    pub(super) fn latest(&self, count: usize) -> impl DoubleEndedIterator<Item = f64> {
        self.0.iter().skip(self.0.len().saturating_sub(count)).flatten().map(|value| f64::from(*value))
    }

    /// The graph as SVG, with zero at the bottom and the largest value at the top. `name` and `unit` are HTML.
    pub(super) fn svg(&self, name: &str, unit: &str) -> String {
        let known = || self.latest(POINTS);
        let (least, most) = known()
            .fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
        if most < least {
            return String::new();
        }
        let scale = if most > 0.0 { (HEIGHT - 2.0) / most } else { 0.0 };
        let height =
            |value: &Option<f32>| value.map(|value| (HEIGHT - 1.0 - f64::from(value) * scale).round() as u32);
        let heights: Vec<Option<u32>> = self.0.iter().map(height).collect();
        let (mut path, mut command) = (String::new(), 'M');
        for (at, height) in heights.iter().enumerate() {
            let neighbours = [at.wrapping_sub(1), at + 1].map(|at| heights.get(at).copied());
            match height {
                None => command = 'M',
                // A point between two equal ones adds nothing to a line.
                Some(_) if neighbours == [Some(*height); 2] => {}
                Some(height) => {
                    // Writing to a string cannot fail.
                    let _ = write!(path, "{command}{} {height}", POINTS - heights.len() + at);
                    command = 'L';
                }
            }
        }
        // A line of one point is visible only with a length.
        path.push_str("h.1");
        let (least, most) = (figure(least), figure(most));
        format!(
            "<svg class=\"trend\" viewBox=\"0 0 {POINTS} {HEIGHT}\" preserveAspectRatio=\"none\" role=\"img\" \
             aria-label=\"{name}, 15 minutes: {least} to {most}{unit}\"><path d=\"{path}\"/></svg>"
        )
    }
}

/// A figure with about two significant digits.
pub(super) fn figure(value: f64) -> String {
    if value < 0.05 {
        "0".to_owned()
    } else if value < 10.0 {
        format!("{value:.1}")
    } else {
        format!("{value:.0}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_graph_has_the_last_points_and_gaps() {
        let mut trend = Trend::default();
        assert_eq!(trend.svg("Load", ""), "");
        for value in
            [Some(7.0); POINTS].into_iter().chain([Some(0.0), None, Some(14.0), Some(14.0), Some(14.0)])
        {
            trend.push(value);
        }
        assert_eq!(trend.latest(usize::MAX).count(), POINTS - 1);
        let svg = trend.svg("Load", " ms");
        assert!(svg.contains("d=\"M0 8L54 8L55 15M57 1L59 1h.1\""), "{svg}");
        assert!(svg.contains("aria-label=\"Load, 15 minutes: 0 to 14 ms\""), "{svg}");
    }
}
