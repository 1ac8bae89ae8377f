//! The cost of authorizing a request, compared with a stateless check of the same token, for each algorithm.
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
    clock::{self, UnixSeconds},
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
    let mut group = criterion.benchmark_group("one request");
    for algorithm in [Algorithm::EdDSA, Algorithm::ES256, Algorithm::HS256] {
        let folder = TempDir::new().unwrap();
        let runtime = Runtime::new().unwrap();
        let now = clock::now();
        let (auth, token) = runtime.block_on(load(&folder, algorithm, now));
        let key = match auth.public_keys(now).first() {
            Some(key) => match &key.y {
                Some(y) => DecodingKey::from_ec_components(&key.x, y).unwrap(),
                None => DecodingKey::from_ed_components(&key.x).unwrap(),
            },
            None => DecodingKey::from_secret(SECRET),
        };
        let mut validation = Validation::new(algorithm);
        validation.set_issuer(&["hallpass"]);
        validation.set_audience(&["hallpass"]);
        #[expect(clippy::disallowed_methods, reason = "the stateless check to compare with")]
        group.bench_function(format!("bare JWT verification (not revocable), {algorithm:?}"), |bencher| {
            bencher.iter(|| jsonwebtoken::decode::<Claims>(black_box(&token), &key, &validation).unwrap());
        });
        group.bench_function(format!("authorize, a token seen before, {algorithm:?}"), |bencher| {
            bencher.iter(|| auth.authorize(black_box(&token), now).now_or_never().unwrap().unwrap());
        });
    }
    group.finish();
}

/// An instance that signs with this algorithm, and the token that is measured, among others that are live.
async fn load(folder: &TempDir, algorithm: Algorithm, now: UnixSeconds) -> (Auth, String) {
    let path = folder.path().display();
    let settings = folder.path().join("Leptos.toml");
    let signing = match algorithm {
        Algorithm::HS256 => format!("signing_key = \"{}\"", BASE64_URL_SAFE_NO_PAD.encode(SECRET)),
        _ => format!("signing_alg = \"{algorithm:?}\"\nkeys = \"{path}/keys\""),
    };
    let text = format!(
        "[package.metadata.leptos]\noutput-name = \"hallpass\"\n\
         [database]\nurl = \"sqlite://{path}/hallpass.db\"\n\
         [token]\n{signing}\n\
         [password]\nmemory_kib = 64\niterations = 1\n\
         [throttle]\nper_account = 1000000\nper_address = 1000000\n"
    );
    fs::write(&settings, text).unwrap();
    let config = Config::load(&settings).unwrap();
    let db = Db::open(&config, Access::Exclusive).await.unwrap();
    let auth = Auth::load(&config, MemberKind::Instance, db, now).await.unwrap();
    let email = "ann@example.com";
    let caller = ClientInfo { address: Ipv4Addr::LOCALHOST.into(), user_agent: String::new() };
    let pair = auth.register(email, "correct horse".into(), &caller, now).await.unwrap();
    for _ in 0..OTHERS {
        auth.login(email, ("correct horse".into(), ""), &caller, None, now).await.unwrap();
    }
    (auth, pair.access_token.expose().to_owned())
}

criterion_group!(benches, authorize);
criterion_main!(benches);
