//! A worker's state read back from what runs, after the kubelet was restarted. Nothing that runs is touched.

use runtime::{ContainerState, ContainerStatus};

use super::*;

/// What was found of a pod that the API has.
#[derive(Clone, Debug, Default)]
pub struct Found {
    /// Its newest sandbox, and whether that can hold containers.
    pub sandbox: Option<(SandboxId, bool)>,
    /// The number of that sandbox.
    pub sandbox_attempt: u32,
    /// The containers in it, with termination messages as their `message`.
    pub containers: Vec<ContainerStatus>,
}

impl State {
    /// A pod that an earlier run of this process has taken.
    ///
    /// A pod whose phase is final stays as the API has it; what is left of it is taken away.
    pub fn adopt(pod: Arc<Doc>, found: Found, now: Timestamp) -> State {
        let mut state = State::new(pod, now);
        let status = state.pod.get(k::STATUS).to_doc();
        if let Some(at) = status.get(k::START_TIME).opt_str().and_then(|t| t.parse().ok()) {
            state.start_time = at;
        }
        state.sandbox_attempt = found.sandbox_attempt + u32::from(found.sandbox.is_some());
        for index in 0..state.containers.len() {
            state.adopt_container(index, &found.containers, &status, now);
        }
        // Init containers that ended long ago may have been removed while the main ones run.
        if state.containers.iter().any(|c| c.role == Role::Main && !c.phase.is_turn()) {
            for container in state.containers.iter_mut().filter(|c| c.role == Role::Init && c.phase.is_turn())
            {
                container.phase = Phase::Exited(Exit::unseen(now));
            }
        }
        if state.wants_other() {
            state.resize = Some(Resize::Wanted);
        }
        let final_phase = matches!(status.get(k::PHASE).str(), "Succeeded" | "Failed");
        match found.sandbox {
            Some((id, true)) => {
                state.sandbox = Sandbox::Made(id);
                // The wiring is read again; until then the pod is where the API says it is.
                let ips = status.get(k::POD_IPS).items().filter_map(|ip| ip.get(k::IP).str().parse().ok());
                state.ips = ips.collect();
            }
            Some((id, false)) => {
                state.sandbox = Sandbox::Broken(id, now);
                state.lose_sandbox(now);
            }
            None => state.lose_sandbox(now),
        }
        if final_phase {
            state.frozen = true;
            // A worker that cleans up does not look whether volumes were there.
            state.volumes = Volumes::Mounted;
            state.stage = Stage::Stopping;
        }
        state
    }

    fn adopt_container(&mut self, index: usize, found: &[ContainerStatus], status: &Doc, now: Timestamp) {
        let spec = self.container_spec(index);
        let image = spec.image().to_owned();
        let (startup, readiness) = (spec.startup_probe().exists(), spec.readiness_probe().exists());
        let container = &mut self.containers[index];
        let mut mine: Vec<&ContainerStatus> = found.iter().filter(|c| c.name == container.name).collect();
        mine.sort_by_key(|c| c.attempt);
        let mut written =
            [k::CONTAINER_STATUSES, k::INIT_CONTAINER_STATUSES, k::EPHEMERAL_CONTAINER_STATUSES]
                .into_iter()
                .flat_map(|list| status.get(list).items());
        let Some(newest) = mine.pop() else {
            // It went with its sandbox: only the API still knows that it ran, and how often.
            let runs = |c: Ref<'_>| u32::try_from(c.get(k::RESTART_COUNT).i64()).unwrap_or_default();
            let ran = |c: &Ref<'_>| runs(*c) > 0 || !c.get(k::CONTAINER_ID).str().is_empty();
            if let Some(c) = written.find(|c| c.get(k::NAME).str() == container.name).filter(ran) {
                container.attempt = runs(c);
                container.next_attempt = container.attempt + 1;
                // Whether it runs again is its policy's matter.
                container.phase = Phase::Exited(Exit::told(c, now));
            }
            return;
        };
        let written = written.find(|c| c.get(k::CONTAINER_ID).str().ends_with(&format!("://{}", newest.id)));
        let said = |key| written.is_some_and(|c| c.get(key).bool());
        container.user.clone_from(&newest.user);
        if let Some(has) = written.map(|c| c.get(k::RESOURCES)).filter(|has| has.is_set()) {
            // What the node has given is known from there only.
            container.allocated = has.to_doc();
        }
        container.actual = container.allocated.clone();
        let reported = written.map_or("", |c| c.get(k::IMAGE).str());
        container.made_of = if reported.is_empty() { image } else { reported.to_owned() };
        container.attempt = newest.attempt;
        // Only what ran counts: a container that was made and never started is no restart.
        container.next_attempt = newest.attempt + u32::from(newest.state != ContainerState::Created);
        container.last = mine.pop().map(|c| Exit::of(c, now));
        container.phase = match newest.state {
            ContainerState::Running => {
                container.started = !startup || said(k::STARTED);
                container.ready = container.started && (!readiness || said(k::READY));
                let since = newest.started_at.unwrap_or(newest.created_at);
                Phase::Running {
                    id: newest.id.clone(),
                    image_ref: newest.image_ref.clone(),
                    since,
                    post_start: false,
                    stopping: None,
                }
            }
            // Made but never started: the next run replaces it.
            ContainerState::Created => {
                container.last =
                    container.last.take().or_else(|| (newest.attempt > 0).then(|| Exit::of(newest, now)));
                Phase::turn()
            }
            ContainerState::Exited | ContainerState::Unknown => Phase::Exited(Exit::of(newest, now)),
        };
    }
}

impl Exit {
    /// How a container that was found ended.
    pub fn of(found: &ContainerStatus, now: Timestamp) -> Exit {
        let unknown = found.state != ContainerState::Exited;
        Exit {
            id: found.id.to_string(),
            image_ref: found.image_ref.clone(),
            code: if unknown { 137 } else { found.exit_code },
            reason: if unknown { "ContainerStatusUnknown".into() } else { found.reason.clone() },
            message: found.message.clone(),
            started_at: found.started_at,
            finished_at: found.finished_at.unwrap_or(now),
        }
    }

    /// The end of a run that is known from the API's status only: as it says, or, if it says that it runs, unknown.
    fn told(status: Ref<'_>, now: Timestamp) -> Exit {
        let text = |value: Ref<'_>| value.str().to_owned();
        let id = status.get(k::CONTAINER_ID).str();
        let ended = status.get(k::STATE).get(k::TERMINATED);
        let mut exit = Exit {
            id: id.split_once("://").map_or(id, |(_, id)| id).to_owned(),
            image_ref: text(status.get(k::IMAGE_ID)),
            code: 137,
            reason: "ContainerStatusUnknown".into(),
            message: "The container could not be located when the node was started".into(),
            started_at: status.find("state.running.startedAt").opt_str().and_then(|t| t.parse().ok()),
            finished_at: now,
        };
        if ended.is_set() {
            exit.code = i32::try_from(ended.get(k::EXIT_CODE).i64()).unwrap_or(exit.code);
            (exit.reason, exit.message) = (text(ended.get(k::REASON)), text(ended.get(k::MESSAGE)));
            exit.started_at = ended.get(k::STARTED_AT).opt_str().and_then(|t| t.parse().ok());
            exit.finished_at =
                ended.get(k::FINISHED_AT).opt_str().and_then(|t| t.parse().ok()).unwrap_or(now);
        }
        exit
    }

    /// A run that is only known to have succeeded.
    fn unseen(now: Timestamp) -> Exit {
        Exit {
            id: String::new(),
            image_ref: String::new(),
            code: 0,
            reason: "Completed".into(),
            message: String::new(),
            started_at: None,
            finished_at: now,
        }
    }
}
