//! The home page.

use leptos::prelude::*;

use super::form::SignOutNote;
use crate::client::session::Session;

#[component]
pub fn HomePage() -> impl IntoView {
    let session = Session::expect();
    view! {
        <section class="hero">
            <div>
                <SignOutNote />
                <h1>"Sign out, and the token is dead. " <em>"Everywhere. Now."</em></h1>
                <p class="lead">
                    "A JWT is checked without asking a database. That is fast, but it usually means that a token cannot be revoked: after you sign out, a copy still works until it expires. Hallpass is just as fast, and can revoke a token: a request needs no network call, and once you have signed out, no server accepts the token again."
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
                <p class="links"><a href="#how">"How it works"</a> " " <a href="/docs">"API"</a></p>
            </div>
            <Verdicts />
        </section>
        <section aria-labelledby="how">
            <h2 id="how">"How a token lives and dies"</h2>
            <ol class="steps">
                <li>
                    <h3>"Signing in puts the token on a list"</h3>
                    <p>"Each access token has an id. It is recorded in the database first, then copied into every server's memory."</p>
                </li>
                <li>
                    <h3>"A request is checked in memory"</h3>
                    <p>"The signature must be valid and the id on the list. There is no network call, so a check takes a fraction of a microsecond."</p>
                </li>
                <li>
                    <h3>"Signing out removes it"</h3>
                    <p>"First from the database, then from every server's memory. Only then is the sign-out confirmed. From then on, a copy of the token is refused."</p>
                </li>
            </ol>
        </section>
        <section aria-labelledby="try">
            <h2 id="try">"Try to keep a token alive"</h2>
            <p>"Once you are signed in, the page Token takes you through four steps, in a minute: use your token, copy it, sign out, and send the copy to every server. Each server answers:"</p>
            <pre class="code" tabindex="0"><code>{EXAMPLE}</code></pre>
        </section>
    }
}

/// The verdicts on a copied token, as the page that sends one shows them.
#[component]
fn Verdicts() -> impl IntoView {
    view! {
        <figure class="example">
            <figcaption>"Example: a copy of a token, sent a second after its owner has signed out"</figcaption>
            <div class="verdict">
                <p>"An ordinary JWT check says"</p>
                <p class="verdict-word bad">"Still valid"</p>
                <p class="hint">"The signature is right, and the token does not expire for another 4 min 58 s."</p>
            </div>
            <div class="verdict">
                <p>"Hallpass says"</p>
                <p class="verdict-word good">"Refused"</p>
                <p class="hint">"By all 3 servers: 401 Unauthorized."</p>
            </div>
        </figure>
    }
}

const EXAMPLE: &str = "\
POST /api/account/me
Authorization: Bearer <the copy>

401 Unauthorized
WWW-Authenticate: Bearer error=\"invalid_token\"";
