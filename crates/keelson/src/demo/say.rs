//! What the demo prints: a line for each step with a tick and its time, and below it what was seen.

use std::io::IsTerminal as _;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use crate::steps::colours;

/// How often the sign of life turns.
const TICK: Duration = Duration::from_millis(100);

/// The printer.
pub struct Say {
    step: Option<Step>,
}

struct Step {
    title: String,
    begun: base::time::Instant,
    seen: Vec<String>,
    // On a terminal only.
    sign_of_life: Option<ProgressBar>,
}

impl Say {
    /// Nothing has been said yet.
    pub fn new() -> Say {
        Say { step: None }
    }

    /// A step begins.
    pub fn begin(&mut self, title: impl Into<String>) {
        let title = title.into();
        let sign_of_life = std::io::stderr().is_terminal().then(|| {
            let style = ProgressStyle::with_template("{spinner} {msg}").expect("the template is valid");
            let bar = ProgressBar::new_spinner().with_style(style).with_message(title.clone());
            bar.enable_steady_tick(TICK);
            bar
        });
        self.step = Some(Step { title, begun: base::time::instant(), seen: Vec::new(), sign_of_life });
    }

    /// What the step has shown; printed when it is done.
    pub fn saw(&mut self, line: impl Into<String>) {
        if let Some(step) = &mut self.step {
            step.seen.push(line.into());
        }
    }

    /// The step is done.
    pub fn done(&mut self) {
        self.end("✓", 32);
    }

    /// The step failed, if one was under way.
    pub fn failed(&mut self) {
        self.end("✗", 31);
    }

    /// Lines on their own, with a heading.
    pub fn list(&self, heading: &str, lines: &[String]) {
        println!("  {heading}");
        lines.iter().for_each(|line| println!("      {line}"));
    }

    fn end(&mut self, sign: &str, colour: u8) {
        let Some(step) = self.step.take() else { return };
        if let Some(bar) = step.sign_of_life {
            bar.finish_and_clear();
        }
        let took = step.begun.elapsed().as_millis();
        if colours() {
            println!("  \x1b[{colour}m{sign}\x1b[0m {:<64} \x1b[2m{took:>6} ms\x1b[0m", step.title);
        } else {
            println!("  {sign} {:<64} {took:>6} ms", step.title);
        }
        step.seen.iter().for_each(|line| println!("      {line}"));
    }
}
