//! Bars of the medians, with a line from the least to the most.

use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::page::figure;
use crate::outcome::Outcome;
use crate::results::Row;

/// Colours that differ in lightness too.
const COLOURS: [RGBColor; 7] = [
    RGBColor(0x1b, 0x4f, 0x9c),
    RGBColor(0xf0, 0x8c, 0x2e),
    RGBColor(0x9a, 0xa5, 0xb1),
    RGBColor(0x2a, 0x9d, 0x76),
    RGBColor(0xc2, 0x4b, 0x5a),
    RGBColor(0x8a, 0x63, 0xb5),
    RGBColor(0xc9, 0xb0, 0x37),
];

type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

type Chart<'a, 'b> = ChartContext<'b, SVGBackend<'a>, Cartesian2d<RangedCoordf64, RangedCoordf64>>;

const HEIGHT: u32 = 360;
const BAR: u32 = 26;
const GAP: u32 = 34;
/// About what a letter of a label takes.
const LETTER: u32 = 6;

/// A plot of one metric of a workload; none if it was not measured.
pub(super) fn bars(rows: &[Row], workload: &str, metric: &str) -> Outcome<Option<String>> {
    let of_plot = |row: &&Row| row.workload == workload && row.metric == metric;
    let rows: Vec<&Row> = rows.iter().filter(of_plot).collect();
    let Some(first) = rows.first() else {
        return Ok(None);
    };
    let contestants = contestants(&rows);
    let title = format!("{workload}: {metric}, {}", first.unit);
    let mut text = String::new();
    draw(&mut text, &rows, &contestants, &title).map_err(|error| error.to_string())?;
    Ok(Some(text + "\n"))
}

/// Ours first, then the others by name.
fn contestants<'a>(rows: &[&'a Row]) -> Vec<&'a str> {
    let mut names: Vec<&str> = rows.iter().map(|row| row.contestant.as_str()).collect();
    names.sort_by_key(|name| (*name != "onceward", *name));
    names.dedup();
    names
}

/// Rows by variant, in the order of the results.
fn groups<'a>(rows: &[&'a Row]) -> Vec<(&'a str, Vec<&'a Row>)> {
    let mut groups: Vec<(&str, Vec<&Row>)> = Vec::new();
    for row in rows {
        match groups
            .iter_mut()
            .find(|(variant, _)| *variant == row.variant)
        {
            Some((_, group)) => group.push(row),
            None => groups.push((&row.variant, vec![row])),
        }
    }
    groups
}

/// What a group takes: its bars or its label, whichever is wider.
fn width(variant: &str, bars: usize) -> u32 {
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    (count(bars) * BAR).max(count(variant.len()) * LETTER)
}

fn draw<'a>(text: &'a mut String, rows: &[&Row], contestants: &[&str], title: &str) -> Drawn<'a> {
    let groups = groups(rows);
    let widths = groups
        .iter()
        .map(|(variant, group)| width(variant, group.len()) + GAP);
    let wide = (widths.sum::<u32>() + GAP).max(480);
    let most = rows.iter().map(|row| row.max).fold(0.0, f64::max);
    let root = SVGBackend::with_string(text, (wide + 90, HEIGHT)).into_drawing_area();
    root.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&root)
        .caption(title, ("sans-serif", 16))
        .margin(10)
        .x_label_area_size(56)
        .y_label_area_size(70)
        .build_cartesian_2d(0.0..f64::from(wide), 0.0..most.max(1e-9) * 1.15)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .disable_x_axis()
        .light_line_style(TRANSPARENT)
        .y_labels(6)
        .y_label_formatter(&|value| figure(*value))
        .draw()?;
    let centred = ("sans-serif", 11).into_font().into_text_style(&root);
    let centred = centred.pos(Pos::new(HPos::Center, VPos::Top));
    let mut left = f64::from(GAP);
    for (variant, group) in &groups {
        let wide = f64::from(width(variant, group.len()));
        let bars = f64::from(width("", group.len()));
        let middle_of_all = left + wide / 2.0;
        let end = left + wide;
        left = middle_of_all - bars / 2.0;
        for (place, contestant) in contestants.iter().enumerate() {
            let colour = COLOURS[place % COLOURS.len()];
            for row in group.iter().filter(|row| row.contestant == *contestant) {
                bar(&mut chart, left, row, colour)?;
                left += f64::from(BAR);
            }
        }
        let at = chart.backend_coord(&(middle_of_all, 0.0));
        root.draw(&Text::new(
            (*variant).to_owned(),
            (at.0, at.1 + 8),
            centred.clone(),
        ))?;
        left = end + f64::from(GAP);
    }
    legend(&root, contestants)?;
    root.present()
}

fn bar<'a>(chart: &mut Chart<'a, '_>, left: f64, row: &Row, colour: RGBColor) -> Drawn<'a> {
    let right = left + f64::from(BAR) - 4.0;
    let middle = left.midpoint(right);
    let median = Rectangle::new([(left, 0.0), (right, row.median)], colour.filled());
    let spread = PathElement::new([(middle, row.min), (middle, row.max)], BLACK);
    chart.draw_series([median])?;
    chart.draw_series([spread])?;
    Ok(())
}

fn legend<'a>(
    root: &DrawingArea<SVGBackend<'a>, plotters::coord::Shift>,
    contestants: &[&str],
) -> Drawn<'a> {
    let style = ("sans-serif", 11).into_font().into_text_style(root);
    let mut left = 80;
    let top = i32::try_from(HEIGHT).unwrap_or(i32::MAX) - 24;
    for (place, contestant) in contestants.iter().enumerate() {
        let colour = COLOURS[place % COLOURS.len()];
        root.draw(&Rectangle::new(
            [(left, top), (left + 10, top + 10)],
            colour.filled(),
        ))?;
        root.draw(&Text::new(
            (*contestant).to_owned(),
            (left + 14, top),
            style.clone(),
        ))?;
        left += 30 + 7 * i32::try_from(contestant.len()).unwrap_or(0);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_metric_that_was_not_measured_has_no_plot() {
        assert_eq!(bars(&[], "W1", "rate").unwrap(), None);
    }
}
