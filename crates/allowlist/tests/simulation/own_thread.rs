//! Followers on a thread of their own, in real time.

use std::{collections::BTreeMap, sync::Arc, thread, time::Duration};

use hallpass_allowlist::{
    Allowlist, Bus, Clock, ClusterOptions, MemoryBus, MemoryServer, SharedSettings, SystemClock,
};
use tokio::runtime::Builder;

use crate::{
    network::{Pause, Random, Wire},
    store::{SimulatedStore, Tables},
};

/// Longer than a lease.
const BUSY: Duration = Duration::from_millis(1500);

#[test]
fn lease_is_renewed_while_the_application_keeps_its_runtime_busy() {
    for own_thread in [true, false] {
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let is_ready = runtime.block_on(async {
            let wire = Wire::new(&Arc::<Pause>::default(), &Random::new(1));
            let store = SimulatedStore { tables: Tables::begin(), wire };
            let options = ClusterOptions {
                bus: Bus::memory(MemoryBus::new(&MemoryServer::default())),
                instance_name: "a".into(),
                shared: SharedSettings {
                    equal: BTreeMap::new(),
                    signs: "key".into(),
                    accepts: vec!["key".into()],
                    key_names: ["", ""],
                },
                startup_timeout: Duration::from_secs(30),
                own_thread,
            };
            let clock = Arc::new(SystemClock);
            let allowlist = Allowlist::load(store, clock, Some(options), SystemClock.now()).await.unwrap();
            thread::sleep(BUSY);
            let is_ready = allowlist.is_ready();
            allowlist.leave().await;
            is_ready
        });
        assert_eq!(is_ready, own_thread);
    }
}
