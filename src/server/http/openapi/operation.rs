//! The description of one call, which is generated from its types.

use std::collections::BTreeMap;

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use server_fn::ServerFn;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, HttpMethod, Object, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder,
        Schema, Type, path::OperationBuilder, request_body::RequestBodyBuilder,
        security::SecurityRequirement,
    },
};

use crate::{
    api::error::ApiError,
    server::http::openapi::{
        BEARER, CLIENT, COOKIE,
        responses::{of_the_api, refusals, refusals_of_a_call},
    },
};

/// The clients that may make a call.
#[derive(Clone, Copy)]
pub enum Who {
    Anyone,
    RefreshToken,
    AnyToken,
    Bearer,
    Administrator,
    Cookie,
    Client,
    ClientWhoMayRevokeUsers,
    Operator,
}

impl Who {
    fn words(self) -> &'static str {
        match self {
            Self::Anyone => "Anyone.",
            Self::RefreshToken => {
                "The holder of the session's current refresh token, in the cookie or the body."
            }
            Self::AnyToken => {
                "The holder of any token of the session: the bearer of an access token, an expired one included, or of a refresh token, in the cookie or the body."
            }
            Self::Bearer => "The bearer of a live access token.",
            Self::Administrator => "The bearer of a live access token of an administrator.",
            Self::Cookie => "The holder of a live session's cookie.",
            Self::Client => {
                "A client that `hallpass client add` has made, by HTTP Basic, or by `client_id` and `client_secret` in the form."
            }
            Self::ClientWhoMayRevokeUsers => {
                "A client that was added with `--may-revoke-users`, by HTTP Basic."
            }
            Self::Operator => "Anyone who can reach it: the proxy in front must keep it from the public.",
        }
    }

    /// The security requirements, of which one is enough.
    fn security(self) -> Vec<SecurityRequirement> {
        let by = |scheme: &str| SecurityRequirement::new(scheme, Vec::<String>::new());
        match self {
            Self::Anyone | Self::Operator => vec![SecurityRequirement::default()],
            Self::RefreshToken => vec![by(COOKIE), SecurityRequirement::default()],
            Self::AnyToken => vec![by(BEARER), by(COOKIE), SecurityRequirement::default()],
            Self::Bearer | Self::Administrator => vec![by(BEARER)],
            Self::Cookie => vec![by(COOKIE)],
            Self::Client => vec![by(CLIENT), SecurityRequirement::default()],
            Self::ClientWhoMayRevokeUsers => vec![by(CLIENT)],
        }
    }

    /// The errors for all other clients.
    fn refusals(self) -> Vec<ApiError> {
        match self {
            Self::Anyone | Self::RefreshToken | Self::AnyToken | Self::Operator => vec![],
            Self::Bearer | Self::Cookie => vec![ApiError::MissingToken, ApiError::InvalidToken],
            Self::Client => vec![ApiError::InvalidClient],
            Self::ClientWhoMayRevokeUsers => vec![ApiError::InvalidClient, ApiError::UnauthorizedClient],
            Self::Administrator => {
                vec![ApiError::MissingToken, ApiError::InvalidToken, ApiError::InsufficientScope]
            }
        }
    }
}

/// The description of a call.
pub struct Call {
    pub path: &'static str,
    pub method: HttpMethod,
    pub operation: OperationBuilder,
    /// The schemas that the operation refers to.
    pub schemas: Vec<(String, RefOr<Schema>)>,
}

impl Call {
    /// Describes a server function by an example of its input, an example of its output, and its own errors.
    pub fn of<F>(who: Who, input: F, output: F::Output, errors: Vec<ApiError>) -> Self
    where
        F: ServerFn<Error = ApiError> + Serialize + ToSchema,
        F::Output: Serialize + ToSchema,
    {
        let mut schemas = schemas_of::<F::Output>();
        F::schemas(&mut schemas);
        let done = success(&output);
        let (words, input_schema) = words_and_fields::<F>();
        let refusals = refusals_of_a_call([who.refusals(), errors].concat());
        let mut operation = operation(who, F::PATH, &words, ("200", of_the_api(done)), refusals);
        let example = json!(input);
        if example.as_object().is_some_and(|fields| !fields.is_empty()) {
            let content = ContentBuilder::new().schema(Some(input_schema)).example(Some(example)).build();
            let body = RequestBodyBuilder::new()
                .content("application/json", content.clone())
                .content("application/x-www-form-urlencoded", content)
                .required(Some(Required::True));
            operation = operation.request_body(Some(body.build()));
        }
        Self { path: F::PATH, method: HttpMethod::Post, operation, schemas }
    }

    /// Describes a stream of server-sent events, whose data are JSON of type `T`.
    pub fn stream<T: ToSchema>(path: &'static str, words: &str, example: &str) -> Self {
        let words = format!("{words}\n\nThe data of each event is JSON: `{}`.", T::name());
        let errors = vec![ApiError::TooManyRequests(60), ApiError::Unavailable];
        let call = Self::get(path, Who::Cookie, &words, "text/event-stream", example, errors);
        Self { schemas: schemas_of::<T>(), ..call }
    }

    /// Describes a `POST` request with a form about a token, by an example of the answer.
    pub fn about_token<T: Serialize + ToSchema>(path: &'static str, words: &str, example: &T) -> Self {
        let token = ObjectBuilder::new().property("token", String::schema()).required("token");
        let content = ContentBuilder::new()
            .schema(Some(token.property("token_type_hint", String::schema())))
            .example(Some(json!({ "token": "eyJ0eXAi" })));
        let body = RequestBodyBuilder::new()
            .content("application/x-www-form-urlencoded", content.build())
            .required(Some(Required::True));
        let done = success(example);
        let refusals = refusals_of_a_call(Who::Client.refusals());
        let operation = operation(Who::Client, path, words, ("200", of_the_api(done)), refusals);
        let operation = operation.request_body(Some(body.build()));
        Self { path, method: HttpMethod::Post, operation, schemas: schemas_of::<T>() }
    }

    /// Describes a `POST` request of a client with JSON of type `T`, which is answered without a body, by an example of
    /// the request.
    pub fn command<T: ToSchema>(who: Who, path: &'static str, words: &str, example: &Value) -> Self {
        let content = ContentBuilder::new().schema(Some(schema_of::<T>())).example(Some(example.clone()));
        let body = RequestBodyBuilder::new()
            .content("application/json", content.build())
            .required(Some(Required::True));
        let done = of_the_api(ResponseBuilder::new().description("Done."));
        let refusals = refusals_of_a_call([who.refusals(), vec![ApiError::NotFound]].concat());
        let operation = operation(who, path, words, ("204", done), refusals);
        let operation = operation.request_body(Some(body.build()));
        Self { path, method: HttpMethod::Post, operation, schemas: schemas_of::<T>() }
    }

    /// Describes a `GET` request that is answered with a JSON document, by an example of it.
    pub fn document<T: Serialize + ToSchema>(path: &'static str, words: &str, example: &T) -> Self {
        let done = success(example);
        let operation = operation(Who::Anyone, path, words, ("200", done.build()), BTreeMap::new());
        Self { path, method: HttpMethod::Get, operation, schemas: schemas_of::<T>() }
    }

    /// Describes a `GET` request that is answered with text of this content type, or with an empty body.
    pub fn get(
        path: &'static str,
        who: Who,
        words: &str,
        content_type: &str,
        example: &str,
        errors: Vec<ApiError>,
    ) -> Self {
        let mut done = ResponseBuilder::new().description("Success.");
        if !content_type.is_empty() {
            let content = ContentBuilder::new().schema(Some(String::schema())).example(Some(json!(example)));
            done = done.content(content_type, content.build());
        }
        let done = if path.starts_with("/api/") { of_the_api(done) } else { done.build() };
        let refusals = refusals([who.refusals(), errors].concat());
        let operation = operation(who, path, words, ("200", done), refusals);
        Self { path, method: HttpMethod::Get, operation, schemas: vec![] }
    }
}

/// The response with JSON of this type, by an example.
fn success<T: Serialize + ToSchema>(example: &T) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(schema_of::<T>())).example(Some(json!(example)));
    ResponseBuilder::new().description("Success.").content("application/json", content.build())
}

fn operation(
    who: Who,
    path: &str,
    words: &str,
    (status, done): (&str, Response),
    refusals: BTreeMap<StatusCode, RefOr<Response>>,
) -> OperationBuilder {
    let operation = OperationBuilder::new()
        .operation_id(Some(path.trim_start_matches("/api").trim_matches('/').replace('/', "_")))
        .summary(words.split(['.', ':', ';']).next())
        .description(Some(format!("{words}\n\nWho may call: {}", who.words())))
        .securities(Some(who.security()))
        .response(status, done);
    refusals
        .into_iter()
        .fold(operation, |operation, (status, answer)| operation.response(status.as_str(), answer))
}

/// A reference to the schema of a type; `()` is `null`.
fn schema_of<T: ToSchema>() -> RefOr<Schema> {
    if T::name() == <()>::name() {
        Object::with_type(Type::Null).into()
    } else {
        Ref::from_schema_name(T::name()).into()
    }
}

/// The schemas of a type and of all types in it, except those that are written inline.
fn schemas_of<T: ToSchema>() -> Vec<(String, RefOr<Schema>)> {
    let mut schemas = Vec::new();
    T::schemas(&mut schemas);
    if T::name() != <()>::name() {
        schemas.push((T::name().into(), T::schema()));
    }
    schemas
}

/// The doc comment of a server function, and the schema of its fields. The doc comment is found on the struct
/// of the arguments, after a line that is generated.
fn words_and_fields<F: ToSchema>() -> (String, RefOr<Schema>) {
    let mut schema = F::schema();
    let text = match &mut schema {
        RefOr::T(Schema::Object(object)) => object.description.take().unwrap_or_default(),
        _ => String::new(),
    };
    let lines: Vec<_> = text.lines().skip(1).map(str::trim).collect();
    (lines.join("\n").trim().replace("# Errors\n", "Errors: "), schema)
}
