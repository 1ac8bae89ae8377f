//! Serves the site's files of other versions ([`OtherVersions`](crate::server::other_versions::OtherVersions)).

use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use tracing::warn;

use crate::{
    api::error::ApiError,
    server::{AppState, http::assets::IMMUTABLE},
};

/// Answers with a file of another version, compressed if the client accepts it.
pub async fn file(
    State(state): State<AppState>,
    Path((version, path)): Path<(String, String)>,
    headers: HeaderMap,
) -> Response {
    let files = match state.other_versions.files(&version).await {
        Ok(files) => files,
        Err(error) => {
            warn!(%error, "the files of another version cannot be read: {error}");
            return ApiError::Unavailable.into_response();
        }
    };
    let accepted =
        |coding| accepts(&headers, coding).then(|| files.get(&format!("{path}.{}", suffix(coding))));
    let compressed =
        ["br", "gzip"].into_iter().find_map(|coding| Some((coding, accepted(coding).flatten()?.clone())));
    let common = [(header::CONTENT_TYPE, content_type(&path)), (header::CACHE_CONTROL, IMMUTABLE)];
    match (compressed, files.get(&path)) {
        (Some((coding, contents)), _) => {
            (common, [(header::CONTENT_ENCODING, coding)], contents).into_response()
        }
        (None, Some(contents)) => (common, contents.clone()).into_response(),
        (None, None) => (StatusCode::NOT_FOUND, [(header::CACHE_CONTROL, "no-store")]).into_response(),
    }
}

/// The end of the name of a file that is compressed with this coding.
fn suffix(coding: &str) -> &str {
    if coding == "gzip" { "gz" } else { coding }
}

/// Whether the client accepts this coding (RFC 9110, 12.5.3).
fn accepts(headers: &HeaderMap, coding: &str) -> bool {
    let values = headers.get_all(header::ACCEPT_ENCODING).iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|one| {
        let (name, weight) = one.split_once(';').unwrap_or((one, "q=1"));
        let is_refused = weight.trim().trim_start_matches("q=").parse() == Ok(0.0);
        name.trim().eq_ignore_ascii_case(coding) && !is_refused
    })
}

fn content_type(path: &str) -> &'static str {
    match path.rsplit_once('.') {
        Some((_, "js")) => "text/javascript",
        Some((_, "css")) => "text/css",
        Some((_, "wasm")) => "application/wasm",
        Some((_, "json")) => "application/json",
        _ => "application/octet-stream",
    }
}
