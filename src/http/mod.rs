//! One client for the providers' APIs over HTTPS: whom it trusts, who it is, how long it waits, and what a failure
//! means for the world.
//!
//! Providers name paths and bodies and nothing below. Nothing is repeated here: only the provider knows whether a
//! call that was lost may be sent again.

mod pin;

use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use reqwest::{Body, Method, Response, StatusCode};

use crate::error::{Fault, Kind, Trouble, innermost};

/// Until a connection stands. A cloud that is gone must not hold up a failover.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);
/// Longest answer that is read.
const BODY_MAX: usize = 64 << 20;

/// A server certificate and our own, as PEM: mutual TLS with a server that no public authority vouches for.
pub struct Mutual<'a> {
    /// Exactly this certificate is believed, under any name.
    pub server: &'a [u8],
    pub certificate: &'a [u8],
    pub key: &'a [u8],
}

/// One API: `https://host:port`, without a slash at the end.
#[derive(Clone)]
pub struct Api {
    client: reqwest::Client,
    base: String,
}

/// A request that is worth naming: the path below the base, with its query.
pub struct Ask<'a> {
    pub method: Method,
    pub path: &'a str,
    pub headers: Vec<(&'static str, String)>,
    pub body: Vec<u8>,
    pub limit: Duration,
}

impl<'a> Ask<'a> {
    pub fn new(method: Method, path: &'a str, limit: Duration) -> Ask<'a> {
        Ask {
            method,
            path,
            headers: Vec::new(),
            body: Vec::new(),
            limit,
        }
    }

    pub fn json(mut self, body: &serde_json::Value) -> Ask<'a> {
        self.body = body.to_string().into_bytes();
        self.headers
            .push(("content-type", "application/json".to_owned()));
        self
    }
}

/// Any answer at all, also a refusal.
pub struct Answer {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }
}

impl Api {
    pub fn mutual(base: &str, trust: &Mutual<'_>) -> Result<Api, Fault> {
        let cannot = |error: reqwest::Error| {
            Fault::new(format!("cannot make a client for `{base}`")).because(innermost(&error))
        };
        let client = reqwest::Client::builder()
            .no_proxy()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_LIMIT)
            .tls_backend_preconfigured(pin::config(trust)?)
            .build()
            .map_err(cannot)?;
        Ok(Api {
            client,
            base: base.trim_end_matches('/').to_owned(),
        })
    }

    /// The arm says whether the call may have happened: nothing was sent, or no whole answer came.
    pub async fn send(&self, mut ask: Ask<'_>) -> Result<Answer, Trouble> {
        let body = std::mem::take(&mut ask.body);
        self.send_body(ask, body.into()).await
    }

    /// With a body that need not fit into memory, instead of that of `ask`.
    pub async fn send_body(&self, ask: Ask<'_>, body: Body) -> Result<Answer, Trouble> {
        let call = self.call(&ask);
        let mut response = self.begin(ask, body, &call).await?;
        let (status, headers) = (response.status(), response.headers().clone());
        let mut body = Vec::new();
        while let Some(part) = response.chunk().await.map_err(|error| call.lost(error))? {
            if body.len() + part.len() > BODY_MAX {
                let message = format!("{}: an answer of more than {BODY_MAX} bytes", call.what);
                return Err(Trouble::Unknown(Fault::of(Kind::Error, message)));
            }
            body.extend_from_slice(&part);
        }
        Ok(Answer {
            status,
            headers,
            body,
        })
    }

    /// An answer whose body nobody has read yet. Until its end, the limit of `ask` holds.
    pub async fn open(&self, mut ask: Ask<'_>) -> Result<Response, Trouble> {
        let (call, body) = (self.call(&ask), std::mem::take(&mut ask.body));
        self.begin(ask, body.into(), &call).await
    }

    fn call(&self, ask: &Ask<'_>) -> Call {
        Call {
            what: format!("{} {}{}", ask.method, self.base, bare(ask.path)),
            limit: ask.limit,
        }
    }

    async fn begin(&self, ask: Ask<'_>, body: Body, call: &Call) -> Result<Response, Trouble> {
        let what = &call.what;
        let url = format!("{}{}", self.base, ask.path);
        let mut request = self.client.request(ask.method, url).timeout(ask.limit);
        for (name, value) in &ask.headers {
            let value = HeaderValue::from_str(value).map_err(|_| {
                Trouble::NothingChanged(Fault::new(format!("`{name}` of {what} is no header")))
            })?;
            request = request.header(HeaderName::from_static(name), value);
        }
        let sent = request.body(body).send().await;
        sent.map_err(|error| call.lost(error))
    }
}

/// What failures are told by.
struct Call {
    what: String,
    limit: Duration,
}

impl Call {
    fn lost(&self, error: reqwest::Error) -> Trouble {
        let (what, error) = (&self.what, error.without_url());
        let fault = match error.is_timeout() && !error.is_connect() {
            true => Fault::unavailable(format!(
                "{what}: no answer within {} s",
                self.limit.as_secs_f64()
            )),
            false => Fault::unavailable(what.clone()).because(innermost(&error)),
        };
        match error.is_connect() || error.is_builder() {
            true => Trouble::NothingChanged(fault),
            false => Trouble::Unknown(fault),
        }
    }
}

/// Without the query, where secrets may be.
fn bare(path: &str) -> &str {
    path.split('?').next().unwrap_or_default()
}
