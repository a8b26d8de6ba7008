// SPDX-License-Identifier: GPL-2.0

//! Child processes: this program again, in another role. They are told what to do and answer by
//! lines of text. A child that does not answer in time hangs, and the test fails.
//!
//! A child is another process in every respect: it inherits no file but its pipes.

use booted::end_of;
use rustix::process::{pidfd_getfd, pidfd_open, Pid, PidfdFlags, PidfdGetfdFlags};
use std::{
    fs,
    io::{BufRead, BufReader, Write},
    os::fd::OwnedFd,
    process::{ChildStdin, Command, ExitStatus, Stdio},
    sync::{
        mpsc::{channel, Receiver, RecvTimeoutError},
        Mutex, PoisonError,
    },
    thread,
    time::{Duration, Instant},
};

/// Long enough for everything that does not hang, on a debug kernel under emulation.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

/// Children that have been killed and not been waited for.
static KILLED: Mutex<Vec<std::process::Child>> = Mutex::new(Vec::new());

pub(crate) struct Child {
    name: String,
    /// There until it is dropped.
    process: Option<std::process::Child>,
    input: ChildStdin,
    output: Receiver<String>,
    /// Lines that came while another was waited for.
    kept: Vec<String>,
}

impl Child {
    /// Starts this program with these arguments.
    pub fn start(arguments: &[&str]) -> Self {
        let mut process = Command::new("/proc/self/exe")
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("starting a child");
        let input = process.stdin.take().expect("the child's input");
        let output = process.stdout.take().expect("the child's output");
        let (sender, receiver) = channel();
        thread::spawn(move || {
            let lines = BufReader::new(output).lines();
            lines
                .map_while(Result::ok)
                .all(|line| sender.send(line).is_ok())
        });
        Self {
            name: arguments.join(" "),
            process: Some(process),
            input,
            output: receiver,
            kept: Vec::new(),
        }
    }

    /// Tells it something.
    pub fn tell(&mut self, line: &str) {
        // Should it be gone, it will be missed when it does not answer.
        let _ = writeln!(self.input, "{line}");
    }

    /// Waits for a line that begins with `word`, and returns the rest of it.
    #[track_caller]
    pub fn hear(&mut self, word: &str, limit: Duration) -> String {
        let rest = |line: &str| {
            let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
            (first == word).then(|| rest.to_owned())
        };
        if let Some(at) = self.kept.iter().position(|line| rest(line).is_some()) {
            return rest(&self.kept.remove(at)).unwrap_or_default();
        }
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(line) => match rest(&line) {
                    Some(rest) => return rest,
                    None => self.kept.push(line),
                },
                Err(RecvTimeoutError::Disconnected) => {
                    panic!("'{}' ended before it said '{word}'", self.name)
                }
                Err(RecvTimeoutError::Timeout) => self.hangs(&format!("say '{word}'"), limit),
            }
        }
    }

    /// Waits for its end.
    #[track_caller]
    pub fn end(&mut self, limit: Duration) -> ExitStatus {
        let process = self.process.as_mut().expect("it is there");
        match wait(process, limit) {
            Some(status) => status,
            None => self.hangs("end", limit),
        }
    }

    /// Whether it has not ended yet.
    pub fn is_running(&mut self) -> bool {
        let process = self.process.as_mut().expect("it is there");
        matches!(process.try_wait(), Ok(None))
    }

    /// A file that it has open, by the start of its name.
    pub fn file(&self, start: &str) -> OwnedFd {
        let process = self.process.as_ref().expect("it is there");
        let files = fs::read_dir(format!("/proc/{}/fd", process.id())).expect("its files");
        let number = files
            .filter_map(Result::ok)
            .find(|file| {
                fs::read_link(file.path())
                    .is_ok_and(|name| name.to_str().is_some_and(|name| name.starts_with(start)))
            })
            .and_then(|file| file.file_name().to_str()?.parse().ok())
            .unwrap_or_else(|| panic!("'{}' has no {start}", self.name));
        let process = pidfd_open(Pid::from_child(process), PidfdFlags::empty()).expect("a pidfd");
        pidfd_getfd(process, number, PidfdGetfdFlags::empty()).expect("its file")
    }

    /// Kills it and returns how long it took to die.
    #[track_caller]
    pub fn kill(&mut self, limit: Duration) -> Duration {
        let process = self.process.as_mut().expect("it is there");
        let start = Instant::now();
        process.kill().expect("SIGKILL");
        self.end(limit);
        start.elapsed()
    }

    #[track_caller]
    fn hangs(&self, what: &str, limit: Duration) -> ! {
        ktap::print_blocked();
        panic!("'{}' did not {what} within {limit:?}: it hangs", self.name)
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            // It may have ended. Nor does it matter now how long it takes: see `bury`.
            let _ = process.kill();
            killed().push(process);
        }
    }
}

fn killed() -> std::sync::MutexGuard<'static, Vec<std::process::Child>> {
    KILLED.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until all children that were killed are dead: false if one does not die.
pub(crate) fn bury(limit: Duration) -> bool {
    let end = Instant::now() + limit;
    killed().drain(..).fold(true, |all, mut process| {
        let left = end.saturating_duration_since(Instant::now());
        wait(&mut process, left).is_some() && all
    })
}

fn wait(process: &mut std::process::Child, limit: Duration) -> Option<ExitStatus> {
    end_of(process, limit).expect("waiting for a child")
}
