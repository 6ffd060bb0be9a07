//! `pods/log`: read from the kubelet of the pod's node.
//!
//! Upstream: pkg/registry/core/pod/rest/log.go.

use api::{Kind, SubKind};
use apimachinery::call::{BoxFuture, Raw, RawBody};
use apimachinery::field::{ErrorList, Path};
use apimachinery::{Ref, Reply, Status, gotime, k};
use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, BodyStream, Full};

use super::{escape, stream, words};
use crate::endpoints::options;
use crate::tunnel::Tunnels;
use crate::{Connect, Lister, Request};

/// The kubelet's own words are passed on up to this length, in bytes.
const MESSAGE_BYTES_MAX: usize = 4096;

/// Serves logs through the nodes' tunnels.
pub struct Log {
    /// The ways to the nodes.
    pub tunnels: Tunnels,
}

impl Connect for Log {
    fn serves(&self, kind: &Kind, subresource: &str) -> bool {
        kind.sub(subresource).is_some_and(|sub| sub.does == SubKind::Log)
    }

    fn answer(&self, request: Request) -> BoxFuture<'static, Reply> {
        let tunnels = self.tunnels.clone();
        Box::pin(async move { log(&request, &tunnels).await.unwrap_or_else(Reply::Status) })
    }
}

/// Upstream: ValidatePodLogOptions.
fn check(request: &Request) -> Result<(), Status> {
    let options = &request.options;
    options::numbers(options, &["tailLines", "limitBytes", "sinceSeconds"])?;
    if let Some(time) = options::values(options, "sinceTime").first() {
        gotime::parse(time).map_err(|err| Status::bad_request(err.to_string()))?;
    }
    let mut errs = ErrorList::new();
    for (name, least, why) in [
        ("tailLines", 0, "must be greater than or equal to 0"),
        ("limitBytes", 1, "must be greater than 0"),
        ("sinceSeconds", 1, "must be greater than 0"),
    ] {
        let number = options::values(options, name).first().and_then(|value| value.parse::<i64>().ok());
        if let Some(number) = number.filter(|number| *number < least) {
            errs.invalid(&Path::new(name), number, why);
        }
    }
    if ["sinceSeconds", "sinceTime"].iter().all(|name| !options::values(options, name).is_empty()) {
        errs.forbidden(&Path::new(""), "at most one of `sinceTime` or `sinceSeconds` may be specified");
    }
    if errs.is_empty() {
        Ok(())
    } else {
        Err(Status::invalid("", "PodLogOptions", &request.target.name, errs))
    }
}

async fn log(request: &Request, tunnels: &Tunnels) -> Result<Reply, Status> {
    check(request)?;
    request.api.cacher.catch_up().await?;
    let target = &request.target;
    let item = request
        .api
        .cacher
        .get(&request.kind.storage, &target.namespace, &target.name)
        .ok_or_else(|| request.not_found())?;
    let pod = item.doc();
    let container = container(request, pod.get(k::SPEC))?;
    let node = pod.get(k::SPEC).get(k::NODE_NAME).str();
    if node.is_empty() {
        // A pod that runs nowhere has said nothing yet.
        return Ok(plain(RawBody::Bytes(Bytes::new())));
    }
    let mut uri = format!("/containerLogs/{}/{}/{container}", target.namespace, target.name);
    let passed = [
        "follow",
        "previous",
        "sinceSeconds",
        "sinceTime",
        "timestamps",
        "tailLines",
        "limitBytes",
        "stream",
    ];
    let query = request.options.query.iter().filter(|(name, _)| passed.contains(&name.as_str()));
    for (i, (name, value)) in query.enumerate() {
        uri.push(if i == 0 { '?' } else { '&' });
        uri.push_str(&format!("{name}={}", escape(value)));
    }
    let upgrade = request.wire.upgrade.as_ref();
    if upgrade.is_some_and(|u| u.protocol().eq_ignore_ascii_case("websocket")) {
        return stream::relay(request, tunnels, node, &uri).await;
    }
    let ask = http::Request::get(format!("http://{node}{uri}"))
        .body(Full::new(Bytes::new()))
        .map_err(Status::internal)?;
    let response = tunnels.request(node, ask).await.map_err(|err| Status::internal(words(&err)))?;
    let (parts, body) = response.into_parts();
    if !parts.status.is_success() {
        let said = body.collect().await.map(|b| b.to_bytes()).unwrap_or_default();
        let said = String::from_utf8_lossy(&said[..said.len().min(MESSAGE_BYTES_MAX)]).trim().to_owned();
        return Err(if parts.status.is_client_error() {
            Status::bad_request(said)
        } else {
            Status::internal(said)
        });
    }
    let frames = BodyStream::new(body).map(|frame| match frame {
        Ok(frame) => Ok(frame.into_data().unwrap_or_default()),
        Err(err) => Err(std::io::Error::other(err)),
    });
    Ok(plain(RawBody::Stream(Box::pin(frames))))
}

fn plain(body: RawBody) -> Reply {
    Reply::Raw(Raw { code: 200, content_type: "text/plain".into(), headers: Vec::new(), body })
}

/// The container that is meant: the one named, or the only one.
pub(super) fn container(request: &Request, spec: Ref<'_>) -> Result<String, Status> {
    let names =
        |list| spec.get(list).items().map(|c: Ref<'_>| c.get(k::NAME).str().to_owned()).collect::<Vec<_>>();
    let (containers, init) = (names(k::CONTAINERS), names(k::INIT_CONTAINERS));
    let ephemeral = names(k::EPHEMERAL_CONTAINERS);
    let pod = &request.target.name;
    let given =
        request.options.query.iter().find(|(name, _)| name == "container").map_or("", |(_, v)| v.as_str());
    if !given.is_empty() {
        let known = [&containers, &init, &ephemeral].iter().any(|list| list.iter().any(|n| n == given));
        return if known {
            Ok(given.to_owned())
        } else {
            Err(Status::bad_request(format!("container {given} is not valid for pod {pod}")))
        };
    }
    match containers.as_slice() {
        [one] if init.is_empty() && ephemeral.is_empty() => Ok(one.clone()),
        _ => {
            let mut message = format!(
                "a container name must be specified for pod {pod}, choose one of: [{}]",
                containers.join(" ")
            );
            if !init.is_empty() {
                message.push_str(&format!(" or one of the init containers: [{}]", init.join(" ")));
            }
            Err(Status::bad_request(message))
        }
    }
}
