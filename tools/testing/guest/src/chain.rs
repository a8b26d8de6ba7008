// SPDX-License-Identifier: GPL-2.0

//! The state that one step leaves to the next.

use crate::{
    buffers,
    failure::Failure,
    host::{self, LIMIT},
    vmm::{self, Vmm},
    waiting::Waiting,
};
use vfio_zpci_io::sysfs::DRIVER;

/// The host, and the guest if it runs.
#[derive(Default)]
pub(crate) struct Chain {
    is_prepared: bool,
    guest: Option<Vmm>,
    second: Option<Vmm>,
    /// A guest without an operating system.
    pub waiting: Option<Waiting>,
}

impl Chain {
    /// The guest. It is started when there is none.
    pub fn guest(&mut self) -> Result<&mut Vmm, Failure> {
        self.prepare()?;
        let guest = match self.guest.take() {
            Some(guest) => guest,
            None => {
                self.give_function()?;
                Vmm::start(&vmm::FIRST)?
            }
        };
        Ok(self.guest.insert(guest))
    }

    /// The guest, if it runs.
    pub fn take_guest(&mut self) -> Option<Vmm> {
        self.guest.take()
    }

    /// The second guest. It is started when there is none; its function is the step's business.
    pub fn second(&mut self) -> Result<&mut Vmm, Failure> {
        let guest = match self.second.take() {
            Some(guest) => guest,
            None => Vmm::start(&vmm::SECOND)?,
        };
        Ok(self.second.insert(guest))
    }

    /// The second guest, if it runs.
    pub fn take_second(&mut self) -> Option<Vmm> {
        self.second.take()
    }

    /// Makes the function ready to be given to a guest.
    pub fn give_function(&mut self) -> Result<(), Failure> {
        if !host::has_power()? {
            vmm::wait(&mut host::switch(true)?)?;
        }
        Ok(host::function()?.bind(DRIVER)?)
    }

    /// Loads what the host's own end of SMC-D needs, and begins to record instructions.
    fn prepare(&mut self) -> Result<(), Failure> {
        if self.is_prepared {
            return Ok(());
        }
        // The host's ism driver shall have only one of the functions, now and after power-on.
        self.give_function()?;
        buffers::keep()?;
        host::run("modprobe", &["-a", "tun", "ism", "smc", "smc_diag"])?;
        host::set_autoprobe(false)?;
        host::run("ip", &["link", "set", "lo", "up"])?;
        host::trace()?;
        self.is_prepared = true;
        Ok(())
    }

    /// After a step that failed: the next one shall find no guest. An error means that QEMU cannot
    /// be killed, and that no step makes sense any more.
    pub fn clean_up(&mut self) -> Result<(), Failure> {
        let waiting = self.waiting.take().map_or(Ok(()), Waiting::kill);
        let guest = self.guest.take().map_or(Ok(()), Vmm::kill);
        let second = self.second.take().map_or(Ok(()), Vmm::kill);
        waiting.and(guest).and(second)
    }
}

/// Waits until something is true.
pub(crate) fn wait_until(
    what: &str,
    mut truth: impl FnMut() -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut failure = None;
    let waited = host::wait_for(what, LIMIT, || match truth() {
        Ok(truth) => Ok(truth.then_some(())),
        Err(error) => {
            failure = Some(error);
            Ok(Some(()))
        }
    });
    match failure {
        Some(error) => Err(error),
        None => waited.map_err(|error| Failure::Wrong(error.to_string())),
    }
}
