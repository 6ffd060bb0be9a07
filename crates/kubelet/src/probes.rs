//! Probes: one task each, which tells the worker when the verdict changes. Upstream: pkg/kubelet/prober.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use apimachinery::schema::views::{Container, Probe};
use apimachinery::{Ref, k};
use base::task::Task;
use base::time::Timestamp;
use runtime::ContainerId;

use crate::core::SharedCore;
use crate::doors::HttpRequest;
use crate::driver::{Mailbox, Message};
use crate::worker::{Event, ProbeKind, State, since};

/// How much of a failing command's output is told.
const OUTPUT_MAX: usize = 1024;

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
        let outcome = once(&core, &state, container, probe, &id).await;
        let passed = outcome.is_ok();
        if let Err(why) = &outcome {
            let message = format!("{} probe failed: {why}", word(kind));
            core.record(state.pod.root(), Some(container.name()), true, "Unhealthy", message);
        }
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

async fn once(
    core: &SharedCore,
    state: &State,
    container: Container<'_>,
    probe: Probe<'_>,
    id: &ContainerId,
) -> Result<(), String> {
    let timeout = Duration::from_secs(u64::try_from(probe.timeout_seconds()).unwrap_or(0).max(1));
    let ip = state.ips.first().or(core.node.ips.first()).copied();
    if probe.http_get().exists() {
        let request = http_request(container, probe, ip)?;
        return core.doors.prober.http_get(request, timeout).await;
    }
    if probe.tcp_socket().exists() {
        let tcp = probe.tcp_socket();
        let address = address(container, tcp.host(), tcp.0.get(k::PORT), ip)?;
        return core.doors.prober.tcp(address, timeout).await;
    }
    let command = probe.exec().command().iter().map(str::to_owned).collect();
    match core.doors.runtime.exec_sync(id, command, timeout).await {
        Ok(done) if done.exit_code == 0 => Ok(()),
        Ok(done) => {
            let mut output = done.stdout;
            output.extend(done.stderr);
            output.truncate(OUTPUT_MAX);
            Err(String::from_utf8_lossy(&output).into_owned())
        }
        Err(err) => Err(format!("command timed out or could not run: {err}")),
    }
}

fn http_request(
    container: Container<'_>,
    probe: Probe<'_>,
    ip: Option<IpAddr>,
) -> Result<HttpRequest, String> {
    let get = probe.http_get();
    let address = address(container, get.host(), get.port(), ip)?;
    let mut headers: Vec<(String, String)> =
        get.http_headers().iter().map(|h| (h.name().to_owned(), h.value().to_owned())).collect();
    let has =
        |headers: &[(String, String)], name: &str| headers.iter().any(|h| h.0.eq_ignore_ascii_case(name));
    if !has(&headers, "host") {
        headers.push(("Host".into(), address.to_string()));
    }
    if !has(&headers, "user-agent") {
        headers.push(("User-Agent".into(), "kube-probe/1.37".into()));
    }
    if !has(&headers, "accept") {
        headers.push(("Accept".into(), "*/*".into()));
    }
    let path = if get.path().starts_with('/') { get.path().to_owned() } else { format!("/{}", get.path()) };
    Ok(HttpRequest { address, path, headers })
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
            let got = http_request(container, container.readiness_probe(), ip);
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
}
