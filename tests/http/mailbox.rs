//! The mails that a server has sent: to a real mail server, or into files.

use std::{
    fs,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use mail_parser::MessageParser;
use tokio::time::{self, Instant};

use crate::support::Home;

/// A mail as its recipient sees it.
#[derive(Debug, Clone)]
pub struct Received {
    pub id: String,
    pub to: String,
    pub subject: String,
    pub text: String,
    pub html: String,
}

impl Received {
    fn read(file: &Path) -> Self {
        let bytes = fs::read(file).unwrap();
        let mail = MessageParser::default().parse(&bytes).unwrap();
        let to = mail.to().and_then(|to| to.first()).and_then(|to| to.address()).unwrap().to_owned();
        Self {
            id: mail.message_id().unwrap().to_owned(),
            to,
            subject: mail.subject().unwrap().to_owned(),
            text: mail.body_text(0).unwrap().into_owned(),
            html: mail.body_html(0).unwrap().into_owned(),
        }
    }

    /// The token in the link.
    pub fn token(&self) -> String {
        let (_, rest) = self.text.split_once("?token=").unwrap_or_else(|| panic!("no link in {self:?}"));
        rest.split_whitespace().next().unwrap().to_owned()
    }
}

/// A folder in which mails arrive.
pub struct Mailbox(pub PathBuf);

impl Mailbox {
    /// That of a server without a mail server.
    pub fn of(home: &Home) -> Self {
        Self(home.path().join("mail"))
    }

    pub fn all(&self) -> Vec<Received> {
        let entries = fs::read_dir(&self.0).into_iter().flatten().map(|entry| entry.unwrap().path());
        let mails = entries.filter(|path| path.extension().is_some_and(|extension| extension == "eml"));
        mails.map(|file| Received::read(&file)).collect()
    }

    /// The mails to this address whose subject contains these words.
    pub fn to(&self, address: &str, subject: &str) -> Vec<Received> {
        self.all().into_iter().filter(|mail| mail.to == address && mail.subject.contains(subject)).collect()
    }

    /// Waits until there are this many such mails.
    pub async fn wait(&self, count: usize, address: &str, subject: &str) -> Vec<Received> {
        let deadline = Instant::now() + Duration::from_mins(5);
        loop {
            let found = self.to(address, subject);
            if found.len() >= count {
                assert_eq!(found.len(), count, "{found:#?}");
                return found;
            }
            assert!(Instant::now() < deadline, "no {subject:?} to {address}: {:#?}", self.all());
            time::sleep(Duration::from_millis(20)).await;
        }
    }

    /// Waits for the only such mail.
    pub async fn wait_for(&self, address: &str, subject: &str) -> Received {
        self.wait(1, address, subject).await.remove(0)
    }
}

/// A real mail server. It is killed when dropped.
pub struct MailServer {
    child: Child,
    pub port: u16,
    pub mailbox: Mailbox,
}

impl MailServer {
    /// Starts it on this port; 0 for any.
    pub fn start(folder: &Path, port: u16) -> Self {
        fs::create_dir_all(folder).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/mail_server.py");
        // Debian's package is for the Python of Debian, which need not be the first one in the path.
        let python = if Path::new("/usr/bin/python3").exists() { "/usr/bin/python3" } else { "python3" };
        let mut child = Command::new(python)
            .arg(script)
            .args([folder.as_os_str(), port.to_string().as_ref()])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let port = line.trim().parse().expect("the mail server did not start: is aiosmtpd installed?");
        Self { child, port, mailbox: Mailbox(folder.to_owned()) }
    }

    /// Sets what it does with mails: see `tests/mail_server.py`.
    pub fn set_mode(&self, mode: &str) {
        fs::write(self.mailbox.0.join("mode"), mode).unwrap();
    }

    /// The settings of a server that sends its mails here.
    pub fn settings(port: u16) -> String {
        format!(
            "[mail]\nsmtp_url = \"smtp://127.0.0.1:{port}\"\nfrom = \"Acme <no-reply@example.com>\"\n[server]\npublic_url = \"https://id.example.com\"\n"
        )
    }
}

impl Drop for MailServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
