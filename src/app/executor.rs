//! The executor of the effects and calls of a page.

use any_spawner::{CustomExecutor, Executor, PinnedFuture, PinnedLocalFuture};
use gloo_timers::future::TimeoutFuture;
use wasm_bindgen_futures::spawn_local;

use super::dom::is_hydrated;

/// Starts each task that hydration spawns in a turn of its own, so that the browser can answer input and paint between
/// them: together they would block a phone for some hundred milliseconds. Later tasks start as usual.
struct InTurns;

impl CustomExecutor for InTurns {
    fn spawn(&self, task: PinnedFuture<()>) {
        self.spawn_local(task);
    }

    fn spawn_local(&self, task: PinnedLocalFuture<()>) {
        if is_hydrated() {
            spawn_local(task);
        } else {
            spawn_local(async {
                TimeoutFuture::new(0).await;
                task.await;
            });
        }
    }

    fn poll_local(&self) {}
}

/// Uses this executor. To be called before anything is spawned.
pub fn init() {
    let _ = Executor::init_custom_executor(InTurns);
}
