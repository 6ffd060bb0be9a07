//! How components tell `up` what they have done, and how `up` tells people.
//!
//! A component writes lines `step <milliseconds> <name>\t<what>` and `ready` to its standard output; whatever
//! else it has to say goes to its log.

use std::io::Write as _;
use std::time::Duration;

/// What a component has said.
#[derive(Debug, PartialEq, Eq)]
pub enum Said {
    /// A step is done.
    Step {
        /// How long after the component's start.
        after: Duration,
        /// Which step.
        name: String,
        /// What is to be known of it.
        what: String,
    },
    /// Everything is done.
    Ready,
}

/// Reads a line of a component.
pub fn parse(line: &str) -> Option<Said> {
    if line == "ready" {
        return Some(Said::Ready);
    }
    let (after, rest) = line.strip_prefix("step ")?.split_once(' ')?;
    let (name, what) = rest.split_once('\t')?;
    Some(Said::Step {
        after: Duration::from_millis(after.parse().ok()?),
        name: name.into(),
        what: what.into(),
    })
}

/// Says that a step is done, `start` being when the component began.
pub fn step(start: base::time::Instant, name: &str, what: &str) {
    say(&format!("step {} {name}\t{what}", start.elapsed().as_millis()));
}

/// Says that everything is done.
pub fn ready() {
    say("ready");
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody listening is no reason to stop: `up` may have been killed, and the component notices that itself.
    if let Err(err) = writeln!(out, "{line}").and_then(|()| out.flush()) {
        tracing::debug!(%err, "nobody listens");
    }
}

/// Prints a step for people.
pub fn show(name: &str, what: &str, took: Duration) {
    let (tick, dim, plain) =
        if colours() { ("\x1b[32m✓\x1b[0m", "\x1b[2m", "\x1b[0m") } else { ("✓", "", "") };
    println!("  {tick} {name:<14} {what:<46} {dim}{:>6} ms{plain}", took.as_millis());
}

/// Whether standard output takes colours.
pub fn colours() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdout()) && std::env::var_os("NO_COLOR").is_none()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_back() {
        let step = Said::Step {
            after: Duration::from_millis(12),
            name: "API server".into(),
            what: "https://x:6443".into(),
        };
        assert_eq!(parse("step 12 API server\thttps://x:6443"), Some(step));
        assert_eq!(parse("ready"), Some(Said::Ready));
        assert_eq!(parse("anything else"), None);
    }
}
