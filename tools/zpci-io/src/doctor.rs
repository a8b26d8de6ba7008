// SPDX-License-Identifier: GPL-2.0

//! `doctor`: whether this machine has what the region needs, and how to get it.

use crate::{failure::Failure, output::Output};
use serde::Serialize;
use std::{fmt, fs, path::Path};
use vfio_zpci_io::sysfs::{Host, DRIVER};

/// What was found, and what to do about it.
#[derive(Serialize)]
#[serde(rename_all = "lowercase", tag = "verdict")]
enum Finding {
    Ok { what: String },
    Note { what: String, advice: String },
    Missing { what: String, advice: String },
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok { what } => write!(f, "  ok       {what}"),
            Self::Note { what, advice } => write!(f, "  note     {what}\n           {advice}"),
            Self::Missing { what, advice } => write!(f, "  MISSING  {what}\n           {advice}"),
        }
    }
}

fn ok(what: impl Into<String>) -> Finding {
    Finding::Ok { what: what.into() }
}

fn note(what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding::Note {
        what: what.into(),
        advice: advice.into(),
    }
}

fn missing(what: impl Into<String>, advice: impl Into<String>) -> Finding {
    Finding::Missing {
        what: what.into(),
        advice: advice.into(),
    }
}

pub(crate) fn run(host: &Host, out: &mut Output<'_>) -> Result<(), Failure> {
    let mut count = 0;
    let findings = [driver(host), vfio(host), observation(host)];
    for finding in findings
        .into_iter()
        .chain(functions(host)?)
        .chain(spectre(host))
    {
        count += usize::from(matches!(finding, Finding::Missing { .. }));
        out.show(&finding)?;
    }
    match count {
        0 => Ok(()),
        count => Err(Failure::Missing(count)),
    }
}

fn read(path: &Path) -> String {
    let content = fs::read_to_string(path).unwrap_or_default();
    content.trim_end().to_owned()
}

/// The module: loaded, or installed for this kernel.
fn driver(host: &Host) -> Finding {
    if host.path("/sys/bus/pci/drivers").join(DRIVER).exists() {
        return ok(format!("the driver {DRIVER} is loaded"));
    }
    let release = read(&host.path("/proc/sys/kernel/osrelease"));
    let modules = host.path("/lib/modules").join(&release);
    match contains_module(&modules) {
        true => note(
            format!("the module of the driver {DRIVER} is installed, but not loaded"),
            "'zpci-io bind' loads it, as does 'modprobe zpci-vfio-pci'.",
        ),
        false => missing(
            format!("the kernel {release} has no module zpci-vfio-pci"),
            "Install its package, or build it for this kernel, one with CONFIG_RUST.",
        ),
    }
}

/// Whether the module lies somewhere in a directory, compressed or not.
fn contains_module(directory: &Path) -> bool {
    let entries = fs::read_dir(directory).into_iter().flatten().flatten();
    entries.into_iter().any(|entry| {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        let module = name.strip_prefix("zpci-vfio-pci.ko");
        match entry.file_type() {
            // Not along links: one leads to the kernel's source.
            Ok(kind) if kind.is_dir() => contains_module(&entry.path()),
            _ => module.is_some_and(|rest| rest.is_empty() || rest.starts_with('.')),
        }
    })
}

/// The ways to open a function.
fn vfio(host: &Host) -> Finding {
    let iommufd = host.path("/dev/iommu").exists();
    let container = host.path("/dev/vfio/vfio").exists();
    match (iommufd, container) {
        (true, _) => ok("VFIO, by character device and iommufd"),
        (false, true) => note(
            "VFIO by group and container only: there is no /dev/iommu",
            "--group is needed. CONFIG_IOMMUFD and CONFIG_VFIO_DEVICE_CDEV add the other way.",
        ),
        (false, false) => missing(
            "there is neither /dev/iommu nor /dev/vfio/vfio",
            "'modprobe vfio-pci'; the kernel needs CONFIG_VFIO_PCI.",
        ),
    }
}

/// What `stats` and `trace` need.
fn observation(host: &Host) -> Finding {
    let absent: Vec<_> = ["/sys/kernel/debug/tracing", "/sys/kernel/tracing/instances"]
        .into_iter()
        .filter(|path| !host.path(path).exists())
        .collect();
    match absent.is_empty() {
        true => ok("debugfs and tracefs"),
        false => note(
            format!("{} cannot be seen", absent.join(" and ")),
            "'stats' and 'trace' want root, and debugfs and tracefs mounted there.",
        ),
    }
}

/// The functions themselves.
fn functions(host: &Host) -> Result<Vec<Finding>, Failure> {
    let functions = match host.path("/sys/bus/pci/devices").exists() {
        true => host.zpci_functions()?,
        false => Vec::new(),
    };
    if functions.is_empty() {
        return Ok(vec![missing(
            "there are no zPCI functions",
            "They exist on s390x only: assign one to this partition or guest, and switch its slot \
             on (/sys/bus/pci/slots). The kernel's parameter pci=off hides them.",
        )]);
    }
    let unique = |attribute: &str| {
        functions
            .iter()
            .all(|f| f.number(attribute).is_ok_and(|n| n == 1))
    };
    let count = format!("{} zPCI functions", functions.len());
    Ok(vec![match unique("uid_is_unique") {
        true => ok(format!("{count}, whose addresses stay (UID checking)")),
        false => note(
            format!("{count}, whose addresses may be others after a restart (no UID checking)"),
            "Name functions by their function id, in udev rules, too.",
        ),
    }])
}

/// What a kernel with Rust does without.
fn spectre(host: &Host) -> Option<Finding> {
    let path = "/sys/devices/system/cpu/vulnerabilities/spectre_v2";
    let state = read(&host.path(path));
    let vulnerable = state.starts_with("Vulnerable");
    vulnerable.then(|| {
        note(
            format!("Spectre v2: {state}"),
            "A kernel with CONFIG_RUST has no expolines (CONFIG_EXPOLINE=n).",
        )
    })
}

#[cfg(test)]
mod tests {
    use crate::fake::{Fake, ADDRESS, OTHER};
    use std::fs;

    #[test]
    fn nothing_is_missing() {
        let fake = Fake::new();
        fake.write("/dev/iommu", "");
        let (text, result) = fake.run("doctor");
        result.unwrap();
        assert!(
            text.contains("ok       the driver zpci_vfio_pci is loaded"),
            "{text}"
        );
        assert!(
            text.contains("note     2 zPCI functions, whose addresses may"),
            "{text}"
        );
        for address in [ADDRESS, OTHER] {
            fake.write(
                &format!("/sys/bus/pci/devices/{address}/uid_is_unique"),
                "1",
            );
        }
        let (text, _) = fake.run("doctor");
        assert!(text.contains("ok       2 zPCI functions"), "{text}");
    }

    #[test]
    fn module_is_installed() {
        for (file, code) in [
            ("updates/zpci-vfio-pci.ko.xz", 0),
            ("updates/zpci-vfio-pci.ko", 0),
            ("updates/zpci-vfio-pci.konf", 1),
        ] {
            let fake = Fake::new();
            fake.write("/dev/iommu", "");
            fake.write("/proc/sys/kernel/osrelease", "7.3.4");
            fake.write(&format!("/lib/modules/7.3.4/{file}"), "");
            fs::remove_dir_all(fake.host().path("/sys/bus/pci/drivers/zpci_vfio_pci")).unwrap();
            let (_, result) = fake.run("doctor");
            assert_eq!(result.map_or_else(|e| e.code(), |()| 0), code, "{file}");
        }
    }

    #[test]
    fn everything_is_missing() {
        let fake = Fake::new();
        fs::remove_dir_all(fake.host().path("/sys")).unwrap();
        let (text, result) = fake.run("doctor --json");
        assert_eq!(result.unwrap_err().to_string(), "3 missing");
        let verdicts = text
            .lines()
            .filter(|line| line.contains("\"verdict\":\"missing\""));
        assert_eq!(verdicts.count(), 3, "{text}");
    }
}
