//! Waiting for conditions, never for time.

use anyhow::{Result, bail};
use std::time::{Duration, Instant};

/// How often a polled condition is looked at.
const PERIOD: Duration = Duration::from_millis(10);

/// Poll until `condition` gives a value. On timeout the error says what was waited for and, in
/// the condition's own words, why it does not hold yet.
pub fn wait_for<T>(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> Result<T>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        match condition() {
            Ok(value) => return Ok(value),
            Err(e) if start.elapsed() >= timeout => {
                bail!("{what}: not within {timeout:?}: {e:#}")
            }
            Err(_) => std::thread::sleep(PERIOD),
        }
    }
}

/// Poll until `condition` is true.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut condition: impl FnMut() -> bool,
) -> Result<()> {
    wait_for(what, timeout, || {
        anyhow::ensure!(condition(), "still false");
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_reason_is_told() {
        let error =
            wait_for("door", Duration::from_millis(20), || -> Result<()> { bail!("still shut") })
                .unwrap_err();
        assert_eq!(error.to_string(), "door: not within 20ms: still shut");
    }

    #[test]
    fn a_value_is_returned_as_soon_as_there_is_one() {
        let mut calls = 0;
        let value = wait_for("third", Duration::from_secs(5), || {
            calls += 1;
            anyhow::ensure!(calls == 3);
            Ok(calls)
        });
        assert_eq!(value.unwrap(), 3);
    }
}
