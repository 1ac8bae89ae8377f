//! The `hallpass` program: sets up logging and runs the command line.

use std::{
    env,
    io::{self, IsTerminal},
    process::ExitCode,
};

use clap::Parser;
use hallpass::server::cli::Cli;
use mimalloc::MiMalloc;
use tracing_subscriber::EnvFilter;

/// The allocator of glibc never returns the blocks that hash passwords (19 MiB each) to the system.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

#[tokio::main]
async fn main() -> ExitCode {
    // An empty variable counts as unset, as for the settings.
    let wanted = env::var(EnvFilter::DEFAULT_ENV).ok().filter(|filter| !filter.trim().is_empty());
    let filter = wanted.and_then(|filter| EnvFilter::try_new(filter).ok());
    let filter = filter.unwrap_or_else(|| EnvFilter::new("info,sqlx=warn"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(io::stderr().is_terminal())
        .with_writer(io::stderr)
        .init();
    match Cli::parse().run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("hallpass: {error:#}");
            ExitCode::FAILURE
        }
    }
}
