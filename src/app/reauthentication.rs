//! The dialog in which users sign in again when a call needs it. Then the call is repeated, and they go on.

use futures::channel::oneshot;
use leptos::{ev::SubmitEvent, html, prelude::*};
use leptos_router::components::A;

use super::{
    account::{Username, ask_account},
    components::{Dialog, Field},
    form::{CodeField, FormAlert, Sending, SubmitButton, focus, value},
    resource_view::{Latest, without_other_fields},
};
use crate::{
    api::{
        self,
        error::ApiError,
        types::{Assurance, Delivery, MethodList, StepUp},
    },
    client::{
        passkeys::{self, Support},
        session::Session,
    },
};

/// The dialog of a page, for all of its calls. Cheap to copy.
#[derive(Clone, Copy)]
pub struct Reauthentication {
    session: Session,
    is_open: RwSignal<bool>,
    /// What the call that waits needs.
    asked: RwSignal<Option<StepUp>>,
    /// Wakes the call that waits; dropped when the user does not sign in again.
    waiting: StoredValue<Option<oneshot::Sender<()>>>,
}

impl Reauthentication {
    /// Creates the dialog, for [`Reauthentication::expect`] to find.
    pub fn provide() -> Self {
        let session = Session::expect();
        let is_open = RwSignal::new(false);
        let waiting = StoredValue::new(None);
        Effect::new(move || {
            if !session.is_signed_in() {
                is_open.set(false);
            }
        });
        Effect::new(move || {
            if !is_open.get() {
                waiting.set_value(None);
            }
        });
        let reauthentication = Self { session, is_open, asked: RwSignal::new(None), waiting };
        provide_context(reauthentication);
        reauthentication
    }

    pub fn expect() -> Self {
        expect_context()
    }

    /// Makes the call. If it needs a newer session, or one with a second factor, the user is asked to sign in again, and
    /// the call is repeated.
    ///
    /// # Errors
    /// The error of the call, or that the user has not signed in again.
    pub async fn run<T, F>(self, call: impl Fn() -> F) -> Result<T, ApiError>
    where
        F: Future<Output = Result<T, ApiError>>,
    {
        loop {
            match call().await {
                Err(ApiError::ReauthenticationRequired(step_up)) => self.ask(step_up).await?,
                answer => return answer,
            }
        }
    }

    async fn ask(self, step_up: StepUp) -> Result<(), ApiError> {
        let (done, is_done) = oneshot::channel();
        self.waiting.set_value(Some(done));
        self.asked.set(Some(step_up));
        self.is_open.set(true);
        let canceled =
            |_| ApiError::InvalidRequest("Nothing was changed, because you did not sign in again.".into());
        is_done.await.map_err(canceled)
    }

    fn succeed(self) {
        if let Some(done) = self.waiting.try_update_value(Option::take).flatten() {
            // The receiver is gone if the page that has made the call was left.
            let _ = done.send(());
        }
        self.is_open.set(false);
    }

    /// The view of the dialog.
    pub fn view(self) -> impl IntoView {
        view! { <Dialog open=self.is_open title="Confirm that it is you"><Ways reauthentication=self /></Dialog> }
    }
}

/// The ways to sign in again that this user has, as soon as they are known.
#[component]
fn Ways(reauthentication: Reauthentication) -> impl IntoView {
    let session = reauthentication.session;
    let methods = Latest::of(LocalResource::new(move || session.call(api::factors::sign_in_methods)));
    let asked =
        untrack(|| reauthentication.asked.get()).unwrap_or(StepUp { acr: Assurance::Aal1, max_age: 0 });
    let ways = move || {
        methods.found.get().map(|methods| match Way::of(&methods, asked.acr, Support::of_page()) {
            Ok(way) => view! { <SignInAgain reauthentication asked way /> }.into_any(),
            Err(obstacle) => view! { <Obstacle reauthentication obstacle /> }.into_any(),
        })
    };
    view! { {methods.state("Loading…")} {ways} }
}

/// How a user can sign in again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Way {
    by_password: bool,
    /// Whether a code has to be entered with the password.
    with_code: bool,
    by_passkey: bool,
}

/// The reason why a user cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum NoWay {
    NoSecondFactor,
    /// There is only a passkey, which cannot be used on this page.
    PasskeyOnly(Support),
}

impl Way {
    fn of(methods: &MethodList, acr: Assurance, support: Support) -> Result<Self, NoWay> {
        let has_app = methods.totp_added_at.is_some();
        let has_passkey = !methods.passkeys.is_empty();
        let way = Self {
            by_password: has_app || acr == Assurance::Aal1,
            with_code: has_app,
            by_passkey: has_passkey && support == Support::Works,
        };
        match (way.by_password || way.by_passkey, has_passkey) {
            (true, _) => Ok(way),
            (false, true) => Err(NoWay::PasskeyOnly(support)),
            (false, false) => Err(NoWay::NoSecondFactor),
        }
    }
}

#[component]
fn SignInAgain(reauthentication: Reauthentication, asked: StepUp, way: Way) -> impl IntoView {
    let session = reauthentication.session;
    let sending = Sending::new();
    let (password, code) = (NodeRef::<html::Input>::new(), NodeRef::<html::Input>::new());
    let passkey = NodeRef::<html::Button>::new();
    let needs_code = RwSignal::new(way.with_code);
    Effect::new(move || match way.by_password {
        true => focus(password),
        false => passkey.get().into_iter().for_each(|button| drop(button.focus())),
    });
    let submit = move |event: SubmitEvent| {
        let (password_text, code_text) = (value(password), value(code));
        let call = async move {
            if password_text.is_empty() {
                return Err(ApiError::invalid_field("password", "Enter your password."));
            }
            let call =
                || api::factors::reauthenticate(password_text.clone(), code_text.clone(), Delivery::Cookie);
            session.replace_by(call).await
        };
        sending.send(&event, call, move |answer: Result<(), _>| match answer {
            Ok(()) => reauthentication.succeed(),
            Err(ApiError::SecondFactorRequired) => {
                needs_code.set(true);
                focus(code);
            }
            Err(ApiError::InvalidFields(fields)) if fields.contains_key("code") => focus(code),
            Err(_) => focus(password),
        });
    };
    let use_passkey = move |_| {
        let call = async move {
            let begun = api::auth::begin_passkey_login().await?;
            let credential = passkeys::get(&begun.options).await?;
            let call = || {
                let (ceremony, credential) = (begun.ceremony.clone(), credential.clone());
                api::factors::reauthenticate_with_passkey(ceremony, credential, Delivery::Cookie)
            };
            session.replace_by(call).await.map_err(|error| without_other_fields(error, &[]))
        };
        sending.run(call, move |answer: Result<(), _>| {
            if answer.is_ok() {
                reauthentication.succeed();
            }
        });
    };
    let by_password = way.by_password.then(|| {
        view! {
            <Username account=ask_account() />
            // The page may have fields with the usual names.
            <Field name="again-password" label="Your password" autocomplete="current-password" input=password error=sending.field_error("password") />
            {move || needs_code.get().then(|| view! { <CodeField name="again-code" input=code error=sending.field_error("code") /> })}
            <SubmitButton sending words=("Continue", "Checking…") />
        }
    });
    let by_passkey = way.by_passkey.then(|| {
        let class = if way.by_password { "button quiet" } else { "button" };
        view! { <button type="button" class=class node_ref=passkey on:click=use_passkey>"Use a passkey"</button> }
    });
    let minutes = asked.max_age / 60;
    let words = match asked.acr {
        Assurance::Aal1 => {
            format!("For this change you must have signed in within the last {minutes} minutes.")
        }
        Assurance::Aal2 => format!(
            "For this change you must have signed in with your second factor within the last {minutes} minutes."
        ),
    };
    view! {
        <p>{words}</p>
        <form novalidate on:submit=submit>
            <FormAlert sending fields=&["password", "code"] />
            {by_password}
            {by_passkey}
            <button type="button" class="button quiet" on:click=move |_| reauthentication.is_open.set(false)>"Cancel"</button>
        </form>
    }
}

/// What to do for a user who cannot sign in as the call needs it.
#[component]
fn Obstacle(reauthentication: Reauthentication, obstacle: NoWay) -> impl IntoView {
    let close = move |_| reauthentication.is_open.set(false);
    let button = NodeRef::<html::Button>::new();
    Effect::new(move || button.get().into_iter().for_each(|button| drop(button.focus())));
    let words = match obstacle {
        NoWay::NoSecondFactor => view! {
            <p>"Administrators need a second factor for changes to other accounts: an authenticator app or a passkey. You have none yet. Add one, then make the change."</p>
            <p><span on:click=close><A href="/security">"Add a second factor"</A></span></p>
        }
        .into_any(),
        NoWay::PasskeyOnly(Support::NotAtThisAddress) => view! {
            <p>"For this change you must sign in with your passkey. Passkeys need a name in the address, and this page was opened by an IP address. Open the site by its name."</p>
        }
        .into_any(),
        NoWay::PasskeyOnly(_) => view! {
            <p>"For this change you must sign in with your passkey, which this browser cannot use. Open the site in another browser."</p>
        }
        .into_any(),
    };
    view! {
        {words}
        <p class="actions"><button type="button" class="button small quiet" node_ref=button on:click=close>"Close"</button></p>
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::types::PasskeyInfo;

    fn methods(has_app: bool, has_passkey: bool) -> MethodList {
        let passkey = PasskeyInfo {
            passkey_id: "p".into(),
            name: "Phone".into(),
            created_at: 0,
            last_used_at: None,
            is_backed_up: true,
            signatures: 0,
        };
        MethodList {
            totp_added_at: has_app.then_some(0),
            passkeys: has_passkey.then_some(passkey).into_iter().collect(),
            ..Default::default()
        }
    }

    fn way(by_password: bool, with_code: bool, by_passkey: bool) -> Result<Way, NoWay> {
        Ok(Way { by_password, with_code, by_passkey })
    }

    #[test]
    fn only_ways_that_can_work_are_offered() {
        use {Assurance::*, Support::*};
        for (has_app, has_passkey, acr, support, expected) in [
            (false, false, Aal1, Works, way(true, false, false)),
            (false, true, Aal1, Works, way(true, false, true)),
            (true, true, Aal1, NotInThisBrowser, way(true, true, false)),
            (true, false, Aal2, Works, way(true, true, false)),
            (false, true, Aal2, Works, way(false, false, true)),
            (false, true, Aal2, NotAtThisAddress, Err(NoWay::PasskeyOnly(NotAtThisAddress))),
            (false, false, Aal2, Works, Err(NoWay::NoSecondFactor)),
        ] {
            assert_eq!(Way::of(&methods(has_app, has_passkey), acr, support), expected);
        }
    }
}
