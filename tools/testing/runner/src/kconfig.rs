// SPDX-License-Identifier: GPL-2.0

//! Configuration fragments of the kernel and of busybox.

use std::{collections::BTreeMap, fs, path::Path};

use crate::error::{Context, Result};

/// Option name to value; `n` for "is not set".
pub type Options = BTreeMap<String, String>;

/// The options of all fragments, of which later ones win.
pub fn read(fragments: &[impl AsRef<Path>]) -> Result<Options> {
    let mut all = Options::new();
    for path in fragments {
        let path = path.as_ref();
        let text = fs::read_to_string(path).context(format!("reading {}", path.display()))?;
        all.extend(parse(&text));
    }
    Ok(all)
}

fn parse(text: &str) -> Options {
    text.lines()
        .filter_map(|line| {
            let off = line
                .strip_prefix("# ")
                .and_then(|rest| rest.strip_suffix(" is not set"));
            match off {
                Some(name) => Some((name, "n")),
                None => line.split_once('='),
            }
        })
        .filter(|(name, _)| name.starts_with("CONFIG_"))
        .map(|(name, value)| (name.into(), value.into()))
        .collect()
}

/// What was wanted and did not take effect. An option that does not exist is not set.
pub fn refused(wanted: &Options, found: &Options) -> Vec<String> {
    wanted
        .iter()
        .filter(|(name, value)| found.get(*name).map_or("n", String::as_str) != value.as_str())
        .map(|(name, value)| format!("{name}={value}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_option_is_named() {
        let wanted = parse("CONFIG_A=y\n# CONFIG_B is not set\nCONFIG_C=m\n# words\n");
        assert!(refused(&wanted, &parse("CONFIG_A=y\nCONFIG_C=m\n")).is_empty());
        let found = parse("CONFIG_A=y\nCONFIG_B=y\nCONFIG_C=y\n");
        assert_eq!(refused(&wanted, &found), ["CONFIG_B=n", "CONFIG_C=m"]);
        let found = parse("# CONFIG_A is not set\nCONFIG_C=m\n");
        assert_eq!(refused(&wanted, &found), ["CONFIG_A=y"]);
    }

    #[test]
    fn a_later_fragment_wins() {
        let mut all = parse("# CONFIG_A is not set\n");
        all.extend(parse("CONFIG_A=y\n"));
        assert_eq!(all["CONFIG_A"], "y");
    }
}
