// SPDX-License-Identifier: GPL-2.0

//! The guest uses the function.

use crate::{
    chain::Chain,
    failure::{ensure, Context, Failure},
    host,
    smc::{self, Mode, Side},
    Outcome, Step,
};

pub(crate) const STEPS: &[Step] = &[
    Step {
        name: "the guest's own ism driver probes the function",
        story: "The function is bound to zpci-vfio-pci, and a Linux guest starts.",
        run: probes,
    },
    Step {
        name: "SMC-D between guest and host: every byte arrives, both ways",
        story: "A program in the guest connects to one on the host (AF_SMC), and both send.",
        run: exchange,
    },
    Step {
        name: "interrupts of the function arrive in the guest",
        story: "Once more, with a look at the interrupts of both functions.",
        run: interrupts,
    },
];

/// The identity of the guest's function, which QEMU gave it on the machine below.
const GID: &str = "00000000-0000-0020-0000-000000000000";

fn probes(chain: &mut Chain) -> Outcome {
    let devices = chain.guest()?.ask("devices 1")?;
    ensure(devices == GID, || format!("it has '{devices}'"))?;
    Ok(format!(
        "The guest's ism driver has probed it: GID {devices}"
    ))
}

pub(crate) fn exchange(chain: &mut Chain) -> Outcome {
    let guest = chain.guest()?;
    guest.tell("exchange")?;
    let mut stream = smc::accept(&guest.smc).context("accepting an SMC connection")?;
    let bytes = smc::exchange(&mut stream, Side::Server).context("SMC-D")?;
    let mode = smc::mode(&stream).context("smc_diag")?;
    let answer = guest.answer("exchange")?;
    ensure(mode == Mode::SmcD, || format!("the host says {mode}"))?;
    ensure(answer == format!("{bytes} {mode}"), || {
        format!("{bytes} bytes by {mode} here, but the guest says {answer}")
    })?;
    Ok(format!(
        "{bytes} bytes each way are right; both kernels say that {mode} carried them"
    ))
}

fn interrupts(chain: &mut Chain) -> Outcome {
    let count = |chain: &mut Chain| {
        let guest = chain.guest()?.ask("interrupts")?;
        let host = host::pci_interrupts().context("/proc/interrupts")?;
        Ok::<_, Failure>((guest.parse::<u64>().unwrap_or(0), host))
    };
    let before = count(chain)?;
    exchange(chain)?;
    let after = count(chain)?;
    let (guest, host) = (after.0 - before.0, after.1 - before.1);
    ensure(guest > 0 && host > 0, || {
        format!("{guest} in the guest, {host} on the host")
    })?;
    Ok(format!(
        "{guest} interrupts in the guest, {host} on the host"
    ))
}
