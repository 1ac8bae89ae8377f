//! The changes that an administrator can make to a user, and the question before each of them.

use leptos::prelude::*;

use crate::{
    api::{
        self,
        error::ApiError,
        types::{Revocation, Role, UserInfo},
    },
    app::{
        components::{ActionButton, Dialog},
        reauthentication::Reauthentication,
        resource_view::Outcome,
    },
    client::session::Session,
};

/// A change that ends all sessions of a user.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Change {
    #[default]
    EndSessions,
    Disable,
    SetRole(Role),
}

impl Change {
    fn question(self, email: &str) -> String {
        match self {
            Self::EndSessions => format!("End all sessions of {email}?"),
            Self::Disable => format!("Disable {email}?"),
            Self::SetRole(Role::Admin) => format!("Make {email} an administrator?"),
            Self::SetRole(Role::User) => format!("Make {email} a regular user?"),
        }
    }

    fn effect(self) -> &'static str {
        match self {
            Self::EndSessions => "They are signed out on every device. They can sign in again.",
            Self::Disable => {
                "They are signed out on every device, and cannot sign in until an administrator enables the account."
            }
            Self::SetRole(Role::Admin) => {
                "They are signed out on every device. When they sign in again, they can manage all users."
            }
            Self::SetRole(Role::User) => {
                "They are signed out on every device. When they sign in again, they can no longer manage users."
            }
        }
    }

    /// The label of the button, at rest and busy.
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Self::EndSessions => ("End all sessions", "Ending…"),
            Self::Disable => ("Disable", "Disabling…"),
            Self::SetRole(Role::Admin) => ("Make administrator", "Changing…"),
            Self::SetRole(Role::User) => ("Make regular user", "Changing…"),
        }
    }

    fn done(self, email: &str) -> String {
        match self {
            Self::EndSessions => format!("All sessions of {email} have ended."),
            Self::Disable => format!("{email} is disabled."),
            Self::SetRole(Role::Admin) => format!("{email} is an administrator now."),
            Self::SetRole(Role::User) => format!("{email} is a regular user now."),
        }
    }

    async fn make(self, session: Session, user_id: &str) -> Result<Revocation, ApiError> {
        let id = || user_id.to_owned();
        match self {
            Self::EndSessions => session.call(|| api::admin::revoke_sessions(id())).await,
            Self::Disable => session.call(|| api::admin::disable_user(id())).await,
            Self::SetRole(role) => session.call(|| api::admin::set_role(id(), Some(role))).await,
        }
    }
}

/// The question that is asked before a change. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Question {
    is_open: RwSignal<bool>,
    about: RwSignal<Option<(Change, UserInfo)>>,
}

impl Question {
    pub fn new() -> Self {
        Self { is_open: RwSignal::new(false), about: RwSignal::new(None) }
    }

    pub fn ask(self, change: Change, user: UserInfo) {
        self.about.set(Some((change, user)));
        self.is_open.set(true);
    }
}

/// The dialog with the question. Makes the change if the answer is yes.
#[component]
pub fn QuestionDialog(
    question: Question,
    outcome: Outcome,
    /// Called when a change was made, or may have been.
    on_change: impl Fn() + Copy + Send + Sync + 'static,
) -> impl IntoView {
    let (session, reauthentication) = (Session::expect(), Reauthentication::expect());
    let Question { is_open, about } = question;
    let title = move || about.get().map(|(change, user)| change.question(&user.email)).unwrap_or_default();
    let change = move || about.get().map(|(change, _)| change).unwrap_or_default();
    let contents = move || {
        let failure = Outcome::new();
        let make = move || async move {
            let Some((change, user)) = about.get_untracked() else { return };
            match reauthentication.run(|| change.make(session, &user.user_id)).await {
                Ok(revocation) => {
                    is_open.try_set(false);
                    outcome.tell(&change.done(&user.email), Ok(revocation));
                }
                Err(error) => failure.fail(error),
            }
            on_change();
        };
        view! {
            <p>{change().effect()}</p>
            {failure.view()}
            <p class="actions">
                <ActionButton class="button small danger" words=change().words() action=make />
                <button type="button" class="button small quiet" autofocus on:click=move |_| is_open.set(false)>"Cancel"</button>
            </p>
        }
    };
    view! { <Dialog open=is_open title=Signal::derive(title)>{contents()}</Dialog> }
}
