//! The text of each mail, as plain text and as HTML.

use std::{
    net::SocketAddr,
    time::{Duration, UNIX_EPOCH},
};

use lettre::{
    Address, Message,
    message::{
        Mailbox, MultiPart,
        header::{HeaderName, HeaderValue},
    },
};

use super::transport::SendError;
use crate::{
    api::types::Role,
    server::{
        clock::UnixSeconds,
        config::Config,
        db::{
            mail_tokens::Purpose,
            outbox::{FactorChange, Mail},
            users::in_ascii,
        },
        ids::{MailId, MailTokenId},
    },
};

/// What mails say about the site.
pub struct Site {
    /// The address without a trailing slash.
    url: String,
    from: Mailbox,
    name: String,
    color: String,
}

impl Site {
    pub fn of(config: &Config, listener: SocketAddr) -> Self {
        let from = config.mail.from.clone();
        Self {
            url: config.site_url(listener),
            name: config.site_name().to_owned(),
            from,
            color: config.mail.color.0.clone(),
        }
    }
}

/// What a mail says: the same in plain text and in HTML.
struct Content {
    subject: String,
    before: Vec<String>,
    /// The words and the address of a link.
    link: Option<(&'static str, String)>,
    after: Vec<String>,
}

impl Mail {
    /// The kind, for the log.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Reset { .. } => "reset",
            Self::Invite { .. } => "invite",
            Self::Verify { .. } => "verify",
            Self::Register { .. } => "register",
            Self::Taken => "taken",
            Self::ChangeEmail { .. } => "change_email",
            Self::NewEmailTaken => "new_email_taken",
            Self::EmailChanged { .. } => "email_changed",
            Self::EmailRestored => "email_restored",
            Self::SignedIn { .. } => "signed_in",
            Self::PasswordChanged => "password_changed",
            Self::PasswordSet => "password_set",
            Self::PasswordReset => "password_reset",
            Self::RoleChanged { .. } => "role_changed",
            Self::TokenReused { .. } => "token_reused",
            Self::Deleted => "deleted",
            Self::FactorsChanged { .. } => "factors_changed",
            Self::RecoveryCodeUsed => "recovery_code_used",
            Self::WrongCode { .. } => "wrong_code",
        }
    }
}

/// The mail with this content. `token` makes the text of a token from its id.
///
/// # Errors
/// [`SendError::Invalid`] if the recipient has an address that no mail can be sent to.
pub fn message(
    id: MailId,
    recipient: &str,
    mail: &Mail,
    site: &Site,
    token: impl Fn(MailTokenId) -> String,
) -> Result<Message, SendError> {
    let invalid = |error: &dyn std::fmt::Display| SendError::Invalid(error.to_string());
    let recipient: Address = in_ascii(recipient).parse().map_err(|error| invalid(&error))?;
    let content = content(mail, recipient.as_ref(), site, token);
    // RFC 3834, 5: no vacation message shall answer it.
    let automatic =
        HeaderValue::new(HeaderName::new_from_ascii_str("Auto-Submitted"), "auto-generated".into());
    Message::builder()
        .message_id(Some(format!("<{id}@{}>", site.from.email.domain())))
        .from(site.from.clone())
        .to(Mailbox::new(None, recipient))
        .subject(&content.subject)
        .raw_header(automatic)
        .multipart(MultiPart::alternative_plain_html(plain(&content, site), html(&content, site)))
        .map_err(|error| invalid(&error))
}

fn content(mail: &Mail, recipient: &str, site: &Site, token: impl Fn(MailTokenId) -> String) -> Content {
    let name = &site.name;
    let link = |path: &str, id: MailTokenId| format!("{}/{path}?token={}", site.url, token(id));
    let page = |path: &str| format!("{}/{path}", site.url);
    let not_you = || {
        vec![format!(
            "If this was not you, choose a new password at {}. That signs out every device at once.",
            page("forgot")
        )]
    };
    let ignore = || "If you did not ask for this, do nothing: without the link nothing happens.".to_owned();
    let of = |subject: String, before: &[String]| Content {
        subject,
        before: before.to_vec(),
        link: None,
        after: Vec::new(),
    };
    match mail {
        Mail::Reset { token } => Content {
            link: Some(("Choose a new password", link("reset", *token))),
            after: vec![
                format!("The link works once, for {} minutes.", Purpose::Reset.life() / 60),
                "If you did not ask for this, do nothing: your password stays as it is.".into(),
            ],
            ..of(
                format!("Reset your {name} password"),
                &[format!("You asked for a new password for your {name} account, {recipient}. Choosing one signs out every device.")],
            )
        },
        Mail::Invite { token } => Content {
            link: Some(("Choose a password", link("reset", *token))),
            after: vec![hours(Purpose::Invite)],
            ..of(
                format!("Your {name} account"),
                &[format!("An account was made for you at {name}: {recipient}. Choose a password, then sign in.")],
            )
        },
        Mail::Verify { token } => Content {
            link: Some(("Confirm this address", link("verify", *token))),
            after: vec![hours(Purpose::Verify), ignore()],
            ..of(
                format!("Confirm your e-mail address for {name}"),
                &[format!("Please confirm that {recipient} is your address. Then {name} can send you a note when something important happens to your account.")],
            )
        },
        Mail::Register { token } => Content {
            link: Some(("Confirm this address", link("verify", *token))),
            after: vec![
                hours(Purpose::Register),
                "If you did not create an account, do not open the link: without it, there is no account.".into(),
            ],
            ..of(
                format!("Finish creating your {name} account"),
                &[format!("Confirm that {recipient} is your address. Then you can sign in with the password that you have chosen.")],
            )
        },
        Mail::Taken => Content {
            link: Some(("Sign in", page("login"))),
            after: vec![
                format!("If you do not know your password, choose a new one at {}.", page("forgot")),
                "If this was not you, do nothing: this has given no access to your account.".into(),
            ],
            ..of(
                format!("You already have a {name} account"),
                &[format!("A new account was requested for {recipient}, which has one already. Sign in with it.")],
            )
        },
        Mail::ChangeEmail { token } => Content {
            link: Some(("Use this address", link("verify", *token))),
            after: vec![hours(Purpose::ChangeEmail), ignore()],
            ..of(
                format!("Confirm your new e-mail address for {name}"),
                &[format!("Confirm that {recipient} is to be the address of your {name} account. You are then signed out everywhere, and sign in with the new address.")],
            )
        },
        Mail::NewEmailTaken => of(
            format!("Your {name} account has this address already"),
            &[
                format!("Another {name} account was to get the address {recipient}, which is that of your account. Nothing was changed."),
                "If this was you, use another address, or delete this account first.".into(),
            ],
        ),
        Mail::EmailChanged { token } => Content {
            link: Some(("This was not me: undo it", link("verify", *token))),
            after: vec![
                format!("The link works for {} hours. It gives the account this address again, signs out every device, and makes the present password void.", Purpose::RestoreEmail.life() / 3600),
                "If you have changed it yourself, do nothing.".into(),
            ],
            ..of(
                format!("The address of your {name} account was changed"),
                &[format!("Your {name} account has another e-mail address now. Mails to {recipient} end with this one.")],
            )
        },
        Mail::EmailRestored => Content {
            link: Some(("Choose a new password", page("forgot"))),
            ..of(
                format!("Your {name} account has this address again"),
                &["The change of the address was undone, every device was signed out, and the password is void. Choose a new one to sign in.".into()],
            )
        },
        Mail::SignedIn { device, address, at } => Content {
            after: not_you(),
            ..of(
                format!("New sign-in to your {name} account"),
                &[
                    "Someone signed in to your account from a browser that it did not know:".into(),
                    format!("{device}, from the network {address}, {}.", date(*at)),
                    format!("If this was you, do nothing. Your devices are listed at {}.", page("sessions")),
                ],
            )
        },
        Mail::PasswordChanged => Content {
            after: not_you(),
            ..of(
                format!("Your {name} password was changed"),
                &["Your password was changed, and all other devices were signed out.".into()],
            )
        },
        Mail::PasswordSet => of(
            format!("Your {name} password was changed"),
            &["An administrator has set a new password for your account, and every device was signed out. Ask them for it, or choose one of your own:".into(), page("forgot")],
        ),
        Mail::PasswordReset => Content {
            after: not_you(),
            ..of(
                format!("Your {name} password was reset"),
                &["A new password was chosen with the link that we sent to this address, and every device was signed out.".into()],
            )
        },
        Mail::RoleChanged { role } => of(
            format!("Your role at {name} was changed"),
            &[match role {
                Role::Admin => "You are an administrator now. Sign in again to use it.".into(),
                Role::User => "You are not an administrator any more. Sign in again.".into(),
            }],
        ),
        Mail::TokenReused { device, address } => Content {
            after: not_you(),
            ..of(
                format!("A {name} session of yours was ended"),
                &[
                    "A session was used from two places, so it was ended: someone may have copied it.".into(),
                    format!("It was started on {device}, from the network {address}."),
                ],
            )
        },
        Mail::FactorsChanged { change } => {
            let (what, effect) = match change {
                FactorChange::TotpAdded => {
                    ("An authenticator app was added to", "All other devices were signed out.")
                }
                FactorChange::TotpRemoved => {
                    ("The authenticator app was removed from", "All other devices were signed out.")
                }
                FactorChange::PasskeyAdded => {
                    ("A passkey was added to", "All other devices were signed out.")
                }
                FactorChange::PasskeyRemoved => {
                    ("A passkey was removed from", "All other devices were signed out.")
                }
                FactorChange::RecoveryCodesRenewed => {
                    ("New recovery codes were made for", "The old ones do not work any more.")
                }
                FactorChange::AllRemoved => (
                    "The authenticator app and all passkeys were removed from",
                    "An operator of the site has done this, and every device was signed out. Sign in with your password.",
                ),
            };
            Content {
                after: vec![format!(
                    "If this was not you, choose a new password at {}, then look at {}, and remove what is not yours. If you cannot sign in any more, ask the operator of the site to remove it.",
                    page("forgot"),
                    page("security"),
                )],
                ..of(
                    format!("The ways to sign in to your {name} account were changed"),
                    &[format!("{what} your account. {effect}")],
                )
            }
        }
        Mail::RecoveryCodeUsed => Content {
            after: not_you(),
            ..of(
                format!("A recovery code of your {name} account was used"),
                &[format!("Someone signed in to your account with a recovery code. If this was you, and few codes are left, make new ones at {}.", page("security"))],
            )
        },
        Mail::WrongCode { device, address } => Content {
            after: not_you(),
            ..of(
                format!("A sign-in to your {name} account was refused"),
                &[
                    "Someone entered the password of your account, and then a wrong code:".into(),
                    format!("{device}, from the network {address}."),
                    "If this was you, do nothing. Otherwise someone knows your password, and nothing else.".into(),
                ],
            )
        },
        Mail::Deleted => of(
            format!("Your {name} account was deleted"),
            &["Your account was deleted, and every device was signed out. This cannot be undone.".into()],
        ),
    }
}

fn hours(purpose: Purpose) -> String {
    match purpose.life() / 3600 {
        1 => "The link works once, for an hour.".into(),
        hours => format!("The link works once, for {hours} hours."),
    }
}

/// Such as `Sun, 29 Nov 2026 10:30:00 GMT`.
fn date(at: UnixSeconds) -> String {
    let time = UNIX_EPOCH + Duration::from_secs(at.max(0).cast_unsigned());
    httpdate::fmt_http_date(time)
}

fn plain(content: &Content, site: &Site) -> String {
    let link = content.link.as_ref().map(|(words, address)| format!("{words}:\n{address}"));
    let paragraphs: Vec<_> =
        content.before.iter().cloned().chain(link).chain(content.after.iter().cloned()).collect();
    format!("{}\n\n-- \n{}\n{}\n", paragraphs.join("\n\n"), site.name, site.url)
}

fn html(content: &Content, site: &Site) -> String {
    let paragraph = |text: &String| format!("<p style=\"margin:0 0 16px\">{}</p>", escape(text));
    let all = |texts: &[String]| texts.iter().map(paragraph).collect::<String>();
    let button = content.link.as_ref().map(|(words, address)| {
        format!(
            "<p style=\"margin:24px 0\"><a href=\"{address}\" style=\"background:{};color:#ffffff;padding:12px 20px;border-radius:8px;\
             text-decoration:none;font-weight:600;display:inline-block\">{}</a></p>",
            site.color,
            escape(words),
            address = escape(address),
        )
    });
    format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><meta name=\"color-scheme\" content=\"light dark\">\
         <title>{subject}</title></head>\
         <body style=\"font-family:system-ui,-apple-system,'Segoe UI',sans-serif;font-size:16px;line-height:1.5;margin:0;padding:24px\">\
         <div style=\"max-width:560px;margin:0 auto\"><h1 style=\"font-size:20px;margin:0 0 16px\">{subject}</h1>{}{}{}\
         <p style=\"margin:32px 0 0;font-size:14px;opacity:.7\">{} · {}</p></div></body></html>",
        all(&content.before),
        button.unwrap_or_default(),
        all(&content.after),
        escape(&site.name),
        escape(&site.url),
        subject = escape(&content.subject),
    )
}

fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn site() -> Site {
        Site {
            url: "https://id.example.com".into(),
            from: "Acme & Söhne <no-reply@example.com>".parse().unwrap(),
            name: "Acme & Söhne".into(),
            color: "#123456".into(),
        }
    }

    fn text_of(recipient: &str, mail: &Mail) -> Result<String, SendError> {
        let message = message(MailId::random(), recipient, mail, &site(), |_| "TOKEN".into())?;
        Ok(String::from_utf8(message.formatted()).unwrap())
    }

    #[test]
    fn what_a_client_has_sent_is_text_in_html_and_adds_no_header() {
        let mail = Mail::SignedIn {
            device: "<img src=x>\r\nBcc: eve@example.com".into(),
            address: "\"&".into(),
            at: 1_790_000_000,
        };
        let content = content(&mail, "ann@example.com", &site(), |_| String::new());
        let html = html(&content, &site());
        assert!(html.contains("&lt;img src=x&gt;") && !html.contains("<img"), "{html}");
        assert!(plain(&content, &site()).contains("Mon, 21 Sep 2026 14:13:20 GMT"));
        let text = text_of("ann@example.com", &mail).unwrap();
        let headers = text.split("\r\n\r\n").next().unwrap();
        assert!(!headers.contains("Bcc"), "{headers}");
        assert!(headers.contains("Auto-Submitted: auto-generated"), "{headers}");
    }

    #[test]
    fn each_mail_has_a_subject_and_its_links_name_this_site() {
        let token = MailTokenId::random();
        let mails = [
            Mail::Reset { token },
            Mail::Invite { token },
            Mail::Verify { token },
            Mail::Register { token },
            Mail::Taken,
            Mail::ChangeEmail { token },
            Mail::NewEmailTaken,
            Mail::EmailChanged { token },
            Mail::EmailRestored,
            Mail::SignedIn { device: "Firefox".into(), address: "192.0.2.0/24".into(), at: 0 },
            Mail::PasswordChanged,
            Mail::PasswordSet,
            Mail::PasswordReset,
            Mail::RoleChanged { role: Role::Admin },
            Mail::TokenReused { device: "Firefox".into(), address: String::new() },
            Mail::Deleted,
        ];
        for mail in mails {
            let content = content(&mail, "ann@example.com", &site(), |_| "TOKEN".into());
            let (plain, html) = (plain(&content, &site()), html(&content, &site()));
            let carries_token = format!("{mail:?}").contains("token");
            for text in [&plain, &html] {
                assert_eq!(
                    text.contains("https://id.example.com/") && text.contains("TOKEN"),
                    carries_token,
                    "{mail:?}: {text}"
                );
            }
            assert!(
                content.subject.contains("Acme & Söhne") && html.contains("Acme &amp; Söhne"),
                "{mail:?}"
            );
            assert!(text_of("ann@example.com", &mail).is_ok());
        }
    }

    #[test]
    fn domain_of_the_recipient_is_sent_in_ascii() {
        let text = text_of("ann@bücher.example", &Mail::Taken).unwrap();
        assert!(text.contains("To: ann@xn--bcher-kva.example\r\n"), "{text}");
        for address in ["ann", "ann@", "ann@example.com\r\nBcc: eve@example.com"] {
            assert!(matches!(text_of(address, &Mail::Taken), Err(SendError::Invalid(_))), "{address}");
        }
    }
}
