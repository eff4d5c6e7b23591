//! Typed access to the tables and values of a parsed TOML document.
//!
//! A [`Table`] knows which keys it may hold and reports the others. A [`Field`] turns one value
//! into a type, or reports where it stands, what was found and what was expected, and gives
//! `None`. So a reader reads on after a mistake, and whoever assembles the result asks the
//! [`Report`] once, at the end.

use super::error::{Report, quote};
use super::schema::Section;
use super::value;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::time::Duration;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A table of the document, or the empty one that an absent section reads as.
#[derive(Debug)]
pub(super) struct Table<'a> {
    report: &'a Report<'a>,
    section: &'static Section,
    path: String,
    at: usize,
    entries: Option<&'a DeTable<'a>>,
}

impl<'a> Table<'a> {
    /// The document itself.
    pub(super) fn root(
        report: &'a Report<'a>,
        section: &'static Section,
        table: &'a DeTable<'a>,
    ) -> Self {
        Self::open(report, section, String::new(), 0, table)
    }

    fn open(
        report: &'a Report<'a>,
        section: &'static Section,
        path: String,
        at: usize,
        table: &'a DeTable<'a>,
    ) -> Self {
        for key in table.keys().filter(|key| !section.keys.contains(&key.get_ref().as_ref())) {
            if report.is_full() {
                report.error(key.span().start, "", String::new());
                continue;
            }
            let hint = match value::closest(key.get_ref(), section.keys) {
                Some(known) => format!("did you mean {known:?}?"),
                None => format!("expected one of: {}", section.keys.join(", ")),
            };
            let message = format!("unknown key {}; {hint}", quote(key.get_ref()));
            report.error(key.span().start, &path, message);
        }
        Self { report, section, path, at, entries: Some(table) }
    }

    pub(super) fn report(&self) -> &'a Report<'a> {
        self.report
    }

    /// Reports a mistake of the table as a whole.
    pub(super) fn error(&self, message: impl Into<String>) {
        self.report.error(self.at, &self.path, message.into());
    }

    pub(super) fn is_absent(&self) -> bool {
        self.entries.is_none()
    }

    /// The value of `key`, if it is set.
    pub(super) fn get(&self, key: &str) -> Option<Field<'a>> {
        debug_assert!(self.section.keys.contains(&key), "{key} is not in the schema");
        let value = self.entries?.get(key)?;
        Some(Field::new(self.report, join(&self.path, key), value))
    }

    /// The value of `key`; its absence is reported.
    pub(super) fn require(&self, key: &str, expected: &str) -> Option<Field<'a>> {
        let field = self.get(key);
        if field.is_none() {
            self.error(format!("{key:?} is missing, expected {expected}"));
        }
        field
    }

    /// The table under `key`, if it is there.
    pub(super) fn table(&self, key: &str, section: &'static Section) -> Option<Table<'a>> {
        let field = self.get(key)?;
        match field.value {
            DeValue::Table(table) => {
                Some(Self::open(self.report, section, field.path, field.at, table))
            }
            DeValue::Array(_) => {
                field.error(format!(
                    "found a list, expected one table; write [{}] once",
                    section.name
                ));
                None
            }
            _ => {
                field.expected(&format!("a table [{}]", section.name));
                None
            }
        }
    }

    /// The table under `key`; if it is absent, an empty one whose errors point at its parent.
    pub(super) fn section(&self, key: &str, section: &'static Section) -> Table<'a> {
        self.table(key, section).unwrap_or_else(|| Table {
            report: self.report,
            section,
            path: join(&self.path, key),
            at: self.at,
            entries: None,
        })
    }

    /// The tables of a list of tables, each called by the string under `label` if it has one,
    /// else by its number from 1.
    pub(super) fn tables(
        &self,
        key: &str,
        section: &'static Section,
        label: &str,
        limit: usize,
    ) -> Vec<Table<'a>> {
        let Some(field) = self.get(key) else {
            return Vec::new();
        };
        let header = format!("[[{}]]", section.name);
        let DeValue::Array(items) = field.value else {
            field.error(format!(
                "found {}, expected a list of tables; write {header}",
                describe(field.value)
            ));
            return Vec::new();
        };
        if items.len() > limit {
            field.error(format!("{} of {header} is too many, at most {limit}", items.len()));
        }
        let mut tables = Vec::with_capacity(items.len().min(limit));
        for (index, item) in items.iter().take(limit).enumerate() {
            let name = item.get_ref().as_table().and_then(|table| table.get(label));
            let name = match name.and_then(|name| name.get_ref().as_str()) {
                Some(name) => format!("{key} {}", quote(name)),
                None => format!("{key} {}", index + 1),
            };
            let path = join(&self.path, &name);
            match item.get_ref() {
                DeValue::Table(table) => {
                    tables.push(Self::open(self.report, section, path, item.span().start, table));
                }
                other => self.report.error(
                    item.span().start,
                    &path,
                    format!("found {}, expected a table {header}", describe(other)),
                ),
            }
        }
        tables
    }
}

/// One value of the document.
#[derive(Debug)]
pub(super) struct Field<'a> {
    report: &'a Report<'a>,
    path: String,
    at: usize,
    value: &'a DeValue<'a>,
}

impl<'a> Field<'a> {
    fn new(report: &'a Report<'a>, path: String, value: &'a Spanned<DeValue<'a>>) -> Self {
        Self { report, path, at: value.span().start, value: value.get_ref() }
    }

    pub(super) fn report(&self) -> &'a Report<'a> {
        self.report
    }

    pub(super) fn error(&self, message: impl Into<String>) {
        self.report.error(self.at, &self.path, message.into());
    }

    /// Reports that the value is of the wrong kind.
    pub(super) fn expected(&self, expected: &str) {
        self.error(format!("found {}, expected {expected}", describe(self.value)));
    }

    /// A string. `expected` completes "expected …".
    pub(super) fn string(&self, expected: &str) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.expected(expected);
        }
        text
    }

    /// A string that must not be shown: messages name its kind only.
    pub(super) fn secret(&self, expected: &str) -> Option<&'a str> {
        let text = self.value.as_str();
        if text.is_none() {
            self.error(format!("found {}, expected {expected}", self.value.type_str()));
        }
        text
    }

    pub(super) fn boolean(&self) -> Option<bool> {
        let value = self.value.as_bool();
        if value.is_none() {
            self.expected("true or false");
        }
        value
    }

    pub(super) fn as_boolean(&self) -> Option<bool> {
        self.value.as_bool()
    }

    pub(super) fn is_table(&self) -> bool {
        self.value.is_table()
    }

    pub(super) fn is_list(&self) -> bool {
        self.value.is_array()
    }

    pub(super) fn is_string(&self) -> bool {
        self.value.is_str()
    }

    /// An integer within `range`.
    pub(super) fn integer<T: TryFrom<u64>>(&self, range: RangeInclusive<u64>) -> Option<T> {
        let bounds = format!("{} to {}", range.start(), range.end());
        let DeValue::Integer(integer) = self.value else {
            self.expected(&format!("an integer, {bounds}"));
            return None;
        };
        let value = u64::from_str_radix(integer.as_str(), integer.radix())
            .ok()
            .filter(|value| range.contains(value))
            .and_then(|value| T::try_from(value).ok());
        if value.is_none() {
            self.error(format!("{} is out of range, expected {bounds}", cut(&integer.to_string())));
        }
        value
    }

    /// A string that `parse` understands. Its error completes "`"…"` is not …".
    pub(super) fn parse<T>(
        &self,
        expected: &str,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let text = self.string(expected)?;
        match parse(text) {
            Ok(value) => Some(value),
            Err(fault) => {
                self.error(format!("{} {fault}", quote(text)));
                None
            }
        }
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, words: &[(&str, T)]) -> Option<T> {
        let list: Vec<_> = words.iter().map(|(word, _)| format!("{word:?}")).collect();
        let list = list.join(" or ");
        self.parse(&list, |text| {
            let found = words.iter().find(|(word, _)| *word == text);
            found.map(|(_, value)| *value).ok_or_else(|| format!("is not known, expected {list}"))
        })
    }

    /// A duration within `range`.
    pub(super) fn duration(&self, range: RangeInclusive<Duration>) -> Option<Duration> {
        let bounds = format!(
            "{} to {}",
            value::show_duration(*range.start()),
            value::show_duration(*range.end())
        );
        self.parse("a duration like \"500ms\" or \"3s\"", |text| {
            let duration = value::duration(text)?;
            if range.contains(&duration) {
                Ok(duration)
            } else {
                Err(format!("is out of range, expected {bounds}"))
            }
        })
    }

    /// A list of at most `limit` values. `example` shows how one is written.
    pub(super) fn list(&self, limit: usize, example: impl Display) -> Vec<Field<'a>> {
        let DeValue::Array(items) = self.value else {
            self.expected(&format!("a list like {example}"));
            return Vec::new();
        };
        if items.len() > limit {
            self.error(format!("{} entries are too many, at most {limit}", items.len()));
        }
        let fields = items.iter().take(limit).enumerate();
        fields
            .map(|(index, item)| {
                Field::new(self.report, format!("{}: item {}", self.path, index + 1), item)
            })
            .collect()
    }

    /// Where to point, for a check that comes after all has been read.
    pub(super) fn spot(&self) -> Spot<'a> {
        Spot { report: self.report, path: self.path.clone(), at: self.at }
    }
}

/// A place in the document that a later check may blame.
#[derive(Debug)]
pub(super) struct Spot<'a> {
    report: &'a Report<'a>,
    path: String,
    at: usize,
}

impl Spot<'_> {
    pub(super) fn error(&self, message: impl Into<String>) {
        self.report.error(self.at, &self.path, message.into());
    }
}

fn join(path: &str, key: &str) -> String {
    if path.is_empty() { key.to_owned() } else { format!("{path}: {key}") }
}

/// A value as a message calls it.
fn describe(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) => format!("the string {}", quote(text)),
        DeValue::Integer(integer) => format!("the integer {}", cut(&integer.to_string())),
        DeValue::Float(float) => format!("the number {}", cut(float.as_str())),
        DeValue::Boolean(boolean) => boolean.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a table".to_owned(),
    }
}

/// Digits may be many.
fn cut(digits: &str) -> String {
    const MOST: usize = 24;
    match digits.get(..MOST) {
        Some(head) if digits.len() > MOST => format!("{head}…"),
        _ => digits.to_owned(),
    }
}
