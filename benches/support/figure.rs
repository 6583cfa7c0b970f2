//! Pictures of measured numbers: horizontal bars in groups, as SVG. Colours are of middle brightness, so
//! that a picture can be read on a white and on a black page.

#![allow(dead_code, reason = "each program draws its own picture")]

use std::fmt::Write as _;
use std::io;

const GREY: &str = "#7d8590";
const COLOURS: [&str; 4] = ["#2f81f7", "#db6d28", "#a371f7", "#3fb950"];
const LEFT: f64 = 250.0;
const WIDTH: f64 = 420.0;
const RIGHT: f64 = 110.0;
const BAR: f64 = 11.0;

/// A line of the picture: its name, and for each series a value and how it is written, or nothing.
pub struct Row {
    pub name: String,
    pub bars: Vec<Option<(f64, String)>>,
}

/// What is drawn.
pub struct Figure<'a> {
    pub title: &'a str,
    pub below: &'a str,
    pub series: &'a [&'a str],
    pub rows: Vec<Row>,
    /// Values at which a line goes through all rows.
    pub lines: &'a [(f64, &'a str)],
    /// Bars that are longer are cut, and say so by an arrow.
    pub most: f64,
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}

impl Figure<'_> {
    fn svg(&self) -> String {
        let height_of = |row: &Row| BAR * row.bars.iter().flatten().count() as f64 + 9.0;
        let rows: f64 = self.rows.iter().map(height_of).sum();
        let (top, width) = (66.0, LEFT + WIDTH + RIGHT);
        let height = top + rows + 34.0;
        let scale = WIDTH / self.most;
        let mut out = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height:.0}\" \
             width=\"{width}\" height=\"{height:.0}\" font-family=\"system-ui, sans-serif\" \
             font-size=\"11\" fill=\"{GREY}\">\n<title>{}</title>\n",
            escape(self.title)
        );
        let mut text = |x: f64, y: f64, more: &str, content: &str| {
            let content = escape(content);
            let _ = writeln!(
                out,
                "<text x=\"{x:.1}\" y=\"{y:.1}\"{more}>{content}</text>"
            );
        };
        text(
            8.0,
            20.0,
            " font-size=\"14\" font-weight=\"600\"",
            self.title,
        );
        let mut x = 8.0;
        for (name, colour) in self.series.iter().zip(COLOURS) {
            text(
                x,
                40.0,
                &format!(" fill=\"{colour}\" font-weight=\"600\""),
                name,
            );
            x += 7.0 * name.len() as f64 + 18.0;
        }
        text(8.0, height - 10.0, " font-size=\"10\"", self.below);
        let mut y = top;
        let mut shapes = String::new();
        for row in &self.rows {
            let middle = y + (height_of(row) - 9.0) / 2.0 + 4.0;
            text(LEFT - 8.0, middle, " text-anchor=\"end\"", &row.name);
            for (bar, colour) in row.bars.iter().zip(COLOURS) {
                let Some((value, label)) = bar else { continue };
                let length = value.min(self.most) * scale;
                let cut = if *value > self.most { " →" } else { "" };
                let _ = writeln!(
                    shapes,
                    "<rect x=\"{LEFT}\" y=\"{y:.1}\" width=\"{length:.1}\" height=\"{:.1}\" \
                     rx=\"1.5\" fill=\"{colour}\"/>",
                    BAR - 2.0
                );
                let label = format!("{label}{cut}");
                text(LEFT + length + 5.0, y + 8.5, " font-size=\"10\"", &label);
                y += BAR;
            }
            y += 9.0;
        }
        for (value, name) in self.lines {
            let x = LEFT + value * scale;
            let _ = writeln!(
                shapes,
                "<line x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{:.1}\" y2=\"{:.1}\" stroke=\"{GREY}\" \
                 stroke-dasharray=\"3 3\"/>",
                top - 6.0,
                top + rows - 6.0
            );
            text(
                x,
                top - 10.0,
                " font-size=\"10\" text-anchor=\"middle\"",
                name,
            );
        }
        out.push_str(&shapes);
        out.push_str("</svg>\n");
        out
    }

    /// Writes the picture; `path` is from the repository's root.
    pub fn write(&self, path: &str) -> io::Result<()> {
        std::fs::write(path, self.svg())?;
        println!("drawn: {path}");
        Ok(())
    }
}
