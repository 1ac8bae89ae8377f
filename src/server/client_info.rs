//! The client of a request: its address, its user agent, and the device that is stored with a session.
//! Nothing here reads a request; `http/client_ip.rs` does.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use sqlx::FromRow;

use crate::server::user_agent;

/// The address and the user agent of a client.
#[derive(Debug, Clone)]
pub struct ClientInfo {
    pub address: IpAddr,
    pub user_agent: String,
}

impl ClientInfo {
    /// The network that rate limits count by: a single IPv4 address or, for IPv6, the /64 that a provider
    /// gives to one customer.
    pub fn rate_limit_prefix(&self) -> IpNet {
        match self.address {
            IpAddr::V4(address) => IpNet::V4(Ipv4Net::from(address)),
            IpAddr::V6(address) => IpNet::V6(network_v6(address.into(), 64)),
        }
    }

    /// The device that is stored with a session. Its address is coarse: an IPv4 /24 or an IPv6 /48.
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

/// The browser or program that logged in, as it is stored with a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, FromRow)]
pub struct Device {
    /// The `User-Agent` header of the login.
    pub user_agent: String,
    /// The network of the client, such as `192.0.2.0/24`.
    pub address: String,
}

impl Device {
    /// The browser and the operating system, such as `Firefox on Linux`, as far as the user agent names them.
    pub fn label(&self) -> String {
        user_agent::describe(&self.user_agent)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(address: &str) -> ClientInfo {
        ClientInfo { address: address.parse().unwrap(), user_agent: String::new() }
    }

    #[test]
    fn what_is_kept_of_an_address_is_coarse() {
        assert_eq!(caller("203.0.113.9").device().address, "203.0.113.0/24");
        assert_eq!(caller("2001:db8:1:2:3::4").device().address, "2001:db8:1::/48");
        assert_eq!(caller("203.0.113.9").rate_limit_prefix().to_string(), "203.0.113.9/32");
        assert_eq!(caller("2001:db8:1:2:3::4").rate_limit_prefix().to_string(), "2001:db8:1:2::/64");
    }
}
