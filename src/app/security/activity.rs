//! The recent activity of the account.

use leptos::prelude::*;

use crate::{
    api::{
        self,
        types::{EndReason, EventKind, SecurityEvent},
    },
    app::{
        components::Facts, dates::fact_at, relative_time::ago, resource_view::Answered, session_rows::network,
    },
    client::session::Session,
};

/// The list of recent events. It is loaded again after each change.
#[component]
pub fn Activity(changes: RwSignal<u32>) -> impl IntoView {
    let session = Session::expect();
    let events = LocalResource::new(move || {
        changes.track();
        session.call(api::account::events)
    });
    view! {
        <section class="card full needs-scripts" aria-labelledby="events">
            <h2 id="events">"Recent activity"</h2>
            <p class="hint">"If you do not recognize something here, change your password: that signs out all other devices."</p>
            <Answered
                answer=events
                view=move |found| {
                    let rows = found.events.into_iter().map(|event| event_row(&event, found.now));
                    view! { <ul class="rows">{rows.collect_view()}</ul> }.into_any()
                }
            />
        </section>
    }
}

fn event_row(event: &SecurityEvent, now: i64) -> impl IntoView + use<> {
    let (what, when) = (words(event.kind), ago(now - event.at));
    let facts = vec![fact_at(when, event.at), event.device.clone().into(), network(&event.address).into()];
    view! {
        <li>
            <div>
                <strong>{what}</strong>
                <Facts facts />
            </div>
        </li>
    }
}

fn words(kind: EventKind) -> &'static str {
    match kind {
        EventKind::SignedIn => "Signed in",
        EventKind::PasswordChanged => "Password changed",
        EventKind::PasswordSet => "Password set by an administrator",
        EventKind::PasswordReset => "Password reset by the link in a mail",
        EventKind::EmailChanged => "E-mail address changed",
        EventKind::EmailRestored => "E-mail address changed back",
        EventKind::RoleChanged => "Role changed by an administrator",
        EventKind::Disabled => "Account disabled",
        EventKind::Enabled => "Account enabled",
        EventKind::RefreshedElsewhere => "Session used from another device or network",
        EventKind::TotpAdded => "Authenticator app added",
        EventKind::TotpRemoved => "Authenticator app removed",
        EventKind::PasskeyAdded => "Passkey added",
        EventKind::PasskeyRemoved => "Passkey removed",
        EventKind::RecoveryCodesRenewed => "New recovery codes made",
        EventKind::FactorsRemoved => "Authenticator app and passkeys removed by an operator",
        EventKind::RecoveryCodeUsed => "Signed in with a recovery code",
        EventKind::SecondFactorMissed => "Password entered, but no valid code",
        EventKind::SessionEnded(reason) => match reason {
            EndReason::SignedOut => "Signed out",
            EndReason::SignedOutEverywhere => "Session ended: signed out everywhere",
            EndReason::EndedElsewhere => "Session ended from another device",
            EndReason::Replaced => "Session replaced by a new sign-in",
            EndReason::TokenReused => "Session ended: it was used from two places and may have been copied",
            EndReason::PasswordChanged | EndReason::PasswordSet => "Session ended: the password was changed",
            EndReason::RoleChanged => "Session ended: the role was changed",
            EndReason::Disabled => "Session ended: the account was disabled",
            EndReason::EndedByAdmin => "Session ended by an administrator",
            EndReason::Expired => "Session expired",
            EndReason::Displaced => "Session ended: too many sessions",
            EndReason::PasswordReset => "Session ended: the password was reset",
            EndReason::EmailChanged => "Session ended: the e-mail address was changed",
            EndReason::Deleted => "Session ended: the account was deleted",
            EndReason::FactorsChanged => {
                "Session ended: an authenticator app or a passkey was added or removed"
            }
        },
    }
}
