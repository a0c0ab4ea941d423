//! `openclaw.json`, whole: text, includes, environment, schema, edits, watching.

pub mod json5;
pub mod value;
