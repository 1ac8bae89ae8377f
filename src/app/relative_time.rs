//! How long ago something was, in words.

/// `seconds` ago.
pub fn ago(seconds: i64) -> String {
    match seconds {
        ..60 => format!("{} s ago", seconds.max(0)),
        60..3600 => format!("{} min ago", seconds / 60),
        3600..172_800 => format!("{} h ago", seconds / 3600),
        _ => format!("{} days ago", seconds / 86_400),
    }
}
