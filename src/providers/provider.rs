//! A client of one provider.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use indexmap::IndexMap;
use reqwest::header::HeaderMap;
use tokio_util::sync::CancellationToken;

use super::api::{Api, Endpoint, Model};
use super::builder::Batch;
use super::call::{CallOptions, Caller, Failure, Outcome, Surroundings, Transport};
use super::cost::{Prices, cost};
use super::message::{AssistantMessage, Usage};
use super::network::Network;
use super::pace::Pace;
use super::queue::EventQueue;
use super::request::CompletionRequest;
use crate::http::{HttpOptions, Proxy};
use crate::secrets::Secret;
use crate::{Code, CoreError, Result};

/// More pages of models than any provider has.
const MODEL_PAGES: usize = 100;

/// Who calls, and whom.
#[derive(Default)]
pub struct ProviderOptions {
    /// The provider's id in messages and errors. Default: that of the API's own provider.
    pub id: Option<String>,
    /// The API key; none for servers that want none.
    pub key: Option<Secret>,
    /// Default: the API's own.
    pub base_url: Option<String>,
    /// Headers of every call.
    pub headers: HeaderMap,
    /// Default: as the environment says.
    pub proxy: Proxy,
    /// A PEM file of certificate authorities to trust beside those of the system.
    pub ca_file: Option<PathBuf>,
    /// By model.
    pub prices: BTreeMap<String, Prices>,
}

/// A client of one provider. Keeps its connections; nothing is connected before the first call.
pub struct Provider {
    id: String,
    api: Box<dyn Api>,
    endpoint: Endpoint,
    transport: Box<dyn Transport>,
    surroundings: Surroundings,
    prices: BTreeMap<String, Prices>,
    sums: Mutex<Sums>,
    pace: Pace,
}

/// What the calls of a provider came to.
#[derive(Clone, Debug, Default)]
pub struct Sums {
    /// Calls that ended, well or not; those that the caller aborted are in neither number.
    pub requests: u64,
    /// Of these, the ones that failed.
    pub failures: u64,
    /// In the order of their first use.
    pub by_model: IndexMap<String, Usage>,
}

impl Sums {
    /// As JSON text.
    pub fn to_json(&self) -> String {
        use std::fmt::Write as _;
        let mut out =
            format!("{{\"requests\":{},\"failures\":{},\"byModel\":{{", self.requests, self.failures);
        for (index, (model, usage)) in self.by_model.iter().enumerate() {
            if index > 0 {
                out.push(',');
            }
            super::message::write_string(&mut out, model);
            let _ = out.write_char(':');
            usage.write_json(&mut out);
        }
        out.push_str("}}");
        out
    }
}

impl Provider {
    /// A client that speaks `api`. `PROVIDER_REQUEST` if the base URL is none.
    pub fn new(api: Box<dyn Api>, options: ProviderOptions) -> Result<Self> {
        let http = HttpOptions {
            proxy: options.proxy.clone(),
            ca_file: options.ca_file.clone(),
            ..HttpOptions::default()
        };
        Self::with_transport(api, options, Box::new(Network::new(http)), Surroundings::default())
    }

    /// As [`Self::new`], with something in place of the network.
    pub fn with_transport(
        api: Box<dyn Api>,
        options: ProviderOptions,
        transport: Box<dyn Transport>,
        surroundings: Surroundings,
    ) -> Result<Self> {
        let id = options.id.unwrap_or_else(|| api.provider().into());
        let endpoint = Endpoint {
            provider: id.clone(),
            base_url: options.base_url.unwrap_or_else(|| api.base_url().into()),
            key: options.key.filter(|key| !key.is_empty()),
            headers: options.headers,
        };
        endpoint.url("", &[])?;
        Ok(Self {
            id,
            api,
            endpoint,
            transport,
            surroundings,
            prices: options.prices,
            sums: Mutex::default(),
            pace: Pace::default(),
        })
    }

    /// The provider's id.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The API that it speaks.
    pub fn api(&self) -> &'static str {
        self.api.id()
    }

    /// The time of day, as calls see it.
    pub fn now_ms(&self) -> u64 {
        self.surroundings.now_ms()
    }

    /// Asks a model, and waits for the whole answer.
    pub async fn complete(
        &self,
        request: &CompletionRequest,
        options: &CallOptions,
        cancel: &CancellationToken,
    ) -> Outcome {
        self.attempt(request, options, cancel, None).await.1
    }

    /// Asks a model. The answer's events, and how it ended, go to `queue`.
    pub async fn stream(
        &self,
        request: &CompletionRequest,
        options: &CallOptions,
        cancel: &CancellationToken,
        queue: &EventQueue,
    ) {
        let (rest, outcome) = self.attempt(request, options, cancel, Some(queue)).await;
        let aborted = outcome.as_ref().is_err_and(|failure| failure.aborted());
        queue.finish(rest, outcome, aborted);
    }

    /// Asks a model; the last events are handed back with the outcome.
    pub(super) async fn attempt(
        &self,
        request: &CompletionRequest,
        options: &CallOptions,
        cancel: &CancellationToken,
        queue: Option<&EventQueue>,
    ) -> (Batch, Outcome) {
        let call = self.api.request(request, &self.endpoint);
        let (mut decoder, mut outcome) =
            self.caller().ask(&request.model, call, options, cancel, queue).await;
        let aborted = outcome.as_ref().is_err_and(|failure| failure.aborted());
        let message = match &mut outcome {
            Ok(message) => message,
            Err(failure) => &mut failure.message,
        };
        self.price(message);
        let mut sums = self.sums.lock().unwrap_or_else(PoisonError::into_inner);
        if !message.usage.is_empty() {
            sums.by_model.entry(message.model.clone()).or_default().add(&message.usage);
        }
        sums.requests += u64::from(!aborted);
        sums.failures += u64::from(!aborted && outcome.is_err());
        drop(sums);
        (decoder.out.take_events(), outcome)
    }

    /// The payload of a request, as JSON text.
    pub fn payload(&self, request: &CompletionRequest) -> Result<String> {
        let body = self.api.request(request, &self.endpoint)?.body;
        String::from_utf8(body).map_err(|_| CoreError::new(Code::Internal, "a payload is not UTF-8"))
    }

    /// The failure of a call that was never made.
    pub fn unasked(&self, error: CoreError) -> Box<Failure> {
        Failure::unasked(error, self.api.id(), &self.id, "", self.now_ms())
    }

    /// The models that the provider offers, in its order.
    pub async fn list_models(&self, options: &CallOptions) -> Result<Vec<Model>> {
        let mut models = Vec::new();
        let mut after = None;
        for _ in 0..MODEL_PAGES {
            let request = self.api.models_request(&self.endpoint, after.as_deref())?;
            let page = self.api.models(&self.caller().fetch(request, options).await?)?;
            models.extend(page.models);
            match page.next {
                Some(next) if after.as_ref() != Some(&next) => after = Some(next),
                _ => return Ok(models),
            }
        }
        Err(CoreError::new(Code::Limit, format!("{} lists models without end", self.id)))
    }

    /// Sums since the client was made.
    pub fn usage(&self) -> Sums {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Calls with another key, and headers.
    #[cfg(test)]
    pub(super) fn set_endpoint<const N: usize>(
        &mut self,
        key: &str,
        headers: [(&'static str, reqwest::header::HeaderValue); N],
    ) {
        self.endpoint.key = Some(Secret::copy_of(key.as_bytes()));
        for (name, value) in headers {
            self.endpoint.headers.insert(name, value);
        }
    }

    fn price(&self, message: &mut AssistantMessage) {
        // With half of the counts a sum would only look whole.
        if let Some(prices) = self.prices.get(&message.model)
            && message.usage.input.is_some()
            && message.usage.output.is_some()
        {
            message.usage.cost = Some(cost(&message.usage, prices));
        }
    }

    fn caller(&self) -> Caller<'_> {
        Caller {
            api: self.api.as_ref(),
            provider: &self.id,
            endpoint: &self.endpoint,
            transport: self.transport.as_ref(),
            surroundings: self.surroundings,
            pace: &self.pace,
        }
    }
}
