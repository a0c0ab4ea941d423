//! The functions of `script.js`.

use std::cell::RefCell;

use napi::Env;
use napi::bindgen_prelude::{
    FromNapiValue, Function, JsObjectValue, JsValuesTupleIntoVec, Object, ObjectRef,
};

thread_local! {
    /// This thread's, from the first use until its environment ends. The reference is freed with the environment.
    static FUNCTIONS: RefCell<Option<ObjectRef<false>>> = const { RefCell::new(None) };
}

/// The object of functions.
pub(super) fn functions(env: &Env) -> napi::Result<Object<'_>> {
    FUNCTIONS.with_borrow_mut(|functions| {
        if let Some(functions) = functions {
            return functions.get_value(env);
        }
        let object: Object<'_> = env.run_script(include_str!("script.js"))?;
        *functions = Some(object.create_ref()?);
        env.add_env_cleanup_hook((), |()| {
            FUNCTIONS.with_borrow_mut(|functions| *functions = None);
        })?;
        Ok(object)
    })
}

/// Calls one of them.
pub(super) fn call<A: JsValuesTupleIntoVec, R: FromNapiValue>(
    env: &Env,
    name: &str,
    arguments: A,
) -> napi::Result<R> {
    functions(env)?.get_named_property::<Function<'_, A, R>>(name)?.call(arguments)
}
