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
            <h1>"Sign out, and the token is dead. " <em>"Everywhere. Now."</em></h1>
            <p class="lead">
                "A JWT is checked without asking a database. That is fast, but it usually means that a token cannot be revoked: after you sign out, a copy still works until it expires. Hallpass is as fast, and revokes tokens. A request needs no network call, and once you have signed out, no server accepts the token again."
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
                    <h3>"Signing in lists the token's id"</h3>
                    <p>"Each access token has its own id. It is recorded in the database first, then copied into every server's memory."</p>
                </li>
                <li>
                    <h3>"A request is checked in memory"</h3>
                    <p>"The signature must be valid and the id on the list. There is no network call, so a check takes a fraction of a microsecond."</p>
                </li>
                <li>
                    <h3>"Signing out removes it"</h3>
                    <p>"First from the database, then from every server's memory. Only then is the sign-out confirmed. A copy of the token gets 401."</p>
                </li>
            </ol>
        </section>
        <section aria-labelledby="try">
            <h2 id="try">"Try to keep a token alive"</h2>
            <p>"The page Token takes you through it in a minute: use the token, copy it, sign out, and send the copy to every server. Or try it with curl:"</p>
            <pre class="code" tabindex="0"><code>{EXAMPLE}</code></pre>
        </section>
    }
}

const EXAMPLE: &str = "\
$ curl -i -X POST http://127.0.0.1:3000/api/account/me -H \"Authorization: Bearer $COPY\"

HTTP/1.1 401 Unauthorized
WWW-Authenticate: Bearer error=\"invalid_token\"";
