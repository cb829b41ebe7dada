//! Speaks the JSON protocol of SQS with plain HTTP.

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HeaderName};
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde_json::Value;

/// Names the action of a call.
pub(super) const TARGET: HeaderName = HeaderName::from_static("x-amz-target");
pub(super) const JSON: &str = "application/x-amz-json-1.0";

// Servers for tests take any signature, and some look for the region in it.
const ANYBODY: &str = "AWS4-HMAC-SHA256 Credential=test/20260101/us-east-1/sqs/aws4_request, SignedHeaders=host, Signature=0";

/// What stands between a call and its answer.
#[derive(Debug)]
pub enum CallError {
    /// The server was not reached, or its answer is no JSON.
    NoAnswer(String),
    /// It refused.
    Refused {
        /// The HTTP status.
        status: u16,
        /// The answer.
        answer: Value,
    },
}

impl std::fmt::Display for CallError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoAnswer(why) => write!(f, "no answer: {why}"),
            Self::Refused { status, answer } => write!(f, "refused with {status}: {answer}"),
        }
    }
}

impl std::error::Error for CallError {}

/// An answer, whole.
pub(super) type Answer = Response<Bytes>;

pub(super) fn client() -> Client<HttpConnector, Full<Bytes>> {
    Client::builder(TokioExecutor::new()).build_http()
}

/// Sends a request and reads its answer to the end.
pub(super) async fn send(
    client: &Client<HttpConnector, Full<Bytes>>,
    request: Request<Full<Bytes>>,
) -> Result<Answer, String> {
    let answer = client.request(request).await;
    let (head, body) = answer.map_err(|error| error.to_string())?.into_parts();
    let body = body.collect().await.map_err(|error| error.to_string())?;
    Ok(Response::from_parts(head, body.to_bytes()))
}

pub(super) async fn call(url: &str, action: &str, body: &Value) -> Result<Value, CallError> {
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{}/", url.trim_end_matches('/')))
        .header(TARGET, format!("AmazonSQS.{action}"))
        .header(CONTENT_TYPE, JSON)
        .header(AUTHORIZATION, ANYBODY)
        .body(Full::from(body.to_string()))
        .map_err(|error| CallError::NoAnswer(error.to_string()))?;
    let answer = send(&client(), request).await;
    let answer = answer.map_err(CallError::NoAnswer)?;
    let read = match answer.body().len() {
        0 => Ok(Value::Null),
        _ => serde_json::from_slice(answer.body()),
    };
    match (answer.status(), read) {
        (StatusCode::OK, Ok(value)) => Ok(value),
        (_, Err(error)) => Err(CallError::NoAnswer(error.to_string())),
        (status, Ok(answer)) => Err(CallError::Refused {
            status: status.as_u16(),
            answer,
        }),
    }
}
