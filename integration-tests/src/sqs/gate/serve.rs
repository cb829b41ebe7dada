//! Takes connections and carries their requests to the server.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::header::{CONTENT_LENGTH, CONTENT_TYPE, HOST, TRANSFER_ENCODING};
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Mutex, oneshot, watch};
use tokio::task::JoinSet;

use super::Shared;
use super::rules::{Act, Call, Failure};
use crate::sqs::Stored;
use crate::sqs::call::{Answer, JSON, TARGET, client, send};

/// What each connection has a share of.
#[derive(Clone)]
struct Way {
    shared: Arc<Shared>,
    client: Client<HttpConnector, Full<Bytes>>,
    /// Held while a batch of messages is with the server: so the record has the server's order.
    sending: Arc<Mutex<()>>,
}

/// Serves until the gate is dropped.
pub(super) async fn serve(
    listener: TcpListener,
    shared: Arc<Shared>,
    mut alive: watch::Receiver<()>,
) {
    let way = Way {
        shared,
        client: client(),
        sending: Arc::default(),
    };
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                let Ok((socket, _)) = accepted else { return };
                connections.spawn(connection(socket, way.clone()));
                while connections.try_join_next().is_some() {}
            }
            gone = alive.changed() => if gone.is_err() { return },
        }
    }
}

async fn connection(socket: TcpStream, way: Way) {
    socket.set_nodelay(true).ok();
    let mut cut = way.shared.cut.subscribe();
    let service = service_fn(move |request| {
        let way = way.clone();
        // In a task of its own: what has begun is carried to its end also when the caller dies.
        async move {
            let (done, wait) = oneshot::channel();
            tokio::spawn(async move { done.send(way.carry(request).await).ok() });
            wait.await
                .ok()
                .flatten()
                .ok_or("the connection breaks here")
        }
    });
    let served =
        hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(socket), service);
    tokio::select! {
        biased;
        _ = cut.wait_for(|cut| *cut) => {}
        _ = served => {}
    }
}

impl Way {
    /// None: the connection breaks in place of an answer.
    async fn carry(self, request: Request<Incoming>) -> Option<Response<Full<Bytes>>> {
        let (head, body) = request.into_parts();
        let body = body.collect().await.ok()?.to_bytes();
        let action = head
            .headers
            .get(TARGET)
            .and_then(|value| value.to_str().ok());
        let action = action.and_then(|target| target.rsplit_once('.'));
        let body: Value = serde_json::from_slice(&body).ok()?;
        let call = Call {
            action: action.map_or_else(String::new, |(_, action)| action.to_owned()),
            queue: queue(&body),
            body,
        };
        let act = self.shared.rules().act(&call);
        let answer = match act {
            Act::Refuse { status, code } => refusal(status, &code),
            Act::Pass => self.pass(&head, &call, &[]).await?,
            Act::FailEntries(failures) => self.pass(&head, &call, &failures).await?,
            Act::LoseAnswer => {
                self.pass(&head, &call, &[]).await?;
                return None;
            }
        };
        let mut withheld = self.shared.withhold.subscribe();
        let kept_back = *withheld.borrow_and_update();
        if kept_back {
            withheld.wait_for(|withheld| !withheld).await.ok();
            return None;
        }
        Some(answer)
    }

    /// Takes a call to the server without the entries that fail, and brings its answer back with them.
    async fn pass(
        &self,
        head: &hyper::http::request::Parts,
        call: &Call,
        failures: &[Failure],
    ) -> Option<Response<Full<Bytes>>> {
        let failed = |id: &Value| failures.iter().any(|failure| *id == failure.id.as_str());
        let mut body = call.body.clone();
        if let Some(entries) = body["Entries"].as_array_mut() {
            entries.retain(|entry| !failed(&entry["Id"]));
        }
        let empty = body["Entries"].as_array().is_some_and(Vec::is_empty);
        let sending = if call.sends() {
            Some(self.sending.lock().await)
        } else {
            None
        };
        let (mut status, mut answer) = (StatusCode::OK, json!({ "Successful": [] }));
        if !empty {
            (status, answer) = self.ask(head, &body).await?;
        }
        if call.sends() && status == StatusCode::OK {
            self.record(call, &answer);
        }
        drop(sending);
        if status == StatusCode::OK {
            add(&mut answer, failures);
            self.shared.rules().amend(call, &mut answer);
        }
        respond(status, &answer)
    }

    async fn ask(
        &self,
        head: &hyper::http::request::Parts,
        body: &Value,
    ) -> Option<(StatusCode, Value)> {
        let target = self.shared.target;
        let mut request = Request::builder()
            .method(head.method.clone())
            .uri(format!("http://127.0.0.1:{target}{}", head.uri));
        for (name, value) in &head.headers {
            if ![HOST, CONTENT_LENGTH, TRANSFER_ENCODING].contains(name) {
                request = request.header(name, value);
            }
        }
        let request = request.body(Full::from(body.to_string())).ok()?;
        let answer: Answer = send(&self.client, request).await.ok()?;
        let value = match answer.body().len() {
            0 => json!({}),
            _ => serde_json::from_slice(answer.body()).ok()?,
        };
        Some((answer.status(), value))
    }

    /// Notes what the server has confirmed, in the order of the batch.
    fn record(&self, call: &Call, answer: &Value) {
        let confirmed: HashMap<&str, &str> = answer["Successful"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|one| Some((one["Id"].as_str()?, one["MessageId"].as_str()?)))
            .collect();
        let mut record = self.shared.record();
        for entry in call.entries() {
            let id = entry["Id"].as_str().and_then(|id| confirmed.get(id));
            if let Some(id) = id {
                let group = &entry["MessageGroupId"];
                let attributes = &entry["MessageAttributes"];
                record.note(
                    &call.queue,
                    Stored::new(id, group, &entry["MessageBody"], attributes),
                );
            }
        }
    }
}

fn queue(body: &Value) -> String {
    let url = body["QueueUrl"].as_str().unwrap_or_default();
    let name = body["QueueName"].as_str();
    let name = name.or_else(|| url.rsplit('/').next());
    name.unwrap_or_default().to_owned()
}

fn add(answer: &mut Value, failures: &[Failure]) {
    if failures.is_empty() {
        return;
    }
    let failed = failures.iter().map(|failure| {
        json!({
            "Id": failure.id, "Code": failure.code, "Message": failure.message,
            "SenderFault": failure.sender_fault,
        })
    });
    match answer["Failed"].as_array_mut() {
        Some(list) => list.extend(failed),
        None => answer["Failed"] = failed.collect(),
    }
}

fn refusal(status: u16, code: &str) -> Response<Full<Bytes>> {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST);
    let answer = json!({ "__type": code, "message": "refused by the gate" });
    respond(status, &answer).unwrap_or_default()
}

fn respond(status: StatusCode, answer: &Value) -> Option<Response<Full<Bytes>>> {
    let built = Response::builder()
        .status(status)
        .header(CONTENT_TYPE, JSON);
    built.body(Full::from(answer.to_string())).ok()
}
