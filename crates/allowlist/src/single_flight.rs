//! Single flight: concurrent callers that ask for the same share one piece of work.

use std::{
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Mutex, PoisonError},
};

use futures::{
    FutureExt,
    future::{BoxFuture, Shared},
};

/// Work in progress that several callers wait for, by key.
///
/// Each is a task of its own, so that it continues when all callers have been dropped: a future driven only
/// by its callers would stop where it was, holding its connection or its lock.
pub struct Flights<K, T>(Arc<Mutex<HashMap<K, Shared<BoxFuture<'static, T>>>>>);

impl<K, T> Default for Flights<K, T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<K, T> Flights<K, T>
where
    K: Hash + Eq + Copy + Send + 'static,
    T: Clone + Send + Sync + 'static,
{
    /// Joins the work for `key` that is in progress, or starts it with `begin`. The result is `crashed` if
    /// it panics.
    pub fn join<F>(&self, key: K, crashed: T, begin: impl FnOnce() -> F) -> Shared<BoxFuture<'static, T>>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let mut flights = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begin = || {
            let landing = Landing { flights: Arc::clone(&self.0), key };
            let work = begin();
            let task = tokio::spawn(async move {
                let _landing = landing;
                work.await
            });
            async move { task.await.unwrap_or(crashed) }.boxed().shared()
        };
        flights.entry(key).or_insert_with(begin).clone()
    }
}

/// Removes a flight from the map when it has ended, even by a panic.
struct Landing<K: Hash + Eq, T> {
    flights: Arc<Mutex<HashMap<K, Shared<BoxFuture<'static, T>>>>>,
    key: K,
}

impl<K: Hash + Eq, T> Drop for Landing<K, T> {
    fn drop(&mut self) {
        self.flights.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}
