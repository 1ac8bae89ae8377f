//! The HTTP contract: OpenAPI 3.1 at `/openapi.json`, and the same as a page at `/docs`.
//!
//! The texts are the doc comments of `api/`, the fields are those of its types, and the responses of errors
//! come from `error_response.rs`, so the contract cannot become out of date. `operations.rs` lists the calls,
//! with examples; `responses.rs` has what is common to all responses.

use serde_json::Value;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        Components, InfoBuilder, LicenseBuilder, OpenApi, OpenApiBuilder, Paths, Server, Tag,
        security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::TagBuilder,
    },
};

use crate::api::error::ErrorBody;

mod examples;
mod operation;
mod operations;
pub mod page;
mod responses;

/// The names of the security schemes.
const BEARER: &str = "bearer";
const COOKIE: &str = "cookie";
const CLIENT: &str = "client";

const ABOUT: &str = "Calls are `POST` requests with JSON, and are answered with JSON. Those under `/api` take the same \
    fields as a form (`application/x-www-form-urlencoded`), too. An error is `{\"error\", \"message\"}` (RFC 6749, 5.2; RFC 6750, 3.1) with a status that says \
    what to do: after 401 the token is dead; after 503 the outcome is unknown, so try again. An \
    instance is one running Hallpass process.";

/// The whole contract as JSON. `cookie` is the name of the cookie with the refresh token.
pub fn description(cookie: &str) -> Value {
    let mut components = Components::new();
    components.schemas.insert(ErrorBody::name().into(), ErrorBody::schema());
    components.responses.extend(responses::of_any_call().map(|(name, answer)| (name, answer.into())));
    let bearer = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .bearer_format("JWT")
        .description(Some("An access token (RFC 6750, RFC 9068), as register, login and refresh return it."));
    components.add_security_scheme(BEARER, SecurityScheme::Http(bearer.build()));
    let client = HttpBuilder::new()
        .scheme(HttpAuthScheme::Basic)
        .description(Some("The id and the secret of a client (RFC 6749, 2.3.1)."));
    components.add_security_scheme(CLIENT, SecurityScheme::Http(client.build()));
    let cookie = ApiKeyValue::with_description(
        cookie,
        "The refresh token of a browser's session, in an HttpOnly cookie that register and login set with `delivery=cookie`, and refresh renews.",
    );
    components.add_security_scheme(COOKIE, SecurityScheme::ApiKey(ApiKey::Cookie(cookie)));

    let mut paths = Paths::new();
    let mut tags: Vec<Tag> = Vec::new();
    for (tag, about, calls) in operations::all() {
        tags.push(TagBuilder::new().name(tag).description(Some(about)).build());
        for mut call in calls {
            components.schemas.extend(call.schemas);
            call.operation.tags = Some(vec![tag.to_owned()]);
            paths.add_path_operation(call.path, vec![call.method], call.operation);
        }
    }
    let license = env!("CARGO_PKG_LICENSE");
    let info = InfoBuilder::new()
        .title("Hallpass")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(ABOUT))
        .license(Some(LicenseBuilder::new().name(license).identifier(Some(license)).build()));
    let openapi = OpenApiBuilder::new()
        .info(info.build())
        .servers(Some([Server::new("/")]))
        .paths(paths)
        .components(Some(components))
        .tags(Some(tags));
    as_told_outside(&openapi.build())
}

/// The document as JSON. The links to code in doc comments are turned into plain code, and the space before
/// each of their lines is removed.
fn as_told_outside(openapi: &OpenApi) -> Value {
    let text = openapi.to_json().unwrap_or_default();
    let text = text.replace("[`", "`").replace("`]", "`").replace("\\n ", "\\n");
    serde_json::from_str(&text).unwrap_or_default()
}
