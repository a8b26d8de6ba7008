// SPDX-License-Identifier: GPL-2.0

//! `zpci-io trace` and `zpci-io stats`: watching.

use crate::zpci_io::{bind, ended, run};
use ktap::{test, Outcome, Test};
use rustix::process::{kill_process, Pid, Signal};
use serde_json::Value;
use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
    thread,
    time::{Duration, Instant},
};

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("zpci-io: trace of one function", trace),
        test("zpci-io: stats", stats),
    ]
}

/// Instances of tracefs that the tool has made.
fn instances() -> usize {
    let entries = fs::read_dir("/sys/kernel/tracing/instances");
    let names = entries.expect("tracefs").flatten().map(|e| e.file_name());
    names
        .filter(|name| name.to_string_lossy().starts_with("zpci-io-"))
        .count()
}

fn trace() -> Outcome {
    bind(crate::MEMORY);
    bind(crate::DISK);
    let mut child = Command::new("zpci-io")
        .args(["trace", "10", "--json"])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("zpci-io");
    let end = Instant::now() + Duration::from_secs(20);
    while !enabled() {
        assert!(Instant::now() < end, "the tracepoint is enabled");
        thread::sleep(Duration::from_millis(20));
    }
    // Of another function, which is not asked for; then the one that is.
    run("load 40 0 0 8").done();
    run("load 10 2 0x1008 4").done();
    let mut lines = BufReader::new(child.stdout.take().expect("its output")).lines();
    let line = lines.next().expect("a line").expect("a line");
    let event: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(event["fid"], "00000010", "{event}");
    assert_eq!((&event["insn"], &event["as"]), (&"PCILG".into(), &2.into()));
    assert_eq!((&event["len"], &event["cc"]), (&4.into(), &0.into()));
    assert_eq!(event["offset"], "0x1008");

    let pid = Pid::from_child(&child);
    kill_process(pid, Signal::TERM).expect("a signal");
    let rest: Vec<_> = lines.map_while(Result::ok).collect();
    assert!(rest.is_empty(), "one line for one instruction: {rest:?}");
    ended(child.wait_with_output().expect("zpci-io")).done();
    assert_eq!(instances(), 0, "the trace buffer is given back");
    run("unbind 40").done();
    Ok(())
}

/// Whether some instance has the tracepoint on.
fn enabled() -> bool {
    let entries = fs::read_dir("/sys/kernel/tracing/instances").expect("tracefs");
    entries.flatten().any(|entry| {
        let event = "events/zpci_vfio_pci/zpci_vfio_pci_insn/enable";
        fs::read_to_string(entry.path().join(event)).is_ok_and(|text| text.trim() == "1")
    })
}

fn stats() -> Outcome {
    bind(crate::MEMORY);
    let stats = run("stats 10 --json").json();
    assert_eq!(stats[0]["fid"], "00000010", "{stats}");
    for name in ["waits", "ticks", "longest_wait_ns"] {
        assert!(stats[0][name].is_u64(), "{stats}");
    }
    Ok(())
}
