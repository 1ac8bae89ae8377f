//! The command line: serving, and managing users and sessions.

use std::{
    fs::{self, File},
    io::{self, BufRead, BufReader, BufWriter, IsTerminal, Write},
    path::{Path, PathBuf},
    sync::{Arc, OnceLock},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use clap::{Args, Parser, Subcommand};
use cookie::time::OffsetDateTime;
use hallpass_allowlist::{Revocation, RevokedSession, Whose};
use secrecy::{ExposeSecret, SecretString};
use tokio::{
    net::TcpListener,
    signal::unix::{SignalKind, signal},
    time::{self, Instant},
};

use crate::{
    api::{error::ApiError, types::EndReason},
    server::{
        auth::{
            allowlist::{self, Allowlist, RevokeError},
            breached_passwords, clients,
            key_folder::{KeyFile, KeyFolder},
            keys::Keys,
            mail_token,
            password::{PasswordHasherPool, Share, validate_new_password},
        },
        clock::{self, UnixSeconds},
        config::{self, Config, SigningAlgorithm, TokenConfig},
        db::{
            Access, ChangeError, Db,
            clients::Client,
            decode,
            user_changes::Change,
            users::{Added, Email, User},
        },
        ids::UserId,
        mail, production,
    },
};

/// The interval at which a long command prints its progress.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(2);

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
    /// Serve the app (the default).
    Serve,
    /// Serve the gate alone, at HALLPASS_GATE_ADDR: as an instance that answers nothing but proxies.
    Gate,
    /// Check the settings.
    #[command(subcommand)]
    Config(ConfigCommand),
    /// Manage the signing keys in the folder HALLPASS_KEYS.
    #[command(subcommand)]
    Keys(KeysCommand),
    /// Manage clients: other services that may ask about tokens and revoke them.
    #[command(subcommand)]
    Client(ClientCommand),
    /// Manage users.
    #[command(subcommand)]
    User(UserCommand),
    /// Manage sessions.
    #[command(subcommand)]
    Sessions(SessionsCommand),
    /// Manage the passwords that are refused.
    #[command(subcommand)]
    Passwords(PasswordsCommand),
}

#[derive(Subcommand)]
enum PasswordsCommand {
    /// Make the file for HALLPASS_BREACHED_PASSWORDS from the list of Have I Been Pwned that is ordered by hash.
    BuildFilter {
        /// The list, with lines `SHA-1:COUNT`; `-` for standard input.
        list: PathBuf,
        /// The file to write.
        #[arg(long, default_value = "data/breached-passwords")]
        output: PathBuf,
        /// Leave out passwords that were seen less often.
        #[arg(long, default_value_t = 1)]
        at_least: u64,
    },
}

#[derive(Subcommand)]
enum ConfigCommand {
    /// Check the settings without connecting to the database or Redis. Fails if a setting is wrong, and prints what is
    /// missing in production.
    Check {
        /// Fail if anything is missing in production.
        #[arg(long)]
        production: bool,
    },
}

#[derive(Subcommand)]
enum KeysCommand {
    /// List the keys, the newest first.
    List,
    /// Make a key. It signs once every running instance has it, so give it to all of them.
    New {
        /// The algorithm; HALLPASS_SIGNING_ALG if it is not given.
        #[arg(long, value_enum)]
        alg: Option<SigningAlgorithm>,
    },
    /// Retire a key that a newer one has replaced: it signs nothing any more, and nobody is signed out.
    Retire {
        #[arg(allow_hyphen_values = true)]
        id: String,
    },
}

#[derive(Subcommand)]
enum ClientCommand {
    /// Add a client. Prints its id and its secret, which is not shown again.
    Add {
        name: String,
        /// Let it end all sessions of a user, of whom it has no token: for an identity provider or a security tool.
        #[arg(long)]
        may_revoke_users: bool,
    },
    /// List the clients, the oldest first.
    List,
    /// Remove a client. Its secret is refused from then on.
    Remove { id: String },
    /// Replace the secret of a client. Prints the new one; the old one is refused from then on.
    RotateSecret { id: String },
}

#[derive(Subcommand)]
enum UserCommand {
    /// Add a user who chooses the password: sends them a link, and prints it.
    Invite(UserArg),
    /// Add a user. Asks for the password, or reads it from standard input.
    Add(UserArg),
    /// List all users.
    List,
    /// Disable a user and revoke all of their sessions. With SQLite, stop the running instance first.
    Disable(UserArg),
    /// Enable a disabled user.
    Enable(UserArg),
    /// Set a user's role and revoke all of their sessions. With SQLite, stop the running instance first.
    Role {
        email: String,
        #[arg(value_parser = ["user", "admin"])]
        role: String,
    },
    /// Set a user's password and revoke all of their sessions. With SQLite, stop the running instance first.
    SetPassword(UserArg),
    /// Remove a user's authenticator app, recovery codes and passkeys, which they have lost, and revoke all of their
    /// sessions. With SQLite, stop the running instance first.
    RemoveFactors(UserArg),
}

#[derive(Subcommand)]
enum SessionsCommand {
    /// List the live sessions of a user.
    List {
        #[arg(long, value_name = "EMAIL")]
        user: String,
    },
    /// Revoke sessions. With SQLite, stop the running instance first.
    Revoke(SessionSelector),
}

#[derive(Args)]
#[group(required = true, multiple = false)]
struct SessionSelector {
    /// One session, by its id.
    #[arg(long, value_name = "ID", allow_hyphen_values = true)]
    session: Option<String>,
    /// All sessions of a user.
    #[arg(long, value_name = "EMAIL")]
    user: Option<String>,
    /// All sessions of all users.
    #[arg(long)]
    all: bool,
}

#[derive(Args)]
struct UserArg {
    email: String,
}

impl Cli {
    /// Runs the command, or serves if there is none.
    ///
    /// # Errors
    /// The command failed. The error is a message for the user.
    pub async fn run(self) -> Result<()> {
        let config = Config::load(&self.config)?;
        match self.command.unwrap_or(Command::Serve) {
            Command::Serve => serve(config).await,
            Command::Gate => serve_gate(config).await,
            Command::Config(ConfigCommand::Check { production }) => check_settings(&config, production),
            Command::Keys(command) => run_keys(command, &config.token),
            Command::Client(command) => run_client(command, &config).await,
            Command::User(command) => user(command, &config).await,
            Command::Sessions(command) => run_sessions(command, &config).await,
            Command::Passwords(PasswordsCommand::BuildFilter { list, output, at_least }) => {
                build_filter(&list, &output, at_least)
            }
        }
    }
}

/// Makes the file of breached passwords. It has its name when it is complete.
fn build_filter(list: &Path, output: &Path, at_least: u64) -> Result<()> {
    let input: Box<dyn BufRead> = if list == Path::new("-") {
        Box::new(io::stdin().lock())
    } else {
        let file = File::open(list).with_context(|| format!("{} cannot be read", list.display()))?;
        Box::new(BufReader::new(file))
    };
    let part = output.with_extension("part");
    let unwritable = || format!("{} cannot be written", part.display());
    let file = BufWriter::new(File::create(&part).with_context(unwritable)?);
    let count = breached_passwords::build(input, file, at_least)?;
    fs::rename(&part, output).with_context(unwritable)?;
    println!("{count} passwords. Set HALLPASS_BREACHED_PASSWORDS={}", output.display());
    Ok(())
}

fn check_settings(config: &Config, is_for_production: bool) -> Result<()> {
    let folder = KeyFolder::new(Path::new(&config.token.keys));
    let has_key = config.token.signing_key.is_some() || !folder.list()?.is_empty();
    if has_key {
        Keys::load(&config.token, clock::now())?;
    }
    PasswordHasherPool::new(&config.password)?;
    allowlist::check_settings(&config.redis)?;
    mail::check_settings(&config.mail)?;
    println!("the settings can be used");
    let missing = production::missing(config, has_key);
    for finding in &missing {
        println!("{finding}");
    }
    ensure!(
        !is_for_production || missing.is_empty(),
        "not ready for production, findings: {}",
        missing.len()
    );
    Ok(())
}

fn run_keys(command: KeysCommand, config: &TokenConfig) -> Result<()> {
    ensure!(
        config.signing_key.is_none(),
        "HALLPASS_SIGNING_KEY is set: the keys in {} are not used",
        config.keys
    );
    let (folder, now) = (KeyFolder::new(Path::new(&config.keys)), clock::now());
    match command {
        KeysCommand::List => {
            for KeyFile { key, .. } in folder.list()? {
                let state = match key.retired() {
                    None => "in use".to_owned(),
                    Some(retired) => {
                        format!("retired, accepted until {}", date(retired + config.refresh_ttl_seconds))
                    }
                };
                println!("{:16}  {:5}  made {}  {state}", key.id(), key.algorithm().name(), date(key.made()));
            }
        }
        KeysCommand::New { alg } => {
            let made = folder.make(alg.unwrap_or(config.signing_alg), now)?;
            println!("{}", made.key.id());
        }
        KeysCommand::Retire { id } => folder.retire(&id, now)?,
    }
    Ok(())
}

fn date(time: UnixSeconds) -> String {
    OffsetDateTime::from_unix_timestamp(time)
        .map_or_else(|_| time.to_string(), |time| time.date().to_string())
}

async fn serve(config: Config) -> Result<()> {
    let address = config.leptos.site_addr;
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}: set LEPTOS_SITE_ADDR to another address"))?;
    let shutdown = shutdown_signal().context("signals cannot be caught")?;
    super::serve(config, listener, shutdown).await
}

async fn serve_gate(mut config: Config) -> Result<()> {
    // Distinct from an instance on the same host.
    let name = format!("{}:gate", config::host_name());
    config.redis.instance.get_or_insert(name);
    let shutdown = shutdown_signal().context("signals cannot be caught")?;
    super::serve_gate(config, shutdown).await
}

/// Resolves on Ctrl-C and on SIGTERM. Both are caught from when this returns: until then they end the process.
fn shutdown_signal() -> Result<impl Future<Output = ()>> {
    let mut interrupted = signal(SignalKind::interrupt())?;
    let mut terminated = signal(SignalKind::terminate())?;
    Ok(async move {
        tokio::select! {
            _ = interrupted.recv() => {}
            _ = terminated.recv() => {}
        }
    })
}

async fn run_client(command: ClientCommand, config: &Config) -> Result<()> {
    let db = Db::open(config, Access::Shared).await?;
    match command {
        ClientCommand::Add { name, may_revoke_users } => {
            let name = clients::name(&name).with_context(|| {
                format!("the name of a client is one line of 1 to {} characters", clients::MAX_NAME)
            })?;
            let id = clients::new_id();
            let (secret, hash) = clients::new_secret(&id)?;
            let created_at = clock::now();
            let client = Client { id: id.clone(), name: name.to_owned(), created_at, may_revoke_users };
            db.add_client(&client, &hash).await?;
            println!("client_id={id}");
            println!("client_secret={}", secret.expose_secret());
        }
        ClientCommand::List => {
            for Client { id, name, created_at, may_revoke_users } in db.clients().await? {
                let permission = if may_revoke_users { "  may revoke users" } else { "" };
                println!("{id}  added {}  {name}{permission}", date(created_at));
            }
        }
        ClientCommand::Remove { id } => {
            ensure!(db.remove_client(&id).await?, "there is no client {id}");
            println!("removed {id}");
        }
        ClientCommand::RotateSecret { id } => {
            let (secret, hash) = clients::new_secret(&id)?;
            ensure!(db.set_client_secret_hash(&id, &hash).await?, "there is no client {id}");
            println!("client_secret={}", secret.expose_secret());
        }
    }
    Ok(())
}

async fn user(command: UserCommand, config: &Config) -> Result<()> {
    let now = clock::now();
    match command {
        UserCommand::Invite(who) => {
            let email = who.email()?;
            let db = Db::open(config, Access::Shared).await?;
            let keys = load_keys(config)?;
            // The running instances may not have the newest key yet.
            let oldest = keys.oldest().id().to_owned();
            let keys = keys.signing_with(&oldest);
            let token = db.invite(&email, now).await?;
            let token = token.with_context(|| format!("user {} already exists", email.as_str()))?;
            let site = config.site_url(config.leptos.site_addr);
            println!("invited {}; the link works once, for 72 hours:", email.as_str());
            println!("{site}/reset?token={}", mail_token::sign(&keys, token));
        }
        UserCommand::Add(who) => {
            let email = who.email()?;
            let db = Db::open(config, Access::Shared).await?;
            let hash = new_password(config, &email).await?;
            match db.add_user(UserId::random(), &email, &hash, None, now).await? {
                Added::Done(_) => println!("added {}", email.as_str()),
                Added::EmailTaken => bail!("user {} already exists", email.as_str()),
            }
        }
        UserCommand::List => {
            let db = Db::open(config, Access::Shared).await?;
            let mut after = String::new();
            loop {
                let users = db.list_users("", &after, 1000, &config.token, now).await?;
                let Some(last) = users.last() else { break };
                after = last.email.clone();
                for user in users {
                    let state = if user.disabled_at.is_some() { "disabled" } else { "active" };
                    println!("{}  {state:8}  {}  {}", user.id, user.email, user.role);
                }
            }
        }
        UserCommand::Disable(who) => {
            let db = Db::open(config, Access::Exclusive).await?;
            let user = find(&db, &who.email).await?;
            change(user.id, Change::Disable, config, db).await?;
            println!("disabled {}; all of their sessions are revoked", user.email);
        }
        UserCommand::Enable(who) => {
            let db = Db::open(config, Access::Shared).await?;
            let user = find(&db, &who.email).await?;
            db.enable_user(user.id, None, now).await?;
            println!("enabled {}", user.email);
        }
        UserCommand::Role { email, role } => {
            let db = Db::open(config, Access::Exclusive).await?;
            let user = find(&db, &email).await?;
            change(user.id, Change::Role(decode::role(&role)), config, db).await?;
            println!("{} is now {role}; all of their sessions are revoked", user.email);
        }
        UserCommand::SetPassword(who) => {
            let email = who.email()?;
            let db = Db::open(config, Access::Exclusive).await?;
            let user = find(&db, &who.email).await?;
            let hash = new_password(config, &email).await?;
            change(user.id, Change::SetPassword { hash }, config, db).await?;
            println!("set the password of {}; all of their sessions are revoked", user.email);
        }
        UserCommand::RemoveFactors(who) => {
            let db = Db::open(config, Access::Exclusive).await?;
            let user = find(&db, &who.email).await?;
            change(user.id, Change::RemoveFactors, config, db).await?;
            println!("removed the factors of {}; all of their sessions are revoked", user.email);
        }
    }
    Ok(())
}

async fn run_sessions(command: SessionsCommand, config: &Config) -> Result<()> {
    let now = clock::now();
    match command {
        SessionsCommand::List { user } => {
            let db = Db::open(config, Access::Shared).await?;
            let user = find(&db, &user).await?;
            for session in db.live_sessions_of(user.id, None, &config.token, now).await? {
                let (began, seen) = (now - session.created_at, now - session.rotated_at);
                let (device, address) = (session.device.label(), &session.device.address);
                println!("{}  began {began} s ago, last seen {seen} s ago, {device}, {address}", session.id);
            }
        }
        SessionsCommand::Revoke(which) => {
            let db = Db::open(config, Access::Exclusive).await?;
            let reason = EndReason::EndedByAdmin;
            let recording = db.clone();
            match (which.session, which.user) {
                (Some(id), _) => {
                    let session_id = id.parse().with_context(|| format!("there is no session {id}"))?;
                    let is_known = db.session_owner(session_id).await?.is_some();
                    let allowlist = join(config, &db).await?;
                    let recording =
                        async move { recording.revoke_session(session_id, None, reason, now).await };
                    end(&allowlist, allowlist.revoke_session(session_id, None, recording)).await?;
                    // SQL may have lost the session while mirrors still held it as live.
                    ensure!(
                        is_known,
                        "there is no session {id} in the database; no instance accepts its tokens"
                    );
                }
                (None, Some(email)) => {
                    let user_id = find(&db, &email).await?.id;
                    let recording =
                        async move { recording.revoke_sessions_of(user_id, None, None, reason, now).await };
                    revoke(Whose::User { user_id, except: None }, recording, config, &db).await?;
                }
                (None, None) => {
                    let recording = async move { recording.revoke_every_session(None, reason, now).await };
                    revoke(Whose::Everyone, recording, config, &db).await?;
                }
            }
            println!("the sessions are revoked: no instance accepts their tokens");
        }
    }
    Ok(())
}

/// Applies a change to a user, and revokes their sessions on all running instances.
async fn change(user_id: UserId, change: Change, config: &Config, db: Db) -> Result<()> {
    let recording = db.clone();
    let recording = async move { recording.change_user(user_id, change, None, clock::now()).await };
    revoke(Whose::User { user_id, except: None }, recording, config, &db).await
}

/// Revokes the sessions that `recording` records as revoked, and those that SQL has lost, on all running
/// instances.
async fn revoke(
    whose: Whose,
    recording: impl Future<Output = Result<Vec<RevokedSession>, ChangeError>> + Send + 'static,
    config: &Config,
    db: &Db,
) -> Result<()> {
    let allowlist = join(config, db).await?;
    let recorded = Arc::new(OnceLock::new());
    let count = Arc::clone(&recorded);
    let recording = async move {
        let sessions = recording.await?;
        let _ = count.set(sessions.len());
        Ok(sessions)
    };
    let state = || match recorded.get() {
        None => "recording the revocation".to_owned(),
        Some(count) => format!(
            "the revocation is recorded; sessions that may have live tokens, whose end has to be confirmed: {count}"
        ),
    };
    end(&allowlist, with_progress(state, allowlist.revoke(whose, recording))).await
}

/// Prints the progress of a revocation of many sessions. It goes on where nothing can be printed any more.
async fn with_progress<T>(state: impl Fn() -> String, revoking: impl Future<Output = T>) -> T {
    let begin = Instant::now();
    let mut ticks = time::interval_at(begin + PROGRESS_INTERVAL, PROGRESS_INTERVAL);
    let mut revoking = Box::pin(revoking);
    loop {
        tokio::select! {
            result = &mut revoking => return result,
            _ = ticks.tick() => {
                let _ = writeln!(io::stderr(), "{} s: {}", begin.elapsed().as_secs(), state());
            }
        }
    }
}

/// Waits for a revocation, then removes this process from the membership.
async fn end(
    allowlist: &Allowlist,
    ending: impl Future<Output = Result<Revocation, RevokeError>>,
) -> Result<()> {
    let ended = ending.await;
    allowlist.leave().await;
    match ended {
        Ok(_) => Ok(()),
        Err(error @ RevokeError::Unconfirmed(_)) => {
            Err(error).context("the revocation is not complete; run this command again")
        }
        Err(error) => Err(error.into()),
    }
}

impl UserArg {
    fn email(&self) -> Result<Email> {
        Email::parse(&self.email).map_err(|error| display_error(&error))
    }
}

async fn find(db: &Db, email: &str) -> Result<User> {
    let parsed = Email::parse(email).map_err(|error| display_error(&error))?;
    db.find_user(&parsed).await?.with_context(|| format!("there is no user {email}"))
}

/// Joins the running instances. This happens before anything is recorded, so that settings that contradict
/// theirs change nothing. On an SQLite file there are no others: this process has exclusive access to it.
async fn join(config: &Config, db: &Db) -> Result<Allowlist> {
    let keys = load_keys(config)?;
    allowlist::join(config, &keys, db.clone()).await
}

/// The running instances have keys; the first process that opens an SQLite file makes one.
fn load_keys(config: &Config) -> Result<Keys> {
    let load = if config.database.is_shared() { Keys::load } else { Keys::load_or_make };
    load(&config.token, clock::now())
}

async fn new_password(config: &Config, email: &Email) -> Result<String> {
    let password: SecretString = if io::stdin().is_terminal() {
        rpassword::prompt_password("Password: ").context("the password cannot be read")?.into()
    } else {
        let mut line = String::new();
        io::stdin().read_line(&mut line).context("the password cannot be read")?;
        line.trim_end_matches(['\r', '\n']).into()
    };
    validate_new_password(&password, email.as_str()).map_err(|error| display_error(&error))?;
    PasswordHasherPool::new(&config.password)?
        .hash(Share::default(), password)
        .await
        .map_err(|error| display_error(&error))
}

fn display_error(error: &ApiError) -> anyhow::Error {
    match error {
        ApiError::InvalidFields(fields) => {
            anyhow::anyhow!("{}", fields.values().cloned().collect::<Vec<_>>().join(" "))
        }
        other => anyhow::anyhow!("{other}"),
    }
}
