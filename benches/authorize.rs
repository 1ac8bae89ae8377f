//! The cost of authorizing a request, compared with a stateless check of the same token.
//!
//! `cargo bench --features ssr` prints both; compare them within one run.

#![expect(clippy::unwrap_used, reason = "a benchmark that cannot be set up cannot go on")]

use std::{fs, hint::black_box, net::Ipv4Addr};

use base64::{Engine, prelude::BASE64_URL_SAFE_NO_PAD};
use criterion::{Criterion, criterion_group, criterion_main};
use futures::FutureExt;
use hallpass::server::{
    auth::{Auth, jwt::Claims},
    client_info::ClientInfo,
    clock,
    config::Config,
    db::{Access, Db},
};
use hallpass_allowlist::MemberKind;
use jsonwebtoken::{Algorithm, DecodingKey, Validation};
use tempfile::TempDir;
use tokio::runtime::Runtime;

const SECRET: &[u8] = b"0123456789abcdefghijklmnopqrstuv";

/// The number of live sessions besides the one that is measured.
const OTHERS: usize = 1000;

fn authorize(criterion: &mut Criterion) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().display();
    let settings = folder.path().join("Leptos.toml");
    let text = format!(
        "[package.metadata.leptos]\noutput-name = \"hallpass\"\n\
         [database]\nurl = \"sqlite://{path}/hallpass.db\"\n\
         [token]\nsigning_key = \"{}\"\n\
         [password]\nmemory_kib = 64\niterations = 1\n\
         [throttle]\nper_account = 1000000\nper_address = 1000000\n",
        BASE64_URL_SAFE_NO_PAD.encode(SECRET)
    );
    fs::write(&settings, text).unwrap();
    let config = Config::load(&settings).unwrap();

    let runtime = Runtime::new().unwrap();
    let now = clock::now();
    let (auth, token) = runtime.block_on(async {
        let db = Db::open(&config, Access::Exclusive).await.unwrap();
        let auth = Auth::load(&config, MemberKind::Instance, db, now).await.unwrap();
        let email = "ann@example.com";
        let caller = ClientInfo { address: Ipv4Addr::LOCALHOST.into(), user_agent: String::new() };
        let pair = auth.register(email, "correct horse".into(), &caller, now).await.unwrap();
        for _ in 0..OTHERS {
            auth.login(email, "correct horse".into(), &caller, None, now).await.unwrap();
        }
        (auth, pair.access_token.expose().to_owned())
    });

    let key = DecodingKey::from_secret(SECRET);
    let mut validation = Validation::new(Algorithm::HS256);
    validation.set_issuer(&["hallpass"]);
    validation.set_audience(&["hallpass"]);

    let mut group = criterion.benchmark_group("one request");
    #[expect(clippy::disallowed_methods, reason = "the stateless check to compare with")]
    group.bench_function("bare JWT verification (not revocable)", |bencher| {
        bencher.iter(|| jsonwebtoken::decode::<Claims>(black_box(&token), &key, &validation).unwrap());
    });
    group.bench_function("authorize, a token seen before", |bencher| {
        bencher.iter(|| auth.authorize(black_box(&token), now).now_or_never().unwrap().unwrap());
    });
    group.finish();
}

criterion_group!(benches, authorize);
criterion_main!(benches);
