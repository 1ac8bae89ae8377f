//! How many files and connections the system lets this process have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Raises the soft limit to the hard one. It is 1024 in most places, for the sake of programs that use
/// `select`; each connection and each stream of events takes one.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    // Some systems have a hard limit that no process may reach: then the soft one stays.
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of open files cannot be raised: {error}");
    }
    let count = open_files();
    info!(count, "up to {count} files and connections may be open");
}

/// The limit that holds now.
pub fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    limit.try_into().unwrap_or(usize::MAX)
}
