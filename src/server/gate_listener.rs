//! Where the gate listens: at an address, or at a Unix socket.

use std::{
    fmt, fs, io,
    net::SocketAddr,
    os::unix::{
        fs::{FileTypeExt, MetadataExt},
        net::UnixStream,
    },
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};
use axum::Router;
use serde::Deserialize;
use tokio::net::{TcpListener, UnixListener};

/// `127.0.0.1:4000`, or `unix:/run/hallpass/gate.sock`.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum GateAddress {
    Tcp(SocketAddr),
    Unix(PathBuf),
}

impl TryFrom<String> for GateAddress {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            Some(_) => Err(format!("the address of the gate is {text}: the path of a socket begins with /")),
            None => text.parse().map(Self::Tcp).map_err(|_| {
                format!("the address of the gate is {text}: neither 127.0.0.1:4000 nor unix:/path/gate.sock")
            }),
        }
    }
}

impl fmt::Display for GateAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A listener of the gate. The file of a socket is deleted when this is dropped.
pub enum GateListener {
    Tcp(TcpListener),
    Unix(UnixListener, SocketFile),
}

impl GateListener {
    /// # Errors
    /// The address is in use, or cannot be used.
    pub async fn bind(address: &GateAddress) -> Result<Self> {
        match address {
            GateAddress::Tcp(address) => TcpListener::bind(address)
                .await
                .map(Self::Tcp)
                .with_context(|| format!("the gate cannot listen on {address}: see HALLPASS_GATE_ADDR")),
            GateAddress::Unix(path) => Self::bind_socket(path).with_context(|| {
                format!("the gate cannot listen at {}: see HALLPASS_GATE_ADDR", path.display())
            }),
        }
    }

    /// A socket that a killed process has left behind is replaced.
    fn bind_socket(path: &Path) -> Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(file) if !file.file_type().is_socket() => bail!("there is a file that is no socket"),
            Ok(_) => match UnixStream::connect(path) {
                Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => fs::remove_file(path)?,
                Err(error) => return Err(error.into()),
                Ok(_) => bail!("another process listens there"),
            },
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error.into()),
        }
        let listener = UnixListener::bind(path)?;
        Ok(Self::Unix(listener, SocketFile { path: path.to_owned(), inode: inode(path)? }))
    }

    /// Serves until `stopped` resolves, then finishes the requests in progress.
    ///
    /// # Errors
    /// The listener fails.
    pub async fn serve(
        self,
        routes: Router,
        stopped: impl Future<Output = ()> + Send + 'static,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => axum::serve(listener, routes).with_graceful_shutdown(stopped).await,
            Self::Unix(listener, _file) => {
                axum::serve(listener, routes).with_graceful_shutdown(stopped).await
            }
        }
    }
}

/// Deletes a socket when it is dropped, unless another process has replaced it: the listener is closed before the last
/// requests have ended.
pub struct SocketFile {
    path: PathBuf,
    inode: (u64, u64),
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if inode(&self.path).is_ok_and(|inode| inode == self.inode) {
            // Nothing is lost by a file that stays: the next process replaces it.
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// The device and the inode of a file.
fn inode(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}
