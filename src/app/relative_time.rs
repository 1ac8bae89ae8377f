//! Relative times and durations, as text.

/// The text for a duration in milliseconds.
pub fn duration(ms: u64) -> String {
    if ms == 0 { "less than a millisecond".to_owned() } else { format!("{ms} ms") }
}

/// The text for `seconds` ago, of a time that is known to the minute.
pub fn minutes_ago(seconds: i64) -> String {
    if seconds < 60 { "just now".to_owned() } else { ago(seconds) }
}

/// The text for `seconds` ago.
pub fn ago(seconds: i64) -> String {
    match seconds {
        ..1 => "just now".to_owned(),
        1..60 => format!("{seconds} s ago"),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
