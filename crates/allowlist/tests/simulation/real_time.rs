//! Single instances in real time, over a bus and a store in memory.

use std::{sync::Arc, thread, time::Duration};

use hallpass_allowlist::{Allowlist, Bus, Clock, MemoryBus, MemoryServer, SessionId, SystemClock};
use tokio::{runtime::Builder, time};

use crate::{
    member::options,
    network::{Pause, Random, Wire},
    store::{SimulatedStore, Tables},
};

/// Longer than a lease.
const BUSY: Duration = Duration::from_millis(1500);

async fn load(
    name: &str,
    server: &MemoryServer,
    tables: &Arc<Tables>,
    own_thread: bool,
) -> Allowlist<SimulatedStore> {
    let random = Random::new(1);
    let wire = Wire::new(&Arc::<Pause>::default(), &random);
    let store = SimulatedStore {
        tables: Arc::clone(tables),
        wire,
        by_way_of: Arc::default(),
        random: random.clone(),
    };
    let options = options(Bus::memory(MemoryBus::new(server)), name, own_thread);
    Allowlist::load(store, Arc::new(SystemClock), Some(options), SystemClock.now()).await.unwrap()
}

#[test]
fn lease_is_renewed_while_the_application_keeps_its_runtime_busy() {
    for own_thread in [true, false] {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let is_ready = runtime.block_on(async {
            let allowlist = load("a", &MemoryServer::default(), &Tables::begin(), own_thread).await;
            thread::sleep(BUSY);
            let is_ready = allowlist.is_ready();
            allowlist.leave().await;
            is_ready
        });
        assert_eq!(is_ready, own_thread);
    }
}

#[tokio::test]
async fn first_snapshot_in_a_while_is_up_to_date() {
    let (server, tables) = (MemoryServer::default(), Tables::begin());
    let (first, other) = (load("a", &server, &tables, false).await, load("b", &server, &tables, false).await);
    let shown = async |on: &Allowlist<SimulatedStore>| {
        let snapshot = on.snapshot().await;
        snapshot.instances.iter().map(|instance| instance.revocations.len()).sum::<usize>()
    };
    first.revoke_session(SessionId::random(), None, async { Ok(None) }).await.unwrap();
    while shown(&first).await == 0 {
        time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(shown(&other).await, 1);
}
