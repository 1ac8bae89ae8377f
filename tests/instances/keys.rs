//! Signing keys that change while all instances run.

use std::{fs, path::Path};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    client::{Api, Pair},
    support::{
        instance::make_key,
        process::wait_until,
        world::{Kind, World},
    },
};

const ANN: &str = "ann@example.com";

fn copy_keys(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for file in fs::read_dir(from).unwrap() {
        let file = file.unwrap();
        // Complete or missing, as a new key has to be.
        let unfinished = to.join(format!(".{}", file.file_name().display()));
        fs::copy(file.path(), &unfinished).unwrap();
        fs::rename(unfinished, to.join(file.file_name())).unwrap();
    }
}

/// The ids of the keys that an instance publishes, of which the first one signs.
pub async fn published(api: &Api, instance: usize) -> Vec<String> {
    let (_, keys) = api.answered(api.get_request(instance, "/.well-known/jwks.json")).await.unwrap();
    let id = |key: &Value| key["kid"].as_str().unwrap().to_owned();
    keys["keys"].as_array().unwrap().iter().map(id).collect()
}

pub fn signed_with(pair: &Pair) -> String {
    jsonwebtoken::decode_header(&pair.access).unwrap().kid.unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn new_key_signs_once_every_instance_has_it() {
    let folder = TempDir::new().unwrap();
    let shared = folder.path().join("shared");
    let first = make_key(&shared);
    let settings = [("HALLPASS_SIGNING_KEY", ""), ("HALLPASS_KEYS", shared.to_str().unwrap())];
    let mut world = World::with(Kind::Single, &settings).await;
    let api = Api::of(&world);
    let before = api.register(0, ANN).await;
    assert_eq!(signed_with(&before), first);
    let own = |number: usize| folder.path().join(number.to_string());
    for (number, instance) in world.instances.iter_mut().enumerate() {
        copy_keys(&shared, &own(number));
        instance.set("HALLPASS_KEYS", own(number).to_str().unwrap());
        assert!(instance.stop().await);
        instance.start_again();
        instance.wait_until_ready().await;
    }

    let second = make_key(&own(0));
    for number in 0..2 {
        if number > 0 {
            copy_keys(&own(0), &own(number));
        }
        let both = [first.clone(), second.clone()];
        wait_until("it accepts the new key", async || published(&api, number).await == both).await;
        // An instance that is restarted half-way signs with the key that all have.
        assert!(world.instances[0].stop().await);
        world.instances[0].start_again();
        world.instances[0].wait_until_ready().await;
        let pair = api.login(0, ANN).await;
        assert_eq!(signed_with(&pair), first, "an instance does not have the new key");
        assert_eq!(api.me_everywhere(&pair).await, [200; 3]);
    }
    copy_keys(&own(0), &own(2));
    for number in 0..3 {
        let both = [second.clone(), first.clone()];
        wait_until("it signs with the new key", async || published(&api, number).await == both).await;
    }
    let after = api.login(0, ANN).await;
    assert_eq!(signed_with(&after), second);
    for pair in [&before, &after] {
        assert_eq!(api.me_everywhere(pair).await, [200; 3]);
    }
    let next = api.refresh(1, &before).await.unwrap();
    assert_eq!((signed_with(&next), api.logout(2, &next).await.0.as_u16()), (second.clone(), 200));
    assert_eq!(api.me_everywhere(&next).await, [401; 3]);

    // A key whose file is lost is still accepted: tokens that it has signed are live. A running instance makes no key.
    fs::remove_dir_all(own(1)).unwrap();
    let log = || world.instances[1].printed();
    wait_until("the folder is missed", async || log().contains("there is no signing key in")).await;
    assert!(!own(1).exists());
    copy_keys(&shared, &own(1));
    wait_until("the key is missed", async || log().contains(&format!("{second} is gone"))).await;
    let pair = api.login(1, ANN).await;
    assert_eq!(
        (signed_with(&pair), api.me_everywhere(&pair).await),
        (second, vec![200.try_into().unwrap(); 3])
    );
}
