//! Quantities as people read them.

/// `0s`, `59s`, `3m12s`, `5h2m`, `2d4h`: the two largest units.
pub fn seconds(total: u64) -> String {
    let (days, hours, minutes) = (total / 86_400, total / 3_600 % 24, total / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{total}s"),
        (0, 0, minutes) => format!("{minutes}m{:02}s", total % 60),
        (0, hours, minutes) => format!("{hours}h{minutes:02}m"),
        (days, hours, _) => format!("{days}d{hours:02}h"),
    }
}

/// `7ms`, `999ms`, `1.2s`, then as [`seconds`].
pub fn milliseconds(total: u64) -> String {
    match total {
        0..1_000 => format!("{total}ms"),
        1_000..10_000 => format!("{}.{}s", total / 1_000, total / 100 % 10),
        _ => seconds(total / 1_000),
    }
}

/// `350µs`, `1.2ms`, `40ms`, then as [`milliseconds`].
pub fn microseconds(total: u64) -> String {
    match total {
        0..1_000 => format!("{total}µs"),
        1_000..10_000 if total % 1_000 >= 100 => {
            format!("{}.{}ms", total / 1_000, total / 100 % 10)
        }
        _ => milliseconds(total / 1_000),
    }
}

/// Decimal units (SI): `0 B`, `999 B`, `1.2 GB`.
pub fn bytes(total: u64) -> String {
    scaled(total, " B", [" kB", " MB", " GB", " TB", " PB", " EB"])
}

/// `999`, `1.2k`, `34.5M`: for counters whose size matters, not their last digit.
pub fn amount(total: u64) -> String {
    scaled(total, "", ["k", "M", "G", "T", "P", "E"])
}

/// Exact, digits in groups: `1,234,567`.
pub fn exact(total: u64) -> String {
    let digits = total.to_string();
    let mut grouped = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// `1 backend`, `2 backends`.
pub fn counted(count: u64, one: &str) -> String {
    let s = if count == 1 { "" } else { "s" };
    format!("{} {one}{s}", exact(count))
}

/// Three digits at least, one decimal at most.
fn scaled(total: u64, plain: &str, units: [&str; 6]) -> String {
    if total < 1_000 {
        return format!("{total}{plain}");
    }
    let mut unit = 0;
    let mut divisor = 1_000_u64;
    while unit + 1 < units.len() && total / divisor >= 1_000 {
        divisor *= 1_000;
        unit += 1;
    }
    let (whole, tenth) = (total / divisor, total % divisor / (divisor / 10));
    if whole >= 100 {
        format!("{whole}{}", units[unit])
    } else {
        format!("{whole}.{tenth}{}", units[unit])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_read_well_at_every_size() {
        let durations = [
            (0, "0s"),
            (59, "59s"),
            (192, "3m12s"),
            (3_600, "1h00m"),
            (86_399, "23h59m"),
            (187_200, "2d04h"),
        ];
        for (total, text) in durations {
            assert_eq!(seconds(total), text);
        }
        for (total, text) in [(0, "0ms"), (999, "999ms"), (1_250, "1.2s"), (61_000, "1m01s")] {
            assert_eq!(milliseconds(total), text);
        }
        for (total, text) in [(350, "350µs"), (1_250, "1.2ms"), (2_000, "2ms"), (300_000, "300ms")]
        {
            assert_eq!(microseconds(total), text);
        }
        let sizes = [
            (0, "0 B"),
            (999, "999 B"),
            (1_000, "1.0 kB"),
            (1_234_567_890, "1.2 GB"),
            (123_456_789, "123 MB"),
            (u64::MAX, "18.4 EB"),
        ];
        for (total, text) in sizes {
            assert_eq!(bytes(total), text);
        }
        assert_eq!(amount(34_567_890), "34.5M");
        for (total, text) in [(0, "0"), (999, "999"), (1_000, "1,000"), (1_234_567, "1,234,567")] {
            assert_eq!(exact(total), text);
        }
        assert_eq!(counted(1, "flow"), "1 flow");
        assert_eq!(counted(0, "flow"), "0 flows");
    }
}
