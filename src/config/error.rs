//! Errors of a configuration document, and the collector that every reader reports to.
//!
//! A reader reports and goes on, so that an operator sees all mistakes at once. What is kept is
//! bounded; the rest is only counted.

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

/// Errors kept of one document; further ones are counted.
pub const MAX_ERRORS: usize = 100;

/// Longest piece of the document that a message quotes, in characters.
const MAX_QUOTE: usize = 60;

/// A place in the document, both counted from 1; columns count characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    pub line: usize,
    pub column: usize,
}

/// One mistake, and where it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    pub file: Arc<str>,
    /// `None`: the file as a whole, e.g. it cannot be read.
    pub position: Option<Position>,
    /// Path of the field, e.g. `service "web": backend 2: address`. Empty: none applies.
    pub field: String,
    /// What was found and what was expected.
    pub message: String,
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file)?;
        if let Some(Position { line, column }) = self.position {
            write!(f, "{line}:{column}:")?;
        }
        if !self.field.is_empty() {
            write!(f, " {}:", self.field)?;
        }
        write!(f, " {}", self.message)
    }
}

/// Every mistake found in a document, in document order. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errors {
    list: Vec<ConfigError>,
    omitted: usize,
}

impl Errors {
    /// A mistake of the file as a whole.
    pub(super) fn of_file(file: &str, message: String) -> Self {
        Self::single(file, None, message)
    }

    pub(super) fn single(file: &str, position: Option<Position>, message: String) -> Self {
        let error = ConfigError { file: file.into(), position, field: String::new(), message };
        Self { list: vec![error], omitted: 0 }
    }

    /// The errors kept, at most [`MAX_ERRORS`].
    pub fn iter(&self) -> impl Iterator<Item = &ConfigError> {
        self.list.iter()
    }

    /// How many more were found.
    pub fn omitted(&self) -> usize {
        self.omitted
    }
}

/// One error per line, without a trailing newline.
impl fmt::Display for Errors {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, error) in self.list.iter().enumerate() {
            if index > 0 {
                writeln!(f)?;
            }
            write!(f, "{error}")?;
        }
        if self.omitted > 0 {
            write!(f, "\nand {} more errors", self.omitted)?;
        }
        Ok(())
    }
}

impl std::error::Error for Errors {}

/// Collects what the readers of one document find wrong.
#[derive(Debug)]
pub(super) struct Report<'t> {
    file: &'t str,
    text: &'t str,
    found: RefCell<Found>,
}

#[derive(Debug, Default)]
struct Found {
    kept: Vec<(usize, String, String)>,
    total: usize,
}

impl<'t> Report<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, found: RefCell::default() }
    }

    /// Notes a mistake at byte offset `at`.
    pub(super) fn error(&self, at: usize, field: &str, message: String) {
        let mut found = self.found.borrow_mut();
        found.total += 1;
        if found.kept.len() < MAX_ERRORS {
            found.kept.push((at, field.to_owned(), message));
        }
    }

    /// Nothing more is kept: a message need not be worked out, only counted.
    pub(super) fn is_full(&self) -> bool {
        self.found.borrow().kept.len() >= MAX_ERRORS
    }

    /// Mistakes so far. Unchanged across a section means that the section is sound, and that
    /// checks which build on it say something true.
    pub(super) fn count(&self) -> usize {
        self.found.borrow().total
    }

    pub(super) fn finish(self) -> Result<(), Errors> {
        let Found { mut kept, total } = self.found.into_inner();
        if kept.is_empty() {
            return Ok(());
        }
        kept.sort();
        let omitted = total - kept.len();
        let file: Arc<str> = self.file.into();
        let mut locator = Locator::new(self.text);
        let list = kept
            .into_iter()
            .map(|(at, field, message)| ConfigError {
                file: Arc::clone(&file),
                position: Some(locator.locate(at)),
                field,
                message,
            })
            .collect();
        Err(Errors { list, omitted })
    }
}

/// Turns ascending byte offsets into positions, in one pass over the text.
#[derive(Debug)]
pub(super) struct Locator<'t> {
    text: &'t str,
    offset: usize,
    at: Position,
}

impl<'t> Locator<'t> {
    pub(super) fn new(text: &'t str) -> Self {
        Self { text, offset: 0, at: Position { line: 1, column: 1 } }
    }

    /// Offsets must not descend from call to call; past the end means the end.
    pub(super) fn locate(&mut self, offset: usize) -> Position {
        for c in self.text.get(self.offset..).unwrap_or_default().chars() {
            if self.offset >= offset {
                break;
            }
            self.offset += c.len_utf8();
            if c == '\n' {
                self.at = Position { line: self.at.line + 1, column: 1 };
            } else {
                self.at.column += 1;
            }
        }
        self.at
    }
}

/// `text` in quotes for a message: control characters escaped, long text cut.
pub(super) fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    let mut chars = text.chars();
    for c in chars.by_ref().take(MAX_QUOTE) {
        match c {
            '"' => quoted.push('"'),
            c => quoted.extend(c.escape_debug()),
        }
    }
    if chars.next().is_some() {
        quoted.push('…');
    }
    quoted.push('"');
    quoted
}
