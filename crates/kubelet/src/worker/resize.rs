//! Resources that change while a pod runs: the node is asked for room, then each run is given what it may have.
//!
//! Upstream: pkg/kubelet/allocation, pkg/kubelet/kuberuntime/kuberuntime_manager.go (`doPodResizeAction`).

use super::*;

/// How long until a run is given again what it could not be given.
const RESIZE_RETRY: Duration = Duration::from_secs(10);

impl State {
    /// The pod with the resources that the node has given it, which may not be those it wants.
    pub fn allocated_pod(&self) -> Arc<Doc> {
        let same = |i: usize| resources_of(self.container_spec(i).0) == self.containers[i].allocated;
        if (0..self.containers.len()).all(same) {
            return self.pod.clone();
        }
        let mut out = (*self.pod).clone();
        for list in [k::INIT_CONTAINERS, k::CONTAINERS] {
            for i in 0..out.get(k::SPEC).get(list).len() {
                let Some(mut spec) = out.edit().at(k::SPEC).at(list).item(i) else { continue };
                let name = spec.read().get(k::NAME).str().to_owned();
                if let Some(c) = self.containers.iter().find(|c| c.name == name) {
                    spec.set(k::RESOURCES, c.allocated.clone());
                }
            }
        }
        Arc::new(out)
    }

    /// Whether a run has other resources than it may have.
    pub fn resizes(&self, index: usize) -> bool {
        let c = &self.containers[index];
        c.is_running() && matches!(c.role, Role::Main | Role::Sidecar) && c.actual != c.allocated
    }

    /// The object has changed: it may want other resources.
    pub(super) fn wish(&mut self, old: &Doc) {
        let of = |pod: &Doc| container_specs(pod.root()).map(|(_, c)| resources_of(c)).collect::<Vec<_>>();
        let (before, now) = (of(old), of(&self.pod));
        if before == now {
            return;
        }
        self.resize = self.wants_other().then_some(Resize::Wanted);
    }

    /// Whether some container wants other resources than it was given.
    pub(super) fn wants_other(&self) -> bool {
        (0..self.containers.len())
            .any(|i| resources_of(self.container_spec(i).0) != self.containers[i].allocated)
    }

    pub(super) fn apply_resize(&mut self, event: Event, now: Timestamp) {
        match event {
            Event::RoomFreed if matches!(self.resize, Some(Resize::Deferred(_))) => {
                self.resize = Some(Resize::Wanted);
            }
            Event::Room(answer) if self.resize == Some(Resize::Asked) => {
                if answer.is_none() {
                    for index in 0..self.containers.len() {
                        self.containers[index].allocated = resources_of(self.container_spec(index).0);
                        self.containers[index].resize_at = None;
                    }
                }
                self.resize = answer;
            }
            Event::Resized(id, outcome) => {
                let Some(index) = self.running(&id) else { return };
                let container = &mut self.containers[index];
                let Some(given) = container.resizing.take() else { return };
                match outcome {
                    Ok(()) => (container.actual, container.resize_error) = (given, None),
                    Err(why) => {
                        container.resize_error = Some(why);
                        container.resize_at = Some(now + RESIZE_RETRY);
                    }
                }
            }
            _ => {}
        }
    }

    /// When something is tried again.
    pub(super) fn resize_wake(&self) -> impl Iterator<Item = Timestamp> {
        (0..self.containers.len()).filter(|i| self.resizes(*i)).filter_map(|i| self.containers[i].resize_at)
    }

    pub(super) fn plan_resize(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        if self.resize == Some(Resize::Wanted) {
            self.resize = Some(Resize::Asked);
            out.push(Action::AskForRoom);
        }
        let by = now + self.grace();
        for index in 0..self.containers.len() {
            let restart = self.restarts_for_resize(index);
            let due = self.resizes(index) && self.containers[index].resize_at.is_none_or(|at| at <= now);
            let container = &mut self.containers[index];
            let Phase::Running { id, stopping: None, .. } = &container.phase else { continue };
            if !due || container.resizing.is_some() {
                continue;
            }
            if restart {
                let message = format!("Container {} resize requires restart", container.name);
                self.begin_stopping(index, by, message, out);
            } else {
                container.resizing = Some(container.allocated.clone());
                out.push(Action::ResizeContainer { index, id: id.clone() });
            }
        }
    }

    /// Whether a resource that changes is one that its container must be restarted for.
    fn restarts_for_resize(&self, index: usize) -> bool {
        let container = &self.containers[index];
        let changed = |name: &str| {
            let same =
                |list| container.actual.get(list).get(name).same(container.allocated.get(list).get(name));
            !(same(k::LIMITS) && same(k::REQUESTS))
        };
        let mut policies = self.container_spec(index).0.get(k::RESIZE_POLICY).items();
        policies.any(|p| {
            p.get(k::RESTART_POLICY).str() == "RestartContainer" && changed(p.get(k::RESOURCE_NAME).str())
        })
    }
}
