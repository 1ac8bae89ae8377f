//! The `hallpass` program: sets up logging and runs the command line.

use std::{
    env,
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Parser;
use hallpass::server::cli::Cli;
use mimalloc::MiMalloc;
use tracing::Level;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt, util::SubscriberInitExt};

/// The allocator of glibc never returns the blocks that hash passwords (19 MiB each) to the system.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // An empty variable counts as unset, as for the settings.
    let wanted = env::var("RUST_LOG").ok().filter(|filter| !filter.trim().is_empty());
    let filter = wanted
        .and_then(|filter| filter.parse().ok())
        .unwrap_or_else(|| Targets::new().with_default(Level::INFO).with_target("sqlx", Level::WARN));
    // Not an `EnvFilter`, which takes a lock whenever a span is entered.
    let log = fmt::layer().with_ansi(io::stderr().is_terminal()).with_writer(io::stderr);
    tracing_subscriber::registry().with(log).with(filter).init();
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hallpass: {error:#}");
            ExitCode::FAILURE
        }
    }
}
