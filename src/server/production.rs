//! What a site for the public needs that these settings do not have. An instance starts without it, because for
//! development the same settings are right.

use std::path::Path;

use secrecy::ExposeSecret;

use crate::server::config::{Config, ServerConfig};

/// The findings, each one line with the setting and the remedy. `has_key` says whether there is a signing key.
pub fn missing(config: &Config, has_key: bool) -> Vec<String> {
    let findings = [
        keys(config, has_key),
        https(&config.server),
        trusted_proxies(&config.server),
        public_url(config),
        mail(config),
        admin_second_factor(config),
        sender(config),
        sqlite_on_the_network(config),
        relative_sqlite(config),
        site_folder(config),
    ];
    findings.into_iter().flatten().collect()
}

fn keys(config: &Config, has_key: bool) -> Option<String> {
    (!has_key).then(|| {
        format!(
            "HALLPASS_KEYS: there is no signing key in {}, and the first start makes one; run `hallpass keys new`, and give all instances the same folder",
            config.token.keys
        )
    })
}

fn https(server: &ServerConfig) -> Option<String> {
    (!server.https).then(|| {
        "HALLPASS_HTTPS: it is false, so cookies are sent over plain http; set it to true, and let browsers connect by https".into()
    })
}

/// TLS ends at a proxy.
fn trusted_proxies(server: &ServerConfig) -> Option<String> {
    (server.https && server.trusted_proxies.is_empty()).then(|| {
        "HALLPASS_TRUSTED_PROXIES: it is empty, so all users share the rate limits of the proxy that terminates TLS; set it to the proxy's network".into()
    })
}

fn public_url(config: &Config) -> Option<String> {
    let is_missing = config.server.https && config.server.public_url.0.is_empty();
    is_missing.then(|| {
        format!(
            "HALLPASS_PUBLIC_URL: it is empty, so /.well-known/oauth-authorization-server names http://{}; set it to the address that browsers show",
            config.leptos.site_addr
        )
    })
}

fn admin_second_factor(config: &Config) -> Option<String> {
    (!config.account.admin_second_factor).then(|| {
        "HALLPASS_ADMIN_SECOND_FACTOR: it is false, so the password of an administrator is enough to change every user; set it to true".into()
    })
}

fn mail(config: &Config) -> Option<String> {
    config.mail.smtp_url.is_none().then(|| {
        format!(
            "HALLPASS_SMTP_URL: it is not set, so users cannot reset a forgotten password: mails are files in {}; set it to the mail server, such as smtps://user:password@mail.example.com",
            config.mail.dir
        )
    })
}

fn sender(config: &Config) -> Option<String> {
    let from = &config.mail.from;
    (config.mail.smtp_url.is_some() && from.email.domain() == "localhost").then(|| {
        format!(
            "HALLPASS_MAIL_FROM: it is {from}, which other mail servers refuse; set it to an address of your domain, such as Acme <no-reply@example.com>"
        )
    })
}

fn sqlite_on_the_network(config: &Config) -> Option<String> {
    let address = config.leptos.site_addr;
    (!config.database.is_shared() && !address.ip().is_loopback()).then(|| {
        format!(
            "DATABASE_URL: it is an SQLite file, which serves one instance, but {address} is open to other machines; use PostgreSQL and Redis, or set LEPTOS_SITE_ADDR to a loopback address behind a proxy"
        )
    })
}

fn relative_sqlite(config: &Config) -> Option<String> {
    let path = config.database.url.expose_secret().strip_prefix("sqlite://")?;
    Path::new(path).is_relative().then(|| {
        format!(
            "DATABASE_URL: {path} is relative to the folder that the program runs in; set an absolute path, such as sqlite:///var/lib/hallpass/hallpass.db"
        )
    })
}

fn site_folder(config: &Config) -> Option<String> {
    let folder = Path::new(&*config.leptos.site_root).join(&*config.leptos.site_pkg_dir);
    (!folder.is_dir()).then(|| {
        format!(
            "LEPTOS_SITE_ROOT: there is no folder {}, and no start without it; run `make build`, or set it to where the site is",
            folder.display()
        )
    })
}
