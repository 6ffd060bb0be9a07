//! What a container's lifecycle runs after its start and before its end. Upstream: pkg/kubelet/lifecycle/handlers.go.

use std::time::Duration;

use runtime::ContainerId;

use crate::core::SharedCore;
use crate::probes::{self, OUTPUT_MAX};
use crate::worker::{HookKind, State, pod_words};

/// How long a request may take; upstream's has no limit but the connection's, and is given up with the container.
const HTTP_TIME_MAX: Duration = Duration::from_secs(3600);

/// Runs a hook of a running container to its end.
///
/// # Errors
/// What the container's status says of a failed hook.
pub(crate) async fn run(
    core: &SharedCore,
    state: &State,
    index: usize,
    id: &ContainerId,
    kind: HookKind,
) -> Result<(), String> {
    let container = state.container_spec(index);
    let lifecycle = container.lifecycle();
    let hook = match kind {
        HookKind::PostStart => lifecycle.post_start(),
        HookKind::PreStop => lifecycle.pre_stop(),
    };
    let failed = |what: String, why: String, said: &str| {
        let (name, pod) = (container.name(), pod_words(state.object()));
        format!(
            "{what} lifecycle hook for Container {name:?} in Pod {pod:?} failed - error: {why}, message: {said:?}"
        )
    };
    if hook.exec().exists() {
        let command: Vec<String> = hook.exec().command().iter().map(str::to_owned).collect();
        let what = format!("Exec ({})", command.join(" "));
        return match core.doors.runtime.exec_sync(id, command, Duration::ZERO).await {
            Ok(done) if done.exit_code == 0 => Ok(()),
            Ok(done) => {
                let why = format!("command exited with {}", done.exit_code);
                Err(failed(what, why, &probes::output(done, OUTPUT_MAX)))
            }
            Err(err) => Err(failed(what, err.to_string(), "")),
        };
    }
    if hook.http_get().exists() {
        let what = format!("HTTP ({})", hook.http_get().path());
        let ip = state.ips.first().or(core.node.ips.first()).copied();
        let asked = match probes::http_request(container, hook.http_get(), ip, "kube-lifecycle") {
            // Whatever it answers will do.
            Ok(request) => core.doors.prober.http_get(request, HTTP_TIME_MAX).await.map(drop),
            Err(why) => Err(why),
        };
        return asked.map_err(|why| failed(what, why, ""));
    }
    if hook.sleep().exists() {
        base::time::sleep(Duration::from_secs(u64::try_from(hook.sleep().seconds()).unwrap_or(0))).await;
        return Ok(());
    }
    // Upstream's API has it for old objects only, and its kubelet fails it too.
    Err("Cannot run handler: invalid handler: tcpSocket".to_owned())
}
