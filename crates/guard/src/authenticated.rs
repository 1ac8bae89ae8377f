//! The user of a request, for axum's handlers.

use std::sync::Arc;

use axum_core::extract::FromRequestParts;
use http::request::Parts;
use tracing::error;

use crate::{claims::Claims, refusal::Refusal};

/// The user of a request that has passed a [`GuardLayer`](crate::GuardLayer), as its [`Claims`] or as a type of the
/// service's own.
#[derive(Debug, Clone)]
pub struct Authenticated<C = Claims>(pub C);

/// What can be made of the claims of a live access token.
pub trait FromClaims {
    /// Makes it.
    fn from_claims(claims: &Arc<Claims>) -> Self;
}

impl FromClaims for Claims {
    fn from_claims(claims: &Arc<Self>) -> Self {
        Self::clone(claims)
    }
}

impl FromClaims for Arc<Claims> {
    fn from_claims(claims: &Self) -> Self {
        Self::clone(claims)
    }
}

impl<S: Sync, C: FromClaims> FromRequestParts<S> for Authenticated<C> {
    type Rejection = Refusal;

    /// # Errors
    /// [`Refusal::Internal`]: there is no layer around the route.
    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Refusal> {
        let claims = parts.extensions.get::<Arc<Claims>>().ok_or_else(|| {
            error!("{} asks who the user is, and no layer of the guard is around it", parts.uri.path());
            Refusal::Internal
        })?;
        Ok(Self(C::from_claims(claims)))
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, body::Body, routing::get};
    use http::{Request, StatusCode};
    use tower_service::Service;

    use super::*;

    #[tokio::test]
    async fn handler_without_a_layer_is_not_reached() {
        let handler = async |Authenticated(_): Authenticated<Claims>| "reached";
        let mut app = Router::new().route("/", get(handler));
        let refused = app.call(Request::new(Body::empty())).await.unwrap();
        assert_eq!(refused.status(), StatusCode::INTERNAL_SERVER_ERROR);
        assert_eq!(refused.headers()["content-type"], "application/json");
    }
}
