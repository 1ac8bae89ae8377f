//! The interface between the browser and the server: the calls, their types and their error, compiled on both
//! sides.
//!
//! A call here is a contract, a signature and one line that calls a handler in [`crate::server`]. The browser
//! calls the same function and gets the same types.
//!
//! | call | who may make it |
//! |---|---|
//! | [`auth::register`], [`auth::login`], [`auth::login_with_passkey`] | anyone |
//! | [`auth::refresh`] | the holder of the session's current refresh token |
//! | [`auth::logout`] | the holder of any token of the session, an expired access token included |
//! | [`token::check_statelessly`] | the holder of an access token, live or dead |
//! | those of [`account`] and [`factors`] | the bearer of a live access token |
//! | those of [`admin`] | an administrator with one |
//!
//! There are also server-sent events for the pages of signed-in users: `GET` [`SESSION_EVENTS`] sends the end
//! of their session, `GET` [`CLUSTER_EVENTS`] the state of the instances.
//!
//! The doc comments of calls, fields and types are published at `/docs`: they are written for clients. A new
//! call gets a route in `server/http/calls.rs` and an entry in `server/http/openapi/operations.rs`.
//!
//! Nothing here may name `app` or `client`, except the HTTP clients that attach the bearer.

pub mod account;
pub mod admin;
pub mod auth;
pub mod error;
pub mod factors;
pub mod protocol;
pub mod token;
pub mod types;

/// The path of server-sent events, each a [`types::ClusterView`], for the holder of a session's cookie.
pub const CLUSTER_EVENTS: &str = "/api/cluster/events";

/// The header in every response to a call, with the name of the instance that sent it.
pub const INSTANCE_HEADER: &str = "hallpass-instance";

/// The name of the cookie that a page sets when its user has signed out and the logout is not confirmed yet.
/// Until it is, pages are rendered as not signed in. `service` is one of the names in [`SERVICES_ATTRIBUTE`].
/// If the page was loaded by https, no other host can set the cookie.
pub fn logout_pending_cookie(https: bool, service: &str) -> String {
    cookie_name("hallpass-logout-pending", https, service)
}

/// The name of the cookie with the id of the session, for scripts. The server sets it beside the refresh token,
/// which scripts cannot read. By it a page sees whether the browser has kept the cookies, and which session it
/// acts for.
pub fn session_id_cookie(https: bool, service: &str) -> String {
    cookie_name("hallpass-session-id", https, service)
}

/// The name of the cookie that the server sets for a minute when a logout that was posted as a plain form is
/// confirmed. Its value is a [`types::ConfirmedLogout`], which the next pages show.
pub fn signed_out_cookie(https: bool, service: &str) -> String {
    cookie_name("hallpass-signed-out", https, service)
}

/// The name of a cookie of Hallpass. Cookies do not depend on the port, so two services on one host would
/// overwrite each other's: the name contains that of the service. Without a service, it is the name that
/// earlier versions used.
pub fn cookie_name(kind: &str, https: bool, service: &str) -> String {
    let prefix = if https { "__Host-" } else { "" };
    let separator = if service.is_empty() { "" } else { "-" };
    format!("{prefix}{kind}{separator}{service}")
}

/// The attribute of `<html>` with the names of this service in its cookies, the one for new cookies first.
pub const SERVICES_ATTRIBUTE: &str = "data-services";

/// The attribute of `<html>` that is present if the cookies are kept over https only.
pub const HTTPS_ATTRIBUTE: &str = "data-https";

/// The attribute of `<html>` with the path of the example service `notes`, if it is served beside Hallpass.
pub const NOTES_ATTRIBUTE: &str = "data-notes";

/// The attribute of the document with the folder of the mails, if there is no mail server.
pub const MAIL_FOLDER_ATTRIBUTE: &str = "data-mail-folder";

/// The attribute of the document with the path of the page that shows the mails in this folder, if there is one.
pub const MAIL_PAGE_ATTRIBUTE: &str = "data-mail-page";

/// The attribute of `<html>` with the [`types::SiteVersion`] of the instance that has rendered the page.
pub const VERSION_ATTRIBUTE: &str = "data-version";

/// The path of server-sent events for the holder of a session's cookie: the first is named `live` and contains the
/// [`types::SiteVersion`] of the instance, the last is named `ended` and contains an [`types::EndReason`].
pub const SESSION_EVENTS: &str = "/api/session/events";
