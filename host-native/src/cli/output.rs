//! How results are printed.
//!
//! A result is a [`Document`]: something that can be encoded as JSON, and shown as rows. It is printed
//! in one of three formats:
//!
//! | `-o` | for | what |
//! |---|---|---|
//! | `table` | people | columns with headings, then remarks |
//! | `json` | programs | one JSON value a line. The names of its fields are a contract: they stay |
//! | `plain` | shell scripts | the same columns separated by tabs, no headings, no remarks |
//!
//! Results go to stdout, and everything else ([`Output::message`]) to stderr.

use std::fmt;
use std::io::{self, IsTerminal, Write};

use comfy_table::{Cell, CellAlignment, Color, ContentArrangement, Table, presets};
use serde::Serialize;

/// How results are printed.
#[derive(Clone, Copy, Debug, clap::Args)]
#[command(next_help_heading = "Output")]
#[group(skip)]
pub(crate) struct OutputArguments {
    /// How results are printed.
    #[arg(
        id = "output",
        short = 'o',
        long = "output",
        global = true,
        value_name = "FORMAT",
        default_value = "table"
    )]
    pub(crate) format: Format,
}

/// A format of results.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub(crate) enum Format {
    /// For people.
    Table,
    /// For programs: one JSON value a line.
    Json,
    /// For shell scripts: columns separated by tabs, without headings.
    Plain,
}

impl OutputArguments {
    /// With what the environment says.
    pub(crate) fn output(self) -> Output {
        let no_colour = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Output {
            format: self.format,
            colour: !no_colour && io::stdout().is_terminal(),
            colour_messages: !no_colour && io::stderr().is_terminal(),
        }
    }
}

/// A result.
pub(crate) trait Document: Serialize {
    /// As rows.
    fn sheet(&self) -> Sheet;
}

/// How good what a cell shows is. On a terminal it has a colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tone {
    /// Nothing special.
    Plain,
    /// As it should be.
    Good,
    /// Somebody should look.
    Warning,
    /// Broken.
    Bad,
}

/// Rows, for people and for shell scripts.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sheet {
    headings: Vec<&'static str>,
    numeric: Vec<bool>,
    rows: Vec<Vec<(String, Tone)>>,
    remarks: Vec<String>,
    empty: Option<String>,
}

impl Sheet {
    /// Without rows. A heading that begins with `#` is one of numbers, which stand to the right.
    pub(crate) fn new(headings: &[&'static str]) -> Self {
        let numeric = headings.iter().map(|heading| heading.starts_with('#')).collect();
        let headings = headings.iter().map(|heading| heading.trim_start_matches('#')).collect();
        Self { headings, numeric, ..Self::default() }
    }

    /// Adds a row, with as many cells as there are headings.
    pub(crate) fn row<const N: usize>(&mut self, cells: [String; N]) {
        self.toned(cells.into_iter().map(|cell| (cell, Tone::Plain)).collect());
    }

    /// Adds a row of which some cells are better than others.
    pub(crate) fn toned(&mut self, cells: Vec<(String, Tone)>) {
        debug_assert_eq!(cells.len(), self.headings.len());
        self.rows.push(cells);
    }

    /// Adds a line below the table, which only people see.
    pub(crate) fn remark(&mut self, text: impl fmt::Display) {
        self.remarks.push(text.to_string());
    }

    /// What people see when there are no rows.
    pub(crate) fn when_empty(&mut self, text: impl fmt::Display) {
        self.empty = Some(text.to_string());
    }

    fn plain(&self) -> String {
        let line = |row: &Vec<(String, Tone)>| {
            let cells: Vec<_> = row.iter().map(|(cell, _)| one_line(cell)).collect();
            cells.join("\t") + "\n"
        };
        self.rows.iter().map(line).collect()
    }

    fn table(&self, colour: bool) -> String {
        let mut text = String::new();
        if self.rows.is_empty()
            && let Some(empty) = &self.empty
        {
            text += empty;
            text.push('\n');
        } else if !self.headings.is_empty() {
            text += &self.grid(colour);
        }
        for remark in &self.remarks {
            text += remark;
            text.push('\n');
        }
        text
    }

    fn grid(&self, colour: bool) -> String {
        let mut table = Table::new();
        table.load_style(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
        table.set_header(self.headings.iter().map(|heading| heading.to_uppercase()));
        for row in &self.rows {
            table.add_row(row.iter().map(|(text, tone)| cell(text, *tone, colour)));
        }
        if colour {
            table.enforce_styling();
        } else {
            table.force_no_tty();
        }
        for (column, numeric) in table.column_iter_mut().zip(&self.numeric) {
            column.set_padding((0, 2));
            if *numeric {
                column.set_cell_alignment(CellAlignment::Right);
            }
        }
        let mut text = String::new();
        for line in table.lines() {
            text += line.trim_end();
            text.push('\n');
        }
        text
    }
}

fn cell(text: &str, tone: Tone, colour: bool) -> Cell {
    let cell = Cell::new(one_line(text));
    match tone {
        _ if !colour => cell,
        Tone::Plain => cell,
        Tone::Good => cell.fg(Color::Green),
        Tone::Warning => cell.fg(Color::Yellow),
        Tone::Bad => cell.fg(Color::Red),
    }
}

/// Names and labels come from others: what could move the cursor, or begin a new row, is escaped.
pub(crate) fn one_line(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for c in text.chars() {
        if c.is_control() {
            shown.extend(c.escape_default());
        } else {
            shown.push(c);
        }
    }
    shown
}

fn paint(tone: Tone, text: &str, colour: bool) -> String {
    let code = match tone {
        Tone::Plain => return text.to_owned(),
        Tone::Good => 32,
        Tone::Warning => 33,
        Tone::Bad => 31,
    };
    if colour { format!("\x1b[1;{code}m{text}\x1b[0m") } else { text.to_owned() }
}

/// Where and how results are printed.
#[derive(Clone, Debug)]
pub(crate) struct Output {
    pub(crate) format: Format,
    colour: bool,
    colour_messages: bool,
}

impl Output {
    /// Prints a result.
    ///
    /// # Errors
    /// stdout cannot be written to. `?` turns that into the right
    /// [`Failure`](super::exit::Failure).
    pub(crate) fn print(&self, document: &impl Document) -> io::Result<()> {
        let text = self.text(document)?;
        self.raw(text.as_bytes())
    }

    /// What [`Output::print`] prints.
    pub(crate) fn text(&self, document: &impl Document) -> io::Result<String> {
        Ok(match self.format {
            Format::Table => document.sheet().table(self.colour),
            Format::Json => serde_json::to_string(document)? + "\n",
            Format::Plain => document.sheet().plain(),
        })
    }

    /// Prints bytes as they are.
    ///
    /// # Errors
    /// stdout cannot be written to.
    #[expect(clippy::unused_self, reason = "what is printed is printed by this")]
    pub(crate) fn raw(&self, bytes: &[u8]) -> io::Result<()> {
        let mut stdout = io::stdout().lock();
        stdout.write_all(bytes)?;
        stdout.flush()
    }

    /// Prints a line for people among the results: whatever the format, it is for stdout.
    ///
    /// # Errors
    /// stdout cannot be written to.
    pub(crate) fn line(&self, text: impl fmt::Display) -> io::Result<()> {
        self.raw(format!("{text}\n").as_bytes())
    }

    /// Says something to the person on stderr. If that cannot be written, there is nobody to tell.
    #[expect(clippy::unused_self, reason = "what is printed is printed by this")]
    pub(crate) fn message(&self, label: &str, text: &str) {
        let separator = if label.is_empty() { "" } else { " " };
        drop(io::stderr().write_all(format!("{label}{separator}{text}\n").as_bytes()));
    }

    /// Says something on stderr, without a label.
    pub(crate) fn note(&self, text: impl fmt::Display) {
        self.message("", &text.to_string());
    }

    /// Says on stderr that something needs attention.
    pub(crate) fn warn(&self, text: impl fmt::Display) {
        self.message(&paint(Tone::Warning, "warning:", self.colour_messages), &text.to_string());
    }

    /// A label in the colour of errors, for stderr.
    pub(crate) fn paint_error(&self, label: &str) -> String {
        paint(Tone::Bad, label, self.colour_messages)
    }

    /// A text in the colour of its tone, for stdout.
    pub(crate) fn painted(&self, tone: Tone, text: &str) -> String {
        paint(tone, text, self.colour && self.format == Format::Table)
    }

    /// Whether results go to a terminal, for people: then something may be refreshed in place.
    pub(crate) fn is_live(&self) -> bool {
        self.format == Format::Table && io::stdout().is_terminal()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Fruit {
        name: &'static str,
        weight: u32,
    }

    #[derive(Serialize)]
    struct Fruits {
        fruits: Vec<Fruit>,
    }

    impl Document for Fruits {
        fn sheet(&self) -> Sheet {
            let mut sheet = Sheet::new(&["name", "#weight"]);
            for fruit in &self.fruits {
                sheet.toned(vec![
                    (fruit.name.to_owned(), Tone::Good),
                    (fruit.weight.to_string(), Tone::Plain),
                ]);
            }
            sheet.when_empty("no fruits");
            sheet.remark("That is all.");
            sheet
        }
    }

    fn fruits() -> Fruits {
        Fruits {
            fruits: vec![
                Fruit { name: "a\tpple\n", weight: 7 },
                Fruit { name: "fig", weight: 120 },
            ],
        }
    }

    fn output(format: Format, colour: bool) -> Output {
        Output { format, colour, colour_messages: colour }
    }

    #[test]
    fn as_a_table() {
        let text = output(Format::Table, false).text(&fruits()).expect("it can be shown");
        assert_eq!(
            text,
            "NAME       WEIGHT\na\\tpple\\n       7\nfig           120\nThat is all.\n"
        );
        let none = Fruits { fruits: Vec::new() };
        let text = output(Format::Table, false).text(&none).expect("it can be shown");
        assert_eq!(text, "no fruits\nThat is all.\n");
    }

    #[test]
    fn colours_only_where_they_are_wanted() {
        let text = output(Format::Table, true).text(&fruits()).expect("it can be shown");
        assert!(text.contains("\x1b["), "{text:?}");
        for format in [Format::Json, Format::Plain] {
            let text = output(format, true).text(&fruits()).expect("it can be shown");
            assert!(!text.contains('\x1b'), "{text:?}");
        }
    }

    #[test]
    fn for_scripts() {
        let text = output(Format::Plain, false).text(&fruits()).expect("it can be shown");
        assert_eq!(text, "a\\tpple\\n\t7\nfig\t120\n");
    }

    #[test]
    fn for_programs() {
        let text = output(Format::Json, false).text(&fruits()).expect("it can be shown");
        let expected = "{\"fruits\":[{\"name\":\"a\\tpple\\n\",\"weight\":7},{\"name\":\"fig\",\"weight\":120}]}\n";
        assert_eq!(text, expected);
    }
}
