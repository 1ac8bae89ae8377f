//! For Rust services beside Hallpass: accepts its access tokens, and refuses them as soon as their session has ended.
//!
//! A [`Guard`] verifies tokens with Hallpass's public keys and joins its instances over Redis: a logout is answered only
//! when the guard, too, refuses the session. Like an instance, it answers from memory, and answers 503 rather than guess
//! when it cannot know. It needs no database: what it has not met, it asks Hallpass.
//!
//! | file | what is there | may be used by |
//! |---|---|---|
//! | `verifier.rs`, `verified_tokens.rs`, `bearer.rs`, `refusal.rs` | tokens, without a question of whether they are live | Hallpass itself, too |
//! | `wire.rs` | what guards and Hallpass tell each other | Hallpass itself, too |
//! | `public_keys.rs`, `hallpass.rs` | the keys and sessions that Hallpass is asked for | `guard.rs` |
//! | `guard.rs`, `builder.rs` | the guard | services |
//! | `layer.rs`, `authenticated.rs` | tower and axum | services |

#![warn(missing_docs)]

#[cfg(all(feature = "axum", feature = "service"))]
mod authenticated;
mod bearer;
#[cfg(feature = "service")]
mod builder;
#[cfg(feature = "service")]
mod claims;
#[cfg(feature = "service")]
mod guard;
#[cfg(feature = "service")]
mod hallpass;
#[cfg(feature = "service")]
mod layer;
#[cfg(feature = "service")]
mod public_keys;
mod refusal;
mod verified_tokens;
mod verifier;
#[doc(hidden)]
pub mod wire;

/// The program in the README is a test.
#[cfg(all(doctest, feature = "axum", feature = "service"))]
#[doc = include_str!("../README.md")]
struct Readme;

#[cfg(all(feature = "axum", feature = "service"))]
pub use self::authenticated::{Authenticated, FromClaims};
pub use self::{
    bearer::{MAX_TOKEN_BYTES, bearer},
    refusal::Refusal,
    verified_tokens::VerifiedTokens,
    verifier::{AccessClaims, NotOurs, Verifier, VerifyingKey},
};
#[cfg(feature = "service")]
pub use self::{
    builder::{BuildError, GuardBuilder},
    claims::Claims,
    guard::Guard,
    hallpass::HallpassError,
    layer::{GuardLayer, Guarded},
};
#[cfg(feature = "service")]
pub use hallpass_allowlist::{RedisOptions, SessionId, TokenId, UserId};
