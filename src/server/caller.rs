//! Who makes a request: the address behind the proxies that are trusted, and what the browser or
//! program says it is.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use axum::{
    extract::ConnectInfo,
    http::{HeaderMap, HeaderName, header, request::Parts},
};
use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use serde::Deserialize;
use woothee::{parser::Parser, woothee::VALUE_UNKNOWN};

use super::sessions::Device;

/// More than any browser sends says nothing more.
const MAX_USER_AGENT_CHARS: usize = 256;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The networks of the proxies in front, whose `X-Forwarded-For` is believed.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct TrustedProxies(Vec<IpNet>);

impl TryFrom<String> for TrustedProxies {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = |text: &str| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            text.parse().or(address).map_err(|_| format!("{text:?} is neither a network nor an address"))
        };
        let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        texts.map(network).collect::<Result<_, _>>().map(Self)
    }
}

impl TrustedProxies {
    fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}

/// The one who makes a request.
#[derive(Debug, Clone)]
pub struct Caller {
    pub address: IpAddr,
    pub user_agent: String,
}

impl Caller {
    pub fn of(parts: &Parts, proxies: &TrustedProxies) -> Self {
        let peer = parts.extensions.get::<ConnectInfo<SocketAddr>>();
        let peer = peer.map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |ConnectInfo(address)| address.ip());
        let user_agent = parts.headers.get(header::USER_AGENT).map(|value| value.as_bytes());
        let user_agent = String::from_utf8_lossy(user_agent.unwrap_or_default());
        Self {
            address: behind_proxies(peer.to_canonical(), &parts.headers, proxies),
            user_agent: user_agent.chars().take(MAX_USER_AGENT_CHARS).collect(),
        }
    }

    /// Where it comes from, as far as that is the same for one person: the address of a host or, for
    /// IPv6, the network that a provider gives to a customer.
    pub fn site(&self) -> IpNet {
        match self.address {
            IpAddr::V4(address) => IpNet::V4(Ipv4Net::from(address)),
            IpAddr::V6(address) => IpNet::V6(network_v6(address.into(), 64)),
        }
    }

    /// What is kept of it with a session.
    pub fn device(&self) -> Device {
        let network = match self.address {
            IpAddr::V4(address) => {
                let octets = address.octets();
                format!("{}.{}.{}.0/24", octets[0], octets[1], octets[2])
            }
            IpAddr::V6(address) => network_v6(address.into(), 48).to_string(),
        };
        Device { user_agent: self.user_agent.clone(), address: network }
    }
}

fn network_v6(address: Ipv6Net, bits: u8) -> Ipv6Net {
    Ipv6Net::new(address.addr(), bits).map_or(address, |network| network.trunc())
}

/// The last address on the way here that no trusted proxy has: what it claims about who came before
/// proves nothing.
fn behind_proxies(peer: IpAddr, headers: &HeaderMap, proxies: &TrustedProxies) -> IpAddr {
    // Bytes that are no text do not hide what a proxy has written behind them.
    let values = headers.get_all(X_FORWARDED_FOR).iter();
    let values: Vec<_> = values.map(|value| String::from_utf8_lossy(value.as_bytes())).collect();
    let mut address = peer;
    for hop in values.iter().flat_map(|value| value.split(',')).rev() {
        if !proxies.trust(address) {
            break;
        }
        match hop.trim().parse::<IpAddr>() {
            Ok(hop) => address = hop.to_canonical(),
            Err(_) => break,
        }
    }
    address
}

impl Device {
    /// The browser and the system, as far as its user agent tells.
    pub fn in_words(&self) -> String {
        let Some(found) = Parser::new().parse(&self.user_agent) else {
            return "Unknown device".into();
        };
        let system = known(found.os).map(|system| match system {
            "Mac OSX" => "macOS",
            "Windows UNKNOWN Ver" => "Windows",
            other => other,
        });
        let browser = known(found.name).map(|browser| match browser {
            "HTTP Library" => "A program",
            "SamsungBrowser" => "Samsung Internet",
            other => other,
        });
        match (browser, system) {
            (Some(browser), Some(system)) => format!("{browser} on {system}"),
            (Some(one), None) | (None, Some(one)) => one.to_owned(),
            (None, None) => "Unknown device".into(),
        }
    }
}

fn known(name: &str) -> Option<&str> {
    (name != VALUE_UNKNOWN).then_some(name)
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
        behind_proxies(peer.parse().unwrap(), &headers, &proxies).to_string()
    }

    #[test]
    fn only_a_trusted_proxy_is_believed() {
        assert_eq!(address("203.0.113.9", &["198.51.100.1"], ""), "203.0.113.9");
        assert_eq!(address("203.0.113.9", &["198.51.100.1"], "10.0.0.0/8"), "203.0.113.9");
        assert_eq!(address("10.0.0.1", &["198.51.100.1"], "10.0.0.0/8"), "198.51.100.1");
        assert_eq!(address("10.0.0.1", &[], "10.0.0.0/8"), "10.0.0.1");
        // What the client itself has put there stands in front.
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

    fn caller(address: &str) -> Caller {
        Caller { address: address.parse().unwrap(), user_agent: String::new() }
    }

    #[test]
    fn what_is_kept_of_an_address_is_coarse() {
        assert_eq!(caller("203.0.113.9").device().address, "203.0.113.0/24");
        assert_eq!(caller("2001:db8:1:2:3::4").device().address, "2001:db8:1::/48");
        assert_eq!(caller("203.0.113.9").site().to_string(), "203.0.113.9/32");
        assert_eq!(caller("2001:db8:1:2:3::4").site().to_string(), "2001:db8:1:2::/64");
    }

    #[test]
    fn a_device_is_told_in_words() {
        for (user_agent, words) in [
            ("Mozilla/5.0 (X11; Linux x86_64; rv:132.0) Gecko/20100101 Firefox/132.0", "Firefox on Linux"),
            (
                "Mozilla/5.0 (Macintosh; Intel Mac OS X 10_15_7) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Safari/605.1.15",
                "Safari on macOS",
            ),
            (
                "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Version/18.0 Mobile/15E148 Safari/604.1",
                "Safari on iPhone",
            ),
            (
                "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36 Edg/130.0.0.0",
                "Edge on Windows 10",
            ),
            ("curl/8.5.0", "A program"),
            ("<script>alert(1)</script>", "Unknown device"),
            ("", "Unknown device"),
        ] {
            let device = Device { user_agent: user_agent.into(), ..Device::default() };
            assert_eq!(device.in_words(), words, "{user_agent}");
        }
    }
}
