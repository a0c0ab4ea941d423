//! Tools that a model calls: written by the caller, or built in and bound to a sandbox.
//!
//! | file | holds |
//! |---|---|
//! | `registry` | [`ToolRegistry`]: arguments held against a schema, time and size bounded, one result for each call |
//! | `output` | [`Output`], and how it is cut: head and tail stay, and what went is counted |
//! | `exec` | a command for the shell, in the sandbox |
//! | `read`, `write`, `edit`, `ls`, `grep` | files of the sandbox, without a command |
//!
//! A call always has a result. What goes wrong in a tool (arguments that do not fit, a handler that fails, hangs or
//! returns nonsense) is a result that says so, for the model to read.

mod output;
mod registry;

#[cfg(unix)]
mod edit;
mod exec;
#[cfg(unix)]
mod files;
#[cfg(unix)]
mod grep;

#[cfg(test)]
#[cfg(unix)]
mod tests;

pub use output::{Content, Output};
pub use registry::{
    Call, Definition, Pending, Request, Telling, Tool, ToolRegistry, ToolRegistryOptions, Update,
};
