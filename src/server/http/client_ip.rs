//! The client of a request: its address, which trusted proxies forward, and its user agent.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Once,
};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use tracing::warn;

use crate::server::{client_info::ClientInfo, trusted_proxies::TrustedProxies};

/// The number of characters that are kept of a user agent: more than browsers send.
const MAX_USER_AGENT_CHARS: usize = 256;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

impl ClientInfo {
    pub fn of(parts: &Parts, proxies: &TrustedProxies) -> Self {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip());
        warn_about_untrusted(peer.to_canonical(), &parts.headers, proxies);
        let user_agent = parts.headers.get(header::USER_AGENT).map(|value| value.as_bytes());
        let user_agent = String::from_utf8_lossy(user_agent.unwrap_or_default());
        Self {
            address: client_ip(peer.to_canonical(), &parts.headers, proxies),
            user_agent: user_agent.chars().take(MAX_USER_AGENT_CHARS).collect(),
        }
    }
}

/// The last address in the chain of proxies that is not a trusted proxy's. The addresses before it are
/// unverified claims of that client.
fn client_ip(peer: IpAddr, headers: &HeaderMap, proxies: &TrustedProxies) -> IpAddr {
    // Bytes that are not text must not hide the addresses that proxies have appended to them.
    let values = headers.get_all(X_FORWARDED_FOR).iter();
    let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let mut address = peer;
    let hops = values.iter().flat_map(|value| value.split(',')).map(str::trim);
    // Empty elements of a list are ignored (RFC 9110, 5.6.1).
    for hop in hops.filter(|hop| !hop.is_empty()).rev() {
        if !proxies.trust(address) {
            break;
        }
        match parse_hop(hop) {
            Some(hop) => address = hop,
            None => break,
        }
    }
    address
}

/// Parses an address as proxies write it: `192.0.2.1`, `192.0.2.1:443`, `2001:db8::1`, `[2001:db8::1]`,
/// `[2001:db8::1]:443`, with or without quotes. `None` for `unknown` and anything else.
fn parse_hop(hop: &str) -> Option<IpAddr> {
    let hop = hop.trim_matches('"').trim();
    let is_port = |port: &str| port.bytes().all(|byte| byte.is_ascii_digit());
    let host = match hop.strip_prefix('[') {
        Some(rest) => {
            let (host, port) = rest.split_once(']')?;
            is_port(port.strip_prefix(':').unwrap_or(port)).then_some(host)?
        }
        None => match hop.rsplit_once(':') {
            // In an IPv6 address without brackets, one group too many is the port.
            Some((host, port)) if is_port(port) && without_zone(hop).parse::<IpAddr>().is_err() => host,
            _ => hop,
        },
    };
    without_zone(host).parse::<IpAddr>().ok().map(|address| address.to_canonical())
}

/// The address without its zone, the interface that it is reached through: `fe80::1%eth0`.
fn without_zone(host: &str) -> &str {
    host.split('%').next().unwrap_or(host)
}

/// Warns once if a request comes through a proxy that is not configured: all its users then count as one
/// address.
fn warn_about_untrusted(peer: IpAddr, headers: &HeaderMap, proxies: &TrustedProxies) {
    static SAID: Once = Once::new();
    if headers.contains_key(X_FORWARDED_FOR) && !proxies.trust(peer) {
        SAID.call_once(|| {
            warn!(
                "ignored X-Forwarded-For from {peer}: if that is a proxy in front of this server, name it in \
                 HALLPASS_TRUSTED_PROXIES; until then all of its users share the rate limits of one address"
            );
        });
    }
}

#[cfg(test)]
mod tests {
    use axum::http::HeaderValue;

    use super::*;

    fn address(peer: &str, forwarded: &[&str], proxies: &str) -> String {
        let mut headers = HeaderMap::new();
        for value in forwarded {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(value.as_bytes()).unwrap());
        }
        let proxies = TrustedProxies::try_from(proxies.to_owned()).unwrap();
        client_ip(peer.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(address("203.0.113.9", &["198.51.100.1"], ""), "203.0.113.9");
        assert_eq!(address("203.0.113.9", &["198.51.100.1"], "10.0.0.0/8"), "203.0.113.9");
        assert_eq!(address("10.0.0.1", &["198.51.100.1"], "10.0.0.0/8"), "198.51.100.1");
        assert_eq!(address("10.0.0.1", &[], "10.0.0.0/8"), "10.0.0.1");
        // The address that the client itself has sent comes first.
        assert_eq!(address("10.0.0.1", &["192.0.2.66, 198.51.100.1"], "10.0.0.0/8"), "198.51.100.1");
        assert_eq!(
            address("10.0.0.1", &["192.0.2.66", "198.51.100.1, 10.1.1.1"], "10.0.0.0/8"),
            "198.51.100.1"
        );
        assert_eq!(address("10.0.0.1", &["not an address"], "10.0.0.0/8"), "10.0.0.1");
        assert_eq!(
            address("10.0.0.1", &["192.0.2.66", "\u{e9}, 198.51.100.1"], "10.0.0.0/8"),
            "198.51.100.1"
        );
        assert_eq!(address("10.0.0.1", &["192.0.2.66", "\u{e9}"], "10.0.0.0/8"), "10.0.0.1");
        assert_eq!(address("::1", &["2001:db8::7"], "::1, 127.0.0.1"), "2001:db8::7");
    }

    #[test]
    fn an_address_is_read_in_every_form_that_proxies_write() {
        for (hop, read) in [
            ("198.51.100.7", "198.51.100.7"),
            ("198.51.100.7:51234", "198.51.100.7"),
            ("  198.51.100.7\t", "198.51.100.7"),
            ("\"198.51.100.7\"", "198.51.100.7"),
            ("\"198.51.100.7:80\"", "198.51.100.7"),
            ("2001:db8:1::9", "2001:db8:1::9"),
            ("2001:DB8:1::9", "2001:db8:1::9"),
            ("[2001:db8:1::9]", "2001:db8:1::9"),
            ("[2001:db8:1::9]:443", "2001:db8:1::9"),
            ("\"[2001:db8:1::9]:443\"", "2001:db8:1::9"),
            ("2001:db8:1:2:3:4:5:6:443", "2001:db8:1:2:3:4:5:6"),
            ("::ffff:198.51.100.7", "198.51.100.7"),
            ("[::ffff:198.51.100.7]:443", "198.51.100.7"),
            ("::ffff:c633:6407", "198.51.100.7"),
            ("fe80::1%eth0", "fe80::1"),
            ("[fe80::1%25eth0]:443", "fe80::1"),
            ("fe80::1:2%3", "fe80::1:2"),
        ] {
            assert_eq!(address("10.0.0.1", &[hop], "10.0.0.0/8"), read, "{hop:?}");
            let list = format!("192.0.2.66, , {hop} ,, 10.1.1.1,");
            assert_eq!(address("10.0.0.1", &[&list], "10.0.0.0/8"), read, "{list:?}");
        }
        for hop in [
            "unknown",
            "_hidden",
            "",
            " ",
            ",",
            "198.51.100",
            "[198.51.100.7",
            "198.51.100.7:http",
            "[::1]x",
            "a:b",
        ] {
            assert_eq!(address("10.0.0.1", &[hop], "10.0.0.0/8"), "10.0.0.1", "{hop:?}");
            assert_eq!(
                address("10.0.0.1", &["192.0.2.66, unknown", hop], "10.0.0.0/8"),
                "10.0.0.1",
                "{hop:?}"
            );
        }
    }

    #[test]
    fn a_proxy_is_known_in_either_image_of_its_address() {
        for proxies in ["10.0.0.0/8", "::ffff:10.0.0.1", "::ffff:10.0.0.0/104", "10.0.0.1"] {
            assert_eq!(address("10.0.0.1", &["198.51.100.7"], proxies), "198.51.100.7", "{proxies}");
        }
        assert_eq!(address("10.0.0.1", &["198.51.100.7"], "::ffff:11.0.0.0/104"), "10.0.0.1");
    }
}
