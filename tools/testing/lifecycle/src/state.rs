// SPDX-License-Identifier: GPL-2.0

//! What one user leaves in the function does not reach the next one: it is reset when it is closed,
//! and when it is taken away from who had it open.
//!
//! Opening resets it as well, if it can be. So the next user comes when nothing can reset it.

use crate::{
    child::LIMIT,
    host::{self, Host},
    vmm::Vmm,
};
use ktap::{test, Test};
use vfio_zpci_io::sysfs::DRIVER;

pub(crate) fn tests() -> Vec<Test> {
    vec![
        test("state: closing resets the function", || {
            let mut vmm = marked("default");
            vmm.close();
            vmm.exit();
            assert!(!next_user_finds_it(), "the state of the last user");
            Ok(())
        }),
        test("state: unbinding resets a function that is open", || {
            let mut vmm = marked("default");
            let mut host = Host::start(&["unbind"], 1);
            vmm.asked(LIMIT);
            vmm.close();
            host.done(LIMIT).all_ok("unbind");
            vmm.exit();
            assert!(!next_user_finds_it(), "the state of the last user");
            Ok(())
        }),
        // Without which the tests above would show nothing.
        test("state: where nothing can reset it, it stays", || {
            let mut vmm = marked("none");
            vmm.close();
            vmm.exit();
            assert!(next_user_finds_it(), "a mark that only a reset removes");
            Ok(())
        }),
    ]
}

/// A VMM that has left something in the function, which these methods can reset.
#[track_caller]
fn marked(methods: &str) -> Vmm {
    host::does(&["reset-methods", methods]);
    let mut vmm = Vmm::start(0);
    vmm.mark();
    vmm
}

/// Whether a VMM finds what the last one has left, when opening does not reset the function.
#[track_caller]
fn next_user_finds_it() -> bool {
    host::does(&["reset-methods", "none"]);
    host::does(&["bind", DRIVER]);
    let mut vmm = Vmm::start(0);
    let found = vmm.is_marked();
    vmm.exit();
    found
}
