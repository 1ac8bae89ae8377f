//! The description of one call, which is generated from its types.

use std::{collections::BTreeMap, ops::RangeInclusive};

use axum::http::StatusCode;
use serde::Serialize;
use serde_json::{Value, json};
use server_fn::ServerFn;
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{
        ContentBuilder, HttpMethod, Object, ObjectBuilder, Ref, RefOr, Required, Response, ResponseBuilder,
        Schema, SchemaFormat, Type,
        path::{Operation, OperationBuilder},
        request_body::RequestBodyBuilder,
        security::SecurityRequirement,
    },
};

use crate::{
    api::error::ApiError,
    server::http::openapi::{
        BEARER, CLIENT, COOKIE,
        responses::{of_the_api, refusals, refusals_of_a_call, wrong_method},
    },
};

const JSON: &str = "application/json";

/// The greatest length of an e-mail address (RFC 5321, 4.5.3.1.3).
const MAX_ADDRESS: usize = 254;

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
    pub operation: Operation,
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
        if !input_schema.properties.is_empty() {
            let is_required = if input_schema.required.is_empty() { Required::False } else { Required::True };
            let content = ContentBuilder::new().schema(Some(input_schema)).example(Some(json!(input)));
            let body = RequestBodyBuilder::new().content(JSON, content.build()).required(Some(is_required));
            operation = operation.request_body(Some(body.build()));
        }
        Self { path: F::PATH, method: HttpMethod::Post, operation: operation.build(), schemas }
    }

    /// Says how many characters a field of the request may have.
    pub fn with_length(self, field: &str, length: RangeInclusive<usize>) -> Self {
        self.with_field(field, |schema| {
            schema.min_length = Some(*length.start());
            schema.max_length = Some(*length.end());
        })
    }

    /// Says that a field of the request is an e-mail address, which may contain Unicode (RFC 6531).
    pub fn with_address(self, field: &str) -> Self {
        self.with_field(field, |schema| schema.format = Some(SchemaFormat::Custom("idn-email".into())))
            .with_length(field, 3..=MAX_ADDRESS)
    }

    fn with_field(mut self, field: &str, change: impl FnOnce(&mut Object)) -> Self {
        if let Some(RefOr::T(body)) = &mut self.operation.request_body
            && let Some(RefOr::T(content)) = body.content.get_mut(JSON)
            && let Some(RefOr::T(Schema::Object(object))) = &mut content.schema
            && let Some(RefOr::T(Schema::Object(schema))) = object.properties.get_mut(field)
        {
            change(schema);
        }
        self
    }

    /// Describes a stream of server-sent events, by an example of the JSON in an event.
    pub fn stream<T: Serialize + ToSchema>(path: &'static str, words: &str, example: &T) -> Self {
        let (who, errors) = (Who::Cookie, vec![ApiError::TooManyRequests(60), ApiError::Unavailable]);
        let words = format!("{words}\n\nThe data of each event is JSON: `{}`.", T::name());
        let content = ContentBuilder::new().schema(Some(schema_of::<T>())).example(Some(json!(example)));
        let done = of_the_api(ok().content("text/event-stream", content.build()));
        let refusals = refusals([who.refusals(), errors].concat());
        let operation = operation(who, path, &words, ("200", done), refusals).build();
        Self { path, method: HttpMethod::Get, operation, schemas: schemas_of::<T>() }
    }

    /// Describes a `POST` request with a form about a token, by an example of the answer.
    pub fn about_token<T: Serialize + ToSchema>(path: &'static str, words: &str, example: &T) -> Self {
        let token = ObjectBuilder::new().schema_type(Type::String).min_length(Some(1));
        let token = ObjectBuilder::new().property("token", token).required("token");
        let content = ContentBuilder::new()
            .schema(Some(token.property("token_type_hint", String::schema())))
            .example(Some(json!({ "token": "eyJ0eXAi" })));
        let body = RequestBodyBuilder::new()
            .content("application/x-www-form-urlencoded", content.build())
            .required(Some(Required::True));
        let done = success(example);
        let refusals = refusals_of_a_call(Who::Client.refusals());
        let operation = operation(Who::Client, path, words, ("200", of_the_api(done)), refusals);
        let operation = operation.request_body(Some(body.build())).build();
        Self { path, method: HttpMethod::Post, operation, schemas: schemas_of::<T>() }
    }

    /// Describes a `POST` request of a client with JSON of type `T`, which is answered without a body, by an example of
    /// the request.
    pub fn command<T: ToSchema>(who: Who, path: &'static str, words: &str, example: &Value) -> Self {
        let content = ContentBuilder::new().schema(Some(schema_of::<T>())).example(Some(example.clone()));
        let body = RequestBodyBuilder::new().content(JSON, content.build()).required(Some(Required::True));
        let done = of_the_api(ResponseBuilder::new().description("Done."));
        let refusals = refusals_of_a_call([who.refusals(), vec![ApiError::NotFound]].concat());
        let operation = operation(who, path, words, ("204", done), refusals);
        let operation = operation.request_body(Some(body.build())).build();
        Self { path, method: HttpMethod::Post, operation, schemas: schemas_of::<T>() }
    }

    /// Describes a `GET` request that is answered with a JSON document of this content type, by an example of it.
    pub fn document<T: Serialize + ToSchema>(
        path: &'static str,
        words: &str,
        content_type: &str,
        example: &T,
    ) -> Self {
        let content = ContentBuilder::new().schema(Some(schema_of::<T>())).example(Some(json!(example)));
        let done = ok().content(content_type, content.build()).build();
        let refusals = BTreeMap::from([wrong_method()]);
        let operation = operation(Who::Anyone, path, words, ("200", done), refusals).build();
        Self { path, method: HttpMethod::Get, operation, schemas: schemas_of::<T>() }
    }

    /// Describes a `GET` request of an operator that is answered with text, by an example of it, or with an empty body.
    pub fn probe(path: &'static str, words: &str, example: Option<&str>, errors: Vec<ApiError>) -> Self {
        let done = example.into_iter().fold(ok(), |done, example| {
            let content = ContentBuilder::new().schema(Some(String::schema())).example(Some(json!(example)));
            done.content("text/plain", content.build())
        });
        let refusals = refusals(errors).into_iter().chain([wrong_method()]).collect();
        let operation = operation(Who::Operator, path, words, ("200", done.build()), refusals).build();
        Self { path, method: HttpMethod::Get, operation, schemas: vec![] }
    }
}

fn ok() -> ResponseBuilder {
    ResponseBuilder::new().description("Success.")
}

/// The response with JSON of this type, by an example.
fn success<T: Serialize + ToSchema>(example: &T) -> ResponseBuilder {
    let content = ContentBuilder::new().schema(Some(schema_of::<T>())).example(Some(json!(example)));
    ok().content(JSON, content.build())
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
fn words_and_fields<F: ToSchema>() -> (String, Object) {
    let RefOr::T(Schema::Object(mut object)) = F::schema() else { return Default::default() };
    let text = object.description.take().unwrap_or_default();
    let lines: Vec<_> = text.lines().skip(1).map(str::trim).collect();
    (lines.join("\n").trim().replace("# Errors\n", "Errors: "), object)
}
