// SPDX-License-Identifier: GPL-2.0

//! The host takes the function away while the guest uses it, and gives it back.

use crate::{
    agent::Busy,
    chain::{wait_until, Chain},
    failure::{ensure, Context, Failure},
    host,
    smc::{self, Side},
    traffic,
    vmm::{self, Request},
    Outcome, Step,
};
use std::time::Instant;

pub(crate) const STEPS: &[Step] = &[
    Step {
        name: "power-off during SMC-D: the guest gives the function back",
        story: "While both send, the host's administrator switches the function's slot off.",
        run: power_off,
    },
    Step {
        name: "power-on: the same guest uses the function again",
        story: "The slot is switched on, and the function added to the running guest.",
        run: power_on,
    },
];

/// The end, whatever was before.
pub(crate) const END: &[Step] = &[
    Step {
        name: "the guest shuts down, and QEMU ends",
        story: "The guest is shut down.",
        run: shut_down,
    },
    Step {
        name: "no request has failed, and each was one instruction",
        story: "QEMU's list of requests is compared with the driver's list of instructions.",
        run: requests,
    },
];

/// How often all must have been exchanged before the function goes away.
const ROUNDS: usize = 3;

fn power_off(chain: &mut Chain) -> Outcome {
    let guest = chain.guest()?;
    guest.tell("busy")?;
    let stream = smc::accept(&guest.smc).context("accepting an SMC connection")?;
    guest.answer("busy")?;
    let busy = Busy::start(stream, Side::Server);
    wait_until("traffic", || Ok(busy.rounds() >= ROUNDS))?;

    let start = Instant::now();
    let mut switch = host::switch(false)?;
    if let Err(error) = vmm::wait(&mut switch) {
        ktap::print_blocked();
        return Err(Failure::Wrong(format!("the slot is not off: {error}")));
    }
    let time = start.elapsed();
    ensure(!host::has_power()?, || "the slot is still on".into())?;

    let (rounds, error) = busy.end().context("SMC-D")?;
    let guest_end = guest.ask("busy-end")?;
    guest.ask("devices 0")?;
    wait_until("QEMU has let go", || Ok(!guest.has_function()?))?;
    Ok(format!(
        "After {} s the slot is off. Both have seen their connection end (host: {rounds} rounds, \
         {error}; guest: {guest_end})",
        time.as_secs()
    ))
}

fn power_on(chain: &mut Chain) -> Outcome {
    if chain.guest()?.has_function()? {
        power_off(chain)?;
    }
    chain.give_function()?;
    let guest = chain.guest()?;
    guest.add_function()?;
    guest.ask("devices 1")?;
    traffic::exchange(chain)
}

fn shut_down(chain: &mut Chain) -> Outcome {
    chain.guest()?;
    match chain.take_guest() {
        Some(guest) => {
            let status = guest.end()?;
            ensure(status.success(), || format!("QEMU ended with {status}"))?;
            Ok("QEMU has ended, too".into())
        }
        None => Ok(String::new()),
    }
}

fn requests(_: &mut Chain) -> Outcome {
    let requests = vmm::requests(&vmm::FIRST)?;
    let failed = requests.iter().filter(|request| request.result != "0");
    let failed: Vec<_> = failed.map(Request::to_string).collect();
    ensure(failed.is_empty(), || failed.join("\n"))?;

    let instructions = host::instructions()?;
    ensure(!requests.is_empty(), || "there is none".into())?;
    ensure(requests.len() == instructions.len(), || {
        format!(
            "{} requests, {} instructions",
            requests.len(),
            instructions.len()
        )
    })?;
    for (request, instruction) in requests.iter().zip(&instructions) {
        let request = request.to_string();
        ensure(request == *instruction, || {
            format!("request {request}, instruction {instruction}")
        })?;
    }
    Ok(format!(
        "{} requests, {} instructions, none failed",
        requests.len(),
        instructions.len()
    ))
}
