//! The home page.

use leptos::prelude::*;

use super::form::SignOutNote;
use crate::client::session::Session;

#[component]
pub fn HomePage() -> impl IntoView {
    let session = Session::expect();
    view! {
        <section class="hero">
            <SignOutNote />
            <h1>"Log out, and the token is dead. " <em>"Everywhere. Now."</em></h1>
            <p class="lead">
                "A JWT is checked without asking anyone, which makes it fast, and usually makes it impossible to take back: after log-out it works on until it expires. Hallpass does both. No network call per request, and when log-out answers, no server accepts the token again."
            </p>
            <p class="actions">
                <Show
                    when=move || session.is_signed_in()
                    fallback=|| {
                        view! {
                            <a href="/register" class="button">"Create account"</a>
                            <a href="/login" class="button quiet">"Sign in"</a>
                        }
                    }
                >
                    <a href="/account" class="button">"See your token"</a>
                </Show>
            </p>
        </section>
        <section aria-labelledby="how">
            <h2 id="how">"How a token lives and dies"</h2>
            <ol class="steps">
                <li>
                    <h3>"Signing in puts its id on a list"</h3>
                    <p>"Each access token has an id of its own. It is recorded in the database first and copied to every server's memory."</p>
                </li>
                <li>
                    <h3>"A request is checked in memory"</h3>
                    <p>"The signature must be ours and the id on the list. Nobody else is asked, so it costs a fraction of a microsecond."</p>
                </li>
                <li>
                    <h3>"Signing out takes it off"</h3>
                    <p>"First in the database, then in every memory, and only then is the answer sent. A copy of the token gets 401."</p>
                </li>
            </ol>
        </section>
        <section aria-labelledby="try">
            <h2 id="try">"Try to keep a token alive"</h2>
            <p>"The page of your token walks you through it in a minute: use the token, copy it, sign out, send the copy to every server. Or by hand:"</p>
            <pre class="code" tabindex="0"><code>{EXAMPLE}</code></pre>
        </section>
    }
}

const EXAMPLE: &str = "\
$ curl -i -X POST http://127.0.0.1:3000/api/account/me -H \"Authorization: Bearer $COPY\"

HTTP/1.1 401 Unauthorized
WWW-Authenticate: Bearer error=\"invalid_token\"";
