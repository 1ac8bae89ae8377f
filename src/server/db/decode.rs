//! The conversion of values in the tables to types.

use std::str::FromStr;

use super::DbError;
use crate::{
    api::types::{EndReason, Role},
    server::{ids::InvalidId, sign_in_method::SignInMethod},
};

/// Reads the reason in a row. An unknown one counts as signed out.
pub fn reason(text: &str) -> EndReason {
    let known = EndReason::ALL.iter().find(|(_, known)| *known == text);
    known.map_or(EndReason::SignedOut, |(reason, _)| *reason)
}

/// Reads the role in a row. An unknown one counts as the role with the fewest rights.
pub fn role(text: &str) -> Role {
    if text == Role::Admin.as_str() { Role::Admin } else { Role::User }
}

/// Reads how a session began. An unknown way counts as the one that proves least.
pub fn sign_in_method(text: &str) -> SignInMethod {
    text.parse().unwrap_or(SignInMethod::Password)
}

/// Reads an id in a row.
pub fn parse<T: FromStr<Err = InvalidId>>(text: &str) -> Result<T, DbError> {
    text.parse().map_err(|error| DbError::Decode(Box::new(error)))
}
