//! Passwords that are known from breaches: a sorted file of the beginnings of their SHA-1 hashes.
//!
//! `hallpass passwords build-filter` makes it from the public list of Have I Been Pwned, which is ordered by hash. A look-up
//! reads about thirty places of the file, which the system caches, and keeps nothing in memory. A hash is cut to 64 bits,
//! so one password in 10^10 is refused by mistake if the list has 10^9 of them.

use std::{
    fs::File,
    io::{self, BufRead, Read, Write},
    os::unix::fs::FileExt,
    path::Path,
};

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

/// The first bytes of the file.
const HEADER: &[u8; 16] = b"breached-sha1-64";

/// The bytes of a hash that are kept.
const ENTRY: usize = 8;

type Entry = [u8; ENTRY];

/// The file, which is open.
#[derive(Debug)]
pub struct BreachedPasswords {
    file: File,
    count: u64,
}

impl BreachedPasswords {
    /// # Errors
    /// The file cannot be read, or was not made by [`build`].
    pub fn open(path: &Path) -> Result<Self> {
        let mut file = File::open(path)?;
        let mut header = [0; HEADER.len()];
        let has_header = file.read_exact(&mut header).is_ok() && header == *HEADER;
        let bytes = file.metadata()?.len().saturating_sub(HEADER.len() as u64);
        ensure!(
            has_header && bytes.is_multiple_of(ENTRY as u64),
            "it was not made by `hallpass passwords build-filter`, or is not complete"
        );
        Ok(Self { file, count: bytes / ENTRY as u64 })
    }

    /// The number of passwords.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// # Errors
    /// The file cannot be read.
    pub fn contains(&self, password: &str) -> io::Result<bool> {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let mut wanted = Entry::default();
        wanted.copy_from_slice(&hash.as_ref()[..ENTRY]);
        let (mut from, mut to) = (0, self.count);
        while from < to {
            let middle = from + (to - from) / 2;
            let found = self.entry(middle)?;
            if found == wanted {
                return Ok(true);
            }
            if found < wanted { from = middle + 1 } else { to = middle }
        }
        Ok(false)
    }

    fn entry(&self, index: u64) -> io::Result<Entry> {
        let mut entry = Entry::default();
        self.file.read_exact_at(&mut entry, HEADER.len() as u64 + index * ENTRY as u64)?;
        Ok(entry)
    }
}

/// Writes the file for this list, whose lines are `SHA-1 in hex:number of times seen`, ordered by hash. Passwords that were
/// seen less than `at_least` times are left out. Returns the number of passwords.
///
/// # Errors
/// A line cannot be read, or the list is not ordered; the file cannot be written.
pub fn build(list: impl BufRead, mut file: impl Write, at_least: u64) -> Result<u64> {
    file.write_all(HEADER)?;
    let (mut last, mut count) = (None, 0);
    for (number, line) in (1..).zip(list.lines()) {
        let line = line.with_context(|| format!("line {number} cannot be read"))?;
        let line = line.trim();
        if line.is_empty() {
            continue;
        }
        let (entry, seen) = parse(line).with_context(|| {
            format!("line {number} is not `SHA-1:COUNT`, as in the list that is ordered by hash")
        })?;
        ensure!(last <= Some(entry), "line {number} is out of order: use the list that is ordered by hash");
        if seen >= at_least && last != Some(entry) {
            file.write_all(&entry)?;
            count += 1;
        }
        last = Some(entry);
    }
    file.flush()?;
    Ok(count)
}

fn parse(line: &str) -> Option<(Entry, u64)> {
    let (hash, seen) = line.split_once(':').unwrap_or((line, "1"));
    if hash.len() != 40 || !hash.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut entry = Entry::default();
    for (byte, pair) in entry.iter_mut().zip(0..) {
        *byte = u8::from_str_radix(&hash[2 * pair..2 * pair + 2], 16).ok()?;
    }
    Some((entry, seen.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(password: &str, seen: u64) -> String {
        let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, password.as_bytes());
        let hex: String = hash.as_ref().iter().map(|byte| format!("{byte:02X}")).collect();
        format!("{hex}:{seen}")
    }

    fn list(passwords: &[(&str, u64)]) -> String {
        let mut lines: Vec<_> = passwords.iter().map(|(password, seen)| line(password, *seen)).collect();
        lines.sort();
        lines.join("\r\n")
    }

    fn built(passwords: &[(&str, u64)], at_least: u64) -> BreachedPasswords {
        let file = tempfile::NamedTempFile::new().unwrap();
        build(list(passwords).as_bytes(), File::create(file.path()).unwrap(), at_least).unwrap();
        BreachedPasswords::open(file.path()).unwrap()
    }

    #[test]
    fn each_password_of_the_list_is_found_and_no_other() {
        let passwords: Vec<_> = (0..1000).map(|number| format!("password {number}")).collect();
        let all: Vec<_> = passwords.iter().map(|password| (password.as_str(), 1)).collect();
        for count in [0, 1, 2, 3, 1000] {
            let breached = built(&all[..count], 1);
            assert_eq!(breached.count(), count as u64);
            for (number, password) in passwords.iter().enumerate() {
                assert_eq!(breached.contains(password).unwrap(), number < count, "{count}: {password}");
            }
        }
    }

    #[test]
    fn passwords_that_were_seen_rarely_are_left_out() {
        let breached = built(&[("often", 10), ("rarely", 9)], 10);
        assert!(breached.contains("often").unwrap() && !breached.contains("rarely").unwrap());
    }

    #[test]
    fn list_that_is_not_ordered_or_of_another_kind_is_refused() {
        let [one, other] = ["a", "b"].map(|password| line(password, 1));
        let (first, second) = if one < other { (one, other) } else { (other, one) };
        for (text, words) in [
            (format!("{second}\n{first}"), "line 2 is out of order"),
            (format!("{first}\npassword"), "line 2 is not"),
            (format!("{}:1", &first[..32]), "line 1 is not"),
            (format!("{}é:1", &first[..38]), "line 1 is not"),
            (first.replace(":1", ":many"), "line 1 is not"),
        ] {
            let error = format!("{:#}", build(text.as_bytes(), io::sink(), 1).unwrap_err());
            assert!(error.contains(words), "{text}: {error}");
        }
    }

    #[test]
    fn file_that_is_not_complete_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for contents in
            [&b""[..], b"breached", b"breached-sha1-64abc", b"another-kind-of-file-of-40-bytes-xxxxxxx"]
        {
            std::fs::write(file.path(), contents).unwrap();
            assert!(BreachedPasswords::open(file.path()).is_err(), "{contents:?}");
        }
        assert!(BreachedPasswords::open(Path::new("/nowhere")).is_err());
    }
}
