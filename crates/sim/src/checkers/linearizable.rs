//! Linearizable: every acknowledged write took effect between its call and its answer, refused ones never did, those
//! that nobody knows of at most once; reads of the present see all that was known before they began; no update is lost.

use std::collections::{BTreeMap, BTreeSet};

use crate::ledger::{Ledger, Step};
use crate::record::{Attempt, End, Evidence, How, Read, Seen, What};

/// See the module's text.
pub fn linearizable(evidence: &Evidence) -> Vec<String> {
    let ledger = &evidence.ledger;
    let mut found = causes(evidence);
    found.extend(deletions(evidence));
    for attempt in &evidence.attempts {
        let what = format!("{:?} of {}", attempt.what, attempt.key);
        found.extend(done(ledger, attempt).map(|why| format!("{what}: {why}")));
    }
    for read in &evidence.reads {
        found.extend(fresh(ledger, read).map(|why| format!("{:?} read: {why}", read.how)));
    }
    found
}

/// Every change that carries a new token has an attempt that may have made it, and no attempt made two.
fn causes(evidence: &Evidence) -> Vec<String> {
    let by_token: BTreeMap<&str, &Attempt> = evidence.attempts.iter().map(|a| (&*a.token, a)).collect();
    let mut made = BTreeSet::new();
    let mut found = Vec::new();
    for step in evidence.ledger.steps() {
        let (token, revision) = (step.token(), step.revision);
        if token.is_empty() || evidence.ledger.before(step).is_some_and(|old| old.token() == token) {
            continue;
        }
        let why = match by_token.get(token) {
            None => "nobody asked for it".to_owned(),
            Some(attempt) if attempt.key != step.key => format!("it was meant for {}", attempt.key),
            Some(attempt) if revision <= attempt.floor => format!("it was asked for after {}", attempt.floor),
            Some(Attempt { end: End::Refused(why), .. }) => format!("it was refused: {why}"),
            Some(_) if !made.insert(token) => "it was done twice".to_owned(),
            Some(_) => continue,
        };
        found.push(format!("{} at {revision}: {why}", step.key));
    }
    found
}

/// An object that is gone was deleted once, after that was asked for, and one caller was told so.
fn deletions(evidence: &Evidence) -> Vec<String> {
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for attempt in &evidence.attempts {
        let (What::Delete { uid }, End::Gone) = (&attempt.what, &attempt.end) else { continue };
        let gone = |step: &&Step| {
            step.value.is_none() && evidence.ledger.before(step).is_some_and(|old| old.uid() == uid)
        };
        let steps: Vec<u64> = evidence.ledger.of(&attempt.key).filter(gone).map(|s| s.revision).collect();
        let undone = evidence.ledger.of(&attempt.key).any(|s| s.undone.is_some());
        if !undone && (!told.insert(uid) || !matches!(steps[..], [at] if at > attempt.floor)) {
            found.push(format!("{} with {uid} after {} is gone at {steps:?}", attempt.key, attempt.floor));
        }
    }
    found
}

/// What is wrong with how an attempt ended.
fn done(ledger: &Ledger, attempt: &Attempt) -> Option<String> {
    let Attempt { floor, key, token, what, end } = attempt;
    let states = || ledger.from(key, *floor);
    let object = match end {
        End::Done(object) => object,
        End::Refused(why) if why == "AlreadyExists" && states().iter().all(Option::is_none) => {
            return Some(format!("there was none from {floor} on: {why}"));
        }
        End::Refused(why) if why == "NotFound" => {
            let lives = |s: &Option<&Step>| match (s, what) {
                (Some(s), What::Delete { uid }) => s.uid() == uid,
                (s, _) => s.is_some(),
            };
            return states().iter().all(lives).then(|| format!("it was there from {floor} on: {why}"));
        }
        _ => return None,
    };
    let revision = object.revision;
    let Some(step) = ledger.step(key, revision).filter(|step| step.is(object, revision)) else {
        return Some(format!("{revision} is not in the history as it was acknowledged"));
    };
    if revision <= *floor {
        return Some(format!("acknowledged at {revision}, but {floor} was known before"));
    }
    if step.token() != token {
        return Some(format!("the object of {revision} is another's"));
    }
    let old = ledger.before(step);
    match what {
        What::Create if old.is_some() => Some(format!("made at {revision} over another")),
        What::Update { over } if *over > 0 && old.map(|s| s.revision) != Some(*over) => {
            Some(format!("lost an update: at {revision} over {:?}", old.map(|s| s.revision)))
        }
        What::Patch { annotation } => {
            let others = |step: Option<&Step>| {
                let mut all = step.map(Step::annotations).unwrap_or_default();
                all.retain(|key, _| key != "token" && key != annotation);
                all
            };
            let (was, is) = (others(old), others(Some(step)));
            (was != is).then(|| format!("lost an update at {revision}: {was:?} became {is:?}"))
        }
        _ => None,
    }
}

/// What is wrong with what a read saw.
fn fresh(ledger: &Ledger, read: &Read) -> Option<String> {
    let floor = read.floor;
    match &read.seen {
        Seen::List(_, revisions, _) => {
            let at = *revisions.first()?;
            let ok = match read.how {
                How::Fresh => at >= floor,
                How::Cached => true,
                How::NotOlder(than) => at >= than,
                How::Exact(revision) => at == revision,
            };
            (!ok).then(|| format!("a list at {at}, but {floor} was known before"))
        }
        Seen::One(key, object) => {
            let seen = object.as_ref().map(|o| o.revision);
            let shown = |s: &Option<&Step>| match (s, object) {
                (Some(step), Some(object)) => step.is(object, step.revision),
                (None, None) => true,
                _ => false,
            };
            let stale = !ledger.from(key, floor).iter().any(shown);
            stale.then(|| format!("{key} at {seen:?}, but {floor} was known before"))
        }
    }
}
