//! What guards ask ([`hallpass_guard::wire`]). A guard proves who it is by the id and secret of a client, by HTTP Basic.

use axum::{
    Json, Router,
    extract::{
        Path, Query, State,
        rejection::{JsonRejection, PathRejection, QueryRejection},
    },
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{any, get, post, put},
};
use hallpass_allowlist::{InstanceRow, TokenRecord};
use hallpass_guard::wire::{
    Facts, INSTANCES, Liveness, REVOKED_SESSIONS, Recorded, SETTINGS, Settings, TOKEN, revoked_sessions_end,
};
use serde::Deserialize;

use crate::{
    api::error::ApiError,
    server::{
        AppState,
        auth::clients::AuthenticatedClient,
        clock,
        http::oauth::{refused, unreadable},
        ids::InstanceId,
    },
};

pub fn routes() -> Router<AppState> {
    Router::new()
        .route(SETTINGS, get(settings))
        .route(INSTANCES, get(members))
        .route(&format!("{INSTANCES}/{{id}}"), put(record).delete(delete))
        .route(TOKEN, post(token))
        .route(REVOKED_SESSIONS, get(revoked_sessions))
        .route("/guard/{*path}", any(ApiError::NotFound))
}

async fn settings(
    State(state): State<AppState>,
    client: AuthenticatedClient,
) -> Result<Json<Settings>, ApiError> {
    state.auth.guard_settings(&client, clock::now()).map(Json)
}

async fn members(
    State(state): State<AppState>,
    client: AuthenticatedClient,
) -> Result<Json<Vec<InstanceRow>>, ApiError> {
    state.auth.members(&client).await.map(Json)
}

async fn record(
    State(state): State<AppState>,
    client: AuthenticatedClient,
    id: Result<Path<InstanceId>, PathRejection>,
    facts: Result<Json<Facts>, JsonRejection>,
) -> Result<Json<Recorded>, ApiError> {
    let (Path(id), Json(facts)) =
        (id.map_err(|_| unreadable())?, facts.map_err(|error| refused(error.status()))?);
    let time_ms = state.auth.record_guard(&client, id, &facts).await?;
    Ok(Json(Recorded { time_ms }))
}

#[derive(Deserialize)]
struct Deleted {
    beat: Option<i64>,
}

async fn delete(
    State(state): State<AppState>,
    client: AuthenticatedClient,
    id: Result<Path<InstanceId>, PathRejection>,
    deleted: Result<Query<Deleted>, QueryRejection>,
) -> Result<StatusCode, ApiError> {
    let (Path(id), Query(Deleted { beat })) =
        (id.map_err(|_| unreadable())?, deleted.map_err(|_| unreadable())?);
    state.auth.delete_guard(&client, &id.to_string(), beat).await?;
    Ok(StatusCode::NO_CONTENT)
}

async fn token(
    State(state): State<AppState>,
    client: AuthenticatedClient,
    token: Result<Json<TokenRecord>, JsonRejection>,
) -> Result<Json<Liveness>, ApiError> {
    let Json(token) = token.map_err(|error| refused(error.status()))?;
    let is_live = state.auth.is_token_live(&client, &token).await?;
    Ok(Json(Liveness { is_live }))
}

/// The ids, and a last line by which the guard knows that the list is whole.
async fn revoked_sessions(
    State(state): State<AppState>,
    client: AuthenticatedClient,
) -> Result<impl IntoResponse, ApiError> {
    let sessions = state.auth.revoked_sessions(&client, clock::now()).await?;
    let mut text: String = sessions.iter().map(|session| format!("{session}\n")).collect();
    text += &revoked_sessions_end(sessions.len());
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text))
}
