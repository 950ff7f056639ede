//! Columns for people. Every cell is escaped here, so no view can forget it.

use super::style::{Paint, Style};
use super::text::escape;

/// A table: a head and rows of as many cells.
pub(crate) struct Table {
    head: Vec<&'static str>,
    rows: Vec<Vec<(String, Paint)>>,
}

impl Table {
    /// An empty table; a head of empty titles is not shown.
    pub(crate) fn new(head: impl Into<Vec<&'static str>>) -> Self {
        Self { head: head.into(), rows: Vec::new() }
    }

    /// Adds a row.
    pub(crate) fn row<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = (S, Paint)>) {
        let row: Vec<_> = cells.into_iter().map(|(text, paint)| (escape(&text.into()), paint)).collect();
        debug_assert_eq!(row.len(), self.head.len());
        self.rows.push(row);
    }

    /// Adds a row without colours.
    pub(crate) fn plain<S: Into<String>>(&mut self, cells: impl IntoIterator<Item = S>) {
        self.row(cells.into_iter().map(|cell| (cell, Paint::None)));
    }

    /// The table as text, two spaces between columns and none at the end of a line.
    pub(crate) fn render(&self, style: Style) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column)).map(|(text, _)| text.chars().count());
            cells.chain(self.head.get(column).map(|title| title.len())).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.head.len()).map(width).collect();
        let mut out = String::new();
        if self.head.iter().any(|title| !title.is_empty()) {
            let head: Vec<_> = self.head.iter().map(|title| ((*title).to_owned(), Paint::Faint)).collect();
            push_row(&mut out, &head, &widths, style);
        }
        for row in &self.rows {
            push_row(&mut out, row, &widths, style);
        }
        out
    }
}

fn push_row(out: &mut String, row: &[(String, Paint)], widths: &[usize], style: Style) {
    // Padding is kept back until something follows it.
    let mut pending = 0;
    for ((text, paint), width) in row.iter().zip(widths) {
        if !text.is_empty() {
            out.extend(std::iter::repeat_n(' ', pending));
            out.push_str(&style.paint(*paint, text));
            pending = 0;
        }
        pending += width - text.chars().count() + 2;
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_hostile_text_is_escaped() {
        let mut table = Table::new(["NAME", "STATE", ""]);
        table.plain(["a\u{1b}[2J", "", "end"]);
        table.row([("äö", Paint::None), ("loaded", Paint::Good), ("", Paint::None)]);
        assert_eq!(table.render(Style::Plain), "NAME        STATE\na\\u{1b}[2J          end\näö          loaded\n");
        assert!(table.render(Style::Color).contains("\u{1b}[32mloaded\u{1b}[0m\n"));
    }

    #[test]
    fn a_table_without_titles_has_no_head() {
        let mut table = Table::new(["", ""]);
        table.plain(["pid", "7\n8"]);
        assert_eq!(table.render(Style::Plain), "pid  7\\n8\n");
    }
}
