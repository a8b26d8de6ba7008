// SPDX-License-Identifier: GPL-2.0

//! `stats`: the numbers which the driver has in debugfs.
//!
//! Documentation/ABI/testing/debugfs-zpci-vfio-pci tells what they mean.

use crate::{
    cli::Name,
    failure::{Failure, Refusal},
    find,
    output::Output,
};
use serde::Serialize;
use std::{collections::BTreeMap, fmt, fs, path::Path};
use vfio_zpci_io::{
    sysfs::{Function, Host, DRIVER},
    Error,
};

#[derive(Serialize)]
#[serde(transparent)]
struct Stats(Vec<Numbers>);

/// The numbers of one function, by their names.
#[derive(Serialize)]
struct Numbers {
    fid: String,
    #[serde(flatten)]
    numbers: BTreeMap<String, u64>,
}

impl fmt::Display for Stats {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (function, at) in self.0.iter().zip(0..) {
            let end = if at == 0 { "" } else { "\n" };
            write!(f, "{end}{}", function.fid)?;
            for (name, number) in &function.numbers {
                write!(f, "\n  {name:<16} {number}")?;
            }
        }
        Ok(())
    }
}

pub(crate) fn show(host: &Host, out: &mut Output<'_>, name: Option<Name>) -> Result<(), Failure> {
    let ours = |function: &Function| Ok::<_, Error>(function.driver()?.as_deref() == Some(DRIVER));
    let mut all = Vec::new();
    match name {
        Some(name) => {
            let function = find(host, name)?;
            if !ours(&function)? {
                let driver = function.driver()?;
                let reason = driver.map_or(Refusal::NoDriver, Refusal::OtherDriver);
                return Err(Failure::refused(function.address(), reason));
            }
            all.push(numbers(host, &function)?);
        }
        None => {
            for function in host.zpci_functions()? {
                if ours(&function)? {
                    all.push(numbers(host, &function)?);
                }
            }
        }
    }
    out.show(&Stats(all))
}

fn numbers(host: &Host, function: &Function) -> Result<Numbers, Failure> {
    let fid = format!("{:08x}", function.zpci_fid().unwrap_or_default());
    let directory = host.path(format!("/sys/kernel/debug/zpci-vfio-pci-{fid}"));
    let mut numbers = BTreeMap::new();
    for entry in fs::read_dir(&directory).map_err(file(&directory))? {
        let entry = entry.map_err(file(&directory))?;
        let path = entry.path();
        let content = fs::read_to_string(&path).map_err(file(&path))?;
        let number = content.trim_end().parse().map_err(|_| Error::Content {
            path: path.clone(),
            content: content.trim_end().to_owned(),
        })?;
        numbers.insert(entry.file_name().to_string_lossy().into_owned(), number);
    }
    Ok(Numbers { fid, numbers })
}

/// For `map_err`: the file that failed.
pub(crate) fn file(path: &Path) -> impl FnOnce(std::io::Error) -> Failure {
    let path = path.to_owned();
    move |source| Failure::Function(Error::File { path, source })
}

#[cfg(test)]
mod tests {
    use crate::fake::Fake;

    #[test]
    fn of_one_and_of_all() {
        let fake = Fake::new().bound("zpci_vfio_pci");
        fake.write("/sys/kernel/debug/zpci-vfio-pci-00000010/waits", "7");
        let (text, result) = fake.run("stats");
        result.unwrap();
        assert_eq!(text, "00000010\n  waits            7\n");
        let (text, result) = fake.run("stats 10 --json");
        result.unwrap();
        assert_eq!(text, "[{\"fid\":\"00000010\",\"waits\":7}]\n");
        fake.write("/sys/kernel/debug/zpci-vfio-pci-00000010/waits", "many");
        assert_eq!(fake.run("stats").1.unwrap_err().code(), 1);
    }
}
