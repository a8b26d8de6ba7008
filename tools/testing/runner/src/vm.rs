// SPDX-License-Identifier: GPL-2.0

//! One boot of the s390x machine: QEMU, the command that runs in it, its output and its end.
//!
//! The command's output comes through a virtio port of its own, so that no kernel message gets in
//! between. tools/testing/init ends it with a marker that only this boot knows, on the same port
//! because only one port keeps its bytes in order, and a report follows.

use std::{
    env, fs,
    io::{self, Read, Write},
    net::Shutdown,
    os::unix::{net::UnixStream, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        mpsc::{self, RecvTimeoutError},
        Arc, Mutex, PoisonError,
    },
    thread,
    time::{Duration, Instant},
};

use rustix::process::{kill_process_group, Pid, Signal};

use crate::{
    cache::{self, Cache, Scratch},
    error::{Context, Error, Result},
    guest::Guest,
    kernel::Flavour,
    progress,
    qemu::{self, Hardware},
};

/// What init writes to the kernel's log before it runs the command.
const COMMAND_BEGINS: &str = "init: running /command\n";

/// How long a machine that has reported may take to power off.
const POWER_OFF: Duration = Duration::from_secs(20);

/// A variable that make may have set to nothing.
pub fn var(name: &str) -> Option<String> {
    env::var(name).ok().filter(|value| !value.is_empty())
}

/// The machine that is emulated. What is not its hardware, the user may change.
pub struct Machine {
    pub hardware: Hardware,
    /// Events of the emulator that go to [`Outcome::trace`].
    pub trace: &'static [&'static str],
    /// What the emulator's monitor is asked after the command, for [`Outcome::answer`].
    pub question: Option<&'static str>,
    pub cpus: String,
    pub memory: String,
    pub qemu_args: Vec<String>,
    pub files: Vec<PathBuf>,
    pub timeout: Duration,
}

impl Machine {
    /// The machine that SMP, MEM, QEMU_ARGS, FILES and TIMEOUT (in seconds) describe, with the
    /// usual hardware.
    pub fn from_env(flavour: Flavour, timeout: &str) -> Result<Self> {
        let memory = if flavour.is_debug() { "2G" } else { "1G" };
        let timeout = var("TIMEOUT").unwrap_or_else(|| timeout.into());
        let timeout = timeout.parse().map_err(|_| {
            Error::new(
                "TIMEOUT",
                format!("'{timeout}' is not a number"),
                "Give whole seconds",
            )
        })?;
        Ok(Self {
            hardware: Hardware::stock(&[qemu::NVME]),
            trace: &[],
            question: None,
            cpus: var("SMP").unwrap_or_else(|| "2".into()),
            memory: var("MEM").unwrap_or_else(|| memory.into()),
            qemu_args: split("QEMU_ARGS", &var("QEMU_ARGS").unwrap_or_default())?,
            files: split("FILES", &var("FILES").unwrap_or_default())?
                .into_iter()
                .map(PathBuf::from)
                .collect(),
            timeout: Duration::from_secs(timeout),
        })
    }

    /// What the machine writes to the virtio port of this name is kept in a file.
    pub fn keep(&mut self, port: &str, file: &Path) {
        self.qemu_args.extend([
            "-chardev".into(),
            format!("file,id={port},path={}", in_option(file)),
            "-device".into(),
            format!("virtio-serial-ccw,id={port}-bus"),
            "-device".into(),
            format!("virtserialport,bus={port}-bus.0,chardev={port},name={port}"),
        ]);
    }

    /// One CPU whose clock counts instructions, however busy this machine is: a nanosecond each.
    pub fn count_instructions(&mut self) {
        self.cpus = "1".into();
        let clock = ["-icount", "shift=0,sleep=off"];
        self.qemu_args.extend(clock.map(String::from));
    }
}

/// A path in one of QEMU's options, where a comma is doubled.
fn in_option(path: &Path) -> String {
    path.display().to_string().replace(',', ",,")
}

/// What came of a boot.
pub struct Outcome {
    /// Everything the kernel said.
    pub console: String,
    /// What it said since the command began.
    pub since_command: String,
    /// What the emulator has traced.
    pub trace: String,
    /// What the emulator's monitor has answered.
    pub answer: String,
    /// How the command ended, unless the machine went away before.
    pub end: std::result::Result<Report, String>,
}

/// What init reports after the command.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub exit: u8,
    pub taint: u64,
    /// Pages pinned by all drivers since boot, and released.
    pub pins: (u64, u64),
    /// What kmemleak says, if it is there.
    pub leaks: Option<Vec<String>>,
}

/// Runs `command` in the machine, its output going to `output` as it comes. With `check` the
/// report has all its parts. A machine that crashed or hung is an outcome, not an error.
pub fn run(
    cache: &Cache,
    guest: &Guest,
    machine: &Machine,
    command: &str,
    check: bool,
    output: &mut dyn Write,
) -> Result<Outcome> {
    let scratch = Scratch::new(cache)?;
    let token = cache::unique();
    let env = format!("TOKEN={token}\nCHECK={}\n", if check { "y" } else { "" });
    let extra = [
        ("command", command.as_bytes()),
        ("boot.env", env.as_bytes()),
    ];
    let initrd = scratch.path("initrd");
    guest.initrd(cache, &initrd, &extra, &machine.files)?;
    let console = scratch.path("console");
    let trace = scratch.path("trace");
    let mut qemu = qemu(guest, machine, &initrd, "loglevel=7");
    qemu.arg("-chardev")
        .arg(format!("file,id=console,path={}", console.display()))
        .args(["-serial", "chardev:console"])
        .args(["-device", "virtio-serial-ccw"])
        // Standard output is our pipe.
        .args(["-chardev", "file,id=output,path=/dev/stdout"])
        .args(["-device", "virtserialport,chardev=output,name=output"])
        // What it starts may have the pipe, too.
        .process_group(0)
        .stdin(Stdio::null())
        .stdout(Stdio::piped());
    for events in machine.trace {
        qemu.args(["-trace", events]).arg("-D").arg(&trace);
    }
    progress::say(&format!(
        "booting (Linux {}, {} kernel)",
        guest.release(),
        guest.kernel.flavour.name()
    ));
    let monitor = Monitor(scratch.path("monitor"));
    qemu.args(monitor.args());
    if machine.question.is_some() {
        // It stays for the question when the machine is off.
        qemu.arg("-no-shutdown");
    }
    let mut qemu = Qemu::spawn(&mut qemu)?;
    let mut pipe = qemu.output()?;
    let watchdog = qemu.watch(machine.timeout, monitor.clone());

    let mut stream = Stream::new(&token);
    let mut answer = Ok(String::new());
    let mut chunk = vec![0; 1 << 16];
    let copied = loop {
        match pipe.read(&mut chunk) {
            Ok(0) => break Ok(()),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => break Err(error),
            Ok(count) => {
                let data = stream.push(&chunk[..count]);
                if let Err(error) = output.write_all(&data).and_then(|()| output.flush()) {
                    break Err(error);
                }
                if stream.is_complete() {
                    if let Some(question) = machine.question {
                        answer = monitor.ask(question);
                        break Ok(());
                    }
                    watchdog.limit(POWER_OFF);
                }
            }
        }
    };
    // QEMU is gone, or has answered, or nobody wants its output.
    kill_group(&qemu.0);
    let stopped = watchdog.stop();
    let status = qemu.wait()?;
    copied.context("passing on the command's output")?;
    let answer = answer.context("asking QEMU's monitor")?;

    let console = fs::read(&console).unwrap_or_default();
    let console = String::from_utf8_lossy(&console).replace('\r', "");
    fs::write(cache.log("console"), &console).context("keeping the console log")?;
    let end = match (stream.report(), stopped) {
        (Some(report), _) => parse_report(report),
        (None, Some(cpus)) => Err(format!(
            "the machine was still busy after {} s (TIMEOUT) and was stopped; its CPUs: {cpus}",
            machine.timeout.as_secs()
        )),
        (None, None) if console.is_empty() => {
            Err(format!("QEMU ended with {status} before the boot"))
        }
        (None, None) => Err("the machine crashed or switched itself off".into()),
    };
    if end.is_err() {
        output
            .write_all(&stream.held)
            .context("passing on the command's output")?;
    }
    let since_command = match console.split_once(COMMAND_BEGINS) {
        Some((_, rest)) => rest.into(),
        None => String::new(),
    };
    // Without an event there is no file.
    let trace = fs::read(&trace).unwrap_or_default();
    Ok(Outcome {
        console,
        since_command,
        trace: String::from_utf8_lossy(&trace).into_owned(),
        answer,
        end,
    })
}

/// The same with a command that has to succeed. Returns what it printed, too.
pub fn succeed(
    cache: &Cache,
    guest: &Guest,
    machine: &Machine,
    command: &str,
) -> Result<(String, Outcome)> {
    const STEP: &str = "running a command in the host";
    let mut output = Vec::new();
    let outcome = run(cache, guest, machine, command, false, &mut output)?;
    match &outcome.end {
        Ok(report) if report.exit == 0 => {}
        Ok(report) => {
            let reason = format!("it ended with code {}", report.exit);
            return Err(Error::new(STEP, reason, ""));
        }
        Err(reason) => return Err(Error::new(STEP, reason.clone(), "")),
    }
    let output = String::from_utf8(output)
        .map_err(io::Error::other)
        .context(STEP)?;
    Ok((output, outcome))
}

/// A shell on the machine's console.
pub fn shell(cache: &Cache, guest: &Guest, machine: &Machine) -> Result<ExitStatus> {
    let scratch = Scratch::new(cache)?;
    let initrd = scratch.path("initrd");
    guest.initrd(cache, &initrd, &[], &machine.files)?;
    let mut qemu = qemu(guest, machine, &initrd, "loglevel=4");
    qemu.args(["-serial", "mon:stdio"]);
    Qemu::spawn(&mut qemu)?.wait()
}

fn qemu(guest: &Guest, machine: &Machine, initrd: &Path, kernel_args: &str) -> Command {
    let options = guest.kernel.flavour.boot_options();
    let kernel_args = format!("console=ttysclp0 panic=-1 {kernel_args} {options}");
    // QEMU does not outlive us, however we end.
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", "--"])
        .arg(&machine.hardware.program)
        .args(["-M", "s390-ccw-virtio", "-accel", "tcg", "-cpu", "max"])
        .args(["-nodefaults", "-nographic", "-no-reboot"])
        .args(["-smp", &machine.cpus, "-m", &machine.memory])
        .args(&machine.hardware.args)
        .arg("-kernel")
        .arg(guest.kernel.image())
        .arg("-initrd")
        .arg(initrd)
        .arg("-append")
        .arg(kernel_args.trim_end())
        .args(&machine.qemu_args);
    qemu
}

/// The QEMU process, shared with the thread that stops it when it takes too long.
struct Qemu(Arc<Mutex<Child>>);

impl Qemu {
    fn spawn(command: &mut Command) -> Result<Self> {
        let child = command.spawn().context("starting QEMU")?;
        Ok(Self(Arc::new(Mutex::new(child))))
    }

    fn output(&mut self) -> Result<impl Read> {
        let output = lock(&self.0).stdout.take();
        output.ok_or_else(|| Error::new("QEMU", "it has no output", ""))
    }

    fn wait(&self) -> Result<ExitStatus> {
        lock(&self.0).wait().context("waiting for QEMU")
    }

    /// Stops it when `limit` is over.
    fn watch(&self, limit: Duration, monitor: Monitor) -> Watchdog {
        let child = Arc::clone(&self.0);
        let (sender, limits) = mpsc::channel();
        let thread = thread::spawn(move || {
            let mut end = Instant::now() + limit;
            loop {
                let left = end.saturating_duration_since(Instant::now());
                match limits.recv_timeout(left) {
                    Ok(sooner) => end = Instant::now() + sooner,
                    Err(RecvTimeoutError::Disconnected) => return None,
                    Err(RecvTimeoutError::Timeout) => {
                        let cpus = monitor.cpus();
                        kill_group(&child);
                        return Some(cpus);
                    }
                }
            }
        });
        Watchdog { sender, thread }
    }
}

/// QEMU's monitor, on a socket.
#[derive(Clone)]
struct Monitor(PathBuf);

impl Monitor {
    /// How long the path of a socket may be.
    const LONGEST: usize = 107;

    /// Without a monitor, if its path would be too long, QEMU works as well.
    fn args(&self) -> Vec<String> {
        if self.0.as_os_str().len() > Self::LONGEST {
            return Vec::new();
        }
        let socket = format!("unix:{},server=on,wait=off", in_option(&self.0));
        vec!["-monitor".into(), socket]
    }

    /// What it answers to a question, and what it says besides.
    fn ask(&self, question: &str) -> io::Result<String> {
        let mut stream = UnixStream::connect(&self.0)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        writeln!(stream, "{question}")?;
        // The answer has no end of its own. So the question has: then QEMU closes the connection.
        stream.shutdown(Shutdown::Write)?;
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer)?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Where the virtual CPUs are, for whoever wonders why the machine hangs.
    fn cpus(&self) -> String {
        let answer = self.ask("info registers -a");
        let answer = answer.unwrap_or_else(|error| format!("PSW unknown: {error}"));
        let words: Vec<_> = answer
            .lines()
            .filter(|line| line.starts_with("PSW"))
            .map(str::trim)
            .collect();
        words.join("; ")
    }
}

fn lock(child: &Mutex<Child>) -> std::sync::MutexGuard<'_, Child> {
    child.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Kills a process that nobody has waited for, and those that it has started.
fn kill_group(child: &Mutex<Child>) {
    let child = lock(child);
    // The only error is that they are gone already.
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    let _ = group.map(|group| kill_process_group(group, Signal::KILL));
}

struct Watchdog {
    sender: mpsc::Sender<Duration>,
    thread: thread::JoinHandle<Option<String>>,
}

impl Watchdog {
    /// From now on, QEMU has this long.
    fn limit(&self, limit: Duration) {
        // The watchdog has already bitten: as good.
        let _ = self.sender.send(limit);
    }

    /// Where the CPUs were if it had to stop QEMU.
    fn stop(self) -> Option<String> {
        drop(self.sender);
        self.thread.join().unwrap_or_default()
    }
}

/// Divides what comes through the port into the command's output and init's report.
struct Stream {
    marker: Vec<u8>,
    /// Not passed on yet because it may be the begin of the marker; after the marker, the report.
    held: Vec<u8>,
    in_report: bool,
}

impl Stream {
    fn new(token: &str) -> Self {
        Self {
            marker: format!("\x1e{token}\n").into_bytes(),
            held: Vec::new(),
            in_report: false,
        }
    }

    /// Takes the next bytes and returns those that are certainly output.
    fn push(&mut self, data: &[u8]) -> Vec<u8> {
        self.held.extend_from_slice(data);
        if self.in_report {
            return Vec::new();
        }
        let size = self.marker.len();
        if let Some(at) = self.held.windows(size).position(|part| part == self.marker) {
            self.in_report = true;
            let report = self.held.split_off(at + size);
            self.held.truncate(at);
            return std::mem::replace(&mut self.held, report);
        }
        let keep = (0..size.min(self.held.len() + 1))
            .rev()
            .find(|&keep| self.held.ends_with(&self.marker[..keep]))
            .unwrap_or(0);
        let rest = self.held.split_off(self.held.len() - keep);
        std::mem::replace(&mut self.held, rest)
    }

    fn is_complete(&self) -> bool {
        self.in_report && (self.held == b"end\n" || self.held.ends_with(b"\nend\n"))
    }

    fn report(&self) -> Option<&[u8]> {
        self.is_complete().then_some(&self.held)
    }
}

fn parse_report(bytes: &[u8]) -> std::result::Result<Report, String> {
    let mut report = Report::default();
    let mut exit = None;
    for line in String::from_utf8_lossy(bytes).lines() {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        let number = || {
            let number = value.trim().parse::<u64>();
            number.map_err(|_| format!("init reported '{line}'"))
        };
        match name {
            "exit" => exit = u8::try_from(number()?).ok(),
            "tainted" => report.taint = number()?,
            "nr_foll_pin_acquired" => report.pins.0 = number()?,
            "nr_foll_pin_released" => report.pins.1 = number()?,
            "kmemleak" => report.leaks = Some(Vec::new()),
            "leak" => report.leaks.get_or_insert_default().push(value.into()),
            "end" => {}
            _ => return Err(format!("init reported '{line}'")),
        }
    }
    report.exit = exit.ok_or("init reported no exit code")?;
    Ok(report)
}

/// One word of the shell.
pub fn quoted(word: &str) -> Result<String> {
    let quoted = shlex::try_quote(word).map_err(io::Error::other);
    Ok(quoted.context(word)?.into_owned())
}

/// Divides a variable into words as a shell does, with quotes and backslashes.
fn split(variable: &str, text: &str) -> Result<Vec<String>> {
    shlex::split(text).ok_or_else(|| {
        Error::new(
            variable,
            "a quote is not closed, or nothing follows a backslash",
            "",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::net::UnixListener;

    /// Feeds `bytes` in pieces of `size` and returns output and report.
    fn feed(bytes: &[u8], size: usize) -> (Vec<u8>, Option<Vec<u8>>) {
        let mut stream = Stream::new("t0k");
        let output = bytes
            .chunks(size)
            .flat_map(|part| stream.push(part))
            .collect();
        (output, stream.report().map(<[u8]>::to_vec))
    }

    #[test]
    fn what_the_emulator_starts_ends_with_it() {
        let mut command = Command::new("sh");
        command
            .args(["-c", "sleep 1000 & exec sleep 1000"])
            .process_group(0)
            .stdout(Stdio::piped());
        let mut qemu = Qemu::spawn(&mut command).unwrap();
        let mut pipe = qemu.output().unwrap();
        let monitor = Monitor("/nowhere".into());
        let watchdog = qemu.watch(Duration::from_millis(100), monitor);
        assert_eq!(pipe.read(&mut [0]).unwrap(), 0);
        assert!(watchdog.stop().is_some());
        qemu.wait().unwrap();
    }

    #[test]
    fn output_is_exact_however_it_is_cut() {
        let bytes = b"no newline\x1e\x1et0\x1et0k\nexit 7\nend\n";
        for size in 1..=bytes.len() {
            let (output, report) = feed(bytes, size);
            assert_eq!(output, b"no newline\x1e\x1et0", "pieces of {size}");
            assert_eq!(report.unwrap(), b"exit 7\nend\n");
        }
    }

    #[test]
    fn output_without_marker_has_no_report() {
        assert_eq!(feed(b"exit 0\nend\n", 3), (b"exit 0\nend\n".to_vec(), None));
        assert_eq!(feed(b"\x1et0k\nexit 0\nen", 4).1, None);
    }

    #[test]
    fn output_is_not_held_back() {
        assert_eq!(Stream::new("t0k").push(b"prompt> "), b"prompt> ");
    }

    #[test]
    fn reports() {
        let text =
            b"exit 3\nkmemleak\nleak unreferenced object\ntainted 4096\nnr_foll_pin_acquired 5\n\
                     nr_foll_pin_released 4\nend\n";
        let report = parse_report(text).unwrap();
        let leaks = Some(vec!["unreferenced object".to_string()]);
        assert_eq!(
            report,
            Report {
                exit: 3,
                taint: 4096,
                pins: (5, 4),
                leaks
            }
        );
        assert_eq!(parse_report(b"exit 0\nend\n").unwrap(), Report::default());
        assert!(parse_report(b"tainted 0\nend\n").is_err());
        assert!(parse_report(b"exit 300\nend\n").is_err());
        assert!(parse_report(b"exit 0\nsurprise\nend\n").is_err());
    }

    #[test]
    fn monitor() {
        let path = env::temp_dir().join(cache::unique());
        let socket = UnixListener::bind(&path).unwrap();
        let qemu = thread::spawn(move || {
            let mut question = String::new();
            let mut asked = socket.accept().unwrap().0;
            asked.read_to_string(&mut question).unwrap();
            assert_eq!(question, "info registers -a\n");
            let answer = b"(qemu) info\r\n\r\nCPU#0\r\nPSW=1\r\nR0=0\r\n\r\nCPU#1\r\nPSW=2\r\n";
            asked.write_all(answer).unwrap();
        });
        let monitor = Monitor(path.clone());
        assert_eq!(monitor.cpus(), "PSW=1; PSW=2");
        qemu.join().unwrap();
        fs::remove_file(&path).unwrap();
        assert!(monitor.cpus().starts_with("PSW unknown: "));

        let long = Monitor(PathBuf::from("x".repeat(108)));
        assert!(
            long.args().is_empty(),
            "no address of a socket is that long"
        );
        assert_eq!(monitor.args().len(), 2);
    }

    #[test]
    fn a_name_is_a_word_of_the_shell() {
        let name = "the guest's \"other\" $HOME";
        let mut shell = Command::new("sh");
        shell.args(["-c", &format!("printf %s {}", quoted(name).unwrap())]);
        assert_eq!(shell.output().unwrap().stdout, name.as_bytes());
    }

    #[test]
    fn words() {
        let words = |text| split("X", text).unwrap();
        assert_eq!(
            words(" a  'b c' \"d \\\" e\"f g\\ h '' "),
            ["a", "b c", "d \" ef", "g h", ""]
        );
        assert_eq!(words(""), [""; 0]);
        assert!(split("X", "a 'b").is_err());
        assert!(split("X", "a\\").is_err());
    }
}
