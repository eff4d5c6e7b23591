//! A value that must not reach a log, an error or a screen.

use super::reader::Field;
use std::fmt;

/// A secret string. Its `Debug` is redacted, and it has no `Display`.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Secret(String);

impl Secret {
    pub fn new(value: String) -> Self {
        Self(value)
    }

    /// The secret itself. Only for the system call or message that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// A key of 1 to `most` bytes, or a report that does not show it.
pub(super) fn read(field: &Field<'_>, most: usize) -> Option<Secret> {
    let secret = field.secret(&format!("a string of 1 to {most} bytes"))?;
    if secret.is_empty() || secret.len() > most {
        field.error(format!("is {} bytes long, expected 1 to {most}", secret.len()));
        return None;
    }
    Some(Secret::new(secret.to_owned()))
}
