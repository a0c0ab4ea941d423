//! What works here: each primitive, run for real.

use std::sync::Arc;

use super::{Backend, BackendName, Plan};
use crate::{Code, CoreError, Result};

/// One primitive, and whether it works.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, such as `user-namespaces`.
    pub name: String,
    /// Whether it did what it must.
    pub ok: bool,
    /// What was seen.
    pub detail: String,
    /// What to do where it did not.
    pub remedy: Option<String>,
}

/// What works here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probe {
    /// The backend that `auto` would take.
    pub backend: Option<BackendName>,
    /// Every primitive that was tried, in order.
    pub checks: Vec<Check>,
}
pub(super) async fn probe() -> Result<Probe> { Err(CoreError::new(Code::Internal, "x")) }
pub(super) async fn choose(_: &Plan) -> Result<Arc<dyn Backend>> { Err(CoreError::new(Code::Internal, "x")) }
