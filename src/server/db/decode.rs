//! From what is written in the tables to types.

use std::str::FromStr;

use super::DbError;
use crate::{
    api::types::{EndReason, Role},
    server::ids::InvalidId,
};

/// A reason as it is written in the table.
pub fn reason(text: &str) -> EndReason {
    let known = EndReason::ALL.iter().find(|(_, known)| *known == text);
    known.map_or(EndReason::SignedOut, |(reason, _)| *reason)
}

/// A role as it is written in the table; what it does not know may do the least.
pub fn role(text: &str) -> Role {
    if text == Role::Admin.as_str() { Role::Admin } else { Role::User }
}

/// An id as it is written in a table.
pub fn parse<T: FromStr<Err = InvalidId>>(text: &str) -> Result<T, DbError> {
    text.parse().map_err(|error| DbError::Decode(Box::new(error)))
}
