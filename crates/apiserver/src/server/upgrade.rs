//! Connections that change their protocol: exec, port-forward, a node's tunnel (HTTP/1.1 `Upgrade`).

use std::sync::Arc;

use apimachinery::call::{Upgrade, UpgradeReply};
use http::request::Parts;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::{Open, Shared};

/// A connection that asked to be taken over.
pub(super) struct Pending {
    on: OnUpgrade,
    protocol: String,
    open: Open,
}

#[derive(Debug)]
struct Asked(String);

impl Upgrade for Asked {
    fn protocol(&self) -> &str {
        &self.0
    }
}

/// What of the request asks for an upgrade, if anything does.
pub(super) fn pending(parts: &mut Parts, shared: &Arc<Shared>) -> Option<Pending> {
    let asks = parts.headers.get(http::header::CONNECTION).and_then(|v| v.to_str().ok()).unwrap_or("");
    if !asks.split(',').any(|word| word.trim().eq_ignore_ascii_case("upgrade")) {
        return None;
    }
    let protocol = parts.headers.get(http::header::UPGRADE)?.to_str().ok()?.to_owned();
    let on = parts.extensions.remove::<OnUpgrade>()?;
    Some(Pending { on, protocol, open: Open::new(shared) })
}

impl Pending {
    pub(super) fn asked(&self) -> Box<dyn Upgrade> {
        Box::new(Asked(self.protocol.clone()))
    }

    /// Answers 101 and hands the connection over once the answer is out.
    pub(super) fn accept(self, reply: Box<dyn UpgradeReply>) -> http::Response<()> {
        let mut response = http::Response::new(());
        *response.status_mut() = http::StatusCode::SWITCHING_PROTOCOLS;
        let headers = response.headers_mut();
        headers.insert(http::header::CONNECTION, http::HeaderValue::from_static("Upgrade"));
        if let Ok(value) = http::HeaderValue::from_str(&self.protocol) {
            headers.insert(http::header::UPGRADE, value);
        }
        super::encode::add_headers(headers, reply.headers());
        let on = self.on;
        let open = reply.ends().then_some(self.open);
        base::task::spawn(async move {
            match on.await {
                // What goes wrong on one client's connection is that connection's end.
                Ok(upgraded) => drop(base::task::contain(reply.run(Box::new(TokioIo::new(upgraded)))).await),
                Err(err) => tracing::debug!(%err, "take over connection"),
            }
            drop(open);
        })
        .detach();
        response
    }
}
