// SPDX-License-Identifier: GPL-2.0

//! What the user sees while waiting, on standard error: one rewritten line on a terminal, else a
//! line now and then.

use std::{
    fs::{self, File},
    io::{stderr, IsTerminal, Read, Write},
    panic,
    path::Path,
    process::{Command, ExitStatus, Stdio},
    sync::{Mutex, OnceLock, PoisonError},
    thread::{self, ThreadId},
    time::{Duration, Instant},
};

use crate::error::{Context, Error, Result};

/// How often a line appears where lines cannot be rewritten.
const LINE_EVERY: Duration = Duration::from_secs(20);

/// Goes back to the begin of the line and clears it.
const CLEAR: &str = "\r\x1b[K";

fn elapsed() -> u64 {
    static START: OnceLock<Instant> = OnceLock::new();
    START.get_or_init(Instant::now).elapsed().as_secs()
}

/// One line that stays.
pub fn say(text: &str) {
    let clear = if stderr().is_terminal() { CLEAR } else { "" };
    eprintln!("{clear}[{:3} s] {text}", elapsed());
}

/// Starts the clock of all lines.
pub fn start() {
    elapsed();
}

/// What is done within this time needs no words.
const AT_ONCE: Duration = Duration::from_secs(1);

/// What the steps that run now have last said of themselves, each with its thread.
static NOW: Mutex<Vec<(ThreadId, String)>> = Mutex::new(Vec::new());

/// Puts what the step of this thread says in its place, or takes it away, and returns what all say.
fn now(text: Option<String>) -> String {
    let mut now = NOW.lock().unwrap_or_else(PoisonError::into_inner);
    let thread = thread::current().id();
    let place = now.iter().position(|(step, _)| *step == thread);
    match (place, text) {
        (Some(place), Some(text)) => now[place].1 = text,
        (Some(place), None) => drop(now.remove(place)),
        (None, Some(text)) => now.push((thread, text)),
        (None, None) => {}
    }
    let texts: Vec<_> = now.iter().map(|(_, text)| text.as_str()).collect();
    texts.join(" | ")
}

/// The progress of one step. A thread has one at a time.
pub struct Line {
    what: String,
    start: Instant,
    last: Option<Instant>,
}

impl Line {
    pub fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            start: Instant::now(),
            last: None,
        }
    }

    /// Call it often; it chooses when to show something.
    pub fn update(&mut self, detail: &str) {
        let due = match self.last {
            None => self.start.elapsed() >= AT_ONCE,
            Some(last) => stderr().is_terminal() || last.elapsed() >= LINE_EVERY,
        };
        if !due {
            return;
        }
        self.last = Some(Instant::now());
        let text = format!("{}: {detail}", self.what);
        if stderr().is_terminal() {
            eprint!("{CLEAR}[{:3} s] {}", elapsed(), now(Some(text)));
            let _ = stderr().flush();
        } else {
            say(&text);
        }
    }
}

impl Drop for Line {
    fn drop(&mut self) {
        now(None);
        // A line that was rewritten becomes one that stays.
        if self.last.is_some() && stderr().is_terminal() {
            say(&self.what);
        }
    }
}

/// Makes two things at once: no build keeps all processors busy all the time. That one has failed is
/// said at once, not when the other is made.
pub fn side_by_side<A: Send, B>(
    one: impl FnOnce() -> Result<A> + Send,
    other: impl FnOnce() -> Result<B>,
) -> Result<(A, B)> {
    fn tell<T>(result: Result<T>) -> Result<T> {
        if let Err(error) = &result {
            say(&error.to_string());
        }
        result
    }
    thread::scope(|scope| {
        let one = scope.spawn(|| tell(one()));
        let other = tell(other());
        let one = one
            .join()
            .unwrap_or_else(|panic| panic::resume_unwind(panic));
        Ok((one?, other?))
    })
}

/// Runs one step of a build with its output in `log`; it must succeed. `detail` sees how many actions
/// the build has begun, and words the progress from it.
pub fn run(
    what: &str,
    command: &mut Command,
    log: &Path,
    detail: impl Fn(usize) -> String,
) -> Result<()> {
    let status = try_run(what, command, log, detail)?;
    if status.success() {
        return Ok(());
    }
    tail(log, 20);
    Err(Error::new(
        what,
        format!(
            "{} failed with {status}; log: {}",
            name(command),
            log.display()
        ),
        "The lines above are its last words; the next start continues from here",
    ))
}

/// The same for a step that may fail.
pub fn try_run(
    what: &str,
    command: &mut Command,
    log: &Path,
    detail: impl Fn(usize) -> String,
) -> Result<ExitStatus> {
    let step = || format!("{what} (log: {})", log.display());
    let output = File::create(log).context(step())?;
    let errors = output.try_clone().context(step())?;
    let mut line = Line::new(what);
    let mut child = command
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(errors)
        .spawn()
        .context(format!("{what}: starting {}", name(command)))?;

    let mut reader = File::open(log).context(step())?;
    let mut text = Vec::new();
    let mut pause = Duration::from_millis(5);
    let status = loop {
        if let Some(status) = child.try_wait().context(step())? {
            break status;
        }
        thread::sleep(pause);
        pause = (pause * 2).min(Duration::from_millis(500));
        reader.read_to_end(&mut text).context(step())?;
        line.update(&detail(actions(&text)));
    };
    Ok(status)
}

/// Counts the lines with which make and cargo ("  CC  file.o") or ninja ("[7/90] Compiling") begin an
/// action. The lines of a warning begin with a number or a sign.
fn actions(log: &[u8]) -> usize {
    let is_action = |line: &&[u8]| match line {
        [b' ', b' ', rest @ ..] => rest
            .trim_ascii_start()
            .first()
            .is_some_and(u8::is_ascii_uppercase),
        [first, ..] => *first == b'[',
        [] => false,
    };
    log.split(|&byte| byte == b'\n').filter(is_action).count()
}

fn name(command: &Command) -> String {
    command.get_program().to_string_lossy().into_owned()
}

/// Shows the last lines of a log file.
pub fn tail(log: &Path, count: usize) {
    let text = fs::read(log).unwrap_or_default();
    show(&last(&String::from_utf8_lossy(&text), count));
}

/// The last lines of a text.
pub fn last(text: &str, count: usize) -> Vec<String> {
    let lines: Vec<_> = text.lines().collect();
    let last = &lines[lines.len().saturating_sub(count)..];
    last.iter().map(|line| line.to_string()).collect()
}

/// Shows lines of a log, set off from our own.
pub fn show(lines: &[String]) {
    for line in lines {
        eprintln!("        | {}", line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_things_are_made_or_the_error_told() {
        let fail = || Err::<(), _>(Error::new("test", "it fails", ""));
        assert_eq!(side_by_side(|| Ok(1), || Ok(2)).unwrap(), (1, 2));
        assert!(side_by_side(fail, || Ok(2)).is_err());
        assert!(side_by_side(|| Ok(1), fail).is_err());
    }

    #[test]
    fn steps_share_a_line() {
        assert_eq!(now(Some("a 1".into())), "a 1");
        assert_eq!(now(Some("a 2".into())), "a 2");
        let both = thread::scope(|scope| {
            let other = scope.spawn(|| (now(Some("b".into())), now(None)));
            other.join().unwrap()
        });
        assert_eq!(both, ("a 2 | b".into(), "a 2".into()));
        assert_eq!(now(None), "");
    }

    #[test]
    fn actions_of_all_build_tools_count() {
        let log = b"make: begins\n  CC  a.o\n  12 | int i;\n     | ^\n  = note: [x]\n\n\
            \x20  Compiling a v0.1\n[1/2] Compiling a.o\n";
        assert_eq!(actions(log), 3);
    }
}
