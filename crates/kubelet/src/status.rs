//! A pod's status from its worker's state: pure. Writing it is `status_manager`'s.
//!
//! Upstream: pkg/kubelet/kubelet_pods.go (`getPhase`, `convertStatusToAPIStatus`), pkg/kubelet/status/generate.go.

use std::net::IpAddr;

use apimachinery::schema::views::VolumeMount;
use apimachinery::{Doc, Ref, doc, gotime, k};
use base::time::Timestamp;

use crate::worker::{Container, EVICTED, Exit, Phase, Resize, Role, Sandbox, Stage, State, restarts};

/// What the termination messages of a pod's containers have together, in bytes. Source: pkg/kubelet/container.
const MESSAGES_MAX: usize = 12 << 10;
/// The condition of a pod that is to go for the node's sake.
const DISRUPTION: &str = "DisruptionTarget";
/// Conditions that are there only while they hold.
const PASSING: [&str; 2] = ["PodResizePending", "PodResizeInProgress"];

/// What the status says of the node.
#[derive(Clone, Debug, Default)]
pub struct NodeFacts {
    /// The node's addresses, the primary one first.
    pub ips: Vec<IpAddr>,
    /// The runtime's name, which begins container ids: `name://id`.
    pub runtime: String,
}

/// The status as the API should have it. `previous` is the last one: transition times are kept from it.
pub fn compute(state: &State, node: &NodeFacts, previous: Ref<'_>, now: Timestamp) -> Doc {
    let meta = state.object().metadata();
    let generation = (meta.generation() > 0).then(|| meta.generation());
    let mut out = Doc::object();
    let mut edit = out.edit();
    edit.set_opt(k::OBSERVED_GENERATION, generation);
    let phase = phase(state);
    edit.set(k::PHASE, phase);
    if let Some(end) = &state.end {
        edit.set(k::MESSAGE, &end.message).set(k::REASON, &end.reason);
        if never_begun(state) {
            // Refused at the door: nothing else is known of it.
            return out;
        }
    }
    let conditions = conditions(state, phase, previous, generation, now);
    edit.set(k::CONDITIONS, conditions);
    if let Some(first) = node.ips.first() {
        edit.set(k::HOST_IP, first.to_string());
        let all = node.ips.iter().map(|ip| doc!({ "ip": ip.to_string() })).collect::<Vec<_>>();
        edit.set(k::HOST_IPS, all);
    }
    let ips = if state.spec().host_network() && state.ips.is_empty() { &node.ips } else { &state.ips };
    if let Some(first) = ips.first() {
        edit.set(k::POD_IP, first.to_string());
        edit.set(k::POD_IPS, ips.iter().map(|ip| doc!({ "ip": ip.to_string() })).collect::<Vec<_>>());
    }
    edit.set(k::START_TIME, gotime::format(state.start_time));
    let of = |roles: &[Role]| -> Vec<Doc> {
        let indexes = 0..state.containers.len();
        indexes
            .filter(|i| roles.contains(&state.containers[*i].role))
            .map(|i| container(state, i, node))
            .collect()
    };
    for (key, roles) in [
        (k::INIT_CONTAINER_STATUSES, [Role::Init, Role::Sidecar].as_slice()),
        (k::CONTAINER_STATUSES, &[Role::Main]),
        (k::EPHEMERAL_CONTAINER_STATUSES, &[Role::Ephemeral]),
    ] {
        let statuses = of(roles);
        if !statuses.is_empty() {
            edit.set(key, statuses);
        }
    }
    out
}

/// One container's share of what all say at their ends.
fn message_max(state: &State) -> usize {
    MESSAGES_MAX / state.containers.len().max(1)
}

fn never_begun(state: &State) -> bool {
    state.containers.iter().all(|c| matches!(c.phase, Phase::Waiting(_)) && c.last.is_none())
}

/// The phase. A pod whose life is over has a final one.
pub fn phase(state: &State) -> &'static str {
    let policy = state.spec().restart_policy();
    let over = state.stage == Stage::Done;
    let exit = |c: &Container| match &c.phase {
        Phase::Exited(exit) => Some(exit.code),
        Phase::Running { post_start: false, .. } => None,
        _ => c.last.as_ref().map(|e| e.code),
    };
    if state.end.is_some() && over {
        return "Failed";
    }
    let again =
        |i: usize, exit: &Exit| restarts(state.containers[i].role, state.container_spec(i), exit, policy);
    let init_failed = |(i, c): (usize, &Container)| {
        c.role == Role::Init && matches!(&c.phase, Phase::Exited(e) if e.code != 0 && !again(i, e))
    };
    if state.containers.iter().enumerate().any(init_failed) {
        return "Failed";
    }
    let restarting = |(i, c): (usize, &Container)| {
        let exit = if let Phase::Exited(exit) = &c.phase { Some(exit) } else { c.last.as_ref() };
        c.role == Role::Main && exit.is_some_and(|exit| again(i, exit))
    };
    let mains: Vec<&Container> = state.containers.iter().filter(|c| c.role == Role::Main).collect();
    let running = mains.iter().filter(|c| c.is_running()).count();
    // A sidecar's end is none of the pod's, but the pod has not ended while it runs.
    let alive =
        state.containers.iter().any(|c| c.is_running() && matches!(c.role, Role::Main | Role::Sidecar));
    let stopped: Vec<i32> = mains.iter().filter_map(|c| exit(c)).collect();
    let waiting = mains.len() - running - stopped.len();
    let succeeded = waiting == 0 && stopped.iter().all(|code| *code == 0);
    match () {
        () if over && !alive && succeeded => "Succeeded",
        () if over && !alive => "Failed",
        () if !state.initialised() && running == 0 && stopped.is_empty() => "Pending",
        () if waiting > 0 => "Pending",
        () if alive || state.containers.iter().enumerate().any(restarting) => "Running",
        () if succeeded => "Succeeded",
        () => "Failed",
    }
}

fn container(state: &State, index: usize, node: &NodeFacts) -> Doc {
    let c = &state.containers[index];
    let (state_now, id, image_ref) = container_state(state, c, node);
    let shown_last = match (&c.phase, &c.last) {
        (Phase::Waiting(_) | Phase::Pulling | Phase::Starting, Some(_)) if state.stage == Stage::Done => None,
        (_, last) => last.as_ref(),
    };
    let most = message_max(state);
    let mut out = doc!({ "name": &c.name });
    let mut edit = out.edit();
    edit.set(k::STATE, state_now);
    edit.set(k::LAST_STATE, shown_last.map_or_else(Doc::object, |exit| terminated(exit, node, most)));
    let done_init = c.role == Role::Init && matches!(&c.phase, Phase::Exited(exit) if exit.code == 0);
    edit.set(k::READY, c.ready || done_init);
    edit.set(k::RESTART_COUNT, c.attempt);
    let image = if c.made_of.is_empty() { state.container_spec(index).image() } else { &c.made_of };
    edit.set(k::IMAGE, image);
    edit.set(k::IMAGE_ID, image_ref);
    if !id.is_empty() {
        edit.set(k::CONTAINER_ID, format!("{}://{id}", node.runtime));
    }
    edit.set(k::STARTED, c.started);
    let spec = state.container_spec(index);
    edit.set_opt(k::STOP_SIGNAL, spec.lifecycle().stop_signal());
    if c.role != Role::Ephemeral {
        let requests = c.allocated.get(k::REQUESTS);
        edit.set_opt(k::ALLOCATED_RESOURCES, (!requests.is_empty()).then_some(requests));
        edit.set(k::RESOURCES, if c.is_running() { c.actual.root() } else { c.allocated.root() });
    }
    let mounts: Vec<Doc> = spec.volume_mounts().iter().map(mount).collect();
    edit.set_opt(k::VOLUME_MOUNTS, (!mounts.is_empty()).then_some(mounts));
    if let Some(user) = &c.user {
        let groups: Vec<Doc> = user.supplemental_groups.iter().map(|g| doc!(*g)).collect();
        let linux = doc!({ "uid": user.uid, "gid": user.gid });
        let mut at = edit.at(k::USER).at(k::LINUX);
        at.put(linux);
        at.set_opt(k::SUPPLEMENTAL_GROUPS, (!groups.is_empty()).then_some(groups));
    }
    out
}

/// A volume mount as it came out.
fn mount(mount: VolumeMount<'_>) -> Doc {
    let mut out = doc!({ "name": mount.name(), "mountPath": mount.mount_path() });
    if mount.read_only() {
        let all = matches!(mount.recursive_read_only(), Some("Enabled" | "IfPossible"));
        let word = if all { "Enabled" } else { "Disabled" };
        out.edit().set(k::READ_ONLY, true).set(k::RECURSIVE_READ_ONLY, word);
    }
    out
}

/// The state, and id and image of the run that it is about.
fn container_state(state: &State, c: &Container, node: &NodeFacts) -> (Doc, String, String) {
    let most = message_max(state);
    match &c.phase {
        Phase::Running { id, image_ref, post_start: true, .. } => {
            (waiting(state, c), id.to_string(), image_ref.clone())
        }
        Phase::Running { id, image_ref, since, .. } => {
            let running = doc!({ "running": { "startedAt": gotime::format(*since) } });
            (running, id.to_string(), image_ref.clone())
        }
        Phase::Exited(exit) => (terminated(exit, node, most), exit.id.clone(), exit.image_ref.clone()),
        Phase::Waiting(_) | Phase::Pulling | Phase::Starting if state.stage == Stage::Done => match &c.last {
            Some(exit) => (terminated(exit, node, most), exit.id.clone(), exit.image_ref.clone()),
            None => {
                let words = "The container could not be located when the pod was terminated";
                let unknown = doc!({ "terminated": { "exitCode": 137, "reason": "ContainerStatusUnknown",
                    "message": words, "startedAt": null, "finishedAt": null } });
                (unknown, String::new(), String::new())
            }
        },
        Phase::Waiting(_) | Phase::Pulling | Phase::Starting => {
            let last = c.last.as_ref();
            let waiting = waiting(state, c);
            let of = |f: fn(&Exit) -> &String| last.map_or_else(String::new, |e| f(e).clone());
            (waiting, of(|e| &e.id), of(|e| &e.image_ref))
        }
    }
}

fn waiting(state: &State, c: &Container) -> Doc {
    let has_init = state.containers.iter().any(|c| matches!(c.role, Role::Init | Role::Sidecar));
    let mut out = Doc::object();
    let mut at = out.edit().at(k::WAITING);
    match &c.trouble {
        Some((reason, message)) => {
            at.set(k::REASON, reason);
            at.set_opt(k::MESSAGE, (!message.is_empty()).then_some(message));
        }
        None => {
            at.set(k::REASON, if has_init { "PodInitializing" } else { "ContainerCreating" });
        }
    }
    out
}

/// As much of a text as fits.
fn start_of(text: &str, most: usize) -> &str {
    let mut end = most.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    &text[..end]
}

fn terminated(exit: &Exit, node: &NodeFacts, message_max: usize) -> Doc {
    let mut out = Doc::object();
    let mut at = out.edit().at(k::TERMINATED);
    at.set(k::EXIT_CODE, exit.code);
    at.set_opt(k::REASON, (!exit.reason.is_empty()).then_some(&exit.reason));
    at.set_opt(k::MESSAGE, (!exit.message.is_empty()).then(|| start_of(&exit.message, message_max)));
    at.set_opt(k::STARTED_AT, exit.started_at.map(gotime::format));
    at.set(k::FINISHED_AT, gotime::format(exit.finished_at));
    at.set_opt(k::CONTAINER_ID, (!exit.id.is_empty()).then(|| format!("{}://{}", node.runtime, exit.id)));
    out
}

/// A condition before it knows since when.
struct Verdict {
    kind: &'static str,
    holds: bool,
    reason: &'static str,
    message: String,
}

fn verdict(kind: &'static str, holds: bool, reason: &'static str, message: String) -> Verdict {
    Verdict { kind, holds, reason, message }
}

fn conditions(state: &State, phase: &str, previous: Ref<'_>, generation: Option<i64>, now: Timestamp) -> Doc {
    let sandbox = match state.sandbox {
        Sandbox::Ready(_) => true,
        // Adopted: its wiring is being read again.
        Sandbox::Made(_) | Sandbox::Attaching(_) => !state.ips.is_empty(),
        _ => false,
    };
    let containers_ready = ready("ContainersReady", state, phase);
    let gates = state.spec().readiness_gates();
    let gate = gates.iter().map(|g| g.condition_type()).find_map(|kind| {
        let found = previous.get(k::CONDITIONS).items().find(|c| c.get(k::TYPE).str() == kind);
        match found.map(|c| c.get(k::STATUS).str()) {
            Some("True") => None,
            Some(status) => {
                Some(format!("the status of pod readiness gate {kind:?} is not \"True\", but {status}"))
            }
            None => Some(format!("corresponding condition of pod readiness gate {kind:?} does not exist.")),
        }
    });
    let pod_ready = match gate {
        Some(message) if containers_ready.holds => verdict("Ready", false, "ReadinessGatesNotReady", message),
        _ => ready("Ready", state, phase),
    };
    let mut all = vec![
        verdict("PodReadyToStartContainers", sandbox, "", String::new()),
        initialized(state, phase),
        pod_ready,
        containers_ready,
        verdict("PodScheduled", true, "", String::new()),
    ];
    all.extend(passing(state));
    let mut out = Doc::array();
    for v in all {
        let status = if v.holds { "True" } else { "False" };
        let old = previous.get(k::CONDITIONS).items().find(|c| c.get(k::TYPE).str() == v.kind);
        let kept = old
            .filter(|c| c.get(k::STATUS).str() == status)
            .map(|c| c.get(k::LAST_TRANSITION_TIME).str().to_owned());
        let mut c = doc!({ "type": v.kind, "status": status, "lastProbeTime": null });
        let mut edit = c.edit();
        edit.set_opt(k::OBSERVED_GENERATION, generation);
        edit.set(k::LAST_TRANSITION_TIME, kept.unwrap_or_else(|| gotime::format(now)));
        edit.set_opt(k::REASON, (!v.reason.is_empty()).then_some(v.reason));
        edit.set_opt(k::MESSAGE, (!v.message.is_empty()).then_some(&v.message));
        out.edit().push(c);
    }
    out
}

/// Conditions that most pods never have.
fn passing(state: &State) -> Vec<Verdict> {
    let mut out = Vec::new();
    match &state.resize {
        Some(Resize::Deferred(why)) => out.push(verdict(PASSING[0], true, "Deferred", why.clone())),
        Some(Resize::Infeasible(why)) => out.push(verdict(PASSING[0], true, "Infeasible", why.clone())),
        _ => {}
    }
    let resizing = (0..state.containers.len()).filter(|i| state.resizes(*i));
    let errors: Vec<Option<&String>> = resizing.map(|i| state.containers[i].resize_error.as_ref()).collect();
    if let Some(why) = errors.iter().flatten().next() {
        out.push(verdict(PASSING[1], true, "Error", (*why).clone()));
    } else if !errors.is_empty() {
        out.push(verdict(PASSING[1], true, "", String::new()));
    }
    if let Some(end) = state.end.as_ref().filter(|end| end.reason == EVICTED) {
        out.push(verdict(DISRUPTION, true, "TerminationByKubelet", end.message.clone()));
    }
    out
}

fn initialized(state: &State, phase: &str) -> Verdict {
    if phase == "Succeeded" {
        return verdict("Initialized", true, "PodCompleted", String::new());
    }
    let main_ran = state.containers.iter().any(|c| {
        c.role == Role::Main && !matches!(c.phase, Phase::Waiting(_) | Phase::Pulling | Phase::Starting)
    });
    let open: Vec<&str> = state
        .containers
        .iter()
        .filter(|c| match c.role {
            Role::Init => !matches!(&c.phase, Phase::Exited(exit) if exit.code == 0),
            Role::Sidecar => !c.started && !main_ran,
            Role::Main | Role::Ephemeral => false,
        })
        .map(|c| c.name.as_str())
        .collect();
    if open.is_empty() {
        return verdict("Initialized", true, "", String::new());
    }
    let message = format!("containers with incomplete status: [{}]", open.join(" "));
    verdict("Initialized", false, "ContainersNotInitialized", message)
}

fn ready(kind: &'static str, state: &State, phase: &str) -> Verdict {
    match phase {
        "Succeeded" => return verdict(kind, false, "PodCompleted", String::new()),
        "Failed" => return verdict(kind, false, "PodFailed", String::new()),
        _ => {}
    }
    let counts = |c: &&Container| matches!(c.role, Role::Main | Role::Sidecar);
    let open: Vec<&str> =
        state.containers.iter().filter(counts).filter(|c| !c.ready).map(|c| c.name.as_str()).collect();
    if open.is_empty() {
        return verdict(kind, true, "", String::new());
    }
    verdict(
        kind,
        false,
        "ContainersNotReady",
        format!("containers with unready status: [{}]", open.join(" ")),
    )
}

/// What takes the API's status from `old` to `new`: a strategic merge patch, or nothing. Conditions of others stay.
pub fn patch(uid: &str, old: Ref<'_>, new: Ref<'_>) -> Option<Doc> {
    let mut status = Doc::object();
    let mut edit = status.edit();
    for (name, value) in new.entries() {
        let before = old.get(name);
        if name == "conditions" {
            let twin = |c: Ref<'_>| before.items().find(|o| o.get(k::TYPE).str() == c.get(k::TYPE).str());
            let kind = |c: Ref<'_>| c.get(k::TYPE).str().to_owned();
            let gone = before.items().map(kind).filter(|old| PASSING.contains(&old.as_str()));
            let gone = gone.filter(|old| !value.items().any(|c| kind(c) == *old));
            let changed: Vec<Doc> = value
                .items()
                .filter(|c| twin(*c).is_none_or(|o| !covers(o, *c)))
                .map(|c| replacing(twin(c).unwrap_or_default(), c))
                .chain(gone.map(|old| doc!({ "$patch": "delete", "type": old })))
                .collect();
            if !changed.is_empty() {
                edit.set(name, changed);
            }
        } else if name == "podIPs" || name == "hostIPs" {
            if !covers(before, value) {
                let gone = before.items().filter(|o| !value.items().any(|n| n.same(*o)));
                let deletes = gone.map(|o| doc!({ "$patch": "delete", "ip": o.get(k::IP).str() }));
                edit.set(name, value.items().map(Ref::to_doc).chain(deletes).collect::<Vec<_>>());
            }
        } else if !covers(before, value) {
            edit.set(name, value);
        }
    }
    for key in [k::REASON, k::MESSAGE, k::POD_IP, k::POD_IPS] {
        if old.get(key).is_set() && !new.get(key).is_set() {
            edit.set(key, apimachinery::Val::Null);
        }
    }
    if status.root().is_empty() {
        return None;
    }
    let mut out = doc!({ "metadata": { "uid": uid } });
    out.edit().set(k::STATUS, status);
    Some(out)
}

/// `new` with nulls for what only `old` has: merged over `old` it gives `new`.
fn replacing(old: Ref<'_>, new: Ref<'_>) -> Doc {
    let mut out = new.to_doc();
    for (name, _) in old.entries().filter(|(name, _)| !new.get(*name).exists()) {
        out.edit().set(name, apimachinery::Val::Null);
    }
    out
}

/// The same but for nulls and empty values, which the API may not keep.
fn covers(old: Ref<'_>, new: Ref<'_>) -> bool {
    if old.is_object() && new.is_object() {
        return new.entries().all(|(name, value)| covers(old.get(name), value))
            && old.entries().all(|(name, value)| is_empty(value) || new.get(name).exists());
    }
    if old.is_array() && new.is_array() {
        return old.len() == new.len() && old.items().zip(new.items()).all(|(a, b)| covers(a, b));
    }
    if !old.is_set() {
        return is_empty(new);
    }
    old.same(new)
}

fn is_empty(value: Ref<'_>) -> bool {
    !value.is_set()
        || value.opt_bool() == Some(false)
        || value.opt_str() == Some("")
        || value.opt_i64() == Some(0)
        || ((value.is_object() || value.is_array()) && value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::worker::{End, Event};
    use std::sync::Arc;

    fn at(s: i64) -> Timestamp {
        Timestamp::from_second(1_767_225_600 + s).expect("a valid date")
    }

    fn node() -> NodeFacts {
        NodeFacts { ips: vec!["192.0.2.1".parse().unwrap()], runtime: "keelson".into() }
    }

    fn state() -> State {
        let pod = doc!({ "metadata": { "name": "p", "namespace": "n", "uid": "u", "generation": 1 },
            "spec": { "restartPolicy": "Never", "containers": [{ "name": "a", "image": "x" }] } });
        State::new(Arc::new(pod), at(0))
    }

    fn condition<'a>(status: &'a Doc, kind: &str) -> Ref<'a> {
        status.get(k::CONDITIONS).items().find(|c| c.get(k::TYPE).str() == kind).unwrap()
    }

    fn exit(code: i32) -> Exit {
        Exit {
            id: "c".into(),
            image_ref: String::new(),
            code,
            reason: String::new(),
            message: String::new(),
            started_at: None,
            finished_at: at(9),
        }
    }

    #[test]
    fn from_pending_to_succeeded() {
        let mut s = state();
        let first = compute(&s, &node(), Ref::absent(), at(1));
        assert_eq!(first.get(k::PHASE).str(), "Pending");
        assert_eq!(
            first.root().find("containerStatuses").item(0).find("state.waiting.reason").str(),
            "ContainerCreating"
        );
        s.containers[0].phase = Phase::Running {
            id: "c".into(),
            image_ref: "i".into(),
            since: at(2),
            post_start: false,
            stopping: None,
        };
        (s.containers[0].ready, s.containers[0].started) = (true, true);
        s.sandbox = Sandbox::Ready("s".into());
        s.ips = vec!["10.0.0.9".parse().unwrap()];
        let second = compute(&s, &node(), first.root(), at(5));
        assert_eq!(second.get(k::PHASE).str(), "Running");
        assert_eq!(condition(&second, "Ready").get(k::STATUS).str(), "True");
        assert_eq!(condition(&second, "Ready").get(k::LAST_TRANSITION_TIME).str(), "2026-01-01T00:00:05Z");
        assert_eq!(
            condition(&second, "PodScheduled").get(k::LAST_TRANSITION_TIME).str(),
            "2026-01-01T00:00:01Z"
        );
        assert_eq!(second.get(k::POD_IP).str(), "10.0.0.9");
        assert_eq!(second.get(k::CONTAINER_STATUSES).item(0).get(k::CONTAINER_ID).str(), "keelson://c");
        let (s, _) = s.step(Event::Exited("c".into(), exit(0)), at(9));
        assert_eq!(phase(&s), "Succeeded");
        let third = compute(&s, &node(), second.root(), at(9));
        assert_eq!(condition(&third, "Ready").get(k::REASON).str(), "PodCompleted");
    }

    #[test]
    fn phases() {
        // Policy, exit code, pod over, and the phase.
        for (policy, code, over, want) in [
            ("Always", 0, false, "Running"),
            ("Always", 1, false, "Running"),
            ("Always", 1, true, "Failed"),
            ("Always", 0, true, "Succeeded"),
            ("OnFailure", 1, false, "Running"),
            ("OnFailure", 0, false, "Succeeded"),
            ("Never", 1, false, "Failed"),
        ] {
            let mut s = state();
            let mut pod = (*s.pod).clone();
            pod.edit().at(k::SPEC).set(k::RESTART_POLICY, policy);
            s.pod = Arc::new(pod);
            s.containers[0].phase = Phase::Exited(exit(code));
            s.stage = if over { Stage::Done } else { Stage::Running };
            assert_eq!(phase(&s), want, "{policy} {code} {over}");
        }
        let refused =
            State::refused(state().pod, End { reason: "OutOfcpu".into(), message: "m".into() }, at(0));
        let status = compute(&refused, &node(), Ref::absent(), at(0));
        assert_eq!(status.get(k::PHASE).str(), "Failed");
        assert!(!status.get(k::CONTAINER_STATUSES).exists());
    }

    #[test]
    fn a_pod_runs_as_long_as_its_sidecars() {
        let mut pod = (*state().pod).clone();
        pod.edit()
            .at(k::SPEC)
            .set(k::INIT_CONTAINERS, doc!([{ "name": "s", "image": "x", "restartPolicy": "Always" }]));
        let mut s = State::new(Arc::new(pod), at(0));
        let (image_ref, since) = ("i".into(), at(2));
        s.containers[0].phase =
            Phase::Running { id: "s".into(), image_ref, since, post_start: false, stopping: None };
        s.containers[0].started = true;
        for (code, want) in [(0, "Succeeded"), (1, "Failed")] {
            s.containers[1].phase = Phase::Exited(exit(code));
            assert_eq!(phase(&s), "Running");
            let mut ended = s.clone();
            ended.containers[0].phase = Phase::Exited(exit(137));
            assert_eq!(phase(&ended), want);
        }
    }

    #[test]
    fn what_passes_is_taken_out_again() {
        let mut s = state();
        let plain = compute(&s, &node(), Ref::absent(), at(1));
        s.resize = Some(Resize::Deferred("full".into()));
        let waiting = compute(&s, &node(), plain.root(), at(2));
        assert_eq!(condition(&waiting, "PodResizePending").get(k::REASON).str(), "Deferred");
        let back = patch("u", waiting.root(), plain.root()).unwrap();
        let back = back.get(k::STATUS).get(k::CONDITIONS).item(0).to_doc();
        assert_eq!(back, doc!({ "$patch": "delete", "type": "PodResizePending" }));
        assert_eq!(start_of("aé", 2), "a");
    }

    #[test]
    fn patches_say_only_what_changed() {
        let mut s = state();
        s.ips = vec!["10.0.0.9".parse().unwrap()];
        let old = compute(&s, &node(), Ref::absent(), at(1));
        assert!(patch("u", old.root(), old.root()).is_none());
        s.ips = Vec::new();
        let new = compute(&s, &node(), old.root(), at(2));
        let got = patch("u", old.root(), new.root()).unwrap();
        assert_eq!(got, doc!({ "metadata": { "uid": "u" }, "status": { "podIP": null, "podIPs": null } }));
        s.ips = vec!["10.0.0.10".parse().unwrap()];
        let new = compute(&s, &node(), old.root(), at(2));
        let got = patch("u", old.root(), new.root()).unwrap();
        let not_ready = doc!({ "status": { "conditions": [
            { "type": "Ready", "status": "False", "reason": "ContainersNotReady", "message": "containers" }] } });
        let ready = doc!({ "status": { "conditions": [{ "type": "Ready", "status": "True" }] } });
        let healed = patch("u", not_ready.get(k::STATUS), ready.get(k::STATUS)).unwrap();
        let healed = healed.get(k::STATUS).get(k::CONDITIONS).item(0).to_doc();
        assert_eq!(healed, doc!({ "type": "Ready", "status": "True", "reason": null, "message": null }));
        let want = doc!({ "podIP": "10.0.0.10", "podIPs": [{ "ip": "10.0.0.10" }, { "$patch": "delete", "ip": "10.0.0.9" }] });
        assert_eq!(got.get(k::STATUS).to_doc(), want);
    }
}
