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
        token::{Answer, HeldToken, forget_copy, kept_copy},
    },
};

/// The number of calls for each instance that should answer, because a proxy distributes calls only roughly
/// in turn.
const CALLS_PER_INSTANCE: u32 = 4;

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
    // The number of instances, from the answer to the logout.
    let expected = move || match session.sign_out_notice() {
        Some(SignOutNotice::Confirmed { instances, .. }) => instances.max(1),
        _ => 1,
    };
    // The page may be left before the calls are done.
    let replay = move || async move {
        answers.set(Vec::new());
        is_done.set(false);
        trouble.set(None);
        let (token, expected) = (token.get_value(), untrack(expected));
        match token.check_statelessly().await {
            Ok(found) => drop(check.try_set(Some(found))),
            Err(error) => drop(trouble.try_set(Some(error))),
        }
        let mut heard: Vec<Answer> = Vec::new();
        for _ in 0..expected * CALLS_PER_INSTANCE {
            match token.call().await {
                Ok(answer) if heard.iter().any(|known| known.instance == answer.instance) => {}
                Ok(answer) => heard.push(answer),
                Err(error) => {
                    trouble.try_set(Some(error));
                    break;
                }
            }
            answers.try_set(heard.clone());
            if heard.len() as u32 == expected {
                break;
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
    let verdict = move || {
        let heard = answers.with(Vec::len);
        let (all, everywhere) = match heard {
            1 => ("The server refuses it".to_owned(), ""),
            heard => (format!("All {heard} servers refuse it"), ", on every server"),
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
        let missing = expected().saturating_sub(answers.with(Vec::len) as u32);
        (is_done.get() && has_answers() && missing > 0).then(|| {
            format!(
                "Only {} of {} servers could be reached at this address.",
                expected() - missing,
                expected()
            )
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
        <div class="verdicts">
            <section class="verdict" aria-labelledby="elsewhere">
                <h2 id="elsewhere">"An ordinary JWT check says"</h2>
                {move || match check.get() {
                    None => view! { <p class="verdict-word">"—"</p> }.into_any(),
                    Some(StatelessCheck { is_valid: true, .. }) if left.get() > 0 => view! {
                        <p class="verdict-word bad">"Still valid"</p>
                        <p class="hint">{move || format!("The signature is right, and the token does not expire for another {}. Where nothing else is checked, anyone who holds a copy can still use it.", minutes(left.get()))}</p>
                    }.into_any(),
                    Some(_) => view! {
                        <p class="verdict-word">"Expired"</p>
                        <p class="hint">"No server accepts an expired token."</p>
                    }.into_any(),
                }}
            </section>
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
                        {move || answers.with(Vec::is_empty).then(|| view! { <tr><td colspan="3" class="hint">"No response yet."</td></tr> })}
                    </tbody>
                </TableFrame>
            </section>
        </div>
        <Show when=move || is_done.get() && expected() == 1>
            <p class="hint">"Only one server is running. With several, the copy is sent to each of them."</p>
        </Show>
        <p class="actions">
            <a href="/login" rel="external" class="button small">"Sign in again"</a>
            <a href="/docs" rel="external" class="button small quiet">"Use the API"</a>
            <button type="button" class="button small quiet" on:click=forget>"Delete the copy"</button>
        </p>
    }
}

#[component]
fn AnswerRow(answer: Answer) -> impl IntoView {
    let Answer { status, instance, elapsed_ms, .. } = answer;
    view! {
        <tr>
            <th scope="row">{instance}</th>
            <td><Status status good=401 /></td>
            <td class="figure">{milliseconds(elapsed_ms)}</td>
        </tr>
    }
}
