//! The worker by table: a script of events, and what each makes it do.

use super::*;
use apimachinery::doc;
use runtime::{ContainerState, ContainerStatus};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_second(1_767_225_600 + seconds).expect("a valid date")
}

fn pod(spec: Doc) -> Doc {
    let mut pod = doc!({ "metadata": { "name": "p", "namespace": "ns", "uid": "u-1" } });
    pod.edit().set(k::SPEC, spec);
    pod
}

fn simple(policy: &str) -> Doc {
    pod(doc!({ "restartPolicy": policy, "terminationGracePeriodSeconds": 30,
        "containers": [{ "name": "a", "image": "x" }] }))
}

/// A worker under test with its clock.
struct Bench {
    state: Option<State>,
    now: i64,
}

impl Bench {
    fn new(pod: Doc) -> Bench {
        Bench { state: Some(State::new(Arc::new(pod), at(0))), now: 0 }
    }

    fn state(&self) -> &State {
        self.state.as_ref().expect("put back after every step")
    }

    /// Steps and gives the actions in short words.
    fn on(&mut self, event: Event) -> Vec<String> {
        let (state, actions) = self.state.take().expect("put back").step(event, at(self.now));
        let words = actions.iter().map(|a| short(&state, a)).collect();
        self.state = Some(state);
        words
    }

    /// Lets time pass to the next moment the worker asks for, at most to `until`.
    fn wait(&mut self, until: i64) -> Vec<String> {
        let wake = self.state().next_wake().map_or(until, |t| t.as_second() - at(0).as_second());
        self.now = wake.max(self.now).min(until);
        self.on(Event::Tick)
    }

    /// Up to the sandbox's readiness.
    fn ready(&mut self) -> Vec<String> {
        assert_eq!(self.on(Event::Tick), ["mount"]);
        assert_eq!(self.on(Event::VolumesMounted), ["sandbox 0"]);
        assert_eq!(self.on(Event::SandboxMade("s".into())), ["attach s"]);
        self.on(Event::NetworkAttached("s".into(), vec!["10.0.0.2".parse().unwrap()]))
    }

    fn image(&mut self, index: usize) -> Vec<String> {
        self.on(Event::ImageReady(index, "img".into()))
    }

    fn started(&mut self, index: usize, id: &str) -> Vec<String> {
        self.on(Event::Started {
            index,
            id: id.into(),
            image_ref: "sha256:1".into(),
            at: at(self.now),
            user: None,
        })
    }

    fn exit(&mut self, id: &str, code: i32) -> Vec<String> {
        let exit = ended(id, code, self.now);
        self.on(Event::Exited(id.into(), exit))
    }

    /// A running single container.
    fn running(policy: &str) -> Bench {
        let mut b = Bench::new(simple(policy));
        assert_eq!(b.ready(), ["pull a"]);
        assert_eq!(b.image(0), ["start a#0"]);
        assert_eq!(b.started(0, "c0"), ["+Started"]);
        b
    }

    fn delete(&mut self, grace: i64) -> Vec<String> {
        let mut pod = (*self.state().pod).clone();
        let mut meta = pod.edit().at(k::METADATA);
        meta.set(k::DELETION_TIMESTAMP, "2026-01-01T00:01:00Z").set(k::DELETION_GRACE_PERIOD_SECONDS, grace);
        self.on(Event::Pod(Arc::new(pod)))
    }
}

fn ended(id: &str, code: i32, now: i64) -> Exit {
    let reason = if code == 0 { "Completed" } else { "Error" };
    Exit {
        id: id.into(),
        image_ref: String::new(),
        code,
        reason: reason.into(),
        message: String::new(),
        started_at: None,
        finished_at: at(now),
    }
}

fn short(state: &State, action: &Action) -> String {
    let name = |i: &usize| state.containers[*i].name.clone();
    match action {
        Action::MountVolumes => "mount".into(),
        Action::UnmountVolumes => "unmount".into(),
        Action::RunSandbox(n) => format!("sandbox {n}"),
        Action::AttachNetwork(id) => format!("attach {id}"),
        Action::RemoveSandbox(id) => format!("remove {id}"),
        Action::PullImage(i) => format!("pull {}", name(i)),
        Action::StartContainer { index, attempt, .. } => format!("start {}#{attempt}", name(index)),
        Action::AskForRoom => "ask".into(),
        Action::ResizeContainer { id, .. } => format!("resize {id}"),
        Action::RunHook { id, kind, .. } => format!("{kind:?} {id}"),
        Action::StopContainer { id, grace, .. } => format!("stop {id} {}", grace.as_secs()),
        Action::RemoveContainer { id, attempt, .. } => format!("rm {id}#{attempt}"),
        Action::Record { warning, reason, .. } => format!("{}{reason}", if *warning { '!' } else { '+' }),
        Action::DeletePod => "delete".into(),
        Action::Forget => "forget".into(),
    }
}

#[test]
fn a_pod_comes_and_goes() {
    let mut b = Bench::running("Always");
    assert!(b.state().containers[0].ready);
    assert_eq!(b.on(Event::Tick), [""; 0]);
    assert_eq!(b.delete(30), ["+Killing", "stop c0 30"]);
    // Grace only shrinks.
    b.now = 5;
    assert_eq!(b.delete(3), ["stop c0 3"]);
    assert_eq!(b.delete(60), [""; 0]);
    b.now = 6;
    assert_eq!(b.exit("c0", 143), ["remove s"]);
    assert_eq!(b.on(Event::SandboxRemoved("s".into())), ["unmount"]);
    assert_eq!(b.on(Event::VolumesUnmounted), ["delete"]);
    assert_eq!(b.on(Event::Tick), [""; 0]);
    assert_eq!(b.on(Event::Gone), ["forget"]);
}

#[test]
fn restart_policies() {
    // Policy, exit code, and whether it runs again.
    for (policy, code, again) in [
        ("Always", 0, true),
        ("Always", 1, true),
        ("OnFailure", 0, false),
        ("OnFailure", 1, true),
        ("Never", 0, false),
        ("Never", 1, false),
    ] {
        let mut b = Bench::running(policy);
        b.now = 1;
        let got = b.exit("c0", code);
        if again {
            assert_eq!(got, ["pull a"], "{policy} {code}");
        } else {
            assert_eq!(got, ["remove s"], "{policy} {code}");
            b.on(Event::SandboxRemoved("s".into()));
            b.on(Event::VolumesUnmounted);
            assert_eq!(b.state().stage, Stage::Done);
            assert_eq!(b.delete(30), ["delete"]);
        }
    }
}

#[test]
fn a_containers_own_policy_and_rules_come_first() {
    let rule = |operator: &str, code: i64| doc!({ "action": "Restart", "exitCodes": { "operator": operator, "values": [code] } });
    // The container's policy, a rule, the exit code, and whether it runs again. The pod's policy is Never.
    for (own, operator, code, again) in [
        ("Never", "In", 42, true),
        ("Never", "In", 1, false),
        ("Never", "NotIn", 42, false),
        ("OnFailure", "In", 1, true),
        ("OnFailure", "In", 0, false),
        ("Always", "In", 0, true),
    ] {
        let mut pod = simple("Never");
        let mut c = pod.edit().at(k::SPEC).at(k::CONTAINERS).item(0).expect("one");
        c.set(k::RESTART_POLICY, own).set(k::RESTART_POLICY_RULES, doc!([]));
        c.list(k::RESTART_POLICY_RULES).push(rule(operator, 42));
        let mut b = Bench::new(pod);
        b.ready();
        b.image(0);
        b.started(0, "c0");
        b.now = 1;
        let want = if again { "pull a" } else { "remove s" };
        assert_eq!(b.exit("c0", code), [want], "{own} {operator} {code}");
    }
}

#[test]
fn ephemeral_containers_come_later_and_never_again() {
    let mut b = Bench::running("Never");
    let mut pod = (*b.state().pod).clone();
    let spec = doc!([{ "name": "e", "image": "x", "targetContainerName": "a" }]);
    pod.edit().at(k::SPEC).set(k::EPHEMERAL_CONTAINERS, spec);
    assert_eq!(b.on(Event::Pod(Arc::new(pod))), ["pull e"]);
    assert_eq!(b.image(1), ["start e#0"]);
    assert_eq!(b.state().run_of("a"), Some("c0".into()));
    b.started(1, "e0");
    assert_eq!(b.exit("e0", 1), [""; 0]);
    assert_eq!(b.exit("c0", 0), ["remove s"], "it holds no pod up");
}

#[test]
fn resources_change_while_it_runs() {
    let mut b = Bench::running("Always");
    let wish = |b: &mut Bench, cpu: &str, restart: bool| {
        let mut pod = (*b.state().pod).clone();
        let mut c = pod.edit().at(k::SPEC).at(k::CONTAINERS).item(0).expect("one");
        c.set(k::RESOURCES, doc!({ "requests": { "cpu": cpu } }));
        if restart {
            c.set(k::RESIZE_POLICY, doc!([{ "resourceName": "cpu", "restartPolicy": "RestartContainer" }]));
        }
        b.on(Event::Pod(Arc::new(pod)))
    };
    let cpu = |b: &Bench| {
        b.state()
            .allocated_pod()
            .root()
            .find("spec.containers")
            .item(0)
            .find("resources.requests.cpu")
            .str()
            .to_owned()
    };
    assert_eq!(wish(&mut b, "1", false), ["ask"]);
    assert_eq!(cpu(&b), "", "until the node has given it");
    assert_eq!(b.on(Event::Room(None)), ["resize c0"]);
    assert_eq!((cpu(&b).as_str(), b.state().resizes(0)), ("1", true));
    assert_eq!(b.on(Event::Resized("c0".into(), Err("busy".into()))), [""; 0]);
    assert_eq!(b.wait(100), ["resize c0"]);
    assert_eq!(b.now, 10);
    assert_eq!(b.on(Event::Resized("c0".into(), Ok(()))), [""; 0]);
    assert!(!b.state().resizes(0));
    // No room: it is asked again when some has come.
    assert_eq!(wish(&mut b, "2", false), ["ask"]);
    assert_eq!(b.on(Event::Room(Some(Resize::Deferred("full".into())))), [""; 0]);
    assert_eq!(b.on(Event::RoomFreed), ["ask"]);
    assert_eq!(b.on(Event::Room(Some(Resize::Infeasible("large".into())))), [""; 0]);
    assert_eq!(b.on(Event::RoomFreed), [""; 0]);
    assert_eq!(cpu(&b), "1");
    // Back to what it has: nothing is wanted any more.
    assert_eq!(wish(&mut b, "1", true), [""; 0]);
    assert!(b.state().resize.is_none());
    wish(&mut b, "3", true);
    assert_eq!(b.on(Event::Room(None)), ["+Killing", "stop c0 30"]);
    assert_eq!(b.exit("c0", 143), ["pull a"]);
}

#[test]
fn back_off_doubles_and_begins_anew() {
    let mut b = Bench::running("Always");
    let mut waits = Vec::new();
    for n in 0..8u32 {
        b.now += 1;
        let before = b.now;
        let got = b.exit(&format!("c{n}"), 1);
        if n >= 1 {
            // The run before the last goes, the last stays for its log.
            assert!(got.contains(&format!("rm c{}#{}", n - 1, n - 1)), "{got:?}");
        }
        if !got.iter().any(|a| a == "pull a") {
            assert_eq!(b.state().containers[0].trouble.as_ref().unwrap().0, "CrashLoopBackOff");
            assert_eq!(b.wait(i64::MAX), ["pull a"]);
        }
        waits.push(b.now - before);
        assert_eq!(b.image(0), [format!("start a#{}", n + 1)]);
        b.started(0, &format!("c{}", n + 1));
    }
    assert_eq!(waits, [0, 10, 20, 40, 80, 160, 300, 300]);
    b.now += 601;
    assert!(b.exit("c8", 1).contains(&"pull a".to_owned()), "ran long enough to begin anew");
}

#[test]
fn back_off_has_a_limit_that_can_be_set() {
    let mut b = Bench::running("Always");
    b.state.as_mut().unwrap().restart_wait_most = Duration::from_secs(3);
    let mut waits = Vec::new();
    for n in 0..4u32 {
        let before = b.now;
        if !b.exit(&format!("c{n}"), 1).iter().any(|a| a == "pull a") {
            assert_eq!(b.wait(i64::MAX), ["pull a"]);
        }
        waits.push(b.now - before);
        b.image(0);
        b.started(0, &format!("c{}", n + 1));
    }
    assert_eq!(waits, [0, 3, 3, 3]);
}

#[test]
fn images_that_cannot_be_had() {
    let mut b = Bench::new(simple("Always"));
    b.ready();
    let failed = Event::ImageFailed(0, "ErrImagePull", "no such image".into());
    assert_eq!(b.on(failed), ["!Failed", "!Failed"]);
    assert_eq!(b.state().containers[0].trouble.as_ref().unwrap().0, "ErrImagePull");
    assert_eq!(b.wait(100), ["+BackOff"]);
    let (reason, message) = b.state().containers[0].trouble.clone().unwrap();
    assert_eq!(reason, "ImagePullBackOff");
    assert_eq!(message, "Back-off pulling image \"x\": ErrImagePull: no such image");
    assert_eq!(b.wait(100), ["pull a"]);
    assert_eq!(b.now, 10);
    b.image(0);
    b.started(0, "c0");
    assert!(b.state().containers[0].trouble.is_none());
}

#[test]
fn init_containers_run_in_order_and_sidecars_beside() {
    let mut b = Bench::new(pod(doc!({ "restartPolicy": "Always",
        "initContainers": [{ "name": "i", "image": "x" }, { "name": "s", "image": "x", "restartPolicy": "Always",
            "startupProbe": { "httpGet": { "port": 1 } } }, { "name": "j", "image": "x" }],
        "containers": [{ "name": "a", "image": "x" }, { "name": "b", "image": "x" }] })));
    assert_eq!(b.ready(), ["pull i"]);
    assert_eq!(b.image(0), ["start i#0"]);
    assert_eq!(b.started(0, "i0"), ["+Started"]);
    assert_eq!(b.exit("i0", 1), ["pull i"]);
    assert_eq!(b.image(0), ["start i#1"]);
    b.started(0, "i1");
    assert_eq!(b.exit("i1", 0), ["pull s"]);
    assert_eq!(b.image(1), ["start s#0"]);
    // The next waits for the sidecar's startup probe.
    assert_eq!(b.started(1, "s0"), ["+Started"]);
    let probe = Event::Probe { id: "s0".into(), kind: ProbeKind::Startup, passed: true };
    assert_eq!(b.on(probe), ["pull j"]);
    assert_eq!(b.image(2), ["start j#0"]);
    b.started(2, "j0");
    assert_eq!(b.exit("j0", 0), ["pull a"]);
    assert_eq!(b.image(3), ["start a#0"]);
    assert_eq!(b.started(3, "a0"), ["+Started", "pull b"]);
    assert_eq!(b.image(4), ["start b#0"]);
    b.started(4, "b0");
    assert!(b.state().initialised());
    // A sidecar that ends is started again and holds nothing back.
    assert_eq!(b.exit("s0", 0), ["pull s"]);
    assert_eq!(b.image(1), ["start s#1"]);
    b.started(1, "s1");
    // Main containers end first, then sidecars.
    assert_eq!(b.delete(30), ["+Killing", "+Killing", "+Killing", "stop a0 30", "stop b0 30"]);
    assert_eq!(b.exit("a0", 143), [""; 0]);
    b.now += 4;
    assert_eq!(b.exit("b0", 143), ["stop s1 26"]);
    assert_eq!(b.exit("s1", 143), ["remove s"]);
}

/// A running container with both hooks; the one after its start has not passed.
fn hooked() -> Bench {
    let hook = doc!({ "exec": { "command": ["x"] } });
    let mut pod = simple("Always");
    let mut spec = pod.edit().at(k::SPEC);
    let mut c = spec.reborrow().at(k::CONTAINERS).item(0).expect("one");
    c.set(k::LIFECYCLE, doc!({}));
    c.at(k::LIFECYCLE).set(k::POST_START, hook.clone()).set(k::PRE_STOP, hook);
    spec.list(k::CONTAINERS).push(doc!({ "name": "b", "image": "x" }));
    let mut b = Bench::new(pod);
    b.ready();
    b.image(0);
    assert_eq!(b.started(0, "c0"), ["+Started", "PostStart c0"]);
    assert!(!b.state().containers[0].started && !b.state().containers[0].is_running());
    b
}

fn hook(kind: HookKind, outcome: Result<(), String>) -> Event {
    Event::Hook { id: "c0".into(), kind, outcome }
}

#[test]
fn hooks_hold_back_what_follows() {
    let mut b = hooked();
    assert_eq!(b.on(Event::Tick), [""; 0], "the next container waits");
    assert_eq!(b.on(hook(HookKind::PostStart, Ok(()))), ["pull b"]);
    assert!(b.state().containers[0].ready && b.state().containers[0].is_running());
    b.image(1);
    b.started(1, "b0");
    assert_eq!(b.delete(30), ["+Killing", "PreStop c0", "+Killing", "stop b0 30"]);
    assert!(b.state().containers[0].ready, "it still serves");
    b.now += 10;
    assert_eq!(b.on(hook(HookKind::PreStop, Ok(()))), ["stop c0 20"]);
    assert_eq!(b.on(hook(HookKind::PreStop, Err("late".into()))), [""; 0]);
}

#[test]
fn hooks_that_fail_or_take_too_long() {
    let mut b = hooked();
    let failed = hook(HookKind::PostStart, Err("why".into()));
    assert_eq!(b.on(failed), ["!FailedPostStartHook", "+Killing", "PreStop c0"]);
    assert_eq!(b.on(hook(HookKind::PreStop, Err("no".into()))), ["!FailedPreStopHook", "stop c0 30"]);
    assert_eq!(b.exit("c0", 137), ["pull a"]);
    assert_eq!(b.state().containers[0].trouble, Some(("PostStartHookError".into(), "why".into())));
    // A hook that does not end takes the whole grace, and the container gets the least there is.
    let mut b = hooked();
    b.on(hook(HookKind::PostStart, Ok(())));
    assert_eq!(b.delete(30), ["+Killing", "PreStop c0"]);
    assert_eq!(b.wait(100), ["stop c0 2"]);
    assert_eq!(b.now, 30);
    // Deletion does not wait for a hook after the start.
    let mut b = hooked();
    assert_eq!(b.delete(5), ["+Killing", "PreStop c0"]);
    assert_eq!(b.on(hook(HookKind::PreStop, Ok(()))), ["stop c0 5"]);
}

#[test]
fn a_failed_init_container_fails_the_pod_that_never_restarts() {
    let mut b =
        Bench::new(pod(doc!({ "restartPolicy": "Never", "initContainers": [{ "name": "i", "image": "x" }],
        "containers": [{ "name": "a", "image": "x" }] })));
    b.ready();
    b.image(0);
    b.started(0, "i0");
    assert_eq!(b.exit("i0", 3), ["remove s"]);
    assert_eq!(b.state().stage, Stage::Cleaning);
}

#[test]
fn probes_steer_readiness_and_restarts() {
    let probe = doc!({ "httpGet": { "port": 80 } });
    let mut spec = doc!({ "restartPolicy": "Always", "terminationGracePeriodSeconds": 7, "containers": [{ "name": "a", "image": "x" }] });
    let mut c = spec.edit().at(k::CONTAINERS).item(0).expect("one");
    c.set(k::LIVENESS_PROBE, probe.clone()).set(k::READINESS_PROBE, probe);
    let mut b = Bench::new(pod(spec));
    b.ready();
    b.image(0);
    b.started(0, "c0");
    assert!(!b.state().containers[0].ready);
    b.on(Event::Probe { id: "c0".into(), kind: ProbeKind::Readiness, passed: true });
    assert!(b.state().containers[0].ready);
    b.on(Event::Probe { id: "old".into(), kind: ProbeKind::Readiness, passed: false });
    assert!(b.state().containers[0].ready, "a verdict about another run changes nothing");
    let failed = Event::Probe { id: "c0".into(), kind: ProbeKind::Liveness, passed: false };
    assert_eq!(b.on(failed.clone()), ["+Killing", "stop c0 7"]);
    assert_eq!(b.on(failed), [""; 0], "it is asked once");
    assert_eq!(b.exit("c0", 137), ["pull a"]);
}

#[test]
fn what_fails_on_the_way_is_tried_again() {
    let mut b = Bench::new(simple("Always"));
    b.on(Event::Tick);
    assert_eq!(b.on(Event::VolumesFailed("configmap \"c\" not found".into())), ["!FailedMount"]);
    assert_eq!(b.wait(100), [""; 0], "half a second is not over");
    b.now = 1;
    assert_eq!(b.on(Event::Tick), ["mount"]);
    assert_eq!(b.on(Event::VolumesMounted), ["sandbox 0"]);
    assert_eq!(b.on(Event::SandboxFailed("no".into())), ["!FailedCreatePodSandBox"]);
    b.now = 2;
    assert_eq!(b.on(Event::Tick), ["sandbox 1"]);
    assert_eq!(b.on(Event::SandboxMade("s".into())), ["attach s"]);
    assert_eq!(b.on(Event::NetworkFailed("s".into(), "no".into())), ["!FailedCreatePodSandBox", "remove s"]);
    assert_eq!(b.on(Event::SandboxRemoved("s".into())), [""; 0]);
    b.now = 5;
    assert_eq!(b.on(Event::Tick), ["sandbox 2"]);
    assert_eq!(b.on(Event::SandboxMade("t".into())), ["attach t"]);
    assert_eq!(b.on(Event::NetworkAttached("t".into(), vec![])), ["pull a"]);
    b.image(0);
    let failed = Event::StartFailed {
        index: 0,
        reason: "CreateContainerConfigError",
        message: "secret \"s\" not found".into(),
        exit: None,
    };
    assert_eq!(b.on(failed.clone()), ["!Failed"]);
    b.now = 6;
    assert_eq!(b.on(Event::Tick), ["pull a"]);
    b.image(0);
    assert_eq!(b.on(failed), ["!Failed"]);
    assert_eq!(b.on(Event::Retry), ["pull a"], "what it refers to has come");
    assert_eq!(b.image(0), ["start a#0"], "no run was used up");
}

#[test]
fn a_lost_sandbox_is_made_anew_with_everything_in_it() {
    let mut b = Bench::running("Always");
    assert_eq!(b.on(Event::SandboxLost("s".into())), ["remove s"]);
    assert_eq!(b.on(Event::SandboxRemoved("s".into())), ["sandbox 1"]);
    assert_eq!(b.on(Event::SandboxMade("t".into())), ["attach t"]);
    assert_eq!(b.on(Event::NetworkAttached("t".into(), vec![])), ["pull a"]);
    assert_eq!(b.image(0), ["start a#1"]);
    let mut b = Bench::running("Never");
    assert_eq!(b.on(Event::SandboxLost("s".into())), ["remove s"]);
    assert_eq!(b.on(Event::SandboxRemoved("s".into())), ["unmount"]);
}

#[test]
fn going_while_things_are_under_way() {
    // While the sandbox is being made.
    let mut b = Bench::new(simple("Always"));
    b.on(Event::Tick);
    b.on(Event::VolumesMounted);
    assert_eq!(b.delete(30), [""; 0]);
    assert_eq!(b.on(Event::SandboxMade("s".into())), ["remove s"]);
    // While an image is pulled: its coming changes nothing.
    let mut b = Bench::new(simple("Always"));
    b.ready();
    assert_eq!(b.delete(30), ["remove s"]);
    assert_eq!(b.image(0), [""; 0]);
    // While a container is being started: it is stopped when it has.
    let mut b = Bench::new(simple("Always"));
    b.ready();
    b.image(0);
    assert_eq!(b.delete(30), [""; 0]);
    assert_eq!(b.started(0, "c0"), ["+Started", "+Killing", "stop c0 30"]);
    // Taken out of the API by force: the containers still get their time.
    let mut b = Bench::running("Always");
    assert_eq!(b.on(Event::Gone), ["+Killing", "stop c0 30"]);
    b.exit("c0", 0);
    b.on(Event::SandboxRemoved("s".into()));
    assert_eq!(b.on(Event::VolumesUnmounted), ["forget"]);
}

#[test]
fn a_deadline_ends_the_pod() {
    let mut pod = simple("Always");
    pod.edit().at(k::SPEC).set(k::ACTIVE_DEADLINE_SECONDS, 20i64);
    let mut b = Bench::new(pod);
    b.ready();
    b.image(0);
    b.started(0, "c0");
    assert_eq!(b.wait(100), ["+DeadlineExceeded", "+Killing", "stop c0 30"]);
    assert_eq!(b.now, 20);
}

#[test]
fn refused_pods_only_wait_for_their_deletion() {
    let end = End { reason: "OutOfcpu".into(), message: String::new() };
    let mut b = Bench { state: Some(State::refused(Arc::new(simple("Always")), end, at(0))), now: 0 };
    assert_eq!(b.on(Event::Tick), [""; 0]);
    assert_eq!(b.delete(0), ["delete"]);
}

fn found(name: &str, id: &str, attempt: u32, state: ContainerState) -> ContainerStatus {
    ContainerStatus {
        id: id.into(),
        sandbox_id: "s".into(),
        name: name.into(),
        attempt,
        state,
        created_at: at(-100),
        started_at: Some(at(-99)),
        finished_at: (state == ContainerState::Exited).then(|| at(-50)),
        exit_code: 1,
        reason: String::new(),
        message: String::new(),
        image: "x".into(),
        image_ref: "sha256:1".into(),
        log_path: "/l".into(),
        mounts: Vec::new(),
        labels: Default::default(),
        annotations: Default::default(),
        user: None,
    }
}

#[test]
fn what_runs_is_adopted_and_nothing_starts_again() {
    let containers =
        vec![found("a", "c0", 0, ContainerState::Exited), found("a", "c1", 1, ContainerState::Running)];
    let sandbox = Some(("s".into(), true));
    let all = Found { sandbox, sandbox_attempt: 0, containers };
    let mut b = Bench { state: Some(State::adopt(Arc::new(simple("Always")), all, at(0))), now: 0 };
    assert_eq!(b.on(Event::Tick), ["mount", "attach s"]);
    assert_eq!(b.on(Event::VolumesMounted), [""; 0]);
    assert_eq!(b.on(Event::NetworkAttached("s".into(), vec![])), [""; 0]);
    assert_eq!(b.state().containers[0].attempt, 1);
    assert_eq!(b.state().containers[0].last.as_ref().unwrap().id, "c0");
    assert_eq!(b.exit("c1", 1), ["rm c0#0", "pull a"]);
    assert_eq!(b.image(0), ["start a#2"]);
}

#[test]
fn another_image_replaces_a_run_whatever_the_policy() {
    let mut b = Bench::running("Never");
    let mut pod = (*b.state().pod).clone();
    pod.edit().at(k::SPEC).list(k::CONTAINERS).item(0).unwrap().set(k::IMAGE, "y");
    let told = b.on(Event::Pod(Arc::new(pod.clone())));
    assert_eq!(told, ["+Killing", "stop c0 30"]);
    assert_eq!(b.on(Event::Pod(Arc::new(pod))), [""; 0], "once is enough");
    assert_eq!(b.exit("c0", 143), ["pull a"]);
    assert_eq!((b.image(0), b.state().containers[0].made_of.as_str()), (vec!["start a#1".to_owned()], "y"));
    b.started(0, "c1");
    assert!(!b.exit("c1", 0).contains(&"pull a".to_owned()), "its own end is final");
}

#[test]
fn a_dead_sandbox_is_replaced_and_a_final_pod_only_cleaned() {
    let all = Found {
        sandbox: Some(("s".into(), false)),
        sandbox_attempt: 4,
        containers: vec![found("a", "c0", 0, ContainerState::Unknown)],
    };
    let mut b = Bench { state: Some(State::adopt(Arc::new(simple("Always")), all.clone(), at(0))), now: 0 };
    assert_eq!(b.on(Event::Tick), ["mount", "remove s"]);
    b.on(Event::VolumesMounted);
    assert_eq!(b.on(Event::SandboxRemoved("s".into())), ["sandbox 5"]);
    // What ran in a sandbox before that one is known from the API only.
    let mut pod = simple("Always");
    let status = doc!([{ "name": "a", "restartCount": 2, "containerID": "keelson://c2" }]);
    pod.edit().at(k::STATUS).set(k::CONTAINER_STATUSES, status);
    let state = State::adopt(Arc::new(pod), Found { containers: vec![], ..all.clone() }, at(0));
    assert_eq!((state.containers[0].attempt, state.containers[0].next_attempt), (2, 3));
    // After a reboot nothing is found at all: the policy says what runs again.
    for (policy, want) in [("Always", vec!["pull a"]), ("Never", vec![])] {
        let mut pod = simple(policy);
        let status = doc!([{ "name": "a", "containerID": "keelson://c0", "state": { "running": {} } }]);
        pod.edit().at(k::STATUS).set(k::CONTAINER_STATUSES, status);
        let state = State::adopt(Arc::new(pod), Found::default(), at(0));
        let mut b = Bench { state: Some(state), now: 0 };
        b.on(Event::Tick);
        b.on(Event::VolumesMounted);
        b.on(Event::SandboxMade("s".into()));
        let told = b.on(Event::NetworkAttached("s".into(), vec![]));
        assert_eq!(told, want, "{policy}");
    }
    let mut pod = simple("Never");
    pod.edit().at(k::STATUS).set(k::PHASE, "Failed");
    let mut b = Bench { state: Some(State::adopt(Arc::new(pod), all, at(0))), now: 0 };
    assert_eq!(b.on(Event::Tick), ["remove s"]);
    assert_eq!(b.on(Event::SandboxRemoved("s".into())), ["unmount"]);
    assert_eq!(b.on(Event::VolumesUnmounted), [""; 0]);
    assert_eq!(b.delete(0), ["delete"]);
}
