//! The text format itself: families, samples, escaping.

use std::fmt::Write;

/// Type of a family.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
}

/// A value; integers stay exact.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Value {
    Whole(u64),
    Real(f64),
}

impl From<u64> for Value {
    fn from(value: u64) -> Self {
        Self::Whole(value)
    }
}

impl From<f64> for Value {
    fn from(value: f64) -> Self {
        Self::Real(value)
    }
}

/// Text under construction. A family without samples leaves no trace.
#[derive(Debug, Default)]
pub struct Exposition {
    text: String,
    name: String,
    /// HELP and TYPE lines, until the first sample needs them.
    pending: String,
}

impl Exposition {
    /// Begin a family; the samples that follow belong to it.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
        };
        let help = help.replace('\\', r"\\").replace('\n', r"\n");
        name.clone_into(&mut self.name);
        self.pending = format!("# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    pub fn sample(&mut self, labels: &[(&str, &str)], value: impl Into<Value>) {
        self.text.push_str(&std::mem::take(&mut self.pending));
        self.text.push_str(&self.name);
        for (index, (name, text)) in labels.iter().enumerate() {
            self.text.push(if index == 0 { '{' } else { ',' });
            self.text.push_str(name);
            self.text.push_str("=\"");
            self.escape(text);
            self.text.push('"');
        }
        if !labels.is_empty() {
            self.text.push('}');
        }
        // Writing to a String cannot fail.
        let _ = match value.into() {
            Value::Whole(value) => writeln!(self.text, " {value}"),
            Value::Real(value) => writeln!(self.text, " {value}"),
        };
    }

    pub fn sample_owned(&mut self, labels: &[(&str, String)], value: impl Into<Value>) {
        let labels: Vec<(&str, &str)> = labels.iter().map(|(n, v)| (*n, v.as_str())).collect();
        self.sample(&labels, value);
    }

    pub fn finish(self) -> String {
        self.text
    }

    fn escape(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\\' => self.text.push_str(r"\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str(r"\n"),
                c => self.text.push(c),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_escaped_and_empty_families_leave_no_trace() {
        let mut out = Exposition::default();
        out.family("a", Kind::Gauge, "none");
        out.family("b_total", Kind::Counter, "one\nline");
        out.sample(&[("x", "q\"b\\n\n")], 18_446_744_073_709_551_615);
        out.sample(&[], 0.25);
        assert_eq!(
            out.finish(),
            "# HELP b_total one\\nline\n# TYPE b_total counter\n\
             b_total{x=\"q\\\"b\\\\n\\n\"} 18446744073709551615\nb_total 0.25\n"
        );
    }
}
