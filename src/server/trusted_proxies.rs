//! The setting that names the trusted proxies.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net};
use serde::Deserialize;

/// The networks of the trusted proxies, whose `X-Forwarded-*` headers are used.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct TrustedProxies(Vec<IpNet>);

impl TrustedProxies {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl TryFrom<String> for TrustedProxies {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let network = |text: &str| {
            let address = text.parse::<IpAddr>().map(IpNet::from);
            let network = text.parse().or(address);
            network.map(canonical).map_err(|_| format!("{text:?} is neither a network nor an address"))
        };
        let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        texts.map(network).collect::<Result<_, _>>().map(Self)
    }
}

/// Converts a network of IPv4-mapped IPv6 addresses to IPv4, the form in which peers are compared.
fn canonical(network: IpNet) -> IpNet {
    let IpAddr::V4(address) = network.addr().to_canonical() else { return network };
    let bits = if network.max_prefix_len() == 128 {
        network.prefix_len().checked_sub(96)
    } else {
        Some(network.prefix_len())
    };
    bits.and_then(|bits| Ipv4Net::new(address, bits).ok()).map_or(network, IpNet::V4)
}

impl TrustedProxies {
    pub fn trust(&self, address: IpAddr) -> bool {
        self.0.iter().any(|network| network.contains(&address))
    }
}
