//! What follows from a pod's state: the one place that decides.

use std::time::Duration;

use apimachinery::schema::views::Pod;
use base::time::Timestamp;

use super::*;

impl State {
    /// When the state next changes by time alone.
    pub fn next_wake(&self) -> Option<Timestamp> {
        if self.stage == Stage::Done {
            return None;
        }
        let running = self.stage == Stage::Running;
        let waits = self.containers.iter().flat_map(|c| match &c.phase {
            Phase::Waiting(until) if running => [*until, c.flip_at],
            // A hook, or the wait for its turn, ends there.
            Phase::Running { stopping: Some(Stopping { by, told: None, .. }), .. } => [Some(*by), None],
            _ => [None, None],
        });
        let volumes = match self.volumes {
            Volumes::Failed(at) if self.stage == Stage::Running => Some(at),
            _ => None,
        };
        let sandbox = match self.sandbox {
            Sandbox::None(at) if self.stage == Stage::Running => at,
            Sandbox::Broken(_, at) => Some(at),
            _ => None,
        };
        let resize = self.resize_wake().filter(|_| running);
        waits.flatten().chain(volumes).chain(sandbox).chain(self.deadline()).chain(resize).min()
    }

    fn deadline(&self) -> Option<Timestamp> {
        let limit = self.spec().active_deadline_seconds()?;
        (self.stage == Stage::Running).then(|| self.start_time + seconds(limit))
    }

    pub(super) fn plan(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        if self.stage == Stage::Running {
            self.check_deadline(now, out);
            if self.deleting() || self.end.is_some() {
                self.stage = Stage::Stopping;
            } else {
                self.plan_running(now, out);
            }
        }
        if self.stage == Stage::Stopping {
            self.plan_stopping(now, out);
        }
        if self.stage == Stage::Cleaning {
            self.plan_cleaning(now, out);
        }
        if self.stage == Stage::Done && self.gone {
            out.push(Action::Forget);
        } else if self.stage == Stage::Done && self.deleting() && !self.leaving {
            self.leaving = true;
            out.push(Action::DeletePod);
        }
    }

    fn check_deadline(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        if self.end.is_none() && self.deadline().is_some_and(|at| at <= now) {
            let message = "Pod was active on the node longer than the specified deadline".to_owned();
            out.push(normal("DeadlineExceeded", message.clone(), None));
            self.end = Some(End { reason: "DeadlineExceeded".into(), message });
        }
    }

    fn plan_running(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        self.settle(now, out);
        self.pass_time(now, out);
        if self.is_complete() {
            self.stage = Stage::Stopping;
            return;
        }
        match self.volumes {
            Volumes::Absent => self.mount(out),
            Volumes::Failed(at) if at <= now => self.mount(out),
            _ => {}
        }
        match &self.sandbox {
            Sandbox::None(at) if self.volumes == Volumes::Mounted && at.is_none_or(|at| at <= now) => {
                out.push(Action::RunSandbox(self.sandbox_attempt));
                self.sandbox_attempt += 1;
                self.sandbox = Sandbox::Making;
            }
            Sandbox::Made(id) => {
                out.push(Action::AttachNetwork(id.clone()));
                self.sandbox = Sandbox::Attaching(id.clone());
            }
            // A running pod whose wiring could not be read again is asked again; one without containers is made anew.
            Sandbox::Broken(id, at) if *at <= now => {
                let id = id.clone();
                if self.alive() {
                    out.push(Action::AttachNetwork(id.clone()));
                    self.sandbox = Sandbox::Attaching(id);
                } else {
                    self.remove_sandbox(id, out);
                }
            }
            _ => {}
        }
        self.plan_resize(now, out);
        self.plan_images(now, out);
        self.go_on_stopping(now, out);
        if matches!(self.sandbox, Sandbox::Ready(_)) && self.volumes == Volumes::Mounted {
            self.start_next(out);
        }
    }

    fn mount(&mut self, out: &mut Vec<Action>) {
        self.volumes = Volumes::Mounting;
        out.push(Action::MountVolumes);
    }

    /// Sets containers that ended and are to run again to waiting.
    fn settle(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let policy = self.spec().restart_policy().to_owned();
        let (who, most) = (pod_words(self.object()), self.restart_wait_most);
        for index in 0..self.containers.len() {
            let spec = self.container_spec(index);
            let Phase::Exited(exit) = &self.containers[index].phase else { continue };
            if !self.containers[index].again && !restarts(self.containers[index].role, spec, exit, &policy) {
                continue;
            }
            let exit = exit.clone();
            let container = &mut self.containers[index];
            let wait = match std::mem::take(&mut container.again) {
                true => Duration::ZERO,
                false => container.backoff.after(exit.finished_at, most),
            };
            let until = exit.finished_at + wait;
            if let Some(old) = container.last.take()
                && !old.id.is_empty()
                && container.attempt > 0
            {
                out.push(Action::RemoveContainer {
                    index,
                    id: old.id.into(),
                    attempt: container.attempt - 1,
                });
            }
            container.last = Some(exit);
            container.phase = Phase::turn();
            if until > now {
                container.phase = Phase::Waiting(Some(until));
                let name = &container.name;
                let message =
                    format!("back-off {} restarting failed container={name} pod={who}", go_duration(wait));
                container.trouble = Some(("CrashLoopBackOff".into(), message));
                let message = format!("Back-off restarting failed container {name} in pod {who}");
                out.push(warn("BackOff", message, Some(index)));
            }
        }
    }

    /// Whether nothing that counts is left to run.
    fn is_complete(&self) -> bool {
        let ended = |c: &Container| matches!(c.phase, Phase::Exited(_));
        let failed = |c: &Container| matches!(&c.phase, Phase::Exited(exit) if exit.code != 0);
        // `settle` has set back to waiting whatever is to run again, so an end that is left is final.
        let mut init = self.containers.iter().filter(|c| c.role == Role::Init);
        let mut main = self.containers.iter().filter(|c| c.role == Role::Main);
        init.any(failed) || main.all(ended)
    }

    /// Starts the next container whose turn has come, one at a time and in order, as upstream does.
    fn start_next(&mut self, out: &mut Vec<Action>) {
        let busy = |c: &Container| {
            matches!(c.phase, Phase::Pulling | Phase::Starting | Phase::Running { post_start: true, .. })
        };
        if self.containers.iter().any(busy) {
            return;
        }
        let mut initialised = true;
        for index in 0..self.containers.len() {
            let container = &self.containers[index];
            if !initialised && matches!(container.role, Role::Init | Role::Sidecar | Role::Main) {
                continue;
            }
            if container.phase.is_turn() {
                self.start(index, out);
                return;
            }
            match container.role {
                Role::Init => initialised = matches!(container.phase, Phase::Exited(_)),
                // Once the pod is initialised, a sidecar that restarts holds nothing back.
                Role::Sidecar => initialised = container.started || self.initialised(),
                Role::Main | Role::Ephemeral => {}
            }
        }
    }

    /// Whatever waits for a time that has come goes on.
    fn pass_time(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        for index in 0..self.containers.len() {
            let image = self.container_spec(index).image().to_owned();
            let container = &mut self.containers[index];
            let Phase::Waiting(until) = container.phase else { continue };
            if container.flip_at.is_some_and(|at| at <= now) {
                container.flip_at = None;
                let why = container
                    .trouble
                    .take()
                    .map_or(String::new(), |(reason, message)| format!(": {reason}: {message}"));
                let message = format!("Back-off pulling image {image:?}");
                container.trouble = Some(("ImagePullBackOff".into(), format!("{message}{why}")));
                out.push(normal("BackOff", message, Some(index)));
            }
            if until.is_some_and(|at| at <= now) {
                container.phase = Phase::turn();
            }
        }
    }

    /// Whether all init containers have done their part: some main container has run in this sandbox.
    pub fn initialised(&self) -> bool {
        self.containers.iter().all(|c| match c.role {
            Role::Init => matches!(&c.phase, Phase::Exited(exit) if exit.code == 0),
            Role::Sidecar => c.started || self.main_has_run(),
            Role::Main | Role::Ephemeral => true,
        })
    }

    fn main_has_run(&self) -> bool {
        self.containers.iter().any(|c| {
            c.role == Role::Main
                && (c.last.is_some() || matches!(c.phase, Phase::Running { .. } | Phase::Exited(_)))
        })
    }

    /// Ends what runs of an image that the pod no longer names, as upstream does when a container's definition changes.
    fn plan_images(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        for index in 0..self.containers.len() {
            let container = &self.containers[index];
            let fixed = matches!(container.role, Role::Init | Role::Ephemeral);
            if fixed || !container.is_running() || container.again {
                continue;
            }
            if container.made_of != self.container_spec(index).image() {
                let message = format!("Container {} definition changed, will be restarted", container.name);
                self.begin_stopping(index, now + self.grace(), message, out);
                self.containers[index].again = true;
            }
        }
    }

    fn start(&mut self, index: usize, out: &mut Vec<Action>) {
        let image = self.container_spec(index).image().to_owned();
        let container = &mut self.containers[index];
        match container.image.clone() {
            None => {
                container.phase = Phase::Pulling;
                container.made_of = image;
                out.push(Action::PullImage(index));
            }
            Some(image) => {
                container.phase = Phase::Starting;
                out.push(Action::StartContainer { index, attempt: container.next_attempt, image });
            }
        }
    }

    /// Every container's end begins at once, with its `preStop` hook; main ones are asked to end first, then sidecars, the
    /// last first, each after the one behind it has ended.
    fn plan_stopping(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let grace = self.grace();
        let by = self.stop_by.map_or(now + grace, |old| old.min(now + grace));
        self.stop_by = Some(by);
        for index in 0..self.containers.len() {
            let message = format!("Stopping container {}", self.containers[index].name);
            self.begin_stopping(index, by, message, out);
        }
        self.go_on_stopping(now, out);
        if !self.alive() {
            self.stage = Stage::Cleaning;
        }
    }

    /// Begins a container's end; one whose end has begun gets no more time than it was given.
    pub(super) fn begin_stopping(
        &mut self,
        index: usize,
        by: Timestamp,
        message: String,
        out: &mut Vec<Action>,
    ) {
        let pre_stop = self.container_spec(index).lifecycle().pre_stop().exists();
        let Phase::Running { id, stopping, .. } = &mut self.containers[index].phase else { return };
        if let Some(stopping) = stopping {
            stopping.by = stopping.by.min(by);
            return;
        }
        out.push(normal("Killing", message, Some(index)));
        if pre_stop {
            out.push(Action::RunHook { index, id: id.clone(), kind: HookKind::PreStop });
        }
        *stopping = Some(Stopping { by, pre_stop, told: None });
    }

    /// Asks those to end whose hook is done, or whose time for it is over.
    fn go_on_stopping(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        let busy = |c: &Container| matches!(c.phase, Phase::Running { .. } | Phase::Starting);
        let over = self.stage != Stage::Running;
        let mains = over && self.containers.iter().any(|c| c.role != Role::Sidecar && busy(c));
        let last = self.containers.iter().rposition(|c| c.role == Role::Sidecar && busy(c));
        for index in 0..self.containers.len() {
            let container = &mut self.containers[index];
            let turn = !over || container.role != Role::Sidecar || (!mains && Some(index) == last);
            let Phase::Running { id, stopping: Some(stopping), .. } = &mut container.phase else { continue };
            let waits = (stopping.pre_stop || !turn) && now < stopping.by;
            if waits || stopping.told.is_some_and(|told| told <= stopping.by) {
                continue;
            }
            (stopping.pre_stop, stopping.told) = (false, Some(stopping.by));
            let grace = since(now, stopping.by).max(GRACE_LEAST);
            out.push(Action::StopContainer { index, id: id.clone(), grace });
        }
    }

    fn plan_cleaning(&mut self, now: Timestamp, out: &mut Vec<Action>) {
        match &self.sandbox {
            Sandbox::Made(id) | Sandbox::Ready(id) => self.remove_sandbox(id.clone(), out),
            Sandbox::Broken(id, at) if *at <= now => self.remove_sandbox(id.clone(), out),
            _ => {}
        }
        if !matches!(self.sandbox, Sandbox::None(_)) {
            return;
        }
        match self.volumes {
            Volumes::Mounted | Volumes::Failed(_) => {
                self.volumes = Volumes::Unmounting;
                out.push(Action::UnmountVolumes);
            }
            Volumes::Absent => self.stage = Stage::Done,
            Volumes::Mounting | Volumes::Unmounting => {}
        }
    }
}

/// `name_namespace(uid)`, as upstream names pods in messages.
pub fn pod_words(pod: Pod<'_>) -> String {
    let meta = pod.metadata();
    format!("{}_{}({})", meta.name(), meta.namespace(), meta.uid())
}

/// A duration of whole seconds as Go prints it: `10s`, `1m20s`, `5m0s`.
pub fn go_duration(d: Duration) -> String {
    let s = d.as_secs();
    match (s / 3600, s / 60 % 60, s % 60) {
        (0, 0, s) => format!("{s}s"),
        (0, m, s) => format!("{m}m{s}s"),
        (h, m, s) => format!("{h}h{m}m{s}s"),
    }
}
