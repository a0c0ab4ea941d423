//! `AbortSignal`, without `napi`'s own: that one overwrites `onabort` and ignores a signal that has already fired.

use napi::bindgen_prelude::{FnArgs, Function, FunctionRef, JsObjectValue, Object, ObjectRef, Unknown};
use napi::{Env, Error};
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
    pub(super) fn from_signal(env: &Env, signal: Option<Object<'_>>) -> napi::Result<Self> {
        let Some(signal) = signal else { return Ok(Self::never()) };
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

    /// Stops listening. If the signal fired, the error that holds its own reason.
    pub(super) fn finish(self, env: &Env) -> napi::Result<Option<Error>> {
        let Some(Listening { signal, listener }) = self.listening else { return Ok(None) };
        let object = signal.get_value(env)?;
        let remove: Registrar<'_> = object.get_named_property("removeEventListener")?;
        remove.apply(object, ("abort", listener.borrow_back(env)?).into())?;
        let reason = if self.token.is_cancelled() {
            Some(Error::from(object.get_named_property::<Unknown<'_>>("reason")?))
        } else {
            None
        };
        signal.unref(env)?;
        Ok(reason)
    }
}
