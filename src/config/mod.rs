//! `openclaw.json`, whole: text, includes, environment, schema, edits, watching.

pub(crate) mod commit;
pub mod document;
pub mod dotpath;
mod edit;
pub mod env;
mod include;
mod js;
pub mod json5;
mod load;
pub mod lock;
mod origin;
pub mod paths;
mod process;
pub mod redact;
mod root_file;
pub mod schema;
mod validate;
pub mod value;
mod watch;

pub use document::Change;
pub use edit::{Edit, EditOptions};
pub use load::{Config, ConfigOptions, Explanation, Issue, MissingEnv, Severity, Via};
pub use origin::Place;
pub use paths::Env;
pub use validate::SchemaSource;
pub use watch::Update;
