//! The pieces that pages are made of, and that another product could take as they are: they know
//! nothing of sessions, calls or tokens. Their looks are in `style/main.css` under the same names.

pub use self::{
    button::ActionButton, code_block::CodeBlock, dialog::Dialog, field::Field, interval::each_second,
    loading::Waiting, table::TableFrame, toast::Toasts,
};

mod button;
mod code_block;
mod dialog;
mod field;
mod interval;
mod loading;
mod table;
mod toast;
