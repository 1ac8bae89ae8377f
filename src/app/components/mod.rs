//! The pieces that pages are made of, and that another product could take as they are: they know
//! nothing of sessions, calls or tokens. Their looks are in `style/main.css` under the same names.

pub use self::{
    button::ActionButton, code_block::CodeBlock, dialog::Dialog, field::Field, table::TableFrame,
    ticking::each_second, toast::Toasts, waiting::Waiting,
};

mod button;
mod code_block;
mod dialog;
mod field;
mod table;
mod ticking;
mod toast;
mod waiting;
