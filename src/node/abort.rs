//! `AbortSignal`, without `napi`'s own: that one overwrites `onabort` and ignores a signal that has already fired.

use napi::bindgen_prelude::{FnArgs, Function, FunctionRef, JsObjectValue, Object, ObjectRef, Unknown};
use napi::{Env, JsValue, ValueType};

use super::error::{reify, wrong_argument};
use tokio_util::sync::CancellationToken;

/// A call's `{ signal }`, and the token that the core waits on.
pub(super) struct Abort {
    token: CancellationToken,
    listening: Option<Listening>,
}

/// `addEventListener` and its opposite.
type Registrar<'env> = Function<'env, FnArgs<(&'static str, Function<'env, (), ()>)>, ()>;

struct Listening {
    signal: ObjectRef<false>,
    listener: FunctionRef<(), ()>,
}

impl Abort {
    /// A call that nobody can abort.
    pub(super) fn never() -> Self {
        Self { token: CancellationToken::new(), listening: None }
    }

    /// Listens to a signal, if there is one.
    pub(super) fn from_signal(env: &Env, signal: Option<Unknown<'_>>) -> napi::Result<Self> {
        let Some(given) = signal else { return Ok(Self::never()) };
        let wrong = || reify(env, &wrong_argument("signal", "an AbortSignal", &given));
        if given.get_type()? != ValueType::Object {
            return Err(wrong());
        }
        let signal = Object::from_raw(env.raw(), given.raw());
        let listens = signal.get_named_property::<Unknown<'_>>("addEventListener")?;
        if listens.get_type()? != ValueType::Function {
            return Err(wrong());
        }
        let token = CancellationToken::new();
        if signal.get::<bool>("aborted")?.unwrap_or(false) {
            token.cancel();
        }
        let cancel = token.clone();
        let listener = env.create_function_from_closure::<(), (), _>("onAbort", move |_| {
            cancel.cancel();
            Ok(())
        })?;
        let add: Registrar<'_> = signal.get_named_property("addEventListener")?;
        let listening = Listening { signal: signal.create_ref()?, listener: listener.create_ref()? };
        add.apply(signal, ("abort", listener).into())?;
        Ok(Self { token, listening: Some(listening) })
    }

    /// Cancelled when the signal fires.
    pub(super) fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Stops listening. If the signal fired, its own reason, which may be any value.
    pub(super) fn finish(self, env: &Env) -> napi::Result<Option<Unknown<'static>>> {
        let Some(Listening { signal, listener }) = self.listening else { return Ok(None) };
        let object = signal.get_value(env)?;
        let remove: Registrar<'_> = object.get_named_property("removeEventListener")?;
        remove.apply(object, ("abort", listener.borrow_back(env)?).into())?;
        let reason = if self.token.is_cancelled() {
            Some(object.get_named_property::<Unknown<'_>>("reason")?)
        } else {
            None
        };
        let reason = reason.map(|reason| Object::from_raw(env.raw(), reason.raw()).to_unknown());
        signal.unref(env)?;
        Ok(reason)
    }
}

/// A promise that is rejected with a value. An `Error` of napi can hold an object, but no string, number or symbol.
pub(super) fn rejected(env: &Env, reason: Unknown<'static>) -> napi::Result<Unknown<'static>> {
    let reject: Function<'_, Unknown<'_>, Unknown<'_>> =
        env.run_script("(reason) => Promise.reject(reason)")?;
    Ok(Object::from_raw(env.raw(), reject.call(reason)?.raw()).to_unknown())
}
