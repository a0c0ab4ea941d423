//! `openclaw.json`, whole: text, includes, environment, schema, edits, watching.

pub mod dotpath;
pub mod env;
mod include;
mod js;
pub mod json5;
mod load;
mod origin;
pub mod paths;
pub mod redact;
mod root_file;
pub mod schema;
mod validate;
pub mod value;

pub use load::{Config, ConfigOptions, Explanation, Issue, MissingEnv, Severity, Via};
pub use origin::Place;
pub use paths::Env;
pub use validate::SchemaSource;
