//! The notice that a page does not work. The server renders it hidden into each document (`app/shell.rs`), and
//! the script that starts the page (`app/start.js`) shows it, because that also runs where the wasm does not.

use js_sys::{Function, Reflect};
use leptos::prelude::window;
use wasm_bindgen::{JsCast, JsValue};

/// The reasons for the notice that the wasm finds. `app/start.js` finds others.
#[derive(Clone, Copy)]
pub enum PageError {
    /// The wasm has panicked, so it must not run again.
    Panic,
    /// The part of the wasm with the app cannot be fetched. It is fetched again.
    Part,
}

impl PageError {
    /// Shows the notice.
    pub fn show(self) {
        call(match self {
            Self::Panic => "panic",
            Self::Part => "part",
        });
    }
}

/// Hides the notice about a part that has arrived after all.
pub fn hide() {
    call("");
}

fn call(reason: &str) {
    let show = Reflect::get(&window(), &"hallpassPageError".into()).and_then(JsCast::dyn_into::<Function>);
    let _ = show.and_then(|show| show.call1(&JsValue::NULL, &reason.into()));
}
