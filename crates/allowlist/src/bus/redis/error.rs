//! What the errors of Redis mean for the protocol.

use std::{error::Error, io, sync::Arc};

use redis::{ErrorKind, RedisError, ServerErrorKind};

use crate::bus::error::{BusError, BusErrorKind};

impl From<RedisError> for BusError {
    fn from(error: RedisError) -> Self {
        let kind = if is_final(&error) {
            BusErrorKind::Final
        } else if error.is_unrecoverable_error() {
            BusErrorKind::Closed
        } else if error.is_timeout() || is_elsewhere(&error) {
            BusErrorKind::Unusable
        } else {
            BusErrorKind::Rejected
        };
        Self::new(kind, error.to_string())
    }
}

/// The settings are wrong, so that no further attempt will succeed.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Refused(String);

pub fn refused(text: String) -> RedisError {
    io::Error::other(Refused(text)).into()
}

/// Combines the errors of several nodes into one. It is final if all of them are.
pub fn all_in_one(mut errors: Vec<RedisError>) -> RedisError {
    let mut texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.dedup();
    match (errors.pop(), texts.len()) {
        (None, _) => (ErrorKind::Io, "no server was named").into(),
        (Some(last), 1) => last,
        (Some(last), _) if is_final(&last) && errors.iter().all(is_final) => refused(texts.join("; ")),
        _ => io::Error::other(texts.join("; ")).into(),
    }
}

/// Adds the name of the node to the error. It stays final if it was.
pub fn in_context(server: &str, error: &RedisError) -> RedisError {
    let text = format!("{server}: {error}");
    if is_final(error) { refused(text) } else { io::Error::other(text).into() }
}

/// Whether the settings are wrong, so that trying again will not help.
pub fn is_final(error: &RedisError) -> bool {
    // A command that a script may not use, and Redis versions that lack script flags or scripts altogether.
    const LASTING: [&str; 5] = [
        "can't run this command",
        "ACL failure in script",
        "compiling script",
        "script shebang",
        "unknown command",
    ];
    // An `io::Error` within a `RedisError` is shared by its clones.
    let is_refused = error
        .source()
        .and_then(|source| source.downcast_ref::<Arc<dyn Error + Send + Sync>>())
        .and_then(|shared| shared.downcast_ref::<io::Error>()?.get_ref())
        .is_some_and(|inner| inner.is::<Refused>());
    is_refused
        || matches!(error.code(), Some("NOAUTH" | "WRONGPASS" | "NOPERM" | "DENIED"))
        || matches!(error.kind(), ErrorKind::AuthenticationFailed | ErrorKind::InvalidClientConfig)
        || error.kind() == ErrorKind::Server(ServerErrorKind::ResponseError)
            && error.detail().is_some_and(|detail| LASTING.iter().any(|words| detail.contains(words)))
}

/// Whether this node is not, or no longer, the right one for the command: a replica, another node of the
/// Redis Cluster, a primary that has lost its replicas, or a node that is still loading.
fn is_elsewhere(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, ReadOnly, TryAgain};
    matches!(
        error.kind(),
        ErrorKind::Server(ReadOnly | Moved | Ask | TryAgain | MasterDown | ClusterDown | BusyLoading)
    ) || error.code() == Some("NOREPLICAS")
}

/// The error that a server's response is converted to.
#[cfg(test)]
pub fn answer(text: &str) -> RedisError {
    let value = redis::parse_redis_value(format!("-{text}\r\n").as_bytes()).unwrap();
    value.extract_error().unwrap_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_are_final_or_tried_again_here_or_elsewhere() {
        #[derive(Debug, PartialEq)]
        enum Next {
            /// Startup fails.
            GiveUp,
            /// Try again on the same connection.
            TryAgain,
            /// Try again on a connection to the current primary.
            LookElsewhere,
        }
        use Next::{GiveUp, LookElsewhere, TryAgain};
        for (text, next) in [
            ("LOADING Redis is loading the dataset in memory", LookElsewhere),
            (
                "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
                LookElsewhere,
            ),
            ("READONLY You can't write against a read only replica.", LookElsewhere),
            ("CLUSTERDOWN The cluster is down", LookElsewhere),
            ("MOVED 6164 127.0.0.1:7001", LookElsewhere),
            ("ASK 6164 127.0.0.1:7001", LookElsewhere),
            ("TRYAGAIN Multiple keys request during rehashing of slot", LookElsewhere),
            ("NOREPLICAS Not enough good replicas to write.", LookElsewhere),
            ("MISCONF Redis is configured to save RDB snapshots, but it's currently unable to", TryAgain),
            ("BUSY Redis is busy running a script. You can only call SCRIPT KILL", TryAgain),
            ("OOM command not allowed when used memory > 'maxmemory'.", TryAgain),
            ("ERR max number of clients reached", TryAgain),
            ("ERR something else", TryAgain),
            ("NOAUTH Authentication required.", GiveUp),
            ("WRONGPASS invalid username-password pair or user is disabled.", GiveUp),
            ("NOPERM this user has no permissions to run the 'evalsha' command", GiveUp),
            ("DENIED Redis is running in protected mode", GiveUp),
            // Redis 7.0, and 7.2 or newer.
            ("ERR The user executing the script can't run this command or subcommand script: 0", GiveUp),
            ("ERR ACL failure in script: User h has no permissions to run the 'hset' command", GiveUp),
            // Redis 6.2, and implementations with other flags.
            ("ERR Error compiling script (new function): user_script:1: unexpected symbol near '#'", GiveUp),
            ("ERR Unexpected flag in script shebang: allow-oom", GiveUp),
            ("ERR unknown command 'EVALSHA', with args beginning with: ", GiveUp),
        ] {
            let error = answer(text);
            let found = match (is_final(&error), is_elsewhere(&error)) {
                (true, false) => GiveUp,
                (false, true) => LookElsewhere,
                (false, false) => TryAgain,
                (true, true) => panic!("both: {text}"),
            };
            assert_eq!(found, next, "{text}");
        }
        assert!(!is_final(&io::Error::from(io::ErrorKind::ConnectionRefused).into()));
        assert!(is_final(&refused("for a reason".into())));
    }

    #[test]
    fn several_errors_are_final_only_together() {
        let (wrong, other) = (|| answer("WRONGPASS wrong"), || answer("CLUSTERDOWN down"));
        assert!(is_final(&all_in_one(vec![wrong(), answer("NOAUTH none")])));
        for mixed in [vec![wrong(), other()], vec![other(), wrong()]] {
            let error = all_in_one(mixed);
            assert!(!is_final(&error));
            assert!(error.to_string().contains("wrong") && error.to_string().contains("down"), "{error}");
        }
        assert_eq!(all_in_one(vec![other(), other()]).to_string(), other().to_string());
        assert!(is_final(&in_context("a server", &wrong())) && !is_final(&in_context("a server", &other())));
    }
}
