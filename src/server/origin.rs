//! Origins of pages (RFC 6454), in the headers of requests and in the settings.

use std::fmt;

use axum::http::uri::Authority;
use serde::Deserialize;

/// The origin of a page, as a browser writes it: `scheme://host:port`, without a default port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Origin {
    pub is_https: bool,
    pub host: Host,
}

impl Origin {
    pub fn parse(text: &str) -> Option<Self> {
        let (scheme, host) = text.split_once("://")?;
        let is_https = match scheme.to_ascii_lowercase().as_str() {
            "https" => true,
            "http" => false,
            _ => return None,
        };
        let mut host = Host::parse(host)?;
        host.port = host.port.filter(|port| *port != default_port(is_https));
        Some(Self { is_https, host })
    }

    /// Splits the address of a page into its origin and the rest: the path, the query and the fragment.
    pub fn of_page(address: &str) -> Option<(Self, &str)> {
        let start = address.find("://")? + 3;
        let end = address[start..].find(['/', '?', '#']).map_or(address.len(), |end| start + end);
        Some((Self::parse(&address[..end])?, &address[end..]))
    }

    pub fn port(&self) -> u16 {
        self.host.port.unwrap_or(default_port(self.is_https))
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if self.is_https { "https://" } else { "http://" })?;
        f.write_str(&self.host.name)?;
        self.host.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

fn default_port(is_https: bool) -> u16 {
    if is_https { 443 } else { 80 }
}

/// The host and the port in a `Host` header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Host {
    /// The name in lower case, without a trailing dot.
    pub name: String,
    pub port: Option<u16>,
}

impl Host {
    pub fn parse(text: &str) -> Option<Self> {
        let authority: Authority = text.trim().parse().ok()?;
        let name = authority.host().trim_end_matches('.').to_ascii_lowercase();
        let is_host = !name.is_empty() && !authority.as_str().contains('@');
        is_host.then(|| Self { name, port: authority.port_u16() })
    }
}

/// The origins by which browsers reach the site, for proxies that change `Host`.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(try_from = "String")]
pub struct PublicOrigins(pub Vec<Origin>);

impl TryFrom<String> for PublicOrigins {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let origin = |text: &str| {
            Origin::parse(text.trim_end_matches('/')).ok_or_else(|| {
                format!("HALLPASS_PUBLIC_URL is {text:?}: it has to be like https://id.example.com or http://10.0.0.7:8080, without a path")
            })
        };
        let texts = text.split(',').map(str::trim).filter(|text| !text.is_empty());
        texts.map(origin).collect::<Result<_, _>>().map(Self)
    }
}
