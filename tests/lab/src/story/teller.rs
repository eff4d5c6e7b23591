//! Short lines with the time, as it happens.

use std::io::Write;
use std::time::{Duration, Instant};

/// Tells a story on standard output.
#[derive(Debug)]
pub struct Teller {
    start: Instant,
    steps: u32,
    checks: u32,
    /// Before each line of a story told beside another.
    lane: String,
}

impl Default for Teller {
    fn default() -> Self {
        Self::new()
    }
}

impl Teller {
    /// The clock of the story starts now.
    pub fn new() -> Self {
        Self { start: Instant::now(), steps: 0, checks: 0, lane: String::new() }
    }

    /// A teller for what happens at the same time, by the same clock; its lines say `name`.
    pub fn beside(&self, name: &str) -> Self {
        Self { start: self.start, steps: 0, checks: 0, lane: format!("[{name}] ") }
    }

    /// Count what `other` told.
    pub fn join(&mut self, other: &Self) {
        self.steps += other.steps;
        self.checks += other.checks;
    }

    /// A new step begins.
    pub fn step(&mut self, title: &str) {
        self.steps += 1;
        let (steps, lane) = (self.steps, &self.lane);
        say(&format!("\n{:>7}  {lane}{steps}. {title}", self.clock()));
    }

    /// Something that was asserted holds.
    pub fn check(&mut self, text: &str) {
        self.checks += 1;
        say(&format!("{:>7}  {}✓ {text}", self.clock(), self.lane));
    }

    /// Something to know.
    pub fn note(&mut self, text: &str) {
        say(&format!("{:>7}  {}  {text}", self.clock(), self.lane));
    }

    /// Something failed.
    pub fn fail(&mut self, text: &str) {
        say(&format!("{:>7}  {}✗ {text}", self.clock(), self.lane));
    }

    /// The last line.
    pub fn end(&mut self) {
        let (steps, checks) = (self.steps, self.checks);
        say(&format!("\n{:>7}  {checks} checks passed in {steps} steps", self.clock()));
    }

    fn clock(&self) -> String {
        format!("{:.2}s", self.start.elapsed().as_secs_f64())
    }
}

/// A closed pipe is not the story's problem.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    let _ = writeln!(out, "{line}");
    let _ = out.flush();
}

/// `340 ms`, `1.2 s`.
pub fn short(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.1} s", duration.as_secs_f64())
    }
}
