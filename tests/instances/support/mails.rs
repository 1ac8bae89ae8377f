//! The mails that the instances write into a folder.

use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};

use mail_parser::MessageParser;
use tokio::time;

/// The token of a link to this path in a mail to this address, whose file is deleted. `None` if there is none in time.
pub async fn token_to(folder: &Path, address: &str, path: &str, timeout: Duration) -> Option<String> {
    let (deadline, link) = (Instant::now() + timeout, format!("{path}?token="));
    while Instant::now() < deadline {
        let files = fs::read_dir(folder).into_iter().flatten().filter_map(|entry| Some(entry.ok()?.path()));
        for file in files.filter(|file| file.extension().is_some_and(|extension| extension == "eml")) {
            let Ok(bytes) = fs::read(&file) else { continue };
            let mail = MessageParser::default().parse(&bytes).unwrap();
            let is_to_address = mail.to().is_some_and(|to| to.contains(address));
            let text = mail.body_text(0).unwrap_or_default();
            if is_to_address && let Some((_, token)) = text.split_once(&link) {
                let _ = fs::remove_file(&file);
                return token.split_whitespace().next().map(str::to_owned);
            }
        }
        time::sleep(Duration::from_millis(50)).await;
    }
    None
}
