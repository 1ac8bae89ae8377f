//! The services that may ask about tokens. They are added on the command line, where their secret is shown once.

use leptos::prelude::*;

use crate::{
    api::{self, types::ClientInfo},
    app::{
        components::{CopyButton, TableFrame},
        relative_time::minutes_ago,
        resource_view::Answered,
    },
    client::session::Session,
};

#[component]
pub fn Clients() -> impl IntoView {
    let session = Session::expect();
    let list = LocalResource::new(move || session.call(api::admin::clients));
    let row = |client: ClientInfo, now: i64| {
        view! {
            <tr role="row">
                <th scope="row" role="rowheader">{client.name}</th>
                <td role="cell" data-label="Client id"><code>{client.client_id.clone()}</code> " " <CopyButton text=client.client_id what="the client id" /></td>
                <td role="cell" data-label="May revoke">{if client.may_revoke_users { "Tokens, and all sessions of a user" } else { "Tokens" }}</td>
                <td role="cell" data-label="Added">{minutes_ago(now - client.created_at)}</td>
            </tr>
        }
    };
    view! {
        <section class="card full" aria-labelledby="clients">
            <h2 id="clients">"Services"</h2>
            <p>"These may ask whether a token is live, and end its session. " <code>"hallpass client add NAME"</code> " adds one."</p>
            <Answered
                answer=list
                view=move |list| {
                    if list.clients.is_empty() {
                        return view! { <p class="hint">"No services yet."</p> }.into_any();
                    }
                    let rows = list.clients.into_iter().map(|client| row(client, list.now)).collect_view();
                    view! {
                        <TableFrame id="services" caption="Services, the oldest first" class="as-cards">
                            <thead role="rowgroup">
                                <tr role="row">
                                    <th scope="col" role="columnheader">"Name"</th>
                                    <th scope="col" role="columnheader">"Client id"</th>
                                    <th scope="col" role="columnheader">"May revoke"</th>
                                    <th scope="col" role="columnheader">"Added"</th>
                                </tr>
                            </thead>
                            <tbody role="rowgroup">{rows}</tbody>
                        </TableFrame>
                    }
                    .into_any()
                }
            />
        </section>
    }
}
