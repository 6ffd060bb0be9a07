//! What each event changes in a pod's state; what follows from it is decided in `plan`.

use base::time::Timestamp;
use runtime::ContainerId;

use super::*;

impl State {
    pub(super) fn apply(&mut self, event: Event, now: Timestamp, out: &mut Vec<Action>) {
        match event {
            Event::Pod(pod) => self.apply_pod(pod),
            Event::Gone => self.gone = true,
            Event::Tick => {}
            Event::Retry => self.apply_retry(now),
            Event::VolumesMounted if self.volumes == Volumes::Mounting => {
                self.volumes = Volumes::Mounted;
                self.retry.reset();
            }
            Event::VolumesFailed(message) if self.volumes == Volumes::Mounting => {
                self.volumes = Volumes::Failed(now + self.retry.next(RETRY_FIRST, RETRY_MOST));
                out.push(warn("FailedMount", message, None));
            }
            Event::VolumesUnmounted if self.volumes == Volumes::Unmounting => self.volumes = Volumes::Absent,
            Event::VolumesMounted | Event::VolumesFailed(_) | Event::VolumesUnmounted => {}
            Event::SandboxMade(_)
            | Event::SandboxFailed(_)
            | Event::NetworkAttached(..)
            | Event::NetworkFailed(..)
            | Event::SandboxLost(_)
            | Event::SandboxRemoved(_)
            | Event::SandboxRemovalFailed(..) => self.apply_sandbox(event, now, out),
            Event::End(end) => {
                if self.stage == Stage::Running && self.end.is_none() {
                    out.push(warn("Evicted", end.message.clone(), None));
                    self.end = Some(end);
                }
            }
            Event::Room(_) | Event::RoomFreed | Event::Resized(..) => self.apply_resize(event, now),
            event => self.apply_container(event, now, out),
        }
    }

    fn apply_retry(&mut self, now: Timestamp) {
        if let Volumes::Failed(at) = &mut self.volumes {
            *at = now;
        }
        for container in &mut self.containers {
            let config =
                container.trouble.as_ref().is_some_and(|(reason, _)| reason == "CreateContainerConfigError");
            if config && matches!(container.phase, Phase::Waiting(_)) {
                container.phase = Phase::turn();
            }
        }
    }

    fn apply_pod(&mut self, pod: Arc<Doc>) {
        let known = self.containers.len();
        let fresh = containers_of(&pod);
        let old = std::mem::replace(&mut self.pod, pod);
        // Containers are fixed once a pod exists, but for ephemeral ones, which only come.
        for container in fresh {
            if !self.containers.iter().any(|c| c.name == container.name) {
                self.containers.push(container);
            }
        }
        assert!(self.containers.len() >= known, "containers of a pod are never forgotten");
        let image = |pod: &Doc, name: &str| {
            let found = container_specs(pod.root()).find(|(_, c)| c.get(k::NAME).str() == name);
            found.map(|(_, c)| c.get(k::IMAGE).str().to_owned())
        };
        for container in &mut self.containers {
            if image(&old, &container.name) != image(&self.pod, &container.name) {
                container.image = None;
            }
        }
        self.wish(&old);
    }

    fn apply_sandbox(&mut self, event: Event, now: Timestamp, out: &mut Vec<Action>) {
        match event {
            Event::SandboxMade(id) if self.sandbox == Sandbox::Making => self.sandbox = Sandbox::Made(id),
            Event::SandboxFailed(message) if self.sandbox == Sandbox::Making => {
                self.sandbox = Sandbox::None(Some(now + self.retry.next(RETRY_FIRST, RETRY_MOST)));
                out.push(warn(
                    "FailedCreatePodSandBox",
                    format!("Failed to create pod sandbox: {message}"),
                    None,
                ));
            }
            Event::NetworkAttached(id, ips) if self.sandbox == Sandbox::Attaching(id.clone()) => {
                self.sandbox = Sandbox::Ready(id);
                self.ips = ips;
                self.retry.reset();
            }
            Event::NetworkFailed(id, message) if self.sandbox == Sandbox::Attaching(id.clone()) => {
                let message = format!("Failed to create pod sandbox: failed to set up network: {message}");
                out.push(warn("FailedCreatePodSandBox", message, None));
                let wait = self.retry.next(RETRY_FIRST, RETRY_MOST);
                if self.alive() {
                    self.sandbox = Sandbox::Broken(id, now + wait);
                } else {
                    self.remove_sandbox(id, out);
                }
            }
            Event::SandboxLost(id)
                if self.sandbox_id() == Some(&id) && !matches!(self.sandbox, Sandbox::Removing(_)) =>
            {
                self.lose_sandbox(now);
                self.remove_sandbox(id, out);
            }
            Event::SandboxRemoved(id) if self.sandbox_id() == Some(&id) => {
                let wait = self.stage == Stage::Running && !self.retry.0.is_zero();
                self.sandbox = Sandbox::None(wait.then(|| now + self.retry.0));
            }
            Event::SandboxRemovalFailed(id, message) if self.sandbox_id() == Some(&id) => {
                self.sandbox = Sandbox::Broken(id, now + self.retry.next(RETRY_FIRST, RETRY_MOST));
                out.push(warn("FailedKillPod", format!("error killing pod: {message}"), None));
            }
            _ => {}
        }
    }

    /// Nothing in the sandbox runs any more, and nothing can be learned about how it ended.
    pub(super) fn lose_sandbox(&mut self, now: Timestamp) {
        self.ips.clear();
        for container in &mut self.containers {
            if let Phase::Running { id, image_ref, since, .. } = &container.phase {
                let exit = Exit {
                    id: id.to_string(),
                    image_ref: image_ref.clone(),
                    code: 137,
                    reason: "ContainerStatusUnknown".into(),
                    message: "The container could not be located when the pod's sandbox was lost".into(),
                    started_at: Some(*since),
                    finished_at: now,
                };
                container.end(exit);
            }
            if container.role == Role::Init
                && self.stage == Stage::Running
                && let Phase::Exited(exit) = &container.phase
            {
                container.last = Some(exit.clone());
                container.phase = Phase::turn();
            }
        }
    }

    fn apply_container(&mut self, event: Event, now: Timestamp, out: &mut Vec<Action>) {
        match event {
            Event::ImageReady(index, image) if self.containers[index].phase == Phase::Pulling => {
                let container = &mut self.containers[index];
                container.image = Some(image);
                container.pull.reset();
                container.flip_at = None;
                container.phase = Phase::turn();
            }
            Event::ImageFailed(index, reason, message) if self.containers[index].phase == Phase::Pulling => {
                self.image_failed(index, reason, message, now, out);
            }
            Event::Started { index, id, image_ref, at, user }
                if self.containers[index].phase == Phase::Starting =>
            {
                self.containers[index].user = user;
                self.container_started(index, id, image_ref, at, out);
            }
            Event::StartFailed { index, reason, message, exit }
                if self.containers[index].phase == Phase::Starting =>
            {
                self.start_failed(index, reason, message, exit, now, out);
            }
            Event::Exited(id, exit) => {
                if let Some(index) = self.running(&id) {
                    self.containers[index].end(exit);
                }
            }
            Event::Hook { id, kind, outcome } => {
                if let Some(index) = self.running(&id) {
                    self.hook_done(index, kind, outcome, now, out);
                }
            }
            Event::Probe { id, kind, passed } => {
                if let Some(index) = self.running(&id) {
                    self.probed(index, kind, passed, now, out);
                }
            }
            _ => {}
        }
    }

    fn image_failed(
        &mut self,
        index: usize,
        reason: &'static str,
        message: String,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let image = self.container_spec(index).image().to_owned();
        let container = &mut self.containers[index];
        let words = if reason == "ErrImagePull" {
            format!("Failed to pull image {image:?}: {message}")
        } else {
            message.clone()
        };
        out.push(warn("Failed", words, Some(index)));
        out.push(warn("Failed", format!("Error: {reason}"), Some(index)));
        let until = now + container.pull.next(BACKOFF_FIRST, BACKOFF_MOST);
        container.phase = Phase::Waiting(Some(until));
        container.flip_at = (reason == "ErrImagePull").then(|| now + PULL_ERROR_SHOWN);
        container.trouble = Some((reason.into(), message));
    }

    fn container_started(
        &mut self,
        index: usize,
        id: ContainerId,
        image_ref: String,
        at: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let post_start = self.container_spec(index).lifecycle().post_start().exists();
        let container = &mut self.containers[index];
        out.push(normal("Started", "Container started".into(), Some(index)));
        container.attempt = container.next_attempt;
        container.next_attempt += 1;
        container.image = None;
        container.trouble = None;
        container.config.reset();
        container.actual = container.allocated.clone();
        (container.resize_error, container.resizing) = (None, None);
        container.phase = Phase::Running { id: id.clone(), image_ref, since: at, post_start, stopping: None };
        if post_start {
            out.push(Action::RunHook { index, id, kind: HookKind::PostStart });
        } else {
            self.begin_probing(index);
        }
    }

    /// What a container without probes passes at once.
    fn begin_probing(&mut self, index: usize) {
        let spec = self.container_spec(index);
        let (startup, readiness) = (spec.startup_probe().exists(), spec.readiness_probe().exists());
        let container = &mut self.containers[index];
        container.started = !startup;
        container.ready = !startup && !readiness;
    }

    fn hook_done(
        &mut self,
        index: usize,
        kind: HookKind,
        outcome: Result<(), String>,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let by = now + self.grace();
        let Phase::Running { post_start, stopping, .. } = &mut self.containers[index].phase else { return };
        match (kind, outcome, stopping) {
            (HookKind::PreStop, outcome, Some(stopping)) if stopping.pre_stop => {
                stopping.pre_stop = false;
                if outcome.is_err() {
                    // What it said may be secret.
                    out.push(warn("FailedPreStopHook", "PreStopHook failed".into(), Some(index)));
                }
            }
            (HookKind::PostStart, Ok(()), None) if *post_start => {
                *post_start = false;
                self.begin_probing(index);
            }
            (HookKind::PostStart, Err(message), None) if *post_start => {
                out.push(warn("FailedPostStartHook", "PostStartHook failed".into(), Some(index)));
                self.containers[index].trouble = Some(("PostStartHookError".into(), message));
                self.begin_stopping(index, by, "FailedPostStartHook".into(), out);
            }
            _ => {}
        }
    }

    fn start_failed(
        &mut self,
        index: usize,
        reason: &'static str,
        message: String,
        exit: Option<Exit>,
        now: Timestamp,
        out: &mut Vec<Action>,
    ) {
        let container = &mut self.containers[index];
        out.push(warn("Failed", format!("Error: {message}"), Some(index)));
        container.image = None;
        container.trouble = Some((reason.into(), message));
        match exit {
            Some(exit) => {
                container.attempt = container.next_attempt;
                container.next_attempt += 1;
                container.end(exit);
            }
            None => {
                container.phase = Phase::Waiting(Some(now + container.config.next(RETRY_FIRST, RETRY_MOST)))
            }
        }
    }

    fn probed(&mut self, index: usize, kind: ProbeKind, passed: bool, now: Timestamp, out: &mut Vec<Action>) {
        let readiness = self.container_spec(index).readiness_probe().exists();
        let container = &mut self.containers[index];
        match kind {
            ProbeKind::Readiness => container.ready = passed && container.started,
            ProbeKind::Startup if passed => {
                container.started = true;
                container.ready |= !readiness;
            }
            ProbeKind::Liveness if passed => {}
            ProbeKind::Startup | ProbeKind::Liveness => self.stop_unhealthy(index, kind, now, out),
        }
    }

    fn stop_unhealthy(&mut self, index: usize, kind: ProbeKind, now: Timestamp, out: &mut Vec<Action>) {
        let spec = self.container_spec(index);
        let (probe, word) = match kind {
            ProbeKind::Startup => (spec.startup_probe(), "startup"),
            _ => (spec.liveness_probe(), "liveness"),
        };
        let own = probe.termination_grace_period_seconds().map(seconds);
        let grace = own.unwrap_or_else(|| self.grace()).max(GRACE_LEAST);
        let name = &self.containers[index].name;
        let message = format!("Container {name} failed {word} probe, will be restarted");
        self.begin_stopping(index, now + grace, message, out);
    }
}
