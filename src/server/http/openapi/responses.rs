//! The headers of all responses, and the responses of errors.

use std::collections::BTreeMap;

use axum::{
    http::{StatusCode, header},
    response::IntoResponse,
};
use serde_json::{Value, json};
use utoipa::{
    ToSchema,
    openapi::{
        ContentBuilder, HeaderBuilder, Ref, RefOr, Response, ResponseBuilder,
        example::{Example, ExampleBuilder},
    },
};

use crate::api::{
    INSTANCE_HEADER,
    error::{ApiError, ErrorBody},
};

/// The headers of every response under `/api`: name, description, example.
const EVERY_ANSWER: [(&str, &str, &str); 2] = [
    ("cache-control", "Responses are never cached.", "no-store"),
    (INSTANCE_HEADER, "The name of the instance that answered.", "a"),
];

/// The errors that any server function may return.
fn any_call() -> BTreeMap<StatusCode, Vec<ApiError>> {
    by_status(vec![
        ApiError::InvalidRequest("The request's fields cannot be read.".into()),
        ApiError::CrossSite,
        ApiError::PayloadTooLarge,
        ApiError::UnsupportedMediaType,
        ApiError::Internal,
        ApiError::Unavailable,
    ])
}

/// The responses of these errors by their names, to be referenced.
pub fn of_any_call() -> impl Iterator<Item = (String, Response)> {
    any_call().into_iter().map(|(status, errors)| (name(status), of_the_api(refusal(status, &errors))))
}

/// The error responses of a server function that has these errors of its own, by status. The common responses
/// are references, unless the function has errors of its own with the same status.
pub fn refusals_of_a_call(own: Vec<ApiError>) -> BTreeMap<StatusCode, RefOr<Response>> {
    let any_call = any_call();
    let mut own = by_status(own);
    for (status, errors) in &mut own {
        errors.extend(any_call.get(status).into_iter().flatten().cloned());
    }
    let references =
        any_call.into_keys().map(|status| (status, Ref::from_response_name(name(status)).into()));
    let own = own.iter().map(|(status, errors)| (*status, of_the_api(refusal(*status, errors)).into()));
    references.chain(own).collect()
}

/// The responses of these errors, by status.
pub fn refusals(errors: Vec<ApiError>) -> BTreeMap<StatusCode, RefOr<Response>> {
    let errors = by_status(errors).into_iter();
    errors.map(|(status, errors)| (status, refusal(status, &errors).build().into())).collect()
}

/// The response to any other method at an address outside `/api` that takes `GET`.
pub fn wrong_method() -> (StatusCode, RefOr<Response>) {
    let allow = HeaderBuilder::new().description(Some("The methods.")).example(Some(json!("GET,HEAD")));
    let response = ResponseBuilder::new().description("Method Not Allowed").header("allow", allow.build());
    (StatusCode::METHOD_NOT_ALLOWED, response.build().into())
}

/// Adds the headers of every response under `/api`.
pub fn of_the_api(answer: ResponseBuilder) -> Response {
    let answer = EVERY_ANSWER.into_iter().fold(answer, |answer, (name, words, example)| {
        let header = HeaderBuilder::new().description(Some(words)).example(Some(json!(example)));
        answer.header(name, header.build())
    });
    answer.build()
}

fn by_status(errors: Vec<ApiError>) -> BTreeMap<StatusCode, Vec<ApiError>> {
    let mut by_status: BTreeMap<StatusCode, Vec<ApiError>> = BTreeMap::new();
    for error in errors {
        by_status.entry(error.clone().into_response().status()).or_default().push(error);
    }
    by_status
}

fn name(status: StatusCode) -> String {
    status.canonical_reason().unwrap_or_default().replace(' ', "")
}

/// The response of these errors. Body and headers are taken from real responses.
fn refusal(status: StatusCode, errors: &[ApiError]) -> ResponseBuilder {
    let mut headers: BTreeMap<String, Vec<(&str, Value)>> = BTreeMap::new();
    for error in errors {
        for (name, value) in error.clone().into_response().headers() {
            if name != header::CONTENT_TYPE
                && let Ok(value) = value.to_str()
            {
                headers.entry(name.to_string()).or_default().push((error.code(), json!(value)));
            }
        }
    }
    let bodies = errors.iter().map(|error| (error.code(), json!(error)));
    let content = ContentBuilder::new()
        .schema(Some(Ref::from_schema_name(ErrorBody::name())))
        .examples_from_iter(examples(bodies));
    let codes: Vec<_> = errors.iter().map(|error| format!("`{}`", error.code())).collect();
    let reason = status.canonical_reason().unwrap_or_default();
    let response = ResponseBuilder::new()
        .description(format!("{reason}: {}", codes.join(", ")))
        .content("application/json", content.build());
    headers.into_iter().fold(response, |response, (name, values)| {
        response.header(name, HeaderBuilder::new().examples_from_iter(examples(values)).build())
    })
}

/// Examples by the code of their error.
fn examples<'a>(
    values: impl IntoIterator<Item = (&'a str, Value)>,
) -> impl Iterator<Item = (&'a str, Example)> {
    values.into_iter().map(|(code, value)| (code, ExampleBuilder::new().value(Some(value)).build()))
}
