//! Continuous requests, counted.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use base::backoff::Backoff;
use base::task::Task;

use super::http::{Answer, get};

/// How long one request may take.
const ANSWER_MAX: Duration = Duration::from_secs(5);
/// How many requests are under way at once.
const WORKERS: usize = 4;
/// Each worker rests so long between requests, so as not to take the machine from what is to be shown.
const PACE: Duration = Duration::from_millis(2);
/// Of so many failures the reason is kept.
const REASONS_MAX: usize = 5;

/// What became of requests.
#[derive(Clone, Debug, Default)]
pub struct Tally {
    /// How many were made.
    pub requests: usize,
    /// How many of them failed.
    pub failed: usize,
    /// Why the first of them failed.
    pub reasons: Vec<String>,
    /// How many answers each pod gave.
    pub pods: BTreeMap<String, usize>,
    /// How many answers came from each version.
    pub versions: BTreeMap<String, usize>,
    /// The slowest answer.
    pub slowest: Duration,
}

/// Requests under way until they are stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    workers: Vec<Task<Tally>>,
}

impl Traffic {
    /// Begins to ask `to`.
    pub fn start(to: SocketAddr) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let worker = |_| {
            let stop = stop.clone();
            base::task::spawn(async move {
                let mut tally = Tally::default();
                while !stop.load(Ordering::Relaxed) {
                    tally.ask(to).await;
                    base::time::sleep(PACE).await;
                }
                tally
            })
        };
        let workers = (0..WORKERS).map(worker).collect();
        Traffic { stop, workers }
    }

    /// Ends the requests, none of them in the middle, and counts.
    pub async fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut out = Tally::default();
        for worker in self.workers {
            out.add(worker.await);
        }
        out
    }
}

impl Tally {
    /// Asks once more.
    pub async fn ask(&mut self, to: SocketAddr) {
        let answer = get(to, &to.to_string(), "/", ANSWER_MAX).await;
        self.count(answer);
    }

    /// The answers as `what: number` of each, separated by commas.
    pub fn shares(of: &BTreeMap<String, usize>) -> String {
        let share = |(what, answers): (&String, &usize)| format!("{what}: {answers}");
        of.iter().map(share).collect::<Vec<_>>().join(", ")
    }

    fn count(&mut self, answer: anyhow::Result<Answer>) {
        self.requests += 1;
        let answer = answer.and_then(|a| match parse(&a) {
            Some((pod, version)) => Ok((pod, version, a.took)),
            None => Err(anyhow::anyhow!("{}: {}", a.code, a.body.trim_end())),
        });
        match answer {
            Ok((pod, version, took)) => {
                *self.pods.entry(pod).or_default() += 1;
                *self.versions.entry(version).or_default() += 1;
                self.slowest = self.slowest.max(took);
            }
            Err(err) => {
                self.failed += 1;
                if self.reasons.len() < REASONS_MAX {
                    self.reasons.push(format!("{err:#}"));
                }
            }
        }
    }

    fn add(&mut self, other: Tally) {
        self.requests += other.requests;
        self.failed += other.failed;
        self.reasons.extend(other.reasons);
        self.reasons.truncate(REASONS_MAX);
        for (pod, answers) in other.pods {
            *self.pods.entry(pod).or_default() += answers;
        }
        for (version, answers) in other.versions {
            *self.versions.entry(version).or_default() += answers;
        }
        self.slowest = self.slowest.max(other.slowest);
    }
}

/// The first answer from `to`: what the API server knows reaches the node's packet rules a moment later, and only a
/// packet can tell.
///
/// # Errors
/// The last failure, when there is no good answer within `limit`.
pub async fn first_answer(to: SocketAddr, limit: Duration) -> anyhow::Result<Answer> {
    let until = base::time::instant() + limit;
    let mut wait = Backoff::new(Duration::from_millis(10), Duration::from_millis(500));
    loop {
        match get(to, &to.to_string(), "/", ANSWER_MAX).await {
            Ok(answer) if answer.code == 200 => return Ok(answer),
            Ok(answer) if base::time::instant() >= until => {
                anyhow::bail!("http://{to} answers {}", answer.code)
            }
            Err(err) if base::time::instant() >= until => return Err(err),
            _ => base::time::sleep(wait.next_wait()).await,
        }
    }
}

/// Pod and version of a good answer.
fn parse(answer: &Answer) -> Option<(String, String)> {
    let rest = answer.body.trim_end().strip_prefix("Hello World! from pod ")?;
    let (pod, version) = rest.split_once(", version ")?;
    (answer.code == 200).then(|| (pod.to_owned(), version.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer(code: u16, body: &str) -> anyhow::Result<Answer> {
        Ok(Answer { code, body: body.into(), took: Duration::from_millis(3) })
    }

    #[test]
    fn only_whole_answers_count_as_answers() {
        let mut tally = Tally::default();
        tally.count(answer(200, "Hello World! from pod a, version 1\n"));
        tally.count(answer(200, "Hello World! from pod b, version 2\n"));
        tally.count(answer(200, "Hello World! fr"));
        tally.count(answer(503, "Hello World! from pod a, version 1\n"));
        tally.count(Err(anyhow::anyhow!("refused")));
        let mut sum = Tally::default();
        sum.add(tally.clone());
        sum.add(tally);
        assert_eq!((sum.requests, sum.failed, sum.reasons.len()), (10, 6, REASONS_MAX));
        assert_eq!(Tally::shares(&sum.versions), "1: 2, 2: 2");
        assert_eq!(Tally::shares(&sum.pods), "a: 2, b: 2");
    }
}
