//! The system's limit on the number of files and connections that this process may have open.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tracing::{info, warn};

/// Raises the soft limit to the hard one. The soft limit is 1024 on most systems, for the sake of programs
/// that use `select`; each connection and each event stream needs one file.
pub fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    // On some systems no process may reach the hard limit: then the soft one stays.
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        warn!(%error, "the limit of open files cannot be raised: {error}");
    }
    let count = open_files();
    info!(count, "up to {count} files and connections may be open");
}

/// The current soft limit.
pub fn open_files() -> usize {
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    limit.try_into().unwrap_or(usize::MAX)
}
