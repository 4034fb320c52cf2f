//! Refuses before sending what would be refused anyway.

mod models;

pub use self::models::{
    Limit, Methods, Model, ModelReport, ModelTable, ModelTableBuilder, ModelTableReport, ModelVerdict, RefreshError,
    Source,
};
