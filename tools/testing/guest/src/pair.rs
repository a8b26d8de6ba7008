// SPDX-License-Identifier: GPL-2.0

//! Two guests, each with a function of the host, which talk to each other.

use crate::{
    chain::Chain,
    failure::ensure,
    host,
    smc::Mode,
    vmm::{Place, Vmm, FIRST, SECOND},
    Outcome, Step,
};
use vfio_zpci_io::sysfs::DRIVER;

pub(crate) const STEPS: &[Step] = &[Step {
    name: "SMC-D between two guests: every byte arrives, both ways",
    story: "The host's own function goes to a second guest. A program in the one guest connects to one in \
            the other.",
    run: exchange,
}];

fn exchange(chain: &mut Chain) -> Outcome {
    chain.guest()?;
    host::function_at(host::OTHER_ADDRESS)?.bind(DRIVER)?;
    let second = chain.second()?;
    // The guests take the network for one; it is the host that passes on what goes from one to the other.
    let set = |path: &str| host::write(&format!("/proc/sys/net/ipv4/{path}"), "1");
    set("ip_forward")?;
    for Place { interface, .. } in [&FIRST, &SECOND] {
        set(&format!("conf/{interface}/proxy_arp"))?;
    }
    second.ask("devices 1")?;
    second.ask("listen")?;
    second.tell("accept")?;
    let here = chain
        .guest()?
        .ask(&format!("exchange {}", SECOND.address))?;
    let there = chain.second()?.answer("accept")?;
    ensure(
        here == there && here.ends_with(&format!(" {}", Mode::SmcD)),
        || format!("one guest says '{here}', the other '{there}'"),
    )?;
    let status = chain.take_second().map(Vmm::end).transpose()?;
    ensure(status.is_some_and(|status| status.success()), || {
        format!("the second QEMU ended with {status:?}")
    })?;
    Ok(format!("Both guests say: {here}"))
}
