//! What to do next about a Deployment's ReplicaSets; pure. Upstream: pkg/controller/deployment/{sync,rolling,recreate}.go,
//! util/deployment_util.go.

use std::collections::BTreeMap;
use std::time::Duration;

use apimachinery::{Doc, Ref, doc, k};
use base::time::Timestamp;

use super::{API_VERSION, status};
use crate::objects;

pub const REVISION: &str = "deployment.kubernetes.io/revision";
const REVISION_HISTORY: &str = "deployment.kubernetes.io/revision-history";
const DESIRED: &str = "deployment.kubernetes.io/desired-replicas";
const MAX: &str = "deployment.kubernetes.io/max-replicas";
const HASH: &str = "pod-template-hash";
const OWN_ANNOTATIONS: [&str; 6] = [
    "kubectl.kubernetes.io/last-applied-configuration",
    REVISION,
    REVISION_HISTORY,
    DESIRED,
    MAX,
    "deprecated.deployment.rollback.to",
];

/// What is there.
pub struct World<'a> {
    pub deployment: Ref<'a>,
    pub sets: Vec<Ref<'a>>,
    /// Of each set: pods that have not ended.
    pub running: Vec<usize>,
    pub now: Timestamp,
}

/// One write.
#[derive(Debug, PartialEq)]
pub enum Step {
    Create(Doc),
    Update { at: usize, set: Doc },
    Delete(usize),
}

/// What to write.
#[derive(Debug)]
pub struct Plan {
    pub steps: Vec<Step>,
    pub status: Doc,
    /// The Deployment's own revision annotation, when it must change.
    pub revision: Option<String>,
    /// When to look again without a change.
    pub again: Option<Duration>,
}

impl World<'_> {
    pub fn replicas(&self) -> i64 {
        self.deployment.get(k::SPEC).get(k::REPLICAS).opt_i64().unwrap_or(1)
    }

    fn is_recreate(&self) -> bool {
        self.deployment.get(k::SPEC).get(k::STRATEGY).get(k::TYPE).str() == "Recreate"
    }

    /// maxSurge and maxUnavailable as numbers: a percentage rounds up for the one, down for the other; not both are 0.
    pub fn bounds(&self) -> (i64, i64) {
        if self.is_recreate() {
            return (0, 0);
        }
        let rolling = self.deployment.get(k::SPEC).get(k::STRATEGY).get(k::ROLLING_UPDATE);
        let surge = resolve(rolling.get(k::MAX_SURGE), self.replicas(), true);
        let unavailable = resolve(rolling.get(k::MAX_UNAVAILABLE), self.replicas(), false);
        if surge == 0 && unavailable == 0 { (0, 1) } else { (surge, unavailable.min(self.replicas())) }
    }

    /// The set with the Deployment's template; the oldest if there are several.
    pub fn new_set(&self) -> Option<usize> {
        let same = (0..self.sets.len()).filter(|i| same_template(self.sets[*i], self.deployment));
        same.min_by_key(|i| age(self.sets[*i]))
    }

    /// All others, the oldest first.
    fn old_sets(&self) -> Vec<usize> {
        let new = self.new_set();
        let mut old: Vec<usize> = (0..self.sets.len()).filter(|i| Some(*i) != new).collect();
        old.sort_by_key(|i| age(self.sets[*i]));
        old
    }

    fn total(&self) -> i64 {
        self.sets.iter().map(|s| size(*s)).sum()
    }
}

fn age(set: Ref<'_>) -> (String, String) {
    (set.get(k::METADATA).get(k::CREATION_TIMESTAMP).str().to_owned(), objects::name(set).to_owned())
}

pub fn size(set: Ref<'_>) -> i64 {
    set.get(k::SPEC).get(k::REPLICAS).opt_i64().unwrap_or(1)
}

pub fn available(set: Ref<'_>) -> i64 {
    set.get(k::STATUS).get(k::AVAILABLE_REPLICAS).i64()
}

fn revision(object: Ref<'_>) -> i64 {
    objects::annotation(object, REVISION).parse().unwrap_or(0)
}

fn resolve(value: Ref<'_>, of: i64, up: bool) -> i64 {
    match value.opt_str().and_then(|s| s.strip_suffix('%')).and_then(|s| s.parse::<i64>().ok()) {
        Some(percent) => (of * percent + if up { 99 } else { 0 }) / 100,
        // The API's defaults are 25%.
        None if !value.is_set() => (of * 25 + if up { 99 } else { 0 }) / 100,
        None => value.i64(),
    }
}

/// The templates are equal but for the hash label.
pub fn same_template(set: Ref<'_>, deployment: Ref<'_>) -> bool {
    let template = |object: Ref<'_>| {
        let mut doc = object.get(k::SPEC).get(k::TEMPLATE).to_doc();
        doc.edit().at(k::METADATA).at(k::LABELS).remove(HASH);
        // Go writes no creation time of its own here; old servers did.
        doc.edit().at(k::METADATA).remove(k::CREATION_TIMESTAMP);
        doc
    };
    template(set) == template(deployment)
}

/// What to write next.
pub fn plan(world: &World<'_>) -> Plan {
    let spec = world.deployment.get(k::SPEC);
    let paused = spec.get(k::PAUSED).bool();
    let steps = if objects::is_deleting(world.deployment) {
        Vec::new()
    } else if paused || is_scaling(world) {
        let mut steps = annotate(world);
        scale(world, &mut steps);
        if steps.is_empty() && paused { cleanup(world) } else { steps }
    } else if world.is_recreate() {
        recreate(world)
    } else {
        roll(world)
    };
    let created = steps
        .iter()
        .find_map(|s| if let Step::Create(set) = s { Some(objects::name(set.root())) } else { None });
    let (status, again) = status::status(world, created);
    let newest = match (created.is_some(), world.new_set()) {
        (true, _) => Some(next_revision(world)),
        (false, Some(new)) => Some(revision_of_new(world, new)),
        (false, None) => None,
    };
    let current = objects::annotation(world.deployment, REVISION);
    let revision =
        newest.map(|r| r.to_string()).filter(|r| r != current && !objects::is_deleting(world.deployment));
    Plan { steps, status, revision, again }
}

fn next_revision(world: &World<'_>) -> i64 {
    world.old_sets().iter().map(|i| revision(world.sets[*i])).max().unwrap_or(0) + 1
}

/// A set that becomes the newest again gets the next number.
fn revision_of_new(world: &World<'_>, new: usize) -> i64 {
    revision(world.sets[new]).max(next_revision(world))
}

/// Somebody changed the number of replicas since the sets were told of it.
fn is_scaling(world: &World<'_>) -> bool {
    let active = world.sets.iter().filter(|s| size(**s) > 0);
    let told = |s: &Ref<'_>| objects::annotation(*s, DESIRED).parse::<i64>().ok();
    active.into_iter().any(|s| told(s).is_some_and(|n| n != world.replicas()))
}

/// A set to be changed, unless it stays as it is.
struct Change<'w, 'a> {
    world: &'w World<'a>,
    sets: BTreeMap<usize, Doc>,
}

impl<'w, 'a> Change<'w, 'a> {
    fn new(world: &'w World<'a>) -> Self {
        Change { world, sets: BTreeMap::new() }
    }

    fn set(&mut self, at: usize) -> &mut Doc {
        self.sets.entry(at).or_insert_with(|| self.world.sets[at].to_doc())
    }

    fn resize(&mut self, at: usize, replicas: i64) {
        let (surge, _) = self.world.bounds();
        let (desired, most) = (self.world.replicas(), self.world.replicas() + surge);
        if size(self.world.sets[at]) == replicas {
            return;
        }
        let doc = self.set(at);
        doc.edit().at(k::SPEC).set(k::REPLICAS, replicas);
        doc.edit()
            .at(k::METADATA)
            .at(k::ANNOTATIONS)
            .set(DESIRED, desired.to_string())
            .set(MAX, most.to_string());
    }

    fn steps(self) -> Vec<Step> {
        let changed = self.sets.into_iter().filter(|(at, doc)| !doc.root().same(self.world.sets[*at]));
        changed.map(|(at, set)| Step::Update { at, set }).collect()
    }
}

/// The new set's annotations, brought up to date.
fn annotate(world: &World<'_>) -> Vec<Step> {
    let Some(new) = world.new_set() else { return Vec::new() };
    let mut change = Change::new(world);
    let (old_revision, wanted) = (revision(world.sets[new]), revision_of_new(world, new));
    let (surge, _) = world.bounds();
    let min_ready = world.deployment.get(k::SPEC).get(k::MIN_READY_SECONDS);
    let set = change.set(new);
    let mut annotations = set.edit().at(k::METADATA).at(k::ANNOTATIONS);
    if old_revision != wanted {
        annotations.set(REVISION, wanted.to_string());
        if old_revision > 0 {
            let history = annotations.read().get(REVISION_HISTORY).str().to_owned();
            let more = if history.is_empty() {
                old_revision.to_string()
            } else {
                format!("{history},{old_revision}")
            };
            annotations.set(REVISION_HISTORY, more);
        }
    }
    copy_annotations(world.deployment, &mut annotations);
    if size(world.sets[new]) == world.replicas() {
        let most = world.replicas() + surge;
        annotations.set(DESIRED, world.replicas().to_string()).set(MAX, most.to_string());
    }
    let given = (min_ready.i64() > 0).then_some(min_ready);
    set.edit().at(k::SPEC).set_opt(k::MIN_READY_SECONDS, given);
    change.steps()
}

fn copy_annotations(deployment: Ref<'_>, to: &mut apimachinery::Edit<'_>) {
    for (name, value) in deployment.get(k::METADATA).get(k::ANNOTATIONS).entries() {
        if !OWN_ANNOTATIONS.contains(&name) {
            to.set(name, value);
        }
    }
}

fn create(world: &World<'_>) -> Step {
    let d = world.deployment;
    let hash = template_hash(d);
    let replicas = new_size(world, 0);
    let (surge, _) = world.bounds();
    let mut set = doc!({ "apiVersion": API_VERSION, "kind": "ReplicaSet",
        "metadata": { "name": format!("{}-{hash}", objects::name(d)), "namespace": objects::namespace(d) } });
    let mut meta = set.edit().at(k::METADATA);
    meta.set(k::LABELS, objects::labels(d.get(k::SPEC).get(k::TEMPLATE)));
    meta.reborrow().at(k::LABELS).set(HASH, &hash);
    let mut annotations = meta.reborrow().at(k::ANNOTATIONS);
    copy_annotations(d, &mut annotations);
    annotations
        .set(REVISION, next_revision(world).to_string())
        .set(DESIRED, world.replicas().to_string())
        .set(MAX, (world.replicas() + surge).to_string());
    meta.list(k::OWNER_REFERENCES).push(objects::owner_reference(d, API_VERSION, "Deployment"));
    let mut spec = set.edit().at(k::SPEC);
    spec.set(k::REPLICAS, replicas);
    let min_ready = d.get(k::SPEC).get(k::MIN_READY_SECONDS);
    spec.set_opt(k::MIN_READY_SECONDS, (min_ready.i64() > 0).then_some(min_ready));
    spec.set(k::SELECTOR, d.get(k::SPEC).get(k::SELECTOR));
    spec.reborrow().at(k::SELECTOR).at(k::MATCH_LABELS).set(HASH, &hash);
    spec.set(k::TEMPLATE, d.get(k::SPEC).get(k::TEMPLATE));
    spec.at(k::TEMPLATE).at(k::METADATA).at(k::LABELS).set(HASH, &hash);
    Step::Create(set)
}

/// A stable name for a template, in the alphabet of upstream's `SafeEncodeString`.
fn template_hash(deployment: Ref<'_>) -> String {
    const ALPHABET: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
    let collisions = deployment.get(k::STATUS).get(k::COLLISION_COUNT).opt_i64();
    let mut text = deployment.get(k::SPEC).get(k::TEMPLATE).to_json();
    text.extend(collisions.iter().flat_map(|n| n.to_le_bytes()));
    // FNV-1a, 32 bits. Source: http://www.isthe.com/chongo/tech/comp/fnv/
    let hash = text.iter().fold(0x811c_9dc5u32, |h, b| (h ^ u32::from(*b)).wrapping_mul(0x0100_0193));
    hash.to_string().bytes().map(|b| char::from(ALPHABET[usize::from(b) % ALPHABET.len()])).collect()
}

/// How large the new set may be now, from `current`.
fn new_size(world: &World<'_>, current: i64) -> i64 {
    if world.is_recreate() {
        return world.replicas();
    }
    let room = world.replicas() + world.bounds().0 - world.total();
    if room <= 0 { current } else { current + room.min(world.replicas() - current) }
}

fn recreate(world: &World<'_>) -> Vec<Step> {
    let mut change = Change::new(world);
    let old = world.old_sets();
    old.iter().for_each(|at| change.resize(*at, 0));
    let steps = change.steps();
    if !steps.is_empty() {
        return steps;
    }
    if old.iter().any(|at| world.running[*at] > 0) {
        return Vec::new();
    }
    let Some(new) = world.new_set() else { return vec![create(world)] };
    grow_or_finish(world, new, world.replicas())
}

fn grow_or_finish(world: &World<'_>, new: usize, replicas: i64) -> Vec<Step> {
    let noted = annotate(world);
    if !noted.is_empty() {
        return noted;
    }
    let mut change = Change::new(world);
    change.resize(new, replicas);
    let steps = change.steps();
    if steps.is_empty() && status::is_complete(world) { cleanup(world) } else { steps }
}

fn roll(world: &World<'_>) -> Vec<Step> {
    let Some(new) = world.new_set() else { return vec![create(world)] };
    let current = size(world.sets[new]);
    let wanted = if current > world.replicas() { world.replicas() } else { new_size(world, current) };
    if wanted != current {
        return grow_or_finish(world, new, wanted);
    }
    let shrink = shrink_old(world, new);
    if shrink.is_empty() { grow_or_finish(world, new, wanted) } else { shrink }
}

/// First the old pods that are of no use, then as many as availability allows.
fn shrink_old(world: &World<'_>, new: usize) -> Vec<Step> {
    let old = world.old_sets();
    if old.iter().all(|at| size(world.sets[*at]) == 0) {
        return Vec::new();
    }
    let least = world.replicas() - world.bounds().1;
    let coming = size(world.sets[new]) - available(world.sets[new]);
    let most = world.total() - least - coming;
    if most <= 0 {
        return Vec::new();
    }
    let mut sizes: BTreeMap<usize, i64> = old.iter().map(|at| (*at, size(world.sets[*at]))).collect();
    let mut cleaned = 0;
    for at in &old {
        let useless = (sizes[at] - available(world.sets[*at])).max(0).min(most - cleaned);
        *sizes.entry(*at).or_default() -= useless;
        cleaned += useless;
    }
    let all_available: i64 = world.sets.iter().map(|s| available(*s)).sum();
    let mut spare = (all_available - least).max(0);
    for at in &old {
        let step = sizes[at].min(spare);
        *sizes.entry(*at).or_default() -= step;
        spare -= step;
    }
    let mut change = Change::new(world);
    sizes.into_iter().for_each(|(at, to)| change.resize(at, to));
    change.steps()
}

/// The number of replicas changed: one active set takes it all; several share it by their sizes.
fn scale(world: &World<'_>, steps: &mut Vec<Step>) {
    if !steps.is_empty() {
        return;
    }
    let mut change = Change::new(world);
    let active: Vec<usize> = (0..world.sets.len()).filter(|i| size(world.sets[*i]) > 0).collect();
    let new = world.new_set();
    let only = match active.as_slice() {
        [] => new.or_else(|| (0..world.sets.len()).max_by_key(|i| revision(world.sets[*i]))),
        [one] => Some(*one),
        _ => None,
    };
    let saturated = new.is_some_and(|n| {
        let s = world.sets[n];
        size(s) == world.replicas() && available(s) == world.replicas() && told(s) == Some(world.replicas())
    });
    if let Some(only) = only {
        change.resize(only, world.replicas());
        let doc = change.set(only);
        note_size(world, doc);
    } else if saturated {
        active.iter().filter(|i| Some(**i) != new).for_each(|i| change.resize(*i, 0));
    } else if !world.is_recreate() {
        share(world, &active, &mut change);
    }
    steps.extend(change.steps());
}

fn told(set: Ref<'_>) -> Option<i64> {
    objects::annotation(set, DESIRED).parse().ok()
}

fn note_size(world: &World<'_>, set: &mut Doc) {
    let most = world.replicas() + world.bounds().0;
    let mut annotations = set.edit().at(k::METADATA).at(k::ANNOTATIONS);
    annotations.set(DESIRED, world.replicas().to_string()).set(MAX, most.to_string());
}

/// Proportional scaling: the largest sets first, what rounding leaves goes to the first.
fn share(world: &World<'_>, active: &[usize], change: &mut Change<'_, '_>) {
    let total = world.total();
    let allowed = if world.replicas() > 0 { world.replicas() + world.bounds().0 } else { 0 };
    let to_add = allowed - total;
    let mut order = active.to_vec();
    order.sort_by_key(|i| {
        let (size, age) = (size(world.sets[*i]), age(world.sets[*i]));
        // Of equal ones the newest grows first, the oldest shrinks first.
        (
            std::cmp::Reverse(size),
            if to_add > 0 { std::cmp::Reverse(Some(age)) } else { std::cmp::Reverse(None) },
        )
    });
    let mut added = 0;
    let mut sizes: Vec<i64> = Vec::new();
    for at in &order {
        let size = size(world.sets[*at]);
        let fraction = fraction(world, *at, to_add, added);
        added += fraction;
        sizes.push(size + fraction);
    }
    for (n, at) in order.iter().enumerate() {
        let rest = if n == 0 { to_add - added } else { 0 };
        change.resize(*at, (sizes[n] + rest).max(0));
        note_size(world, change.set(*at));
    }
}

fn fraction(world: &World<'_>, at: usize, to_add: i64, added: i64) -> i64 {
    let set = world.sets[at];
    if size(set) == 0 || to_add == 0 || to_add == added {
        return 0;
    }
    let (surge, _) = world.bounds();
    let before = objects::annotation(set, MAX).parse::<i64>().ok().filter(|n| *n > 0);
    let before = before.unwrap_or_else(|| world.deployment.get(k::STATUS).get(k::REPLICAS).i64().max(1));
    let new = size(set) as f64 * (world.replicas() + surge) as f64 / before as f64;
    let fraction = new.round() as i64 - size(set);
    if to_add > 0 { fraction.min(to_add - added) } else { fraction.max(to_add - added) }
}

/// Old, empty sets beyond the history that is kept, the lowest revisions first.
fn cleanup(world: &World<'_>) -> Vec<Step> {
    let limit = world.deployment.get(k::SPEC).get(k::REVISION_HISTORY_LIMIT).opt_i64();
    let Some(limit) = limit.filter(|l| *l != i64::from(i32::MAX)) else { return Vec::new() };
    let mut old = world.old_sets();
    old.retain(|i| !objects::is_deleting(world.sets[*i]));
    old.sort_by_key(|i| revision(world.sets[*i]));
    let excess = old.len().saturating_sub(usize::try_from(limit).unwrap_or(0));
    let empty = |i: &usize| {
        let (set, status) = (world.sets[*i], world.sets[*i].get(k::STATUS));
        let seen = status.get(k::OBSERVED_GENERATION).i64() >= set.get(k::METADATA).get(k::GENERATION).i64();
        size(set) == 0 && status.get(k::REPLICAS).i64() == 0 && seen
    };
    old.into_iter().take(excess).filter(empty).map(Step::Delete).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn deployment(replicas: i64, image: &str) -> Doc {
        doc!({ "metadata": { "name": "web", "namespace": "ns", "uid": "d" }, "spec": { "replicas": replicas,
            "selector": { "matchLabels": { "app": "web" } },
            "strategy": { "type": "RollingUpdate", "rollingUpdate": { "maxSurge": "25%", "maxUnavailable": "25%" } },
            "revisionHistoryLimit": 1,
            "template": { "metadata": { "labels": { "app": "web" } }, "spec": { "containers": [{ "image": image }] } } } })
    }

    /// A set as the controller made it, with these numbers of wanted and available pods.
    fn set(d: &Doc, replicas: i64, available: i64, revision: i64) -> Doc {
        let world = World { deployment: d.root(), sets: vec![], running: vec![], now: now() };
        let Step::Create(mut set) = create(&world) else { panic!("a set is created") };
        set.edit().at(k::SPEC).set(k::REPLICAS, replicas);
        set.edit().set(k::STATUS, doc!({ "replicas": replicas, "availableReplicas": available }));
        let mut meta = set.edit().at(k::METADATA);
        meta.set(k::CREATION_TIMESTAMP, format!("2026-01-01T00:00:0{revision}Z"));
        meta.at(k::ANNOTATIONS).set(REVISION, revision.to_string());
        set
    }

    fn now() -> Timestamp {
        "2026-01-01T00:01:00Z".parse().expect("a time")
    }

    fn show(d: &Doc, sets: &[&Doc]) -> String {
        let roots: Vec<_> = sets.iter().map(|s| s.root()).collect();
        let world = World { deployment: d.root(), running: vec![0; roots.len()], sets: roots, now: now() };
        let one = |step: &Step| match step {
            Step::Create(set) => format!("create {}", size(set.root())),
            Step::Update { at, set } => format!("{at} to {}", size(set.root())),
            Step::Delete(at) => format!("delete {at}"),
        };
        plan(&world).steps.iter().map(one).collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn a_rolling_update_keeps_within_its_bounds() {
        let (v1, v2) = (deployment(4, "v1"), deployment(4, "v2"));
        assert_eq!(show(&v1, &[]), "create 4");
        let old = set(&v1, 4, 4, 1);
        assert_eq!(show(&v1, &[&old]), "", "all is as it should be");
        assert_eq!(show(&v2, &[&old]), "create 1", "a surge of one");
        assert_eq!(show(&v2, &[&old, &set(&v2, 1, 0, 2)]), "0 to 3", "one may be missing");
        assert_eq!(show(&v2, &[&set(&v1, 3, 3, 1), &set(&v2, 1, 0, 2)]), "1 to 2");
        assert_eq!(show(&v2, &[&set(&v1, 3, 3, 1), &set(&v2, 2, 0, 2)]), "", "too few are available");
        assert_eq!(show(&v2, &[&set(&v1, 3, 3, 1), &set(&v2, 2, 2, 2)]), "0 to 1");
        assert_eq!(
            show(&v2, &[&set(&v1, 3, 1, 1), &set(&v2, 2, 1, 2)]),
            "0 to 2",
            "one that is of no use goes first"
        );
        assert_eq!(show(&v2, &[&set(&v1, 0, 0, 1), &set(&v2, 4, 4, 2)]), "");
    }

    #[test]
    fn going_back_reuses_the_old_set_under_the_next_revision() {
        let (v1, v2) = (deployment(2, "v1"), deployment(2, "v2"));
        let (first, second) = (set(&v1, 0, 0, 1), set(&v2, 2, 2, 2));
        let world = World {
            deployment: v1.root(),
            sets: vec![first.root(), second.root()],
            running: vec![0, 2],
            now: now(),
        };
        let made = plan(&world);
        assert_eq!(made.revision.as_deref(), Some("3"));
        let Step::Update { at: 0, set } = &made.steps[0] else { panic!("{:?}", made.steps) };
        assert_eq!(objects::annotation(set.root(), REVISION), "3");
        assert_eq!(objects::annotation(set.root(), REVISION_HISTORY), "1");
    }

    #[test]
    fn scaling_in_the_middle_of_a_rollout_is_shared() {
        let (v1, v2) = (deployment(10, "v1"), deployment(10, "v2"));
        let (mut old, mut new) = (set(&v1, 8, 8, 1), set(&v2, 5, 4, 2));
        for s in [&mut old, &mut new] {
            s.edit().at(k::METADATA).at(k::ANNOTATIONS).set(DESIRED, "10").set(MAX, "13");
        }
        let bigger = deployment(20, "v2");
        assert_eq!(show(&bigger, &[&old, &new]), "0 to 15, 1 to 10");
        let only = set(&v2, 10, 10, 2);
        assert_eq!(show(&deployment(3, "v2"), &[&only]), "0 to 3");
    }

    #[test]
    fn recreate_waits_for_the_old_pods_to_end() {
        let recreate = |image| {
            let mut d = deployment(3, image);
            d.edit().at(k::SPEC).set(k::STRATEGY, doc!({ "type": "Recreate" }));
            d
        };
        let (v1, v2) = (recreate("v1"), recreate("v2"));
        assert_eq!(show(&v2, &[&set(&v1, 3, 3, 1)]), "0 to 0");
        let empty = set(&v1, 0, 0, 1);
        let mut world =
            World { deployment: v2.root(), sets: vec![empty.root()], running: vec![1], now: now() };
        assert!(plan(&world).steps.is_empty());
        world.running = vec![0];
        assert!(matches!(plan(&world).steps.as_slice(), [Step::Create(_)]));
    }

    #[test]
    fn history_beyond_the_limit_goes() {
        let d = deployment(1, "v4");
        let (one, two) = (set(&deployment(1, "v1"), 0, 0, 1), set(&deployment(1, "v2"), 0, 0, 2));
        let mut new = set(&d, 1, 1, 3);
        new.edit().at(k::STATUS).set(k::READY_REPLICAS, 1i64);
        assert_eq!(show(&d, &[&one, &two, &new]), "delete 0");
    }
}
