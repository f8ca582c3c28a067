//! Columns under a head, and colours.

use console::{Style, measure_text_width};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    Plain,
    Coloured,
}

impl Paint {
    pub(crate) fn good(self, text: &str) -> String {
        self.with(Style::new().green(), text)
    }

    pub(crate) fn warn(self, text: &str) -> String {
        self.with(Style::new().yellow(), text)
    }

    pub(crate) fn bad(self, text: &str) -> String {
        self.with(Style::new().red().bold(), text)
    }

    pub(crate) fn head(self, text: &str) -> String {
        self.with(Style::new().bold(), text)
    }

    fn with(self, style: Style, text: &str) -> String {
        match self {
            Self::Plain => text.to_owned(),
            Self::Coloured => style.force_styling(true).apply_to(text).to_string(),
        }
    }
}

#[derive(Debug)]
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<String>>,
}

impl Table {
    pub(crate) fn new(head: &[&'static str]) -> Self {
        Self { head: head.to_vec(), rows: Vec::new() }
    }

    pub(crate) fn without_head() -> Self {
        Self::new(&[])
    }

    pub(crate) fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// Drops the columns in which no row says anything.
    pub(crate) fn without_silent_columns(mut self) -> Self {
        let says = |column: usize| {
            self.rows.iter().filter_map(|row| row.get(column)).any(|cell| !matches!(cell.as_str(), "" | "-"))
        };
        let kept: Vec<usize> = (0..self.head.len()).filter(|column| says(*column)).collect();
        self.head = kept.iter().map(|column| self.head[*column]).collect();
        for row in &mut self.rows {
            *row = kept.iter().filter_map(|column| row.get(*column).cloned()).collect();
        }
        self
    }

    pub(crate) fn lines(&self, indent: &str, paint: Paint) -> Vec<String> {
        let widths = self.widths();
        let head = self.head.iter().map(|text| paint.head(text)).collect::<Vec<_>>();
        let head = (!head.is_empty()).then_some(&head);
        head.into_iter().chain(&self.rows).map(|row| line(indent, row, &widths)).collect()
    }

    fn widths(&self) -> Vec<usize> {
        let columns = self.rows.iter().map(Vec::len).max().unwrap_or(0).max(self.head.len());
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|cell| measure_text_width(cell));
            cells.chain(self.head.get(column).map(|head| head.len())).max().unwrap_or(0)
        };
        (0..columns).map(width).collect()
    }
}

fn line(indent: &str, row: &[String], widths: &[usize]) -> String {
    let mut line = indent.to_owned();
    for (cell, width) in row.iter().zip(widths) {
        line.push_str(cell);
        line.push_str(&" ".repeat(width.saturating_sub(measure_text_width(cell)) + 2));
    }
    line.trim_end().to_owned()
}
