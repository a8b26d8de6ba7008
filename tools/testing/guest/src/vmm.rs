// SPDX-License-Identifier: GPL-2.0

//! QEMU with the guest, as the host sees it: a process, its monitor, and the agent in the guest.

use crate::{
    agent,
    failure::{Context, Failure},
    host::{self, LIMIT},
    smc,
};
use serde_json::{json, Value};
use std::{
    fmt, fs,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    time::Duration,
};

/// What tells one guest from another.
pub(crate) struct Place {
    /// The function that it has.
    function: &'static str,
    /// Of the network, which all guests share with the host: its own address, and where it finds the host.
    pub address: Ipv4Addr,
    host: Ipv4Addr,
    /// The other end of its network, here.
    pub interface: &'static str,
    console: &'static str,
    output: &'static str,
    trace: &'static str,
    monitor: &'static str,
}

/// The guest of all steps but those that take two.
pub(crate) const FIRST: Place = Place {
    function: host::ADDRESS,
    address: Ipv4Addr::new(10, 0, 0, 2),
    host: Ipv4Addr::new(10, 0, 0, 1),
    interface: "tap0",
    console: "/tmp/guest.console",
    output: "/tmp/guest.output",
    trace: "/tmp/guest.trace",
    monitor: "/tmp/guest.monitor",
};

/// Another one, with the function that is the host's as long as there is one guest.
pub(crate) const SECOND: Place = Place {
    function: host::OTHER_ADDRESS,
    address: Ipv4Addr::new(10, 0, 0, 4),
    host: Ipv4Addr::new(10, 0, 0, 3),
    interface: "tap1",
    console: "/tmp/second.console",
    output: "/tmp/second.output",
    trace: "/tmp/second.trace",
    monitor: "/tmp/second.monitor",
};

/// Nested emulation is slow, but not that slow.
const BOOT: Duration = Duration::from_secs(400);

/// The function, for QEMU. The zpci device must come before the other.
const ZPCI: &str = "zpci,id=zpci0,uid=7,fid=7,target=ism0";
const FUNCTION: &str = "vfio-pci,id=ism0";

/// QEMU with everything that a guest needs, and the function.
pub(crate) fn qemu(place: &Place) -> Command {
    let Place {
        function,
        address,
        host,
        interface,
        console,
        output,
        trace,
        monitor,
    } = place;
    let mut qemu = Command::new("/qemu-system-s390x");
    qemu.args(["-L", "/", "-M", "s390-ccw-virtio", "-accel", "tcg"])
        // Time passes as the guest gets on. Else, in emulation within emulation, it would do little
        // but handle the interrupts of its timer.
        .args(["-icount", "shift=3"])
        .args(["-cpu", "max", "-m", "384"])
        .args(["-nodefaults", "-nographic", "-no-reboot"])
        .args(["-kernel", "/bzImage", "-initrd", "/guest.cpio"])
        // A host that is short of time is not a defect of the guest.
        .args([
            "-append",
            &format!(
                "console=ttysclp0 panic=-1 loglevel=7 rcupdate.rcu_cpu_stall_suppress=1 \
                 GUEST_ADDRESS={address} HOST_ADDRESS={host}"
            ),
        ])
        .args(["-chardev", &format!("file,id=console,path={console}")])
        .args(["-serial", "chardev:console", "-device", "virtio-serial-ccw"])
        .args(["-chardev", &format!("file,id=output,path={output}")])
        .args(["-device", "virtserialport,chardev=output,name=output"])
        .args([
            "-netdev",
            &format!("tap,id=net,ifname={interface},script=no,downscript=no"),
        ])
        .args(["-device", "virtio-net-ccw,netdev=net"])
        .args(["-qmp", &format!("unix:{monitor},server=on,wait=off")])
        .args(["-trace", "s390_pci_io*", "-D", trace])
        .args(["-device", ZPCI, "-device"])
        .arg(format!("{FUNCTION},host={function}"))
        .stdin(Stdio::null());
    qemu
}

/// QEMU with a guest that is a program without an operating system, and has two processors.
pub(crate) fn bare(program: &str, console: &str, monitor: &str) -> Command {
    let mut qemu = Command::new("/qemu-system-s390x");
    qemu.args(["-L", "/", "-M", "s390-ccw-virtio", "-accel"])
        .args(["tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "64"])
        .args(["-nodefaults", "-nographic"])
        .args(["-kernel", program, "-device", "sclpconsole,chardev=console"])
        .args(["-chardev", &format!("file,id=console,path={console}")])
        .args(["-qmp", &format!("unix:{monitor},server=on,wait=off")])
        .stdin(Stdio::null());
    qemu
}

pub(crate) struct Vmm {
    place: &'static Place,
    process: Child,
    monitor: Monitor,
    questions: TcpStream,
    answers: BufReader<TcpStream>,
    /// Where the guest's SMC connections come in.
    pub smc: TcpListener,
}

impl Vmm {
    /// Starts the guest and waits until its agent is there.
    pub fn start(place: &'static Place) -> Result<Self, Failure> {
        let step = "starting QEMU";
        let process = qemu(place).spawn().context(step)?;
        let mut starting = Starting::new(process, place.console);
        let Place {
            address,
            host,
            interface,
            ..
        } = place;
        let directory = format!("/sys/class/net/{interface}");
        starting.wait_for("QEMU's network interface", || {
            Ok(Path::new(&directory).exists().then_some(()))
        })?;
        host::run(
            "ip",
            &["addr", "add", &format!("{host}/24"), "dev", interface],
        )?;
        host::run("ip", &["link", "set", interface, "up"])?;
        // Of two guests each is behind its own interface.
        host::run(
            "ip",
            &["route", "add", &format!("{address}/32"), "dev", interface],
        )?;
        let listener = smc::listen(SocketAddrV4::new(*host, agent::PORT), false).context(step)?;
        let smc = smc::listen(SocketAddrV4::new(*host, agent::SMC_PORT), true).context(step)?;
        let monitor = Monitor::connect(place.monitor)?;
        listener.set_nonblocking(true).context(step)?;
        let (questions, _) =
            starting.wait_for("the guest's agent", || match listener.accept() {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
                other => other.map(Some),
            })?;
        questions.set_nonblocking(false).context(step)?;
        questions.set_read_timeout(Some(2 * LIMIT)).context(step)?;
        let answers = BufReader::new(questions.try_clone().context(step)?);
        Ok(Self {
            place,
            process: starting.done(),
            monitor,
            questions,
            answers,
            smc,
        })
    }

    /// Asks the agent, and waits for its answer.
    pub fn ask(&mut self, question: &str) -> Result<String, Failure> {
        self.tell(question)?;
        self.answer(question)
    }

    /// Asks the agent something that takes both sides.
    pub fn tell(&mut self, question: &str) -> Result<(), Failure> {
        let line = format!("{question}\n");
        let step = || format!("asking the guest '{question}'");
        self.questions.write_all(line.as_bytes()).context(step())
    }

    pub fn answer(&mut self, question: &str) -> Result<String, Failure> {
        let mut line = String::new();
        let step = || format!("the guest's answer to '{question}'");
        self.answers.read_line(&mut line).context(step())?;
        match line.trim_end().split_at_checked(2) {
            Some(("ok", answer)) => Ok(answer.trim_start().into()),
            _ => Err(Failure::Wrong(format!("{}: '{}'", step(), line.trim_end()))),
        }
    }

    /// Gives the function to the guest while it runs.
    pub fn add_function(&mut self) -> Result<(), Failure> {
        self.monitor.add(ZPCI)?;
        self.monitor
            .add(&format!("{FUNCTION},host={}", self.place.function))
    }

    /// Whether QEMU still has something of it.
    pub fn has_function(&mut self) -> Result<bool, Failure> {
        Ok(self.monitor.has("ism0")? || self.monitor.has("zpci0")?)
    }

    /// Has the guest shut itself down, and returns how QEMU ended.
    pub fn end(mut self) -> Result<ExitStatus, Failure> {
        self.tell("end")?;
        wait(&mut self.process)
    }

    /// Tries to be rid of a QEMU that may hang.
    pub fn kill(mut self) -> Result<(), Failure> {
        kill(&mut self.process)
    }
}

/// Tries to be rid of a QEMU that may hang.
pub(crate) fn kill(process: &mut Child) -> Result<(), Failure> {
    process.kill().context("killing QEMU")?;
    wait(process).map(|_| ())
}

/// Waits until a process has ended.
pub(crate) fn wait(process: &mut Child) -> Result<ExitStatus, Failure> {
    let status = booted::end_of(process, LIMIT).context("waiting")?;
    status.ok_or_else(|| Failure::Wrong(format!("the process has not ended within {LIMIT:?}")))
}

/// A QEMU that is killed if something else fails.
pub(crate) struct Starting {
    process: Option<Child>,
    /// What its guest says goes to this file.
    console: &'static str,
}

impl Starting {
    pub fn new(process: Child, console: &'static str) -> Self {
        Self {
            process: Some(process),
            console,
        }
    }

    /// Waits for something, as long as QEMU runs.
    pub fn wait_for<T>(
        &mut self,
        what: &str,
        mut look: impl FnMut() -> io::Result<Option<T>>,
    ) -> Result<T, Failure> {
        let process = &mut self.process;
        let waited = host::wait_for(what, BOOT, || {
            if let Some(Some(status)) = process.as_mut().map(Child::try_wait).transpose()? {
                return Err(io::Error::other(format!("QEMU ended with {status}")));
            }
            look()
        });
        // A guest that has not come up says where it is.
        waited.map_err(|error| {
            let console = text(self.console).unwrap_or_default();
            let last: Vec<_> = console.lines().rev().take(20).collect();
            let last: Vec<_> = last.into_iter().rev().collect();
            Failure::Wrong(format!("{error}\n{}", last.join("\n")))
        })
    }

    pub fn done(mut self) -> Child {
        // Nothing takes it before.
        self.process.take().expect("QEMU has been started")
    }
}

impl Drop for Starting {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            // It may have ended itself.
            let _ = process.kill();
            let _ = wait(process);
        }
    }
}

/// QEMU's monitor, in its language for machines.
pub(crate) struct Monitor {
    requests: UnixStream,
    replies: BufReader<UnixStream>,
}

impl Monitor {
    /// The monitor at a socket, which appears as QEMU starts.
    pub fn connect(path: &str) -> Result<Self, Failure> {
        let step = "QEMU's monitor";
        let look = || Ok(UnixStream::connect(path).ok());
        let requests = host::wait_for("connecting", LIMIT, look).context(step)?;
        requests.set_read_timeout(Some(LIMIT)).context(step)?;
        let replies = BufReader::new(requests.try_clone().context(step)?);
        let mut monitor = Self { requests, replies };
        // It greets first.
        monitor.reply().context(step)?;
        monitor.execute("qmp_capabilities")?;
        Ok(monitor)
    }

    /// Executes a command that takes no arguments.
    pub fn execute(&mut self, command: &str) -> Result<Value, Failure> {
        self.call(command, json!({}))
    }

    /// Executes a command, and returns what it returns.
    fn call(&mut self, command: &str, arguments: Value) -> Result<Value, Failure> {
        let request = json!({ "execute": command, "arguments": arguments });
        let step = "QEMU's monitor";
        let line = format!("{request}\n");
        self.requests.write_all(line.as_bytes()).context(step)?;
        loop {
            let mut reply = self.reply().context(step)?;
            if let Some(error) = reply.get("error") {
                return Err(Failure::Wrong(format!("{step}: {command}: {error}")));
            }
            // There are events in between.
            if let Some(value) = reply.get_mut("return") {
                return Ok(value.take());
            }
        }
    }

    /// The next that it says.
    fn reply(&mut self) -> io::Result<Value> {
        let mut line = String::new();
        self.replies.read_line(&mut line)?;
        Ok(serde_json::from_str(&line)?)
    }

    /// Removes a device, or has the guest asked for it.
    pub fn remove(&mut self, id: &str) -> Result<(), Failure> {
        self.call("device_del", json!({ "id": id })).map(drop)
    }

    /// Whether there is a device that was given this name.
    pub fn has(&mut self, id: &str) -> Result<bool, Failure> {
        let peripheral = json!({ "path": "/machine/peripheral" });
        let devices = self.call("qom-list", peripheral)?;
        let mut devices = devices.as_array().into_iter().flatten();
        Ok(devices.any(|device| device["name"] == id))
    }

    /// Adds a device that is described as on the command line.
    fn add(&mut self, device: &str) -> Result<(), Failure> {
        let (driver, properties) = device.split_once(',').unwrap_or((device, ""));
        let mut arguments = json!({ "driver": driver });
        for property in properties.split(',') {
            let (name, value) = property.split_once('=').unwrap_or((property, ""));
            // Numbers are not strings here.
            arguments[name] = value.parse::<u32>().map_or(value.into(), Value::from);
        }
        self.call("device_add", arguments).map(drop)
    }
}

/// A request to the region, as QEMU has traced it.
pub(crate) struct Request {
    operation: &'static str,
    bar: String,
    offset: String,
    len: String,
    pub result: String,
}

/// All requests of the last QEMU there.
pub(crate) fn requests(place: &Place) -> Result<Vec<Request>, Failure> {
    traced(place.trace)
}

/// All requests in a trace of QEMU.
pub(crate) fn traced(path: &str) -> Result<Vec<Request>, Failure> {
    let trace = host::read(path)?;
    Ok(trace.lines().filter_map(Request::parse).collect())
}

/// In the same words as an [instruction](host::instructions).
impl fmt::Display for Request {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            operation,
            bar,
            offset,
            len,
            result,
        } = self;
        write!(
            f,
            "{operation} bar {bar} offset {offset} len {len} result {result}"
        )
    }
}

impl Request {
    /// From "s390_pci_io DEVICE: op 2 bar 0 offset 0x0 len 32 ret 0".
    fn parse(line: &str) -> Option<Self> {
        let (_, rest) = line.split_once("s390_pci_io ")?;
        let words: Vec<_> = rest.split_whitespace().collect();
        let field = |name| {
            let at = words.iter().position(|word| *word == name)?;
            words.get(at + 1).map(|word| word.to_string())
        };
        Some(Self {
            operation: match field("op")?.as_str() {
                "1" => "PCILG",
                "2" => "PCISTB",
                "4" => "PCISTG",
                _ => "?",
            },
            bar: field("bar")?,
            offset: field("offset")?,
            len: field("len")?,
            result: field("ret")?,
        })
    }
}

/// What the kernel of the last guest there has said.
pub(crate) fn console(place: &Place) -> Result<String, Failure> {
    text(place.console)
}

/// What is on a console.
pub(crate) fn text(path: &str) -> Result<String, Failure> {
    let text = fs::read(path).context(path)?;
    Ok(String::from_utf8_lossy(&text).replace('\r', ""))
}
