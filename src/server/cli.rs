//! The command line: serve, and look after users.

use std::{
    io::{self, IsTerminal},
    path::PathBuf,
};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};
use secrecy::SecretString;
use tokio::{net::TcpListener, signal};

use super::{
    auth::allowlist::Allowlist,
    clock,
    config::Config,
    db::{Access, Db},
    ids::UserId,
    password::{Passwords, check_acceptable},
    sessions::RevokedSession,
    users::{Added, Email},
};
use crate::api::error::AuthError;

/// JWT login whose logout works at once, on every server.
#[derive(Parser)]
#[command(version, about)]
pub struct Cli {
    /// The settings file.
    #[arg(long, value_name = "FILE", default_value = "Leptos.toml", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the app (what happens without a command, too).
    Serve,
    /// Add, list, disable users, or set their passwords.
    #[command(subcommand)]
    User(UserCommand),
}

#[derive(Subcommand)]
enum UserCommand {
    /// Add a user. Asks for the password, or reads it from standard input.
    Add(Who),
    /// List all users.
    List,
    /// Disable a user and end all of their sessions. With SQLite, while no server is running.
    Disable(Who),
    /// Set a user's password and end all of their sessions. With SQLite, while no server is running.
    SetPassword(Who),
}

#[derive(Args)]
struct Who {
    email: String,
}

impl Cli {
    /// Does what the command line says.
    ///
    /// # Errors
    /// With a sentence for the person at the keyboard.
    pub async fn run(self) -> Result<()> {
        let config = Config::load(&self.config)?;
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve(config).await,
            Command::User(command) => user(command, &config).await,
        }
    }
}

async fn serve(config: Config) -> Result<()> {
    let address = config.leptos.site_addr;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: set LEPTOS_SITE_ADDR to another address"))?;
    super::serve(config, listener, told_to_stop()).await
}

/// Resolves on Ctrl-C and on SIGTERM.
async fn told_to_stop() {
    let terminated = async {
        match signal::unix::signal(signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => signal.recv().await,
            Err(_) => std::future::pending().await,
        }
    };
    tokio::select! {
        _ = signal::ctrl_c() => {}
        _ = terminated => {}
    }
}

async fn user(command: UserCommand, config: &Config) -> Result<()> {
    let now = clock::now();
    match command {
        UserCommand::Add(who) => {
            let email = who.email()?;
            let db = Db::open(config, Access::Shared).await?;
            let hash = new_password(config, &email).await?;
            match db.add_user(UserId::random(), &email, &hash, None, now).await? {
                Added::Done => println!("added {}", email.as_str()),
                Added::EmailTaken => bail!("there is a user {} already", email.as_str()),
            }
        }
        UserCommand::List => {
            let db = Db::open(config, Access::Shared).await?;
            for user in db.list_users().await? {
                let state = if user.disabled_at.is_some() { "disabled" } else { "active" };
                println!("{}  {state:8}  {}", user.id, user.email);
            }
        }
        UserCommand::Disable(who) => {
            let email = who.email()?;
            let db = Db::open(config, Access::Exclusive).await?;
            let revoked = who.found(db.disable_user(&email, now).await?)?;
            end(&revoked, config, db).await?;
            println!("disabled {}; all of their sessions have ended", email.as_str());
        }
        UserCommand::SetPassword(who) => {
            let email = who.email()?;
            let db = Db::open(config, Access::Exclusive).await?;
            let hash = new_password(config, &email).await?;
            let revoked = who.found(db.set_password(&email, &hash, now).await?)?;
            end(&revoked, config, db).await?;
            println!("set the password of {}; all of their sessions have ended", email.as_str());
        }
    }
    Ok(())
}

impl Who {
    fn email(&self) -> Result<Email> {
        Email::parse(&self.email).map_err(|error| in_words(&error))
    }

    fn found<T>(&self, found: Option<T>) -> Result<T> {
        found.with_context(|| format!("there is no user {}", self.email))
    }
}

/// Makes sure that no running instance accepts a token of these sessions any more. On an SQLite file,
/// of which this process has exclusive use, there is none.
async fn end(revoked: &[RevokedSession], config: &Config, db: Db) -> Result<()> {
    if config.redis.url.is_none() {
        return Ok(());
    }
    let allowlist = Allowlist::load(config, db, clock::now()).await?;
    let ended = allowlist.spread(revoked).await;
    allowlist.leave().await;
    ended.context("it is recorded, but some servers may not know of it yet: run this again")?;
    Ok(())
}

async fn new_password(config: &Config, email: &Email) -> Result<String> {
    let password: SecretString = if io::stdin().is_terminal() {
        rpassword::prompt_password("Password: ").context("the password cannot be read")?.into()
    } else {
        let mut line = String::new();
        io::stdin().read_line(&mut line).context("the password cannot be read")?;
        line.trim_end_matches(['\r', '\n']).into()
    };
    check_acceptable(&password, email.as_str()).map_err(|error| in_words(&error))?;
    Passwords::new(&config.password)?.hash(password).await.map_err(|error| in_words(&error))
}

fn in_words(error: &AuthError) -> anyhow::Error {
    match error {
        AuthError::InvalidFields(fields) => {
            anyhow::anyhow!("{}", fields.values().cloned().collect::<Vec<_>>().join(" "))
        }
        other => anyhow::anyhow!("{other}"),
    }
}
