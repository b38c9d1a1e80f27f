//! Incus's REST API: its envelope, its operations, and its several ways to say no.
//!
//! <https://linuxcontainers.org/incus/docs/main/rest-api/>. What is noted here beyond that was seen with Incus 6.0.

use std::time::{Duration, Instant};

use reqwest::{Body, Method};
use serde_json::Value;

use crate::error::{Fault, Trouble, TroubleExt};
use crate::http::{Api, Ask};

/// For what is answered at once.
const ANSWER_LIMIT: Duration = Duration::from_secs(15);
/// How long one question for the end of an operation waits.
const POLL: u64 = 10;

/// Why a call did not do what it was asked.
#[derive(Debug)]
pub(super) enum No {
    /// There is no such thing.
    Missing(Fault),
    /// Said in an answer; nothing was done.
    Refused(Fault),
    /// It began, and the operation says that it failed.
    Failed(Fault),
    /// No answer, or not a whole one.
    Lost(Trouble),
}

impl No {
    pub(super) fn fault(self) -> Fault {
        match self {
            No::Missing(fault) | No::Refused(fault) | No::Failed(fault) => fault,
            No::Lost(trouble) => trouble.fault().clone(),
        }
    }

    /// For calls whose failed operations leave the world as it was.
    pub(super) fn trouble(self) -> Trouble {
        match self {
            No::Missing(fault) | No::Refused(fault) => Trouble::NothingChanged(fault),
            No::Failed(fault) => Trouble::Partial(fault),
            No::Lost(trouble) => trouble,
        }
    }
}

pub(super) type Said<T> = Result<T, No>;

/// What is missing is `None`.
pub(super) fn there<T>(said: Said<T>) -> Said<Option<T>> {
    match said {
        Ok(value) => Ok(Some(value)),
        Err(No::Missing(_)) => Ok(None),
        Err(no) => Err(no),
    }
}

pub(super) struct Incus {
    api: Api,
}

impl Incus {
    pub(super) fn new(api: Api) -> Incus {
        Incus { api }
    }

    /// `metadata` of what is at a path.
    pub(super) async fn get(&self, path: &str) -> Said<Value> {
        let answer = self.ask(Ask::new(Method::GET, path, ANSWER_LIMIT)).await?;
        Ok(answer["metadata"].clone())
    }

    /// What is at a path that has no JSON.
    pub(super) async fn text(&self, path: &str) -> Said<String> {
        let ask = Ask::new(Method::GET, path, ANSWER_LIMIT);
        let answer = self.api.send(ask).await.map_err(No::Lost)?;
        match answer.status.is_success() {
            true => Ok(String::from_utf8_lossy(&answer.body).into_owned()),
            false => Err(no(path, &envelope(path, &answer.body)?)),
        }
    }

    /// Sends a raw file.
    pub(super) async fn write(
        &self,
        path: &str,
        headers: Vec<(&'static str, String)>,
        body: Vec<u8>,
    ) -> Said<()> {
        let mut ask = Ask::new(Method::POST, path, ANSWER_LIMIT);
        ask.headers = headers;
        ask.headers
            .push(("content-type", "application/octet-stream".to_owned()));
        ask.body = body;
        self.ask(ask).await.map(drop)
    }

    /// A file of any length, and what it is, to be read while it comes.
    pub(super) async fn open(&self, path: &str, limit: Duration) -> Said<(Body, Option<String>)> {
        let ask = Ask::new(Method::GET, path, limit);
        let response = self.api.open(ask).await.map_err(No::Lost)?;
        let kind = response.headers().get("content-type");
        let kind = kind.and_then(|kind| kind.to_str().ok()).map(str::to_owned);
        if response.status().is_success() {
            return Ok((Body::from(response), kind));
        }
        let why = format!("{} is not given out: {}", bare(path), response.status());
        Err(No::Refused(Fault::new(why)))
    }

    /// Sends such a file, and waits for the end of what is done with it.
    pub(super) async fn upload(
        &self,
        path: &str,
        headers: Vec<(&'static str, String)>,
        body: Body,
        limit: Duration,
    ) -> Said<()> {
        let mut ask = Ask::new(Method::POST, path, limit);
        ask.headers = headers;
        let answer = self.api.send_body(ask, body).await.map_err(No::Lost)?;
        self.over(path, &accepted(path, &answer.body)?, limit).await
    }

    /// Changes something, and waits for the end of the operation that this begins, if any.
    pub(super) async fn change(
        &self,
        method: Method,
        path: &str,
        body: &Value,
        limit: Duration,
    ) -> Said<()> {
        let ask = Ask::new(method, path, limit.max(ANSWER_LIMIT)).json(body);
        let said = self.ask(ask).await?;
        self.over(path, &said, limit).await
    }

    /// Waits for the end of the operation that an answer speaks of, if any.
    async fn over(&self, path: &str, said: &Value, limit: Duration) -> Said<()> {
        if said["type"] != "async" {
            return Ok(());
        }
        let operation = said["operation"].as_str().unwrap_or_default();
        self.ended(path, operation, limit).await
    }

    /// Gone already is done.
    pub(super) async fn delete(&self, path: &str, limit: Duration) -> Said<()> {
        let deleted = self.change(Method::DELETE, path, &Value::Null, limit).await;
        there(deleted).map(drop)
    }

    /// Makes `one` below `all`; there already, by whoever was faster, is done. The ways to say so are as many as there
    /// are kinds of things, so it is looked at.
    pub(super) async fn ensure(
        &self,
        all: &str,
        body: &Value,
        one: &str,
        limit: Duration,
    ) -> Said<()> {
        match self.change(Method::POST, all, body, limit).await {
            Err(No::Refused(fault)) => match self.get(one).await {
                Ok(_) => Ok(()),
                Err(_) => Err(No::Refused(fault)),
            },
            made => made,
        }
    }

    /// An operation is forgotten a few seconds after its end, and a wait that is over looks like one that failed.
    async fn ended(&self, path: &str, operation: &str, limit: Duration) -> Said<()> {
        let what = bare(path);
        let lost = |why: String| {
            let fault = Fault::unavailable(format!("{what}: its operation was lost sight of"));
            No::Lost(Trouble::Unknown(fault.because(why)))
        };
        let until = Instant::now() + limit;
        loop {
            let wait = format!("{operation}/wait?timeout={POLL}");
            let patience = Duration::from_secs(POLL) + ANSWER_LIMIT;
            let ask = Ask::new(Method::GET, &wait, patience);
            let answer = self.api.send(ask).await;
            let answer = answer.map_err(|trouble| lost(trouble.fault().to_string()))?;
            let said = envelope(&wait, &answer.body)?;
            let metadata = &said["metadata"];
            match metadata["status_code"].as_u64() {
                Some(200) if said["type"] == "sync" => return Ok(()),
                Some(400..) if said["type"] == "sync" => {
                    let why = metadata["err"].as_str().unwrap_or("it does not say why");
                    return Err(failed(what, why));
                }
                _ => {}
            }
            let why = said["error"].as_str().unwrap_or_default();
            match said["error_code"].as_u64() {
                Some(404) => return Err(lost(why.to_owned())),
                Some(code) if code != 0 && !why.contains("deadline exceeded") => {
                    return Err(failed(what, why));
                }
                _ => {}
            }
            if Instant::now() >= until {
                return Err(lost(format!("not ended within {} s", limit.as_secs_f64())));
            }
        }
    }

    async fn ask(&self, ask: Ask<'_>) -> Said<Value> {
        let path = ask.path.to_owned();
        let answer = self.api.send(ask).await.map_err(No::Lost)?;
        accepted(&path, &answer.body)
    }

    /// Whether it answers and knows us. It answers everybody, and says who is a stranger.
    pub(super) async fn ping(&self) -> Result<(), Fault> {
        let server = self.get("/1.0").await.map_err(No::fault)?;
        match server["auth"] == "trusted" {
            true => Ok(()),
            false => Err(
                Fault::unavailable("Incus does not trust our client certificate")
                    .hint("incus config trust add-certificate client.crt"),
            ),
        }
    }
}

fn bare(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}

fn failed(what: &str, why: &str) -> No {
    No::Failed(Fault::new(format!("{what} failed")).because(why))
}

fn no(path: &str, said: &Value) -> No {
    let why = said["error"].as_str().unwrap_or("it does not say why");
    let fault = Fault::new(format!("{} was refused", bare(path))).because(why);
    match said["error_code"].as_u64() {
        Some(404) => No::Missing(fault),
        _ => No::Refused(fault),
    }
}

fn accepted(path: &str, body: &[u8]) -> Said<Value> {
    let said = envelope(path, body)?;
    match said["type"] == "error" {
        true => Err(no(path, &said)),
        false => Ok(said),
    }
}

fn envelope(path: &str, body: &[u8]) -> Said<Value> {
    let parsed = serde_json::from_slice(body).map_err(|error| {
        Fault::unavailable(format!("{} answers what is no JSON", bare(path))).because(error)
    });
    parsed.unknown().map_err(No::Lost)
}
