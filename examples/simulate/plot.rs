//! Draws the plots.

use std::error::Error;
use std::path::Path;

use plotters::prelude::*;

use crate::Mix;
use crate::dispatch::{CONTENDERS, Contender};
use crate::results::Row;

const SIZE: (u32, u32) = (760, 440);
const LEGEND_WIDTH: i32 = 190;
/// The upper end of the p99 axis; larger values are drawn there.
const HIGHEST: f64 = 200.0;
const LOWEST: f64 = 2.0;
const COLOURS: [RGBColor; 10] = [
    RGBColor(150, 150, 150),
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(148, 103, 189),
    RGBColor(140, 86, 75),
    RGBColor(23, 190, 207),
    RGBColor(214, 39, 40),
    RGBColor(188, 189, 34),
    RGBColor(44, 160, 44),
    RGBColor(0, 80, 0),
];

/// p99 by load, probes every 5 service times.
pub(crate) fn by_load(folder: &Path, mix: Mix, servers: usize, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let rows: Vec<&Row> = rows.iter().filter(|row| is(row.scenario.interval, 5.0)).collect();
    let path = folder.join(format!("{}.svg", mix.label().replace(' ', "-")));
    let title = format!("{}, probes every 5 service times", mix.title(servers));
    draw(&path, &title, "load", 0.5..0.95, &rows, |row| row.scenario.load)
}

/// p99 by probe interval on a logarithmic axis, ten equal servers at load 0.7.
pub(crate) fn by_staleness(folder: &Path, rows: &[Row]) -> Result<(), Box<dyn Error>> {
    let rows: Vec<&Row> =
        rows.iter().filter(|row| row.scenario.mix == Mix::Equal && is(row.scenario.load, 0.7)).collect();
    let title = "Ten equal servers, load 0.7: how the policies age";
    let axis = "log10 of the probe interval in service times";
    draw(&folder.join("staleness.svg"), title, axis, -0.31..1.7, &rows, |row| row.scenario.interval.log10())
}

fn is(value: f64, wanted: f64) -> bool {
    (value - wanted).abs() < f64::EPSILON
}

fn draw(
    path: &Path,
    title: &str,
    axis: &str,
    range: std::ops::Range<f64>,
    rows: &[&Row],
    x: impl Fn(&Row) -> f64,
) -> Result<(), Box<dyn Error>> {
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (left, right) = area.split_horizontally(SIZE.0.cast_signed() - LEGEND_WIDTH);
    let mut chart = ChartBuilder::on(&left)
        .caption(title, ("sans-serif", 17))
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d(range, (LOWEST..HIGHEST).log_scale())?;
    chart
        .configure_mesh()
        .x_desc(axis)
        .y_desc("p99 in service times")
        .light_line_style(TRANSPARENT)
        .draw()?;
    for ((contender, colour), line) in CONTENDERS.into_iter().zip(COLOURS).zip(0..) {
        let points: Vec<(f64, f64)> =
            rows.iter().map(|row| (x(row), row.p99(contender).min(HIGHEST))).collect();
        let style = colour.stroke_width(if is_ours(contender) { 3 } else { 1 });
        chart.draw_series(LineSeries::new(points.iter().copied(), style))?;
        chart.draw_series(points.into_iter().map(|point| Circle::new(point, 3, colour.filled())))?;
        let height = 60 + 20 * line;
        right.draw(&PathElement::new(vec![(4, height), (24, height)], style))?;
        right.draw(&Text::new(contender.label(), (30, height - 6), ("sans-serif", 13)))?;
    }
    area.present()?;
    Ok(())
}

fn is_ours(contender: Contender) -> bool {
    contender == Contender::Ours(fingerpost::internals::policy::PolicyName::Adaptive)
}
