//! How pods look in a table. Upstream: printPod in pkg/printers/internalversion.

use apimachinery::{Ref, k};
use base::time::Timestamp;

use crate::kind::{Cell, Column};
use crate::print::{AGE, NAME, duration, or_none};

/// READY STATUS RESTARTS AGE, and where it runs.
pub(crate) const COLUMNS: &[Column] = &[
    NAME,
    Column::code("Ready", "string", "Containers that are ready, of all there are.", |pod, _| {
        let row = Row::of(pod);
        Cell::from(format!("{}/{}", row.ready, row.total))
    }),
    Column::code("Status", "string", "Where the pod is in its life, or what keeps it.", |pod, _| {
        Cell::from(Row::of(pod).reason)
    }),
    Column::code(
        "Restarts",
        "string",
        "How often its containers were restarted, and when last.",
        |pod, now| restarts(&Row::of(pod), now),
    ),
    AGE,
    Column::code("IP", "string", "Its address.", |pod, _| {
        let status = pod.get(k::STATUS);
        let first = status.get(k::POD_IPS).item(0).get(k::IP).str();
        or_none(if first.is_empty() { status.get(k::POD_IP).str() } else { first })
    })
    .wide(),
    Column::code("Node", "string", "The node it runs on.", |pod, _| {
        or_none(pod.get(k::SPEC).get(k::NODE_NAME).str())
    })
    .wide(),
    Column::code("Nominated Node", "string", "The node where room is being made for it.", |pod, _| {
        or_none(pod.get(k::STATUS).get(k::NOMINATED_NODE_NAME).str())
    })
    .wide(),
    Column::code(
        "Readiness Gates",
        "string",
        "Further conditions it needs to be ready, met of all.",
        |pod, _| gates(pod),
    )
    .wide(),
];

fn restarts(row: &Row, now: Timestamp) -> Cell {
    match row.last_restart.parse::<Timestamp>() {
        Ok(then) if row.restarts > 0 => {
            Cell::from(format!("{} ({} ago)", row.restarts, duration(now.as_second() - then.as_second())))
        }
        _ => Cell::from(row.restarts.to_string()),
    }
}

fn gates(pod: Ref<'_>) -> Cell {
    let gates = pod.get(k::SPEC).get(k::READINESS_GATES);
    if gates.is_empty() {
        return or_none("");
    }
    let met = gates.items().filter(|g| condition(pod, g.get(k::CONDITION_TYPE).str())).count();
    Cell::from(format!("{met}/{}", gates.len()))
}

fn condition(pod: Ref<'_>, name: &str) -> bool {
    let mut all = pod.get(k::STATUS).get(k::CONDITIONS).items();
    all.any(|c| c.get(k::TYPE).str() == name && c.get(k::STATUS).str() == "True")
}

/// What a pod's row says.
struct Row {
    ready: usize,
    total: usize,
    reason: String,
    restarts: i64,
    last_restart: String,
}

impl Row {
    fn of(pod: Ref<'_>) -> Row {
        let (spec, status) = (pod.get(k::SPEC), pod.get(k::STATUS));
        let sidecars = spec.get(k::INIT_CONTAINERS).items().filter(|c| is_sidecar(*c)).count();
        let own = status.get(k::REASON).str();
        let mut row = Row {
            ready: 0,
            total: spec.get(k::CONTAINERS).len() + sidecars,
            reason: if own.is_empty() { status.get(k::PHASE).str() } else { own }.to_owned(),
            restarts: 0,
            last_restart: String::new(),
        };
        let gated = |c: Ref<'_>| {
            c.get(k::TYPE).str() == "PodScheduled" && c.get(k::REASON).str() == "SchedulingGated"
        };
        if status.get(k::CONDITIONS).items().any(gated) {
            row.reason = "SchedulingGated".into();
        }
        let sidecar_restarts = row.add_init(spec, status);
        if let Some(sidecars) = sidecar_restarts.or_else(|| condition(pod, "Initialized").then_some(0)) {
            row.restarts = sidecars;
            row.add_containers(pod, status);
        }
        if pod.get(k::METADATA).get(k::DELETION_TIMESTAMP).is_set() {
            let phase = status.get(k::PHASE).str();
            if own == "NodeLost" {
                row.reason = "Unknown".into();
            } else if !["Failed", "Succeeded"].contains(&phase) {
                row.reason = "Terminating".into();
            }
        }
        row
    }

    /// Counts init containers; `None` while one of them is still at work, else the restarts of sidecars.
    fn add_init(&mut self, spec: Ref<'_>, status: Ref<'_>) -> Option<i64> {
        let mut sidecars = 0;
        for (i, s) in status.get(k::INIT_CONTAINER_STATUSES).items().enumerate() {
            let name = s.get(k::NAME).str();
            let sidecar =
                spec.get(k::INIT_CONTAINERS).items().any(|c| c.get(k::NAME).str() == name && is_sidecar(c));
            self.count_restarts(s);
            let (ended, waiting) = (s.get(k::STATE).get(k::TERMINATED), s.get(k::STATE).get(k::WAITING));
            if ended.is_set() && ended.get(k::EXIT_CODE).i64() == 0 {
                continue;
            }
            if sidecar && s.get(k::STARTED).bool() {
                self.ready += usize::from(s.get(k::READY).bool());
                sidecars += s.get(k::RESTART_COUNT).i64();
                continue;
            }
            let why = waiting.get(k::REASON).str();
            self.reason = if ended.is_set() {
                format!("Init:{}", ended_why(ended))
            } else if !why.is_empty() && why != "PodInitializing" {
                format!("Init:{why}")
            } else {
                format!("Init:{i}/{}", spec.get(k::INIT_CONTAINERS).len())
            };
            return None;
        }
        Some(sidecars)
    }

    fn add_containers(&mut self, pod: Ref<'_>, status: Ref<'_>) {
        let all: Vec<Ref<'_>> = status.get(k::CONTAINER_STATUSES).items().collect();
        let mut running = false;
        for s in all.into_iter().rev() {
            self.count_restarts(s);
            let (ended, why) =
                (s.get(k::STATE).get(k::TERMINATED), s.get(k::STATE).get(k::WAITING).get(k::REASON).str());
            if !why.is_empty() {
                self.reason = why.to_owned();
            } else if ended.is_set() {
                self.reason = ended_why(ended);
            } else if s.get(k::READY).bool() && s.get(k::STATE).get(k::RUNNING).is_set() {
                running = true;
                self.ready += 1;
            }
        }
        if self.reason == "Completed" && running {
            self.reason = if condition(pod, "Ready") { "Running" } else { "NotReady" }.into();
        }
    }

    fn count_restarts(&mut self, s: Ref<'_>) {
        self.restarts += s.get(k::RESTART_COUNT).i64();
        let finished = s.get(k::LAST_STATE).get(k::TERMINATED).get(k::FINISHED_AT).str();
        // Times of one form compare as text.
        if finished > self.last_restart.as_str() {
            self.last_restart = finished.to_owned();
        }
    }
}

fn is_sidecar(container: Ref<'_>) -> bool {
    container.get(k::RESTART_POLICY).str() == "Always"
}

fn ended_why(ended: Ref<'_>) -> String {
    let (reason, signal) = (ended.get(k::REASON).str(), ended.get(k::SIGNAL).i64());
    match (reason, signal) {
        ("", 0) => format!("ExitCode:{}", ended.get(k::EXIT_CODE).i64()),
        ("", signal) => format!("Signal:{signal}"),
        (reason, _) => reason.to_owned(),
    }
}
