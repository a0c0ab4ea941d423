//! Clients of model providers: what is asked and answered in OpenClaw's shapes, over each provider's own API.
//!
//! A [`request::CompletionRequest`] is encoded by an [`api::Api`]. The bytes of the answer are divided into events (`sse`),
//! which the API's [`api::Reducer`] reads into a [`builder::MessageBuilder`]; from there the events go on in batches.
//! Everything that is common to the APIs is here; an API is one file.

pub mod anthropic;
pub mod api;
pub mod builder;
pub mod call;
pub mod cost;
pub mod decoder;
pub mod failover;
pub mod gemini;
pub mod message;
pub mod network;
pub mod ollama;
mod openai;
pub mod openai_chat;
pub mod openai_responses;
pub mod pace;
pub mod provider;
pub mod queue;
pub mod relay;
pub mod request;
pub mod sse;
mod tags;

pub use api::Api;
pub use call::{CallOptions, Timeouts};
pub use failover::FailoverProvider;
pub use provider::{Provider, ProviderOptions};

#[cfg(test)]
mod answers;
#[cfg(test)]
mod fixtures;
#[cfg(test)]
mod requests;
#[cfg(test)]
pub(crate) mod testing;
