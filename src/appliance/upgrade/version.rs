//! Versions, compared as the boot loader compares them (UAPI version format specification, which
//! systemd-boot's `strverscmp_improved` implements): so that "newer" here is what boots first there.

use std::cmp::Ordering;

/// Longest version; it becomes part of a file name.
const MAX: usize = 64;

/// A version that may stand in a file name with boot counters: `+` begins the counters.
pub fn is_sound(version: &str) -> bool {
    let begins = version.bytes().next().is_some_and(|b| b.is_ascii_alphanumeric());
    let plain = |b: u8| b.is_ascii_alphanumeric() || b".-~^".contains(&b);
    begins && version.len() <= MAX && version.bytes().all(plain)
}

/// The order in which versions came.
pub fn compare(a: &str, b: &str) -> Ordering {
    let (mut a, mut b) = (a.as_bytes(), b.as_bytes());
    loop {
        a = skip(a);
        b = skip(b);
        // What `~` introduces comes before nothing at all; then the end; then `-`, `^` and `.`.
        for mark in [b'~', 0, b'-', b'^', b'.'] {
            let (in_a, in_b) = (head(a) == mark, head(b) == mark);
            match (in_a, in_b) {
                (true, true) if mark == 0 => return Ordering::Equal,
                (true, true) => {
                    a = &a[1..];
                    b = &b[1..];
                }
                (true, false) => return Ordering::Less,
                (false, true) => return Ordering::Greater,
                (false, false) => {}
            }
        }
        let digits = head(a).is_ascii_digit() || head(b).is_ascii_digit();
        let part = |text: &[u8]| match digits {
            true => text.iter().take_while(|byte| byte.is_ascii_digit()).count(),
            false => text.iter().take_while(|byte| byte.is_ascii_alphabetic()).count(),
        };
        let ((part_a, rest_a), (part_b, rest_b)) = (a.split_at(part(a)), b.split_at(part(b)));
        let order = if digits { numbers(part_a, part_b) } else { part_a.cmp(part_b) };
        if order != Ordering::Equal {
            return order;
        }
        (a, b) = (rest_a, rest_b);
    }
}

/// The next byte, 0 at the end.
fn head(text: &[u8]) -> u8 {
    text.first().copied().unwrap_or(0)
}

/// Without what no version is made of.
fn skip(text: &[u8]) -> &[u8] {
    let count = text
        .iter()
        .take_while(|byte| !byte.is_ascii_alphanumeric() && !b"~-^.".contains(byte))
        .count();
    &text[count..]
}

/// Digits of any length; a number is more than none.
fn numbers(a: &[u8], b: &[u8]) -> Ordering {
    if a.is_empty() != b.is_empty() {
        return b.is_empty().cmp(&a.is_empty());
    }
    let significant = |digits: &[u8]| digits.iter().skip_while(|d| **d == b'0').count();
    let (len_a, len_b) = (significant(a), significant(b));
    len_a.cmp(&len_b).then_with(|| a[a.len() - len_a..].cmp(&b[b.len() - len_b..]))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The specification's own example, then ours.
    #[test]
    fn versions_come_in_the_order_of_the_specification() {
        for list in [
            &[
                "122.1",
                "123~rc1-1",
                "123",
                "123-a",
                "123-a.1",
                "123-1",
                "123-1.1",
                "123^post1",
                "123.a-1",
                "123.1-1",
                "123a-1",
                "124-1",
            ][..],
            &["0.1.0~git1", "0.1.0", "0.1.1", "0.2.0", "0.10.0", "1", "10"],
        ] {
            for (i, a) in list.iter().enumerate() {
                for (j, b) in list.iter().enumerate() {
                    assert_eq!(compare(a, b), i.cmp(&j), "{a} and {b}");
                }
            }
        }
        assert_eq!(compare("0.01", "0.1"), Ordering::Equal);
        assert_eq!(compare("1.", "1"), Ordering::Greater);
    }

    #[test]
    fn what_would_break_a_file_name_is_no_version() {
        for good in ["0.1.0", "1~rc1", "2026-11-23^1"] {
            assert!(is_sound(good), "{good}");
        }
        for bad in ["", ".1", "1+2", "1/2", "1 2", "ä", "1_2", &"1".repeat(65)] {
            assert!(!is_sound(bad), "{bad}");
        }
    }
}
