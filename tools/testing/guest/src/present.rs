// SPDX-License-Identifier: GPL-2.0

//! Runs the steps, and says what came of them: to machines, and to people.

use crate::{chain::Chain, host, vmm, Failure, Step};
use ktap::{note, Report};
use std::{process::ExitCode, time::Instant};

/// KTAP, and after it what the runner compares with other sources: the instructions that were
/// issued, and what the guest's kernel has said.
pub(crate) fn ktap(steps: Vec<&Step>) -> ExitCode {
    if steps.is_empty() {
        return Report::begin(0).end();
    }
    let mut report = Report::begin(steps.len() + 1);
    let mut chain = Chain::default();
    let mut hangs = false;
    for step in steps {
        let start = Instant::now();
        let outcome = match hangs {
            true => Err(Failure::Wrong("not run: a QEMU hangs".into())),
            false => (step.run)(&mut chain),
        };
        note(&format!("{:.1} s", start.elapsed().as_secs_f32()));
        if outcome.is_err() {
            hangs |= chain.clean_up().is_err();
        }
        report.result(
            step.name,
            match outcome {
                Ok(found) => {
                    note(&found);
                    Ok(Ok(()))
                }
                Err(failure) => Err(failure.to_string()),
            },
        );
    }
    let end = match hangs {
        true => {
            ktap::print_blocked();
            Err("it cannot be killed".to_string())
        }
        false => chain.clean_up().map_err(|error| error.to_string()),
    };
    report.result("no QEMU is left", end.map(Ok));
    let code = report.end();
    evidence().unwrap_or_else(|error| note(&error.to_string()));
    code
}

fn evidence() -> Result<(), Failure> {
    println!("=== instructions");
    for instruction in host::instructions()? {
        println!("{instruction}");
    }
    println!("=== console");
    print!("{}", vmm::console(&vmm::FIRST)?);
    // There only is a second guest if its step was run.
    print!("{}", vmm::console(&vmm::SECOND).unwrap_or_default());
    Ok(())
}

/// A few plain words on each step.
pub(crate) fn demo(steps: Vec<&Step>) -> ExitCode {
    println!(
        "This is the s390x host. It is emulated, and has two ISM functions: one for a guest (by \
         QEMU,\nin this host), the other for the host's own ism driver, and at the end for a second guest.\n"
    );
    let mut chain = Chain::default();
    for (step, number) in steps.iter().zip(1..) {
        let start = Instant::now();
        println!("{number}. {}", step.story);
        let outcome = (step.run)(&mut chain);
        let seconds = start.elapsed().as_secs();
        match outcome {
            Ok(found) => println!("   {found}. ({seconds} s)\n"),
            Err(failure) => {
                println!("   That failed: {failure} ({seconds} s)");
                // There is nothing to be done about a QEMU that does not die.
                let _ = chain.clean_up();
                return ExitCode::FAILURE;
            }
        }
    }
    ExitCode::SUCCESS
}
