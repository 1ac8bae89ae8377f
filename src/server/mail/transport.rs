//! Where mails go: to a mail server or, without one, into files.

use std::{
    fmt,
    net::IpAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use lettre::{
    AsyncSmtpTransport, AsyncTransport, Message, Tokio1Executor, message::header::MessageId, transport::smtp,
};
use secrecy::ExposeSecret;

use super::folder;
use crate::server::config::MailConfig;

/// The timeout for connecting to the mail server.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where mails go.
pub enum Transport {
    Smtp(AsyncSmtpTransport<Tokio1Executor>),
    Folder(PathBuf),
}

/// The reason why a mail was not sent.
#[derive(Debug, thiserror::Error)]
pub enum SendError {
    #[error("{}", without_address(.0))]
    Smtp(#[from] smtp::Error),
    #[error("it cannot be written: {0}")]
    Io(#[from] std::io::Error),
    #[error("the address or the content is not valid: {0}")]
    Invalid(String),
    #[error("the mail server took too long")]
    Timeout,
    #[error("it is too late: the mail is of no use any more")]
    Expired,
}

impl SendError {
    /// Whether another attempt would fail, too (RFC 5321, 4.2.1).
    pub fn is_permanent(&self) -> bool {
        match self {
            Self::Smtp(error) => error.is_permanent(),
            Self::Invalid(_) | Self::Expired => true,
            Self::Io(_) | Self::Timeout => false,
        }
    }
}

/// The code that the mail server has answered, whose words often contain the address of the recipient; without an answer
/// the message of the innermost error, which says most.
fn without_address(error: &smtp::Error) -> String {
    if let Some(code) = error.status() {
        return format!("the mail server answered {code}");
    }
    let mut innermost: &dyn std::error::Error = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

impl Transport {
    /// # Errors
    /// The URL of the mail server is not valid, or would send a password without TLS to another machine.
    pub fn new(config: &MailConfig) -> Result<Self> {
        let Some(url) = &config.smtp_url else { return Ok(Self::Folder(config.dir.clone().into())) };
        let url = url.expose_secret();
        require_tls(url)?;
        // The error of the parser could quote the password.
        let builder = AsyncSmtpTransport::<Tokio1Executor>::from_url(url).ok().context(
            "HALLPASS_SMTP_URL has to be like smtps://user:password@mail.example.com or smtp://user:password@mail.example.com:587?tls=required",
        )?;
        Ok(Self::Smtp(builder.timeout(Some(CONNECT_TIMEOUT)).build()))
    }

    /// Sends the mail. `Ok` means that the mail server has taken responsibility for it (RFC 5321, 2.1), or that its file
    /// is complete.
    ///
    /// # Errors
    /// See [`SendError`].
    pub async fn send(&self, message: Message) -> Result<(), SendError> {
        match self {
            Self::Smtp(smtp) => Ok(smtp.send(message).await.map(drop)?),
            Self::Folder(folder) => {
                let id = message.headers().get::<MessageId>();
                let id = id.map(|id| String::from(id.as_ref().trim_matches(['<', '>'])));
                let id = id.ok_or_else(|| SendError::Invalid("there is no Message-ID".into()))?;
                Ok(folder::write(Path::new(folder), &id, message.formatted()).await?)
            }
        }
    }
}

/// `smtp://` alone is plain text, which lettre accepts.
fn require_tls(url: &str) -> Result<()> {
    let url = url.to_ascii_lowercase();
    let Some(rest) = url.strip_prefix("smtp://") else { return Ok(()) };
    let (authority, query) = rest.split_once('?').unwrap_or((rest, ""));
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = host.trim_end_matches('/').rsplit_once(':').map_or(host, |(name, _)| name);
    let name = host.trim_matches(['[', ']', '/']);
    let is_local = name == "localhost" || name.parse().is_ok_and(|address: IpAddr| address.is_loopback());
    if is_local || query.split('&').any(|pair| pair == "tls=required") {
        return Ok(());
    }
    bail!(
        "HALLPASS_SMTP_URL would send mails, with their links, unencrypted: use smtps://, or add ?tls=required for STARTTLS"
    )
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Smtp(_) => f.write_str("sent to the mail server"),
            Self::Folder(folder) => {
                write!(f, "written to {}: set HALLPASS_SMTP_URL to send them", folder.display())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use secrecy::SecretString;

    use super::*;

    fn transport(url: &str) -> Result<Transport> {
        Transport::new(&MailConfig {
            smtp_url: Some(SecretString::from(url)),
            from: "Hallpass <hallpass@localhost>".parse().unwrap(),
            dir: "mail".into(),
            color: crate::server::config::HexColor("#000000".into()),
            on_site: false,
        })
    }

    #[test]
    fn mail_server_on_another_machine_is_used_with_tls_only() {
        for url in [
            "smtps://mail.example.com",
            "smtps://ann:secret@mail.example.com:465",
            "smtp://ann:secret@mail.example.com:587?tls=required",
            "smtp://localhost:25",
            "smtp://127.0.0.1:2525",
            "smtp://[::1]:2525",
        ] {
            assert!(transport(url).is_ok(), "{url}");
        }
        for url in [
            "smtp://mail.example.com",
            "smtp://ann:secret@mail.example.com:587",
            "smtp://ann:secret@mail.example.com:587?tls=opportunistic",
            "SMTP://mail.example.com",
            "smtp://127.0.0.1@mail.example.com",
            "smtp://localhost.example.com",
        ] {
            assert!(transport(url).err().unwrap().to_string().contains("unencrypted"), "{url}");
        }
    }

    #[test]
    fn url_that_cannot_be_read_is_refused_without_its_password() {
        for url in ["mail.example.com", "http://ann:secret@mail.example.com", "smtps://ann:secret@", ""] {
            let error = format!("{:#}", transport(url).err().unwrap());
            assert!(error.contains("HALLPASS_SMTP_URL") && !error.contains("secret"), "{url}: {error}");
        }
    }
}
