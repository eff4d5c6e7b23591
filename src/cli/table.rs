//! Tables for people: aligned, coloured where that helps, and readable on a narrow terminal.
//!
//! Our own rather than a crate's: no frames, columns that vanish when nobody has anything to say in
//! them, sentences that move below their row where there is no room, in a page of code.

use std::io::IsTerminal;

/// Colour of a cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tone {
    Plain,
    Good,
    Bad,
    Warning,
    Faint,
    Strong,
}

/// How to write: what the terminal can do.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Style {
    pub colour: bool,
    /// Columns; `None`: not a terminal, lines may be of any length.
    pub width: Option<usize>,
}

impl Style {
    /// For standard output: colour on a terminal unless `NO_COLOR` is set (and not empty).
    pub fn of_stdout() -> Self {
        let stdout = std::io::stdout();
        let terminal = stdout.is_terminal();
        let plain = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colour: terminal && !plain,
            width: terminal
                .then(|| rustix::termios::tcgetwinsize(&stdout).ok())
                .flatten()
                .map(|size| usize::from(size.ws_col))
                .filter(|width| *width > 0),
        }
    }

    pub fn paint(self, tone: Tone, text: &str) -> String {
        let code = match tone {
            Tone::Plain => return text.to_owned(),
            Tone::Good => "32",
            Tone::Bad => "31",
            Tone::Warning => "33",
            Tone::Faint => "2",
            Tone::Strong => "1",
        };
        if self.colour && !text.is_empty() {
            format!("\x1b[{code}m{text}\x1b[0m")
        } else {
            text.to_owned()
        }
    }
}

/// Text without what would move the cursor: messages come from peers and configuration.
pub fn printable(text: &str) -> String {
    let visible = |c: char| if c.is_control() { '\u{fffd}' } else { c };
    text.chars().map(visible).collect()
}

#[derive(Debug, Clone)]
struct Cell {
    text: String,
    tone: Tone,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Align {
    Left,
    Right,
}

#[derive(Debug, Clone)]
struct Column {
    title: &'static str,
    align: Align,
    prose: bool,
}

/// A table under construction: columns first, then rows of as many cells.
#[derive(Debug, Default)]
pub struct Table {
    columns: Vec<Column>,
    rows: Vec<Vec<Cell>>,
}

/// Spaces between columns.
const GAP: usize = 2;

impl Table {
    /// A column of words.
    pub fn text(mut self, title: &'static str) -> Self {
        self.push(title, Align::Left, false);
        self
    }

    /// A column of quantities.
    pub fn number(mut self, title: &'static str) -> Self {
        self.push(title, Align::Right, false);
        self
    }

    /// A column of sentences. They move below their row where the terminal is too narrow.
    pub fn prose(mut self, title: &'static str) -> Self {
        self.push(title, Align::Left, true);
        self
    }

    fn push(&mut self, title: &'static str, align: Align, prose: bool) {
        self.columns.push(Column { title, align, prose });
    }

    /// Begin a row.
    pub fn row(&mut self) -> Row<'_> {
        self.rows.push(Vec::with_capacity(self.columns.len()));
        Row { table: self }
    }

    /// The lines, each ended by a newline. Columns without any text are left out, and so is the
    /// space behind the last word of a line. If the lines would not fit the terminal, prose moves
    /// to lines of its own: it is what an operator came for, so it is never cut.
    pub fn render(&self, style: Style) -> String {
        let mut used: Vec<usize> = (0..self.columns.len())
            .filter(|index| self.cells(*index).any(|cell| !cell.text.is_empty()))
            .collect();
        let mut below = Vec::new();
        if self.width(&used) > style.width.unwrap_or(usize::MAX) {
            (below, used) = used.into_iter().partition(|index| self.columns[*index].prose);
        }
        let widths: Vec<usize> = used.iter().map(|index| self.column_width(*index)).collect();
        let mut out = String::new();
        let titles = used
            .iter()
            .map(|index| Cell { text: self.columns[*index].title.to_owned(), tone: Tone::Faint });
        self.line(&mut out, &used, &widths, titles, style);
        for row in &self.rows {
            let cells = used.iter().map(|index| cell_of(row, *index));
            self.line(&mut out, &used, &widths, cells, style);
            for index in &below {
                let cell = cell_of(row, *index);
                if !cell.text.is_empty() {
                    let title = style.paint(Tone::Faint, self.columns[*index].title);
                    let text = style.paint(cell.tone, &cell.text);
                    out.extend(["    ", &title, ": ", &text, "\n"]);
                }
            }
        }
        out
    }

    fn cells(&self, column: usize) -> impl Iterator<Item = &Cell> {
        self.rows.iter().filter_map(move |row| row.get(column))
    }

    fn column_width(&self, column: usize) -> usize {
        let widest = self.cells(column).map(|cell| length(&cell.text)).max();
        widest.unwrap_or(0).max(length(self.columns[column].title))
    }

    /// Of the longest line.
    fn width(&self, used: &[usize]) -> usize {
        let words: usize = used.iter().map(|index| self.column_width(*index)).sum();
        words + GAP * used.len().saturating_sub(1)
    }

    fn line(
        &self,
        out: &mut String,
        used: &[usize],
        widths: &[usize],
        cells: impl Iterator<Item = Cell>,
        style: Style,
    ) {
        // Spaces are owed until a word comes, so that none stand at the end of a line.
        let mut owed = 0;
        for ((cell, index), width) in cells.zip(used).zip(widths) {
            let text = &cell.text;
            let pad = width.saturating_sub(length(text));
            let (before, after) = match self.columns[*index].align {
                Align::Left => (0, pad),
                Align::Right => (pad, 0),
            };
            owed += before;
            if !text.is_empty() {
                out.extend(std::iter::repeat_n(' ', owed));
                out.push_str(&style.paint(cell.tone, text));
                owed = 0;
            }
            owed += after + GAP;
        }
        out.push('\n');
    }
}

/// A row under construction.
#[derive(Debug)]
pub struct Row<'a> {
    table: &'a mut Table,
}

impl Row<'_> {
    pub fn cell(self, text: impl AsRef<str>) -> Self {
        self.toned(Tone::Plain, text)
    }

    pub fn toned(self, tone: Tone, text: impl AsRef<str>) -> Self {
        if let Some(row) = self.table.rows.last_mut() {
            row.push(Cell { text: printable(text.as_ref()), tone });
        }
        self
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// The text of a row in a column; a row may end early.
fn cell_of(row: &[Cell], column: usize) -> Cell {
    row.get(column).cloned().unwrap_or(Cell { text: String::new(), tone: Tone::Plain })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Table {
        let mut table = Table::default().text("NAME").number("COUNT").text("NOTE").prose("WHY");
        table.row().toned(Tone::Good, "a").cell("1").cell("").cell("because it is so");
        table.row().cell("longer").cell("1,000").cell("").cell("");
        table
    }

    #[test]
    fn columns_align_and_empty_ones_vanish() {
        assert_eq!(
            sample().render(Style::default()),
            "NAME    COUNT  WHY\n\
             a           1  because it is so\n\
             longer  1,000\n"
        );
    }

    #[test]
    fn prose_moves_below_its_row_where_the_terminal_is_too_narrow() {
        let at = |width| sample().render(Style { colour: false, width: Some(width) });
        let wide = sample().render(Style::default());
        assert_eq!(at(31), wide, "the longest line just fits");
        assert_eq!(
            at(30),
            "NAME    COUNT\n\
             a           1\n    \
                 WHY: because it is so\n\
             longer  1,000\n"
        );
    }

    #[test]
    fn colour_does_not_shift_columns_and_escapes_do_not_pass() {
        let mut table = sample();
        table.row().cell("\x1b[2Jx\n").cell("0");
        let plain = table.render(Style::default());
        let coloured = table.render(Style { colour: true, width: None });
        assert!(plain.contains("\u{fffd}[2Jx\u{fffd}"), "{plain}");
        let mut stripped = coloured;
        for code in ["\x1b[32m", "\x1b[2m", "\x1b[0m"] {
            stripped = stripped.replace(code, "");
        }
        assert_eq!(stripped, plain);
    }
}
