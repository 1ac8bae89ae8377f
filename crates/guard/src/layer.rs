//! The guard as a tower layer.

use std::{
    mem,
    sync::Arc,
    task::{Context, Poll},
};

use futures::future::BoxFuture;
use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use crate::{guard::Guard, refusal::Refusal};

/// Lets requests with a live access token pass, with its [`Claims`](crate::Claims) (in an `Arc`) as an extension; the
/// others get the answer of their [`Refusal`]. A layer for CORS has to be outside: a preflight has no token.
#[derive(Clone)]
pub struct GuardLayer {
    guard: Guard,
    role: Option<Arc<str>>,
}

impl Guard {
    /// A tower layer that lets requests with a live access token pass, and answers the others.
    pub fn layer(&self) -> GuardLayer {
        GuardLayer { guard: self.clone(), role: None }
    }
}

impl GuardLayer {
    /// Only for users who have this role: others get 403.
    pub fn for_role(self, role: &str) -> Self {
        Self { role: Some(role.into()), ..self }
    }
}

impl<S> Layer<S> for GuardLayer {
    type Service = Guarded<S>;

    fn layer(&self, inner: S) -> Guarded<S> {
        Guarded { inner, layer: self.clone() }
    }
}

/// A service behind a [`GuardLayer`].
#[derive(Clone)]
pub struct Guarded<S> {
    inner: S,
    layer: GuardLayer,
}

impl<S, B, R> Service<Request<B>> for Guarded<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
    R: From<String>,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = BoxFuture<'static, Result<Response<R>, S::Error>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The clone is not ready: it stays for the next request, and the one that is ready goes with this.
        let next = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, next);
        let GuardLayer { guard, role } = self.layer.clone();
        Box::pin(async move {
            let claims = match guard.authenticate(request.headers()).await {
                Ok(claims) if role.is_none_or(|role| claims.has_role(&role)) => claims,
                Ok(_) => return Ok(Refusal::InsufficientScope.response().map(R::from)),
                Err(refusal) => return Ok(refusal.response().map(R::from)),
            };
            request.extensions_mut().insert(claims);
            inner.call(request).await
        })
    }
}
