//! The built files of the site, of this version and the last ones.

use std::collections::BTreeMap;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use futures::FutureExt;

use super::{Db, DbError};

/// The number of versions whose files are kept.
const KEPT_VERSIONS: i64 = 5;

/// The files of a version, by their paths.
pub type SiteFiles = BTreeMap<String, Bytes>;

impl Db {
    /// Records the start of an instance with this version of the site, and returns the number of the start. The files
    /// are kept if the version is new; those of the versions that were started longest ago are then deleted.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn start_site(&self, version: &str, files: SiteFiles) -> Result<i64, DbError> {
        let version = version.to_owned();
        self.reserved(super::MANY_TIMEOUT)
            .transaction(move |connection| {
                async move {
                // Another instance with the same files may start at the same time.
                let add = "insert into site_versions (version, last_start) \
                           select $1, coalesce(max(last_start), 0) + 1 from site_versions where true \
                           on conflict do nothing returning last_start";
                let added: Option<i64> =
                    sqlx::query_scalar(add).bind(&version).fetch_optional(&mut *connection).await?;
                let Some(start) = added else {
                    let again = "update site_versions set last_start = (select max(last_start) + 1 from site_versions) \
                                 where version = $1 returning last_start";
                    return sqlx::query_scalar(again).bind(&version).fetch_one(&mut *connection).await;
                };
                for (path, contents) in files {
                    sqlx::query("insert into site_files (version, path, contents) values ($1, $2, $3)")
                        .bind(&version)
                        .bind(path)
                        .bind(BASE64_STANDARD.encode(contents))
                        .execute(&mut *connection)
                        .await?;
                }
                sqlx::query(
                    "delete from site_versions where version not in \
                     (select version from site_versions order by last_start desc, version limit $1)",
                )
                .bind(KEPT_VERSIONS)
                .execute(&mut *connection)
                .await?;
                Ok(start)
            }
                .boxed()
            })
            .await
    }

    /// The files of a version; none if they are not kept.
    ///
    /// # Errors
    /// The database cannot be used.
    pub async fn site(&self, version: &str) -> Result<SiteFiles, DbError> {
        let rows: Vec<(String, String)> =
            sqlx::query_as("select path, contents from site_files where version = $1")
                .bind(version)
                .fetch_all(&mut *self.pool.acquire().await?)
                .await?;
        let decoded = rows.into_iter().map(|(path, contents)| {
            let contents =
                BASE64_STANDARD.decode(contents).map_err(|error| DbError::Decode(Box::new(error)))?;
            Ok((path, contents.into()))
        });
        decoded.collect()
    }
}
