//! The page that sends a kept copy of a token after its session has ended, and shows the answer of each
//! instance next to the result of a stateless check.

use leptos::prelude::*;
use leptos_meta::Title;

use super::{
    components::{ActionButton, TableFrame, each_second},
    form::SignOutNote,
    nav::NeedsScripts,
    token::{Status, milliseconds, minutes},
    walk::{Step, WalkStep},
};
use crate::{
    api::{error::ApiError, types::StatelessCheck},
    client::{
        session::{Session, SignOutNotice},
        token::{Answer, HeldToken, ProtectedCall, Responder, forget_copy, kept_copy},
    },
};

/// The number of calls, for each server that has answered, without an answer of another one, after which there is none:
/// a proxy distributes calls only roughly in turn.
const CALLS_PER_SERVER: usize = 4;

#[component]
pub fn ReplayPage() -> impl IntoView {
    // Only the browser has the copy, so it is read after hydration.
    let copy = RwSignal::new(None::<HeldToken>);
    Effect::new(move || {
        if let Some(kept) = kept_copy() {
            copy.set(Some(kept));
        }
    });
    view! {
        <Title text="Send the copy" />
        <section class="card full">
            <h1>"Does the copy still work?"</h1>
            <SignOutNote />
            <NeedsScripts />
            {move || match copy.get() {
                Some(token) => view! { <Replay token copy /> }.into_any(),
                None => view! {
                    <p>"There is no copy of a token in this tab. Sign in, press “Keep a copy” on the page Token, then sign out."</p>
                    <p class="actions"><a href="/account" rel="external" class="button">"See your token"</a></p>
                }.into_any(),
            }}
        </section>
    }
}

#[component]
fn Replay(token: HeldToken, copy: RwSignal<Option<HeldToken>>) -> impl IntoView {
    let session = Session::expect();
    let answers = RwSignal::new(Vec::<Answer>::new());
    let check = RwSignal::new(None::<StatelessCheck>);
    let trouble = RwSignal::new(None::<ApiError>);
    let is_done = RwSignal::new(false);
    let left = RwSignal::new(token.seconds_left());
    let token = StoredValue::new(token);
    each_second(move || left.set(token.with_value(HeldToken::seconds_left)));
    // The number of servers that the logout waited for. Gates and guards are among them, and do not answer here.
    let confirmed = move || match session.sign_out_notice() {
        Some(SignOutNotice::Confirmed(confirmed)) => confirmed.instances.max(1) as usize,
        _ => 1,
    };
    // The page may be left before the calls are done.
    let replay = move || async move {
        answers.set(Vec::new());
        is_done.set(false);
        trouble.set(None);
        let (token, confirmed) = (token.get_value(), untrack(confirmed));
        match token.check_statelessly().await {
            Ok(found) => drop(check.try_set(Some(found))),
            Err(error) => drop(trouble.try_set(Some(error))),
        }
        let mut heard: Vec<Answer> = Vec::new();
        let mut calls_without_news = 0;
        while heard.len() < confirmed && calls_without_news <= heard.len() * CALLS_PER_SERVER {
            match token.call(&ProtectedCall::Account).await {
                Ok(answer) if heard.iter().any(|known| known.responder == answer.responder) => {
                    calls_without_news += 1;
                }
                Ok(answer) => {
                    heard.push(answer);
                    calls_without_news = 0;
                }
                Err(error) => {
                    trouble.try_set(Some(error));
                    break;
                }
            }
            answers.try_set(heard.clone());
        }
        if let Some(notes) = ProtectedCall::notes() {
            match token.call(&notes).await {
                Ok(answer) => drop(answers.try_update(|answers| answers.push(answer))),
                Err(error) => drop(trouble.try_set(Some(error))),
            }
        }
        is_done.try_set(true);
    };
    let is_refused = Memo::new(move |_| {
        answers.with(|answers| !answers.is_empty() && answers.iter().all(|answer| answer.status == 401))
    });
    let is_accepted = move || answers.with(|answers| answers.iter().any(|answer| answer.status == 200));
    let has_answers = move || answers.with(|answers| !answers.is_empty());
    let step = move || if is_done.get() && has_answers() { Step::Done } else { Step::Replay };
    let servers = move || {
        answers.with(|answers| answers.iter().filter(|answer| answer.responder != Responder::Notes).count())
    };
    let verdict = move || {
        let heard = servers();
        let asked_notes = answers.with(|answers| answers.len() > heard);
        let (all, everywhere) = match (heard, asked_notes) {
            (1, false) => ("The server refuses it".to_owned(), ""),
            (1, true) => ("The server and the service notes refuse it".to_owned(), ", in every service"),
            (heard, false) => (format!("All {heard} servers refuse it"), ", on every server"),
            (heard, true) => (
                format!("All {heard} servers and the service notes refuse it"),
                ", on every server and in every service",
            ),
        };
        match left.get() {
            _ if heard == 0 => String::new(),
            0 if is_refused.get() => format!("{all}. By now it has also expired."),
            left if is_refused.get() => format!(
                "{all}, though its signature is valid for another {}. Signing out has revoked every copy{everywhere}, at once.",
                minutes(left)
            ),
            _ if is_accepted() && session.is_signed_in() => {
                "Accepted: its session is still live. Sign out, then send the copy again.".to_owned()
            }
            _ if is_accepted() => "The copy is still accepted.".to_owned(),
            _ => "Not every server could check the copy. Send it again.".to_owned(),
        }
    };
    let unheard = move || {
        let (heard, confirmed) = (answers.with(Vec::len), confirmed());
        (is_done.get() && has_answers() && heard < confirmed).then(|| {
            format!("{confirmed} servers confirmed the sign-out; {heard} of them answer at this address.")
        })
    };
    let forget = move |_| {
        forget_copy();
        copy.set(None);
    };
    view! {
        <h2 class="unseen">"The last step"</h2>
        <ol class="walk" start="4">
            <WalkStep step=Step::Replay current=Signal::derive(step) title="Send the copy">
                <p>"Send the token that you kept before signing out to every server."</p>
                <ActionButton words=("Send the copy", "Sending…") action=replay class="button" />
            </WalkStep>
        </ol>
        <div role="status">
            {move || trouble.get().map(|error| view! { <p class="alert">{error.to_string()}</p> })}
            {move || unheard().map(|text| view! { <p class="note">{text}</p> })}
            <p class="punchline">{move || if is_done.get() { verdict() } else { String::new() }}</p>
        </div>
        <Show when=has_answers>
            <div class="verdicts">
                {move || check.get().map(|check| view! { <StatelessVerdict check left /> })}
                <section class="verdict" aria-labelledby="here">
                    <h2 id="here">"Hallpass says"</h2>
                    {move || is_refused.get().then(|| view! { <p class="verdict-word good">"Refused"</p> })}
                    <TableFrame id="answers" caption="Responses to the copy">
                        <thead>
                            <tr>
                                <th scope="col">"Server"</th>
                                <th scope="col">"Response"</th>
                                <th scope="col" class="figure">"Time"</th>
                            </tr>
                        </thead>
                        <tbody>
                            {move || answers.get().into_iter().map(|answer| view! { <AnswerRow answer /> }).collect_view()}
                        </tbody>
                    </TableFrame>
                </section>
            </div>
        </Show>
        <Show when=move || is_done.get() && confirmed() == 1>
            <p class="hint">"Only one server is running. With several, the copy is sent to each of them."</p>
        </Show>
        <p class="actions">
            <a href="/login" rel="external" class="button small" class:quiet=move || !is_done.get()>"Sign in again"</a>
            <a href="/docs" rel="external" class="button small quiet">"Use the API"</a>
            <button type="button" class="button small quiet" on:click=forget>"Delete the copy"</button>
        </p>
    }
}

/// The result of a check that does not ask whether the token has been revoked.
#[component]
fn StatelessVerdict(
    check: StatelessCheck,
    /// Seconds until the token expires.
    left: RwSignal<u32>,
) -> impl IntoView {
    let verdict = move || {
        match check.is_valid && left.get() > 0 {
        true => view! {
            <p class="verdict-word bad">"Still valid"</p>
            <p class="hint">{move || format!("The signature is right, and the token does not expire for another {}. Where nothing else is checked, anyone who holds a copy can still use it.", minutes(left.get()))}</p>
        }
        .into_any(),
        false => view! {
            <p class="verdict-word">"Expired"</p>
            <p class="hint">"No server accepts an expired token."</p>
        }
        .into_any(),
    }
    };
    view! {
        <section class="verdict" aria-labelledby="elsewhere">
            <h2 id="elsewhere">"An ordinary JWT check says"</h2>
            {verdict}
        </section>
    }
}

#[component]
fn AnswerRow(answer: Answer) -> impl IntoView {
    let Answer { status, responder, elapsed_ms, .. } = answer;
    let name = match responder {
        Responder::Server(name) => name,
        Responder::Notes => "notes (another service)".to_owned(),
    };
    view! {
        <tr>
            <th scope="row">{name}</th>
            <td><Status status good=401 /></td>
            <td class="figure">{milliseconds(elapsed_ms)}</td>
        </tr>
    }
}
