// SPDX-License-Identifier: GPL-2.0

//! What `lease.rs` and `wait.rs` use of the `kernel` crate.

pub mod prelude {
    pub use core::{ffi::c_long, pin::Pin};
    pub use pinned_init::{pin_data, pin_init, PinInit};

    /// The errors of a request that waits.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum Error {
        Again,
        Interrupted,
    }

    pub const EAGAIN: Error = Error::Again;
    pub const EINTR: Error = Error::Interrupted;

    pub type Result<T = ()> = core::result::Result<T, Error>;
    pub type CStr = core::ffi::CStr;
}

/// Lockdep keys: there is no lockdep.
#[macro_export]
macro_rules! static_lock_class {
    () => {
        ()
    };
}

/// A warning of the kernel ends the test.
#[macro_export]
macro_rules! warn_on {
    ($condition:expr) => {
        assert!(!$condition)
    };
}

pub mod sync {
    /// As rust/kernel/sync/atomic.rs, for `u32`.
    pub mod atomic {
        use loom::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

        pub struct Relaxed;
        pub struct Acquire;
        pub struct Release;
        /// A full memory barrier before and after.
        pub struct Full;

        pub trait Order {
            const ATOMIC: Ordering;
            const FULL: bool = false;
        }
        impl Order for Relaxed {
            const ATOMIC: Ordering = Ordering::Relaxed;
        }
        impl Order for Acquire {
            const ATOMIC: Ordering = Ordering::Acquire;
        }
        impl Order for Release {
            const ATOMIC: Ordering = Ordering::Release;
        }
        impl Order for Full {
            const ATOMIC: Ordering = Ordering::AcqRel;
            const FULL: bool = true;
        }

        pub struct Atomic<T>(AtomicU32, core::marker::PhantomData<T>);

        impl Atomic<u32> {
            pub fn new(value: u32) -> Self {
                Self(AtomicU32::new(value), core::marker::PhantomData)
            }

            pub fn load<O: Order>(&self, _: O) -> u32 {
                self.0.load(O::ATOMIC)
            }

            pub fn store<O: Order>(&self, value: u32, _: O) {
                self.0.store(value, O::ATOMIC);
            }

            pub fn fetch_add<O: Order>(&self, value: u32, _: O) -> u32 {
                full::<O, _>(|| self.0.fetch_add(value, O::ATOMIC))
            }

            pub fn fetch_sub<O: Order>(&self, value: u32, _: O) -> u32 {
                full::<O, _>(|| self.0.fetch_sub(value, O::ATOMIC))
            }

            pub fn cmpxchg<O: Order>(&self, old: u32, new: u32, _: O) -> Result<u32, u32> {
                full::<O, _>(|| {
                    self.0
                        .compare_exchange(old, new, O::ATOMIC, Ordering::Relaxed)
                })
            }
        }

        fn full<O: Order, R>(operation: impl FnOnce() -> R) -> R {
            if O::FULL {
                fence();
            }
            let result = operation();
            if O::FULL {
                fence();
            }
            result
        }

        loom::lazy_static! {
            static ref POINT: AtomicUsize = AtomicUsize::new(0);
        }

        /// A full memory barrier, before which other threads may run. loom has them run only before
        /// an access to what they access, too, so there is one, in no order with others.
        pub fn fence() {
            POINT.fetch_add(1, Ordering::Relaxed);
            loom::sync::atomic::fence(Ordering::SeqCst);
        }
    }

    pub mod barrier {
        pub use super::atomic::Full;

        pub fn smp_mb(_: Full) {
            super::atomic::fence();
        }
    }
}

/// Time does not pass, so nobody loses patience.
pub mod time {
    #[derive(Clone, Copy, PartialEq, PartialOrd)]
    pub struct Delta(i64);

    impl Delta {
        pub const ZERO: Self = Self(0);

        pub const fn from_secs(seconds: i64) -> Self {
            Self(seconds)
        }
    }

    pub struct Monotonic;

    pub struct Instant<C>(core::marker::PhantomData<C>);

    impl<C> Clone for Instant<C> {
        fn clone(&self) -> Self {
            *self
        }
    }

    impl<C> Copy for Instant<C> {}

    impl<C> Instant<C> {
        pub fn now() -> Self {
            Self(core::marker::PhantomData)
        }

        pub fn elapsed(&self) -> Delta {
            Delta::ZERO
        }
    }
}
