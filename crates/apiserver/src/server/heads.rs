//! How long a client may take for the head of its next request, without a timer per request.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use base::time::{Alarm, Instant};
use hyper::rt::{Sleep, Timer};

/// The timer of one connection. hyper asks for a new sleep with every request and hardly any comes to its end, but
/// each would take a lock that all timers of the process share: here they have one alarm, which is set anew when it
/// rings too early.
#[derive(Clone)]
pub(super) struct Heads(Arc<Mutex<Alarm>>);

impl Heads {
    /// For sleeps of about so long.
    pub(super) fn new(usual: Duration) -> Heads {
        Heads(Arc::new(Mutex::new(Alarm::at(base::time::instant() + usual))))
    }
}

impl Timer for Heads {
    fn sleep(&self, duration: Duration) -> Pin<Box<dyn Sleep>> {
        self.sleep_until(self.now() + duration)
    }

    fn sleep_until(&self, deadline: std::time::Instant) -> Pin<Box<dyn Sleep>> {
        Box::pin(Head { alarm: Arc::clone(&self.0), until: deadline.into() })
    }

    fn now(&self) -> std::time::Instant {
        base::time::instant().into()
    }
}

struct Head {
    alarm: Arc<Mutex<Alarm>>,
    until: Instant,
}

impl Sleep for Head {}

impl Future for Head {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut alarm = self.alarm.lock().unwrap_or_else(PoisonError::into_inner);
        if alarm.due() > self.until {
            alarm.set(self.until);
        }
        while alarm.poll(cx).is_ready() {
            if alarm.due() >= self.until {
                return Poll::Ready(());
            }
            alarm.set(self.until);
        }
        Poll::Pending
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sleeps_end_when_they_should_and_not_when_the_alarm_was_set() {
        base::sim::run(1, async {
            let seconds = Duration::from_secs;
            let heads = Heads::new(seconds(30));
            let began = base::time::instant();
            base::time::sleep(seconds(20)).await;
            drop(heads.sleep(seconds(30)));
            for (sleep, end) in [(30, 50), (30, 80), (1, 81), (40, 121)] {
                heads.sleep(seconds(sleep)).await;
                assert_eq!(began.elapsed().as_secs(), end, "after {sleep}");
            }
        });
    }
}
