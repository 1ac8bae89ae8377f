//! What happened in a run, in order.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use hallpass_allowlist::SessionId;
use tokio::time::Instant;

/// The order of what happened. Everything runs on one thread, so each step comes before or after another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Step(u64);

pub struct History {
    began: Instant,
    is_traced: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    steps: u64,
    acknowledged: BTreeMap<SessionId, Step>,
    counts: BTreeMap<String, u64>,
    violation: Option<String>,
    trace: Vec<String>,
}

impl History {
    pub fn begin(is_traced: bool) -> Self {
        Self { began: Instant::now(), is_traced, state: Mutex::default() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn step(&self) -> Step {
        let mut state = self.state();
        state.steps += 1;
        Step(state.steps)
    }

    /// Adds a line to the trace, with the simulated time.
    pub fn note(&self, text: impl FnOnce() -> String) {
        if self.is_traced {
            let line = format!("{:>10.3} s  {}", self.began.elapsed().as_secs_f64(), text());
            self.state().trace.push(line);
        }
    }

    pub fn count(&self, what: &str) {
        *self.state().counts.entry(what.to_owned()).or_default() += 1;
    }

    pub fn violation(&self, text: String) {
        self.note(|| format!("VIOLATION {text}"));
        self.state().violation.get_or_insert(text);
    }

    pub fn has_violation(&self) -> bool {
        self.state().violation.is_some()
    }

    /// The sessions' revocation has been acknowledged.
    pub fn acknowledged(&self, sessions: impl IntoIterator<Item = SessionId>) {
        let step = self.step();
        let mut state = self.state();
        for session_id in sessions {
            state.acknowledged.entry(session_id).or_insert(step);
        }
    }

    /// Whether the revocation of the session was acknowledged before this step.
    pub fn was_acknowledged(&self, session_id: SessionId, before: Step) -> bool {
        self.state().acknowledged.get(&session_id).is_some_and(|step| *step < before)
    }

    pub fn end(&self) -> (BTreeMap<String, u64>, Option<String>, Vec<String>) {
        let state = std::mem::take(&mut *self.state());
        (state.counts, state.violation, state.trace)
    }
}
