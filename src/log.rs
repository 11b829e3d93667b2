//! Log lines: to stderr, with the time in UTC, for a person or for journald.

use std::io::Write;

use crate::clock::now;

/// Writes one line. Control characters, which may come from the network, are escaped.
pub fn log(message: impl AsRef<str>) {
    // Where the log cannot be written, for the disk is full or its reader gone, goat goes on.
    let _ = writeln!(std::io::stderr(), "{} {}", timestamp(now()), words(message.as_ref()));
}

/// A message fit for a person: in one line, and without the numbers that Rust puts behind the system's own words.
pub fn words(message: &str) -> String {
    let mut parts = message.split(" (os error ");
    let first = parts.next().unwrap_or_default().to_string();
    let kept = parts.map(|part| part.split_once(')').map_or(part, |(_number, rest)| rest));
    clean(&kept.fold(first, |text, part| text + part))
}

/// Text in which nothing ends the line, moves the cursor or turns the direction of writing: such characters are escaped.
pub fn clean(text: &str) -> String {
    let harmful = |c: char| c.is_control() || matches!(c, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    let escape = |c: char| if harmful(c) { c.escape_default().collect() } else { String::from(c) };
    text.chars().map(escape).collect()
}

/// `2014-01-26T17:00:00Z` for a number of seconds since 1970.
pub fn timestamp(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    // The calendar repeats every 400 years of 146,097 days; years here begin with March, so that the leap
    // day is the last of its year, and months alternate in blocks of 153 days.
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1_460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let (year, month) = (era * 400 + year + u64::from(month >= 10), if month < 10 { month + 3 } else { month - 9 });
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timestamp_is_the_date_in_utc() {
        let cases = [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_390_755_600, "2014-01-26T17:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ];
        for (seconds, date) in cases {
            assert_eq!(timestamp(seconds), date);
        }
    }

    #[test]
    fn a_message_names_the_errors_of_the_system_by_words_alone() {
        let not_found = std::io::Error::from_raw_os_error(2);
        let denied = std::io::Error::from_raw_os_error(13);
        let message = format!("cannot write a ({denied}): cannot read b: {not_found}. Stop\n");
        let said = "cannot write a (Permission denied): cannot read b: No such file or directory. Stop\\n";
        assert_eq!(words(&message), said);
        assert_eq!(words("none (os errors) (os error"), "none (os errors) (os error");
    }

    #[test]
    fn a_log_line_stays_one_line() {
        assert_eq!(clean("a\nb\u{1b}[31m\0µ"), "a\\nb\\u{1b}[31m\\u{0}µ");
    }
}
