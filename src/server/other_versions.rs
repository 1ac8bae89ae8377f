//! The site's files of other versions. While an upgrade goes on, a page of one version may ask an instance of the other
//! for its files, and a page that was opened before the upgrade asks for its files after it. Each instance keeps its
//! files in the database at start, where the others find them.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::server::db::{Db, DbError, site_files::SiteFiles};

/// The number of other versions that are kept in memory: the one before and the one after.
const IN_MEMORY: usize = 2;

/// The files of other versions that were asked for.
#[derive(Default)]
pub struct OtherVersions {
    /// The versions that were read, the latest last. Locked while one is read, so that it is read once.
    read: Mutex<Vec<(String, Arc<SiteFiles>)>>,
}

impl OtherVersions {
    /// The files of this version; none if they are not kept.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn files(&self, db: &Db, version: &str) -> Result<Arc<SiteFiles>, DbError> {
        let mut read = self.read.lock().await;
        if let Some((_, files)) = read.iter().find(|(known, _)| known == version) {
            return Ok(Arc::clone(files));
        }
        let files = Arc::new(db.site(version).await?);
        if !files.is_empty() {
            if read.len() == IN_MEMORY {
                read.remove(0);
            }
            read.push((version.to_owned(), Arc::clone(&files)));
        }
        Ok(files)
    }
}
