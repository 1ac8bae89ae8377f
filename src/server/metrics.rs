//! Metrics for Prometheus, at `GET /metrics`. Each metric is recorded where its event happens. This file has
//! the recorder and the descriptions.

use std::sync::OnceLock;

use anyhow::{Context, Result};
use metrics::{Unit, counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::runtime::Handle;

/// The bounds of the buckets in seconds: a revocation takes a few milliseconds, or as long as a lease.
const REVOCATION_BUCKETS: &[f64] =
    &[0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 1.1, 1.5, 3.0];

static HANDLE: OnceLock<PrometheusHandle> = OnceLock::new();

/// Installs the metrics recorder. Later calls do nothing.
///
/// # Errors
/// Another metrics recorder is already installed.
pub fn install() -> Result<()> {
    if HANDLE.get().is_some() {
        return Ok(());
    }
    let recorder = PrometheusBuilder::new()
        .set_buckets_for_metric(Matcher::Full("hallpass_revocation_seconds".into()), REVOCATION_BUCKETS)
        .context("the buckets cannot be used")?
        .build_recorder();
    if HANDLE.set(recorder.handle()).is_ok() {
        metrics::set_global_recorder(recorder).ok().context("a metrics recorder is already installed")?;
        describe();
    }
    Ok(())
}

/// All metrics in the text format of Prometheus.
pub fn render() -> String {
    counter!("hallpass_mirror_hits_total").absolute(hallpass_allowlist::mirror_hits());
    if let Ok(runtime) = Handle::try_current() {
        gauge!("hallpass_tasks").set(runtime.metrics().num_alive_tasks() as f64);
    }
    HANDLE.get().map(PrometheusHandle::render).unwrap_or_default()
}

/// Moves what histograms have recorded into their buckets, so that it takes no memory while nobody asks for the
/// metrics. To be called now and then.
pub fn maintain() {
    if let Some(handle) = HANDLE.get() {
        handle.run_upkeep();
    }
}

fn describe() {
    describe_counter!(
        "hallpass_mirror_hits_total",
        "Requests authorized from memory, without a network call"
    );
    describe_counter!(
        "hallpass_mirror_misses_total",
        "Requests with a token that was not in the mirror and had to be looked up"
    );
    describe_counter!(
        "hallpass_fallbacks_total",
        "Requests authorized by a query to SQL, mostly without a lease"
    );
    describe_counter!("hallpass_redis_look_ups_total", "Tokens looked up in Redis, by outcome");
    describe_gauge!("hallpass_database_connections", "Connections to the database, by pool");
    describe_gauge!("hallpass_database_connections_idle", "Idle connections to the database, by pool");
    describe_gauge!("hallpass_tasks", "Tasks of the Tokio runtime that have not ended");
    describe_counter!("hallpass_revocations_total", "Revocations, by outcome");
    describe_counter!("hallpass_acknowledgements_total", "Acknowledgements of revocations by instances");
    describe_counter!("hallpass_reconciles_total", "How often revocations were read from SQL");
    describe_counter!("hallpass_followers_lost_total", "How often the event stream of a partition was lost");
    describe_counter!(
        "hallpass_foreign_entries_total",
        "Stream entries that Hallpass did not write, skipped"
    );
    describe_counter!("hallpass_unreadable_entries_total", "Stream entries that could not be read");
    describe_counter!("hallpass_unlisted_total", "Tokens that could not be listed in Redis");
    describe_histogram!("hallpass_revocation_seconds", Unit::Seconds, "How long a revocation took");
    describe_gauge!("hallpass_mirror_sessions", "Sessions in the mirror, ended ones included");
    describe_gauge!("hallpass_lease_age_seconds", Unit::Seconds, "Time since the lease was renewed");
    describe_gauge!(
        "hallpass_lease_held",
        "1 while this instance holds a lease, so that it may use its mirror"
    );
    describe_gauge!("hallpass_instances", "Running instances, as this one sees them");
}
