// SPDX-License-Identifier: GPL-2.0

//! What `scripts/toolchain` asks of a Debian mirror, what it takes from it, and what it says when the
//! mirror fails it: how it begins, against a mirror of our own, which has package lists only.

use std::{
    collections::HashMap,
    env, fs,
    io::{BufRead, BufReader, Write},
    net::{TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Command, Output},
    sync::{
        atomic::{AtomicUsize, Ordering},
        Arc, Mutex,
    },
    thread,
};

const SUITES: [&str; 2] = ["trixie", "trixie-backports"];
const INDICES: [&str; 3] = [
    "main/binary-amd64/Packages",
    "main/binary-s390x/Packages",
    "main/source/Sources",
];
const OWN: &str = "/debian/dists/trixie/main/binary-amd64/Packages";

/// What the mirror does to one path.
#[derive(Clone, Copy, PartialEq)]
enum Fault {
    /// It has no such file.
    Missing,
    /// Its file is not the one that its Release file describes.
    Corrupt,
    /// The first time, the connection ends without an answer.
    ClosedOnce,
    /// The first time, it answers that it is overloaded.
    BusyOnce,
}

/// A mirror on this machine, and what it was asked for.
struct Mirror {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
}

/// The lines of scripts/versions: kind, name and version.
fn pinned() -> Vec<[String; 3]> {
    let text = fs::read_to_string(tree().join("scripts/versions")).unwrap();
    text.lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(|line| {
            let words: Vec<_> = line.split(' ').take(3).map(String::from).collect();
            words.try_into().unwrap()
        })
        .collect()
}

fn tree() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../..")
}

/// An index of packages, as the suite trixie has it.
fn index(name: &str, packages: &[[String; 3]]) -> String {
    // apt takes a suite without packages for none. What a package names and nobody has, it knows
    // without a version.
    let mut text = "Package: nothing\nVersion: 1\nArchitecture: all\nDepends: linux-source-7.3\n\
         Description: x\n\n"
        .to_string();
    for [kind, package, version] in packages {
        text += &match (kind.as_str(), name) {
            ("deb", "main/binary-amd64/Packages") => format!(
                "Package: {package}\nVersion: {version}\nArchitecture: amd64\nFilename: pool/x\n\
                 Size: 1\nSHA256: {0}\nDescription: {package}\n\n",
                "0".repeat(64)
            ),
            ("src", "main/source/Sources") => format!(
                "Package: {package}\nBinary: {package}\nVersion: {version}\nArchitecture: any\n\
                 Directory: pool\nChecksums-Sha256:\n {0} 1 x.dsc\n\n",
                "0".repeat(64)
            ),
            _ => String::new(),
        };
    }
    text
}

impl Mirror {
    fn start(faults: &[(&str, Fault)]) -> Self {
        Self::with(&pinned(), faults)
    }

    fn with(packages: &[[String; 3]], faults: &[(&str, Fault)]) -> Self {
        let mut files = HashMap::new();
        for suite in SUITES {
            let mut release = format!(
                "Suite: {suite}\nCodename: {suite}\nComponents: main\nArchitectures: amd64 s390x\n\
                 Date: {}\nSHA256:\n",
                output(Command::new("date").arg("-Ru"))
            );
            for name in INDICES {
                let own = if suite == "trixie" { packages } else { &[] };
                let text = index(name, own);
                let (digest, size) = (sha256(&text), text.len());
                release += &format!(" {digest} {size} {name}\n");
                files.insert(format!("/debian/dists/{suite}/{name}"), text);
            }
            files.insert(format!("/debian/dists/{suite}/Release"), release);
        }
        for (path, fault) in faults {
            match fault {
                Fault::Missing => files.retain(|name, _| !name.starts_with(path)),
                Fault::Corrupt => *files.get_mut(*path).unwrap() += "cut short",
                Fault::ClosedOnce | Fault::BusyOnce => {}
            }
        }
        let faults: Vec<_> = faults
            .iter()
            .map(|(path, fault)| (path.to_string(), *fault))
            .collect();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&asked);
        thread::spawn(move || {
            for stream in listener.incoming() {
                // A client that has gone away is no concern of ours.
                let _ = answer(stream.unwrap(), &files, &faults, &log);
            }
        });
        Self { port, asked }
    }

    fn uri(&self) -> String {
        format!("http://127.0.0.1:{}/debian", self.port)
    }

    fn times(&self, path: &str) -> usize {
        let asked = self.asked.lock().unwrap();
        asked.iter().filter(|asked| *asked == path).count()
    }
}

fn answer(
    mut stream: TcpStream,
    files: &HashMap<String, String>,
    faults: &[(String, Fault)],
    log: &Mutex<Vec<String>>,
) -> std::io::Result<()> {
    let mut path = String::new();
    for line in BufReader::new(stream.try_clone()?).lines() {
        let line = line?;
        match line.strip_prefix("GET ") {
            Some(rest) => path = rest.split(' ').next().unwrap_or_default().into(),
            None if line.is_empty() => break,
            None => {}
        }
    }
    let first = !log.lock().unwrap().contains(&path);
    log.lock().unwrap().push(path.clone());
    let fault = faults.iter().find(|(name, _)| *name == path);
    let (status, body) = match fault.map(|(_, fault)| fault) {
        Some(Fault::ClosedOnce) if first => return Ok(()),
        Some(Fault::BusyOnce) if first => ("503 Service Unavailable", ""),
        _ => match files.get(&path) {
            Some(text) => ("200 OK", text.as_str()),
            None => ("404 Not Found", ""),
        },
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

fn output(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}");
    String::from_utf8(output.stdout).unwrap().trim().into()
}

fn sha256(text: &str) -> String {
    let path = scratch();
    fs::write(&path, text).unwrap();
    let line = output(Command::new("sha256sum").arg(&path));
    fs::remove_file(path).unwrap();
    line.split(' ').next().unwrap().into()
}

fn scratch() -> PathBuf {
    static COUNT: AtomicUsize = AtomicUsize::new(0);
    let number = COUNT.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("setup-test-{}-{number}", std::process::id()))
}

/// How the set-up begins on a machine whose apt has these sources, and has never fetched a package
/// list.
fn versions(sources: &str, mirror: Option<&str>) -> Output {
    toolchain(&["versions"], sources, mirror)
}

/// The same for another command.
fn toolchain(command: &[&str], sources: &str, mirror: Option<&str>) -> Output {
    let dir = scratch();
    fs::create_dir_all(dir.join("lists/partial")).unwrap();
    let path = |name: &str| dir.join(name).display().to_string();
    fs::write(path("sources.list"), sources).unwrap();
    fs::write(
        path("apt.conf"),
        format!(
            "Dir::Etc::sourcelist \"{}\";\nDir::Etc::sourceparts \"/dev/null\";\n\
             Dir::State::lists \"{}\";\nAPT::Architecture \"amd64\";\n\
             Acquire::AllowInsecureRepositories \"true\";\nAcquire::Retries::Delay \"false\";\n",
            path("sources.list"),
            path("lists"),
        ),
    )
    .unwrap();
    let output = Command::new(tree().join("scripts/toolchain"))
        .args(command)
        .env("APT_CONFIG", path("apt.conf"))
        .env("ZPCI_CACHE", path("cache"))
        .env("ZPCI_MIRROR", mirror.unwrap_or_default())
        .env("no_proxy", "127.0.0.1")
        .output()
        .unwrap();
    let left = fs::read_dir(path("cache")).map_or(0, Iterator::count);
    assert_eq!(left, 0, "it has left something in the cache");
    fs::remove_dir_all(dir).unwrap();
    output
}

fn sources(mirror: &Mirror) -> String {
    format!("deb {} bookworm main\n", mirror.uri())
}

#[track_caller]
fn succeeds(output: &Output) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
}

/// It fails, and says these words.
#[track_caller]
fn fails(output: &Output, words: &[&str]) {
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success(), "{said}");
    for words in words {
        assert!(said.contains(words), "'{words}' is not in:\n{said}");
    }
    // The reason comes first, and it is one: no log with it.
    assert!(said.lines().count() <= 5, "{said}");
}

#[test]
fn no_foreign_index_is_asked_for() {
    for fault in [Fault::Missing, Fault::Corrupt] {
        let mirror = Mirror::start(&[("/debian/dists/trixie/main/binary-s390x/Packages", fault)]);
        succeeds(&versions(&sources(&mirror), None));
        assert_eq!(mirror.times(OWN), 1);
        let asked = mirror.asked.lock().unwrap();
        let foreign = asked.iter().find(|path| {
            let (_, rest) = path.split_once("/binary-").unwrap_or_default();
            !["", "amd64", "all"].contains(&rest.split('/').next().unwrap())
        });
        assert_eq!(foreign, None);
    }
}

#[test]
fn a_passing_fault_is_tried_again() {
    for fault in [Fault::ClosedOnce, Fault::BusyOnce] {
        let mirror = Mirror::start(&[(OWN, fault)]);
        succeeds(&versions(&sources(&mirror), None));
        assert_eq!(mirror.times(OWN), 2);
    }
}

#[test]
fn a_broken_index_is_named() {
    let mirror = Mirror::start(&[(OWN, Fault::Corrupt)]);
    fails(
        &versions(&sources(&mirror), None),
        &[
            &format!("the index http://127.0.0.1:{}{OWN}", mirror.port),
            "is broken: File has unexpected size",
            "This is the mirror, not your machine",
            "ZPCI_MIRROR=",
        ],
    );
}

#[test]
fn a_partial_mirror_is_named() {
    for path in ["/debian/dists/trixie-backports/", OWN] {
        let mirror = Mirror::start(&[(path, Fault::Missing)]);
        fails(
            &versions(&sources(&mirror), None),
            &["the mirror has no http://127.0.0.1", path, "ZPCI_MIRROR="],
        );
    }
}

#[test]
fn a_mirror_out_of_reach_is_named() {
    // A port that was free a moment ago.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let uri = format!("http://{}/debian", listener.local_addr().unwrap());
    drop(listener);
    fails(
        &versions(&format!("deb {uri} trixie main\n"), None),
        &["the mirror cannot be reached: ", &uri, "apt-get update"],
    );
}

#[test]
fn the_mirror_is_this_machines_or_the_named_one() {
    let mirror = Mirror::start(&[]);
    let other = "deb http://127.0.0.1:9/elsewhere nodistro main\n";
    succeeds(&versions(&format!("{other}{}", sources(&mirror)), None));
    succeeds(&versions(other, Some(&mirror.uri())));
    succeeds(&versions(other, Some(&format!("{}/", mirror.uri()))));
    fails(
        &versions(other, None),
        &["this machine's apt names no Debian archive", "ZPCI_MIRROR="],
    );
}

#[test]
fn what_is_pinned_is_taken() {
    let mirror = Mirror::start(&[]);
    let output = versions(&sources(&mirror), None);
    succeeds(&output);
    // Another kernel or QEMU is not a part of the root.
    let of_root = pinned()
        .into_iter()
        .filter(|[kind, ..]| kind != "kernel" && kind != "newer");
    let taken: Vec<_> = of_root.map(|pin| pin.join(" ")).collect();
    let printed = String::from_utf8(output.stdout).unwrap();
    assert_eq!(printed.lines().collect::<Vec<_>>(), taken);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(!said.contains("is taken"), "{said}");
}

/// What the set-up takes of a package if the mirror has these versions of it, or of another one.
fn taken_of(package: &str, there: &[(&str, &str)]) -> Output {
    let mut packages = pinned();
    let at = packages.iter().position(|pin| pin[1] == package).unwrap();
    let [kind, ..] = packages.remove(at);
    for (name, version) in there {
        packages.push([kind.clone(), name.to_string(), version.to_string()]);
    }
    let mirror = Mirror::with(&packages, &[]);
    versions(&sources(&mirror), None)
}

#[test]
fn what_is_gone_is_replaced_and_named() {
    for (package, there, taken) in [
        // The newest of the series, not the newest of all.
        (
            "rustc",
            vec!["1.96.0+dfsg1-1", "1.96.9+dfsg1-1", "1.99.0+dfsg1-1"],
            1,
        ),
        (
            "qemu",
            vec!["1:10.0.8+ds-0", "1:10.0.20+ds-0", "1:11.1.3+ds-1"],
            1,
        ),
        // None of the series: the newest.
        ("zlib", vec!["1:1.4.1-1", "1:1.5.0-1"], 1),
        ("bindgen", vec!["0.72.0-1", "0.72.1-1"], 1),
    ] {
        let named: Vec<_> = there.iter().map(|version| (package, *version)).collect();
        let output = taken_of(package, &named);
        succeeds(&output);
        let said = String::from_utf8_lossy(&output.stderr);
        let notice = format!("{package}: the mirror has no ");
        assert!(said.contains(&notice), "{said}");
        let printed = String::from_utf8_lossy(&output.stdout);
        let line = format!("{package} {}\n", there[taken]);
        assert!(printed.contains(&line), "{printed}");
    }
}

#[test]
fn a_kernel_of_another_series_is_another_package() {
    let there = [
        ("linux-source-7.2", "7.2.9-1"),
        ("linux-source-7.10", "7.10.1-1"),
    ];
    let output = taken_of("linux-source-7.3", &there);
    succeeds(&output);
    let printed = String::from_utf8_lossy(&output.stdout);
    assert!(
        printed.contains("deb linux-source-7.10 7.10.1-1\n"),
        "{printed}"
    );
}

#[test]
fn what_is_not_there_at_all_is_named() {
    let output = taken_of("busybox", &[]);
    assert!(!output.status.success());
    let output = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.contains("no package busybox in any version"),
        "{output}"
    );
}

#[test]
fn a_qemu_that_is_not_there_is_named() {
    let mirror = Mirror::start(&[]);
    fails(
        &toolchain(&["qemu", "99.1"], &sources(&mirror), None),
        &["the mirror has no source of QEMU 99.1"],
    );
}

#[test]
fn a_kernel_that_is_not_there_is_named() {
    let mirror = Mirror::start(&[]);
    fails(
        &toolchain(&["kernel", "7.99"], &sources(&mirror), None),
        &["the mirror has no package linux-source-7.99 in any version"],
    );
}
