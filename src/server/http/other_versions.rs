//! Serves the site's files of other versions ([`OtherVersions`](crate::server::other_versions::OtherVersions)).

use axum::{
    extract::{Path, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
};
use tracing::warn;

use crate::{
    api::error::ApiError,
    server::{AppState, http::assets::IMMUTABLE},
};

/// Answers with a file of another version.
pub async fn file(State(state): State<AppState>, Path((version, path)): Path<(String, String)>) -> Response {
    let files = match state.other_versions.files(&state.db, &version).await {
        Ok(files) => files,
        Err(error) => {
            warn!(%error, "the files of another version cannot be read: {error}");
            return ApiError::Unavailable.into_response();
        }
    };
    match files.get(&path) {
        Some(contents) => {
            let content_type = mime_guess::from_path(&path).first_or_octet_stream();
            let headers = [(header::CONTENT_TYPE, content_type.as_ref()), (header::CACHE_CONTROL, IMMUTABLE)];
            (headers, contents.clone()).into_response()
        }
        None => (StatusCode::NOT_FOUND, [(header::CACHE_CONTROL, "no-store")]).into_response(),
    }
}
