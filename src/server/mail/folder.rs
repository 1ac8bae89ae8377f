//! The folder of mails that are not sent, because there is no mail server. One file for each mail (RFC 5322), which
//! mail programs open.

use std::{
    fs, io,
    os::unix::fs::{DirBuilderExt, OpenOptionsExt},
    path::Path,
    time::SystemTime,
};

use tokio::task::spawn_blocking;

/// The number of mails that are listed.
const LISTED: usize = 50;

/// Writes a mail, for the owner of this process alone. The file has its name when it is complete.
///
/// # Errors
/// The file cannot be written.
pub async fn write(folder: &Path, id: &str, text: Vec<u8>) -> io::Result<()> {
    let (folder, name) = (folder.to_owned(), format!("{id}.eml"));
    blocking(move || {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(&folder)?;
        let part = folder.join(format!(".{name}.part"));
        let mut file = fs::File::options().create(true).truncate(true).write(true).mode(0o600).open(&part)?;
        io::Write::write_all(&mut file, &text)?;
        fs::rename(part, folder.join(name))
    })
    .await
}

/// The latest mails, the last one first. None if there is no folder yet.
///
/// # Errors
/// The folder or a file cannot be read.
pub async fn latest(folder: &Path) -> io::Result<Vec<String>> {
    let folder = folder.to_owned();
    blocking(move || {
        let entries = match fs::read_dir(&folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut mails: Vec<(SystemTime, _)> = Vec::new();
        for entry in entries {
            let entry = entry?;
            if entry.path().extension().is_some_and(|extension| extension == "eml") {
                mails.push((entry.metadata()?.modified()?, entry.path()));
            }
        }
        mails.sort();
        mails.into_iter().rev().take(LISTED).map(|(_, path)| fs::read_to_string(path)).collect()
    })
    .await
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> io::Result<T> + Send + 'static) -> io::Result<T> {
    spawn_blocking(work).await.unwrap_or_else(|error| Err(io::Error::other(error)))
}
