//! The components of the pages, which another product could reuse as they are: they do not depend on
//! sessions, calls or tokens. Their styles are in `style/main.css` under the same names.

pub use self::{
    button::ActionButton,
    code_block::CodeBlock,
    copy_button::CopyButton,
    dialog::Dialog,
    facts::{Fact, Facts},
    field::{Field, advise},
    interval::each_second,
    later::Later,
    loading::Waiting,
    table::TableFrame,
    toast::Toasts,
};

mod button;
mod code_block;
mod copy_button;
mod dialog;
mod facts;
mod field;
mod interval;
mod later;
mod loading;
mod table;
mod toast;
