//! Three members in one process: a token that one of them issues is live in all of them, and once one of them has
//! revoked its session, it is dead in all of them.
//!
//! `cargo run -p hallpass-allowlist --example three_members`

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    convert::Infallible,
    error::Error,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hallpass_allowlist::{
    Allowlist, Bus, Clock, ClusterOptions, InstanceId, InstanceRow, LiveTokens, MemberKind, MemoryBus,
    MemoryServer, Recorded, RevokedSession, SessionId, SessionStore, SharedSettings, SystemClock, TokenId,
    TokenRecord, UnixSeconds, UserId,
};

/// The database of the application: here, tables in memory.
#[derive(Clone, Default)]
struct Store(Arc<Mutex<Tables>>);

#[derive(Default)]
struct Tables {
    tokens: Vec<TokenRecord>,
    revoked: HashSet<SessionId>,
    instances: HashMap<String, InstanceRow>,
}

impl Store {
    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a login records, in a transaction.
    fn record_login(&self, token: TokenRecord) {
        self.tables().tokens.push(token);
    }

    /// What a logout records, in a transaction.
    fn record_logout(&self, session_id: SessionId) -> Recorded {
        let is_new = self.tables().revoked.insert(session_id);
        Recorded { session: RevokedSession { session_id, user_id: None, tokens: Vec::new() }, is_new }
    }
}

impl SessionStore for Store {
    type Error = Infallible;

    async fn is_token_live(&self, token: &TokenRecord) -> Result<bool, Infallible> {
        let tables = self.tables();
        Ok(tables.tokens.contains(token) && !tables.revoked.contains(&token.session_id))
    }

    async fn revoked_sessions(
        &self,
        _: UnixSeconds,
        each: impl FnMut(SessionId) + Send + 'static,
    ) -> Result<(), Infallible> {
        self.tables().revoked.iter().copied().for_each(each);
        Ok(())
    }

    async fn record_instance(&self, id: InstanceId, name: &str, facts: &str) -> Result<i64, Infallible> {
        let (id, name, facts) = (id.to_string(), name.to_owned(), facts.to_owned());
        let mut tables = self.tables();
        let beat = tables.instances.get(&id).map_or(0, |row| row.beat + 1);
        tables.instances.insert(id.clone(), InstanceRow { id, name, beat, facts });
        Ok(SystemClock.now() * 1000)
    }

    async fn other_instances(&self, id: InstanceId) -> Result<Vec<InstanceRow>, Infallible> {
        let tables = self.tables();
        Ok(tables.instances.values().filter(|row| row.id != id.to_string()).cloned().collect())
    }

    async fn delete_instance(&self, id: &str, beat: Option<i64>) -> Result<(), Infallible> {
        let mut tables = self.tables();
        if tables.instances.get(id).is_some_and(|row| beat.is_none_or(|beat| beat == row.beat)) {
            tables.instances.remove(id);
        }
        Ok(())
    }
}

impl LiveTokens for Store {
    async fn live_tokens(
        &self,
        now: UnixSeconds,
        each: impl FnMut(TokenRecord) + Send,
    ) -> Result<(), Infallible> {
        let tables = self.tables();
        let live = tables.tokens.iter().filter(|token| !tables.revoked.contains(&token.session_id));
        live.filter(|token| token.expires_at > now).copied().for_each(each);
        Ok(())
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let (store, server) = (Store::default(), MemoryServer::default());
    let mut members = Vec::new();
    for name in ["a", "b", "c"] {
        let options = ClusterOptions {
            bus: Bus::memory(MemoryBus::new(&server)),
            instance_name: name.to_owned(),
            kind: MemberKind::Instance,
            shared: SharedSettings {
                equal: BTreeMap::from([("issuer".to_owned(), "https://example.com".to_owned())]),
                signs: Some("key 1".to_owned()),
                accepts: vec!["key 1".to_owned()],
                token_form: 0,
                key_names: ["the signing key", "the previous key"],
            },
            startup_timeout: Duration::from_secs(10),
            own_thread: false,
        };
        let now = SystemClock.now();
        let member = Allowlist::load(store.clone(), Arc::new(SystemClock), Some(options), now).await?;
        members.push((name, member));
    }

    let token = TokenRecord {
        token_id: TokenId::random(),
        session_id: SessionId::random(),
        user_id: UserId::random(),
        expires_at: SystemClock.now() + 300,
    };
    store.record_login(token);
    members[0].1.allow(&token).await;
    for (name, member) in &members {
        println!("{name}: is the token live? {:?}", member.check(&token).await);
    }

    let recording = {
        let store = store.clone();
        async move { Ok(Some(store.record_logout(token.session_id))) }
    };
    let revocation = members[1].1.logout(token.session_id, Some(token.user_id), recording).await?;
    println!(
        "b has logged out: {} of {} members acknowledged it, in {:?}",
        revocation.acknowledged, revocation.instances, revocation.elapsed
    );
    for (name, member) in &members {
        println!("{name}: is the token live? {:?}", member.check(&token).await);
    }
    for (_, member) in &members {
        member.leave().await;
    }
    Ok(())
}
