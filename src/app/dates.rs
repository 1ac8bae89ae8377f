//! Dates and times of day, in the language that the user has chosen for them.

use js_sys::{Date, Object, Reflect};
use leptos::{ev::Event, prelude::*};
use wasm_bindgen::JsValue;

use super::components::Fact;
use crate::client::storage;

/// The languages to choose from: their tags (BCP 47), and their names in themselves.
const LANGUAGES: [(&str, &str); 11] = [
    ("de", "Deutsch"),
    ("en-GB", "English (UK)"),
    ("en-US", "English (US)"),
    ("es", "Español"),
    ("fr", "Français"),
    ("it", "Italiano"),
    ("ja", "日本語"),
    ("nl", "Nederlands"),
    ("pl", "Polski"),
    ("pt-BR", "Português (Brasil)"),
    ("sv", "Svenska"),
];

/// The tag by which browsers know their own language.
const OF_BROWSER: &str = "default";

/// The chosen language, if it is one of those.
fn chosen() -> &'static str {
    let stored = storage::language_of_dates().unwrap_or_default();
    LANGUAGES.into_iter().map(|(tag, _)| tag).find(|tag| *tag == stored).unwrap_or(OF_BROWSER)
}

/// The date and the time of day, by this device's clock and zone.
fn date_and_time(date: &Date, language: &str) -> String {
    let options = Object::new();
    for (key, value) in [("dateStyle", "full"), ("timeStyle", "short")] {
        let _ = Reflect::set(&options, &key.into(), &value.into());
    }
    date.to_locale_string(language, &options).into()
}

/// A fact with the time that it is about, in Unix seconds: who points at it sees the date.
pub fn fact_at(text: String, unix_seconds: i64) -> Fact {
    let date = Date::new(&JsValue::from_f64(unix_seconds as f64 * 1000.0));
    Fact::At { text, date: date_and_time(&date, chosen()) }
}

/// The choice of the language.
#[component]
pub fn LanguageOfDates() -> impl IntoView {
    let language = RwSignal::new(OF_BROWSER);
    // Only the browser knows.
    Effect::new(move || language.set(chosen()));
    let choose = move |event: Event| {
        let tag = event_target_value(&event);
        storage::set_language_of_dates((tag != OF_BROWSER).then_some(&*tag));
        language.set(chosen());
    };
    let example = RwSignal::new(String::new());
    Effect::new(move || {
        example.set(date_and_time(&Date::new(&JsValue::from_f64(Date::now())), language.get()));
    });
    let options = LANGUAGES.map(|(tag, name)| view! { <option value=tag lang=tag>{name}</option> });
    view! {
        <div class="field narrow">
            <label for="dates">"Language of dates"</label>
            <select id="dates" prop:value=language aria-describedby="dates-hint" on:change=choose>
                <option value=OF_BROWSER>"As my browser"</option>
                {options.into_iter().collect_view()}
            </select>
            <p id="dates-hint" class="hint">{move || format!("Now it is {}. You see dates when you point at a time, such as “5 min ago”. Kept in this browser.", example.get())}</p>
        </div>
    }
}
