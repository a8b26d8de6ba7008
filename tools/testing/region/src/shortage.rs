// SPDX-License-Identifier: GPL-2.0

//! Memory is short: the kernel lets one allocation of an operation fail, the first, then the
//! second and so on until the operation has no more (Documentation/fault-injection of the kernel).
//! It ends cleanly each time, and works afterwards.

use crate::{
    fixture::{Fixture, TARGET},
    test, Closed, Test,
};
use booted::{Mapping, PAGE};
use ktap::{note, Outcome, Skip};
use rustix::{
    fs::{Mode, OFlags},
    io::Errno,
    ioctl::{ioctl, opcode, Opcode, Updater},
    mm::MapFlags,
};
use std::{
    cell::Cell,
    fs::{self, File},
    ops::ControlFlow,
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
};
use vfio_zpci_io::{
    abi::{self, Request},
    sysfs::{Function, DRIVER},
    Access, Device,
};

pub(crate) const TESTS: &[Test] = &[test("ENOMEM: no memory for the page of a request", |f| {
    let failing = Failing::new()?;
    f.fill(TARGET, 16, 0x11);
    for request in f.each() {
        let mut failed = 0;
        failing.each(
            // Memory without a page, and without a page table: both are made on demand.
            || Mapping::anonymous(MEMORY, MapFlags::empty()).expect("mmap"),
            |memory| {
                let gaddr = memory.addr() + MEMORY as u64 / 2;
                f.send(&Request { gaddr, ..request })
            },
            |memory, result| {
                failed += u32::from(result.is_err());
                let loaded = memory.read(MEMORY / 2, PAGE);
                let untouched = loaded.iter().all(|&byte| byte == 0);
                assert!(result.is_ok() || untouched, "{request:x?}");
                ControlFlow::Continue(())
            },
        );
        // The value of a store is copied. Where that fails, its page is pinned, for which there is
        // memory again: that no request says EFAULT is what is shown.
        let tried_again = request.flags == abi::WRITE;
        assert_eq!(failed == 0, tried_again, "{request:x?} needs memory");
        note(&format!("flags {}: {failed} times ENOMEM", request.flags));
    }
    f.all_accepted(f.each())
})];

/// The function is bound, and nobody has it open.
pub(crate) const CLOSED: &[Closed] = &[
    Closed {
        name: "ENOMEM: no memory to open the device",
        run: |function| {
            let failing = Failing::new()?;
            let allocations = Allocations::trace()?;
            let before = enabled(function);
            let node = function.vfio_device().expect("sysfs").expect("a node");
            let mut failed = 0;
            // Two opens do not allocate quite the same, so an allocation may have been left out.
            let no_region = (0..Failing::ROUNDS).any(|_| {
                let mut no_region = false;
                failing.each(
                    || open("/dev/iommu", OFlags::RDWR),
                    |iommufd| open_device(&node, iommufd).map(drop),
                    |_, result| {
                        failed += u32::from(result.is_err());
                        let made = allocations.take();
                        no_region |= made.lines().any(|line| {
                            line.contains("=vfio_pci_core_register_dev_region+")
                                && line.contains(Allocations::FAILED)
                        });
                        ControlFlow::Continue(())
                    },
                );
                no_region
            });
            assert!(no_region, "there was always memory for the region");
            note(&format!("{failed} times ENOMEM"));
            works(function)?;
            assert_eq!(enabled(function), before, "users of the function");
            Ok(())
        },
    },
    Closed {
        name: "ENOMEM: no memory to close the device",
        run: |function| {
            let failing = Failing::new()?;
            let before = enabled(function);
            let node = function.vfio_device().expect("sysfs").expect("a node");
            let allocations = failing.each(
                || {
                    let iommufd = open("/dev/iommu", OFlags::RDWR);
                    let device = open_device(&node, &iommufd).expect("open");
                    (Cell::new(Some(device)), iommufd)
                },
                |(device, _)| {
                    drop(device.take());
                    Ok(())
                },
                |_, _| {
                    assert_eq!(enabled(function), before, "users of the function");
                    ControlFlow::Continue(())
                },
            );
            note(&format!("{allocations} allocations"));
            works(function)
        },
    },
    Closed {
        name: "ENOMEM: no memory to reset the function",
        run: |function| {
            let failing = Failing::new()?;
            let path = function.directory().join("reset");
            let allocations = failing.each(
                || open(&path, OFlags::WRONLY),
                |reset| rustix::io::write(reset, b"1").map(drop),
                |_, _| ControlFlow::Continue(()),
            );
            note(&format!("{allocations} allocations"));
            works(function)
        },
    },
    Closed {
        name: "ENOMEM: no memory to unbind the driver",
        run: |function| {
            let failing = Failing::new()?;
            let allocations = failing.each(
                || {
                    function.bind(DRIVER).expect("bind");
                    open(function.directory().join("driver/unbind"), OFlags::WRONLY)
                },
                |unbind| {
                    rustix::io::write(unbind, function.address().to_string().as_bytes()).map(drop)
                },
                |_, result| {
                    match result {
                        Ok(()) => nothing_is_left(function),
                        // What was written has not got as far as to the driver.
                        Err(_) => assert!(function.driver().expect("sysfs").is_some(), "bound"),
                    }
                    ControlFlow::Continue(())
                },
            );
            note(&format!("{allocations} allocations"));
            function.bind(DRIVER).expect("bind");
            works(function)
        },
    },
    Closed {
        name: "ENOMEM: no memory to bind the driver",
        run: |function| {
            let failing = Failing::objects()?;
            let allocations = Allocations::trace()?;
            let address = function.address().to_string();
            let control = |name| {
                let path = Path::new("/sys/bus/pci/drivers").join(DRIVER).join(name);
                open(path, OFlags::WRONLY)
            };
            let write = |file: &OwnedFd| rustix::io::write(file, address.as_bytes()).map(drop);
            let mut failed = 0;
            write(&control("unbind")).expect("unbind");
            failing.each(
                || control("bind"),
                |bind| write(bind),
                |_, result| {
                    let made = allocations.take();
                    match result {
                        // With less than it wanted, but bound.
                        Ok(()) => write(&control("unbind")).expect("unbind"),
                        Err(_) => failed += 1,
                    }
                    nothing_is_left(function);
                    match result.is_err() && made.contains("vfio_assign_device_set") {
                        // The rest is the VFIO core's, which soon gives up a group in a way that it
                        // warns about itself: with the IOMMU group still in it.
                        true => ControlFlow::Break(()),
                        false => ControlFlow::Continue(()),
                    }
                },
            );
            write(&control("bind")).expect("bind");
            assert_ne!(failed, 0, "it needs memory");
            note(&format!("{failed} times ENOMEM"));
            works(function)
        },
    },
];

/// Four segments of s390: one at least has no page table yet.
const MEMORY: usize = 4 << 20;

/// Memory that cannot be had, for this thread.
struct Failing(File);

impl Failing {
    /// No operation allocates more often, by far.
    const LIMIT: u32 = 5000;
    /// After so many operations without a failure there is no further allocation. One is not enough:
    /// an operation sometimes finds what another one has left.
    const NONE: u32 = 8;
    /// How often a test may look for an allocation that it wants to fail.
    const ROUNDS: u32 = 20;

    /// Objects and pages.
    fn new() -> Result<Self, Skip> {
        Self::with_pages_from_order("0")
    }

    /// Objects alone: how many pages they take depends on what was before.
    fn objects() -> Result<Self, Skip> {
        Self::with_pages_from_order("32")
    }

    fn with_pages_from_order(min_order: &str) -> Result<Self, Skip> {
        let set = |path: &Path, value| {
            fs::write(path, value).map_err(|error| Skip(format!("{}: {error}", path.display())))
        };
        // Allocations that may wait fail as well, those for user space, too; and nothing is said
        // about it.
        for (file, value) in [
            ("failslab/ignore-gfp-wait", "N"),
            ("failslab/cache-filter", "Y"),
            ("failslab/verbose", "0"),
            ("fail_page_alloc/ignore-gfp-wait", "N"),
            ("fail_page_alloc/ignore-gfp-highmem", "N"),
            ("fail_page_alloc/min-order", min_order),
            ("fail_page_alloc/verbose", "0"),
        ] {
            set(&Path::new("/sys/kernel/debug").join(file), value)?;
        }
        // All objects but those that kmemleak makes for each of the others. It can do without, so
        // that nothing is seen of such a failure, and it makes one more the next time.
        let caches = fs::read_dir("/sys/kernel/slab").map_err(|error| Skip(error.to_string()))?;
        for cache in caches {
            let path = cache.map_err(|error| Skip(error.to_string()))?.path();
            let is_kmemleak =
                path.ends_with("kmemleak_object") || path.ends_with("kmemleak_scan_area");
            set(&path.join("failslab"), if is_kmemleak { "0" } else { "1" })?;
        }
        let file = File::options()
            .read(true)
            .write(true)
            .open("/proc/thread-self/fail-nth");
        file.map(Self)
            .map_err(|error| Skip(format!("fail-nth: {error}")))
    }

    /// Lets the allocation of that number fail, counted from now; 0 for none.
    fn set(&self, number: u32) {
        self.0
            .write_all_at(number.to_string().as_bytes(), 0)
            .expect("fail-nth");
    }

    /// Whether it has failed.
    fn has_failed(&self) -> bool {
        let mut left = [0; 8];
        let len = self.0.read_at(&mut left, 0).expect("fail-nth");
        left[..len] == *b"0\n"
    }

    /// Runs `operation` for each of its allocations, which fails: it succeeds or says `ENOMEM`.
    /// Ends when nothing has failed for a while, or `after` has seen enough, and returns the number of
    /// the last allocation.
    fn each<T>(
        &self,
        prepare: impl Fn() -> T,
        operation: impl Fn(&T) -> Result<(), Errno>,
        mut after: impl FnMut(T, Result<(), Errno>) -> ControlFlow<()>,
    ) -> u32 {
        let mut last = 0;
        for number in 1..Self::LIMIT {
            let prepared = prepare();
            self.set(number);
            let result = operation(&prepared);
            let failed = self.has_failed();
            self.set(0);
            match result {
                Ok(()) => {}
                Err(Errno::NOMEM) if failed => {}
                Err(errno) => panic!("allocation {number} failed: {errno}"),
            }
            if failed {
                last = number;
            }
            if after(prepared, result).is_break() || number == last + Self::NONE {
                return last;
            }
        }
        panic!("the operation allocates without end");
    }
}

/// A trace of the allocations of this thread.
struct Allocations(());

impl Allocations {
    const TRACING: &str = "/sys/kernel/tracing";
    /// In the line of one that has failed.
    const FAILED: &str = " ptr=0000000000000000 ";

    fn trace() -> Result<Self, Skip> {
        let this = Self(());
        let thread = rustix::thread::gettid().as_raw_nonzero().to_string();
        this.set("set_event_pid", &thread)?;
        this.set("events/kmem/kmalloc/enable", "1")?;
        Ok(this)
    }

    fn set(&self, file: &str, value: &str) -> Result<(), Skip> {
        fs::write(Path::new(Self::TRACING).join(file), value)
            .map_err(|error| Skip(format!("{file}: {error}")))
    }

    /// Those since the last time, each with the function that made it.
    fn take(&self) -> String {
        let path = Path::new(Self::TRACING).join("trace");
        let trace = fs::read_to_string(&path).expect("the trace");
        // Opening it for writing empties it.
        fs::write(path, "").expect("an empty trace");
        trace
    }
}

impl Drop for Allocations {
    fn drop(&mut self) {
        let _ = self.set("events/kmem/kmalloc/enable", "0");
        let _ = self.set("set_event_pid", "");
    }
}

/// The start of `struct vfio_device_bind_iommufd`.
#[repr(C)]
struct Bind {
    argsz: u32,
    flags: u32,
    iommufd: i32,
    out_devid: u32,
}

const VFIO_DEVICE_BIND_IOMMUFD: Opcode = opcode::none(b';', 118);

/// Opens the device as far as the driver has to do with it.
fn open_device(node: &Path, iommufd: &OwnedFd) -> Result<OwnedFd, Errno> {
    let device = rustix::fs::open(node, OFlags::RDWR, Mode::empty())?;
    let mut bind = Bind {
        argsz: size_of::<Bind>() as u32,
        flags: 0,
        iommufd: iommufd.as_raw_fd(),
        out_devid: 0,
    };
    // SAFETY: The structure is that of the kernel's header.
    unsafe {
        ioctl(
            &device,
            Updater::<VFIO_DEVICE_BIND_IOMMUFD, _>::new(&mut bind),
        )
    }?;
    Ok(device)
}

fn open(path: impl AsRef<Path>, flags: OFlags) -> OwnedFd {
    let path = path.as_ref();
    rustix::fs::open(path, flags, Mode::empty())
        .unwrap_or_else(|errno| panic!("{}: {errno}", path.display()))
}

/// How often the function has been enabled, and not disabled yet.
fn enabled(function: &Function) -> u64 {
    function.number("enable").expect("the number of users")
}

/// The driver is not bound, and has kept nothing of the function that others see.
fn nothing_is_left(function: &Function) {
    assert_eq!(function.driver().expect("sysfs"), None, "the driver");
    let fid = function.zpci_fid().expect("a zPCI function");
    let numbers = format!("/sys/kernel/debug/zpci-vfio-pci-{fid:08x}");
    assert!(!Path::new(&numbers).exists(), "its numbers in debugfs");
    let users = fs::read_to_string(format!("/sys/module/{DRIVER}/refcnt"));
    assert_eq!(users.expect("sysfs").trim(), "0", "users of the module");
}

/// The function can be used.
fn works(function: &Function) -> Outcome {
    let device = Device::open(&function.address(), Access::Iommufd).expect("open");
    let fixture = Fixture::new(&device, false).expect("the region");
    fixture.all_accepted(fixture.each())
}
