//! Probes: one task each, which tells the worker when the verdict changes. Upstream: pkg/kubelet/prober.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::schema::views::{Container, HTTPGetAction, Probe};
use apimachinery::{Ref, k};
use base::task::Task;
use base::time::Timestamp;
use runtime::{ContainerId, ExecSyncResponse};

use crate::core::SharedCore;
use crate::doors::{GrpcRequest, HttpAnswer, HttpRequest, Prober};
use crate::driver::{Mailbox, Message};
use crate::worker::{Event, ProbeKind, State, since};

/// How much of a failing command's output is told.
pub(crate) const OUTPUT_MAX: usize = 1024;
/// How many redirects within one host are followed.
const REDIRECTS_MAX: usize = 10;

/// Starts a probe of a running container. It ends when dropped.
pub(crate) fn start(
    core: SharedCore,
    worker: Mailbox,
    state: Arc<State>,
    index: usize,
    id: ContainerId,
    kind: ProbeKind,
    running_since: Timestamp,
) -> Task<()> {
    base::task::spawn(run(core, worker, state, index, id, kind, running_since))
}

async fn run(
    core: SharedCore,
    worker: Mailbox,
    state: Arc<State>,
    index: usize,
    id: ContainerId,
    kind: ProbeKind,
    running_since: Timestamp,
) {
    let container = state.container_spec(index);
    let probe = of(container, kind);
    let seconds = |n: i64, least: u64| Duration::from_secs(u64::try_from(n).unwrap_or(0).max(least));
    let period = seconds(if probe.period_seconds() == 0 { 10 } else { probe.period_seconds() }, 1);
    let delay = seconds(probe.initial_delay_seconds(), 0);
    base::time::sleep(delay.saturating_sub(since(running_since, base::time::now()))).await;
    let (mut run_of, mut last, mut told) = (0i64, None, None);
    loop {
        let (passed, event) = match once(&core, &state, container, probe, &id).await {
            Outcome::Passed => (Some(true), None),
            Outcome::Warned(why) => (Some(true), Some(("ProbeWarning", "warning", why))),
            Outcome::Failed(why) => (Some(false), Some(("Unhealthy", "failed", why))),
            Outcome::Unknown(why) => (None, Some(("Unhealthy", "errored", why))),
        };
        if let Some((reason, how, why)) = event {
            let message = format!("{} probe {how}: {why}", word(kind));
            core.record(state.pod.root(), Some(container.name()), true, reason, message);
        }
        let Some(passed) = passed else {
            base::time::sleep(period).await;
            continue;
        };
        run_of = if last == Some(passed) { run_of + 1 } else { 1 };
        last = Some(passed);
        let threshold = if passed { probe.success_threshold() } else { probe.failure_threshold() };
        let default = if passed { 1 } else { 3 };
        if run_of >= (if threshold == 0 { default } else { threshold }) && told != Some(passed) {
            told = Some(passed);
            let event = Event::Probe { id: id.clone(), kind, passed };
            if worker.send(Message::Event(event)).is_err() {
                return;
            }
        }
        base::time::sleep(period).await;
    }
}

fn of(container: Container<'_>, kind: ProbeKind) -> Probe<'_> {
    match kind {
        ProbeKind::Startup => container.startup_probe(),
        ProbeKind::Liveness => container.liveness_probe(),
        ProbeKind::Readiness => container.readiness_probe(),
    }
}

fn word(kind: ProbeKind) -> &'static str {
    match kind {
        ProbeKind::Startup => "Startup",
        ProbeKind::Liveness => "Liveness",
        ProbeKind::Readiness => "Readiness",
    }
}

/// What came of one attempt.
enum Outcome {
    Passed,
    /// It passed, with words.
    Warned(String),
    Failed(String),
    /// Nothing can be said of the container: it does not count.
    Unknown(String),
}

impl From<Result<(), String>> for Outcome {
    fn from(result: Result<(), String>) -> Self {
        result.map_or_else(Outcome::Failed, |()| Outcome::Passed)
    }
}

async fn once(
    core: &SharedCore,
    state: &State,
    container: Container<'_>,
    probe: Probe<'_>,
    id: &ContainerId,
) -> Outcome {
    let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds()).unwrap_or(0).max(1));
    let ip = state.ips.first().or(core.node.ips.first()).copied();
    let prober = &*core.doors.prober;
    if probe.http_get().exists() {
        return match http_request(container, probe.http_get(), ip, "kube-probe") {
            Ok(request) => http(prober, request, timeout).await,
            Err(why) => Outcome::Unknown(why),
        };
    }
    if probe.tcp_socket().exists() {
        let tcp = probe.tcp_socket();
        return match address(container, tcp.host(), tcp.0.get(k::PORT), ip) {
            Ok(address) => prober.tcp(address, timeout).await.into(),
            Err(why) => Outcome::Unknown(why),
        };
    }
    if probe.grpc().exists() {
        let grpc = probe.grpc();
        let request = |address| GrpcRequest {
            tls: grpc.mode() == Some("TLS"),
            address,
            service: grpc.service().unwrap_or_default().to_owned(),
        };
        return match address(container, "", grpc.0.get(k::PORT), ip) {
            Ok(address) => prober.grpc(request(address), timeout).await.into(),
            Err(why) => Outcome::Unknown(why),
        };
    }
    let command: Vec<String> = probe.exec().command().iter().map(str::to_owned).collect();
    let words = command.join(" ");
    match core.doors.runtime.exec_sync(id, command, timeout).await {
        Ok(done) if done.exit_code == 0 => Outcome::Passed,
        Ok(done) => Outcome::Failed(output(done, OUTPUT_MAX)),
        Err(runtime::Error::Timeout { .. }) => {
            let after = timeout.as_secs();
            Outcome::Failed(format!("command timed out: {words:?} timed out after {after}s"))
        }
        Err(err) => Outcome::Unknown(format!("rpc error: {err}")),
    }
}

/// What a command said, standard output first.
pub(crate) fn output(done: ExecSyncResponse, most: usize) -> String {
    let mut output = done.stdout;
    output.extend(done.stderr);
    output.truncate(most);
    String::from_utf8_lossy(&output).into_owned()
}

/// Asks, and follows redirects for as long as they stay on the host.
async fn http(prober: &dyn Prober, mut request: HttpRequest, timeout: Duration) -> Outcome {
    for _ in 0..=REDIRECTS_MAX {
        let answer = match prober.http_get(request.clone(), timeout).await {
            Ok(answer) => answer,
            Err(why) => return Outcome::Failed(why),
        };
        match answer.code {
            301 | 302 | 303 | 307 | 308 => match redirected(&request, &answer) {
                Some(next) => request = next,
                None => {
                    let body = answer.body;
                    return Outcome::Warned(format!("Probe terminated redirects, Response body: {body}"));
                }
            },
            200..400 => return Outcome::Passed,
            code => return Outcome::Failed(format!("HTTP probe failed with statuscode: {code}")),
        }
    }
    let scheme = if request.tls { "https" } else { "http" };
    let url = format!("{scheme}://{}{}", request.address, request.path);
    Outcome::Failed(format!("Get {url:?}: stopped after {REDIRECTS_MAX} redirects"))
}

/// Where a redirect leads, if to the same host.
fn redirected(request: &HttpRequest, answer: &HttpAnswer) -> Option<HttpRequest> {
    let to = answer.location.as_str();
    let mut next = request.clone();
    let Some((scheme, rest)) = to.split_once("://") else {
        if to.starts_with('/') {
            next.path = to.to_owned();
        } else {
            let above = request.path.split('?').next().unwrap_or("/").rsplit_once('/').map_or("", |p| p.0);
            next.path = format!("{above}/{to}");
        }
        return (!to.is_empty() && !to.starts_with("//")).then_some(next);
    };
    let (place, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
    next.tls = scheme == "https";
    next.path = path.to_owned();
    next.address = match place.parse() {
        Ok(address) => address,
        Err(_) => SocketAddr::new(place.parse().ok()?, if next.tls { 443 } else { 80 }),
    };
    for (name, value) in &mut next.headers {
        if name.eq_ignore_ascii_case("host") && *value == request.address.to_string() {
            *value = next.address.to_string();
        }
    }
    (next.address.ip() == request.address.ip()).then_some(next)
}

/// The request that a probe or hook makes.
///
/// # Errors
/// When its port or host is none.
pub(crate) fn http_request(
    container: Container<'_>,
    get: HTTPGetAction<'_>,
    ip: Option<IpAddr>,
    agent: &str,
) -> Result<HttpRequest, String> {
    let address = address(container, get.host(), get.port(), ip)?;
    let mut headers: Vec<(String, String)> =
        get.http_headers().iter().map(|h| (h.name().to_owned(), h.value().to_owned())).collect();
    for (name, value) in [
        ("Host", address.to_string()),
        ("User-Agent", format!("{agent}/1.37")),
        // An empty one asks for none to be sent.
        ("Accept", "*/*".to_owned()),
    ] {
        if !headers.iter().any(|h| h.0.eq_ignore_ascii_case(name)) {
            headers.push((name.into(), value));
        }
    }
    headers.retain(|(_, value)| !value.is_empty());
    let path = if get.path().starts_with('/') { get.path().to_owned() } else { format!("/{}", get.path()) };
    Ok(HttpRequest { tls: get.scheme().eq_ignore_ascii_case("https"), address, path, headers })
}

/// A port by number or by the name of one of the container's.
fn address(
    container: Container<'_>,
    host: &str,
    port: Ref<'_>,
    ip: Option<IpAddr>,
) -> Result<SocketAddr, String> {
    let number = match port.opt_i64() {
        Some(number) => number,
        None => {
            let name = port.str();
            let found = container.ports().iter().find(|p| p.name() == name).map(|p| p.container_port());
            found.or_else(|| name.parse().ok()).ok_or_else(|| format!("couldn't find port {name:?}"))?
        }
    };
    let port = u16::try_from(number).map_err(|_| format!("invalid port {number}"))?;
    let ip = if host.is_empty() {
        ip
    } else {
        Some(host.parse().map_err(|_| format!("host {host:?} is no address"))?)
    };
    Ok(SocketAddr::new(ip.ok_or("the pod has no address")?, port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::doc;

    #[test]
    fn requests() {
        let ip: Option<IpAddr> = Some("10.0.0.2".parse().unwrap());
        for (get, want) in [
            (doc!({ "port": 8080, "path": "/ready?x=1" }), "10.0.0.2:8080 /ready?x=1 10.0.0.2:8080"),
            (doc!({ "port": "web" }), "10.0.0.2:80 / 10.0.0.2:80"),
            (doc!({ "port": "none" }), "couldn't find port \"none\""),
            (
                doc!({ "port": 1, "host": "127.0.0.1", "httpHeaders": [{ "name": "host", "value": "a.b" }] }),
                "127.0.0.1:1 / a.b",
            ),
        ] {
            let mut container =
                doc!({ "ports": [{ "name": "web", "containerPort": 80 }], "readinessProbe": {} });
            container.edit().at(k::READINESS_PROBE).set(k::HTTP_GET, get);
            let container = Container(container.root());
            let got = http_request(container, container.readiness_probe().http_get(), ip, "kube-probe");
            let got = got.map(|r| {
                format!(
                    "{} {} {}",
                    r.address,
                    r.path,
                    r.headers.iter().find(|h| h.0.eq_ignore_ascii_case("host")).unwrap().1
                )
            });
            assert_eq!(got.unwrap_or_else(|e| e), want);
        }
    }

    #[test]
    fn redirects_are_followed_within_the_host() {
        let request = HttpRequest {
            tls: false,
            address: "10.0.0.2:80".parse().unwrap(),
            path: "/a/b?x".into(),
            headers: vec![("Host".into(), "10.0.0.2:80".into())],
        };
        for (location, want) in [
            ("/c?y=1", Some("false 10.0.0.2:80 /c?y=1 10.0.0.2:80")),
            ("c", Some("false 10.0.0.2:80 /a/c 10.0.0.2:80")),
            ("https://10.0.0.2:8443", Some("true 10.0.0.2:8443 / 10.0.0.2:8443")),
            ("http://10.0.0.2/d", Some("false 10.0.0.2:80 /d 10.0.0.2:80")),
            ("http://example.org/", None),
            ("//example.org/", None),
            ("", None),
        ] {
            let answer = HttpAnswer { code: 302, location: location.into(), body: String::new() };
            let got = redirected(&request, &answer)
                .map(|r| format!("{} {} {} {}", r.tls, r.address, r.path, r.headers[0].1));
            assert_eq!(got.as_deref(), want, "{location}");
        }
    }
}
