//! Tests of the guarantee and of the API contract, against a real server over real HTTP. Each file tests one
//! promise; `support` starts and stops the servers.

#![expect(clippy::unwrap_used, reason = "what fails here fails the test")]

#[path = "../common/authenticator.rs"]
mod authenticator;
#[path = "../common/totp.rs"]
mod totp;

mod admin;
mod authorize;
mod factors;
mod foreign;
mod forms;
mod gate;
mod keys;
mod live;
mod login;
mod logout;
mod mail;
mod mailbox;
mod oauth;
mod openapi;
mod pages;
mod passkeys;
mod password;
mod personal_data;
mod recovery;
mod refresh;
mod restart;
mod secrets;
mod security_page;
mod sessions;
mod startup;
mod step_up;
mod support;
mod throttle;
mod verification;
