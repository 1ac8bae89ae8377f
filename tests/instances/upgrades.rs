//! Instances with two builds of the site run beside each other, as during an upgrade.

use reqwest::{Client, StatusCode, header};

use crate::support::world::{Kind, World};

/// The files of a build: names and contents.
fn build(version: &str) -> Vec<(&'static str, Vec<u8>)> {
    vec![
        ("hallpass.js", format!("// {version}").into_bytes()),
        ("hallpass.css", format!("/* {version} */").repeat(20).into_bytes()),
        ("hallpass.css.br", format!("brotli {version}").into_bytes()),
        ("hallpass.css.gz", format!("gzip {version}").into_bytes()),
        ("hallpass.wasm", [b"\0asm\xff\xfe", version.as_bytes()].concat()),
    ]
}

struct Site {
    world: World,
    client: Client,
}

impl Site {
    async fn restart(&mut self, number: usize, version: &str) {
        let instance = &mut self.world.instances[number];
        assert!(instance.stop().await);
        for (name, contents) in build(version) {
            instance.build_site_file(name, &contents);
        }
        instance.start_again();
        instance.wait_until_ready().await;
    }

    /// The folder of the files in a page of this instance.
    async fn folder(&self, number: usize) -> String {
        let url = format!("{}/login", self.world.instances[number].url);
        let page = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let path = page.split('"').find(|part| part.ends_with("/pkg/hallpass.js")).unwrap();
        path.trim_end_matches("hallpass.js").to_owned()
    }

    /// Every instance serves every file of this build, in each coding.
    async fn assert_all_serve(&self, folder: &str, version: &str) {
        for instance in &self.world.instances {
            for (accepted, suffix) in
                [("", ""), ("gzip, br", ".br"), ("gzip;q=0.5, br;q=0", ".gz"), ("zstd", "")]
            {
                for (name, content_type) in [
                    ("hallpass.js", "text/javascript"),
                    ("hallpass.css", "text/css"),
                    ("hallpass.wasm", "application/wasm"),
                ] {
                    let files = build(version);
                    let contents =
                        |name: &str| files.iter().find(|(one, _)| *one == name).map(|(_, contents)| contents);
                    let compressed = contents(&format!("{name}{suffix}")).filter(|_| !suffix.is_empty());
                    let url = format!("{}{folder}{name}", instance.url);
                    let request = self.client.get(&url).header(header::ACCEPT_ENCODING, accepted);
                    let response = request.send().await.unwrap();
                    assert_eq!(response.status(), 200, "{url} {accepted}");
                    let header = |name: header::HeaderName| {
                        response.headers().get(name).map_or("", |value| value.to_str().unwrap()).to_owned()
                    };
                    assert!(header(header::CONTENT_TYPE).starts_with(content_type), "{url}");
                    assert!(header(header::CACHE_CONTROL).contains("immutable"), "{url}");
                    let coding = header(header::CONTENT_ENCODING);
                    let expected = match (compressed, suffix) {
                        (Some(_), ".br") => "br",
                        (Some(_), _) => "gzip",
                        (None, _) => "",
                    };
                    let body = response.bytes().await.unwrap();
                    if coding.is_empty() {
                        assert_eq!(body, contents(name).unwrap(), "{url} {accepted}");
                    }
                    // An instance of another version compresses the file when it sends it.
                    if compressed.is_some() {
                        assert_eq!(coding, expected, "{url} {accepted}");
                        assert!(body.len() < contents(name).unwrap().len(), "{url} {accepted}");
                    }
                }
            }
        }
    }
}

#[tokio::test]
async fn files_of_both_builds_are_served_by_every_instance_during_an_upgrade() {
    let world = World::without_links(Kind::Single).await;
    let mut site = Site { world, client: Client::new() };
    site.restart(0, "one").await;
    let one = site.folder(0).await;
    // Instances 1 and 2 have a third build, without files.
    site.assert_all_serve(&one, "one").await;
    site.restart(1, "two").await;
    let two = site.folder(1).await;
    assert_ne!(one, two);
    site.assert_all_serve(&one, "one").await;
    site.assert_all_serve(&two, "two").await;
    // The upgrade is complete, and pages from before it are still open.
    site.restart(0, "two").await;
    site.restart(2, "two").await;
    assert_eq!(site.folder(0).await, two);
    site.assert_all_serve(&one, "one").await;
    site.assert_all_serve(&two, "two").await;
    // And back.
    site.restart(2, "one").await;
    site.assert_all_serve(&one, "one").await;
    site.assert_all_serve(&two, "two").await;

    for path in
        ["/AAAAAAAAAAAAAAAA/pkg/hallpass.js", &format!("{one}other.js"), &format!("{one}../Leptos.toml")]
    {
        let response =
            site.client.get(format!("{}{path}", site.world.instances[1].url)).send().await.unwrap();
        assert_eq!(response.status(), StatusCode::NOT_FOUND, "{path}");
        assert!(
            !response
                .headers()
                .get("cache-control")
                .is_some_and(|value| value.to_str().unwrap().contains("immutable"))
        );
    }
}

#[tokio::test]
async fn files_of_the_last_builds_are_kept_and_older_ones_deleted() {
    let world = World::without_links(Kind::Single).await;
    let mut site = Site { world, client: Client::new() };
    let mut folders = Vec::new();
    for version in ["1", "2", "3", "4", "5", "6"] {
        site.restart(0, version).await;
        folders.push(site.folder(0).await);
    }
    let url = |folder: &String| format!("{}{folder}hallpass.js", site.world.instances[1].url);
    for folder in &folders[2..] {
        assert_eq!(site.client.get(url(folder)).send().await.unwrap().status(), 200, "{folder}");
    }
    assert_eq!(site.client.get(url(&folders[0])).send().await.unwrap().status(), StatusCode::NOT_FOUND);
}
